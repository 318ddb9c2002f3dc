/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Dump: the table is told once, slots first, by two cursors that survive whatever happens to the table between two messages;
 * to a successor by what the table says has changed.
 *
 * A message of its own for each of ten thousand descriptors is most of what a takeover costs the keeper, and a good part of
 * what it costs the successor. So several go together as soon as the supervisor has said that it takes that (PACK). A pack is
 * put together anew for each attempt to send it, and what is in it counts as told only when the kernel took all of it:
 * nothing has to be remembered of one that did not fit but where it began.
 */

#include "supervisor/keeper/dump.h"

#include <string.h>

#include "common/fd.h"
#include "common/pace.h"

typedef struct Pack {
        KeeperMessage messages[KEEPER_PACK_MAX];
        size_t n, n_max;
        int fds[KEEPER_PACK_MAX]; /* borrowed */
        size_t n_fds;
        union { /* what is told by it */
                TableSlot *slots[KEEPER_PACK_MAX];
                TableFd *entries[KEEPER_PACK_MAX];
        };
} Pack;

/* pack_init() - not by an initialiser: it is large, and mostly not used. */
static void pack_init(Pack *pack, const Port *port) {
        pack->n = pack->n_fds = 0;
        pack->n_max = port->packs ? KEEPER_PACK_MAX : 1;
}

static void pack_add(Pack *pack, const Port *port, const KeeperMessage *m, int fd) {
        KeeperMessage *added = &pack->messages[pack->n++];

        *added = *m;
        if (!port->packs)
                added->flags |= KEEPER_FLAG_PACKS;
        if (fd < 0)
                return;
        added->flags |= KEEPER_FLAG_FD;
        pack->fds[pack->n_fds++] = fd;
}

static PortFlushed pack_send(Pack *pack, Port *port) {
        PortFlushed r = pack->n > 0 ? port_send(port, pack->messages, pack->n, pack->fds, pack->n_fds) : PORT_SENT;

        (void) pace_keep();
        return r;
}

/* add_slot() - with its pidfd, or without where there is no descriptor to spare for it. */
static void add_slot(Pack *pack, const Port *port, const Table *table, TableSlot *slot, bool again) {
        static const KeeperSlotState states[] = {
                [TABLE_RESERVED] = KEEPER_SLOT_RESERVED,
                [TABLE_BORN] = KEEPER_SLOT_BORN,
                [TABLE_EXITED] = KEEPER_SLOT_EXITED,
                [TABLE_KEPT] = KEEPER_SLOT_KEPT,
        };
        int pidfd = slot->state == TABLE_BORN ? table_get(slot, KEEPER_FD_MAIN, (uint64_t) slot->pid) : -1;
        KeeperMessage m = {
                .type = KEEPER_SLOT,
                .instance = slot->instance,
                .result = (int32_t) states[slot->state],
                .flags = slot->flags | (slot->started ? KEEPER_FLAG_STARTED : 0) |
                         (slot->active ? KEEPER_FLAG_ACTIVE : 0) | (slot->doomed ? KEEPER_FLAG_DOOMED : 0),
                .pid = slot->pid,
                .wait_code = slot->wait_code,
                .wait_status = slot->wait_status,
        };

        memcpy(m.name, slot->name, sizeof(m.name));
        memcpy(m.record, slot->record, sizeof(m.record));
        if (slot->state == TABLE_BORN && !again && pidfd < 0)
                pidfd = table_pidfd(table, slot);
        pack_add(pack, port, &m, again ? -1 : pidfd);
}

static void add_fd(Pack *pack, const Port *port, const TableFd *entry) {
        const KeeperMessage m = {
                .type = KEEPER_STORED,
                .instance = entry->slot->instance,
                .fd_kind = entry->kind,
                .fd_tag = entry->tag,
        };

        pack_add(pack, port, &m, entry->fd);
}

/* add_gone() - a slot, or, with @entry, a descriptor of it. */
static void add_gone(Pack *pack, const Port *port, uint64_t instance, const TableFd *entry) {
        const KeeperMessage m = {
                .type = KEEPER_GONE,
                .instance = instance,
                .fd_kind = entry ? entry->kind : KEEPER_FD_NONE,
                .fd_tag = entry ? entry->tag : 0,
        };

        pack_add(pack, port, &m, -1);
}

/* -------------------------------------------------------------------------------------------------------- by the cursor */

/* What was cancelled is nobody's any more. */
static PortFlushed tell_slots(Port *port, Table *table) {
        size_t cursor = port->cursor;
        TableSlot *slot = NULL;
        PortFlushed r;
        Pack pack;

        pack_init(&pack, port);
        while (pack.n < pack.n_max && (slot = table_walk_slots(table, &cursor)))
                if (!slot->cancelled)
                        add_slot(&pack, port, table, slot, false);
        r = pack_send(&pack, port);
        if (r != PORT_SENT)
                return r;
        port->cursor = slot ? cursor : 0;
        port->n_slots += pack.n;
        if (!slot)
                port->dump = PORT_DUMP_FDS;
        return r;
}

static PortFlushed tell_fds(Port *port, Table *table) {
        size_t cursor = port->cursor;
        TableFd *entry = NULL;
        PortFlushed r;
        Pack pack;

        pack_init(&pack, port);
        while (pack.n < pack.n_max && (entry = table_walk_fds(table, &cursor)))
                if (!entry->slot->cancelled)
                        add_fd(&pack, port, entry);
        r = pack_send(&pack, port);
        if (r != PORT_SENT)
                return r;
        port->cursor = entry ? cursor : 0;
        port->n_told += pack.n;
        if (!entry)
                port->dump = PORT_DUMP_DEATHS;
        return r;
}

static PortFlushed tell_next_death(Port *port, const Table *table) {
        const TableDeath *death = table_death(table, port->cursor);
        KeeperMessage m = { .type = KEEPER_DIED };
        PortFlushed r;

        if (!death) {
                port->dump = PORT_DUMP_END;
                return PORT_SENT;
        }
        m.instance = death->generation;
        m.pid = death->pid;
        m.fd_tag = death->time_us;
        m.flags = death->went_back ? KEEPER_FLAG_WENT_BACK : 0;
        memcpy(m.record, death->how, sizeof(death->how));
        r = port_send(port, &m, 1, NULL, 0);
        port->cursor += r == PORT_SENT;
        return r;
}

static PortFlushed tell_end(Port *port, Table *table) {
        KeeperMessage m = {
                .type = KEEPER_END,
                .instance = port->n_slots,
                .fd_tag = port->n_told,
                .flags = port->dump != PORT_DUMP_CHANGES || port->is_final ? KEEPER_FLAG_FINAL : 0,
        };
        PortFlushed r = port_send(port, &m, 1, NULL, 0);

        if (r != PORT_SENT)
                return r;
        port->owes_end = false;
        if (!(m.flags & KEEPER_FLAG_FINAL))
                return r;
        if (port->dump == PORT_DUMP_CHANGES)
                table_unwatch(table);
        port->dump = PORT_DUMP_DONE;
        return r;
}

/* ------------------------------------------------------------------------------------------------------- to a successor */

static bool is_gone(const TableSlot *slot) {
        return slot->state == TABLE_GONE || slot->cancelled;
}

static PortFlushed tell_changed_slots(Port *port, Table *table) {
        TableSlot *slot = NULL;
        PortFlushed r;
        Pack pack;

        pack_init(&pack, port);
        while (pack.n < pack.n_max && (slot = table_next_changed(table, slot))) {
                pack.slots[pack.n] = slot;
                if (is_gone(slot))
                        add_gone(&pack, port, slot->instance, NULL);
                else
                        add_slot(&pack, port, table, slot, slot->told_pid);
        }
        r = pack_send(&pack, port);
        for (size_t i = 0; r == PORT_SENT && i < pack.n; i++) {
                slot = pack.slots[i];
                port->n_slots += !is_gone(slot);
                slot->told_pid = slot->state == TABLE_BORN;
                table_told(table, slot);
        }
        port->owes_end |= r == PORT_SENT;
        return r;
}

/* tell_changed_fds() - those of what was cancelled count as told. */
static PortFlushed tell_changed_fds(Port *port, Table *table) {
        TableFd *entry = NULL, *untold = NULL;
        PortFlushed r;
        Pack pack;

        pack_init(&pack, port);
        while (pack.n < pack.n_max && (entry = table_next_changed_fd(table, untold))) {
                if (entry->fd >= 0 && entry->slot->cancelled) {
                        table_told_fd(table, entry);
                        continue;
                }
                untold = pack.entries[pack.n] = entry;
                if (entry->fd < 0)
                        add_gone(&pack, port, entry->slot->instance, entry);
                else
                        add_fd(&pack, port, entry);
        }
        r = pack_send(&pack, port);
        for (size_t i = 0; r == PORT_SENT && i < pack.n; i++) {
                port->n_told += pack.entries[i]->fd >= 0;
                table_told_fd(table, pack.entries[i]);
        }
        port->owes_end |= r == PORT_SENT;
        return r;
}

/* tell_changes() - while its predecessor serves. */
static PortFlushed tell_changes(Port *port, Table *table) {
        PortFlushed r = PORT_SENT;

        pace_begin();
        while (r == PORT_SENT && table_next_changed(table, NULL))
                r = tell_changed_slots(port, table);
        while (r == PORT_SENT && table_next_changed_fd(table, NULL))
                r = tell_changed_fds(port, table);
        pace_end();
        return r == PORT_SENT && (port->owes_end || port->is_final) ? tell_end(port, table) : r;
}

PortFlushed dump_flush(Port *port, Table *table) {
        PortFlushed r = PORT_SENT;

        if (port->dump == PORT_DUMP_CHANGES)
                return tell_changes(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_SLOTS)
                r = tell_slots(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_FDS)
                r = tell_fds(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_DEATHS)
                r = tell_next_death(port, table);
        if (r == PORT_SENT && port->dump == PORT_DUMP_END)
                r = tell_end(port, table);
        return r;
}

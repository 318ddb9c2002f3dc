/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port: one supervisor as the keeper sees it. Nothing here waits and nothing is allocated: answers go to a ring as large as
 * the window that the supervisor must keep, where a success is replaced by what follows it; exit reports are not queued at
 * all but derived from the table, so that none can be lost with a port. The table itself is told once, slots first, by two
 * cursors that survive whatever happens to the table between two messages; to a successor by what the table says has
 * changed.
 *
 * Only the keeper's end has SO_PASSCRED, so every message comes with its sender's pid from the kernel: a child that says
 * BORN cannot be mistaken for another. A message is read into one byte more than it needs, since a longer one would be
 * cut silently and look right. POLLOUT comes late on unix sockets, so the keeper also flushes after each receive.
 */

#include "supervisor/keeper/port.h"

#include <errno.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

int port_open(Port *port, int *ret_peer) {
        int fds[2], on = 1, r;

        r = fd_socketpair(SOCK_SEQPACKET, fds);
        if (r < 0)
                return r;
        if (setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
                r = -errno;
                fd_close_all(fds, 2);
                return r;
        }
        *port = (Port){ .fd = fds[0], .version = KEEPER_VERSION };
        *ret_peer = fds[1];
        return 0;
}

void port_close(Port *port) {
        fd_close(port->fd);
        *port = PORT_NULL;
}

/* message_error() - what is wrong with it by its form alone. */
static int message_error(const PortMessage *message, unsigned version, const CmsgInfo *info) {
        if (!message->whole || message->m.version != version)
                return -EINVAL;
        if (info->foreign || (info->truncated && info->n_fds > 0))
                return -EINVAL;
        return info->truncated ? -EMFILE : 0;
}

int port_receive(Port *port, PortMessage *ret_message) {
        struct {
                KeeperMessage m;
                char surplus;
        } buffer;
        int fds[KEEPER_FDS_MAX];
        CmsgInfo info;
        ssize_t n;

        if (port->fd < 0)
                return PORT_EMPTY;
        n = cmsg_receive(port->fd, &buffer, sizeof(buffer.m) + 1, fds, KEEPER_FDS_MAX, &info);
        if (n < 0)
                return PORT_EMPTY;
        if (n == 0 && info.n_fds == 0)
                return PORT_CLOSED;
        *ret_message = (PortMessage){
                .n_fds = (unsigned) info.n_fds,
                .pid = info.has_pid ? info.pid : 0,
                .whole = n == sizeof(buffer.m),
        };
        for (size_t i = 0; i < KEEPER_FDS_MAX; i++)
                ret_message->fds[i] = i < info.n_fds ? fds[i] : -1;
        if (ret_message->whole)
                ret_message->m = buffer.m;
        ret_message->error = message_error(ret_message, port->version, &info);
        return 0;
}

void port_release(PortMessage *message) {
        fd_close_all(message->fds, KEEPER_FDS_MAX);
}

void port_end(Port *port) {
        (void) shutdown(port->fd, SHUT_RD);
}

/* send_message() - with nobody at the other end it is as good as sent. */
static PortFlushed send_message(Port *port, KeeperMessage *m, int fd) {
        ssize_t n;

        m->version = port->version;
        n = cmsg_send(port->fd, m, sizeof(*m), &fd, fd >= 0);

        if (n == -EAGAIN)
                return PORT_FULL;
        return n == -ENOBUFS || n == -ENOMEM || n == -ETOOMANYREFS ? PORT_RETRY : PORT_SENT;
}

static PortFlushed send_done(Port *port, uint32_t serial, int result) {
        KeeperMessage m = { .type = KEEPER_DONE, .serial = serial, .result = result };

        return send_message(port, &m, -1);
}

static PortFlushed send_exit(Port *port, const TableSlot *slot) {
        KeeperMessage m = {
                .type = KEEPER_EXIT,
                .instance = slot->instance,
                .pid = slot->pid,
                .wait_code = slot->wait_code,
                .wait_status = slot->wait_status,
        };

        memcpy(m.name, slot->name, sizeof(m.name));
        return send_message(port, &m, -1);
}

static PortFlushed flush_answers(Port *port) {
        while (port->n_answers > 0) {
                size_t first = port->first_answer;
                PortFlushed r = send_done(port, port->answers[first].serial, port->answers[first].result);

                if (r != PORT_SENT)
                        return r;
                port->first_answer = (first + 1) % KEEPER_WINDOW;
                port->n_answers--;
        }
        return PORT_SENT;
}

static PortFlushed flush_words(Port *port) {
        static const struct {
                unsigned say;
                KeeperType type;
        } words[] = {
                { PORT_SAY_RELOAD, KEEPER_RELOAD }, { PORT_SAY_PING, KEEPER_PING },
                { PORT_SAY_GO, KEEPER_GO },         { PORT_SAY_LEAVE, KEEPER_LEAVE },
                { PORT_SAY_THAW, KEEPER_THAW },     { PORT_SAY_REPLACED, KEEPER_REPLACED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
                KeeperMessage m = { .type = (uint16_t) words[i].type };
                PortFlushed r = PORT_SENT;

                if (words[i].say & (PORT_SAY_THAW | PORT_SAY_REPLACED)) {
                        memcpy(m.record, port->text, sizeof(m.record));
                        m.result = port->result;
                }
                if (port->say & words[i].say)
                        r = send_message(port, &m, -1);
                if (r != PORT_SENT)
                        return r;
                port->say &= ~words[i].say;
        }
        return PORT_SENT;
}

/* --------------------------------------------------------------------------------------------------- telling the table */

/*
 * tell_slot() - the pidfd is made here, where the number surely means the child: nobody else reaps. Without a descriptor to
 * spare it goes without.
 */
static PortFlushed tell_slot(Port *port, const TableSlot *slot, bool again) {
        static const KeeperSlotState states[] = {
                [TABLE_RESERVED] = KEEPER_SLOT_RESERVED,
                [TABLE_BORN] = KEEPER_SLOT_BORN,
                [TABLE_EXITED] = KEEPER_SLOT_EXITED,
                [TABLE_KEPT] = KEEPER_SLOT_KEPT,
        };
        int main = slot->state == TABLE_BORN ? table_get(slot, KEEPER_FD_MAIN, (uint64_t) slot->pid) : -1;
        _cleanup_fd_ int pidfd = slot->state == TABLE_BORN && !again && main < 0 ? pidfd_open(slot->pid, 0) : -1;
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
        return send_message(port, &m, again || main < 0 ? pidfd : main);
}

static PortFlushed tell_fd(Port *port, const TableFd *entry) {
        KeeperMessage m = {
                .type = KEEPER_STORED,
                .instance = entry->slot->instance,
                .fd_kind = entry->kind,
                .fd_tag = entry->tag,
        };

        return send_message(port, &m, entry->fd);
}

/* What was cancelled is nobody's any more. */
static PortFlushed tell_next_slot(Port *port, Table *table) {
        size_t cursor = port->cursor;
        TableSlot *slot = table_walk_slots(table, &cursor);
        bool tell = slot && !slot->cancelled;
        PortFlushed r = tell ? tell_slot(port, slot, false) : PORT_SENT;

        if (r != PORT_SENT)
                return r;
        port->cursor = slot ? cursor : 0;
        port->n_slots += tell;
        if (!slot)
                port->dump = PORT_DUMP_FDS;
        return PORT_SENT;
}

static PortFlushed tell_next_fd(Port *port, Table *table) {
        size_t cursor = port->cursor;
        TableFd *entry = table_walk_fds(table, &cursor);
        bool tell = entry && !entry->slot->cancelled;
        PortFlushed r = tell ? tell_fd(port, entry) : PORT_SENT;

        if (r != PORT_SENT)
                return r;
        port->cursor = cursor;
        port->n_told += tell;
        if (!entry) {
                port->cursor = 0;
                port->dump = PORT_DUMP_DEATHS;
        }
        return PORT_SENT;
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
        r = send_message(port, &m, -1);
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
        PortFlushed r = send_message(port, &m, -1);

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

/* ---- to a successor ---- */

static PortFlushed tell_gone(Port *port, uint64_t instance, const TableFd *entry) {
        KeeperMessage m = {
                .type = KEEPER_GONE,
                .instance = instance,
                .fd_kind = entry ? entry->kind : KEEPER_FD_NONE,
                .fd_tag = entry ? entry->tag : 0,
        };

        return send_message(port, &m, -1);
}

static PortFlushed tell_changed_slot(Port *port, Table *table, TableSlot *slot) {
        bool is_gone = slot->state == TABLE_GONE || slot->cancelled;
        PortFlushed r = is_gone ? tell_gone(port, slot->instance, NULL) : tell_slot(port, slot, slot->told_pid);

        if (r != PORT_SENT)
                return r;
        port->n_slots += !is_gone;
        port->owes_end = true;
        slot->told_pid = slot->state == TABLE_BORN;
        table_told(table, slot);
        return r;
}

static PortFlushed tell_changed_fd(Port *port, Table *table, TableFd *entry) {
        bool is_gone = entry->fd < 0, tell = !is_gone && !entry->slot->cancelled;
        PortFlushed r = is_gone ? tell_gone(port, entry->slot->instance, entry)
                        : tell  ? tell_fd(port, entry)
                                : PORT_SENT;

        if (r != PORT_SENT)
                return r;
        port->n_told += tell;
        port->owes_end = true;
        table_told_fd(table, entry);
        return r;
}

static PortFlushed tell_changes(Port *port, Table *table) {
        PortFlushed r = PORT_SENT;
        TableSlot *slot;
        TableFd *entry;

        while (r == PORT_SENT && (slot = table_next_changed(table)))
                r = tell_changed_slot(port, table, slot);
        while (r == PORT_SENT && (entry = table_next_changed_fd(table)))
                r = tell_changed_fd(port, table, entry);
        return r == PORT_SENT && (port->owes_end || port->is_final) ? tell_end(port, table) : r;
}

static PortFlushed flush_table(Port *port, Table *table) {
        PortFlushed r = PORT_SENT;

        if (port->dump == PORT_DUMP_CHANGES)
                return tell_changes(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_SLOTS)
                r = tell_next_slot(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_FDS)
                r = tell_next_fd(port, table);
        while (r == PORT_SENT && port->dump == PORT_DUMP_DEATHS)
                r = tell_next_death(port, table);
        if (r == PORT_SENT && port->dump == PORT_DUMP_END)
                r = tell_end(port, table);
        return r;
}

static PortFlushed flush_exits(Port *port, Table *table) {
        TableSlot *slot;

        while ((slot = table_next_exit(table))) {
                PortFlushed r = send_exit(port, slot);

                if (r != PORT_SENT)
                        return r;
                table_reported(table, slot);
        }
        return PORT_SENT;
}

int port_answer(Port *port, uint32_t serial, int result) {
        size_t last = (port->first_answer + port->n_answers + KEEPER_WINDOW - 1) % KEEPER_WINDOW;
        bool merges = port->n_answers > 0 && port->answers[last].result == 0;

        if (!merges && port->n_answers == KEEPER_WINDOW)
                return -ENOBUFS;
        if (!merges)
                last = (port->first_answer + port->n_answers++) % KEEPER_WINDOW;
        port->answers[last].serial = serial;
        port->answers[last].result = result;
        return 0;
}

PortFlushed port_flush(Port *port, Table *table) {
        PortFlushed r;

        if (port->fd < 0)
                return PORT_SENT;
        r = flush_answers(port);
        if (r == PORT_SENT)
                r = flush_words(port);
        if (r == PORT_SENT)
                r = flush_table(port, table);
        return r == PORT_SENT && !port->waits ? flush_exits(port, table) : r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper, requests: what supervisor and children ask for, as a table. Every message is checked by its form first (port.c)
 * and by what its type may bring; nothing that is sent here can do more than be refused or end its sender. What wants an
 * answer gets one always, also when it is malformed, as long as its serial can be believed.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/keeper/keeper-internal.h"

typedef int RequestHandler(Keeper *k, PortMessage *message);

/* is_puttable() - what belongs to no instance is a short list, and the control listener is ours. */
static bool is_puttable(const KeeperMessage *m) {
        if (m->instance == 0)
                return m->fd_kind == KEEPER_FD_CONFIG || m->fd_kind == KEEPER_FD_HISTORY ||
                       m->fd_kind == KEEPER_FD_RING || m->fd_kind == KEEPER_FD_SCRATCH ||
                       m->fd_kind == KEEPER_FD_SOCKET;
        return m->fd_kind < KEEPER_FD_CONTROL || m->fd_kind == KEEPER_FD_MAIN;
}

static int put_reserved(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;
        int *fd = message->fds, r = 0;

        for (uint64_t tag = 1; r == 0 && tag <= 2 && (m->flags & KEEPER_FLAG_LOGS); tag++)
                r = table_put(k->table, m->instance, KEEPER_FD_LOG, tag, false, fd_take(fd++));
        if (r == 0 && m->fd_kind != KEEPER_FD_NONE)
                r = table_put(k->table, m->instance, m->fd_kind, m->fd_tag, false, fd_take(fd));
        return r;
}

static int on_reserve(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;
        unsigned n_fds = (m->flags & KEEPER_FLAG_LOGS ? 2 : 0) + (m->fd_kind != KEEPER_FD_NONE);
        int r;

        if (k->phase >= PHASE_KILLING)
                return -ESHUTDOWN;
        if (message->n_fds != n_fds || m->instance == 0 || (m->fd_kind != KEEPER_FD_NONE && !is_puttable(m)))
                return -EINVAL;
        r = table_reserve(k->table, m->instance, m->name, m->flags & ~KEEPER_FLAG_LOGS, m->record);
        if (r < 0)
                return r;
        r = put_reserved(k, message);
        if (r < 0)
                table_free_slot(k->table, table_find(k->table, m->instance));
        return r;
}

static int on_put(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;

        if (!is_puttable(m))
                return -EINVAL;
        return table_put(k->table, m->instance, m->fd_kind, m->fd_tag, m->flags & KEEPER_FLAG_REPLACE,
                         fd_take(message->fds));
}

static int on_drop(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;
        TableSlot *slot = m->fd_kind == KEEPER_FD_MAIN ? table_find(k->table, m->instance) : NULL;
        bool followed = slot && follow_is_followed(slot) && (uint64_t) slot->pid == m->fd_tag;
        int r = is_puttable(m) ? table_drop(k->table, m->instance, m->fd_kind, m->fd_tag) : -EINVAL;

        if (r == 0 && followed)
                follow_dropped(k, slot);
        return r;
}

static int started(Keeper *k, uint64_t instance) {
        TableSlot *slot = table_find(k->table, instance);

        if (!slot)
                return -ENOENT;
        if (slot->state == TABLE_RESERVED || slot->state == TABLE_KEPT)
                return -ENOTCONN; /* it says that there is a child, which did not say BORN */
        table_started(k->table, slot);
        return 0;
}

/* on_started() - of several the last that makes no sense is told. */
static int on_started(Keeper *k, PortMessage *message) {
        uint64_t instance = message->m.instance, wrong = 0;
        int r = 0;

        for (size_t i = 0; instance != 0; i++) {
                int error = started(k, instance);

                if (error < 0) {
                        r = error;
                        wrong = instance;
                }
                instance = 0;
                if (i < KEEPER_STARTED_MAX - 1)
                        memcpy(&instance, message->m.record + i * sizeof(instance), sizeof(instance));
        }
        if (r < 0)
                message->m.instance = wrong;
        return r;
}

/*
 * on_cancel() - the supervisor knows of no child. One that was killed from outside between its BORN and telling the
 * supervisor so is a child all the same: it is not let live, and goes without a report.
 */
static int on_cancel(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        if (slot->state == TABLE_BORN) {
                table_doom(k->table, slot);
                slot->cancelled = true;
                table_touch(k->table, slot);
                return keeper_kill_runner(slot, SIGKILL);
        }
        table_free_slot(k->table, slot);
        return 0;
}

static int on_signal(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        return slot->state == TABLE_BORN ? keeper_kill_runner(slot, message->m.result) : -ESRCH;
}

static int on_record(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        memcpy(slot->record, message->m.record, sizeof(slot->record));
        table_touch(k->table, slot);
        return 0;
}

static int on_active(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        table_activate(k->table, slot);
        return 0;
}

static int on_ack(Keeper *k, PortMessage *message) {
        TableSlot *slot = table_find(k->table, message->m.instance);

        if (!slot)
                return -ENOENT;
        if (slot->state != TABLE_EXITED)
                return -EALREADY;
        if (message->m.flags & KEEPER_FLAG_KEPT)
                return table_keep(k->table, slot);
        table_free_slot(k->table, slot);
        return 0;
}

static int on_notify(Keeper *k, PortMessage *message) {
        const KeeperMessage *m = &message->m;

        if (m->result < 0 || m->result >= _KEEPER_NOTIFY_N || !memchr(m->record, '\0', sizeof(m->record)))
                return -EINVAL;
        if (strchr((const char *) m->record, '\n')) /* it would be another assignment */
                return -EINVAL;
        notify_say(&k->notify, (KeeperNotify) m->result, (const char *) m->record);
        return 0;
}

static int on_pong(Keeper *k, PortMessage *message) {
        (void) message;
        k->pinged_us = 0;
        notify_alive(&k->notify);
        return 0;
}

static int on_serving(Keeper *k, PortMessage *message) {
        (void) message;
        succession_serving(k);
        return 0;
}

static int on_pack(Keeper *k, PortMessage *message) {
        (void) message;
        k->port.packs = true;
        return 0;
}

static int on_program(Keeper *k, PortMessage *message) {
        return takeover_program(k, fd_take(message->fds));
}

static int on_replace(Keeper *k, PortMessage *message) {
        return replace_begin(k, fd_take(message->fds), message->m.flags & KEEPER_FLAG_CHECK);
}

static int on_takeover(Keeper *k, PortMessage *message) {
        return takeover_begin(k, fd_take(message->fds));
}

/* on_frozen(), on_abort() - of the supervisor itself: a child that still holds its socket has no say in this. */
static int on_frozen(Keeper *k, PortMessage *message) {
        return message->pid == k->supervisor ? takeover_frozen(k) : -EPERM;
}

static int on_abort(Keeper *k, PortMessage *message) {
        return message->pid == k->supervisor ? takeover_abort(k) : -EPERM;
}

static int on_shutdown(Keeper *k, PortMessage *message) {
        k->status = message->m.result & 0xff;
        keeper_kill_everything(k);
        return 0;
}

/* on_born() - a child that nobody reserved a place for is not let live. */
static int on_born(Keeper *k, PortMessage *message) {
        int r = message->pid > 0 ? table_born(k->table, message->m.instance, message->pid) : -EINVAL;

        if (message->pid > 0 && (r < 0 || k->phase >= PHASE_KILLING))
                (void) kill(message->pid, SIGKILL);
        return r;
}

/* What is not here is not the current supervisor's to say. */
static const struct {
        const char *name;
        RequestHandler *handle;
        bool answered; /* with DONE, always */
        bool takes_fd;
        bool quiet; /* nobody waits for what comes of it */
} requests[_KEEPER_TYPE_N] = {
        [KEEPER_RESERVE] = { "RESERVE", on_reserve, .answered = true, .takes_fd = true, .quiet = true },
        [KEEPER_PUT] = { "PUT", on_put, .answered = true, .takes_fd = true },
        [KEEPER_DROP] = { "DROP", on_drop, .answered = true },
        [KEEPER_STARTED] = { "STARTED", on_started, .quiet = true },
        [KEEPER_CANCEL] = { "CANCEL", on_cancel },
        [KEEPER_SIGNAL] = { "SIGNAL", on_signal, .answered = true },
        [KEEPER_RECORD] = { "RECORD", on_record },
        [KEEPER_ACTIVE] = { "ACTIVE", on_active },
        [KEEPER_ACK] = { "ACK", on_ack },
        [KEEPER_NOTIFY] = { "NOTIFY", on_notify },
        [KEEPER_PONG] = { "PONG", on_pong },
        [KEEPER_SHUTDOWN] = { "SHUTDOWN", on_shutdown },
        [KEEPER_SERVING] = { "SERVING", on_serving },
        [KEEPER_PACK] = { "PACK", on_pack },
        [KEEPER_PROGRAM] = { "PROGRAM", on_program, .answered = true, .takes_fd = true },
        [KEEPER_REPLACE] = { "REPLACE", on_replace, .answered = true, .takes_fd = true },
        [KEEPER_TAKEOVER] = { "TAKEOVER", on_takeover, .answered = true, .takes_fd = true },
        [KEEPER_FROZEN] = { "FROZEN", on_frozen },
        [KEEPER_ABORT] = { "ABORT", on_abort },
        [KEEPER_BORN] = { "BORN", on_born, .quiet = true },
};

/* message_error() - what is wrong with it by its type; 0: it can be handled. */
static int message_error(const PortMessage *message) {
        unsigned type = message->m.type;

        if (message->error < 0 && !(message->error == -EMFILE && type < _KEEPER_TYPE_N && requests[type].takes_fd))
                return -EINVAL;
        if (message->error < 0)
                return message->error;
        if (type >= _KEEPER_TYPE_N || type == KEEPER_NONE)
                return -EINVAL;
        if (!requests[type].handle)
                return -EOPNOTSUPP;
        if (type == KEEPER_RESERVE)
                return 0; /* how many is its own affair */
        return requests[type].takes_fd == message->n_fds ? 0 : -EINVAL;
}

static void answer(Keeper *k, uint32_t serial, int result) {
        if (port_answer(&k->port, serial, result) == 0 || k->condemned)
                return;
        k->condemned = true; /* what it said before it dies is still read: BORNs may be among it */
        log_error("supervisor (pid %d) has more than %d unanswered requests: killed", k->supervisor, KEEPER_WINDOW);
        if (k->supervisor > 0)
                (void) kill(k->supervisor, SIGKILL);
}

static void handle_message(Keeper *k, PortMessage *message) {
        unsigned type = message->m.type;
        const char *name = type < _KEEPER_TYPE_N && requests[type].name ? requests[type].name : "message";
        int r = message_error(message);
        bool refused = r < 0;

        if (!refused)
                r = requests[type].handle(k, message);
        port_release(message);
        if (message->pid == k->supervisor)
                succession_heard(k);
        if (refused && r != -EMFILE)
                log_warning("%s (type %u) from pid %d is refused: %s", name, type, message->pid, strerror(-r));
        else if (r < 0 && !requests[type].answered)
                log_warning("%s for instance %llu from pid %d has no effect: %s", name,
                            (unsigned long long) message->m.instance, message->pid, strerror(-r));
        if (refused ? message->m.serial != 0 : requests[type].answered)
                answer(k, message->m.serial, r);
}

/* Whoever sends without an end is answered all the same, by what room there is. */
bool keeper_read_port(Keeper *k) {
        enum { FLUSH_EVERY = 16 };
        bool quiet = true;
        PortMessage message;

        for (unsigned n = 1;; n++) {
                int r = port_receive(&k->port, &message);

                if (r == PORT_EMPTY)
                        return quiet && n > 1;
                if (r == PORT_CLOSED)
                        break;
                quiet &= message.m.type < _KEEPER_TYPE_N && requests[message.m.type].quiet;
                handle_message(k, &message);
                if (n % FLUSH_EVERY == 0)
                        (void) port_flush(&k->port, k->table);
        }
        port_close(&k->port);
        if (k->supervisor > 0 && k->phase == PHASE_SERVING)
                (void) kill(k->supervisor, SIGKILL); /* it may live, but nobody hears it any more */
        return false;
}

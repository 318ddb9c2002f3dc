/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper, takeover: one supervisor follows another that lives. The keeper is the only arbiter: from the moment in which it
 * has read FROZEN of the one and READY of the other, in whichever order, the successor is the supervisor; before that,
 * whatever happens leaves the predecessor what it was. The rules are those of tests/model/takeover.pml; docs/takeover.md
 * names the function for each of its steps.
 *
 * Three sockets, each believed for what its supervisor may say: the current one's as ever (request.c), the successor's
 * READY, REFUSE and PACK, nothing of one that was left. A death is acted on when that process's socket was read to its end.
 *
 * One that is killed here is reaped here: it has got SIGKILL and waits in poll(), so that is over at once, and nobody else
 * may become active before.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/step.h"
#include "supervisor/keeper/keeper-internal.h"

#define LEAVE_TIMEOUT_US (5 * USEC_PER_SEC)

/* kill_and_reap() - @ret_info: how it ended, be it that it did so before. */
static void kill_and_reap(pid_t *pid, siginfo_t *ret_info) {
        int r;

        if (*pid <= 0)
                return;
        (void) kill(*pid, SIGKILL);
        do {
                r = waitid(P_PID, (id_t) *pid, ret_info, WEXITED | __WALL);
        } while (r < 0 && errno == EINTR);
        *pid = 0;
}

static void forget_next(Keeper *k) {
        Takeover *t = &k->takeover;
        siginfo_t info;

        port_close(&t->port);
        table_unwatch(k->table);
        kill_and_reap(&t->next, &info);
        t->program = fd_close(t->program);
        t->frozen = t->ready = false;
        k->timers[TIMER_TAKEOVER] = USEC_INFINITY;
}

static void forget_former(Keeper *k) {
        siginfo_t info;

        port_close(&k->takeover.former_port);
        kill_and_reap(&k->takeover.former, &info);
        k->timers[TIMER_LEAVE] = USEC_INFINITY;
}

/* thaw() - it has forgotten what was reported to it while it was frozen. Whether it goes on indeed it is asked. */
static void thaw(Keeper *k, const char *why) {
        step_note("keeper", "down!THAW", k->supervisor);
        (void) snprintf(k->port.text, sizeof(k->port.text), "%s", why);
        k->port.say |= PORT_SAY_THAW;
        table_report_again(k->table);
        succession_ping(k);
}

/* failed() - tells. Who is not frozen is told when FROZEN comes. */
static void failed(Keeper *k, const char *why) {
        step_note("keeper", "roll_back", k->takeover.next);
        log_warning("takeover by pid %d failed: %s; pid %d goes on", k->takeover.next, why, k->supervisor);
        if (k->takeover.frozen)
                thaw(k, why);
}

static void roll_back(Keeper *k, const char *why) {
        failed(k, why);
        forget_next(k);
}

static void next_ended(Keeper *k) {
        char how[KEEPER_HOW_SIZE], why[96];
        pid_t pid = k->takeover.next;
        siginfo_t info;

        step_note("keeper", "handle_death", pid);
        kill_and_reap(&pid, &info);
        keeper_describe(&info, how);
        (void) snprintf(why, sizeof(why), "the successor %s", how);
        failed(k, why);
        k->takeover.next = 0;
        forget_next(k);
}

/* ---------------------------------------------------------------------------------------------------------- the commit */

/* follow_program() - the one before is kept for the case that the new one is worth nothing. */
static void follow_program(Keeper *k) {
        Takeover *t = &k->takeover;
        int program = t->program;

        t->program = -1;
        if (program < 0)
                return; /* it is the one that ran already */
        if (k->ladder.rung == LADDER_PREVIOUS) {
                fd_close(k->program);
        } else {
                fd_close(k->previous);
                k->previous = k->program;
        }
        k->program = program;
        t->on_trial = true;
        k->ladder = (Ladder){ .rung = LADDER_PROGRAM };
}

/* send_away() - one that does not even take this word is not waited for. */
static void send_away(Keeper *k) {
        Takeover *t = &k->takeover;

        step_note("keeper", "down!LEAVE", t->former);
        t->former_port.say = PORT_SAY_LEAVE;
        t->former_port.n_answers = 0;
        t->former_port.waits = true;
        t->former_port.dump = PORT_DUMP_DONE;
        (void) port_flush(&t->former_port, k->table);
        if (t->former_port.say)
                (void) kill(t->former, SIGKILL);
        keeper_timer(k, TIMER_LEAVE, MIN(LEAVE_TIMEOUT_US, k->options->hang_timeout_us));
}

/* is_dead() - there is nobody to follow, whatever it has said before. */
static bool is_dead(const Port *port) {
        struct pollfd end = { .fd = port->fd };

        return poll(&end, 1, 0) == 1;
}

/* commit() - both words were read. */
static void commit(Keeper *k) {
        Takeover *t = &k->takeover;

        t->frozen = true;
        if (is_dead(&t->port)) {
                next_ended(k);
                return;
        }
        step_note("keeper", "commit", t->next);
        log_info("takeover: pid %d follows pid %d", t->next, k->supervisor);
        forget_former(k);
        t->former = k->supervisor;
        t->former_port = k->port;
        k->supervisor = t->next;
        k->reigning = t->generation;
        k->port = t->port;
        t->next = 0;
        t->port = PORT_NULL;
        t->frozen = t->ready = false;
        k->timers[TIMER_TAKEOVER] = USEC_INFINITY;
        follow_program(k);
        k->port.waits = false;
        k->port.is_final = k->port.dump == PORT_DUMP_CHANGES; /* it was ready without being told so */
        k->port.say |= PORT_SAY_GO | (t->former_port.say & PORT_SAY_RELOAD);
        table_report_again(k->table);
        succession_reign(k);
        (void) port_flush(&k->port, k->table);
        send_away(k);
}

/* --------------------------------------------------------------------------------------------- words of the predecessor */

int takeover_may_begin(const Keeper *k) {
        if (!keeper_is_daemon(k))
                return -EOPNOTSUPP;
        if (k->phase != PHASE_SERVING)
                return -ESHUTDOWN;
        return k->reign != REIGN_SERVING || k->takeover.next > 0 || k->replacement.program >= 0 ? -EBUSY : 0;
}

int takeover_program(Keeper *k, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        int r = takeover_may_begin(k);

        if (r < 0)
                return r;
        fd_close(k->takeover.program);
        k->takeover.program = fd_take(&fd);
        return 0;
}

int takeover_begin(Keeper *k, int handover_consume) {
        _cleanup_fd_ int handover = handover_consume, socket = -1;
        Takeover *t = &k->takeover;
        const char *step = "socketpair";
        int r = takeover_may_begin(k);

        if (r < 0)
                return r;
        forget_former(k); /* it had all the time there is */
        r = port_open(&t->port, &socket);
        if (r == 0)
                r = succession_launch(k, t->program, socket, handover, &t->next, &step);
        if (r < 0) {
                log_warning("takeover: cannot start the successor: %s: %s", step, strerror(-r));
                t->next = 0;
                forget_next(k);
                return r;
        }
        step_note("keeper", "handle_takeover", t->next);
        t->generation = k->generation;
        t->port.waits = true;
        t->port.dump = PORT_DUMP_CHANGES;
        table_watch(k->table);
        return 0;
}

int takeover_frozen(Keeper *k) {
        Takeover *t = &k->takeover;

        step_note("keeper", "handle_frozen", k->supervisor);
        if (t->next == 0) {
                thaw(k, "the successor is gone");
        } else if (t->ready) {
                commit(k);
        } else {
                t->frozen = t->port.is_final = true;
                (void) port_flush(&t->port, k->table);
                keeper_timer(k, TIMER_TAKEOVER, k->options->hang_timeout_us);
        }
        return 0;
}

int takeover_abort(Keeper *k) {
        step_note("keeper", "handle_abort", k->supervisor);
        if (k->takeover.next > 0)
                roll_back(k, "the predecessor gave up");
        return 0;
}

void takeover_cancel(Keeper *k, const char *why) {
        if (k->takeover.next > 0)
                roll_back(k, why);
}

void takeover_forget(Keeper *k) {
        forget_former(k);
        k->takeover.program = fd_close(k->takeover.program);
}

void takeover_late(Keeper *k) {
        takeover_cancel(k, "the successor did not get ready in time");
}

void takeover_leave_late(Keeper *k) {
        log_warning("supervisor (pid %d) did not leave in time: killed", k->takeover.former);
        forget_former(k);
}

/* ----------------------------------------------------------------------------------------------- words of the successor */

static void handle(Keeper *k, const PortMessage *message) {
        Takeover *t = &k->takeover;
        const KeeperMessage *m = &message->m;

        if (message->error < 0 || message->pid != t->next) {
                log_warning("message (type %u) of the successor from pid %d is refused", m->type, message->pid);
        } else if (m->type == KEEPER_READY) {
                step_note("keeper", "handle_ready", t->next);
                if (t->frozen)
                        commit(k);
                else
                        t->ready = true;
        } else if (m->type == KEEPER_REFUSE) {
                char why[KEEPER_RECORD_SIZE];

                step_note("keeper", "handle_refuse", t->next);
                (void) snprintf(why, sizeof(why), "%.*s", (int) sizeof(why) - 1, (const char *) m->record);
                roll_back(k, *why ? why : "the successor refuses");
        } else if (m->type == KEEPER_PACK) {
                t->port.packs = true;
        } else {
                log_warning("message (type %u) of the successor from pid %d is refused", m->type, message->pid);
        }
}

/* read_next() - up to its end, or to where its next word is that of the supervisor. */
static void read_next(Keeper *k) {
        Takeover *t = &k->takeover;
        PortMessage message;

        while (t->next > 0) {
                int r = port_receive(&t->port, &message);

                if (r == PORT_EMPTY)
                        break;
                if (r == PORT_CLOSED) {
                        next_ended(k);
                        break;
                }
                handle(k, &message);
                port_release(&message);
        }
}

static void read_former(Keeper *k) {
        Port *port = &k->takeover.former_port;
        PortMessage message;
        int r;

        while ((r = port_receive(port, &message)) == 0)
                port_release(&message);
        if (r == PORT_CLOSED)
                port_close(port);
}

void takeover_read(Keeper *k) {
        Takeover *t = &k->takeover;

        read_next(k);
        if (t->next > 0)
                (void) port_flush(&t->port, k->table);
        read_former(k);
}

/* -------------------------------------------------------------------------------------------------------------- deaths */

bool takeover_died(Keeper *k, pid_t pid) {
        Takeover *t = &k->takeover;
        bool mine = pid == t->next || pid == t->former;

        read_next(k); /* to its end, if it is that one */
        if (pid == t->former) {
                step_note("keeper", "handle_death", pid);
                t->former = 0;
                forget_former(k);
                return true;
        }
        if (pid == t->next)
                next_ended(k); /* it had no socket any more */
        return mine && pid != k->supervisor;
}

void takeover_end(Keeper *k) {
        if (k->takeover.next > 0)
                log_warning("takeover by pid %d failed: the predecessor is gone", k->takeover.next);
        forget_next(k);
        forget_former(k);
}

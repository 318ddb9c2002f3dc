/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper, succession: one supervisor after the other. When one dies, its socket is first shut for those that still hold it
 * (a child between clone and exec), so that it has an end: a child that had not said BORN by then cannot, and exits; one
 * that had is in the table. Then what nobody would look after is killed, and the next supervisor is started, which is told
 * the table and adopts the rest. Nothing is waited for in between.
 *
 * Whether a supervisor hangs is asked only while it owes something (it was started and does not serve, a successor was
 * started for it, or could not follow it, a child was born and not STARTED, an exit is not acknowledged, a PING is not
 * answered), so an idle tree has no timer. Whatever it says is a sign of life: that a runner's exit takes long, since
 * somebody still writes into its log, is no reason to kill anybody. Only one that says nothing for half of the time is
 * asked by a PING, and has the other half to answer.
 *
 * The first supervisor of all is not started again if it ends before it has served: there is nothing to look after yet, and
 * whoever started it is to see that its configuration is wrong.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/pages.h"
#include "common/step.h"
#include "supervisor/keeper/keeper-internal.h"
#include "supervisor/keeper/launch.h"

#define ABORT_TIMEOUT_US (5 * USEC_PER_SEC) /* what dumping a core may take */
#define ABSENT_US        USEC_PER_SEC       /* a client rather waits for a start that comes sooner */

/* ---------------------------------------------------------------------------------------------------------- starting */

int succession_launch(Keeper *k, int program, int socket, int handover, pid_t *ret_pid, const char **ret_step) {
        int present = k->ladder.rung == LADDER_PREVIOUS ? k->previous : k->program, r;
        const Launch launch = {
                .program = program >= 0 ? program : present,
                .socket = socket,
                .private_fd = k->private_fd,
                .keeper = k->pidfd,
                .handover = handover,
                .generation = k->generation + 1,
                .nofile = k->nofile,
                .stop_timeout_us = k->options->stop_timeout_us,
                .place = keeper_is_daemon(k) ? &k->options->place : NULL,
                .configs = k->options->configs,
                .stage = &k->stage,
        };

        r = launch_supervisor(&launch, ret_pid, ret_step);
        if (r == 0)
                k->generation++; /* never twice, whatever becomes of it */
        return r;
}

void succession_reign(Keeper *k) {
        k->reign = REIGN_STARTING;
        k->served_us = 0;
        k->condemned = false;
        k->pinged_us = 0;
        k->heard_us = clock_now();
}

/* A reload that nobody has heard of yet is for the next one. */
static int start(Keeper *k) {
        unsigned say = k->port.say & PORT_SAY_RELOAD;
        _cleanup_fd_ int socket = -1;
        const char *step = "socketpair";
        int r;

        r = port_open(&k->port, &socket);
        if (r == 0) {
                k->port.say = say;
                r = succession_launch(k, -1, socket, -1, &k->supervisor, &step);
        }
        if (r < 0) {
                log_error("cannot start the supervisor: %s: %s", step, strerror(-r));
                port_close(&k->port);
                k->port.say = say;
                return r;
        }
        step_note("keeper", k->has_served ? "recover" : "start", k->supervisor);
        k->reigning = k->generation;
        succession_reign(k);
        return 0;
}

/* goes_back() - what a takeover has brought, and was not healthy once, gives way to what it has followed. */
static bool goes_back(const Keeper *k, uint64_t served_us) {
        return k->takeover.on_trial && served_us < k->options->ladder.healthy_us && k->previous >= 0;
}

/* remember() - for the next one, which tells people. One that was aborted had not answered any more. */
static void remember(Keeper *k, pid_t pid, const char *how, uint64_t served_us) {
        TableDeath *death = table_add_death(k->table);

        death->generation = k->reigning;
        death->time_us = clock_wall();
        death->pid = pid;
        (void) snprintf(death->how, sizeof(death->how), "%s%s", k->reign == REIGN_ABORTED ? "did not answer and " : "",
                        how);
        death->went_back = goes_back(k, served_us);
}

static void stay_down(Keeper *k) {
        char text[KEEPER_RECORD_SIZE];

        log_error(
                "no supervisor runs: it died too often; runners go on: %zu; SIGHUP to pid %d starts it again, SIGTERM "
                "stops all",
                keeper_count_runners(k), (int) getpid());
        (void) snprintf(text, sizeof(text), "No supervisor runs: it died too often. Runners go on: %zu",
                        keeper_count_runners(k));
        notify_say(&k->notify, KEEPER_NOTIFY_STATUS, text);
}

/* succeed() - what follows a death, or a start that failed. */
static void succeed(Keeper *k, uint64_t served_us) {
        uint64_t delay;

        if (goes_back(k, served_us))
                k->ladder = (Ladder){ .rung = LADDER_PREVIOUS };
        k->takeover.on_trial = false;
        delay = ladder_next(&k->ladder, &k->options->ladder, served_us, k->previous >= 0);
        if (k->ladder.rung == LADDER_DOWN)
                stay_down(k);
        else
                keeper_timer(k, TIMER_START, delay);
}

int succession_start(Keeper *k) {
        int r;

        k->timers[TIMER_START] = USEC_INFINITY;
        r = start(k);
        if (r < 0 && k->has_served)
                succeed(k, 0);
        return r;
}

/* -------------------------------------------------------------------------------------------------------- after a death */

/* settle_slot() - what is left of an instance whose supervisor died. */
static void settle_slot(Keeper *k, TableSlot *slot) {
        bool forgotten = slot->flags & KEEPER_FLAG_TRANSIENT;
        bool lost = (slot->flags & KEEPER_FLAG_NATIVE) && table_get(slot, KEEPER_FD_LANE, 0) < 0;

        if (slot->state == TABLE_RESERVED || (slot->state == TABLE_EXITED && forgotten)) {
                table_free_slot(k->table, slot);
        } else if (slot->state == TABLE_BORN && (!slot->started || lost || forgotten)) {
                slot->cancelled |= forgotten;
                table_doom(k->table, slot);
                (void) keeper_kill_runner(slot, SIGKILL);
        }
}

static void settle(Keeper *k) {
        TableSlot *next;

        for (TableSlot *slot = table_first(k->table); slot; slot = next) {
                next = table_next(slot);
                settle_slot(k, slot);
        }
        table_report_again(k->table);
}

static void end_reign(Keeper *k) {
        k->supervisor = 0;
        port_end(&k->port);
        (void) keeper_read_port(k); /* its last words */
        port_close(&k->port);
        k->reign = REIGN_NONE;
        k->timers[TIMER_HANG] = k->timers[TIMER_WATCHDOG] = USEC_INFINITY;
}

/*
 * succession_died() - where the tree is ending anyway, or there is nothing to go on with, everything ends: in STOPPING a
 * supervisor that exits has done so by order, one that crashes leaves its runners to be stopped by us.
 */
void succession_died(Keeper *k, const char *how, int exit_status) {
        uint64_t served_us = k->served_us ? clock_now() - k->served_us : 0;
        pid_t pid = k->supervisor;
        size_t runners;

        step_note("keeper", "handle_death", pid);
        remember(k, pid, how, served_us);
        replace_cancel(k, "the supervisor is gone");
        takeover_end(k);
        end_reign(k);
        runners = keeper_count_runners(k);
        if (k->phase >= PHASE_KILLING)
                return;
        if (k->phase == PHASE_STOPPING && exit_status >= 0) {
                k->status = exit_status;
                keeper_kill_everything(k);
        } else if (!keeper_is_daemon(k) || !k->has_served) {
                log_error("supervisor (pid %d) %s; runners killed with it: %zu", pid, how, runners);
                k->status = 1;
                keeper_kill_everything(k);
        } else {
                log_error("supervisor (pid %d) %s; runners go on without: %zu", pid, how, runners);
                settle(k);
                if (k->phase == PHASE_STOPPING)
                        keeper_stop_runners(k);
                else
                        succeed(k, served_us);
        }
}

/* abort_supervisor() - its core says where it hung; one that is stopped would not die of it. Then SIGKILL. */
static void abort_supervisor(Keeper *k) {
        k->reign = REIGN_ABORTED;
        (void) kill(k->supervisor, SIGABRT);
        (void) kill(k->supervisor, SIGCONT);
        keeper_timer(k, TIMER_HANG, MIN(ABORT_TIMEOUT_US, k->options->hang_timeout_us));
}

void succession_force(Keeper *k) {
        k->ladder = (Ladder){ .rung = k->ladder.rung == LADDER_DOWN ? LADDER_PROGRAM : k->ladder.rung };
        if (k->supervisor > 0 && k->reign != REIGN_ABORTED) {
                log_warning("told to by a signal: supervisor (pid %d) is killed by SIGABRT", k->supervisor);
                abort_supervisor(k);
        } else if (k->supervisor <= 0 && k->phase == PHASE_SERVING) {
                (void) succession_start(k);
        }
}

bool succession_is_absent(const Keeper *k) {
        uint64_t at = k->timers[TIMER_START];

        return k->reign == REIGN_NONE && (at == USEC_INFINITY || at > clock_after(clock_now(), ABSENT_US));
}

/* --------------------------------------------------------------------------------------------------------- is it alive? */

/* What a service manager gives us is shared: we find out in half of it. */
static uint64_t hang_timeout(const Keeper *k) {
        uint64_t watchdog = k->notify.watchdog_us;

        return watchdog ? MIN(k->options->hang_timeout_us, watchdog / 3) : k->options->hang_timeout_us;
}

static bool owes(const Keeper *k) {
        TableCount count = table_count(k->table);

        return k->reign == REIGN_STARTING || k->takeover.next > 0 || k->pinged_us || count.unstarted > 0 ||
               count.exited > 0;
}

void succession_serving(Keeper *k) {
        if (k->reign != REIGN_STARTING)
                return;
        step_note("keeper", "handle_serving", k->supervisor);
        k->reign = REIGN_SERVING;
        if (!k->has_served)
                pages_forget(); /* two thirds of a static program are for the start only */
        k->has_served = true;
        k->served_us = clock_now();
        table_forget_deaths(k->table);
        if (k->notify.watchdog_us) {
                notify_alive(&k->notify);
                keeper_timer(k, TIMER_WATCHDOG, k->notify.watchdog_us / 3);
        }
}

void succession_heard(Keeper *k) {
        k->heard_us = clock_now();
}

void succession_check(Keeper *k) {
        if (!keeper_is_daemon(k) || k->reign == REIGN_NONE || k->reign == REIGN_ABORTED)
                return;
        if (!owes(k))
                k->timers[TIMER_HANG] = USEC_INFINITY;
        else if (k->timers[TIMER_HANG] == USEC_INFINITY)
                keeper_timer(k, TIMER_HANG, hang_timeout(k) / 2);
}

void succession_ping(Keeper *k) {
        k->pinged_us = clock_now();
        k->port.say |= PORT_SAY_PING;
}

void succession_hang(Keeper *k) {
        uint64_t half = hang_timeout(k) / 2, now = clock_now();

        if (k->reign == REIGN_ABORTED) {
                (void) kill(k->supervisor, SIGKILL);
        } else if (now - k->heard_us < half) {
                keeper_timer(k, TIMER_HANG, half - (now - k->heard_us));
        } else if (!k->pinged_us) {
                succession_ping(k);
                keeper_timer(k, TIMER_HANG, half);
        } else if (now - k->pinged_us < half) {
                keeper_timer(k, TIMER_HANG, half - (now - k->pinged_us));
        } else {
                log_error("supervisor (pid %d) does not answer: killed by SIGABRT", k->supervisor);
                abort_supervisor(k);
        }
}

void succession_watchdog(Keeper *k) {
        if (k->reign != REIGN_SERVING)
                return;
        if (!k->pinged_us)
                succession_ping(k);
        keeper_timer(k, TIMER_WATCHDOG, k->notify.watchdog_us / 3);
}

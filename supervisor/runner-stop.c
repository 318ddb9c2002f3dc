/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, its stop: politely, then less so. A native runner is asked to Stop (it drains what it serves) and to Exit; what
 * it answers is not judged, since the next step comes anyway unless it exits. A plain one begins with SIGTERM. Half of
 * the time is for asking, the rest for SIGTERM; at the deadline SIGKILL goes to the whole group. Signals to groups are
 * the keeper's, which alone knows that the leader's number still means the leader.
 *
 * One timer carries the steps; each time-out is an event of the table, whose action (escalate) looks at the step. SIGKILL
 * is repeated every second: the request may have found no room, and a process in uninterruptible sleep is worth a line.
 */

#include "supervisor/runner-internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define LEAVE_US  (1 * USEC_PER_SEC) /* from its agreement to its exit */
#define REPEAT_US (1 * USEC_PER_SEC)

static void set_step(Runner *runner, RunnerStop step, uint64_t deadline_us) {
        runner->stop = step;
        loop_timer_set(runner->supervisor->loop, &runner->timer, deadline_us);
}

static void signal_group(Runner *runner, int number) {
        int r = keeper_link_signal(runner->supervisor->link, runner->instance, number, NULL, NULL);

        if (r < 0)
                log_warning("runner %s: cannot send %s for now: %s", runner->spec.name, sigdescr_np(number),
                            strerror(-r));
}

static void terminate(Runner *runner) {
        signal_group(runner, SIGTERM);
        set_step(runner, RUNNER_STOP_TERMINATED, runner->stop_deadline);
}

void runner_kill(Runner *runner) {
        if (runner->stop == RUNNER_STOP_KILLED)
                log_warning("runner %s: pid %d is not gone after SIGKILL; trying again", runner->spec.name,
                            runner->pid);
        runner->killed = true;
        signal_group(runner, SIGKILL);
        set_step(runner, RUNNER_STOP_KILLED, clock_after(clock_now(), REPEAT_US));
}

void runner_escalate(Runner *runner) {
        if (runner->stop == RUNNER_STOP_ASKED || runner->stop == RUNNER_STOP_LEAVING)
                terminate(runner);
        else
                runner_kill(runner);
}

/* ------------------------------------------------------------------------------------------------------------- asking */

static int ask(Runner *runner, const char *method, CallDone done) {
        Baton__LifecycleEvent event = BATON__LIFECYCLE_EVENT__INIT;
        uint8_t packed[16];
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = method,
                .type = event.base.descriptor->name,
                .payload = packed,
        };

        event.event = ++runner->event;
        parameters.size = baton__lifecycle_event__pack(&event, packed);
        return call_start(runner->peer, &parameters, done, runner, &runner->asking);
}

/* Where it is not the runner that answers, its lane has ended: it is leaving too. */
static void leaving(Runner *runner) {
        set_step(runner, RUNNER_STOP_LEAVING, MIN(clock_after(clock_now(), LEAVE_US), runner->stop_deadline));
}

/* answered() - false: it means nothing any more. */
static bool answered(Runner *runner, const char *method, const Answer *answer) {
        runner->asking = NULL;
        if (runner->stop != RUNNER_STOP_ASKED || runner->ended)
                return false;
        if (answer->status != STATUS_OK)
                log_info("runner %s: %s: %s: %s", runner->spec.name, method, status_name(answer->status),
                         answer->message);
        return true;
}

static void exit_answered(Call *call, const Answer *answer, void *userdata) {
        (void) call;
        if (answered(userdata, "Exit", answer))
                leaving(userdata);
}

static void stop_answered(Call *call, const Answer *answer, void *userdata) {
        Runner *runner = userdata;

        (void) call;
        if (!answered(runner, "Stop", answer))
                return;
        if (answer->local)
                leaving(runner);
        else if (ask(runner, "baton.Runner/Exit", exit_answered) < 0)
                terminate(runner);
}

void runner_ask(Runner *runner) {
        uint64_t now = clock_now(), half = now + (runner->stop_deadline - now) / 2;

        if (runner->peer && ask(runner, "baton.Runner/Stop", stop_answered) == 0)
                set_step(runner, RUNNER_STOP_ASKED, half);
        else
                terminate(runner);
}

/* runner_leave() - a runner whose lane has ended is mostly on its way out: its own exit status is worth a moment. */
void runner_leave(Runner *runner) {
        uint64_t now = clock_now();

        runner->stop_deadline = clock_after(now, LEAVE_US + runner->spec.stop_timeout_us);
        set_step(runner, RUNNER_STOP_LEAVING, clock_after(now, LEAVE_US));
}

/* ------------------------------------------------------------------------------------------------------- from outside */

/* shorten() - a stop is going on, and now has less time. */
static void shorten(Runner *runner, uint64_t deadline) {
        if (deadline >= runner->stop_deadline || runner->stop == RUNNER_STOP_KILLED)
                return;
        runner->stop_deadline = deadline;
        loop_timer_set(runner->supervisor->loop, &runner->timer, deadline);
}

void runner_stop(Runner *runner, uint64_t timeout_us) {
        uint64_t timeout = timeout_us ? timeout_us : runner->spec.stop_timeout_us;
        uint64_t deadline = clock_after(clock_now(), timeout);

        if (!runner_is_live(runner))
                return;
        if (runner->state == PROCESS_STOPPING) {
                shorten(runner, deadline);
                return;
        }
        runner->stop_deadline = deadline;
        if (runner->state == PROCESS_STARTING)
                runner_fail(runner, RUNNER_FAILURE_SYSTEM, ": it was stopped before it was up");
        runner_raise(runner,
                     runner->state == PROCESS_STARTING && !runner->pid ? PROCESS_EVENT_FAILED : PROCESS_EVENT_STOP);
}

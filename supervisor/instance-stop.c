/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its stop: politely, then less so. A native runner's service is led to STOPPED (it drains what it serves); what
 * it answers is not judged, since the next step comes anyway unless it exits. A plain one, and one that is not ready yet,
 * begins with its stop signal. Half of the time is for asking, the rest for the signal; at the deadline SIGKILL goes to the
 * whole group. Signals to groups are the keeper's, which alone knows that the leader's number still means the leader.
 *
 * One timer carries the steps; each time-out is an event of the table, whose action (escalate) looks at the step. A signal
 * for which the link has no room, as where thousands are stopped at once, is asked for again in a moment. SIGKILL is
 * repeated every second: a process in uninterruptible sleep is worth a line.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/service.h"

#define LEAVE_US  (1 * USEC_PER_SEC) /* from its agreement to its exit */
#define REPEAT_US (1 * USEC_PER_SEC)
#define ROOM_US   (10 * USEC_PER_MSEC)

static void set_step(Instance *instance, InstanceStop step, uint64_t deadline_us) {
        instance->stop = step;
        loop_timer_set(instance->supervisor->loop, &instance->timer, deadline_us);
}

/* signal_group() - false: not asked for yet. */
static bool signal_group(Instance *instance, int number) {
        int r = keeper_link_signal(instance->supervisor->link, instance->id, number, NULL, NULL);

        if (r < 0 && r != -ENOBUFS)
                log_warning("runner %s: cannot send %s for now: %s", instance->runner->name, sigdescr_np(number),
                            strerror(-r));
        return r == 0;
}

static void terminate(Instance *instance) {
        uint8_t finish = instance->is_past ? instance->runner->config->upgrade_signal : 0;

        if (signal_group(instance, finish ? finish : instance->config->stop_signal))
                set_step(instance, INSTANCE_STOP_TERMINATED, instance->stop_deadline);
        else
                set_step(instance, INSTANCE_STOP_LEAVING, clock_after(clock_now(), ROOM_US));
}

void instance_kill(Instance *instance) {
        if (instance->stop == INSTANCE_STOP_KILLED)
                log_warning("runner %s: pid %d is not gone after SIGKILL; trying again", instance->runner->name,
                            instance->pid);
        if (!signal_group(instance, SIGKILL)) {
                set_step(instance, INSTANCE_STOP_TERMINATED, clock_after(clock_now(), ROOM_US));
                return;
        }
        instance->killed = true;
        set_step(instance, INSTANCE_STOP_KILLED, clock_after(clock_now(), REPEAT_US));
}

void instance_escalate(Instance *instance) {
        if (instance->stop == INSTANCE_STOP_ASKED || instance->stop == INSTANCE_STOP_LEAVING)
                terminate(instance);
        else
                instance_kill(instance);
}

/* ------------------------------------------------------------------------------------------------------------- asking */

/* Where it is not the runner that answers, its lane has ended: it is leaving too. */
static void leaving(Instance *instance) {
        set_step(instance, INSTANCE_STOP_LEAVING, MIN(clock_after(clock_now(), LEAVE_US), instance->stop_deadline));
}

void instance_service_stopped(Instance *instance, const ServiceResult *result, void *userdata) {
        (void) userdata;
        if (instance->stop != INSTANCE_STOP_ASKED || instance->ended)
                return;
        if (result->status != STATUS_OK)
                log_info("runner %s: %s: %s: %s", instance->runner->name,
                         result->n_sent > 0 ? service_event_name(result->sent[result->n_sent - 1]) : "Info",
                         status_name(result->status), result->message);
        if (result->status == STATUS_OK || result->local)
                leaving(instance);
        else
                terminate(instance);
}

/* ask_service() - false: it cannot be asked. What somebody else was about to do with the service is not done any more. */
static bool ask_service(Instance *instance) {
        if (!instance->was_up || !instance->peer)
                return false;
        service_abort(instance, "the runner is being stopped");
        return service_drive(instance, instance_is_present(instance) ? SERVICE_GOAL_STOP : SERVICE_GOAL_EXIT, true, 0,
                             -1, instance_service_stopped, NULL) == 0;
}

void instance_ask(Instance *instance) {
        uint64_t now = clock_now(), half = now + (instance->stop_deadline - now) / 2;
        uint64_t patience = MIN(instance->config->stop_timeout_us, instance->stop_deadline);

        if (instance->asking) /* a ping */
                call_cancel(TAKE_PTR(instance->asking));
        if (ask_service(instance)) /* one that has a successor finishes what it has begun: that takes what it takes */
                set_step(instance, INSTANCE_STOP_ASKED,
                         instance_is_present(instance) ? half : MAX(half, instance->stop_deadline - patience));
        else
                terminate(instance);
}

/* instance_leave() - a runner whose lane has ended is mostly on its way out: its own exit status is worth a moment. */
void instance_leave(Instance *instance) {
        uint64_t now = clock_now();

        instance->stop_deadline = clock_after(now, LEAVE_US + instance->config->stop_timeout_us);
        set_step(instance, INSTANCE_STOP_LEAVING, clock_after(now, LEAVE_US));
}

void instance_extend_stop(Instance *instance) {
        if (instance->stop == INSTANCE_STOP_KILLED || instance->extended_us <= instance->stop_deadline)
                return;
        instance->stop_deadline = instance->extended_us;
        loop_timer_set(instance->supervisor->loop, &instance->timer, instance->stop_deadline);
}

/* ------------------------------------------------------------------------------------------------------- from outside */

/* shorten() - a stop is going on, and now has less time. */
static void shorten(Instance *instance, uint64_t deadline) {
        if (deadline >= instance->stop_deadline || instance->stop == INSTANCE_STOP_KILLED)
                return;
        instance->stop_deadline = deadline;
        loop_timer_set(instance->supervisor->loop, &instance->timer, deadline);
}

void instance_stop(Instance *instance, uint64_t timeout_us) {
        uint64_t timeout = timeout_us ? timeout_us : instance->config->stop_timeout_us;
        uint64_t deadline = clock_after(clock_now(), timeout);

        supervisor_begin_now(instance->supervisor, instance); /* so that it ends as others do */
        if (!instance_is_live(instance))
                return;
        if (instance->state == PROCESS_STOPPING) {
                shorten(instance, deadline);
                return;
        }
        instance->stop_deadline = deadline;
        if (instance->state == PROCESS_STARTING)
                instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": it was stopped before it was up");
        instance_doom(instance, RUNNER_CAUSE_STOPPED,
                      instance->state == PROCESS_STARTING && !instance->pid ? PROCESS_EVENT_FAILED
                                                                            : PROCESS_EVENT_STOP);
}

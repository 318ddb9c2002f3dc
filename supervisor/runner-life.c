/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, what becomes of it: the policy table (policy.c) is asked, its actions are here. Everything from outside and from
 * instances only raises an event; all of them are handled in one task of the supervisor's, one runner after the other, so
 * that no action ever runs inside another, and a thousand ends are a thousand short steps.
 *
 * What can wait at once is one event of each kind: the end of an instance first, which is judged when it is handled and
 * by what is wanted then, readiness, and the rest in the order of their numbers. What has become meaningless by a change
 * of state (SATISFIED, FREE, TIME) is forgotten with it.
 *
 * Timers: BACKOFF and the schedule `every' have one, made when it is needed; a runner that is up, down or done has none,
 * and how long it was healthy is looked at when it ends.
 */

#include "supervisor/runner-internal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/checkpoint.h"
#include "supervisor/chronicle.h"
#include "supervisor/events.h"
#include "supervisor/group.h"
#include "supervisor/holder.h"
#include "supervisor/hooks.h"
#include "supervisor/leftovers.h"
#include "supervisor/runner-record.h"
#include "supervisor/schedule.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

#define BIT(_event) (1u << POLICY_EVENT_##_event)
#define COMMANDS    (BIT(START) | BIT(STOP) | BIT(RESTART))
#define MOMENTARY   (BIT(SATISFIED) | BIT(FREE) | BIT(TIME))
#define IS_LIVE(_i) ((_i) && !(_i)->over)

/* A start that failed before there was a process is not tried again at once: this process would do nothing else. */
#define NO_PROCESS_US (100 * USEC_PER_MSEC)

/* ------------------------------------------------------------------------------------------------------ how it ended */

static int wait_code(ExitHow how) {
        return how == EXIT_EXITED ? CLD_EXITED : how == EXIT_DUMPED ? CLD_DUMPED : CLD_KILLED;
}

/* is_success() - one that was told to stop and did has not failed, whatever it exited with. */
static bool is_success(const Instance *instance) {
        if (instance->cause == RUNNER_CAUSE_STOPPED)
                return true;
        return instance->cause == RUNNER_CAUSE_ITSELF && !instance->failure && instance->exit.how != EXIT_LOST &&
               runner_config_is_success(instance->config, wait_code(instance->exit.how), instance->exit.status);
}

const char *runner_describe_end(const Instance *instance, char *text, size_t size) {
        char exit[EXIT_STATUS_TEXT_SIZE];

        exit_status_describe(instance->exit, exit);
        if (!instance->was_up && instance->failure)
                (void) snprintf(text, size, "start failed%s%s",
                                instance_text(instance->failure_text)[0] == ':' ? "" : " ",
                                instance_text(instance->failure_text));
        else if (instance->cause == RUNNER_CAUSE_WATCHDOG)
                (void) snprintf(text, size, "gave no sign of life for %g s, and was killed",
                                (double) instance->watchdog_us / USEC_PER_SEC);
        else if (instance->cause == RUNNER_CAUSE_DISCONNECTED)
                (void) snprintf(text, size, "%s; %s", instance_text(instance->lost), exit);
        else if (instance->cause == RUNNER_CAUSE_OUT_OF_MEMORY)
                (void) snprintf(text, size,
                                "ran out of the memory that its cgroup may have, and was killed by the kernel");
        else if (instance->cause == RUNNER_CAUSE_KILLED)
                (void) snprintf(text, size, "did not stop in time, and was killed");
        else if (instance->said_errno > 0 && !is_success(instance))
                (void) snprintf(text, size, "%s; it said: %s", exit, strerror(instance->said_errno));
        else
                (void) snprintf(text, size, "%s", exit);
        return text;
}

static void note_end(Runner *runner, const Instance *instance, bool success, const char *text) {
        const RunnerExit exit = {
                .instance = instance->id,
                .started_us = instance->started_wall_us,
                .ended_us = clock_wall(),
                .uptime_us = instance->ended_us - instance->started_us,
                .pid = instance->last_pid,
                .cause = instance->cause,
                .success = success,
                .killed = instance->killed,
                .exit = instance->exit,
        };

        runner_note_exit(runner, &exit);
        chronicle_exit(runner, &exit);
        if (runner->hidden)
                return;
        events_publish(runner->supervisor->events, &(Event){
                                                           .kind = EVENT_RUNNER_EXITED,
                                                           .runner = runner->name,
                                                           .instance = instance->id,
                                                           .pid = instance->last_pid,
                                                           .exit = instance->exit,
                                                           .cause = instance->cause,
                                                           .uptime_us = exit.uptime_us,
                                                           .text = success ? NULL : text,
                                                   });
        hooks_run(runner, CONFIG_HOOK_EXIT);
}

/* allows() - one more restart; or says that it is one too many. */
static bool allows(Runner *runner, const char *text) {
        const ConfigIntensity *limit = &runner->config->intensity;

        if (!policy_window_add(&runner->window, limit->restarts, limit->window_us, clock_now()))
                return true;
        runner_set_why(runner, "more than %u restarts within %g s; the last time it %s", limit->restarts,
                       (double) limit->window_us / USEC_PER_SEC, text);
        return false;
}

/* judge() - the present instance is over: which event is that? */
static PolicyEvent judge(Runner *runner, const char *text, bool success) {
        const RunnerConfig *config = runner->config;
        PolicyEnd end = {
                .desired = runner->desired,
                .unmet = runner->unmet,
                .stopped = runner->state == POLICY_STOPPING,
                .succeeded = success,
                .oneshot = config->oneshot,
                .scheduled = config->schedule,
                .restart = config->restart,
        };
        PolicyEvent event = policy_judge(&end);

        if (!runner->unmet && (event == POLICY_EVENT_AGAIN || success))
                runner_set_why(runner, NULL);
        else if (!runner->unmet)
                runner_set_why(runner, "%s", text);
        if (event != POLICY_EVENT_RETRY)
                return event;
        end.exhausted = runner->group ? !group_allows(runner->group, runner, text) : !allows(runner, text);
        return policy_judge(&end);
}

/* look_for_leftovers() - after a stop that somebody asked for. */
static void look_for_leftovers(Runner *runner) {
        if (runner->desired != DESIRED_DOWN || runner->supervisor->stopping || runner->hidden ||
            runner->instance->last_pid == 0)
                return;
        leftovers_expect(&runner->supervisor->leftovers, runner, runner->instance->last_pid);
}

/* ended_in_order() - so that there is nothing that another one would have to go on with. */
static bool ended_in_order(const Runner *runner, bool success) {
        const Instance *instance = runner->instance;

        if (!instance || !instance->over || instance->broken_off || runner->hidden)
                return false;
        return success || runner->state == POLICY_STOPPING;
}

/* over() - nothing is left of the present instance, or none could be made: instance NULL. */
static PolicyEvent over(Runner *runner) {
        const Instance *instance = runner->instance;
        char text[2 * INSTANCE_FAILURE_SIZE] = "start failed: no memory";
        bool success = false;

        runner->over = false;
        if (instance && instance->over) {
                success = is_success(instance);
                runner_describe_end(instance, text, sizeof(text));
                note_end(runner, instance, success, text);
                look_for_leftovers(runner);
        }
        if (ended_in_order(runner, success))
                holder_unkeep(runner->supervisor->holder, runner);
        if (success)
                runner->completed = true;
        if (runner->up_us && clock_now() - runner->up_us >= runner->config->backoff_reset_us)
                runner->n_failures = 0;
        runner->up_us = 0;
        return judge(runner, text, success);
}

/* ---------------------------------------------------------------------------------------------------------- the timer */

static void timer_fired(LoopTimer *timer) {
        runner_raise(CONTAINER_OF(timer, RunnerTimer, timer)->runner, POLICY_EVENT_TIME);
}

void runner_stop_timer(Runner *runner) {
        if (runner->timer)
                loop_timer_stop(&runner->timer->timer);
        schedule_stop(runner);
        runner->next_us = 0;
}

void runner_set_timer(Runner *runner, uint64_t deadline_us) {
        if (!runner->timer) {
                runner->timer = malloc(sizeof(*runner->timer));
                if (!runner->timer) {
                        log_warning("runner %s: no memory for its delay: it ends now", runner->name);
                        runner_raise(runner, POLICY_EVENT_TIME);
                        return;
                }
                *runner->timer = (RunnerTimer){ LOOP_TIMER_NULL(timer_fired), runner };
        }
        loop_timer_set(runner->supervisor->loop, &runner->timer->timer, deadline_us);
}

/* ---------------------------------------------------------------------------------------------------------- the actions */

static void make_instance(Runner *runner) {
        Supervisor *supervisor = runner->supervisor;
        Instance *instance;

        runner->instance = instance_free(runner->instance); /* the one before */
        leftovers_look(&supervisor->leftovers);
        runner->leftovers = leftovers_free(runner->leftovers);
        free(TAKE_PTR(runner->status)); /* the one before said it */
        runner_log_set_over(runner->log, false);
        runner->n_starts++;
        runner->completed = false;
        runner->unmet = UNMET_NOTHING;
        if (instance_new(&instance, runner, supervisor_next_id(supervisor)) < 0) {
                runner_instance_over(runner);
                return;
        }
        if (supervisor_add_instance(supervisor, instance) < 0) {
                instance_free(instance);
                runner_instance_over(runner);
                return;
        }
        instance->program_fd = fd_take(&runner->program_fd);
        runner->instance = instance;
        runner->begun_us = clock_now();
        runner->last_instance = instance->id;
        if ((runner->transient || runner->hidden) && !supervisor->held)
                instance_start(instance);
        else
                supervisor_queue_begin(supervisor, instance);
}

static void announce(Runner *runner) {
        runner->up_us = clock_now();
        runner_set_why(runner, NULL);
}

static void stop(Runner *runner) {
        for (Instance *past = runner->past; past; past = past->past)
                instance_stop(past, supervisor_bound(runner->supervisor, past->config->stop_timeout_us));
        upgrade_abandon(runner->upgrade, "the runner is being stopped");
        if (IS_LIVE(runner->instance))
                instance_stop(runner->instance,
                              supervisor_bound(runner->supervisor, runner->stop_timeout_us
                                                                           ? runner->stop_timeout_us
                                                                           : runner->config->stop_timeout_us));
}

static void delay(Runner *runner) {
        uint32_t number = 0;
        uint64_t us;

        (void) getrandom(&number, sizeof(number), GRND_NONBLOCK);
        us = policy_delay(&runner->config->backoff, runner->n_failures, number);
        runner->n_failures += runner->n_failures < UINT32_MAX;
        runner->n_restarts++;
        events_publish(runner->supervisor->events, &(Event){
                                                           .kind = EVENT_RUNNER_RESTART,
                                                           .runner = runner->name,
                                                           .number = us,
                                                           .text = runner->why,
                                                   });
        if (us == 0 && (!runner->instance || runner->instance->last_pid == 0))
                us = NO_PROCESS_US;
        if (us == 0) {
                runner_raise(runner, POLICY_EVENT_TIME);
                return;
        }
        runner->next_us = clock_after(clock_now(), us);
        runner_set_timer(runner, runner->next_us);
}

static void schedule(Runner *runner) {
        runner->n_failures = 0;
        schedule_next(runner);
}

static void settle(Runner *runner) {
        runner_stop_timer(runner);
        runner_log_set_over(runner->log, true);
        if (!runner->hidden)
                holder_release(runner->supervisor->holder, runner);
        free(runner->status);
        runner->status = NULL;
        if (runner->desired == DESIRED_DOWN)
                runner->unmet = UNMET_NOTHING;
}

void runner_forgive(Runner *runner) {
        policy_window_reset(&runner->window);
        runner->n_failures = 0;
        runner->n_restarts = 0;
        runner->n_failovers = 0;
        if (runner->group)
                group_forgive(runner->group);
}

static void revive(Runner *runner) {
        runner_forgive(runner);
        runner->unmet = UNMET_NOTHING;
        runner_set_why(runner, NULL);
        if (runner->desired == DESIRED_UP)
                runner_raise(runner, POLICY_EVENT_START);
}

static void consider(Runner *runner) {
        runner_stop_timer(runner);
        runner_consider(runner);
}

static void (*const actions[])(Runner *) = {
        [POLICY_ACTION_NONE] = NULL,
        [POLICY_ACTION_CONSIDER] = consider,
        [POLICY_ACTION_SPAWN] = make_instance,
        [POLICY_ACTION_ANNOUNCE] = announce,
        [POLICY_ACTION_RELEASE] = runner_release,
        [POLICY_ACTION_STOP] = stop,
        [POLICY_ACTION_DELAY] = delay,
        [POLICY_ACTION_SCHEDULE] = schedule,
        [POLICY_ACTION_SETTLE] = settle,
        [POLICY_ACTION_REVIVE] = revive,
        [POLICY_ACTION_FORGIVE] = runner_forgive,
};
static_assert(ARRAY_SIZE(actions) == _POLICY_ACTION_N, "a function for each action");

/* ----------------------------------------------------------------------------------------------------------- the events */

/* changed() - tells of it: the events, the log, the hooks, its neighbours, its group. */
static void changed(Runner *runner, PolicyState before) {
        const Instance *instance = IS_LIVE(runner->instance) ? runner->instance : NULL;

        runner->changed_us = clock_wall();
        if (runner->hidden)
                return;
        runner_record(runner);
        events_publish(runner->supervisor->events, &(Event){
                                                           .kind = EVENT_RUNNER_STATE,
                                                           .runner = runner->name,
                                                           .instance = instance ? instance->id : 0,
                                                           .pid = instance ? instance->pid : 0,
                                                           .state = runner->state,
                                                           .previous = before,
                                                           .text = runner->why,
                                                   });
        if (runner->state == POLICY_FAILED)
                log_message(runner->transient ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "runner %s: failed: %s",
                            runner->name, runner->why ? runner->why : "no reason is known");
        else if (runner->state == POLICY_BACKOFF && runner->next_us)
                log_warning("runner %s: %s; started again in %.3g s", runner->name,
                            runner->why ? runner->why : "ended",
                            (double) (runner->next_us - MIN(clock_now(), runner->next_us)) / USEC_PER_SEC);
        hooks_run(runner, runner->state);
        runner_changed(runner);
        group_changed(runner);
}

static void handle(Runner *runner, PolicyEvent event) {
        PolicyState before = runner->state, next;
        PolicyAction action;

        if (policy_next(before, event, &next, &action) < 0) {
                log_debug("runner %s: event %s means nothing while %s", runner->name, policy_event_name(event),
                          policy_state_name(before));
                return;
        }
        log_debug("runner %s: %s, %s: now %s, %s", runner->name, policy_state_name(before), policy_event_name(event),
                  policy_state_name(next), policy_action_name(action));
        runner->state = next;
        if (next != before)
                runner->events &= ~MOMENTARY; /* of the state before; what the action raises is of the new one */
        if (actions[action])
                actions[action](runner);
        if (next != before)
                changed(runner, before);
        if (next != before || 1u << event & (COMMANDS | BIT(RESET)))
                runner_tell(runner, runner_outcome(runner));
}

void runner_raise(Runner *runner, PolicyEvent event) {
        if (1u << event & COMMANDS)
                runner->events &= ~COMMANDS;
        runner->events |= 1u << event;
        supervisor_queue_runner(runner->supervisor, runner);
}

/* next_event() - false: none is left. */
static bool next_event(Runner *runner, PolicyEvent *ret_event) {
        unsigned event;

        if (runner->events & BIT(READY))
                event = POLICY_EVENT_READY;
        else if (runner->over && !(runner->past && runner->state == POLICY_STOPPING)) {
                *ret_event = over(runner);
                return true;
        } else if (runner->events)
                event = (unsigned) __builtin_ctz(runner->events);
        else
                return false;
        runner->events &= ~(1u << event);
        *ret_event = (PolicyEvent) event;
        return true;
}

/* What its own events raise is handled, too, but a pair of them that never ends (a delay of 0) lets others have their turn. */
void runner_handle(Runner *runner) {
        PolicyEvent event;

        for (unsigned i = 0; i < _POLICY_EVENT_N && next_event(runner, &event); i++)
                handle(runner, event);
        if (runner->events || (runner->over && !(runner->past && runner->state == POLICY_STOPPING)))
                supervisor_queue_runner(runner->supervisor, runner);
}

/* ------------------------------------------------------------------------------------------- from its instance, outside */

void runner_instance_ready(Runner *runner) {
        if (!runner->config->oneshot)
                runner_raise(runner, POLICY_EVENT_READY);
}

void runner_instance_over(Runner *runner) {
        runner->over = true;
        supervisor_queue_runner(runner->supervisor, runner);
}

void runner_note_past(Runner *runner, const Instance *instance) {
        char text[2 * INSTANCE_FAILURE_SIZE];
        bool success = is_success(instance);

        note_end(runner, instance, success, runner_describe_end(instance, text, sizeof(text)));
}

void runner_past_over(Runner *runner, Instance *instance) {
        Instance **link = &runner->past;

        while (*link && *link != instance)
                link = &(*link)->past;
        if (*link)
                *link = instance->past;
        runner_note_past(runner, instance);
        instance_free(instance);
        supervisor_queue_runner(runner->supervisor, runner); /* a stop may wait for that */
}

void runner_upgrade_over(Runner *runner, bool old_gone) {
        if (old_gone)
                runner_instance_over(runner);
        else if (runner->state == POLICY_STOPPING && !runner->holding)
                stop(runner); /* who serves now does not know of it */
        supervisor_queue_runner(runner->supervisor, runner);
        checkpoint_renew(runner);
        checkpoint_wake(runner);
}

static int may_start(const Runner *runner) {
        if (runner->supervisor->stopping)
                return -ESHUTDOWN;
        return runner->removed || runner->ended ? -ENOENT : 0;
}

int runner_start(Runner *runner) {
        int r = may_start(runner);

        if (r < 0)
                return r;
        if (runner->state == POLICY_FAILED)
                runner_forgive(runner);
        runner->desired = DESIRED_UP;
        runner_start_required(runner);
        runner_raise(runner, POLICY_EVENT_START);
        return 0;
}

void runner_begin(Runner *runner) {
        if (!runner->config->schedule) {
                (void) runner_start(runner);
                return;
        }
        runner->desired = DESIRED_UP;
        runner_raise(runner, POLICY_EVENT_NEXT);
}

void runner_stop(Runner *runner, uint64_t timeout_us) {
        runner->desired = DESIRED_DOWN;
        runner->stop_timeout_us = timeout_us;
        if (runner->state == POLICY_STOPPING && !runner->holding)
                stop(runner); /* which may have less time now */
        runner_raise(runner, POLICY_EVENT_STOP);
}

int runner_restart(Runner *runner) {
        int r = may_start(runner);

        if (r < 0)
                return r;
        runner_forgive(runner);
        runner->desired = DESIRED_UP;
        runner->stop_timeout_us = 0;
        runner_start_required(runner);
        runner_restart_dependants(runner);
        runner_raise(runner, POLICY_EVENT_RESTART);
        return 0;
}

void runner_reset(Runner *runner) {
        runner_raise(runner, POLICY_EVENT_RESET);
}

void runner_fail(Runner *runner, RunnerUnmet unmet, const char *format, ...) {
        va_list arguments;
        _cleanup_free_ char *why = NULL;

        if (runner->state != POLICY_WAITING && runner->state != POLICY_BACKOFF && runner->state != POLICY_STARTING &&
            runner->state != POLICY_UP)
                return;
        va_start(arguments, format);
        if (vasprintf(&why, format, arguments) < 0)
                why = NULL;
        va_end(arguments);
        runner->unmet = unmet;
        runner_set_why(runner, "%s", why ? why : "no memory for the reason");
        runner_raise(runner, POLICY_EVENT_UNMET);
}

void runner_remove(Runner *runner) {
        runner->removed = true;
        runner_stop(runner, 0);
}

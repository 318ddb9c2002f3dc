/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, the object: making and finding it, who watches it, how it ended. A runner belongs to the supervisor's table from
 * runner_new() until runner_free(), which only the supervisor's task calls, when it was removed and nothing of it is left:
 * so a pointer to one is good for a turn of the loop, and a watcher is told before it goes.
 *
 * A watcher may do anything in its callback, unwatch others included: those to be told are moved to a list of their own
 * and taken from it one by one, wherever they are unwatched from.
 *
 * What is rarely needed (texts, the history of ends, the timer) is made when it is.
 */

#include "supervisor/runner-internal.h"

#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "supervisor/checkpoint.h"
#include "supervisor/chronicle.h"
#include "supervisor/group.h"
#include "supervisor/leftovers.h"
#include "supervisor/runner-record.h"
#include "supervisor/schedule.h"
#include "supervisor/supervisor.h"
#include "supervisor/unknown.h"
#include "supervisor/upgrade.h"

/* --------------------------------------------------------------------------------------------------- making, freeing */

static int add(Supervisor *supervisor, Runner *runner) {
        HASH_ADD(by_name, supervisor->runners, name, strlen(runner->name), runner);
        return runner->by_name.tbl ? 0 : -ENOMEM;
}

static int make(Runner **ret_runner, Supervisor *supervisor, RunnerConfig *config, const char *name, uint32_t number) {
        Runner *runner = calloc(1, sizeof(*runner) + strlen(name) + 1);

        if (!runner)
                return -ENOMEM;
        (void) strcpy(runner->name, name);
        runner->supervisor = supervisor;
        runner->number = number;
        runner->terminal_fd = runner->program_fd = -1;
        runner->copied = PRECOPIED_NULL(PRECOPIED_RUNNER);
        LIST_INIT(&runner->watchers);
        if (runner_log_new(&runner->log, supervisor->logs, runner->name, &config->log) < 0) {
                free(runner);
                return -ENOMEM;
        }
        runner_log_set_over(runner->log, true); /* until it is started */
        runner->config = runner_config_ref(config);
        *ret_runner = runner;
        return 0;
}

int runner_new_hidden(Runner **ret_runner, Supervisor *supervisor, RunnerConfig *config) {
        int r = make(ret_runner, supervisor, config, config->name, 0);

        if (r == 0)
                (*ret_runner)->hidden = true;
        return r;
}

int runner_new(Runner **ret_runner, Supervisor *supervisor, RunnerConfig *config, uint32_t number) {
        char text[CONFIG_NAME_MAX + 1];
        const char *name = runner_config_instance_name(config, number, text);
        Runner *runner = NULL;
        int r;

        if (runner_find(supervisor, name))
                return -EEXIST;
        r = make(&runner, supervisor, config, name, number);
        if (r == 0)
                r = add(supervisor, runner);
        if (r < 0) {
                if (runner)
                        runner_free(runner);
                return r;
        }
        runner_log_copied(runner->log, &supervisor->precopy, &runner->copied);
        runner_touch(runner);
        *ret_runner = runner;
        return 0;
}

void runner_touch(Runner *runner) {
        if (!runner->hidden)
                precopy_touch(&runner->supervisor->precopy, &runner->copied);
}

static void free_past(Runner *runner) {
        Instance *past = runner->past;

        runner->past = past->past;
        supervisor_unqueue_spawn(runner->supervisor, past);
        instance_free(past);
}

void runner_free(Runner *runner) {
        supervisor_unqueue_runner(runner->supervisor, runner);
        if (runner->instance)
                supervisor_unqueue_spawn(runner->supervisor, runner->instance);
        runner->checkpoint = checkpoint_free(runner->checkpoint);
        runner->upgrade = upgrade_free(runner->upgrade);
        runner->upgrades = upgrade_history_free(runner->upgrades);
        while (runner->past)
                free_past(runner);
        runner->instance = instance_free(runner->instance); /* who reads the log to its end looks at it */
        schedule_stop(runner);
        if (runner->timer)
                loop_timer_stop(&runner->timer->timer);
        policy_window_reset(&runner->window);
        runner_log_free(runner->log);
        runner_config_unref(runner->config);
        fd_close(runner->terminal_fd);
        fd_close(runner->program_fd);
        free(runner->timer);
        free(runner->why);
        free(runner->status);
        leftovers_free(runner->leftovers);
        unknown_free(runner->unknown);
        free(runner->exits);
        free(runner->after);
        free(runner->before);
        precopy_forget(&runner->supervisor->precopy, &runner->copied, 0, runner->name); /* its end has touched it */
        free(runner);
}

void runner_forget(Runner *runner) {
        runner_record_forget(runner);
        group_leave(runner);
        runner_unlink(runner);
        if (!runner->hidden)
                HASH_DELETE(by_name, runner->supervisor->runners, runner);
        chronicle_forget(runner);
        runner_tell(runner, RUNNER_OUTCOME_GONE);
        runner_free(runner);
}

void runner_set_why(Runner *runner, const char *format, ...) {
        va_list arguments;
        char *why = NULL;

        if (format) {
                va_start(arguments, format);
                if (vasprintf(&why, format, arguments) < 0)
                        why = NULL;
                va_end(arguments);
        }
        runner_touch(runner);
        free(runner->why); /* after that, since it may be one of the arguments */
        runner->why = why;
}

/* ------------------------------------------------------------------------------------------------------------ finding */

Runner *runner_find(const Supervisor *supervisor, const char *name) {
        Runner *runner;

        HASH_FIND(by_name, supervisor->runners, name, strlen(name), runner);
        return runner;
}

Runner *runner_first(const Supervisor *supervisor) {
        return supervisor->runners;
}

Runner *runner_next(const Runner *runner) {
        return runner->by_name.next;
}

bool runner_matches(const Runner *runner, const char *pattern) {
        return fnmatch(pattern, runner->name, 0) == 0 ||
               (runner->number > 0 && strcmp(pattern, runner->config->name) == 0);
}

/* ----------------------------------------------------------------------------------------------------------- watching */

static const RunnerOutcome outcomes[] = {
        [POLICY_DOWN] = RUNNER_OUTCOME_DOWN,
        [POLICY_SCHEDULED] = RUNNER_OUTCOME_SCHEDULED,
        [POLICY_WAITING] = RUNNER_OUTCOME_PENDING,
        [POLICY_STARTING] = RUNNER_OUTCOME_PENDING,
        [POLICY_UP] = RUNNER_OUTCOME_UP,
        [POLICY_STOPPING] = RUNNER_OUTCOME_PENDING,
        [POLICY_BACKOFF] = RUNNER_OUTCOME_RETRYING,
        [POLICY_FAILED] = RUNNER_OUTCOME_FAILED,
        [POLICY_DONE] = RUNNER_OUTCOME_DONE,
};
static_assert(ARRAY_SIZE(outcomes) == _POLICY_STATE_N, "an outcome for each state");

/* A command that was not handled yet, and an end that was not judged yet, are on their way to something else. */
RunnerOutcome runner_outcome(const Runner *runner) {
        const uint32_t commands = 1u << POLICY_EVENT_START | 1u << POLICY_EVENT_STOP | 1u << POLICY_EVENT_RESTART |
                                  1u << POLICY_EVENT_RESET;

        return runner->events & commands || runner->over ? RUNNER_OUTCOME_PENDING : outcomes[runner->state];
}

void runner_watch(Runner *runner, RunnerWatcher *watcher) {
        watcher->runner = runner;
        LIST_INSERT_HEAD(&runner->watchers, watcher, link);
}

void runner_unwatch(RunnerWatcher *watcher) {
        if (!watcher->runner)
                return;
        LIST_REMOVE(watcher, link);
        watcher->runner = NULL;
}

void runner_tell(Runner *runner, RunnerOutcome outcome) {
        struct RunnerWatchers waiting = LIST_HEAD_INITIALIZER(waiting);
        RunnerWatcher *watcher;

        while ((watcher = LIST_FIRST(&runner->watchers))) {
                LIST_REMOVE(watcher, link);
                LIST_INSERT_HEAD(&waiting, watcher, link);
        }
        while ((watcher = LIST_FIRST(&waiting))) {
                LIST_REMOVE(watcher, link);
                if (outcome == RUNNER_OUTCOME_GONE)
                        watcher->runner = NULL;
                else
                        LIST_INSERT_HEAD(&runner->watchers, watcher, link);
                watcher->callback(watcher, runner, outcome);
        }
}

/* ------------------------------------------------------------------------------------------------------------- signals */

int runner_signal(Runner *runner, int number, KeeperLinkDone done, void *userdata) {
        if (number < 1 || number >= _NSIG)
                return -EINVAL;
        if (runner_pid(runner) == 0)
                return -ESRCH;
        return keeper_link_signal(runner->supervisor->link, runner->instance->id, number, done, userdata);
}

/* ---------------------------------------------------------------------------------------------------------- its ends */

/* More room for the ring, which is not full by its bound yet and so begins at 0. */
static void grow_exits(Runner *runner) {
        unsigned room = runner->room_exits ? MIN(runner->room_exits * 2u, (unsigned) RUNNER_EXITS_MAX) : 2;
        RunnerExit *exits = reallocarray(runner->exits, room, sizeof(*exits));

        if (!exits)
                return;
        runner->exits = exits;
        runner->room_exits = (uint8_t) room;
        runner->next_exit = runner->n_exits;
}

void runner_forget_exits(Runner *runner) {
        free(runner->exits);
        runner->exits = NULL;
        runner->n_exits = runner->next_exit = runner->room_exits = 0;
}

void runner_note_exit(Runner *runner, const RunnerExit *exit) {
        RunnerExit *last = (RunnerExit *) runner_exit(runner, 0);

        runner_touch(runner);
        if (last && last->instance == exit->instance) {
                *last = *exit;
                return;
        }
        if (runner->n_exits == runner->room_exits && runner->room_exits < RUNNER_EXITS_MAX)
                grow_exits(runner);
        if (runner->room_exits == 0)
                return;
        runner->next_exit %= runner->room_exits;
        runner->exits[runner->next_exit++] = *exit;
        runner->n_exits = MIN((uint8_t) (runner->n_exits + 1), runner->room_exits);
}

const RunnerExit *runner_exit(const Runner *runner, unsigned nth) {
        unsigned room = runner->room_exits;

        return nth < runner->n_exits ? &runner->exits[(runner->next_exit + room - 1 - nth) % room] : NULL;
}

/* ------------------------------------------------------------------------------------------------------------- status */

ProcessState runner_process_state(const Runner *runner) {
        return runner->instance ? runner->instance->state : PROCESS_DOWN;
}

int runner_pid(const Runner *runner) {
        return runner->instance ? runner->instance->pid : 0;
}

static const char *const cause_names[] = {
        [RUNNER_CAUSE_ITSELF] = "by itself",
        [RUNNER_CAUSE_STOPPED] = "stopped",
        [RUNNER_CAUSE_KILLED] = "killed",
        [RUNNER_CAUSE_START_FAILED] = "start failed",
        [RUNNER_CAUSE_START_TIMEOUT] = "start time-out",
        [RUNNER_CAUSE_WATCHDOG] = "watchdog",
        [RUNNER_CAUSE_DISCONNECTED] = "disconnected",
        [RUNNER_CAUSE_OUT_OF_MEMORY] = "out of memory",
        [RUNNER_CAUSE_LOST] = "lost",
};
static_assert(ARRAY_SIZE(cause_names) == _RUNNER_CAUSE_N, "a name for each cause");

static const char *const outcome_names[] = {
        [RUNNER_OUTCOME_PENDING] = "pending", [RUNNER_OUTCOME_RETRYING] = "retrying",
        [RUNNER_OUTCOME_UP] = "up",           [RUNNER_OUTCOME_SCHEDULED] = "scheduled",
        [RUNNER_OUTCOME_DOWN] = "down",       [RUNNER_OUTCOME_DONE] = "done",
        [RUNNER_OUTCOME_FAILED] = "failed",   [RUNNER_OUTCOME_GONE] = "gone",
};
static_assert(ARRAY_SIZE(outcome_names) == _RUNNER_OUTCOME_N, "a name for each outcome");

const char *runner_cause_name(RunnerCause cause) {
        return cause_names[cause];
}

const char *runner_outcome_name(RunnerOutcome outcome) {
        return outcome_names[outcome];
}

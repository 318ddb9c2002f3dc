/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, its record. One slot in the keeper at a time carries it: that of the present instance, or, when that is over, the
 * same one without a process, or, where there never was an instance but somebody has said what shall be, one of its own.
 * Where a start is what the configuration leads to anyway, nothing is written: RESERVE has brought the record along.
 */

#include "supervisor/runner-record.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/chronicle.h"
#include "supervisor/instance.h"
#include "supervisor/keeper-link.h"
#include "supervisor/notify.h"
#include "supervisor/runner-internal.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

bool runner_is_recorded(const Runner *runner) {
        return runner->supervisor->followed && !runner->transient && !runner->hidden;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

/* pack_window() - the latest of the restarts that count. */
static void pack_window(const PolicyWindow *window, Record *record) {
        uint32_t n = MIN(window->n, (uint32_t) RECORD_RESTARTS_MAX);

        record->n_restart_times = (uint8_t) n;
        for (uint32_t i = 0; i < n; i++)
                record->restart_us[i] = window->times[(window->first + window->n - n + i) % window->max];
}

static void pack_exit(const RunnerExit *exit, Record *record) {
        if (!exit)
                return;
        record->n_exits = 1;
        record->exit_cause = (uint8_t) exit->cause;
        record->exit_code = (uint8_t) exit->exit.how;
        record->exit_flags =
                (uint8_t) ((exit->success ? RECORD_EXIT_SUCCESS : 0) | (exit->killed ? RECORD_EXIT_KILLED : 0));
        record->exit_status = exit->exit.status;
        record->exit_pid = exit->pid;
        record->exit_instance = exit->instance;
        record->exit_started_wall_us = exit->started_us;
        record->exit_wall_us = exit->ended_us;
        record->exit_uptime_us = exit->uptime_us;
}

/* pack_place() - the directory of its notify socket, or of its way in, by which alone it is found again. */
static void pack_place(const Instance *instance, Record *record) {
        const char *path = instance->notify      ? notify_path(instance->notify)
                           : instance->bootstrap ? instance->bootstrap->path
                                                 : NULL;
        const char *end, *begin;

        end = path ? strrchr(path, '/') : NULL;
        begin = end ? memrchr(path, '/', (size_t) (end - path)) : NULL;
        if (begin && (size_t) (end - begin) <= sizeof(record->place))
                (void) memcpy(record->place, begin + 1, (size_t) (end - begin) - 1);
}

static uint8_t flags_of(const Runner *runner, const Instance *instance) {
        const Upgrade *upgrade = runner->upgrade;

        return (uint8_t) ((runner->transient ? RECORD_TRANSIENT : 0) | (runner->completed ? RECORD_COMPLETED : 0) |
                          (runner->state == POLICY_UP ? RECORD_READY : 0) |
                          (instance && instance->saves ? RECORD_SAVES : 0) |
                          (upgrade_has(upgrade, instance) ? RECORD_UPGRADE : 0) |
                          (instance && instance->is_past ? RECORD_PAST : 0) |
                          (instance && !instance->over && !upgrade_is_configured(instance) ? RECORD_STALE : 0));
}

void runner_pack(const Runner *runner, const Instance *instance, uint8_t bytes[KEEPER_RECORD_SIZE]) {
        Record record = {
                .desired = (uint8_t) runner->desired,
                .state = (uint8_t) runner->state,
                .flags = flags_of(runner, instance),
                .up_us = runner->up_us,
                .changed_wall_us = runner->changed_us,
                .next_us = runner->next_us,
                .n_starts = runner->n_starts,
                .n_restarts = runner->n_restarts,
                .n_failovers = runner->n_failovers,
                .recovers = instance && instance->recovers,
                .n_failures = runner->n_failures,
                .begun_us = runner->begun_us,
        };

        pack_window(&runner->window, &record);
        pack_exit(runner_exit(runner, 0), &record);
        if (instance && !instance->over) {
                record.started_us = instance->started_us;
                record.started_wall_us = instance->started_wall_us;
                record.program = instance->program;
                pack_place(instance, &record);
        }
        record_pack(&record, bytes);
}

/* own_slot() - one without a process, for a runner that never had one, and is not as it is made. */
static void own_slot(Runner *runner, const uint8_t bytes[KEEPER_RECORD_SIZE]) {
        uint64_t id = supervisor_next_id(runner->supervisor);
        const KeeperReservation reservation = {
                .instance = id,
                .name = runner->name,
                .flags = KEEPER_FLAG_KEPT,
                .record = bytes,
        };
        bool as_made = (runner->desired == DESIRED_UP) == runner->config->autostart;

        if (as_made && runner->state != POLICY_FAILED && runner->state != POLICY_BACKOFF)
                return;
        if (keeper_link_reserve(runner->supervisor->link, &reservation, NULL, NULL) == 0)
                runner->kept = id;
}

void runner_record(Runner *runner) {
        const Instance *instance = runner->instance;
        KeeperLink *link = runner->supervisor->link;
        uint8_t bytes[KEEPER_RECORD_SIZE];

        chronicle_why(runner);
        if (!runner_is_recorded(runner) || runner->state == POLICY_WAITING || runner->state == POLICY_STARTING)
                return;
        if (runner->state == POLICY_UP && runner->config->ready == CONFIG_READY_NONE)
                return; /* STARTED says as much */
        runner_pack(runner, instance, bytes);
        if (instance && !instance->over && instance->born)
                (void) keeper_link_record(link, instance->id, bytes);
        else if (runner->kept)
                (void) keeper_link_record(link, runner->kept, bytes);
        else if (!instance || instance->over)
                own_slot(runner, bytes);
}

void runner_record_instance(const Runner *runner, const Instance *instance) {
        uint8_t bytes[KEEPER_RECORD_SIZE];

        if (!runner_is_recorded(runner) || !instance->born || instance->over)
                return;
        runner_pack(runner, instance, bytes);
        (void) keeper_link_record(runner->supervisor->link, instance->id, bytes);
}

void runner_record_forget(Runner *runner) {
        if (runner->kept)
                (void) keeper_link_cancel(runner->supervisor->link, runner->kept);
        runner->kept = 0;
}

void runner_record_started(Runner *runner) {
        runner_record_forget(runner);
}

void runner_record_ended(Runner *runner) {
        runner_record_forget(runner);
        (void) keeper_link_keep(runner->supervisor->link, runner->instance->id);
        runner->kept = runner->instance->id;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

static void restore_exit(Runner *runner, const Record *record) {
        const RunnerExit exit = {
                .instance = record->exit_instance,
                .started_us = record->exit_started_wall_us,
                .ended_us = record->exit_wall_us,
                .uptime_us = record->exit_uptime_us,
                .pid = record->exit_pid,
                .cause = (RunnerCause) MIN(record->exit_cause, (uint8_t) RUNNER_CAUSE_LOST),
                .success = record->exit_flags & RECORD_EXIT_SUCCESS,
                .killed = record->exit_flags & RECORD_EXIT_KILLED,
                .exit = { (ExitHow) MIN(record->exit_code, (uint8_t) EXIT_DUMPED), record->exit_status },
        };

        if (record->n_exits > 0)
                runner_note_exit(runner, &exit);
}

void runner_restore(Runner *runner, const Record *record) {
        const ConfigIntensity *limit = &runner->config->intensity;

        policy_window_reset(&runner->window);
        runner_forget_exits(runner);
        runner->n_starts = (uint32_t) record->n_starts;
        runner->n_restarts = (uint32_t) record->n_restarts;
        runner->n_failovers = record->n_failovers;
        runner->n_failures = record->n_failures;
        runner->changed_us = record->changed_wall_us;
        runner->completed = record->flags & RECORD_COMPLETED;
        runner->begun_us = record->begun_us;
        for (unsigned i = 0; i < record->n_restart_times; i++)
                (void) policy_window_add(&runner->window, limit->restarts, limit->window_us, record->restart_us[i]);
        restore_exit(runner, record);
}

/* say_why() - as it was said, or, where the very words are gone with who knew them, as far as its end tells. */
static void say_why(Runner *runner) {
        const RunnerExit *exit = runner_exit(runner, 0);
        char text[EXIT_STATUS_TEXT_SIZE];

        if (chronicle_restore_why(runner))
                return;
        if (!exit)
                runner_set_why(runner, "failed, under a supervisor before this one");
        else if (exit->pid == 0)
                runner_set_why(runner, "start failed, under a supervisor before this one");
        else
                runner_set_why(runner, "%s, under a supervisor before this one",
                               exit_status_describe(exit->exit, text));
}

/* rest() - as it was, whatever the configuration has begun. */
static void rest(Runner *runner, PolicyState state, Desired desired) {
        runner->events = 0;
        runner->state = state;
        runner->desired = desired;
}

void runner_as_made(Runner *runner) {
        runner_restore(runner, &(Record){ 0 });
        runner_stop_timer(runner);
        runner_set_why(runner, NULL);
        supervisor_unqueue_runner(runner->supervisor, runner);
        runner->events = 0;
        runner->state = POLICY_DOWN;
        runner->desired = DESIRED_DOWN;
        runner->unmet = UNMET_NOTHING;
        runner->over = runner->holding = false;
        runner->kept = runner->last_instance = runner->up_us = 0;
        runner_log_set_over(runner->log, true);
        if (!runner->config->autostart || runner->removed)
                return;
        runner->desired = DESIRED_UP;
        runner_raise(runner, runner->config->schedule ? POLICY_EVENT_NEXT : POLICY_EVENT_START);
}

void runner_restore_kept(Runner *runner, const Record *record, uint64_t kept) {
        Desired desired = record->desired == DESIRED_UP ? DESIRED_UP : DESIRED_DOWN;

        runner->kept = kept;
        runner_restore(runner, record);
        chronicle_restore(runner);
        if (record->state == POLICY_FAILED || record->state == POLICY_BACKOFF)
                say_why(runner);
        if (record->state == POLICY_FAILED || record->state == POLICY_DONE) {
                rest(runner, (PolicyState) record->state, desired);
        } else if (desired == DESIRED_DOWN) {
                rest(runner, POLICY_DOWN, desired);
        } else if (record->state == POLICY_BACKOFF) {
                rest(runner, POLICY_BACKOFF, desired);
                runner->next_us = record->next_us;
                runner_set_timer(runner, record->next_us);
        } else if (!runner->events) {
                runner_begin(runner); /* by a command, not by its configuration */
        }
}

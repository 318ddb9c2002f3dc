/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Status: a runner as a message. Everything is read where it is kept, nothing is counted for it: what nobody asks for costs
 * nothing.
 */

#include "supervisor/runner-status.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/checkpoint.h"
#include "supervisor/holder.h"
#include "supervisor/instance.h"
#include "supervisor/report.h"
#include "supervisor/supervisor.h"

void runner_status_record(const RunnerExit *from, Baton__Control__ExitRecord *ret_record, Baton__Control__Exit *exit) {
        baton__control__exit_record__init(ret_record);
        ret_record->instance = from->instance;
        ret_record->pid = from->pid;
        ret_record->time_us = from->ended_us;
        ret_record->uptime_us = from->uptime_us;
        ret_record->cause = (Baton__Control__ExitRecord__Cause) from->cause;
        report_exit(from->exit, exit);
        if (from->pid > 0)
                ret_record->exit = exit;
}

void runner_status_upgrade(const UpgradeRecord *record, Baton__Control__UpgradeRecord *ret_message) {
        baton__control__upgrade_record__init(ret_message);
        ret_message->time_us = record->begun_us;
        ret_message->from = record->from;
        ret_message->to = record->to;
        ret_message->phase = (Baton__Control__UpgradeRecord__Phase) record->phase;
        ret_message->check = record->check;
        ret_message->back = record->back;
        if (record->why)
                ret_message->reason = record->why;
        ret_message->pause_us = record->pause_us;
        ret_message->phase_us = (uint64_t *) record->phase_us;
        ret_message->n_phase_us = ARRAY_SIZE(record->phase_us);
}

static void fill_upgrades(RunnerStatusMessage *message, const Runner *runner) {
        const UpgradeHistory *history = runner->upgrades;
        Baton__Control__RunnerStatus *status = &message->status;

        for (const Instance *past = runner->past; past; past = past->past)
                status->past++;
        if (runner->upgrade)
                status->upgrade_phase = (char *) upgrade_phase_name(runner->upgrade->phase);
        if (!history)
                return;
        status->upgrades_done = history->n_done;
        status->upgrades_failed = history->n_failed;
        for (unsigned i = 0; i < history->n; i++) {
                runner_status_upgrade(&history->records[i], &message->upgrades[i]);
                message->upgrade_pointers[i] = &message->upgrades[i];
        }
        status->upgrades = message->upgrade_pointers;
        status->n_upgrades = history->n;
}

static void fill_outlook(RunnerStatusMessage *message, const Runner *runner) {
        UpgradeOutlook outlook;

        upgrade_outlook(runner, &outlook);
        baton__control__upgrade_outlook__init(&message->outlook);
        message->outlook.program = outlook.program;
        message->outlook.configuration = outlook.configuration;
        if (outlook.cannot)
                message->outlook.cannot = (char *) outlook.cannot;
        message->status.outlook = &message->outlook;
}

/* fill_ends() - the last one, and all that are remembered, oldest first. */
static void fill_ends(RunnerStatusMessage *message, const Runner *runner, bool history) {
        const RunnerExit *exit;
        unsigned n = 0;

        while (n < RUNNER_EXITS_MAX && (exit = runner_exit(runner, n)))
                runner_status_record(exit, &message->records[n], &message->exits[n]), n++;
        if (n > 0)
                message->status.last_exit = &message->records[0];
        for (unsigned i = 0; history && i < n; i++)
                message->pointers[i] = &message->records[n - 1 - i];
        message->status.history = message->pointers;
        message->status.n_history = history ? n : 0;
}

static void fill_checkpoint(RunnerStatusMessage *message, const Runner *runner, uint64_t now_us) {
        Baton__Control__CheckpointStatus *status = &message->checkpoint;
        const Holder *holder = runner->supervisor->holder;
        const Kept *kept = holder_kept(holder, runner);
        CheckpointCounts counts = checkpoint_counts(runner);

        message->status.failovers = runner->n_failovers;
        if (runner->config->recover != CONFIG_RECOVER_FAILOVER)
                return;
        baton__control__checkpoint_status__init(status);
        if (kept) {
                const BoardEntry *entry = holder_kept_entry(holder, kept);

                status->time_us = entry->since_wall_us;
                status->age_us = now_us - MIN(entry->since_us, now_us);
                status->instance = entry->instance;
                status->state_size = entry->state_size;
                status->descriptors = (uint32_t) kept->manifest.n - 2;
        }
        status->made = counts.done;
        status->failed = counts.failed;
        if (counts.why)
                status->reason = (char *) counts.why;
        message->status.checkpoint = status;
}

/* waits_for() - whether @runner cannot be started before @other is there. */
static bool waits_for(const Runner *runner, unsigned i) {
        const Runner *other = runner->after[i];

        if (other->state == POLICY_UP || other->state == POLICY_DONE)
                return false;
        return i < runner->n_requires ||
               (other->state != POLICY_DOWN && other->state != POLICY_FAILED && other->state != POLICY_SCHEDULED);
}

static void fill_waiting(RunnerStatusMessage *message, const Runner *runner) {
        size_t n = 0;

        for (unsigned i = 0; runner->state == POLICY_WAITING && i < runner->n_after && n < RUNNER_STATUS_WAITS_FOR_MAX;
             i++)
                if (waits_for(runner, i))
                        message->waits_for[n++] = runner->after[i]->name;
        message->status.waits_for = message->waits_for;
        message->status.n_waits_for = n;
}

static void fill_command(RunnerStatusMessage *message, const RunnerConfig *config) {
        size_t n = 0, bytes = 0;

        for (const char *const *word = config->command; word && *word && n < RUNNER_STATUS_WORDS_MAX; word++) {
                size_t size = strlen(*word);

                bytes += size;
                if (bytes > RUNNER_STATUS_WORDS_BYTES)
                        break;
                message->command[n++] = (ProtobufCBinaryData){ .data = (uint8_t *) *word, .len = size };
        }
        message->status.command = message->command;
        message->status.n_command = n;
}

static void fill_instance(RunnerStatusMessage *message, const Instance *instance, uint64_t now_us) {
        Baton__Control__RunnerStatus *status = &message->status;

        status->instance = instance->id;
        status->pid = instance->pid;
        if (instance->pid > 0 && instance->started_us > 0)
                status->uptime_us = now_us - instance->started_us;
        status->main_pid = instance->main_pid;
        status->said_errno = (uint32_t) instance->said_errno;
        status->reloading = instance->reloading;
        status->failover = instance->recovers;
        if (!instance->peer)
                return;
        status->service_state = peer_remote(instance->peer)->service_state;
        if (peer_remote(instance->peer)->software)
                status->software = peer_remote(instance->peer)->software;
}

static void fill_log(RunnerStatusMessage *message, const Runner *runner, bool output) {
        Baton__Control__RunnerStatus *status = &message->status;
        LogStatus log;

        runner_log_status(runner->log, &log);
        status->log_lines = log.lines;
        status->log_bytes = log.bytes;
        status->log_dropped = log.dropped;
        if (output)
                status->n_last_output = runner_log_tail(runner->log, 0, RUNNER_STATUS_LAST_LINES,
                                                        RUNNER_STATUS_LAST_BYTES, &message->last_output);
        status->last_output = message->last_output;
}

/* next_start() - from now. */
static uint64_t next_start(const Runner *runner, uint64_t now_us) {
        uint64_t now = runner->state == POLICY_SCHEDULED ? clock_wall() : now_us;

        return runner->next_us > now ? runner->next_us - now : runner->next_us > 0;
}

void runner_status_fill(RunnerStatusMessage *ret_message, const Runner *runner, unsigned details, uint64_t now_us) {
        Baton__Control__RunnerStatus *status = &ret_message->status;
        const RunnerConfig *config = runner->config;

        *ret_message = (RunnerStatusMessage){ .last_output = NULL };
        baton__control__runner_status__init(status);
        status->name = (char *) runner->name;
        if (runner->number > 0)
                status->template_ = (char *) config->name;
        status->kind = runner_config_native(config) ? BATON__CONTROL__RUNNER_STATUS__KIND__NATIVE
                                                    : BATON__CONTROL__RUNNER_STATUS__KIND__PLAIN;
        status->oneshot = config->oneshot;
        status->transient = runner->transient;
        if (config->description)
                status->description = (char *) config->description;
        status->state = (Baton__Control__RunnerStatus__State) runner->state;
        status->desired = (Baton__Control__RunnerStatus__Desired) runner->desired;
        status->state_time_us = runner->changed_us;
        status->restarts = runner->n_restarts;
        status->next_start_us = next_start(runner, now_us);
        if (runner->why)
                status->reason = runner->why;
        if (runner->status)
                status->status_text = runner->status;
        if (runner->instance && !runner->instance->over)
                fill_instance(ret_message, runner->instance, now_us);
        fill_upgrades(ret_message, runner);
        if (details & RUNNER_STATUS_WITH_OUTLOOK)
                fill_outlook(ret_message, runner);
        fill_checkpoint(ret_message, runner, now_us);
        fill_ends(ret_message, runner, details & RUNNER_STATUS_WITH_HISTORY);
        fill_waiting(ret_message, runner);
        status->leftovers = runner->leftovers;
        while (runner->leftovers && runner->leftovers[status->n_leftovers])
                status->n_leftovers++;
        if (details & RUNNER_STATUS_WITH_HISTORY)
                fill_command(ret_message, config);
        fill_log(ret_message, runner, details & RUNNER_STATUS_WITH_OUTPUT);
}

void runner_status_clear(RunnerStatusMessage *message) {
        free(message->last_output);
        message->last_output = NULL;
}

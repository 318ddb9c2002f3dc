/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Status in words and as JSON. Members that say nothing are left out of the JSON, so that it stays readable; those a program
 * will want of every runner are always there: name, state, desired, kind, restarts.
 */

#include "client/status-text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call-output.h"
#include "client/exit-code.h"
#include "common/clock.h"
#include "common/log-line.h"

static const char *const states[] = { "down",     "scheduled", "waiting", "starting", "up",
                                      "stopping", "backoff",   "failed",  "done" };
static const char *const causes[] = { "itself",   "stopped",      "killed",        "start_failed", "start_timeout",
                                      "watchdog", "disconnected", "out_of_memory", "lost" };

static const char *const outcomes[] = { "under_way", "done",      "checked",  "rolled_back",
                                        "cut_off",   "recovered", "went_back" };
static const char *const phases[] = { "check", "start", "copy", "freeze", "delta", "commit", "resume" };

const char *status_takeover_outcome(int outcome) {
        return outcome >= 0 && (size_t) outcome < ARRAY_SIZE(outcomes) ? outcomes[outcome] : "unknown";
}

const char *status_takeover_phase(int phase) {
        return phase >= 0 && (size_t) phase < ARRAY_SIZE(phases) ? phases[phase] : "unknown";
}

void status_takeover_reason(const Baton__Control__TakeoverRecord *record, char *text, size_t size) {
        switch (record->outcome) {
        case BATON__CONTROL__TAKEOVER_RECORD__OUTCOME__RECOVERED:
        case BATON__CONTROL__TAKEOVER_RECORD__OUTCOME__WENT_BACK:
                (void) snprintf(text, size, "pid %d %s", record->former_pid, record->reason);
                break;
        default:
                (void) snprintf(text, size, "in %s: %s", status_takeover_phase((int) record->phase), record->reason);
        }
}

const char *status_state_name(int state) {
        return state >= 0 && (size_t) state < ARRAY_SIZE(states) ? states[state] : "unknown";
}

const char *status_cause_name(int cause) {
        return cause >= 0 && (size_t) cause < ARRAY_SIZE(causes) ? causes[cause] : "unknown";
}

/* What goes before how it ended; NULL: nothing. */
static const char *cause_text(int cause) {
        switch (cause) {
        case BATON__CONTROL__EXIT_RECORD__CAUSE__STOPPED:
                return "stopped, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__KILLED:
                return "did not stop in time, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__START_FAILED:
                return "start failed, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__START_TIMEOUT:
                return "was not ready in time, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__WATCHDOG:
                return "gave no sign of life, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__DISCONNECTED:
                return "lost its connection, ";
        case BATON__CONTROL__EXIT_RECORD__CAUSE__OUT_OF_MEMORY:
                return "out of memory, ";
        default:
                return "";
        }
}

void status_exit_describe(const Baton__Control__ExitRecord *record, char text[STATUS_TEXT_MAX]) {
        char how[EXIT_TEXT_MAX];

        if (!record) {
                (void) snprintf(text, STATUS_TEXT_MAX, "-");
                return;
        }
        if (record->cause == BATON__CONTROL__EXIT_RECORD__CAUSE__START_FAILED && !record->exit) {
                (void) snprintf(text, STATUS_TEXT_MAX, "start failed");
                return;
        }
        exit_describe(record->exit, how);
        (void) snprintf(text, STATUS_TEXT_MAX, "%s%s", cause_text((int) record->cause), how);
}

void status_duration_text(uint64_t us, char text[STATUS_TEXT_MAX]) {
        uint64_t s = us / USEC_PER_SEC;

        if (s < 10)
                (void) snprintf(text, STATUS_TEXT_MAX, "%.1fs", (double) us / USEC_PER_SEC);
        else if (s < 60)
                (void) snprintf(text, STATUS_TEXT_MAX, "%us", (unsigned) s);
        else if (s < 3600)
                (void) snprintf(text, STATUS_TEXT_MAX, "%um %us", (unsigned) (s / 60), (unsigned) (s % 60));
        else if (s < 24 * 3600)
                (void) snprintf(text, STATUS_TEXT_MAX, "%uh %um", (unsigned) (s / 3600), (unsigned) (s / 60 % 60));
        else
                (void) snprintf(text, STATUS_TEXT_MAX, "%ud %uh", (unsigned) (s / 86400), (unsigned) (s / 3600 % 24));
}

void status_time_text(uint64_t time_us, char text[STATUS_TEXT_MAX]) {
        log_time_write(time_us, text);
}

/* ---- JSON ---- */

static void set_text(json_t *object, const char *key, const char *text) {
        if (text && *text)
                (void) json_object_set_new(object, key, json_string(text));
}

static void set_number(json_t *object, const char *key, uint64_t number) {
        if (number > 0)
                (void) json_object_set_new(object, key, json_integer((json_int_t) number));
}

static void set_flag(json_t *object, const char *key, bool flag) {
        if (flag)
                (void) json_object_set_new(object, key, json_true());
}

static void set_texts(json_t *object, const char *key, char *const *texts, size_t n) {
        json_t *array = n > 0 ? json_array() : NULL;

        for (size_t i = 0; i < n; i++)
                (void) json_array_append_new(array, json_string(texts[i]));
        if (array)
                (void) json_object_set_new(object, key, array);
}

json_t *status_exit_json(const Baton__Control__ExitRecord *record) {
        json_t *object = json_pack("{s:s}", "cause", status_cause_name((int) record->cause));

        if (!object)
                return NULL;
        set_number(object, "instance", record->instance);
        set_number(object, "pid", record->pid > 0 ? (uint64_t) record->pid : 0);
        set_number(object, "time_us", record->time_us);
        set_number(object, "uptime_us", record->uptime_us);
        if (record->exit)
                (void) json_object_set_new(object, "exit", call_output_exit(record->exit));
        return object;
}

/* word_to_json() - a word of a command may be any bytes: those of one that is no UTF-8 become '?' where they are no ASCII. */
static json_t *word_to_json(const ProtobufCBinaryData *word) {
        json_t *text = json_stringn(word->len > 0 ? (const char *) word->data : "", word->len);
        char *copy = text ? NULL : malloc(word->len);

        if (!copy)
                return text;
        for (size_t i = 0; i < word->len; i++)
                copy[i] = (char) (word->data[i] > 0 && word->data[i] < 0x80 ? word->data[i] : '?');
        text = json_stringn(copy, word->len);
        free(copy);
        return text;
}

static json_t *command_to_json(const Baton__Control__RunnerStatus *runner) {
        json_t *array = json_array();

        for (size_t i = 0; i < runner->n_command; i++)
                (void) json_array_append_new(array, word_to_json(&runner->command[i]));
        return array;
}

static json_t *exits_to_json(const Baton__Control__RunnerStatus *runner) {
        json_t *array = json_array();

        for (size_t i = 0; i < runner->n_history; i++)
                (void) json_array_append_new(array, status_exit_json(runner->history[i]));
        return array;
}

static const char *const upgrade_phases[] = { "starting", "crossing", "committing", "beginning",
                                              "undoing",  "resuming", "over",       "watching" };

json_t *status_upgrade_json(const Baton__Control__UpgradeRecord *record) {
        json_t *object = json_pack("{s:I, s:I, s:I, s:b, s:b, s:I}", "time_us", (json_int_t) record->time_us, "from",
                                   (json_int_t) record->from, "to", (json_int_t) record->to, "check", record->check,
                                   "done", !*record->reason, "pause_us", (json_int_t) record->pause_us);
        json_t *times = json_object();

        if (!object || !times)
                return NULL;
        for (size_t i = 0; i < ARRAY_SIZE(upgrade_phases) && i < record->n_phase_us; i++)
                if (i != BATON__CONTROL__UPGRADE_RECORD__PHASE__OVER)
                        set_number(times, upgrade_phases[i], record->phase_us[i]);
        (void) json_object_set_new(object, "phases_us", times);
        set_text(object, "reason", record->reason);
        if (record->back)
                (void) json_object_set_new(object, "back", json_true());
        if (*record->reason && (size_t) record->phase < ARRAY_SIZE(upgrade_phases))
                set_text(object, "phase", upgrade_phases[record->phase]);
        return object;
}

static json_t *upgrades_to_json(const Baton__Control__RunnerStatus *runner) {
        json_t *array = json_array();

        for (size_t i = 0; i < runner->n_upgrades; i++)
                (void) json_array_append_new(array, status_upgrade_json(runner->upgrades[i]));
        return array;
}

static json_t *checkpoint_to_json(const Baton__Control__CheckpointStatus *checkpoint) {
        json_t *object = json_pack("{s:I, s:I}", "made", (json_int_t) checkpoint->made, "failed",
                                   (json_int_t) checkpoint->failed);

        if (object && checkpoint->time_us > 0)
                (void) json_object_update_new(object, json_pack("{s:I, s:I, s:I, s:I, s:I}", "time_us",
                                                                (json_int_t) checkpoint->time_us, "age_us",
                                                                (json_int_t) checkpoint->age_us, "instance",
                                                                (json_int_t) checkpoint->instance, "state_size",
                                                                (json_int_t) checkpoint->state_size, "descriptors",
                                                                (json_int_t) checkpoint->descriptors));
        set_text(object, "reason", checkpoint->reason);
        return object;
}

json_t *status_leftovers_json(char *const *texts, size_t n) {
        json_t *array = json_array();

        for (size_t i = 0; i < n; i++) {
                const char *name = strchr(texts[i], ' ');

                (void) json_array_append_new(array,
                                             json_pack("{s:I, s:s}", "pid", (json_int_t) strtoll(texts[i], NULL, 10),
                                                       "name", name ? name + 1 : ""));
        }
        return array;
}

json_t *status_runner_json(const Baton__Control__RunnerStatus *runner) {
        bool native = runner->kind == BATON__CONTROL__RUNNER_STATUS__KIND__NATIVE;
        bool up = runner->desired == BATON__CONTROL__RUNNER_STATUS__DESIRED__DESIRED_UP;
        json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:I}", "name", runner->name, "state",
                                   status_state_name((int) runner->state), "desired", up ? "up" : "down", "kind",
                                   native ? "native" : "plain", "restarts", (json_int_t) runner->restarts);

        if (!object)
                return NULL;
        set_text(object, "template", runner->template_);
        set_text(object, "description", runner->description);
        if (runner->n_command > 0)
                (void) json_object_set_new(object, "command", command_to_json(runner));
        set_flag(object, "oneshot", runner->oneshot);
        set_flag(object, "transient", runner->transient);
        set_number(object, "state_time_us", runner->state_time_us);
        set_number(object, "instance", runner->instance);
        set_number(object, "pid", runner->pid > 0 ? (uint64_t) runner->pid : 0);
        set_number(object, "uptime_us", runner->uptime_us);
        set_texts(object, "waits_for", runner->waits_for, runner->n_waits_for);
        set_number(object, "next_start_us", runner->next_start_us);
        set_text(object, "reason", runner->reason);
        set_number(object, "service_state", runner->service_state);
        set_text(object, "software", runner->software);
        set_text(object, "status_text", runner->status_text);
        set_number(object, "main_pid", runner->main_pid > 0 ? (uint64_t) runner->main_pid : 0);
        set_number(object, "errno", runner->said_errno);
        set_flag(object, "reloading", runner->reloading);
        if (runner->n_leftovers > 0)
                (void) json_object_set_new(object, "leftovers",
                                           status_leftovers_json(runner->leftovers, runner->n_leftovers));
        set_text(object, "upgrade_phase", runner->upgrade_phase);
        set_number(object, "past", runner->past);
        set_number(object, "upgrades_done", runner->upgrades_done);
        set_number(object, "upgrades_failed", runner->upgrades_failed);
        if (runner->n_upgrades > 0)
                (void) json_object_set_new(object, "upgrades", upgrades_to_json(runner));
        set_flag(object, "failover", runner->failover);
        set_number(object, "failovers", runner->failovers);
        if (runner->checkpoint)
                (void) json_object_set_new(object, "checkpoint", checkpoint_to_json(runner->checkpoint));
        if (runner->last_exit)
                (void) json_object_set_new(object, "last_exit", status_exit_json(runner->last_exit));
        (void) json_object_set_new(object, "log",
                                   json_pack("{s:I, s:I, s:I}", "lines", (json_int_t) runner->log_lines, "bytes",
                                             (json_int_t) runner->log_bytes, "dropped",
                                             (json_int_t) runner->log_dropped));
        if (runner->n_history > 0)
                (void) json_object_set_new(object, "history", exits_to_json(runner));
        set_texts(object, "last_output", runner->last_output, runner->n_last_output);
        return object;
}

json_t *status_takeover_json(const Baton__Control__TakeoverRecord *record) {
        json_t *object = json_pack("{s:I, s:I, s:s, s:b}", "number", (json_int_t) record->number, "time_us",
                                   (json_int_t) record->time_us, "outcome",
                                   status_takeover_outcome((int) record->outcome), "check", (int) record->check);
        json_t *took = object && record->n_phases_us > 0 ? json_object() : NULL;

        if (!object)
                return NULL;
        for (size_t i = 0; i < record->n_phases_us; i++)
                set_number(took, status_takeover_phase((int) i), record->phases_us[i]);
        if (took) {
                (void) json_object_set_new(object, "phases_us", took);
                set_text(object, "phase", status_takeover_phase((int) record->phase));
        }
        set_number(object, "generation", record->generation);
        set_number(object, "pid", record->pid > 0 ? (uint64_t) record->pid : 0);
        set_number(object, "former_generation", record->former_generation);
        set_number(object, "former_pid", record->former_pid > 0 ? (uint64_t) record->former_pid : 0);
        set_number(object, "total_us", record->total_us);
        set_number(object, "pause_us", record->pause_us);
        set_number(object, "connections", record->connections);
        set_number(object, "runners", record->runners);
        set_number(object, "calls", record->calls);
        set_text(object, "reason", record->reason);
        set_text(object, "program", record->program);
        return object;
}

json_t *status_supervisor_json(const Baton__Control__SupervisorStatus *supervisor) {
        json_t *object = json_pack("{s:s, s:i, s:i, s:i, s:I, s:i, s:i, s:I, s:s}", "software", supervisor->software,
                                   "generation", (int) supervisor->generation, "pid", supervisor->pid, "keeper_pid",
                                   supervisor->keeper_pid, "uptime_us", (json_int_t) supervisor->uptime_us, "runners",
                                   (int) supervisor->runners, "clients", (int) supervisor->clients, "last_event",
                                   (json_int_t) supervisor->last_event, "role", supervisor->role);

        if (!object)
                return NULL;
        set_flag(object, "stopping", supervisor->stopping);
        set_text(object, "configuration", supervisor->configuration);
        set_number(object, "configuration_time_us", supervisor->configuration_time_us);
        set_number(object, "clients_refused", supervisor->clients_refused);
        if (supervisor->last_takeover)
                (void) json_object_set_new(object, "last_takeover", status_takeover_json(supervisor->last_takeover));
        return object;
}

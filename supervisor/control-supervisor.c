/* SPDX-License-Identifier: Apache-2.0 */

/* What the methods of baton.Control say of, and do to, more than one runner: Status, Scale, Reload, Shutdown, Metrics. */

#include "supervisor/control-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "common/version.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/listener.h"
#include "supervisor/metrics.h"
#include "supervisor/near.h"
#include "supervisor/reload.h"
#include "supervisor/settle.h"
#include "supervisor/runner-status.h"
#include "supervisor/upgrade.h"

/* -------------------------------------------------------------------------------------------------------------- Status */

/* by_name() - web.2 comes before web.10. */
static int by_name(const void *a, const void *b) {
        return strverscmp((*(Runner *const *) a)->name, (*(Runner *const *) b)->name);
}

static bool fits_any(const Runner *runner, char *const *patterns, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (runner_matches(runner, patterns[i]))
                        return true;
        return n == 0;
}

/* check_patterns() - each has to fit something. False: @call is ended. */
static bool check_patterns(const Supervisor *supervisor, Call *call, char *const *patterns, size_t n) {
        for (size_t i = 0; i < n; i++) {
                Near near = { .wanted = patterns[i] };
                char text[NEAR_TEXT_SIZE];
                const Runner *runner = runner_find(supervisor, patterns[i]);

                if (runner)
                        continue;
                for (runner = runner_first(supervisor); runner && !runner_matches(runner, patterns[i]);
                     runner = runner_next(runner))
                        near_offer(&near, runner->name);
                if (runner)
                        continue;
                if (strpbrk(patterns[i], "*?["))
                        (void) call_fail(call, STATUS_NOT_FOUND, "no runner has a name that fits %.64s", patterns[i]);
                else
                        (void) call_fail(call, STATUS_NOT_FOUND, "runner %.64s: there is none of that name%s",
                                         patterns[i], near_text(&near, text));
                return false;
        }
        return true;
}

/* are_names() - whether each is the name of a runner: nobody else has to be looked at then, and there may be thousands. */
static bool are_names(const Supervisor *supervisor, char *const *patterns, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!runner_find(supervisor, patterns[i]))
                        return false;
        return n > 0;
}

/* select_runners() - those asked for, in order, each once. 0 or -ENOMEM. */
static int select_runners(const Supervisor *supervisor, char *const *patterns, size_t n_patterns,
                          Runner ***ret_runners, size_t *ret_n) {
        bool named = are_names(supervisor, patterns, n_patterns);
        size_t n_max = named ? n_patterns : HASH_CNT(by_name, supervisor->runners), n = 0, n_kept = 0;
        Runner **runners = calloc(n_max + 1, sizeof(*runners));

        if (!runners)
                return -ENOMEM;
        if (named)
                for (; n < n_patterns; n++)
                        runners[n] = runner_find(supervisor, patterns[n]);
        else
                for (Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                        if (fits_any(runner, patterns, n_patterns))
                                runners[n++] = runner;
        qsort(runners, n, sizeof(Runner *), by_name);
        for (size_t i = 0; i < n; i++)
                if (n_kept == 0 || runners[n_kept - 1] != runners[i])
                        runners[n_kept++] = runners[i];
        *ret_runners = runners;
        *ret_n = n_kept;
        return 0;
}

static void fill_supervisor(const Control *control, char software[64], Baton__Control__SupervisorStatus *status) {
        const Supervisor *supervisor = control->supervisor;
        ListenerCounts counts = listener_counts(supervisor->listener);
        char *const *paths = supervisor->config_paths;

        baton__control__supervisor_status__init(status);
        (void) snprintf(software, 64, "baton-supervisor %s", version_release());
        status->software = software;
        status->generation = supervisor->generation;
        status->pid = getpid();
        status->keeper_pid = getppid();
        status->uptime_us = clock_now() - supervisor->started_us;
        status->stopping = supervisor->stopping;
        if (paths && *paths)
                status->configuration = *paths;
        status->configuration_time_us = supervisor->configured_us;
        status->runners = HASH_CNT(by_name, supervisor->runners);
        status->clients = counts.clients;
        status->clients_refused = (uint32_t) MIN(counts.refused, (uint64_t) UINT32_MAX);
        status->last_event = events_next_seq(supervisor->events) - 1;
        status->role = (char *) role_name(control->client.role);
}

void control_status(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StatusRequest *request = (const Baton__Control__StatusRequest *) message;
        unsigned details = (request->history ? RUNNER_STATUS_WITH_HISTORY : 0) |
                           (request->last_output ? RUNNER_STATUS_WITH_OUTPUT : 0) |
                           (request->outlook ? RUNNER_STATUS_WITH_OUTLOOK : 0);
        Baton__Control__StatusResponse response = BATON__CONTROL__STATUS_RESPONSE__INIT;
        _cleanup_free_ Baton__Control__RunnerStatus **pointers = NULL;
        Baton__Control__SupervisorStatus supervisor;
        TakeoverMessage last_takeover;
        _cleanup_free_ RunnerStatusMessage *messages = NULL;
        _cleanup_free_ Runner **runners = NULL;
        uint64_t now_us = clock_now();
        char software[64];
        size_t n = 0;

        if (!check_patterns(control->supervisor, call, request->names, request->n_names))
                return;
        if (select_runners(control->supervisor, request->names, request->n_names, &runners, &n) == 0) {
                messages = calloc(n + 1, sizeof(*messages));
                pointers = calloc(n + 1, sizeof(Baton__Control__RunnerStatus *));
        }
        if (!messages || !pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return;
        }
        for (size_t i = 0; i < n; i++) {
                runner_status_fill(&messages[i], runners[i], details, now_us);
                pointers[i] = &messages[i].status;
        }
        fill_supervisor(control, software, &supervisor);
        if (takeover_message_fill(&last_takeover, control->supervisor->takeovers, 0))
                supervisor.last_takeover = &last_takeover.record;
        response.supervisor = &supervisor;
        response.runners = pointers;
        response.n_runners = n;
        (void) call_answer_message(call, &response.base);
        for (size_t i = 0; i < n; i++)
                runner_status_clear(&messages[i]);
}

/* ------------------------------------------------------------------------------------------------------- Scale, Reload */

/* A change that was begun; what is to be answered when it has settled. */
typedef struct Change {
        Settle settle;
        Crossing crossing;
        bool crosses; /* it is in the supervisor's list */
        Call *call;
        char *template; /* Scale; NULL: a Reload */
        uint32_t before, after;
        Reload reload;
        Baton__Control__ReloadResponse *response; /* Reload: of one that a predecessor began; NULL: `reload' says it */
} Change;

static void answer_scale(Change *change);
static void answer_reload(Change *change);

static void change_free(Change *change) {
        if (change->crosses)
                LIST_REMOVE(&change->crossing, link);
        free(change->template);
        (void) message_free(change->response);
        settle_deinit(&change->settle);
        reload_deinit(&change->reload);
        free(change);
}

static void change_end(Change *change) {
        call_on_cancel(change->call, NULL, NULL);
        if (change->template)
                answer_scale(change);
        else
                answer_reload(change);
        change_free(change);
}

static void change_settled(Settle *settle) {
        change_end(CONTAINER_OF(settle, Change, settle));
}

static void change_cancelled(Call *call, void *userdata) {
        change_free(userdata);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; it goes on");
}

/* change_new() - of @template, or of the configuration where it is NULL. */
static Change *change_new(const Control *control, Call *call, const char *template) {
        Change *change = calloc(1, sizeof(*change));

        if (change && template)
                change->template = strdup(template);
        if (!change || (template && !change->template)) {
                free(change);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for the change");
                return NULL;
        }
        settle_init(&change->settle, control->supervisor, change_settled);
        change->call = call;
        return change;
}

static void change_give(const Crossing *crossing, CrossingTake take, void *userdata);

static void change_wait(Change *change, bool no_wait) {
        if (no_wait || settle_begin(&change->settle)) {
                change_end(change);
                return;
        }
        change->crossing = (Crossing){
                .call = change->call,
                .method = change->template ? "Scale" : "Reload",
                .begun = true,
                .give = change_give,
        };
        LIST_INSERT_HEAD(&change->settle.supervisor->crossings, &change->crossing, link);
        change->crosses = true;
        call_on_cancel(change->call, change_cancelled, change);
}

/* has_failed() - it did not come to where it was wanted. */
static bool has_failed(const Runner *runner) {
        RunnerOutcome outcome = runner_outcome(runner);

        return outcome == RUNNER_OUTCOME_FAILED || outcome == RUNNER_OUTCOME_RETRYING;
}

static void answer_scale(Change *change) {
        Baton__Control__ScaleResponse response = BATON__CONTROL__SCALE_RESPONSE__INIT;
        _cleanup_free_ char **failed = calloc(change->settle.n + 1, sizeof(*failed));

        for (size_t i = 0; failed && i < change->settle.n; i++) {
                const Runner *runner = runner_find(change->settle.supervisor, change->settle.names[i]);

                if (runner && has_failed(runner))
                        failed[response.n_failed++] = change->settle.names[i];
        }
        response.before = change->before;
        response.after = change->after;
        response.failed = failed;
        (void) call_answer_message(change->call, &response.base);
}

/* watch_instances() - all that there are, and those that are to go. */
static int watch_instances(Change *change, const char *template, uint32_t n) {
        char name[CONFIG_NAME_MAX + 1];
        int r = 0;

        for (uint32_t i = 1; i <= n && r == 0; i++) {
                (void) snprintf(name, sizeof(name), "%.*s.%u", CONFIG_NAME_MAX - 11, template, i);
                r = settle_add(&change->settle, name);
        }
        return r;
}

static void fail_no_template(const Supervisor *supervisor, Call *call, const char *name) {
        Near near = { .wanted = name };
        char text[NEAR_TEXT_SIZE];

        for (size_t i = 0; supervisor->config && i < supervisor->config->n_runners; i++)
                if (supervisor->config->runners[i]->is_template)
                        near_offer(&near, supervisor->config->runners[i]->name);
        (void) call_fail(call, STATUS_NOT_FOUND, "template %.64s: there is none of that name%s", name,
                         near_text(&near, text));
}

static void fail_scale(const Supervisor *supervisor, Call *call, const Baton__Control__ScaleRequest *request,
                       const char *error, int r) {
        if (r == -ENOENT)
                fail_no_template(supervisor, call, request->name);
        else if (r == -EINVAL)
                (void) call_fail(call, STATUS_INVALID_ARGUMENT,
                                 "%.64s: is no template; give it 'instances' in the configuration", request->name);
        else if (r == -ERANGE)
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%.64s: at most %d instances are possible",
                                 request->name, CONFIG_INSTANCES_MAX);
        else if (r == -ESHUTDOWN)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor is stopping");
        else
                (void) call_fail(call, status_from_errno(r), "%.64s: %s", request->name,
                                 *error ? error : strerror(-r));
}

void control_scale(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ScaleRequest *request = (const Baton__Control__ScaleRequest *) message;
        Change *change = change_new(control, call, request->name);
        char error[FLEET_ERROR_SIZE] = "";
        int r;

        if (!change)
                return;
        r = fleet_scale(control->supervisor, request->name, request->instances, &change->before, error);
        if (r < 0) {
                change_free(change);
                fail_scale(control->supervisor, call, request, error, r);
                return;
        }
        change->after = request->instances;
        /* Without memory to watch them it is answered at once: what was begun goes on. */
        r = watch_instances(change, request->name, MAX(change->before, change->after));
        change_wait(change, request->no_wait || r < 0);
}

/* -- Reload */

enum { CHANGE_KEYS_MAX = 64 };

typedef struct ChangeMessage {
        Baton__Control__ConfigChange change;
        char *keys[CHANGE_KEYS_MAX];
} ChangeMessage;

/* describe_failure() - of the upgrade of @runner to @after; NULL: it has not failed, or not yet, or there is no memory. */
static char *describe_failure(const Runner *runner, const RunnerConfig *after) {
        const UpgradeHistory *history = runner->upgrades;
        const UpgradeRecord *last = history ? upgrade_history_last(history) : NULL;
        const Instance *instance = runner->instance;
        char *text;

        if (runner->config != after || runner->upgrade || runner_pid(runner) <= 0 || instance->config == after)
                return NULL;
        if (!last || !last->why || last->check)
                return NULL;
        return asprintf(&text,
                        "runner %s: upgrade failed while %s: %s; pid %d serves with its former configuration until it "
                        "is upgraded or restarted",
                        runner->name, upgrade_phase_name(last->phase), last->why, runner_pid(runner)) < 0
                       ? NULL
                       : text;
}

/* fill_failures() - an array and lines of its own, see clear_failures(). Those without memory are in the log. */
static void fill_failures(Baton__Control__ConfigChange *change, const Supervisor *supervisor,
                          const ConfigChange *from) {
        const RunnerConfig *after = from->after;
        uint32_t last = after->is_template ? fleet_count(supervisor, after->name) : 0;
        char name[CONFIG_NAME_MAX + 1];

        change->failures = calloc(from->n_upgrades, sizeof(char *));
        for (uint32_t i = after->is_template ? 1 : 0; i <= last; i++) {
                const Runner *runner = runner_find(supervisor, runner_config_instance_name(after, i, name));

                if (!change->failures || change->n_failures == from->n_upgrades)
                        return;
                change->failures[change->n_failures] = runner ? describe_failure(runner, after) : NULL;
                change->n_failures += change->failures[change->n_failures] != NULL;
        }
}

static void clear_failures(Baton__Control__ConfigChange *change) {
        for (size_t i = 0; i < change->n_failures; i++)
                free(change->failures[i]);
        free(change->failures);
}

static void fill_change(ChangeMessage *message, const Supervisor *supervisor, const ConfigChange *from) {
        Baton__Control__ConfigChange *change = &message->change;
        const char *key;

        baton__control__config_change__init(change);
        change->name = (char *) (from->after ? from->after->name : from->before->name);
        change->action = !from->before                        ? BATON__CONTROL__CONFIG_CHANGE__ACTION__ADD
                         : !from->after                       ? BATON__CONTROL__CONFIG_CHANGE__ACTION__REMOVE
                         : from->effect == CONFIG_EFFECT_NONE ? BATON__CONTROL__CONFIG_CHANGE__ACTION__UPDATE
                         : from->n_upgrades > 0 && from->n_restarts == 0
                                 ? BATON__CONTROL__CONFIG_CHANGE__ACTION__UPGRADE
                                 : BATON__CONTROL__CONFIG_CHANGE__ACTION__RESTART;
        change->upgrades = from->n_upgrades;
        change->restarts = from->n_restarts;
        if (from->n_upgrades > 0)
                fill_failures(change, supervisor, from);
        for (unsigned i = 0; i < CHANGE_KEYS_MAX && (key = config_key_name(i)); i++)
                if (from->before && from->after && from->keys & UINT64_C(1) << i)
                        message->keys[change->n_keys++] = (char *) key;
        change->keys = message->keys;
}

/* fill_section() - what is no runner's. */
static void fill_section(ChangeMessage *message, const ConfigDifference *difference) {
        baton__control__config_change__init(&message->change);
        if (difference->groups)
                message->keys[message->change.n_keys++] = (char *) "groups";
        if (difference->supervisor)
                message->keys[message->change.n_keys++] = (char *) "supervisor";
        message->change.keys = message->keys;
}

/* A ReloadResponse, and what it is made of. */
typedef struct ReloadAnswer {
        Baton__Control__ReloadResponse response;
        ChangeMessage *messages;
        Baton__Control__ConfigChange **pointers;
} ReloadAnswer;

static void reload_answer_deinit(ReloadAnswer *answer) {
        for (size_t i = 0; i < answer->response.n_changes; i++)
                clear_failures(answer->pointers[i]);
        free(answer->messages);
        free(answer->pointers);
}

/* reload_answer() - false: no memory; to be deinit in any case. */
static bool reload_answer(const Change *change, ReloadAnswer *ret_answer) {
        const ConfigDifference *difference = &change->reload.difference;
        size_t n = difference->n_changes, n_all = n + (difference->groups || difference->supervisor);
        ReloadAnswer answer = {
                .response = BATON__CONTROL__RELOAD_RESPONSE__INIT,
                .messages = calloc(n_all + 1, sizeof(*answer.messages)),
                .pointers = calloc(n_all + 1, sizeof(Baton__Control__ConfigChange *)),
        };
        bool whole = answer.messages && answer.pointers;

        for (size_t i = 0; whole && i < n_all; i++) {
                if (i < n)
                        fill_change(&answer.messages[i], change->settle.supervisor, &difference->changes[i]);
                else
                        fill_section(&answer.messages[i], difference);
                answer.pointers[i] = &answer.messages[i].change;
        }
        answer.response.changes = answer.pointers;
        answer.response.n_changes = whole ? n_all : 0;
        answer.response.unchanged = (uint32_t) difference->n_same;
        *ret_answer = answer;
        return whole;
}

static void answer_reload(Change *change) {
        ReloadAnswer answer;

        if (change->response) {
                (void) call_answer_message(change->call, &change->response->base);
                return;
        }
        if (reload_answer(change, &answer))
                (void) call_answer_message(change->call, &answer.response.base);
        else
                (void) call_fail(change->call, STATUS_RESOURCE_EXHAUSTED,
                                 "no memory for the answer; the configuration was loaded");
        reload_answer_deinit(&answer);
}

/* fail_reload() - ends @call, with the lines of all that is wrong. */
static void fail_reload(Call *call, const Reload *reload, int error) {
        Baton__Control__ConfigErrors errors = BATON__CONTROL__CONFIG_ERRORS__INIT;
        Baton__Detail detail = BATON__DETAIL__INIT, *details[] = { &detail };
        _cleanup_free_ char **lines = calloc(reload->errors.n_kept + 1, sizeof(*lines));
        _cleanup_free_ uint8_t *packed = NULL;
        AnswerParameters answer = { .status = STATUS_INVALID_ARGUMENT, .details = details, .n_details = 1 };
        char message[FLEET_ERROR_SIZE + 64];

        for (size_t i = 0; lines && i < reload->errors.n_kept; i++) {
                lines[errors.n_lines] = config_error_line(&reload->errors.errors[i]);
                errors.n_lines += lines[errors.n_lines] != NULL;
        }
        errors.lines = lines;
        errors.found = (uint32_t) reload->errors.n;
        packed = malloc(baton__control__config_errors__get_packed_size(&errors) + 1);
        detail.type = (char *) errors.base.descriptor->name;
        detail.value.data = packed;
        detail.value.len = packed ? baton__control__config_errors__pack(&errors, packed) : 0;
        (void) snprintf(message, sizeof(message), "%s",
                        *reload->error       ? reload->error
                        : errors.n_lines > 0 ? lines[0]
                                             : strerror(-error));
        text_mend(message);
        answer.message = message;
        (void) call_answer(call, &answer);
        for (size_t i = 0; i < errors.n_lines; i++)
                free(lines[i]);
}

/* watch_changes() - every runner that a difference is about. */
static int watch_changes(Change *change) {
        const ConfigDifference *difference = &change->reload.difference;
        const Supervisor *supervisor = change->settle.supervisor;
        int r = 0;

        for (const Runner *runner = runner_first(supervisor); runner && r == 0; runner = runner_next(runner)) {
                const ConfigChange *one = config_difference_find(difference, runner->config->name);

                if (one && (runner->config == one->before || runner->config == one->after))
                        r = settle_add(&change->settle, runner->name);
        }
        return r;
}

void control_reload(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ReloadRequest *request = (const Baton__Control__ReloadRequest *) message;
        Change *change = change_new(control, call, NULL);
        int r;

        if (!change)
                return;
        r = reload_run(control->supervisor, request->dry_run, &change->reload);
        if (r == 0) {
                r = request->dry_run ? 0 : watch_changes(change);
                change_wait(change, request->no_wait || request->dry_run || r < 0);
                return;
        }
        if (r == -ENOENT)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "the supervisor was started without a configuration");
        else if (r == -ESHUTDOWN)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor is stopping");
        else
                fail_reload(call, &change->reload, r);
        change_free(change);
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

/* give_response() - of a Reload: it is known since the configuration was loaded. */
static void give_response(const Change *change, Baton__Snapshot__ChangeCommand *command, CrossingTake take,
                          void *userdata) {
        _cleanup_free_ uint8_t *packed = NULL;
        const Baton__Control__ReloadResponse *response = change->response;
        ReloadAnswer answer;

        (void) reload_answer(change, &answer);
        if (!response)
                response = &answer.response;
        command->response.len = baton__control__reload_response__get_packed_size(response);
        command->response.data = packed = malloc(command->response.len + 1);
        if (packed)
                (void) baton__control__reload_response__pack(response, packed);
        else
                command->response.len = 0;
        take(&command->base, userdata);
        reload_answer_deinit(&answer);
}

static void change_give(const Crossing *crossing, CrossingTake take, void *userdata) {
        const Change *change = CONTAINER_OF(crossing, Change, crossing);
        const Settle *settle = &change->settle;
        size_t first = change->template ? 0 : settle->n_settled;
        Baton__Snapshot__ChangeCommand command = BATON__SNAPSHOT__CHANGE_COMMAND__INIT;

        command.names = settle->names + first;
        command.n_names = settle->n - first;
        if (!change->template) {
                give_response(change, &command, take, userdata);
                return;
        }
        command.name = change->template;
        command.before = change->before;
        command.instances = change->after;
        take(&command.base, userdata);
}

/* go_on() - with a wait that a predecessor began. */
static void go_on(Change *change, const Baton__Snapshot__ChangeCommand *command) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < command->n_names; i++)
                r = settle_add(&change->settle, command->names[i]);
        change_wait(change, r < 0);
}

void control_scale_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Snapshot__ChangeCommand *command = (const Baton__Snapshot__ChangeCommand *) message;
        Change *change = change_new(control, call, command->name);

        if (!change)
                return;
        change->before = command->before;
        change->after = command->instances;
        go_on(change, command);
}

void control_reload_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Snapshot__ChangeCommand *command = (const Baton__Snapshot__ChangeCommand *) message;
        Change *change = change_new(control, call, NULL);

        if (!change)
                return;
        change->response = message_unpack(&baton__control__reload_response__descriptor, command->response.data,
                                          command->response.len);
        if (change->response) {
                go_on(change, command);
                return;
        }
        change_free(change);
        (void) call_fail(call, STATUS_INTERNAL,
                         "the configuration was loaded; what has changed is not known any more");
}

/* ---------------------------------------------------------------------------------------------------- Shutdown, Metrics */

void control_shutdown(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ShutdownRequest *request = (const Baton__Control__ShutdownRequest *) message;
        Baton__Control__ShutdownResponse response = BATON__CONTROL__SHUTDOWN_RESPONSE__INIT;
        Supervisor *supervisor = control->supervisor;

        for (const Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                response.runners += runner_pid(runner) > 0;
        if (request->timeout_us > 0 && !supervisor->stopping)
                supervisor->stop_timeout_us = MIN(request->timeout_us, TIMEOUT_MAX_US);
        (void) call_answer_message(call, &response.base);
        supervisor_stop(supervisor, "asked to by a client");
}

void control_metrics(Control *control, Call *call, const ProtobufCMessage *message) {
        Baton__Control__MetricsResponse response = BATON__CONTROL__METRICS_RESPONSE__INIT;
        _cleanup_free_ char *text = metrics_text(control->supervisor);

        (void) message;
        if (!text) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return;
        }
        response.text = text;
        (void) call_answer_message(call, &response.base);
}

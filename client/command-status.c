/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton status: a table of all runners (status-table.c), or everything about one; --watch draws it anew whenever something
 * has happened.
 */

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/status-table.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "proto/message.h"
#include "proto/service.h"

typedef Baton__Control__RunnerStatus Runner;
typedef Baton__Control__StatusResponse StatusResponse;

#define WATCH_US (2 * USEC_PER_SEC) /* drawn anew after so long, whatever happened: times pass */

/* ---- one runner ---- */

static void print_line(const char *key, const char *text) {
        (void) printf("  %-10s ", key);
        (void) output_text(stdout, text, strlen(text));
        (void) fputc('\n', stdout);
}

static void print_end(const char *key, const Baton__Control__ExitRecord *record) {
        char how[STATUS_TEXT_MAX], time[STATUS_TEXT_MAX], up[STATUS_TEXT_MAX], text[3 * STATUS_TEXT_MAX + 32];

        status_exit_describe(record, how);
        status_time_text(record->time_us, time);
        status_duration_text(record->uptime_us, up);
        if (record->pid > 0)
                (void) snprintf(text, sizeof(text), "%s  pid %d %s, after %s", time, record->pid, how, up);
        else
                (void) snprintf(text, sizeof(text), "%s  %s", time, how);
        print_line(key, text);
}

static void print_process(const Runner *runner) {
        char text[2 * STATUS_TEXT_MAX], up[STATUS_TEXT_MAX];

        if (runner->pid <= 0)
                return;
        status_duration_text(runner->uptime_us, up);
        (void) snprintf(text, sizeof(text), "%d, for %s, instance %llx", runner->pid, up,
                        (unsigned long long) runner->instance);
        print_line("pid", text);
        (void) snprintf(text, sizeof(text), "%d", runner->main_pid);
        if (runner->main_pid > 0)
                print_line("main pid", text);
        if (*runner->software)
                print_line("software", runner->software);
}

/* print_command() - as a shell would take it. */
static void print_command(const Runner *runner) {
        static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=./,:@%";

        (void) printf("  %-10s", "command");
        for (size_t i = 0; i < runner->n_command; i++) {
                const ProtobufCBinaryData *word = &runner->command[i];
                bool quoted = word->len == 0;

                for (size_t j = 0; j < word->len; j++)
                        quoted |= !memchr(plain, word->data[j], sizeof(plain) - 1);
                (void) fputs(quoted ? " '" : " ", stdout);
                for (size_t j = 0, n; j < word->len; j += n) {
                        const uint8_t *quote = memchr(word->data + j, '\'', word->len - j);

                        n = quote ? (size_t) (quote - word->data) - j : word->len - j;
                        (void) output_text(stdout, word->data + j, n);
                        if (quote) {
                                (void) fputs("'\\''", stdout);
                                n++;
                        }
                }
                if (quoted)
                        (void) fputc('\'', stdout);
        }
        (void) fputc('\n', stdout);
}

static void print_waiting(const Runner *runner) {
        char text[STATUS_TEXT_MAX];

        for (size_t i = 0; i < runner->n_waits_for; i++)
                print_line("waits for", runner->waits_for[i]);
        if (runner->next_start_us == 0)
                return;
        status_duration_text(runner->next_start_us, text);
        print_line("starts in", text);
}

static void print_log(const Runner *runner) {
        char text[STATUS_TEXT_MAX];

        (void) snprintf(text, sizeof(text), "%llu line%s, %llu bytes, %llu dropped",
                        (unsigned long long) runner->log_lines, runner->log_lines == 1 ? "" : "s",
                        (unsigned long long) runner->log_bytes, (unsigned long long) runner->log_dropped);
        print_line("log", text);
        for (size_t i = 0; i < runner->n_last_output; i++)
                print_line(i ? "" : "last lines", runner->last_output[i]);
}

/* print_upgrades() - the service's state, what is under way, and how the last ones went. */
static void print_upgrades(const Runner *runner) {
        char text[600 + STATUS_TEXT_MAX], time[STATUS_TEXT_MAX];

        if (runner->service_state > 0)
                print_line("service", service_state_name(service_state_from_wire(runner->service_state)));
        if (*runner->upgrade_phase)
                print_line("upgrade", runner->upgrade_phase);
        if (runner->past > 0) {
                (void) snprintf(text, sizeof(text), "%u finish what they have begun", runner->past);
                print_line("past", text);
        }
        for (size_t i = 0; i < runner->n_upgrades; i++) {
                const Baton__Control__UpgradeRecord *record = runner->upgrades[i];

                status_time_text(record->time_us, time);
                if (*record->reason)
                        (void) snprintf(text, sizeof(text), "%s  failed: %.400s", time, record->reason);
                else if (record->check)
                        (void) snprintf(text, sizeof(text), "%s  checked", time);
                else
                        (void) snprintf(text, sizeof(text), "%s  %s, pause %.1f ms", time,
                                        record->back ? "back to the one before" : "done",
                                        (double) record->pause_us / 1000);
                print_line(i ? "" : "upgrades", text);
        }
}

static void print_checkpoint(const Runner *runner) {
        const Baton__Control__CheckpointStatus *checkpoint = runner->checkpoint;
        char text[256], age[STATUS_TEXT_MAX];

        if (runner->failovers > 0) {
                (void) snprintf(text, sizeof(text), "%llu%s", (unsigned long long) runner->failovers,
                                runner->failover ? ", the last start too" : "");
                print_line("failovers", text);
        }
        if (!checkpoint)
                return;
        if (checkpoint->time_us > 0) {
                status_duration_text(checkpoint->age_us, age);
                (void) snprintf(text, sizeof(text), "%s ago, %llu bytes, %u descriptor%s", age,
                                (unsigned long long) checkpoint->state_size, checkpoint->descriptors,
                                checkpoint->descriptors == 1 ? "" : "s");
        }
        print_line("checkpoint", checkpoint->time_us > 0 ? text : "none");
        if (*checkpoint->reason)
                print_line("no newer", checkpoint->reason);
}

static void print_one(const StatusView *view, const Runner *runner) {
        char time[STATUS_TEXT_MAX], text[STATUS_TEXT_MAX];

        (void) printf("%s%s%s\n  %-10s ", runner->name, *runner->description ? " - " : "", runner->description,
                      "state");
        status_print_state(view, runner, 0);
        status_time_text(runner->state_time_us, time);
        if (runner->state_time_us > 0)
                (void) printf(" since %s", time);
        (void) printf("%s\n",
                      runner->desired == BATON__CONTROL__RUNNER_STATUS__DESIRED__DESIRED_UP ? "" : "; not wanted up");
        if (*runner->reason)
                print_line("reason", runner->reason);
        if (*runner->status_text)
                print_line("says", runner->status_text);
        if (runner->reloading)
                print_line("reloading", "yes");
        if (runner->said_errno > 0)
                print_line("errno", strerror((int) runner->said_errno));
        print_process(runner);
        print_waiting(runner);
        (void) snprintf(text, sizeof(text), "%s%s%s",
                        runner->kind == BATON__CONTROL__RUNNER_STATUS__KIND__NATIVE ? "native" : "plain",
                        runner->oneshot ? ", runs once" : "", runner->transient ? ", made by a client" : "");
        print_line("kind", text);
        if (runner->n_command > 0)
                print_command(runner);
        (void) snprintf(text, sizeof(text), "%llu", (unsigned long long) runner->restarts);
        print_line("restarts", text);
        for (size_t i = 0; i < runner->n_leftovers; i++)
                print_line(i ? "" : "left", runner->leftovers[i]);
        print_upgrades(runner);
        print_checkpoint(runner);
        for (size_t i = 0; i < runner->n_history; i++)
                print_end(i ? "" : "ends", runner->history[i]);
        print_log(runner);
}

/* ---- JSON ---- */

static void print_json(const StatusResponse *status) {
        json_t *runners = json_array();
        json_auto_t *all = NULL;

        for (size_t i = 0; i < status->n_runners; i++)
                (void) json_array_append_new(runners, status_runner_json(status->runners[i]));
        all = json_pack("{s:i, s:o, s:o}", "version", STATUS_JSON_VERSION, "supervisor",
                        status_supervisor_json(status->supervisor), "runners", runners);
        if (all)
                (void) output_json(stdout, all);
}

/* ---- the command ---- */

static StatusResponse *ask_status(Ask *ask) {
        Baton__Control__StatusRequest request = BATON__CONTROL__STATUS_REQUEST__INIT;
        const ControlOptions *options = &ask->options;

        request.names = options->operands;
        request.n_names = options->n_operands;
        request.history = request.last_output = options->n_operands > 0;
        return ask_call(ask, "Status", &request.base, &baton__control__status_response__descriptor,
                        options->n_operands == 1 ? options->operands[0] : NULL, NULL);
}

static bool show(Ask *ask, uint64_t *ret_last_event) {
        _cleanup_message_ StatusResponse *status = ask_status(ask);
        StatusView view = status_view_of_stdout(ask->options.watch);

        if (!status || !status->supervisor)
                return false;
        *ret_last_event = status->supervisor->last_event;
        if (ask->options.watch && view.terminal)
                (void) fputs("\033[H\033[2J", stdout);
        if (ask->options.json)
                print_json(status);
        else if (ask->options.n_operands == 1 && status->n_runners == 1 &&
                 strcmp(ask->options.operands[0], status->runners[0]->name) == 0)
                print_one(&view, status->runners[0]);
        else
                status_print_table(&view, status, ask->options.n_operands == 0);
        return output_flush(stdout) == 0;
}

/* wait_for_event() - or for the time to pass. False: the connection, or we, have come to an end. */
static bool wait_for_event(Ask *ask, uint64_t last_event) {
        Baton__Control__EventsRequest request = BATON__CONTROL__EVENTS_REQUEST__INIT;
        uint64_t timeout_us = ask->options.timeout_us;
        _cleanup_message_ Baton__Control__EventsResponse *response = NULL;
        ControlFailure failure = { 0 };
        bool late;

        request.from_seq = last_event + 1;
        request.wait = true;
        ask->options.timeout_us = WATCH_US;
        response =
                ask_call(ask, "Events", &request.base, &baton__control__events_response__descriptor, NULL, &failure);
        ask->options.timeout_us = timeout_us;
        late = failure.status == STATUS_DEADLINE_EXCEEDED;
        if (failure.status != STATUS_OK && !late)
                (void) session_report(&ask->session, NULL, &failure);
        if (late)
                ask->code = EXIT_CODE_OK;
        control_failure_deinit(&failure);
        return response || late;
}

static int status(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_WATCH, 0, SIZE_MAX, "" };
        uint64_t last_event = 0;
        Ask ask;

        if (ask_open(&ask, &command_status, &syntax, argc, argv) < 0)
                return ask.code;
        while (show(&ask, &last_event) && ask.options.watch && wait_for_event(&ask, last_event))
                ;
        return ask_close(&ask);
}

const Command command_status = {
        .name = "status",
        .summary = "what runners there are, and what they are at",
        .help = "Usage: baton status [NAME...] [OPTION...]\n"
                "\n"
                "Prints a table of all runners, or of those named; of a single NAME everything that is known: how "
                "its\n"
                "last processes ended, and its last lines. NAME is a runner, a template, or a pattern (* ? [...]).\n"
                "\n"
                "  --watch                 draw it anew whenever something happens\n"
                "  --json                  one JSON object; docs/status.md has its members\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "STATE: down, scheduled, waiting (for others), starting, up, stopping, backoff (before its next\n"
                "start), failed (given up: see baton reset), done.\n"
                "\n"
                "Example: baton status --watch 'web.*'\n",
        .run = status,
};

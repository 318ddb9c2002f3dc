/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton events, metrics. Events are asked for page by page (Events), and with --follow by a call that waits; the number of
 * the next one goes along, so that nothing is missed or told twice.
 */

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/call-output.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "common/log-line.h"
#include "proto/message.h"

typedef Baton__Control__Event Event;
typedef Baton__Control__EventsResponse Page;

static const char *const kinds[] = {
        "unknown",
        "supervisor_started",
        "supervisor_stopping",
        "configuration_loaded",
        "configuration_refused",
        "runner_added",
        "runner_removed",
        "runner_state",
        "runner_exited",
        "runner_restart",
        "logs_dropped",
        "command",
        "takeover",
        "recovery",
        "runner_upgraded",
        "runner_failover",
        "checkpoint_failed",
};

static const char *kind_name(const Event *event) {
        return (size_t) event->kind < ARRAY_SIZE(kinds) ? kinds[event->kind] : kinds[0];
}

/* ---- for people ---- */

/* describe() - what happened, in words. */
static void describe(const Event *event, char *text, size_t size) {
        char how[STATUS_TEXT_MAX];

        switch (event->kind) {
        case BATON__CONTROL__EVENT__KIND__SUPERVISOR_STARTED:
                (void) snprintf(text, size, "supervisor started, generation %llu", (unsigned long long) event->number);
                return;
        case BATON__CONTROL__EVENT__KIND__SUPERVISOR_STOPPING:
                (void) snprintf(text, size, "supervisor stops: %s", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__CONFIGURATION_LOADED:
                (void) snprintf(text, size, "configuration loaded, %llu runners", (unsigned long long) event->number);
                return;
        case BATON__CONTROL__EVENT__KIND__CONFIGURATION_REFUSED:
                (void) snprintf(text, size, "configuration refused: %s", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_ADDED:
                (void) snprintf(text, size, "added");
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_REMOVED:
                (void) snprintf(text, size, "removed");
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_STATE:
                (void) snprintf(text, size, "%s, was %s%s%s", status_state_name(event->state),
                                status_state_name(event->previous), *event->text ? ": " : "", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_EXITED:
                status_exit_describe(event->exit, how);
                (void) snprintf(text, size, "pid %d %s", event->pid, how);
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_RESTART:
                (void) snprintf(text, size, "restart in %g s", (double) event->number / USEC_PER_SEC);
                return;
        case BATON__CONTROL__EVENT__KIND__TAKEOVER:
                (void) snprintf(text, size, "takeover %s", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_UPGRADED:
                if (*event->text)
                        (void) snprintf(text, size, "upgrade failed: %s", event->text);
                else
                        (void) snprintf(text, size, "upgraded, pid %d, pause %.1f ms", event->pid,
                                        (double) event->number / 1000);
                return;
        case BATON__CONTROL__EVENT__KIND__RUNNER_FAILOVER:
                (void) snprintf(text, size, "goes on from its checkpoint, pid %d, after %.1f ms", event->pid,
                                (double) event->number / 1000);
                return;
        case BATON__CONTROL__EVENT__KIND__CHECKPOINT_FAILED:
                (void) snprintf(text, size, "no checkpoint: %s", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__RECOVERY:
                (void) snprintf(text, size, "recovery: %s", event->text);
                return;
        case BATON__CONTROL__EVENT__KIND__LOGS_DROPPED:
                (void) snprintf(text, size, "%llu lines of its log were dropped", (unsigned long long) event->number);
                return;
        default:
                (void) snprintf(text, size, "%s", event->text);
        }
}

static void print_text(const Event *event) {
        char time[STATUS_TEXT_MAX], text[512];

        status_time_text(event->time_us, time);
        describe(event, text, sizeof(text));
        (void) printf("%s %s%s", time, event->runner, *event->runner ? ": " : "");
        (void) output_text(stdout, text, strlen(text));
        (void) fputc('\n', stdout);
}

/* ---- for programs ---- */

static void print_json(const Event *event) {
        json_auto_t *all =
                json_pack("{s:i, s:I, s:I, s:s}", "version", STATUS_JSON_VERSION, "seq", (json_int_t) event->seq,
                          "time_us", (json_int_t) event->time_us, "kind", kind_name(event));

        if (!all)
                return;
        if (*event->runner)
                (void) json_object_set_new(all, "runner", json_string(event->runner));
        if (event->instance)
                (void) json_object_set_new(all, "instance", json_integer((json_int_t) event->instance));
        if (event->pid)
                (void) json_object_set_new(all, "pid", json_integer(event->pid));
        if (event->kind == BATON__CONTROL__EVENT__KIND__RUNNER_STATE) {
                (void) json_object_set_new(all, "state", json_string(status_state_name(event->state)));
                (void) json_object_set_new(all, "previous", json_string(status_state_name(event->previous)));
        }
        if (event->exit)
                (void) json_object_set_new(all, "exit", status_exit_json(event->exit));
        if (event->number)
                (void) json_object_set_new(all, "number", json_integer((json_int_t) event->number));
        if (*event->text)
                (void) json_object_set_new(all, "text", json_string(event->text));
        (void) output_json(stdout, all);
}

/* ---- events ---- */

static int print_page(const Ask *ask, const Page *page) {
        if (page->dropped)
                output_error("events: %llu events are no longer kept", (unsigned long long) page->dropped);
        for (size_t i = 0; i < page->n_events; i++)
                if (page->events[i]->time_us < ask->options.since_us)
                        continue;
                else if (ask->options.json)
                        print_json(page->events[i]);
                else
                        print_text(page->events[i]);
        return output_flush(stdout);
}

static int events(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_FOLLOW, 0, SIZE_MAX, "" };
        Baton__Control__EventsRequest request = BATON__CONTROL__EVENTS_REQUEST__INIT;
        bool more = true;
        Ask ask;

        if (ask_open(&ask, &command_events, &syntax, argc, argv) < 0)
                return ask.code;
        request.from_seq = ask.options.since;
        request.names = ask.options.operands;
        request.n_names = ask.options.n_operands;
        while (more && ask.code == EXIT_CODE_OK) {
                _cleanup_message_ Page *page = ask_call(&ask, "Events", &request.base,
                                                        &baton__control__events_response__descriptor, NULL, NULL);

                if (!page)
                        break;
                if (print_page(&ask, page) == -EPIPE)
                        ask.code = EXIT_CODE_SIGNAL + SIGPIPE;
                more = page->next_seq > request.from_seq || ask.options.follow;
                request.wait = ask.options.follow && page->n_events == 0;
                request.from_seq = page->next_seq;
        }
        return ask_close(&ask);
}

const Command command_events = {
        .name = "events",
        .summary = "what has happened to runners and supervisor",
        .help = "Usage: baton events [NAME...] [OPTION...]\n"
                "\n"
                "Prints what has happened, oldest first: the last 1,000 events or so are kept. With names or "
                "patterns\n"
                "only what happened to these runners.\n"
                "\n"
                "  -f, --follow            go on as more happens\n"
                "  --since=TIME            from then on: 10min, or any time that 'baton logs' takes; a number: from\n"
                "                          that event on, which --json shows as seq\n"
                "  --json                  one JSON object for each\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Examples: baton events -f 'web.*'\n"
                "          baton events --since=1h\n",
        .run = events,
};

/* ---- metrics ---- */

static int metrics(int argc, char **argv) {
        static const ControlSyntax syntax = { 0, 0, 0, "" };
        Baton__Control__MetricsRequest request = BATON__CONTROL__METRICS_REQUEST__INIT;
        _cleanup_message_ Baton__Control__MetricsResponse *response = NULL;
        Ask ask;

        if (ask_open(&ask, &command_metrics, &syntax, argc, argv) < 0)
                return ask.code;
        response = ask_call(&ask, "Metrics", &request.base, &baton__control__metrics_response__descriptor, NULL, NULL);
        if (response)
                (void) fputs(response->text, stdout);
        return ask_close(&ask);
}

const Command command_metrics = {
        .name = "metrics",
        .summary = "figures for a monitoring system, as OpenMetrics text",
        .help = "Usage: baton metrics [OPTION...]\n"
                "\n"
                "Prints figures about supervisor and runners as OpenMetrics text. The same can be served over HTTP:\n"
                "see 'metrics' in the section 'supervisor' of the configuration.\n"
                "\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton metrics | grep baton_runner_restarts\n",
        .run = metrics,
};

/* SPDX-License-Identifier: Apache-2.0 */

/* baton scale, reload, shutdown: what is done to more than single runners. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "common/parse.h"
#include "proto/message.h"

#define COMMON_HELP                                                                                             \
        "  --json                  one JSON object\n"                                                           \
        "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n" \
        "  --help\n"

#define WAIT_HELP                                                                                         \
        "  --wait, --no-wait       return when it is done, as without either, or when it is on its way\n" \
        "  --timeout=DURATION      wait at most so long; what was begun goes on; exit code 20\n"

enum { VERSION_JSON = 1 };

/* print() - takes @object. */
static void print(json_t *object_consume) {
        json_auto_t *object = object_consume;

        if (object)
                (void) output_json(stdout, object);
}

/* ---- scale ---- */

/* parse_scale() - "web=4". */
static bool parse_scale(char *text, uint32_t *ret_n) {
        char *equals = strrchr(text, '=');
        uint64_t n;

        if (!equals || equals == text || parse_u64(equals + 1, UINT32_MAX, &n) < 0)
                return false;
        *equals = '\0';
        *ret_n = (uint32_t) n;
        return true;
}

static void scale_one(Ask *ask, char *name, uint32_t n) {
        Baton__Control__ScaleRequest request = BATON__CONTROL__SCALE_REQUEST__INIT;
        _cleanup_message_ Baton__Control__ScaleResponse *response = NULL;

        request.name = name;
        request.instances = n;
        request.no_wait = ask->options.no_wait;
        response = ask_call(ask, "Scale", &request.base, &baton__control__scale_response__descriptor, name, NULL);
        if (!response)
                return;
        if (ask->options.json)
                print(json_pack("{s:i, s:s, s:i, s:i, s:i}", "version", VERSION_JSON, "name", name, "before",
                                (int) response->before, "after", (int) response->after, "failed",
                                (int) response->n_failed));
        else
                (void) printf("%s: %u instances, %u before\n", name, response->after, response->before);
        for (size_t i = 0; i < response->n_failed; i++) {
                output_error("scale %s: did not come up; see baton status %s", response->failed[i],
                             response->failed[i]);
                ask->code = EXIT_CODE_STATUS + STATUS_UNAVAILABLE;
        }
}

static int scale(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT, 1, SIZE_MAX,
                                              "NAME=N, a template and how many, is" };
        uint32_t n;
        Ask ask;

        if (ask_open(&ask, &command_scale, &syntax, argc, argv) < 0)
                return ask.code;
        for (size_t i = 0; i < ask.options.n_operands && ask.code == EXIT_CODE_OK; i++)
                if (parse_scale(ask.options.operands[i], &n))
                        scale_one(&ask, ask.options.operands[i], n);
                else
                        ask.code = command_usage(&command_scale, "it wants NAME=N: a template, and how many");
        return ask_close(&ask);
}

const Command command_scale = {
        .name = "scale",
        .summary = "have so many instances of a template",
        .help = "Usage: baton scale NAME=N... [OPTION...]\n"
                "\n"
                "Makes it N instances of the template NAME: NAME.1 to NAME.N. Missing ones are started, those above "
                "N\n"
                "stopped and forgotten. It holds until the configuration says another number.\n"
                "\n" WAIT_HELP COMMON_HELP "\n"
                "Example: baton scale web=8\n",
        .run = scale,
};

/* ---- reload ---- */

static const struct {
        const char *sign, *word;
} actions[] = {
        [BATON__CONTROL__CONFIG_CHANGE__ACTION__UPDATE] = { "~", "update" },
        [BATON__CONTROL__CONFIG_CHANGE__ACTION__ADD] = { "+", "add" },
        [BATON__CONTROL__CONFIG_CHANGE__ACTION__REMOVE] = { "-", "remove" },
        [BATON__CONTROL__CONFIG_CHANGE__ACTION__RESTART] = { "~", "restart" },
        [BATON__CONTROL__CONFIG_CHANGE__ACTION__UPGRADE] = { "~", "upgrade" },
};

static size_t action_of(const Baton__Control__ConfigChange *change) {
        return (size_t) change->action < ARRAY_SIZE(actions) ? (size_t) change->action : 0;
}

static void print_change(const Baton__Control__ConfigChange *change) {
        size_t action = action_of(change);

        (void) printf("%s %s", actions[action].sign, *change->name ? change->name : "the supervisor");
        for (size_t i = 0; i < change->n_keys; i++)
                (void) printf("%s%s", i ? ", " : ": ", change->keys[i]);
        if (change->upgrades > 0 && change->restarts > 0)
                (void) printf(" (upgrade %u, restart %u)\n", change->upgrades, change->restarts);
        else
                (void) printf("%s\n", change->action == BATON__CONTROL__CONFIG_CHANGE__ACTION__RESTART   ? " (restart)"
                                      : change->action == BATON__CONTROL__CONFIG_CHANGE__ACTION__UPGRADE ? " (upgrade)"
                                                                                                         : "");
}

static void report_failures(Ask *ask, const Baton__Control__ReloadResponse *response) {
        for (size_t i = 0; i < response->n_changes; i++)
                for (size_t j = 0; j < response->changes[i]->n_failures; j++) {
                        output_error("reload: %s", response->changes[i]->failures[j]);
                        ask->code = EXIT_CODE_STATUS + STATUS_ABORTED;
                }
}

static json_t *strings_to_json(char *const *strings, size_t n) {
        json_t *array = json_array();

        for (size_t i = 0; i < n; i++)
                (void) json_array_append_new(array, json_string(strings[i]));
        return array;
}

static json_t *changes_to_json(const Baton__Control__ReloadResponse *response) {
        json_t *array = json_array();

        for (size_t i = 0; i < response->n_changes; i++) {
                const Baton__Control__ConfigChange *change = response->changes[i];
                json_t *keys = strings_to_json(change->keys, change->n_keys);
                json_t *failures = strings_to_json(change->failures, change->n_failures);

                (void) json_array_append_new(array, json_pack("{s:s, s:s, s:o, s:i, s:i, s:o}", "name", change->name,
                                                              "action", actions[action_of(change)].word, "keys", keys,
                                                              "upgrades", (int) change->upgrades, "restarts",
                                                              (int) change->restarts, "failures", failures));
        }
        return array;
}

/* print_errors() - what is wrong with the configuration, a line each. */
static void print_errors(const Ask *ask, const ControlFailure *failure) {
        const Baton__Control__ConfigErrors *errors = failure->errors;

        for (size_t i = 0; errors && i < errors->n_lines; i++)
                output_error("%s", errors->lines[i]);
        if (errors && errors->found > errors->n_lines)
                output_error("... and %zu more errors", (size_t) errors->found - errors->n_lines);
        if (errors && errors->n_lines > 0)
                output_error("reload: nothing was changed");
        else
                (void) session_report(&ask->session, NULL, failure);
}

static int reload(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_DRY_RUN, 0, 0,
                                              "" };
        Baton__Control__ReloadRequest request = BATON__CONTROL__RELOAD_REQUEST__INIT;
        _cleanup_message_ Baton__Control__ReloadResponse *response = NULL;
        ControlFailure failure = { 0 };
        Ask ask;

        if (ask_open(&ask, &command_reload, &syntax, argc, argv) < 0)
                return ask.code;
        request.dry_run = ask.options.dry_run;
        request.no_wait = ask.options.no_wait;
        response =
                ask_call(&ask, "Reload", &request.base, &baton__control__reload_response__descriptor, NULL, &failure);
        if (!response && failure.status != STATUS_OK)
                print_errors(&ask, &failure);
        control_failure_deinit(&failure);
        if (response && ask.options.json)
                print(json_pack("{s:i, s:b, s:o, s:i}", "version", VERSION_JSON, "applied", !ask.options.dry_run,
                                "changes", changes_to_json(response), "unchanged", (int) response->unchanged));
        for (size_t i = 0; response && !ask.options.json && i < response->n_changes; i++)
                print_change(response->changes[i]);
        if (response && !ask.options.json && response->n_changes == 0)
                (void) printf("nothing has changed\n");
        if (response)
                report_failures(&ask, response);
        return ask_close(&ask);
}

const Command command_reload = {
        .name = "reload",
        .summary = "read the configuration again, and apply what changed",
        .help = "Usage: baton reload [OPTION...]\n"
                "\n"
                "The supervisor reads its configuration again and applies the difference, all of it or, if\n"
                "anything in it is wrong, nothing. What is printed: + added, - removed, ~ changed, with the keys\n"
                "that differ, and whether a process is replaced: (upgrade) where it can hand on its state, else\n"
                "(restart).\n"
                "\n"
                "  --dry-run               only say what would change\n" WAIT_HELP COMMON_HELP "\n"
                "Example: baton reload --dry-run\n",
        .run = reload,
};

/* ---- shutdown ---- */

static int shut_down(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_WAIT | CONTROL_TAKES_STOP_TIMEOUT, 0,
                                              0, "" };
        Baton__Control__ShutdownRequest request = BATON__CONTROL__SHUTDOWN_REQUEST__INIT;
        _cleanup_message_ Baton__Control__ShutdownResponse *response = NULL;
        Ask ask;
        int r = 0;

        if (ask_open(&ask, &command_shutdown, &syntax, argc, argv) < 0)
                return ask.code;
        request.timeout_us = ask.options.stop_timeout_us;
        response =
                ask_call(&ask, "Shutdown", &request.base, &baton__control__shutdown_response__descriptor, NULL, NULL);
        /* It is done when the connection ends: nobody lives behind it any more. */
        while (response && r == 0 && !ask.options.no_wait && !ask.session.control.ended)
                r = ask.session.control.interrupted ? -EINTR : endpoint_dispatch(ask.session.endpoint, -1);
        if (r == -EINTR && ask.session.signal)
                ask.code = EXIT_CODE_SIGNAL + ask.session.signal;
        else if (response && ask.options.json)
                print(json_pack("{s:i, s:i}", "version", VERSION_JSON, "runners", (int) response->runners));
        else if (response)
                (void) printf("%s; %u runner%s running\n",
                              ask.options.no_wait ? "the supervisor is stopping" : "the supervisor has stopped",
                              response->runners, response->runners == 1 ? " was" : "s were");
        return ask_close(&ask);
}

const Command command_shutdown = {
        .name = "shutdown",
        .summary = "stop all runners, and the supervisor",
        .help = "Usage: baton shutdown [OPTION...]\n"
                "\n"
                "Stops all runners in order, then the supervisor.\n"
                "\n"
                "  --stop-timeout=DURATION  for all of it (as configured)\n" WAIT_HELP COMMON_HELP "\n"
                "Example: baton shutdown --stop-timeout 1min\n",
        .run = shut_down,
};

/* SPDX-License-Identifier: Apache-2.0 */

/* baton takeover: another process goes on as the supervisor, with every connection and call. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/takeover-force.h"
#include "proto/message.h"

enum { VERSION_JSON = 1 };

static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_TAKEOVER, 0, 0, "" };

static void print(const Ask *ask, const Baton__Control__TakeoverResponse *response) {
        bool check = ask->options.check;

        if (ask->options.json) {
                json_auto_t *object = json_pack(
                        "{s:i, s:b, s:i, s:i, s:i, s:i, s:I, s:I, s:i, s:i, s:i}", "version", VERSION_JSON,
                        "committed", !check, "generation", (int) response->generation, "pid", (int) response->pid,
                        "former_generation", (int) response->former_generation, "former_pid",
                        (int) response->former_pid, "total_us", (json_int_t) response->total_us, "pause_us",
                        (json_int_t) response->pause_us, "connections", (int) response->connections, "runners",
                        (int) response->runners, "calls", (int) response->calls);

                if (object)
                        (void) output_json(stdout, object);
        } else if (check) {
                (void) printf("a takeover would succeed; the pause would be about %.1f ms\n",
                              (double) response->pause_us / 1000);
        } else {
                (void) printf(
                        "pid %d (generation %u) follows pid %d; pause %.1f ms, connections %u, native runners %u, "
                        "calls %u\n",
                        response->pid, response->generation, response->former_pid, (double) response->pause_us / 1000,
                        response->connections, response->runners, response->calls);
        }
}

static void replace_supervisor(Ask *ask, char *program) {
        Baton__Control__TakeoverRequest request = BATON__CONTROL__TAKEOVER_REQUEST__INIT;
        _cleanup_message_ Baton__Control__TakeoverResponse *response = NULL;

        request.program = program;
        request.check = ask->options.check;
        if (ask->options.fault)
                request.fault = (char *) (uintptr_t) ask->options.fault;
        request.timeout_us = ask->options.timeout_us; /* which the supervisor keeps, and says what took so long */
        ask->options.timeout_us = 0;
        response =
                ask_call(ask, "Takeover", &request.base, &baton__control__takeover_response__descriptor, NULL, NULL);
        if (response)
                print(ask, response);
}

static void print_keeper(const Ask *ask, const Baton__Control__ReplaceKeeperResponse *response) {
        bool check = ask->options.check;

        if (ask->options.json) {
                json_auto_t *object = json_pack("{s:i, s:b, s:i, s:s, s:I}", "version", VERSION_JSON, "replaced",
                                                !check, "keeper", (int) response->pid, "release", response->release,
                                                "total_us", (json_int_t) response->total_us);

                if (object)
                        (void) output_json(stdout, object);
        } else {
                (void) printf("the keeper (pid %d) %s baton-keeper %s\n", response->pid,
                              check ? "could be replaced by" : "is now", response->release);
        }
}

static void replace_keeper(Ask *ask, char *program) {
        Baton__Control__ReplaceKeeperRequest request = BATON__CONTROL__REPLACE_KEEPER_REQUEST__INIT;
        _cleanup_message_ Baton__Control__ReplaceKeeperResponse *response = NULL;

        request.program = program;
        request.check = ask->options.check;
        response = ask_call(ask, "ReplaceKeeper", &request.base, &baton__control__replace_keeper_response__descriptor,
                            NULL, NULL);
        if (response)
                print_keeper(ask, response);
}

/* by_force() - before a connection is tried: whoever is asked for it does not answer. */
static int by_force(Ask *ask, int argc, char **argv) {
        char error[OPTIONS_ERROR_MAX] = "";
        int r = control_options_parse(&syntax, argc, argv, &ask->options, error), code;

        if (r == 0 && ask->options.force && (ask->options.keeper || ask->options.check || ask->options.exec)) {
                (void) snprintf(error, sizeof(error), "--force goes with neither --keeper, --check nor --exec");
                r = -EINVAL;
        }
        code = command_parsed(&command_takeover, r, error);
        if (code != COMMAND_GO_ON)
                return code;
        return ask->options.force ? takeover_force(&ask->options) : COMMAND_GO_ON;
}

static int take_over(int argc, char **argv) {
        _cleanup_free_ char *program = NULL;
        char none[] = "", *path = none;
        Ask ask;
        int code = by_force(&ask, argc, argv);

        if (code != COMMAND_GO_ON)
                return code;
        if (ask_open(&ask, &command_takeover, &syntax, argc, argv) < 0)
                return ask.code;
        if (ask.options.exec) {
                program = realpath(ask.options.exec, NULL);
                path = program ? program : (char *) (uintptr_t) ask.options.exec;
        }
        if (ask.options.keeper)
                replace_keeper(&ask, path);
        else
                replace_supervisor(&ask, path);
        return ask_close(&ask);
}

const Command command_takeover = {
        .name = "takeover",
        .summary = "replace the supervisor while everything goes on",
        .help = "Usage: baton takeover [OPTION...]\n"
                "\n"
                "Starts another supervisor, which goes on with every runner, connection and call of the present one;\n"
                "that one then leaves. If anything fails before, nothing has changed.\n"
                "\n"
                "  --exec=PATH             the program (the installed one, as it is there now)\n"
                "  --check                 try everything but the replacement itself\n"
                "  --fault=POINT           make it fail there, to see what becomes of it: PHASE:FAULT, or\n"
                "                          PHASE@successor:FAULT; in builds for rehearsals (see docs/takeover.md)\n"
                "  --keeper                the keeper's program instead, in the keeper's own process\n"
                "  --force                 for a supervisor that does not answer: its keeper kills it, and the next\n"
                "                          one recovers; runners go on, calls by way of it end. Of the keeper's user\n"
                "                          and root\n"
                "  --timeout=DURATION      give up if it is not done by then (30s)\n"
                "  --json                  one JSON object\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Exit codes: 25: nothing was replaced; with --force: 25: the supervisor answers, 23: not allowed to,\n"
                "20: no other one serves in time, 48: none is started any more.\n"
                "\n"
                "Example: baton takeover --exec /usr/libexec/baton/baton-supervisor\n",
        .run = take_over,
};

/* SPDX-License-Identifier: Apache-2.0 */

/* baton takeover: another process goes on as the supervisor, with every connection and call. */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "proto/message.h"

enum { VERSION_JSON = 1 };

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

static int take_over(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_TAKEOVER, 0, 0, "" };
        Baton__Control__TakeoverRequest request = BATON__CONTROL__TAKEOVER_REQUEST__INIT;
        _cleanup_message_ Baton__Control__TakeoverResponse *response = NULL;
        _cleanup_free_ char *program = NULL;
        Ask ask;

        if (ask_open(&ask, &command_takeover, &syntax, argc, argv) < 0)
                return ask.code;
        if (ask.options.exec) {
                program = realpath(ask.options.exec, NULL);
                request.program = program ? program : (char *) (uintptr_t) ask.options.exec;
        }
        request.check = ask.options.check;
        if (ask.options.fault)
                request.fault = (char *) (uintptr_t) ask.options.fault;
        request.timeout_us = ask.options.timeout_us; /* which the supervisor keeps, and says what took so long */
        ask.options.timeout_us = 0;
        response =
                ask_call(&ask, "Takeover", &request.base, &baton__control__takeover_response__descriptor, NULL, NULL);
        if (response)
                print(&ask, response);
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
                "  --exec=PATH             the program (baton-supervisor from where the present one comes)\n"
                "  --check                 try everything but the replacement itself\n"
                "  --fault=POINT           make it fail there, to see what becomes of it: PHASE:FAULT, or\n"
                "                          PHASE@successor:FAULT; in builds for rehearsals (see docs/takeover.md)\n"
                "  --timeout=DURATION      give up if it is not done by then (30s)\n"
                "  --json                  one JSON object\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton takeover --exec /usr/libexec/baton/baton-supervisor\n",
        .run = take_over,
};

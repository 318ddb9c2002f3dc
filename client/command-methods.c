/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton methods: what a runner says that it can be called with. Only the runner knows; where it does not tell, or does not
 * describe a method, that is what is printed, never a guess.
 */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exec.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "proto/message.h"

#define METHOD "baton.Reflection/List"

typedef Baton__ReflectionResponse List;
typedef Baton__ReflectionResponse__Method Method;

typedef struct MethodsCommand {
        Exec exec; /* first: work() is given it */
        MethodsOptions options;
} MethodsCommand;

enum { COLUMN_METHOD, COLUMN_REQUEST, COLUMN_RESPONSE, COLUMN_STREAMS, _COLUMN_N };

static const char *const titles[] = {
        [COLUMN_METHOD] = "METHOD",
        [COLUMN_REQUEST] = "REQUEST",
        [COLUMN_RESPONSE] = "RESPONSE",
        [COLUMN_STREAMS] = "STREAMS",
};
_Static_assert(ARRAY_SIZE(titles) == _COLUMN_N, "each column has its title");

/* ---- as a table ---- */

static const char *streams(const Method *method) {
        if (method->client_streams)
                return method->server_streams ? "both" : "client";
        return method->server_streams ? "server" : "-";
}

static const char *cell(const Method *method, unsigned column) {
        if (column == COLUMN_METHOD)
                return method->name;
        if (!method->described)
                return "?";
        if (column == COLUMN_STREAMS)
                return streams(method);
        column = column == COLUMN_REQUEST;
        if (!*(column ? method->request_type : method->response_type))
                return "bytes";
        return column ? method->request_type : method->response_type;
}

static int print_row(const char *const cells[_COLUMN_N], const size_t widths[_COLUMN_N]) {
        int r = 0;

        for (unsigned i = 0; i < _COLUMN_N && r == 0; i++) {
                r = output_text(stdout, cells[i], strlen(cells[i]));
                if (i + 1 < _COLUMN_N)
                        (void) printf("%*s", (int) (widths[i] + 2 - strlen(cells[i])), "");
        }
        (void) fputc('\n', stdout);
        return r;
}

static int print_table(const List *list) {
        size_t widths[_COLUMN_N];
        int r;

        for (unsigned i = 0; i < _COLUMN_N; i++) {
                widths[i] = strlen(titles[i]);
                for (size_t n = 0; n < list->n_methods; n++)
                        widths[i] = MAX(widths[i], strlen(cell(list->methods[n], i)));
        }
        r = print_row(titles, widths);
        for (size_t n = 0; n < list->n_methods && r == 0; n++) {
                const char *cells[_COLUMN_N];

                for (unsigned i = 0; i < _COLUMN_N; i++)
                        cells[i] = cell(list->methods[n], i);
                r = print_row(cells, widths);
        }
        if (list->others)
                (void) printf("... and others, which it takes without listing them\n");
        return r < 0 ? r : output_flush(stdout);
}

/* ---- as JSON ---- */

static json_t *method_to_json(const Method *method) {
        json_t *json = json_pack("{s:s, s:b}", "name", method->name, "described", (int) method->described);
        int r = 0;

        if (method->described)
                r = json_object_update_new(json, json_pack("{s:s, s:s, s:b, s:b}", "request", method->request_type,
                                                           "response", method->response_type, "client_streams",
                                                           (int) method->client_streams, "server_streams",
                                                           (int) method->server_streams));
        if (r == 0)
                return json;
        json_decref(json);
        return NULL;
}

static int print_json(const MethodsCommand *c, const List *list) {
        json_t *all = call_output_frame(STATUS_OK, exec_elapsed(&c->exec));
        json_t *methods = json_array();
        int r = 0;

        for (size_t n = 0; n < list->n_methods && r == 0; n++)
                r = json_array_append_new(methods, method_to_json(list->methods[n]));
        if (json_object_set_new(all, "methods", methods) == 0 && r == 0)
                r = json_object_set_new(all, "others", json_boolean(list->others));
        if (r == 0)
                return call_output_json(all);
        json_decref(all);
        return -ENOMEM;
}

/* ---- the call ---- */

static int failed(MethodsCommand *c, const ControlCall *invocation) {
        char silent[] = "the runner does not tell its methods";
        ControlFailure failure = invocation->failure;

        if (failure.status == STATUS_UNIMPLEMENTED)
                failure.message = silent;
        return exec_failed(&c->exec, &failure, invocation->envelope);
}

static int answered(MethodsCommand *c, const ControlCall *invocation) {
        _cleanup_message_ List *list =
                message_unpack(&baton__reflection_response__descriptor, invocation->payload, invocation->size);
        char malformed[] = "the answer is no list of methods";
        ControlFailure failure = { .status = STATUS_INTERNAL, .message = malformed };
        int r;

        if (!list)
                return exec_failed(&c->exec, &failure, invocation->envelope);
        r = c->options.json ? print_json(c, list) : print_table(list);
        return r < 0 ? exec_output_failed(&c->exec, r) : EXIT_CODE_OK;
}

static int work(Exec *exec) {
        const CallParameters parameters = { .method = METHOD, .type = baton__reflection_request__descriptor.name };
        MethodsCommand *c = (MethodsCommand *) exec;
        ControlCall invocation;
        int r, code;

        exec_begin(exec, &invocation, &parameters);
        r = control_wait(&exec->session.control, &invocation);
        if (r < 0)
                code = exec_stopped(exec, r);
        else if (invocation.failure.status != STATUS_OK)
                code = failed(c, &invocation);
        else
                code = answered(c, &invocation);
        control_call_deinit(&invocation);
        return code;
}

static int run(int argc, char **argv) {
        MethodsCommand c = { 0 };
        char error[OPTIONS_ERROR_MAX] = "";
        int code = command_parsed(&command_methods, methods_options_parse(argc, argv, &c.options, error), error);

        if (code == COMMAND_GO_ON) {
                c.exec = (Exec){
                        .command = command_methods.name,
                        .what = runner_options_what(&c.options.runner),
                        .options = &c.options.runner,
                        .json = c.options.json,
                        .work = work,
                };
                code = exec_run(&c.exec);
        }
        methods_options_deinit(&c.options);
        return code;
}

const Command command_methods = {
        .name = "methods",
        .summary = "list what a runner, or a program started for it, can be called with",
        .help = "Usage: baton methods [OPTION...] NAME\n"
                "       baton methods [OPTION...] --exec PROGRAM [ARGUMENT...]\n"
                "\n"
                "Prints the methods that the runner NAME, or PROGRAM, started as one, tells of, with the types of\n"
                "request and answer, and which side sends a stream: client, server, both. \"bytes\" are of no\n"
                "type, \"?\" is what the runner does not say.\n"
                "\n"
                "  --exec                    PROGRAM is to be started; without it NAME is that of a runner that runs\n"
                "  --socket=PATH             the supervisor that has NAME ($BATON_SOCKET, else the usual place)\n"
                "  --json                    print one JSON object: status, code, time_us, methods (name, described,\n"
                "                            request, response, client_streams, server_streams), others\n"
                "  --start-timeout=DURATION  how long the runner may take to connect (10s)\n"
                "  --env=NAME=VALUE          a variable of the runner's environment; again for more\n"
                "  --name=NAME               the runner's name in messages (from PROGRAM's)\n"
                "  --help\n"
                "\n"
                "Exit codes: as those of call, see baton call --help; 28: the runner does not tell its methods.\n"
                "\n"
                "Examples:\n"
                "  baton methods greeter\n"
                "  baton methods --exec baton-runner-echo\n"
                "  baton methods --json --exec baton-runner-echo | jq -r '.methods[].name'\n",
        .run = run,
};

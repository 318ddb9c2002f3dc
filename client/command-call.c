/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton call: calls one method of a runner, which may be started for it, and prints the answer, and with --stream the items
 * that come before it. The request is made before anything is started, so that a mistyped value costs nothing.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exec.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/stream.h"
#include "proto/values-text.h"

/* It is here twice, and once more in the object that it travels in; what the runner takes is told by its answer. */
#define MAX_PAYLOAD ((size_t) 1 << 30)

typedef struct CallCommand {
        Exec exec; /* first: work() is given it */
        CallOptions options;
        uint8_t *payload; /* of the request */
        size_t size;
        const char *type; /* of it */
        Baton__Pair **metadata;
} CallCommand;

/* ---- the request ---- */

/* raw_request() - the one value's bytes themselves. */
static int raw_request(CallCommand *c, const Baton__Values *values, char *error) {
        const Baton__Value *value = values->n_values ? values->values[0] : NULL;
        const void *data = NULL;

        if (value && value->v_case == BATON__VALUE__V_B) {
                data = value->b.data;
                c->size = value->b.len;
        } else if (value && value->v_case == BATON__VALUE__V_S) {
                data = value->s;
                c->size = strlen(value->s);
        } else if (value) {
                (void) snprintf(error, VALUES_ERROR_MAX, "--raw wants a buffer or a string: the bytes of the request");
                return -EINVAL;
        }
        c->type = c->options.type;
        c->payload = malloc(c->size + 1);
        if (!c->payload)
                return -ENOMEM;
        if (c->size)
                memcpy(c->payload, data, c->size);
        return 0;
}

static int make_request(CallCommand *c, char *error) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        int r;

        r = values_parse(c->options.values, c->options.n_values, MAX_PAYLOAD, &values, error);
        if (r < 0)
                return r;
        if (c->options.raw)
                return raw_request(c, values, error);
        c->type = VALUES_TYPE;
        return values_pack(values, &c->payload, &c->size);
}

/* make_metadata() - the options as the engine takes them: pointers to what they are. */
static int make_metadata(CallCommand *c) {
        size_t n = c->options.n_metadata;
        Baton__Pair *pairs;

        c->metadata = calloc(1, n * (sizeof(Baton__Pair *) + sizeof(Baton__Pair)) + 1);
        if (!c->metadata)
                return -ENOMEM;
        pairs = (Baton__Pair *) (c->metadata + n);
        for (size_t i = 0; i < n; i++) {
                const Metadata *metadata = &c->options.metadata[i];

                baton__pair__init(&pairs[i]);
                pairs[i].key = metadata->key;
                pairs[i].value = control_bytes(metadata->value);
                c->metadata[i] = &pairs[i];
        }
        return 0;
}

/* bad_request() - values that are no values are a matter of usage; files that cannot be read or are too large are not. */
static int bad_request(int r, const char *error) {
        if (r == -EINVAL || r == -ERANGE)
                return command_usage(&command_call, error);
        output_error("call: %s", *error ? error : strerror(-r));
        return r == -E2BIG ? EXIT_CODE_STATUS + STATUS_RESOURCE_EXHAUSTED : EXIT_CODE_BROKEN;
}

/* ---- the call ---- */

static CallParameters parameters(const CallCommand *c) {
        return (CallParameters){
                .method = c->options.method,
                .type = c->type,
                .payload = c->payload,
                .size = c->size,
                .timeout_us = c->options.deadline_us,
                .metadata = c->metadata,
                .n_metadata = c->options.n_metadata,
        };
}

/* ended() - what a call came to; @r is the wait's result. */
static int ended(CallCommand *c, int r, const ControlCall *invocation) {
        if (r < 0)
                return exec_stopped(&c->exec, r);
        if (invocation->failure.status != STATUS_OK)
                return exec_failed(&c->exec, &invocation->failure, invocation->envelope);
        r = call_output_answer(&c->options, invocation, exec_elapsed(&c->exec));
        if (r == -EBADMSG)
                return EXIT_CODE_STATUS + STATUS_INTERNAL;
        return r < 0 ? exec_output_failed(&c->exec, r) : EXIT_CODE_OK;
}

static int work(Exec *exec) {
        CallCommand *c = (CallCommand *) exec;
        CallParameters call = parameters(c);
        ControlCall invocation;
        int code;

        exec_begin(exec, &invocation, &call);
        code = ended(c, control_wait(&exec->session.control, &invocation), &invocation);
        control_call_deinit(&invocation); /* a call given up is cancelled here */
        return code;
}

/* ---- the call with streams ---- */

/* The exit code of each fault; that of the output has words of its own. */
static const struct {
        Status status;
        int code;
} faults[] = {
        [STREAM_FAULT_NONE] = { STATUS_OK, EXIT_CODE_OK },
        [STREAM_FAULT_LINE] = { STATUS_INVALID_ARGUMENT, EXIT_CODE_USAGE },
        [STREAM_FAULT_TOO_LARGE] = { STATUS_RESOURCE_EXHAUSTED, EXIT_CODE_STATUS + STATUS_RESOURCE_EXHAUSTED },
        [STREAM_FAULT_INPUT] = { STATUS_CANCELLED, EXIT_CODE_BROKEN },
        [STREAM_FAULT_OUTPUT] = { STATUS_CANCELLED, EXIT_CODE_BROKEN },
        [STREAM_FAULT_MEMORY] = { STATUS_CANCELLED, EXIT_CODE_BROKEN },
};

static int at_fault(CallCommand *c, Stream *stream) {
        ControlFailure failure = { .status = faults[stream->fault].status, .message = stream->error };
        int r = 0;

        c->exec.given_up = true;
        if (stream->fault == STREAM_FAULT_OUTPUT)
                return exec_output_failed(&c->exec, stream->output.error);
        output_error("call %s: %s", c->options.method, stream->error);
        if (c->options.json)
                r = call_output_failure(&failure, NULL, exec_elapsed(&c->exec));
        return r < 0 ? exec_output_failed(&c->exec, r) : faults[stream->fault].code;
}

static int work_streaming(Exec *exec) {
        CallCommand *c = (CallCommand *) exec;
        CallParameters call = parameters(c);
        Stream stream;
        int r, code;

        r = stream_open(&stream, exec->session.endpoint, STDIN_FILENO, STDOUT_FILENO);
        stream.raw = c->options.raw;
        stream.type = c->options.type;
        if (r == 0) {
                stream_begin(&stream, &exec->session.control, exec->lane, exec->name, &call);
                r = stream_wait(&stream, &exec->session.control);
        }
        code = stream.fault ? at_fault(c, &stream) : ended(c, r, &stream.invocation);
        stream_deinit(&stream);
        return code;
}

static int run_parsed(CallCommand *c) {
        char error[VALUES_ERROR_MAX] = "";
        int r;

        r = make_request(c, error);
        if (r == 0)
                r = make_metadata(c);
        if (r < 0)
                return bad_request(r, error);
        c->exec = (Exec){
                .command = command_call.name,
                .what = c->options.method,
                .options = &c->options.runner,
                .json = c->options.json,
                .max_frame = c->options.max_frame,
                .deadline_us = c->options.deadline_us,
                .work = c->options.stream ? work_streaming : work,
        };
        return exec_run(&c->exec);
}

static int run(int argc, char **argv) {
        CallCommand c = { 0 };
        char error[OPTIONS_ERROR_MAX] = "";
        int code = command_parsed(&command_call, call_options_parse(argc, argv, &c.options, error), error);

        if (code == COMMAND_GO_ON)
                code = run_parsed(&c);
        free(c.metadata);
        free(c.payload);
        call_options_deinit(&c.options);
        return code;
}

const Command command_call = {
        .name = "call",
        .summary = "call a runner, or a program started for it, and print the answer",
        .help = "Usage: baton call [OPTION...] NAME -- METHOD [VALUE...]\n"
                "       baton call [OPTION...] --exec PROGRAM [ARGUMENT...] -- METHOD [VALUE...]\n"
                "\n"
                "Calls METHOD of the runner NAME with the VALUEs and prints the answer: over a connection of its\n"
                "own, not through the supervisor. With --exec, PROGRAM is started as a runner, a process of its\n"
                "own, and stopped after the answer. A crash in there is an error here. PROGRAM without a slash\n"
                "is looked for in $PATH, then beside baton.\n"
                "\n"
                "  --exec                    PROGRAM is to be started; without it NAME is that of a runner that runs\n"
                "  --socket=PATH             the supervisor that has NAME ($BATON_SOCKET, else the usual place)\n"
                "  --json                    print one JSON object: status, code, time_us, and type with values\n"
                "                            or data, or message and details; metadata where there is some\n"
                "  --stream                  send standard input as items, one JSON line each, and write items as\n"
                "                            they come, before the answer; the input's end ends the sending\n"
                "  --deadline=DURATION       give the call up after this time (none); 500ms, 10s, 2min\n"
                "  --max-frame=SIZE          how large the answer may be, with what surrounds it (8M in a frame,\n"
                "                            1G as a sealed object)\n"
                "  --start-timeout=DURATION  how long the runner may take to connect (10s)\n"
                "  --metadata=KEY=VALUE      goes with the call, for the runner; again for more\n"
                "  --env=NAME=VALUE          a variable of the runner's environment; again for more\n"
                "  --name=NAME               the runner's name in messages (from PROGRAM's)\n"
                "  --raw                     the bytes of the one VALUE, a buffer or string, are the request,\n"
                "                            and the bytes of the answer are written as they come; with\n"
                "                            --stream a line is the bytes of an item\n"
                "  --type=TYPE               with --raw: full name of the request's message, and the items'\n"
                "  --help\n"
                "\n"
                "A VALUE is TYPE:TEXT: i8: to i64:, u8: to u64:, f32:, f64:, string:TEXT, buffer:@FILE,\n"
                "buffer:hex:DIGITS, buffer:- (standard input), out:SIZE (a buffer that the runner fills).\n"
                "METHOD is what the runner offers; for baton-runner-module it is a C function's signature, or\n"
                "its name where the library is described. The answer is printed one value per line, buffers as\n"
                "hexadecimal digits.\n"
                "\n"
                "With --stream a line is an array of values, as --json shows them, or one of them alone, as in\n"
                "[{\"type\": \"u8\", \"value\": 7}]. {\"type\": NAME, \"data\": HEX} is an item of another message.\n"
                "Who reads or writes slowly is waited for, at both ends. A line that is no item ends the call: 2.\n"
                "\n"
                "Exit codes: 0; 1 baton itself failed; 2 usage; 16 + gRPC status of the call (19 invalid\n"
                "argument, 20 deadline exceeded, 21 not found, 23 not allowed, 25 a plain program or not\n"
                "running, 28 no such method, 30 the runner died); no supervisor: 46 no socket, 47 nobody\n"
                "behind it, 48 the keeper alone; the program: 40 not found, 41 not executable, 42 not for this\n"
                "machine, 43 ended before it connected, 44 did not connect in time; 128 + signal.\n"
                "\n"
                "Examples:\n"
                "  baton call greeter -- greet.Greeter/Greet string:you\n"
                "  baton call --exec baton-runner-echo -- echo.Echo/Unary string:hello\n"
                "  baton call --exec baton-runner-module libz.so.1 -- 'u64 crc32(u64, buffer, u32)' \\\n"
                "      u64:0 buffer:@FILE u32:$(stat -c %s FILE)\n"
                "  seq 3 | baton call --stream --raw --exec baton-runner-echo -- echo.Echo/Bidi\n"
                "  echo '[{\"type\": \"string\", \"value\": \"hello\"}]' |\n"
                "      baton call --stream --json --exec baton-runner-echo -- echo.Echo/Bidi\n"
                "  baton call --json --deadline=1s --exec baton-runner-module libm.so.6 -- 'f64 cos(f64)' f64:0\n",
        .run = run,
};

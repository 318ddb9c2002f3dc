/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton call: starts a runner below a private supervisor, calls one method of it, prints the answer, stops it. The request
 * is made before anything is started, so that a mistyped value costs nothing. Whatever happens in between, the way out is
 * the same: the tree is stopped, nothing stays behind, and the exit code says which of the things that can happen did.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/session.h"
#include "common/clock.h"
#include "proto/message.h"
#include "proto/values-text.h"

/* What the runner has for leaving in order: with nothing to do any more; and while it still hangs in a call given up. */
#define STOP_TIMEOUT_US  (10 * USEC_PER_SEC)
#define HURRY_TIMEOUT_US (200 * USEC_PER_MSEC)

/* Below the 8 MiB of a frame, which also holds names and the Envelope; more goes through shared memory, later. */
#define MAX_PAYLOAD ((size_t) 8 * 1024 * 1024 - 64 * 1024)

typedef struct CallCommand {
        CallOptions options;
        char *program;    /* where it is */
        uint8_t *payload; /* of the request */
        size_t size;
        const char *type; /* of it */
        Session session;
        uint64_t began;
        bool given_up; /* the runner may still be at it */
} CallCommand;

static uint64_t elapsed(const CallCommand *c) {
        return clock_now() - c->began;
}

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

/* bad_request() - values that are no values are a matter of usage; files that cannot be read or are too large are not. */
static int bad_request(int r, const char *error) {
        if (r == -EINVAL || r == -ERANGE)
                return command_usage(&command_call, error);
        output_error("call: %s", *error ? error : strerror(-r));
        return r == -E2BIG ? EXIT_CODE_STATUS + STATUS_RESOURCE_EXHAUSTED : EXIT_CODE_BROKEN;
}

/* ---- ways out ---- */

static int output_failed(const CallCommand *c, int r) {
        /* As if the signal had ended us: who closed the pipe knows, and wants no words. */
        if (r == -EPIPE)
                return EXIT_CODE_SIGNAL + SIGPIPE;
        if (r == -EBADMSG)
                return EXIT_CODE_STATUS + STATUS_INTERNAL;
        output_error("call %s: cannot write the answer: %s", c->options.method, strerror(-r));
        return EXIT_CODE_BROKEN;
}

static int failed(const CallCommand *c, const ControlFailure *failure) {
        int code = session_report(&c->session, c->options.method, failure);
        int r = c->options.json ? call_output_failure(failure, elapsed(c)) : 0;

        return r < 0 ? output_failed(c, r) : code;
}

/* stopped() - a wait ended without an answer: a signal, or the epoll set itself failed. */
static int stopped(const CallCommand *c, int r) {
        ControlFailure failure = { .status = STATUS_CANCELLED };
        char signal[EXIT_TEXT_MAX], message[EXIT_TEXT_MAX + 16];

        if (r != -EINTR || !c->session.signal) {
                output_error("call %s: %s", c->options.method, strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        signal_describe(c->session.signal, signal);
        (void) snprintf(message, sizeof(message), "ended by %s", signal);
        failure.message = message;
        (void) failed(c, &failure);
        return EXIT_CODE_SIGNAL + c->session.signal;
}

/* ---- the call ---- */

static int invoke(CallCommand *c, const char *name) {
        ControlInvocation invocation = {
                .name = name,
                .method = c->options.method,
                .type = c->type,
                .payload = c->payload,
                .size = c->size,
                .timeout_us = c->options.deadline_us,
        };
        ControlCall call;
        int r, code;

        control_begin_invoke(&c->session.control, &call, &invocation);
        r = control_wait(&c->session.control, &call);
        c->given_up = r < 0 || call.failure.status == STATUS_DEADLINE_EXCEEDED;
        if (r < 0)
                code = stopped(c, r);
        else if (call.failure.status != STATUS_OK)
                code = failed(c, &call.failure);
        else {
                r = call_output_answer(&c->options, &call, elapsed(c));
                code = r < 0 ? output_failed(c, r) : EXIT_CODE_OK;
        }
        control_call_deinit(&call); /* a call given up is cancelled here */
        return code;
}

/* stop() - an orderly end for the runner, which may have ended by itself. What it does not do, the end of the lane does. */
static void stop(CallCommand *c, const char *name) {
        ControlFailure failure = { 0 };
        ControlStopped *answer = NULL;

        c->session.control.interrupted = false; /* a further signal interrupts this, too */
        (void) control_stop(&c->session.control, name, c->given_up ? HURRY_TIMEOUT_US : STOP_TIMEOUT_US, &answer,
                            &failure);
        (void) message_free(answer);
        control_failure_deinit(&failure);
}

static int not_started(CallCommand *c, int r, ControlFailure *failure) {
        int code = r < 0 ? stopped(c, r) : failed(c, failure);

        control_failure_deinit(failure);
        return code;
}

static int start_and_invoke(CallCommand *c) {
        _cleanup_message_ ControlStarted *started = NULL;
        ControlFailure failure = { 0 };
        int r, code;

        r = session_start(&c->session, &c->options.runner, c->program, true, &started, &failure);
        if (r != 0)
                return not_started(c, r, &failure);
        code = invoke(c, started->name);
        stop(c, started->name);
        return code;
}

static int run_parsed(CallCommand *c) {
        char error[VALUES_ERROR_MAX] = "";
        ControlFailure failure = { 0 };
        int r, code;

        r = make_request(c, error);
        if (r < 0)
                return bad_request(r, error);
        c->began = clock_now();
        c->session.command = command_call.name;
        r = session_find(c->options.runner.program, &c->program, &failure);
        if (r != 0)
                return not_started(c, r, &failure);
        if (session_open(&c->session, command_call.name) < 0)
                return EXIT_CODE_BROKEN;
        code = start_and_invoke(c);
        session_close(&c->session);
        return code;
}

static int run(int argc, char **argv) {
        CallCommand c = { .session.signal_fd = -1 };
        char error[OPTIONS_ERROR_MAX] = "";
        int r, code;

        r = call_options_parse(argc, argv, &c.options, error);
        if (r == OPTIONS_HELP)
                code = command_help(&command_call);
        else if (r < 0)
                code = command_usage(&command_call, *error ? error : strerror(-r));
        else
                code = run_parsed(&c);
        free(c.program);
        free(c.payload);
        call_options_deinit(&c.options);
        return code;
}

const Command command_call = {
        .name = "call",
        .summary = "start a runner, call it, print the answer, stop it",
        .help = "Usage: baton call [OPTION...] --exec PROGRAM [ARGUMENT...] -- METHOD [VALUE...]\n"
                "\n"
                "Starts PROGRAM as a runner, a process of its own, calls METHOD with the VALUEs, prints the\n"
                "answer and stops it. A crash in there is an error here. PROGRAM without a slash is looked for\n"
                "in $PATH, then beside baton.\n"
                "\n"
                "  --exec                    PROGRAM is to be started\n"
                "  --json                    print one JSON object: status, code, time_us, and type with values\n"
                "                            or data, or message\n"
                "  --deadline=DURATION       give the call up after this time (none); 500ms, 10s, 2min\n"
                "  --start-timeout=DURATION  how long the runner may take to connect (10s)\n"
                "  --env=NAME=VALUE          a variable of the runner's environment; again for more\n"
                "  --name=NAME               the runner's name in messages (from PROGRAM's)\n"
                "  --raw                     the bytes of the one VALUE, a buffer or string, are the request,\n"
                "                            and the bytes of the answer are written as they come\n"
                "  --type=TYPE               with --raw: full name of the request's message\n"
                "  --help\n"
                "\n"
                "A VALUE is TYPE:TEXT: i8: to i64:, u8: to u64:, f32:, f64:, string:TEXT, buffer:@FILE,\n"
                "buffer:hex:DIGITS, buffer:- (standard input), out:SIZE (a buffer that the runner fills).\n"
                "METHOD is what the runner offers; for baton-runner-module it is a C function's signature. The\n"
                "answer is printed one value per line, buffers as hexadecimal digits.\n"
                "\n"
                "Exit codes: 0; 1 baton itself failed; 2 usage; 16 + gRPC status of the call (19 invalid\n"
                "argument, 20 deadline exceeded, 21 not found, 28 no such method, 30 the runner died); the\n"
                "program: 40 not found, 41 not executable, 42 not for this machine, 43 ended before it\n"
                "connected, 44 did not connect in time; 128 + signal.\n"
                "\n"
                "Examples:\n"
                "  baton call --exec baton-runner-echo -- echo.Echo/Unary string:hello\n"
                "  baton call --exec baton-runner-module libz.so.1 -- 'u64 crc32(u64, buffer, u32)' \\\n"
                "      u64:0 buffer:@FILE u32:$(stat -c %s FILE)\n"
                "  baton call --json --deadline=1s --exec baton-runner-module libm.so.6 -- 'f64 cos(f64)' f64:0\n",
        .run = run,
};

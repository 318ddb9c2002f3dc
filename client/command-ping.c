/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton ping: how long a runner takes to answer the smallest of all calls, over a lane of our own: one line for each, and a
 * table at the end, also when a signal or a failure ends it before.
 */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/call-output.h"
#include "client/command.h"
#include "client/exec.h"
#include "client/exit-code.h"
#include "client/latency.h"
#include "client/output.h"
#include "common/clock.h"
#include "proto/message.h"

#define METHOD "baton.Runner/Ping"

typedef struct PingCommand {
        Exec exec; /* first: work() is given it */
        PingOptions options;
        uint64_t sent;
        Latency latency;
} PingCommand;

static const struct {
        const char *name;
        double quantile;
} columns[] = { { "min", 0 }, { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "max", 1 } };

/* ---- what is printed ---- */

static int print_one(const PingCommand *c, uint64_t ns) {
        if (c->options.json)
                return 0;
        (void) printf("%s: seq=%" PRIu64 " time=%.3f ms\n", c->exec.name, c->sent, (double) ns / 1e6);
        return output_flush(stdout);
}

static int print_table(const PingCommand *c) {
        (void) printf("--- %s: %" PRIu64 " sent, %" PRIu64 " answered\n", c->exec.name, c->sent, c->latency.n);
        for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
                (void) printf("%9s", columns[i].name);
        (void) printf("\n");
        for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
                (void) printf("%9.3f", (double) latency_quantile(&c->latency, columns[i].quantile) / 1e6);
        (void) printf(" ms\n");
        return output_flush(stdout);
}

static int print_json(const PingCommand *c) {
        json_t *all = call_output_frame(STATUS_OK, exec_elapsed(&c->exec));
        int r;

        r = json_object_update_new(all, json_pack("{s:s, s:I, s:I}", "runner", c->exec.name, "sent",
                                                  (json_int_t) c->sent, "answered", (json_int_t) c->latency.n));
        for (size_t i = 0; i < ARRAY_SIZE(columns) && r == 0; i++) {
                char name[16];

                (void) snprintf(name, sizeof(name), "%s_ns", columns[i].name);
                r = json_object_set_new(all, name,
                                        json_integer((json_int_t) latency_quantile(&c->latency, columns[i].quantile)));
        }
        if (r == 0)
                return call_output_json(all);
        json_decref(all);
        return -ENOMEM;
}

/* ---- pings ---- */

static bool is_answer(const ControlCall *invocation, uint64_t nonce) {
        _cleanup_message_ Baton__Ping *ping =
                message_unpack(&baton__ping__descriptor, invocation->payload, invocation->size);

        return ping && ping->nonce == nonce;
}

/* judge() - the wait for one has ended. 0; or an exit code. */
static int judge(PingCommand *c, const ControlCall *invocation, int r, uint64_t ns) {
        char other[] = "the answer is that of another ping";
        ControlFailure failure = { .status = STATUS_INTERNAL, .message = other };

        if (r < 0)
                return exec_stopped(&c->exec, r);
        if (invocation->failure.status != STATUS_OK)
                return exec_failed(&c->exec, &invocation->failure, invocation->envelope);
        if (!is_answer(invocation, c->sent))
                return exec_failed(&c->exec, &failure, invocation->envelope);
        latency_add(&c->latency, ns);
        r = print_one(c, ns);
        return r < 0 ? exec_output_failed(&c->exec, r) : EXIT_CODE_OK;
}

static int ping(PingCommand *c) {
        Baton__Ping message = BATON__PING__INIT;
        CallParameters parameters = { .method = METHOD,
                                      .type = message.base.descriptor->name,
                                      .timeout_us = c->options.deadline_us };
        uint8_t packed[16];
        ControlCall invocation;
        uint64_t began;
        int r;

        message.nonce = ++c->sent;
        parameters.payload = packed;
        parameters.size = baton__ping__pack(&message, packed);
        began = latency_clock();
        control_call_begin(&invocation, c->exec.session.endpoint, c->exec.lane, &parameters);
        r = control_wait(&c->exec.session.control, &invocation);
        r = judge(c, &invocation, r, latency_clock() - began);
        control_call_deinit(&invocation);
        return r;
}

static int ping_all(PingCommand *c) {
        int code = EXIT_CODE_OK;

        while (code == EXIT_CODE_OK && c->sent < c->options.count) {
                uint64_t next = clock_after(clock_now(), c->options.interval_us);
                int r = 0;

                code = ping(c);
                if (code == EXIT_CODE_OK && c->sent < c->options.count)
                        r = control_wait_until(&c->exec.session.control, next, NULL);
                if (r < 0)
                        code = exec_stopped(&c->exec, r);
        }
        return code;
}

static int work(Exec *exec) {
        PingCommand *c = (PingCommand *) exec;
        int r = 0, code;

        if (exec_attach(exec, &code) < 0)
                return code;
        code = ping_all(c);
        if (!c->options.json && c->latency.n > 0)
                r = print_table(c);
        else if (c->options.json && code == EXIT_CODE_OK)
                r = print_json(c);
        return r < 0 && code == EXIT_CODE_OK ? exec_output_failed(exec, r) : code;
}

static int run(int argc, char **argv) {
        PingCommand c = { 0 };
        char error[OPTIONS_ERROR_MAX] = "";
        int code = command_parsed(&command_ping, ping_options_parse(argc, argv, &c.options, error), error);

        if (code == COMMAND_GO_ON) {
                c.exec.command = command_ping.name;
                c.exec.what = runner_options_what(&c.options.runner);
                c.exec.options = &c.options.runner;
                c.exec.json = c.options.json;
                c.exec.deadline_us = c.options.deadline_us;
                c.exec.work = work;
                code = exec_run(&c.exec);
        }
        ping_options_deinit(&c.options);
        return code;
}

const Command command_ping = {
        .name = "ping",
        .summary = "measure how soon a runner, or a program started for it, answers",
        .help = "Usage: baton ping [OPTION...] NAME\n"
                "       baton ping [OPTION...] --exec PROGRAM [ARGUMENT...]\n"
                "\n"
                "Attaches to the runner NAME, or to PROGRAM, started as one, so that the supervisor is not in\n"
                "between, and calls it again and again with the smallest of all calls, which every native runner\n"
                "answers. Prints each time, and a table at the end. One that does not answer ends it.\n"
                "\n"
                "  --exec                    PROGRAM is to be started; without it NAME is that of a runner that runs\n"
                "  --socket=PATH             the supervisor that has NAME ($BATON_SOCKET, else the usual place)\n"
                "  --count=N                 how many (10)\n"
                "  --interval=DURATION       from one to the next (100ms); 0: as soon as the last is answered\n"
                "  --deadline=DURATION       how long each may take (10s)\n"
                "  --json                    print one JSON object: status, code, time_us, runner, sent, answered,\n"
                "                            min_ns, p50_ns, p90_ns, p99_ns, max_ns\n"
                "  --start-timeout=DURATION  how long the runner may take to connect (10s)\n"
                "  --env=NAME=VALUE          a variable of the runner's environment; again for more\n"
                "  --name=NAME               the runner's name in messages (from PROGRAM's)\n"
                "  --help\n"
                "\n"
                "Exit codes: as those of call, see baton call --help.\n"
                "\n"
                "Examples:\n"
                "  baton ping --count=1 greeter\n"
                "  baton ping --exec baton-runner-echo\n"
                "  baton ping --count=10000 --interval=0 --json --exec baton-runner-echo | jq .p99_ns\n",
        .run = run,
};

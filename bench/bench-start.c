/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Starts: runners started, called once and stopped, per second, beside bare vfork+exec+wait of the same program (which
 * then only prints its version); and how soon a caller knows that its runner was killed in the middle of a call.
 *
 *         bench-start [--rounds N] [--runners N] [--json FILE]
 *
 * One private supervisor serves all of it, through the control interface, as `baton call` uses it. $BATON_PROGRAM and
 * $BATON_LIBEXEC name the build to measure; the echo runner is looked for beside $BATON_PROGRAM.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "client/control.h"
#include "client/private.h"
#include "common/parse.h"
#include "proto/message.h"
#include "proto/values.pb-c.h"

typedef struct Options {
        size_t rounds, runners;
        const char *json;
} Options;

typedef struct Bench {
        Endpoint *endpoint;
        Private *private;
        Control control;
        char echo[4096];
} Bench;

static void find_echo(Bench *bench) {
        const char *program = getenv("BATON_PROGRAM");
        const char *slash = program ? strrchr(program, '/') : NULL;

        if (!slash || !getenv("BATON_LIBEXEC"))
                die("set BATON_PROGRAM and BATON_LIBEXEC to the build to measure");
        (void) snprintf(bench->echo, sizeof(bench->echo), "%.*s/baton-runner-echo", (int) (slash - program), program);
}

static void bench_open(Bench *bench) {
        PrivateConfig config = { .software = "bench", .handler = &control_handler, .userdata = &bench->control };

        find_echo(bench);
        if (endpoint_new(&bench->endpoint) < 0)
                die("no endpoint");
        control_init(&bench->control, bench->endpoint);
        if (private_start(&bench->private, bench->endpoint, &config) < 0)
                die("no supervisor");
        control_attach(&bench->control, private_peer(bench->private));
}

static void bench_close(Bench *bench) {
        bench->private = private_free(bench->private);
        control_deinit(&bench->control);
        bench->endpoint = endpoint_free(bench->endpoint);
}

static ControlStarted *start_echo(Bench *bench) {
        ControlStart request = BATON__CONTROL__START_REQUEST__INIT;
        ControlFailure failure = { 0 };
        ControlStarted *started = NULL;

        request.program = control_bytes(bench->echo);
        if (control_start(&bench->control, &request, &started, &failure) != 0)
                die("a runner did not start: %s", failure.message ? failure.message : "");
        return started;
}

static void begin(Bench *bench, ControlCall *call, const char *name, const char *method, const void *data, size_t size,
                  const char *type) {
        const CallParameters parameters = { .method = method, .payload = data, .size = size, .type = type };

        control_begin_supervised(&bench->control, call, name, &parameters);
}

static void one_cycle(Bench *bench) {
        ControlStarted *started = start_echo(bench);
        ControlStopped *stopped = NULL;
        ControlFailure failure = { 0 };
        ControlCall call;

        begin(bench, &call, started->name, "echo.Echo/Unary", "x", 1, "");
        if (control_wait(&bench->control, &call) < 0 || call.failure.status != STATUS_OK)
                die("a call failed: %s", call.failure.message ? call.failure.message : "");
        control_call_deinit(&call);
        if (control_stop(&bench->control, started->name, 0, &stopped, &failure) != 0)
                die("a runner did not stop: %s", failure.message ? failure.message : "");
        (void) message_free(stopped);
        (void) message_free(started);
}

static void one_exec(const char *program) {
        char *argv[] = { (char *) program, (char *) "--version", NULL };
        int status, null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        pid_t pid = vfork();

        if (pid == 0) {
                (void) dup2(null, STDOUT_FILENO);
                execv(program, argv);
                _exit(127);
        }
        close(null);
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
                die("%s --version failed", program);
}

/* kill_latency() - from the SIGKILL to the caller's error, in milliseconds. */
static double kill_latency(Bench *bench) {
        Baton__Value value = BATON__VALUE__INIT, *values = &value;
        Baton__Values argument = BATON__VALUES__INIT;
        ControlStarted *started = start_echo(bench);
        ControlCall call;
        uint8_t packed[64];
        double killed, latency;
        size_t size;

        value.v_case = BATON__VALUE__V_U;
        value.u = 60000000;
        value.width = 64;
        argument.values = &values;
        argument.n_values = 1;
        size = baton__values__pack(&argument, packed);
        begin(bench, &call, started->name, "echo.Echo/Sleep", packed, size, "baton.Values");
        while (endpoint_dispatch(bench->endpoint, 1) == 0 && !peer_is_flushed(private_peer(bench->private)))
                ;
        /* The call must have reached the runner: a second one that is answered says so. */
        {
                ControlCall ping;

                begin(bench, &ping, started->name, "echo.Echo/Unary", "x", 1, "");
                (void) control_wait(&bench->control, &ping);
                control_call_deinit(&ping);
        }
        killed = measure_now();
        (void) kill(started->pid, SIGKILL);
        (void) control_wait(&bench->control, &call);
        latency = (measure_now() - killed) * 1e3;
        if (call.failure.status != STATUS_UNAVAILABLE)
                die("a call to a killed runner ended %s", status_name(call.failure.status));
        control_call_deinit(&call);
        (void) message_free(started);
        return latency;
}

static json_t *measure_cycles(Bench *bench, const Options *options) {
        Samples floor = { 0 }, baton = { 0 }, ratio = { 0 };
        json_t *object;

        one_cycle(bench);
        for (size_t i = 0; i < options->rounds; i++) {
                double start = measure_now(), a, b;

                for (size_t n = 0; n < options->runners; n++)
                        one_exec(bench->echo);
                a = (double) options->runners / (measure_now() - start);
                start = measure_now();
                for (size_t n = 0; n < options->runners; n++)
                        one_cycle(bench);
                b = (double) options->runners / (measure_now() - start);
                samples_add(&floor, a);
                samples_add(&baton, b);
                samples_add(&ratio, b / a);
        }
        (void) printf("runners started, called once, stopped; one after another\n");
        (void) printf("  per second             vfork+exec+wait %7.0f  baton %7.0f  ratio %5.2f\n",
                      samples_median(&floor), samples_median(&baton), samples_median(&ratio));
        object = json_pack("{s:s, s:f, s:f, s:f}", "case", "start, call, stop per second", "floor",
                           samples_median(&floor), "baton", samples_median(&baton), "ratio", samples_median(&ratio));
        samples_free(&floor);
        samples_free(&baton);
        samples_free(&ratio);
        return object;
}

static json_t *measure_kills(Bench *bench, const Options *options) {
        Samples latency = { 0 };
        json_t *object;

        for (size_t i = 0; i < options->rounds * 10; i++)
                samples_add(&latency, kill_latency(bench));
        (void) printf("runner killed in mid-call, until the caller has its error\n");
        (void) printf("  ms                     p50 %.2f  p99 %.2f  max %.2f\n", samples_median(&latency),
                      samples_quantile(&latency, .99), samples_quantile(&latency, 1));
        object = json_pack("{s:s, s:f, s:f, s:f}", "case", "killed in mid-call, ms until the error", "p50",
                           samples_median(&latency), "p99", samples_quantile(&latency, .99), "max",
                           samples_quantile(&latency, 1));
        samples_free(&latency);
        return object;
}

static void parse_options(int argc, char **argv, Options *options) {
        static const struct option longs[] = {
                { "rounds", required_argument, NULL, 'r' },
                { "runners", required_argument, NULL, 'n' },
                { "json", required_argument, NULL, 'j' },
                { NULL, 0, NULL, 0 },
        };
        uint64_t value;
        int option;

        while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (option == '?' || (option != 'j' && (parse_u64(optarg, 100000, &value) < 0 || value == 0)))
                        die("usage: bench-start [--rounds N] [--runners N] [--json FILE]");
                if (option == 'j')
                        options->json = optarg;
                else if (option == 'r')
                        options->rounds = value;
                else
                        options->runners = value;
        }
}

int main(int argc, char **argv) {
        Options options = { .rounds = 7, .runners = 50 };
        json_t *results = json_array();
        Bench bench = { 0 };

        parse_options(argc, argv, &options);
        (void) signal(SIGPIPE, SIG_IGN);
        bench_open(&bench);
        (void) json_array_append_new(results, measure_cycles(&bench, &options));
        (void) json_array_append_new(results, measure_kills(&bench, &options));
        bench_close(&bench);
        if (options.json)
                measure_write(options.json,
                              json_pack("{s:s, s:o, s:i, s:o}", "benchmark", "start", "environment",
                                        measure_environment(), "rounds", (int) options.rounds, "results", results));
        else
                json_decref(results);
        return 0;
}

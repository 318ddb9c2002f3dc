/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls: one channel between the supervisor's engine (libev) and a runner (libbaton), without a relay, beside the bare
 * loop of floor.c. 64-byte calls one at a time (p50 of the latency) and 256 at a time (rate), both programs on one
 * processor and on two. The two candidates alternate round by round, so that a slow minute of the machine hits both;
 * what counts is the median of the rounds' ratios.
 *
 *         bench-rpc [--rounds N] [--calls N] [--json FILE]
 */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <baton/runner.h>

#include "bench/floor.h"
#include "bench/measure.h"
#include "common/fd.h"
#include "common/parse.h"
#include "supervisor/peer-loop.h"

#define PAYLOAD    64
#define WINDOW_MAX 256

typedef struct Options {
        size_t rounds, calls;
        const char *json;
} Options;

typedef struct Case {
        const char *name;
        size_t window;
        int cpu_client, cpu_server;
} Case;

static const Case cases[] = {
        { "one core, 1 in flight", 1, 0, 0 },
        { "one core, 256 in flight", 256, 0, 0 },
        { "two cores, 1 in flight", 1, 0, 1 },
        { "two cores, 256 in flight", 256, 0, 1 },
};

/* What one round of one candidate says. */
typedef struct Round {
        double p50_us, rate, cpu_us;
} Round;

/* ---- the runner ---- */

static void on_echo(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        (void) baton_call_answer(call, "", data, size);
}

static int run_runner(const char *path, int cpu) {
        struct baton_runner_options options = { .size = sizeof(options), .bootstrap = path };
        struct baton_runner *runner;

        measure_pin(cpu);
        if (baton_runner_new(&runner, &options) < 0 ||
            baton_runner_add_method(runner, "echo.Echo/Unary", on_echo, NULL) < 0)
                return 1;
        (void) baton_runner_run(runner);
        baton_runner_free(runner);
        return 0;
}

/* ---- the supervisor's side ---- */

typedef struct Caller {
        Loop *loop;
        Peer *peer;
        size_t n, sent, answered, window;
        Samples *latency;
        double started;
        bool ready;
} Caller;

static void send_calls(Caller *caller);

static void on_answer(Call *call, const Answer *answer, void *userdata) {
        Caller *caller = userdata;

        (void) call;
        if (answer->status != STATUS_OK || answer->size != PAYLOAD)
                die("a call failed: %s", answer->message);
        caller->answered++;
        if (caller->latency)
                samples_add(caller->latency, measure_now() - caller->started);
        if (caller->answered == caller->n)
                loop_stop(caller->loop);
        else
                send_calls(caller);
}

static void send_calls(Caller *caller) {
        static uint8_t payload[PAYLOAD];
        CallParameters parameters = { .method = "echo.Echo/Unary", .payload = payload, .size = sizeof(payload) };

        while (caller->sent < caller->n && caller->sent - caller->answered < caller->window) {
                caller->started = caller->latency ? measure_now() : 0;
                if (call_start(caller->peer, &parameters, on_answer, caller, NULL) < 0)
                        die("a call could not be started");
                caller->sent++;
        }
}

static void on_ready(Peer *peer, bool renewed) {
        Caller *caller = peer_userdata(peer);

        (void) renewed;
        caller->ready = true;
        loop_stop(caller->loop);
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        (void) peer;
        (void) status;
        die("the runner has gone: %s", reason);
}

static const PeerHandler handler = { .ready = on_ready, .ended = on_ended };

/* bootstrap_listen() - a socket in a directory of its own, whose path is left in @path. */
static int bootstrap_listen(char *path, size_t size) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char directory[] = "/tmp/baton-bench-XXXXXX";
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || !mkdtemp(directory))
                die("no socket or directory: %s", strerror(errno));
        (void) snprintf(path, size, "%s/bootstrap", directory);
        (void) memcpy(address.sun_path, path, strlen(path) + 1);
        if (bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 1) < 0)
                die("cannot listen at %s: %s", path, strerror(errno));
        return fd;
}

static void bootstrap_remove(char *path) {
        (void) unlink(path);
        *strrchr(path, '/') = '\0';
        (void) rmdir(path);
}

static void caller_run(Caller *caller, size_t n, size_t window, Samples *latency) {
        caller->n = n;
        caller->sent = caller->answered = 0;
        caller->window = window;
        caller->latency = latency;
        send_calls(caller);
        loop_run(caller->loop);
}

static void measure_baton(const Case *c, size_t calls, Round *ret) {
        PeerConfig config = {
                .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .software = "bench", .instance = 1
        };
        Caller caller = { 0 };
        Samples latency = { 0 };
        PeerLoopParameters parameters = { .config = &config, .handler = &handler, .userdata = &caller };
        char path[128];
        int listener = bootstrap_listen(path, sizeof(path)), lane;
        double start, cpu;
        pid_t pid = fork();

        if (pid == 0)
                _exit(run_runner(path, c->cpu_server));
        measure_pin(c->cpu_client);
        lane = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (lane < 0 || loop_new(&caller.loop) < 0)
                die("no lane or loop");
        parameters.loop = caller.loop;
        if (peer_loop_new(&caller.peer, &parameters, lane) < 0)
                die("no peer");
        loop_run(caller.loop);
        caller_run(&caller, calls / 10, c->window, NULL);
        cpu = measure_cpu();
        start = measure_now();
        caller_run(&caller, calls, c->window, c->window == 1 ? &latency : NULL);
        ret->rate = (double) calls / (measure_now() - start);
        ret->p50_us = samples_median(&latency) * 1e6;
        samples_free(&latency);
        (void) peer_free(caller.peer);
        (void) loop_free(caller.loop);
        (void) waitpid(pid, NULL, 0);
        ret->cpu_us = (measure_cpu() - cpu) / (double) calls * 1e6;
        close(listener);
        bootstrap_remove(path);
}

static void floor_calls(const CandidateOptions *options, size_t n, Samples *latency) {
        static uint8_t payload[PAYLOAD];
        double started[WINDOW_MAX];
        Exchange exchange = { .options = options,
                              .payload = payload,
                              .n = n,
                              .sample_every = latency ? 1 : n,
                              .started = started,
                              .latency = latency };

        floor_run(&exchange);
}

static void measure_floor(const Case *c, size_t calls, Round *ret) {
        CandidateOptions options = { .size = PAYLOAD, .answer = PAYLOAD, .window = c->window };
        Samples latency = { 0 };
        double start, cpu;
        int fds[2];
        pid_t pid;

        if (fd_socketpair(SOCK_STREAM, fds) < 0)
                die("no socketpair");
        pid = fork();
        if (pid == 0) {
                close(fds[0]);
                measure_pin(c->cpu_server);
                floor_serve(fds[1], PAYLOAD);
                _exit(0);
        }
        close(fds[1]);
        measure_pin(c->cpu_client);
        floor_open(fds[0]);
        floor_calls(&options, calls / 10, NULL);
        cpu = measure_cpu();
        start = measure_now();
        floor_calls(&options, calls, c->window == 1 ? &latency : NULL);
        ret->rate = (double) calls / (measure_now() - start);
        ret->p50_us = samples_median(&latency) * 1e6;
        samples_free(&latency);
        floor_close();
        close(fds[0]);
        (void) waitpid(pid, NULL, 0);
        ret->cpu_us = (measure_cpu() - cpu) / (double) calls * 1e6;
}

/* ---- the table ---- */

typedef struct Column {
        Samples floor, baton, ratio;
} Column;

static void column_add(Column *column, double floor, double baton) {
        samples_add(&column->floor, floor);
        samples_add(&column->baton, baton);
        samples_add(&column->ratio, baton / floor);
}

static json_t *column_json(Column *column) {
        return json_pack("{s:f, s:f, s:f}", "floor", samples_median(&column->floor), "baton",
                         samples_median(&column->baton), "ratio", samples_median(&column->ratio));
}

static void column_print(const char *name, const char *unit, Column *column) {
        (void) printf("  %-22s floor %10.2f %-5s baton %10.2f %-5s ratio %5.2f\n", name,
                      samples_median(&column->floor), unit, samples_median(&column->baton), unit,
                      samples_median(&column->ratio));
}

static json_t *run_case(const Case *c, const Options *options) {
        Column p50 = { 0 }, rate = { 0 }, cpu = { 0 };
        json_t *object = json_pack("{s:s, s:i, s:i}", "case", c->name, "window", (int) c->window, "payload", PAYLOAD);

        for (size_t i = 0; i < options->rounds; i++) {
                Round floor = { 0 }, baton = { 0 };
                size_t calls = c->window > 1 ? options->calls * 10 : options->calls;

                measure_floor(c, calls, &floor);
                measure_baton(c, calls, &baton);
                if (c->window == 1)
                        column_add(&p50, floor.p50_us, baton.p50_us);
                column_add(&rate, floor.rate / 1e3, baton.rate / 1e3);
                column_add(&cpu, floor.cpu_us, baton.cpu_us);
        }
        (void) printf("%s, %d bytes\n", c->name, PAYLOAD);
        if (c->window == 1) {
                column_print("latency, p50", "us", &p50);
                (void) json_object_set_new(object, "latency_p50_us", column_json(&p50));
        }
        column_print("calls per second", "k/s", &rate);
        column_print("processor per call", "us", &cpu);
        (void) json_object_set_new(object, "calls_per_second_thousands", column_json(&rate));
        (void) json_object_set_new(object, "cpu_per_call_us", column_json(&cpu));
        return object;
}

static void parse_options(int argc, char **argv, Options *options) {
        static const struct option longs[] = {
                { "rounds", required_argument, NULL, 'r' },
                { "calls", required_argument, NULL, 'c' },
                { "json", required_argument, NULL, 'j' },
                { NULL, 0, NULL, 0 },
        };
        uint64_t value;
        int option;

        while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (option == '?' || (option != 'j' && (parse_u64(optarg, 100000000, &value) < 0 || value == 0)))
                        die("usage: bench-rpc [--rounds N] [--calls N] [--json FILE]");
                if (option == 'j')
                        options->json = optarg;
                else if (option == 'r')
                        options->rounds = value;
                else
                        options->calls = value;
        }
}

int main(int argc, char **argv) {
        Options options = { .rounds = 7, .calls = 50000 };
        json_t *results = json_array();

        parse_options(argc, argv, &options);
        (void) signal(SIGPIPE, SIG_IGN);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                (void) json_array_append_new(results, run_case(&cases[i], &options));
        if (options.json)
                measure_write(options.json,
                              json_pack("{s:s, s:o, s:i, s:o}", "benchmark", "rpc", "environment",
                                        measure_environment(), "rounds", (int) options.rounds, "results", results));
        else
                json_decref(results);
        return 0;
}

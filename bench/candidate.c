/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The frame of a candidate: command line, a server in a child of its own, processors, warm-up, figures. Processor time
 * is read from the clocks of both processes (all their threads) around the measured part only: start-up, connection and
 * warm-up are not in it. Where the client dies, the server is killed by the kernel.
 */

#include "bench/candidate.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLED_FROM 16u /* in flight: from there on only one call of as many is timed */
#define WARM_WINDOWS 4u  /* the warm-up has at least so many calls for each in flight: memory is there then */

/* What is measured of a process. */
typedef struct Figures {
        double wall, cpu_client, cpu_server;
} Figures;

/* ---- meeting ---- */

void meeting_announce(const Meeting *meeting) {
        if (write(meeting->fd, "", 1) != 1)
                die("cannot tell the client that the server listens: %s", strerror(errno));
}

void meeting_await(const Meeting *meeting) {
        char byte;

        if (read(meeting->fd, &byte, 1) != 1)
                die("the server has ended before it listened");
}

void meeting_await_end(const Meeting *meeting) {
        char byte;

        while (read(meeting->fd, &byte, 1) > 0 || errno == EINTR)
                ;
}

/* ---- the command line ---- */

static void usage(const Candidate *candidate) {
        die("try candidate-%s --help", candidate->name);
}

static void help(const Candidate *candidate) {
        (void) printf("usage: candidate-%s --size BYTES --window W --calls N --client-cpu A --server-cpu B\n"
                      "               [--answer BYTES]\n"
                      "       candidate-%s --version | --help\n"
                      "\n"
                      "Starts a server, warms up, makes N calls of BYTES bytes each with W of them in flight, and\n"
                      "prints one line of JSON: times in microseconds, processor time of both sides.\n"
                      "\n"
                      "  --size BYTES     that each call carries\n"
                      "  --answer BYTES   that each answer carries, at most as many (default: as many)\n"
                      "  --window W       calls in flight at once\n"
                      "  --calls N        to be measured; the warm-up is not among them\n"
                      "  --client-cpu A   the processor of the client\n"
                      "  --server-cpu B   the processor of the server\n",
                      candidate->name, candidate->name);
        exit(EXIT_SUCCESS);
}

static size_t parse_number(const Candidate *candidate, const char *text) {
        char *end;
        unsigned long value;

        errno = 0;
        value = strtoul(text, &end, 10);
        if (errno || end == text || *end || *text == '-')
                usage(candidate);
        return value;
}

static void parse_options(const Candidate *candidate, int argc, char **argv, CandidateOptions *options) {
        static const struct option longs[] = {
                { "size", required_argument, NULL, 's' },
                { "window", required_argument, NULL, 'w' },
                { "calls", required_argument, NULL, 'n' },
                { "client-cpu", required_argument, NULL, 'c' },
                { "server-cpu", required_argument, NULL, 'r' },
                { "answer", required_argument, NULL, 'a' },
                { "version", no_argument, NULL, 'v' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        int option;

        options->answer = SIZE_MAX;
        while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                size_t value = strchr("swncra", option) ? parse_number(candidate, optarg) : 0;

                if (option == 'h')
                        help(candidate);
                if (option == 'v') {
                        (void) puts(candidate->version());
                        exit(EXIT_SUCCESS);
                }
                if (option == 's')
                        options->size = value;
                else if (option == 'w')
                        options->window = value;
                else if (option == 'n')
                        options->calls = value;
                else if (option == 'c')
                        options->client_cpu = (int) (value % INT_MAX);
                else if (option == 'r')
                        options->server_cpu = (int) (value % INT_MAX);
                else if (option == 'a')
                        options->answer = value;
                else
                        usage(candidate);
        }
        if (options->answer == SIZE_MAX)
                options->answer = options->size;
        if (optind != argc || !options->size || !options->window || !options->calls || options->answer > options->size)
                usage(candidate);
}

/* ---- both processes ---- */

static void start_server(const Candidate *candidate, const CandidateOptions *options, Meeting *meeting) {
        pid_t parent = getpid();
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                die("no socketpair: %s", strerror(errno));
        meeting->server = fork();
        if (meeting->server < 0)
                die("cannot fork: %s", strerror(errno));
        if (meeting->server == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(EXIT_FAILURE);
                (void) close(fds[0]);
                meeting->fd = fds[1];
                measure_pin(options->server_cpu);
                candidate->serve(options, meeting);
                _exit(EXIT_SUCCESS);
        }
        (void) close(fds[1]);
        meeting->fd = fds[0];
}

static void end_server(const Candidate *candidate, const Meeting *meeting) {
        if (!candidate->serve)
                return;
        (void) close(meeting->fd);
        (void) waitpid(meeting->server, NULL, 0);
}

static double process_cpu(pid_t pid) {
        struct timespec time;
        clockid_t clock;

        if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) < 0)
                die("the server has ended early");
        return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

static void run(const Candidate *candidate, Exchange *exchange, size_t n, Samples *latency) {
        exchange->n = n;
        exchange->sent = exchange->answered = 0;
        exchange->latency = latency;
        candidate->run(exchange);
}

static Figures measure(const Candidate *candidate, Exchange *exchange, pid_t server, Samples *latency) {
        const CandidateOptions *options = exchange->options;
        size_t warm_up = options->calls / 10, least = options->window * WARM_WINDOWS;
        Figures before, figures;

        run(candidate, exchange, warm_up > least ? warm_up : least, NULL);
        before = (Figures){ measure_now(), process_cpu(getpid()), process_cpu(server) };
        run(candidate, exchange, options->calls, latency);
        figures = (Figures){ measure_now(), process_cpu(getpid()), process_cpu(server) };
        figures.wall -= before.wall;
        figures.cpu_client -= before.cpu_client;
        figures.cpu_server -= before.cpu_server;
        return figures;
}

static void print(const Candidate *candidate, const CandidateOptions *options, const Figures *figures,
                  Samples *latency) {
        double n = (double) options->calls, rate = n / figures->wall;

        (void) printf("{\"candidate\": \"%s\", \"p50_us\": %.3f, \"p99_us\": %.3f, \"rate\": %.1f, "
                      "\"cpu_us_per_call\": %.4f, \"cpu_us_client\": %.4f, \"cpu_us_server\": %.4f, "
                      "\"mb_per_s\": %.2f}\n",
                      candidate->name, samples_quantile(latency, .5) * 1e6, samples_quantile(latency, .99) * 1e6, rate,
                      (figures->cpu_client + figures->cpu_server) / n * 1e6, figures->cpu_client / n * 1e6,
                      figures->cpu_server / n * 1e6, rate * (double) (options->size + options->answer) / 1e6);
}

int candidate_main(const Candidate *candidate, int argc, char **argv) {
        CandidateOptions options = { 0 };
        char directory[] = "/tmp/baton-bench-XXXXXX", path[64];
        Exchange exchange = { .options = &options };
        Samples latency = { 0 };
        Meeting meeting = { .fd = -1, .path = path };
        uint8_t *payload;
        Figures figures;

        parse_options(candidate, argc, argv, &options);
        (void) signal(SIGPIPE, SIG_IGN);
        payload = calloc(1, options.size + 1);
        exchange.started = calloc(options.window, sizeof(double));
        if (!payload || !exchange.started || !mkdtemp(directory))
                die("no memory or no folder: %s", strerror(errno));
        memset(payload, 'b', options.size);
        exchange.payload = payload;
        exchange.sample_every = options.window < SAMPLED_FROM ? 1 : SAMPLED_FROM;
        (void) snprintf(path, sizeof(path), "%s/socket", directory);

        if (candidate->serve)
                start_server(candidate, &options, &meeting);
        measure_pin(options.client_cpu);
        candidate->open(&options, &meeting);
        figures = measure(candidate, &exchange, meeting.server, &latency);
        candidate->close();
        end_server(candidate, &meeting);
        (void) unlink(path);
        (void) rmdir(directory);
        print(candidate, &options, &figures, &latency);
        samples_free(&latency);
        free(exchange.started);
        free(payload);
        return EXIT_SUCCESS;
}

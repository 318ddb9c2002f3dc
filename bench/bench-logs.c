/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Logs: lines per second from a pipe into a file, and the processor time that this takes, of baton's log (scratch, ring and
 * file, on the supervisor's loop), beside other programs that do the same: cat, which only copies, s6-log and svlogd, with
 * time stamps as baton has them. One writer, which writes as fast as it is read; two processors where there are two.
 *
 *         bench-logs [--rounds N] [--mebibytes N] [--directory PATH] [--json FILE]
 *
 * Files are made in PATH, a fresh folder of the system's for temporary files by default, and never synced. What is not
 * installed is left out, with a word.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "common/macro.h"
#include "supervisor/log-store.h"

typedef struct Options {
        size_t rounds, mebibytes;
        char directory[256];
        const char *json;
} Options;

typedef struct Candidate {
        const char *name, *program; /* NULL: baton's own */
        const char *arguments[8];   /* "%" is the directory */
} Candidate;

static const Candidate candidates[] = {
        { "baton", NULL, { NULL } },
        { "cat", "cat", { "cat", NULL } },
        { "s6-log", "s6-log", { "s6-log", "-b", "T", "s100000000", "n3", "%", NULL } },
        { "svlogd", "svlogd", { "svlogd", "-ttt", "%", NULL } },
};

/* ---- who reads ---- */

static void check_end(LoopTimer *timer);

typedef struct Own {
        Loop *loop;
        LogInput input;
        LoopTimer timer;
} Own;

static void check_end(LoopTimer *timer) {
        Own *own = CONTAINER_OF(timer, Own, timer);

        if (own->input.pipes[LOG_SOURCE_STDOUT].ended)
                loop_stop(own->loop);
        else
                loop_timer_set(own->loop, timer, clock_now() + 1000);
}

static void read_with_baton(const char *directory) {
        Own own = { .timer = LOOP_TIMER_NULL(check_end) };
        LogConfig config = LOG_CONFIG_NULL;
        LogStore *store;
        RunnerLog *log;

        config.directory = (char *) directory;
        config.max_size = 100000000;
        config.keep = 3;
        if (loop_new(&own.loop) < 0 || log_store_new(&store, own.loop, NULL) < 0 ||
            runner_log_new(&log, store, "bench", &config) < 0)
                _exit(EXIT_FAILURE);
        log_input_init(&own.input, log, 1);
        if (log_input_adopt(&own.input, LOG_SOURCE_STDOUT, fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)) < 0 ||
            fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0)
                _exit(EXIT_FAILURE);
        loop_timer_set(own.loop, &own.timer, clock_now());
        loop_run(own.loop);
        log_input_deinit(&own.input);
        runner_log_free(log);
        log_store_free(store);
        loop_free(own.loop);
        _exit(EXIT_SUCCESS);
}

static void become(const Candidate *candidate, const char *directory) {
        char *argv[ARRAY_SIZE(candidate->arguments)] = { NULL };
        char path[512];

        measure_pin(1);
        if (!candidate->program)
                read_with_baton(directory);
        (void) snprintf(path, sizeof(path), "%s/out", directory);
        if (strcmp(candidate->program, "cat") == 0) {
                int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

                if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0)
                        _exit(EXIT_FAILURE);
        }
        for (size_t i = 0; candidate->arguments[i]; i++)
                argv[i] = (char *) (strcmp(candidate->arguments[i], "%") == 0 ? directory : candidate->arguments[i]);
        (void) execvp(candidate->program, argv);
        _exit(127);
}

/* ---- who writes ---- */

static const char line[] =
        "2026-11-21 03:31:57 INFO  request 4711 from 192.0.2.17: GET /index.html 200 in 12.3 ms, ok\n";

/* write_lines() - as many as there go into so many mebibytes. Returns how many, or 0: nobody reads. */
static size_t write_lines(int fd, size_t mebibytes) {
        static char buffer[64 * (sizeof(line) - 1)];
        size_t n = 0;

        for (size_t i = 0; i < sizeof(buffer); i += sizeof(line) - 1)
                memcpy(buffer + i, line, sizeof(line) - 1);
        for (size_t total = 0; total < mebibytes << 20; total += sizeof(buffer), n += 64)
                for (size_t done = 0; done < sizeof(buffer);) {
                        ssize_t written = write(fd, buffer + done, sizeof(buffer) - done);

                        if (written <= 0)
                                return 0;
                        done += (size_t) written;
                }
        return n;
}

typedef struct Result {
        Samples lines, cpu; /* per second; microseconds per mebibyte */
} Result;

static void remove_files(const char *directory) {
        char command[512];

        (void) snprintf(command, sizeof(command), "rm -rf '%s'/*", directory);
        if (system(command) != 0)
                die("cannot empty %s", directory);
}

/* measure_one() - one round. False: the program is not there. */
static bool measure_one(const Candidate *candidate, const Options *options, Result *result) {
        struct rusage usage;
        int fds[2], status;
        double begin, seconds, cpu;
        size_t n;
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                die("pipe2: %s", strerror(errno));
        pid = fork();
        if (pid == 0) {
                if (dup2(fds[0], STDIN_FILENO) < 0)
                        _exit(EXIT_FAILURE);
                close(fds[0]);
                close(fds[1]);
                become(candidate, options->directory);
        }
        close(fds[0]);
        begin = measure_now();
        n = write_lines(fds[1], options->mebibytes);
        close(fds[1]);
        if (wait4(pid, &status, 0, &usage) != pid)
                die("wait4: %s", strerror(errno));
        seconds = measure_now() - begin;
        remove_files(options->directory);
        if (n == 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return false;
        cpu = (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
              (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
        samples_add(&result->lines, (double) n / seconds);
        samples_add(&result->cpu, cpu / (double) options->mebibytes);
        return true;
}

/* ---- from start to end ---- */

static void parse_options(int argc, char **argv, Options *options) {
        static const struct option known[] = {
                { "rounds", required_argument, NULL, 'r' },
                { "mebibytes", required_argument, NULL, 'm' },
                { "directory", required_argument, NULL, 'd' },
                { "json", required_argument, NULL, 'j' },
                { NULL, 0, NULL, 0 },
        };
        int c;

        while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0)
                switch (c) {
                case 'r':
                        options->rounds = strtoul(optarg, NULL, 10);
                        break;
                case 'm':
                        options->mebibytes = strtoul(optarg, NULL, 10);
                        break;
                case 'd':
                        (void) snprintf(options->directory, sizeof(options->directory), "%s/bench-logs-XXXXXX",
                                        optarg);
                        break;
                case 'j':
                        options->json = optarg;
                        break;
                default:
                        die("usage: bench-logs [--rounds N] [--mebibytes N] [--directory PATH] [--json FILE]");
                }
        if (!mkdtemp(options->directory))
                die("mkdtemp(%s): %s", options->directory, strerror(errno));
}

int main(int argc, char **argv) {
        Options options = { .rounds = 5, .mebibytes = 64, .directory = "/tmp/bench-logs-XXXXXX" };
        Result results[ARRAY_SIZE(candidates)] = { 0 };
        bool present[ARRAY_SIZE(candidates)];
        json_t *json = json_array();

        parse_options(argc, argv, &options);
        (void) signal(SIGPIPE, SIG_IGN);
        measure_pin(0);
        for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
                present[i] = true;
        /* Round by round, so that what disturbs the machine disturbs all of them. */
        for (size_t round = 0; round < options.rounds; round++)
                for (size_t i = 0; i < ARRAY_SIZE(candidates); i++)
                        present[i] = present[i] && measure_one(&candidates[i], &options, &results[i]);
        (void) printf("%zu bytes a line, %zu MiB, median of %zu rounds\n%-10s %14s %16s\n", sizeof(line) - 1,
                      options.mebibytes, options.rounds, "", "lines/s", "CPU us per MiB");
        for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
                if (!present[i]) {
                        (void) printf("%-10s left out: it is not installed, or failed\n", candidates[i].name);
                        continue;
                }
                (void) printf("%-10s %14.0f %16.0f\n", candidates[i].name, samples_median(&results[i].lines),
                              samples_median(&results[i].cpu));
                (void) json_array_append_new(json, json_pack("{s:s, s:f, s:f}", "name", candidates[i].name,
                                                             "lines_per_second", samples_median(&results[i].lines),
                                                             "cpu_us_per_mebibyte", samples_median(&results[i].cpu)));
        }
        for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
                samples_free(&results[i].lines);
                samples_free(&results[i].cpu);
        }
        (void) rmdir(options.directory);
        if (options.json)
                measure_write(options.json,
                              json_pack("{s:s, s:o, s:i, s:o}", "benchmark", "logs", "environment",
                                        measure_environment(), "rounds", (int) options.rounds, "results", json));
        else
                json_decref(json);
        return 0;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The command lines of the commands that start runners, as values. Nothing is printed, no file is looked at. */

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

#define OPTIONS_ERROR_MAX 256

/* Outcomes of the parsers, besides 0 and a negative errno. */
enum {
        OPTIONS_HELP = 1, /* --help was given */
};

/* A runner to be started, or one that runs. Strings are argv's. */
typedef struct RunnerOptions {
        bool exec;          /* --exec was given: it is to be started, as the fields below say */
        const char *target; /* not so: the name of one that runs ... */
        const char *socket; /* ... behind this socket; NULL: where the environment says */
        const char *name;   /* NULL: made from the program's */
        const char *program;
        char **arguments;
        size_t n_arguments;
        char **environment; /* NAME=VALUE; the array is ours */
        size_t n_environment;
        uint64_t start_timeout_us; /* 0: the supervisor's default */
} RunnerOptions;

/* A pair that goes with a call. */
typedef struct Metadata {
        char *key;         /* ours */
        const char *value; /* argv's */
} Metadata;

typedef struct CallOptions {
        RunnerOptions runner;
        const char *method;
        char **values;
        size_t n_values;
        const char *type;     /* of a raw request; NULL: none */
        uint64_t deadline_us; /* 0: none */
        uint64_t max_frame;   /* bytes, of an answer; 0: the default */
        Metadata *metadata;
        size_t n_metadata;
        bool json, raw, stream;
} CallOptions;

typedef struct RunOptions {
        RunnerOptions runner;
        uint64_t stop_timeout_us; /* 0: the supervisor's default */
        bool native, prefix;
        bool tty, no_tty; /* neither: where we have one ourselves */
} RunOptions;

typedef struct PingOptions {
        RunnerOptions runner;
        uint64_t count, interval_us; /* from one ping to the next; 0: at once */
        uint64_t deadline_us;        /* of each */
        bool json;
} PingOptions;

typedef struct MethodsOptions {
        RunnerOptions runner;
        bool json;
} MethodsOptions;

#define BENCH_LIST_MAX      8
#define BENCH_IN_FLIGHT_MAX 4096
#define BENCH_OPEN_MAX      (UINT64_C(64) * 1024 * 1024) /* bytes of requests, all together */
#define BENCH_SIZE_MAX      (UINT64_C(64) * 1024 * 1024)

typedef struct BenchList {
        uint64_t values[BENCH_LIST_MAX];
        size_t n;
} BenchList;

typedef struct BenchOptions {
        RunnerOptions runner;
        const char *method;
        BenchList sizes, in_flight; /* each with each; where in_flight was not given, while BENCH_OPEN_MAX are open */
        bool in_flight_given;
        uint64_t duration_us; /* of each */
        uint64_t max_frame;   /* bytes, of an answer; 0: the default */
        bool json;
} BenchOptions;

enum { CONTROL_BATCH_MAX = 256 /* runners of one batch */ };

/* The command lines of the commands that go to a supervisor that runs. */
typedef struct ControlOptions {
        const char *socket; /* NULL: where the environment says */
        bool json, no_wait, strict, dry_run, follow, watch, check;
        const char *exec;         /* NULL: not given */
        const char *fault;        /* NULL: none */
        uint64_t timeout_us;      /* of the command; 0: none */
        uint64_t stop_timeout_us; /* 0: as configured */
        uint64_t since;           /* number of an event; 0: the oldest */
        uint64_t since_us;        /* wall clock; 0: from whenever */
        bool keeper, force;       /* what is replaced, and how */
        bool all, changed;        /* which runners */
        size_t batch;             /* 0: not given */
        char **operands;          /* argv's */
        size_t n_operands;
} ControlOptions;

/* Options besides --socket and --help. */
enum {
        CONTROL_TAKES_JSON = 1 << 0,
        CONTROL_TAKES_WAIT = 1 << 1, /* --wait, --no-wait, --timeout */
        CONTROL_TAKES_STOP_TIMEOUT = 1 << 2,
        CONTROL_TAKES_STRICT = 1 << 3,
        CONTROL_TAKES_DRY_RUN = 1 << 4,
        CONTROL_TAKES_FOLLOW = 1 << 5, /* -f, --since */
        CONTROL_TAKES_WATCH = 1 << 6,
        CONTROL_TAKES_TAKEOVER = 1 << 7, /* --exec, --check, --fault, --timeout, --keeper, --force */
        CONTROL_TAKES_TIMEOUT = 1 << 8,
        CONTROL_TAKES_PROGRAM = 1 << 9,  /* --exec, --check */
        CONTROL_TAKES_BATCHES = 1 << 10, /* --all, --batch, --changed, --force */
};

typedef struct ControlSyntax {
        unsigned options;
        size_t min, max;      /* operands */
        const char *operands; /* what they are, for a message */
} ControlSyntax;

/* control_options_parse() - as those below; options may stand between the operands, and behind them. */
int control_options_parse(const ControlSyntax *syntax, int argc, char **argv, ControlOptions *ret_options,
                          char *error);

/*
 * ..._options_parse() - the arguments after argv[0]. 0; OPTIONS_HELP; -EINVAL with one line in
 * @error, of OPTIONS_ERROR_MAX bytes; -ENOMEM. The result is to be deinit()ed on every path.
 */
int call_options_parse(int argc, char **argv, CallOptions *ret_options, char *error);
int run_options_parse(int argc, char **argv, RunOptions *ret_options, char *error);
int ping_options_parse(int argc, char **argv, PingOptions *ret_options, char *error);
int methods_options_parse(int argc, char **argv, MethodsOptions *ret_options, char *error);
int bench_options_parse(int argc, char **argv, BenchOptions *ret_options, char *error);
/* runner_options_what() - what messages call the runner: its program, or its name. */
static inline const char *runner_options_what(const RunnerOptions *options) {
        return options->exec ? options->program : options->target;
}

void call_options_deinit(CallOptions *options);
void run_options_deinit(RunOptions *options);
void ping_options_deinit(PingOptions *options);
void methods_options_deinit(MethodsOptions *options);
void bench_options_deinit(BenchOptions *options);

/*
 * options_next() - the next option of @options, as getopt_long() gives it, or -1 after the last, with the first argument
 * at optind. Options end at the first argument that is none. '?' with one line in @error: no such option, or an argument
 * that is missing or too many. Call options_begin() first.
 */
void options_begin(void);
int options_next(int argc, char **argv, const struct option *options, char *error);

/* options_next_of() - the same with letters, too: @letters as of getopt(), behind "+:". */
int options_next_of(int argc, char **argv, const char *letters, const struct option *options, char *error);

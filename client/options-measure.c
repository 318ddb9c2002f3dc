/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Command lines of the commands that ask a runner about itself: ping, methods, bench. What is not given has its default
 * from here, so that what a command does is all in its options.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/options-internal.h"
#include "common/clock.h"
#include "common/parse.h"

/* ---- ping ---- */

static const struct option ping_options[] = {
        { "count", required_argument, NULL, OPTION_COUNT },
        { "deadline", required_argument, NULL, OPTION_DEADLINE },
        { "env", required_argument, NULL, OPTION_ENV },
        { "exec", no_argument, NULL, OPTION_EXEC },
        { "help", no_argument, NULL, OPTION_HELP },
        { "interval", required_argument, NULL, OPTION_INTERVAL },
        { "json", no_argument, NULL, OPTION_JSON },
        { "name", required_argument, NULL, OPTION_NAME },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { NULL, 0, NULL, 0 },
};

/* take_interval() - a duration that may be 0: as fast as it goes. */
static int take_interval(uint64_t *ret_us, char *error) {
        if (parse_duration(optarg, ret_us) < 0)
                return ERROR(error, "--interval wants a duration, such as 0, 500ms or 1s, not '%.100s'", optarg);
        return 0;
}

static int take_count(uint64_t *ret_count, char *error) {
        if (parse_u64(optarg, UINT32_MAX, ret_count) < 0 || *ret_count == 0)
                return ERROR(error, "--count wants a number from 1 to 4294967295, not '%.100s'", optarg);
        return 0;
}

static int ping_option(void *userdata, int option, char *error) {
        PingOptions *options = userdata;

        switch (option) {
        case OPTION_COUNT:
                return take_count(&options->count, error);
        case OPTION_DEADLINE:
                return options_take_duration("deadline", &options->deadline_us, error);
        case OPTION_INTERVAL:
                return take_interval(&options->interval_us, error);
        case OPTION_JSON:
                options->json = true;
                return 0;
        default:
                return options_take_runner(&options->runner, option, error);
        }
}

/* which_alone() - NAME, or PROGRAM [ARGUMENT...], and nothing else. */
static int which_alone(RunnerOptions *runner, char **arguments, size_t n, char *error) {
        ssize_t which = options_take_which(runner, arguments, n, error);

        if (which < 0)
                return (int) which;
        return (size_t) which + 1 < n ? ERROR(error, "it takes nothing after '--'") : 0;
}

int ping_options_parse(int argc, char **argv, PingOptions *ret_options, char *error) {
        int r;

        *ret_options =
                (PingOptions){ .count = 10, .interval_us = 100 * USEC_PER_MSEC, .deadline_us = 10 * USEC_PER_SEC };
        r = options_parse(argc, argv, NO_LETTERS, ping_options, ping_option, ret_options, error);
        return r != 0 ? r : which_alone(&ret_options->runner, argv + optind, (size_t) (argc - optind), error);
}

void ping_options_deinit(PingOptions *options) {
        options_runner_deinit(&options->runner);
        *options = (PingOptions){ 0 };
}

/* ---- methods ---- */

static const struct option methods_options[] = {
        { "env", required_argument, NULL, OPTION_ENV },
        { "exec", no_argument, NULL, OPTION_EXEC },
        { "help", no_argument, NULL, OPTION_HELP },
        { "json", no_argument, NULL, OPTION_JSON },
        { "name", required_argument, NULL, OPTION_NAME },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { NULL, 0, NULL, 0 },
};

static int methods_option(void *userdata, int option, char *error) {
        MethodsOptions *options = userdata;

        options->json |= option == OPTION_JSON;
        return options_take_runner(&options->runner, option, error);
}

int methods_options_parse(int argc, char **argv, MethodsOptions *ret_options, char *error) {
        int r;

        *ret_options = (MethodsOptions){ 0 };
        r = options_parse(argc, argv, NO_LETTERS, methods_options, methods_option, ret_options, error);
        return r != 0 ? r : which_alone(&ret_options->runner, argv + optind, (size_t) (argc - optind), error);
}

void methods_options_deinit(MethodsOptions *options) {
        options_runner_deinit(&options->runner);
        *options = (MethodsOptions){ 0 };
}

/* ---- bench ---- */

static const struct option bench_options[] = {
        { "duration", required_argument, NULL, OPTION_DURATION },
        { "env", required_argument, NULL, OPTION_ENV },
        { "exec", no_argument, NULL, OPTION_EXEC },
        { "help", no_argument, NULL, OPTION_HELP },
        { "in-flight", required_argument, NULL, OPTION_IN_FLIGHT },
        { "json", no_argument, NULL, OPTION_JSON },
        { "max-frame", required_argument, NULL, OPTION_MAX_FRAME },
        { "name", required_argument, NULL, OPTION_NAME },
        { "size", required_argument, NULL, OPTION_SIZE },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { NULL, 0, NULL, 0 },
};

/* take_list() - numbers separated by commas, each read by @parse_one and at least @min. -EINVAL: it is no such list. */
static int take_list(int (*parse_one)(const char *text, uint64_t max, uint64_t *ret_value), uint64_t min, uint64_t max,
                     BenchList *list) {
        _cleanup_free_ char *copy = strdup(optarg);
        char *rest = copy;

        if (!copy)
                return -ENOMEM;
        list->n = 0;
        while (rest) {
                const char *word = strsep(&rest, ",");

                if (list->n == ARRAY_SIZE(list->values) || parse_one(word, max, &list->values[list->n]) < 0 ||
                    list->values[list->n++] < min)
                        return -EINVAL;
        }
        return 0;
}

static int bench_option(void *userdata, int option, char *error) {
        BenchOptions *options = userdata;
        int r;

        switch (option) {
        case OPTION_DURATION:
                return options_take_duration("duration", &options->duration_us, error);
        case OPTION_IN_FLIGHT:
                options->in_flight_given = true;
                r = take_list(parse_u64, 1, BENCH_IN_FLIGHT_MAX, &options->in_flight);
                return r == -EINVAL ? ERROR(error,
                                            "--in-flight wants at most 8 numbers from 1 to 4096, as in 1,16,256, "
                                            "not '%.100s'",
                                            optarg)
                                    : r;
        case OPTION_JSON:
                options->json = true;
                return 0;
        case OPTION_MAX_FRAME:
                return options_take_max_frame(&options->max_frame, error);
        case OPTION_SIZE:
                r = take_list(parse_size, 0, BENCH_SIZE_MAX, &options->sizes);
                return r == -EINVAL
                               ? ERROR(error, "--size wants at most 8 sizes up to 64M, as in 64,64K, not '%.100s'",
                                       optarg)
                               : r;
        default:
                return options_take_runner(&options->runner, option, error);
        }
}

/* bench_arguments() - NAME, or PROGRAM [ARGUMENT...], [-- [METHOD]] */
static int bench_arguments(BenchOptions *options, char **arguments, size_t n, char *error) {
        ssize_t which = options_take_which(&options->runner, arguments, n, error);

        if (which < 0)
                return (int) which;
        if ((size_t) which + 2 < n)
                return ERROR(error, "one method at a time");
        if ((size_t) which + 2 == n)
                options->method = arguments[which + 1];
        return options_check_method(options->method, error);
}

int bench_options_parse(int argc, char **argv, BenchOptions *ret_options, char *error) {
        int r;

        *ret_options = (BenchOptions){
                .method = "echo.Echo/Unary",
                .duration_us = USEC_PER_SEC,
                .sizes = { .values = { 64, 65536 }, .n = 2 },
                .in_flight = { .values = { 1, 16, 256 }, .n = 3 },
        };
        r = options_parse(argc, argv, NO_LETTERS, bench_options, bench_option, ret_options, error);
        return r != 0 ? r : bench_arguments(ret_options, argv + optind, (size_t) (argc - optind), error);
}

void bench_options_deinit(BenchOptions *options) {
        options_runner_deinit(&options->runner);
        *options = (BenchOptions){ 0 };
}

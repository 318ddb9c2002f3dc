/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Command lines: options come first and end at the first argument that is none, since everything after it belongs to
 * the program that is to run. In `call' the first `--' after the program ends its arguments; what follows is the method
 * and its values, whatever they look like. Parsing only: a result can be tested without starting anything.
 */

#include "client/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parse.h"
#include "proto/values.h"

enum {
        OPTION_DEADLINE = 256,
        OPTION_ENV,
        OPTION_EXEC,
        OPTION_HELP,
        OPTION_JSON,
        OPTION_NAME,
        OPTION_NATIVE,
        OPTION_PREFIX,
        OPTION_RAW,
        OPTION_START_TIMEOUT,
        OPTION_STOP_TIMEOUT,
        OPTION_TYPE,
};

#define NAME_LENGTH_MAX 63 /* as the messages say */

#define ERROR(_error, ...) ((void) snprintf((_error), OPTIONS_ERROR_MAX, __VA_ARGS__), -EINVAL)

void options_begin(void) {
        /* 0, not 1: glibc then forgets what it knew of another argv. */
        optind = 0;
        opterr = 0;
}

int options_next(int argc, char **argv, const struct option *options, char *error) {
        /* Before the call optind is 0 the first time, when getopt has not looked yet: argv[1] is the one. */
        int at = optind ? optind : 1;
        int c = getopt_long(argc, argv, "+:", options, NULL);

        if (c == ':') {
                (void) ERROR(error, "option '%.100s' needs an argument", argv[at]);
                return '?';
        }
        if (c == '?' && optopt >= OPTION_DEADLINE)
                (void) ERROR(error, "option '%.100s' takes no argument", argv[at]);
        else if (c == '?')
                (void) ERROR(error, "unknown option '%.100s'", argv[at]);
        return c;
}

/* ---- what several commands share ---- */

static int take_duration(const char *name, uint64_t *ret_us, char *error) {
        if (parse_duration(optarg, ret_us) < 0 || *ret_us == 0)
                return ERROR(error, "--%s wants a duration above 0, such as 500ms, 10s or 2min, not '%.100s'", name,
                             optarg);
        return 0;
}

static int take_environment(RunnerOptions *runner, char *error) {
        char **grown;

        if (*optarg == '=' || !strchr(optarg, '='))
                return ERROR(error, "--env wants NAME=VALUE, not '%.100s'", optarg);
        grown = reallocarray(runner->environment, runner->n_environment + 1, sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        grown[runner->n_environment++] = optarg;
        runner->environment = grown;
        return 0;
}

/* take_name() - the same form that the supervisor asks for: a bad one is found before anything is started. */
static int take_name(RunnerOptions *runner, char *error) {
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@";
        size_t length = strlen(optarg);

        if (length < 1 || length > NAME_LENGTH_MAX || strspn(optarg, allowed) != length)
                return ERROR(error, "--name wants 1 to 63 letters, digits and . _ - @, not '%.100s'", optarg);
        runner->name = optarg;
        return 0;
}

/* take_runner() - the options that every command that starts a runner has. */
static int take_runner(RunnerOptions *runner, int option, char *error) {
        switch (option) {
        case OPTION_ENV:
                return take_environment(runner, error);
        case OPTION_NAME:
                return take_name(runner, error);
        case OPTION_START_TIMEOUT:
                return take_duration("start-timeout", &runner->start_timeout_us, error);
        default:
                return 0;
        }
}

/* check_name() - what goes into messages as text is text; what the kernel takes (a program, its arguments) need not be. */
static int check_name(const char *name, char *error) {
        if (name && !utf8_is_valid(name, strlen(name)))
                return ERROR(error, "a name is not UTF-8: '%.100s'", name);
        return 0;
}

static void take_program(RunnerOptions *runner, char **arguments, size_t n) {
        runner->program = arguments[0];
        runner->arguments = arguments + 1;
        runner->n_arguments = n - 1;
}

static void runner_options_deinit(RunnerOptions *runner) {
        free(runner->environment);
        *runner = (RunnerOptions){ 0 };
}

/* ---- call ---- */

static const struct option call_options[] = {
        { "deadline", required_argument, NULL, OPTION_DEADLINE },
        { "env", required_argument, NULL, OPTION_ENV },
        { "exec", no_argument, NULL, OPTION_EXEC },
        { "help", no_argument, NULL, OPTION_HELP },
        { "json", no_argument, NULL, OPTION_JSON },
        { "name", required_argument, NULL, OPTION_NAME },
        { "raw", no_argument, NULL, OPTION_RAW },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { "type", required_argument, NULL, OPTION_TYPE },
        { NULL, 0, NULL, 0 },
};

static int call_option(CallOptions *options, int option, bool *exec, char *error) {
        switch (option) {
        case OPTION_DEADLINE:
                return take_duration("deadline", &options->deadline_us, error);
        case OPTION_EXEC:
                *exec = true;
                return 0;
        case OPTION_HELP:
                return OPTIONS_HELP;
        case OPTION_JSON:
                options->json = true;
                return 0;
        case OPTION_RAW:
                options->raw = true;
                return 0;
        case OPTION_TYPE:
                options->type = optarg;
                return 0;
        default:
                return take_runner(&options->runner, option, error);
        }
}

/* call_arguments() - PROGRAM [ARGUMENT...] -- METHOD [VALUE...] */
static int call_arguments(CallOptions *options, char **arguments, size_t n, char *error) {
        size_t program = 0;

        while (program < n && strcmp(arguments[program], "--") != 0)
                program++;
        if (program == 0)
                return ERROR(error, "a program is missing after --exec");
        if (program == n)
                return ERROR(error, "'--' and a method are missing after the program");
        if (program + 1 == n)
                return ERROR(error, "a method is missing after '--'");
        take_program(&options->runner, arguments, program);
        options->method = arguments[program + 1];
        if (!*options->method || strlen(options->method) > 255)
                return ERROR(error, "a method's name has 1 to 255 bytes");
        options->values = arguments + program + 2;
        options->n_values = n - program - 2;
        return 0;
}

static int call_check(const CallOptions *options, char *error) {
        if (options->type && !options->raw)
                return ERROR(error, "--type goes with --raw only; values are of type " VALUES_TYPE);
        if (options->raw && options->n_values > 1)
                return ERROR(error, "--raw takes one value, the request's bytes");
        return check_name(options->method, error) < 0 ? -EINVAL : check_name(options->type, error);
}

int call_options_parse(int argc, char **argv, CallOptions *ret_options, char *error) {
        bool exec = false;
        int c, r;

        *ret_options = (CallOptions){ 0 };
        options_begin();
        while ((c = options_next(argc, argv, call_options, error)) >= 0) {
                r = c == '?' ? -EINVAL : call_option(ret_options, c, &exec, error);
                if (r != 0)
                        return r;
        }
        if (!exec)
                return ERROR(error, "--exec is missing: it says that the program is to be started");
        r = call_arguments(ret_options, argv + optind, (size_t) (argc - optind), error);
        return r < 0 ? r : call_check(ret_options, error);
}

void call_options_deinit(CallOptions *options) {
        runner_options_deinit(&options->runner);
        *options = (CallOptions){ 0 };
}

/* ---- run ---- */

static const struct option run_options[] = {
        { "env", required_argument, NULL, OPTION_ENV },
        { "help", no_argument, NULL, OPTION_HELP },
        { "name", required_argument, NULL, OPTION_NAME },
        { "native", no_argument, NULL, OPTION_NATIVE },
        { "prefix", no_argument, NULL, OPTION_PREFIX },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { "stop-timeout", required_argument, NULL, OPTION_STOP_TIMEOUT },
        { NULL, 0, NULL, 0 },
};

static int run_option(RunOptions *options, int option, char *error) {
        switch (option) {
        case OPTION_HELP:
                return OPTIONS_HELP;
        case OPTION_NATIVE:
                options->native = true;
                return 0;
        case OPTION_PREFIX:
                options->prefix = true;
                return 0;
        case OPTION_STOP_TIMEOUT:
                return take_duration("stop-timeout", &options->stop_timeout_us, error);
        default:
                return take_runner(&options->runner, option, error);
        }
}

int run_options_parse(int argc, char **argv, RunOptions *ret_options, char *error) {
        int c, r;

        *ret_options = (RunOptions){ 0 };
        options_begin();
        while ((c = options_next(argc, argv, run_options, error)) >= 0) {
                r = c == '?' ? -EINVAL : run_option(ret_options, c, error);
                if (r != 0)
                        return r;
        }
        if (optind == argc)
                return ERROR(error, "a program is missing");
        take_program(&ret_options->runner, argv + optind, (size_t) (argc - optind));
        return 0;
}

void run_options_deinit(RunOptions *options) {
        runner_options_deinit(&options->runner);
        *options = (RunOptions){ 0 };
}

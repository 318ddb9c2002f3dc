/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Command lines: options come first and end at the first argument that is none, since everything after it belongs to
 * the program that is to run; without --exec that argument is the name of a runner. In `call' the first `--' after the
 * program ends its arguments; what follows is the method and its values, whatever they look like. Parsing only: a result
 * can be tested without starting anything.
 */

#include "client/options-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/parse.h"
#include "proto/values.h"

/* As the messages say. */
#define NAME_LENGTH_MAX   63
#define METHOD_LENGTH_MAX 255
#define FRAME_SIZE_MIN    65536

void options_begin(void) {
        /* 0, not 1: glibc then forgets what it knew of another argv. */
        optind = 0;
        opterr = 0;
}

int options_next(int argc, char **argv, const struct option *options, char *error) {
        return options_next_of(argc, argv, NO_LETTERS, options, error);
}

int options_next_of(int argc, char **argv, const char *letters, const struct option *options, char *error) {
        /* Before the call optind is 0 the first time, when getopt has not looked yet: argv[1] is the one. */
        int at = optind ? optind : 1;
        int c;

        c = getopt_long(argc, argv, letters, options, NULL);

        if (c == ':') {
                (void) ERROR(error, "option '%.100s' needs an argument", argv[at]);
                return '?';
        }
        if (c == '?' && optopt >= OPTION_COUNT)
                (void) ERROR(error, "option '%.100s' takes no argument", argv[at]);
        else if (c == '?')
                (void) ERROR(error, "unknown option '%.100s'", argv[at]);
        return c;
}

/* options_parse() - all options, each given to @take with @userdata. */
int options_parse(int argc, char **argv, const char *letters, const struct option *options,
                  int (*take)(void *userdata, int option, char *error), void *userdata, char *error) {
        int c;

        options_begin();
        while ((c = options_next_of(argc, argv, letters, options, error)) >= 0) {
                int r = c == '?' ? -EINVAL : c == OPTION_HELP ? OPTIONS_HELP : take(userdata, c, error);

                if (r != 0)
                        return r;
        }
        return 0;
}

/* ---- what several commands share ---- */

int options_take_duration(const char *name, uint64_t *ret_us, char *error) {
        if (parse_duration(optarg, ret_us) < 0 || *ret_us == 0)
                return ERROR(error, "--%s wants a duration above 0, such as 500ms, 10s or 2min, not '%.100s'", name,
                             optarg);
        return 0;
}

int options_take_max_frame(uint64_t *ret_size, char *error) {
        if (parse_size(optarg, UINT32_MAX, ret_size) < 0 || *ret_size < FRAME_SIZE_MIN)
                return ERROR(error, "--max-frame wants a size from 64K to 4294967295, not '%.100s'", optarg);
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

int options_take_runner(RunnerOptions *runner, int option, char *error) {
        switch (option) {
        case OPTION_ENV:
                return take_environment(runner, error);
        case OPTION_EXEC:
                runner->exec = true;
                return 0;
        case OPTION_NAME:
                return take_name(runner, error);
        case OPTION_START_TIMEOUT:
                return options_take_duration("start-timeout", &runner->start_timeout_us, error);
        case OPTION_SOCKET:
                runner->socket = optarg;
                return *optarg ? 0 : ERROR(error, "--socket wants a path");
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

/* take_target() - the name of a runner that runs. */
static ssize_t take_target(RunnerOptions *runner, char **arguments, size_t n, char *error) {
        if (n == 0)
                return ERROR(error, "a runner's name is missing, or --exec and a program to be started");
        if (n > 1)
                return ERROR(error,
                             "one runner's name, and options before it: '%.100s' is too much; a program to be "
                             "started needs --exec",
                             arguments[1]);
        if (runner->n_environment > 0 || runner->name || runner->start_timeout_us)
                return ERROR(error, "--env, --name and --start-timeout go with --exec: '%.100s' runs already",
                             arguments[0]);
        runner->target = arguments[0];
        return check_name(runner->target, error) < 0 ? -EINVAL : 1;
}

ssize_t options_take_which(RunnerOptions *runner, char **arguments, size_t n, char *error) {
        size_t end = 0;

        while (end < n && strcmp(arguments[end], "--") != 0)
                end++;
        if (!runner->exec)
                return take_target(runner, arguments, end, error);
        if (end == 0)
                return ERROR(error, "a program is missing after --exec");
        if (runner->socket)
                return ERROR(error, "--socket goes with a runner's name, not with --exec");
        take_program(runner, arguments, end);
        return (ssize_t) end;
}

void options_runner_deinit(RunnerOptions *runner) {
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
        { "max-frame", required_argument, NULL, OPTION_MAX_FRAME },
        { "metadata", required_argument, NULL, OPTION_METADATA },
        { "name", required_argument, NULL, OPTION_NAME },
        { "raw", no_argument, NULL, OPTION_RAW },
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { "stream", no_argument, NULL, OPTION_STREAM },
        { "type", required_argument, NULL, OPTION_TYPE },
        { NULL, 0, NULL, 0 },
};

static int take_metadata(CallOptions *options, char *error) {
        const char *end = strchr(optarg, '=');
        Metadata *grown;
        char *key;

        if (!end || end == optarg || !utf8_is_valid(optarg, (size_t) (end - optarg)))
                return ERROR(error, "--metadata wants KEY=VALUE, not '%.100s'", optarg);
        grown = reallocarray(options->metadata, options->n_metadata + 1, sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        options->metadata = grown;
        key = strndup(optarg, (size_t) (end - optarg));
        if (!key)
                return -ENOMEM;
        grown[options->n_metadata++] = (Metadata){ .key = key, .value = end + 1 };
        return 0;
}

static int call_option(void *userdata, int option, char *error) {
        CallOptions *options = userdata;

        switch (option) {
        case OPTION_DEADLINE:
                return options_take_duration("deadline", &options->deadline_us, error);
        case OPTION_JSON:
                options->json = true;
                return 0;
        case OPTION_RAW:
                options->raw = true;
                return 0;
        case OPTION_MAX_FRAME:
                return options_take_max_frame(&options->max_frame, error);
        case OPTION_METADATA:
                return take_metadata(options, error);
        case OPTION_STREAM:
                options->stream = true;
                return 0;
        case OPTION_TYPE:
                options->type = optarg;
                return 0;
        default:
                return options_take_runner(&options->runner, option, error);
        }
}

int options_check_method(const char *method, char *error) {
        if (!*method || strlen(method) > METHOD_LENGTH_MAX)
                return ERROR(error, "a method's name has 1 to 255 bytes");
        return check_name(method, error);
}

/* call_arguments() - NAME or PROGRAM [ARGUMENT...], -- METHOD [VALUE...] */
static int call_arguments(CallOptions *options, char **arguments, size_t n, char *error) {
        ssize_t which = options_take_which(&options->runner, arguments, n, error);

        if (which < 0)
                return (int) which;
        if ((size_t) which == n)
                return ERROR(error, "'--' and a method are missing after the %s",
                             options->runner.exec ? "program" : "name");
        if ((size_t) which + 1 == n)
                return ERROR(error, "a method is missing after '--'");
        options->method = arguments[which + 1];
        options->values = arguments + which + 2;
        options->n_values = n - (size_t) which - 2;
        return options_check_method(options->method, error);
}

static int call_check(const CallOptions *options, char *error) {
        if (options->type && !options->raw)
                return ERROR(error, "--type goes with --raw only; values are of type " VALUES_TYPE);
        if (options->raw && options->n_values > 1)
                return ERROR(error, "--raw takes one value, the request's bytes");
        for (size_t i = 0; options->stream && i < options->n_values; i++)
                if (strcmp(options->values[i], "buffer:-") == 0)
                        return ERROR(error, "--stream takes standard input, which buffer:- wants, too");
        return check_name(options->type, error);
}

int call_options_parse(int argc, char **argv, CallOptions *ret_options, char *error) {
        int r;

        *ret_options = (CallOptions){ 0 };
        r = options_parse(argc, argv, NO_LETTERS, call_options, call_option, ret_options, error);
        if (r == 0)
                r = call_arguments(ret_options, argv + optind, (size_t) (argc - optind), error);
        return r != 0 ? r : call_check(ret_options, error);
}

void call_options_deinit(CallOptions *options) {
        for (size_t i = 0; i < options->n_metadata; i++)
                free(options->metadata[i].key);
        free(options->metadata);
        options_runner_deinit(&options->runner);
        *options = (CallOptions){ 0 };
}

/* ---- run ---- */

static const struct option run_options[] = {
        { "env", required_argument, NULL, OPTION_ENV },
        { "help", no_argument, NULL, OPTION_HELP },
        { "name", required_argument, NULL, OPTION_NAME },
        { "native", no_argument, NULL, OPTION_NATIVE },
        { "no-tty", no_argument, NULL, OPTION_NO_TTY },
        { "prefix", no_argument, NULL, OPTION_PREFIX },
        { "start-timeout", required_argument, NULL, OPTION_START_TIMEOUT },
        { "stop-timeout", required_argument, NULL, OPTION_STOP_TIMEOUT },
        { "tty", no_argument, NULL, 't' },
        { NULL, 0, NULL, 0 },
};

static int run_option(void *userdata, int option, char *error) {
        RunOptions *options = userdata;

        switch (option) {
        case OPTION_NATIVE:
                options->native = true;
                return 0;
        case OPTION_PREFIX:
                options->prefix = true;
                return 0;
        case OPTION_NO_TTY:
        case 't':
                options->tty = option == 't';
                options->no_tty = !options->tty;
                return 0;
        case OPTION_STOP_TIMEOUT:
                return options_take_duration("stop-timeout", &options->stop_timeout_us, error);
        default:
                return options_take_runner(&options->runner, option, error);
        }
}

int run_options_parse(int argc, char **argv, RunOptions *ret_options, char *error) {
        int r;

        *ret_options = (RunOptions){ 0 };
        r = options_parse(argc, argv, NO_LETTERS "t", run_options, run_option, ret_options, error);
        if (r != 0)
                return r;
        if (optind == argc)
                return ERROR(error, "a program is missing");
        if (ret_options->tty && (ret_options->native || ret_options->prefix))
                return ERROR(error, "--tty goes with neither --native nor --prefix");
        take_program(&ret_options->runner, argv + optind, (size_t) (argc - optind));
        return 0;
}

void run_options_deinit(RunOptions *options) {
        options_runner_deinit(&options->runner);
        *options = (RunOptions){ 0 };
}

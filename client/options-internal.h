#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files that parse command lines share. All return 0, or -EINVAL with one line in @error, or -ENOMEM. */

#include <stdio.h>
#include <sys/types.h>

#include "client/options.h"

/* Of all commands; above every character. */
enum {
        OPTION_COUNT = 256,
        OPTION_DEADLINE,
        OPTION_DURATION,
        OPTION_ENV,
        OPTION_EXEC,
        OPTION_HELP,
        OPTION_INTERVAL,
        OPTION_IN_FLIGHT,
        OPTION_JSON,
        OPTION_MAX_FRAME,
        OPTION_METADATA,
        OPTION_NAME,
        OPTION_NATIVE,
        OPTION_NO_TTY,
        OPTION_PREFIX,
        OPTION_RAW,
        OPTION_SIZE,
        OPTION_SOCKET,
        OPTION_START_TIMEOUT,
        OPTION_STOP_TIMEOUT,
        OPTION_STREAM,
        OPTION_TYPE,
};

#define NO_LETTERS "+:"

#define ERROR(_error, ...) ((void) snprintf((_error), OPTIONS_ERROR_MAX, __VA_ARGS__), -EINVAL)

/*
 * options_parse() - all options, @letters ("+:" and those there are) and @options, each given to @take with @userdata, but
 * for --help: OPTIONS_HELP. What follows them is at optind.
 */
int options_parse(int argc, char **argv, const char *letters, const struct option *options,
                  int (*take)(void *userdata, int option, char *error), void *userdata, char *error);

/* options_take_duration() - the argument of --@name, above 0. */
int options_take_duration(const char *name, uint64_t *ret_us, char *error);

/* options_take_max_frame() - a size as the protocol allows. */
int options_take_max_frame(uint64_t *ret_size, char *error);

/* options_take_runner() - the options of every command that starts a runner or has to do with one that runs. */
int options_take_runner(RunnerOptions *runner, int option, char *error);

/*
 * options_take_which() - which runner: with --exec PROGRAM [ARGUMENT...], else NAME, up to the first `--' or the end. How
 * many these are, or -EINVAL.
 */
ssize_t options_take_which(RunnerOptions *runner, char **arguments, size_t n, char *error);

int options_check_method(const char *method, char *error);
void options_runner_deinit(RunnerOptions *runner);

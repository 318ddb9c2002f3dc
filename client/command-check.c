/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton check: whether a configuration could be used here. The supervisor's own program says so, by the code that would
 * load it; no supervisor is asked, and none has to run.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/libexec.h"
#include "client/options.h"
#include "client/output.h"

static int check(char *const *paths, size_t n) {
        static char program[] = "baton-supervisor", option[] = "--check", end[] = "--";
        _cleanup_free_ char **arguments = calloc(n + 4, sizeof(*arguments));

        if (!arguments) {
                output_error("check: %s", strerror(ENOMEM));
                return EXIT_CODE_BROKEN;
        }
        arguments[0] = program;
        arguments[1] = option;
        arguments[2] = end;
        memcpy(arguments + 3, paths, n * sizeof(*arguments));
        return libexec_execute("check", program, arguments);
}

static int run(int argc, char **argv) {
        static const struct option options[] = {
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        char error[OPTIONS_ERROR_MAX] = "";
        int c;

        options_begin();
        while ((c = options_next(argc, argv, options, error)) >= 0) {
                if (c == 'h')
                        return command_help(&command_check);
                return command_usage(&command_check, error);
        }
        if (optind == argc)
                return command_usage(&command_check, "a file or directory is missing");
        return check(argv + optind, (size_t) (argc - optind));
}

const Command command_check = {
        .name = "check",
        .summary = "whether a configuration could be used",
        .help = "Usage: baton check CONFIG...\n"
                "\n"
                "Reads the files CONFIG, or all *.yaml of a directory, as 'baton supervise CONFIG...' would, and\n"
                "says what is wrong with them: a line FILE:LINE: KEY: MESSAGE for each, all at once. Programs,\n"
                "directories, files of variables, users and groups are looked for on this machine. No supervisor\n"
                "is asked, and none has to run. What may be in a file: baton.yaml(5).\n"
                "\n"
                "  --help\n"
                "\n"
                "Exit codes: 0; 1 baton itself failed; 2 usage; 49 the configuration cannot be used.\n"
                "\n"
                "Example: baton check /etc/baton && baton reload\n",
        .run = run,
};

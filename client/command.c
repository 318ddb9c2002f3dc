/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What all commands say in the same way: help on standard output and success when it was asked for, one line on
 * standard error and 2 when a command line makes no sense.
 */

#include "client/command.h"

#include <stdio.h>
#include <string.h>

#include "client/exit-code.h"
#include "client/options.h"
#include "client/output.h"

int command_output_end(const char *name) {
        int r = output_flush(stdout);

        if (r < 0)
                output_error("%s: cannot write: %s", name, strerror(-r));
        return r < 0 ? EXIT_CODE_BROKEN : EXIT_CODE_OK;
}

int command_help(const Command *command) {
        (void) fputs(command->help, stdout);
        return command_output_end(command->name);
}

int command_usage(const Command *command, const char *error) {
        output_error("%s: %s; try 'baton %s --help'", command->name, error, command->name);
        return EXIT_CODE_USAGE;
}

int command_parsed(const Command *command, int r, const char *error) {
        if (r == OPTIONS_HELP)
                return command_help(command);
        return r < 0 ? command_usage(command, *error ? error : strerror(-r)) : COMMAND_GO_ON;
}

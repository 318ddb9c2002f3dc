/* SPDX-License-Identifier: Apache-2.0 */

/* Options of a runner that a supervisor may put on its command line, taken out of it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "baton/runner.h"

#define UDS_PATH "--uds-path"

/* match() - how many arguments, from @argument on, are the option: 0, 1 (with the value), or 2 (the value is the next). */
static int match(const char *argument, const char **ret_value) {
        size_t length = strlen(UDS_PATH);

        if (strncmp(argument, UDS_PATH, length) != 0)
                return 0;
        if (argument[length] == '=') {
                *ret_value = argument + length + 1;
                return 1;
        }
        return argument[length] == '\0' ? 2 : 0;
}

int baton_runner_options_from_arguments(struct baton_runner_options *options, int *argc, char **argv) {
        int kept = 1, n;

        for (int i = 1; i < *argc; i += n) {
                const char *value = NULL;

                if (strcmp(argv[i], "--") == 0) {
                        while (i < *argc)
                                argv[kept++] = argv[i++];
                        break;
                }
                n = match(argv[i], &value);
                if (n == 2 && i + 1 < *argc)
                        value = argv[i + 1];
                if (n > 0 && (!value || !*value)) {
                        (void) dprintf(STDERR_FILENO, "%s: " UDS_PATH " needs a path\n",
                                       program_invocation_short_name);
                        return -EINVAL;
                }
                if (n > 0) {
                        options->bootstrap = value;
                        continue;
                }
                argv[kept++] = argv[i];
                n = 1;
        }
        if (*argc > 0) {
                *argc = kept;
                argv[kept] = NULL;
        }
        return 0;
}

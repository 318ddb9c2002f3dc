#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* `baton check': whether a configuration could be used here, without a supervisor. */

enum { CHECK_EXIT_WRONG = 49 }; /* client/exit-code.h has the same number */

/*
 * check_configuration() - the files and directories @paths: what is in them to standard output, or all that is wrong with
 * them to standard error. Returns the exit status: 0, CHECK_EXIT_WRONG, or 1 (no memory).
 */
int check_configuration(char *const *paths);

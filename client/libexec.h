#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The programs that belong to baton and are not for people: what a command becomes. */

/*
 * libexec_execute() - becomes @program of $BATON_LIBEXEC, else of the installation, with @arguments (ended by NULL). Returns
 * only on failure: the exit code, after one line that names @command.
 */
int libexec_execute(const char *command, const char *program, char *const *arguments);

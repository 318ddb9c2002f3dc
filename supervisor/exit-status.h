#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* How a process ended, as the keeper has it from waitid(). */

#include <stdbool.h>
#include <stddef.h>

/* The numbers of baton.control.Exit.How. */
typedef enum ExitHow {
        EXIT_LOST, /* nobody saw it; never taken for success */
        EXIT_EXITED,
        EXIT_SIGNALED,
        EXIT_DUMPED,
        _EXIT_HOW_N,
} ExitHow;

typedef struct ExitStatus {
        ExitHow how;
        int status; /* exit code, or signal number */
} ExitStatus;

enum { EXIT_STATUS_TEXT_SIZE = 80 };

/* exit_status_from_wait() - from si_code (CLD_*) and si_status. */
ExitStatus exit_status_from_wait(int code, int status);

/* exit_status_describe() - "exited with status 3", "killed by signal 11 (SIGSEGV)". Returns @text. */
const char *exit_status_describe(ExitStatus exit, char text[EXIT_STATUS_TEXT_SIZE]);

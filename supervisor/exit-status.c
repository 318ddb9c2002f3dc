/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exit Status: the end of a process in words. Unknown is a value of its own, so that an end that nobody saw can never be
 * read as exit code 0.
 */

#include "supervisor/exit-status.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

ExitStatus exit_status_from_wait(int code, int status) {
        switch (code) {
        case CLD_EXITED:
                return (ExitStatus){ EXIT_EXITED, status };
        case CLD_KILLED:
                return (ExitStatus){ EXIT_SIGNALED, status };
        case CLD_DUMPED:
                return (ExitStatus){ EXIT_DUMPED, status };
        default:
                return (ExitStatus){ EXIT_LOST, 0 };
        }
}

static const char *describe_signal(int signal, char *text, size_t size) {
        const char *name = sigabbrev_np(signal);

        if (name)
                (void) snprintf(text, size, "SIG%s", name);
        else if (signal >= SIGRTMIN && signal <= SIGRTMAX)
                (void) snprintf(text, size, "SIGRTMIN+%d", signal - SIGRTMIN);
        else
                (void) snprintf(text, size, "unknown");
        return text;
}

const char *exit_status_describe(ExitStatus exit, char text[EXIT_STATUS_TEXT_SIZE]) {
        char name[32];

        if (exit.how == EXIT_EXITED)
                (void) snprintf(text, EXIT_STATUS_TEXT_SIZE, "exited with status %d", exit.status);
        else if (exit.how == EXIT_SIGNALED || exit.how == EXIT_DUMPED)
                (void) snprintf(text, EXIT_STATUS_TEXT_SIZE, "killed by signal %d (%s)%s", exit.status,
                                describe_signal(exit.status, name, sizeof(name)),
                                exit.how == EXIT_DUMPED ? ", core dumped" : "");
        else
                (void) snprintf(text, EXIT_STATUS_TEXT_SIZE, "ended, and nobody saw how");
        return text;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* How outcomes become exit codes of the command, and words. */

#include "client/control.h"

enum {
        EXIT_CODE_OK = 0,
        EXIT_CODE_BROKEN = 1, /* baton itself could not go on: no supervisor, output that cannot be written */
        EXIT_CODE_USAGE = 2,
        EXIT_CODE_STATUS = 16, /* + gRPC status of a call */
        EXIT_CODE_NOT_FOUND = 40,
        EXIT_CODE_NOT_EXECUTABLE = 41,
        EXIT_CODE_WRONG_FORMAT = 42,
        EXIT_CODE_EXITED_EARLY = 43,
        EXIT_CODE_DID_NOT_CONNECT = 44,
        EXIT_CODE_ALREADY = 45,       /* with --strict: it was so already */
        EXIT_CODE_NO_SOCKET = 46,     /* no supervisor: there is no control socket */
        EXIT_CODE_NOBODY = 47,        /* no supervisor: the socket of one that is gone */
        EXIT_CODE_KEEPER_ALONE = 48,  /* no supervisor: its keeper is there, and starts another or has given up */
        EXIT_CODE_CONFIGURATION = 49, /* it cannot be used; supervisor/check.h has the same number */
        EXIT_CODE_SIGNAL = 128,       /* + number of the signal that ended the runner, or baton */
};

#define EXIT_TEXT_MAX 96

/* exit_code_of_failure() - of a call that did not succeed; the reason of a failed start counts more than its status. */
int exit_code_of_failure(const ControlFailure *failure);

/* exit_code_of_runner() - the runner's own; BROKEN where nobody saw how it ended: never taken for success. */
int exit_code_of_runner(const ControlExit *how);

/* exit_describe() - "killed by signal 11 (SIGSEGV)", "exited with status 3"; @how may be NULL. */
void exit_describe(const ControlExit *how, char text[EXIT_TEXT_MAX]);

/* exit_how_name() - "exited", "signaled", "dumped", "unknown". */
const char *exit_how_name(int how);

/* start_reason_name() - "not-found", "exited-early", ...; start_reason_describe() - the same as a sentence. */
const char *start_reason_name(int reason);
const char *start_reason_describe(int reason);

/* signal_describe() - "signal 2 (SIGINT)". */
void signal_describe(int signal, char text[EXIT_TEXT_MAX]);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exit codes: scripts branch on them, so each outcome has one and they do not change. 16-32 are the statuses of a call,
 * 40-44 say why a program never became a runner, from 128 on it is the shell's convention for signals. What a newer
 * supervisor reports and this table does not know falls back to the status of the call.
 */

#include "client/exit-code.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/macro.h"

static const struct {
        const char *name, *text;
        int code; /* 0: that of the status */
} reasons[] = {
        [BATON__CONTROL__START_FAILURE__REASON__UNKNOWN] = { "unknown", "it did not start", 0 },
        [BATON__CONTROL__START_FAILURE__REASON__NOT_FOUND] = { "not-found", "no such program", EXIT_CODE_NOT_FOUND },
        [BATON__CONTROL__START_FAILURE__REASON__NOT_EXECUTABLE] = { "not-executable", "not executable",
                                                                    EXIT_CODE_NOT_EXECUTABLE },
        [BATON__CONTROL__START_FAILURE__REASON__WRONG_FORMAT] = { "wrong-format", "not a program for this machine",
                                                                  EXIT_CODE_WRONG_FORMAT },
        [BATON__CONTROL__START_FAILURE__REASON__EXITED_EARLY] = { "exited-early", "it ended before it connected",
                                                                  EXIT_CODE_EXITED_EARLY },
        [BATON__CONTROL__START_FAILURE__REASON__DID_NOT_CONNECT] = { "did-not-connect", "it did not connect in time",
                                                                     EXIT_CODE_DID_NOT_CONNECT },
        [BATON__CONTROL__START_FAILURE__REASON__SYSTEM] = { "system", "the system refused something", 0 },
};

static const char *const hows[] = {
        [BATON__CONTROL__EXIT__HOW__UNKNOWN] = "unknown",
        [BATON__CONTROL__EXIT__HOW__EXITED] = "exited",
        [BATON__CONTROL__EXIT__HOW__SIGNALED] = "signaled",
        [BATON__CONTROL__EXIT__HOW__DUMPED] = "dumped",
};

static size_t known_reason(int reason) {
        return reason >= 0 && (size_t) reason < ARRAY_SIZE(reasons) ? (size_t) reason : 0;
}

const char *start_reason_name(int reason) {
        return reasons[known_reason(reason)].name;
}

const char *start_reason_describe(int reason) {
        return reasons[known_reason(reason)].text;
}

const char *exit_how_name(int how) {
        return hows[how >= 0 && (size_t) how < ARRAY_SIZE(hows) ? how : 0];
}

int exit_code_of_failure(const ControlFailure *failure) {
        int code = failure->start ? reasons[known_reason((int) failure->start->reason)].code : 0;

        return code ? code : EXIT_CODE_STATUS + (int) failure->status;
}

int exit_code_of_runner(const ControlExit *how) {
        switch (how ? (int) how->how : BATON__CONTROL__EXIT__HOW__UNKNOWN) {
        case BATON__CONTROL__EXIT__HOW__EXITED:
                return how->status & 0xff;
        case BATON__CONTROL__EXIT__HOW__SIGNALED:
        case BATON__CONTROL__EXIT__HOW__DUMPED:
                return EXIT_CODE_SIGNAL + (how->status & 0x7f);
        default:
                return EXIT_CODE_BROKEN;
        }
}

void signal_describe(int signal, char text[EXIT_TEXT_MAX]) {
        const char *name = sigabbrev_np(signal);

        if (name)
                (void) snprintf(text, EXIT_TEXT_MAX, "signal %d (SIG%s)", signal, name);
        else
                (void) snprintf(text, EXIT_TEXT_MAX, "signal %d", signal);
}

void exit_describe(const ControlExit *how, char text[EXIT_TEXT_MAX]) {
        char name[EXIT_TEXT_MAX];

        switch (how ? (int) how->how : BATON__CONTROL__EXIT__HOW__UNKNOWN) {
        case BATON__CONTROL__EXIT__HOW__EXITED:
                (void) snprintf(text, EXIT_TEXT_MAX, "exited with status %d", how->status);
                break;
        case BATON__CONTROL__EXIT__HOW__SIGNALED:
        case BATON__CONTROL__EXIT__HOW__DUMPED:
                signal_describe(how->status, name);
                (void) snprintf(text, EXIT_TEXT_MAX, "killed by %.64s%s", name,
                                how->how == BATON__CONTROL__EXIT__HOW__DUMPED ? ", core dumped" : "");
                break;
        default:
                (void) snprintf(text, EXIT_TEXT_MAX, "gone, nobody saw how");
        }
}

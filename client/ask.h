#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One question to a supervisor that runs: the command line, the connection, one call and its answer. */

#include "client/command.h"
#include "client/options.h"
#include "client/session.h"

typedef struct Ask Ask;

struct Ask {
        const Command *command;
        ControlOptions options;
        Session session;
        int code; /* the exit code, once something went wrong */
};

/* ask_open() - 0; else the command is over, and ask->code is its exit code. */
int ask_open(Ask *ask, const Command *command, const ControlSyntax *syntax, int argc, char **argv);

/*
 * ask_call() - `baton.Control/@method'. Its answer, for message_free(); NULL: there is none, and ask->code says why, after
 * its words, which begin with @what (NULL: nothing). @ret_failure (may be NULL) is then what the supervisor said, the
 * caller's to deinit, and nothing was printed.
 */
void *ask_call(Ask *ask, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *response, const char *what, ControlFailure *ret_failure);

/* ask_close() - returns the exit code, after what was written has been taken by the system. */
int ask_close(Ask *ask);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One use of a supervisor by a command: a private one, whose end is that of the session, or one that runs; the signals that
 * may end it; the start of a runner.
 */

#include "client/control.h"
#include "client/options.h"
#include "client/private.h"

typedef struct Session Session;
struct Session {
        const char *command; /* for messages */
        Endpoint *endpoint;
        Private *private; /* NULL: the supervisor is not ours */
        Peer *peer;       /* of one that is not ours; NULL: it is */
        Control control;
        int signal_fd;
        int signal;             /* the first of INT, TERM, HUP that came; 0: none */
        unsigned n_signals;     /* how many came */
        bool hurry;             /* session_close() kills the tree instead of stopping it */
        uint64_t max_frame;     /* of a runner's, bytes; 0: the default */
        const char *early_hint; /* added where a runner ended, or was killed, before it was up; NULL: nothing */
        int *terminal_fd;       /* the runner's, taken by session_start(); NULL: none */
        bool park_output;       /* of the runner: it waits rather than that lines of its log are lost */
        /* Called for each; NULL: the first ends the running wait with -EINTR, a second one is in a hurry. */
        void (*on_signal)(Session *session);
};

#define SESSION_MAX_OBJECT \
        (UINT64_C(1) << 30) /* bytes of an answer in a sealed object, unless --max-frame says less */

/* session_max_object() - of the limit that --max-frame gives; 0: not given. */
uint64_t session_max_object(uint64_t max_frame);

/*
 * session_open() - @max_frame, 0: 8 MiB, is what is accepted from the runner. From here on INT, TERM and HUP, unless they
 * are ignored, and a broken pipe, are for this session. 0, or a negative errno after one line on standard error.
 */
int session_open(Session *session, const char *command, uint64_t max_frame);

/* What else than an error session_try() can say. */
enum {
        SESSION_SILENT = 1,   /* nobody said anything in time */
        SESSION_KEEPER_ALONE, /* there is no supervisor, but a keeper */
        SESSION_REFUSED,      /* the supervisor does not serve us */
};

/* session_try() - as session_connect(), without a word; who is behind the socket in @ret_keeper. 0: it is to be closed. */
int session_try(Session *session, const char *command, const char *socket, uint64_t timeout_us, pid_t *ret_keeper);

/*
 * session_connect() - to the supervisor behind @socket (NULL: where the environment says), until it has said Hello. Signals
 * as session_open(). 0; else -ECANCELED, and the exit code is in @ret_code, after its words.
 */
int session_connect(Session *session, const char *command, const char *socket, int *ret_code);

/*
 * session_close() - ends the whole tree and waits for it; a further signal makes that quick. A supervisor that is not
 * ours is only left. Good for a zeroed structure
 * with signal_fd -1, and a second time.
 */
void session_close(Session *session);

/*
 * session_find() - where the program to be started is: looked for in our $PATH and beside baton. Before session_open(): a
 * mistyped name costs nothing. 0; CONTROL_REFUSED with @ret_failure; -ENOMEM.
 */
int session_find(const char *program, char **ret_path, ControlFailure *ret_failure);

/*
 * session_start() - starts the runner, the program at @path, in our working directory, with our environment. 0;
 * CONTROL_REFUSED with @ret_failure; -EINTR; -ENOMEM.
 */
int session_start(Session *session, const RunnerOptions *options, const char *path, bool native,
                  ControlStarted **ret_started, ControlFailure *ret_failure);

/*
 * session_report() - the failure as one line on standard error, and below it the last lines the runner wrote. @what was asked
 * for by name, or NULL. Returns the exit code for it; EXIT_CODE_BROKEN where it was the supervisor that failed.
 */
int session_report(const Session *session, const char *what, const ControlFailure *failure);

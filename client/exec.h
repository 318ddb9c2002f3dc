#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* `--exec': a runner that is started for one purpose, and stopped when it is served. */

#include "client/control.h"
#include "client/session.h"

typedef struct Exec Exec;
struct Exec {
        Session session;
        const RunnerOptions *options;
        const char *command; /* its name */
        const char *what;    /* what failures are about: the method, or the program */
        uint64_t max_frame;  /* bytes, of what is accepted from the runner; 0: the default */
        bool json;           /* failures are printed as one object, too */
        /* What is done with the runner; returns the exit code. */
        int (*work)(Exec *exec);

        ControlStarted *started;
        Peer *lane; /* of exec_attach(): the runner itself; NULL: none */
        bool lost;  /* the lane has ended */
        uint64_t began;
        bool given_up; /* the runner may still be at it: it gets little time for its end */
};

/* exec_run() - starts, works, stops. The fields up to @work are set, the others zero. Returns the exit code. */
int exec_run(Exec *exec);

/* exec_elapsed() - microseconds since exec_run() began. */
uint64_t exec_elapsed(const Exec *exec);

/*
 * exec_attach() - a lane of our own to the runner, as exec->lane: its calls do not pass through the supervisor. 0; else
 * the exit code is in @ret_code, after its words.
 */
int exec_attach(Exec *exec, int *ret_code);

/* Ways out of the work, each with its words, and with its object where that was asked for. They return the exit code. */

/* exec_failed() - a call that did not succeed; @envelope: of its answer, or NULL. */
int exec_failed(Exec *exec, const ControlFailure *failure, const Baton__Envelope *envelope);
/* exec_stopped() - a wait ended with a negative errno: a signal, or the epoll set itself failed. */
int exec_stopped(Exec *exec, int r);
/* exec_output_failed() - a result could not be written. */
int exec_output_failed(const Exec *exec, int r);

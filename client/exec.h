#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One use of a runner: with `--exec' one that is started for it, and stopped when it is served; else one that runs, by its
 * name, over a lane of our own, which is left as it is.
 */

#include "client/control.h"
#include "client/session.h"

typedef struct Exec Exec;
struct Exec {
        Session session;
        const RunnerOptions *options;
        const char *command;  /* its name */
        const char *what;     /* what failures are about: the method, or the program */
        uint64_t max_frame;   /* bytes, of what is accepted from the runner; 0: the default */
        uint64_t deadline_us; /* of the wait for a runner that runs to be there; 0: none */
        bool json;            /* failures are printed as one object, too */
        /* What is done with the runner; returns the exit code. */
        int (*work)(Exec *exec);

        const char *name;  /* of the runner */
        uint64_t instance; /* known with the lane */
        pid_t pid;
        ControlStarted *started; /* NULL: not by us */
        Peer *lane;              /* of exec_attach(): the runner itself; NULL: none */
        bool ready;              /* it has said Hello there */
        bool lost;               /* the lane has ended */
        uint64_t began;
        bool given_up; /* the runner may still be at it: it gets little time for its end */
};

/*
 * exec_run() - starts, works, stops; or connects, attaches, works, leaves. The fields up to @work are set, the others zero.
 * Returns the exit code.
 */
int exec_run(Exec *exec);

/* exec_elapsed() - microseconds since exec_run() began. */
uint64_t exec_elapsed(const Exec *exec);

/* exec_begin() - a call of the runner: over the lane, where there is one, else through the supervisor. */
void exec_begin(Exec *exec, ControlCall *call, const CallParameters *parameters);

/*
 * exec_attach() - a lane of our own to the runner, as exec->lane, where there is none yet: its calls do not pass through the
 * supervisor. 0; else
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

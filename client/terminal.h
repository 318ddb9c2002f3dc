#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* A pseudo-terminal for a runner, with our own terminal at its other end. */

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

#include "client/byte-output.h"
#include "proto/endpoint.h"

typedef struct Terminal Terminal;

/* Null value: TERMINAL_NULL. It must not move while it is open. */
struct Terminal {
        Endpoint *endpoint;
        int master;         /* -1: not open */
        int signal_fd;      /* window changes, stop and continue */
        bool is_ours;       /* standard input is a terminal, whose modes are `saved', and are to be given back */
        bool reading;       /* standard input is watched */
        bool is_file;       /* it cannot be waited for */
        bool input_ended;   /* it is at its end, and the runner was told */
        bool is_whole;      /* what was sent last ended a line */
        bool wants_suspend; /* terminal_suspend() is to be called, outside of callbacks */
        bool paused;        /* its output is not read: ours has no room */
        bool ended;         /* nobody has the runner's side any more, and all was read */
        bool progress;      /* something came since this was last cleared */
        struct termios saved;
        sigset_t before;   /* mask of signals */
        pid_t runner;      /* 0: not there yet */
        EndpointTask task; /* reads what cannot be waited for */
        ByteOutput to_runner, to_us;
};
#define TERMINAL_NULL ((Terminal){ .master = -1, .signal_fd = -1, .to_runner.poll_fd = -1, .to_us.poll_fd = -1 })

/* terminal_is_ours() - whether we have one: input and output are, and we are not in its background. */
bool terminal_is_ours(void);

/*
 * terminal_open() - a pseudo-terminal with the modes and the size of ours; what the runner is to get is @ret_slave, the
 * caller's. 0 or a negative errno.
 */
int terminal_open(Terminal *terminal, Endpoint *endpoint, int *ret_slave);

/*
 * terminal_begin() - the runner, a process group, has its side: our terminal passes everything on from here to
 * terminal_close(). 0 or a negative errno.
 */
int terminal_begin(Terminal *terminal, pid_t runner);

/* terminal_suspend() - stops our process group, as a terminal does, with our terminal as it was; returns when it goes on. */
int terminal_suspend(Terminal *terminal);

/* terminal_error() - a negative errno: our output has no reader any more, or such. 0: none. */
int terminal_error(const Terminal *terminal);

/*
 * terminal_drain() - after the runner's end: what it has written comes out, unless @given_up says that our output is not
 * waited for any more. 0 or a negative errno.
 */
int terminal_drain(Terminal *terminal, bool (*given_up)(void *userdata), void *userdata);

/* terminal_close() - gives our terminal back as it was. Good for one that is not open. */
void terminal_close(Terminal *terminal);

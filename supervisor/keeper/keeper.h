#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper: the stable parent of supervisor and runners. */

#include <stdint.h>

#include "supervisor/keeper/ladder.h"
#include "supervisor/keeper/place.h"

/* All is borrowed until keeper_run() returns. */
typedef struct KeeperOptions {
        int private_fd;     /* the lane of the one client whose end ends the tree; -1: a daemon */
        PlaceOptions place; /* of a daemon */
        char *const *
                argv; /* what this program was called with, but for --continue: its successor is, too. NULL: it has none */
        char *const *configs;     /* what the supervisor is to load, ended by NULL; may be NULL */
        uint64_t stop_timeout_us; /* what the supervisor has for stopping its runners */
        uint64_t
                hang_timeout_us; /* a daemon's supervisor that owes an answer and says nothing for so long is killed */
        LadderPolicy ladder;     /* of a daemon */
} KeeperOptions;

#define KEEPER_STOP_TIMEOUT_US (10 * UINT64_C(1000000))
#define KEEPER_HANG_TIMEOUT_US (30 * UINT64_C(1000000))

#define KEEPER_OPTIONS_NULL                                          \
        ((KeeperOptions){ .private_fd = -1,                          \
                          .stop_timeout_us = KEEPER_STOP_TIMEOUT_US, \
                          .hang_timeout_us = KEEPER_HANG_TIMEOUT_US, \
                          .ladder = { .healthy_us = LADDER_HEALTHY_US, .delay_us = LADDER_DELAY_US } })

/*
 * keeper_run() - makes this process a keeper: closes every descriptor it does not know, starts a supervisor, and returns
 * when no process of the tree is left, with the exit status: what the supervisor asked for with SHUTDOWN or, when it was
 * told to stop, exited with; else 1, after one line that says what happened. To be called with one thread, once.
 */
int keeper_run(const KeeperOptions *options);

/*
 * keeper_continue() - the same, for a process that was a keeper before it executed this program: with what is written in
 * @memfd_consume (state.h). Where that is not understood, @former_consume (-1: none) is executed in our place.
 */
int keeper_continue(const KeeperOptions *options, int memfd_consume, int former_consume);

/*
 * keeper_rehearse() - whether that would go well, in a child of the keeper which has all that it has. What the answer is
 * goes to @answer: READY and our release, or why not. Touches nothing. 0 or 1: our exit status.
 */
int keeper_rehearse(const KeeperOptions *options, int memfd, int answer);

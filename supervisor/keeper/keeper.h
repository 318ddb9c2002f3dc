#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper: the stable parent of supervisor and runners. */

#include <stdint.h>

#include "supervisor/keeper/ladder.h"
#include "supervisor/keeper/place.h"

/* All is borrowed until keeper_run() returns. */
typedef struct KeeperOptions {
        int private_fd;           /* the lane of the one client whose end ends the tree; -1: a daemon */
        PlaceOptions place;       /* of a daemon */
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

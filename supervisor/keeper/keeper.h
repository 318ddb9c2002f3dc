#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper: the stable parent of supervisor and runners. */

#include <stdint.h>

typedef struct KeeperOptions {
        int private_fd;           /* the lane of the one client whose end ends the tree; borrowed */
        uint64_t stop_timeout_us; /* what the supervisor has for stopping its runners */
} KeeperOptions;

#define KEEPER_STOP_TIMEOUT_US (10 * UINT64_C(1000000))

/*
 * keeper_run() - makes this process a keeper: closes every descriptor it does not know, starts a supervisor, and returns
 * when no process of the tree is left, with the exit status: what the supervisor asked for with SHUTDOWN or, when it was
 * told to stop, exited with; else 1, after one line that says what happened. To be called with one thread, once.
 */
int keeper_run(const KeeperOptions *options);

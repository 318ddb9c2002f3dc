#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Checkpoints of a runner with `recover: failover': its instance is asked for a Save at a time of its life, and what it
 * gives is kept by the holder, and by the keeper, in place of the one before. Who asks waits until it is the keeper's. One is
 * under way at a time; who asks meanwhile shares the next, since the present one may be older than the wish.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/manifest.h"
#include "proto/peer.h"
#include "supervisor/config.h"

typedef struct Checkpoint Checkpoint;
typedef struct CheckpointResult CheckpointResult;
typedef struct CheckpointWaiter CheckpointWaiter;
typedef struct Instance Instance;
typedef struct Runner Runner;
typedef struct Supervisor Supervisor;

enum {
        CHECKPOINT_OTHER_FDS = 2, /* besides those that the runner has named: what the library wrote, and the state */
        CHECKPOINT_FDS_MAX = CONFIG_CHECKPOINT_FDS_MAX + CHECKPOINT_OTHER_FDS,
};

struct CheckpointResult {
        Status status;
        const char *message; /* one line; "" with OK */
        uint64_t number;     /* of its instance, from 1 */
        uint64_t state_size; /* bytes */
        uint32_t n_fds;      /* that it has named */
};

/* Somebody who waits; it is off the list when it is called. */
struct CheckpointWaiter {
        TAILQ_ENTRY(CheckpointWaiter) link;
        Checkpoint *checkpoint; /* NULL: not waiting */
        bool begun;             /* the one under way is its one */
        void (*callback)(CheckpointWaiter *waiter, const CheckpointResult *result);
};

/* checkpoint_refusal() - why there can be none of @runner, as the end of a sentence; NULL: there can. */
const char *checkpoint_refusal(const Runner *runner);

/*
 * checkpoint_ask() - for one that begins from now on. 0 or -ENOMEM. It waits while the runner is started, upgraded, or the
 * supervisor replaced; the end of the instance that would make it ends the waiting. checkpoint_unask() - does nothing for one
 * that does not wait.
 */
int checkpoint_ask(Runner *runner, CheckpointWaiter *waiter);
void checkpoint_unask(CheckpointWaiter *waiter);

/* checkpoint_wake() - what one waited for may be over, or its time has changed. */
void checkpoint_wake(Runner *runner);
/* checkpoint_wake_all() - of all runners. */
void checkpoint_wake_all(Supervisor *supervisor);
/* checkpoint_renew() - the state has another author: one is made soon, if one is wanted at all. */
void checkpoint_renew(Runner *runner);
/* checkpoint_interrupt() - the present one is begun again later. */
void checkpoint_interrupt(Runner *runner);
/* checkpoint_ended() - @instance makes none any more. */
void checkpoint_ended(const Instance *instance);
/* checkpoint_free() - who waits is told. Accepts NULL, returns NULL. */
Checkpoint *checkpoint_free(Checkpoint *checkpoint);

/* checkpoint_is_under_way() - with something of it that cannot cross in a takeover. */
bool checkpoint_is_under_way(const Runner *runner);

typedef struct CheckpointCounts {
        uint64_t done, failed; /* since this supervisor began */
        const char *why;       /* the last one failed; NULL: it did not */
} CheckpointCounts;
CheckpointCounts checkpoint_counts(const Runner *runner);

/*
 * What of an instance has asked by baton.Supervisor/Checkpoint: checkpoint_handle() - @call is answered, now or later.
 * checkpoint_each_call() - those that wait. checkpoint_restore_call() - one of a predecessor's.
 */
void checkpoint_handle(Instance *instance, Call *call);
void checkpoint_each_call(const Instance *instance, void (*function)(const Call *call, void *userdata),
                          void *userdata);
void checkpoint_restore_call(Instance *instance, Call *call);

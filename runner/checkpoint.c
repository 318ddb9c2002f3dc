/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Checkpoints on the application's wish. One call to the supervisor is open at a time; who asks meanwhile shares the next,
 * since what the present one saves may be older than the wish. The supervisor then asks for a Save as it does at any time.
 */

#include <errno.h>
#include <stdlib.h>

#include "proto/message.h"
#include "runner/runner.h"

typedef void (*CheckpointFn)(struct baton_runner *runner, int result, const char *reason, void *userdata);

struct CheckpointWaiter {
        STAILQ_ENTRY(CheckpointWaiter) link;
        CheckpointFn function;
        void *userdata;
};

static int ask(Runner *runner);

/* tell() - all that are in @waiters. */
static void tell(Runner *runner, struct CheckpointWaiters *waiters, int result, const char *reason) {
        CheckpointWaiter *waiter;

        while ((waiter = STAILQ_FIRST(waiters))) {
                STAILQ_REMOVE_HEAD(waiters, link);
                if (waiter->function)
                        waiter->function(runner, result, reason, waiter->userdata);
                free(waiter);
        }
}

static const struct {
        Status status;
        int result;
} results[] = {
        { STATUS_OK, 0 },
        { STATUS_FAILED_PRECONDITION, -EOPNOTSUPP },
        { STATUS_UNIMPLEMENTED, -EOPNOTSUPP },
        { STATUS_UNAVAILABLE, -ESHUTDOWN },
        { STATUS_RESOURCE_EXHAUSTED, -ENOBUFS },
        { STATUS_DEADLINE_EXCEEDED, -ETIMEDOUT },
};

static void answered(Call *call, const Answer *answer, void *userdata) {
        struct CheckpointWaiters done = STAILQ_HEAD_INITIALIZER(done);
        Runner *runner = userdata;
        int result = -EIO;

        (void) call;
        for (size_t i = 0; i < ARRAY_SIZE(results); i++)
                if (results[i].status == answer->status)
                        result = results[i].result;
        runner->checkpoint_open = false;
        STAILQ_CONCAT(&done, &runner->checkpoint_waiting);
        /* A new supervisor knows nothing of what the one before was asked. */
        if (answer->local && answer->status == STATUS_UNAVAILABLE && !runner->ended)
                STAILQ_CONCAT(&runner->checkpoint_asked, &done);
        if (!STAILQ_EMPTY(&runner->checkpoint_asked) && ask(runner) < 0)
                STAILQ_CONCAT(&done, &runner->checkpoint_asked);
        tell(runner, &done, result, answer->message);
}

static int ask(Runner *runner) {
        const CallParameters parameters = {
                .method = "baton.Supervisor/Checkpoint",
                .type = baton__checkpoint_request__descriptor.name,
                .payload = "",
        };
        int r = call_start(connection_peer(runner->supervisor), &parameters, answered, runner, NULL);

        if (r < 0)
                return r;
        runner->checkpoint_open = true;
        STAILQ_CONCAT(&runner->checkpoint_waiting, &runner->checkpoint_asked);
        return 0;
}

int baton_runner_checkpoint(struct baton_runner *runner, CheckpointFn function, void *userdata) {
        CheckpointWaiter *waiter;
        int r = 0;

        if (runner->ended)
                return -ESHUTDOWN;
        waiter = malloc(sizeof(*waiter));
        if (!waiter)
                return -ENOMEM;
        *waiter = (CheckpointWaiter){ .function = function, .userdata = userdata };
        STAILQ_INSERT_TAIL(&runner->checkpoint_asked, waiter, link);
        if (!runner->checkpoint_open)
                r = ask(runner);
        if (r < 0) {
                STAILQ_REMOVE(&runner->checkpoint_asked, waiter, CheckpointWaiter, link);
                free(waiter);
        }
        return r;
}

void checkpoint_end(Runner *runner) {
        tell(runner, &runner->checkpoint_waiting, -ESHUTDOWN, "the supervisor is gone");
        tell(runner, &runner->checkpoint_asked, -ESHUTDOWN, "the supervisor is gone");
}

static void forget(struct CheckpointWaiters *waiters) {
        CheckpointWaiter *waiter;

        while ((waiter = STAILQ_FIRST(waiters))) {
                STAILQ_REMOVE_HEAD(waiters, link);
                free(waiter);
        }
}

void checkpoint_forget(Runner *runner) {
        forget(&runner->checkpoint_waiting);
        forget(&runner->checkpoint_asked);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* What the method Checkpoint of baton.Control does: one is made, and answered when the keeper has it. */

#include "supervisor/control-internal.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/checkpoint.h"
#include "supervisor/crossing.h"

typedef struct Waiting {
        CheckpointWaiter waiter;
        Crossing crossing;
        Call *call;
        char name[INSTANCE_NAME_SIZE];
} Waiting;

/* leave() - its call; it waits no more. */
static Call *leave(Waiting *waiting) {
        Call *call = waiting->call;

        LIST_REMOVE(&waiting->crossing, link);
        call_on_cancel(call, NULL, NULL);
        return call;
}

static void answered(CheckpointWaiter *waiter, const CheckpointResult *result) {
        _cleanup_free_ Waiting *waiting = CONTAINER_OF(waiter, Waiting, waiter);
        Baton__Control__CheckpointResponse response = BATON__CONTROL__CHECKPOINT_RESPONSE__INIT;
        Call *call = leave(waiting);

        if (result->status != STATUS_OK) {
                (void) call_fail(call, result->status, "runner %s: no checkpoint: %s", waiting->name, result->message);
                return;
        }
        response.name = waiting->name;
        response.state_size = result->state_size;
        response.descriptors = result->n_fds;
        (void) call_answer_message(call, &response.base);
}

static void cancelled(Call *call, void *userdata) {
        _cleanup_free_ Waiting *waiting = userdata;

        checkpoint_unask(&waiting->waiter);
        (void) leave(waiting);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; it goes on");
}

static void give(const Crossing *crossing, CrossingTake take, void *userdata) {
        Baton__Control__CheckpointRequest request = BATON__CONTROL__CHECKPOINT_REQUEST__INIT;

        request.name = CONTAINER_OF(crossing, Waiting, crossing)->name;
        take(&request.base, userdata);
}

void control_checkpoint(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__CheckpointRequest *request = (const Baton__Control__CheckpointRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);
        const char *refusal = runner ? checkpoint_refusal(runner) : NULL;
        Waiting *waiting;

        if (!runner)
                return;
        if (refusal) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: %s", runner->name, refusal);
                return;
        }
        waiting = calloc(1, sizeof(*waiting));
        if (waiting)
                waiting->waiter.callback = answered;
        if (!waiting || checkpoint_ask(runner, &waiting->waiter) < 0) {
                free(waiting);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory to wait for a checkpoint",
                                 runner->name);
                return;
        }
        (void) strcpy(waiting->name, runner->name);
        waiting->call = call;
        waiting->crossing = (Crossing){ .call = call, .method = "Checkpoint", .give = give };
        LIST_INSERT_HEAD(&control->supervisor->crossings, &waiting->crossing, link);
        call_on_cancel(call, cancelled, waiting);
}

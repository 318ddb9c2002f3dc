/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Checkpoint. The steps, each of which may fail, and then the one before stays:
 * - Save is asked of the instance, with one end of a pair of sockets, and what it gives is taken at the other: each
 *   descriptor is compared with what the manifest says of it, and all of them with what a Save of a checkpoint may give.
 *   What is in them is the runner's own matter and looked at by nobody here.
 * - When all of it is here, and the runner has said that this was all, the holder gives it to the keeper.
 * - When that has it, those that waited are told.
 *
 * None is begun while the instance is not up, while its runner is being upgraded (it is about to be read by another
 * process anyway), and while the supervisor is being replaced, which does not wait for anybody new. Its end is told in any
 * case: there is a time-out.
 */

#include "supervisor/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "proto/message.h"
#include "proto/service-snapshot.h"
#include "proto/transfer.h"
#include "supervisor/events.h"
#include "supervisor/holder.h"
#include "supervisor/instance-internal.h"
#include "supervisor/runner-internal.h"

#define SNAPSHOT_MAX (UINT64_C(256) * 1024 * 1024) /* bytes of what the library writes beside the state */

TAILQ_HEAD(CheckpointWaiters, CheckpointWaiter);

struct Checkpoint {
        Runner *runner;
        struct CheckpointWaiters waiting; /* those of the present one before those of the next */
        LoopTask next;
        LoopTimer every, late;

        /* of the one under way */
        Instance *instance; /* that makes it; NULL: none is */
        Call *save;         /* NULL: answered */
        int socket;         /* -1: all was taken */
        LoopIo io;
        Transfer transfer;
        Keeping *keeping; /* NULL: not there yet */
        uint64_t began_us, timeout_us, said_size, state_size;
        uint32_t said_fds, n_fds;

        uint64_t last_instance, number; /* how many of that one */
        uint64_t n_done, n_failed;
        char *why;
};

static void begin_next(LoopTask *task);
static void due(LoopTimer *timer);
static void late(LoopTimer *timer);
static void readable(LoopIo *io, unsigned events);

static Checkpoint *checkpoint_of(Runner *runner) {
        Checkpoint *checkpoint = runner->checkpoint;

        if (checkpoint)
                return checkpoint;
        checkpoint = calloc(1, sizeof(*checkpoint));
        if (!checkpoint)
                return NULL;
        checkpoint->runner = runner;
        checkpoint->socket = -1;
        checkpoint->next = LOOP_TASK_NULL(begin_next);
        checkpoint->every = LOOP_TIMER_NULL(due);
        checkpoint->late = LOOP_TIMER_NULL(late);
        checkpoint->io = LOOP_IO_NULL(readable);
        TAILQ_INIT(&checkpoint->waiting);
        runner->checkpoint = checkpoint;
        return checkpoint;
}

/* ------------------------------------------------------------------------------------------------------------- the times */

/* arm() - for the next one that nobody asks for: counted from the last, whoever has made it. */
static void arm(Runner *runner, uint64_t since_us) {
        uint64_t every_us = runner->config->checkpoint_every_us;
        const Instance *instance = runner->instance;
        Checkpoint *checkpoint = runner->checkpoint;

        if (every_us == 0 || runner->config->recover != CONFIG_RECOVER_FAILOVER || !instance ||
            instance->state != PROCESS_UP) {
                if (checkpoint)
                        loop_timer_stop(&checkpoint->every);
                return;
        }
        checkpoint = checkpoint_of(runner);
        if (checkpoint)
                loop_timer_set(runner->supervisor->loop, &checkpoint->every,
                               MAX(clock_after(since_us, every_us), clock_now()));
}

static void due(LoopTimer *timer) {
        Checkpoint *checkpoint = CONTAINER_OF(timer, Checkpoint, every);

        checkpoint_renew(checkpoint->runner);
        arm(checkpoint->runner, clock_now()); /* if this one fails; else the end of it sets it anew */
}

/* --------------------------------------------------------------------------------------------------------------- its end */

/* clear() - nothing of the present one is left. */
static void clear(Checkpoint *checkpoint) {
        checkpoint->instance = NULL;
        if (checkpoint->save)
                call_cancel(TAKE_PTR(checkpoint->save));
        loop_io_stop(&checkpoint->io);
        loop_timer_stop(&checkpoint->late);
        transfer_deinit(&checkpoint->transfer);
        checkpoint->socket = fd_close(checkpoint->socket);
        holder_keep_cancel(TAKE_PTR(checkpoint->keeping));
}

static void tell(Checkpoint *checkpoint, const CheckpointResult *result, bool all) {
        struct CheckpointWaiters waiting = TAILQ_HEAD_INITIALIZER(waiting);
        CheckpointWaiter *waiter, *next;

        for (waiter = TAILQ_FIRST(&checkpoint->waiting); waiter; waiter = next) {
                next = TAILQ_NEXT(waiter, link);
                if (!all && !waiter->begun)
                        continue;
                TAILQ_REMOVE(&checkpoint->waiting, waiter, link);
                TAILQ_INSERT_TAIL(&waiting, waiter, link);
                waiter->checkpoint = NULL;
        }
        while ((waiter = TAILQ_FIRST(&waiting))) {
                TAILQ_REMOVE(&waiting, waiter, link);
                waiter->callback(waiter, result);
        }
}

/* note_failure() - the same thing over and over is told once. */
static void note_failure(Checkpoint *checkpoint, const char *why) {
        Runner *runner = checkpoint->runner;
        bool known = checkpoint->why && strcmp(checkpoint->why, why) == 0;

        checkpoint->n_failed++;
        if (known)
                return;
        free(checkpoint->why);
        checkpoint->why = strdup(why);
        log_warning("runner %s: no checkpoint: %s; the last one stays", runner->name, why);
        events_publish(runner->supervisor->events, &(Event){
                                                           .kind = EVENT_CHECKPOINT_FAILED,
                                                           .runner = runner->name,
                                                           .instance = runner->last_instance,
                                                           .text = why,
                                                   });
}

static void _printf_(3, 4) fail(Checkpoint *checkpoint, Status status, const char *format, ...) {
        CheckpointResult result = { .status = status };
        char why[MANIFEST_REASON_SIZE];
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(why, sizeof(why), format, arguments);
        va_end(arguments);
        result.message = why;
        clear(checkpoint);
        note_failure(checkpoint, why);
        loop_task_queue(checkpoint->runner->supervisor->loop, &checkpoint->next);
        tell(checkpoint, &result, false);
}

static void succeed(Checkpoint *checkpoint) {
        Runner *runner = checkpoint->runner;
        const Instance *instance = checkpoint->instance;
        CheckpointResult result = { .status = STATUS_OK, .message = "" };

        if (checkpoint->last_instance != instance->id)
                checkpoint->number = 0;
        checkpoint->last_instance = instance->id;
        checkpoint->n_done++;
        result.number = ++checkpoint->number;
        result.state_size = checkpoint->state_size;
        result.n_fds = checkpoint->n_fds;
        free(checkpoint->why);
        checkpoint->why = NULL;
        log_debug("runner %s: checkpoint %" PRIu64 " of pid %d, %" PRIu64 " bytes and %u descriptors, in %g ms",
                  runner->name, checkpoint->number, instance->pid, result.state_size, result.n_fds,
                  (double) (clock_now() - checkpoint->began_us) / USEC_PER_MSEC);
        clear(checkpoint);
        arm(runner, clock_now());
        loop_task_queue(runner->supervisor->loop, &checkpoint->next);
        tell(checkpoint, &result, false);
}

static void late(LoopTimer *timer) {
        Checkpoint *checkpoint = CONTAINER_OF(timer, Checkpoint, late);

        fail(checkpoint, STATUS_DEADLINE_EXCEEDED, "it took more than %g s",
             (double) checkpoint->timeout_us / USEC_PER_SEC);
}

/* ------------------------------------------------------------------------------------------------------------- the steps */

static void kept(int result, void *userdata) {
        Checkpoint *checkpoint = userdata;

        checkpoint->keeping = NULL;
        if (result < 0)
                fail(checkpoint, STATUS_RESOURCE_EXHAUSTED, "the keeper cannot hold its %u descriptors: %s",
                     checkpoint->n_fds + CHECKPOINT_OTHER_FDS, strerror(-result));
        else
                succeed(checkpoint);
}

/* check_memory() - the size of what must be sealed memory. */
static int check_memory(const Manifest *manifest, size_t i, uint64_t max, uint64_t *ret_size, char *reason) {
        MemfdMapping mapping = { 0 };
        int r = memfd_map_sealed(manifest->fds[i], max, &mapping);

        *ret_size = mapping.size;
        memfd_unmap(&mapping);
        if (r == -EFBIG)
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "the %s has more than the %llu bytes that it may have",
                                manifest->entries[i]->name, (unsigned long long) max);
        else if (r < 0)
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "the %s is no sealed memory: %s",
                                manifest->entries[i]->name, strerror(-r));
        return r;
}

/* check() - whether it is what a Save of a checkpoint gives, and what the runner has said of it. */
static int check(Checkpoint *checkpoint, const Manifest *manifest, char reason[MANIFEST_REASON_SIZE]) {
        char name[32];
        uint64_t size;

        for (size_t i = 0; i < manifest->n; i++) {
                (void) snprintf(name, sizeof(name), "fd/%zu", i - CHECKPOINT_OTHER_FDS);
                if (strcmp(manifest->entries[i]->name, i == 0   ? SERVICE_SNAPSHOT_NAME
                                                       : i == 1 ? SERVICE_STATE_NAME
                                                                : name) == 0)
                        continue;
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "descriptor %zu is called %.100s", i,
                                manifest->entries[i]->name);
                return -EPROTO;
        }
        if (manifest->n < CHECKPOINT_OTHER_FDS) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "the state is missing");
                return -EPROTO;
        }
        if (check_memory(manifest, 0, SNAPSHOT_MAX, &size, reason) < 0 ||
            check_memory(manifest, 1, checkpoint->runner->config->checkpoint_max_state, &checkpoint->state_size,
                         reason) < 0)
                return -EPROTO;
        checkpoint->n_fds = (uint32_t) manifest->n - CHECKPOINT_OTHER_FDS;
        if (checkpoint->n_fds == checkpoint->said_fds && checkpoint->state_size == checkpoint->said_size)
                return 0;
        (void) snprintf(reason, MANIFEST_REASON_SIZE,
                        "%u descriptors and %llu bytes came, and the runner says that it has given %u and %llu",
                        checkpoint->n_fds, (unsigned long long) checkpoint->state_size, checkpoint->said_fds,
                        (unsigned long long) checkpoint->said_size);
        return -EPROTO;
}

/* look() - all of it is here, and said to be all? */
static void look(Checkpoint *checkpoint) {
        char reason[MANIFEST_REASON_SIZE];
        int r;

        if (checkpoint->save || checkpoint->socket >= 0)
                return;
        if (checkpoint->transfer.failed) {
                fail(checkpoint, STATUS_ABORTED, "%s", checkpoint->transfer.reason);
                return;
        }
        if (check(checkpoint, &checkpoint->transfer.taken, reason) < 0) {
                fail(checkpoint, STATUS_INVALID_ARGUMENT, "%s", reason);
                return;
        }
        r = holder_keep(checkpoint->runner->supervisor->holder, checkpoint->instance, checkpoint->state_size,
                        &checkpoint->transfer.taken, kept, checkpoint, &checkpoint->keeping);
        if (r < 0)
                fail(checkpoint, STATUS_RESOURCE_EXHAUSTED, "it cannot be given to the keeper: %s", strerror(-r));
}

static void readable(LoopIo *io, unsigned events) {
        Checkpoint *checkpoint = CONTAINER_OF(io, Checkpoint, io);
        Transfer *transfer = &checkpoint->transfer;
        TransferState state = transfer_step(transfer);

        (void) events;
        if (transfer->listed > transfer->most) {
                fail(checkpoint, STATUS_RESOURCE_EXHAUSTED, "%zu descriptors, and it may have %zu",
                     transfer->listed - CHECKPOINT_OTHER_FDS, transfer->most - CHECKPOINT_OTHER_FDS);
        } else if (state == TRANSFER_SAID) { /* words might come without end, and nothing else have its turn */
                fail(checkpoint, STATUS_INVALID_ARGUMENT, "a word came, and none was expected");
        } else if (state == TRANSFER_FAILED || state == TRANSFER_DONE) {
                /* If it failed the runner has refused, and its answer says why; or we have, and this end of it tells it so. */
                loop_io_stop(&checkpoint->io);
                checkpoint->socket = fd_close(checkpoint->socket);
                look(checkpoint);
        } else {
                loop_io_set(checkpoint->runner->supervisor->loop, &checkpoint->io, checkpoint->socket,
                            LOOP_IN | (transfer_events(transfer) & POLLOUT ? LOOP_OUT : 0));
        }
}

static void saved(Call *call, const Answer *answer, void *userdata) {
        _cleanup_message_ Baton__SaveResponse *response = NULL;
        Checkpoint *checkpoint = userdata;

        (void) call;
        checkpoint->save = NULL;
        if (answer->status == STATUS_OK)
                response = message_unpack(&baton__save_response__descriptor, answer->payload, answer->size);
        if (answer->local && answer->status == STATUS_UNAVAILABLE) {
                checkpoint_ended(checkpoint->instance);
        } else if (answer->status != STATUS_OK) {
                fail(checkpoint, answer->status, "%s", answer->message);
        } else if (!response) {
                fail(checkpoint, STATUS_INTERNAL, "its answer to Save is no SaveResponse");
        } else {
                checkpoint->said_size = response->state_size;
                checkpoint->said_fds = response->descriptors;
                look(checkpoint);
        }
}

static void begin(Checkpoint *checkpoint) {
        const RunnerConfig *config = checkpoint->runner->config;
        Supervisor *supervisor = checkpoint->runner->supervisor;
        CheckpointWaiter *waiter;
        int ends[2], r;

        TAILQ_FOREACH (waiter, &checkpoint->waiting, link)
                waiter->begun = true;
        checkpoint->instance = checkpoint->runner->instance;
        runner_touch(checkpoint->runner);
        checkpoint->began_us = clock_now();
        checkpoint->timeout_us = config->checkpoint_timeout_us;
        r = fd_socketpair(SOCK_SEQPACKET, ends);
        if (r == 0) {
                checkpoint->socket = ends[0];
                transfer_take(&checkpoint->transfer, ends[0], 1, SERVICE_SNAPSHOT_VERSION);
                checkpoint->transfer.most = config->checkpoint_max_fds + CHECKPOINT_OTHER_FDS;
                r = instance_ask_save(checkpoint->instance, true, ends[1], saved, checkpoint, &checkpoint->save);
        }
        if (r < 0) {
                checkpoint->save = NULL;
                fail(checkpoint, STATUS_RESOURCE_EXHAUSTED, "it cannot be asked for: %s", strerror(-r));
                return;
        }
        loop_io_set(supervisor->loop, &checkpoint->io, checkpoint->socket, LOOP_IN);
        loop_timer_set(supervisor->loop, &checkpoint->late, clock_after(checkpoint->began_us, checkpoint->timeout_us));
}

/* ------------------------------------------------------------------------------------------------------------ who may ask */

const char *checkpoint_refusal(const Runner *runner) {
        const Instance *instance = runner->instance;

        if (runner->config->recover != CONFIG_RECOVER_FAILOVER)
                return "keeps no checkpoints: that needs 'recover: failover' in its configuration";
        if (!instance || instance->over || instance->state == PROCESS_STOPPING || instance->state == PROCESS_DOWN)
                return "is not running";
        if (instance->state == PROCESS_UP && !instance->saves)
                return "keeps its state to itself: it has registered no service";
        return NULL;
}

/* may_begin() - now; else what it waits for wakes it. */
static bool may_begin(const Checkpoint *checkpoint) {
        const Runner *runner = checkpoint->runner;
        const Instance *instance = runner->instance;

        return !checkpoint->instance && !TAILQ_EMPTY(&checkpoint->waiting) && !runner->upgrade &&
               !runner->supervisor->takeover && !runner->supervisor->held && instance &&
               instance->state == PROCESS_UP && instance->peer && peer_is_ready(instance->peer);
}

static void begin_next(LoopTask *task) {
        Checkpoint *checkpoint = CONTAINER_OF(task, Checkpoint, next);
        CheckpointResult result = { .status = STATUS_FAILED_PRECONDITION };

        if (!may_begin(checkpoint))
                return;
        result.message = checkpoint_refusal(checkpoint->runner);
        if (result.message)
                tell(checkpoint, &result, true);
        else
                begin(checkpoint);
}

int checkpoint_ask(Runner *runner, CheckpointWaiter *waiter) {
        Checkpoint *checkpoint = checkpoint_of(runner);

        if (!checkpoint)
                return -ENOMEM;
        waiter->checkpoint = checkpoint;
        waiter->begun = false;
        TAILQ_INSERT_TAIL(&checkpoint->waiting, waiter, link);
        loop_task_queue(runner->supervisor->loop, &checkpoint->next);
        return 0;
}

void checkpoint_unask(CheckpointWaiter *waiter) {
        if (!waiter->checkpoint)
                return;
        TAILQ_REMOVE(&waiter->checkpoint->waiting, waiter, link);
        waiter->checkpoint = NULL;
}

/* --------------------------------------------------------------------------------------------------- what becomes of it */

void checkpoint_wake(Runner *runner) {
        Kept *last = holder_kept(runner->supervisor->holder, runner);

        arm(runner, last ? holder_kept_entry(runner->supervisor->holder, last)->since_us : clock_now());
        if (runner->checkpoint)
                loop_task_queue(runner->supervisor->loop, &runner->checkpoint->next);
}

void checkpoint_wake_all(Supervisor *supervisor) {
        for (Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                if (runner->checkpoint || runner->config->checkpoint_every_us > 0)
                        checkpoint_wake(runner);
}

static void nobody(CheckpointWaiter *waiter, const CheckpointResult *result) {
        (void) result;
        free(waiter);
}

void checkpoint_renew(Runner *runner) {
        CheckpointWaiter *waiter = NULL;

        if (checkpoint_refusal(runner))
                return;
        if (runner->checkpoint && (waiter = TAILQ_LAST(&runner->checkpoint->waiting, CheckpointWaiters)) &&
            !waiter->begun)
                return; /* there will be one anyway */
        waiter = calloc(1, sizeof(*waiter));
        if (!waiter)
                return;
        waiter->callback = nobody;
        if (checkpoint_ask(runner, waiter) < 0)
                free(waiter);
}

/* again() - those whose one was broken off wait for the next. */
static void again(Checkpoint *checkpoint) {
        CheckpointWaiter *waiter;

        clear(checkpoint);
        TAILQ_FOREACH (waiter, &checkpoint->waiting, link)
                waiter->begun = false;
        loop_task_queue(checkpoint->runner->supervisor->loop, &checkpoint->next);
}

void checkpoint_interrupt(Runner *runner) {
        if (runner->checkpoint && runner->checkpoint->instance)
                again(runner->checkpoint);
}

/* What was not kept by now is not: who begins from the one before must not find another one later. */
void checkpoint_ended(const Instance *instance) {
        Checkpoint *checkpoint = instance->runner->checkpoint;
        const CheckpointResult result = { .status = STATUS_UNAVAILABLE, .message = "its process has ended" };

        if (!checkpoint)
                return;
        if (checkpoint->instance == instance)
                again(checkpoint);
        if (!instance_is_present(instance))
                return;
        loop_timer_stop(&checkpoint->every);
        tell(checkpoint, &result, true);
}

Checkpoint *checkpoint_free(Checkpoint *checkpoint) {
        const CheckpointResult result = { .status = STATUS_UNAVAILABLE, .message = "the runner is gone" };

        if (!checkpoint)
                return NULL;
        clear(checkpoint);
        loop_timer_stop(&checkpoint->every);
        loop_task_cancel(&checkpoint->next);
        tell(checkpoint, &result, true);
        free(checkpoint->why);
        free(checkpoint);
        return NULL;
}

bool checkpoint_is_under_way(const Runner *runner) {
        return runner->checkpoint && runner->checkpoint->instance;
}

CheckpointCounts checkpoint_counts(const Runner *runner) {
        const Checkpoint *checkpoint = runner->checkpoint;

        if (!checkpoint)
                return (CheckpointCounts){ 0 };
        return (CheckpointCounts){ checkpoint->n_done, checkpoint->n_failed, checkpoint->why };
}

/* ---------------------------------------------------------------------------------------------------- the runner's wishes */

typedef struct Wish {
        CheckpointWaiter waiter;
        Call *call;
} Wish;

static void granted(CheckpointWaiter *waiter, const CheckpointResult *result) {
        Wish *wish = CONTAINER_OF(waiter, Wish, waiter);
        Baton__CheckpointResponse response = BATON__CHECKPOINT_RESPONSE__INIT;
        Call *call = wish->call;

        free(wish);
        call_on_cancel(call, NULL, NULL);
        response.number = result->number;
        if (result->status == STATUS_OK)
                (void) call_answer_message(call, &response.base);
        else
                (void) call_fail(call, result->status, "%s", result->message);
}

static void wish_cancelled(Call *call, void *userdata) {
        Wish *wish = userdata;

        checkpoint_unask(&wish->waiter);
        free(wish);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

void checkpoint_restore_call(Instance *instance, Call *call) {
        Wish *wish = calloc(1, sizeof(*wish));

        if (wish)
                *wish = (Wish){ .waiter = { .callback = granted }, .call = call };
        if (!wish || checkpoint_ask(instance->runner, &wish->waiter) < 0) {
                free(wish);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for a checkpoint");
                return;
        }
        call_on_cancel(call, wish_cancelled, wish);
}

void checkpoint_handle(Instance *instance, Call *call) {
        const char *refusal = instance->is_past ? NULL : checkpoint_refusal(instance->runner);

        if (refusal)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "the runner %s", refusal);
        else
                checkpoint_restore_call(instance, call);
}

void checkpoint_each_call(const Instance *instance, void (*function)(const Call *call, void *userdata),
                          void *userdata) {
        const CheckpointWaiter *waiter;

        if (!instance->runner->checkpoint)
                return;
        TAILQ_FOREACH (waiter, &instance->runner->checkpoint->waiting, link) {
                const Wish *wish = CONTAINER_OF(waiter, Wish, waiter);

                if (waiter->callback == granted && call_peer(wish->call) == instance->peer)
                        function(wish->call, userdata);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What other threads than the loop's hand in: items, answers, the end of a stream, references. The loop's own thread
 * never comes here but to collect; a call that no other thread has touched costs it two loads.
 *
 * Items go through an outbox, one for each stream that has any: a bounded hand-off, so that a stream that stands still
 * holds up the threads that feed it and nobody else. The loop takes an item, and gives its room back when the stream has
 * taken it: so full is what the threads see of the stream's own flow control. Everything else is a notice on the handle
 * itself, which needs no memory, cannot be refused and never waits; it takes effect after the items handed in before.
 *
 * Lifetimes. A producer may still be on its way out of a push (to wake the loop) when its item was sent, the call
 * answered, the handle recycled. Therefore a push touches nothing but the outbox once the item is in, and outboxes live as
 * long as the Handles: at worst a recycled one is looked at for nothing. Notices are put up and done with under the lock.
 * They are not closed when a call is over, since they are used again; their content is thrown away as it comes instead.
 *
 * Locks: handles->lock guards lists, notices and which handle an outbox serves; a hand-off has its own, and neither is
 * taken inside the other but for handles->lock around handoff_close().
 */

#include "proto/handle-internal.h"

#include <errno.h>
#include <string.h>

#define OUTBOX_BYTES (256u * 1024u) /* an item that is larger counts as this much */
#define LOOK_AT_MOST 64u            /* before descriptors have their turn again */

/* What the protocol counts an item for. */
#define ITEM_COST 64u
#define FD_COST   4096u

/* ---- which thread ---- */

bool handles_is_loop_thread(const Handles *handles) {
        return handles_in_loop(handles);
}

int handles_dispatch(Handles *handles, int timeout_ms) {
        if (!handles_in_loop(handles))
                atomic_store_explicit(&handles->loop_thread, pthread_self(), memory_order_relaxed);
        return endpoint_dispatch(handles->endpoint, timeout_ms);
}

/* ---- work ---- */

static size_t string_size(const char *text) {
        return text ? strlen(text) + 1 : 1;
}

/* add_string() - @text or "" at *@to, which moves on. */
static const char *add_string(char **to, const char *text) {
        char *copy = *to;
        size_t size = string_size(text);

        memcpy(copy, text ? text : "", size);
        *to += size;
        return copy;
}

Work *work_new(Status status, const char *message, const ItemParameters *parameters) {
        size_t fds_size = parameters->n_fds * sizeof(int);
        Work *work = malloc(sizeof(*work) + fds_size + string_size(message) + string_size(parameters->type) +
                            parameters->size);
        char *end;

        if (!work)
                return NULL;
        *work = (Work){ .status = status, .size = parameters->size, .n_fds = parameters->n_fds };
        work->fds = (int *) work->bytes;
        if (fds_size > 0)
                memcpy(work->fds, parameters->fds_consume, fds_size);
        end = (char *) work->bytes + fds_size;
        work->type = add_string(&end, parameters->type);
        work->message = add_string(&end, message);
        work->payload = end;
        if (parameters->size > 0)
                memcpy(end, parameters->payload, parameters->size);
        return work;
}

Work *work_free(Work *work) {
        if (!work)
                return NULL;
        fd_close_all(work->fds, work->n_fds);
        free(work);
        return NULL;
}

static void destroy(HandoffNode *node) {
        (void) work_free(CONTAINER_OF(node, Work, node));
}

/* ---- telling the loop ---- */

/* wake() - unlocks, and tells the loop to look, unless it was told. */
static void wake(Handles *handles) {
        bool woken = handles->woken;

        handles->woken = true;
        (void) pthread_mutex_unlock(&handles->lock);
        if (!woken)
                endpoint_wake(handles->endpoint);
}

/* on_edge() - a hand-off has something: its outbox may serve another call by now. */
static void on_edge(void *userdata) {
        Outbox *outbox = userdata;
        Handles *handles = outbox->handles;

        (void) pthread_mutex_lock(&handles->lock);
        if (!outbox->signalled)
                STAILQ_INSERT_TAIL(&handles->signals, outbox, signal);
        outbox->signalled = true;
        wake(handles);
}

void handle_notice(Handle *handle, const Due *due) {
        Handles *handles = handle->connection->handles;

        (void) pthread_mutex_lock(&handles->lock);
        handle->noticed.answers |= due->answers;
        handle->noticed.ends |= due->ends;
        handle->noticed.unrefs += due->unrefs;
        if (due->answer)
                handle->noticed.answer = due->answer;
        if (!handle->in_notices)
                STAILQ_INSERT_TAIL(&handles->notices, handle, notice);
        handle->in_notices = true;
        wake(handles);
}

/* on_room() - in the loop's thread, which has made it: told when the loop has done with the hand-off. */
static void on_room(HandoffWaiter *waiter) {
        Outbox *outbox = CONTAINER_OF(waiter, Outbox, waiter);

        if (outbox->handle)
                outbox->handle->told_to_wait = true;
}

/* ---- outboxes ---- */

/* outbox_new() - 0 or a negative errno; the lock is held. */
static int outbox_new(Handles *handles, Outbox **ret_outbox) {
        Outbox *outbox = STAILQ_FIRST(&handles->free_outboxes);
        HandoffConfig config = {
                .policy = HANDOFF_PARK, .max_bytes = OUTBOX_BYTES, .destroy = destroy, .wake = on_edge
        };
        int r;

        if (outbox) {
                STAILQ_REMOVE_HEAD(&handles->free_outboxes, link);
                *ret_outbox = outbox;
                return 0;
        }
        outbox = calloc(1, sizeof(*outbox));
        if (!outbox)
                return -ENOMEM;
        config.userdata = outbox;
        r = handoff_init(&outbox->queue, &config);
        if (r < 0) {
                free(outbox);
                return r;
        }
        outbox->handles = handles;
        outbox->waiter = HANDOFF_WAITER_NULL(on_room);
        LIST_INSERT_HEAD(&handles->outboxes, outbox, all);
        *ret_outbox = outbox;
        return 0;
}

/* get_outbox() - of @handle, which gets one if it has none. 0, -ECANCELED: nobody will look into it; -ENOMEM. */
static int get_outbox(Handle *handle, Outbox **ret_outbox) {
        Handles *handles = handle->connection->handles;
        Outbox *outbox = atomic_load_explicit(&handle->outbox, memory_order_acquire);
        int r = 0;

        if (!outbox) {
                (void) pthread_mutex_lock(&handles->lock);
                outbox = atomic_load_explicit(&handle->outbox, memory_order_relaxed);
                if (handles->closed)
                        r = -ECANCELED;
                else if (!outbox)
                        r = outbox_new(handles, &outbox);
                if (r == 0) {
                        outbox->handle = handle;
                        atomic_store_explicit(&handle->outbox, outbox, memory_order_release);
                }
                (void) pthread_mutex_unlock(&handles->lock);
        }
        *ret_outbox = outbox;
        return r;
}

static void release_outbox(Handle *handle, Outbox *outbox) {
        Handles *handles = handle->connection->handles;

        handoff_cancel(&outbox->queue, &outbox->waiter);
        outbox->stuck = work_free(outbox->stuck);
        (void) pthread_mutex_lock(&handles->lock);
        outbox->handle = NULL;
        STAILQ_INSERT_HEAD(&handles->free_outboxes, outbox, link);
        (void) pthread_mutex_unlock(&handles->lock);
        atomic_store_explicit(&handle->outbox, NULL, memory_order_relaxed);
}

int handle_hand_in(Handle *handle, const ItemParameters *parameters, unsigned flags, uint64_t deadline) {
        uint64_t window = atomic_load_explicit(&handle->connection->window, memory_order_relaxed);
        uint64_t cost = parameters->size + ITEM_COST + (uint64_t) FD_COST * parameters->n_fds;
        size_t size = (size_t) MIN(cost, (uint64_t) OUTBOX_BYTES);
        Outbox *outbox;
        Work *work;
        int r;

        if (window > 0 && cost > window)
                return -EMSGSIZE;
        r = get_outbox(handle, &outbox);
        if (r < 0)
                return r;
        work = work_new(STATUS_OK, NULL, parameters);
        if (!work)
                return -ENOMEM;
        if (flags & BATON_NO_WAIT)
                r = handoff_push(&outbox->queue, &work->node, size, &outbox->waiter);
        else
                r = handoff_push_wait(&outbox->queue, &work->node, size, deadline);
        if (r == 0)
                return 0;
        work->n_fds = 0; /* they stay the caller's */
        (void) work_free(work);
        return r == -EAGAIN ? r : -ECANCELED;
}

/* ---- in the loop ---- */

/* send_work() - 0, or as call_send(). */
static int send_work(Handle *handle, Work *work) {
        ItemParameters parameters = {
                .type = work->type,
                .payload = work->payload,
                .size = work->size,
                .fds_consume = work->fds,
                .n_fds = work->n_fds,
        };
        int r = -ECANCELED;

        if (handle->call && !handle->broken)
                r = call_send(handle->call, &parameters);
        if (r == 0)
                work->n_fds = 0;
        return r;
}

/* next_work() - the one that is stuck, or the next. */
static Work *next_work(Outbox *outbox) {
        HandoffNode *node;

        if (outbox->stuck)
                return outbox->stuck;
        node = handoff_take(&outbox->queue);
        return node ? CONTAINER_OF(node, Work, node) : NULL;
}

bool handle_settle(Handle *handle) {
        Outbox *outbox = atomic_load_explicit(&handle->outbox, memory_order_acquire);
        Work *work;
        int r;

        while (outbox && (work = next_work(outbox))) {
                outbox->stuck = work;
                r = send_work(handle, work);
                if (r == -EAGAIN) {
                        if (handle->incoming)
                                call_handle_listen((CallHandle *) handle);
                        return false;
                }
                /* What cannot be sent for another reason than the call's end must not be missing silently. */
                handle->broken |= r < 0 && r != -ECANCELED && r != -EPIPE;
                outbox->stuck = NULL;
                handoff_release(&outbox->queue, &work->node);
                (void) work_free(work);
        }
        return !handle->due.answers && !handle->due.ends;
}

/* is_stuck() - whether an item waits for the stream. */
static bool is_stuck(Handle *handle) {
        const Outbox *outbox = atomic_load_explicit(&handle->outbox, memory_order_acquire);

        return outbox && outbox->stuck;
}

void handle_catch_up(Handle *handle) {
        Due due;

        (void) handle_settle(handle);
        if (is_stuck(handle))
                return;
        due = handle->due;
        handle->due = (Due){ 0 };
        if (due.ends && handle->call)
                (void) call_end(handle->call);
        if (due.answers)
                call_handle_finish((CallHandle *) handle, due.answer);
        else if (handle->broken && !handle->incoming && handle->call)
                request_break((RequestHandle *) handle);
        else
                handle_writable(handle);
        if (due.unrefs > 0) /* they have kept it until here */
                request_unref((RequestHandle *) handle, due.unrefs);
}

void handle_over(Handle *handle) {
        atomic_store_explicit(&handle->over, true, memory_order_relaxed);
        if (atomic_load_explicit(&handle->outbox, memory_order_acquire))
                (void) handle_settle(handle);
}

/* take_notice() - what is due of a handle that has notices; NULL: none has. */
static Handle *take_notice(Handles *handles) {
        Handle *handle;

        (void) pthread_mutex_lock(&handles->lock);
        handle = STAILQ_FIRST(&handles->notices);
        if (handle) {
                STAILQ_REMOVE_HEAD(&handles->notices, notice);
                handle->in_notices = false;
                handle->due.answers |= handle->noticed.answers;
                handle->due.ends |= handle->noticed.ends;
                handle->due.unrefs += handle->noticed.unrefs;
                if (handle->noticed.answer)
                        handle->due.answer = handle->noticed.answer;
                handle->noticed = (Due){ 0 };
        }
        (void) pthread_mutex_unlock(&handles->lock);
        return handle;
}

/* take_signal() - a handle whose outbox has something; false: there is no more. */
static bool take_signal(Handles *handles, Handle **ret_handle) {
        Outbox *outbox;

        (void) pthread_mutex_lock(&handles->lock);
        outbox = STAILQ_FIRST(&handles->signals);
        if (outbox) {
                STAILQ_REMOVE_HEAD(&handles->signals, signal);
                outbox->signalled = false;
                *ret_handle = outbox->handle;
        }
        (void) pthread_mutex_unlock(&handles->lock);
        return outbox;
}

/* look_at() - true: there may be more. */
static bool look_at(Handles *handles) {
        Handle *handle;

        if (take_signal(handles, &handle)) {
                if (handle)
                        handle_catch_up(handle);
                return true;
        }
        handle = take_notice(handles);
        if (handle)
                handle_catch_up(handle);
        return handle;
}

static void look(EndpointTask *task) {
        Handles *handles = CONTAINER_OF(task, Handles, inbox);
        unsigned n = 0;

        /* First this: what comes from here on wakes anew. */
        (void) pthread_mutex_lock(&handles->lock);
        handles->woken = false;
        (void) pthread_mutex_unlock(&handles->lock);
        while (n < LOOK_AT_MOST && look_at(handles))
                n++;
        if (n == LOOK_AT_MOST)
                endpoint_defer(handles->endpoint, task);
        if (handles->on_wake)
                handles->on_wake(handles->userdata);
}

bool handle_is_answered(Handle *handle) {
        Handles *handles = handle->connection->handles;
        bool answered;

        (void) pthread_mutex_lock(&handles->lock);
        answered = handle->noticed.answers;
        (void) pthread_mutex_unlock(&handles->lock);
        return answered || handle->due.answers;
}

void handle_detach(Handle *handle) {
        Handles *handles = handle->connection->handles;
        Outbox *outbox = atomic_load_explicit(&handle->outbox, memory_order_acquire);

        (void) pthread_mutex_lock(&handles->lock);
        if (handle->in_notices)
                STAILQ_REMOVE(&handles->notices, handle, Handle, notice);
        handle->in_notices = false;
        (void) pthread_mutex_unlock(&handles->lock);
        (void) work_free(TAKE_PTR(handle->noticed.answer));
        (void) work_free(TAKE_PTR(handle->due.answer));
        if (outbox)
                release_outbox(handle, outbox);
}

/* ---- life ---- */

int handle_threads_init(Handles *handles) {
        int r = pthread_mutex_init(&handles->lock, NULL);

        if (r != 0)
                return -r;
        atomic_store_explicit(&handles->loop_thread, pthread_self(), memory_order_relaxed);
        STAILQ_INIT(&handles->signals);
        STAILQ_INIT(&handles->free_outboxes);
        STAILQ_INIT(&handles->notices);
        handles->inbox = ENDPOINT_TASK_NULL(look);
        endpoint_on_wake(handles->endpoint, &handles->inbox);
        return 0;
}

void handles_close(Handles *handles) {
        Outbox *outbox;

        (void) pthread_mutex_lock(&handles->lock);
        handles->closed = true;
        LIST_FOREACH (outbox, &handles->outboxes, all)
                handoff_close(&outbox->queue);
        (void) pthread_mutex_unlock(&handles->lock);
}

void handle_threads_deinit(Handles *handles) {
        Outbox *outbox;

        endpoint_on_wake(handles->endpoint, NULL);
        endpoint_cancel(handles->endpoint, &handles->inbox);
        while ((outbox = LIST_FIRST(&handles->outboxes))) {
                LIST_REMOVE(outbox, all);
                handoff_deinit(&outbox->queue);
                free(outbox);
        }
        (void) pthread_mutex_destroy(&handles->lock);
}

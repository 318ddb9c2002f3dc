/* SPDX-License-Identifier: Apache-2.0 */

/* Items of both directions, between the engine's form and the application's. */

#include "proto/handle-internal.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/parse.h"

bool handle_item(Handle *handle, const Item *item) {
        ItemView view = {
                .public = {
                        .type = item->envelope->type,
                        .data = item->payload ? (const void *) item->payload : "",
                        .size = item->size,
                        .fds = item->fds,
                        .n_fds = item->n_fds,
                        .end = item->end,
                },
                .connection = handle->connection,
                .shared = item->shared,
        };

        return handle->on_item(&view.public, handle->item_userdata) == 0;
}

void handle_writable(Handle *handle) {
        if (!handle->told_to_wait)
                return;
        handle->told_to_wait = false;
        if (handle->on_writable)
                handle->on_writable(handle->writable_userdata);
}

static bool has_outbox(Handle *handle) {
        return atomic_load_explicit(&handle->outbox, memory_order_relaxed);
}

/* is_direct() - whether nothing of other threads goes first. */
static bool is_direct(Handle *handle) {
        static const Due nothing;
        bool settled;

        if (!has_outbox(handle))
                return true;
        settled = handle_settle(handle);
        /* What that found out is told later, not from inside the application's call. */
        if (handle->broken || handle->told_to_wait)
                handle_notice(handle, &nothing);
        return settled;
}

/* send_here() - in the loop's thread. */
static int send_here(Handle *handle, const ItemParameters *parameters) {
        int r = is_direct(handle) ? 0 : -EAGAIN;

        if (handle->broken)
                return -ENOMEM;
        if (r == 0)
                r = call_send(handle->call, parameters);
        handle->told_to_wait |= r == -EAGAIN;
        return r;
}

/* lasts_until() - the deadline of the call, in another thread. */
static uint64_t lasts_until(const Handle *handle) {
        if (handle->incoming)
                return clock_after(clock_now(), call_time_left(handle->call));
        return ((const RequestHandle *) handle)->deadline;
}

int handle_send(Handle *handle, const ItemParameters *parameters, unsigned flags) {
        if (atomic_load_explicit(&handle->over, memory_order_relaxed))
                return -ECANCELED;
        if (atomic_load_explicit(&handle->no_items, memory_order_relaxed))
                return -EPIPE;
        if (handle_in_loop(handle))
                return send_here(handle, parameters);
        if (parameters->type && !utf8_is_valid(parameters->type, strlen(parameters->type)))
                return -EINVAL;
        return handle_hand_in(handle, parameters, flags, lasts_until(handle));
}

int handle_send_buffer(Handle *handle, Buffer *buffer) {
        ItemParameters parameters = { .buffer = buffer_own(buffer) };
        int r = parameters.buffer ? handle_send(handle, &parameters, 0) : -EINVAL;

        if (r == 0)
                buffer_sent(buffer);
        return r;
}

int handle_end(Handle *handle) {
        if (atomic_load_explicit(&handle->over, memory_order_relaxed))
                return -ECANCELED;
        if (atomic_exchange_explicit(&handle->no_items, true, memory_order_relaxed))
                return -EPIPE;
        if (handle_in_loop(handle) && is_direct(handle))
                return call_end(handle->call);
        handle_notice(handle, &(Due){ .ends = true });
        return 0;
}

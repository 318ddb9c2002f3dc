/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls of ours. A handle is valid until its function has returned, and longer for threads that hold a reference: those
 * find out by -ECANCELED that the call is over.
 */

#include "proto/handle-internal.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"

/* ---- objects ---- */

static RequestHandle *request_new(Connection *connection) {
        Handles *handles = connection->handles;
        RequestHandle *request = spare_alloc(&handles->spare_requests, sizeof(*request));

        if (!request)
                return NULL;
        *request = (RequestHandle){ .handle = { .connection = connection }, .refs = 1 };
        LIST_INSERT_HEAD(&connection->requests, request, link);
        return request;
}

static void release(RequestHandle *request) {
        Handles *handles = request->handle.connection->handles;

        if (atomic_load_explicit(&request->handle.outbox, memory_order_relaxed))
                handle_detach(&request->handle);
        LIST_REMOVE(request, link);
        spare_free(&handles->spare_requests, request);
}

void request_unref(RequestHandle *request, unsigned n) {
        Connection *connection = request->handle.connection;

        request->refs -= n;
        if (request->refs > 0)
                return;
        release(request);
        connection_check(connection);
}

void request_orphan(RequestHandle *request) {
        if (request->is_child)
                LIST_REMOVE(request, child_link);
        request->is_child = false;
}

void request_handle_forget(RequestHandle *request) {
        request_orphan(request);
        handle_detach(&request->handle);
        release(request);
}

/* ---- answers ---- */

/* tell() - what became of it; the handle may be gone afterwards. */
static void tell(RequestHandle *request, const AnswerView *view) {
        request->handle.call = NULL;
        request_orphan(request);
        handle_over(&request->handle);
        if (request->function)
                request->function(&view->public, request->userdata);
        request_unref(request, 1);
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        AnswerView view = {
                .public = {
                        .status = (enum baton_status) answer->status,
                        .message = answer->message,
                        .type = answer->envelope->type,
                        .data = answer->payload ? (const void *) answer->payload : "",
                        .size = answer->size,
                        .fds = answer->fds,
                        .n_fds = answer->n_fds,
                },
                .envelope = answer->envelope,
                .connection = ((RequestHandle *) userdata)->handle.connection,
                .shared = answer->shared,
        };

        (void) call;
        tell(userdata, &view);
}

/* end_here() - ends the call, and tells why. */
static void end_here(RequestHandle *request, enum baton_status status, const char *message) {
        Baton__Envelope none = BATON__ENVELOPE__INIT;
        AnswerView view = {
                .public = { .status = status, .message = message, .type = "", .data = "" },
                .envelope = &none,
        };

        call_cancel(request->handle.call);
        tell(request, &view);
}

void request_cancel_children(struct RequestHandleList *children) {
        RequestHandle *child;

        while ((child = LIST_FIRST(children)))
                end_here(child, BATON_CANCELLED, "nobody waits any more for the call that it was made for");
}

void request_break(RequestHandle *request) {
        end_here(request, BATON_RESOURCE_EXHAUSTED, "no memory for an item");
}

/* ---- calls ---- */

static bool on_item(Call *call, const Item *item, void *userdata) {
        RequestHandle *request = userdata;

        (void) call;
        return handle_item(&request->handle, item);
}

static void on_writable(Call *call, void *userdata) {
        RequestHandle *request = userdata;

        (void) call;
        handle_catch_up(&request->handle);
}

/* complete() - @given, or, where the caller knew of fewer fields, @ret_copy with them and nothing else. */
static const struct baton_call_parameters *complete(const struct baton_call_parameters *given,
                                                    struct baton_call_parameters *ret_copy) {
        if (given->size >= sizeof(*given))
                return given;
        *ret_copy = (struct baton_call_parameters){ 0 };
        memcpy(ret_copy, given, given->size);
        return ret_copy;
}

/* check() - 0, or why there cannot be such a call. */
static int check(const Connection *connection, const struct baton_call_parameters *given) {
        if (given->channel != BATON_CHANNEL_RPC &&
            ((unsigned) given->channel >= LANE_CHANNELS || !(connection->framed & 1u << given->channel)))
                return -EINVAL;
        if (given->parent && baton_call_is_cancelled(given->parent))
                return -ECANCELED;
        return given->method ? 0 : -EINVAL;
}

/* time_left() - for a call with these parameters: 0, for ever. What has passed already is as short as it gets. */
static uint64_t time_left(const struct baton_call_parameters *given) {
        uint64_t left = given->parent ? baton_call_time_left(given->parent) : UINT64_MAX;

        if (left == UINT64_MAX || (given->timeout_us > 0 && given->timeout_us < left))
                return given->timeout_us;
        return MAX(left, UINT64_C(1));
}

static int start(RequestHandle *request, const struct baton_call_parameters *given) {
        Baton__Pair pair = BATON__PAIR__INIT, *pairs = &pair;
        CallParameters parameters = {
                .channel = given->channel,
                .method = given->method,
                .type = given->type,
                .payload = given->data,
                .size = given->data_size,
                .timeout_us = time_left(given),
                .fds_consume = given->fds_consume,
                .n_fds = given->n_fds,
                .metadata = &pairs,
                .n_metadata = given->metadata_key ? 1 : 0,
                .buffer = buffer_take_own(given->buffer),
                .stream = given->stream,
                .item = given->on_item ? on_item : NULL,
                .writable = on_writable,
        };

        request->deadline = parameters.timeout_us ? clock_after(clock_now(), parameters.timeout_us) : USEC_INFINITY;
        if (given->metadata_key) {
                pair.key = (char *) given->metadata_key;
                pair.value = (ProtobufCBinaryData){ given->metadata_size, (uint8_t *) given->metadata_value };
        }
        return call_start(request->handle.connection->peer, &parameters, on_done, request, &request->handle.call);
}

static void set_functions(RequestHandle *request, const struct baton_call_parameters *given, baton_answer_fn function,
                          void *userdata) {
        request->function = function;
        request->userdata = userdata;
        request->handle.on_item = given->on_item;
        request->handle.item_userdata = userdata;
        request->handle.on_writable = given->on_writable;
        request->handle.writable_userdata = userdata;
        atomic_init(&request->handle.no_items, !given->stream);
}

int baton_connection_call(struct baton_connection *connection, const struct baton_call_parameters *parameters,
                          baton_answer_fn function, void *userdata, struct baton_request **ret_request) {
        struct baton_call_parameters copy;
        const struct baton_call_parameters *given = complete(parameters, &copy);
        int r = check(connection, given);
        RequestHandle *request = r == 0 ? request_new(connection) : NULL;

        if (!request) {
                for (size_t i = 0; i < given->n_fds; i++)
                        fd_close(given->fds_consume[i]);
                baton_buffer_free(given->buffer);
                return r < 0 ? r : -ENOMEM;
        }
        set_functions(request, given, function, userdata);
        r = start(request, given);
        if (r < 0) {
                request_unref(request, 1);
                return r;
        }
        if (given->parent) {
                request->is_child = true;
                LIST_INSERT_HEAD(&given->parent->children, request, child_link);
        }
        if (ret_request)
                *ret_request = request;
        return 0;
}

void baton_request_cancel(struct baton_request *request) {
        if (!request->handle.call)
                return; /* its function is running */
        call_cancel(TAKE_PTR(request->handle.call));
        request_orphan(request);
        handle_over(&request->handle);
        request_unref(request, 1);
}

void baton_request_ref(struct baton_request *request) {
        request->refs++;
}

void baton_request_unref(struct baton_request *request) {
        if (handle_in_loop(&request->handle))
                request_unref(request, 1);
        else
                handle_notice(&request->handle, &(Due){ .unrefs = 1 });
}

/* ---- our stream ---- */

int baton_request_send(struct baton_request *request, const char *type, const void *data, size_t size) {
        return baton_request_send_fds(request, type, data, size, NULL, 0, 0);
}

int baton_request_send_fds(struct baton_request *request, const char *type, const void *data, size_t size,
                           const int *fds, size_t n, unsigned flags) {
        ItemParameters parameters = {
                .type = type,
                .payload = data,
                .size = size,
                .fds_consume = fds,
                .n_fds = n,
        };

        return handle_send(&request->handle, &parameters, flags);
}

int baton_request_send_buffer(struct baton_request *request, struct baton_buffer *buffer) {
        return handle_send_buffer(&request->handle, buffer);
}

int baton_request_end(struct baton_request *request) {
        return handle_end(&request->handle);
}

void baton_request_resume(struct baton_request *request) {
        if (request->handle.call)
                call_resume(request->handle.call);
}

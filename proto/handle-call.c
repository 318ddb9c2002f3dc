/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls to us. Payloads are never copied on the way in: handlers read them where the frame was read.
 *
 * The children of a call are the requests that were made for it. Its cancellation is theirs: they are taken off it first,
 * since its own callback may end it, and told one by one afterwards, since each of theirs may end any other.
 */

#include "proto/handle-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"
#include "common/text.h"

#define MESSAGE_SIZE 1024u

/* ---- objects ---- */

static CallHandle *call_handle_new(Connection *connection) {
        Handles *handles = connection->handles;
        CallHandle *call = spare_alloc(&handles->spare_calls, sizeof(*call));

        if (!call)
                return NULL;
        *call = (CallHandle){ .handle = { .connection = connection, .incoming = true } };
        LIST_INSERT_HEAD(&connection->calls, call, link);
        handles->n_calls++;
        return call;
}

/* free_added() - what was added for the answer. */
static void free_added(CallHandle *call) {
        for (size_t i = 0; i < call->n_details; i++)
                free(call->details[i]);
        for (size_t i = 0; i < call->n_metadata; i++)
                free(call->metadata[i]);
        free(call->details);
        free(call->metadata);
}

static void release(CallHandle *call) {
        Handles *handles = call->handle.connection->handles;
        RequestHandle *child;

        while ((child = LIST_FIRST(&call->children)))
                request_orphan(child);
        if (call->details || call->metadata)
                free_added(call);
        if (atomic_load_explicit(&call->handle.outbox, memory_order_relaxed))
                handle_detach(&call->handle);
        LIST_REMOVE(call, link);
        handles->n_calls--;
        spare_free(&handles->spare_calls, call);
}

/* call_handle_ended() - the engine has it; the object waits for the next call. */
static void call_handle_ended(CallHandle *call) {
        Connection *connection = call->handle.connection;
        Handles *handles = connection->handles;

        release(call);
        connection_check(connection);
        if (handles->n_calls == 0 && handles->drained)
                handles->drained(handles->userdata);
}

void call_handle_forget(CallHandle *call) {
        (void) call_fail(call->handle.call, STATUS_UNAVAILABLE, "the connection has ended");
        handle_detach(&call->handle);
        release(call);
}

static void move_children(struct RequestHandleList *from, struct RequestHandleList *to) {
        *to = *from;
        if (!LIST_EMPTY(to))
                LIST_FIRST(to)->child_link.le_prev = &LIST_FIRST(to);
        LIST_INIT(from);
}

/* on_cancelled() - the engine's word, once, that nobody waits. */
static void on_cancelled(Call *engine_call, void *userdata) {
        struct RequestHandleList children = LIST_HEAD_INITIALIZER(children);
        CallHandle *call = userdata;

        (void) engine_call;
        move_children(&call->children, &children);
        handle_over(&call->handle);
        if (call->handle.due.answers)
                handle_catch_up(&call->handle);
        else if (call->on_cancel && !handle_is_answered(&call->handle))
                call->on_cancel(call, call->on_cancel_userdata);
        request_cancel_children(&children);
}

void connection_accept(Connection *connection, Call *call, baton_method_fn function, void *userdata) {
        CallHandle *handle = call_handle_new(connection);

        if (!handle) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        handle->handle.call = call;
        call_on_cancel(call, on_cancelled, handle);
        function(handle, userdata);
}

/* ---- what a call says ---- */

const void *bytes_value(const ProtobufCBinaryData *value, size_t *ret_size) {
        *ret_size = value->len;
        return value->data ? (const void *) value->data : "";
}

const void *envelope_find_pair(const Baton__Envelope *envelope, const char *key, size_t *ret_size) {
        for (size_t i = 0; i < envelope->n_metadata; i++)
                if (strcmp(envelope->metadata[i]->key, key) == 0)
                        return bytes_value(&envelope->metadata[i]->value, ret_size);
        *ret_size = 0;
        return NULL;
}

const char *baton_call_method(struct baton_call *call) {
        return call_envelope(call->handle.call)->method;
}

const char *baton_call_type(struct baton_call *call) {
        return call_envelope(call->handle.call)->type;
}

const void *baton_call_data(struct baton_call *call, size_t *ret_size) {
        return call_payload(call->handle.call, ret_size);
}

struct baton_connection *baton_call_connection(struct baton_call *call) {
        return call->handle.connection;
}

enum baton_channel baton_call_channel(struct baton_call *call) {
        return (enum baton_channel) call_channel(call->handle.call);
}

uint64_t baton_call_time_left(struct baton_call *call) {
        return call_time_left(call->handle.call);
}

const void *baton_call_metadata(struct baton_call *call, const char *key, size_t *ret_size) {
        return envelope_find_pair(call_envelope(call->handle.call), key, ret_size);
}

const void *baton_call_metadata_at(struct baton_call *call, size_t index, const char **ret_key, size_t *ret_size) {
        const Baton__Envelope *envelope = call_envelope(call->handle.call);

        if (index >= envelope->n_metadata)
                return NULL;
        *ret_key = envelope->metadata[index]->key;
        return bytes_value(&envelope->metadata[index]->value, ret_size);
}

size_t baton_call_n_fds(struct baton_call *call) {
        size_t n;

        (void) call_fds(call->handle.call, &n);
        return n;
}

int baton_call_take_fd(struct baton_call *call, size_t index) {
        size_t n;
        int *fds = call_fds(call->handle.call, &n);

        return index < n ? fd_take(&fds[index]) : -1;
}

void baton_call_on_cancel(struct baton_call *call, void (*function)(struct baton_call *call, void *userdata),
                          void *userdata) {
        call->on_cancel = function;
        call->on_cancel_userdata = userdata;
}

int baton_call_is_cancelled(struct baton_call *call) {
        return atomic_load_explicit(&call->handle.over, memory_order_relaxed);
}

/* ---- their streams ---- */

static bool on_item(Call *call, const Item *item, void *userdata) {
        (void) call;
        return handle_item(userdata, item);
}

static void on_writable(Call *call, void *userdata) {
        (void) call;
        handle_catch_up(userdata);
}

void call_handle_listen(CallHandle *call) {
        Handle *handle = &call->handle;

        call_on_stream(handle->call, handle->on_item ? on_item : NULL, on_writable, handle);
}

int baton_call_takes_items(struct baton_call *call) {
        return call_takes_items(call->handle.call);
}

void baton_call_on_item(struct baton_call *call, baton_item_fn function, void *userdata) {
        call->handle.on_item = function;
        call->handle.item_userdata = userdata;
        call_handle_listen(call);
}

void baton_call_on_writable(struct baton_call *call, baton_writable_fn function, void *userdata) {
        call->handle.on_writable = function;
        call->handle.writable_userdata = userdata;
        call_handle_listen(call);
}

int baton_call_send(struct baton_call *call, const char *type, const void *data, size_t size) {
        return baton_call_send_fds(call, type, data, size, NULL, 0, 0);
}

int baton_call_send_buffer(struct baton_call *call, struct baton_buffer *buffer) {
        return handle_send_buffer(&call->handle, buffer);
}

int baton_call_send_fds(struct baton_call *call, const char *type, const void *data, size_t size, const int *fds,
                        size_t n, unsigned flags) {
        ItemParameters parameters = {
                .type = type,
                .payload = data,
                .size = size,
                .fds_consume = fds,
                .n_fds = n,
        };

        return handle_send(&call->handle, &parameters, flags);
}

void baton_call_resume(struct baton_call *call) {
        call_resume(call->handle.call);
}

/* ---- answers ---- */

/* answer_here() - in the loop, with nothing of other threads before it; what was added to it before goes along. */
static int answer_here(CallHandle *call, AnswerParameters *parameters) {
        int r;

        parameters->details = call->details;
        parameters->n_details = call->n_details;
        parameters->metadata = call->metadata;
        parameters->n_metadata = call->n_metadata;
        r = call_answer(call->handle.call, parameters);
        call_handle_ended(call);
        return r;
}

void call_handle_finish(CallHandle *call, Work *answer_consume) {
        AnswerParameters parameters = { .status = STATUS_RESOURCE_EXHAUSTED };
        Work *answer = answer_consume;

        if (call->handle.broken || !answer) {
                parameters.message = answer ? "no memory for an item" : "no memory for the answer";
        } else {
                parameters.status = answer->status;
                parameters.message = answer->message;
                parameters.type = answer->type;
                parameters.payload = answer->payload;
                parameters.size = answer->size;
                parameters.fds_consume = answer->fds;
                parameters.n_fds = answer->n_fds;
                answer->n_fds = 0;
        }
        (void) answer_here(call, &parameters);
        (void) work_free(answer);
}

/* answer_later() - the loop does it, after the items that were handed in before. */
static int answer_later(CallHandle *call, const AnswerParameters *parameters) {
        ItemParameters copied = {
                .type = parameters->type,
                .payload = parameters->payload,
                .size = parameters->size,
                .fds_consume = parameters->fds_consume,
                .n_fds = parameters->n_fds,
        };
        bool over = atomic_load_explicit(&call->handle.over, memory_order_relaxed);
        Due due = { .answers = true };
        int r;

        if (!over)
                due.answer = work_new(parameters->status, parameters->message, &copied);
        for (size_t i = 0; !due.answer && i < parameters->n_fds; i++)
                fd_close(parameters->fds_consume[i]);
        r = due.answer ? 0 : over ? -ECANCELED : -ENOMEM;
        handle_notice(&call->handle, &due);
        return r;
}

/* answer() - ends the call; it is gone. */
static int answer(CallHandle *call, AnswerParameters *parameters) {
        assert(!call->ended); /* ended twice */
        call->ended = true;
        if (!handle_in_loop(&call->handle) || atomic_load_explicit(&call->handle.outbox, memory_order_relaxed))
                return answer_later(call, parameters);
        return answer_here(call, parameters);
}

int baton_call_answer(struct baton_call *call, const char *type, const void *data, size_t size) {
        AnswerParameters parameters = { .type = type, .payload = data, .size = size };

        return answer(call, &parameters);
}

int baton_call_answer_buffer(struct baton_call *call, struct baton_buffer *buffer_consume) {
        AnswerParameters parameters = { .buffer = buffer_take_own(buffer_consume) };
        int r;

        if (!atomic_load_explicit(&call->handle.outbox, memory_order_relaxed))
                return answer(call, &parameters);
        /* Items of other threads go first: it waits as a copy. */
        parameters.payload = peer_buffer_data(parameters.buffer, &parameters.size);
        r = answer(call, &(AnswerParameters){ .payload = parameters.payload, .size = parameters.size });
        (void) peer_buffer_free(parameters.buffer);
        return r;
}

int baton_call_answer_fds(struct baton_call *call, const char *type, const void *data, size_t size,
                          const int *fds_consume, size_t n) {
        AnswerParameters parameters = {
                .type = type,
                .payload = data,
                .size = size,
                .fds_consume = fds_consume,
                .n_fds = n,
        };

        return answer(call, &parameters);
}

int baton_call_fail(struct baton_call *call, enum baton_status status, const char *format, ...) {
        AnswerParameters parameters = { .status = status == BATON_OK ? STATUS_UNKNOWN : status_from_wire(status) };
        char message[MESSAGE_SIZE + 2] = "";
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        text_cut(message, MESSAGE_SIZE);
        (void) text_mend(message);
        parameters.message = message;
        return answer(call, &parameters);
}

/* grow() - room for one more pointer in the array of @n. */
static int grow(void *array, size_t n) {
        void **old = *(void ***) array, **grown;

        /* Doubled at powers of two. */
        if (n & (n - 1))
                return 0;
        grown = realloc(old, (n ? n * 2 : 1) * sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        *(void ***) array = grown;
        return 0;
}

/* entry_new() - @header bytes of a message that protobuf-c made, with copies of a text and bytes behind it. */
static void *entry_new(size_t header, const char *text, const void *data, size_t size, char **ret_text,
                       ProtobufCBinaryData *ret_value) {
        size_t length = strlen(text) + 1;
        char *entry = malloc(header + length + size);

        if (!entry)
                return NULL;
        *ret_text = memcpy(entry + header, text, length);
        ret_value->data = (uint8_t *) entry + header + length;
        ret_value->len = size;
        if (size > 0)
                memcpy(ret_value->data, data, size);
        return entry;
}

int baton_call_add_detail(struct baton_call *call, const char *type, const void *data, size_t size) {
        Baton__Detail detail = BATON__DETAIL__INIT, *entry;

        if (!utf8_is_valid(type, strlen(type)))
                return -EINVAL;
        if (grow(&call->details, call->n_details) < 0)
                return -ENOMEM;
        entry = entry_new(sizeof(*entry), type, data, size, &detail.type, &detail.value);
        if (!entry)
                return -ENOMEM;
        *entry = detail;
        call->details[call->n_details++] = entry;
        return 0;
}

int baton_call_add_metadata(struct baton_call *call, const char *key, const void *data, size_t size) {
        Baton__Pair pair = BATON__PAIR__INIT, *entry;

        if (!utf8_is_valid(key, strlen(key)))
                return -EINVAL;
        if (grow(&call->metadata, call->n_metadata) < 0)
                return -ENOMEM;
        entry = entry_new(sizeof(*entry), key, data, size, &pair.key, &pair.value);
        if (!entry)
                return -ENOMEM;
        *entry = pair;
        call->metadata[call->n_metadata++] = entry;
        return 0;
}

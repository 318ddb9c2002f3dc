/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The streams of baton-runner-echo. Nothing is stored: what cannot be sent yet is not taken, so that a caller who does
 * not read stands still alone.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "runner/echo.h"

#define SIZE_DEFAULT 64u
#define ITEM_MAX     (1024u * 1024u)

/* One open call. */
struct Stream {
        LIST_ENTRY(Stream) link;
        struct baton_call *call;
        uint64_t numbers[2]; /* items, bytes: taken, or sent */
        uint64_t to_send;    /* items */
        size_t size;         /* of each */
        uint8_t data[];
};

static void stream_free(Stream *stream) {
        LIST_REMOVE(stream, link);
        free(stream);
}

void streams_free(Echo *echo) {
        Stream *stream;

        while ((stream = LIST_FIRST(&echo->streams)))
                stream_free(stream);
}

static void on_cancelled(struct baton_call *call, void *userdata) {
        stream_free(userdata);
        (void) baton_call_fail(call, BATON_CANCELLED, "cancelled");
}

/* stream_new() - with room for items of @size. NULL: the call has been failed. */
static Stream *stream_new(Echo *echo, struct baton_call *call, size_t size) {
        Stream *stream = calloc(1, sizeof(*stream) + size);

        if (!stream) {
                (void) baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "out of memory");
                return NULL;
        }
        stream->call = call;
        stream->size = size;
        LIST_INSERT_HEAD(&echo->streams, stream, link);
        baton_call_on_cancel(call, on_cancelled, stream);
        return stream;
}

/* stream_fail() - an item that cannot be sent; after the call's end nothing is to be said. */
static void stream_fail(Stream *stream, int error) {
        if (error == -ECANCELED)
                return; /* on_cancelled() has come or comes */
        (void) baton_call_fail(stream->call, BATON_RESOURCE_EXHAUSTED, "cannot send item %llu: %s",
                               (unsigned long long) stream->numbers[0], strerror(-error));
        stream_free(stream);
}

/* ---- items to the caller ---- */

static void send_items(void *userdata) {
        Stream *stream = userdata;
        int r;

        while (stream->numbers[0] < stream->to_send) {
                r = baton_call_send(stream->call, "", stream->data, stream->size);
                if (r == -EAGAIN)
                        return;
                if (r < 0) {
                        stream_fail(stream, r);
                        return;
                }
                stream->numbers[0]++;
        }
        (void) baton_call_answer(stream->call, "", NULL, 0);
        stream_free(stream);
}

void echo_server_stream(struct baton_call *call, void *userdata) {
        _cleanup_(values_freep) Baton__Values *values = arguments_unpack(call);
        const Baton__Value *count, *size;
        Stream *stream;

        count = values ? argument_needed(call, values, 0, BATON__VALUE__V_U, "u64, how many items") : NULL;
        if (!count)
                return;
        size = argument_optional(values, 1, BATON__VALUE__V_U);
        if (size && size->u > ITEM_MAX) {
                (void) baton_call_fail(call, BATON_INVALID_ARGUMENT, "argument 2: at most %u bytes", ITEM_MAX);
                return;
        }
        stream = stream_new(userdata, call, size ? (size_t) size->u : SIZE_DEFAULT);
        if (!stream)
                return;
        stream->to_send = count->u;
        baton_call_on_writable(call, send_items, stream);
        send_items(stream);
}

/* ---- items from the caller ---- */

static int count_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;

        stream->numbers[0] += !item->end || item->size > 0 || item->n_fds > 0;
        stream->numbers[1] += item->size;
        if (item->end) {
                answer_numbers(stream->call, stream->numbers, ARRAY_SIZE(stream->numbers));
                stream_free(stream);
        }
        return 0;
}

void echo_client_stream(struct baton_call *call, void *userdata) {
        Stream *stream = stream_new(userdata, call, 0);

        if (!stream)
                return;
        if (baton_call_takes_items(call))
                baton_call_on_item(call, count_item, stream);
        else
                (void) count_item(&(struct baton_item){ .end = 1 }, stream);
}

/* ---- both ---- */

static void resume(void *userdata) {
        Stream *stream = userdata;

        baton_call_resume(stream->call);
}

static int return_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;
        int r = 0;

        if (!item->end || item->size > 0 || item->n_fds > 0)
                r = baton_call_send_fds(stream->call, item->type, item->data, item->size, item->fds, item->n_fds, 0);
        if (r == -EAGAIN)
                return 1;
        if (r < 0) {
                stream_fail(stream, r);
                return 0;
        }
        for (size_t i = 0; i < item->n_fds; i++)
                item->fds[i] = -1;
        stream->numbers[0]++;
        if (item->end) {
                (void) baton_call_answer(stream->call, "", NULL, 0);
                stream_free(stream);
        }
        return 0;
}

void echo_bidi(struct baton_call *call, void *userdata) {
        Stream *stream = stream_new(userdata, call, 0);

        if (!stream)
                return;
        baton_call_on_writable(call, resume, stream);
        if (baton_call_takes_items(call))
                baton_call_on_item(call, return_item, stream);
        else
                (void) return_item(&(struct baton_item){ .end = 1 }, stream);
}

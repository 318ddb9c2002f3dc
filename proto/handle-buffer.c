/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Buffers: large data without a copy, in both directions. One to be sent is the engine's, in memory shared with the peer
 * where that is agreed. One that was taken from a call, an answer or an item keeps the peer's memory as long as it is
 * held; where the data had come inline it is a copy, so that who takes it need not ask which.
 *
 * A buffer may outlive its connection; then there is nobody to give the memory back to, and it goes with the buffer.
 */

#include "proto/handle-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct baton_buffer {
        LIST_ENTRY(baton_buffer) link; /* connection->buffers */
        Connection *connection;        /* NULL: gone */
        PeerBuffer *own;               /* to be sent; else: */
        ArenaView view;                /* the peer's memory, or none: */
        size_t size;
        uint8_t copy[];
};

static Buffer *buffer_new(Connection *connection, size_t copied) {
        Buffer *buffer = malloc(sizeof(*buffer) + copied);

        if (!buffer)
                return NULL;
        *buffer = (Buffer){ .connection = connection, .view = ARENA_VIEW_NULL, .size = copied };
        LIST_INSERT_HEAD(&connection->buffers, buffer, link);
        return buffer;
}

static void buffer_forget(Buffer *buffer) {
        if (buffer->connection)
                LIST_REMOVE(buffer, link);
        free(buffer);
}

void connection_forget_buffers(Connection *connection) {
        Buffer *buffer;

        while ((buffer = LIST_FIRST(&connection->buffers))) {
                LIST_REMOVE(buffer, link);
                buffer->connection = NULL;
        }
}

int baton_buffer_new(struct baton_connection *connection, size_t size, struct baton_buffer **ret_buffer) {
        Buffer *buffer = buffer_new(connection, 0);
        int r;

        if (!buffer)
                return -ENOMEM;
        r = peer_buffer_new(connection->peer, size, &buffer->own);
        if (r < 0) {
                buffer_forget(buffer);
                return r;
        }
        *ret_buffer = buffer;
        return 0;
}

void *baton_buffer_data(struct baton_buffer *buffer, size_t *ret_size) {
        if (buffer->own)
                return peer_buffer_data(buffer->own, ret_size);
        *ret_size = buffer->view.mapping ? buffer->view.size : buffer->size;
        return buffer->view.mapping ? buffer->view.memory : buffer->copy;
}

int baton_buffer_trim(struct baton_buffer *buffer, size_t size) {
        return buffer->own ? peer_buffer_trim(buffer->own, size) : -EINVAL;
}

void baton_buffer_free(struct baton_buffer *buffer) {
        if (!buffer)
                return;
        (void) peer_buffer_free(buffer->own);
        if (buffer->connection)
                peer_view_release(buffer->connection->peer, &buffer->view);
        else
                arena_view_release(&buffer->view);
        buffer_forget(buffer);
}

PeerBuffer *buffer_take_own(Buffer *buffer_consume) {
        PeerBuffer *own = buffer_consume ? TAKE_PTR(buffer_consume->own) : NULL;

        if (buffer_consume)
                baton_buffer_free(buffer_consume);
        return own;
}

PeerBuffer *buffer_own(const Buffer *buffer) {
        return buffer ? buffer->own : NULL;
}

void buffer_sent(Buffer *buffer_consume) {
        buffer_consume->own = NULL;
        baton_buffer_free(buffer_consume);
}

Buffer *buffer_keep(Connection *connection, ArenaView *shared, const void *data, size_t size) {
        bool is_shared = shared && shared->mapping;
        Buffer *buffer = buffer_new(connection, is_shared ? 0 : size);

        if (!buffer)
                return NULL;
        if (is_shared) {
                buffer->view = *shared;
                *shared = ARENA_VIEW_NULL;
        } else if (size > 0) {
                memcpy(buffer->copy, data, size);
        }
        return buffer;
}

struct baton_buffer *baton_call_take_data(struct baton_call *call) {
        size_t size;
        const uint8_t *data = call_payload(call->handle.call, &size);

        return buffer_keep(call->handle.connection, call_shared(call->handle.call), data, size);
}

struct baton_buffer *baton_answer_take_data(const struct baton_answer *answer) {
        const AnswerView *view = CONTAINER_OF(answer, AnswerView, public);

        return view->connection ? buffer_keep(view->connection, view->shared, answer->data, answer->size) : NULL;
}

struct baton_buffer *baton_item_take_data(const struct baton_item *item) {
        const ItemView *view = CONTAINER_OF(item, ItemView, public);

        return buffer_keep(view->connection, view->shared, item->data, item->size);
}

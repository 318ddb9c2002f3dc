/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Handles and connections. A handle is a thin object around a call of the engine's. It exists because an application's
 * pointer must stay good until the application itself ends the call, whatever became of the peer, and because what an
 * answer collects before it is given (details, metadata) has to live somewhere. Handles that were ended are kept for the
 * next call, of any connection: a program at work allocates nothing here.
 *
 * A connection owns its peer and the list of its open handles. One whose peer has ended may still have some: calls to us
 * that a handler has yet to end, requests whose answer waits behind items that nobody took. Its owner retires it; the last
 * handle takes it along, from a task, since that happens inside the peer's own callbacks.
 */

#include "proto/handle-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/version.h"

/* ---- the loop ---- */

int handles_new(Handles **ret_handles, Endpoint *endpoint, void (*drained)(void *userdata), void *userdata) {
        Handles *handles = calloc(1, sizeof(*handles));
        int r;

        if (!handles)
                return -ENOMEM;
        handles->endpoint = endpoint;
        handles->drained = drained;
        handles->userdata = userdata;
        r = handle_threads_init(handles);
        if (r < 0) {
                free(handles);
                return r;
        }
        *ret_handles = handles;
        return 0;
}

void handles_on_wake(Handles *handles, void (*function)(void *userdata)) {
        handles->on_wake = function;
}

Handles *handles_free(Handles *handles) {
        Connection *connection;

        if (!handles)
                return NULL;
        while ((connection = LIST_FIRST(&handles->connections))) {
                assert(connection->retired);
                connection_free(connection);
        }
        spare_clear(&handles->spare_calls);
        spare_clear(&handles->spare_requests);
        handle_threads_deinit(handles);
        free(handles);
        return NULL;
}

size_t handles_open_calls(const Handles *handles) {
        return handles->n_calls;
}

/* ---- one peer ---- */

static void on_ready(Peer *peer, bool renewed) {
        Connection *connection = peer_userdata(peer);

        atomic_store_explicit(&connection->window, peer_remote(peer)->stream_window, memory_order_relaxed);
        if (!connection->retired && connection->handler->ready)
                connection->handler->ready(connection, renewed);
}

static void on_channel(Peer *peer, unsigned channel) {
        Connection *connection = peer_userdata(peer);

        if (!connection->retired && connection->handler->channel)
                connection->handler->channel(connection, channel);
}

static void on_call(Peer *peer, Call *call) {
        Connection *connection = peer_userdata(peer);

        if (!connection->retired && connection->handler->call)
                connection->handler->call(connection, call);
        else
                (void) call_fail(call, STATUS_UNIMPLEMENTED, "no methods here");
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Connection *connection = peer_userdata(peer);

        if (!connection->retired && connection->handler->ended)
                connection->handler->ended(connection, status, reason);
}

static const PeerHandler peer_handler = {
        .ready = on_ready,
        .channel = on_channel,
        .call = on_call,
        .ended = on_ended,
};

static void reap(EndpointTask *task) {
        connection_free(CONTAINER_OF(task, Connection, reap));
}

/* allocate() - NULL: no memory. */
static Connection *allocate(Handles *handles, const ConnectionHandler *handler, void *owner) {
        Connection *connection = calloc(1, sizeof(*connection));

        if (!connection)
                return NULL;
        connection->handles = handles;
        connection->handler = handler;
        connection->owner = owner;
        connection->reap = ENDPOINT_TASK_NULL(reap);
        LIST_INIT(&connection->buffers);
        LIST_INSERT_HEAD(&handles->connections, connection, link);
        return connection;
}

int connection_restore(Connection **ret_connection, Handles *handles, const PeerConfig *config,
                       const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
                       const ConnectionHandler *handler, void *owner, char reason[MANIFEST_REASON_SIZE]) {
        Connection *connection = allocate(handles, handler, owner);
        int r;

        if (!connection) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: no memory", prefix);
                return -ENOMEM;
        }
        r = endpoint_restore_peer(handles->endpoint, config, state, prefix, manifest, &peer_handler, connection,
                                  &connection->peer, reason);
        if (r < 0) {
                connection_free(connection);
                return r;
        }
        atomic_store_explicit(&connection->window, peer_remote(connection->peer)->stream_window, memory_order_relaxed);
        *ret_connection = connection;
        return 0;
}

int connection_new(Connection **ret_connection, Handles *handles, const PeerConfig *config, int lane_fd_consume,
                   const ConnectionHandler *handler, void *owner) {
        Connection *connection = allocate(handles, handler, owner);
        int r;

        if (!connection) {
                fd_close(lane_fd_consume);
                return -ENOMEM;
        }
        r = endpoint_add_peer(handles->endpoint, config, lane_fd_consume, &peer_handler, connection,
                              &connection->peer);
        if (r < 0) {
                connection_free(connection);
                return r;
        }
        *ret_connection = connection;
        return 0;
}

Connection *connection_free(Connection *connection) {
        CallHandle *call;
        RequestHandle *request;

        if (!connection)
                return NULL;
        if (connection->peer)
                peer_free(connection->peer);
        while ((call = LIST_FIRST(&connection->calls)))
                call_handle_forget(call);
        while ((request = LIST_FIRST(&connection->requests)))
                request_handle_forget(request);
        connection_forget_buffers(connection);
        endpoint_cancel(connection->handles->endpoint, &connection->reap);
        LIST_REMOVE(connection, link);
        if (connection->peer && connection->handler->released)
                connection->handler->released(connection->owner);
        free(connection);
        return NULL;
}

void connection_check(Connection *connection) {
        if (connection->retired && LIST_EMPTY(&connection->calls) && LIST_EMPTY(&connection->requests))
                endpoint_defer(connection->handles->endpoint, &connection->reap);
}

void connection_retire(Connection *connection) {
        connection->retired = true;
        connection_check(connection);
}

Peer *connection_peer(const Connection *connection) {
        return connection->peer;
}

void *connection_owner(const Connection *connection) {
        return connection->owner;
}

const ConnectionHandler *connection_handler(const Connection *connection) {
        return connection->handler;
}

int connection_frame_channel(Connection *connection, unsigned channel) {
        int r = peer_frame_channel(connection->peer, channel);

        if (r == 0)
                connection->framed |= 1u << channel;
        return r;
}

/* ---- version ---- */

const char *baton_version(void) {
        return version_release();
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Handles: what libbaton's two halves share. A runner or a client has one Handles, with the endpoint that is its loop, and
 * a Connection for each peer: the supervisor, each attached client, the runner. The functions of baton/rpc.h, which work
 * on the handles of calls (baton_call, baton_request), are implemented here.
 *
 * A half does: endpoint_new(), handles_new(), connection_new() for each lane; baton_..._dispatch() is handles_dispatch();
 * in ConnectionHandler.call it gives the call to connection_accept() with the method's function, or ends it itself with
 * call_answer() or call_fail(); at the end connection_free() for each, handles_free(), endpoint_free().
 *
 * All of it in the loop's thread, where nothing else is said.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "baton/rpc.h"
#include "proto/endpoint.h"
#include "proto/peer.h"

typedef struct Handles Handles;
typedef struct baton_connection Connection;

/* HANDLE_LIMITS() - PeerLimits from the options of a runner or a client, which name them alike. */
#define HANDLE_LIMITS(_options)                                     \
        ((PeerLimits){                                              \
                .max_frame = (_options)->max_frame,                 \
                .max_calls = (_options)->max_calls,                 \
                .fd_credit = (_options)->fd_credit,                 \
                .stream_window = (_options)->stream_window,         \
                .max_memory = (_options)->max_memory,               \
                .max_shared = (_options)->max_shared,               \
                .max_held_fds = (_options)->max_held_fds,           \
                .max_unsent = (_options)->max_unsent,               \
                .max_waiting = (_options)->max_waiting,             \
                .max_waiting_bytes = (_options)->max_waiting_bytes, \
                .arena_size = (_options)->arena_size,               \
                .max_object = (_options)->max_object,               \
        })

/* ---- the loop ---- */

/*
 * handles_new() - for the connections of @endpoint, which must outlive it; the calling thread is the loop's from here.
 * @drained (or NULL) is called whenever the last open call to us, over all connections, has been ended. 0 or -ENOMEM.
 */
int handles_new(Handles **ret_handles, Endpoint *endpoint, void (*drained)(void *userdata), void *userdata);

/* handles_on_wake() - @function(userdata) in the loop, after other threads or endpoint_wake() have woken it. */
void handles_on_wake(Handles *handles, void (*function)(void *userdata));

/*
 * handles_free() - its connections must be gone, but for retired ones, which go with it. Handles that are open are
 * forgotten without a callback. Accepts NULL, returns NULL.
 */
Handles *handles_free(Handles *handles);
DEFINE_CLEANUP(Handles *, handles_free);

/* handles_dispatch() - endpoint_dispatch(), in the thread that is the loop's from here. */
int handles_dispatch(Handles *handles, int timeout_ms);

/* handles_close() - nobody will run the loop any more: other threads that wait, or hand something in, get -ECANCELED. */
void handles_close(Handles *handles);

/* handles_open_calls() - calls to us that were not ended, over all connections. */
size_t handles_open_calls(const Handles *handles);

/* handles_is_loop_thread() - whether the caller runs in the loop's thread. Any thread. */
bool handles_is_loop_thread(const Handles *handles);

/* ---- one peer ---- */

/* As PeerHandler; each may be NULL. The connection may be freed or retired in any of them. */
typedef struct ConnectionHandler {
        void (*ready)(Connection *connection, bool renewed);
        void (*channel)(Connection *connection, unsigned channel);
        /* A call of the peer's: to connection_accept(), call_answer() or call_fail(). NULL: UNIMPLEMENTED. */
        void (*call)(Connection *connection, Call *call);
        void (*ended)(Connection *connection, Status status, const char *reason);
        /* The last: the connection is gone, also where it was freed. Not after a failed connection_new(). */
        void (*released)(void *owner);
} ConnectionHandler;

/*
 * connection_new() - peer_new() on the endpoint of @handles. @handler is not copied: it also tells which half, and which
 * kind, a connection is of (connection_handler()). 0; -EMFILE, -ENOMEM: the lane is closed.
 */
int connection_new(Connection **ret_connection, Handles *handles, const PeerConfig *config, int lane_fd_consume,
                   const ConnectionHandler *handler, void *owner);

/*
 * connection_restore() - the same of one that another process had (endpoint_restore_peer()): its calls are in no handles,
 * and are bound by whoever asks for them before peer_own(). Errors as peer_restore()'s.
 */
int connection_restore(Connection **ret_connection, Handles *handles, const PeerConfig *config,
                       const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
                       const ConnectionHandler *handler, void *owner, char reason[MANIFEST_REASON_SIZE]);

/*
 * connection_free() - peer_free(), and all handles of its calls are gone, open or not, without a callback. Accepts NULL,
 * returns NULL.
 */
Connection *connection_free(Connection *connection);
DEFINE_CLEANUP(Connection *, connection_free);

/*
 * connection_retire() - for one that has ended: it goes by itself when the last of its handles has been ended. Nothing of
 * ConnectionHandler but released() is called any more.
 */
void connection_retire(Connection *connection);

Peer *connection_peer(const Connection *connection);
/* connection_owner() - what connection_new() was given. */
void *connection_owner(const Connection *connection);
const ConnectionHandler *connection_handler(const Connection *connection);

/* connection_frame_channel() - peer_frame_channel(), and calls of ours may name it. */
int connection_frame_channel(Connection *connection, unsigned channel);

/* connection_accept() - @call gets a handle and goes to @function. */
void connection_accept(Connection *connection, Call *call, baton_method_fn function, void *userdata);

/* Calls of ours: baton_connection_call() of baton/rpc.h. */

/* answer_copy() - for who keeps it beyond the callback: descriptors are taken. Freed by baton_answer_free(). 0, -ENOMEM. */
int answer_copy(const struct baton_answer *answer, struct baton_answer **ret_answer);

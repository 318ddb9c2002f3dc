#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the handles share, and nobody else includes: handle.c (the loop and its connections), handle-call.c
 * (calls to us), handle-request.c (calls of ours), handle-stream.c (items).
 */

#include <stdatomic.h>
#include <sys/queue.h>

#include "proto/handle.h"

#ifndef __has_feature
#define __has_feature(_name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define HANDLE_SPARE 0u /* one that is used after its end is to be found */
#else
#define HANDLE_SPARE 256u
#endif

typedef struct baton_call CallHandle;
typedef struct baton_request RequestHandle;

LIST_HEAD(CallHandleList, baton_call);
LIST_HEAD(RequestHandleList, baton_request);

/* What calls of both directions have in common. */
typedef struct Handle {
        Connection *connection;
        Call *call; /* the engine's; NULL: over */
        baton_item_fn on_item;
        void *item_userdata;
        baton_writable_fn on_writable;
        void *writable_userdata;
} Handle;

/* One call to us. Recycled: most are answered at once and cost no allocation. */
struct baton_call {
        Handle handle;
        LIST_ENTRY(baton_call) link; /* connection->calls or handles->free_calls */
        void (*on_cancel)(CallHandle *call, void *userdata);
        void *on_cancel_userdata;
        atomic_bool cancelled;
        struct RequestHandleList children; /* made for this call */
        Baton__Detail **details;
        size_t n_details;
        Baton__Pair **metadata;
        size_t n_metadata;
};

/* One call of ours. */
struct baton_request {
        Handle handle;
        LIST_ENTRY(baton_request) link; /* connection->requests or handles->free_requests */
        LIST_ENTRY(baton_request) child_link;
        bool is_child;
        unsigned refs; /* the call's own, until its function has returned, and those of threads */
        baton_answer_fn function;
        void *userdata;
};

struct Handles {
        Endpoint *endpoint;
        void (*drained)(void *userdata);
        void *userdata;
        LIST_HEAD(, baton_connection) connections;
        struct CallHandleList free_calls;
        struct RequestHandleList free_requests;
        unsigned n_free_calls, n_free_requests;
        size_t n_calls; /* to us, open */
};

struct baton_connection {
        LIST_ENTRY(baton_connection) link;
        Handles *handles;
        Peer *peer;
        const ConnectionHandler *handler;
        void *owner;
        struct CallHandleList calls;
        struct RequestHandleList requests;
        unsigned framed; /* bit n: channel n carries calls */
        bool retired;
        EndpointTask reap; /* of one that is retired and has no handles */
};

/* ---- handle.c ---- */

/* connection_check() - a handle of @connection has gone. */
void connection_check(Connection *connection);

/* ---- handle-call.c ---- */

/* call_handle_forget() - without a callback; the peer is gone. */
void call_handle_forget(CallHandle *call);
/* envelope_find_pair() - the value of the first pair with @key; NULL: there is none. */
const void *envelope_find_pair(const Baton__Envelope *envelope, const char *key, size_t *ret_size);
/* bytes_value() - never NULL. */
const void *bytes_value(const ProtobufCBinaryData *value, size_t *ret_size);

/* ---- handle-request.c ---- */

void request_handle_forget(RequestHandle *request);
/* request_orphan() - the call it was made for is no more. */
void request_orphan(RequestHandle *request);
/* request_cancel_children() - those in @children end, CANCELLED; their functions are told. */
void request_cancel_children(struct RequestHandleList *children);

/* ---- handle-stream.c ---- */

/* handle_item(), handle_writable() - the engine's callbacks for a Handle. */
bool handle_item(Handle *handle, const Item *item);
void handle_writable(Handle *handle);
int handle_send(Handle *handle, const ItemParameters *parameters, unsigned flags);

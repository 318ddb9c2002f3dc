#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the handles share, and nobody else includes: handle.c (the loop and its connections), handle-call.c
 * (calls to us), handle-request.c (calls of ours), handle-answer.c (what they bring), handle-stream.c (items),
 * handle-thread.c (what other threads hand in).
 */

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "common/handoff.h"
#include "common/spare.h"
#include "proto/handle.h"

typedef struct baton_call CallHandle;
typedef struct baton_request RequestHandle;
typedef struct baton_buffer Buffer;

LIST_HEAD(CallHandleList, baton_call);
LIST_HEAD(RequestHandleList, baton_request);

typedef struct Handle Handle;
typedef struct Work Work;
typedef struct Outbox Outbox;

/* An item or an answer from another thread, or one that waits for such: a copy. */
struct Work {
        HandoffNode node;
        Status status;
        const char *type, *message;
        const void *payload;
        size_t size;
        int *fds; /* owned */
        size_t n_fds;
        uint64_t bytes[]; /* all of the above */
};

/* Items of one call on their way from other threads to the loop. Recycled, and never freed before the Handles. */
struct Outbox {
        STAILQ_ENTRY(Outbox) link;   /* handles->free_outboxes */
        STAILQ_ENTRY(Outbox) signal; /* handles->signals */
        LIST_ENTRY(Outbox) all;      /* handles->outboxes */
        Handles *handles;
        Handle *handle; /* NULL: free */
        bool signalled;
        Handoff queue;
        HandoffWaiter waiter; /* a thread that was told -EAGAIN */
        Work *stuck;          /* the loop's: taken, and the stream takes no more */
};

/* What has been asked for and follows the items that are on their way. */
typedef struct Due {
        bool answers, ends;
        unsigned unrefs;
        Work *answer; /* NULL: there was no memory for it, or nobody waits */
} Due;

/* What calls of both directions have in common. */
struct Handle {
        Connection *connection;
        Call *call;           /* the engine's; NULL: over */
        atomic_bool over;     /* nobody waits any more */
        atomic_bool no_items; /* of ours: half-closed, or made without a stream */
        bool incoming;
        bool told_to_wait; /* the application waits for baton_writable_fn */
        bool broken;       /* an item is missing */
        baton_item_fn on_item;
        void *item_userdata;
        baton_writable_fn on_writable;
        void *writable_userdata;

        _Atomic(Outbox *) outbox; /* NULL: no other thread has sent anything */
        Due due;                  /* the loop's */
        Due noticed;              /* this and below: under handles->lock */
        bool in_notices;
        STAILQ_ENTRY(Handle) notice;
};

/* One call to us. */
struct baton_call {
        Handle handle;
        LIST_ENTRY(baton_call) link; /* connection->calls */
        void (*on_cancel)(CallHandle *call, void *userdata);
        void *on_cancel_userdata;
        bool ended;
        struct RequestHandleList children; /* made for this call */
        Baton__Detail **details;
        size_t n_details;
        Baton__Pair **metadata;
        size_t n_metadata;
};

/* One call of ours. */
struct baton_request {
        Handle handle;
        LIST_ENTRY(baton_request) link; /* connection->requests */
        LIST_ENTRY(baton_request) child_link;
        bool is_child;
        unsigned refs; /* the call's own, until its function has returned, and those of threads */
        uint64_t deadline;
        baton_answer_fn function;
        void *userdata;
};

struct Handles {
        Endpoint *endpoint;
        void (*drained)(void *userdata);
        void *userdata;
        LIST_HEAD(, baton_connection) connections;
        Spare spare_calls, spare_requests;
        size_t n_calls; /* to us, open */

        _Atomic(pthread_t) loop_thread;
        EndpointTask inbox;
        void (*on_wake)(void *userdata);

        /* Other threads: */
        pthread_mutex_t lock;
        bool woken;  /* the loop has been told and has not looked yet */
        bool closed; /* it will not look any more */
        STAILQ_HEAD(, Outbox) signals, free_outboxes;
        LIST_HEAD(, Outbox) outboxes;
        STAILQ_HEAD(, Handle) notices;
};

struct baton_connection {
        LIST_ENTRY(baton_connection) link;
        Handles *handles;
        Peer *peer;
        const ConnectionHandler *handler;
        void *owner;
        struct CallHandleList calls;
        struct RequestHandleList requests;
        LIST_HEAD(, baton_buffer) buffers; /* that the application holds */
        unsigned framed;                   /* bit n: channel n carries calls */
        bool retired;
        atomic_uint_least64_t window; /* of the peer's streams; 0: not known yet */
        EndpointTask reap;            /* of one that is retired and has no handles */
};

/* What baton_answer_metadata() and baton_answer_detail() look into; the application sees the first member. */
typedef struct AnswerView {
        struct baton_answer public;
        const Baton__Envelope *envelope;
        Connection *connection; /* NULL: a copy */
        ArenaView *shared;      /* NULL: inline */
} AnswerView;

/* What baton_item_take_data() looks into. */
typedef struct ItemView {
        struct baton_item public;
        Connection *connection;
        ArenaView *shared;
} ItemView;

/* ---- handle.c ---- */

/* connection_check() - a handle of @connection has gone. */
void connection_check(Connection *connection);

/* ---- handle-call.c ---- */

/* call_handle_listen() - tells the engine who takes items and who waits to send. */
void call_handle_listen(CallHandle *call);
/* call_handle_forget() - without a callback; the peer is gone. */
void call_handle_forget(CallHandle *call);
/* call_handle_finish() - the answer that was due; the handle is gone. NULL: none, for lack of memory. */
void call_handle_finish(CallHandle *call, Work *answer_consume);
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
/* request_break() - ends it, RESOURCE_EXHAUSTED: an item is missing. The handle may be gone. */
void request_break(RequestHandle *request);
/* request_unref() - @n references go, and with the last the handle. */
void request_unref(RequestHandle *request, unsigned n);

/* ---- handle-buffer.c ---- */

void connection_forget_buffers(Connection *connection);
/* buffer_take_own() - takes a buffer apart: what is to be sent. NULL: none was given. */
PeerBuffer *buffer_take_own(Buffer *buffer_consume);
/* buffer_own(), buffer_sent() - the same in two steps, for what may fail in between. */
PeerBuffer *buffer_own(const Buffer *buffer);
void buffer_sent(Buffer *buffer_consume);
/* buffer_keep() - received data beyond its callback. NULL: no memory. */
Buffer *buffer_keep(Connection *connection, ArenaView *shared, const void *data, size_t size);

/* ---- handle-stream.c ---- */

/* handle_item() - shows the application an item. */
bool handle_item(Handle *handle, const Item *item);
/* handle_writable() - tells the application, if it waits for that. The handle may be gone. */
void handle_writable(Handle *handle);
/* handle_send() - the public ...send_fds(), in any thread. */
int handle_send(Handle *handle, const ItemParameters *parameters, unsigned flags);
/* handle_send_buffer() - in the loop's thread; @buffer is taken when the result is 0. */
int handle_send_buffer(Handle *handle, Buffer *buffer);
/* handle_end() - baton_request_end(), in any thread. */
int handle_end(Handle *handle);

/* ---- handle-thread.c ---- */

int handle_threads_init(Handles *handles);
void handle_threads_deinit(Handles *handles);

/* handle_in_loop() - whether this is the loop's thread. */
static inline bool handles_in_loop(const Handles *handles) {
        return pthread_equal(atomic_load_explicit(&handles->loop_thread, memory_order_relaxed), pthread_self());
}

static inline bool handle_in_loop(const Handle *handle) {
        return handles_in_loop(handle->connection->handles);
}

/*
 * handle_settle() - in the loop: sends what other threads have sent, as far as the stream takes it. True: nothing is on
 * its way, what comes now may go directly. What is due is left alone.
 */
bool handle_settle(Handle *handle);

/* handle_catch_up() - handle_settle(), then what is due. The handle may be gone. */
void handle_catch_up(Handle *handle);

/* handle_over() - in the loop: nobody waits any more; threads that do are let go. */
void handle_over(Handle *handle);

/* handle_is_answered() - in the loop: another thread has ended the call. */
bool handle_is_answered(Handle *handle);

/* handle_detach() - before the handle goes: forgets what is due and gives back its outbox. */
void handle_detach(Handle *handle);

/* handle_hand_in() - in another thread: an item. As baton_call_send_fds(). */
int handle_hand_in(Handle *handle, const ItemParameters *parameters, unsigned flags, uint64_t deadline);

/* handle_notice() - any thread: @due, which follows the items sent before, is to be done by the loop. */
void handle_notice(Handle *handle, const Due *due);

/* work_new() - a copy that takes the descriptors; NULL: no memory, they are the caller's. */
Work *work_new(Status status, const char *message, const ItemParameters *parameters);
/* work_free() - with the descriptors that are still its own. Accepts NULL, returns NULL. */
Work *work_free(Work *work);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton/rpc.h - calls, as runners (baton/runner.h) and clients (baton/client.h) share them: each end may call the other.
 *
 * A call to us is a baton_call: its handler reads the request, and ends it exactly once, with baton_call_answer() or
 * baton_call_fail(), at once or later. A call of ours is a baton_request: what became of it comes to a function, once.
 *
 * Streams. Between request and answer items may go either way, in any call. A caller that sends some says so
 * (`stream`), sends with baton_request_send() and ends with baton_request_end(); the handler names who takes them
 * (baton_call_on_item()) and may send its own with baton_call_send() until it answers. Nobody buffers for a producer: a
 * send that returns -EAGAIN did nothing, and `on_writable' tells when it is worth trying again. A receiver that returns 1
 * from its baton_item_fn is shown the same item again after baton_..._resume(); until then that stream stands still, and
 * none but that one.
 *
 * Conventions. Functions that can fail return 0 or a negative errno. Sizes are bytes, times microseconds. Strings are
 * UTF-8 and end with NUL. A parameter that is not said to be taken stays the caller's and is not used after the call
 * returns. A parameter named fd_consume is taken on every path, errors included.
 *
 * Threads. An object belongs to the thread that runs its loop: the one that last called baton_runner_new() or
 * baton_runner_dispatch() (baton_client_... likewise); callbacks come there. All functions are called in it, but for
 * these, which may be called in any thread:
 * - what ends a call, and what its answer is made of: baton_call_answer(), _answer_fds(), _fail(), _add_detail(),
 *   _add_metadata();
 * - items: baton_call_send(), _send_fds(), baton_request_send(), _send_fds(), _end(), _unref();
 * - baton_call_n_fds(), _take_fd(), _is_cancelled() and _time_left();
 * - baton_log(), baton_runner_quit().
 * One call is served by one thread at a time: hand it over, as you would any object. Outside of the loop's thread these
 * functions copy what they are given, wake the loop, and return: 0 means that it is on its way, and does not tell that
 * somebody still waits. A stream that takes no more makes the sending thread wait, at most until the call's deadline;
 * with BATON_NO_WAIT it says -EAGAIN instead. For each stream up to 256 KiB wait so, beside its window. What a thread has
 * handed in for a call goes before what the loop's thread does with it afterwards. The cancellation of a call may be told
 * while a thread is ending it: what a baton_call_on_cancel() function uses must outlive that, or the thread looks at
 * baton_call_is_cancelled() instead. Whoever frees a runner or client has stopped such threads before.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BATON_PUBLIC         __attribute__((__visibility__("default")))
#define BATON_PRINTF(_a, _b) __attribute__((__format__(__printf__, _a, _b)))
#else
#define BATON_PUBLIC
#define BATON_PRINTF(_a, _b)
#endif

struct baton_connection; /* one peer of ours: a supervisor, a runner, a client */
struct baton_call;       /* one call to us, until it is ended */
struct baton_request;    /* one call of ours, until what became of it has been delivered */

/* Status of a call: gRPC's codes, by number and meaning. */
enum baton_status {
        BATON_OK = 0,
        BATON_CANCELLED = 1,
        BATON_UNKNOWN = 2,
        BATON_INVALID_ARGUMENT = 3,
        BATON_DEADLINE_EXCEEDED = 4,
        BATON_NOT_FOUND = 5,
        BATON_ALREADY_EXISTS = 6,
        BATON_PERMISSION_DENIED = 7,
        BATON_RESOURCE_EXHAUSTED = 8,
        BATON_FAILED_PRECONDITION = 9,
        BATON_ABORTED = 10,
        BATON_OUT_OF_RANGE = 11,
        BATON_UNIMPLEMENTED = 12,
        BATON_INTERNAL = 13,
        BATON_UNAVAILABLE = 14,
        BATON_DATA_LOSS = 15,
        BATON_UNAUTHENTICATED = 16
};

/* The reserved channels. A client has the first alone. */
enum baton_channel { BATON_CHANNEL_RPC = 0, BATON_CHANNEL_FILESYSTEM = 1, BATON_CHANNEL_DATA = 2 };

/* Log levels, as syslog's. */
enum baton_level { BATON_ERROR = 3, BATON_WARNING = 4, BATON_NOTICE = 5, BATON_INFO = 6, BATON_DEBUG = 7 };

/* Flags of baton_..._send_fds(). */
enum baton_send { BATON_NO_WAIT = 1 }; /* -EAGAIN where a thread other than the loop's would wait */

/* ---- items of streams ------------------------------------------------------------------------------------------ */

/*
 * One item, valid while the callback runs. The descriptors in @fds are closed once it was taken, unless set to -1. @end:
 * the caller's half-close, no item follows; one with @end and without data and descriptors is the half-close and nothing
 * else.
 */
struct baton_item {
        const char *type; /* full name of its message; "": raw bytes */
        const void *data; /* never NULL */
        size_t size;
        int *fds;
        size_t n_fds;
        int end;
};

/* baton_item_fn - 0: the item was taken; 1: not now, it is shown again after baton_call_resume() or baton_request_resume(). */
typedef int (*baton_item_fn)(const struct baton_item *item, void *userdata);

/* baton_writable_fn - after a send that returned -EAGAIN: it is worth trying again. */
typedef void (*baton_writable_fn)(void *userdata);

/* ---- calls to us ----------------------------------------------------------------------------------------------- */

/*
 * A handler gets the call and ends it exactly once, now or later, with one of baton_call_answer*() or baton_call_fail():
 * that call takes the object, on every path. Until then the pointer stays valid, also when the caller has cancelled or
 * is gone; ending it twice is a programming error. The request's data, metadata and strings are valid until the handler
 * returns (afterwards they read as empty): a deferred answer keeps copies.
 */
typedef void (*baton_method_fn)(struct baton_call *call, void *userdata);

/* What baton_runner_describe_method() and baton_client_describe_method() say of streams. */
enum baton_method_flags {
        BATON_METHOD_CLIENT_STREAMS = 1, /* the caller sends items */
        BATON_METHOD_SERVER_STREAMS = 2  /* the method does */
};

BATON_PUBLIC const char *baton_call_method(struct baton_call *call);
/* baton_call_type() - full name of the request's message; "" for raw bytes. */
BATON_PUBLIC const char *baton_call_type(struct baton_call *call);
/* baton_call_data() - the request's payload and its size; never NULL. */
BATON_PUBLIC const void *baton_call_data(struct baton_call *call, size_t *ret_size);
/* baton_call_connection() - where it came from; valid until the call is ended. See baton_connection_call(). */
BATON_PUBLIC struct baton_connection *baton_call_connection(struct baton_call *call);
/* baton_call_channel() - the channel it came on. */
BATON_PUBLIC enum baton_channel baton_call_channel(struct baton_call *call);
/* baton_call_time_left() - until the deadline; UINT64_MAX without one, 0 when it has passed. Any thread. */
BATON_PUBLIC uint64_t baton_call_time_left(struct baton_call *call);

/* baton_call_metadata() - the value of the first pair with @key, and its size; NULL when there is none. */
BATON_PUBLIC const void *baton_call_metadata(struct baton_call *call, const char *key, size_t *ret_size);

/* baton_call_metadata_at() - key, value and size of pair @index, in the order sent; NULL after the last. */
BATON_PUBLIC const void *baton_call_metadata_at(struct baton_call *call, size_t index, const char **ret_key,
                                                size_t *ret_size);

/* baton_call_n_fds() - how many descriptors came with the call. A typed field in the payload is an index into them. */
BATON_PUBLIC size_t baton_call_n_fds(struct baton_call *call);
/* baton_call_take_fd() - descriptor @index, now the caller's; -1 when it was taken or never there. */
BATON_PUBLIC int baton_call_take_fd(struct baton_call *call, size_t index);

/*
 * baton_call_on_cancel() - @function is called once when nobody waits for the answer any more: cancelled by the caller,
 * past its deadline, or the caller is gone. The call must still be ended; what it answers is then dropped. Not
 * called when it has happened before: see baton_call_is_cancelled().
 */
BATON_PUBLIC void baton_call_on_cancel(struct baton_call *call,
                                       void (*function)(struct baton_call *call, void *userdata), void *userdata);
/* baton_call_is_cancelled() - whether that has happened. Any thread. */
BATON_PUBLIC int baton_call_is_cancelled(struct baton_call *call);

/*
 * baton_call_answer() - ends @call with OK and a payload of @size bytes of message @type ("" for raw bytes). Items sent
 * before go first. 0; -ECANCELED: nobody waits any more; -EMSGSIZE: larger than the caller's limit (it got
 * RESOURCE_EXHAUSTED instead); -EINVAL: @type is no UTF-8 (it got INTERNAL instead); -ENOMEM. In another thread than the
 * loop's, or after one has sent items: 0, -ECANCELED, or -ENOMEM (it got RESOURCE_EXHAUSTED instead).
 */
BATON_PUBLIC int baton_call_answer(struct baton_call *call, const char *type, const void *data, size_t size);

/* baton_call_answer_fds() - the same, with @n descriptors, which are taken and closed here once they are sent. */
BATON_PUBLIC int baton_call_answer_fds(struct baton_call *call, const char *type, const void *data, size_t size,
                                       const int *fds_consume, size_t n);

/*
 * baton_call_fail() - ends @call with @status (BATON_OK counts as BATON_UNKNOWN) and one line for people, cut at 1 KiB.
 * 0 or -ECANCELED.
 */
BATON_PUBLIC int baton_call_fail(struct baton_call *call, enum baton_status status, const char *format, ...)
        BATON_PRINTF(3, 4);

/*
 * baton_call_add_detail() - a typed detail for the answer that follows: message @type, packed, copied. 0, -EINVAL (@type is
 * no UTF-8) or -ENOMEM.
 */
BATON_PUBLIC int baton_call_add_detail(struct baton_call *call, const char *type, const void *data, size_t size);

/* baton_call_add_metadata() - a pair for the answer that follows, copied. 0, -EINVAL (@key is no UTF-8) or -ENOMEM. */
BATON_PUBLIC int baton_call_add_metadata(struct baton_call *call, const char *key, const void *data, size_t size);

/* ---- their streams */

/* baton_call_takes_items() - whether the caller sends items; then baton_call_on_item() must be called in the handler. */
BATON_PUBLIC int baton_call_takes_items(struct baton_call *call);

/*
 * baton_call_on_item() - who takes the caller's items. A handler that returns without having named anybody refuses them:
 * one that comes ends the call, INVALID_ARGUMENT. After the last comes one with `end'.
 */
BATON_PUBLIC void baton_call_on_item(struct baton_call *call, baton_item_fn function, void *userdata);

/* baton_call_on_writable() - who is told that it is worth trying again. */
BATON_PUBLIC void baton_call_on_writable(struct baton_call *call, baton_writable_fn function, void *userdata);

/*
 * baton_call_send() - one item to the caller. 0: on its way; -EAGAIN: the stream takes no more for now, nothing was done,
 * baton_writable_fn tells when to try again; -EMSGSIZE: more than the peer ever takes at once; -ECANCELED: nobody waits
 * any more; -EINVAL: @type is no UTF-8; -ENOMEM. Never -EAGAIN in another thread than the loop's: it waits, at most until
 * the deadline, then -ECANCELED.
 */
BATON_PUBLIC int baton_call_send(struct baton_call *call, const char *type, const void *data, size_t size);

/*
 * baton_call_send_fds() - the same with @n descriptors, which are taken when the result is 0 and stay the caller's
 * otherwise; @flags: 0 or BATON_NO_WAIT.
 */
BATON_PUBLIC int baton_call_send_fds(struct baton_call *call, const char *type, const void *data, size_t size,
                                     const int *fds, size_t n, unsigned flags);

/* baton_call_resume() - what the baton_item_fn did not take is shown to it again, later. */
BATON_PUBLIC void baton_call_resume(struct baton_call *call);

/* ---- buffers --------------------------------------------------------------------------------------------------- */

/*
 * Raw bytes, large ones above all, without a copy: written where the peer will read them. Where the other end is an
 * attached client or runner, and they are many, they lie in memory that both have mapped; from 1 MiB on, and when there is
 * no room there, in a memfd of their own, which is sealed when it is sent; else they are copied as ever. Nobody need know
 * which. All of it in the loop's thread.
 *
 * So can any payload be larger than a frame (baton_call_answer(), an item, the data of a call), at the cost of a copy: up
 * to what the peer accepts, 4 GiB unless its options say otherwise.
 *
 * What came from a peer may lie in memory that the peer can still write, while you look: copy what you are going to judge
 * or parse. A buffer that is held keeps memory of the peer's, which is bounded.
 */
struct baton_buffer;

/* baton_buffer_new() - @size bytes to be filled and sent over @connection. 0 or -ENOMEM. */
BATON_PUBLIC int baton_buffer_new(struct baton_connection *connection, size_t size, struct baton_buffer **ret_buffer);

/* baton_buffer_data() - its bytes. One that was received is not to be written. */
BATON_PUBLIC void *baton_buffer_data(struct baton_buffer *buffer, size_t *ret_size);

/* baton_buffer_trim() - only the first @size bytes are meant. 0; -ERANGE: it has not so many; -EINVAL: it was received. */
BATON_PUBLIC int baton_buffer_trim(struct baton_buffer *buffer, size_t size);

/* baton_buffer_free() - one that was not sent, or was received. It may outlive its connection. Accepts NULL. */
BATON_PUBLIC void baton_buffer_free(struct baton_buffer *buffer);

/* baton_call_answer_buffer() - baton_call_answer() with its bytes; takes it on every path. */
BATON_PUBLIC int baton_call_answer_buffer(struct baton_call *call, struct baton_buffer *buffer_consume);

/* baton_call_send_buffer() - baton_call_send() with its bytes; taken when the result is 0. -EINVAL: it was received. */
BATON_PUBLIC int baton_call_send_buffer(struct baton_call *call, struct baton_buffer *buffer);

/* baton_call_take_data() - the request's data, to be kept after the handler has returned. NULL: no memory. */
BATON_PUBLIC struct baton_buffer *baton_call_take_data(struct baton_call *call);

/* baton_item_take_data() - the same of an item, in its callback. */
BATON_PUBLIC struct baton_buffer *baton_item_take_data(const struct baton_item *item);

/* ---- calls of ours --------------------------------------------------------------------------------------------- */

/* An answer, valid while the callback runs; the descriptors in @fds are closed afterwards unless set to -1. */
struct baton_answer {
        enum baton_status status;
        const char *message; /* "" with BATON_OK */
        const char *type;
        const void *data;
        size_t size;
        int *fds;
        size_t n_fds;
};

typedef void (*baton_answer_fn)(const struct baton_answer *answer, void *userdata);

/* baton_answer_take_data() - its data, to be kept after the callback has returned. NULL: no memory, or a copy of an answer. */
BATON_PUBLIC struct baton_buffer *baton_answer_take_data(const struct baton_answer *answer);

/* baton_answer_metadata() - the value of the first pair with @key, and its size; NULL when there is none. */
BATON_PUBLIC const void *baton_answer_metadata(const struct baton_answer *answer, const char *key, size_t *ret_size);

/* baton_answer_detail() - the first detail that is a message @type, and its size; NULL when there is none. */
BATON_PUBLIC const void *baton_answer_detail(const struct baton_answer *answer, const char *type, size_t *ret_size);

/* What a call is made of; zeroed fields mean none. @size is sizeof(struct baton_call_parameters). */
struct baton_call_parameters {
        size_t size;
        enum baton_channel channel;
        const char *method; /* needed */
        const char *type;   /* NULL or "": raw bytes */
        const void *data;
        size_t data_size;
        uint64_t timeout_us;    /* 0: no deadline */
        const int *fds_consume; /* taken, closed once they are sent */
        size_t n_fds;
        const char *metadata_key; /* one pair; NULL: none */
        const void *metadata_value;
        size_t metadata_size;
        int stream;                    /* not 0: items of ours follow, until baton_request_end() */
        baton_item_fn on_item;         /* takes the peer's items; NULL: one that comes ends the call, UNIMPLEMENTED */
        baton_writable_fn on_writable; /* both get the userdata of the answer's function */
        struct baton_call *parent;     /* the call that this one is made for; NULL: none */
        struct baton_buffer *buffer;   /* instead of data and type; taken on every path */
};

/*
 * baton_connection_call() - calls the peer. Everything is copied, and queued until the peer can take it. The answer, or
 * what became of the call instead, always comes by @function, later, exactly once, unless it is cancelled before; no item
 * comes after it. @function may be NULL, and @ret_request; the object is valid until @function has returned.
 *
 * With a parent the deadline is no later than the parent's, and when nobody waits for the parent any more, this call is
 * cancelled: @function is told CANCELLED, after the parent's baton_call_on_cancel(). Ending the parent changes nothing.
 *
 * 0; -EINVAL (no method, one over 255 bytes, text that is no UTF-8, a channel that is not framed); -ESHUTDOWN: the
 * connection's end was reached; -ECANCELED: the parent is cancelled already; -ENOMEM.
 */
BATON_PUBLIC int baton_connection_call(struct baton_connection *connection,
                                       const struct baton_call_parameters *parameters, baton_answer_fn function,
                                       void *userdata, struct baton_request **ret_request);

/* baton_request_cancel() - the answer is no longer wanted: its function will not be called; @request is gone. */
BATON_PUBLIC void baton_request_cancel(struct baton_request *request);

/*
 * baton_request_send() - one item of a call that was made with `stream'. As baton_call_send(), and -EPIPE: ended by
 * baton_request_end() before, or made without `stream'.
 */
BATON_PUBLIC int baton_request_send(struct baton_request *request, const char *type, const void *data, size_t size);

/* baton_request_send_fds() - as baton_call_send_fds(). */
BATON_PUBLIC int baton_request_send_fds(struct baton_request *request, const char *type, const void *data, size_t size,
                                        const int *fds, size_t n, unsigned flags);

/* baton_request_send_buffer() - as baton_call_send_buffer(). */
BATON_PUBLIC int baton_request_send_buffer(struct baton_request *request, struct baton_buffer *buffer);

/* baton_request_end() - the half-close: no item follows. It goes after those that are on their way. 0, -EPIPE, -ECANCELED. */
BATON_PUBLIC int baton_request_end(struct baton_request *request);

/* baton_request_resume() - as baton_call_resume(). */
BATON_PUBLIC void baton_request_resume(struct baton_request *request);

/*
 * baton_request_ref() - for a thread that sends: the object stays valid, whatever becomes of the call, until
 * baton_request_unref(); sending on one that is over is -ECANCELED. In the loop's thread, before the other one is given it.
 */
BATON_PUBLIC void baton_request_ref(struct baton_request *request);
/* baton_request_unref() - any thread. */
BATON_PUBLIC void baton_request_unref(struct baton_request *request);

/* ---- version --------------------------------------------------------------------------------------------------- */

/* baton_version() - the library's version, "0.1.0". */
BATON_PUBLIC const char *baton_version(void);

#ifdef __cplusplus
}
#endif

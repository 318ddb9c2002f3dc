#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton/runner.h - write a runner: a process that baton starts, hands its channels, and calls.
 *
 * A whole runner:
 *
 *         #include <baton/runner.h>
 *
 *         static void greet(struct baton_call *call, void *userdata) {
 *                 size_t size;
 *                 const void *name = baton_call_data(call, &size);
 *
 *                 baton_call_answer(call, "", name, size);
 *         }
 *
 *         int main(void) {
 *                 struct baton_runner *runner;
 *                 int r = baton_runner_new(&runner, NULL);
 *
 *                 if (r == 0)
 *                         r = baton_runner_add_method(runner, "greet.Greeter/Greet", greet, NULL);
 *                 if (r == 0)
 *                         r = baton_runner_run(runner);
 *                 baton_runner_free(runner);
 *                 return r < 0 ? 1 : 0;
 *         }
 *
 * Started by hand, baton_runner_new() says on standard error in one line what is missing.
 *
 * Conventions. Functions that can fail return 0 or a negative errno. Sizes are bytes, times microseconds. Strings are
 * UTF-8 and end with NUL. A parameter that is not said to be taken stays the caller's and is not used after the call
 * returns. A parameter named fd_consume is taken on every path, errors included.
 *
 * Threads. A runner object belongs to one thread at a time, the one that runs its loop: all functions are called there,
 * from handlers, too, except baton_runner_run(), baton_runner_dispatch() and baton_runner_free(), which no handler may
 * call. baton_runner_quit() alone may be called from any thread and from signal handlers.
 *
 * Descriptors. The library holds an epoll set of its own, so it fits into any loop: watch baton_runner_fd() for input
 * and call baton_runner_dispatch() with a timeout of 0 when it is readable. Every descriptor is close-on-exec.
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

struct baton_runner;  /* this process as baton sees it */
struct baton_call;    /* one call to us, until it is answered */
struct baton_request; /* one call of ours, until its answer has been delivered */

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

/* The reserved channels. */
enum baton_channel { BATON_CHANNEL_RPC = 0, BATON_CHANNEL_FILESYSTEM = 1, BATON_CHANNEL_DATA = 2 };

/* Log levels, as syslog's. */
enum baton_level { BATON_ERROR = 3, BATON_WARNING = 4, BATON_NOTICE = 5, BATON_INFO = 6, BATON_DEBUG = 7 };

/* ---- the runner ------------------------------------------------------------------------------------------------ */

/*
 * Limits and names; zeroed fields mean the defaults. @size is sizeof(struct baton_runner_options): fields that a later
 * version adds at the end are then taken as zero.
 */
struct baton_runner_options {
        size_t size;
        const char *software;     /* "name version", for logs; default: the program's name */
        const char *bootstrap;    /* path of the bootstrap socket; default: $BATON_BOOTSTRAP */
        uint64_t max_frame;       /* largest frame we accept, bytes; default 8 MiB, at least 64 KiB */
        uint32_t max_calls;       /* calls to us open at once; default 1,024 */
        uint32_t fd_credit;       /* descriptors sent to us and not yet listed; default 64 */
        uint32_t max_log_records; /* records kept until acknowledged; default 1,024; more are dropped and counted */
};

/*
 * baton_runner_new() - connects to the supervisor that started us. The channels arrive while the loop runs; what is sent
 * before is queued. @options may be NULL. -ENOKEY: not started by baton ($BATON_BOOTSTRAP is not set); -EINVAL: options
 * without their size, or max_frame below 64 KiB or above 4 GiB; -EMFILE, -ENOMEM; or why the socket could not be reached.
 * The first and the last are said on standard error in one line. A connection to $BATON_BOOTSTRAP uses it up: the
 * variable is removed from the environment, since the socket is gone then, and children are not started by baton.
 */
BATON_PUBLIC int baton_runner_new(struct baton_runner **ret_runner, const struct baton_runner_options *options);

/*
 * baton_runner_free() - closes everything. Calls and requests that are open are forgotten without a callback: their
 * objects are gone, too. Accepts NULL.
 */
BATON_PUBLIC void baton_runner_free(struct baton_runner *runner);

/*
 * baton_runner_run() - serves until the supervisor says stop or is gone for good. 0: an orderly end (Stop and Exit, CLOSE
 * with OK, baton_runner_quit(), or the lane's end); -EPROTONOSUPPORT: no common version; -EPROTO: it broke the protocol;
 * -ETIMEDOUT: it was silent for too long; -ENOBUFS: a limit; ... and the reason in baton_runner_reason().
 */
BATON_PUBLIC int baton_runner_run(struct baton_runner *runner);

/*
 * baton_runner_fd() - one descriptor, ours, that is readable when baton_runner_dispatch() has something to do: deadlines
 * and what was queued outside of it included.
 */
BATON_PUBLIC int baton_runner_fd(struct baton_runner *runner);

/*
 * baton_runner_dispatch() - does what there is to do, after waiting for it at most @timeout_ms (-1: for ever, 0: not at
 * all). 0: go on; 1: the end was reached in order (call no more); negative: the end was reached otherwise. -EBUSY: called
 * from a handler, nothing was done.
 */
BATON_PUBLIC int baton_runner_dispatch(struct baton_runner *runner, int timeout_ms);

/*
 * baton_runner_quit() - makes baton_runner_run() return 0 after what has been answered so far has been written and the
 * log has been acknowledged (as long as there is a supervisor). From any thread, and from signal handlers.
 */
BATON_PUBLIC void baton_runner_quit(struct baton_runner *runner);

/* baton_runner_reason() - why the runner ended, one line; "" while it has not. Ours, until baton_runner_free(). */
BATON_PUBLIC const char *baton_runner_reason(struct baton_runner *runner);

/* baton_runner_instance() - the number of this start, never reused; 0 before the supervisor's Hello. */
BATON_PUBLIC uint64_t baton_runner_instance(struct baton_runner *runner);

/* ---- calls to us ----------------------------------------------------------------------------------------------- */

/*
 * A handler gets the call and ends it exactly once, now or later, with one of baton_call_answer*() or baton_call_fail():
 * that call takes the object, on every path. Until then the pointer stays valid, also when the caller has cancelled or
 * is gone. The request's data, metadata and strings are valid until the handler returns: a deferred answer keeps copies.
 */
typedef void (*baton_method_fn)(struct baton_call *call, void *userdata);

/*
 * baton_runner_add_method() - calls of @name ("package.Service/Method", or any UTF-8 text of 1-255 bytes), on any framed
 * channel, go to @function. Names beginning with "baton." are the library's: -EPERM. -EEXIST: registered already.
 * -EINVAL: not such a name. -ENOMEM.
 */
BATON_PUBLIC int baton_runner_add_method(struct baton_runner *runner, const char *name, baton_method_fn function,
                                         void *userdata);

/* baton_runner_set_default() - calls of a method nobody registered go to @function; without it they answer UNIMPLEMENTED. */
BATON_PUBLIC void baton_runner_set_default(struct baton_runner *runner, baton_method_fn function, void *userdata);

BATON_PUBLIC const char *baton_call_method(struct baton_call *call);
/* baton_call_type() - full name of the request's message; "" for raw bytes. */
BATON_PUBLIC const char *baton_call_type(struct baton_call *call);
/* baton_call_data() - the request's payload and its size; never NULL. */
BATON_PUBLIC const void *baton_call_data(struct baton_call *call, size_t *ret_size);
/* baton_call_runner() - the runner this call came to. */
BATON_PUBLIC struct baton_runner *baton_call_runner(struct baton_call *call);
/* baton_call_channel() - the channel it came on. */
BATON_PUBLIC enum baton_channel baton_call_channel(struct baton_call *call);
/* baton_call_time_left() - until the deadline; UINT64_MAX without one, 0 when it has passed. */
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
/* baton_call_is_cancelled() - whether that has happened. */
BATON_PUBLIC int baton_call_is_cancelled(struct baton_call *call);

/*
 * baton_call_answer() - ends @call with OK and a payload of @size bytes of message @type ("" for raw bytes). 0;
 * -ECANCELED: nobody waits any more; -EMSGSIZE: larger than the caller's limit (it got RESOURCE_EXHAUSTED instead);
 * -EINVAL: @type is no UTF-8 (it got INTERNAL instead); -ENOMEM.
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

/* ---- calls of ours to the supervisor --------------------------------------------------------------------------- */

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
};

/*
 * baton_runner_call() - calls the supervisor. Everything is copied, and queued until the supervisor can take it. The
 * answer, or what became of the call instead, always comes by @function, later, exactly once, unless it is cancelled
 * before. @function may be NULL, and @ret_request; the object is valid until @function has returned. 0; -EINVAL (no
 * method, one over 255 bytes, text that is no UTF-8, a channel that is not framed); -ESHUTDOWN: the runner's end was
 * reached; -ENOMEM.
 */
BATON_PUBLIC int baton_runner_call(struct baton_runner *runner, const struct baton_call_parameters *parameters,
                                   baton_answer_fn function, void *userdata, struct baton_request **ret_request);

/* baton_request_cancel() - the answer is no longer wanted: its function will not be called; @request is gone. */
BATON_PUBLIC void baton_request_cancel(struct baton_request *request);

/* ---- channels -------------------------------------------------------------------------------------------------- */

/*
 * baton_runner_take_channel() - takes channel FILESYSTEM or DATA as a raw stream socket: the caller owns it. 0; -EAGAIN:
 * it has not arrived yet; -EEXIST: taken before, raw or framed; -EINVAL: not such a channel. After a supervisor's crash
 * its successor sends fresh ones: see baton_runner_on_renewal().
 */
BATON_PUBLIC int baton_runner_take_channel(struct baton_runner *runner, enum baton_channel channel, int *ret_fd);

/*
 * baton_runner_on_channel() - @function is called when channel FILESYSTEM or DATA has arrived, after a renewal again. One
 * that arrived before this call is not told: try baton_runner_take_channel() first.
 */
BATON_PUBLIC void baton_runner_on_channel(struct baton_runner *runner,
                                          void (*function)(struct baton_runner *, enum baton_channel, void *),
                                          void *userdata);

/*
 * baton_runner_frame_channel() - from here on @channel carries calls, as channel RPC does: methods registered here are
 * served on it, and baton_runner_call() may name it. May be called before it has arrived; holds for renewals too. 0,
 * -EEXIST, -EINVAL as above.
 */
BATON_PUBLIC int baton_runner_frame_channel(struct baton_runner *runner, enum baton_channel channel);

/*
 * baton_runner_on_renewal() - @function is called when a new supervisor has renewed the channels: requests of ours that
 * were open have ended UNAVAILABLE, calls to us are cancelled, and channels taken raw before are dead and can be taken
 * anew once they have arrived.
 */
BATON_PUBLIC void baton_runner_on_renewal(struct baton_runner *runner, void (*function)(struct baton_runner *, void *),
                                          void *userdata);

/* ---- log ------------------------------------------------------------------------------------------------------- */

/*
 * baton_log() - a record for the supervisor's log, kept until it is acknowledged. @target names the part of the program
 * that speaks ("" or NULL: none). Never waits and never fails: what does not fit is dropped, counted, and reported by a
 * record of its own ("3 log records dropped", target "baton"). Text is cut at 8 KiB. Bytes that are no UTF-8 are replaced
 * by '?'.
 */
BATON_PUBLIC void baton_log(struct baton_runner *runner, enum baton_level level, const char *target, const char *file,
                            unsigned line, const char *format, ...) BATON_PRINTF(6, 7);

#define BATON_LOG(_runner, _level, _target, ...) \
        baton_log((_runner), (_level), (_target), __FILE__, (unsigned) __LINE__, __VA_ARGS__)

/* ---- version --------------------------------------------------------------------------------------------------- */

/* baton_version() - the library's version, "0.1.0". */
BATON_PUBLIC const char *baton_version(void);

#ifdef __cplusplus
}
#endif

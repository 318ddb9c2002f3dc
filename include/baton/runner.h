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
 * Calls, their streams, and which functions other threads than the loop's may call: baton/rpc.h.
 *
 * No handler may call baton_runner_run(), baton_runner_dispatch() or baton_runner_free(). baton_runner_quit() may be called
 * from signal handlers, too.
 *
 * Descriptors. The library holds an epoll set of its own, so it fits into any loop: watch baton_runner_fd() for input
 * and call baton_runner_dispatch() with a timeout of 0 when it is readable. Every descriptor is close-on-exec.
 */

#include "baton/rpc.h"

#ifdef __cplusplus
extern "C" {
#endif

struct baton_runner; /* this process as baton sees it */

/* ---- the runner ------------------------------------------------------------------------------------------------ */

/*
 * Limits and names; zeroed fields mean the defaults. @size is sizeof(struct baton_runner_options): fields that a later
 * version adds at the end are then taken as zero.
 */
struct baton_runner_options {
        size_t size;
        const char *software;  /* "name version", for logs; default: the program's name */
        const char *bootstrap; /* path of the bootstrap socket; default: $BATON_BOOTSTRAP */
        uint64_t max_frame;    /* largest frame we accept, bytes; default 8 MiB, at least 64 KiB */
        uint32_t max_calls;    /* calls to us open at once; default 1,024 */
        uint32_t fd_credit;    /* descriptors sent to us and not yet listed; default 64 */
        uint32_t
                max_log_records; /* records kept until acknowledged; default 1,024; more are dropped and counted: see `park_log' */
        uint64_t stream_window; /* bytes of one stream that may be under way to us; default 256 KiB */
        uint64_t max_memory;    /* bytes, of the windows of all open streams of one peer; default 256 MiB */
        uint64_t max_shared;    /* bytes of shared memory with each attached client, each way; default 64 MiB */
        uint64_t busy_poll_us;  /* ask for so long, at most 1,000, before a wait blocks; default 0: not */
        uint32_t max_clients;   /* attached at once; default 64; ended ones count until their calls have been ended */
        uint32_t max_held_fds;  /* descriptors that open calls and items of a peer hold here; default 1,024 */
        uint32_t max_waiting;   /* calls of ours that wait to be sent to a peer; default 4,096; more fail */
        uint64_t max_waiting_bytes; /* bytes of these; default 64 MiB; more fail */
        uint64_t max_unsent;        /* bytes on their way to a peer before what is new must wait; default 1 MiB */
        uint64_t
                max_object; /* bytes of sealed objects (see baton/rpc.h) of a peer's, of one and of all held; default 4 GiB */
        uint64_t arena_size; /* bytes of one piece of shared memory: a power of two, 4 KiB to 1 GiB; default 4 MiB */
        int park_log; /* not 0: a thread other than the loop's waits in baton_log() for room, nothing of its is dropped */
};

/*
 * baton_runner_options_from_arguments() - takes what is for the library out of a program's arguments, up to "--":
 * --uds-path PATH or --uds-path=PATH, the bootstrap socket, for supervisors that pass it so. @options points into @argv
 * afterwards. 0, or -EINVAL (no path follows) after one line on standard error.
 */
BATON_PUBLIC int baton_runner_options_from_arguments(struct baton_runner_options *options, int *argc, char **argv);

/*
 * baton_runner_new() - connects to the supervisor that started us. The channels arrive while the loop runs; what is sent
 * before is queued. @options may be NULL. -ENOKEY: not started by baton ($BATON_BOOTSTRAP is not set); -EINVAL: options
 * without their size, or a limit that cannot be; -EMFILE, -ENOMEM; or why the socket could not be reached.
 * All but -EINVAL are said on standard error in one line. A connection to $BATON_BOOTSTRAP uses it up: the variable is
 * removed from the environment, since the socket is gone then, and children are not started by baton.
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

/* ---- calls to us, from the supervisor and from attached clients ------------------------------------------------- */

/*
 * baton_runner_add_method() - calls of @name ("package.Service/Method", or any UTF-8 text of 1-255 bytes), on any framed
 * channel, go to @function. Names beginning with "baton." are the library's: -EPERM. -EEXIST: registered already.
 * -EINVAL: not such a name. -ENOMEM.
 */
BATON_PUBLIC int baton_runner_add_method(struct baton_runner *runner, const char *name, baton_method_fn function,
                                         void *userdata);

/* baton_runner_set_default() - calls of a method nobody registered go to @function; without it they answer UNIMPLEMENTED. */
BATON_PUBLIC void baton_runner_set_default(struct baton_runner *runner, baton_method_fn function, void *userdata);

/*
 * baton_runner_describe_method() - what baton.Reflection/List says of a method that was added: full names of the messages
 * of request and answer, and of the items (NULL or "": raw bytes), copied. The last description counts. 0; -ENOENT: no
 * such method; -EINVAL: text that is no UTF-8, unknown flags; -ENOMEM.
 */
BATON_PUBLIC int baton_runner_describe_method(struct baton_runner *runner, const char *name, const char *request_type,
                                              const char *response_type, unsigned flags);

/*
 * baton_runner_set_health() - what baton.Health/Check answers for @service (NULL or "": the whole, and every service that
 * nothing else was said of). Without it: serving, until the runner is stopped. 0, -EINVAL (no UTF-8), -ENOMEM.
 */
BATON_PUBLIC int baton_runner_set_health(struct baton_runner *runner, const char *service, int serving);

/* baton_call_runner() - the runner this call came to; NULL: it came to a client. */
BATON_PUBLIC struct baton_runner *baton_call_runner(struct baton_call *call);

/* A client that was attached: who it is is the kernel's word to the supervisor. */
struct baton_caller {
        uint64_t id; /* from 1, never reused while the runner runs */
        int64_t pid;
        uint32_t uid, gid;
        const char *name; /* what it calls itself */
};

/* baton_call_client() - who called, valid until the call is ended; NULL: the supervisor. */
BATON_PUBLIC const struct baton_caller *baton_call_client(struct baton_call *call);

/* ---- the service: a runner that is upgraded, or replaced after its death, with what it holds --------------------- */

/*
 * A runner that keeps nothing registers nothing: it is RUNNING from its start, and can be neither upgraded nor
 * checkpointed ("keeps its state to itself"). One that registers a service, between baton_runner_new() and its first
 * dispatch, begins in INIT, and its supervisor leads it on:
 *
 *         INIT     Mount     mount()                READY
 *         INIT     Takeover  restore()              READY     instead of Mount, in a successor
 *         INIT     Stop      -                      STOPPED
 *         READY    Start     start()                RUNNING   calls and clients are taken
 *         RUNNING  Stop      stop()                 READY     no new ones; open calls end first, unless it is an upgrade
 *         READY    Stop      unmount()              STOPPED
 *         READY    Exit      exit()                 STOPPED   what is mounted is left to the successor
 *
 * save() may be asked for in READY, for a successor (then Exit follows, or Start, when the successor failed), and in READY
 * and RUNNING for a checkpoint. A service whose functions are all NULL has no state, says so by that, and can be upgraded:
 * attached clients, with their calls, cross in any case, and are the library's business. docs/upgrade.md tells all of it.
 *
 * Every function runs in the loop's thread. It returns 0: done, the next state is entered; a negative errno: failed, the
 * state stays and the event may be asked for again (what it says with baton_event_reason() is told); or
 * BATON_EVENT_LATER: baton_event_done() will end it. mount(), start() and stop() have to leave things as they were when
 * they fail. What fails in unmount() and exit() is logged, and the state is STOPPED all the same. NULL: nothing to do.
 */
struct baton_event; /* one event that is under way */
struct baton_save;
struct baton_restore;

enum {
        BATON_EVENT_LATER = 1,
};

struct baton_service {
        size_t size; /* sizeof(struct baton_service) */
        int (*mount)(struct baton_event *event, void *userdata);
        int (*start)(struct baton_event *event, void *userdata);
        int (*stop)(struct baton_event *event, void *userdata); /* also of an upgrade: baton_event_is_handover() */
        int (*unmount)(struct baton_event *event, void *userdata);
        int (*exit)(struct baton_event *event, void *userdata);
        /*
         * save() - writes down what restore() of another process needs, in one go: it may be asked for at any time, and
         * often. Nothing is changed by it. 0; a negative errno: it was not saved, with baton_save_reason() as the reason.
         */
        int (*save)(struct baton_save *save, void *userdata);
        /*
         * restore() - the other way round, all or nothing: after a negative errno (with baton_restore_reason()) it is as
         * if it had not been called. The descriptors are used by nobody else any more once start() is called, not
         * before: restore() takes them, and neither reads nor writes.
         */
        int (*restore)(struct baton_restore *restore, void *userdata);
        /* info() - more than `description', when asked: text, by baton_event_reason(). */
        int (*info)(struct baton_event *event, void *userdata);
        const char *description;       /* what baton.Runner/Info tells of it, copied: one line, or JSON; NULL: "" */
        uint32_t version, version_min; /* of what save() writes; the oldest that restore() reads; 0: 1 */
        uint64_t max_state;            /* bytes that are saved or restored at most; default 1 GiB */
        uint32_t max_fds;              /* descriptors likewise; default 65,536 */
};

/*
 * baton_runner_set_service() - before the first dispatch, else -EBUSY. @service is copied. Either both of save() and
 * restore() or none: else -EINVAL; likewise without a size, or with a description that is no UTF-8. -EEXIST: the second
 * time. -ENOMEM.
 */
BATON_PUBLIC int baton_runner_set_service(struct baton_runner *runner, const struct baton_service *service,
                                          void *userdata);

/* baton_event_runner() - whose event it is. */
BATON_PUBLIC struct baton_runner *baton_event_runner(struct baton_event *event);
/* baton_event_is_handover() - of stop(): a successor follows, open calls and clients stay as they are. */
BATON_PUBLIC int baton_event_is_handover(struct baton_event *event);
/* baton_event_reason() - one line for whoever asked; the last one counts. Control characters become '?'. */
BATON_PUBLIC void baton_event_reason(struct baton_event *event, const char *format, ...) BATON_PRINTF(2, 3);
/*
 * baton_event_done() - after BATON_EVENT_LATER, once, in the loop's thread: @result as the function would have returned
 * it. @event is gone.
 */
BATON_PUBLIC void baton_event_done(struct baton_event *event, int result);

/* baton_save_is_checkpoint() - it is for the case that this process dies; it lives on. */
BATON_PUBLIC int baton_save_is_checkpoint(const struct baton_save *save);
/* baton_save_write() - @size more bytes of state, copied. 0; -EFBIG: more than max_state; or why it cannot be written. */
BATON_PUBLIC int baton_save_write(struct baton_save *save, const void *data, size_t size);
/*
 * baton_save_fd() - a descriptor, by a name of 1 to 200 bytes of UTF-8. It stays the caller's and is duplicated. 0;
 * -EINVAL: no such name; -EMFILE: more than max_fds, or than a process may have; -EBADF;
 * -ENOMEM.
 */
BATON_PUBLIC int baton_save_fd(struct baton_save *save, const char *name, int fd);
/* baton_save_reason() - as baton_event_reason(). */
BATON_PUBLIC void baton_save_reason(struct baton_save *save, const char *format, ...) BATON_PRINTF(2, 3);

/* baton_restore_version() - of the state: from version_min to version; others were refused before. */
BATON_PUBLIC uint32_t baton_restore_version(const struct baton_restore *restore);
/* baton_restore_is_checkpoint() - the predecessor died (or was killed) after it had saved this. */
BATON_PUBLIC int baton_restore_is_checkpoint(const struct baton_restore *restore);
/* baton_restore_data() - the state, until restore() returns. Bytes of another process: to be parsed as such. */
BATON_PUBLIC const void *baton_restore_data(const struct baton_restore *restore, size_t *ret_size);
/* baton_restore_n_fds(), baton_restore_fd_name() - what came, in the order of baton_save_fd(). NULL: no such number. */
BATON_PUBLIC size_t baton_restore_n_fds(const struct baton_restore *restore);
BATON_PUBLIC const char *baton_restore_fd_name(const struct baton_restore *restore, size_t index);
/* baton_restore_take_fd() - the caller's from here; those that nobody takes are closed. -1: none of that name, or taken. */
BATON_PUBLIC int baton_restore_take_fd(struct baton_restore *restore, const char *name);
/* baton_restore_reason() - as baton_event_reason(). */
BATON_PUBLIC void baton_restore_reason(struct baton_restore *restore, const char *format, ...) BATON_PRINTF(2, 3);

/*
 * baton_runner_checkpoint() - asks the supervisor to save now; what is saved then holds everything that was done before
 * this call. @function is called once it is kept where this process's death and the supervisor's leave it: 0, or a
 * negative errno with @reason (-EOPNOTSUPP: the runner is not configured for failover). Requests while one is under way
 * share the next. 0, -ENOMEM, -ESHUTDOWN (no supervisor).
 */
BATON_PUBLIC int baton_runner_checkpoint(struct baton_runner *runner,
                                         void (*function)(struct baton_runner *runner, int result, const char *reason,
                                                          void *userdata),
                                         void *userdata);

/* ---- calls of ours to the supervisor --------------------------------------------------------------------------- */

/*
 * baton_runner_call() - baton_connection_call() to the supervisor. A client is called by baton_connection_call() on
 * baton_call_connection() of a call of its own.
 */
BATON_PUBLIC int baton_runner_call(struct baton_runner *runner, const struct baton_call_parameters *parameters,
                                   baton_answer_fn function, void *userdata, struct baton_request **ret_request);

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
 * record of its own ("3 log records dropped", target "baton"). With `park_log' other threads than the loop's wait for room
 * instead, until half of it is there, or the runner has ended; the loop's cannot wait, since it is what makes room: its
 * records are dropped still, while others wait, too. Text is cut at 8 KiB. Bytes that are no UTF-8 are replaced by '?'.
 */
BATON_PUBLIC void baton_log(struct baton_runner *runner, enum baton_level level, const char *target, const char *file,
                            unsigned line, const char *format, ...) BATON_PRINTF(6, 7);

#define BATON_LOG(_runner, _level, _target, ...) \
        baton_log((_runner), (_level), (_target), __FILE__, (unsigned) __LINE__, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

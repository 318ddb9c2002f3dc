#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton/client.h - start runners, call them, and be called by them: from a program of your own.
 *
 *         #include <baton/client.h>
 *
 *         struct baton_start_parameters start = { .size = sizeof(start), .program = "baton-runner-echo" };
 *         struct baton_call_parameters call = { .size = sizeof(call), .method = "echo.Echo/Unary" };
 *         struct baton_started started = { .size = sizeof(started) };
 *         struct baton_connection *echo;
 *         struct baton_answer *answer;
 *         struct baton_client *client;
 *         int r = baton_client_new_private(&client, NULL);
 *
 *         if (r == 0)
 *                 r = baton_client_start(client, &start, &started);
 *         if (r == 0)
 *                 r = baton_client_attach(client, started.name, 0, &echo);
 *         if (r == 0)
 *                 r = baton_connection_call_wait(echo, &call, &answer);
 *         ...
 *         baton_answer_free(answer);
 *         baton_client_free(client);
 *
 * A client is a connection to a supervisor. baton_client_new_private() starts one, processes of this program's own, without
 * any daemon. It outlives the thread that started it, and never the process: however this one ends, the supervisor and all
 * its runners end, too. baton_client_new_connected() connects to one that runs (`baton supervise') and that others share:
 * attach to its runners by their names. The rest is the same; what one may do there follows from its role, which the
 * supervisor's configuration gives: BATON_PERMISSION_DENIED.
 *
 * baton_client_attach() gives a connection of one's own to a runner: calls over it go from process to process, and the
 * supervisor does not run for them. Any number of connections, of this and other clients, may lead to one runner. What
 * both ends can do with a connection is in baton/rpc.h: call, stream, pass descriptors, cancel.
 *
 * Two ways to wait. Functions that return what they are asked for run the client's loop until it is there (calls to us,
 * answers, items are handled meanwhile): no handler may call them, -EBUSY. Each has a baton_client_begin_...(), which
 * returns at once and tells a function later, while the loop runs: in baton_client_dispatch(), or in somebody else's
 * loop, which watches baton_client_fd() for input and then calls baton_client_dispatch() with a timeout of 0.
 *
 * Results. 0; a negative errno; or a positive enum baton_status: the supervisor has refused. For both baton_client_failure()
 * has one line for people, and what is known of a runner that did not start. Refusals: BATON_NOT_FOUND (no runner of that
 * name), BATON_FAILED_PRECONDITION (not in this state), BATON_UNAVAILABLE (the runner, or the supervisor, is gone), ...
 *
 * Strings that the kernel takes (program, arguments, environment, directory) are any bytes; all others are UTF-8. The
 * other conventions, and which functions other threads may call, are those of baton/rpc.h; baton_client_interrupt() may be
 * called from any thread and from signal handlers, too.
 *
 * The host program's signals and children stay its own: SIGCHLD is neither caught nor needed, and where the program waits
 * for all children itself, or ignores them, that does no harm.
 */

#include "baton/rpc.h"

#ifdef __cplusplus
extern "C" {
#endif

struct baton_client; /* a connection to a supervisor, and the loop of all that it attaches to */

/* ---- the client ------------------------------------------------------------------------------------------------ */

/*
 * Names and limits; zeroed fields mean the defaults. @size is sizeof(struct baton_client_options): fields that a later
 * version adds at the end are then taken as zero. The limits are what we accept, of each connection.
 */
struct baton_client_options {
        size_t size;
        const char *software;       /* "name version", for logs; default: the program's name */
        const char *baton;          /* path of the program `baton'; default: $BATON_PROGRAM, else the installed one */
        uint64_t max_frame;         /* largest frame, bytes; default 8 MiB; 64 KiB to 4 GiB - 1 */
        uint32_t max_calls;         /* calls to us open at once; default 1,024 */
        uint32_t fd_credit;         /* descriptors sent to us and not yet listed; default 64 */
        uint64_t stream_window;     /* bytes of one stream that may be under way to us; default 256 KiB */
        uint64_t max_shared;        /* bytes of shared memory with each attached runner, each way; default 64 MiB */
        uint64_t busy_poll_us;      /* ask for so long, at most 1,000, before a wait blocks; default 0: not */
        uint64_t max_memory;        /* bytes, of the windows of all open streams together; default 256 MiB */
        uint32_t max_held_fds;      /* descriptors that open calls and items of a peer hold here; default 1,024 */
        uint32_t max_waiting;       /* calls of ours that wait to be sent to a peer; default 4,096; more fail */
        uint64_t max_waiting_bytes; /* bytes of these; default 64 MiB; more fail */
        uint64_t max_unsent;        /* bytes on their way to a peer before what is new must wait; default 1 MiB */
        uint64_t
                max_object; /* bytes of sealed objects (see baton/rpc.h) of a peer's, of one and of all held; default 4 GiB */
        uint64_t arena_size; /* bytes of one piece of shared memory: a power of two, 4 KiB to 1 GiB; default 4 MiB */
};

/*
 * baton_client_new_private() - starts a supervisor of our own. @options may be NULL. -EINVAL: options without their size,
 * or a limit that is refused; -ENOENT, -EACCES, ...: why the program `baton' could not be executed; -EMFILE, -EAGAIN,
 * -ENOMEM. What goes wrong after that is told by the first thing that is asked of it.
 */
BATON_PUBLIC int baton_client_new_private(struct baton_client **ret_client,
                                          const struct baton_client_options *options);

/*
 * baton_client_new_connected() - connects to the supervisor behind the control socket @path; NULL or "": $BATON_SOCKET, else
 * `control' in the runtime directory of this user: /run/baton, $XDG_RUNTIME_DIR/baton, or /tmp/baton-UID. @options may be
 * NULL; `baton' in it is not used. -ENOENT: there is no such socket; -ECONNREFUSED: nobody is behind it any more; -EACCES;
 * -ENOTSOCK: something else is there; -ETIMEDOUT: nobody accepts us; -ENAMETOOLONG; -EINVAL, -EMFILE, -ENOMEM as above.
 * Whether the supervisor wants us is told by the first thing that is asked of it.
 */
BATON_PUBLIC int baton_client_new_connected(struct baton_client **ret_client, const char *path,
                                            const struct baton_client_options *options);

/*
 * baton_client_free() - closes all connections. A private supervisor is stopped with its runners, and their end waited for:
 * as long as they take to stop, at most 15 s, then they are killed. One that others share, and its runners, go on. Calls,
 * requests and what was begun are forgotten without a callback: their objects are gone, too. Not from a handler. Accepts
 * NULL.
 */
BATON_PUBLIC void baton_client_free(struct baton_client *client);

/* baton_client_fd() - one descriptor, ours, that is readable when baton_client_dispatch() has something to do. */
BATON_PUBLIC int baton_client_fd(struct baton_client *client);

/*
 * baton_client_dispatch() - does what there is to do, after waiting for it at most @timeout_ms (-1: for ever, 0: not at
 * all). 0; -EBUSY: called from a handler, nothing was done; or why the loop cannot wait.
 */
BATON_PUBLIC int baton_client_dispatch(struct baton_client *client, int timeout_ms);

/*
 * baton_client_interrupt() - ends one wait, the one going on or else the next: baton_client_dispatch() returns 0, a
 * function that waits for a result -EINTR; what was asked for may happen all the same. From any thread, and from signal
 * handlers.
 */
BATON_PUBLIC void baton_client_interrupt(struct baton_client *client);

/* baton_client_reason() - why the supervisor is gone, one line; "" while it is there. Ours, until baton_client_free(). */
BATON_PUBLIC const char *baton_client_reason(struct baton_client *client);

/* ---- what runners may call ------------------------------------------------------------------------------------- */

/*
 * baton_client_add_method() - calls of @name, from any runner we are attached to, go to @function;
 * baton_call_connection() says from which. As baton_runner_add_method(): -EPERM, -EEXIST, -EINVAL, -ENOMEM.
 */
BATON_PUBLIC int baton_client_add_method(struct baton_client *client, const char *name, baton_method_fn function,
                                         void *userdata);

/*
 * baton_client_describe_method() - what runners that ask (baton.Reflection/List) are told of a method, as
 * baton_runner_describe_method(): -ENOENT, -EINVAL, -ENOMEM.
 */
BATON_PUBLIC int baton_client_describe_method(struct baton_client *client, const char *name, const char *request_type,
                                              const char *response_type, unsigned flags);

/*
 * baton_client_set_health() - what runners that ask (baton.Health/Check) are answered for @service (NULL or "": the whole,
 * and every service that nothing else was said of). Without it: serving. 0, -EINVAL (no UTF-8), -ENOMEM.
 */
BATON_PUBLIC int baton_client_set_health(struct baton_client *client, const char *service, int serving);

/* baton_client_set_default() - calls of a method nobody added go to @function; without it they answer UNIMPLEMENTED. */
BATON_PUBLIC void baton_client_set_default(struct baton_client *client, baton_method_fn function, void *userdata);

/* ---- how processes end, and do not start ----------------------------------------------------------------------- */

enum baton_exit_how {
        BATON_EXIT_UNKNOWN = 0, /* nobody saw it: never taken for success */
        BATON_EXIT_EXITED = 1,
        BATON_EXIT_SIGNALED = 2,
        BATON_EXIT_DUMPED = 3 /* by a signal, with a core dump */
};

struct baton_exit {
        enum baton_exit_how how;
        int status; /* exit code, or signal number */
};

/* Why a start failed. */
enum baton_start_reason {
        BATON_START_NONE = 0,
        BATON_START_NOT_FOUND = 1, /* no such program */
        BATON_START_NOT_EXECUTABLE = 2,
        BATON_START_WRONG_FORMAT = 3,    /* not for this machine */
        BATON_START_EXITED_EARLY = 4,    /* before it connected; see `exit' */
        BATON_START_DID_NOT_CONNECT = 5, /* it was killed */
        BATON_START_SYSTEM = 6           /* see `message' */
};

struct baton_failure {
        enum baton_status status; /* BATON_OK: nobody refused, it was a negative errno */
        const char *message;      /* one line */
        enum baton_start_reason reason;
        struct baton_exit exit;         /* of the runner, where that is why */
        const char *const *last_output; /* the last lines it wrote, oldest first */
        size_t n_last_output;
};

/*
 * baton_client_failure() - of the function that returned last, or, in the function of a baton_client_begin_...(), of that;
 * valid until the next is called. Never NULL; all zero and "" after a success.
 */
BATON_PUBLIC const struct baton_failure *baton_client_failure(struct baton_client *client);

/* ---- runners --------------------------------------------------------------------------------------------------- */

enum baton_runner_kind {
        BATON_RUNNER_NATIVE = 0, /* speaks the runner protocol: can be attached to */
        BATON_RUNNER_PLAIN = 1   /* any program */
};

/* What to start; zeroed fields mean the defaults. @size is sizeof(struct baton_start_parameters). */
struct baton_start_parameters {
        size_t size;
        enum baton_runner_kind kind;
        const char *name; /* 1-63 letters, digits and . _ - @; default: made from the program's */
        const char *
                program; /* without a slash it is looked for in $PATH, then beside baton; default: the runner @name that the
                                         * supervisor has by its configuration is started, and the rest is not used */
        const char *const *arguments;   /* from argv[1], ended by NULL; default: none */
        const char *const *environment; /* NAME=value, ended by NULL, the whole of it; default: ours */
        const char *directory;          /* default: ours */
        uint64_t start_timeout_us;      /* for a native one: until it has connected; default 10 s */
        uint32_t max_attached;          /* connections to it at once; default 64 */
        int park_output; /* not 0: it waits when its output is not read fast enough, else the oldest lines go */
        /* What the supervisor accepts from it, as in struct baton_client_options. */
        uint64_t max_frame;
        uint32_t max_calls;
        uint32_t fd_credit;
        uint64_t stream_window;
        uint64_t max_memory;
        uint32_t max_held_fds;
        uint32_t max_waiting;
        uint64_t max_waiting_bytes;
        uint64_t max_unsent;
        uint64_t max_object;
};

/* Set @size to sizeof(struct baton_started) before the call. */
struct baton_started {
        size_t size;
        char name[64];
        uint64_t instance; /* of this start; never reused */
        int pid;
};

typedef void (*baton_started_fn)(struct baton_client *client, int result, const struct baton_started *started,
                                 void *userdata);

/*
 * baton_client_start() - starts a runner and waits until it is there: a native one has connected, a plain one has been
 * executed. @ret_started may be NULL. BATON_UNAVAILABLE, and nothing of it is left: see baton_client_failure();
 * BATON_ALREADY_EXISTS: the name is in use; BATON_INVALID_ARGUMENT; -EINVAL: neither program nor name, or parameters
 * without their size; -EINTR; -ESHUTDOWN: the supervisor is gone; -ENOMEM.
 */
BATON_PUBLIC int baton_client_start(struct baton_client *client, const struct baton_start_parameters *parameters,
                                    struct baton_started *ret_started);

/*
 * baton_client_begin_start() - the same without waiting. If it returns 0, @function is called, once, later; @started is
 * NULL where the result is not 0. Other functions may name the runner at once: they wait for it.
 */
BATON_PUBLIC int baton_client_begin_start(struct baton_client *client, const struct baton_start_parameters *parameters,
                                          baton_started_fn function, void *userdata);

/* Set @size to sizeof(struct baton_stopped) before the call. */
struct baton_stopped {
        size_t size;
        struct baton_exit exit;
        int killed; /* it took SIGKILL */
};

typedef void (*baton_stopped_fn)(struct baton_client *client, int result, const struct baton_stopped *stopped,
                                 void *userdata);

/*
 * baton_client_stop() - stops a runner in at most @timeout_us (0: 10 s), by force in the end, and waits until it is gone.
 * Of one that has ended by itself it tells how: the 16 that ended last are remembered. @ret_stopped may be NULL.
 */
BATON_PUBLIC int baton_client_stop(struct baton_client *client, const char *name, uint64_t timeout_us,
                                   struct baton_stopped *ret_stopped);
BATON_PUBLIC int baton_client_begin_stop(struct baton_client *client, const char *name, uint64_t timeout_us,
                                         baton_stopped_fn function, void *userdata);

typedef void (*baton_signalled_fn)(struct baton_client *client, int result, void *userdata);

/* baton_client_signal() - a signal to the runner's process group. */
BATON_PUBLIC int baton_client_signal(struct baton_client *client, const char *name, int signal);
BATON_PUBLIC int baton_client_begin_signal(struct baton_client *client, const char *name, int signal,
                                           baton_signalled_fn function, void *userdata);

/* ---- what runners say ------------------------------------------------------------------------------------------ */

enum baton_log_source { BATON_LOG_STDOUT = 0, BATON_LOG_STDERR = 1, BATON_LOG_RECORD = 2 };

struct baton_log_line {
        uint64_t seq;
        uint64_t time_us; /* wall clock */
        enum baton_log_source source;
        const char *text; /* without the newline; whatever bytes it wrote: not ended by NUL */
        size_t size;
        int partial;    /* goes on in the next line of this source */
        unsigned level; /* of a record, as are: */
        const char *target;
        const char *file;
        unsigned line;
};

/* Valid while the function runs. */
struct baton_logs {
        size_t size;
        const struct baton_log_line *lines;
        size_t n_lines;
        uint64_t next_seq; /* what to ask for next */
        uint64_t dropped;  /* lines before the first that are no longer kept */
        int ended;         /* the runner is gone and every line of it has been given; then: */
        struct baton_exit exit;
};

typedef void (*baton_logs_fn)(struct baton_client *client, int result, const struct baton_logs *logs, void *userdata);

/*
 * baton_client_logs() - lines from number @from_seq on (0: the oldest kept); @function is called with them, once, before
 * this returns, if it returns 0. @wait not 0: at least one, or the end of the runner, is waited for. Ask again from
 * `next_seq' until `ended'.
 */
BATON_PUBLIC int baton_client_logs(struct baton_client *client, const char *name, uint64_t from_seq, int wait,
                                   baton_logs_fn function, void *userdata);
BATON_PUBLIC int baton_client_begin_logs(struct baton_client *client, const char *name, uint64_t from_seq, int wait,
                                         baton_logs_fn function, void *userdata);

/* ---- connections to runners ------------------------------------------------------------------------------------ */

typedef void (*baton_attached_fn)(struct baton_client *client, int result, struct baton_connection *connection,
                                  void *userdata);

/*
 * baton_client_attach() - a connection of our own to the runner @name; one that is starting is waited for. It belongs to
 * @client and is closed by baton_connection_close(), at the latest by baton_client_free(). @timeout_us 0: none.
 * BATON_RESOURCE_EXHAUSTED: as many as may be are attached; BATON_FAILED_PRECONDITION: a plain program, one that takes no
 * connections, or it is stopping or not running.
 */
BATON_PUBLIC int baton_client_attach(struct baton_client *client, const char *name, uint64_t timeout_us,
                                     struct baton_connection **ret_connection);
BATON_PUBLIC int baton_client_begin_attach(struct baton_client *client, const char *name, uint64_t timeout_us,
                                           baton_attached_fn function, void *userdata);

/*
 * baton_connection_close() - of one that was attached: the runner sees our end. Calls and requests that are open are
 * forgotten without a callback: their objects are gone, too. May be called in every handler, then not for a call that
 * this handler still works on. Accepts NULL.
 */
BATON_PUBLIC void baton_connection_close(struct baton_connection *connection);

typedef void (*baton_ended_fn)(struct baton_connection *connection, enum baton_status status, const char *reason,
                               void *userdata);

/*
 * baton_connection_on_end() - @function is called once when the runner's end of the connection is gone: open requests
 * have been told UNAVAILABLE before, but for those that still have items to take; new ones get -ESHUTDOWN. How the runner
 * ended, baton_client_stop() tells. The object stays until baton_connection_close(). Not called for what has been before.
 */
BATON_PUBLIC void baton_connection_on_end(struct baton_connection *connection, baton_ended_fn function,
                                          void *userdata);

/*
 * baton_connection_call_wait() - calls and waits for the answer, which is the caller's, to be freed by
 * baton_answer_free(); descriptors that it takes out are set to -1. 0: there is an answer, whatever its status (local
 * ends too: deadline, the runner's end); a negative errno as baton_connection_call(), -EINTR (the call is cancelled),
 * -EBUSY (in a handler): there is none.
 */
BATON_PUBLIC int baton_connection_call_wait(struct baton_connection *connection,
                                            const struct baton_call_parameters *parameters,
                                            struct baton_answer **ret_answer);

/* baton_answer_free() - of baton_connection_call_wait(), with the descriptors still in it. Accepts NULL. */
BATON_PUBLIC void baton_answer_free(struct baton_answer *answer);

#ifdef __cplusplus
}
#endif

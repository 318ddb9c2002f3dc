#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A connection to the kernel: /dev/fuse, or in a test a socket, a mirror that answers what is asked, and the threads that
 * do it. All functions are for one thread, which is none of the session's own.
 */

#include "runner/fuse/mirror.h"

typedef struct Session Session;
typedef struct SessionTerms SessionTerms;

/* What becomes of requests that a process took and did not answer before it died. */
typedef enum Pending {
        PENDING_RESEND, /* the kernel sends them again: Linux 6.9 */
        PENDING_FLUSH,  /* they fail with EIO */
        PENDING_NONE,   /* they wait until they are interrupted */
        _PENDING_N,
} Pending;

/* What was agreed with the kernel, once for the life of the mount. */
struct SessionTerms {
        uint32_t minor;
        uint64_t flags;
        bool can_resend;
};

enum {
        SESSION_WORKERS = TABLE_SLOTS - 1,
};

/* session_new() - takes @device_consume and @mirror_consume on every path. 0, -ENOMEM, -EMFILE. */
int session_new(Session **ret_session, int device_consume, Mirror *mirror_consume);

/* session_free() - stops it, closes everything. Accepts NULL. */
Session *session_free(Session *session);
DEFINE_CLEANUP(Session *, session_free);

/*
 * session_negotiate() - answers INIT, the first request of a new mount. 0; -EPROTONOSUPPORT: the kernel's protocol is not
 * ours; -EPROTO: it is something else; -ETIMEDOUT; or why it cannot be read.
 */
int session_negotiate(Session *session, SessionTerms *ret_terms);

/*
 * session_load() - takes the table over, from a process that has died or has been stopped, or from ourselves. What was
 * left unanswered is dealt with as @pending says. 0 or a negative errno: it is not served.
 */
int session_load(Session *session, Pending pending);

/* session_run() - begins to serve. 0, or a negative errno. */
int session_run(Session *session);

/* session_stop() - all that was taken is answered, nothing more is. Good for one that does not run. Its result as below. */
int session_stop(Session *session);

/*
 * session_ended() - whether it has ended by itself, which session_event_fd() tells by being readable: 0 in @ret_result: it
 * was unmounted; or a negative errno.
 */
bool session_ended(Session *session, int *ret_result);
int session_event_fd(const Session *session);

/* session_device(), session_mirror() - borrowed; the mirror only while it does not run. */
int session_device(const Session *session);
Mirror *session_mirror(Session *session);

/* pending_parse(), pending_name() - "resend", "flush", "none". -EINVAL. */
int pending_parse(const char *text, Pending *ret_pending);
const char *pending_name(Pending pending);

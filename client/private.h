#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* A private supervisor: `baton supervise --private` over an inherited lane, whose end ends the whole tree. */

#include <stdint.h>

#include "proto/endpoint.h"

typedef struct Private Private;

typedef struct PrivateConfig {
        const char *program;      /* baton; NULL: $BATON_PROGRAM, else the installed one */
        const char *software;     /* what our Hello says: "name version" */
        const PeerLimits *limits; /* NULL: all defaults */
        const PeerHandler *handler;
        void *userdata; /* of the peer */
} PrivateConfig;

/*
 * private_start() - starts a supervisor as a child of this process and makes the peer that talks to it, hosted by
 * @endpoint, which must outlive it. The tree has a session of its own: signals of a terminal do not reach it. It ends
 * with private_stop(), and with this process, however that ends; the thread that started it may end before. 0; the errno
 * of the program's execution (-ENOENT, -EACCES, ...); -EMFILE, -ENOMEM, -EAGAIN. What goes wrong later is told by the
 * handler's ended(); after a failure here nothing is.
 */
int private_start(Private **ret_private, Endpoint *endpoint, const PrivateConfig *config);

/* private_default_program() - $BATON_PROGRAM, else the installed one. */
const char *private_default_program(void);

/* private_free() - private_stop() with a time-out of 15 s, longer than an orderly stop can take. Accepts NULL, returns NULL. */
Private *private_free(Private *private);
DEFINE_CLEANUP(Private *, private_free);

/* private_peer() - the supervisor; NULL after private_close(). */
Peer *private_peer(const Private *private);

/* private_fd() - the process at the root of the tree, a pidfd: readable when it has ended. Stays ours. */
int private_fd(const Private *private);

/*
 * private_close() - closes the lane without waiting: from here on the tree stops by itself. The handler's ended() is
 * called, and the peer is gone.
 */
void private_close(Private *private);

/* private_has_failed() - after the end of its lane: whether the tree has ended itself with a failure, and so said why. */
bool private_has_failed(const Private *private);

/* private_kill() - SIGKILL to the root of the tree; its children die with it. */
void private_kill(Private *private);

/*
 * private_stop() - private_close(), waits at most @timeout_us for the end of the tree, and reaps its root. The host
 * program's SIGCHLD disposition is not touched: where it reaps all children itself, that is noticed and fine. 0;
 * -ETIMEDOUT: it had to be killed. Once it has returned, nothing is left to wait for; a second call does nothing.
 */
int private_stop(Private *private, uint64_t timeout_us);

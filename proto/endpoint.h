#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The host of peers in libbaton: an epoll set with a timerfd and an eventfd, so that one descriptor fits into anybody's
 * loop. One thread at a time; endpoint_wake() alone may be called from any.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/peer-save.h"

typedef struct Endpoint Endpoint;
typedef struct EndpointTask EndpointTask;

/* Work to be done before the endpoint next waits, embedded in its owner's structure. */
struct EndpointTask {
        TAILQ_ENTRY(EndpointTask) link;
        void (*run)(EndpointTask *task);
        bool queued;
};
#define ENDPOINT_TASK_NULL(_run) ((EndpointTask){ .run = (_run) })

/* endpoint_new() - 0, -EMFILE, -ENFILE, -ENOMEM. */
int endpoint_new(Endpoint **ret_endpoint);

/* endpoint_free() - its peers must be gone. Not from one of its callbacks. Accepts NULL, returns NULL. */
Endpoint *endpoint_free(Endpoint *endpoint);
DEFINE_CLEANUP(Endpoint *, endpoint_free);

/*
 * endpoint_fd() - readable when endpoint_dispatch() has something to do. Stays the endpoint's. Who asks for it is taken to
 * wait elsewhere: from then on the descriptor tells deadlines and queued work, too, which costs a system call for each
 * that comes from outside of endpoint_dispatch().
 */
int endpoint_fd(Endpoint *endpoint);

/* endpoint_add_peer() - peer_new() with this endpoint as its host. */
int endpoint_add_peer(Endpoint *endpoint, const PeerConfig *config, int lane_fd_consume, const PeerHandler *handler,
                      void *userdata, Peer **ret_peer);

/* endpoint_restore_peer() - peer_restore() with this endpoint as its host, of one that is at rest. Errors as its. */
int endpoint_restore_peer(Endpoint *endpoint, const PeerConfig *config, const Baton__Handover__Peer *state,
                          const char *prefix, Manifest *manifest, const PeerHandler *handler, void *userdata,
                          Peer **ret_peer, char reason[MANIFEST_REASON_SIZE]);

/*
 * endpoint_watch() - another descriptor in the same set: @callback when it is readable, or its other end is gone; NULL
 * stops, which its owner does before closing it. 0, or -ENOMEM, -EPERM (a file that cannot be waited for), ...
 */
int endpoint_watch(Endpoint *endpoint, int fd, void (*callback)(int fd, void *userdata), void *userdata);

/* endpoint_watch_for() - the same for @events, PEER_IN and PEER_OUT. */
int endpoint_watch_for(Endpoint *endpoint, int fd, unsigned events, void (*callback)(int fd, void *userdata),
                       void *userdata);

/* endpoint_defer() - runs @task once before the endpoint next waits, however often it is asked for. */
void endpoint_defer(Endpoint *endpoint, EndpointTask *task);
void endpoint_cancel(Endpoint *endpoint, EndpointTask *task);

/*
 * endpoint_dispatch() - flushes what is queued, waits at most @timeout_ms (-1: for ever) for something to do, does it,
 * and flushes. Where flushing has called back already, it does not wait. 0, or a negative errno: -EBUSY (called from one of
 * its own callbacks), or the epoll set's; -EINTR is not one of them (a signal ends the wait, 0).
 */
int endpoint_dispatch(Endpoint *endpoint, int timeout_ms);

/*
 * endpoint_set_busy_poll() - a wait of ours asks for up to @max_us (at most 1,000) before it blocks; 0: off, as at first. It
 * spends a processor to save a wake-up; where this process has but one, nothing changes.
 */
void endpoint_set_busy_poll(Endpoint *endpoint, uint64_t max_us);

/* endpoint_on_wake() - @task is to be run in the turn that endpoint_wake() has asked for; NULL: none any more. */
void endpoint_on_wake(Endpoint *endpoint, EndpointTask *task);

/* endpoint_is_dispatching() - whether the caller is inside one of its callbacks, where nothing can wait. */
bool endpoint_is_dispatching(const Endpoint *endpoint);

/* endpoint_wake() - makes a waiting endpoint_dispatch() return; from any thread, and from signal handlers. */
void endpoint_wake(Endpoint *endpoint);

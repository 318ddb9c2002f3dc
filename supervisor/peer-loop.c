/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Peer Loop: what proto/peer.h asks of a host, on libev. A watcher per slot, one task for the flush, one timer. The timer
 * is set again only for an earlier moment, or when it fires: deadlines move later with each frame, and a timer that fires
 * too early costs one look, while moving it each time would cost a heap operation per call.
 *
 * A peer's lane has a duplicate in the keeper and perhaps one more wherever the peer is being ended. The one watched is another
 * duplicate, which its owner closes when the keeper's is gone: so there is one that lasts as long as the watcher, whatever
 * the peer does with its own.
 *
 * The peer may be freed, and this with it, from within any call into it: release() while such a call runs only marks.
 */

#include "supervisor/peer-loop.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"

typedef struct PeerLoop PeerLoop;

typedef struct PeerLoopSlot {
        LoopIo io;
        PeerLoop *host;
} PeerLoopSlot;

struct PeerLoop {
        Loop *loop;
        Peer *peer;
        const int *watched_lane;
        Precopy *precopy;
        Precopied *copied; /* NULL: nobody wants to know of changes */
        PeerLoopSlot slots[_PEER_SLOT_N];
        LoopTask flush;
        LoopTimer timer;
        uint64_t deadline; /* the timer's; USEC_INFINITY: not set */
        unsigned n_calls;  /* into the peer, now running */
        bool released;
        bool restored; /* and peer_own() was not called here yet */
};

static void stop_all(PeerLoop *host) {
        for (unsigned i = 0; i < _PEER_SLOT_N; i++)
                loop_io_stop(&host->slots[i].io);
        loop_task_cancel(&host->flush);
        loop_timer_stop(&host->timer);
}

static void set_timer(PeerLoop *host) {
        uint64_t deadline = peer_deadline(host->peer);

        if (deadline >= host->deadline)
                return;
        host->deadline = deadline;
        loop_timer_set(host->loop, &host->timer, deadline);
}

static void touch(const PeerLoop *host) {
        if (host->copied)
                precopy_touch(host->precopy, host->copied);
}

/* enter() - one that was restored is ours from its first event on: the loop does not turn before that. */
static void enter(PeerLoop *host) {
        host->n_calls++;
        touch(host);
        if (!host->restored)
                return;
        host->restored = false;
        peer_own(host->peer);
}

static void leave(PeerLoop *host) {
        host->n_calls--;
        if (!host->released)
                set_timer(host);
        else if (host->n_calls == 0)
                free(host);
}

static void slot_ready(LoopIo *io, unsigned events) {
        PeerLoopSlot *slot = CONTAINER_OF(io, PeerLoopSlot, io);
        PeerLoop *host = slot->host;

        enter(host);
        peer_dispatch(host->peer, (unsigned) (slot - host->slots), events);
        leave(host);
}

static void flush_now(LoopTask *task) {
        PeerLoop *host = CONTAINER_OF(task, PeerLoop, flush);

        enter(host);
        peer_flush(host->peer);
        leave(host);
}

static void timer_fired(LoopTimer *timer) {
        PeerLoop *host = CONTAINER_OF(timer, PeerLoop, timer);

        host->deadline = USEC_INFINITY;
        enter(host);
        if (peer_deadline(host->peer) <= clock_now())
                peer_expire(host->peer);
        leave(host);
}

static void host_watch(void *userdata, unsigned slot, int fd, unsigned events) {
        PeerLoop *host = userdata;

        if (slot == PEER_LANE && host->watched_lane && *host->watched_lane >= 0)
                fd = *host->watched_lane;
        loop_io_set(host->loop, &host->slots[slot].io, fd, events);
}

static void host_wake(void *userdata) {
        PeerLoop *host = userdata;

        if (host->released)
                return;
        touch(host);
        loop_task_queue(host->loop, &host->flush);
}

static void host_release(void *userdata) {
        PeerLoop *host = userdata;

        stop_all(host);
        host->released = true;
        if (host->n_calls == 0)
                free(host);
}

static const PeerHost peer_loop_host = {
        .watch = host_watch,
        .wake = host_wake,
        .release = host_release,
};

static PeerLoop *host_new(const PeerLoopParameters *parameters) {
        PeerLoop *host = calloc(1, sizeof(*host));

        if (!host)
                return NULL;
        host->loop = parameters->loop;
        host->watched_lane = parameters->watched_lane;
        host->precopy = parameters->precopy;
        host->copied = parameters->copied;
        host->flush = LOOP_TASK_NULL(flush_now);
        host->timer = LOOP_TIMER_NULL(timer_fired);
        host->deadline = USEC_INFINITY;
        for (unsigned i = 0; i < _PEER_SLOT_N; i++)
                host->slots[i] = (PeerLoopSlot){ .io = LOOP_IO_NULL(slot_ready), .host = host };
        return host;
}

/* finish() - @r is what making the peer has led to. */
static int finish(PeerLoop *host, int r, Peer **ret_peer) {
        if (r < 0) {
                stop_all(host); /* it may have asked for watchers before it failed */
                free(host);
                return r;
        }
        *ret_peer = host->peer;
        touch(host);
        set_timer(host);
        return 0;
}

int peer_loop_new(Peer **ret_peer, const PeerLoopParameters *parameters, int lane_fd_consume) {
        _cleanup_fd_ int lane = lane_fd_consume;
        PeerLoop *host = host_new(parameters);
        int r;

        if (!host)
                return -ENOMEM;
        r = peer_new(&host->peer, parameters->config, fd_take(&lane), &peer_loop_host, host, parameters->handler,
                     parameters->userdata);
        return finish(host, r, ret_peer);
}

int peer_loop_restore(Peer **ret_peer, const PeerLoopParameters *parameters, const Baton__Handover__Peer *state,
                      const char *prefix, Manifest *manifest, char reason[MANIFEST_REASON_SIZE]) {
        PeerLoop *host = host_new(parameters);
        int r;

        if (!host)
                return -ENOMEM;
        r = peer_restore(&host->peer, state, prefix, manifest, parameters->config, &peer_loop_host, host,
                         parameters->handler, parameters->userdata, reason);
        host->restored = true;
        return finish(host, r, ret_peer);
}

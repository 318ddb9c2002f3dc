#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A lane: a connected unix stream that carries (id, descriptor) pairs and nothing else. A message is the id, 8 bytes
 * little-endian, with exactly one descriptor. Ids 0..2 of an epoch are its channels; other descriptors have
 * epoch << 32 | n << 1 | side, n from 3 in each epoch, rising; each side has its own.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/fd.h"

#define LANE_CHANNELS 3u /* reserved ids: RPC, FILESYSTEM, DATA */
#define LANE_FIRST_N  3u
#define LANE_LAST_N   UINT32_C(0x7fffffff)
#define LANE_ID_SIZE  8u

/* Outcomes of lane_receive(). */
typedef enum LaneResult {
        LANE_AGAIN,      /* nothing more for now */
        LANE_DESCRIPTOR, /* one more descriptor (or the fact of its loss) is there to be claimed */
        LANE_CHANNEL,    /* the next channel of this epoch: ret_id 0..2, ret_fd is the caller's */
        LANE_RENEWAL, /* channel 0 of a higher epoch: ret_id is the epoch; call lane_begin_epoch() when done with the old one */
        LANE_EOF,       /* the other side has closed */
        LANE_BROKEN,    /* the other side broke the rules; lane_reason() says which */
        LANE_EXHAUSTED, /* a limit: more than its credit, or a channel lost to our own; lane_reason() says which */
} LaneResult;

/* Who may raise the epoch. */
typedef enum LaneRenewal {
        LANE_RENEWAL_NONE, /* control connections */
        LANE_RENEWAL_PEER,
        LANE_RENEWAL_SELF,
} LaneRenewal;

typedef struct LaneArrived {
        uint64_t id;
        int fd; /* -1: lost to our own descriptor limit */
} LaneArrived;

typedef struct LaneOutgoing {
        STAILQ_ENTRY(LaneOutgoing) link;
        uint64_t id;
        int fd;
} LaneOutgoing;

typedef struct Lane {
        int fd;
        unsigned side; /* 0 or 1; the one that sends the channels on a new lane is 0 */
        LaneRenewal renewal;
        unsigned n_channels; /* on this lane: 3 to a runner, 1 elsewhere */
        unsigned due;        /* the next channel to arrive; n_channels when none is due */
        uint32_t epoch;
        uint32_t next_n;
        const char *reason;

        LaneArrived *arrived; /* unclaimed, in order of arrival */
        size_t n_arrived, size_arrived;
        size_t max_arrived; /* an overdraft of the credit that we gave: the peer ends */

        STAILQ_HEAD(, LaneOutgoing) outgoing;
        uint64_t n_queued, n_sent; /* since the start, for lane_mark() */
} Lane;

/*
 * lane_init() - takes @fd_consume, a connected unix stream. @max_unclaimed bounds what the other side may have sent
 * without listing it. Nothing can fail.
 */
void lane_init(Lane *lane, int fd_consume, unsigned side, unsigned n_channels, LaneRenewal renewal,
               size_t max_unclaimed);

/* lane_deinit() - closes the lane, all that is unclaimed and all that is unsent. Good for a zeroed structure with fd -1. */
void lane_deinit(Lane *lane);

/* lane_allocate() - the next id of our side into @ret_id; -EOVERFLOW when the epoch has no more: the peer must end. */
int lane_allocate(Lane *lane, uint64_t *ret_id);

/* lane_channel_id() - the id of channel @n in this epoch. */
uint64_t lane_channel_id(const Lane *lane, unsigned n);

/*
 * lane_queue() - queues one message; the descriptor is the queue's from here, and closed when the kernel took it.
 * 0 or -ENOMEM (closed then too).
 */
int lane_queue(Lane *lane, uint64_t id, int fd_consume);

/*
 * lane_flush() - sends what is queued, without waiting. 0: all sent; -EAGAIN: wait until the lane is writable;
 * -ETOOMANYREFS: too many descriptors in flight, no event tells when there is room again, try later; else the errno
 * of a broken lane (reading goes on: EOF comes by itself).
 */
int lane_flush(Lane *lane);

/* lane_mark() - everything queued so far has been taken by the kernel when lane_sent(lane, mark). */
static inline uint64_t lane_mark(const Lane *lane) {
        return lane->n_queued;
}

static inline bool lane_sent(const Lane *lane, uint64_t mark) {
        return lane->n_sent >= mark;
}

/*
 * lane_receive() - reads one message, without waiting; stale ones (of lower epochs) are closed on the way. @ret_id and
 * @ret_fd are written for LANE_CHANNEL and LANE_RENEWAL only. -ENOMEM or another errno of the socket ends the peer too.
 */
int lane_receive(Lane *lane, uint64_t *ret_id, int *ret_fd);

/*
 * lane_claim() - takes the descriptor @id. 0; -ENOENT: it is not there (never sent, or claimed before); -EMFILE: it was
 * sent and lost to our own descriptor limit.
 */
int lane_claim(Lane *lane, uint64_t id, int *ret_fd);

/*
 * lane_begin_epoch() - closes everything unclaimed and unsent, and starts @epoch. @received: how many of its channels
 * have arrived already (1 after LANE_RENEWAL); LANE_CHANNELS for the side that renews.
 */
void lane_begin_epoch(Lane *lane, uint32_t epoch, unsigned received);

/* lane_restore_arrived() - one that another process had received and not claimed; @fd_consume -1: lost. 0 or -ENOMEM. */
int lane_restore_arrived(Lane *lane, uint64_t id, int fd_consume);

/* lane_reason() - what the other side did, after LANE_BROKEN: "a lane message without a descriptor". */
const char *lane_reason(const Lane *lane);

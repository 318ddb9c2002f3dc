/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lane: the one way descriptors travel between processes. They are kept apart from the bytes of the channels so that no
 * descriptor is ever tied to a byte of a stream, a reader that uses plain read() loses nothing, and id and descriptor
 * are one message that arrives or does not.
 *
 * A descriptor that arrived waits in `arrived` until the Envelope that lists its id claims it; the table is bounded by
 * the credit that was given. One that our own descriptor limit took is remembered by its id, so that exactly the call
 * that lists it fails. Everything else that deviates from the format ends the peer: the two sides would no longer agree
 * on which descriptor is which.
 *
 * The lane does not know what an id means beyond channel or not, does not grant credit, and does not wait.
 */

#include "common/lane.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cmsg.h"

#define FIRST_DESCRIPTOR (LANE_FIRST_N << 1)

void lane_init(Lane *lane, int fd_consume, unsigned side, unsigned n_channels, LaneRenewal renewal,
               size_t max_unclaimed) {
        assert(side <= 1 && n_channels <= LANE_CHANNELS);
        *lane = (Lane){
                .fd = fd_consume,
                .side = side,
                .renewal = renewal,
                .n_channels = n_channels,
                .due = side == 0 ? n_channels : 0,
                .next_n = LANE_FIRST_N,
                .max_arrived = max_unclaimed,
        };
        STAILQ_INIT(&lane->outgoing);
}

static void drop_outgoing(Lane *lane) {
        LaneOutgoing *out;

        while ((out = STAILQ_FIRST(&lane->outgoing))) {
                STAILQ_REMOVE_HEAD(&lane->outgoing, link);
                fd_close(out->fd);
                free(out);
        }
        lane->n_sent = lane->n_queued;
}

static void drop_arrived(Lane *lane) {
        for (size_t i = 0; i < lane->n_arrived; i++)
                fd_close(lane->arrived[i].fd);
        lane->n_arrived = 0;
}

void lane_deinit(Lane *lane) {
        drop_outgoing(lane);
        drop_arrived(lane);
        free(TAKE_PTR(lane->arrived));
        lane->size_arrived = 0;
        lane->fd = fd_close(lane->fd);
}

int lane_allocate(Lane *lane, uint64_t *ret_id) {
        if (lane->next_n > LANE_LAST_N)
                return -EOVERFLOW;
        *ret_id = (uint64_t) lane->epoch << 32 | (uint64_t) lane->next_n << 1 | lane->side;
        lane->next_n++;
        return 0;
}

uint64_t lane_channel_id(const Lane *lane, unsigned n) {
        return (uint64_t) lane->epoch << 32 | n;
}

int lane_queue(Lane *lane, uint64_t id, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        LaneOutgoing *out = malloc(sizeof(*out));

        if (!out)
                return -ENOMEM;
        *out = (LaneOutgoing){ .id = id, .fd = fd_take(&fd) };
        STAILQ_INSERT_TAIL(&lane->outgoing, out, link);
        lane->n_queued++;
        return 0;
}

int lane_flush(Lane *lane) {
        LaneOutgoing *out;

        while ((out = STAILQ_FIRST(&lane->outgoing))) {
                uint64_t id = htole64(out->id);
                ssize_t n = cmsg_send(lane->fd, &id, sizeof(id), &out->fd, 1);

                if (n < 0)
                        return (int) n;
                /* A stream takes 8 bytes with a descriptor whole or not at all: they are one buffer of the kernel's. */
                assert(n == sizeof(id));
                STAILQ_REMOVE_HEAD(&lane->outgoing, link);
                fd_close(out->fd);
                free(out);
                lane->n_sent++;
        }
        return 0;
}

static size_t find_arrived(const Lane *lane, uint64_t id) {
        size_t i;

        for (i = 0; i < lane->n_arrived && lane->arrived[i].id != id; i++)
                ;
        return i;
}

static int broken(Lane *lane, const char *reason) {
        lane->reason = reason;
        return LANE_BROKEN;
}

static int exhausted(Lane *lane, const char *reason) {
        lane->reason = reason;
        return LANE_EXHAUSTED;
}

/* accept_channel() - a channel in its turn, or the first message of a renewal. */
static int accept_channel(Lane *lane, uint64_t id, int fd_consume, uint64_t *ret_id, int *ret_fd) {
        _cleanup_fd_ int fd = fd_consume;
        uint32_t epoch = (uint32_t) (id >> 32), n = (uint32_t) id;

        if (fd < 0)
                return exhausted(lane, "a channel was lost to the receiver's descriptor limit");
        if (epoch > lane->epoch) {
                if (lane->renewal != LANE_RENEWAL_PEER || n != 0)
                        return broken(lane, "a lane id of a future epoch that is no renewal");
        } else if (n != lane->due || lane->due >= lane->n_channels) {
                return broken(lane, "a channel that is not due");
        }
        if (!fd_is_unix_stream(fd))
                return broken(lane, "a channel that is no unix stream socket");
        *ret_fd = fd_take(&fd);
        if (epoch > lane->epoch) {
                *ret_id = epoch;
                return LANE_RENEWAL;
        }
        *ret_id = n;
        lane->due++;
        return LANE_CHANNEL;
}

int lane_restore_arrived(Lane *lane, uint64_t id, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;

        if (lane->n_arrived == lane->size_arrived) {
                size_t size = lane->size_arrived ? lane->size_arrived * 2 : 8;
                LaneArrived *grown = realloc(lane->arrived, size * sizeof(*grown));

                if (!grown)
                        return -ENOMEM;
                lane->arrived = grown;
                lane->size_arrived = size;
        }
        lane->arrived[lane->n_arrived++] = (LaneArrived){ .id = id, .fd = fd_take(&fd) };
        return 0;
}

static int accept_descriptor(Lane *lane, uint64_t id, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        int r;

        if ((id & 1) == lane->side)
                return broken(lane, "a lane id of the receiver's side");
        if (find_arrived(lane, id) < lane->n_arrived)
                return broken(lane, "a lane id that is still unclaimed");
        if (lane->n_arrived >= lane->max_arrived)
                return exhausted(lane, "more descriptors than there was credit for");
        r = lane_restore_arrived(lane, id, fd_take(&fd));
        return r < 0 ? r : LANE_DESCRIPTOR;
}

/* check_form() - what a message of any meaning must look like; NULL when it does. */
static const char *check_form(ssize_t n, const CmsgInfo *info) {
        if (info->foreign || info->has_pid)
                return "a foreign control message on a lane";
        if (info->n_fds > 1 || (info->n_fds == 1 && info->truncated))
                return "a lane message with more than one descriptor";
        if (info->n_fds == 0 && !info->truncated)
                return "a lane message without a descriptor";
        return n < (ssize_t) LANE_ID_SIZE ? "a lane message shorter than an id" : NULL;
}

int lane_receive(Lane *lane, uint64_t *ret_id, int *ret_fd) {
        for (;;) {
                uint64_t wire = 0, id;
                CmsgInfo info = { 0 };
                const char *fault;
                int fds[2] = { -1, -1 };
                ssize_t n;

                n = cmsg_receive(lane->fd, &wire, sizeof(wire), fds, ARRAY_SIZE(fds), &info);
                if (n == -EAGAIN)
                        return LANE_AGAIN;
                if (n < 0)
                        return (int) n;
                if (n == 0 && info.n_fds == 0)
                        return LANE_EOF;
                fault = check_form(n, &info);
                if (fault) {
                        fd_close_all(fds, info.n_fds);
                        return broken(lane, fault);
                }
                id = le64toh(wire);
                if ((uint32_t) (id >> 32) < lane->epoch) {
                        fd_close(fds[0]);
                        continue;
                }
                if ((uint32_t) id < FIRST_DESCRIPTOR || (uint32_t) (id >> 32) > lane->epoch)
                        return accept_channel(lane, id, fds[0], ret_id, ret_fd);
                return accept_descriptor(lane, id, fds[0]);
        }
}

int lane_claim(Lane *lane, uint64_t id, int *ret_fd) {
        size_t i = find_arrived(lane, id);
        int fd;

        if (i == lane->n_arrived)
                return -ENOENT;
        fd = lane->arrived[i].fd;
        lane->n_arrived--;
        memmove(&lane->arrived[i], &lane->arrived[i + 1], (lane->n_arrived - i) * sizeof(lane->arrived[0]));
        if (fd < 0)
                return -EMFILE;
        *ret_fd = fd;
        return 0;
}

void lane_begin_epoch(Lane *lane, uint32_t epoch, unsigned received) {
        assert(epoch > lane->epoch);
        drop_arrived(lane);
        drop_outgoing(lane);
        lane->epoch = epoch;
        lane->next_n = LANE_FIRST_N;
        lane->due = MIN(received, lane->n_channels);
}

const char *lane_reason(const Lane *lane) {
        return lane->reason ? lane->reason : "nothing";
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes the receiving side of a lane. The first byte says which lane (bit 0: side, bits 1-2: who renews, bit 3: three
 * channels or one). Each record after it is one message: a byte (bits 0-3: its size, bits 4-5: how many descriptors,
 * bit 6: stream sockets or not, bit 7: claim the id at once) and eight bytes of it. Whatever comes: what is handed out is
 * what it should be, the table stays within the credit, no descriptor is left over.
 */

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/lane.h"

#define RECORD        9
#define MAX_UNCLAIMED 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

/* next_free() - the number that the next descriptor would get: the same before and after, or one was left open. */
static int next_free(void) {
        int fd = fd_dup(0);

        fd_close(fd);
        return fd;
}

static int put(int socket, const uint8_t record[RECORD]) {
        uint8_t bytes[16] = { 0 };
        size_t size = record[0] & 15, n = record[0] >> 4 & 3;
        int fds[3], pair[2], r;

        if (size == 0)
                return 0;
        if (fd_socketpair(SOCK_STREAM, pair) < 0)
                return -1;
        memcpy(bytes, record + 1, 8);
        for (size_t i = 0; i < n; i++)
                fds[i] = record[0] & 64 ? pair[i % 2] : eventfd(0, EFD_CLOEXEC);
        r = cmsg_send(socket, bytes, size, fds, n) == (ssize_t) size ? 0 : -1;
        if (!(record[0] & 64))
                fd_close_all(fds, n);
        fd_close_all(pair, 2);
        return r;
}

/* take() - receives until nothing is left. False: the peer has ended. */
static bool take(Lane *lane) {
        for (;;) {
                uint64_t id = 0;
                int fd = -1, r = lane_receive(lane, &id, &fd);

                CHECK(lane->n_arrived <= MAX_UNCLAIMED && lane->due <= lane->n_channels);
                switch (r) {
                case LANE_AGAIN:
                        return true;
                case LANE_DESCRIPTOR:
                        CHECK(lane->n_arrived > 0 && (lane->arrived[lane->n_arrived - 1].id & 1) != lane->side);
                        break;
                case LANE_CHANNEL:
                        CHECK(id < lane->n_channels && fd_is_unix_stream(fd));
                        break;
                case LANE_RENEWAL:
                        CHECK(lane->renewal == LANE_RENEWAL_PEER && id > lane->epoch && fd_is_unix_stream(fd));
                        lane_begin_epoch(lane, (uint32_t) id, 1);
                        CHECK(lane->n_arrived == 0);
                        break;
                case LANE_EOF:
                        CHECK(fd < 0);
                        return false;
                default:
                        CHECK((r == LANE_BROKEN || r == LANE_EXHAUSTED) && fd < 0 && lane->reason);
                        return false;
                }
                fd_close(fd);
        }
}

static void claim(Lane *lane, const uint8_t record[RECORD]) {
        uint64_t id;
        size_t before = lane->n_arrived;
        int fd = -1, r;

        memcpy(&id, record + 1, 8);
        r = lane_claim(lane, le64toh(id), &fd);
        CHECK((r == 0) == (fd >= 0));
        CHECK(lane->n_arrived == before - (r == 0));
        fd_close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        int pair[2], before = next_free();
        bool alive = true;
        Lane lane;

        if (size < 1 || fd_socketpair(SOCK_STREAM, pair) < 0)
                return 0;
        lane_init(&lane, pair[0], data[0] & 1, data[0] & 8 ? 3 : 1, (LaneRenewal) ((data[0] >> 1 & 3) % 3),
                  MAX_UNCLAIMED);
        for (size_t at = 1; alive && at + RECORD <= size; at += RECORD) {
                if (put(pair[1], data + at) < 0)
                        break;
                alive = take(&lane);
                if (data[at] & 128)
                        claim(&lane, data + at);
        }
        fd_close(pair[1]);
        CHECK(!alive || !take(&lane));
        lane_deinit(&lane);
        CHECK(next_free() == before);
        return 0;
}

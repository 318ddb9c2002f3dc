/* SPDX-License-Identifier: Apache-2.0 */

/* Channels on a lane: in which order, of which kind; and renewal, by either side. */

#include "tests/lane-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

static void test_channels(void **state) {
        static const unsigned counts[] = { 3, 1 };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
                Bench bench;

                bench_open(&bench, 1, counts[i], LANE_RENEWAL_PEER);
                expect(&bench, LANE_AGAIN, 0, "before anything");
                for (unsigned n = 0; n < counts[i]; n++)
                        put_channel(&bench, n);
                for (unsigned n = 0; n < counts[i]; n++)
                        expect(&bench, LANE_CHANNEL, n, "a channel");
                expect(&bench, LANE_AGAIN, 0, "after the channels");
                bench_close(&bench);
        }
}

/* The very descriptor that was sent is handed out. */
static void test_channel_is_the_one(void **state) {
        Bench bench;
        int fd = open_stream(), got = -1;
        uint64_t id;

        (void) state;
        bench_open(&bench, 1, 3, LANE_RENEWAL_PEER);
        put_raw(&bench, 0, 8, fd, 1);
        assert_int_equal(lane_receive(&bench.lane, &id, &got), LANE_CHANNEL);
        assert_true(test_same_file(fd, got));
        fd_close(got);
        fd_close(fd);
        bench_close(&bench);
}

/* Ids below 6 are channels, and only the one that is due. */
static void test_channels_not_due(void **state) {
        static const struct {
                unsigned side, n_channels, arrived;
                uint32_t id;
        } rows[] = {
                { 1, 3, 0, 1 }, { 1, 3, 0, 2 }, { 1, 3, 0, 3 }, { 1, 3, 0, 4 }, { 1, 3, 0, 5 }, { 1, 3, 1, 0 },
                { 1, 3, 1, 2 }, { 1, 3, 2, 0 }, { 1, 3, 2, 1 }, { 1, 3, 3, 0 }, { 1, 3, 3, 2 }, { 1, 3, 3, 3 },
                { 1, 3, 3, 4 }, { 1, 3, 3, 5 }, { 1, 1, 0, 1 }, { 1, 1, 1, 0 }, { 1, 1, 1, 1 }, { 1, 1, 1, 2 },
                { 0, 3, 0, 0 }, { 0, 3, 0, 1 }, { 0, 3, 0, 2 }, { 0, 3, 0, 3 }, { 0, 1, 0, 0 }, { 0, 1, 0, 5 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Bench bench;

                bench_open(&bench, rows[i].side, rows[i].n_channels, LANE_RENEWAL_NONE);
                for (unsigned n = 0; n < rows[i].arrived; n++) {
                        put_channel(&bench, n);
                        expect(&bench, LANE_CHANNEL, n, "a channel");
                }
                put_channel(&bench, rows[i].id);
                expect(&bench, LANE_BROKEN, 0, "a channel that is not due");
                bench_close(&bench);
        }
}

static int open_packet(void) {
        int pair[2];

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, pair), 0);
        fd_close(pair[1]);
        return pair[0];
}

static int open_tcp(void) {
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_null(void) {
        return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_listening(void) {
        struct sockaddr address = { .sa_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(fd, &address, sizeof(address.sa_family)), 0);
        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

/* A channel is a unix stream, else the peer ends; so too for the first of a renewal. */
static void test_channel_of_wrong_kind(void **state) {
        int (*const openers[])(void) = { open_packet, open_tcp, open_null, open_eventfd, open_listening };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(openers); i++)
                for (unsigned epoch = 0; epoch < 2; epoch++) {
                        int fd = openers[i]();
                        Bench bench;

                        assert_true(fd >= 0);
                        bench_open(&bench, 1, 3, LANE_RENEWAL_PEER);
                        put_raw(&bench, ID(epoch, 0), 8, fd, 1);
                        fd_close(fd);
                        expect(&bench, LANE_BROKEN, 0, "a channel of the wrong kind");
                        assert_non_null(strstr(lane_reason(&bench.lane), "unix stream"));
                        bench_close(&bench);
                }
}

static void test_channel_lost(void **state) {
        (void) state;
        for (unsigned epoch = 0; epoch < 2; epoch++) {
                unsigned long limit;
                Bench bench;

                bench_open(&bench, 1, 3, LANE_RENEWAL_PEER);
                put_channel(&bench, ID(epoch, 0));
                limit = test_limit_fds(0);
                expect(&bench, LANE_EXHAUSTED, 0, "a lost channel");
                assert_non_null(strstr(lane_reason(&bench.lane), "descriptor limit"));
                test_restore_fds(limit);
                bench_close(&bench);
        }
}

/* Who may raise the epoch, and how. */
static void test_renewal_accepted(void **state) {
        static const struct {
                LaneRenewal renewal;
                unsigned side;
                uint64_t id;
                int result;
        } rows[] = {
                { LANE_RENEWAL_PEER, 1, ID(1, 0), LANE_RENEWAL },
                { LANE_RENEWAL_PEER, 0, ID(1, 0), LANE_RENEWAL }, /* an attached lane: side 1 renews */
                { LANE_RENEWAL_PEER, 1, ID(7, 0), LANE_RENEWAL }, /* epochs may be skipped */
                { LANE_RENEWAL_PEER, 1, ID(UINT32_MAX, 0), LANE_RENEWAL },
                { LANE_RENEWAL_PEER, 1, ID(1, 1), LANE_BROKEN },
                { LANE_RENEWAL_PEER, 1, ID(1, 2), LANE_BROKEN },
                { LANE_RENEWAL_PEER, 1, ID(1, 6), LANE_BROKEN },
                { LANE_RENEWAL_NONE, 1, ID(1, 0), LANE_BROKEN },
                { LANE_RENEWAL_NONE, 0, ID(1, 0), LANE_BROKEN },
                { LANE_RENEWAL_SELF, 0, ID(1, 0), LANE_BROKEN },
                { LANE_RENEWAL_SELF, 1, ID(1, 0), LANE_BROKEN },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Bench bench;

                bench_open(&bench, rows[i].side, 3, rows[i].renewal);
                put_channel(&bench, rows[i].id);
                expect(&bench, rows[i].result, rows[i].id >> 32, "a renewal");
                bench_close(&bench);
        }
}

/* The whole of a renewal, seen by the side that is renewed, in the middle of its first channels or after them. */
static void test_renewal(void **state) {
        (void) state;
        for (unsigned arrived = 0; arrived <= 3; arrived++) {
                int queued = open_eventfd();
                uint64_t mark, id;
                Bench bench;

                bench_open(&bench, 1, 3, LANE_RENEWAL_PEER);
                for (unsigned n = 0; n < arrived; n++) {
                        put_channel(&bench, n);
                        expect(&bench, LANE_CHANNEL, n, "a first channel");
                }
                put(&bench, 6);
                put(&bench, 8);
                expect(&bench, LANE_DESCRIPTOR, 0, "of the old epoch");
                expect(&bench, LANE_DESCRIPTOR, 0, "of the old epoch");
                assert_int_equal(lane_queue(&bench.lane, 7, queued), 0);
                mark = lane_mark(&bench.lane);
                assert_false(lane_sent(&bench.lane, mark));

                put_channel(&bench, ID(4, 0));
                expect(&bench, LANE_RENEWAL, 4, "the renewal");
                expect_claim(&bench, 6, 0); /* what the old channels still list can be claimed */
                lane_begin_epoch(&bench.lane, 4, 1);
                expect_claim(&bench, 8, -ENOENT);
                assert_false(test_is_open(queued));
                assert_true(lane_sent(&bench.lane, mark));

                put(&bench, 10);               /* of a lower epoch: closed unseen */
                put(&bench, 11);               /* even with an id of our side, */
                put_channel(&bench, 2);        /* even a channel */
                put_channel(&bench, ID(3, 0)); /* or an older renewal */
                put_channel(&bench, ID(4, 1));
                expect(&bench, LANE_CHANNEL, 1, "channel 1 of the new epoch");
                put(&bench, ID(4, 6));
                expect(&bench, LANE_DESCRIPTOR, 0, "of the new epoch");
                expect_claim(&bench, ID(4, 6), 0);
                expect_claim(&bench, 10, -ENOENT);
                put_channel(&bench, ID(4, 2));
                expect(&bench, LANE_CHANNEL, 2, "channel 2 of the new epoch");
                assert_int_equal(lane_allocate(&bench.lane, &id), 0);
                assert_int_equal(id, ID(4, 7));

                put_channel(&bench, ID(5, 0));
                expect(&bench, LANE_RENEWAL, 5, "one more renewal");
                lane_begin_epoch(&bench.lane, 5, 1);
                put_channel(&bench, ID(5, 0));
                expect(&bench, LANE_BROKEN, 0, "channel 0 of this epoch twice");
                bench_close(&bench);
        }
}

/* Lost to our limit, but of a lower epoch: nobody would claim it, so nothing is lost. */
static void test_lost_of_a_lower_epoch(void **state) {
        unsigned long limit;
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
        lane_begin_epoch(&bench.lane, 2, LANE_CHANNELS);
        put(&bench, 7);
        put_channel(&bench, 1);
        limit = test_limit_fds(0);
        expect(&bench, LANE_AGAIN, 0, "stale and lost");
        test_restore_fds(limit);
        expect_claim(&bench, 7, -ENOENT);
        bench_close(&bench);
}

/* The side that renews: old descriptors of the other are closed unseen, and no channel is due. */
static void test_renewing(void **state) {
        Bench bench;
        int before;

        (void) state;
        bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
        put(&bench, 7);
        put(&bench, 9);
        expect(&bench, LANE_DESCRIPTOR, 0, "of the old epoch");
        before = fd_count();
        lane_begin_epoch(&bench.lane, 3, LANE_CHANNELS);
        assert_int_equal(fd_count(), before - 1);
        put(&bench, ID(2, 7));
        put(&bench, ID(3, 7));
        expect(&bench, LANE_DESCRIPTOR, 0, "of the new epoch");
        expect_claim(&bench, 7, -ENOENT);
        expect_claim(&bench, 9, -ENOENT);
        expect_claim(&bench, ID(2, 7), -ENOENT);
        expect_claim(&bench, ID(3, 7), 0);
        put_channel(&bench, ID(3, 0));
        expect(&bench, LANE_BROKEN, 0, "a channel, to the side that sends them");
        bench_close(&bench);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_channels),         TEST(test_channel_is_the_one),
                TEST(test_channels_not_due), TEST(test_channel_of_wrong_kind),
                TEST(test_channel_lost),     TEST(test_renewal_accepted),
                TEST(test_renewal),          TEST(test_lost_of_a_lower_epoch),
                TEST(test_renewing),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

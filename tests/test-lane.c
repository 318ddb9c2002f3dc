/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers common/lane, from the protocol: what a message must look like, which ids are accepted and which end the peer,
 * from each side; channels, renewal, loss to our own limit, credit; sending without room. The other end is plain bytes
 * and descriptors, so that a mistake made on both sides does not hide.
 */

#include "tests/test.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/lane.h"
#include "tests/seam.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

#define MAX_UNCLAIMED    4
#define ID(_epoch, _low) ((uint64_t) (_epoch) << 32 | (_low))

/* A lane and the bare other end of its socket. */
typedef struct Bench {
        Lane lane;
        int other;
} Bench;

static void bench_open(Bench *bench, unsigned side, unsigned n_channels, LaneRenewal renewal) {
        int pair[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        lane_init(&bench->lane, pair[0], side, n_channels, renewal, MAX_UNCLAIMED);
        bench->other = pair[1];
}

static void bench_close(Bench *bench) {
        lane_deinit(&bench->lane);
        bench->other = fd_close(bench->other);
}

static int open_eventfd(void) {
        int fd = eventfd(0, EFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

/* open_stream() - one end of a pair of streams; the other end is closed at once. */
static int open_stream(void) {
        int pair[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        fd_close(pair[1]);
        return pair[0];
}

/* put_raw() - the first @size bytes of the id (zeros after its eight) with @n copies of @fd. */
static void put_raw(Bench *bench, uint64_t id, size_t size, int fd, size_t n) {
        uint8_t bytes[32] = { 0 };
        int fds[8];

        for (size_t i = 0; i < 8; i++)
                bytes[i] = (uint8_t) (id >> 8 * i);
        for (size_t i = 0; i < n; i++)
                fds[i] = fd;
        assert_int_equal(cmsg_send(bench->other, bytes, size, fds, n), size);
}

/* put() - a good message with an eventfd. */
static void put(Bench *bench, uint64_t id) {
        _cleanup_fd_ int fd = open_eventfd();

        put_raw(bench, id, 8, fd, 1);
}

static void put_channel(Bench *bench, uint64_t id) {
        _cleanup_fd_ int fd = open_stream();

        put_raw(bench, id, 8, fd, 1);
}

/* expect() - the result of the next receive, with the id where one comes; a descriptor that comes is closed. */
static void expect(Bench *bench, int result, uint64_t id, const char *what) {
        uint64_t got_id = 77;
        int got_fd = -1, r = lane_receive(&bench->lane, &got_id, &got_fd);

        if (r != result)
                fail_msg("%s: result %d, expected %d (%s)", what, r, result, lane_reason(&bench->lane));
        if (r == LANE_CHANNEL || r == LANE_RENEWAL) {
                assert_true(fd_is_unix_stream(got_fd));
                assert_int_equal(fcntl(got_fd, F_GETFD), FD_CLOEXEC);
                assert_int_equal(got_id, id);
        } else {
                assert_int_equal(got_fd, -1);
                assert_int_equal(got_id, 77);
        }
        if (r == LANE_BROKEN)
                assert_string_not_equal(lane_reason(&bench->lane), "nothing");
        fd_close(got_fd);
}

static void expect_claim(Bench *bench, uint64_t id, int result) {
        int fd = -1, r = lane_claim(&bench->lane, id, &fd);

        assert_int_equal(r, result);
        assert_int_equal(fd >= 0, r == 0);
        fd_close(fd);
}

/* Eight bytes, the low one first, whatever the machine's order; one descriptor. */
static void test_recorded(void **state) {
        static const struct {
                uint64_t id;
                uint8_t bytes[8];
        } rows[] = {
                { 1, { 1, 0, 0, 0, 0, 0, 0, 0 } }, /* channel 1 in epoch 0 */
                { ID(0, 6), { 6, 0, 0, 0, 0, 0, 0, 0 } },
                { ID(0x01020304, 0xa0b0c0d1), { 0xd1, 0xc0, 0xb0, 0xa0, 4, 3, 2, 1 } },
        };
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int fd = open_eventfd(), copy = fd_dup(fd), got[4] = { -1, -1, -1, -1 };
                uint8_t bytes[16];
                CmsgInfo info;

                assert_int_equal(lane_queue(&bench.lane, rows[i].id, fd), 0);
                assert_int_equal(lane_flush(&bench.lane), 0);
                assert_false(test_is_open(fd)); /* the kernel has it */
                assert_int_equal(cmsg_receive(bench.other, bytes, sizeof(bytes), got, 4, &info), 8);
                assert_memory_equal(bytes, rows[i].bytes, 8);
                assert_int_equal(info.n_fds, 1);
                assert_true(test_same_file(got[0], copy));
                fd_close_all(got, 4);
                fd_close(copy);
        }
        bench_close(&bench);
}

static void test_ids_allocated(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                uint64_t id = 0;
                Bench bench;

                bench_open(&bench, side, 3, LANE_RENEWAL_SELF);
                for (uint64_t n = 3; n < 10; n++) {
                        assert_int_equal(lane_allocate(&bench.lane, &id), 0);
                        assert_int_equal(id, 2 * n + side);
                }
                assert_int_equal(lane_channel_id(&bench.lane, 2), 2);
                lane_begin_epoch(&bench.lane, 5, LANE_CHANNELS);
                assert_int_equal(lane_allocate(&bench.lane, &id), 0);
                assert_int_equal(id, ID(5, 6 + side)); /* from 3 again */
                assert_int_equal(lane_channel_id(&bench.lane, 2), ID(5, 2));

                bench.lane.next_n = LANE_LAST_N;
                assert_int_equal(lane_allocate(&bench.lane, &id), 0);
                assert_int_equal(id, ID(5, 0xfffffffe + side));
                id = 77;
                assert_int_equal(lane_allocate(&bench.lane, &id), -EOVERFLOW);
                assert_int_equal(lane_allocate(&bench.lane, &id), -EOVERFLOW);
                assert_int_equal(id, 77);
                bench_close(&bench);
        }
}

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

/* What is not eight bytes with one descriptor ends the peer, and nothing it installed stays open. */
static void test_form(void **state) {
        static const struct {
                const char *what;
                size_t size, n_fds;
                int result;
        } rows[] = {
                { "good", 8, 1, LANE_DESCRIPTOR },
                { "7 bytes", 7, 1, LANE_BROKEN },
                { "1 byte", 1, 1, LANE_BROKEN },
                { "7 bytes, no descriptor", 7, 0, LANE_BROKEN },
                { "7 bytes, 2 descriptors", 7, 2, LANE_BROKEN },
                { "no descriptor", 8, 0, LANE_BROKEN },
                { "2 descriptors", 8, 2, LANE_BROKEN },
                { "3 descriptors", 8, 3, LANE_BROKEN },
                { "8 descriptors", 8, 8, LANE_BROKEN },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (unsigned side = 0; side <= 1; side++) {
                        int fd = open_eventfd(), before;
                        Bench bench;

                        bench_open(&bench, side, 1, LANE_RENEWAL_NONE);
                        put_raw(&bench, 6 | !side, rows[i].size, fd, rows[i].n_fds);
                        before = fd_count();
                        expect(&bench, rows[i].result, 0, rows[i].what);
                        assert_int_equal(fd_count(), before + (rows[i].result == LANE_DESCRIPTOR));
                        fd_close(fd);
                        bench_close(&bench);
                }
}

/* Sixteen bytes with one descriptor are a message, then eight bytes without one. */
static void test_two_ids_with_one_descriptor(void **state) {
        Bench bench;
        int fd = open_eventfd();

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put_raw(&bench, 7, 16, fd, 1);
        fd_close(fd);
        expect(&bench, LANE_DESCRIPTOR, 0, "the first");
        expect(&bench, LANE_BROKEN, 0, "the second");
        bench_close(&bench);
}

/* Two messages written without a pause stay two. */
static void test_messages_do_not_merge(void **state) {
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        put(&bench, 9);
        expect(&bench, LANE_DESCRIPTOR, 0, "the first");
        expect(&bench, LANE_DESCRIPTOR, 0, "the second");
        expect(&bench, LANE_AGAIN, 0, "no third");
        bench_close(&bench);
}

/* Any other control message ends the peer; what it installed is closed. */
static void test_foreign_control_messages(void **state) {
        static const struct {
                const char *what;
                int option;
        } rows[] = { { "credentials", SO_PASSCRED }, { "a pidfd", SO_PASSPIDFD } };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int on = 1, before;
                Bench bench;

                bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
                if (setsockopt(bench.lane.fd, SOL_SOCKET, rows[i].option, &on, sizeof(on)) == 0) {
                        put(&bench, 7);
                        before = fd_count();
                        expect(&bench, LANE_BROKEN, 0, rows[i].what);
                        assert_int_equal(fd_count(), before);
                        assert_non_null(strstr(lane_reason(&bench.lane), "foreign"));
                } else {
                        print_message("%s: not on this kernel\n", rows[i].what);
                }
                bench_close(&bench);
        }
}

/* Lost to our own descriptor limit: that id fails when claimed, once, and the peer lives. */
static void test_lost(void **state) {
        Bench bench;
        unsigned long limit;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        put(&bench, 9);
        limit = test_limit_fds(0);
        expect(&bench, LANE_DESCRIPTOR, 0, "the one that is lost");
        test_restore_fds(limit);
        expect(&bench, LANE_DESCRIPTOR, 0, "the next");
        expect_claim(&bench, 7, -EMFILE);
        expect_claim(&bench, 7, -ENOENT);
        expect_claim(&bench, 9, 0);
        put(&bench, 11);
        expect(&bench, LANE_DESCRIPTOR, 0, "a retry, with room");
        expect_claim(&bench, 11, 0);
        bench_close(&bench);
}

/* Of two, one fits: surplus and truncated, and the one that came is closed. */
static void test_surplus_and_lost(void **state) {
        (void) state;
        for (unsigned fit = 0; fit < 2; fit++) {
                int fd = open_eventfd(), before;
                unsigned long limit;
                Bench bench;

                bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
                put_raw(&bench, 7, 8, fd, 2);
                before = fd_count();
                limit = test_limit_fds(fit);
                /* With no room at all it cannot be told from one that was lost. */
                expect(&bench, fit == 0 ? LANE_DESCRIPTOR : LANE_BROKEN, 0, "two, too many for our limit");
                test_restore_fds(limit);
                assert_int_equal(fd_count(), before);
                fd_close(fd);
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

/* Whose ids are accepted, on each side. */
static void test_ids_received(void **state) {
        static const struct {
                const char *what;
                unsigned side;
                uint64_t id;
                int result;
        } rows[] = {
                { "the lowest of side 1", 0, 7, LANE_DESCRIPTOR },
                { "the lowest of side 0", 1, 6, LANE_DESCRIPTOR },
                { "the highest of side 1", 0, 0xffffffff, LANE_DESCRIPTOR },
                { "the highest of side 0", 1, 0xfffffffe, LANE_DESCRIPTOR },
                { "our own side's, 0", 0, 6, LANE_BROKEN },
                { "our own side's, 1", 1, 7, LANE_BROKEN },
                { "our own side's highest", 1, 0xffffffff, LANE_BROKEN },
                { "below the first", 0, 5, LANE_BROKEN },
                { "below the first", 1, 4, LANE_BROKEN },
                { "of a future epoch", 0, ID(1, 7), LANE_BROKEN },
                { "of a future epoch", 1, ID(1, 6), LANE_BROKEN },
                { "all ones", 0, UINT64_MAX, LANE_BROKEN },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (LaneRenewal renewal = LANE_RENEWAL_NONE; renewal <= LANE_RENEWAL_SELF; renewal++) {
                        Bench bench;
                        int before;

                        bench_open(&bench, rows[i].side, 3, renewal);
                        before = fd_count();
                        put(&bench, rows[i].id);
                        expect(&bench, rows[i].result, 0, rows[i].what);
                        assert_int_equal(fd_count(), before + (rows[i].result == LANE_DESCRIPTOR));
                        bench_close(&bench);
                }
}

static void test_repeated_id(void **state) {
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        expect(&bench, LANE_DESCRIPTOR, 0, "the first");
        expect_claim(&bench, 7, 0);
        put(&bench, 7);
        expect(&bench, LANE_DESCRIPTOR, 0, "again, after it was claimed");
        put(&bench, 9);
        expect(&bench, LANE_DESCRIPTOR, 0, "another");
        put(&bench, 7);
        expect(&bench, LANE_BROKEN, 0, "again, unclaimed");
        assert_non_null(strstr(lane_reason(&bench.lane), "unclaimed"));
        bench_close(&bench);
}

/* One more than the credit ends the peer; a claim, of a lost one too, makes room. */
static void test_credit(void **state) {
        unsigned long limit;
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        for (uint64_t n = 3; n < 3 + MAX_UNCLAIMED - 1; n++) {
                put(&bench, n << 1 | 1);
                expect(&bench, LANE_DESCRIPTOR, 0, "within the credit");
        }
        put(&bench, 101);
        limit = test_limit_fds(0);
        expect(&bench, LANE_DESCRIPTOR, 0, "within the credit, lost");
        test_restore_fds(limit);
        expect_claim(&bench, 101, -EMFILE);
        put(&bench, 103);
        expect(&bench, LANE_DESCRIPTOR, 0, "room after a claim");
        put(&bench, 105);
        expect(&bench, LANE_EXHAUSTED, 0, "over the credit");
        bench_close(&bench);
}

/* Claimed in any order, each id brings its own descriptor. */
static void test_claims(void **state) {
        static const unsigned orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 } };

        (void) state;
        for (size_t o = 0; o < ARRAY_SIZE(orders); o++) {
                int sent[4];
                Bench bench;

                bench_open(&bench, 1, 3, LANE_RENEWAL_PEER);
                for (unsigned i = 0; i < 4; i++) {
                        sent[i] = open_eventfd();
                        put_raw(&bench, (3 + i) << 1, 8, sent[i], 1);
                        expect(&bench, LANE_DESCRIPTOR, 0, "one");
                }
                expect_claim(&bench, 100, -ENOENT);
                expect_claim(&bench, ID(1, 6), -ENOENT);
                expect_claim(&bench, 0, -ENOENT);
                for (unsigned i = 0; i < 4; i++) {
                        unsigned which = orders[o][i];
                        int fd = -1;

                        assert_int_equal(lane_claim(&bench.lane, (3 + which) << 1, &fd), 0);
                        assert_true(test_same_file(fd, sent[which]));
                        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
                        fd_close(fd);
                        expect_claim(&bench, (3 + which) << 1, -ENOENT);
                }
                fd_close_all(sent, 4);
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

static void test_end(void **state) {
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        bench.other = fd_close(bench.other);
        expect(&bench, LANE_DESCRIPTOR, 0, "what was sent before the end");
        expect(&bench, LANE_EOF, 0, "the end");
        expect(&bench, LANE_EOF, 0, "and still");
        bench_close(&bench);
}

/* The other side dies with our messages unread: what it had sent comes all the same. */
static void test_end_with_reset(void **state) {
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        assert_int_equal(lane_queue(&bench.lane, 6, open_eventfd()), 0);
        assert_int_equal(lane_flush(&bench.lane), 0);
        bench.other = fd_close(bench.other);
        expect(&bench, LANE_DESCRIPTOR, 0, "what was sent before the end");
        expect(&bench, LANE_EOF, 0, "the end");
        assert_int_equal(lane_queue(&bench.lane, 8, open_eventfd()), 0);
        assert_int_equal(lane_flush(&bench.lane), -EPIPE);
        bench_close(&bench);
}

/* No room: the message stays queued, in order, and is not counted as sent. */
static void test_flush_waits(void **state) {
        static const int errors[] = { EAGAIN, ETOOMANYREFS, ENOMEM, ENOBUFS };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                int fds[3], got[2];
                uint64_t marks[3], wire;
                CmsgInfo info;
                Bench bench;

                bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
                for (unsigned k = 0; k < 3; k++) {
                        fds[k] = open_eventfd();
                        assert_int_equal(lane_queue(&bench.lane, (3 + k) << 1, fds[k]), 0);
                        marks[k] = lane_mark(&bench.lane);
                }
                seam_fail(SEAM_SENDMSG, 2, errors[i]);
                assert_int_equal(lane_flush(&bench.lane), -errors[i]);
                assert_true(lane_sent(&bench.lane, marks[0]));
                assert_false(lane_sent(&bench.lane, marks[1]));
                assert_false(test_is_open(fds[0]));
                assert_true(test_is_open(fds[1]) && test_is_open(fds[2]));
                assert_int_equal(lane_flush(&bench.lane), 0);
                assert_true(lane_sent(&bench.lane, marks[2]));
                for (unsigned k = 0; k < 3; k++) {
                        assert_int_equal(cmsg_receive(bench.other, &wire, 8, got, 2, &info), 8);
                        assert_int_equal(le64toh(wire), (3 + k) << 1);
                        fd_close_all(got, info.n_fds);
                }
                bench_close(&bench);
        }
}

/* The real thing: a lane that nobody reads takes some, then says EAGAIN; reading makes room. All arrive, in order. */
static void test_full_lane(void **state) {
        enum { N = 1000 };
        unsigned received = 0, waits = 0;
        Bench bench;
        int fd = open_eventfd(), r;

        (void) state;
        bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(lane_queue(&bench.lane, (uint64_t) (3 + i) << 1, fd_dup(fd)), 0);
        do {
                CmsgInfo info;
                uint64_t wire;
                int got[2];

                r = lane_flush(&bench.lane);
                assert_true(r == 0 || r == -EAGAIN);
                waits += r == -EAGAIN;
                while (cmsg_receive(bench.other, &wire, 8, got, 2, &info) == 8) {
                        assert_int_equal(info.n_fds, 1);
                        assert_int_equal(le64toh(wire), (uint64_t) (3 + received++) << 1);
                        fd_close_all(got, info.n_fds);
                }
        } while (r == -EAGAIN);
        assert_int_equal(received, N);
        assert_true(waits > 0);
        fd_close(fd);
        bench_close(&bench);
}

static void test_queue_without_memory(void **state) {
        Bench bench;
        int fd = open_eventfd();

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        seam_fail(SEAM_MALLOC, 1, ENOMEM);
        assert_int_equal(lane_queue(&bench.lane, 6, fd), -ENOMEM);
        assert_false(test_is_open(fd));
        assert_true(lane_sent(&bench.lane, lane_mark(&bench.lane)));
        bench_close(&bench);
}

static void test_receive_errors(void **state) {
        static const int errors[] = { ENOMEM, EBADF, ENOTCONN };
        Bench bench;
        int before;

        (void) state;
        bench_open(&bench, 0, 1, LANE_RENEWAL_NONE);
        put(&bench, 7);
        put(&bench, 9);
        before = fd_count();
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                seam_fail(SEAM_RECVMSG, 1, errors[i]);
                expect(&bench, -errors[i], 0, "an error of the socket");
        }
        seam_fail(SEAM_REALLOC, 1, ENOMEM);
        expect(&bench, -ENOMEM, 0, "no memory for the table");
        assert_int_equal(fd_count(), before); /* the descriptor that came with it is closed */
        bench_close(&bench);
}

/* A lane goes with all it holds: unclaimed, lost, unsent. tests/test.h counts. */
static void test_deinit(void **state) {
        unsigned long limit;
        Bench bench;

        (void) state;
        bench_open(&bench, 0, 3, LANE_RENEWAL_SELF);
        put(&bench, 7);
        put(&bench, 9);
        expect(&bench, LANE_DESCRIPTOR, 0, "unclaimed");
        limit = test_limit_fds(0);
        expect(&bench, LANE_DESCRIPTOR, 0, "lost");
        test_restore_fds(limit);
        put(&bench, 11); /* still in the socket */
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(lane_queue(&bench.lane, i, open_stream()), 0);
        lane_deinit(&bench.lane);
        assert_int_equal(bench.lane.fd, -1);
        lane_deinit(&bench.lane);
        bench_close(&bench);

        lane_deinit(&(Lane){ .fd = -1 });
}

/* A blocking socket, as a stranger may have made it: nothing waits. */
static void test_never_waits(void **state) {
        Bench bench;
        int pair[2], r = 0;

        (void) state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        lane_init(&bench.lane, pair[0], 0, 3, LANE_RENEWAL_SELF, MAX_UNCLAIMED);
        bench.other = pair[1];
        expect(&bench, LANE_AGAIN, 0, "nothing there");
        for (unsigned i = 0; i < 10000 && r == 0; i++) {
                assert_int_equal(lane_queue(&bench.lane, 6, open_eventfd()), 0);
                r = lane_flush(&bench.lane);
        }
        assert_int_equal(r, -EAGAIN);
        bench_close(&bench);
}

static const struct CMUnitTest tests[] = {
        TEST(test_recorded),
        TEST(test_ids_allocated),
        TEST(test_channels),
        TEST(test_channel_is_the_one),
        TEST(test_channels_not_due),
        TEST(test_channel_of_wrong_kind),
        TEST(test_form),
        TEST(test_two_ids_with_one_descriptor),
        TEST(test_messages_do_not_merge),
        TEST(test_foreign_control_messages),
        TEST(test_lost),
        TEST(test_surplus_and_lost),
        TEST(test_channel_lost),
        TEST(test_ids_received),
        TEST(test_repeated_id),
        TEST(test_credit),
        TEST(test_claims),
        TEST(test_renewal_accepted),
        TEST(test_renewal),
        TEST(test_lost_of_a_lower_epoch),
        TEST(test_renewing),
        TEST(test_end),
        TEST(test_end_with_reset),
        TEST(test_flush_waits),
        TEST(test_full_lane),
        TEST(test_queue_without_memory),
        TEST(test_receive_errors),
        TEST(test_deinit),
        TEST(test_never_waits),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers common/lane, from the protocol: what a message must look like, which ids are accepted and which end the peer, from
 * each side; loss to our own limit, credit. Channels and renewal: test-lane-channel; sending: test-lane-send.
 */

#include "tests/lane-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cmsg.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

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

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_recorded),
                TEST(test_ids_allocated),
                TEST(test_form),
                TEST(test_two_ids_with_one_descriptor),
                TEST(test_messages_do_not_merge),
                TEST(test_foreign_control_messages),
                TEST(test_lost),
                TEST(test_surplus_and_lost),
                TEST(test_ids_received),
                TEST(test_repeated_id),
                TEST(test_credit),
                TEST(test_claims),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

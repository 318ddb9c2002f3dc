/* SPDX-License-Identifier: Apache-2.0 */

/* Sending on a lane that has no room, and the ends of a lane. */

#include "tests/lane-fixture.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "tests/seam.h"

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

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_end),       TEST(test_end_with_reset),       TEST(test_flush_waits),
                TEST(test_full_lane), TEST(test_queue_without_memory), TEST(test_receive_errors),
                TEST(test_deinit),    TEST(test_never_waits),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

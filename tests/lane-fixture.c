/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/lane-fixture.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"

void bench_open(Bench *bench, unsigned side, unsigned n_channels, LaneRenewal renewal) {
        int pair[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        lane_init(&bench->lane, pair[0], side, n_channels, renewal, MAX_UNCLAIMED);
        bench->other = pair[1];
}

void bench_close(Bench *bench) {
        lane_deinit(&bench->lane);
        bench->other = fd_close(bench->other);
}

int open_eventfd(void) {
        int fd = eventfd(0, EFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

int open_stream(void) {
        int pair[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        fd_close(pair[1]);
        return pair[0];
}

void put_raw(Bench *bench, uint64_t id, size_t size, int fd, size_t n) {
        uint8_t bytes[32] = { 0 };
        int fds[8];

        for (size_t i = 0; i < 8; i++)
                bytes[i] = (uint8_t) (id >> 8 * i);
        for (size_t i = 0; i < n; i++)
                fds[i] = fd;
        assert_int_equal(cmsg_send(bench->other, bytes, size, fds, n), size);
}

void put(Bench *bench, uint64_t id) {
        _cleanup_fd_ int fd = open_eventfd();

        put_raw(bench, id, 8, fd, 1);
}

void put_channel(Bench *bench, uint64_t id) {
        _cleanup_fd_ int fd = open_stream();

        put_raw(bench, id, 8, fd, 1);
}

void expect(Bench *bench, int result, uint64_t id, const char *what) {
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

void expect_claim(Bench *bench, uint64_t id, int result) {
        int fd = -1, r = lane_claim(&bench->lane, id, &fd);

        assert_int_equal(r, result);
        assert_int_equal(fd >= 0, r == 0);
        fd_close(fd);
}

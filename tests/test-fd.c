/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/fd: ownership helpers, duplication, the check of received descriptors, limits, counting. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/seam.h"

static void test_close_keeps_errno(void **state) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void) state;
        assert_true(fd >= 0);
        errno = ENOTTY;
        assert_int_equal(fd_close(fd), -1);
        assert_int_equal(errno, ENOTTY);
        assert_false(test_is_open(fd));
        errno = ENOTTY;
        assert_int_equal(fd_close(-1), -1);
        assert_int_equal(errno, ENOTTY);
        assert_int_equal(fd_close(fd), -1); /* closed already: EBADF is not told */
        assert_int_equal(errno, ENOTTY);
}

static void test_take_leaves_nothing(void **state) {
        int fd = 7;

        (void) state;
        assert_int_equal(fd_take(&fd), 7);
        assert_int_equal(fd, -1);
        assert_int_equal(fd_take(&fd), -1);
}

static int open_and_leave(void) {
        _cleanup_fd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), unset = -1;

        assert_true(fd >= 0);
        return fd + 0 * unset;
}

static void test_cleanup_closes(void **state) {
        int fd = open_and_leave();

        (void) state;
        assert_false(test_is_open(fd));
}

static void test_dup(void **state) {
        _cleanup_fd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        _cleanup_fd_ int low = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 100), copy = -1;

        (void) state;
        copy = fd_dup(fd);
        assert_true(copy >= 3 && copy != fd);
        assert_true(test_same_file(fd, copy));
        assert_int_equal(fcntl(copy, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fd_dup(-1), -EBADF);

        /* A standard descriptor that is free is not filled. */
        assert_int_equal(close(STDIN_FILENO), 0);
        copy = fd_close(copy);
        copy = fd_dup(fd);
        assert_true(copy >= 3);
        assert_int_equal(dup2(low, STDIN_FILENO), STDIN_FILENO);
}

static void test_dup_at_limit(void **state) {
        _cleanup_fd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        unsigned long limit = test_limit_fds(0);

        (void) state;
        assert_int_equal(fd_dup(fd), -EMFILE);
        test_restore_fds(limit);
}

static void test_close_all(void **state) {
        int fds[] = { open("/dev/null", O_RDONLY | O_CLOEXEC), -1, open("/dev/null", O_RDONLY | O_CLOEXEC) };
        int copies[] = { fds[0], fds[2] };

        (void) state;
        fd_close_all(fds, ARRAY_SIZE(fds));
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                assert_int_equal(fds[i], -1);
        for (size_t i = 0; i < ARRAY_SIZE(copies); i++)
                assert_false(test_is_open(copies[i]));
        fd_close_all(NULL, 0);
}

static void test_socketpair(void **state) {
        static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                int fds[2] = { -1, -1 };

                assert_int_equal(fd_socketpair(types[i], fds), 0);
                for (size_t k = 0; k < 2; k++) {
                        int type;
                        socklen_t length = sizeof(type);

                        assert_int_equal(fcntl(fds[k], F_GETFD), FD_CLOEXEC);
                        assert_true(fcntl(fds[k], F_GETFL) & O_NONBLOCK);
                        assert_int_equal(getsockopt(fds[k], SOL_SOCKET, SO_TYPE, &type, &length), 0);
                        assert_int_equal(type, types[i]);
                }
                fd_close_all(fds, 2);
        }
}

static int make_pair(void *argument) {
        int *fds = argument;
        int r = fd_socketpair(SOCK_STREAM, fds);

        if (r == 0)
                fd_close_all(fds, 2);
        return r;
}

static void test_socketpair_fails(void **state) {
        int fds[2] = { -5, -6 };

        (void) state;
        seam_fail(SEAM_SOCKETPAIR, 1, ENFILE);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), -ENFILE);
        assert_int_equal(fds[0], -5); /* written only on success */
        assert_int_equal(fds[1], -6);
        assert_int_equal(seam_each(SEAM_SOCKETPAIR, EMFILE, make_pair, fds, 0), 1);
}

static int make_listener(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        /* An address of the family alone: the kernel chooses a free abstract name. */
        assert_int_equal(bind(fd, (struct sockaddr *) &address, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

static void test_is_unix_stream(void **state) {
        int stream[2], packet[2], pipes[2];
        const struct {
                const char *what;
                int fd;
                bool expected;
        } rows[] = {
                { "a stream pair", (assert_int_equal(fd_socketpair(SOCK_STREAM, stream), 0), stream[0]), true },
                { "its other end", stream[1], true },
                { "seqpacket", (assert_int_equal(fd_socketpair(SOCK_SEQPACKET, packet), 0), packet[0]), false },
                { "its other end", packet[1], false },
                { "datagram", socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), false },
                { "a listener", make_listener(), false },
                { "TCP", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), false },
                { "a pipe", (assert_int_equal(pipe2(pipes, O_CLOEXEC), 0), pipes[0]), false },
                { "its other end", pipes[1], false },
                { "a device", open("/dev/null", O_RDWR | O_CLOEXEC), false },
                { "a folder", open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), false },
                { "a path", open("/", O_PATH | O_CLOEXEC), false },
                { "none", -1, false },
                { "a closed number", 1 << 20, false },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                if (fd_is_unix_stream(rows[i].fd) != rows[i].expected)
                        fail_msg("%s: expected %d", rows[i].what, rows[i].expected);
                if (rows[i].fd < 1 << 20)
                        fd_close(rows[i].fd);
        }
}

static void test_raise_limit(void **state) {
        struct rlimit start, before = { 0, 0 }, raised;

        (void) state;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &start), 0);
        test_restore_fds(64);
        assert_int_equal(fd_raise_limit(&before), 0);
        assert_int_equal(before.rlim_cur, 64);
        assert_int_equal(before.rlim_max, start.rlim_max);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &raised), 0);
        assert_int_equal(raised.rlim_cur, start.rlim_max);
        test_restore_fds(start.rlim_cur);
}

static void test_count(void **state) {
        int before = fd_count(), fd, r;
        unsigned long limit;

        (void) state;
        assert_true(before >= 3);
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(fd_count(), before + 1);
        limit = test_limit_fds(0);
        r = fd_count(); /* from 6.2 on it needs none itself */
        test_restore_fds(limit);
        assert_true(r == before + 1 || r == -EMFILE);
        fd_close(fd);
        assert_int_equal(fd_count(), before);
}

static const struct CMUnitTest tests[] = {
        TEST(test_close_keeps_errno),
        TEST(test_take_leaves_nothing),
        TEST(test_cleanup_closes),
        TEST(test_dup),
        TEST(test_dup_at_limit),
        TEST(test_close_all),
        TEST(test_socketpair),
        TEST(test_socketpair_fails),
        TEST(test_is_unix_stream),
        TEST(test_raise_limit),
        TEST(test_count),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

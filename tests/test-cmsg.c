/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/cmsg: descriptors and bytes over every kind of unix socket, surplus, limits, foreign control messages. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "tests/seam.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };

static void open_pair(int type, int fds[2]) {
        assert_int_equal(fd_socketpair(type, fds), 0);
}

static int open_one(void) {
        int fd = eventfd(0, EFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static void test_round_trip(void **state) {
        (void) state;
        for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
                int pair[2], sent[2] = { open_one(), open_one() }, got[4] = { -1, -1, -1, -1 };
                CmsgInfo info;
                char text[8];

                open_pair(types[t], pair);
                assert_int_equal(cmsg_send(pair[0], "abc", 3, sent, 2), 3);
                assert_true(test_is_open(sent[0])); /* they stay the caller's */
                assert_int_equal(cmsg_receive(pair[1], text, sizeof(text), got, 4, &info), 3);
                assert_memory_equal(text, "abc", 3);
                assert_int_equal(info.n_fds, 2);
                assert_false(info.truncated || info.foreign || info.has_pid);
                for (size_t i = 0; i < 2; i++) {
                        assert_true(test_same_file(sent[i], got[i]));
                        assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
                }
                assert_int_equal(got[2], -1);

                assert_int_equal(cmsg_receive(pair[1], text, sizeof(text), got + 2, 2, &info), -EAGAIN);
                assert_int_equal(cmsg_send(pair[0], "x", 1, NULL, 0), 1);
                assert_int_equal(cmsg_receive(pair[1], text, sizeof(text), got + 2, 2, &info), 1);
                assert_int_equal(info.n_fds, 0);
                fd_close_all(sent, 2);
                fd_close_all(got, 4);
                fd_close_all(pair, 2);
        }
}

static void test_many(void **state) {
        static int sent[CMSG_FDS_MAX], got[CMSG_FDS_MAX];
        int pair[2];
        CmsgInfo info;
        char byte;

        (void) state;
        open_pair(SOCK_STREAM, pair);
        for (size_t i = 0; i < CMSG_FDS_MAX; i++)
                sent[i] = open_one();
        assert_int_equal(cmsg_send(pair[0], "x", 1, sent, CMSG_FDS_MAX), 1);
        assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, CMSG_FDS_MAX, &info), 1);
        assert_int_equal(info.n_fds, CMSG_FDS_MAX);
        assert_false(info.truncated);
        for (size_t i = 0; i < CMSG_FDS_MAX; i++)
                assert_true(test_same_file(sent[i], got[i]));
        fd_close_all(sent, CMSG_FDS_MAX);
        fd_close_all(got, CMSG_FDS_MAX);
        fd_close_all(pair, 2);
}

/* More descriptors than there is room for: the surplus is closed and told, whatever the kernel rounded the room up to. */
static void test_surplus(void **state) {
        (void) state;
        for (size_t room = 0; room < 4; room++)
                for (size_t n = 1; n < 6; n++) {
                        int pair[2], sent[6], got[4] = { -1, -1, -1, -1 };
                        CmsgInfo info;
                        char byte;

                        open_pair(SOCK_STREAM, pair);
                        for (size_t i = 0; i < n; i++)
                                sent[i] = open_one();
                        assert_int_equal(cmsg_send(pair[0], "x", 1, sent, n), 1);
                        assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, room, &info), 1);
                        assert_int_equal(info.n_fds, MIN(n, room));
                        assert_int_equal(info.truncated, n > room);
                        for (size_t i = room; i < ARRAY_SIZE(got); i++)
                                assert_int_equal(got[i], -1);
                        fd_close_all(sent, n);
                        fd_close_all(got, info.n_fds);
                        fd_close_all(pair, 2);
                }
}

/* Our own descriptor limit: the message arrives, what fits is there and owned, the loss is told. */
static void test_limit(void **state) {
        (void) state;
        for (unsigned fit = 0; fit < 4; fit++) {
                int pair[2], sent[3] = { open_one(), open_one(), open_one() }, got[3] = { -1, -1, -1 };
                unsigned long limit;
                CmsgInfo info;
                char byte;

                open_pair(SOCK_STREAM, pair);
                assert_int_equal(cmsg_send(pair[0], "x", 1, sent, 3), 1);
                limit = test_limit_fds(fit);
                assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, 3, &info), 1);
                test_restore_fds(limit);
                assert_int_equal(info.n_fds, MIN(fit, 3u));
                assert_int_equal(info.truncated, fit < 3);
                assert_false(info.foreign);
                fd_close_all(sent, 3);
                fd_close_all(got, info.n_fds);
                fd_close_all(pair, 2);
        }
}

static void test_credentials(void **state) {
        int pair[2], sent[1] = { open_one() }, got[2] = { -1, -1 }, on = 1;
        CmsgInfo info;
        char byte;

        (void) state;
        open_pair(SOCK_SEQPACKET, pair);
        assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
        assert_int_equal(cmsg_send(pair[0], "x", 1, sent, 1), 1);
        assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, 1, &info), 1);
        assert_true(info.has_pid);
        assert_int_equal(info.pid, getpid());
        assert_int_equal(info.n_fds, 1);
        assert_false(info.truncated || info.foreign);
        fd_close_all(sent, 1);
        fd_close_all(got, 1);
        fd_close_all(pair, 2);
}

/* A pidfd that whoever made the socket asked for is closed, not leaked. */
static void test_foreign_descriptor(void **state) {
        int pair[2], got[2] = { -1, -1 }, on = 1;
        CmsgInfo info;
        char byte;

        (void) state;
        open_pair(SOCK_SEQPACKET, pair);
        if (setsockopt(pair[1], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)) < 0) {
                fd_close_all(pair, 2);
                print_message("SO_PASSPIDFD needs Linux 6.5\n");
                skip();
        }
        assert_int_equal(cmsg_send(pair[0], "x", 1, NULL, 0), 1);
        assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, 2, &info), 1);
        assert_true(info.foreign);
        assert_int_equal(info.n_fds, 0);
        fd_close_all(pair, 2);
}

static void test_end(void **state) {
        (void) state;
        for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
                int pair[2], got[2];
                CmsgInfo info;
                char text[8];

                open_pair(types[t], pair);
                pair[0] = fd_close(pair[0]);
                assert_int_equal(cmsg_receive(pair[1], text, sizeof(text), got, 2, &info), 0);
                assert_int_equal(cmsg_read(pair[1], text, sizeof(text)), 0);
                assert_int_equal(cmsg_send(pair[1], "x", 1, NULL, 0), -EPIPE); /* and no SIGPIPE */
                fd_close_all(pair, 2);
        }
}

/* The other side dies with our bytes unread: ECONNRESET comes first, then what it had queued, then the end. */
static void test_reset_is_read_over(void **state) {
        (void) state;
        for (size_t t = 0; t < ARRAY_SIZE(types); t++)
                for (int plain = 0; plain < 2; plain++) {
                        int pair[2], sent = open_one(), got[2] = { -1, -1 };
                        CmsgInfo info = { 0 };
                        char text[8];

                        open_pair(types[t], pair);
                        assert_int_equal(cmsg_send(pair[1], "unread", 6, NULL, 0), 6);
                        assert_int_equal(cmsg_send(pair[0], "abc", 3, &sent, plain ? 0 : 1), 3);
                        pair[0] = fd_close(pair[0]);
                        if (plain) {
                                assert_int_equal(cmsg_read(pair[1], text, sizeof(text)), 3);
                        } else {
                                assert_int_equal(cmsg_receive(pair[1], text, sizeof(text), got, 2, &info), 3);
                                assert_int_equal(info.n_fds, 1);
                        }
                        assert_memory_equal(text, "abc", 3);
                        assert_int_equal(cmsg_read(pair[1], text, sizeof(text)), 0);
                        fd_close(sent);
                        fd_close_all(got, 2);
                        fd_close_all(pair, 2);
                }
}

/* Descriptors that come with bytes read without a control buffer are the kernel's to close. */
static void test_read_brings_none(void **state) {
        int pair[2], sent[2] = { open_one(), open_one() }, before;
        char text[8];

        (void) state;
        open_pair(SOCK_STREAM, pair);
        before = fd_count();
        assert_int_equal(cmsg_send(pair[0], "abc", 3, sent, 2), 3);
        assert_int_equal(cmsg_read(pair[1], text, sizeof(text)), 3);
        assert_int_equal(fd_count(), before);
        fd_close_all(sent, 2);
        fd_close_all(pair, 2);
}

/* Blocking sockets do not make us wait: reading nothing, writing into a full one. */
static void test_never_waits(void **state) {
        static char block[65536];
        int pair[2], got[1], i;
        CmsgInfo info;

        (void) state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(cmsg_read(pair[1], block, 1), -EAGAIN);
        assert_int_equal(cmsg_receive(pair[1], block, 1, got, 1, &info), -EAGAIN);
        for (i = 0; i < 1000 && cmsg_send(pair[0], block, sizeof(block), NULL, 0) > 0; i++)
                ;
        assert_int_equal(cmsg_send(pair[0], block, sizeof(block), NULL, 0), -EAGAIN);
        fd_close_all(pair, 2);
}

static void test_errors(void **state) {
        static const int errors[] = { EAGAIN, ENOMEM, EMFILE, ETOOMANYREFS, ENOBUFS };
        int pair[2], got[1];
        CmsgInfo info = { .n_fds = 77 };
        char byte;

        (void) state;
        open_pair(SOCK_STREAM, pair);
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                seam_fail(SEAM_SENDMSG, 1, errors[i]);
                assert_int_equal(cmsg_send(pair[0], "x", 1, NULL, 0), -errors[i]);
                seam_fail(SEAM_RECVMSG, 1, errors[i]);
                assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, 1, &info), -errors[i]);
                assert_int_equal(info.n_fds, 77); /* written only with a message */
                seam_fail(SEAM_RECVMSG, 1, errors[i]);
                assert_int_equal(cmsg_read(pair[1], &byte, 1), -errors[i]);
        }
        fd_close_all(pair, 2);
}

/* Interrupted, or told of a reset: the call is made again, and the message is there. */
static void test_retries(void **state) {
        static const int errors[] = { EINTR, ECONNRESET, EPIPE };
        int pair[2], got[1];
        CmsgInfo info;
        char byte;

        (void) state;
        open_pair(SOCK_STREAM, pair);
        seam_fail(SEAM_SENDMSG, 1, EINTR);
        assert_int_equal(cmsg_send(pair[0], "abcdef", 6, NULL, 0), 6);
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                seam_fail(SEAM_RECVMSG, 1, errors[i]);
                assert_int_equal(cmsg_receive(pair[1], &byte, 1, got, 1, &info), 1);
                seam_fail(SEAM_RECVMSG, 1, errors[i]);
                assert_int_equal(cmsg_read(pair[1], &byte, 1), 1);
        }
        assert_int_equal(seam_hits(SEAM_RECVMSG), 2 * ARRAY_SIZE(errors));
        fd_close_all(pair, 2);
}

static const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_many),
        TEST(test_surplus),
        TEST(test_limit),
        TEST(test_credentials),
        TEST(test_foreign_descriptor),
        TEST(test_end),
        TEST(test_reset_is_read_over),
        TEST(test_read_brings_none),
        TEST(test_never_waits),
        TEST(test_errors),
        TEST(test_retries),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

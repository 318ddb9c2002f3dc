/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers proto/manifest and proto/transfer: what arrives is what was described, whatever its type; anything else is
 * refused with a reason that both sides have, and nothing is left open.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "proto/transfer.h"
#include "tests/seam.h"

#define STATE_VERSION 3u

/* A giver and a taker in one process. */
typedef struct Pair {
        int sockets[2];
        Manifest manifest;
        Transfer giver, taker;
} Pair;

static void open_pair(Pair *pair) {
        *pair = (Pair){ .manifest.version = STATE_VERSION };
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, pair->sockets), 0);
}

static void close_pair(Pair *pair) {
        transfer_deinit(&pair->giver);
        transfer_deinit(&pair->taker);
        manifest_deinit(&pair->manifest);
        fd_close_all(pair->sockets, 2);
}

static void begin(Pair *pair) {
        transfer_give(&pair->giver, pair->sockets[0], &pair->manifest);
        transfer_take(&pair->taker, pair->sockets[1], STATE_VERSION - 1, STATE_VERSION + 1);
}

/* run() - steps of both until neither changes anything any more. */
static void run(Pair *pair, TransferState *ret_giver, TransferState *ret_taker) {
        *ret_giver = *ret_taker = TRANSFER_WAITS;
        for (unsigned i = 0; i < 1000 && (*ret_giver == TRANSFER_WAITS || *ret_taker == TRANSFER_WAITS); i++) {
                if (*ret_giver == TRANSFER_WAITS)
                        *ret_giver = transfer_step(&pair->giver);
                if (*ret_taker == TRANSFER_WAITS)
                        *ret_taker = transfer_step(&pair->taker);
        }
}

static void expect_refused(Pair *pair, const char *reason) {
        TransferState giver, taker;

        run(pair, &giver, &taker);
        assert_int_equal(taker, TRANSFER_FAILED);
        assert_int_equal(giver, TRANSFER_FAILED);
        assert_non_null(strstr(pair->taker.reason, reason));
        assert_string_equal(pair->giver.reason, pair->taker.reason);
}

/* ---------------------------------------------------------------------------------------------------------- all is well */

static const char *const kinds[] = { "socket",    "listener", "pipe",    "write end", "memory",
                                     "directory", "null",     "process", "event",     "path" };

/* open_all() - one of each kind. The other ends are @ret_rest. */
static void open_all(int ret_fds[ARRAY_SIZE(kinds)], int ret_rest[2]) {
        int pair[2], ends[2];

        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        ret_fds[0] = pair[0];
        ret_rest[0] = pair[1];
        ret_fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(listen(ret_fds[1], 1), 0);
        ret_fds[2] = ends[0];
        ret_fds[3] = ends[1];
        assert_int_equal(memfd_sealed("test", "x", 1, &ret_fds[4]), 0);
        ret_fds[5] = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ret_fds[6] = open("/dev/null", O_RDWR | O_CLOEXEC);
        ret_fds[7] = pidfd_open(getpid(), 0);
        ret_fds[8] = eventfd(0, EFD_CLOEXEC);
        ret_fds[9] = open("/dev/zero", O_PATH | O_CLOEXEC);
        ret_rest[1] = -1;
}

static void test_every_type(void **state) {
        int fds[ARRAY_SIZE(kinds)], rest[2];
        TransferState giver, taker;
        Pair pair;

        (void) state;
        open_pair(&pair);
        open_all(fds, rest);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                assert_int_equal(manifest_add(&pair.manifest, kinds[i], fds[i]), 0);
        begin(&pair);
        run(&pair, &giver, &taker);
        assert_string_equal(pair.taker.reason, "");
        assert_int_equal(giver, TRANSFER_DONE);
        assert_int_equal(taker, TRANSFER_DONE);
        assert_int_equal(pair.taker.taken.version, STATE_VERSION);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                int fd = manifest_take(&pair.taker.taken, kinds[i]);

                assert_true(fd >= 0);
                assert_true(test_same_file(fd, fds[i]));
                assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
                assert_int_equal(manifest_take(&pair.taker.taken, kinds[i]), -1);
                fd_close(fd);
        }
        assert_int_equal(manifest_take(&pair.taker.taken, "nothing"), -1);
        fd_close_all(fds, ARRAY_SIZE(kinds));
        fd_close_all(rest, 2);
        close_pair(&pair);
}

/* Around a batch, and more than a window of them; several transfers over one pair. */
/* What was given before and is the same is not given again, and what is given back is not there twice. */
static void test_given_again(void **state) {
        Manifest before = MANIFEST_NULL;
        int fds[3] = { eventfd(0, EFD_CLOEXEC), open("/dev/zero", O_RDONLY | O_CLOEXEC), -1 };
        TransferState giver, taker;
        Pair pair;

        (void) state;
        open_pair(&pair);
        fds[2] = fd_dup(fds[1]);
        assert_int_equal(manifest_add(&pair.manifest, "c/lane", fds[1]), 0);
        assert_int_equal(manifest_add(&pair.manifest, "c/fd/0", fds[1]), 0);
        assert_int_equal(manifest_keep_new(&pair.manifest, 0, &before), 0);
        assert_int_equal(pair.manifest.n, 2);
        assert_int_equal(before.n, 2);
        manifest_deinit(&pair.manifest);
        assert_int_equal(manifest_add(&pair.manifest, "other", fds[1]), 0);
        assert_int_equal(manifest_add(&pair.manifest, "c/lane", fds[1]), 0);
        assert_int_equal(manifest_add(&pair.manifest, "c/channel/0", fds[1]), 0);
        assert_int_equal(manifest_add(&pair.manifest, "c/fd/0", fds[1]), 0);
        assert_int_equal(manifest_keep_new(&pair.manifest, 1, &before), 0);
        assert_int_equal(pair.manifest.n, 3); /* all but the lane */
        assert_int_equal(before.n, 3);
        manifest_deinit(&before);
        pair.manifest.version = STATE_VERSION;
        begin(&pair);
        run(&pair, &giver, &taker);
        assert_int_equal(taker, TRANSFER_DONE);
        assert_false(manifest_has(&pair.taker.taken, "c/lane"));
        assert_int_equal(manifest_give_back(&pair.taker.taken, "c/lane", fd_take(&fds[2])), 0);
        assert_int_equal(manifest_give_back(&pair.taker.taken, "c/channel/0", fd_take(&fds[0])), 0);
        for (size_t i = 0; i < 2; i++) {
                int fd = manifest_take(&pair.taker.taken, i == 0 ? "c/lane" : "c/channel/0");

                assert_true(fd >= 0 && test_same_file(fd, fds[1]));
                fd_close(fd);
        }
        fd_close(fds[1]);
        close_pair(&pair);
}

static void test_every_number(void **state) {
        static const size_t numbers[] = { 0, 1, TRANSFER_BATCH, TRANSFER_BATCH + 1, TRANSFER_BATCH * 8 + 3 };
        TransferState giver, taker;
        Pair pair;
        int ends[2];

        (void) state;
        open_pair(&pair);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        for (size_t n = 0; n < ARRAY_SIZE(numbers); n++) {
                char name[32];

                for (size_t i = 0; i < numbers[n]; i++) {
                        (void) snprintf(name, sizeof(name), "pipe/%zu", i);
                        assert_int_equal(manifest_add(&pair.manifest, name, ends[i % 2]), 0);
                }
                begin(&pair);
                run(&pair, &giver, &taker);
                assert_int_equal(giver, TRANSFER_DONE);
                assert_int_equal(taker, TRANSFER_DONE);
                assert_int_equal(pair.taker.taken.n, numbers[n]);
                for (size_t i = 0; i < numbers[n]; i++)
                        assert_true(pair.taker.taken.fds[i] >= 0);
                transfer_deinit(&pair.taker);
                manifest_deinit(&pair.manifest);
                pair.manifest.version = STATE_VERSION;
        }
        fd_close_all(ends, 2);
        close_pair(&pair);
}

static void test_words_between(void **state) {
        char word[TRANSFER_WORD_SIZE], too_long[TRANSFER_WORD_SIZE + 1];
        TransferState giver, taker;
        Pair pair;

        (void) state;
        open_pair(&pair);
        assert_int_equal(manifest_add(&pair.manifest, "socket", pair.sockets[0]), 0);
        begin(&pair);
        assert_int_equal(transfer_hear(pair.sockets[0], word), -EAGAIN);
        assert_int_equal(transfer_say(pair.sockets[1], "hello"), 0);
        run(&pair, &giver, &taker);
        assert_int_equal(giver, TRANSFER_SAID);
        assert_string_equal(pair.giver.said, "hello");
        run(&pair, &giver, &taker);
        assert_int_equal(giver, TRANSFER_DONE);
        assert_int_equal(taker, TRANSFER_DONE);
        assert_int_equal(transfer_say(pair.sockets[0], "and now the rest"), 0);
        assert_int_equal(transfer_hear(pair.sockets[1], word), 0);
        assert_string_equal(word, "and now the rest");
        memset(too_long, 'x', sizeof(too_long) - 1);
        too_long[sizeof(too_long) - 1] = '\0';
        assert_int_equal(transfer_say(pair.sockets[0], too_long), -EMSGSIZE);
        transfer_deinit(&pair.taker); /* it holds the other end */
        pair.sockets[0] = fd_close(pair.sockets[0]);
        assert_int_equal(transfer_hear(pair.sockets[1], word), -EPIPE);
        close_pair(&pair);
}

/* ------------------------------------------------------------------------------------------------------ what is refused */

/* replace() - number @to becomes what @fd_consume is, after it was described. */
static void replace(int fd_consume, int to) {
        assert_int_equal(dup3(fd_consume, to, O_CLOEXEC), to);
        fd_close(fd_consume);
}

static void test_another_descriptor(void **state) {
        int other[2], ends[2];
        struct {
                int described, sent;
                const char *reason;
        } cases[5];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, other), 0);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        cases[0].described = fd_dup(ends[0]);
        cases[0].sent = fd_dup(other[0]);
        cases[0].reason = "the one is a socket, and should be a pipe";
        cases[1].described = fd_dup(other[0]);
        cases[1].sent = fd_dup(other[1]);
        cases[1].reason = "the one is a socket, but another one";
        cases[2].described = fd_dup(ends[0]);
        cases[2].sent = fd_dup(ends[1]);
        cases[2].reason = "the one is a pipe, but open in another way";
        cases[3].described = pidfd_open(getpid(), 0);
        cases[3].sent = pidfd_open(getppid(), 0);
        cases[3].reason = "the one is a process, but another process";
        cases[4].described = open("/dev/null", O_RDWR | O_CLOEXEC);
        cases[4].sent = open("/dev/zero", O_RDWR | O_CLOEXEC);
        cases[4].reason = "the one is a character device, but another one";
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Pair pair;

                open_pair(&pair);
                assert_int_equal(manifest_add(&pair.manifest, "the one", cases[i].described), 0);
                replace(cases[i].sent, cases[i].described);
                begin(&pair);
                expect_refused(&pair, cases[i].reason);
                fd_close(cases[i].described);
                close_pair(&pair);
        }
        fd_close_all(other, 2);
        fd_close_all(ends, 2);
}

/* Between description and arrival it began to listen. */
static void test_another_state(void **state) {
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        Pair pair;

        (void) state;
        open_pair(&pair);
        assert_int_equal(manifest_add(&pair.manifest, "web", listener), 0);
        assert_int_equal(listen(listener, 1), 0);
        begin(&pair);
        expect_refused(&pair, "web is a socket, but listening");
        fd_close(listener);
        close_pair(&pair);
}

static void test_names(void **state) {
        char long_name[MANIFEST_NAME_MAX + 2];
        Pair pair;

        (void) state;
        open_pair(&pair);
        memset(long_name, 'x', sizeof(long_name) - 1);
        long_name[sizeof(long_name) - 1] = '\0';
        assert_int_equal(manifest_add(&pair.manifest, "", 0), -EINVAL);
        assert_int_equal(manifest_add(&pair.manifest, long_name, 0), -EINVAL);
        assert_int_equal(manifest_add(&pair.manifest, "\xff", 0), -EINVAL);
        assert_int_equal(manifest_add(&pair.manifest, "closed", 12345), -EBADF);
        assert_int_equal(manifest_add(&pair.manifest, "twice", pair.sockets[0]), 0);
        assert_int_equal(manifest_add(&pair.manifest, "twice", pair.sockets[0]), 0);
        begin(&pair);
        expect_refused(&pair, "the manifest lists twice twice");
        close_pair(&pair);
}

static void test_versions(void **state) {
        static const struct {
                uint32_t version;
                bool good;
        } cases[] = { { STATE_VERSION - 2, false },
                      { STATE_VERSION - 1, true },
                      { STATE_VERSION + 1, true },
                      { STATE_VERSION + 2, false } };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                TransferState giver, taker;
                Pair pair;

                open_pair(&pair);
                pair.manifest.version = cases[i].version;
                begin(&pair);
                if (cases[i].good) {
                        run(&pair, &giver, &taker);
                        assert_int_equal(taker, TRANSFER_DONE);
                        assert_int_equal(pair.taker.taken.version, cases[i].version);
                } else {
                        expect_refused(&pair, "and 2 to 4 is understood");
                }
                close_pair(&pair);
        }
}

static void test_limit(void **state) {
        unsigned long limit;
        char name[32];
        Pair pair;

        (void) state;
        open_pair(&pair);
        for (size_t i = 0; i < 100; i++) {
                (void) snprintf(name, sizeof(name), "fd/%zu", i);
                assert_int_equal(manifest_add(&pair.manifest, name, pair.sockets[0]), 0);
        }
        limit = test_limit_fds(50);
        begin(&pair);
        expect_refused(&pair, "raise the limit of open files");
        test_restore_fds(limit);
        close_pair(&pair);
}

/* Messages that no giver of ours would send. */
static void test_out_of_turn(void **state) {
        char rubbish[64] = "rubbish";
        TransferState giver, taker;
        Pair pair;

        (void) state;
        open_pair(&pair);
        begin(&pair);
        assert_int_equal(cmsg_send(pair.sockets[0], rubbish, sizeof(rubbish), &pair.sockets[0], 1), sizeof(rubbish));
        assert_int_equal(transfer_step(&pair.taker), TRANSFER_FAILED);
        assert_non_null(strstr(pair.taker.reason, "Protocol error"));
        close_pair(&pair);

        open_pair(&pair); /* both give: what comes is no answer */
        begin(&pair);
        transfer_give(&pair.taker, pair.sockets[1], &pair.manifest);
        run(&pair, &giver, &taker);
        assert_int_equal(giver, TRANSFER_FAILED);
        assert_int_equal(taker, TRANSFER_FAILED);
        assert_non_null(strstr(pair.taker.reason, "out of turn"));
        close_pair(&pair);
}

static void test_death(void **state) {
        Pair pair;

        (void) state;
        open_pair(&pair);
        assert_int_equal(manifest_add(&pair.manifest, "one", pair.sockets[0]), 0);
        begin(&pair);
        assert_int_equal(transfer_step(&pair.giver), TRANSFER_WAITS);
        assert_int_equal(transfer_events(&pair.giver), 1); /* POLLIN: everything is sent */
        pair.sockets[1] = fd_close(pair.sockets[1]);
        assert_int_equal(transfer_step(&pair.giver), TRANSFER_FAILED);
        assert_string_equal(pair.giver.reason, "the successor is gone");
        close_pair(&pair);
}

/* No room in the socket, no memory: it goes on later, or says what it is. */
static void test_failures(void **state) {
        TransferState giver, taker;
        Pair pair;

        (void) state;
        open_pair(&pair);
        assert_int_equal(manifest_add(&pair.manifest, "one", pair.sockets[0]), 0);
        begin(&pair);
        seam_fail(SEAM_SENDMSG, 1, EAGAIN);
        run(&pair, &giver, &taker);
        assert_int_equal(taker, TRANSFER_DONE);
        close_pair(&pair);

        open_pair(&pair);
        begin(&pair);
        seam_fail(SEAM_SENDMSG, 1, ENOBUFS);
        assert_int_equal(transfer_step(&pair.giver), TRANSFER_FAILED);
        assert_non_null(strstr(pair.giver.reason, "cannot send descriptors: No buffer space"));
        close_pair(&pair);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_type), TEST(test_given_again),        TEST(test_every_number),  TEST(test_words_between),
        TEST(test_names),      TEST(test_another_descriptor), TEST(test_another_state), TEST(test_versions),
        TEST(test_limit),      TEST(test_out_of_turn),        TEST(test_death),         TEST(test_failures),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

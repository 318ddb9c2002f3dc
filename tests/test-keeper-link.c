/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The supervisor's link to its keeper, against a socket that the test answers: order, window, room, retry, the end. What
 * a keeper makes of it is in tests/test-keeper.c.
 */

#include "supervisor/keeper-link.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct LinkTest {
        Loop *loop;
        KeeperLink *link;
        int keeper;
        unsigned n_done, n_exits, n_idle, n_closed;
        int result;
        KeeperExit exit;
} LinkTest;

static void link_exited(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_exits++;
        t->exit = *exit;
        loop_stop(t->loop);
}

static void link_idle(KeeperLink *link, void *userdata) {
        LinkTest *t = userdata;

        assert_true(keeper_link_idle(link));
        t->n_idle++;
        loop_stop(t->loop);
}

static void link_closed(KeeperLink *link, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_closed++;
        loop_stop(t->loop);
}

static const KeeperLinkHandlers link_handlers = { link_exited, link_idle, link_closed };

static void link_done(KeeperLink *link, int result, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_done++;
        t->result = result;
        loop_stop(t->loop);
}

static void link_begin(LinkTest *t) {
        int fds[2];

        *t = (LinkTest){ .keeper = -1 };
        assert_int_equal(loop_new(&t->loop), 0);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        t->keeper = fds[0];
        assert_int_equal(keeper_link_new(&t->link, t->loop, fds[1], &link_handlers, t), 0);
        assert_true(keeper_link_idle(t->link));
}

static void link_end(LinkTest *t) {
        t->link = keeper_link_free(t->link);
        t->loop = loop_free(t->loop);
        t->keeper = fd_close(t->keeper);
}

/* link_read() - what the keeper would read; false: nothing there. */
static bool link_read(LinkTest *t, KeeperMessage *ret_message, int *ret_fd) {
        CmsgInfo info;
        ssize_t n;

        *ret_fd = -1;
        n = cmsg_receive(t->keeper, ret_message, sizeof(*ret_message), ret_fd, 1, &info);
        return n == (ssize_t) sizeof(*ret_message);
}

static void link_say(LinkTest *t, KeeperType type, uint32_t serial, int result) {
        KeeperMessage m = { .version = KEEPER_VERSION, .type = (uint16_t) type, .serial = serial, .result = result };

        m.instance = 5;
        m.pid = 77;
        m.wait_code = CLD_KILLED;
        m.wait_status = 9;
        assert_int_equal(cmsg_send(t->keeper, &m, sizeof(m), NULL, 0), sizeof(m));
}

static void test_link_window(void **state) {
        enum { REQUESTS = 200 };
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        for (uint64_t i = 1; i <= REQUESTS; i++)
                assert_int_equal(keeper_link_put(t.link, i, KEEPER_FD_LOG, 1, STDIN_FILENO, link_done, &t), 0);
        assert_int_equal(keeper_link_started(t.link, REQUESTS + 1), 0);
        assert_false(keeper_link_idle(t.link));
        for (uint32_t i = 1; i <= REQUESTS; i++) {
                unsigned ahead = t.n_done;

                assert_true(link_read(&t, &m, &fd));
                assert_int_equal(m.instance, i); /* in order, each with its descriptor */
                assert_int_equal(m.type, KEEPER_PUT);
                assert_int_equal(m.serial, i);
                assert_true(fd >= 0);
                fd_close(fd);
                if (i - ahead < KEEPER_WINDOW || i == REQUESTS)
                        continue;
                assert_false(link_read(&t, &m, &fd)); /* not one more than the window */
                link_say(&t, KEEPER_DONE, ahead + 1, -(int) ahead);
                loop_run(t.loop);
                assert_int_equal(t.n_done, ahead + 1);
                assert_int_equal(t.result, -(int) ahead);
        }
        assert_true(link_read(&t, &m, &fd));
        assert_int_equal(m.type, KEEPER_STARTED);
        assert_int_equal(m.serial, 0);
        assert_true(keeper_link_idle(t.link));
        assert_int_equal(t.n_idle, 1);
        link_end(&t);
}

static void test_link_full(void **state) {
        KeeperMessage m;
        unsigned n = 0;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        while (keeper_link_idle(t.link)) /* statements are not under the window: the socket fills */
                assert_int_equal(keeper_link_ack(t.link, ++n), 0);
        for (int i = 0; i < 100; i++)
                assert_int_equal(keeper_link_ack(t.link, ++n), 0);
        for (unsigned i = 1; i <= n; i++) {
                while (!link_read(&t, &m, &fd)) {
                        link_say(&t, KEEPER_EXIT, 0,
                                 0); /* sending goes on after a receive, before POLLOUT would come */
                        loop_run(t.loop);
                }
                assert_int_equal(m.instance, i);
        }
        assert_int_equal(t.exit.instance, 5);
        assert_int_equal(t.exit.pid, 77);
        assert_int_equal(t.exit.code, CLD_KILLED);
        assert_int_equal(t.exit.status, 9);

        for (n = 0; keeper_link_drop(t.link, 1, KEEPER_FD_LOG, 1, NULL, NULL) == 0; n++)
                ;
        assert_int_equal(n, KEEPER_WINDOW + KEEPER_LINK_REQUESTS_MAX);
        assert_int_equal(keeper_link_drop(t.link, 1, KEEPER_FD_LOG, 1, NULL, NULL), -ENOBUFS);
        assert_int_equal(keeper_link_ack(t.link, 1), 0);
        link_end(&t);
}

static void test_link_retry(void **state) {
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        seam_fail(SEAM_SENDMSG, 1, ETOOMANYREFS);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, link_done, &t), 0);
        assert_false(keeper_link_idle(t.link));
        loop_run(t.loop); /* the timer */
        assert_int_equal(t.n_idle, 1);
        assert_true(link_read(&t, &m, &fd));
        fd_close(fd);
        keeper_link_forget(t.link, &t);
        link_say(&t, KEEPER_DONE, 1, 0);
        link_say(&t, KEEPER_EXIT, 0, 0);
        loop_run(t.loop);
        assert_int_equal(t.n_done, 0);
        assert_int_equal(t.n_exits, 1);

        assert_int_equal(keeper_link_reserve(t.link, 1,
                                             "a name that is as long as the field, so that its NUL has no room..", 0,
                                             NULL, NULL, NULL),
                         -EINVAL);
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -ENOMEM);
        seam_fail(SEAM_FCNTL, 1, EMFILE);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -EMFILE);
        link_end(&t);
}

static void test_link_ends(void **state) {
        static const char bytes[sizeof(KeeperMessage) + 1] = { 1 };

        (void) state;
        for (int way = 0; way < 6; way++) {
                int level = log_get_level();
                LinkTest t;

                link_begin(&t);
                log_set_level(-1);
                if (way == 0)
                        t.keeper = fd_close(t.keeper);
                else if (way == 1)
                        link_say(&t, KEEPER_DONE, 9, 0); /* to what? */
                else if (way == 2)
                        link_say(&t, KEEPER_BORN, 0, 0);
                else if (way == 3)
                        link_say(&t, _KEEPER_TYPE_N, 0, 0);
                else
                        assert_true(cmsg_send(t.keeper, bytes, sizeof(bytes) - (way == 4 ? 0 : 9), NULL, 0) > 0);
                loop_run(t.loop);
                log_set_level(level);
                assert_int_equal(t.n_closed, 1);
                assert_int_equal(keeper_link_ack(t.link, 1), -EPIPE);
                assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -EPIPE);
                link_end(&t);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_link_window),
                TEST(test_link_full),
                TEST(test_link_retry),
                TEST(test_link_ends),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

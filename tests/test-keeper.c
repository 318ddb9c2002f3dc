/* SPDX-License-Identifier: Apache-2.0 */

/* What a supervisor asks of the keeper, how it is answered, and what it is told of its runners. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "supervisor/keeper-link.h"
#include "tests/keeper-fixture.h"

enum { QUICK = 1000, UNREAD = 300 };

static int scenario_life(void) {
        KeeperMessage exit;
        int fds[2];

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, fds[0]) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, fds[0]) == -EEXIST);
        CHECK(ask_put(2, KEEPER_FD_LOG, 1, fds[0]) == -ENOENT);
        CHECK(ask_put(1, 99, 1, fds[0]) == -EINVAL);
        fds[0] = fd_close(fds[0]);
        CHECK(pipe_held(fds[1]));
        CHECK(tell_about(KEEPER_ACK, 1) == 0); /* too early: without effect */
        SpawnResult result;
        CHECK(run_runner(1, "exit 7", -1, &result) == 0);
        CHECK(wait_exit(1, &exit) == 1);
        CHECK(exit.pid == result.pid && exit.wait_code == CLD_EXITED && exit.wait_status == 7);
        CHECK(strcmp(exit.name, "a") == 0);
        CHECK(ask_signal(1, SIGTERM) == -ESRCH);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 2) == -ENOENT);
        CHECK(pipe_held(fds[1]));
        CHECK(tell_about(KEEPER_ACK, 1) == 0);
        CHECK(pipe_ended(fds[1]));
        CHECK(ask_signal(1, SIGTERM) == -ENOENT);
        return shut_down(5);
}

static int scenario_started_with(void) {
        uint64_t open = 0;
        int sig = 0;

        for (int fd = 0; fd < 64; fd++)
                open |= (uint64_t) test_is_open(fd) << fd;
        CHECK((open & ~(0xffc0ull)) == 0x3f); /* 0-5, and what spawn_reserve() filled */
        CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGKILL);
        CHECK(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
        return shut_down(0);
}

static int scenario_names(void) {
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_reserve(1, "b", 0) == -EEXIST);
        CHECK(ask_reserve(2, "a", 0) == 0);
        CHECK(ask_reserve(3, "a", 0) == -EBUSY);
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(ask_reserve(3, "a", 0) == 0);
        return shut_down(5);
}

static int scenario_refused(void) {
        KeeperMessage exit;

        CHECK(ask_reserve(1, "", 0) == -EINVAL);
        CHECK(run_refused(1) == 0);
        CHECK(run_refused(2) == 0); /* never asked for */
        CHECK(start_runner(3, "a", 0, "sleep 1000", -1) == 0);
        CHECK(run_refused(3) == 0);         /* twice */
        CHECK(ask_signal(3, SIGTERM) == 0); /* the first one lives */
        CHECK(wait_exit(3, &exit) == 1 && exit.wait_code == CLD_KILLED && exit.wait_status == SIGTERM);
        CHECK(exits_received() == 1);
        return shut_down(5);
}

/* A cancelled instance does not live, and nobody hears of it any more. */
static int scenario_cancel(void) {
        KeeperMessage exit;
        SpawnResult result;

        CHECK(ask_reserve(1, "a", 0) == 0 && ask_reserve(2, "a", 0) == 0);
        CHECK(try_runner(1, "sleep 1000", -1, &result) == 0);
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(test_readable(result.pidfd));
        fd_close(result.pidfd);
        CHECK(run_runner(2, "exit 2", -1, &result) == 0);
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_status == 2);
        CHECK(tell_about(KEEPER_CANCEL, 2) == 0);
        CHECK(ask_reserve(3, "a", 0) == 0 && ask_reserve(4, "a", 0) == 0);
        CHECK(exits_received() == 1);
        fd_close(result.pidfd);
        return shut_down(5);
}

static int scenario_drop(void) {
        int a[2], b[2];

        CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LANE, 0, a[0]) == 0 && ask_put(1, KEEPER_FD_LISTENER, 0, b[0]) == 0);
        fd_close(a[0]);
        fd_close(b[0]);
        CHECK(ask_drop(1, KEEPER_FD_LANE, 0) == 0);
        CHECK(pipe_ended(a[1]) && pipe_held(b[1]));
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(pipe_ended(b[1]));
        return shut_down(5);
}

static int scenario_full(void) {
        int r = 0, n = 0;

        CHECK(ask_reserve(1, "a", 0) == 0);
        for (; r == 0; n++)
                r = ask_put(1, KEEPER_FD_LOG, (uint64_t) n, STDIN_FILENO);
        CHECK(r == -EMFILE);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 0, STDIN_FILENO) == 0);
        return shut_down(5);
}

static int scenario_signal(void) {
        KeeperMessage exit;
        int fds[2];
        char byte;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(start_runner(1, "a", 0, "sleep 1000 & echo; wait", fds[1]) == 0);
        fd_close(fds[1]);
        CHECK(read(fds[0], &byte, 1) == 1);
        CHECK(ask_signal(1, 999) == -EINVAL);
        CHECK(ask_signal(1, SIGTERM) == 0);
        CHECK(wait_exit(1, &exit) == 1 && exit.wait_code == CLD_KILLED && exit.wait_status == SIGTERM);
        CHECK(pipe_ended(fds[0])); /* the sleeper too */
        return shut_down(5);
}

static int scenario_kill_group(void) {
        KeeperMessage exit;
        int a[2], b[2];

        CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
        CHECK(start_runner(1, "a", KEEPER_FLAG_KILL_GROUP, "sleep 1000 & exit 0", a[1]) == 0);
        CHECK(start_runner(2, "b", 0, "sleep 1000 & exit 0", b[1]) == 0);
        fd_close(a[1]);
        fd_close(b[1]);
        CHECK(wait_exit(1, &exit) == 1 && exit.wait_code == CLD_EXITED && exit.wait_status == 0);
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_code == CLD_EXITED && exit.wait_status == 0);
        CHECK(pipe_ended(a[0]) && pipe_held(b[0]));
        return shut_down(5);
}

/* As many as do not fit into the socket, without reading: what waits is told later, each once. */
static int scenario_unread(void) {
        KeeperMessage exit;
        SpawnResult result;
        char name[16];

        for (uint64_t i = 1; i <= UNREAD; i++) {
                (void) snprintf(name, sizeof(name), "r%llu", (unsigned long long) i);
                CHECK(ask_reserve(i, name, 0) == 0);
        }
        for (uint64_t i = 1; i <= UNREAD; i++) {
                CHECK(run_runner(i, "exit 3", -1, &result) == 0);
                CHECK(test_readable(result.pidfd));
                fd_close(result.pidfd);
        }
        for (uint64_t i = 1; i <= UNREAD; i++)
                CHECK(wait_exit(i, &exit) == 1 && exit.wait_status == 3);
        CHECK(exits_received() == UNREAD);
        return shut_down(5);
}

/* Descriptors that come with a reservation are stored with it, or the reservation does not take place. */
static int scenario_reserve_with(void) {
        KeeperMessage m = { .type = KEEPER_RESERVE, .flags = KEEPER_FLAG_LOGS, .name = "a" };
        int a[2], b[2], c[2], fds[3];

        CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0 && pipe2(c, O_CLOEXEC) == 0);
        fds[0] = a[0];
        fds[1] = b[0];
        fds[2] = c[0];
        CHECK(ask(m, fds, 2) == -EINVAL); /* instance 0 */
        m.instance = 1;
        CHECK(ask(m, fds, 1) == -EINVAL && ask(m, fds, 3) == -EINVAL && ask(m, NULL, 0) == -EINVAL);
        m.flags = 0;
        CHECK(ask(m, fds, 1) == -EINVAL);
        m.fd_kind = KEEPER_FD_CONTROL;
        CHECK(ask(m, fds, 1) == -EINVAL); /* nobody's to store */
        m.fd_kind = _KEEPER_FD_KIND_N;
        CHECK(ask(m, fds, 1) == -EINVAL);
        m.flags = KEEPER_FLAG_LOGS;
        CHECK(ask(m, fds, 3) == -EINVAL); /* the third is refused: those before are closed again */
        m.fd_kind = KEEPER_FD_LOG;
        m.fd_tag = 2;
        CHECK(ask(m, fds, 3) == -EEXIST);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 1) == -ENOENT);
        m.fd_kind = KEEPER_FD_LISTENER;
        m.fd_tag = 1;
        CHECK(ask(m, fds, 3) == 0);
        fd_close_all(fds, 3);
        CHECK(pipe_held(a[1]) && pipe_held(b[1]) && pipe_held(c[1]));
        CHECK(ask_drop(1, KEEPER_FD_LOG, 1) == 0 && pipe_ended(a[1]));
        CHECK(ask_drop(1, KEEPER_FD_LISTENER, 1) == 0 && pipe_ended(c[1]) && pipe_held(b[1]));
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0 && pipe_ended(b[1]));
        return shut_down(5);
}

static int scenario_greedy(void) {
        while (tell((KeeperMessage){ .type = KEEPER_DROP, .serial = 1, .instance = 1 }, NULL, 0) == 0 ||
               errno == EAGAIN)
                ;
        return 98;
}

static int scenario_malformed(void) {
        KeeperMessage long_message[2] = { { .version = KEEPER_VERSION, .type = KEEPER_SHUTDOWN, .result = 77 } };
        int fds[2], both[2];

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        both[0] = both[1] = fds[0];
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(send(KEEPER_SOCKET_FD, long_message, 10, 0) == 10);
        CHECK(send(KEEPER_SOCKET_FD, long_message, sizeof(long_message), 0) == sizeof(long_message));
        CHECK(cmsg_send(KEEPER_SOCKET_FD, long_message, sizeof(KeeperMessage) + 1, fds, 1) > 0);
        CHECK(ask((KeeperMessage){ .version = 99, .type = KEEPER_RESERVE, .instance = 2 }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_NONE }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = _KEEPER_TYPE_N }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = 65535 }, fds, 1) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_PUT, .instance = 1, .fd_kind = 1 }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_PUT, .instance = 1, .fd_kind = 1 }, both, 2) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_DROP, .instance = 1, .fd_kind = 1 }, fds, 1) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_DONE }, NULL, 0) == -EOPNOTSUPP);
        CHECK(ask((KeeperMessage){ .type = KEEPER_READY }, NULL, 0) == -EOPNOTSUPP);
        CHECK(tell_about(KEEPER_ACTIVE, 1) == 0);
        CHECK(tell_about(KEEPER_STARTED, 1) == 0); /* not born */
        CHECK(tell_about(KEEPER_STARTED, 7) == 0 && tell_about(KEEPER_ACK, 7) == 0 &&
              tell_about(KEEPER_CANCEL, 7) == 0);
        fd_close(fds[0]);
        CHECK(pipe_ended(fds[1]));                       /* not one of those descriptors was kept */
        CHECK(ask_drop(1, KEEPER_FD_LOG, 1) == -ENOENT); /* and the keeper goes on */
        return shut_down(5);
}

/* --- 1,000 that exit at once, every other one before it executed anything; through link and loop */

static struct {
        Loop *loop;
        KeeperLink *link;
        unsigned n_started, n_done, n_exits;
        uint8_t exits[QUICK + 1];
        bool waiting; /* the last one was not spawned yet */
        bool wrong;
} quick;

static void quick_start(void) {
        char path[] = "/bin/true", nothing[] = "/nowhere/true", *argv[] = { path, NULL };
        SpawnParameters p = SPAWN_PARAMETERS_NULL;
        SpawnResult result;

        p.path = quick.n_started % 2 ? nothing : path;
        p.argv = argv;
        p.envp = environ;
        p.instance = quick.n_started;
        quick.wrong |= spawn(&p, &result) != (quick.n_started % 2 ? -ENOENT : 0) || !result.born;
        quick.wrong |= keeper_link_spawned(quick.link, p.instance, &result) < 0;
        fd_close(result.pidfd);
}

static void quick_done(KeeperLink *link, int result, void *userdata) {
        (void) link;
        (void) userdata;
        quick.wrong |= result != 0;
        quick.n_done++;
}

/* quick_next() - reservations go out until the link is busy; idle comes back here. */
static void quick_next(KeeperLink *link, void *userdata) {
        static const int logs[2] = { STDIN_FILENO, STDOUT_FILENO };
        char name[16];
        KeeperReservation reservation = { .name = name, .logs = logs };

        (void) userdata;
        while (keeper_link_idle(link) && quick.n_started < QUICK) {
                (void) snprintf(name, sizeof(name), "q%u", ++quick.n_started);
                reservation.instance = quick.n_started;
                quick.wrong |= keeper_link_reserve(link, &reservation, quick_done, &quick) < 0;
                quick.wrong |= keeper_link_put(link, quick.n_started, KEEPER_FD_LANE, 1, STDIN_FILENO, quick_done,
                                               &quick) < 0;
                quick.waiting = !keeper_link_idle(link); /* then it is spawned when it is */
                if (!quick.waiting)
                        quick_start();
        }
}

static void quick_idle(KeeperLink *link, void *userdata) {
        if (quick.waiting)
                quick_start();
        quick.waiting = false;
        quick_next(link, userdata);
}

static void quick_exited(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        int status = exit->instance % 2 ? 127 : 0;

        (void) userdata;
        quick.wrong |= exit->instance > quick.n_started || quick.exits[exit->instance]++ > 0;
        quick.wrong |= exit->code != CLD_EXITED || exit->status != status;
        quick.wrong |= keeper_link_ack(link, exit->instance) < 0;
        if (++quick.n_exits == QUICK)
                loop_stop(quick.loop);
}

static void quick_closed(KeeperLink *link, void *userdata) {
        (void) link;
        (void) userdata;
        quick.wrong = true;
        loop_stop(quick.loop);
}

static int scenario_quick(void) {
        static const KeeperLinkHandlers handlers = { quick_exited, quick_idle, quick_closed };

        CHECK(loop_new(&quick.loop) == 0);
        CHECK(keeper_link_new(&quick.link, quick.loop, KEEPER_SOCKET_FD, &handlers, NULL) == 0);
        quick_next(quick.link, NULL);
        loop_run(quick.loop);
        CHECK(!quick.wrong && quick.n_exits == QUICK && quick.n_done == 2 * QUICK);
        CHECK(keeper_link_shutdown(quick.link, 5) == 0 && keeper_link_idle(quick.link));
        loop_run(quick.loop); /* the keeper kills us */
        return 98;
}

/* ---------------------------------------------------------------------------------------------------------- tests */

TEST_FIVE(life);
TEST_FIVE(names);
TEST_FIVE(refused);
TEST_FIVE(cancel);
TEST_FIVE(drop);
TEST_FIVE(signal);
TEST_FIVE(kill_group);
TEST_FIVE(unread);
TEST_FIVE(reserve_with);
TEST_FIVE(quick);

static void test_started_with(void **state) {
        (void) state;
        assert_int_equal(perform("started_with", (Play){ 0 }).status, 0);
}

static void test_full(void **state) {
        (void) state;
        assert_int_equal(perform("full", (Play){ .nofile = 96 }).status, 5);
}

/* The program itself, static as it is; more of it in test-keeper-end. */
static void test_program(void **state) {
        (void) state;
        skip_unless_built();
        assert_int_equal(perform("life", (Play){ .program = keeper_built }).status, 5);
}

static void test_malformed(void **state) {
        Outcome outcome = perform("malformed", (Play){ 0 });

        (void) state;
        assert_int_equal(outcome.status, 5);
        assert_log(outcome, "PUT (type 2) from pid");
        assert_log(outcome, "STARTED for instance 7");
}

static void test_greedy(void **state) {
        Outcome outcome = perform("greedy", (Play){ 0 });

        (void) state;
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "more than 64 unanswered requests");
}

int main(int argc, char **argv) {
        static const Scenario scenarios[] = {
                SCENARIO(life),   SCENARIO(started_with), SCENARIO(names),  SCENARIO(refused),      SCENARIO(cancel),
                SCENARIO(drop),   SCENARIO(full),         SCENARIO(signal), SCENARIO(kill_group),   SCENARIO(unread),
                SCENARIO(greedy), SCENARIO(malformed),    SCENARIO(quick),  SCENARIO(reserve_with),
        };
        const struct CMUnitTest tests[] = {
                TEST(test_life),           TEST(test_started_with),
                TEST(test_names),          TEST(test_refused),
                TEST(test_cancel),         TEST(test_drop),
                TEST(test_full),           TEST(test_signal),
                TEST(test_kill_group),     TEST_SLOW(test_unread, 30),
                TEST_SLOW(test_quick, 30), TEST(test_malformed),
                TEST(test_greedy),         TEST(test_program),
                TEST(test_reserve_with),
        };
        const KeeperTest test = { scenarios, ARRAY_SIZE(scenarios), tests, ARRAY_SIZE(tests) };

        return keeper_test_main(argc, argv, &test);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* How the keeper's tree ends: by order, with its supervisor, with its client, with the keeper itself; or never begins. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/keeper-fixture.h"

/* leave_some() - a runner, and a process that left its runner's group and session and lost its parent. */
static int leave_some(void) {
        KeeperMessage exit;
        int fds[2];
        char byte;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(start_runner(1, "a", 0, "trap '' TERM; sleep 1000 & sleep 1000", -1) == 0);
        CHECK(start_runner(2, "b", KEEPER_FLAG_KILL_GROUP, "setsid sh -c 'echo; sleep 1000; sleep 1000' & sleep 1000",
                           fds[1]) == 0);
        fd_close(fds[1]);
        CHECK(read(fds[0], &byte, 1) == 1);
        CHECK(ask_signal(2, SIGTERM) == 0);
        CHECK(wait_exit(2, &exit) == 1);
        CHECK(pipe_held(fds[0]));
        return 0;
}

static int scenario_shutdown(void) {
        CHECK(leave_some() == 0);
        return shut_down(5);
}

static int scenario_killed(void) {
        CHECK(leave_some() == 0);
        (void) kill(getpid(), SIGKILL);
        return 98;
}

static int scenario_exits(void) {
        CHECK(leave_some() == 0);
        return 4;
}

static int scenario_closes(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(leave_some() == 0);
        fd_close(KEEPER_SOCKET_FD);
        (void) poll(&forever, 1, -1);
        return 98;
}

/* Until the keeper asks us to stop by SIGTERM, because of @how. */
static int until_told(int (*how)(void)) {
        sigset_t signals;
        int number;

        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &signals, NULL);
        CHECK(leave_some() == 0);
        CHECK(how() == 0);
        CHECK(sigwait(&signals, &number) == 0 && number == SIGTERM);
        return 0;
}

static int hang_up(void) {
        return say_byte('H');
}

static int signal_keeper(void) {
        return kill(getppid(), SIGTERM);
}

static int scenario_hang_up(void) {
        KeeperMessage exit;

        CHECK(until_told(hang_up) == 0);
        CHECK(ask_signal(1, SIGKILL) == 0);
        CHECK(wait_exit(1, &exit) == 1);
        return shut_down(3);
}

static int scenario_term(void) {
        CHECK(until_told(signal_keeper) == 0);
        return 6;
}

static int scenario_stubborn(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(until_told(hang_up) == 0);
        (void) poll(&forever, 1, -1);
        return 98;
}

static int scenario_kill_keeper(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
        CHECK(kill(getppid(), SIGKILL) == 0);
        (void) poll(&forever, 1, -1);
        return 98;
}

/* ---------------------------------------------------------------------------------------------------------- tests */

/* Orphans in sessions of their own go too, however they are found. */
static void test_shutdown(void **state) {
        (void) state;
        expect_five("shutdown");
        (void) setenv("BATON_DISABLE", "children-file", 1);
        expect_five("shutdown");
        (void) unsetenv("BATON_DISABLE");
}

static void test_supervisor_dies(void **state) {
        Outcome outcome;

        (void) state;
        outcome = perform("killed", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "was killed by signal 9 SIGKILL; runners killed with it: 1\n");
        outcome = perform("exits", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "exited with status 4; runners killed with it: 1\n");
        outcome = perform("closes", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "was killed by signal 9 SIGKILL; runners killed with it: 1\n");
}

static void test_stop(void **state) {
        Outcome outcome;

        (void) state;
        assert_int_equal(perform("hang_up", (Play){ 0 }).status, 3);
        assert_int_equal(perform("term", (Play){ 0 }).status, 6);
        outcome = perform("stubborn", (Play){ .stop_timeout_us = 20000 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "did not stop in time");
}

static void test_keeper_dies(void **state) {
        Outcome outcome = perform("kill_keeper", (Play){ 0 });
        unsigned n = 0;
        int status;

        (void) state;
        assert_int_equal(outcome.status, -SIGKILL);
        while (waitpid(-1, &status, 0) > 0) { /* supervisor and runner, now ours */
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                n++;
        }
        assert_int_equal(n, 2);
}

/* The program itself, static as it is, from its arguments to its end. */
static void test_program(void **state) {
        Outcome outcome;

        (void) state;
        skip_unless_built();
        assert_int_equal(perform("shutdown", (Play){ .program = keeper_built }).status, 5);
        assert_int_equal(perform("hang_up", (Play){ .program = keeper_built }).status, 3);
        outcome = perform("killed", (Play){ .program = keeper_built });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "baton-keeper: error: supervisor (pid ");
}

static void test_no_supervisor(void **state) {
        char path[128];
        Outcome outcome;

        (void) state;
        (void) setenv("BATON_LIBEXEC", "/nowhere", 1);
        outcome = perform("none", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome,
                   "cannot start the supervisor: open(/nowhere/baton-supervisor): No such file or directory\n");

        (void) snprintf(path, sizeof(path), "%s/sub", keeper_libexec);
        assert_int_equal(mkdir(path, 0700), 0);
        (void) setenv("BATON_LIBEXEC", path, 1);
        (void) snprintf(path, sizeof(path), "%s/sub/baton-supervisor", keeper_libexec);
        assert_int_equal(mkdir(path, 0700), 0); /* not a program */
        outcome = perform("none", (Play){ 0 });
        (void) rmdir(path);
        *strrchr(path, '/') = '\0';
        (void) rmdir(path);
        (void) setenv("BATON_LIBEXEC", keeper_libexec, 1);
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "cannot start the supervisor: exec: Permission denied\n");
}

int main(int argc, char **argv) {
        static const Scenario scenarios[] = {
                SCENARIO(shutdown), SCENARIO(killed), SCENARIO(exits),    SCENARIO(closes),
                SCENARIO(hang_up),  SCENARIO(term),   SCENARIO(stubborn), SCENARIO(kill_keeper),
        };
        const struct CMUnitTest tests[] = {
                TEST(test_shutdown),    TEST(test_supervisor_dies), TEST(test_stop),
                TEST(test_keeper_dies), TEST(test_no_supervisor),   TEST(test_program),
        };
        const KeeperTest test = { scenarios, ARRAY_SIZE(scenarios), tests, ARRAY_SIZE(tests) };

        return keeper_test_main(argc, argv, &test);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Covers tests/test.h: what it says would fail a test does so. Each case runs a group of one test in a child. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/seam.h"

static void passes(void **state) {
        (void) state;
}

static void fails(void **state) {
        (void) state;
        assert_int_equal(1, 2);
}

static void leaks(void **state) {
        (void) state;
        assert_true(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

static void closes_anothers(void **state) {
        (void) state;
        fd_close(STDIN_FILENO);
}

/* wait_for_parent() - ends with its parent only. */
static int wait_for_parent(void *argument) {
        const pid_t *parent = argument;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                return 77;
        while (getppid() == *parent)
                (void) pause();
        return 0;
}

static int end_at_once(void *argument) {
        (void) argument;
        return 0;
}

static void leaves_a_child(void **state) {
        pid_t self = getpid();

        (void) state;
        (void) test_child(wait_for_parent, &self);
}

static void leaves_a_zombie(void **state) {
        (void) state;
        (void) test_child(end_at_once, NULL);
}

static void never_ends(void **state) {
        (void) state;
        for (;;)
                (void) pause();
}

static void forgets_the_seam(void **state) {
        (void) state;
        seam_fail_always(SEAM_OPEN, EMFILE);
}

typedef struct Group {
        const struct CMUnitTest *tests;
        size_t n;
        int output;
} Group;

/* run_group() - in the child: the group's output goes to the parent. */
static int run_group(void *argument) {
        const Group *group = argument;

        if (dup2(group->output, STDOUT_FILENO) < 0 || dup2(group->output, STDERR_FILENO) < 0 ||
            setenv("BATON_TEST_TIME_FACTOR", "1", 1) < 0)
                return 77;
        return test_run(group->tests, group->n);
}

/* check_group() - the group's status, and a word of its output. */
static void check_group(const struct CMUnitTest *tests, size_t n, int status, const char *word) {
        char text[8192];
        size_t length = 0;
        int pipes[2];
        ssize_t r;
        pid_t pid;

        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        pid = test_child(run_group, &(Group){ tests, n, pipes[1] });
        pipes[1] = fd_close(pipes[1]);
        assert_int_equal(test_child_wait(pid), status);
        /* A child of the child may still hold the pipe: what is there is read, not its end. */
        assert_int_equal(fcntl(pipes[0], F_SETFL, O_NONBLOCK), 0);
        while (length + 1 < sizeof(text) && (r = read(pipes[0], text + length, sizeof(text) - 1 - length)) > 0)
                length += (size_t) r;
        text[length] = '\0';
        if (!strstr(text, word))
                fail_msg("\"%s\" is not in: %s", word, text);
        fd_close(pipes[0]);
}

#define CHECK_GROUP(_test, _status, _word)                               \
        do {                                                             \
                const struct CMUnitTest _group[] = { _test };            \
                check_group(_group, ARRAY_SIZE(_group), _status, _word); \
        } while (0)

static void test_good(void **state) {
        (void) state;
        CHECK_GROUP(TEST(passes), EXIT_SUCCESS, "ok 1 - passes");
}

static void test_bad(void **state) {
        (void) state;
        CHECK_GROUP(TEST(fails), EXIT_FAILURE, "not ok 1 - fails");
}

static void test_descriptor_left(void **state) {
        (void) state;
        CHECK_GROUP(TEST(leaks), EXIT_FAILURE, "-> /dev/null");
}

static void test_descriptor_gone(void **state) {
        (void) state;
        CHECK_GROUP(TEST(closes_anothers), EXIT_FAILURE, "descriptors before");
}

static void test_child_left(void **state) {
        (void) state;
        CHECK_GROUP(TEST(leaves_a_child), EXIT_FAILURE, "a child was not waited for");
}

static void test_zombie_left(void **state) {
        (void) state;
        CHECK_GROUP(TEST(leaves_a_zombie), EXIT_FAILURE, "a child was not waited for");
}

static void test_too_long(void **state) {
        (void) state;
        CHECK_GROUP(TEST_SLOW(never_ends, 1), 99, "never_ends did not end within 1 s");
}

/* The seam is reset between tests: the second, which opens a file, passes. */
static void opens(void **state) {
        _cleanup_fd_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void) state;
        assert_true(fd >= 0);
}

static void test_seam_is_reset(void **state) {
        const struct CMUnitTest group[] = { TEST(forgets_the_seam), TEST(opens) };

        (void) state;
        check_group(group, ARRAY_SIZE(group), EXIT_SUCCESS, "ok 2 - opens");
}

static const struct CMUnitTest tests[] = {
        TEST(test_good),       TEST(test_bad),         TEST(test_descriptor_left), TEST(test_descriptor_gone),
        TEST(test_child_left), TEST(test_zombie_left), TEST(test_too_long),        TEST(test_seam_is_reset),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

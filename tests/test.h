#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What every unit test gets, whether it asks or not. A test is listed as TEST(function); around each one
 * - the seam is reset, before and after;
 * - the open descriptors are counted, and a difference fails the test, naming what is left;
 * - a child that was not waited for fails it;
 * - an alarm ends it after TEST_SECONDS, with its name (TEST_SLOW(function, seconds) for another limit).
 *
 * static const struct CMUnitTest tests[] = { TEST(test_one), TEST(test_two) };
 * int main(void) {
 *         return test_run(tests, ARRAY_SIZE(tests));
 * }
 *
 * In a child, no assert may fail: cmocka would jump back into the copy and go on with the remaining tests. test_child()
 * ends with _exit(). A program has one test_run(): a second plan line is not TAP.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "common/macro.h"

#define TEST_SECONDS 10

/* One test's frame; what a test receives as *state. */
typedef struct TestFrame {
        const char *name;
        unsigned seconds;
        int n_fds; /* open when it began */
} TestFrame;

#define TEST_SLOW(_function, _seconds)                                                      \
        {                                                                                   \
                .name = #_function, .test_func = _function, .setup_func = test_set_up,      \
                .teardown_func = test_tear_down,                                            \
                .initial_state = &(TestFrame){ .name = #_function, .seconds = (_seconds) }, \
        }
#define TEST(_function) TEST_SLOW(_function, TEST_SECONDS)

int test_set_up(void **state);
int test_tear_down(void **state);

/* test_run() - runs the tests; returns main()'s status. The time limits grow under valgrind and sanitizers. */
int test_run(const struct CMUnitTest *tests, size_t n);

/* test_child() - forks a child that runs @function(@argument) and exits with its result (0-255). Returns its pid. */
pid_t test_child(int (*function)(void *), void *argument);

/* test_child_wait() - waits for @pid. Returns its exit status, or minus the signal that ended it. */
int test_child_wait(pid_t pid);

/* test_same_file() - whether two descriptors are of the same open file (not merely of the same inode). */
bool test_same_file(int a, int b);

/* test_is_open() - whether the number is an open descriptor of this process. */
bool test_is_open(int fd);

/* test_limit_fds() - lowers the soft RLIMIT_NOFILE so that exactly @n more descriptors fit; returns the limit before. */
unsigned long test_limit_fds(unsigned n);

/* test_restore_fds() - sets the soft RLIMIT_NOFILE back. */
void test_restore_fds(unsigned long limit);

/* test_time_factor() - what limits of time are multiplied with: $BATON_TEST_TIME_FACTOR, at least 1. */
unsigned test_time_factor(void);

/* test_readable() - whether @fd has something to read, or its end, within a second, times the factor: never a sleep. */
bool test_readable(int fd);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Around every test: seam, descriptors, children, time. A failure found after the test is printed as a diagnostic line of
 * TAP and given to cmocka as a failed tear-down, which fails the test.
 */

#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/seam.h"

#ifndef __WALL
#define __WALL 0x40000000
#endif

static const TestFrame *current;

static void on_alarm(int number) {
        char line[200];
        int n = snprintf(line, sizeof(line), "\nBail out! %s did not end within %u s\n", current->name,
                         current->seconds);

        (void) number;
        if (write(STDOUT_FILENO, line, (size_t) n) < 0)
                _exit(98);
        _exit(99);
}

/* print_descriptors() - what is open now, for the one who must find the leak. */
static void print_descriptors(void) {
        DIR *dir = opendir("/proc/self/fd");
        struct dirent *entry;

        while (dir && (entry = readdir(dir))) {
                char target[256];
                ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

                if (n > 0 && atoi(entry->d_name) != dirfd(dir))
                        printf("#   %s -> %.*s\n", entry->d_name, (int) n, target);
        }
        if (dir)
                closedir(dir);
}

unsigned test_time_factor(void) {
        const char *text = getenv("BATON_TEST_TIME_FACTOR");
        int factor = text ? atoi(text) : 1;

        return factor > 1 ? (unsigned) factor : 1;
}

int test_set_up(void **state) {
        TestFrame *frame = *state;

        seam_reset();
        current = frame;
        frame->n_fds = fd_count();
        (void) signal(SIGALRM, on_alarm);
        (void) alarm(frame->seconds * test_time_factor());
        return 0;
}

int test_tear_down(void **state) {
        TestFrame *frame = *state;
        int n_fds, r = 0;
        pid_t child;

        (void) alarm(0);
        seam_reset();
        n_fds = fd_count();
        if (n_fds != frame->n_fds) {
                printf("# %s: %d descriptors before, %d after:\n", frame->name, frame->n_fds, n_fds);
                print_descriptors();
                r = -1;
        }
        child = waitpid(-1, NULL, WNOHANG | __WALL);
        if (child >= 0) {
                printf("# %s: a child was not waited for (%s)\n", frame->name,
                       child ? "it has ended" : "it still runs");
                r = -1;
        }
        (void) fflush(stdout);
        return r;
}

int test_run(const struct CMUnitTest *tests, size_t n) {
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        return _cmocka_run_group_tests("tests", tests, n, NULL, NULL) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

pid_t test_child(int (*function)(void *), void *argument) {
        pid_t pid;

        (void) fflush(NULL);
        pid = fork();
        if (pid == 0)
                _exit(function(argument));
        assert_true(pid > 0);
        return pid;
}

int test_child_wait(pid_t pid) {
        int status;
        pid_t r;

        do
                r = waitpid(pid, &status, __WALL);
        while (r < 0 && errno == EINTR);
        assert_int_equal(r, pid);
        return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

bool test_same_file(int a, int b) {
        return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b) == 0;
}

bool test_is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

unsigned long test_limit_fds(unsigned n) {
        struct rlimit limit;
        unsigned long before;
        rlim_t next = 0;

        /* The limit is on numbers: the n-th free one must be the last below it. */
        for (unsigned free_seen = 0; free_seen < n; next++)
                free_seen += !test_is_open((int) next);
        while (test_is_open((int) next))
                next++;
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        before = limit.rlim_cur;
        limit.rlim_cur = next;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        return before;
}

void test_restore_fds(unsigned long limit) {
        struct rlimit now;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
        now.rlim_cur = limit;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
}

bool test_readable(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        return poll(&p, 1, 1000 * (int) test_time_factor()) == 1;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Covers tests/seam itself: a tool that fails nothing would prove everything. Every function it names is called here. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "tests/seam.h"

static int child(void *argument) {
        (void) argument;
        return 0;
}

/*
 * call() - calls the function with arguments that fail by themselves, but not with EXFULL, where that can be had. Whether
 * it failed. One case for each function of the seam, so that the compiler tells of a missing one: hence its length.
 */
static bool call(SeamCall which) {
        struct msghdr message = { 0 };
        struct timespec now = { 0, 0 };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        static char stack[16384] __attribute__((aligned(16)));
        char path[] = "/nonexistent/XXXXXX", *none[] = { NULL };
        struct pollfd nothing = { .fd = -1 };
        void *volatile null = NULL; /* the compiler would make it malloc() */
        int fds[2];
        void *p;

        switch (which) {
        case SEAM_SOCKET:
                return socket(-1, 0, 0) < 0;
        case SEAM_SOCKETPAIR:
                return socketpair(-1, 0, 0, fds) < 0;
        case SEAM_BIND:
                return bind(-1, (struct sockaddr *) &address, sizeof(address)) < 0;
        case SEAM_LISTEN:
                return listen(-1, 1) < 0;
        case SEAM_ACCEPT4:
                return accept4(-1, NULL, NULL, 0) < 0;
        case SEAM_CONNECT:
                return connect(-1, (struct sockaddr *) &address, sizeof(address)) < 0;
        case SEAM_SENDMSG:
                return sendmsg(-1, &message, 0) < 0;
        case SEAM_RECVMSG:
                return recvmsg(-1, &message, 0) < 0;
        case SEAM_CLONE:
                return clone(child, stack + sizeof(stack), CLONE_THREAD | SIGCHLD, NULL) < 0;
        case SEAM_EXECVE:
                return execve(path, none, none) < 0;
        case SEAM_MKDTEMP:
                return !mkdtemp(path);
        case SEAM_MKDIR:
                return mkdir(path, 0700) < 0;
        case SEAM_OPEN:
                return open(path, O_RDONLY) < 0;
        case SEAM_OPENAT:
                return openat(AT_FDCWD, path, O_RDONLY) < 0;
        case SEAM_PIPE2:
                return pipe2(fds, -1) < 0;
        case SEAM_EPOLL_CREATE1:
                return epoll_create1(-1) < 0;
        case SEAM_EPOLL_CTL:
                return epoll_ctl(-1, EPOLL_CTL_DEL, -1, NULL) < 0;
        case SEAM_EVENTFD:
                return eventfd(0, -1) < 0;
        case SEAM_TIMERFD_CREATE:
                return timerfd_create(-1, -1) < 0;
        case SEAM_MEMFD_CREATE:
                return memfd_create("", ~0u) < 0;
        case SEAM_FTRUNCATE:
                return ftruncate(-1, 0) < 0;
        case SEAM_MMAP:
                return mmap(NULL, 0, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED;
        case SEAM_MALLOC:
                p = malloc(1);
                break;
        case SEAM_CALLOC:
                p = calloc(1, 1);
                break;
        case SEAM_REALLOC:
                p = realloc(null, 1);
                break;
        case SEAM_FCNTL:
                return fcntl(-1, F_GETFD) < 0;
        case SEAM_DUP2:
                return dup2(-1, -1) < 0;
        case SEAM_DUP3:
                return dup3(-1, -1, 0) < 0;
        case SEAM_CLOSE_RANGE:
                return close_range(1, 0, 0) < 0;
        case SEAM_WAITID:
                return waitid(P_ALL, 0, NULL, 0) < 0;
        case SEAM_POLL:
                return poll(&nothing, 0, 0) < 0;
        case SEAM_PPOLL:
                return ppoll(&nothing, 0, &now, NULL) < 0;
        case SEAM_CLOCK_GETTIME:
                return clock_gettime(-1, &now) < 0;
        case SEAM_READ:
                return read(-1, fds, sizeof(fds)) < 0;
        case _SEAM_CALL_N:
        default:
                fail();
                return false;
        }
        if (p) {
                free(p);
                return false;
        }
        return true;
}

static void test_every_call(void **state) {
        (void) state;
        for (unsigned i = 0; i < _SEAM_CALL_N; i++) {
                SeamCall which = (SeamCall) i;
                bool succeeds =
                        i == SEAM_MALLOC || i == SEAM_CALLOC || i == SEAM_REALLOC || i == SEAM_POLL || i == SEAM_PPOLL;

                seam_fail(which, 2, EXFULL);
                for (unsigned k = 1; k <= 3; k++) {
                        bool failed;

                        errno = 0;
                        failed = call(which);
                        if (seam_count(which) != k || seam_hits(which) != (k >= 2) || (k == 2) != (errno == EXFULL) ||
                            failed != (!succeeds || k == 2))
                                fail_msg("%s, call %u: counted %u, hits %u, failed %d: %s", seam_name(which), k,
                                         seam_count(which), seam_hits(which), failed, strerror(errno));
                }
        }
}

static void test_modes(void **state) {
        (void) state;
        seam_fail_from(SEAM_DUP2, 2, EXFULL);
        assert_int_equal(dup2(0, 0), 0);
        assert_int_equal(dup2(0, 0), -1);
        assert_int_equal(dup2(0, 0), -1);
        seam_pass(SEAM_DUP2);
        assert_int_equal(dup2(0, 0), 0);
        assert_int_equal(seam_count(SEAM_DUP2), 4);
        assert_int_equal(seam_hits(SEAM_DUP2), 2);
        seam_fail_always(SEAM_DUP2, EXFULL);
        assert_int_equal(dup2(0, 0), -1);
        seam_reset();
        assert_int_equal(dup2(0, 0), 0);
        assert_int_equal(seam_count(SEAM_DUP2), 1);
        assert_int_equal(seam_hits(SEAM_DUP2), 0);
}

/* The optional arguments arrive. */
static void test_varargs(void **state) {
        char path[] = "/tmp/baton-seam-XXXXXX", file[64];
        struct stat status;
        mode_t mask = umask(0);
        int dir, fd;

        (void) state;
        assert_non_null(mkdtemp(path));
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        (void) snprintf(file, sizeof(file), "%s/file", path);
        fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0610);
        assert_int_equal(fstat(fd, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0610);
        assert_int_equal(unlink(file), 0);
        fd = fd_close(fd);
        fd = openat(dir, "file", O_CREAT | O_RDWR | O_CLOEXEC, 0601);
        assert_int_equal(fstat(fd, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0601);
        assert_int_equal(unlinkat(dir, "file", 0), 0);
        fd = fd_close(fd);
        fd = fcntl(dir, F_DUPFD_CLOEXEC, 50);
        assert_true(fd >= 50);
        fd_close(fd);
        fd_close(dir);
        assert_int_equal(rmdir(path), 0);
        (void) umask(mask);
}

static int child_seven(void *argument) {
        *(int *) argument = 7;
        return 7;
}

static void test_clone(void **state) {
        static char stack[65536] __attribute__((aligned(16)));
        int shared = 0, pidfd = -1, pid;

        (void) state;
        pid = clone(child_seven, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &shared,
                    &pidfd);
        assert_true(pid > 0);
        assert_true(pidfd >= 0);
        assert_int_equal(test_child_wait(pid), 7);
        assert_int_equal(shared, 7);
        fd_close(pidfd);
}

static void test_bytes(void **state) {
        int fds[2];
        char text[16] = "";

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        seam_limit_bytes(SEAM_SENDMSG, 3);
        assert_int_equal(cmsg_send(fds[0], "abcdefgh", 8, NULL, 0), 3);
        seam_limit_bytes(SEAM_SENDMSG, 0);
        assert_int_equal(cmsg_send(fds[0], "defgh", 5, NULL, 0), 5);
        seam_limit_bytes(SEAM_RECVMSG, 5);
        assert_int_equal(cmsg_read(fds[1], text, sizeof(text)), 5);
        assert_int_equal(cmsg_read(fds[1], text + 5, sizeof(text) - 5), 3);
        assert_string_equal(text, "abcdefgh");
        fd_close_all(fds, 2);
}

static void test_clock(void **state) {
        uint64_t wall = clock_wall();

        (void) state;
        assert_true(clock_now() != 5000000);
        seam_clock_set(5000000);
        assert_int_equal(clock_now(), 5000000);
        seam_clock_advance(1234567);
        assert_int_equal(clock_now(), 6234567);
        assert_true(clock_wall() >= wall);
        seam_reset();
        assert_true(clock_now() != 6234567);
}

/* Needs three descriptors; undoes everything. */
static int open_three(void *argument) {
        unsigned *runs = argument;
        int fds[3] = { -1, -1, -1 }, r = 0;

        (*runs)++;
        for (size_t i = 0; r == 0 && i < 3; i++) {
                fds[i] = eventfd(0, EFD_CLOEXEC);
                if (fds[i] < 0)
                        r = -errno;
        }
        fd_close_all(fds, 3);
        return r;
}

/* Wants one descriptor and manages without. */
static int open_perhaps(void *argument) {
        unsigned *runs = argument;
        int fd = eventfd(0, EFD_CLOEXEC);

        (*runs)++;
        fd_close(fd);
        return 0;
}

static void test_each(void **state) {
        unsigned runs = 0;

        (void) state;
        assert_int_equal(seam_each(SEAM_EVENTFD, EMFILE, open_three, &runs, 0), 3);
        assert_int_equal(runs, 4);
        assert_int_equal(seam_each(SEAM_EVENTFD, ENFILE, open_three, &runs, -ENFILE), 3);
        assert_int_equal(seam_each(SEAM_SOCKET, EMFILE, open_three, &runs, 0), 0);
        runs = 0;
        assert_int_equal(seam_each_tolerated(SEAM_EVENTFD, EMFILE, open_perhaps, &runs), 1);
        assert_int_equal(runs, 2);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_call), TEST(test_modes), TEST(test_varargs), TEST(test_clone),
        TEST(test_bytes),      TEST(test_clock), TEST(test_each),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

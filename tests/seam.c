/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Seam: one record per function that can be made to fail, and the wrapper that the linker puts in its place. A wrapper
 * asks seam_enter() whether this call fails; if so errno is set and the function's failure value returned, without the
 * call being made. The clone wrapper runs in the parent only; execve and the others are met in a CLONE_VM child too, whose
 * counts are the parent's, since memory is shared.
 */

#include "tests/seam.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/test.h"

typedef struct Point {
        unsigned count, hits;
        unsigned first, last; /* calls first..last fail, counted from the reset; first 0: none */
        int error;
        unsigned bytes;
} Point;

static Point points[_SEAM_CALL_N];
static uint64_t clock_us_now, wall_us_now; /* 0: the real one */

static const char *const names[] = {
        [SEAM_SOCKET] = "socket",
        [SEAM_SOCKETPAIR] = "socketpair",
        [SEAM_BIND] = "bind",
        [SEAM_LISTEN] = "listen",
        [SEAM_ACCEPT4] = "accept4",
        [SEAM_CONNECT] = "connect",
        [SEAM_SENDMSG] = "sendmsg",
        [SEAM_RECVMSG] = "recvmsg",
        [SEAM_CLONE] = "clone",
        [SEAM_EXECVE] = "execve",
        [SEAM_MKDTEMP] = "mkdtemp",
        [SEAM_MKDIR] = "mkdir",
        [SEAM_OPEN] = "open",
        [SEAM_OPENAT] = "openat",
        [SEAM_PIPE2] = "pipe2",
        [SEAM_EPOLL_CREATE1] = "epoll_create1",
        [SEAM_EPOLL_CTL] = "epoll_ctl",
        [SEAM_EVENTFD] = "eventfd",
        [SEAM_TIMERFD_CREATE] = "timerfd_create",
        [SEAM_MEMFD_CREATE] = "memfd_create",
        [SEAM_FTRUNCATE] = "ftruncate",
        [SEAM_MMAP] = "mmap",
        [SEAM_MALLOC] = "malloc",
        [SEAM_CALLOC] = "calloc",
        [SEAM_REALLOC] = "realloc",
        [SEAM_FCNTL] = "fcntl",
        [SEAM_DUP2] = "dup2",
        [SEAM_DUP3] = "dup3",
        [SEAM_CLOSE_RANGE] = "close_range",
        [SEAM_WAITID] = "waitid",
        [SEAM_POLL] = "poll",
        [SEAM_PPOLL] = "ppoll",
        [SEAM_CLOCK_GETTIME] = "clock_gettime",
        [SEAM_READ] = "read",
};
_Static_assert(ARRAY_SIZE(names) == _SEAM_CALL_N, "a name for every call");

void seam_reset(void) {
        memset(points, 0, sizeof(points));
        clock_us_now = wall_us_now = 0;
}

static void seam_set(SeamCall call, unsigned first, unsigned last, int error) {
        Point *p = &points[call];

        p->first = p->count + first;
        p->last = last == UINT32_MAX ? last : p->count + last;
        p->error = error;
}

void seam_fail(SeamCall call, unsigned nth, int error) {
        seam_set(call, nth, nth, error);
}

void seam_fail_from(SeamCall call, unsigned nth, int error) {
        seam_set(call, nth, UINT32_MAX, error);
}

void seam_fail_always(SeamCall call, int error) {
        seam_fail_from(call, 1, error);
}

void seam_pass(SeamCall call) {
        points[call].first = 0;
}

unsigned seam_count(SeamCall call) {
        return points[call].count;
}

unsigned seam_hits(SeamCall call) {
        return points[call].hits;
}

const char *seam_name(SeamCall call) {
        return names[call];
}

void seam_limit_bytes(SeamCall call, unsigned bytes) {
        points[call].bytes = bytes;
}

void seam_clock_set(uint64_t us) {
        clock_us_now = us;
}

void seam_wall_set(uint64_t us) {
        wall_us_now = us;
}

void seam_clock_advance(uint64_t us) {
        clock_us_now += us;
}

/* seam_run() - one round of seam_each(): whether the failure was met; the operation's result in @ret_result. */
static bool seam_run(SeamCall call, unsigned nth, int error, int (*operation)(void *), void *argument,
                     int *ret_result) {
        int before = fd_count(), after;
        bool hit;

        seam_pass(call);
        points[call].hits = 0;
        seam_fail(call, nth, error);
        *ret_result = operation(argument);
        hit = points[call].hits > 0;
        seam_pass(call);
        after = fd_count();
        if (before != after)
                fail_msg("%s: call %u failing (%s): %d descriptors before, %d after", names[call], nth,
                         strerror(error), before, after);
        return hit;
}

unsigned seam_each(SeamCall call, int error, int (*operation)(void *), void *argument, int expected) {
        int wanted = expected ? expected : -error, r;
        unsigned nth = 1;

        for (; seam_run(call, nth, error, operation, argument, &r); nth++)
                if (r != wanted)
                        fail_msg("%s: call %u failing (%s): result %d, expected %d", names[call], nth, strerror(error),
                                 r, wanted);
        if (r != 0)
                fail_msg("%s: without a failure: result %d", names[call], r);
        return nth - 1;
}

unsigned seam_each_tolerated(SeamCall call, int error, int (*operation)(void *), void *argument) {
        unsigned nth = 1;
        bool hit;
        int r;

        do {
                hit = seam_run(call, nth++, error, operation, argument, &r);
                if (r != 0)
                        fail_msg("%s: call %u failing (%s) was not survived: result %d", names[call], nth - 1,
                                 strerror(error), r);
        } while (hit);
        return nth - 2;
}

/* seam_enter() - counts a call; whether it fails, with errno set. */
static bool seam_enter(SeamCall call) {
        Point *p = &points[call];
        unsigned count = __atomic_add_fetch(&p->count, 1, __ATOMIC_RELAXED); /* threads may call, too */

        if (p->first == 0 || count < p->first || count > p->last)
                return false;
        p->hits++;
        errno = p->error;
        return true;
}

/* WRAP() - the wrapper of a function that takes @_parameters and is called with @_arguments; @_failed is its failure. */
#define WRAP(_call, _type, _name, _parameters, _arguments, _failed)               \
        _type __real_##_name _parameters;                                         \
        _type __wrap_##_name _parameters;                                         \
        _type __wrap_##_name _parameters {                                        \
                return seam_enter(_call) ? (_failed) : __real_##_name _arguments; \
        }                                                                         \
        struct baton_semicolon

WRAP(SEAM_SOCKET, int, socket, (int a, int b, int c), (a, b, c), -1);
WRAP(SEAM_SOCKETPAIR, int, socketpair, (int a, int b, int c, int *d), (a, b, c, d), -1);
WRAP(SEAM_BIND, int, bind, (int a, const struct sockaddr *b, socklen_t c), (a, b, c), -1);
WRAP(SEAM_LISTEN, int, listen, (int a, int b), (a, b), -1);
WRAP(SEAM_ACCEPT4, int, accept4, (int a, struct sockaddr *b, socklen_t *c, int d), (a, b, c, d), -1);
WRAP(SEAM_CONNECT, int, connect, (int a, const struct sockaddr *b, socklen_t c), (a, b, c), -1);
WRAP(SEAM_EXECVE, int, execve, (const char *a, char *const *b, char *const *c), (a, b, c), -1);
WRAP(SEAM_MKDTEMP, char *, mkdtemp, (char *a), (a), NULL);
WRAP(SEAM_MKDIR, int, mkdir, (const char *a, mode_t b), (a, b), -1);
WRAP(SEAM_PIPE2, int, pipe2, (int *a, int b), (a, b), -1);
WRAP(SEAM_EPOLL_CREATE1, int, epoll_create1, (int a), (a), -1);
WRAP(SEAM_EPOLL_CTL, int, epoll_ctl, (int a, int b, int c, struct epoll_event *d), (a, b, c, d), -1);
WRAP(SEAM_EVENTFD, int, eventfd, (unsigned a, int b), (a, b), -1);
WRAP(SEAM_TIMERFD_CREATE, int, timerfd_create, (clockid_t a, int b), (a, b), -1);
WRAP(SEAM_MEMFD_CREATE, int, memfd_create, (const char *a, unsigned b), (a, b), -1);
WRAP(SEAM_FTRUNCATE, int, ftruncate, (int a, off_t b), (a, b), -1);
WRAP(SEAM_MMAP, void *, mmap, (void *a, size_t b, int c, int d, int e, off_t f), (a, b, c, d, e, f), MAP_FAILED);
WRAP(SEAM_MALLOC, void *, malloc, (size_t a), (a), NULL);
WRAP(SEAM_CALLOC, void *, calloc, (size_t a, size_t b), (a, b), NULL);
WRAP(SEAM_REALLOC, void *, realloc, (void *a, size_t b), (a, b), NULL);
WRAP(SEAM_DUP2, int, dup2, (int a, int b), (a, b), -1);
WRAP(SEAM_DUP3, int, dup3, (int a, int b, int c), (a, b, c), -1);
WRAP(SEAM_CLOSE_RANGE, int, close_range, (unsigned a, unsigned b, int c), (a, b, c), -1);
WRAP(SEAM_WAITID, int, waitid, (idtype_t a, id_t b, siginfo_t *c, int d), (a, b, c, d), -1);
WRAP(SEAM_READ, ssize_t, read, (int a, void *b, size_t c), (a, b, c), -1);
WRAP(SEAM_POLL, int, poll, (struct pollfd * a, nfds_t b, int c), (a, b, c), -1);
WRAP(SEAM_PPOLL, int, ppoll, (struct pollfd * a, nfds_t b, const struct timespec *c, const sigset_t *d), (a, b, c, d),
     -1);

#define PIECES 4

/* seam_shorten() - a message whose pieces are cut to the limit, together. */
static struct msghdr seam_shorten(SeamCall call, const struct msghdr *message, struct iovec pieces[PIECES]) {
        struct msghdr cut = *message;
        size_t left = points[call].bytes;

        if (left == 0 || cut.msg_iovlen == 0)
                return cut;
        assert_true(cut.msg_iovlen <= PIECES);
        for (size_t i = 0; i < cut.msg_iovlen; i++) {
                pieces[i] = message->msg_iov[i];
                pieces[i].iov_len = MIN(pieces[i].iov_len, left);
                left -= pieces[i].iov_len;
        }
        cut.msg_iov = pieces;
        return cut;
}

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags) {
        struct msghdr cut;
        struct iovec pieces[PIECES];

        if (seam_enter(SEAM_SENDMSG))
                return -1;
        cut = seam_shorten(SEAM_SENDMSG, message, pieces);
        return __real_sendmsg(socket, &cut, flags);
}

ssize_t __real_recvmsg(int socket, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int socket, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int socket, struct msghdr *message, int flags) {
        struct msghdr cut;
        struct iovec pieces[PIECES];
        ssize_t n;

        if (seam_enter(SEAM_RECVMSG))
                return -1;
        cut = seam_shorten(SEAM_RECVMSG, message, pieces);
        n = __real_recvmsg(socket, &cut, flags);
        message->msg_namelen = cut.msg_namelen;
        message->msg_controllen = cut.msg_controllen;
        message->msg_flags = cut.msg_flags;
        return n;
}

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret) {
        uint64_t now = clock == CLOCK_MONOTONIC ? clock_us_now : clock == CLOCK_REALTIME ? wall_us_now : 0;

        if (seam_enter(SEAM_CLOCK_GETTIME))
                return -1;
        if (now == 0)
                return __real_clock_gettime(clock, ret);
        ret->tv_sec = (time_t) (now / USEC_PER_SEC);
        ret->tv_nsec = (long) (now % USEC_PER_SEC * NSEC_PER_USEC);
        return 0;
}

/* The optional argument is read whether it was given or not, as libc does it: what is not there is not used. */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
        va_list arguments;
        mode_t mode;

        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        return seam_enter(SEAM_OPEN) ? -1 : __real_open(path, flags, mode);
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...) {
        va_list arguments;
        mode_t mode;

        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
        return seam_enter(SEAM_OPENAT) ? -1 : __real_openat(dir, path, flags, mode);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...) {
        va_list arguments;
        void *argument;

        va_start(arguments, command);
        argument = va_arg(arguments, void *);
        va_end(arguments);
        return seam_enter(SEAM_FCNTL) ? -1 : __real_fcntl(fd, command, argument);
}

int __real_clone(int (*function)(void *), void *stack, int flags, void *argument, ...);
int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...);
int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
        va_list arguments;
        void *parent_tid, *tls, *child_tid;

        va_start(arguments, argument);
        parent_tid = va_arg(arguments, void *);
        tls = va_arg(arguments, void *);
        child_tid = va_arg(arguments, void *);
        va_end(arguments);
        return seam_enter(SEAM_CLONE) ? -1
                                      : __real_clone(function, stack, flags, argument, parent_tid, tls, child_tid);
}

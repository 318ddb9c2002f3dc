#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The seam: makes a system call, or an allocation, of the code under test fail. Product code calls plain libc functions;
 * tests are linked with `-Wl,--wrap=NAME' (seam_ldflags in Makefile.am), so that its calls arrive in seam.c first. The
 * product itself is linked without: no indirection, no table, no cost.
 *
 * It reaches calls made by our own objects. Calls that a shared library makes (libc inside opendir(), libev, protobuf-c)
 * are not seen. Nothing is thread-safe. Every test begins and ends with a reset (tests/test.h).
 *
 *         seam_fail(SEAM_SENDMSG, 2, ETOOMANYREFS);    // the second sendmsg() from here fails
 *         r = lane_flush(&lane);
 *         assert_int_equal(seam_hits(SEAM_SENDMSG), 1);
 *
 * Varargs functions (open, openat, fcntl, clone) are passed on as libc itself takes them. With _FORTIFY_SOURCE or
 * _FILE_OFFSET_BITS=64 on a 32-bit machine the compiler calls other names (__open_2, fcntl64), which the seam does not see.
 */

#include <stdint.h>

typedef enum SeamCall {
        SEAM_SOCKET,
        SEAM_SOCKETPAIR,
        SEAM_BIND,
        SEAM_LISTEN,
        SEAM_ACCEPT4,
        SEAM_CONNECT,
        SEAM_SENDMSG,
        SEAM_RECVMSG,
        SEAM_CLONE,
        SEAM_EXECVE,
        SEAM_MKDTEMP,
        SEAM_MKDIR,
        SEAM_OPEN,
        SEAM_OPENAT,
        SEAM_PIPE2,
        SEAM_EPOLL_CREATE1,
        SEAM_EPOLL_CTL,
        SEAM_EVENTFD,
        SEAM_TIMERFD_CREATE,
        SEAM_MEMFD_CREATE,
        SEAM_FTRUNCATE,
        SEAM_MMAP,
        SEAM_MALLOC,
        SEAM_CALLOC,
        SEAM_REALLOC,
        SEAM_FCNTL,
        SEAM_DUP2,
        SEAM_DUP3,
        SEAM_CLOSE_RANGE,
        SEAM_WAITID,
        SEAM_POLL,
        SEAM_PPOLL,
        SEAM_CLOCK_GETTIME,
        SEAM_READ,
        _SEAM_CALL_N,
} SeamCall;

/* seam_reset() - nothing fails, all counts are 0, the clock is the real one. */
void seam_reset(void);

/* seam_fail() - the @nth call from now (1 is the next) fails with errno @error, once. Replaces an earlier setting. */
void seam_fail(SeamCall call, unsigned nth, int error);

/* seam_fail_from() - the @nth call from now and all after it fail, until seam_pass(). */
void seam_fail_from(SeamCall call, unsigned nth, int error);

/* seam_fail_always() - every call fails. */
void seam_fail_always(SeamCall call, int error);

/* seam_pass() - calls of this function succeed again; its counts stay. */
void seam_pass(SeamCall call);

/* seam_count() - calls since the last reset, failed ones included. */
unsigned seam_count(SeamCall call);

/* seam_hits() - how many of them the seam made fail. */
unsigned seam_hits(SeamCall call);

/* seam_name() - "socketpair". */
const char *seam_name(SeamCall call);

/*
 * seam_limit_bytes() - sendmsg() takes and recvmsg() gives at most @bytes per call (0: no limit), so that a stream is cut
 * where a test wants it.
 */
void seam_limit_bytes(SeamCall call, unsigned bytes);

/* seam_clock_set() - CLOCK_MONOTONIC stands still at @us microseconds, until seam_reset(). */
void seam_clock_set(uint64_t us);

/* seam_wall_set() - the same for CLOCK_REALTIME; timers of the kernel go on by the real one. */
void seam_wall_set(uint64_t us);

/* seam_clock_advance() - moves the clock that seam_clock_set() stopped. */
void seam_clock_advance(uint64_t us);

/*
 * seam_each() - fails call 1, then 2, then 3, ... of @call with @error, running @operation(@argument) each time, until it
 * runs through without meeting the failure. The operation returns 0, having undone what it did, or a negative errno.
 * Asserts that
 * - a failure is reported: the result is -@error, or, with @expected not 0, @expected (0 would be a failure swallowed);
 * - no descriptor is left open by any run;
 * - the last run, the one without failure, returns 0.
 * Returns how many different failures were met: a test asserts that it is not 0, else it proved nothing.
 */
unsigned seam_each(SeamCall call, int error, int (*operation)(void *argument), void *argument, int expected);

/* seam_each_tolerated() - as seam_each(), for a call whose failure the operation must survive: every run returns 0. */
unsigned seam_each_tolerated(SeamCall call, int error, int (*operation)(void *argument), void *argument);

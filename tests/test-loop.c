/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/loop: watchers that change themselves and each other, timers, signals, the order of queued tasks. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/loop.h"
#include "tests/seam.h"

/* What the callbacks of a test tell: a word of letters, one per call. */
static char told[64];

static void tell(char letter) {
        size_t n = strlen(told);

        assert_true(n + 1 < sizeof(told));
        told[n] = letter;
        told[n + 1] = '\0';
}

static Loop *opened; /* the last one */

static Loop *open_loop(void) {
        Loop *loop = NULL;

        told[0] = '\0';
        assert_int_equal(loop_new(&loop), 0);
        opened = loop;
        return loop;
}

static void stop_task(LoopTask *task) {
        tell('.');
        loop_stop(task->loop);
}

static void test_new(void **state) {
        Loop *loop = open_loop();

        (void) state;
        assert_null(loop_free(loop));
        assert_null(loop_free(NULL));
}

static int new_and_free(void *argument) {
        Loop *loop;
        int r = loop_new(&loop);

        (void) argument;
        if (r == 0)
                loop_free(loop);
        return r;
}

static void test_new_fails(void **state) {
        Loop *loop = (Loop *) told;
        unsigned long limit;

        (void) state;
        assert_int_equal(seam_each(SEAM_CALLOC, ENOMEM, new_and_free, NULL, -ENOMEM), 1);
        limit = test_limit_fds(0);
        assert_int_equal(loop_new(&loop), -EMFILE);
        test_restore_fds(limit);
        assert_ptr_equal(loop, told);
}

/* With nothing started the loop ends by itself. */
static void test_empty_run_ends(void **state) {
        Loop *loop = open_loop();

        (void) state;
        loop_run(loop);
        loop_free(loop);
}

typedef struct Io {
        LoopIo io;
        Loop *loop;
        unsigned events; /* of all calls */
} Io;

static void on_io(LoopIo *io, unsigned events) {
        Io *self = CONTAINER_OF(io, Io, io);
        char byte;

        self->events |= events;
        if (events & LOOP_IN)
                tell(recv(io->fd, &byte, 1, MSG_DONTWAIT) == 1 ? byte : '0');
        if (events & LOOP_OUT)
                tell('w');
        if (told[strlen(told) - 1] == '0') {
                loop_io_stop(io);
                loop_stop(self->loop);
        } else if (events & LOOP_OUT) {
                loop_io_set(self->loop, io, io->fd, LOOP_IN);
        }
}

static void test_io(void **state) {
        Io self = { .io = LOOP_IO_NULL(on_io), .loop = open_loop() };
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        loop_io_stop(&self.io); /* not started: nothing */
        loop_io_set(self.loop, &self.io, fds[0], LOOP_OUT);
        loop_io_set(self.loop, &self.io, fds[0], LOOP_OUT);
        assert_int_equal(send(fds[1], "ab", 2, 0), 2);
        fds[1] = fd_close(fds[1]);
        loop_run(self.loop);
        assert_string_equal(told, "wab0");
        assert_int_equal(self.io.fd, -1);
        assert_int_equal(self.io.events, 0);
        fd_close(fds[0]);
        loop_free(self.loop);
}

static void test_io_both_and_none(void **state) {
        Io self = { .io = LOOP_IO_NULL(on_io), .loop = open_loop() };
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        fds[1] = fd_close(fds[1]);
        loop_io_set(self.loop, &self.io, fds[0], LOOP_IN | LOOP_OUT);
        assert_int_equal(self.io.fd, fds[0]);
        loop_io_set(self.loop, &self.io, fds[0], 0);
        assert_int_equal(self.io.fd, -1);
        loop_run(self.loop); /* nothing is watched */
        assert_string_equal(told, "");
        loop_io_set(self.loop, &self.io, fds[0], LOOP_IN | LOOP_OUT);
        loop_run(self.loop);
        assert_string_equal(told, "0w0"); /* both in one call, then what the callback chose */
        assert_int_equal(self.events, LOOP_IN | LOOP_OUT);
        fd_close(fds[0]);
        loop_free(self.loop);
}

/* in_set() - how many entries the epoll sets of this process have: the loop's is the only one. */
static unsigned in_set(void) {
        char path[64], line[256];
        unsigned n = 0;

        for (int fd = 3; fd < 200; fd++) {
                FILE *file;

                (void) snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
                file = fopen(path, "re");
                while (file && fgets(line, sizeof(line), file))
                        n += strncmp(line, "tfd:", 4) == 0;
                if (file)
                        (void) fclose(file);
        }
        return n;
}

/* What is stopped is out of the set, though a duplicate lives, and though libev would leave it there. */
static void test_io_with_a_duplicate(void **state) {
        Io self = { .io = LOOP_IO_NULL(on_io), .loop = open_loop() };
        Io other = { .io = LOOP_IO_NULL(on_io), .loop = self.loop };
        int fds[2], others[2], copy;

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, others), 0);
        loop_io_set(self.loop, &self.io, fds[0], LOOP_IN);
        loop_io_set(self.loop, &other.io, others[0], LOOP_IN);
        loop_turn(self.loop);
        assert_int_equal(in_set(), 2);
        copy = fd_dup(fds[0]);
        loop_io_stop(&self.io);
        assert_int_equal(in_set(), 1);
        fd_close(fds[0]);
        loop_io_set(self.loop, &other.io, others[0], LOOP_OUT); /* to watch for something else is no stop */
        assert_int_equal(in_set(), 1);
        loop_io_set(self.loop, &other.io, others[0], LOOP_IN);
        loop_io_set(self.loop, &self.io, copy, LOOP_IN);
        loop_turn(self.loop);
        loop_io_stop(&self.io);
        loop_io_set(self.loop, &self.io, copy, LOOP_IN); /* in one turn, what it was before */
        loop_turn(self.loop);
        assert_int_equal(in_set(), 2);
        fds[1] = fd_close(fds[1]);
        loop_run(self.loop);
        assert_string_equal(told, "0");
        loop_io_stop(&other.io);
        assert_int_equal(in_set(), 0);
        fd_close(copy);
        fd_close_all(others, 2);
        loop_free(self.loop);
}

/* A loop that is left: what was watched is closed, what is below and the duplicates of others are not. */
static void test_leave(void **state) {
        enum { PAIRS = 40 };
        Io watchers[PAIRS];
        int fds[PAIRS][2], copies[PAIRS];
        Loop *loop = open_loop();

        (void) state;
        for (size_t i = 0; i < PAIRS; i++) {
                assert_int_equal(fd_socketpair(SOCK_STREAM, fds[i]), 0);
                watchers[i] = (Io){ .io = LOOP_IO_NULL(on_io), .loop = loop };
        }
        for (size_t i = 0; i < PAIRS; i++) {
                copies[i] = fd_dup(fds[i][0]);
                loop_io_set(loop, &watchers[i].io, fds[i][0], LOOP_IN);
        }
        loop_turn(loop);
        assert_int_equal(in_set(), PAIRS);
        loop_leave(loop, fds[1][0]);
        assert_int_equal(in_set(), 1); /* the first of them, which is below */
        assert_true(fcntl(fds[0][0], F_GETFD) >= 0);
        for (size_t i = 1; i < PAIRS; i++) {
                assert_int_equal(fcntl(fds[i][0], F_GETFD), -1);
                assert_int_equal(errno, EBADF);
                assert_true(fcntl(copies[i], F_GETFD) >= 0);
        }
        loop_io_stop(&watchers[0].io);
        loop_free(loop);
        fd_close_all(fds[0], 2);
        fd_close_all(copies, PAIRS);
        fd_close(fds[PAIRS - 1][1]);
}

/* Two watchers ready in one turn: the first called stops the other, which must then be silent. */
typedef struct Rival {
        LoopIo io;
        struct Rival *other;
} Rival;

static void on_rival(LoopIo *io, unsigned events) {
        Rival *self = CONTAINER_OF(io, Rival, io);

        (void) events;
        tell('r');
        loop_io_stop(&self->other->io);
        loop_io_stop(io);
}

static void test_io_stopped_by_another(void **state) {
        Loop *loop = open_loop();
        Rival a = { .io = LOOP_IO_NULL(on_rival) }, b = { .io = LOOP_IO_NULL(on_rival) };
        int fds[4];

        (void) state;
        a.other = &b;
        b.other = &a;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds + 2), 0);
        fds[1] = fd_close(fds[1]);
        fds[3] = fd_close(fds[3]);
        loop_io_set(loop, &a.io, fds[0], LOOP_IN);
        loop_io_set(loop, &b.io, fds[2], LOOP_IN);
        loop_run(loop);
        assert_string_equal(told, "r");
        fd_close_all(fds, 4);
        loop_free(loop);
}

typedef struct Timer {
        LoopTimer timer;
        char letter;
        uint64_t deadline, called;
} Timer;

static void on_timer(LoopTimer *timer) {
        Timer *self = CONTAINER_OF(timer, Timer, timer);

        assert_int_equal(loop_timer_deadline(timer), 0);
        self->called = clock_now();
        tell(self->letter);
}

#define TIMER(_letter) \
        { .timer = LOOP_TIMER_NULL(on_timer), .letter = (_letter) }

static void test_timers(void **state) {
        Loop *loop = open_loop();
        Timer a = TIMER('a'), b = TIMER('b'), c = TIMER('c'), never = TIMER('n'), stopped = TIMER('s');
        uint64_t now = clock_now();

        (void) state;
        loop_timer_stop(&a.timer); /* not set: nothing */
        loop_timer_set(loop, &c.timer, now + 1);
        loop_timer_set(loop, &c.timer, now + 20000); /* replaces */
        loop_timer_set(loop, &b.timer, now + 10000);
        loop_timer_set(loop, &a.timer, now - 1); /* past: at once */
        loop_timer_set(loop, &never.timer, USEC_INFINITY);
        loop_timer_set(loop, &stopped.timer, now + 1);
        loop_timer_stop(&stopped.timer);
        assert_true(loop_timer_deadline(&never.timer) == 0 && loop_timer_deadline(&stopped.timer) == 0);
        assert_true(loop_timer_deadline(&a.timer) > 0 && loop_timer_deadline(&b.timer) > 0 &&
                    loop_timer_deadline(&c.timer) > 0);
        loop_run(loop); /* ends when no timer is set */
        assert_string_equal(told, "abc");
        /* Not before its moment, as far as epoll's milliseconds tell. */
        assert_true(b.called + USEC_PER_MSEC >= now + 10000);
        assert_true(c.called + USEC_PER_MSEC >= now + 20000);
        loop_free(loop);
}

/* The distance is counted from now, not from when the loop last looked at its clock. */
static void test_timer_with_stale_clock(void **state) {
        Loop *loop = open_loop();
        Timer a = TIMER('a');
        uint64_t start = clock_now();

        (void) state;
        while (clock_now() < start + 30 * USEC_PER_MSEC)
                ; /* the loop's own time is that of its making */
        a.deadline = clock_now() + 10 * USEC_PER_MSEC;
        loop_timer_set(loop, &a.timer, a.deadline);
        loop_run(loop);
        assert_string_equal(told, "a");
        assert_true(a.called + USEC_PER_MSEC >= a.deadline);
        loop_free(loop);
}

static void on_again(LoopTimer *timer) {
        tell('t');
        if (strlen(told) < 3)
                loop_timer_set(timer->loop, timer, clock_now() + 1);
}

static void test_timer_sets_itself(void **state) {
        Loop *loop = open_loop();
        LoopTimer timer = LOOP_TIMER_NULL(on_again);

        (void) state;
        loop_timer_set(loop, &timer, clock_now());
        loop_run(loop);
        assert_string_equal(told, "ttt");
        loop_free(loop);
}

static void on_signal(LoopSignal *number) {
        tell(number->signal == SIGUSR1 ? '1' : '2');
        loop_signal_stop(number);
}

static void test_signals(void **state) {
        Loop *loop = open_loop();
        LoopSignal one = LOOP_SIGNAL_NULL(on_signal), two = LOOP_SIGNAL_NULL(on_signal);

        (void) state;
        loop_signal_stop(&one);
        loop_signal_start(loop, &one, SIGUSR1);
        loop_signal_start(loop, &two, SIGUSR2);
        assert_int_equal(raise(SIGUSR2), 0);
        assert_int_equal(raise(SIGUSR1), 0);
        loop_run(loop);
        assert_non_null(strchr(told, '1'));
        assert_non_null(strchr(told, '2'));
        assert_int_equal(one.signal, 0);
        loop_free(loop);
}

/* Tasks: in order, once each, those that tasks queue too, all before the loop waits. */
typedef struct Task {
        LoopTask task;
        char letter;
        LoopTask *then, *cancels;
} Task;

static void on_task(LoopTask *task) {
        Task *self = CONTAINER_OF(task, Task, task);

        assert_null(task->link.tqe_prev); /* not queued any more */
        tell(self->letter);
        if (self->cancels)
                loop_task_cancel(self->cancels);
        if (self->then)
                loop_task_queue(task->loop, self->then);
}

static void test_tasks(void **state) {
        Loop *loop = open_loop();
        LoopTask stop = LOOP_TASK_NULL(stop_task);
        Task d = { .task = LOOP_TASK_NULL(on_task), .letter = 'd', .then = &stop };
        Task c = { .task = LOOP_TASK_NULL(on_task), .letter = 'c' };
        Task b = { .task = LOOP_TASK_NULL(on_task), .letter = 'b', .cancels = &c.task };
        Task a = { .task = LOOP_TASK_NULL(on_task), .letter = 'a', .then = &d.task };
        Timer late = TIMER('x');

        (void) state;
        loop_task_cancel(&a.task); /* not queued: nothing */
        loop_timer_set(loop, &late.timer, clock_now() + 60 * USEC_PER_SEC);
        loop_task_queue(loop, &a.task);
        loop_task_queue(loop, &b.task);
        loop_task_queue(loop, &a.task);
        loop_task_queue(loop, &c.task);
        loop_run(loop);
        assert_string_equal(told, "abd.");
        loop_timer_stop(&late.timer);
        loop_free(loop);
}

/* The task of an event runs in the same turn, before the next wait. */
static LoopTask io_stop = LOOP_TASK_NULL(stop_task);

static void on_io_queue(LoopIo *io, unsigned events) {
        (void) events;
        tell('i');
        loop_task_queue(opened, &io_stop);
        loop_io_stop(io);
}

static void test_task_after_event(void **state) {
        Loop *loop = open_loop();
        LoopIo io = LOOP_IO_NULL(on_io_queue);
        Timer late = TIMER('x');
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        fds[1] = fd_close(fds[1]);
        loop_timer_set(loop, &late.timer, clock_now() + 60 * USEC_PER_SEC);
        loop_io_set(loop, &io, fds[0], LOOP_IN);
        loop_run(loop);
        assert_string_equal(told, "i.");
        loop_timer_stop(&late.timer);
        fd_close(fds[0]);
        loop_free(loop);
}

/* While a loop is held its turns tell nobody anything; then everything is told. */
static void test_held(void **state) {
        Loop *loop = open_loop();
        LoopIo io = LOOP_IO_NULL(on_io_queue);
        Timer due = TIMER('x');
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        fds[1] = fd_close(fds[1]);
        loop_hold(loop);
        loop_io_set(loop, &io, fds[0], LOOP_IN);
        loop_timer_set(loop, &due.timer, clock_now());
        loop_turn(loop);
        loop_turn(loop);
        assert_string_equal(told, "");
        loop_release(loop);
        assert_non_null(strchr(told, 'i'));
        assert_non_null(strchr(told, 'x'));
        loop_timer_stop(&due.timer);
        loop_io_stop(&io);
        fd_close(fds[0]);
        loop_free(loop);
}

/* LIBEV_FLAGS must not choose the backend: 1 would be select(2), whose loop has no epoll descriptor. */
static void test_environment_is_ignored(void **state) {
        int before = fd_count();
        Loop *loop;

        (void) state;
        assert_int_equal(setenv("LIBEV_FLAGS", "1", 1), 0);
        loop = open_loop();
        assert_true(fd_count() > before);
        loop_free(loop);
        assert_int_equal(unsetenv("LIBEV_FLAGS"), 0);
}

static const struct CMUnitTest tests[] = {
        TEST(test_new),
        TEST(test_new_fails),
        TEST(test_empty_run_ends),
        TEST(test_io),
        TEST(test_io_both_and_none),
        TEST(test_io_with_a_duplicate),
        TEST(test_io_stopped_by_another),
        TEST(test_leave),
        TEST(test_timers),
        TEST(test_timer_with_stale_clock),
        TEST(test_timer_sets_itself),
        TEST(test_signals),
        TEST(test_tasks),
        TEST(test_task_after_event),
        TEST(test_held),
        TEST(test_environment_is_ignored),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

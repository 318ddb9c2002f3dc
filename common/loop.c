/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Loop: libev behind a small door, the only file that includes ev.h. What libev does and we do not want:
 * - ev_default_loop() reaps every child: a loop of our own is made, and exits arrive from the keeper.
 * - LIBEV_FLAGS could choose another backend: NOENV, and epoll only.
 * - A watcher started on a closed descriptor aborts the process: received descriptors are checked where they arrive.
 * - ev_io_stop() leaves the descriptor in the epoll set, where it stays after its close as long as somebody else has a
 *   duplicate: the keeper, or a predecessor that is on its way out. The next event of it makes libev build the whole set anew,
 *   10 ms for some thousands. So a stop takes it out. Which set that is libev does not tell: it is the first that it opens;
 *   where it opens another later, this is what it was without: an error that nobody looks at.
 * The deadline of a timer is kept in CLOCK_MONOTONIC microseconds; libev's own time is used only for the distance.
 */

#include "common/loop.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <sys/epoll.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/macro.h"
#include "common/pace.h"

#define IDLE_US USEC_PER_SEC /* for as long loop_leave() takes its time */

static_assert(sizeof(ev_io) <= LOOP_WATCHER_WORDS * 8 && sizeof(ev_timer) <= LOOP_WATCHER_WORDS * 8 &&
                      sizeof(ev_signal) <= LOOP_WATCHER_WORDS * 8,
              "LOOP_WATCHER_WORDS is too small for this libev");

TAILQ_HEAD(TaskQueue, LoopTask);

struct Loop {
        struct ev_loop *ev;
        int epoll;  /* its set; libev's */
        int fd_max; /* the highest that was ever watched */
        ev_prepare prepare;
        struct TaskQueue tasks;
};

void loop_run_tasks(Loop *loop) {
        LoopTask *task;

        while ((task = TAILQ_FIRST(&loop->tasks))) {
                loop_task_cancel(task);
                task->callback(task);
        }
}

static void run_tasks(struct ev_loop *ev, ev_prepare *prepare, int revents) {
        (void) ev;
        (void) revents;
        loop_run_tasks(prepare->data);
}

int loop_new(Loop **ret_loop) {
        Loop *loop = calloc(1, sizeof(*loop));

        if (!loop)
                return -ENOMEM;
        loop->epoll = epoll_create1(EPOLL_CLOEXEC); /* the number that is the next */
        fd_close(loop->epoll);
        errno = 0;
        loop->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        if (!loop->ev) {
                free(loop);
                return errno == ENOMEM ? -ENOMEM : -EMFILE;
        }
        TAILQ_INIT(&loop->tasks);
        ev_prepare_init(&loop->prepare, run_tasks);
        loop->prepare.data = loop;
        ev_prepare_start(loop->ev, &loop->prepare);
        ev_unref(loop->ev);
        *ret_loop = loop;
        return 0;
}

Loop *loop_free(Loop *loop) {
        if (!loop)
                return NULL;
        ev_ref(loop->ev);
        ev_prepare_stop(loop->ev, &loop->prepare);
        ev_loop_destroy(loop->ev);
        free(loop);
        return NULL;
}

void loop_run(Loop *loop) {
        ev_run(loop->ev, 0);
}

static void keep_pending(struct ev_loop *ev) {
        (void) ev;
}

void loop_hold(Loop *loop) {
        ev_set_invoke_pending_cb(loop->ev, keep_pending);
}

void loop_turn(Loop *loop) {
        ev_run(loop->ev, EVRUN_NOWAIT);
}

void loop_release(Loop *loop) {
        ev_set_invoke_pending_cb(loop->ev, ev_invoke_pending);
        ev_invoke_pending(loop->ev);
}

void loop_stop(Loop *loop) {
        ev_break(loop->ev, EVBREAK_ALL);
}

static void io_ready(struct ev_loop *ev, ev_io *watcher, int revents) {
        LoopIo *io = CONTAINER_OF(watcher, LoopIo, watcher);

        (void) ev;
        io->callback(io, (revents & EV_READ ? LOOP_IN : 0) | (revents & EV_WRITE ? LOOP_OUT : 0));
}

void loop_io_set(Loop *loop, LoopIo *io, int fd, unsigned events) {
        ev_io *watcher = (ev_io *) io->watcher;

        if (io->fd == fd && io->events == events && events != 0)
                return;
        if (io->fd == fd && fd >= 0 && events != 0)
                ev_io_stop(loop->ev, watcher); /* it stays in the set, with other events */
        else
                loop_io_stop(io);
        if (events == 0)
                return;
        assert(fd >= 0);
        ev_io_init(watcher, io_ready, fd, (events & LOOP_IN ? EV_READ : 0) | (events & LOOP_OUT ? EV_WRITE : 0));
        watcher->data = loop;
        io->fd = fd;
        io->events = events;
        loop->fd_max = MAX(loop->fd_max, fd);
        ev_io_start(loop->ev, watcher);
}

void loop_io_stop(LoopIo *io) {
        ev_io *watcher = (ev_io *) io->watcher;
        Loop *loop;

        if (io->fd < 0)
                return;
        loop = watcher->data;
        ev_io_stop(loop->ev, watcher);
        (void) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, io->fd, NULL);
        io->fd = -1;
        io->events = 0;
}

void loop_leave(Loop *loop, int fd_min) {
        uint64_t idle_until = clock_after(clock_now(), IDLE_US);

        pace_begin_idly();
        for (int fd = loop->fd_max; fd >= fd_min; fd--) {
                if (fd == loop->epoll)
                        continue; /* or all that is in it would go at once */
                (void) epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
                fd_close(fd);
                if (pace_keep() && clock_now() >= idle_until)
                        pace_begin(); /* whoever has told us to leave may wait for it after all */
        }
        pace_end();
}

static void timer_ready(struct ev_loop *ev, ev_timer *watcher, int revents) {
        LoopTimer *timer = watcher->data;

        (void) ev;
        (void) revents;
        timer->deadline = 0;
        timer->callback(timer);
}

void loop_timer_set(Loop *loop, LoopTimer *timer, uint64_t deadline_us) {
        ev_timer *watcher = (ev_timer *) timer->watcher;
        uint64_t now;

        loop_timer_stop(timer);
        if (deadline_us == USEC_INFINITY)
                return;
        ev_now_update(loop->ev);
        now = clock_now();
        ev_timer_init(watcher, timer_ready, deadline_us > now ? (double) (deadline_us - now) / USEC_PER_SEC : 0., 0.);
        watcher->data = timer;
        timer->loop = loop;
        timer->deadline = MAX(deadline_us, UINT64_C(1));
        ev_timer_start(loop->ev, watcher);
}

void loop_timer_stop(LoopTimer *timer) {
        if (timer->deadline == 0)
                return;
        ev_timer_stop(timer->loop->ev, (ev_timer *) timer->watcher);
        timer->deadline = 0;
}

static void signal_ready(struct ev_loop *ev, ev_signal *watcher, int revents) {
        LoopSignal *signal = watcher->data;

        (void) ev;
        (void) revents;
        signal->callback(signal);
}

void loop_signal_start(Loop *loop, LoopSignal *signal, int number) {
        ev_signal *watcher = (ev_signal *) signal->watcher;

        ev_signal_init(watcher, signal_ready, number);
        watcher->data = signal;
        signal->loop = loop;
        signal->signal = number;
        ev_signal_start(loop->ev, watcher);
}

void loop_signal_stop(LoopSignal *signal) {
        if (signal->signal == 0)
                return;
        ev_signal_stop(signal->loop->ev, (ev_signal *) signal->watcher);
        signal->signal = 0;
}

void loop_task_queue(Loop *loop, LoopTask *task) {
        if (task->link.tqe_prev)
                return;
        task->loop = loop;
        TAILQ_INSERT_TAIL(&loop->tasks, task, link);
}

void loop_task_cancel(LoopTask *task) {
        if (!task->link.tqe_prev)
                return;
        TAILQ_REMOVE(&task->loop->tasks, task, link);
        task->link.tqe_prev = NULL;
}

bool loop_has_tasks(const Loop *loop) {
        return !TAILQ_EMPTY(&loop->tasks);
}

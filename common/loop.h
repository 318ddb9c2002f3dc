#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The supervisor's event loop, on libev: descriptors, timers, signals, and one queue of work to be done before the loop
 * next waits. Watchers are embedded in their owners' structures and never move while they are started; a callback may
 * stop or change any watcher, its own too. Only loop.c knows libev.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

typedef struct Loop Loop;
typedef struct LoopIo LoopIo;
typedef struct LoopTimer LoopTimer;
typedef struct LoopSignal LoopSignal;
typedef struct LoopTask LoopTask;

enum {
        LOOP_IN = 1 << 0,
        LOOP_OUT = 1 << 1,
};

/* The room libev's watchers need; loop.c asserts that they fit. */
#define LOOP_WATCHER_WORDS 6

/* A descriptor being watched. Its owner stops it before the descriptor is closed. */
struct LoopIo {
        uint64_t watcher[LOOP_WATCHER_WORDS]; /* knows the loop: there are many of these */
        int fd;                               /* -1: not started */
        unsigned events;
        void (*callback)(LoopIo *io, unsigned events);
};
#define LOOP_IO_NULL(_callback) ((LoopIo){ .fd = -1, .callback = (_callback) })

/* One moment of the monotonic clock. */
struct LoopTimer {
        uint64_t watcher[LOOP_WATCHER_WORDS];
        Loop *loop;
        uint64_t deadline; /* 0: it is not set */
        void (*callback)(LoopTimer *timer);
};
#define LOOP_TIMER_NULL(_callback) ((LoopTimer){ .callback = (_callback) })

struct LoopSignal {
        uint64_t watcher[LOOP_WATCHER_WORDS];
        Loop *loop;
        int signal; /* 0: not started */
        void (*callback)(LoopSignal *signal);
};
#define LOOP_SIGNAL_NULL(_callback) ((LoopSignal){ .callback = (_callback) })

/* Work for the end of this turn; queued at most once however often it is asked for. */
struct LoopTask {
        TAILQ_ENTRY(LoopTask) link; /* tqe_prev NULL: it is not queued */
        Loop *loop;
        void (*callback)(LoopTask *task);
};
#define LOOP_TASK_NULL(_callback) ((LoopTask){ .callback = (_callback) })

/* loop_new() - an epoll loop that the environment cannot change. Returns 0, -ENOMEM, or -EMFILE. */
int loop_new(Loop **ret_loop);

/* loop_free() - returns NULL. No watcher may be started any more. */
Loop *loop_free(Loop *loop);

/* loop_run() - until loop_stop(). Queued tasks run before each wait, also those that tasks queue. */
void loop_run(Loop *loop);
void loop_stop(Loop *loop);

/*
 * loop_hold() - from here on nobody is called back, and what there is to be told waits for loop_release(), which tells it;
 * what has passed meanwhile is told all the same. loop_turn() - one turn without waiting: a loop that is held has the
 * kernel know of all its watchers afterwards.
 */
void loop_hold(Loop *loop);
void loop_turn(Loop *loop);
void loop_release(Loop *loop);

/*
 * loop_io_set() - watches @fd for @events (0 stops). @fd must be open, and watched by no other one; closing it is the owner's,
 * after loop_io_stop(), whoever else has a duplicate.
 */
void loop_io_set(Loop *loop, LoopIo *io, int fd, unsigned events);
void loop_io_stop(LoopIo *io);

/*
 * loop_leave() - before _exit() of a process whose descriptors live on with others, in a loop that does not turn any more: closes
 * all from @fd_min on that it may have watched, at a pace (common/pace.h). To end with thousands of them is one long piece of
 * work of the kernel's, 8 ms for ten thousand, beside which whoever serves now has to wait.
 */
void loop_leave(Loop *loop, int fd_min);

/* loop_timer_set() - calls back once at @deadline_us (clock_now()); USEC_INFINITY stops; an earlier setting is replaced. */
void loop_timer_set(Loop *loop, LoopTimer *timer, uint64_t deadline_us);
void loop_timer_stop(LoopTimer *timer);
/* loop_timer_deadline() - when it calls back; 0: it is not set. */
static inline uint64_t loop_timer_deadline(const LoopTimer *timer) {
        return timer->deadline;
}

void loop_signal_start(Loop *loop, LoopSignal *signal, int number);
void loop_signal_stop(LoopSignal *signal);

void loop_task_queue(Loop *loop, LoopTask *task);
void loop_task_cancel(LoopTask *task);
/* loop_has_tasks() - whether there is more to do in this turn. */
bool loop_has_tasks(const Loop *loop);

/* loop_run_tasks() - those that are queued, and those that they queue, now: as at the end of a turn. */
void loop_run_tasks(Loop *loop);

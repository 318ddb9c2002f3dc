/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Schedules: `every' uses the runner's own timer. All `at' of a supervisor share one timerfd on the wall clock, armed for
 * the earliest, which the kernel also fires when somebody sets that clock: then every time is worked out anew. So nothing
 * wakes up in between, however far away the next time is, and no clock is watched where nobody has an `at'. All are looked
 * at when it fires, and not when one comes or goes: one that goes before its time may leave it to fire once for nobody.
 */

#include "supervisor/schedule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/runner-internal.h"
#include "supervisor/supervisor.h"

#define RETRY_US (10 * USEC_PER_SEC)

struct Schedules {
        Loop *loop;
        int fd; /* -1: nobody has needed it yet */
        LoopIo io;
        uint64_t armed_us;            /* when the kernel tells us; USEC_INFINITY: never */
        TAILQ_HEAD(, Runner) waiting; /* by their `scheduled' */
};

/* ----------------------------------------------------------------------------------------------------- the wall clock */

static void arm(Schedules *schedules, uint64_t us) {
        struct itimerspec when = { 0 };

        schedules->armed_us = us;
        if (schedules->fd < 0)
                return;
        if (us != USEC_INFINITY) {
                when.it_value.tv_sec = (time_t) (us / USEC_PER_SEC);
                when.it_value.tv_nsec = (long) (us % USEC_PER_SEC * NSEC_PER_USEC);
        }
        if (timerfd_settime(schedules->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) < 0 &&
            errno != ECANCELED)
                log_error("cannot wait for the times of schedules: %s", strerror(errno));
}

static void arm_for_earliest(Schedules *schedules) {
        uint64_t us = USEC_INFINITY;
        Runner *runner;

        TAILQ_FOREACH (runner, &schedules->waiting, scheduled)
                us = MIN(us, runner->next_us);
        arm(schedules, us);
}

static void leave(Schedules *schedules, Runner *runner) {
        TAILQ_REMOVE(&schedules->waiting, runner, scheduled);
        runner->in_schedule = false;
}

/* begin_due() - those whose time has come; where the clock was set back, those that wait for a later one look again. */
static void begin_due(Schedules *schedules, bool was_set) {
        uint64_t now = clock_wall();
        Runner *runner, *next;

        for (runner = TAILQ_FIRST(&schedules->waiting); runner; runner = next) {
                next = TAILQ_NEXT(runner, scheduled);
                if (runner->next_us <= now) {
                        leave(schedules, runner);
                        runner_raise(runner, POLICY_EVENT_TIME);
                } else if (was_set) {
                        runner_touch(runner);
                        runner->next_us = config_schedule_next(runner->config->schedule, now);
                }
        }
}

static void clock_ready(LoopIo *io, unsigned events) {
        Schedules *schedules = CONTAINER_OF(io, Schedules, io);
        uint64_t n;
        bool was_set = read(schedules->fd, &n, sizeof(n)) < 0 && errno == ECANCELED;

        (void) events;
        begin_due(schedules, was_set);
        arm_for_earliest(schedules);
}

static int open_clock(Schedules *schedules) {
        if (schedules->fd >= 0)
                return 0;
        schedules->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
        if (schedules->fd < 0)
                return -errno;
        loop_io_set(schedules->loop, &schedules->io, schedules->fd, LOOP_IN);
        return 0;
}

static void wait_for_clock(Schedules *schedules, Runner *runner, uint64_t wall_us) {
        int r = open_clock(schedules);

        runner->next_us = wall_us;
        if (r < 0) { /* looked at again soon; the monotonic clock is all there is */
                log_error("runner %s: cannot wait for its time: %s; trying again", runner->name, strerror(-r));
                runner_set_timer(runner, clock_after(clock_now(), RETRY_US));
                return;
        }
        if (!runner->in_schedule)
                TAILQ_INSERT_TAIL(&schedules->waiting, runner, scheduled);
        runner->in_schedule = true;
        if (wall_us < schedules->armed_us)
                arm(schedules, wall_us);
}

/* ----------------------------------------------------------------------------------------------------------- the runner */

/* every() - the next beginning that is not over yet, counted from the last one. */
static void every(Runner *runner, uint64_t period_us) {
        uint64_t now = clock_now(), next = runner->begun_us ? runner->begun_us : now;

        if (runner->begun_us)
                next = clock_after(next, (now > next ? (now - next) / period_us + 1 : 1) * period_us);
        runner->next_us = clock_after(clock_wall(), next - now);
        runner_set_timer(runner, next);
}

void schedule_next(Runner *runner) {
        const ConfigSchedule *schedule = runner->config->schedule;

        if (!schedule)
                runner_raise(runner, POLICY_EVENT_TIME); /* the configuration has changed: it is an ordinary one now */
        else if (schedule->every_us)
                every(runner, schedule->every_us);
        else
                wait_for_clock(runner->supervisor->schedules, runner, config_schedule_next(schedule, clock_wall()));
}

void schedule_restore(Runner *runner, uint64_t wall_us) {
        const ConfigSchedule *schedule = runner->config->schedule;

        if (schedule && !schedule->every_us && wall_us)
                wait_for_clock(runner->supervisor->schedules, runner, wall_us);
        else
                runner_raise(runner, POLICY_EVENT_NEXT);
}

void schedule_stop(Runner *runner) {
        Schedules *schedules = runner->supervisor->schedules;

        if (!runner->in_schedule)
                return;
        leave(schedules, runner);
        if (TAILQ_EMPTY(&schedules->waiting))
                arm(schedules, USEC_INFINITY);
}

/* --------------------------------------------------------------------------------------------------------------- itself */

int schedules_new(Schedules **ret_schedules, Loop *loop) {
        Schedules *schedules = calloc(1, sizeof(*schedules));

        if (!schedules)
                return -ENOMEM;
        *schedules = (Schedules){ .loop = loop, .fd = -1, .io = LOOP_IO_NULL(clock_ready), .armed_us = USEC_INFINITY };
        TAILQ_INIT(&schedules->waiting);
        *ret_schedules = schedules;
        return 0;
}

Schedules *schedules_free(Schedules *schedules) {
        if (!schedules)
                return NULL;
        loop_io_stop(&schedules->io);
        fd_close(schedules->fd);
        free(schedules);
        return NULL;
}

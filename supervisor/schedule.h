#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Schedules: when a runner with one is started next. `every' is a time from the beginning of one run to that of the next, by
 * the monotonic clock; `at' are calendar times, by the wall clock, which may be set.
 *
 * A run is never begun while another goes on: times that pass meanwhile are left out. So are those that pass while the
 * supervisor is not there. A wall clock that is set forward over a time begins one run at once, however many times it
 * passed; one that is set back makes it wait for the next time after what the clock says now.
 */

#include "supervisor/runner.h"

typedef struct Schedules Schedules;

/* schedules_new() - no descriptor or timer is used before there is a time to wait for. 0 or -ENOMEM. */
int schedules_new(Schedules **ret_schedules, Loop *loop);
/* schedules_free() - nobody is in it any more. Accepts NULL, returns NULL. */
Schedules *schedules_free(Schedules *schedules);

/* schedule_next() - TIME is raised for @runner at the next time of its configuration's schedule; next_us says when. */
void schedule_next(Runner *runner);
/* schedule_restore() - it waits, as in a predecessor, until @wall_us by the wall clock. */
void schedule_restore(Runner *runner, uint64_t wall_us);
/* schedule_stop() - it is not. */
void schedule_stop(Runner *runner);

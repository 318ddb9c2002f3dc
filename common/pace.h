#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Long work beside others that serve people. A kernel that is not preemptible leaves a process that computes alone until its
 * next tick, 4 ms with 250 Hz; whoever was woken on the same processor waits as long, even if another one is idle meanwhile.
 * sched_yield() and priorities do not help: with autogroups, or control groups, they count among those of one group only. What
 * helps is to sleep for a moment, again and again: then the processor is anybody's, and who computes has less of a claim to it.
 *
 * One pace for the whole process, which is single-threaded.
 */

#include <stdbool.h>

/* pace_begin() - long work begins, or goes on after a wait. */
void pace_begin(void);

/* pace_begin_idly() - the same, of work for whose end nobody waits: most of the time is rest. */
void pace_begin_idly(void);

/* pace_end() - it is done: pace_keep() does nothing any more. */
void pace_end(void);

/*
 * pace_keep() - to be called after each small piece of long work, some microseconds: after half a millisecond of it sleeps for
 * some 50 us, where nobody waits after a tenth of one for 250 us. Whether it has. Nothing where no long work has begun.
 */
bool pace_keep(void);

/* pace_rest() - sleeps at once: after work that cannot be divided. */
void pace_rest(void);

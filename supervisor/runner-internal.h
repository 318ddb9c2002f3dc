#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the runner share, with fleet and groups, and nobody else includes: runner.c (the object), runner-life.c
 * (what becomes of it), runner-order.c (what it waits for).
 */

#include "common/macro.h"
#include "supervisor/config.h"
#include "supervisor/instance.h"
#include "supervisor/runner.h"

/* ---- runner.c ---- */
/* runner_new_hidden() - as runner_new(), named as @config is, in no table: forgotten by itself when it has ended. */
int runner_new_hidden(Runner **ret_runner, Supervisor *supervisor, RunnerConfig *config);
/* runner_free() - its instance too. It is in no table, no group, and nobody's neighbour any more. */
void runner_free(Runner *runner);
/* runner_forget() - it is at rest: out of every list, watchers hear GONE, and it is freed. */
void runner_forget(Runner *runner);
/* runner_set_why() - replaces it; NULL: nothing to say. */
void runner_set_why(Runner *runner, const char *format, ...) _printf_(2, 3);
/* runner_tell() - whoever watches it. */
void runner_tell(Runner *runner, RunnerOutcome outcome);
/* runner_forget_exits() - the history is empty. */
void runner_forget_exits(Runner *runner);
/* runner_note_exit() - into the history; instead of what it says of the same instance, if that is the last there. */
void runner_note_exit(Runner *runner, const RunnerExit *exit);

/* ---- runner-life.c ---- */
/*
 * runner_raise() - an event of its policy, handled in the loop. One of a kind waits at a time; what is wanted of the runner
 * is in `desired', so that of START, STOP and RESTART the last one counts.
 */
void runner_raise(Runner *runner, PolicyEvent event);
/* runner_handle() - all that was raised. Called by the supervisor's task. */
void runner_handle(Runner *runner);
/* runner_begin() - as its configuration wants it: up, or at the next time of its schedule. */
void runner_begin(Runner *runner);
/* runner_forgive() - failures and counters are forgotten. */
void runner_forgive(Runner *runner);
/* runner_set_timer() - TIME is raised at @deadline_us (monotonic). */
void runner_set_timer(Runner *runner, uint64_t deadline_us);
/* runner_stop_timer() - that, and its place in the schedule. */
void runner_stop_timer(Runner *runner);
/*
 * runner_fail() - what it requires, or its group, has failed: so it does; @unmet is which of the two. Nothing where it is
 * down, or on its way there.
 */
void runner_fail(Runner *runner, RunnerUnmet unmet, const char *format, ...) _printf_(3, 4);

/* runner_describe_end() - one line: why there is no such process any more. Returns @text. */
const char *runner_describe_end(const Instance *instance, char *text, size_t size);
/* runner_note_past() - the end of one that had a successor: nobody's failure. */
void runner_note_past(Runner *runner, const Instance *instance);
/* runner_upgrade_over() - its upgrade is; @old_gone: and the predecessor, which had to go on, is not there any more. */
void runner_upgrade_over(Runner *runner, bool old_gone);

/* runner_has_process() - or is just about to have one. */
static inline bool runner_has_process(const Runner *runner) {
        return runner->state == POLICY_STARTING || runner->state == POLICY_UP || runner->state == POLICY_STOPPING;
}

/* runner_is_occupied() - by an instance that is not over. */
static inline bool runner_is_occupied(const Runner *runner) {
        return runner->instance && !runner->instance->over;
}

/* ---- runner-order.c ---- */
/* runner_consider() - it is WAITING: SATISFIED or UNMET is raised if it is time for that. */
void runner_consider(Runner *runner);
/* runner_release() - it is STOPPING: those that require it are asked to go first; FREE is raised when none is left. */
void runner_release(Runner *runner);
/* runner_changed() - its state has: its neighbours look again at what they wait for. */
void runner_changed(Runner *runner);
/* runner_start_required() - those that it requires are wanted up, too. */
void runner_start_required(Runner *runner);
/* runner_restart_dependants() - those that require it and run. */
void runner_restart_dependants(Runner *runner);
/* runner_forget_links() - of all runners, one after the other: those that it had links to have theirs until it is their turn. */
void runner_forget_links(Runner *runner);
/* runner_link() - anew, by its configuration, after runner_forget_links() of all. 0 or -ENOMEM. runner_unlink() - of one. */
int runner_link(Runner *runner);
void runner_unlink(Runner *runner);

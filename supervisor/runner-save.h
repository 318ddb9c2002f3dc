#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner, written down for a successor: whatever the keeper's table and its record do not say, the state of its present
 * instance, or of its last, with it; the connection of that is apart (instance_save()). In the successor, in this order:
 *
 *     fleet_restore()    - makes runners that its configuration does not lead to, forgets those that are no more; each that
 *                          was told of has runner->crossed from then on
 *     instance_adopt()   - of those that have a process: by the keeper's table, as after a crash
 *     runner_restore_crossed() - and then each is exactly what it was
 *
 * any number of times while the predecessor serves, since each of the two that tell of a runner, the predecessor and the
 * keeper, may be ahead of the other: what was said last is restored when the instance is the one that it is about.
 *
 * Nothing of it reads or writes a descriptor or says anything to the keeper: that begins when the loop turns.
 */

#include "proto/manifest.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/instance.h"
#include "supervisor/runner.h"

/* runner_save() - a terminal that waits for its process goes into @manifest. 0; -ENOMEM; errors of manifest_add(). */
int runner_save(const Runner *runner, Manifest *manifest, Baton__Snapshot__Runner **ret_message);

/*
 * runner_make_crossed() - one that the configuration has not led to; with @hidden, its configuration, one that is in no table
 * (runner_new_hidden()). 0; -EPROTO: there can be none of that name; -EEXIST; -ENOMEM.
 */
int runner_make_crossed(Supervisor *supervisor, const Baton__Snapshot__Runner *message, RunnerConfig *hidden,
                        Runner **ret_runner);

/*
 * runner_cross() - one that there is already: @message, which has to stay until fleet_restored(), has it. 1: it has another
 * configuration now, and another place among the others; 0.
 */
int runner_cross(Runner *runner, const Baton__Snapshot__Runner *message);

/* runner_cross_configuration() - of @instance, that it was started with, where its runner crosses. */
void runner_cross_configuration(Instance *instance);

/* runner_exit_save(), runner_exit_restore() - one of its ends. */
void runner_exit_save(const RunnerExit *exit, Baton__Snapshot__Exit *to);
void runner_exit_restore(const Baton__Snapshot__Exit *from, RunnerExit *ret_exit);

/* runner_next_program() - what its next process executes in place of the file at its path, which is the runner's yet; -1: that one. */
int runner_next_program(const Runner *runner);

/*
 * runner_can_be_restored() - while the predecessor serves: what there is is what runner->crossed is about.
 * runner_restore_crossed() - to what runner->crossed says, if it says anything, again if need be.
 */
bool runner_can_be_restored(const Runner *runner);
void runner_restore_crossed(Runner *runner, Manifest *manifest);

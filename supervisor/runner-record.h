#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner's record in the keeper (record.h): written at every change that another supervisor could not find out by itself,
 * into the slot of its instance, which stays, without a process, until the next instance is there.
 */

#include "supervisor/record.h"
#include "supervisor/runner.h"

/* runner_is_recorded() - in a daemon: every runner but those that are forgotten with their process. */
bool runner_is_recorded(const Runner *runner);

/* runner_pack() - as it is now, for the slot of @instance, which may be any of its own (NULL: there is none). */
void runner_pack(const Runner *runner, const Instance *instance, uint8_t bytes[KEEPER_RECORD_SIZE]);

/* runner_record_instance() - what @instance, any of its own, is to it has changed. */
void runner_record_instance(const Runner *runner, const Instance *instance);

/* runner_record() - its state has changed. */
void runner_record(Runner *runner);

/* runner_record_started() - the slot of its present instance has a process: the one of the last instance goes. */
void runner_record_started(Runner *runner);

/* runner_record_ended() - in place of keeper_link_ack(): the exit has taken effect, the slot stays with the record. */
void runner_record_ended(Runner *runner);

/* runner_record_forget() - there is no such runner any more. */
void runner_record_forget(Runner *runner);

/* runner_as_made() - it has no instance: everything that was restored is forgotten, and it begins as it is configured. */
void runner_as_made(Runner *runner);

/*
 * runner_restore() - what it counts, and how it ended last, from @record. Of what was wanted, and of what it waits for, only
 * where it has no process (slot @kept, its own from now on): its state is then as if nothing had been, or, where it was
 * in the middle of something, as its configuration and `desired' lead to.
 */
void runner_restore(Runner *runner, const Record *record);
void runner_restore_kept(Runner *runner, const Record *record, uint64_t kept);

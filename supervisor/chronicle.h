#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The chronicle: what has become of runners, so that a supervisor that follows one that died knows it: their ends, their
 * upgrades, the program that an upgrade has put in place of the configured one, why they have failed, and what a client's
 * runner was started with. What a runner is at the moment is in its record (record.h); a successor in a takeover is told all
 * of it by its predecessor, and only writes on.
 */

#include "supervisor/runner.h"
#include "supervisor/upgrade.h"

typedef struct Chronicle Chronicle;

/* chronicle_new() - nothing is allocated before there is something to tell. 0 or -ENOMEM. */
int chronicle_new(Chronicle **ret_chronicle, Supervisor *supervisor);
/* chronicle_free() - accepts NULL, returns NULL. */
Chronicle *chronicle_free(Chronicle *chronicle);

/* chronicle_stored() - the keeper has @fd_consume of a supervisor before; the last that it tells of counts. */
void chronicle_stored(Chronicle *chronicle, int fd_consume);

/* ---- one that recovers ---- */

/* chronicle_read() - all that was written; what cannot be read is left out, with a warning. */
void chronicle_read(Chronicle *chronicle);

/*
 * chronicle_configure() - @runner, whose process is @instance (0: it has none), is given the program that it had; to be
 * called before the instance is made.
 */
void chronicle_configure(Runner *runner, uint64_t instance);

/* chronicle_configuration() - one reference to what a client's runner was started with; NULL: that is not known. */
RunnerConfig *chronicle_configuration(const Chronicle *chronicle, const char *name);

/* chronicle_restore() - its ends and its upgrades, after what its record says. */
void chronicle_restore(Runner *runner);

/* chronicle_restore_why() - why it has failed, or waits. False: that is not known. */
bool chronicle_restore_why(Runner *runner);

/* ---- writing ---- */

/* chronicle_begin() - all is ours from here on: what was read is forgotten, and what happens is written. */
void chronicle_begin(Chronicle *chronicle);

/*
 * What has just become so of a runner. Each does nothing for one that nobody would adopt, and before chronicle_begin(). Lack
 * of memory is logged once.
 */
void chronicle_exit(const Runner *runner, const RunnerExit *exit);
void chronicle_upgrade(const Runner *runner);
void chronicle_why(const Runner *runner);
void chronicle_made(const Runner *runner);
void chronicle_forget(const Runner *runner);
/* chronicle_program() - what it is started from now, where that is not, or not any more, what is configured. */
void chronicle_program(const Runner *runner);
/* chronicle_program_of() - and what it is to be if @instance, of @config, turns out to be the one that serves. */
void chronicle_program_of(const Runner *runner, const RunnerConfig *config, uint64_t instance);

DEFINE_CLEANUP(Chronicle *, chronicle_free);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Transient runners: those that a client's Start makes. Restart never, and forgotten some time after their end: until then
 * whoever follows its log, or stops it once more, still finds it.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "supervisor/config.h"
#include "supervisor/runner.h"

enum {
        TRANSIENT_ENDED_MAX = 16, /* ended ones that are remembered; the oldest is forgotten first */
        TRANSIENT_HINTS = 64,
};

/* Where to go on looking for a number that is free; each for the names of one program, or of several. */
typedef struct TransientHint {
        uint32_t hash, next;
} TransientHint;

typedef struct Transients {
        TAILQ_HEAD(, Runner) ended; /* by their `member', oldest first */
        unsigned n_ended;
        TransientHint hints[TRANSIENT_HINTS];
} Transients;

void transients_init(Transients *transients);

/* transient_name() - "echo.1" from /usr/bin/echo, with a number that is free. Returns @name. */
const char *transient_name(Supervisor *supervisor, const char *program, char name[CONFIG_NAME_MAX + 1]);

/*
 * transient_start() - makes a runner with @config and starts it, on the terminal @terminal_fd_consume, -1: none. One that has
 * ended gives its name away. 0; -EEXIST: a runner of that name is there; -ESHUTDOWN: we are stopping; -ENOMEM.
 */
int transient_start(Supervisor *supervisor, RunnerConfig *config, int terminal_fd_consume, Runner **ret_runner);

/* transient_settled() - it is not running, and nobody has anything to tell it: remembered, or forgotten. */
void transient_settled(Runner *runner);

/* transient_restore_ended() - one that came from a predecessor is remembered as it was there, or not any more. */
void transient_restore_ended(Runner *runner, bool ended);

/* transient_forget() - of one that has ended. */
void transient_forget(Runner *runner);

/* transient_name_is_valid() - 1-63 characters: letters, digits and . _ - @ */
bool transient_name_is_valid(const char *name);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration as a whole: read at the start, and again when somebody asks for that; kept by the keeper as it was read. */

#include <stdbool.h>

#include "supervisor/config.h"
#include "supervisor/fleet.h"

typedef struct Reload Reload;

/* What came of it. Null value: all zero. */
struct Reload {
        Config *before,
                *after; /* a reference each, for the difference; NULL: there was none, or it could not be used */
        ConfigDifference difference;
        ConfigErrors errors;
        char error[FLEET_ERROR_SIZE]; /* of what the lines in `errors' do not say; "": nothing */
};

/* reload_deinit() */
void reload_deinit(Reload *reload);

/*
 * reload_first() - the configuration of a supervisor that begins: read from @paths (ended by NULL), or, where @kept_fd
 * (borrowed) is not -1, as a supervisor before this one had read it. Runners are made, and begun. Says itself what is
 * wrong. 0 or a negative errno.
 */
int reload_first(Supervisor *supervisor, char *const *paths, int kept_fd);

/*
 * reload_run() - reads it again from where it was read, and applies what changed, all of it or nothing; with @dry_run only
 * says what would. 0; -EINVAL: it cannot be used, see ret_reload->errors; -ENOENT: this supervisor has no configuration;
 * errors of fleet_apply(). @ret_reload is written in any case, and the caller's to deinit.
 */
int reload_run(Supervisor *supervisor, bool dry_run, Reload *ret_reload);

/*
 * reload_adopt_metrics() - in a successor, which opens no address while its predecessor still has it: at the end, by the
 * listener of the predecessor, @fd_consume (-1: it had none), at @address. Taken on every path.
 */
void reload_adopt_metrics(Supervisor *supervisor, const char *address, int fd_consume);

/* reload_by_signal() - the same, where nobody waits for an answer: the result is logged. */
void reload_by_signal(Supervisor *supervisor);

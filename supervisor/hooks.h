#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exec hooks: programs that are run when something happens to a runner. They are started like runners, with the runner's own
 * environment, user and directory, and told about it in BATON_RUNNER, BATON_EVENT and more; nobody waits for them. At most
 * HOOKS_RUNNING_MAX of all runners run at once, others wait their turn; one that is not done in its time is killed. What
 * goes wrong is logged, with the last lines it wrote, and has no effect on anything.
 */

#include "proto/manifest.h"
#include "supervisor/runner.h"

typedef struct Baton__Snapshot__Hook Baton__Snapshot__Hook;
typedef struct Baton__Snapshot__Snapshot Baton__Snapshot__Snapshot;
typedef struct Hooks Hooks;

enum {
        HOOKS_RUNNING_MAX = 8,
        HOOKS_WAITING_MAX = 1024, /* beyond it they are left out, which is said */
};

/* hooks_new() - 0 or -ENOMEM. */
int hooks_new(Hooks **ret_hooks, Supervisor *supervisor);
/* hooks_free() - of a supervisor whose runners are gone. Accepts NULL, returns NULL. */
Hooks *hooks_free(Hooks *hooks);

/* hooks_stop() - none begins any more, those that run are stopped: the supervisor is stopping. */
void hooks_stop(Hooks *hooks);

/* hooks_run() - those of @runner for @event: its PolicyState, or CONFIG_HOOK_EXIT. Not while the supervisor is stopping. */
void hooks_run(const Runner *runner, unsigned event);

/*
 * hooks_save() - into @snapshot's hooks, for a successor. 0 or a negative errno. In the successor hooks_restore() makes
 * them, each `crossed', as fleet_restore() makes runners; hooks_find() is the one that runs under the name @name, or NULL;
 * and hooks_restore_crossed() restores what they were (runner_restore_crossed()).
 */
int hooks_save(const Hooks *hooks, Manifest *manifest, Baton__Snapshot__Snapshot *snapshot);
void hooks_restore(Hooks *hooks, const Baton__Snapshot__Snapshot *snapshot);
Runner *hooks_find(const Hooks *hooks, const char *name);
void hooks_restore_crossed(Hooks *hooks, Manifest *manifest);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Upgrade, its table. What shapes it:
 * - Until COMMITTING whatever fails takes the same way: the successor is killed, its end is awaited, and only then does the
 *   predecessor serve again. So there are never two that serve, and while one of them lives never none.
 * - From COMMITTING on the predecessor is not needed: its end then changes nothing. What fails on the successor's side
 *   takes the way back, with the keeper's word first, so that a supervisor that follows us goes the same way.
 * - From SWITCH on the predecessor is on its way out, and cannot be called back: it may be gone, and its state is old. So what
 *   fails then leads to an upgrade of its own, in the other direction.
 * - Ends may come in every phase, twice never. FAILED may come late (a time-out beside an end) and then means nothing.
 */

#include "supervisor/upgrade-phase.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

typedef struct Transition {
        bool valid;
        UpgradePhase next;
        UpgradeAction action;
} Transition;

/* clang-format off */
#define T(_next, _action) { true, UPGRADE_##_next, UPGRADE_ACTION_##_action }
static const Transition table[_UPGRADE_PHASE_N][_UPGRADE_EVENT_N] = {
        [UPGRADE_STARTING] = {
                [UPGRADE_EVENT_READY]    = T(CROSSING, CROSS),
                [UPGRADE_EVENT_FAILED]   = T(UNDOING, KILL_NEW),
                [UPGRADE_EVENT_NEW_GONE] = T(RESUMING, RESUME),
                [UPGRADE_EVENT_OLD_GONE] = T(UNDOING, KILL_NEW),
        },
        [UPGRADE_CROSSING] = {
                [UPGRADE_EVENT_DONE]     = T(COMMITTING, COMMIT),
                [UPGRADE_EVENT_FAILED]   = T(UNDOING, KILL_NEW),
                [UPGRADE_EVENT_NEW_GONE] = T(RESUMING, RESUME),
                [UPGRADE_EVENT_OLD_GONE] = T(UNDOING, KILL_NEW),
        },
        [UPGRADE_COMMITTING] = {
                [UPGRADE_EVENT_DONE]     = T(BEGINNING, BEGIN),
                [UPGRADE_EVENT_FAILED]   = T(UNDOING, REVERT),
                [UPGRADE_EVENT_NEW_GONE] = T(RESUMING, GO_BACK),
                [UPGRADE_EVENT_OLD_GONE] = T(COMMITTING, NONE),
        },
        [UPGRADE_BEGINNING] = {
                [UPGRADE_EVENT_DONE]     = T(WATCHING, SWITCH),
                [UPGRADE_EVENT_FAILED]   = T(UNDOING, REVERT),
                [UPGRADE_EVENT_NEW_GONE] = T(RESUMING, GO_BACK),
                [UPGRADE_EVENT_OLD_GONE] = T(BEGINNING, NONE),
        },
        [UPGRADE_WATCHING] = {
                [UPGRADE_EVENT_DONE]     = T(OVER, FINISH),
                [UPGRADE_EVENT_FAILED]   = T(OVER, RETURN),
                [UPGRADE_EVENT_NEW_GONE] = T(OVER, RETURN),
                [UPGRADE_EVENT_OLD_GONE] = T(WATCHING, NONE),
        },
        [UPGRADE_UNDOING] = {
                [UPGRADE_EVENT_DONE]     = T(UNDOING, NONE),
                [UPGRADE_EVENT_FAILED]   = T(UNDOING, NONE),
                [UPGRADE_EVENT_NEW_GONE] = T(RESUMING, RESUME),
                [UPGRADE_EVENT_OLD_GONE] = T(UNDOING, NONE),
        },
        [UPGRADE_RESUMING] = {
                [UPGRADE_EVENT_DONE]     = T(OVER, FINISH),
                [UPGRADE_EVENT_FAILED]   = T(RESUMING, KILL_OLD),
                [UPGRADE_EVENT_OLD_GONE] = T(OVER, FINISH),
        },
};
/* clang-format on */
#undef T

static const char *const phase_names[] = {
        [UPGRADE_STARTING] = "starting",   [UPGRADE_CROSSING] = "crossing", [UPGRADE_COMMITTING] = "committing",
        [UPGRADE_BEGINNING] = "beginning", [UPGRADE_UNDOING] = "undoing",   [UPGRADE_RESUMING] = "resuming",
        [UPGRADE_OVER] = "over",           [UPGRADE_WATCHING] = "watching",
};
static_assert(ARRAY_SIZE(phase_names) == _UPGRADE_PHASE_N, "a name for each phase");

static const char *const event_names[] = {
        [UPGRADE_EVENT_READY] = "ready",       [UPGRADE_EVENT_DONE] = "done",
        [UPGRADE_EVENT_FAILED] = "failed",     [UPGRADE_EVENT_NEW_GONE] = "new-gone",
        [UPGRADE_EVENT_OLD_GONE] = "old-gone",
};
static_assert(ARRAY_SIZE(event_names) == _UPGRADE_EVENT_N, "a name for each event");

static const char *const action_names[] = {
        [UPGRADE_ACTION_NONE] = "none",         [UPGRADE_ACTION_CROSS] = "cross",
        [UPGRADE_ACTION_COMMIT] = "commit",     [UPGRADE_ACTION_BEGIN] = "begin",
        [UPGRADE_ACTION_KILL_NEW] = "kill-new", [UPGRADE_ACTION_REVERT] = "revert",
        [UPGRADE_ACTION_RESUME] = "resume",     [UPGRADE_ACTION_GO_BACK] = "go-back",
        [UPGRADE_ACTION_KILL_OLD] = "kill-old", [UPGRADE_ACTION_FINISH] = "finish",
        [UPGRADE_ACTION_SWITCH] = "switch",     [UPGRADE_ACTION_RETURN] = "return",
};
static_assert(ARRAY_SIZE(action_names) == _UPGRADE_ACTION_N, "a name for each action");

int upgrade_next(UpgradePhase phase, UpgradeEvent event, UpgradePhase *ret_next, UpgradeAction *ret_action) {
        const Transition *t = &table[phase][event];

        if (!t->valid)
                return -EINVAL;
        *ret_next = t->next;
        *ret_action = t->action;
        return 0;
}

const char *upgrade_phase_name(UpgradePhase phase) {
        return phase_names[phase];
}

const char *upgrade_event_name(UpgradeEvent event) {
        return event_names[event];
}

const char *upgrade_action_name(UpgradeAction action) {
        return action_names[action];
}

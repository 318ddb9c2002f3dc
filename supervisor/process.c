/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Process: which event leads where. Two rules shape the table:
 * - DOWN is left by START alone and, once there is a child, entered by EXITED alone: whoever reads DOWN knows that no
 *   process is left and that its end has been reported. A killed process is STOPPING until then.
 * - Everything that can be raised twice in one turn of the loop (a lost connection after an exit, a second stop) is
 *   either in the table with action NONE or missing; what is missing is refused and reported by the caller, never guessed.
 * EXITED and LOST race: the end of the lane and the keeper's report of the exit arrive in either order. LOST first makes
 * the process STOPPING with a moment of patience, so that a runner that closes its lane and returns from main() is not
 * killed for it; EXITED first makes LOST arrive in DOWN, where it means nothing any more.
 */

#include "supervisor/process.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "common/macro.h"

typedef struct Transition {
        bool valid;
        ProcessState next;
        ProcessAction action;
} Transition;

/* clang-format off */
#define T(_next, _action) { true, PROCESS_##_next, PROCESS_ACTION_##_action }
static const Transition table[_PROCESS_STATE_N][_PROCESS_EVENT_N] = {
        [PROCESS_DOWN] = {
                [PROCESS_EVENT_START]   = T(STARTING, SPAWN),
                [PROCESS_EVENT_LOST]    = T(DOWN, NONE),
        },
        [PROCESS_STARTING] = {
                [PROCESS_EVENT_FAILED]  = T(DOWN, ABANDON),
                [PROCESS_EVENT_DOOMED]  = T(STOPPING, KILL),
                [PROCESS_EVENT_READY]   = T(UP, ANNOUNCE),
                [PROCESS_EVENT_LOST]    = T(STOPPING, LEAVE),
                [PROCESS_EVENT_STOP]    = T(STOPPING, ASK),
                [PROCESS_EVENT_TIMEOUT] = T(STOPPING, KILL),
                [PROCESS_EVENT_EXITED]  = T(DOWN, BURY),
        },
        [PROCESS_UP] = {
                [PROCESS_EVENT_DOOMED]  = T(STOPPING, KILL),
                [PROCESS_EVENT_LOST]    = T(STOPPING, LEAVE),
                [PROCESS_EVENT_STOP]    = T(STOPPING, ASK),
                [PROCESS_EVENT_EXITED]  = T(DOWN, BURY),
        },
        [PROCESS_STOPPING] = {
                [PROCESS_EVENT_DOOMED]  = T(STOPPING, NONE),
                [PROCESS_EVENT_LOST]    = T(STOPPING, NONE),
                [PROCESS_EVENT_STOP]    = T(STOPPING, NONE),
                [PROCESS_EVENT_TIMEOUT] = T(STOPPING, ESCALATE),
                [PROCESS_EVENT_EXITED]  = T(DOWN, BURY),
        },
};
/* clang-format on */
#undef T

static const char *const state_names[] = {
        [PROCESS_DOWN] = "down",
        [PROCESS_STARTING] = "starting",
        [PROCESS_UP] = "up",
        [PROCESS_STOPPING] = "stopping",
};
static_assert(ARRAY_SIZE(state_names) == _PROCESS_STATE_N, "a name for each state");

static const char *const event_names[] = {
        [PROCESS_EVENT_START] = "start",     [PROCESS_EVENT_FAILED] = "failed", [PROCESS_EVENT_DOOMED] = "doomed",
        [PROCESS_EVENT_READY] = "ready",     [PROCESS_EVENT_LOST] = "lost",     [PROCESS_EVENT_STOP] = "stop",
        [PROCESS_EVENT_TIMEOUT] = "timeout", [PROCESS_EVENT_EXITED] = "exited",
};
static_assert(ARRAY_SIZE(event_names) == _PROCESS_EVENT_N, "a name for each event");

static const char *const action_names[] = {
        [PROCESS_ACTION_NONE] = "none",         [PROCESS_ACTION_SPAWN] = "spawn", [PROCESS_ACTION_ABANDON] = "abandon",
        [PROCESS_ACTION_ANNOUNCE] = "announce", [PROCESS_ACTION_ASK] = "ask",     [PROCESS_ACTION_LEAVE] = "leave",
        [PROCESS_ACTION_ESCALATE] = "escalate", [PROCESS_ACTION_KILL] = "kill",   [PROCESS_ACTION_BURY] = "bury",
};
static_assert(ARRAY_SIZE(action_names) == _PROCESS_ACTION_N, "a name for each action");

int process_next(ProcessState state, ProcessEvent event, ProcessState *ret_next, ProcessAction *ret_action) {
        const Transition *t = &table[state][event];

        if (!t->valid)
                return -EINVAL;
        *ret_next = t->next;
        *ret_action = t->action;
        return 0;
}

const char *process_state_name(ProcessState state) {
        return state_names[state];
}

const char *process_event_name(ProcessEvent event) {
        return event_names[event];
}

const char *process_action_name(ProcessAction action) {
        return action_names[action];
}

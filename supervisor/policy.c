/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Policy: which event leads where, how an end is judged, and how long is waited. Rules that shape the table:
 * - Only WAITING leads to a process, by SATISFIED, and only the end of a process leads out of STARTING, UP and STOPPING:
 *   so there is never a second one, whatever is asked for in which order.
 * - A stop, a restart, and the failure of what is required all lead to STOPPING. What follows it is not remembered there but
 *   judged at its end from what is wanted by then: a start that comes during a stop makes it a restart, without a word here.
 * - In STOPPING the process may still be up: first those that require this runner go (RELEASE, FREE), then it.
 * - An event that may come late (a dependency that fails once more, a second stop) is in the table with action NONE;
 *   what is missing would be a mistake of the caller's, is refused, and reported by it.
 *
 * The judgement knows nothing of groups: whether the limit is reached, the runner's own or its group's, is one of its facts.
 * A delay grows from its initial value by a factor and is cut at its maximum before the jitter takes something off, so that
 * many that died together do not come back together even when all are at the maximum.
 */

#include "supervisor/policy.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

typedef struct Transition {
        bool valid;
        PolicyState next;
        PolicyAction action;
} Transition;

/* clang-format off */
#define T(_next, _action) { true, POLICY_##_next, POLICY_ACTION_##_action }
#define ENDS                                              \
        [POLICY_EVENT_ENDED]     = T(DOWN, SETTLE),       \
        [POLICY_EVENT_AGAIN]     = T(WAITING, CONSIDER),  \
        [POLICY_EVENT_RETRY]     = T(BACKOFF, DELAY),     \
        [POLICY_EVENT_COMPLETED] = T(DONE, SETTLE),       \
        [POLICY_EVENT_NEXT]      = T(SCHEDULED, SCHEDULE), \
        [POLICY_EVENT_GIVE_UP]   = T(FAILED, SETTLE)
static const Transition table[_POLICY_STATE_N][_POLICY_EVENT_N] = {
        [POLICY_DOWN] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(DOWN, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(DOWN, NONE),
                [POLICY_EVENT_NEXT]      = T(SCHEDULED, SCHEDULE),
        },
        [POLICY_SCHEDULED] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(SCHEDULED, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(SCHEDULED, NONE),
                [POLICY_EVENT_TIME]      = T(WAITING, CONSIDER),
                [POLICY_EVENT_NEXT]      = T(SCHEDULED, SCHEDULE),
        },
        [POLICY_WAITING] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(WAITING, FORGIVE),
                [POLICY_EVENT_SATISFIED] = T(STARTING, SPAWN),
                [POLICY_EVENT_UNMET]     = T(FAILED, SETTLE),
        },
        [POLICY_STARTING] = {
                [POLICY_EVENT_START]     = T(STARTING, NONE),
                [POLICY_EVENT_STOP]      = T(STOPPING, RELEASE),
                [POLICY_EVENT_RESTART]   = T(STOPPING, RELEASE),
                [POLICY_EVENT_RESET]     = T(STARTING, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(STOPPING, RELEASE),
                [POLICY_EVENT_READY]     = T(UP, ANNOUNCE),
                ENDS,
        },
        [POLICY_UP] = {
                [POLICY_EVENT_START]     = T(UP, NONE),
                [POLICY_EVENT_STOP]      = T(STOPPING, RELEASE),
                [POLICY_EVENT_RESTART]   = T(STOPPING, RELEASE),
                [POLICY_EVENT_RESET]     = T(UP, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(STOPPING, RELEASE),
                ENDS,
        },
        [POLICY_STOPPING] = {
                [POLICY_EVENT_START]     = T(STOPPING, NONE),
                [POLICY_EVENT_STOP]      = T(STOPPING, RELEASE),
                [POLICY_EVENT_RESTART]   = T(STOPPING, NONE),
                [POLICY_EVENT_RESET]     = T(STOPPING, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(STOPPING, NONE),
                [POLICY_EVENT_FREE]      = T(STOPPING, STOP),
                [POLICY_EVENT_READY]     = T(STOPPING, NONE),
                ENDS,
        },
        [POLICY_BACKOFF] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(BACKOFF, REVIVE),
                [POLICY_EVENT_UNMET]     = T(FAILED, SETTLE),
                [POLICY_EVENT_TIME]      = T(WAITING, CONSIDER),
        },
        [POLICY_FAILED] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(DOWN, REVIVE),
                [POLICY_EVENT_UNMET]     = T(FAILED, NONE),
        },
        [POLICY_DONE] = {
                [POLICY_EVENT_START]     = T(WAITING, CONSIDER),
                [POLICY_EVENT_STOP]      = T(DOWN, SETTLE),
                [POLICY_EVENT_RESTART]   = T(WAITING, CONSIDER),
                [POLICY_EVENT_RESET]     = T(DONE, FORGIVE),
                [POLICY_EVENT_UNMET]     = T(DONE, NONE),
                [POLICY_EVENT_NEXT]      = T(SCHEDULED, SCHEDULE),
        },
};
/* clang-format on */
#undef ENDS
#undef T

static const char *const state_names[] = {
        [POLICY_DOWN] = "down",       [POLICY_SCHEDULED] = "scheduled",
        [POLICY_WAITING] = "waiting", [POLICY_STARTING] = "starting",
        [POLICY_UP] = "up",           [POLICY_STOPPING] = "stopping",
        [POLICY_BACKOFF] = "backoff", [POLICY_FAILED] = "failed",
        [POLICY_DONE] = "done",
};
static_assert(ARRAY_SIZE(state_names) == _POLICY_STATE_N, "a name for each state");

static const char *const event_names[] = {
        [POLICY_EVENT_START] = "start",         [POLICY_EVENT_STOP] = "stop",
        [POLICY_EVENT_RESTART] = "restart",     [POLICY_EVENT_RESET] = "reset",
        [POLICY_EVENT_SATISFIED] = "satisfied", [POLICY_EVENT_UNMET] = "unmet",
        [POLICY_EVENT_FREE] = "free",           [POLICY_EVENT_READY] = "ready",
        [POLICY_EVENT_TIME] = "time",           [POLICY_EVENT_ENDED] = "ended",
        [POLICY_EVENT_AGAIN] = "again",         [POLICY_EVENT_RETRY] = "retry",
        [POLICY_EVENT_COMPLETED] = "completed", [POLICY_EVENT_NEXT] = "next",
        [POLICY_EVENT_GIVE_UP] = "give-up",
};
static_assert(ARRAY_SIZE(event_names) == _POLICY_EVENT_N, "a name for each event");

static const char *const action_names[] = {
        [POLICY_ACTION_NONE] = "none",       [POLICY_ACTION_CONSIDER] = "consider",
        [POLICY_ACTION_SPAWN] = "spawn",     [POLICY_ACTION_ANNOUNCE] = "announce",
        [POLICY_ACTION_RELEASE] = "release", [POLICY_ACTION_STOP] = "stop",
        [POLICY_ACTION_DELAY] = "delay",     [POLICY_ACTION_SCHEDULE] = "schedule",
        [POLICY_ACTION_SETTLE] = "settle",   [POLICY_ACTION_REVIVE] = "revive",
        [POLICY_ACTION_FORGIVE] = "forgive",
};
static_assert(ARRAY_SIZE(action_names) == _POLICY_ACTION_N, "a name for each action");

static const char *const restart_names[] = {
        [RESTART_NEVER] = "never",
        [RESTART_ON_FAILURE] = "on-failure",
        [RESTART_ALWAYS] = "always",
};
static_assert(ARRAY_SIZE(restart_names) == _RESTART_N, "a name for each");

int policy_next(PolicyState state, PolicyEvent event, PolicyState *ret_next, PolicyAction *ret_action) {
        const Transition *t = &table[state][event];

        if (!t->valid)
                return -EINVAL;
        *ret_next = t->next;
        *ret_action = t->action;
        return 0;
}

PolicyEvent policy_judge(const PolicyEnd *end) {
        bool retry = (end->restart == RESTART_ALWAYS && !(end->oneshot && end->succeeded)) ||
                     (end->restart == RESTART_ON_FAILURE && !end->succeeded);

        if (end->desired == DESIRED_DOWN)
                return POLICY_EVENT_ENDED;
        if (end->unmet)
                return POLICY_EVENT_GIVE_UP;
        if (end->stopped)
                return POLICY_EVENT_AGAIN;
        if (retry && !end->exhausted)
                return POLICY_EVENT_RETRY;
        if (end->scheduled)
                return POLICY_EVENT_NEXT;
        return end->succeeded && !retry ? POLICY_EVENT_COMPLETED : POLICY_EVENT_GIVE_UP;
}

/* ------------------------------------------------------------------------------------------------------- delay, limit */

uint64_t policy_delay(const PolicyBackoff *backoff, unsigned n, uint32_t random) {
        uint64_t delay = MIN(backoff->initial_us, backoff->max_us);
        uint64_t factor = MAX(backoff->factor_percent, 100u);

        /* Without growth the loop would only count; with it, it ends at the maximum after a few turns. */
        for (; n > 0 && factor > 100 && delay > 0 && delay < backoff->max_us; n--)
                delay = delay > UINT64_MAX / factor ? backoff->max_us
                                                    : MIN(MAX(delay * factor / 100, delay + 1), backoff->max_us);
        /* In parts of 2^32, so that neither a long delay nor a large random number wraps. */
        return delay -
               (uint64_t) ((unsigned __int128) delay * MIN(backoff->jitter_percent, 100u) * random / 100 >> 32);
}

bool policy_window_add(PolicyWindow *window, uint32_t max, uint64_t within_us, uint64_t now) {
        if (max == 0)
                return false;
        if (window->max != max)
                policy_window_reset(window);
        if (!window->times) {
                window->times = calloc(max, sizeof(*window->times));
                if (!window->times)
                        return false;
                window->max = max;
        }
        while (window->n > 0 && now - window->times[window->first] >= within_us) {
                window->first = (window->first + 1) % max;
                window->n--;
        }
        if (window->n == max)
                return true;
        window->times[(window->first + window->n++) % max] = now;
        return false;
}

void policy_window_reset(PolicyWindow *window) {
        free(window->times);
        *window = (PolicyWindow){ 0 };
}

/* -------------------------------------------------------------------------------------------------------------- names */

const char *policy_state_name(PolicyState state) {
        return state_names[state];
}

const char *policy_event_name(PolicyEvent event) {
        return event_names[event];
}

const char *policy_action_name(PolicyAction action) {
        return action_names[action];
}

const char *restart_policy_name(RestartPolicy restart) {
        return restart_names[restart];
}

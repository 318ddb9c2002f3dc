#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What becomes of a runner, as a table: pure, no I/O, no clock. It stands beside the process's own table (process.h), which
 * is about one start of it: three variables, none derived from another.
 * - Desired: what somebody wants of it.
 * - PolicyState: what baton is doing about that.
 * - ProcessState: what the process of its present instance is at.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

typedef enum Desired {
        DESIRED_DOWN,
        DESIRED_UP,
        _DESIRED_N,
} Desired;

typedef enum PolicyState {
        POLICY_DOWN,      /* no process, and none wanted */
        POLICY_SCHEDULED, /* waits for the next time of its schedule */
        POLICY_WAITING,   /* to be started as soon as what it comes after is there */
        POLICY_STARTING,  /* has a process that is not ready yet; a oneshot: until it has ended */
        POLICY_UP,        /* ready */
        POLICY_STOPPING,  /* on its way out by our wish, or waits for those that require it to be out */
        POLICY_BACKOFF,   /* has ended, and is started again when its delay is over */
        POLICY_FAILED,    /* is not started again by itself: runner->why says why */
        POLICY_DONE,      /* has ended well, and is not to be started again */
        _POLICY_STATE_N,
} PolicyState;

typedef enum PolicyEvent {
        POLICY_EVENT_START,     /* somebody wants it up */
        POLICY_EVENT_STOP,      /* somebody wants it down */
        POLICY_EVENT_RESTART,   /* somebody wants another instance of it */
        POLICY_EVENT_RESET,     /* failures and counters are forgotten */
        POLICY_EVENT_SATISFIED, /* what it comes after is there */
        POLICY_EVENT_UNMET,     /* what it requires has failed, or its group */
        POLICY_EVENT_FREE,      /* nobody who requires it is left */
        POLICY_EVENT_READY,     /* its process is */
        POLICY_EVENT_TIME,      /* its delay is over, or its schedule's time has come */

        /* Its process is gone, and this is what the judgement (policy_judge()) was: */
        POLICY_EVENT_ENDED,     /* as wanted: it is to be down */
        POLICY_EVENT_AGAIN,     /* to be started again at once */
        POLICY_EVENT_RETRY,     /* to be started again after a delay */
        POLICY_EVENT_COMPLETED, /* it ended well, and that was it */
        POLICY_EVENT_NEXT,      /* it ended, and its schedule goes on */
        POLICY_EVENT_GIVE_UP,   /* it failed, and is not to be started again */
        _POLICY_EVENT_N,
} PolicyEvent;

typedef enum PolicyAction {
        POLICY_ACTION_NONE,
        POLICY_ACTION_CONSIDER, /* look at what it comes after; SATISFIED or UNMET follows, now or later */
        POLICY_ACTION_SPAWN,    /* make an instance */
        POLICY_ACTION_ANNOUNCE, /* tell those that wait for it */
        POLICY_ACTION_RELEASE,  /* ask those that require it to go first; FREE follows, now or later */
        POLICY_ACTION_STOP,     /* stop the instance */
        POLICY_ACTION_DELAY,    /* TIME follows */
        POLICY_ACTION_SCHEDULE, /* TIME follows, at the next time of the schedule */
        POLICY_ACTION_SETTLE,   /* it is down, done or failed: no timer is left, those that wait are told */
        POLICY_ACTION_REVIVE,   /* forget the failures; if it is wanted up, START follows */
        POLICY_ACTION_FORGIVE,  /* forget the failures; nothing else changes */
        _POLICY_ACTION_N,
} PolicyAction;

typedef enum _packed_ RestartPolicy {
        RESTART_NEVER,
        RESTART_ON_FAILURE,
        RESTART_ALWAYS,
        _RESTART_N,
} RestartPolicy;

/*
 * policy_next() - what @event does in @state. 0 with next state and action; -EINVAL: not in the table, nothing changes.
 */
int policy_next(PolicyState state, PolicyEvent event, PolicyState *ret_next, PolicyAction *ret_action);

/* The facts about an end by which it is judged. */
typedef struct PolicyEnd {
        Desired desired;
        bool unmet;     /* it was stopped because what it requires, or its group, has failed */
        bool stopped;   /* it ended while a stop was going on */
        bool succeeded; /* its exit counts as a success */
        bool oneshot;
        bool scheduled;
        bool exhausted; /* the limit of restarts is reached */
        RestartPolicy restart;
} PolicyEnd;

/* policy_judge() - one of ENDED, AGAIN, RETRY, COMPLETED, NEXT, GIVE_UP. */
PolicyEvent policy_judge(const PolicyEnd *end);

/* How long to wait before a start. */
typedef struct PolicyBackoff {
        uint64_t initial_us; /* before the first; 0: none ever */
        uint64_t max_us;
        uint32_t factor_percent; /* each is so much of the one before: 200 doubles; below 100 counts as 100 */
        uint32_t jitter_percent; /* up to so much of it is taken off, at random; 0 to 100 */
} PolicyBackoff;

/* policy_delay() - before start number @n (from 0) in a row; @random decides about the jitter. */
uint64_t policy_delay(const PolicyBackoff *backoff, unsigned n, uint32_t random);

/*
 * The limit of restarts: at most @max within @within_us, in a window that slides. Memory is had at the first restart;
 * where there is none, it does not count: our shortage is not the runner's failure.
 */
typedef struct PolicyWindow {
        uint64_t *times; /* ring of @max; NULL: none yet */
        uint32_t max, n, first;
} PolicyWindow;

/* policy_window_add() - one more at @now. True: that is one too many. @max 0: no limit, always false. */
bool policy_window_add(PolicyWindow *window, uint32_t max, uint64_t within_us, uint64_t now);
/* policy_window_reset() - as new, and without memory. */
void policy_window_reset(PolicyWindow *window);

/* "up", "give-up", "consider", "on-failure". */
const char *policy_state_name(PolicyState state);
const char *policy_event_name(PolicyEvent event);
const char *policy_action_name(PolicyAction action);
const char *restart_policy_name(RestartPolicy restart);

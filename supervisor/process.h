#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The state of a runner's process, as a table: pure, no I/O. It is not the state of the service inside (INIT, READY,
 * RUNNING, STOPPED), nor what somebody wants of it: those are variables of their own.
 */

typedef enum ProcessState {
        PROCESS_DOWN,     /* no process, or one whose exit has taken effect */
        PROCESS_STARTING, /* being made; not yet there for callers */
        PROCESS_UP,       /* native: has said Hello; plain: was executed */
        PROCESS_STOPPING, /* on its way out, by our wish or by its own fault */
        _PROCESS_STATE_N,
} ProcessState;

typedef enum ProcessEvent {
        PROCESS_EVENT_START,
        PROCESS_EVENT_FAILED, /* a step before there was a child failed: no exit will be reported */
        PROCESS_EVENT_DOOMED, /* there is a child that could not execute, or lost its place: its exit will be reported */
        PROCESS_EVENT_READY, /* native: Hello; plain: executed */
        PROCESS_EVENT_LOST,  /* the connection to a native runner ended while the process lives */
        PROCESS_EVENT_STOP,
        PROCESS_EVENT_TIMEOUT, /* of the start, or of the present step of a stop */
        PROCESS_EVENT_EXITED,  /* the keeper's report */
        _PROCESS_EVENT_N,
} ProcessEvent;

typedef enum ProcessAction {
        PROCESS_ACTION_NONE,
        PROCESS_ACTION_SPAWN,
        PROCESS_ACTION_ABANDON,  /* undo what was prepared, tell the failed start; nothing to wait for */
        PROCESS_ACTION_ANNOUNCE, /* tell the start that it is up */
        PROCESS_ACTION_ASK,      /* begin the stop: ask, then SIGTERM, then SIGKILL */
        PROCESS_ACTION_LEAVE,    /* give it a moment to leave by itself, then go on as a stop */
        PROCESS_ACTION_ESCALATE, /* the next step of the stop */
        PROCESS_ACTION_KILL,     /* SIGKILL at once */
        PROCESS_ACTION_BURY,     /* release everything, tell whoever waits how it ended */
        _PROCESS_ACTION_N,
} ProcessAction;

/*
 * process_next() - what @event does in @state. 0 with next state and action; -EINVAL: not in the table, nothing changes.
 */
int process_next(ProcessState state, ProcessEvent event, ProcessState *ret_next, ProcessAction *ret_action);

/* process_state_name(), process_event_name(), process_action_name() - "starting", "exited", "bury". */
const char *process_state_name(ProcessState state);
const char *process_event_name(ProcessEvent event);
const char *process_action_name(ProcessAction action);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Service: the seven transitions of a runner's service. What is not in the table is refused, by name, and changes
 * nothing. Stop takes one step down at a time (RUNNING to READY, READY to STOPPED), so that a stopped service can be
 * handed to a successor while it still holds what it has mounted; Exit from READY leaves that to the successor.
 *
 * The table knows nothing of processes: whether the process is there, and what it is wanted to be, are separate
 * variables of the supervisor's.
 */

#include "proto/service.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

#include "common/macro.h"

typedef struct Transition {
        bool valid;
        ServiceState next;
        ServiceAction action;
} Transition;

#define T(_next, _action) \
        { true, SERVICE_STATE_##_next, SERVICE_ACTION_##_action }

static const Transition table[_SERVICE_STATE_N][_SERVICE_EVENT_N] = {
        [SERVICE_STATE_INIT] = {
                [SERVICE_EVENT_MOUNT] = T(READY, LOAD),
                [SERVICE_EVENT_TAKEOVER] = T(READY, RESTORE),
                [SERVICE_EVENT_STOP] = T(STOPPED, NONE),
        },
        [SERVICE_STATE_READY] = {
                [SERVICE_EVENT_START] = T(RUNNING, START),
                [SERVICE_EVENT_STOP] = T(STOPPED, UNMOUNT),
                [SERVICE_EVENT_EXIT] = T(STOPPED, NONE),
        },
        [SERVICE_STATE_RUNNING] = {
                [SERVICE_EVENT_STOP] = T(READY, TERMINATE),
        },
};

static const char *const state_names[] = {
        [SERVICE_STATE_NONE] = "NONE",   [SERVICE_STATE_INIT] = "INIT",       [SERVICE_STATE_RUNNING] = "RUNNING",
        [SERVICE_STATE_READY] = "READY", [SERVICE_STATE_STOPPED] = "STOPPED", [SERVICE_STATE_UNKNOWN] = "UNKNOWN",
};
static_assert(ARRAY_SIZE(state_names) == _SERVICE_STATE_N, "every state has a name");
static_assert(SERVICE_STATE_INIT == 1 && SERVICE_STATE_RUNNING == 2 && SERVICE_STATE_READY == 3 &&
                      SERVICE_STATE_STOPPED == 4 && SERVICE_STATE_UNKNOWN == 5,
              "the numbers are on the wire");

static const char *const event_names[] = {
        [SERVICE_EVENT_MOUNT] = "Mount", [SERVICE_EVENT_TAKEOVER] = "Takeover", [SERVICE_EVENT_START] = "Start",
        [SERVICE_EVENT_STOP] = "Stop",   [SERVICE_EVENT_EXIT] = "Exit",
};
static_assert(ARRAY_SIZE(event_names) == _SERVICE_EVENT_N, "every event has a name");

int service_next(ServiceState state, ServiceEvent event, ServiceState *ret_next, ServiceAction *ret_action) {
        const Transition *transition;

        if ((unsigned) state >= _SERVICE_STATE_N || (unsigned) event >= _SERVICE_EVENT_N)
                return -EPERM;
        transition = &table[state][event];
        if (!transition->valid)
                return -EPERM;
        *ret_next = transition->next;
        *ret_action = transition->action;
        return 0;
}

ServiceState service_state_from_wire(uint32_t state) {
        return state < _SERVICE_STATE_N ? (ServiceState) state : SERVICE_STATE_UNKNOWN;
}

const char *service_state_name(ServiceState state) {
        return (unsigned) state < _SERVICE_STATE_N ? state_names[state] : "UNKNOWN";
}

const char *service_event_name(ServiceEvent event) {
        return (unsigned) event < _SERVICE_EVENT_N ? event_names[event] : "unknown event";
}

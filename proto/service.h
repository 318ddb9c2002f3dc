#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The life of a runner's service: states, the events that may happen in each, and what each event does. One table, no
 * I/O. The state is what Hello.service_state and LifecycleState.service_state carry.
 */

#include <stdint.h>

typedef enum ServiceState {
        SERVICE_STATE_NONE, /* not stated: no runner, or one that has no service */
        SERVICE_STATE_INIT,
        SERVICE_STATE_RUNNING,
        SERVICE_STATE_READY,
        SERVICE_STATE_STOPPED,
        SERVICE_STATE_UNKNOWN,
        _SERVICE_STATE_N,
} ServiceState;

typedef enum ServiceEvent {
        SERVICE_EVENT_MOUNT,
        SERVICE_EVENT_TAKEOVER,
        SERVICE_EVENT_START,
        SERVICE_EVENT_STOP,
        SERVICE_EVENT_EXIT,
        _SERVICE_EVENT_N,
} ServiceEvent;

/* What has to succeed before the next state is entered. */
typedef enum ServiceAction {
        SERVICE_ACTION_NONE,
        SERVICE_ACTION_LOAD,
        SERVICE_ACTION_RESTORE, /* state and descriptors of the predecessor */
        SERVICE_ACTION_START,
        SERVICE_ACTION_UNMOUNT,
        SERVICE_ACTION_TERMINATE, /* no new calls; done when the open ones have drained */
        _SERVICE_ACTION_N,
} ServiceAction;

/*
 * service_next() - what @event does in @state. 0, or -EPERM: refused, and nothing changes (nor the results written).
 * Values outside of the enums are refused as well.
 */
int service_next(ServiceState state, ServiceEvent event, ServiceState *ret_next, ServiceAction *ret_action);

/* service_state_from_wire() - a number that is no state reads as UNKNOWN. */
ServiceState service_state_from_wire(uint32_t state);

/* service_state_name(), service_event_name() - "RUNNING", "Stop", for messages. */
const char *service_state_name(ServiceState state);
const char *service_event_name(ServiceEvent event);

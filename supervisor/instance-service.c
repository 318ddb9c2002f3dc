/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its service: a native runner that has one says INIT in its Hello, and is up only when its service is RUNNING.
 * How it gets there is the goal SERVE (service.c).
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/service.h"

/* fail() - as a start that has failed; what was RUNNING before and cannot be again has to go, too. */
static void fail(Instance *instance, const ServiceResult *result) {
        const char *event = result->n_sent > 0 ? service_event_name(result->sent[result->n_sent - 1]) : "Info";

        if (instance->state == PROCESS_STARTING)
                instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": its service does not begin: %s: %s: %.400s", event,
                              status_name(result->status), result->message);
        else
                log_warning("runner %s: its service does not begin again: %s: %s: %s", instance->runner->name, event,
                            status_name(result->status), result->message);
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_DOOMED);
}

void instance_service_served(Instance *instance, const ServiceResult *result, void *userdata) {
        (void) userdata;
        if (result->status == STATUS_OK)
                instance_raise(instance, PROCESS_EVENT_READY);
        else if (!result->local) /* else its end, or the start's time-out, says more */
                fail(instance, result);
}

void instance_serve(Instance *instance) {
        int r = service_drive(instance, SERVICE_GOAL_SERVE, true, 0, -1, instance_service_served, NULL);

        if (r == 0 || r == -EBUSY)
                return;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": its service does not begin: %s", strerror(-r));
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_DOOMED);
}

void instance_said_hello(Instance *instance) {
        ServiceState state = service_state(instance);
        bool serves = state != SERVICE_STATE_INIT && state != SERVICE_STATE_READY;

        if (instance->state == PROCESS_STARTING && !serves && !instance->config->service_manual)
                instance_serve(instance);
        else
                instance_raise(instance, PROCESS_EVENT_READY);
}

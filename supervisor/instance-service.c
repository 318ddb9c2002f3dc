/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its service: a native runner that has one says INIT in its Hello, and is up only when its service is RUNNING.
 * How it gets there is the goal SERVE (service.c).
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/runner-record.h"
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

static void learn(Instance *instance, const ServiceResult *result) {
        instance->saves = result->info && result->info->saves;
}

void instance_service_served(Instance *instance, const ServiceResult *result, void *userdata) {
        (void) userdata;
        if (result->info)
                learn(instance, result);
        if (instance->resume) { /* what was broken off has its end */
                instance->resume = false;
                runner_record_instance(instance->runner, instance);
        }
        if (result->status == STATUS_OK)
                instance_raise(instance, PROCESS_EVENT_READY);
        else if (!result->local ||
                 instance->state == PROCESS_UP) /* else its end, or the start's time-out, says more */
                fail(instance, result);
}

static void asked(Instance *instance, const ServiceResult *result, void *userdata) {
        (void) userdata;
        if (result->info)
                learn(instance, result);
        if (result->status == STATUS_OK || !result->local)
                instance_raise(instance, PROCESS_EVENT_READY);
}

void instance_serve(Instance *instance) {
        /* The start of one that is being started has a time-out of its own, which knows more to say. */
        uint64_t timeout = instance->state == PROCESS_STARTING ? 0 : instance->config->start_timeout_us;
        int r = service_drive(instance, SERVICE_GOAL_SERVE, true, timeout, -1, instance_service_served, NULL);

        if (r == 0 || r == -EBUSY)
                return;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": its service does not begin: %s", strerror(-r));
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_DOOMED);
}

/*
 * A successor is there with its Hello: the upgrade leads it on. One that was adopted is asked what it is, since its Hello
 * need not say whether it has a service; it goes on from where it is, unless an upgrade was broken off, which is to end
 * with it RUNNING.
 */
void instance_said_hello(Instance *instance) {
        ServiceState state = service_state(instance);
        bool idle = state == SERVICE_STATE_INIT || state == SERVICE_STATE_READY;

        if (!instance_is_present(instance))
                instance_raise(instance, PROCESS_EVENT_READY);
        else if (instance->resume ||
                 (instance->state == PROCESS_STARTING && idle && !instance->config->service_manual))
                instance_serve(instance);
        else if ((!idle && instance->state == PROCESS_STARTING) ||
                 service_drive(instance, SERVICE_GOAL_INFO, true, 0, -1, asked, NULL) < 0)
                instance_raise(instance, PROCESS_EVENT_READY);
}

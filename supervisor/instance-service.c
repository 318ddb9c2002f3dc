/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its service: a native runner that has one says INIT in its Hello, and is up only when its service is RUNNING.
 * How it gets there is the goal SERVE (service.c).
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/events.h"
#include "supervisor/failover.h"
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

/* go_on() - it serves in the place of one that has died. */
static void go_on(Instance *instance) {
        Runner *runner = instance->runner;

        if (instance->recovers) {
                runner->n_failovers++;
                events_publish(runner->supervisor->events, &(Event){
                                                                   .kind = EVENT_RUNNER_FAILOVER,
                                                                   .runner = runner->name,
                                                                   .instance = instance->id,
                                                                   .pid = instance->pid,
                                                                   .number = clock_now() - instance->started_us,
                                                           });
        }
        failover_renew_clients(instance);
}

void instance_service_served(Instance *instance, const ServiceResult *result, void *userdata) {
        (void) userdata;
        if (result->info)
                learn(instance, result);
        if (instance->resume) { /* what was broken off has its end */
                instance->resume = false;
                runner_record_instance(instance->runner, instance);
        }
        if (result->status == STATUS_OK && instance->state == PROCESS_STARTING)
                go_on(instance);
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

/* is_fresh() - it follows one that has died, and has nothing to go on with. */
static bool is_fresh(const Instance *instance) {
        const RunnerExit *exit = runner_exit(instance->runner, 0);

        return instance->config->recover == CONFIG_RECOVER_FAILOVER && instance->state == PROCESS_STARTING &&
               service_state(instance) == SERVICE_STATE_INIT && exit && !exit->success;
}

void instance_serve(Instance *instance) {
        /* The start of one that is being started has a time-out of its own, which knows more to say. */
        uint64_t timeout = instance->state == PROCESS_STARTING ? 0 : instance->config->start_timeout_us;
        ServiceGoal goal = SERVICE_GOAL_SERVE;
        int socket = -1, r = 0;

        if (failover_is_due(instance)) {
                goal = SERVICE_GOAL_FAILOVER;
                r = failover_give(instance, &socket);
        } else if (is_fresh(instance)) {
                log_warning("runner %s: there is no checkpoint of it: it begins with nothing", instance->runner->name);
        }
        if (r == 0)
                r = service_drive(instance, goal, true, timeout, socket, instance_service_served, NULL);
        instance->recovers |= r == 0 && goal == SERVICE_GOAL_FAILOVER;
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

int instance_ask_save(Instance *instance, bool checkpoint, int end_consume, CallDone done, void *userdata,
                      Call **ret_call) {
        Baton__SaveRequest request = BATON__SAVE_REQUEST__INIT;
        uint8_t packed[16];
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Runner/Save",
                .type = request.base.descriptor->name,
                .payload = packed,
                .fds_consume = &end_consume,
                .n_fds = 1,
        };

        request.checkpoint = checkpoint;
        parameters.size = baton__save_request__pack(&request, packed);
        return call_start(instance->peer, &parameters, done, userdata, ret_call);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* What the methods of baton.Control do to the service of one native runner: ServiceInfo and Service. */

#include "supervisor/control-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/version.h"
#include "supervisor/failover.h"
#include "supervisor/relay.h"
#include "supervisor/report.h"
#include "supervisor/service.h"
#include "supervisor/upgrade.h"

/* find_native() - the present instance of @runner, if that is a native one with a connection; or @call is ended. */
static Instance *find_native(const Runner *runner, Call *call) {
        Instance *instance = runner->instance;

        if (!runner_config_native(instance ? instance->config : runner->config))
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "runner %s: is a plain program, which has no service", runner->name);
        else if (!instance || !instance->peer || !peer_is_ready(instance->peer))
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", runner->name);
        else
                return instance;
        return NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ Info */

/* answer_info() - @info NULL: it does not know the method, and its Hello is all there is. */
static void answer_info(Call *call, const Instance *instance, const Baton__InfoResponse *info) {
        Baton__Control__ServiceInfoResponse response = BATON__CONTROL__SERVICE_INFO_RESPONSE__INIT;
        const Supervisor *supervisor = instance->supervisor;
        char text[128];

        (void) snprintf(text, sizeof(text), "baton-supervisor %.32s, pid %d, generation %u", version_release(),
                        getpid(), supervisor->generation);
        response.name = (char *) instance->runner->name;
        response.instance = instance->id;
        response.pid = instance->pid;
        response.supervisor = text;
        response.state = service_state(instance);
        response.last_event = peer_remote(instance->peer)->last_event;
        if (peer_remote(instance->peer)->software)
                response.software = peer_remote(instance->peer)->software;
        if (info) {
                response.state = service_state_from_wire(info->service_state);
                response.last_event = info->last_event;
                response.service = info->service;
                response.description = info->description;
                response.saves = info->saves;
                response.version = info->version;
                response.version_min = info->version_min;
                response.clients = info->clients;
                response.calls = info->calls;
                response.under_way = info->under_way;
        }
        if (info && *info->software)
                response.software = info->software;
        (void) call_answer_message(call, &response.base);
}

static void info_answered(Call *call, Instance *instance, const Answer *answer, void *userdata) {
        _cleanup_message_ Baton__InfoResponse *info = NULL;

        (void) userdata;
        if (!answer)
                return;
        if (answer->status == STATUS_OK)
                info = message_unpack(&baton__info_response__descriptor, answer->payload, answer->size);
        if (answer->status == STATUS_OK && !info)
                (void) call_fail(call, STATUS_INTERNAL, "runner %s: its answer to Info is no InfoResponse",
                                 instance->runner->name);
        else if (answer->status != STATUS_OK && answer->status != STATUS_UNIMPLEMENTED)
                (void) call_fail(call, answer->status, "runner %s: %s", instance->runner->name, answer->message);
        else if (!instance->peer)
                (void) call_fail(call, STATUS_UNAVAILABLE, "runner %s: its connection has ended",
                                 instance->runner->name);
        else
                answer_info(call, instance, info);
}

const RelayKind service_info_relay = { .name = "ServiceInfo", .answered = info_answered };

void control_service_info(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ServiceInfoRequest *request = (const Baton__Control__ServiceInfoRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);
        Instance *instance = runner ? find_native(runner, call) : NULL;
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Runner/Info",
                .type = baton__info_request__descriptor.name,
        };

        if (instance)
                relay_ask(call, instance, &parameters, info_answered, NULL);
}

/* ---------------------------------------------------------------------------------------------------------------- events */

static const struct {
        const char *name;
        ServiceGoal goal;
} events[] = {
        { "mount", SERVICE_GOAL_MOUNT },       { "start", SERVICE_GOAL_START }, { "stop", SERVICE_GOAL_STOP },
        { "takeover", SERVICE_GOAL_TAKEOVER }, { "exit", SERVICE_GOAL_EXIT },
};

/* A call that waits for the service. */
typedef struct Driven {
        Call *call; /* NULL: nobody waits any more */
        Crossing crossing;
        char name[INSTANCE_NAME_SIZE];
} Driven;

/* leave() - it waits no more. Its call, or NULL. */
static Call *leave(Driven *driven) {
        Call *call = TAKE_PTR(driven->call);

        if (!call)
                return NULL;
        LIST_REMOVE(&driven->crossing, link);
        call_on_cancel(call, NULL, NULL);
        return call;
}

static void driven_cancelled(Call *call, void *userdata) {
        (void) leave(userdata);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; it goes on");
}

void control_service_driven(Instance *instance, const ServiceResult *result, void *userdata) {
        Baton__Control__ServiceResponse response = BATON__CONTROL__SERVICE_RESPONSE__INIT;
        _cleanup_free_ Driven *driven = userdata;
        char *sent[SERVICE_SENT_MAX];
        Call *call = leave(driven);

        if (!call)
                return;
        if (result->status != STATUS_OK && result->local && result->status == STATUS_UNAVAILABLE) {
                report_ended(call, instance, STATUS_UNAVAILABLE, result->message);
                return;
        }
        if (result->status != STATUS_OK) {
                (void) call_fail(call, result->status, "runner %s: %s", driven->name, result->message);
                return;
        }
        for (size_t i = 0; i < result->n_sent; i++)
                sent[i] = (char *) service_event_name(result->sent[i]);
        response.state = result->state;
        response.sent = sent;
        response.n_sent = result->n_sent;
        (void) call_answer_message(call, &response.base);
}

static void give(const Crossing *crossing, CrossingTake take, void *userdata) {
        Baton__Snapshot__RunnerCommand command = BATON__SNAPSHOT__RUNNER_COMMAND__INIT;

        command.name = CONTAINER_OF(crossing, Driven, crossing)->name;
        take(&command.base, userdata);
}

/* wait_for() - @driven is in the drive of @instance. */
static void wait_for(Driven *driven, const Instance *instance, Call *call) {
        driven->call = call;
        driven->crossing = (Crossing){ .call = call, .method = "Service", .begun = true, .give = give };
        LIST_INSERT_HEAD(&instance->supervisor->crossings, &driven->crossing, link);
        call_on_cancel(call, driven_cancelled, driven);
}

void *control_service_nobody(const Instance *instance) {
        Driven *driven = calloc(1, sizeof(*driven));

        if (driven)
                (void) strcpy(driven->name, instance->runner->name);
        return driven;
}

void control_service_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Snapshot__RunnerCommand *command = (const Baton__Snapshot__RunnerCommand *) message;
        Runner *runner = control_find(control->supervisor, call, command->name);
        Driven *driven =
                runner && runner->instance ? service_userdata(runner->instance, control_service_driven) : NULL;

        if (driven)
                wait_for(driven, runner->instance, call);
        else if (runner)
                (void) call_fail(call, STATUS_UNAVAILABLE, "runner %s: its service was not taken over", runner->name);
}

static void drive(Call *call, Instance *instance, ServiceGoal goal) {
        uint64_t left = call_time_left(call);
        Driven *waiting = calloc(1, sizeof(*waiting));
        int socket = -1, r = waiting ? 0 : -ENOMEM;

        /* In every other state it is refused for that. */
        if (r == 0 && goal == SERVICE_GOAL_TAKEOVER && service_state(instance) == SERVICE_STATE_INIT)
                r = failover_give(instance, &socket);
        if (r == 0) {
                (void) strcpy(waiting->name, instance->runner->name);
                r = service_drive(instance, goal, false, left == USEC_INFINITY ? 0 : MAX(left, 1), socket,
                                  control_service_driven, waiting);
        }
        if (r == 0) {
                wait_for(waiting, instance, call);
                return;
        }
        free(waiting);
        if (r == -ENOENT)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: there is no checkpoint of it",
                                 instance->runner->name);
        else if (r == -EBUSY)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "runner %s: another event of its service is under way", instance->runner->name);
        else
                (void) call_fail(call, status_from_errno(r), "runner %s: cannot drive its service: %s",
                                 instance->runner->name, strerror(-r));
}

/* is_stopped() - it has no process, and so no service that could be stopped. */
static bool is_stopped(const Runner *runner) {
        return runner_config_native(runner->config) && runner_process_state(runner) == PROCESS_DOWN;
}

void control_service(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ServiceRequest *request = (const Baton__Control__ServiceRequest *) message;
        Baton__Control__ServiceResponse response = BATON__CONTROL__SERVICE_RESPONSE__INIT;
        Instance *instance;
        Runner *runner;
        size_t i = 0;

        while (i < ARRAY_SIZE(events) && strcmp(events[i].name, request->event) != 0)
                i++;
        if (i == ARRAY_SIZE(events)) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT,
                                 "there is no event %.32s of a service; it wants mount, start, stop, takeover or exit",
                                 request->event);
                return;
        }
        runner = control_find(control->supervisor, call, request->name);
        if (!runner)
                return;
        if (is_stopped(runner) && (events[i].goal == SERVICE_GOAL_STOP || events[i].goal == SERVICE_GOAL_EXIT)) {
                response.state = SERVICE_STATE_STOPPED;
                (void) call_answer_message(call, &response.base);
                return;
        }
        instance = find_native(runner, call);
        if (!instance)
                return;
        if (upgrade_drives(runner->upgrade))
                (void) call_fail(call, STATUS_ABORTED, "runner %s: is being upgraded, which drives its service",
                                 runner->name);
        else
                drive(call, instance, events[i].goal);
}

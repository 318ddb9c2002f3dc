/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Service, driven. A drive is a row of calls, one at a time: Info, then event after event. What a runner says of its state
 * is believed over what we remember: it may have been driven by a supervisor before us, or have stopped by itself. A
 * runner that has no Info (the older half of the protocol) is taken at the word of its Hello.
 *
 * While an event that somebody before us has asked for is under way in the runner, the next one is not refused there but
 * waited for, here, by asking again.
 */

#include "supervisor/service.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/message.h"
#include "proto/peer-save.h"
#include "supervisor/instance-internal.h"
#include "supervisor/save.h"
#include "supervisor/supervisor.h"

#define AGAIN_US (20 * USEC_PER_MSEC)

struct Service {
        Instance *instance;
        ServiceGoal goal;
        bool patient;
        Call *call;     /* the one that is open */
        bool asks_info; /* which is for Info */
        LoopTimer again;
        uint64_t deadline;
        int socket; /* for Takeover; -1: none, or sent */
        unsigned n_sent;
        ServiceEvent sent[SERVICE_SENT_MAX];
        ServiceState state;
        Baton__InfoResponse *info;
        ServiceDone done;
        void *userdata;
};

/* ------------------------------------------------------------------------------------------------------------ the goals */

/* The event that each goal takes from each state; what the table of the service does not have is refused by that. */
static const struct {
        bool is_one; /* one event, and no other */
        ServiceEvent event;
        ServiceState there;
} goals[] = {
        [SERVICE_GOAL_MOUNT] = { true, SERVICE_EVENT_MOUNT, SERVICE_STATE_READY },
        [SERVICE_GOAL_START] = { true, SERVICE_EVENT_START, SERVICE_STATE_RUNNING },
        [SERVICE_GOAL_TAKEOVER] = { true, SERVICE_EVENT_TAKEOVER, SERVICE_STATE_READY },
        [SERVICE_GOAL_STOP] = { false, SERVICE_EVENT_STOP, SERVICE_STATE_STOPPED },
        [SERVICE_GOAL_EXIT] = { false, SERVICE_EVENT_EXIT, SERVICE_STATE_STOPPED },
        [SERVICE_GOAL_SERVE] = { false, SERVICE_EVENT_START, SERVICE_STATE_RUNNING },
        [SERVICE_GOAL_INFO] = { false, SERVICE_EVENT_STOP, SERVICE_STATE_STOPPED },
        [SERVICE_GOAL_HANDOVER] = { true, SERVICE_EVENT_STOP, SERVICE_STATE_READY },
        [SERVICE_GOAL_FAILOVER] = { false, SERVICE_EVENT_START, SERVICE_STATE_RUNNING },
};
static_assert(ARRAY_SIZE(goals) == _SERVICE_GOAL_N, "each has a row");

static const char *const goal_names[] = {
        [SERVICE_GOAL_MOUNT] = "mount", [SERVICE_GOAL_START] = "start",       [SERVICE_GOAL_TAKEOVER] = "takeover",
        [SERVICE_GOAL_STOP] = "stop",   [SERVICE_GOAL_EXIT] = "exit",         [SERVICE_GOAL_SERVE] = "serve",
        [SERVICE_GOAL_INFO] = "info",   [SERVICE_GOAL_HANDOVER] = "handover", [SERVICE_GOAL_FAILOVER] = "failover",
};
static_assert(ARRAY_SIZE(goal_names) == _SERVICE_GOAL_N, "each has a name");

const char *service_goal_name(ServiceGoal goal) {
        return goal_names[goal];
}

int service_goal_next(ServiceGoal goal, ServiceState state, unsigned n_sent, ServiceEvent *ret_event) {
        ServiceEvent event = goals[goal].event;
        ServiceAction action;
        ServiceState next;

        if (goal == SERVICE_GOAL_INFO)
                return 0;
        if (goals[goal].is_one ? n_sent > 0 : state == goals[goal].there)
                return 0;
        if (goal == SERVICE_GOAL_SERVE && state == SERVICE_STATE_INIT)
                event = SERVICE_EVENT_MOUNT;
        else if (goal == SERVICE_GOAL_FAILOVER && state == SERVICE_STATE_INIT)
                event = SERVICE_EVENT_TAKEOVER;
        else if (goal == SERVICE_GOAL_EXIT && state != SERVICE_STATE_READY)
                event = SERVICE_EVENT_STOP;
        *ret_event = event;
        /* Handover is from RUNNING alone: Stop would end what is READY. */
        if ((goal == SERVICE_GOAL_HANDOVER && state != SERVICE_STATE_RUNNING) || n_sent >= SERVICE_SENT_MAX)
                return -EPERM;
        return service_next(state, event, &next, &action) < 0 ? -EPERM : 1;
}

/* -------------------------------------------------------------------------------------------------------------- the end */

ServiceState service_state(const Instance *instance) {
        if (!instance->peer)
                return SERVICE_STATE_NONE;
        return service_state_from_wire(peer_remote(instance->peer)->service_state);
}

static void service_free(Service *service) {
        loop_timer_stop(&service->again);
        fd_close(service->socket);
        message_free(service->info);
        free(service);
}

static void end(Service *service, Status status, bool local, const char *message) {
        Instance *instance = service->instance;
        ServiceResult result = {
                .status = status,
                .local = local,
                .message = message,
                .state = service->state,
                .n_sent = service->n_sent,
                .info = service->info,
        };

        memcpy(result.sent, service->sent, sizeof(result.sent));
        instance->service = NULL;
        service->done(instance, &result, service->userdata);
        service_free(service);
}

void service_cancel(Instance *instance) {
        Service *service = TAKE_PTR(instance->service);

        if (!service)
                return;
        if (service->call)
                call_cancel(service->call);
        service_free(service);
}

void service_abort(Instance *instance, const char *why) {
        Service *service = instance->service;

        if (!service)
                return;
        if (service->call)
                call_cancel(TAKE_PTR(service->call));
        end(service, STATUS_ABORTED, true, why);
}

/* ------------------------------------------------------------------------------------------------------------ the calls */

static void advance(Service *service);
static void ask_info(Service *service);

static uint64_t time_left(const Service *service) {
        uint64_t now = clock_now();

        if (service->deadline == USEC_INFINITY)
                return 0;
        return service->deadline > now ? service->deadline - now : 1;
}

/* ask() - false: it cannot be called, and the drive is over. */
static bool ask(Service *service, const char *method, const ProtobufCMessage *request, int fd_consume, CallDone done) {
        uint8_t packed[32]; /* numbers */
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = method,
                .type = request->descriptor->name,
                .payload = packed,
                .size = protobuf_c_message_pack(request, packed),
                .timeout_us = time_left(service),
                .fds_consume = &fd_consume,
                .n_fds = fd_consume >= 0,
        };
        int r = service->instance->peer
                        ? call_start(service->instance->peer, &parameters, done, service, &service->call)
                        : (fd_close(fd_consume), -ESHUTDOWN);

        if (r == 0)
                return true;
        service->call = NULL;
        end(service, STATUS_UNAVAILABLE, true, r == -ESHUTDOWN ? "it has no connection" : strerror(-r));
        return false;
}

static void learn(Service *service, uint32_t state, uint64_t event) {
        service->state = service_state_from_wire(state);
        peer_learn_service(service->instance->peer, state, event);
}

static void event_answered(Call *call, const Answer *answer, void *userdata) {
        _cleanup_message_ Baton__LifecycleState *state = NULL;
        Service *service = userdata;
        ServiceState before = service->state;

        (void) call;
        service->call = NULL;
        if (answer->status == STATUS_OK)
                state = message_unpack(&baton__lifecycle_state__descriptor, answer->payload, answer->size);
        if (!state) {
                end(service, answer->status == STATUS_OK ? STATUS_INTERNAL : answer->status, answer->local,
                    answer->status == STATUS_OK ? "its answer is no LifecycleState" : answer->message);
                return;
        }
        if (service->instance->peer)
                learn(service, state->service_state, state->event);
        log_info("runner %s: service %s: %s, now %s", service->instance->runner->name, service_state_name(before),
                 service_event_name(service->sent[service->n_sent - 1]), service_state_name(service->state));
        advance(service);
}

static const char *const methods[] = {
        [SERVICE_EVENT_MOUNT] = "baton.Runner/Mount", [SERVICE_EVENT_TAKEOVER] = "baton.Runner/Takeover",
        [SERVICE_EVENT_START] = "baton.Runner/Start", [SERVICE_EVENT_STOP] = "baton.Runner/Stop",
        [SERVICE_EVENT_EXIT] = "baton.Runner/Exit",
};
static_assert(ARRAY_SIZE(methods) == _SERVICE_EVENT_N, "a method for each event");

static void send_event(Service *service, ServiceEvent event) {
        Baton__TakeoverRequest takeover = BATON__TAKEOVER_REQUEST__INIT;
        Baton__LifecycleEvent other = BATON__LIFECYCLE_EVENT__INIT;

        service->sent[service->n_sent++] = event;
        service->asks_info = false;
        takeover.event = other.event = ++service->instance->event;
        other.handover = service->goal == SERVICE_GOAL_HANDOVER;
        (void) ask(service, methods[event], event == SERVICE_EVENT_TAKEOVER ? &takeover.base : &other.base,
                   event == SERVICE_EVENT_TAKEOVER ? fd_take(&service->socket) : -1, event_answered);
}

/* advance() - the next event, or the end. */
static void advance(Service *service) {
        ServiceEvent event = SERVICE_EVENT_STOP;
        char text[128];
        int r = service_goal_next(service->goal, service->state, service->n_sent, &event);

        if (r > 0) {
                send_event(service, event);
                return;
        }
        (void) snprintf(text, sizeof(text), "%s is refused in state %s", service_event_name(event),
                        service_state_name(service->state));
        end(service, r == 0 ? STATUS_OK : STATUS_FAILED_PRECONDITION, false, r == 0 ? "" : text);
}

static void look_again(LoopTimer *timer) {
        ask_info(CONTAINER_OF(timer, Service, again));
}

/* under_way() - what it is doing yet has to end first; where nobody waits for that, or not any more, that is the reason. */
static void under_way(Service *service) {
        char text[128];

        if (service->patient && clock_now() < service->deadline) {
                loop_timer_set(service->instance->supervisor->loop, &service->again,
                               clock_after(clock_now(), AGAIN_US));
                return;
        }
        (void) snprintf(text, sizeof(text), "%s is refused: %.32s is under way in state %s",
                        service_event_name(goals[service->goal].event), service->info->under_way,
                        service_state_name(service->state));
        end(service, service->patient ? STATUS_DEADLINE_EXCEEDED : STATUS_FAILED_PRECONDITION, false, text);
}

static void info_answered(Call *call, const Answer *answer, void *userdata) {
        Service *service = userdata;

        (void) call;
        service->call = NULL;
        if (answer->status != STATUS_OK && answer->status != STATUS_UNIMPLEMENTED) {
                end(service, answer->status, answer->local, answer->message);
                return;
        }
        message_free(service->info);
        service->info = answer->status == STATUS_OK
                                ? message_unpack(&baton__info_response__descriptor, answer->payload, answer->size)
                                : NULL;
        if (service->info && service->instance->peer)
                learn(service, service->info->service_state, service->info->last_event);
        /* One that has no service has nothing mounted, and may know no other way out of READY. */
        if (service->goal == SERVICE_GOAL_STOP && (!service->info || !service->info->service))
                service->goal = SERVICE_GOAL_EXIT;
        if (service->info && *service->info->under_way)
                under_way(service);
        else
                advance(service);
}

static void ask_info(Service *service) {
        Baton__InfoRequest request = BATON__INFO_REQUEST__INIT;

        service->asks_info = true;
        (void) ask(service, "baton.Runner/Info", &request.base, -1, info_answered);
}

int service_drive(Instance *instance, ServiceGoal goal, bool patient, uint64_t timeout_us, int socket_consume,
                  ServiceDone done, void *userdata) {
        _cleanup_fd_ int socket = socket_consume;
        Service *service;

        if (instance->service)
                return -EBUSY;
        if (!instance->peer)
                return -ENOTCONN;
        service = malloc(sizeof(*service));
        if (!service)
                return -ENOMEM;
        *service = (Service){
                .instance = instance,
                .goal = goal,
                .patient = patient,
                .again = LOOP_TIMER_NULL(look_again),
                .deadline = timeout_us ? clock_after(clock_now(), timeout_us) : USEC_INFINITY,
                .socket = fd_take(&socket),
                .state = service_state(instance) == SERVICE_STATE_NONE ? SERVICE_STATE_RUNNING
                                                                       : service_state(instance),
                .done = done,
                .userdata = userdata,
        };
        instance->service = service;
        precopy_touch(&instance->supervisor->precopy, &instance->copied);
        loop_timer_set(instance->supervisor->loop, &service->again, clock_now());
        return 0;
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

/* Whom a drive tells; by their numbers they go on in a successor. */
static const ServiceDone dones[] = {
        [1] = instance_service_served,
        [2] = instance_service_stopped,
        [3] = control_service_driven,
};

static uint32_t who_of(const Service *service) {
        for (uint32_t i = 1; i < ARRAY_SIZE(dones); i++)
                if (service->done == dones[i])
                        return i;
        return 0;
}

bool service_crosses(const Instance *instance) {
        return !instance->service || who_of(instance->service) > 0;
}

int service_save(const Instance *instance, const char *socket_name, Manifest *manifest,
                 Baton__Snapshot__ServiceDrive **ret_message) {
        const Service *service = instance->service;
        Save save = { 0 };
        Baton__Snapshot__ServiceDrive *message;

        if (!service)
                return 0;
        message = save_message(&save, &baton__snapshot__service_drive__descriptor);
        if (!message)
                return -ENOMEM;
        message->goal = service->goal;
        message->patient = service->patient;
        message->who = who_of(service);
        message->asked = service->call ? peer_saved_call(service->call) : 0;
        message->is_info = service->asks_info;
        message->deadline_us = service->deadline == USEC_INFINITY ? 0 : service->deadline;
        message->again_us = loop_timer_deadline(&service->again);
        message->state = service->state;
        message->sent = save_array(&save, service->n_sent, sizeof(uint32_t));
        for (unsigned i = 0; message->sent && i < service->n_sent; i++)
                message->sent[message->n_sent++] = service->sent[i];
        if (save.error == 0 && service->socket >= 0)
                save.error = manifest_add(manifest, socket_name, service->socket);
        return save_done(&save, message, ret_message);
}

void service_restore(Instance *instance, const Baton__Snapshot__ServiceDrive *message, int socket_consume) {
        _cleanup_fd_ int socket = socket_consume;
        uint32_t who = restored_number(message->who, ARRAY_SIZE(dones), 0);
        Call *call = instance->peer && message->asked ? peer_claim_call(instance->peer, message->asked, true) : NULL;
        Service *service;

        if (instance->service || !instance->peer || who == 0 || message->goal >= _SERVICE_GOAL_N ||
            message->n_sent > SERVICE_SENT_MAX || (call && !message->is_info && message->n_sent == 0))
                return;
        service = calloc(1, sizeof(*service));
        if (!service)
                return; /* nobody hears of the answer: a start's or a stop's time-out follows */
        *service = (Service){
                .instance = instance,
                .goal = (ServiceGoal) message->goal,
                .patient = message->patient,
                .call = call,
                .asks_info = message->is_info,
                .again = LOOP_TIMER_NULL(look_again),
                .deadline = message->deadline_us ? message->deadline_us : USEC_INFINITY,
                .socket = fd_take(&socket),
                .n_sent = (unsigned) message->n_sent,
                .state = service_state_from_wire(message->state),
                .done = dones[who],
                .userdata = dones[who] == control_service_driven ? control_service_nobody(instance) : NULL,
        };
        for (size_t i = 0; i < message->n_sent; i++)
                service->sent[i] =
                        (ServiceEvent) restored_number(message->sent[i], _SERVICE_EVENT_N, SERVICE_EVENT_STOP);
        instance->service = service;
        if (call)
                call_bind(call, message->is_info ? info_answered : event_answered, NULL, NULL, service);
        else
                loop_timer_set(instance->supervisor->loop, &service->again,
                               message->again_us ? message->again_us : clock_now());
}

void *service_userdata(const Instance *instance, ServiceDone done) {
        return instance->service && instance->service->done == done ? instance->service->userdata : NULL;
}

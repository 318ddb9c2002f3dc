/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The service's life, as the supervisor drives it: Mount, Start, Stop, Exit and Takeover of baton.Runner. A runner without
 * a service of its own is born RUNNING, and knows Stop and Exit. One event is under way at a time; proto/service.c says
 * which may happen, here is what they do. The next state is entered when the action has succeeded; one that failed leaves
 * the state as it was, and may be asked for again, also with the same id. What leads to STOPPED is not stopped by an error.
 *
 * Before the application hears of a Stop, no new calls are taken and the open ones, of all peers, have been ended; unless a
 * successor follows (`handover'): then nothing more is read from clients, and their calls stay as they are. Exit waits for
 * calls that have crossed to the successor's side and end here.
 *
 * An event is not undone when the one who asked for it is gone: it is a wish about the state, not about the call. Its
 * successor asks again with the same id, and gets the result, or waits for it.
 */

#include "runner/runner.h"

#include <errno.h>
#include <string.h>

#include "proto/message.h"

static void answer_state(Call *call, const Lifecycle *life, uint64_t id) {
        Baton__LifecycleState state = BATON__LIFECYCLE_STATE__INIT;

        state.service_state = life->state;
        state.event = id;
        (void) call_answer_message(call, &state.base);
}

/* ---- the end of an event ---- */

static const char *reason_of(const Lifecycle *life, int result) {
        return *life->handle.reason ? life->handle.reason : strerror(-result);
}

/* log_transition() - one line each, of services; others have no states that anybody could follow. */
static void log_transition(Runner *runner, ServiceState from, int result) {
        const Lifecycle *life = &runner->life;

        if (!runner->service.registered)
                return;
        BATON_LOG(runner, result < 0 ? BATON_WARNING : BATON_NOTICE, "service", "%s: %s -> %s%s%s",
                  service_event_name(life->event), service_state_name(from), service_state_name(life->next),
                  result < 0 ? ", although it ended badly: " : "", result < 0 ? reason_of(life, result) : "");
}

/* complete() - the next state is entered. */
static void complete(Runner *runner, int result) {
        Lifecycle *life = &runner->life;
        Call *call = TAKE_PTR(life->call);
        ServiceState from = life->state;

        life->pending = false;
        life->state = life->next;
        if (life->id)
                life->last_event = life->id;
        peer_set_service(connection_peer(runner->supervisor), life->state, life->last_event);
        log_transition(runner, from, result);
        if (call)
                answer_state(call, life, life->id);
        if (life->state == SERVICE_STATE_RUNNING)
                attach_go_on(runner);
        if (life->state == SERVICE_STATE_STOPPED)
                runner->leaving = true;
}

/* failed() - the state stays. */
static void failed(Runner *runner, int result) {
        Lifecycle *life = &runner->life;
        const char *event = service_event_name(life->event), *state = service_state_name(life->state);
        Call *call = TAKE_PTR(life->call);

        life->pending = false;
        BATON_LOG(runner, BATON_WARNING, "service", "%s failed in state %s: %s", event, state,
                  reason_of(life, result));
        if (call)
                (void) call_fail(call, service_status(result), "%s failed in state %s: %s", event, state,
                                 reason_of(life, result));
        if (life->state == SERVICE_STATE_RUNNING)
                attach_go_on(runner);
}

void lifecycle_done(Runner *runner, int result) {
        Lifecycle *life = &runner->life;

        life->handle.later = false;
        if (result < 0 && life->next != SERVICE_STATE_STOPPED)
                failed(runner, result);
        else
                complete(runner, result);
}

/* ---- its action ---- */

/* run() - the application's part of it. */
static void run(Runner *runner) {
        const struct baton_service *service = &runner->service.functions;
        Lifecycle *life = &runner->life;
        int (*const functions[_SERVICE_EVENT_N])(struct baton_event *, void *) = {
                [SERVICE_EVENT_MOUNT] = service->mount,
                [SERVICE_EVENT_START] = service->start,
                [SERVICE_EVENT_STOP] = life->action == SERVICE_ACTION_TERMINATE ? service->stop
                                       : life->action == SERVICE_ACTION_UNMOUNT ? service->unmount
                                                                                : NULL,
                [SERVICE_EVENT_EXIT] = service->exit,
        };
        int r = 0;

        life->handle.later = true; /* also while the function runs: it may say so from within */
        if (functions[life->event])
                r = functions[life->event](&life->handle, runner->service.userdata);
        if (r <= 0 && life->handle.later)
                lifecycle_done(runner, r);
}

/* is_drained() - no call is open here, nor on its way to a predecessor and back. Who hands over waits for none. */
static bool is_drained(const Runner *runner) {
        return runner->life.handle.handover || (handles_open_calls(runner->handles) == 0 && link_calls(runner) == 0);
}

/* run_drained() - what was waited for, if anything, is there. */
static void run_drained(Runner *runner) {
        Lifecycle *life = &runner->life;

        life->drains = false;
        if (life->action == SERVICE_ACTION_TERMINATE && life->handle.handover)
                attach_freeze(runner);
        run(runner);
}

static void drained(EndpointTask *task) {
        Lifecycle *life = CONTAINER_OF(task, Lifecycle, drained);
        Runner *runner = CONTAINER_OF(life, Runner, life);

        if (life->pending && life->drains && is_drained(runner))
                run_drained(runner);
}

/* The application is within a call of ours that ended the last one: it is not called from there. */
void lifecycle_drained(Runner *runner) {
        if (runner->life.pending && runner->life.drains)
                endpoint_defer(runner->endpoint, &runner->life.drained);
}

bool lifecycle_is_serving(const Runner *runner) {
        const Lifecycle *life = &runner->life;

        return life->state == SERVICE_STATE_RUNNING && !life->pending;
}

void lifecycle_refuse(const Runner *runner, Call *call, const char *what) {
        const Lifecycle *life = &runner->life;

        if (!runner->service.registered)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the runner is stopping and takes no new %s", what);
        else if (life->pending)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "%s need a service that is RUNNING; %s is under way in state %s", what,
                                 service_event_name(life->event), service_state_name(life->state));
        else
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s need a service that is RUNNING; it is %s", what,
                                 service_state_name(life->state));
}

/* ---- events ---- */

/* What was asked for. */
typedef struct Request {
        ServiceEvent event;
        uint64_t id;
        bool handover;
        int socket; /* of Takeover; -1: there is none */
} Request;

static void begin(Runner *runner, Call *call, Request *request, ServiceState next, ServiceAction action) {
        Lifecycle *life = &runner->life;

        life->pending = true;
        life->event = request->event;
        life->next = next;
        life->action = action;
        life->id = request->id;
        life->call = call;
        life->handle = (struct baton_event){ .runner = runner,
                                             .handover = request->handover && action == SERVICE_ACTION_TERMINATE };
        if (request->event == SERVICE_EVENT_EXIT)
                attach_leave(runner);
        life->drains = action == SERVICE_ACTION_TERMINATE || request->event == SERVICE_EVENT_EXIT;
        if (action == SERVICE_ACTION_RESTORE)
                restore_begin(runner, fd_take(&request->socket));
        else if (!life->drains || is_drained(runner))
                run_drained(runner);
}

/* repeated() - whether @request is for the last event, or the one under way: then it is not a new one. */
static bool repeated(Lifecycle *life, Call *call, const Request *request) {
        if (!request->id)
                return false;
        if (request->id == life->last_event) {
                answer_state(call, life, request->id);
                return true;
        }
        if (!life->pending || request->id != life->id || request->event != life->event)
                return false;
        if (life->call)
                (void) call_fail(life->call, STATUS_ABORTED, "event %llu was asked for again",
                                 (unsigned long long) request->id);
        life->call = call;
        return true;
}

static void handle_event(Runner *runner, Call *call, Request *request) {
        const char *event = service_event_name(request->event);
        Lifecycle *life = &runner->life;
        ServiceAction action;
        ServiceState next;

        if (repeated(life, call, request))
                return;
        if (life->pending)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s is refused: %s is under way in state %s", event,
                                 service_event_name(life->event), service_state_name(life->state));
        else if (service_next(life->state, request->event, &next, &action) < 0)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s is refused in state %s", event,
                                 service_state_name(life->state));
        else if (runner->save)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s is refused: Save is under way in state %s",
                                 event, service_state_name(life->state));
        else
                begin(runner, call, request, next, action);
}

static void simple_event(Runner *runner, Call *call, ServiceEvent event) {
        _cleanup_message_ Baton__LifecycleEvent *message = builtin_unpack(call, &baton__lifecycle_event__descriptor);
        Request request = { .event = event, .socket = -1 };

        if (!message)
                return;
        request.id = message->event;
        request.handover = message->handover;
        handle_event(runner, call, &request);
}

void lifecycle_mount(Runner *runner, Call *call) {
        simple_event(runner, call, SERVICE_EVENT_MOUNT);
}

void lifecycle_start(Runner *runner, Call *call) {
        simple_event(runner, call, SERVICE_EVENT_START);
}

void lifecycle_stop(Runner *runner, Call *call) {
        simple_event(runner, call, SERVICE_EVENT_STOP);
}

void lifecycle_exit(Runner *runner, Call *call) {
        simple_event(runner, call, SERVICE_EVENT_EXIT);
}

void lifecycle_takeover(Runner *runner, Call *call) {
        _cleanup_message_ Baton__TakeoverRequest *message = builtin_unpack(call, &baton__takeover_request__descriptor);
        Request request = { .event = SERVICE_EVENT_TAKEOVER, .socket = -1 };
        size_t n;
        int *fds = call_fds(call, &n);

        if (!message)
                return;
        request.id = message->event;
        if (message->socket < n)
                request.socket = fd_take(&fds[message->socket]);
        handle_event(runner, call, &request);
        fd_close(request.socket);
}

void lifecycle_init(Runner *runner) {
        runner->life = (Lifecycle){ .state = SERVICE_STATE_RUNNING, .drained = ENDPOINT_TASK_NULL(drained) };
}

void lifecycle_free(Runner *runner) {
        if (runner->life.call)
                (void) call_fail(TAKE_PTR(runner->life.call), STATUS_UNAVAILABLE, "the runner has ended");
        if (runner->endpoint)
                endpoint_cancel(runner->endpoint, &runner->life.drained);
}

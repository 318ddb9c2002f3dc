/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The service's life, as the supervisor drives it: Stop and Exit of baton.Runner. A runner without services of its own
 * is born RUNNING. One event is under way at a time; proto/service.c says which may happen, here is what they do:
 * terminating takes no new calls and is done when the open ones, of all peers, have been ended; what ends in STOPPED ends the runner.
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

/* complete() - the action has succeeded: the next state is entered. */
static void complete(Runner *runner) {
        Lifecycle *life = &runner->life;
        Call *call = TAKE_PTR(life->call);

        life->pending = false;
        life->state = life->next;
        if (life->id)
                life->last_event = life->id;
        peer_set_service(connection_peer(runner->supervisor), life->state, life->last_event);
        if (call)
                answer_state(call, life, life->id);
        if (life->state == SERVICE_STATE_STOPPED)
                runner->leaving = true;
}

void lifecycle_drained(Runner *runner) {
        if (runner->life.pending && runner->life.event == SERVICE_EVENT_STOP)
                complete(runner);
}

bool lifecycle_is_serving(const Runner *runner) {
        return runner->life.state == SERVICE_STATE_RUNNING && !runner->life.pending;
}

static void begin(Runner *runner, Call *call, ServiceEvent event, uint64_t id, ServiceState next,
                  ServiceAction action) {
        Lifecycle *life = &runner->life;

        life->pending = true;
        life->event = event;
        life->next = next;
        life->id = id;
        life->call = call;
        if (action != SERVICE_ACTION_TERMINATE || handles_open_calls(runner->handles) == 0)
                complete(runner);
}

/* repeated() - whether @id is the last event, or the one under way: then it is not a new one. */
static bool repeated(Lifecycle *life, Call *call, ServiceEvent event, uint64_t id) {
        if (!id)
                return false;
        if (id == life->last_event) {
                answer_state(call, life, id);
                return true;
        }
        if (!life->pending || id != life->id || event != life->event)
                return false;
        if (life->call)
                (void) call_fail(life->call, STATUS_ABORTED, "event %llu was asked for again",
                                 (unsigned long long) id);
        life->call = call;
        return true;
}

static void handle_event(Runner *runner, Call *call, ServiceEvent event) {
        _cleanup_message_ Baton__LifecycleEvent *request = builtin_unpack(call, &baton__lifecycle_event__descriptor);
        Lifecycle *life = &runner->life;
        ServiceAction action;
        ServiceState next;

        if (!request || repeated(life, call, event, request->event))
                return;
        if (life->pending)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s is refused: %s is under way in state %s",
                                 service_event_name(event), service_event_name(life->event),
                                 service_state_name(life->state));
        else if (service_next(life->state, event, &next, &action) < 0)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "%s is refused in state %s",
                                 service_event_name(event), service_state_name(life->state));
        else
                begin(runner, call, event, request->event, next, action);
}

void lifecycle_stop(Runner *runner, Call *call) {
        handle_event(runner, call, SERVICE_EVENT_STOP);
}

void lifecycle_exit(Runner *runner, Call *call) {
        handle_event(runner, call, SERVICE_EVENT_EXIT);
}

void lifecycle_free(Runner *runner) {
        if (runner->life.call)
                (void) call_fail(TAKE_PTR(runner->life.call), STATUS_UNAVAILABLE, "the runner has ended");
}

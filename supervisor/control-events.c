/* SPDX-License-Identifier: Apache-2.0 */

/* Events, as a long poll: what has happened from a number on, for whoever asks. */

#include "supervisor/control-internal.h"

#include <assert.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/crossing.h"
#include "supervisor/report.h"
#include "supervisor/runner.h"

enum {
        EVENTS_DEFAULT = 256,
        EVENTS_MAX = 1024,
        EVENTS_BYTES = 32 * 1024, /* of one answer: whoever cannot take more than the least frame gets it, too */
        NAMES_MAX = 256,
};

static_assert(_POLICY_STATE_N == BATON__CONTROL__RUNNER_STATUS__STATE__DONE + 1 &&
                      POLICY_UP == (int) BATON__CONTROL__RUNNER_STATUS__STATE__UP &&
                      _EVENT_KIND_N == BATON__CONTROL__EVENT__KIND__CHECKPOINT_FAILED + 1 &&
                      _RUNNER_CAUSE_N == BATON__CONTROL__EXIT_RECORD__CAUSE__LOST + 1,
              "the numbers are on the wire");

/* ---------------------------------------------------------------------------------------------------------------- Events */

/* A call that waits, or is being answered. */
typedef struct Follower {
        EventReader reader;
        Crossing crossing;
        bool crosses; /* it is in the supervisor's list */
        Events *events;
        Call *call;
        uint64_t from;
        uint32_t max;
        bool wait;
        uint64_t dropped;
        Baton__Control__EventsRequest *request; /* ours, for its names; NULL: there are none, all are wanted */
} Follower;

static void follower_free(Follower *follower) {
        events_unwait(&follower->reader);
        if (follower->crosses)
                LIST_REMOVE(&follower->crossing, link);
        (void) message_free(follower->request);
        free(follower);
}

static bool is_wanted(const Follower *follower, const Event *event) {
        const Baton__Control__EventsRequest *request = follower->request;

        if (!request)
                return true;
        for (size_t i = 0; event->runner && i < request->n_names; i++)
                if (fnmatch(request->names[i], event->runner, 0) == 0)
                        return true;
        return false;
}

/* What an answer is made of: for each event its messages, and its strings, which the ring may overwrite only later. */
typedef struct EventMessage {
        Baton__Control__Event event;
        Baton__Control__ExitRecord record;
        Baton__Control__Exit exit;
} EventMessage;

static void fill(EventMessage *message, const Event *event) {
        Baton__Control__Event *e = &message->event;

        baton__control__event__init(e);
        e->seq = event->seq;
        e->time_us = event->time_us;
        e->monotonic_us = event->monotonic_us;
        e->kind = (Baton__Control__Event__Kind) event->kind;
        e->instance = event->instance;
        e->pid = event->pid;
        e->state = (Baton__Control__RunnerStatus__State) event->state;
        e->previous = (Baton__Control__RunnerStatus__State) event->previous;
        e->number = event->number;
        if (event->runner)
                e->runner = (char *) event->runner;
        if (event->text)
                e->text = (char *) event->text;
        if (event->kind != EVENT_RUNNER_EXITED)
                return;
        baton__control__exit_record__init(&message->record);
        message->record.instance = event->instance;
        message->record.pid = event->pid;
        message->record.time_us = event->time_us;
        message->record.uptime_us = event->uptime_us;
        message->record.cause = (Baton__Control__ExitRecord__Cause) event->cause;
        report_exit(event->exit, &message->exit);
        if (event->pid > 0)
                message->record.exit = &message->exit;
        e->exit = &message->record;
}

/* collect() - what is there from follower->from on, which moves behind it. How many. */
static size_t collect(Follower *follower, EventMessage *messages, Baton__Control__Event **pointers) {
        size_t n = 0, bytes = 0;
        Event event;

        while (n < follower->max && bytes < EVENTS_BYTES && events_find(follower->events, follower->from, &event)) {
                if (event.seq > follower->from && follower->from > 0)
                        follower->dropped += event.seq - follower->from;
                follower->from = event.seq + 1;
                if (!is_wanted(follower, &event))
                        continue;
                fill(&messages[n], &event);
                pointers[n] = &messages[n].event;
                bytes += baton__control__event__get_packed_size(pointers[n]) + 4;
                n++;
        }
        return n;
}

/* answer() - true: the call is ended, and @follower gone. False: there is nothing yet. */
static bool answer(Follower *follower) {
        Baton__Control__EventsResponse response = BATON__CONTROL__EVENTS_RESPONSE__INIT;
        _cleanup_free_ Baton__Control__Event **pointers = NULL;
        _cleanup_free_ EventMessage *messages = NULL;
        Call *call = follower->call;

        if (follower->wait && follower->from >= events_next_seq(follower->events))
                return false;
        messages = calloc(follower->max, sizeof(*messages));
        pointers = calloc(follower->max, sizeof(Baton__Control__Event *));
        if (!messages || !pointers) {
                follower_free(follower);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return true;
        }
        response.n_events = collect(follower, messages, pointers);
        if (response.n_events == 0 && follower->dropped == 0 && follower->wait)
                return false;
        response.events = pointers;
        response.next_seq = follower->from ? follower->from : events_next_seq(follower->events);
        response.dropped = follower->dropped;
        call_on_cancel(call, NULL, NULL);
        (void) call_answer_message(call, &response.base);
        follower_free(follower);
        return true;
}

static void published(EventReader *reader) {
        Follower *follower = CONTAINER_OF(reader, Follower, reader);

        if (!answer(follower))
                events_wait(follower->events, reader);
}

static void give(const Crossing *crossing, CrossingTake take, void *userdata) {
        const Follower *follower = CONTAINER_OF(crossing, Follower, crossing);
        Baton__Control__EventsRequest request = BATON__CONTROL__EVENTS_REQUEST__INIT;

        if (follower->request) {
                request.names = follower->request->names;
                request.n_names = follower->request->n_names;
        }
        request.from_seq = follower->from;
        request.max_events = follower->max;
        request.wait = true;
        take(&request.base, userdata);
}

static void cancelled(Call *call, void *userdata) {
        follower_free(userdata);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

void control_events(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__EventsRequest *request = (const Baton__Control__EventsRequest *) message;
        Events *events = control->supervisor->events;
        Follower *follower;
        uint32_t max = request->max_events ? MIN(request->max_events, (uint32_t) EVENTS_MAX) : EVENTS_DEFAULT;

        if (request->n_names > NAMES_MAX) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%zu names, more than %d", request->n_names,
                                 NAMES_MAX);
                return;
        }
        follower = calloc(1, sizeof(*follower));
        if (follower && request->n_names > 0)
                follower->request = message_copy(message);
        if (!follower || (request->n_names > 0 && !follower->request)) {
                free(follower);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for an event");
                return;
        }
        follower->reader = EVENT_READER_NULL(published);
        follower->events = events;
        follower->call = call;
        /* Numbers beyond the last are those of another supervisor, before this one. */
        follower->from = MIN(request->from_seq, events_next_seq(events));
        follower->max = max;
        follower->wait = request->wait;
        if (answer(follower))
                return;
        follower->crossing = (Crossing){ .call = call, .method = "Events", .give = give };
        LIST_INSERT_HEAD(&control->supervisor->crossings, &follower->crossing, link);
        follower->crosses = true;
        call_on_cancel(call, cancelled, follower);
        events_wait(events, &follower->reader);
}

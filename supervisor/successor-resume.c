/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor, from GO on. What clients wait for comes first: connections that somebody waits on are ours, the keeper hears
 * SERVING, the calls that wait go on, and the loop turns. What was only needed to get here is freed when it does.
 */

#include "supervisor/successor-internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/step.h"
#include "proto/control.pb-c.h"
#include "proto/peer-save.h"
#include "supervisor/daemon.h"
#include "supervisor/fault.h"
#include "supervisor/instance.h"

#define TIDY_MAX 64u           /* of what is freed at a time ... */
#define TIDY_US  USEC_PER_MSEC /* ... and how soon again: clients want the processor just now */

/* own_calls() - the connections that somebody waits on; the others are ours with their first event. */
static void own_calls(const Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;

        for (size_t i = 0; i < last->n_instances; i++) {
                const Baton__Snapshot__Instance *message = last->instances[i];
                const Instance *instance = supervisor_find_instance(successor->supervisor, message->id);

                /* One that does not know us yet, and one that we wait for. */
                if (instance && instance->peer &&
                    (message->ping || message->drive || message->n_checkpoints > 0 ||
                     message->peer->state != BATON__HANDOVER__PEER__STATE__READY))
                        peer_own(instance->peer);
        }
        for (size_t i = 0; i < last->n_relays; i++) {
                const Control *control = successor_find_client(successor, last->relays[i]->connection);
                const Instance *instance = supervisor_find_instance(successor->supervisor, last->relays[i]->instance);

                if (control)
                        peer_own(control_peer(control));
                if (instance && instance->peer)
                        peer_own(instance->peer);
        }
        for (size_t i = 0; i < last->n_waiting; i++)
                if (successor->waiting[i])
                        peer_own(call_peer(successor->waiting[i]));
}

static void record(Takeovers *takeovers, const Baton__Control__TakeoverResponse *response) {
        TakeoverEntry *entry = takeovers_current(takeovers);

        if (!entry)
                return;
        entry->generation = response->generation;
        entry->pid = response->pid;
        entry->pause_us = response->pause_us;
        entry->connections = response->connections;
        entry->runners = response->runners;
        entry->calls = response->calls;
        takeovers_end(takeovers, TAKEOVER_DONE, NULL);
}

/* tell() - whoever asked for the takeover, and everybody by an event. */
static void tell(Successor *successor, Call *asker) {
        const Baton__Snapshot__Snapshot *snapshot = successor->last;
        Supervisor *supervisor = successor->supervisor;
        Baton__Control__TakeoverResponse response = BATON__CONTROL__TAKEOVER_RESPONSE__INIT;
        uint64_t now = clock_now();

        events_publish(supervisor->events,
                       &(Event){ .kind = EVENT_SUPERVISOR_STARTED, .number = supervisor->generation });
        response.generation = supervisor->generation;
        response.pid = getpid();
        response.former_generation = snapshot->generation;
        response.former_pid = snapshot->pid;
        response.total_us = now - MIN(now, snapshot->begun_us);
        response.pause_us = now - MIN(now, snapshot->frozen_us);
        response.connections = HASH_COUNT(successor->clients);
        response.runners = successor->n_runners;
        response.calls = successor->n_calls;
        record(supervisor->takeovers, &response);
        if (asker)
                (void) call_answer_message(asker, &response.base);
}

/* tidy() - a little at a time: nobody waits for it. */
static void tidy(LoopTimer *timer) {
        Successor *successor = CONTAINER_OF(timer, Successor, tidy);
        Supervisor *supervisor = successor->supervisor;
        Round *round = SLIST_FIRST(&successor->rounds);

        if (round) {
                SLIST_REMOVE_HEAD(&successor->rounds, link);
                (void) successor_free_round(successor, round);
        } else if (!successor_forget_connections(successor, TIDY_MAX) && !daemon_tidy(supervisor->daemon, TIDY_MAX)) {
                supervisor->retired = successor_free(successor);
                return;
        }
        loop_timer_set(supervisor->loop, timer, clock_after(clock_now(), TIDY_US));
}

void successor_resume(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Supervisor *supervisor = successor->supervisor;
        Call *asker = NULL;

        successor->tidy = LOOP_TIMER_NULL(tidy);
        takeovers_phase_at(supervisor->takeovers, TAKEOVER_PHASE_COMMIT, successor->ready_us);
        takeovers_phase(supervisor->takeovers, TAKEOVER_PHASE_RESUME);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_RESUME) < 0)
                _exit(EXIT_FAILURE); /* too late to refuse */
        step_note("supervisor", "active", 0);
        events_release(supervisor->events);
        own_calls(successor);
        daemon_followed(supervisor->daemon);
        for (size_t i = 0; i < last->n_waiting; i++) {
                const Baton__Snapshot__Waiting *waiting = last->waiting[i];
                Call *call = successor->waiting[i];

                if (!call)
                        continue;
                successor->n_calls++;
                if (!*waiting->method)
                        asker = call;
                else if (!control_go_on(successor_find_client(successor, waiting->connection), call, waiting->method,
                                        waiting->begun, waiting->request.data, waiting->request.len))
                        (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor was replaced");
        }
        tell(successor, asker);
        fault_end();
        supervisor->successor = NULL;
        supervisor->retired = successor;
        loop_timer_set(supervisor->loop, &successor->tidy, clock_after(clock_now(), TIDY_US));
        loop_release(supervisor->loop);
}

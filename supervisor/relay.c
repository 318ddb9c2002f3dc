/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Relay: a junction (proto/junction.h) of the client's call, the outer one, and ours to the runner, the inner one.
 *
 * Whichever side ends first ends the other: a cancelled outer call cancels the inner one at once. When the inner call
 * ends because the runner's connection did, what had come of its stream goes to the client first; the answer waits for the
 * keeper's report of the exit, which says more than the end of a socket; but not long, since the process may live on.
 * The runner knows its relays: a peer that has ended is kept for those that still have items of it (relay_keep_peer()), and
 * when the runner itself is forgotten they are ended.
 */

#include "supervisor/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/junction.h"
#include "supervisor/report.h"
#include "supervisor/supervisor.h"

#define EXIT_WAIT_US (1 * USEC_PER_SEC)

struct Relay {
        LIST_ENTRY(Relay) link; /* instance->relays */
        LIST_ENTRY(Relay) all;  /* supervisor->relays */
        Junction junction;
        Instance *instance;
        InstanceWatcher exit;
        LoopTimer timer;
        char *reason; /* why the inner call ended */
        RelayAnswered answered;
        void *userdata;
};

/* drop_peer() - the one that was kept, when nobody waits for what has come from it. */
static void drop_peer(Instance *instance) {
        size_t incoming;

        if (instance->ended_peer && peer_open_calls(instance->ended_peer, &incoming) == 0)
                instance->ended_peer = peer_free(instance->ended_peer);
}

void relay_keep_peer(Instance *instance, Peer *peer_consume) {
        instance->ended_peer = peer_consume;
        drop_peer(instance);
}

static void add(Relay *relay) {
        LIST_INSERT_HEAD(&relay->instance->relays, relay, link);
        LIST_INSERT_HEAD(&relay->instance->supervisor->relays, relay, all);
}

/* relay_free() - both calls are over, or about to be. */
static void relay_free(Relay *relay) {
        if (relay->junction.inner)
                call_cancel(relay->junction.inner);
        LIST_REMOVE(relay, link);
        LIST_REMOVE(relay, all);
        drop_peer(relay->instance);
        instance_unwatch(&relay->exit);
        loop_timer_stop(&relay->timer);
        if (relay->answered)
                relay->answered(NULL, relay->instance, NULL, relay->userdata);
        free(relay->reason);
        free(relay);
}

/* outer_cancelled() - by the client, its deadline, or its end. */
static void outer_cancelled(Junction *junction) {
        relay_free(CONTAINER_OF(junction, Relay, junction));
}

/* ------------------------------------------------------------------------------------------------------- the runner died */

/* tell_ended() - ends relay and outer call. */
static void tell_ended(Relay *relay, Instance *instance) {
        Call *outer = relay->junction.outer;

        call_on_cancel(outer, NULL, NULL);
        if (!instance->was_up && instance->failure)
                (void) call_fail(outer, STATUS_UNAVAILABLE, "runner %s: start failed%s%s", instance->runner->name,
                                 *instance_text(instance->failure_text) == ':' ? "" : " ",
                                 instance_text(instance->failure_text));
        else
                report_ended(outer, instance, STATUS_UNAVAILABLE, instance->ended ? NULL : relay->reason);
        relay_free(relay);
}

static void instance_exit_known(InstanceWatcher *watcher, Instance *instance) {
        tell_ended(CONTAINER_OF(watcher, Relay, exit), instance);
}

static void wait_is_over(LoopTimer *timer) {
        Relay *relay = CONTAINER_OF(timer, Relay, timer);

        tell_ended(relay, relay->instance);
}

static void connection_ended(Relay *relay, const char *reason) {
        Instance *instance = relay->instance;

        relay->reason = strdup(reason);
        if (!relay->reason || !instance_watch_exit(instance, &relay->exit)) {
                tell_ended(relay, instance);
                return;
        }
        loop_timer_set(instance->supervisor->loop, &relay->timer, clock_after(clock_now(), EXIT_WAIT_US));
}

void relay_end_all(Instance *instance) {
        Relay *relay;

        while ((relay = LIST_FIRST(&instance->relays)))
                tell_ended(relay, instance);
        instance->ended_peer = peer_free(instance->ended_peer);
}

/* ---------------------------------------------------------------------------------------------------------- the streams */

/* break_off() - an item cannot be handed on: both calls end. */
static void break_off(Junction *junction, const Call *to, const Item *item, int r) {
        Relay *relay = CONTAINER_OF(junction, Relay, junction);
        const char *who = to == junction->outer ? "the client" : "the runner", *name = relay->instance->runner->name;
        uint64_t size = item->envelope->object ? item->envelope->object : item->size;
        const PeerRemote *remote = peer_remote(call_peer(to));
        Call *outer = relay->junction.outer;

        call_on_cancel(outer, NULL, NULL);
        if (r == -EMSGSIZE)
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED,
                                 "runner %s: an item of %llu bytes and %zu descriptors; %s accepts %llu, objects of "
                                 "%llu, and %u",
                                 name, (unsigned long long) size, item->n_fds, who,
                                 (unsigned long long) remote->stream_window, (unsigned long long) remote->max_object,
                                 remote->fd_credit);
        else
                (void) call_fail(outer, status_from_errno(r), "runner %s: cannot send an item to %s: %s", name, who,
                                 strerror(-r));
        relay_free(relay);
}

/* ------------------------------------------------------------------------------------------------------------ the answer */

static void answer_outer(Call *outer, Instance *instance, const Answer *answer, void *userdata) {
        (void) instance;
        (void) userdata;
        junction_answer(outer, answer);
}

static void inner_done(Junction *junction, const Answer *answer) {
        Relay *relay = CONTAINER_OF(junction, Relay, junction);
        RelayAnswered answered = relay->answered ? relay->answered : answer_outer;
        Instance *instance = relay->instance;
        Call *outer = junction->outer;
        void *its_userdata = relay->userdata;

        if (answer->local && answer->status == STATUS_UNAVAILABLE) {
                connection_ended(relay, answer->message);
                return;
        }
        call_on_cancel(outer, NULL, NULL);
        relay->answered = NULL;
        relay_free(relay);
        answered(outer, instance, answer, its_userdata);
}

static const JunctionOwner owner = { .done = inner_done, .cancelled = outer_cancelled, .broken = break_off };

/* -------------------------------------------------------------------------------------------------------------- the call */

/* is_callable() - else @outer is ended, saying why. */
static bool is_callable(Call *outer, Instance *instance) {
        if (instance->ended)
                report_ended(outer, instance, STATUS_FAILED_PRECONDITION, "is not running");
        else if (!runner_config_native(instance->config))
                (void) call_fail(outer, STATUS_FAILED_PRECONDITION,
                                 "runner %s: is a plain program, which has no methods", instance->runner->name);
        else if (instance->state == PROCESS_STOPPING)
                (void) call_fail(outer, STATUS_FAILED_PRECONDITION, "runner %s: is stopping", instance->runner->name);
        else if (!instance->peer)
                (void) call_fail(outer, STATUS_FAILED_PRECONDITION, "runner %s: has no connection",
                                 instance->runner->name);
        else
                return true;
        return false;
}

/* relay_new() - NULL: @outer has been ended, saying why. */
static Relay *relay_new(Call *outer, Instance *instance) {
        Relay *relay;

        if (!is_callable(outer, instance))
                return NULL;
        relay = calloc(1, sizeof(*relay));
        if (!relay) {
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory for a call",
                                 instance->runner->name);
                return NULL;
        }
        *relay = (Relay){
                .junction = { .owner = &owner, .outer = outer },
                .instance = instance,
                .exit = { .callback = instance_exit_known },
                .timer = LOOP_TIMER_NULL(wait_is_over),
        };
        add(relay);
        return relay;
}

/* start() - the inner call, in what time the outer one has left; @items: it is a stream as well. */
static void start(Relay *relay, CallParameters *parameters, bool items) {
        Instance *instance = relay->instance;
        Call *outer = relay->junction.outer;
        int r = junction_start(&relay->junction, instance->peer, parameters, items);

        if (r == 0)
                return;
        relay_free(relay);
        (void) call_fail(outer, status_from_errno(r), "runner %s: cannot call method '%s': %s", instance->runner->name,
                         parameters->method, strerror(-r));
}

void relay_ask(Call *outer, Instance *instance, CallParameters *parameters, RelayAnswered answered, void *userdata) {
        Relay *relay = relay_new(outer, instance);

        if (!relay) {
                for (size_t i = 0; i < parameters->n_fds; i++)
                        fd_close(parameters->fds_consume[i]);
                answered(NULL, instance, NULL, userdata);
                return;
        }
        relay->answered = answered;
        relay->userdata = userdata;
        start(relay, parameters, false);
}

void relay_call(Call *outer, const Baton__Control__CallRequest *request, Instance *instance) {
        Relay *relay = relay_new(outer, instance);
        const Baton__Envelope *envelope;
        _cleanup_free_ int *fds = NULL;
        int *outer_fds;
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = request->method,
                .type = request->type,
                .payload = request->payload.data,
                .size = request->payload.len,
                .object = request->object,
        };

        if (!relay)
                return; /* nor is there a call any more */
        if (request->object && (request->payload.len > 0 || call_envelope(outer)->n_fds == 0)) {
                relay_free(relay);
                (void) call_fail(outer, STATUS_INVALID_ARGUMENT, "runner %s: the call has an object %s",
                                 instance->runner->name,
                                 request->payload.len > 0 ? "beside a payload" : "without a descriptor");
                return;
        }
        envelope = call_envelope(outer);
        parameters.metadata = envelope->metadata;
        parameters.n_metadata = envelope->n_metadata;
        parameters.stream = call_takes_items(outer);
        outer_fds = call_fds(outer, &parameters.n_fds);
        parameters.fds_consume = fds = junction_move_fds(outer_fds, parameters.n_fds);
        if (parameters.n_fds > 0 && !fds) {
                relay_free(relay);
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory for a call",
                                 instance->runner->name);
                return;
        }
        junction_listen(&relay->junction);
        start(relay, &parameters, true);
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

static const RelayKind *const kinds[] = { &attach_relay, &service_info_relay };

static const RelayKind *kind_of(const Relay *relay) {
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (kinds[i]->answered == relay->answered)
                        return kinds[i];
        return NULL;
}

static const RelayKind *find_kind(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (strcmp(kinds[i]->name, name) == 0)
                        return kinds[i];
        return NULL;
}

size_t relay_count(const Supervisor *supervisor) {
        const Relay *relay;
        size_t n = 0;

        LIST_FOREACH (relay, &supervisor->relays, all)
                n += !relay->answered || kind_of(relay);
        return n;
}

/* What a connection that has ended has left behind does not cross: the call ends as if it had been read by then. */
static RelayCrossing crossing_of(const Relay *relay) {
        const Junction *junction = &relay->junction;
        bool is_left = junction->inner && call_peer(junction->inner) != relay->instance->peer;
        bool is_open = junction->inner && !is_left;
        const RelayKind *kind = relay->answered && is_open ? kind_of(relay) : NULL;

        return (RelayCrossing){
                .outer = junction->outer,
                .inner = is_open ? junction->inner : NULL,
                .reason = is_left ? instance_text(relay->instance->lost) : relay->reason,
                .deadline_us = loop_timer_deadline(&relay->timer),
                .kind = kind ? kind->name : "",
                .lane = kind && kind->lane ? kind->lane(relay->userdata) : -1,
        };
}

void relay_each(const Supervisor *supervisor,
                void (*function)(const Instance *instance, const RelayCrossing *crossing, void *userdata),
                void *userdata) {
        const Relay *relay;

        LIST_FOREACH (relay, &supervisor->relays, all) {
                RelayCrossing crossing = crossing_of(relay);

                function(relay->instance, &crossing, userdata);
        }
}

int relay_restore(Instance *instance, const RelayCrossing *crossing) {
        const RelayKind *kind = *crossing->kind ? find_kind(crossing->kind) : NULL;
        _cleanup_fd_ int lane = crossing->lane;
        Relay *relay;

        if (*crossing->kind && !kind)
                return -EPROTO;
        relay = calloc(1, sizeof(*relay));
        if (!relay)
                return -ENOMEM;
        *relay = (Relay){
                .junction = { .owner = &owner, .outer = crossing->outer, .inner = crossing->inner },
                .instance = instance,
                .exit = { .callback = instance_exit_known },
                .timer = LOOP_TIMER_NULL(wait_is_over),
        };
        if (kind)
                relay->answered = kind->answered;
        if (kind && kind->restore && kind->restore(fd_take(&lane), &relay->userdata) < 0) {
                free(relay);
                return -ENOMEM;
        }
        add(relay);
        junction_bind(&relay->junction, !kind);
        if (crossing->inner)
                return 0;
        relay->reason = strdup(crossing->reason);
        if (relay->reason && instance_watch_exit(instance, &relay->exit))
                loop_timer_set(instance->supervisor->loop, &relay->timer,
                               crossing->deadline_us ? crossing->deadline_us : clock_after(clock_now(), EXIT_WAIT_US));
        else
                loop_timer_set(instance->supervisor->loop, &relay->timer, clock_now());
        return 0;
}

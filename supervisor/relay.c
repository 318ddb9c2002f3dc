/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Relay: two calls, the client's (outer) and ours to the runner (inner), tied together. Payload, type, metadata and the
 * time left go in; status, message, details, metadata and payload come back; descriptors are moved both ways, in order,
 * so that indexes in payloads that we do not know hold. The lane ids are renumbered by the engine, since each lane has
 * its own. A payload that is a sealed object is the last of them and is not looked at here, unless it goes to a peer that
 * takes none: who reads it checks it.
 *
 * Streams are relayed item by item, and nothing of them is kept here: what the other call does not take (-EAGAIN) is `not
 * now' to this one, and stays in its window; when the other can take more, this one is resumed. So a reader that stops
 * stops its producer, two processes away, and what lies here in between is bounded by the two windows.
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
#include "proto/peer-save.h"
#include "supervisor/report.h"
#include "supervisor/supervisor.h"

#define EXIT_WAIT_US (1 * USEC_PER_SEC)

struct Relay {
        LIST_ENTRY(Relay) link; /* runner->relays */
        Call *outer, *inner;    /* inner NULL: over */
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

/* relay_free() - both calls are over, or about to be. */
static void relay_free(Relay *relay) {
        if (relay->inner)
                call_cancel(relay->inner);
        LIST_REMOVE(relay, link);
        drop_peer(relay->instance);
        instance_unwatch(&relay->exit);
        loop_timer_stop(&relay->timer);
        if (relay->answered)
                relay->answered(NULL, relay->instance, NULL, relay->userdata);
        free(relay->reason);
        free(relay);
}

/* outer_cancelled() - by the client, its deadline, or its end. */
static void outer_cancelled(Call *outer, void *userdata) {
        Relay *relay = userdata;

        relay_free(relay);
        (void) call_fail(outer, STATUS_CANCELLED, "cancelled");
}

/* ------------------------------------------------------------------------------------------------------- the runner died */

/* tell_ended() - ends relay and outer call. */
static void tell_ended(Relay *relay, Instance *instance) {
        Call *outer = relay->outer;

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

/* forward() - @item to @call, descriptors too. As call_send(). */
static int forward(Call *call, const Item *item) {
        const ItemParameters parameters = {
                .type = item->envelope->type,
                .payload = item->payload,
                .size = item->size,
                .fds_consume = item->fds,
                .n_fds = item->n_fds,
                .object = item->envelope->object,
        };
        int r = item->bare ? 0 : call_send(call, &parameters);

        for (size_t i = 0; r == 0 && !item->bare && i < item->n_fds; i++)
                item->fds[i] = -1;
        return r;
}

/* break_off() - an item cannot be handed on: both calls end. */
static void break_off(Relay *relay, const Call *to, const Item *item, int r) {
        const char *who = to == relay->outer ? "the client" : "the runner", *name = relay->instance->runner->name;
        uint64_t size = item->envelope->object ? item->envelope->object : item->size;
        const PeerRemote *remote = peer_remote(call_peer(to));
        Call *outer = relay->outer;

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

/* hand_on() - false: not now. -ECANCELED is no news: the end of that call is on its way to us. */
static bool hand_on(Relay *relay, Call *to, const Item *item) {
        int r = to ? forward(to, item) : -ECANCELED;

        if (r == 0 && item->end)
                (void) call_end(to);
        if (r < 0 && r != -EAGAIN && r != -ECANCELED)
                break_off(relay, to, item, r);
        return r != -EAGAIN;
}

static bool outer_item(Call *outer, const Item *item, void *userdata) {
        Relay *relay = userdata;

        (void) outer;
        return hand_on(relay, relay->inner, item);
}

static bool inner_item(Call *inner, const Item *item, void *userdata) {
        Relay *relay = userdata;

        (void) inner;
        return hand_on(relay, relay->outer, item);
}

static void outer_writable(Call *outer, void *userdata) {
        Relay *relay = userdata;

        (void) outer;
        if (relay->inner)
                call_resume(relay->inner);
}

static void inner_writable(Call *inner, void *userdata) {
        Relay *relay = userdata;

        (void) inner;
        call_resume(relay->outer);
}

/* ------------------------------------------------------------------------------------------------------------ the answer */

/* move_fds() - a copy of the array, the descriptors now in it alone. NULL where there are none, or no memory. */
static int *move_fds(int *fds, size_t n) {
        int *moved = n > 0 ? malloc(n * sizeof(*moved)) : NULL;

        for (size_t i = 0; moved && i < n; i++)
                moved[i] = fd_take(&fds[i]);
        return moved;
}

static void answer_outer(Call *outer, Instance *instance, const Answer *answer, void *userdata) {
        const Baton__Envelope *envelope = answer->envelope;
        _cleanup_free_ int *fds = move_fds(answer->fds, answer->n_fds);
        const AnswerParameters parameters = {
                .status = answer->status,
                .message = answer->message,
                .type = envelope ? envelope->type : NULL,
                .payload = answer->payload,
                .size = answer->size,
                .fds_consume = fds,
                .n_fds = answer->n_fds,
                .object = envelope ? envelope->object : 0,
                .details = envelope ? envelope->details : NULL,
                .n_details = envelope ? envelope->n_details : 0,
                .metadata = envelope ? envelope->metadata : NULL,
                .n_metadata = envelope ? envelope->n_metadata : 0,
        };

        (void) instance;
        (void) userdata;
        if (answer->n_fds > 0 && !fds)
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer's descriptors");
        else
                (void) call_answer(outer, &parameters);
}

static void inner_done(Call *inner, const Answer *answer, void *userdata) {
        Relay *relay = userdata;
        RelayAnswered answered = relay->answered ? relay->answered : answer_outer;
        Instance *instance = relay->instance;
        Call *outer = relay->outer;
        void *its_userdata = relay->userdata;

        (void) inner;
        relay->inner = NULL;
        if (answer->local && answer->status == STATUS_UNAVAILABLE) {
                connection_ended(relay, answer->message);
                return;
        }
        call_on_cancel(outer, NULL, NULL);
        relay->answered = NULL;
        relay_free(relay);
        answered(outer, instance, answer, its_userdata);
}

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
                .outer = outer,
                .instance = instance,
                .exit = { .callback = instance_exit_known },
                .timer = LOOP_TIMER_NULL(wait_is_over),
        };
        LIST_INSERT_HEAD(&instance->relays, relay, link);
        return relay;
}

/* start() - the inner call, in what time the outer one has left. */
static void start(Relay *relay, CallParameters *parameters) {
        Instance *instance = relay->instance;
        Call *outer = relay->outer;
        uint64_t left = call_time_left(outer);
        int r;

        parameters->timeout_us = left == USEC_INFINITY ? 0 : MAX(left, 1);
        r = call_start(instance->peer, parameters, inner_done, relay, &relay->inner);
        if (r == 0) {
                call_on_cancel(outer, outer_cancelled, relay);
                return;
        }
        relay_free(relay);
        (void) call_fail(outer, status_from_errno(r), "runner %s: cannot call method `%s': %s", instance->runner->name,
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
        start(relay, parameters);
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
                .item = inner_item,
                .writable = inner_writable,
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
        parameters.fds_consume = fds = move_fds(outer_fds, parameters.n_fds);
        if (parameters.n_fds > 0 && !fds) {
                relay_free(relay);
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory for a call",
                                 instance->runner->name);
                return;
        }
        call_on_stream(outer, outer_item, outer_writable, relay);
        start(relay, &parameters);
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

bool relay_crosses(const Instance *instance, size_t *ret_n) {
        Relay *relay;

        *ret_n = 0;
        LIST_FOREACH (relay, &instance->relays, link) {
                if (!relay->inner || relay->answered || relay->reason)
                        return false;
                ++*ret_n;
        }
        return true;
}

void relay_each(const Instance *instance, void (*function)(const Call *outer, const Call *inner, void *userdata),
                void *userdata) {
        Relay *relay;

        LIST_FOREACH (relay, &instance->relays, link)
                function(relay->outer, relay->inner, userdata);
}

int relay_restore(Instance *instance, Call *outer, Call *inner) {
        Relay *relay = calloc(1, sizeof(*relay));

        if (!relay)
                return -ENOMEM;
        *relay = (Relay){
                .outer = outer,
                .inner = inner,
                .instance = instance,
                .exit = { .callback = instance_exit_known },
                .timer = LOOP_TIMER_NULL(wait_is_over),
        };
        LIST_INSERT_HEAD(&instance->relays, relay, link);
        call_on_stream(outer, outer_item, outer_writable, relay);
        call_on_cancel(outer, outer_cancelled, relay);
        call_bind(inner, inner_done, inner_item, inner_writable, relay);
        return 0;
}

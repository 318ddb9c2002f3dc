/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot, written. What the keeper answers at once is waited for (supervisor_rest()), so that there is no request under way
 * and no event that was raised; everything else crosses as it is, in the middle of whatever it does. Each part is written by
 * the module that owns it. A call that nobody could go on with is the one thing that is in the way.
 */

#include "supervisor/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/memfd.h"
#include "proto/peer-save.h"
#include "supervisor/control-internal.h"
#include "supervisor/metrics.h"
#include "supervisor/relay.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/service.h"
#include "supervisor/unknown.h"

void snapshot_client(char prefix[SNAPSHOT_PREFIX_SIZE], uint32_t number) {
        (void) snprintf(prefix, SNAPSHOT_PREFIX_SIZE, "client/%" PRIu32, number);
}

void snapshot_service(char name[SNAPSHOT_PREFIX_SIZE], uint64_t id) {
        (void) snprintf(name, SNAPSHOT_PREFIX_SIZE, "instance/%" PRIx64 "/service", id);
}

void snapshot_instance(char prefix[SNAPSHOT_PREFIX_SIZE], uint64_t id) {
        (void) snprintf(prefix, SNAPSHOT_PREFIX_SIZE, "instance/%" PRIx64, id);
}

/* --------------------------------------------------------------------------------------------------- what is in the way */

static bool _printf_(2, 3) because(char reason[MANIFEST_REASON_SIZE], const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, MANIFEST_REASON_SIZE, format, arguments);
        va_end(arguments);
        return true;
}

bool snapshot_obstacle(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]) {
        size_t owed = 0, crossing = supervisor->takeover ? 1 : 0;
        const ListenerClient *client = NULL;
        const Runner *runner;
        const Crossing *each;

        for (runner = runner_first(supervisor); runner; runner = runner_next(runner)) {
                const Instance *instance = runner->instance;

                if (runner->upgrade)
                        return because(reason, "runner %s is being upgraded", runner->name);
                if (runner->past)
                        return because(reason, "a predecessor of runner %s finishes what it has begun", runner->name);
                if (!instance)
                        continue;
                if (instance->peer && peer_owed_calls(instance->peer) > 0)
                        return because(reason, "a call of runner %s has not been answered", instance->runner->name);
                if (!service_crosses(instance))
                        return because(reason, "an event of the service of runner %s is under way",
                                       instance->runner->name);
                crossing += relay_count(instance);
        }
        LIST_FOREACH (each, &supervisor->crossings, link)
                crossing++;
        while ((client = listener_next_client(supervisor->listener, client)))
                owed += peer_owed_calls(control_peer(listener_client_control(client)));
        if (owed > crossing)
                return because(reason, "%zu commands of clients wait for their answers", owed - crossing);
        return false;
}

/* -------------------------------------------------------------------------------------------------------------- writing */

typedef struct Save {
        Supervisor *supervisor;
        Baton__Snapshot__Snapshot *snapshot;
        Manifest *manifest;
        char *reason;
        int error;        /* the first */
        size_t n_waiting; /* room for so many */
        uint64_t instance;
} Save;

static bool fail(Save *save, int error, const char *what) {
        if (save->error == 0) {
                save->error = error;
                (void) snprintf(save->reason, MANIFEST_REASON_SIZE, "%s: %s", what, strerror(-error));
        }
        return false;
}

/* add() - one more message at the end of an array that is grown by one; NULL: no memory. */
static void *add(Save *save, const ProtobufCMessageDescriptor *type, void *array, size_t *n) {
        ProtobufCMessage ***messages = array, **larger, *message;

        if (save->error < 0)
                return NULL;
        larger = (*n & (*n - 1)) == 0 ? realloc(*messages, (*n ? *n * 2 : 1) * sizeof(ProtobufCMessage *)) : *messages;
        message = larger ? malloc(type->sizeof_message) : NULL;
        if (larger)
                *messages = larger;
        if (!message) {
                (void) fail(save, -ENOMEM, "the snapshot");
                return NULL;
        }
        protobuf_c_message_init(type, message);
        (*messages)[(*n)++] = message;
        return message;
}

static bool save_peer(Save *save, Peer *peer, const char *prefix, Baton__Handover__Peer **ret_state) {
        int r = peer_save(peer, prefix, save->manifest, ret_state);

        if (r == -ESHUTDOWN || r == -EBUSY)
                return fail(save, -EAGAIN, prefix);
        return r < 0 ? fail(save, r, prefix) : true;
}

/* copy_text() - of one that may be NULL, which stays the empty one. */
static void copy_text(Save *save, char **to, const char *text) {
        char *copy = text ? strdup(text) : NULL;

        if (copy)
                *to = copy;
        else if (text)
                (void) fail(save, -ENOMEM, "the snapshot");
}

static void save_control(Save *save, const Control *control) {
        const ControlClient *who = &control->client;
        char prefix[SNAPSHOT_PREFIX_SIZE];
        Baton__Snapshot__Connection *message;

        snapshot_client(prefix, control->number);
        message = add(save, &baton__snapshot__connection__descriptor, &save->snapshot->connections,
                      &save->snapshot->n_connections);
        if (!message || !save_peer(save, control->peer, prefix, &message->peer))
                return;
        message->number = control->number;
        message->uid = who->credentials.uid;
        message->gid = who->credentials.gid;
        message->pid = who->credentials.pid;
        message->role = who->role;
}

static void save_instance(Save *save, const Instance *instance) {
        Baton__Snapshot__Instance *message;
        char prefix[SNAPSHOT_PREFIX_SIZE];

        snapshot_instance(prefix, instance->id);
        message = add(save, &baton__snapshot__instance__descriptor, &save->snapshot->instances,
                      &save->snapshot->n_instances);
        if (!message || !save_peer(save, instance->peer, prefix, &message->peer))
                return;
        message->id = instance->id;
        message->ping = instance->asking ? peer_saved_call(instance->asking) : 0;
}

/* save_drive() - what its service is being driven to; it is no part of what a later state can replace. */
static void save_drive(Save *save, const Instance *instance) {
        Baton__Snapshot__Instance *message = save->snapshot->instances[save->snapshot->n_instances - 1];
        char prefix[SNAPSHOT_PREFIX_SIZE];
        int r;

        snapshot_service(prefix, instance->id);
        r = service_save(instance, prefix, save->manifest, &message->drive);
        if (r < 0)
                (void) fail(save, r, prefix);
}

/* can_be_saved() - before the end: an instance that is in the middle of something is not. */
static bool can_be_saved(const Precopied *it) {
        const Instance *instance;
        const Peer *peer;

        if (it->kind == PRECOPIED_CONTROL) {
                peer = CONTAINER_OF(it, Control, copied)->peer;
                return peer && peer_can_be_saved(peer);
        }
        instance = CONTAINER_OF(it, Instance, copied);
        return instance->peer && peer_can_be_saved(instance->peer) && peer_is_ready(instance->peer) &&
               !instance->asking && !instance->service;
}

static void save_one(Save *save, Precopied *it) {
        size_t from = save->manifest->n;

        if (it->kind == PRECOPIED_CONTROL)
                save_control(save, CONTAINER_OF(it, Control, copied));
        else
                save_instance(save, CONTAINER_OF(it, Instance, copied));
        if (save->error == 0 && !it->given)
                it->given = calloc(1, sizeof(*it->given)); /* MANIFEST_NULL */
        if (save->error == 0 && (!it->given || manifest_keep_new(save->manifest, from, it->given) < 0))
                (void) fail(save, -ENOMEM, "the snapshot");
        if (save->error == 0 && it->kind == PRECOPIED_INSTANCE)
                save_drive(save, CONTAINER_OF(it, Instance, copied));
        it->was_given |= save->error == 0;
}

/* queue_driven() - those that somebody drives, or asks for a sign of life, are written down at the end in any case. */
static void queue_driven(Supervisor *supervisor) {
        Instance *instance, *next;

        HASH_ITER (by_id, supervisor->instances, instance, next)
                if (instance->peer && (instance->service || instance->asking))
                        precopy_queue(&supervisor->precopy, &instance->copied);
}

/* save_changed() - those that cannot be saved just now stay what they are. */
static void save_changed(Save *save, const SnapshotPart *part) {
        Precopy *precopy = &save->supervisor->precopy;
        size_t n, max;

        if (!part->is_partial)
                queue_driven(save->supervisor);
        n = precopy->n_changed;
        max = part->is_partial ? MIN(part->max, n) : n;
        for (size_t i = 0; i < max && save->error == 0; i++) {
                Precopied *it = precopy_take(precopy);

                if (part->is_partial && !can_be_saved(it)) {
                        precopy_queue(precopy, it);
                        continue;
                }
                if (it->kind == PRECOPIED_INSTANCE && !CONTAINER_OF(it, Instance, copied)->peer)
                        continue; /* it has ended: so will its instance */
                save_one(save, it);
                if (save->error < 0)
                        precopy_queue(precopy, it);
        }
        if (precopy->is_short)
                (void) fail(save, -ENOMEM, "the connections that are gone");
        save->snapshot->gone = precopy->gone;
        save->snapshot->n_gone = precopy->n_gone;
        precopy->gone = NULL;
        precopy->n_gone = precopy->room_gone = 0;
}

/* connection_of() - the number of the one that @call came by. */
static uint32_t connection_of(const Call *call) {
        return control_number(peer_userdata(call_peer(call)));
}

static void save_relay(const RelayCrossing *crossing, void *userdata) {
        Save *save = userdata;
        Baton__Snapshot__Relay *relay =
                add(save, &baton__snapshot__relay__descriptor, &save->snapshot->relays, &save->snapshot->n_relays);
        char lane[SNAPSHOT_PREFIX_SIZE];
        int r;

        if (!relay)
                return;
        relay->connection = connection_of(crossing->outer);
        relay->outer = peer_saved_call(crossing->outer);
        relay->instance = save->instance;
        relay->inner = crossing->inner ? peer_saved_call(crossing->inner) : 0;
        relay->deadline_us = crossing->deadline_us;
        copy_text(save, &relay->reason, crossing->reason);
        copy_text(save, &relay->kind, crossing->kind);
        if (relay->outer == 0 || (crossing->inner && relay->inner == 0))
                (void) fail(save, -EAGAIN, "a supervised call");
        if (crossing->lane < 0 || save->error < 0)
                return;
        (void) snprintf(lane, sizeof(lane), "client/%u/attach/%u", relay->connection, relay->outer);
        copy_text(save, &relay->lane, lane);
        r = manifest_add(save->manifest, lane, crossing->lane);
        if (r < 0)
                (void) fail(save, r, lane);
}

static void save_relays(Save *save) {
        const Runner *runner;

        for (runner = runner_first(save->supervisor); runner; runner = runner_next(runner)) {
                if (!runner->instance)
                        continue;
                save->instance = runner->instance->id;
                relay_each(runner->instance, save_relay, save);
        }
}

/* save_runners() - and what belongs to several of them. */
static void save_runners(Save *save) {
        const Supervisor *supervisor = save->supervisor;
        Baton__Snapshot__Snapshot *snapshot = save->snapshot;
        const Group *group;
        int r = 0;

        snapshot->configured_us = supervisor->configured_us;
        if (unknown_add(supervisor->unknown, &snapshot->base) < 0)
                (void) fail(save, -ENOMEM, "the snapshot");
        if (supervisor->metrics) {
                copy_text(save, &snapshot->metrics, metrics_address(supervisor->metrics));
                r = manifest_add(save->manifest, SNAPSHOT_METRICS, metrics_listener(supervisor->metrics));
                if (r < 0)
                        (void) fail(save, r, SNAPSHOT_METRICS);
        }
        snapshot->runners = calloc(HASH_CNT(by_name, supervisor->runners) + 1, sizeof(*snapshot->runners));
        if (!snapshot->runners)
                (void) fail(save, -ENOMEM, "the snapshot");
        for (const Runner *runner = runner_first(supervisor); save->error == 0 && runner;
             runner = runner_next(runner)) {
                r = runner_save(runner, save->manifest, &snapshot->runners[snapshot->n_runners]);
                if (r < 0)
                        (void) fail(save, r, runner->name);
                else
                        snapshot->n_runners++;
        }
        TAILQ_FOREACH (group, &supervisor->groups, link)
                snapshot->n_groups++;
        snapshot->groups = save->error < 0 ? NULL : calloc(snapshot->n_groups + 1, sizeof(*snapshot->groups));
        snapshot->n_groups = 0;
        TAILQ_FOREACH (group, &supervisor->groups, link) {
                if (!snapshot->groups || group_save(group, &snapshot->groups[snapshot->n_groups]) < 0) {
                        (void) fail(save, -ENOMEM, "the groups");
                        return;
                }
                snapshot->n_groups++;
        }
        r = hooks_save(supervisor->hooks, save->manifest, snapshot);
        if (r < 0)
                (void) fail(save, r, "the hooks");
}

static Baton__Snapshot__Waiting *save_call(Save *save, const Call *call, const char *method) {
        Baton__Snapshot__Waiting *waiting =
                add(save, &baton__snapshot__waiting__descriptor, &save->snapshot->waiting, &save->snapshot->n_waiting);

        if (!waiting)
                return NULL;
        waiting->connection = connection_of(call);
        waiting->call = peer_saved_call(call);
        waiting->method = strdup(method);
        if (!waiting->method)
                (void) fail(save, -ENOMEM, method);
        else if (waiting->call == 0)
                (void) fail(save, -EAGAIN, method);
        return waiting;
}

typedef struct Taken {
        Save *save;
        Baton__Snapshot__Waiting *waiting;
} Taken;

static void take_request(const ProtobufCMessage *request, void *userdata) {
        Taken *taken = userdata;
        ProtobufCBinaryData *bytes = &taken->waiting->request;

        bytes->len = protobuf_c_message_get_packed_size(request);
        bytes->data = malloc(bytes->len + 1);
        if (bytes->data)
                (void) protobuf_c_message_pack(request, bytes->data);
        else
                (void) fail(taken->save, -ENOMEM, taken->waiting->method);
}

static void save_waiting(Save *save, const Call *asker) {
        const Crossing *crossing;

        LIST_FOREACH (crossing, &save->supervisor->crossings, link) {
                Taken taken = { save, save_call(save, crossing->call, crossing->method) };

                if (save->error < 0)
                        return;
                taken.waiting->begun = crossing->begun;
                crossing->give(crossing, take_request, &taken);
        }
        if (asker)
                (void) save_call(save, asker, "");
}

/* save_events() - those that were not given yet; in a part of it not too many. */
static void save_events(Save *save, const SnapshotPart *part) {
        const Events *events = save->supervisor->events;
        Event event;

        save->snapshot->events_next = events_next_seq(events);
        for (uint64_t seq = save->supervisor->precopy.next_event; events_find(events, seq, &event);
             seq = event.seq + 1) {
                Baton__Snapshot__Event *e;

                if (part->is_partial && save->snapshot->n_events >= SNAPSHOT_EVENTS_MAX) {
                        save->snapshot->events_next = event.seq;
                        return;
                }
                e = add(save, &baton__snapshot__event__descriptor, &save->snapshot->events, &save->snapshot->n_events);
                if (!e)
                        return;
                e->seq = event.seq;
                e->time_us = event.time_us;
                e->monotonic_us = event.monotonic_us;
                e->kind = event.kind;
                e->instance = event.instance;
                e->pid = event.pid;
                e->state = event.state;
                e->previous = event.previous;
                e->how = event.exit.how;
                e->status = event.exit.status;
                e->cause = event.cause;
                e->uptime_us = event.uptime_us;
                e->number = event.number;
                copy_text(save, &e->runner, event.runner);
                copy_text(save, &e->text, event.text);
        }
}

/* pack() - the snapshot becomes the last descriptor of the manifest. */
static void pack(Save *save, int *ret_memfd) {
        size_t size = baton__snapshot__snapshot__get_packed_size(save->snapshot);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);
        int r;

        if (!packed) {
                (void) fail(save, -ENOMEM, "the snapshot");
                return;
        }
        (void) baton__snapshot__snapshot__pack(save->snapshot, packed);
        r = memfd_sealed("baton-snapshot", packed, size, ret_memfd);
        if (r == 0)
                r = manifest_add(save->manifest, SNAPSHOT_NAME, *ret_memfd);
        if (r < 0)
                (void) fail(save, r, "the snapshot");
}

static void save_all(Save *save, const SnapshotPart *part) {
        ListenerCounts counts = listener_counts(save->supervisor->listener);

        save->snapshot->generation = save->supervisor->generation;
        save->snapshot->pid = getpid();
        save->snapshot->begun_us = part->begun_us;
        save->snapshot->frozen_us = clock_now();
        save->snapshot->accepted = counts.accepted;
        save->snapshot->refused = counts.refused;
        save->snapshot->partial = part->is_partial;
        save_changed(save, part);
        if (save->error == 0 && !part->is_partial)
                save_relays(save);
        if (save->error == 0 && !part->is_partial)
                save_runners(save);
        if (save->error == 0 && !part->is_partial)
                save_waiting(save, part->asker);
        if (save->error == 0)
                save_events(save, part);
}

int snapshot_save(Supervisor *supervisor, const SnapshotPart *part, Manifest *manifest, int *ret_memfd,
                  char reason[MANIFEST_REASON_SIZE]) {
        Save save = { .supervisor = supervisor, .manifest = manifest, .reason = reason };

        save.snapshot = malloc(sizeof(*save.snapshot));
        if (!save.snapshot) {
                (void) fail(&save, -ENOMEM, "the snapshot");
                return -ENOMEM;
        }
        baton__snapshot__snapshot__init(save.snapshot);
        manifest->version = snapshot_version();
        save_all(&save, part);
        if (save.error == 0)
                pack(&save, ret_memfd);
        if (save.error == 0)
                supervisor->precopy.next_event = save.snapshot->events_next;
        baton__snapshot__snapshot__free_unpacked(save.snapshot, NULL);
        return save.error;
}

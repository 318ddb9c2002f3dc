/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot, written. What the keeper answers at once is waited for (supervisor_rest()), so that there is no request under way
 * and no event that was raised; everything else crosses as it is, in the middle of whatever it does. Each part is written by
 * the module that owns it. A call that nobody could go on with is the one thing that is in the way.
 */

#include "supervisor/snapshot-internal.h"

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
#include "supervisor/checkpoint.h"
#include "supervisor/control-internal.h"
#include "supervisor/failover.h"
#include "supervisor/metrics.h"
#include "supervisor/relay.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/service.h"
#include "supervisor/snapshot-check.h"
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

static void count(const Call *call, void *userdata) {
        (void) call;
        ++*(size_t *) userdata;
}

size_t snapshot_count_wishes(const Instance *instance) {
        size_t n = 0;

        checkpoint_each_call(instance, count, &n);
        return n;
}

static bool runner_obstacle(const Runner *runner, char reason[MANIFEST_REASON_SIZE]) {
        if (runner->upgrade)
                return because(reason, "runner %s is being upgraded", runner->name);
        if (runner->past)
                return because(reason, "a predecessor of runner %s finishes what it has begun", runner->name);
        if (checkpoint_is_under_way(runner))
                return because(reason, "a checkpoint of runner %s is being made", runner->name);
        if (runner->instance && failover_is_under_way(runner->instance))
                return because(reason, "runner %s goes on from its checkpoint just now", runner->name);
        return false;
}

static bool instance_obstacle(const Instance *instance, char reason[MANIFEST_REASON_SIZE]) {
        if (instance->peer && peer_owed_calls(instance->peer) > snapshot_count_wishes(instance))
                return because(reason, "a call of runner %s has not been answered", instance->runner->name);
        if (!service_crosses(instance))
                return because(reason, "an event of the service of runner %s is under way", instance->runner->name);
        return false;
}

/* What was given and has not changed since was in nobody's way then. */
bool snapshot_obstacle(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]) {
        size_t owed = supervisor->precopy.n_owed, crossing = (supervisor->takeover ? 1 : 0) + relay_count(supervisor);
        const Crossing *each;
        const Precopied *it;

        TAILQ_FOREACH (it, &supervisor->precopy.changed, link) {
                if (it->kind == PRECOPIED_RUNNER && runner_obstacle(CONTAINER_OF(it, Runner, copied), reason))
                        return true;
                if (it->kind == PRECOPIED_INSTANCE && instance_obstacle(CONTAINER_OF(it, Instance, copied), reason))
                        return true;
                if (it->kind == PRECOPIED_CONTROL)
                        owed += peer_owed_calls(control_peer(CONTAINER_OF(it, Control, copied))) - it->owed;
        }
        LIST_FOREACH (each, &supervisor->crossings, link)
                crossing++;
        if (owed > crossing)
                return because(reason, "%zu commands of clients wait for their answers", owed - crossing);
        return false;
}

/* -------------------------------------------------------------------------------------------------------------- writing */

bool snapshot_fail(SnapshotSave *save, int error, const char *what) {
        if (save->error == 0) {
                save->error = error;
                (void) snprintf(save->reason, MANIFEST_REASON_SIZE, "%s: %s", what, strerror(-error));
        }
        return false;
}

void *snapshot_grow(SnapshotSave *save, void *array, size_t n) {
        void ***pointers = array, **larger;

        larger = (n & (n - 1)) == 0 ? realloc(*pointers, (n ? n * 2 : 1) * sizeof(void *)) : *pointers;
        if (larger)
                *pointers = larger;
        else
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
        return larger;
}

void *snapshot_add(SnapshotSave *save, const ProtobufCMessageDescriptor *type, void *array, size_t *n) {
        ProtobufCMessage ***messages = array, *message;

        if (save->error < 0 || !snapshot_grow(save, array, *n))
                return NULL;
        message = malloc(type->sizeof_message);
        if (!message) {
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
                return NULL;
        }
        protobuf_c_message_init(type, message);
        (*messages)[(*n)++] = message;
        return message;
}

/* copy_text() - of one that may be NULL, which stays the empty one. */
static void copy_text(SnapshotSave *save, char **to, const char *text) {
        char *copy = text ? strdup(text) : NULL;

        if (copy)
                *to = copy;
        else if (text)
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
}

/* connection_of() - the number of the one that @call came by. */
static uint32_t connection_of(const Call *call) {
        return control_number(peer_userdata(call_peer(call)));
}

static void save_relay(const Instance *instance, const RelayCrossing *crossing, void *userdata) {
        SnapshotSave *save = userdata;
        Baton__Snapshot__Relay *relay = snapshot_add(save, &baton__snapshot__relay__descriptor,
                                                     &save->snapshot->relays, &save->snapshot->n_relays);
        char lane[SNAPSHOT_PREFIX_SIZE];
        int r;

        if (!relay)
                return;
        relay->connection = connection_of(crossing->outer);
        relay->outer = peer_saved_call(crossing->outer);
        relay->instance = instance->id;
        relay->inner = crossing->inner ? peer_saved_call(crossing->inner) : 0;
        relay->deadline_us = crossing->deadline_us;
        copy_text(save, &relay->reason, crossing->reason);
        copy_text(save, &relay->kind, crossing->kind);
        if (relay->outer == 0 || (crossing->inner && relay->inner == 0))
                (void) snapshot_fail(save, -EAGAIN, "a supervised call");
        if (crossing->lane < 0 || save->error < 0)
                return;
        (void) snprintf(lane, sizeof(lane), "client/%u/attach/%u", relay->connection, relay->outer);
        copy_text(save, &relay->lane, lane);
        r = manifest_add(save->manifest, lane, crossing->lane);
        if (r < 0)
                (void) snapshot_fail(save, r, lane);
}

/* save_whole() - what is of no single runner. */
static void save_whole(SnapshotSave *save) {
        const Supervisor *supervisor = save->supervisor;
        Baton__Snapshot__Snapshot *snapshot = save->snapshot;
        const Group *group;
        int r = 0;

        snapshot->configured_us = supervisor->configured_us;
        snapshot->runners_total = HASH_CNT(by_name, supervisor->runners);
        if (unknown_add(supervisor->unknown, &snapshot->base) < 0)
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
        if (supervisor->metrics) {
                copy_text(save, &snapshot->metrics, metrics_address(supervisor->metrics));
                r = manifest_add(save->manifest, SNAPSHOT_METRICS, metrics_listener(supervisor->metrics));
                if (r < 0)
                        (void) snapshot_fail(save, r, SNAPSHOT_METRICS);
        }
        TAILQ_FOREACH (group, &supervisor->groups, link)
                snapshot->n_groups++;
        snapshot->groups = save->error < 0 ? NULL : calloc(snapshot->n_groups + 1, sizeof(*snapshot->groups));
        snapshot->n_groups = 0;
        TAILQ_FOREACH (group, &supervisor->groups, link) {
                if (!snapshot->groups || group_save(group, &snapshot->groups[snapshot->n_groups]) < 0) {
                        (void) snapshot_fail(save, -ENOMEM, "the groups");
                        return;
                }
                snapshot->n_groups++;
        }
        r = hooks_save(supervisor->hooks, save->manifest, snapshot);
        if (r < 0)
                (void) snapshot_fail(save, r, "the hooks");
}

static Baton__Snapshot__Waiting *save_call(SnapshotSave *save, const Call *call, const char *method) {
        Baton__Snapshot__Waiting *waiting = snapshot_add(save, &baton__snapshot__waiting__descriptor,
                                                         &save->snapshot->waiting, &save->snapshot->n_waiting);

        if (!waiting)
                return NULL;
        waiting->connection = connection_of(call);
        waiting->call = peer_saved_call(call);
        waiting->method = strdup(method);
        if (!waiting->method)
                (void) snapshot_fail(save, -ENOMEM, method);
        else if (waiting->call == 0)
                (void) snapshot_fail(save, -EAGAIN, method);
        return waiting;
}

typedef struct Taken {
        SnapshotSave *save;
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
                (void) snapshot_fail(taken->save, -ENOMEM, taken->waiting->method);
}

static void save_waiting(SnapshotSave *save, const Call *asker) {
        const Crossing *crossing;

        LIST_FOREACH (crossing, &save->supervisor->crossings, link) {
                Taken taken = { .save = save };

                if (call_is_cancelled(crossing->call))
                        continue; /* nobody waits for it, and it may have no connection any more */
                taken.waiting = save_call(save, crossing->call, crossing->method);
                if (save->error < 0)
                        return;
                taken.waiting->begun = crossing->begun;
                crossing->give(crossing, take_request, &taken);
        }
        if (asker)
                (void) save_call(save, asker, "");
}

/* save_events() - those that were not given yet; in a part of it not too many. */
static void save_events(SnapshotSave *save, const SnapshotPart *part) {
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
                e = snapshot_add(save, &baton__snapshot__event__descriptor, &save->snapshot->events,
                                 &save->snapshot->n_events);
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
static void pack(SnapshotSave *save, int *ret_memfd) {
        size_t size = baton__snapshot__snapshot__get_packed_size(save->snapshot);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);
        int r;

        if (!packed) {
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
                return;
        }
        (void) baton__snapshot__snapshot__pack(save->snapshot, packed);
        r = memfd_sealed("baton-snapshot", packed, size, ret_memfd);
        if (r == 0)
                r = manifest_add(save->manifest, SNAPSHOT_NAME, *ret_memfd);
        if (r < 0)
                (void) snapshot_fail(save, r, "the snapshot");
}

static void save_all(SnapshotSave *save, SnapshotPart *part) {
        ListenerCounts counts = listener_counts(save->supervisor->listener);

        save->snapshot->generation = save->supervisor->generation;
        save->snapshot->pid = getpid();
        save->snapshot->begun_us = part->begun_us;
        save->snapshot->frozen_us = clock_now();
        save->snapshot->accepted = counts.accepted;
        save->snapshot->refused = counts.refused;
        save->snapshot->partial = part->is_partial;
        snapshot_save_changed(save, part);
        if (save->error == 0 && !part->is_partial)
                relay_each(save->supervisor, save_relay, save);
        if (save->error == 0 && !part->is_partial)
                save_whole(save);
        if (save->error == 0 && !part->is_partial)
                save_waiting(save, part->asker);
        if (save->error == 0)
                save_events(save, part);
}

int snapshot_save(Supervisor *supervisor, SnapshotPart *part, Manifest *manifest, int *ret_memfd,
                  char reason[MANIFEST_REASON_SIZE]) {
        SnapshotSave save = { .supervisor = supervisor, .manifest = manifest, .reason = reason };

        save.snapshot = malloc(sizeof(*save.snapshot));
        if (!save.snapshot) {
                (void) snapshot_fail(&save, -ENOMEM, "the snapshot");
                return -ENOMEM;
        }
        baton__snapshot__snapshot__init(save.snapshot);
        manifest->version = snapshot_version();
        save_all(&save, part);
        if (save.error == 0 && !part->is_partial && snapshot_check_forgotten(supervisor, reason))
                save.error = -EINVAL;
        if (save.error == 0)
                pack(&save, ret_memfd);
        if (save.error == 0)
                supervisor->precopy.next_event = save.snapshot->events_next;
        baton__snapshot__snapshot__free_unpacked(save.snapshot, NULL);
        return save.error;
}

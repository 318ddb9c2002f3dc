/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot, written. Only what is at rest is written down: runners that are being started or stopped, requests that the
 * keeper has not answered and calls that nobody could go on with are waited for instead, so that there is one way to carry
 * a thing, and not one for each of the states it passes through.
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
#include "supervisor/control.h"
#include "supervisor/relay.h"
#include "supervisor/runner-internal.h"

void snapshot_client(char prefix[SNAPSHOT_PREFIX_SIZE], uint32_t number) {
        (void) snprintf(prefix, SNAPSHOT_PREFIX_SIZE, "client/%" PRIu32, number);
}

void snapshot_instance(char prefix[SNAPSHOT_PREFIX_SIZE], uint64_t id) {
        (void) snprintf(prefix, SNAPSHOT_PREFIX_SIZE, "instance/%" PRIx64, id);
}

/* ----------------------------------------------------------------------------------------------------- what is in the way */

static bool _printf_(2, 3) because(char reason[MANIFEST_REASON_SIZE], const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, MANIFEST_REASON_SIZE, format, arguments);
        va_end(arguments);
        return true;
}

static bool is_in_the_way(const Instance *instance, size_t *n_relays, char reason[MANIFEST_REASON_SIZE]) {
        const char *name = instance->runner->name;

        if (instance->runner->hidden)
                return because(reason, "a hook is running: %s", name);
        if (instance->ended || instance->stop != INSTANCE_STOP_NONE || instance->state == PROCESS_STOPPING)
                return because(reason, "runner %s is being stopped", name);
        if (instance->state != PROCESS_UP || instance->bootstrap)
                return because(reason, "runner %s is being started", name);
        if (runner_config_native(instance->config) && (!instance->peer || !peer_is_ready(instance->peer)))
                return because(reason, "runner %s has no connection", name);
        if (!LIST_EMPTY(&instance->drops) || instance->ended_peer || instance->is_gone || instance->n_events > 0)
                return because(reason, "a connection of runner %s is being ended", name);
        if (!relay_crosses(instance, n_relays) || (instance->peer && peer_owed_calls(instance->peer) > 0))
                return because(reason, "a call of runner %s, or to it, is in a state that cannot cross", name);
        return false;
}

bool snapshot_obstacle(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]) {
        size_t owed = 0, crossing = supervisor->takeover ? 1 : 0, relays;
        const ListenerClient *client = NULL;
        const Instance *instance, *next;
        const Crossing *each;

        if (!keeper_link_settled(supervisor->link))
                return because(reason, "the keeper has not answered everything");
        if (!TAILQ_EMPTY(&supervisor->raised) || !TAILQ_EMPTY(&supervisor->to_begin) ||
            !TAILQ_EMPTY(&supervisor->to_spawn))
                return because(reason, "runners are being started");
        HASH_ITER (by_id, supervisor->instances, instance, next) {
                if (is_in_the_way(instance, &relays, reason))
                        return true;
                crossing += relays;
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
        const Supervisor *supervisor;
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

static void save_clients(Save *save) {
        const ListenerClient *client = NULL;

        while (save->error == 0 && (client = listener_next_client(save->supervisor->listener, client))) {
                const Control *control = listener_client_control(client);
                const ControlClient *who = control_client(control);
                char prefix[SNAPSHOT_PREFIX_SIZE];
                Baton__Snapshot__Connection *message;

                snapshot_client(prefix, control_number(control));
                message = add(save, &baton__snapshot__connection__descriptor, &save->snapshot->connections,
                              &save->snapshot->n_connections);
                if (!message || !save_peer(save, control_peer(control), prefix, &message->peer))
                        return;
                message->number = control_number(control);
                message->uid = who->credentials.uid;
                message->gid = who->credentials.gid;
                message->pid = who->credentials.pid;
                message->role = who->role;
        }
}

/* connection_of() - the number of the one that @call came by. */
static uint32_t connection_of(const Call *call) {
        return control_number(peer_userdata(call_peer(call)));
}

static void save_relay(const Call *outer, const Call *inner, void *userdata) {
        Save *save = userdata;
        Baton__Snapshot__Relay *relay =
                add(save, &baton__snapshot__relay__descriptor, &save->snapshot->relays, &save->snapshot->n_relays);

        if (!relay)
                return;
        relay->connection = connection_of(outer);
        relay->outer = peer_saved_call(outer);
        relay->instance = save->instance;
        relay->inner = peer_saved_call(inner);
        if (relay->outer == 0 || relay->inner == 0)
                (void) fail(save, -EAGAIN, "a supervised call");
}

static void save_instances(Save *save) {
        Instance *instance, *next;

        HASH_ITER (by_id, save->supervisor->instances, instance, next) {
                Baton__Snapshot__Instance *message;
                char prefix[SNAPSHOT_PREFIX_SIZE];

                if (!instance->peer)
                        continue;
                snapshot_instance(prefix, instance->id);
                message = add(save, &baton__snapshot__instance__descriptor, &save->snapshot->instances,
                              &save->snapshot->n_instances);
                if (!message || !save_peer(save, instance->peer, prefix, &message->peer))
                        return;
                message->id = save->instance = instance->id;
                relay_each(instance, save_relay, save);
        }
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
                crossing->give(crossing, take_request, &taken);
        }
        if (asker)
                (void) save_call(save, asker, "");
}

/* copy_text() - of one that may be NULL, which stays the empty one. */
static void copy_text(Save *save, char **to, const char *text) {
        char *copy = text ? strdup(text) : NULL;

        if (copy)
                *to = copy;
        else if (text)
                (void) fail(save, -ENOMEM, "the events");
}

static void save_events(Save *save) {
        const Events *events = save->supervisor->events;
        Event event;

        save->snapshot->events_next = events_next_seq(events);
        for (uint64_t seq = 0; events_find(events, seq, &event); seq = event.seq + 1) {
                Baton__Snapshot__Event *e = add(save, &baton__snapshot__event__descriptor, &save->snapshot->events,
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

int snapshot_save(const Supervisor *supervisor, const Call *asker, uint64_t begun_us, Manifest *manifest,
                  int *ret_memfd, char reason[MANIFEST_REASON_SIZE]) {
        Save save = { .supervisor = supervisor, .manifest = manifest, .reason = reason };
        ListenerCounts counts = listener_counts(supervisor->listener);

        save.snapshot = malloc(sizeof(*save.snapshot));
        if (!save.snapshot) {
                (void) fail(&save, -ENOMEM, "the snapshot");
                return -ENOMEM;
        }
        baton__snapshot__snapshot__init(save.snapshot);
        save.snapshot->generation = supervisor->generation;
        save.snapshot->pid = getpid();
        save.snapshot->begun_us = begun_us;
        save.snapshot->frozen_us = clock_now();
        save.snapshot->accepted = counts.accepted;
        save.snapshot->refused = counts.refused;
        manifest->version = SNAPSHOT_VERSION;
        save_clients(&save);
        if (save.error == 0)
                save_instances(&save);
        if (save.error == 0)
                save_waiting(&save, asker);
        if (save.error == 0)
                save_events(&save);
        if (save.error == 0)
                pack(&save, ret_memfd);
        baton__snapshot__snapshot__free_unpacked(save.snapshot, NULL);
        return save.error;
}

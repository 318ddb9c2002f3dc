/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor. Everything that can be found wrong is found wrong before READY: the manifest's descriptors, each compared with
 * what it should be; the snapshot, unpacked; the keeper's table, read to its end. After GO the table is recovered as after
 * a crash (recovery.c), but that the connections come from the snapshot, and the calls in them go on. One that cannot, for
 * lack of memory, is ended like that of a supervisor that died; nothing else is harmed by that.
 */

#include "supervisor/successor.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/step.h"
#include "proto/control.pb-c.h"
#include "proto/transfer.h"
#include "supervisor/control.h"
#include "supervisor/daemon.h"
#include "supervisor/fault.h"
#include "supervisor/relay.h"
#include "supervisor/snapshot.h"
#include "supervisor/takeover.h"

#define FAULT_REFUSED "the successor refuses, at a fault point"

struct Successor {
        Supervisor *supervisor;
        int socket;
        LoopIo io;
        Transfer transfer;
        Manifest manifest;
        Baton__Snapshot__Snapshot *snapshot; /* NULL: it has not come yet */
        bool loaded;                         /* the table is told */
        bool refused;
        uint64_t ready_us; /* when READY was said */
        uint32_t n_calls, n_runners, n_connections;
};

/* refuse() - the keeper ends us. */
static void refuse(Successor *successor, const char *reason) {
        if (successor->refused)
                return;
        successor->refused = true;
        loop_io_stop(&successor->io);
        log_warning("cannot follow the supervisor: %s", reason);
        (void) keeper_link_refuse(successor->supervisor->link, reason);
}

static void look_ready(Successor *successor) {
        if (!successor->loaded || !successor->snapshot || successor->refused)
                return;
        successor->ready_us = clock_now();
        (void) keeper_link_ready(successor->supervisor->link);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COMMIT) < 0) /* GO may be on its way: it holds */
                (void) keeper_link_refuse(successor->supervisor->link, FAULT_REFUSED);
}

/* ---------------------------------------------------------------------------------------------------------------- taking */

/* lacks() - whether a message in it is not there at all; @what says which. */
static bool lacks(const Baton__Snapshot__Snapshot *snapshot) {
        for (size_t i = 0; i < snapshot->n_connections; i++)
                if (!snapshot->connections[i]->peer || snapshot->connections[i]->role >= _ROLE_N)
                        return true;
        for (size_t i = 0; i < snapshot->n_instances; i++)
                if (!snapshot->instances[i]->peer)
                        return true;
        for (size_t i = 0; i < snapshot->n_relays; i++)
                if (snapshot->relays[i]->connection >= snapshot->n_connections)
                        return true;
        for (size_t i = 0; i < snapshot->n_waiting; i++)
                if (snapshot->waiting[i]->connection >= snapshot->n_connections)
                        return true;
        return false;
}

static void take_snapshot(Successor *successor) {
        _cleanup_fd_ int fd = -1;
        MemfdMapping mapping;
        int r;

        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_DELTA) < 0) {
                refuse(successor, FAULT_REFUSED);
                return;
        }
        successor->manifest = successor->transfer.taken;
        successor->transfer.taken = MANIFEST_NULL;
        fd = manifest_take(&successor->manifest, SNAPSHOT_NAME);
        r = fd < 0 ? -EBADF : memfd_map_sealed(fd, SNAPSHOT_SIZE_MAX, &mapping);
        if (r == 0) {
                successor->snapshot = baton__snapshot__snapshot__unpack(NULL, mapping.size, mapping.data);
                memfd_unmap(&mapping);
        }
        if (!successor->snapshot || lacks(successor->snapshot)) {
                refuse(successor, "its snapshot is missing or broken");
                return;
        }
        (void) transfer_say(successor->socket, TAKEOVER_WORD_TAKEN);
        look_ready(successor);
}

static void handover_ready(LoopIo *io, unsigned events) {
        Successor *successor = CONTAINER_OF(io, Successor, io);
        TransferState state;
        short wanted;

        (void) events;
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COPY) < 0) {
                refuse(successor, FAULT_REFUSED);
                return;
        }
        if (successor->snapshot) {
                char word[TRANSFER_WORD_SIZE];

                /* What follows the snapshot is the predecessor's end; whether before or after GO the keeper knows. */
                if (transfer_hear(successor->socket, word) != -EAGAIN)
                        loop_io_stop(&successor->io);
                return;
        }
        do {
                state = transfer_step(&successor->transfer);
        } while (state == TRANSFER_SAID);
        wanted = transfer_events(&successor->transfer);
        loop_io_set(successor->supervisor->loop, &successor->io, successor->socket,
                    LOOP_IN | (wanted & POLLOUT ? LOOP_OUT : 0));
        if (state == TRANSFER_FAILED)
                refuse(successor, successor->transfer.reason);
        else if (state == TRANSFER_DONE)
                take_snapshot(successor);
}

/* begin() - the predecessor may have left word of a fault point. */
static void begin(Successor *successor) {
        char word[TRANSFER_WORD_SIZE], reason[FAULT_REASON_SIZE];
        bool arms = transfer_hear(successor->socket, word) == 0 &&
                    strncmp(word, TAKEOVER_WORD_FAULT, strlen(TAKEOVER_WORD_FAULT)) == 0 &&
                    fault_set(word + strlen(TAKEOVER_WORD_FAULT), FAULT_SUCCESSOR, reason) == 0;

        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_START) < 0)
                refuse(successor, FAULT_REFUSED);
        else
                (void) transfer_say(successor->socket, arms ? TAKEOVER_WORD_ARMED : TAKEOVER_WORD_HERE);
}

int successor_new(Successor **ret_successor, Supervisor *supervisor, int handover_fd_consume) {
        Successor *successor = calloc(1, sizeof(*successor));

        if (!successor) {
                fd_close(handover_fd_consume);
                return -ENOMEM;
        }
        *successor = (Successor){
                .supervisor = supervisor,
                .socket = handover_fd_consume,
                .io = LOOP_IO_NULL(handover_ready),
                .manifest = MANIFEST_NULL,
        };
        transfer_take(&successor->transfer, successor->socket, SNAPSHOT_VERSION, SNAPSHOT_VERSION);
        loop_io_set(supervisor->loop, &successor->io, successor->socket, LOOP_IN);
        begin(successor);
        *ret_successor = successor;
        return 0;
}

Successor *successor_free(Successor *successor) {
        if (!successor)
                return NULL;
        fault_end();
        loop_io_stop(&successor->io);
        transfer_deinit(&successor->transfer);
        manifest_deinit(&successor->manifest);
        if (successor->snapshot)
                baton__snapshot__snapshot__free_unpacked(successor->snapshot, NULL);
        fd_close(successor->socket);
        free(successor);
        return NULL;
}

void successor_loaded(Successor *successor, bool is_final) {
        successor->loaded = is_final;
        look_ready(successor);
}

/* ---------------------------------------------------------------------------------------------------------------- going on */

int successor_restore_peer(Successor *successor, const Instance *instance, Peer **ret_peer,
                           const PeerLoopParameters *parameters) {
        const Baton__Snapshot__Snapshot *snapshot = successor->snapshot;
        char prefix[SNAPSHOT_PREFIX_SIZE], reason[MANIFEST_REASON_SIZE] = "no memory";

        snapshot_instance(prefix, instance->id);
        for (size_t i = 0; i < snapshot->n_instances; i++) {
                int r;

                if (snapshot->instances[i]->id != instance->id)
                        continue;
                r = peer_loop_restore(ret_peer, parameters, snapshot->instances[i]->peer, prefix, &successor->manifest,
                                      reason);
                if (r < 0)
                        log_warning("runner %s: its connection was not taken over: %s", instance->runner->name,
                                    reason);
                else
                        successor->n_runners++;
                return r < 0 ? r : 1;
        }
        return 0;
}

static void restore_events(Successor *successor) {
        const Baton__Snapshot__Snapshot *snapshot = successor->snapshot;
        Events *events = successor->supervisor->events;
        uint64_t last = 0;

        events_clear(events); /* that runners and configuration are there was told before */
        for (size_t i = 0; i < snapshot->n_events; i++) {
                const Baton__Snapshot__Event *e = snapshot->events[i];
                const Event event = {
                        .kind = (EventKind) MIN(e->kind, (uint32_t) _EVENT_KIND_N - 1),
                        .runner = *e->runner ? e->runner : NULL,
                        .instance = e->instance,
                        .pid = e->pid,
                        .state = (PolicyState) MIN(e->state, (uint32_t) _POLICY_STATE_N - 1),
                        .previous = (PolicyState) MIN(e->previous, (uint32_t) _POLICY_STATE_N - 1),
                        .exit = { .how = e->how, .status = e->status },
                        .cause = e->cause,
                        .uptime_us = e->uptime_us,
                        .number = e->number,
                        .text = *e->text ? e->text : NULL,
                        .seq = e->seq,
                        .time_us = e->time_us,
                        .monotonic_us = e->monotonic_us,
                };

                if (e->seq <= last)
                        continue;
                last = e->seq;
                events_restore(events, &event);
        }
        if (snapshot->events_next > last)
                events_set_next(events, snapshot->events_next);
}

static void restore_client(Successor *successor, size_t i, Control **ret_control) {
        const Baton__Snapshot__Connection *connection = successor->snapshot->connections[i];
        const struct ucred who = { connection->pid, connection->uid, connection->gid };
        char prefix[SNAPSHOT_PREFIX_SIZE];

        snapshot_client(prefix, i);
        if (listener_restore(successor->supervisor->listener, &who, (Role) connection->role, connection->peer, prefix,
                             &successor->manifest, ret_control) == 0)
                successor->n_connections++;
}

static void restore_relay(Successor *successor, const Baton__Snapshot__Relay *relay, Control *const *controls) {
        const Control *control = controls[relay->connection];
        Instance *instance = supervisor_find_instance(successor->supervisor, relay->instance);
        Call *inner = instance && instance->peer ? peer_restored_call(instance->peer, relay->inner) : NULL;
        Call *outer = control && inner ? peer_restored_call(control_peer(control), relay->outer) : NULL;

        /* Half of one is ended by peer_own(), or runs out without being heard. */
        if (!outer)
                return;
        if (relay_restore(instance, outer, inner) < 0)
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "no memory to go on with the call");
        else
                successor->n_calls++;
}

static void own_all(const Successor *successor, Control *const *controls) {
        const Baton__Snapshot__Snapshot *snapshot = successor->snapshot;

        for (size_t i = 0; i < snapshot->n_instances; i++) {
                const Instance *instance = supervisor_find_instance(successor->supervisor, snapshot->instances[i]->id);

                if (instance && instance->peer)
                        peer_own(instance->peer);
        }
        for (size_t i = 0; i < snapshot->n_connections; i++)
                if (controls[i])
                        peer_own(control_peer(controls[i]));
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
        const Baton__Snapshot__Snapshot *snapshot = successor->snapshot;
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
        response.connections = successor->n_connections;
        response.runners = successor->n_runners;
        response.calls = successor->n_calls;
        record(supervisor->takeovers, &response);
        if (asker)
                (void) call_answer_message(asker, &response.base);
}

void successor_restore(Successor *successor) {
        const Baton__Snapshot__Snapshot *snapshot = successor->snapshot;
        _cleanup_free_ Control **controls = calloc(snapshot->n_connections + 1, sizeof(*controls));
        _cleanup_free_ Call **calls = calloc(snapshot->n_waiting + 1, sizeof(Call *));
        Call *asker = NULL;

        restore_events(successor);
        listener_set_counts(successor->supervisor->listener, snapshot->accepted, snapshot->refused);
        for (size_t i = 0; controls && calls && i < snapshot->n_connections; i++)
                restore_client(successor, i, &controls[i]);
        for (size_t i = 0; controls && calls && i < snapshot->n_relays; i++)
                restore_relay(successor, snapshot->relays[i], controls);
        for (size_t i = 0; controls && calls && i < snapshot->n_waiting; i++) {
                const Control *control = controls[snapshot->waiting[i]->connection];

                calls[i] = control ? peer_restored_call(control_peer(control), snapshot->waiting[i]->call) : NULL;
        }
        step_note("supervisor", "active", 0);
        if (controls)
                own_all(successor, controls);
        for (size_t i = 0; calls && i < snapshot->n_waiting; i++) {
                const Baton__Snapshot__Waiting *waiting = snapshot->waiting[i];

                if (!calls[i])
                        continue;
                successor->n_calls++;
                if (!*waiting->method)
                        asker = calls[i];
                else if (!control_go_on(controls[waiting->connection], calls[i], waiting->method,
                                        waiting->request.data, waiting->request.len))
                        (void) call_fail(calls[i], STATUS_UNAVAILABLE, "the supervisor was replaced");
        }
        tell(successor, asker);
}

void successor_go(Successor *successor) {
        Supervisor *supervisor = successor->supervisor;

        if (!successor->snapshot || !successor->loaded)
                return; /* nobody has heard READY of us */
        takeovers_phase_at(supervisor->takeovers, TAKEOVER_PHASE_COMMIT, successor->ready_us);
        takeovers_phase(supervisor->takeovers, TAKEOVER_PHASE_RESUME);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_RESUME) < 0)
                _exit(EXIT_FAILURE); /* too late to refuse */
        daemon_loaded(supervisor->daemon);
        supervisor->successor = successor_free(successor);
}

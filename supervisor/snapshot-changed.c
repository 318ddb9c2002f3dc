/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot, what has changed: connections and runners, each whole, as many as a round may have, or, at the end, all of them.
 * Before the end only what rests is given: a runner that is up, or has no process and waits for a time, for others or for
 * nobody. A successor can make it what it is as soon as it has heard of it, and nothing of what it was told has to be taken
 * back unless something happens to it. What is in the middle of something would be another thing a moment later; it stays
 * in the queue, so that whatever is in the way of the freeze is in there, too (snapshot_obstacle()).
 */

#include "supervisor/snapshot-internal.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/peer-save.h"
#include "supervisor/checkpoint.h"
#include "supervisor/control-internal.h"
#include "supervisor/failover.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/service.h"
#include "supervisor/snapshot-check.h"

#define CONNECTION_EFFORT 8u /* of a round, where a runner is one */

/* ---------------------------------------------------------------------------------------------------------- connections */

static bool save_peer(SnapshotSave *save, Peer *peer, const char *prefix, Baton__Handover__Peer **ret_state) {
        int r = peer_save(peer, prefix, save->manifest, ret_state);

        if (r == -ESHUTDOWN || r == -EBUSY)
                return snapshot_fail(save, -EAGAIN, prefix);
        return r < 0 ? snapshot_fail(save, r, prefix) : true;
}

static void save_control(SnapshotSave *save, const Control *control) {
        const ControlClient *who = &control->client;
        char prefix[SNAPSHOT_PREFIX_SIZE];
        Baton__Snapshot__Connection *message;

        snapshot_client(prefix, control->number);
        message = snapshot_add(save, &baton__snapshot__connection__descriptor, &save->snapshot->connections,
                               &save->snapshot->n_connections);
        if (!message || !save_peer(save, control->peer, prefix, &message->peer))
                return;
        message->number = control->number;
        message->uid = who->credentials.uid;
        message->gid = who->credentials.gid;
        message->pid = who->credentials.pid;
        message->role = who->role;
}

static void save_wish(const Call *call, void *userdata) {
        Baton__Snapshot__Instance *message = userdata;

        message->checkpoints[message->n_checkpoints++] = peer_saved_call(call);
}

/* save_wishes() - its calls that wait for a checkpoint. */
static void save_wishes(SnapshotSave *save, const Instance *instance, Baton__Snapshot__Instance *message) {
        size_t n = snapshot_count_wishes(instance);

        message->checkpoints = n > 0 ? calloc(n, sizeof(*message->checkpoints)) : NULL;
        if (message->checkpoints)
                checkpoint_each_call(instance, save_wish, message);
        else if (n > 0)
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
}

static void save_instance(SnapshotSave *save, const Instance *instance) {
        Baton__Snapshot__Instance *message;
        char prefix[SNAPSHOT_PREFIX_SIZE];

        snapshot_instance(prefix, instance->id);
        message = snapshot_add(save, &baton__snapshot__instance__descriptor, &save->snapshot->instances,
                               &save->snapshot->n_instances);
        if (!message || !save_peer(save, instance->peer, prefix, &message->peer))
                return;
        message->id = instance->id;
        message->ping = instance->asking ? peer_saved_call(instance->asking) : 0;
        save_wishes(save, instance, message);
}

/* save_drive() - what its service is being driven to; it is no part of what a later state can replace. */
static void save_drive(SnapshotSave *save, const Instance *instance) {
        Baton__Snapshot__Instance *message = save->snapshot->instances[save->snapshot->n_instances - 1];
        char prefix[SNAPSHOT_PREFIX_SIZE];
        int r;

        snapshot_service(prefix, instance->id);
        r = service_save(instance, prefix, save->manifest, &message->drive);
        if (r < 0)
                (void) snapshot_fail(save, r, prefix);
}

/* ------------------------------------------------------------------------------------------------------ what can be given */

/* rests() - it stays what it is until something happens to it. A log that is followed changes with every line. */
static bool rests(const Runner *runner) {
        const Instance *instance = runner->instance;
        LogCrossing log = runner_log_crossing(runner->log);

        if (runner->queued || runner->events || runner->over || runner->upgrade || runner->past || runner->holding ||
            runner->terminal_fd >= 0 || runner_next_program(runner) >= 0 || checkpoint_is_under_way(runner) ||
            log.follow_us > 0 || log.lost > 0)
                return false;
        if (!instance || instance->over)
                return !runner_has_process(runner);
        return instance->state == PROCESS_UP && !instance->ended && !failover_is_under_way(instance) &&
               (runner->state == POLICY_UP || (runner->config->oneshot && runner->state == POLICY_STARTING)) &&
               (instance->peer || !runner_config_native(instance->config));
}

bool snapshot_can_be_given(const Precopied *it) {
        const Instance *instance;
        const Peer *peer;

        switch (it->kind) {
        case PRECOPIED_CONTROL:
                peer = CONTAINER_OF(it, Control, copied)->peer;
                return peer && peer_can_be_saved(peer);
        case PRECOPIED_INSTANCE:
                instance = CONTAINER_OF(it, Instance, copied);
                return instance->peer && peer_can_be_saved(instance->peer) && peer_is_ready(instance->peer) &&
                       peer_owed_calls(instance->peer) == 0 && !instance->asking && !instance->service;
        case PRECOPIED_RUNNER:
                return rests(CONTAINER_OF(it, Runner, copied));
        }
        return false;
}

/* is_over() - nothing of it is left to be given: its instance will end, too. */
static bool is_over(const Precopied *it) {
        return it->kind == PRECOPIED_INSTANCE && !CONTAINER_OF(it, Instance, copied)->peer;
}

/* --------------------------------------------------------------------------------------------------------------- giving */

/* keep_new() - of the descriptors from @from on those that the successor does not have yet. */
static void keep_new(SnapshotSave *save, Precopied *it, size_t from) {
        if (save->error == 0 && !it->given)
                it->given = calloc(1, sizeof(*it->given)); /* MANIFEST_NULL */
        if (save->error == 0 && (!it->given || manifest_keep_new(save->manifest, from, it->given) < 0))
                (void) snapshot_fail(save, -ENOMEM, "the snapshot");
}

static void save_runner(SnapshotSave *save, const Runner *runner) {
        Baton__Snapshot__Snapshot *snapshot = save->snapshot;
        Baton__Snapshot__Runner *message, **slot;
        int r = runner_save(runner, save->manifest, &message);

        if (r < 0) {
                (void) snapshot_fail(save, r, runner->name);
                return;
        }
        snapshot_check_given(message);
        slot = snapshot_grow(save, &snapshot->runners, snapshot->n_runners);
        if (slot)
                snapshot->runners[snapshot->n_runners++] = message;
        else
                baton__snapshot__runner__free_unpacked(message, NULL);
}

static void save_one(SnapshotSave *save, Precopied *it) {
        Precopy *precopy = &save->supervisor->precopy;
        size_t from = save->manifest->n;

        switch (it->kind) {
        case PRECOPIED_CONTROL:
                save_control(save, CONTAINER_OF(it, Control, copied));
                keep_new(save, it, from);
                precopy_note_given(precopy, it, (uint32_t) peer_owed_calls(CONTAINER_OF(it, Control, copied)->peer));
                break;
        case PRECOPIED_INSTANCE:
                save_instance(save, CONTAINER_OF(it, Instance, copied));
                keep_new(save, it, from);
                if (save->error == 0)
                        save_drive(save, CONTAINER_OF(it, Instance, copied));
                break;
        case PRECOPIED_RUNNER:
                save_runner(save, CONTAINER_OF(it, Runner, copied));
                break;
        }
        it->was_given |= save->error == 0;
}

/* save_gone() - what it has no more; the snapshot owns it from here on. */
static void save_gone(SnapshotSave *save) {
        Precopy *precopy = &save->supervisor->precopy;

        if (precopy->is_short)
                (void) snapshot_fail(save, -ENOMEM, "what is gone");
        save->snapshot->gone = precopy->gone;
        save->snapshot->n_gone = precopy->n_gone;
        save->snapshot->gone_runners = precopy->gone_runners;
        save->snapshot->n_gone_runners = precopy->n_gone_runners;
        precopy->gone = NULL;
        precopy->gone_runners = NULL;
        precopy->n_gone = precopy->room_gone = precopy->n_gone_runners = precopy->room_gone_runners = 0;
}

void snapshot_save_changed(SnapshotSave *save, SnapshotPart *part) {
        Precopy *precopy = &save->supervisor->precopy;
        size_t n = precopy->n_changed, effort = 0;

        part->n_seen = 0;
        while (part->n_seen < n && save->error == 0 && (!part->is_partial || effort < part->max)) {
                Precopied *it = precopy_take(precopy);

                part->n_seen++;
                if (part->is_partial &&
                    (!snapshot_can_be_given(it) || (it->kind == PRECOPIED_RUNNER && part->no_runners))) {
                        effort++;
                        precopy_queue(precopy, it);
                        continue;
                }
                if (is_over(it))
                        continue;
                effort += it->kind == PRECOPIED_RUNNER ? 1 : CONNECTION_EFFORT;
                save_one(save, it);
                if (save->error < 0)
                        precopy_queue(precopy, it);
        }
        save_gone(save);
}

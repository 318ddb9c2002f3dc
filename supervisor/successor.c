/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor. It builds all there is while the predecessor serves: runners and instances from the keeper's table, which is
 * told to it and told again where it changes; connections from the predecessor's partial snapshots, each of which replaces
 * what an earlier one has said of the same connection. Meanwhile the loop and the keeper's link are held, the logs are not
 * written, and every watcher is known to the kernel (a held turn of the loop after each change): nothing is left for the
 * freeze but to take up what has changed last.
 *
 * Until GO only two sockets are looked at, by poll(2). Whatever fails is a refusal, after which the keeper ends us, and
 * none of the descriptors that we share is touched: so also without a keeper nothing is ended in order.
 *
 * READY is said when the last of both has been taken up: the table's final END, and the snapshot that is not partial.
 */

#include "supervisor/successor-internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/pace.h"
#include "common/step.h"
#include "proto/control.pb-c.h"
#include "proto/peer-save.h"
#include "proto/transfer.h"
#include "supervisor/control.h"
#include "supervisor/daemon.h"
#include "supervisor/fault.h"
#include "supervisor/instance-internal.h"
#include "supervisor/log-store.h"
#include "supervisor/relay.h"
#include "supervisor/reload.h"
#include "supervisor/snapshot.h"
#include "supervisor/takeover.h"
#include "supervisor/unknown.h"

/* successor_refuse() - the keeper ends us. */
void successor_refuse(Successor *successor, const char *reason) {
        if (successor->refused)
                return;
        successor->refused = true;
        log_warning("cannot follow the supervisor: %s", reason);
        (void) keeper_link_refuse(successor->supervisor->link, reason);
}

void successor_refuse_because(Successor *successor, const char *format, ...) {
        char reason[MANIFEST_REASON_SIZE];
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, sizeof(reason), format, arguments);
        va_end(arguments);
        successor_refuse(successor, reason);
}

/* ---------------------------------------------------------------------------------------------------- the keeper's table */

static void look_ready(Successor *successor);

/* follow() - what has changed in the table is taken up. */
static void follow(Successor *successor, bool is_final) {
        char reason[RECOVERY_REASON_SIZE];

        if (!successor->refused && daemon_follow(successor->supervisor->daemon, is_final, reason) < 0)
                successor_refuse(successor, reason);
        if (!is_final) /* some may have waited for their instance, or for its end */
                fleet_restore_crossed(successor->supervisor, NULL, false);
}

void successor_loaded(Successor *successor, bool is_final) {
        if (!successor->has_begun && fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COPY) < 0)
                successor_refuse(successor, SUCCESSOR_FAULT_REFUSED);
        successor->loaded = is_final;
        daemon_told(successor->supervisor->daemon);
        follow(successor, false);
        if (!successor->has_begun)
                (void) transfer_say(successor->socket, TAKEOVER_WORD_READY);
        successor->has_begun = true;
        look_ready(successor);
}

/* ------------------------------------------------------------------------------------------------------- the predecessor */

/* lacks() - whether a message in it is not there at all. */
static bool lacks(const Baton__Snapshot__Snapshot *snapshot) {
        for (size_t i = 0; i < snapshot->n_connections; i++)
                if (!snapshot->connections[i]->peer || snapshot->connections[i]->role >= _ROLE_N)
                        return true;
        for (size_t i = 0; i < snapshot->n_instances; i++)
                if (!snapshot->instances[i]->peer)
                        return true;
        return false;
}

/* take_events() - those that came since the last time. */
static void take_events(Successor *successor, const Baton__Snapshot__Snapshot *snapshot) {
        Events *events = successor->supervisor->events;

        if (successor->last_event == 0)
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

                if (e->seq <= successor->last_event)
                        continue;
                successor->last_event = e->seq;
                events_restore(events, &event);
        }
        if (snapshot->events_next > successor->last_event)
                events_set_next(events, snapshot->events_next);
}

static void take_up(Successor *successor, Round *round) {
        const Baton__Snapshot__Snapshot *snapshot = round->snapshot;

        if (!snapshot->partial && fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_DELTA) < 0) {
                successor_refuse(successor, SUCCESSOR_FAULT_REFUSED);
                return;
        }
        for (size_t i = 0; i < snapshot->n_gone; i++)
                successor_forget_client(successor, snapshot->gone[i]);
        for (size_t i = 0; i < snapshot->n_connections; i++)
                successor_take_client(successor, round, i);
        for (size_t i = 0; i < snapshot->n_instances; i++)
                successor_take_instance(successor, round, snapshot->instances[i]);
        take_events(successor, snapshot);
        if (snapshot->partial) {
                fleet_restore(successor->supervisor, snapshot);
                follow(successor, false); /* some may have waited for their connection */
                return;
        }
        successor->last = snapshot;
        (void) transfer_say(successor->socket, TAKEOVER_WORD_TAKEN);
        look_ready(successor);
}

Round *successor_free_round(Successor *successor, Round *round) {
        manifest_deinit(&round->manifest);
        if (round->snapshot) {
                fleet_restored(successor->supervisor, round->snapshot);
                baton__snapshot__snapshot__free_unpacked(round->snapshot, NULL);
        }
        free(round);
        return NULL;
}

static void unpack(Round *round) {
        _cleanup_fd_ int fd = manifest_take(&round->manifest, SNAPSHOT_NAME);
        MemfdMapping mapping;

        if (fd < 0 || memfd_map_sealed(fd, SNAPSHOT_SIZE_MAX, &mapping) < 0)
                return;
        round->snapshot = baton__snapshot__snapshot__unpack(NULL, mapping.size, mapping.data);
        memfd_unmap(&mapping);
}

/* take_round() - what has arrived; the next one may come. */
static void take_round(Successor *successor) {
        Round *round = calloc(1, sizeof(*round));

        if (!round) {
                successor_refuse(successor, "no memory for its snapshot");
                return;
        }
        round->manifest = successor->transfer.taken;
        successor->transfer.taken = MANIFEST_NULL;
        SLIST_INSERT_HEAD(&successor->rounds, round, link);
        transfer_deinit(&successor->transfer);
        transfer_take(&successor->transfer, successor->socket, SNAPSHOT_VERSION_MIN, SNAPSHOT_VERSION_MAX);
        unpack(round);
        if (round->snapshot && !lacks(round->snapshot))
                take_up(successor, round);
        else
                successor_refuse(successor, "its snapshot is missing or broken");
}

/* hear() - as much as has come. What follows the last of it is the predecessor's end; when that was the keeper knows. */
static void hear(Successor *successor) {
        TransferState state;

        do {
                state = transfer_step(&successor->transfer);
                if (state == TRANSFER_DONE)
                        take_round(successor);
                (void) pace_keep();
        } while (state == TRANSFER_SAID || (state == TRANSFER_DONE && !successor->last && !successor->refused));
        if (state == TRANSFER_FAILED && !successor->last)
                successor_refuse(successor, successor->transfer.reason);
        successor->deaf = state == TRANSFER_FAILED || successor->last || successor->refused;
}

/* make_runners() - those that the configuration has not led to, before what they have is adopted. */
static void make_runners(const Successor *successor) {
        Supervisor *supervisor = successor->supervisor;

        hooks_restore(supervisor->hooks, successor->last);
        fleet_restore(supervisor, successor->last);
}

/* take_runners() - when it is: each is what it was, with what belongs to several of them. */
static void take_runners(Successor *successor, Manifest *manifest) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Supervisor *supervisor = successor->supervisor;

        hooks_restore_crossed(supervisor->hooks, manifest);
        fleet_restore_crossed(supervisor, manifest, true);
        for (size_t i = 0; i < last->n_groups; i++)
                group_restore(supervisor, last->groups[i]);
        reload_adopt_metrics(supervisor, last->metrics, manifest_take(manifest, SNAPSHOT_METRICS));
        supervisor->unknown = unknown_keep(&last->base);
        if (last->configured_us)
                supervisor->configured_us = last->configured_us;
}

/* look_ready() - the last of both: what the connections need is there before what refers to them. */
static void look_ready(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Manifest *manifest = last ? &SLIST_FIRST(&successor->rounds)->manifest : NULL; /* the latest came with it */

        if (!successor->loaded || !last || successor->refused || successor->waiting)
                return;
        make_runners(successor);
        follow(successor, true);
        if (successor->refused)
                return;
        take_runners(successor, manifest);
        successor_take_calls(successor, manifest);
        listener_set_counts(successor->supervisor->listener, last->accepted, last->refused);
        loop_turn(successor->supervisor->loop);
        if (successor->refused)
                return;
        successor->ready_us = clock_now();
        (void) keeper_link_ready(successor->supervisor->link);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COMMIT) < 0) /* GO may be on its way: it holds */
                (void) keeper_link_refuse(successor->supervisor->link, SUCCESSOR_FAULT_REFUSED);
}

void successor_go(Successor *successor) {
        if (!successor->waiting)
                return; /* nobody has heard READY of us */
        successor->goes = true;
        pace_end();
        keeper_link_release(successor->supervisor->link);
}

void successor_wait(Successor *successor) {
        Supervisor *supervisor = successor->supervisor;

        while (!successor->goes) {
                struct pollfd fds[] = {
                        { .fd = keeper_link_fd(supervisor->link), .events = POLLIN },
                        { .fd = successor->has_begun && !successor->deaf ? successor->socket : -1,
                          .events = transfer_events(&successor->transfer) },
                };

                (void) poll(fds, ARRAY_SIZE(fds), -1);
                pace_begin();
                if (fds[0].revents)
                        keeper_link_read(supervisor->link);
                if (keeper_link_fd(supervisor->link) < 0)
                        _exit(EXIT_FAILURE);
                if (!successor->goes && fds[1].revents)
                        hear(successor);
                if (!successor->goes)
                        loop_turn(supervisor->loop);
        }
        successor_resume(successor);
}

/* begin() - the predecessor may have left word of a fault point, and of what it can give. */
static void begin(Successor *successor) {
        char word[TRANSFER_WORD_SIZE], reason[FAULT_REASON_SIZE];
        bool arms = false;

        while (transfer_hear(successor->socket, word) == 0) {
                if (strcmp(word, TAKEOVER_WORD_RUNNERS) == 0)
                        (void) transfer_say(successor->socket, word);
                if (strncmp(word, TAKEOVER_WORD_FAULT, strlen(TAKEOVER_WORD_FAULT)) == 0)
                        arms = fault_set(word + strlen(TAKEOVER_WORD_FAULT), FAULT_SUCCESSOR, reason) == 0;
        }
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_START) < 0)
                successor_refuse(successor, SUCCESSOR_FAULT_REFUSED);
        else
                (void) transfer_say(successor->socket, arms ? TAKEOVER_WORD_ARMED : TAKEOVER_WORD_HERE);
}

int successor_new(Successor **ret_successor, Supervisor *supervisor, int handover_fd_consume) {
        Successor *successor = calloc(1, sizeof(*successor));

        if (!successor) {
                fd_close(handover_fd_consume);
                return -ENOMEM;
        }
        *successor = (Successor){ .supervisor = supervisor, .socket = handover_fd_consume };
        SLIST_INIT(&successor->rounds);
        pace_begin();
        loop_hold(supervisor->loop);
        keeper_link_hold(supervisor->link);
        log_store_hold(supervisor->logs);
        events_hold(supervisor->events);
        transfer_take(&successor->transfer, successor->socket, SNAPSHOT_VERSION_MIN, SNAPSHOT_VERSION_MAX);
        begin(successor);
        *ret_successor = successor;
        return 0;
}

Successor *successor_free(Successor *successor) {
        Round *round;

        if (!successor)
                return NULL;
        fault_end();
        loop_timer_stop(&successor->tidy);
        while (successor_forget_connections(successor, UINT_MAX))
                ;
        while ((round = SLIST_FIRST(&successor->rounds))) {
                SLIST_REMOVE_HEAD(&successor->rounds, link);
                (void) successor_free_round(successor, round);
        }
        transfer_deinit(&successor->transfer);
        fd_close(successor->socket);
        free(successor->waiting);
        free(successor);
        return NULL;
}

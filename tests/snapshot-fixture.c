/* SPDX-License-Identifier: Apache-2.0 */

/* A failure of the fixture itself ends the program: nobody else is to blame. */

#include "tests/snapshot-fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/manifest.h"
#include "proto/peer-save.h"
#include "supervisor/config-internal.h"
#include "supervisor/control.h"
#include "supervisor/fleet.h"
#include "supervisor/group.h"
#include "supervisor/hooks.h"
#include "supervisor/instance-internal.h"
#include "supervisor/relay.h"
#include "supervisor/service.h"

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

static const char configuration[] = "runners:\n"
                                    "  native: { command: [/x], ready: hello }\n"
                                    "  web: { command: [/x, a], instances: 3 }\n"
                                    "  slow: { command: [/x], hooks: [ { on: [up], command: [/x], timeout: 1h } ] }\n"
                                    "  failed: { command: [/x], restart: never }\n"
                                    "  backs: { command: [/x], backoff: { initial: 1h, max: 1h } }\n"
                                    "  often: { command: [/x], every: 1h }\n"
                                    "  late: { command: [/x], ready: hello }\n"
                                    "groups:\n"
                                    "  g: { strategy: one_for_all, members: [web] }\n";

void snapshot_fixture_open(SupervisorFixture *fixture) {
        supervisor_fixture_open(fixture, 2, configuration);
}

static void client_ended(Control *control, void *userdata) {
        (void) userdata;
        (void) control_free(control);
}

/* make_manifest() - the descriptors that connection 1 may name: a lane, a channel, and a few that had arrived. */
static void make_manifest(Manifest *manifest) {
        static const char *const names[] = { "client/1/lane", "client/1/channel/0", "client/1/fd/0", "client/1/fd/1",
                                             "client/1/fd/2" };
        char reason[MANIFEST_REASON_SIZE];
        Manifest given = MANIFEST_NULL;
        int pairs[ARRAY_SIZE(names)][2], memfd;

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                CHECK(fd_socketpair(SOCK_STREAM, pairs[i]) == 0);
                CHECK(manifest_add(&given, names[i], pairs[i][0]) == 0);
        }
        CHECK(manifest_pack(&given, &memfd) == 0);
        CHECK(manifest_unpack(manifest, memfd, 0, 0, MANIFEST_FDS_MAX, reason) == 0);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                CHECK(manifest_accept(manifest, i, pairs[i][0], reason) == 0);
                fd_close(pairs[i][1]);
        }
        fd_close(memfd);
        manifest_deinit(&given);
}

static Control *restore_client(SupervisorFixture *fixture, const Baton__Snapshot__Connection *message,
                               Manifest *manifest) {
        const ControlClient client = {
                .credentials = { message->pid, message->uid, message->gid },
                .role = (Role) (message->role % _ROLE_N),
                .ended = client_ended,
        };
        Control *control;

        if (!message->peer ||
            control_restore(&control, fixture->supervisor, &client, message->peer, "client/1", manifest) < 0)
                return NULL;
        return control;
}

static void restore_relays(SupervisorFixture *fixture, const Baton__Snapshot__Snapshot *snapshot,
                           const Control *control) {
        Instance *instance = NULL;

        for (Runner *runner = runner_first(fixture->supervisor); !instance && runner; runner = runner_next(runner))
                instance = runner->instance;
        for (size_t i = 0; instance && i < snapshot->n_relays; i++) {
                const Baton__Snapshot__Relay *relay = snapshot->relays[i];
                const RelayCrossing crossing = {
                        .outer = peer_claim_call(control_peer(control), relay->outer, false),
                        .reason = relay->reason,
                        .deadline_us = relay->deadline_us,
                        .kind = relay->kind,
                        .lane = -1,
                };

                /* Each call is bound once, as a snapshot of ours has it. */
                for (size_t j = 0; j < i; j++)
                        if (snapshot->relays[j]->outer == relay->outer)
                                return;
                if (crossing.outer && relay_restore(instance, &crossing) < 0)
                        (void) call_fail(crossing.outer, STATUS_UNAVAILABLE, "it does not go on");
        }
}

/* restore_events() - what is kept is in the order of its numbers, whatever comes. */
static void restore_events(Events *events, const Baton__Snapshot__Snapshot *snapshot) {
        uint64_t last = 0;

        events_clear(events);
        for (size_t i = 0; i < snapshot->n_events; i++) {
                const Baton__Snapshot__Event *e = snapshot->events[i];
                const Event event = {
                        .kind = (EventKind) (e->kind % _EVENT_KIND_N),
                        .runner = *e->runner ? e->runner : NULL,
                        .text = *e->text ? e->text : NULL,
                        .seq = e->seq,
                        .time_us = e->time_us,
                };

                if (e->seq <= last)
                        continue;
                last = e->seq;
                events_restore(events, &event);
        }
        if (snapshot->events_next > last)
                events_set_next(events, snapshot->events_next);
}

size_t snapshot_fixture_restore(SupervisorFixture *fixture, const Baton__Snapshot__Snapshot *snapshot) {
        Baton__Snapshot__Snapshot round = *snapshot; /* what it has was told before, too */
        Supervisor *supervisor = fixture->supervisor;
        Manifest manifest;
        size_t n = 0;

        round.partial = true;
        make_manifest(&manifest);
        fleet_restore(supervisor, &round);
        fleet_restore_crossed(supervisor, &manifest, false);
        restore_events(supervisor->events, snapshot);
        hooks_restore(supervisor->hooks, snapshot);
        fleet_restore(supervisor, snapshot);
        hooks_restore_crossed(supervisor->hooks, &manifest);
        fleet_restore_crossed(supervisor, &manifest, true);
        for (size_t i = 0; i < snapshot->n_groups; i++)
                group_restore(supervisor, snapshot->groups[i]);
        for (size_t i = 0; i < snapshot->n_connections; i++) {
                Control *control = restore_client(fixture, snapshot->connections[i], &manifest);

                if (!control)
                        continue;
                n++;
                restore_relays(fixture, snapshot, control);
                for (Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                        if (runner->instance)
                                relay_end_all(runner->instance);
                (void) control_free(control);
        }
        fleet_restored(supervisor, snapshot);
        manifest_deinit(&manifest);
        return n;
}

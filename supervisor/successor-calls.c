/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor, the calls: they are in the connections, by their numbers; here they get back what they were for. Of a call of
 * which one half is missing the other is ended, by peer_own(), or when its time is over.
 */

#include "supervisor/successor-internal.h"

#include <stdlib.h>

#include "common/fd.h"
#include "proto/peer-save.h"
#include "supervisor/checkpoint.h"
#include "supervisor/instance-internal.h"
#include "supervisor/relay.h"
#include "supervisor/service.h"
#include "supervisor/snapshot.h"

/* find_instance() - one that is over, too, if it is its runner's last. */
static Instance *find_instance(const Supervisor *supervisor, uint64_t id) {
        Instance *instance = supervisor_find_instance(supervisor, id);

        for (Runner *runner = runner_first(supervisor); !instance && runner; runner = runner_next(runner))
                if (runner->instance && runner->instance->id == id)
                        instance = runner->instance;
        return instance;
}

static void take_relay(Successor *successor, const Baton__Snapshot__Relay *relay, Manifest *manifest) {
        const Control *control = successor_find_client(successor, relay->connection);
        Instance *instance = find_instance(successor->supervisor, relay->instance);
        RelayCrossing crossing = {
                .outer = control ? peer_claim_call(control_peer(control), relay->outer, false) : NULL,
                .inner = instance && instance->peer ? peer_claim_call(instance->peer, relay->inner, true) : NULL,
                .reason = relay->reason,
                .deadline_us = relay->deadline_us,
                .kind = relay->kind,
                .lane = *relay->lane ? manifest_take(manifest, relay->lane) : -1,
        };
        bool whole = crossing.outer && instance && (crossing.inner || !relay->inner);

        /* Half of one is ended by peer_own(), or runs out without being heard. */
        if (!whole || (*relay->lane && crossing.lane < 0)) {
                if (crossing.outer)
                        call_unclaim(crossing.outer);
                if (crossing.inner)
                        call_unclaim(crossing.inner);
                fd_close(crossing.lane);
                return;
        }
        if (relay_restore(instance, &crossing) < 0)
                (void) call_fail(crossing.outer, STATUS_RESOURCE_EXHAUSTED, "no memory to go on with the call");
        else
                successor->n_calls++;
}

/* take_own_calls() - those that are ours, to an instance. */
static void take_own_calls(const Successor *successor, const Baton__Snapshot__Instance *message, Manifest *manifest) {
        Instance *instance = supervisor_find_instance(successor->supervisor, message->id);
        Call *ping = instance && instance->peer ? peer_claim_call(instance->peer, message->ping, true) : NULL;
        char name[SNAPSHOT_PREFIX_SIZE];

        if (ping)
                instance_restore_ping(instance, ping);
        for (size_t i = 0; instance && instance->peer && i < message->n_checkpoints; i++) {
                Call *wish = peer_claim_call(instance->peer, message->checkpoints[i], false);

                if (wish)
                        checkpoint_restore_call(instance, wish);
        }
        snapshot_service(name, message->id);
        if (message->drive && instance)
                service_restore(instance, message->drive, manifest_take(manifest, name));
}

/* take_waiting() - the calls that go on when we serve. */
static void take_waiting(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;

        successor->waiting = calloc(last->n_waiting + 1, sizeof(Call *));
        for (size_t i = 0; successor->waiting && i < last->n_waiting; i++) {
                const Control *control = successor_find_client(successor, last->waiting[i]->connection);

                if (control)
                        successor->waiting[i] = peer_claim_call(control_peer(control), last->waiting[i]->call, false);
        }
        if (!successor->waiting)
                successor_refuse(successor, "no memory for the calls that wait");
}

void successor_take_calls(Successor *successor, Manifest *manifest) {
        const Baton__Snapshot__Snapshot *last = successor->last;

        for (size_t i = 0; i < last->n_instances; i++)
                take_own_calls(successor, last->instances[i], manifest);
        for (size_t i = 0; i < last->n_relays; i++)
                take_relay(successor, last->relays[i], manifest);
        take_waiting(successor);
}

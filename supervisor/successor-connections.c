/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor, the connections. What is told of one replaces what was told of it before, but for the descriptors that stay the
 * same: those are taken back from the one that was made of the former state. A client's is made at once; that of an instance
 * when the instance is, which may be before or after, and again whenever either changes.
 */

#include "supervisor/successor-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "proto/peer-save.h"
#include "supervisor/instance.h"
#include "supervisor/listener.h"
#include "supervisor/snapshot.h"

/* ------------------------------------------------------------------------------------------------------------- clients */

static uint32_t number_of(const Baton__Snapshot__Snapshot *snapshot, size_t i) {
        uint32_t number = snapshot->connections[i]->number;

        return number > 0 ? number : (uint32_t) i; /* of a version that did not number them */
}

Control *successor_find_client(const Successor *successor, uint32_t number) {
        Client *client;

        HASH_FIND(hh, successor->clients, &number, sizeof(number), client);
        return client ? client->control : NULL;
}

static int add_client(Successor *successor, uint32_t number, Control *control) {
        Client *client = calloc(1, sizeof(*client));

        if (!client)
                return -ENOMEM;
        *client = (Client){ .number = number, .control = control };
        HASH_ADD(hh, successor->clients, number, sizeof(client->number), client);
        if (!client->hh.tbl) {
                free(client);
                return -ENOMEM;
        }
        control_set_number(control, number);
        return 0;
}

void successor_forget_client(Successor *successor, uint32_t number) {
        Client *client;

        HASH_FIND(hh, successor->clients, &number, sizeof(number), client);
        if (!client)
                return;
        HASH_DELETE(hh, successor->clients, client);
        listener_discard(successor->supervisor->listener, client->control);
        free(client);
}

void successor_take_client(Successor *successor, Round *round, size_t i) {
        const Baton__Snapshot__Connection *connection = round->snapshot->connections[i];
        const struct ucred who = { connection->pid, connection->uid, connection->gid };
        uint32_t number = number_of(round->snapshot, i);
        Control *control = successor_find_client(successor, number);
        char prefix[SNAPSHOT_PREFIX_SIZE];
        int r;

        snapshot_client(prefix, number);
        if (control) {
                r = control_restore_again(control, connection->peer, prefix, &round->manifest);
        } else {
                r = listener_restore(successor->supervisor->listener, &who, (Role) connection->role, connection->peer,
                                     prefix, &round->manifest, &control);
                if (r == 0)
                        r = add_client(successor, number, control);
        }
        if (r < 0)
                successor_refuse_because(successor, "client pid %d: its connection cannot be taken over: %s",
                                         connection->pid, strerror(-r));
}

/* ----------------------------------------------------------------------------------------------------------- instances */

bool successor_has_peer(const Successor *successor, uint64_t instance) {
        Waits *waits;

        HASH_FIND(hh, successor->peers, &instance, sizeof(instance), waits);
        return waits;
}

/* move_fds() - those of the lane and the channels that an earlier round had brought, and nobody has taken yet. */
static int move_fds(Manifest *to, Manifest *from, const char *prefix) {
        static const char *const names[] = { "lane", "channel/0", "channel/1", "channel/2" };
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++) {
                char name[SNAPSHOT_PREFIX_SIZE + 16];
                int fd;

                (void) snprintf(name, sizeof(name), "%s/%s", prefix, names[i]);
                fd = manifest_take(from, name);
                if (fd >= 0)
                        r = manifest_give_back(to, name, fd);
        }
        return r;
}

void successor_take_instance(Successor *successor, Round *round, const Baton__Snapshot__Instance *message) {
        Instance *instance = supervisor_find_instance(successor->supervisor, message->id);
        char prefix[SNAPSHOT_PREFIX_SIZE];
        Waits *waits;
        int r = 0;

        HASH_FIND(hh, successor->peers, &message->id, sizeof(message->id), waits);
        snapshot_instance(prefix, message->id);
        if (waits) {
                r = move_fds(&round->manifest, &waits->round->manifest, prefix);
        } else {
                waits = calloc(1, sizeof(*waits));
                if (waits) {
                        waits->instance = message->id;
                        HASH_ADD(hh, successor->peers, instance, sizeof(waits->instance), waits);
                }
                r = waits && waits->hh.tbl ? 0 : -ENOMEM;
        }
        if (r == 0) {
                waits->round = round;
                waits->message = message;
        }
        if (r == 0 && instance)
                r = instance_restore_peer_again(instance, prefix, &round->manifest);
        if (r < 0)
                successor_refuse_because(successor, "instance %" PRIx64 ": its connection cannot be taken over: %s",
                                         message->id, strerror(-r));
}

int successor_restore_peer(Successor *successor, const Instance *instance, Peer **ret_peer,
                           const PeerLoopParameters *parameters) {
        char prefix[SNAPSHOT_PREFIX_SIZE], reason[MANIFEST_REASON_SIZE] = "no memory";
        Waits *waits;
        int r;

        HASH_FIND(hh, successor->peers, &instance->id, sizeof(instance->id), waits);
        if (!waits)
                return 0;
        snapshot_instance(prefix, instance->id);
        r = peer_loop_restore(ret_peer, parameters, waits->message->peer, prefix, &waits->round->manifest, reason);
        if (r < 0)
                log_warning("runner %s: its connection was not taken over: %s", instance->runner->name, reason);
        if (r == 0 && !waits->is_restored)
                successor->n_runners++;
        waits->is_restored |= r == 0;
        return r < 0 ? r : 1;
}

void successor_forget_peer(Successor *successor, uint64_t instance) {
        Waits *waits;

        HASH_FIND(hh, successor->peers, &instance, sizeof(instance), waits);
        if (!waits)
                return;
        successor->n_runners -= waits->is_restored;
        HASH_DELETE(hh, successor->peers, waits);
        free(waits);
}

/* ----------------------------------------------------------------------------------------------------------- forgetting */

bool successor_forget_connections(Successor *successor, unsigned max) {
        for (; successor->clients && max > 0; max--) {
                Client *client = successor->clients;

                HASH_DELETE(hh, successor->clients, client);
                free(client);
        }
        for (; successor->peers && max > 0; max--) {
                Waits *waits = successor->peers;

                HASH_DELETE(hh, successor->peers, waits);
                free(waits);
        }
        return max == 0;
}

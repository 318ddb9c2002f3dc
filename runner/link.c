/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Link: the far end of a connection to the process that this one succeeds, for one client. Each call that was open there is
 * a junction of the client's call and its mirror on the link; which of both is the outer one depends on who began it. What
 * the predecessor begins anew, on the client's connection as it believes, is joined with a call to the client.
 *
 * The link's end ends its calls, UNAVAILABLE, and nothing else; the client's end ends the link.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/junction.h"
#include "proto/peer-cross.h"
#include "runner/runner.h"

struct Joined {
        LIST_ENTRY(Joined) link;
        Client *client;
        Junction junction;
};

/* drop_peer() - of a link that has ended, once nothing that came from it waits to be taken. */
static void drop_peer(Client *client) {
        if (client->link_ended && LIST_EMPTY(&client->joined))
                client->predecessor = peer_free(client->predecessor);
}

static Joined *joined_free(Joined *joined) {
        Client *client = joined->client;

        LIST_REMOVE(joined, link);
        free(joined);
        drop_peer(client);
        lifecycle_drained(client->runner);
        return NULL;
}

/* ---- junctions ---- */

static void on_done(Junction *junction, const Answer *answer) {
        Joined *joined = CONTAINER_OF(junction, Joined, junction);
        Call *outer = junction->outer;

        junction_leave(junction);
        joined_free(joined);
        if (answer->local && answer->status == STATUS_UNAVAILABLE)
                (void) call_fail(outer, STATUS_UNAVAILABLE, "the process that served the call is gone: %s",
                                 answer->message);
        else
                junction_answer(outer, answer);
}

static void on_cancelled(Junction *junction) {
        Joined *joined = CONTAINER_OF(junction, Joined, junction);

        junction_leave(junction);
        joined_free(joined);
}

static void on_broken(Junction *junction, const Call *to, const Item *item, int error) {
        Joined *joined = CONTAINER_OF(junction, Joined, junction);
        Call *outer = junction->outer;

        (void) to;
        (void) item;
        junction_leave(junction);
        joined_free(joined);
        (void) call_fail(outer, status_from_errno(error), "an item cannot be handed on: %s", strerror(-error));
}

static const JunctionOwner owner = { .done = on_done, .cancelled = on_cancelled, .broken = on_broken };

static Joined *joined_new(Client *client, Call *outer, Call *inner) {
        Joined *joined = malloc(sizeof(*joined));

        if (!joined)
                return NULL;
        *joined = (Joined){ .client = client, .junction = { .owner = &owner, .outer = outer, .inner = inner } };
        LIST_INSERT_HEAD(&client->joined, joined, link);
        return joined;
}

/* ---- the link's peer ---- */

/* on_call() - the predecessor calls the client. */
static void on_call(Peer *peer, Call *outer) {
        Client *client = peer_userdata(peer);
        const Baton__Envelope *envelope = call_envelope(outer);
        Joined *joined = joined_new(client, outer, NULL);
        _cleanup_free_ int *fds = NULL;
        CallParameters parameters = {
                .method = envelope->method,
                .type = envelope->type,
                .metadata = envelope->metadata,
                .n_metadata = envelope->n_metadata,
                .stream = call_takes_items(outer),
                .object = envelope->object,
        };
        int *given = call_fds(outer, &parameters.n_fds), r;

        parameters.payload = call_payload(outer, &parameters.size);
        parameters.fds_consume = fds = joined ? junction_move_fds(given, parameters.n_fds) : NULL;
        if (!joined || (parameters.n_fds > 0 && !fds)) {
                if (joined)
                        joined_free(joined);
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "no memory for a call");
                return;
        }
        junction_listen(&joined->junction);
        r = junction_start(&joined->junction, connection_peer(client->connection), &parameters, true);
        if (r == 0)
                return;
        joined_free(joined);
        (void) call_fail(outer, status_from_errno(r), "the client cannot be called: %s", strerror(-r));
}

/* on_ended() - its calls have ended before, but for those whose last items the client has not taken yet. */
static void on_ended(Peer *peer, Status status, const char *reason) {
        Client *client = peer_userdata(peer);

        (void) status;
        (void) reason;
        client->link_ended = true;
        drop_peer(client);
}

static const PeerHandler handler = { .call = on_call, .ended = on_ended };

/* join() - the calls of @pair. */
static int join(Client *client, const PeerPair *pair) {
        Call *call = peer_restored_call(connection_peer(client->connection), pair->call);
        Call *mirrored = peer_restored_call(client->predecessor, pair->link);
        Joined *joined;

        if (!call || !mirrored)
                return -EPROTO;
        joined = pair->outgoing ? joined_new(client, mirrored, call) : joined_new(client, call, mirrored);
        if (!joined)
                return -ENOMEM;
        junction_bind(&joined->junction, call_receives(joined->junction.inner));
        return 0;
}

int link_open(Client *client, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
              char reason[MANIFEST_REASON_SIZE]) {
        Baton__Handover__Peer *mirror = NULL;
        _cleanup_free_ PeerPair *pairs = NULL;
        const PeerConfig config = {
                .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .objects = PEER_OBJECTS_PASS, .at_rest = true
        };
        size_t n = 0;
        int r = peer_mirror(state, &mirror, &pairs, &n);

        if (r < 0) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: no link can be made: %s", prefix, strerror(-r));
                return r;
        }
        r = endpoint_restore_peer(client->runner->endpoint, &config, mirror, prefix, manifest, &handler, client,
                                  &client->predecessor, reason);
        baton__handover__peer__free_unpacked(mirror, NULL);
        for (size_t i = 0; i < n && r == 0; i++) {
                r = join(client, &pairs[i]);
                if (r < 0)
                        (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: a call cannot be joined: %s", prefix,
                                        strerror(-r));
        }
        return r;
}

void link_own(Client *client) {
        if (client->predecessor)
                peer_own(client->predecessor);
}

/* ---- the end ---- */

void link_close(Client *client, const char *reason) {
        if (client->predecessor && !client->link_ended)
                peer_close(client->predecessor, STATUS_UNAVAILABLE, "%s", reason);
}

void link_free(Client *client) {
        Joined *joined;

        while ((joined = LIST_FIRST(&client->joined))) {
                Call *outer = joined->junction.outer;

                junction_leave(&joined->junction);
                joined_free(joined);
                (void) call_fail(outer, STATUS_UNAVAILABLE, "the runner has ended");
        }
        client->predecessor = peer_free(client->predecessor);
}

size_t link_calls(const Runner *runner) {
        const Client *client;
        const Joined *joined;
        size_t n = 0;

        LIST_FOREACH (client, &runner->clients, link)
                LIST_FOREACH (joined, &client->joined, link)
                        n++;
        return n;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Link: the far end of a connection to the process that this one succeeds, for one client. Each call that was open there is
 * a junction of the client's call and its mirror on the link; which of both is the outer one depends on who began it. What
 * the predecessor begins anew, on the client's connection as it believes, is joined with a call to the client.
 *
 * The link's end ends its calls, UNAVAILABLE, and nothing else; the client's end ends the link.
 *
 * A successor of this process gets the links as they are, with their junctions: so each process that still has calls to end
 * is one hop away from the client's, however often the runner was upgraded meanwhile.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/junction.h"
#include "proto/peer-cross.h"
#include "runner/runner.h"

typedef struct Joined Joined;

struct Link {
        LIST_ENTRY(Link) link;
        Client *client;
        Peer *peer;
        bool ended; /* the peer is only kept for what has come from it */
        LIST_HEAD(, Joined) joined;
};

struct Joined {
        LIST_ENTRY(Joined) link;
        Link *owner;
        bool outgoing; /* the predecessor began it: the client's call is the inner one */
        Junction junction;
};

static Link *link_free(Link *link) {
        peer_free(link->peer);
        LIST_REMOVE(link, link);
        free(link);
        return NULL;
}

/* drop() - one that has ended, once nothing that came from it waits to be taken. */
static void drop(Link *link) {
        if (link->ended && LIST_EMPTY(&link->joined))
                link_free(link);
}

static Joined *joined_free(Joined *joined) {
        Link *link = joined->owner;
        Runner *runner = link->client->runner;

        LIST_REMOVE(joined, link);
        free(joined);
        drop(link);
        lifecycle_drained(runner);
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

static Joined *joined_new(Link *link, bool outgoing, Call *outer, Call *inner) {
        Joined *joined = malloc(sizeof(*joined));

        if (!joined)
                return NULL;
        *joined = (Joined){
                .owner = link,
                .outgoing = outgoing,
                .junction = { .owner = &owner, .outer = outer, .inner = inner },
        };
        LIST_INSERT_HEAD(&link->joined, joined, link);
        return joined;
}

/* ---- the link's peer ---- */

/* on_call() - the predecessor calls the client. */
static void on_call(Peer *peer, Call *outer) {
        Link *link = peer_userdata(peer);
        const Baton__Envelope *envelope = call_envelope(outer);
        Joined *joined = joined_new(link, true, outer, NULL);
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
        r = junction_start(&joined->junction, connection_peer(link->client->connection), &parameters, true);
        if (r == 0)
                return;
        joined_free(joined);
        (void) call_fail(outer, status_from_errno(r), "the client cannot be called: %s", strerror(-r));
}

/* on_ended() - its calls have ended before, but for those whose last items the client has not taken yet. */
static void on_ended(Peer *peer, Status status, const char *reason) {
        Link *link = peer_userdata(peer);

        (void) status;
        (void) reason;
        link->ended = true;
        drop(link);
}

static const PeerHandler handler = { .call = on_call, .ended = on_ended };

/* ---- coming ---- */

/* link_new() - one whose peer is as @state says, at rest. */
static int link_new(Client *client, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
                    Link **ret_link, char reason[MANIFEST_REASON_SIZE]) {
        const PeerConfig config = {
                .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .objects = PEER_OBJECTS_PASS, .at_rest = true
        };
        Link *link = calloc(1, sizeof(*link));
        int r;

        if (!link) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: no memory", prefix);
                return -ENOMEM;
        }
        link->client = client;
        LIST_INIT(&link->joined);
        r = endpoint_restore_peer(client->runner->endpoint, &config, state, prefix, manifest, &handler, link,
                                  &link->peer, reason);
        if (r < 0) {
                free(link);
                return r;
        }
        link->ended = state->state == BATON__HANDOVER__PEER__STATE__ENDED;
        LIST_INSERT_HEAD(&client->links, link, link);
        *ret_link = link;
        return 0;
}

/* join() - the calls of @pair, which is not believed. */
static int join(Link *link, const PeerPair *pair, const char *prefix, char reason[MANIFEST_REASON_SIZE]) {
        const Peer *client = connection_peer(link->client->connection);
        Call *outer = pair->outgoing ? peer_claim_call(link->peer, pair->link, false)
                                     : peer_claim_call(client, pair->call, false);
        Call *inner = pair->outgoing ? peer_claim_call(client, pair->call, true)
                                     : peer_claim_call(link->peer, pair->link, true);
        Joined *joined = outer && inner ? joined_new(link, pair->outgoing, outer, inner) : NULL;

        if (joined) {
                junction_bind(&joined->junction, call_receives(inner));
                return 0;
        }
        (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: the calls %u and %u cannot be joined%s", prefix, pair->call,
                        pair->link, outer && inner ? ": no memory" : "");
        if (outer)
                call_unclaim(outer);
        return outer && inner ? -ENOMEM : -EPROTO;
}

int link_open(Client *client, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
              char reason[MANIFEST_REASON_SIZE]) {
        Baton__Handover__Peer *mirror = NULL;
        _cleanup_free_ PeerPair *pairs = NULL;
        Link *link = NULL;
        size_t n = 0;
        int r = peer_mirror(state, &mirror, &pairs, &n);

        if (r < 0) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: no link can be made: %s", prefix, strerror(-r));
                return r;
        }
        r = link_new(client, mirror, prefix, manifest, &link, reason);
        baton__handover__peer__free_unpacked(mirror, NULL);
        for (size_t i = 0; i < n && r == 0; i++)
                r = join(link, &pairs[i], prefix, reason);
        return r;
}

int links_restore(Client *client, const Baton__Handover__ServiceClient *message, const char *prefix,
                  Manifest *manifest, char reason[MANIFEST_REASON_SIZE]) {
        int r = 0;

        for (size_t i = 0; i < message->n_links && r == 0; i++) {
                const Baton__Handover__ServiceLink *one = message->links[i];
                char name[64];
                Link *link = NULL;

                (void) snprintf(name, sizeof(name), "%s/links/%zu", prefix, i);
                if (!one->peer) {
                        (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: there is no connection", name);
                        return -EPROTO;
                }
                r = link_new(client, one->peer, name, manifest, &link, reason);
                for (size_t j = 0; j < one->n_joins && r == 0; j++)
                        r = join(link,
                                 &(PeerPair){ one->joins[j]->call, one->joins[j]->link, one->joins[j]->outgoing },
                                 name, reason);
        }
        return r;
}

void links_own(Client *client) {
        Link *link, *next;

        for (link = LIST_FIRST(&client->links); link; link = next) {
                next = LIST_NEXT(link, link);
                peer_own(link->peer);
        }
}

/* ---- going to a successor ---- */

void links_freeze(Client *client) {
        Link *link;

        LIST_FOREACH (link, &client->links, link)
                peer_freeze(link->peer);
}

/* carry() - whether both calls of each junction cross as they are. */
static void carry(const Client *client, bool carried) {
        const Link *link;
        Joined *joined;

        LIST_FOREACH (link, &client->links, link)
                LIST_FOREACH (joined, &link->joined, link)
                        call_carry(joined->outgoing ? joined->junction.inner : joined->junction.outer, carried);
}

void links_carry(Client *client) {
        carry(client, true);
}

void links_thaw(Client *client) {
        Link *link;

        carry(client, false);
        LIST_FOREACH (link, &client->links, link)
                peer_thaw(link->peer);
}

static int save_joins(const Link *link, Baton__Handover__ServiceLink *message) {
        const Joined *joined;
        size_t n = 0;

        LIST_FOREACH (joined, &link->joined, link)
                n++;
        message->joins = calloc(n + 1, sizeof(*message->joins));
        if (!message->joins)
                return -ENOMEM;
        LIST_FOREACH (joined, &link->joined, link) {
                const Call *outer = joined->junction.outer, *inner = joined->junction.inner;
                Baton__Handover__ServiceJoin *join_message = malloc(sizeof(*join_message));

                if (!join_message)
                        return -ENOMEM;
                baton__handover__service_join__init(join_message);
                join_message->call = peer_saved_call(joined->outgoing ? inner : outer);
                join_message->link = peer_saved_call(joined->outgoing ? outer : inner);
                join_message->outgoing = joined->outgoing;
                message->joins[message->n_joins++] = join_message;
        }
        return 0;
}

int links_save(Client *client, const char *prefix, Manifest *manifest, Baton__Handover__ServiceClient *message) {
        const Link *link;
        size_t n = 0;
        int r = 0;

        LIST_FOREACH (link, &client->links, link)
                n++;
        message->links = calloc(n + 1, sizeof(*message->links));
        if (!message->links)
                return -ENOMEM;
        LIST_FOREACH (link, &client->links, link) {
                Baton__Handover__ServiceLink *one = malloc(sizeof(*one));
                char name[64];

                if (!one)
                        return -ENOMEM;
                baton__handover__service_link__init(one);
                (void) snprintf(name, sizeof(name), "%s/links/%zu", prefix, message->n_links);
                message->links[message->n_links++] = one;
                r = peer_save_link(link->peer, name, manifest, &one->peer);
                if (r == 0)
                        r = save_joins(link, one);
                if (r < 0)
                        break;
        }
        return r;
}

/* The calls are the successor's; what is left of them here are objects. */
void links_leave(Client *client) {
        Link *link;

        while ((link = LIST_FIRST(&client->links))) {
                Joined *joined;

                link->peer = peer_abandon(link->peer);
                while ((joined = LIST_FIRST(&link->joined))) {
                        Call *outer = joined->junction.outer;

                        LIST_REMOVE(joined, link);
                        free(joined);
                        (void) call_fail(outer, STATUS_UNAVAILABLE, "the successor has the call");
                }
                link_free(link);
        }
}

/* ---- the end ---- */

void links_close(Client *client, const char *reason) {
        Link *link, *next;

        for (link = LIST_FIRST(&client->links); link; link = next) {
                next = LIST_NEXT(link, link);
                if (!link->ended)
                        peer_close(link->peer, STATUS_UNAVAILABLE, "%s", reason);
        }
}

void links_free(Client *client) {
        Link *link;

        while ((link = LIST_FIRST(&client->links))) {
                Joined *joined;

                link->ended = false; /* it is not to go with the last of its calls */
                while ((joined = LIST_FIRST(&link->joined))) {
                        Call *outer = joined->junction.outer;

                        junction_leave(&joined->junction);
                        joined_free(joined);
                        (void) call_fail(outer, STATUS_UNAVAILABLE, "the runner has ended");
                }
                link_free(link);
        }
}

size_t link_calls(const Runner *runner) {
        const Client *client;
        const Joined *joined;
        const Link *link;
        size_t n = 0;

        LIST_FOREACH (client, &runner->clients, link)
                LIST_FOREACH (link, &client->links, link)
                        LIST_FOREACH (joined, &link->joined, link)
                                n++;
        return n;
}

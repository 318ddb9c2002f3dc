/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Attached clients that go to a successor. Each connection is captured (proto/peer-cross.h) and given with the ends of a
 * link; the calls that are open end here, and what is new begins there. Until the successor has them, all can be taken
 * back: a connection that is frozen has lost nothing.
 *
 * On the other side they are restored at rest, and served when the service runs: so at no time do two processes read from
 * one client.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/peer-cross.h"
#include "runner/runner.h"

#define PREFIX_SIZE 64

static void prefix_of(char prefix[PREFIX_SIZE], size_t n, const char *rest) {
        (void) snprintf(prefix, PREFIX_SIZE, "client/%zu%s", n, rest);
}

static void drop_link(Client *client) {
        fd_close_all(client->link_ends, 2);
        fd_close_all(client->far_ends, 2);
}

/* ---- the predecessor ---- */

void attach_freeze(Runner *runner) {
        Client *client;

        LIST_FOREACH (client, &runner->clients, link) {
                peer_freeze(connection_peer(client->connection));
                links_freeze(client);
        }
}

/* take_back() - what an earlier Save has captured. */
static void take_back(Client *client) {
        Peer *peer = connection_peer(client->connection);

        drop_link(client);
        if (peer_is_captured(peer))
                peer_thaw(peer);
        peer_freeze(peer);
        links_freeze(client);
}

/* make_pair() - number @i, whose far end @manifest names. */
static int make_pair(Client *client, size_t i, const char *prefix, const char *what, Manifest *manifest) {
        char name[PREFIX_SIZE + 16];
        int pair[2], r;

        r = fd_socketpair(SOCK_STREAM, pair);
        if (r < 0)
                return r;
        client->link_ends[i] = pair[0];
        client->far_ends[i] = pair[1];
        (void) snprintf(name, sizeof(name), "%s/%s", prefix, what);
        return manifest_add(manifest, name, pair[1]);
}

static int save_client(Client *client, size_t n, Manifest *manifest, Baton__Handover__ServiceClient *message,
                       uint32_t *n_calls) {
        Peer *peer = connection_peer(client->connection);
        char prefix[PREFIX_SIZE];
        size_t incoming;
        int r;

        prefix_of(prefix, n, "");
        links_carry(client);
        r = peer_capture(peer, prefix, manifest, &message->peer);
        if (r == 0)
                r = links_save(client, prefix, manifest, message);
        if (r < 0)
                return r;
        message->number = client->caller.id;
        message->pid = (int32_t) client->caller.pid;
        message->uid = client->caller.uid;
        message->gid = client->caller.gid;
        message->name = strdup(client->name);
        if (!message->name)
                return -ENOMEM;
        *n_calls += (uint32_t) (peer_open_calls(peer, &incoming) + incoming);
        if (!peer_is_ready(peer))
                return 0;
        message->linked = true;
        prefix_of(prefix, n, "/link");
        r = make_pair(client, 0, prefix, "lane", manifest);
        return r < 0 ? r : make_pair(client, 1, prefix, "channel/0", manifest);
}

static int save_clients(Runner *runner, Manifest *manifest, Baton__Handover__Service *message, uint32_t *n_calls) {
        Client *client;
        int r;

        LIST_FOREACH (client, &runner->clients, link) {
                Baton__Handover__ServiceClient *one = malloc(sizeof(*one));

                if (!one)
                        return -ENOMEM;
                baton__handover__service_client__init(one);
                message->clients[message->n_clients] = one;
                take_back(client);
                r = save_client(client, message->n_clients, manifest, one, n_calls);
                if (r == -ESHUTDOWN) { /* it has ended, and only waits for its calls here */
                        free(one);
                        continue;
                }
                message->n_clients++;
                if (r < 0)
                        return r;
        }
        return 0;
}

int attach_save(Runner *runner, Manifest *manifest, Baton__Handover__Service *message, uint32_t *ret_n_calls) {
        *ret_n_calls = 0;
        message->clients = calloc(runner->n_clients + 1, sizeof(*message->clients));
        if (!message->clients)
                return -ENOMEM;
        message->last_client = runner->last_client;
        return save_clients(runner, manifest, message, ret_n_calls);
}

void attach_save_free(Runner *runner, Baton__Handover__Service *message) {
        Client *client;

        for (size_t i = 0; i < message->n_clients; i++)
                baton__handover__service_client__free_unpacked(message->clients[i], NULL);
        free(message->clients);
        LIST_FOREACH (client, &runner->clients, link)
                fd_close_all(client->far_ends, 2);
}

void attach_leave(Runner *runner) {
        Client *client, *next;

        for (client = LIST_FIRST(&runner->clients); client; client = next) {
                Peer *peer = connection_peer(client->connection);

                next = LIST_NEXT(client, link);
                if (!peer_is_captured(peer))
                        continue;
                peer_move(peer, fd_take(&client->link_ends[0]), fd_take(&client->link_ends[1]));
                links_leave(client);
        }
}

/* ---- the successor ---- */

static int restore_client(Runner *runner, size_t n, Manifest *manifest, const Baton__Handover__ServiceClient *message,
                          char reason[MANIFEST_REASON_SIZE]) {
        const struct baton_caller caller = {
                .id = message->number,
                .pid = message->pid,
                .uid = message->uid,
                .gid = message->gid,
                .name = message->name,
        };
        PeerConfig config = client_config(runner);
        char prefix[PREFIX_SIZE];
        Client *client;
        int r;

        prefix_of(prefix, n, "");
        client = message->peer ? client_new(runner, &caller) : NULL;
        if (!client) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: %s", prefix,
                                message->peer ? "no memory" : "there is no connection");
                return message->peer ? -ENOMEM : -EPROTO;
        }
        config.at_rest = true;
        r = connection_restore(&client->connection, runner->handles, &config, message->peer, prefix, manifest,
                               &attach_handler, client, reason);
        if (r < 0) {
                free(client);
                return r;
        }
        client->restored = true;
        client_add(client);
        peer_set_instance(connection_peer(client->connection), baton_runner_instance(runner));
        r = links_restore(client, message, prefix, manifest, reason);
        prefix_of(prefix, n, "/link");
        return r == 0 && message->linked ? link_open(client, message->peer, prefix, manifest, reason) : r;
}

int attach_restore(Runner *runner, Manifest *manifest, const Baton__Handover__Service *message,
                   char reason[RUNNER_REASON_SIZE]) {
        char why[MANIFEST_REASON_SIZE] = "";
        int r = 0;

        if (message->n_clients > runner->max_clients) {
                (void) snprintf(reason, RUNNER_REASON_SIZE, "%zu clients are attached, and %u may be",
                                message->n_clients, runner->max_clients);
                return -EMFILE;
        }
        for (size_t i = 0; i < message->n_clients && r == 0; i++)
                r = restore_client(runner, i, manifest, message->clients[i], why);
        if (r < 0)
                (void) snprintf(reason, RUNNER_REASON_SIZE, "%s", *why ? why : strerror(-r));
        else
                runner->last_client = MAX(runner->last_client, message->last_client);
        return r;
}

void attach_restore_undo(Runner *runner) {
        Client *client, *next;

        for (client = LIST_FIRST(&runner->clients); client; client = next) {
                next = LIST_NEXT(client, link);
                if (client->restored) {
                        links_free(client);
                        connection_free(client->connection);
                }
        }
}

void attach_go_on(Runner *runner) {
        Client *client, *next;

        for (client = LIST_FIRST(&runner->clients); client; client = next) {
                Peer *peer = connection_peer(client->connection);

                next = LIST_NEXT(client, link);
                if (client->restored) {
                        client->restored = false;
                        links_own(client);
                        peer_own(peer);
                } else {
                        drop_link(client);
                        peer_thaw(peer);
                        links_thaw(client);
                }
        }
}

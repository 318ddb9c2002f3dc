/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Attached clients: each is a peer of its own, on a lane that the supervisor hands over, and gets the same methods. Who it
 * is was the kernel's word to the supervisor.
 *
 * A client's end frees what it held: its calls are cancelled, descriptors closed. It counts against the bound until the
 * last of its calls has been ended here, so that what dead clients leave behind is bounded, too.
 */

#include <errno.h>
#include <string.h>

#include "proto/message.h"
#include "runner/runner.h"

static void on_call(Connection *connection, Call *call) {
        Client *client = connection_owner(connection);

        runner_serve(client->runner, connection, call);
}

static void on_ended(Connection *connection, Status status, const char *reason) {
        (void) status;
        (void) reason;
        links_close(connection_owner(connection), "the client is gone");
        connection_retire(connection);
}

static void on_released(void *owner) {
        Client *client = owner;

        links_free(client);
        fd_close_all(client->link_ends, 2);
        fd_close_all(client->far_ends, 2);
        LIST_REMOVE(client, link);
        client->runner->n_clients--;
        free(client);
}

const ConnectionHandler attach_handler = { .call = on_call, .ended = on_ended, .released = on_released };

Runner *attach_runner(const Connection *connection) {
        const Client *client = connection_owner(connection);

        return client->runner;
}

const struct baton_caller *baton_call_client(struct baton_call *call) {
        const Connection *connection = baton_call_connection(call);
        const Client *client = connection_owner(connection);

        return connection_handler(connection) == &attach_handler ? &client->caller : NULL;
}

/* ---- coming ---- */

Client *client_new(Runner *runner, const struct baton_caller *caller) {
        size_t size = strlen(caller->name) + 1;
        Client *client = malloc(sizeof(*client) + size);

        if (!client)
                return NULL;
        *client = (Client){ .runner = runner, .caller = *caller, .link_ends = { -1, -1 }, .far_ends = { -1, -1 } };
        memcpy(client->name, caller->name, size);
        client->caller.name = client->name;
        LIST_INIT(&client->links);
        return client;
}

PeerConfig client_config(const Runner *runner) {
        return (PeerConfig){
                .side = 1,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_SELF,
                .share = true,
                .crosses = runner->service.registered,
                .objects = PEER_OBJECTS_MAP,
                .limits = &runner->limits,
                .software = runner->software,
                .instance = baton_runner_instance((Runner *) runner),
                .service_state = runner->life.state,
        };
}

void client_add(Client *client) {
        Runner *runner = client->runner;

        LIST_INSERT_HEAD(&runner->clients, client, link);
        runner->n_clients++;
}

/* connect_client() - the runner has side 1 and may renew: after an upgrade it does, at once. @client is taken. */
static int connect_client(Client *client, uint32_t epoch, int lane_fd_consume) {
        Runner *runner = client->runner;
        PeerConfig config = client_config(runner);
        int r;

        config.epoch = epoch > 0 ? epoch - 1 : 0;
        r = connection_new(&client->connection, runner->handles, &config, lane_fd_consume, &attach_handler, client);

        if (r < 0) {
                free(client);
                return r;
        }
        client_add(client);
        r = epoch > 0 ? peer_renew(connection_peer(client->connection), epoch) : 0;
        if (r < 0)
                connection_free(client->connection); /* and with it the client */
        return r;
}

static int attach(Runner *runner, const Baton__AttachRequest *request, int lane_fd_consume) {
        const struct baton_caller caller = {
                .id = runner->last_client + 1,
                .pid = request->pid,
                .uid = request->uid,
                .gid = request->gid,
                .name = request->name,
        };
        Client *client = client_new(runner, &caller);
        int r;

        if (!client) {
                fd_close(lane_fd_consume);
                return -ENOMEM;
        }
        r = connect_client(client, request->epoch, lane_fd_consume);
        if (r == 0)
                runner->last_client++;
        return r;
}

/* refuse() - true: it is refused, and answered. */
static bool refuse(Runner *runner, Call *call, const Baton__AttachRequest *request) {
        unsigned max = request->max_clients ? MIN(request->max_clients, runner->max_clients) : runner->max_clients;
        size_t n;
        const int *fds = call_fds(call, &n);

        if (!lifecycle_is_serving(runner))
                lifecycle_refuse(runner, call, "clients");
        else if (request->lane >= n || !fd_is_unix_stream(fds[request->lane]))
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "descriptor %u of %zu is no lane", request->lane, n);
        else if (runner->n_clients >= max)
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "%u clients are attached, and %u may be",
                                 runner->n_clients, max);
        else
                return false;
        return true;
}

void attach_handle(Runner *runner, Call *call) {
        _cleanup_message_ Baton__AttachRequest *request = builtin_unpack(call, &baton__attach_request__descriptor);
        Baton__AttachResponse response = BATON__ATTACH_RESPONSE__INIT;
        size_t n;
        int r;

        if (!request || refuse(runner, call, request))
                return;
        r = attach(runner, request, fd_take(&call_fds(call, &n)[request->lane]));
        response.client = runner->last_client;
        if (r < 0)
                (void) call_fail(call, status_from_errno(r), "cannot attach a client: %s", strerror(-r));
        else
                (void) call_answer_message(call, &response.base);
}

/* ---- the runner's end ---- */

bool attach_is_flushed(const Runner *runner) {
        const Client *client;

        LIST_FOREACH (client, &runner->clients, link)
                if (!peer_is_flushed(connection_peer(client->connection)))
                        return false;
        return true;
}

void attach_close(Runner *runner, Status status, const char *reason) {
        Client *client, *next;

        for (client = LIST_FIRST(&runner->clients); client; client = next) {
                next = LIST_NEXT(client, link);
                peer_close(connection_peer(client->connection), status, "%s", reason);
        }
}

void attach_free(Runner *runner) {
        Client *client, *next;

        for (client = LIST_FIRST(&runner->clients); client; client = next) {
                next = LIST_NEXT(client, link);
                links_free(client);
                connection_free(client->connection);
        }
}

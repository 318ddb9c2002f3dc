/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections to runners. A lane of our own: we are side 0, make channel 0, and it is the runner's successor, not we, that
 * may renew. The object stays after the runner's end, for requests that still have items to take, until it is closed.
 *
 * The runner may call us: the client's methods, and what everybody answers (proto/inspection.c); everything else beginning
 * with "baton." is UNIMPLEMENTED here.
 */

#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "proto/message.h"

static void on_call(Connection *connection, Call *call) {
        const Attached *attached = connection_owner(connection);
        Methods *methods = &attached->client->methods;

        if (!inspection_call(methods, true, call))
                methods_call(methods, connection, call);
}

static void on_ended(Connection *connection, Status status, const char *reason) {
        Attached *attached = connection_owner(connection);

        attached->ended = true;
        if (attached->on_end)
                attached->on_end(connection, (enum baton_status) status, reason, attached->on_end_userdata);
}

static const ConnectionHandler handler = {
        .call = on_call,
        .ended = on_ended,
};

int attached_new(Client *client, int lane_fd_consume, Connection **ret_connection) {
        const PeerConfig config = {
                .side = 0,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_PEER,
                .share = true,
                .objects = PEER_OBJECTS_MAP,
                .limits = &client->limits,
                .software = client->software,
        };
        Attached *attached = calloc(1, sizeof(*attached));
        int r;

        if (!attached) {
                fd_close(lane_fd_consume);
                return -ENOMEM;
        }
        attached->client = client;
        r = connection_new(&attached->connection, client->handles, &config, lane_fd_consume, &handler, attached);
        if (r < 0) {
                free(attached);
                return r;
        }
        LIST_INSERT_HEAD(&client->attached, attached, link);
        *ret_connection = attached->connection;
        return 0;
}

static void attached_free(Attached *attached) {
        LIST_REMOVE(attached, link);
        connection_free(attached->connection);
        free(attached);
}

void attached_free_all(Client *client) {
        Attached *attached;

        while ((attached = LIST_FIRST(&client->attached)))
                attached_free(attached);
}

/* find() - NULL: it is another kind of connection. */
static Attached *find(const Connection *connection) {
        return connection && connection_handler(connection) == &handler ? connection_owner(connection) : NULL;
}

void baton_connection_close(struct baton_connection *connection) {
        Attached *attached = find(connection);

        if (attached)
                attached_free(attached);
}

void baton_connection_on_end(struct baton_connection *connection, baton_ended_fn function, void *userdata) {
        Attached *attached = find(connection);

        if (!attached)
                return;
        attached->on_end = function;
        attached->on_end_userdata = userdata;
}

/* ---- calls that are waited for ---- */

typedef struct Wait {
        bool done;
        int result;
        struct baton_answer *answer;
} Wait;

static void keep_answer(const struct baton_answer *answer, void *userdata) {
        Wait *wait = userdata;

        wait->done = true;
        wait->result = answer_copy(answer, &wait->answer);
}

/* discard() - what a call takes on every path, where it is not begun. */
static void discard(const struct baton_call_parameters *parameters) {
        struct baton_call_parameters given = { 0 };

        memcpy(&given, parameters, MIN(parameters->size, sizeof(given)));
        for (size_t i = 0; i < given.n_fds; i++)
                fd_close(given.fds_consume[i]);
        baton_buffer_free(given.buffer);
}

int baton_connection_call_wait(struct baton_connection *connection, const struct baton_call_parameters *parameters,
                               struct baton_answer **ret_answer) {
        Attached *attached = find(connection);
        struct baton_request *request;
        Wait wait = { 0 };
        int r;

        *ret_answer = NULL;
        if (!attached)
                return -EINVAL;
        r = client_may_wait(attached->client);
        if (r < 0) {
                discard(parameters);
                return r;
        }
        r = baton_connection_call(connection, parameters, keep_answer, &wait, &request);
        if (r < 0)
                return r;
        r = client_wait(attached->client, &wait.done);
        if (r < 0 && !wait.done)
                baton_request_cancel(request);
        if (!wait.done)
                return r;
        *ret_answer = wait.answer;
        return wait.result;
}

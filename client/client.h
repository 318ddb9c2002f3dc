#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of libbaton's client half share: client.c (the object, its loop and its methods), operation.c (what is
 * asked of the supervisor), attached.c (connections to runners).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "baton/client.h"
#include "client/control.h"
#include "client/private.h"
#include "proto/handle.h"
#include "proto/method.h"

typedef struct baton_client Client;
typedef struct Attached Attached;
typedef struct Operation Operation;

/* A connection to a runner, until it is closed. */
struct Attached {
        LIST_ENTRY(Attached) link;
        Client *client;
        Connection *connection;
        baton_ended_fn on_end;
        void *on_end_userdata;
        bool ended;
};

struct baton_client {
        Endpoint *endpoint;
        Handles *handles;
        Private *private; /* NULL: the supervisor is not ours */
        Peer *peer;       /* of one that is not ours; NULL: it is */
        Control control;  /* the supervisor */

        char *software;
        char *baton; /* the program */
        PeerLimits limits;

        Methods methods; /* what runners may call */

        LIST_HEAD(, Attached) attached;
        LIST_HEAD(, Operation) operations;
        atomic_bool interrupted;

        ControlFailure last; /* why the last one failed */
        struct baton_failure failure;
};

/* ---- client.c ---- */

/* client_may_wait() - 0; -EBUSY: inside a callback. Asked before anything is begun that would be waited for. */
int client_may_wait(const Client *client);
/* client_wait() - runs the loop until @done: 0; -EINTR; -EBUSY; or why it cannot wait. */
int client_wait(Client *client, const bool *done);

/* client_fail() - @failure, taken, is why the last one failed; what it says in result: a status above 0. */
int client_fail(Client *client, ControlFailure *failure);
/* client_fail_errno() - returns @r; 0: it did not fail. */
int client_fail_errno(Client *client, int r);

/* ---- operation.c ---- */

/* operation_free_all() - without a callback. */
void operation_free_all(Client *client);

/* ---- attached.c ---- */

/* attached_new() - a connection over @lane_fd_consume. 0, -EMFILE, -ENOMEM. */
int attached_new(Client *client, int lane_fd_consume, Connection **ret_connection);
void attached_free_all(Client *client);

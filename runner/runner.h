#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of libbaton's runner half share: runner.c (the object, its loop and its methods), builtin.c (the
 * library's own methods), lifecycle.c (the service's life), attach.c (clients), log-queue.c (records on their way to the
 * supervisor).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "baton/runner.h"
#include "proto/handle.h"
#include "proto/method.h"
#include "proto/service.h"
#include "runner/log-queue.h"

typedef struct baton_runner Runner;
typedef struct Client Client;

#define RUNNER_REASON_SIZE 512
#define RUNNER_CLIENTS     64u /* attached, unless the options say otherwise */

/* The service's state, and the event that is being carried out. */
typedef struct Lifecycle {
        ServiceState state;
        uint64_t last_event; /* id of the last one carried out; 0: none */
        bool pending;        /* one is under way, with: */
        ServiceEvent event;
        ServiceState next;
        uint64_t id;
        Call *call; /* who waits for it; NULL: gone */
} Lifecycle;

struct baton_runner {
        Endpoint *endpoint;
        Handles *handles;
        Connection *supervisor;

        Methods methods;

        LIST_HEAD(, Client) clients; /* that of ended ones included, while calls of theirs are open */
        unsigned n_clients, max_clients;
        uint64_t last_client; /* number */
        PeerLimits limits;    /* of every peer */
        char *software;

        Lifecycle life;
        LogQueue log;

        void (*on_renewal)(Runner *runner, void *userdata);
        void *on_renewal_userdata;
        void (*on_channel)(Runner *runner, enum baton_channel channel, void *userdata);
        void *on_channel_userdata;

        atomic_bool quit;
        bool leaving; /* the service has stopped for good */
        bool ended;
        int result; /* of dispatch, once ended */
        char reason[RUNNER_REASON_SIZE];
};

/* ---- runner.c ---- */

/* runner_serve() - a call of the supervisor's or a client's: to whom it concerns. */
void runner_serve(Runner *runner, Connection *connection, Call *call);

/* ---- builtin.c ---- */

/* builtin_call() - a call of such a method. */
void builtin_call(Runner *runner, const Connection *connection, Call *call);
/* builtin_unpack() - the request, for message_free(); NULL: it is none, and the call has been failed. */
void *builtin_unpack(Call *call, const ProtobufCMessageDescriptor *type);

/* ---- attach.c ---- */

extern const ConnectionHandler attach_handler;
/* attach_runner() - of a connection with that handler. */
Runner *attach_runner(const Connection *connection);
/* attach_handle() - baton.Runner/Attach. */
void attach_handle(Runner *runner, Call *call);
/* attach_is_flushed() - whether what clients were answered is with the kernel. */
bool attach_is_flushed(const Runner *runner);
/* attach_close() - tells all clients that it is over. */
void attach_close(Runner *runner, Status status, const char *reason);
void attach_free(Runner *runner);

/* ---- lifecycle.c ---- */

/* lifecycle_stop(), lifecycle_exit() - baton.Runner/Stop and Exit. */
void lifecycle_stop(Runner *runner, Call *call);
void lifecycle_exit(Runner *runner, Call *call);

/* lifecycle_is_serving() - whether calls of the application's methods are taken. */
bool lifecycle_is_serving(const Runner *runner);

/* lifecycle_drained() - no call to us is open: what waits for that goes on. */
void lifecycle_drained(Runner *runner);

/* lifecycle_free() - forgets who waits; the peer is gone, its calls are not. */
void lifecycle_free(Runner *runner);

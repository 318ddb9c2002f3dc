#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of libbaton's runner half share: runner.c (the object, its loop and its methods), builtin.c (the
 * library's own methods), lifecycle.c (the service's life), service.c (what the application says of it), save.c and restore.c
 * (what crosses to another process), checkpoint.c (asking for that), attach.c (clients), log-queue.c (records on their way
 * to the supervisor).
 */

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "baton/runner.h"
#include "proto/handle.h"
#include "proto/manifest.h"
#include "proto/method.h"
#include "proto/service.h"
#include "runner/log-queue.h"

typedef struct baton_runner Runner;
typedef struct Client Client;
typedef struct Link Link;
typedef struct Save Save;
typedef struct Restore Restore;

#define RUNNER_REASON_SIZE 512
#define RUNNER_CLIENTS     64u /* attached, unless the options say otherwise */

/* What the application sees of an event. */
struct baton_event {
        Runner *runner;
        bool handover;
        bool later; /* baton_event_done() is to come */
        char reason[RUNNER_REASON_SIZE];
};

/* The service's state, and the event that is being carried out. */
typedef struct Lifecycle {
        ServiceState state;
        uint64_t last_event; /* id of the last one carried out; 0: none */
        bool pending;        /* one is under way, with: */
        ServiceEvent event;
        ServiceState next;
        ServiceAction action;
        uint64_t id;
        Call *call;  /* who waits for it; NULL: gone */
        bool drains; /* it waits for open calls to end */
        struct baton_event handle;
        EndpointTask drained;
} Lifecycle;

/* What the application has registered. */
typedef struct Service {
        bool registered;
        struct baton_service functions;
        void *userdata;
        char *description;
} Service;

/* Who asked for a checkpoint: checkpoint.c. */
typedef struct CheckpointWaiter CheckpointWaiter;
STAILQ_HEAD(CheckpointWaiters, CheckpointWaiter);

/* A client that was attached: attach.c. */
struct Client {
        LIST_ENTRY(Client) link;
        Runner *runner;
        Connection *connection;
        struct baton_caller caller;
        bool restored;           /* and not ours yet */
        int link_ends[2];        /* our ends of the link to a successor: lane and channel; -1: none */
        int far_ends[2];         /* and its, until they are given */
        LIST_HEAD(, Link) links; /* far ends of links to predecessors */
        char name[];
};

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

        bool dispatched; /* once: the supervisor may have heard of us */
        Service service;
        Lifecycle life;
        Save *save;       /* under way; NULL: none */
        Restore *restore; /* likewise */
        struct CheckpointWaiters checkpoint_asked, checkpoint_waiting;
        bool checkpoint_open; /* a call is under way for those who asked */
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

/* client_new() - NULL: no memory. client_add() - it is attached: its connection is there. client_config() - of that. */
Client *client_new(Runner *runner, const struct baton_caller *caller);
void client_add(Client *client);
PeerConfig client_config(const Runner *runner);

/* ---- attach-cross.c ---- */

/* attach_freeze() - nothing more is read from clients, nor sent to them. */
void attach_freeze(Runner *runner);

/* attach_save() - the clients, into @manifest and @message; in @ret_n_calls calls that end here. 0 or a negative errno. */
int attach_save(Runner *runner, Manifest *manifest, Baton__Handover__Service *message, uint32_t *ret_n_calls);
/* attach_save_free() - what attach_save() has put into @message, and what was only kept to be given. */
void attach_save_free(Runner *runner, Baton__Handover__Service *message);

/* attach_leave() - a successor has what was saved; its calls end here, over links. Without a save nothing happens. */
void attach_leave(Runner *runner);

/* attach_restore() - the clients of a predecessor, at rest. 0, or a negative errno with one line in @reason. */
int attach_restore(Runner *runner, Manifest *manifest, const Baton__Handover__Service *message,
                   char reason[RUNNER_REASON_SIZE]);
/* attach_restore_undo() - they are somebody else's still, and are forgotten. */
void attach_restore_undo(Runner *runner);

/* attach_go_on() - the service is RUNNING: those that were frozen, or restored, are served. */
void attach_go_on(Runner *runner);

/* ---- link.c ---- */

/*
 * link_open() - the client's calls that end in the predecessor go there and back by the link whose descriptors are in
 * @manifest below @prefix; both peers are at rest. 0, or a negative errno with one line in @reason.
 */
int link_open(Client *client, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
              char reason[MANIFEST_REASON_SIZE]);
/* links_freeze(), links_thaw() - with their client. links_carry() - their calls cross with the client's connection. */
void links_freeze(Client *client);
void links_thaw(Client *client);
void links_carry(Client *client);
/* links_save() - after the client's connection was captured: into @message and @manifest. 0 or a negative errno. */
int links_save(Client *client, const char *prefix, Manifest *manifest, Baton__Handover__ServiceClient *message);
/* links_restore() - what links_save() has written, at rest. 0, or a negative errno with one line in @reason. */
int links_restore(Client *client, const Baton__Handover__ServiceClient *message, const char *prefix,
                  Manifest *manifest, char reason[MANIFEST_REASON_SIZE]);
/* links_leave() - after the client's connection was moved: a successor has them. */
void links_leave(Client *client);
/* links_own() - they go on. */
void links_own(Client *client);
/* links_close() - the other ends are told; links_free() - they are not. Calls end, and none is left. */
void links_close(Client *client, const char *reason);
void links_free(Client *client);
/* link_calls() - calls of all clients that end in a predecessor. */
size_t link_calls(const Runner *runner);

/* ---- lifecycle.c ---- */

/* lifecycle_mount() ... lifecycle_takeover() - baton.Runner/Mount, ... Takeover. */
void lifecycle_mount(Runner *runner, Call *call);
void lifecycle_start(Runner *runner, Call *call);
void lifecycle_stop(Runner *runner, Call *call);
void lifecycle_exit(Runner *runner, Call *call);
void lifecycle_takeover(Runner *runner, Call *call);

/* lifecycle_is_serving() - whether calls of the application's methods are taken. */
bool lifecycle_is_serving(const Runner *runner);

/* lifecycle_refuse() - ends a call that was not taken, since lifecycle_is_serving() says no; @what: "calls". */
void lifecycle_refuse(const Runner *runner, Call *call, const char *what);

/* lifecycle_drained() - no call to us is open: what waits for that goes on. */
void lifecycle_drained(Runner *runner);

/* lifecycle_done() - the action of the event under way has come to its end: as baton_event_done(). */
void lifecycle_done(Runner *runner, int result);

/* lifecycle_init(), lifecycle_free() - the last forgets who waits; the peer is gone, its calls are not. */
void lifecycle_init(Runner *runner);
void lifecycle_free(Runner *runner);

/* ---- service.c ---- */

/* service_info() - baton.Runner/Info. */
void service_info(Runner *runner, Call *call);
void service_free(Runner *runner);
/* service_status() - what an action that failed with @error is answered with. */
Status service_status(int error);
/* names_repeat() - 0; -EPROTO: two are the same, which @reason says; -ENOMEM. */
int names_repeat(char *const *names, size_t n, char reason[RUNNER_REASON_SIZE]);
/* reason_set() - one line of valid text. */
void reason_set(char reason[RUNNER_REASON_SIZE], const char *format, va_list arguments) _printf_(2, 0);

/* ---- save.c ---- */

/* save_handle() - baton.Runner/Save. */
void save_handle(Runner *runner, Call *call);
/* save_free() - the one that is under way, if any: nobody is told. */
void save_free(Runner *runner);

/* ---- restore.c ---- */

/*
 * restore_begin() - takes what comes at @socket_consume, a Takeover; lifecycle_done() is told, later or at once, and why not
 * is in the event's reason.
 */
void restore_begin(Runner *runner, int socket_consume);
void restore_free(Runner *runner);

/* ---- checkpoint.c ---- */

/* checkpoint_end() - the supervisor is gone: those who wait are told. */
void checkpoint_end(Runner *runner);
/* checkpoint_forget() - they are forgotten. */
void checkpoint_forget(Runner *runner);

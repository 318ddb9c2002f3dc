#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervised call: a client's, carried to a runner and back. And calls of our own to a runner on a client's behalf. */

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/instance.h"

/* relay_call() - takes @outer; it is answered with what @instance answers, or with what became of the runner. */
void relay_call(Call *outer, const Baton__Control__CallRequest *request, Instance *instance);

/*
 * RelayAnswered - called once: @instance has answered, and @outer is to be ended; or, with @answer NULL, it has been ended
 * already (cancelled, the runner is gone): only @userdata is to be freed.
 */
typedef void (*RelayAnswered)(Call *outer, Instance *instance, const Answer *answer, void *userdata);

/*
 * relay_ask() - a call to @instance for @outer, whose deadline and cancellation hold for it, and which is ended as that of
 * relay_call() when the runner cannot be called or is gone. @parameters are completed by the time left; they are taken as
 * call_start() takes them. @outer and @userdata are taken on every path.
 */
void relay_ask(Call *outer, Instance *instance, CallParameters *parameters, RelayAnswered answered, void *userdata);

/* Who asks by relay_ask(), as far as he goes on in a successor: a table in relay.c. */
typedef struct RelayKind {
        const char *name;
        RelayAnswered answered;
        int (*lane)(const void *userdata); /* a descriptor of his, borrowed; NULL: he has none */
        int (*restore)(int lane_fd_consume, void **ret_userdata); /* 0 or -ENOMEM; NULL: there is no userdata */
} RelayKind;
extern const RelayKind attach_relay, service_info_relay;

/* A relay as a successor goes on with it. */
typedef struct RelayCrossing {
        Call *outer, *inner;  /* inner NULL: it has ended, for @reason, and the runner's exit is waited for */
        const char *reason;   /* else NULL */
        uint64_t deadline_us; /* until then; else 0 */
        const char *kind;     /* the name of a RelayKind; "": a call of the client's */
        int lane;             /* of the kind; -1: none */
} RelayCrossing;

/*
 * relay_count() - how many relays there are that cross; each is of one call of a client. relay_each() - one
 * after the other. relay_restore() - of calls that were restored, before their peers are owned; the lane is taken, on every
 * path. 0; -EPROTO: of a kind that is not known; -ENOMEM.
 */
size_t relay_count(const Supervisor *supervisor);
void relay_each(const Supervisor *supervisor,
                void (*function)(const Instance *instance, const RelayCrossing *crossing, void *userdata),
                void *userdata);
int relay_restore(Instance *instance, const RelayCrossing *crossing);

/*
 * relay_keep_peer() - the peer of @instance has ended: it is freed, at once, or when all that had come from it has been
 * relayed. relay_end_all() - @instance is about to be freed: frees that peer and ends every relay.
 */
void relay_keep_peer(Instance *instance, Peer *peer_consume);
void relay_end_all(Instance *instance);

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

/*
 * relay_crosses() - whether each relay of @instance could go on in a successor; how many there are in @ret_n. relay_each() -
 * both calls of one after the other. relay_restore() - one that was restored, before its peers are owned. 0 or -ENOMEM.
 */
bool relay_crosses(const Instance *instance, size_t *ret_n);
void relay_each(const Instance *instance, void (*function)(const Call *outer, const Call *inner, void *userdata),
                void *userdata);
int relay_restore(Instance *instance, Call *outer, Call *inner);

/*
 * relay_keep_peer() - the peer of @instance has ended: it is freed, at once, or when all that had come from it has been
 * relayed. relay_end_all() - @instance is about to be freed: frees that peer and ends every relay.
 */
void relay_keep_peer(Instance *instance, Peer *peer_consume);
void relay_end_all(Instance *instance);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervised call: a client's, carried to a runner and back. */

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/runner.h"

/* relay_call() - takes @outer; it is answered with what @runner answers, or with what became of the runner. */
void relay_call(Call *outer, const Baton__Control__CallRequest *request, Runner *runner);

/*
 * relay_keep_peer() - the peer of @runner has ended: it is freed, at once, or when all that had come from it has been
 * relayed. relay_end_all() - @runner is about to be freed: frees that peer and ends every relay.
 */
void relay_keep_peer(Runner *runner, Peer *peer_consume);
void relay_end_all(Runner *runner);

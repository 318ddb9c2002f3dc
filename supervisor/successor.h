#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor: what a supervisor is that follows one which lives, until it serves. It takes descriptors and snapshot from the
 * predecessor and the table from the keeper, builds everything of them, says READY, and does nothing else before GO.
 */

#include "supervisor/peer-loop.h"
#include "supervisor/supervisor.h"

/* successor_new() - takes the pair's end, on every path. 0 or -ENOMEM. */
int successor_new(Successor **ret_successor, Supervisor *supervisor, int handover_fd_consume);

/* successor_free() - what was not taken up is closed. Accepts NULL, returns NULL. */
Successor *successor_free(Successor *successor);

/*
 * The keeper's words: that was the table, or a change of it, or, final, all there will be; and: go on.
 */
void successor_loaded(Successor *successor, bool is_final);
void successor_go(Successor *successor);

/*
 * successor_wait() - in place of the loop, which is held, up to GO: then the loop is ours, and so is everything else, the
 * keeper was told SERVING, and the successor is gone. Where the keeper ends us, the process ends here.
 */
void successor_wait(Successor *successor);

/*
 * successor_has_peer() - whether the predecessor has given the connection of an instance. successor_forget_peer() - it is
 * gone.
 */
bool successor_has_peer(const Successor *successor, uint64_t instance);
void successor_forget_peer(Successor *successor, uint64_t instance);

/* successor_restore_peer() - of an instance. 1; 0: there is none; a negative errno as peer_restore(), having said why. */
int successor_restore_peer(Successor *successor, const Instance *instance, Peer **ret_peer,
                           const PeerLoopParameters *parameters);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A connection that goes to another process while its calls end in this one. Between the two processes lies a link, an
 * ordinary connection whose far end the successor joins, call by call, with the client's (proto/junction.h):
 *
 *         client ====== connection ====== successor ------ link ------ this process
 *
 * peer_freeze()   nothing is read or sent any more; handlers may go on, what they send waits
 * peer_capture()  what the successor needs is written down; from here on what handlers send is meant for the link
 * peer_move()     the successor has the connection: the very peer, with all its calls, speaks over the link
 * peer_thaw()     there is none after all: everything goes on here, as if nothing had been
 *
 * The successor makes the connection by peer_restore(), and its end of the link by peer_mirror(). Both ends of the link
 * know each other's state by construction: no Hello is exchanged, and the calls have the ids that they had.
 */

#include "proto/peer-save.h"

/* peer_freeze() - from outside of the peer's callbacks. Twice is once. */
void peer_freeze(Peer *peer);

/*
 * peer_capture() - as peer_save(), of a peer that is frozen; what it gives may be given to another process until
 * peer_thaw(), and a second capture needs a thaw and a freeze first. Memory that is shared may be, if the peer's
 * configuration said `crosses'.
 */
int peer_capture(Peer *peer, const char *prefix, Manifest *manifest, Baton__Handover__Peer **ret_state);

/*
 * call_carry() - before the capture: @call, which is joined with one of another link, goes on in the successor as it is;
 * peer_saved_call() is its number there. After peer_move() it is its owner's alone, who ends it.
 */
void call_carry(Call *call, bool carried);

/* peer_abandon() - another process has it: as peer_free(), and its connection goes on. */
Peer *peer_abandon(Peer *peer);

/* peer_is_captured() - whether peer_move() may follow. */
bool peer_is_captured(const Peer *peer);

/*
 * peer_move() - of one that was captured: its descriptors are closed here, and the ends of the link are its own from
 * here. With -1 for both, or where the connection had not said Hello yet, the peer ends, UNAVAILABLE.
 */
void peer_move(Peer *peer, int lane_fd_consume, int channel_fd_consume);

void peer_thaw(Peer *peer);

/*
 * peer_mirror() - the far end of the link to a process that wrote @state, for peer_restore() with side 0 and one channel;
 * freed by the caller. @ret_pairs, if not NULL, has the numbers of calls in both, for peer_claim_call(), and is the
 * caller's to free. 0; -EPROTO: no link is possible; -ENOMEM.
 */
typedef struct PeerPair {
        uint32_t call; /* in @state */
        uint32_t link; /* in the mirror */
        bool outgoing; /* the call is one of the process that wrote @state */
} PeerPair;

int peer_mirror(const Baton__Handover__Peer *state, Baton__Handover__Peer **ret_mirror, PeerPair **ret_pairs,
                size_t *ret_n_pairs);

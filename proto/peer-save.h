#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A peer, written down between two of its turns and made again in another process: its calls, credit, half-read and
 * half-written frames go on there as if nothing had been. Whoever owns the peer writes down what its calls mean to it, by
 * the numbers that they are given here, and binds them again.
 *
 * A peer that shares memory with the other side cannot be saved (-EOPNOTSUPP): arenas are announced anew by a successor.
 */

#include "proto/handover.pb-c.h"
#include "proto/manifest.h"
#include "proto/peer.h"

/*
 * peer_save() - what @peer is now; the caller frees it with baton__handover__peer__free_unpacked(). The descriptors are
 * added to @manifest under @prefix, and stay the peer's. Nothing may be in progress: it is called from outside of the
 * peer's callbacks. 0; -EBUSY: from within one; -EOPNOTSUPP; -ESHUTDOWN: it has ended; -ENOMEM; errors of manifest_add().
 */
int peer_save(Peer *peer, const char *prefix, Manifest *manifest, Baton__Handover__Peer **ret_state);

/* peer_can_be_saved() - just now, as far as can be told beforehand. */
bool peer_can_be_saved(const Peer *peer);

/* peer_save_link() - the same of the far end of a link (proto/peer-cross.h), which may have ended. */
int peer_save_link(Peer *peer, const char *prefix, Manifest *manifest, Baton__Handover__Peer **ret_state);

/* peer_saved_call() - the number of a call in what was saved last, from 1; 0: it is not there, since it is over. */
uint32_t peer_saved_call(const Call *call);

/*
 * peer_restore() - the peer that @state describes, with its descriptors out of @manifest, as peer_new() would have made it.
 * Of @config only side, features, software and objects are used, and the side must be the same. Until peer_own() the
 * descriptors are somebody else's too: closing the peer ends no connection, and it must be given no event. 0, or a negative
 * errno with one line in @reason: -EPROTO: @state contradicts itself, or lacks a descriptor; -EPROTONOSUPPORT: it has a
 * feature that @config lacks; -ENOMEM.
 */
int peer_restore(Peer **ret_peer, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
                 const PeerConfig *config, const PeerHost *host_functions, void *host, const PeerHandler *handler,
                 void *userdata, char reason[MANIFEST_REASON_SIZE]);

/*
 * peer_give_back() - of one that is to be restored again, from a later state, and freed: its lane and its channels, under the
 * names that peer_save() gives them, go into @manifest, but for those that are there. 0 or -ENOMEM. To be called before
 * peer_own(); peer_free() is all that may follow.
 */
int peer_give_back(Peer *peer, const char *prefix, Manifest *manifest);

/*
 * peer_claim_call() - the call with that number; NULL: there is none, somebody has it already, or it is not of that direction.
 * Until peer_own(). call_unclaim() - it is nobody's after all.
 */
Call *peer_claim_call(const Peer *peer, uint32_t number, bool ours);
void call_unclaim(Call *call);

/* call_bind() - whom a restored call of ours tells; a restored call of the peer's is bound by call_on_*(). */
void call_bind(Call *call, CallDone done, CallItem item, CallWritable writable, void *userdata);

/*
 * peer_own() - the peer is ours alone from here on: it is flushed, and takes events. Nothing, where it is already. Calls of
 * ours that nobody bound go on, and nobody hears of their end; calls of the other side's that nobody took
 * (peer_claim_call()) are answered INTERNAL.
 */
void peer_own(Peer *peer);

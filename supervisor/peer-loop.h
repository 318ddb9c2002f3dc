#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervisor's host of peers (proto/peer.h): each on the libev loop. */

#include "common/loop.h"
#include "proto/peer-save.h"
#include "proto/peer.h"
#include "supervisor/precopy.h"

typedef struct PeerLoopParameters {
        Loop *loop;
        const PeerConfig *config;
        const PeerHandler *handler;
        void *userdata;
        /*
         * Where a duplicate of the lane lives in the keeper: the descriptor to watch in place of the peer's own, or NULL.
         * It is read when the peer first wants its lane watched; a duplicate of the lane must be there by then, belongs to
         * whoever gave it and outlives the peer.
         */
        const int *watched_lane;

        /* Touched whenever something of the peer changes, or NULL both. */
        Precopy *precopy;
        Precopied *copied;
} PeerLoopParameters;

/* peer_loop_new() - peer_new() on the loop. @lane_fd_consume may be -1. The same errors; the lane is then closed. */
int peer_loop_new(Peer **ret_peer, const PeerLoopParameters *parameters, int lane_fd_consume);

/*
 * peer_loop_restore() - peer_restore() on the loop, which is held until everything is ours: peer_own() is done at the first
 * event, unless somebody has called it before, as is to be done for one with calls. The same errors.
 */
int peer_loop_restore(Peer **ret_peer, const PeerLoopParameters *parameters, const Baton__Handover__Peer *state,
                      const char *prefix, Manifest *manifest, char reason[MANIFEST_REASON_SIZE]);

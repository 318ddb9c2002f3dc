#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Crossing: a call that waits, and that a successor can go on with, since whoever holds it can write it down as a request
 * that leads to the same answer. A takeover waits until no other calls are open.
 */

#include <stdbool.h>
#include <sys/queue.h>

#include "proto/peer.h"

typedef struct Crossing Crossing;

/* Takes the request, which is the giver's. */
typedef void (*CrossingTake)(const ProtobufCMessage *request, void *userdata);

struct Crossing {
        LIST_ENTRY(Crossing) link;
        Call *call;
        const char *method; /* without `baton.Control/' */
        bool begun; /* what was asked for is under way, and must not begin once more: it gives a RunnerCommand or a
                       ChangeCommand of proto/snapshot.proto */
        void (*give)(const Crossing *crossing, CrossingTake take, void *userdata);
};
LIST_HEAD(CrossingList, Crossing);

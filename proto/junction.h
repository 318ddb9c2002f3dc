#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A junction: two calls of two peers, tied together. What comes on the outer one, which is a call of its peer's, goes on the
 * inner one, which is ours, and back: items, half-close, descriptors, cancellation, the answer. Nothing is kept in between:
 * what one side does not take stays in the window of the other.
 *
 * Embedded in its owner's structure. The owner ends the outer call, since it knows more of why the inner one ended; it does
 * so with junction_answer() where there is nothing to add.
 */

#include "proto/peer.h"

typedef struct Junction Junction;

typedef struct JunctionOwner {
        /*
         * done() - the inner call has ended: the owner ends the outer one, now or later. Cancellation of the outer one is
         * still told until junction_leave().
         */
        void (*done)(Junction *junction, const Answer *answer);
        /* cancelled() - nobody waits for the outer call, which is ended afterwards: the owner drops what it has. */
        void (*cancelled)(Junction *junction);
        /* broken() - an item cannot be handed on to @to, as call_send() said: the owner ends both calls. */
        void (*broken)(Junction *junction, const Call *to, const Item *item, int error);
} JunctionOwner;

struct Junction {
        const JunctionOwner *owner;
        Call *outer;
        Call *inner; /* NULL: over */
};

/*
 * junction_start() - starts the inner call on @peer with @parameters, completed by the time that the outer one has left;
 * @items: it takes items. As call_start(): on an error nothing is tied.
 */
int junction_start(Junction *junction, Peer *peer, CallParameters *parameters, bool items);

/*
 * junction_bind() - ties two calls that were restored; @items: the inner one has a window for items, else one that comes
 * ends it as it would have before. Where the inner one is over it ties the outer one alone.
 */
void junction_bind(Junction *junction, bool items);

/* junction_listen() - items of the outer call are taken; in its handler. */
void junction_listen(Junction *junction);

/* junction_leave() - the inner call is cancelled, unless it is over, and the outer one tells nothing any more. */
void junction_leave(Junction *junction);

/* junction_answer() - ends @outer with what the inner call was answered; descriptors are moved. */
void junction_answer(Call *outer, const Answer *answer);

/* junction_move_fds() - a copy of the array, the descriptors now in it alone. NULL where there are none, or no memory. */
int *junction_move_fds(int *fds, size_t n);

/* call_receives() - whether a call has a window in which items may come. */
bool call_receives(const Call *call);

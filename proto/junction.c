/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Junction. Payload, type, metadata and the time left go in; status, message, details, metadata and payload come back;
 * descriptors are moved both ways, in order, so that indexes in payloads that we do not know hold. The lane ids are
 * renumbered by the engine, since each lane has its own. A payload that is a sealed object is the last of them and is not
 * looked at here, unless it goes to a peer that takes none: who reads it checks it.
 *
 * Streams are relayed item by item: what the other call does not take (-EAGAIN) is `not now' to this one, and stays in its
 * window; when the other can take more, this one is resumed. So a reader that stops stops its producer, two processes
 * away, and what lies here in between is bounded by the two windows.
 */

#include "proto/junction.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/peer-internal.h"
#include "proto/peer-save.h"

/* ---- streams ---- */

/* forward() - @item to @call, descriptors too. As call_send(). */
static int forward(Call *call, const Item *item) {
        const ItemParameters parameters = {
                .type = item->envelope->type,
                .payload = item->payload,
                .size = item->size,
                .fds_consume = item->fds,
                .n_fds = item->n_fds,
                .object = item->shared ? 0 : item->envelope->object,
        };
        int r = item->bare ? 0 : call_send(call, &parameters);

        for (size_t i = 0; r == 0 && !item->bare && i < item->n_fds; i++)
                item->fds[i] = -1;
        return r;
}

/* hand_on() - false: not now. -ECANCELED is no news: the end of that call is on its way to us. */
static bool hand_on(Junction *junction, Call *to, const Item *item) {
        int r = to ? forward(to, item) : -ECANCELED;

        if (r == 0 && item->end)
                (void) call_end(to);
        if (r < 0 && r != -EAGAIN && r != -ECANCELED)
                junction->owner->broken(junction, to, item, r);
        return r != -EAGAIN;
}

static bool outer_item(Call *outer, const Item *item, void *userdata) {
        Junction *junction = userdata;

        (void) outer;
        return hand_on(junction, junction->inner, item);
}

static bool inner_item(Call *inner, const Item *item, void *userdata) {
        Junction *junction = userdata;

        (void) inner;
        return hand_on(junction, junction->outer, item);
}

static void outer_writable(Call *outer, void *userdata) {
        const Junction *junction = userdata;

        (void) outer;
        if (junction->inner)
                call_resume(junction->inner);
}

static void inner_writable(Call *inner, void *userdata) {
        const Junction *junction = userdata;

        (void) inner;
        call_resume(junction->outer);
}

/* ---- the ends ---- */

static void outer_cancelled(Call *outer, void *userdata) {
        Junction *junction = userdata;

        junction->owner->cancelled(junction);
        (void) call_fail(outer, STATUS_CANCELLED, "cancelled");
}

static void inner_done(Call *inner, const Answer *answer, void *userdata) {
        Junction *junction = userdata;

        (void) inner;
        junction->inner = NULL;
        junction->owner->done(junction, answer);
}

void junction_leave(Junction *junction) {
        if (junction->inner)
                call_cancel(TAKE_PTR(junction->inner));
        if (junction->outer)
                call_on_cancel(junction->outer, NULL, NULL);
}

int *junction_move_fds(int *fds, size_t n) {
        int *moved = n > 0 ? malloc(n * sizeof(*moved)) : NULL;

        for (size_t i = 0; moved && i < n; i++)
                moved[i] = fd_take(&fds[i]);
        return moved;
}

void junction_answer(Call *outer, const Answer *answer) {
        const Baton__Envelope *envelope = answer->envelope;
        _cleanup_free_ int *fds = junction_move_fds(answer->fds, answer->n_fds);
        const AnswerParameters parameters = {
                .status = answer->status,
                .message = answer->message,
                .type = envelope ? envelope->type : NULL,
                .payload = answer->payload,
                .size = answer->size,
                .fds_consume = fds,
                .n_fds = answer->n_fds,
                .object = envelope && !answer->shared ? envelope->object : 0,
                .details = envelope ? envelope->details : NULL,
                .n_details = envelope ? envelope->n_details : 0,
                .metadata = envelope ? envelope->metadata : NULL,
                .n_metadata = envelope ? envelope->n_metadata : 0,
        };

        if (answer->n_fds > 0 && !fds)
                (void) call_fail(outer, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer's descriptors");
        else
                (void) call_answer(outer, &parameters);
}

/* ---- tying ---- */

void junction_listen(Junction *junction) {
        call_on_stream(junction->outer, outer_item, outer_writable, junction);
}

int junction_start(Junction *junction, Peer *peer, CallParameters *parameters, bool items) {
        uint64_t left = call_time_left(junction->outer);
        int r;

        parameters->timeout_us = left == USEC_INFINITY ? 0 : MAX(left, 1);
        parameters->item = items ? inner_item : NULL;
        parameters->writable = inner_writable;
        r = call_start(peer, parameters, inner_done, junction, &junction->inner);
        if (r == 0)
                call_on_cancel(junction->outer, outer_cancelled, junction);
        return r;
}

void junction_bind(Junction *junction, bool items) {
        junction_listen(junction);
        call_on_cancel(junction->outer, outer_cancelled, junction);
        if (junction->inner)
                call_bind(junction->inner, inner_done, items ? inner_item : NULL, inner_writable, junction);
}

bool call_receives(const Call *call) {
        return call->reserved > 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Streams: ITEMs between the CALL and its ANSWER, both ways, each under the credit of its own call.
 *
 * Sending never buffers for the producer: an item is written or the producer is told to wait (-EAGAIN) and called when it
 * is worth trying again: credit came, the item with descriptors that was on its way is written, the call itself is
 * written, or the channel's backlog is gone. The one thing that waits here is the half-close, which must follow them.
 *
 * Receiving hands an item out where it was read. A receiver that cannot take it keeps it queued here, within the window,
 * and stops that stream alone: what follows it, the ANSWER too, queues behind it until call_resume(). Credit goes back
 * when an item was taken, at the next flush, all of it: a sender whose item is as large as the window must not starve.
 *
 * Items and ANSWERs that have come are not lost with the peer: they go on being delivered after its end, and what became of
 * the call is told behind them.
 *
 * Memory: the window of each call that may receive items is reserved when it is opened, against one limit per peer. An
 * item's cost stands for its payload and a short Envelope; what a longer one takes, and a whole ANSWER, is reserved while
 * it is kept, and its descriptors count among those that the peer may have us hold.
 */

#include "proto/peer-internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/envelope.h"

#define ITEM_COST 64u
#define FD_COST   4096u

static uint64_t item_cost(uint64_t size, size_t n_fds) {
        return size + ITEM_COST + (uint64_t) FD_COST * n_fds;
}

/* ---- turns: streams that have something to be told, and those that owe credit ---- */

void stream_schedule(Call *call) {
        Peer *peer = call->peer;

        if (!peer || call->scheduled)
                return;
        call->scheduled = call->streams = true;
        peer->n_scheduled++;
        TAILQ_INSERT_TAIL(&peer->scheduled, call, scheduled_link);
        peer_wake(peer);
}

static void unschedule(Call *call) {
        if (!call->scheduled)
                return;
        call->peer->n_scheduled--;
        TAILQ_REMOVE(&call->peer->scheduled, call, scheduled_link);
        call->scheduled = false;
}

/* ---- sending ---- */

/* may_send() - 0, or why no item of any size can be sent: over, or half-closed. */
static int may_send(const Call *call) {
        if (!call->peer || call->over || call->failed || (call->outgoing && (!call->done || call->answered)) ||
            (!call->outgoing && !call->open))
                return -ECANCELED;
        return call->outgoing && (!call->sends || call->end_wanted) ? -EPIPE : 0;
}

static bool is_blocked(const Call *call, uint64_t cost) {
        const Peer *peer = call->peer;

        return peer->state != PEER_STATE_READY || !call->open || call->parcel || cost > call->credit_out ||
               peer_has_backlog(peer, &peer->channels[call->channel]);
}

/* enough_for() - the credit to wait for. Before Hello nobody knew that an item is too large: the next attempt says so. */
static uint64_t enough_for(const Call *call, uint64_t cost) {
        return MIN(cost, call->peer->remote.stream_window);
}

/* block() - remembers what the producer waits for. */
static int block(Call *call, uint64_t cost) {
        Peer *peer = call->peer;

        call->blocked = cost;
        call->streams = true;
        if (peer->state == PEER_STATE_READY && call->open && !call->parcel &&
            enough_for(call, cost) <= call->credit_out)
                peer->has_blocked = true; /* by the backlog: looked for when it is gone */
        return -EAGAIN;
}

/* parameters_cost() - what lies in an arena or an object costs no credit of the stream: those have bounds of their own. */
static uint64_t parameters_cost(const Call *call, const ItemParameters *parameters) {
        uint64_t size;
        size_t n_fds;

        peer_weigh_item(call, parameters, &size, &n_fds);
        return item_cost(size, n_fds);
}

int call_send(Call *call, const ItemParameters *parameters) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        int r = may_send(call);
        uint64_t cost;

        if (r < 0)
                return r;
        cost = parameters_cost(call, parameters);
        if (!text_is_valid(parameters->type))
                return -EINVAL;
        if (call->peer->state == PEER_STATE_READY && cost > call->peer->remote.stream_window)
                return -EMSGSIZE;
        if (is_blocked(call, cost))
                return block(call, cost);
        envelope.kind = BATON__KIND__ITEM;
        envelope.type = (char *) (parameters->type ? parameters->type : "");
        r = peer_send_item(call, &envelope, parameters);
        if (r < 0)
                return r;
        share_sent(parameters->buffer);
        call->credit_out -= cost;
        call->blocked = 0; /* it has gone on by itself */
        return 0;
}

/* send_end() - the half-close, once nothing of the call is on its way. */
static void send_end(Call *call) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        if (!call->end_wanted || !call->sends || !call->open || call->parcel || call->peer->state != PEER_STATE_READY)
                return;
        call->sends = false;
        envelope.kind = BATON__KIND__ITEM;
        envelope.id = call->id;
        envelope.end = true;
        if (peer_write(call->peer, call->channel, &envelope, NULL, 0) < 0)
                peer_doom(call->peer);
}

int call_end(Call *call) {
        int r = call->outgoing ? may_send(call) : -EINVAL;

        if (r < 0)
                return r;
        call->end_wanted = true;
        call->blocked = 0;
        send_end(call);
        return 0;
}

void stream_written(Call *call) {
        send_end(call);
        if (call->blocked)
                stream_schedule(call);
}

void stream_credit(Call *call, uint64_t credit) {
        Peer *peer = call->peer;

        if (credit > peer->remote.stream_window || call->credit_out + credit > peer->remote.stream_window) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "CREDIT for call %llu goes beyond its window",
                         (unsigned long long) call->id);
                return;
        }
        call->credit_out += credit;
        if (call->blocked && call->credit_out >= enough_for(call, call->blocked))
                stream_schedule(call);
}

void stream_backlog_gone(Peer *peer) {
        struct CallList *lists[] = { &peer->outgoing, &peer->incoming };
        Call *call;

        if (!peer->has_blocked)
                return;
        peer->has_blocked = false;
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                LIST_FOREACH (call, lists[i], link)
                        if (call->blocked || call->owed)
                                stream_schedule(call);
}

/* ---- receiving ---- */

int stream_reserve(Call *call) {
        Peer *peer = call->peer;
        uint64_t window = peer->limits.stream_window;

        if (call->reserved)
                return 0;
        if (peer->reserved_bytes + window > peer->limits.max_memory)
                return -ENOBUFS;
        peer->reserved_bytes += window;
        call->reserved = window;
        call->streams = true;
        call->window_in = window;
        return 0;
}

/* hold(), let_go() - what the queue has beyond the window. */
static void hold(Call *call, const Queued *queued) {
        call->reserved += queued->excess;
        call->peer->reserved_bytes += queued->excess;
        call->peer->held_fds += queued->n_fds;
}

static void let_go(Call *call, const Queued *queued) {
        call->reserved -= queued->excess;
        call->peer->reserved_bytes -= queued->excess;
        call->peer->held_fds -= queued->n_fds;
}

static void queued_free(Queued *queued) {
        arena_view_release(&queued->view);
        fd_close_all(queued->fds, queued->n_fds);
        free(queued->fds);
        free(queued);
}

void stream_drop_all(Call *call) {
        Queued *queued;

        while ((queued = STAILQ_FIRST(&call->queue))) {
                STAILQ_REMOVE_HEAD(&call->queue, link);
                if (call->peer)
                        let_go(call, queued);
                queued_free(queued);
        }
        if (call->peer) {
                call->peer->reserved_bytes -= call->reserved;
                unschedule(call);
        }
        call->reserved = call->owed = call->blocked = 0;
}

/*
 * keep() - a frame, as it came, for later, of which @paid bytes are reserved; its descriptors are taken. -ENOBUFS,
 * -ENOMEM: they are not.
 */
static int keep(Call *call, const uint8_t *body, size_t length, uint64_t cost, uint64_t paid, ArenaView *view,
                int *fds_consume, size_t n_fds) {
        uint64_t excess = length > paid ? length - paid : 0;
        const Peer *peer = call->peer;
        Queued *queued;

        if (peer->reserved_bytes + excess > peer->limits.max_memory ||
            peer->held_fds + n_fds > peer->limits.max_held_fds)
                return -ENOBUFS;
        queued = malloc(sizeof(*queued) + length);
        if (!queued)
                return -ENOMEM;
        *queued = (Queued){ .cost = cost, .excess = excess, .fds = fds_consume, .n_fds = n_fds, .length = length };
        memcpy(queued->body, body, length);
        if (view) {
                queued->view = *view;
                *view = ARENA_VIEW_NULL;
        }
        STAILQ_INSERT_TAIL(&call->queue, queued, link);
        call->streams = true;
        hold(call, queued);
        return 0;
}

int stream_restore(Call *call, const uint8_t *body, size_t length, uint64_t cost, uint64_t excess, int *fds_consume,
                   size_t n_fds) {
        uint32_t envelope_size;
        Queued *queued;

        if (length < ENVELOPE_SIZE_FIELD || excess > length)
                return -EPROTO;
        memcpy(&envelope_size, body, sizeof(envelope_size));
        if (be32toh(envelope_size) > length - ENVELOPE_SIZE_FIELD)
                return -EPROTO;
        queued = malloc(sizeof(*queued) + length);
        if (!queued)
                return -ENOMEM;
        *queued = (Queued){ .cost = cost, .excess = excess, .fds = fds_consume, .n_fds = n_fds, .length = length };
        memcpy(queued->body, body, length);
        STAILQ_INSERT_TAIL(&call->queue, queued, link);
        call->streams = true;
        hold(call, queued);
        return 0;
}

int stream_queue_answer(Call *call, const uint8_t *body, size_t length, ArenaView *view, int *fds_consume,
                        size_t n_fds) {
        if (keep(call, body, length, 0, 0, view, fds_consume, n_fds) < 0)
                return -ENOBUFS;
        call->answered = true;
        return 0;
}

bool stream_fail_later(Call *call, Status status, const char *reason) {
        if (STAILQ_EMPTY(&call->queue) || !call->done || call->failed)
                return false;
        call->message = strdup(reason);
        call->status = status;
        call->answered = call->fails = true;
        return true;
}

/* is_over() - nobody takes items of this call any more. */
static bool is_over(const Call *call) {
        return !call->peer || call->over || call->failed || (call->outgoing && !call->done);
}

/* taken() - the receiver has an item: its credit goes back. */
static void taken(Call *call, uint64_t cost) {
        if (cost == 0 || is_over(call) || !call->open)
                return;
        call->owed += cost;
        stream_schedule(call);
}

/* hand_out() - @item to whoever takes the call's items. False: not now, or there is no call any more (@ret_gone). */
static bool hand_out(Call *call, const Item *item, bool *ret_gone) {
        bool gone = false, *outer = call->gone, took;

        call->gone = &gone;
        call->paused = true; /* so that call_resume() counts already now */
        took = call->on_item(call, item, call->stream_userdata);
        *ret_gone = gone;
        if (gone) {
                if (outer)
                        *outer = true;
                return false;
        }
        call->gone = outer;
        if (took)
                call->paused = false;
        return took;
}

int stream_received(Call *call, const uint8_t *body, size_t length, Item *item) {
        uint64_t cost = item->bare ? 0 : item_cost(item->shared ? 0 : item->size, item->envelope->n_fds);
        Peer *peer = call->peer;
        bool gone = false;
        int r;

        if (cost > call->window_in) {
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "an ITEM of call %llu goes beyond its window",
                         (unsigned long long) call->id);
                return 0;
        }
        call->window_in -= cost;
        call->takes = !call->outgoing && !item->end;
        if (!call->on_item)
                return 0; /* the half-close of a caller that was not asked for items */
        if (!call->paused && STAILQ_EMPTY(&call->queue) && hand_out(call, item, &gone)) {
                taken(call, cost);
                return 0;
        }
        if (gone || is_over(call))
                return 0;
        r = keep(call, body, length, cost, MAX(cost, (uint64_t) ITEM_COST), item->shared, item->fds, item->n_fds);
        if (r == 0)
                item->fds = NULL;
        else if (r == -ENOMEM)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "no memory for an ITEM");
        return r == -ENOBUFS ? r : 0;
}

void call_resume(Call *call) {
        if (!call->paused)
                return;
        call->paused = false;
        stream_schedule(call);
}

/* unpack_queued() - what was a frame once, into the peer's scratch. */
static bool unpack_queued(Peer *peer, Queued *queued, Item *ret_item) {
        uint32_t envelope_size;
        const Baton__Envelope *envelope;

        memcpy(&envelope_size, queued->body, sizeof(envelope_size));
        envelope_size = be32toh(envelope_size);
        message_scratch_reset(&peer->scratch);
        envelope = envelope_unpack(&peer->scratch, queued->body + ENVELOPE_SIZE_FIELD, envelope_size);
        if (!envelope)
                return false; /* it was good once: no memory */
        *ret_item = (Item){
                .envelope = envelope,
                .payload = queued->body + ENVELOPE_SIZE_FIELD + envelope_size,
                .size = queued->length - ENVELOPE_SIZE_FIELD - envelope_size,
                .fds = queued->fds,
                .n_fds = queued->n_fds,
                .end = envelope->end,
        };
        if (queued->view.mapping) {
                ret_item->shared = &queued->view;
                ret_item->payload = queued->view.memory;
                ret_item->size = queued->view.size;
        }
        ret_item->bare = ret_item->end && ret_item->size == 0 && ret_item->n_fds == 0;
        return true;
}

/* answer_queued() - the ANSWER, now that the items before it were taken. */
static void answer_queued(Call *call, const Item *item) {
        Answer answer = {
                .status = status_from_wire(item->envelope->status),
                .message = item->envelope->message,
                .envelope = item->envelope,
                .payload = item->payload,
                .size = item->size,
                .fds = item->fds,
                .n_fds = item->n_fds,
                .shared = item->shared,
        };

        call_answered(call, &answer);
}

/* hand_out_queued() - the first of the queue. False: stop; @call may be gone. */
static bool hand_out_queued(Call *call) {
        Queued *queued = STAILQ_FIRST(&call->queue);
        bool gone = false, took;
        Item item;

        if (!unpack_queued(call->peer, queued, &item)) {
                if (call->peer->state == PEER_STATE_ENDED) /* there is no end to come that would tell it */
                        call_fail_local(call, STATUS_RESOURCE_EXHAUSTED, "no memory for what had come");
                else
                        peer_end(call->peer, STATUS_RESOURCE_EXHAUSTED, true, "no memory for an ITEM");
                return false;
        }
        STAILQ_REMOVE_HEAD(&call->queue, link); /* whatever ends the call meanwhile, it is ours */
        let_go(call, queued);
        if (item.envelope->kind == BATON__KIND__ANSWER) {
                answer_queued(call, &item);
                queued_free(queued);
                return false;
        }
        if (!call->on_item) { /* not any more */
                bool bare = item.bare;

                queued_free(queued);
                if (!bare)
                        peer_refuse_item(call->peer, call, STATUS_INVALID_ARGUMENT, "the method takes no stream");
                return bare;
        }
        took = hand_out(call, &item, &gone);
        if (!gone && !took && !is_over(call)) {
                STAILQ_INSERT_HEAD(&call->queue, queued, link);
                hold(call, queued);
                return false;
        }
        if (!gone && took)
                taken(call, queued->cost);
        queued_free(queued);
        return !gone && !is_over(call);
}

/* ---- the flush ---- */

static void return_stream_credit(Call *call) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        if (!call->owed || !call->open || call->peer->state != PEER_STATE_READY)
                return;
        if (peer_has_backlog(call->peer, &call->peer->channels[call->channel])) {
                call->peer->has_blocked = true;
                return;
        }
        envelope.kind = BATON__KIND__CREDIT;
        envelope.id = call->id;
        envelope.credit = call->owed;
        if (peer_write(call->peer, call->channel, &envelope, NULL, 0) < 0) {
                peer_doom(call->peer);
                return;
        }
        call->window_in += call->owed;
        call->owed = 0;
}

/* tell_writable() - false: the call is gone. */
static bool tell_writable(Call *call) {
        bool gone = false, *outer = call->gone;
        uint64_t cost = call->blocked;

        if (!cost || !call->on_writable || is_over(call) || call->answered)
                return true;
        if (is_blocked(call, enough_for(call, cost))) {
                (void) block(call, cost);
                return true;
        }
        call->blocked = 0;
        call->gone = &gone;
        call->on_writable(call, call->stream_userdata);
        if (gone) {
                if (outer)
                        *outer = true;
                return false;
        }
        call->gone = outer;
        return call->peer;
}

static void flush_stream(Call *call) {
        if (!tell_writable(call) || is_over(call))
                return;
        while (!call->paused && !STAILQ_EMPTY(&call->queue))
                if (!hand_out_queued(call))
                        return;
        return_stream_credit(call);
        if (call->fails && STAILQ_EMPTY(&call->queue)) {
                _cleanup_free_ char *reason = TAKE_PTR(call->message);

                call_fail_local(call, call->status, "%s", reason ? reason : "");
        }
}

void peer_flush_streams(Peer *peer) {
        /* Those that are scheduled meanwhile, by callbacks, have the next flush. */
        for (size_t n = peer->n_scheduled; n > 0 && !peer->freed; n--) {
                Call *call = TAILQ_FIRST(&peer->scheduled);

                if (!call)
                        return;
                unschedule(call);
                flush_stream(call);
        }
}

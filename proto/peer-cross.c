/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Crossing. A peer is its calls and its connection; here the two part. What belongs to the connection goes: bytes read and
 * not handled, frames written and not sent, descriptors on their way, its credit. What belongs to the calls stays: their
 * handlers, what they have received and not taken, calls that have not begun to be sent. A call is in both, by its id, its
 * windows and whether each half of its streams is open; after the crossing the link carries that on between them.
 *
 * From the capture on the writer is a new one. So what handlers write meanwhile is neither lost nor sent twice: it goes to
 * the link, behind what was captured, or, after a thaw, behind it to the client. Frames that cannot be written at once stay
 * parcels either way; those that were captured are marked, and dropped or kept when it is known who sends them.
 */

#include "proto/peer-cross.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/peer-internal.h"

typedef Baton__Handover__Peer State;
typedef Baton__Handover__PeerCall CallState;

/* Of the channel, before the capture. */
struct Captured {
        FrameWriter writer;
        uint64_t written, answers_end, answers_mark;
        uint32_t n_answers;
        uint64_t fd_owed;
        uint64_t next_out; /* on the link */
};

/* ---- freezing ---- */

/* A channel that counts as stalled is not written to from within a call of the application's. */
static void stall(Peer *peer, bool stalled) {
        for (unsigned n = 0; n < peer->n_channels; n++)
                peer->channels[n].stalled = stalled;
}

void peer_freeze(Peer *peer) {
        assert(peer->depth == 0);
        if (peer->frozen || peer->state == PEER_STATE_ENDED)
                return;
        peer->frozen = true;
        stall(peer, true);
        peer_watch_all(peer);
}

/* unfreeze() - time in which nothing could be read counts for nobody. */
static void unfreeze(Peer *peer) {
        peer->frozen = false;
        stall(peer, false);
        for (unsigned n = 0; n < peer->n_channels; n++)
                if (peer->channels[n].partial_since)
                        peer->channels[n].partial_since = clock_now();
        peer_watch_all(peer);
        peer->awake = false;
        peer_wake(peer);
}

/* ---- capturing ---- */

bool peer_is_captured(const Peer *peer) {
        return peer->captured;
}

void peer_drop_captured(Peer *peer) {
        struct Captured *captured = TAKE_PTR(peer->captured);

        if (captured)
                frame_writer_deinit(&captured->writer);
        free(captured);
}

/* link_next() - the first id on the link that is free. */
static uint64_t link_next(const Peer *peer) {
        uint64_t next = peer->channels[CHANNEL_RPC].next_out;
        const Call *call;

        LIST_FOREACH (call, &peer->outgoing, link)
                if (call->link_id && !call->open)
                        next = MAX(next, call->link_id + 2);
        return next;
}

int peer_capture(Peer *peer, const char *prefix, Manifest *manifest, State **ret_state) {
        Channel *channel = &peer->channels[CHANNEL_RPC];
        struct Captured *captured;
        int r;

        if (peer->state == PEER_STATE_ENDED)
                return -ESHUTDOWN;
        assert(peer->frozen && !peer->captured && peer->n_channels == 1);
        captured = calloc(1, sizeof(*captured));
        if (!captured)
                return -ENOMEM;
        r = peer_save_crossing(peer, prefix, manifest, ret_state);
        if (r < 0) {
                free(captured);
                return r;
        }
        *captured = (struct Captured){
                .writer = channel->writer,
                .written = channel->written,
                .answers_end = channel->answers_end,
                .answers_mark = channel->answers_mark,
                .n_answers = channel->n_answers,
                .fd_owed = peer->fd_owed,
                .next_out = link_next(peer),
        };
        frame_writer_init(&channel->writer);
        channel->written = channel->answers_end = channel->answers_mark = peer->fd_owed = 0;
        channel->n_answers = 0;
        peer->captured = captured;
        return 0;
}

/* ---- thawing ---- */

/* append() - what was written since goes behind what was there. 0 or -ENOMEM. */
static int append(FrameWriter *writer, const FrameWriter *since) {
        size_t size = frame_writer_pending(since);
        int r;

        if (size == 0)
                return 0;
        r = frame_writer_grow(writer, size);
        if (r < 0)
                return r;
        memcpy(writer->buffer + writer->end, since->buffer + since->start, size);
        writer->end += size;
        return 0;
}

static void release(Peer *peer) {
        Channel *channel = &peer->channels[CHANNEL_RPC];
        struct Captured *captured = peer->captured;
        Parcel *parcel;
        Call *call;

        if (append(&captured->writer, &channel->writer) < 0)
                peer_doom(peer);
        frame_writer_deinit(&channel->writer);
        channel->writer = captured->writer;
        frame_writer_init(&captured->writer);
        channel->answers_end = channel->answers_end ? captured->written + channel->answers_end : captured->answers_end;
        channel->answers_mark = captured->answers_mark;
        channel->n_answers += captured->n_answers;
        channel->written += captured->written;
        peer->fd_owed += captured->fd_owed;
        TAILQ_FOREACH (parcel, &peer->parcels, link)
                parcel->captured = false;
        LIST_FOREACH (call, &peer->outgoing, link)
                call->link_id = 0;
        peer_drop_captured(peer);
}

void peer_thaw(Peer *peer) {
        if (!peer->frozen || peer->state == PEER_STATE_ENDED)
                return;
        if (peer->captured)
                release(peer);
        unfreeze(peer);
}

/* ---- moving ---- */

void call_carry(Call *call, bool carried) {
        call->carried = carried;
}

Peer *peer_abandon(Peer *peer) {
        peer->borrowed = true;
        return peer_free(peer);
}

/* forget_carried() - calls of both directions that are the successor's now. */
static void forget_carried(Peer *peer) {
        struct CallList *lists[] = { &peer->outgoing, &peer->incoming };
        Call *call, *next;

        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                for (call = LIST_FIRST(lists[i]); call; call = next) {
                        next = LIST_NEXT(call, link);
                        if (call->carried)
                                call_forget(call);
                }
}

/* settle_outgoing() - of our calls: what the connection alone still knows of is not on the link. */
static void settle_outgoing(Peer *peer) {
        Call *call, *next;

        for (call = LIST_FIRST(&peer->outgoing); call; call = next) {
                next = LIST_NEXT(call, link);
                if (call->link_id && call->end_wanted)
                        call->sends = false; /* goes with what is on its way */
                if (call->open && !call->link_id) {
                        call_close(call);
                        call_release(call);
                } else if (call->link_id && !call->open && call->parcel) {
                        peer_drop_parcel(peer, call->parcel);
                        call_open(peer, call, call->link_id);
                }
        }
}

static void drop_parcels(Peer *peer) {
        Parcel *parcel, *next;

        for (parcel = TAILQ_FIRST(&peer->parcels); parcel; parcel = next) {
                Call *call = parcel->call;

                next = TAILQ_NEXT(parcel, link);
                if (!parcel->captured)
                        continue;
                peer_drop_parcel(peer, parcel);
                if (call && call->blocked)
                        stream_schedule(call);
        }
}

/* change_transport() - the connection's descriptors are closed, but not ended: another process has them. */
static void change_transport(Peer *peer, int lane_fd, int channel_fd) {
        Channel *channel = &peer->channels[CHANNEL_RPC];

        fd_close(channel->fd);
        channel->fd = channel_fd;
        frame_reader_deinit(&channel->reader);
        frame_reader_init(&channel->reader, (uint32_t) peer->limits.max_frame);
        channel->partial_since = 0;
        channel->paused = channel->broken = false;
        channel->next_out = MAX(channel->next_out, peer->captured->next_out);
        lane_deinit(&peer->lane);
        lane_init(&peer->lane, lane_fd, peer->side, peer->n_channels, LANE_RENEWAL_NONE, peer->limits.fd_credit);
        peer->lane.due = peer->n_channels;
        peer->renewal = LANE_RENEWAL_NONE;
        peer->lane_eof = peer->lane_stalled = false;
        peer->lane_retry = USEC_INFINITY;
        peer->fd_credit = peer->remote.fd_credit;
}

void peer_move(Peer *peer, int lane_fd_consume, int channel_fd_consume) {
        _cleanup_fd_ int lane_fd = lane_fd_consume, channel_fd = channel_fd_consume;

        if (peer->state == PEER_STATE_ENDED)
                return;
        assert(peer->captured && peer->depth == 0);
        peer->borrowed = true;
        if (lane_fd < 0 || channel_fd < 0 || peer->state != PEER_STATE_READY) {
                peer_end(peer, STATUS_UNAVAILABLE, false, "the successor has the connection");
                return;
        }
        forget_carried(peer);
        settle_outgoing(peer);
        drop_parcels(peer);
        change_transport(peer, fd_take(&lane_fd), fd_take(&channel_fd));
        share_leave(peer);
        peer_drop_captured(peer);
        peer->borrowed = false;
        unfreeze(peer);
}

/* ---- the far end ---- */

typedef struct Mirror {
        const State *from;
        State *to;
        PeerPair *pairs;
        size_t n_pairs;
} Mirror;

static void *new_message(const ProtobufCMessageDescriptor *type) {
        ProtobufCMessage *message = malloc(type->sizeof_message);

        if (message)
                protobuf_c_message_init(type, message);
        return message;
}

/* mirror_limits() - what we accept is what that process believes the client does, and the other way round. */
static int mirror_limits(const Mirror *mirror) {
        const Baton__Handover__PeerRemote *remote = mirror->from->remote;
        const Baton__Handover__PeerLimits *limits = mirror->from->limits;
        State *to = mirror->to;

        to->limits = new_message(&baton__handover__peer_limits__descriptor);
        to->remote = new_message(&baton__handover__peer_remote__descriptor);
        to->counters = new_message(&baton__handover__peer_counters__descriptor);
        if (!to->limits || !to->remote || !to->counters)
                return -ENOMEM;
        to->limits->max_frame = remote->max_frame;
        to->limits->max_calls = remote->max_calls;
        to->limits->fd_credit = remote->fd_credit;
        to->limits->stream_window = remote->stream_window;
        to->limits->max_object = remote->max_object;
        to->limits->max_held_fds = MAX(limits->max_held_fds, remote->fd_credit);
        to->limits->max_unsent = limits->max_unsent;
        to->limits->max_waiting = limits->max_waiting;
        to->limits->max_waiting_bytes = limits->max_waiting_bytes;
        to->limits->max_memory = limits->max_memory;
        to->limits->frame_timeout_us = limits->frame_timeout_us;
        to->remote->protocol = remote->protocol;
        to->remote->max_frame = limits->max_frame;
        to->remote->max_calls = limits->max_calls;
        to->remote->fd_credit = limits->fd_credit;
        to->remote->stream_window = limits->stream_window;
        to->remote->max_object = limits->max_object;
        to->fd_credit = limits->fd_credit;
        return 0;
}

/* mirror_call() - where the connection owes nothing, since nothing waits there, the link owes the rest of the window. */
static void mirror_call(const Mirror *mirror, const CallState *from, CallState *to) {
        uint64_t window = mirror->to->limits->stream_window;
        bool receives;

        to->outgoing = !from->outgoing;
        to->id = from->link;
        to->open = true;
        to->wanted = to->outgoing;
        to->streams = true;
        to->sends = to->outgoing && from->takes;
        to->takes = !to->outgoing && from->sends && !from->end_wanted;
        to->credit_out = from->reserved > 0 ? from->window_in : 0;
        /* What it may send to us: a caller until its half-close, a callee always. */
        receives = to->outgoing || to->takes;
        to->reserved = receives ? window : 0;
        to->window_in = from->open ? MIN(from->credit_out, window) : window;
        to->owed = receives ? window - to->window_in : 0;
}

static int mirror_calls(Mirror *mirror) {
        const State *from = mirror->from;
        State *to = mirror->to;

        to->calls = calloc(from->n_calls + 1, sizeof(*to->calls));
        mirror->pairs = calloc(from->n_calls + 1, sizeof(*mirror->pairs));
        if (!to->calls || !mirror->pairs)
                return -ENOMEM;
        for (size_t i = 0; i < from->n_calls; i++) {
                CallState *call;

                if (!from->calls[i]->link)
                        continue;
                call = new_message(&baton__handover__peer_call__descriptor);
                if (!call)
                        return -ENOMEM;
                mirror_call(mirror, from->calls[i], call);
                to->calls[to->n_calls++] = call;
                mirror->pairs[mirror->n_pairs++] = (PeerPair){
                        .call = (uint32_t) i + 1,
                        .link = (uint32_t) to->n_calls,
                        .outgoing = from->calls[i]->outgoing,
                };
        }
        return 0;
}

static int mirror_transport(const Mirror *mirror) {
        const Baton__Handover__PeerChannel *from = mirror->from->channels[0];
        Baton__Handover__PeerChannel *channel;
        State *to = mirror->to;

        to->lane = new_message(&baton__handover__peer_lane__descriptor);
        to->channels = calloc(1, sizeof(*to->channels));
        channel = new_message(&baton__handover__peer_channel__descriptor);
        if (!to->lane || !to->channels || !channel) {
                free(channel);
                return -ENOMEM;
        }
        to->lane->connected = true;
        to->lane->next_n = LANE_FIRST_N;
        to->lane->due = 1;
        channel->use = CHANNEL_FRAMED;
        channel->next_out = MAX(from->last_in + 2, UINT64_C(2) + to->side);
        channel->last_in = from->next_out - MIN(from->next_out, 2);
        for (size_t i = 0; i < mirror->from->n_calls; i++)
                if (mirror->from->calls[i]->outgoing)
                        channel->last_in = MAX(channel->last_in, mirror->from->calls[i]->link);
        to->channels[to->n_channels++] = channel;
        return 0;
}

int peer_mirror(const State *state, State **ret_mirror, PeerPair **ret_pairs, size_t *ret_n_pairs) {
        Mirror mirror = { .from = state };
        int r;

        if (!state->limits || !state->remote || !state->remote->protocol || state->n_channels != 1 ||
            state->state != BATON__HANDOVER__PEER__STATE__READY || state->side > 1)
                return -EPROTO;
        mirror.to = new_message(&baton__handover__peer__descriptor);
        if (!mirror.to)
                return -ENOMEM;
        mirror.to->state = BATON__HANDOVER__PEER__STATE__READY;
        mirror.to->side = 1 - state->side;
        r = mirror_limits(&mirror);
        if (r == 0)
                r = mirror_transport(&mirror);
        if (r == 0)
                r = mirror_calls(&mirror);
        if (r < 0) {
                baton__handover__peer__free_unpacked(mirror.to, NULL);
                free(mirror.pairs);
                return r;
        }
        *ret_mirror = mirror.to;
        *ret_pairs = mirror.pairs;
        *ret_n_pairs = mirror.n_pairs;
        return 0;
}

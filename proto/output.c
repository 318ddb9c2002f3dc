/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Frames out. A frame that nothing holds back is packed straight into the channel's writer. Any other becomes a parcel:
 * its Envelope is packed without what is known only later (id, lane ids, time left, credit); those are packed when it is
 * written and follow the first part, which protobuf reads as one message.
 *
 * What may hold a frame back: the peer's Hello has not come, max_calls are open, the channel has a backlog, credit for
 * its descriptors is lacking, or the lane is full. Descriptors go first: a frame is written only after the kernel took
 * all of its lane messages, and then it must be written, whatever became of its call. A frame takes its credit whole or
 * not at all, and waits for it in turn; frames without descriptors pass by.
 *
 * A payload travels inline, as a block of shared memory, or as a sealed object among the descriptors; one that neither a
 * frame nor the window of its stream can hold becomes an object here, where the peer takes such. Conversely an object that
 * is only passed on goes inline to a peer that takes none.
 *
 * A large payload is not collected with the rest of a turn: it goes from where it lies, with all that was written before.
 *
 * Answers wait at the head of the queue, calls at its tail: when max_calls stops the first call, it stops all behind it.
 */

#include "proto/peer-internal.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/memfd.h"
#include "proto/envelope.h"

#define LANE_RETRY_US \
        (10 * USEC_PER_MSEC) /* too many descriptors in flight, no memory: no event  \
                          ends that */
#define FEATURES_MAX 64u
#define DIRECT       (32u * 1024u) /* bytes of a payload that is worth a system call of its own rather than a copy */
#define VARINT_MAX   10u
#define PARCEL_REST_MAX                             \
        (2u * (1u + VARINT_MAX) + 2u + VARINT_MAX + \
         6u) /* id, time left, object; tag and length of the list of descriptors */
#define TOO_LARGE    "the call has %llu bytes, the peer accepts frames of %llu and objects of %llu"
#define DISOWNED_MAX 4096u /* descriptors: their ids fit into every frame */
#define ITEM_COST    64u
#define FD_COST      4096u

static void answer_written(Channel *channel) {
        if (channel_sent(channel) >= channel->answers_mark) {
                channel->answers_mark = channel->written;
                channel->n_answers = 0;
        } else {
                channel->n_answers++;
        }
        channel->answers_end = channel->written;
}

/* write_frame() - @head, if any, is the first part of the Envelope, packed before. */
static int write_frame(Peer *peer, Channel *channel, const void *head, size_t head_size, Baton__Envelope *envelope,
                       const void *payload, size_t size) {
        uint8_t packed[ENVELOPE_SHORT];
        size_t envelope_size, short_size;
        uint64_t total;
        uint32_t wire;
        uint8_t *body;
        int r;

        if (channel->fd < 0 || channel->broken)
                return 0; /* nobody reads it: its end will be read */
        if (peer->doomed && envelope->kind != BATON__KIND__CLOSE)
                return 0; /* one that had to go before is missing: nothing may follow */
        envelope->fd_credit = peer->fd_owed ? (uint32_t) MIN(peer->fd_owed, (uint64_t) UINT32_MAX) : 0;
        for (;;) {
                short_size = envelope_pack_short(envelope, packed);
                envelope_size = head_size + (short_size ? short_size : baton__envelope__get_packed_size(envelope));
                total = (uint64_t) ENVELOPE_SIZE_FIELD + envelope_size + size;
                if (total <= peer_max_frame(peer))
                        break;
                if (envelope->fd_credit == 0)
                        return -EMSGSIZE;
                envelope->fd_credit = 0; /* it must not make a frame too large: it can go alone */
        }
        r = frame_writer_reserve(&channel->writer, (uint32_t) total, &body);
        if (r < 0)
                return r;
        channel->written += FRAME_HEADER_SIZE + total;
        peer->fd_owed -= envelope->fd_credit;
        wire = htobe32((uint32_t) envelope_size);
        memcpy(body, &wire, sizeof(wire));
        body += sizeof(wire);
        if (head_size > 0)
                memcpy(body, head, head_size);
        if (short_size > 0)
                memcpy(body + head_size, packed, short_size);
        else
                baton__envelope__pack(envelope, body + head_size);
        channel->had_backlog |= peer_has_backlog(peer, channel); /* also if the payload takes it along */
        if (size >= DIRECT && !channel->stalled) {
                frame_writer_fill(&channel->writer, channel->fd, payload, size);
                channel->stalled = frame_writer_pending(&channel->writer) > 0; /* the flush says what of it is left */
        } else if (size > 0) {
                memcpy(body + envelope_size, payload, size);
        }
        peer_wake(peer);
        return 0;
}

int peer_write(Peer *peer, unsigned n, Baton__Envelope *envelope, const void *payload, size_t size) {
        return write_frame(peer, &peer->channels[n], NULL, 0, envelope, payload, size);
}

/* ---- payloads ---- */

/* A payload on its way, as bytes to be copied, a block that the Envelope lists, or an object. */
typedef struct Outgoing {
        const void *payload;
        size_t size;
        const int *fds; /* as they were given */
        size_t n_given, n_fds;
        PeerBuffer *buffer;
        bool has_block;
        Baton__Block block, *blocks;
        uint64_t object;      /* bytes of the payload, which is the last of n_fds; 0: no object */
        bool is_passed;       /* an object was given */
        MemfdMapping mapping; /* of one that goes inline: see outgoing_load() */
} Outgoing;

/* OUTGOING_GIVEN() - what all kinds of parameters have. */
#define OUTGOING_GIVEN(_outgoing, _parameters)                 \
        do {                                                   \
                (_outgoing)->payload = (_parameters)->payload; \
                (_outgoing)->size = (_parameters)->size;       \
                (_outgoing)->fds = (_parameters)->fds_consume; \
                (_outgoing)->n_given = (_parameters)->n_fds;   \
        } while (0)

/*
 * frame_bound() - how large a frame can become. One with descriptors must be known to fit before they go; what its
 * Envelope still lacks then (id, time left) is taken at its largest.
 */
static uint64_t frame_bound(size_t envelope_size, uint64_t size, size_t n_fds) {
        uint64_t bound = (uint64_t) ENVELOPE_SIZE_FIELD + envelope_size + size;

        return n_fds ? bound + PARCEL_REST_MAX + n_fds * VARINT_MAX : bound;
}

/* fits_inline() - of most payloads that is seen without packing anything. */
static bool fits_inline(const Peer *peer, const Baton__Envelope *envelope, const Outgoing *outgoing) {
        uint64_t max = peer_max_frame(peer);

        return outgoing->size < max / 2 ||
               frame_bound(baton__envelope__get_packed_size(envelope), outgoing->size, outgoing->n_fds + 1) <= max;
}

/* outgoing_choose() - of outgoing_set(), what is not simply bytes that fit a frame. */
static void outgoing_choose(const Peer *peer, Outgoing *outgoing, Baton__Envelope *envelope, PeerBuffer *buffer,
                            uint64_t object, uint64_t most, size_t most_fds) {
        bool can_be_object = object_is_accepted(peer, object ? object : outgoing->size);

        if (object && outgoing->n_given > 0) {
                outgoing->is_passed = true;
                outgoing->size = (size_t) object;
                outgoing->n_fds -= !can_be_object;
                outgoing->object = can_be_object ? object : 0;
                return;
        }
        if (buffer) {
                baton__block__init(&outgoing->block);
                outgoing->buffer = buffer;
                outgoing->has_block =
                        share_use(peer, buffer, envelope->type, &outgoing->block, &outgoing->payload, &outgoing->size);
                can_be_object = object_is_accepted(peer, outgoing->size);
        }
        if (outgoing->has_block) {
                outgoing->blocks = &outgoing->block;
                envelope->blocks = &outgoing->blocks;
                envelope->n_blocks = 1;
        } else if (can_be_object && outgoing->n_given < most_fds &&
                   ((buffer && buffer->fd >= 0) || outgoing->size > most || !fits_inline(peer, envelope, outgoing))) {
                outgoing->object = outgoing->size;
                outgoing->n_fds++;
        }
}

/*
 * outgoing_set() - how the payload, @buffer's if there is one, of @envelope travels; one of more than @most bytes rather
 * not inline, but with at most @most_fds descriptors. @outgoing must live as long as @envelope is used. Nothing to undo;
 * outgoing_load() comes next.
 */
static inline void outgoing_set(const Peer *peer, Outgoing *outgoing, Baton__Envelope *envelope, PeerBuffer *buffer,
                                uint64_t object, uint64_t most, size_t most_fds) {
        outgoing->n_fds = outgoing->n_given;
        outgoing->object = 0;
        outgoing->buffer = NULL;
        outgoing->has_block = outgoing->is_passed = false;
        if (buffer || object || outgoing->size >= peer_max_frame(peer) / 2 || outgoing->size > most)
                outgoing_choose(peer, outgoing, envelope, buffer, object, most, most_fds);
}

/* outgoing_load() - the bytes of an object that the peer does not take as such. 0 or a negative errno. */
static int outgoing_load(Outgoing *outgoing) {
        int r;

        if (!outgoing->is_passed || outgoing->object)
                return 0;
        outgoing->mapping = (MemfdMapping){ 0 };
        r = memfd_map_sealed(outgoing->fds[outgoing->n_given - 1], outgoing->size, &outgoing->mapping);
        if (r < 0)
                return r;
        outgoing->payload = outgoing->mapping.data;
        outgoing->size = outgoing->mapping.size;
        return 0;
}

/* outgoing_done() - with @taken descriptors that were given but do not travel are closed. */
static void outgoing_done(Outgoing *outgoing, bool taken) {
        if (!outgoing->is_passed || outgoing->object)
                return;
        if (taken)
                fd_close(outgoing->fds[outgoing->n_given - 1]);
        memfd_unmap(&outgoing->mapping);
}

/* outgoing_inline() - how many bytes follow the Envelope. */
static size_t outgoing_inline(const Outgoing *outgoing) {
        return outgoing->object ? 0 : outgoing->size;
}

/* outgoing_gave() - the frame is written, or in @parcel. */
static void outgoing_gave(Peer *peer, const Outgoing *outgoing, Parcel *parcel) {
        ArenaBlock block;

        if (!outgoing->has_block)
                return;
        share_give(peer, &outgoing->block, &block);
        if (parcel) {
                parcel->has_block = true;
                parcel->block = block;
        }
}

/* ---- parcels ---- */

static Parcel *parcel_free(Parcel *parcel) {
        fd_close_all(parcel->fds, parcel->n_fds);
        free(parcel->fds);
        free(parcel->ids);
        free(parcel);
        return NULL;
}

/* parcel_allocate() - NULL: no memory. */
static Parcel *parcel_allocate(size_t envelope_size, size_t size, size_t n_fds) {
        Parcel *parcel = malloc(sizeof(*parcel) + envelope_size + size);

        if (!parcel)
                return NULL;
        *parcel = (Parcel){ .envelope_size = envelope_size, .payload_size = size };
        if (n_fds == 0)
                return parcel;
        parcel->fds = calloc(n_fds, sizeof(*parcel->fds));
        parcel->ids = calloc(n_fds, sizeof(*parcel->ids));
        return parcel->fds && parcel->ids ? parcel : parcel_free(parcel);
}

/* parcel_new() - takes the descriptors, and the block, when the result is 0; else a negative errno. */
static int parcel_new(Peer *peer, ParcelKind kind, unsigned channel, const Baton__Envelope *envelope,
                      const Outgoing *outgoing, Parcel **ret_parcel) {
        size_t envelope_size = baton__envelope__get_packed_size(envelope), size = outgoing_inline(outgoing);
        Parcel *parcel = parcel_allocate(envelope_size, size, outgoing->n_fds);
        int r;

        if (!parcel)
                return -ENOMEM;
        if (outgoing->object && !outgoing->is_passed) {
                r = object_make(outgoing->buffer, outgoing->payload, outgoing->size, &parcel->fds[outgoing->n_given]);
                if (r < 0) {
                        (void) parcel_free(parcel);
                        return r;
                }
        }
        parcel->kind = kind;
        parcel->channel = (uint8_t) channel;
        parcel->object = outgoing->object;
        baton__envelope__pack(envelope, parcel->bytes);
        if (size > 0)
                memcpy(parcel->bytes + envelope_size, outgoing->payload, size);
        for (size_t i = 0; i < MIN(outgoing->n_given, outgoing->n_fds); i++)
                parcel->fds[i] = outgoing->fds[i];
        parcel->n_fds = outgoing->n_fds;
        outgoing_gave(peer, outgoing, parcel);
        *ret_parcel = parcel;
        return 0;
}

/* parcel_queue() - calls at the tail, answers behind the answers that wait already and before all calls. */
static void parcel_queue(Peer *peer, Parcel *parcel) {
        Parcel *behind = NULL;

        peer->n_parcels++;
        peer->parcel_bytes += parcel->envelope_size + parcel->payload_size;
        TAILQ_FOREACH (behind, &peer->parcels, link)
                if (behind->kind == PARCEL_CALL)
                        break;
        if (parcel->kind == PARCEL_CALL || !behind)
                TAILQ_INSERT_TAIL(&peer->parcels, parcel, link);
        else
                TAILQ_INSERT_BEFORE(behind, parcel, link);
        peer_wake(peer);
}

Parcel *peer_restore_parcel(Peer *peer, const ParcelParts *parts) {
        Parcel *parcel = parcel_allocate(parts->envelope_size, parts->payload_size, parts->n_fds);

        if (!parcel)
                return NULL;
        parcel->kind = parts->kind;
        parcel->channel = (uint8_t) parts->channel;
        parcel->on_lane = parts->on_lane;
        parcel->call = parts->call;
        parcel->after = parts->after;
        parcel->id = parts->id;
        parcel->mark = parts->mark;
        parcel->object = parts->object;
        parcel->n_fds = parts->n_fds;
        for (size_t i = 0; i < parts->n_fds; i++) {
                parcel->fds[i] = parts->on_lane ? -1 : parts->fds[i];
                parcel->ids[i] = parts->on_lane ? parts->ids[i] : 0;
        }
        if (parts->envelope_size > 0)
                memcpy(parcel->bytes, parts->envelope, parts->envelope_size);
        if (parts->payload_size > 0)
                memcpy(parcel->bytes + parts->envelope_size, parts->payload, parts->payload_size);
        if (parcel->call)
                parcel->call->parcel = parcel;
        peer->n_parcels++;
        peer->parcel_bytes += parcel->envelope_size + parcel->payload_size;
        peer->open_in += parcel->kind == PARCEL_ANSWER;
        peer->lane_calls += parcel->kind == PARCEL_CALL && parcel->on_lane;
        TAILQ_INSERT_TAIL(&peer->parcels, parcel, link);
        return parcel;
}

void peer_drop_parcel(Peer *peer, Parcel *parcel) {
        Parcel *waiting;

        if (parcel->has_block)
                share_revoke(peer, &parcel->block);
        TAILQ_REMOVE(&peer->parcels, parcel, link);
        peer->n_parcels--;
        peer->parcel_bytes -= parcel->envelope_size + parcel->payload_size;
        if (parcel->call)
                parcel->call->parcel = NULL;
        if (parcel->kind == PARCEL_ANSWER)
                peer->open_in--;
        if (parcel->kind == PARCEL_CALL && parcel->on_lane)
                peer->lane_calls--;
        if (parcel->kind == PARCEL_ITEM)
                TAILQ_FOREACH (waiting, &peer->parcels, link)
                        if (waiting->after == parcel)
                                waiting->after = NULL;
        (void) parcel_free(parcel);
}

/* parcel_to_object() - a payload that is too large for a frame, which was not known before Hello. 0 or a negative errno. */
static int parcel_to_object(Peer *peer, Parcel *parcel) {
        size_t n = parcel->n_fds + 1;
        int *fds = realloc(parcel->fds, n * sizeof(*fds));
        uint64_t *ids = realloc(parcel->ids, n * sizeof(*ids));
        int r = fds && ids ? 0 : -ENOMEM;

        parcel->fds = fds ? fds : parcel->fds;
        parcel->ids = ids ? ids : parcel->ids;
        if (r == 0)
                r = object_make(NULL, parcel->bytes + parcel->envelope_size, parcel->payload_size,
                                &fds[parcel->n_fds]);
        if (r < 0)
                return r;
        parcel->n_fds = n;
        parcel->object = parcel->payload_size;
        peer->parcel_bytes -= parcel->payload_size;
        parcel->payload_size = 0;
        return 0;
}

/* parcel_fits() - whether the peer ever takes it. */
static bool parcel_fits(const Peer *peer, const Parcel *parcel) {
        return frame_bound(parcel->envelope_size, parcel->payload_size, parcel->n_fds) <= peer->remote.max_frame &&
               (parcel->object == 0 || object_is_accepted(peer, parcel->object));
}

/* parcel_check() - what no waiting will mend; told to the caller. Answers were checked when they were given. */
static bool parcel_check(Peer *peer, Parcel *parcel) {
        uint64_t size = parcel->object ? parcel->object : parcel->payload_size;

        if (parcel->kind != PARCEL_CALL)
                return true;
        if (!parcel_fits(peer, parcel) && parcel->object == 0 && object_is_accepted(peer, size) &&
            parcel->n_fds < peer->remote.fd_credit && parcel_to_object(peer, parcel) < 0) {
                call_fail_local(parcel->call, STATUS_RESOURCE_EXHAUSTED, "no memory for an object of %llu bytes",
                                (unsigned long long) size);
                return false;
        }
        if (!parcel_fits(peer, parcel))
                call_fail_local(parcel->call, STATUS_RESOURCE_EXHAUSTED, TOO_LARGE, (unsigned long long) size,
                                (unsigned long long) peer->remote.max_frame,
                                (unsigned long long) peer->remote.max_object);
        else if (parcel->n_fds > peer->remote.fd_credit)
                call_fail_local(parcel->call, STATUS_RESOURCE_EXHAUSTED,
                                "the call has %zu descriptors, the peer accepts %u at once", parcel->n_fds,
                                peer->remote.fd_credit);
        else
                return true;
        return false;
}

static void flush_lane(Peer *peer) {
        int r = lane_flush(&peer->lane);

        peer->lane_stalled = r == -EAGAIN;
        peer->lane_retry = r == -ETOOMANYREFS || r == -ENOBUFS || r == -ENOMEM
                                   ? clock_after(clock_now(), LANE_RETRY_US)
                                   : USEC_INFINITY;
        peer_update_watch(peer, PEER_LANE);
}

/*
 * note_fds() - that those of @parcel go before a frame of channel 1 or 2. Kept are the last so many as can be without
 * credit, all the others have been read. 0 or -ENOMEM.
 */
static int note_fds(const Peer *peer, Channel *channel, const Parcel *parcel) {
        uint32_t max = MIN(peer->remote.fd_credit, DISOWNED_MAX), n = (uint32_t) MIN(parcel->n_fds, (size_t) max);
        uint32_t needed = MIN(channel->n_sent_fds + n, max), surplus = channel->n_sent_fds + n - needed;
        uint64_t *ids = channel->sent_fds;

        if (needed > channel->size_sent_fds) {
                ids = realloc(ids, needed * sizeof(*ids));
                if (!ids)
                        return -ENOMEM;
                channel->sent_fds = ids;
                channel->size_sent_fds = needed;
        }
        if (surplus > 0)
                memmove(ids, ids + surplus, (channel->n_sent_fds - surplus) * sizeof(*ids));
        memcpy(ids + needed - n, parcel->ids + parcel->n_fds - n, n * sizeof(*ids));
        channel->n_sent_fds = needed;
        return 0;
}

/*
 * What was listed in frames that nobody read stays unclaimed over there, and its credit is gone. Which of them that is we
 * do not know; so all are listed again, where the receiver closes what it still has and returns the credit, and takes no
 * notice of the others. It goes when the kernel has taken them all.
 */
void peer_disown_fds(Peer *peer, unsigned n) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        const Channel *channel = &peer->channels[n];
        Parcel *parcel;

        if (channel->n_sent_fds == 0)
                return;
        envelope.kind = BATON__KIND__CREDIT;
        parcel = parcel_allocate(baton__envelope__get_packed_size(&envelope), 0, channel->n_sent_fds);
        if (!parcel) {
                peer_doom(peer);
                return;
        }
        baton__envelope__pack(&envelope, parcel->bytes);
        parcel->kind = PARCEL_ITEM; /* of no call */
        parcel->channel = CHANNEL_RPC;
        parcel->n_fds = channel->n_sent_fds;
        memcpy(parcel->ids, channel->sent_fds, parcel->n_fds * sizeof(*parcel->ids));
        for (size_t i = 0; i < parcel->n_fds; i++)
                parcel->fds[i] = -1; /* they are gone */
        parcel->on_lane = true;
        parcel->mark = lane_mark(&peer->lane);
        parcel_queue(peer, parcel);
}

/* parcel_to_lane() - gives the descriptors to the lane, all or none. */
static int parcel_to_lane(Peer *peer, Parcel *parcel) {
        int r = 0;

        for (size_t i = 0; i < parcel->n_fds && r == 0; i++)
                r = lane_allocate(&peer->lane, &parcel->ids[i]);
        if (r < 0) {
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "all descriptor ids of this epoch are used up");
                return r;
        }
        peer->fd_credit -= parcel->n_fds;
        parcel->on_lane = true;
        peer->lane_calls += parcel->kind == PARCEL_CALL;
        for (size_t i = 0; i < parcel->n_fds && r == 0; i++)
                r = lane_queue(&peer->lane, parcel->ids[i], fd_take(&parcel->fds[i]));
        if (r == 0 && parcel->channel != CHANNEL_RPC)
                r = note_fds(peer, &peer->channels[parcel->channel], parcel);
        parcel->mark = lane_mark(&peer->lane);
        if (r < 0)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "out of memory while sending descriptors");
        return r;
}

/* call_number() - the CALL gets its id now, and the time it has left. */
static void call_number(Call *call, Channel *channel, Baton__Envelope *rest) {
        uint64_t now = call->deadline == USEC_INFINITY ? 0 : clock_now();

        rest->id = channel->next_out;
        if (call->deadline != USEC_INFINITY)
                rest->timeout_us = call->deadline > now ? call->deadline - now : 1;
        call_open(call->peer, call, rest->id);
}

/* call_written() - with the CALL out, what came to wait behind it may follow,
 * or its cancellation. */
static void call_written(Peer *peer, Call *call) {
        if (call->outgoing && (call->failed || !call->done))
                peer_send_cancel(peer, call);
        else
                stream_written(call);
}

/* parcel_write() - the frame, now that its descriptors are on their way. The parcel is gone. */
static void parcel_write(Peer *peer, Parcel *parcel) {
        Baton__Envelope rest = BATON__ENVELOPE__INIT;
        Channel *channel = &peer->channels[parcel->channel];
        bool is_call = parcel->kind == PARCEL_CALL, must = !is_call || parcel->on_lane;
        Call *call = parcel->call;
        int r;

        rest.id = parcel->id;
        rest.fds = parcel->ids;
        rest.n_fds = parcel->n_fds;
        rest.object = parcel->object;
        if (is_call)
                call_number(call, channel, &rest);
        r = write_frame(peer, channel, parcel->bytes, parcel->envelope_size, &rest,
                        parcel->bytes + parcel->envelope_size, parcel->payload_size);
        if (r == 0 && parcel->kind == PARCEL_ANSWER)
                answer_written(channel);
        parcel->has_block &= r < 0;
        peer_drop_parcel(peer, parcel);
        if (r == 0) {
                if (is_call)
                        channel->next_out += 2;
                if (call)
                        call_written(peer, call);
                return;
        }
        if (is_call) {
                call_close(call);
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED, "the call could not be written: %s", strerror(-r));
                call_release(call);
        }
        if (must)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "no memory for a frame that must be sent");
}

/* may_open() - whether the peer accepts one more call. */
static bool may_open(const Peer *peer) {
        return (uint64_t) peer->open_out + peer->lane_calls < peer->remote.max_calls;
}

/* parcel_may_go() - whether nothing but the lane holds it back. @stop: nothing behind it may begin either. */
static bool parcel_may_go(Peer *peer, const Parcel *parcel, bool *credit_short, bool *stop) {
        const Channel *channel = &peer->channels[parcel->channel];

        if (parcel->on_lane)
                return lane_sent(&peer->lane, parcel->mark);
        if (parcel->after)
                return false;
        *stop |= parcel->kind == PARCEL_CALL && !may_open(peer);
        if (*stop)
                return false;
        if (channel->use != CHANNEL_FRAMED || peer_has_backlog(peer, channel))
                return false;
        if (parcel->n_fds == 0)
                return true;
        *credit_short |= parcel->n_fds > peer->fd_credit;
        return !*credit_short && peer->lane.fd >= 0;
}

/* parcel_advance() - one step for one parcel; it may be gone afterwards. */
static void parcel_advance(Peer *peer, Parcel *parcel) {
        if (!parcel->on_lane && parcel->n_fds > 0) {
                if (parcel_to_lane(peer, parcel) < 0)
                        return;
                flush_lane(peer);
                if (!lane_sent(&peer->lane, parcel->mark))
                        return;
        }
        parcel_write(peer, parcel);
}

void peer_pump(Peer *peer) {
        bool credit_short = false, stop = false;
        Parcel *parcel, *next;

        if (peer->lane.fd >= 0 && !STAILQ_EMPTY(&peer->lane.outgoing) && !peer->lane_stalled &&
            (peer->lane_retry == USEC_INFINITY || clock_now() >= peer->lane_retry))
                flush_lane(peer);
        if (peer->state != PEER_STATE_READY)
                return;
        /* Behind a call that must wait for another's end, only those go on whose descriptors have gone before. */
        for (parcel = TAILQ_FIRST(&peer->parcels);
             parcel && (!stop || peer->lane_calls > 0) && peer->state == PEER_STATE_READY; parcel = next) {
                next = TAILQ_NEXT(parcel, link);
                if (!parcel->on_lane && !parcel_check(peer, parcel))
                        continue;
                if (parcel_may_go(peer, parcel, &credit_short, &stop))
                        parcel_advance(peer, parcel);
        }
}

/* ---- what is sent ---- */

void peer_send_hello(Peer *peer) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Baton__Hello hello = BATON__HELLO__INIT;
        char *features[FEATURES_MAX + 1];

        hello.protocol_min = PROTOCOL_MIN;
        hello.protocol_max = PROTOCOL_MAX;
        hello.max_frame = peer->limits.max_frame;
        hello.max_calls = peer->limits.max_calls;
        hello.fd_credit = peer->limits.fd_credit;
        hello.stream_window = peer->limits.stream_window;
        hello.features = features;
        for (; peer->features && peer->features[hello.n_features] && hello.n_features < FEATURES_MAX;
             hello.n_features++)
                features[hello.n_features] = (char *) peer->features[hello.n_features];
        if (peer->offers_share)
                features[hello.n_features++] = (char *) SHARE_FEATURE;
        hello.software = peer->software;
        hello.instance = peer->instance;
        hello.service_state = peer->service_state;
        hello.last_event = peer->last_event;
        hello.max_object = peer->objects_use == PEER_OBJECTS_NONE ? 0 : peer->limits.max_object;
        envelope.kind = BATON__KIND__HELLO;
        envelope.hello = &hello;
        if (peer_write(peer, CHANNEL_RPC, &envelope, NULL, 0) < 0)
                peer_doom(peer);
}

static bool may_write_now(const Peer *peer, const Channel *channel) {
        return peer->state == PEER_STATE_READY && channel->use == CHANNEL_FRAMED && may_open(peer) &&
               !peer_has_backlog(peer, channel);
}

static int write_call(Peer *peer, Call *call, Baton__Envelope *envelope, uint64_t timeout_us,
                      const Outgoing *outgoing) {
        Channel *channel = &peer->channels[call->channel];
        int r;

        envelope->id = channel->next_out;
        envelope->timeout_us = timeout_us;
        call_open(peer, call, envelope->id);
        r = write_frame(peer, channel, NULL, 0, envelope, outgoing->payload, outgoing->size);
        if (r == 0) {
                channel->next_out += 2;
                outgoing_gave(peer, outgoing, NULL);
                return 0;
        }
        call_close(call);
        if (r != -EMSGSIZE)
                return r;
        call_fail_local(call, STATUS_RESOURCE_EXHAUSTED, TOO_LARGE, (unsigned long long) outgoing->size,
                        (unsigned long long) peer_max_frame(peer), (unsigned long long) peer->remote.max_object);
        return 0;
}

/* cannot_wait() - whether the call fails at once, which is told then. */
static bool cannot_wait(Peer *peer, Call *call, size_t size, bool needed) {
        if (peer->channels[call->channel].lost)
                call_fail_local(call, STATUS_UNAVAILABLE, "the peer has closed the channel");
        else if (needed)
                return false;
        else if (peer->n_parcels >= peer->limits.max_waiting)
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED,
                                "%zu calls wait for the peer already, at most %zu may", peer->n_parcels,
                                peer->limits.max_waiting);
        else if (size > peer->limits.max_waiting_bytes || peer->parcel_bytes > peer->limits.max_waiting_bytes - size)
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED,
                                "%llu bytes wait for the peer already; with the %llu of this call they are more than "
                                "the %llu that may",
                                (unsigned long long) peer->parcel_bytes, (unsigned long long) size,
                                (unsigned long long) peer->limits.max_waiting_bytes);
        return call->failed;
}

/* queue_call() - 0, also where the call has failed instead; or a negative errno. */
static int queue_call(Peer *peer, Call *call, const Baton__Envelope *envelope, const Outgoing *outgoing, bool needed) {
        Parcel *parcel;
        int r;

        if (cannot_wait(peer, call, outgoing_inline(outgoing), needed)) {
                for (size_t i = 0; i < MIN(outgoing->n_fds, outgoing->n_given); i++)
                        fd_close(outgoing->fds[i]);
                return 0;
        }
        r = parcel_new(peer, PARCEL_CALL, call->channel, envelope, outgoing, &parcel);
        if (r < 0)
                return r;
        parcel->call = call;
        call->parcel = parcel;
        parcel_queue(peer, parcel);
        return 0;
}

int peer_send_call(Peer *peer, Call *call, const CallParameters *parameters) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Outgoing outgoing;
        int r;

        envelope.kind = BATON__KIND__CALL;
        envelope.method = (char *) parameters->method;
        envelope.type = (char *) (parameters->type ? parameters->type : "");
        envelope.metadata = (Baton__Pair **) parameters->metadata;
        envelope.n_metadata = parameters->n_metadata;
        envelope.end = !parameters->stream;
        OUTGOING_GIVEN(&outgoing, parameters);
        outgoing_set(peer, &outgoing, &envelope, parameters->buffer, parameters->object, UINT64_MAX,
                     peer->remote.fd_credit);
        r = outgoing_load(&outgoing);
        if (r == 0 && outgoing.n_fds == 0 && may_write_now(peer, &peer->channels[call->channel]))
                r = write_call(peer, call, &envelope, parameters->timeout_us, &outgoing);
        else if (r == 0)
                r = queue_call(peer, call, &envelope, &outgoing, parameters->needed);
        outgoing_done(&outgoing, r == 0);
        return r;
}

/* queue_frame() - an answer or an item, which wait for descriptors or for each other. */
static int queue_frame(Peer *peer, ParcelKind kind, unsigned channel, uint64_t id, const Baton__Envelope *envelope,
                       const Outgoing *outgoing, Parcel **ret_parcel) {
        int r;

        if (outgoing->n_fds > peer->remote.fd_credit ||
            frame_bound(baton__envelope__get_packed_size(envelope), outgoing_inline(outgoing), outgoing->n_fds) >
                    peer->remote.max_frame)
                return -EMSGSIZE;
        r = parcel_new(peer, kind, channel, envelope, outgoing, ret_parcel);
        if (r < 0)
                return r;
        (*ret_parcel)->id = id;
        return 0;
}

static int write_answer(Peer *peer, unsigned channel, uint64_t id, Baton__Envelope *envelope,
                        const Outgoing *outgoing) {
        int r;

        envelope->id = id;
        r = peer_write(peer, channel, envelope, outgoing->payload, outgoing->size);
        if (r < 0)
                return r;
        outgoing_gave(peer, outgoing, NULL);
        answer_written(&peer->channels[channel]);
        return 0;
}

int peer_send_answer(Peer *peer, unsigned channel, uint64_t id, Parcel *after, const AnswerParameters *parameters,
                     bool *ret_deferred) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Outgoing outgoing;
        Parcel *parcel = NULL;
        int r;

        envelope.kind = BATON__KIND__ANSWER;
        envelope.status = parameters->status;
        envelope.message = (char *) (parameters->message ? parameters->message : "");
        envelope.type = (char *) (parameters->type ? parameters->type : "");
        envelope.details = (Baton__Detail **) parameters->details;
        envelope.n_details = parameters->n_details;
        envelope.metadata = (Baton__Pair **) parameters->metadata;
        envelope.n_metadata = parameters->n_metadata;
        OUTGOING_GIVEN(&outgoing, parameters);
        outgoing_set(peer, &outgoing, &envelope, parameters->buffer, parameters->object, UINT64_MAX,
                     peer->remote.fd_credit);
        r = outgoing_load(&outgoing);
        if (r == 0 && outgoing.n_fds == 0 && !after)
                r = write_answer(peer, channel, id, &envelope, &outgoing);
        else if (r == 0)
                r = queue_frame(peer, PARCEL_ANSWER, channel, id, &envelope, &outgoing, &parcel);
        if (parcel) {
                parcel->after = after;
                parcel_queue(peer, parcel);
        }
        *ret_deferred = parcel;
        outgoing_done(&outgoing, r == 0);
        return r;
}

/* item_set() - what the window cannot hold is rather no inline payload. */
static void item_set(const Call *call, Outgoing *outgoing, Baton__Envelope *envelope,
                     const ItemParameters *parameters) {
        uint64_t fixed = ITEM_COST + (uint64_t) FD_COST * parameters->n_fds, window = call->peer->remote.stream_window;

        OUTGOING_GIVEN(outgoing, parameters);
        outgoing_set(call->peer, outgoing, envelope, parameters->buffer, parameters->object,
                     window > fixed ? window - fixed : 0,
                     MIN(call->peer->remote.fd_credit, window > ITEM_COST ? (window - ITEM_COST) / FD_COST : 0));
}

void peer_weigh_item(const Call *call, const ItemParameters *parameters, uint64_t *ret_size, size_t *ret_n_fds) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Outgoing outgoing;

        envelope.type = (char *) (parameters->type ? parameters->type : "");
        item_set(call, &outgoing, &envelope, parameters);
        *ret_size = outgoing_inline(&outgoing);
        *ret_n_fds = outgoing.n_fds;
}

int peer_send_item(Call *call, Baton__Envelope *envelope, const ItemParameters *parameters) {
        Outgoing outgoing;
        Peer *peer = call->peer;
        Parcel *parcel = NULL;
        int r;

        item_set(call, &outgoing, envelope, parameters);
        r = outgoing_load(&outgoing);
        if (r == 0 && outgoing.n_fds == 0) {
                envelope->id = call->id;
                r = peer_write(peer, call->channel, envelope, outgoing.payload, outgoing.size);
                if (r == 0)
                        outgoing_gave(peer, &outgoing, NULL);
        } else if (r == 0) {
                r = queue_frame(peer, PARCEL_ITEM, call->channel, call->id, envelope, &outgoing, &parcel);
        }
        if (parcel) {
                parcel->call = call;
                call->parcel = parcel;
                parcel_queue(peer, parcel);
        }
        outgoing_done(&outgoing, r == 0);
        return r;
}

void peer_send_cancel(Peer *peer, Call *call) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        if (call->cancel_sent || !call->open || peer->state != PEER_STATE_READY)
                return;
        call->cancel_sent = true;
        envelope.kind = BATON__KIND__CANCEL;
        envelope.id = call->id;
        (void) peer_write(peer, call->channel, &envelope, NULL, 0); /* lost: the answer comes and is late */
}

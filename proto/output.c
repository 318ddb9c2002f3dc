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
#include "proto/envelope.h"

#define LANE_RETRY_US \
        (10 * USEC_PER_MSEC) /* too many descriptors in flight, no memory: no event  \
                          ends that */
#define FEATURES_MAX    64u
#define DIRECT          (32u * 1024u) /* bytes of a payload that is worth a system call of its own rather than a copy */
#define VARINT_MAX      10u
#define PARCEL_REST_MAX (2u * (1u + VARINT_MAX) + 6u) /* id and time left; tag and length of the list of descriptors */
#define WAITING_BYTES   (64u * 1024u * 1024u)         /* of parcels; beyond it calls fail at once */

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

/* ---- parcels ---- */

static Parcel *parcel_new(unsigned channel, const Baton__Envelope *envelope, const void *payload, size_t size,
                          size_t n_fds) {
        size_t envelope_size = baton__envelope__get_packed_size(envelope);
        Parcel *parcel = malloc(sizeof(*parcel) + envelope_size + size);

        if (!parcel)
                return NULL;
        *parcel = (Parcel){ .channel = (uint8_t) channel, .envelope_size = envelope_size, .payload_size = size };
        if (n_fds > 0) {
                parcel->fds = calloc(n_fds, sizeof(*parcel->fds));
                parcel->ids = calloc(n_fds, sizeof(*parcel->ids));
                if (!parcel->fds || !parcel->ids) {
                        free(parcel->fds);
                        free(parcel->ids);
                        free(parcel);
                        return NULL;
                }
        }
        baton__envelope__pack(envelope, parcel->bytes);
        if (size > 0)
                memcpy(parcel->bytes + envelope_size, payload, size);
        return parcel;
}

/* parcel_queue() - calls at the tail, answers behind the answers that wait already and before all calls. */
static void parcel_queue(Peer *peer, Parcel *parcel, const int *fds_consume, size_t n_fds) {
        Parcel *behind = NULL;

        for (size_t i = 0; i < n_fds; i++)
                parcel->fds[i] = fds_consume[i];
        parcel->n_fds = n_fds;
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
        fd_close_all(parcel->fds, parcel->n_fds);
        free(parcel->fds);
        free(parcel->ids);
        free(parcel);
}

/*
 * frame_bound() - how large a frame can become. One with descriptors must be known to fit before they go; what its
 * Envelope still lacks then (id, time left) is taken at its largest.
 */
static uint64_t frame_bound(size_t envelope_size, size_t size, size_t n_fds) {
        uint64_t bound = (uint64_t) ENVELOPE_SIZE_FIELD + envelope_size + size;

        return n_fds ? bound + PARCEL_REST_MAX + n_fds * VARINT_MAX : bound;
}

/* parcel_check() - what no waiting will mend; told to the caller. Answers were checked when they were given. */
static bool parcel_check(Peer *peer, Parcel *parcel) {
        uint64_t total = frame_bound(parcel->envelope_size, parcel->payload_size, parcel->n_fds);

        if (parcel->kind != PARCEL_CALL ||
            (total <= peer->remote.max_frame && parcel->n_fds <= peer->remote.fd_credit))
                return true;
        if (total > peer->remote.max_frame)
                call_fail_local(parcel->call, STATUS_RESOURCE_EXHAUSTED,
                                "the call has %llu bytes, the peer accepts %llu", (unsigned long long) total,
                                (unsigned long long) peer->remote.max_frame);
        else
                call_fail_local(parcel->call, STATUS_RESOURCE_EXHAUSTED,
                                "the call has %zu descriptors, the peer accepts %u at once", parcel->n_fds,
                                peer->remote.fd_credit);
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
        envelope.kind = BATON__KIND__HELLO;
        envelope.hello = &hello;
        if (peer_write(peer, CHANNEL_RPC, &envelope, NULL, 0) < 0)
                peer_doom(peer);
}

static bool may_write_now(const Peer *peer, const Channel *channel) {
        return peer->state == PEER_STATE_READY && channel->use == CHANNEL_FRAMED && may_open(peer) &&
               !peer_has_backlog(peer, channel);
}

/* A payload on its way: bytes to be copied, or a block that the Envelope lists. */
typedef struct Outgoing {
        const void *payload;
        size_t size;
        bool has_block;
        Baton__Block block, *blocks;
} Outgoing;

/* outgoing_set() - the payload of @envelope, by @buffer if there is one. @outgoing must live as long as @envelope is used. */
static void outgoing_set(Peer *peer, Outgoing *outgoing, Baton__Envelope *envelope, const void *payload, size_t size,
                         const PeerBuffer *buffer) {
        outgoing->payload = payload;
        outgoing->size = size;
        outgoing->has_block = false;
        if (!buffer)
                return;
        baton__block__init(&outgoing->block);
        outgoing->has_block =
                share_use(peer, buffer, envelope->type, &outgoing->block, &outgoing->payload, &outgoing->size);
        if (outgoing->has_block) {
                outgoing->blocks = &outgoing->block;
                envelope->blocks = &outgoing->blocks;
                envelope->n_blocks = 1;
        }
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

static int write_call(Peer *peer, Call *call, Baton__Envelope *envelope, const CallParameters *parameters,
                      const Outgoing *outgoing) {
        Channel *channel = &peer->channels[call->channel];
        int r;

        envelope->id = channel->next_out;
        envelope->timeout_us = parameters->timeout_us;
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
        call_fail_local(call, STATUS_RESOURCE_EXHAUSTED, "the call has %zu bytes, the peer accepts frames of %llu",
                        outgoing->size, (unsigned long long) peer_max_frame(peer));
        return 0;
}

/* cannot_wait() - whether the call fails at once, which is told then. */
static bool cannot_wait(Peer *peer, Call *call, const CallParameters *parameters) {
        if (peer->channels[call->channel].lost)
                call_fail_local(call, STATUS_UNAVAILABLE, "the peer has closed the channel");
        else if (peer->n_parcels >= peer->limits.max_waiting || peer->parcel_bytes + parameters->size > WAITING_BYTES)
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED,
                                "%zu calls wait for the peer already, at most %zu may", peer->n_parcels,
                                peer->limits.max_waiting);
        return call->failed;
}

int peer_send_call(Peer *peer, Call *call, const CallParameters *parameters) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Outgoing outgoing;
        Parcel *parcel;

        envelope.kind = BATON__KIND__CALL;
        envelope.method = (char *) parameters->method;
        envelope.type = (char *) (parameters->type ? parameters->type : "");
        envelope.metadata = (Baton__Pair **) parameters->metadata;
        envelope.n_metadata = parameters->n_metadata;
        envelope.end = !parameters->stream;
        outgoing_set(peer, &outgoing, &envelope, parameters->payload, parameters->size, parameters->buffer);
        if (parameters->n_fds == 0 && may_write_now(peer, &peer->channels[call->channel]))
                return write_call(peer, call, &envelope, parameters, &outgoing);

        if (cannot_wait(peer, call, parameters)) {
                for (size_t i = 0; i < parameters->n_fds; i++)
                        fd_close(parameters->fds_consume[i]);
                return 0;
        }
        parcel = parcel_new(call->channel, &envelope, outgoing.payload, outgoing.size, parameters->n_fds);
        if (!parcel)
                return -ENOMEM;
        parcel->kind = PARCEL_CALL;
        parcel->call = call;
        call->parcel = parcel;
        outgoing_gave(peer, &outgoing, parcel);
        parcel_queue(peer, parcel, parameters->fds_consume, parameters->n_fds);
        return 0;
}

int peer_send_answer(Peer *peer, unsigned channel, uint64_t id, Parcel *after, const AnswerParameters *parameters,
                     bool *ret_deferred) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Outgoing outgoing;
        Parcel *parcel;
        int r;

        envelope.kind = BATON__KIND__ANSWER;
        envelope.status = parameters->status;
        envelope.message = (char *) (parameters->message ? parameters->message : "");
        envelope.type = (char *) (parameters->type ? parameters->type : "");
        envelope.details = (Baton__Detail **) parameters->details;
        envelope.n_details = parameters->n_details;
        envelope.metadata = (Baton__Pair **) parameters->metadata;
        envelope.n_metadata = parameters->n_metadata;
        outgoing_set(peer, &outgoing, &envelope, parameters->payload, parameters->size, parameters->buffer);
        if (parameters->n_fds == 0 && !after) {
                envelope.id = id;
                r = peer_write(peer, channel, &envelope, outgoing.payload, outgoing.size);
                if (r < 0)
                        return r;
                outgoing_gave(peer, &outgoing, NULL);
                answer_written(&peer->channels[channel]);
                *ret_deferred = false;
                return 0;
        }
        if (parameters->n_fds > peer->remote.fd_credit ||
            frame_bound(baton__envelope__get_packed_size(&envelope), outgoing.size, parameters->n_fds) >
                    peer->remote.max_frame)
                return -EMSGSIZE;
        parcel = parcel_new(channel, &envelope, outgoing.payload, outgoing.size, parameters->n_fds);
        if (!parcel)
                return -ENOMEM;
        outgoing_gave(peer, &outgoing, parcel);
        parcel->kind = PARCEL_ANSWER;
        parcel->after = after;
        parcel->id = id;
        parcel_queue(peer, parcel, parameters->fds_consume, parameters->n_fds);
        *ret_deferred = true;
        return 0;
}

int peer_send_item(Call *call, Baton__Envelope *envelope, const ItemParameters *parameters) {
        Peer *peer = call->peer;
        Outgoing outgoing;
        Parcel *parcel;

        outgoing_set(peer, &outgoing, envelope, parameters->payload, parameters->size, parameters->buffer);
        if (parameters->n_fds == 0) {
                int r;

                envelope->id = call->id;
                r = peer_write(peer, call->channel, envelope, outgoing.payload, outgoing.size);
                if (r == 0)
                        outgoing_gave(peer, &outgoing, NULL);
                return r;
        }
        if (parameters->n_fds > peer->remote.fd_credit ||
            frame_bound(baton__envelope__get_packed_size(envelope), outgoing.size, parameters->n_fds) >
                    peer->remote.max_frame)
                return -EMSGSIZE;
        parcel = parcel_new(call->channel, envelope, outgoing.payload, outgoing.size, parameters->n_fds);
        if (!parcel)
                return -ENOMEM;
        outgoing_gave(peer, &outgoing, parcel);
        parcel->kind = PARCEL_ITEM;
        parcel->id = call->id;
        parcel->call = call;
        call->parcel = parcel;
        parcel_queue(peer, parcel, parameters->fds_consume, parameters->n_fds);
        return 0;
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

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Frames in. Everything here is a peer's and may be anything. What spoils one call ends that call; what leaves the two
 * sides disagreeing about the stream, the ids or the credit ends the peer; what merely came too late is dropped and
 * counted. Nothing ends the process.
 *
 * Who discards a frame closes its descriptors and returns its credit: descriptors are claimed before anything else is
 * judged, and every path below owns them in `Frame` until somebody takes them.
 */

#include "proto/peer-internal.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/clock.h"
#include "proto/envelope.h"

#define READS_PER_TURN 4 /* a peer's share of a loop turn; what is left comes back with the next */

typedef struct Frame {
        unsigned channel;
        Baton__Envelope *envelope;
        const uint8_t *body, *payload;
        size_t length, envelope_size, size;
        int *fds;
        size_t n_fds;
        ArenaView view;    /* the payload, where it is a block */
        Status fault;      /* of its payload in a block or an object: why is in peer->fault; OK: none */
        bool absent, lost; /* a listed descriptor is not there; one was lost to our own limit */
} Frame;

static void frame_discard(Frame *frame) {
        arena_view_release(&frame->view);
        if (frame->fds)
                fd_close_all(frame->fds, frame->n_fds);
        free(TAKE_PTR(frame->fds));
        frame->n_fds = 0;
}

/* frame_claim() - takes the listed descriptors off the lane and owes their credit. -ENOMEM: the peer has ended. */
static int frame_claim(Peer *peer, Frame *frame) {
        const Baton__Envelope *envelope = frame->envelope;

        if (envelope->n_fds == 0)
                return 0;
        frame->fds = malloc(envelope->n_fds * sizeof(int));
        if (!frame->fds) {
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "out of memory for %zu descriptors", envelope->n_fds);
                return -ENOMEM;
        }
        if (!peer->renewing)
                peer_drain_lane(peer);
        if (peer->state == PEER_STATE_ENDED) {
                frame_discard(frame);
                return -ESHUTDOWN;
        }
        for (frame->n_fds = 0; frame->n_fds < envelope->n_fds; frame->n_fds++) {
                int r, fd = -1;

                r = lane_claim(&peer->lane, envelope->fds[frame->n_fds], &fd);
                frame->fds[frame->n_fds] = fd;
                frame->absent |= r == -ENOENT;
                frame->lost |= r == -EMFILE;
                peer->counters.lost_fds += r == -EMFILE;
                peer->fd_owed += r != -ENOENT;
        }
        if (peer->fd_owed > 0)
                peer_wake(peer);
        return 0;
}

/* frame_look() - a payload that lies in a mapping. */
static void frame_look(Frame *frame) {
        if (!frame->view.mapping)
                return;
        frame->payload = frame->view.memory;
        frame->size = frame->view.size;
}

static bool may_have_object(Baton__Kind kind) {
        return kind == BATON__KIND__CALL || kind == BATON__KIND__ITEM || kind == BATON__KIND__ANSWER;
}

/* frame_claim_object() - after the blocks: a frame has one of both. */
static void frame_claim_object(Peer *peer, Frame *frame) {
        const Baton__Envelope *envelope = frame->envelope;

        if (envelope->object == 0 || !may_have_object(envelope->kind) || frame->absent || frame->lost)
                return;
        frame->fault = object_claim(peer, envelope, frame->fds, &frame->n_fds, frame->size, &frame->view);
        frame_look(frame);
}

/* frame_claim_blocks() - False: the peer has ended. */
static bool frame_claim_blocks(Peer *peer, Frame *frame) {
        int r;

        if (frame->envelope->n_blocks == 0)
                return true;
        if (!peer->share) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a block, although shared memory was not agreed");
                return false;
        }
        r = share_claim(peer, frame->envelope, frame->size == 0, &frame->view);
        if (r == -ENOMEM) { /* else a block would never go back */
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "out of memory for a block");
                return false;
        }
        if (r < 0) {
                frame->fault = STATUS_INVALID_ARGUMENT;
                (void) snprintf(peer->fault, sizeof(peer->fault), "a block: %s", arena_error(r));
        }
        frame_look(frame);
        return true;
}

static ArenaView *frame_shared(Frame *frame) {
        return frame->view.mapping ? &frame->view : NULL;
}

/* ---- kinds ---- */

static void on_hello(Peer *peer, Frame *frame) {
        if (!frame->envelope->hello)
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a HELLO frame without a Hello");
        else if (peer->state != PEER_STATE_HELLO || frame->channel != CHANNEL_RPC)
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a second Hello");
        else
                peer_hello_received(peer, frame->envelope->hello);
}

/* may_be_opened() - whether a CALL has an id that is due, and a place. False: the peer has ended. */
static bool may_be_opened(Peer *peer, const Frame *frame) {
        const Channel *channel = &peer->channels[frame->channel];
        unsigned long long id = frame->envelope->id;

        if (id < 2) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "CALL %llu: ids begin with 2", id);
                return false;
        }
        if ((id & 1) == peer->side) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "CALL %llu has an id of the other side", id);
                return false;
        }
        if (id <= channel->last_in) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "CALL %llu after CALL %llu", id,
                         (unsigned long long) channel->last_in);
                return false;
        }
        if ((uint64_t) peer->open_in + channel_unsent_answers(channel) >= peer->limits.max_calls) {
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "CALL %llu is one more than the %u that may be open",
                         id, peer->limits.max_calls);
                return false;
        }
        return true;
}

/* has_method() - that a CALL names one of a length that is accepted. No short Envelope holds a long name. */
static bool has_method(const Frame *frame) {
        const char *method = frame->envelope->method;

        return *method && (frame->envelope_size <= METHOD_MAX || strlen(method) <= METHOD_MAX);
}

static void on_call(Peer *peer, Frame *frame) {
        Channel *channel = &peer->channels[frame->channel];
        const Baton__Envelope *envelope = frame->envelope;
        size_t unsent = frame_writer_pending(&channel->writer);
        uint64_t id = envelope->id;

        if (!may_be_opened(peer, frame))
                return;
        channel->last_in = id;
        peer->counters.calls_in++;
        if (frame->absent)
                peer_refuse_call(peer, frame->channel, id, STATUS_INVALID_ARGUMENT,
                                 "the call lists a descriptor that was not sent");
        else if (frame->lost)
                peer_refuse_call(
                        peer, frame->channel, id, STATUS_RESOURCE_EXHAUSTED,
                        "a descriptor of the call was lost to the receiver's descriptor limit; try again later");
        else if (frame->fault)
                peer_refuse_call(peer, frame->channel, id, frame->fault, "the call has %s", peer->fault);
        else if (peer->held_fds + frame->n_fds > peer->limits.max_held_fds)
                peer_refuse_call(peer, frame->channel, id, STATUS_RESOURCE_EXHAUSTED,
                                 "open calls hold %zu descriptors already, at most %u may", peer->held_fds,
                                 peer->limits.max_held_fds);
        /* Those of arenas are not: a block whose Release was refused would be lost, and the answers are short. */
        else if (unsent > peer->limits.max_unsent && unsent - peer->limits.max_unsent > peer->limits.max_memory &&
                 !share_is_method(peer, envelope->method))
                peer_refuse_call(peer, frame->channel, id, STATUS_RESOURCE_EXHAUSTED,
                                 "%zu bytes wait for the caller to read them already", unsent);
        else if (!has_method(frame))
                peer_refuse_call(peer, frame->channel, id, STATUS_INVALID_ARGUMENT,
                                 "a method's name has 1 to %u bytes", METHOD_MAX);
        else
                peer_accept_call(peer, frame->channel, envelope, frame->payload, frame->size, frame_shared(frame),
                                 TAKE_PTR(frame->fds), frame->n_fds);
}

static bool is_ours(const Peer *peer, uint64_t id) {
        return (id & 1) == peer->side;
}

/* missed() - a frame for a call that is not there: late if it was once, else ignored. */
static void missed(Peer *peer, const Frame *frame) {
        const Channel *channel = &peer->channels[frame->channel];
        uint64_t id = frame->envelope->id;

        if (id >= 2 && (is_ours(peer, id) ? id < channel->next_out : id <= channel->last_in))
                peer->counters.late++;
        else
                peer->counters.ignored++;
}

/* queue_answer() - behind the items that the receiver could not take yet; the
 * id is free. */
static void queue_answer(Peer *peer, Call *call, Frame *frame) {
        call_close(call);
        peer_wake(peer);
        if (frame->absent || frame->lost)
                call_fail_local(call, frame->absent ? STATUS_INVALID_ARGUMENT : STATUS_RESOURCE_EXHAUSTED,
                                "a descriptor of the answer is not there");
        else if (frame->fault)
                call_fail_local(call, frame->fault, "the answer has %s", peer->fault);
        else if (stream_queue_answer(call, frame->body, frame->length, &frame->view, frame->fds, frame->n_fds) < 0)
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED, "no room for the answer behind items not taken yet");
        else
                frame->fds = NULL;
}

static void on_answer(Peer *peer, Frame *frame) {
        const Baton__Envelope *envelope = frame->envelope;
        Call *call = call_find(peer, frame->channel, envelope->id);
        Answer answer = {
                .status = status_from_wire(envelope->status),
                .message = envelope->message,
                .envelope = envelope,
                .payload = frame->payload,
                .size = frame->size,
                .fds = frame->fds,
                .n_fds = frame->n_fds,
                .shared = frame_shared(frame),
        };
        char text[sizeof(peer->fault) + 32];

        if (!is_ours(peer, envelope->id)) {
                peer->counters.ignored++;
                return;
        }
        if (!call) {
                missed(peer, frame);
                return;
        }
        if (!STAILQ_EMPTY(&call->queue) && !call->failed && call->done) {
                queue_answer(peer, call, frame);
                return;
        }
        if (frame->absent || frame->lost) {
                answer.status = frame->absent ? STATUS_INVALID_ARGUMENT : STATUS_RESOURCE_EXHAUSTED;
                answer.message = frame->absent ? "the answer lists a descriptor that was not sent"
                                               : "a descriptor of the answer was lost to our own descriptor limit";
                answer.local = true;
        }
        if (frame->fault) {
                (void) snprintf(text, sizeof(text), "the answer has %s", peer->fault);
                answer.status = frame->fault;
                answer.message = text;
                answer.local = true;
        }
        call_answered(call, &answer);
}

void peer_refuse_item(Peer *peer, Call *call, Status status, const char *why) {
        if (call->outgoing) {
                call_fail_local(call, status, "%s", why);
                return;
        }
        call_close(call);
        peer_refuse_call(peer, call->channel, call->id, status, "%s", why);
        call_over(call);
}

static void receive_item(Peer *peer, Call *call, Frame *frame, Item *item) {
        int r = stream_received(call, frame->body, frame->length, item);

        frame->fds = item->fds;
        if (r < 0)
                peer_refuse_item(peer, call, STATUS_RESOURCE_EXHAUSTED, "no room for an item that was not taken yet");
}

static void refuse_fault(Peer *peer, Call *call, Status status) {
        char text[sizeof(peer->fault) + 32];

        (void) snprintf(text, sizeof(text), "an item has %s", peer->fault);
        peer_refuse_item(peer, call, status, text);
}

static void on_item(Peer *peer, Frame *frame) {
        const Baton__Envelope *envelope = frame->envelope;
        Call *call = call_find(peer, frame->channel, envelope->id);
        Item item = {
                .envelope = envelope,
                .payload = frame->payload,
                .size = frame->size,
                .fds = frame->fds,
                .n_fds = frame->n_fds,
                .end = envelope->end,
                .bare = envelope->end && frame->size == 0 && frame->n_fds == 0,
                .shared = frame_shared(frame),
        };

        if (!call)
                missed(peer, frame);
        else if (call->outgoing && (call->failed || !call->done))
                peer->counters.late++;
        else if (frame->absent || frame->lost)
                peer_refuse_item(peer, call, frame->absent ? STATUS_INVALID_ARGUMENT : STATUS_RESOURCE_EXHAUSTED,
                                 frame->absent
                                         ? "an item lists a descriptor that was not sent"
                                         : "a descriptor of an item was lost to the receiver's descriptor limit");
        else if (frame->fault)
                refuse_fault(peer, call, frame->fault);
        else if (!call->outgoing && !call->takes)
                peer_refuse_item(peer, call, STATUS_INVALID_ARGUMENT,
                                 "an item after the half-close: the call takes no stream any more");
        else if (call->outgoing && envelope->end)
                peer_refuse_item(peer, call, STATUS_INVALID_ARGUMENT,
                                 "a half-close by the callee, whose ANSWER is the end");
        else if (!call->on_item && !item.bare)
                peer_refuse_item(peer, call, call->outgoing ? STATUS_UNIMPLEMENTED : STATUS_INVALID_ARGUMENT,
                                 call->outgoing ? "the answer is a stream, which the caller does not take"
                                                : "the method takes no stream");
        else
                receive_item(peer, call, frame, &item);
}

static void on_cancel(Peer *peer, Frame *frame) {
        uint64_t id = frame->envelope->id;
        Call *call = is_ours(peer, id) ? NULL : call_find(peer, frame->channel, id);

        if (is_ours(peer, id)) {
                peer->counters.ignored++;
                return;
        }
        if (!call) {
                missed(peer, frame);
                return;
        }
        call_close(call);
        peer_refuse_call(peer, frame->channel, id, STATUS_CANCELLED, "cancelled by the caller");
        call_over(call);
}

static void on_credit(Peer *peer, Frame *frame) {
        uint64_t id = frame->envelope->id;
        Call *call = id ? call_find(peer, frame->channel, id) : NULL;

        if (call && frame->envelope->credit == 0)
                peer->counters.ignored++;
        else if (call)
                stream_credit(call, frame->envelope->credit);
        else if (id != 0)
                missed(peer, frame);
}

/* closed_by_peer() - what it had sent on the other channels before is heard first; the Envelope is gone then. */
static void closed_by_peer(Peer *peer, Status status, const char *message) {
        _cleanup_free_ char *reason = *message ? strdup(message) : NULL;

        peer_read_rest(peer, CHANNEL_RPC);
        peer_end(peer, status, false, "%s", reason ? reason : "closed by the peer");
}

static void on_close(Peer *peer, Frame *frame) {
        const Baton__Envelope *envelope = frame->envelope;

        if (envelope->id != 0 || frame->channel != CHANNEL_RPC)
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a CLOSE that belongs to a call or another channel");
        else
                closed_by_peer(peer, status_from_wire(envelope->status), envelope->message);
}

static const struct {
        const char *name;
        void (*handle)(Peer *peer, Frame *frame);
} kinds[] = {
        [BATON__KIND__HELLO] = { "HELLO", on_hello },    [BATON__KIND__CALL] = { "CALL", on_call },
        [BATON__KIND__ITEM] = { "ITEM", on_item },       [BATON__KIND__ANSWER] = { "ANSWER", on_answer },
        [BATON__KIND__CANCEL] = { "CANCEL", on_cancel }, [BATON__KIND__CREDIT] = { "CREDIT", on_credit },
        [BATON__KIND__CLOSE] = { "CLOSE", on_close },
};

/* ---- frames ---- */

/* frame_parse() - the parts of a body. False: the peer has ended. */
static bool frame_parse(Peer *peer, Frame *frame, const uint8_t *body, uint32_t length) {
        uint32_t envelope_size;

        frame->body = body;
        frame->length = length;
        if (length < ENVELOPE_SIZE_FIELD) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a frame of %u bytes, too short for an Envelope",
                         length);
                return false;
        }
        memcpy(&envelope_size, body, sizeof(envelope_size));
        envelope_size = be32toh(envelope_size);
        body += ENVELOPE_SIZE_FIELD;
        length -= ENVELOPE_SIZE_FIELD;
        if (envelope_size > length) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "an Envelope of %u bytes in a frame with room for %u",
                         envelope_size, length);
                return false;
        }
        message_scratch_reset(&peer->scratch);
        frame->envelope = envelope_unpack(&peer->scratch, body, envelope_size);
        if (!frame->envelope && peer->scratch.exhausted)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "an Envelope that takes more than %zu bytes of memory",
                         peer->scratch.limit);
        else if (!frame->envelope)
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "an Envelope that cannot be parsed");
        if (!frame->envelope)
                return false;
        frame->payload = body + envelope_size;
        frame->envelope_size = envelope_size;
        frame->size = length - envelope_size;
        return true;
}

/* add_credit() - false: more than was spent, the peer has ended. */
static bool add_credit(Peer *peer, uint64_t credit) {
        if (credit == 0 || peer->state != PEER_STATE_READY)
                return true;
        if (credit > peer->remote.fd_credit - peer->fd_credit) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "credit for %llu descriptors more than were sent",
                         (unsigned long long) (credit + peer->fd_credit - peer->remote.fd_credit));
                return false;
        }
        peer->fd_credit += credit;
        peer_wake(peer);
        return true;
}

/* is_epoch_over() - a renewal is there: the old channels are only read for what is still wanted. */
static bool is_epoch_over(const Peer *peer) {
        return peer->renewing || peer->renewal_fd >= 0;
}

/* is_wanted() - of an epoch that is over: whole ANSWERs to our own calls are delivered, all else is dropped. */
static bool is_wanted(const Peer *peer, const Frame *frame) {
        return !is_epoch_over(peer) || frame->envelope->kind == BATON__KIND__ANSWER ||
               frame->envelope->kind == BATON__KIND__ITEM;
}

static void handle_frame(Peer *peer, unsigned n, const uint8_t *body, uint32_t length) {
        Frame frame = { .channel = n };
        unsigned kind;

        if (!frame_parse(peer, &frame, body, length))
                return;
        kind = (unsigned) frame.envelope->kind;
        if (kind >= ARRAY_SIZE(kinds) || !kinds[kind].handle) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true, "a frame of kind %u", kind);
                return;
        }
        /* A Hello that comes when its epoch is over is dropped, and so is what follows it. */
        if (peer->state == PEER_STATE_HELLO && kind != BATON__KIND__HELLO && kind != BATON__KIND__CLOSE &&
            !is_epoch_over(peer)) {
                peer_end(peer, STATUS_FAILED_PRECONDITION, true, "%s before Hello", kinds[kind].name);
                return;
        }
        if (frame_claim(peer, &frame) < 0)
                return;
        if (add_credit(peer, frame.envelope->fd_credit) && frame_claim_blocks(peer, &frame) &&
            is_wanted(peer, &frame)) {
                frame_claim_object(peer, &frame);
                kinds[kind].handle(peer, &frame);
        }
        frame_discard(&frame);
}

/* note_progress() - keeps since when the peer owes the rest of a frame. */
static void note_progress(Channel *channel, bool any) {
        if (!frame_reader_is_partial(&channel->reader))
                channel->partial_since = 0;
        else if (any || channel->partial_since == 0)
                channel->partial_since = clock_now();
}

/* handle_buffered() - the whole frames that have been read. False: stop reading. */
static bool handle_buffered(Peer *peer, unsigned n, bool to_end, bool *any) {
        Channel *channel = &peer->channels[n];
        uint32_t epoch = peer->lane.epoch; /* a new channel may well get the old one's number */
        int fd = channel->fd;

        for (;;) {
                const uint8_t *body;
                uint32_t length;
                int r;

                if (!to_end && peer_is_unheard(peer, channel)) {
                        channel->paused = true;
                        return false;
                }
                r = frame_reader_next(&channel->reader, &body, &length);
                if (r == FRAME_AGAIN)
                        return true;
                if (r == FRAME_TOO_LARGE) {
                        peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "a frame of %u bytes, accepted are %u", length,
                                 channel->reader.limit);
                        return false;
                }
                *any = true;
                handle_frame(peer, n, body, length);
                if (peer->state == PEER_STATE_ENDED || channel->fd != fd || peer->lane.epoch != epoch)
                        return false;
        }
}

/* bytes_queued() - what the kernel holds for us: a peer that goes on writing does not keep us reading. */
static size_t bytes_queued(int fd) {
        int n = 0;

        return ioctl(fd, FIONREAD, &n) < 0 ? 0 : (size_t) n;
}

int peer_read_channel(Peer *peer, unsigned n, bool to_end) {
        Channel *channel = &peer->channels[n];
        size_t queued = to_end ? bytes_queued(channel->fd) : 0, taken = 0;
        bool any = false, more = true;
        int r = FRAME_AGAIN;

        for (unsigned i = 0; handle_buffered(peer, n, to_end, &any); i++) {
                size_t before = channel->reader.end - channel->reader.start;

                if (to_end ? taken >= queued && i > 0 : i >= READS_PER_TURN || !more)
                        break;
                r = frame_reader_fill(&channel->reader, channel->fd);
                if (r != FRAME_READY)
                        break;
                taken += channel->reader.end - channel->reader.start - before;
                more = channel->reader.end ==
                       channel->reader.size; /* less: it is read empty, save the call that says so */
        }
        if (peer->state == PEER_STATE_ENDED || channel->fd < 0)
                return FRAME_AGAIN;
        note_progress(channel, any);
        return r;
}

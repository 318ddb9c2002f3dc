/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls. One object for both directions, because what they have is the same: an id on a channel, a deadline, a place in
 * the peer's table while the id is in use on the wire.
 *
 * A call of ours lives until its function has been called (or it was cancelled) and its id is no longer in use: one that
 * ended early, by deadline or cancel, stays in the table without a function until the peer's ANSWER comes, since until
 * then the peer counts it. A call of the peer's lives until its handler has ended it; when nobody waits any more it
 * leaves the table at once, and only the handler's pointer keeps it.
 *
 * What ends a call of ours locally is never told from inside the function that found out, but by peer_deliver_failed()
 * at the next flush: callers need not be ready for their own callback.
 */

#include "proto/peer-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/parse.h"

/* ---- objects ---- */

static Call *call_new(Peer *peer) {
        Call *call = spare_alloc(&peer->spare, sizeof(*call));

        if (!call)
                return NULL;
        *call = (Call){ 0 };
        STAILQ_INIT(&call->queue);
        return call;
}

/* ---- table and deadlines ---- */

static struct CallList *call_bucket(Peer *peer, uint64_t id) {
        return &peer->buckets[(id >> 1) % CALL_BUCKETS];
}

Call *call_find(Peer *peer, unsigned channel, uint64_t id) {
        Call *call;

        LIST_FOREACH (call, call_bucket(peer, id), bucket_link)
                if (call->id == id && call->channel == channel)
                        break;
        return call;
}

void call_watch_deadline(Call *call) {
        Call *before;

        if (call->deadline == USEC_INFINITY || call->in_deadlines)
                return;
        /* Deadlines mostly come in their order: the place is near the end. */
        TAILQ_FOREACH_REVERSE(before, &call->peer->deadlines, CallQueue, deadline_link)
        if (before->deadline <= call->deadline)
                break;
        if (before)
                TAILQ_INSERT_AFTER(&call->peer->deadlines, before, call, deadline_link);
        else
                TAILQ_INSERT_HEAD(&call->peer->deadlines, call, deadline_link);
        call->in_deadlines = true;
}

static void unwatch_deadline(Call *call) {
        if (!call->in_deadlines)
                return;
        TAILQ_REMOVE(&call->peer->deadlines, call, deadline_link);
        call->in_deadlines = false;
}

void call_open(Peer *peer, Call *call, uint64_t id) {
        call->id = id;
        call->open = true;
        call->credit_out = peer->remote.stream_window;
        LIST_INSERT_HEAD(call_bucket(peer, id), call, bucket_link);
        if (call->outgoing)
                peer->open_out++;
        else
                peer->open_in++;
}

void call_close(Call *call) {
        Peer *peer = call->peer;

        if (!call->open)
                return;
        LIST_REMOVE(call, bucket_link);
        call->open = false;
        if (call->outgoing) {
                peer->open_out--;
                if (!TAILQ_EMPTY(&peer->parcels))
                        peer_wake(peer);
        } else {
                peer->open_in--;
        }
}

/* call_free() - from everywhere it is known. */
static void call_free(Call *call) {
        stream_drop(call);
        if (call->parcel)
                call->parcel->call = NULL;
        if (call->peer) {
                call_close(call);
                unwatch_deadline(call);
                if (call->failed)
                        TAILQ_REMOVE(&call->peer->failed, call, failed_link);
                LIST_REMOVE(call, link);
                if (!call->outgoing)
                        call->peer->held_fds -= call->n_fds;
        }
        if (call->gone)
                *call->gone = true;
        if (call->fds) {
                fd_close_all(call->fds, call->n_fds);
                free(call->fds);
        }
        if (call->message)
                free(call->message);
        if (call->peer)
                spare_free(&call->peer->spare, call);
        else
                free(call);
}

Call *call_restore(Peer *peer, bool outgoing) {
        Call *call = call_new(peer);

        if (!call)
                return NULL;
        call->peer = peer;
        call->outgoing = outgoing;
        call->deadline = USEC_INFINITY;
        if (outgoing)
                LIST_INSERT_HEAD(&peer->outgoing, call, link);
        else
                LIST_INSERT_HEAD(&peer->incoming, call, link);
        return call;
}

void call_restore_failed(Call *call) {
        call->failed = true;
        TAILQ_INSERT_TAIL(&call->peer->failed, call, failed_link);
}

/* ---- text ---- */

/* format_text() - a line that may go into an Envelope, whatever it was made of. NULL: out of memory. */
_printf_(1, 0) static char *format_text(const char *format, va_list arguments) {
        char *text;

        if (vasprintf(&text, format, arguments) < 0)
                return NULL;
        if (!utf8_is_valid(text, strlen(text)))
                for (char *p = text; *p; p++)
                        if (*p & 0x80)
                                *p = '?';
        return text;
}

bool text_is_valid(const char *text) {
        return !text || !*text || utf8_is_valid(text, strlen(text));
}

static bool are_pairs(Baton__Pair *const *pairs, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!text_is_valid(pairs[i]->key))
                        return false;
        return true;
}

static bool are_details(Baton__Detail *const *details, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (!text_is_valid(details[i]->type))
                        return false;
        return true;
}

static void close_consumed(const int *fds, size_t n) {
        for (size_t i = 0; i < n; i++)
                fd_close(fds[i]);
}

/* ---- calls of ours ---- */

void call_unheard(Call *call, const Answer *answer, void *userdata) {
        (void) call;
        (void) answer;
        (void) userdata;
}

int call_start(Peer *peer, const CallParameters *parameters, CallDone done, void *userdata, Call **ret_call) {
        size_t length = parameters->method ? strlen(parameters->method) : 0;
        Call *call;
        int r;

        if (peer->state == PEER_STATE_ENDED || length == 0 || length > METHOD_MAX ||
            parameters->channel >= peer->n_channels || !utf8_is_valid(parameters->method, length) ||
            !text_is_valid(parameters->type) || !are_pairs(parameters->metadata, parameters->n_metadata)) {
                close_consumed(parameters->fds_consume, parameters->n_fds);
                share_sent(parameters->buffer);
                return peer->state == PEER_STATE_ENDED ? -ESHUTDOWN : -EINVAL;
        }
        call = call_new(peer);
        if (!call) {
                close_consumed(parameters->fds_consume, parameters->n_fds);
                share_sent(parameters->buffer);
                return -ENOMEM;
        }
        call->peer = peer;
        call->outgoing = true;
        call->channel = (uint8_t) parameters->channel;
        call->done = done ? done : call_unheard;
        call->userdata = userdata;
        call->deadline = parameters->timeout_us ? clock_after(clock_now(), parameters->timeout_us) : USEC_INFINITY;
        LIST_INSERT_HEAD(&peer->outgoing, call, link);
        call->sends = parameters->stream;
        call->on_item = parameters->item;
        call->on_writable = parameters->writable;
        call->stream_userdata = userdata;
        if (parameters->item && stream_reserve(call) < 0) {
                close_consumed(parameters->fds_consume, parameters->n_fds);
                call_fail_local(call, STATUS_RESOURCE_EXHAUSTED,
                                "the streams of this peer may have %llu bytes waiting here, and have them reserved",
                                (unsigned long long) peer->limits.max_memory);
                r = 0;
        } else {
                r = peer_send_call(peer, call, parameters);
        }
        share_sent(parameters->buffer);
        if (r < 0) {
                close_consumed(parameters->fds_consume, parameters->n_fds);
                call_free(call);
                return r;
        }
        call_watch_deadline(call);
        peer->counters.calls_out++;
        if (call->deadline != USEC_INFINITY)
                peer_wake(peer); /* the host reads the new deadline */
        if (ret_call)
                *ret_call = call;
        return 0;
}

void call_release(Call *call) {
        if (!call->done && !call->failed && !call->open && !call->telling &&
            !(call->parcel && call->parcel->kind == PARCEL_CALL))
                call_free(call);
}

/* call_abandon() - the answer is of no use any more: what was not sent is not sent, else the peer is told. */
static void call_abandon(Call *call) {
        unwatch_deadline(call);
        stream_drop(call);
        if (call->parcel && !call->parcel->on_lane)
                peer_drop_parcel(call->peer, call->parcel);
        peer_send_cancel(call->peer, call);
}

void call_fail_local(Call *call, Status status, const char *format, ...) {
        va_list arguments;

        if (!call->done || call->failed)
                return;
        free(call->message); /* of stream_fail_later() */
        va_start(arguments, format);
        call->message = format_text(format, arguments);
        va_end(arguments);
        call->status = status;
        call->failed = true;
        TAILQ_INSERT_TAIL(&call->peer->failed, call, failed_link);
        call_abandon(call);
        peer_wake(call->peer);
}

void call_cancel(Call *call) {
        call->done = NULL;
        if (call->failed) {
                TAILQ_REMOVE(&call->peer->failed, call, failed_link);
                call->failed = false;
        }
        call_abandon(call);
        call_release(call);
}

/* call_tell() - the one callback of a call of ours. The peer may be gone afterwards. */
static void call_tell(Call *call, const Answer *answer) {
        CallDone done = call->done;

        call->done = NULL;
        call->telling = true;
        if (done)
                done(call, answer, call->userdata);
        call->telling = false;
        if (call->peer)
                call_release(call);
        else
                call_free(call);
}

static void tell_failed(Call *call) {
        Baton__Envelope none = BATON__ENVELOPE__INIT;
        _cleanup_free_ char *message = TAKE_PTR(call->message);
        Answer answer = {
                .status = call->status,
                .message = message ? message : "",
                .envelope = &none,
                .local = true,
        };

        call_tell(call, &answer);
}

void peer_deliver_failed(Peer *peer) {
        Call *call;

        while (!peer->freed && (call = TAILQ_FIRST(&peer->failed))) {
                TAILQ_REMOVE(&peer->failed, call, failed_link);
                call->failed = false;
                tell_failed(call);
        }
}

void call_answered(Call *call, const Answer *answer) {
        call_close(call);
        if (call->failed || !call->done) {
                call->peer->counters.late++;
                call_release(call);
                return;
        }
        unwatch_deadline(call);
        stream_drop(call);
        if (call->parcel && !call->parcel->on_lane)
                peer_drop_parcel(call->peer, call->parcel);
        call_tell(call, answer);
}

/* ---- calls of the peer's ---- */

void peer_refuse_call(Peer *peer, unsigned channel, uint64_t id, Status status, const char *format, ...) {
        AnswerParameters parameters = { .status = status };
        _cleanup_free_ char *message = NULL;
        va_list arguments;
        bool deferred;

        va_start(arguments, format);
        message = format_text(format, arguments);
        va_end(arguments);
        parameters.message = message;
        peer->counters.refused += status != STATUS_CANCELLED && status != STATUS_DEADLINE_EXCEEDED;
        if (peer_send_answer(peer, channel, id, NULL, &parameters, &deferred) < 0)
                peer_doom(peer);
}

static void hand_over(Peer *peer, Call *call) {
        if (share_called(peer, call))
                return;
        if (peer->handler.call)
                peer->handler.call(peer, call);
        else
                (void) call_fail(call, STATUS_UNIMPLEMENTED, "no methods here");
}

void peer_accept_call(Peer *peer, unsigned channel, const Baton__Envelope *envelope, const uint8_t *payload,
                      size_t size, ArenaView *shared, int *fds_consume, size_t n_fds) {
        Call *call = call_new(peer);
        bool gone = false;

        if (!call) {
                if (fds_consume)
                        fd_close_all(fds_consume, n_fds);
                free(fds_consume);
                peer_refuse_call(peer, channel, envelope->id, STATUS_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        call->peer = peer;
        call->channel = (uint8_t) channel;
        call->deadline = envelope->timeout_us ? clock_after(clock_now(), envelope->timeout_us) : USEC_INFINITY;
        call->envelope = envelope;
        call->payload = payload;
        call->size = size;
        call->shared = shared;
        call->takes = !envelope->end;
        call->fds = fds_consume;
        call->n_fds = n_fds;
        peer->held_fds += n_fds;
        LIST_INSERT_HEAD(&peer->incoming, call, link);
        call_open(peer, call, envelope->id);
        if (call->takes && stream_reserve(call) < 0) {
                peer_refuse_call(peer, channel, envelope->id, STATUS_RESOURCE_EXHAUSTED,
                                 "open streams may have %llu bytes waiting here, and have them reserved",
                                 (unsigned long long) peer->limits.max_memory);
                call_free(call);
                return;
        }
        call_watch_deadline(call);
        if (call->deadline != USEC_INFINITY)
                peer_wake(peer);
        call->gone = &gone;
        hand_over(peer, call);
        if (gone)
                return;
        /* Not ended yet: what lies in the frame is gone from here. */
        call->gone = NULL;
        call->envelope = NULL;
        call->payload = NULL;
        call->size = 0;
        call->shared = NULL;
}

void call_over(Call *call) {
        void (*function)(Call *, void *) = call->on_cancel;

        call_close(call);
        unwatch_deadline(call);
        stream_drop(call);
        if (call->parcel && !call->parcel->on_lane)
                peer_drop_parcel(call->peer, call->parcel);
        call->over = true;
        call->on_cancel = NULL;
        if (function)
                function(call, call->on_cancel_userdata);
}

void call_on_answer(Call *call, void (*function)(Call *call, Status status, const char *message, void *userdata),
                    void *userdata) {
        call->on_answer = function;
        call->on_answer_userdata = userdata;
}

const Baton__Envelope *call_envelope(const Call *call) {
        static const Baton__Envelope none = BATON__ENVELOPE__INIT;

        return call->envelope ? call->envelope : &none;
}

const uint8_t *call_payload(const Call *call, size_t *ret_size) {
        *ret_size = call->size;
        return call->payload ? call->payload : (const uint8_t *) "";
}

int *call_fds(Call *call, size_t *ret_n) {
        *ret_n = call->n_fds;
        return call->fds;
}

ArenaView *call_shared(Call *call) {
        return call->shared;
}

Peer *call_peer(const Call *call) {
        return call->peer;
}

unsigned call_channel(const Call *call) {
        return call->channel;
}

uint64_t call_time_left(const Call *call) {
        uint64_t now;

        if (call->deadline == USEC_INFINITY)
                return USEC_INFINITY;
        now = clock_now();
        return call->deadline > now ? call->deadline - now : 0;
}

bool call_is_cancelled(const Call *call) {
        return call->over;
}

bool call_takes_items(const Call *call) {
        return call->takes;
}

void call_on_stream(Call *call, CallItem item, CallWritable writable, void *userdata) {
        call->on_item = item;
        call->on_writable = writable;
        call->stream_userdata = userdata;
}

void call_on_cancel(Call *call, void (*function)(Call *call, void *userdata), void *userdata) {
        call->on_cancel = function;
        call->on_cancel_userdata = userdata;
}

static uint64_t answer_size(const AnswerParameters *parameters) {
        size_t size = parameters->size;

        if (parameters->buffer)
                (void) peer_buffer_data(parameters->buffer, &size);
        return parameters->object ? parameters->object : size;
}

/* send_answer() - @call's answer, or instead of one that cannot be sent, why. */
static int send_answer(Call *call, const AnswerParameters *parameters) {
        Peer *peer = call->peer;
        uint64_t id = call->id;
        bool deferred = false;
        int r;

        if (!text_is_valid(parameters->type) || !text_is_valid(parameters->message) ||
            !are_pairs(parameters->metadata, parameters->n_metadata) ||
            !are_details(parameters->details, parameters->n_details))
                r = -EINVAL;
        else
                r = peer_send_answer(peer, call->channel, id, call->parcel, parameters, &deferred);
        call_close(call);
        if (deferred)
                peer->open_in++; /* until it is written */
        if (r == 0)
                return 0;
        close_consumed(parameters->fds_consume, parameters->n_fds);
        if (r == -EMSGSIZE)
                peer_refuse_call(
                        peer, call->channel, id, STATUS_RESOURCE_EXHAUSTED,
                        "the answer has %llu bytes and %zu descriptors; accepted are frames of %llu, objects of "
                        "%llu, and %u",
                        (unsigned long long) answer_size(parameters), parameters->n_fds,
                        (unsigned long long) peer_max_frame(peer), (unsigned long long) peer->remote.max_object,
                        peer->remote.fd_credit);
        else if (r == -EINVAL)
                peer_refuse_call(peer, call->channel, id, STATUS_INTERNAL, "the answer holds text that is no UTF-8");
        else
                peer_refuse_call(peer, call->channel, id, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
        return r;
}

int call_answer(Call *call, const AnswerParameters *parameters) {
        int r = -ECANCELED;

        if (call->open)
                r = send_answer(call, parameters);
        else
                close_consumed(parameters->fds_consume, parameters->n_fds);
        share_sent(parameters->buffer);
        if (call->on_answer)
                call->on_answer(call, parameters->status, parameters->message ? parameters->message : "",
                                call->on_answer_userdata);
        call_free(call);
        return r;
}

int call_answer_message(Call *call, const ProtobufCMessage *message) {
        AnswerParameters parameters = { .type = message->descriptor->name };
        _cleanup_free_ uint8_t *packed = NULL;

        parameters.size = protobuf_c_message_get_packed_size(message);
        packed = malloc(parameters.size + 1);
        if (!packed)
                return call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
        protobuf_c_message_pack(message, packed);
        parameters.payload = packed;
        return call_answer(call, &parameters);
}

int call_fail(Call *call, Status status, const char *format, ...) {
        AnswerParameters parameters = { .status = status == STATUS_OK ? STATUS_UNKNOWN : status };
        _cleanup_free_ char *message = NULL;
        va_list arguments;

        va_start(arguments, format);
        message = format_text(format, arguments);
        va_end(arguments);
        parameters.message = message;
        return call_answer(call, &parameters);
}

/* ---- all calls ---- */

static bool concerns(const Call *call, int channel) {
        return channel < 0 || call->channel == channel;
}

static void end_outgoing(Peer *peer, int channel, bool keep_unsent, Status status, const char *reason) {
        Call *call, *next;

        for (call = LIST_FIRST(&peer->outgoing); call; call = next) {
                next = LIST_NEXT(call, link);
                if (!concerns(call, channel) || call->answered ||
                    (keep_unsent && !call->open && call->parcel && !call->parcel->on_lane && !call->parcel->has_block))
                        continue;
                call->cancel_sent = true; /* there is nobody to tell */
                if (!stream_fail_later(call, status, reason))
                        call_fail_local(call, status, "%s", reason);
                if (call->parcel)
                        peer_drop_parcel(peer, call->parcel);
                call_close(call);
                call_release(call);
        }
}

static Call *first_open_incoming(Peer *peer, int channel) {
        Call *call;

        LIST_FOREACH (call, &peer->incoming, link)
                if (call->open && concerns(call, channel))
                        return call;
        return NULL;
}

void peer_end_calls(Peer *peer, int channel, bool keep_unsent, Status status, const char *reason) {
        Call *call;

        end_outgoing(peer, channel, keep_unsent, status, reason);
        while (!peer->freed && (call = first_open_incoming(peer, channel)))
                call_over(call);
}

/* forget_call() - only its owner's pointer keeps it. */
static void forget_call(Call *call) {
        call_close(call);
        unwatch_deadline(call);
        stream_drop(call);
        LIST_REMOVE(call, link);
        call->peer = NULL;
}

void call_forget(Call *call) {
        call->on_cancel = NULL;
        call->over = true;
        if (call->parcel)
                peer_drop_parcel(call->peer, call->parcel);
        if (call->outgoing) {
                call_free(call);
                return;
        }
        call->peer->held_fds -= call->n_fds;
        forget_call(call);
}

void peer_forget_calls(Peer *peer) {
        Call *call;

        while ((call = LIST_FIRST(&peer->outgoing))) {
                if (!call->telling) {
                        call->parcel = NULL; /* dropped before */
                        call_free(call);
                        continue;
                }
                forget_call(call);
        }
        while ((call = LIST_FIRST(&peer->incoming))) {
                if (peer->borrowed && call->restored && !call->claimed) { /* nobody has taken it, to end it */
                        call->parcel = NULL;
                        call_free(call);
                        continue;
                }
                call->over = true;
                forget_call(call);
        }
}

void peer_expire_calls(Peer *peer, uint64_t now) {
        Call *call;

        while ((call = TAILQ_FIRST(&peer->deadlines)) && call->deadline <= now && !peer->freed) {
                if (call->outgoing) {
                        call_fail_local(call, STATUS_DEADLINE_EXCEEDED, "no answer before the deadline");
                        unwatch_deadline(call);
                        continue;
                }
                call_close(call);
                peer_refuse_call(peer, call->channel, call->id, STATUS_DEADLINE_EXCEEDED,
                                 "not finished before the deadline");
                call_over(call);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Saving and restoring a peer. What is written down is exactly what cannot be derived: sums (reserved bytes, descriptors
 * held, calls open) are counted again from their parts, so that state which contradicts itself cannot unbalance them.
 *
 * The state comes from a process of ours, but maybe of another version, and maybe of a sick one: every number in it that
 * is used as an index or a size is checked, and what does not fit refuses the whole.
 */

#include "proto/peer-save.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "proto/envelope.h"
#include "proto/peer-internal.h"

typedef Baton__Handover__Peer State;
typedef Baton__Handover__PeerCall CallState;
typedef Baton__Handover__PeerParcel ParcelState;
typedef Baton__Handover__PeerQueued QueuedState;
typedef Baton__Handover__PeerChannel ChannelState;
typedef Baton__Handover__LaneMessage LaneState;

#define NAME_SIZE (MANIFEST_NAME_MAX + 1)
#define ARENA_IDS 64u /* that a side has at most */

/* ------------------------------------------------------------------------------------------------------------- saving */

typedef struct Save {
        const char *prefix;
        Manifest *manifest;
        size_t n_fds; /* that have numbers for names */
        int error;    /* the first; nothing more is done after it */
        bool crosses; /* calls end in this process, the connection goes: peer_save_crossing() */
        uint64_t next_link;
        Baton__Handover__PeerShare *share;
        Peer *peer;
        bool ended_too;
} Save;

/* new() - an initialised message, or NULL with the error noted. */
static void *new (Save *save, const ProtobufCMessageDescriptor *type) {
        ProtobufCMessage *message = save->error < 0 ? NULL : malloc(type->sizeof_message);

        if (message)
                protobuf_c_message_init(type, message);
        else if (save->error == 0)
                save->error = -ENOMEM;
        return message;
}

static void *array(Save *save, size_t n, size_t size) {
        void *memory = save->error < 0 || n == 0 ? NULL : calloc(n, size);

        if (!memory && n > 0 && save->error == 0)
                save->error = -ENOMEM;
        return memory;
}

static void copy_bytes(Save *save, ProtobufCBinaryData *bytes, const void *data, size_t size) {
        bytes->data = array(save, size, 1);
        if (!bytes->data)
                return;
        memcpy(bytes->data, data, size);
        bytes->len = size;
}

static void copy_text(Save *save, char **text, const char *from) {
        char *copy = !from || !*from || save->error < 0 ? NULL : strdup(from);

        if (copy)
                *text = copy;
        else if (from && *from && save->error == 0)
                save->error = -ENOMEM;
}

/* name_fd() - PREFIX/WHAT into the manifest. */
static void _printf_(3, 4) name_fd(Save *save, int fd, const char *what, ...) {
        char name[NAME_SIZE], rest[64];
        va_list arguments;

        if (save->error < 0)
                return;
        va_start(arguments, what);
        (void) vsnprintf(rest, sizeof(rest), what, arguments);
        va_end(arguments);
        if (snprintf(name, sizeof(name), "%s/%s", save->prefix, rest) >= (int) sizeof(name))
                save->error = -EINVAL;
        else
                save->error = manifest_add(save->manifest, name, fd);
}

/* number_fds() - of what was mentioned: the next numbers. One that was taken is not there, and has a number all the same. */
static void number_fds(Save *save, const int *fds, size_t n) {
        for (size_t i = 0; i < n; i++, save->n_fds++)
                if (fds[i] >= 0)
                        name_fd(save, fds[i], "fd/%zu", save->n_fds);
}

static void save_limits(Save *save, const PeerLimits *limits, Baton__Handover__PeerLimits **ret) {
        Baton__Handover__PeerLimits *message = *ret = new (save, &baton__handover__peer_limits__descriptor);

        if (!message)
                return;
        message->max_frame = limits->max_frame;
        message->max_calls = limits->max_calls;
        message->fd_credit = limits->fd_credit;
        message->stream_window = limits->stream_window;
        message->max_held_fds = limits->max_held_fds;
        message->max_unsent = limits->max_unsent;
        message->max_waiting = limits->max_waiting;
        message->max_waiting_bytes = limits->max_waiting_bytes;
        message->max_memory = limits->max_memory;
        message->max_shared = limits->max_shared;
        message->arena_size = limits->arena_size;
        message->max_object = limits->max_object;
        message->hello_timeout_us = limits->hello_timeout_us;
        message->frame_timeout_us = limits->frame_timeout_us;
        message->renewal_timeout_us = limits->renewal_timeout_us;
}

static void save_remote(Save *save, const Peer *peer, Baton__Handover__PeerRemote **ret) {
        Baton__Handover__PeerRemote *message = *ret = new (save, &baton__handover__peer_remote__descriptor);
        const PeerRemote *remote = &peer->remote;

        if (!message)
                return;
        message->protocol = remote->protocol;
        message->max_frame = remote->max_frame;
        message->max_calls = remote->max_calls;
        message->fd_credit = remote->fd_credit;
        message->stream_window = remote->stream_window;
        message->instance = remote->instance;
        message->service_state = remote->service_state;
        message->last_event = remote->last_event;
        message->max_object = remote->max_object;
        copy_text(save, &message->software, remote->software);
        message->features = array(save, (size_t) __builtin_popcountll(remote->features), sizeof(char *));
        for (unsigned i = 0; i < 64 && message->features; i++)
                if (remote->features & UINT64_C(1) << i) {
                        copy_text(save, &message->features[message->n_features], peer->features[i]);
                        message->n_features += save->error == 0;
                }
}

static void save_counters(Save *save, const PeerCounters *counters, Baton__Handover__PeerCounters **ret) {
        Baton__Handover__PeerCounters *message = *ret = new (save, &baton__handover__peer_counters__descriptor);

        if (!message)
                return;
        message->calls_out = counters->calls_out;
        message->calls_in = counters->calls_in;
        message->late = counters->late;
        message->ignored = counters->ignored;
        message->refused = counters->refused;
        message->lost_fds = counters->lost_fds;
        message->unlisted_fds = counters->unlisted_fds;
}

static void save_lane_message(Save *save, LaneState **ret, uint64_t id, int fd) {
        LaneState *message = *ret = new (save, &baton__handover__lane_message__descriptor);

        if (!message)
                return;
        message->id = id;
        message->lost = fd < 0;
        number_fds(save, &fd, 1);
}

static void save_lane(Save *save, const Peer *peer, Baton__Handover__PeerLane **ret) {
        Baton__Handover__PeerLane *message = *ret = new (save, &baton__handover__peer_lane__descriptor);
        const Lane *lane = &peer->lane;
        const LaneOutgoing *out;
        size_t n = 0;

        if (!message)
                return;
        message->connected = lane->fd >= 0;
        message->ended = peer->lane_eof;
        message->epoch = lane->epoch;
        message->next_n = lane->next_n;
        message->due = lane->due;
        message->sent = lane->n_sent;
        if (lane->fd >= 0)
                name_fd(save, lane->fd, "lane");
        message->arrived = array(save, lane->n_arrived, sizeof(LaneState *));
        for (size_t i = 0; message->arrived && i < lane->n_arrived && save->error == 0; i++)
                save_lane_message(save, &message->arrived[message->n_arrived++], lane->arrived[i].id,
                                  lane->arrived[i].fd);
        STAILQ_FOREACH (out, &lane->outgoing, link)
                n++;
        message->outgoing = array(save, n, sizeof(LaneState *));
        STAILQ_FOREACH (out, &lane->outgoing, link)
                if (message->outgoing && save->error == 0)
                        save_lane_message(save, &message->outgoing[message->n_outgoing++], out->id, out->fd);
}

static void save_channel(Save *save, const Channel *channel, unsigned n, ChannelState **ret) {
        ChannelState *message = *ret = new (save, &baton__handover__peer_channel__descriptor);
        const FrameReader *reader = &channel->reader;
        const FrameWriter *writer = &channel->writer;

        if (!message)
                return;
        message->use = channel->use;
        message->want_framed = channel->want_framed;
        message->broken = channel->broken;
        message->lost = channel->lost;
        message->paused = channel->paused;
        message->had_backlog = channel->had_backlog;
        message->written = channel->written;
        message->answers_end = channel->answers_end;
        message->answers_mark = channel->answers_mark;
        message->answers = channel->n_answers;
        message->partial_since = channel->partial_since;
        message->next_out = channel->next_out;
        message->last_in = channel->last_in;
        copy_bytes(save, &message->unread, reader->buffer + reader->start, reader->end - reader->start);
        copy_bytes(save, &message->unsent, writer->buffer + writer->start, writer->end - writer->start);
        if (channel->fd >= 0)
                name_fd(save, channel->fd, "channel/%u", n);
}

/* copy_view() - what lies in a mapping of ours goes inline: the frame has its bytes instead of saying where they are. */
static void copy_view(Save *save, const Queued *queued, QueuedState *one, CallState *message) {
        MessageScratch *scratch = &save->peer->scratch;
        uint32_t envelope_size, wire;
        Baton__Envelope *envelope;
        size_t size;

        memcpy(&wire, queued->body, sizeof(wire));
        envelope_size = be32toh(wire);
        message_scratch_reset(scratch);
        envelope = envelope_unpack(scratch, queued->body + ENVELOPE_SIZE_FIELD, envelope_size);
        if (!envelope) {
                save->error = save->error ? save->error : -ENOMEM;
                return;
        }
        envelope->n_blocks = 0;
        envelope->object = 0;
        envelope_size = (uint32_t) baton__envelope__get_packed_size(envelope);
        size = ENVELOPE_SIZE_FIELD + envelope_size + queued->view.size;
        one->body.data = array(save, size, 1);
        if (!one->body.data)
                return;
        one->body.len = size;
        wire = htobe32(envelope_size);
        memcpy(one->body.data, &wire, sizeof(wire));
        (void) baton__envelope__pack(envelope, one->body.data + ENVELOPE_SIZE_FIELD);
        memcpy(one->body.data + ENVELOPE_SIZE_FIELD + envelope_size, queued->view.memory, queued->view.size);
        message->reserved += size - one->excess;
        one->excess = size;
}

static void save_queue(Save *save, const Call *call, CallState *message) {
        const Queued *queued;
        size_t n = 0;

        STAILQ_FOREACH (queued, &call->queue, link)
                n++;
        message->queue = array(save, n, sizeof(QueuedState *));
        STAILQ_FOREACH (queued, &call->queue, link) {
                QueuedState *one = message->queue ? new (save, &baton__handover__peer_queued__descriptor) : NULL;

                if (!one)
                        return;
                message->queue[message->n_queue++] = one;
                one->cost = queued->cost;
                one->excess = queued->excess;
                one->fds = (uint32_t) queued->n_fds;
                number_fds(save, queued->fds, queued->n_fds);
                if (queued->view.mapping)
                        copy_view(save, queued, one, message);
                else
                        copy_bytes(save, &one->body, queued->body, queued->length);
        }
}

/*
 * save_crossing() - a call that ends in this process, as the connection sees it: of what was received and not taken, which
 * stays here, its window is free again.
 */
static void save_crossing(Save *save, Call *call, CallState *message) {
        bool ends_here = !call->outgoing || (call->done && !call->failed);
        const Queued *queued;

        message->wanted = call->outgoing && ends_here;
        message->owed = call->owed;
        message->reserved = call->reserved;
        STAILQ_FOREACH (queued, &call->queue, link) {
                message->owed += queued->cost;
                message->reserved -= queued->excess;
        }
        if (!ends_here)
                return;
        if (!call->open) {
                call->link_id = save->next_link;
                save->next_link += 2;
        } else {
                call->link_id = call->id;
        }
        message->link = call->link_id;
}

/* is_crossing() - whether the connection knows of @call: it has an id in use, or descriptors on their way. */
static bool is_crossing(const Call *call) {
        return call->open || call->carried ||
               (call->outgoing && call->parcel && call->parcel->kind == PARCEL_CALL && call->parcel->on_lane);
}

static void save_call(Save *save, Call *call, State *state) {
        CallState *message = new (save, &baton__handover__peer_call__descriptor);

        if (!message)
                return;
        state->calls[state->n_calls++] = message;
        call->saved = (uint32_t) state->n_calls;
        message->channel = call->channel;
        message->id = call->id;
        message->outgoing = call->outgoing;
        message->open = call->open;
        message->wanted = call->done != NULL;
        message->deadline = call->deadline == USEC_INFINITY ? 0 : call->deadline;
        message->cancel_sent = call->cancel_sent;
        message->streams = call->streams;
        message->sends = call->sends;
        message->end_wanted = call->end_wanted;
        message->takes = call->takes;
        message->credit_out = call->credit_out;
        message->window_in = call->window_in;
        if (save->crosses && !call->carried) {
                save_crossing(save, call, message);
                return;
        }
        message->fds = (uint32_t) call->n_fds;
        message->paused = call->paused;
        message->answered = call->answered;
        message->fails = call->fails;
        message->failed = call->failed;
        message->status = call->status;
        message->owed = call->owed;
        message->blocked = call->blocked;
        message->reserved = call->reserved;
        copy_text(save, &message->message, call->message);
        number_fds(save, call->fds, call->n_fds);
        save_queue(save, call, message);
}

/* save_calls() - the latest first, as they are in their lists. One of the peer's that is over is its owner's alone. */
static void save_calls(Save *save, Peer *peer, State *state) {
        size_t n = 0;
        Call *call;

        LIST_FOREACH (call, &peer->outgoing, link)
                n++;
        LIST_FOREACH (call, &peer->incoming, link)
                n++;
        state->calls = array(save, n, sizeof(CallState *));
        LIST_FOREACH (call, &peer->outgoing, link) {
                call->saved = 0;
                call->link_id = 0;
                if (state->calls && save->error == 0 && (!save->crosses || is_crossing(call)))
                        save_call(save, call, state);
        }
        LIST_FOREACH (call, &peer->incoming, link) {
                call->saved = 0;
                if (state->calls && call->open && save->error == 0)
                        save_call(save, call, state);
        }
}

/* is_kept() - a frame of this process's alone: it has not begun to be sent. */
static bool is_kept(const Save *save, const Parcel *parcel) {
        return save->crosses && parcel->kind == PARCEL_CALL && !parcel->on_lane && !parcel->call->carried;
}

static uint32_t parcel_number(const Save *save, const Peer *peer, const Parcel *wanted) {
        const Parcel *parcel;
        uint32_t n = 0;

        TAILQ_FOREACH (parcel, &peer->parcels, link) {
                n += !is_kept(save, parcel);
                if (parcel == wanted)
                        return n;
        }
        return 0;
}

static void save_parcels(Save *save, const Peer *peer, State *state) {
        Parcel *parcel;

        state->parcels = array(save, peer->n_parcels, sizeof(ParcelState *));
        TAILQ_FOREACH (parcel, &peer->parcels, link) {
                ParcelState *message;

                if (is_kept(save, parcel))
                        continue;
                parcel->captured = save->crosses;
                message = new (save, &baton__handover__peer_parcel__descriptor);

                if (!message || !state->parcels)
                        return;
                state->parcels[state->n_parcels++] = message;
                message->kind = parcel->kind;
                message->call = parcel->call ? parcel->call->saved : 0;
                message->after = parcel->after ? parcel_number(save, peer, parcel->after) : 0;
                message->channel = parcel->channel;
                message->on_lane = parcel->on_lane;
                message->id = parcel->id;
                message->mark = parcel->mark;
                message->object = parcel->object;
                message->fds = (uint32_t) parcel->n_fds;
                if (parcel->on_lane) {
                        message->ids = array(save, parcel->n_fds, sizeof(uint64_t));
                        message->n_ids = message->ids ? parcel->n_fds : 0;
                        if (message->ids)
                                memcpy(message->ids, parcel->ids, parcel->n_fds * sizeof(uint64_t));
                }
                number_fds(save, parcel->fds, parcel->n_fds);
                copy_bytes(save, &message->envelope, parcel->bytes, parcel->envelope_size);
                copy_bytes(save, &message->payload, parcel->bytes + parcel->envelope_size, parcel->payload_size);
        }
}

static uint64_t moment(uint64_t us) {
        return us == USEC_INFINITY ? 0 : us;
}

static void save_arena(uint64_t id, uint64_t size, int fd, void *userdata) {
        Save *save = userdata;
        Baton__Handover__PeerArena *message = new (save, &baton__handover__peer_arena__descriptor);

        if (!message)
                return;
        message->id = id;
        message->size = size;
        save->share->theirs[save->share->n_theirs++] = message;
        name_fd(save, fd, "arena/%llu", (unsigned long long) id);
}

static void save_share(Save *save, const Peer *peer, Baton__Handover__PeerShare **ret) {
        Baton__Handover__PeerShare *message;

        if (!peer->share)
                return;
        save->share = message = *ret = new (save, &baton__handover__peer_share__descriptor);
        if (!message)
                return;
        message->theirs = array(save, ARENA_IDS, sizeof(*message->theirs));
        message->ours = array(save, ARENA_IDS, sizeof(*message->ours));
        if (!message->theirs || !message->ours)
                return;
        message->serial = arena_pool_serial(share_pool(peer));
        message->n_ours = arena_pool_ids(share_pool(peer), message->ours);
        arena_map_each(share_map(peer), save_arena, save);
}

bool peer_can_be_saved(const Peer *peer) {
        return peer->state != PEER_STATE_ENDED && !peer->doomed && peer->depth == 0 && !peer->share &&
               !peer->objects && peer->renewal_fd < 0;
}

static int save_peer(Save save, Peer *peer, State **ret_state) {
        State *state;

        save.peer = peer;
        if ((peer->state == PEER_STATE_ENDED && !save.ended_too) || peer->doomed)
                return -ESHUTDOWN;
        if (peer->depth > 0)
                return -EBUSY;
        if (((peer->share || peer->objects) && !save.crosses) || peer->renewal_fd >= 0)
                return -EOPNOTSUPP;
        state = new (&save, &baton__handover__peer__descriptor);
        if (!state)
                return -ENOMEM;
        state->state = (Baton__Handover__Peer__State) peer->state;
        state->side = peer->side;
        state->renewal = peer->renewal;
        state->instance = peer->instance;
        state->last_event = peer->last_event;
        state->service_state = peer->service_state;
        state->fd_credit = peer->fd_credit;
        state->fd_owed = peer->fd_owed;
        state->hello_deadline = moment(peer->hello_deadline);
        state->renewal_deadline = moment(peer->renewal_deadline);
        save_limits(&save, &peer->limits, &state->limits);
        save_remote(&save, peer, &state->remote);
        save_counters(&save, &peer->counters, &state->counters);
        save_lane(&save, peer, &state->lane);
        state->channels = array(&save, peer->n_channels, sizeof(ChannelState *));
        for (unsigned n = 0; state->channels && n < peer->n_channels && save.error == 0; n++)
                save_channel(&save, &peer->channels[n], n, &state->channels[state->n_channels++]);
        save_calls(&save, peer, state);
        save_parcels(&save, peer, state);
        save_share(&save, peer, &state->share);
        if (save.error < 0) {
                baton__handover__peer__free_unpacked(state, NULL);
                return save.error;
        }
        *ret_state = state;
        return 0;
}

int peer_save(Peer *peer, const char *prefix, Manifest *manifest, State **ret_state) {
        return save_peer((Save){ .prefix = prefix, .manifest = manifest }, peer, ret_state);
}

int peer_save_link(Peer *peer, const char *prefix, Manifest *manifest, State **ret_state) {
        return save_peer((Save){ .prefix = prefix, .manifest = manifest, .ended_too = true }, peer, ret_state);
}

int peer_save_crossing(Peer *peer, const char *prefix, Manifest *manifest, State **ret_state) {
        Save save = {
                .prefix = prefix,
                .manifest = manifest,
                .crosses = true,
                .next_link = peer->channels[CHANNEL_RPC].next_out,
        };

        return save_peer(save, peer, ret_state);
}

uint32_t peer_saved_call(const Call *call) {
        return call->saved;
}

/* ---------------------------------------------------------------------------------------------------------- restoring */

typedef struct Restore {
        Peer *peer;
        const State *state;
        const char *prefix;
        Manifest *manifest;
        size_t n_fds;
        char *reason; /* "" until something failed */
        int error;
} Restore;

/* refuse() - the first reason stays. */
static void _printf_(3, 4) refuse(Restore *restore, int error, const char *format, ...) {
        va_list arguments;
        int n;

        if (restore->error < 0)
                return;
        restore->error = error;
        n = snprintf(restore->reason, MANIFEST_REASON_SIZE, "%s: ", restore->prefix);
        va_start(arguments, format);
        if (n > 0 && n < MANIFEST_REASON_SIZE)
                (void) vsnprintf(restore->reason + n, (size_t) (MANIFEST_REASON_SIZE - n), format, arguments);
        va_end(arguments);
}

static void out_of_memory(Restore *restore) {
        refuse(restore, -ENOMEM, "no memory");
}

/* find_fd() - PREFIX/WHAT, now ours; -1: there is none. */
static int _printf_(2, 3) find_fd(Restore *restore, const char *what, ...) {
        char name[NAME_SIZE], rest[64];
        va_list arguments;

        va_start(arguments, what);
        (void) vsnprintf(rest, sizeof(rest), what, arguments);
        va_end(arguments);
        (void) snprintf(name, sizeof(name), "%s/%s", restore->prefix, rest);
        return manifest_take(restore->manifest, name);
}

/* take_fds() - the next @n numbers; those that were taken before the save are -1. NULL: none, or no memory. */
static int *take_fds(Restore *restore, uint32_t n) {
        int *fds;

        if (n == 0)
                return NULL;
        if (n > MANIFEST_FDS_MAX) {
                refuse(restore, -EPROTO, "%u descriptors in one frame", n);
                return NULL;
        }
        fds = malloc(n * sizeof(*fds));
        if (!fds) {
                out_of_memory(restore);
                return NULL;
        }
        for (uint32_t i = 0; i < n; i++, restore->n_fds++)
                fds[i] = find_fd(restore, "fd/%zu", restore->n_fds);
        return fds;
}

static PeerLimits restored_limits(const Baton__Handover__PeerLimits *message) {
        return (PeerLimits){
                .max_frame = message->max_frame,
                .max_calls = message->max_calls,
                .fd_credit = message->fd_credit,
                .stream_window = message->stream_window,
                .max_held_fds = message->max_held_fds,
                .max_unsent = message->max_unsent,
                .max_waiting = message->max_waiting,
                .max_waiting_bytes = message->max_waiting_bytes,
                .max_memory = message->max_memory,
                .max_shared = message->max_shared,
                .arena_size = message->arena_size,
                .max_object = message->max_object,
                .hello_timeout_us = message->hello_timeout_us,
                .frame_timeout_us = message->frame_timeout_us,
                .renewal_timeout_us = message->renewal_timeout_us,
        };
}

static void restore_remote(Restore *restore, const Baton__Handover__PeerRemote *message) {
        Peer *peer = restore->peer;
        PeerRemote *remote = &peer->remote;

        *remote = (PeerRemote){
                .protocol = message->protocol,
                .max_frame = message->max_frame,
                .max_calls = message->max_calls,
                .fd_credit = message->fd_credit,
                .stream_window = message->stream_window,
                .instance = message->instance,
                .service_state = message->service_state,
                .last_event = message->last_event,
                .max_object = message->max_object,
        };
        if (message->protocol > PROTOCOL_MAX)
                refuse(restore, -EPROTONOSUPPORT, "protocol %u is not known here", message->protocol);
        if (message->protocol > 0 && !(remote->software = strdup(message->software)))
                out_of_memory(restore);
        for (size_t i = 0; i < message->n_features; i++) {
                unsigned n = 0;

                while (peer->features && peer->features[n] && strcmp(peer->features[n], message->features[i]) != 0)
                        n++;
                if (!peer->features || !peer->features[n] || n >= 64)
                        refuse(restore, -EPROTONOSUPPORT, "the feature %s is in use, and not known here",
                               message->features[i]);
                else
                        remote->features |= UINT64_C(1) << n;
        }
}

static void restore_lane(Restore *restore, const Baton__Handover__PeerLane *message) {
        Lane *lane = &restore->peer->lane;

        if (message->connected && (lane->fd = find_fd(restore, "lane")) < 0)
                refuse(restore, -EPROTO, "its lane is missing");
        restore->peer->lane_eof = message->ended;
        lane->epoch = message->epoch;
        lane->next_n = message->next_n;
        lane->due = MIN(message->due, lane->n_channels);
        for (size_t i = 0; i < message->n_arrived && restore->error == 0; i++) {
                int *fd = take_fds(restore, 1);

                if (!fd || lane_restore_arrived(lane, message->arrived[i]->id, *fd) < 0)
                        out_of_memory(restore);
                else if (*fd < 0 && !message->arrived[i]->lost)
                        refuse(restore, -EPROTO, "a descriptor that has arrived is missing");
                free(fd);
        }
        for (size_t i = 0; i < message->n_outgoing && restore->error == 0; i++) {
                int *fd = take_fds(restore, 1);

                if (!fd || *fd < 0)
                        refuse(restore, -EPROTO, "a descriptor that is to be sent is missing");
                else if (lane_queue(lane, message->outgoing[i]->id, *fd) < 0)
                        out_of_memory(restore);
                free(fd);
        }
        lane->n_sent = message->sent;
        lane->n_queued = message->sent + message->n_outgoing;
        restore->peer->lane_stalled = message->n_outgoing > 0; /* as restore_channel() */
}

/*
 * restore_channel() - with something unsent it waits for room, whether it has to or not: there may be no other event, where the
 * other side waits for this before it says anything.
 */
static void restore_channel(Restore *restore, unsigned n, const ChannelState *message) {
        Channel *channel = &restore->peer->channels[n];
        uint8_t *body;

        if (message->use > CHANNEL_RAW)
                refuse(restore, -EPROTO, "channel %u is in use in an unknown way", n);
        channel->fd = find_fd(restore, "channel/%u", n);
        if (channel->fd < 0 && (message->use == CHANNEL_WAITING || message->use == CHANNEL_FRAMED))
                refuse(restore, -EPROTO, "its channel %u is missing", n);
        channel->use = (ChannelUse) message->use;
        channel->want_framed = message->want_framed;
        channel->broken = message->broken;
        channel->lost = message->lost;
        channel->paused = message->paused;
        channel->had_backlog = message->had_backlog;
        channel->written = message->written;
        channel->answers_end = message->answers_end;
        channel->answers_mark = message->answers_mark;
        channel->n_answers = message->answers;
        channel->partial_since = message->partial_since;
        channel->next_out = message->next_out;
        channel->last_in = message->last_in;
        frame_reader_init(&channel->reader, restore->peer->state == PEER_STATE_HELLO
                                                    ? FRAME_LIMIT_BEFORE_HELLO
                                                    : (uint32_t) restore->peer->limits.max_frame);
        frame_writer_init(&channel->writer);
        if (message->unread.len > 0 &&
            frame_reader_restore(&channel->reader, message->unread.data, message->unread.len) < 0)
                out_of_memory(restore);
        if (message->unsent.len > 0) {
                if (frame_writer_grow(&channel->writer, message->unsent.len) < 0) {
                        out_of_memory(restore);
                        return;
                }
                body = channel->writer.buffer;
                memcpy(body, message->unsent.data, message->unsent.len);
                channel->writer.end = message->unsent.len;
                channel->stalled = true;
        }
}

static void restore_queue(Restore *restore, Call *call, const CallState *message) {
        for (size_t i = 0; i < message->n_queue && restore->error == 0; i++) {
                const QueuedState *one = message->queue[i];
                int *fds = take_fds(restore, one->fds);
                int r = restore->error;

                if (r == 0)
                        r = stream_restore(call, one->body.data, one->body.len, one->cost, one->excess, fds, one->fds);
                if (r == -EPROTO)
                        refuse(restore, r, "call %ju has an item that is no frame", (uintmax_t) call->id);
                else if (r < 0)
                        out_of_memory(restore);
                if (r < 0 && fds)
                        fd_close_all(fds, one->fds);
                if (r < 0)
                        free(fds);
        }
}

static void restore_call(Restore *restore, const CallState *message, Call **ret_call) {
        Peer *peer = restore->peer;
        Call *call;

        if (message->channel >= peer->n_channels || (message->open && message->id < 2) ||
            (message->open && call_find(peer, message->channel, message->id)) ||
            (!message->outgoing && !message->open)) {
                refuse(restore, -EPROTO, "a call that cannot be: %ju on channel %u", (uintmax_t) message->id,
                       message->channel);
                return;
        }
        call = call_restore(peer, message->outgoing);
        if (!call) {
                out_of_memory(restore);
                return;
        }
        *ret_call = call;
        call->channel = (uint8_t) message->channel;
        if (message->open)
                call_open(peer, call, message->id);
        call->restored = true;
        if (message->wanted)
                call->done = call_unheard;
        call->deadline = message->deadline ? message->deadline : USEC_INFINITY;
        call->cancel_sent = message->cancel_sent;
        call->streams = message->streams;
        call->sends = message->sends;
        call->end_wanted = message->end_wanted;
        call->takes = message->takes;
        call->paused = message->paused;
        call->answered = message->answered;
        call->fails = message->fails;
        call->status = status_from_wire(message->status);
        call->credit_out = message->credit_out;
        call->window_in = message->window_in;
        call->owed = message->owed;
        call->blocked = message->blocked;
        if (*message->message && !(call->message = strdup(message->message)))
                out_of_memory(restore);
        if (!message->outgoing) {
                call->fds = take_fds(restore, message->fds);
                call->n_fds = call->fds ? message->fds : 0;
                peer->held_fds += call->n_fds;
        }
        restore_queue(restore, call, message);
        /* What the queue reserves beyond the window was counted with it. */
        if (message->reserved < call->reserved)
                refuse(restore, -EPROTO, "call %ju has reserved less than it holds", (uintmax_t) call->id);
        peer->reserved_bytes += message->reserved - call->reserved;
        call->reserved = message->reserved;
        if (message->failed)
                call_restore_failed(call);
        else if (message->wanted || !message->outgoing)
                call_watch_deadline(call);
}

static void restore_calls(Restore *restore) {
        const State *state = restore->state;
        Peer *peer = restore->peer;

        peer->restored = calloc(state->n_calls + 1, sizeof(Call *));
        peer->n_restored = peer->restored ? state->n_calls : 0;
        if (!peer->restored)
                out_of_memory(restore);
        /* Descriptors were numbered in this order; the lists are filled from their ends. */
        for (size_t i = 0; i < state->n_calls && restore->error == 0; i++)
                restore_call(restore, state->calls[i], &peer->restored[i]);
}

static void restore_parcel(Restore *restore, const ParcelState *message, Parcel **all) {
        Peer *peer = restore->peer;
        Call *call = message->call > 0 && message->call <= peer->n_restored ? peer->restored[message->call - 1] : NULL;
        int *fds = take_fds(restore, message->fds);
        ParcelParts parts = {
                .kind = (ParcelKind) message->kind,
                .channel = message->channel,
                .on_lane = message->on_lane,
                .call = call,
                .id = message->id,
                .mark = message->mark,
                .object = message->object,
                .ids = message->ids,
                .fds = fds,
                .n_fds = message->fds,
                .envelope = message->envelope.data,
                .envelope_size = message->envelope.len,
                .payload = message->payload.data,
                .payload_size = message->payload.len,
        };

        if (restore->error < 0)
                return;
        if (message->kind > PARCEL_ANSWER || message->channel >= peer->n_channels ||
            (message->kind == PARCEL_CALL && (!call || !call->outgoing)) || (call && call->parcel) ||
            (message->on_lane && message->n_ids != message->fds) || message->after > peer->n_parcels)
                refuse(restore, -EPROTO, "a frame that waits, and cannot be");
        for (uint32_t i = 0; i < message->fds && !message->on_lane; i++)
                if (fds[i] < 0)
                        refuse(restore, -EPROTO, "a descriptor of a frame that waits is missing");
        if (restore->error == 0 && message->after > 0)
                parts.after = all[message->after - 1];
        if (restore->error == 0 && !(all[peer->n_parcels] = peer_restore_parcel(peer, &parts)))
                out_of_memory(restore);
        if (restore->error < 0 && fds)
                fd_close_all(fds, message->fds);
        free(fds);
}

static void restore_parcels(Restore *restore) {
        const State *state = restore->state;
        _cleanup_free_ Parcel **all = calloc(state->n_parcels + 1, sizeof(*all));

        if (!all)
                out_of_memory(restore);
        for (size_t i = 0; i < state->n_parcels && restore->error == 0; i++)
                restore_parcel(restore, state->parcels[i], all);
}

/* is_whole() - the parts that are never absent. */
static bool is_whole(const State *state, const PeerConfig *config) {
        bool may_have_ended = config->at_rest && config->side == 0; /* of a link */

        return state->limits && state->remote && state->counters && state->lane &&
               state->n_channels <= LANE_CHANNELS && state->side <= 1 && state->renewal <= LANE_RENEWAL_SELF &&
               (unsigned) state->state < (unsigned) PEER_STATE_ENDED + may_have_ended;
}

static void restore_arena(Restore *restore, const Baton__Handover__PeerArena *message) {
        int fd = find_fd(restore, "arena/%llu", (unsigned long long) message->id);

        if (fd < 0)
                refuse(restore, -EPROTO, "its arena %ju is missing", (uintmax_t) message->id);
        else if (arena_map_announce(share_map(restore->peer), message->id, fd, message->size) < 0)
                refuse(restore, -EPROTO, "its arena %ju cannot be used", (uintmax_t) message->id);
}

static void restore_share(Restore *restore, const Baton__Handover__PeerShare *message) {
        Peer *peer = restore->peer;

        if (!message)
                return;
        if (!peer->offers_share || message->n_ours > ARENA_IDS) {
                refuse(restore, -EPROTONOSUPPORT, "it shares memory in a way that is not known here");
                return;
        }
        if (share_open(peer) < 0 || share_follow(peer, message->serial, message->ours, message->n_ours) < 0) {
                out_of_memory(restore);
                return;
        }
        for (size_t i = 0; i < message->n_theirs && restore->error == 0; i++)
                restore_arena(restore, message->theirs[i]);
}

static void restore_all(Restore *restore) {
        const State *state = restore->state;
        const Baton__Handover__PeerCounters *counters = state->counters;
        Peer *peer = restore->peer;

        peer->state = (PeerState) state->state;
        peer->last_event = state->last_event;
        peer->fd_credit = state->fd_credit;
        peer->fd_owed = state->fd_owed;
        peer->hello_deadline = state->hello_deadline ? state->hello_deadline : USEC_INFINITY;
        peer->renewal_deadline = state->renewal_deadline ? state->renewal_deadline : USEC_INFINITY;
        peer->counters = (PeerCounters){
                .calls_out = counters->calls_out,
                .calls_in = counters->calls_in,
                .late = counters->late,
                .ignored = counters->ignored,
                .refused = counters->refused,
                .lost_fds = counters->lost_fds,
                .unlisted_fds = counters->unlisted_fds,
        };
        restore_remote(restore, state->remote);
        restore_lane(restore, state->lane);
        for (unsigned n = 0; n < state->n_channels && restore->error == 0; n++)
                restore_channel(restore, n, state->channels[n]);
        if (restore->error == 0)
                restore_share(restore, state->share);
        if (restore->error == 0)
                restore_calls(restore);
        if (restore->error == 0)
                restore_parcels(restore);
}

int peer_restore(Peer **ret_peer, const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest,
                 const PeerConfig *config, const PeerHost *host_functions, void *host, const PeerHandler *handler,
                 void *userdata, char reason[MANIFEST_REASON_SIZE]) {
        Restore restore = { .state = state, .prefix = prefix, .manifest = manifest, .reason = reason };
        PeerConfig filled = *config;
        PeerLimits limits;

        if (!is_whole(state, config) || state->side != config->side) {
                refuse(&restore, -EPROTO, "the state of the connection lacks a part");
                return restore.error;
        }
        limits = restored_limits(state->limits);
        filled.limits = &limits;
        filled.n_channels = (unsigned) state->n_channels;
        filled.renewal = (LaneRenewal) state->renewal;
        filled.instance = state->instance;
        filled.service_state = state->service_state;
        if (peer_allocate(&restore.peer, &filled, host_functions, host, handler, userdata) < 0) {
                out_of_memory(&restore);
                return restore.error;
        }
        restore.peer->borrowed = true;
        restore.peer->frozen = config->at_rest;
        restore_all(&restore);
        if (restore.error < 0) {
                restore.peer->host_functions.release = NULL;
                (void) peer_free(restore.peer);
                return restore.error;
        }
        peer_watch_all(restore.peer);
        *ret_peer = restore.peer;
        return 0;
}

static int give_back(Manifest *manifest, int *fd, const char *name, int *error) {
        int r = manifest_give_back(manifest, name, fd_take(fd));

        return *error = *error < 0 ? *error : r;
}

int peer_give_back(Peer *peer, const char *prefix, Manifest *manifest) {
        char name[NAME_SIZE];
        int r = 0;

        assert(peer->borrowed && peer->depth == 0);
        for (unsigned n = 0; n < LANE_CHANNELS; n++) {
                Channel *channel = &peer->channels[n];

                if (channel->fd < 0)
                        continue;
                if (channel->watched)
                        peer->host_functions.watch(peer->host, n, channel->fd, 0);
                channel->watched = 0;
                (void) snprintf(name, sizeof(name), "%s/channel/%u", prefix, n);
                (void) give_back(manifest, &channel->fd, name, &r);
        }
        if (peer->lane.fd < 0)
                return r;
        if (peer->lane_watched)
                peer->host_functions.watch(peer->host, PEER_LANE, peer->lane.fd, 0);
        peer->lane_watched = 0;
        (void) snprintf(name, sizeof(name), "%s/lane", prefix);
        return give_back(manifest, &peer->lane.fd, name, &r);
}

Call *peer_claim_call(const Peer *peer, uint32_t number, bool ours) {
        Call *call = number > 0 && number <= peer->n_restored ? peer->restored[number - 1] : NULL;

        if (!call || call->claimed || call->outgoing != ours)
                return NULL;
        call->claimed = true;
        return call;
}

void call_unclaim(Call *call) {
        call->claimed = false;
}

void call_bind(Call *call, CallDone done, CallItem item, CallWritable writable, void *userdata) {
        assert(call->outgoing && call->restored);
        call->done = done;
        call->on_item = item;
        call->on_writable = writable;
        call->userdata = call->stream_userdata = userdata;
}

void peer_own(Peer *peer) {
        _cleanup_free_ Call **restored = TAKE_PTR(peer->restored);
        size_t n = peer->n_restored;

        if (!peer->borrowed)
                return;
        assert(peer->depth == 0);
        peer->borrowed = peer->frozen = false;
        peer->n_restored = 0;
        peer_watch_all(peer);
        peer_enter(peer);
        for (size_t i = 0; i < n; i++) {
                Call *call = restored[i];

                if (!call->outgoing && !call->claimed)
                        (void) call_fail(call, STATUS_INTERNAL, "the call was lost when the process was replaced");
                else if (call->streams)
                        stream_schedule(call);
        }
        peer_leave(peer);
        peer_wake(peer);
}

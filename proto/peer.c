/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A peer's life: channels, Hello, time, renewal, the end.
 *
 *         HELLO --Hello read--> READY --channel 0 lost, the other side may renew--> WAITING --renewed--> HELLO
 *         any state --violation, CLOSE, lane EOF, time-out--> ENDED
 *
 * Descriptors: the peer owns the lane and every channel that nobody took raw. They are closed in peer_shut() only, after
 * shutdown(), so that a duplicate kept elsewhere does not hide the end from the other side, and after the host was told
 * to stop watching.
 *
 * Callbacks may do anything to any peer. Whoever calls back is between peer_enter() and peer_leave(), which keep the
 * structure alive when a callback frees it; every loop looks at `state` and `freed` again after a callback.
 */

#include "proto/peer-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/parse.h"

#define ARENA_SIZE_MAX  (UINT64_C(1) << 30)
#define ENVELOPE_MEMORY (2u * 1024u * 1024u) /* that one unpacked Envelope may take */
#define TRIM_US         USEC_PER_SEC /* a large buffer is given back when it was not needed for one to two of these */

static const PeerLimits default_limits = {
        .max_frame = 8u * 1024u * 1024u,
        .max_calls = 1024,
        .fd_credit = 64,
        .stream_window = 256u * 1024u,
        .max_held_fds = 1024,
        .max_unsent = 1024u * 1024u,
        .max_waiting = 4096,
        .max_waiting_bytes = 64u * 1024u * 1024u,
        .max_memory = 256u * 1024u * 1024u,
        .max_shared = 64u * 1024u * 1024u,
        .arena_size = 4u * 1024u * 1024u,
        .max_object = UINT64_C(4) * 1024 * 1024 * 1024,
        .hello_timeout_us = 10 * USEC_PER_SEC,
        .frame_timeout_us = 30 * USEC_PER_SEC,
        .renewal_timeout_us = 60 * USEC_PER_SEC,
};

bool peer_limits_are_valid(const PeerLimits *limits) {
        uint64_t arena = limits->arena_size, frame = limits->max_frame;

        return (frame == 0 || (frame >= FRAME_LIMIT_BEFORE_HELLO && frame <= UINT32_MAX)) &&
               (arena == 0 || (arena >= ARENA_UNIT && arena <= ARENA_SIZE_MAX && (arena & (arena - 1)) == 0));
}

#define DEFAULT(_field)                                        \
        do {                                                   \
                if (limits._field == 0)                        \
                        limits._field = default_limits._field; \
        } while (0)

static PeerLimits fill_limits(const PeerLimits *given) {
        PeerLimits limits = given ? *given : default_limits;

        DEFAULT(max_frame);
        DEFAULT(max_calls);
        DEFAULT(fd_credit);
        DEFAULT(stream_window);
        DEFAULT(max_held_fds);
        DEFAULT(max_unsent);
        DEFAULT(max_waiting);
        DEFAULT(max_waiting_bytes);
        DEFAULT(max_memory);
        DEFAULT(max_shared);
        DEFAULT(arena_size);
        DEFAULT(max_object);
        DEFAULT(hello_timeout_us);
        DEFAULT(frame_timeout_us);
        DEFAULT(renewal_timeout_us);
        limits.max_frame = MAX(limits.max_frame, (uint64_t) FRAME_LIMIT_BEFORE_HELLO);
        limits.max_frame = MIN(limits.max_frame, (uint64_t) UINT32_MAX);
        return limits;
}

/* ---- host ---- */

static int slot_fd(const Peer *peer, unsigned slot) {
        return slot == PEER_LANE ? peer->lane.fd : peer->channels[slot].fd;
}

static unsigned wanted_events(const Peer *peer, unsigned slot) {
        const Channel *channel;

        if (peer->state == PEER_STATE_ENDED || peer->frozen)
                return 0;
        if (slot == PEER_LANE)
                return PEER_IN | (peer->lane_stalled ? PEER_OUT : 0);
        channel = &peer->channels[slot];
        if (channel->use != CHANNEL_FRAMED || peer->state == PEER_STATE_WAITING)
                return 0;
        /* Channels 1 and 2 speak only after channel 0's Hellos. */
        if (slot != CHANNEL_RPC && peer->state != PEER_STATE_READY)
                return 0;
        return (channel->paused ? 0 : PEER_IN) | (channel->stalled ? PEER_OUT : 0);
}

void peer_update_watch(Peer *peer, unsigned slot) {
        unsigned *watched = slot == PEER_LANE ? &peer->lane_watched : &peer->channels[slot].watched;
        int fd = slot_fd(peer, slot);
        unsigned events = fd < 0 ? 0 : wanted_events(peer, slot);

        if (events == *watched)
                return;
        *watched = events;
        peer->host_functions.watch(peer->host, slot, fd, events);
}

void peer_watch_all(Peer *peer) {
        for (unsigned slot = 0; slot < _PEER_SLOT_N; slot++)
                if (slot_fd(peer, slot) >= 0)
                        peer_update_watch(peer, slot);
}

void peer_wake(Peer *peer) {
        if (peer->awake || peer->freed)
                return;
        peer->awake = true;
        peer->host_functions.wake(peer->host);
}

/* ---- channels ---- */

static void channel_reset(Channel *channel) {
        bool want_framed = channel->want_framed;

        *channel = (Channel){ .fd = -1, .want_framed = want_framed };
}

/* channel_close() - stops watching, ends the socket for everybody, closes. */
static void channel_close(Peer *peer, unsigned n) {
        Channel *channel = &peer->channels[n];

        if (channel->fd >= 0) {
                if (channel->watched)
                        peer->host_functions.watch(peer->host, n, channel->fd, 0);
                if (!peer->borrowed)
                        (void) shutdown(channel->fd, SHUT_RDWR);
                fd_close(channel->fd);
        }
        if (channel->reader.buffer && peer->depth > 0) {
                free(peer->kept[n]);
                peer->kept[n] = TAKE_PTR(channel->reader.buffer);
        }
        frame_reader_deinit(&channel->reader);
        frame_writer_deinit(&channel->writer);
        free(channel->sent_fds);
        channel_reset(channel);
}

static void channel_frame(Peer *peer, unsigned n) {
        Channel *channel = &peer->channels[n];

        channel->use = CHANNEL_FRAMED;
        frame_reader_init(&channel->reader, FRAME_LIMIT_BEFORE_HELLO);
        if (peer->state == PEER_STATE_READY)
                channel->reader.limit = (uint32_t) peer->limits.max_frame;
        frame_writer_init(&channel->writer);
        channel->next_out = 2 + peer->side;
        peer_update_watch(peer, n);
        peer_wake(peer); /* calls for it may be waiting */
}

/* channel_arrived() - from the lane, in its turn. */
static void channel_arrived(Peer *peer, unsigned n, int fd_consume) {
        Channel *channel = &peer->channels[n];

        channel->fd = fd_consume;
        if (n == CHANNEL_RPC || channel->want_framed) {
                channel_frame(peer, n);
                if (n == CHANNEL_RPC) {
                        peer->hello_deadline = clock_after(clock_now(), peer->limits.hello_timeout_us);
                        peer_send_hello(peer);
                }
                return;
        }
        channel->use = CHANNEL_WAITING;
        if (peer->handler.channel)
                peer->handler.channel(peer, n);
}

/* open_channels() - the side that sends them: pairs, one end framed or closed here, the other queued on the lane. */
static int open_channels(Peer *peer) {
        for (unsigned n = 0; n < peer->n_channels; n++) {
                int fds[2], r;

                r = fd_socketpair(SOCK_STREAM, fds);
                if (r < 0)
                        return r;
                peer->channels[n].fd = fds[0];
                r = lane_queue(&peer->lane, lane_channel_id(&peer->lane, n), fds[1]);
                if (r < 0)
                        return r;
                if (n == CHANNEL_RPC || !(peer->unserved & 1U << n)) {
                        channel_frame(peer, n);
                } else {
                        channel_close(peer, n);
                        peer->channels[n].lost = true;
                }
        }
        peer_send_hello(peer);
        peer_wake(peer);
        return 0;
}

int peer_take_channel(Peer *peer, unsigned n, int *ret_fd) {
        Channel *channel;

        if (n == CHANNEL_RPC || n >= peer->n_channels)
                return -EINVAL;
        channel = &peer->channels[n];
        if (channel->use == CHANNEL_FRAMED || channel->use == CHANNEL_RAW || channel->want_framed)
                return -EEXIST;
        if (channel->use == CHANNEL_ABSENT)
                return -EAGAIN;
        channel->use = CHANNEL_RAW;
        *ret_fd = fd_take(&channel->fd);
        return 0;
}

int peer_frame_channel(Peer *peer, unsigned n) {
        Channel *channel;

        if (n == CHANNEL_RPC || n >= peer->n_channels)
                return -EINVAL;
        channel = &peer->channels[n];
        if (channel->use == CHANNEL_FRAMED || channel->use == CHANNEL_RAW || channel->want_framed)
                return -EEXIST;
        channel->want_framed = true;
        if (channel->use == CHANNEL_WAITING)
                channel_frame(peer, n);
        return 0;
}

/* ---- birth ---- */

static void arm_hello(Peer *peer) {
        peer->hello_deadline = clock_after(clock_now(), peer->limits.hello_timeout_us);
}

int peer_allocate(Peer **ret_peer, const PeerConfig *config, const PeerHost *host_functions, void *host,
                  const PeerHandler *handler, void *userdata) {
        Peer *peer = calloc(1, sizeof(*peer));

        if (!peer)
                return -ENOMEM;
        peer->host_functions = *host_functions;
        peer->host = host;
        peer->handler = *handler;
        peer->userdata = userdata;
        peer->side = config->side;
        peer->n_channels = config->n_channels;
        peer->unserved = config->unserved;
        peer->renewal = config->renewal;
        peer->limits = fill_limits(config->limits);
        peer->features = config->features;
        peer->instance = config->instance;
        peer->offers_share = config->share;
        peer->crosses = config->crosses;
        peer->objects_use = config->objects;
        peer->service_state = config->service_state;
        peer->hello_deadline = peer->renewal_deadline = peer->trim_deadline = peer->lane_retry = USEC_INFINITY;
        peer->renewal_fd = -1;
        TAILQ_INIT(&peer->deadlines);
        TAILQ_INIT(&peer->failed);
        TAILQ_INIT(&peer->scheduled);
        TAILQ_INIT(&peer->parcels);
        message_scratch_init(&peer->scratch, ENVELOPE_MEMORY);
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                channel_reset(&peer->channels[n]);
        lane_init(&peer->lane, -1, config->side, config->n_channels, config->renewal, peer->limits.fd_credit);
        peer->lane.epoch = config->epoch;
        peer->software = strdup(config->software ? config->software : "");
        if (!peer->software) {
                free(peer);
                return -ENOMEM;
        }
        *ret_peer = peer;
        return 0;
}

int peer_new(Peer **ret_peer, const PeerConfig *config, int lane_fd_consume, const PeerHost *host_functions,
             void *host, const PeerHandler *handler, void *userdata) {
        _cleanup_fd_ int lane_fd = lane_fd_consume;
        Peer *peer;
        int r;

        r = peer_allocate(&peer, config, host_functions, host, handler, userdata);
        if (r < 0)
                return r;
        if (peer->side == 0)
                r = open_channels(peer);
        if (r < 0) {
                peer->host_functions.release = NULL;
                (void) peer_free(peer);
                return r;
        }
        if (lane_fd >= 0)
                peer_connect(peer, fd_take(&lane_fd));
        *ret_peer = peer;
        return 0;
}

void peer_connect(Peer *peer, int lane_fd_consume) {
        if (peer->state == PEER_STATE_ENDED || peer->lane.fd >= 0) {
                fd_close(lane_fd_consume);
                return;
        }
        peer->lane.fd = lane_fd_consume;
        arm_hello(peer);
        peer_update_watch(peer, PEER_LANE);
        peer_wake(peer);
}

void *peer_userdata(const Peer *peer) {
        return peer->userdata;
}

const PeerRemote *peer_remote(const Peer *peer) {
        return &peer->remote;
}

const PeerCounters *peer_counters(const Peer *peer) {
        return &peer->counters;
}

bool peer_is_ready(const Peer *peer) {
        return peer->state == PEER_STATE_READY;
}

bool peer_will_tell(const Peer *peer) {
        return peer->doomed || peer->n_scheduled > 0 || !TAILQ_EMPTY(&peer->failed);
}

bool peer_is_flushed(const Peer *peer) {
        const Parcel *parcel;

        if (peer->state == PEER_STATE_ENDED)
                return true;
        TAILQ_FOREACH (parcel, &peer->parcels, link)
                if (parcel->kind != PARCEL_CALL || parcel->on_lane)
                        return false;
        for (unsigned n = 0; n < peer->n_channels; n++)
                if (!peer->channels[n].broken && frame_writer_pending(&peer->channels[n].writer) > 0)
                        return false;
        return peer->lane.fd < 0 || STAILQ_EMPTY(&peer->lane.outgoing);
}

size_t peer_open_calls(const Peer *peer, size_t *ret_incoming) {
        size_t n = 0;
        Call *call;

        LIST_FOREACH (call, &peer->outgoing, link)
                n += call->done || call->failed;
        *ret_incoming = peer->open_in;
        return n;
}

size_t peer_owed_calls(const Peer *peer) {
        size_t n = 0;
        Call *call;

        LIST_FOREACH (call, &peer->incoming, link)
                n += !call->answered;
        return n;
}

void peer_set_service(Peer *peer, uint32_t service_state, uint64_t last_event) {
        peer->service_state = service_state;
        peer->last_event = last_event;
}

void peer_learn_service(Peer *peer, uint32_t service_state, uint64_t last_event) {
        peer->remote.service_state = service_state;
        peer->remote.last_event = last_event;
}

void peer_set_instance(Peer *peer, uint64_t instance) {
        peer->instance = instance;
}

/* ---- Hello ---- */

static uint64_t common_features(const Peer *peer, const Baton__Hello *hello) {
        uint64_t active = 0;

        for (unsigned i = 0; peer->features && peer->features[i] && i < 64; i++)
                for (size_t j = 0; j < hello->n_features; j++)
                        if (strcmp(peer->features[i], hello->features[j]) == 0)
                                active |= UINT64_C(1) << i;
        return active;
}

static bool hello_is_acceptable(Peer *peer, const Baton__Hello *hello) {
        if (hello->protocol_min > hello->protocol_max ||
            (hello->max_frame && hello->max_frame < FRAME_LIMIT_BEFORE_HELLO)) {
                peer_end(peer, STATUS_INVALID_ARGUMENT, true,
                         "a Hello with protocol %u to %u and frames of %llu bytes (at least %u)", hello->protocol_min,
                         hello->protocol_max, (unsigned long long) hello->max_frame, FRAME_LIMIT_BEFORE_HELLO);
                return false;
        }
        if (hello->protocol_max < PROTOCOL_MIN || hello->protocol_min > PROTOCOL_MAX) {
                peer_end(peer, STATUS_FAILED_PRECONDITION, true,
                         "no common protocol version: one side speaks %u to %u, the other %u to %u",
                         hello->protocol_min, hello->protocol_max, PROTOCOL_MIN, PROTOCOL_MAX);
                return false;
        }
        return true;
}

/* agree_on_sharing() - without memory for it there is none: the peer never hears of an arena. */
static bool agree_on_sharing(Peer *peer, const Baton__Hello *hello) {
        for (size_t i = 0; peer->offers_share && i < hello->n_features; i++)
                if (strcmp(hello->features[i], SHARE_FEATURE) == 0)
                        return share_open(peer) == 0;
        return true;
}

void peer_hello_received(Peer *peer, const Baton__Hello *hello) {
        bool renewed = peer->lane.epoch > 0 || peer->remote.protocol > 0;
        PeerRemote *remote = &peer->remote;
        char *software;

        if (!hello_is_acceptable(peer, hello))
                return;
        software = strdup(hello->software);
        if (!software || !agree_on_sharing(peer, hello)) {
                free(software);
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "out of memory for a Hello");
                return;
        }
        free(remote->software);
        *remote = (PeerRemote){
                .protocol = MIN(hello->protocol_max, PROTOCOL_MAX),
                .max_frame = hello->max_frame ? hello->max_frame : default_limits.max_frame,
                .max_calls = hello->max_calls ? hello->max_calls : default_limits.max_calls,
                .fd_credit = hello->fd_credit ? hello->fd_credit : default_limits.fd_credit,
                .stream_window = hello->stream_window ? hello->stream_window : default_limits.stream_window,
                .instance = hello->instance ? hello->instance : peer->remote.instance,
                .service_state = hello->service_state,
                .last_event = hello->last_event,
                .max_object = hello->max_object,
                .software = software,
                .features = common_features(peer, hello),
        };
        remote->max_frame = MIN(remote->max_frame, (uint64_t) UINT32_MAX);
        peer->fd_credit = remote->fd_credit;
        for (unsigned n = 0; n < peer->n_channels; n++)
                peer->channels[n].reader.limit = (uint32_t) peer->limits.max_frame;
        peer->hello_deadline = USEC_INFINITY;
        peer->state = PEER_STATE_READY;
        peer_watch_all(peer);
        peer_wake(peer);
        if (peer->handler.ready)
                peer->handler.ready(peer, renewed);
}

/* ---- renewal ---- */

static void drop_all_parcels(Peer *peer, bool answers_only) {
        Parcel *parcel, *next;

        for (parcel = TAILQ_FIRST(&peer->parcels); parcel; parcel = next) {
                next = TAILQ_NEXT(parcel, link);
                if (!answers_only || parcel->kind != PARCEL_CALL)
                        peer_drop_parcel(peer, parcel);
        }
}

/* drop_answers() - those that wait for the lane, to a channel that nobody reads any more. */
static void drop_answers(Peer *peer, unsigned channel) {
        Parcel *parcel, *next;

        for (parcel = TAILQ_FIRST(&peer->parcels); parcel; parcel = next) {
                next = TAILQ_NEXT(parcel, link);
                if (parcel->channel == channel && parcel->kind != PARCEL_CALL)
                        peer_drop_parcel(peer, parcel);
        }
}

/*
 * end_epoch() - what belonged to the old channels is over; calls not begun go on waiting for the new ones. False: a
 * callback has renewed already.
 */
static bool end_epoch(Peer *peer) {
        uint32_t epoch = peer->lane.epoch;

        peer->state = PEER_STATE_HELLO; /* what a callback starts from here on waits for the new channels */
        drop_all_parcels(peer, true);
        share_close(peer);
        peer_end_calls(peer, -1, true, STATUS_UNAVAILABLE,
                       "the connection was renewed after a crash; the call may have run");
        if (peer->lane.epoch != epoch)
                return false;
        drop_all_parcels(peer, true); /* a callback may have answered what was to be ended next */
        for (unsigned n = 0; n < LANE_CHANNELS && !peer->freed; n++)
                channel_close(peer, n);
        peer->fd_credit = peer->fd_owed = 0;
        peer->lane_stalled = false;
        peer->lane_retry = peer->renewal_deadline = USEC_INFINITY;
        peer->instance = peer->side == 1 && peer->n_channels == LANE_CHANNELS && peer->remote.instance
                                 ? peer->remote.instance
                                 : peer->instance;
        return true;
}

/* renewed_by_peer() - channel 0 of a higher epoch has arrived. */
static void renewed_by_peer(Peer *peer, uint32_t epoch, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;

        peer->renewing = true;
        /* The other side may have our Hello, although its own has not been read: its frames are as large as that allows. */
        for (unsigned n = 0; n < peer->n_channels; n++)
                peer->channels[n].reader.limit = (uint32_t) peer->limits.max_frame;
        if (peer->remote.protocol)
                peer_read_rest(peer, LANE_CHANNELS);
        peer->renewing = false;
        if (peer->state == PEER_STATE_ENDED)
                return;
        (void) end_epoch(peer); /* nobody here may renew */
        if (peer->state == PEER_STATE_ENDED)
                return;
        peer->counters.unlisted_fds += peer->lane.n_arrived;
        lane_begin_epoch(&peer->lane, epoch, 1);
        peer->state = PEER_STATE_HELLO;
        channel_arrived(peer, CHANNEL_RPC, fd_take(&fd));
}

int peer_renew(Peer *peer, uint32_t epoch) {
        int r;

        if (peer->renewal != LANE_RENEWAL_SELF)
                return -EPERM;
        if (peer->state == PEER_STATE_ENDED || peer->lane.fd < 0)
                return -ESHUTDOWN;
        if (epoch <= peer->lane.epoch)
                return -ESTALE;
        peer_enter(peer);
        while (epoch > peer->lane.epoch && peer->state != PEER_STATE_ENDED && !end_epoch(peer))
                ;
        r = peer->state == PEER_STATE_ENDED ? -ESHUTDOWN : epoch > peer->lane.epoch ? 0 : -ESTALE;
        if (r == 0) {
                peer->counters.unlisted_fds += peer->lane.n_arrived;
                lane_begin_epoch(&peer->lane, epoch, LANE_CHANNELS);
                peer->state = PEER_STATE_HELLO;
                r = open_channels(peer);
        }
        if (r == 0)
                arm_hello(peer);
        else if (r != -ESTALE)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, false, "renewal failed: %s", strerror(-r));
        peer_leave(peer);
        return r;
}

/* ---- lane ---- */

static bool lane_event(Peer *peer, int result, uint64_t id, int fd_consume) {
        switch (result) {
        case LANE_AGAIN:
                return false;
        case LANE_DESCRIPTOR:
                return true;
        case LANE_CHANNEL:
                channel_arrived(peer, (unsigned) id, fd_consume);
                return peer->state != PEER_STATE_ENDED;
        case LANE_RENEWAL:
                peer->renewal_epoch = (uint32_t) id;
                peer->renewal_fd = fd_consume;
                return false;
        case LANE_EOF:
                peer->lane_eof = true;
                return false;
        case LANE_BROKEN:
        case LANE_EXHAUSTED:
                peer_end(peer, result == LANE_BROKEN ? STATUS_INVALID_ARGUMENT : STATUS_RESOURCE_EXHAUSTED, true, "%s",
                         lane_reason(&peer->lane));
                return false;
        default:
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "the lane cannot be read: %s", strerror(-result));
                return false;
        }
}

void peer_drain_lane(Peer *peer) {
        uint64_t id = 0;
        int fd = -1, r;

        if (peer->lane.fd < 0 || peer->lane_eof || peer->renewal_fd >= 0)
                return;
        /* What was listed and not yet returned still counts against the peer's credit. */
        peer->lane.max_arrived = peer->limits.fd_credit - MIN(peer->fd_owed, (uint64_t) peer->limits.fd_credit);
        do
                r = lane_receive(&peer->lane, &id, &fd);
        while (lane_event(peer, r, id, fd));
}

void peer_read_rest(Peer *peer, unsigned except) {
        for (unsigned n = 0; n < peer->n_channels && peer->state != PEER_STATE_ENDED; n++)
                if (n != except && peer->channels[n].use == CHANNEL_FRAMED &&
                    (n == CHANNEL_RPC || peer->state != PEER_STATE_HELLO))
                        (void) peer_read_channel(peer, n, true);
}

/* lane_ended() - the end of the peer, after its channels were read to theirs: it may have said why in a CLOSE. */
static void lane_ended(Peer *peer) {
        peer_read_rest(peer, LANE_CHANNELS);
        peer_end(peer, STATUS_UNAVAILABLE, false, "the peer has closed its lane");
}

/* after_input() - what the lane told while frames were being handled, now that none is. */
static void after_input(Peer *peer) {
        while (peer->renewal_fd >= 0 && peer->state != PEER_STATE_ENDED) {
                renewed_by_peer(peer, peer->renewal_epoch, fd_take(&peer->renewal_fd));
                if (peer->state != PEER_STATE_ENDED)
                        peer_drain_lane(peer);
        }
        if (peer->lane_eof && peer->state != PEER_STATE_ENDED)
                lane_ended(peer);
        if (peer->state != PEER_STATE_ENDED)
                peer_update_watch(peer, PEER_LANE);
}

/* ---- input and output ---- */

void peer_channel_lost(Peer *peer, unsigned n, int error) {
        bool torn = frame_reader_is_partial(&peer->channels[n].reader);

        if (error < 0) {
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "channel %u cannot be read: %s", n, strerror(-error));
        } else if (n != CHANNEL_RPC) {
                peer->channels[n].lost = true;
                peer->channels[n].use = CHANNEL_ABSENT; /* what a callback starts from here on is not written to it */
                peer_end_calls(peer, (int) n, false, STATUS_UNAVAILABLE, "the peer has closed the channel");
                if (peer->state != PEER_STATE_ENDED && peer->channels[n].lost) {
                        drop_answers(peer, n);
                        peer_disown_fds(peer, n);
                        channel_close(peer, n);
                        peer->channels[n].lost = true;
                }
        } else if (peer->renewal == LANE_RENEWAL_PEER && !peer->lane_eof) {
                peer->channels[n].broken = true;
                peer->channels[n].partial_since = 0;
                peer->state = PEER_STATE_WAITING;
                peer->hello_deadline = USEC_INFINITY;
                peer->renewal_deadline = clock_after(clock_now(), peer->limits.renewal_timeout_us);
                peer_watch_all(peer);
        } else {
                peer_read_rest(peer, CHANNEL_RPC);
                peer_end(peer, STATUS_UNAVAILABLE, false, "the peer has closed channel 0%s",
                         torn ? " in the middle of a frame" : "");
        }
}

/* note_large() - buffers of @channel that are large are looked at again later. */
static void note_large(Peer *peer, const Channel *channel) {
        if (peer->trim_deadline == USEC_INFINITY &&
            (channel->reader.size > FRAME_BUFFER_KEEP || channel->writer.size > FRAME_BUFFER_KEEP))
                peer->trim_deadline = clock_after(clock_now(), TRIM_US);
}

static void read_channel(Peer *peer, unsigned n) {
        int r = peer_read_channel(peer, n, false);

        if (peer->state == PEER_STATE_ENDED)
                return;
        note_large(peer, &peer->channels[n]);
        if (r == FRAME_EOF || r < 0)
                peer_channel_lost(peer, n, r < 0 ? r : 0);
        else
                peer_update_watch(peer, n);
}

/* write_channel() - one send of everything pending. */
static void write_channel(Channel *channel) {
        int r = channel->broken ? -EPIPE : frame_writer_flush(&channel->writer, channel->fd);

        /* Out of kernel memory is no end: the socket says that it is writable, and it is tried again. */
        channel->stalled = r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM;
        if (r < 0 && !channel->stalled) {
                channel->broken = true; /* its end is read from the other direction */
                frame_writer_deinit(&channel->writer);
        }
}

/* backlog_gone() - frames and producers that waited for it go on in the next turn. */
static void backlog_gone(Peer *peer) {
        if (peer->has_blocked)
                stream_backlog_gone(peer);
        peer_wake(peer);
}

/* flush_channel() - a channel paused for its backlog goes on when half of it is gone, but not inside a callback. */
static void flush_channel(Peer *peer, unsigned n) {
        Channel *channel = &peer->channels[n];

        if (channel->use != CHANNEL_FRAMED || channel->fd < 0)
                return;
        write_channel(channel);
        note_large(peer, channel);
        if (channel->had_backlog && !peer_has_backlog(peer, channel)) {
                channel->had_backlog = false;
                backlog_gone(peer);
        }
        if (channel->paused && (frame_writer_pending(&channel->writer) <= peer->limits.max_unsent / 2 ||
                                !peer_is_unheard(peer, channel))) {
                if (peer->depth > 1) {
                        peer_wake(peer);
                } else {
                        channel->paused = false;
                        channel->partial_since = 0; /* the peer could not go on while it was not read */
                        read_channel(peer, n);      /* frames may be waiting in the reader, of which no event tells */
                        return;
                }
        }
        peer_update_watch(peer, n);
}

static void return_credit(Peer *peer) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        /* Not behind a backlog: a peer that does not read would have us collect them. */
        if (peer->state != PEER_STATE_READY || peer->fd_owed == 0 ||
            peer_has_backlog(peer, &peer->channels[CHANNEL_RPC]))
                return;
        envelope.kind = BATON__KIND__CREDIT;
        if (peer_write(peer, CHANNEL_RPC, &envelope, NULL, 0) < 0)
                peer_doom(peer);
}

/*
 * Inside a callback (depth is above 1 then) nothing is read and nobody is called: the frame being handled, and the
 * envelope, would move away under it. What is to be sent is sent, the rest is left to the next turn.
 */
void peer_flush(Peer *peer) {
        peer->awake = false;
        if (peer->frozen && peer->state != PEER_STATE_ENDED)
                return;
        peer_enter(peer);
        if (peer->depth == 1) {
                peer_deliver_failed(peer);
                peer_flush_streams(peer);
        }
        if (peer->doomed)
                peer_end(peer, STATUS_RESOURCE_EXHAUSTED, true, "no memory for a frame that must be sent");
        if (peer->state != PEER_STATE_ENDED)
                share_flush(peer);
        if (peer->state != PEER_STATE_ENDED)
                peer_pump(peer);
        if (peer->state != PEER_STATE_ENDED)
                return_credit(peer);
        for (unsigned n = 0; n < peer->n_channels && peer->state != PEER_STATE_ENDED; n++)
                flush_channel(peer, n);
        if (peer->depth > 1)
                peer_wake(peer);
        else
                after_input(peer);
        peer_leave(peer);
}

void peer_dispatch(Peer *peer, unsigned slot, unsigned events) {
        if (peer->state == PEER_STATE_ENDED || peer->frozen)
                return;
        if (peer->depth > 0) {
                peer_wake(peer); /* events are told again */
                return;
        }
        peer_enter(peer);
        if (slot == PEER_LANE) {
                if (events & PEER_OUT) {
                        peer->lane_stalled = false;
                        peer_wake(peer);
                }
                if (events & PEER_IN)
                        peer_drain_lane(peer);
        } else {
                if ((events & PEER_IN) && peer->channels[slot].watched)
                        read_channel(peer, slot);
                if ((events & PEER_OUT) && peer->state != PEER_STATE_ENDED)
                        flush_channel(peer, slot);
        }
        after_input(peer);
        peer_leave(peer);
}

/* ---- time ---- */

static uint64_t frame_deadline(const Peer *peer, const Channel *channel) {
        return channel->partial_since && !channel->paused && peer->state != PEER_STATE_WAITING
                       ? clock_after(channel->partial_since, peer->limits.frame_timeout_us)
                       : USEC_INFINITY;
}

uint64_t peer_deadline(const Peer *peer) {
        const Call *call = TAILQ_FIRST(&peer->deadlines);
        uint64_t deadline = MIN(peer->hello_deadline, peer->renewal_deadline);

        if (peer->state == PEER_STATE_ENDED || peer->frozen)
                return USEC_INFINITY;
        deadline = MIN(deadline, peer->lane_retry);
        deadline = MIN(deadline, peer->trim_deadline);
        if (call)
                deadline = MIN(deadline, call->deadline);
        for (unsigned n = 0; n < peer->n_channels; n++) {
                uint64_t frame = frame_deadline(peer, &peer->channels[n]);

                deadline = MIN(deadline, frame);
        }
        return MIN(deadline, share_deadline(peer));
}

static void expire_silence(Peer *peer, uint64_t now) {
        if (now >= peer->hello_deadline)
                peer_end(peer, STATUS_DEADLINE_EXCEEDED, true, "no Hello within %llu ms",
                         (unsigned long long) (peer->limits.hello_timeout_us / USEC_PER_MSEC));
        else if (now >= peer->renewal_deadline)
                peer_end(peer, STATUS_DEADLINE_EXCEEDED, false, "channel 0 was lost and not renewed within %llu ms",
                         (unsigned long long) (peer->limits.renewal_timeout_us / USEC_PER_MSEC));
        for (unsigned n = 0; n < peer->n_channels && peer->state != PEER_STATE_ENDED; n++)
                if (now >= frame_deadline(peer, &peer->channels[n]))
                        peer_end(peer, STATUS_DEADLINE_EXCEEDED, true, "a frame begun was not finished within %llu ms",
                                 (unsigned long long) (peer->limits.frame_timeout_us / USEC_PER_MSEC));
}

/* trim_buffers() - and again later, while there is one left. */
static void trim_buffers(Peer *peer, uint64_t now) {
        bool left = false;

        for (unsigned n = 0; n < LANE_CHANNELS; n++) {
                left |= frame_reader_trim(&peer->channels[n].reader);
                left |= frame_writer_trim(&peer->channels[n].writer);
        }
        peer->trim_deadline = left ? clock_after(now, TRIM_US) : USEC_INFINITY;
}

void peer_expire(Peer *peer) {
        uint64_t now = clock_now();

        if (peer->state == PEER_STATE_ENDED || peer->frozen)
                return;
        peer_enter(peer);
        expire_silence(peer, now);
        if (peer->state != PEER_STATE_ENDED)
                peer_expire_calls(peer, now);
        if (peer->state != PEER_STATE_ENDED && now >= peer->lane_retry) {
                peer->lane_retry = USEC_INFINITY;
                peer_wake(peer);
        }
        if (peer->state != PEER_STATE_ENDED)
                share_expire(peer, now);
        if (now >= peer->trim_deadline && peer->depth == 1)
                trim_buffers(peer, now);
        peer_leave(peer);
}

/* ---- the end ---- */

/* peer_shut() - closes everything; the structure stays. */
static void peer_shut(Peer *peer) {
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                channel_close(peer, n);
        if (peer->lane.fd >= 0) {
                if (peer->lane_watched)
                        peer->host_functions.watch(peer->host, PEER_LANE, peer->lane.fd, 0);
                peer->lane_watched = 0;
                if (!peer->borrowed)
                        (void) shutdown(peer->lane.fd, SHUT_RDWR);
        }
        peer->counters.unlisted_fds += peer->lane.n_arrived;
        lane_deinit(&peer->lane);
        peer->renewal_fd = fd_close(peer->renewal_fd);
}

/* say_close() - best effort, and only at a frame boundary: behind a frame that the kernel took a part of, it waits in vain. */
static void say_close(Peer *peer, Status status, const char *reason) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;
        Channel *channel = &peer->channels[CHANNEL_RPC];

        if (channel->use != CHANNEL_FRAMED || channel->broken || peer->lane.fd < 0 || peer->borrowed)
                return;
        envelope.kind = BATON__KIND__CLOSE;
        envelope.status = status;
        envelope.message = (char *) reason;
        if (peer_write(peer, CHANNEL_RPC, &envelope, NULL, 0) == 0) {
                (void) lane_flush(&peer->lane);
                (void) frame_writer_flush(&channel->writer, channel->fd);
        }
}

static void end_with(Peer *peer, Status status, bool tell, const char *reason) {
        if (peer->state == PEER_STATE_ENDED)
                return;
        peer_enter(peer);
        if (tell)
                say_close(peer, status, reason);
        peer->state = PEER_STATE_ENDED;
        drop_all_parcels(peer, true);
        share_close(peer);
        peer_shut(peer);
        peer_end_calls(peer, -1, false, STATUS_UNAVAILABLE, reason);
        peer_deliver_failed(peer);
        if (peer->handler.ended && !peer->freed)
                peer->handler.ended(peer, status, reason);
        peer_leave(peer);
}

_printf_(4, 0) static void end_with_v(Peer *peer, Status status, bool tell, const char *format, va_list arguments) {
        _cleanup_free_ char *reason = NULL;

        if (vasprintf(&reason, format, arguments) < 0)
                reason = NULL;
        if (reason && !utf8_is_valid(reason, strlen(reason)))
                free(TAKE_PTR(reason));
        end_with(peer, status, tell, reason ? reason : "for a reason that could not be written down");
}

void peer_end(Peer *peer, Status status, bool tell, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        end_with_v(peer, status, tell, format, arguments);
        va_end(arguments);
}

void peer_doom(Peer *peer) {
        peer->doomed = true;
        peer_wake(peer);
}

void peer_close(Peer *peer, Status status, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        end_with_v(peer, status, true, format, arguments);
        va_end(arguments);
}

static void peer_destroy(Peer *peer) {
        if (peer->host_functions.release)
                peer->host_functions.release(peer->host);
        spare_clear(&peer->spare);
        message_scratch_reset(&peer->scratch);
        (void) arena_map_free(peer->objects);
        free(peer->remote.software);
        free(peer->software);
        free(peer->restored);
        peer_drop_captured(peer);
        free(peer);
}

void peer_leave(Peer *peer) {
        peer->depth--;
        if (peer->depth > 0)
                return;
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                free(TAKE_PTR(peer->kept[n]));
        if (peer->freed)
                peer_destroy(peer);
}

Peer *peer_free(Peer *peer) {
        if (!peer || peer->freed)
                return NULL;
        peer->state = PEER_STATE_ENDED;
        drop_all_parcels(peer, false);
        share_close(peer);
        peer_forget_calls(peer);
        peer_shut(peer);
        peer->freed = true;
        if (peer->depth == 0)
                peer_destroy(peer);
        return NULL;
}

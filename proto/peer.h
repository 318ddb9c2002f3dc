#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * RPC with one peer: a lane and up to three channels, calls in both directions. Protocol 1 to the byte, and no event
 * loop: the host tells when descriptors are ready and time has come, and is told what to watch. The two hosts are
 * proto/endpoint.c (an epoll set; libbaton) and supervisor/peer-loop.c (libev).
 *
 * How a host drives a peer:
 * - watch() says for each slot which descriptor to watch for what; when it is ready, call peer_dispatch().
 * - wake() asks for one peer_flush() before the host next waits: everything queued in a turn leaves in one write.
 * - after either, read peer_deadline() and call peer_expire() when that moment has come.
 *
 * Callbacks may call every function of this header, for any peer, peer_free() of the very peer included. Nothing calls
 * back from inside call_start(), call_answer() or call_cancel(): what fails locally is told in the next peer_flush().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/lane.h"
#include "proto/arena.h"
#include "proto/baton.pb-c.h"
#include "proto/status.h"

typedef struct Peer Peer;
typedef struct Call Call;

#define PROTOCOL_MIN 1u
#define PROTOCOL_MAX 1u

enum {
        CHANNEL_RPC,
        CHANNEL_FILESYSTEM,
        CHANNEL_DATA,
        PEER_LANE,
        _PEER_SLOT_N,
};

/* Events of a slot; the same bits as LOOP_IN and LOOP_OUT. */
enum {
        PEER_IN = 1 << 0,
        PEER_OUT = 1 << 1,
};

/*
 * What we accept from the peer, and how long we wait for it. 0 means the default given here.
 *
 * The memory that a peer can have us hold, whatever it does, in bytes:
 *
 *           3 * max_memory                         received by streams and not taken: an item costs its stream at least 64
 *                                                  bytes, for which up to 112 more keep it
 *         + n * 2 * (max_frame + 64 KiB)           frames being received on n channels
 *         + n * 2 * (max_unsent + A + 512 * C)     what it does not read; A: the largest answer, C: max_calls
 *         + n * 2 * max_memory                     and that, while a call of ours is open: then we go on reading
 *         + C * 1 KiB + 3 MiB                      open calls; the Envelope at hand
 *
 * Memory of large frames stays for one to two seconds after it was needed last: what comes next needs no new one.
 *
 * What the application sends on its own account (calls, by max_waiting_bytes; answers given later than in the handler,
 * buffers) comes on top, and arenas, by max_shared. Descriptors: max_held_fds and fd_credit. With the numbers of the
 * defaults: docs/protocol.md. tests/test-memory.c drives a peer there.
 */
typedef struct PeerLimits {
        uint64_t max_frame;     /* bytes of a frame's body; 8 MiB */
        uint32_t max_calls;     /* of the peer's, open at once; 1,024 */
        uint32_t fd_credit;     /* descriptors sent and not yet listed; 64 */
        uint64_t stream_window; /* bytes; 256 KiB */
        uint32_t max_held_fds; /* descriptors held by its open calls and items together; 1,024; beyond it calls fail */
        size_t max_unsent;     /* bytes unsent on a channel; with more, items and calls wait, and if answers are among
                          them and no call of ours is open, the channel is not read; 1 MiB */
        size_t max_waiting;    /* calls of ours that wait for Hello, room or credit; 4,096; beyond it they fail */
        uint64_t
                max_waiting_bytes; /* of these, with answers and items that wait for the lane; 64 MiB; beyond it calls fail */
        uint64_t max_memory;       /* bytes that its streams may have waiting here together;
                          256 MiB; beyond it calls fail */
        uint64_t max_shared;       /* bytes of arenas, of ours and of the peer's each; 64 MiB */
        uint64_t arena_size;       /* bytes of an ordinary arena of ours, a power of two from 4 KiB to 1 GiB; 4 MiB */
        uint64_t max_object;       /* bytes of its sealed objects, of one and of all that are mapped; 4 GiB */
        uint64_t hello_timeout_us; /* Hello, from the channel's opening; 10 s */
        uint64_t frame_timeout_us; /* the rest of a frame begun; 30 s */
        uint64_t renewal_timeout_us; /* a renewal, from the channel's loss; 60 s */
} PeerLimits;

/* peer_limits_are_valid() - whether what is not 0 can be. */
bool peer_limits_are_valid(const PeerLimits *limits);

/* A payload that comes as a sealed memfd (proto/object.c). */
typedef enum PeerObjects {
        PEER_OBJECTS_NONE, /* is not accepted */
        PEER_OBJECTS_MAP,  /* is mapped, and the payload as any other */
        PEER_OBJECTS_PASS, /* stays the last of the frame's descriptors, for whoever relays: Envelope.object says so */
} PeerObjects;

typedef struct PeerConfig {
        unsigned side;       /* of the lane */
        unsigned n_channels; /* 3 between supervisor and runner, 1 elsewhere */
        uint8_t unserved; /* bits 1 << channel, of FILESYSTEM and DATA: our end is closed at once; the peer finds EOF */
        LaneRenewal renewal; /* who may renew */
        uint32_t epoch;      /* to begin in: 0, but for a supervisor that adopts a runner's lane: its generation */
        const PeerLimits *limits;    /* NULL: all defaults; copied */
        const char *software;        /* copied */
        const char *const *features; /* NULL-terminated or NULL; the strings must outlive the peer */
        bool share;                  /* offer shared arenas for large payloads (proto/arena.h) */
        bool crosses;                /* it may be captured (proto/peer-cross.h): what that needs is kept */
        bool at_rest;                /* of peer_restore(): no event is wanted before peer_own() */
        PeerObjects objects;         /* what becomes of sealed objects */
        uint64_t instance;           /* what our Hello states; a runner: 0 */
        uint32_t service_state;      /* of a runner; see peer_set_service() */
} PeerConfig;

/* The event loop's side. @host is what peer_new() was given. */
typedef struct PeerHost {
        void (*watch)(void *host, unsigned slot, int fd,
                      unsigned events); /* events 0: stop, @fd is about to be closed */
        void (*wake)(void *host);       /* call peer_flush() before waiting */
        void (*release)(void *host);    /* last call: the peer is gone; NULL: none needed */
} PeerHost;

/* The application's side; each may be NULL. */
typedef struct PeerHandler {
        /* Hello was exchanged; again after each renewal, then with @renewed. */
        void (*ready)(Peer *peer, bool renewed);
        /* Channel FILESYSTEM or DATA has arrived and waits for peer_take_channel() or peer_frame_channel(). */
        void (*channel)(Peer *peer, unsigned channel);
        /* A call of the peer's, to be ended exactly once with call_answer() or call_fail(), now or later. */
        void (*call)(Peer *peer, Call *call);
        /*
   * Nothing more comes from the peer: open calls of ours have been told before,
   * but for those that wait behind items that were not taken; the
   * peer's are cancelled. OK: an orderly end.
   */
        void (*ended)(Peer *peer, Status status, const char *reason);
} PeerHandler;

/* What the peer's Hello said, defaults filled in. */
typedef struct PeerRemote {
        uint32_t protocol; /* agreed version; 0: no Hello yet */
        uint64_t max_frame;
        uint32_t max_calls, fd_credit;
        uint64_t stream_window;
        uint64_t instance;
        uint32_t service_state;
        uint64_t last_event;
        uint64_t max_object;
        char *software;
        uint64_t features; /* bit n: our features[n] is active */
} PeerRemote;

/* What happened that nobody else is told. */
typedef struct PeerCounters {
        uint64_t calls_out, calls_in;
        uint64_t late;         /* frames for calls that were over: dropped */
        uint64_t ignored;      /* frames that mean nothing in their direction */
        uint64_t refused;      /* calls of the peer's refused by a limit of ours */
        uint64_t lost_fds;     /* descriptors lost to our own limit */
        uint64_t unlisted_fds; /* descriptors closed because nobody listed or took them */
} PeerCounters;

/* ---- the peer ---- */

/*
 * peer_new() - side 0 makes the channels at once and queues the other ends. @lane_fd_consume may be -1: then what is
 * sent is queued until peer_connect(). 0, or a negative errno (-EMFILE, -ENOMEM): the lane is closed, @host not released.
 */
int peer_new(Peer **ret_peer, const PeerConfig *config, int lane_fd_consume, const PeerHost *host_functions,
             void *host, const PeerHandler *handler, void *userdata);

/* peer_connect() - gives a peer that was made without one its lane. */
void peer_connect(Peer *peer, int lane_fd_consume);

/*
 * peer_free() - ends everything without a CLOSE frame and without callbacks; calls of the peer's that are still to be
 * answered stay valid until their owners end them. Accepts NULL, returns NULL.
 */
Peer *peer_free(Peer *peer);
DEFINE_CLEANUP(Peer *, peer_free);

void *peer_userdata(const Peer *peer);
const PeerRemote *peer_remote(const Peer *peer);
const PeerCounters *peer_counters(const Peer *peer);
bool peer_is_ready(const Peer *peer);
/* peer_will_tell() - whether the next peer_flush() may call back. */
bool peer_will_tell(const Peer *peer);
/* peer_is_flushed() - whether every frame begun and every answer given is with the kernel, or can be sent no more. */
bool peer_is_flushed(const Peer *peer);
/* peer_open_calls() - calls of ours and of the peer's that are open or waiting. */
size_t peer_open_calls(const Peer *peer, size_t *ret_incoming);
/* peer_owed_calls() - of the peer's calls those that nobody has answered yet. */
size_t peer_owed_calls(const Peer *peer);

/* peer_set_service() - what a runner's next Hello says of its service. */
void peer_set_service(Peer *peer, uint32_t service_state, uint64_t last_event);

/* peer_learn_service() - what the peer has said of its service since its Hello: peer_remote() has it. */
void peer_learn_service(Peer *peer, uint32_t service_state, uint64_t last_event);

/* peer_set_instance() - what our next Hello states. */
void peer_set_instance(Peer *peer, uint64_t instance);

void peer_dispatch(Peer *peer, unsigned slot, unsigned events);
void peer_flush(Peer *peer);
/* peer_deadline() - in clock_now() microseconds; USEC_INFINITY: none. */
uint64_t peer_deadline(const Peer *peer);
void peer_expire(Peer *peer);

/*
 * peer_close() - tells the peer (CLOSE, best effort), closes lane and channels
 * and reports ended(). A second call, or one after the end, does nothing.
 */
void peer_close(Peer *peer, Status status, const char *format, ...) _printf_(3, 4);

/* peer_take_channel() - as baton_runner_take_channel(): 0, -EAGAIN, -EEXIST, -EINVAL. */
int peer_take_channel(Peer *peer, unsigned channel, int *ret_fd);
/* peer_frame_channel() - as baton_runner_frame_channel(): 0, -EEXIST, -EINVAL. */
int peer_frame_channel(Peer *peer, unsigned channel);

/*
 * peer_renew() - the side that may: fresh channels in @epoch (higher than before), Hello again; calls of ours that were
 * open end UNAVAILABLE, the peer's are cancelled. 0, -EMFILE, -ENOMEM, -EPERM (LANE_RENEWAL_SELF only), -ESTALE.
 */
int peer_renew(Peer *peer, uint32_t epoch);

/* ---- buffers ---- */

/*
 * A payload to be written in place and sent: where it is large, in memory shared with the peer, if that takes arenas and
 * there is room, or in a sealed object of its own; else private, and copied as any payload. Which of them, nobody need
 * know. What lies in an arena is copied when it is sent with a `type', or to another peer than it was made for. It may be
 * held longer than the peer lives.
 */
typedef struct PeerBuffer PeerBuffer;

/* peer_buffer_new() - @size bytes, whatever is in them. 0 or -ENOMEM. */
int peer_buffer_new(Peer *peer, size_t size, PeerBuffer **ret_buffer);
/* peer_buffer_free() - one that was not sent. Accepts NULL, returns NULL. */
PeerBuffer *peer_buffer_free(PeerBuffer *buffer);
void *peer_buffer_data(PeerBuffer *buffer, size_t *ret_size);
/* peer_buffer_trim() - it is only @size bytes long. 0, -ERANGE. */
int peer_buffer_trim(PeerBuffer *buffer, size_t size);
bool peer_buffer_is_shared(const PeerBuffer *buffer);
/* peer_view_release() - a view that was taken goes back to @peer, soon. Good for an empty one. */
void peer_view_release(Peer *peer, ArenaView *view);

/* ---- streams ---- */

/*
 * One element of a stream. The envelope gives its type; all of it is valid
 * while the callback runs. Descriptors not set to -1 are closed when it was
 * taken.
 */
typedef struct Item {
        const Baton__Envelope *envelope;
        const uint8_t *payload;
        size_t size;
        int *fds;
        size_t n_fds;
        bool end;          /* the caller's half-close: no item follows */
        bool bare;         /* nothing but the half-close */
        ArenaView *shared; /* the payload lies in shared memory; who takes the view keeps it. NULL: inline */
} Item;

/*
 * CallItem - true: the item was taken. False: not now; it is kept, nothing more
 * of this call is delivered before call_resume(), and then this item again.
 */
typedef bool (*CallItem)(Call *call, const Item *item, void *userdata);

/* CallWritable - after call_send() said -EAGAIN: it is worth trying again. */
typedef void (*CallWritable)(Call *call, void *userdata);

typedef struct ItemParameters {
        const char *type; /* NULL: raw bytes */
        const void *payload;
        size_t size;
        const int *fds_consume; /* taken when the result is 0, else left to the caller */
        size_t n_fds;
        PeerBuffer *buffer; /* instead of the payload; taken when the result is 0 */
        uint64_t object;    /* instead of the payload: the last descriptor is a sealed object of so many bytes */
} ItemParameters;

/*
 * call_send() - one item on a call of either direction. 0: on its way; -EAGAIN:
 * the peer, or the channel, takes no more for now: nothing was done,
 * CallWritable tells when to try again; -EMSGSIZE: more than the peer ever
 * takes at once; -ECANCELED: the call is over; -EPIPE: half-closed; -EINVAL: a
 * type that is no text; -ENOMEM.
 */
int call_send(Call *call, const ItemParameters *parameters);

/* call_end() - the half-close of a call of ours: no item follows; it goes after
 * those that are on their way. 0, as above. */
int call_end(Call *call);

/* call_resume() - of either direction: what was not taken is delivered again,
 * from the next flush on. */
void call_resume(Call *call);

/* ---- calls of ours ---- */

typedef struct CallParameters {
        unsigned channel;
        const char *method;
        const char *type; /* NULL: raw bytes */
        const void *payload;
        size_t size;
        uint64_t timeout_us;    /* 0: no deadline */
        const int *fds_consume; /* taken on every path */
        size_t n_fds;
        Baton__Pair *const *metadata;
        size_t n_metadata;
        PeerBuffer *buffer;    /* instead of the payload; taken on every path */
        uint64_t object;       /* instead of the payload: the last descriptor is a sealed object of so many bytes */
        bool needed;           /* the engine's own, bounded there: max_waiting is not for it */
        bool stream;           /* items of ours follow, until call_end() */
        CallItem item;         /* items of the peer's come; NULL: one that comes ends the
                    call, UNIMPLEMENTED */
        CallWritable writable; /* both with the userdata of @done */
} CallParameters;

/*
 * The end of a call of ours: what the peer answered, or what became of the call instead. The envelope gives type,
 * details and metadata; all of it is valid while the callback runs. Descriptors not set to -1 are closed afterwards.
 */
typedef struct Answer {
        Status status;
        const char *message; /* "" where there is none */
        const Baton__Envelope *envelope;
        const uint8_t *payload;
        size_t size;
        int *fds;
        size_t n_fds;
        ArenaView *shared; /* the payload lies in shared memory; who takes the view keeps it. NULL: inline */
        bool local;        /* not the peer's words: deadline, end of the peer, a limit */
} Answer;

typedef void (*CallDone)(Call *call, const Answer *answer, void *userdata);

/*
 * call_start() - everything is copied. @done is called exactly once, later, unless the call is cancelled before; it may
 * be NULL. 0; -EINVAL (no method, one over 255 bytes, not UTF-8, or not such a channel), -ENOMEM, -ESHUTDOWN (the peer
 * has ended). What the peer's limits forbid is told by @done.
 */
int call_start(Peer *peer, const CallParameters *parameters, CallDone done, void *userdata, Call **ret_call);

/* call_cancel() - a call of ours: @done will not be called; the peer is told. The pointer is gone. */
void call_cancel(Call *call);

/* ---- calls of the peer's ---- */

/* call_envelope(), call_payload() - of the request; valid until the handler returns. */
const Baton__Envelope *call_envelope(const Call *call);
const uint8_t *call_payload(const Call *call, size_t *ret_size);
/* call_fds() - the descriptors listed, in order; the caller may take one by leaving -1. Valid until the call is ended. */
int *call_fds(Call *call, size_t *ret_n);
/*
 * call_shared() - the payload lies in shared memory: valid until the handler returns, unless it takes the view. NULL:
 * inline.
 */
ArenaView *call_shared(Call *call);
Peer *call_peer(const Call *call); /* NULL once the peer is gone */
unsigned call_channel(const Call *call);
/* call_time_left() - until the deadline; USEC_INFINITY without one. */
uint64_t call_time_left(const Call *call);
bool call_is_cancelled(const Call *call);
/* call_on_cancel() - @function is called once when nobody waits any more; the call must still be ended. */
void call_on_cancel(Call *call, void (*function)(Call *call, void *userdata), void *userdata);
/*
 * call_on_answer() - @function is called when the call is ended, from within call_answer(), whether anybody still waits or
 * not: for whoever keeps account of calls. @message is "" where there is none. It may do nothing with the call.
 */
void call_on_answer(Call *call, void (*function)(Call *call, Status status, const char *message, void *userdata),
                    void *userdata);

/* call_takes_items() - whether the caller sends items; then call_on_stream()
 * must name who takes them, in the handler. */
bool call_takes_items(const Call *call);
/* call_on_stream() - who takes the caller's items (NULL: one that comes ends
 * the call), and who waits to send. */
void call_on_stream(Call *call, CallItem item, CallWritable writable, void *userdata);

typedef struct AnswerParameters {
        Status status;
        const char *message;
        const char *type;
        const void *payload;
        size_t size;
        const int *fds_consume; /* taken on every path */
        size_t n_fds;
        Baton__Detail *const *details;
        size_t n_details;
        Baton__Pair *const *metadata;
        size_t n_metadata;
        PeerBuffer *buffer; /* instead of the payload; taken on every path */
        uint64_t object;    /* instead of the payload: the last descriptor is a sealed object of so many bytes */
} AnswerParameters;

/*
 * call_answer() - ends a call of the peer's and takes @call, on every path. 0; -ECANCELED: nobody waits any more;
 * -EMSGSIZE: larger than the peer accepts, it got RESOURCE_EXHAUSTED; -ENOMEM likewise.
 */
int call_answer(Call *call, const AnswerParameters *parameters);

/* call_answer_message() - call_answer() with OK and @message packed; its type is the message's full name. */
int call_answer_message(Call *call, const ProtobufCMessage *message);

/* call_fail() - call_answer() with @status and one line for people. */
int call_fail(Call *call, Status status, const char *format, ...) _printf_(3, 4);

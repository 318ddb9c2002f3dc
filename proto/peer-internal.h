#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the RPC engine share, and nobody else includes:
 * peer.c (life, channels, Hello, renewal, time), input.c (frames in), output.c (frames out), call.c (calls).
 */

#include <sys/queue.h>

#include "common/frame.h"
#include "common/lane.h"
#include "common/spare.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/peer.h"

#define FRAME_LIMIT_BEFORE_HELLO (64u * 1024u)
#define ENVELOPE_SIZE_FIELD      4u /* u32 big-endian before the Envelope */
#define METHOD_MAX               255u
#define CALL_BUCKETS             256u /* ids count up: they spread by themselves */

typedef struct Parcel Parcel;
typedef struct Queued Queued;
typedef struct Share Share;
typedef struct SharePool SharePool;

typedef enum PeerState {
        PEER_STATE_HELLO, /* channel 0 is there or to come, Hellos are not exchanged */
        PEER_STATE_READY,
        PEER_STATE_WAITING, /* channel 0 is lost, the other side may renew */
        PEER_STATE_ENDED,
} PeerState;

/* Who has a channel. */
typedef enum ChannelUse {
        CHANNEL_ABSENT,
        CHANNEL_WAITING, /* arrived; nobody took it */
        CHANNEL_FRAMED,
        CHANNEL_RAW, /* taken by the application */
} ChannelUse;

typedef struct Channel {
        int fd;
        ChannelUse use;
        bool want_framed; /* frame it whenever it arrives */
        bool stalled;     /* the kernel took not all: wait for PEER_OUT */
        bool had_backlog; /* since the last flush that found none */
        bool paused;      /* the peer does not read its answers: not read */
        bool broken;      /* cannot be written any more; EOF is still to be read */
        bool lost;        /* 1 and 2: the peer has closed it; there is none before a renewal */
        unsigned watched; /* events told to the host */
        FrameReader reader;
        FrameWriter writer;
        uint64_t written;       /* bytes of all frames; those the writer does not have any more are sent */
        uint64_t answers_end;   /* of @written: where the last ANSWER ends */
        uint64_t answers_mark;  /* of @written; not sent yet, and since then: */
        uint32_t n_answers;     /* were written. For the peer these calls are certainly open. */
        uint64_t partial_since; /* a frame has begun and not ended; 0: none */
        uint64_t next_out;      /* id of our next call */
        uint64_t last_in;       /* highest id the peer has called with */
        uint64_t *sent_fds; /* 1 and 2: the last descriptors that went before frames of it, for peer_disown_fds() */
        uint32_t n_sent_fds, size_sent_fds;
} Channel;

struct Call {
        LIST_ENTRY(Call) bucket_link; /* peer->buckets; only while it is open */
        LIST_ENTRY(Call) link;        /* peer->outgoing or peer->incoming */
        uint64_t id;
        TAILQ_ENTRY(Call) deadline_link;
        Peer *peer;        /* NULL: gone */
        uint64_t deadline; /* USEC_INFINITY: none */
        bool in_deadlines;
        bool outgoing;
        bool open; /* has an id that is in use on the wire, in peer->buckets */
        uint8_t channel;
        uint32_t saved;   /* its number in what was saved last; 0: it was not there */
        uint64_t link_id; /* its id on the link to the successor that has its connection; 0: there is none */
        bool restored, claimed;
        bool carried; /* goes to the successor as it is, and not to a link */

        /* ours */
        CallDone done; /* NULL: told, or cancelled */
        void *userdata;
        Parcel *parcel; /* not written yet */
        bool cancel_sent;
        bool telling; /* its function runs */
        TAILQ_ENTRY(Call) failed_link;
        bool failed; /* in peer->failed, with: */
        Status status;
        char *message;

        /* the peer's */
        bool over;                       /* nobody waits for the answer */
        bool *gone;                      /* while the handler runs: set when it has ended the call */
        const Baton__Envelope *envelope; /* while the handler runs */
        const uint8_t *payload;
        size_t size;
        ArenaView *shared; /* while the handler runs */
        int *fds;
        size_t n_fds;
        void (*on_cancel)(Call *call, void *userdata);
        void *on_cancel_userdata;
        void (*on_answer)(Call *call, Status status, const char *message, void *userdata);
        void *on_answer_userdata;

        /* streams, both directions */
        bool streams; /* something of the following is to be dropped at the end */
        CallItem on_item;
        CallWritable on_writable;
        void *stream_userdata;
        bool sends;      /* ours: has not half-closed */
        bool end_wanted; /* ours: the half-close follows what is on its way */
        bool takes;      /* the peer's: its caller has not half-closed */
        bool paused;     /* the receiver said: not now */
        bool answered;   /* ours: the ANSWER waits in the queue, or the call ends behind it; the id is free */
        bool fails;      /* ours: with `status' and `message', when what is in the queue was taken */
        bool scheduled;  /* in peer->scheduled */
        TAILQ_ENTRY(Call) scheduled_link;
        uint64_t credit_out;         /* what we may send */
        uint64_t window_in;          /* what the peer may send */
        uint64_t owed;               /* taken, to be returned */
        uint64_t blocked;            /* cost of the item that was refused; 0: none */
        uint64_t reserved;           /* of peer->reserved_bytes */
        STAILQ_HEAD(, Queued) queue; /* received, not taken */
};

/* A frame of a stream that was received and could not be taken yet. */
struct Queued {
        STAILQ_ENTRY(Queued) link;
        uint64_t cost;
        uint64_t excess; /* of call->reserved: bytes that its cost does not stand for */
        ArenaView view;  /* its payload, where that lies in shared memory */
        int *fds;
        size_t n_fds, length;
        uint8_t body[];
};

typedef enum ParcelKind {
        PARCEL_CALL,
        PARCEL_ITEM,
        PARCEL_ANSWER,
} ParcelKind;

/* A frame that cannot be written yet: a call that waits for Hello or room, or descriptors that wait for the lane. */
struct Parcel {
        TAILQ_ENTRY(Parcel) link;
        ParcelKind kind;
        Call *call;    /* CALL: always; ITEM: NULL when the call is over; ANSWER: NULL */
        Parcel *after; /* ANSWER: the ITEM of the same call that goes first */
        uint8_t channel;
        bool on_lane;  /* descriptors are with the lane: it must be written */
        bool captured; /* it goes with the connection: not written here */
        bool has_block;
        ArenaBlock block; /* given to the peer; ours again when it is not written */
        uint64_t id;      /* ITEM, ANSWER */
        uint64_t mark;    /* of the lane */
        uint64_t object;  /* bytes; the payload is a sealed object, the last of the descriptors; 0: it is not */
        int *fds;
        uint64_t *ids;
        size_t n_fds;
        size_t envelope_size, payload_size;
        uint8_t bytes[]; /* Envelope without id, fds, timeout and credit; payload */
};

TAILQ_HEAD(ParcelQueue, Parcel);
TAILQ_HEAD(CallQueue, Call);
LIST_HEAD(CallList, Call);

struct Peer {
        PeerHost host_functions;
        void *host;
        PeerHandler handler;
        void *userdata;

        PeerState state;
        unsigned depth; /* of callbacks in progress */
        bool freed;     /* by one of them */
        bool awake;     /* host->wake() was called */
        bool doomed;    /* what must be sent found no memory: the next flush ends the peer */
        bool renewing;  /* the old channels are being read to their end */
        int renewal_fd; /* channel 0 of a higher epoch: the lane is not read on before the old one is over; -1: none */
        uint32_t renewal_epoch;

        bool borrowed;             /* restored, and not ours alone yet: nothing of it is shut down */
        bool frozen;               /* no event is handled, nothing is sent: peer_freeze() */
        struct Captured *captured; /* what was set aside for another process; NULL: nothing */
        Call **restored;           /* by their numbers; NULL: ours */
        size_t n_restored;

        unsigned side, n_channels;
        uint8_t unserved; /* PeerConfig.unserved */
        LaneRenewal renewal;
        PeerLimits limits;
        char *software;
        const char *const *features;
        uint64_t instance, last_event;
        uint32_t service_state;
        PeerRemote remote;
        PeerCounters counters;

        Lane lane;
        unsigned lane_watched;
        bool lane_stalled;
        bool lane_eof;
        uint64_t lane_retry; /* too many descriptors in flight: try again then */
        Channel channels[LANE_CHANNELS];
        uint8_t *kept
                [LANE_CHANNELS]; /* read buffers of closed channels: a callback in progress may still look at them */

        uint64_t fd_credit; /* descriptors we may send */
        uint64_t fd_owed;   /* to be returned */

        struct CallList buckets[CALL_BUCKETS]; /* open on the wire, by id */
        struct CallList outgoing, incoming;
        Spare spare;                /* calls */
        struct CallQueue deadlines; /* sorted */
        struct CallQueue failed;
        struct CallQueue scheduled; /* streams with something to do at the next flush */
        size_t n_scheduled;
        bool has_blocked;        /* a producer, or credit, waits for the backlog of a channel */
        uint64_t reserved_bytes; /* of limits.max_memory */
        struct ParcelQueue parcels;
        size_t n_parcels, parcel_bytes;
        uint32_t open_out, open_in;
        uint32_t lane_calls; /* of ours, not open yet, whose descriptors are with the lane: they will be */
        size_t held_fds;     /* by the peer's calls, and by what was not taken */

        uint64_t hello_deadline, renewal_deadline;
        uint64_t trim_deadline; /* large buffers that were not needed lately go */
        bool offers_share, crosses;
        Share *share; /* NULL: not agreed */
        PeerObjects objects_use;
        ArenaMap *objects; /* those of the peer's that are mapped; NULL: none ever was */
        char fault[160];   /* why the frame at hand cannot be taken */
        MessageScratch scratch;
};

/* ---- peer.c ---- */
/* peer_enter(), peer_leave() - around anything that calls back; leave() frees a peer that was freed meanwhile. */
static inline void peer_enter(Peer *peer) {
        peer->depth++;
}
void peer_leave(Peer *peer);
void peer_wake(Peer *peer);
void peer_update_watch(Peer *peer, unsigned slot);
void peer_watch_all(Peer *peer);
/* peer_allocate() - what peer_new() makes, without channels and lane. 0 or -ENOMEM. */
int peer_allocate(Peer **ret_peer, const PeerConfig *config, const PeerHost *host_functions, void *host,
                  const PeerHandler *handler, void *userdata);
/* peer_end() - the end, told to the peer by CLOSE where @tell; @reason is for people. */
void peer_end(Peer *peer, Status status, bool tell, const char *format, ...) _printf_(4, 5);
/* peer_doom() - as peer_end(), from where nobody may be called back. */
void peer_doom(Peer *peer);
/* peer_drain_lane() - reads the lane once, without waiting. */
void peer_drain_lane(Peer *peer);
/* peer_read_rest() - before an end that was read: all framed channels but @except, to their ends. */
void peer_read_rest(Peer *peer, unsigned except);
/* peer_hello_received() - checks and takes the peer's Hello. */
void peer_hello_received(Peer *peer, const Baton__Hello *hello);
/* peer_channel_lost() - EOF or an error on channel @n. */
void peer_channel_lost(Peer *peer, unsigned n, int error);

/* ---- peer-save.c ---- */
/* peer_save_crossing() - peer_save() of a connection whose calls end in this process: peer_capture(). */
int peer_save_crossing(Peer *peer, const char *prefix, Manifest *manifest, Baton__Handover__Peer **ret_state);

/* ---- peer-cross.c ---- */
/* peer_drop_captured() - what was set aside, if anything. */
void peer_drop_captured(Peer *peer);

/* ---- input.c ---- */
/*
 * peer_read_channel() - reads and handles frames: a bounded share, or, with @to_end, all there is now. FRAME_EOF, a
 * negative errno (the channel is lost), or anything else: go on.
 */
int peer_read_channel(Peer *peer, unsigned n, bool to_end);
/* peer_refuse_item() - ends a call that should not have got an item. */
void peer_refuse_item(Peer *peer, Call *call, Status status, const char *why);

/* ---- output.c ---- */
/* peer_write() - one frame into the channel's writer; credit owed goes along. 0, -ENOMEM, -EMSGSIZE. */
int peer_write(Peer *peer, unsigned n, Baton__Envelope *envelope, const void *payload, size_t size);
int peer_send_call(Peer *peer, Call *call, const CallParameters *parameters);
int peer_send_answer(Peer *peer, unsigned channel, uint64_t id, Parcel *after, const AnswerParameters *parameters,
                     bool *ret_deferred);
int peer_send_item(Call *call, Baton__Envelope *envelope, const ItemParameters *parameters);
/* peer_weigh_item() - how many bytes and descriptors of the stream's credit it costs. */
void peer_weigh_item(const Call *call, const ItemParameters *parameters, uint64_t *ret_size, size_t *ret_n_fds);
void peer_send_hello(Peer *peer);
void peer_send_cancel(Peer *peer, Call *call);
/* peer_pump() - writes what has waited, as far as credit, room and lane allow. */
void peer_pump(Peer *peer);
/* A parcel of another process's, as it was there. */
typedef struct ParcelParts {
        ParcelKind kind;
        unsigned channel;
        bool on_lane;
        Call *call;
        Parcel *after;
        uint64_t id, mark, object;
        const uint64_t *ids; /* on_lane */
        const int *fds;      /* not on_lane; taken on success */
        size_t n_fds;
        const void *envelope, *payload;
        size_t envelope_size, payload_size;
} ParcelParts;

/* peer_restore_parcel() - behind all others. NULL: no memory. */
Parcel *peer_restore_parcel(Peer *peer, const ParcelParts *parts);
/* peer_drop_parcel() - with its descriptors. */
void peer_drop_parcel(Peer *peer, Parcel *parcel);
/* peer_disown_fds() - channel @n, not 0, is lost, and with it frames that list descriptors: their credit comes back. */
void peer_disown_fds(Peer *peer, unsigned n);
/* peer_max_frame() - what the peer accepts. */
static inline uint64_t peer_max_frame(const Peer *peer) {
        return peer->remote.protocol ? peer->remote.max_frame : FRAME_LIMIT_BEFORE_HELLO;
}

static inline bool peer_has_backlog(const Peer *peer, const Channel *channel) {
        return frame_writer_pending(&channel->writer) > peer->limits.max_unsent;
}

/* channel_sent() - of channel->written: what the kernel has taken. */
static inline uint64_t channel_sent(const Channel *channel) {
        return channel->written - frame_writer_pending(&channel->writer);
}

/* peer_is_unheard() - a backlog of answers, and nothing of ours is open: reading on would only make more of them. */
static inline bool peer_is_unheard(const Peer *peer, const Channel *channel) {
        return peer_has_backlog(peer, channel) && channel->answers_end > channel_sent(channel) && peer->open_out == 0;
}

/* channel_unsent_answers() - at least so many; at most as many were sent or written before them. */
static inline uint32_t channel_unsent_answers(const Channel *channel) {
        return channel_sent(channel) < channel->answers_mark ? channel->n_answers : 0;
}

/* ---- share.c ---- */
#define SHARE_FEATURE "arena"
int share_open(Peer *peer);
/* share_map(), share_pool() - of a peer that shares. */
ArenaMap *share_map(const Peer *peer);
ArenaPool *share_pool(const Peer *peer);
/* share_follow() - another process's arenas @ids, up to @serial, are over: the other side is told. 0 or -ENOMEM. */
int share_follow(Peer *peer, uint64_t serial, const uint64_t *ids, size_t n);
/* share_leave() - the other side's memory is only given back from here on; none of ours is shared any more. */
void share_leave(Peer *peer);
void share_close(Peer *peer);
void share_flush(Peer *peer);
uint64_t share_deadline(const Peer *peer);
/* share_blocks() - of ours that are not free. */
size_t share_blocks(const Peer *peer);
void share_expire(Peer *peer, uint64_t now);
/* share_is_method() - whether it is one of baton.Arena's. */
bool share_is_method(const Peer *peer, const char *method);
/* share_called() - takes a call of baton.Arena's. False: it is none. */
bool share_called(Peer *peer, Call *call);
/*
 * share_use() - how @buffer travels: as @block (true), or as the payload that is written to @ret_payload and @ret_size.
 * Without a buffer neither is touched.
 */
bool share_use(const Peer *peer, const PeerBuffer *buffer, const char *type, Baton__Block *block,
               const void **ret_payload, size_t *ret_size);
/* share_give() - the block is the peer's: its frame is written, or in a parcel. */
void share_give(Peer *peer, const Baton__Block *block, ArenaBlock *ret_block);
/* share_revoke() - a parcel was dropped: the peer will never see the block. */
void share_revoke(Peer *peer, const ArenaBlock *block);
/* share_sent() - takes @buffer: its frame is accepted or refused. */
void share_sent(PeerBuffer *buffer_consume);
/*
 * share_claim() - the blocks of a frame; @bare: it has no payload of its own. The one that is the payload is resolved, all
 * others go back. 0 or a negative errno for arena_error(): the call is to be refused.
 */
int share_claim(Peer *peer, const Baton__Envelope *envelope, bool bare, ArenaView *ret_view);

/* ---- object.c ---- */
struct PeerBuffer {
        SharePool *pool; /* NULL: not in an arena */
        ArenaBlock block;
        uint8_t *memory;
        size_t size;
        int fd;        /* of an object, until it is sealed; -1: none */
        size_t mapped; /* bytes of it; 0: no object */
};

/* object_is_accepted() - whether the peer takes an object of @size bytes. */
static inline bool object_is_accepted(const Peer *peer, uint64_t size) {
        return size > 0 && size <= peer->remote.max_object;
}
/* object_buffer_new() - memory of @size bytes for @buffer. 0 or a negative errno. */
int object_buffer_new(PeerBuffer *buffer, size_t size);
void object_buffer_free(PeerBuffer *buffer);
/* object_make() - the object that is to be sent: @buffer's own, or a copy of @payload, which is @buffer's if there is one. */
int object_make(PeerBuffer *buffer, const void *payload, size_t size, int *ret_fd);
/*
 * object_claim() - the object of a frame, the last of its descriptors, which are all there, with @payload bytes beside it:
 * mapped, or checked as far as a relay does. What is not STATUS_OK ends the call, with peer->fault.
 */
Status object_claim(Peer *peer, const Baton__Envelope *envelope, int *fds, size_t *n_fds, size_t payload,
                    ArenaView *ret_view);

/* ---- stream.c ---- */
void stream_schedule(Call *call);
/* stream_written() - what of @call was held back has been written. */
void stream_written(Call *call);
/* stream_credit() - a CREDIT of the peer's. */
void stream_credit(Call *call, uint64_t credit);
void stream_backlog_gone(Peer *peer);
/* stream_reserve() - room for the window of @call, which may receive items from here on. -ENOBUFS. */
int stream_reserve(Call *call);
/*
 * stream_received() - an ITEM; @item's descriptors are left to the caller unless set to NULL. 0; -ENOBUFS: it was not
 * taken, and may not be kept.
 */
int stream_received(Call *call, const uint8_t *body, size_t length, Item *item);
/*
 * stream_queue_answer() - the ANSWER to a call whose items wait. 0, -ENOBUFS; the descriptors are taken on success.
 */
int stream_queue_answer(Call *call, const uint8_t *body, size_t length, ArenaView *view, int *fds_consume,
                        size_t n_fds);
/*
 * stream_restore() - what was received and not taken, behind what is there; @fds_consume is taken on success. 0, -ENOMEM;
 * -EPROTO: it is no frame.
 */
int stream_restore(Call *call, const uint8_t *body, size_t length, uint64_t cost, uint64_t excess, int *fds_consume,
                   size_t n_fds);
/* stream_fail_later() - as call_fail_local(), behind the items of @call that were not taken; false: there are none. */
bool stream_fail_later(Call *call, Status status, const char *reason);
/* stream_drop() - the call is over: what was received and not taken, and what was reserved, goes. */
void stream_drop_all(Call *call);
static inline void stream_drop(Call *call) {
        if (call->streams)
                stream_drop_all(call);
}
void peer_flush_streams(Peer *peer);

/* ---- call.c ---- */
bool text_is_valid(const char *text);
Call *call_find(Peer *peer, unsigned channel, uint64_t id);
/* call_restore() - one that is in no table yet. NULL: no memory. */
Call *call_restore(Peer *peer, bool outgoing);
/* call_restore_failed() - it has failed, with its status and message, and nobody was told. */
void call_restore_failed(Call *call);
void call_watch_deadline(Call *call);
/* call_unheard() - the function of calls about whose end nobody asks. */
void call_unheard(Call *call, const Answer *answer, void *userdata);
void call_open(Peer *peer, Call *call, uint64_t id);
void call_close(Call *call);
/* call_forget() - it goes on elsewhere: a call of ours is gone, one of the peer's is its owner's alone. */
void call_forget(Call *call);
/* call_release() - frees a call of ours that nobody asks about any more, once its id is free. */
void call_release(Call *call);
/* call_fail_local() - ends a call of ours without an answer; its function is called by peer_deliver_failed(). */
void call_fail_local(Call *call, Status status, const char *format, ...) _printf_(3, 4);
void peer_deliver_failed(Peer *peer);
/* call_answered() - the peer's answer: tells, and frees. */
void call_answered(Call *call, const Answer *answer);
/* call_over() - a call of the peer's that nobody waits for any more: tells the handler. */
void call_over(Call *call);
/* peer_accept_call() - a CALL that passed the checks of its id: to the handler, or refused. @fds is taken. */
void peer_accept_call(Peer *peer, unsigned channel, const Baton__Envelope *envelope, const uint8_t *payload,
                      size_t size, ArenaView *shared, int *fds_consume, size_t n_fds);
/* peer_refuse_call() - answers a CALL at once. */
void peer_refuse_call(Peer *peer, unsigned channel, uint64_t id, Status status, const char *format, ...)
        _printf_(5, 6);
/*
 * peer_end_calls() - all calls of @channel, or with -1 all: ours end with @status, the peer's are cancelled. With
 * @keep_unsent those of ours that were not begun to be sent go on waiting.
 */
void peer_end_calls(Peer *peer, int channel, bool keep_unsent, Status status, const char *reason);
/* peer_forget_calls() - without a word to anybody; the peer's calls stay valid for their handlers. */
void peer_forget_calls(Peer *peer);
void peer_expire_calls(Peer *peer, uint64_t now);

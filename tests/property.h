#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Model of calls and streams for tests/test-property.c: two peers of the engine, what each of their calls has sent and
 * heard, and the checks. What happens when is decided by random numbers of a seed.
 */

#include "tests/peer-host.h"

#define PROPERTY_TRACKS     48
#define PROPERTY_FLOW_ITEMS 256
#define PROPERTY_FDS        6
#define PROPERTY_HELD       8

typedef struct Side Side;

/* What is sent: bytes by rule, descriptors out of the world's files. */
typedef struct Content {
        uint32_t size;
        uint32_t pattern;
        uint8_t n_fds, file;
        bool buffer; /* by a PeerBuffer: in shared memory, if there is room */
} Content;

/* One direction of one stream. */
typedef struct Flow {
        Content items[PROPERTY_FLOW_ITEMS];
        unsigned sent, received;
        bool chosen;  /* items[sent] is what is to be sent next */
        bool blocked; /* the sender was told to wait, and not yet to go on */
        bool end_sent, end_received;
        bool stalled; /* the receiver did not take an item and has not resumed */
} Flow;

enum {
        UP,   /* the caller's items */
        DOWN, /* the callee's */
};

typedef struct Track {
        Side *caller, *callee;
        Call *out, *in; /* NULL: none, or no more */
        bool up, down;  /* which streams the caller wants */
        bool deaf;      /* the callee takes no items */
        bool rude;      /* the callee has sent items that nobody wants */
        bool arrived;   /* at the callee */
        bool over;      /* the callee was told that nobody waits, or its peer is gone */
        bool answered;  /* by the callee, and accepted by its engine */
        bool too_large; /* the answer was not: the caller gets another */
        bool cancelled, done, forgotten;
        uint64_t timeout_us;
        unsigned n_renewals; /* of the world, when it began */
        Content request, answer;
        Status status;
        Flow flows[2];
} Track;

struct Side {
        TestPeer test; /* first: it is the peer's userdata */
        PeerLimits limits;
        bool freed, ended;
        bool left; /* in order: what it answered was sent */
        unsigned index;
};

typedef struct World {
        uint64_t random;
        Side sides[2];
        Track tracks[PROPERTY_TRACKS];
        unsigned n_tracks, n_renewals, n_channels;
        int files[PROPERTY_FDS];
        uint64_t inodes[PROPERTY_FDS];
        bool calm;                     /* nobody stalls, nothing happens by chance */
        bool finishing;                /* somebody has closed or freed a peer */
        bool tight;                    /* limits are such that calls are refused */
        bool renews;                   /* renewals happen */
        bool ends;                     /* and so do peer_close() and peer_free(), in the middle */
        bool large;                    /* half of what is sent */
        bool huge;                     /* what is sent may be larger than frames */
        bool fails;                    /* allocations do, now and then */
        ArenaView held[PROPERTY_HELD]; /* payloads in shared memory that their receiver keeps */
        uint64_t sums[PROPERTY_HELD];
        const Side *holders[PROPERTY_HELD];
        unsigned n_held;
        unsigned n_usable;         /* channels that carry calls; one more may be raw */
        int raw;                   /* such a channel, taken by side 1; -1: not */
        uint64_t n_shared;         /* since the start of the program */
        unsigned chaos;            /* one in so many callbacks does something; 0: none */
        unsigned depth;            /* of callbacks */
        uint64_t n_items, n_calls; /* since the start of the program */
} World;

extern World world;
extern const PeerHandler property_handler;

uint32_t property_random(uint32_t below);

/* CHECK() - fails the test, naming the condition; the seed was printed before. */
#define CHECK(_condition)                                                                                  \
        do {                                                                                               \
                if (!(_condition))                                                                         \
                        fail_msg("%s:%d: %s (track %d)", __FILE__, __LINE__, #_condition, property_now()); \
        } while (0)
/* property_now() - which track a check is about, for its message. */
int property_now(void);

/* ---- what an application may do; each checks the result against the model ---- */
void property_start(Side *side);
void property_send(Track *track, unsigned dir);
void property_end(Track *track);
void property_cancel(Track *track);
void property_answer(Track *track);
void property_resume(Track *track, unsigned dir);
void property_renew(void);
void property_close(Side *side);
void property_free(Side *side);
/* property_act() - something of it, by chance, on @side. */
void property_act(Side *side);
bool property_alive(const Side *side);
/* property_release() - one of the payloads that are kept; false: none is. */
bool property_release(void);

/* ---- quiet ---- */
/* property_is_live() - both ends of @track are open. */
bool property_is_live(const Track *track);
/* property_full_item() - the stream takes an item as large as its window: all credit is back. */
void property_full_item(Track *track, unsigned dir);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the predecessor share, and nobody else includes: takeover.c (what is asked, and how it begins),
 * takeover-give.c (what is given while we serve), takeover-frozen.c (from the freeze on).
 */

#include "proto/transfer.h"
#include "supervisor/snapshot.h"
#include "supervisor/takeover.h"
#include "supervisor/takeovers.h"

#define TAKEOVER_FAULT_REFUSED "the predecessor refuses, at a fault point"

struct Takeover {
        Supervisor *supervisor;
        Call *call;
        uint64_t begun_us, deadline;
        int program, socket, remote; /* remote: the successor's end, until the keeper has it */
        LoopIo io;
        LoopTimer round, retry, late;
        LoopTask attempt;
        Transfer transfer; /* of a round, while `gives' */
        Manifest manifest;
        int memfd;
        size_t left, before; /* of this pass over what has changed; what there was of it */
        unsigned n_passes;
        bool gives, has_given; /* a round; everything, once */
        bool check;
        bool was_held;      /* before the freeze (snapshot_check_hold()) */
        bool asked;         /* TAKEOVER was sent */
        bool takes_runners; /* the successor does, before the end */
        bool arms;          /* the successor was told of a fault point */
        char why[MANIFEST_REASON_SIZE];
};

/* ---- takeover.c ---- */
/* takeover_enter() - the next phase. -ECANCELED: not so, at a fault point. */
int takeover_enter(const Takeover *takeover, TakeoverPhase phase);
/* takeover_end() - it is over, @why, and we serve on; @takeover is freed. */
void takeover_end(Takeover *takeover, const char *why);

/* ---- takeover-give.c ---- */
void takeover_init_giving(Takeover *takeover);
/* takeover_begin_giving() - the successor is ready to take. takeover_stop_giving() - at any time, also without a begin. */
void takeover_begin_giving(Takeover *takeover);
void takeover_stop_giving(Takeover *takeover);
/* takeover_give_more() - the round that is under way (Takeover.gives), as far as it goes without waiting. */
void takeover_give_more(Takeover *takeover);

/* ---- takeover-frozen.c ---- */
/* takeover_hand_over() - everything is written down: what is in @manifest is the last. Returns, if at all, when it is over. */
void takeover_hand_over(Takeover *takeover, const Manifest *manifest);

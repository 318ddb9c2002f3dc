#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files of the holder share, and nobody else includes: holder.c, holder-kept.c (checkpoints). */

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "supervisor/holder.h"
#include "supervisor/supervisor.h"

typedef struct HeldSet HeldSet;
typedef struct TagRange TagRange;
typedef struct Told Told;

struct Held {
        TAILQ_ENTRY(Held) link; /* the set's */
        UT_hash_handle hh;      /* by tag */
        HeldSet *set;
        uint64_t tag;
        size_t place; /* on the board */
        int fd;
        bool watched, wanted;
};
TAILQ_HEAD(HeldList, Held);

/* What is held of one runner. */
struct HeldSet {
        UT_hash_handle hh; /* by name */
        Holder *holder;
        struct HeldList list;  /* sockets before what is stored: what each instance is passed */
        struct HeldList lanes; /* of attached clients */
        unsigned n_stored;
        void *by_file;   /* of tsearch(): what is stored */
        LoopTimer timer; /* of what is stored for a limited time */
        Kept *kept;      /* the last checkpoint; NULL: none */
        char name[];
};

/* A duplicate that the keeper has told, until its entry is known. */
struct Told {
        UT_hash_handle hh; /* by tag */
        uint64_t tag;
        int fd;
};

/* Tags whose descriptors the keeper is to close, so many at a time. */
struct TagRange {
        SLIST_ENTRY(TagRange) link;
        uint64_t next;
        size_t left;
};

struct Holder {
        Supervisor *supervisor;
        Board *board;
        Held *all;     /* by tag */
        HeldSet *sets; /* by name */
        Told *told;    /* by tag */
        unsigned n_dropping;
        int epoll; /* of what is watched for a hang-up; -1: not made yet */
        LoopIo io;
        SLIST_HEAD(TagRanges, TagRange) ranges;
        unsigned n_range_drops; /* of these, on their way */
        LoopTimer drop_later;   /* when there was no room for even one of them */
        LIST_HEAD(, Keeping) keeping;
};

/* ---- holder.c ---- */
HeldSet *holder_find_set(const Holder *holder, const char *name);
/* holder_make_set() - NULL: no memory. holder_clean_set() - frees it, if it has nothing. */
HeldSet *holder_make_set(Holder *holder, const char *name);
void holder_clean_set(HeldSet *set);
/* holder_take_told() - -1: it was not told. */
int holder_take_told(Holder *holder, uint64_t tag);
/* holder_begun() - @r of the board: where it is new, the keeper is given it. 0 or a negative errno. */
int holder_begun(Holder *holder, int r);

/* ---- holder-kept.c ---- */
/* kept_init() - of a holder that has nothing yet. */
void kept_init(Holder *holder);
/* kept_recover() - from the entry in @place and what was told; what is not whole is dropped. */
void kept_recover(Holder *holder, size_t place);
/* kept_drop() - of a set; nothing where it has none. */
void kept_drop(HeldSet *set);
/* kept_drop_tags() - the keeper is told to close what it has under @n tags from @first on. */
void kept_drop_tags(Holder *holder, uint64_t first, size_t n);
/* kept_end() - whatever is on its way, in either direction, is forgotten. */
void kept_end(Holder *holder);

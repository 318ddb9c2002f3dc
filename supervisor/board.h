#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The board: what is known of descriptors that outlive their instances, and of what a runner has said of itself, in memory
 * that outlives the supervisor, too: entries of one size in a memfd of which the keeper has a duplicate.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/keeper-message.h"
#include "common/macro.h"

typedef struct Board Board;
typedef struct BoardEntry BoardEntry;

typedef enum BoardKind {
        BOARD_NONE,
        BOARD_HEADER,     /* the first entry: its tag is the last one that was given */
        BOARD_SOCKET,     /* opened for a runner */
        BOARD_STORED,     /* a descriptor that a runner has stored */
        BOARD_STATE,      /* of an instance: no descriptor belongs to it */
        BOARD_CHECKPOINT, /* n_fds + 1 descriptors, with the tags from this one's on: the manifest, and what it lists */
        BOARD_ATTACHED,   /* the runner's end of a client's lane */
        _BOARD_KIND_N,
} BoardKind;

enum {
        BOARD_NO_POLL = 1 << 0,   /* STORED: stays when its peer hangs up */
        BOARD_RELOADING = 1 << 1, /* STATE */
        BOARD_STOPPING = 1 << 2,
        BOARD_HAS_WATCHDOG = 1 << 3, /* watchdog_us is what the instance has asked for */
};

/* Native byte order: it never leaves the machine. There is no room left in it. */
struct BoardEntry {
        uint64_t tag; /* of its descriptor in the keeper; never reused; 0: the entry is free. Written last */
        uint32_t kind;
        uint32_t flags;
        uint64_t since_us, since_wall_us; /* the monotonic clock, and the other one */
        uint64_t instance;                /* STATE: whose; CHECKPOINT: that made it */
        union {
                uint64_t watchdog_us; /* STATE */
                uint64_t state_size;  /* CHECKPOINT: bytes */
                uint64_t epoch;       /* ATTACHED: of its last renewal */
        };
        int32_t main_pid; /* STATE; ATTACHED: of the client */
        union {
                int32_t error;  /* STATE */
                uint32_t n_fds; /* CHECKPOINT */
        };
        char runner[KEEPER_NAME_SIZE];
        char name[256];    /* in LISTEN_FDNAMES; STATE: what it says it is at; ATTACHED: the client's software */
        char address[128]; /* SOCKET: what it was opened as */
        uint32_t uid, gid; /* ATTACHED: of the client */
};
static_assert(sizeof(BoardEntry) == 512 && offsetof(BoardEntry, runner) == 56, "fixed, by design");

/* board_new() - without an entry, and without memory for one. 0 or -ENOMEM. */
int board_new(Board **ret_board);
/* board_adopt() - what a supervisor before has written, in @fd_consume. 0; -EBADMSG: that is no board; -ENOMEM. */
int board_adopt(Board **ret_board, int fd_consume);
Board *board_free(Board *board);
DEFINE_CLEANUP(Board *, board_free);

/* board_fd() - the memory, to be given to the keeper; -1: there is none yet. */
int board_fd(const Board *board);

/*
 * board_reserve() - @n tags that follow each other, for descriptors whose entry comes when all of them are with the keeper.
 * 0, or as board_add().
 */
int board_reserve(Board *board, size_t n, uint64_t *ret_first);

/*
 * board_add() - a copy of @entry, whose tag is made here, unless it is a reserved one, in @ret_place. Returns 0; BOARD_BEGUN: the same, and the memory is
 * new, for the keeper to be given; a negative errno.
 */
enum { BOARD_BEGUN = 1 };
int board_add(Board *board, const BoardEntry *entry, size_t *ret_place);
void board_remove(Board *board, size_t place);

/* board_entry() - valid until board_add(). Everything but its tag and kind may be changed. */
BoardEntry *board_entry(const Board *board, size_t place);

/* board_next() - the place of the next entry behind @place (begin with 0), or 0: that was the last. */
size_t board_next(const Board *board, size_t place);

/* board_find_state() - of @instance; 0: there is none. */
size_t board_find_state(const Board *board, uint64_t instance);

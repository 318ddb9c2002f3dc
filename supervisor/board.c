/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Board. One mapping, grown by doubling; entries are referred to by their place, since growing moves them. A supervisor may
 * be killed between any two stores: an entry is there as soon as its tag is, which is stored last, and gone as soon as that
 * is 0. What the mapping holds was written by a supervisor, this one or one before; it is still read with care: texts are
 * ended and kinds checked when it is adopted.
 */

#include "supervisor/board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

enum { PLACES_MIN = 8, PLACES_MAX = 1 << 16 };

struct Board {
        int fd;
        size_t n;      /* places, free ones too */
        size_t lowest; /* no place below is free */
        BoardEntry *entries;
};

static void set_tag(BoardEntry *entry, uint64_t tag) {
        __atomic_store_n(&entry->tag, tag, __ATOMIC_RELEASE);
}

int board_new(Board **ret_board) {
        Board *board = calloc(1, sizeof(*board));

        if (!board)
                return -ENOMEM;
        board->fd = -1;
        *ret_board = board;
        return 0;
}

Board *board_free(Board *board) {
        if (!board)
                return NULL;
        if (board->entries)
                (void) munmap(board->entries, board->n * sizeof(*board->entries));
        fd_close(board->fd);
        free(board);
        return NULL;
}

/* map() - @n places. */
static int map(Board *board, size_t n) {
        size_t before = board->n * sizeof(BoardEntry), size = n * sizeof(BoardEntry);
        void *entries = board->entries ? mremap(board->entries, before, size, MREMAP_MAYMOVE)
                                       : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, board->fd, 0);

        if (entries == MAP_FAILED)
                return -ENOMEM;
        board->entries = entries;
        board->n = n;
        return 0;
}

static int grow(Board *board) {
        size_t n = board->n > 0 ? board->n * 2 : PLACES_MIN;

        if (n > PLACES_MAX)
                return -ENOSPC;
        if (board->fd < 0)
                board->fd = memfd_create("baton-board", MFD_CLOEXEC);
        if (board->fd < 0 || ftruncate(board->fd, (off_t) (n * sizeof(BoardEntry))) < 0)
                return -errno;
        return map(board, n);
}

static int begin(Board *board) {
        int r = grow(board);

        if (r < 0)
                return r;
        board->entries[0].kind = BOARD_HEADER;
        set_tag(&board->entries[0], 1);
        return BOARD_BEGUN;
}

/* mend() - an entry as another supervisor has left it; one that makes no sense is freed. */
static void mend(BoardEntry *entry) {
        if (entry->kind <= BOARD_HEADER || entry->kind >= _BOARD_KIND_N)
                set_tag(entry, 0);
        entry->runner[sizeof(entry->runner) - 1] = '\0';
        entry->name[sizeof(entry->name) - 1] = '\0';
        entry->address[sizeof(entry->address) - 1] = '\0';
}

int board_adopt(Board **ret_board, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        _cleanup_(board_freep) Board *board = NULL;
        struct stat st;
        int r = board_new(&board);

        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0 || st.st_size < (off_t) sizeof(BoardEntry) || st.st_size % sizeof(BoardEntry) != 0 ||
            st.st_size > (off_t) (PLACES_MAX * sizeof(BoardEntry)))
                return -EBADMSG;
        board->fd = fd_take(&fd);
        r = map(board, (size_t) st.st_size / sizeof(BoardEntry));
        if (r < 0)
                return r;
        if (board->entries[0].kind != BOARD_HEADER || board->entries[0].tag == 0)
                return -EBADMSG;
        for (size_t i = 1; i < board->n; i++)
                if (board->entries[i].tag)
                        mend(&board->entries[i]);
        *ret_board = TAKE_PTR(board);
        return 0;
}

int board_fd(const Board *board) {
        return board->fd;
}

/* free_place() - 0: there is none. */
static size_t free_place(Board *board) {
        for (board->lowest = MAX(board->lowest, (size_t) 1); board->lowest < board->n; board->lowest++)
                if (board->entries[board->lowest].tag == 0)
                        return board->lowest;
        return 0;
}

int board_reserve(Board *board, size_t n, uint64_t *ret_first) {
        int begun = board->n == 0 ? begin(board) : 0;

        if (begun < 0)
                return begun;
        *ret_first = board->entries[0].tag + 1;
        set_tag(&board->entries[0], board->entries[0].tag + n);
        return begun;
}

int board_add(Board *board, const BoardEntry *entry, size_t *ret_place) {
        int begun = board->n == 0 ? begin(board) : 0, r;
        size_t place;
        uint64_t tag;

        if (begun < 0)
                return begun;
        place = free_place(board);
        if (place == 0) {
                place = board->n;
                r = grow(board);
                if (r < 0)
                        return r;
        }
        tag = entry->tag ? entry->tag : board->entries[0].tag + 1;
        if (!entry->tag)
                set_tag(&board->entries[0], tag);
        (void) memcpy((char *) &board->entries[place] + sizeof(tag), (const char *) entry + sizeof(tag),
                      sizeof(*entry) - sizeof(tag));
        set_tag(&board->entries[place], tag);
        *ret_place = place;
        return begun;
}

void board_remove(Board *board, size_t place) {
        assert(place > 0 && place < board->n);
        set_tag(&board->entries[place], 0);
        board->lowest = MIN(board->lowest, place);
}

BoardEntry *board_entry(const Board *board, size_t place) {
        assert(place > 0 && place < board->n);
        return &board->entries[place];
}

size_t board_next(const Board *board, size_t place) {
        while (++place < board->n)
                if (board->entries[place].tag)
                        return place;
        return 0;
}

size_t board_find_state(const Board *board, uint64_t instance) {
        for (size_t i = board_next(board, 0); i > 0; i = board_next(board, i))
                if (board->entries[i].kind == BOARD_STATE && board->entries[i].instance == instance)
                        return i;
        return 0;
}

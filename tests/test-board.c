/* SPDX-License-Identifier: Apache-2.0 */

/* The board: entries stay in their places while it grows, and are found again by who adopts its memory, whatever is in it. */

#include "supervisor/board.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/test.h"

enum { N = 100 };

static BoardEntry entry_of(unsigned i) {
        BoardEntry entry = { .kind = BOARD_SOCKET + i % 3, .instance = i };

        (void) snprintf(entry.runner, sizeof(entry.runner), "runner-%u", i);
        return entry;
}

static void fill(Board *board, size_t *places) {
        for (unsigned i = 0; i < N; i++) {
                BoardEntry entry = entry_of(i);

                assert_int_equal(board_add(board, &entry, &places[i]), i == 0 ? BOARD_BEGUN : 0);
        }
}

static unsigned count(const Board *board) {
        unsigned n = 0;

        for (size_t i = board_next(board, 0); i > 0; i = board_next(board, i))
                n++;
        return n;
}

static void test_entries(void **state) {
        _cleanup_(board_freep) Board *board = NULL, *adopted = NULL;
        BoardEntry entry = entry_of(0);
        size_t places[N], place;
        uint64_t last;

        (void) state;
        assert_int_equal(board_new(&board), 0);
        assert_int_equal(board_fd(board), -1);
        assert_int_equal(board_next(board, 0), 0);
        assert_int_equal(board_find_state(board, 1), 0);
        fill(board, places);
        assert_int_equal(count(board), N);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(board_entry(board, places[i])->instance, i);
                assert_int_equal(board_find_state(board, i), i % 3 == 2 ? places[i] : 0);
        }
        last = board_entry(board, places[N - 1])->tag;
        board_remove(board, places[7]);
        assert_int_equal(count(board), N - 1);
        assert_int_equal(board_add(board, &entry, &place), 0);
        assert_int_equal(place, places[7]);
        assert_true(board_entry(board, place)->tag > last); /* never reused */

        assert_int_equal(board_adopt(&adopted, fd_dup(board_fd(board))), 0);
        assert_int_equal(count(adopted), N);
        assert_string_equal(board_entry(adopted, places[50])->runner, "runner-50");
        board_remove(board, places[50]); /* the memory is one */
        assert_int_equal(count(adopted), N - 1);
        assert_int_equal(board_add(adopted, &entry, &place), 0);
        assert_true(board_entry(adopted, place)->tag > last + 1);
}

/* memory_of() - a memfd with @n entries, all of whose bytes are @byte. */
static int memory_of(size_t n, int byte, off_t surplus) {
        int fd = memfd_create("test", MFD_CLOEXEC);
        static BoardEntry entry;

        assert_true(fd >= 0);
        (void) memset(&entry, byte, sizeof(entry));
        for (size_t i = 0; i < n; i++)
                assert_int_equal(write(fd, &entry, sizeof(entry)), sizeof(entry));
        if (surplus > 0)
                assert_int_equal(ftruncate(fd, (off_t) (n * sizeof(entry)) + surplus), 0);
        return fd;
}

static void test_foreign(void **state) {
        Board *board;
        BoardEntry header = { .tag = 5, .kind = BOARD_HEADER };
        int fd;

        (void) state;
        assert_int_equal(board_adopt(&board, memory_of(0, 0, 0)), -EBADMSG);
        assert_int_equal(board_adopt(&board, memory_of(8, 0, 0)), -EBADMSG);
        assert_int_equal(board_adopt(&board, memory_of(8, 0xff, 0)), -EBADMSG);
        assert_int_equal(board_adopt(&board, memory_of(8, 0, 1)), -EBADMSG);
        /* Entries of a kind that there is not are free; texts are ended. */
        fd = memory_of(8, 0xff, 0);
        assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
        header.kind = BOARD_SOCKET;
        (void) memset(header.runner, 'x', sizeof(header.runner));
        (void) memset(header.name, 'x', sizeof(header.name));
        assert_int_equal(pwrite(fd, &header, sizeof(header), 3 * sizeof(header)), sizeof(header));
        assert_int_equal(board_adopt(&board, fd), 0);
        assert_int_equal(count(board), 1);
        assert_int_equal(strlen(board_entry(board, 3)->runner), sizeof(header.runner) - 1);
        assert_int_equal(strlen(board_entry(board, 3)->name), sizeof(header.name) - 1);
        board_free(board);
}

static const struct CMUnitTest tests[] = {
        TEST(test_entries),
        TEST(test_foreign),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

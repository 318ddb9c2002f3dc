/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The ring by itself: numbers, bounds, what is dropped and what is kept, lines cut anywhere and longer than the bound,
 * records with their details, reading in both directions; a ring opened again; and scratch: each step of a batch after
 * which the writer may be gone.
 */

#include "supervisor/log-ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/log-ring-internal.h"
#include "tests/seam.h"
#include "tests/test.h"

enum { SIZE = 64 * 1024 };

typedef struct Fixture {
        LogRing *ring;
        LogScratch *scratch;
        int pipe[2];
        int stream;
} Fixture;

static void set_up(Fixture *f) {
        assert_int_equal(log_ring_new(&f->ring, "web", 7, SIZE), 0);
        assert_int_equal(log_scratch_new(&f->scratch), 0);
        assert_int_equal(pipe2(f->pipe, O_CLOEXEC), 0);
        f->stream = log_ring_claim(f->ring, 11, 4711, LOG_SOURCE_STDOUT);
        assert_true(f->stream >= 0);
}

static void tear_down(Fixture *f) {
        log_ring_free(f->ring);
        log_scratch_free(f->scratch);
        fd_close_all(f->pipe, 2);
}

/* come() - these bytes, by the way that all take; @keep as log_ring_frame(). */
static bool come(Fixture *f, const char *text, size_t size, uint64_t keep) {
        assert_int_equal(write(f->pipe[1], text, size), size);
        assert_int_equal(log_scratch_take(f->scratch, f->ring, f->stream, f->pipe[0], LOG_RING_BATCH), size);
        return log_ring_frame(f->ring, f->stream, keep);
}

static void say(Fixture *f, const char *text) {
        assert_true(come(f, text, strlen(text), LOG_RING_KEEP_NOTHING));
}

static void assert_text(const LogLine *line, uint64_t seq, const char *text) {
        assert_int_equal(line->seq, seq);
        assert_int_equal(line->size, strlen(text));
        assert_memory_equal(line->text, text, line->size);
}

/* assert_next() - the line at @position. */
static void assert_next(const LogRing *ring, uint64_t *position, uint64_t seq, const char *text) {
        LogLine line;

        assert_true(log_ring_read(ring, position, &line));
        assert_text(&line, seq, text);
}

static void assert_no_more(const LogRing *ring, uint64_t position) {
        LogLine line;

        assert_false(log_ring_read(ring, &position, &line));
}

/* ---- lines ---- */

static void test_numbers(void **state) {
        uint64_t position;
        LogLine line;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_no_more(f.ring, 0);
        assert_no_more(f.ring, log_ring_find(f.ring, 0));
        assert_false(log_ring_back(f.ring, &(uint64_t){ 0 }));
        say(&f, "one\n\nthree\n");
        position = 0;
        assert_true(log_ring_read(f.ring, &position, &line));
        assert_text(&line, 1, "one");
        assert_int_equal(line.instance, 11);
        assert_int_equal(line.pid, 4711);
        assert_int_equal(line.source, LOG_SOURCE_STDOUT);
        assert_true(line.time_us > 0 && line.monotonic_us > 0);
        assert_string_equal(line.target, "");
        assert_next(f.ring, &position, 2, "");
        assert_next(f.ring, &position, 3, "three");
        assert_no_more(f.ring, position);

        for (uint64_t seq = 1; seq <= 3; seq++) {
                position = log_ring_find(f.ring, seq);
                assert_true(log_ring_read(f.ring, &position, &line));
                assert_int_equal(line.seq, seq);
        }
        assert_no_more(f.ring, log_ring_find(f.ring, 4));
        assert_no_more(f.ring, log_ring_find(f.ring, UINT64_MAX));
        tear_down(&f);
}

/* Many lines of many lengths: those that are kept are the last ones, each whole, in both directions. */
static void test_wraps(void **state) {
        enum { LINES = 20000 };
        static char text[3000];
        const LogRingState *now;
        uint64_t position;
        LogLine line;
        Fixture f;

        (void) state;
        set_up(&f);
        for (unsigned i = 1; i <= LINES; i++) {
                unsigned length = i * 7919 % 2500;

                memset(text, 'a' + (int) (i % 26), length);
                text[length] = '\n';
                assert_true(come(&f, text, length + 1, LOG_RING_KEEP_NOTHING));
                now = log_ring_state(f.ring);
                assert_true(now->head - now->tail <= SIZE);
        }
        now = log_ring_state(f.ring);
        assert_int_equal(now->next_seq, LINES + 1);
        assert_int_equal(now->lines, LINES);
        assert_true(now->next_seq - now->first_seq > 20);
        position = now->tail;
        for (uint64_t seq = now->first_seq; seq <= LINES; seq++) {
                assert_true(log_ring_read(f.ring, &position, &line));
                assert_int_equal(line.seq, seq);
                assert_int_equal(line.size, seq * 7919 % 2500);
                for (size_t i = 0; i < line.size; i++)
                        assert_int_equal(line.text[i], 'a' + (int) (seq % 26));
        }
        position = now->head;
        for (uint64_t seq = LINES; seq >= now->first_seq; seq--) {
                uint64_t at;

                assert_true(log_ring_back(f.ring, &position));
                at = position;
                assert_true(log_ring_read(f.ring, &at, &line));
                assert_int_equal(line.seq, seq);
                assert_int_equal(log_ring_find(f.ring, seq), seq == now->first_seq ? now->tail : position);
        }
        assert_false(log_ring_back(f.ring, &position));
        assert_int_equal(now->dropped, 0); /* nobody was to get them */
        tear_down(&f);
}

/* A text cut at every place into two writes gives the same lines. */
static void test_cut_anywhere(void **state) {
        static const char text[] = "one\n\ntwo and more\nend\n";

        (void) state;
        for (size_t cut = 1; cut < sizeof(text) - 1; cut++) {
                uint64_t position = 0;
                Fixture f;

                set_up(&f);
                (void) come(&f, text, cut, LOG_RING_KEEP_NOTHING);
                say(&f, text + cut);
                assert_next(f.ring, &position, 1, "one");
                assert_next(f.ring, &position, 2, "");
                assert_next(f.ring, &position, 3, "two and more");
                assert_next(f.ring, &position, 4, "end");
                assert_no_more(f.ring, position);
                tear_down(&f);
        }
}

/* A line that comes byte by byte takes the room of one line, and its end may be the runner's. */
static void test_byte_by_byte(void **state) {
        uint64_t position = 0;
        Fixture f;

        (void) state;
        set_up(&f);
        for (int i = 0; i < 5000; i++)
                say(&f, "x");
        assert_int_equal(log_ring_state(f.ring)->head, 0);
        assert_int_equal(log_ring_waiting(f.ring, f.stream), 5000);
        log_ring_end(f.ring, f.stream);
        assert_true(log_ring_frame(f.ring, f.stream, LOG_RING_KEEP_NOTHING));
        assert_int_equal(log_ring_state(f.ring)->streams[f.stream].instance, 0);
        assert_int_equal(log_ring_state(f.ring)->next_seq, 2);
        (void) position;
        tear_down(&f);
}

/* Lines around the bound: of exactly its length, one less, one more; and one of several times the bound. */
static void test_long_lines(void **state) {
        static char text[3 * LOG_TEXT_MAX + 7];

        (void) state;
        memset(text, 'x', sizeof(text));
        for (size_t size = LOG_TEXT_MAX - 1; size <= LOG_TEXT_MAX + 1; size++) {
                uint64_t position = 0;
                LogLine line;
                Fixture f;

                set_up(&f);
                (void) come(&f, text, size, LOG_RING_KEEP_NOTHING);
                say(&f, "\nnext\n");
                assert_true(log_ring_read(f.ring, &position, &line));
                assert_int_equal(line.size, MIN(size, (size_t) LOG_TEXT_MAX));
                assert_int_equal(line.partial, size > LOG_TEXT_MAX);
                if (line.partial) {
                        assert_next(f.ring, &position, 2, "x");
                        assert_true(log_ring_read(f.ring, &(uint64_t){ log_ring_find(f.ring, 2) }, &line));
                        assert_false(line.partial);
                }
                assert_next(f.ring, &position, 2 + (size > LOG_TEXT_MAX), "next");
                tear_down(&f);
        }
        {
                uint64_t position = 0;
                LogLine line;
                Fixture f;

                set_up(&f);
                text[sizeof(text) - 1] = '\n';
                (void) come(&f, text, sizeof(text), LOG_RING_KEEP_NOTHING);
                for (unsigned i = 0; i < 3; i++) {
                        assert_true(log_ring_read(f.ring, &position, &line));
                        assert_true(line.partial && line.size == LOG_TEXT_MAX);
                }
                assert_next(f.ring, &position, 4, "xxxxxx");
                assert_no_more(f.ring, position);
                tear_down(&f);
        }
}

static void test_records(void **state) {
        LogLine line = { .source = LOG_SOURCE_RECORD, .instance = 11, .time_us = 99, .level = 4, .line = 17 };
        uint64_t position = 0;
        LogLine got;
        Fixture f;

        (void) state;
        set_up(&f);
        line.text = "odd length!";
        line.size = strlen(line.text);
        line.target = "store";
        line.file = "store.c";
        log_ring_append(f.ring, &line, 5);
        line.target = line.file = NULL;
        line.text = "";
        line.size = 0;
        log_ring_append(f.ring, &line, 6);
        assert_true(log_ring_read(f.ring, &position, &got));
        assert_text(&got, 1, "odd length!");
        assert_string_equal(got.target, "store");
        assert_string_equal(got.file, "store.c");
        assert_int_equal(got.time_us, 99);
        assert_int_equal(got.level, 4);
        assert_int_equal(got.line, 17);
        assert_true(log_ring_read(f.ring, &position, &got));
        assert_text(&got, 2, "");
        assert_string_equal(got.target, "");
        assert_int_equal(log_ring_record_seq(f.ring, 11), 6);
        assert_int_equal(log_ring_record_seq(f.ring, 12), 0);
        line.instance = 12;
        log_ring_append(f.ring, &line, 1);
        for (uint64_t i = 2; i <= LOG_RING_INSTANCES; i++) { /* no more are there: the oldest is forgotten */
                assert_int_equal(log_ring_record_seq(f.ring, 11), 6);
                line.instance = 11 + i;
                log_ring_append(f.ring, &line, i);
        }
        assert_int_equal(log_ring_record_seq(f.ring, 11), 0);
        for (uint64_t i = 1; i <= LOG_RING_INSTANCES; i++)
                assert_int_equal(log_ring_record_seq(f.ring, 11 + i), i);
        tear_down(&f);
}

/* A long record is cut as a line is, and what is longer than a target may be, is cut too. */
static void test_long_record(void **state) {
        static char text[2 * LOG_TEXT_MAX], target[LOG_TARGET_MAX + 100];
        LogLine line = { .source = LOG_SOURCE_RECORD, .instance = 11, .text = text, .size = sizeof(text) }, got;
        uint64_t position = 0;
        Fixture f;

        (void) state;
        set_up(&f);
        memset(text, 't', sizeof(text));
        memset(target, 'T', sizeof(target) - 1);
        line.target = line.file = target;
        log_ring_append(f.ring, &line, 1);
        assert_true(log_ring_read(f.ring, &position, &got));
        assert_true(got.partial && got.size == LOG_TEXT_MAX);
        assert_int_equal(strlen(got.target), LOG_TARGET_MAX);
        assert_int_equal(strlen(got.file), LOG_TARGET_MAX);
        assert_true(log_ring_read(f.ring, &position, &got));
        assert_true(!got.partial && got.size == LOG_TEXT_MAX);
        assert_no_more(f.ring, position);
        tear_down(&f);
}

/* ---- what is kept ---- */

/* Nothing from a position on is dropped: lines wait, in order, and go on when there is room; nothing else waits. */
static void test_keep(void **state) {
        enum { LINES = 4000 };
        uint64_t position = 0, number = 1;
        char text[40];
        Fixture f;
        int n = 0;

        (void) state;
        set_up(&f);
        for (unsigned i = 1; i <= LINES; i++) {
                (void) snprintf(text, sizeof(text), "%u\n", i);
                n = (int) strlen(text);
                if (!come(&f, text, (size_t) n, position)) {
                        uint64_t before = log_ring_state(f.ring)->next_seq;
                        LogLine line;

                        assert_int_equal(before, i); /* this one waits */
                        while (log_ring_read(f.ring, &position, &line)) {
                                (void) snprintf(text, sizeof(text), "%u", (unsigned) number);
                                assert_text(&line, number++, text);
                        }
                        assert_int_equal(number, i);
                        assert_true(log_ring_frame(f.ring, f.stream, position));
                        assert_int_equal(log_ring_state(f.ring)->next_seq, i + 1);
                }
        }
        assert_true(number > 1000);
        tear_down(&f);
}

/*
 * The first line to be kept stays, also where it is the beginning of the ring, behind what was skipped at its end: there
 * the follower rests each time, until nothing more fits.
 */
static void test_keep_behind_the_end(void **state) {
        enum { LINES = 30000 };
        unsigned rests = 0;
        uint64_t given = 1;
        char text[80];
        Fixture f;

        (void) state;
        set_up(&f);
        for (unsigned i = 1; i <= LINES; i++) {
                uint64_t position = log_ring_find(f.ring, given), before;
                bool rest = position > 0 && position % log_ring_size(f.ring) == 0;
                LogLine line;

                (void) snprintf(text, sizeof(text), "%.*s\n", (int) (i * 7 % 61 + 1),
                                "0123456789012345678901234567890123456789012345678901234567890123456789");
                if (come(&f, text, strlen(text), position) && rest)
                        continue;
                rests += rest;
                position = log_ring_find(f.ring, given);
                for (before = position; log_ring_read(f.ring, &position, &line); before = position) {
                        if (given > 1 && before % log_ring_size(f.ring) == 0 && !rest)
                                break;
                        rest = false;
                        assert_int_equal(line.seq, given);
                        given++;
                }
                assert_true(log_ring_frame(f.ring, f.stream, log_ring_find(f.ring, given)));
        }
        assert_true(rests > 5);
        tear_down(&f);
}

/* What the file has not got is counted when it goes; what it has got is not. */
static void test_dropped_before_the_file(void **state) {
        LogRingFile file = { .wanted = true };
        const LogRingState *now;
        Fixture f;

        (void) state;
        set_up(&f);
        log_ring_set_file(f.ring, &file);
        for (unsigned i = 0; i < 3000; i++)
                say(&f, "a line\n");
        now = log_ring_state(f.ring);
        assert_int_equal(now->dropped, now->first_seq - 1);
        assert_true(now->dropped > 0);
        assert_int_equal(now->file.position, now->tail);
        file = now->file;
        file.position = now->head; /* written */
        log_ring_set_file(f.ring, &file);
        for (unsigned i = 0; i < 100; i++)
                say(&f, "a line\n");
        assert_int_equal(log_ring_state(f.ring)->dropped, now->dropped);
        tear_down(&f);
}

/* ---- streams ---- */

static void test_streams(void **state) {
        int streams[LOG_RING_STREAMS];
        Fixture f;

        (void) state;
        set_up(&f);
        streams[0] = f.stream;
        for (int i = 1; i < LOG_RING_STREAMS; i++) {
                streams[i] = log_ring_claim(f.ring, 11 + (uint64_t) i, 1, LOG_SOURCE_STDOUT);
                assert_true(streams[i] >= 0);
                for (int j = 0; j < i; j++)
                        assert_int_not_equal(streams[i], streams[j]);
        }
        assert_int_equal(log_ring_claim(f.ring, 99, 1, LOG_SOURCE_STDOUT), -EBUSY);
        assert_int_equal(log_ring_claim(f.ring, 11, 4711, LOG_SOURCE_STDOUT), streams[0]);
        assert_int_equal(log_ring_claim(f.ring, 11, 4711, LOG_SOURCE_STDERR), -EBUSY);
        say(&f, "begun");
        log_ring_end(f.ring, f.stream);
        assert_true(log_ring_frame(f.ring, f.stream, LOG_RING_KEEP_NOTHING));
        f.stream = log_ring_claim(f.ring, 99, 1, LOG_SOURCE_STDOUT); /* its place is free again, and empty */
        assert_int_equal(f.stream, streams[0]);
        assert_int_equal(log_ring_waiting(f.ring, f.stream), 0);
        say(&f, "new\n");
        assert_next(f.ring, &(uint64_t){ log_ring_find(f.ring, 2) }, 2, "new");
        tear_down(&f);
}

/* ---- after a kill ---- */

/* again() - the ring as another process finds it. */
static LogRing *again(const LogRing *ring) {
        LogRing *found;

        assert_int_equal(log_ring_open(&found, fd_dup(log_ring_fd(ring))), 0);
        return found;
}

/*
 * The writer is gone after each step of a batch: before splice, after it, after the target, with a part of the bytes in
 * the stage, with all of them, after the commit. What comes out is the same.
 */
static void test_each_step(void **state) {
        static const char text[] = "half a line and\nanother\n";
        const size_t size = strlen(text);

        (void) state;
        for (int step = 0; step <= 5; step++) {
                uint64_t position = 0, *head, *target;
                LogRing *found;
                Fixture f;

                set_up(&f);
                say(&f, "begun: ");
                head = &f.ring->header->streams[f.stream].head;
                target = &f.ring->header->streams[f.stream].target;
                assert_int_equal(write(f.pipe[1], text, size), size);
                if (step == 5)
                        assert_int_equal(log_scratch_take(f.scratch, f.ring, f.stream, f.pipe[0], 1000), size);
                else if (step >= 1) {
                        /* log_scratch_take() with nothing to take says for whom the next bytes are. */
                        int empty[2];

                        assert_int_equal(pipe2(empty, O_CLOEXEC | O_NONBLOCK), 0);
                        assert_int_equal(log_scratch_take(f.scratch, f.ring, f.stream, empty[0], 1), -EAGAIN);
                        fd_close_all(empty, 2);
                        assert_int_equal(
                                splice(f.pipe[0], NULL, log_scratch_fd(f.scratch, LOG_SCRATCH_WRITE), NULL, 1000, 0),
                                size);
                        if (step >= 2)
                                *target = *head + size;
                        if (step >= 3)
                                assert_int_equal(read(log_scratch_fd(f.scratch, LOG_SCRATCH_READ),
                                                      log_ring_stage(f.ring, f.stream) + 7, step == 3 ? 5 : size),
                                                 step == 3 ? 5 : size);
                }
                found = again(f.ring);
                log_scratch_recover(f.scratch, &found, 1);
                if (step == 0) /* it is in the pipe still */
                        assert_int_equal(log_scratch_take(f.scratch, found, f.stream, f.pipe[0], 1000), size);
                assert_true(log_ring_frame(found, f.stream, LOG_RING_KEEP_NOTHING));
                assert_next(found, &position, 1, "begun: half a line and");
                assert_next(found, &position, 2, "another");
                assert_no_more(found, position);
                log_ring_free(found);
                tear_down(&f);
        }
}

/* Bytes in scratch belong to the ring and stream that the page names, whichever others there are. */
static void test_whose(void **state) {
        int fds[LOG_SCRATCH_FDS], other;
        uint64_t position = 0;
        LogRing *rings[2];
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(log_ring_new(&rings[0], "other", 8, SIZE), 0);
        other = log_ring_claim(f.ring, 11, 4711, LOG_SOURCE_STDERR);
        say(&f, "mine\n");
        assert_int_equal(write(log_scratch_fd(f.scratch, LOG_SCRATCH_WRITE), "later\n", 6), 6);
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                fds[i] = fd_dup(log_scratch_fd(f.scratch, i));
        log_scratch_free(f.scratch);
        assert_int_equal(log_scratch_open(&f.scratch, fds), 0);
        rings[1] = again(f.ring);
        log_scratch_recover(f.scratch, rings, 2);
        assert_int_equal(log_ring_waiting(rings[1], other), 0);
        assert_int_equal(log_ring_waiting(rings[1], f.stream), 6);
        assert_true(log_ring_frame(rings[1], f.stream, LOG_RING_KEEP_NOTHING));
        assert_next(rings[1], &position, 1, "mine");
        assert_next(rings[1], &position, 2, "later");
        log_ring_free(rings[1]);

        /* Without its ring they go: they must not come into another. */
        assert_int_equal(write(log_scratch_fd(f.scratch, LOG_SCRATCH_WRITE), "lost\n", 5), 5);
        log_scratch_recover(f.scratch, rings, 1);
        assert_int_equal(log_ring_claim(rings[0], 1, 1, LOG_SOURCE_STDOUT) >= 0, 1);
        assert_int_equal(log_scratch_take(f.scratch, rings[0], 0, f.pipe[0], 0), -EAGAIN);
        assert_int_equal(log_ring_waiting(rings[0], 0), 0);
        log_ring_free(rings[0]);
        tear_down(&f);
}

static void test_open(void **state) {
        int fds[LOG_SCRATCH_FDS];
        LogScratch *scratch;
        LogRing *found;
        Fixture f;

        (void) state;
        set_up(&f);
        say(&f, "line\nbegun");
        found = again(f.ring);
        assert_string_equal(log_ring_name(found), "web");
        assert_int_equal(log_ring_id(found), 7);
        assert_int_equal(log_ring_size(found), SIZE);
        assert_int_equal(log_ring_waiting(found, f.stream), 5);
        assert_next(found, &(uint64_t){ 0 }, 1, "line");
        f.ring->header->magic++; /* of another version */
        log_ring_free(found);
        assert_int_equal(log_ring_open(&found, fd_dup(log_ring_fd(f.ring))), -EINVAL);
        assert_int_equal(log_ring_open(&found, fd_dup(f.pipe[0])), -EINVAL);
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                fds[i] = fd_dup(f.pipe[0]);
        assert_int_equal(log_scratch_open(&scratch, fds), -EINVAL);
        tear_down(&f);
}

/* ---- after each instruction ---- */

enum { STEP_LINES = 120, STEP_BATCH = 150 };

static size_t step_text(char *text, unsigned number) {
        return (size_t) sprintf(text, "line %u %.*s\n", number, (int) (number % 23), "abcdefghijklmnopqrstuvwxyz");
}

/* step_writer() - takes what is in the pipe, batch by batch, and makes lines of it: old ones go, the ring's end is passed. */
static int step_writer(void *argument) {
        Fixture *f = argument;

        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
                return 77;
        (void) raise(SIGSTOP);
        for (;;) {
                ssize_t n = log_scratch_take(f->scratch, f->ring, f->stream, f->pipe[0], STEP_BATCH);

                if (n == -EAGAIN)
                        break;
                if (n <= 0)
                        return 1;
                (void) log_ring_frame(f->ring, f->stream, LOG_RING_KEEP_NOTHING);
        }
        return 0;
}

/* copy_pipe() - what is in @from, which keeps it, in a pipe of its own. */
static void copy_pipe(int from, int ret_fds[2]) {
        int n = 0;

        assert_int_equal(pipe2(ret_fds, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(ioctl(from, FIONREAD, &n), 0);
        if (n > 0)
                assert_int_equal(tee(from, ret_fds[1], (size_t) n, SPLICE_F_NONBLOCK), n);
}

/* copy_ring() - the ring as it is now; of the stages as much as the test uses. */
static LogRing *copy_ring(const LogRing *ring) {
        LogRing *copy;

        assert_int_equal(log_ring_new(&copy, log_ring_name(ring), log_ring_id(ring), log_ring_size(ring)), 0);
        memcpy(copy->header, ring->header, sizeof(*ring->header));
        memcpy(log_ring_stage(copy, 0), log_ring_stage(ring, 0), 4096);
        memcpy(copy->records, ring->records, ring->size);
        return copy;
}

/* check_lines() - every line that is kept is whole. */
static void check_lines(const LogRing *ring) {
        const LogRingState *now = log_ring_state(ring);
        uint64_t position = now->tail;
        char text[64];
        LogLine line;

        assert_true(now->next_seq - now->first_seq > 10);
        for (uint64_t seq = now->first_seq; seq < now->next_seq; seq++) {
                assert_true(log_ring_read(ring, &position, &line));
                assert_int_equal(line.seq, seq);
                assert_int_equal(line.size, step_text(text, (unsigned) seq) - 1);
                assert_memory_equal(line.text, text, line.size);
        }
}

/* check_step() - the writer is killed here: whoever comes next makes the same lines of what there is, and no others. */
static void check_step(const Fixture *f) {
        int fds[LOG_SCRATCH_FDS] = { -1, -1, -1 }, pipe[2];
        LogRing *ring = copy_ring(f->ring);
        LogScratch *scratch;
        ssize_t n;

        check_lines(ring);
        copy_pipe(log_scratch_fd(f->scratch, LOG_SCRATCH_READ), fds);
        fds[LOG_SCRATCH_PAGE] = fd_dup(log_scratch_fd(f->scratch, LOG_SCRATCH_PAGE));
        assert_int_equal(log_scratch_open(&scratch, fds), 0);
        copy_pipe(f->pipe[0], pipe);
        log_scratch_recover(scratch, &ring, 1);
        assert_true(log_ring_frame(ring, f->stream, LOG_RING_KEEP_NOTHING));
        do {
                /* What is taken is said for the copy: the page is the writer's. */
                uint64_t *head = &ring->header->streams[f->stream].head;

                n = read(pipe[0],
                         log_ring_stage(ring, f->stream) + log_ring_state(ring)->streams[f->stream].begin +
                                 log_ring_waiting(ring, f->stream),
                         4000);
                *head += (uint64_t) MAX(n, (ssize_t) 0);
                assert_true(log_ring_frame(ring, f->stream, LOG_RING_KEEP_NOTHING));
        } while (n > 0);

        check_lines(ring);
        fd_close_all(pipe, 2);
        log_scratch_free(scratch);
        log_ring_free(ring);
}

/* fill_before() - so many lines that the writer's are behind the ring's end. Returns the number of the next one. */
static unsigned fill_before(Fixture *f) {
        unsigned number = 1;
        char text[64];

        while (log_ring_state(f->ring)->head % log_ring_size(f->ring) < log_ring_size(f->ring) - 600 ||
               log_ring_state(f->ring)->tail == 0) {
                size_t size = step_text(text, number++);

                assert_true(come(f, text, size, LOG_RING_KEEP_NOTHING));
        }
        return number;
}

/* Steps that change nothing of what the next one finds need no check. */
typedef struct Seen {
        LogRingHeader header;
        uint8_t stage[4096], records[SIZE];
        int held[2];
} Seen;

static bool has_changed(const Fixture *f, Seen *seen) {
        int held[2] = { 0, 0 };
        bool same;

        assert_int_equal(ioctl(log_scratch_fd(f->scratch, LOG_SCRATCH_READ), FIONREAD, &held[0]), 0);
        assert_int_equal(ioctl(f->pipe[0], FIONREAD, &held[1]), 0);
        same = memcmp(&seen->header, f->ring->header, sizeof(seen->header)) == 0 &&
               memcmp(seen->stage, log_ring_stage(f->ring, 0), sizeof(seen->stage)) == 0 &&
               memcmp(seen->records, f->ring->records, sizeof(seen->records)) == 0 &&
               memcmp(seen->held, held, sizeof(held)) == 0;
        if (same)
                return false;
        memcpy(&seen->header, f->ring->header, sizeof(seen->header));
        memcpy(seen->stage, log_ring_stage(f->ring, 0), sizeof(seen->stage));
        memcpy(seen->records, f->ring->records, sizeof(seen->records));
        memcpy(seen->held, held, sizeof(held));
        return true;
}

static void test_each_instruction(void **state) {
        static Seen seen;
        unsigned number, steps = 0, checks = 0;
        size_t size = 0;
        int status = 0;
        char text[64];
        Fixture f;
        pid_t pid;

        (void) state;
        set_up(&f);
        assert_int_equal(f.stream, 0);
        assert_int_equal(fcntl(f.pipe[0], F_SETFL, O_NONBLOCK), 0);
        number = fill_before(&f);
        for (unsigned i = 0; i < STEP_LINES; i++) {
                size = step_text(text, number + i);
                assert_int_equal(write(f.pipe[1], text, size), size);
        }
        pid = test_child(step_writer, &f);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) { /* 77: nobody may be traced here */
                tear_down(&f);
                skip();
        }
        for (;; steps++) {
                if (has_changed(&f, &seen)) {
                        check_step(&f);
                        checks++;
                }
                if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid)
                        fail_msg("cannot step: %s", strerror(errno));
                if (!WIFSTOPPED(status))
                        break;
        }
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        assert_true(steps > 1000);
        assert_true(checks > 100);
        print_message("killed after each of %u instructions, %u of which change something\n", steps, checks);
        tear_down(&f);
}

static int make_both(void *argument) {
        LogScratch *scratch = NULL;
        LogRing *ring = NULL;
        int r;

        (void) argument;
        r = log_scratch_new(&scratch);
        if (r == 0)
                r = log_ring_new(&ring, "web", 1, SIZE);
        log_scratch_free(scratch);
        log_ring_free(ring);
        return r;
}

static void test_making_fails(void **state) {
        (void) state;
        assert_int_equal(seam_each(SEAM_PIPE2, EMFILE, make_both, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_MEMFD_CREATE, EMFILE, make_both, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_FTRUNCATE, ENOMEM, make_both, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_MMAP, ENOMEM, make_both, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_CALLOC, ENOMEM, make_both, NULL, 0), 2);
}

static const struct CMUnitTest tests[] = {
        TEST(test_numbers),
        TEST(test_wraps),
        TEST(test_cut_anywhere),
        TEST(test_byte_by_byte),
        TEST(test_long_lines),
        TEST(test_records),
        TEST(test_long_record),
        TEST(test_keep),
        TEST(test_keep_behind_the_end),
        TEST(test_dropped_before_the_file),
        TEST(test_streams),
        TEST(test_each_step),
        TEST(test_whose),
        TEST(test_open),
        TEST_SLOW(test_each_instruction, 120),
        TEST(test_making_fails),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

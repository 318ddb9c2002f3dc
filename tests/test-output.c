/* SPDX-License-Identifier: Apache-2.0 */

/*
 * History and output: numbers, bounds and what is dropped; lines cut anywhere, lines longer than the bound; pipes that are
 * read to their end or to the last byte there is; records by number; readers woken, cancelled, waiting again.
 */

#include "supervisor/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/seam.h"
#include "tests/test.h"

static const HistoryInfo from_stdout = { .source = HISTORY_STDOUT };

static void append(History *history, const char *text) {
        history_append(history, &from_stdout, text, strlen(text), false);
}

static void assert_line(const HistoryLine *line, uint64_t seq, const char *text) {
        assert_non_null(line);
        assert_int_equal(line->seq, seq);
        assert_int_equal(line->size, strlen(text));
        assert_memory_equal(line->text, text, line->size);
}

/* ---- history ---- */

static void test_numbers(void **state) {
        History history;

        (void) state;
        history_init(&history, 10, 100000);
        assert_null(history_find(&history, 0));
        append(&history, "one");
        append(&history, "");
        append(&history, "three");
        assert_line(history_find(&history, 0), 1, "one");
        assert_line(history_find(&history, 1), 1, "one");
        assert_line(history_find(&history, 2), 2, "");
        assert_line(history_find(&history, 3), 3, "three");
        assert_null(history_find(&history, 4));
        assert_null(history_find(&history, UINT64_MAX));
        assert_true(history_find(&history, 1)->info.time_us > 0);
        history_deinit(&history);
}

static void test_bound_in_lines(void **state) {
        History history;
        char text[16];

        (void) state;
        history_init(&history, 3, 100000);
        for (int i = 1; i <= 10; i++) {
                (void) snprintf(text, sizeof(text), "%d", i);
                append(&history, text);
                assert_int_equal(history.n_lines, MIN(i, 3));
        }
        assert_line(history_find(&history, 0), 8, "8");
        assert_line(history_find(&history, 5), 8, "8");
        assert_line(history_find(&history, 9), 9, "9");
        history_deinit(&history);
        assert_int_equal(history.n_bytes, 0);
}

static void test_bound_in_bytes(void **state) {
        History history;
        char text[1000];

        (void) state;
        memset(text, 'x', sizeof(text));
        history_init(&history, 1000000, 10000);
        for (int i = 0; i < 100; i++) {
                history_append(&history, &from_stdout, text, sizeof(text), false);
                assert_true(history.n_bytes <= 10000);
        }
        assert_true(history.n_lines >= 8);
        for (int i = 0; i < 100000; i++) /* empty ones are not free */
                append(&history, "");
        assert_true(history.n_bytes <= 10000 && history.n_lines < 200);
        history_deinit(&history);

        history_init(&history, 10, 10); /* one is always kept */
        history_append(&history, &from_stdout, text, sizeof(text), false);
        assert_int_equal(history.n_lines, 1);
        append(&history, "y");
        assert_line(history_find(&history, 0), 2, "y");
        history_deinit(&history);
}

static void test_long_line(void **state) {
        static char text[3 * HISTORY_TEXT_MAX + 5];
        History history;
        HistoryLine *line;

        (void) state;
        memset(text, 'x', sizeof(text));
        history_init(&history, 10, 1000000);
        history_append(&history, &from_stdout, text, sizeof(text), false);
        line = history_find(&history, 0);
        for (int i = 0; i < 3; i++, line = TAILQ_NEXT(line, link)) {
                assert_int_equal(line->size, HISTORY_TEXT_MAX);
                assert_true(line->partial);
        }
        assert_int_equal(line->size, 5);
        assert_false(line->partial);
        history_append(&history, &from_stdout, text, HISTORY_TEXT_MAX, false);
        assert_int_equal(history_find(&history, 5)->size, HISTORY_TEXT_MAX);
        assert_false(history_find(&history, 5)->partial);
        history_deinit(&history);
}

static void test_record_strings(void **state) {
        char target[] = "target", file[] = "file.c";
        HistoryInfo info = { HISTORY_RECORD, 7, 4, 99, target, file };
        History history;
        HistoryLine *line;

        (void) state;
        history_init(&history, 10, 1000000);
        history_append(&history, &info, "text", 4, false);
        memset(target, '-', sizeof(target) - 1);
        memset(file, '-', sizeof(file) - 1);
        line = history_find(&history, 0);
        assert_string_equal(line->info.target, "target");
        assert_string_equal(line->info.file, "file.c");
        assert_int_equal(line->info.time_us, 7);
        assert_int_equal(line->info.line, 99);
        history_deinit(&history);
}

static void test_tail(void **state) {
        History history;
        char **lines;

        (void) state;
        history_init(&history, 10, 1000000);
        assert_int_equal(history_tail(&history, 5, 100, &lines), 0);
        assert_null(lines);
        append(&history, "first");
        append(&history, "gr\xc3\xbc\xc3\x9f");
        append(&history, "a\xff\xc3z\xe2\x82");
        assert_int_equal(history_tail(&history, 2, 100, &lines), 2);
        assert_string_equal(lines[0], "gr\xc3\xbc\xc3\x9f");
        assert_string_equal(lines[1], "a??z??");
        free(lines);
        assert_int_equal(history_tail(&history, 5, 14, &lines), 2); /* the oldest has no room */
        free(lines);
        assert_int_equal(history_tail(&history, 5, 3, &lines), 1); /* the last is cut */
        assert_string_equal(lines[0], "a??");
        free(lines);
        seam_fail(SEAM_MALLOC, 1, ENOMEM);
        assert_int_equal(history_tail(&history, 5, 100, &lines), 0);
        assert_null(lines);
        history_deinit(&history);
}

/* Whatever is written into the room that there is: nothing behind the mark is dropped. */
static void test_room(void **state) {
        static const char *const texts[] = { "", "x", "a line of some length, as they are" };

        (void) state;
        for (size_t t = 0; t < ARRAY_SIZE(texts); t++)
                for (size_t max_bytes = 1000; max_bytes < 20000; max_bytes += 777) {
                        size_t room, size = strlen(texts[t]) + 1;
                        HistoryMark mark;
                        History history;

                        history_init(&history, 100, max_bytes);
                        for (int i = 0; i < 200; i++) /* full of what was given */
                                append(&history, texts[t]);
                        mark = history_mark(&history, history.next_seq);
                        assert_int_equal(mark.seq, 201);
                        room = history_room(&history, mark);
                        assert_true(room > 0);
                        for (; room >= size; room -= size) {
                                append(&history, texts[t]);
                                assert_int_equal(history_find(&history, mark.seq)->seq, 201);
                                assert_true(history_room(&history, mark) + size >= room);
                        }
                        history_deinit(&history);
                }
}

static void test_bounds_that_change(void **state) {
        History history;

        (void) state;
        history_init(&history, 1000, 100000);
        for (int i = 0; i < 100; i++)
                append(&history, "text");
        history_set_bounds(&history, 10, 100000, 51);
        assert_int_equal(history_find(&history, 0)->seq, 51);
        history_set_bounds(&history, 10, 100000, UINT64_MAX);
        assert_int_equal(history_find(&history, 0)->seq, 91);
        assert_int_equal(history_mark(&history, 5).seq, 91);
        history_deinit(&history);
}

static void test_no_memory_loses_a_number(void **state) {
        History history;

        (void) state;
        history_init(&history, 10, 1000000);
        append(&history, "one");
        seam_fail(SEAM_MALLOC, 1, ENOMEM);
        append(&history, "two");
        append(&history, "three");
        assert_line(history_find(&history, 2), 3, "three");
        history_deinit(&history);
}

/* ---- pipes ---- */

typedef struct Fixture {
        Loop *loop;
        Output output;
        int fds[OUTPUT_PIPES]; /* the runner's ends */
        OutputReader reader;
        unsigned woken;
        LoopTimer limit;
} Fixture;

static void woken(OutputReader *reader) {
        Fixture *f = CONTAINER_OF(reader, Fixture, reader);

        f->woken++;
        loop_stop(f->loop);
}

static void set_up(Fixture *f) {
        assert_int_equal(loop_new(&f->loop), 0);
        output_init(&f->output, f->loop, 1000, 10000000);
        assert_int_equal(output_open(&f->output, f->fds), 0);
        f->reader = (OutputReader){ .callback = woken };
        f->woken = 0;
}

static void tear_down(Fixture *f) {
        fd_close_all(f->fds, OUTPUT_PIPES);
        output_unwait(&f->reader);
        output_deinit(&f->output);
        f->loop = loop_free(f->loop);
}

static void put(int fd, const char *text) {
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* run_until_line() - the loop runs until something new is in the history. */
static void run_until_line(Fixture *f) {
        output_wait(&f->output, &f->reader);
        loop_run(f->loop);
}

static void test_lines_from_both(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[HISTORY_STDERR], "bad\nworse\n");
        run_until_line(&f);
        put(f.fds[HISTORY_STDOUT], "good\n");
        run_until_line(&f);
        assert_line(history_find(&f.output.history, 1), 1, "bad");
        assert_line(history_find(&f.output.history, 2), 2, "worse");
        assert_line(history_find(&f.output.history, 3), 3, "good");
        assert_int_equal(history_find(&f.output.history, 1)->info.source, HISTORY_STDERR);
        assert_int_equal(history_find(&f.output.history, 3)->info.source, HISTORY_STDOUT);
        assert_int_equal(f.woken, 2);
        /* The read end alone does not wait: the runner's is as programs expect. */
        assert_false(fcntl(f.fds[0], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(output_fd(&f.output, HISTORY_STDOUT), F_GETFL) & O_NONBLOCK);
        tear_down(&f);
}

/* A text cut at every place into two writes gives the same lines. */
static void test_cut_anywhere(void **state) {
        static const char text[] = "one\n\ntwo and more\nend\n";

        (void) state;
        for (size_t cut = 1; cut < sizeof(text) - 1; cut++) {
                Fixture f;

                set_up(&f);
                assert_int_equal(write(f.fds[0], text, cut), cut);
                if (memchr(text, '\n', cut))
                        run_until_line(&f);
                else
                        output_finish(&f.output); /* reads it; would end the line, too */
                if (memchr(text, '\n', cut)) {
                        put(f.fds[0], text + cut);
                        output_finish(&f.output);
                        assert_line(history_find(&f.output.history, 1), 1, "one");
                        assert_line(history_find(&f.output.history, 2), 2, "");
                        assert_line(history_find(&f.output.history, 3), 3, "two and more");
                        assert_line(history_find(&f.output.history, 4), 4, "end");
                        assert_null(history_find(&f.output.history, 5));
                }
                tear_down(&f);
        }
}

static void fill(int fd, size_t n) {
        static const char some[1000];

        for (; n > 0; n -= MIN(n, sizeof(some)))
                assert_true(write(fd, some, MIN(n, sizeof(some))) > 0);
}

/* Lines around the bound: of exactly its length, one less, one more. */
static void test_bound_of_a_line(void **state) {
        (void) state;
        for (size_t size = HISTORY_TEXT_MAX - 1; size <= HISTORY_TEXT_MAX + 1; size++) {
                Fixture f;
                HistoryLine *line;

                set_up(&f);
                fill(f.fds[0], size);
                put(f.fds[0], "\nnext\n");
                output_finish(&f.output);
                line = history_find(&f.output.history, 1);
                assert_int_equal(line->size, MIN(size, HISTORY_TEXT_MAX));
                assert_int_equal(line->partial, size > HISTORY_TEXT_MAX);
                if (line->partial) {
                        line = TAILQ_NEXT(line, link);
                        assert_int_equal(line->size, 1);
                        assert_false(line->partial);
                }
                assert_line(TAILQ_NEXT(line, link), line->seq + 1, "next");
                tear_down(&f);
        }
}

static void test_finish(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[0], "whole\nbegun");
        put(f.fds[1], "other");
        output_finish(&f.output); /* the write ends are still open: it does not wait for them */
        assert_line(history_find(&f.output.history, 1), 1, "whole");
        assert_line(history_find(&f.output.history, 2), 2, "begun");
        assert_line(history_find(&f.output.history, 3), 3, "other");
        output_finish(&f.output);
        assert_null(history_find(&f.output.history, 4));
        tear_down(&f);
}

/* Nobody reads the history, and the runner can write for ever. */
static void test_runner_never_waits(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        f.output.history.max_bytes = 50000;
        for (int i = 0; i < 200; i++) {
                fill(f.fds[0], 10000);
                put(f.fds[0], "\n");
                run_until_line(&f);
                assert_true(f.output.history.n_bytes <= 50000);
        }
        assert_true(history_find(&f.output.history, 0)->seq > 190);
        tear_down(&f);
}

/* ---- parking ---- */

static bool has_room(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };

        return poll(&p, 1, 0) == 1;
}

static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

/* run_once() - what is ready is handled. */
static void run_once(Fixture *f) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(f->loop, &timer, clock_now());
        loop_run(f->loop);
        loop_timer_stop(&timer);
}

/* write_until_parked() - lines, numbered on from @number, until nobody reads and the pipe is full. Returns the next number. */
static int write_until_parked(Fixture *f, int number) {
        char text[16];

        for (int idle = 0; idle < 2;) {
                for (; has_room(f->fds[0]); idle = 0) {
                        (void) snprintf(text, sizeof(text), "%d\n", number++);
                        put(f->fds[0], text);
                }
                run_once(f);
                idle += f->output.parked;
        }
        return number;
}

/* follow_all() - as a client: from @seq until there is no more; every line is there. Returns the next. */
static uint64_t follow_all(Fixture *f, uint64_t seq) {
        HistoryLine *line;

        while ((line = history_find(&f->output.history, seq))) {
                char text[HISTORY_TEXT_MAX];

                (void) snprintf(text, sizeof(text), "%llu", (unsigned long long) seq);
                assert_line(line, seq, text);
                seq++;
        }
        output_follow(&f->output, seq);
        return seq;
}

static void set_up_parked(Fixture *f) {
        set_up(f);
        history_set_bounds(&f->output.history, 1000000, 200000, 0);
        f->output.max_lines = 1000000;
        f->output.max_bytes = 200000;
        output_park(&f->output);
}

static void test_parked(void **state) {
        uint64_t seq = 1;
        int number = 1;
        Fixture f;

        (void) state;
        set_up_parked(&f);
        for (int i = 0; i < 10; i++) {
                number = write_until_parked(&f, number);
                assert_true(f.output.parked);
                assert_true(f.output.history.n_bytes <= 200000);
                seq = follow_all(&f, seq);
                assert_false(f.output.parked);
        }
        number = write_until_parked(&f, number);
        output_finish(&f.output); /* what the pipe holds is not lost either */
        assert_true(f.output.history.n_bytes > 200000);
        seq = follow_all(&f, seq);
        assert_int_equal(seq, number);
        assert_true(f.output.history.n_bytes <= 200000);
        tear_down(&f);
}

static void test_parked_without_newlines(void **state) {
        size_t written = 0, kept = 0;
        HistoryLine *line;
        Fixture f;

        (void) state;
        set_up_parked(&f);
        for (int idle = 0; idle < 2; idle += f.output.parked) {
                for (; has_room(f.fds[0]); written += 1000, idle = 0)
                        fill(f.fds[0], 1000);
                run_once(&f);
        }
        assert_true(f.output.parked);
        output_finish(&f.output);
        for (line = history_find(&f.output.history, 1); line; line = TAILQ_NEXT(line, link))
                kept += line->size;
        assert_int_equal(kept, written);
        tear_down(&f);
}

/* The follower is gone: it says so, or its time is over; the runner goes on, and lines are dropped. */
static void test_parked_no_more(void **state) {
        (void) state;
        for (int late = 0; late < 2; late++) {
                Fixture f;
                int number;

                set_up_parked(&f);
                number = write_until_parked(&f, 1);
                assert_true(f.output.parked);
                if (late) {
                        seam_clock_set(f.output.follow_deadline + 1);
                        f.output.unpark.callback(&f.output.unpark);
                        seam_reset();
                } else
                        output_unfollow(&f.output);
                assert_false(f.output.parked);
                for (int i = 0; i < 100000; i++) {
                        char text[16];

                        (void) snprintf(text, sizeof(text), "%d\n", number++);
                        while (!has_room(f.fds[0]))
                                run_once(&f);
                        put(f.fds[0], text);
                }
                assert_true(history_find(&f.output.history, 0)->seq > 1);
                output_follow(&f.output, 0); /* one that begins later starts with what is kept */
                number = write_until_parked(&f, number);
                assert_true(f.output.parked);
                (void) follow_all(&f, history_find(&f.output.history, 0)->seq);
                tear_down(&f);
        }
}

static void test_end_of_a_pipe(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[0], "last\n");
        f.fds[0] = fd_close(f.fds[0]);
        run_until_line(&f);
        put(f.fds[1], "still here\n"); /* a loop that turned on the ended pipe would not get here within the limit */
        run_until_line(&f);
        assert_line(history_find(&f.output.history, 2), 2, "still here");
        tear_down(&f);
}

static void test_taken_pipe(void **state) {
        Fixture f;
        int fd;

        (void) state;
        set_up(&f);
        fd = output_take_pipe(&f.output, HISTORY_STDOUT);
        assert_true(test_is_open(fd));
        assert_int_equal(output_take_pipe(&f.output, HISTORY_STDOUT), -1);
        tear_down(&f);
        assert_true(test_is_open(fd));
        fd_close(fd);
}

static int open_and_close(void *argument) {
        Fixture *f = argument;
        int r;

        output_init(&f->output, f->loop, 10, 1000);
        r = output_open(&f->output, f->fds);
        if (r == 0)
                fd_close_all(f->fds, OUTPUT_PIPES);
        output_deinit(&f->output);
        return r;
}

static void test_open_fails(void **state) {
        Fixture f;

        (void) state;
        assert_int_equal(loop_new(&f.loop), 0);
        assert_int_equal(seam_each(SEAM_PIPE2, EMFILE, open_and_close, &f, 0), 2);
        assert_int_equal(seam_each(SEAM_FCNTL, ENOMEM, open_and_close, &f, 0), 2);
        loop_free(f.loop);
}

/* ---- records and readers ---- */

static void test_records(void **state) {
        const HistoryInfo info = { .source = HISTORY_RECORD, .level = 6 };
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(output_record(&f.output, 1, &info, "a"), 0);
        assert_int_equal(output_record(&f.output, 2, &info, "b"), 0);
        assert_int_equal(output_record(&f.output, 1, &info, "a"), -EALREADY);
        assert_int_equal(output_record(&f.output, 2, &info, "b"), -EALREADY);
        assert_int_equal(output_record(&f.output, 9, &info, "later"), 0);
        assert_line(history_find(&f.output.history, 1), 1, "a");
        assert_line(history_find(&f.output.history, 2), 2, "b");
        assert_line(history_find(&f.output.history, 3), 3, "later");
        assert_null(history_find(&f.output.history, 4));
        tear_down(&f);
}

typedef struct Again {
        OutputReader reader;
        Fixture *f;
        unsigned n;
} Again;

/* Waits once more from within, and takes another one off the list. */
static void wait_again(OutputReader *reader) {
        Again *again = CONTAINER_OF(reader, Again, reader);

        again->n++;
        output_wait(&again->f->output, reader);
        output_unwait(&again->f->reader);
        loop_stop(again->f->loop);
}

static void test_readers(void **state) {
        Again again = { .reader = { .callback = wait_again } };
        Fixture f;

        (void) state;
        set_up(&f);
        again.f = &f;
        output_wait(&f.output, &again.reader);
        output_wait(&f.output, &f.reader);
        put(f.fds[0], "line\n");
        loop_run(f.loop);
        assert_int_equal(again.n, 1);
        assert_int_equal(f.woken, 0);
        output_unwait(&again.reader);
        output_unwait(&again.reader);

        output_wait(&f.output, &f.reader);
        output_end(&f.output);
        loop_run(f.loop);
        assert_int_equal(f.woken, 1);
        assert_true(f.output.ended);
        tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_numbers),
        TEST(test_bound_in_lines),
        TEST(test_bound_in_bytes),
        TEST(test_long_line),
        TEST(test_record_strings),
        TEST(test_tail),
        TEST(test_room),
        TEST(test_bounds_that_change),
        TEST(test_no_memory_loses_a_number),
        TEST(test_lines_from_both),
        TEST(test_cut_anywhere),
        TEST(test_bound_of_a_line),
        TEST(test_finish),
        TEST(test_runner_never_waits),
        TEST(test_parked),
        TEST(test_parked_without_newlines),
        TEST(test_parked_no_more),
        TEST(test_end_of_a_pipe),
        TEST(test_taken_pipe),
        TEST(test_open_fails),
        TEST(test_records),
        TEST(test_readers),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

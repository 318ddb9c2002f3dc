/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner's log: pipes that are read to their end or to the last byte there is; a runner that never waits, and one that
 * does because somebody follows; records by number; readers woken, cancelled, waiting again; the last lines for people; a
 * silent runner, which has nothing. What is in the ring is tested by test-log-ring, the file by test-log-file.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/log-store.h"
#include "supervisor/runner-log-internal.h"
#include "supervisor/supervisor.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct Fixture {
        Loop *loop;
        LogStore *store;
        LogConfig config;
        RunnerLog *log;
        LogInput input;
        int fds[LOG_PIPES]; /* the runner's ends */
        LogReader reader;
        unsigned woken;
} Fixture;

static void woken(LogReader *reader) {
        Fixture *f = CONTAINER_OF(reader, Fixture, reader);

        f->woken++;
        loop_stop(f->loop);
}

static void set_up_store(Fixture *f, bool park, bool trust) {
        *f = (Fixture){ .reader = { .callback = woken }, .config = LOG_CONFIG_NULL };
        f->config.ring_size = LOG_RING_SIZE_MIN;
        f->config.park = park;
        assert_int_equal(loop_new(&f->loop), 0);
        assert_int_equal(log_store_new(&f->store, f->loop, NULL), 0);
        if (trust)
                log_store_trust_follower(f->store);
        assert_int_equal(runner_log_new(&f->log, f->store, "web", &f->config), 0);
        log_input_init(&f->input, f->log, 11);
        assert_int_equal(log_input_open(&f->input, f->fds), 0);
        log_input_born(&f->input, 4711);
}

static void set_up_with(Fixture *f, bool park) {
        set_up_store(f, park, false);
}

static void set_up(Fixture *f) {
        set_up_with(f, false);
}

static void tear_down(Fixture *f) {
        fd_close_all(f->fds, LOG_PIPES);
        runner_log_unwait(&f->reader);
        log_input_deinit(&f->input);
        runner_log_free(f->log);
        log_store_free(f->store);
        loop_free(f->loop);
}

static void put(int fd, const char *text) {
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* run_until_line() - the loop runs until something new is in the log. */
static void run_until_line(Fixture *f) {
        runner_log_wait(f->log, &f->reader);
        loop_run(f->loop);
}

static bool find(const Fixture *f, uint64_t seq, LogLine *ret_line) {
        uint64_t position = runner_log_find(f->log, seq);

        return runner_log_read(f->log, &position, ret_line);
}

static void assert_line(const Fixture *f, uint64_t seq, LogSource source, const char *text) {
        LogLine line;

        assert_true(find(f, seq, &line));
        assert_int_equal(line.seq, seq);
        assert_int_equal(line.source, source);
        assert_int_equal(line.size, strlen(text));
        assert_memory_equal(line.text, text, line.size);
}

static void assert_no_line(const Fixture *f, uint64_t seq) {
        LogLine line;

        assert_false(find(f, seq, &line));
}

static LogStatus status(const Fixture *f) {
        LogStatus now;

        runner_log_status(f->log, &now);
        return now;
}

/* ---- pipes ---- */

static void test_lines_from_both(void **state) {
        LogLine line;
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[LOG_SOURCE_STDERR], "bad\nworse\n");
        run_until_line(&f);
        put(f.fds[LOG_SOURCE_STDOUT], "good\n");
        run_until_line(&f);
        assert_line(&f, 1, LOG_SOURCE_STDERR, "bad");
        assert_line(&f, 2, LOG_SOURCE_STDERR, "worse");
        assert_line(&f, 3, LOG_SOURCE_STDOUT, "good");
        assert_true(find(&f, 3, &line));
        assert_int_equal(line.pid, 4711);
        assert_int_equal(line.instance, 11);
        assert_int_equal(f.woken, 2);
        /* The read end alone does not wait: the runner's is as programs expect. */
        assert_false(fcntl(f.fds[0], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(log_input_fd(&f.input, LOG_SOURCE_STDOUT), F_GETFL) & O_NONBLOCK);
        tear_down(&f);
}

static void test_finish(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[0], "whole\nbegun");
        put(f.fds[1], "other");
        log_input_finish(&f.input); /* the write ends are still open: it does not wait for them */
        assert_line(&f, 1, LOG_SOURCE_STDOUT, "whole");
        assert_line(&f, 2, LOG_SOURCE_STDOUT, "begun");
        assert_line(&f, 3, LOG_SOURCE_STDERR, "other");
        log_input_finish(&f.input);
        assert_no_line(&f, 4);
        tear_down(&f);
}

/* One that says nothing has no ring, and the supervisor of such ones no scratch; not at its end either. */
static void test_silent(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        fd_close_all(f.fds, 1);
        log_input_finish(&f.input);
        assert_null(f.log->ring);
        assert_null(f.store->scratch);
        assert_int_equal(status(&f).next_seq, 1);
        assert_false(runner_log_has_ended(f.log));
        runner_log_set_over(f.log, true);
        assert_true(runner_log_has_ended(f.log));
        tear_down(&f);

        assert_true(sizeof(RunnerLog) + sizeof(LogInput) <= 768); /* of the 1.5 KiB that a runner may take */
}

static void test_end_of_a_pipe(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[0], "last\nand begun");
        f.fds[0] = fd_close(f.fds[0]);
        while (status(&f).next_seq < 3)
                run_until_line(&f);
        put(f.fds[1], "still here\n"); /* a loop that turned on the ended pipe would not get here within the limit */
        while (status(&f).next_seq < 4)
                run_until_line(&f);
        assert_line(&f, 2, LOG_SOURCE_STDOUT, "and begun");
        assert_line(&f, 3, LOG_SOURCE_STDERR, "still here");
        tear_down(&f);
}

static void test_taken_pipe(void **state) {
        Fixture f;
        int fd;

        (void) state;
        set_up(&f);
        fd = log_input_take(&f.input, LOG_SOURCE_STDOUT);
        assert_true(test_is_open(fd));
        assert_int_equal(log_input_take(&f.input, LOG_SOURCE_STDOUT), -1);
        tear_down(&f);
        assert_true(test_is_open(fd));
        fd_close(fd);
}

static int open_and_close(void *argument) {
        Fixture *f = argument;
        int r;

        log_input_init(&f->input, f->log, 12);
        r = log_input_open(&f->input, f->fds);
        if (r == 0)
                fd_close_all(f->fds, LOG_PIPES);
        log_input_deinit(&f->input);
        return r;
}

static void test_open_fails(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        log_input_deinit(&f.input);
        fd_close_all(f.fds, LOG_PIPES);
        assert_int_equal(seam_each(SEAM_PIPE2, EMFILE, open_and_close, &f, 0), 2);
        assert_int_equal(seam_each(SEAM_FCNTL, ENOMEM, open_and_close, &f, 0), 2);
        tear_down(&f);
}

/* run_once() - what is ready is handled. */
static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

static void run_once(Fixture *f) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(f->loop, &timer, clock_now());
        loop_run(f->loop);
        loop_timer_stop(&timer);
}

/* Nobody reads the log, and the runner can write for ever. */
static void test_runner_never_waits(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        for (int i = 0; i < 20000; i++) {
                put(f.fds[0], "some line of a runner that has much to say\n");
                if (i % 500 == 0)
                        run_once(&f);
        }
        log_input_finish(&f.input);
        assert_int_equal(status(&f).lines, 20000);
        assert_true(status(&f).first_seq > 15000 && status(&f).next_seq == 20001);
        assert_int_equal(status(&f).dropped, 0); /* there is no file that misses them */
        tear_down(&f);
}

/* Without memory for a ring the runner does not wait either; what is lost is counted, and it is tried again. */
static void test_no_ring(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        log_set_level(LOG_LEVEL_ERROR - 1);
        seam_fail_always(SEAM_MEMFD_CREATE, ENOMEM);
        for (int i = 0; i < 10; i++) {
                put(f.fds[0], "one\ntwo\n");
                run_once(&f);
        }
        assert_int_equal(status(&f).dropped, 20);
        assert_int_equal(status(&f).next_seq, 1);
        seam_reset();
        log_set_level(LOG_LEVEL_NOTICE);
        put(f.fds[0], "three\n");
        run_until_line(&f);
        assert_line(&f, 1, LOG_SOURCE_STDOUT, "three");
        tear_down(&f);
}

typedef struct Told {
        unsigned times;
        uint64_t lines;
} Told;

static void tell(void *userdata, const char *name, uint64_t n) {
        Told *told = userdata;

        assert_string_equal(name, "web");
        told->times++;
        told->lines += n;
}

/* Whoever wants to know is told of each dropped line once, but not of each by itself. */
static void test_dropped_told(void **state) {
        LoopTimer later = LOOP_TIMER_NULL(stop_now);
        uint64_t began = clock_now();
        Told told = { 0 };
        Fixture f;

        (void) state;
        set_up(&f);
        log_store_on_dropped(f.store, tell, &told);
        log_set_level(LOG_LEVEL_ERROR - 1);
        seam_fail_always(SEAM_MEMFD_CREATE, ENOMEM);
        while (status(&f).dropped < 20) {
                put(f.fds[0], "one\ntwo\n");
                run_once(&f);
                run_once(&f);
        }
        assert_true(told.times > 0 && told.times <= 1 + (clock_now() - began) / LOG_DROPPED_US);
        seam_reset();
        log_set_level(LOG_LEVEL_NOTICE);
        put(f.fds[0], "three\n");
        loop_timer_set(f.loop, &later, clock_after(clock_now(), LOG_DROPPED_US + LOG_DROPPED_US / 8));
        loop_run(f.loop);
        loop_timer_stop(&later);
        assert_true(told.times <= 1 + (clock_now() - began) / LOG_DROPPED_US);
        assert_int_equal(told.lines, status(&f).dropped);
        tear_down(&f);
}

/* One that writes without a pause does not keep another one from being read. */
static void test_fair(void **state) {
        LogConfig config = LOG_CONFIG_NULL;
        static char much[LOG_RING_BATCH];
        RunnerLog *other;
        int fds[LOG_PIPES];
        LogInput input;
        LogStatus now;
        Fixture f;

        (void) state;
        set_up(&f);
        memset(much, '\n', sizeof(much));
        assert_int_equal(runner_log_new(&other, f.store, "other", &config), 0);
        log_input_init(&input, other, 12);
        assert_int_equal(log_input_open(&input, fds), 0);
        for (int i = 0; i < 100; i++) {
                assert_int_equal(write(f.fds[0], much, sizeof(much)), sizeof(much));
                put(fds[0], "me too\n");
                run_once(&f);
                runner_log_status(other, &now);
                assert_int_equal(now.lines, i + 1);
                while (status(&f).lines < (uint64_t) (i + 1) * sizeof(much))
                        run_once(&f);
        }
        fd_close_all(fds, LOG_PIPES);
        log_input_deinit(&input);
        runner_log_free(other);
        tear_down(&f);
}

/* ---- parking ---- */

static bool has_room(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };

        return poll(&p, 1, 0) == 1;
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
                idle += f->log->parked;
        }
        return number;
}

/* follow_all() - as a client: from @seq until there is no more; every line is there. Returns the next. */
static uint64_t follow_all(Fixture *f, uint64_t seq) {
        uint64_t before;

        do {
                LogLine line;

                before = seq;
                while (find(f, seq, &line)) {
                        char text[24];

                        (void) snprintf(text, sizeof(text), "%llu", (unsigned long long) seq);
                        assert_line(f, seq, LOG_SOURCE_STDOUT, text);
                        seq++;
                }
                runner_log_follow(f->log, seq);
        } while (seq != before);
        return seq;
}

static void test_parked(void **state) {
        uint64_t seq = 1;
        int number = 1;
        Fixture f;

        (void) state;
        set_up_with(&f, true);
        for (int i = 0; i < 10; i++) {
                number = write_until_parked(&f, number);
                assert_true(status(&f).parked);
                seq = follow_all(&f, seq);
                assert_false(status(&f).parked);
        }
        number = write_until_parked(&f, number);
        log_input_finish(&f.input); /* what the pipe holds is not lost either */
        runner_log_set_over(f.log, true);
        assert_false(runner_log_has_ended(f.log));
        seq = follow_all(&f, seq);
        assert_int_equal(seq, number);
        assert_true(runner_log_has_ended(f.log));
        tear_down(&f);
}

static void test_parked_without_newlines(void **state) {
        static const char some[1000];
        size_t written = 0, kept = 0;
        uint64_t seq = 1, before;
        LogLine line;
        Fixture f;

        (void) state;
        set_up_with(&f, true);
        for (int idle = 0; idle < 2; idle += f.log->parked) {
                for (; has_room(f.fds[0]); written += sizeof(some), idle = 0)
                        assert_int_equal(write(f.fds[0], some, sizeof(some)), sizeof(some));
                run_once(&f);
        }
        assert_true(f.log->parked);
        log_input_finish(&f.input);
        do {
                before = seq;
                for (; find(&f, seq, &line); seq++)
                        kept += line.size;
                runner_log_follow(f.log, seq);
        } while (seq != before);
        assert_int_equal(kept, written);
        tear_down(&f);
}

/* The follower is gone: it says so, or its time is over; the runner goes on, and lines are dropped. */
static void test_parked_no_more(void **state) {
        (void) state;
        for (int late = 0; late < 2; late++) {
                Fixture f;
                int number;

                set_up_with(&f, true);
                number = write_until_parked(&f, 1);
                assert_true(f.log->parked);
                if (late) {
                        seam_clock_set(f.log->follow_deadline + 1);
                        f.store->look.callback(&f.store->look);
                        seam_reset();
                } else
                        runner_log_unfollow(f.log);
                assert_false(f.log->parked);
                for (int i = 0; i < 100000; i++) {
                        char text[16];

                        (void) snprintf(text, sizeof(text), "%d\n", number++);
                        while (!has_room(f.fds[0]))
                                run_once(&f);
                        put(f.fds[0], text);
                }
                assert_true(status(&f).first_seq > 1);
                runner_log_follow(f.log, 0); /* one that begins later starts with what is kept */
                number = write_until_parked(&f, number);
                assert_true(f.log->parked);
                (void) follow_all(&f, status(&f).first_seq);
                tear_down(&f);
        }
}

/* Of a private tree: who follows need not say so again, before he has begun or after; until he says that he does not. */
static void test_parked_for_long(void **state) {
        const uint64_t long_us = 1000 * LOG_FOLLOW_US;
        uint64_t seq = 1;
        int number = 1;
        Fixture f;

        (void) state;
        set_up_store(&f, true, true);
        seam_clock_set(clock_now());
        for (int i = 0; i < 3; i++) {
                number = write_until_parked(&f, number);
                assert_true(f.log->parked);
                seam_clock_advance(long_us);
                f.store->look.callback(&f.store->look);
                number = write_until_parked(&f, number);
                assert_true(f.log->parked);
                seq = follow_all(&f, seq);
                assert_false(f.log->parked);
        }
        number = write_until_parked(&f, number);
        log_input_finish(&f.input);
        runner_log_set_over(f.log, true);
        seam_clock_advance(long_us);
        f.store->look.callback(&f.store->look);
        assert_false(runner_log_has_ended(f.log));
        seq = follow_all(&f, seq);
        assert_int_equal(seq, number);
        assert_true(runner_log_has_ended(f.log));
        tear_down(&f);

        set_up_store(&f, true, true);
        (void) write_until_parked(&f, 1);
        runner_log_unfollow(f.log);
        assert_false(f.log->parked);
        tear_down(&f);
}

/* succeed() - a supervisor that goes on with the log of @f, of which only ring and scratch are there any more. */
static void succeed(Fixture *f, Fixture *ret_successor) {
        const LogCrossing crossing = runner_log_crossing(f->log);
        Fixture *to = ret_successor;

        *to = (Fixture){ .loop = f->loop, .config = f->config, .reader = f->reader };
        assert_int_equal(log_store_new(&to->store, to->loop, NULL), 0);
        log_store_hold(to->store);
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                assert_int_equal(
                        log_store_adopt(to->store, KEEPER_FD_SCRATCH, i, fd_dup(log_scratch_fd(f->store->scratch, i))),
                        0);
        assert_int_equal(log_store_adopt(to->store, KEEPER_FD_RING, log_ring_id(f->log->ring),
                                         fd_dup(log_ring_fd(f->log->ring))),
                         0);
        assert_int_equal(log_store_follow(to->store), 0);
        assert_int_equal(runner_log_new(&to->log, to->store, "web", &to->config), 0);
        runner_log_restore(to->log, &crossing);
        log_store_release(to->store);
}

/* What waits because it may not be dropped waits on in a successor, also of a runner that has ended, and is given there. */
static void test_parked_over_a_takeover(void **state) {
        Fixture f, to;
        uint64_t seq;
        int number;

        (void) state;
        set_up_with(&f, true);
        number = write_until_parked(&f, 1);
        log_input_finish(&f.input);
        runner_log_set_over(f.log, true);
        assert_false(runner_log_has_ended(f.log));
        succeed(&f, &to);
        assert_true(to.log->parked);
        assert_false(runner_log_has_ended(to.log));
        seq = follow_all(&to, 1);
        assert_int_equal(seq, number);
        assert_true(runner_log_has_ended(to.log));
        runner_log_free(to.log);
        log_store_free(to.store);
        tear_down(&f);
}

/* supervise() - how long a supervisor waits for who follows. */
static uint64_t supervise(int lane_fd_consume) {
        SupervisorOptions options = {
                .generation = 1,
                .stop_timeout_us = USEC_PER_SEC,
                .private_fd_consume = lane_fd_consume,
                .handover_fd_consume = -1,
        };
        Supervisor *supervisor;
        uint64_t follow_us;
        int link[2];

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, link), 0);
        options.keeper_fd_consume = link[0];
        assert_int_equal(supervisor_new(&supervisor, &options), 0);
        follow_us = supervisor->logs->follow_us;
        supervisor_free(supervisor);
        fd_close(link[1]);
        return follow_us;
}

static void test_private_supervisor(void **state) {
        int lane[2];

        (void) state;
        assert_int_equal(supervise(-1), LOG_FOLLOW_US);
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        assert_int_equal(supervise(lane[0]), USEC_INFINITY);
        fd_close(lane[1]);
}

/* ---- records and readers ---- */

static void test_records(void **state) {
        LogLine line = { .level = 6, .text = "a", .size = 1 };
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(log_input_record(&f.input, 1, &line), 0);
        line.text = "b";
        assert_int_equal(log_input_record(&f.input, 2, &line), 0);
        assert_int_equal(log_input_record(&f.input, 1, &line), -EALREADY);
        assert_int_equal(log_input_record(&f.input, 2, &line), -EALREADY);
        line.text = "c";
        assert_int_equal(log_input_record(&f.input, 9, &line), 0);
        assert_line(&f, 1, LOG_SOURCE_RECORD, "a");
        assert_line(&f, 2, LOG_SOURCE_RECORD, "b");
        assert_line(&f, 3, LOG_SOURCE_RECORD, "c");
        assert_no_line(&f, 4);
        runner_log_note(f.log, LOG_LEVEL_WARNING, "%d records never arrived", 6);
        assert_line(&f, 4, LOG_SOURCE_RECORD, "6 records never arrived");
        assert_int_equal(log_ring_record_seq(f.log->ring, 11), 9);
        tear_down(&f);
}

typedef struct Again {
        LogReader reader;
        Fixture *f;
        unsigned n;
} Again;

/* Waits once more from within, and takes another one off the list. */
static void wait_again(LogReader *reader) {
        Again *again = CONTAINER_OF(reader, Again, reader);

        again->n++;
        runner_log_wait(again->f->log, reader);
        runner_log_unwait(&again->f->reader);
        loop_stop(again->f->loop);
}

static void test_readers(void **state) {
        Again again = { .reader = { .callback = wait_again } };
        Fixture f;

        (void) state;
        set_up(&f);
        again.f = &f;
        runner_log_wait(f.log, &again.reader);
        runner_log_wait(f.log, &f.reader);
        put(f.fds[0], "line\n");
        loop_run(f.loop);
        assert_int_equal(again.n, 1);
        assert_int_equal(f.woken, 0);
        runner_log_unwait(&again.reader);
        runner_log_unwait(&again.reader);

        runner_log_wait(f.log, &f.reader);
        runner_log_set_over(f.log, true);
        loop_run(f.loop);
        assert_int_equal(f.woken, 1);
        tear_down(&f);
}

/* ---- over restarts ---- */

/* Numbers go on over instances; each line says whose it is, and the last ones of one are told apart. */
static void test_instances(void **state) {
        char **lines;
        LogLine line;
        Fixture f;

        (void) state;
        set_up(&f);
        put(f.fds[0], "of the first\n");
        log_input_finish(&f.input);
        for (unsigned i = 0; i < LOG_PIPES; i++)
                fd_close(log_input_take(&f.input, (LogSource) i));
        log_input_deinit(&f.input);
        fd_close_all(f.fds, LOG_PIPES);

        log_input_init(&f.input, f.log, 12);
        assert_int_equal(log_input_open(&f.input, f.fds), 0);
        log_input_born(&f.input, 4712);
        put(f.fds[1], "of the second\n");
        put(f.fds[0], "\xffodd\n");
        log_input_finish(&f.input);
        assert_line(&f, 1, LOG_SOURCE_STDOUT, "of the first");
        assert_true(find(&f, 2, &line));
        assert_int_equal(line.instance, 12);
        assert_int_equal(line.pid, 4712);

        assert_int_equal(runner_log_tail(f.log, 0, 10, 1000, &lines), 3);
        assert_string_equal(lines[0], "of the first");
        assert_string_equal(lines[1], "?odd");
        free(lines);
        assert_int_equal(runner_log_tail(f.log, 12, 10, 1000, &lines), 2);
        assert_string_equal(lines[1], "of the second");
        free(lines);
        assert_int_equal(runner_log_tail(f.log, 0, 1, 1000, &lines), 1);
        assert_string_equal(lines[0], "of the second");
        free(lines);
        assert_int_equal(runner_log_tail(f.log, 0, 10, 4, &lines), 1); /* always one, as far as it fits */
        assert_string_equal(lines[0], "of t");
        free(lines);
        assert_int_equal(runner_log_tail(f.log, 99, 10, 1000, &lines), 0);
        assert_null(lines);
        tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_lines_from_both),
        TEST(test_finish),
        TEST(test_silent),
        TEST(test_end_of_a_pipe),
        TEST(test_taken_pipe),
        TEST(test_open_fails),
        TEST_SLOW(test_runner_never_waits, 60),
        TEST(test_no_ring),
        TEST(test_dropped_told),
        TEST(test_fair),
        TEST_SLOW(test_parked, 60),
        TEST(test_parked_without_newlines),
        TEST_SLOW(test_parked_no_more, 60),
        TEST_SLOW(test_parked_for_long, 60),
        TEST(test_parked_over_a_takeover),
        TEST(test_private_supervisor),
        TEST(test_records),
        TEST(test_readers),
        TEST(test_instances),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

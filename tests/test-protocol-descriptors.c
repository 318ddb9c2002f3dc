/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about descriptors of calls, against one real engine and a raw other side, from both sides:
 * absent, repeated, lost to our own limit, too many; credit given, waited for, returned and overdrawn; a lane without
 * room; calls cancelled while their descriptors are on the way.
 */

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/peer-internal.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

#define CREDIT 4u /* descriptors that the engine under test lets the raw side send */

static const PeerLimits limits = { .fd_credit = CREDIT, .max_held_fds = 6 };

/* As between supervisor (0) and runner (1). */
static const PeerConfig configs[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = &limits },
};

static int open_eventfd(void) {
        int fd = eventfd(0, EFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

/* send_fd() - an eventfd as the raw side's descriptor @n of epoch 0; returns its id. */
static uint64_t send_fd(TestBench *bench, uint32_t n) {
        uint64_t id = test_raw_fd_id(&bench->raw, 0, n);
        _cleanup_fd_ int fd = open_eventfd();

        test_raw_lane(&bench->raw, id, 8, fd, 1);
        return id;
}

static uint64_t call_id(const TestBench *bench, unsigned n) {
        return 2 * n + bench->raw.side;
}

/* call_with() - CALL @n of the raw side that lists @ids. */
static void call_with(TestBench *bench, unsigned n, const uint64_t *ids, size_t n_ids) {
        RawFrame frame = { .kind = BATON__KIND__CALL, .id = call_id(bench, n), .method = "m", .end = true };

        for (size_t i = 0; i < n_ids; i++)
                frame.fds[i] = ids[i];
        frame.n_fds = n_ids;
        test_raw_send(&bench->raw, &frame);
        test_bench_settle(bench);
}

static void expect_answer(TestBench *bench, unsigned n, Status status, const char *fragment, unsigned credit) {
        test_raw_expect(&bench->raw, CHANNEL_RPC, BATON__KIND__ANSWER, call_id(bench, n));
        assert_int_equal(bench->raw.last->status, status);
        assert_non_null(strstr(bench->raw.last->message, fragment));
        assert_int_equal(bench->raw.last->fd_credit, credit);
}

static void test_absent_in_call(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                uint64_t ids[2];

                test_bench_ready(&bench, &configs[side]);
                ids[0] = send_fd(&bench, 3);
                ids[1] = ids[0] + 2; /* never sent */
                call_with(&bench, 1, ids, 2);
                expect_answer(&bench, 1, STATUS_INVALID_ARGUMENT, "not sent", 1);
                ids[0] = ids[1] = send_fd(&bench, 4); /* listed twice: absent the second time */
                call_with(&bench, 2, ids, 2);
                expect_answer(&bench, 2, STATUS_INVALID_ARGUMENT, "not sent", 1);
                call_with(&bench, 3, ids, 1); /* and once used, in every later frame */
                expect_answer(&bench, 3, STATUS_INVALID_ARGUMENT, "not sent", 0);
                assert_int_equal(test_n_kept, 0);
                assert_int_equal(peer_counters(bench.test.peer)->refused, 3);
                test_bench_alive(&bench, "absent");
                test_bench_close(&bench);
        }
}

/* answer_with() - starts a call of the engine's and answers it by hand, listing @ids. */
static TestAnswer answer_with(TestBench *bench, const uint64_t *ids, size_t n_ids) {
        CallParameters parameters = { .method = "m" };
        RawFrame frame = { .kind = BATON__KIND__ANSWER, .n_fds = n_ids };
        TestAnswer answer = { 0 };

        assert_int_equal(call_start(bench->test.peer, &parameters, test_done, &answer, NULL), 0);
        test_bench_settle(bench);
        do
                assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        while (bench->raw.last->kind != BATON__KIND__CALL);
        frame.id = bench->raw.last->id;
        for (size_t i = 0; i < n_ids; i++)
                frame.fds[i] = ids[i];
        test_raw_send(&bench->raw, &frame);
        test_bench_settle(bench);
        assert_int_equal(answer.n, 1);
        return answer;
}

static void test_absent_in_answer(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };
                TestAnswer answer;
                uint64_t ids[2];

                test_bench_ready(&bench, &configs[side]);
                ids[0] = test_raw_fd_id(&bench.raw, 0, 3);
                answer = answer_with(&bench, ids, 1);
                assert_int_equal(answer.status, STATUS_INVALID_ARGUMENT);
                assert_true(answer.local);
                assert_non_null(strstr(answer.message, "not sent"));
                ids[0] = ids[1] = send_fd(&bench, 4);
                answer = answer_with(&bench, ids, 2);
                assert_int_equal(answer.status, STATUS_INVALID_ARGUMENT);
                fd_close_all(answer.fds, answer.n_fds);
                test_bench_alive(&bench, "absent");
                test_bench_close(&bench);
        }
}

static void test_lost(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                unsigned long limit;
                TestAnswer answer;
                uint64_t ids[2];

                test_bench_ready(&bench, &configs[side]);
                ids[0] = send_fd(&bench, 3);
                ids[1] = send_fd(&bench, 4);
                limit = test_limit_fds(1); /* the first arrives, the second is lost */
                call_with(&bench, 1, ids, 2);
                test_restore_fds(limit);
                expect_answer(&bench, 1, STATUS_RESOURCE_EXHAUSTED, "descriptor limit", 2);
                assert_int_equal(peer_counters(bench.test.peer)->lost_fds, 1);

                ids[0] = send_fd(&bench, 5);
                limit = test_limit_fds(0);
                answer = answer_with(&bench, ids, 1);
                test_restore_fds(limit);
                assert_int_equal(answer.status, STATUS_RESOURCE_EXHAUSTED);
                assert_true(answer.local);
                assert_non_null(strstr(answer.message, "descriptor limit"));

                /* A retry works once descriptors are free; an absent one is told before a lost one. */
                ids[0] = send_fd(&bench, 6);
                call_with(&bench, 2, ids, 1);
                assert_int_equal(test_n_kept, 1);
                test_end_kept(0);
                ids[0] = send_fd(&bench, 7);
                ids[1] = ids[0] + 200;
                limit = test_limit_fds(0);
                call_with(&bench, 3, ids, 2);
                test_restore_fds(limit);
                do
                        assert_true(test_raw_read(&bench.raw, CHANNEL_RPC));
                while (bench.raw.last->kind != BATON__KIND__ANSWER || bench.raw.last->id != call_id(&bench, 3));
                assert_int_equal(bench.raw.last->status, STATUS_INVALID_ARGUMENT);
                test_bench_close(&bench);
        }
}

static void test_held_bound(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                uint64_t ids[3];
                int pipe_fds[2];

                test_bench_ready(&bench, &configs[side]);
                for (unsigned call = 1; call <= 2; call++) {
                        for (unsigned i = 0; i < 3; i++)
                                ids[i] = send_fd(&bench, 3 * call + i);
                        call_with(&bench, call, ids, 3);
                        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, 0); /* at once, alone */
                        assert_int_equal(bench.raw.last->fd_credit, 3);
                }
                assert_int_equal(test_n_kept, 2);
                assert_int_equal(pipe(pipe_fds), 0);
                ids[0] = test_raw_fd_id(&bench.raw, 0, 20);
                test_raw_lane(&bench.raw, ids[0], 8, pipe_fds[1], 1);
                fd_close(pipe_fds[1]);
                call_with(&bench, 3, ids, 1);
                expect_answer(&bench, 3, STATUS_RESOURCE_EXHAUSTED, "hold 6 descriptors", 1); /* piggybacked */
                assert_int_equal(read(pipe_fds[0], &(char){ 0 }, 1), 0);                      /* closed */
                fd_close(pipe_fds[0]);
                test_end_kept(0);
                test_bench_settle(&bench);
                ids[0] = send_fd(&bench, 21);
                call_with(&bench, 4, ids, 1);
                assert_int_equal(test_n_kept, 1);
                test_end_kept(0);
                test_bench_close(&bench);
        }
}

/* The descriptors of a frame that is late, or refused for another reason, are closed, their credit comes back. */
static void test_late_frame_with_descriptors(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };
                RawFrame late = { .kind = BATON__KIND__ANSWER, .n_fds = 1 };
                int pipe_fds[2];

                test_bench_ready(&bench, &configs[side]);
                (void) answer_with(&bench, NULL, 0);
                late.id = bench.raw.last->id;
                assert_int_equal(pipe(pipe_fds), 0);
                late.fds[0] = test_raw_fd_id(&bench.raw, 0, 3);
                test_raw_lane(&bench.raw, late.fds[0], 8, pipe_fds[1], 1);
                fd_close(pipe_fds[1]);
                test_raw_send(&bench.raw, &late);
                test_bench_settle(&bench);
                assert_int_equal(read(pipe_fds[0], &(char){ 0 }, 1), 0);
                fd_close(pipe_fds[0]);
                assert_int_equal(peer_counters(bench.test.peer)->late, 1);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, 0);
                assert_int_equal(bench.raw.last->fd_credit, 1);
                test_bench_close(&bench);
        }
}

/* Credit counts what was listed and has not come back yet: without it the bound would be twice as high. */
static void test_credit_owed(void **state) {
        TestBench bench = { .test.on_call = test_keep };
        uint64_t ids[CREDIT];

        (void) state;
        test_bench_ready(&bench, &configs[0]);
        for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < CREDIT; i++)
                        ids[i] = send_fd(&bench, 3 + round * CREDIT + i);
                call_with(&bench, 1 + round, ids, CREDIT);
                test_end_kept(0);
                test_bench_settle(&bench);
                assert_int_equal(bench.test.n_ended, 0);
        }
        /* In one turn with the CALL that lists them all: more than was ever granted. */
        for (unsigned i = 0; i < CREDIT; i++)
                ids[i] = send_fd(&bench, 50 + i);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CALL,
                                               .id = call_id(&bench, 9),
                                               .method = "m",
                                               .end = true,
                                               .n_fds = CREDIT,
                                               .fds = { ids[0], ids[1], ids[2], ids[3] } });
        (void) send_fd(&bench, 60);
        test_bench_ended(&bench, "owed", STATUS_RESOURCE_EXHAUSTED, "than there was credit for", true);
        test_bench_close(&bench);
        test_end_kept(0);
}

/* ---- sending ---- */

/* hello_with_credit() - Hello both ways, the raw side granting @credit. */
static void hello_with_credit(TestBench *bench, uint32_t credit) {
        Baton__Hello hello = BATON__HELLO__INIT;

        test_raw_expect(&bench->raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        hello.protocol_min = hello.protocol_max = 1;
        hello.fd_credit = credit;
        test_raw_send(&bench->raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
        test_bench_settle(bench);
}

static void start_with_fds(TestBench *bench, unsigned n, uint64_t timeout_us, TestAnswer *answer, Call **ret_call) {
        CallParameters parameters = { .method = "m", .n_fds = n, .timeout_us = timeout_us };
        int fds[8];

        for (unsigned i = 0; i < n; i++)
                fds[i] = open_eventfd();
        parameters.fds_consume = fds;
        assert_int_equal(call_start(bench->test.peer, &parameters, test_done, answer, ret_call), 0);
        test_bench_settle(bench);
}

static uint64_t engine_fd_id(const TestBench *bench, uint32_t n) {
        return test_raw_fd_id(&bench->raw, 0, n) ^ 1;
}

/* take_call() - the engine's next CALL, with @n descriptors from number @first on. */
static uint64_t take_call(TestBench *bench, uint32_t first, size_t n) {
        assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        assert_int_equal(bench->raw.last->kind, BATON__KIND__CALL);
        assert_int_equal(bench->raw.last->n_fds, n);
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(bench->raw.last->fds[i], engine_fd_id(bench, first + (uint32_t) i));
                fd_close(test_raw_take(&bench->raw, engine_fd_id(bench, first + (uint32_t) i)));
        }
        return bench->raw.last->id;
}

static void test_credit_waits(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestAnswer answers[4] = { 0 };
                TestBench bench = { 0 };

                test_bench_open(&bench, &configs[side]);
                hello_with_credit(&bench, 3);
                /* More than there can ever be fails at once; a frame takes its credit whole or not at all. */
                start_with_fds(&bench, 4, 0, &answers[0], NULL);
                assert_int_equal(answers[0].status, STATUS_RESOURCE_EXHAUSTED);
                assert_true(answers[0].local);
                start_with_fds(&bench, 2, 0, &answers[1], NULL);
                start_with_fds(&bench, 2, 0, &answers[2], NULL);
                start_with_fds(&bench, 0, 0, &answers[3], NULL); /* one without descriptors passes by */
                (void) take_call(&bench, 3, 2);
                (void) take_call(&bench, 5, 0);
                assert_true(test_raw_silent(bench.raw.lane) && test_raw_silent(bench.raw.channels[0]));
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CREDIT, .fd_credit = 2 });
                test_bench_settle(&bench);
                (void) take_call(&bench, 5, 2);
                test_bench_close(&bench);
        }
}

/* Credit for what was never sent would let the other side spend what the lane has no room for. */
static void test_credit_invented(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestAnswer answer = { 0 };
                TestBench bench = { 0 };

                test_bench_open(&bench, &configs[side]);
                hello_with_credit(&bench, 3);
                start_with_fds(&bench, 2, 0, &answer, NULL);
                (void) take_call(&bench, 3, 2);
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CREDIT, .fd_credit = 3 });
                test_bench_settle(&bench);
                test_bench_ended(&bench, "invented", STATUS_INVALID_ARGUMENT, "credit for 1 descriptors more", true);
                test_bench_close(&bench);
        }
}

/* Answers that wait for credit leave in the order in which they were given. */
static void test_answers_wait_in_turn(void **state) {
        TestBench bench = { .test.on_call = test_keep };

        (void) state;
        test_bench_open(&bench, &configs[1]);
        hello_with_credit(&bench, 1);
        for (unsigned i = 1; i <= 4; i++)
                call_with(&bench, i, NULL, 0);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(
                        call_answer(test_kept[i],
                                    &(AnswerParameters){ .fds_consume = (int[]){ open_eventfd() }, .n_fds = 1 }),
                        0);
        test_n_kept = 0;
        test_bench_settle(&bench);
        for (unsigned i = 1; i <= 4; i++) {
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__ANSWER, call_id(&bench, i));
                fd_close(test_raw_take(&bench.raw, engine_fd_id(&bench, 2 + i)));
                assert_true(test_raw_silent(bench.raw.channels[0]));
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CREDIT, .fd_credit = 1 });
                test_bench_settle(&bench);
        }
        test_bench_close(&bench);
}

/* flush_once() - one peer_flush(), as a host does it. */
static void flush_once(TestBench *bench) {
        assert_true(bench->test.awake);
        bench->test.awake = false;
        peer_flush(bench->test.peer);
}

/* start_without_room() - a call with one descriptor and 5 s, while sendmsg() fails with @error. */
static void start_without_room(TestBench *bench, int error, TestAnswer *answer) {
        int fd = open_eventfd();
        CallParameters parameters = { .method = "m", .timeout_us = 5000000, .fds_consume = &fd, .n_fds = 1 };
        unsigned before = seam_hits(SEAM_SENDMSG);

        seam_fail_always(SEAM_SENDMSG, error);
        assert_int_equal(call_start(bench->test.peer, &parameters, test_done, answer, NULL), 0);
        flush_once(bench);
        assert_true(seam_hits(SEAM_SENDMSG) > before);
}

/* The frame is written only after the kernel took its lane messages, which waits for room. */
static void check_waits_for_room(TestBench *bench, int error) {
        TestAnswer answer = { 0 };
        uint64_t id;

        start_without_room(bench, error, &answer);
        seam_pass(SEAM_SENDMSG);
        assert_true(test_raw_silent(bench->raw.channels[0]));
        seam_clock_advance(1000000);
        test_bench_settle(bench);
        id = take_call(bench, 3, 1);
        assert_int_equal(bench->raw.last->timeout_us, 4000000);
        test_raw_send(&bench->raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = id });
        test_bench_settle(bench);
        assert_int_equal(answer.status, STATUS_OK);
}

/* No room before the deadline: the call fails, its frame follows its descriptors all the same, then CANCEL. */
static void check_room_too_late(TestBench *bench, int error) {
        TestAnswer late = { 0 };
        uint64_t id;

        start_without_room(bench, error, &late);
        seam_clock_advance(6000000);
        peer_expire(bench->test.peer);
        flush_once(bench);
        assert_int_equal(late.status, STATUS_DEADLINE_EXCEEDED);
        assert_true(late.local);
        seam_pass(SEAM_SENDMSG);
        seam_clock_advance(1000000);
        test_bench_settle(bench);
        id = take_call(bench, 4, 1);
        assert_int_equal(bench->raw.last->timeout_us, 1); /* what has passed */
        test_raw_expect(&bench->raw, CHANNEL_RPC, BATON__KIND__CANCEL, id);
        test_raw_send(&bench->raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = id, .status = STATUS_CANCELLED });
        test_bench_settle(bench);
        assert_int_equal(peer_counters(bench->test.peer)->late, 1);
        assert_int_equal(late.n, 1);
}

static void test_no_room_on_the_lane(void **state) {
        static const int errors[] = { EAGAIN, ETOOMANYREFS, ENOBUFS, ENOMEM };

        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                        TestBench bench = { 0 };

                        test_bench_ready(&bench, &configs[side]);
                        seam_clock_set(1000000);
                        check_waits_for_room(&bench, errors[i]);
                        check_room_too_late(&bench, errors[i]);
                        test_bench_close(&bench);
                        seam_reset();
                }
}

/* A lane that is really full: nobody reads it. Everything arrives, in order, once somebody does. */
static void test_full_lane(void **state) {
        enum { CALLS = 2000 };
        static TestAnswer answers[CALLS];
        TestBench bench = { 0 };
        unsigned written = 0;

        (void) state;
        memset(answers, 0, sizeof(answers));
        test_bench_open(&bench, &configs[0]);
        hello_with_credit(&bench, 100000);
        for (unsigned i = 0; i < CALLS; i++) {
                CallParameters parameters = { .method = "m", .n_fds = 1, .fds_consume = (int[]){ open_eventfd() } };

                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answers[i], NULL), 0);
                if (i % 16 == 0)
                        test_bench_settle(&bench);
                if (bench.test.slots[PEER_LANE].events & PEER_OUT) {
                        written = i;
                        break;
                }
        }
        assert_true(written > 16);
        for (unsigned i = 0; i <= written; i++) {
                (void) take_call(&bench, 3 + i, 1);
                test_bench_settle(&bench);
        }
        test_bench_close(&bench);
}

/* A call that was cancelled after its descriptors went is written and cancelled; one that was cancelled before is not. */
static void test_cancelled_after_descriptors(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestAnswer answer = { 0 };
                TestBench bench = { 0 };
                Call *call;
                uint64_t id;

                test_bench_ready(&bench, &configs[side]);
                start_with_fds(&bench, 2, 0, &answer, &call);
                id = take_call(&bench, 3, 2);
                call_cancel(call);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CANCEL, id);

                seam_fail(SEAM_SENDMSG, 2, EAGAIN); /* the second descriptor waits */
                assert_int_equal(
                        call_start(bench.test.peer,
                                   &(CallParameters){ .method = "m",
                                                      .fds_consume = (int[]){ open_eventfd(), open_eventfd() },
                                                      .n_fds = 2 },
                                   test_done, &answer, &call),
                        0);
                flush_once(&bench);
                assert_int_equal(seam_hits(SEAM_SENDMSG), 1);
                call_cancel(call);
                test_bench_settle(&bench);
                id = take_call(&bench, 5, 2);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CANCEL, id);

                assert_int_equal(call_start(bench.test.peer,
                                            &(CallParameters){ .method = "m",
                                                               .fds_consume = (int[]){ open_eventfd() },
                                                               .n_fds = 1 },
                                            test_done, &answer, &call),
                                 0);
                call_cancel(call);
                test_bench_settle(&bench);
                assert_true(test_raw_silent(bench.raw.lane) && test_raw_silent(bench.raw.channels[0]));
                assert_int_equal(answer.n, 0);
                test_bench_close(&bench);
                seam_reset();
        }
}

/* An ANSWER or a CALL with descriptors that just does not fit is refused before its descriptors go. */
static void test_frame_size_with_descriptors(void **state) {
        static uint8_t large[65536];

        (void) state;
        for (size_t size = 65536 - 60; size <= 65536; size++) {
                TestBench bench = { .test.on_call = test_keep };
                Baton__Hello hello = BATON__HELLO__INIT;
                int r;

                test_bench_open(&bench, &configs[1]);
                hello.protocol_min = hello.protocol_max = 1;
                hello.max_frame = 65536;
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
                call_with(&bench, 1, NULL, 0);
                assert_int_equal(test_n_kept, 1);
                test_n_kept = 0;
                r = call_answer(test_kept[0], &(AnswerParameters){ .payload = large,
                                                                   .size = size,
                                                                   .fds_consume = (int[]){ open_eventfd() },
                                                                   .n_fds = 1 });
                test_bench_settle(&bench);
                assert_int_equal(bench.test.n_ended, 0);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__ANSWER, call_id(&bench, 1));
                assert_int_equal(bench.raw.last->status, r ? STATUS_RESOURCE_EXHAUSTED : STATUS_OK);
                assert_int_equal(r == 0 ? 0 : -EMSGSIZE, r);
                if (r == 0)
                        fd_close(test_raw_take(&bench.raw, engine_fd_id(&bench, 3)));
                assert_true(test_raw_silent(bench.raw.lane));
                test_bench_close(&bench);
        }
}

/* Credit that is owed does not make a frame too large that fits without it: it goes alone. */
static void test_largest_answer_while_owing(void **state) {
        static uint8_t large[65536];
        Baton__Hello hello = BATON__HELLO__INIT;
        TestBench bench = { .test.on_call = test_keep };
        uint64_t id;

        (void) state;
        test_bench_open(&bench, &configs[1]);
        hello.protocol_min = hello.protocol_max = 1;
        hello.max_frame = 65536;
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
        call_with(&bench, 1, NULL, 0);
        id = send_fd(&bench, 3);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = 7777, .fds = { id }, .n_fds = 1 });
        peer_dispatch(bench.test.peer, CHANNEL_RPC, PEER_IN); /* and not flushed: the credit is owed */
        assert_int_equal(call_answer(test_kept[0], &(AnswerParameters){ .payload = large, .size = 65536 - 8 }), 0);
        test_n_kept = 0;
        test_bench_settle(&bench);
        expect_answer(&bench, 1, STATUS_OK, "", 0);
        assert_int_equal(bench.raw.size, 65536 - 8);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, 0);
        assert_int_equal(bench.raw.last->fd_credit, 1);
        test_bench_close(&bench);
}

/* Frames that nobody read when their channel was closed: what they list is listed again, and its credit comes back. */
static void test_channel_lost_with_fds(void **state) {
        static const PeerLimits few = { .fd_credit = 4 };
        const PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &few };
        RawFrame frame = { .kind = BATON__KIND__CREDIT, .n_fds = 3 };
        TestAnswer answer = { 0 };
        TestBench bench = { .n_channels = 0 };
        uint64_t before;
        int fds[2];

        (void) state;
        test_bench_ready(&bench, &config);
        before = bench.test.peer->fd_credit;
        for (unsigned i = 0; i < 3; i++) {
                CallParameters parameters = { .channel = CHANNEL_DATA, .method = "m", .fds_consume = fds, .n_fds = 2 };

                assert_int_equal(pipe(fds), 0);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
        }
        test_bench_settle(&bench);
        assert_int_equal(bench.test.peer->fd_credit, before - 6);
        bench.raw.channels[CHANNEL_DATA] = fd_close(bench.raw.channels[CHANNEL_DATA]);
        test_bench_settle(&bench);
        assert_int_equal(answer.n, 3);
        assert_int_equal(answer.status, STATUS_UNAVAILABLE);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, 0);
        assert_int_equal(bench.raw.last->n_fds, 6);
        for (unsigned i = 0; i < 6; i++)
                fd_close(test_raw_take(&bench.raw, bench.raw.last->fds[i]));
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CREDIT, .fd_credit = 6 });
        test_bench_settle(&bench);
        assert_int_equal(bench.test.peer->fd_credit, before);

        /* And so the engine itself: of three two are there. */
        for (unsigned i = 0; i < 3; i++)
                frame.fds[i] = test_raw_fd_id(&bench.raw, 0, 3 + i);
        for (unsigned i = 0; i < 2; i++)
                test_raw_lane(&bench.raw, frame.fds[i], 8, STDIN_FILENO, 1);
        test_raw_send(&bench.raw, &frame);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, 0);
        assert_int_equal(bench.raw.last->fd_credit, 2);
        assert_int_equal(bench.test.peer->lane.n_arrived, 0);
        test_bench_alive(&bench, "a channel lost");
        test_bench_close(&bench);
}

static const struct CMUnitTest tests[] = {
        TEST(test_absent_in_call),
        TEST(test_absent_in_answer),
        TEST(test_lost),
        TEST(test_held_bound),
        TEST(test_late_frame_with_descriptors),
        TEST(test_credit_owed),
        TEST(test_credit_waits),
        TEST(test_credit_invented),
        TEST(test_answers_wait_in_turn),
        TEST(test_no_room_on_the_lane),
        TEST(test_full_lane),
        TEST(test_cancelled_after_descriptors),
        TEST(test_frame_size_with_descriptors),
        TEST(test_channel_lost_with_fds),
        TEST(test_largest_answer_while_owing),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

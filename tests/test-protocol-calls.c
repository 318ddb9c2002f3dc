/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about calls, against one real engine and a raw other side, from both sides: frames that are
 * late or mean nothing, CANCEL, deadlines, ITEM, statuses, methods, CLOSE.
 */

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

static const PeerConfig configs[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER },
};

static void send_frame(TestBench *bench, Baton__Kind kind, uint64_t id, uint32_t status) {
        test_raw_send(&bench->raw, &(RawFrame){ .kind = kind, .id = id, .status = status });
        test_bench_settle(bench);
}

/* ---- late, ignored ---- */

/* What @id is in a row. */
typedef enum Whose {
        ENGINE_OPEN, /* a call of the engine's that waits for its ANSWER */
        ENGINE_OVER,
        ENGINE_NEVER,
        RAW_OPEN, /* a call of the raw side's that the engine has not answered */
        RAW_OVER,
        RAW_NEVER,
        NOBODY,
        _WHOSE_N,
} Whose;

static const struct {
        const char *what;
        Baton__Kind kind;
        Whose whose;
        unsigned late, ignored; /* what is counted */
} strays[] = {
        { "second ANSWER", BATON__KIND__ANSWER, ENGINE_OVER, 1, 0 },
        { "ANSWER to a call never made", BATON__KIND__ANSWER, ENGINE_NEVER, 0, 1 },
        { "ANSWER from the caller", BATON__KIND__ANSWER, RAW_OPEN, 0, 1 },
        { "ANSWER from the caller, afterwards", BATON__KIND__ANSWER, RAW_OVER, 0, 1 },
        { "ANSWER from the caller, of nothing", BATON__KIND__ANSWER, RAW_NEVER, 0, 1 },
        { "ANSWER 0", BATON__KIND__ANSWER, NOBODY, 0, 1 },
        { "late CANCEL", BATON__KIND__CANCEL, RAW_OVER, 1, 0 },
        { "CANCEL of a call never made", BATON__KIND__CANCEL, RAW_NEVER, 0, 1 },
        { "CANCEL from the callee", BATON__KIND__CANCEL, ENGINE_OPEN, 0, 1 },
        { "CANCEL from the callee, afterwards", BATON__KIND__CANCEL, ENGINE_OVER, 0, 1 },
        { "CANCEL 0", BATON__KIND__CANCEL, NOBODY, 0, 1 },
        { "late ITEM from the callee", BATON__KIND__ITEM, ENGINE_OVER, 1, 0 },
        { "late ITEM from the caller", BATON__KIND__ITEM, RAW_OVER, 1, 0 },
        { "ITEM of a call never made", BATON__KIND__ITEM, RAW_NEVER, 0, 1 },
        { "late CREDIT", BATON__KIND__CREDIT, ENGINE_OVER, 1, 0 },
        { "CREDIT of a call never made", BATON__KIND__CREDIT, ENGINE_NEVER, 0, 1 },
        { "CREDIT of a call without a stream", BATON__KIND__CREDIT, ENGINE_OPEN, 0, 1 },
        { "CREDIT of nothing", BATON__KIND__CREDIT, NOBODY, 0, 0 },
};

/* make_ids() - one id of each sort. */
static void make_ids(TestBench *bench, TestAnswer answers[2], uint64_t ids[_WHOSE_N]) {
        ids[ENGINE_OVER] = test_engine_call(bench, 0, &answers[0], NULL);
        send_frame(bench, BATON__KIND__ANSWER, ids[ENGINE_OVER], STATUS_OK);
        ids[ENGINE_OPEN] = test_engine_call(bench, 0, &answers[1], NULL);
        ids[ENGINE_NEVER] = ids[ENGINE_OPEN] + 2;
        ids[RAW_OVER] = test_raw_call(bench, 1, NULL);
        ids[RAW_OPEN] = test_raw_call(bench, 2, NULL);
        ids[RAW_NEVER] = ids[RAW_OPEN] + 2;
        ids[NOBODY] = 0;
        assert_int_equal(call_answer(test_kept[0], &(AnswerParameters){ 0 }), 0);
        test_kept[0] = test_kept[--test_n_kept];
        test_bench_settle(bench);
        test_raw_expect_answer(&bench->raw, ids[RAW_OVER], STATUS_OK, "");
}

static void check_stray(size_t row, unsigned side) {
        TestBench bench = { .test.on_call = test_keep };
        TestAnswer answers[2] = { 0 };
        const PeerCounters *counters;
        uint64_t ids[_WHOSE_N];

        test_bench_ready(&bench, &configs[side]);
        make_ids(&bench, answers, ids);
        send_frame(&bench, strays[row].kind, ids[strays[row].whose], STATUS_OK);
        counters = peer_counters(bench.test.peer);
        if (counters->late != strays[row].late || counters->ignored != strays[row].ignored)
                fail_msg("%s: %d late, %d ignored", strays[row].what, (int) counters->late, (int) counters->ignored);
        /* Nothing happened to the open ones, and nothing was said. */
        assert_true(test_raw_silent(bench.raw.channels[0]));
        assert_int_equal(answers[1].n, 0);
        assert_int_equal(test_n_cancelled, 0);
        send_frame(&bench, BATON__KIND__ANSWER, ids[ENGINE_OPEN], STATUS_OK);
        assert_int_equal(answers[1].n, 1);
        test_end_kept(0);
        test_bench_settle(&bench);
        test_raw_expect_answer(&bench.raw, ids[RAW_OPEN], STATUS_OK, "");
        assert_int_equal(answers[0].n, 1);
        test_bench_close(&bench);
}

static void test_strays(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(strays); i++)
                for (unsigned side = 0; side <= 1; side++)
                        check_stray(i, side);
}

/* ---- ITEM, CANCEL, deadlines ---- */

static void test_item(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                TestAnswer answer = { 0 };
                uint64_t id;

                test_bench_ready(&bench, &configs[side]);
                id = test_raw_call(&bench, 1, NULL);
                send_frame(&bench, BATON__KIND__ITEM, id, 0);
                test_raw_expect_answer(&bench.raw, id, STATUS_INVALID_ARGUMENT, "no stream");
                assert_int_equal(test_n_cancelled, 1);
                test_end_kept(-ECANCELED);

                id = test_engine_call(&bench, 0, &answer, NULL);
                send_frame(&bench, BATON__KIND__ITEM, id, 0);
                assert_int_equal(answer.status, STATUS_UNIMPLEMENTED);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CANCEL, id);
                test_bench_alive(&bench, "ITEM");
                test_bench_close(&bench);
        }
}

static void test_cancel(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                size_t incoming;
                uint64_t id;

                test_bench_ready(&bench, &configs[side]);
                id = test_raw_call(&bench, 1, NULL);
                send_frame(&bench, BATON__KIND__CANCEL, id, 0);
                test_raw_expect_answer(&bench.raw, id, STATUS_CANCELLED, "cancelled");
                assert_int_equal(test_n_cancelled, 1);
                assert_true(call_is_cancelled(test_kept[0]));
                (void) peer_open_calls(bench.test.peer, &incoming);
                assert_int_equal(incoming, 0);
                send_frame(&bench, BATON__KIND__CANCEL, id, 0); /* asked again: late */
                assert_int_equal(peer_counters(bench.test.peer)->late, 1);
                test_end_kept(-ECANCELED);
                test_bench_settle(&bench);
                assert_true(test_raw_silent(bench.raw.channels[0])); /* answered once */
                test_bench_close(&bench);
        }
}

/* An id is open, and counts in max_calls, until its ANSWER, cancelled or not. */
static void test_cancelled_call_counts(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                Baton__Hello hello = BATON__HELLO__INIT;
                TestAnswer first = { 0 }, second = { 0 };
                CallParameters parameters = { .method = "m" };
                TestBench bench = { 0 };
                Call *call;
                uint64_t id;

                test_bench_open(&bench, &configs[side]);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
                hello.protocol_min = hello.protocol_max = hello.max_calls = 1;
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
                test_bench_settle(&bench);
                id = test_engine_call(&bench, 0, &first, &call);
                call_cancel(call);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &second, NULL), 0);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CANCEL, id);
                assert_true(test_raw_silent(bench.raw.channels[0]));
                send_frame(&bench, BATON__KIND__ANSWER, id, STATUS_CANCELLED);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, id + 2);
                assert_int_equal(first.n, 0);
                assert_int_equal(peer_counters(bench.test.peer)->late, 1);
                test_bench_close(&bench);
        }
}

static void test_deadlines(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                TestAnswer answer = { 0 };
                uint64_t theirs, ours;

                test_bench_ready(&bench, &configs[side]);
                seam_clock_set(1000000);
                theirs = test_raw_call(&bench, 1, &(RawFrame){ .timeout_us = 3000 });
                assert_int_equal(call_time_left(test_kept[0]), 3000);
                ours = test_engine_call(&bench, 5000, &answer, NULL);
                assert_int_equal(bench.raw.last->timeout_us, 5000);
                assert_int_equal(peer_deadline(bench.test.peer), 1003000);
                test_bench_expire(&bench, 3000); /* the callee's side */
                test_raw_expect_answer(&bench.raw, theirs, STATUS_DEADLINE_EXCEEDED, "deadline");
                assert_int_equal(test_n_cancelled, 1);
                test_end_kept(-ECANCELED);
                assert_int_equal(answer.n, 0);
                test_bench_expire(&bench, 2000); /* the caller's */
                assert_int_equal(answer.status, STATUS_DEADLINE_EXCEEDED);
                assert_true(answer.local);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CANCEL, ours);
                send_frame(&bench, BATON__KIND__ANSWER, ours, STATUS_OK);
                assert_int_equal(answer.n, 1);
                assert_int_equal(peer_counters(bench.test.peer)->late, 1);
                assert_int_equal(peer_deadline(bench.test.peer), USEC_INFINITY);
                test_bench_close(&bench);
                seam_reset();
        }
}

/* A deadline that cannot be written down never comes. */
static void test_endless_deadline(void **state) {
        TestBench bench = { .test.on_call = test_keep };

        (void) state;
        test_bench_ready(&bench, &configs[0]);
        (void) test_raw_call(&bench, 1, &(RawFrame){ .timeout_us = UINT64_MAX });
        assert_int_equal(call_time_left(test_kept[0]), USEC_INFINITY);
        test_end_kept(0);
        test_bench_close(&bench);
}

/* ---- statuses, methods, CLOSE ---- */

static void test_statuses(void **state) {
        static const struct {
                uint32_t wire;
                Status status;
        } rows[] = { { 0, STATUS_OK },       { 5, STATUS_NOT_FOUND }, { 16, STATUS_UNAUTHENTICATED },
                     { 17, STATUS_UNKNOWN }, { 99, STATUS_UNKNOWN },  { UINT32_MAX, STATUS_UNKNOWN } };

        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                        TestAnswer answer = { 0 };
                        TestBench bench = { 0 };
                        uint64_t id;

                        test_bench_ready(&bench, &configs[side]);
                        id = test_engine_call(&bench, 0, &answer, NULL);
                        send_frame(&bench, BATON__KIND__ANSWER, id, rows[i].wire);
                        assert_int_equal(answer.status, rows[i].status);
                        assert_false(answer.local);
                        (void) test_engine_call(&bench, 0, &answer, NULL);
                        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CLOSE,
                                                               .status = rows[i].wire,
                                                               .message = i % 2 ? "that is all" : "" });
                        test_bench_ended(&bench, "CLOSE", rows[i].status, i % 2 ? "that is all" : "closed by the peer",
                                         false); /* it is not answered */
                        assert_int_equal(answer.n, 2);
                        assert_int_equal(answer.status, STATUS_UNAVAILABLE);
                        test_bench_close(&bench);
                }
}

static void test_methods(void **state) {
        static const struct {
                size_t length;
                bool good;
        } rows[] = { { 0, false }, { 1, true }, { 255, true }, { 256, false }, { 5000, false } };
        static char name[5001];

        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };

                test_bench_ready(&bench, &configs[side]);
                for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                        RawFrame call = { .kind = BATON__KIND__CALL, .method = name, .end = true };
                        CallParameters parameters = { .method = name };

                        call.id = 2 * (i + 1) + bench.raw.side;
                        memset(name, 'm', rows[i].length);
                        name[rows[i].length] = '\0';
                        test_raw_send(&bench.raw, &call);
                        test_bench_settle(&bench);
                        test_raw_expect_answer(&bench.raw, call.id, rows[i].good ? STATUS_OK : STATUS_INVALID_ARGUMENT,
                                               rows[i].good ? "" : "1 to 255 bytes");
                        if (!rows[i].good)
                                assert_int_equal(call_start(bench.test.peer, &parameters, NULL, NULL, NULL), -EINVAL);
                }
                test_bench_close(&bench);
        }
}

/* Where nobody takes calls every method is unimplemented, on every channel. */
static void test_no_methods(void **state) {
        static const PeerHandler nothing = { 0 };

        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.handler = &nothing };
                int lane = test_raw_open(&bench.raw, 1 - side);

                bench.all[0] = &bench.test;
                test_peer_new(&bench.test, &configs[side], lane);
                for (unsigned n = 1; n < 3 && side == 1; n++)
                        assert_int_equal(peer_frame_channel(bench.test.peer, n), 0);
                test_bench_settle(&bench);
                if (side == 0)
                        test_raw_take_channels(&bench.raw, 3);
                for (unsigned n = 0; n < 3 && side == 1; n++)
                        test_raw_send_channel(&bench.raw, n, n);
                test_raw_hello(&bench.raw);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
                for (unsigned n = 0; n < 3; n++) {
                        test_raw_send(&bench.raw, &(RawFrame){ .channel = n,
                                                               .kind = BATON__KIND__CALL,
                                                               .id = 2 + bench.raw.side,
                                                               .method = "m",
                                                               .end = true });
                        test_bench_settle(&bench);
                        test_raw_expect(&bench.raw, n, BATON__KIND__ANSWER, 2 + bench.raw.side);
                        assert_int_equal(bench.raw.last->status, STATUS_UNIMPLEMENTED);
                }
                test_bench_close(&bench);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_strays),     TEST(test_item),
        TEST(test_cancel),     TEST(test_cancelled_call_counts),
        TEST(test_deadlines),  TEST(test_endless_deadline),
        TEST(test_statuses),   TEST(test_methods),
        TEST(test_no_methods),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

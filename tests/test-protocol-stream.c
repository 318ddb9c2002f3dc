/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about streams, against one real engine and a raw other side: what breaks the rules, and what
 * is allowed but meant to hurt. Each gets a named error within its scope, and the memory it costs is bounded.
 */

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/peer-internal.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

#define WINDOW 65536u

static const PeerLimits limits = { .stream_window = WINDOW };

static const PeerConfig configs[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = &limits },
};

static uint8_t payload[300000];

static void send_envelope(TestRaw *raw, Baton__Kind kind, uint64_t id, bool end, uint64_t credit, size_t size) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        envelope.kind = kind;
        envelope.id = id;
        envelope.end = end;
        envelope.credit = credit;
        if (kind == BATON__KIND__CALL)
                envelope.method = (char *) "m";
        test_raw_frame(raw, CHANNEL_RPC, &envelope, payload, size);
}

/* ---- the engine's ends ---- */

static bool taking;
static unsigned n_items, n_half_closed;

static bool on_item(Call *call, const Item *item, void *userdata) {
        (void) call;
        (void) userdata;
        if (!taking)
                return false;
        n_items += !item->bare;
        n_half_closed += item->end;
        return true;
}

static void serve(Peer *peer, Call *call) {
        test_keep(peer, call);
        call_on_stream(call, on_item, NULL, NULL);
}

static void open_bench(TestBench *bench, const PeerConfig *config) {
        *bench = (TestBench){ .test.on_call = serve };
        taking = true;
        n_items = n_half_closed = 0;
        test_bench_ready(bench, config);
}

/* close_bench() - with the calls that are still kept. */
static void close_bench(TestBench *bench) {
        test_bench_close(bench);
        test_end_kept(-ECANCELED);
}

/* start_stream() - a call of the engine's, both ways. Returns its id. */
static uint64_t start_stream(TestBench *bench, TestAnswer *answer, Call **ret_call) {
        CallParameters parameters = { .method = "m", .stream = true, .item = on_item };

        assert_int_equal(call_start(bench->test.peer, &parameters, test_done, answer, ret_call), 0);
        test_bench_settle(bench);
        assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        assert_int_equal(bench->raw.last->kind, BATON__KIND__CALL);
        assert_false(bench->raw.last->end);
        return bench->raw.last->id;
}

/* ---- what breaks the rules ---- */

typedef struct Violation {
        const char *what;
        bool by_callee; /* the call is the engine's */
        bool end;       /* CALL says end */
        struct {
                Baton__Kind kind;
                bool end;
                uint64_t credit;
                size_t size;
        } frames[3];
        Status peer; /* the peer ends so; OK: it lives, and */
        Status call; /* the call ends so; OK: it lives, too */
        unsigned late;
} Violation;

static const Violation violations[] = {
        { "an item on a closed stream",
          false,
          true,
          { { BATON__KIND__ITEM, false, 0, 8 } },
          STATUS_OK,
          STATUS_INVALID_ARGUMENT,
          0 },
        { "an item after the half-close",
          false,
          false,
          { { BATON__KIND__ITEM, true, 0, 0 }, { BATON__KIND__ITEM, false, 0, 8 } },
          STATUS_OK,
          STATUS_INVALID_ARGUMENT,
          0 },
        { "a second half-close",
          false,
          false,
          { { BATON__KIND__ITEM, true, 0, 8 }, { BATON__KIND__ITEM, true, 0, 0 } },
          STATUS_OK,
          STATUS_INVALID_ARGUMENT,
          0 },
        { "a half-close by the callee",
          true,
          false,
          { { BATON__KIND__ITEM, true, 0, 0 } },
          STATUS_OK,
          STATUS_INVALID_ARGUMENT,
          0 },
        { "an overdraft by the caller",
          false,
          false,
          { { BATON__KIND__ITEM, false, 0, WINDOW - 63 } },
          STATUS_RESOURCE_EXHAUSTED,
          STATUS_OK,
          0 },
        { "an overdraft by the callee",
          true,
          false,
          { { BATON__KIND__ITEM, false, 0, WINDOW - 63 } },
          STATUS_RESOURCE_EXHAUSTED,
          STATUS_OK,
          0 },
        { "credit beyond the window",
          false,
          false,
          { { BATON__KIND__CREDIT, false, 1, 0 } },
          STATUS_INVALID_ARGUMENT,
          STATUS_OK,
          0 },
        { "credit beyond the window, by the callee",
          true,
          false,
          { { BATON__KIND__CREDIT, false, 1, 0 } },
          STATUS_INVALID_ARGUMENT,
          STATUS_OK,
          0 },
        { "credit that wraps",
          false,
          false,
          { { BATON__KIND__CREDIT, false, UINT64_MAX, 0 } },
          STATUS_INVALID_ARGUMENT,
          STATUS_OK,
          0 },
        { "a used id", false, false, { { BATON__KIND__CALL, false, 0, 0 } }, STATUS_INVALID_ARGUMENT, STATUS_OK, 0 },
        { "a used id, of a call that is over",
          false,
          false,
          { { BATON__KIND__CANCEL, false, 0, 0 }, { BATON__KIND__CALL, false, 0, 0 } },
          STATUS_INVALID_ARGUMENT,
          STATUS_CANCELLED,
          0 },
        { "two answers",
          true,
          false,
          { { BATON__KIND__ANSWER, false, 0, 0 }, { BATON__KIND__ANSWER, false, 0, 0 } },
          STATUS_OK,
          STATUS_OK,
          1 },
        { "an item after the answer",
          true,
          false,
          { { BATON__KIND__ANSWER, false, 0, 0 }, { BATON__KIND__ITEM, false, 0, 8 } },
          STATUS_OK,
          STATUS_OK,
          1 },
};

/* expect_end() - what the raw side hears of a row. */
static void expect_end(TestBench *bench, const Violation *row, const TestAnswer *answer) {
        TestRaw *raw = &bench->raw;

        if (row->call && row->by_callee) {
                test_raw_expect(raw, CHANNEL_RPC, BATON__KIND__CANCEL, raw->last->id);
                assert_int_equal(answer->status, row->call);
        } else if (row->call) {
                assert_true(test_raw_read(raw, CHANNEL_RPC));
                assert_int_equal(raw->last->kind, BATON__KIND__ANSWER);
                assert_int_equal(raw->last->status, row->call);
        }
        if (row->peer)
                test_bench_ended(bench, row->what, row->peer, "", true);
        else
                test_bench_alive(bench, row->what);
        assert_int_equal(peer_counters(bench->test.peer)->late, row->late);
}

static void test_violations(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(violations); i++)
                for (unsigned side = 0; side <= 1; side++) {
                        const Violation *row = &violations[i];
                        TestAnswer answer = { 0 };
                        TestBench bench;
                        uint64_t id;

                        open_bench(&bench, &configs[side]);
                        id = row->by_callee ? start_stream(&bench, &answer, NULL) : 2 + bench.raw.side;
                        if (!row->by_callee)
                                send_envelope(&bench.raw, BATON__KIND__CALL, id, row->end, 0, 0);
                        for (size_t n = 0; n < 3 && row->frames[n].kind; n++)
                                send_envelope(&bench.raw, row->frames[n].kind, id, row->frames[n].end,
                                              row->frames[n].credit, row->frames[n].size);
                        test_bench_settle(&bench);
                        expect_end(&bench, row, &answer);
                        close_bench(&bench);
                }
}

/* The second of two answers is late also while the first waits behind items. */
static void test_two_answers_behind_items(void **state) {
        TestAnswer answer = { 0 };
        TestBench bench;
        Call *call;
        uint64_t id;

        (void) state;
        open_bench(&bench, &configs[0]);
        id = start_stream(&bench, &answer, &call);
        taking = false;
        send_envelope(&bench.raw, BATON__KIND__ITEM, id, false, 0, 8);
        send_envelope(&bench.raw, BATON__KIND__ANSWER, id, false, 0, 3);
        send_envelope(&bench.raw, BATON__KIND__ANSWER, id, false, 0, 5);
        test_bench_settle(&bench);
        assert_int_equal(peer_counters(bench.test.peer)->late, 1);
        assert_int_equal(answer.n, 0);
        taking = true;
        call_resume(call);
        test_bench_settle(&bench);
        assert_int_equal(n_items, 1);
        assert_int_equal(answer.n, 1);
        assert_int_equal(answer.size, 3);
        close_bench(&bench);
}

/* A descriptor that two items list is there for the first alone. */
static void test_descriptor_twice(void **state) {
        (void) state;
        for (unsigned by_callee = 0; by_callee <= 1; by_callee++) {
                TestAnswer answer = { 0 };
                TestBench bench;
                uint64_t id, fd;

                open_bench(&bench, &configs[1]);
                id = by_callee ? start_stream(&bench, &answer, NULL) : 2 + bench.raw.side;
                if (!by_callee)
                        send_envelope(&bench.raw, BATON__KIND__CALL, id, false, 0, 0);
                fd = test_raw_fd_id(&bench.raw, 0, 3);
                test_raw_lane(&bench.raw, fd, 8, STDIN_FILENO, 1);
                for (unsigned i = 0; i < 2; i++)
                        test_raw_send(&bench.raw,
                                      &(RawFrame){ .kind = BATON__KIND__ITEM, .id = id, .fds = { fd }, .n_fds = 1 });
                test_bench_settle(&bench);
                assert_int_equal(n_items, 1);
                if (by_callee)
                        assert_int_equal(answer.status, STATUS_INVALID_ARGUMENT);
                else
                        assert_true(call_is_cancelled(test_kept[0]));
                assert_int_equal(bench.test.n_ended, 0);
                close_bench(&bench);
        }
}

/* All credit comes back when all was taken; the half-close costs nothing. */
static void test_credit_returns(void **state) {
        TestBench bench;
        uint64_t id;

        (void) state;
        open_bench(&bench, &configs[0]);
        id = 2 + bench.raw.side;
        send_envelope(&bench.raw, BATON__KIND__CALL, id, false, 0, 0);
        send_envelope(&bench.raw, BATON__KIND__ITEM, id, false, 0, 1000);
        send_envelope(&bench.raw, BATON__KIND__ITEM, id, false, 0, 0);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CREDIT, id);
        assert_int_equal(bench.raw.last->credit, 1064 + 64);
        send_envelope(&bench.raw, BATON__KIND__ITEM, id, true, 0, 0);
        test_bench_settle(&bench);
        assert_int_equal(n_half_closed, 1);
        assert_true(test_raw_silent(bench.raw.channels[CHANNEL_RPC]));
        test_end_kept(0);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__ANSWER, id);
        close_bench(&bench);
}

/* Whoever took the items does not want them any more, with some waiting: the next ends the call. */
static void test_nobody_takes_what_waits(void **state) {
        TestBench bench;
        uint64_t id;

        (void) state;
        open_bench(&bench, &configs[0]);
        id = 2 + bench.raw.side;
        taking = false;
        send_envelope(&bench.raw, BATON__KIND__CALL, id, false, 0, 0);
        send_envelope(&bench.raw, BATON__KIND__ITEM, id, false, 0, 8);
        test_bench_settle(&bench);
        call_on_stream(test_kept[0], NULL, NULL, NULL);
        call_resume(test_kept[0]);
        test_bench_settle(&bench);
        test_raw_expect_answer(&bench.raw, id, STATUS_INVALID_ARGUMENT, "takes no stream");
        assert_int_equal(test_n_cancelled, 1);
        test_bench_alive(&bench, "nobody takes what waits");
        close_bench(&bench);
}

/* ---- what is meant to hurt ---- */

/* A thousand calls, none of which is answered or read; one more than allowed is the end. */
static void test_thousand_calls(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench;

                open_bench(&bench, &configs[side]);
                for (unsigned n = 1; n <= 1024; n++) {
                        send_envelope(&bench.raw, BATON__KIND__CALL, 2 * n + bench.raw.side, false, 0, 100);
                        (void) test_turn(bench.all, 1);
                }
                test_bench_settle(&bench);
                assert_int_equal(bench.test.n_ended, 0);
                assert_int_equal(test_n_kept, 1024);
                send_envelope(&bench.raw, BATON__KIND__CALL, 2 * 1025 + bench.raw.side, false, 0, 100);
                test_bench_ended(&bench, "one more", STATUS_RESOURCE_EXHAUSTED, "one more than the 1024", true);
                close_bench(&bench);
        }
}

/*
 * Answers that have not left count, too: for the peer their calls are open. A call of the engine's is, so that it goes on
 * reading, and nothing but this bounds what the peer may have it write.
 */
static void test_answers_never_read(void **state) {
        PeerLimits few = { .max_calls = 50 };
        PeerConfig config = configs[0];
        TestBench bench;
        unsigned n;

        (void) state;
        config.limits = &few;
        open_bench(&bench, &config);
        (void) start_stream(&bench, &(TestAnswer){ 0 }, NULL);
        bench.test.on_call = NULL; /* echo */
        for (n = 1; bench.test.n_ended == 0; n++) {
                assert_true(n < 1000);
                send_envelope(&bench.raw, BATON__KIND__CALL, 2 * n + bench.raw.side, true, 0, 20000);
                test_bench_settle(&bench);
                assert_true(frame_writer_pending(&bench.test.peer->channels[CHANNEL_RPC].writer) < 120 * 20100);
        }
        assert_int_equal(bench.test.status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(bench.test.reason, "one more than the 50"));
        test_bench_close(&bench);
}

/* Items with descriptors, not taken: they count among those that open calls may hold. */
static void test_descriptors_not_taken(void **state) {
        PeerLimits few = { .max_held_fds = 5 };
        PeerConfig config = configs[0];
        TestBench bench;
        uint64_t id;

        (void) state;
        config.limits = &few;
        open_bench(&bench, &config);
        taking = false;
        id = 2 + bench.raw.side;
        send_envelope(&bench.raw, BATON__KIND__CALL, id, false, 0, 0);
        for (uint32_t n = 3; n < 9; n++) {
                uint64_t fd = test_raw_fd_id(&bench.raw, 0, n);

                test_raw_lane(&bench.raw, fd, 8, STDIN_FILENO, 1);
                test_raw_send(&bench.raw,
                              &(RawFrame){ .kind = BATON__KIND__ITEM, .id = id, .fds = { fd }, .n_fds = 1 });
                test_bench_settle(&bench);
                assert_int_equal(test_n_cancelled, n < 8 ? 0 : 1);
        }
        assert_int_equal(bench.test.peer->held_fds, 0);
        test_bench_alive(&bench, "descriptors not taken");
        close_bench(&bench);
}

static bool refuse_item(Call *call, const Item *item, void *userdata) {
        (void) call;
        (void) item;
        (void) userdata;
        return false;
}

/* What waited when the peer ended, and finds no memory when its turn comes, ends the call all the same. */
static void test_no_memory_after_the_end(void **state) {
        static char longest[4000];
        TestAnswer answer = { 0 };
        CallParameters parameters = { .method = "m", .item = refuse_item };
        RawFrame frame = { .kind = BATON__KIND__ITEM, .message = longest };
        TestBench bench;
        Call *call;

        (void) state;
        memset(longest, 'm', sizeof(longest) - 1); /* more than needs no allocation */
        open_bench(&bench, &configs[0]);
        assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, &call), 0);
        test_bench_settle(&bench);
        assert_true(test_raw_read(&bench.raw, CHANNEL_RPC));
        frame.id = bench.raw.last->id;
        test_raw_send(&bench.raw, &frame);
        frame.kind = BATON__KIND__ANSWER;
        test_raw_send(&bench.raw, &frame);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CLOSE });
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_ended, 1);
        assert_int_equal(answer.n, 0);
        call_resume(call);
        seam_fail_always(SEAM_MALLOC, ENOMEM);
        test_bench_settle(&bench);
        seam_pass(SEAM_MALLOC);
        assert_int_equal(answer.n, 1);
        assert_int_equal(answer.status, STATUS_RESOURCE_EXHAUSTED);
        close_bench(&bench);
}

static const PeerLimits tight = {
        .max_frame = 65536,
        .max_calls = 64,
        .stream_window = WINDOW,
        .max_unsent = 65536,
        .max_memory = 16 * WINDOW,
};

/* bound() - the formula of proto/peer.h, for one channel in use and no answers. */
static size_t bound(void) {
        return 3 * tight.max_memory + 3 * 2 * (tight.max_frame + 65536) + 3 * 2 * (tight.max_unsent + 512 * 64) +
               64 * 1024 + (3u << 20);
}

static size_t memory_used(void) {
        struct mallinfo2 info = mallinfo2();

        return info.uordblks + info.hblkhd;
}

/* fill() - as many streams as may be open, each filled to its window with items that have @message. */
static void fill(TestBench *bench, const char *message, size_t size) {
        for (unsigned n = 1; n <= tight.max_calls; n++)
                send_envelope(&bench->raw, BATON__KIND__CALL, 2 * n + bench->raw.side, false, 0, 0);
        test_bench_settle(bench);
        for (unsigned n = 1; n <= tight.max_calls && !bench->test.n_ended; n++)
                for (unsigned i = 0; i < WINDOW / (64 + size) && !bench->test.n_ended; i++) {
                        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

                        envelope.kind = BATON__KIND__ITEM;
                        envelope.id = 2 * n + bench->raw.side;
                        envelope.message = (char *) message;
                        test_raw_frame(&bench->raw, CHANNEL_RPC, &envelope, payload, size);
                        test_bench_settle(bench);
                }
}

/* The worst of what may be sent and is never taken, against what proto/peer.h promises. */
static void test_memory_bound(void **state) {
        static char longest[60000];
        static const struct {
                size_t message, size;
        } rows[] = {
                { 0, 0 }, { 55, 0 }, { 70, 0 }, { 3000, 0 }, { sizeof(longest) - 1, 0 }, { 0, 1000 }, { 0, 60000 }
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                PeerConfig config = configs[0];
                TestBench bench;
                size_t before;

                memset(longest, 'm', sizeof(longest) - 1);
                longest[rows[i].message] = '\0';
                config.limits = &tight;
                open_bench(&bench, &config);
                taking = false;
                before = memory_used();
                fill(&bench, longest, rows[i].size);
                assert_int_equal(bench.test.n_ended, 0);
                assert_true(memory_used() < before + bound());
                assert_true(bench.test.peer->reserved_bytes <= tight.max_memory);
                close_bench(&bench);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_violations),
        TEST(test_two_answers_behind_items),
        TEST(test_descriptor_twice),
        TEST(test_credit_returns),
        TEST(test_nobody_takes_what_waits),
        TEST(test_thousand_calls),
        TEST(test_answers_never_read),
        TEST(test_descriptors_not_taken),
        TEST_SLOW(test_memory_bound, 60),
        TEST(test_no_memory_after_the_end),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

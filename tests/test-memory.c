/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bound on what one peer can make the engine hold (proto/peer.h, docs/protocol.md), driven by a peer that does its
 * worst in every respect at once: streams filled with what costs most for what is counted, answers that it never reads, a
 * frame that it does not finish, descriptors that it lists and leaves. Memory is what malloc() says.
 */

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/peer-internal.h"
#include "tests/peer-host.h"
#include "tests/test.h"

#define MIB     ((size_t) 1 << 20)
#define STREAMS 32u
#define WINDOW  65536u
#define LARGE   (MIB - 4096) /* an answer */

static const PeerLimits limits = {
        .max_frame = MIB,
        .max_calls = 64,
        .stream_window = WINDOW,
        .max_memory = (uint64_t) STREAMS * WINDOW,
        .max_unsent = MIB / 4,
        .max_held_fds = 8,
};

/* bound() - the formula, but for the part that holds while a call of the engine's own is open. */
static size_t bound(size_t n_channels) {
        return 3 * limits.max_memory + n_channels * 2 * (limits.max_frame + 65536) +
               n_channels * 2 * (limits.max_unsent + MIB + 512 * limits.max_calls) + limits.max_calls * 1024 + 3 * MIB;
}

static size_t memory_used(void) {
        struct mallinfo2 info = mallinfo2();

        return info.uordblks + info.hblkhd;
}

static bool take_nothing(Call *call, const Item *item, void *userdata) {
        (void) call;
        (void) item;
        (void) userdata;
        return false;
}

/* serve() - "large" is answered so; everything else is kept, and takes items never. */
static void serve(Peer *peer, Call *call) {
        static uint8_t large[LARGE];

        if (strcmp(call_envelope(call)->method, "large") == 0) {
                (void) call_answer(call, &(AnswerParameters){ .payload = large, .size = sizeof(large) });
                return;
        }
        test_keep(peer, call);
        call_on_stream(call, take_nothing, NULL, NULL);
}

static void send_call(TestBench *bench, unsigned channel, unsigned n, const char *method, bool end) {
        test_raw_send(&bench->raw, &(RawFrame){ .channel = channel,
                                                .kind = BATON__KIND__CALL,
                                                .id = 2 * n + bench->raw.side,
                                                .method = method,
                                                .end = end });
}

/* fill_streams() - as many as may be, each with items of no payload, which cost 64 bytes and one allocation each. */
static void fill_streams(TestBench *bench) {
        for (unsigned n = 1; n <= STREAMS; n++)
                send_call(bench, CHANNEL_RPC, n, "keep", false);
        test_bench_settle(bench);
        for (unsigned n = 1; n <= STREAMS; n++)
                for (unsigned i = 0; i < WINDOW / 64; i++) {
                        test_raw_send(&bench->raw,
                                      &(RawFrame){ .kind = BATON__KIND__ITEM, .id = 2 * n + bench->raw.side });
                        if (i % 32 == 31)
                                test_bench_settle(bench);
                }
        test_bench_settle(bench);
        assert_int_equal(bench->test.peer->reserved_bytes, limits.max_memory);
        /* One more is refused, and refused alone. */
        send_call(bench, CHANNEL_RPC, STREAMS + 1, "keep", false);
        test_bench_settle(bench);
        test_raw_expect_answer(&bench->raw, 2 * (STREAMS + 1) + bench->raw.side, STATUS_RESOURCE_EXHAUSTED,
                               "open streams may have");
}

/* hold_fds() - until calls are refused. */
static void hold_fds(TestBench *bench) {
        for (unsigned i = 0; i <= limits.max_held_fds; i++) {
                RawFrame frame = { .kind = BATON__KIND__CALL,
                                   .id = 2 * (STREAMS + 2 + i) + bench->raw.side,
                                   .method = "keep",
                                   .end = true,
                                   .n_fds = 1 };

                frame.fds[0] = test_raw_fd_id(&bench->raw, 0, 3 + i);
                test_raw_lane(&bench->raw, frame.fds[0], 8, STDIN_FILENO, 1);
                test_raw_send(&bench->raw, &frame);
                test_bench_settle(bench);
        }
        do
                assert_true(test_raw_read(&bench->raw, CHANNEL_RPC));
        while (bench->raw.last->kind != BATON__KIND__ANSWER);
        assert_int_equal(bench->raw.last->status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(bench->raw.last->message, "open calls hold 8 descriptors already, at most 8 may"));
}

/* ask_much() - calls whose answers are not read, until the engine does not read on. */
static void ask_much(TestBench *bench, unsigned channel, unsigned first) {
        for (unsigned i = 0; i < 10; i++) {
                send_call(bench, channel, first + i, "large", true);
                test_bench_settle(bench);
        }
        assert_true(bench->test.peer->channels[channel].paused);
}

/* begin_frame() - all of the largest there may be, but its last byte. */
static void begin_frame(TestBench *bench, unsigned channel) {
        static const uint8_t header[] = { 0, 0x10, 0, 0 };
        static uint8_t body[MIB - 1];
        const size_t step = 32768;

        test_raw_bytes(&bench->raw, channel, header, sizeof(header));
        for (size_t i = 0; i < sizeof(body); i += step) {
                test_raw_bytes(&bench->raw, channel, body + i, MIN(step, sizeof(body) - i));
                test_bench_settle(bench);
        }
}

static void test_worst(void **state) {
        const PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits };
        TestBench bench = { .test = { .on_call = serve } };
        size_t before, most;

        (void) state;
        test_n_kept = test_n_cancelled = 0;
        test_bench_ready(&bench, &config);
        before = memory_used();
        fill_streams(&bench);
        hold_fds(&bench);
        ask_much(&bench, CHANNEL_RPC, 100);
        ask_much(&bench, CHANNEL_FILESYSTEM, 1);
        begin_frame(&bench, CHANNEL_DATA);
        assert_int_equal(bench.test.n_ended, 0);
        most = memory_used() - before;
        printf("# held %zu KiB, bound %zu KiB\n", most / 1024, bound(3) / 1024);
        assert_true(most < bound(3));
        if (before > 0)                           /* else malloc() is a sanitizer's, which does not say */
                assert_true(most > bound(3) / 5); /* it has really been driven there */
        test_bench_close(&bench);
        assert_int_equal(test_n_kept, STREAMS + limits.max_held_fds);
        test_end_kept(-ECANCELED);
        /* The peer's own part is gone as well. */
        assert_true(memory_used() <= before);
}

/* The sender's own bounds: calls that wait, by number and by bytes; each refuses the call and names itself. */
static void test_waiting(void **state) {
        static const struct {
                PeerLimits limits;
                const char *said;
        } rows[] = {
                { { .max_waiting = 2 }, "2 calls wait for the peer already, at most 2 may" },
                { { .max_waiting_bytes = 250000 }, "100000 of this call they are more than the 250000 that may" },
        };
        static uint8_t payload[100000];

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                const PeerConfig config = {
                        .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .limits = &rows[i].limits
                };
                const CallParameters parameters = { .method = "m", .payload = payload, .size = sizeof(payload) };
                TestAnswer answers[3] = { 0 };
                TestBench bench = { .n_channels = 0 };

                test_bench_open(&bench, &config); /* no Hello yet: they wait */
                for (unsigned n = 0; n < 3; n++)
                        assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answers[n], NULL), 0);
                test_bench_settle(&bench);
                assert_int_equal(answers[0].n + answers[1].n, 0);
                assert_int_equal(answers[2].n, 1);
                assert_int_equal(answers[2].status, STATUS_RESOURCE_EXHAUSTED);
                assert_non_null(strstr(answers[2].message, rows[i].said));
                test_bench_close(&bench);
        }
}

static const struct CMUnitTest tests[] = { TEST_SLOW(test_worst, 60), TEST(test_waiting) };

int main(int argc, char **argv) {
        (void) argc;
        /* glibc counts what a thread keeps for itself as used: memory could not be compared. */
        if (!getenv("GLIBC_TUNABLES")) {
                (void) setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0", 1);
                (void) execv("/proc/self/exe", argv);
        }
        return test_run(tests, ARRAY_SIZE(tests));
}

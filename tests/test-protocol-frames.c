/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about frames, Envelopes, Hello and ids: one table row for each thing that ends the peer, sent
 * by a raw side to a real engine, from both sides; the engine must say the same in ended() and in its CLOSE, and go on
 * with the next peer. Also the recorded bytes, the limits at their last good value, and the truncated frame.
 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/peer-host.h"
#include "tests/test.h"

#define MAX_FRAME (128u * 1024u)
#define MAX_CALLS 2u

static const PeerLimits limits = { .max_frame = MAX_FRAME, .max_calls = MAX_CALLS };

static const PeerConfig configs[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = &limits },
};

/* ---- bytes ---- */

#define BYTES(_bytes) (_bytes), sizeof(_bytes) - 1

static const struct {
        const char *what;
        bool ready; /* after the Hellos */
        const char *bytes;
        size_t size;
        Status status;
        const char *fragment;
} byte_rows[] = {
        { "4 GiB before Hello", false, BYTES("\xff\xff\xff\xff"), STATUS_RESOURCE_EXHAUSTED,
          "4294967295 bytes, accepted are 65536" },
        { "4 GiB", true, BYTES("\xff\xff\xff\xff"), STATUS_RESOURCE_EXHAUSTED,
          "4294967295 bytes, accepted are 131072" },
        { "64 KiB and one before Hello", false, BYTES("\x00\x01\x00\x01"), STATUS_RESOURCE_EXHAUSTED,
          "65537 bytes, accepted are 65536" },
        { "our limit and one", true, BYTES("\x00\x02\x00\x01"), STATUS_RESOURCE_EXHAUSTED,
          "131073 bytes, accepted are 131072" },
        { "empty frame before Hello", false, BYTES("\0\0\0\0"), STATUS_INVALID_ARGUMENT, "too short" },
        { "empty frame", true, BYTES("\0\0\0\0"), STATUS_INVALID_ARGUMENT, "a frame of 0 bytes, too short" },
        { "three bytes", true, BYTES("\0\0\0\x03\0\0\0"), STATUS_INVALID_ARGUMENT, "a frame of 3 bytes, too short" },
        { "Envelope beyond the frame", true, BYTES("\0\0\0\x05\0\0\0\x02\x08"), STATUS_INVALID_ARGUMENT,
          "an Envelope of 2 bytes in a frame with room for 1" },
        { "Envelope of 4 GiB", true, BYTES("\0\0\0\x05\xff\xff\xff\xff\x08"), STATUS_INVALID_ARGUMENT,
          "an Envelope of 4294967295 bytes" },
        { "garbage", true, BYTES("\0\0\0\x08\0\0\0\x04\xff\xff\xff\xff"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "garbage before Hello", false, BYTES("\0\0\0\x08\0\0\0\x04\xff\xff\xff\xff"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "a number without end", true, BYTES("\0\0\0\x06\0\0\0\x02\x08\x80"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "no kind", true, BYTES("\0\0\0\x04\0\0\0\0"), STATUS_INVALID_ARGUMENT, "a frame of kind 0" },
        { "no kind before Hello", false, BYTES("\0\0\0\x04\0\0\0\0"), STATUS_INVALID_ARGUMENT, "a frame of kind 0" },
        { "kind 8", true, BYTES("\0\0\0\x06\0\0\0\x02\x08\x08"), STATUS_INVALID_ARGUMENT, "a frame of kind 8" },
        { "kind 8 before Hello", false, BYTES("\0\0\0\x06\0\0\0\x02\x08\x08"), STATUS_INVALID_ARGUMENT,
          "a frame of kind 8" },
        { "kind -1", true, BYTES("\0\0\0\x0f\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
          STATUS_INVALID_ARGUMENT, "a frame of kind 4294967295" },
        { "HELLO without a Hello", false, BYTES("\0\0\0\x06\0\0\0\x02\x08\x01"), STATUS_INVALID_ARGUMENT,
          "without a Hello" },
        { "second HELLO without a Hello", true, BYTES("\0\0\0\x06\0\0\0\x02\x08\x01"), STATUS_INVALID_ARGUMENT,
          "without a Hello" },
        { "second HELLO", true, BYTES("\0\0\0\x0c\0\0\0\x08\x08\x01\x5a\x04\x08\x01\x10\x01"), STATUS_INVALID_ARGUMENT,
          "a second Hello" },
        /* Strings with a NUL, and ones that are not UTF-8, wherever a string can be; the call's id is of the row above. */
        { "NUL in method", true, BYTES("\0\0\0\x09\0\0\0\x05\x08\x02\x1a\x01\x00"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "method not UTF-8", true, BYTES("\0\0\0\x09\0\0\0\x05\x08\x02\x1a\x01\xff"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "surrogate in method", true, BYTES("\0\0\0\x0b\0\0\0\x07\x08\x02\x1a\x03\xed\xa0\x80"),
          STATUS_INVALID_ARGUMENT, "cannot be parsed" },
        { "NUL in message", true, BYTES("\0\0\0\x09\0\0\0\x05\x08\x04\x32\x01\x00"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "type not UTF-8", true, BYTES("\0\0\0\x09\0\0\0\x05\x08\x02\x7a\x01\xc3"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "NUL in a metadata key", true, BYTES("\0\0\0\x0b\0\0\0\x07\x08\x02\x42\x03\x0a\x01\x00"),
          STATUS_INVALID_ARGUMENT, "cannot be parsed" },
        { "detail's type not UTF-8", true, BYTES("\0\0\0\x0b\0\0\0\x07\x08\x04\x3a\x03\x0a\x01\xff"),
          STATUS_INVALID_ARGUMENT, "cannot be parsed" },
        { "NUL in software", false, BYTES("\0\0\0\x0b\0\0\0\x07\x08\x01\x5a\x03\x42\x01\x00"), STATUS_INVALID_ARGUMENT,
          "cannot be parsed" },
        { "feature not UTF-8", false, BYTES("\0\0\0\x0b\0\0\0\x07\x08\x01\x5a\x03\x3a\x01\xfe"),
          STATUS_INVALID_ARGUMENT, "cannot be parsed" },
        /* First frames that are no HELLO. */
        { "CALL first", false, BYTES("\0\0\0\x08\0\0\0\x04\x08\x02\x10\x02"), STATUS_FAILED_PRECONDITION,
          "CALL before Hello" },
        { "ITEM first", false, BYTES("\0\0\0\x08\0\0\0\x04\x08\x03\x10\x02"), STATUS_FAILED_PRECONDITION,
          "ITEM before Hello" },
        { "ANSWER first", false, BYTES("\0\0\0\x08\0\0\0\x04\x08\x04\x10\x02"), STATUS_FAILED_PRECONDITION,
          "ANSWER before Hello" },
        { "CANCEL first", false, BYTES("\0\0\0\x08\0\0\0\x04\x08\x05\x10\x02"), STATUS_FAILED_PRECONDITION,
          "CANCEL before Hello" },
        { "CREDIT first", false, BYTES("\0\0\0\x06\0\0\0\x02\x08\x06"), STATUS_FAILED_PRECONDITION,
          "CREDIT before Hello" },
        /* CLOSE belongs to no call. */
        { "CLOSE of a call", true, BYTES("\0\0\0\x08\0\0\0\x04\x08\x07\x10\x02"), STATUS_INVALID_ARGUMENT,
          "a CLOSE that belongs to a call" },
};

static void test_bytes(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(byte_rows); i++)
                for (unsigned side = 0; side <= 1; side++) {
                        TestBench bench = { 0 };

                        if (byte_rows[i].ready)
                                test_bench_ready(&bench, &configs[side]);
                        else
                                test_bench_open(&bench, &configs[side]);
                        test_raw_bytes(&bench.raw, CHANNEL_RPC, byte_rows[i].bytes, byte_rows[i].size);
                        test_bench_ended(&bench, byte_rows[i].what, byte_rows[i].status, byte_rows[i].fragment, true);
                        assert_int_equal(bench.test.n_ready, byte_rows[i].ready);
                        test_bench_close(&bench);
                }
}

/* The bytes written down in the protocol. */
static void test_recorded(void **state) {
        static const char call_2[] = "\0\0\0\x08\0\0\0\x04\x08\x02\x10\x02";
        TestBench bench = { 0 };

        (void) state;
        test_bench_ready(&bench, &configs[1]);
        test_raw_bytes(&bench.raw, CHANNEL_RPC, call_2, sizeof(call_2) - 1);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__ANSWER, 2);
        assert_int_equal(bench.raw.last->status, STATUS_INVALID_ARGUMENT); /* it names no method */
        test_bench_alive(&bench, "CALL 2");
        test_bench_close(&bench);
}

/* send_large() - a CALL of the raw side whose body has @size bytes. */
static void send_large(TestBench *bench, uint64_t id, uint32_t size) {
        static uint8_t payload[MAX_FRAME];
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        envelope.kind = BATON__KIND__CALL;
        envelope.id = id;
        envelope.method = (char *) "m";
        test_raw_frame(&bench->raw, CHANNEL_RPC, &envelope, payload,
                       size - 4 - baton__envelope__get_packed_size(&envelope));
}

static void test_limits_reached(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                static char software[65536];
                Baton__Hello hello = BATON__HELLO__INIT;
                TestBench bench = { .test.on_call = test_keep };

                test_bench_open(&bench, &configs[side]);
                hello.protocol_min = hello.protocol_max = 1;
                memset(software, 'x', 65536 - 24);
                hello.software = software;
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
                test_bench_settle(&bench);
                assert_int_equal(bench.test.n_ready, 1);
                send_large(&bench, 2 + bench.raw.side, MAX_FRAME);
                test_bench_settle(&bench);
                assert_int_equal(test_n_kept, 1);
                test_bench_close(&bench);
                test_end_kept(-ECANCELED);
        }
}

/* ---- Hello ---- */

static const struct {
        const char *what;
        uint32_t min, max;
        uint64_t max_frame;
        Status status; /* OK: accepted */
        const char *fragment;
} hello_rows[] = {
        { "as we", 1, 1, 0, STATUS_OK, "" },
        { "and later ones", 1, 7, 65536, STATUS_OK, "" },
        { "and an earlier one", 0, 1, UINT64_MAX, STATUS_OK, "" },
        { "min above max", 2, 1, 0, STATUS_INVALID_ARGUMENT, "protocol 2 to 1" },
        { "frames too small", 1, 1, 65535, STATUS_INVALID_ARGUMENT, "frames of 65535 bytes (at least 65536)" },
        { "frames of one byte", 1, 1, 1, STATUS_INVALID_ARGUMENT, "frames of 1 bytes" },
        { "later only", 2, 3, 0, STATUS_FAILED_PRECONDITION, "one side speaks 2 to 3, the other 1 to 1" },
        { "earlier only", 0, 0, 0, STATUS_FAILED_PRECONDITION, "one side speaks 0 to 0, the other 1 to 1" },
};

static void test_hello(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(hello_rows); i++)
                for (unsigned side = 0; side <= 1; side++) {
                        Baton__Hello hello = BATON__HELLO__INIT;
                        TestBench bench = { 0 };

                        test_bench_open(&bench, &configs[side]);
                        hello.protocol_min = hello_rows[i].min;
                        hello.protocol_max = hello_rows[i].max;
                        hello.max_frame = hello_rows[i].max_frame;
                        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
                        if (hello_rows[i].status == STATUS_OK) {
                                test_bench_alive(&bench, hello_rows[i].what);
                                assert_int_equal(peer_remote(bench.test.peer)->protocol, 1);
                                assert_int_equal(peer_remote(bench.test.peer)->max_calls, 1024);
                                assert_int_equal(peer_remote(bench.test.peer)->fd_credit, 64);
                                assert_int_equal(peer_remote(bench.test.peer)->stream_window, 256 * 1024);
                        } else {
                                test_bench_ended(&bench, hello_rows[i].what, hello_rows[i].status,
                                                 hello_rows[i].fragment, true);
                        }
                        test_bench_close(&bench);
                }
}

/* Each side sends its Hello first, and nothing else until it has read the other's. */
static void test_nothing_before_hello(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                CallParameters parameters = { .method = "m" };
                TestAnswer answer = { 0 };
                TestBench bench = { 0 };

                test_bench_open(&bench, &configs[side]);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
                assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), side ? 0 : -EEXIST);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
                assert_int_equal(bench.raw.last->hello->protocol_min, PROTOCOL_MIN);
                assert_int_equal(bench.raw.last->hello->protocol_max, PROTOCOL_MAX);
                assert_int_equal(bench.raw.last->hello->max_frame, MAX_FRAME);
                assert_true(test_raw_silent(bench.raw.channels[0]) && test_raw_silent(bench.raw.channels[2]));
                test_raw_hello(&bench.raw);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, 2 + side);
                test_bench_close(&bench);
        }
}

/* ---- ids ---- */

typedef struct IdRow {
        const char *what;
        uint64_t first, second; /* n of 2n + side; RAW(id): the id itself; OTHER(n): of the other side */
        Status status;
        const char *fragment[2]; /* by side of the engine */
} IdRow;

#define RAW(_id)  ((_id) | UINT64_C(1) << 62)
#define OTHER(_n) ((_n) | UINT64_C(1) << 61)

static const IdRow id_rows[] = {
        { "the same id", 3, 3, STATUS_INVALID_ARGUMENT, { "CALL 7 after CALL 7", "CALL 6 after CALL 6" } },
        { "a lower id", 3, 2, STATUS_INVALID_ARGUMENT, { "CALL 5 after CALL 7", "CALL 4 after CALL 6" } },
        { "id 0", 3, RAW(0), STATUS_INVALID_ARGUMENT, { "ids begin with 2", "ids begin with 2" } },
        { "id 1", 3, RAW(1), STATUS_INVALID_ARGUMENT, { "ids begin with 2", "ids begin with 2" } },
        { "the other side's id", 3, OTHER(4), STATUS_INVALID_ARGUMENT, { "CALL 8 has", "CALL 9 has" } },
};

static uint64_t row_id(uint64_t n, unsigned side) {
        if (n & RAW(0))
                return n & ~RAW(0);
        if (n & OTHER(0))
                return 2 * (n & ~OTHER(0)) + (1 - side);
        return 2 * n + side;
}

static void send_call(TestBench *bench, unsigned channel, uint64_t id) {
        test_raw_send(
                &bench->raw,
                &(RawFrame){ .channel = channel, .kind = BATON__KIND__CALL, .id = id, .method = "m", .end = true });
}

static void test_ids(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(id_rows); i++)
                for (unsigned side = 0; side <= 1; side++)
                        for (unsigned finished = 0; finished <= 1; finished++) {
                                TestBench bench = { .test.on_call = finished ? NULL : test_keep };

                                test_bench_ready(&bench, &configs[side]);
                                send_call(&bench, CHANNEL_RPC, row_id(id_rows[i].first, bench.raw.side));
                                test_bench_settle(&bench);
                                send_call(&bench, CHANNEL_RPC, row_id(id_rows[i].second, bench.raw.side));
                                test_bench_ended(&bench, id_rows[i].what, id_rows[i].status, id_rows[i].fragment[side],
                                                 true);
                                test_bench_close(&bench);
                                test_end_kept(-ECANCELED);
                        }
}

/* Ids may jump, up to the last one there is, and two that differ only high up are two. */
static void test_high_ids(void **state) {
        static const uint64_t high[] = { 1, UINT64_C(1) << 61, (UINT64_C(1) << 61) + 1, (UINT64_C(1) << 63) - 1 };

        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                PeerConfig config = configs[side];
                TestBench bench = { .test.on_call = test_keep };

                config.limits = NULL;
                test_bench_ready(&bench, &config);
                for (unsigned i = 0; i < ARRAY_SIZE(high); i++)
                        send_call(&bench, CHANNEL_RPC, 2 * high[i] + bench.raw.side);
                test_bench_settle(&bench);
                assert_int_equal(test_n_kept, ARRAY_SIZE(high));
                for (unsigned i = 0; i < ARRAY_SIZE(high); i++) {
                        assert_int_equal(call_answer(test_kept[i], &(AnswerParameters){ 0 }), 0);
                        test_bench_settle(&bench);
                        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__ANSWER, 2 * high[i] + bench.raw.side);
                }
                test_n_kept = 0;
                test_bench_close(&bench);
        }
}

/* Over all channels together. */
static void test_max_calls(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned channel = 0; channel <= 1; channel++) {
                        TestBench bench = { .test.on_call = test_keep };

                        test_bench_ready(&bench, &configs[side]);
                        if (side == 1)
                                assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), 0);
                        for (unsigned n = 1; n <= MAX_CALLS; n++)
                                send_call(&bench, CHANNEL_RPC, 2 * n + bench.raw.side);
                        test_bench_settle(&bench);
                        assert_int_equal(test_n_kept, MAX_CALLS);
                        assert_int_equal(bench.test.n_ended, 0);
                        /* One that has its ANSWER no longer counts. */
                        (void) call_answer(test_kept[--test_n_kept], &(AnswerParameters){ 0 });
                        send_call(&bench, CHANNEL_RPC, 2 * (MAX_CALLS + 1) + bench.raw.side);
                        test_bench_settle(&bench);
                        assert_int_equal(test_n_kept, MAX_CALLS);
                        send_call(&bench, channel, 2 * (MAX_CALLS + 2) + bench.raw.side);
                        test_bench_ended(&bench, "one call too many", STATUS_RESOURCE_EXHAUSTED,
                                         "one more than the 2 that may be open", true);
                        test_bench_close(&bench);
                        test_end_kept(-ECANCELED);
                }
}

/* ---- channels 1 and 2 ---- */

static void test_hello_and_close_on_channel_1(void **state) {
        static const char hello[] = "\0\0\0\x0c\0\0\0\x08\x08\x01\x5a\x04\x08\x01\x10\x01";
        static const char close_frame[] = "\0\0\0\x06\0\0\0\x02\x08\x07";

        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned i = 0; i <= 1; i++) {
                        TestBench bench = { 0 };

                        test_bench_ready(&bench, &configs[side]);
                        if (side == 1)
                                assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), 0);
                        test_raw_bytes(&bench.raw, CHANNEL_FILESYSTEM, i ? hello : close_frame,
                                       (i ? sizeof(hello) : sizeof(close_frame)) - 1);
                        test_bench_ended(&bench, "on channel 1", STATUS_INVALID_ARGUMENT,
                                         i ? "a second Hello" : "another channel", true);
                        test_bench_close(&bench);
                }
}

/* ---- the end in the middle of a frame ---- */

static void test_truncated(void **state) {
        static const char part[] = "\0\0\0\x08\0\0\0\x04\x08";
        static const PeerConfig control = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE };

        (void) state;
        for (size_t size = 1; size < sizeof(part); size++)
                for (unsigned i = 0; i < 2; i++) {
                        TestBench bench = { 0 };

                        test_bench_ready(&bench, i ? &control : &configs[0]);
                        test_raw_bytes(&bench.raw, CHANNEL_RPC, part, size);
                        test_bench_settle(&bench);
                        bench.raw.channels[0] = fd_close(bench.raw.channels[0]);
                        test_bench_ended(&bench, "truncated", STATUS_UNAVAILABLE, "in the middle of a frame", false);
                        test_bench_close(&bench);
                }
}

static const struct CMUnitTest tests[] = {
        TEST(test_bytes),
        TEST(test_recorded),
        TEST(test_limits_reached),
        TEST(test_hello),
        TEST(test_nothing_before_hello),
        TEST(test_ids),
        TEST(test_high_ids),
        TEST(test_max_calls),
        TEST(test_hello_and_close_on_channel_1),
        TEST(test_truncated),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

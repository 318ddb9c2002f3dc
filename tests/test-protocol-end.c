/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about how a connection goes wrong between frames, against one real engine and a raw other
 * side, from both sides: silence that ends the peer; a peer that never reads; a peer that answers and is gone; channels
 * that end; callbacks that do what they should not.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "proto/peer-internal.h" /* to see how much waits */
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

static const PeerConfig configs[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER },
};

static const PeerLimits silence = { .hello_timeout_us = 5000, .frame_timeout_us = 7000, .max_unsent = 4096 };

static void test_hello_timeout(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned with_channels = 0; with_channels <= 1; with_channels++) {
                        PeerConfig config = configs[side];
                        TestBench bench = { 0 };

                        seam_clock_set(1000000);
                        config.limits = &silence;
                        if (with_channels) {
                                test_bench_open(&bench, &config);
                        } else {
                                bench.all[0] = &bench.test;
                                test_peer_new(&bench.test, &config, test_raw_open(&bench.raw, 1 - side));
                        }
                        assert_int_equal(peer_deadline(bench.test.peer), 1005000);
                        seam_clock_advance(4999);
                        peer_expire(bench.test.peer);
                        assert_int_equal(bench.test.n_ended, 0);
                        test_bench_expire(&bench, 1);
                        test_bench_ended(&bench, "no Hello", STATUS_DEADLINE_EXCEEDED, "no Hello within 5 ms",
                                         with_channels);
                        test_bench_close(&bench);
                        seam_reset();
                }
}

static void test_frame_timeout(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned channel = 0; channel <= 1; channel++) {
                        static const char part[] = "\0\0\0\x08\0\0\0\x04\x08\x02\x10";
                        PeerConfig config = configs[side];
                        TestBench bench = { 0 };

                        seam_clock_set(1000000);
                        config.limits = &silence;
                        test_bench_ready(&bench, &config);
                        if (side == 1)
                                assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), 0);
                        test_bench_settle(&bench);
                        /* A byte now and then does not help. */
                        for (size_t i = 0; i < sizeof(part) - 1; i++) {
                                test_raw_bytes(&bench.raw, channel, part + i, 1);
                                test_bench_settle(&bench);
                                assert_int_equal(peer_deadline(bench.test.peer), 1007000);
                                seam_clock_advance(600);
                        }
                        assert_int_equal(bench.test.n_ended, 0);
                        test_bench_expire(&bench, 400);
                        test_bench_ended(&bench, "half a frame", STATUS_DEADLINE_EXCEEDED, "not finished within 7 ms",
                                         true);
                        test_bench_close(&bench);
                        seam_reset();
                }
}

/* ---- a peer that never reads ---- */

#define FLOOD_CALLS   4000u
#define FLOOD_PAYLOAD 1000u

/* A stream of calls, sent as far as the socket takes it. */
typedef struct Flood {
        uint8_t *bytes;
        size_t size, sent;
} Flood;

static Flood flood_new(unsigned side) {
        Flood flood = { 0 };

        flood.bytes = malloc(FLOOD_CALLS * (FLOOD_PAYLOAD + 64));
        assert_non_null(flood.bytes);
        for (unsigned i = 0; i < FLOOD_CALLS; i++) {
                Baton__Envelope envelope = BATON__ENVELOPE__INIT;
                uint8_t *frame = flood.bytes + flood.size;
                size_t packed;

                envelope.kind = BATON__KIND__CALL;
                envelope.id = 2 * (i + 1) + side;
                envelope.method = (char *) "m";
                packed = baton__envelope__pack(&envelope, frame + 8);
                memcpy(frame,
                       (uint8_t[8]){ 0, 0, (uint8_t) ((4 + packed + FLOOD_PAYLOAD) >> 8),
                                     (uint8_t) (4 + packed + FLOOD_PAYLOAD), 0, 0, 0, (uint8_t) packed },
                       8);
                memset(frame + 8 + packed, 'x', FLOOD_PAYLOAD);
                flood.size += 8 + packed + FLOOD_PAYLOAD;
        }
        return flood;
}

/* flood_send() - until the socket takes no more; whether it took anything. */
static bool flood_send(Flood *flood, int fd) {
        ssize_t n = send(fd, flood->bytes + flood->sent, flood->size - flood->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        assert_true(n >= 0 || errno == EAGAIN);
        flood->sent += n > 0 ? (size_t) n : 0;
        return n > 0;
}

static void test_never_reads(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                PeerConfig config = configs[side];
                TestBench bench = { 0 };
                unsigned answered = 0;
                Channel *channel;
                Flood flood;

                seam_clock_set(1000000);
                config.limits = &silence;
                test_bench_ready(&bench, &config);
                flood = flood_new(bench.raw.side);
                channel = &bench.test.peer->channels[CHANNEL_RPC];
                while (flood_send(&flood, bench.raw.channels[0]) || test_turn(bench.all, 1)) {
                        assert_true(frame_writer_pending(&channel->writer) <= silence.max_unsent + 2 * FLOOD_PAYLOAD);
                        assert_true(channel->reader.size <= 256 * 1024);
                }
                assert_true(flood.sent < flood.size);
                assert_int_equal(bench.test.slots[CHANNEL_RPC].events, PEER_OUT); /* not read */
                /* What of a frame is there meanwhile is not the peer's fault. */
                assert_true(frame_reader_is_partial(&channel->reader));
                assert_int_equal(peer_deadline(bench.test.peer), USEC_INFINITY);
                seam_clock_advance(3600 * USEC_PER_SEC);
                peer_expire(bench.test.peer);
                assert_int_equal(bench.test.n_ended, 0);

                /* It reads at last: everything is answered, in order. */
                while (answered < FLOOD_CALLS) {
                        while (flood.sent < flood.size && flood_send(&flood, bench.raw.channels[0]))
                                ;
                        test_bench_settle(&bench);
                        assert_int_equal(bench.test.n_ended, 0);
                        while (!test_raw_silent(bench.raw.channels[0])) {
                                answered++;
                                test_raw_expect_answer(&bench.raw, 2 * answered + bench.raw.side, STATUS_OK, "");
                                assert_int_equal(bench.raw.size, FLOOD_PAYLOAD);
                                test_bench_settle(&bench);
                        }
                }
                assert_int_equal(bench.test.slots[CHANNEL_RPC].events, PEER_IN);
                free(flood.bytes);
                test_bench_close(&bench);
                seam_reset();
        }
}

/* frame_end() - where the frame that begins at @at ends. */
static size_t frame_end(const Flood *flood, size_t at) {
        return at + 4 + ((size_t) flood->bytes[at + 2] << 8 | flood->bytes[at + 3]);
}

/* The time in which it was not read is not counted against the frame that the peer had begun. */
static void test_paused_in_a_frame(void **state) {
        PeerConfig config = configs[0];
        TestBench bench = { 0 };
        unsigned answered = 0;
        Flood flood;
        size_t end;

        (void) state;
        seam_clock_set(1000000);
        config.limits = &silence;
        test_bench_ready(&bench, &config);
        flood = flood_new(bench.raw.side);
        for (end = frame_end(&flood, 0); bench.test.slots[CHANNEL_RPC].events & PEER_IN;
             end = frame_end(&flood, end)) {
                test_raw_bytes(&bench.raw, CHANNEL_RPC, flood.bytes + flood.sent, end + 5 - flood.sent);
                flood.sent = end + 5;
                test_bench_settle(&bench);
        }
        assert_true(frame_reader_is_partial(&bench.test.peer->channels[CHANNEL_RPC].reader));
        seam_clock_advance(3600 * USEC_PER_SEC);
        while (!test_raw_silent(bench.raw.channels[0])) {
                test_raw_expect_answer(&bench.raw, 2 * ++answered + bench.raw.side, STATUS_OK, "");
                test_bench_settle(&bench);
        }
        assert_int_equal(bench.test.n_ended, 0);
        test_raw_bytes(&bench.raw, CHANNEL_RPC, flood.bytes + flood.sent, end - flood.sent);
        test_bench_settle(&bench);
        test_raw_expect_answer(&bench.raw, 2 * ++answered + bench.raw.side, STATUS_OK, "");
        free(flood.bytes);
        test_bench_close(&bench);
}

/* ---- the end ---- */

/* ANSWER, CLOSE or Hello, then the sender is gone: what it said is heard, whichever end is noticed first. */
static void test_last_words(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned lane_first = 0; lane_first <= 1; lane_first++) {
                        TestBench bench = { .test.on_call = test_keep };
                        TestAnswer answer = { 0 }, other = { 0 };
                        uint64_t id;

                        test_bench_ready(&bench, &configs[side]);
                        id = test_engine_call(&bench, 0, &answer, NULL);
                        (void) test_engine_call(&bench, 0, &other, NULL);
                        (void) test_raw_call(&bench, 1, NULL);
                        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = id });
                        test_raw_close(&bench.raw);
                        if (lane_first)
                                peer_dispatch(bench.test.peer, PEER_LANE, PEER_IN);
                        test_bench_settle(&bench);
                        assert_int_equal(answer.n, 1);
                        assert_int_equal(answer.status, STATUS_OK);
                        assert_int_equal(other.status, STATUS_UNAVAILABLE);
                        assert_int_equal(test_n_cancelled, 1);
                        assert_int_equal(bench.test.n_ended, 1);
                        assert_int_equal(bench.test.status, STATUS_UNAVAILABLE);
                        test_end_kept(-ECANCELED);
                        test_bench_close(&bench);
                }
}

static void test_last_words_before_hello(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned lane_first = 0; lane_first <= 1; lane_first++) {
                        TestBench bench = { 0 };

                        test_bench_open(&bench, &configs[side]);
                        test_raw_hello(&bench.raw);
                        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CLOSE,
                                                               .status = STATUS_FAILED_PRECONDITION,
                                                               .message = "not with you" });
                        test_raw_close(&bench.raw);
                        if (lane_first)
                                peer_dispatch(bench.test.peer, PEER_LANE, PEER_IN);
                        test_bench_settle(&bench);
                        assert_int_equal(bench.test.n_ended, 1);
                        assert_int_equal(bench.test.status, STATUS_FAILED_PRECONDITION);
                        assert_string_equal(bench.test.reason, "not with you");
                        test_bench_close(&bench);
                }
}

/* A peer that has closed its lane and goes on writing does not keep us reading. */
static Flood endless;
static int endless_fd;
static unsigned n_endless;

static void write_more(Peer *peer, Call *call) {
        (void) peer;
        (void) call_answer(call, &(AnswerParameters){ 0 });
        n_endless++;
        (void) flood_send(&endless, endless_fd);
}

static void test_endless_last_words(void **state) {
        TestBench bench = { .test.on_call = write_more };

        (void) state;
        test_bench_ready(&bench, &configs[0]);
        endless = flood_new(bench.raw.side);
        endless_fd = bench.raw.channels[0];
        (void) flood_send(&endless, endless_fd);
        bench.raw.lane = fd_close(bench.raw.lane);
        peer_dispatch(bench.test.peer, PEER_LANE, PEER_IN);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_ended, 1);
        assert_true(n_endless > 0 && endless.sent < endless.size);
        free(endless.bytes);
        test_bench_close(&bench);
}

static void test_channel_0_closed(void **state) {
        static const PeerConfig control = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE };
        TestBench bench;

        (void) state;
        for (unsigned i = 0; i <= 1; i++) {
                memset(&bench, 0, sizeof(bench));
                test_bench_ready(&bench, i ? &control : &configs[0]);
                bench.raw.channels[0] = fd_close(bench.raw.channels[0]);
                test_bench_ended(&bench, "channel 0 closed", STATUS_UNAVAILABLE, "closed channel 0", false);
                test_bench_close(&bench);
        }
}

/* A channel that the peer has closed: its calls end, later ones too, the others go on. */
static void test_channel_2_closed(void **state) {
        CallParameters parameters = { .channel = CHANNEL_DATA, .method = "m" };

        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestAnswer open = { 0 }, later = { 0 };
                TestBench bench = { .test.on_call = test_keep };

                test_bench_ready(&bench, &configs[side]);
                if (side == 1)
                        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &open, NULL), 0);
                test_raw_send(&bench.raw, &(RawFrame){ .channel = 2,
                                                       .kind = BATON__KIND__CALL,
                                                       .id = 2 + bench.raw.side,
                                                       .method = "m",
                                                       .end = true });
                test_bench_settle(&bench);
                assert_int_equal(test_n_kept, 1);
                bench.raw.channels[2] = fd_close(bench.raw.channels[2]);
                test_bench_settle(&bench);
                assert_int_equal(open.status, STATUS_UNAVAILABLE);
                assert_int_equal(test_n_cancelled, 1);
                test_end_kept(-ECANCELED);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &later, NULL), 0);
                test_bench_settle(&bench);
                assert_int_equal(later.status, STATUS_UNAVAILABLE);
                test_bench_alive(&bench, "channel 2 closed");
                test_bench_close(&bench);
        }
}

/* ---- callbacks ---- */

static unsigned in_handler, n_handled;

/* rude() - a handler that turns the very peer that is calling it. */
static void rude(Peer *peer, Call *call) {
        size_t size;
        const uint8_t *payload = call_payload(call, &size);
        uint8_t first = payload[0];

        assert_int_equal(in_handler, 0);
        in_handler++;
        n_handled++;
        peer_flush(peer);
        peer_dispatch(peer, CHANNEL_RPC, PEER_IN | PEER_OUT);
        peer_dispatch(peer, PEER_LANE, PEER_IN | PEER_OUT);
        peer_expire(peer);
        assert_ptr_equal(call_payload(call, &size), payload);
        assert_int_equal(payload[0], first);
        assert_string_equal(call_envelope(call)->method, "m");
        (void) call_answer(call, &(AnswerParameters){ .payload = payload, .size = size });
        in_handler--;
}

static void test_rude_handler(void **state) {
        PeerConfig config = configs[0];
        TestBench bench = { .test.on_call = rude };
        unsigned answered = 0;
        Flood flood;

        (void) state;
        n_handled = 0;
        seam_clock_set(1000000);
        config.limits = &silence; /* it is paused and goes on again and again */
        test_bench_ready(&bench, &config);
        flood = flood_new(bench.raw.side);
        while (answered < FLOOD_CALLS) {
                (void) (flood.sent < flood.size && flood_send(&flood, bench.raw.channels[0]));
                (void) test_turn(bench.all, 1);
                while (!test_raw_silent(bench.raw.channels[0]))
                        test_raw_expect_answer(&bench.raw, 2 * ++answered + bench.raw.side, STATUS_OK, "");
        }
        assert_int_equal(n_handled, FLOOD_CALLS);
        free(flood.bytes);
        test_bench_close(&bench);
}

static const struct CMUnitTest tests[] = {
        TEST(test_hello_timeout),      TEST(test_frame_timeout),    TEST(test_never_reads),
        TEST(test_paused_in_a_frame),  TEST(test_last_words),       TEST(test_last_words_before_hello),
        TEST(test_endless_last_words), TEST(test_channel_0_closed), TEST(test_channel_2_closed),
        TEST(test_rude_handler),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about renewal, against one real engine and a raw other side: who may renew and who waits; what
 * the old channels still hold; what ends, what is closed, what goes on, and what starts afresh. Renewed by the other
 * side: as a runner (side 1) by its supervisor, as a client (side 0) by a runner's successor. Renewing: the other way.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

static const PeerLimits limits = { .renewal_timeout_us = 60000000, .hello_timeout_us = 10000000 };

static const PeerConfig renewed[] = {
        { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER, .limits = &limits },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = &limits },
};

static const PeerConfig renewing[] = {
        { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF },
        { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_SELF },
};

static uint64_t channel_id(uint32_t epoch, unsigned n) {
        return (uint64_t) epoch << 32 | n;
}

/* send_channels() - the raw side renews; its ends of the old channels are closed unless kept in @old. */
static void send_channels(TestBench *bench, uint32_t epoch, int *old) {
        for (unsigned n = 0; n < bench->n_channels; n++) {
                if (old)
                        old[n] = fd_take(&bench->raw.channels[n]);
                test_raw_send_channel(&bench->raw, n, channel_id(epoch, n));
        }
}

/* renew() - the same, and Hello. */
static void renew(TestBench *bench, uint32_t epoch) {
        send_channels(bench, epoch, NULL);
        test_bench_settle(bench);
        test_raw_expect(&bench->raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        test_raw_hello(&bench->raw);
        test_bench_settle(bench);
        assert_true(peer_is_ready(bench->test.peer));
}

static int open_eventfd(void) {
        int fd = eventfd(0, EFD_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

/* ---- renewed by the other side ---- */

/*
 * Old channel 0 holds: an ANSWER, a CALL, a CANCEL, a CLOSE, an ANSWER with a descriptor, half an ANSWER. The whole
 * ANSWERs are delivered, the rest is dropped, whether the old channel's end is there or not.
 */
static void check_old_channel(unsigned side, bool end_seen) {
        TestBench bench = { .test.on_call = test_keep };
        TestAnswer answers[3] = { 0 };
        int old[LANE_CHANNELS] = { -1, -1, -1 }, event = open_eventfd();
        uint64_t ids[3], fd_id;

        test_bench_ready(&bench, &renewed[side]);
        for (unsigned i = 0; i < 3; i++)
                ids[i] = test_engine_call(&bench, 0, &answers[i], NULL);
        (void) test_raw_call(&bench, 1, NULL);
        assert_int_equal(test_n_kept, 1);

        fd_id = test_raw_fd_id(&bench.raw, 0, 3);
        test_raw_lane(&bench.raw, fd_id, 8, event, 1);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = ids[0], .payload = "whole" });
        test_raw_send(&bench.raw,
                      &(RawFrame){ .kind = BATON__KIND__CALL, .id = 4 + bench.raw.side, .method = "m", .end = true });
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CANCEL, .id = 2 + bench.raw.side });
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CLOSE, .status = 13, .message = "old" });
        test_raw_send(&bench.raw,
                      &(RawFrame){ .kind = BATON__KIND__ANSWER, .id = ids[1], .fds = { fd_id }, .n_fds = 1 });
        test_raw_bytes(&bench.raw, CHANNEL_RPC, "\0\0\0\x08\0\0\0\x04\x08\x04\x10", 11);
        send_channels(&bench, 3, old);
        if (end_seen)
                fd_close_all(old, LANE_CHANNELS);
        peer_dispatch(bench.test.peer, PEER_LANE, PEER_IN); /* noticed first: what was handled before is not dropped */
        test_bench_settle(&bench);

        assert_int_equal(bench.test.n_ended, 0);
        assert_int_equal(answers[0].status, STATUS_OK);
        assert_memory_equal(answers[0].payload, "whole", 5);
        assert_int_equal(answers[1].n_fds, 1);
        assert_true(test_same_file(answers[1].fds[0], event));
        assert_int_equal(answers[2].n, 1);
        assert_int_equal(answers[2].status, STATUS_UNAVAILABLE);
        assert_non_null(strstr(answers[2].message, "may have run"));
        assert_int_equal(test_n_cancelled, 1); /* by the renewal */
        assert_int_equal(test_n_kept, 1);      /* the CALL was dropped */
        fd_close_all(old, LANE_CHANNELS);
        fd_close(event);
        fd_close(answers[1].fds[0]);
        test_end_kept(-ECANCELED);
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        test_raw_hello(&bench.raw);
        test_bench_alive(&bench, "renewed");
        assert_int_equal(bench.test.n_renewed, 1);
        test_bench_close(&bench);
}

static void test_old_channel(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned end_seen = 0; end_seen <= 1; end_seen++)
                        check_old_channel(side, end_seen);
}

/* The renewal is noticed while a CALL of the old channel looks for its descriptor: it is dropped too. */
static void test_noticed_in_a_call(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = test_keep };
                int old[LANE_CHANNELS] = { -1, -1, -1 }, pipe_fds[2];
                uint64_t fd_id;

                test_bench_ready(&bench, &renewed[side]);
                fd_id = test_raw_fd_id(&bench.raw, 0, 3);
                assert_int_equal(pipe(pipe_fds), 0);
                test_raw_lane(&bench.raw, fd_id, 8, pipe_fds[1], 1);
                fd_close(pipe_fds[1]);
                test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CALL,
                                                       .id = 2 + bench.raw.side,
                                                       .method = "m",
                                                       .fds = { fd_id },
                                                       .n_fds = 1,
                                                       .end = true });
                send_channels(&bench, 1, old);
                peer_dispatch(bench.test.peer, CHANNEL_RPC, PEER_IN);
                test_bench_settle(&bench);
                assert_int_equal(test_n_kept, 0);
                assert_int_equal(read(pipe_fds[0], &(char){ 0 }, 1), 0); /* closed */
                fd_close(pipe_fds[0]);
                fd_close_all(old, LANE_CHANNELS);
                assert_int_equal(bench.test.n_ended, 0);
                test_bench_close(&bench);
        }
}

/* Ids of calls, lane ids and credit start afresh; what was unlisted is closed, and counted. */
static void test_afresh(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };
                TestAnswer answers[4] = { 0 };
                int pipe_fds[2];
                uint64_t id;

                test_bench_ready(&bench, &renewed[side]);
                assert_int_equal(test_engine_call(&bench, 0, &answers[0], NULL), 2 + side);
                (void) test_raw_call(&bench, 50, NULL);
                assert_int_equal(pipe(pipe_fds), 0);
                test_raw_lane(&bench.raw, test_raw_fd_id(&bench.raw, 0, 3), 8, pipe_fds[1], 1);
                fd_close(pipe_fds[1]);
                assert_int_equal(call_start(bench.test.peer,
                                            &(CallParameters){ .method = "m",
                                                               .fds_consume = (int[]){ open_eventfd() },
                                                               .n_fds = 1 },
                                            test_done, &answers[1], NULL),
                                 0);
                test_bench_settle(&bench);
                fd_close(test_raw_take(&bench.raw, 6 + side));
                renew(&bench, 1);
                assert_int_equal(read(pipe_fds[0], &(char){ 0 }, 1), 0);
                fd_close(pipe_fds[0]);
                assert_int_equal(peer_counters(bench.test.peer)->unlisted_fds, 1);
                assert_int_equal(answers[0].status, STATUS_UNAVAILABLE);
                assert_int_equal(answers[1].status, STATUS_UNAVAILABLE);

                assert_int_equal(test_engine_call(&bench, 0, &answers[2], NULL), 2 + side);
                id = test_raw_call(&bench, 1, NULL); /* 1 is above the last again */
                test_raw_expect_answer(&bench.raw, id, STATUS_OK, "");
                assert_int_equal(call_start(bench.test.peer,
                                            &(CallParameters){ .method = "m",
                                                               .fds_consume = (int[]){ open_eventfd() },
                                                               .n_fds = 1 },
                                            test_done, &answers[3], NULL),
                                 0);
                test_bench_settle(&bench);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, 4 + side);
                assert_int_equal(bench.raw.last->fds[0], channel_id(1, 6 + side));
                fd_close(test_raw_take(&bench.raw, channel_id(1, 6 + side)));
                test_bench_close(&bench);
        }
}

/* Before the new Hello frames are small again. */
static void test_limit_before_hello(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };

                test_bench_ready(&bench, &renewed[side]);
                send_channels(&bench, 1, NULL);
                test_bench_settle(&bench);
                test_raw_bytes(&bench.raw, CHANNEL_RPC, "\0\x01\0\x01", 4);
                test_bench_ended(&bench, "64 KiB and one", STATUS_RESOURCE_EXHAUSTED, "accepted are 65536", true);
                test_bench_close(&bench);
        }
}

/* Renewed again before anything was said; epochs may jump, and what is not higher is no renewal. */
static void test_twice(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                CallParameters parameters = { .method = "m" };
                TestAnswer answer = { 0 };
                TestBench bench = { 0 };

                test_bench_open(&bench, &renewed[side]);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
                send_channels(&bench, 1, NULL);
                send_channels(&bench, 2, NULL);
                test_bench_settle(&bench);
                renew(&bench, UINT32_MAX);
                /* The call that was never begun waited through all of it. */
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, 2 + side);
                assert_int_equal(answer.n, 0);
                test_raw_send_channel(&bench.raw, 0, channel_id(UINT32_MAX, 0));
                test_bench_settle(&bench);
                assert_int_equal(bench.test.status, STATUS_INVALID_ARGUMENT);
                assert_non_null(strstr(bench.test.reason, "not due"));
                test_bench_close(&bench);
        }
}

/* ---- waiting ---- */

static void lose_channel_0(TestBench *bench) {
        bench->raw.channels[0] = fd_close(bench->raw.channels[0]);
        test_bench_settle(bench);
        assert_int_equal(bench->test.n_ended, 0);
        assert_false(peer_is_ready(bench->test.peer));
}

/* The side that cannot renew waits: open calls stay open, new ones wait, with their descriptors. */
static void test_waits(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                CallParameters parameters = { .method = "m", .n_fds = 1, .fds_consume = (int[]){ open_eventfd() } };
                TestAnswer open = { 0 }, later = { 0 };
                TestBench bench = { .test.on_call = test_keep };

                test_bench_ready(&bench, &renewed[side]);
                (void) test_engine_call(&bench, 0, &open, NULL);
                (void) test_raw_call(&bench, 1, NULL);
                lose_channel_0(&bench);
                assert_int_equal(open.n, 0);
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &later, NULL), 0);
                test_end_kept(0); /* an answer that nobody reads */
                test_bench_settle(&bench);
                assert_true(test_raw_silent(bench.raw.lane));
                renew(&bench, 1);
                assert_int_equal(open.status, STATUS_UNAVAILABLE);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, 2 + side);
                fd_close(test_raw_take(&bench.raw, bench.raw.last->fds[0]));
                assert_int_equal(later.n, 0);
                test_bench_close(&bench);
        }
}

/* It gives up after its own time, not after that of a Hello or of a frame that was begun. */
static void test_renewal_timeout(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++)
                for (unsigned ready = 0; ready <= 1; ready++) {
                        TestBench bench = { 0 };

                        seam_clock_set(1000000);
                        if (ready)
                                test_bench_ready(&bench, &renewed[side]);
                        else
                                test_bench_open(&bench, &renewed[side]);
                        if (ready && side == 1) {
                                assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
                                test_bench_settle(&bench);
                                test_raw_bytes(&bench.raw, CHANNEL_DATA, "\0", 1);
                                test_bench_settle(&bench);
                        }
                        seam_clock_advance(1000000);
                        lose_channel_0(&bench);
                        assert_int_equal(peer_deadline(bench.test.peer), 62000000);
                        seam_clock_advance(59999999);
                        peer_expire(bench.test.peer);
                        assert_int_equal(bench.test.n_ended, 0);
                        test_bench_expire(&bench, 1);
                        test_bench_ended(&bench, "not renewed", STATUS_DEADLINE_EXCEEDED,
                                         "not renewed within 60000 ms", false);
                        test_bench_close(&bench);
                        seam_reset();
                }
}

/* Lane EOF is the end for one that waits, too, after what its other channels hold. */
static void test_end_while_waiting(void **state) {
        CallParameters parameters = { .method = "m", .channel = CHANNEL_DATA };
        TestBench bench = { 0 };
        TestAnswer answer = { 0 };

        (void) state;
        test_bench_ready(&bench, &renewed[1]);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
        assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
        test_bench_settle(&bench);
        lose_channel_0(&bench);
        test_raw_send(&bench.raw, &(RawFrame){ .channel = CHANNEL_DATA, .kind = BATON__KIND__ANSWER, .id = 3 });
        test_bench_settle(&bench);
        assert_int_equal(answer.n, 0);
        test_raw_close(&bench.raw);
        test_bench_settle(&bench);
        assert_int_equal(answer.status, STATUS_OK);
        assert_int_equal(bench.test.n_ended, 1);
        assert_int_equal(bench.test.status, STATUS_UNAVAILABLE);
        test_bench_close(&bench);
}

/* ---- channels 1 and 2 ---- */

static void test_other_channels(void **state) {
        TestBench bench = { 0 };
        RawFrame call = { .channel = CHANNEL_DATA, .kind = BATON__KIND__CALL, .id = 2, .method = "m", .end = true };
        int taken, again;

        (void) state;
        test_bench_ready(&bench, &renewed[1]);
        assert_int_equal(bench.test.channels, 6);
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_RPC, &taken), -EINVAL);
        assert_int_equal(peer_take_channel(bench.test.peer, 3, &taken), -EINVAL);
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_FILESYSTEM, &taken), 0);
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_FILESYSTEM, &again), -EEXIST);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), -EEXIST);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), -EEXIST);
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_DATA, &again), -EEXIST);

        /* Framed: the same Envelope, without Hello; ids of its own. Raw: bytes, whatever they are. */
        test_raw_send(&bench.raw, &call);
        test_raw_bytes(&bench.raw, CHANNEL_FILESYSTEM, "\xff\xff\xff\xff", 4);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_DATA, BATON__KIND__ANSWER, 2);
        assert_int_equal(read(taken, &(uint32_t){ 0 }, 4), 4);
        assert_int_equal(test_raw_call(&bench, 1, NULL), 2);
        test_raw_expect_answer(&bench.raw, 2, STATUS_OK, "");

        /* After a renewal the framed one is framed again, the other waits to be taken; the old one is the taker's. */
        renew(&bench, 1);
        assert_true(fcntl(taken, F_GETFD) >= 0);
        fd_close(taken);
        test_raw_send(&bench.raw, &call);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_DATA, BATON__KIND__ANSWER, 2);
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_FILESYSTEM, &taken), 0);
        fd_close(taken);
        test_bench_close(&bench);
}

/* Asked for before it is there: -EAGAIN; framed then as soon as it comes, and calls for it wait. */
static void test_other_channels_early(void **state) {
        CallParameters parameters = { .method = "m", .channel = CHANNEL_DATA };
        TestAnswer answer = { 0 };
        TestBench bench = { 0 };
        int taken;

        (void) state;
        bench.all[0] = &bench.test;
        test_peer_new(&bench.test, &renewed[1], test_raw_open(&bench.raw, 0));
        assert_int_equal(peer_take_channel(bench.test.peer, CHANNEL_FILESYSTEM, &taken), -EAGAIN);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
        assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
        for (unsigned n = 0; n < 3; n++)
                test_raw_send_channel(&bench.raw, n, n);
        test_raw_hello(&bench.raw);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.channels, 2);
        test_raw_expect(&bench.raw, CHANNEL_DATA, BATON__KIND__CALL, 3);
        test_bench_close(&bench);
}

/* ---- renewing ---- */

static Peer *callback_peer;
static TestAnswer callback_answer;

static void call_again(Call *call, void *userdata) {
        (void) call;
        (void) userdata;
        assert_int_equal(
                call_start(callback_peer, &(CallParameters){ .method = "again" }, test_done, &callback_answer, NULL),
                0);
        peer_flush(callback_peer);
}

static void keep_and_call_again(Peer *peer, Call *call) {
        callback_peer = peer;
        test_keep(peer, call);
        call_on_cancel(call, call_again, NULL);
}

/* expect_channels() - the raw side receives the channels of @epoch. */
static void expect_channels(TestBench *bench, uint32_t epoch) {
        for (unsigned n = 0; n < bench->n_channels; n++) {
                fd_close(bench->raw.channels[n]);
                bench->raw.channels[n] = test_raw_take(&bench->raw, channel_id(epoch, n));
        }
}

/*
 * The engine renews: the old channels are at their end, calls of both sides end, a call that a callback starts meanwhile
 * goes to the new channels.
 */
static void test_renewing(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { .test.on_call = keep_and_call_again };
                TestAnswer answer = { 0 };

                memset(&callback_answer, 0, sizeof(callback_answer));
                test_bench_ready(&bench, &renewing[side]);
                (void) test_engine_call(&bench, 0, &answer, NULL);
                (void) test_raw_call(&bench, 1, NULL);
                assert_int_equal(peer_renew(bench.test.peer, 0), -ESTALE);
                assert_int_equal(peer_renew(bench.test.peer, 7), 0);
                assert_int_equal(peer_renew(bench.test.peer, 7), -ESTALE);
                test_bench_settle(&bench);
                assert_int_equal(answer.status, STATUS_UNAVAILABLE);
                assert_non_null(strstr(answer.message, "may have run"));
                assert_true(call_is_cancelled(test_kept[0]));
                test_end_kept(-ECANCELED);
                assert_false(test_raw_read(&bench.raw, CHANNEL_RPC));
                expect_channels(&bench, 7);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
                assert_true(test_raw_silent(bench.raw.channels[0]));
                test_raw_hello(&bench.raw);
                test_bench_settle(&bench);
                assert_int_equal(bench.test.n_renewed, 1);
                test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__CALL, 2 + side);
                assert_string_equal(bench.raw.last->method, "again");
                assert_int_equal(callback_answer.n, 0);
                bench.test.on_call = NULL;
                test_bench_alive(&bench, "renewing");
                test_bench_close(&bench);
        }
}

/* One that adopts a runner's lane begins in its own epoch; who may not renew is told so. */
static void test_adopts(void **state) {
        PeerConfig config = renewing[0];
        TestBench bench = { 0 };

        (void) state;
        config.epoch = 4;
        test_bench_open(&bench, &config); /* takes channels 0, 1, 2 of any epoch */
        test_raw_expect(&bench.raw, CHANNEL_RPC, BATON__KIND__HELLO, 0);
        test_raw_hello(&bench.raw);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_renewed, 1);
        test_raw_lane(&bench.raw, test_raw_fd_id(&bench.raw, 0, 3), 8, bench.raw.lane, 1); /* of its predecessor's */
        test_bench_alive(&bench, "adopted");
        test_bench_close(&bench);

        memset(&bench, 0, sizeof(bench));
        test_bench_ready(&bench, &renewed[1]);
        assert_int_equal(peer_renew(bench.test.peer, 9), -EPERM);
        test_bench_close(&bench);
}

/* A renewal that fails for want of descriptors ends the peer, and leaves nothing. */
static void test_renewing_fails(void **state) {
        (void) state;
        for (unsigned nth = 1; nth <= 3; nth++) {
                TestBench bench = { 0 };

                test_bench_ready(&bench, &renewing[0]);
                seam_fail(SEAM_SOCKETPAIR, nth, EMFILE);
                assert_int_equal(peer_renew(bench.test.peer, 1), -EMFILE);
                assert_int_equal(bench.test.n_ended, 1);
                assert_int_equal(bench.test.status, STATUS_RESOURCE_EXHAUSTED);
                test_bench_close(&bench);
                seam_reset();
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_old_channel),     TEST(test_noticed_in_a_call),
        TEST(test_afresh),          TEST(test_limit_before_hello),
        TEST(test_twice),           TEST(test_waits),
        TEST(test_renewal_timeout), TEST(test_end_while_waiting),
        TEST(test_other_channels),  TEST(test_other_channels_early),
        TEST(test_renewing),        TEST(test_adopts),
        TEST(test_renewing_fails),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

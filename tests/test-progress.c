/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Nothing that may go on waits for ever, and nothing is lost at an end: what random interleavings (tests/test-property.c)
 * found, each as the few steps that it takes.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/spare.h"
#include "proto/peer-internal.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

#define LARGE (4u * 1024u * 1024u) /* more than a socket takes, and than the bound of unsent bytes */

static uint8_t large[LARGE];

typedef struct Pair {
        TestPeer a, b;
        TestPeer *all[2];
} Pair;

static Pair *current; /* for callbacks */

static void pair_open(Pair *pair, const PeerLimits *a, const PeerLimits *b, void (*on_call)(Peer *, Call *)) {
        PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = a };
        int fds[2];

        *pair = (Pair){ .all = { &pair->a, &pair->b }, .b.on_call = on_call };
        current = pair;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        test_peer_new(&pair->a, &config, fds[0]);
        config = (PeerConfig){ .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = b };
        test_peer_new(&pair->b, &config, fds[1]);
        for (unsigned n = 1; n < 3; n++)
                assert_int_equal(peer_frame_channel(pair->b.peer, n), 0);
}

static void pair_close(Pair *pair) {
        test_peer_free(&pair->a);
        test_peer_free(&pair->b);
}

static void start(Peer *peer, unsigned channel, size_t size, TestAnswer *answer) {
        CallParameters parameters = { .method = "m", .channel = channel, .payload = large, .size = size };

        assert_int_equal(call_start(peer, &parameters, test_done, answer, NULL), 0);
}

/* A call behind a backlog goes when that is gone, though nothing else happens then. */
static void test_call_behind_backlog(void **state) {
        TestAnswer answers[2] = { 0 };
        Pair pair;

        (void) state;
        pair_open(&pair, NULL, NULL, NULL);
        test_settle(pair.all, 2);
        start(pair.a.peer, CHANNEL_RPC, LARGE, &answers[0]);
        start(pair.a.peer, CHANNEL_RPC, 8, &answers[1]);
        test_settle(pair.all, 2);
        assert_int_equal(answers[0].n, 1);
        assert_int_equal(answers[1].n, 1);
        pair_close(&pair);
}

/* Both sides write more than the bound at once, and its echo: neither stops reading what the other waits for. */
static void test_large_both_ways(void **state) {
        TestAnswer answers[3][4] = { 0 };
        Pair pair;

        (void) state;
        for (unsigned i = 0; i < 3; i++) {
                pair_open(&pair, NULL, NULL, NULL);
                test_settle(pair.all, 2);
                for (unsigned n = 0; n < 4; n++)
                        start(pair.all[n % 2]->peer, i == 2 ? n % 3 : CHANNEL_RPC, i == 0 ? LARGE : LARGE >> n,
                              &answers[i][n]);
                test_settle(pair.all, 2);
                for (unsigned n = 0; n < 4; n++)
                        assert_int_equal(answers[i][n].n, 1);
                pair_close(&pair);
        }
}

/* Calls for a channel that is on its way go when it has come. */
static void test_call_before_channel(void **state) {
        TestBench bench = { .all = { &bench.test } };
        PeerConfig config = { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER };
        TestAnswer answer = { 0 };

        (void) state;
        test_peer_new(&bench.test, &config, test_raw_open(&bench.raw, 0));
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), 0);
        test_raw_send_channel(&bench.raw, 0, 0);
        test_bench_settle(&bench);
        test_raw_hello(&bench.raw);
        start(bench.test.peer, CHANNEL_FILESYSTEM, 8, &answer);
        test_bench_settle(&bench);
        test_raw_send_channel(&bench.raw, 1, 1);
        test_bench_settle(&bench);
        test_raw_expect(&bench.raw, CHANNEL_FILESYSTEM, BATON__KIND__CALL, 3);
        test_bench_close(&bench);
}

/* ---- shares of a turn ---- */

#define FLOOD       3000u
#define FLOOD_SIZE  8000u
#define FLOOD_AHEAD 12u /* in the socket: more than one read takes, and no more than fits */

static TestRaw *flood;
static unsigned n_flood, n_served;

static void send_one(void) {
        Baton__Envelope envelope = BATON__ENVELOPE__INIT;

        envelope.kind = BATON__KIND__CALL;
        envelope.id = 2 * ++n_flood + flood->side;
        envelope.method = (char *) "m";
        envelope.end = true;
        test_raw_frame(flood, CHANNEL_RPC, &envelope, large, FLOOD_SIZE);
}

/* serve_flood() - whoever is read does not run dry: for each call that is served another one comes. */
static void serve_flood(Peer *peer, Call *call) {
        static char answers[65536];

        (void) peer;
        n_served++;
        assert_int_equal(call_answer(call, &(AnswerParameters){ .status = STATUS_OK }), 0);
        while (recv(flood->channels[CHANNEL_RPC], answers, sizeof(answers), MSG_DONTWAIT) > 0)
                ;
        if (n_flood < FLOOD)
                send_one();
}

static unsigned n_quiet;

static void serve_quiet(Peer *peer, Call *call) {
        (void) peer;
        n_quiet++;
        assert_int_equal(call_answer(call, &(AnswerParameters){ .status = STATUS_OK }), 0);
}

/* One that always has more to read gets its share of bytes and messages, and then it is the next one's turn. */
static void test_share_of_a_turn(void **state) {
        const PeerConfig config = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE };
        TestBench busy = { .test.on_call = serve_flood }, quiet = { .test.on_call = serve_quiet };
        TestPeer *all[] = { &busy.test, &quiet.test };

        (void) state;
        n_flood = n_served = n_quiet = 0;
        test_bench_ready(&busy, &config);
        test_bench_ready(&quiet, &config);
        flood = &busy.raw;
        for (unsigned i = 0; i < FLOOD_AHEAD; i++)
                send_one();
        test_raw_send(&quiet.raw, &(RawFrame){ .kind = BATON__KIND__CALL, .id = 3, .method = "m", .end = true });
        assert_true(test_turn(all, ARRAY_SIZE(all)));
        assert_in_range(n_served, 1, FLOOD / 10);
        assert_int_equal(n_quiet, 1);
        test_settle(all, ARRAY_SIZE(all));
        assert_int_equal(n_served, FLOOD);
        test_bench_close(&busy);
        test_bench_close(&quiet);
}

/* ---- batches ---- */

#define BATCH 100u

/* allocations() - since the last seam_reset(). */
static unsigned allocations(void) {
        return seam_count(SEAM_MALLOC) + seam_count(SEAM_CALLOC) + seam_count(SEAM_REALLOC);
}

/* pass_on() - what one side has queued in this turn, to the end: one write there, one read here. */
static void pass_on(Peer *from, Peer *to) {
        peer_flush(from);
        peer_dispatch(to, CHANNEL_RPC, PEER_IN);
        assert_int_equal(seam_count(SEAM_SENDMSG), 1);
        assert_int_equal(seam_count(SEAM_RECVMSG), 1);
}

/*
 * All that was queued in a turn leaves in one write, all that has arrived is handled before the next read, and when there
 * were as many before none of it needs memory: Envelopes are unpacked into the turn's scratch, calls are kept for the next,
 * but for AddressSanitizer.
 */
static void test_batches(void **state) {
        static TestAnswer answers[BATCH];
        Pair pair;

        (void) state;
        pair_open(&pair, NULL, NULL, NULL);
        test_settle(pair.all, 2);
        for (unsigned round = 1; round <= 3; round++) {
                seam_reset();
                for (unsigned i = 0; i < BATCH; i++)
                        start(pair.a.peer, CHANNEL_RPC, 64, &answers[i]);
                assert_int_equal(seam_count(SEAM_SENDMSG), 0);
                pass_on(pair.a.peer, pair.b.peer);
                assert_true(round == 1 || SPARE_MAX < BATCH || allocations() == 0);
                seam_reset();
                pass_on(pair.b.peer, pair.a.peer);
                assert_true(round == 1 || SPARE_MAX < BATCH || allocations() == 0);
                for (unsigned i = 0; i < BATCH; i++)
                        assert_int_equal(answers[i].n, round);
        }
        pair_close(&pair);
}

/* ---- streams ---- */

typedef struct Stream {
        Call *in, *out;
        TestAnswer answer;
        unsigned n_items, n_writable, n_refuse;
        bool stalls;
} Stream;

static Stream stream;

static int send_item(Call *call, size_t size) {
        return call_send(call, &(ItemParameters){ .payload = large, .size = size });
}

/* on_item() - refuses n_refuse times, each time resuming before it says so. */
static bool on_item(Call *call, const Item *item, void *userdata) {
        (void) item;
        (void) userdata;
        if (stream.stalls)
                return false;
        if (stream.n_refuse > 0) {
                stream.n_refuse--;
                call_resume(call);
                return false;
        }
        stream.n_items++;
        return true;
}

static void on_writable(Call *call, void *userdata) {
        (void) call;
        (void) userdata;
        stream.n_writable++;
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        stream.out = NULL;
        test_done(call, answer, userdata);
}

static Call *first;

static void serve(Peer *peer, Call *call) {
        (void) peer;
        first = stream.in;
        stream.in = call;
        call_on_stream(call, on_item, on_writable, NULL);
}

static void open_stream(Peer *peer, unsigned channel) {
        CallParameters parameters = {
                .method = "m", .channel = channel, .stream = true, .item = on_item, .writable = on_writable
        };

        stream = (Stream){ 0 };
        assert_int_equal(call_start(peer, &parameters, on_done, &stream.answer, &stream.out), 0);
}

static void end_stream(Pair *pair) {
        assert_int_equal(call_answer(stream.in, &(AnswerParameters){ 0 }), 0);
        test_settle(pair->all, 2);
        assert_int_equal(stream.answer.n, 1);
        pair_close(pair);
}

/* A producer that waits for the backlog of one channel is not asked again and again because others have none. */
static void test_backlog_of_one_channel(void **state) {
        PeerLimits limits = { .max_unsent = 1000, .stream_window = LARGE };
        Pair pair;

        (void) state;
        pair_open(&pair, &limits, &limits, serve);
        test_settle(pair.all, 2);
        open_stream(pair.a.peer, CHANNEL_DATA);
        test_settle(pair.all, 2);
        assert_int_equal(send_item(stream.out, LARGE / 2), 0);
        assert_int_equal(send_item(stream.out, 8), -EAGAIN);
        /* side b does not read: turns of a alone come to rest */
        for (unsigned n = 0; test_turn(pair.all, 1); n++)
                assert_true(n < 100);
        assert_int_equal(stream.n_writable, 0);
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_writable, 1);
        assert_int_equal(send_item(stream.out, 8), 0);
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_items, 2);
        end_stream(&pair);
}

/* A backlog that a large frame takes along to the kernel at once is gone, too. */
static void test_backlog_gone_without_flush(void **state) {
        PeerLimits limits = { .max_unsent = 300 };
        TestAnswer answer = { 0 };
        Pair pair;
        Call *call;

        (void) state;
        pair_open(&pair, &limits, &limits, serve);
        pair.a.on_call = serve;
        test_settle(pair.all, 2);
        start(pair.b.peer, CHANNEL_RPC, 8, &answer);
        test_settle(pair.all, 2);
        call = stream.in;
        open_stream(pair.a.peer, CHANNEL_RPC);
        test_settle(pair.all, 2);
        stream.stalls = true; /* so that no credit tells */
        assert_int_equal(send_item(stream.out, 400), 0);
        assert_int_equal(send_item(stream.out, 400), -EAGAIN);
        assert_int_equal(call_answer(call, &(AnswerParameters){ .payload = large, .size = 100000 }), 0);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 1);
        assert_int_equal(stream.n_writable, 1);
        end_stream(&pair);
}

/* CallWritable is for who waits: not after the attempt that succeeded by itself, nor after the half-close. */
static void test_writable_only_when_waiting(void **state) {
        PeerLimits limits = { .stream_window = 1000 };
        Pair pair;

        (void) state;
        pair_open(&pair, &limits, &limits, serve);
        test_settle(pair.all, 2);
        open_stream(pair.a.peer, CHANNEL_RPC);
        assert_int_equal(send_item(stream.out, 600), 0);
        assert_int_equal(send_item(stream.out, 600), -EAGAIN);
        assert_int_equal(send_item(stream.out, 8), 0);
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_writable, 0);
        assert_int_equal(send_item(stream.out, 900), 0);
        assert_int_equal(send_item(stream.out, 900), -EAGAIN);
        assert_int_equal(call_end(stream.out), 0);
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_writable, 0);
        end_stream(&pair);
}

/* Tried before Hello, when nobody knew that it is larger than the window: who waits learns of it. */
static void test_too_large_before_hello(void **state) {
        PeerLimits limits = { .stream_window = 1000 };
        TestAnswer answer = { 0 };
        Pair pair;

        (void) state;
        pair_open(&pair, &limits, &limits, serve);
        open_stream(pair.a.peer, CHANNEL_RPC);
        assert_int_equal(send_item(stream.out, 2000), -EAGAIN);
        start(pair.a.peer, CHANNEL_RPC, LARGE, &answer); /* and a backlog when it is known */
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_writable, 1);
        assert_int_equal(send_item(stream.out, 2000), -EMSGSIZE);
        assert_int_equal(call_answer(first, &(AnswerParameters){ 0 }), 0);
        end_stream(&pair);
}

/* call_resume() before the refusal that it belongs to: both while it is read, and while it is told again. */
static void test_resume_inside(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair, NULL, NULL, serve);
        test_settle(pair.all, 2);
        open_stream(pair.a.peer, CHANNEL_RPC);
        test_settle(pair.all, 2);
        stream.n_refuse = 2;
        assert_int_equal(send_item(stream.out, 8), 0);
        assert_int_equal(send_item(stream.out, 8), 0);
        test_settle(pair.all, 2);
        assert_int_equal(stream.n_items, 2);
        end_stream(&pair);
}

/* ---- ends ---- */

static void keep_one(Peer *peer, Call *call) {
        (void) peer;
        stream.in = call;
}

/* What was answered on another channel before CLOSE, or before the end of channel 0, is heard. */
static void test_answers_before_close(void **state) {
        (void) state;
        for (unsigned with_close = 0; with_close < 2; with_close++) {
                TestAnswer answer = { 0 };
                Pair pair;

                pair_open(&pair, NULL, NULL, keep_one);
                test_settle(pair.all, 2);
                start(pair.a.peer, CHANNEL_DATA, 8, &answer);
                test_settle(pair.all, 2);
                assert_int_equal(call_answer(stream.in, &(AnswerParameters){ 0 }), 0);
                peer_flush(pair.b.peer);
                if (with_close)
                        peer_close(pair.b.peer, STATUS_ABORTED, "enough");
                test_peer_free(&pair.b);
                test_settle(pair.all, 1);
                assert_int_equal(answer.n, 1);
                assert_int_equal(answer.status, STATUS_OK);
                assert_int_equal(pair.a.status, with_close ? STATUS_ABORTED : STATUS_UNAVAILABLE);
                test_peer_free(&pair.a);
        }
}

/* A CALL whose descriptors have gone has its place among max_calls: another does not take it meanwhile. */
static void test_place_of_a_call_on_the_lane(void **state) {
        PeerLimits limits = { .max_calls = 1 };
        TestAnswer answers[3] = { 0 };
        int pipes[2], copies[2];
        Pair pair;

        (void) state;
        pair_open(&pair, NULL, &limits, NULL);
        test_settle(pair.all, 2);
        assert_int_equal(pipe(pipes), 0);
        seam_fail_always(SEAM_SENDMSG, EAGAIN);
        for (unsigned i = 0; i < 2; i++) {
                CallParameters parameters = { .method = "m", .fds_consume = &copies[i], .n_fds = 1 };

                copies[i] = fd_dup(pipes[i]);
                assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answers[i], NULL), 0);
        }
        peer_flush(pair.a.peer);
        start(pair.a.peer, CHANNEL_RPC, 8, &answers[2]);
        peer_flush(pair.a.peer);
        seam_pass(SEAM_SENDMSG);
        test_settle(pair.all, 2);
        assert_int_equal(pair.a.n_ended, 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(answers[i].n, 1);
                assert_int_equal(answers[i].status, STATUS_OK);
                fd_close_all(answers[i].fds, answers[i].n_fds);
        }
        fd_close_all(pipes, 2);
        pair_close(&pair);
}

/* ---- renewal ---- */

static int inner_result;
static uint32_t inner_epoch;

static void renew_again(Call *call, void *userdata) {
        (void) userdata;
        (void) call_answer(call, &(AnswerParameters){ 0 });
        inner_result = peer_renew(current->a.peer, inner_epoch);
}

static void keep_to_renew(Peer *peer, Call *call) {
        (void) peer;
        call_on_cancel(call, renew_again, NULL);
}

static Call *kept[2];
static unsigned n_kept;

/* answer_other() - with a descriptor, so that it waits. */
static void answer_other(Call *call, void *userdata) {
        Call *other = kept[call == kept[0]];
        int fd = fd_dup(STDIN_FILENO);

        (void) userdata;
        n_kept--;
        (void) call_answer(call, &(AnswerParameters){ 0 });
        if (n_kept-- == 1)
                (void) call_answer(other, &(AnswerParameters){ .fds_consume = &fd, .n_fds = 1 });
        else
                fd_close(fd);
}

static void keep_two(Peer *peer, Call *call) {
        (void) peer;
        kept[n_kept++ % 2] = call;
        call_on_cancel(call, answer_other, NULL);
}

/* What a callback answers while an epoch ends goes with it, not to a call of the same id in the next. */
static void test_no_answer_crosses_epochs(void **state) {
        TestAnswer answers[3] = { 0 };
        Pair pair;

        (void) state;
        n_kept = 0;
        pair_open(&pair, NULL, NULL, keep_two);
        test_settle(pair.all, 2);
        start(pair.a.peer, CHANNEL_RPC, 8, &answers[0]);
        start(pair.a.peer, CHANNEL_RPC, 8, &answers[1]);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 2);
        pair.b.on_call = NULL;
        assert_int_equal(peer_renew(pair.a.peer, 1), 0);
        start(pair.a.peer, CHANNEL_RPC, 8, &answers[2]);
        test_settle(pair.all, 2);
        assert_int_equal(answers[0].status, STATUS_UNAVAILABLE);
        assert_int_equal(answers[1].status, STATUS_UNAVAILABLE);
        assert_int_equal(answers[2].n, 1);
        assert_int_equal(answers[2].size, 8);
        assert_int_equal(answers[2].n_fds, 0);
        assert_int_equal(peer_counters(pair.a.peer)->late, 0);
        pair_close(&pair);
}

/* A channel is closed while an answer for it waits for credit: its place among the open calls is free. */
static void test_answer_for_a_lost_channel(void **state) {
        PeerConfig config = { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER };
        TestBench bench = { .test.on_call = keep_one };
        Baton__Hello hello = BATON__HELLO__INIT;
        size_t incoming;

        (void) state;
        test_bench_open(&bench, &config);
        hello.protocol_min = hello.protocol_max = hello.fd_credit = 1;
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__HELLO, .hello = &hello });
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_DATA), 0);
        test_bench_settle(&bench);
        for (uint64_t id = 2; id <= 4; id += 2) {
                int fd = fd_dup(STDIN_FILENO);

                test_raw_send(
                        &bench.raw,
                        &(RawFrame){ .channel = 2, .kind = BATON__KIND__CALL, .id = id, .method = "m", .end = true });
                test_bench_settle(&bench);
                assert_int_equal(call_answer(stream.in, &(AnswerParameters){ .fds_consume = &fd, .n_fds = 1 }), 0);
                test_bench_settle(&bench);
        }
        assert_false(peer_is_flushed(bench.test.peer));
        bench.raw.channels[2] = fd_close(bench.raw.channels[2]);
        test_bench_settle(&bench);
        assert_true(peer_is_flushed(bench.test.peer));
        (void) peer_open_calls(bench.test.peer, &incoming);
        assert_int_equal(incoming, 0);
        test_bench_close(&bench);
}

/* A renewal that is told by a callback which renews too: the higher epoch stays. */
static void test_renewal_in_a_renewal(void **state) {
        (void) state;
        for (inner_epoch = 1; inner_epoch <= 5; inner_epoch += 4) {
                TestAnswer answers[2] = { 0 };
                Pair pair;

                pair_open(&pair, NULL, NULL, NULL);
                pair.a.on_call = keep_to_renew;
                test_settle(pair.all, 2);
                start(pair.b.peer, CHANNEL_RPC, 8, &answers[0]);
                test_settle(pair.all, 2);
                assert_int_equal(peer_renew(pair.a.peer, 3), inner_epoch < 3 ? 0 : -ESTALE);
                assert_int_equal(inner_result, 0);
                test_settle(pair.all, 2);
                assert_int_equal(pair.a.peer->lane.epoch, MAX(inner_epoch, 3u));
                assert_int_equal(answers[0].status, STATUS_UNAVAILABLE);
                start(pair.a.peer, CHANNEL_RPC, 8, &answers[1]);
                test_settle(pair.all, 2);
                assert_int_equal(answers[1].n, 1);
                assert_int_equal(pair.a.n_ended + pair.b.n_ended, 0);
                pair_close(&pair);
        }
}

/* The next renewal comes before the Hello of the last: its other channels are not read, which they may not be yet. */
static void test_renewal_before_hello(void **state) {
        PeerConfig config = { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER };
        TestBench bench = { 0 };
        int next[2];

        (void) state;
        test_bench_ready(&bench, &config);
        assert_int_equal(peer_frame_channel(bench.test.peer, CHANNEL_FILESYSTEM), 0);
        for (unsigned n = 0; n < 2; n++)
                test_raw_send_channel(&bench.raw, n, UINT64_C(1) << 32 | n);
        test_bench_settle(&bench);
        test_raw_send(&bench.raw, &(RawFrame){ .channel = 1, .kind = BATON__KIND__CALL, .id = 2, .method = "m" });
        test_bench_settle(&bench);
        /* and a Hello that comes too late for its epoch brings nothing into disorder */
        assert_int_equal(fd_socketpair(SOCK_STREAM, next), 0);
        test_raw_lane(&bench.raw, UINT64_C(2) << 32, 8, next[1], 1);
        fd_close(next[1]);
        test_raw_hello(&bench.raw);
        test_raw_send(&bench.raw, &(RawFrame){ .kind = BATON__KIND__CALL, .id = 2, .method = "m" });
        peer_dispatch(bench.test.peer, PEER_LANE, PEER_IN);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_ended, 0);
        assert_int_equal(bench.test.n_ready, 1);
        fd_close(bench.raw.channels[0]);
        bench.raw.channels[0] = next[0];
        test_raw_hello(&bench.raw);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_renewed, 1);
        test_bench_close(&bench);
}

static const struct CMUnitTest tests[] = {
        TEST(test_call_behind_backlog),
        TEST(test_large_both_ways),
        TEST(test_batches),
        TEST(test_share_of_a_turn),
        TEST(test_call_before_channel),
        TEST(test_backlog_of_one_channel),
        TEST(test_backlog_gone_without_flush),
        TEST(test_writable_only_when_waiting),
        TEST(test_too_large_before_hello),
        TEST(test_resume_inside),
        TEST(test_answers_before_close),
        TEST(test_place_of_a_call_on_the_lane),
        TEST(test_renewal_in_a_renewal),
        TEST(test_renewal_before_hello),
        TEST(test_no_answer_crosses_epochs),
        TEST(test_answer_for_a_lost_channel),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

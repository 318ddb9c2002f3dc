/* SPDX-License-Identifier: Apache-2.0 */

/* RPC between two peers of the engine, both sides real: Hello, calls both ways, descriptors, deadlines, cancel, renewal. */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/peer-internal.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct Pair {
        TestPeer a, b; /* a: side 0, the supervisor's; b: side 1, the runner's */
        TestPeer *all[2];
} Pair;

static void pair_open_limits(Pair *pair, const PeerLimits *a, const PeerLimits *b) {
        static const char *const features[] = { "later", "common", NULL }, *const others[] = { "common", "other",
                                                                                               NULL };
        PeerConfig config = {
                .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .software = "a 1", .instance = 7
        };
        int fds[2];

        pair->all[0] = &pair->a;
        pair->all[1] = &pair->b;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        config.limits = a;
        config.features = features;
        test_peer_new(&pair->a, &config, fds[0]);
        config = (PeerConfig){
                .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .software = "b 2", .limits = b
        };
        config.features = others;
        config.service_state = 2;
        test_peer_new(&pair->b, &config, fds[1]);
        test_settle(pair->all, 2);
}

static void pair_open(Pair *pair) {
        memset(pair, 0, sizeof(*pair));
        pair_open_limits(pair, NULL, NULL);
}

static void pair_close(Pair *pair) {
        test_peer_free(&pair->a);
        test_peer_free(&pair->b);
}

static void test_hello(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair);
        assert_true(peer_is_ready(pair.a.peer) && peer_is_ready(pair.b.peer));
        assert_int_equal(pair.a.n_ready, 1);
        assert_int_equal(pair.b.n_ready, 1);
        assert_int_equal(pair.b.channels, 6);
        assert_string_equal(peer_remote(pair.a.peer)->software, "b 2");
        assert_int_equal(peer_remote(pair.a.peer)->service_state, 2);
        assert_int_equal(peer_remote(pair.b.peer)->instance, 7);
        assert_int_equal(peer_remote(pair.b.peer)->max_frame, 8 << 20);
        assert_int_equal(peer_remote(pair.a.peer)->features, 2);
        assert_int_equal(peer_remote(pair.b.peer)->features, 1);
        pair_close(&pair);
}

static void test_unary_both_ways(void **state) {
        TestAnswer to_b = { 0 }, to_a = { 0 };
        CallParameters parameters = { .method = "echo.Echo/Unary", .type = "t.T", .payload = "hello", .size = 5 };
        Pair pair;

        (void) state;
        pair_open(&pair);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &to_b, NULL), 0);
        parameters.payload = "other";
        assert_int_equal(call_start(pair.b.peer, &parameters, test_done, &to_a, NULL), 0);
        assert_int_equal(to_b.n + to_a.n, 0);
        test_settle(pair.all, 2);
        assert_int_equal(to_b.n, 1);
        assert_int_equal(to_b.status, STATUS_OK);
        assert_string_equal(to_b.type, "t.T");
        assert_memory_equal(to_b.payload, "hello", 5);
        assert_memory_equal(to_a.payload, "other", 5);
        pair_close(&pair);
}

/* buffers() - bytes of the buffers of @peer's channel 0. */
static size_t buffers(const Peer *peer) {
        return peer->channels[CHANNEL_RPC].reader.size + peer->channels[CHANNEL_RPC].writer.size;
}

/* Memory of large frames stays while they come, then goes by itself; without them there is no deadline. */
static void test_large_memory(void **state) {
        size_t size = (size_t) 4 << 20;
        _cleanup_free_ uint8_t *payload = calloc(1, size);
        CallParameters parameters = { .method = "m", .payload = payload, .size = size };
        TestAnswer answer = { 0 };
        Pair pair;

        (void) state;
        pair_open(&pair);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 1);
        for (size_t i = 0; i < 2; i++) {
                Peer *peer = pair.all[i]->peer;

                assert_true(buffers(peer) > size);
                assert_true(peer_deadline(peer) <= clock_now() + USEC_PER_SEC);
                peer->trim_deadline = 0; /* in this time it was needed */
                peer_expire(peer);
                assert_true(buffers(peer) > size);
                assert_true(peer_deadline(peer) > clock_now());
                peer->trim_deadline = 0;
                peer_expire(peer);
                assert_true(buffers(peer) < size);
                assert_int_equal(peer_deadline(peer), USEC_INFINITY);
        }
        parameters.size = 100;
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 2);
        assert_int_equal(peer_deadline(pair.a.peer), USEC_INFINITY);
        pair_close(&pair);
}

static void test_before_connect(void **state) {
        PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF };
        CallParameters parameters = { .method = "m", .payload = "x", .size = 1 };
        TestAnswer answer = { 0 };
        TestPeer a = { 0 }, b = { 0 }, *all[] = { &a, &b };
        int fds[2];

        (void) state;
        test_peer_new(&a, &config, -1);
        assert_int_equal(call_start(a.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(all, 1);
        assert_int_equal(answer.n, 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        config = (PeerConfig){ .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER };
        test_peer_new(&b, &config, fds[1]);
        peer_connect(a.peer, fds[0]);
        test_settle(all, 2);
        assert_int_equal(answer.n, 1);
        assert_int_equal(answer.status, STATUS_OK);
        test_peer_free(&a);
        test_peer_free(&b);

        /* One that never connects leaves nothing. */
        config = (PeerConfig){ .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF };
        test_peer_new(&a, &config, -1);
        assert_int_equal(call_start(a.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(all, 1);
        test_peer_free(&a);
        assert_int_equal(answer.n, 1);
}

static void test_descriptors(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair);
        /* More in all than there is credit: it must come back. */
        for (int round = 0; round < 40; round++) {
                TestAnswer answer = { 0 };
                int fds[4], sent[4];
                CallParameters parameters = { .method = "m", .fds_consume = sent, .n_fds = 4 };

                assert_int_equal(pipe(fds), 0);
                assert_int_equal(pipe(fds + 2), 0);
                for (int i = 0; i < 4; i++)
                        sent[i] = fd_dup(fds[i]);
                assert_int_equal(
                        call_start(round % 2 ? pair.a.peer : pair.b.peer, &parameters, test_done, &answer, NULL), 0);
                test_settle(pair.all, 2);
                assert_int_equal(answer.n, 1);
                assert_int_equal(answer.status, STATUS_OK);
                assert_int_equal(answer.n_fds, 4);
                for (int i = 0; i < 4; i++)
                        assert_true(test_same_file(answer.fds[i], fds[i]));
                fd_close_all(answer.fds, 4);
                fd_close_all(fds, 4);
        }
        pair_close(&pair);
}

/* A handler that keeps calls, for answers out of order. */
static Call *kept[2048];
static unsigned n_kept, n_cancelled;

static void count_cancel(Call *call, void *userdata) {
        (void) call;
        (void) userdata;
        n_cancelled++;
}

static void keep(Peer *peer, Call *call) {
        (void) peer;
        kept[n_kept++] = call;
        call_on_cancel(call, count_cancel, NULL);
}

static int answer_text(Call *call, const char *text) {
        AnswerParameters parameters = { .payload = text, .size = strlen(text) };

        return call_answer(call, &parameters);
}

static void kept_reset(void) {
        n_kept = n_cancelled = 0;
}

static void test_any_order(void **state) {
        TestAnswer answers[3] = { 0 };
        CallParameters parameters = { .method = "m" };
        Pair pair = { 0 };

        (void) state;
        kept_reset();
        pair.b.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        for (int i = 0; i < 3; i++)
                assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answers[i], NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 3);
        assert_int_equal(answer_text(kept[2], "2"), 0);
        assert_int_equal(answer_text(kept[0], "0"), 0);
        assert_int_equal(call_fail(kept[1], STATUS_NOT_FOUND, "no %s\xff", "one"), 0);
        test_settle(pair.all, 2);
        assert_int_equal(answers[0].payload[0], '0');
        assert_int_equal(answers[2].payload[0], '2');
        assert_int_equal(answers[1].status, STATUS_NOT_FOUND);
        assert_string_equal(answers[1].message, "no one?");
        pair_close(&pair);
}

static void test_cancel(void **state) {
        CallParameters parameters = { .method = "m" };
        TestAnswer answer = { 0 };
        Pair pair = { 0 };
        Call *call;
        size_t incoming;

        (void) state;
        kept_reset();
        pair.b.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, &call), 0);
        test_settle(pair.all, 2);
        call_cancel(call);
        test_settle(pair.all, 2);
        assert_int_equal(n_cancelled, 1);
        assert_true(call_is_cancelled(kept[0]));
        assert_int_equal(answer_text(kept[0], "late"), -ECANCELED);
        assert_int_equal(answer.n, 0);
        assert_int_equal(peer_open_calls(pair.a.peer, &incoming), 0);
        assert_int_equal(peer_open_calls(pair.b.peer, &incoming), 0);
        assert_int_equal(incoming, 0);

        /* Before it was written: nothing is. */
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, &call), 0);
        call_cancel(call);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 0);
        for (unsigned i = 1; i < n_kept; i++)
                (void) call_fail(kept[i], STATUS_OK, "x");
        pair_close(&pair);
}

static void test_deadlines(void **state) {
        CallParameters parameters = { .method = "m", .timeout_us = 20000 };
        TestAnswer answer = { 0 };
        Pair pair = { 0 };

        (void) state;
        kept_reset();
        pair.b.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, NULL), 0);
        test_until(pair.all, 2, &n_kept, 1);
        assert_true(call_time_left(kept[0]) <= 20000);
        test_until(pair.all, 2, &answer.n, 1);
        test_until(pair.all, 2, &n_cancelled, 1);
        assert_int_equal(answer.status, STATUS_DEADLINE_EXCEEDED);
        assert_int_equal(call_time_left(kept[0]), 0);
        assert_int_equal(answer_text(kept[0], "late"), -ECANCELED);
        test_settle(pair.all, 2);
        assert_int_equal(peer_deadline(pair.a.peer), USEC_INFINITY);
        assert_int_equal(peer_deadline(pair.b.peer), USEC_INFINITY);
        pair_close(&pair);
}

static void test_many(void **state) {
        static TestAnswer answers[1500];
        CallParameters parameters = { .method = "m", .payload = "0123456789", .size = 10 };
        Pair pair = { 0 };
        size_t incoming;

        (void) state;
        kept_reset();
        memset(answers, 0, sizeof(answers));
        pair.b.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
                assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answers[i], NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 1024); /* the rest waits for room */
        for (size_t done = 0; done < ARRAY_SIZE(answers);) {
                unsigned n = n_kept;

                for (; done < n; done++)
                        assert_int_equal(answer_text(kept[done], "ok"), 0);
                test_settle(pair.all, 2);
        }
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
                assert_true(answers[i].n == 1 && answers[i].status == STATUS_OK);
        assert_int_equal(peer_open_calls(pair.a.peer, &incoming), 0);
        pair_close(&pair);
}

static void test_limits(void **state) {
        static uint8_t large[128 * 1024];
        CallParameters parameters = { .method = "m", .payload = large, .size = sizeof(large) };
        PeerLimits limits = { .max_frame = 65536, .max_waiting = 2, .max_calls = 1 };
        TestAnswer answer = { 0 }, other = { 0 };
        Pair pair = { 0 };
        Call *call;

        (void) state;
        kept_reset();
        pair.b.on_call = keep;
        pair_open_limits(&pair, &limits, &limits);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, NULL), 0);
        assert_int_equal(answer.n, 0);
        test_settle(pair.all, 2);
        assert_int_equal(answer.status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(answer.message, "65536"));

        /* An answer over the limit: the caller gets the refusal, the callee the error. */
        parameters.size = 10;
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &other, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 1);
        assert_int_equal(call_answer(kept[0], &(AnswerParameters){ .payload = large, .size = sizeof(large) }),
                         -EMSGSIZE);
        test_settle(pair.all, 2);
        assert_int_equal(other.status, STATUS_RESOURCE_EXHAUSTED);

        /* One open, two waiting, the fourth fails. */
        memset(&answer, 0, sizeof(answer));
        for (int i = 0; i < 3; i++)
                assert_int_equal(call_start(pair.a.peer, &parameters, NULL, NULL, NULL), 0);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, &call), 0);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 1);
        assert_int_equal(answer.status, STATUS_RESOURCE_EXHAUSTED);
        for (unsigned i = 1; i < n_kept; i++) {
                assert_int_equal(answer_text(kept[i], ""), 0);
                test_settle(pair.all, 2);
        }
        assert_int_equal(n_kept, 4);
        pair_close(&pair);
}

static void test_peer_gone(void **state) {
        CallParameters parameters = { .method = "m" };
        TestAnswer answer = { 0 };
        Pair pair = { 0 };

        (void) state;
        kept_reset();
        pair.a.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        assert_int_equal(call_start(pair.b.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(pair.all, 2);
        test_peer_free(&pair.a);
        assert_true(call_is_cancelled(kept[0]));
        assert_null(call_peer(kept[0]));
        assert_int_equal(answer_text(kept[0], "late"), -ECANCELED);
        test_settle(pair.all, 2);
        assert_int_equal(answer.n, 1);
        assert_int_equal(answer.status, STATUS_UNAVAILABLE);
        assert_int_equal(pair.b.n_ended, 1);
        assert_int_equal(call_start(pair.b.peer, &parameters, test_done, &answer, NULL), -ESHUTDOWN);
        test_peer_free(&pair.b);
}

static void test_close(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair);
        peer_close(pair.a.peer, STATUS_OK, "enough");
        assert_int_equal(pair.a.n_ended, 1);
        test_settle(pair.all, 2);
        assert_int_equal(pair.b.n_ended, 1);
        assert_int_equal(pair.b.status, STATUS_OK);
        assert_string_equal(pair.b.reason, "enough");
        peer_close(pair.a.peer, STATUS_OK, "again");
        assert_int_equal(pair.a.n_ended, 1);
        pair_close(&pair);
}

static void test_renewal(void **state) {
        CallParameters parameters = { .method = "m", .payload = "p", .size = 1 };
        TestAnswer a = { 0 }, b = { 0 }, again = { 0 };
        Pair pair = { 0 };
        int raw;

        (void) state;
        kept_reset();
        pair.a.on_call = pair.b.on_call = keep;
        pair_open_limits(&pair, NULL, NULL);
        assert_int_equal(peer_take_channel(pair.b.peer, 1, &raw), 0);
        assert_int_equal(peer_take_channel(pair.b.peer, 1, &raw), -EEXIST);
        assert_int_equal(peer_frame_channel(pair.b.peer, 2), 0);
        assert_int_equal(peer_take_channel(pair.b.peer, 2, &raw), -EEXIST);
        assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &a, NULL), 0);
        assert_int_equal(call_start(pair.b.peer, &parameters, test_done, &b, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 2);
        assert_int_equal(peer_renew(pair.b.peer, 5), -EPERM);
        assert_int_equal(peer_renew(pair.a.peer, 5), 0);
        assert_int_equal(peer_renew(pair.a.peer, 5), -ESTALE);
        test_settle(pair.all, 2);
        assert_int_equal(a.status, STATUS_UNAVAILABLE);
        assert_int_equal(b.status, STATUS_UNAVAILABLE);
        assert_int_equal(n_cancelled, 2);
        assert_int_equal(answer_text(kept[0], ""), -ECANCELED);
        assert_int_equal(answer_text(kept[1], ""), -ECANCELED);
        assert_int_equal(pair.a.n_renewed, 1);
        assert_int_equal(pair.b.n_renewed, 1);
        assert_int_equal(peer_remote(pair.a.peer)->instance, 7); /* the runner repeats what it was told */
        fd_close(raw);
        assert_int_equal(peer_take_channel(pair.b.peer, 1, &raw), 0);
        fd_close(raw);

        /* Calls run again, on channel 2 too, which is framed without being asked for again. */
        pair.a.on_call = pair.b.on_call = NULL;
        parameters.channel = 2;
        assert_int_equal(call_start(pair.b.peer, &parameters, test_done, &again, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(again.status, STATUS_OK);
        pair_close(&pair);
}

/* free_in_call() - the worst a handler can do. */
static void free_in_call(Peer *peer, Call *call) {
        kept[n_kept++] = call;
        (void) peer_free(peer);
}

static void test_free_in_callback(void **state) {
        CallParameters parameters = { .method = "m" };
        TestAnswer answer = { 0 };
        Pair pair = { 0 };

        (void) state;
        kept_reset();
        pair.b.on_call = free_in_call;
        pair_open_limits(&pair, NULL, NULL);
        for (int i = 0; i < 3; i++)
                assert_int_equal(call_start(pair.a.peer, &parameters, test_done, &answer, NULL), 0);
        test_settle(pair.all, 2);
        assert_int_equal(n_kept, 1);
        assert_true(pair.b.released);
        assert_int_equal(answer_text(kept[0], ""), -ECANCELED);
        assert_int_equal(answer.n, 3);
        test_peer_free(&pair.a);
}

static const struct CMUnitTest tests[] = {
        TEST(test_hello),       TEST(test_unary_both_ways),  TEST(test_large_memory), TEST(test_before_connect),
        TEST(test_descriptors), TEST(test_any_order),        TEST(test_cancel),       TEST(test_deadlines),
        TEST(test_many),        TEST(test_limits),           TEST(test_peer_gone),    TEST(test_close),
        TEST(test_renewal),     TEST(test_free_in_callback),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

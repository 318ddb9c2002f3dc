/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The protocol's sentences about the lane, each against one real engine and a raw other side, from both sides: what ends
 * the peer, with which words, and what is closed unseen. tests/test-lane.c covers the lane alone; here it matters that
 * the engine acts on it, tells the peer, and leaks nothing. Descriptors of calls: tests/test-protocol-descriptors.c.
 */

#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/peer-internal.h" /* to bring the ids of an epoch close to their end */
#include "tests/peer-host.h"
#include "tests/test.h"

#define CREDIT 4u /* descriptors that the engine under test lets the raw side send */

static const PeerLimits limits = { .fd_credit = CREDIT };

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

/* ---- what ends the peer ---- */

static void send_raw(TestBench *bench, uint64_t id, size_t size, unsigned n) {
        _cleanup_fd_ int fd = open_eventfd();

        test_raw_lane(&bench->raw, id, size, fd, n);
}

static void send_7_bytes(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3), 7, 1);
}

static void send_1_byte(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3), 1, 1);
}

static void send_no_descriptor(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3), 8, 0);
}

static void send_two_descriptors(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3), 8, 2);
}

static void send_five_descriptors(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3), 8, 5);
}

static void send_own_id(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 0, 3) ^ 1, 8, 1);
}

static void send_twice(TestBench *bench) {
        (void) send_fd(bench, 3);
        (void) send_fd(bench, 3);
}

static void send_overdraft(TestBench *bench) {
        for (uint32_t n = 3; n < 3 + CREDIT + 1; n++)
                (void) send_fd(bench, n);
}

static void send_channel_again(TestBench *bench) {
        test_raw_send_channel(&bench->raw, 2, 2);
}

static void send_channel_0_again(TestBench *bench) {
        send_raw(bench, 0, 8, 1);
}

static void send_fourth_channel(TestBench *bench) {
        send_raw(bench, 3, 8, 1);
}

static void send_id_5(TestBench *bench) {
        send_raw(bench, 5, 8, 1);
}

static void send_future_descriptor(TestBench *bench) {
        send_raw(bench, test_raw_fd_id(&bench->raw, 1, 3), 8, 1);
}

static void send_future_channel_1(TestBench *bench) {
        send_raw(bench, UINT64_C(1) << 32 | 1, 8, 1);
}

static void send_renewal(TestBench *bench) {
        send_raw(bench, UINT64_C(1) << 32, 8, 1); /* by who may renew: no stream; by who may not: no renewal */
}

static void send_with_credentials(TestBench *bench) {
        int on = 1;

        assert_int_equal(setsockopt(bench->test.slots[PEER_LANE].fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
        (void) send_fd(bench, 3);
}

static const struct {
        const char *what;
        void (*send)(TestBench *bench);
        const char *fragment[2]; /* by side of the engine */
        Status status;
} violations[] = {
        { "7 bytes", send_7_bytes, { "shorter than an id", "shorter than an id" }, STATUS_INVALID_ARGUMENT },
        { "1 byte", send_1_byte, { "shorter than an id", "shorter than an id" }, STATUS_INVALID_ARGUMENT },
        { "no descriptor",
          send_no_descriptor,
          { "without a descriptor", "without a descriptor" },
          STATUS_INVALID_ARGUMENT },
        { "two descriptors",
          send_two_descriptors,
          { "more than one descriptor", "more than one descriptor" },
          STATUS_INVALID_ARGUMENT },
        { "five descriptors",
          send_five_descriptors,
          { "more than one descriptor", "more than one descriptor" },
          STATUS_INVALID_ARGUMENT },
        { "own side's id",
          send_own_id,
          { "id of the receiver's side", "id of the receiver's side" },
          STATUS_INVALID_ARGUMENT },
        { "unclaimed id again", send_twice, { "still unclaimed", "still unclaimed" }, STATUS_INVALID_ARGUMENT },
        { "overdraft",
          send_overdraft,
          { "than there was credit for", "than there was credit for" },
          STATUS_RESOURCE_EXHAUSTED },
        { "channel again",
          send_channel_again,
          { "channel that is not due", "channel that is not due" },
          STATUS_INVALID_ARGUMENT },
        { "channel 0 again",
          send_channel_0_again,
          { "channel that is not due", "channel that is not due" },
          STATUS_INVALID_ARGUMENT },
        { "fourth channel",
          send_fourth_channel,
          { "channel that is not due", "channel that is not due" },
          STATUS_INVALID_ARGUMENT },
        { "id below the first",
          send_id_5,
          { "channel that is not due", "channel that is not due" },
          STATUS_INVALID_ARGUMENT },
        { "descriptor of a future epoch",
          send_future_descriptor,
          { "no renewal", "no renewal" },
          STATUS_INVALID_ARGUMENT },
        { "channel 1 of a future epoch",
          send_future_channel_1,
          { "no renewal", "no renewal" },
          STATUS_INVALID_ARGUMENT },
        { "renewal", send_renewal, { "no renewal", "no unix stream" }, STATUS_INVALID_ARGUMENT },
        { "credentials",
          send_with_credentials,
          { "foreign control message", "foreign control message" },
          STATUS_INVALID_ARGUMENT },
};

static void test_violations(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(violations); i++)
                for (unsigned side = 0; side <= 1; side++) {
                        TestBench bench = { 0 };

                        test_bench_ready(&bench, &configs[side]);
                        violations[i].send(&bench);
                        test_bench_ended(&bench, violations[i].what, violations[i].status,
                                         violations[i].fragment[side], true);
                        test_bench_close(&bench);
                }
}

/* Two descriptors where one fits: the one that was installed is closed, and the peer ends. */
static void test_surplus_at_the_limit(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };
                unsigned long limit;

                test_bench_ready(&bench, &configs[side]);
                send_two_descriptors(&bench);
                limit = test_limit_fds(1);
                test_bench_settle(&bench);
                test_restore_fds(limit);
                test_bench_ended(&bench, "two, room for one", STATUS_INVALID_ARGUMENT, "more than one", true);
                test_bench_close(&bench);
        }
}

/* Who may renew, from which side: supervisor to runner, a runner's successor to a client. */
static const PeerConfig renewed[] = {
        { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER },
        { .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER },
};

static void test_channel_lost(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                TestBench bench = { 0 };
                unsigned long limit;

                test_bench_ready(&bench, &renewed[side]);
                test_raw_send_channel(&bench.raw, 1, UINT64_C(1) << 32);
                limit = test_limit_fds(0);
                test_bench_settle(&bench);
                test_restore_fds(limit);
                test_bench_ended(&bench, "channel lost", STATUS_RESOURCE_EXHAUSTED,
                                 "lost to the receiver's descriptor limit", true);
                test_bench_close(&bench);
        }
}

static void test_first_channels(void **state) {
        static const struct {
                const char *what;
                uint64_t id;
                bool stream;
                const char *fragment;
        } rows[] = {
                { "channel 1 first", 1, true, "not due" },
                { "no stream", 0, false, "no unix stream" },
                { "a descriptor before the channels is one", 6, false, NULL },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                TestBench bench = { 0 };
                int lane = test_raw_open(&bench.raw, 0);

                bench.all[0] = &bench.test;
                test_peer_new(&bench.test, &configs[1], lane);
                if (rows[i].stream)
                        test_raw_send_channel(&bench.raw, 0, rows[i].id);
                else
                        send_raw(&bench, rows[i].id, 8, 1);
                bench.raw.channels[0] = fd_close(bench.raw.channels[0]);
                if (rows[i].fragment)
                        test_bench_ended(&bench, rows[i].what, STATUS_INVALID_ARGUMENT, rows[i].fragment, false);
                else
                        test_bench_settle(&bench);
                assert_int_equal(bench.test.n_ended, rows[i].fragment ? 1 : 0);
                test_bench_close(&bench);
        }
}

/* A message of a lower epoch is closed unseen, whatever its id. */
static void test_stale_epoch(void **state) {
        static const uint32_t stale[] = { 0, 1, 2, 3, 5, 6, 7, 8 };
        TestBench bench = { 0 };
        int pipe_fds[2];

        (void) state;
        test_bench_ready(&bench, &configs[1]);
        for (unsigned n = 0; n < 3; n++)
                test_raw_send_channel(&bench.raw, n, UINT64_C(2) << 32 | n);
        test_raw_hello(&bench.raw);
        test_bench_settle(&bench);
        assert_int_equal(bench.test.n_renewed, 1);
        assert_int_equal(pipe(pipe_fds), 0);
        for (uint64_t epoch = 0; epoch <= 1; epoch++)
                for (size_t i = 0; i < ARRAY_SIZE(stale); i++)
                        test_raw_lane(&bench.raw, epoch << 32 | stale[i], 8, pipe_fds[1], 1);
        fd_close(pipe_fds[1]);
        test_bench_settle(&bench);
        assert_int_equal(read(pipe_fds[0], &(char){ 0 }, 1), 0); /* nobody holds the other end */
        fd_close(pipe_fds[0]);
        test_bench_alive(&bench, "stale epochs");
        test_bench_close(&bench);
}

/* The sender ends the peer when the ids of an epoch are used up. */
static void test_ids_used_up(void **state) {
        (void) state;
        for (unsigned side = 0; side <= 1; side++) {
                CallParameters parameters = { .method = "m", .n_fds = 2 };
                TestAnswer answer = { 0 };
                TestBench bench = { 0 };
                int fds[2] = { open_eventfd(), open_eventfd() };

                test_bench_ready(&bench, &configs[side]);
                bench.test.peer->lane.next_n = LANE_LAST_N;
                parameters.fds_consume = fds;
                assert_int_equal(call_start(bench.test.peer, &parameters, test_done, &answer, NULL), 0);
                test_bench_ended(&bench, "ids", STATUS_RESOURCE_EXHAUSTED, "all descriptor ids", true);
                assert_int_equal(answer.status, STATUS_UNAVAILABLE);
                test_bench_close(&bench);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_violations),     TEST(test_surplus_at_the_limit), TEST(test_channel_lost),
        TEST(test_first_channels), TEST(test_stale_epoch),          TEST(test_ids_used_up),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

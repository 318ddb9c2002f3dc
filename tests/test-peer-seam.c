/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A whole session between two engines, in which the first, second, third, ... call of a function fails: open, Hello,
 * calls both ways on two channels, large ones and ones with descriptors, renewal, calls again, the end. Whatever fails,
 * nobody crashes, no descriptor is left, and every call that was begun is told its end, once, without waiting for any
 * of the protocol's long time-outs. Without a failure everything is OK.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/peer-host.h"
#include "tests/seam.h"
#include "tests/test.h"

#define CALLS      12 /* per round */
#define LARGE      (300u * 1024u)
#define PATIENCE   (200 * USEC_PER_MSEC) /* that the session may need on the clock, which only moves when all wait */
#define NEVER_MORE 3000u                 /* calls of one function in a session */

typedef struct Session {
        TestPeer a, b, *all[2];
        TestAnswer answers[2 * CALLS];
        bool begun[2 * CALLS];
        unsigned n;
        bool meets;  /* the renewal meets calls that were just begun: they may end UNAVAILABLE */
        bool failed; /* something was reported */
} Session;

static uint8_t large[LARGE];

/* turn() - until all that was begun is told, or nothing happens any more. */
static void turn(Session *session) {
        uint64_t patience = PATIENCE;

        for (;;) {
                uint64_t deadline = USEC_INFINITY, now = clock_us(CLOCK_MONOTONIC);

                test_settle(session->all, 2);
                for (unsigned i = 0; i < 2; i++)
                        if (session->all[i]->peer)
                                deadline = MIN(deadline, peer_deadline(session->all[i]->peer));
                if (deadline == USEC_INFINITY || deadline <= now || deadline - now > patience)
                        return;
                patience -= deadline - now;
                seam_clock_advance(deadline - now);
        }
}

static void start(Session *session, TestPeer *from, unsigned channel, size_t size, unsigned n_fds) {
        static Baton__Pair pair = { .base = PROTOBUF_C_MESSAGE_INIT(&baton__pair__descriptor), .key = (char *) "key" };
        static Baton__Pair *const pairs[] = { &pair };
        CallParameters parameters = { .channel = channel, .method = "m", .payload = large, .size = size };
        int fds[4], r;

        for (unsigned i = 0; i < n_fds; i++)
                assert_true((fds[i] = eventfd(0, EFD_CLOEXEC)) >= 0);
        parameters.fds_consume = fds;
        parameters.n_fds = n_fds;
        parameters.metadata = pairs;
        parameters.n_metadata = ARRAY_SIZE(pairs);
        r = call_start(from->peer, &parameters, test_done, &session->answers[session->n], NULL);
        assert_true(r == 0 || r == -ENOMEM || r == -ESHUTDOWN);
        session->begun[session->n] = r == 0;
        session->failed |= r < 0;
        session->n++;
}

/* round_of_calls() - begun together, so that they meet each other in every queue. */
static void round_of_calls(Session *session) {
        TestPeer *from[] = { &session->a, &session->b };

        for (unsigned i = 0; i < 2; i++) {
                start(session, from[i], CHANNEL_RPC, 10, 0);
                start(session, from[i], CHANNEL_RPC, 10, 3);
                start(session, from[i], CHANNEL_RPC, LARGE, 0);
                start(session, from[i], CHANNEL_DATA, 10, 2);
                start(session, from[i], CHANNEL_DATA, LARGE, 4);
                start(session, from[i], CHANNEL_DATA, 0, 0);
        }
        turn(session);
}

static void check_answers(Session *session, const char *what, unsigned nth) {
        for (unsigned i = 0; i < session->n; i++) {
                TestAnswer *answer = &session->answers[i];

                fd_close_all(answer->fds, answer->n_fds);
                if (session->begun[i] && answer->n != 1)
                        fail_msg("%s %u: call %u was told %u times", what, nth, i, answer->n);
                session->failed |= answer->status != STATUS_OK;
        }
        session->failed |= session->a.n_ended || session->b.n_ended;
}

/* run() - the session, with the seam set already. */
static void run(Session *session, int lane[2], const char *what, unsigned nth, bool meets) {
        static const PeerLimits limits = { .fd_credit = 6 };
        PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits };

        memset(session, 0, sizeof(*session));
        session->meets = meets;
        session->all[0] = &session->a;
        session->all[1] = &session->b;
        if (test_peer_try(&session->a, &config, lane[0]) < 0) {
                session->failed = true;
                fd_close(lane[1]);
                return;
        }
        config = (PeerConfig){ .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = &limits };
        if (test_peer_try(&session->b, &config, lane[1]) < 0) {
                session->failed = true;
                test_peer_free(&session->a);
                return;
        }
        assert_int_equal(peer_frame_channel(session->b.peer, CHANNEL_DATA), 0);
        round_of_calls(session);
        if (peer_renew(session->a.peer, 1) < 0)
                session->failed = true;
        if (!session->meets)
                turn(session);
        round_of_calls(session);
        check_answers(session, what, nth);
        peer_close(session->a.peer, STATUS_OK, "done");
        turn(session);
        assert_true(session->a.n_ended == 1 && session->b.n_ended == 1);
        test_peer_free(&session->a);
        test_peer_free(&session->b);
}

/* each() - fails every call of @call in turn, only that one or all from there on. Returns how many there were. */
static unsigned each_met(SeamCall call, int error, bool from_there, bool meets) {
        static Session session;

        for (unsigned nth = 1; nth < NEVER_MORE; nth++) {
                int before = fd_count(), lane[2];
                unsigned hits;

                seam_reset();
                seam_clock_set(1000 * USEC_PER_SEC);
                assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
                if (from_there)
                        seam_fail_from(call, nth, error);
                else
                        seam_fail(call, nth, error);
                run(&session, lane, seam_name(call), nth, meets);
                hits = seam_hits(call);
                seam_reset();
                if (fd_count() != before)
                        fail_msg("%s %u: %d descriptors before, %d after", seam_name(call), nth, before, fd_count());
                if (hits == 0) {
                        assert_true(meets || !session.failed);
                        return nth - 1;
                }
        }
        fail_msg("%s is called without end", seam_name(call));
        return 0;
}

static unsigned each(SeamCall call, int error, bool from_there) {
        return MIN(each_met(call, error, from_there, false), each_met(call, error, from_there, true));
}

static void test_socketpair(void **state) {
        static const int errors[] = { EMFILE, ENFILE, ENOMEM };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                assert_int_equal(each(SEAM_SOCKETPAIR, errors[i], i % 2), 6);
}

static void test_sendmsg(void **state) {
        static const int errors[] = { EAGAIN, ENOMEM, ENOBUFS };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                assert_true(each(SEAM_SENDMSG, errors[i], false) > 50);
}

static void test_recvmsg(void **state) {
        (void) state;
        /* EAGAIN where there is something to read does not occur: a descriptor that is listed has arrived. */
        assert_true(each(SEAM_RECVMSG, ENOMEM, false) > 50);
        assert_true(each(SEAM_RECVMSG, ENOMEM, true) > 50);
}

static void test_no_malloc(void **state) {
        (void) state;
        assert_true(each(SEAM_MALLOC, ENOMEM, false) > 20);
        assert_true(each(SEAM_MALLOC, ENOMEM, true) > 20);
}

static void test_no_calloc(void **state) {
        (void) state;
        assert_true(each(SEAM_CALLOC, ENOMEM, false) > 20);
        assert_true(each(SEAM_CALLOC, ENOMEM, true) > 20);
}

static void test_no_realloc(void **state) {
        (void) state;
        assert_true(each(SEAM_REALLOC, ENOMEM, false) > 10);
        assert_true(each(SEAM_REALLOC, ENOMEM, true) > 10);
}

static const struct CMUnitTest tests[] = {
        TEST(test_socketpair),         TEST_SLOW(test_sendmsg, 60),   TEST_SLOW(test_recvmsg, 60),
        TEST_SLOW(test_no_malloc, 60), TEST_SLOW(test_no_calloc, 60), TEST_SLOW(test_no_realloc, 60),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The endpoint: two peers on one or two of them, and what the host promises: no system call that changes nothing,
 * deadlines for a wait of its own and for somebody else's, tasks, other descriptors, wake-ups from signal handlers, and
 * peers and descriptors that go while events of theirs are in the batch.
 */

#include "proto/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/seam.h"
#include "tests/test.h"

/* Two ends of a lane. */
typedef struct Pair {
        Endpoint *endpoint; /* of both */
        Peer *server, *client;
        unsigned n_ready, n_calls, n_ended;
        bool free_in_call; /* the server frees both peers from its handler */
} Pair;

static void on_ready(Peer *peer, bool renewed) {
        Pair *pair = peer_userdata(peer);

        (void) renewed;
        pair->n_ready++;
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Pair *pair = peer_userdata(peer);

        (void) status;
        (void) reason;
        pair->n_ended++;
}

static void on_call(Peer *peer, Call *call) {
        Pair *pair = peer_userdata(peer);

        pair->n_calls++;
        if (!pair->free_in_call) {
                (void) call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
                return;
        }
        pair->client = peer_free(pair->client);
        pair->server = peer_free(pair->server);
        (void) call_fail(call, STATUS_ABORTED, "gone");
}

static const PeerHandler handler = { .ready = on_ready, .call = on_call, .ended = on_ended };

static int pair_try(Pair *pair, const PeerLimits *limits) {
        PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .limits = limits };
        int fds[2], r;

        r = fd_socketpair(SOCK_STREAM, fds);
        if (r < 0)
                return r;
        r = endpoint_add_peer(pair->endpoint, &config, fds[0], &handler, pair, &pair->client);
        config.side = 0;
        if (r == 0)
                r = endpoint_add_peer(pair->endpoint, &config, fd_take(&fds[1]), &handler, pair, &pair->server);
        fd_close(fds[1]);
        return r;
}

static void pair_open(Pair *pair) {
        *pair = (Pair){ 0 };
        assert_int_equal(endpoint_new(&pair->endpoint), 0);
        assert_int_equal(pair_try(pair, NULL), 0);
        while (pair->n_ready < 2)
                assert_int_equal(endpoint_dispatch(pair->endpoint, 1000), 0);
}

static void pair_close(Pair *pair) {
        peer_free(pair->client);
        peer_free(pair->server);
        endpoint_free(pair->endpoint);
}

static unsigned n_done;
static Status done_status;

static void on_done(Call *call, const Answer *answer, void *userdata) {
        (void) call;
        (void) userdata;
        n_done++;
        done_status = answer->status;
}

static void call_server(Pair *pair, uint64_t timeout_us) {
        CallParameters parameters = { .method = "anything", .timeout_us = timeout_us };

        assert_int_equal(call_start(pair->client, &parameters, on_done, NULL, NULL), 0);
}

static bool is_readable(int fd, int timeout_ms) {
        return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, timeout_ms) == 1;
}

static void test_call(void **state) {
        unsigned before;
        Pair pair;

        (void) state;
        pair_open(&pair);
        n_done = 0;
        before = seam_count(SEAM_EPOLL_CTL);
        for (unsigned i = 1; i <= 100; i++) {
                call_server(&pair, 0);
                while (n_done < i)
                        assert_int_equal(endpoint_dispatch(pair.endpoint, 1000), 0);
        }
        assert_int_equal(done_status, STATUS_OK);
        /* What is watched did not change. */
        assert_int_equal(seam_count(SEAM_EPOLL_CTL), before);
        pair_close(&pair);
}

/* Both ends' sockets are ready in one batch when the first of them frees both. */
static void test_freed_in_batch(void **state) {
        Pair pair;

        (void) state;
        for (unsigned i = 0; i < 2; i++) {
                CallParameters parameters = { .method = "anything" };

                pair_open(&pair);
                pair.free_in_call = true;
                assert_int_equal(call_start(pair.client, &parameters, NULL, NULL, NULL), 0);
                assert_int_equal(call_start(pair.server, &parameters, NULL, NULL, NULL), 0);
                peer_flush(pair.client);
                peer_flush(pair.server);
                while (pair.server)
                        assert_int_equal(endpoint_dispatch(pair.endpoint, 1000), 0);
                assert_int_equal(pair.n_calls, 1);
                assert_int_equal(endpoint_dispatch(pair.endpoint, 0), 0);
                pair_close(&pair);
        }
}

static void hold(Peer *peer, Call *call) {
        *(Call **) peer_userdata(peer) = call;
}

static const PeerHandler holding = { .call = hold };

/* open_silent() - a server that does not answer, and a call with a deadline of 30 ms. */
static Call *open_silent(Endpoint **ret_endpoint, Peer **ret_client, Peer **ret_server) {
        static Call *held;
        PeerConfig config = { .side = 1, .n_channels = 1 };
        CallParameters parameters = { .method = "anything", .timeout_us = 30000 };
        int fds[2];

        held = NULL;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(endpoint_new(ret_endpoint), 0);
        assert_int_equal(endpoint_add_peer(*ret_endpoint, &config, fds[0], &holding, NULL, ret_client), 0);
        config.side = 0;
        assert_int_equal(endpoint_add_peer(*ret_endpoint, &config, fds[1], &holding, &held, ret_server), 0);
        n_done = 0;
        assert_int_equal(call_start(*ret_client, &parameters, on_done, NULL, NULL), 0);
        while (!held)
                assert_int_equal(endpoint_dispatch(*ret_endpoint, 1000), 0);
        return held;
}

static void test_deadline_of_own_wait(void **state) {
        Endpoint *endpoint;
        Peer *client, *server;
        Call *held;

        (void) state;
        held = open_silent(&endpoint, &client, &server);
        while (n_done == 0)
                assert_int_equal(endpoint_dispatch(endpoint, -1), 0);
        assert_int_equal(done_status, STATUS_DEADLINE_EXCEEDED);
        (void) call_fail(held, STATUS_ABORTED, "late");
        peer_free(client);
        peer_free(server);
        endpoint_free(endpoint);
}

static void test_deadline_of_foreign_wait(void **state) {
        Endpoint *endpoint;
        Peer *client, *server;
        Call *held;

        (void) state;
        held = open_silent(&endpoint, &client, &server);
        while (n_done == 0) {
                assert_true(is_readable(endpoint_fd(endpoint), 5000));
                assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        }
        assert_int_equal(done_status, STATUS_DEADLINE_EXCEEDED);
        (void) call_fail(held, STATUS_ABORTED, "late");
        while (is_readable(endpoint_fd(endpoint), 0))
                assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        peer_free(client);
        peer_free(server);
        endpoint_free(endpoint);
}

static void test_dispatch_timeout(void **state) {
        Endpoint *endpoint;
        uint64_t before = clock_now();

        (void) state;
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_int_equal(endpoint_dispatch(endpoint, 20), 0);
        assert_true(clock_now() - before >= 20000);
        endpoint_free(endpoint);
}

/* With busy polling calls arrive as ever, an idle wait still blocks to its end, and spinning in vain stops by itself. */
static void test_busy_poll(void **state) {
        uint64_t before, idle;
        Pair pair;

        (void) state;
        pair_open(&pair);
        endpoint_set_busy_poll(pair.endpoint, 500);
        n_done = 0;
        for (unsigned i = 1; i <= 100; i++) {
                call_server(&pair, 0);
                while (n_done < i)
                        assert_int_equal(endpoint_dispatch(pair.endpoint, 1000), 0);
        }
        before = clock_now();
        assert_int_equal(endpoint_dispatch(pair.endpoint, 20), 0);
        assert_true(clock_now() - before >= 20000);
        /* 500 us, 250, ... 1, 0: from then on a wait costs two readings of the clock. */
        for (unsigned i = 0; i < 10; i++)
                assert_int_equal(endpoint_dispatch(pair.endpoint, 1), 0);
        seam_reset();
        assert_int_equal(endpoint_dispatch(pair.endpoint, 5), 0);
        idle = seam_count(SEAM_CLOCK_GETTIME);
        assert_true(idle <= 4);
        endpoint_set_busy_poll(pair.endpoint, 0);
        seam_reset();
        assert_int_equal(endpoint_dispatch(pair.endpoint, 5), 0);
        assert_int_equal(seam_count(SEAM_CLOCK_GETTIME), 0);
        pair_close(&pair);
}

/* ---- tasks ---- */

typedef struct Counter {
        EndpointTask task;
        Endpoint *endpoint;
        struct Counter *other; /* cancelled by this one */
        unsigned n;
        bool again;
} Counter;

static void count(EndpointTask *task) {
        Counter *counter = CONTAINER_OF(task, Counter, task);

        counter->n++;
        assert_int_equal(endpoint_dispatch(counter->endpoint, 0), -EBUSY);
        if (counter->other)
                endpoint_cancel(counter->endpoint, &counter->other->task);
        if (counter->again)
                endpoint_defer(counter->endpoint, task);
}

/* What calls back before the wait, since it was asked for outside of a turn, may be all that its caller waits for. */
static void test_told_before_the_wait(void **state) {
        static uint8_t payload[9 * 1024 * 1024]; /* more than the peer takes: told locally */
        CallParameters parameters = { .method = "large", .payload = payload, .size = sizeof(payload) };
        Counter counter = { .task = ENDPOINT_TASK_NULL(count) };
        Pair pair;

        (void) state;
        pair_open(&pair);
        counter.endpoint = pair.endpoint;
        endpoint_defer(pair.endpoint, &counter.task);
        while (counter.n == 0)
                assert_int_equal(endpoint_dispatch(pair.endpoint, -1), 0);
        n_done = 0;
        assert_int_equal(call_start(pair.client, &parameters, on_done, NULL, NULL), 0);
        while (n_done == 0)
                assert_int_equal(endpoint_dispatch(pair.endpoint, -1), 0);
        assert_int_equal(done_status, STATUS_RESOURCE_EXHAUSTED);
        pair_close(&pair);
}

static void test_tasks(void **state) {
        Counter a = { .task = ENDPOINT_TASK_NULL(count) }, b = a;
        Endpoint *endpoint;

        (void) state;
        assert_int_equal(endpoint_new(&endpoint), 0);
        a.endpoint = b.endpoint = endpoint;
        endpoint_defer(endpoint, &a.task);
        endpoint_defer(endpoint, &a.task);
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_int_equal(a.n, 1);
        endpoint_defer(endpoint, &a.task);
        endpoint_cancel(endpoint, &a.task);
        endpoint_cancel(endpoint, &a.task);
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_int_equal(a.n, 1);

        /* One cancels the other, the last of the round. */
        a.other = &b;
        endpoint_defer(endpoint, &a.task);
        endpoint_defer(endpoint, &b.task);
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_int_equal(a.n, 2);
        assert_int_equal(b.n, 0);

        /* One that never rests does not keep the turn from ending, nor the next from waiting for nothing. */
        a.other = NULL;
        a.again = true;
        endpoint_defer(endpoint, &a.task);
        assert_int_equal(endpoint_dispatch(endpoint, -1), 0);
        assert_true(is_readable(endpoint_fd(endpoint), 0));
        endpoint_cancel(endpoint, &a.task);
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_false(is_readable(endpoint_fd(endpoint), 0));
        endpoint_defer(endpoint, &b.task);
        assert_true(is_readable(endpoint_fd(endpoint), 0));
        assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        assert_int_equal(b.n, 1);
        endpoint_free(endpoint);
}

/* ---- other descriptors ---- */

typedef struct Watched {
        Endpoint *endpoint;
        int fds[2];
        unsigned n;
} Watched;

/* stop_both() - whichever is ready first stops both: the other's event must not arrive. */
static void stop_both(int fd, void *userdata) {
        Watched *watched = userdata;

        assert_true(fd == watched->fds[0] || fd == watched->fds[1]);
        watched->n++;
        assert_int_equal(endpoint_watch(watched->endpoint, watched->fds[0], NULL, NULL), 0);
        assert_int_equal(endpoint_watch(watched->endpoint, watched->fds[1], NULL, NULL), 0);
}

static void test_watch(void **state) {
        Watched watched = { .n = 0 };
        int file;

        (void) state;
        assert_int_equal(endpoint_new(&watched.endpoint), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, watched.fds), 0);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(endpoint_watch(watched.endpoint, watched.fds[i], stop_both, &watched), 0);
                assert_int_equal(endpoint_watch(watched.endpoint, watched.fds[i], stop_both, &watched), 0);
                assert_int_equal(write(watched.fds[i], "x", 1), 1);
        }
        assert_int_equal(endpoint_dispatch(watched.endpoint, 1000), 0);
        assert_int_equal(watched.n, 1);
        assert_int_equal(endpoint_dispatch(watched.endpoint, 0), 0);
        assert_int_equal(watched.n, 1);

        file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        assert_int_equal(endpoint_watch(watched.endpoint, file, stop_both, &watched), -EPERM);
        assert_int_equal(endpoint_watch(watched.endpoint, file, NULL, NULL), 0);
        fd_close(file);
        assert_int_equal(endpoint_watch(watched.endpoint, watched.fds[0], stop_both, &watched), 0);
        endpoint_free(watched.endpoint);
        fd_close_all(watched.fds, 2);
}

/* ---- wake-ups ---- */

static Endpoint *waiting;

static void on_signal(int number) {
        (void) number;
        endpoint_wake(waiting);
}

static int signal_parent(void *argument) {
        (void) argument;
        return kill(getppid(), SIGUSR1);
}

/* Whether the signal comes before the wait or during it, the wait ends. */
static void test_wake(void **state) {
        struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
        pid_t pid;

        (void) state;
        assert_int_equal(endpoint_new(&waiting), 0);
        endpoint_wake(waiting);
        assert_int_equal(endpoint_dispatch(waiting, -1), 0);
        assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
        pid = test_child(signal_parent, NULL);
        assert_int_equal(endpoint_dispatch(waiting, -1), 0);
        assert_int_equal(test_child_wait(pid), 0);
        (void) signal(SIGUSR1, SIG_DFL);
        endpoint_free(waiting);
}

/* ---- failures ---- */

static int open_and_close(void *argument) {
        Pair pair = { 0 };
        int r = endpoint_new(&pair.endpoint);

        (void) argument;
        if (r == 0)
                r = pair_try(&pair, NULL);
        pair_close(&pair);
        return r;
}

static void test_failures(void **state) {
        (void) state;
        assert_int_equal(seam_each(SEAM_EPOLL_CREATE1, EMFILE, open_and_close, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_TIMERFD_CREATE, EMFILE, open_and_close, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_EVENTFD, EMFILE, open_and_close, NULL, 0), 1);
        assert_true(seam_each(SEAM_SOCKETPAIR, EMFILE, open_and_close, NULL, 0) >= 2);
        assert_true(seam_each(SEAM_CALLOC, ENOMEM, open_and_close, NULL, 0) >= 5);
}

/* A descriptor of a peer's that cannot be watched ends this peer, and is said. */
static void test_cannot_watch(void **state) {
        Pair pair = { 0 };

        (void) state;
        assert_int_equal(endpoint_new(&pair.endpoint), 0);
        seam_fail_always(SEAM_EPOLL_CTL, ENOSPC);
        assert_int_equal(pair_try(&pair, NULL), 0);
        assert_int_equal(endpoint_dispatch(pair.endpoint, 0), 0);
        assert_int_equal(pair.n_ended, 2);
        seam_pass(SEAM_EPOLL_CTL);
        assert_int_equal(endpoint_dispatch(pair.endpoint, 0), 0);
        pair_close(&pair);
}

static const struct CMUnitTest tests[] = {
        TEST(test_call),
        TEST(test_freed_in_batch),
        TEST(test_deadline_of_own_wait),
        TEST(test_deadline_of_foreign_wait),
        TEST(test_dispatch_timeout),
        TEST(test_busy_poll),
        TEST(test_told_before_the_wait),
        TEST(test_tasks),
        TEST(test_watch),
        TEST(test_wake),
        TEST(test_failures),
        TEST(test_cannot_watch),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

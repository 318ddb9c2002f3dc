/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The relay: what goes along in both directions, cancellation, every order of the runner's two ends (its connection's, its
 * process's), and shortage of memory. Streams: test-relay-stream.c.
 */

#include "tests/relay-fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/seam.h"

static void test_there_and_back(void **state) {
        const Heard *heard;
        int fds[2];
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        fixture_call(&f, 0, "echo", 5 * USEC_PER_SEC, fds[0]);
        heard = fixture_answer(&f, 0);
        assert_int_equal(heard->status, STATUS_OK);
        assert_int_equal(heard->size, 7);
        assert_memory_equal(heard->payload, "payload", 7);
        assert_string_equal(heard->type, "test.Type");
        assert_string_equal(heard->key, "key");
        assert_int_equal(heard->n_fds, 1);
        assert_int_equal(send(heard->fd, "x", 1, 0), 1);
        assert_true(test_readable(fds[1]));
        assert_true(f.left > 0 && f.left <= 5 * USEC_PER_SEC);
        fd_close(heard->fd);
        fd_close(fds[1]);
        fixture_call(&f, 1, "echo", 0, -1);
        (void) fixture_answer(&f, 1);
        assert_true(f.left == USEC_INFINITY);
        fixture_close(&f);
}

/* buffer_call() - a large payload, as the client's side of libbaton makes it. */
static const Heard *buffer_call(Fixture *f, unsigned n, size_t size) {
        CallParameters parameters = { .channel = CHANNEL_RPC, .method = "buffer" };
        size_t room;

        assert_int_equal(peer_buffer_new(f->client, size, &parameters.buffer), 0);
        memset(peer_buffer_data(parameters.buffer, &room), 'x', size);
        (void) fixture_start(f, n, &parameters);
        return fixture_answer(f, n);
}

/* A sealed object passes through, unseen, both ways; a client that takes none gets the bytes, as far as a frame goes. */
static void test_objects(void **state) {
        static const size_t large = 20u << 20, fits = 2u << 20;
        const PeerLimits small = { .max_object = fits };
        const Heard *heard;
        Fixture f;

        (void) state;
        fixture_open_objects(&f, NULL, PEER_OBJECTS_MAP);
        (void) fixture_call(&f, 0, "echo", 0, -1); /* for its Hello */
        (void) fixture_answer(&f, 0);
        heard = buffer_call(&f, 1, large);
        assert_int_equal(heard->status, STATUS_OK);
        assert_int_equal(heard->size, large);
        assert_true(heard->shared && f.heard_shared);
        assert_int_equal(heard->payload[0], 'x');
        fixture_close(&f);

        fixture_open_objects(&f, NULL, PEER_OBJECTS_NONE);
        (void) fixture_call(&f, 0, "echo", 0, -1);
        (void) fixture_answer(&f, 0);
        heard = buffer_call(&f, 1, fits);
        assert_int_equal(heard->status, STATUS_OK);
        assert_int_equal(heard->size, fits);
        assert_true(!heard->shared &&
                    f.heard_shared); /* the request was an object, the answer could not go on as one */
        fixture_close(&f);

        fixture_open_objects(&f, &small, PEER_OBJECTS_MAP);
        (void) fixture_call(&f, 0, "echo", 0, -1);
        (void) fixture_answer(&f, 0);
        heard = buffer_call(&f, 1, large);
        assert_int_equal(heard->status, STATUS_RESOURCE_EXHAUSTED);
        assert_non_null(
                strstr(heard->message, "20971520 bytes, the peer accepts frames of 8388608 and objects of 2097152"));
        assert_int_equal(buffer_call(&f, 2, fits)->status, STATUS_OK);
        fixture_close(&f);
}

static void test_status_and_details(void **state) {
        const Heard *heard;
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "fail", 0, -1);
        heard = fixture_answer(&f, 0);
        assert_int_equal(heard->status, STATUS_NOT_FOUND);
        assert_string_equal(heard->message, "not there");
        assert_string_equal(heard->detail, "test.Detail");
        fixture_close(&f);
}

static void test_cancelled_by_the_client(void **state) {
        Call *held;
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        held = fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        call_cancel(held);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        fixture_call(&f, 1, "echo", 0, -1);
        assert_int_equal(fixture_answer(&f, 1)->status, STATUS_OK);
        fixture_close(&f);
}

static void test_client_is_gone(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        f.client = peer_free(f.client);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        assert_int_equal(f.heard[0].n, 0);
        fixture_close(&f);
}

static void test_deadline(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 20000, -1);
        assert_int_equal(fixture_answer(&f, 0)->status, STATUS_DEADLINE_EXCEEDED);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        fixture_close(&f);
}

static void assert_segfault(const Heard *heard) {
        static const char died[] = "runner test.1: killed by signal 11 (SIGSEGV)";

        assert_int_equal(heard->status, STATUS_UNAVAILABLE);
        assert_false(heard->local);
        assert_memory_equal(heard->message, died, strlen(died)); /* how its connection ended may follow */
        assert_string_equal(heard->detail, "baton.control.RunnerEnded");
        assert_int_equal(heard->exit.how, EXIT_SIGNALED);
        assert_int_equal(heard->exit.status, SIGSEGV);
}

/* The lane's end is seen first: the answer waits for the report, and for nothing else. */
static void test_connection_ends_first(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        fixture_call(&f, 1, "drop", 0, -1);
        fixture_run_for(&f, 20000);
        assert_int_equal(f.heard[0].n, 0);
        assert_null(f.instance->peer);
        fixture_die(&f);
        assert_segfault(fixture_answer(&f, 0));
        assert_segfault(fixture_answer(&f, 1));
        fixture_close(&f);
}

static void test_report_comes_first(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        fixture_die(&f);
        fixture_drop_program(&f);
        assert_segfault(fixture_answer(&f, 0));
        fixture_close(&f);
}

/* Somebody has inherited the channels: their end never comes. */
static void test_connection_stays(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        fixture_die(&f);
        assert_segfault(fixture_answer(&f, 0));
        fixture_close(&f);
}

static void test_process_stays(void **state) {
        const Heard *heard;
        uint64_t before;
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        before = clock_now();
        fixture_call(&f, 0, "drop", 0, -1);
        heard = fixture_answer(&f, 0);
        assert_true(clock_now() - before >= USEC_PER_SEC / 2);
        assert_int_equal(heard->status, STATUS_UNAVAILABLE);
        assert_non_null(strstr(heard->message, "runner test.1: "));
        assert_non_null(strstr(heard->message, "lane"));
        fixture_close(&f);
}

/* While the answer waits for the report, the client cancels, or goes. */
static void test_cancelled_while_waiting(void **state) {
        (void) state;
        for (int gone = 0; gone < 2; gone++) {
                Call *dropped;
                Fixture f;

                fixture_open(&f, NULL);
                dropped = fixture_call(&f, 0, "drop", 0, -1);
                while (f.instance->peer)
                        fixture_run_for(&f, 1000);
                if (gone)
                        f.client = peer_free(f.client);
                else
                        call_cancel(dropped);
                fixture_run_for(&f, 10000);
                assert_true(LIST_EMPTY(&f.instance->on_exit));
                fixture_die(&f);
                fixture_run_for(&f, 10000);
                assert_int_equal(f.heard[0].n, 0);
                fixture_close(&f);
        }
}

static void test_not_callable(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        f.instance->state = PROCESS_STOPPING;
        fixture_call(&f, 0, "echo", 0, -1);
        assert_int_equal(fixture_answer(&f, 0)->status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(f.heard[0].message, "runner test.1: is stopping");
        f.instance->state = PROCESS_UP;
        f.instance->config->ready = CONFIG_READY_NONE;
        fixture_call(&f, 1, "echo", 0, -1);
        assert_int_equal(fixture_answer(&f, 1)->status, STATUS_FAILED_PRECONDITION);
        f.instance->config->ready = CONFIG_READY_HELLO;
        fixture_drop_program(&f);
        fixture_die(&f);
        fixture_run_for(&f, 10000);
        assert_true(f.instance->over);
        fixture_call(&f, 2, "echo", 0, -1);
        assert_int_equal(fixture_answer(&f, 2)->status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(f.heard[2].message, "runner test.1: is not running: killed by signal 11 (SIGSEGV)");
        fixture_close(&f);
}

static void test_no_memory(void **state) {
        (void) state;
        for (unsigned nth = 1; nth <= 2; nth++) {
                int fds[2];
                Fixture f;

                fixture_open(&f, NULL);
                f.fail_calloc = nth;
                assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
                fixture_call(&f, 0, "echo", 0, fds[0]);
                assert_int_equal(fixture_answer(&f, 0)->status, STATUS_RESOURCE_EXHAUSTED);
                assert_true(test_readable(fds[1])); /* its end: nobody kept the other */
                fd_close(fds[1]);
                f.fail_calloc = 0;
                fixture_call(&f, 1, "echo", 0, -1);
                assert_int_equal(fixture_answer(&f, 1)->status, STATUS_OK);
                fixture_close(&f);
        }
}

/* The supervisor ends with calls open in every state: nothing is called back into what is gone. */
static void test_freed_with_calls_open(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f, NULL);
        fixture_call(&f, 0, "hold", 0, -1);
        fixture_until_held(&f);
        fixture_call(&f, 1, "drop", 0, -1);
        while (f.instance->peer)
                fixture_run_for(&f, 1000);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_there_and_back),
        TEST(test_status_and_details),
        TEST(test_cancelled_by_the_client),
        TEST(test_client_is_gone),
        TEST(test_deadline),
        TEST(test_connection_ends_first),
        TEST(test_report_comes_first),
        TEST(test_connection_stays),
        TEST(test_process_stays),
        TEST(test_cancelled_while_waiting),
        TEST(test_not_callable),
        TEST(test_no_memory),
        TEST(test_freed_with_calls_open),
        TEST(test_objects),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

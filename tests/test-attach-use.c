/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libbaton's client half with the built programs, in all the ways of using it: streams, other threads, waiting inside a
 * handler, somebody else's loop, and being called by the runner.
 */

#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/attach-fixture.h"

/* ---- a stream, both ways ---- */

enum { ITEMS = 1000, ITEM_SIZE = 4096 };

typedef struct Stream {
        struct baton_request *request;
        unsigned to_send, received, n_waits;
        int stop; /* takes nothing */
        int over;
        enum baton_status status;
} Stream;

static void send_items(void *userdata) {
        static char item[ITEM_SIZE];
        Stream *stream = userdata;
        int r = 0;

        while (stream->to_send > 0 && r == 0) {
                r = baton_request_send(stream->request, "", item, sizeof(item));
                stream->to_send -= r == 0;
        }
        stream->n_waits += r == -EAGAIN;
        if (stream->to_send == 0)
                (void) baton_request_end(stream->request);
}

static int take_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;

        if (stream->stop)
                return 1;
        stream->received += item->size == ITEM_SIZE;
        return 0;
}

static void stream_over(const struct baton_answer *answer, void *userdata) {
        Stream *stream = userdata;

        stream->over = 1;
        stream->status = answer->status;
}

static void open_stream(AttachFixture *f, Stream *stream) {
        struct baton_call_parameters call = attach_call("bidi", "", 0);

        call.stream = 1;
        call.on_item = take_item;
        call.on_writable = send_items;
        assert_int_equal(baton_connection_call(f->connection, &call, stream_over, stream, &stream->request), 0);
        send_items(stream);
}

static void set_up_streams(AttachFixture *f) {
        struct baton_start_parameters parameters = { .size = sizeof(parameters) };
        char path[4096];

        (void) snprintf(path, sizeof(path), "%s/tests/stream-runner", getenv("BATON_LIBEXEC"));
        parameters.program = path;
        attach_start(f, &parameters);
        assert_int_equal(baton_client_attach(f->client, f->started.name, 0, &f->connection), 0);
}

static void test_stream(void **state) {
        Stream stream = { .to_send = ITEMS };
        AttachFixture f;

        (void) state;
        set_up_streams(&f);
        open_stream(&f, &stream);
        while (!stream.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(stream.status, BATON_OK);
        assert_int_equal(stream.received, ITEMS);
        assert_true(stream.n_waits > 0); /* more than a window was under way */
        attach_tear_down(&f);
}

/* What had come from a runner that dies is there to be taken, and then the end. */
static void test_stream_of_a_runner_that_dies(void **state) {
        Stream stream = { .to_send = 10, .stop = 1 }, other = { .to_send = 1 };
        AttachFixture f;

        (void) state;
        set_up_streams(&f);
        open_stream(&f, &stream);
        open_stream(&f, &other); /* its end says that the items before it are here */
        while (!other.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(baton_client_signal(f.client, f.started.name, SIGKILL), 0);
        assert_int_equal(baton_client_stop(f.client, f.started.name, 0, NULL), 0);
        stream.stop = 0;
        baton_request_resume(stream.request);
        while (!stream.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(stream.received, 10);
        attach_tear_down(&f);
}

/* ---- threads, and who may wait where ---- */

static void *start_in_thread(void *argument) {
        attach_set_up(argument);
        return NULL;
}

static void test_thread_that_started_it_ends(void **state) {
        pthread_t thread;
        AttachFixture f;

        (void) state;
        assert_int_equal(pthread_create(&thread, NULL, start_in_thread, &f), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(baton_client_dispatch(f.client, 0), 0);
        for (unsigned i = 0; i < 100; i++)
                attach_assert_echo(f.connection, "it lives on");
        assert_int_equal(kill(f.started.pid, 0), 0);
        attach_tear_down(&f);
}

static void *interrupt(void *argument) {
        baton_client_interrupt(argument);
        return NULL;
}

static void test_interrupted(void **state) {
        AttachNumber delay = attach_number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = attach_call_with("echo.Echo/Sleep", delay);
        struct baton_answer *answer;
        pthread_t thread;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        for (unsigned i = 0; i < 20; i++) {
                assert_int_equal(pthread_create(&thread, NULL, interrupt, f.client), 0);
                assert_int_equal(baton_connection_call_wait(f.connection, &call, &answer), -EINTR);
                assert_null(answer);
                assert_int_equal(pthread_join(thread, NULL), 0);
        }
        baton_client_interrupt(f.client);
        assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        attach_assert_echo(f.connection, "goes on");
        free(delay.data);
        attach_tear_down(&f);
}

static void wait_within(const struct baton_answer *answer, void *userdata) {
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", "", 0);
        struct baton_answer *inner;
        AttachFixture *f = userdata;

        (void) answer;
        assert_int_equal(baton_connection_call_wait(f->connection, &call, &inner), -EBUSY);
        assert_int_equal(baton_client_stop(f->client, f->started.name, 0, NULL), -EBUSY);
        assert_int_equal(baton_client_dispatch(f->client, 0), -EBUSY);
        f->started.pid = 0;
}

static void test_waiting_in_a_handler(void **state) {
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", "", 0);
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        assert_int_equal(baton_connection_call(f.connection, &call, wait_within, &f, NULL), 0);
        while (f.started.pid)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        attach_assert_echo(f.connection, "still up");
        attach_tear_down(&f);
}

/* ---- in somebody else's loop ---- */

typedef struct Foreign {
        unsigned step;
        char name[64];
        struct baton_connection *connection;
} Foreign;

static void foreign_stopped(struct baton_client *client, int result, const struct baton_stopped *stopped,
                            void *userdata) {
        Foreign *foreign = userdata;

        (void) client;
        assert_int_equal(result, 0);
        assert_int_equal(stopped->exit.how, BATON_EXIT_EXITED);
        foreign->step++;
}

static void foreign_answered(const struct baton_answer *answer, void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(answer->status, BATON_OK);
        foreign->step++;
}

static void foreign_attached(struct baton_client *client, int result, struct baton_connection *connection,
                             void *userdata) {
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", "foreign", 7);
        Foreign *foreign = userdata;

        (void) client;
        assert_int_equal(result, 0);
        foreign->connection = connection;
        assert_int_equal(baton_connection_call(connection, &call, foreign_answered, foreign, NULL), 0);
        foreign->step++;
}

static void foreign_started(struct baton_client *client, int result, const struct baton_started *started,
                            void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(result, 0);
        (void) snprintf(foreign->name, sizeof(foreign->name), "%s", started->name);
        assert_int_equal(baton_client_begin_attach(client, started->name, 0, foreign_attached, foreign), 0);
        foreign->step++;
}

static void foreign_refused(struct baton_client *client, int result, struct baton_connection *connection,
                            void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(result, BATON_NOT_FOUND);
        assert_null(connection);
        assert_non_null(strstr(baton_client_failure(client)->message, "nobody"));
        foreign->step++;
}

static void run_foreign(struct baton_client *client, const Foreign *foreign, unsigned step) {
        while (foreign->step < step) {
                struct pollfd p = { .fd = baton_client_fd(client), .events = POLLIN };

                assert_int_equal(poll(&p, 1, 10000), 1);
                assert_int_equal(baton_client_dispatch(client, 0), 0);
        }
}

static void test_foreign_loop(void **state) {
        struct baton_start_parameters parameters = attach_parameters();
        struct baton_client *client;
        Foreign foreign = { 0 };

        (void) state;
        assert_int_equal(baton_client_new_private(&client, NULL), 0);
        assert_int_equal(baton_client_begin_start(client, &parameters, foreign_started, &foreign), 0);
        run_foreign(client, &foreign, 3);
        assert_int_equal(baton_client_begin_attach(client, "nobody", 0, foreign_refused, &foreign), 0);
        run_foreign(client, &foreign, 4);
        assert_int_equal(baton_client_begin_stop(client, foreign.name, 0, foreign_stopped, &foreign), 0);
        run_foreign(client, &foreign, 5);
        baton_client_free(client);
}

/* What was begun and never ended is forgotten. */
static void test_freed_in_the_middle(void **state) {
        struct baton_start_parameters parameters = attach_parameters();
        struct baton_client *client;
        Foreign foreign = { 0 };

        (void) state;
        assert_int_equal(baton_client_new_private(&client, NULL), 0);
        assert_int_equal(baton_client_begin_start(client, &parameters, foreign_started, &foreign), 0);
        assert_int_equal(baton_client_begin_attach(client, "x", 0, foreign_refused, &foreign), 0);
        baton_client_free(client);
        assert_int_equal(foreign.step, 0);
}

/* ---- called by the runner ---- */

static void served(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        assert_non_null(baton_call_connection(call));
        ++*(unsigned *) userdata;
        (void) baton_call_answer(call, "served", data, size);
}

typedef struct Heard {
        Status status;
        uint8_t data[256];
        size_t size;
} Heard;

static void heard(Call *call, const Answer *answer, void *userdata) {
        Heard *h = userdata;

        (void) call;
        h->status = answer->status;
        h->size = MIN(answer->size, sizeof(h->data));
        if (h->size > 0)
                memcpy(h->data, answer->payload, h->size);
}

/* A runner at the other end of a lane is played here, by an engine peer in the same loop. */
static Peer *play_runner(AttachFixture *f) {
        static const PeerHandler none = { 0 };
        const PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_SELF };
        struct baton_connection *connection;
        int lane[2];
        Peer *peer;

        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        assert_int_equal(attached_new(f->client, lane[0], &connection), 0);
        assert_int_equal(endpoint_add_peer(f->client->endpoint, &config, lane[1], &none, NULL, &peer), 0);
        return peer;
}

/* runner_asks() - the client, and waits for what it answers. */
static Heard runner_asks(AttachFixture *f, Peer *peer, const char *method, const char *data, size_t size) {
        const CallParameters call = { .method = method, .payload = (const uint8_t *) data, .size = size };
        Heard h = { .status = _STATUS_N };

        assert_int_equal(call_start(peer, &call, heard, &h, NULL), 0);
        while (h.status == _STATUS_N)
                assert_int_equal(baton_client_dispatch(f->client, -1), 0);
        return h;
}

static void test_served(void **state) {
        static const struct {
                const char *method;
                bool fallback;
                Status status;
        } rows[] = {
                { "mine", false, STATUS_OK },
                { "yours", false, STATUS_UNIMPLEMENTED },
                { "yours", true, STATUS_OK },
                { "baton.Runner/Ping", true, STATUS_OK },
                { "baton.Runner/Stop", true, STATUS_UNIMPLEMENTED },
        };
        unsigned n_served = 0;
        Peer *peer;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        assert_int_equal(baton_client_add_method(f.client, "mine", served, &n_served), 0);
        assert_int_equal(baton_client_add_method(f.client, "mine", served, &n_served), -EEXIST);
        assert_int_equal(baton_client_add_method(f.client, "baton.Mine", served, &n_served), -EPERM);
        assert_int_equal(baton_client_add_method(f.client, "", served, &n_served), -EINVAL);
        peer = play_runner(&f);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                baton_client_set_default(f.client, rows[i].fallback ? served : NULL, &n_served);
                assert_int_equal(runner_asks(&f, peer, rows[i].method, NULL, 0).status, rows[i].status);
        }
        assert_int_equal(n_served, 2);
        (void) peer_free(peer);
        attach_tear_down(&f);
}

static void assert_health(AttachFixture *f, Peer *peer, const char *service, unsigned expected) {
        char request[64] = { 0x0a, (char) strlen(service) };
        Heard h;

        memcpy(request + 2, service, strlen(service));
        h = runner_asks(f, peer, "baton.Health/Check", request, strlen(service) + 2);
        assert_int_equal(h.status, STATUS_OK);
        assert_int_equal(h.size, 2);
        assert_int_equal(h.data[1], expected); /* HealthResponse.status */
}

/* What a client tells of itself. */
static void test_inspected(void **state) {
        enum { SERVING = 1, NOT_SERVING = 2 };
        unsigned n_served = 0;
        AttachFixture f;
        Peer *peer;
        Heard h;

        (void) state;
        attach_set_up(&f);
        peer = play_runner(&f);
        h = runner_asks(&f, peer, "baton.Reflection/List", NULL, 0);
        assert_int_equal(h.status, STATUS_OK);
        assert_int_equal(h.size, 0);
        assert_int_equal(runner_asks(&f, peer, "baton.Health/Check", "\x0a\x04Mine", 6).status, STATUS_NOT_FOUND);
        assert_int_equal(runner_asks(&f, peer, "baton.Health/Check", "\xff", 1).status, STATUS_INVALID_ARGUMENT);
        assert_int_equal(baton_client_add_method(f.client, "Mine/Do", served, &n_served), 0);
        assert_int_equal(baton_client_describe_method(f.client, "Yours/Do", "", "", 0), -ENOENT);
        assert_int_equal(baton_client_describe_method(f.client, "Mine/Do", "\xff", "", 0), -EINVAL);
        assert_int_equal(baton_client_describe_method(f.client, "Mine/Do", "", "", 64), -EINVAL);
        assert_int_equal(
                baton_client_describe_method(f.client, "Mine/Do", "my.Request", NULL, BATON_METHOD_CLIENT_STREAMS), 0);
        h = runner_asks(&f, peer, "baton.Reflection/List", NULL, 0);
        assert_int_equal(h.size, 27);
        assert_memory_equal(h.data, "\x0a\x19\x0a\x07Mine/Do\x10\x01\x1a\x0amy.Request\x28\x01", 27);
        assert_health(&f, peer, "", SERVING);
        assert_health(&f, peer, "Mine", SERVING);
        assert_int_equal(baton_client_set_health(f.client, "\xff", 0), -EINVAL);
        assert_int_equal(baton_client_set_health(f.client, NULL, 0), 0);
        assert_int_equal(baton_client_set_health(f.client, "Other", 1), 0);
        assert_health(&f, peer, "", NOT_SERVING);
        assert_health(&f, peer, "Mine", NOT_SERVING);
        assert_health(&f, peer, "Other", SERVING);
        assert_int_equal(n_served, 0);
        (void) peer_free(peer);
        attach_tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_stream),
        TEST(test_stream_of_a_runner_that_dies),
        TEST(test_thread_that_started_it_ends),
        TEST(test_interrupted),
        TEST(test_waiting_in_a_handler),
        TEST(test_foreign_loop),
        TEST(test_freed_in_the_middle),
        TEST(test_served),
        TEST(test_inspected),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

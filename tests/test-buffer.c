/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Buffers of libbaton: two connections of one loop, as client and runner have them once attached. Large data goes and comes
 * without a copy in calls, items and answers; what is taken is kept, beyond its callback and its connection; misuse is
 * refused.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "proto/handle.h"
#include "tests/test.h"

#define LARGE ((size_t) 1 << 20)

typedef struct Pair {
        Endpoint *endpoint;
        Handles *handles;
        Connection *client, *runner;
} Pair;

static struct baton_buffer *taken[8];
static unsigned n_taken;
static bool take;

static void fill(struct baton_buffer *buffer, int byte) {
        size_t size;
        void *data = baton_buffer_data(buffer, &size);

        memset(data, byte, size);
}

static void check(struct baton_buffer *buffer, size_t expected, int byte) {
        size_t size;
        const uint8_t *data = baton_buffer_data(buffer, &size);

        assert_int_equal(size, expected);
        assert_true(size == 0 || (data[0] == byte && data[size - 1] == byte));
}

/* echo() - answers what came, from a buffer of its own; on the way, as an item, too. */
static void echo(struct baton_call *call, void *userdata) {
        struct baton_connection *connection = baton_call_connection(call);
        struct baton_buffer *answer, *item;
        size_t size, room;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        assert_int_equal(baton_buffer_new(connection, size, &answer), 0);
        assert_int_equal(baton_buffer_new(connection, size, &item), 0);
        memcpy(baton_buffer_data(answer, &room), data, size);
        memcpy(baton_buffer_data(item, &room), data, size);
        if (take) {
                taken[n_taken] = baton_call_take_data(call);
                assert_non_null(taken[n_taken++]);
                assert_int_equal(baton_call_send_buffer(call, taken[n_taken - 1]), -EINVAL); /* received */
        }
        if (strcmp(baton_call_method(call), "stream") == 0)
                assert_int_equal(baton_call_send_buffer(call, item), 0);
        else
                baton_buffer_free(item);
        (void) baton_call_answer_buffer(call, answer);
}

static void on_call(Connection *connection, Call *call) {
        connection_accept(connection, call, echo, NULL);
}

static const ConnectionHandler handler = { .call = on_call };

static void pair_open(Pair *pair) {
        PeerConfig config = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER, .share = true };
        int fds[2];

        *pair = (Pair){ 0 };
        n_taken = 0;
        take = false;
        assert_int_equal(endpoint_new(&pair->endpoint), 0);
        assert_int_equal(handles_new(&pair->handles, pair->endpoint, NULL, NULL), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(connection_new(&pair->client, pair->handles, &config, fds[0], &handler, NULL), 0);
        config.side = 1;
        config.renewal = LANE_RENEWAL_SELF;
        assert_int_equal(connection_new(&pair->runner, pair->handles, &config, fds[1], &handler, NULL), 0);
}

static void pair_close(Pair *pair) {
        (void) connection_free(pair->client);
        (void) connection_free(pair->runner);
        (void) handles_free(pair->handles);
        (void) endpoint_free(pair->endpoint);
}

typedef struct Heard {
        unsigned n, n_items;
        size_t size;
        int first;
} Heard;

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Heard *heard = userdata;

        assert_int_equal(answer->status, BATON_OK);
        heard->n++;
        heard->size = answer->size;
        heard->first = answer->size ? *(const uint8_t *) answer->data : -1;
        if (take) {
                taken[n_taken] = baton_answer_take_data(answer);
                assert_non_null(taken[n_taken++]);
        }
}

static int on_item(const struct baton_item *item, void *userdata) {
        Heard *heard = userdata;

        heard->n_items++;
        if (take) {
                taken[n_taken] = baton_item_take_data(item);
                assert_non_null(taken[n_taken++]);
        }
        return 0;
}

static void call_with(Pair *pair, const char *method, size_t size, int byte) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = method, .on_item = on_item };
        Heard heard = { 0 };

        assert_int_equal(baton_buffer_new(pair->client, size, &parameters.buffer), 0);
        fill(parameters.buffer, byte);
        assert_int_equal(baton_connection_call(pair->client, &parameters, on_answer, &heard, NULL), 0);
        while (heard.n == 0)
                assert_int_equal(handles_dispatch(pair->handles, 1000), 0);
        assert_int_equal(heard.size, size);
        assert_int_equal(heard.first, size ? byte : -1);
        assert_int_equal(heard.n_items, strcmp(method, "stream") == 0);
}

static void test_round_trips(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair);
        for (int i = 0; i < 300; i++) {
                call_with(&pair, "echo", LARGE, 'a' + i % 26); /* far more than the arenas hold: they come back */
                call_with(&pair, "echo", (size_t) i, 'z');
        }
        pair_close(&pair);
}

static void test_taken(void **state) {
        Pair pair;

        (void) state;
        pair_open(&pair);
        call_with(&pair, "stream", 200000,
                  '1'); /* arenas are announced on both sides; an item fits the window inline */
        call_with(&pair, "stream", LARGE, '2');
        take = true;
        call_with(&pair, "stream", LARGE, '3');
        call_with(&pair, "echo", 100, '4');
        take = false;
        assert_int_equal(n_taken, 5);
        for (int i = 0; i < 20; i++)
                call_with(&pair, "echo", LARGE, 'x'); /* what was taken is not used again */
        for (unsigned i = 0; i < 3; i++)
                check(taken[i], LARGE, '3');
        check(taken[3], 100, '4');
        baton_buffer_free(taken[0]);
        assert_int_equal(baton_buffer_trim(taken[1], 1), -EINVAL);
        pair_close(&pair);
        for (unsigned i = 1; i < 3; i++)
                check(taken[i], LARGE, '3');
        for (unsigned i = 1; i < n_taken; i++)
                baton_buffer_free(taken[i]);
}

static void test_misuse(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters) };
        struct baton_buffer *buffer;
        size_t size;
        Pair pair;

        (void) state;
        pair_open(&pair);
        assert_int_equal(baton_buffer_new(pair.client, 100, &buffer), 0);
        assert_int_equal(baton_buffer_trim(buffer, 101), -ERANGE);
        assert_int_equal(baton_buffer_trim(buffer, 99), 0);
        (void) baton_buffer_data(buffer, &size);
        assert_int_equal(size, 99);
        parameters.buffer = buffer; /* taken, although there is no method */
        assert_int_equal(baton_connection_call(pair.client, &parameters, on_answer, NULL, NULL), -EINVAL);
        assert_int_equal(baton_buffer_new(pair.client, LARGE, &buffer), 0);
        pair_close(&pair);
        fill(buffer, 'o'); /* it outlives its connection */
        baton_buffer_free(buffer);
        baton_buffer_free(NULL);
}

static const struct CMUnitTest tests[] = { TEST(test_round_trips), TEST(test_taken), TEST(test_misuse) };

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Streams between two peers of the engine: all three kinds, both directions, credit, stalls, ends. */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/peer-host.h"
#include "tests/test.h"

typedef struct Pair {
        TestPeer a, b;
        TestPeer *all[2];
} Pair;

static void pair_open(Pair *pair, const PeerLimits *limits, void (*on_call)(Peer *, Call *)) {
        PeerConfig config = { .side = 0, .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = limits };
        int fds[2];

        memset(pair, 0, sizeof(*pair));
        pair->all[0] = &pair->a;
        pair->all[1] = &pair->b;
        pair->b.on_call = on_call;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        test_peer_new(&pair->a, &config, fds[0]);
        config = (PeerConfig){ .side = 1, .n_channels = 3, .renewal = LANE_RENEWAL_PEER, .limits = limits };
        test_peer_new(&pair->b, &config, fds[1]);
        test_settle(pair->all, 2);
}

static void pair_close(Pair *pair) {
        test_peer_free(&pair->a);
        test_peer_free(&pair->b);
}

/* One end of a stream as a test sees it. */
typedef struct End {
        Call *call;
        TestAnswer answer;
        unsigned n_items, n_writable, n_cancelled;
        uint64_t bytes;
        uint32_t next; /* number expected in the next item */
        bool stop;     /* do not take */
        bool ended;    /* half-closed */
        int fd;
} End;

static bool on_item(Call *call, const Item *item, void *userdata) {
        End *end = userdata;
        uint32_t number;

        (void) call;
        if (end->stop)
                return false;
        if (!item->bare) {
                assert_true(item->size >= sizeof(number));
                memcpy(&number, item->payload, sizeof(number));
                assert_int_equal(number, end->next++);
                end->n_items++;
                end->bytes += item->size;
        }
        if (item->n_fds > 0)
                end->fd = fd_take(&item->fds[0]);
        end->ended |= item->end;
        return true;
}

static void on_writable(Call *call, void *userdata) {
        (void) call;
        ((End *) userdata)->n_writable++;
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        End *end = userdata;

        test_done(call, answer, &end->answer);
        end->call = NULL;
}

static void on_cancel(Call *call, void *userdata) {
        (void) call;
        ((End *) userdata)->n_cancelled++;
}

/* The callee's ends, in order of the calls. */
static End callee[128];
static unsigned n_callees;

static void serve(Peer *peer, Call *call) {
        End *end = &callee[n_callees++];

        (void) peer;
        assert_true(n_callees <= ARRAY_SIZE(callee));
        end->call = call;
        end->fd = -1;
        call_on_stream(call, on_item, on_writable, end);
        call_on_cancel(call, on_cancel, end);
}

static void callees_reset(void) {
        memset(callee, 0, sizeof(callee));
        n_callees = 0;
}

static void open_stream(Peer *peer, End *end, bool stream) {
        CallParameters parameters = {
                .method = "m",
                .stream = stream,
                .item = on_item,
                .writable = on_writable,
        };

        *end = (End){ .fd = -1 };
        assert_int_equal(call_start(peer, &parameters, on_done, end, &end->call), 0);
}

static int send_number(Call *call, uint32_t number, size_t size) {
        static uint8_t payload[300000];

        memcpy(payload, &number, sizeof(number));
        return call_send(call, &(ItemParameters){ .payload = payload, .size = size, .type = "t.N" });
}

static int answer(End *end, const char *text) {
        Call *call = TAKE_PTR(end->call);

        return call_answer(call, &(AnswerParameters){ .payload = text, .size = strlen(text) });
}

/* send_many() - items from *@next until @n, turning when it is told to wait. */
static void send_many(Pair *pair, End *end, uint32_t n, size_t size) {
        for (uint32_t i = 0; i < n;) {
                unsigned before = end->n_writable;
                int r = send_number(end->call, i, size);

                if (r == 0) {
                        i++;
                        continue;
                }
                assert_int_equal(r, -EAGAIN);
                test_until(pair->all, 2, &end->n_writable, before + 1);
        }
        test_settle(pair->all, 2);
}

static void test_kinds(void **state) {
        Pair pair;
        End end;

        (void) state;
        /* Client stream, many times the window. */
        callees_reset();
        pair_open(&pair, NULL, serve);
        open_stream(pair.a.peer, &end, true);
        send_many(&pair, &end, 500, 10000);
        assert_int_equal(callee[0].n_items, 500);
        assert_true(call_takes_items(callee[0].call));
        assert_int_equal(call_end(end.call), 0);
        assert_int_equal(call_end(end.call), -EPIPE);
        assert_int_equal(send_number(end.call, 0, 8), -EPIPE);
        test_settle(pair.all, 2);
        assert_true(callee[0].ended);
        assert_false(call_takes_items(callee[0].call));
        assert_int_equal(answer(&callee[0], "sum"), 0);
        test_settle(pair.all, 2);
        assert_int_equal(end.answer.n, 1);
        assert_memory_equal(end.answer.payload, "sum", 3);

        /* Server stream. */
        open_stream(pair.a.peer, &end, false);
        test_settle(pair.all, 2);
        assert_int_equal(call_end(callee[1].call), -EINVAL);
        send_many(&pair, &callee[1], 500, 10000);
        assert_int_equal(end.n_items, 500);
        assert_int_equal(answer(&callee[1], "done"), 0);
        test_settle(pair.all, 2);
        assert_int_equal(end.answer.status, STATUS_OK);

        /* Both ways at once, from the other side of the connection. */
        pair.a.on_call = serve;
        open_stream(pair.b.peer, &end, true);
        test_settle(pair.all, 2);
        for (uint32_t i = 0; i < 20; i++) {
                assert_int_equal(send_number(end.call, i, 1000), 0);
                assert_int_equal(send_number(callee[2].call, i, 1000), 0);
        }
        assert_int_equal(call_end(end.call), 0);
        assert_int_equal(answer(&callee[2], ""), 0);
        test_settle(pair.all, 2);
        assert_int_equal(end.n_items, 20);
        assert_int_equal(end.answer.n, 1);
        pair_close(&pair);
}

/* One reader stops; its stream alone stalls; what it was sent, the answer too,
 * comes when it goes on. */
static void test_stall(void **state) {
        Pair pair;
        End stopped, other;
        uint32_t n = 0;

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        open_stream(pair.a.peer, &stopped, false);
        open_stream(pair.a.peer, &other, false);
        test_settle(pair.all, 2);
        stopped.stop = true;
        while (send_number(callee[0].call, n, 10000) == 0) {
                n++;
                test_settle(pair.all, 2);
        }
        assert_int_equal(n, 256 * 1024 / (10000 + 64));
        assert_int_equal(callee[0].n_writable, 0);
        send_many(&pair, &callee[1], 200, 10000);
        assert_int_equal(other.n_items, 200);
        assert_int_equal(answer(&callee[0], "end"), 0);
        test_settle(pair.all, 2);
        assert_int_equal(stopped.answer.n, 0);
        stopped.stop = false;
        call_resume(stopped.call);
        assert_int_equal(stopped.n_items, 0);
        test_settle(pair.all, 2);
        assert_int_equal(stopped.n_items, n);
        assert_int_equal(stopped.answer.n, 1);
        assert_memory_equal(stopped.answer.payload, "end", 3);
        assert_int_equal(answer(&callee[1], ""), 0);
        test_settle(pair.all, 2);
        pair_close(&pair);
}

/* The sender answers and is gone; the receiver had stopped. Nothing that was
 * sent is lost. */
static void test_answer_outlives_peer(void **state) {
        Pair pair;
        End end;

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        open_stream(pair.a.peer, &end, false);
        test_settle(pair.all, 2);
        end.stop = true;
        for (uint32_t i = 0; i < 5; i++)
                assert_int_equal(send_number(callee[0].call, i, 100), 0);
        assert_int_equal(answer(&callee[0], "last"), 0);
        peer_flush(pair.b.peer);
        test_peer_free(&pair.b);
        test_settle(pair.all, 1);
        assert_int_equal(pair.a.n_ended, 1);
        assert_int_equal(end.answer.n, 0);
        end.stop = false;
        call_resume(end.call);
        test_settle(pair.all, 1);
        assert_int_equal(end.n_items, 5);
        assert_int_equal(end.answer.status, STATUS_OK);
        assert_memory_equal(end.answer.payload, "last", 4);
        test_peer_free(&pair.a);
}

/* Items that came before the peer's end, and no answer: they are delivered, then the call fails. */
static void test_items_outlive_peer(void **state) {
        (void) state;
        for (int cancelled = 0; cancelled < 2; cancelled++) {
                End end, other;
                Pair pair;

                callees_reset();
                pair_open(&pair, NULL, serve);
                open_stream(pair.a.peer, &end, false);
                open_stream(pair.a.peer, &other, false);
                test_settle(pair.all, 2);
                end.stop = true;
                for (uint32_t i = 0; i < 5; i++)
                        assert_int_equal(send_number(callee[0].call, i, 100), 0);
                peer_flush(pair.b.peer);
                test_peer_free(&pair.b);
                test_settle(pair.all, 1);
                assert_int_equal(pair.a.n_ended, 1);
                assert_int_equal(other.answer.status, STATUS_UNAVAILABLE);
                assert_int_equal(end.answer.n, 0);
                assert_int_equal(call_send(end.call, &(ItemParameters){ .payload = "", .size = 0 }), -ECANCELED);
                end.stop = false;
                call_resume(end.call);
                if (cancelled)
                        call_cancel(end.call);
                test_settle(pair.all, 1);
                assert_int_equal(end.n_items, cancelled ? 0 : 5);
                assert_int_equal(end.answer.n, cancelled ? 0 : 1);
                if (!cancelled) {
                        assert_int_equal(end.answer.status, STATUS_UNAVAILABLE);
                        assert_true(end.answer.local && *end.answer.message);
                }
                test_peer_free(&pair.a);
                for (unsigned i = 0; i < 2; i++)
                        assert_int_equal(answer(&callee[i], ""), -ECANCELED);
        }
}

static void test_half_close_waits(void **state) {
        Pair pair;
        End end;

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        /* Before the CALL itself is written. */
        open_stream(pair.a.peer, &end, true);
        assert_int_equal(call_end(end.call), 0);
        test_settle(pair.all, 2);
        assert_true(callee[0].ended);
        assert_int_equal(answer(&callee[0], ""), 0);
        test_settle(pair.all, 2);
        assert_int_equal(end.answer.status, STATUS_OK);
        pair_close(&pair);
}

static void test_descriptors(void **state) {
        Pair pair;
        End end;
        int fds[2], copy;

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        open_stream(pair.a.peer, &end, true);
        test_settle(pair.all, 2);
        assert_int_equal(pipe(fds), 0);
        for (uint32_t i = 0; i < 100; i++) {
                ItemParameters item = { .payload = &i, .size = sizeof(i), .fds_consume = &copy, .n_fds = 1 };
                unsigned before = end.n_writable;

                copy = fd_dup(fds[0]);
                if (call_send(end.call, &item) == -EAGAIN) {
                        test_until(pair.all, 2, &end.n_writable, before + 1);
                        assert_int_equal(call_send(end.call, &item), 0);
                }
                /* Behind one with a descriptor: wait, so that nothing overtakes. */
                assert_int_equal(send_number(end.call, 0, 8), -EAGAIN);
                test_settle(pair.all, 2);
                assert_true(test_same_file(callee[0].fd, fds[0]));
                callee[0].fd = fd_close(callee[0].fd);
        }
        copy = fd_dup(fds[0]);
        assert_int_equal(call_send(callee[0].call, &(ItemParameters){ .payload = (uint32_t[]){ 0 },
                                                                      .size = 4,
                                                                      .fds_consume = &copy,
                                                                      .n_fds = 1 }),
                         0);
        assert_int_equal(answer(&callee[0], "after"), 0); /* follows the item that waits for the lane */
        test_settle(pair.all, 2);
        assert_int_equal(end.n_items, 1);
        assert_int_equal(end.answer.n, 1);
        assert_true(test_same_file(end.fd, fds[0]));
        fd_close(end.fd);
        fd_close_all(fds, 2);
        pair_close(&pair);
}

static void test_ends(void **state) {
        PeerLimits limits = { .stream_window = 65536, .max_memory = 3 * 65536 };
        Pair pair;
        End end, more[3];

        (void) state;
        callees_reset();
        pair_open(&pair, &limits, serve);

        /* Larger than the window: never. */
        open_stream(pair.a.peer, &end, true);
        test_settle(pair.all, 2);
        assert_int_equal(send_number(end.call, 0, 65536), -EMSGSIZE);
        assert_int_equal(send_number(end.call, 0, 65536 - 64), 0);
        test_settle(pair.all, 2);
        assert_int_equal(callee[0].n_items, 1);

        /* Cancelled: the callee learns of it, sends no more. */
        call_cancel(end.call);
        test_settle(pair.all, 2);
        assert_int_equal(callee[0].n_cancelled, 1);
        assert_int_equal(send_number(callee[0].call, 0, 8), -ECANCELED);
        assert_int_equal(answer(&callee[0], ""), -ECANCELED);

        /* Windows are reserved: the fourth stream is refused, and there is room again
   * when one has ended. */
        for (size_t i = 0; i < 3; i++)
                open_stream(pair.a.peer, &more[i], true);
        open_stream(pair.a.peer, &end, true);
        test_settle(pair.all, 2);
        assert_int_equal(end.answer.status, STATUS_RESOURCE_EXHAUSTED);
        assert_int_equal(answer(&callee[1], ""), 0);
        test_settle(pair.all, 2);
        open_stream(pair.a.peer, &end, true);
        test_settle(pair.all, 2);
        assert_int_equal(end.answer.n, 0);

        /* The callee is gone. */
        test_peer_free(&pair.b);
        test_settle(pair.all, 1);
        assert_int_equal(end.answer.status, STATUS_UNAVAILABLE);
        test_peer_free(&pair.a);
        for (unsigned i = 2; i < n_callees; i++)
                assert_int_equal(answer(&callee[i], ""), -ECANCELED);
}

static void test_deadline(void **state) {
        CallParameters parameters = { .method = "m", .stream = true, .item = on_item, .timeout_us = 20000 };
        Pair pair;
        End end = { .fd = -1 };

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        assert_int_equal(call_start(pair.a.peer, &parameters, on_done, &end, &end.call), 0);
        test_until(pair.all, 2, &end.answer.n, 1);
        assert_int_equal(end.answer.status, STATUS_DEADLINE_EXCEEDED);
        test_until(pair.all, 2, &callee[0].n_cancelled, 1);
        assert_int_equal(send_number(callee[0].call, 0, 8), -ECANCELED);
        assert_int_equal(answer(&callee[0], ""), -ECANCELED);
        test_settle(pair.all, 2);
        pair_close(&pair);
}

/* One stopped reader among a hundred. */
static void test_head_of_line(void **state) {
        static End ends[101];
        Pair pair;

        (void) state;
        callees_reset();
        pair_open(&pair, NULL, serve);
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
                open_stream(pair.a.peer, &ends[i], false);
        test_settle(pair.all, 2);
        ends[0].stop = true;
        for (uint32_t n = 0; n < 60; n++) {
                for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
                        int r = send_number(callee[i].call, n, 8192);

                        if (i == 0)
                                assert_true(r == 0 || r == -EAGAIN);
                        else
                                assert_int_equal(r, 0);
                }
                test_settle(pair.all, 2);
        }
        assert_int_equal(ends[0].n_items, 0);
        for (size_t i = 1; i < ARRAY_SIZE(ends); i++)
                assert_int_equal(ends[i].bytes, 60 * 8192);
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
                assert_int_equal(answer(&callee[i], ""), 0);
        pair_close(&pair);
}

static const struct CMUnitTest tests[] = {
        TEST(test_kinds),
        TEST(test_stall),
        TEST(test_answer_outlives_peer),
        TEST(test_items_outlive_peer),
        TEST(test_half_close_waits),
        TEST(test_descriptors),
        TEST(test_ends),
        TEST(test_deadline),
        TEST(test_head_of_line),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

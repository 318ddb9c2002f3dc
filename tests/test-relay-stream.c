/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Streams through the relay: all three kinds, descriptors, half-close; a reader that stops stops its producer at the far
 * end; items that one side cannot take; every end in the middle of it: cancelled, past the deadline, the client's, the
 * runner's with items still to be delivered, the supervisor's.
 */

#include "tests/relay-fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/seam.h"

enum { ITEM_SIZE = 8192, WINDOW = 256 * 1024 };

/* One end of a stream: what it is to send, and what it has got. */
typedef struct End {
        Fixture *f;
        Call *call;
        bool caller;
        uint32_t to_send, sent, received;
        bool end;  /* half-close, or answer, after the last */
        bool echo; /* every item goes back as it came */
        bool stop; /* takes nothing */
        bool half_closed, blocked;
        unsigned n_cancelled, n_resumed;
        int fd; /* goes with the first; or came with one */
} End;

static Fixture fixture;
static End client, program;

static void finish(End *end) {
        end->end = false;
        if (end->caller)
                assert_int_equal(call_end(end->call), 0);
        else
                assert_int_equal(call_answer(TAKE_PTR(end->call), &(AnswerParameters){ .type = "test.End" }), 0);
}

/* send_all() - as far as it goes. */
static void send_all(End *end) {
        static uint8_t payload[ITEM_SIZE];

        while (end->call && end->sent < end->to_send) {
                ItemParameters item = { .type = "test.Item", .payload = payload, .size = sizeof(payload) };
                int r;

                memcpy(payload, &end->sent, sizeof(end->sent));
                item.fds_consume = &end->fd;
                item.n_fds = end->fd >= 0 && end->sent == 0;
                r = call_send(end->call, &item);
                end->blocked = r == -EAGAIN;
                if (r < 0)
                        assert_true(r == -EAGAIN || r == -ECANCELED);
                if (r < 0)
                        return;
                if (item.n_fds > 0)
                        end->fd = -1;
                end->sent++;
        }
        if (end->call && end->end)
                finish(end);
}

static void writable(Call *call, void *userdata) {
        End *end = userdata;

        (void) call;
        end->n_resumed++;
        if (end->echo)
                call_resume(end->call);
        else
                send_all(end);
}

/* echo() - false: not now. */
static bool echo(End *end, const Item *item) {
        const ItemParameters parameters = {
                .type = item->envelope->type,
                .payload = item->payload,
                .size = item->size,
                .fds_consume = item->fds,
                .n_fds = item->n_fds,
        };
        int r = item->bare ? 0 : call_send(end->call, &parameters);

        assert_true(r == 0 || r == -EAGAIN);
        for (size_t i = 0; r == 0 && i < item->n_fds; i++)
                item->fds[i] = -1;
        if (r == 0 && item->end)
                finish(end);
        return r == 0;
}

static bool take(Call *call, const Item *item, void *userdata) {
        End *end = userdata;
        uint32_t number;

        (void) call;
        loop_stop(end->f->loop);
        if (end->stop || (end->echo && !echo(end, item)))
                return false;
        end->half_closed |= item->end;
        if (item->bare)
                return true;
        assert_string_equal(item->envelope->type, "test.Item");
        assert_int_equal(item->size, ITEM_SIZE);
        memcpy(&number, item->payload, sizeof(number));
        assert_int_equal(number, end->received++);
        if (item->n_fds > 0 && item->fds[0] >= 0)
                end->fd = fd_take(&item->fds[0]);
        return true;
}

static void cancelled(Call *call, void *userdata) {
        End *end = userdata;

        end->n_cancelled++;
        end->call = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
        loop_stop(end->f->loop);
}

static void serve(Call *call) {
        program.call = call;
        fixture.held = call; /* for whoever drops the program */
        call_on_cancel(call, cancelled, &program);
        call_on_stream(call, take, writable, &program);
        send_all(&program);
        loop_stop(fixture.loop);
}

static void set_up(const PeerLimits *limits, const End *as_client, const End *as_program) {
        fixture_open(&fixture, limits);
        fixture.stream = serve;
        client = *as_client;
        program = *as_program;
        client.caller = true;
        client.f = program.f = &fixture;
        if (client.fd == 0)
                client.fd = -1;
        if (program.fd == 0)
                program.fd = -1;
}

/* What the client hears, with its stream's userdata: into fixture.heard[0]. */
static void heard(Call *call, const Answer *answer, void *userdata) {
        End *end = userdata;
        Heard *first = &end->f->heard[0];
        const Baton__Envelope *envelope = answer->envelope;

        (void) call;
        end->call = NULL;
        first->n++;
        first->status = answer->status;
        first->local = answer->local;
        (void) snprintf(first->message, sizeof(first->message), "%s", answer->message);
        (void) snprintf(first->type, sizeof(first->type), "%s", envelope->type);
        if (envelope->n_details > 0)
                (void) snprintf(first->detail, sizeof(first->detail), "%s", envelope->details[0]->type);
        loop_stop(end->f->loop);
}

static void open_stream(uint64_t timeout_us) {
        const CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "stream",
                .timeout_us = timeout_us,
                .stream = client.to_send > 0 || client.end,
                .item = take,
                .writable = writable,
        };

        assert_int_equal(call_start(fixture.client, &parameters, heard, &client, &client.call), 0);
        send_all(&client);
}

/* settle() - until nothing moves any more: the loop turns, and no counter changes. */
static void settle(void) {
        for (unsigned idle = 0; idle < 3;) {
                uint32_t before = client.sent + client.received + program.sent + program.received +
                                  fixture.heard[0].n + client.n_resumed + program.n_resumed;

                fixture_run_for(&fixture, 2000);
                idle = before == client.sent + client.received + program.sent + program.received + fixture.heard[0].n +
                                               client.n_resumed + program.n_resumed
                               ? idle + 1
                               : 0;
        }
}

static void tear_down(void) {
        if (!program.call)
                fixture.held = NULL;
        fixture_close(&fixture);
        client.fd = fd_close(client.fd);
        program.fd = fd_close(program.fd);
}

static void assert_answered(Status status) {
        assert_int_equal(fixture_answer(&fixture, 0)->status, status);
}

/* ---- what goes along ---- */

static void test_kinds(void **state) {
        static const struct {
                uint32_t up, down;
                bool echo;
        } rows[] = { { 0, 200, false }, { 200, 0, false }, { 150, 150, false }, { 200, 0, true }, { 0, 1, false } };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                set_up(NULL, &(End){ .to_send = rows[i].up, .end = rows[i].up > 0 },
                       &(End){ .to_send = rows[i].down, .echo = rows[i].echo, .end = rows[i].up == 0 });
                open_stream(0);
                settle();
                assert_int_equal(program.received, rows[i].up);
                assert_int_equal(program.half_closed, rows[i].up > 0);
                if (program.call)
                        finish(&program);
                assert_answered(STATUS_OK);
                assert_string_equal(fixture.heard[0].type, "test.End");
                assert_int_equal(client.received, rows[i].echo ? rows[i].up : rows[i].down);
                tear_down();
        }
}

static void test_descriptors(void **state) {
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        set_up(NULL, &(End){ .to_send = 1, .end = true, .fd = fds[0] }, &(End){ .echo = true });
        open_stream(0);
        assert_answered(STATUS_OK);
        assert_true(client.fd >= 0);
        assert_int_equal(send(client.fd, "x", 1, 0), 1);
        assert_true(test_readable(fds[1]));
        tear_down();
        assert_int_equal(recv(fds[1], (char[2]){ 0 }, 2, 0), 1);
        assert_int_equal(recv(fds[1], (char[2]){ 0 }, 2, 0), 0); /* nobody keeps a copy */
        fd_close(fds[1]);
}

/* ---- a reader that stops ---- */

/* What is between two ends: two windows, and what the engines have unsent. */
#define BETWEEN_MAX (2 * WINDOW / ITEM_SIZE)

static void test_client_stops(void **state) {
        (void) state;
        set_up(NULL, &(End){ .stop = true }, &(End){ .to_send = 1000, .end = true });
        open_stream(0);
        settle();
        assert_true(program.blocked);
        assert_true(program.sent > 0 && program.sent <= BETWEEN_MAX);
        fixture_call(&fixture, 1, "echo", 0, -1); /* and nobody else waits */
        assert_int_equal(fixture_answer(&fixture, 1)->status, STATUS_OK);
        client.stop = false;
        call_resume(client.call);
        assert_answered(STATUS_OK);
        assert_int_equal(client.received, 1000);
        tear_down();
}

static void test_runner_stops(void **state) {
        (void) state;
        set_up(NULL, &(End){ .to_send = 1000, .end = true }, &(End){ .stop = true });
        open_stream(0);
        settle();
        assert_true(client.blocked);
        assert_true(client.sent > 0 && client.sent <= BETWEEN_MAX);
        program.stop = false;
        call_resume(program.call);
        settle();
        assert_int_equal(program.received, 1000);
        assert_true(program.half_closed);
        finish(&program);
        assert_answered(STATUS_OK);
        tear_down();
}

static void test_item_too_large(void **state) {
        static uint8_t payload[100000];
        const PeerLimits limits = { .stream_window = 65536, .max_object = 70000 };

        (void) state;
        set_up(&limits, &(End){ .to_send = 1, .sent = 1 }, &(End){ .stop = false });
        open_stream(0);
        settle();
        assert_int_equal(call_send(client.call, &(ItemParameters){ .payload = payload, .size = sizeof(payload) }), 0);
        assert_answered(STATUS_RESOURCE_EXHAUSTED);
        assert_string_equal(
                fixture.heard[0].message,
                "runner test.1: an item of 100000 bytes and 0 descriptors; the runner accepts 65536, objects of "
                "70000, and 64");
        settle();
        assert_int_equal(program.n_cancelled, 1);
        tear_down();
}

/* ---- ends ---- */

static void test_cancelled(void **state) {
        (void) state;
        for (int how = 0; how < 3; how++) {
                set_up(NULL, &(End){ .to_send = 1000, .stop = how > 0 }, &(End){ .to_send = 1000, .stop = true });
                open_stream(how == 2 ? 200000 : 0);
                settle();
                assert_true(client.blocked);
                if (how == 0)
                        call_cancel(TAKE_PTR(client.call));
                else if (how == 1)
                        fixture.client = peer_free(fixture.client);
                while (program.n_cancelled == 0)
                        loop_run(fixture.loop);
                if (how == 2)
                        assert_answered(STATUS_DEADLINE_EXCEEDED);
                assert_int_equal(program.n_cancelled, 1);
                assert_true(LIST_EMPTY(&fixture.instance->relays));
                tear_down();
        }
}

static void let_go(void) {
        client.stop = false;
        call_resume(client.call);
}

/* What had come is delivered, then the end is told; in both orders of the runner's two ends. */
static void test_runner_dies(void **state) {
        (void) state;
        for (int order = 0; order < 3; order++) {
                uint32_t sent;

                set_up(NULL, &(End){ .stop = true }, &(End){ .to_send = 20 });
                open_stream(0);
                settle();
                assert_int_equal(program.sent, 20);
                sent = program.sent;
                program.call = NULL;
                if (order == 0)
                        fixture_die(&fixture);
                fixture_drop_program(&fixture);
                settle();
                if (order == 1)
                        fixture_die(&fixture);
                settle();
                assert_int_equal(fixture.heard[0].n, 0);
                let_go();
                if (order == 2) {
                        settle();
                        fixture_die(&fixture);
                }
                assert_answered(STATUS_UNAVAILABLE);
                assert_string_equal(fixture.heard[0].detail, "baton.control.RunnerEnded");
                assert_non_null(strstr(fixture.heard[0].message, "SIGSEGV"));
                assert_int_equal(client.received, sent);
                assert_null(fixture.instance->ended_peer);
                tear_down();
        }
}

/* More than the client's window has come: a part of it still waits in the runner's peer when that ends. */
static void test_runner_dies_far_ahead(void **state) {
        (void) state;
        for (int answered = 0; answered < 2; answered++)
                for (int end = 0; end < 3; end++) {
                        set_up(NULL, &(End){ .stop = true }, &(End){ .to_send = answered ? 50 : 1000 });
                        open_stream(0);
                        settle();
                        if (answered)
                                finish(&program);
                        settle();
                        program.call = NULL;
                        if (answered)
                                fixture.held = NULL;
                        fixture_drop_program(&fixture);
                        fixture_die(&fixture);
                        settle();
                        assert_non_null(fixture.instance->ended_peer);
                        assert_true(fixture.instance->over);
                        if (end == 0) {
                                let_go();
                                assert_answered(answered ? STATUS_OK : STATUS_UNAVAILABLE);
                                assert_int_equal(client.received, program.sent);
                                assert_null(fixture.instance->ended_peer);
                        } else if (end == 1) {
                                call_cancel(TAKE_PTR(client.call));
                                settle();
                                assert_null(fixture.instance->ended_peer);
                        }
                        tear_down(); /* or the supervisor ends */
                }
}

static void test_no_memory(void **state) {
        (void) state;
        set_up(NULL, &(End){ .stop = true }, &(End){ .to_send = 1000, .end = true });
        open_stream(0);
        settle();
        client.stop = false;
        seam_fail_from(SEAM_MALLOC, 1, ENOMEM);
        call_resume(client.call);
        settle();
        seam_pass(SEAM_MALLOC);
        settle(); /* whatever became of it: nothing hangs, nothing leaks */
        tear_down();
}

static const struct CMUnitTest tests[] = {
        TEST(test_kinds),        TEST(test_descriptors),           TEST(test_client_stops),
        TEST(test_runner_stops), TEST(test_item_too_large),        TEST(test_cancelled),
        TEST(test_runner_dies),  TEST(test_runner_dies_far_ahead), TEST(test_no_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Streams through libbaton, both ways, against an engine peer at the supervisor's end of the lane; and calls that are made
 * for other calls.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/runner-fixture.h"

#define MANY      5000u
#define ITEM_SIZE 200u

/* ---- the supervisor's end of a stream ---- */

/* What it sends and what it gets; numbers, in order. */
typedef struct Wire {
        Call *call;
        Result result;
        uint32_t sent, to_send;   /* items */
        uint32_t received, taken; /* shown, and taken */
        bool refuse;              /* not now */
        bool ends;                /* half-closes after the last */
        unsigned n_fds;
        size_t size;
} Wire;

static bool wire_item(Call *call, const Item *item, void *userdata) {
        Wire *wire = userdata;
        uint32_t number;

        (void) call;
        wire->received++;
        if (wire->refuse)
                return false;
        if (item->bare)
                return true;
        assert_true(item->size >= sizeof(number));
        memcpy(&number, item->payload, sizeof(number));
        assert_int_equal(number, wire->taken);
        wire->taken++;
        wire->n_fds += (unsigned) item->n_fds;
        return true;
}

static void wire_send(Wire *wire) {
        uint8_t bytes[ITEM_SIZE] = { 0 };
        ItemParameters parameters = { .type = "a.Number", .payload = bytes, .size = sizeof(bytes) };
        int r = 0;

        for (; wire->sent < wire->to_send; wire->sent++) {
                memcpy(bytes, &wire->sent, sizeof(wire->sent));
                r = call_send(wire->call, &parameters);
                if (r < 0)
                        break;
        }
        assert_true(r == 0 || r == -EAGAIN);
        if (r == 0 && wire->ends)
                assert_int_equal(call_end(wire->call), 0);
}

static void wire_writable(Call *call, void *userdata) {
        (void) call;
        wire_send(userdata);
}

static void wire_done(Call *call, const Answer *answer, void *userdata) {
        Wire *wire = userdata;

        (void) call;
        wire->result.done = true;
        wire->result.status = answer->status;
        wire->result.size = answer->size;
        memcpy(wire->result.data, answer->payload, MIN(answer->size, sizeof(wire->result.data)));
        (void) snprintf(wire->result.message, sizeof(wire->result.message), "%s", answer->message);
}

/* wire_call() - calls @method of the runner, with a stream of @to_send items. */
static void wire_call(Fixture *f, Wire *wire, const char *method, uint32_t to_send) {
        CallParameters parameters = {
                .method = method,
                .stream = to_send > 0,
                .item = wire_item,
                .writable = wire_writable,
        };

        wire->to_send = to_send;
        wire->ends = to_send > 0;
        assert_int_equal(call_start(f->peer, &parameters, wire_done, wire, &wire->call), 0);
        if (to_send > 0)
                wire_send(wire);
}

static bool wire_is_done(void *wire) {
        return ((Wire *) wire)->result.done;
}

/* ---- the runner's end of a stream ---- */

typedef struct Stream {
        struct baton_call *call;
        struct baton_request *request;
        uint32_t sent, to_send, taken, shown;
        bool refuse, ended, answer_at_end, no_taker;
        unsigned n_waits, n_writable, n_fds;
        Result result;
} Stream;

static int send_number(Stream *stream, const void *bytes, size_t size) {
        return stream->call ? baton_call_send(stream->call, "a.Number", bytes, size)
                            : baton_request_send(stream->request, "a.Number", bytes, size);
}

static void stream_send(Stream *stream) {
        uint8_t bytes[ITEM_SIZE] = { 0 };
        int r = 0;

        for (; stream->sent < stream->to_send; stream->sent++) {
                memcpy(bytes, &stream->sent, sizeof(stream->sent));
                r = send_number(stream, bytes, sizeof(bytes));
                if (r < 0)
                        break;
        }
        assert_true(r == 0 || r == -EAGAIN);
        stream->n_waits += r == -EAGAIN;
        if (r < 0)
                return;
        if (stream->call)
                assert_int_equal(baton_call_answer(stream->call, "", &stream->sent, sizeof(stream->sent)), 0);
        else
                assert_int_equal(baton_request_end(stream->request), 0);
}

static void stream_writable(void *userdata) {
        Stream *stream = userdata;

        stream->n_writable++;
        stream_send(stream);
}

static int stream_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;
        uint32_t number;

        stream->shown++;
        if (stream->refuse)
                return 1;
        if (item->size > 0) {
                assert_string_equal(item->type, "a.Number");
                memcpy(&number, item->data, sizeof(number));
                assert_int_equal(number, stream->taken);
                stream->taken++;
        }
        stream->n_fds += (unsigned) item->n_fds;
        stream->ended |= item->end;
        if (item->end && stream->answer_at_end)
                assert_int_equal(baton_call_answer(stream->call, "", &stream->taken, sizeof(stream->taken)), 0);
        return 0;
}

static void serve_many(struct baton_call *call, void *userdata) {
        Stream *stream = userdata;

        assert_false(baton_call_takes_items(call));
        stream->call = call;
        baton_call_on_writable(call, stream_writable, stream);
        stream_send(stream);
}

static void take_many(struct baton_call *call, void *userdata) {
        Stream *stream = userdata;

        assert_true(baton_call_takes_items(call));
        stream->call = call;
        stream->answer_at_end = true;
        if (!stream->no_taker)
                baton_call_on_item(call, stream_item, stream);
}

static void keep(struct baton_call *call, void *userdata) {
        Stream *stream = userdata;

        stream->call = call;
        if (baton_call_takes_items(call))
                baton_call_on_item(call, stream_item, stream);
}

static bool has_call(void *stream) {
        return ((Stream *) stream)->call;
}

static bool was_shown(void *stream) {
        return ((Stream *) stream)->shown > 0;
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Stream *stream = userdata;

        assert_false(stream->result.done);
        stream->request = NULL;
        stream->result.done = true;
        stream->result.status = (Status) answer->status;
        stream->result.size = answer->size;
        memcpy(stream->result.data, answer->data, MIN(answer->size, sizeof(stream->result.data)));
        (void) snprintf(stream->result.message, sizeof(stream->result.message), "%s", answer->message);
}

static bool stream_is_done(void *stream) {
        return ((Stream *) stream)->result.done;
}

static uint32_t number_of(const Result *result) {
        uint32_t number = 0;

        assert_int_equal(result->size, sizeof(number));
        memcpy(&number, result->data, sizeof(number));
        return number;
}

/* ---- tests: calls to us ---- */

static void test_server_stream(void **state) {
        Stream stream = { .to_send = MANY };
        Wire wire = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Many", serve_many, &stream);
        wire_call(&f, &wire, "Many", 0);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(wire.result.status, STATUS_OK);
        assert_int_equal(number_of(&wire.result), MANY);
        assert_int_equal(wire.taken, MANY);
        assert_true(stream.n_waits > 0 && stream.n_writable == stream.n_waits);
        fixture_close(&f);
}

static void test_client_stream(void **state) {
        Stream stream = { 0 };
        Wire wire = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Take", take_many, &stream);
        wire_call(&f, &wire, "Take", MANY);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(wire.result.status, STATUS_OK);
        assert_int_equal(number_of(&wire.result), MANY);
        assert_true(stream.ended);
        fixture_close(&f);
}

static void test_not_now(void **state) {
        Stream stream = { .refuse = true };
        Wire wire = { 0 };
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Take", take_many, &stream);
        fixture_add(&f, "Keep", keep, &(Stream){ 0 });
        wire_call(&f, &wire, "Take", MANY);
        fixture_until(&f, was_shown, &stream);
        /* Others go on, and nothing more is shown. */
        fixture_ask(&f, "baton.Runner/Ping", NULL, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(stream.shown, 1);
        assert_true(wire.sent < MANY);
        stream.refuse = false;
        baton_call_resume(stream.call);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(number_of(&wire.result), MANY);
        fixture_close(&f);
}

static void test_nobody_takes(void **state) {
        Stream stream = { .no_taker = true };
        Wire wire = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Take", take_many, &stream);
        wire_call(&f, &wire, "Take", 2);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(wire.result.status, STATUS_INVALID_ARGUMENT);
        assert_true(baton_call_is_cancelled(stream.call));
        assert_int_equal(baton_call_send(stream.call, "", "x", 1), -ECANCELED);
        assert_int_equal(baton_call_answer(stream.call, "", NULL, 0), -ECANCELED);
        fixture_close(&f);
}

static void send_pipe(struct baton_call *call, void *userdata) {
        uint32_t number = 0;
        int fds[2];

        (void) userdata;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(baton_call_send_fds(call, "a.Number", &number, sizeof(number), fds, 2, 0), 0);
        assert_int_equal(baton_call_answer(call, "", NULL, 0), 0);
}

static void test_descriptors(void **state) {
        Wire wire = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Pipe", send_pipe, NULL);
        wire_call(&f, &wire, "Pipe", 0);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(wire.result.status, STATUS_OK);
        assert_int_equal(wire.n_fds, 2);
        fixture_close(&f);
}

static void send_too_much(struct baton_call *call, void *userdata) {
        static uint8_t bytes[300 * 1024];
        int fds[2];

        (void) userdata;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(baton_call_send_fds(call, "", bytes, sizeof(bytes), fds, 2, 0), -EMSGSIZE);
        assert_int_equal(baton_call_send_fds(call, "\xff", "", 0, fds, 2, 0), -EINVAL);
        fd_close_all(fds, 2); /* they were not taken */
        assert_int_equal(baton_call_answer(call, "", NULL, 0), 0);
}

static void test_refused_items(void **state) {
        Wire wire = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "TooMuch", send_too_much, NULL);
        wire_call(&f, &wire, "TooMuch", 0);
        fixture_until(&f, wire_is_done, &wire);
        assert_int_equal(wire.result.status, STATUS_OK);
        assert_int_equal(wire.received, 0);
        fixture_close(&f);
}

/* ---- tests: calls of ours ---- */

/* start_stream() - "test.Stream" of the supervisor sends back what it gets and answers how many that were. */
static void start_stream(Fixture *f, Stream *stream, struct baton_call *parent, uint64_t timeout_us) {
        struct baton_call_parameters parameters = {
                .size = sizeof(parameters),
                .method = "test.Stream",
                .timeout_us = timeout_us,
                .stream = 1,
                .on_item = stream_item,
                .on_writable = stream_writable,
                .parent = parent,
        };

        assert_int_equal(baton_runner_call(f->runner, &parameters, on_answer, stream, &stream->request), 0);
}

static void test_both_ways(void **state) {
        Stream stream = { .to_send = MANY };
        Fixture f;

        (void) state;
        fixture_open(&f);
        start_stream(&f, &stream, NULL, 0);
        stream_send(&stream);
        fixture_until(&f, stream_is_done, &stream);
        assert_int_equal(stream.result.status, STATUS_OK);
        assert_int_equal(number_of(&stream.result), MANY);
        assert_int_equal(stream.taken, MANY);
        assert_true(stream.n_waits > 0);
        fixture_close(&f);
}

static void test_request_not_now(void **state) {
        Stream stream = { .to_send = 20, .refuse = true };
        Fixture f;

        (void) state;
        fixture_open(&f);
        start_stream(&f, &stream, NULL, 0);
        stream_send(&stream);
        fixture_until(&f, was_shown, &stream);
        stream.refuse = false;
        baton_request_resume(stream.request);
        fixture_until(&f, stream_is_done, &stream);
        assert_int_equal(stream.taken, 20);
        assert_int_equal(stream.shown, 21);
        fixture_close(&f);
}

static void test_request_ends(void **state) {
        struct baton_call_parameters plain = { .size = sizeof(plain), .method = "test.Stream" };
        struct baton_request *request;
        Stream stream = { 0 }, other = { 0 };
        Fixture f;

        (void) state;
        fixture_open(&f);
        start_stream(&f, &stream, NULL, 0);
        request = stream.request;
        baton_request_ref(request);
        assert_int_equal(baton_request_end(request), 0);
        assert_int_equal(baton_request_end(request), -EPIPE);
        assert_int_equal(baton_request_send(request, "", "x", 1), -EPIPE);
        fixture_until(&f, stream_is_done, &stream);
        assert_int_equal(stream.result.status, STATUS_OK);
        assert_int_equal(baton_request_send(request, "", "x", 1), -ECANCELED);
        assert_int_equal(baton_request_end(request), -ECANCELED);
        baton_request_resume(request);
        baton_request_unref(request);
        assert_int_equal(baton_runner_call(f.runner, &plain, on_answer, &other, &other.request), 0);
        assert_int_equal(baton_request_send(other.request, "", "x", 1), -EPIPE);
        baton_request_cancel(other.request);
        fixture_close(&f);
}

/* ---- tests: a call for a call ---- */

/* keep_call() - a call to the runner that its handler has kept in @stream; @timeout_us 0: no deadline. */
static Call *keep_call(Fixture *f, Stream *stream, Result *result, uint64_t timeout_us) {
        CallParameters parameters = { .method = "Keep", .timeout_us = timeout_us };
        Call *call;

        fixture_add(f, "Keep", keep, stream);
        call = fixture_call(f, &parameters, result);
        fixture_until(f, has_call, stream);
        return call;
}

static void test_deadline_shrinks(void **state) {
        Stream stream = { 0 }, child = { 0 }, shorter = { 0 };
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        (void) keep_call(&f, &stream, &result, 3600 * USEC_PER_SEC);
        start_stream(&f, &child, stream.call, 0);
        start_stream(&f, &shorter, stream.call, 60 * USEC_PER_SEC);
        fixture_until(&f, fixture_has_streams, &(FixtureStreams){ &f, 2 });
        assert_true(call_time_left(f.streams[0].call) <= 3600 * USEC_PER_SEC);
        assert_true(call_time_left(f.streams[0].call) > 60 * USEC_PER_SEC);
        assert_true(call_time_left(f.streams[1].call) <= 60 * USEC_PER_SEC);
        /* The parent's end changes nothing. */
        assert_int_equal(baton_call_answer(stream.call, "", NULL, 0), 0);
        assert_int_equal(baton_request_end(child.request), 0);
        fixture_until(&f, stream_is_done, &child);
        assert_int_equal(child.result.status, STATUS_OK);
        baton_request_cancel(shorter.request);
        fixture_close(&f);
}

static void test_cancellation_is_passed_on(void **state) {
        struct baton_call_parameters late = { .size = sizeof(late), .method = "test.Stream" };
        Stream stream = { 0 }, first = { 0 }, second = { 0 };
        Fixture f;
        Result result;
        Call *call;

        (void) state;
        fixture_open(&f);
        call = keep_call(&f, &stream, &result, 0);
        start_stream(&f, &first, stream.call, 0);
        start_stream(&f, &second, stream.call, 0);
        fixture_until(&f, fixture_has_streams, &(FixtureStreams){ &f, 2 });
        call_cancel(call);
        fixture_until(&f, stream_is_done, &first);
        assert_int_equal(first.result.status, STATUS_CANCELLED);
        assert_true(second.result.done && second.result.status == STATUS_CANCELLED);
        fixture_until(&f, fixture_has_streams, &(FixtureStreams){ &f, 0 });
        late.parent = stream.call;
        assert_int_equal(baton_runner_call(f.runner, &late, on_answer, &first, NULL), -ECANCELED);
        assert_int_equal(baton_call_fail(stream.call, BATON_CANCELLED, "as wished"), -ECANCELED);
        fixture_close(&f);
}

/* cancel_all() - ends the call and one of its children itself; the other one is told. */
static void cancel_all(struct baton_call *call, void *userdata) {
        Stream *first = userdata;

        baton_request_cancel(first->request);
        assert_int_equal(baton_call_fail(call, BATON_CANCELLED, "cancelled"), -ECANCELED);
}

static void test_cancellation_ends_the_parent(void **state) {
        Stream stream = { 0 }, first = { 0 }, second = { 0 };
        Fixture f;
        Result result;
        Call *call;

        (void) state;
        fixture_open(&f);
        call = keep_call(&f, &stream, &result, 0);
        baton_call_on_cancel(stream.call, cancel_all, &first);
        start_stream(&f, &first, stream.call, 0);
        start_stream(&f, &second, stream.call, 0);
        fixture_until(&f, fixture_has_streams, &(FixtureStreams){ &f, 2 });
        call_cancel(call);
        fixture_until(&f, stream_is_done, &second);
        assert_int_equal(second.result.status, STATUS_CANCELLED);
        assert_false(first.result.done);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_server_stream),
        TEST(test_client_stream),
        TEST(test_not_now),
        TEST(test_nobody_takes),
        TEST(test_descriptors),
        TEST(test_refused_items),
        TEST(test_both_ways),
        TEST(test_request_not_now),
        TEST(test_request_ends),
        TEST(test_deadline_shrinks),
        TEST(test_cancellation_is_passed_on),
        TEST(test_cancellation_ends_the_parent),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

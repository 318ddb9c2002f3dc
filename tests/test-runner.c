/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls through libbaton, both ways, against an engine peer at the supervisor's end of the lane: answers at once and
 * later, descriptors, metadata, details, cancellation, methods, and the loop that somebody else owns.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/runner-fixture.h"
#include "tests/seam.h"

/* ---- handlers ---- */

static void echo(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        assert_int_equal(baton_call_answer(call, baton_call_type(call), data, size), 0);
}

/* What a handler keeps for later. */
typedef struct Kept {
        struct baton_call *calls[FIXTURE_MAX];
        size_t n;
        unsigned n_cancelled;
} Kept;

static void keep(struct baton_call *call, void *userdata) {
        Kept *kept = userdata;

        kept->calls[kept->n++] = call;
}

static void count_cancel(struct baton_call *call, void *userdata) {
        Kept *kept = userdata;

        assert_true(baton_call_is_cancelled(call));
        kept->n_cancelled++;
}

static void keep_cancellable(struct baton_call *call, void *userdata) {
        baton_call_on_cancel(call, count_cancel, userdata);
        keep(call, userdata);
}

static bool one_kept(void *kept) {
        return ((Kept *) kept)->n == 1;
}

static bool three_kept(void *kept) {
        return ((Kept *) kept)->n == 3;
}

static bool one_cancelled(void *kept) {
        return ((Kept *) kept)->n_cancelled == 1;
}

/* ---- what the runner was told about a request of its own ---- */

static Result answered;

static void on_answer(const struct baton_answer *answer, void *userdata) {
        const void *value;
        size_t size;

        assert_ptr_equal(userdata, &answered);
        assert_false(answered.done);
        answered.done = true;
        answered.status = (Status) answer->status;
        (void) snprintf(answered.message, sizeof(answered.message), "%s", answer->message);
        (void) snprintf(answered.type, sizeof(answered.type), "%s", answer->type);
        answered.size = answer->size;
        memcpy(answered.data, answer->data, MIN(answer->size, sizeof(answered.data)));
        answered.n_fds = answer->n_fds;
        for (size_t i = 0; i < answer->n_fds; i++)
                answered.fds[i] = fd_take(&answer->fds[i]);
        value = baton_answer_metadata(answer, "key", &size);
        if (value)
                memcpy(answered.value, value, size);
        assert_null(baton_answer_metadata(answer, "other", &size));
        assert_null(baton_answer_detail(answer, "other", &size));
}

static void ask_supervisor(Fixture *f, const struct baton_call_parameters *parameters) {
        answered = (Result){ 0 };
        assert_int_equal(baton_runner_call(f->runner, parameters, on_answer, &answered, NULL), 0);
        fixture_until(f, result_is_done, &answered);
}

/* ---- tests ---- */

static void test_handshake(void **state) {
        struct baton_runner_options options = { .size = sizeof(options), .software = "greeter 2", .max_calls = 7 };
        Fixture f;
        Result result;

        (void) state;
        fixture_open_with(&f, &options);
        assert_int_equal(baton_runner_instance(f.runner), 0);
        fixture_add(&f, "Echo", echo, NULL);
        fixture_ask(&f, "Echo", "first", &result);
        assert_string_equal(peer_remote(f.peer)->software, "greeter 2");
        assert_int_equal(peer_remote(f.peer)->max_calls, 7);
        assert_int_equal(peer_remote(f.peer)->service_state, 2);
        assert_int_equal(peer_remote(f.peer)->instance, 0);
        assert_int_equal(baton_runner_instance(f.runner), FIXTURE_INSTANCE);
        assert_string_equal(baton_runner_reason(f.runner), "");
        fixture_close(&f);
}

static void test_unary(void **state) {
        static const CallParameters typed = { .method = "Echo", .type = "a.Type", .payload = "bytes", .size = 5 };
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Echo", echo, NULL);
        (void) fixture_call(&f, &typed, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_string_equal(result.type, "a.Type");
        assert_string_equal(result.data, "bytes");
        fixture_ask(&f, "Echo", NULL, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.size, 0);
        fixture_close(&f);
}

static void test_ping(void **state) {
        static const uint8_t nonce[] = { 0x08, 0x2a };
        CallParameters parameters = { .method = "baton.Runner/Ping", .payload = nonce, .size = sizeof(nonce) };
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        (void) fixture_call(&f, &parameters, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_string_equal(result.type, "baton.Ping");
        assert_int_equal(result.size, sizeof(nonce));
        assert_memory_equal(result.data, nonce, sizeof(nonce));
        fixture_ask(&f, "baton.Runner/Ping", "\xff", &result);
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        fixture_close(&f);
}

static void test_methods(void **state) {
        char longest[257];
        Kept kept = { 0 };
        Fixture f;
        Result result;

        (void) state;
        memset(longest, 'x', 256);
        longest[256] = '\0';
        fixture_open(&f);
        fixture_add(&f, "Echo", echo, NULL);
        assert_int_equal(baton_runner_add_method(f.runner, "Echo", echo, NULL), -EEXIST);
        assert_int_equal(baton_runner_add_method(f.runner, "baton.Own", echo, NULL), -EPERM);
        assert_int_equal(baton_runner_add_method(f.runner, "", echo, NULL), -EINVAL);
        assert_int_equal(baton_runner_add_method(f.runner, NULL, echo, NULL), -EINVAL);
        assert_int_equal(baton_runner_add_method(f.runner, "\xc0\xaf", echo, NULL), -EINVAL);
        assert_int_equal(baton_runner_add_method(f.runner, longest, echo, NULL), -EINVAL);
        assert_int_equal(baton_runner_add_method(f.runner, longest + 1, echo, NULL), 0);
        fixture_ask(&f, "Missing", NULL, &result);
        assert_int_equal(result.status, STATUS_UNIMPLEMENTED);
        assert_string_equal(result.message, "no such method: Missing");
        baton_runner_set_default(f.runner, keep, &kept);
        fixture_ask(&f, "baton.Runner/Mount", NULL, &result);
        assert_int_equal(result.status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(result.message, "Mount is refused in state RUNNING");
        assert_int_equal(kept.n, 0);
        baton_runner_set_default(f.runner, echo, NULL);
        fixture_ask(&f, "Missing", "found", &result);
        assert_int_equal(result.status, STATUS_OK);
        fixture_ask(&f, longest + 1, "long", &result);
        assert_string_equal(result.data, "long");
        fixture_close(&f);
}

static void test_method_out_of_memory(void **state) {
        Fixture f;

        (void) state;
        fixture_open(&f);
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(baton_runner_add_method(f.runner, "Echo", echo, NULL), -ENOMEM);
        /* Then the hash table's own memory. */
        for (unsigned nth = 1;; nth++) {
                int r;

                seam_fail(SEAM_MALLOC, nth, ENOMEM);
                r = baton_runner_add_method(f.runner, "Echo", echo, NULL);
                seam_pass(SEAM_MALLOC);
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOMEM);
                assert_true(nth < 10);
        }
        fixture_close(&f);
}

static void test_deferred(void **state) {
        static const unsigned order[] = { 2, 0, 1 };
        Kept kept = { 0 };
        Fixture f;
        Result results[3];
        size_t size;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &kept);
        for (unsigned i = 0; i < 3; i++)
                (void) fixture_call(&f, &(CallParameters){ .method = "Keep", .payload = "data", .size = 4 },
                                    &results[i]);
        fixture_until(&f, three_kept, &kept);
        for (unsigned i = 0; i < 3; i++) {
                /* The request is gone with its handler, and says so harmlessly. */
                assert_string_equal(baton_call_method(kept.calls[i]), "");
                assert_non_null(baton_call_data(kept.calls[i], &size));
                assert_int_equal(size, 0);
                assert_int_equal(baton_call_time_left(kept.calls[i]), UINT64_MAX);
                assert_ptr_equal(baton_call_runner(kept.calls[i]), f.runner);
        }
        for (unsigned i = 0; i < 3; i++) {
                unsigned n = order[i];

                assert_int_equal(baton_call_answer(kept.calls[n], "", "abc" + n, 1), 0);
                fixture_until(&f, result_is_done, &results[n]);
                assert_int_equal(results[n].data[0], "abc"[n]);
        }
        fixture_close(&f);
}

/* swap_fds() - takes the second descriptor, leaves the first to be closed, answers with what it took and one more. */
static void swap_fds(struct baton_call *call, void *userdata) {
        int fds[2], *pipe_fds = userdata;

        assert_int_equal(baton_call_n_fds(call), 2);
        fds[0] = baton_call_take_fd(call, 1);
        assert_true(fds[0] >= 0);
        assert_int_equal(baton_call_take_fd(call, 1), -1);
        assert_int_equal(baton_call_take_fd(call, 2), -1);
        fds[1] = fd_dup(pipe_fds[1]);
        assert_int_equal(baton_call_answer_fds(call, "", NULL, 0, fds, 2), 0);
}

static void test_descriptors_to_runner(void **state) {
        int pipe_fds[2], given[2];
        Fixture f;
        Result result;

        (void) state;
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        fixture_open(&f);
        fixture_add(&f, "Swap", swap_fds, pipe_fds);
        given[0] = fd_dup(pipe_fds[1]);
        given[1] = fd_dup(pipe_fds[0]);
        (void) fixture_call(&f, &(CallParameters){ .method = "Swap", .fds_consume = given, .n_fds = 2 }, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.n_fds, 2);
        assert_true(test_same_file(result.fds[0], pipe_fds[0]));
        assert_true(test_same_file(result.fds[1], pipe_fds[1]));
        fd_close_all(result.fds, 2);
        fd_close_all(pipe_fds, 2);
        fixture_close(&f);
}

static void test_request(void **state) {
        struct baton_call_parameters parameters = {
                .size = sizeof(parameters),
                .method = "test.Echo",
                .type = "a.Type",
                .data = "question",
                .data_size = 8,
                .metadata_key = "key",
                .metadata_value = "value",
                .metadata_size = 5,
        };
        int pipe_fds[2], given[1];
        Fixture f;

        (void) state;
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        fixture_open(&f);
        given[0] = fd_dup(pipe_fds[0]);
        parameters.fds_consume = given;
        parameters.n_fds = 1;
        ask_supervisor(&f, &parameters);
        assert_int_equal(answered.status, STATUS_OK);
        assert_string_equal(answered.type, "a.Type");
        assert_memory_equal(answered.data, "question", 8);
        assert_string_equal(answered.value, "value");
        assert_int_equal(answered.n_fds, 1);
        assert_true(test_same_file(answered.fds[0], pipe_fds[0]));
        fd_close_all(answered.fds, 1);
        fd_close_all(pipe_fds, 2);

        ask_supervisor(&f, &(struct baton_call_parameters){ .size = sizeof(parameters), .method = "no.Such" });
        assert_int_equal(answered.status, STATUS_PERMISSION_DENIED);
        assert_string_equal(answered.message, "not no.Such");
        fixture_close(&f);
}

/* Nothing that is refused keeps the descriptors it was given. */
static void test_request_refused(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .n_fds = 1 };
        int given[1];
        Fixture f;

        (void) state;
        fixture_open(&f);
        parameters.fds_consume = given;
        given[0] = fd_dup(STDIN_FILENO);
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_answer, NULL, NULL), -EINVAL);
        parameters.method = "test.Echo";
        parameters.channel = BATON_CHANNEL_DATA;
        given[0] = fd_dup(STDIN_FILENO);
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_answer, NULL, NULL), -EINVAL);
        parameters.channel = (enum baton_channel) 3;
        given[0] = fd_dup(STDIN_FILENO);
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_answer, NULL, NULL), -EINVAL);
        parameters.channel = BATON_CHANNEL_RPC;
        parameters.type = "\xff";
        given[0] = fd_dup(STDIN_FILENO);
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_answer, NULL, NULL), -EINVAL);
        fixture_close(&f);
}

static void never(const struct baton_answer *answer, void *userdata) {
        (void) answer;
        (void) userdata;
        fail();
}

static void test_request_cancelled(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = "test.Echo" };
        struct baton_request *request;
        Fixture f;

        (void) state;
        fixture_open(&f);
        assert_int_equal(baton_runner_call(f.runner, &parameters, never, NULL, &request), 0);
        baton_request_cancel(request);
        ask_supervisor(&f, &parameters);
        assert_int_equal(answered.status, STATUS_OK);
        /* Still open when the runner is freed: forgotten. */
        assert_int_equal(baton_runner_call(f.runner, &parameters, never, NULL, &request), 0);
        fixture_close(&f);
}

static void test_cancel(void **state) {
        Kept kept = { 0 };
        Fixture f;
        Result result;
        Call *call;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep_cancellable, &kept);
        call = fixture_call(&f, &(CallParameters){ .method = "Keep" }, &result);
        fixture_until(&f, one_kept, &kept);
        assert_false(baton_call_is_cancelled(kept.calls[0]));
        call_cancel(call);
        fixture_until(&f, one_cancelled, &kept);
        assert_int_equal(baton_call_answer(kept.calls[0], "", NULL, 0), -ECANCELED);
        assert_false(result.done);
        fixture_close(&f);
}

static void test_deadline(void **state) {
        Kept kept = { 0 };
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep_cancellable, &kept);
        (void) fixture_call(&f, &(CallParameters){ .method = "Keep", .timeout_us = 20000 }, &result);
        fixture_until(&f, one_kept, &kept);
        assert_true(baton_call_time_left(kept.calls[0]) <= 20000);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_DEADLINE_EXCEEDED);
        fixture_until(&f, one_cancelled, &kept);
        assert_int_equal(baton_call_time_left(kept.calls[0]), 0);
        assert_int_equal(baton_call_fail(kept.calls[0], BATON_ABORTED, "late"), -ECANCELED);
        fixture_close(&f);
}

static void fail_richly(struct baton_call *call, void *userdata) {
        char name[32];

        (void) userdata;
        for (unsigned i = 0; i < 5; i++) {
                (void) snprintf(name, sizeof(name), "detail.%u", i);
                assert_int_equal(baton_call_add_detail(call, name, "why", 3), 0);
                assert_int_equal(baton_call_add_metadata(call, name, "how", 3), 0);
        }
        assert_int_equal(baton_call_add_detail(call, "\xff", "x", 1), -EINVAL);
        assert_int_equal(baton_call_add_metadata(call, "\xff", "x", 1), -EINVAL);
        assert_int_equal(baton_call_fail(call, BATON_NOT_FOUND, "no %s here\xff", "such thing"), 0);
}

static void check_metadata(struct baton_call *call, void *userdata) {
        const char *key;
        size_t size;

        (void) userdata;
        assert_memory_equal(baton_call_metadata(call, "a", &size), "one", 3);
        assert_int_equal(size, 3);
        assert_null(baton_call_metadata(call, "c", &size));
        assert_memory_equal(baton_call_metadata_at(call, 1, &key, &size), "two", 3);
        assert_string_equal(key, "b");
        assert_null(baton_call_metadata_at(call, 2, &key, &size));
        assert_int_equal(baton_call_fail(call, BATON_OK, "fine?"), 0);
}

static void test_details_and_metadata(void **state) {
        Baton__Pair a = BATON__PAIR__INIT, b = BATON__PAIR__INIT, *pairs[] = { &a, &b };
        CallParameters parameters = { .method = "Check", .metadata = pairs, .n_metadata = 2 };
        Fixture f;
        Result result;

        (void) state;
        a.key = (char *) "a";
        a.value = (ProtobufCBinaryData){ .len = 3, .data = (uint8_t *) "one" };
        b.key = (char *) "b";
        b.value = (ProtobufCBinaryData){ .len = 3, .data = (uint8_t *) "two" };
        fixture_open(&f);
        fixture_add(&f, "Fail", fail_richly, NULL);
        fixture_add(&f, "Check", check_metadata, NULL);
        fixture_ask(&f, "Fail", NULL, &result);
        assert_int_equal(result.status, STATUS_NOT_FOUND);
        assert_string_equal(result.message, "no such thing here?");
        assert_string_equal(result.detail_type, "detail.4");
        assert_string_equal(result.detail, "why");
        assert_string_equal(result.key, "detail.4");
        assert_string_equal(result.value, "how");
        (void) fixture_call(&f, &parameters, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_UNKNOWN);
        fixture_close(&f);
}

static void answer_badly(struct baton_call *call, void *userdata) {
        (void) userdata;
        assert_int_equal(baton_call_answer(call, "\xff", "x", 1), -EINVAL);
}

static void answer_hugely(struct baton_call *call, void *userdata) {
        static uint8_t much[16 * 1024 * 1024];

        (void) userdata;
        assert_int_equal(baton_call_answer(call, "", much, sizeof(much)), -EMSGSIZE);
}

static void test_impossible_answers(void **state) {
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Bad", answer_badly, NULL);
        fixture_add(&f, "Huge", answer_hugely, NULL);
        fixture_ask(&f, "Bad", NULL, &result);
        assert_int_equal(result.status, STATUS_INTERNAL);
        fixture_ask(&f, "Huge", NULL, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        fixture_close(&f);
}

static void dispatch_inside(struct baton_call *call, void *userdata) {
        (void) userdata;
        assert_int_equal(baton_runner_dispatch(baton_call_runner(call), 0), -EBUSY);
        echo(call, NULL);
}

static void test_dispatch_in_handler(void **state) {
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Inside", dispatch_inside, NULL);
        fixture_ask(&f, "Inside", "x", &result);
        assert_int_equal(result.status, STATUS_OK);
        fixture_close(&f);
}

/* What is queued while somebody else waits makes the descriptor readable: nothing is left lying until something comes. */
static void test_foreign_loop(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = "test.Echo" };
        Fixture f;

        (void) state;
        fixture_open(&f);
        assert_int_equal(poll(&(struct pollfd){ .fd = baton_runner_fd(f.runner), .events = POLLIN }, 1, 0), 0);
        assert_int_equal(baton_runner_call(f.runner, &parameters, NULL, NULL, NULL), 0);
        assert_int_equal(poll(&(struct pollfd){ .fd = baton_runner_fd(f.runner), .events = POLLIN }, 1, 0), 1);
        assert_int_equal(baton_runner_dispatch(f.runner, 0), 0);
        assert_int_equal(poll(&(struct pollfd){ .fd = baton_runner_fd(f.runner), .events = POLLIN }, 1, 0), 0);
        fixture_close(&f);
}

static void test_calls_open_at_the_end(void **state) {
        Kept kept = { 0 };
        int given[1];
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep_cancellable, &kept);
        given[0] = fd_dup(STDIN_FILENO);
        (void) fixture_call(&f, &(CallParameters){ .method = "Keep", .fds_consume = given, .n_fds = 1 }, &result);
        fixture_until(&f, one_kept, &kept);
        baton_runner_free(f.runner);
        f.runner = NULL;
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_UNAVAILABLE);
        assert_int_equal(kept.n_cancelled, 0);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_handshake),
        TEST(test_unary),
        TEST(test_ping),
        TEST(test_methods),
        TEST(test_method_out_of_memory),
        TEST(test_deferred),
        TEST(test_descriptors_to_runner),
        TEST(test_request),
        TEST(test_request_refused),
        TEST(test_request_cancelled),
        TEST(test_cancel),
        TEST(test_deadline),
        TEST(test_details_and_metadata),
        TEST(test_impossible_answers),
        TEST(test_dispatch_in_handler),
        TEST(test_foreign_loop),
        TEST(test_calls_open_at_the_end),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/* baton-runner-echo, the program: every method, what it answers to bad arguments, and both forms of its loop. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/values.h"
#include "tests/runner-fixture.h"

typedef struct Echo {
        Fixture fixture;
        pid_t pid;
        int output[2]; /* its stdout and stderr: pipes' read ends */
} Echo;

typedef struct Start {
        const char *path; /* of the bootstrap socket */
        bool as_argument; /* --uds-path instead of the variable */
        int output[2];    /* write ends */
} Start;

static int run_echo(void *argument) {
        const Start *start = argument;
        const char *dir = getenv("abs_top_builddir");
        char program[4096];

        (void) snprintf(program, sizeof(program), "%s/baton-runner-echo", dir ? dir : ".");
        (void) dup2(start->output[0], STDOUT_FILENO);
        (void) dup2(start->output[1], STDERR_FILENO);
        if (start->as_argument)
                (void) execl(program, "baton-runner-echo", "--uds-path", start->path, (char *) NULL);
        (void) setenv("BATON_BOOTSTRAP", start->path, 1);
        (void) execl(program, "baton-runner-echo", (char *) NULL);
        return 127;
}

static void echo_open_with(Echo *echo, bool as_argument) {
        Start start = { .as_argument = as_argument };

        echo->fixture = (Fixture){ .listener = -1 };
        fixture_listen(&echo->fixture);
        start.path = echo->fixture.path;
        for (unsigned i = 0; i < 2; i++) {
                int fds[2];

                assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
                echo->output[i] = fds[0];
                start.output[i] = fds[1];
        }
        echo->pid = test_child(run_echo, &start);
        fd_close_all(start.output, 2);
        fixture_accept(&echo->fixture);
        fixture_unlisten(&echo->fixture);
}

static void echo_open(Echo *echo) {
        echo_open_with(echo, false);
}

/* echo_close() - ends it by its lane; how it ended. */
static int echo_close(Echo *echo) {
        int status;

        fixture_close(&echo->fixture);
        status = test_child_wait(echo->pid);
        fd_close_all(echo->output, 2);
        return status;
}

/* An argument of a call. */
typedef struct Argument {
        ValueType type;
        uint64_t number;
        const char *text;
} Argument;

#define U64(_n) \
        { VALUE_U64, _n, NULL }
#define I64(_n) \
        { VALUE_I64, _n, NULL }
#define STRING(_s) \
        { VALUE_STRING, 0, _s }
#define BUFFER(_s) \
        { VALUE_BUFFER, 0, _s }

/* start() - calls @method with @arguments, as baton.Values. */
static Call *start(Echo *echo, const char *method, const Argument *arguments, size_t n, Result *result) {
        CallParameters parameters = { .method = method, .type = VALUES_TYPE };
        _cleanup_(values_freep) Baton__Values *values = values_new();
        _cleanup_free_ uint8_t *data = NULL;

        for (size_t i = 0; i < n; i++) {
                Baton__Value *value;

                assert_int_equal(values_add(values, arguments[i].type, &value), 0);
                if (arguments[i].type == VALUE_U64) {
                        value->u = arguments[i].number;
                } else if (arguments[i].type == VALUE_I64) {
                        value->i = (int64_t) arguments[i].number;
                } else if (arguments[i].type == VALUE_STRING) {
                        value->s = strdup(arguments[i].text);
                } else {
                        value->b.data = (uint8_t *) strdup(arguments[i].text);
                        value->b.len = strlen(arguments[i].text);
                }
        }
        assert_int_equal(values_pack(values, &data, &parameters.size), 0);
        parameters.payload = data;
        return fixture_call(&echo->fixture, &parameters, result);
}

static void ask(Echo *echo, const char *method, const Argument *arguments, size_t n, Result *result) {
        (void) start(echo, method, arguments, n, result);
        fixture_until(&echo->fixture, result_is_done, result);
}

#define ASK(_echo, _method, _result, ...)                                               \
        do {                                                                            \
                const Argument ask_arguments[] = { __VA_ARGS__ };                       \
                ask(_echo, _method, ask_arguments, ARRAY_SIZE(ask_arguments), _result); \
        } while (0)

static uint64_t held(Echo *echo) {
        Baton__Values *values;
        char error[VALUES_ERROR_MAX];
        Result result;
        uint64_t n;

        ask(echo, "echo.Echo/Held", NULL, 0, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(values_unpack(result.data, result.size, &values, error), 0);
        assert_int_equal(values->n_values, 1);
        n = values->values[0]->u;
        values_free(values);
        return n;
}

static void test_unary(void **state) {
        Baton__Pair pair = BATON__PAIR__INIT, *pairs[] = { &pair };
        CallParameters parameters = { .method = "echo.Echo/Unary", .type = "a.Type", .payload = "data", .size = 4 };
        int pipe_fds[2], given[2];
        Echo echo;
        Result result;
        uint64_t before;

        (void) state;
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        echo_open(&echo);
        before = held(&echo);
        pair.key = (char *) "key";
        pair.value = (ProtobufCBinaryData){ .len = 5, .data = (uint8_t *) "value" };
        parameters.metadata = pairs;
        parameters.n_metadata = 1;
        given[0] = fd_dup(pipe_fds[0]);
        given[1] = fd_dup(pipe_fds[1]);
        parameters.fds_consume = given;
        parameters.n_fds = 2;
        (void) fixture_call(&echo.fixture, &parameters, &result);
        fixture_until(&echo.fixture, result_is_done, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_string_equal(result.type, "a.Type");
        assert_string_equal(result.data, "data");
        assert_string_equal(result.key, "key");
        assert_string_equal(result.value, "value");
        assert_int_equal(result.n_fds, 2);
        assert_true(test_same_file(result.fds[0], pipe_fds[0]));
        assert_true(test_same_file(result.fds[1], pipe_fds[1]));
        fd_close_all(result.fds, 2);
        fd_close_all(pipe_fds, 2);
        assert_int_equal(held(&echo), before);
        assert_int_equal(strncmp(peer_remote(echo.fixture.peer)->software, "baton-runner-echo ", 18), 0);
        assert_int_equal(echo_close(&echo), 0);
}

static void test_sleep(void **state) {
        const Argument hour[] = { U64(UINT64_C(3600000000)) }, moment[] = { U64(20000) },
                       forever[] = { U64(UINT64_MAX) };
        Echo echo;
        Result results[4];
        Call *call;

        (void) state;
        echo_open(&echo);
        (void) start(&echo, "echo.Echo/Sleep", hour, 1, &results[0]);
        (void) start(&echo, "echo.Echo/Sleep", moment, 1, &results[1]);
        call = start(&echo, "echo.Echo/Sleep", forever, 1, &results[2]);
        fixture_until(&echo.fixture, result_is_done, &results[1]);
        assert_int_equal(results[1].status, STATUS_OK);
        /* Others are served meanwhile, and one is called off. */
        fixture_ask(&echo.fixture, "echo.Echo/Unary", "awake", &results[3]);
        assert_string_equal(results[3].data, "awake");
        call_cancel(call);
        fixture_ask(&echo.fixture, "echo.Echo/Unary", "still", &results[3]);
        assert_string_equal(results[3].data, "still");
        assert_false(results[0].done);
        assert_int_equal(echo_close(&echo), 0);
        assert_false(results[2].done);
}

static void test_fail(void **state) {
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        ASK(&echo, "echo.Echo/Fail", &result, U64(5), STRING("no such thing"), STRING("a.Detail"), BUFFER("why"));
        assert_int_equal(result.status, STATUS_NOT_FOUND);
        assert_string_equal(result.message, "no such thing");
        assert_string_equal(result.detail_type, "a.Detail");
        assert_string_equal(result.detail, "why");
        ASK(&echo, "echo.Echo/Fail", &result, U64(99), STRING("odd"));
        assert_int_equal(result.status, STATUS_UNKNOWN);
        assert_int_equal(echo_close(&echo), 0);
}

static void test_bad_arguments(void **state) {
        static const char *const methods[] = { "Sleep", "Fail", "Call", "Log", "Output", "Exit", "Crash" };
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
                char method[64];

                (void) snprintf(method, sizeof(method), "echo.Echo/%s", methods[i]);
                ask(&echo, method, NULL, 0, &result);
                assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
                assert_non_null(strstr(result.message, "argument 1: expected "));
                ASK(&echo, method, &result, BUFFER("not this"));
                assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
                fixture_ask(&echo.fixture, method, "raw bytes", &result);
                assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
                assert_string_equal(result.message, "arguments of type '': expected baton.Values");
        }
        ASK(&echo, "echo.Echo/Crash", &result, I64(1000));
        assert_string_equal(result.message, "argument 1: no signal 1000");
        assert_int_equal(echo_close(&echo), 0);
}

static void test_call_back(void **state) {
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        ASK(&echo, "echo.Echo/Call", &result, STRING("test.Echo"), STRING("a.Type"), BUFFER("payload"));
        assert_int_equal(result.status, STATUS_OK);
        assert_string_equal(result.type, "a.Type");
        assert_string_equal(result.data, "payload");
        ASK(&echo, "echo.Echo/Call", &result, STRING("other"));
        assert_int_equal(result.status, STATUS_PERMISSION_DENIED);
        assert_string_equal(result.message, "not other");
        ASK(&echo, "echo.Echo/Call", &result, STRING(""));
        assert_int_equal(result.status, STATUS_INTERNAL);
        assert_int_equal(echo_close(&echo), 0);
}

static bool three_records(void *argument) {
        return ((Fixture *) argument)->n_records == 3;
}

static void test_log_and_output(void **state) {
        char text[64];
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        ASK(&echo, "echo.Echo/Log", &result, U64(3), STRING("line"));
        assert_int_equal(result.status, STATUS_OK);
        fixture_until(&echo.fixture, three_records, &echo.fixture);
        assert_string_equal(echo.fixture.records[2].text, "line 3");
        assert_string_equal(echo.fixture.records[2].target, "echo");
        ASK(&echo, "echo.Echo/Output", &result, STRING("out"), STRING("err"));
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(read(echo.output[0], text, sizeof(text)), 3);
        assert_memory_equal(text, "out", 3);
        assert_int_equal(read(echo.output[1], text, sizeof(text)), 3);
        assert_memory_equal(text, "err", 3);
        assert_int_equal(echo_close(&echo), 0);
}

static void test_exit(void **state) {
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        ASK(&echo, "echo.Echo/Exit", &result, I64(7));
        assert_int_equal(result.status, STATUS_UNAVAILABLE);
        assert_int_equal(echo_close(&echo), 7);
}

static void test_crash(void **state) {
        static const int signals[] = { SIGSEGV, SIGKILL, SIGABRT };
        Echo echo;
        Result result;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
                echo_open(&echo);
                ASK(&echo, "echo.Echo/Crash", &result, I64((uint64_t) signals[i]));
                assert_int_equal(result.status, STATUS_UNAVAILABLE);
                assert_int_equal(echo_close(&echo), -signals[i]);
        }
}

/* ---- streams ---- */

#define ITEMS 3000u

/* The caller's side of one. */
typedef struct Reader {
        Call *call;
        uint32_t n, to_send, sent;
        size_t bytes, n_fds;
        bool refuse, done;
        Status status;
        uint64_t numbers[2]; /* of the answer */
} Reader;

static bool reader_item(Call *call, const Item *item, void *userdata) {
        Reader *reader = userdata;

        (void) call;
        if (reader->refuse)
                return false;
        reader->n++;
        reader->bytes += item->size;
        reader->n_fds += item->n_fds;
        return true;
}

static void reader_send(Call *call, void *userdata) {
        static uint8_t bytes[100];
        Reader *reader = userdata;
        int r = 0;

        for (; r == 0 && reader->sent < reader->to_send; reader->sent += r == 0)
                r = call_send(call, &(ItemParameters){ .payload = bytes, .size = sizeof(bytes) });
        assert_true(r == 0 || r == -EAGAIN);
        if (r == 0)
                assert_int_equal(call_end(call), 0);
}

static void reader_done(Call *call, const Answer *answer, void *userdata) {
        Reader *reader = userdata;
        Baton__Values *values;
        char error[VALUES_ERROR_MAX];

        (void) call;
        reader->done = true;
        reader->status = answer->status;
        assert_int_equal(values_unpack(answer->payload, answer->size, &values, error), 0);
        for (size_t i = 0; i < values->n_values && i < ARRAY_SIZE(reader->numbers); i++)
                reader->numbers[i] = values->values[i]->u;
        values_free(values);
}

static bool reader_is_done(void *reader) {
        return ((Reader *) reader)->done;
}

static void reader_start(Echo *echo, Reader *reader, const CallParameters *given) {
        CallParameters parameters = *given;

        parameters.item = reader_item;
        parameters.writable = reader_send;
        parameters.stream = reader->to_send > 0;
        assert_int_equal(call_start(echo->fixture.peer, &parameters, reader_done, reader, &reader->call), 0);
        if (reader->to_send > 0)
                reader_send(reader->call, reader);
}

static void test_server_stream(void **state) {
        /* u64:3000 u64:100 */
        static const uint8_t arguments[] = { 0x0a, 0x05, 0x10, 0xb8, 0x17, 0x38, 0x40,
                                             0x0a, 0x04, 0x10, 0x64, 0x38, 0x40 };
        CallParameters parameters = {
                .method = "echo.Echo/ServerStream",
                .type = VALUES_TYPE,
                .payload = arguments,
                .size = sizeof(arguments),
        };
        Reader reader = { 0 };
        Echo echo;
        Result result;

        (void) state;
        echo_open(&echo);
        reader_start(&echo, &reader, &parameters);
        fixture_until(&echo.fixture, reader_is_done, &reader);
        assert_int_equal(reader.status, STATUS_OK);
        assert_int_equal(reader.n, ITEMS);
        assert_int_equal(reader.bytes, ITEMS * 100);
        ASK(&echo, "echo.Echo/ServerStream", &result, STRING("many"));
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        ASK(&echo, "echo.Echo/ServerStream", &result, U64(1), U64(1u << 30));
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        assert_int_equal(echo_close(&echo), 0);
}

static void test_client_stream(void **state) {
        CallParameters parameters = { .method = "echo.Echo/ClientStream" };
        Reader reader = { .to_send = ITEMS }, empty = { 0 };
        Echo echo;

        (void) state;
        echo_open(&echo);
        reader_start(&echo, &reader, &parameters);
        fixture_until(&echo.fixture, reader_is_done, &reader);
        assert_int_equal(reader.status, STATUS_OK);
        assert_int_equal(reader.numbers[0], ITEMS);
        assert_int_equal(reader.numbers[1], ITEMS * 100);
        reader_start(&echo, &empty, &parameters);
        fixture_until(&echo.fixture, reader_is_done, &empty);
        assert_int_equal(empty.status, STATUS_OK);
        assert_int_equal(empty.numbers[0], 0);
        assert_int_equal(echo_close(&echo), 0);
}

/* A call that was made a moment ago takes items only when it is written. */
typedef struct PairSender {
        Call *call;
        const int *fds;
} PairSender;

static bool send_pair(void *argument) {
        const PairSender *sender = argument;
        int r = call_send(sender->call,
                          &(ItemParameters){ .payload = "x", .size = 1, .fds_consume = sender->fds, .n_fds = 2 });

        assert_true(r == 0 || r == -EAGAIN);
        return r == 0;
}

static void test_bidi(void **state) {
        CallParameters parameters = { .method = "echo.Echo/Bidi" };
        Reader slow = { .to_send = ITEMS * 2, .refuse = true }, reader = { .to_send = ITEMS }, fds = { 0 };
        int pair[2];
        Echo echo;

        (void) state;
        echo_open(&echo);
        reader_start(&echo, &slow, &parameters);
        reader_start(&echo, &reader, &parameters);
        fixture_until(&echo.fixture, reader_is_done, &reader);
        assert_int_equal(reader.n, ITEMS);
        assert_true(slow.sent < slow.to_send);
        slow.refuse = false;
        call_resume(slow.call);
        fixture_until(&echo.fixture, reader_is_done, &slow);
        assert_int_equal(slow.n, ITEMS * 2);
        /* Descriptors go along. One call stays open at the end. */
        parameters.stream = true;
        parameters.item = reader_item;
        assert_int_equal(call_start(echo.fixture.peer, &parameters, reader_done, &fds, &fds.call), 0);
        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        fixture_until(&echo.fixture, send_pair, &(PairSender){ .call = fds.call, .fds = pair });
        assert_int_equal(call_end(fds.call), 0);
        fixture_until(&echo.fixture, reader_is_done, &fds);
        assert_int_equal(fds.n_fds, 2);
        assert_int_equal(call_start(echo.fixture.peer, &parameters, reader_done, &slow, NULL), 0);
        assert_int_equal(echo_close(&echo), 0);
}

static void test_path_as_argument(void **state) {
        Echo echo;
        Result result;

        (void) state;
        echo_open_with(&echo, true);
        ASK(&echo, "echo.Echo/Unary", &result, STRING("hello"));
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(echo_close(&echo), 0);
}

static const struct CMUnitTest tests[] = {
        TEST(test_unary),         TEST(test_sleep),          TEST(test_fail), TEST(test_bad_arguments),
        TEST(test_call_back),     TEST(test_log_and_output), TEST(test_exit), TEST(test_crash),
        TEST(test_server_stream), TEST(test_client_stream),  TEST(test_bidi), TEST(test_path_as_argument),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The typed calls of baton.Control, against a supervisor played here: both peers live in one endpoint. What is asked is
 * checked as the other side sees it; answers are right, refused with details, of a wrong type, missing, or late.
 */

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "client/control.h"
#include "common/fd.h"
#include "proto/message.h"
#include "tests/seam.h"

/* What the other side does with the next calls. */
typedef enum Play {
        PLAY_ANSWER,
        PLAY_WRONG_TYPE,
        PLAY_GARBAGE,
        PLAY_REFUSE,
        PLAY_START_FAILURE,
        PLAY_RUNNER_ENDED,
        PLAY_SILENCE,
        PLAY_CLOSE,
} Play;

typedef struct Stage {
        Endpoint *endpoint;
        Control control;
        Peer *ours, *theirs;
        Play play;
        char method[64], name[64];
        uint64_t timeout_us;
        int number;
        Call *silent;
        bool cancelled;
} Stage;

static void on_cancel(Call *call, void *userdata) {
        Stage *stage = userdata;

        (void) call;
        stage->cancelled = true;
}

static void refuse(Call *call, Status status, const char *type, const ProtobufCMessage *message) {
        uint8_t packed[256];
        Baton__Detail unknown = BATON__DETAIL__INIT, detail = BATON__DETAIL__INIT;
        Baton__Detail *details[] = { &unknown, &detail };
        AnswerParameters answer = { .status = status, .message = "because", .details = details, .n_details = 2 };

        assert_true(protobuf_c_message_get_packed_size(message) <= sizeof(packed));
        unknown.type = (char *) "not.Known";
        detail.type = (char *) type;
        detail.value.len = protobuf_c_message_pack(message, packed);
        detail.value.data = packed;
        assert_int_equal(call_answer(call, &answer), 0);
}

static void start_failure(Call *call) {
        Baton__Control__StartFailure failure = BATON__CONTROL__START_FAILURE__INIT;
        Baton__Control__Exit how = BATON__CONTROL__EXIT__INIT;
        const char *lines[] = { "last", "words" };

        how.how = BATON__CONTROL__EXIT__HOW__EXITED;
        how.status = 3;
        failure.reason = BATON__CONTROL__START_FAILURE__REASON__EXITED_EARLY;
        failure.exit = &how;
        failure.last_output = (char **) lines;
        failure.n_last_output = 2;
        refuse(call, STATUS_UNAVAILABLE, "baton.control.StartFailure", &failure.base);
}

static void runner_ended(Call *call) {
        Baton__Control__RunnerEnded ended = BATON__CONTROL__RUNNER_ENDED__INIT;

        ended.name = (char *) "web";
        ended.instance = 7;
        refuse(call, STATUS_UNAVAILABLE, "baton.control.RunnerEnded", &ended.base);
}

static void answer_start(Stage *stage, Call *call, const Baton__Control__StartRequest *request) {
        Baton__Control__StartResponse response = BATON__CONTROL__START_RESPONSE__INIT;

        (void) snprintf(stage->name, sizeof(stage->name), "%.*s", (int) request->program.len,
                        (const char *) request->program.data);
        stage->number = (int) request->n_arguments;
        response.name = (char *) "web";
        response.pid = 42;
        assert_int_equal(call_answer_message(call, &response.base), 0);
}

static void answer_stop(Stage *stage, Call *call, const Baton__Control__StopRequest *request) {
        Baton__Control__StopResponse response = BATON__CONTROL__STOP_RESPONSE__INIT;

        (void) snprintf(stage->name, sizeof(stage->name), "%s", request->name);
        stage->timeout_us = request->timeout_us;
        response.killed = true;
        assert_int_equal(call_answer_message(call, &response.base), 0);
}

static void answer_signal(Stage *stage, Call *call, const Baton__Control__SignalRequest *request) {
        Baton__Control__SignalResponse response = BATON__CONTROL__SIGNAL_RESPONSE__INIT;

        (void) snprintf(stage->name, sizeof(stage->name), "%s", request->name);
        stage->number = request->signal;
        assert_int_equal(call_answer_message(call, &response.base), 0);
}

static void answer_logs(Stage *stage, Call *call, const Baton__Control__LogsRequest *request) {
        Baton__Control__LogsResponse response = BATON__CONTROL__LOGS_RESPONSE__INIT;

        assert_true(request->wait);
        (void) snprintf(stage->name, sizeof(stage->name), "%s", request->name);
        response.next_seq = request->from_seq + 1;
        assert_int_equal(call_answer_message(call, &response.base), 0);
}

/* The runner's answer: its own type and bytes. */
static void answer_call(Stage *stage, Call *call, const Baton__Control__CallRequest *request) {
        AnswerParameters answer = { .type = request->type,
                                    .payload = request->payload.data,
                                    .size = request->payload.len };

        (void) snprintf(stage->name, sizeof(stage->name), "%s/%s", request->name, request->method);
        assert_int_equal(call_answer(call, &answer), 0);
}

#define ANSWER(_function, _request, _descriptor)                                    \
        do {                                                                        \
                size_t _size;                                                       \
                const void *_data = call_payload(call, &_size);                     \
                _request *_message = message_unpack(&(_descriptor), _data, _size);  \
                assert_non_null(_message);                                          \
                assert_string_equal(call_envelope(call)->type, (_descriptor).name); \
                _function(stage, call, _message);                                   \
                (void) message_free(_message);                                      \
        } while (0)

static void answer(Stage *stage, Call *call) {
        if (strcmp(stage->method, "baton.Control/Start") == 0)
                ANSWER(answer_start, Baton__Control__StartRequest, baton__control__start_request__descriptor);
        else if (strcmp(stage->method, "baton.Control/Stop") == 0)
                ANSWER(answer_stop, Baton__Control__StopRequest, baton__control__stop_request__descriptor);
        else if (strcmp(stage->method, "baton.Control/Signal") == 0)
                ANSWER(answer_signal, Baton__Control__SignalRequest, baton__control__signal_request__descriptor);
        else if (strcmp(stage->method, "baton.Control/Logs") == 0)
                ANSWER(answer_logs, Baton__Control__LogsRequest, baton__control__logs_request__descriptor);
        else if (strcmp(stage->method, "baton.Control/Call") == 0)
                ANSWER(answer_call, Baton__Control__CallRequest, baton__control__call_request__descriptor);
        else
                fail();
}

static void on_call(Peer *peer, Call *call) {
        static const AnswerParameters garbage = { .type = "baton.control.StartResponse",
                                                  .payload = "\xff\xff",
                                                  .size = 2 };
        Baton__Control__Exit wrong = BATON__CONTROL__EXIT__INIT;
        Stage *stage = peer_userdata(peer);

        (void) snprintf(stage->method, sizeof(stage->method), "%s", call_envelope(call)->method);
        switch (stage->play) {
        case PLAY_ANSWER:
                answer(stage, call);
                break;
        case PLAY_WRONG_TYPE:
                assert_int_equal(call_answer_message(call, &wrong.base), 0);
                break;
        case PLAY_GARBAGE:
                assert_int_equal(call_answer(call, &garbage), 0);
                break;
        case PLAY_REFUSE:
                assert_int_equal(call_fail(call, STATUS_ALREADY_EXISTS, "web is there"), 0);
                break;
        case PLAY_START_FAILURE:
                start_failure(call);
                break;
        case PLAY_RUNNER_ENDED:
                runner_ended(call);
                break;
        case PLAY_SILENCE:
                stage->silent = call;
                call_on_cancel(call, on_cancel, stage);
                control_interrupt(&stage->control);
                break;
        case PLAY_CLOSE:
                stage->silent = call;
                peer_close(peer, STATUS_UNAVAILABLE, "going down");
                break;
        }
}

static const PeerHandler their_handler = { .call = on_call };

static int stage_open(Stage *stage, Play play) {
        PeerConfig config = { .n_channels = 1, .renewal = LANE_RENEWAL_NONE };
        int pair[2], r;

        *stage = (Stage){ .play = play };
        r = endpoint_new(&stage->endpoint);
        if (r < 0)
                return r;
        control_init(&stage->control, stage->endpoint);
        r = fd_socketpair(SOCK_STREAM, pair);
        if (r < 0)
                return r;
        r = endpoint_add_peer(stage->endpoint, &config, pair[0], &their_handler, stage, &stage->theirs);
        config.side = 1;
        if (r < 0)
                (void) fd_close(pair[1]);
        else
                r = endpoint_add_peer(stage->endpoint, &config, pair[1], &control_handler, &stage->control,
                                      &stage->ours);
        control_attach(&stage->control, stage->ours);
        return r;
}

static void stage_close(Stage *stage) {
        stage->ours = peer_free(stage->ours);
        stage->theirs = peer_free(stage->theirs);
        if (stage->silent)
                (void) call_fail(stage->silent, STATUS_CANCELLED, "the test is over");
        control_deinit(&stage->control);
        stage->endpoint = endpoint_free(stage->endpoint);
}

static int start(Stage *stage, ControlStarted **ret_started, ControlFailure *ret_failure) {
        ControlStart request = BATON__CONTROL__START_REQUEST__INIT;
        ProtobufCBinaryData arguments[] = { control_bytes("a"), control_bytes("b\xff") };

        request.program = control_bytes("/bin/web");
        request.arguments = arguments;
        request.n_arguments = 2;
        return control_start(&stage->control, &request, ret_started, ret_failure);
}

static void test_start(void **state) {
        _cleanup_message_ ControlStarted *started = NULL;
        ControlFailure failure = { 0 };
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_ANSWER), 0);
        assert_int_equal(start(&stage, &started, &failure), 0);
        assert_string_equal(started->name, "web");
        assert_int_equal(started->pid, 42);
        assert_string_equal(stage.name, "/bin/web");
        assert_int_equal(stage.number, 2);
        stage_close(&stage);
}

static const struct {
        Play play;
        Status status;
        const char *message;
} refusals[] = {
        { PLAY_REFUSE, STATUS_ALREADY_EXISTS, "web is there" },
        { PLAY_WRONG_TYPE, STATUS_INTERNAL, "the supervisor's answer is no message of the expected type" },
        { PLAY_GARBAGE, STATUS_INTERNAL, "the supervisor's answer is no message of the expected type" },
        { PLAY_START_FAILURE, STATUS_UNAVAILABLE, "because" },
        { PLAY_RUNNER_ENDED, STATUS_UNAVAILABLE, "because" },
        { PLAY_CLOSE, STATUS_UNAVAILABLE, NULL },
};

static void test_refused(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
                ControlStarted *started = NULL;
                ControlFailure failure = { 0 };
                Stage stage;

                assert_int_equal(stage_open(&stage, refusals[i].play), 0);
                assert_int_equal(start(&stage, &started, &failure), CONTROL_REFUSED);
                assert_null(started);
                assert_int_equal(failure.status, refusals[i].status);
                if (refusals[i].message)
                        assert_string_equal(failure.message, refusals[i].message);
                else
                        assert_non_null(strstr(failure.message, "going down"));
                assert_true(!failure.start == (refusals[i].play != PLAY_START_FAILURE));
                assert_true(!failure.ended == (refusals[i].play != PLAY_RUNNER_ENDED));
                if (failure.start) {
                        assert_int_equal(failure.start->exit->status, 3);
                        assert_string_equal(failure.start->last_output[1], "words");
                }
                if (failure.ended)
                        assert_string_equal(failure.ended->name, "web");
                control_failure_deinit(&failure);
                stage_close(&stage);
        }
}

/* After the end every further call is refused at once, with the reason. */
static void test_after_the_end(void **state) {
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_CLOSE), 0);
        for (int i = 0; i < 2; i++) {
                ControlFailure failure = { 0 };

                assert_int_equal(control_signal(&stage.control, "web", 9, &failure), CONTROL_REFUSED);
                assert_int_equal(failure.status, STATUS_UNAVAILABLE);
                assert_non_null(strstr(failure.message, "going down"));
                control_failure_deinit(&failure);
        }
        assert_true(stage.control.ended);
        stage_close(&stage);
}

/* A wait that is interrupted cancels its call: the other side is told. */
static void test_interrupted(void **state) {
        ControlFailure failure = { 0 };
        ControlStarted *started = NULL;
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_SILENCE), 0);
        assert_int_equal(start(&stage, &started, &failure), -EINTR);
        while (!stage.cancelled)
                assert_int_equal(endpoint_dispatch(stage.endpoint, -1), 0);
        assert_null(started);
        assert_null(failure.message);
        stage_close(&stage);
}

static void test_stop_and_signal(void **state) {
        _cleanup_message_ ControlStopped *stopped = NULL;
        ControlFailure failure = { 0 };
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_ANSWER), 0);
        assert_int_equal(control_stop(&stage.control, "web", 1500000, &stopped, &failure), 0);
        assert_true(stopped->killed);
        assert_string_equal(stage.name, "web");
        assert_int_equal(stage.timeout_us, 1500000);
        assert_int_equal(control_signal(&stage.control, "other", 15, &failure), 0);
        assert_string_equal(stage.name, "other");
        assert_int_equal(stage.number, 15);
        stage_close(&stage);
}

static void test_logs_and_supervised(void **state) {
        static const CallParameters call = {
                .method = "a.B/C", .type = "a.D", .payload = "x\0y", .size = 3, .timeout_us = 1000000
        };
        _cleanup_message_ ControlLogs *logs = NULL;
        ControlCall first, second;
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_ANSWER), 0);
        control_begin_logs(&stage.control, &first, "web", 41, true);
        control_begin_supervised(&stage.control, &second, "web", &call);
        assert_int_equal(control_wait(&stage.control, &second), 0);
        assert_int_equal(control_wait(&stage.control, &first), 0);
        logs = control_unpack(&first, &baton__control__logs_response__descriptor);
        assert_non_null(logs);
        assert_int_equal(logs->next_seq, 42);
        assert_null(control_unpack(&first, &baton__control__stop_response__descriptor));
        assert_int_equal(second.failure.status, STATUS_OK);
        assert_string_equal(control_call_type(&second), "a.D");
        assert_int_equal(second.size, 3);
        assert_memory_equal(second.payload, "x\0y", 3);
        assert_string_equal(stage.name, "web/a.B/C");
        control_call_deinit(&first);
        control_call_deinit(&second);
        stage_close(&stage);
}

/* A call that is dropped before its answer leaves nothing. */
static void test_dropped(void **state) {
        ControlCall call;
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_ANSWER), 0);
        control_begin_logs(&stage.control, &call, "web", 0, true);
        control_call_deinit(&call);
        stage_close(&stage);
}

static void test_begin_without_memory(void **state) {
        ControlFailure failure = { 0 };
        Stage stage;

        (void) state;
        assert_int_equal(stage_open(&stage, PLAY_ANSWER), 0);
        seam_fail(SEAM_MALLOC, 1, ENOMEM);
        assert_int_equal(control_signal(&stage.control, "web", 9, &failure), CONTROL_REFUSED);
        assert_int_equal(failure.status, STATUS_RESOURCE_EXHAUSTED);
        control_failure_deinit(&failure);
        stage_close(&stage);
}

static const struct CMUnitTest tests[] = {
        TEST(test_start),           TEST(test_refused),
        TEST(test_after_the_end),   TEST(test_interrupted),
        TEST(test_stop_and_signal), TEST(test_logs_and_supervised),
        TEST(test_dropped),         TEST(test_begin_without_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The supervisor's end answers "test.Echo" with what it got, sends items of "test.Stream" back, records the log, and
 * refuses everything else. It holds log calls back when told to, as a supervisor does whose disk is slow.
 */

#include "tests/runner-fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/message.h"
#include "proto/service.h"

/* ---- the supervisor's end ---- */

static void on_ready(Peer *peer, bool renewed) {
        Fixture *fixture = peer_userdata(peer);

        fixture->n_ready++;
        fixture->n_renewed += renewed;
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Fixture *fixture = peer_userdata(peer);

        fixture->ended = true;
        fixture->end_status = status;
        (void) snprintf(fixture->end_reason, sizeof(fixture->end_reason), "%s", reason);
}

static void record_log(Fixture *fixture, Call *call) {
        size_t size;
        const uint8_t *payload = call_payload(call, &size);
        Baton__LogWrite *write = message_unpack(&baton__log_write__descriptor, payload, size);

        assert_non_null(write);
        assert_string_equal(call_envelope(call)->type, "baton.LogWrite");
        for (size_t i = 0; i < write->n_records; i++) {
                const Baton__LogRecord *from = write->records[i];
                Record *to = &fixture->records[fixture->n_records++];

                assert_true(fixture->n_records < ARRAY_SIZE(fixture->records));
                assert_true(from->time_us > 0);
                *to = (Record){ .seq = write->first_seq + i, .level = from->level, .line = from->line };
                to->length = strlen(from->text);
                (void) snprintf(to->text, sizeof(to->text), "%s", from->text);
                (void) snprintf(to->target, sizeof(to->target), "%s", from->target);
                (void) snprintf(to->file, sizeof(to->file), "%s", from->file);
        }
        message_free(write);
}

static void on_log(Fixture *fixture, Call *call) {
        record_log(fixture, call);
        fixture->n_log_calls++;
        if (!fixture->hold_log) {
                (void) call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
                return;
        }
        assert_true(fixture->n_held < FIXTURE_MAX);
        fixture->held[fixture->n_held++] = call;
}

static void on_echo(Call *call) {
        const Baton__Envelope *envelope = call_envelope(call);
        AnswerParameters parameters = { .type = envelope->type };
        int fds[FIXTURE_MAX], *given;

        parameters.payload = call_payload(call, &parameters.size);
        given = call_fds(call, &parameters.n_fds);
        for (size_t i = 0; i < parameters.n_fds; i++)
                fds[i] = fd_take(&given[i]);
        parameters.fds_consume = fds;
        parameters.metadata = envelope->metadata;
        parameters.n_metadata = envelope->n_metadata;
        (void) call_answer(call, &parameters);
}

/* ---- "test.Stream" ---- */

static bool stream_item(Call *call, const Item *item, void *userdata) {
        ItemParameters parameters = {
                .type = item->envelope->type,
                .payload = item->payload,
                .size = item->size,
                .n_fds = item->n_fds,
        };
        FixtureStream *stream = userdata;
        int fds[FIXTURE_MAX], r = 0;

        for (size_t i = 0; i < item->n_fds; i++)
                fds[i] = item->fds[i];
        parameters.fds_consume = fds;
        if (!item->bare)
                r = call_send(call, &parameters);
        if (r == -EAGAIN)
                return false;
        assert_int_equal(r, 0);
        for (size_t i = 0; i < item->n_fds; i++)
                item->fds[i] = -1;
        stream->n += !item->bare;
        if (item->end) {
                stream->call = NULL;
                (void) call_answer(call, &(AnswerParameters){ .payload = &stream->n, .size = sizeof(stream->n) });
        }
        return true;
}

static void stream_writable(Call *call, void *userdata) {
        (void) userdata;
        call_resume(call);
}

static void stream_cancelled(Call *call, void *userdata) {
        FixtureStream *stream = userdata;

        stream->call = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

static void on_stream(Fixture *fixture, Call *call) {
        FixtureStream *stream = fixture->streams;

        while (stream->call)
                stream++;
        assert_true(stream < fixture->streams + FIXTURE_MAX);
        *stream = (FixtureStream){ .fixture = fixture, .call = call };
        call_on_stream(call, stream_item, stream_writable, stream);
        call_on_cancel(call, stream_cancelled, stream);
}

bool fixture_has_streams(void *argument) {
        const FixtureStreams *streams = argument;
        size_t n = 0;

        for (size_t i = 0; i < FIXTURE_MAX; i++)
                n += streams->fixture->streams[i].call != NULL;
        return n == streams->n;
}

static void on_call(Peer *peer, Call *call) {
        const char *method = call_envelope(call)->method;

        if (strcmp(method, "baton.Log/Write") == 0)
                on_log(peer_userdata(peer), call);
        else if (strcmp(method, "test.Echo") == 0)
                on_echo(call);
        else if (strcmp(method, "test.Stream") == 0)
                on_stream(peer_userdata(peer), call);
        else
                (void) call_fail(call, STATUS_PERMISSION_DENIED, "not %s", method);
}

static const PeerHandler handler = { .ready = on_ready, .call = on_call, .ended = on_ended };

/* ---- life ---- */

void fixture_listen(Fixture *fixture) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *root = getenv("TMPDIR");

        (void) snprintf(fixture->dir, sizeof(fixture->dir), "%s/runner-XXXXXX", root ? root : "/tmp");
        assert_non_null(mkdtemp(fixture->dir));
        (void) snprintf(fixture->path, sizeof(fixture->path), "%s/bootstrap", fixture->dir);
        fixture->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fixture->listener >= 0);
        assert_true(strlen(fixture->path) < sizeof(address.sun_path));
        (void) strcpy(address.sun_path, fixture->path);
        assert_int_equal(bind(fixture->listener, (struct sockaddr *) &address, sizeof(address)), 0);
        assert_int_equal(listen(fixture->listener, 1000), 0);
}

void fixture_unlisten(Fixture *fixture) {
        fixture->listener = fd_close(fixture->listener);
        assert_int_equal(unlink(fixture->path), 0);
        assert_int_equal(rmdir(fixture->dir), 0);
}

void fixture_accept(Fixture *fixture) {
        PeerConfig config = {
                .side = 0,
                .n_channels = LANE_CHANNELS,
                .renewal = LANE_RENEWAL_SELF,
                .software = "fixture 1",
                .instance = FIXTURE_INSTANCE,
        };
        int fd = accept4(fixture->listener, NULL, NULL, SOCK_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(endpoint_new(&fixture->endpoint), 0);
        assert_int_equal(endpoint_add_peer(fixture->endpoint, &config, fd, &handler, fixture, &fixture->peer), 0);
}

void fixture_open_with(Fixture *fixture, const struct baton_runner_options *options) {
        struct baton_runner_options given = { .size = sizeof(given) };

        *fixture = (Fixture){ .listener = -1 };
        fixture_listen(fixture);
        if (options)
                given = *options;
        given.bootstrap = fixture->path;
        assert_int_equal(baton_runner_new(&fixture->runner, &given), 0);
        fixture_accept(fixture);
        fixture_unlisten(fixture);
}

static bool is_ready(void *argument) {
        const Fixture *fixture = argument;

        return fixture->n_ready > 0 && baton_runner_instance(fixture->runner) != 0;
}

void fixture_open(Fixture *fixture) {
        fixture_open_with(fixture, NULL);
        fixture_until(fixture, is_ready, fixture);
}

void fixture_open_service(Fixture *fixture, const struct baton_service *service, void *userdata) {
        fixture_open_with(fixture, NULL);
        assert_int_equal(baton_runner_set_service(fixture->runner, service, userdata), 0);
        fixture_until(fixture, is_ready, fixture);
        assert_int_equal(peer_remote(fixture->peer)->service_state, SERVICE_STATE_INIT);
}

void fixture_close(Fixture *fixture) {
        baton_runner_free(fixture->runner);
        for (size_t i = 0; i < fixture->n_held; i++)
                (void) call_fail(fixture->held[i], STATUS_ABORTED, "closing");
        peer_free(fixture->peer);
        for (size_t i = 0; i < FIXTURE_MAX; i++)
                if (fixture->streams[i].call)
                        (void) call_fail(fixture->streams[i].call, STATUS_ABORTED, "closing");
        endpoint_free(fixture->endpoint);
}

/* ---- driving ---- */

void fixture_until(Fixture *fixture, bool (*done)(void *argument), void *argument) {
        while (!done(argument)) {
                struct pollfd fds[] = {
                        { .fd = fixture->runner ? baton_runner_fd(fixture->runner) : -1, .events = POLLIN },
                        { .fd = endpoint_fd(fixture->endpoint), .events = POLLIN },
                };

                /* What has come to its end is not watched any more: its descriptor may stay readable. */
                if (fixture->r != 0)
                        fds[0].fd = -1;
                assert_true(poll(fds, ARRAY_SIZE(fds), 5000) > 0);
                if (fds[0].revents)
                        fixture->r = baton_runner_dispatch(fixture->runner, 0);
                if (fds[1].revents)
                        assert_int_equal(endpoint_dispatch(fixture->endpoint, 0), 0);
        }
}

void fixture_turn(Fixture *fixture) {
        if (fixture->runner && fixture->r == 0)
                fixture->r = baton_runner_dispatch(fixture->runner, 0);
        assert_int_equal(endpoint_dispatch(fixture->endpoint, 0), 0);
}

bool result_is_done(void *result) {
        return ((Result *) result)->done;
}

static void copy_text(char *to, size_t size, const char *from) {
        (void) snprintf(to, size, "%s", from);
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        const Baton__Envelope *envelope = answer->envelope;
        Result *result = userdata;

        (void) call;
        assert_false(result->done);
        result->done = true;
        result->status = answer->status;
        result->local = answer->local;
        copy_text(result->message, sizeof(result->message), answer->message);
        copy_text(result->type, sizeof(result->type), envelope->type);
        if (envelope->n_details > 0) {
                const Baton__Detail *detail = envelope->details[envelope->n_details - 1];

                copy_text(result->detail_type, sizeof(result->detail_type), detail->type);
                memcpy(result->detail, detail->value.data, MIN(detail->value.len, sizeof(result->detail) - 1));
        }
        if (envelope->n_metadata > 0) {
                const Baton__Pair *pair = envelope->metadata[envelope->n_metadata - 1];

                copy_text(result->key, sizeof(result->key), pair->key);
                memcpy(result->value, pair->value.data, MIN(pair->value.len, sizeof(result->value) - 1));
        }
        result->size = answer->size;
        if (answer->size > 0)
                memcpy(result->data, answer->payload, MIN(answer->size, sizeof(result->data) - 1));
        result->n_fds = answer->n_fds;
        for (size_t i = 0; i < answer->n_fds; i++)
                result->fds[i] = fd_take(&answer->fds[i]);
}

Call *fixture_call(Fixture *fixture, const CallParameters *parameters, Result *result) {
        Call *call = NULL;

        *result = (Result){ 0 };
        assert_int_equal(call_start(fixture->peer, parameters, on_done, result, &call), 0);
        return call;
}

void fixture_ask(Fixture *fixture, const char *method, const char *data, Result *result) {
        CallParameters parameters = { .method = method, .payload = data, .size = data ? strlen(data) : 0 };

        (void) fixture_call(fixture, &parameters, result);
        fixture_until(fixture, result_is_done, result);
}

void fixture_add(Fixture *fixture, const char *method, baton_method_fn function, void *userdata) {
        assert_int_equal(baton_runner_add_method(fixture->runner, method, function, userdata), 0);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Clients of a runner: engine peers of side 0 on lanes that the supervisor's end hands over, hosted by its endpoint. What
 * they may call, who they are to a handler, how many they may be, and what is left when they go.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/runner-fixture.h"
#include "tests/seam.h"

#define MAX_KEPT 16

/* ---- clients ---- */

typedef struct Client {
        Peer *peer;
        bool ready, ended;
        Status status;
} Client;

static void client_ready(Peer *peer, bool renewed) {
        (void) renewed;
        ((Client *) peer_userdata(peer))->ready = true;
}

static void client_ended(Peer *peer, Status status, const char *reason) {
        Client *client = peer_userdata(peer);

        (void) reason;
        client->ended = true;
        client->status = status;
}

static void client_call(Peer *peer, Call *call) {
        (void) peer;
        (void) call_answer(call, &(AnswerParameters){ .payload = "from a client", .size = 13 });
}

static const PeerHandler client_handler = { .ready = client_ready, .ended = client_ended, .call = client_call };

static bool client_is_ready(void *client) {
        return ((Client *) client)->ready;
}

static bool client_is_ended(void *client) {
        return ((Client *) client)->ended;
}

static uint32_t max_clients; /* what the supervisor allows */

/* attach_fd() - baton.Runner/Attach with this lane; its result. */
static void attach_fd(Fixture *f, int fd_consume, uint32_t lane, uint32_t epoch, Result *result) {
        Baton__AttachRequest request = BATON__ATTACH_REQUEST__INIT;
        CallParameters parameters = { .method = "baton.Runner/Attach", .fds_consume = &fd_consume, .n_fds = 1 };
        uint8_t bytes[256];

        request.lane = lane;
        request.epoch = epoch;
        request.pid = 4711;
        request.uid = 1000;
        request.gid = 100;
        request.name = (char *) "a client";
        request.max_clients = max_clients;
        parameters.payload = bytes;
        parameters.size = baton__attach_request__pack(&request, bytes);
        (void) fixture_call(f, &parameters, result);
        fixture_until(f, result_is_done, result);
}

/* attach() - a client; whether it was taken is in @result. */
static void attach(Fixture *f, Client *client, uint32_t epoch, Result *result) {
        PeerConfig config = {
                .side = 0,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_PEER,
                .software = "client 1",
        };
        int fds[2];

        *client = (Client){ 0 };
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(endpoint_add_peer(f->endpoint, &config, fds[0], &client_handler, client, &client->peer), 0);
        attach_fd(f, fds[1], 0, epoch, result);
}

static void attach_well(Fixture *f, Client *client) {
        Result result;

        attach(f, client, 0, &result);
        assert_int_equal(result.status, STATUS_OK);
        fixture_until(f, client_is_ready, client);
}

/* begin() - calls the runner as @peer. */
static void begin(Fixture *f, Peer *peer, const CallParameters *parameters, Result *result) {
        Peer *supervisor = f->peer;

        f->peer = peer;
        (void) fixture_call(f, parameters, result);
        f->peer = supervisor;
}

static void ask(Fixture *f, Peer *peer, const char *method, const void *data, size_t size, Result *result) {
        begin(f, peer, &(CallParameters){ .method = method, .payload = data, .size = size }, result);
        fixture_until(f, result_is_done, result);
}

/* ---- handlers ---- */

typedef struct Kept {
        struct baton_call *calls[MAX_KEPT];
        size_t n;
        unsigned n_cancelled;
        Result result; /* of a request */
} Kept;

static void count_cancel(struct baton_call *call, void *userdata) {
        (void) call;
        ((Kept *) userdata)->n_cancelled++;
}

static void keep(struct baton_call *call, void *userdata) {
        Kept *kept = userdata;

        baton_call_on_cancel(call, count_cancel, kept);
        kept->calls[kept->n++] = call;
}

static bool one_kept(void *kept) {
        return ((Kept *) kept)->n == 1;
}

static bool one_cancelled(void *kept) {
        return ((Kept *) kept)->n_cancelled == 1;
}

static void who(struct baton_call *call, void *userdata) {
        const struct baton_caller *caller = baton_call_client(call);
        char text[128] = "the supervisor";

        assert_ptr_equal(baton_call_runner(call), ((Fixture *) userdata)->runner);
        if (caller)
                (void) snprintf(text, sizeof(text), "%llu %lld %u %u %s", (unsigned long long) caller->id,
                                (long long) caller->pid, caller->uid, caller->gid, caller->name);
        assert_int_equal(baton_call_answer(call, "", text, strlen(text)), 0);
}

static void expect_text(const Result *result, const char *text) {
        assert_int_equal(result->status, STATUS_OK);
        assert_int_equal(result->size, strlen(text));
        assert_memory_equal(result->data, text, result->size);
}

/* ---- tests ---- */

static void test_who_calls(void **state) {
        Client clients[2];
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Who", who, &f);
        attach_well(&f, &clients[0]);
        attach_well(&f, &clients[1]);
        assert_int_equal(peer_remote(clients[0].peer)->instance, FIXTURE_INSTANCE);
        ask(&f, clients[0].peer, "Who", NULL, 0, &result);
        expect_text(&result, "1 4711 1000 100 a client");
        ask(&f, clients[1].peer, "Who", NULL, 0, &result);
        expect_text(&result, "2 4711 1000 100 a client");
        ask(&f, f.peer, "Who", NULL, 0, &result);
        expect_text(&result, "the supervisor");
        peer_free(clients[0].peer);
        peer_free(clients[1].peer);
        fixture_close(&f);
}

static void test_what_clients_may(void **state) {
        static const struct {
                const char *method;
                Status status;
        } rows[] = {
                { "baton.Runner/Ping", STATUS_OK },
                { "baton.Health/Check", STATUS_OK },
                { "baton.Reflection/List", STATUS_OK },
                { "baton.Runner/Stop", STATUS_PERMISSION_DENIED },
                { "baton.Runner/Exit", STATUS_PERMISSION_DENIED },
                { "baton.Runner/Attach", STATUS_PERMISSION_DENIED },
                { "baton.Runner/Other", STATUS_UNIMPLEMENTED },
                { "Other", STATUS_UNIMPLEMENTED },
        };
        Client client;
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        attach_well(&f, &client);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ask(&f, client.peer, rows[i].method, NULL, 0, &result);
                assert_int_equal(result.status, rows[i].status);
        }
        peer_free(client.peer);
        fixture_close(&f);
}

static void test_no_lane(void **state) {
        Fixture f;
        Result result;
        int fds[2];

        (void) state;
        fixture_open(&f);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        attach_fd(&f, fds[0], 0, 0, &result);
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        attach_fd(&f, fds[1], 1, 0, &result);
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        ask(&f, f.peer, "baton.Runner/Attach", "\xff", 1, &result);
        assert_int_equal(result.status, STATUS_INVALID_ARGUMENT);
        fixture_close(&f);
}

/* The supervisor may allow fewer than the runner, not more. */
static void test_supervisors_bound(void **state) {
        struct baton_runner_options options = { .size = sizeof(options), .max_clients = 2 };
        Client clients[2];
        Fixture f;
        Result result;

        (void) state;
        fixture_open_with(&f, &options);
        attach_well(&f, &clients[0]);
        max_clients = 1;
        attach(&f, &clients[1], 0, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        peer_free(clients[1].peer);
        max_clients = 3;
        attach_well(&f, &clients[1]);
        peer_free(clients[1].peer);
        max_clients = 0;
        peer_free(clients[0].peer);
        fixture_close(&f);
}

/* An ended client counts as long as one of its calls is open here. */
static void test_bound(void **state) {
        struct baton_runner_options options = { .size = sizeof(options), .max_clients = 2 };
        CallParameters parameters = { .method = "Keep" };
        Kept kept = { 0 };
        Client clients[3];
        Fixture f;
        Result result, open;

        (void) state;
        fixture_open_with(&f, &options);
        fixture_add(&f, "Keep", keep, &kept);
        attach_well(&f, &clients[0]);
        attach_well(&f, &clients[1]);
        attach(&f, &clients[2], 0, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        fixture_until(&f, client_is_ended, &clients[2]);
        peer_free(clients[2].peer);

        begin(&f, clients[0].peer, &parameters, &open);
        fixture_until(&f, one_kept, &kept);
        peer_free(clients[0].peer);
        fixture_until(&f, one_cancelled, &kept);
        attach(&f, &clients[2], 0, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        fixture_until(&f, client_is_ended, &clients[2]);
        peer_free(clients[2].peer);
        assert_string_equal(baton_call_client(kept.calls[0])->name, "a client");
        assert_int_equal(baton_call_answer(kept.calls[0], "", NULL, 0), -ECANCELED);
        ask(&f, f.peer, "baton.Runner/Ping", NULL, 0, &result);
        attach_well(&f, &clients[2]);
        peer_free(clients[1].peer);
        peer_free(clients[2].peer);
        fixture_close(&f);
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Result *result = userdata;

        result->done = true;
        result->status = (Status) answer->status;
        result->size = answer->size;
        memcpy(result->data, answer->data, answer->size);
}

/* The runner calls a client, and forgets it in order when it goes. */
static void test_calls_to_clients(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = "Any" };
        struct baton_connection *connection;
        Kept kept = { 0 };
        Client client;
        Fixture f;
        Result result = { 0 }, open;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &kept);
        attach_well(&f, &client);
        begin(&f, client.peer, &(CallParameters){ .method = "Keep" }, &open);
        fixture_until(&f, one_kept, &kept);
        connection = baton_call_connection(kept.calls[0]);
        assert_int_equal(baton_connection_call(connection, &parameters, on_answer, &result, NULL), 0);
        fixture_until(&f, result_is_done, &result);
        expect_text(&result, "from a client");
        peer_free(client.peer);
        fixture_until(&f, one_cancelled, &kept);
        assert_int_equal(baton_connection_call(connection, &parameters, on_answer, &result, NULL), -ESHUTDOWN);
        assert_int_equal(baton_call_fail(kept.calls[0], BATON_CANCELLED, "gone"), -ECANCELED);
        ask(&f, f.peer, "baton.Runner/Ping", NULL, 0, &result);
        fixture_close(&f);
}

static bool supervisor_ended(void *fixture) {
        return ((Fixture *) fixture)->ended && ((Fixture *) fixture)->r != 0;
}

/* Stop waits for the calls of all peers, and clients get their last answers. */
static void test_stop_drains_clients(void **state) {
        CallParameters stop = { .method = "baton.Runner/Stop" };
        Kept kept = { 0 };
        Client client, second;
        Fixture f;
        Result open, stopped, late;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &kept);
        attach_well(&f, &client);
        begin(&f, client.peer, &(CallParameters){ .method = "Keep" }, &open);
        fixture_until(&f, one_kept, &kept);
        (void) fixture_call(&f, &stop, &stopped);
        ask(&f, client.peer, "Keep", NULL, 0, &late);
        assert_int_equal(late.status, STATUS_UNAVAILABLE);
        assert_false(stopped.done);
        attach(&f, &second, 0, &late);
        assert_int_equal(late.status, STATUS_UNAVAILABLE);
        peer_free(second.peer);
        assert_int_equal(baton_call_answer(kept.calls[0], "", "last", 4), 0);
        fixture_until(&f, result_is_done, &stopped);
        fixture_until(&f, result_is_done, &open);
        expect_text(&open, "last");
        ask(&f, f.peer, "baton.Runner/Exit", NULL, 0, &stopped);
        assert_int_equal(stopped.status, STATUS_OK);
        fixture_until(&f, supervisor_ended, &f);
        fixture_until(&f, client_is_ended, &client);
        assert_int_equal(client.status, STATUS_OK);
        peer_free(client.peer);
        fixture_close(&f);
}

/* take_channel() - what a runner did that is gone: it took channel 0 of the lane. */
static void take_channel(int lane_fd) {
        Lane lane;
        uint64_t id;
        int channel = -1;

        lane_init(&lane, fd_dup(lane_fd), 1, 1, LANE_RENEWAL_SELF, 64);
        assert_int_equal(lane_receive(&lane, &id, &channel), LANE_CHANNEL);
        (void) fd_close(channel);
        lane.fd = fd_close(lane.fd); /* not the socket's end: the lane lives */
        lane_deinit(&lane);
}

/* The lane of a client whose runner was replaced is in a later epoch: the new one renews it. And the runner's end is told. */
static void test_epoch(void **state) {
        PeerConfig config = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_PEER, .software = "client 1" };
        Client client = { 0 };
        Fixture f;
        Result result;
        int fds[2];

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Who", who, &f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        assert_int_equal(endpoint_add_peer(f.endpoint, &config, fds[0], &client_handler, &client, &client.peer), 0);
        assert_int_equal(endpoint_dispatch(f.endpoint, 0), 0);
        take_channel(fds[1]);
        attach_fd(&f, fds[1], 0, 1, &result);
        assert_int_equal(result.status, STATUS_OK);
        fixture_until(&f, client_is_ready, &client);
        ask(&f, client.peer, "Who", NULL, 0, &result);
        expect_text(&result, "1 4711 1000 100 a client");
        baton_runner_free(f.runner);
        f.runner = NULL;
        f.r = 1;
        fixture_until(&f, client_is_ended, &client);
        peer_free(client.peer);
        fixture_close(&f);
}

/* ---- health and reflection ---- */

/* health() - what baton.Health/Check says of @service; -1: NOT_FOUND. */
static int health(Fixture *f, const char *service) {
        Baton__HealthRequest request = BATON__HEALTH_REQUEST__INIT;
        Baton__HealthResponse *response;
        uint8_t bytes[256];
        Result result;
        int status;

        request.service = (char *) service;
        ask(f, f->peer, "baton.Health/Check", bytes, baton__health_request__pack(&request, bytes), &result);
        if (result.status == STATUS_NOT_FOUND)
                return -1;
        assert_int_equal(result.status, STATUS_OK);
        assert_string_equal(result.type, "baton.HealthResponse");
        response = baton__health_response__unpack(NULL, result.size, result.data);
        status = (int) response->status;
        baton__health_response__free_unpacked(response, NULL);
        return status;
}

static void test_health(void **state) {
        enum { SERVING = 1, NOT_SERVING = 2 };
        CallParameters stop = { .method = "baton.Runner/Stop" };
        Kept kept = { 0 };
        Fixture f;
        Result result, unused;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "a.Service/Keep", keep, &kept);
        assert_int_equal(health(&f, ""), SERVING);
        assert_int_equal(health(&f, "a.Service"), SERVING);
        assert_int_equal(health(&f, "a.Ser"), -1);
        assert_int_equal(baton_runner_set_health(f.runner, NULL, 0), 0);
        assert_int_equal(health(&f, ""), NOT_SERVING);
        assert_int_equal(health(&f, "a.Service"), NOT_SERVING);
        assert_int_equal(baton_runner_set_health(f.runner, "a.Service", 1), 0);
        assert_int_equal(baton_runner_set_health(f.runner, "another", 1), 0);
        assert_int_equal(baton_runner_set_health(f.runner, "another", 0), 0);
        assert_int_equal(baton_runner_set_health(f.runner, "", 1), 0);
        assert_int_equal(baton_runner_set_health(f.runner, "\xff", 1), -EINVAL);
        assert_int_equal(health(&f, ""), SERVING);
        assert_int_equal(health(&f, "a.Service"), SERVING);
        assert_int_equal(health(&f, "another"), NOT_SERVING);
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(baton_runner_set_health(f.runner, "one more", 1), -ENOMEM);
        seam_reset();
        (void) fixture_call(&f, &(CallParameters){ .method = "a.Service/Keep" }, &unused);
        (void) fixture_call(&f, &stop, &result);
        fixture_until(&f, one_kept, &kept);
        assert_int_equal(health(&f, "a.Service"), NOT_SERVING);
        assert_int_equal(baton_call_answer(kept.calls[0], "", NULL, 0), 0);
        fixture_until(&f, result_is_done, &result);
        fixture_close(&f);
}

static void test_reflection(void **state) {
        Baton__ReflectionResponse *response;
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "a/Second", who, NULL);
        fixture_add(&f, "a/First", who, NULL);
        assert_int_equal(baton_runner_describe_method(f.runner, "a/Third", NULL, NULL, 0), -ENOENT);
        assert_int_equal(baton_runner_describe_method(f.runner, "a/First", NULL, NULL, 4), -EINVAL);
        assert_int_equal(baton_runner_describe_method(f.runner, "a/First", "\xff", NULL, 0), -EINVAL);
        assert_int_equal(baton_runner_describe_method(f.runner, "a/First", "a.Old", "a.Old", 0), 0);
        assert_int_equal(
                baton_runner_describe_method(f.runner, "a/First", "a.Request", "", BATON_METHOD_SERVER_STREAMS), 0);
        ask(&f, f.peer, "baton.Reflection/List", NULL, 0, &result);
        assert_int_equal(result.status, STATUS_OK);
        response = baton__reflection_response__unpack(NULL, result.size, result.data);
        assert_int_equal(response->n_methods, 2);
        assert_false(response->others);
        assert_string_equal(response->methods[0]->name, "a/Second");
        assert_false(response->methods[0]->described);
        assert_string_equal(response->methods[1]->name, "a/First");
        assert_true(response->methods[1]->described && response->methods[1]->server_streams);
        assert_false(response->methods[1]->client_streams);
        assert_string_equal(response->methods[1]->request_type, "a.Request");
        assert_string_equal(response->methods[1]->response_type, "");
        baton__reflection_response__free_unpacked(response, NULL);
        baton_runner_set_default(f.runner, who, &f);
        ask(&f, f.peer, "baton.Reflection/List", NULL, 0, &result);
        response = baton__reflection_response__unpack(NULL, result.size, result.data);
        assert_true(response->others);
        baton__reflection_response__free_unpacked(response, NULL);
        fixture_close(&f);
}

/* ---- arguments ---- */

#define ARGUMENTS 6

static void test_arguments(void **state) {
        static const struct {
                const char *given[ARGUMENTS], *kept[ARGUMENTS], *path;
                int r;
        } rows[] = {
                { { "me" }, { "me" }, NULL, 0 },
                { { "me", "--uds-path", "/a", "x" }, { "me", "x" }, "/a", 0 },
                { { "me", "x", "--uds-path=/b=c" }, { "me", "x" }, "/b=c", 0 },
                { { "me", "--uds-path=/a", "--uds-path=/b" }, { "me" }, "/b", 0 },
                { { "me", "--uds-paths", "--other" }, { "me", "--uds-paths", "--other" }, NULL, 0 },
                { { "me", "--", "--uds-path", "/a" }, { "me", "--", "--uds-path", "/a" }, NULL, 0 },
                { { "me", "--uds-path" }, { 0 }, NULL, -EINVAL },
                { { "me", "--uds-path=" }, { 0 }, NULL, -EINVAL },
                { { "me", "--uds-path", "" }, { 0 }, NULL, -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct baton_runner_options options = { .size = sizeof(options) };
                char *argv[ARGUMENTS + 1] = { 0 };
                int argc = 0;

                for (; rows[i].given[argc]; argc++)
                        argv[argc] = (char *) rows[i].given[argc];
                assert_int_equal(baton_runner_options_from_arguments(&options, &argc, argv), rows[i].r);
                if (rows[i].r < 0)
                        continue;
                if (rows[i].path)
                        assert_string_equal(options.bootstrap, rows[i].path);
                else
                        assert_null(options.bootstrap);
                for (int n = 0; n < argc; n++)
                        assert_string_equal(argv[n], rows[i].kept[n]);
                assert_true(!argv[argc] && !rows[i].kept[argc]);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_who_calls),
        TEST(test_what_clients_may),
        TEST(test_no_lane),
        TEST(test_supervisors_bound),
        TEST(test_bound),
        TEST(test_calls_to_clients),
        TEST(test_stop_drains_clients),
        TEST(test_epoch),
        TEST(test_health),
        TEST(test_reflection),
        TEST(test_arguments),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

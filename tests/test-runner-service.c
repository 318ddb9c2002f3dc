/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner's service, as its supervisor drives it: every pair of state and event, actions that fail, that end later, and
 * those that are asked for again; what Info tells; Save and Takeover of state and descriptors, and what is refused there.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "proto/handover.pb-c.h"
#include "proto/service-snapshot.h"
#include "proto/service.h"
#include "proto/transfer.h"
#include "tests/runner-fixture.h"

/* What the service is to do, and what it was asked. */
typedef struct Script {
        int results[_SERVICE_EVENT_N]; /* of its functions */
        int unmount, save, restore;
        const char *reason;
        unsigned n[_SERVICE_EVENT_N], n_unmount;
        struct baton_event *later;
        bool handover, checkpoint;
        const char *state;
        size_t state_size, n_fds;
        int fds[2];
        char restored[64];
        size_t restored_size, restored_fds;
} Script;

static int act(struct baton_event *event, Script *script, ServiceEvent what, int result) {
        script->n[what]++;
        script->handover = baton_event_is_handover(event);
        if (script->reason)
                baton_event_reason(event, "%s", script->reason);
        if (result == BATON_EVENT_LATER)
                script->later = event;
        return result;
}

#define ACTION(_name, _event)                                                                               \
        static int _name(struct baton_event *event, void *userdata) {                                       \
                Script *script = userdata;                                                                  \
                return act(event, script, SERVICE_EVENT_##_event, script->results[SERVICE_EVENT_##_event]); \
        }
ACTION(on_mount, MOUNT)
ACTION(on_start, START)
ACTION(on_stop, STOP)
ACTION(on_leave, EXIT)

static int on_unmount(struct baton_event *event, void *userdata) {
        Script *script = userdata;

        script->n_unmount++;
        if (script->reason)
                baton_event_reason(event, "%s", script->reason);
        return script->unmount;
}

static int on_save(struct baton_save *save, void *userdata) {
        const Script *script = userdata;
        char name[32];
        int r;

        if (script->reason)
                baton_save_reason(save, "%s", script->reason);
        r = baton_save_write(save, script->state, script->state_size);
        for (size_t i = 0; r == 0 && i < script->n_fds; i++) {
                (void) snprintf(name, sizeof(name), "pipe %zu", i);
                r = baton_save_fd(save, name, script->fds[i % 2]);
        }
        return r < 0 ? r : script->save;
}

static int on_restore(struct baton_restore *restore, void *userdata) {
        Script *script = userdata;
        const void *data = baton_restore_data(restore, &script->restored_size);
        int fd;

        script->checkpoint = baton_restore_is_checkpoint(restore);
        memcpy(script->restored, data, MIN(script->restored_size, sizeof(script->restored)));
        script->restored_fds = baton_restore_n_fds(restore);
        if (script->restored_fds > 0) {
                assert_string_equal(baton_restore_fd_name(restore, 0), "pipe 0");
                fd = baton_restore_take_fd(restore, "pipe 0");
                assert_true(fd >= 0);
                fd_close(fd);
                assert_int_equal(baton_restore_take_fd(restore, "pipe 0"), -1);
        }
        assert_int_equal(baton_restore_take_fd(restore, "nothing"), -1);
        return script->restore;
}

static const struct baton_service service = {
        .size = sizeof(service),
        .mount = on_mount,
        .start = on_start,
        .stop = on_stop,
        .unmount = on_unmount,
        .exit = on_leave,
        .save = on_save,
        .restore = on_restore,
        .description = "{\"backend\": \"test\"}",
        .version = 3,
        .version_min = 2,
        .max_state = 16u * 1024u * 1024u,
        .max_fds = 2000,
};

/* open_with() - a runner with @functions, in INIT. */
static void open_with(Fixture *f, const struct baton_service *functions, Script *script) {
        fixture_open_service(f, functions, script);
}

static uint64_t next_id = 1;

static Call *begin(Fixture *f, const char *method, uint64_t id, bool handover, Result *result) {
        Baton__LifecycleEvent event = BATON__LIFECYCLE_EVENT__INIT;
        uint8_t packed[32];
        CallParameters parameters = { .method = method, .payload = packed };

        event.event = id;
        event.handover = handover;
        parameters.size = baton__lifecycle_event__pack(&event, packed);
        return fixture_call(f, &parameters, result);
}

static void ask_id(Fixture *f, const char *method, uint64_t id, bool handover, Result *result) {
        (void) begin(f, method, id, handover, result);
        fixture_until(f, result_is_done, result);
}

static void ask(Fixture *f, const char *method, Result *result) {
        ask_id(f, method, ++next_id, false, result);
}

static uint32_t state_in(const Result *result) {
        Baton__LifecycleState *state = baton__lifecycle_state__unpack(NULL, result->size, result->data);
        uint32_t code;

        assert_non_null(state);
        code = state->service_state;
        baton__lifecycle_state__free_unpacked(state, NULL);
        return code;
}

static void assert_reaches(Fixture *f, const char *method, ServiceState state) {
        Result result;

        ask(f, method, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(state_in(&result), state);
}

static const char *const methods[] = {
        [SERVICE_EVENT_MOUNT] = "baton.Runner/Mount", [SERVICE_EVENT_TAKEOVER] = "baton.Runner/Takeover",
        [SERVICE_EVENT_START] = "baton.Runner/Start", [SERVICE_EVENT_STOP] = "baton.Runner/Stop",
        [SERVICE_EVENT_EXIT] = "baton.Runner/Exit",
};

/* lead_to() - @state, from INIT. */
static void lead_to(Fixture *f, ServiceState state) {
        if (state == SERVICE_STATE_READY || state == SERVICE_STATE_RUNNING)
                assert_reaches(f, methods[SERVICE_EVENT_MOUNT], SERVICE_STATE_READY);
        if (state == SERVICE_STATE_RUNNING)
                assert_reaches(f, methods[SERVICE_EVENT_START], SERVICE_STATE_RUNNING);
}

/* Each state, each event: what the table has happens, all else is refused by name and changes nothing. */
static void test_every_pair(void **state) {
        static const ServiceState states[] = { SERVICE_STATE_INIT, SERVICE_STATE_READY, SERVICE_STATE_RUNNING };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(states); i++)
                for (unsigned event = 0; event < _SERVICE_EVENT_N; event++) {
                        ServiceState next = states[i];
                        ServiceAction action;
                        Script script = { 0 };
                        Fixture f = { .listener = -1 };
                        char expected[128];
                        Result result;
                        int r = service_next(states[i], (ServiceEvent) event, &next, &action);

                        if (r == 0 && event == SERVICE_EVENT_TAKEOVER)
                                continue; /* needs a socket: below */
                        open_with(&f, &service, &script);
                        lead_to(&f, states[i]);
                        ask(&f, methods[event], &result);
                        if (r == 0) {
                                assert_int_equal(result.status, STATUS_OK);
                                assert_int_equal(state_in(&result), next);
                        } else {
                                (void) snprintf(expected, sizeof(expected), "%s is refused in state %s",
                                                service_event_name((ServiceEvent) event),
                                                service_state_name(states[i]));
                                assert_int_equal(result.status, STATUS_FAILED_PRECONDITION);
                                assert_string_equal(result.message, expected);
                                fixture_ask(&f, "baton.Runner/Info", NULL, &result);
                                assert_int_equal(result.status, STATUS_OK);
                        }
                        fixture_close(&f);
                }
}

/* A failed action leaves the state; the same id may be tried again, and once it has succeeded is answered from memory. */
static void test_failures(void **state) {
        Script script = { 0 };
        Fixture f = { .listener = -1 };
        Result result;

        (void) state;
        open_with(&f, &service, &script);
        script.results[SERVICE_EVENT_MOUNT] = -EIO;
        script.reason = "the disk\nis gone";
        ask_id(&f, "baton.Runner/Mount", 100, false, &result);
        assert_int_equal(result.status, STATUS_INTERNAL);
        assert_string_equal(result.message, "Mount failed in state INIT: the disk?is gone");
        script.results[SERVICE_EVENT_MOUNT] = 0;
        script.reason = NULL;
        ask_id(&f, "baton.Runner/Mount", 100, false, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(script.n[SERVICE_EVENT_MOUNT], 2);
        ask_id(&f, "baton.Runner/Mount", 100, false, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(script.n[SERVICE_EVENT_MOUNT], 2);
        script.results[SERVICE_EVENT_START] = -ENOMEM;
        ask_id(&f, "baton.Runner/Start", 101, false, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        assert_string_equal(result.message, "Start failed in state READY: Cannot allocate memory");
        script.results[SERVICE_EVENT_START] = 0;
        assert_reaches(&f, "baton.Runner/Start", SERVICE_STATE_RUNNING);
        script.results[SERVICE_EVENT_STOP] = -EBUSY;
        ask(&f, "baton.Runner/Stop", &result);
        assert_int_equal(result.status, STATUS_INTERNAL);
        script.results[SERVICE_EVENT_STOP] = 0;
        assert_reaches(&f, "baton.Runner/Stop", SERVICE_STATE_READY);
        /* What ends it ends it. */
        script.unmount = -EIO;
        assert_reaches(&f, "baton.Runner/Stop", SERVICE_STATE_STOPPED);
        assert_int_equal(script.n_unmount, 1);
        fixture_close(&f);
}

static bool is_asked_later(void *script) {
        return ((Script *) script)->later;
}

/* An action that ends later: meanwhile nothing else begins, and each caller gets its own answer. */
static void test_later(void **state) {
        Script script = { 0 };
        Fixture f = { .listener = -1 };
        Result first = { 0 }, other = { 0 }, again = { 0 };

        (void) state;
        open_with(&f, &service, &script);
        script.results[SERVICE_EVENT_MOUNT] = BATON_EVENT_LATER;
        (void) begin(&f, "baton.Runner/Mount", 7, false, &first);
        fixture_until(&f, is_asked_later, &script);
        ask_id(&f, "baton.Runner/Stop", 8, false, &other);
        assert_int_equal(other.status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(other.message, "Stop is refused: Mount is under way in state INIT");
        assert_false(first.done);
        (void) begin(&f, "baton.Runner/Mount", 7, false, &again);
        fixture_until(&f, result_is_done, &first);
        assert_int_equal(first.status, STATUS_ABORTED);
        assert_false(again.done);
        baton_event_done(script.later, 0);
        fixture_until(&f, result_is_done, &again);
        assert_int_equal(again.status, STATUS_OK);
        assert_int_equal(state_in(&again), SERVICE_STATE_READY);
        assert_int_equal(script.n[SERVICE_EVENT_MOUNT], 1);
        fixture_close(&f);
}

static void answer(struct baton_call *call, void *userdata) {
        (void) userdata;
        (void) baton_call_answer(call, "", "", 0);
}

/* Methods of the application's need RUNNING. */
static void test_needs_running(void **state) {
        Script script = { 0 };
        Fixture f = { .listener = -1 };
        Result result;

        (void) state;
        open_with(&f, &service, &script);
        fixture_add(&f, "test/Answer", answer, NULL);
        fixture_ask(&f, "test/Answer", NULL, &result);
        assert_int_equal(result.status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(result.message, "calls need a service that is RUNNING; it is INIT");
        lead_to(&f, SERVICE_STATE_RUNNING);
        fixture_ask(&f, "test/Answer", NULL, &result);
        assert_int_equal(result.status, STATUS_OK);
        ask_id(&f, "baton.Runner/Stop", ++next_id, true, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_true(script.handover);
        fixture_ask(&f, "test/Answer", NULL, &result);
        assert_string_equal(result.message, "calls need a service that is RUNNING; it is READY");
        fixture_close(&f);
}

static void test_info(void **state) {
        Script script = { 0 };
        Fixture f = { .listener = -1 };
        Baton__InfoResponse *info;
        Result result;

        (void) state;
        open_with(&f, &service, &script);
        fixture_ask(&f, "baton.Runner/Info", NULL, &result);
        info = baton__info_response__unpack(NULL, result.size, result.data);
        assert_non_null(info);
        assert_true(info->service && info->saves);
        assert_int_equal(info->service_state, SERVICE_STATE_INIT);
        assert_string_equal(info->description, service.description);
        assert_int_equal(info->version, 3);
        assert_int_equal(info->version_min, 2);
        baton__info_response__free_unpacked(info, NULL);
        fixture_close(&f);
        fixture_open(&f);
        fixture_ask(&f, "baton.Runner/Info", NULL, &result);
        info = baton__info_response__unpack(NULL, result.size, result.data);
        assert_non_null(info);
        assert_false(info->service);
        assert_false(info->saves);
        assert_int_equal(info->service_state, SERVICE_STATE_RUNNING);
        baton__info_response__free_unpacked(info, NULL);
        assert_int_equal(baton_runner_set_service(f.runner, &service, NULL), -EBUSY);
        fixture_close(&f);
}

static void test_registration(void **state) {
        struct baton_service half = service, none = { 0 };
        Fixture f = { .listener = -1 };

        (void) state;
        half.restore = NULL;
        fixture_listen(&f);
        assert_int_equal(setenv("BATON_BOOTSTRAP", f.path, 1), 0);
        assert_int_equal(baton_runner_new(&f.runner, NULL), 0);
        assert_int_equal(baton_runner_set_service(f.runner, &half, NULL), -EINVAL);
        assert_int_equal(baton_runner_set_service(f.runner, &none, NULL), -EINVAL);
        half = service;
        half.description = "\xff";
        assert_int_equal(baton_runner_set_service(f.runner, &half, NULL), -EINVAL);
        half = service;
        half.version_min = 4;
        assert_int_equal(baton_runner_set_service(f.runner, &half, NULL), -EINVAL);
        assert_int_equal(baton_runner_set_service(f.runner, &service, NULL), 0);
        assert_int_equal(baton_runner_set_service(f.runner, &service, NULL), -EEXIST);
        baton_runner_free(f.runner);
        fixture_unlisten(&f);
}

/* ---- Save and Takeover ---- */

static void begin_save(Fixture *f, int socket, bool checkpoint, Result *result) {
        Baton__SaveRequest request = BATON__SAVE_REQUEST__INIT;
        uint8_t packed[32];
        int copy = fd_dup(socket);
        CallParameters parameters = {
                .method = "baton.Runner/Save", .payload = packed, .fds_consume = &copy, .n_fds = 1
        };

        request.checkpoint = checkpoint;
        parameters.size = baton__save_request__pack(&request, packed);
        (void) fixture_call(f, &parameters, result);
}

static void begin_takeover(Fixture *f, int socket, uint64_t id, Result *result) {
        Baton__TakeoverRequest request = BATON__TAKEOVER_REQUEST__INIT;
        uint8_t packed[32];
        int copy = fd_dup(socket);
        CallParameters parameters = {
                .method = "baton.Runner/Takeover", .payload = packed, .fds_consume = &copy, .n_fds = 1
        };

        request.event = id;
        parameters.size = baton__takeover_request__pack(&request, packed);
        (void) fixture_call(f, &parameters, result);
}

/* Two runners, and what crosses between them. */
typedef struct Both {
        Fixture a, b;
        Script sa, sb;
} Both;

/* both_until() - drives both in turn. */
static void both_until(Both *both, const Result *x, const Result *y) {
        for (unsigned i = 0; i < 100000 && !(x->done && y->done); i++) {
                fixture_turn(&both->a);
                fixture_turn(&both->b);
        }
        assert_true(x->done && y->done);
}

static void open_both(Both *both) {
        *both = (Both){ .a = { .listener = -1 }, .b = { .listener = -1 } };
        open_with(&both->a, &service, &both->sa);
        open_with(&both->b, &service, &both->sb);
        lead_to(&both->a, SERVICE_STATE_RUNNING);
}

static void close_both(Both *both) {
        fixture_close(&both->a);
        fixture_close(&both->b);
}

static void cross(Both *both, Result *saved, Result *taken) {
        int fds[2];

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        begin_save(&both->a, fds[0], false, saved);
        begin_takeover(&both->b, fds[1], ++next_id, taken);
        fd_close(fds[0]);
        fd_close(fds[1]);
        both_until(both, saved, taken);
}

/* 10 MiB of state and 1,000 descriptors cross. */
static void test_crossing(void **state) {
        size_t size = 10u * 1024u * 1024u;
        char *data = malloc(size);
        Result result, saved, taken;
        Both both;

        (void) state;
        assert_non_null(data);
        memset(data, 'x', size);
        memcpy(data, "the state", 9);
        open_both(&both);
        assert_int_equal(pipe2(both.sa.fds, O_CLOEXEC), 0);
        both.sa.state = data;
        both.sa.state_size = size;
        both.sa.n_fds = 1000;
        ask_id(&both.a, "baton.Runner/Stop", ++next_id, true, &result);
        assert_int_equal(result.status, STATUS_OK);
        cross(&both, &saved, &taken);
        assert_int_equal(saved.status, STATUS_OK);
        assert_int_equal(taken.status, STATUS_OK);
        assert_int_equal(state_in(&taken), SERVICE_STATE_READY);
        assert_int_equal(both.sb.restored_size, size);
        assert_int_equal(both.sb.restored_fds, 1000);
        assert_memory_equal(both.sb.restored, "the statexxx", 12);
        assert_reaches(&both.b, "baton.Runner/Start", SERVICE_STATE_RUNNING);
        assert_reaches(&both.a, "baton.Runner/Exit", SERVICE_STATE_STOPPED);
        fd_close(both.sa.fds[0]);
        fd_close(both.sa.fds[1]);
        close_both(&both);
        free(data);
}

/* What restore() refuses leaves the successor in INIT, and the predecessor can start again, or be saved again. */
static void test_refused_by_successor(void **state) {
        Result result, saved, taken;
        Both both;

        (void) state;
        open_both(&both);
        both.sa.state = "1234";
        both.sa.state_size = 4;
        both.sb.restore = -EIO;
        ask_id(&both.a, "baton.Runner/Stop", ++next_id, true, &result);
        cross(&both, &saved, &taken);
        assert_int_equal(taken.status, STATUS_INTERNAL);
        assert_string_equal(taken.message, "Takeover failed in state INIT: Input/output error");
        both.sb.restore = 0;
        cross(&both, &saved, &taken);
        assert_int_equal(taken.status, STATUS_OK);
        assert_reaches(&both.a, "baton.Runner/Start", SERVICE_STATE_RUNNING);
        close_both(&both);
}

/* The other side goes in the middle of it. */
static void test_nobody_takes(void **state) {
        Result result, saved = { 0 };
        Both both;
        int fds[2];

        (void) state;
        open_both(&both);
        ask_id(&both.a, "baton.Runner/Stop", ++next_id, true, &result);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        begin_save(&both.a, fds[0], false, &saved);
        fd_close(fds[0]);
        for (unsigned i = 0; i < 100; i++)
                fixture_turn(&both.a);
        assert_false(saved.done);
        ask(&both.a, "baton.Runner/Start", &result);
        assert_string_equal(result.message, "Start is refused: Save is under way in state READY");
        fd_close(fds[1]);
        fixture_until(&both.a, result_is_done, &saved);
        assert_int_equal(saved.status, STATUS_ABORTED);
        assert_string_equal(saved.message, "Save failed in state READY: the successor is gone");
        assert_reaches(&both.a, "baton.Runner/Start", SERVICE_STATE_RUNNING);
        close_both(&both);
}

/* What save() may not do is said, and nothing is given. */
static void test_save_limits(void **state) {
        struct baton_service small = service;
        Script script = { .state = "12345", .state_size = 5 };
        Fixture f = { .listener = -1 };
        Result result = { 0 };
        int fds[2];

        (void) state;
        small.max_state = 4;
        small.max_fds = 1;
        open_with(&f, &small, &script);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        begin_save(&f, fds[0], true, &result);
        fixture_until(&f, result_is_done, &result);
        assert_string_equal(result.message, "Save of a checkpoint is refused in state INIT");
        lead_to(&f, SERVICE_STATE_RUNNING);
        begin_save(&f, fds[0], false, &result);
        fixture_until(&f, result_is_done, &result);
        assert_string_equal(result.message, "Save for a successor is refused in state RUNNING");
        begin_save(&f, fds[0], true, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_RESOURCE_EXHAUSTED);
        assert_string_equal(result.message,
                            "Save failed in state RUNNING: the state has more than the 4 bytes that it may have");
        script.state_size = 0;
        script.n_fds = 2;
        assert_int_equal(pipe2(script.fds, O_CLOEXEC), 0);
        begin_save(&f, fds[0], true, &result);
        fixture_until(&f, result_is_done, &result);
        assert_string_equal(result.message,
                            "Save failed in state RUNNING: more descriptors than the 1 that may be saved");
        script.n_fds = 0;
        script.save = -EIO;
        script.reason = "not now";
        begin_save(&f, fds[0], true, &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_INTERNAL);
        assert_string_equal(result.message, "Save failed in state RUNNING: not now");
        fd_close(script.fds[0]);
        fd_close(script.fds[1]);
        fd_close(fds[0]);
        fd_close(fds[1]);
        fixture_close(&f);
}

/* take_checkpoint() - as a supervisor would, dropped at once. */
static void take_checkpoint(Fixture *f) {
        Result result = { 0 };
        Transfer transfer;
        int fds[2];

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        begin_save(f, fds[0], true, &result);
        fd_close(fds[0]);
        transfer_take(&transfer, fds[1], 1, SERVICE_SNAPSHOT_VERSION);
        for (unsigned i = 0; i < 10000 && !result.done; i++) {
                fixture_turn(f);
                assert_int_not_equal(transfer_step(&transfer), TRANSFER_FAILED);
        }
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(transfer.taken.n, 4);
        transfer_deinit(&transfer);
        fd_close(fds[1]);
}

/* Descriptors are as many after 1,000 checkpoints as after the first. */
static void test_many_checkpoints(void **state) {
        Script script = { .state = "1234", .state_size = 4, .n_fds = 2 };
        Fixture f = { .listener = -1 };
        int before;

        (void) state;
        open_with(&f, &service, &script);
        assert_int_equal(pipe2(script.fds, O_CLOEXEC), 0);
        lead_to(&f, SERVICE_STATE_RUNNING);
        take_checkpoint(&f);
        before = fd_count();
        for (unsigned i = 0; i < 1000; i++)
                take_checkpoint(&f);
        assert_int_equal(fd_count(), before);
        fd_close(script.fds[0]);
        fd_close(script.fds[1]);
        fixture_close(&f);
}

/* ---- hostile state ---- */

/* What a Takeover is given instead. */
typedef struct Hostile {
        const char *message; /* what it is answered with, behind "Takeover failed in state INIT: " */
        Status status;
        uint32_t version;
        uint64_t state_size;
        unsigned n_names, n_fds;
        bool no_snapshot, no_state, no_seal, garbage, surplus, twice;
} Hostile;

static const Hostile hostile[] = {
        { "the snapshot is missing", STATUS_DATA_LOSS, .version = 3, .no_snapshot = true },
        { "the snapshot is none", STATUS_DATA_LOSS, .version = 3, .garbage = true },
        { "the state is missing", STATUS_DATA_LOSS, .version = 3, .no_state = true },
        { "the state has version 7, and this program reads 2 to 3", STATUS_FAILED_PRECONDITION, .version = 7 },
        { "the state has version 1, and this program reads 2 to 3", STATUS_FAILED_PRECONDITION, .version = 1 },
        { "the state has 4 bytes, and should have 9", STATUS_DATA_LOSS, .version = 3, .state_size = 9 },
        { "the state cannot be read: it is longer than was said", STATUS_DATA_LOSS, .version = 3, .state_size = 3 },
        { "the state has 99999999 bytes, and may have 16777216", STATUS_RESOURCE_EXHAUSTED, .version = 3,
          .state_size = 99999999 },
        { "the state cannot be read: Operation not permitted", STATUS_DATA_LOSS, .version = 3, .no_seal = true },
        { "the descriptor 'name 1' was declared, and is not there", STATUS_DATA_LOSS, .version = 3, .n_names = 2,
          .n_fds = 1 },
        { "2 descriptors came, and 1 were declared", STATUS_DATA_LOSS, .version = 3, .n_names = 1, .n_fds = 2 },
        { "2001 descriptors were saved, and 2000 may be", STATUS_RESOURCE_EXHAUSTED, .version = 3, .n_names = 2001 },
        { "there is a descriptor surplus that was not declared", STATUS_DATA_LOSS, .version = 3, .surplus = true },
        { "two descriptors are called 'twice'", STATUS_DATA_LOSS, .version = 3, .n_names = 2, .n_fds = 2,
          .twice = true },
};

static int hostile_snapshot(const Hostile *row) {
        Baton__Handover__Service message = BATON__HANDOVER__SERVICE__INIT;
        char *names[2001], text[2001][16];
        uint8_t *packed;
        size_t size;
        int fd = -1;

        for (unsigned i = 0; i < row->n_names; i++) {
                (void) snprintf(text[i], sizeof(text[i]), row->twice ? "twice" : "name %u", i);
                names[i] = text[i];
        }
        message.version = row->version;
        message.state_size = row->state_size ? row->state_size : 4;
        message.names = names;
        message.n_names = row->n_names;
        size = baton__handover__service__get_packed_size(&message);
        packed = malloc(size + 1);
        assert_non_null(packed);
        (void) baton__handover__service__pack(&message, packed);
        assert_int_equal(row->garbage ? memfd_sealed("test", "\xff\xff\xff", 3, &fd)
                                      : memfd_sealed("test", packed, size, &fd),
                         0);
        free(packed);
        return fd;
}

static int hostile_state(const Hostile *row) {
        int fd = -1;

        if (!row->no_seal) {
                assert_int_equal(memfd_sealed("test", "abcd", 4, &fd), 0);
                return fd;
        }
        fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "abcd", 4), 4);
        return fd;
}

static void test_hostile(void **state) {
        Script script = { 0 };
        Fixture f = { .listener = -1 };

        (void) state;
        open_with(&f, &service, &script);
        for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
                const Hostile *row = &hostile[i];
                int fds[2], snapshot = hostile_snapshot(row), saved = hostile_state(row);
                Manifest manifest = MANIFEST_NULL;
                Result result = { 0 };
                Transfer transfer;
                char text[256];

                manifest.version = SERVICE_SNAPSHOT_VERSION;
                if (!row->no_snapshot)
                        assert_int_equal(manifest_add(&manifest, "snapshot", snapshot), 0);
                if (!row->no_state)
                        assert_int_equal(manifest_add(&manifest, "state", saved), 0);
                if (row->surplus)
                        assert_int_equal(manifest_add(&manifest, "surplus", saved), 0);
                for (unsigned n = 0; n < row->n_fds; n++) {
                        (void) snprintf(text, sizeof(text), "fd/%u", n);
                        assert_int_equal(manifest_add(&manifest, text, saved), 0);
                }
                assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
                begin_takeover(&f, fds[1], ++next_id, &result);
                transfer_give(&transfer, fds[0], &manifest);
                for (unsigned n = 0; n < 10000 && !result.done; n++) {
                        (void) transfer_step(&transfer);
                        fixture_turn(&f);
                }
                assert_true(result.done);
                (void) snprintf(text, sizeof(text), "Takeover failed in state INIT: %s", row->message);
                assert_string_equal(result.message, text);
                assert_int_equal(result.status, row->status);
                transfer_deinit(&transfer);
                manifest_deinit(&manifest);
                fd_close(snapshot);
                fd_close(saved);
                fd_close(fds[0]);
                fd_close(fds[1]);
        }
        assert_reaches(&f, "baton.Runner/Mount", SERVICE_STATE_READY);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_pair),
        TEST(test_failures),
        TEST(test_later),
        TEST(test_needs_running),
        TEST(test_info),
        TEST(test_registration),
        TEST(test_crossing),
        TEST(test_refused_by_successor),
        TEST(test_nobody_takes),
        TEST(test_save_limits),
        TEST(test_many_checkpoints),
        TEST(test_hostile),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The relay between two engine peers in one process, on one loop: a client calls, the supervisor's end of its connection
 * relays, a runner's peer answers. The keeper is a socket that nobody reads. Covers what goes along in both directions,
 * cancellation, every order of the runner's two ends (its connection's, its process's), and shortage of memory.
 */

#include "supervisor/relay.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/peer-loop.h"
#include "supervisor/runner-internal.h"
#include "supervisor/supervisor.h"
#include "tests/seam.h"
#include "tests/test.h"

enum { ANSWERS_MAX = 4 };

typedef struct Heard {
        unsigned n;
        Status status;
        bool local;
        char message[256], type[64], payload[64], detail[64], key[16];
        size_t size, n_fds;
        int fd;
        ExitStatus exit;
} Heard;

typedef struct Fixture {
        Supervisor *supervisor;
        Loop *loop;
        int keeper; /* the other end; nobody reads it */
        Runner *runner;
        Peer *client, *control; /* the two ends of the client's connection */
        Peer *program;          /* the runner's end of its own */
        Call *held;             /* by the program */
        unsigned n_cancelled;
        uint64_t left;        /* time left, as the program sees it */
        unsigned fail_calloc; /* in the relay */
        Heard heard[ANSWERS_MAX];
} Fixture;

static Fixture *the; /* peers have handlers of both sides here: one fixture at a time */

/* ---- the four ends ---- */

static void cancelled(Call *call, void *userdata) {
        Fixture *f = userdata;

        f->n_cancelled++;
        f->held = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
        loop_stop(f->loop);
}

/* drop_program() - its end, with what it holds. */
static void drop_program(Fixture *f) {
        f->program = peer_free(f->program);
        if (f->held)
                (void) call_fail(f->held, STATUS_CANCELLED, "the program has ended");
        f->held = NULL;
}

/* The program echoes "echo", holds "hold", fails "fail", drops its connection at "drop". */
static void program_called(Peer *peer, Call *call) {
        const Baton__Envelope *envelope = call_envelope(call);
        Baton__Detail detail = BATON__DETAIL__INIT, *details[] = { &detail };
        AnswerParameters answer = { .type = envelope->type, .metadata = envelope->metadata };
        int *fds = call_fds(call, &answer.n_fds), moved[8];

        (void) peer;
        the->left = call_time_left(call);
        if (strcmp(envelope->method, "hold") == 0) {
                the->held = call;
                call_on_cancel(call, cancelled, the);
                loop_stop(the->loop);
                return;
        }
        if (strcmp(envelope->method, "drop") == 0) {
                (void) call_fail(call, STATUS_INTERNAL, "never arrives");
                drop_program(the);
                return;
        }
        answer.payload = call_payload(call, &answer.size);
        answer.n_metadata = envelope->n_metadata;
        for (size_t i = 0; i < answer.n_fds; i++)
                moved[i] = fd_take(&fds[i]);
        answer.fds_consume = moved;
        if (strcmp(envelope->method, "fail") == 0) {
                detail.type = (char *) "test.Detail";
                answer.status = STATUS_NOT_FOUND;
                answer.message = "not there";
                answer.details = details;
                answer.n_details = 1;
        }
        (void) call_answer(call, &answer);
}

static void control_called(Peer *peer, Call *call) {
        Baton__Control__CallRequest request = BATON__CONTROL__CALL_REQUEST__INIT;
        size_t size;
        const uint8_t *payload = call_payload(call, &size);

        (void) peer;
        request.method = call_envelope(call)->method;
        request.type = call_envelope(call)->type;
        request.payload.data = (uint8_t *) payload;
        request.payload.len = size;
        if (the->fail_calloc)
                seam_fail(SEAM_CALLOC, the->fail_calloc, ENOMEM);
        relay_call(call, &request, the->runner);
        if (the->fail_calloc)
                seam_pass(SEAM_CALLOC);
}

static void control_ended(Peer *peer, Status status, const char *reason) {
        (void) status;
        (void) reason;
        the->control = peer_free(peer);
}

static void read_exit(Heard *heard, const Baton__Detail *detail) {
        Baton__Control__RunnerEnded *ended =
                baton__control__runner_ended__unpack(NULL, detail->value.len, detail->value.data);

        if (ended && ended->exit)
                heard->exit = (ExitStatus){ (ExitHow) ended->exit->how, ended->exit->status };
        baton__control__runner_ended__free_unpacked(ended, NULL);
}

static void done(Call *call, const Answer *answer, void *userdata) {
        Heard *heard = userdata;
        const Baton__Envelope *envelope = answer->envelope;

        (void) call;
        heard->n++;
        heard->status = answer->status;
        heard->local = answer->local;
        (void) snprintf(heard->message, sizeof(heard->message), "%s", answer->message);
        (void) snprintf(heard->type, sizeof(heard->type), "%s", envelope->type);
        heard->size = answer->size;
        if (answer->size > 0)
                memcpy(heard->payload, answer->payload, MIN(answer->size, sizeof(heard->payload)));
        heard->n_fds = answer->n_fds;
        heard->fd = answer->n_fds > 0 ? fd_take(&answer->fds[0]) : -1;
        if (envelope->n_metadata > 0)
                (void) snprintf(heard->key, sizeof(heard->key), "%s", envelope->metadata[0]->key);
        if (envelope->n_details > 0) {
                (void) snprintf(heard->detail, sizeof(heard->detail), "%s", envelope->details[0]->type);
                if (strcmp(heard->detail, "baton.control.RunnerEnded") == 0)
                        read_exit(heard, envelope->details[0]);
        }
        loop_stop(the->loop);
}

/* ---- set-up ---- */

static Peer *make_peer(unsigned side, unsigned n_channels, int lane, const PeerHandler *handler, void *userdata) {
        const PeerConfig config = {
                .side = side,
                .n_channels = n_channels,
                .renewal = n_channels == 1 ? LANE_RENEWAL_NONE
                           : side == 0     ? LANE_RENEWAL_SELF
                                           : LANE_RENEWAL_PEER,
        };
        const PeerLoopParameters parameters = {
                .loop = the->loop,
                .config = &config,
                .handler = handler,
                .userdata = userdata,
        };
        Peer *peer = NULL;

        assert_int_equal(peer_loop_new(&peer, &parameters, lane), 0);
        return peer;
}

/* A runner that is up, as runner-start.c leaves it. */
static void make_runner(Fixture *f, int lane) {
        RunnerSpec spec = { .native = true, .program = strdup("/bin/test"), .stop_timeout_us = USEC_PER_SEC };
        Runner *runner;

        strcpy(spec.name, "test.1");
        assert_int_equal(runner_new(&f->runner, f->supervisor, &spec, UINT64_C(1) << 32 | 1), 0);
        runner = f->runner;
        HASH_ADD(by_name, f->supervisor->by_name, spec.name, strlen(runner->spec.name), runner);
        HASH_ADD(by_instance, f->supervisor->by_instance, instance, sizeof(runner->instance), runner);
        f->supervisor->n_live++;
        runner->state = PROCESS_UP;
        runner->pid = 1;
        runner->lane = fd_dup(lane);
        runner->peer = make_peer(0, LANE_CHANNELS, lane, &runner_peer_handler, runner);
}

static void set_up(Fixture *f) {
        static const PeerHandler client = { 0 };
        static const PeerHandler control = { .call = control_called, .ended = control_ended };
        static const PeerHandler program = { .call = program_called };
        SupervisorOptions options = { .generation = 1, .stop_timeout_us = USEC_PER_SEC, .private_fd_consume = -1 };
        int link[2], lane[2];

        *f = (Fixture){ 0 };
        the = f;
        log_set_level(2);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, link), 0);
        options.keeper_fd_consume = link[0];
        f->keeper = link[1];
        assert_int_equal(supervisor_new(&f->supervisor, &options), 0);
        f->loop = f->supervisor->loop;
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        f->control = make_peer(0, 1, lane[0], &control, f);
        f->client = make_peer(1, 1, lane[1], &client, f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        make_runner(f, lane[0]);
        f->program = make_peer(1, LANE_CHANNELS, lane[1], &program, f);
}

static void tear_down(Fixture *f) {
        f->client = peer_free(f->client);
        f->control = peer_free(f->control);
        drop_program(f);
        f->supervisor = supervisor_free(f->supervisor);
        fd_close(f->keeper);
}

static Call *call(Fixture *f, unsigned n, const char *method, uint64_t timeout_us, int fd_consume) {
        Baton__Pair pair = BATON__PAIR__INIT, *metadata[] = { &pair };
        const CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = method,
                .type = "test.Type",
                .payload = "payload",
                .size = 7,
                .timeout_us = timeout_us,
                .fds_consume = &fd_consume,
                .n_fds = fd_consume >= 0,
                .metadata = metadata,
                .n_metadata = 1,
        };
        Call *started = NULL;

        pair.key = (char *) "key";
        assert_int_equal(call_start(f->client, &parameters, done, &f->heard[n], &started), 0);
        return started;
}

static const Heard *answer_to(Fixture *f, unsigned n) {
        while (f->heard[n].n == 0)
                loop_run(f->loop);
        assert_int_equal(f->heard[n].n, 1);
        return &f->heard[n];
}

static void until_held(Fixture *f) {
        while (!f->held)
                loop_run(f->loop);
}

static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

static void run_for(Fixture *f, uint64_t us) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(f->loop, &timer, clock_now() + us);
        loop_run(f->loop);
        loop_timer_stop(&timer);
}

/* ---- tests ---- */

static void test_there_and_back(void **state) {
        const Heard *heard;
        int fds[2];
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        call(&f, 0, "echo", 5 * USEC_PER_SEC, fds[0]);
        heard = answer_to(&f, 0);
        assert_int_equal(heard->status, STATUS_OK);
        assert_int_equal(heard->size, 7);
        assert_memory_equal(heard->payload, "payload", 7);
        assert_string_equal(heard->type, "test.Type");
        assert_string_equal(heard->key, "key");
        assert_int_equal(heard->n_fds, 1);
        assert_int_equal(send(heard->fd, "x", 1, 0), 1);
        assert_true(test_readable(fds[1]));
        assert_true(f.left > 0 && f.left <= 5 * USEC_PER_SEC);
        fd_close(heard->fd);
        fd_close(fds[1]);
        call(&f, 1, "echo", 0, -1);
        (void) answer_to(&f, 1);
        assert_true(f.left == USEC_INFINITY);
        tear_down(&f);
}

static void test_status_and_details(void **state) {
        const Heard *heard;
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "fail", 0, -1);
        heard = answer_to(&f, 0);
        assert_int_equal(heard->status, STATUS_NOT_FOUND);
        assert_string_equal(heard->message, "not there");
        assert_string_equal(heard->detail, "test.Detail");
        tear_down(&f);
}

static void test_cancelled_by_the_client(void **state) {
        Call *held;
        Fixture f;

        (void) state;
        set_up(&f);
        held = call(&f, 0, "hold", 0, -1);
        until_held(&f);
        call_cancel(held);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        call(&f, 1, "echo", 0, -1);
        assert_int_equal(answer_to(&f, 1)->status, STATUS_OK);
        tear_down(&f);
}

static void test_client_is_gone(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 0, -1);
        until_held(&f);
        f.client = peer_free(f.client);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        assert_int_equal(f.heard[0].n, 0);
        tear_down(&f);
}

static void test_deadline(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 20000, -1);
        assert_int_equal(answer_to(&f, 0)->status, STATUS_DEADLINE_EXCEEDED);
        while (f.n_cancelled == 0)
                loop_run(f.loop);
        tear_down(&f);
}

static void assert_segfault(const Heard *heard) {
        assert_int_equal(heard->status, STATUS_UNAVAILABLE);
        assert_false(heard->local);
        assert_string_equal(heard->message, "runner test.1: killed by signal 11 (SIGSEGV)");
        assert_string_equal(heard->detail, "baton.control.RunnerEnded");
        assert_int_equal(heard->exit.how, EXIT_SIGNALED);
        assert_int_equal(heard->exit.status, SIGSEGV);
}

static void die(Fixture *f) {
        runner_exited(f->runner, exit_status_from_wait(CLD_KILLED, SIGSEGV));
}

/* The lane's end is seen first: the answer waits for the report, and for nothing else. */
static void test_connection_ends_first(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 0, -1);
        until_held(&f);
        call(&f, 1, "drop", 0, -1);
        run_for(&f, 20000);
        assert_int_equal(f.heard[0].n, 0);
        assert_null(f.runner->peer);
        die(&f);
        assert_segfault(answer_to(&f, 0));
        assert_segfault(answer_to(&f, 1));
        tear_down(&f);
}

static void test_report_comes_first(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 0, -1);
        until_held(&f);
        die(&f);
        drop_program(&f);
        assert_segfault(answer_to(&f, 0));
        tear_down(&f);
}

/* Somebody has inherited the channels: their end never comes. */
static void test_connection_stays(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 0, -1);
        until_held(&f);
        die(&f);
        assert_segfault(answer_to(&f, 0));
        tear_down(&f);
}

static void test_process_stays(void **state) {
        const Heard *heard;
        uint64_t before;
        Fixture f;

        (void) state;
        set_up(&f);
        before = clock_now();
        call(&f, 0, "drop", 0, -1);
        heard = answer_to(&f, 0);
        assert_true(clock_now() - before >= USEC_PER_SEC / 2);
        assert_int_equal(heard->status, STATUS_UNAVAILABLE);
        assert_non_null(strstr(heard->message, "runner test.1: "));
        assert_non_null(strstr(heard->message, "lane"));
        tear_down(&f);
}

/* While the answer waits for the report, the client cancels, or goes. */
static void test_cancelled_while_waiting(void **state) {
        (void) state;
        for (int gone = 0; gone < 2; gone++) {
                Call *dropped;
                Fixture f;

                set_up(&f);
                dropped = call(&f, 0, "drop", 0, -1);
                while (f.runner->peer)
                        run_for(&f, 1000);
                if (gone)
                        f.client = peer_free(f.client);
                else
                        call_cancel(dropped);
                run_for(&f, 10000);
                assert_true(LIST_EMPTY(&f.runner->on_exit));
                die(&f);
                run_for(&f, 10000);
                assert_int_equal(f.heard[0].n, 0);
                tear_down(&f);
        }
}

static void test_not_callable(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        f.runner->state = PROCESS_STOPPING;
        call(&f, 0, "echo", 0, -1);
        assert_int_equal(answer_to(&f, 0)->status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(f.heard[0].message, "runner test.1: is stopping");
        f.runner->state = PROCESS_UP;
        f.runner->spec.native = false;
        call(&f, 1, "echo", 0, -1);
        assert_int_equal(answer_to(&f, 1)->status, STATUS_FAILED_PRECONDITION);
        f.runner->spec.native = true;
        drop_program(&f);
        die(&f);
        run_for(&f, 10000);
        assert_true(f.runner->over);
        call(&f, 2, "echo", 0, -1);
        assert_int_equal(answer_to(&f, 2)->status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(f.heard[2].message, "runner test.1: is not running: killed by signal 11 (SIGSEGV)");
        tear_down(&f);
}

static void test_no_memory(void **state) {
        (void) state;
        for (unsigned nth = 1; nth <= 2; nth++) {
                int fds[2];
                Fixture f;

                set_up(&f);
                f.fail_calloc = nth;
                assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
                call(&f, 0, "echo", 0, fds[0]);
                assert_int_equal(answer_to(&f, 0)->status, STATUS_RESOURCE_EXHAUSTED);
                assert_true(test_readable(fds[1])); /* its end: nobody kept the other */
                fd_close(fds[1]);
                f.fail_calloc = 0;
                call(&f, 1, "echo", 0, -1);
                assert_int_equal(answer_to(&f, 1)->status, STATUS_OK);
                tear_down(&f);
        }
}

/* The supervisor ends with calls open in every state: nothing is called back into what is gone. */
static void test_freed_with_calls_open(void **state) {
        Fixture f;

        (void) state;
        set_up(&f);
        call(&f, 0, "hold", 0, -1);
        until_held(&f);
        call(&f, 1, "drop", 0, -1);
        while (f.runner->peer)
                run_for(&f, 1000);
        tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_there_and_back),          TEST(test_status_and_details), TEST(test_cancelled_by_the_client),
        TEST(test_client_is_gone),          TEST(test_deadline),           TEST(test_connection_ends_first),
        TEST(test_report_comes_first),      TEST(test_connection_stays),   TEST(test_process_stays),
        TEST(test_cancelled_while_waiting), TEST(test_not_callable),       TEST(test_no_memory),
        TEST(test_freed_with_calls_open),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

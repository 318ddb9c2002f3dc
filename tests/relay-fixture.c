/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/relay-fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/peer-loop.h"
#include "supervisor/relay.h"
#include "tests/seam.h"

static Fixture *the; /* peers have handlers of both sides here: one fixture at a time */

/* ---- the four ends ---- */

static void cancelled(Call *call, void *userdata) {
        Fixture *f = userdata;

        f->n_cancelled++;
        f->held = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
        loop_stop(f->loop);
}

/* fixture_drop_program() - its end, with what it holds. */
void fixture_drop_program(Fixture *f) {
        f->program = peer_free(f->program);
        if (f->held)
                (void) call_fail(f->held, STATUS_CANCELLED, "the program has ended");
        f->held = NULL;
}

/* answer_buffer() - an echo that is made in place. */
static void answer_buffer(Peer *peer, Call *call) {
        AnswerParameters answer = { .type = call_envelope(call)->type };
        size_t size, room;
        const uint8_t *payload = call_payload(call, &size);

        the->heard_shared = call_shared(call);
        assert_int_equal(peer_buffer_new(peer, size, &answer.buffer), 0);
        memcpy(peer_buffer_data(answer.buffer, &room), payload, size);
        assert_int_equal(call_answer(call, &answer), 0);
}

/* The program echoes "echo" and "buffer", holds "hold", fails "fail", drops its connection at "drop". */
static void program_called(Peer *peer, Call *call) {
        const Baton__Envelope *envelope = call_envelope(call);
        Baton__Detail detail = BATON__DETAIL__INIT, *details[] = { &detail };
        AnswerParameters answer = { .type = envelope->type, .metadata = envelope->metadata };
        int *fds = call_fds(call, &answer.n_fds), moved[8];

        (void) peer;
        the->left = call_time_left(call);
        if (strcmp(envelope->method, "stream") == 0) {
                the->stream(call);
                return;
        }
        if (strcmp(envelope->method, "hold") == 0) {
                the->held = call;
                call_on_cancel(call, cancelled, the);
                loop_stop(the->loop);
                return;
        }
        if (strcmp(envelope->method, "buffer") == 0) {
                answer_buffer(peer, call);
                return;
        }
        if (strcmp(envelope->method, "drop") == 0) {
                (void) call_fail(call, STATUS_INTERNAL, "never arrives");
                fixture_drop_program(the);
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
        request.object = call_envelope(call)->object;
        if (the->fail_calloc)
                seam_fail(SEAM_CALLOC, the->fail_calloc, ENOMEM);
        relay_call(call, &request, the->instance);
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
        heard->shared = answer->shared;
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

static Peer *make_peer(unsigned side, unsigned n_channels, int lane, const PeerLimits *limits, PeerObjects objects,
                       const PeerHandler *handler, void *userdata) {
        const PeerConfig config = {
                .side = side,
                .n_channels = n_channels,
                .renewal = n_channels == 1 ? LANE_RENEWAL_NONE
                           : side == 0     ? LANE_RENEWAL_SELF
                                           : LANE_RENEWAL_PEER,
                .limits = limits,
                .objects = objects,
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

/* A runner that is up, as instance-start.c leaves it. */
static void make_runner(Fixture *f, int lane) {
        static const char *const command[] = { "/bin/test", NULL };
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        RunnerConfig draft = RUNNER_CONFIG_NULL;
        Instance *instance;
        Runner *runner;

        draft.name = "test.1";
        draft.command = command;
        draft.ready = CONFIG_READY_HELLO;
        draft.restart = RESTART_NEVER;
        draft.stop_timeout_us = USEC_PER_SEC;
        assert_int_equal(runner_config_new(&config, &draft), 0);
        assert_int_equal(runner_new(&runner, f->supervisor, config, 0), 0);
        assert_int_equal(instance_new(&f->instance, runner, supervisor_next_id(f->supervisor)), 0);
        instance = runner->instance = f->instance;
        assert_int_equal(supervisor_add_instance(f->supervisor, instance), 0);
        runner->transient = true;
        runner->desired = DESIRED_UP;
        runner->state = POLICY_UP;
        instance->state = PROCESS_UP;
        instance->was_up = true;
        instance->pid = 1;
        instance->lane = fd_dup(lane);
        instance->peer = make_peer(0, LANE_CHANNELS, lane, NULL, PEER_OBJECTS_PASS, &instance_peer_handler, instance);
}

void fixture_open(Fixture *f, const PeerLimits *limits) {
        fixture_open_objects(f, limits, PEER_OBJECTS_NONE);
}

void fixture_open_objects(Fixture *f, const PeerLimits *limits, PeerObjects objects) {
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
        f->control = make_peer(0, 1, lane[0], NULL, PEER_OBJECTS_PASS, &control, f);
        f->client = make_peer(1, 1, lane[1], NULL, objects, &client, f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        make_runner(f, lane[0]);
        f->program = make_peer(1, LANE_CHANNELS, lane[1], limits, PEER_OBJECTS_MAP, &program, f);
}

void fixture_close(Fixture *f) {
        f->client = peer_free(f->client);
        f->control = peer_free(f->control);
        fixture_drop_program(f);
        f->supervisor = supervisor_free(f->supervisor);
        fd_close(f->keeper);
}

Call *fixture_start(Fixture *f, unsigned n, const CallParameters *parameters) {
        Call *started = NULL;

        assert_int_equal(call_start(f->client, parameters, done, &f->heard[n], &started), 0);
        return started;
}

Call *fixture_call(Fixture *f, unsigned n, const char *method, uint64_t timeout_us, int fd_consume) {
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

        pair.key = (char *) "key";
        return fixture_start(f, n, &parameters);
}

const Heard *fixture_answer(Fixture *f, unsigned n) {
        while (f->heard[n].n == 0)
                loop_run(f->loop);
        assert_int_equal(f->heard[n].n, 1);
        return &f->heard[n];
}

void fixture_until_held(Fixture *f) {
        while (!f->held)
                loop_run(f->loop);
}

static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

void fixture_run_for(Fixture *f, uint64_t us) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(f->loop, &timer, clock_now() + us);
        loop_run(f->loop);
        loop_timer_stop(&timer);
}

void fixture_die(Fixture *f) {
        instance_exited(f->instance, exit_status_from_wait(CLD_KILLED, SIGSEGV));
}

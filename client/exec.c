/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exec: what the commands that call one runner have in common. Whatever happens, the way out is the same: a tree of our own
 * is stopped, nothing stays behind, and the exit code says which of the things that can happen did. A runner that has
 * been served is stopped in order; one that still hangs in a call given up gets little time. One that runs for others,
 * too, only sees the end of our lane.
 */

#include "client/exec.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call-output.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/version.h"
#include "proto/message.h"

#define STOP_TIMEOUT_US  (10 * USEC_PER_SEC)
#define HURRY_TIMEOUT_US (200 * USEC_PER_MSEC)
#define LOST_TIMEOUT_US  (2 * USEC_PER_SEC) /* from the end of a lane to what is known of the runner's */
#define LOST_TEXT_MAX    (EXIT_TEXT_MAX + 80)

uint64_t exec_elapsed(const Exec *exec) {
        return clock_now() - exec->began;
}

int exec_output_failed(const Exec *exec, int r) {
        /* As if the signal had ended us: who closed the pipe knows, and wants no words. */
        if (r == -EPIPE)
                return EXIT_CODE_SIGNAL + SIGPIPE;
        output_error("%s %s: cannot write the answer: %s", exec->command, exec->what, strerror(-r));
        return EXIT_CODE_BROKEN;
}

static int report(Exec *exec, const ControlFailure *failure, const Baton__Envelope *envelope) {
        int code = session_report(&exec->session, exec->what, failure);
        int r = exec->json ? call_output_failure(failure, envelope, exec_elapsed(exec)) : 0;

        exec->given_up |= failure->status == STATUS_DEADLINE_EXCEEDED;
        return r < 0 ? exec_output_failed(exec, r) : code;
}

/* stop() - an orderly end for the runner, which may have ended by itself. What it does not do, the end of the lane does. */
static void stop(Exec *exec) {
        ControlFailure failure = { 0 };
        ControlStopped *answer = NULL;

        if (!exec->started)
                return;
        exec->session.control.interrupted = false; /* a further signal interrupts this, too */
        (void) control_stop(&exec->session.control, exec->name, exec->given_up ? HURRY_TIMEOUT_US : STOP_TIMEOUT_US,
                            &answer, &failure);
        (void) message_free(answer);
        control_failure_deinit(&failure);
}

/* say_exit() - as the failure's message. */
static void say_exit(const Exec *exec, const ControlExit *how, char message[LOST_TEXT_MAX]) {
        char text[EXIT_TEXT_MAX];

        exit_describe(how, text);
        (void) snprintf(message, LOST_TEXT_MAX, "runner %.64s: %s", exec->name, text);
}

/* find_exit() - among events: that of the instance we were attached to. */
static bool find_exit(const Exec *exec, const Baton__Control__EventsResponse *events, char message[LOST_TEXT_MAX]) {
        for (size_t i = 0; i < events->n_events; i++) {
                const Baton__Control__Event *event = events->events[i];

                if (event->kind != BATON__CONTROL__EVENT__KIND__RUNNER_EXITED || event->instance != exec->instance)
                        continue;
                say_exit(exec, event->exit ? event->exit->exit : NULL, message);
                return true;
        }
        return false;
}

/*
 * report_left() - the same of a runner that runs for others, too: it may already run again, so the events are asked for
 * the end of that instance, which may be about to be known.
 */
static int report_left(Exec *exec, const ControlFailure *failure) {
        Baton__Control__EventsRequest request = BATON__CONTROL__EVENTS_REQUEST__INIT;
        uint64_t end = clock_after(clock_now(), LOST_TIMEOUT_US), now;
        char message[LOST_TEXT_MAX], *names[] = { (char *) exec->name };
        ControlFailure known = *failure;
        bool found = false;

        request.names = names;
        request.n_names = 1;
        while (!found && (now = clock_now()) < end) {
                _cleanup_message_ Baton__Control__EventsResponse *response = NULL;
                ControlCall call;

                control_begin(&exec->session.control, &call, "Events", &request.base, end - now);
                if (control_wait(&exec->session.control, &call) == 0)
                        response = control_unpack(&call, &baton__control__events_response__descriptor);
                control_call_deinit(&call);
                if (!response)
                        break;
                found = find_exit(exec, response, message);
                request.wait = response->n_events == 0;
                request.from_seq = response->next_seq;
        }
        if (found)
                known.message = message;
        return report(exec, &known, NULL);
}

/*
 * report_lost() - the lane has ended. Why is the supervisor's to know, once the runner is gone, which the answer of Stop
 * says; a call of one that is not there any more is then answered with how it ended.
 */
static int report_lost(Exec *exec, const ControlFailure *failure) {
        const CallParameters parameters = { .method = "baton.Runner/Ping", .type = "baton.Ping" };
        char message[LOST_TEXT_MAX];
        ControlFailure known = *failure;
        ControlCall question;
        int code;

        exec->lane = peer_free(exec->lane);
        if (!exec->started)
                return report_left(exec, failure);
        stop(exec);
        control_begin_supervised(&exec->session.control, &question, exec->name, &parameters);
        (void) control_wait(&exec->session.control, &question);
        if (question.failure.ended) {
                say_exit(exec, question.failure.ended->exit, message);
                known.message = message;
                known.ended = question.failure.ended;
        }
        code = report(exec, &known, NULL);
        control_call_deinit(&question);
        return code;
}

int exec_failed(Exec *exec, const ControlFailure *failure, const Baton__Envelope *envelope) {
        if (exec->lost && failure->status == STATUS_UNAVAILABLE)
                return report_lost(exec, failure);
        return report(exec, failure, envelope);
}

int exec_stopped(Exec *exec, int r) {
        ControlFailure failure = { .status = STATUS_CANCELLED };
        char signal[EXIT_TEXT_MAX], message[EXIT_TEXT_MAX + 16];

        exec->given_up = true;
        if (r != -EINTR || !exec->session.signal) {
                output_error("%s %s: %s", exec->command, exec->what, strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        signal_describe(exec->session.signal, signal);
        (void) snprintf(message, sizeof(message), "ended by %s", signal);
        failure.message = message;
        (void) exec_failed(exec, &failure, NULL);
        return EXIT_CODE_SIGNAL + exec->session.signal;
}

/* ---- a lane of our own ---- */

static void on_ended(Peer *peer, Status status, const char *reason) {
        Exec *exec = peer_userdata(peer);

        (void) status;
        (void) reason; /* the calls are told */
        exec->lost = true;
}

static void on_ready(Peer *peer, bool renewed) {
        Exec *exec = peer_userdata(peer);

        (void) renewed;
        exec->ready = true;
}

static const PeerHandler lane_handler = { .ready = on_ready, .ended = on_ended };

static int add_lane(Exec *exec, int fd_consume) {
        const PeerLimits limits = { .max_frame = exec->max_frame, .max_object = session_max_object(exec->max_frame) };
        char software[64];
        PeerConfig config = { .side = 0,
                              .n_channels = 1,
                              .renewal = LANE_RENEWAL_PEER,
                              .limits = &limits,
                              .objects = PEER_OBJECTS_MAP };

        config.software = software;

        (void) snprintf(software, sizeof(software), "baton %s", version_release());
        return endpoint_add_peer(exec->session.endpoint, &config, fd_consume, &lane_handler, exec, &exec->lane);
}

/* wait_ready() - its Hello says what it accepts. One that has ended is told by the first call. */
static int wait_ready(Exec *exec) {
        int r = 0;

        while (r == 0 && !exec->ready && !exec->lost)
                r = exec->session.control.interrupted ? -EINTR : endpoint_dispatch(exec->session.endpoint, -1);
        return r;
}

/* attached() - the answer of Attach is there, or the wait for it failed. As exec_attach(). */
static int attached(Exec *exec, ControlCall *call, int r, int *ret_code) {
        char no_lane[] = "the answer of Attach has no lane";
        ControlFailure failure = { .status = STATUS_INTERNAL, .message = no_lane };
        _cleanup_message_ ControlAttached *answer = NULL;

        if (r == 0 && call->n_fds > 0) {
                answer = control_unpack(call, &baton__control__attach_response__descriptor);
                exec->instance = answer ? answer->instance : 0;
                exec->pid = answer ? answer->pid : 0;
                r = add_lane(exec, fd_take(&call->fds[0]));
                if (r == 0)
                        r = wait_ready(exec);
                if (r == 0)
                        return 0;
        }
        if (r < 0)
                *ret_code = exec_stopped(exec, r);
        else
                *ret_code = exec_failed(exec, call->failure.status ? &call->failure : &failure, NULL);
        return -ECANCELED;
}

int exec_attach(Exec *exec, int *ret_code) {
        Control *control = &exec->session.control;
        ControlCall call;
        int r;

        if (exec->lane)
                return 0;
        control_begin_attach(control, &call, exec->name, exec->deadline_us);
        r = control_wait(control, &call);
        r = attached(exec, &call, r, ret_code);
        control_call_deinit(&call);
        return r;
}

void exec_begin(Exec *exec, ControlCall *call, const CallParameters *parameters) {
        control_begin_at(&exec->session.control, call, exec->lane, exec->name, parameters);
}

/* ---- from start to end ---- */

static int not_started(Exec *exec, int r, ControlFailure *failure) {
        int code = r < 0 ? exec_stopped(exec, r) : exec_failed(exec, failure, NULL);

        control_failure_deinit(failure);
        return code;
}

static int start_and_work(Exec *exec, const char *program) {
        ControlFailure failure = { 0 };
        int r, code;

        r = session_start(&exec->session, exec->options, program, true, &exec->started, &failure);
        if (r != 0)
                return not_started(exec, r, &failure);
        exec->name = exec->started->name;
        exec->pid = exec->started->pid;
        code = exec->work(exec);
        exec->lane = peer_free(exec->lane);
        stop(exec);
        exec->started = message_free(exec->started);
        return code;
}

/* leave() - the runner sees that we meant it. */
static void leave(Exec *exec) {
        if (exec->lane && !exec->lost)
                peer_close(exec->lane, STATUS_OK, "done");
        exec->lane = peer_free(exec->lane);
}

static int attach_and_work(Exec *exec) {
        int code;

        if (session_connect(&exec->session, exec->command, exec->options->socket, &code) < 0)
                return code;
        exec->name = exec->options->target;
        if (exec_attach(exec, &code) == 0)
                code = exec->work(exec);
        leave(exec);
        session_close(&exec->session);
        return code;
}

int exec_run(Exec *exec) {
        _cleanup_free_ char *program = NULL;
        ControlFailure failure = { 0 };
        int r, code;

        exec->session = (Session){ .command = exec->command, .signal_fd = -1 };
        exec->began = clock_now();
        if (!exec->options->exec)
                return attach_and_work(exec);
        r = session_find(exec->options->program, &program, &failure);
        if (r != 0)
                return not_started(exec, r, &failure);
        if (session_open(&exec->session, exec->command, exec->max_frame) < 0)
                return EXIT_CODE_BROKEN;
        code = start_and_work(exec, program);
        session_close(&exec->session);
        return code;
}

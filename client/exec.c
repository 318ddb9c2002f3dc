/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exec: what the commands with --exec have in common. Whatever happens, the way out is the same: the tree is stopped,
 * nothing stays behind, and the exit code says which of the things that can happen did. A runner that has been served
 * is stopped in order; one that still hangs in a call given up gets little time.
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

        exec->session.control.interrupted = false; /* a further signal interrupts this, too */
        (void) control_stop(&exec->session.control, exec->started->name,
                            exec->given_up ? HURRY_TIMEOUT_US : STOP_TIMEOUT_US, &answer, &failure);
        (void) message_free(answer);
        control_failure_deinit(&failure);
}

/*
 * report_lost() - the lane has ended. Why is the supervisor's to know, once the runner is gone, which the answer of Stop
 * says; a call of one that is not there any more is then answered with how it ended.
 */
static int report_lost(Exec *exec, const ControlFailure *failure) {
        const CallParameters parameters = { .method = "baton.Runner/Ping", .type = "baton.Ping" };
        char how[EXIT_TEXT_MAX], message[EXIT_TEXT_MAX + 80];
        ControlFailure known = *failure;
        ControlCall question;
        int code;

        exec->lane = peer_free(exec->lane);
        stop(exec);
        control_begin_supervised(&exec->session.control, &question, exec->started->name, &parameters);
        (void) control_wait(&exec->session.control, &question);
        if (question.failure.ended) {
                exit_describe(question.failure.ended->exit, how);
                (void) snprintf(message, sizeof(message), "runner %.64s: %s", exec->started->name, how);
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

static const PeerHandler lane_handler = { .ended = on_ended };

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

/* attached() - the answer of Attach is there, or the wait for it failed. As exec_attach(). */
static int attached(Exec *exec, ControlCall *call, int r, int *ret_code) {
        char no_lane[] = "the answer of Attach has no lane";
        ControlFailure failure = { .status = STATUS_INTERNAL, .message = no_lane };

        if (r == 0 && call->n_fds > 0) {
                r = add_lane(exec, fd_take(&call->fds[0]));
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

        control_begin_attach(control, &call, exec->started->name, 0);
        r = control_wait(control, &call);
        r = attached(exec, &call, r, ret_code);
        control_call_deinit(&call);
        return r;
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
        code = exec->work(exec);
        exec->lane = peer_free(exec->lane);
        stop(exec);
        exec->started = message_free(exec->started);
        return code;
}

int exec_run(Exec *exec) {
        _cleanup_free_ char *program = NULL;
        ControlFailure failure = { 0 };
        int r, code;

        exec->session = (Session){ .command = exec->command, .signal_fd = -1 };
        exec->began = clock_now();
        r = session_find(exec->options->program, &program, &failure);
        if (r != 0)
                return not_started(exec, r, &failure);
        if (session_open(&exec->session, exec->command, exec->max_frame) < 0)
                return EXIT_CODE_BROKEN;
        code = start_and_work(exec, program);
        session_close(&exec->session);
        return code;
}

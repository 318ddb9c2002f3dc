#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the runner share, and nobody else includes: runner.c (its life), runner-start.c, runner-stop.c,
 * runner-methods.c (what it may call).
 */

#include "supervisor/runner.h"
#include "supervisor/supervisor.h"

/* What of a runner the keeper holds a duplicate of. */
typedef enum RunnerStored {
        RUNNER_STORED_LANE,
        RUNNER_STORED_LISTENER,
        RUNNER_STORED_STDOUT,
        RUNNER_STORED_STDERR,
        _RUNNER_STORED_N,
} RunnerStored;

/* ---- runner.c ---- */
extern const PeerHandler runner_peer_handler;
/* runner_raise() - an event of the process; handled now, or, from within an action, after it. */
void runner_raise(Runner *runner, ProcessEvent event);
/* runner_store() - PUT; @fd stays ours. A refusal dooms the runner. 0 or a negative errno. */
int runner_store(Runner *runner, RunnerStored what, int fd);
/* runner_drop() - @fd_consume, which is watched no more, is closed when the keeper has closed its duplicate. */
void runner_drop(Runner *runner, RunnerStored what, int fd_consume);
/* runner_fail() - why the start failed; the first reason stays. "at exec(x): text", or ": text". */
void runner_fail(Runner *runner, RunnerFailure failure, const char *format, ...) _printf_(3, 4);
/* runner_tell_started() - tells the one who started it. */
void runner_tell_started(Runner *runner, RunnerFailure failure);

/* ---- runner-start.c ---- */
void runner_prepare(Runner *runner);
/* runner_connected() - the runner has come in by its bootstrap socket. */
void runner_connected(Bootstrap *bootstrap, int lane_fd_consume);
/* runner_close_bootstrap() - the way in goes, whatever is left of it. */
void runner_close_bootstrap(Runner *runner);

/* ---- runner-stop.c ---- */
void runner_ask(Runner *runner);
void runner_leave(Runner *runner);
void runner_escalate(Runner *runner);
void runner_kill(Runner *runner);

/* ---- runner-methods.c ---- */
/* runner_called() - a call of the runner's to us. */
void runner_called(Peer *peer, Call *call);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the methods of baton.Control do to one runner. A method checks what it was given, finds the runner, and either
 * answers or leaves the call with whoever will: a start with the runner, a stop with its watcher, a call with the relay,
 * lines with the log's reader. Nothing here waits.
 */

#include "supervisor/control-internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/attach.h"
#include "supervisor/logs.h"
#include "supervisor/near.h"
#include "supervisor/relay.h"
#include "supervisor/report.h"
#include "supervisor/start-request.h"

/* Give up on more than this: an answer in our lifetime is meant. */
#define TIMEOUT_MAX_US (24 * 3600 * USEC_PER_SEC)

/* find() - or @call is ended, NOT_FOUND, with the names that come near. */
static Runner *find(Supervisor *supervisor, Call *call, const char *name) {
        Runner *runner = runner_find(supervisor, name);
        Near near = { .wanted = name };
        char text[NEAR_TEXT_SIZE];

        if (runner)
                return runner;
        for (const Runner *each = runner_first(supervisor); each; each = runner_next(each))
                near_offer(&near, each->name);
        (void) call_fail(call, STATUS_NOT_FOUND, "runner %.64s: there is none of that name%s", name,
                         near_text(&near, text));
        return NULL;
}

/* find_instance() - the present one of a runner, or its last; or @call is ended. */
static Instance *find_instance(Supervisor *supervisor, Call *call, const char *name) {
        Runner *runner = find(supervisor, call, name);

        if (runner && !runner->instance)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", runner->name);
        return runner ? runner->instance : NULL;
}

/* --------------------------------------------------------------------------------------------------------------- Start */

/* A call that waits for what comes of a runner. */
typedef struct Waiting {
        RunnerWatcher watcher;
        Call *call;
} Waiting;

static Waiting *waiting_new(Call *call, void (*callback)(RunnerWatcher *, Runner *, RunnerOutcome)) {
        Waiting *waiting = calloc(1, sizeof(*waiting));

        if (waiting)
                *waiting = (Waiting){ .watcher = { .callback = callback }, .call = call };
        return waiting;
}

static bool is_on_its_way(RunnerOutcome outcome) {
        return outcome == RUNNER_OUTCOME_PENDING || outcome == RUNNER_OUTCOME_RETRYING;
}

static void started(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Waiting *waiting = CONTAINER_OF(watcher, Waiting, watcher);
        Baton__Control__StartResponse response = BATON__CONTROL__START_RESPONSE__INIT;
        Call *call = waiting->call;

        if (is_on_its_way(outcome))
                return;
        runner_unwatch(watcher);
        free(waiting);
        call_on_cancel(call, NULL, NULL);
        if (outcome != RUNNER_OUTCOME_UP) {
                report_start_failure(call, runner);
                return;
        }
        response.name = runner->name;
        response.instance = runner->instance->id;
        response.pid = runner->instance->pid;
        if (runner->instance->peer)
                response.software = peer_remote(runner->instance->peer)->software;
        (void) call_answer_message(call, &response.base);
}

/* Nobody waits for the start any more: nothing of it shall stay behind. The call is ended when the runner is gone. */
static void start_cancelled(Call *call, void *userdata) {
        Waiting *waiting = userdata;

        (void) call;
        runner_stop(waiting->watcher.runner, 0);
}

/* start_new() - 0, and the runner; or a negative errno. */
static int start_new(Supervisor *supervisor, const Baton__Control__StartRequest *request, Runner **ret_runner) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        char derived[CONFIG_NAME_MAX + 1];
        const char *name = request->name;
        _cleanup_free_ char *program = strndup((const char *) request->program.data, request->program.len);
        int r;

        if (!program)
                return -ENOMEM;
        if (!*name)
                name = transient_name(supervisor, program, derived);
        r = start_request_config(request, name, &config);
        return r < 0 ? r : transient_start(supervisor, config, ret_runner);
}

void control_start(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StartRequest *request = (const Baton__Control__StartRequest *) message;
        const char *wrong = start_request_check(request);
        Waiting *waiting;
        Runner *runner;
        int r = -ENOMEM;

        if (wrong) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s", wrong);
                return;
        }
        waiting = waiting_new(call, started);
        if (waiting)
                r = start_new(control->supervisor, request, &runner);
        if (r == 0) {
                runner_watch(runner, &waiting->watcher);
                call_on_cancel(call, start_cancelled, waiting);
                return;
        }
        free(waiting);
        if (r == -EEXIST)
                (void) call_fail(call, STATUS_ALREADY_EXISTS, "runner %s: there is one of that name", request->name);
        else if (r == -ESHUTDOWN)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor is stopping");
        else
                (void) call_fail(call, status_from_errno(r), "cannot start %.*s: %s",
                                 (int) MIN(request->program.len, (size_t) INSTANCE_FAILURE_SIZE),
                                 (const char *) request->program.data, strerror(-r));
}

/* ---------------------------------------------------------------------------------------------------------------- Stop */

static void answer_stop(Call *call, const Runner *runner) {
        Baton__Control__StopResponse response = BATON__CONTROL__STOP_RESPONSE__INIT;
        const RunnerExit *last = runner_exit(runner, 0);
        Baton__Control__Exit exit;

        if (last) {
                report_exit(last->exit, &exit);
                response.exit = &exit;
                response.killed = last->killed;
        }
        (void) call_answer_message(call, &response.base);
}

static bool is_down(RunnerOutcome outcome) {
        return outcome == RUNNER_OUTCOME_DOWN || outcome == RUNNER_OUTCOME_DONE || outcome == RUNNER_OUTCOME_FAILED;
}

static void stopped(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Waiting *waiting = CONTAINER_OF(watcher, Waiting, watcher);

        if (!is_down(outcome) && outcome != RUNNER_OUTCOME_GONE)
                return;
        runner_unwatch(watcher);
        answer_stop(waiting->call, runner);
        free(waiting);
}

void control_stop(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StopRequest *request = (const Baton__Control__StopRequest *) message;
        Runner *runner = find(control->supervisor, call, request->name);
        Waiting *waiting;

        if (!runner)
                return;
        if (is_down(runner_outcome(runner))) {
                answer_stop(call, runner);
                return;
        }
        waiting = waiting_new(call, stopped);
        if (!waiting) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory", runner->name);
                return;
        }
        runner_watch(runner, &waiting->watcher);
        runner_stop(runner, MIN(request->timeout_us, TIMEOUT_MAX_US));
}

/* ---------------------------------------------------------------------------------------- Signal, Call, Logs, Attach */

/* What the keeper answers: the call outlives the runner, whose name is all that is needed. */
typedef struct Signal {
        Call *call;
        int signal;
        char name[INSTANCE_NAME_SIZE];
} Signal;

static void signalled(KeeperLink *link, int result, void *userdata) {
        Baton__Control__SignalResponse response = BATON__CONTROL__SIGNAL_RESPONSE__INIT;
        _cleanup_free_ Signal *sent = userdata;

        (void) link;
        if (result == 0)
                (void) call_answer_message(sent->call, &response.base);
        else if (result == -ESRCH || result == -ENOENT)
                (void) call_fail(sent->call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", sent->name);
        else
                (void) call_fail(sent->call, status_from_errno(result), "runner %s: cannot send signal %d: %s",
                                 sent->name, sent->signal, strerror(-result));
}

void control_signal(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__SignalRequest *request = (const Baton__Control__SignalRequest *) message;
        Runner *runner = find(control->supervisor, call, request->name);
        Signal *sent;
        int r = -ENOMEM;

        if (!runner)
                return;
        sent = calloc(1, sizeof(*sent));
        if (sent) {
                *sent = (Signal){ .call = call, .signal = request->signal };
                (void) strcpy(sent->name, runner->name);
                r = runner_signal(runner, request->signal, signalled, sent);
        }
        if (r == 0)
                return;
        free(sent);
        if (r == -EINVAL)
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "there is no signal %d", request->signal);
        else if (r == -ESRCH)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", runner->name);
        else
                (void) call_fail(call, status_from_errno(r), "runner %s: cannot ask the keeper to send a signal: %s",
                                 runner->name, strerror(-r));
}

void control_call(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__CallRequest *request = (const Baton__Control__CallRequest *) message;
        Instance *instance = find_instance(control->supervisor, call, request->name);

        if (instance)
                relay_call(call, request, instance);
}

void control_logs(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__LogsRequest *request = (const Baton__Control__LogsRequest *) message;
        Runner *runner = find(control->supervisor, call, request->name);

        if (runner)
                logs_call(call, request, runner);
}

void control_attach(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__AttachRequest *request = (const Baton__Control__AttachRequest *) message;
        Instance *instance = find_instance(control->supervisor, call, request->name);

        if (instance)
                attach_call(call, instance, &control->client.credentials, peer_remote(control->peer)->software);
}

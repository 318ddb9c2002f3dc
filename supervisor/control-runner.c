/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the methods of baton.Control do to one runner. A method checks what it was given, finds the runner, and either
 * answers or leaves the call with whoever will: a start with the runner, a stop with its watcher, a call with the relay,
 * lines with the log's reader. Nothing here waits.
 */

#include "supervisor/control-internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/attach.h"
#include "supervisor/logs.h"
#include "supervisor/near.h"
#include "supervisor/relay.h"
#include "supervisor/report.h"
#include "supervisor/start-request.h"
#include "supervisor/upgrade.h"

Runner *control_find(Supervisor *supervisor, Call *call, const char *name) {
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

/*
 * find_instance() - the present one of a runner, or its last; NULL: @call is ended, or waits for who serves after an upgrade,
 * of whom @request will then be asked as @method.
 */
static Instance *find_instance(Control *control, Call *call, const char *name, const char *method,
                               const ProtobufCMessage *request) {
        Runner *runner = control_find(control->supervisor, call, name);

        if (runner && upgrade_hold(runner, control, call, method, request))
                return NULL;
        if (runner && !runner->instance)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", runner->name);
        return runner ? runner->instance : NULL;
}

/* ------------------------------------------------------------------------------------------------------- calls that wait */

/* Which command it is; each has its way to be answered, and to be cancelled. */
typedef enum WaitingFor {
        WAITING_START,     /* of one that there is */
        WAITING_START_NEW, /* of one that was made for it */
        WAITING_STOP,
        WAITING_RESTART,
        _WAITING_N,
} WaitingFor;

/* A call that waits for what comes of a runner. */
typedef struct Waiting {
        RunnerWatcher watcher;
        Crossing crossing;
        Call *call;
        WaitingFor what;
        uint64_t before; /* Restart: the instance that there was; Stop: the one that has ended; 0: none */
} Waiting;

typedef struct WaitingKind {
        const char *method;
        void (*told)(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome);
        void (*cancelled)(Call *call, void *userdata);
} WaitingKind;
static const WaitingKind waiting_kinds[];

/* waiting_new() - NULL: no memory, and @call is ended. */
static Waiting *waiting_new(Call *call, const char *name, WaitingFor what) {
        Waiting *waiting = calloc(1, sizeof(*waiting));

        if (waiting)
                *waiting = (Waiting){ .call = call, .what = what };
        else
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "runner %.64s: no memory to wait for it", name);
        return waiting;
}

static void waiting_give(const Crossing *crossing, CrossingTake take, void *userdata) {
        const Waiting *waiting = CONTAINER_OF(crossing, Waiting, crossing);
        Baton__Snapshot__RunnerCommand command = BATON__SNAPSHOT__RUNNER_COMMAND__INIT;

        command.name = waiting->watcher.runner->name;
        command.before = waiting->before;
        command.made = waiting->what == WAITING_START_NEW;
        take(&command.base, userdata);
}

/* waiting_begin() - from here on until its end @runner is watched. */
static void waiting_begin(Waiting *waiting, Runner *runner) {
        const WaitingKind *kind = &waiting_kinds[waiting->what];

        waiting->watcher.callback = kind->told;
        runner_watch(runner, &waiting->watcher);
        waiting->crossing = (Crossing){
                .call = waiting->call,
                .method = kind->method,
                .begun = true,
                .give = waiting_give,
        };
        LIST_INSERT_HEAD(&runner->supervisor->crossings, &waiting->crossing, link);
        call_on_cancel(waiting->call, kind->cancelled, waiting);
}

/* waiting_end() - of one that has begun: its call, which is to be ended now; nobody cancels it any more. */
static Call *waiting_end(Waiting *waiting) {
        Call *call = waiting->call;

        runner_unwatch(&waiting->watcher);
        LIST_REMOVE(&waiting->crossing, link);
        call_on_cancel(call, NULL, NULL);
        free(waiting);
        return call;
}

/* Nobody waits any more; what was begun goes on. */
static void waiting_cancelled(Call *call, void *userdata) {
        (void) waiting_end(userdata);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; it goes on");
}

static bool is_on_its_way(RunnerOutcome outcome) {
        return outcome == RUNNER_OUTCOME_PENDING || outcome == RUNNER_OUTCOME_RETRYING;
}

static bool is_down(RunnerOutcome outcome) {
        return outcome == RUNNER_OUTCOME_DOWN || outcome == RUNNER_OUTCOME_DONE || outcome == RUNNER_OUTCOME_FAILED;
}

static void fail_stopping(Call *call) {
        (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor is stopping");
}

/* fail_command() - of runner_start() and runner_restart(). */
static void fail_command(Call *call, const Runner *runner, int error) {
        if (error == -ESHUTDOWN)
                fail_stopping(call);
        else
                (void) call_fail(call, STATUS_NOT_FOUND, "runner %s: is being removed", runner->name);
}

/* report_not_up() - what came instead of a runner that is up. */
static void report_not_up(Call *call, const Runner *runner, RunnerOutcome outcome) {
        if (outcome == RUNNER_OUTCOME_GONE)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the runner was removed meanwhile");
        else if (outcome == RUNNER_OUTCOME_DOWN)
                (void) call_fail(call, STATUS_UNAVAILABLE, "runner %s: was stopped meanwhile", runner->name);
        else if (outcome == RUNNER_OUTCOME_FAILED && runner->unmet != UNMET_NOTHING)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: %s", runner->name,
                                 runner->why ? runner->why : "cannot be started");
        else
                report_start_failure(call, runner);
}

static const char *software_of(const Runner *runner) {
        const Instance *instance = runner->instance;
        const char *software = instance && instance->peer ? peer_remote(instance->peer)->software : NULL;

        return software ? software : "";
}

/* --------------------------------------------------------------------------------------------------------------- Start */

static void answer_start(Call *call, const Runner *runner, bool already) {
        Baton__Control__StartResponse response = BATON__CONTROL__START_RESPONSE__INIT;

        response.name = (char *) runner->name;
        response.instance = runner->last_instance;
        response.pid = runner_pid(runner);
        response.software = (char *) software_of(runner);
        response.already = already;
        (void) call_answer_message(call, &response.base);
}

/* start_known() - one that there is. */
static void started_known(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Call *call;

        if (outcome == RUNNER_OUTCOME_PENDING)
                return;
        call = waiting_end(CONTAINER_OF(watcher, Waiting, watcher));
        if (outcome == RUNNER_OUTCOME_UP || outcome == RUNNER_OUTCOME_DONE || outcome == RUNNER_OUTCOME_SCHEDULED)
                answer_start(call, runner, false);
        else
                report_not_up(call, runner, outcome);
}

static void start_known(Control *control, Call *call, const Baton__Control__StartRequest *request) {
        Runner *runner = control_find(control->supervisor, call, request->name);
        Waiting *waiting;
        int r;

        if (!runner)
                return;
        if (runner_outcome(runner) == RUNNER_OUTCOME_UP ||
            (request->no_wait && runner_outcome(runner) == RUNNER_OUTCOME_PENDING && runner->desired == DESIRED_UP)) {
                answer_start(call, runner, true);
                return;
        }
        waiting = request->no_wait ? NULL : waiting_new(call, runner->name, WAITING_START);
        if (!waiting && !request->no_wait)
                return;
        r = runner_start(runner);
        if (r < 0) {
                free(waiting);
                fail_command(call, runner, r);
        } else if (!waiting) {
                answer_start(call, runner, false);
        } else {
                waiting_begin(waiting, runner);
        }
}

/* Of a new one. Its end is its failure: nothing of it is to stay. */
static void started(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Call *call;

        if (is_on_its_way(outcome))
                return;
        call = waiting_end(CONTAINER_OF(watcher, Waiting, watcher));
        if (outcome == RUNNER_OUTCOME_UP)
                answer_start(call, runner, false);
        else
                report_start_failure(call, runner);
}

/* Nobody waits for the start any more: nothing of it shall stay behind. */
static void start_cancelled(Call *call, void *userdata) {
        Waiting *waiting = userdata;
        Runner *runner = waiting->watcher.runner;

        (void) waiting_end(waiting);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; what was started is stopped");
        runner_stop(runner, 0);
}

/* start_new() - 0, and the runner; or a negative errno. Of @call the terminal is taken, if one is asked for. */
static int start_new(Supervisor *supervisor, Call *call, const Baton__Control__StartRequest *request,
                     Runner **ret_runner) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        char derived[CONFIG_NAME_MAX + 1];
        const char *name = request->name;
        _cleanup_free_ char *program = strndup((const char *) request->program.data, request->program.len);
        size_t n_fds;
        int *fds = call_fds(call, &n_fds), r;

        if (!program)
                return -ENOMEM;
        if (!*name)
                name = transient_name(supervisor, program, derived);
        r = start_request_config(request, name, &config);
        if (r < 0)
                return r;
        return transient_start(supervisor, config, request->terminal ? fd_take(&fds[0]) : -1, ret_runner);
}

void control_start(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StartRequest *request = (const Baton__Control__StartRequest *) message;
        const char *wrong;
        Waiting *waiting;
        Runner *runner;
        int r;

        if (request->program.len == 0 && *request->name) {
                start_known(control, call, request);
                return;
        }
        if (control->client.role < ROLE_ADMIN) {
                control_deny(control, call, "Start of another program", ROLE_ADMIN);
                return;
        }
        wrong = start_request_check(request, call_envelope(call)->n_fds);
        if (wrong) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s", wrong);
                return;
        }
        waiting = waiting_new(call, request->name, WAITING_START_NEW);
        if (!waiting)
                return;
        r = start_new(control->supervisor, call, request, &runner);
        if (r == 0) {
                waiting_begin(waiting, runner);
                return;
        }
        free(waiting);
        if (r == -EEXIST)
                (void) call_fail(call, STATUS_ALREADY_EXISTS, "runner %s: there is one of that name", request->name);
        else if (r == -ESHUTDOWN)
                fail_stopping(call);
        else
                (void) call_fail(call, status_from_errno(r), "cannot start %.*s: %s",
                                 (int) MIN(request->program.len, (size_t) INSTANCE_FAILURE_SIZE),
                                 (const char *) request->program.data, strerror(-r));
}

/* ---------------------------------------------------------------------------------------------------------------- Stop */

/* answer_stop() - @runner NULL: it is gone, and nothing is known of it. */
static void answer_stop(Call *call, const Runner *runner, bool already, bool ended) {
        Baton__Control__StopResponse response = BATON__CONTROL__STOP_RESPONSE__INIT;
        const RunnerExit *last = runner && ended ? runner_exit(runner, 0) : NULL;
        Baton__Control__Exit exit;

        if (last) {
                report_exit(last->exit, &exit);
                response.exit = &exit;
                response.killed = last->killed;
        }
        if (last && !already)
                response.leftovers = runner->leftovers;
        while (response.leftovers && response.leftovers[response.n_leftovers])
                response.n_leftovers++;
        response.already = already;
        (void) call_answer_message(call, &response.base);
}

/* stopped() - or somebody has asked for the contrary since. */
static void stopped(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Waiting *waiting = CONTAINER_OF(watcher, Waiting, watcher);

        if (is_down(outcome) && runner->sought)
                waiting->before = runner->last_instance;
        else if (waiting->before && runner->sought && outcome != RUNNER_OUTCOME_GONE)
                return; /* it is started again: the look comes before that, and we are told of it */
        else if (is_down(outcome) || outcome == RUNNER_OUTCOME_GONE || waiting->before)
                answer_stop(waiting_end(waiting), runner, false, true);
        else if (runner->desired == DESIRED_UP)
                (void) call_fail(waiting_end(waiting), STATUS_UNAVAILABLE, "runner %s: was started again meanwhile",
                                 runner->name);
}

void control_stop(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StopRequest *request = (const Baton__Control__StopRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);
        Waiting *waiting = NULL;
        bool already;

        if (!runner)
                return;
        already = is_down(runner_outcome(runner));
        if (!already && !request->no_wait) {
                waiting = waiting_new(call, runner->name, WAITING_STOP);
                if (!waiting)
                        return;
                waiting_begin(waiting, runner);
        }
        /* One that has failed, or is done, is then wanted down, too. */
        runner_stop(runner, MIN(request->timeout_us, TIMEOUT_MAX_US));
        if (!waiting)
                answer_stop(call, runner, already, already);
}

/* ------------------------------------------------------------------------------------------------------ Restart, Reset */

/* end_of() - of that instance, if it is remembered. */
static const RunnerExit *end_of(const Runner *runner, uint64_t instance) {
        const RunnerExit *exit;

        for (unsigned i = 0; instance > 0 && (exit = runner_exit(runner, i)); i++)
                if (exit->instance == instance)
                        return exit;
        return NULL;
}

static void answer_restart(Call *call, const Runner *runner, uint64_t before) {
        Baton__Control__RestartResponse response = BATON__CONTROL__RESTART_RESPONSE__INIT;
        const RunnerExit *end = end_of(runner, before);
        Baton__Control__Exit exit;

        response.name = (char *) runner->name;
        response.instance = runner->last_instance == before ? 0 : runner->last_instance;
        response.pid = runner->last_instance == before ? 0 : runner_pid(runner);
        response.software = (char *) software_of(runner);
        if (end) {
                report_exit(end->exit, &exit);
                response.exit = &exit;
                response.killed = end->killed;
        }
        (void) call_answer_message(call, &response.base);
}

static void restarted(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Waiting *waiting = CONTAINER_OF(watcher, Waiting, watcher);
        uint64_t before = waiting->before;
        bool is_there = outcome == RUNNER_OUTCOME_UP || outcome == RUNNER_OUTCOME_DONE;

        if (outcome == RUNNER_OUTCOME_PENDING || (is_there && runner->last_instance == before))
                return;
        if (is_there || outcome == RUNNER_OUTCOME_SCHEDULED)
                answer_restart(waiting_end(waiting), runner, before);
        else
                report_not_up(waiting_end(waiting), runner, outcome);
}

void control_restart(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__RestartRequest *request = (const Baton__Control__RestartRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);
        Waiting *waiting = NULL;
        uint64_t before;
        int r;

        if (!runner)
                return;
        if (runner->transient) {
                (void) call_fail(
                        call, STATUS_FAILED_PRECONDITION,
                        "runner %s: was made by a client, and is not of the configuration: it cannot be restarted",
                        runner->name);
                return;
        }
        before = runner_pid(runner) > 0 ? runner->last_instance : 0;
        if (!request->no_wait) {
                waiting = waiting_new(call, runner->name, WAITING_RESTART);
                if (!waiting)
                        return;
                waiting->before = before;
        }
        r = runner_restart(runner);
        if (r == 0)
                runner->stop_timeout_us = MIN(request->timeout_us, TIMEOUT_MAX_US);
        if (r < 0) {
                free(waiting);
                fail_command(call, runner, r);
        } else if (!waiting) {
                answer_restart(call, runner, before);
        } else {
                waiting_begin(waiting, runner);
        }
}

void control_reset(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__ResetRequest *request = (const Baton__Control__ResetRequest *) message;
        Baton__Control__ResetResponse response = BATON__CONTROL__RESET_RESPONSE__INIT;
        Runner *runner = control_find(control->supervisor, call, request->name);

        if (!runner)
                return;
        response.already = runner->state != POLICY_FAILED && runner->state != POLICY_BACKOFF &&
                           runner->n_failures == 0 && runner->n_restarts == 0;
        runner_reset(runner);
        (void) call_answer_message(call, &response.base);
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

static const WaitingKind waiting_kinds[] = {
        [WAITING_START] = { "Start", started_known, waiting_cancelled },
        [WAITING_START_NEW] = { "Start", started, start_cancelled },
        [WAITING_STOP] = { "Stop", stopped, waiting_cancelled },
        [WAITING_RESTART] = { "Restart", restarted, waiting_cancelled },
};
static_assert(ARRAY_SIZE(waiting_kinds) == _WAITING_N, "a kind for each");

/* go_on() - with a wait that a predecessor began. */
static void go_on(const Control *control, Call *call, const ProtobufCMessage *message, WaitingFor what) {
        const Baton__Snapshot__RunnerCommand *command = (const Baton__Snapshot__RunnerCommand *) message;
        Runner *runner = control_find(control->supervisor, call, command->name);
        Waiting *waiting = runner ? waiting_new(call, runner->name, what) : NULL;

        if (!waiting)
                return;
        waiting->before = command->before;
        waiting_begin(waiting, runner);
}

void control_start_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        bool made = ((const Baton__Snapshot__RunnerCommand *) message)->made;

        go_on(control, call, message, made ? WAITING_START_NEW : WAITING_START);
}

void control_stop_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        go_on(control, call, message, WAITING_STOP);
}

void control_restart_go_on(Control *control, Call *call, const ProtobufCMessage *message) {
        go_on(control, call, message, WAITING_RESTART);
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
        Runner *runner = control_find(control->supervisor, call, request->name);
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
        Instance *instance = find_instance(control, call, request->name, "Call", message);

        if (instance)
                relay_call(call, request, instance);
}

void control_logs(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__LogsRequest *request = (const Baton__Control__LogsRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);

        if (runner)
                logs_call(call, request, runner);
}

void control_attach(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__AttachRequest *request = (const Baton__Control__AttachRequest *) message;
        Instance *instance = find_instance(control, call, request->name, "Attach", message);

        if (instance)
                attach_call(call, instance, &control->client.credentials, peer_remote(control->peer)->software);
}

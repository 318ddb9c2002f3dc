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
static Instance *find(Supervisor *supervisor, Call *call, const char *name) {
        Instance *instance = supervisor_find(supervisor, name), *each, *next;
        Near near = { .wanted = name };
        char text[NEAR_TEXT_SIZE];

        if (instance)
                return instance;
        HASH_ITER (by_name, supervisor->by_name, each, next)
                near_offer(&near, each->spec.name);
        (void) call_fail(call, STATUS_NOT_FOUND, "runner %.64s: there is none of that name%s", name,
                         near_text(&near, text));
        return NULL;
}

/* --------------------------------------------------------------------------------------------------------------- Start */

static void started(Instance *instance, InstanceFailure failure, void *userdata) {
        Baton__Control__StartResponse response = BATON__CONTROL__START_RESPONSE__INIT;
        Call *call = userdata;

        call_on_cancel(call, NULL, NULL);
        if (failure) {
                report_start_failure(call, instance, failure);
                return;
        }
        response.name = instance->spec.name;
        response.instance = instance->id;
        response.pid = instance->pid;
        if (instance->peer)
                response.software = peer_remote(instance->peer)->software;
        (void) call_answer_message(call, &response.base);
}

/* Nobody waits for the start any more: nothing of it shall stay behind. The call is ended when the runner is gone. */
static void start_cancelled(Call *call, void *userdata) {
        (void) call;
        instance_stop(userdata, 0);
}

void control_start(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StartRequest *request = (const Baton__Control__StartRequest *) message;
        const char *wrong = start_request_check(request);
        Instance *instance;
        InstanceSpec spec;
        int r;

        if (wrong) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s", wrong);
                return;
        }
        r = start_request_spec(request, &spec);
        if (r == 0)
                r = supervisor_start(control->supervisor, &spec, started, call, &instance);
        if (r == 0)
                call_on_cancel(call, start_cancelled, instance);
        else if (r == -EEXIST)
                (void) call_fail(call, STATUS_ALREADY_EXISTS, "runner %s: there is one of that name", request->name);
        else if (r == -ESHUTDOWN)
                (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor is stopping");
        else
                (void) call_fail(call, status_from_errno(r), "cannot start %.*s: %s",
                                 (int) MIN(request->program.len, (size_t) INSTANCE_FAILURE_SIZE),
                                 (const char *) request->program.data, strerror(-r));
}

/* ---------------------------------------------------------------------------------------------------------------- Stop */

typedef struct Stop {
        InstanceWatcher gone;
        Call *call;
} Stop;

static void answer_stop(Call *call, const Instance *instance) {
        Baton__Control__StopResponse response = BATON__CONTROL__STOP_RESPONSE__INIT;
        Baton__Control__Exit exit;

        report_exit(instance->exit, &exit);
        response.exit = &exit;
        response.killed = instance->killed;
        (void) call_answer_message(call, &response.base);
}

static void stopped(InstanceWatcher *watcher, Instance *instance) {
        Stop *stop = CONTAINER_OF(watcher, Stop, gone);

        answer_stop(stop->call, instance);
        free(stop);
}

void control_stop(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__StopRequest *request = (const Baton__Control__StopRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);
        Stop *waiting;

        if (!instance)
                return;
        waiting = calloc(1, sizeof(*waiting));
        if (!waiting) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory", instance->spec.name);
                return;
        }
        *waiting = (Stop){ .gone = { .callback = stopped }, .call = call };
        if (instance_watch_gone(instance, &waiting->gone)) {
                instance_stop(instance, MIN(request->timeout_us, TIMEOUT_MAX_US));
                return;
        }
        free(waiting);
        answer_stop(call, instance);
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
        Instance *instance = find(control->supervisor, call, request->name);
        Signal *sent;
        int r;

        if (!instance)
                return;
        if (request->signal < 1 || request->signal >= _NSIG) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "there is no signal %d", request->signal);
                return;
        }
        if (!instance->pid) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "runner %s: is not running", instance->spec.name);
                return;
        }
        sent = calloc(1, sizeof(*sent));
        r = sent ? 0 : -ENOMEM;
        if (r == 0) {
                *sent = (Signal){ .call = call, .signal = request->signal };
                (void) strcpy(sent->name, instance->spec.name);
                r = keeper_link_signal(control->supervisor->link, instance->id, request->signal, signalled, sent);
        }
        if (r < 0) {
                free(sent);
                (void) call_fail(call, status_from_errno(r), "runner %s: cannot ask the keeper to send a signal: %s",
                                 instance->spec.name, strerror(-r));
        }
}

void control_call(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__CallRequest *request = (const Baton__Control__CallRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                relay_call(call, request, instance);
}

void control_logs(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__LogsRequest *request = (const Baton__Control__LogsRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                logs_call(call, request, instance);
}

void control_attach(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__AttachRequest *request = (const Baton__Control__AttachRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                attach_call(call, instance, &control->client.credentials, peer_remote(control->peer)->software);
}

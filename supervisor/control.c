/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Control: the methods of baton.Control as a table, and the private client's connection. A method checks what it was
 * given, finds the runner, and either answers or leaves the call with whoever will: a start with the runner, a stop with
 * its watcher, a call with the relay, lines with the log's reader. Nothing here waits.
 *
 * The connection is a lane like any other: side 0, one channel, never renewed. Its end is the end of everything that was
 * started for this client, and of this process.
 */

#include "supervisor/control.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/version.h"
#include "proto/control.pb-c.h"
#include "proto/message.h"
#include "supervisor/attach.h"
#include "supervisor/logs.h"
#include "supervisor/peer-loop.h"
#include "supervisor/relay.h"
#include "supervisor/report.h"
#include "supervisor/start-request.h"
#include "supervisor/supervisor.h"

#define SERVICE "baton.Control/"

/* Give up on more than this: an answer in our lifetime is meant. */
#define TIMEOUT_MAX_US (24 * 3600 * USEC_PER_SEC)

struct Control {
        Supervisor *supervisor;
        Peer *peer;
        int lane;            /* our duplicate, the one watched: the keeper has one too */
        struct ucred client; /* who made the lane */
};

/* find() - or @call is ended, NOT_FOUND. */
static Instance *find(Supervisor *supervisor, Call *call, const char *name) {
        Instance *instance = supervisor_find(supervisor, name);

        if (!instance)
                (void) call_fail(call, STATUS_NOT_FOUND, "runner %.64s: there is none of that name", name);
        return instance;
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

static void start(Control *control, Call *call, const ProtobufCMessage *message) {
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

static void stop(Control *control, Call *call, const ProtobufCMessage *message) {
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

static void send_signal(Control *control, Call *call, const ProtobufCMessage *message) {
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

static void call_runner(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__CallRequest *request = (const Baton__Control__CallRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                relay_call(call, request, instance);
}

static void logs(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__LogsRequest *request = (const Baton__Control__LogsRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                logs_call(call, request, instance);
}

static void attach(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__AttachRequest *request = (const Baton__Control__AttachRequest *) message;
        Instance *instance = find(control->supervisor, call, request->name);

        if (instance)
                attach_call(call, instance, &control->client, peer_remote(control->peer)->software);
}

/* ----------------------------------------------------------------------------------------------------------- the table */

static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *request;
        void (*function)(Control *control, Call *call, const ProtobufCMessage *message);
} methods[] = {
        { "Start", &baton__control__start_request__descriptor, start },
        { "Stop", &baton__control__stop_request__descriptor, stop },
        { "Signal", &baton__control__signal_request__descriptor, send_signal },
        { "Call", &baton__control__call_request__descriptor, call_runner },
        { "Logs", &baton__control__logs_request__descriptor, logs },
        { "Attach", &baton__control__attach_request__descriptor, attach },
};

static void client_called(Peer *peer, Call *call) {
        Control *control = peer_userdata(peer);
        const Baton__Envelope *envelope = call_envelope(call);
        const char *name = envelope->method;
        size_t size, n = ARRAY_SIZE(methods);
        const uint8_t *payload = call_payload(call, &size);

        if (strncmp(name, SERVICE, strlen(SERVICE)) == 0)
                for (n = 0; n < ARRAY_SIZE(methods) && strcmp(methods[n].name, name + strlen(SERVICE)) != 0;)
                        n++;
        if (n == ARRAY_SIZE(methods)) {
                (void) call_fail(call, STATUS_UNIMPLEMENTED, "the supervisor has no method %s", name);
                return;
        }
        if (!*envelope->type || strcmp(envelope->type, methods[n].request->name) == 0) {
                _cleanup_message_ ProtobufCMessage *message = message_unpack(methods[n].request, payload, size);

                if (message) {
                        methods[n].function(control, call, message);
                        return;
                }
        }
        (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s wants a %s", name, methods[n].request->name);
}

/* -------------------------------------------------------------------------------------------------- the private client */

static void client_ended(Peer *peer, Status status, const char *reason) {
        Control *control = peer_userdata(peer);

        (void) status;
        control->peer = peer_free(peer);
        supervisor_stop(control->supervisor, reason);
}

static const PeerHandler client_handler = {
        .call = client_called,
        .ended = client_ended,
};

static int make_peer(Control *control, int lane_fd_consume) {
        char software[64];
        const PeerConfig config = {
                .side = 0,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_NONE,
                .software = software,
        };
        const PeerLoopParameters parameters = {
                .loop = control->supervisor->loop,
                .config = &config,
                .handler = &client_handler,
                .userdata = control,
                .watched_lane = &control->lane,
        };

        (void) snprintf(software, sizeof(software), "baton-supervisor %s", version_release());
        return peer_loop_new(&control->peer, &parameters, lane_fd_consume);
}

int control_new(Control **ret_control, Supervisor *supervisor, int lane_fd_consume) {
        _cleanup_fd_ int lane = lane_fd_consume;
        Control *control = calloc(1, sizeof(*control));
        int r;

        if (!control)
                return -ENOMEM;
        control->supervisor = supervisor;
        control->client = (struct ucred){ .uid = (uid_t) -1, .gid = (gid_t) -1 };
        (void) getsockopt(lane, SOL_SOCKET, SO_PEERCRED, &control->client, &(socklen_t){ sizeof(control->client) });
        r = control->lane = fd_dup(lane);
        if (r >= 0)
                r = make_peer(control, fd_take(&lane));
        if (r < 0) {
                control_free(control);
                return r;
        }
        *ret_control = control;
        return 0;
}

Control *control_free(Control *control) {
        if (!control)
                return NULL;
        control->peer = peer_free(control->peer);
        fd_close(control->lane);
        free(control);
        return NULL;
}

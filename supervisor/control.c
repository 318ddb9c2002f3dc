/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Control: a connection, and the methods of baton.Control as a table: what each takes, what role it needs, whether it
 * changes something and is therefore audited.
 *
 * The connection is a lane like any other: side 0, one channel, never renewed. That of a private client is admin, and its
 * end is the end of everything that was started for it, and of this process; one that came in by the control socket has the
 * role that the kernel's word for it leads to (role.c), and its end ends nothing but its own calls.
 *
 * What a client can have us hold is bounded: by what may be open and unread on one connection, which is less for one that
 * may only read, and by how many connections there may be (listener.c).
 */

#include "supervisor/control.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/version.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/control-internal.h"
#include "supervisor/peer-loop.h"

#define SERVICE "baton.Control/"

enum { DENIED_LOGGED_MAX = 8 }; /* of one connection */

typedef struct Method {
        const char *name;
        const ProtobufCMessageDescriptor *request;
        ControlMethod *function;
        Role role;
        bool changes;
        const char *detail; /* the request's field that is told, besides the name: a number, or a text; NULL: none */

        /* Of one that waits for what it has begun: how a successor goes on with it. NULL: as if it were asked for anew. */
        ControlMethod *go_on;
        const ProtobufCMessageDescriptor *begun;
} Method;

#define RUNNER_COMMAND &baton__snapshot__runner_command__descriptor
#define CHANGE_COMMAND &baton__snapshot__change_command__descriptor

static const Method methods[] = {
        { "Start", &baton__control__start_request__descriptor, control_start, ROLE_OPERATE, true, NULL,
          control_start_go_on, RUNNER_COMMAND },
        { "Stop", &baton__control__stop_request__descriptor, control_stop, ROLE_OPERATE, true, NULL,
          control_stop_go_on, RUNNER_COMMAND },
        { "Restart", &baton__control__restart_request__descriptor, control_restart, ROLE_OPERATE, true, NULL,
          control_restart_go_on, RUNNER_COMMAND },
        { "Reset", &baton__control__reset_request__descriptor, control_reset, ROLE_OPERATE, true, NULL },
        { "Scale", &baton__control__scale_request__descriptor, control_scale, ROLE_OPERATE, true, "instances",
          control_scale_go_on, CHANGE_COMMAND },
        { "Reload", &baton__control__reload_request__descriptor, control_reload, ROLE_OPERATE, true, NULL,
          control_reload_go_on, CHANGE_COMMAND },
        { "Shutdown", &baton__control__shutdown_request__descriptor, control_shutdown, ROLE_ADMIN, true, NULL },
        { "Signal", &baton__control__signal_request__descriptor, control_signal, ROLE_OPERATE, true, "signal" },
        { "Upgrade", &baton__control__upgrade_request__descriptor, control_upgrade, ROLE_OPERATE, true, NULL },
        { "Checkpoint", &baton__control__checkpoint_request__descriptor, control_checkpoint, ROLE_OPERATE, true,
          NULL },
        { "Service", &baton__control__service_request__descriptor, control_service, ROLE_OPERATE, true, "event",
          control_service_go_on, RUNNER_COMMAND },
        { "ServiceInfo", &baton__control__service_info_request__descriptor, control_service_info, ROLE_READ, false,
          NULL },
        { "Call", &baton__control__call_request__descriptor, control_call, ROLE_OPERATE, false, NULL },
        { "Attach", &baton__control__attach_request__descriptor, control_attach, ROLE_OPERATE, false, NULL },
        { "Logs", &baton__control__logs_request__descriptor, control_logs, ROLE_READ, false, NULL },
        { "Status", &baton__control__status_request__descriptor, control_status, ROLE_READ, false, NULL },
        { "Takeover", &baton__control__takeover_request__descriptor, control_takeover, ROLE_ADMIN, true, NULL },
        { "ReplaceKeeper", &baton__control__replace_keeper_request__descriptor, control_replace_keeper, ROLE_ADMIN,
          true, NULL },
        { "Takeovers", &baton__control__takeovers_request__descriptor, control_takeovers, ROLE_READ, false, NULL },
        { "Fds", &baton__control__fds_request__descriptor, control_fds, ROLE_READ, false, NULL },
        { "Metrics", &baton__control__metrics_request__descriptor, control_metrics, ROLE_READ, false, NULL },
        { "Events", &baton__control__events_request__descriptor, control_events, ROLE_READ, false, NULL },
};

const char *control_method(size_t number) {
        return number < ARRAY_SIZE(methods) ? methods[number].name : NULL;
}

/* ---------------------------------------------------------------------------------------------------------- who may what */

void control_deny(const Control *control, Call *call, const char *what, Role role) {
        Baton__Control__RoleNeeded needed = BATON__CONTROL__ROLE_NEEDED__INIT;
        Baton__Detail detail = BATON__DETAIL__INIT, *details[] = { &detail };
        char message[128];
        uint8_t packed[64]; /* two short words */
        const AnswerParameters answer = {
                .status = STATUS_PERMISSION_DENIED, .message = message, .details = details, .n_details = 1
        };

        (void) snprintf(message, sizeof(message), "%s needs role %s, this connection (uid %u) has %s", what,
                        role_name(role), control->client.credentials.uid, role_name(control->client.role));
        needed.needed = (char *) role_name(role);
        needed.has = (char *) role_name(control->client.role);
        detail.type = (char *) needed.base.descriptor->name;
        detail.value.data = packed;
        detail.value.len = baton__control__role_needed__pack(&needed, packed);
        (void) call_answer(call, &answer);
}

/* field() - of @message, or NULL. */
static const void *field(const ProtobufCMessage *message, const char *name, ProtobufCType type) {
        const ProtobufCFieldDescriptor *found =
                protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);

        if (!found || found->type != type || found->label == PROTOBUF_C_LABEL_REPEATED)
                return NULL;
        return (const char *) message + found->offset;
}

/* describe() - "Stop web.1", "Signal web.1 15", "Service web.1 start". */
static void describe(const Method *method, const ProtobufCMessage *message, char text[AUDIT_WHAT_SIZE]) {
        const char *const *name = field(message, "name", PROTOBUF_C_TYPE_STRING);
        const char *const *word = method->detail ? field(message, method->detail, PROTOBUF_C_TYPE_STRING) : NULL;
        const int32_t *number = method->detail ? field(message, method->detail, PROTOBUF_C_TYPE_INT32) : NULL;
        int n = snprintf(text, AUDIT_WHAT_SIZE, "%s", method->name);

        if (method->detail && !number)
                number = field(message, method->detail, PROTOBUF_C_TYPE_UINT32);
        if (name && **name)
                n += snprintf(text + n, AUDIT_WHAT_SIZE - (size_t) n, " %.64s", *name);
        if (number)
                (void) snprintf(text + n, AUDIT_WHAT_SIZE - (size_t) n, " %d", *number);
        else if (word && **word)
                (void) snprintf(text + n, AUDIT_WHAT_SIZE - (size_t) n, " %.48s", *word);
}

/* account() - the private client's doings are its owner's own business. */
static void account(Control *control, Call *call, const Method *method, const ProtobufCMessage *message) {
        char what[AUDIT_WHAT_SIZE];

        if (!method->changes || control->private)
                return;
        if (control->client.role < method->role && ++control->n_denied > DENIED_LOGGED_MAX)
                return;
        describe(method, message, what);
        audit_call(control->supervisor->events, call, control->who, what);
}

/* ------------------------------------------------------------------------------------------------------------- the calls */

/* find_method_named() - without `baton.Control/'. */
static const Method *find_method_named(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
                if (strcmp(methods[i].name, name) == 0)
                        return &methods[i];
        return NULL;
}

static const Method *find_method(const char *name) {
        return strncmp(name, SERVICE, strlen(SERVICE)) == 0 ? find_method_named(name + strlen(SERVICE)) : NULL;
}

static void client_called(Peer *peer, Call *call) {
        Control *control = peer_userdata(peer);
        const Baton__Envelope *envelope = call_envelope(call);
        const Method *method = find_method(envelope->method);
        _cleanup_message_ ProtobufCMessage *message = NULL;
        size_t size;
        const uint8_t *payload = call_payload(call, &size);

        if (!method) {
                (void) call_fail(call, STATUS_UNIMPLEMENTED, "the supervisor has no method %s", envelope->method);
                return;
        }
        if (!*envelope->type || strcmp(envelope->type, method->request->name) == 0)
                message = message_unpack(method->request, payload, size);
        if (!message) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s wants a %s", envelope->method,
                                 method->request->name);
                return;
        }
        account(control, call, method, message);
        if (control->client.role < method->role)
                control_deny(control, call, method->name, method->role);
        else
                method->function(control, call, message);
}

/* -------------------------------------------------------------------------------------------------------- the connection */

static void client_ended(Peer *peer, Status status, const char *reason) {
        Control *control = peer_userdata(peer);

        control->peer = peer_free(peer);
        if (control->private) {
                supervisor_stop(control->supervisor, reason);
                return;
        }
        if (status != STATUS_OK && status != STATUS_UNAVAILABLE)
                log_info("client %s: its connection ended: %s: %s", control->who, status_name(status), reason);
        control->client.ended(control, control->client.userdata);
}

static const PeerHandler client_handler = {
        .call = client_called,
        .ended = client_ended,
};

/* What one that can only ask to be shown something needs. */
static const PeerLimits reader_limits = {
        .max_frame = 64 * 1024,
        .max_calls = 64,
        .fd_credit = 1,
        .max_held_fds = 1,
        .max_unsent = 256 * 1024,
        .max_memory = 1024 * 1024,
};

/* Where a connection comes from: a lane, or what a predecessor has written down. */
typedef struct Origin {
        int lane_fd_consume;
        const Baton__Handover__Peer *state; /* NULL: the lane */
        const char *prefix;
        Manifest *manifest;
} Origin;

static int make_peer(Control *control, const Origin *origin) {
        char reason[MANIFEST_REASON_SIZE] = "no memory";
        int r;
        char software[64];
        const PeerConfig config = {
                .side = 0,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_NONE,
                .objects = PEER_OBJECTS_PASS,
                .software = software,
                .limits = control->client.role < ROLE_OPERATE ? &reader_limits : NULL,
        };
        const PeerLoopParameters parameters = {
                .loop = control->supervisor->loop,
                .config = &config,
                .handler = &client_handler,
                .userdata = control,
                .watched_lane = control->private ? &control->lane : NULL,
                .precopy = &control->supervisor->precopy,
                .copied = control->private ? NULL : &control->copied,
        };

        (void) snprintf(software, sizeof(software), "baton-supervisor %s", version_release());
        if (!origin->state)
                return peer_loop_new(&control->peer, &parameters, origin->lane_fd_consume);
        r = peer_loop_restore(&control->peer, &parameters, origin->state, origin->prefix, origin->manifest, reason);
        if (r < 0)
                log_warning("client %s: its connection was not taken over: %s", control->who, reason);
        return r;
}

static int make(Control **ret_control, Supervisor *supervisor, const Origin *origin, const ControlClient *client) {
        _cleanup_fd_ int lane = origin->lane_fd_consume;
        Origin from = *origin;
        Control *control = calloc(1, sizeof(*control));
        int r;

        if (!control)
                return -ENOMEM;
        *control = (Control){ .supervisor = supervisor, .private = !client, .lane = -1 };
        control->number = ++supervisor->last_client;
        control->copied = PRECOPIED_NULL(PRECOPIED_CONTROL);
        if (client)
                control->client = *client;
        else {
                control->client.role = ROLE_ADMIN;
                control->client.credentials = (struct ucred){ .uid = (uid_t) -1, .gid = (gid_t) -1 };
                (void) getsockopt(lane, SOL_SOCKET, SO_PEERCRED, &control->client.credentials,
                                  &(socklen_t){ sizeof(control->client.credentials) });
        }
        (void) audit_who(&control->client.credentials, control->who);
        r = control->private ? control->lane = fd_dup(lane) : 0;
        from.lane_fd_consume = r >= 0 ? fd_take(&lane) : -1;
        if (r >= 0)
                r = make_peer(control, &from);
        if (r < 0) {
                control_free(control);
                return r;
        }
        *ret_control = control;
        return 0;
}

int control_new_private(Control **ret_control, Supervisor *supervisor, int lane_fd_consume) {
        return make(ret_control, supervisor, &(Origin){ .lane_fd_consume = lane_fd_consume }, NULL);
}

int control_new(Control **ret_control, Supervisor *supervisor, int lane_fd_consume, const ControlClient *client) {
        assert(client);
        return make(ret_control, supervisor, &(Origin){ .lane_fd_consume = lane_fd_consume }, client);
}

int control_restore(Control **ret_control, Supervisor *supervisor, const ControlClient *client,
                    const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest) {
        const Origin origin = { -1, state, prefix, manifest };

        return make(ret_control, supervisor, &origin, client);
}

bool control_go_on(Control *control, Call *call, const char *name, bool begun, const uint8_t *request, size_t size) {
        const Method *method = find_method_named(name);
        _cleanup_message_ ProtobufCMessage *message = NULL;

        if (!method || (begun && !method->go_on))
                return false;
        message = message_unpack(begun ? method->begun : method->request, request, size);
        if (!message)
                return false;
        if (begun)
                account(control, call, method, message);
        if (begun)
                method->go_on(control, call, message);
        else
                method->function(control, call, message);
        return true;
}

int control_restore_again(Control *control, const Baton__Handover__Peer *state, const char *prefix,
                          Manifest *manifest) {
        const Origin origin = { -1, state, prefix, manifest };
        int r = peer_give_back(control->peer, prefix, manifest);

        control->peer = peer_free(control->peer);
        return r < 0 ? r : make_peer(control, &origin);
}

uint32_t control_number(const Control *control) {
        return control->number;
}

void control_set_number(Control *control, uint32_t number) {
        control->number = number;
        control->supervisor->last_client = MAX(control->supervisor->last_client, number);
}

Peer *control_peer(const Control *control) {
        return control->peer;
}

const ControlClient *control_client(const Control *control) {
        return &control->client;
}

void control_refuse(Supervisor *supervisor, int lane_fd_consume, Status status, const char *format, ...) {
        static const PeerHandler nothing;
        const PeerConfig config = { .side = 0, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .software = "" };
        const PeerLoopParameters parameters = { .loop = supervisor->loop, .config = &config, .handler = &nothing };
        char reason[256];
        va_list arguments;
        Peer *peer;

        va_start(arguments, format);
        (void) vsnprintf(reason, sizeof(reason), format, arguments);
        va_end(arguments);
        if (peer_loop_new(&peer, &parameters, lane_fd_consume) < 0)
                return;
        peer_close(peer, status, "%s", reason);
        peer_free(peer);
}

Control *control_free(Control *control) {
        if (!control)
                return NULL;
        control->peer = peer_free(control->peer);
        precopy_forget(&control->supervisor->precopy, &control->copied, control->number, NULL);
        fd_close(control->lane);
        free(control);
        return NULL;
}

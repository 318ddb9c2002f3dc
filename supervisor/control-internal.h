#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of control share, and nobody else includes: control.c (the connection), control-runner.c, ... (the
 * methods).
 */

#include "common/clock.h"
#include "proto/control.pb-c.h"
#include "proto/message.h"
#include "supervisor/audit.h"
#include "supervisor/control.h"
#include "supervisor/supervisor.h"

/* Give up on more than this: an answer in our lifetime is meant. */
#define TIMEOUT_MAX_US (24 * 3600 * USEC_PER_SEC)

struct Control {
        Supervisor *supervisor;
        Peer *peer;   /* NULL: it has ended */
        bool private; /* its end is ours */
        int lane;     /* private: our duplicate, the one watched, since the keeper has one too; else -1 */
        ControlClient client;
        Precopied copied;
        uint32_t number;          /* by which a successor knows it; never another's */
        char who[AUDIT_WHO_SIZE]; /* as it is told */
        unsigned n_denied;
};

/*
 * A method: takes @call, which it ends, or leaves with whoever will. @message is of the type that the table names, and is
 * gone afterwards, as @control may be before the call is ended.
 */
typedef void ControlMethod(Control *control, Call *call, const ProtobufCMessage *message);

/* ---- control-runner.c ---- */
ControlMethod control_start, control_stop, control_restart, control_reset, control_signal, control_call, control_logs,
        control_attach;

/* control_find() - the runner of that name; or @call is ended, NOT_FOUND, with the names that come near. */
Runner *control_find(Supervisor *supervisor, Call *call, const char *name);

/* ---- control-service.c ---- */
ControlMethod control_service, control_service_info;

/* ---- control-fds.c ---- */
ControlMethod control_fds;

/* ---- control-checkpoint.c ---- */
ControlMethod control_checkpoint;

/* ---- control-upgrade.c ---- */
ControlMethod control_upgrade;

/* ---- control-supervisor.c ---- */
ControlMethod control_status, control_scale, control_reload, control_shutdown, control_metrics;

/*
 * Calls that a predecessor had begun (Crossing, `begun'), gone on with: @message is a RunnerCommand, of the last two a
 * ChangeCommand, of proto/snapshot.proto.
 */
ControlMethod control_service_go_on, control_start_go_on, control_stop_go_on, control_restart_go_on,
        control_scale_go_on, control_reload_go_on;

/* ---- takeover.c ---- */
ControlMethod control_takeover, control_takeovers;

/* ---- control-keeper.c ---- */
ControlMethod control_replace_keeper;

/* ---- control-events.c ---- */
ControlMethod control_events;

/* ---- control.c ---- */
/* control_deny() - ends @call: what was asked for, @what, needs @role. */
void control_deny(const Control *control, Call *call, const char *what, Role role);

/* The @i-th newest entry of the history as a message, which is valid as long as the structure. False: there is none. */
typedef struct TakeoverMessage {
        Baton__Control__TakeoverRecord record;
        TakeoverEntry entry;
        uint64_t phases_us[_TAKEOVER_PHASE_N];
} TakeoverMessage;
bool takeover_message_fill(TakeoverMessage *message, const Takeovers *takeovers, size_t i);

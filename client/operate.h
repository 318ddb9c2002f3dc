#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One command done to several runners at once: names and patterns, a call for each, one line or object for each outcome. */

#include "client/options.h"
#include "client/session.h"

typedef struct Operate Operate;
typedef struct OperateTarget OperateTarget;
typedef struct json_t json_t;

enum { OPERATE_OUTCOME_MAX = 128 };

/* What is known of one runner when its call has succeeded. */
typedef struct OperateOutcome {
        bool already;                   /* nothing was done */
        const char *word;               /* for programs: "up", "down", "signaled", "reset" */
        char text[OPERATE_OUTCOME_MAX]; /* for people */
        json_t *more;                   /* members to be added to its object; NULL: none */
} OperateOutcome;

struct OperateTarget {
        char *name;
        ControlCall call;
        bool begun, finished;
};

struct Operate {
        const char *command; /* its name */
        const ControlOptions *options;
        size_t n_names; /* of the operands, from the first: names and patterns */
        const ProtobufCMessageDescriptor *response;
        /* begin() - the call for target->name. */
        void (*begin)(const Operate *operate, Control *control, OperateTarget *target);
        /* read() - what the response says. */
        void (*read)(const Operate *operate, const void *response, OperateOutcome *ret_outcome);
        int signal;          /* of the command `signal' */
        const char *program; /* of the command `upgrade'; NULL: none */

        Session session;
        OperateTarget *targets;
        size_t n_targets, n_begun, n_finished;
};

/* operate_run() - connects, does it, tells, leaves. Returns the exit code: that of the first that failed. */
int operate_run(Operate *operate);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One command done to several runners: names and patterns, a call for each, one line or object for each outcome. At once, or
 * in batches: then the next one begins when all of the one before have succeeded.
 */

#include "client/options.h"
#include "client/session.h"

typedef struct Operate Operate;
typedef struct OperateTarget OperateTarget;
typedef struct json_t json_t;

enum { OPERATE_OUTCOME_MAX = 1024 };

/* What is known of one runner when its call has succeeded. */
typedef struct OperateOutcome {
        bool already;                   /* nothing was done */
        const char *word;               /* for programs: "up", "down", "signaled", "reset" */
        char text[OPERATE_OUTCOME_MAX]; /* for people */
        json_t *more;                   /* members to be added to its object; NULL: none */
} OperateOutcome;

/* Whether it is done to a runner at all. */
typedef enum OperateChoice {
        OPERATE_CHOSEN,
        OPERATE_CURRENT, /* there is nothing to do */
        OPERATE_CANNOT,  /* there would be, and target->why says why it cannot be done */
} OperateChoice;

struct OperateTarget {
        char *name;
        char *why;
        OperateChoice choice;
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
        /*
         * choose() - by its status, with its outlook, which is asked for then; target->why is to be from malloc(). NULL: all.
         * It may say -EPROTO: the supervisor has not told what has to be known.
         */
        int (*choose)(const Operate *operate, const Baton__Control__RunnerStatus *runner, OperateTarget *target);
        size_t batch;        /* so many at once, and no more after one that has failed; 0: all, whatever fails */
        int signal;          /* of the command `signal' */
        const char *program; /* of the command `upgrade'; NULL: none */

        Session session;
        OperateTarget *targets;
        size_t n_targets, next; /* the first that was not looked at yet */
        size_t n_begun, n_finished, n_failed, n_current, n_cannot, n_untouched; /* at the end */
};

/* operate_run() - connects, does it, tells, leaves. Returns the exit code: that of the first that failed. */
int operate_run(Operate *operate);

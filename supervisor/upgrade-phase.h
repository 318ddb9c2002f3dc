#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The steps of an upgrade of a runner, as a table: pure, no I/O. It knows two processes, the predecessor, which serves, and
 * the successor, which is to; that the keeper's word (ACTIVE) is what decides between the two; and nothing of how the state
 * goes from one to the other.
 */

#include "common/macro.h"

typedef enum UpgradePhase {
        UPGRADE_STARTING,   /* the successor is being started; the predecessor serves */
        UPGRADE_CROSSING,   /* the predecessor stops serving, and its state goes over */
        UPGRADE_COMMITTING, /* ACTIVE is on its way to the keeper */
        UPGRADE_BEGINNING,  /* the successor begins to serve */
        UPGRADE_UNDOING,    /* the successor has to go; its end is waited for */
        UPGRADE_RESUMING,   /* the predecessor begins to serve again */
        UPGRADE_OVER,
        UPGRADE_WATCHING, /* the successor serves, the predecessor finishes; whether it is healthy is looked at for a while */
        _UPGRADE_PHASE_N,
} UpgradePhase;

typedef enum UpgradeEvent {
        UPGRADE_EVENT_READY,    /* the successor was started, and serves nobody */
        UPGRADE_EVENT_DONE,     /* the step has succeeded */
        UPGRADE_EVENT_FAILED,   /* it has not, or not in time, or it is not wanted any more */
        UPGRADE_EVENT_NEW_GONE, /* nothing is left of the successor */
        UPGRADE_EVENT_OLD_GONE, /* nothing is left of the predecessor */
        _UPGRADE_EVENT_N,
} UpgradeEvent;

typedef enum UpgradeAction {
        UPGRADE_ACTION_NONE,
        UPGRADE_ACTION_CROSS,    /* DONE or FAILED follows */
        UPGRADE_ACTION_COMMIT,   /* the keeper is told that the successor is the active one; DONE or FAILED follows */
        UPGRADE_ACTION_BEGIN,    /* DONE or FAILED follows */
        UPGRADE_ACTION_KILL_NEW, /* NEW_GONE follows */
        UPGRADE_ACTION_REVERT,   /* the keeper is told that the predecessor is, and the successor is killed */
        UPGRADE_ACTION_RESUME,   /* DONE or FAILED follows; OLD_GONE where there is none any more */
        UPGRADE_ACTION_GO_BACK,  /* the keeper is told that the predecessor is, which then resumes */
        UPGRADE_ACTION_KILL_OLD, /* it serves no more, and cannot begin again: OLD_GONE follows */
        UPGRADE_ACTION_SWITCH, /* the successor is the runner's process from here on; DONE or FAILED follows, or NEW_GONE */
        UPGRADE_ACTION_RETURN, /* over, and the way back begins, which is an upgrade to what there was before */
        UPGRADE_ACTION_FINISH,
        _UPGRADE_ACTION_N,
} UpgradeAction;

/* upgrade_next() - 0 with next phase and action; -EINVAL: not in the table, nothing changes. */
int upgrade_next(UpgradePhase phase, UpgradeEvent event, UpgradePhase *ret_next, UpgradeAction *ret_action);

/* "starting", "new-gone", "kill-new". */
const char *upgrade_phase_name(UpgradePhase phase);
const char *upgrade_event_name(UpgradeEvent event);
const char *upgrade_action_name(UpgradeAction action);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The upgrade of a native runner: its service is led from RUNNING to READY with everything kept as it is (Stop, with
 * handover), then Save and Takeover are asked for at once, with the two ends of one pair of sockets: what crosses goes from
 * one to the other and does not come by here. Clients and open calls cross with it (docs/upgrade.md).
 *
 * The predecessor begins again by Start, from whichever state it is found in; what it was asked for and has not done yet is
 * waited for first.
 */

#include "supervisor/upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "proto/message.h"
#include "supervisor/instance-internal.h"
#include "supervisor/service.h"

/* What is under way. */
typedef struct Native {
        Call *save;
        int ends[2]; /* of the pair: the predecessor's, the successor's; -1: given away, or not made */
        bool saved, taken;
        char *broken; /* how one half ended, which the other half will say more of; NULL: neither has */
} Native;

static void stopped(Instance *instance, const ServiceResult *result, void *userdata);
static void taken(Instance *instance, const ServiceResult *result, void *userdata);
static void served(Instance *instance, const ServiceResult *result, void *userdata);

static const char *refuse(const Runner *runner) {
        const Instance *instance = runner->instance;

        if (!instance->peer || !peer_is_ready(instance->peer))
                return "has no connection";
        return instance->saves ? NULL : "keeps its state to itself: it has registered no service";
}

static Native *native_of(Upgrade *upgrade) {
        if (!upgrade->state) {
                upgrade->state = calloc(1, sizeof(Native));
                if (upgrade->state)
                        *(Native *) upgrade->state = (Native){ .ends = { -1, -1 } };
        }
        return upgrade->state;
}

/* leave() - a drive of somebody else's goes on. */
static void leave(const Upgrade *upgrade, Instance *instance) {
        const ServiceDone ours[] = { stopped, taken, served };

        for (size_t i = 0; instance && i < ARRAY_SIZE(ours); i++)
                if (service_userdata(instance, ours[i]) == upgrade)
                        service_cancel(instance);
}

static void cancel(Upgrade *upgrade) {
        Native *native = upgrade->state;

        leave(upgrade, upgrade->old);
        leave(upgrade, upgrade->new);
        if (!native)
                return;
        if (native->save)
                call_cancel(native->save);
        fd_close_all(native->ends, ARRAY_SIZE(native->ends));
        free(native->broken);
        free(native);
        upgrade->state = NULL;
}

/*
 * fail() - where its connection has ended over it, the end of its process follows, and says more. One that lives on without is
 * killed, and the time-out is there, too.
 */
static void fail(Upgrade *upgrade, bool local, const char *who, const char *what, Status status, const char *message) {
        if (!local || status != STATUS_UNAVAILABLE)
                upgrade_failed(upgrade, "the %s: %s: %s: %s", who, what, status_name(status), message);
}

/* ------------------------------------------------------------------------------------------------------------- crossing */

static void look_crossed(Upgrade *upgrade) {
        const Native *native = upgrade->state;

        if (native->saved && native->taken)
                upgrade_done(upgrade);
}

/* await_other() - what went over was broken off, and why, the other end knows. False: it has nothing more to say. */
static bool await_other(Native *native, bool says_more, bool local, Status status, const char *who,
                        const char *message) {
        if (status != STATUS_ABORTED || local || !says_more || native->broken)
                return false;
        if (asprintf(&native->broken, "the %s: %s", who, message) < 0)
                native->broken = NULL;
        return native->broken;
}

/* half_done() - one half is, well; the other may not be. */
static void half_done(Upgrade *upgrade) {
        const Native *native = upgrade->state;

        if (native->broken)
                upgrade_failed(upgrade, "%s", native->broken);
        else
                look_crossed(upgrade);
}

static void saved(Call *call, const Answer *answer, void *userdata) {
        Upgrade *upgrade = userdata;
        Native *native = upgrade->state;

        (void) call;
        native->save = NULL;
        native->saved = answer->status == STATUS_OK;
        if (native->saved)
                half_done(upgrade);
        else if (!await_other(native, !native->taken, answer->local, answer->status, "predecessor: Save",
                              answer->message))
                fail(upgrade, answer->local, "predecessor", "Save", answer->status, answer->message);
}

static void taken(Instance *instance, const ServiceResult *result, void *userdata) {
        Upgrade *upgrade = userdata;
        Native *native = upgrade->state;

        (void) instance;
        native->taken = result->status == STATUS_OK;
        if (native->taken)
                half_done(upgrade);
        else if (!await_other(native, native->save, result->local, result->status, "successor: Takeover",
                              result->message))
                fail(upgrade, result->local, "successor", "Takeover", result->status, result->message);
}

static bool has_given(const Upgrade *upgrade) {
        const Native *native = upgrade->state;

        return native && native->saved && !upgrade->check;
}

/* waits_for() - whoever has not answered. */
static const char *waits_for(const Upgrade *upgrade) {
        const Native *native = upgrade->state;

        if (upgrade->phase != UPGRADE_CROSSING)
                return "the successor: Start";
        if (!native)
                return "the predecessor: Stop";
        if (native->saved)
                return "the successor: Takeover";
        return native->taken ? "the predecessor: Save" : "Save by the predecessor, Takeover by the successor";
}

static void move(Upgrade *upgrade) {
        Native *native = native_of(upgrade);
        int r = native ? fd_socketpair(SOCK_SEQPACKET, native->ends) : -ENOMEM;

        if (r == 0 && !upgrade->old->peer)
                r = -ENOTCONN;
        if (r == 0)
                r = instance_ask_save(upgrade->old, upgrade->check, fd_take(&native->ends[0]), saved, upgrade,
                                      &native->save);
        if (r == 0)
                r = service_drive(upgrade->new, SERVICE_GOAL_TAKEOVER, false, 0, fd_take(&native->ends[1]), taken,
                                  upgrade);
        if (r < 0 && r != -ENOTCONN) /* then its end follows, and says more */
                upgrade_failed(upgrade, "its state cannot be asked for: %s", strerror(-r));
}

static void stopped(Instance *instance, const ServiceResult *result, void *userdata) {
        Upgrade *upgrade = userdata;

        (void) instance;
        if (result->status == STATUS_OK)
                move(upgrade);
        else
                fail(upgrade, result->local, "predecessor", result->n_sent > 0 ? "Stop" : "Info", result->status,
                     result->message);
}

static void cross(Upgrade *upgrade) {
        int r;

        if (!upgrade->new->peer || !upgrade->old->peer)
                return; /* its end follows */
        if (service_state(upgrade->new) != SERVICE_STATE_INIT) {
                upgrade_failed(upgrade, "the successor keeps its state to itself: its service is %s at its start",
                               service_state_name(service_state(upgrade->new)));
                return;
        }
        if (upgrade->check) {
                move(upgrade);
                return;
        }
        r = service_drive(upgrade->old, SERVICE_GOAL_HANDOVER, false, 0, -1, stopped, upgrade);
        if (r == 0)
                upgrade_paused(upgrade);
        else
                upgrade_failed(upgrade, "the predecessor cannot be stopped: %s",
                               r == -EBUSY ? "another event of its service is under way" : strerror(-r));
}

/* ---------------------------------------------------------------------------------------------------- beginning to serve */

static void served(Instance *instance, const ServiceResult *result, void *userdata) {
        Upgrade *upgrade = userdata;

        if (result->info)
                instance->saves = result->info->saves;
        if (result->status == STATUS_OK)
                upgrade_done(upgrade);
        else
                fail(upgrade, result->local, instance == upgrade->new ? "successor" : "predecessor", "Start",
                     result->status, result->message);
}

static void serve(Upgrade *upgrade, Instance *instance) {
        int r = service_drive(instance, SERVICE_GOAL_SERVE, true, 0, -1, served, upgrade);

        if (r < 0 && r != -ENOTCONN) /* then its end follows */
                upgrade_failed(upgrade, "its service cannot be started: %s", strerror(-r));
}

static void begin(Upgrade *upgrade) {
        serve(upgrade, upgrade->new);
}

static void resume(Upgrade *upgrade) {
        serve(upgrade, upgrade->old);
}

const UpgradeKind upgrade_native = {
        .refuse = refuse,
        .cross = cross,
        .has_given = has_given,
        .waits_for = waits_for,
        .begin = begin,
        .resume = resume,
        .cancel = cancel,
};

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Upgrade of a plain program. What it serves by is its sockets, which the successor has been passed as well: from the moment
 * in which that is ready, both serve, and connections go to either. So nothing has to cross; the predecessor is told to
 * finish (`upgrade.signal'), and while it does, no connection is refused, since the sockets stay open here.
 *
 * A program that cannot say when it is ready (`ready: none') is taken for ready when it has lived for a while: a second, or
 * `upgrade.health'. One that ends in that time has failed, and the predecessor, which was told nothing, goes on.
 */

#include "supervisor/upgrade.h"

#include <stdlib.h>

#include "common/clock.h"
#include "supervisor/supervisor.h"

#define SETTLE_US (1 * USEC_PER_SEC)

typedef struct Settling {
        LoopTimer timer;
        Upgrade *upgrade;
} Settling;

static const char *refuse(const Runner *runner) {
        return runner->config->n_sockets == 0
                       ? "is a plain program without 'sockets', by which a second one could serve: restart it"
                       : NULL;
}

static void settled(LoopTimer *timer) {
        upgrade_done(CONTAINER_OF(timer, Settling, timer)->upgrade);
}

static void cross(Upgrade *upgrade) {
        const RunnerConfig *config = upgrade->config;
        Settling *settling;

        if (config->ready != CONFIG_READY_NONE) {
                upgrade_done(upgrade);
                return;
        }
        settling = upgrade->state = malloc(sizeof(*settling));
        if (!settling) {
                upgrade_failed(upgrade, "no memory to wait for the successor");
                return;
        }
        *settling = (Settling){ LOOP_TIMER_NULL(settled), upgrade };
        loop_timer_set(upgrade->runner->supervisor->loop, &settling->timer,
                       clock_after(clock_now(), config->upgrade_health_us ? config->upgrade_health_us : SETTLE_US));
}

static const char *waits_for(const Upgrade *upgrade) {
        (void) upgrade;
        return "the successor has not lived for 'upgrade.health' (a second) yet";
}

static void cancel(Upgrade *upgrade) {
        Settling *settling = upgrade->state;

        if (settling)
                loop_timer_stop(&settling->timer);
        free(settling);
        upgrade->state = NULL;
}

const UpgradeKind upgrade_plain = {
        .refuse = refuse,
        .cross = cross,
        .waits_for = waits_for,
        .cancel = cancel,
};

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Upgrade, the health of the successor once it serves: baton.Health/Check is asked again and again for the time that is
 * configured. At the end of that it has to be serving, and having said so it must not take it back before: so one that needs
 * a while to get warm has that while, and one that falls over is found at once. One that does not answer is not healthy at the
 * end, nor two seconds after it; one that does not know the question is, while it lives. Its death is told by its instance.
 */

#include "supervisor/upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "proto/message.h"
#include "supervisor/supervisor.h"

#define AGAIN_MIN_US (10 * USEC_PER_MSEC)
#define AGAIN_MAX_US (1 * USEC_PER_SEC)
#define ANSWER_US    (2 * USEC_PER_SEC) /* after the end, where one was asked and has not answered */

enum { ROUNDS = 10 };

struct UpgradeHealth {
        Upgrade *upgrade;
        LoopTimer end, again;
        Call *call;   /* the one that is open */
        bool serving; /* it has said so last */
        bool ending;  /* the time is over, but for the answer to what was asked last */
        char said[128];
};

static void ask(UpgradeHealth *health);

UpgradeHealth *upgrade_health_free(UpgradeHealth *health) {
        if (!health)
                return NULL;
        if (health->call)
                call_cancel(health->call);
        loop_timer_stop(&health->end);
        loop_timer_stop(&health->again);
        free(health);
        return NULL;
}

static uint64_t duration(const UpgradeHealth *health) {
        return health->upgrade->config->upgrade_health_us;
}

/* is_serving() - what the answer says; else in health->said. */
static bool is_serving(UpgradeHealth *health, const Answer *answer) {
        _cleanup_message_ Baton__HealthResponse *response = NULL;

        if (answer->status == STATUS_UNIMPLEMENTED)
                return true;
        if (answer->status == STATUS_OK)
                response = message_unpack(&baton__health_response__descriptor, answer->payload, answer->size);
        if (response && response->status == BATON__HEALTH_RESPONSE__STATUS__SERVING)
                return true;
        if (answer->status != STATUS_OK)
                (void) snprintf(health->said, sizeof(health->said), "Health: %s: %.80s", status_name(answer->status),
                                answer->message);
        else
                (void) snprintf(health->said, sizeof(health->said), "Health: %s",
                                !response ? "its answer is no HealthResponse"
                                : response->status == BATON__HEALTH_RESPONSE__STATUS__NOT_SERVING
                                        ? "it is not serving"
                                        : "it does not know whether it is serving");
        return false;
}

static void decide(UpgradeHealth *health) {
        if (health->serving)
                upgrade_done(health->upgrade);
        else
                upgrade_failed(health->upgrade, "the successor: %s, for %.1f s",
                               *health->said && !health->call ? health->said : "Health: it does not answer",
                               (double) duration(health) / USEC_PER_SEC);
}

static uint64_t period(const UpgradeHealth *health) {
        return MIN(MAX(duration(health) / ROUNDS, AGAIN_MIN_US), (uint64_t) AGAIN_MAX_US);
}

static void answered(Call *call, const Answer *answer, void *userdata) {
        UpgradeHealth *health = userdata;
        bool serving;

        (void) call;
        health->call = NULL;
        if (answer->local)
                return; /* its connection is gone, and so will it be */
        serving = is_serving(health, answer);
        if (health->serving && !serving) {
                upgrade_failed(health->upgrade, "the successor: %s", health->said);
                return;
        }
        health->serving = serving;
        if (health->ending)
                decide(health);
        else
                loop_timer_set(health->upgrade->runner->supervisor->loop, &health->again,
                               clock_after(clock_now(), period(health)));
}

static void ask(UpgradeHealth *health) {
        Baton__HealthRequest request = BATON__HEALTH_REQUEST__INIT;
        Peer *peer = health->upgrade->runner->instance->peer;
        const CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Health/Check",
                .type = request.base.descriptor->name,
                .payload = (const uint8_t *) "", /* of all: nothing */
        };

        if (peer && call_start(peer, &parameters, answered, health, &health->call) == 0)
                return;
        health->call = NULL;
        health->serving = false;
        (void) snprintf(health->said, sizeof(health->said), "Health: it cannot be asked");
}

static void ask_again(LoopTimer *timer) {
        ask(CONTAINER_OF(timer, UpgradeHealth, again));
}

static void time_is_over(LoopTimer *timer) {
        UpgradeHealth *health = CONTAINER_OF(timer, UpgradeHealth, end);

        if (!health->call || health->ending) {
                health->serving = health->serving && !health->call;
                decide(health);
                return;
        }
        health->ending = true;
        loop_timer_set(health->upgrade->runner->supervisor->loop, &health->end, clock_after(clock_now(), ANSWER_US));
}

int upgrade_health_begin(Upgrade *upgrade) {
        UpgradeHealth *health = calloc(1, sizeof(*health));

        if (!health)
                return -ENOMEM;
        *health = (UpgradeHealth){ .upgrade = upgrade,
                                   .end = LOOP_TIMER_NULL(time_is_over),
                                   .again = LOOP_TIMER_NULL(ask_again) };
        upgrade->health = health;
        loop_timer_set(upgrade->runner->supervisor->loop, &health->end,
                       clock_after(clock_now(), upgrade->config->upgrade_health_us));
        ask(health);
        return 0;
}

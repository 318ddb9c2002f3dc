/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, when it is ready, and whether it lives. A native one is ready with its Hello, one that notifies with READY=1, one
 * with a readiness descriptor (3) with a newline on it, any other when it was executed.
 *
 * Signs of life, where they are wanted (watchdog_us): a native one is pinged twice in that time, and whatever it answers
 * is one; one that notifies sends WATCHDOG=1. Without one in time it is killed, its group too: it may be stopped or hang,
 * so nothing politer would be heard. The timer is the one that was the start's, and becomes the stop's; where nothing is
 * watched there is none.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/notify.h"

/* ----------------------------------------------------------------------------------------------------- it says it is */

static void set_status(Instance *instance, const char *value) {
        char *status = *value ? strdup(value) : NULL;

        if (*value && !status)
                return;
        free(instance->runner->status);
        instance->runner->status = status;
}

static void told(Notify *notify, NotifyWord word, const char *value, void *userdata) {
        Instance *instance = userdata;

        (void) notify;
        switch (word) {
        case NOTIFY_READY:
                if (instance->state == PROCESS_STARTING)
                        instance_raise(instance, PROCESS_EVENT_READY);
                if (instance->config->ready == CONFIG_READY_FD)
                        instance_close_ready(instance);
                break;
        case NOTIFY_ALIVE:
                instance->alive_us = clock_now();
                break;
        case NOTIFY_TROUBLE:
                if (instance->state == PROCESS_UP)
                        instance_doom(instance, RUNNER_CAUSE_WATCHDOG, PROCESS_EVENT_DOOMED);
                break;
        case NOTIFY_STOPPING:
                /* It leaves by itself, and need not say that it lives while it does. */
                if (instance->state == PROCESS_UP)
                        loop_timer_stop(&instance->timer);
                break;
        case NOTIFY_STATUS:
                set_status(instance, value);
                break;
        case NOTIFY_CLOSED:
        case _NOTIFY_WORD_N:
                break; /* its start will time out, and says so */
        }
}

int instance_open_ready(Instance *instance, const char **ret_step) {
        const ConfigUser *user = instance->config->user;
        Supervisor *supervisor = instance->supervisor;

        if (instance->config->ready == CONFIG_READY_NOTIFY)
                return notify_open_socket(&instance->notify, supervisor->loop, instance->runner->name,
                                          supervisor->boot_template, user ? user->spawn.uid : geteuid(), told,
                                          instance, ret_step);
        *ret_step = "pipe2";
        if (instance->config->ready == CONFIG_READY_FD)
                return notify_open_pipe(&instance->notify, supervisor->loop, instance->runner->name, told, instance,
                                        &instance->ready_fd);
        return 0;
}

int instance_adopt_ready(Instance *instance, const char *path, int fd_consume) {
        return notify_adopt(&instance->notify, instance->supervisor->loop, instance->runner->name, path, fd_consume,
                            told, instance);
}

void instance_close_ready(Instance *instance) {
        if (!instance->notify)
                return;
        instance_drop(instance, INSTANCE_STORED_NOTIFY, notify_close(TAKE_PTR(instance->notify)));
}

size_t instance_ready_variables(const Instance *instance, char *variables[INSTANCE_VARIABLES_MAX], size_t n) {
        if (!instance->notify || !notify_path(instance->notify))
                return n;
        if (asprintf(&variables[n], "NOTIFY_SOCKET=%s", notify_path(instance->notify)) >= 0)
                n++;
        if (instance->config->watchdog_us &&
            asprintf(&variables[n], "WATCHDOG_USEC=%" PRIu64, instance->config->watchdog_us) >= 0)
                n++;
        return n;
}

/* ------------------------------------------------------------------------------------------------------- signs of life */

static void ponged(Call *call, const Answer *answer, void *userdata) {
        Instance *instance = userdata;

        (void) call;
        instance->asking = NULL;
        if (answer->local || instance->state != PROCESS_UP)
                return;
        instance->alive_us = clock_now();
        loop_timer_set(instance->supervisor->loop, &instance->timer,
                       clock_after(instance->alive_us, instance->config->watchdog_us / 2));
}

static void ping(Instance *instance) {
        static const CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Runner/Ping",
                .type = "baton.Ping",
        };

        if (!instance->asking)
                (void) call_start(instance->peer, &parameters, ponged, instance, &instance->asking);
}

static bool speaks(const Instance *instance) {
        return instance->peer || (instance->notify && notify_path(instance->notify));
}

void instance_watch_over(Instance *instance) {
        uint64_t us = instance->config->watchdog_us;

        if (us == 0 || !speaks(instance))
                return;
        instance->alive_us = clock_now();
        loop_timer_set(instance->supervisor->loop, &instance->timer,
                       clock_after(instance->alive_us, instance->peer ? us / 2 : us));
}

void instance_check_alive(Instance *instance) {
        uint64_t deadline = clock_after(instance->alive_us, instance->config->watchdog_us);

        if (clock_now() >= deadline) {
                log_warning("runner %s: pid %d gave no sign of life for %g s: killed", instance->runner->name,
                            instance->pid, (double) instance->config->watchdog_us / USEC_PER_SEC);
                instance_doom(instance, RUNNER_CAUSE_WATCHDOG, PROCESS_EVENT_DOOMED);
                return;
        }
        if (instance->peer)
                ping(instance);
        loop_timer_set(instance->supervisor->loop, &instance->timer, deadline);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, when it is ready, and whether it lives. A native one is ready with its Hello, one that notifies with READY=1, one
 * with a readiness descriptor (3) with a newline on it, any other when it was executed.
 *
 * Signs of life, where they are wanted (watchdog_us): a native one is pinged twice in that time, and whatever it answers
 * is one; one that notifies sends WATCHDOG=1. Without one in time it is killed, its group too: it may be stopped or hang,
 * so nothing politer would be heard. The timer is the one that was the start's, and becomes the stop's; where nothing is
 * watched there is none.
 *
 * What else one says by the sd_notify protocol is heard here: it is kept on the board as well (holder.c), so that a
 * supervisor that follows knows it.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/peer-save.h"
#include "supervisor/holder.h"
#include "supervisor/notify.h"

/* ----------------------------------------------------------------------------------------------------- it says it is */

static void set_status(Instance *instance, const char *value) {
        char *status = *value ? strdup(value) : NULL;

        if (*value && !status)
                return;
        free(instance->runner->status);
        instance->runner->status = status;
}

void instance_note_said(const Instance *instance) {
        BoardEntry *entry = holder_state(instance->supervisor->holder, instance);
        const char *status = instance->runner->status;

        if (!entry)
                return;
        entry->flags = (instance->reloading ? BOARD_RELOADING : 0) | (instance->leaving ? BOARD_STOPPING : 0) |
                       (instance->watchdog_us != instance->config->watchdog_us ? BOARD_HAS_WATCHDOG : 0);
        entry->watchdog_us = instance->watchdog_us;
        entry->main_pid = instance->main_pid;
        entry->error = instance->said_errno;
        (void) snprintf(entry->name, sizeof(entry->name), "%s", status ? status : "");
}

void instance_recall(Instance *instance, const BoardEntry *entry) {
        instance->reloading = entry->flags & BOARD_RELOADING;
        instance->leaving = entry->flags & BOARD_STOPPING;
        if (entry->flags & BOARD_HAS_WATCHDOG)
                instance->watchdog_us = entry->watchdog_us;
        instance->main_pid = entry->main_pid == instance->pid ? 0 : entry->main_pid;
        instance->said_errno = entry->error;
        set_status(instance, entry->name);
        if (instance->state == PROCESS_UP) {
                loop_timer_stop(&instance->timer);
                instance_watch_over(instance);
        }
}

static bool _printf_(2, 3) refused(char why[NOTIFY_REASON_SIZE], const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(why, NOTIFY_REASON_SIZE, format, arguments);
        va_end(arguments);
        return false;
}

static bool hear_main_pid(Instance *instance, Notify *notify, pid_t pid, char why[NOTIFY_REASON_SIZE]) {
        int r;

        if (!notify_knows(notify, pid))
                return refused(why, "MAINPID=%d: it is not of the runner's session", (int) pid);
        r = instance_set_main(instance, pid);
        return r < 0 ? refused(why, "MAINPID=%d: it cannot be followed: %s", (int) pid, strerror(-r)) : true;
}

/* extend() - whatever it is about to be late with. */
static void extend(Instance *instance, uint64_t us) {
        const Supervisor *supervisor = instance->supervisor;
        uint64_t until = clock_after(clock_now(), us);

        if (supervisor->stopping)
                until = MIN(until, supervisor->stop_deadline);
        instance->extended_us = MAX(instance->extended_us, until);
        if (instance->state == PROCESS_STARTING)
                loop_timer_set(supervisor->loop, &instance->timer,
                               MAX(instance->extended_us,
                                   clock_after(instance->started_us, instance->config->start_timeout_us)));
        else if (instance->state == PROCESS_STOPPING)
                instance_extend_stop(instance);
}

static void hear_watchdog(Instance *instance, uint64_t us) {
        instance->watchdog_us = us;
        if (instance->state != PROCESS_UP)
                return;
        loop_timer_stop(&instance->timer);
        instance_watch_over(instance);
}

static bool hear_reloading(Instance *instance, const NotifyMessage *message, char why[NOTIFY_REASON_SIZE]) {
        uint64_t now = clock_now();

        if (message->words & NOTIFY_MONOTONIC_USEC && message->monotonic_us > now)
                return refused(why, "MONOTONIC_USEC: a time that has not come yet");
        instance->reloading = true;
        instance->reloading_us = message->words & NOTIFY_MONOTONIC_USEC ? message->monotonic_us : now;
        log_info("runner %s: reloading", instance->runner->name);
        return true;
}

static void hear_ready(Instance *instance) {
        if (instance->reloading)
                log_info("runner %s: reloaded, in %g s", instance->runner->name,
                         (double) (clock_now() - instance->reloading_us) / USEC_PER_SEC);
        instance->reloading = false;
        if (instance->state == PROCESS_STARTING)
                instance_raise(instance, PROCESS_EVENT_READY);
}

static bool hear_store(Instance *instance, const NotifyMessage *message, int *fds, size_t n_fds,
                       char why[NOTIFY_REASON_SIZE]) {
        const char *name = message->fd_name ? message->fd_name : "stored";
        Holder *holder = instance->supervisor->holder;
        int r = 0;

        if (message->words & NOTIFY_FDSTOREREMOVE && !message->fd_name)
                return refused(why, "FDSTOREREMOVE=1 without FDNAME");
        if (message->words & NOTIFY_FDSTOREREMOVE)
                (void) holder_unstore(holder, instance->runner, message->fd_name);
        if (!(message->words & NOTIFY_FDSTORE))
                return true;
        if (n_fds == 0)
                return refused(why, "FDSTORE=1 without a descriptor");
        for (size_t i = 0; r == 0 && i < n_fds; i++)
                r = holder_store(holder, instance->runner, name, !message->no_poll, fd_take(&fds[i]));
        if (r == -EDQUOT)
                return refused(why, "FDSTORE=1: it may store %u descriptors (fd_store.max)",
                               instance->runner->config->fd_store_max);
        return r < 0 ? refused(why, "FDSTORE=1: %s", strerror(-r)) : true;
}

/* hear_facts() - what changes nothing but what is known of it. */
static bool hear_facts(Instance *instance, Notify *notify, const NotifyMessage *message,
                       char why[NOTIFY_REASON_SIZE]) {
        const unsigned facts = NOTIFY_STATUS | NOTIFY_ERRNO | NOTIFY_MAINPID | NOTIFY_WATCHDOG_USEC |
                               NOTIFY_RELOADING | NOTIFY_STOPPING;
        bool good = true;

        if (message->words & NOTIFY_MAINPID)
                good = hear_main_pid(instance, notify, message->main_pid, why);
        if (message->words & NOTIFY_STATUS)
                set_status(instance, message->status);
        if (message->words & NOTIFY_ERRNO)
                instance->said_errno = message->error;
        if (message->words & NOTIFY_WATCHDOG_USEC)
                hear_watchdog(instance, message->watchdog_us);
        if (message->words & NOTIFY_RELOADING)
                good = hear_reloading(instance, message, why) && good;
        if (message->words & NOTIFY_STOPPING) {
                /* It leaves by itself, and need not say that it lives while it does. */
                instance->leaving = true;
                if (instance->state == PROCESS_UP)
                        loop_timer_stop(&instance->timer);
        }
        if (message->words & facts)
                instance_note_said(instance);
        return good;
}

/* told() - events of the process come last: an action of theirs may end what this is about. */
static bool told(Notify *notify, const NotifyMessage *message, int *fds, size_t n_fds, void *userdata,
                 char why[NOTIFY_REASON_SIZE]) {
        Instance *instance = userdata;
        bool was_reloading = instance->reloading, good;

        runner_touch(instance->runner);
        good = hear_facts(instance, notify, message, why);
        if (message->words & (NOTIFY_FDSTORE | NOTIFY_FDSTOREREMOVE))
                good = hear_store(instance, message, fds, n_fds, why) && good;
        if (message->words & NOTIFY_EXTEND_TIMEOUT)
                extend(instance, message->extend_us);
        if (message->words & NOTIFY_ALIVE)
                instance->alive_us = clock_now();
        if (message->words & NOTIFY_READY) {
                hear_ready(instance);
                if (was_reloading)
                        instance_note_said(instance);
        }
        if (message->words & NOTIFY_TROUBLE && instance->state == PROCESS_UP)
                instance_doom(instance, RUNNER_CAUSE_WATCHDOG, PROCESS_EVENT_DOOMED);
        if (message->words & NOTIFY_READY && instance->config->ready == CONFIG_READY_FD)
                instance_close_ready(instance);
        return good; /* a pipe that is closed: its start will time out, and says so */
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
        runner_touch(instance->runner);
        if (answer->local || instance->state != PROCESS_UP)
                return;
        instance->alive_us = clock_now();
        loop_timer_set(instance->supervisor->loop, &instance->timer,
                       clock_after(instance->alive_us, instance->watchdog_us / 2));
}

void instance_restore_ping(Instance *instance, Call *call) {
        instance->asking = call;
        call_bind(call, ponged, NULL, NULL, instance);
}

static void ping(Instance *instance) {
        static const CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Runner/Ping",
                .type = "baton.Ping",
        };

        if (instance->asking)
                return;
        (void) call_start(instance->peer, &parameters, ponged, instance, &instance->asking);
}

static bool speaks(const Instance *instance) {
        return instance->peer || (instance->notify && notify_path(instance->notify));
}

void instance_watch_over(Instance *instance) {
        uint64_t us = instance->watchdog_us;

        if (us == 0 || instance->leaving || !speaks(instance))
                return;
        instance->alive_us = clock_now();
        loop_timer_set(instance->supervisor->loop, &instance->timer,
                       clock_after(instance->alive_us, instance->peer ? us / 2 : us));
}

void instance_check_alive(Instance *instance) {
        uint64_t deadline = clock_after(instance->alive_us, instance->watchdog_us);

        if (clock_now() >= deadline) {
                log_warning("runner %s: pid %d gave no sign of life for %g s: killed", instance->runner->name,
                            instance->pid, (double) instance->watchdog_us / USEC_PER_SEC);
                instance_doom(instance, RUNNER_CAUSE_WATCHDOG, PROCESS_EVENT_DOOMED);
                return;
        }
        if (instance->peer)
                ping(instance);
        loop_timer_set(instance->supervisor->loop, &instance->timer, deadline);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, adopted: one whose supervisor died. Its process is known by the pidfd that the keeper made, its output goes on
 * in the pipes that the keeper kept, and its exit is reported here whenever it comes, be it that it has come already. A
 * native one gets fresh channels over its lane, in an epoch as high as our generation, and says Hello again; clients that
 * are attached to it notice nothing.
 *
 * What cannot be adopted whole is killed, as an instance all the same: its runner hears of its end like of any other, and
 * not before is there another one.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/holder.h"
#include "supervisor/notify.h"
#include "supervisor/recovery.h"
#include "supervisor/runner-save.h"

/* adopt_output() - @some: of one that has ended they may be gone. */
static int adopt_output(Instance *instance, Recovered *slot, bool some) {
        static const InstanceStored stored[LOG_PIPES] = {
                [LOG_SOURCE_STDOUT] = INSTANCE_STORED_STDOUT,
                [LOG_SOURCE_STDERR] = INSTANCE_STORED_STDERR,
        };

        for (unsigned i = 0; i < LOG_PIPES; i++) {
                int fd = recovered_take(slot, KEEPER_FD_LOG, i + 1), r;

                if (fd < 0 && some)
                        continue;
                if (fd < 0)
                        return -EBADF;
                instance->stored |= (uint8_t) (1u << stored[i]);
                r = log_input_adopt(&instance->input, (LogSource) i, fd);
                if (r < 0)
                        return r;
        }
        log_input_born(&instance->input, instance->pid);
        return 0;
}

static int adopt_lane(Instance *instance, Recovered *slot) {
        _cleanup_fd_ int lane = recovered_take(slot, KEEPER_FD_LANE, 0);
        int r;

        if (!fd_is_unix_stream(lane))
                return -EBADF;
        instance->stored |= 1u << INSTANCE_STORED_LANE;
        r = fd_dup(lane);
        if (r < 0)
                return r;
        instance->lane = r;
        r = instance_restore_peer(instance);
        if (r != 0)
                return MIN(r, 0);
        return instance_make_peer(instance, instance->supervisor->generation, fd_take(&lane));
}

/* adopt_ready() - what it says its readiness and its life by, where it has that. */
static int adopt_ready(Instance *instance, Recovered *slot) {
        _cleanup_fd_ int fd = recovered_take(slot, KEEPER_FD_LISTENER, 1);
        _cleanup_free_ char *path = NULL;
        int r;

        if (fd < 0)
                return 0;
        instance->stored |= 1u << INSTANCE_STORED_NOTIFY;
        if (instance->config->ready == CONFIG_READY_NOTIFY) {
                path = recovery_place(instance->supervisor, slot, "notify");
                if (!path)
                        return -ENOENT;
        }
        r = instance_adopt_ready(instance, path, fd_take(&fd));
        if (r < 0)
                return r;
        notify_accept(instance->notify, instance->pid, instance->pidfd);
        instance_adopt_main(instance, slot);
        return 0;
}

/* drop_rest() - of one that has ended, and whose slot may stay: nobody comes in, speaks or is followed any more. */
static void drop_rest(Instance *instance, Recovered *slot) {
        static const struct {
                InstanceStored what;
                KeeperFdKind kind;
                uint64_t tag;
        } rest[] = {
                { INSTANCE_STORED_LANE, KEEPER_FD_LANE, 0 },
                { INSTANCE_STORED_LISTENER, KEEPER_FD_LISTENER, 0 },
                { INSTANCE_STORED_NOTIFY, KEEPER_FD_LISTENER, 1 },
        };
        uint64_t pid;
        int fd;

        for (size_t i = 0; i < ARRAY_SIZE(rest); i++) {
                fd = recovered_take(slot, rest[i].kind, rest[i].tag);
                if (fd < 0)
                        continue;
                instance->stored |= (uint8_t) (1u << rest[i].what);
                instance_drop(instance, rest[i].what, fd);
        }
        fd = recovered_take_kind(slot, KEEPER_FD_MAIN, &pid);
        if (fd >= 0)
                (void) keeper_link_drop(instance->supervisor->link, instance->id, KEEPER_FD_MAIN, pid, NULL, NULL);
        fd_close(fd);
}

/* adopt_all() - what belongs to it. 0, or a negative errno: something is missing. */
static int adopt_all(Instance *instance, Recovered *slot) {
        int r = adopt_output(instance, slot, false);

        if (slot->state == KEEPER_SLOT_EXITED)
                drop_rest(instance, slot);
        if (r < 0 || slot->state == KEEPER_SLOT_EXITED)
                return r;
        if (slot->pidfd < 0)
                return -EBADF;
        instance->pidfd = fd_take(&slot->pidfd);
        if (slot->flags & KEEPER_FLAG_NATIVE)
                return adopt_lane(instance, slot);
        return adopt_ready(instance, slot);
}

/* adopt_way_in() - by which it has not come in yet. Where its directory is no more, the way in was closed. */
static int adopt_way_in(Instance *instance, Recovered *slot, int listener_fd_consume) {
        _cleanup_fd_ int listener = listener_fd_consume;
        _cleanup_free_ char *path =
                slot->state == KEEPER_SLOT_BORN ? recovery_place(instance->supervisor, slot, "bootstrap") : NULL;
        int r;

        instance->stored |= 1u << INSTANCE_STORED_LISTENER;
        r = path ? instance_adopt_way_in(instance, path, fd_take(&listener)) : -ENOENT;
        if (r != -ENOENT)
                return r;
        instance_drop(instance, INSTANCE_STORED_LISTENER, fd_take(&listener));
        return 0;
}

/*
 * adopt_crossed_lane() - with the peer that the predecessor had, at whatever it was; or with its way in. We are told what the
 * keeper was given for it, and not what was dropped since: the listener of one that has come in, the lane of one that is lost.
 */
static int adopt_crossed_lane(Instance *instance, Recovered *slot) {
        _cleanup_fd_ int lane = recovered_take(slot, KEEPER_FD_LANE, 0);
        _cleanup_fd_ int listener = recovered_take(slot, KEEPER_FD_LISTENER, 0);
        bool came_in = lane >= 0;
        int r;

        if (came_in && !fd_is_unix_stream(lane))
                return -EBADF;
        if (came_in) {
                instance->stored |= 1u << INSTANCE_STORED_LANE;
                instance->lane = fd_take(&lane);
        }
        r = instance_restore_peer(instance);
        if (r < 0)
                return r;
        if (r == 0) /* there was none any more: the lane is on its way out */
                instance_drop(instance, INSTANCE_STORED_LANE, fd_take(&instance->lane));
        return listener >= 0 && !came_in ? adopt_way_in(instance, slot, fd_take(&listener)) : 0;
}

/* adopt_crossed() - its predecessor was not dead but has left: what is not there was not there any more. */
static int adopt_crossed(Instance *instance, Recovered *slot) {
        int r;

        runner_cross_configuration(instance);
        r = adopt_output(instance, slot, slot->state == KEEPER_SLOT_EXITED);
        if (r == 0 && slot->state == KEEPER_SLOT_BORN && slot->pidfd < 0)
                r = -EBADF;
        if (r < 0)
                return r;
        instance->pidfd = fd_take(&slot->pidfd);
        r = slot->flags & KEEPER_FLAG_NATIVE ? adopt_crossed_lane(instance, slot) : 0;
        return r == 0 && slot->state == KEEPER_SLOT_BORN ? adopt_ready(instance, slot) : r;
}

/* is_ready() - was it, under the supervisor before? What has no way to say so was when it was executed. */
static bool is_ready(const Instance *instance, const Recovered *slot) {
        return instance->config->ready == CONFIG_READY_NONE || (slot->record.flags & RECORD_READY);
}

/* go_on() - as if it had been ours all the time. */
static void go_on(Instance *instance, const Recovered *slot) {
        Supervisor *supervisor = instance->supervisor;
        Runner *runner = instance->runner;
        bool ready = is_ready(instance, slot);

        instance->was_up = ready;
        instance->state = ready ? PROCESS_UP : PROCESS_STARTING;
        runner->state = ready && !instance->config->oneshot ? POLICY_UP : POLICY_STARTING;
        runner->up_us = runner->state != POLICY_UP ? 0
                        : slot->record.up_us       ? slot->record.up_us
                                                   : instance->started_us;
        if (slot->state == KEEPER_SLOT_EXITED)
                return;
        if (ready)
                instance_watch_over(instance);
        else
                loop_timer_set(supervisor->loop, &instance->timer,
                               clock_after(instance->started_us, instance->config->start_timeout_us));
}

/* One that takes the place of what was killed is a restart that we asked for, not one that it needed. */
static void be_killed(Instance *instance) {
        instance->state = PROCESS_UP;
        instance->broken_off = true;
        instance->runner->state = POLICY_STOPPING;
        instance_doom(instance, RUNNER_CAUSE_STOPPED, PROCESS_EVENT_DOOMED);
}

static void fill(Instance *instance, const Recovered *slot) {
        uint64_t now = clock_now();

        instance->born = true;
        instance->pid = instance->last_pid = slot->pid;
        instance->saves = slot->record.flags & RECORD_SAVES;
        instance->recovers = slot->record.recovers;
        instance->resume = slot->record.flags & RECORD_UPGRADE;
        instance->stale = slot->record.flags & RECORD_STALE;
        instance->program = slot->record.program;
        instance->event = (uint64_t) instance->supervisor->generation << 32; /* above all that it was told before */
        instance->started_us = slot->record.started_us ? MIN(slot->record.started_us, now) : now;
        instance->started_wall_us = slot->record.started_wall_us ? slot->record.started_wall_us : clock_wall();
}

/* make() - in the supervisor's table. 0 or -ENOMEM. */
static int make(Instance **ret_instance, Runner *runner, const Recovered *slot) {
        int r = instance_new(ret_instance, runner, slot->instance);

        if (r < 0)
                return r;
        r = supervisor_add_instance(runner->supervisor, *ret_instance);
        if (r < 0)
                instance_free(*ret_instance);
        else
                fill(*ret_instance, slot);
        return r;
}

int instance_adopt_past(Runner *runner, Recovered *slot) {
        Instance *past;
        int r = make(&past, runner, slot);

        if (r < 0)
                return r;
        past->resume = false;
        past->is_past = past->was_up = true;
        past->past = runner->past;
        runner->past = past;
        past->state = PROCESS_UP;
        r = adopt_all(past, slot);
        if (slot->state == KEEPER_SLOT_EXITED)
                return 0;
        log_info("runner %s: pid %d has a successor, and finishes what it has begun", runner->name, slot->pid);
        if (r < 0)
                instance_doom(past, RUNNER_CAUSE_STOPPED, PROCESS_EVENT_DOOMED);
        else
                instance_stop(past, past->config->upgrade_drain_us + past->config->stop_timeout_us);
        return 0;
}

/*
 * is_half_recovered() - it was to go on from a checkpoint, and nobody knows how far that had come: its clients, say, may have
 * been renewed or not. Another one is made, and the checkpoint is still there.
 */
static bool is_half_recovered(const Instance *instance, const Recovered *slot) {
        const Runner *runner = instance->runner;
        const Holder *holder = instance->supervisor->holder;

        return !runner->crossed && instance->config->recover == CONFIG_RECOVER_FAILOVER && !is_ready(instance, slot) &&
               (holder_kept(holder, runner) || holder_first_lane(holder, runner));
}

int instance_adopt(Runner *runner, Recovered *slot) {
        Instance *instance;
        int r = make(&instance, runner, slot);

        if (r < 0)
                return r;
        runner->instance = instance;
        runner->last_instance = instance->id;
        runner->events = 0; /* it needs no start */
        runner_log_set_over(runner->log, false);
        r = runner->crossed ? adopt_crossed(instance, slot) : adopt_all(instance, slot);
        if (r == 0 && is_half_recovered(instance, slot))
                r = -EINPROGRESS;
        if (r == 0 && (runner->crossed || !(slot->flags & KEEPER_FLAG_DOOMED))) {
                go_on(instance, slot);
                return true;
        }
        log_warning("runner %s: pid %d cannot be taken over from the supervisor before: %s; it is started over",
                    runner->name, slot->pid, r < 0 ? strerror(-r) : "its start was not finished");
        be_killed(instance);
        return false;
}

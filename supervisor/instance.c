/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance: the life of one start of a runner, driven by the process table. The order at both ends is what this is about:
 *
 * Start: pipes, bootstrap and peer are made, RESERVE and PUTs sent, and only when all of it is in the kernel is the
 * process cloned (the queue in supervisor.c). The peer exists from the beginning, without a lane: what is sent to a runner
 * that has not connected yet is queued. So every descriptor is in the keeper before there is somebody to use it.
 *
 * End: the keeper's report (or, where there never was a process, the failure) is followed by: output read to its end and
 * `on_exit` told; the peer given a moment to read what the process left in its channels; every stored descriptor
 * dropped there and then closed here; ACK; the runner is told, which judges what follows. A descriptor that
 * is watched must not be closed while its duplicate lives in the keeper: libev would have to make a new epoll set.
 *
 * The report may come before or after the end of the lane, and twice; it is effective once. Events that actions raise are
 * queued: an action never runs inside another. Nobody but its runner holds a pointer to an instance across a turn of the
 * loop unless as its watcher. What made it go is noted when it is done (`cause'), the first reason stays, and at the end
 * it is put right by what is known then: one that was asked to stop and took SIGKILL was killed; one that closed its lane
 * and left by itself just left.
 */

#include "supervisor/instance-internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/checkpoint.h"
#include "supervisor/failover.h"
#include "supervisor/holder.h"
#include "supervisor/relay.h"
#include "supervisor/runner-record.h"
#include "supervisor/service.h"
#include "supervisor/upgrade.h"

/* What the end of a process's channels may take to be read, after its exit: somebody may have inherited them. */
#define LINGER_US (100 * USEC_PER_MSEC)

struct InstanceDrop {
        LIST_ENTRY(InstanceDrop) link;
        Instance *instance;
        int fd;
};

static const struct {
        KeeperFdKind kind;
        uint64_t tag;
} stored_names[] = {
        [INSTANCE_STORED_LANE] = { KEEPER_FD_LANE, 0 },       [INSTANCE_STORED_LISTENER] = { KEEPER_FD_LISTENER, 0 },
        [INSTANCE_STORED_STDOUT] = { KEEPER_FD_LOG, 1 },      [INSTANCE_STORED_STDERR] = { KEEPER_FD_LOG, 2 },
        [INSTANCE_STORED_NOTIFY] = { KEEPER_FD_LISTENER, 1 },
};
static_assert(ARRAY_SIZE(stored_names) == _INSTANCE_STORED_N, "a name in the keeper for each");

static void timer_fired(LoopTimer *timer);
static void tell_gone(LoopTask *task);

/* --------------------------------------------------------------------------------------------------- making, freeing */

int instance_new(Instance **ret_instance, Runner *runner, uint64_t id) {
        Instance *instance = calloc(1, sizeof(*instance));

        if (!instance)
                return -ENOMEM;
        instance->supervisor = runner->supervisor;
        instance->runner = runner;
        instance->config = runner_config_ref(runner->config);
        instance->id = id;
        instance->copied = PRECOPIED_NULL(PRECOPIED_INSTANCE);
        instance->pidfd = instance->lane = instance->ready_fd = instance->program_fd = -1;
        instance->output_fds[0] = instance->output_fds[1] = -1;
        instance->watchdog_us = instance->config->watchdog_us;
        instance->timer = LOOP_TIMER_NULL(timer_fired);
        instance->gone = LOOP_TASK_NULL(tell_gone);
        LIST_INIT(&instance->relays);
        LIST_INIT(&instance->drops);
        LIST_INIT(&instance->renewals);
        LIST_INIT(&instance->on_exit);
        log_input_init(&instance->input, runner->log, id);
        *ret_instance = instance;
        return 0;
}

static void forget_drops(Instance *instance) {
        InstanceDrop *drop;

        while ((drop = LIST_FIRST(&instance->drops))) {
                keeper_link_forget(instance->supervisor->link, drop);
                LIST_REMOVE(drop, link);
                fd_close(drop->fd);
                free(drop);
        }
}

static void call_watchers(Instance *instance, struct InstanceWatchers *watchers) {
        InstanceWatcher *watcher;

        while ((watcher = LIST_FIRST(watchers))) {
                instance_unwatch(watcher);
                watcher->callback(watcher, instance);
        }
}

Instance *instance_free(Instance *instance) {
        if (!instance)
                return NULL;
        instance->ended = true;
        checkpoint_ended(instance);
        failover_end(instance);
        if (instance->peer)
                peer_close(instance->peer, STATUS_UNAVAILABLE, "the supervisor is ending");
        service_cancel(instance);
        relay_end_all(instance);
        call_watchers(instance, &instance->on_exit);
        instance_close_bootstrap(instance);
        instance_close_ready(instance);
        instance_forget_main(instance);
        forget_drops(instance);
        if (instance->supervisor->link)
                keeper_link_forget(instance->supervisor->link, instance);
        loop_timer_stop(&instance->timer);
        loop_task_cancel(&instance->gone);
        precopy_forget(&instance->supervisor->precopy, &instance->copied, 0, NULL);
        log_input_deinit(&instance->input);
        fd_close_all(instance->output_fds, LOG_PIPES);
        fd_close(instance->ready_fd);
        fd_close(instance->program_fd);
        fd_close(instance->lane);
        fd_close(instance->pidfd);
        runner_config_unref(instance->config);
        free(instance->lost);
        free(instance->failure_text);
        free(instance);
        return NULL;
}

/* ------------------------------------------------------------------------------------------- descriptors in the keeper */

static void stored(KeeperLink *link, int result, void *userdata) {
        Instance *instance = userdata;

        (void) link;
        if (result == 0 || instance->refused || instance->ended)
                return;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, "at storing its descriptors in the keeper: %s",
                      strerror(-result));
        instance_doom(instance, RUNNER_CAUSE_START_FAILED,
                      instance->pid ? PROCESS_EVENT_DOOMED : PROCESS_EVENT_FAILED);
}

void instance_name_stored(InstanceStored what, int fd, KeeperReservation *reservation) {
        reservation->kind = stored_names[what].kind;
        reservation->tag = stored_names[what].tag;
        reservation->fd = fd;
}

int instance_store(Instance *instance, InstanceStored what, int fd) {
        int r = keeper_link_put(instance->supervisor->link, instance->id, stored_names[what].kind,
                                stored_names[what].tag, fd, stored, instance);

        if (r == 0)
                instance->stored |= 1u << what;
        return r;
}

/* check_gone() - whether this was the last of it. */
static void check_gone(Instance *instance) {
        if (!instance->ended || instance->peer || instance->stored || !LIST_EMPTY(&instance->drops) ||
            instance->is_gone)
                return;
        instance->is_gone = true;
        if (instance->born && instance_is_present(instance) && runner_is_recorded(instance->runner))
                runner_record_ended(instance->runner);
        else if (instance->born)
                (void) keeper_link_ack(instance->supervisor->link, instance->id);
        loop_task_queue(instance->supervisor->loop, &instance->gone);
}

/* Whatever the answer: the keeper has no duplicate any more. */
static void dropped(KeeperLink *link, int result, void *userdata) {
        InstanceDrop *drop = userdata;
        Instance *instance = drop->instance;

        (void) link;
        (void) result;
        LIST_REMOVE(drop, link);
        fd_close(drop->fd);
        free(drop);
        check_gone(instance);
}

void instance_drop(Instance *instance, InstanceStored what, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        _cleanup_free_ InstanceDrop *drop = NULL;

        if (!(instance->stored & 1u << what))
                return;
        instance->stored &= ~(1u << what);
        drop = malloc(sizeof(*drop));
        if (!drop || keeper_link_drop(instance->supervisor->link, instance->id, stored_names[what].kind,
                                      stored_names[what].tag, dropped, drop) < 0)
                return; /* closed now: it goes there with the slot */
        *drop = (InstanceDrop){ .instance = instance, .fd = fd_take(&fd) };
        LIST_INSERT_HEAD(&instance->drops, drop, link);
        drop = NULL;
}

/* ------------------------------------------------------------------------------------------------------- the end of it */

/* release() - no process, no peer: all descriptors go. */
static void release(Instance *instance) {
        loop_timer_stop(&instance->timer);
        instance_drop(instance, INSTANCE_STORED_LANE, fd_take(&instance->lane));
        instance_drop(instance, INSTANCE_STORED_STDOUT, log_input_take(&instance->input, LOG_SOURCE_STDOUT));
        instance_drop(instance, INSTANCE_STORED_STDERR, log_input_take(&instance->input, LOG_SOURCE_STDERR));
        check_gone(instance);
}

static void end_of_process(Instance *instance, uint64_t linger_us) {
        instance->ended = true;
        instance->ended_us = clock_now();
        instance_forget_main(instance);
        instance->pid = 0;
        instance->pidfd = fd_close(instance->pidfd);
        loop_timer_stop(&instance->timer);
        supervisor_unqueue_spawn(instance->supervisor, instance);
        fd_close_all(instance->output_fds, LOG_PIPES);
        instance->ready_fd = fd_close(instance->ready_fd);
        instance->program_fd = fd_close(instance->program_fd);
        instance_close_bootstrap(instance);
        instance_close_ready(instance);
        checkpoint_ended(instance);
        failover_end(instance);
        log_input_finish(&instance->input);
        holder_forget_state(instance->supervisor->holder, instance);
        call_watchers(instance, &instance->on_exit);
        if (!instance->peer)
                release(instance);
        else if (instance->lane < 0) /* never came in */
                peer_close(instance->peer, STATUS_UNAVAILABLE, "the runner is gone");
        else
                loop_timer_set(instance->supervisor->loop, &instance->timer, clock_after(clock_now(), linger_us));
}

/* settle_cause() - what had been noted, put right by how it ended. */
static void settle_cause(Instance *instance) {
        if (instance->exit.how == EXIT_LOST)
                instance->cause = RUNNER_CAUSE_LOST;
        else if (instance->cause == RUNNER_CAUSE_STOPPED && instance->killed)
                instance->cause = RUNNER_CAUSE_KILLED;
        else if (instance->cause == RUNNER_CAUSE_DISCONNECTED && instance->stop <= INSTANCE_STOP_LEAVING)
                instance->cause = RUNNER_CAUSE_ITSELF;
}

static void bury(Instance *instance) {
        char text[EXIT_STATUS_TEXT_SIZE];

        exit_status_describe(instance->exit, text);
        settle_cause(instance);
        instance_leave_cgroup(instance);
        if (!instance->was_up)
                instance_fail(instance, INSTANCE_FAILURE_EXITED_EARLY, ": %s before it %s%s%s", text,
                              !runner_config_native(instance->config)         ? "was ready"
                              : instance->recovers                            ? "had taken over from its checkpoint"
                              : instance->lane >= 0 || instance->lost != NULL ? "said Hello"
                                                                              : "connected",
                              instance->lost ? "; " : "", instance_text(instance->lost));
        log_info("runner %s: pid %d %s", instance->runner->name, instance->pid, text);
        end_of_process(instance, LINGER_US);
}

static void abandon(Instance *instance) {
        if (instance->reserved)
                (void) keeper_link_cancel(instance->supervisor->link, instance->id);
        instance->reserved = false;
        end_of_process(instance, 0);
}

static void tell_gone(LoopTask *task) {
        Instance *instance = CONTAINER_OF(task, Instance, gone);

        Runner *runner = instance->runner;

        instance->over = true;
        supervisor_instance_gone(instance->supervisor, instance);
        if (upgrade_has(runner->upgrade, instance)) {
                upgrade_instance_gone(runner->upgrade, instance);
        } else if (instance_is_present(instance)) {
                upgrade_present_gone(runner->upgrade, instance);
                runner_instance_over(runner);
        } else {
                runner_past_over(runner, instance);
        }
}

/* ---------------------------------------------------------------------------------------------------- the peer's side */

/* A renewal is of one that was adopted: it says Hello to us for the first time, too. */
static void peer_said_hello(Peer *peer, bool renewed) {
        Instance *instance = peer_userdata(peer);

        (void) renewed;
        instance_said_hello(instance);
        if (instance_is_present(instance)) /* of one that was adopted it may have been waited for */
                checkpoint_wake(instance->runner);
}

/* The lane is shut down although the peer has closed its own descriptor: the runner must see the end at once. */
static void peer_ended(Peer *peer, Status status, const char *reason) {
        Instance *instance = peer_userdata(peer);

        runner_touch(instance->runner);
        instance->broke_rules = status != STATUS_OK && status != STATUS_UNAVAILABLE;
        if (status != STATUS_OK && !instance->ended)
                log_message(instance->broke_rules ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
                            "runner %s: its connection ended: %s: %s", instance->runner->name, status_name(status),
                            reason);
        if (!instance->lost &&
            asprintf(&instance->lost, "its connection ended: %.*s", INSTANCE_FAILURE_SIZE, reason) < 0)
                instance->lost = NULL;
        instance->asking = NULL;
        checkpoint_ended(instance);
        failover_end(instance);
        relay_keep_peer(instance, TAKE_PTR(instance->peer));
        if (instance->lane >= 0)
                (void) shutdown(instance->lane, SHUT_RDWR);
        if (instance->ended) {
                release(instance);
                return;
        }
        instance_drop(instance, INSTANCE_STORED_LANE, fd_take(&instance->lane));
        instance_doom(instance, RUNNER_CAUSE_DISCONNECTED, PROCESS_EVENT_LOST);
}

const PeerHandler instance_peer_handler = {
        .ready = peer_said_hello,
        .call = instance_called,
        .ended = peer_ended,
};

/* ----------------------------------------------------------------------------------------------------------- the table */

static void announce(Instance *instance) {
        loop_timer_stop(&instance->timer);
        instance->was_up = true;
        log_info("runner %s: %s, pid %d", instance->runner->name,
                 instance_is_present(instance) ? "up" : "a successor is there", instance->pid);
        instance_watch_over(instance);
        if (instance_is_present(instance))
                checkpoint_wake(instance->runner);
        if (instance_is_present(instance))
                runner_instance_ready(instance->runner);
        else if (instance->runner->upgrade)
                upgrade_instance_ready(instance->runner->upgrade, instance);
}

static void (*const actions[])(Instance *) = {
        [PROCESS_ACTION_NONE] = NULL,
        [PROCESS_ACTION_SPAWN] = instance_prepare,
        [PROCESS_ACTION_ABANDON] = abandon,
        [PROCESS_ACTION_ANNOUNCE] = announce,
        [PROCESS_ACTION_ASK] = instance_ask,
        [PROCESS_ACTION_LEAVE] = instance_leave,
        [PROCESS_ACTION_ESCALATE] = instance_escalate,
        [PROCESS_ACTION_KILL] = instance_kill,
        [PROCESS_ACTION_BURY] = bury,
};
static_assert(ARRAY_SIZE(actions) == _PROCESS_ACTION_N, "a function for each action");

static void handle(Instance *instance, ProcessEvent event) {
        ProcessState before = instance->state, next;
        ProcessAction action;

        if (process_next(before, event, &next, &action) < 0) {
                log_debug("runner %s: event %s means nothing while %s", instance->runner->name,
                          process_event_name(event), process_state_name(before));
                return;
        }
        instance->state = next;
        log_debug("runner %s: %s, %s: now %s, %s", instance->runner->name, process_state_name(before),
                  process_event_name(event), process_state_name(next), process_action_name(action));
        if (actions[action])
                actions[action](instance);
}

void instance_raise(Instance *instance, ProcessEvent event) {
        assert(instance->n_events < INSTANCE_EVENTS_MAX);
        runner_touch(instance->runner);
        instance->events[instance->n_events++] = (uint8_t) event;
        if (instance->handling)
                return;
        instance->handling = true;
        while (instance->n_events > 0) {
                ProcessEvent next = (ProcessEvent) instance->events[0];

                instance->n_events--;
                memmove(instance->events, instance->events + 1, instance->n_events * sizeof(instance->events[0]));
                handle(instance, next);
        }
        instance->handling = false;
}

/* ------------------------------------------------------------------------------------------------------- from outside */

void instance_fail(Instance *instance, InstanceFailure failure, const char *format, ...) {
        va_list arguments;

        if (instance->failure)
                return;
        runner_touch(instance->runner);
        instance->failure = failure;
        va_start(arguments, format);
        if (vasprintf(&instance->failure_text, format, arguments) < 0)
                instance->failure_text = NULL;
        va_end(arguments);
}

void instance_doom(Instance *instance, RunnerCause cause, ProcessEvent event) {
        if (instance->cause == RUNNER_CAUSE_ITSELF && !instance->ended)
                instance->cause = cause;
        instance_raise(instance, event);
}

void instance_start(Instance *instance) {
        instance->started_us = clock_now();
        instance->started_wall_us = clock_wall();
        instance_raise(instance, PROCESS_EVENT_START);
}

void instance_exited(Instance *instance, ExitStatus exit) {
        if (instance->ended)
                return; /* said before */
        instance->exit = exit;
        instance_raise(instance, PROCESS_EVENT_EXITED);
}

static void start_timed_out(Instance *instance) {
        const char *what = !runner_config_native(instance->config) ? "was not ready"
                           : instance->lane < 0                    ? "did not connect"
                           : !instance->service                    ? "connected, but said no Hello"
                           : instance->recovers                    ? "did not take over from its checkpoint"
                                                                   : "said Hello, but its service did not begin";

        instance_fail(instance, INSTANCE_FAILURE_DID_NOT_CONNECT, ": %s within %g s, and was killed", what,
                      (double) instance->config->start_timeout_us / USEC_PER_SEC);
        instance_doom(instance, RUNNER_CAUSE_START_TIMEOUT,
                      instance->pid ? PROCESS_EVENT_TIMEOUT : PROCESS_EVENT_FAILED);
}

/* The start's, of signs of life, the step's of a stop, or, after the end, of the peer. */
static void timer_fired(LoopTimer *timer) {
        Instance *instance = CONTAINER_OF(timer, Instance, timer);

        runner_touch(instance->runner);
        if (instance->ended)
                peer_close(instance->peer, STATUS_UNAVAILABLE, "the runner is gone");
        else if (instance->state == PROCESS_STARTING)
                start_timed_out(instance);
        else if (instance->state == PROCESS_UP)
                instance_check_alive(instance);
        else
                instance_raise(instance, PROCESS_EVENT_TIMEOUT);
}

bool instance_watch_exit(Instance *instance, InstanceWatcher *watcher) {
        if (instance->ended)
                return false;
        watcher->instance = instance;
        LIST_INSERT_HEAD(&instance->on_exit, watcher, link);
        return true;
}

void instance_unwatch(InstanceWatcher *watcher) {
        if (!watcher->instance)
                return;
        LIST_REMOVE(watcher, link);
        watcher->instance = NULL;
}

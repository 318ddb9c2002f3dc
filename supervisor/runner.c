/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner: the life of one instance, driven by the process table. The order at both ends is what this is about:
 *
 * Start: pipes, bootstrap and peer are made, RESERVE and PUTs sent, and only when all of it is in the kernel is the
 * process cloned (the queue in supervisor.c). The peer exists from the beginning, without a lane: what is sent to a runner
 * that has not connected yet is queued. So every descriptor is in the keeper before there is somebody to use it.
 *
 * End: the keeper's report (or, where there never was a process, the failure) is followed by: output read to its end and
 * `on_exit` told; the peer given a moment to read what the process left in its channels; every stored descriptor
 * dropped there and then closed here; ACK; `on_gone` told, and the failed start; forgotten or remembered. A descriptor
 * that is watched must not be closed while its duplicate lives in the keeper: libev would have to make a new epoll set.
 *
 * The report may come before or after the end of the lane, and twice; it is effective once. Events that actions raise are
 * queued: an action never runs inside another. Nobody outside holds a pointer to a runner across a turn of the loop
 * unless as its watcher; it is freed in a task of its own.
 */

#include "supervisor/runner-internal.h"

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
#include "supervisor/relay.h"

/* What the end of a process's channels may take to be read, after its exit: somebody may have inherited them. */
#define LINGER_US (100 * USEC_PER_MSEC)

struct RunnerDrop {
        LIST_ENTRY(RunnerDrop) link;
        Runner *runner;
        int fd;
};

static const struct {
        KeeperFdKind kind;
        uint64_t tag;
} stored_names[] = {
        [RUNNER_STORED_LANE] = { KEEPER_FD_LANE, 0 },
        [RUNNER_STORED_LISTENER] = { KEEPER_FD_LISTENER, 0 },
        [RUNNER_STORED_STDOUT] = { KEEPER_FD_LOG, 1 },
        [RUNNER_STORED_STDERR] = { KEEPER_FD_LOG, 2 },
};
static_assert(ARRAY_SIZE(stored_names) == _RUNNER_STORED_N, "a name in the keeper for each");

static void timer_fired(LoopTimer *timer);
static void tell_gone(LoopTask *task);

/* --------------------------------------------------------------------------------------------------- making, freeing */

static void free_strings(char **strings) {
        for (char **s = strings; s && *s; s++)
                free(*s);
        free(strings);
}

void runner_spec_deinit(RunnerSpec *spec) {
        free(spec->program);
        free_strings(spec->argv);
        free_strings(spec->environment);
        free(spec->directory);
        *spec = (RunnerSpec){ 0 };
}

int runner_new(Runner **ret_runner, Supervisor *supervisor, RunnerSpec *spec, uint64_t instance) {
        Runner *runner = calloc(1, sizeof(*runner));

        if (!runner) {
                runner_spec_deinit(spec);
                return -ENOMEM;
        }
        runner->supervisor = supervisor;
        runner->spec = *spec;
        *spec = (RunnerSpec){ 0 };
        runner->instance = instance;
        runner->pidfd = runner->lane = -1;
        runner->output_fds[0] = runner->output_fds[1] = -1;
        runner->timer = LOOP_TIMER_NULL(timer_fired);
        runner->gone = LOOP_TASK_NULL(tell_gone);
        LIST_INIT(&runner->relays);
        LIST_INIT(&runner->drops);
        LIST_INIT(&runner->on_exit);
        LIST_INIT(&runner->on_gone);
        bootstrap_init(&runner->bootstrap, supervisor->loop, runner->spec.name, runner_connected);
        output_init(&runner->output, supervisor->loop, SUPERVISOR_OUTPUT_LINES, SUPERVISOR_OUTPUT_BYTES);
        *ret_runner = runner;
        return 0;
}

static void forget_drops(Runner *runner) {
        RunnerDrop *drop;

        while ((drop = LIST_FIRST(&runner->drops))) {
                keeper_link_forget(runner->supervisor->link, drop);
                LIST_REMOVE(drop, link);
                fd_close(drop->fd);
                free(drop);
        }
}

static void call_watchers(Runner *runner, struct RunnerWatchers *watchers) {
        RunnerWatcher *watcher;

        while ((watcher = LIST_FIRST(watchers))) {
                runner_unwatch(watcher);
                watcher->callback(watcher, runner);
        }
}

Runner *runner_free(Runner *runner) {
        if (!runner)
                return NULL;
        runner->ended = true;
        if (runner->peer)
                peer_close(runner->peer, STATUS_UNAVAILABLE, "the supervisor is ending");
        relay_end_all(runner);
        runner_tell_started(runner, RUNNER_FAILURE_SYSTEM);
        call_watchers(runner, &runner->on_exit);
        call_watchers(runner, &runner->on_gone);
        fd_close(bootstrap_close(&runner->bootstrap));
        forget_drops(runner);
        if (runner->supervisor->link)
                keeper_link_forget(runner->supervisor->link, runner);
        loop_timer_stop(&runner->timer);
        loop_task_cancel(&runner->gone);
        output_deinit(&runner->output);
        fd_close_all(runner->output_fds, OUTPUT_PIPES);
        fd_close(runner->lane);
        fd_close(runner->pidfd);
        runner_spec_deinit(&runner->spec);
        free(runner);
        return NULL;
}

/* ------------------------------------------------------------------------------------------- descriptors in the keeper */

static void stored(KeeperLink *link, int result, void *userdata) {
        Runner *runner = userdata;

        (void) link;
        if (result == 0 || runner->refused || runner->ended)
                return;
        runner_fail(runner, RUNNER_FAILURE_SYSTEM, "at storing its descriptors in the keeper: %s", strerror(-result));
        runner_raise(runner, runner->pid ? PROCESS_EVENT_DOOMED : PROCESS_EVENT_FAILED);
}

int runner_store(Runner *runner, RunnerStored what, int fd) {
        int r = keeper_link_put(runner->supervisor->link, runner->instance, stored_names[what].kind,
                                stored_names[what].tag, fd, stored, runner);

        if (r == 0)
                runner->stored |= 1u << what;
        return r;
}

/* check_gone() - whether this was the last of it. */
static void check_gone(Runner *runner) {
        if (!runner->ended || runner->peer || runner->stored || !LIST_EMPTY(&runner->drops) || runner->is_gone)
                return;
        runner->is_gone = true;
        if (runner->born)
                (void) keeper_link_ack(runner->supervisor->link, runner->instance);
        loop_task_queue(runner->supervisor->loop, &runner->gone);
}

/* Whatever the answer: the keeper has no duplicate any more. */
static void dropped(KeeperLink *link, int result, void *userdata) {
        RunnerDrop *drop = userdata;
        Runner *runner = drop->runner;

        (void) link;
        (void) result;
        LIST_REMOVE(drop, link);
        fd_close(drop->fd);
        free(drop);
        check_gone(runner);
}

void runner_drop(Runner *runner, RunnerStored what, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        _cleanup_free_ RunnerDrop *drop = NULL;

        if (!(runner->stored & 1u << what))
                return;
        runner->stored &= ~(1u << what);
        drop = malloc(sizeof(*drop));
        if (!drop || keeper_link_drop(runner->supervisor->link, runner->instance, stored_names[what].kind,
                                      stored_names[what].tag, dropped, drop) < 0)
                return; /* closed now: it goes there with the slot */
        *drop = (RunnerDrop){ .runner = runner, .fd = fd_take(&fd) };
        LIST_INSERT_HEAD(&runner->drops, drop, link);
        drop = NULL;
}

/* ------------------------------------------------------------------------------------------------------- the end of it */

/* release() - no process, no peer: all descriptors go. */
static void release(Runner *runner) {
        loop_timer_stop(&runner->timer);
        output_end(&runner->output);
        runner_drop(runner, RUNNER_STORED_LANE, fd_take(&runner->lane));
        runner_drop(runner, RUNNER_STORED_STDOUT, output_take_pipe(&runner->output, HISTORY_STDOUT));
        runner_drop(runner, RUNNER_STORED_STDERR, output_take_pipe(&runner->output, HISTORY_STDERR));
        check_gone(runner);
}

static void end_of_process(Runner *runner, uint64_t linger_us) {
        runner->ended = true;
        runner->pid = 0;
        runner->pidfd = fd_close(runner->pidfd);
        loop_timer_stop(&runner->timer);
        supervisor_unqueue_spawn(runner->supervisor, runner);
        fd_close_all(runner->output_fds, OUTPUT_PIPES);
        runner_close_bootstrap(runner);
        output_finish(&runner->output);
        call_watchers(runner, &runner->on_exit);
        if (!runner->peer)
                release(runner);
        else if (runner->lane < 0) /* never came in */
                peer_close(runner->peer, STATUS_UNAVAILABLE, "the runner is gone");
        else
                loop_timer_set(runner->supervisor->loop, &runner->timer, clock_after(clock_now(), linger_us));
}

static void bury(Runner *runner) {
        char text[EXIT_STATUS_TEXT_SIZE];

        exit_status_describe(runner->exit, text);
        if (runner->started) /* it never was up */
                runner_fail(runner, RUNNER_FAILURE_EXITED_EARLY, ": %s before it %s%s%s", text,
                            runner->lane >= 0 || *runner->lost ? "said Hello" : "connected", *runner->lost ? "; " : "",
                            runner->lost);
        log_info("runner %s: pid %d %s", runner->spec.name, runner->pid, text);
        end_of_process(runner, LINGER_US);
}

static void abandon(Runner *runner) {
        if (runner->reserved)
                (void) keeper_link_cancel(runner->supervisor->link, runner->instance);
        runner->reserved = false;
        end_of_process(runner, 0);
}

static void tell_gone(LoopTask *task) {
        Runner *runner = CONTAINER_OF(task, Runner, gone);
        bool was_up = !runner->started;

        runner->over = true;
        runner_tell_started(runner, runner->failure ? runner->failure : RUNNER_FAILURE_SYSTEM);
        call_watchers(runner, &runner->on_gone);
        supervisor_runner_gone(runner->supervisor, runner, was_up);
}

/* ---------------------------------------------------------------------------------------------------- the peer's side */

static void peer_said_hello(Peer *peer, bool renewed) {
        if (!renewed)
                runner_raise(peer_userdata(peer), PROCESS_EVENT_READY);
}

/* The lane is shut down although the peer has closed its own descriptor: the runner must see the end at once. */
static void peer_ended(Peer *peer, Status status, const char *reason) {
        Runner *runner = peer_userdata(peer);

        if (status != STATUS_OK && !runner->ended)
                log_info("runner %s: its connection ended: %s: %s", runner->spec.name, status_name(status), reason);
        (void) snprintf(runner->lost, sizeof(runner->lost), "its connection ended: %s", reason);
        runner->broke_rules = status != STATUS_OK && status != STATUS_UNAVAILABLE;
        runner->asking = NULL;
        relay_keep_peer(runner, TAKE_PTR(runner->peer));
        if (runner->lane >= 0)
                (void) shutdown(runner->lane, SHUT_RDWR);
        if (runner->ended) {
                release(runner);
                return;
        }
        runner_drop(runner, RUNNER_STORED_LANE, fd_take(&runner->lane));
        runner_raise(runner, PROCESS_EVENT_LOST);
}

const PeerHandler runner_peer_handler = {
        .ready = peer_said_hello,
        .call = runner_called,
        .ended = peer_ended,
};

/* ----------------------------------------------------------------------------------------------------------- the table */

static void announce(Runner *runner) {
        loop_timer_stop(&runner->timer);
        log_info("runner %s: up, pid %d", runner->spec.name, runner->pid);
        runner_tell_started(runner, RUNNER_FAILURE_NONE);
}

static void (*const actions[])(Runner *) = {
        [PROCESS_ACTION_NONE] = NULL,
        [PROCESS_ACTION_SPAWN] = runner_prepare,
        [PROCESS_ACTION_ABANDON] = abandon,
        [PROCESS_ACTION_ANNOUNCE] = announce,
        [PROCESS_ACTION_ASK] = runner_ask,
        [PROCESS_ACTION_LEAVE] = runner_leave,
        [PROCESS_ACTION_ESCALATE] = runner_escalate,
        [PROCESS_ACTION_KILL] = runner_kill,
        [PROCESS_ACTION_BURY] = bury,
};
static_assert(ARRAY_SIZE(actions) == _PROCESS_ACTION_N, "a function for each action");

static void handle(Runner *runner, ProcessEvent event) {
        ProcessState before = runner->state;
        ProcessAction action;

        if (process_next(before, event, &runner->state, &action) < 0) {
                log_debug("runner %s: event %s means nothing while %s", runner->spec.name, process_event_name(event),
                          process_state_name(before));
                return;
        }
        log_debug("runner %s: %s, %s: now %s, %s", runner->spec.name, process_state_name(before),
                  process_event_name(event), process_state_name(runner->state), process_action_name(action));
        if (actions[action])
                actions[action](runner);
}

void runner_raise(Runner *runner, ProcessEvent event) {
        assert(runner->n_events < RUNNER_EVENTS_MAX);
        runner->events[runner->n_events++] = event;
        if (runner->handling)
                return;
        runner->handling = true;
        while (runner->n_events > 0) {
                ProcessEvent next = runner->events[0];

                runner->n_events--;
                memmove(runner->events, runner->events + 1, runner->n_events * sizeof(runner->events[0]));
                handle(runner, next);
        }
        runner->handling = false;
}

/* ------------------------------------------------------------------------------------------------------- from outside */

void runner_fail(Runner *runner, RunnerFailure failure, const char *format, ...) {
        va_list arguments;

        if (runner->failure)
                return;
        runner->failure = failure;
        va_start(arguments, format);
        (void) vsnprintf(runner->failure_text, sizeof(runner->failure_text), format, arguments);
        va_end(arguments);
}

void runner_tell_started(Runner *runner, RunnerFailure failure) {
        RunnerStarted started = runner->started;

        runner->started = NULL;
        if (started)
                started(runner, failure, runner->started_userdata);
}

void runner_start(Runner *runner, RunnerStarted started, void *userdata) {
        runner->started = started;
        runner->started_userdata = userdata;
        runner_raise(runner, PROCESS_EVENT_START);
}

void runner_exited(Runner *runner, ExitStatus exit) {
        if (runner->ended)
                return; /* said before */
        runner->exit = exit;
        runner_raise(runner, PROCESS_EVENT_EXITED);
}

/* The start's, the step's of a stop, or, after the end, of the peer. */
static void timer_fired(LoopTimer *timer) {
        Runner *runner = CONTAINER_OF(timer, Runner, timer);

        if (runner->ended) {
                peer_close(runner->peer, STATUS_UNAVAILABLE, "the runner is gone");
                return;
        }
        if (runner->state == PROCESS_STARTING)
                runner_fail(runner, RUNNER_FAILURE_DID_NOT_CONNECT, ": %s within %g s, and was killed",
                            runner->lane >= 0 ? "connected, but said no Hello" : "did not connect",
                            (double) runner->spec.start_timeout_us / USEC_PER_SEC);
        runner_raise(runner,
                     runner->state == PROCESS_STARTING && !runner->pid ? PROCESS_EVENT_FAILED : PROCESS_EVENT_TIMEOUT);
}

static bool watch(Runner *runner, struct RunnerWatchers *watchers, RunnerWatcher *watcher) {
        watcher->runner = runner;
        LIST_INSERT_HEAD(watchers, watcher, link);
        return true;
}

bool runner_watch_exit(Runner *runner, RunnerWatcher *watcher) {
        return !runner->ended && watch(runner, &runner->on_exit, watcher);
}

bool runner_watch_gone(Runner *runner, RunnerWatcher *watcher) {
        return !runner->over && watch(runner, &runner->on_gone, watcher);
}

void runner_unwatch(RunnerWatcher *watcher) {
        if (!watcher->runner)
                return;
        LIST_REMOVE(watcher, link);
        watcher->runner = NULL;
}

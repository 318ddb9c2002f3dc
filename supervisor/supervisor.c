/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Supervisor: what belongs to no single runner. It owns the loop, the link to the keeper, every runner, by its name, and
 * the table of instances that are not over, by their id, for the keeper's reports.
 *
 * Processes are made from one queue, only while everything sent to the keeper is in the kernel: a child's BORN must come
 * behind its RESERVE. One process is made at a time; clone() waits for the exec. What becomes of runners is worked out in
 * another task, one runner after the other: so none is in the middle of anything when it is freed, which happens there.
 *
 * The way down is one for all reasons (the client's lane ended, SIGTERM from the keeper): stop what runs, in order, give
 * each the time there is, then tell the keeper, which ends us with everything that may be left. Without a keeper there is
 * nothing to be told and nobody to report exits: the loop ends at once.
 */

#include "supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/pages.h"
#include "common/step.h"
#include "supervisor/cgroup.h"
#include "supervisor/checkpoint.h"
#include "supervisor/chronicle.h"
#include "supervisor/control.h"
#include "supervisor/control-keeper.h"
#include "supervisor/metrics.h"
#include "supervisor/daemon.h"
#include "supervisor/holder.h"
#include "supervisor/listener.h"
#include "supervisor/log-store.h"
#include "supervisor/reload.h"
#include "supervisor/runner-internal.h"
#include "supervisor/successor.h"
#include "supervisor/takeover.h"
#include "supervisor/unknown.h"

/* ------------------------------------------------------------------------------------------------ instances, by their id */

Instance *supervisor_find_instance(const Supervisor *supervisor, uint64_t id) {
        Instance *instance;

        HASH_FIND(by_id, supervisor->instances, &id, sizeof(id), instance);
        return instance;
}

uint64_t supervisor_next_id(Supervisor *supervisor) {
        return (uint64_t) supervisor->generation << 32 | ++supervisor->last_n;
}

int supervisor_add_instance(Supervisor *supervisor, Instance *instance) {
        HASH_ADD(by_id, supervisor->instances, id, sizeof(instance->id), instance);
        return instance->by_id.tbl ? 0 : -ENOMEM;
}

void supervisor_instance_gone(Supervisor *supervisor, Instance *instance) {
        HASH_DELETE(by_id, supervisor->instances, instance);
        if (supervisor->stopping)
                loop_task_queue(supervisor->loop, &supervisor->down);
}

/* -------------------------------------------------------------------------------------------------- the runners' policy */

void supervisor_queue_runner(Supervisor *supervisor, Runner *runner) {
        runner_touch(runner);
        if (runner->queued)
                return;
        TAILQ_INSERT_TAIL(&supervisor->raised, runner, link);
        runner->queued = true;
        loop_task_queue(supervisor->loop, &supervisor->policy);
}

void supervisor_unqueue_runner(Supervisor *supervisor, Runner *runner) {
        if (!runner->queued)
                return;
        TAILQ_REMOVE(&supervisor->raised, runner, link);
        runner->queued = false;
}

/* is_at_rest() - nothing of it runs, and nothing is about to. */
static bool is_at_rest(const Runner *runner) {
        return (runner->state == POLICY_DOWN || runner->state == POLICY_DONE || runner->state == POLICY_FAILED) &&
               (!runner->instance || runner->instance->over) && !runner->past && !runner->upgrade && !runner->queued;
}

static void handle_raised(LoopTask *task) {
        Supervisor *supervisor = CONTAINER_OF(task, Supervisor, policy);
        Runner *runner;

        while ((runner = TAILQ_FIRST(&supervisor->raised))) {
                supervisor_unqueue_runner(supervisor, runner);
                runner_handle(runner);
                if (!is_at_rest(runner))
                        continue;
                if (runner->transient)
                        transient_settled(runner);
                else if (runner->removed || runner->hidden)
                        runner_forget(runner);
        }
}

/* ------------------------------------------------------------------------------------------------------ making processes */

/* How many are prepared at once: what they ask of the keeper fits into its window, and their descriptors are few. */
#define PREPARED_MAX 16u

/* After so many starts, when no more are to come, the pages that they needed are given back. */
#define MANY_STARTS 200u

void supervisor_queue_begin(Supervisor *supervisor, Instance *instance) {
        TAILQ_INSERT_TAIL(&supervisor->to_begin, instance, link);
        instance->waiting = true;
        loop_task_queue(supervisor->loop, &supervisor->spawn);
}

void supervisor_begin_now(Supervisor *supervisor, Instance *instance) {
        if (!instance->waiting)
                return;
        TAILQ_REMOVE(&supervisor->to_begin, instance, link);
        instance->waiting = false;
        instance_start(instance);
}

void supervisor_queue_spawn(Supervisor *supervisor, Instance *instance) {
        TAILQ_INSERT_TAIL(&supervisor->to_spawn, instance, link);
        supervisor->n_to_spawn++;
        instance->queued = true;
        loop_task_queue(supervisor->loop, &supervisor->spawn);
}

void supervisor_unqueue_spawn(Supervisor *supervisor, Instance *instance) {
        if (instance->waiting) {
                TAILQ_REMOVE(&supervisor->to_begin, instance, link);
                instance->waiting = false;
        }
        if (!instance->queued)
                return;
        TAILQ_REMOVE(&supervisor->to_spawn, instance, link);
        supervisor->n_to_spawn--;
        instance->queued = false;
        if (!TAILQ_EMPTY(&supervisor->to_begin))
                loop_task_queue(supervisor->loop, &supervisor->spawn);
}

/* spawn_queued() - what is prepared becomes processes, then as many more are prepared, whose turn comes with the next call. */
static void spawn_queued(LoopTask *task) {
        Supervisor *supervisor = CONTAINER_OF(task, Supervisor, spawn);
        Instance *instance;

        while (keeper_link_idle(supervisor->link) && (instance = TAILQ_FIRST(&supervisor->to_spawn))) {
                supervisor_unqueue_spawn(supervisor, instance);
                instance_spawn(instance);
                supervisor->n_spawned++;
        }
        while (!supervisor->held && supervisor->n_to_spawn < PREPARED_MAX &&
               (instance = TAILQ_FIRST(&supervisor->to_begin)) && !holder_must_wait(supervisor->holder, instance))
                supervisor_begin_now(supervisor, instance);
        if (supervisor->n_spawned < MANY_STARTS || !TAILQ_EMPTY(&supervisor->to_begin) ||
            !TAILQ_EMPTY(&supervisor->to_spawn))
                return;
        supervisor->n_spawned = 0;
        pages_forget();
}

/* -------------------------------------------------------------------------------------------------------------- at rest */

/* One answer of the keeper's leads to the next request a few times: an end to DROPs, and these to the next start. */
enum { REST_TURNS_MAX = 16, REST_US = 50000 };

int supervisor_rest(Supervisor *supervisor) {
        uint64_t deadline = clock_after(clock_now(), REST_US);

        supervisor->held = true;
        for (unsigned i = 0; i < REST_TURNS_MAX; i++) {
                int r;

                leftovers_look(&supervisor->leftovers); /* which answers stops: that is sent by a task */
                loop_run_tasks(supervisor->loop);
                if (supervisor->leftovers.n > 0)
                        continue;
                if (keeper_link_settled(supervisor->link) && TAILQ_EMPTY(&supervisor->to_spawn) &&
                    TAILQ_EMPTY(&supervisor->raised))
                        return 0;
                r = keeper_link_settle(supervisor->link, deadline);
                if (r < 0)
                        return r;
        }
        return -EAGAIN;
}

void supervisor_go_on(Supervisor *supervisor) {
        supervisor->held = false;
        if (!TAILQ_EMPTY(&supervisor->to_begin))
                loop_task_queue(supervisor->loop, &supervisor->spawn);
}

void supervisor_release(Supervisor *supervisor) {
        supervisor_go_on(supervisor);
        checkpoint_wake_all(supervisor);
}

/* ----------------------------------------------------------------------------------------------------------- the keeper */

static void link_exited(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        Supervisor *supervisor = userdata;
        Instance *instance = supervisor_find_instance(supervisor, exit->instance);

        if (instance) {
                instance_exited(instance, exit_status_from_wait(exit->code, exit->status));
                return;
        }
        log_warning("the keeper reports the exit of pid %d, instance %" PRIx64 ", which is not known here", exit->pid,
                    exit->instance);
        (void) keeper_link_ack(link, exit->instance);
}

static void link_idle(KeeperLink *link, void *userdata) {
        Supervisor *supervisor = userdata;

        (void) link;
        if (!TAILQ_EMPTY(&supervisor->to_spawn))
                loop_task_queue(supervisor->loop, &supervisor->spawn);
        if (supervisor->stopping)
                loop_task_queue(supervisor->loop, &supervisor->down);
}

static void link_closed(KeeperLink *link, void *userdata) {
        Supervisor *supervisor = userdata;

        (void) link;
        if (!supervisor->told_keeper) {
                log_error("the keeper is gone: ending");
                supervisor->exit_status = EXIT_FAILURE;
        }
        loop_stop(supervisor->loop);
}

static void link_slot(KeeperLink *link, const KeeperSlot *slot, int pidfd_consume, void *userdata) {
        (void) link;
        daemon_slot(((Supervisor *) userdata)->daemon, slot, pidfd_consume);
}

static void link_stored(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume,
                        void *userdata) {
        (void) link;
        daemon_stored(((Supervisor *) userdata)->daemon, instance, kind, tag, fd_consume);
}

static void link_reload(KeeperLink *link, void *userdata) {
        (void) link;
        reload_by_signal(userdata);
}

static void link_gone(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, void *userdata) {
        (void) link;
        daemon_gone(((Supervisor *) userdata)->daemon, instance, kind, tag);
}

static void link_loaded(KeeperLink *link, bool is_final, void *userdata) {
        Supervisor *supervisor = userdata;

        (void) link;
        if (supervisor->successor)
                successor_loaded(supervisor->successor, is_final);
        else
                daemon_loaded(supervisor->daemon);
}

static void link_died(KeeperLink *link, const KeeperDeath *death, void *userdata) {
        (void) link;
        takeovers_died(((Supervisor *) userdata)->takeovers, death);
}

static void link_replaced(KeeperLink *link, int result, const char *text, void *userdata) {
        (void) link;
        control_keeper_replaced(userdata, result, text);
}

static void link_go(KeeperLink *link, void *userdata) {
        Supervisor *supervisor = userdata;

        (void) link;
        if (supervisor->successor)
                successor_go(supervisor->successor);
}

static const KeeperLinkHandlers link_handlers = {
        .exited = link_exited,
        .idle = link_idle,
        .closed = link_closed,
        .slot = link_slot,
        .stored = link_stored,
        .gone = link_gone,
        .loaded = link_loaded,
        .reload = link_reload,
        .go = link_go,
        .replaced = link_replaced,
        .died = link_died,
};

/* ---------------------------------------------------------------------------------------------------------- the way down */

/* The loop ends when SHUTDOWN is in the kernel, so that the keeper reads it before our end. */
static void go_down(LoopTask *task) {
        Supervisor *supervisor = CONTAINER_OF(task, Supervisor, down);

        if (supervisor->instances)
                return;
        if (!supervisor->told_keeper) {
                supervisor->told_keeper = true;
                (void) keeper_link_shutdown(supervisor->link, supervisor->exit_status);
        }
        if (keeper_link_idle(supervisor->link))
                loop_stop(supervisor->loop);
}

uint64_t supervisor_bound(const Supervisor *supervisor, uint64_t timeout_us) {
        uint64_t now = clock_now();

        if (!supervisor->stopping)
                return timeout_us;
        return MIN(timeout_us, supervisor->stop_deadline > now ? supervisor->stop_deadline - now : 1);
}

/* Those too that still wait for others to go first. */
static void last_call(LoopTimer *timer) {
        Supervisor *supervisor = CONTAINER_OF(timer, Supervisor, last_call);
        Instance *instance, *next;

        HASH_ITER (by_id, supervisor->instances, instance, next)
                instance_stop(instance, 1);
}

void supervisor_stop(Supervisor *supervisor, const char *why) {
        Runner *runner, *next;

        if (supervisor->stopping)
                return;
        log_info("%s: stopping", why);
        leftovers_look(&supervisor->leftovers);
        takeover_cancel(supervisor->takeover, "everything is being stopped");
        events_publish(supervisor->events, &(Event){ .kind = EVENT_SUPERVISOR_STOPPING, .text = why });
        /* What is left of the time is for the keeper's answers. */
        supervisor->stop_deadline =
                clock_after(clock_now(), supervisor->stop_timeout_us - supervisor->stop_timeout_us / 8);
        loop_timer_set(supervisor->loop, &supervisor->last_call, supervisor->stop_deadline);
        HASH_ITER (by_name, supervisor->runners, runner, next)
                runner_stop(runner, 0);
        hooks_stop(supervisor->hooks);
        supervisor->stopping = true;
        loop_task_queue(supervisor->loop, &supervisor->down);
}

static void signalled(LoopSignal *signal) {
        Supervisor *supervisor = CONTAINER_OF(signal, SupervisorSignal, watcher)->supervisor;

        if (supervisor->begun)
                supervisor_stop(supervisor, sigdescr_np(signal->signal));
        else
                supervisor->stop_early = true;
}

/* --------------------------------------------------------------------------------------------------------------- itself */

static const int stop_signals[] = { SIGTERM, SIGINT, SIGHUP };

/* watch_signals() - one that the keeper sent before is heard now: it had them blocked for us. */
static void watch_signals(Supervisor *supervisor, bool is_daemon) {
        sigset_t stops;

        /* On a terminal they reach all of the foreground group; the keeper decides what they mean. */
        if (is_daemon) {
                (void) signal(SIGINT, SIG_IGN);
                (void) signal(SIGHUP, SIG_IGN);
        }
        static_assert(ARRAY_SIZE(stop_signals) == ARRAY_SIZE(supervisor->signals), "a watcher for each");
        for (size_t i = 0; i < ARRAY_SIZE(stop_signals); i++) {
                supervisor->signals[i] = (SupervisorSignal){ LOOP_SIGNAL_NULL(signalled), supervisor };
                if (is_daemon && stop_signals[i] != SIGTERM)
                        continue;
                loop_signal_start(supervisor->loop, &supervisor->signals[i].watcher, stop_signals[i]);
        }
        (void) sigemptyset(&stops);
        for (size_t i = 0; i < ARRAY_SIZE(stop_signals); i++)
                (void) sigaddset(&stops, stop_signals[i]);
        (void) sigprocmask(SIG_UNBLOCK, &stops, NULL);
}

static void init(Supervisor *supervisor, const SupervisorOptions *options) {
        supervisor->generation = options->generation;
        supervisor->started_us = clock_now();
        supervisor->followed = options->runtime_dir;
        supervisor->stop_timeout_us = options->stop_timeout_us;
        supervisor->has_nofile = options->nofile;
        if (options->nofile)
                supervisor->nofile = *options->nofile;
        supervisor->spawn = LOOP_TASK_NULL(spawn_queued);
        supervisor->down = LOOP_TASK_NULL(go_down);
        supervisor->policy = LOOP_TASK_NULL(handle_raised);
        supervisor->last_call = LOOP_TIMER_NULL(last_call);
        TAILQ_INIT(&supervisor->to_begin);
        TAILQ_INIT(&supervisor->to_spawn);
        TAILQ_INIT(&supervisor->raised);
        TAILQ_INIT(&supervisor->groups);
        LIST_INIT(&supervisor->relays);
        LIST_INIT(&supervisor->crossings);
        LIST_INIT(&supervisor->scaled);
        transients_init(&supervisor->transients);
        leftovers_init(&supervisor->leftovers);
        precopy_init(&supervisor->precopy);
}

static void logs_dropped(void *userdata, const char *name, uint64_t n) {
        Supervisor *supervisor = userdata;

        events_publish(supervisor->events, &(Event){ .kind = EVENT_LOGS_DROPPED, .runner = name, .number = n });
}

int supervisor_new(Supervisor **ret_supervisor, const SupervisorOptions *options) {
        _cleanup_fd_ int keeper = options->keeper_fd_consume, lane = options->private_fd_consume;
        _cleanup_fd_ int handover = options->runtime_dir ? options->handover_fd_consume : -1;
        _cleanup_(supervisor_freep) Supervisor *supervisor = calloc(1, sizeof(*supervisor));
        int r;

        step_note("supervisor", "begin", 0);
        if (!supervisor)
                return -ENOMEM;
        init(supervisor, options);
        supervisor->boot_template = bootstrap_template(options->runtime_dir);
        if (!supervisor->boot_template)
                return -ENOMEM;
        r = loop_new(&supervisor->loop);
        if (r == 0)
                r = events_new(&supervisor->events, supervisor->loop);
        if (r == 0)
                r = schedules_new(&supervisor->schedules, supervisor->loop);
        if (r == 0)
                r = hooks_new(&supervisor->hooks, supervisor);
        if (r == 0)
                r = keeper_link_new(&supervisor->link, supervisor->loop, fd_take(&keeper), &link_handlers, supervisor);
        /* A private one's runners do not outlive it. */
        if (r == 0)
                r = takeovers_new(&supervisor->takeovers, lane < 0 ? supervisor->link : NULL, supervisor->events);
        if (r == 0)
                r = chronicle_new(&supervisor->chronicle, supervisor);
        if (r == 0)
                r = log_store_new(&supervisor->logs, supervisor->loop, lane < 0 ? supervisor->link : NULL);
        if (r == 0 && lane >= 0)
                log_store_trust_follower(supervisor->logs);
        if (r == 0)
                r = holder_new(&supervisor->holder, supervisor);
        if (r == 0) {
                log_store_on_dropped(supervisor->logs, logs_dropped, supervisor);
                r = daemon_new(&supervisor->daemon, supervisor, options);
        }
        if (r == 0 && handover >= 0)
                r = successor_new(&supervisor->successor, supervisor, fd_take(&handover));
        if (r == 0 && lane >= 0)
                r = control_new_private(&supervisor->control, supervisor, fd_take(&lane));
        if (r < 0)
                return r;
        watch_signals(supervisor, options->runtime_dir);
        *ret_supervisor = TAKE_PTR(supervisor);
        return 0;
}

static void free_runners(Supervisor *supervisor) {
        Runner *runner, *next;

        for (runner = runner_first(supervisor); runner; runner = runner_next(runner))
                runner_forget_links(runner);
        HASH_ITER (by_name, supervisor->runners, runner, next) {
                HASH_DELETE(by_name, supervisor->runners, runner);
                runner_tell(runner, RUNNER_OUTCOME_GONE);
                runner_free(runner);
        }
}

Supervisor *supervisor_free(Supervisor *supervisor) {
        if (!supervisor)
                return NULL;
        supervisor->takeover = takeover_free(supervisor->takeover);
        supervisor->replacement = control_keeper_free(supervisor->replacement);
        supervisor->successor = successor_free(supervisor->successor);
        supervisor->retired = successor_free(supervisor->retired);
        supervisor->listener = listener_free(supervisor->listener);
        supervisor->metrics = metrics_free(supervisor->metrics);
        supervisor->control = control_free(supervisor->control);
        groups_free(supervisor);
        scaled_free(supervisor);
        HASH_CLEAR(by_id, supervisor->instances);
        supervisor->hooks = hooks_free(supervisor->hooks);
        free_runners(supervisor);
        supervisor->config = config_unref(supervisor->config);
        supervisor->config_paths = config_paths_free(supervisor->config_paths);
        supervisor->schedules = schedules_free(supervisor->schedules);
        leftovers_deinit(&supervisor->leftovers);
        loop_timer_stop(&supervisor->last_call);
        loop_task_cancel(&supervisor->policy);
        loop_task_cancel(&supervisor->spawn);
        loop_task_cancel(&supervisor->down);
        for (size_t i = 0; i < ARRAY_SIZE(supervisor->signals); i++)
                loop_signal_stop(&supervisor->signals[i].watcher);
        supervisor->logs = log_store_free(supervisor->logs);
        supervisor->holder = holder_free(supervisor->holder);
        supervisor->cgroups = cgroup_tree_free(supervisor->cgroups);
        supervisor->daemon = daemon_free(supervisor->daemon);
        supervisor->takeovers = takeovers_free(supervisor->takeovers);
        supervisor->chronicle = chronicle_free(supervisor->chronicle);
        supervisor->link = keeper_link_free(supervisor->link);
        supervisor->events = events_free(supervisor->events);
        supervisor->loop = loop_free(supervisor->loop);
        free(supervisor->boot_template);
        unknown_free(supervisor->unknown);
        free(supervisor);
        return NULL;
}

int supervisor_run(Supervisor *supervisor) {
        if (supervisor->successor)
                successor_wait(supervisor->successor);
        loop_run(supervisor->loop);
        return supervisor->exit_status;
}

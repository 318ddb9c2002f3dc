/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Supervisor: what belongs to no single runner. It owns the loop, the link to the keeper and every runner. A runner that
 * is not ended is found by its name and by its instance; an ended one by its name only, until a new one takes the name or
 * SUPERVISOR_ENDED_MAX later ones have ended: whoever follows its log, or stops it once more, still finds it.
 *
 * Processes are made from one queue, only while everything sent to the keeper is in the kernel: a child's BORN must come
 * behind its RESERVE. One process is made at a time; clone() waits for the exec.
 *
 * The way down is one for all reasons (the client's lane ended, SIGTERM from the keeper): stop what runs, give each the
 * time there is, then tell the keeper, which ends us with everything that may be left. Without a keeper there is nothing
 * to be told and nobody to report exits: the loop ends at once.
 */

#include "supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/control.h"
#include "supervisor/daemon.h"
#include "supervisor/log-store.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"

/* ---------------------------------------------------------------------------------------------------- the runners' table */

bool supervisor_name_is_valid(const char *name) {
        size_t n = strlen(name);

        return n > 0 && n < INSTANCE_NAME_SIZE && strspn(name, NAME_CHARACTERS) == n;
}

Instance *supervisor_find(const Supervisor *supervisor, const char *name) {
        Instance *instance;

        HASH_FIND(by_name, supervisor->by_name, name, strlen(name), instance);
        return instance;
}

Instance *supervisor_find_instance(const Supervisor *supervisor, uint64_t id) {
        Instance *instance;

        HASH_FIND(by_id, supervisor->by_id, &id, sizeof(id), instance);
        return instance;
}

/* forget_ended() - of one in the queue of the ended. */
static void forget_ended(Supervisor *supervisor, Instance *instance) {
        TAILQ_REMOVE(&supervisor->ended, instance, link);
        supervisor->n_ended--;
        HASH_DELETE(by_name, supervisor->by_name, instance);
        instance_free(instance);
}

static int add(Supervisor *supervisor, Instance *instance) {
        HASH_ADD(by_name, supervisor->by_name, spec.name, strlen(instance->spec.name), instance);
        if (!instance->by_name.tbl)
                return -ENOMEM;
        HASH_ADD(by_id, supervisor->by_id, id, sizeof(instance->id), instance);
        if (!instance->by_id.tbl) {
                HASH_DELETE(by_name, supervisor->by_name, instance);
                return -ENOMEM;
        }
        supervisor->n_live++;
        return 0;
}

void supervisor_runner_gone(Supervisor *supervisor, Instance *instance, bool remember) {
        HASH_DELETE(by_id, supervisor->by_id, instance);
        supervisor->n_live--;
        if (remember) {
                TAILQ_INSERT_TAIL(&supervisor->ended, instance, link);
                supervisor->n_ended++;
        } else {
                HASH_DELETE(by_name, supervisor->by_name, instance);
                instance_free(instance);
        }
        while (supervisor->n_ended > SUPERVISOR_ENDED_MAX)
                forget_ended(supervisor, TAILQ_FIRST(&supervisor->ended));
        if (supervisor->stopping)
                loop_task_queue(supervisor->loop, &supervisor->down);
}

/* derive_name() - "echo.1" from /usr/bin/echo, the first number that is free. */
static void derive_name(const Supervisor *supervisor, InstanceSpec *spec) {
        const char *slash = strrchr(spec->program, '/'), *base = slash ? slash + 1 : spec->program;
        char clean[40];
        size_t n = 0;

        for (; base[n] && n < sizeof(clean) - 1; n++)
                clean[n] = strchr(NAME_CHARACTERS, base[n]) ? base[n] : '_';
        clean[n] = '\0';
        for (unsigned i = 1; i == 1 || supervisor_find(supervisor, spec->name); i++)
                (void) snprintf(spec->name, sizeof(spec->name), "%s.%u", n ? clean : "runner", i);
}

int supervisor_start(Supervisor *supervisor, InstanceSpec *spec, InstanceStarted started, void *userdata,
                     Instance **ret_instance) {
        Instance *instance, *before;
        int r = 0;

        if (!*spec->name)
                derive_name(supervisor, spec);
        before = supervisor_find(supervisor, spec->name);
        if (supervisor->stopping)
                r = -ESHUTDOWN;
        else if (before && !before->over)
                r = -EEXIST;
        if (r < 0) {
                instance_spec_deinit(spec);
                return r;
        }
        r = instance_new(&instance, supervisor, spec, (uint64_t) supervisor->generation << 32 | ++supervisor->last_n);
        if (r < 0)
                return r;
        if (before)
                forget_ended(supervisor, before);
        r = add(supervisor, instance);
        if (r < 0) {
                instance_free(instance);
                return r;
        }
        *ret_instance = instance;
        instance_start(instance, started, userdata);
        return 0;
}

/* ------------------------------------------------------------------------------------------------------ making processes */

void supervisor_queue_spawn(Supervisor *supervisor, Instance *instance) {
        TAILQ_INSERT_TAIL(&supervisor->to_spawn, instance, link);
        instance->queued = true;
        loop_task_queue(supervisor->loop, &supervisor->spawn);
}

void supervisor_unqueue_spawn(Supervisor *supervisor, Instance *instance) {
        if (!instance->queued)
                return;
        TAILQ_REMOVE(&supervisor->to_spawn, instance, link);
        instance->queued = false;
}

static void spawn_queued(LoopTask *task) {
        Supervisor *supervisor = CONTAINER_OF(task, Supervisor, spawn);
        Instance *instance;

        while (keeper_link_idle(supervisor->link) && (instance = TAILQ_FIRST(&supervisor->to_spawn))) {
                supervisor_unqueue_spawn(supervisor, instance);
                instance_spawn(instance);
        }
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

static void link_loaded(KeeperLink *link, void *userdata) {
        (void) link;
        daemon_loaded(((Supervisor *) userdata)->daemon);
}

static const KeeperLinkHandlers link_handlers = {
        .exited = link_exited,
        .idle = link_idle,
        .closed = link_closed,
        .slot = link_slot,
        .stored = link_stored,
        .loaded = link_loaded,
};

/* ---------------------------------------------------------------------------------------------------------- the way down */

/* The loop ends when SHUTDOWN is in the kernel, so that the keeper reads it before our end. */
static void go_down(LoopTask *task) {
        Supervisor *supervisor = CONTAINER_OF(task, Supervisor, down);

        if (supervisor->n_live > 0)
                return;
        if (!supervisor->told_keeper) {
                supervisor->told_keeper = true;
                (void) keeper_link_shutdown(supervisor->link, supervisor->exit_status);
        }
        if (keeper_link_idle(supervisor->link))
                loop_stop(supervisor->loop);
}

void supervisor_stop(Supervisor *supervisor, const char *why) {
        Instance *instance, *next;

        if (supervisor->stopping)
                return;
        log_info("%s: stopping", why);
        supervisor->stopping = true;
        /* What is left of the time is for the keeper's answers. */
        HASH_ITER (by_id, supervisor->by_id, instance, next)
                instance_stop(instance, supervisor->stop_timeout_us - supervisor->stop_timeout_us / 8);
        loop_task_queue(supervisor->loop, &supervisor->down);
}

static void signalled(LoopSignal *signal) {
        Supervisor *supervisor = CONTAINER_OF(signal, SupervisorSignal, watcher)->supervisor;

        supervisor_stop(supervisor, sigdescr_np(signal->signal));
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
        supervisor->stop_timeout_us = options->stop_timeout_us;
        supervisor->has_nofile = options->nofile;
        if (options->nofile)
                supervisor->nofile = *options->nofile;
        supervisor->spawn = LOOP_TASK_NULL(spawn_queued);
        supervisor->down = LOOP_TASK_NULL(go_down);
        TAILQ_INIT(&supervisor->to_spawn);
        TAILQ_INIT(&supervisor->ended);
}

int supervisor_new(Supervisor **ret_supervisor, const SupervisorOptions *options) {
        _cleanup_fd_ int keeper = options->keeper_fd_consume, lane = options->private_fd_consume;
        _cleanup_(supervisor_freep) Supervisor *supervisor = calloc(1, sizeof(*supervisor));
        int r;

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
                r = keeper_link_new(&supervisor->link, supervisor->loop, fd_take(&keeper), &link_handlers, supervisor);
        /* A private one's runners do not outlive it. */
        if (r == 0)
                r = log_store_new(&supervisor->logs, supervisor->loop, lane < 0 ? supervisor->link : NULL);
        if (r == 0)
                r = daemon_new(&supervisor->daemon, supervisor, options);
        if (r == 0 && lane >= 0)
                r = control_new_private(&supervisor->control, supervisor, fd_take(&lane));
        if (r < 0)
                return r;
        watch_signals(supervisor, options->runtime_dir);
        *ret_supervisor = TAKE_PTR(supervisor);
        return 0;
}

Supervisor *supervisor_free(Supervisor *supervisor) {
        Instance *instance, *next;

        if (!supervisor)
                return NULL;
        supervisor->listener = listener_free(supervisor->listener);
        supervisor->control = control_free(supervisor->control);
        HASH_CLEAR(by_id, supervisor->by_id);
        HASH_ITER (by_name, supervisor->by_name, instance, next) {
                HASH_DELETE(by_name, supervisor->by_name, instance);
                supervisor_unqueue_spawn(supervisor, instance);
                instance_free(instance);
        }
        loop_task_cancel(&supervisor->spawn);
        loop_task_cancel(&supervisor->down);
        for (size_t i = 0; i < ARRAY_SIZE(supervisor->signals); i++)
                loop_signal_stop(&supervisor->signals[i].watcher);
        supervisor->logs = log_store_free(supervisor->logs);
        supervisor->daemon = daemon_free(supervisor->daemon);
        supervisor->link = keeper_link_free(supervisor->link);
        supervisor->events = events_free(supervisor->events);
        supervisor->loop = loop_free(supervisor->loop);
        free(supervisor->boot_template);
        free(supervisor);
        return NULL;
}

int supervisor_run(Supervisor *supervisor) {
        loop_run(supervisor->loop);
        return supervisor->exit_status;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, saved and restored. It is saved when nothing is raised and not handled (supervisor_rest()), so that what is written
 * down is state and never an event. An instance is one of these:
 * - over: it is kept for what it said last, and has nothing but facts.
 * - ended, but its connection is still read, or descriptors are on their way out: written down as one that has not ended.
 *   Its slot in the keeper was not acknowledged, so that its exit is reported once more and buried there.
 * - waiting for its turn to begin: nothing is made of it, and it waits in the successor.
 * - anything else has a slot in the keeper's table, and was adopted by it when it is restored here.
 */

#include "supervisor/runner-save.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/config-save.h"
#include "supervisor/instance-internal.h"
#include "supervisor/leftovers.h"
#include "supervisor/runner-internal.h"
#include "supervisor/save.h"
#include "supervisor/schedule.h"
#include "supervisor/unknown.h"
#include "supervisor/upgrade-history.h"

typedef Baton__Snapshot__Runner RunnerMessage;
typedef Baton__Snapshot__Start StartMessage;

/* ------------------------------------------------------------------------------------------------------------- saving */

void runner_exit_save(const RunnerExit *exit, Baton__Snapshot__Exit *to) {
        to->instance = exit->instance;
        to->started_us = exit->started_us;
        to->ended_us = exit->ended_us;
        to->uptime_us = exit->uptime_us;
        to->pid = exit->pid;
        to->cause = exit->cause;
        to->success = exit->success;
        to->killed = exit->killed;
        to->how = exit->exit.how;
        to->status = exit->exit.status;
}

static void save_exits(Save *save, const Runner *runner, RunnerMessage *message) {
        message->exits = save_array(save, runner->n_exits, sizeof(*message->exits));
        for (unsigned i = runner->n_exits; message->exits && i > 0; i--) {
                const RunnerExit *exit = runner_exit(runner, i - 1);
                Baton__Snapshot__Exit *to = save_message(save, &baton__snapshot__exit__descriptor);

                if (!to)
                        return;
                message->exits[message->n_exits++] = to;
                runner_exit_save(exit, to);
        }
}

static void save_configuration(Save *save, const RunnerConfig *config, Baton__Snapshot__RunnerConfig **to) {
        if (save->error == 0)
                save->error = runner_config_save(config, to);
}

static StartMessage *save_start(Save *save, const Instance *instance) {
        StartMessage *message = save_message(save, &baton__snapshot__start__descriptor);

        if (!message)
                return NULL;
        message->id = instance->id;
        message->state = instance->state;
        message->stop = instance->stop;
        message->cause = instance->cause;
        message->failure = instance->failure;
        message->waiting = instance->waiting;
        message->over = instance->over;
        message->ended = instance->ended;
        message->connected = instance->peer != NULL;
        message->was_up = instance->was_up;
        message->killed = instance->killed;
        message->broke_rules = instance->broke_rules;
        message->how = instance->exit.how;
        message->status = instance->exit.status;
        message->pid = instance->last_pid;
        message->started_us = instance->started_us;
        message->started_wall_us = instance->started_wall_us;
        message->ended_us = instance->ended_us;
        message->alive_us = instance->alive_us;
        message->stop_deadline_us = instance->stop_deadline;
        message->timer_us = loop_timer_deadline(&instance->timer);
        message->reloading = instance->reloading;
        message->leaving = instance->leaving;
        message->recovers = instance->recovers;
        message->broken_off = instance->broken_off;
        message->main_pid = instance->main_pid;
        message->said_errno = instance->said_errno;
        message->watchdog_us = instance->watchdog_us;
        message->extended_us = instance->extended_us;
        message->reloading_us = instance->reloading_us;
        save_text(save, &message->lost, instance->lost);
        save_text(save, &message->failure_text, instance->failure_text);
        if (instance->config != instance->runner->config && !instance->over)
                save_configuration(save, instance->config, &message->configuration);
        return message;
}

/* terminal_name() - of one that has no process yet. */
static void terminal_name(char name[64], uint64_t instance) {
        (void) snprintf(name, 64, "instance/%" PRIx64 "/terminal", instance);
}

/* program_name() - of what the next process of a runner executes, in place of the file at its path. */
static void program_name(char name[64 + CONFIG_NAME_MAX], const char *runner) {
        (void) snprintf(name, 64 + CONFIG_NAME_MAX, "runner/%s/program", runner);
}

int runner_next_program(const Runner *runner) {
        const Instance *instance = runner->instance;

        return runner->program_fd < 0 && instance && instance->waiting ? instance->program_fd : runner->program_fd;
}

/* restore_program() - whoever is next has it. */
static void restore_program(Runner *runner, Manifest *manifest) {
        Instance *instance = runner->instance;
        int *fd = instance && instance->waiting ? &instance->program_fd : &runner->program_fd;
        char name[64 + CONFIG_NAME_MAX];

        if (!manifest)
                return;
        program_name(name, runner->name);
        fd_close(*fd);
        *fd = manifest_take(manifest, name);
}

/* is_configured() - the configuration that holds has it as it is. */
static bool is_configured(const Runner *runner) {
        const Config *config = runner->supervisor->config;

        return config && config_find(config, runner->config->name) == runner->config;
}

static void save_state(Save *save, const Runner *runner, RunnerMessage *message) {
        LogCrossing log = runner_log_crossing(runner->log);

        message->number = runner->number;
        message->state = runner->state;
        message->desired = runner->desired;
        message->unmet = runner->unmet;
        message->completed = runner->completed;
        message->removed = runner->removed;
        message->transient = runner->transient;
        message->ended = runner->ended;
        message->holding = runner->holding;
        message->log_over = log.over;
        message->log_given = log.given;
        message->log_follow_us = log.follow_us;
        message->log_lost = log.lost;
        message->last_instance = runner->last_instance;
        message->stop_timeout_us = runner->stop_timeout_us;
        message->changed_us = runner->changed_us;
        message->up_us = runner->up_us;
        message->next_us = runner->next_us;
        message->begun_us = runner->begun_us;
        message->starts = runner->n_starts;
        message->restarts = runner->n_restarts;
        message->failovers = runner->n_failovers;
        message->failures = runner->n_failures;
        message->timer_us = runner->timer ? loop_timer_deadline(&runner->timer->timer) : 0;
        save_text(save, &message->name, runner->name);
        save_text(save, &message->why, runner->why);
        save_text(save, &message->status, runner->status);
        save_texts(save, &message->leftovers, &message->n_leftovers, (const char *const *) runner->leftovers);
}

int runner_save(const Runner *runner, Manifest *manifest, Baton__Snapshot__Runner **ret_message) {
        Save save = { 0 };
        RunnerMessage *message = save_message(&save, &baton__snapshot__runner__descriptor);
        char name[64], program[64 + CONFIG_NAME_MAX];

        if (!message)
                return -ENOMEM;
        if (unknown_add(runner->unknown, &message->base) < 0)
                save.error = -ENOMEM;
        save_state(&save, runner, message);
        window_save(&save, &runner->window, &message->window);
        save_exits(&save, runner, message);
        message->upgrades = upgrade_history_save(&save, runner->upgrades, 0);
        if (!runner->hidden && !is_configured(runner))
                save_configuration(&save, runner->config, &message->configuration);
        if (runner->instance)
                message->start = save_start(&save, runner->instance);
        if (runner->instance && runner->terminal_fd >= 0 && save.error == 0) {
                terminal_name(name, runner->instance->id);
                save.error = manifest_add(manifest, name, runner->terminal_fd);
        }
        if (runner_next_program(runner) >= 0 && save.error == 0) {
                program_name(program, runner->name);
                save.error = manifest_add(manifest, program, runner_next_program(runner));
        }
        return save_done(&save, message, ret_message);
}

/* ------------------------------------------------------------------------------------------------ an instance, restored */

/* use_configuration() - it was started with another one than its runner has now. */
static void use_configuration(Instance *instance, const StartMessage *message) {
        RunnerConfig *config = NULL;

        if (!message->configuration || runner_config_restore(message->configuration, &config) < 0)
                config = runner_config_ref(instance->runner->config);
        runner_config_unref(instance->config);
        instance->config = config;
}

void runner_cross_configuration(Instance *instance) {
        const RunnerMessage *message = instance->runner->crossed;

        if (message && message->start && message->start->id == instance->id)
                use_configuration(instance, message->start);
}

static void restore_text(char **to, const char *from) {
        free(*to);
        *to = restored_text(from);
}

static void restore_facts(Instance *instance, const StartMessage *message) {
        instance->stop = (InstanceStop) restored_number(message->stop, _INSTANCE_STOP_N, INSTANCE_STOP_NONE);
        instance->cause = (RunnerCause) restored_number(message->cause, _RUNNER_CAUSE_N, RUNNER_CAUSE_LOST);
        instance->failure =
                (InstanceFailure) restored_number(message->failure, _INSTANCE_FAILURE_N, INSTANCE_FAILURE_SYSTEM);
        instance->was_up = message->was_up;
        instance->killed = message->killed;
        instance->broke_rules = message->broke_rules;
        instance->last_pid = message->pid;
        instance->started_us = message->started_us;
        instance->started_wall_us = message->started_wall_us;
        instance->alive_us = message->alive_us;
        instance->stop_deadline = message->stop_deadline_us;
        instance->reloading = message->reloading;
        instance->leaving = message->leaving;
        instance->recovers = message->recovers;
        instance->broken_off = message->broken_off;
        instance->main_pid = message->main_pid;
        instance->said_errno = message->said_errno;
        instance->watchdog_us = message->watchdog_us;
        instance->extended_us = message->extended_us;
        instance->reloading_us = message->reloading_us;
        restore_text(&instance->lost, message->lost);
        restore_text(&instance->failure_text, message->failure_text);
}

/* make_over() - in no table, without anything but what it was. */
static void make_over(Runner *runner, const StartMessage *message) {
        Instance *instance;

        if (runner->instance || instance_new(&instance, runner, message->id) < 0)
                return;
        restore_facts(instance, message);
        use_configuration(instance, message);
        instance->state = PROCESS_DOWN;
        instance->ended = instance->over = true;
        instance->ended_us = message->ended_us;
        instance->exit = (ExitStatus){
                (ExitHow) restored_number(message->how, _EXIT_HOW_N, EXIT_LOST),
                message->status,
        };
        runner->instance = instance;
}

/* make_waiting() - in the queue of those to begin. False: no memory, or there is one of that number. */
static bool make_waiting(Runner *runner, const StartMessage *message, Manifest *manifest) {
        Supervisor *supervisor = runner->supervisor;
        char name[64];
        Instance *instance;

        if (supervisor_find_instance(supervisor, message->id) || instance_new(&instance, runner, message->id) < 0)
                return false;
        if (supervisor_add_instance(supervisor, instance) < 0) {
                instance_free(instance);
                return false;
        }
        terminal_name(name, message->id);
        fd_close(runner->terminal_fd);
        runner->terminal_fd = manifest_take(manifest, name);
        runner->instance = instance;
        use_configuration(instance, message);
        supervisor_queue_begin(supervisor, instance);
        return true;
}

/* restore_adopted() - what has a slot in the keeper. */
static void restore_adopted(Instance *instance, const StartMessage *message) {
        ProcessState state = (ProcessState) restored_number(message->state, _PROCESS_STATE_N, PROCESS_STOPPING);

        restore_facts(instance, message);
        instance_settle_main(instance);
        use_configuration(instance, message);
        instance->state = state == PROCESS_DOWN ? PROCESS_STOPPING : state;
        if (!message->connected && instance->peer) { /* its connection has ended since that was told of */
                instance->peer = peer_free(instance->peer);
                instance_drop(instance, INSTANCE_STORED_LANE, fd_take(&instance->lane));
        }
        if (message->timer_us && !message->ended)
                loop_timer_set(instance->supervisor->loop, &instance->timer, message->timer_us);
        else
                loop_timer_stop(&instance->timer);
}

/* restore_start() - false: the instance that there should be is not. */
static bool restore_start(Runner *runner, const StartMessage *message, Manifest *manifest) {
        Instance *instance = runner->instance;
        bool is_there = instance && instance->id == message->id;

        if (instance && !is_there)
                return false;
        if (message->over)
                make_over(runner, message);
        else if (is_there && !instance->waiting)
                restore_adopted(instance, message);
        else if (!is_there && message->waiting && runner_has_process(runner))
                return make_waiting(runner, message, manifest);
        return is_there || message->over;
}

/* --------------------------------------------------------------------------------------------------- a runner, restored */

/* find_configuration() - a reference: its own, or that of its name, or template. 0, -EPROTO or -ENOMEM. */
static int find_configuration(const Supervisor *supervisor, const RunnerMessage *message, RunnerConfig **ret_config) {
        const char *dot = message->number > 0 ? strrchr(message->name, '.') : NULL;
        int length = dot ? (int) (dot - message->name) : (int) strnlen(message->name, CONFIG_NAME_MAX + 1);
        char name[CONFIG_NAME_MAX + 1];
        RunnerConfig *config;

        if (message->configuration)
                return runner_config_restore(message->configuration, ret_config);
        if (!supervisor->config || length > CONFIG_NAME_MAX)
                return -EPROTO;
        (void) snprintf(name, sizeof(name), "%.*s", length, message->name);
        config = config_find(supervisor->config, name);
        if (!config)
                return -EPROTO;
        *ret_config = runner_config_ref(config);
        return 0;
}

int runner_make_crossed(Supervisor *supervisor, const Baton__Snapshot__Runner *message, RunnerConfig *hidden,
                        Runner **ret_runner) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        char name[CONFIG_NAME_MAX + 1];
        Runner *runner;
        int r = 0;

        if (hidden)
                config = runner_config_ref(hidden);
        else
                r = find_configuration(supervisor, message, &config);
        if (r < 0)
                return r;
        if (config->is_template != (message->number > 0) ||
            strcmp(runner_config_instance_name(config, message->number, name), message->name) != 0)
                return -EPROTO;
        r = hidden ? runner_new_hidden(&runner, supervisor, config)
                   : runner_new(&runner, supervisor, config, message->number);
        if (r < 0)
                return r;
        runner->transient = message->transient && !hidden;
        runner->crossed = message;
        *ret_runner = runner;
        return 0;
}

int runner_cross(Runner *runner, const Baton__Snapshot__Runner *message) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;

        runner->crossed = message;
        if (!message->configuration || runner_config_restore(message->configuration, &config) < 0)
                return 0;
        (void) runner_log_configure(runner->log, &config->log);
        runner_config_unref(runner->config);
        runner->config = TAKE_PTR(config);
        runner->transient = message->transient;
        return !runner->transient;
}

void runner_exit_restore(const Baton__Snapshot__Exit *from, RunnerExit *ret_exit) {
        *ret_exit = (RunnerExit){
                .instance = from->instance,
                .started_us = from->started_us,
                .ended_us = from->ended_us,
                .uptime_us = from->uptime_us,
                .pid = from->pid,
                .cause = (RunnerCause) restored_number(from->cause, _RUNNER_CAUSE_N, RUNNER_CAUSE_LOST),
                .success = from->success,
                .killed = from->killed,
                .exit = { (ExitHow) restored_number(from->how, _EXIT_HOW_N, EXIT_LOST), from->status },
        };
}

static void restore_exits(Runner *runner, const RunnerMessage *message) {
        size_t first = message->n_exits > RUNNER_EXITS_MAX ? message->n_exits - RUNNER_EXITS_MAX : 0;

        runner_forget_exits(runner);
        for (size_t i = first; i < message->n_exits; i++) {
                RunnerExit exit;

                runner_exit_restore(message->exits[i], &exit);
                runner_note_exit(runner, &exit);
        }
}

static void restore_state(Runner *runner, const RunnerMessage *message) {
        PolicyState adopted = runner->state;

        supervisor_unqueue_runner(runner->supervisor, runner);
        runner->events = 0;
        runner->over = false;
        runner->state = (PolicyState) restored_number(message->state, _POLICY_STATE_N, POLICY_DOWN);
        if (runner->instance && !runner->instance->over && !runner_has_process(runner))
                runner->state = adopted; /* it runs, whatever is said of it */
        runner->desired = (Desired) restored_number(message->desired, _DESIRED_N, DESIRED_DOWN);
        runner->unmet = (RunnerUnmet) restored_number(message->unmet, UNMET_GROUP + 1, UNMET_NOTHING);
        runner->completed = message->completed;
        runner->removed = message->removed;
        runner->holding = message->holding;
        runner->last_instance = message->last_instance;
        runner->stop_timeout_us = message->stop_timeout_us;
        runner->changed_us = message->changed_us;
        runner->up_us = message->up_us;
        runner->next_us = message->next_us;
        runner->begun_us = message->begun_us;
        runner->n_starts = message->starts;
        runner->n_restarts = message->restarts;
        runner->n_failovers = message->failovers;
        runner->n_failures = message->failures;
        restore_text(&runner->why, message->why);
        restore_text(&runner->status, message->status);
        runner_log_restore(runner->log, &(LogCrossing){ .over = message->log_over,
                                                        .given = message->log_given,
                                                        .follow_us = message->log_follow_us,
                                                        .lost = message->log_lost });
        transient_restore_ended(runner, message->ended && runner->transient);
}

static void restore_timer(Runner *runner, const RunnerMessage *message) {
        if (runner->timer)
                loop_timer_stop(&runner->timer->timer);
        schedule_stop(runner);
        if (message->timer_us)
                runner_set_timer(runner, message->timer_us);
        else if (runner->state == POLICY_BACKOFF)
                runner_raise(runner, POLICY_EVENT_TIME);
        else if (runner->state == POLICY_SCHEDULED)
                schedule_restore(runner, message->next_us);
}

/* has_lost() - its instance is not there, though it should be: judged as one that nobody saw end. */
static void has_lost(Runner *runner) {
        log_warning("runner %s: its instance was not taken over: it is started over where that is wanted",
                    runner->name);
        runner->completed = false;
        runner_instance_over(runner);
}

bool runner_can_be_restored(const Runner *runner) {
        const StartMessage *start = runner->crossed ? runner->crossed->start : NULL;
        const Instance *instance = runner->instance;

        if (!runner->crossed)
                return false;
        if (!start || start->over)
                return !instance || instance->over;
        return !start->waiting && instance && !instance->over && instance->id == start->id;
}

void runner_restore_crossed(Runner *runner, Manifest *manifest) {
        const RunnerMessage *message = runner->crossed;

        if (!message)
                return;
        if (runner->hidden) /* it is told of once */
                runner->crossed = NULL;
        if (runner->instance && runner->instance->over)
                runner->instance = instance_free(runner->instance); /* of what was said before */
        unknown_free(runner->unknown);
        runner->unknown = unknown_keep(&message->base);
        restore_state(runner, message);
        window_restore(&runner->window, message->window);
        restore_exits(runner, message);
        runner->upgrades = upgrade_history_free(runner->upgrades);
        upgrade_history_restore(&runner->upgrades, message->upgrades);
        leftovers_free(runner->leftovers);
        runner->leftovers = leftovers_restore(message->leftovers, message->n_leftovers);
        restore_timer(runner, message);
        if (message->start && !restore_start(runner, message->start, manifest) && runner_has_process(runner))
                has_lost(runner);
        else if (!message->start && runner_has_process(runner))
                has_lost(runner);
        restore_program(runner, manifest);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fleet: from one configuration to the next. Everything that can be refused or can fail is done first, on the side: the
 * difference, the names, the new runners, which are in the table but wanted down. Only then are runners given their new
 * configuration, removed, linked anew with those they come after, and begun. What follows from that, in the loop, is the
 * business of each runner's policy.
 *
 * A removed runner stays in the table, and in its place in the order, until it is at rest. One that is configured again
 * before that is just not removed any more.
 */

#include "supervisor/fleet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/pace.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/checkpoint.h"
#include "supervisor/chronicle.h"
#include "supervisor/daemon.h"
#include "supervisor/holder.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/service.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

/* New runners that nobody knows of yet. */
typedef struct Made {
        Supervisor *supervisor;
        Runner **runners;
        size_t n, room;
        char *error;
} Made;

static uint32_t first_number(const RunnerConfig *config) {
        return config->is_template ? 1 : 0;
}

/* last_number() - of @n instances; 0 is the number of one that is no template. */
static uint32_t last_number(const RunnerConfig *config, uint32_t n) {
        return config->is_template ? n : 0;
}

static Runner *find_instance(const Supervisor *supervisor, const RunnerConfig *config, uint32_t number) {
        char text[CONFIG_NAME_MAX + 1];

        return runner_find(supervisor, runner_config_instance_name(config, number, text));
}

uint32_t fleet_count(const Supervisor *supervisor, const char *template) {
        char text[CONFIG_NAME_MAX + 16];
        const Runner *runner;
        uint32_t n = 0;

        do {
                (void) snprintf(text, sizeof(text), "%s.%u", template, n + 1);
                runner = runner_find(supervisor, text);
        } while (runner && !runner->removed && !runner->transient && n++ < CONFIG_INSTANCES_MAX);
        return n;
}

/* ------------------------------------------------------------------------------------------------------------- making */

static int keep(Made *made, Runner *runner) {
        if (made->n == made->room) {
                size_t room = made->room ? 2 * made->room : 16;
                Runner **runners = reallocarray(made->runners, room, sizeof(Runner *));

                if (!runners)
                        return -ENOMEM;
                made->runners = runners;
                made->room = room;
        }
        made->runners[made->n++] = runner;
        return 0;
}

static void discard(Runner *runner) {
        HASH_DELETE(by_name, runner->supervisor->runners, runner);
        runner_free(runner);
}

static int make_one(Made *made, RunnerConfig *config, uint32_t number) {
        Runner *runner = find_instance(made->supervisor, config, number);
        int r;

        if (runner && runner->ended) {
                transient_forget(runner);
                runner = NULL;
        }
        if (runner && runner->transient) {
                (void) snprintf(made->error, FLEET_ERROR_SIZE,
                                "runner %s: a client has started one of that name; stop it, or choose another name",
                                runner->name);
                return -EEXIST;
        }
        if (runner) /* it is being removed, or was there all the time */
                return 0;
        (void) pace_keep();
        r = runner_new(&runner, made->supervisor, config, number);
        if (r == 0) {
                r = keep(made, runner);
                if (r < 0)
                        discard(runner);
        }
        return r;
}

static int make(Made *made, RunnerConfig *config, uint32_t n) {
        int r = 0;

        for (uint32_t i = first_number(config); r == 0 && i <= last_number(config, n); i++)
                r = make_one(made, config, i);
        return r;
}

static void discard_all(Made *made) {
        while (made->n > 0)
                discard(made->runners[--made->n]);
        free(made->runners);
}

/* ------------------------------------------------------------------------------------------------------------- applying */

static void give(Runner *runner, RunnerConfig *config) {
        RunnerConfig *before = runner->config;
        bool is_other = strcmp(before->command[0], config->command[0]) != 0;

        runner->config = runner_config_ref(config);
        runner_log_configure(runner->log, &config->log);
        holder_trim(runner->supervisor->holder, runner);
        checkpoint_wake(runner);
        runner_config_unref(before);
        if (is_other)
                chronicle_program(runner);
}

static void remove_one(Runner *runner) {
        if (!runner || runner->removed || runner->transient)
                return;
        log_info("runner %s: is not configured any more", runner->name);
        events_publish(runner->supervisor->events, &(Event){ .kind = EVENT_RUNNER_REMOVED, .runner = runner->name });
        runner_remove(runner);
}

static void remove_from(Supervisor *supervisor, const RunnerConfig *config, uint32_t first) {
        uint32_t n = config->is_template ? fleet_count(supervisor, config->name) : 0;

        for (uint32_t i = n; i >= first && i > 0; i--)
                remove_one(find_instance(supervisor, config, i));
        if (!config->is_template)
                remove_one(find_instance(supervisor, config, 0));
}

/* is_replaced() - whether a change of this effect replaces its process. */
static bool is_replaced(const Runner *runner, ConfigEffect effect) {
        return effect != CONFIG_EFFECT_NONE && !runner->removed && runner_has_process(runner) &&
               runner->desired == DESIRED_UP;
}

/* is_upgraded() - rather than restarted, to become what @after says. Asked before it is given that. */
static bool is_upgraded(const Runner *runner, const RunnerConfig *after, ConfigEffect effect) {
        int r;

        if (effect != CONFIG_EFFECT_UPGRADE || after->oneshot || after->schedule || upgrade_refusal(runner, &r))
                return false;
        return runner_config_native(after) ? service_state(runner->instance) == SERVICE_STATE_RUNNING
                                           : after->ready != CONFIG_READY_NONE;
}

static void replace(Runner *runner, bool by_upgrade) {
        static const UpgradeOptions as_configured;
        char reason[UPGRADE_REASON_SIZE];

        if (by_upgrade) {
                if (upgrade_begin(runner, &as_configured, reason) == 0)
                        return;
                log_warning("runner %s: is restarted, since it could not be upgraded: %s", runner->name, reason);
        }
        (void) runner_restart(runner);
}

/* change() - one that was there, and is still. */
static void change(Runner *runner, RunnerConfig *config, ConfigEffect effect) {
        bool was_removed = runner->removed, replaced = is_replaced(runner, effect);
        bool upgraded = replaced && is_upgraded(runner, config, effect);

        runner->removed = false;
        give(runner, config);
        if (was_removed)
                runner_begin(runner);
        else if (runner->state == POLICY_SCHEDULED)
                runner_raise(runner, POLICY_EVENT_NEXT);
        else if (runner->state == POLICY_FAILED || runner->state == POLICY_BACKOFF)
                runner_reset(runner);
        else if (replaced)
                replace(runner, upgraded);
}

/* wanted() - how many instances of @after there shall be, where there was @before (NULL: nothing). */
static uint32_t wanted(const Supervisor *supervisor, const RunnerConfig *before, const RunnerConfig *after) {
        if (!before || !before->is_template || !after->is_template || before->instances != after->instances)
                return after->instances;
        return fleet_count(supervisor, after->name);
}

/* is_same_kind() - a runner and a template of one name have no runner's name in common. */
static bool is_same_kind(const RunnerConfig *before, const RunnerConfig *after) {
        return before && after && before->is_template == after->is_template;
}

/* count_replaced() - of one that changes, and stays what it is. */
static void count_replaced(const Supervisor *supervisor, ConfigChange *change) {
        RunnerConfig *after = change->after;
        uint32_t last = last_number(after, wanted(supervisor, change->before, after));

        for (uint32_t number = first_number(after); number <= last; number++) {
                const Runner *runner = find_instance(supervisor, after, number);

                if (!runner || runner->transient || !is_replaced(runner, change->effect))
                        continue;
                if (is_upgraded(runner, after, change->effect))
                        change->n_upgrades++;
                else
                        change->n_restarts++;
        }
}

int fleet_compare(const Supervisor *supervisor, const Config *config, ConfigDifference *ret_difference) {
        ConfigDifference difference;
        int r = config_compare(supervisor->config, config, &difference);

        if (r < 0)
                return r;
        for (size_t i = 0; i < difference.n_changes; i++)
                if (is_same_kind(difference.changes[i].before, difference.changes[i].after))
                        count_replaced(supervisor, &difference.changes[i]);
        *ret_difference = difference;
        return 0;
}

static int make_all(Made *made, const ConfigDifference *difference) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < difference->n_changes; i++) {
                const ConfigChange *one = &difference->changes[i];

                if (one->after)
                        r = make(made, one->after, wanted(made->supervisor, one->before, one->after));
        }
        return r;
}

static void remove_all(Supervisor *supervisor, const ConfigDifference *difference) {
        for (size_t i = 0; i < difference->n_changes; i++) {
                const ConfigChange *one = &difference->changes[i];

                if (one->before && !is_same_kind(one->before, one->after))
                        remove_from(supervisor, one->before, 1);
                else if (one->before && one->after->is_template && one->before->instances != one->after->instances)
                        remove_from(supervisor, one->before, one->after->instances + 1);
        }
}

/* is_made() - in this turn: its time comes when all of them are linked. */
static bool is_made(const Runner *runner) {
        return runner->n_starts == 0 && runner->changed_us == 0 && runner->desired == DESIRED_DOWN && !runner->events;
}

/* change_all() - the unchanged ones, too: they hold the configuration that is about to go. */
static void change_all(Supervisor *supervisor, Config *config, const ConfigDifference *difference) {
        for (size_t i = 0; i < config->n_runners; i++) {
                RunnerConfig *after = config->runners[i];
                const ConfigChange *one = config_difference_find(difference, after->name);
                uint32_t n = after->is_template ? fleet_count(supervisor, after->name) : 0;

                for (uint32_t number = first_number(after); number <= n; number++) {
                        Runner *runner = find_instance(supervisor, after, number);

                        if (!runner || runner->transient)
                                continue;
                        if (!one)
                                give(runner, after);
                        else if (!is_made(runner) || runner->removed)
                                change(runner, after, one->effect);
                }
        }
}

/* link_all() - without memory some would not wait for each other: said, and gone on. */
static void link_all(Supervisor *supervisor) {
        Runner *runner;
        int r = 0;

        for (runner = runner_first(supervisor); runner; runner = runner_next(runner))
                runner_forget_links(runner);
        for (runner = runner_first(supervisor); runner && r == 0; runner = runner_next(runner))
                r = runner_link(runner);
        if (r < 0)
                log_error("no memory for the order of the runners: not all will wait for those they come after");
}

static void begin_all(Made *made) {
        for (size_t i = 0; i < made->n; i++)
                events_publish(made->supervisor->events,
                               &(Event){ .kind = EVENT_RUNNER_ADDED, .runner = made->runners[i]->name });
        for (size_t i = 0; i < made->n; i++)
                if (made->runners[i]->config->autostart)
                        runner_begin(made->runners[i]);
        free(made->runners);
}

int fleet_apply(Supervisor *supervisor, Config *config, ConfigDifference *ret_difference,
                char error[FLEET_ERROR_SIZE]) {
        Made made = { .supervisor = supervisor, .error = error };
        Config *before = supervisor->config;
        ConfigDifference difference;
        int r;

        *error = '\0';
        if (supervisor->stopping)
                return -ESHUTDOWN;
        r = fleet_compare(supervisor, config, &difference);
        if (r < 0)
                return r;
        r = make_all(&made, &difference);
        if (r == 0)
                r = groups_apply(supervisor, config);
        if (r < 0) {
                discard_all(&made);
                config_difference_deinit(&difference);
                return r;
        }
        remove_all(supervisor, &difference);
        change_all(supervisor, config, &difference);
        link_all(supervisor);
        begin_all(&made);
        supervisor->config = config_ref(config);
        events_publish(supervisor->events,
                       &(Event){ .kind = EVENT_CONFIGURATION_LOADED, .number = config->n_runners });
        scaled_forget_others(supervisor);
        if (ret_difference)
                *ret_difference = difference;
        else
                config_difference_deinit(&difference);
        config_unref(before);
        return 0;
}

/* ------------------------------------------------------------------------------------------------------------- scaling */

/* scale() - as fleet_scale(). @wished: and it is to be known to who follows. */
static int scale(Supervisor *supervisor, const char *name, uint32_t n, bool wished, uint32_t *ret_before,
                 char error[FLEET_ERROR_SIZE]) {
        RunnerConfig *config = supervisor->config ? config_find(supervisor->config, name) : NULL;
        Made made = { .supervisor = supervisor, .error = error };
        uint32_t before;
        int r = 0;

        *error = '\0';
        if (!config)
                return -ENOENT;
        if (!config->is_template)
                return -EINVAL;
        if (n > CONFIG_INSTANCES_MAX)
                return -ERANGE;
        if (supervisor->stopping)
                return -ESHUTDOWN;
        before = fleet_count(supervisor, name); /* those up to here are there, and stay as they are */
        for (uint32_t i = before + 1; r == 0 && i <= n; i++)
                r = make_one(&made, config, i);
        if (r < 0) {
                discard_all(&made);
                return r;
        }
        for (uint32_t i = before + 1; i <= n; i++) {
                Runner *runner = find_instance(supervisor, config, i);

                if (runner && runner->removed)
                        change(runner, config, CONFIG_EFFECT_NONE);
        }
        for (uint32_t i = before; i > n; i--)
                remove_one(find_instance(supervisor, config, i));
        r = groups_apply(supervisor, supervisor->config);
        if (r < 0)
                log_error("template %s: no memory for the groups of new instances", name);
        link_all(supervisor);
        begin_all(&made);
        if (wished)
                scaled_set(supervisor, config, n);
        *ret_before = before;
        return 0;
}

int fleet_scale(Supervisor *supervisor, const char *name, uint32_t n, uint32_t *ret_before,
                char error[FLEET_ERROR_SIZE]) {
        return scale(supervisor, name, n, true, ret_before, error);
}

void fleet_recover_instance(Supervisor *supervisor, const char *template, uint32_t number) {
        char error[FLEET_ERROR_SIZE];
        uint32_t before;

        if (number > fleet_count(supervisor, template))
                (void) scale(supervisor, template, number, false, &before, error);
}

void fleet_recover_number(Supervisor *supervisor, const char *template, uint32_t n) {
        const RunnerConfig *config = supervisor->config ? config_find(supervisor->config, template) : NULL;
        char error[FLEET_ERROR_SIZE];
        uint32_t count;

        if (!config || !config->is_template)
                return;
        count = fleet_count(supervisor, template);
        if (count < n) {
                (void) fleet_scale(supervisor, template, n, &count, error);
                return;
        }
        scaled_set(supervisor, config, n);
        for (; count > n; count--) {
                Runner *runner = find_instance(supervisor, config, count);

                if (runner->instance)
                        runner_remove(runner);
                else
                        runner_forget(runner);
        }
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

/* forget_made() - a slot that it has is the predecessor's, and not gone if that has made another runner of this name. */
static void forget_made(Runner *runner) {
        runner->instance = instance_free(runner->instance);
        if (runner->kept)
                daemon_follow_again(runner->supervisor->daemon, runner->kept);
        runner->kept = 0;
        if (runner->transient || runner->ended)
                transient_forget(runner);
        else
                runner_forget(runner);
}

/* is_configured() - whatever the predecessor says, it has it. */
static bool is_configured(const Runner *runner) {
        const Config *config = runner->supervisor->config;

        return runner->number == 0 && config && config_find(config, runner->config->name) == runner->config;
}

/* forget_others() - those that the predecessor had not any more. True: there were such. */
static bool forget_others(Supervisor *supervisor, const Baton__Snapshot__Snapshot *snapshot) {
        Runner *runner, *next;
        bool forgot = false;

        if (snapshot->runners_total ? snapshot->runners_total == HASH_CNT(by_name, supervisor->runners)
                                    : snapshot->n_runners == 0)
                return false;
        HASH_ITER (by_name, supervisor->runners, runner, next)
                if (!runner->crossed && !is_configured(runner) && !runner_is_occupied(runner)) {
                        forget_made(runner);
                        forgot = true;
                }
        return forgot;
}

/*
 * forget_gone() - what was said of it. An instance that it has by the keeper's table is one whose end will be told, or that
 * of another runner of this name, which has been made since, and which we are about to be told of.
 */
static void forget_gone(Supervisor *supervisor, const char *name) {
        Runner *runner = runner_find(supervisor, name);

        if (!runner || !runner->crossed)
                return;
        runner->crossed = NULL;
        precopy_forget(&supervisor->precopy, &runner->copied, 0, NULL);
        if (!runner_is_occupied(runner))
                forget_made(runner);
}

/* cross() - 1: the order of the runners may have changed by it; 0; or a negative errno. */
static int cross(Supervisor *supervisor, const Baton__Snapshot__Runner *message) {
        Runner *runner = runner_find(supervisor, message->name);
        bool is_new = !runner;
        int r;

        if (runner && runner->number != message->number)
                return -EPROTO;
        r = runner ? runner_cross(runner, message) : runner_make_crossed(supervisor, message, NULL, &runner);
        if (r < 0)
                return r;
        precopy_queue(&supervisor->precopy, &runner->copied);
        return (is_new && !runner->transient) || r > 0;
}

void fleet_restore(Supervisor *supervisor, const Baton__Snapshot__Snapshot *snapshot) {
        bool has_changed = false;

        for (size_t i = 0; i < snapshot->n_gone_runners; i++)
                forget_gone(supervisor, snapshot->gone_runners[i]);
        for (size_t i = 0; i < snapshot->n_runners; i++) {
                int r = cross(supervisor, snapshot->runners[i]);

                has_changed |= r > 0;
                if (r < 0)
                        log_warning("runner %.64s: was not taken over: %s", snapshot->runners[i]->name,
                                    r == -EPROTO ? "no configuration has it" : strerror(-r));
        }
        if (!snapshot->partial)
                has_changed |= forget_others(supervisor, snapshot);
        if (!has_changed)
                return;
        if (supervisor->config && groups_apply(supervisor, supervisor->config) < 0)
                log_error("no memory for the groups of runners that were taken over");
        link_all(supervisor);
}

void fleet_restore_crossed(Supervisor *supervisor, Manifest *manifest, bool is_final) {
        for (size_t n = supervisor->precopy.n_changed; n > 0; n--) {
                Precopied *it = precopy_take(&supervisor->precopy);
                Runner *runner = CONTAINER_OF(it, Runner, copied);

                if (is_final || runner_can_be_restored(runner))
                        runner_restore_crossed(runner, manifest);
                else
                        precopy_queue(&supervisor->precopy, it);
        }
}

void fleet_restored(Supervisor *supervisor, const Baton__Snapshot__Snapshot *snapshot) {
        for (size_t i = 0; i < snapshot->n_runners; i++) {
                Runner *runner = runner_find(supervisor, snapshot->runners[i]->name);

                if (runner && runner->crossed == snapshot->runners[i])
                        runner->crossed = NULL;
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Group: as in OTP. The end of a member that its policy would restart counts against the group. Below the limit the strategy
 * says who else is restarted: nobody, all, or those listed behind it. Above it the group above is asked as if the whole
 * group had been a member that ended: its strategy then restarts at least all of this group, with counters as new. At the
 * top the answer is no: all members of that group fail, with one reason, which stays until somebody starts or resets one.
 *
 * Those that are restarted together come back together: while one of them is still going, or waits for its delay, the
 * others wait too (group_holds()). In which order they go and come follows from `after' and `requires' alone.
 *
 * A runner in a group has no limit of its own. One that is not to be restarted (by its policy, or because somebody stopped
 * it) is nobody's failure.
 */

#include "supervisor/group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/runner-internal.h"
#include "supervisor/save.h"
#include "supervisor/supervisor.h"

/* ------------------------------------------------------------------------------------------------------------- the tree */

/* for_each() - every runner in @group and in those below it. */
static void for_each(Group *group, void (*function)(Runner *runner, void *userdata), void *userdata) {
        Runner *runner, *next;
        Group *below;

        for (runner = TAILQ_FIRST(&group->runners); runner; runner = next) {
                next = TAILQ_NEXT(runner, member);
                function(runner, userdata);
        }
        TAILQ_FOREACH (below, &group->groups, sibling)
                for_each(below, function, userdata);
}

/* position_in() - of the member of @group that is @runner, or that it is in. */
static unsigned position_in(const Group *group, const Runner *runner) {
        const Group *below = runner->group;

        if (below == group)
                return runner->position;
        while (below->parent != group)
                below = below->parent;
        return below->position;
}

/* --------------------------------------------------------------------------------------------------------- one restart */

/* Who is restarted with a member at @from: those at or behind it, but the culprit, which its own policy restarts. */
typedef struct Round {
        const Group *group;
        const Runner *culprit;
        unsigned from, to;
} Round;

static void restart_one(Runner *runner, void *userdata) {
        const Round *round = userdata;
        unsigned position = position_in(round->group, runner);

        if (runner == round->culprit || position < round->from || position > round->to)
                return;
        if (runner->state == POLICY_STARTING || runner->state == POLICY_UP)
                runner_raise(runner, POLICY_EVENT_RESTART);
}

/* restart_others() - @whole: not only the culprit but all of the member it is in has ended. */
static void restart_others(Group *group, Runner *culprit, bool whole) {
        unsigned position = position_in(group, culprit);
        Round round = { .group = group, .culprit = culprit, .from = position, .to = position };

        if (group->config->strategy == CONFIG_ONE_FOR_ONE && !whole)
                return;
        if (group->config->strategy == CONFIG_ONE_FOR_ALL)
                round.from = 0;
        if (group->config->strategy != CONFIG_ONE_FOR_ONE)
                round.to = UINT32_MAX;
        group->restarting = true;
        for_each(group, restart_one, &round);
}

/* --------------------------------------------------------------------------------------------------------- its failure */

static void forget(Group *group) {
        policy_window_reset(&group->window);
        free(group->why);
        group->why = NULL;
}

static void fail_one(Runner *runner, void *userdata) {
        const Group *group = userdata;

        runner_fail(runner, UNMET_GROUP, "group %s has failed: %s", group->config->name, group->why);
}

static void fail(Group *group, Runner *culprit, const char *text) {
        char why[512];

        (void) snprintf(why, sizeof(why), "more than %u restarts within %g s; the last was of %s, which %s",
                        group->config->intensity.restarts, (double) group->config->intensity.window_us / USEC_PER_SEC,
                        culprit->name, text);
        forget(group);
        group->why = strdup(why);
        log_error("group %s: failed: %s", group->config->name, why);
        for_each(group, fail_one, group);
        runner_set_why(culprit, "group %s has failed: %s", group->config->name, why);
        culprit->unmet = UNMET_GROUP;
}

bool group_allows(Group *group, Runner *runner, const char *text) {
        uint64_t now = clock_now();
        bool whole = false;

        for (;; group = group->parent) {
                const ConfigIntensity *limit = &group->config->intensity;

                if (!policy_window_add(&group->window, limit->restarts, limit->window_us, now)) {
                        restart_others(group, runner, whole);
                        return true;
                }
                if (!group->parent) {
                        fail(group, runner, text);
                        return false;
                }
                log_warning("group %s: more than %u restarts within %g s: its failure is one of group %s",
                            group->config->name, limit->restarts, (double) limit->window_us / USEC_PER_SEC,
                            group->parent->config->name);
                forget(group);
                whole = true;
        }
}

void group_forgive(Group *group) {
        for (; group; group = group->parent)
                forget(group);
}

/* ----------------------------------------------------------------------------------------------------- coming together */

/* is_going() - a member that the others wait for: on its way down, or just told to be, or waiting for its delay. */
static bool is_going(const Runner *runner) {
        return runner->desired == DESIRED_UP && (runner->state == POLICY_STOPPING || runner->state == POLICY_BACKOFF ||
                                                 runner->events & 1u << POLICY_EVENT_RESTART);
}

static void find_going(Runner *runner, void *userdata) {
        const Runner **found = userdata;

        if (is_going(runner))
                *found = runner;
}

/* A runner of no round (one listed in front of a rest_for_one's culprit) runs, or waits for reasons of its own. */
const Runner *group_holds(const Runner *runner) {
        for (Group *group = runner->group; group; group = group->parent) {
                const Runner *found = NULL;

                if (!group->restarting)
                        continue;
                for_each(group, find_going, &found);
                if (found && found != runner)
                        return found;
        }
        return NULL;
}

static void look_again(Runner *runner, void *userdata) {
        (void) userdata;
        if (runner->state == POLICY_WAITING)
                runner_raise(runner, POLICY_EVENT_START);
}

void group_changed(Runner *runner) {
        for (Group *group = runner->group; group; group = group->parent) {
                const Runner *found = NULL;

                if (!group->restarting || is_going(runner))
                        continue;
                for_each(group, look_again, NULL);
                for_each(group, find_going, &found);
                group->restarting = found;
        }
}

/* -------------------------------------------------------------------------------------------------- from configuration */

Group *group_find(const Supervisor *supervisor, const char *name) {
        Group *group;

        TAILQ_FOREACH (group, &supervisor->groups, link)
                if (strcmp(group->config->name, name) == 0)
                        return group;
        return NULL;
}

static Group *free_group(Group *group) {
        Runner *runner;

        while ((runner = TAILQ_FIRST(&group->runners))) {
                TAILQ_REMOVE(&group->runners, runner, member);
                runner->group = NULL;
        }
        policy_window_reset(&group->window);
        free(group->why);
        free(group);
        return NULL;
}

static void free_list(struct GroupList *groups) {
        Group *group;

        while ((group = TAILQ_FIRST(groups))) {
                TAILQ_REMOVE(groups, group, link);
                free_group(group);
        }
}

void groups_free(Supervisor *supervisor) {
        free_list(&supervisor->groups);
}

void group_leave(Runner *runner) {
        if (!runner->group)
                return;
        TAILQ_REMOVE(&runner->group->runners, runner, member);
        runner->group = NULL;
}

static int make_list(Supervisor *supervisor, const Config *config, struct GroupList *ret_groups) {
        TAILQ_INIT(ret_groups);
        for (size_t i = 0; i < config->n_groups; i++) {
                Group *group = calloc(1, sizeof(*group));

                if (!group) {
                        free_list(ret_groups);
                        return -ENOMEM;
                }
                group->supervisor = supervisor;
                group->config = config->groups[i];
                TAILQ_INIT(&group->runners);
                TAILQ_INIT(&group->groups);
                TAILQ_INSERT_TAIL(ret_groups, group, link);
        }
        return 0;
}

/* inherit() - what a group of the same name has counted. */
static void inherit(Supervisor *supervisor, Group *group) {
        Group *before = group_find(supervisor, group->config->name);

        if (!before)
                return;
        group->window = before->window;
        before->window = (PolicyWindow){ 0 };
        group->why = TAKE_PTR(before->why);
        group->restarting = before->restarting;
}

static void join(Group *group, Runner *runner, unsigned position) {
        if (!runner || runner->group || runner->transient)
                return;
        runner->group = group;
        runner->position = position;
        TAILQ_INSERT_TAIL(&group->runners, runner, member);
}

/* fill() - its members in order; instances of a template one after the other. */
static void fill(Supervisor *supervisor, Group *group) {
        unsigned position = 0;

        for (const char *const *name = group->config->members; name && *name; name++) {
                Group *below = group_find(supervisor, *name);
                char text[CONFIG_NAME_MAX + 16];
                Runner *runner;

                if (below && below->config->parent == group->config) {
                        below->parent = group;
                        below->position = position++;
                        TAILQ_INSERT_TAIL(&group->groups, below, sibling);
                        continue;
                }
                join(group, runner_find(supervisor, *name), position++);
                for (unsigned i = 1;; i++) {
                        (void) snprintf(text, sizeof(text), "%s.%u", *name, i);
                        runner = runner_find(supervisor, text);
                        if (!runner || runner->number != i || strcmp(runner->config->name, *name) != 0)
                                break;
                        join(group, runner, position++);
                }
        }
}

int groups_apply(Supervisor *supervisor, const Config *config) {
        struct GroupList groups;
        Group *group;
        int r = make_list(supervisor, config, &groups);

        if (r < 0)
                return r;
        TAILQ_FOREACH (group, &groups, link)
                inherit(supervisor, group);
        free_list(&supervisor->groups);
        TAILQ_CONCAT(&supervisor->groups, &groups, link);
        TAILQ_FOREACH (group, &supervisor->groups, link)
                fill(supervisor, group);
        return 0;
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

int group_save(const Group *group, Baton__Snapshot__Group **ret_message) {
        Save save = { 0 };
        Baton__Snapshot__Group *message = save_message(&save, &baton__snapshot__group__descriptor);

        if (!message)
                return -ENOMEM;
        message->restarting = group->restarting;
        save_text(&save, &message->name, group->config->name);
        save_text(&save, &message->why, group->why);
        window_save(&save, &group->window, &message->window);
        return save_done(&save, message, ret_message);
}

void group_restore(const Supervisor *supervisor, const Baton__Snapshot__Group *message) {
        Group *group = group_find(supervisor, message->name);

        if (!group)
                return;
        group->restarting = message->restarting;
        free(group->why);
        group->why = restored_text(message->why);
        window_restore(&group->window, message->window);
}

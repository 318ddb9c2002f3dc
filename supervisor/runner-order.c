/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, its order: what it waits for before it starts, and whom it lets go before it stops. Two lists of neighbours hold
 * all that is known: `after' (the first n_requires of them required) and its reverse, `before'. The configuration has no
 * cycles.
 *
 * Up: a required one must be up, or done; it is started along. Of one that it only comes after, no more is wanted than that
 * it is not on its way. When a required one fails for good, so does this one, with that as its reason, and it is started
 * again by itself when that one has come up after all; that it restarts in between is its own business.
 *
 * Down, the other way round: those that require this one are stopped first, those that only come after it are waited for
 * if they are stopping as well. At the end of the supervisor all are.
 */

#include "supervisor/runner-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/group.h"
#include "supervisor/supervisor.h"

/* is_there() - for those that require it. */
static bool is_there(const Runner *runner) {
        return runner->state == POLICY_UP || runner->state == POLICY_DONE ||
               (runner->state == POLICY_SCHEDULED && runner->completed);
}

/* is_coming() - for those that only come after it. */
static bool is_coming(const Runner *runner) {
        return runner->state == POLICY_WAITING || runner->state == POLICY_STARTING ||
               runner->state == POLICY_STOPPING || runner->state == POLICY_BACKOFF ||
               runner->events & 1u << POLICY_EVENT_START;
}

static bool requires(const Runner *runner, const Runner *required) {
        for (unsigned i = 0; i < runner->n_requires; i++)
                if (runner->after[i] == required)
                        return true;
        return false;
}

/* fail_for() - runner requires @required, which has failed. */
static void fail_for(Runner *runner, const Runner *required) {
        runner_fail(runner, UNMET_REQUIRED, "requires %s, which has failed: %s", required->name,
                    required->why ? required->why : "no reason is known");
}

/* say_waits() - for whom, NULL: for nobody any more; a reason of another kind, why it was stopped or failed, stays. */
static void say_waits(Runner *runner, const Runner *waits_for) {
        static const char words[] = "waits for ";
        bool said = runner->why && strncmp(runner->why, words, strlen(words)) == 0;

        if (waits_for && (said || !runner->why))
                runner_set_why(runner, "%s%s", words, waits_for->name);
        else if (!waits_for && said)
                runner_set_why(runner, NULL);
}

void runner_consider(Runner *runner) {
        const Runner *waits_for = group_holds(runner);

        for (unsigned i = 0; i < runner->n_requires; i++) {
                const Runner *required = runner->after[i];

                if (required->state == POLICY_FAILED && !(required->events & 1u << POLICY_EVENT_START)) {
                        fail_for(runner, required);
                        return;
                }
                if (!is_there(required))
                        waits_for = required;
        }
        for (unsigned i = runner->n_requires; i < runner->n_after; i++)
                if (is_coming(runner->after[i]))
                        waits_for = runner->after[i];
        if (!waits_for)
                runner_raise(runner, POLICY_EVENT_SATISFIED);
        say_waits(runner, waits_for);
}

/* let_go() - @runner stops, @dependant requires it and goes first, in the same manner. */
static void let_go(const Runner *runner, Runner *dependant) {
        if (dependant->state == POLICY_STOPPING && dependant->desired == runner->desired)
                return;
        if (runner->unmet)
                runner_fail(dependant, UNMET_REQUIRED, "requires %s, which has failed: %s", runner->name,
                            runner->why ? runner->why : "no reason is known");
        else if (runner->desired == DESIRED_DOWN)
                runner_stop(dependant, 0);
        else if (dependant->state != POLICY_STOPPING)
                runner_raise(dependant, POLICY_EVENT_RESTART);
}

void runner_release(Runner *runner) {
        bool holding = false;

        for (unsigned i = 0; i < runner->n_before; i++) {
                Runner *next = runner->before[i];
                bool required = requires(next, runner);

                if (required && next->desired == DESIRED_UP && next->state != POLICY_FAILED)
                        let_go(runner, next);
                holding |= runner_has_process(next) &&
                           (required || next->state == POLICY_STOPPING || runner->supervisor->stopping);
        }
        runner->holding = holding;
        if (!holding)
                runner_raise(runner, POLICY_EVENT_FREE);
}

void runner_changed(Runner *runner) {
        runner->holding &= runner->state == POLICY_STOPPING;
        for (unsigned i = 0; i < runner->n_before; i++) {
                Runner *next = runner->before[i];

                if (next->state == POLICY_WAITING ||
                    (next->state == POLICY_FAILED && next->unmet == UNMET_REQUIRED && is_there(runner) &&
                     next->desired == DESIRED_UP && requires(next, runner)))
                        runner_raise(next, POLICY_EVENT_START);
                else if (runner->state == POLICY_FAILED && requires(next, runner))
                        fail_for(next, runner);
        }
        for (unsigned i = 0; i < runner->n_after; i++)
                if (runner->after[i]->holding)
                        runner_raise(runner->after[i], POLICY_EVENT_STOP);
}

void runner_start_required(Runner *runner) {
        for (unsigned i = 0; i < runner->n_requires; i++) {
                Runner *required = runner->after[i];

                if (required->state != POLICY_UP && required->state != POLICY_DONE &&
                    (required->desired == DESIRED_DOWN || required->state == POLICY_FAILED))
                        (void) runner_start(required);
        }
}

void runner_restart_dependants(Runner *runner) {
        for (unsigned i = 0; i < runner->n_before; i++) {
                Runner *next = runner->before[i];

                if (requires(next, runner) && runner_has_process(next) && next->desired == DESIRED_UP)
                        (void) runner_restart(next);
        }
}

/* ------------------------------------------------------------------------------------------------------------ neighbours */

/* add_one() - to one of the lists, which grow by doubling: their room is the next power of two. */
static int add_one(Runner ***list, uint16_t *n, Runner *runner) {
        if (*n == UINT16_MAX)
                return -E2BIG;
        if ((*n & (*n - 1)) == 0) {
                Runner **more = reallocarray(*list, *n ? 2u * *n : 1u, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                *list = more;
        }
        (*list)[(*n)++] = runner;
        return 0;
}

/* join() - once; all that a runner comes after is joined before that of the next, so another time is at the end of the list. */
static int join(Runner *runner, Runner *other) {
        int r;

        if (other == runner || (other->n_before > 0 && other->before[other->n_before - 1] == runner))
                return 0;
        r = add_one(&runner->after, &runner->n_after, other);
        if (r < 0)
                return r;
        r = add_one(&other->before, &other->n_before, runner);
        if (r < 0)
                runner->n_after--;
        return r;
}

/* join_all() - @name is a runner's, or a template's, which stands for all its instances. */
static int join_all(Runner *runner, const char *name) {
        const Supervisor *supervisor = runner->supervisor;
        Runner *other = runner_find(supervisor, name);
        char text[CONFIG_NAME_MAX + 16];
        int r = 0;

        if (other)
                return join(runner, other);
        for (unsigned i = 1; r == 0; i++) {
                (void) snprintf(text, sizeof(text), "%s.%u", name, i);
                other = runner_find(supervisor, text);
                if (!other)
                        break;
                r = join(runner, other);
        }
        return r;
}

int runner_link(Runner *runner) {
        const RunnerConfig *config = runner->config;
        int r = 0;

        for (size_t i = 0; r == 0 && config->requires && config->requires[i]; i++)
                r = join_all(runner, config->requires[i]);
        runner->n_requires = runner->n_after;
        for (size_t i = 0; r == 0 && config->after && config->after[i]; i++)
                r = join_all(runner, config->after[i]);
        return r;
}

static void remove_one(Runner **list, uint16_t *n, const Runner *runner) {
        for (unsigned i = 0; i < *n; i++) {
                if (list[i] != runner)
                        continue;
                (void) memmove(list + i, list + i + 1, (*n - i - 1) * sizeof(*list));
                (*n)--;
                return;
        }
}

void runner_forget_links(Runner *runner) {
        free(runner->after);
        free(runner->before);
        runner->after = runner->before = NULL;
        runner->n_after = runner->n_requires = runner->n_before = 0;
}

void runner_unlink(Runner *runner) {
        for (unsigned i = 0; i < runner->n_after; i++)
                remove_one(runner->after[i]->before, &runner->after[i]->n_before, runner);
        for (unsigned i = 0; i < runner->n_before; i++) {
                Runner *next = runner->before[i];

                next->n_requires -= requires(next, runner);
                remove_one(next->after, &next->n_after, runner);
        }
        runner_forget_links(runner);
}

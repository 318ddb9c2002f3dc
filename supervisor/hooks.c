/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Hooks: each run is a runner of its own, which no table has: it is started, bounded, logged and buried by what does that for
 * all others. Its configuration is made from that of the runner it is about, with what stands for its name and number
 * replaced, when the event happens; so what it is told is what was so then, however long it waits for its turn.
 */

#include "supervisor/hooks.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/config-save.h"
#include "supervisor/runner-internal.h"
#include "supervisor/runner-save.h"
#include "supervisor/save.h"
#include "supervisor/supervisor.h"

enum { VARIABLES_MAX = 8 };

typedef struct HookRun {
        TAILQ_ENTRY(HookRun) link;
        Hooks *hooks;
        RunnerConfig *config;
        Runner *runner; /* NULL: it waits for its turn */
        RunnerWatcher watcher;
        LoopTimer timer;
        uint64_t timeout_us;
        bool late;
        char about[CONFIG_NAME_MAX + 1];
        const char *event;
} HookRun;
TAILQ_HEAD(HookRuns, HookRun);

struct Hooks {
        Supervisor *supervisor;
        struct HookRuns waiting, running;
        unsigned n_waiting, n_running, n_ever;
        uint64_t n_left_out;
};

/* ----------------------------------------------------------------------------------------------------- its configuration */

static void free_strings(char **strings) {
        for (char **s = strings; s && *s; s++)
                free(*s);
        free(strings);
}

/* literal() - @text as it is for @runner, with nothing left to be replaced. NULL: no memory. */
static char *literal(const Runner *runner, const char *text) {
        _cleanup_free_ char *expanded = runner_config_expand(runner->config, text, runner->name, runner->number);
        char *out, *p;

        out = p = expanded ? malloc(2 * strlen(expanded) + 1) : NULL;
        for (const char *c = expanded; out && *c; c++) {
                *p++ = *c;
                if (*c == '%')
                        *p++ = '%';
        }
        if (out)
                *p = '\0';
        return out;
}

/* literals() - all of @list (NULL: none) and @more, which are taken. Ended by NULL. NULL: no memory. */
static char **literals(const Runner *runner, const char *const *list, char **more, size_t n_more) {
        size_t n = 0;
        char **out;
        bool whole = true;

        while (list && list[n])
                n++;
        out = calloc(n + n_more + 1, sizeof(*out));
        for (size_t i = 0; out && whole && i < n; i++)
                whole = (out[i] = literal(runner, list[i]));
        for (size_t i = 0; i < n_more; i++)
                if (out && whole)
                        out[n + i] = more[i];
                else
                        free(more[i]);
        if (whole)
                return out;
        free_strings(out);
        return NULL;
}

static _printf_(3, 4) void add(char **variables, size_t *n, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        if (vasprintf(&variables[*n], format, arguments) >= 0)
                (*n)++;
        va_end(arguments);
}

/* describe() - what the hook is told. */
static size_t describe(const Runner *runner, const char *event, char *variables[VARIABLES_MAX]) {
        const RunnerExit *last = runner_exit(runner, 0);
        size_t n = 0;

        add(variables, &n, "BATON_RUNNER=%s", runner->name);
        add(variables, &n, "BATON_EVENT=%s", event);
        if (runner_pid(runner) > 0)
                add(variables, &n, "BATON_PID=%d", runner_pid(runner));
        if (last)
                add(variables, &n, "BATON_CAUSE=%s", runner_cause_name(last->cause));
        if (last && last->exit.how == EXIT_EXITED)
                add(variables, &n, "BATON_EXIT_CODE=%d", last->exit.status);
        else if (last && last->exit.how != EXIT_LOST)
                add(variables, &n, "BATON_EXIT_SIGNAL=%d", last->exit.status);
        return n;
}

/* make_config() - 0 or -ENOMEM. */
static int make_config(HookRun *run, const Runner *runner, const ConfigHook *hook) {
        char *variables[VARIABLES_MAX], name[CONFIG_NAME_MAX + 1];
        size_t n = describe(runner, run->event, variables);
        char **command = literals(runner, hook->command, NULL, 0);
        char **env = literals(runner, runner->config->env, variables, n);
        char **env_file = literals(runner, runner->config->env_file, NULL, 0);
        _cleanup_free_ char *cwd = runner->config->cwd ? literal(runner, runner->config->cwd) : NULL;
        RunnerConfig draft = RUNNER_CONFIG_NULL;
        int r = -ENOMEM;

        (void) snprintf(name, sizeof(name), "%.40s:hook.%u", runner->name, ++run->hooks->n_ever);
        draft.name = name;
        draft.command = (const char *const *) command;
        draft.env = (const char *const *) env;
        draft.env_file = (const char *const *) env_file;
        draft.cwd = cwd;
        draft.user = runner->config->user;
        draft.umask = runner->config->umask;
        draft.inherit_env = runner->config->inherit_env;
        draft.restart = RESTART_NEVER;
        if (command && env && env_file && (cwd || !runner->config->cwd))
                r = runner_config_new(&run->config, &draft);
        free_strings(command);
        free_strings(env);
        free_strings(env_file);
        return r;
}

/* ------------------------------------------------------------------------------------------------------------- running */

static void run_free(HookRun *run) {
        loop_timer_stop(&run->timer);
        runner_unwatch(&run->watcher);
        runner_config_unref(run->config);
        free(run);
}

static void begin_next(Hooks *hooks);

static void say_failure(const HookRun *run, const Runner *runner) {
        _cleanup_free_ char **lines = NULL;
        size_t n = runner_log_tail(runner->log, 0, 1, 256, &lines);

        log_warning("runner %s: hook on %s failed: %s%s%s", run->about, run->event, runner->why ? runner->why : "",
                    n > 0 ? "; it wrote: " : "", n > 0 ? lines[0] : "");
}

static void told(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        HookRun *run = CONTAINER_OF(watcher, HookRun, watcher);
        Hooks *hooks = run->hooks;

        if (outcome == RUNNER_OUTCOME_FAILED && !run->late)
                say_failure(run, runner);
        if (outcome != RUNNER_OUTCOME_GONE)
                return;
        TAILQ_REMOVE(&hooks->running, run, link);
        hooks->n_running--;
        run_free(run);
        begin_next(hooks);
}

static void time_is_over(LoopTimer *timer) {
        HookRun *run = CONTAINER_OF(timer, HookRun, timer);

        run->late = true;
        log_warning("runner %s: hook on %s was not done within %g s, and was killed", run->about, run->event,
                    (double) run->timeout_us / USEC_PER_SEC);
        runner_stop(run->runner, 1);
}

/* follow() - run->runner is there, and its end is waited for. */
static void follow(HookRun *run) {
        Hooks *hooks = run->hooks;

        TAILQ_INSERT_TAIL(&hooks->running, run, link);
        hooks->n_running++;
        run->watcher.callback = told;
        runner_watch(run->runner, &run->watcher);
}

static void begin(HookRun *run) {
        Hooks *hooks = run->hooks;
        int r = runner_new_hidden(&run->runner, hooks->supervisor, run->config);

        if (r < 0) {
                log_warning("runner %s: hook on %s cannot be run: %s", run->about, run->event, strerror(-r));
                run_free(run);
                return;
        }
        follow(run);
        loop_timer_set(hooks->supervisor->loop, &run->timer, clock_after(clock_now(), run->timeout_us));
        (void) runner_start(run->runner);
}

static void begin_next(Hooks *hooks) {
        HookRun *run;

        while (hooks->n_running < HOOKS_RUNNING_MAX && (run = TAILQ_FIRST(&hooks->waiting))) {
                TAILQ_REMOVE(&hooks->waiting, run, link);
                hooks->n_waiting--;
                begin(run);
        }
}

static void add_run(Hooks *hooks, const Runner *runner, const ConfigHook *hook, const char *event) {
        HookRun *run = hooks->n_waiting < HOOKS_WAITING_MAX ? calloc(1, sizeof(*run)) : NULL;

        if (run) {
                *run = (HookRun){ .hooks = hooks, .event = event, .timeout_us = hook->timeout_us };
                run->timer = LOOP_TIMER_NULL(time_is_over);
                (void) snprintf(run->about, sizeof(run->about), "%s", runner->name);
        }
        if (!run || make_config(run, runner, hook) < 0) {
                if (hooks->n_left_out++ == 0)
                        log_warning(
                                "runner %s: hook on %s is left out: too many wait, or there is no memory; more will "
                                "not be logged",
                                runner->name, event);
                free(run);
                return;
        }
        TAILQ_INSERT_TAIL(&hooks->waiting, run, link);
        hooks->n_waiting++;
}

void hooks_run(const Runner *runner, unsigned event) {
        const RunnerConfig *config = runner->config;
        Hooks *hooks = runner->supervisor->hooks;

        if (config->n_hooks == 0 || runner->supervisor->stopping)
                return;
        for (unsigned i = 0; i < config->n_hooks; i++)
                if (config->hooks[i].events & 1u << event)
                        add_run(hooks, runner, &config->hooks[i],
                                event == CONFIG_HOOK_EXIT ? "exit" : policy_state_name((PolicyState) event));
        begin_next(hooks);
}

/* --------------------------------------------------------------------------------------------------------------- itself */

int hooks_new(Hooks **ret_hooks, Supervisor *supervisor) {
        Hooks *hooks = calloc(1, sizeof(*hooks));

        if (!hooks)
                return -ENOMEM;
        hooks->supervisor = supervisor;
        TAILQ_INIT(&hooks->waiting);
        TAILQ_INIT(&hooks->running);
        *ret_hooks = hooks;
        return 0;
}

void hooks_stop(Hooks *hooks) {
        HookRun *run;

        while ((run = TAILQ_FIRST(&hooks->waiting))) {
                TAILQ_REMOVE(&hooks->waiting, run, link);
                run_free(run);
        }
        hooks->n_waiting = 0;
        TAILQ_FOREACH (run, &hooks->running, link)
                runner_stop(run->runner, 0);
}

Hooks *hooks_free(Hooks *hooks) {
        HookRun *run;

        if (!hooks)
                return NULL;
        while ((run = TAILQ_FIRST(&hooks->waiting))) {
                TAILQ_REMOVE(&hooks->waiting, run, link);
                run_free(run);
        }
        while ((run = TAILQ_FIRST(&hooks->running))) {
                TAILQ_REMOVE(&hooks->running, run, link);
                runner_unwatch(&run->watcher);
                runner_free(run->runner);
                run_free(run);
        }
        free(hooks);
        return NULL;
}

/* ---------------------------------------------------------------------------------------------------------- the takeover */

static Baton__Snapshot__Hook *save_run(Save *save, const HookRun *run, Manifest *manifest) {
        Baton__Snapshot__Hook *message = save_message(save, &baton__snapshot__hook__descriptor);

        if (!message)
                return NULL;
        message->timeout_us = run->timeout_us;
        message->late = run->late;
        message->deadline_us = loop_timer_deadline(&run->timer);
        save_text(save, &message->about, run->about);
        save_text(save, &message->event, run->event);
        if (save->error == 0)
                save->error = runner_config_save(run->config, &message->configuration);
        if (save->error == 0 && run->runner)
                save->error = runner_save(run->runner, manifest, &message->runner);
        return message;
}

int hooks_save(const Hooks *hooks, Manifest *manifest, Baton__Snapshot__Snapshot *snapshot) {
        Save save = { 0 };
        const HookRun *run;

        snapshot->left_out_hooks = hooks->n_left_out;
        snapshot->hooks_ever = hooks->n_ever;
        snapshot->hooks = save_array(&save, hooks->n_running + hooks->n_waiting, sizeof(*snapshot->hooks));
        TAILQ_FOREACH (run, &hooks->running, link) {
                Baton__Snapshot__Hook *message = save_run(&save, run, manifest);

                if (message)
                        snapshot->hooks[snapshot->n_hooks++] = message;
        }
        TAILQ_FOREACH (run, &hooks->waiting, link) {
                Baton__Snapshot__Hook *message = save_run(&save, run, manifest);

                if (message)
                        snapshot->hooks[snapshot->n_hooks++] = message;
        }
        return save.error;
}

/* event_name() - one that lives as long as the program; NULL: there is none of that name. */
static const char *event_name(const char *name) {
        for (unsigned state = 0; state < _POLICY_STATE_N; state++)
                if (strcmp(name, policy_state_name((PolicyState) state)) == 0)
                        return policy_state_name((PolicyState) state);
        return strcmp(name, "exit") == 0 ? "exit" : NULL;
}

static void restore_run(Hooks *hooks, const Baton__Snapshot__Hook *message) {
        const char *event = event_name(message->event);
        HookRun *run = event && message->configuration ? calloc(1, sizeof(*run)) : NULL;
        int r = run ? runner_config_restore(message->configuration, &run->config) : -EPROTO;

        if (r == 0) {
                run->hooks = hooks;
                run->event = event;
                run->timeout_us = message->timeout_us;
                run->late = message->late;
                run->timer = LOOP_TIMER_NULL(time_is_over);
                (void) snprintf(run->about, sizeof(run->about), "%s", message->about);
        }
        if (r == 0 && message->runner)
                r = runner_make_crossed(hooks->supervisor, message->runner, run->config, &run->runner);
        if (r < 0) {
                log_warning("runner %s: a hook was not taken over: %s", message->about, strerror(-r));
                if (run)
                        runner_config_unref(run->config);
                free(run);
        } else if (run->runner) {
                follow(run);
                if (message->deadline_us)
                        loop_timer_set(hooks->supervisor->loop, &run->timer, message->deadline_us);
        } else {
                TAILQ_INSERT_TAIL(&hooks->waiting, run, link);
                hooks->n_waiting++;
        }
}

void hooks_restore(Hooks *hooks, const Baton__Snapshot__Snapshot *snapshot) {
        hooks->n_left_out = snapshot->left_out_hooks;
        hooks->n_ever = snapshot->hooks_ever;
        for (size_t i = 0; i < snapshot->n_hooks; i++)
                restore_run(hooks, snapshot->hooks[i]);
}

Runner *hooks_find(const Hooks *hooks, const char *name) {
        HookRun *run;

        TAILQ_FOREACH (run, &hooks->running, link)
                if (strcmp(run->runner->name, name) == 0)
                        return run->runner;
        return NULL;
}

void hooks_restore_crossed(Hooks *hooks, Manifest *manifest) {
        HookRun *run;

        TAILQ_FOREACH (run, &hooks->running, link)
                runner_restore_crossed(run->runner, manifest);
}

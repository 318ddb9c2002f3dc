/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Transients: one that never came up is forgotten as soon as whoever waits for it has been told; one that has ended is
 * kept until TRANSIENT_ENDED_MAX later ones have, or a new one takes its name.
 *
 * A number in a name is looked for from where the last one was found, per hash of the program's name, not from 1: so the
 * thousandth `sleep' is named as fast as the first.
 */

#include "supervisor/transient.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "supervisor/chronicle.h"
#include "supervisor/runner-internal.h"
#include "supervisor/supervisor.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"

void transients_init(Transients *transients) {
        *transients = (Transients){ 0 };
        TAILQ_INIT(&transients->ended);
}

/* -------------------------------------------------------------------------------------------------------------- names */

bool transient_name_is_valid(const char *name) {
        size_t n = strlen(name);

        return n > 0 && n <= CONFIG_NAME_MAX && strspn(name, NAME_CHARACTERS) == n;
}

static uint32_t hash(const char *text, size_t n) {
        uint32_t h = 2166136261u; /* FNV-1a */

        for (size_t i = 0; i < n; i++)
                h = (h ^ (unsigned char) text[i]) * 16777619u;
        return h;
}

/* hint_of() - for the names "BASE.N"; begun anew where another base had its place. */
static TransientHint *hint_of(Transients *transients, const char *base, size_t n) {
        uint32_t h = hash(base, n);
        TransientHint *hint = &transients->hints[h % TRANSIENT_HINTS];

        if (hint->hash != h || hint->next == 0)
                *hint = (TransientHint){ .hash = h, .next = 1 };
        return hint;
}

const char *transient_name(Supervisor *supervisor, const char *program, char name[CONFIG_NAME_MAX + 1]) {
        const char *slash = strrchr(program, '/'), *base = slash ? slash + 1 : program;
        TransientHint *hint;
        char clean[40];
        size_t n = 0;

        for (; base[n] && n < sizeof(clean) - 1; n++)
                clean[n] = strchr(NAME_CHARACTERS, base[n]) ? base[n] : '_';
        if (n == 0)
                n = (size_t) snprintf(clean, sizeof(clean), "runner");
        clean[n] = '\0';
        hint = hint_of(&supervisor->transients, clean, n);
        do
                (void) snprintf(name, CONFIG_NAME_MAX + 1, "%s.%u", clean, hint->next++);
        while (runner_find(supervisor, name));
        return name;
}

/* give_back() - the number in a name that is free again, if it is a lower one. */
static void give_back(Supervisor *supervisor, const char *name) {
        const char *dot = strrchr(name, '.');
        unsigned number = 0;
        TransientHint *hint;

        if (!dot || sscanf(dot + 1, "%9u", &number) != 1 || number == 0)
                return;
        hint = hint_of(&supervisor->transients, name, (size_t) (dot - name));
        hint->next = MIN(hint->next, number);
}

/* ------------------------------------------------------------------------------------------------------- their life */

int transient_start(Supervisor *supervisor, RunnerConfig *config, int terminal_fd_consume, Runner **ret_runner) {
        _cleanup_fd_ int terminal = terminal_fd_consume;
        Runner *runner, *before = runner_find(supervisor, config->name);
        int r;

        if (supervisor->stopping)
                return -ESHUTDOWN;
        if (before && before->ended)
                transient_forget(before);
        r = runner_new(&runner, supervisor, config, 0);
        if (r < 0)
                return r;
        runner->transient = true;
        chronicle_made(runner);
        runner->terminal_fd = fd_take(&terminal);
        (void) runner_start(runner);
        runner_handle(runner); /* now: the next call of the client's may be to it */
        *ret_runner = runner;
        return 0;
}

static void recall(Runner *runner) {
        Transients *transients = &runner->supervisor->transients;

        TAILQ_REMOVE(&transients->ended, runner, member);
        transients->n_ended--;
        runner->ended = false;
}

void transient_forget(Runner *runner) {
        Supervisor *supervisor = runner->supervisor;

        if (runner->ended)
                recall(runner);
        give_back(supervisor, runner->name);
        runner_forget(runner);
}

static void remember(Runner *runner) {
        Transients *transients = &runner->supervisor->transients;

        runner->ended = true;
        TAILQ_INSERT_TAIL(&transients->ended, runner, member);
        transients->n_ended++;
}

void transient_settled(Runner *runner) {
        Transients *transients = &runner->supervisor->transients;

        if (runner->ended)
                return;
        if (!runner->instance || !runner->instance->was_up) {
                transient_forget(runner);
                return;
        }
        remember(runner);
        if (transients->n_ended > TRANSIENT_ENDED_MAX)
                transient_forget(TAILQ_FIRST(&transients->ended));
}

void transient_restore_ended(Runner *runner, bool ended) {
        if (ended && !runner->ended)
                remember(runner);
        else if (!ended && runner->ended)
                recall(runner);
}

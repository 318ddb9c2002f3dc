/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Leftovers: a daemon that forked itself out of its runner's process group and session is nobody's child when the runner is
 * gone, and comes to the keeper. There it is found, among the keeper's children, as one that is no instance and is of the
 * runner's session, or has its name in its environment (BATON_RUNNER). It is named, not killed: without a cgroup nobody
 * can tell it from what somebody wanted to go on. Only a stop that somebody asked for looks, since it reads /proc, and it is
 * answered after that. With few children a look is at once; with thousands, as each look goes over all of them, it waits
 * until looks are a small part of the time, and is then one for all that were stopped meanwhile.
 *
 * What is of the runner's group was killed with it, and hands its own children on when it is gone: while some of it are on
 * their way out, there is another look.
 */

#include "supervisor/leftovers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/macro.h"
#include "common/text.h"
#include "supervisor/runner-internal.h"
#include "supervisor/supervisor.h"

#define PAUSE_US (50 * USEC_PER_MSEC) /* between two looks, at most */
#define AGAIN_US (5 * USEC_PER_MSEC)

enum {
        PAUSE_LOOKS = 10, /* between two looks: so many times what the one before took */
        LOOKS_MAX = 10,   /* for one whose group is on its way out */
};

static int compare(const void *a, const void *b) {
        pid_t x = *(const pid_t *) a, y = *(const pid_t *) b;

        return (x > y) - (x < y);
}

/* known_pids() - of all instances, sorted, and ours. NULL: no memory. */
static pid_t *known_pids(const Supervisor *supervisor, size_t *ret_n) {
        const Instance *instance;
        size_t n = 0;
        pid_t *pids = calloc(HASH_CNT(by_id, supervisor->instances) + 1, sizeof(*pids));

        if (!pids)
                return NULL;
        for (instance = supervisor->instances; instance; instance = instance->by_id.next)
                pids[n++] = instance->pid;
        pids[n++] = getpid();
        qsort(pids, n, sizeof(*pids), compare);
        *ret_n = n;
        return pids;
}

/* read_mark() - the runner that the environment of @pid names; NULL: none. @text is what was read. */
static const char *read_mark(pid_t pid, char *text, size_t size) {
        static const char mark[] = "BATON_RUNNER=";
        char path[64];
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/environ", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, size - 1);
        text[MAX(n, (ssize_t) 0)] = '\0';
        for (ssize_t at = 0; at < n; at += (ssize_t) strlen(text + at) + 1)
                if (strncmp(text + at, mark, strlen(mark)) == 0)
                        return text + at + strlen(mark);
        return NULL;
}

/* describe() - NULL: it lives no more, and only waits to be reaped; or no memory. */
static char *describe(pid_t pid) {
        char path[64], line[128], *name, *end, *text;
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
        line[MAX(n, (ssize_t) 0)] = '\0';
        name = strchr(line, '(');
        end = strrchr(line, ')');
        if (!name || !end || end[1] != ' ' || end[2] == 'Z' || end[2] == 'X')
                return NULL;
        *end = '\0';
        (void) text_mend(++name);
        return asprintf(&text, "%d %s", (int) pid, name) < 0 ? NULL : text;
}

/* whose() - who has left @pid behind, NULL: none of those. */
static Leaver *whose(const Leftovers *leftovers, pid_t pid) {
        pid_t group = getpgid(pid), session = getsid(pid);
        char text[32 * 1024];
        const char *mark;

        for (size_t i = 0; i < leftovers->n; i++) {
                Leaver *one = &leftovers->leavers[i];

                if (group == one->leader) {
                        one->is_dying = true;
                        return NULL;
                }
                if (session == one->leader)
                        return one;
        }
        mark = read_mark(pid, text, sizeof(text)); /* last: it costs more than all the others */
        for (size_t i = 0; mark && i < leftovers->n; i++)
                if (strcmp(mark, leftovers->leavers[i].name) == 0)
                        return &leftovers->leavers[i];
        return NULL;
}

static void forget_found(Leaver *leaver) {
        leaver->found = leftovers_free(leaver->found);
        leaver->n = 0;
        leaver->is_dying = false;
}

static void note(Leaver *leaver, pid_t pid) {
        if (!leaver->found)
                leaver->found = calloc(LEFTOVERS_MAX + 1, sizeof(*leaver->found));
        if (leaver->found && leaver->n < LEFTOVERS_MAX && (leaver->found[leaver->n] = describe(pid)))
                leaver->n++;
}

/* find() - among the children of the keeper. */
static void find(const Leftovers *leftovers, const Supervisor *supervisor) {
        _cleanup_free_ pid_t *known = NULL;
        size_t n_known = 0;
        char path[64];
        FILE *file;
        int pid;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int) getppid(), (int) getppid());
        file = fopen(path, "re");
        if (!file)
                return;
        known = known_pids(supervisor, &n_known);
        while (known && fscanf(file, "%d", &pid) == 1) {
                pid_t one = pid;
                Leaver *leaver = bsearch(&one, known, n_known, sizeof(*known), compare) ? NULL : whose(leftovers, one);

                if (leaver)
                        note(leaver, one);
        }
        (void) fclose(file);
}

/* tell() - and the runner has them, unless it has been started again; whoever waits for its stop hears of it. */
static void tell(Supervisor *supervisor, Leaver *leaver) {
        Runner *runner = runner_find(supervisor, leaver->name);

        for (size_t i = 0; i < leaver->n; i++)
                log_warning(
                        "runner %s: left a process behind that is not of its group: %s; it lives until baton ends, or "
                        "somebody kills it",
                        leaver->name, leaver->found[i]);
        if (!runner || runner->last_instance != leaver->instance)
                return;
        runner_touch(runner);
        leftovers_free(runner->leftovers);
        runner->leftovers = TAKE_PTR(leaver->found);
        runner->sought = false;
        runner_tell(runner, runner_outcome(runner));
}

static void forget(Leftovers *leftovers) {
        for (size_t i = 0; i < leftovers->n; i++)
                forget_found(&leftovers->leavers[i]);
        free(leftovers->leavers);
        leftovers->leavers = NULL;
        leftovers->n = leftovers->n_room = 0;
}

/* add() - negative: no memory. */
static int add(Leftovers *leftovers, const Leaver *leaver) {
        if (leftovers->n == leftovers->n_room) {
                size_t room = leftovers->n_room ? 2 * leftovers->n_room : 4;
                Leaver *grown = reallocarray(leftovers->leavers, room, sizeof(*grown));

                if (!grown)
                        return -ENOMEM;
                leftovers->leavers = grown;
                leftovers->n_room = room;
        }
        leftovers->leavers[leftovers->n++] = *leaver;
        return 0;
}

/* look() - @last: there will be none after it for those that there are now. */
static void look(Leftovers *leftovers, bool last) {
        Supervisor *supervisor = CONTAINER_OF(leftovers, Supervisor, leftovers);
        uint64_t begun = clock_now(), ended;
        Leftovers these;

        find(leftovers, supervisor);
        ended = clock_now();
        leftovers->n_looks++;
        leftovers->next_us = clock_after(ended, MIN(PAUSE_LOOKS * (ended - begun), PAUSE_US));
        these = *leftovers; /* who is told may stop others */
        leftovers->leavers = NULL;
        leftovers->n = leftovers->n_room = 0;
        for (size_t i = 0; i < these.n; i++) {
                Leaver *one = &these.leavers[i];
                bool again = !last && one->is_dying && ++one->n_looks < LOOKS_MAX;

                if (again)
                        forget_found(one);
                if (!again || add(leftovers, one) < 0)
                        tell(supervisor, one);
        }
        forget(&these);
        if (leftovers->n > 0)
                loop_timer_set(supervisor->loop, &leftovers->timer,
                               MAX(leftovers->next_us, clock_after(ended, AGAIN_US)));
}

void leftovers_look(Leftovers *leftovers) {
        if (leftovers->n == 0)
                return;
        loop_timer_stop(&leftovers->timer);
        look(leftovers, true);
}

static void timer_fired(LoopTimer *timer) {
        look(CONTAINER_OF(timer, Leftovers, timer), false);
}

void leftovers_init(Leftovers *leftovers) {
        *leftovers = (Leftovers){ .timer = LOOP_TIMER_NULL(timer_fired) };
}

void leftovers_deinit(Leftovers *leftovers) {
        loop_timer_stop(&leftovers->timer);
        forget(leftovers);
}

/* Without memory there will be no word about it. */
void leftovers_expect(Leftovers *leftovers, Runner *runner, pid_t leader) {
        Leaver leaver = { .leader = leader, .instance = runner->last_instance };

        (void) snprintf(leaver.name, sizeof(leaver.name), "%s", runner->name);
        if (add(leftovers, &leaver) < 0)
                return;
        runner->sought = true;
        if (leftovers->n == 1)
                loop_timer_set(runner->supervisor->loop, &leftovers->timer, leftovers->next_us);
}

char **leftovers_free(char **leftovers) {
        for (char **one = leftovers; one && *one; one++)
                free(*one);
        free(leftovers);
        return NULL;
}

char **leftovers_restore(char *const *texts, size_t n) {
        char **leftovers = n > 0 && n <= LEFTOVERS_MAX ? calloc(n + 1, sizeof(*leftovers)) : NULL;

        for (size_t i = 0; leftovers && i < n && (leftovers[i] = strdup(texts[i])); i++)
                ;
        return leftovers;
}

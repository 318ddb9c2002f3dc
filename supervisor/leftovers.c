/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Leftovers: a daemon that forked itself out of its runner's process group and session is nobody's child when the runner is
 * gone, and comes to the keeper. There it is found, among the keeper's children, as one that is no instance and is of the
 * runner's session, or has its name in its environment (BATON_RUNNER). It is named, not killed: without a cgroup nobody
 * can tell it from what somebody wanted to go on. Only a stop that somebody asked for looks, since it reads /proc.
 */

#include "supervisor/leftovers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"
#include "common/text.h"
#include "supervisor/supervisor.h"

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

/* has_mark() - whether its environment names the runner. */
static bool has_mark(pid_t pid, const char *mark) {
        char path[64], text[32 * 1024];
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/environ", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, sizeof(text));
        return n > 0 && memmem(text, (size_t) n, mark, strlen(mark) + 1);
}

static char *describe(pid_t pid) {
        char path[64], name[32] = "";
        char *text;
        FILE *file;

        (void) snprintf(path, sizeof(path), "/proc/%d/comm", (int) pid);
        file = fopen(path, "re");
        if (file && fgets(name, sizeof(name), file))
                name[strcspn(name, "\n")] = '\0';
        if (file)
                (void) fclose(file);
        (void) text_mend(name);
        return asprintf(&text, "%d %s", (int) pid, name) < 0 ? NULL : text;
}

char **leftovers_find(const Runner *runner, pid_t leader) {
        char path[64], mark[CONFIG_NAME_MAX + 16];
        _cleanup_free_ pid_t *known = NULL;
        char **found = NULL;
        size_t n_known = 0, n = 0;
        FILE *file;
        int pid;

        (void) snprintf(mark, sizeof(mark), "BATON_RUNNER=%s", runner->name);
        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int) getppid(), (int) getppid());
        file = fopen(path, "re");
        if (!file)
                return NULL;
        known = known_pids(runner->supervisor, &n_known);
        while (known && n < LEFTOVERS_MAX && fscanf(file, "%d", &pid) == 1) {
                pid_t one = pid;

                /* What is of the group has been killed with it, and may still be on its way out. */
                if (bsearch(&one, known, n_known, sizeof(*known), compare) || getpgid(one) == leader ||
                    (getsid(one) != leader && !has_mark(one, mark)))
                        continue;
                if (!found)
                        found = calloc(LEFTOVERS_MAX + 1, sizeof(*found));
                if (!found || !(found[n] = describe(one)))
                        break;
                n++;
        }
        (void) fclose(file);
        return found;
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

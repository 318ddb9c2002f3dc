/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, cycles: whether runners wait for one another in a circle. A walk in depth with a stack of its own, so that a
 * chain of ten thousand costs no stack of ours. Each edge that leads back to a runner of the present path closes a cycle,
 * which is told whole, once.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum Colour {
        COLOUR_NEW,
        COLOUR_ON_PATH,
        COLOUR_DONE,
} Colour;

/* One runner of the path, and which of its edges comes next. */
typedef struct Step {
        size_t node;
        size_t edge;
} Step;

typedef struct Cycles {
        ConfigLoader *loader;
        const ConfigName *names;
        size_t n;
        Colour *colours;
        Step *path;
        size_t depth;
} Cycles;

static int compare_key(const void *key, const void *name) {
        return strcmp(key, ((const ConfigName *) name)->name);
}

/* edge() - the name that edge @n of @config leads to, and by which key; NULL: there are no more. */
static const char *edge(const RunnerConfig *config, size_t n, const char **ret_key) {
        const char *const *lists[] = { config->after, config->requires };
        static const char *const keys[] = { "after", "requires" };

        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                for (const char *const *name = lists[i]; name && *name; name++)
                        if (n-- == 0) {
                                *ret_key = keys[i];
                                return *name;
                        }
        return NULL;
}

/* report() - the path from @node on, and back to it. */
static void report(Cycles *cycles, size_t node, const char *key) {
        const ConfigName *from = &cycles->names[cycles->path[cycles->depth - 1].node];
        char *text = NULL;
        size_t size, at = 0;
        FILE *out = open_memstream(&text, &size);

        if (!out) {
                cycles->loader->no_memory = true;
                return;
        }
        while (cycles->path[at].node != node)
                at++;
        for (; at < cycles->depth; at++)
                (void) fprintf(out, "%s -> ", cycles->names[cycles->path[at].node].name);
        (void) fprintf(out, "%s", cycles->names[node].name);
        if (fclose(out) == 0) {
                cycles->loader->document = from->document;
                (void) snprintf(cycles->loader->path, sizeof(cycles->loader->path), "runners.%s", from->name);
                config_fail(cycles->loader, key, "waits for itself: %s", text);
        }
        free(text);
}

/* enter() - @node is the path's next. */
static void enter(Cycles *cycles, size_t node) {
        cycles->colours[node] = COLOUR_ON_PATH;
        cycles->path[cycles->depth++] = (Step){ .node = node };
}

static void walk(Cycles *cycles, size_t start) {
        enter(cycles, start);
        while (cycles->depth > 0) {
                Step *step = &cycles->path[cycles->depth - 1];
                const ConfigName *next;
                const char *key, *name = edge(cycles->names[step->node].config, step->edge++, &key);

                if (!name) {
                        cycles->colours[step->node] = COLOUR_DONE;
                        cycles->depth--;
                        continue;
                }
                next = bsearch(name, cycles->names, cycles->n, sizeof(*cycles->names), compare_key);
                if (!next || !next->config)
                        continue;
                if (cycles->colours[next - cycles->names] == COLOUR_NEW)
                        enter(cycles, (size_t) (next - cycles->names));
                else if (cycles->colours[next - cycles->names] == COLOUR_ON_PATH)
                        report(cycles, (size_t) (next - cycles->names), key);
        }
}

int config_cycles_check(ConfigLoader *loader, const ConfigName *names, size_t n) {
        Cycles cycles = { .loader = loader, .names = names, .n = n };
        bool good;

        cycles.colours = calloc(MAX(n, (size_t) 1), sizeof(*cycles.colours));
        cycles.path = calloc(MAX(n, (size_t) 1), sizeof(*cycles.path));
        good = cycles.colours && cycles.path;
        for (size_t i = 0; good && i < n; i++)
                if (names[i].config && cycles.colours[i] == COLOUR_NEW)
                        walk(&cycles, i);
        free(cycles.colours);
        free(cycles.path);
        return good ? 0 : -ENOMEM;
}

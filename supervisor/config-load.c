/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, the whole: from the files of a source to one Config, or to all that is wrong with them. First each file's form,
 * then names, then each runner's values over `defaults', then what they say of one another. A step goes on after the
 * faults of those before it, with what was good, so that one look shows them all; what follows from a fault that was
 * told is not told again.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/near.h"

enum { GROUP_DEPTH_MAX = 16 };

typedef struct Load {
        ConfigLoader loader;
        ConfigDocument *documents;
        size_t n_documents;
        ConfigName *names; /* by name */
        size_t n_names;
        ConfigDraft defaults;
        const ConfigDocument *supervisor; /* where it is; NULL: nowhere */
        Config *config;
} Load;

/* look_at() - what messages are about: @name in @section, or a section as a whole. */
static void look_at(ConfigLoader *loader, const ConfigDocument *document, const char *section, const char *name) {
        loader->document = document;
        (void) snprintf(loader->path, sizeof(loader->path), "%s%s%s", section, name ? "." : "", name ? name : "");
}

/* -------------------------------------------------------------------------------------------------------------- names */

static int compare_names(const void *a, const void *b) {
        const ConfigName *one = a, *other = b;
        int r = strcmp(one->name, other->name);

        return r != 0 ? r : (one->order > other->order) - (one->order < other->order);
}

static int compare_key(const void *key, const void *name) {
        return strcmp(key, ((const ConfigName *) name)->name);
}

/* find_name() - or NULL. */
static ConfigName *find_name(const Load *load, const char *name) {
        return load->n_names > 0 ? bsearch(name, load->names, load->n_names, sizeof(*load->names), compare_key) : NULL;
}

static void look_at_name(Load *load, const ConfigName *name) {
        look_at(&load->loader, name->document, name->runner ? "runners" : "groups", name->name);
}

static bool has_name_characters(const char *name) {
        for (; *name; name++)
                if (!(*name >= 'a' && *name <= 'z') && !(*name >= 'A' && *name <= 'Z') &&
                    !(*name >= '0' && *name <= '9') && !strchr("._-@", *name))
                        return false;
        return true;
}

/* is_numbered() - "web.12". */
static bool is_numbered(const char *name) {
        const char *dot = strrchr(name, '.');

        return dot && dot[1] && strspn(dot + 1, "0123456789") == strlen(dot + 1);
}

static void check_name(Load *load, const ConfigName *name) {
        size_t max = name->runner && name->runner->instances ? CONFIG_TEMPLATE_NAME_MAX : CONFIG_NAME_MAX;

        look_at_name(load, name);
        if (*name->name == '\0' || strlen(name->name) > max || !has_name_characters(name->name) || *name->name == '-')
                config_fail(&load->loader, NULL,
                            "expected a name of 1 to %zu letters, digits and . _ - @, not beginning with -", max);
        else if (is_numbered(name->name))
                config_fail(&load->loader, NULL,
                            "expected a name that does not end in a dot and a number, as the instances "
                            "of a template do");
}

static void check_twice(Load *load, const ConfigName *name, const ConfigName *before) {
        char path[CONFIG_PATH_SIZE];

        look_at_name(load, name);
        (void) snprintf(path, sizeof(path), "%s.%s", before->runner ? "runners" : "groups", before->name);
        config_fail(&load->loader, NULL, "a %s of this name is already at %s:%u", before->runner ? "runner" : "group",
                    before->document->file, config_document_line(before->document, path));
}

/* collect_names() - of all files. 0 or -ENOMEM; -EINVAL: too many. */
static int collect_names(Load *load) {
        size_t n = 0, m = 0;

        for (size_t i = 0; i < load->n_documents; i++)
                if (load->documents[i].raw)
                        n += load->documents[i].raw->n_runners + load->documents[i].raw->n_groups;
        if (n > CONFIG_RUNNERS_MAX) {
                config_errors_add(load->loader.errors, load->documents[0].file, 0, NULL,
                                  "more than %d runners and groups: have instances of a template", CONFIG_RUNNERS_MAX);
                return -EINVAL;
        }
        load->names = calloc(MAX(n, (size_t) 1), sizeof(*load->names));
        if (!load->names)
                return -ENOMEM;
        for (size_t i = 0; i < load->n_documents; i++) {
                const ConfigDocument *document = &load->documents[i];

                for (unsigned j = 0; document->raw && j < document->raw->n_runners; j++, m++)
                        load->names[m] = (ConfigName){ .name = document->raw->runners[j].name,
                                                       .document = document,
                                                       .runner = &document->raw->runners[j],
                                                       .order = (unsigned) m };
                for (unsigned j = 0; document->raw && j < document->raw->n_groups; j++, m++)
                        load->names[m] = (ConfigName){ .name = document->raw->groups[j].name,
                                                       .document = document,
                                                       .group = &document->raw->groups[j],
                                                       .order = (unsigned) m };
        }
        qsort(load->names, n, sizeof(*load->names), compare_names);
        for (size_t i = 0; i < n; i++)
                check_name(load, &load->names[i]);
        for (size_t i = 0; i < n; i++)
                if (load->n_names > 0 && strcmp(load->names[i].name, load->names[load->n_names - 1].name) == 0)
                        check_twice(load, &load->names[i], &load->names[load->n_names - 1]);
                else
                        load->names[load->n_names++] = load->names[i];
        return 0;
}

/* unknown_name() - @name is nobody's. */
static void unknown_name(Load *load, const char *key, const char *name, const char *what) {
        Near near = { .wanted = name };
        char text[NEAR_TEXT_SIZE];

        for (size_t i = 0; i < load->n_names; i++)
                near_offer(&near, load->names[i].name);
        config_fail(&load->loader, key, "there is no %s %.100s%s", what, name, near_text(&near, text));
}

/* ----------------------------------------------------------------------------------------------------------- sections */

/* once() - whether @section, which is in @document, is the first of its kind. */
static bool once(Load *load, const ConfigDocument *document, const ConfigDocument **first, const char *section) {
        look_at(&load->loader, document, section, NULL);
        if (*first) {
                config_fail(&load->loader, NULL, "is already at %s:%u", (*first)->file,
                            config_document_line(*first, section));
                return false;
        }
        *first = document;
        return true;
}

static void load_sections(Load *load) {
        for (size_t i = 0; i < load->n_documents; i++) {
                const ConfigDocument *document = &load->documents[i];

                if (document->raw && document->raw->supervisor &&
                    once(load, document, &load->supervisor, "supervisor"))
                        config_values_supervisor(&load->loader, document->raw->supervisor, &load->config->supervisor);
                if (document->raw && document->raw->defaults &&
                    once(load, document, &load->loader.defaults, "defaults"))
                        config_values_apply(&load->loader, &load->defaults, document->raw->defaults);
        }
}

/* ------------------------------------------------------------------------------------------------------- dependencies */

/* A list of names without a name twice. */
typedef struct NameList {
        const char **names; /* ended by NULL */
        size_t n, room;
} NameList;

/* append_name() - one that is not in it. */
static void append_name(Load *load, NameList *list, const char *name) {
        if (list->n + 1 >= list->room) {
                size_t room = MAX(list->room * 2, (size_t) 8);
                const char **names = config_arena_new(&load->loader.arena, room * sizeof(*names));

                if (!names) {
                        load->loader.no_memory = true;
                        return;
                }
                if (list->n > 0)
                        memcpy(names, list->names, list->n * sizeof(*names));
                list->names = names;
                list->room = room;
        }
        list->names[list->n++] = name;
        list->names[list->n] = NULL;
}

static void add_name(Load *load, NameList *list, const char *name) {
        for (size_t i = 0; i < list->n; i++)
                if (strcmp(list->names[i], name) == 0)
                        return;
        append_name(load, list, name);
}

/* add_members() - a runner, or the runners of a group and of the groups in it. A circle of groups is told elsewhere. */
static void add_members(Load *load, NameList *list, const ConfigName *name, unsigned depth) {
        if (name->runner)
                add_name(load, list, name->name);
        for (unsigned i = 0; name->group && i < name->group->members.n && depth < GROUP_DEPTH_MAX &&
                             list->n <= CONFIG_DEPENDENCIES_MAX;
             i++) {
                const ConfigName *member = find_name(load, name->group->members.items[i]);

                if (member)
                        add_members(load, list, member, depth + 1);
        }
}

/* resolve() - @names, which may be of groups, to names of runners. */
static const char *const *resolve(Load *load, const char *key, const char *const *names) {
        NameList list = { 0 };

        for (; names && *names; names++) {
                const ConfigName *name = find_name(load, *names);

                if (name)
                        add_members(load, &list, name, 0);
                else
                        unknown_name(load, key, *names, "runner or group");
                if (list.n > CONFIG_DEPENDENCIES_MAX) {
                        config_fail(&load->loader, key, "these are more than %d runners", CONFIG_DEPENDENCIES_MAX);
                        break;
                }
        }
        return list.names;
}

/* ------------------------------------------------------------------------------------------------------------ runners */

static int load_runner(Load *load, ConfigName *name) {
        ConfigDraft draft = load->defaults;

        look_at_name(load, name);
        draft.config.name = name->name;
        config_values_apply(&load->loader, &draft, name->runner);
        config_values_finish(&load->loader, &draft, name->runner);
        draft.config.after = resolve(load, "after", draft.config.after);
        draft.config.requires = resolve(load, "requires", draft.config.requires);
        return load->loader.no_memory ? -ENOMEM : runner_config_new(&name->config, &draft.config);
}

static int compare_order(const void *a, const void *b) {
        const ConfigName *one = *(const ConfigName *const *) a, *other = *(const ConfigName *const *) b;

        return (one->order > other->order) - (one->order < other->order);
}

/* load_runners() - in the order of the files, for messages and for those who list them. */
static int load_runners(Load *load) {
        Config *config = load->config;
        ConfigName **ordered = config_arena_new(&load->loader.arena, load->n_names * sizeof(*ordered));
        int r = 0;

        config->runners = calloc(MAX(load->n_names, (size_t) 1), sizeof(*config->runners));
        config->sorted = calloc(MAX(load->n_names, (size_t) 1), sizeof(*config->sorted));
        if (!ordered || !config->runners || !config->sorted)
                return -ENOMEM;
        for (size_t i = 0; i < load->n_names; i++)
                ordered[i] = &load->names[i];
        qsort(ordered, load->n_names, sizeof(*ordered), compare_order);
        for (size_t i = 0; i < load->n_names && r == 0; i++) {
                if (!ordered[i]->runner)
                        continue;
                r = load_runner(load, ordered[i]);
                if (r == 0)
                        config->runners[config->n_runners++] = ordered[i]->config;
        }
        for (size_t i = 0, n = 0; i < load->n_names; i++)
                if (load->names[i].config)
                        config->sorted[n++] = load->names[i].config;
        return r;
}

/* ------------------------------------------------------------------------------------------------------------- groups */

/* add_group_members() - each is there, and is in no other group. */
static void add_group_members(Load *load, const ConfigName *name, NameList *members) {
        look_at_name(load, name);
        for (unsigned i = 0; i < name->group->members.n; i++) {
                ConfigName *member = find_name(load, name->group->members.items[i]);

                if (!member) {
                        unknown_name(load, "members", name->group->members.items[i], "runner or group");
                } else if (!member->in) {
                        member->in = name;
                        append_name(load, members, member->name);
                } else if (member->in != name) {
                        config_fail(&load->loader, "members", "%s is already a member of group %s", member->name,
                                    member->in->name);
                }
        }
}

static int load_group(Load *load, ConfigName *name) {
        static const char *const no_names[] = { NULL };
        GroupConfig draft = { .name = name->name,
                              .strategy = CONFIG_ONE_FOR_ONE,
                              .intensity = { .restarts = CONFIG_GROUP_RESTARTS,
                                             .window_us = CONFIG_GROUP_WINDOW_US } };
        NameList members = { 0 };
        int r;

        add_group_members(load, name, &members);
        if (name->group->members.n == 0 && !config_values_has(&load->loader, "members"))
                config_fail(&load->loader, NULL, "'members' is missing: expected %s", config_expected("members"));
        config_values_strategy(&load->loader, name->group->strategy, &draft.strategy);
        config_values_intensity(&load->loader, name->group->intensity, &draft.intensity);
        if (load->loader.no_memory)
                return -ENOMEM;
        draft.members = members.names ? members.names : no_names;
        r = group_config_new(&load->config->groups[load->config->n_groups], &draft);
        if (r == 0)
                name->made = load->config->groups[load->config->n_groups++];
        return r;
}

/* check_circle() - whether a group is in itself. */
static void check_circle(Load *load, const GroupConfig *group) {
        const GroupConfig *parent = group->parent;

        for (size_t i = 0; parent && parent != group && i < load->config->n_groups; i++)
                parent = parent->parent;
        if (parent != group)
                return;
        look_at_name(load, find_name(load, group->name));
        config_fail(&load->loader, "members", "the group is a member of itself");
}

static int load_groups(Load *load) {
        Config *config = load->config;
        int r = 0;

        config->groups = calloc(MAX(load->n_names, (size_t) 1), sizeof(*config->groups));
        if (!config->groups)
                return -ENOMEM;
        for (size_t i = 0; i < load->n_names && r == 0; i++)
                if (load->names[i].group)
                        r = load_group(load, &load->names[i]);
        for (size_t i = 0; i < load->n_names; i++)
                if (load->names[i].made && load->names[i].in)
                        load->names[i].made->parent = load->names[i].in->made;
        for (size_t i = 0; i < config->n_groups; i++)
                check_circle(load, config->groups[i]);
        return r;
}

/* ------------------------------------------------------------------------------------------------- what must be there */

/* check_program() - that @start's could be executed. */
static void check_program(Load *load, const RunnerStart *start, const char *key) {
        _cleanup_free_ char *joined = NULL;
        const char *path = start->path;
        struct stat st;

        if (*path != '/' && start->cwd && asprintf(&joined, "%s/%s", start->cwd, path) >= 0)
                path = joined;
        if (stat(path, &st) < 0)
                config_fail(&load->loader, key, "program %s: %s", path, strerror(errno));
        else if (!S_ISREG(st.st_mode))
                config_fail(&load->loader, key, "program %s: not a file", path);
        else if (access(path, X_OK) < 0)
                config_fail(&load->loader, key, "program %s: not executable", path);
}

static void check_cwd(Load *load, const RunnerStart *start) {
        struct stat st;

        if (start->cwd && stat(start->cwd, &st) < 0)
                config_fail(&load->loader, "cwd", "directory %s: %s", start->cwd, strerror(errno));
        else if (start->cwd && !S_ISDIR(st.st_mode))
                config_fail(&load->loader, "cwd", "directory %s: not a directory", start->cwd);
}

static void check_hook(Load *load, const RunnerConfig *config, unsigned number, const char *name) {
        _cleanup_free_ RunnerStart *start = NULL;
        char error[CONFIG_ERROR_SIZE], key[48];
        const ConfigHook *hook = &config->hooks[number - 1];

        if (!hook->command)
                return;
        (void) snprintf(key, sizeof(key), "hooks.%u.command", number);
        if (runner_config_prepare_hook(config, hook, name, 1, NULL, &start, error) == 0)
                check_program(load, start, key);
        else
                config_fail(&load->loader, key, "%s", error);
}

/* check_runner() - the first of its instances, for all. */
static void check_runner(Load *load, const ConfigName *name) {
        RunnerConfig copy = *name->config;
        const RunnerConfig *config = &copy;
        char error[CONFIG_ERROR_SIZE], instance[CONFIG_NAME_MAX + 1];
        _cleanup_free_ RunnerStart *start = NULL;
        int r;

        look_at_name(load, name);
        if (!config->command)
                return;
        if (config->user && config->user->unresolved)
                copy.user = NULL; /* which was told */
        (void) runner_config_instance_name(config, 1, instance);
        r = runner_config_prepare(config, instance, config->is_template, NULL, &start, error);
        if (r < 0) {
                config_fail(&load->loader, strncmp(error, "env_file", 8) == 0 ? "env_file" : "command", "%s", error);
                return;
        }
        check_program(load, start, "command");
        check_cwd(load, start);
        for (unsigned i = 1; i <= config->n_hooks; i++)
                check_hook(load, config, i, instance);
}

/* -------------------------------------------------------------------------------------------------------------- whole */

static int load_all(Load *load, const ConfigSource *source) {
        int r = 0;

        load->config = calloc(1, sizeof(*load->config));
        if (!load->config)
                return -ENOMEM;
        load->config->refs = 1;
        load->documents = calloc(MAX(source->n, (size_t) 1), sizeof(*load->documents));
        if (!load->documents)
                return -ENOMEM;
        for (; load->n_documents < source->n && r == 0; load->n_documents += r == 0)
                r = config_document_load(&load->documents[load->n_documents], &source->files[load->n_documents],
                                         load->loader.errors);
        if (r == 0)
                r = collect_names(load);
        if (r < 0)
                return r;
        load_sections(load);
        r = load_runners(load);
        if (r == 0)
                r = load_groups(load);
        if (r == 0)
                r = config_cycles_check(&load->loader, load->names, load->n_names);
        for (size_t i = 0; i < load->n_names && r == 0 && load->loader.flags & CONFIG_LOAD_CHECK; i++)
                if (load->names[i].config)
                        check_runner(load, &load->names[i]);
        return load->loader.no_memory ? -ENOMEM : r;
}

/* keep_strings() - of the supervisor's section: what lies in the documents goes with them. */
static int keep_strings(Config *config) {
        SupervisorConfig *supervisor = &config->supervisor;
        const char *operators = supervisor->operators ? supervisor->operators : "";
        const char *metrics = supervisor->metrics ? supervisor->metrics : "";
        size_t n = strlen(operators) + 1, m = strlen(metrics) + 1;

        if (!supervisor->operators && !supervisor->metrics)
                return 0;
        config->strings = malloc(n + m);
        if (!config->strings)
                return -ENOMEM;
        memcpy(config->strings, operators, n);
        memcpy(config->strings + n, metrics, m);
        if (supervisor->operators)
                supervisor->operators = config->strings;
        if (supervisor->metrics)
                supervisor->metrics = config->strings + n;
        return 0;
}

static void load_deinit(Load *load) {
        config_unref(load->config);
        free(load->names);
        for (size_t i = 0; i < load->n_documents; i++)
                config_document_deinit(&load->documents[i]);
        free(load->documents);
        config_arena_deinit(&load->loader.arena);
        config_arena_deinit(&load->loader.users);
}

int config_load(Config **ret_config, const ConfigSource *source, ConfigLoadFlags flags, ConfigErrors *errors) {
        Load load = { .loader = { .errors = errors, .flags = flags }, .defaults = { .config = RUNNER_CONFIG_NULL } };
        size_t before = errors->n;
        int r = load_all(&load, source);

        if (r == 0 && errors->n == before)
                r = keep_strings(load.config);
        if (r == 0 && errors->n == before)
                *ret_config = TAKE_PTR(load.config);
        else if (r == 0)
                r = -EINVAL;
        config_errors_sort(errors);
        load_deinit(&load);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config: the structures, their memory and their ends. A RunnerConfig is copied from a draft in two passes of the same
 * code: the first one only counts, the second one writes into the block. So there is one allocation per runner, nothing of
 * it is freed by itself, and a member that is forgotten here is a pointer into the draft, which the tests find.
 */

#include "supervisor/config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------------ packing */

/* Where the block is written; @base NULL: only counted. */
typedef struct Packer {
        char *base;
        size_t used;
} Packer;

/* pack() - @size bytes of @data, aligned. Returns where they are, or will be; NULL for NULL. */
static void *pack(Packer *packer, const void *data, size_t size, size_t alignment) {
        size_t at = (packer->used + alignment - 1) & ~(alignment - 1);

        if (!data)
                return NULL;
        packer->used = at + size;
        if (!packer->base)
                return NULL;
        memcpy(packer->base + at, data, size);
        return packer->base + at;
}

static const char *pack_string(Packer *packer, const char *string) {
        return string ? pack(packer, string, strlen(string) + 1, 1) : NULL;
}

static const char *const *pack_strings(Packer *packer, const char *const *strings) {
        const char **packed;
        size_t n = 0;

        if (!strings)
                return NULL;
        while (strings[n])
                n++;
        packed = pack(packer, strings, (n + 1) * sizeof(*strings), _Alignof(char *));
        for (size_t i = 0; i < n; i++) {
                const char *string = pack_string(packer, strings[i]);

                if (packed)
                        packed[i] = string;
        }
        return packed;
}

#define PACK(_packer, _data, _n) pack(_packer, _data, sizeof(*(_data)) * (_n), _Alignof(__typeof__(*(_data))))

static const ConfigUser *pack_user(Packer *packer, const ConfigUser *user) {
        ConfigUser *packed = PACK(packer, user, 1), copy;

        if (!user)
                return NULL;
        copy = *user;
        copy.spawn.groups = PACK(packer, user->spawn.groups, user->spawn.n_groups);
        copy.name = pack_string(packer, user->name);
        copy.home = pack_string(packer, user->home);
        copy.shell = pack_string(packer, user->shell);
        copy.unresolved = pack_string(packer, user->unresolved);
        if (packed)
                *packed = copy;
        return packed;
}

static const ConfigCgroup *pack_cgroup(Packer *packer, const ConfigCgroup *cgroup) {
        ConfigCgroup *packed = PACK(packer, cgroup, 1);

        for (unsigned i = 0; cgroup && i < _CONFIG_CGROUP_N; i++) {
                const char *value = pack_string(packer, cgroup->values[i]);

                if (packed)
                        packed->values[i] = value;
        }
        return packed;
}

static const ConfigHook *pack_hooks(Packer *packer, const ConfigHook *hooks, size_t n) {
        ConfigHook *packed = PACK(packer, hooks, n);

        for (size_t i = 0; i < n; i++) {
                const char *const *command = pack_strings(packer, hooks[i].command);

                if (packed)
                        packed[i].command = command;
        }
        return packed;
}

static const ConfigSocket *pack_sockets(Packer *packer, const ConfigSocket *sockets, size_t n) {
        ConfigSocket *packed = PACK(packer, sockets, n);

        for (size_t i = 0; i < n; i++) {
                const char *name = pack_string(packer, sockets[i].name);
                const char *address = pack_string(packer, sockets[i].address);

                if (!packed)
                        continue;
                packed[i].name = name;
                packed[i].address = address;
        }
        return packed;
}

static const ConfigSocketVariable *pack_socket_variable(Packer *packer, const ConfigSocketVariable *variable) {
        ConfigSocketVariable *packed = PACK(packer, variable, 1), copy;

        if (!variable)
                return NULL;
        copy.name = pack_string(packer, variable->name);
        copy.format = pack_string(packer, variable->format);
        copy.separator = pack_string(packer, variable->separator);
        if (packed)
                *packed = copy;
        return packed;
}

static const ConfigSchedule *pack_schedule(Packer *packer, const ConfigSchedule *schedule) {
        ConfigSchedule *packed = PACK(packer, schedule, 1);
        const ConfigTime *at = schedule ? PACK(packer, schedule->at, schedule->n_at) : NULL;

        if (packed)
                packed->at = at;
        return packed;
}

static void pack_runner(Packer *packer, const RunnerConfig *draft) {
        RunnerConfig *packed = PACK(packer, draft, 1), copy = *draft;

        copy.refs = 1;
        copy.name = pack_string(packer, draft->name);
        copy.description = pack_string(packer, draft->description);
        copy.command = pack_strings(packer, draft->command);
        copy.env = pack_strings(packer, draft->env);
        copy.env_file = pack_strings(packer, draft->env_file);
        copy.cwd = pack_string(packer, draft->cwd);
        copy.user = pack_user(packer, draft->user);
        copy.limits = PACK(packer, draft->limits, draft->n_limits);
        copy.cgroup = pack_cgroup(packer, draft->cgroup);
        copy.hooks = pack_hooks(packer, draft->hooks, draft->n_hooks);
        copy.sockets = pack_sockets(packer, draft->sockets, draft->n_sockets);
        copy.socket_variable = pack_socket_variable(packer, draft->socket_variable);
        copy.exits = PACK(packer, draft->exits, 1);
        copy.schedule = pack_schedule(packer, draft->schedule);
        copy.rpc = PACK(packer, draft->rpc, 1);
        copy.after = pack_strings(packer, draft->after);
        copy.requires = pack_strings(packer, draft->requires);
        copy.log.directory = (char *) pack_string(packer, draft->log.directory);
        if (packed)
                *packed = copy;
}

int runner_config_new(RunnerConfig **ret_config, const RunnerConfig *draft) {
        Packer packer = { 0 };

        pack_runner(&packer, draft);
        packer.base = malloc(packer.used);
        if (!packer.base)
                return -ENOMEM;
        packer.used = 0;
        pack_runner(&packer, draft);
        *ret_config = (RunnerConfig *) (void *) packer.base;
        return 0;
}

int runner_config_with_program(const RunnerConfig *config, const char *program, RunnerConfig **ret_config) {
        _cleanup_free_ const char **command = NULL;
        RunnerConfig draft = *config;
        size_t n = 0;

        while (config->command[n])
                n++;
        command = calloc(n + 1, sizeof(*command));
        if (!command)
                return -ENOMEM;
        memcpy(command, config->command, n * sizeof(*command));
        command[0] = program;
        draft.command = command;
        draft.refs = 1;
        return runner_config_new(ret_config, &draft);
}

RunnerConfig *runner_config_ref(RunnerConfig *config) {
        config->refs++;
        return config;
}

RunnerConfig *runner_config_unref(RunnerConfig *config) {
        if (config && --config->refs == 0)
                free(config);
        return NULL;
}

static void pack_group(Packer *packer, const GroupConfig *draft) {
        GroupConfig *packed = PACK(packer, draft, 1), copy = *draft;

        copy.name = pack_string(packer, draft->name);
        copy.members = pack_strings(packer, draft->members);
        if (packed)
                *packed = copy;
}

int group_config_new(GroupConfig **ret_group, const GroupConfig *draft) {
        Packer packer = { 0 };

        pack_group(&packer, draft);
        packer.base = malloc(packer.used);
        if (!packer.base)
                return -ENOMEM;
        packer.used = 0;
        pack_group(&packer, draft);
        *ret_group = (GroupConfig *) (void *) packer.base;
        return 0;
}

/* ------------------------------------------------------------------------------------------------------------ a runner */

const char *runner_config_instance_name(const RunnerConfig *config, uint32_t number, char text[CONFIG_NAME_MAX + 1]) {
        if (config->is_template)
                (void) snprintf(text, CONFIG_NAME_MAX + 1, "%s.%u", config->name, number);
        else
                (void) snprintf(text, CONFIG_NAME_MAX + 1, "%s", config->name);
        return text;
}

bool runner_config_is_success(const RunnerConfig *config, int wait_code, int wait_status) {
        const ConfigExits *exits = config->exits;

        if (wait_code == CLD_EXITED)
                return wait_status == 0 || (exits && wait_status > 0 && wait_status < 256 &&
                                            exits->codes[wait_status / 64] >> wait_status % 64 & 1);
        if (wait_code == CLD_KILLED || wait_code == CLD_DUMPED)
                return exits && wait_status >= 1 && wait_status <= 64 && exits->signals >> (wait_status - 1) & 1;
        return false;
}

void runner_config_spawn(const RunnerConfig *config, SpawnParameters *parameters) {
        parameters->limits = config->limits;
        parameters->n_limits = config->n_limits;
        parameters->user = config->user ? &config->user->spawn : NULL;
        parameters->umask = config->umask;
        parameters->nice = config->nice == CONFIG_NICE_KEEP ? SPAWN_NICE_KEEP : config->nice;
        parameters->ioprio = config->ioprio;
        parameters->oom_score_adj = config->oom_score_adj == CONFIG_OOM_KEEP ? SPAWN_OOM_KEEP : config->oom_score_adj;
}

/* ----------------------------------------------------------------------------------------------------------- the whole */

Config *config_ref(Config *config) {
        config->refs++;
        return config;
}

Config *config_unref(Config *config) {
        if (!config || --config->refs > 0)
                return NULL;
        for (size_t i = 0; i < config->n_runners; i++)
                runner_config_unref(config->runners[i]);
        for (size_t i = 0; i < config->n_groups; i++)
                free(config->groups[i]);
        free(config->runners);
        free(config->sorted);
        free(config->groups);
        free(config->strings);
        free(config);
        return NULL;
}

static int compare_name(const void *name, const void *config) {
        return strcmp(name, (*(RunnerConfig *const *) config)->name);
}

RunnerConfig *config_find(const Config *config, const char *name) {
        RunnerConfig **found = NULL;

        if (config->n_runners > 0)
                found = bsearch(name, config->sorted, config->n_runners, sizeof(RunnerConfig *), compare_name);
        return found ? *found : NULL;
}

const GroupConfig *config_find_group(const Config *config, const char *name) {
        for (size_t i = 0; i < config->n_groups; i++)
                if (strcmp(config->groups[i]->name, name) == 0)
                        return config->groups[i];
        return NULL;
}

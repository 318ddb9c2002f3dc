#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files config-*.c share: the way from text to a Config. Nobody else includes this. */

#include "supervisor/config-schema.h"
#include "supervisor/config.h"

typedef struct ConfigArena ConfigArena;
typedef struct ConfigDocument ConfigDocument;
typedef struct ConfigDraft ConfigDraft;
typedef struct ConfigFile ConfigFile;
typedef struct ConfigLoader ConfigLoader;
typedef struct ConfigName ConfigName;
typedef struct ConfigPosition ConfigPosition;

enum {
        CONFIG_FILE_MAX = 4 * 1024 * 1024, /* bytes */
        CONFIG_FILES_MAX = 1000,
        CONFIG_RUNNERS_MAX = 10000,
        CONFIG_TEMPLATE_NAME_MAX = CONFIG_NAME_MAX - 6, /* room for .10000 */
        CONFIG_PATH_SIZE = 256,                         /* "runners.web.log.max_size"; cut if longer */
};

/* One file of a source. */
struct ConfigFile {
        char *name; /* as in messages */
        char *text;
        size_t size;
};

struct ConfigSource {
        char **paths; /* absolute; ended by NULL */
        size_t n_paths, n;
        ConfigFile files[CONFIG_FILES_MAX];
};

/* ---- errors ---- */

/* config_errors_add() - @line 0, @key NULL: none. What cannot be kept is counted. Control characters become '?'. */
_printf_(5, 6) void config_errors_add(ConfigErrors *errors, const char *file, uint32_t line, const char *key,
                                      const char *format, ...);
/* config_errors_sort() - by file and line. */
void config_errors_sort(ConfigErrors *errors);

/* ---- memory that is given back as a whole ---- */

struct ConfigArena {
        void **blocks;
        size_t n, room;
};

void config_arena_deinit(ConfigArena *arena);
/* config_arena_new() - @size zeroed bytes; NULL: no memory. */
void *config_arena_new(ConfigArena *arena, size_t size);
/* config_arena_print() - a text; NULL: no memory. */
_printf_(2, 3) char *config_arena_print(ConfigArena *arena, const char *format, ...);

/* ---- one file, as YAML ---- */

struct ConfigDocument {
        const char *file;
        RawConfig *raw; /* NULL: nothing is in it */
        ConfigPosition *positions;
};

/*
 * config_document_load() - the structures of @file. What is wrong with its form is in @errors, and left out of them.
 * 0, also when there were errors; -ENOMEM.
 */
int config_document_load(ConfigDocument *ret_document, const ConfigFile *file, ConfigErrors *errors);
void config_document_deinit(ConfigDocument *document);
/* config_document_line() - of the key @path, "runners.web.command"; 0: it is not there. */
uint32_t config_document_line(const ConfigDocument *document, const char *path);

/* ---- one runner, as values ---- */

/* A runner in the making: `config' points into the rest, into the raw structures, or into the loader's arena. */
struct ConfigDraft {
        RunnerConfig config;
        SpawnLimit limits[CONFIG_LIMITS_N];
        ConfigCgroup cgroup;
        ConfigExits exits;
        ConfigSchedule schedule;
        PeerLimits rpc;
        ConfigSocketVariable socket_variable;
        const char *user, *group; /* as text; NULL: not set */
        const RawList *groups;    /* NULL: not set */
};

struct ConfigLoader {
        ConfigErrors *errors;
        ConfigLoadFlags flags;
        ConfigArena arena;
        const ConfigDocument *document; /* what is being looked at, for messages */
        char path[CONFIG_PATH_SIZE];    /* "runners.web" or "defaults" */
        const ConfigDocument *defaults; /* where they are; NULL: nowhere */
        bool defaults_reported;         /* what is wrong with the user that they name */
        bool no_memory;
        ConfigArena users;        /* of the last one that was looked up: */
        char *user_key;           /* as text; NULL: none yet */
        ConfigUser *user;         /* NULL: the supervisor's, or not found */
        const char *user_problem; /* NULL: found */
        const char *user_problem_key;
};

/* config_fail() - at the key @key of what is looked at (NULL: at that itself). */
_printf_(3, 4) void config_fail(ConfigLoader *loader, const char *key, const char *format, ...);

/* config_values_has() - whether what is looked at says @key, be it something that cannot be used. */
bool config_values_has(const ConfigLoader *loader, const char *key);

/* config_values_apply() - what @raw sets, over what is in @draft. @is_defaults: of the section defaults. */
void config_values_apply(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw);
/* config_values_finish() - what depends on several keys: users, and what does not go together. */
void config_values_finish(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw);
/* config_values_strings() - @list ended by NULL; NULL for an empty one. */
const char *const *config_values_strings(ConfigLoader *loader, const RawList *list);
/* config_values_intensity(), config_values_strategy(), config_values_supervisor() - of a group, and the supervisor's. */
void config_values_intensity(ConfigLoader *loader, const RawIntensity *raw, ConfigIntensity *intensity);
void config_values_strategy(ConfigLoader *loader, const char *text, ConfigStrategy *ret_strategy);
void config_values_supervisor(ConfigLoader *loader, const RawSupervisor *raw, SupervisorConfig *ret_supervisor);

/* config_value_boolean(), config_value_octal() - of one text. False: it is none. */
bool config_value_boolean(const char *text, bool *ret_value);
bool config_value_octal(const char *text, int64_t *ret_value);
/* config_value_unexpected() - @text is not what belongs to @key. */
void config_value_unexpected(ConfigLoader *loader, const char *key, const char *text);

/* ---- sockets ---- */

/* config_sockets_apply() - `sockets', `socket_variable' and `fd_store' of @raw into @draft. */
void config_sockets_apply(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw);
/* config_sockets_finish() - what depends on other keys. */
void config_sockets_finish(ConfigLoader *loader, const ConfigDraft *draft);

/* config_time_parse() - five fields of crontab(5). False: it is not such a time. */
bool config_time_parse(const char *text, ConfigTime *ret_time);

/* ---- users ---- */

/* config_user_resolve() - `user', `group' and `groups' of @draft, which @raw or the defaults said, into its config. */
void config_user_resolve(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw);
/* config_user_number() - of a user. False: there is none. */
bool config_user_number(const char *text, uid_t *ret_uid);
/* config_user_group() - the number of a group. False: there is none. */
bool config_user_group(const char *text, gid_t *ret_gid);

/* ---- all of them ---- */

/* A runner or a group: who has the name. */
struct ConfigName {
        const char *name;
        const ConfigDocument *document;
        const RawRunner *runner; /* or: */
        const RawGroup *group;
        RunnerConfig *config; /* of a runner, as soon as it is made */
        GroupConfig *made;    /* of a group, likewise */
        const ConfigName *in; /* the group that it is a member of; NULL: none */
        unsigned order;       /* in the files */
};

/* config_cycles_check() - among the runners of @names, which are in the order of their names. 0 or -ENOMEM. */
int config_cycles_check(ConfigLoader *loader, const ConfigName *names, size_t n);

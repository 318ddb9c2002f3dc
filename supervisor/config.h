#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The configuration: what runners there shall be, and how each is started, watched, restarted and stopped. Made from YAML
 * (config-load.c; docs/configuration.md is the schema), or for one transient runner from a StartRequest.
 *
 *     supervisor:
 *       operators: adm
 *     defaults:
 *       restart: on-failure
 *     runners:
 *       db:
 *         command: [postgres, -D, /srv/db]
 *         user: postgres
 *       web:
 *         command: [/usr/bin/web, --port, "80%i"]
 *         instances: 4                              # web.1 ... web.4
 *         requires: db
 *     groups:
 *       front: { strategy: one_for_all, members: [web, db] }
 *
 * A structure is immutable once made: whoever holds a reference may read it at any time, and a reload makes new ones. A
 * RunnerConfig is one block of memory with all its strings; those of a template are shared by its instances, so
 * "%i", "%n", "%t" and "%%" in its strings are still there and are replaced by runner_config_prepare().
 *
 * 0 and NULL mean "not set" everywhere except where a member says otherwise; defaults are filled in when one is made, so
 * that nobody below asks again. Times are microseconds.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/macro.h"
#include "proto/peer.h"
#include "supervisor/log-config.h"
#include "supervisor/policy.h"
#include "supervisor/socket-address.h"
#include "supervisor/spawn.h"

typedef struct Config Config;
typedef struct ConfigErrors ConfigErrors;
typedef struct ConfigSource ConfigSource;
typedef struct GroupConfig GroupConfig;
typedef struct RunnerConfig RunnerConfig;

/* ------------------------------------------------------------------------------------------------------- one runner */

/* When a runner is up, for those that wait for it. */
typedef enum _packed_ ConfigReady {
        CONFIG_READY_NONE,   /* when it was executed */
        CONFIG_READY_HELLO,  /* a native runner: its Hello over RPC */
        CONFIG_READY_NOTIFY, /* READY=1 by the sd_notify protocol */
        CONFIG_READY_FD,     /* a newline on descriptor 3 */
        _CONFIG_READY_N,
} ConfigReady;

/* What a process that takes the place of one that has died begins with. */
typedef enum _packed_ ConfigRecover {
        CONFIG_RECOVER_FRESH,    /* nothing */
        CONFIG_RECOVER_FAILOVER, /* the last checkpoint of the one before */
        _CONFIG_RECOVER_N,
} ConfigRecover;

/* What becomes of requests in a queue of the kernel's that the one before had taken and not answered. */
typedef enum _packed_ ConfigPending {
        CONFIG_PENDING_DEFAULT, /* what the service thinks best */
        CONFIG_PENDING_RESEND,
        CONFIG_PENDING_FLUSH,
        CONFIG_PENDING_NONE,
        _CONFIG_PENDING_N,
} ConfigPending;

/* config_pending_name() - "resend". */
const char *config_pending_name(ConfigPending pending);

/* When a hook is run: its runner came into that PolicyState, or, as one more of them, an instance of it has ended. */
enum { CONFIG_HOOK_EXIT = _POLICY_STATE_N };

typedef struct ConfigHook {
        unsigned events;            /* bits 1 << PolicyState, 1 << CONFIG_HOOK_EXIT */
        const char *const *command; /* its first word is the program; ended by NULL */
        uint64_t timeout_us;        /* then it is killed */
} ConfigHook;

/* More than @restarts within @window_us is too much: failed. @restarts 0: never too much. */
typedef struct ConfigIntensity {
        uint32_t restarts;
        uint64_t window_us;
} ConfigIntensity;

/* Calendar times as in crontab(5): bit n of a field is set where value n matches. Local time. */
typedef struct ConfigTime {
        uint64_t minutes;          /* 0-59 */
        uint32_t hours, days;      /* 0-23, 1-31 */
        uint16_t months;           /* 1-12 */
        uint8_t weekdays;          /* 0-6, Sunday is 0 */
        bool any_day, any_weekday; /* was `*': if neither was, one of the two that matches is enough */
} ConfigTime;

typedef struct ConfigSchedule {
        uint64_t every_us; /* from the beginning of one run to that of the next; 0: none */
        uint16_t n_at;
        const ConfigTime *at;
} ConfigSchedule;

/* Limits of the runner's own cgroup, as texts for the files of cgroup v2, checked. NULL: as the kernel has it. */
typedef enum ConfigCgroupKey {
        CONFIG_CGROUP_MEMORY_MAX,
        CONFIG_CGROUP_MEMORY_HIGH,
        CONFIG_CGROUP_MEMORY_LOW,
        CONFIG_CGROUP_SWAP_MAX,
        CONFIG_CGROUP_CPU_MAX,
        CONFIG_CGROUP_CPU_WEIGHT,
        CONFIG_CGROUP_IO_WEIGHT,
        CONFIG_CGROUP_PIDS_MAX,
        _CONFIG_CGROUP_N,
} ConfigCgroupKey;

typedef struct ConfigCgroup {
        const char *values[_CONFIG_CGROUP_N];
} ConfigCgroup;

typedef struct ConfigUser {
        SpawnUser spawn;  /* as resolved when this was loaded */
        const char *name; /* for USER and LOGNAME; NULL: only a number is known, or only the group changes */
        const char *home, *shell;
        const char *unresolved; /* what does not exist: starts fail with it (CONFIG_LOAD_AGAIN); else NULL */
} ConfigUser;

/*
 * A socket that is opened before the start, and stays open as long as the runner is wanted: it is passed to each instance.
 * `address' as it was written; what is to be replaced in it and in the name is replaced for each runner.
 */
typedef struct ConfigSocket {
        const char *name; /* in LISTEN_FDNAMES */
        const char *address;
        SocketType type;
        uint32_t backlog;
        uid_t uid; /* of a path; -1: whoever makes it */
        gid_t gid;
        uint16_t mode; /* of a path */
        bool reuse_port, ipv6_only, free_bind;
} ConfigSocket;

/* How the sockets' numbers are told besides LISTEN_FDS: NAME=3;4; for `format' "%f;". */
typedef struct ConfigSocketVariable {
        const char *name, *format, *separator;
} ConfigSocketVariable;

typedef struct ConfigExits {
        uint64_t codes[4]; /* bit n: exit code n is a success; 0 is one always */
        uint64_t signals;  /* bit n - 1: death by signal n is a success */
} ConfigExits;

struct RunnerConfig {
        const char *name; /* the template's: instances are NAME.1, NAME.2 ... */
        const char *description;
        const char *const *command;  /* its first word is the program, looked for in PATH unless it has a slash */
        const char *const *env;      /* NAME=value, each name once; ended by NULL; NULL: none */
        const char *const *env_file; /* read at each start; a leading `-': may be missing */
        const char *cwd;
        const ConfigUser *user; /* NULL: the supervisor's */
        const SpawnLimit *limits;
        const ConfigCgroup *cgroup;
        const ConfigHook *hooks;
        const ConfigExits *exits;       /* NULL: exit code 0 alone is a success, and being stopped by us */
        const ConfigSchedule *schedule; /* NULL: none */
        const PeerLimits *rpc;          /* limits of what we accept from it; NULL: all defaults */

        const ConfigSocket *sockets;
        const ConfigSocketVariable *socket_variable; /* NULL: none */
        uint64_t fd_store_timeout_us;                /* a stored descriptor is closed after so long; 0: never */

        /*
         * Names of runners (of templates: all its instances), groups replaced by their members. Each exists, and there are
         * no cycles. `after': only the order, if both start or stop. `requires': that, and it is started along and this
         * one stopped with it.
         */
        const char *const *after, *const *requires;

        uint64_t start_timeout_us, stop_timeout_us;
        uint64_t upgrade_timeout_us; /* until a successor is the active one */
        uint64_t upgrade_drain_us;   /* for what its predecessor has begun */
        uint64_t
                upgrade_health_us; /* in which its health is watched once it serves; 0: not. Plain: see upgrade-plain.c */
        uint64_t checkpoint_every_us;   /* a checkpoint is made so often; 0: only when somebody asks for one */
        uint64_t checkpoint_timeout_us; /* of one, from the question until the keeper has it */
        uint64_t checkpoint_max_state;  /* bytes */
        uint64_t watchdog_us; /* no answer or WATCHDOG=1 for this long: it is killed and restarted; 0: not watched */
        PolicyBackoff backoff;
        uint64_t backoff_reset_us; /* up for this long: the next delay is the first one again */
        ConfigIntensity intensity;
        LogConfig log;

        unsigned refs;
        uint32_t checkpoint_max_fds;
        uint32_t instances;    /* of a template; 1 of any other */
        uint32_t max_attached; /* clients at once */
        int16_t umask;         /* or SPAWN_UMASK_KEEP */
        int16_t oom_score_adj; /* or CONFIG_OOM_KEEP */
        uint16_t ioprio;       /* as of ioprio_set(2): class << 13 | level; 0: the supervisor's */
        uint16_t fd_store_max; /* descriptors that it may have stored */
        int8_t nice;           /* or CONFIG_NICE_KEEP */
        uint8_t n_limits, n_hooks, n_sockets, stop_signal;
        uint8_t upgrade_signal; /* tells a plain one that has a successor to finish; 0: stop_signal */
        RestartPolicy restart;
        ConfigRecover recover; /* of a native one */
        ConfigPending pending; /* of a native one that serves a queue of the kernel's */
        ConfigReady ready;
        bool is_template;    /* `instances' was given: instances have numbers, be it only one */
        bool oneshot;        /* done, and up for those that wait, when it has exited with success */
        bool autostart;      /* desired state when first loaded */
        bool uds_path;       /* its bootstrap socket is an argument, too: --uds-path PATH behind the others */
        bool inherit_env;    /* the supervisor's environment, under env_file and env */
        uint8_t channels;    /* wanted: bits 1 << CHANNEL_FILESYSTEM and 1 << CHANNEL_DATA; RPC is there in any case */
        bool service_manual; /* native: nobody leads its service to RUNNING but who asks for it */
        bool literal;        /* of a StartRequest: no % is replaced, and the program is not looked for in PATH */
};

enum {
        CONFIG_OOM_KEEP = INT16_MIN,
        CONFIG_NICE_KEEP = INT8_MIN,

        CONFIG_NAME_MAX = 63, /* characters, with the number of an instance */
        CONFIG_INSTANCES_MAX = 10000,
        CONFIG_RESTARTS_MAX = 1000, /* in a window */
        CONFIG_HOOKS_MAX = 32,
        CONFIG_SOCKETS_MAX = 128,
        CONFIG_FD_STORE_MAX = 1024,
        CONFIG_CHECKPOINT_FDS_MAX = 65536, /* that the runner has named */
        CONFIG_FD_NAME_MAX = 255,       /* characters of the name of a descriptor, as of sd_listen_fds_with_names(3) */
        CONFIG_DEPENDENCIES_MAX = 1000, /* of one runner, of each kind */
        CONFIG_ERROR_SIZE = 512,
};

#define CONFIG_START_TIMEOUT_US (10 * USEC_PER_SEC)
#define CONFIG_STOP_TIMEOUT_US  (10 * USEC_PER_SEC)
#define CONFIG_HOOK_TIMEOUT_US  (10 * USEC_PER_SEC)

#define CONFIG_CHECKPOINT_TIMEOUT_US (30 * USEC_PER_SEC)
#define CONFIG_CHECKPOINT_MAX_STATE  (UINT64_C(1) << 30)

#define CONFIG_UPGRADE_TIMEOUT_US (30 * USEC_PER_SEC)
#define CONFIG_UPGRADE_DRAIN_US   (30 * USEC_PER_SEC)

/* RUNNER_CONFIG_NULL - all defaults of a configured runner; `command' and `name' are to be filled in. */
#define RUNNER_CONFIG_NULL                                                       \
        ((RunnerConfig){                                                         \
                .refs = 1,                                                       \
                .start_timeout_us = CONFIG_START_TIMEOUT_US,                     \
                .stop_timeout_us = CONFIG_STOP_TIMEOUT_US,                       \
                .upgrade_timeout_us = CONFIG_UPGRADE_TIMEOUT_US,                 \
                .upgrade_drain_us = CONFIG_UPGRADE_DRAIN_US,                     \
                .checkpoint_timeout_us = CONFIG_CHECKPOINT_TIMEOUT_US,           \
                .checkpoint_max_state = CONFIG_CHECKPOINT_MAX_STATE,             \
                .checkpoint_max_fds = CONFIG_CHECKPOINT_FDS_MAX,                 \
                .backoff = { .initial_us = 100 * USEC_PER_MSEC,                  \
                             .max_us = 30 * USEC_PER_SEC,                        \
                             .factor_percent = 200,                              \
                             .jitter_percent = 20 },                             \
                .backoff_reset_us = 60 * USEC_PER_SEC,                           \
                .restart = RESTART_ON_FAILURE,                                   \
                .intensity = { .restarts = 10, .window_us = 60 * USEC_PER_SEC }, \
                .log = LOG_CONFIG_NULL,                                          \
                .instances = 1,                                                  \
                .umask = SPAWN_UMASK_KEEP,                                       \
                .oom_score_adj = CONFIG_OOM_KEEP,                                \
                .nice = CONFIG_NICE_KEEP,                                        \
                .stop_signal = 15,                                               \
                .autostart = true,                                               \
                .inherit_env = true,                                             \
        })

/*
 * runner_config_new() - a copy of @draft (whose pointers may go anywhere, and are not kept) in one block, with one
 * reference. 0 or -ENOMEM.
 */
int runner_config_new(RunnerConfig **ret_config, const RunnerConfig *draft);

/* runner_config_with_program() - as @config, but for the first word of its command. 0 or -ENOMEM. */
int runner_config_with_program(const RunnerConfig *config, const char *program, RunnerConfig **ret_config);
RunnerConfig *runner_config_ref(RunnerConfig *config);
/* runner_config_unref() - accepts NULL, returns NULL. */
RunnerConfig *runner_config_unref(RunnerConfig *config);
DEFINE_CLEANUP(RunnerConfig *, runner_config_unref);

/* runner_config_native() - whether it speaks the runner protocol. */
static inline bool runner_config_native(const RunnerConfig *config) {
        return config->ready == CONFIG_READY_HELLO;
}

/* runner_config_instance_name() - "web.3" of a template, else the name; @number from 1. Returns @text. */
const char *runner_config_instance_name(const RunnerConfig *config, uint32_t number, char text[CONFIG_NAME_MAX + 1]);

/* runner_config_is_success() - whether that end is one (as si_code CLD_N and si_status of waitid()). */
bool runner_config_is_success(const RunnerConfig *config, int wait_code, int wait_status);

/*
 * What exec gets, in one block that free() frees. @name is the runner's whole name, @number its instance's (0: not of a
 * template), @extra further NAME=value that win over all else (NULL: none; ended by NULL).
 */
typedef struct RunnerStart {
        const char *path; /* of the program */
        char **argv, **envp;
        const char *cwd; /* NULL: the supervisor's */
} RunnerStart;

/*
 * runner_config_prepare() - 0, or a negative errno with one line in @error: a program that PATH does not have (-ENOENT), an
 * env_file that cannot be read or understood, a user that is gone, no memory.
 */
int runner_config_prepare(const RunnerConfig *config, const char *name, uint32_t number, const char *const *extra,
                          RunnerStart **ret_start, char error[CONFIG_ERROR_SIZE]);

/*
 * runner_config_program() - the path of the program that a start would execute, for free(); one that is not absolute is of our
 * own directory. 0, or a negative errno as above.
 */
int runner_config_program(const RunnerConfig *config, const char *name, uint32_t number, char **ret_path);

/* runner_config_prepare_hook() - the same as runner_config_prepare() for a hook, which runs with the
 * runner's environment, user and directory. */
int runner_config_prepare_hook(const RunnerConfig *config, const ConfigHook *hook, const char *name, uint32_t number,
                               const char *const *extra, RunnerStart **ret_start, char error[CONFIG_ERROR_SIZE]);

/* runner_config_expand() - @text with its %i, %n, %t, %% replaced, the caller's to free; NULL: no memory. */
char *runner_config_expand(const RunnerConfig *config, const char *text, const char *name, uint32_t number);

/* runner_config_spawn() - the process attributes of @config into @parameters (which borrow them). */
void runner_config_spawn(const RunnerConfig *config, SpawnParameters *parameters);

/* config_schedule_next() - the next calendar time after @wall_us (CLOCK_REALTIME), or USEC_INFINITY: none in 8 years. */
uint64_t config_schedule_next(const ConfigSchedule *schedule, uint64_t wall_us);

/* ------------------------------------------------------------------------------------------------------------- groups */

typedef enum ConfigStrategy {
        CONFIG_ONE_FOR_ONE,  /* who ended is restarted */
        CONFIG_ONE_FOR_ALL,  /* all members are */
        CONFIG_REST_FOR_ONE, /* that one and those listed behind it are */
        _CONFIG_STRATEGY_N,
} ConfigStrategy;

/*
 * A runner is a member of at most one group, a group of at most one other, and none of itself. A member that is a template
 * stands for all its instances. One member's end counts as one restart of the group; more of them than its intensity
 * allows is a failure of the group: all members are stopped, and it counts as the end of a member of the group above.
 */
struct GroupConfig {
        const char *name;
        ConfigStrategy strategy;
        ConfigIntensity intensity;
        const char *const *members; /* names of runners and of groups, in order; ended by NULL */
        const GroupConfig *parent;  /* NULL: none */
};

#define CONFIG_GROUP_RESTARTS  10
#define CONFIG_GROUP_WINDOW_US (60 * USEC_PER_SEC)

/* group_config_new() - a copy of @draft in one block, to be freed by free(). 0 or -ENOMEM. */
int group_config_new(GroupConfig **ret_group, const GroupConfig *draft);

/* ------------------------------------------------------------------------------------------------------------ the whole */

typedef struct SupervisorConfig {
        const char *operators; /* name of the group whose members have the role operate; NULL: none */
        bool has_operators;
        gid_t operators_gid;
        bool others_read;         /* other users may read status; else they get nothing */
        const char *metrics;      /* "127.0.0.1:9100", "[::1]:9100" or a path of a socket; NULL: none */
        uint64_t stop_timeout_us; /* for stopping everything */
} SupervisorConfig;

struct Config {
        unsigned refs;
        SupervisorConfig supervisor;
        size_t n_runners, n_groups;
        RunnerConfig **runners; /* as in the files; one reference each */
        GroupConfig **groups;
        RunnerConfig **sorted; /* by name, for config_find() */
        char *strings;         /* of all but the runners */
};

/* CHECK for `baton check', a first start and a reload; AGAIN by a supervisor that follows another. */
typedef enum ConfigLoadFlags {
        CONFIG_LOAD_CHECK = 1 << 0, /* programs and directories must be there, too */
        CONFIG_LOAD_AGAIN = 1 << 1, /* a user that is gone is not an error, but fails the runner's start */
} ConfigLoadFlags;

/*
 * config_source_read() - reads the files and directories @paths (ended by NULL), of a directory all `*.yaml'. 0; -EINVAL:
 * see @errors; -ENOMEM.
 */
int config_source_read(ConfigSource **ret_source, char *const *paths, ConfigErrors *errors);
/* config_source_pack() - names and contents, in a sealed memfd. */
int config_source_pack(const ConfigSource *source, int *ret_fd);
/* config_source_unpack() - from config_source_pack(); -EBADMSG: it is not. @fd is borrowed. */
int config_source_unpack(ConfigSource **ret_source, int fd);
/* config_source_take_paths() - what it was read from, absolute; ended by NULL: to read it again. The caller's from now on. */
char **config_source_take_paths(ConfigSource *source);
/* config_paths_free() - accepts NULL, returns NULL. */
char **config_paths_free(char **paths);
ConfigSource *config_source_free(ConfigSource *source);
DEFINE_CLEANUP(ConfigSource *, config_source_free);

/* config_load() - 0; -EINVAL: see @errors; -ENOMEM. @source is not needed afterwards. */
int config_load(Config **ret_config, const ConfigSource *source, ConfigLoadFlags flags, ConfigErrors *errors);
Config *config_ref(Config *config);
Config *config_unref(Config *config);
DEFINE_CLEANUP(Config *, config_unref);

/* config_find() - the runner or template of that very name (not of an instance's), or NULL. */
RunnerConfig *config_find(const Config *config, const char *name);
/* config_find_group() - or NULL. */
const GroupConfig *config_find_group(const Config *config, const char *name);

/* ------------------------------------------------------------------------------------------------------------- errors */

enum { CONFIG_ERRORS_MAX = 50 };

/* One, shown as `FILE:LINE: KEY: MESSAGE'. */
typedef struct ConfigError {
        char *file;    /* or directory */
        uint32_t line; /* 0: of the whole file */
        char *key;     /* "runners.web.command"; NULL: none */
        char *message;
        unsigned order; /* in which they were found */
} ConfigError;

/* In the order of files and lines; bounded. Null value: all zero. */
struct ConfigErrors {
        size_t n;      /* all that were found */
        size_t n_kept; /* the first of them */
        ConfigError errors[CONFIG_ERRORS_MAX];
};

void config_errors_deinit(ConfigErrors *errors);
/* config_error_line() - one as it is shown, without line end; the caller's to free; NULL: no memory. */
char *config_error_line(const ConfigError *error);
/* config_errors_text() - all, each ended by "\n", and how many more there are; the caller's to free; NULL: no memory. */
char *config_errors_text(const ConfigErrors *errors);

/* --------------------------------------------------------------------------------------------------------- difference */

typedef enum ConfigEffect {
        CONFIG_EFFECT_NONE, /* holds from the next event on: a process that runs is left alone */
        CONFIG_EFFECT_UPGRADE, /* a process that runs is to be replaced, by an upgrade where it can be, see fleet_compare() */
        CONFIG_EFFECT_RESTART, /* a process that runs is to be replaced, and ends first */
} ConfigEffect;

typedef struct ConfigChange {
        RunnerConfig *before, *after; /* borrowed from the two; NULL before: added; NULL after: removed */
        uint64_t keys;                /* of one that changed: bits 1 << the number of a key, see config_key_name() */
        ConfigEffect effect;
        uint32_t n_upgrades, n_restarts; /* processes that are replaced so; config_compare() knows of none */
} ConfigChange;

typedef struct ConfigDifference {
        size_t n_changes, n_same; /* of runners */
        ConfigChange *changes;    /* removed, changed, added; each by name. Those that are the same are not listed */
        bool groups, supervisor;  /* these sections changed */
} ConfigDifference;

/* runner_config_effect() - what a process that was started by @before needs, to be as @after says. */
ConfigEffect runner_config_effect(const RunnerConfig *before, const RunnerConfig *after);

/* config_compare() - @before may be NULL: nothing. 0 or -ENOMEM. Both must live as long as the difference is used. */
int config_compare(const Config *before, const Config *after, ConfigDifference *ret_difference);
void config_difference_deinit(ConfigDifference *difference);
/* config_difference_find() - what it says of the runner or template of this name; NULL: that it is the same, or nothing. */
const ConfigChange *config_difference_find(const ConfigDifference *difference, const char *name);
/* config_difference_is_empty() */
bool config_difference_is_empty(const ConfigDifference *difference);

/* config_key_name() - "command", ... as in the file; NULL: there is no such number. */
const char *config_key_name(unsigned key);

/* config_difference_text() - for people, a line each: "~ web: command, env (upgrade)"; the caller's to free. */
char *config_difference_text(const ConfigDifference *difference);

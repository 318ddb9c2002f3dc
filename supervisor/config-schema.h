#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The shape of a configuration file, as libcyaml fills it in: texts and lists of texts, nothing understood yet. */

#include <cyaml/cyaml.h>

#include "supervisor/config.h"

enum { CONFIG_LIMITS_N = RLIM_NLIMITS };

typedef struct RawList {
        char **items;
        unsigned n;
} RawList;

typedef struct RawIntensity {
        char *restarts, *within;
} RawIntensity;

typedef struct RawBackoff {
        char *initial, *max, *factor, *jitter, *reset;
} RawBackoff;

typedef struct RawLog {
        char *directory, *format, *max_size, *max_age, *keep, *mode, *ring_size, *full;
} RawLog;

typedef struct RawRpc {
        char *max_frame, *max_calls, *max_memory, *fd_credit, *stream_window, *max_object, *max_held_fds, *max_waiting,
                *max_waiting_bytes, *max_unsent, *max_attached;
} RawRpc;

typedef struct RawUpgrade {
        char *timeout, *drain, *health, *signal;
} RawUpgrade;

typedef struct RawCheckpoint {
        char *every, *timeout, *max_state, *max_fds;
} RawCheckpoint;

typedef struct RawLimits {
        char *values[CONFIG_LIMITS_N]; /* in the order of rlimit_by_index() */
} RawLimits;

typedef struct RawCgroup {
        char *values[_CONFIG_CGROUP_N];
} RawCgroup;

typedef struct RawHook {
        RawList on, command;
        char *timeout;
} RawHook;

typedef struct RawSocket {
        char *tcp, *udp, *unix_address, *type, *name, *backlog, *mode, *user, *group;
        char *reuse_port, *ipv6_only, *free_bind;
} RawSocket;

typedef struct RawSocketVariable {
        char *name, *format, *separator;
} RawSocketVariable;

typedef struct RawFdStore {
        char *max, *timeout;
} RawFdStore;

typedef struct RawRunner {
        char *name, *description, *cwd, *inherit_env, *uds_path;
        RawList channels;
        RawList command, env, env_file;
        char *user, *group, *umask, *nice, *ioprio, *oom_score_adj;
        RawList groups;
        RawLimits *limits;
        RawCgroup *cgroup;
        char *ready, *start_timeout, *stop_timeout, *stop_signal, *watchdog, *service;
        RawUpgrade *upgrade;
        RawCheckpoint *checkpoint;
        char *restart, *recover, *pending, *oneshot, *autostart, *instances, *every;
        RawBackoff *backoff;
        RawIntensity *intensity;
        RawList success_exit, after, requires, at;
        RawHook *hooks;
        unsigned n_hooks;
        RawSocket *sockets;
        unsigned n_sockets;
        RawSocketVariable *socket_variable;
        RawFdStore *fd_store;
        RawLog *log;
        RawRpc *rpc;
} RawRunner;

typedef struct RawGroup {
        char *name, *strategy;
        RawIntensity *intensity;
        RawList members;
} RawGroup;

typedef struct RawSupervisor {
        char *operators, *others, *metrics, *stop_timeout;
} RawSupervisor;

typedef struct RawConfig {
        RawSupervisor *supervisor;
        RawRunner *defaults;
        RawRunner *runners;
        unsigned n_runners;
        RawGroup *groups;
        unsigned n_groups;
} RawConfig;

/* config_schema - of one file. */
extern const cyaml_schema_value_t config_schema;

/* config_expected() - what belongs to the key @path, "start_timeout" or "log.max_size": "a duration such as 10s". */
const char *config_expected(const char *path);

/* config_elsewhere() - our key for what other systems call @key; NULL: we know of none. */
const char *config_elsewhere(const char *key);

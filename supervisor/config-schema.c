/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, its schema: for libcyaml, which fills in structures by it, and for config-document.c, which tells people by it
 * what is wrong. Every single value is a text here: durations, sizes and signals are no types of YAML, and our own parsers
 * say more about a number than "invalid". What runners are in a file, a mapping from names, is a list with names here.
 */

#include "supervisor/config-schema.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/macro.h"

#define TEXT(_key, _structure, _member) \
        CYAML_FIELD_STRING_PTR(_key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, _structure, _member, 0, CYAML_UNLIMITED)
#define LIST(_key, _structure, _member)  LIST_OF(_key, _structure, _member, 0)
#define LIST1(_key, _structure, _member) LIST_OF(_key, _structure, _member, 1) /* not empty */
#define LIST_OF(_key, _structure, _member, _min)                                                              \
        CYAML_FIELD_SEQUENCE_COUNT(_key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, _structure, _member.items, \
                                   _member.n, &text_entry, _min, CYAML_UNLIMITED)
#define MAPPING(_key, _structure, _member, _fields) \
        CYAML_FIELD_MAPPING_PTR(_key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, _structure, _member, _fields)
#define MAPPINGS(_key, _structure, _member, _count, _entry)                                                     \
        CYAML_FIELD_SEQUENCE_COUNT(_key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, _structure, _member, _count, \
                                   &(_entry), 0, CYAML_UNLIMITED)

static const cyaml_schema_value_t text_entry = { CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED) };

static const cyaml_schema_field_t intensity_fields[] = {
        TEXT("restarts", RawIntensity, restarts),
        TEXT("within", RawIntensity, within),
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t backoff_fields[] = {
        TEXT("initial", RawBackoff, initial), TEXT("max", RawBackoff, max),     TEXT("factor", RawBackoff, factor),
        TEXT("jitter", RawBackoff, jitter),   TEXT("reset", RawBackoff, reset), CYAML_FIELD_END,
};

static const cyaml_schema_field_t log_fields[] = {
        TEXT("directory", RawLog, directory), TEXT("format", RawLog, format), TEXT("max_size", RawLog, max_size),
        TEXT("max_age", RawLog, max_age),     TEXT("keep", RawLog, keep),     TEXT("mode", RawLog, mode),
        TEXT("ring_size", RawLog, ring_size), TEXT("full", RawLog, full),     CYAML_FIELD_END,
};

static const cyaml_schema_field_t rpc_fields[] = {
        TEXT("max_frame", RawRpc, max_frame),
        TEXT("max_calls", RawRpc, max_calls),
        TEXT("max_memory", RawRpc, max_memory),
        TEXT("fd_credit", RawRpc, fd_credit),
        TEXT("stream_window", RawRpc, stream_window),
        TEXT("max_object", RawRpc, max_object),
        TEXT("max_held_fds", RawRpc, max_held_fds),
        TEXT("max_waiting", RawRpc, max_waiting),
        TEXT("max_waiting_bytes", RawRpc, max_waiting_bytes),
        TEXT("max_unsent", RawRpc, max_unsent),
        TEXT("max_attached", RawRpc, max_attached),
        CYAML_FIELD_END,
};

/* In the order of rlimit_by_index(), which the tests hold against this. */
static const cyaml_schema_field_t limit_fields[] = {
        TEXT("as", RawLimits, values[0]),
        TEXT("core", RawLimits, values[1]),
        TEXT("cpu", RawLimits, values[2]),
        TEXT("data", RawLimits, values[3]),
        TEXT("fsize", RawLimits, values[4]),
        TEXT("locks", RawLimits, values[5]),
        TEXT("memlock", RawLimits, values[6]),
        TEXT("msgqueue", RawLimits, values[7]),
        TEXT("nice", RawLimits, values[8]),
        TEXT("nofile", RawLimits, values[9]),
        TEXT("nproc", RawLimits, values[10]),
        TEXT("rss", RawLimits, values[11]),
        TEXT("rtprio", RawLimits, values[12]),
        TEXT("rttime", RawLimits, values[13]),
        TEXT("sigpending", RawLimits, values[14]),
        TEXT("stack", RawLimits, values[15]),
        CYAML_FIELD_END,
};
_Static_assert(ARRAY_SIZE(limit_fields) == CONFIG_LIMITS_N + 1, "each has a key");

static const cyaml_schema_field_t cgroup_fields[] = {
        TEXT("memory_max", RawCgroup, values[CONFIG_CGROUP_MEMORY_MAX]),
        TEXT("memory_high", RawCgroup, values[CONFIG_CGROUP_MEMORY_HIGH]),
        TEXT("memory_low", RawCgroup, values[CONFIG_CGROUP_MEMORY_LOW]),
        TEXT("swap_max", RawCgroup, values[CONFIG_CGROUP_SWAP_MAX]),
        TEXT("cpu_max", RawCgroup, values[CONFIG_CGROUP_CPU_MAX]),
        TEXT("cpu_weight", RawCgroup, values[CONFIG_CGROUP_CPU_WEIGHT]),
        TEXT("io_weight", RawCgroup, values[CONFIG_CGROUP_IO_WEIGHT]),
        TEXT("pids_max", RawCgroup, values[CONFIG_CGROUP_PIDS_MAX]),
        CYAML_FIELD_END,
};
_Static_assert(ARRAY_SIZE(cgroup_fields) == _CONFIG_CGROUP_N + 1, "each has a key");

static const cyaml_schema_field_t checkpoint_fields[] = {
        TEXT("every", RawCheckpoint, every),
        TEXT("timeout", RawCheckpoint, timeout),
        TEXT("max_state", RawCheckpoint, max_state),
        TEXT("max_fds", RawCheckpoint, max_fds),
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t upgrade_fields[] = {
        TEXT("timeout", RawUpgrade, timeout),
        TEXT("drain", RawUpgrade, drain),
        TEXT("health", RawUpgrade, health),
        TEXT("signal", RawUpgrade, signal),
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t hook_fields[] = {
        LIST1("on", RawHook, on),
        LIST1("command", RawHook, command),
        TEXT("timeout", RawHook, timeout),
        CYAML_FIELD_END,
};
static const cyaml_schema_value_t hook_entry = { CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, RawHook, hook_fields) };

static const cyaml_schema_field_t socket_fields[] = {
        TEXT("tcp", RawSocket, tcp),
        TEXT("udp", RawSocket, udp),
        TEXT("unix", RawSocket, unix_address),
        TEXT("type", RawSocket, type),
        TEXT("name", RawSocket, name),
        TEXT("backlog", RawSocket, backlog),
        TEXT("mode", RawSocket, mode),
        TEXT("user", RawSocket, user),
        TEXT("group", RawSocket, group),
        TEXT("reuse_port", RawSocket, reuse_port),
        TEXT("ipv6_only", RawSocket, ipv6_only),
        TEXT("free_bind", RawSocket, free_bind),
        CYAML_FIELD_END,
};
static const cyaml_schema_value_t socket_entry = { CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, RawSocket, socket_fields) };

static const cyaml_schema_field_t socket_variable_fields[] = {
        TEXT("format", RawSocketVariable, format),
        TEXT("name", RawSocketVariable, name),
        TEXT("separator", RawSocketVariable, separator),
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t fd_store_fields[] = {
        TEXT("max", RawFdStore, max),
        TEXT("timeout", RawFdStore, timeout),
        CYAML_FIELD_END,
};

/* Of a runner, and of `defaults', which cannot say what makes a runner this one. */
/* clang-format off */
#define RUNNER_FIELDS \
        TEXT("cwd", RawRunner, cwd), \
        LIST("env", RawRunner, env), \
        LIST("env_file", RawRunner, env_file), \
        TEXT("inherit_env", RawRunner, inherit_env), \
        TEXT("uds_path", RawRunner, uds_path), \
        LIST("channels", RawRunner, channels), \
        TEXT("user", RawRunner, user), \
        TEXT("group", RawRunner, group), \
        LIST("groups", RawRunner, groups), \
        TEXT("umask", RawRunner, umask), \
        MAPPING("limits", RawRunner, limits, limit_fields), \
        TEXT("nice", RawRunner, nice), \
        TEXT("ioprio", RawRunner, ioprio), \
        TEXT("oom_score_adj", RawRunner, oom_score_adj), \
        MAPPING("cgroup", RawRunner, cgroup, cgroup_fields), \
        TEXT("ready", RawRunner, ready), \
        TEXT("start_timeout", RawRunner, start_timeout), \
        TEXT("stop_timeout", RawRunner, stop_timeout), \
        TEXT("stop_signal", RawRunner, stop_signal), \
        TEXT("watchdog", RawRunner, watchdog), \
        TEXT("service", RawRunner, service), \
        TEXT("restart", RawRunner, restart), \
        TEXT("recover", RawRunner, recover), \
        TEXT("pending", RawRunner, pending), \
        MAPPING("checkpoint", RawRunner, checkpoint, checkpoint_fields), \
        MAPPING("upgrade", RawRunner, upgrade, upgrade_fields), \
        TEXT("autostart", RawRunner, autostart), \
        LIST("success_exit", RawRunner, success_exit), \
        MAPPING("backoff", RawRunner, backoff, backoff_fields), \
        MAPPING("intensity", RawRunner, intensity, intensity_fields), \
        LIST("after", RawRunner, after), \
        LIST("requires", RawRunner, requires), \
        MAPPINGS("hooks", RawRunner, hooks, n_hooks, hook_entry), \
        MAPPING("log", RawRunner, log, log_fields), \
        MAPPING("rpc", RawRunner, rpc, rpc_fields), \
        MAPPING("fd_store", RawRunner, fd_store, fd_store_fields), \
        CYAML_FIELD_END
/* clang-format on */

static const cyaml_schema_field_t defaults_fields[] = { RUNNER_FIELDS };

static const cyaml_schema_field_t runner_fields[] = {
        TEXT("name", RawRunner, name),
        TEXT("description", RawRunner, description),
        LIST1("command", RawRunner, command),
        TEXT("oneshot", RawRunner, oneshot),
        TEXT("every", RawRunner, every),
        LIST1("at", RawRunner, at),
        TEXT("instances", RawRunner, instances),
        MAPPINGS("sockets", RawRunner, sockets, n_sockets, socket_entry),
        MAPPING("socket_variable", RawRunner, socket_variable, socket_variable_fields),
        RUNNER_FIELDS,
};
static const cyaml_schema_value_t runner_entry = { CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, RawRunner, runner_fields) };

static const cyaml_schema_field_t group_fields[] = {
        TEXT("name", RawGroup, name),
        TEXT("strategy", RawGroup, strategy),
        MAPPING("intensity", RawGroup, intensity, intensity_fields),
        LIST1("members", RawGroup, members),
        CYAML_FIELD_END,
};
static const cyaml_schema_value_t group_entry = { CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, RawGroup, group_fields) };

static const cyaml_schema_field_t supervisor_fields[] = {
        TEXT("operators", RawSupervisor, operators),
        TEXT("others", RawSupervisor, others),
        TEXT("metrics", RawSupervisor, metrics),
        TEXT("stop_timeout", RawSupervisor, stop_timeout),
        CYAML_FIELD_END,
};

static const cyaml_schema_field_t config_fields[] = {
        MAPPING("supervisor", RawConfig, supervisor, supervisor_fields),
        MAPPING("defaults", RawConfig, defaults, defaults_fields),
        MAPPINGS("runners", RawConfig, runners, n_runners, runner_entry),
        MAPPINGS("groups", RawConfig, groups, n_groups, group_entry),
        CYAML_FIELD_END,
};

const cyaml_schema_value_t config_schema = { CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, RawConfig, config_fields) };

#define DURATION    "a duration such as 500ms, 10s, 5min or 1h"
#define SIZE        "a size in bytes such as 65536, 64K, 10M or 1G"
#define LIMIT       "a number, unlimited, or two of them as SOFT:HARD"
#define BOOLEAN     "true or false"
#define WORDS       "a list of words as [/usr/bin/program, --option, value]"
#define SOCKET_INET "a port, or a numeric address and a port, such as 80, 127.0.0.1:80 or [::1]:80"
#define NAMES       "the name of a runner or group, or a list of them"

static const struct {
        const char *path, *expected;
} expectations[] = {
        { "supervisor", "a mapping of its keys" },
        { "defaults", "a mapping of keys as runners have them" },
        { "runners", "a mapping from names to what each runner is" },
        { "groups", "names of groups, or a list of them" },
        { "groups.", "a mapping from names to what each group is" },
        { "name", "a name" },
        { "description", "a text" },
        { "command", WORDS },
        { "cwd", "a directory" },
        { "env", "a mapping from names to values, or a list of NAME=value" },
        { "env_file", "a file, or a list of them" },
        { "inherit_env", BOOLEAN },
        { "uds_path", BOOLEAN },
        { "channels", "rpc, filesystem, data, or a list of them" },
        { "user", "the name or number of a user" },
        { "group", "the name or number of a group" },
        { "umask", "an octal number from 0 to 0777" },
        { "limits", "a mapping from limits to " LIMIT },
        { "nice", "a number from -20 to 19" },
        { "ioprio", "idle, best-effort:LEVEL or realtime:LEVEL, with a LEVEL from 0 to 7" },
        { "oom_score_adj", "a number from -1000 to 1000" },
        { "cgroup", "a mapping from limits to values" },
        { "cgroup.memory_max", SIZE ", or max" },
        { "cgroup.memory_high", SIZE ", or max" },
        { "cgroup.memory_low", SIZE ", or max" },
        { "cgroup.swap_max", SIZE ", or max" },
        { "cgroup.cpu_max", "a share of one processor such as 50% or 200%, or max" },
        { "cgroup.cpu_weight", "a number from 1 to 10000" },
        { "cgroup.io_weight", "a number from 1 to 10000" },
        { "cgroup.pids_max", "a number from 1, or max" },
        { "ready", "none, hello, notify or fd" },
        { "start_timeout", DURATION },
        { "stop_timeout", DURATION },
        { "stop_signal", "a signal such as TERM, INT or 15" },
        { "watchdog", DURATION },
        { "service", "auto or manual" },
        { "upgrade", "a mapping of timeout, drain, health and signal" },
        { "upgrade.timeout", DURATION },
        { "upgrade.drain", DURATION },
        { "upgrade.health", DURATION },
        { "upgrade.signal", "a signal such as TERM, INT or 15" },
        { "restart", "always, on-failure or never" },
        { "recover", "fresh or failover" },
        { "pending", "resend, flush or none" },
        { "checkpoint", "a mapping of every, timeout, max_state and max_fds" },
        { "checkpoint.every", DURATION },
        { "checkpoint.timeout", DURATION },
        { "checkpoint.max_state", SIZE },
        { "checkpoint.max_fds", "a number from 0 to 65536" },
        { "oneshot", BOOLEAN },
        { "autostart", BOOLEAN },
        { "success_exit", "exit codes from 0 to 255 and signals such as TERM, or a list of them" },
        { "instances", "a number from 0 to 10000" },
        { "every", DURATION },
        { "at", "five fields as in crontab(5): minute, hour, day, month, weekday; or a list of such times" },
        { "backoff", "a mapping of initial, max, factor, jitter and reset" },
        { "backoff.initial", DURATION },
        { "backoff.max", DURATION },
        { "backoff.factor", "a number from 1 to 100 such as 2 or 1.5" },
        { "backoff.jitter", "a share such as 20%" },
        { "backoff.reset", DURATION },
        { "intensity", "a mapping of restarts and within" },
        { "intensity.restarts", "a number from 0 to 1000" },
        { "intensity.within", DURATION },
        { "after", NAMES },
        { "requires", NAMES },
        { "hooks", "a list of mappings of on, command and timeout" },
        { "", "a mapping of on, command and timeout" },
        { "on", "exit or states of a runner, or a list of them" },
        { "timeout", DURATION },
        { "sockets", "a list of mappings such as { tcp: 127.0.0.1:80 }" },
        { "sockets.", "a mapping with tcp, udp or unix" },
        { "sockets.tcp", SOCKET_INET },
        { "sockets.udp", SOCKET_INET },
        { "sockets.unix", "a path such as /run/web.sock, or @NAME for an abstract one" },
        { "sockets.type", "stream, dgram or seqpacket" },
        { "sockets.name", "up to 255 printable characters without colons" },
        { "sockets.backlog", "a number from 1 to 65535" },
        { "sockets.mode", "an octal number from 0 to 0777" },
        { "sockets.user", "the name or number of a user" },
        { "sockets.group", "the name or number of a group" },
        { "sockets.reuse_port", BOOLEAN },
        { "sockets.ipv6_only", BOOLEAN },
        { "sockets.free_bind", BOOLEAN },
        { "socket_variable", "a mapping of name, format and separator" },
        { "socket_variable.name", "the name of a variable" },
        { "socket_variable.format", "a text with %f for the descriptor's number" },
        { "socket_variable.separator", "a text" },
        { "fd_store", "a mapping of max and timeout" },
        { "fd_store.max", "a number from 0 to 1024" },
        { "fd_store.timeout", DURATION },
        { "log", "a mapping of its keys" },
        { "log.directory", "a directory" },
        { "log.format", "text or json" },
        { "log.max_size", SIZE },
        { "log.max_age", DURATION },
        { "log.keep", "a number from 0 to 1000" },
        { "log.mode", "an octal number from 0 to 0777" },
        { "log.ring_size", SIZE ", from 64K to 1G" },
        { "log.full", "drop or park" },
        { "rpc", "a mapping of its keys" },
        { "rpc.max_frame", SIZE ", from 64K" },
        { "rpc.max_calls", "a number from 1" },
        { "rpc.max_memory", SIZE },
        { "rpc.fd_credit", "a number from 1" },
        { "rpc.stream_window", SIZE },
        { "rpc.max_object", SIZE },
        { "rpc.max_held_fds", "a number from 1" },
        { "rpc.max_waiting", "a number from 1" },
        { "rpc.max_waiting_bytes", SIZE },
        { "rpc.max_unsent", SIZE },
        { "rpc.max_attached", "a number from 1 to 65535" },
        { "strategy", "one_for_one, one_for_all or rest_for_one" },
        { "members", "names of runners and groups, as a list" },
        { "operators", "the name or number of a group" },
        { "others", "none or read" },
        { "metrics", "a socket's path, or a numeric ADDRESS:PORT" },
};

const char *config_elsewhere(const char *key) {
        /* From units of systemd, supervisord, compose files, services of dinit and OpenRC. */
        static const char *const names[][2] = {
                { "exec", "command" },
                { "execstart", "command" },
                { "program", "command" },
                { "cmd", "command" },
                { "args", "command" },
                { "environment", "env" },
                { "environmentfile", "env_file" },
                { "directory", "cwd" },
                { "workingdirectory", "cwd" },
                { "working_dir", "cwd" },
                { "chdir", "cwd" },
                { "numprocs", "instances" },
                { "replicas", "instances" },
                { "scale", "instances" },
                { "autorestart", "restart" },
                { "respawn", "restart" },
                { "restartsec", "backoff" },
                { "stopwaitsecs", "stop_timeout" },
                { "timeoutstopsec", "stop_timeout" },
                { "stop_grace_period", "stop_timeout" },
                { "timeoutstartsec", "start_timeout" },
                { "killsignal", "stop_signal" },
                { "stopsignal", "stop_signal" },
                { "watchdogsec", "watchdog" },
                { "depends_on", "requires" },
                { "depends-on", "requires" },
                { "need", "requires" },
                { "wants", "after" },
                { "ulimits", "limits" },
                { "rlimits", "limits" },
                { "schedule", "at" },
                { "cron", "at" },
                { "oncalendar", "at" },
                { "type", "ready" },
                { "successexitstatus", "success_exit" },
                { "exitcodes", "success_exit" },
                { "logfile", "log" },
                { "logging", "log" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcasecmp(names[i][0], key) == 0)
                        return names[i][1];
        return NULL;
}

const char *config_expected(const char *path) {
        char unnumbered[64];

        if (strncmp(path, "limits.", strlen("limits.")) == 0)
                return LIMIT;
        if (strncmp(path, "hooks.", strlen("hooks.")) == 0) /* "hooks.1.on" */
                path += strcspn(path, "0123456789") + strspn(path + strcspn(path, "0123456789"), "0123456789.");
        if (strncmp(path, "sockets.", strlen("sockets.")) == 0 && path[strlen("sockets.")] >= '0' &&
            path[strlen("sockets.")] <= '9') { /* "sockets.1.tcp" */
                const char *rest = path + strlen("sockets.") + strspn(path + strlen("sockets."), "0123456789");

                (void) snprintf(unnumbered, sizeof(unnumbered), "sockets.%.40s", rest + (*rest == '.'));
                path = unnumbered;
        }
        for (size_t i = 0; i < ARRAY_SIZE(expectations); i++)
                if (strcmp(expectations[i].path, path) == 0)
                        return expectations[i].expected;
        return "something else";
}

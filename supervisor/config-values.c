/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, from texts to values. What is one text is in a table: key, where it comes from, where it goes, how it is read.
 * What is a list or a mapping has a function. `defaults' and a runner go the same way, one after the other, into one
 * draft: what a runner does not say stays as it was.
 */

#include "supervisor/config-internal.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/feature.h"
#include "common/parse.h"
#include "common/rlimit.h"

#define DURATION_MAX (366 * 24 * 3600 * USEC_PER_SEC)

typedef enum Kind {
        KIND_TEXT,
        KIND_BOOLEAN,
        KIND_ENUM,
        KIND_DURATION, /* uint64_t, microseconds */
        KIND_SIZE,     /* bytes */
        KIND_NUMBER,
        KIND_OCTAL,
        KIND_SIGNAL,
        KIND_IOPRIO,
        KIND_PERCENT, /* "20%" is 20 */
        KIND_FACTOR,  /* "1.5" is 150 */
} Kind;

enum { NO_GROUP = UINT16_MAX };

/* One text of a runner and its value. */
typedef struct Scalar {
        const char *key;       /* as in messages */
        uint16_t group, raw;   /* in RawRunner: of the pointer to its mapping, or NO_GROUP; of the text, there */
        uint16_t target, size; /* in RunnerConfig */
        Kind kind;
        int64_t min, max;
        const char *const *names; /* of an enum; ended by NULL */
} Scalar;

static const char *const restart_names[] = { [RESTART_NEVER] = "never",
                                             [RESTART_ON_FAILURE] = "on-failure",
                                             [RESTART_ALWAYS] = "always",
                                             [_RESTART_N] = NULL };
static const char *const recover_names[] = {
        [CONFIG_RECOVER_FRESH] = "fresh", [CONFIG_RECOVER_FAILOVER] = "failover", [_CONFIG_RECOVER_N] = NULL
};
static const char *const pending_names[] = { [CONFIG_PENDING_DEFAULT] = "default",
                                             [CONFIG_PENDING_RESEND] = "resend",
                                             [CONFIG_PENDING_FLUSH] = "flush",
                                             [CONFIG_PENDING_NONE] = "none",
                                             [_CONFIG_PENDING_N] = NULL };
const char *config_pending_name(ConfigPending pending) {
        return pending_names[pending];
}

static const char *const ready_names[] = { [CONFIG_READY_NONE] = "none",
                                           [CONFIG_READY_HELLO] = "hello",
                                           [CONFIG_READY_NOTIFY] = "notify",
                                           [CONFIG_READY_FD] = "fd",
                                           [_CONFIG_READY_N] = NULL };
static const char *const format_names[] = {
        [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", [_LOG_FORMAT_N] = NULL
};
static const char *const channel_names[] = {
        [CHANNEL_RPC] = "rpc", [CHANNEL_FILESYSTEM] = "filesystem", [CHANNEL_DATA] = "data", NULL
};
static const char *const full_names[] = { "drop", "park", NULL };
static const char *const service_names[] = { "auto", "manual", NULL };
static const char *const others_names[] = { "none", "read", NULL };
static const char *const strategy_names[] = { [CONFIG_ONE_FOR_ONE] = "one_for_one",
                                              [CONFIG_ONE_FOR_ALL] = "one_for_all",
                                              [CONFIG_REST_FOR_ONE] = "rest_for_one",
                                              [_CONFIG_STRATEGY_N] = NULL };

#define TO(_member)                     .target = offsetof(RunnerConfig, _member), .size = sizeof(((RunnerConfig *) NULL)->_member)
#define OF(_member)                     .group = NO_GROUP, .raw = offsetof(RawRunner, _member)
#define IN(_group, _structure, _member) .group = offsetof(RawRunner, _group), .raw = offsetof(_structure, _member)

static const Scalar scalars[] = {
        { "description", OF(description), TO(description), KIND_TEXT },
        { "cwd", OF(cwd), TO(cwd), KIND_TEXT },
        { "inherit_env", OF(inherit_env), TO(inherit_env), KIND_BOOLEAN },
        { "uds_path", OF(uds_path), TO(uds_path), KIND_BOOLEAN },
        { "umask", OF(umask), TO(umask), KIND_OCTAL, 0, 0777 },
        { "nice", OF(nice), TO(nice), KIND_NUMBER, -20, 19 },
        { "ioprio", OF(ioprio), TO(ioprio), KIND_IOPRIO },
        { "oom_score_adj", OF(oom_score_adj), TO(oom_score_adj), KIND_NUMBER, -1000, 1000 },
        { "ready", OF(ready), TO(ready), KIND_ENUM, .names = ready_names },
        { "start_timeout", OF(start_timeout), TO(start_timeout_us), KIND_DURATION, 1, DURATION_MAX },
        { "stop_timeout", OF(stop_timeout), TO(stop_timeout_us), KIND_DURATION, 1, DURATION_MAX },
        { "stop_signal", OF(stop_signal), TO(stop_signal), KIND_SIGNAL },
        { "watchdog", OF(watchdog), TO(watchdog_us), KIND_DURATION, 0, DURATION_MAX },
        { "service", OF(service), TO(service_manual), KIND_ENUM, .names = service_names },
        { "upgrade.timeout", IN(upgrade, RawUpgrade, timeout), TO(upgrade_timeout_us), KIND_DURATION, 1,
          DURATION_MAX },
        { "upgrade.drain", IN(upgrade, RawUpgrade, drain), TO(upgrade_drain_us), KIND_DURATION, 0, DURATION_MAX },
        { "upgrade.signal", IN(upgrade, RawUpgrade, signal), TO(upgrade_signal), KIND_SIGNAL },
        { "upgrade.health", IN(upgrade, RawUpgrade, health), TO(upgrade_health_us), KIND_DURATION, 0, DURATION_MAX },
        { "restart", OF(restart), TO(restart), KIND_ENUM, .names = restart_names },
        { "recover", OF(recover), TO(recover), KIND_ENUM, .names = recover_names },
        { "pending", OF(pending), TO(pending), KIND_ENUM, .names = pending_names },
        { "checkpoint.every", IN(checkpoint, RawCheckpoint, every), TO(checkpoint_every_us), KIND_DURATION, 0,
          DURATION_MAX },
        { "checkpoint.timeout", IN(checkpoint, RawCheckpoint, timeout), TO(checkpoint_timeout_us), KIND_DURATION, 1,
          DURATION_MAX },
        { "checkpoint.max_state", IN(checkpoint, RawCheckpoint, max_state), TO(checkpoint_max_state), KIND_SIZE, 0,
          INT64_MAX },
        { "checkpoint.max_fds", IN(checkpoint, RawCheckpoint, max_fds), TO(checkpoint_max_fds), KIND_NUMBER, 0,
          CONFIG_CHECKPOINT_FDS_MAX },
        { "oneshot", OF(oneshot), TO(oneshot), KIND_BOOLEAN },
        { "autostart", OF(autostart), TO(autostart), KIND_BOOLEAN },
        { "instances", OF(instances), TO(instances), KIND_NUMBER, 0, CONFIG_INSTANCES_MAX },
        { "backoff.initial", IN(backoff, RawBackoff, initial), TO(backoff.initial_us), KIND_DURATION, 0,
          DURATION_MAX },
        { "backoff.max", IN(backoff, RawBackoff, max), TO(backoff.max_us), KIND_DURATION, 0, DURATION_MAX },
        { "backoff.factor", IN(backoff, RawBackoff, factor), TO(backoff.factor_percent), KIND_FACTOR, 100, 10000 },
        { "backoff.jitter", IN(backoff, RawBackoff, jitter), TO(backoff.jitter_percent), KIND_PERCENT, 0, 100 },
        { "backoff.reset", IN(backoff, RawBackoff, reset), TO(backoff_reset_us), KIND_DURATION, 0, DURATION_MAX },
        { "log.directory", IN(log, RawLog, directory), TO(log.directory), KIND_TEXT },
        { "log.format", IN(log, RawLog, format), TO(log.format), KIND_ENUM, .names = format_names },
        { "log.max_size", IN(log, RawLog, max_size), TO(log.max_size), KIND_SIZE, 0, INT64_MAX },
        { "log.max_age", IN(log, RawLog, max_age), TO(log.max_age_us), KIND_DURATION, 0, INT64_MAX },
        { "log.keep", IN(log, RawLog, keep), TO(log.keep), KIND_NUMBER, 0, LOG_KEEP_MAX },
        { "log.mode", IN(log, RawLog, mode), TO(log.mode), KIND_OCTAL, 0, 0777 },
        { "log.ring_size", IN(log, RawLog, ring_size), TO(log.ring_size), KIND_SIZE, LOG_RING_SIZE_MIN,
          LOG_RING_SIZE_MAX },
        { "log.full", IN(log, RawLog, full), TO(log.park), KIND_ENUM, .names = full_names },
        { "rpc.max_attached", IN(rpc, RawRpc, max_attached), TO(max_attached), KIND_NUMBER, 1, 65535 },
};

/* The same into PeerLimits. */
#define RPC(_member)                                                                                                  \
        .group = offsetof(RawRunner, rpc), .raw = offsetof(RawRpc, _member), .target = offsetof(PeerLimits, _member), \
        .size = sizeof(((PeerLimits *) NULL)->_member)

static const Scalar rpc_scalars[] = {
        { "rpc.max_frame", RPC(max_frame), KIND_SIZE, 64 * 1024, UINT32_MAX },
        { "rpc.max_calls", RPC(max_calls), KIND_NUMBER, 1, UINT32_MAX },
        { "rpc.max_memory", RPC(max_memory), KIND_SIZE, 1, INT64_MAX },
        { "rpc.fd_credit", RPC(fd_credit), KIND_NUMBER, 1, UINT32_MAX },
        { "rpc.stream_window", RPC(stream_window), KIND_SIZE, 1, INT64_MAX },
        { "rpc.max_object", RPC(max_object), KIND_SIZE, 1, INT64_MAX },
        { "rpc.max_held_fds", RPC(max_held_fds), KIND_NUMBER, 1, UINT32_MAX },
        { "rpc.max_waiting", RPC(max_waiting), KIND_NUMBER, 1, UINT32_MAX },
        { "rpc.max_waiting_bytes", RPC(max_waiting_bytes), KIND_SIZE, 1, INT64_MAX },
        { "rpc.max_unsent", RPC(max_unsent), KIND_SIZE, 1, INT64_MAX },
};

/* --------------------------------------------------------------------------------------------------------- one value */

void config_fail(ConfigLoader *loader, const char *key, const char *format, ...) {
        char path[2 * CONFIG_PATH_SIZE], text[CONFIG_ERROR_SIZE];
        uint32_t line = 0;
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        (void) snprintf(path, sizeof(path), "%s%s%s", loader->path, key ? "." : "", key ? key : "");
        if (loader->document)
                line = config_document_line(loader->document, path);
        if (line == 0 && loader->document) /* a key that is missing: where it should be */
                line = config_document_line(loader->document, loader->path);
        config_errors_add(loader->errors, loader->document ? loader->document->file : "", line, path, "%s", text);
}

void config_value_unexpected(ConfigLoader *loader, const char *key, const char *text) {
        config_fail(loader, key, "expected %s, not '%.100s'", config_expected(key), text);
}

bool config_value_boolean(const char *text, bool *ret_value) {
        static const char *const yes[] = { "true", "yes", "on" }, *const no[] = { "false", "no", "off" };

        for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
                if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
                        *ret_value = strcmp(text, yes[i]) == 0;
                        return true;
                }
        return false;
}

static bool parse_name(const char *text, const char *const *names, int64_t *ret_value) {
        for (int64_t i = 0; names[i]; i++)
                if (strcmp(names[i], text) == 0) {
                        *ret_value = i;
                        return true;
                }
        return false;
}

bool config_value_octal(const char *text, int64_t *ret_value) {
        int64_t value = 0;

        if (*text == '\0' || strlen(text) > 8)
                return false;
        for (; *text >= '0' && *text <= '7'; text++)
                value = value * 8 + (*text - '0');
        *ret_value = value;
        return *text == '\0';
}

static bool parse_ioprio(const char *text, int64_t *ret_value) {
        enum { CLASS_REALTIME = 1, CLASS_BEST_EFFORT = 2, CLASS_IDLE = 3, CLASS_SHIFT = 13 };
        static const struct {
                const char *name;
                int class;
        } classes[] = { { "realtime:", CLASS_REALTIME }, { "best-effort:", CLASS_BEST_EFFORT } };
        uint64_t level;

        if (strcmp(text, "idle") == 0) {
                *ret_value = CLASS_IDLE << CLASS_SHIFT;
                return true;
        }
        for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
                size_t length = strlen(classes[i].name);

                if (strncmp(text, classes[i].name, length) == 0 && parse_u64(text + length, 7, &level) == 0) {
                        *ret_value = classes[i].class << CLASS_SHIFT | (int64_t) level;
                        return true;
                }
        }
        return false;
}

/* parse_percent() - "50%", in hundredths of it when @hundredths. */
static bool parse_percent(const char *text, uint64_t *ret_value) {
        size_t length = strlen(text);
        char digits[16];

        if (length < 2 || length > sizeof(digits) || text[length - 1] != '%')
                return false;
        memcpy(digits, text, length - 1);
        digits[length - 1] = '\0';
        return parse_u64(digits, UINT32_MAX, ret_value) == 0;
}

/* parse_factor() - a number with at most two decimals, in hundredths. */
static bool parse_factor(const char *text, int64_t *ret_value) {
        double value;

        if (*text < '0' || *text > '9' || parse_double(text, &value) < 0 || !(value >= 0 && value < 1e6))
                return false;
        *ret_value = (int64_t) (value * 100 + 0.5);
        return true;
}

static bool parse_unsigned(const Scalar *scalar, const char *text, int64_t *ret_value) {
        uint64_t value;
        int r = scalar->kind == KIND_DURATION ? parse_duration(text, &value)
                : scalar->kind == KIND_SIZE   ? parse_size(text, INT64_MAX, &value)
                                              : (parse_percent(text, &value) ? 0 : -1);

        if (r < 0 || value > INT64_MAX)
                return false;
        *ret_value = (int64_t) value;
        return true;
}

/* parse_scalar() - false: it is no such value, or out of range. */
static bool parse_scalar(const Scalar *scalar, const char *text, int64_t *ret_value) {
        bool boolean, good = false;
        int signal;

        switch (scalar->kind) {
        case KIND_BOOLEAN:
                good = config_value_boolean(text, &boolean);
                *ret_value = good && boolean;
                return good;
        case KIND_ENUM:
                return parse_name(text, scalar->names, ret_value);
        case KIND_SIGNAL:
                good = parse_signal(text, &signal) == 0;
                *ret_value = good ? signal : 0;
                return good;
        case KIND_IOPRIO:
                return parse_ioprio(text, ret_value);
        case KIND_NUMBER:
                return parse_i64(text, scalar->min, scalar->max, ret_value) == 0;
        case KIND_OCTAL:
                good = config_value_octal(text, ret_value);
                break;
        case KIND_FACTOR:
                good = parse_factor(text, ret_value);
                break;
        default:
                good = parse_unsigned(scalar, text, ret_value);
                break;
        }
        return good && *ret_value >= scalar->min && *ret_value <= scalar->max;
}

/* store() - @value as a number of @size bytes. */
static void store(void *target, size_t size, int64_t value) {
        const union {
                int64_t whole;
                int32_t word;
                int16_t half;
                int8_t byte;
        } values[] = { { .whole = value },
                       { .word = (int32_t) value },
                       { .half = (int16_t) value },
                       { .byte = (int8_t) value } };

        memcpy(target, size == 8 ? &values[0] : size == 4 ? &values[1] : size == 2 ? &values[2] : &values[3], size);
}

/* text_of() - in @raw; NULL: not set. */
static char *text_of(const RawRunner *raw, const Scalar *scalar) {
        const char *base = (const char *) raw;

        if (scalar->group != NO_GROUP)
                memcpy(&base, base + scalar->group, sizeof(base));
        if (base)
                memcpy(&base, base + scalar->raw, sizeof(base));
        return (char *) base;
}

static void apply_scalar(ConfigLoader *loader, const Scalar *scalar, char *text, void *structure) {
        void *target = (char *) structure + scalar->target;
        int64_t value;

        if (!text)
                return;
        if (*text == '\0')
                config_value_unexpected(loader, scalar->key, text);
        else if (scalar->kind == KIND_TEXT)
                memcpy(target, &text, sizeof(text));
        else if (parse_scalar(scalar, text, &value))
                store(target, scalar->size, value);
        else
                config_value_unexpected(loader, scalar->key, text);
}

/* -------------------------------------------------------------------------------------------------- lists and mappings */

static void *scratch(ConfigLoader *loader, size_t size) {
        void *memory = config_arena_new(&loader->arena, size);

        loader->no_memory |= !memory;
        return memory;
}

const char *const *config_values_strings(ConfigLoader *loader, const RawList *list) {
        const char **strings = list->n > 0 ? scratch(loader, (list->n + 1) * sizeof(*strings)) : NULL;

        for (unsigned i = 0; strings && i < list->n; i++)
                strings[i] = list->items[i];
        return strings;
}

static size_t count(const char *const *strings) {
        size_t n = 0;

        while (strings && strings[n])
                n++;
        return n;
}

static bool is_variable(const char *text) {
        size_t length = strcspn(text, "=");

        return text[length] && length > 0 && strcspn(text, " \t\n") > length;
}

/* apply_env() - over what is there: a name is there once. */
static void apply_env(ConfigLoader *loader, RunnerConfig *config, const RawList *list) {
        size_t n = count(config->env);
        const char **env = list->n > 0 ? scratch(loader, (n + list->n + 1) * sizeof(*env)) : NULL;

        if (!env)
                return;
        for (size_t i = 0; i < n; i++)
                env[i] = config->env[i];
        for (unsigned i = 0; i < list->n; i++) {
                size_t length = strcspn(list->items[i], "=") + 1, at = 0;

                if (!is_variable(list->items[i])) {
                        config_value_unexpected(loader, "env", list->items[i]);
                        continue;
                }
                while (at < n && strncmp(env[at], list->items[i], length) != 0)
                        at++;
                env[at] = list->items[i];
                n = MAX(n, at + 1);
        }
        config->env = env;
}

/* parse_limit() - of a resource: of most a size, of some a duration would be as good, but the kernel's unit is what is said. */
static bool parse_limit(const char *text, rlim_t *ret_value) {
        uint64_t value;

        if (strcmp(text, "unlimited") == 0) {
                *ret_value = RLIM_INFINITY;
                return true;
        }
        if (parse_size(text, INT64_MAX, &value) < 0)
                return false;
        *ret_value = value;
        return true;
}

static bool parse_limits(const char *text, struct rlimit *ret_limit) {
        const char *colon = strchr(text, ':');
        char soft[32];

        if (!colon)
                return parse_limit(text, &ret_limit->rlim_cur) && parse_limit(text, &ret_limit->rlim_max);
        if ((size_t) (colon - text) >= sizeof(soft))
                return false;
        memcpy(soft, text, (size_t) (colon - text));
        soft[colon - text] = '\0';
        return parse_limit(soft, &ret_limit->rlim_cur) && parse_limit(colon + 1, &ret_limit->rlim_max) &&
               ret_limit->rlim_cur <= ret_limit->rlim_max;
}

static void apply_limits(ConfigLoader *loader, ConfigDraft *draft, const RawLimits *raw) {
        for (unsigned i = 0; raw && i < CONFIG_LIMITS_N; i++) {
                int resource = rlimit_by_name(rlimit_by_index(i));
                SpawnLimit limit = { .resource = resource };
                unsigned at = 0;
                char key[32];

                if (!raw->values[i])
                        continue;
                (void) snprintf(key, sizeof(key), "limits.%s", rlimit_by_index(i));
                if (!parse_limits(raw->values[i], &limit.limit)) {
                        config_value_unexpected(loader, key, raw->values[i]);
                        continue;
                }
                while (at < draft->config.n_limits && draft->limits[at].resource != resource)
                        at++;
                draft->limits[at] = limit;
                draft->config.n_limits = (uint8_t) MAX(draft->config.n_limits, at + 1);
        }
        draft->config.limits = draft->config.n_limits > 0 ? draft->limits : NULL;
}

/* cgroup_text() - what is written into the file of cgroup v2, from what people write. NULL: it is not such a value. */
static const char *cgroup_text(ConfigLoader *loader, ConfigCgroupKey key, const char *text) {
        bool is_weight = key == CONFIG_CGROUP_CPU_WEIGHT || key == CONFIG_CGROUP_IO_WEIGHT;
        uint64_t value;

        if (!is_weight && strcmp(text, "max") == 0)
                return text;
        if (key == CONFIG_CGROUP_CPU_MAX) {
                if (!parse_percent(text, &value) || value < 1 || value > 100 * 10000)
                        return NULL;
                return config_arena_print(&loader->arena, "%llu 100000", (unsigned long long) value * 1000);
        }
        if (is_weight || key == CONFIG_CGROUP_PIDS_MAX)
                return parse_u64(text, is_weight ? 10000 : INT32_MAX, &value) == 0 && value > 0 ? text : NULL;
        if (parse_size(text, INT64_MAX, &value) < 0)
                return NULL;
        return config_arena_print(&loader->arena, "%llu", (unsigned long long) value);
}

static void apply_cgroup(ConfigLoader *loader, ConfigDraft *draft, const RawCgroup *raw) {
        static const char *const keys[] = {
                [CONFIG_CGROUP_MEMORY_MAX] = "cgroup.memory_max", [CONFIG_CGROUP_MEMORY_HIGH] = "cgroup.memory_high",
                [CONFIG_CGROUP_MEMORY_LOW] = "cgroup.memory_low", [CONFIG_CGROUP_SWAP_MAX] = "cgroup.swap_max",
                [CONFIG_CGROUP_CPU_MAX] = "cgroup.cpu_max",       [CONFIG_CGROUP_CPU_WEIGHT] = "cgroup.cpu_weight",
                [CONFIG_CGROUP_IO_WEIGHT] = "cgroup.io_weight",   [CONFIG_CGROUP_PIDS_MAX] = "cgroup.pids_max",
        };

        _Static_assert(ARRAY_SIZE(keys) == _CONFIG_CGROUP_N, "each has a key");
        for (unsigned i = 0; raw && i < _CONFIG_CGROUP_N; i++) {
                const char *text = raw->values[i] ? cgroup_text(loader, i, raw->values[i]) : NULL;

                if (text)
                        draft->cgroup.values[i] = text;
                else if (raw->values[i])
                        config_value_unexpected(loader, keys[i], raw->values[i]);
        }
        if (raw)
                draft->config.cgroup = &draft->cgroup;
}

static void apply_exits(ConfigLoader *loader, ConfigDraft *draft, const RawList *list) {
        if (list->n > 0)
                draft->exits = (ConfigExits){ 0 };
        for (unsigned i = 0; i < list->n; i++) {
                uint64_t code;
                int signal;

                if (parse_u64(list->items[i], 255, &code) == 0)
                        draft->exits.codes[code / 64] |= UINT64_C(1) << code % 64;
                else if ((*list->items[i] < '0' || *list->items[i] > '9') &&
                         parse_signal(list->items[i], &signal) == 0)
                        draft->exits.signals |= UINT64_C(1) << (signal - 1);
                else
                        config_value_unexpected(loader, "success_exit", list->items[i]);
        }
        if (list->n > 0)
                draft->config.exits = &draft->exits;
}

static void apply_channels(ConfigLoader *loader, RunnerConfig *config, const RawList *list) {
        if (list->n > 0)
                config->channels = 0;
        for (unsigned i = 0; i < list->n; i++) {
                int64_t channel;

                if (parse_name(list->items[i], channel_names, &channel))
                        config->channels |= (uint8_t) (1U << channel);
                else
                        config_value_unexpected(loader, "channels", list->items[i]);
        }
}

static bool parse_event(const char *text, unsigned *ret_events) {
        if (strcmp(text, "exit") == 0) {
                *ret_events = 1u << CONFIG_HOOK_EXIT;
                return true;
        }
        for (unsigned state = 0; state < _POLICY_STATE_N; state++)
                if (strcmp(text, policy_state_name(state)) == 0) {
                        *ret_events = 1u << state;
                        return true;
                }
        return false;
}

bool config_values_has(const ConfigLoader *loader, const char *key) {
        char path[2 * CONFIG_PATH_SIZE];

        (void) snprintf(path, sizeof(path), "%s.%s", loader->path, key);
        return config_document_line(loader->document, path) > 0;
}

static void check_hook_key(ConfigLoader *loader, unsigned number, const char *name, const RawList *list) {
        char key[48];

        (void) snprintf(key, sizeof(key), "hooks.%u.%s", number, name);
        if (list->n > 0 || config_values_has(loader, key))
                return;
        (void) snprintf(key, sizeof(key), "hooks.%u", number);
        config_fail(loader, key, "'%s' is missing: expected %s", name, config_expected(name));
}

static void apply_hook(ConfigLoader *loader, const RawHook *raw, unsigned number, ConfigHook *hook) {
        char key[48];
        unsigned event;

        hook->command = config_values_strings(loader, &raw->command);
        hook->timeout_us = CONFIG_HOOK_TIMEOUT_US;
        check_hook_key(loader, number, "on", &raw->on);
        check_hook_key(loader, number, "command", &raw->command);
        (void) snprintf(key, sizeof(key), "hooks.%u.on", number);
        for (unsigned i = 0; i < raw->on.n; i++)
                if (parse_event(raw->on.items[i], &event))
                        hook->events |= event;
                else
                        config_value_unexpected(loader, key, raw->on.items[i]);
        (void) snprintf(key, sizeof(key), "hooks.%u.timeout", number);
        if (raw->timeout && (parse_duration(raw->timeout, &hook->timeout_us) < 0 || hook->timeout_us == 0 ||
                             hook->timeout_us > DURATION_MAX))
                config_value_unexpected(loader, key, raw->timeout);
}

static void apply_hooks(ConfigLoader *loader, RunnerConfig *config, const RawRunner *raw) {
        ConfigHook *hooks;

        if (raw->n_hooks == 0)
                return;
        if (raw->n_hooks > CONFIG_HOOKS_MAX) {
                config_fail(loader, "hooks", "expected at most %d of them, not %u", CONFIG_HOOKS_MAX, raw->n_hooks);
                return;
        }
        hooks = scratch(loader, raw->n_hooks * sizeof(*hooks));
        if (!hooks)
                return;
        for (unsigned i = 0; i < raw->n_hooks; i++)
                apply_hook(loader, &raw->hooks[i], i + 1, &hooks[i]);
        config->hooks = hooks;
        config->n_hooks = (uint8_t) raw->n_hooks;
}

static void apply_schedule(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        ConfigTime *at = raw->at.n > 0 ? scratch(loader, raw->at.n * sizeof(*at)) : NULL;
        bool good = true;

        if (raw->every && (parse_duration(raw->every, &draft->schedule.every_us) < 0 ||
                           draft->schedule.every_us == 0 || draft->schedule.every_us > DURATION_MAX))
                config_value_unexpected(loader, "every", raw->every);
        if (raw->every && raw->at.n > 0)
                config_fail(loader, "every", "goes with no 'at': one of them");
        if (raw->at.n > UINT16_MAX)
                config_fail(loader, "at", "expected at most %d of them", UINT16_MAX);
        for (unsigned i = 0; at && i < raw->at.n; i++)
                if (!config_time_parse(raw->at.items[i], &at[i])) {
                        config_value_unexpected(loader, "at", raw->at.items[i]);
                        good = false;
                }
        if (at && raw->at.n <= UINT16_MAX) {
                draft->schedule.at = at;
                draft->schedule.n_at = (uint16_t) raw->at.n;
                if (good && config_schedule_next(&draft->schedule, clock_wall()) == USEC_INFINITY)
                        config_fail(loader, "at", "such a time never comes");
        }
        if (raw->every || raw->at.n > 0)
                draft->config.schedule = &draft->schedule;
}

static void apply_rpc(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        if (!raw->rpc)
                return;
        for (size_t i = 0; i < ARRAY_SIZE(rpc_scalars); i++)
                apply_scalar(loader, &rpc_scalars[i], text_of(raw, &rpc_scalars[i]), &draft->rpc);
        draft->config.rpc = &draft->rpc;
}

void config_values_intensity(ConfigLoader *loader, const RawIntensity *raw, ConfigIntensity *intensity) {
        uint64_t restarts = intensity->restarts;

        if (raw && raw->restarts && parse_u64(raw->restarts, CONFIG_RESTARTS_MAX, &restarts) < 0)
                config_value_unexpected(loader, "intensity.restarts", raw->restarts);
        intensity->restarts = (uint32_t) restarts;
        if (raw && raw->within &&
            (parse_duration(raw->within, &intensity->window_us) < 0 || intensity->window_us == 0 ||
             intensity->window_us > DURATION_MAX))
                config_value_unexpected(loader, "intensity.within", raw->within);
}

void config_values_strategy(ConfigLoader *loader, const char *text, ConfigStrategy *ret_strategy) {
        int64_t value;

        if (text && !parse_name(text, strategy_names, &value))
                config_value_unexpected(loader, "strategy", text);
        else if (text)
                *ret_strategy = (ConfigStrategy) value;
}

/* ----------------------------------------------------------------------------------------------------------- a runner */

static void apply_lists(ConfigLoader *loader, RunnerConfig *config, const RawRunner *raw) {
        if (raw->command.n > 0)
                config->command = config_values_strings(loader, &raw->command);
        if (raw->env_file.n > 0)
                config->env_file = config_values_strings(loader, &raw->env_file);
        if (raw->after.n > 0)
                config->after = config_values_strings(loader, &raw->after);
        if (raw->requires.n > 0)
        config->requires = config_values_strings(loader, &raw->requires);
        apply_env(loader, config, &raw->env);
}

void config_values_apply(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        for (size_t i = 0; i < ARRAY_SIZE(scalars); i++)
                apply_scalar(loader, &scalars[i], text_of(raw, &scalars[i]), &draft->config);
        config_values_intensity(loader, raw->intensity, &draft->config.intensity);
        apply_lists(loader, &draft->config, raw);
        apply_limits(loader, draft, raw->limits);
        apply_cgroup(loader, draft, raw->cgroup);
        apply_exits(loader, draft, &raw->success_exit);
        apply_channels(loader, &draft->config, &raw->channels);
        apply_hooks(loader, &draft->config, raw);
        apply_schedule(loader, draft, raw);
        apply_rpc(loader, draft, raw);
        if (raw->user)
                draft->user = raw->user;
        if (raw->group)
                draft->group = raw->group;
        if (raw->groups.n > 0)
                draft->groups = &raw->groups;
        draft->config.is_template |= raw->instances != NULL;
        config_sockets_apply(loader, draft, raw);
}

static void check_command(ConfigLoader *loader, const RunnerConfig *config) {
        if (!config->command && !config_values_has(loader, "command"))
                config_fail(loader, NULL, "'command' is missing: expected %s", config_expected("command"));
        else if (config->command && **config->command == '\0')
                config_fail(loader, "command", "expected a program as its first word, not ''");
}

static void check_recovery(ConfigLoader *loader, const RunnerConfig *config) {
        if (config->recover == CONFIG_RECOVER_FAILOVER && config->ready != CONFIG_READY_HELLO)
                config_fail(loader, "recover", "'failover' goes only with 'ready: hello'");
        if (config->checkpoint_every_us > 0 && config->recover != CONFIG_RECOVER_FAILOVER)
                config_fail(loader, "checkpoint.every", "goes only with 'recover: failover'");
        if (config->pending != CONFIG_PENDING_DEFAULT && config->ready != CONFIG_READY_HELLO)
                config_fail(loader, "pending", "goes only with 'ready: hello'");
        if (config->pending == CONFIG_PENDING_RESEND && !feature_enabled(FEATURE_FUSE_RESEND))
                config_fail(loader, "pending", "'resend' needs Linux 6.9: use flush or none");
}

/* check_backoff() - where one of the two is said, the other follows. */
static void check_backoff(ConfigLoader *loader, PolicyBackoff *backoff, const RawBackoff *raw) {
        if (backoff->max_us >= backoff->initial_us)
                return;
        if (raw && raw->initial && raw->max)
                config_fail(loader, "backoff.max", "expected a duration not below initial, which is %s", raw->initial);
        else if (raw && raw->max)
                backoff->initial_us = backoff->max_us;
        else
                backoff->max_us = backoff->initial_us;
}

void config_values_finish(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        RunnerConfig *config = &draft->config;
        bool runs_once = config->oneshot || config->schedule;

        check_command(loader, config);
        /* What a runner that always runs gets from `defaults' would make of one that runs once a loop. */
        if (runs_once && !raw->restart)
                config->restart = RESTART_NEVER;
        if (runs_once && config->restart == RESTART_ALWAYS)
                config_fail(loader, "restart", "'always' goes with neither oneshot nor a schedule");
        if (config->oneshot && config->ready != CONFIG_READY_NONE)
                config_fail(loader, "oneshot", "goes only with 'ready: none': it is ready when it has ended");
        if (config->uds_path && config->ready != CONFIG_READY_HELLO)
                config_fail(loader, "uds_path", "goes only with 'ready: hello'");
        if ((config->channels & ~(1U << CHANNEL_RPC)) != 0 && config->ready != CONFIG_READY_HELLO)
                config_fail(loader, "channels", "goes only with 'ready: hello'");
        if (config->service_manual && config->ready != CONFIG_READY_HELLO)
                config_fail(loader, "service", "goes only with 'ready: hello'");
        if (config->watchdog_us > 0 && config->ready != CONFIG_READY_HELLO && config->ready != CONFIG_READY_NOTIFY)
                config_fail(loader, "watchdog", "goes only with 'ready: hello' or 'ready: notify'");
        check_recovery(loader, config);
        check_backoff(loader, &config->backoff, raw->backoff);
        config_sockets_finish(loader, draft);
        config_user_resolve(loader, draft, raw);
}

/* ----------------------------------------------------------------------------------------------------- the supervisor */

/* is_address() - "127.0.0.1:9100" or "[::1]:9100", by its form. */
static bool is_address(const char *text) {
        const char *colon = strrchr(text, ':');
        uint64_t port;

        return colon && colon > text && strspn(text, "0123456789abcdefABCDEF.:[]") == strlen(text) &&
               parse_u64(colon + 1, 65535, &port) == 0 && port > 0;
}

void config_values_supervisor(ConfigLoader *loader, const RawSupervisor *raw, SupervisorConfig *ret_supervisor) {
        int64_t others = 0;

        if (raw->operators && !config_user_group(raw->operators, &ret_supervisor->operators_gid))
                config_fail(loader, "operators", "there is no group %s", raw->operators);
        ret_supervisor->operators = raw->operators;
        ret_supervisor->has_operators = raw->operators;
        if (raw->others && !parse_name(raw->others, others_names, &others))
                config_value_unexpected(loader, "others", raw->others);
        ret_supervisor->others_read = others > 0;
        if (raw->metrics && *raw->metrics != '/' && !is_address(raw->metrics))
                config_value_unexpected(loader, "metrics", raw->metrics);
        ret_supervisor->metrics = raw->metrics;
        if (raw->stop_timeout &&
            (parse_duration(raw->stop_timeout, &ret_supervisor->stop_timeout_us) < 0 ||
             ret_supervisor->stop_timeout_us == 0 || ret_supervisor->stop_timeout_us > DURATION_MAX))
                config_value_unexpected(loader, "stop_timeout", raw->stop_timeout);
}

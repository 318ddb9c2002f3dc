/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, the difference of two: which runners come, go or change, by which keys, and what that needs. The keys are a
 * table, so that a new one has to say what a change of it needs; the tests hold the table against the structure.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef bool IsSame(const void *a, const void *b);

typedef struct Key {
        const char *name;
        uint16_t offset;
        uint16_t size;   /* of plain bytes; 0: */
        IsSame *is_same; /* given what is at the offset */
        ConfigEffect effect;
} Key;

static bool same_text(const char *a, const char *b) {
        return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_string(const void *a, const void *b) {
        return same_text(*(const char *const *) a, *(const char *const *) b);
}

static bool same_list(const char *const *a, const char *const *b) {
        if (!a || !b)
                return a == b;
        while (*a && *b && strcmp(*a, *b) == 0) {
                a++;
                b++;
        }
        return !*a && !*b;
}

static bool same_strings(const void *a, const void *b) {
        return same_list(*(const char *const *const *) a, *(const char *const *const *) b);
}

static bool same_user(const void *a, const void *b) {
        const ConfigUser *one = *(const ConfigUser *const *) a, *other = *(const ConfigUser *const *) b;

        if (!one || !other)
                return one == other;
        return one->spawn.uid == other->spawn.uid && one->spawn.gid == other->spawn.gid &&
               one->spawn.n_groups == other->spawn.n_groups &&
               (one->spawn.n_groups == 0 ||
                memcmp(one->spawn.groups, other->spawn.groups, one->spawn.n_groups * sizeof(gid_t)) == 0) &&
               same_text(one->name, other->name) && same_text(one->home, other->home) &&
               same_text(one->shell, other->shell) && same_text(one->unresolved, other->unresolved);
}

static bool same_cgroup(const void *a, const void *b) {
        const ConfigCgroup *one = *(const ConfigCgroup *const *) a, *other = *(const ConfigCgroup *const *) b;

        for (unsigned i = 0; one && other && i < _CONFIG_CGROUP_N; i++)
                if (!same_text(one->values[i], other->values[i]))
                        return false;
        return !one == !other;
}

static bool same_exits(const void *a, const void *b) {
        const ConfigExits *one = *(const ConfigExits *const *) a, *other = *(const ConfigExits *const *) b;

        return one && other ? memcmp(one, other, sizeof(*one)) == 0 : one == other;
}

static bool same_time(const ConfigTime *a, const ConfigTime *b) {
        return a->minutes == b->minutes && a->hours == b->hours && a->days == b->days && a->months == b->months &&
               a->weekdays == b->weekdays && a->any_day == b->any_day && a->any_weekday == b->any_weekday;
}

static bool same_schedule(const void *a, const void *b) {
        const ConfigSchedule *one = *(const ConfigSchedule *const *) a, *other = *(const ConfigSchedule *const *) b;

        if (!one || !other)
                return one == other;
        for (unsigned i = 0; i < MIN(one->n_at, other->n_at); i++)
                if (!same_time(&one->at[i], &other->at[i]))
                        return false;
        return one->n_at == other->n_at && one->every_us == other->every_us;
}

static bool same_rpc(const void *a, const void *b) {
        static const PeerLimits none;
        const PeerLimits *one = *(const PeerLimits *const *) a, *other = *(const PeerLimits *const *) b;

        one = one ? one : &none;
        other = other ? other : &none;
        return one->max_frame == other->max_frame && one->max_calls == other->max_calls &&
               one->max_memory == other->max_memory && one->fd_credit == other->fd_credit &&
               one->stream_window == other->stream_window && one->max_object == other->max_object &&
               one->max_held_fds == other->max_held_fds && one->max_waiting == other->max_waiting &&
               one->max_waiting_bytes == other->max_waiting_bytes && one->max_unsent == other->max_unsent;
}

static bool same_backoff(const void *a, const void *b) {
        const PolicyBackoff *one = a, *other = b;

        return one->initial_us == other->initial_us && one->max_us == other->max_us &&
               one->factor_percent == other->factor_percent && one->jitter_percent == other->jitter_percent;
}

static bool same_intensity(const void *a, const void *b) {
        const ConfigIntensity *one = a, *other = b;

        return one->restarts == other->restarts && one->window_us == other->window_us;
}

static bool same_log(const void *a, const void *b) {
        const LogConfig *one = a, *other = b;

        return one->park == other->park && one->ring_size == other->ring_size &&
               same_text(one->directory, other->directory) && one->format == other->format &&
               one->max_size == other->max_size && one->max_age_us == other->max_age_us && one->keep == other->keep &&
               one->mode == other->mode && one->uid == other->uid && one->gid == other->gid;
}

/* These need the number beside the pointer: see is_same_runner(). */
static bool same_limits(const RunnerConfig *a, const RunnerConfig *b) {
        for (unsigned i = 0; i < MIN(a->n_limits, b->n_limits); i++)
                if (a->limits[i].resource != b->limits[i].resource ||
                    a->limits[i].limit.rlim_cur != b->limits[i].limit.rlim_cur ||
                    a->limits[i].limit.rlim_max != b->limits[i].limit.rlim_max)
                        return false;
        return a->n_limits == b->n_limits;
}

static bool same_socket(const ConfigSocket *a, const ConfigSocket *b) {
        return strcmp(a->name, b->name) == 0 && strcmp(a->address, b->address) == 0 && a->type == b->type &&
               a->backlog == b->backlog && a->uid == b->uid && a->gid == b->gid && a->mode == b->mode &&
               a->reuse_port == b->reuse_port && a->ipv6_only == b->ipv6_only && a->free_bind == b->free_bind;
}

static bool same_sockets(const RunnerConfig *a, const RunnerConfig *b) {
        for (unsigned i = 0; i < MIN(a->n_sockets, b->n_sockets); i++)
                if (!same_socket(&a->sockets[i], &b->sockets[i]))
                        return false;
        return a->n_sockets == b->n_sockets;
}

static bool same_socket_variable(const void *a, const void *b) {
        const ConfigSocketVariable *one = *(const ConfigSocketVariable *const *) a;
        const ConfigSocketVariable *other = *(const ConfigSocketVariable *const *) b;

        if (!one || !other)
                return one == other;
        return strcmp(one->name, other->name) == 0 && strcmp(one->format, other->format) == 0 &&
               strcmp(one->separator, other->separator) == 0;
}

static bool same_hooks(const RunnerConfig *a, const RunnerConfig *b) {
        for (unsigned i = 0; i < MIN(a->n_hooks, b->n_hooks); i++)
                if (a->hooks[i].events != b->hooks[i].events || a->hooks[i].timeout_us != b->hooks[i].timeout_us ||
                    !same_list(a->hooks[i].command, b->hooks[i].command))
                        return false;
        return a->n_hooks == b->n_hooks;
}

#define PLAIN(_name, _member, _effect)                                                                  \
        {                                                                                               \
                _name, offsetof(RunnerConfig, _member), sizeof(((RunnerConfig *) NULL)->_member), NULL, \
                        CONFIG_EFFECT_##_effect                                                         \
        }
#define BY(_name, _member, _function, _effect) \
        { _name, offsetof(RunnerConfig, _member), 0, _function, CONFIG_EFFECT_##_effect }

enum { KEY_LIMITS, KEY_HOOKS, KEY_SOCKETS }; /* their places in the table */

/*
 * What a process gets at its start is UPGRADE. RESTART is what two processes could not be side by side with: sockets, of
 * which the predecessor may have the address, and the kind of a runner.
 */
static const Key keys[] = {
        [KEY_LIMITS] = BY("limits", limits, NULL, UPGRADE),
        [KEY_HOOKS] = BY("hooks", hooks, NULL, NONE),
        [KEY_SOCKETS] = BY("sockets", sockets, NULL, RESTART),
        BY("socket_variable", socket_variable, same_socket_variable, RESTART),
        PLAIN("fd_store.max", fd_store_max, NONE),
        PLAIN("fd_store.timeout", fd_store_timeout_us, NONE),
        BY("description", description, same_string, NONE),
        BY("command", command, same_strings, UPGRADE),
        BY("env", env, same_strings, UPGRADE),
        BY("env_file", env_file, same_strings, UPGRADE),
        PLAIN("inherit_env", inherit_env, UPGRADE),
        PLAIN("uds_path", uds_path, UPGRADE),
        PLAIN("channels", channels, UPGRADE),
        BY("cwd", cwd, same_string, UPGRADE),
        BY("user", user, same_user, UPGRADE),
        PLAIN("umask", umask, UPGRADE),
        PLAIN("nice", nice, UPGRADE),
        PLAIN("ioprio", ioprio, UPGRADE),
        PLAIN("oom_score_adj", oom_score_adj, UPGRADE),
        BY("cgroup", cgroup, same_cgroup, UPGRADE),
        PLAIN("ready", ready, RESTART),
        BY("rpc", rpc, same_rpc, UPGRADE),
        PLAIN("service", service_manual, NONE),
        PLAIN("upgrade.timeout", upgrade_timeout_us, NONE),
        PLAIN("upgrade.drain", upgrade_drain_us, NONE),
        PLAIN("upgrade.health", upgrade_health_us, NONE),
        PLAIN("upgrade.signal", upgrade_signal, NONE),
        PLAIN("rpc.max_attached", max_attached, NONE),
        PLAIN("start_timeout", start_timeout_us, NONE),
        PLAIN("stop_timeout", stop_timeout_us, NONE),
        PLAIN("stop_signal", stop_signal, NONE),
        PLAIN("watchdog", watchdog_us, NONE),
        PLAIN("restart", restart, NONE),
        PLAIN("recover", recover, NONE),
        PLAIN("checkpoint.every", checkpoint_every_us, NONE),
        PLAIN("checkpoint.timeout", checkpoint_timeout_us, NONE),
        PLAIN("checkpoint.max_state", checkpoint_max_state, NONE),
        PLAIN("checkpoint.max_fds", checkpoint_max_fds, NONE),
        PLAIN("pending", pending, UPGRADE),
        BY("success_exit", exits, same_exits, NONE),
        BY("backoff", backoff, same_backoff, NONE),
        PLAIN("backoff.reset", backoff_reset_us, NONE),
        BY("intensity", intensity, same_intensity, NONE),
        BY("after", after, same_strings, NONE),
        BY("requires", requires, same_strings, NONE),
        PLAIN("oneshot", oneshot, NONE),
        BY("schedule", schedule, same_schedule, NONE),
        PLAIN("autostart", autostart, NONE),
        PLAIN("instances", instances, NONE),
        PLAIN("template", is_template, RESTART),
        BY("log", log, same_log, NONE),
};

_Static_assert(ARRAY_SIZE(keys) <= 64, "a bit for each");

const char *config_key_name(unsigned key) {
        return key < ARRAY_SIZE(keys) ? keys[key].name : NULL;
}

static bool is_same_key(unsigned key, const RunnerConfig *a, const RunnerConfig *b) {
        const char *at_a = (const char *) a + keys[key].offset, *at_b = (const char *) b + keys[key].offset;

        if (key == KEY_LIMITS)
                return same_limits(a, b);
        if (key == KEY_HOOKS)
                return same_hooks(a, b);
        if (key == KEY_SOCKETS)
                return same_sockets(a, b);
        return keys[key].is_same ? keys[key].is_same(at_a, at_b) : memcmp(at_a, at_b, keys[key].size) == 0;
}

/* compare_runner() - the keys that differ. */
static uint64_t compare_runner(const RunnerConfig *before, const RunnerConfig *after, ConfigEffect *ret_effect) {
        ConfigEffect effect = CONFIG_EFFECT_NONE;
        uint64_t changed = 0;

        for (unsigned i = 0; before != after && i < ARRAY_SIZE(keys); i++)
                if (!is_same_key(i, before, after)) {
                        changed |= UINT64_C(1) << i;
                        effect = MAX(effect, keys[i].effect);
                }
        *ret_effect = effect;
        return changed;
}

ConfigEffect runner_config_effect(const RunnerConfig *before, const RunnerConfig *after) {
        ConfigEffect effect;

        (void) compare_runner(before, after, &effect);
        return effect;
}

static bool same_groups(const Config *before, const Config *after) {
        for (size_t i = 0; i < MIN(before->n_groups, after->n_groups); i++) {
                const GroupConfig *one = before->groups[i], *other = after->groups[i];

                if (strcmp(one->name, other->name) != 0 || one->strategy != other->strategy ||
                    !same_intensity(&one->intensity, &other->intensity) || !same_list(one->members, other->members))
                        return false;
        }
        return before->n_groups == after->n_groups;
}

static bool same_supervisor(const SupervisorConfig *one, const SupervisorConfig *other) {
        return same_text(one->operators, other->operators) && one->operators_gid == other->operators_gid &&
               one->others_read == other->others_read && same_text(one->metrics, other->metrics) &&
               one->stop_timeout_us == other->stop_timeout_us;
}

int config_compare(const Config *before, const Config *after, ConfigDifference *ret_difference) {
        static const Config nothing;
        ConfigDifference difference = { 0 };
        size_t i = 0, j = 0;

        before = before ? before : &nothing;
        difference.changes =
                calloc(MAX(before->n_runners + after->n_runners, (size_t) 1), sizeof(*difference.changes));
        if (!difference.changes)
                return -ENOMEM;
        while (i < before->n_runners || j < after->n_runners) {
                RunnerConfig *one = i < before->n_runners ? before->sorted[i] : NULL;
                RunnerConfig *other = j < after->n_runners ? after->sorted[j] : NULL;
                int order = !one ? 1 : !other ? -1 : strcmp(one->name, other->name);
                ConfigChange change = { .before = order <= 0 ? one : NULL, .after = order >= 0 ? other : NULL };

                i += order <= 0;
                j += order >= 0;
                if (order == 0)
                        change.keys = compare_runner(one, other, &change.effect);
                if (order == 0 && change.keys == 0)
                        difference.n_same++;
                else
                        difference.changes[difference.n_changes++] = change;
        }
        difference.groups = !same_groups(before, after);
        difference.supervisor = !same_supervisor(&before->supervisor, &after->supervisor);
        *ret_difference = difference;
        return 0;
}

void config_difference_deinit(ConfigDifference *difference) {
        free(difference->changes);
        *difference = (ConfigDifference){ 0 };
}

static int compare_change(const void *name, const void *change) {
        const ConfigChange *one = change;

        return strcmp(name, (one->after ? one->after : one->before)->name);
}

const ConfigChange *config_difference_find(const ConfigDifference *difference, const char *name) {
        if (difference->n_changes == 0)
                return NULL;
        return bsearch(name, difference->changes, difference->n_changes, sizeof(*difference->changes), compare_change);
}

bool config_difference_is_empty(const ConfigDifference *difference) {
        return difference->n_changes == 0 && !difference->groups && !difference->supervisor;
}

static void print_change(FILE *out, const ConfigChange *change) {
        const char *separator = ": ";

        if (!change->before || !change->after) {
                (void) fprintf(out, "%c %s\n", change->after ? '+' : '-',
                               (change->after ? change->after : change->before)->name);
                return;
        }
        (void) fprintf(out, "~ %s", change->before->name);
        for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
                if (change->keys >> i & 1) {
                        (void) fprintf(out, "%s%s", separator, keys[i].name);
                        separator = ", ";
                }
        if (change->n_upgrades > 0 && change->n_restarts > 0)
                (void) fprintf(out, " (upgrade %u, restart %u)\n", change->n_upgrades, change->n_restarts);
        else
                (void) fprintf(out, "%s\n",
                               change->effect == CONFIG_EFFECT_NONE ? ""
                               : change->n_upgrades > 0             ? " (upgrade)"
                                                                    : " (restart)");
}

char *config_difference_text(const ConfigDifference *difference) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        if (!out)
                return NULL;
        for (size_t i = 0; i < difference->n_changes; i++)
                print_change(out, &difference->changes[i]);
        if (difference->groups)
                (void) fputs("~ groups\n", out);
        if (difference->supervisor)
                (void) fputs("~ supervisor\n", out);
        if (fclose(out) != 0)
                free(TAKE_PTR(text));
        return text;
}

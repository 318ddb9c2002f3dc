/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, saved and restored. What has the same shape on both sides is listed once, for both directions; the rest has a
 * pair of functions. A test holds every key of the schema against what comes back.
 */

#include "supervisor/config-save.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef Baton__Snapshot__RunnerConfig Message;

/* Numbers: the message's member, and ours. */
/* clang-format off */
#define NUMBERS(_) \
        _(start_timeout_us, start_timeout_us) \
        _(stop_timeout_us, stop_timeout_us) \
        _(watchdog_us, watchdog_us) \
        _(backoff_initial_us, backoff.initial_us) \
        _(backoff_max_us, backoff.max_us) \
        _(backoff_factor, backoff.factor_percent) \
        _(backoff_jitter, backoff.jitter_percent) \
        _(backoff_reset_us, backoff_reset_us) \
        _(intensity_restarts, intensity.restarts) \
        _(intensity_window_us, intensity.window_us) \
        _(log_park, log.park) \
        _(log_ring_size, log.ring_size) \
        _(log_max_size, log.max_size) \
        _(log_max_age_us, log.max_age_us) \
        _(log_keep, log.keep) \
        _(log_mode, log.mode) \
        _(log_uid, log.uid) \
        _(log_gid, log.gid) \
        _(instances, instances) \
        _(max_attached, max_attached) \
        _(umask, umask) \
        _(oom_score_adj, oom_score_adj) \
        _(nice, nice) \
        _(ioprio, ioprio) \
        _(stop_signal, stop_signal) \
        _(is_template, is_template) \
        _(oneshot, oneshot) \
        _(autostart, autostart) \
        _(uds_path, uds_path) \
        _(inherit_env, inherit_env) \
        _(channels, channels) \
        _(fd_store_timeout_us, fd_store_timeout_us) \
        _(fd_store_max, fd_store_max) \
        _(service_manual, service_manual) \
        _(upgrade_timeout_us, upgrade_timeout_us) \
        _(upgrade_drain_us, upgrade_drain_us) \
        _(upgrade_health_us, upgrade_health_us) \
        _(checkpoint_every_us, checkpoint_every_us) \
        _(checkpoint_timeout_us, checkpoint_timeout_us) \
        _(checkpoint_max_state, checkpoint_max_state) \
        _(checkpoint_max_fds, checkpoint_max_fds) \
        _(literal, literal)

#define SOCKET(_) \
        _(backlog) _(uid) _(gid) _(mode) _(reuse_port) _(ipv6_only) _(free_bind)

#define LIMITS(_) \
        _(max_frame) _(max_calls) _(fd_credit) _(stream_window) _(max_held_fds) _(max_unsent) _(max_waiting) \
        _(max_waiting_bytes) _(max_memory) _(max_shared) _(arena_size) _(max_object) _(hello_timeout_us) \
        _(frame_timeout_us) _(renewal_timeout_us)
/* clang-format on */

/* ------------------------------------------------------------------------------------------------------------- saving */

static void save_user(Save *save, const ConfigUser *user, Baton__Snapshot__User **to) {
        Baton__Snapshot__User *message = user ? save_message(save, &baton__snapshot__user__descriptor) : NULL;

        *to = message;
        if (!message)
                return;
        message->uid = user->spawn.uid;
        message->gid = user->spawn.gid;
        message->groups = save_array(save, user->spawn.n_groups, sizeof(uint32_t));
        for (size_t i = 0; message->groups && i < user->spawn.n_groups; i++)
                message->groups[message->n_groups++] = user->spawn.groups[i];
        save_text(save, &message->name, user->name);
        save_text(save, &message->home, user->home);
        save_text(save, &message->shell, user->shell);
        save_text(save, &message->unresolved, user->unresolved);
}

static void save_limits(Save *save, const RunnerConfig *config, Message *message) {
        message->limits = save_array(save, config->n_limits, sizeof(*message->limits));
        for (unsigned i = 0; message->limits && i < config->n_limits; i++) {
                Baton__Snapshot__Limit *limit = save_message(save, &baton__snapshot__limit__descriptor);

                if (!limit)
                        return;
                limit->resource = config->limits[i].resource;
                limit->soft = config->limits[i].limit.rlim_cur;
                limit->hard = config->limits[i].limit.rlim_max;
                message->limits[message->n_limits++] = limit;
        }
}

static void save_cgroup(Save *save, const ConfigCgroup *cgroup, Message *message) {
        const char *values[_CONFIG_CGROUP_N + 1] = { NULL };

        for (unsigned i = 0; cgroup && i < _CONFIG_CGROUP_N; i++)
                values[i] = cgroup->values[i] ? cgroup->values[i] : "";
        save_texts(save, &message->cgroup, &message->n_cgroup, values);
}

static void save_hooks(Save *save, const RunnerConfig *config, Message *message) {
        message->hooks = save_array(save, config->n_hooks, sizeof(*message->hooks));
        for (unsigned i = 0; message->hooks && i < config->n_hooks; i++) {
                Baton__Snapshot__HookConfig *hook = save_message(save, &baton__snapshot__hook_config__descriptor);

                if (!hook)
                        return;
                message->hooks[message->n_hooks++] = hook;
                hook->events = config->hooks[i].events;
                hook->timeout_us = config->hooks[i].timeout_us;
                save_texts(save, &hook->command, &hook->n_command, config->hooks[i].command);
        }
}

static void save_sockets(Save *save, const RunnerConfig *config, Message *message) {
        const ConfigSocketVariable *variable = config->socket_variable;

        message->sockets = save_array(save, config->n_sockets, sizeof(*message->sockets));
        for (unsigned i = 0; message->sockets && i < config->n_sockets; i++) {
                const ConfigSocket *from = &config->sockets[i];
                Baton__Snapshot__Socket *to = save_message(save, &baton__snapshot__socket__descriptor);

                if (!to)
                        return;
                message->sockets[message->n_sockets++] = to;
#define COPY(_member) to->_member = from->_member;
                SOCKET(COPY)
#undef COPY
                to->type = from->type;
                save_text(save, &to->name, from->name);
                save_text(save, &to->address, from->address);
        }
        message->socket_variable = variable ? save_message(save, &baton__snapshot__socket_variable__descriptor) : NULL;
        if (!message->socket_variable)
                return;
        save_text(save, &message->socket_variable->name, variable->name);
        save_text(save, &message->socket_variable->format, variable->format);
        save_text(save, &message->socket_variable->separator, variable->separator);
}

static void save_schedule(Save *save, const ConfigSchedule *schedule, Message *message) {
        if (!schedule)
                return;
        message->every_us = schedule->every_us;
        message->at = save_array(save, schedule->n_at, sizeof(*message->at));
        for (unsigned i = 0; message->at && i < schedule->n_at; i++) {
                Baton__Snapshot__Time *time = save_message(save, &baton__snapshot__time__descriptor);

                if (!time)
                        return;
                message->at[message->n_at++] = time;
                time->minutes = schedule->at[i].minutes;
                time->hours = schedule->at[i].hours;
                time->days = schedule->at[i].days;
                time->months = schedule->at[i].months;
                time->weekdays = schedule->at[i].weekdays;
                time->any_day = schedule->at[i].any_day;
                time->any_weekday = schedule->at[i].any_weekday;
        }
}

static void save_rpc(Save *save, const PeerLimits *rpc, Message *message) {
        Baton__Handover__PeerLimits *limits =
                rpc ? save_message(save, &baton__handover__peer_limits__descriptor) : NULL;

        message->rpc = limits;
        if (!limits)
                return;
#define COPY(_member) limits->_member = rpc->_member;
        LIMITS(COPY)
#undef COPY
}

int runner_config_save(const RunnerConfig *config, Baton__Snapshot__RunnerConfig **ret_message) {
        Save save = { 0 };
        Message *message = save_message(&save, &baton__snapshot__runner_config__descriptor);

        if (!message)
                return -ENOMEM;
#define COPY(_theirs, _ours) message->_theirs = config->_ours;
        NUMBERS(COPY)
#undef COPY
        message->log_format = config->log.format;
        message->restart = config->restart;
        message->recover = config->recover;
        message->pending = config->pending;
        message->ready = config->ready;
        save_text(&save, &message->name, config->name);
        save_text(&save, &message->description, config->description);
        save_text(&save, &message->cwd, config->cwd);
        save_text(&save, &message->log_directory, config->log.directory);
        save_texts(&save, &message->command, &message->n_command, config->command);
        save_texts(&save, &message->env, &message->n_env, config->env);
        save_texts(&save, &message->env_file, &message->n_env_file, config->env_file);
        save_texts(&save, &message->after, &message->n_after, config->after);
        save_texts(&save, &message->requires, &message->n_requires, config->requires);
        save_user(&save, config->user, &message->user);
        save_limits(&save, config, message);
        save_cgroup(&save, config->cgroup, message);
        save_hooks(&save, config, message);
        save_sockets(&save, config, message);
        save_schedule(&save, config->schedule, message);
        save_rpc(&save, config->rpc, message);
        if (config->exits) {
                save_numbers(&save, &message->exit_codes, &message->n_exit_codes, config->exits->codes,
                             ARRAY_SIZE(config->exits->codes));
                message->exit_signals = config->exits->signals;
        }
        return save_done(&save, message, ret_message);
}

/* ---------------------------------------------------------------------------------------------------------- restoring */

/* Where what a draft points to is, until it has been copied. */
typedef struct Restore {
        Save memory;
        RunnerConfig draft;
        ConfigUser user;
        ConfigCgroup cgroup;
        ConfigExits exits;
        ConfigSchedule schedule;
        ConfigSocketVariable socket_variable;
        PeerLimits rpc;
        void *owned[16];
        size_t n_owned;
} Restore;

static void *own(Restore *restore, size_t n, size_t size) {
        void *memory = save_array(&restore->memory, n, size);

        if (memory)
                restore->owned[restore->n_owned++] = memory;
        return memory;
}

static const char *text(const char *from) {
        return *from ? from : NULL;
}

/* texts() - ended by NULL; NULL: there are none. */
static const char *const *texts(Restore *restore, char *const *from, size_t n) {
        const char **to = n > 0 ? own(restore, n + 1, sizeof(*to)) : NULL;

        for (size_t i = 0; to && i < n; i++)
                to[i] = from[i];
        return to;
}

static void restore_user(Restore *restore, const Baton__Snapshot__User *message) {
        gid_t *groups;

        if (!message)
                return;
        groups = own(restore, message->n_groups, sizeof(*groups));
        for (size_t i = 0; groups && i < message->n_groups; i++)
                groups[i] = message->groups[i];
        restore->user = (ConfigUser){
                .spawn = { .uid = message->uid, .gid = message->gid, .groups = groups, .n_groups = message->n_groups },
                .name = text(message->name),
                .home = text(message->home),
                .shell = text(message->shell),
                .unresolved = text(message->unresolved),
        };
        restore->draft.user = &restore->user;
}

static void restore_limits(Restore *restore, const Message *message) {
        size_t n = MIN(message->n_limits, (size_t) RLIM_NLIMITS);
        SpawnLimit *limits = own(restore, n, sizeof(*limits));

        for (size_t i = 0; limits && i < n; i++) {
                const Baton__Snapshot__Limit *from = message->limits[i];

                if (from->resource >= 0 && from->resource < (int) RLIM_NLIMITS)
                        limits[restore->draft.n_limits++] = (SpawnLimit){ from->resource, { from->soft, from->hard } };
        }
        restore->draft.limits = limits;
}

static void restore_cgroup(Restore *restore, const Message *message) {
        for (size_t i = 0; i < message->n_cgroup && i < _CONFIG_CGROUP_N; i++)
                restore->cgroup.values[i] = text(message->cgroup[i]);
        if (message->n_cgroup > 0)
                restore->draft.cgroup = &restore->cgroup;
}

/* restore_hooks() - all their words in one array. */
static void restore_hooks(Restore *restore, const Message *message) {
        size_t n = MIN(message->n_hooks, (size_t) CONFIG_HOOKS_MAX), n_words = 0;
        ConfigHook *hooks = own(restore, n, sizeof(*hooks));
        const char **words;

        for (size_t i = 0; i < n; i++)
                n_words += message->hooks[i]->n_command + 1;
        words = own(restore, n_words, sizeof(*words));
        for (size_t i = 0; hooks && words && i < n; i++) {
                const Baton__Snapshot__HookConfig *from = message->hooks[i];

                if (from->n_command == 0)
                        continue;
                hooks[restore->draft.n_hooks++] = (ConfigHook){ from->events, words, from->timeout_us };
                for (size_t j = 0; j < from->n_command; j++)
                        *words++ = from->command[j];
                words++;
        }
        restore->draft.hooks = hooks;
}

static void restore_sockets(Restore *restore, const Message *message) {
        size_t n = MIN(message->n_sockets, (size_t) CONFIG_SOCKETS_MAX);
        ConfigSocket *sockets = own(restore, n, sizeof(*sockets));
        const Baton__Snapshot__SocketVariable *variable = message->socket_variable;

        for (size_t i = 0; sockets && i < n; i++) {
                const Baton__Snapshot__Socket *from = message->sockets[i];
                ConfigSocket *to = &sockets[restore->draft.n_sockets++];

#define COPY(_member) to->_member = (__typeof__(to->_member)) from->_member;
                SOCKET(COPY)
#undef COPY
                to->type = (SocketType) restored_number(from->type, _SOCKET_TYPE_N, 0);
                to->name = from->name;
                to->address = from->address;
        }
        restore->draft.sockets = sockets;
        if (!variable)
                return;
        restore->socket_variable = (ConfigSocketVariable){ variable->name, variable->format, variable->separator };
        restore->draft.socket_variable = &restore->socket_variable;
}

static void restore_schedule(Restore *restore, const Message *message) {
        size_t n = MIN(message->n_at, (size_t) UINT16_MAX);
        ConfigTime *at = own(restore, n, sizeof(*at));

        for (size_t i = 0; at && i < n; i++)
                at[i] = (ConfigTime){
                        .minutes = message->at[i]->minutes,
                        .hours = message->at[i]->hours,
                        .days = message->at[i]->days,
                        .months = (uint16_t) message->at[i]->months,
                        .weekdays = (uint8_t) message->at[i]->weekdays,
                        .any_day = message->at[i]->any_day,
                        .any_weekday = message->at[i]->any_weekday,
                };
        restore->schedule = (ConfigSchedule){ .every_us = message->every_us, .n_at = (uint16_t) n, .at = at };
        if (message->every_us || n > 0)
                restore->draft.schedule = &restore->schedule;
}

static void restore_rpc(Restore *restore, const Baton__Handover__PeerLimits *limits) {
        if (!limits)
                return;
#define COPY(_member) restore->rpc._member = limits->_member;
        LIMITS(COPY)
#undef COPY
        if (peer_limits_are_valid(&restore->rpc))
                restore->draft.rpc = &restore->rpc;
}

static void restore_exits(Restore *restore, const Message *message) {
        if (message->n_exit_codes == 0)
                return;
        memcpy(restore->exits.codes, message->exit_codes,
               MIN(message->n_exit_codes, ARRAY_SIZE(restore->exits.codes)) * sizeof(uint64_t));
        restore->exits.signals = message->exit_signals;
        restore->draft.exits = &restore->exits;
}

/* restore_checkpoint() - of a version that had its limits fixed, those. */
static void restore_checkpoint(RunnerConfig *draft, const Message *message) {
        if (message->checkpoint_timeout_us == 0) {
                draft->checkpoint_timeout_us = CONFIG_CHECKPOINT_TIMEOUT_US;
                draft->checkpoint_max_state = CONFIG_CHECKPOINT_MAX_STATE;
                draft->checkpoint_max_fds = CONFIG_CHECKPOINT_FDS_MAX;
        }
        draft->checkpoint_max_fds = MIN(draft->checkpoint_max_fds, (uint32_t) CONFIG_CHECKPOINT_FDS_MAX);
}

/* restore_numbers() - those that index or divide something are put right. */
static void restore_numbers(RunnerConfig *draft, const Message *message) {
#define COPY(_theirs, _ours) draft->_ours = (__typeof__(draft->_ours)) message->_theirs;
        NUMBERS(COPY)
#undef COPY
        draft->log.format = (LogFormat) restored_number(message->log_format, _LOG_FORMAT_N, 0);
        draft->restart = (RestartPolicy) restored_number(message->restart, _RESTART_N, RESTART_NEVER);
        draft->recover = (ConfigRecover) restored_number(message->recover, _CONFIG_RECOVER_N, CONFIG_RECOVER_FRESH);
        draft->pending = (ConfigPending) restored_number(message->pending, _CONFIG_PENDING_N, CONFIG_PENDING_DEFAULT);
        draft->ready = (ConfigReady) restored_number(message->ready, _CONFIG_READY_N, CONFIG_READY_NONE);
        if (draft->stop_signal == 0 || draft->stop_signal >= NSIG)
                draft->stop_signal = SIGTERM;
        if (draft->intensity.restarts > CONFIG_RESTARTS_MAX)
                draft->intensity.restarts = CONFIG_RESTARTS_MAX;
        if (draft->log.ring_size > LOG_RING_SIZE_MAX)
                draft->log.ring_size = LOG_RING_SIZE_MAX;
        if (draft->log.ring_size > 0 && draft->log.ring_size < LOG_RING_SIZE_MIN)
                draft->log.ring_size = LOG_RING_SIZE_MIN;
        draft->log.keep = MIN(draft->log.keep, (uint32_t) LOG_KEEP_MAX);
        draft->instances = MIN(draft->instances, (uint32_t) CONFIG_INSTANCES_MAX);
        restore_checkpoint(draft, message);
}

int runner_config_restore(const Baton__Snapshot__RunnerConfig *message, RunnerConfig **ret_config) {
        Restore restore = { .draft = RUNNER_CONFIG_NULL };
        RunnerConfig *draft = &restore.draft;
        size_t length = strlen(message->name);
        int r;

        if (length == 0 || length > CONFIG_NAME_MAX || strchr(message->name, '/') || message->n_command == 0)
                return -EPROTO;
        restore_numbers(draft, message);
        draft->name = message->name;
        draft->description = text(message->description);
        draft->cwd = text(message->cwd);
        draft->log.directory = *message->log_directory ? message->log_directory : NULL;
        draft->command = texts(&restore, message->command, message->n_command);
        draft->env = texts(&restore, message->env, message->n_env);
        draft->env_file = texts(&restore, message->env_file, message->n_env_file);
        draft->after = texts(&restore, message->after, message->n_after);
        draft->requires = texts(&restore, message->requires, message->n_requires);
        restore_user(&restore, message->user);
        restore_limits(&restore, message);
        restore_cgroup(&restore, message);
        restore_hooks(&restore, message);
        restore_sockets(&restore, message);
        restore_schedule(&restore, message);
        restore_rpc(&restore, message->rpc);
        restore_exits(&restore, message);
        r = restore.memory.error;
        if (r == 0)
                r = runner_config_new(ret_config, draft);
        for (size_t i = 0; i < restore.n_owned; i++)
                free(restore.owned[i]);
        return r;
}

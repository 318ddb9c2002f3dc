/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its start: what has to be there before the process, the process, and its way in. Whatever step fails says so
 * with its name and its object (`at exec(/srv/x): Permission denied`) and as one of the few reasons that a caller can act
 * on; the table decides what follows, and the end (instance.c) releases whatever had been made.
 */

#include "supervisor/instance-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/text.h"
#include "common/version.h"
#include "supervisor/holder.h"
#include "supervisor/notify.h"
#include "supervisor/peer-loop.h"
#include "supervisor/program.h"
#include "supervisor/runner-record.h"
#include "supervisor/successor.h"

#define LISTEN_PID "LISTEN_PID="

/* ------------------------------------------------------------------------------------------------ before the process */

static void reserved(KeeperLink *link, int result, void *userdata) {
        Instance *instance = userdata;

        (void) link;
        if (result == 0 || instance->ended)
                return;
        /* The keeper kills whoever says BORN now, and reports nothing. */
        instance->refused = true;
        instance->reserved = instance->born = false;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, "at reserving a place in the keeper: %s", strerror(-result));
        instance_doom(instance, RUNNER_CAUSE_START_FAILED,
                      instance->pid ? PROCESS_EVENT_EXITED : PROCESS_EVENT_FAILED);
}

/* make_peer() - from what the successor has got, or, where it is NULL, on a lane. */
static int make_peer(Instance *instance, uint32_t epoch, int lane_fd_consume, Successor *successor) {
        char software[64];
        PeerLimits limits = instance->config->rpc ? *instance->config->rpc : (PeerLimits){ 0 };
        const PeerConfig config = {
                .side = 0,
                .n_channels = LANE_CHANNELS,
                .unserved = (uint8_t) ~instance->config->channels,
                .renewal = LANE_RENEWAL_SELF,
                .epoch = epoch,
                .objects = PEER_OBJECTS_PASS,
                .limits = &limits,
                .software = software,
                .instance = instance->id,
        };
        const PeerLoopParameters parameters = {
                .loop = instance->supervisor->loop,
                .config = &config,
                .handler = &instance_peer_handler,
                .userdata = instance,
                .watched_lane = &instance->lane,
                .precopy = &instance->supervisor->precopy,
                .copied = &instance->copied,
        };

        /* The start has a time-out of its own, which knows more to say. */
        limits.hello_timeout_us = clock_after(instance->config->start_timeout_us, USEC_PER_SEC);
        (void) snprintf(software, sizeof(software), "baton-supervisor %s", version_release());
        if (successor)
                return successor_restore_peer(successor, instance, &instance->peer, &parameters);
        return peer_loop_new(&instance->peer, &parameters, lane_fd_consume);
}

int instance_make_peer(Instance *instance, uint32_t epoch, int lane_fd_consume) {
        return make_peer(instance, epoch, lane_fd_consume, NULL);
}

int instance_restore_peer(Instance *instance) {
        Successor *successor = instance->supervisor->successor;

        return successor ? make_peer(instance, 0, -1, successor) : 0;
}

int instance_restore_peer_again(Instance *instance, const char *prefix, Manifest *manifest) {
        int r = instance->peer ? peer_give_back(instance->peer, prefix, manifest) : 0;

        instance->peer = peer_free(instance->peer);
        if (r == 0)
                r = instance_restore_peer(instance);
        log_input_restored(&instance->input);
        return r == 0 ? -ENOENT : MIN(r, 0);
}

/* init_way_in() - 0 or -ENOMEM. */
static int init_way_in(Instance *instance) {
        instance->bootstrap = malloc(sizeof(*instance->bootstrap));
        if (!instance->bootstrap)
                return -ENOMEM;
        bootstrap_init(instance->bootstrap, instance->supervisor->loop, instance->runner->name, instance_connected);
        instance->bootstrap->userdata = instance;
        return 0;
}

int instance_adopt_way_in(Instance *instance, const char *path, int listener_fd_consume) {
        const ConfigUser *user = instance->config->user;
        _cleanup_fd_ int listener = listener_fd_consume;
        int r = init_way_in(instance);

        if (r == 0)
                r = bootstrap_adopt(instance->bootstrap, path, user ? user->spawn.uid : geteuid(), fd_take(&listener));
        if (r == 0) {
                bootstrap_accept(instance->bootstrap, instance->pid, instance->pidfd);
                return 0;
        }
        free(instance->bootstrap);
        instance->bootstrap = NULL;
        return r;
}

/* make_way_in() - 0, or a negative errno with the step in @ret_step. */
static int make_way_in(Instance *instance, const char **ret_step) {
        const ConfigUser *user = instance->config->user;
        int r;

        *ret_step = "malloc";
        r = init_way_in(instance);
        if (r < 0)
                return r;
        r = bootstrap_open(instance->bootstrap, instance->supervisor->boot_template,
                           user ? user->spawn.uid : geteuid(), ret_step);
        if (r < 0)
                return r;
        *ret_step = "making its channels";
        return instance_make_peer(instance, 0, -1);
}

/* reserve() - its place in the keeper, with all there is to store: what is read from its output, and its way to us. */
static int reserve(Instance *instance) {
        const int logs[LOG_PIPES] = {
                log_input_fd(&instance->input, LOG_SOURCE_STDOUT),
                log_input_fd(&instance->input, LOG_SOURCE_STDERR),
        };
        uint8_t record[KEEPER_RECORD_SIZE];
        KeeperReservation reservation = {
                .instance = instance->id,
                .name = instance->runner->name,
                .flags = KEEPER_FLAG_KILL_GROUP | (runner_config_native(instance->config) ? KEEPER_FLAG_NATIVE : 0) |
                         (instance->runner->hidden ? KEEPER_FLAG_TRANSIENT : 0),
                .record = record,
                .logs = logs,
        };
        int r;

        runner_pack(instance->runner, instance, record);
        if (instance->bootstrap)
                instance_name_stored(INSTANCE_STORED_LISTENER, instance->bootstrap->listener, &reservation);
        else if (instance->notify)
                instance_name_stored(INSTANCE_STORED_NOTIFY, notify_fd(instance->notify), &reservation);
        r = keeper_link_reserve(instance->supervisor->link, &reservation, reserved, instance);
        if (r < 0)
                return r;
        instance->reserved = true;
        instance->stored = 1u << INSTANCE_STORED_STDOUT | 1u << INSTANCE_STORED_STDERR |
                           (instance->bootstrap ? 1u << INSTANCE_STORED_LISTENER : 0) |
                           (instance->notify ? 1u << INSTANCE_STORED_NOTIFY : 0);
        return 0;
}

/* open_sockets() - false: the start has failed. */
static bool open_sockets(Instance *instance) {
        char error[HOLDER_ERROR_SIZE] = "no memory";

        if (instance->config->n_sockets == 0 || instance->runner->hidden ||
            holder_open(instance->supervisor->holder, instance->runner, error) == 0)
                return true;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, "at opening socket %s", error);
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
        return false;
}

void instance_prepare(Instance *instance) {
        const char *step = "pipe2";
        int r;

        if (!open_sockets(instance))
                return;
        if (instance->program_fd >= 0)
                instance->program = program_stamp_fd(instance->program_fd);
        else if (!instance->runner->hidden)
                instance->program = program_stamp_of(instance->runner, instance->config);
        r = log_input_open(&instance->input, instance->output_fds);
        if (r == 0)
                r = runner_config_native(instance->config) ? make_way_in(instance, &step)
                                                           : instance_open_ready(instance, &step);
        if (r == 0) {
                step = "reserving a place in the keeper";
                r = reserve(instance);
        }
        if (r < 0) {
                instance_fail(instance, INSTANCE_FAILURE_SYSTEM, "at %s: %s", step, strerror(-r));
                instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
                return;
        }
        loop_timer_set(instance->supervisor->loop, &instance->timer,
                       clock_after(clock_now(), instance->config->start_timeout_us));
        supervisor_queue_spawn(instance->supervisor, instance);
}

/* -------------------------------------------------------------------------------------------------------- the process */

static const struct {
        int error;
        InstanceFailure failure;
} exec_failures[] = {
        { ENOENT, INSTANCE_FAILURE_NOT_FOUND },       { ENOTDIR, INSTANCE_FAILURE_NOT_FOUND },
        { ENAMETOOLONG, INSTANCE_FAILURE_NOT_FOUND }, { ELOOP, INSTANCE_FAILURE_NOT_FOUND },
        { EACCES, INSTANCE_FAILURE_NOT_EXECUTABLE },  { EPERM, INSTANCE_FAILURE_NOT_EXECUTABLE },
        { EISDIR, INSTANCE_FAILURE_NOT_EXECUTABLE },  { ETXTBSY, INSTANCE_FAILURE_NOT_EXECUTABLE },
        { ENOEXEC, INSTANCE_FAILURE_WRONG_FORMAT },   { ELIBBAD, INSTANCE_FAILURE_WRONG_FORMAT },
        { EINVAL, INSTANCE_FAILURE_WRONG_FORMAT },
};

static InstanceFailure classify(const SpawnResult *result) {
        for (size_t i = 0; result->step == SPAWN_EXEC && i < ARRAY_SIZE(exec_failures); i++)
                if (exec_failures[i].error == result->error)
                        return exec_failures[i].failure;
        return INSTANCE_FAILURE_SYSTEM;
}

/* ENOENT is also what exec says of a script whose interpreter is missing. */
static const char *hint(const RunnerStart *start, InstanceFailure failure) {
        bool is_there = (*start->path == '/' || !start->cwd) && access(start->path, F_OK) == 0;

        if (failure == INSTANCE_FAILURE_NOT_FOUND && is_there)
                return " (the program is there; the interpreter or loader that it names is not)";
        if (failure == INSTANCE_FAILURE_WRONG_FORMAT)
                return " (not a program for this machine, nor a script with a #! line)";
        return "";
}

static void spawn_failed(Instance *instance, const RunnerStart *start, const SpawnParameters *parameters,
                         const SpawnResult *result) {
        char text[SPAWN_DESCRIBE_SIZE];
        InstanceFailure failure = classify(result);

        spawn_describe(parameters, result, text, sizeof(text));
        instance_fail(instance, failure, "at %.400s%s", text, hint(start, failure));
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, result->born ? PROCESS_EVENT_DOOMED : PROCESS_EVENT_FAILED);
}

/* pass_variables() - of what it is passed, into @variables from @n on. LISTEN_PID is written by the child. */
static size_t pass_variables(const HolderPass *pass, char *variables[INSTANCE_VARIABLES_MAX], size_t n) {
        if (pass->n == 0)
                return n;
        if (asprintf(&variables[n], "LISTEN_FDS=%zu", pass->n) >= 0)
                n++;
        if (asprintf(&variables[n], "LISTEN_FDNAMES=%s", pass->names) >= 0)
                n++;
        if (asprintf(&variables[n], LISTEN_PID "%*d", SPAWN_PID_SIZE - 1, 0) >= 0)
                n++;
        if (pass->custom && asprintf(&variables[n], "%s", pass->custom) >= 0)
                n++;
        return n;
}

/* pid_text() - where LISTEN_PID is in the environment; NULL: nowhere. */
static char *pid_text(const RunnerStart *start) {
        for (char **variable = start->envp; *variable; variable++)
                if (text_begins(*variable, LISTEN_PID))
                        return *variable + strlen(LISTEN_PID);
        return NULL;
}

/* prepare_program() - what is executed, with our variables; or says why not, and the start has failed. */
static RunnerStart *prepare_program(Instance *instance, HolderPass *ret_pass) {
        char *variables[INSTANCE_VARIABLES_MAX] = { NULL }, error[CONFIG_ERROR_SIZE];
        const char *extra[INSTANCE_VARIABLES_MAX + 1] = { NULL };
        RunnerStart *start = NULL;
        size_t n = 0;
        int r = instance->runner->hidden ? 0 : holder_pass(instance->supervisor->holder, instance->runner, ret_pass);

        if (r < 0) {
                instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": %s", strerror(-r));
                instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
                return NULL;
        }
        if (instance->bootstrap && asprintf(&variables[0], "BATON_BOOTSTRAP=%s", instance->bootstrap->path) >= 0)
                n = 1;
        if (!instance->runner->transient && !instance->runner->hidden &&
            asprintf(&variables[n], "BATON_RUNNER=%s", instance->runner->name) >= 0)
                n++;
        if (instance->config->pending != CONFIG_PENDING_DEFAULT &&
            asprintf(&variables[n], "BATON_PENDING=%s", config_pending_name(instance->config->pending)) >= 0)
                n++;
        n = instance_ready_variables(instance, variables, n);
        n = pass_variables(ret_pass, variables, n);
        (void) memcpy(extra, variables, n * sizeof(*extra));
        r = runner_config_prepare(instance->config, instance->runner->name, instance->runner->number, extra, &start,
                                  error);
        for (size_t i = 0; i < n; i++)
                free(variables[i]);
        if (r == 0)
                return start;
        instance_fail(instance, r == -ENOENT ? INSTANCE_FAILURE_NOT_FOUND : INSTANCE_FAILURE_SYSTEM, ": %s", error);
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
        return NULL;
}

static void spawned(Instance *instance, const RunnerStart *start, const SpawnParameters *parameters,
                    const SpawnResult *result) {
        (void) keeper_link_spawned(instance->supervisor->link, instance->id, result);
        instance->reserved = false;
        instance->born = result->born;
        if (result->born)
                runner_record_started(instance->runner);
        instance->pid = instance->last_pid = result->born ? result->pid : 0;
        log_input_born(&instance->input, instance->pid);
        instance->pidfd = result->pidfd;
        if (result->error)
                spawn_failed(instance, start, parameters, result);
        else if (instance->bootstrap)
                bootstrap_accept(instance->bootstrap, instance->pid, instance->pidfd);
        else if (instance->notify)
                notify_accept(instance->notify, instance->pid, instance->pidfd);
        else
                instance_raise(instance, PROCESS_EVENT_READY);
}

/* use_program() - in place of the one at its path. False: it cannot be, and the start has failed. */
static bool use_program(Instance *instance, SpawnParameters *parameters) {
        if (instance->program_fd < 0)
                return true;
        if (parameters->n_fds > SPAWN_FDS_CHEAP) {
                instance_fail(
                        instance, INSTANCE_FAILURE_SYSTEM,
                        ": it is passed too many descriptors to be executed from a file that is not there any more");
                instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
                return false;
        }
        parameters->program_fd = instance->program_fd;
        return true;
}

static void use_terminal(SpawnParameters *parameters, int fd) {
        for (size_t i = 0; i < ARRAY_SIZE(parameters->stdio); i++)
                parameters->stdio[i] = fd;
        parameters->terminal = true;
}

/* pass_descriptors() - what it is passed besides 0-2: its own, or the pipe for its readiness. */
static void pass_descriptors(const Instance *instance, const RunnerStart *start, const HolderPass *pass,
                             SpawnParameters *parameters) {
        parameters->fds = instance->ready_fd >= 0 ? &instance->ready_fd : pass->fds;
        parameters->n_fds = instance->ready_fd >= 0 ? 1 : pass->n;
        parameters->pid_text = pass->n > 0 ? pid_text(start) : NULL;
}

void instance_spawn(Instance *instance) {
        _cleanup_(holder_pass_deinit) HolderPass pass = { 0 };
        _cleanup_free_ RunnerStart *start = prepare_program(instance, &pass);
        SpawnParameters parameters = SPAWN_PARAMETERS_NULL;
        _cleanup_free_ char *procs = NULL;
        SpawnResult result;

        if (!start || !instance_enter_cgroup(instance, &procs))
                return;
        runner_config_spawn(instance->config, &parameters);
        parameters.cgroup_procs = procs;
        parameters.instance = instance->id;
        parameters.path = start->path;
        parameters.argv = start->argv;
        parameters.envp = start->envp;
        parameters.cwd = start->cwd;
        parameters.stdio[STDOUT_FILENO] = instance->output_fds[LOG_SOURCE_STDOUT];
        parameters.stdio[STDERR_FILENO] = instance->output_fds[LOG_SOURCE_STDERR];
        if (instance->runner->terminal_fd >= 0)
                use_terminal(&parameters, instance->runner->terminal_fd);
        pass_descriptors(instance, start, &pass, &parameters);
        if (!use_program(instance, &parameters))
                return;
        parameters.nofile = instance->supervisor->has_nofile ? &instance->supervisor->nofile : NULL;
        (void) spawn(&parameters, &result);
        fd_close_all(instance->output_fds, LOG_PIPES);
        instance->ready_fd = fd_close(instance->ready_fd);
        instance->program_fd = fd_close(instance->program_fd);
        instance->runner->terminal_fd = fd_close(instance->runner->terminal_fd);
        spawned(instance, start, &parameters, &result);
}

/* --------------------------------------------------------------------------------------------------------- the way in */

void instance_close_bootstrap(Instance *instance) {
        if (!instance->bootstrap)
                return;
        instance_drop(instance, INSTANCE_STORED_LISTENER, bootstrap_close(instance->bootstrap));
        free(instance->bootstrap);
        instance->bootstrap = NULL;
}

/* The keeper gets a duplicate, we watch another, the peer has the third: see peer-loop.c. */
void instance_connected(Bootstrap *bootstrap, int lane_fd_consume) {
        Instance *instance = bootstrap->userdata;
        _cleanup_fd_ int lane = lane_fd_consume;
        int r = fd_dup(lane);

        instance_close_bootstrap(instance);
        if (r >= 0) {
                instance->lane = r;
                r = instance_store(instance, INSTANCE_STORED_LANE, lane);
        }
        if (r < 0) {
                instance_fail(instance, INSTANCE_FAILURE_SYSTEM, "at taking its connection: %s", strerror(-r));
                instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_DOOMED);
                return;
        }
        peer_connect(instance->peer, fd_take(&lane));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, its start: what has to be there before the process, the process, and its way in. Whatever step fails says so
 * with its name and its object (`at exec(/srv/x): Permission denied`) and as one of the few reasons that a caller can act
 * on; the table decides what follows, and the end (runner.c) releases whatever had been made.
 */

#include "supervisor/runner-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/version.h"
#include "supervisor/peer-loop.h"

#define BOOTSTRAP_VARIABLE "BATON_BOOTSTRAP="

/* ------------------------------------------------------------------------------------------------ before the process */

static void reserved(KeeperLink *link, int result, void *userdata) {
        Runner *runner = userdata;

        (void) link;
        if (result == 0 || runner->ended)
                return;
        /* The keeper kills whoever says BORN now, and reports nothing. */
        runner->refused = true;
        runner->reserved = runner->born = false;
        runner_fail(runner, RUNNER_FAILURE_SYSTEM, "at reserving a place in the keeper: %s", strerror(-result));
        runner_raise(runner, runner->pid ? PROCESS_EVENT_EXITED : PROCESS_EVENT_FAILED);
}

static int make_peer(Runner *runner) {
        char software[64];
        PeerLimits limits = runner->spec.limits;
        const PeerConfig config = {
                .side = 0,
                .n_channels = LANE_CHANNELS,
                .renewal = LANE_RENEWAL_SELF,
                .limits = &limits,
                .software = software,
                .instance = runner->instance,
        };
        const PeerLoopParameters parameters = {
                .loop = runner->supervisor->loop,
                .config = &config,
                .handler = &runner_peer_handler,
                .userdata = runner,
                .watched_lane = &runner->lane,
        };

        /* The start has a time-out of its own, which knows more to say. */
        limits.hello_timeout_us = clock_after(runner->spec.start_timeout_us, USEC_PER_SEC);
        (void) snprintf(software, sizeof(software), "baton-supervisor %s", version_release());
        return peer_loop_new(&runner->peer, &parameters, -1);
}

/* make_way_in() - 0, or a negative errno with the step in @ret_step. */
static int make_way_in(Runner *runner, const char **ret_step) {
        int r;

        r = bootstrap_open(&runner->bootstrap, runner->supervisor->boot_template, geteuid(), ret_step);
        if (r < 0)
                return r;
        *ret_step = "making its channels";
        return make_peer(runner);
}

static int store_all(Runner *runner) {
        uint32_t flags = KEEPER_FLAG_KILL_GROUP | (runner->spec.native ? KEEPER_FLAG_NATIVE : 0);
        int r;

        r = keeper_link_reserve(runner->supervisor->link, runner->instance, runner->spec.name, flags, reserved,
                                runner);
        if (r < 0)
                return r;
        runner->reserved = true;
        if (runner->spec.native)
                r = runner_store(runner, RUNNER_STORED_LISTENER, runner->bootstrap.listener);
        if (r == 0)
                r = runner_store(runner, RUNNER_STORED_STDOUT, output_fd(&runner->output, HISTORY_STDOUT));
        if (r == 0)
                r = runner_store(runner, RUNNER_STORED_STDERR, output_fd(&runner->output, HISTORY_STDERR));
        return r;
}

void runner_prepare(Runner *runner) {
        const char *step = "pipe2";
        int r;

        r = output_open(&runner->output, runner->output_fds);
        if (r == 0 && runner->spec.park_output)
                output_park(&runner->output);
        if (r == 0 && runner->spec.native)
                r = make_way_in(runner, &step);
        if (r == 0) {
                step = "storing its descriptors in the keeper";
                r = store_all(runner);
        }
        if (r < 0) {
                runner_fail(runner, RUNNER_FAILURE_SYSTEM, "at %s: %s", step, strerror(-r));
                runner_raise(runner, PROCESS_EVENT_FAILED);
                return;
        }
        loop_timer_set(runner->supervisor->loop, &runner->timer,
                       clock_after(clock_now(), runner->spec.start_timeout_us));
        supervisor_queue_spawn(runner->supervisor, runner);
}

/* -------------------------------------------------------------------------------------------------------- the process */

static const struct {
        int error;
        RunnerFailure failure;
} exec_failures[] = {
        { ENOENT, RUNNER_FAILURE_NOT_FOUND },       { ENOTDIR, RUNNER_FAILURE_NOT_FOUND },
        { ENAMETOOLONG, RUNNER_FAILURE_NOT_FOUND }, { ELOOP, RUNNER_FAILURE_NOT_FOUND },
        { EACCES, RUNNER_FAILURE_NOT_EXECUTABLE },  { EPERM, RUNNER_FAILURE_NOT_EXECUTABLE },
        { EISDIR, RUNNER_FAILURE_NOT_EXECUTABLE },  { ETXTBSY, RUNNER_FAILURE_NOT_EXECUTABLE },
        { ENOEXEC, RUNNER_FAILURE_WRONG_FORMAT },   { ELIBBAD, RUNNER_FAILURE_WRONG_FORMAT },
        { EINVAL, RUNNER_FAILURE_WRONG_FORMAT },
};

static RunnerFailure classify(const SpawnResult *result) {
        for (size_t i = 0; result->step == SPAWN_EXEC && i < ARRAY_SIZE(exec_failures); i++)
                if (exec_failures[i].error == result->error)
                        return exec_failures[i].failure;
        return RUNNER_FAILURE_SYSTEM;
}

/* ENOENT is also what exec says of a script whose interpreter is missing. */
static const char *hint(const Runner *runner, RunnerFailure failure) {
        bool is_there =
                (*runner->spec.program == '/' || !runner->spec.directory) && access(runner->spec.program, F_OK) == 0;

        if (failure == RUNNER_FAILURE_NOT_FOUND && is_there)
                return " (the program is there; the interpreter or loader that it names is not)";
        if (failure == RUNNER_FAILURE_WRONG_FORMAT)
                return " (not a program for this machine, nor a script with a #! line)";
        return "";
}

static void spawn_failed(Runner *runner, const SpawnParameters *parameters, const SpawnResult *result) {
        char text[SPAWN_DESCRIBE_SIZE];
        RunnerFailure failure = classify(result);

        spawn_describe(parameters, result, text, sizeof(text));
        runner_fail(runner, failure, "at %.400s%s", text, hint(runner, failure));
        runner_raise(runner, result->born ? PROCESS_EVENT_DOOMED : PROCESS_EVENT_FAILED);
}

/* make_environment() - the given one, with the way in: an array to be freed, and its one string of ours. */
static char **make_environment(const Runner *runner, char **ret_bootstrap) {
        size_t n = 0, m = 0;
        char **environment;

        *ret_bootstrap = NULL;
        while (runner->spec.environment[n])
                n++;
        environment = calloc(n + 2, sizeof(*environment));
        if (!environment)
                return NULL;
        for (size_t i = 0; i < n; i++)
                if (strncmp(runner->spec.environment[i], BOOTSTRAP_VARIABLE, strlen(BOOTSTRAP_VARIABLE)) != 0)
                        environment[m++] = runner->spec.environment[i];
        if (!runner->spec.native)
                return environment;
        if (asprintf(ret_bootstrap, BOOTSTRAP_VARIABLE "%s", runner->bootstrap.path) < 0) {
                *ret_bootstrap = NULL;
                free(environment);
                return NULL;
        }
        environment[m] = *ret_bootstrap;
        return environment;
}

static void spawned(Runner *runner, const SpawnParameters *parameters, const SpawnResult *result) {
        (void) keeper_link_spawned(runner->supervisor->link, runner->instance, result);
        runner->reserved = false;
        runner->born = result->born;
        runner->pid = result->born ? result->pid : 0;
        runner->pidfd = result->pidfd;
        if (result->error)
                spawn_failed(runner, parameters, result);
        else if (runner->spec.native)
                bootstrap_accept(&runner->bootstrap, runner->pid, runner->pidfd);
        else
                runner_raise(runner, PROCESS_EVENT_READY);
}

void runner_spawn(Runner *runner) {
        _cleanup_free_ char *bootstrap = NULL;
        _cleanup_free_ char **environment = make_environment(runner, &bootstrap);
        SpawnParameters parameters = SPAWN_PARAMETERS_NULL;
        SpawnResult result;

        if (!environment) {
                runner_fail(runner, RUNNER_FAILURE_SYSTEM, ": %s", strerror(ENOMEM));
                runner_raise(runner, PROCESS_EVENT_FAILED);
                return;
        }
        parameters.instance = runner->instance;
        parameters.path = runner->spec.program;
        parameters.argv = runner->spec.argv;
        parameters.envp = environment;
        parameters.cwd = runner->spec.directory;
        parameters.stdio[STDOUT_FILENO] = runner->output_fds[HISTORY_STDOUT];
        parameters.stdio[STDERR_FILENO] = runner->output_fds[HISTORY_STDERR];
        parameters.nofile = runner->supervisor->has_nofile ? &runner->supervisor->nofile : NULL;
        (void) spawn(&parameters, &result);
        fd_close_all(runner->output_fds, OUTPUT_PIPES);
        spawned(runner, &parameters, &result);
}

/* --------------------------------------------------------------------------------------------------------- the way in */

void runner_close_bootstrap(Runner *runner) {
        runner_drop(runner, RUNNER_STORED_LISTENER, bootstrap_close(&runner->bootstrap));
}

/* The keeper gets a duplicate, we watch another, the peer has the third: see peer-loop.c. */
void runner_connected(Bootstrap *bootstrap, int lane_fd_consume) {
        Runner *runner = CONTAINER_OF(bootstrap, Runner, bootstrap);
        _cleanup_fd_ int lane = lane_fd_consume;
        int r = fd_dup(lane);

        runner_close_bootstrap(runner);
        if (r >= 0) {
                runner->lane = r;
                r = runner_store(runner, RUNNER_STORED_LANE, lane);
        }
        if (r < 0) {
                runner_fail(runner, RUNNER_FAILURE_SYSTEM, "at taking its connection: %s", strerror(-r));
                runner_raise(runner, PROCESS_EVENT_DOOMED);
                return;
        }
        peer_connect(runner->peer, fd_take(&lane));
}

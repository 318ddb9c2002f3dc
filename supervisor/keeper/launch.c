/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Launch: clone() with shared memory, and execveat. The child runs on an array of our stack while we wait, and can say at
 * which step it failed. It touches nothing but that and system calls.
 *
 * It shares our descriptors, too, until it says close_range(UNSHARE), and the kernel copies only what is below: a copy of all
 * would keep us, and a takeover, for 2 ms where there are ten thousand. What the child needs is put into the numbers that were
 * reserved for it first, near the bottom. Where that cannot be had (launch_reserve() has failed, or a kernel refuses) it is a
 * copy of all.
 *
 * The program is opened by path first and executed by descriptor, so that what was checked is what runs, and a later
 * generation can be started from the same file although the path has another by then. PDEATHSIG is set by the child, and
 * the keeper may have died before it was: the keeper's pidfd is asked afterwards (getppid() is 0 in a pid namespace).
 */

#include "supervisor/keeper/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/keeper-message.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

enum {
        ARGUMENT_SIZE = 64,
        ARGUMENTS_MAX = 15 + LAUNCH_CONFIGS_MAX,
        STACK_SIZE = 16 * 1024,
};

/* Shared with the child, which runs in our memory until it execs. */
typedef struct LaunchChild {
        int fds[LAUNCH_FDS]; /* socket, keeper, private_fd, handover, program */
        bool shares;         /* the table: it ends behind what is reserved */
        unsigned end;
        char *argv[ARGUMENTS_MAX];
        const char *volatile step;
        volatile int error;
} LaunchChild;

int launch_open_program(char *path, size_t size) {
        const char *directory = secure_getenv("BATON_LIBEXEC");
        int n, fd;

        n = snprintf(path, size, "%s/baton-supervisor", directory ? directory : BATON_LIBEXECDIR);
        if (n < 0 || (size_t) n >= size)
                return -ENAMETOOLONG;
        fd = open(path, O_PATH | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* place() - copies go above the reserved numbers first: a source may lie on another's target. */
static _no_sanitize_ int place(int fds[LAUNCH_FDS]) {
        static const int targets[] = { KEEPER_SOCKET_FD, KEEPER_PIDFD_FD, KEEPER_PRIVATE_FD, KEEPER_HANDOVER_FD };

        for (size_t i = 0; i < LAUNCH_FDS; i++) {
                if (fds[i] < 0)
                        continue;
                fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, KEEPER_RESERVED_FDS);
                if (fds[i] < 0)
                        return -1;
        }
        for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
                if (fds[i] >= 0 && dup2(fds[i], targets[i]) < 0)
                        return -1;
        return 0;
}

/* keeper_lives() - 1 or 0; -1 with errno when it cannot be known. */
static _no_sanitize_ int keeper_lives(void) {
        struct pollfd keeper = { .fd = KEEPER_PIDFD_FD, .events = POLLIN };
        int r = poll(&keeper, 1, 0);

        return r < 0 ? -1 : r == 0;
}

/* reset_signals() - those that stop a supervisor stay blocked until it can hear them: it takes them off the mask itself. */
static _no_sanitize_ void reset_signals(void) {
        sigset_t stops;

        (void) signal(SIGPIPE, SIG_DFL);
        (void) sigemptyset(&stops);
        (void) sigaddset(&stops, SIGTERM);
        (void) sigaddset(&stops, SIGINT);
        (void) sigaddset(&stops, SIGHUP);
        (void) sigprocmask(SIG_SETMASK, &stops, NULL);
}

static _no_sanitize_ int run_child(void *argument) {
        LaunchChild *child = argument;

        child->step = "descriptors";
        if (child->shares && close_range(child->end, ~0u, CLOSE_RANGE_UNSHARE) < 0)
                goto fail; /* not one of them may be touched */
        if (place(child->fds) < 0)
                goto fail;
        child->step = "prctl(PR_SET_PDEATHSIG)";
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                goto fail;
        child->step = "check for the keeper";
        if (keeper_lives() != 1)
                goto fail;
        reset_signals();
        child->step = "exec";
        (void) execveat(child->fds[LAUNCH_FDS - 1], "", child->argv, environ, AT_EMPTY_PATH);
fail:
        child->error = errno ? errno : ESRCH;
        _exit(127);
}

/* add_arguments() - what follows the numbers. No argument is changed, though execve() wants them as if. */
static void add_arguments(const Launch *launch, char **argument) {
        const PlaceOptions *place = launch->place;
        const char *const pairs[] = {
                "--runtime-dir", place ? place->runtime_dir : NULL, "--state-dir", place ? place->state_dir : NULL,
                "--log-dir",     place ? place->log_dir : NULL,     "--socket",    place ? place->socket : NULL,
        };

        if (launch->private_fd >= 0)
                *argument++ = (char *) (uintptr_t) "--private";
        for (size_t i = 0; place && i < ARRAY_SIZE(pairs); i++)
                *argument++ = (char *) (uintptr_t) pairs[i];
        if (launch->handover >= 0)
                *argument++ = (char *) (uintptr_t) "--takeover";
        if (launch->configs && *launch->configs)
                *argument++ = (char *) (uintptr_t) "--";
        for (size_t i = 0; launch->configs && i < LAUNCH_CONFIGS_MAX && launch->configs[i]; i++)
                *argument++ = launch->configs[i];
        *argument = NULL;
}

int launch_reserve(LaunchStage *stage) {
        int r = 0;

        *stage = LAUNCH_STAGE_NULL;
        stage->idle = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (stage->idle < 0)
                return -errno;
        for (size_t i = 0; i < LAUNCH_FDS && r == 0; i++) {
                stage->fds[i] = fd_dup(stage->idle);
                stage->end = MAX(stage->end, (unsigned) MAX(stage->fds[i], 0) + 1);
                r = MIN(stage->fds[i], 0);
        }
        if (r < 0)
                launch_unreserve(stage);
        return r;
}

void launch_unreserve(LaunchStage *stage) {
        stage->idle = fd_close(stage->idle);
        fd_close_all(stage->fds, LAUNCH_FDS);
}

/* stage() - what the child needs goes into the reserved numbers. Replacing an open descriptor cannot run out. */
static void stage(const LaunchStage *reserved, const int fds[LAUNCH_FDS], int ret_fds[LAUNCH_FDS]) {
        for (size_t i = 0; i < LAUNCH_FDS; i++)
                ret_fds[i] = fds[i] < 0 ? -1 : dup3(fds[i], reserved->fds[i], O_CLOEXEC);
}

static void unstage(const LaunchStage *reserved) {
        for (size_t i = 0; i < LAUNCH_FDS; i++)
                (void) dup3(reserved->idle, reserved->fds[i], O_CLOEXEC);
}

/* clone_child() - returns the pid once it has executed or exited, or -1 with errno. */
static pid_t clone_child(LaunchChild *child, const LaunchStage *reserved, const int fds[LAUNCH_FDS]) {
        const int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
        _Alignas(64) char stack[STACK_SIZE];
        pid_t pid;

        if (reserved->idle >= 0 && feature_enabled(FEATURE_CLONE_FILES)) {
                stage(reserved, fds, child->fds);
                child->end = reserved->end;
                child->shares = true;
                pid = clone(run_child, stack + STACK_SIZE, flags | CLONE_FILES, child);
                unstage(reserved);
                if (pid > 0)
                        return pid;
                child->shares = false;
        }
        memcpy(child->fds, fds, sizeof(child->fds));
        return clone(run_child, stack + STACK_SIZE, flags, child);
}

int launch_supervisor(const Launch *launch, pid_t *ret_pid, const char **ret_step) {
        const int fds[LAUNCH_FDS] = { launch->socket, launch->keeper, launch->private_fd, launch->handover,
                                      launch->program };
        char generation[ARGUMENT_SIZE], nofile[ARGUMENT_SIZE], stop_timeout[ARGUMENT_SIZE];
        static char name[] = "baton-supervisor";
        LaunchChild child = { .argv = { name, generation, nofile, stop_timeout } };
        pid_t pid;

        (void) snprintf(generation, sizeof(generation), "--generation=%" PRIu32, launch->generation);
        (void) snprintf(nofile, sizeof(nofile), "--nofile=%" PRIu64, launch->nofile);
        (void) snprintf(stop_timeout, sizeof(stop_timeout), "--stop-timeout=%" PRIu64 "us", launch->stop_timeout_us);
        add_arguments(launch, child.argv + 4);

        errno = 0;
        pid = clone_child(&child, launch->stage, fds);
        if (pid < 0) {
                *ret_step = "clone";
                return -errno;
        }
        if (child.error) {
                (void) waitpid(pid, NULL, 0);
                *ret_step = child.step;
                return -child.error;
        }
        *ret_pid = pid;
        return 0;
}

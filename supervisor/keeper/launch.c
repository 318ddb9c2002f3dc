/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Launch: vfork and execveat. The keeper is small and does this rarely, so there is nothing to gain from more; what
 * vfork gives is that the child can say in shared memory at which step it failed. The child touches nothing but that,
 * its own stack frame and system calls.
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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/keeper-message.h"

enum {
        ARGUMENT_SIZE = 64,
        ARGUMENTS_MAX = 15 + LAUNCH_CONFIGS_MAX,
};

/* Shared with the child, which runs in our memory until it execs. */
typedef struct LaunchChild {
        const Launch *launch;
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
static int place(int fds[5]) {
        static const int targets[] = { KEEPER_SOCKET_FD, KEEPER_PIDFD_FD, KEEPER_PRIVATE_FD, KEEPER_HANDOVER_FD };

        for (size_t i = 0; i < 5; i++) {
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
static int keeper_lives(void) {
        struct pollfd keeper = { .fd = KEEPER_PIDFD_FD, .events = POLLIN };
        int r = poll(&keeper, 1, 0);

        return r < 0 ? -1 : r == 0;
}

/* reset_signals() - those that stop a supervisor stay blocked until it can hear them: it takes them off the mask itself. */
static void reset_signals(void) {
        sigset_t stops;

        (void) signal(SIGPIPE, SIG_DFL);
        (void) sigemptyset(&stops);
        (void) sigaddset(&stops, SIGTERM);
        (void) sigaddset(&stops, SIGINT);
        (void) sigaddset(&stops, SIGHUP);
        (void) sigprocmask(SIG_SETMASK, &stops, NULL);
}

static _no_sanitize_ void __attribute__((__noreturn__)) run_child(LaunchChild *child) {
        const Launch *launch = child->launch;
        int fds[5] = { launch->socket, launch->keeper, launch->private_fd, launch->handover, launch->program };

        child->step = "descriptors";
        if (place(fds) < 0)
                goto fail;
        child->step = "prctl(PR_SET_PDEATHSIG)";
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                goto fail;
        child->step = "check for the keeper";
        if (keeper_lives() != 1)
                goto fail;
        reset_signals();
        child->step = "exec";
        (void) execveat(fds[4], "", child->argv, environ, AT_EMPTY_PATH);
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

int launch_supervisor(const Launch *launch, pid_t *ret_pid, const char **ret_step) {
        char generation[ARGUMENT_SIZE], nofile[ARGUMENT_SIZE], stop_timeout[ARGUMENT_SIZE];
        static char name[] = "baton-supervisor";
        LaunchChild child = { .launch = launch, .argv = { name, generation, nofile, stop_timeout } };
        pid_t pid;

        (void) snprintf(generation, sizeof(generation), "--generation=%" PRIu32, launch->generation);
        (void) snprintf(nofile, sizeof(nofile), "--nofile=%" PRIu64, launch->nofile);
        (void) snprintf(stop_timeout, sizeof(stop_timeout), "--stop-timeout=%" PRIu64 "us", launch->stop_timeout_us);
        add_arguments(launch, child.argv + 4);

        errno = 0;
        pid = vfork();
        if (pid == 0)
                run_child(&child);
        if (pid < 0) {
                *ret_step = "vfork";
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

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Spawn: clone() with shared memory and shared descriptors, so that its cost does not grow with either. The child runs on
 * an array of our stack while we wait (CLONE_VFORK), is the keeper's child from birth (CLONE_PARENT), and writes where it
 * failed into a structure that both see.
 *
 * With CLONE_FILES the two share one descriptor table until the child says close_range(UNSHARE): the kernel then copies
 * only what is below KEEPER_RESERVED_FDS. What the child needs is therefore put there first, by us, and /dev/null is put
 * back afterwards; a child that cannot unshare must not touch a single descriptor and exits. Where CLONE_FILES or
 * CLONE_PIDFD is refused (feature "clone-files") the table is copied as a whole, and the pidfd is opened afterwards: then
 * a child that the keeper has already reaped has none, and its number could in theory be another's by then.
 *
 * BORN comes before every step that can fail or take time, so that none runs that the keeper does not know. The order of
 * the rest: what needs privilege before the user changes; PDEATHSIG after that, since it is cleared by it; then the
 * question whether the keeper lives, since it may have died before. Signals stay blocked to the end: a handler of ours
 * would run in the child, in our memory.
 *
 * Of descriptors beyond 0-2 a few fit below KEEPER_RESERVED_FDS. For more the child takes a copy of the whole table
 * (unshare), whose cost grows with it, and brings them below a limit of its own: first above all that are wanted, then
 * down in order, so that none is overwritten before it was moved.
 *
 * The child does not return, allocate or use stdio, shares errno with us, and uses system calls directly where the C
 * library would keep state (setxid). It is not instrumented: sanitizers know one stack per thread.
 */

#include "supervisor/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/keeper-message.h"
#include "common/rlimit.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

/* What the reserved numbers above the fixed ones are for. */
enum {
        STAGE_STDIO = 6, /* 6-8 */
        STAGE_PROGRAM = 9,
        STAGE_FDS = 10,     /* 10-14 */
        STAGE_DEVNULL = 15, /* never anything else */

        FIRST_REALTIME = 32,

        STACK_SIZE = 32 * 1024, /* a few hundred bytes are used; more by what sanitizers put in between */
};

_Static_assert((int) KEEPER_PIDFD_FD < (int) STAGE_STDIO && STAGE_FDS + SPAWN_FDS_CHEAP == STAGE_DEVNULL &&
                       STAGE_DEVNULL == (int) KEEPER_RESERVED_FDS - 1,
               "the numbers do not overlap");
_Static_assert(3 + SPAWN_FDS_CHEAP <= (int) STAGE_PROGRAM, "what moves down does not overwrite the program");

/* Shared between us and the child. */
typedef struct SpawnChild {
        const SpawnParameters *parameters;
        KeeperMessage born;
        bool shared_files;
        volatile SpawnStep step; /* the one being tried */
        volatile int error;
        volatile unsigned item;
        volatile bool told; /* BORN went out */
        int *moved;         /* of many descriptors: where they are for the time being; NULL: there are not many */
        char oom[16];       /* what to write */
} SpawnChild;

static const char *const step_names[] = {
        [SPAWN_NONE] = "nothing",
        [SPAWN_DESCRIPTORS] = "descriptors",
        [SPAWN_CLONE] = "clone",
        [SPAWN_UNSHARE] = "close_range",
        [SPAWN_BORN] = "born",
        [SPAWN_SESSION] = "setsid",
        [SPAWN_CGROUP] = "cgroup",
        [SPAWN_LIMITS] = "setrlimit",
        [SPAWN_NICE] = "setpriority",
        [SPAWN_IOPRIO] = "ioprio_set",
        [SPAWN_OOM] = "oom_score_adj",
        [SPAWN_GROUPS] = "setgroups",
        [SPAWN_GROUP] = "setgid",
        [SPAWN_USER] = "setuid",
        [SPAWN_CWD] = "chdir",
        [SPAWN_PDEATHSIG] = "prctl(PR_SET_PDEATHSIG)",
        [SPAWN_KEEPER] = "check for the keeper",
        [SPAWN_STDIO] = "dup2",
        [SPAWN_TERMINAL] = "ioctl(TIOCSCTTY)",
        [SPAWN_EXEC] = "exec",
};

_Static_assert(ARRAY_SIZE(step_names) == _SPAWN_STEP_N, "one name per step");

const char *spawn_step_name(SpawnStep step) {
        return step_names[step];
}

/* object() - of what the step was about: in parentheses behind its name. NULL: that says it all. */
static const char *object(const SpawnParameters *parameters, const SpawnResult *result, char number[16]) {
        const SpawnUser *user = parameters->user;

        switch (result->step) {
        case SPAWN_EXEC:
                return parameters->path;
        case SPAWN_CWD:
                return parameters->cwd;
        case SPAWN_CGROUP:
                return parameters->cgroup_procs;
        case SPAWN_LIMITS:
                return rlimit_name(result->item < parameters->n_limits ? parameters->limits[result->item].resource
                                                                       : RLIMIT_NOFILE);
        case SPAWN_NICE:
                (void) snprintf(number, 16, "%d", parameters->nice);
                return number;
        case SPAWN_OOM:
                (void) snprintf(number, 16, "%d", parameters->oom_score_adj);
                return number;
        case SPAWN_GROUP:
        case SPAWN_USER:
                (void) snprintf(number, 16, "%u", result->step == SPAWN_USER ? user->uid : user->gid);
                return number;
        default:
                return NULL;
        }
}

const char *spawn_describe(const SpawnParameters *parameters, const SpawnResult *result, char *text, size_t size) {
        char number[16];
        const char *of = object(parameters, result, number);

        (void) snprintf(text, size, "%s%s%s%s: %s", step_names[result->step], of ? "(" : "", of ? of : "",
                        of ? ")" : "", strerror(result->error));
        return text;
}

/*
 * default_signals() - from @begin to before @end. By the system call: the C library refuses 32 and 33, which it keeps for
 * itself, and a `make' among our ancestors may have left them ignored.
 */
static _no_sanitize_ void default_signals(int begin, int end) {
        static const uint64_t defaults[32]; /* the kernel's struct sigaction, SIG_DFL, on whatever architecture */

        for (int n = begin; n < end; n++)
                (void) syscall(SYS_rt_sigaction, n, defaults, NULL, (size_t) (_NSIG - 1) / 8);
}

/*
 * What this process does something with, and a child takes back; of the rest none is ignored after spawn_reserve(), and
 * none gets a handler that must not run in a child.
 */
static const int own_signals[] = { SIGHUP, SIGINT, SIGTERM, SIGCHLD, SIGPIPE, SIGXFSZ };

static bool is_own(int number) {
        for (size_t i = 0; i < ARRAY_SIZE(own_signals); i++)
                if (own_signals[i] == number)
                        return true;
        return false;
}

/* forget_ignored() - what somebody before us had ignored would be ignored in every runner. */
static void forget_ignored(void) {
        struct sigaction action;

        for (int n = 1; n < FIRST_REALTIME; n++)
                if (!is_own(n) && sigaction(n, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
                        (void) signal(n, SIG_DFL);
        default_signals(FIRST_REALTIME, _NSIG);
}

/* reserve_one() - of the fixed ones the keeper put there what it has; the rest must be nobody's. */
static int reserve_one(int fd, int devnull) {
        if (fcntl(fd, F_GETFD) < 0)
                return dup3(devnull, fd, O_CLOEXEC) < 0 ? -errno : 0;
        if (fd >= STAGE_STDIO)
                return -EBUSY;
        return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

int spawn_reserve(void) {
        _cleanup_fd_ int devnull = -1;
        int low = open("/dev/null", O_RDWR | O_CLOEXEC), r = 0;

        if (low < 0)
                return -errno;
        devnull = fcntl(low, F_DUPFD_CLOEXEC, KEEPER_RESERVED_FDS);
        r = devnull < 0 ? -errno : 0;
        fd_close(low);
        for (int fd = 3; r == 0 && fd < KEEPER_RESERVED_FDS; fd++)
                r = reserve_one(fd, devnull);
        forget_ignored();
        return r;
}

/* ---------------------------------------------------------------------------------------------------- in the child */

/* bring_down() - of many descriptors, in a table that is ours: they are KEEPER_RESERVED_FDS and following. */
static _no_sanitize_ int bring_down(SpawnChild *child) {
        const SpawnParameters *parameters = child->parameters;
        int n = (int) parameters->n_fds, above = KEEPER_RESERVED_FDS + n;

        for (int i = 0; i < n; i++)
                if (parameters->fds[i] >= above)
                        above = parameters->fds[i] + 1;
        for (int i = 0; i < n; i++)
                if ((child->moved[i] = fcntl(parameters->fds[i], F_DUPFD_CLOEXEC, above)) < 0)
                        return -1;
        for (int i = 0; i < n; i++)
                if (dup3(child->moved[i], KEEPER_RESERVED_FDS + i, O_CLOEXEC) < 0)
                        return -1;
        return close_range((unsigned) (KEEPER_RESERVED_FDS + n), ~0u, 0);
}

static _no_sanitize_ int child_unshare(SpawnChild *child) {
        if (child->moved)
                return unshare(CLONE_FILES) < 0 ? -1 : bring_down(child);
        return close_range(KEEPER_RESERVED_FDS, ~0u, child->shared_files ? CLOSE_RANGE_UNSHARE : 0);
}

static _no_sanitize_ int child_born(SpawnChild *child) {
        struct pollfd keeper = { .fd = KEEPER_SOCKET_FD, .events = POLLOUT };
        ssize_t n;

        while ((n = send(KEEPER_SOCKET_FD, &child->born, sizeof(child->born), MSG_DONTWAIT | MSG_NOSIGNAL)) < 0) {
                if (errno == EAGAIN)
                        (void) poll(&keeper, 1, -1);
                else if (errno != EINTR)
                        return -1;
        }
        return 0;
}

static _no_sanitize_ int child_session(SpawnChild *child) {
        return child->parameters->new_session ? setsid() : 0;
}

/* write_file() - the whole @text at once, as files of the kernel want it. */
static _no_sanitize_ int write_file(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -1;
        n = write(fd, text, strlen(text));
        fd_close(fd); /* keeps errno */
        return n < 0 ? -1 : 0;
}

/* Before anything is limited: moving counts against neither what the old nor what the new cgroup allows to be started. */
static _no_sanitize_ int child_cgroup(SpawnChild *child) {
        return child->parameters->cgroup_procs ? write_file(child->parameters->cgroup_procs, "0") : 0;
}

static _no_sanitize_ int child_limits(SpawnChild *child) {
        const SpawnParameters *parameters = child->parameters;

        child->item = (unsigned) parameters->n_limits;
        if (parameters->nofile && setrlimit(RLIMIT_NOFILE, parameters->nofile) < 0)
                return -1;
        for (unsigned i = 0; i < parameters->n_limits; i++) {
                child->item = i;
                if (setrlimit(parameters->limits[i].resource, &parameters->limits[i].limit) < 0)
                        return -1;
        }
        return 0;
}

static _no_sanitize_ int child_nice(SpawnChild *child) {
        int nice = child->parameters->nice;

        return nice == SPAWN_NICE_KEEP ? 0 : setpriority(PRIO_PROCESS, 0, nice);
}

static _no_sanitize_ int child_ioprio(SpawnChild *child) {
        enum { WHO_PROCESS = 1 };
        int ioprio = child->parameters->ioprio;

        return ioprio == 0 ? 0 : (int) syscall(SYS_ioprio_set, WHO_PROCESS, 0, ioprio);
}

static _no_sanitize_ int child_oom(SpawnChild *child) {
        return *child->oom ? write_file("/proc/self/oom_score_adj", child->oom) : 0;
}

static _no_sanitize_ int child_groups(SpawnChild *child) {
        const SpawnUser *user = child->parameters->user;

        return user ? (int) syscall(SYS_setgroups, user->n_groups, user->groups) : 0;
}

static _no_sanitize_ int child_group(SpawnChild *child) {
        const SpawnUser *user = child->parameters->user;

        return user ? (int) syscall(SYS_setresgid, user->gid, user->gid, user->gid) : 0;
}

static _no_sanitize_ int child_user(SpawnChild *child) {
        const SpawnUser *user = child->parameters->user;

        return user ? (int) syscall(SYS_setresuid, user->uid, user->uid, user->uid) : 0;
}

static _no_sanitize_ int child_cwd(SpawnChild *child) {
        const SpawnParameters *parameters = child->parameters;

        if (parameters->umask != SPAWN_UMASK_KEEP) /* no step of its own: it cannot fail */
                (void) umask((mode_t) parameters->umask);
        return parameters->cwd ? chdir(parameters->cwd) : 0;
}

static _no_sanitize_ int child_pdeathsig(SpawnChild *child) {
        (void) child;
        return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static _no_sanitize_ int child_keeper(SpawnChild *child) {
        struct pollfd keeper = { .fd = KEEPER_PIDFD_FD, .events = POLLIN };
        int r = poll(&keeper, 1, 0);

        (void) child;
        if (r > 0)
                errno = ESRCH;
        return r == 0 ? 0 : -1;
}

/* All that is left is CLOEXEC, what dup2() makes is not: exactly what was asked for remains. */
static _no_sanitize_ int child_stdio(SpawnChild *child) {
        int from = child->moved ? KEEPER_RESERVED_FDS : STAGE_FDS;

        for (int fd = 0; fd < 3; fd++)
                if (dup2(STAGE_STDIO + fd, fd) < 0)
                        return -1;
        for (int i = 0; i < (int) child->parameters->n_fds; i++)
                if (dup2(from + i, 3 + i) < 0)
                        return -1;
        return 0;
}

static _no_sanitize_ int child_terminal(SpawnChild *child) {
        return child->parameters->terminal ? ioctl(STDIN_FILENO, TIOCSCTTY, 0) : 0;
}

/* Ignored signals survive exec; handlers would not, but must not run between here and there. */
static _no_sanitize_ void reset_signals(void) {
        sigset_t none;

        for (size_t i = 0; i < ARRAY_SIZE(own_signals); i++)
                default_signals(own_signals[i], own_signals[i] + 1);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
}

/* tell_pid() - where the environment has room for it; the memory is the parent's, and so is its copy in exec. */
static _no_sanitize_ void tell_pid(char *text) {
        char digits[SPAWN_PID_SIZE];
        int n = 0;

        for (pid_t pid = (pid_t) syscall(SYS_getpid); pid > 0 && n < SPAWN_PID_SIZE - 1; pid /= 10)
                digits[n++] = (char) ('0' + pid % 10);
        while (n > 0)
                *text++ = digits[--n];
        *text = '\0';
}

static _no_sanitize_ int child_exec(SpawnChild *child) {
        const SpawnParameters *parameters = child->parameters;

        if (parameters->pid_text)
                tell_pid(parameters->pid_text);
        reset_signals();
        if (parameters->program_fd >= 0)
                return execveat(STAGE_PROGRAM, "", parameters->argv, parameters->envp, AT_EMPTY_PATH);
        return execve(parameters->path, parameters->argv, parameters->envp);
}

/* In the order of SpawnStep, which is the order in which they are done. */
static int (*const child_steps[_SPAWN_STEP_N])(SpawnChild *) = {
        [SPAWN_UNSHARE] = child_unshare,     [SPAWN_BORN] = child_born,     [SPAWN_SESSION] = child_session,
        [SPAWN_CGROUP] = child_cgroup,       [SPAWN_LIMITS] = child_limits, [SPAWN_NICE] = child_nice,
        [SPAWN_IOPRIO] = child_ioprio,       [SPAWN_OOM] = child_oom,       [SPAWN_GROUPS] = child_groups,
        [SPAWN_GROUP] = child_group,         [SPAWN_USER] = child_user,     [SPAWN_CWD] = child_cwd,
        [SPAWN_PDEATHSIG] = child_pdeathsig, [SPAWN_KEEPER] = child_keeper, [SPAWN_STDIO] = child_stdio,
        [SPAWN_TERMINAL] = child_terminal,   [SPAWN_EXEC] = child_exec,
};

static _no_sanitize_ int child_main(void *argument) {
        SpawnChild *child = argument;

        for (SpawnStep step = SPAWN_UNSHARE; step < _SPAWN_STEP_N; step++) {
                child->step = step;
                if (child_steps[step](child) < 0) {
                        child->error = errno;
                        break;
                }
                if (step == SPAWN_BORN) {
                        child->told = true;
                        fd_close(KEEPER_SOCKET_FD); /* else its end would not be seen while this one tries to start */
                }
        }
        _exit(127);
}

/* --------------------------------------------------------------------------------------------------- in the parent */

static bool are_many(const SpawnParameters *parameters) {
        return parameters->n_fds > SPAWN_FDS_CHEAP;
}

static int stage_one(int fd, int target) {
        return fd >= 0 && dup3(fd, target, O_CLOEXEC) < 0 ? -errno : 0;
}

/* stage() - what the child needs goes below KEEPER_RESERVED_FDS. */
static int stage(const SpawnParameters *parameters) {
        int r = stage_one(parameters->program_fd, STAGE_PROGRAM);

        for (int i = 0; r == 0 && i < 3; i++)
                r = stage_one(parameters->stdio[i], STAGE_STDIO + i);
        for (int i = 0; r == 0 && !are_many(parameters) && i < (int) parameters->n_fds; i++)
                r = stage_one(parameters->fds[i], STAGE_FDS + i);
        return r;
}

/* unstage() - a copy kept here would hide the end of a pipe or socket. Replacing an open descriptor cannot run out. */
static void unstage(const SpawnParameters *parameters) {
        for (int i = 0; i < 3; i++)
                if (parameters->stdio[i] >= 0)
                        (void) dup3(STAGE_DEVNULL, STAGE_STDIO + i, O_CLOEXEC);
        if (parameters->program_fd >= 0)
                (void) dup3(STAGE_DEVNULL, STAGE_PROGRAM, O_CLOEXEC);
        for (int i = 0; !are_many(parameters) && i < (int) parameters->n_fds; i++)
                (void) dup3(STAGE_DEVNULL, STAGE_FDS + i, O_CLOEXEC);
}

static bool is_refusal(int error) {
        return error == EINVAL || error == ENOSYS || error == EPERM;
}

/* clone_child() - returns the pid once it has executed or exited, or a negative errno. */
static pid_t clone_child(SpawnChild *child, char *stack_end, int *ret_pidfd) {
        const int flags = CLONE_VM | CLONE_VFORK | CLONE_PARENT;
        int pidfd = -1;
        pid_t pid;

        if (feature_enabled(FEATURE_CLONE_FILES)) {
                child->shared_files = true;
                pid = clone(child_main, stack_end, flags | CLONE_FILES | CLONE_PIDFD, child, &pidfd, NULL, NULL);
                if (pid > 0)
                        *ret_pidfd = pidfd;
                if (pid > 0 || !is_refusal(errno))
                        return pid > 0 ? pid : -errno;
        }
        child->shared_files = false;
        pid = clone(child_main, stack_end, flags, child, NULL, NULL, NULL);
        if (pid < 0)
                return -errno;
        *ret_pidfd = pidfd_open(pid, 0);
        return pid;
}

/* clone_blocked() - with all signals blocked: until exec a handler would run in the child, in our memory. */
static pid_t clone_blocked(SpawnChild *child, char *stack_end, int *ret_pidfd) {
        sigset_t all, before;
        pid_t pid;

        (void) sigfillset(&all);
        (void) sigprocmask(SIG_SETMASK, &all, &before);
        pid = clone_child(child, stack_end, ret_pidfd);
        (void) sigprocmask(SIG_SETMASK, &before, NULL);
        return pid;
}

static void judge(const SpawnChild *child, SpawnResult *result) {
        result->born = child->told;
        if (child->error) {
                result->step = child->step;
                result->error = child->error;
                result->item = child->item;
        } else if (!child->told) { /* killed by somebody before it could say a word */
                result->step = SPAWN_BORN;
                result->error = ECANCELED;
        }
}

static void start(const SpawnParameters *parameters, SpawnResult *result) {
        _cleanup_free_ int *moved = are_many(parameters) ? malloc(parameters->n_fds * sizeof(*moved)) : NULL;
        SpawnChild child = {
                .parameters = parameters,
                .moved = moved,
                .born = { .version = KEEPER_VERSION, .type = KEEPER_BORN, .instance = parameters->instance },
        };
        _Alignas(64) char stack[STACK_SIZE];
        pid_t pid;

        if (are_many(parameters) && !moved) {
                result->step = SPAWN_DESCRIPTORS;
                result->error = ENOMEM;
                return;
        }
        if (parameters->oom_score_adj != SPAWN_OOM_KEEP)
                (void) snprintf(child.oom, sizeof(child.oom), "%d", parameters->oom_score_adj);
        pid = clone_blocked(&child, stack + STACK_SIZE, &result->pidfd);
        if (pid < 0) {
                result->step = SPAWN_CLONE;
                result->error = -pid;
                return;
        }
        result->pid = pid;
        judge(&child, result);
}

int spawn(const SpawnParameters *parameters, SpawnResult *ret_result) {
        SpawnResult result = { .pidfd = -1 };
        int r;

        assert(parameters->n_fds <= SPAWN_FDS_MAX && parameters->argv && parameters->argv[0]);
        assert(!are_many(parameters) || parameters->program_fd < 0);
        r = stage(parameters);
        if (r < 0) {
                result.step = SPAWN_DESCRIPTORS;
                result.error = -r;
        } else {
                start(parameters, &result);
        }
        unstage(parameters);
        if (result.error)
                result.pidfd = fd_close(result.pidfd);
        *ret_result = result;
        return -result.error;
}

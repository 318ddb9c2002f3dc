/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Spawn. The test's process stands in for the keeper: what a scenario, run in a child as the supervisor, spawns with
 * CLONE_PARENT becomes a child of the test. It reads BORN messages until the last holder of the socket is gone and reaps.
 * Each scenario runs twice, once without the feature "clone-files". Run with --report this program is what is spawned: it
 * writes what it finds in itself to standard output.
 */

#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/keeper-message.h"
#include "tests/seam.h"
#include "tests/test.h"

#define CHECK(_condition)                                                                   \
        do {                                                                                \
                if (!(_condition)) {                                                        \
                        printf("# line %d: %s (errno %d)\n", __LINE__, #_condition, errno); \
                        (void) fflush(stdout);                                              \
                        return 1;                                                           \
                }                                                                           \
        } while (0)

enum { FDS_SEEN = 64, MANY = 1000 };

/* What a spawned process finds in itself. */
typedef struct Report {
        uint64_t fds; /* bit per open number */
        uint64_t ignored, blocked;
        char cwd[256];
        struct rlimit nofile, memlock;
        mode_t umask;
        bool leads_session;
        int pdeathsig, n_groups, nice, ioprio, oom_score_adj;
        char cgroup[256]; /* of v2 */
        uid_t uid;
        gid_t gid;
        int n_in_order;   /* from 3 on: files, each as large as its place among them */
        int said_pid;     /* LISTEN_PID as it was told; 0: it was not */
        bool is_said_pid; /* and it is ours */
} Report;

static uint64_t signals_in_status(const char *key) {
        FILE *status = fopen("/proc/self/status", "re");
        unsigned long long value = ~0ull;
        char line[256];

        while (status && fgets(line, sizeof(line), status))
                if (strncmp(line, key, strlen(key)) == 0)
                        value = strtoull(line + strlen(key), NULL, 16);
        if (status)
                (void) fclose(status);
        return value;
}

static int read_oom_score_adj(void) {
        FILE *file = fopen("/proc/self/oom_score_adj", "re");
        char line[32] = "";

        if (file) {
                (void) fgets(line, sizeof(line), file);
                (void) fclose(file);
        }
        return atoi(line);
}

/* read_cgroup() - of v2, relative to its root; "": there is none. */
static void read_cgroup(char *path, size_t size) {
        FILE *file = fopen("/proc/self/cgroup", "re");
        char line[512];

        *path = 0;
        while (file && fgets(line, sizeof(line), file))
                if (strncmp(line, "0::", 3) == 0)
                        (void) snprintf(path, size, "%.*s", (int) strcspn(line + 3, "\n"), line + 3);
        if (file)
                (void) fclose(file);
}

static int report_main(void) {
        Report report = { 0 };

        for (int fd = 0; fd < FDS_SEEN; fd++)
                report.fds |= (uint64_t) test_is_open(fd) << fd;
        for (struct stat st;
             fstat(3 + report.n_in_order, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == report.n_in_order;)
                report.n_in_order++;
        report.said_pid = getenv("LISTEN_PID") ? atoi(getenv("LISTEN_PID")) : 0;
        report.is_said_pid = report.said_pid == getpid();
        report.ignored = signals_in_status("SigIgn:");
        report.blocked = signals_in_status("SigBlk:");
        if (!getcwd(report.cwd, sizeof(report.cwd)) || getrlimit(RLIMIT_NOFILE, &report.nofile) < 0)
                return 1;
        (void) getrlimit(RLIMIT_MEMLOCK, &report.memlock);
        report.nice = getpriority(PRIO_PROCESS, 0);
        report.ioprio = (int) syscall(SYS_ioprio_get, 1, 0);
        report.oom_score_adj = read_oom_score_adj();
        read_cgroup(report.cgroup, sizeof(report.cgroup));
        report.umask = umask(0);
        report.leads_session = getsid(0) == getpid() && getpgrp() == getpid();
        (void) prctl(PR_GET_PDEATHSIG, &report.pdeathsig);
        report.n_groups = getgroups(0, NULL);
        report.uid = geteuid();
        report.gid = getegid();
        return write(STDOUT_FILENO, &report, sizeof(report)) == (ssize_t) sizeof(report) ? 0 : 1;
}

/* ------------------------------------------------------------------------------------------- keeper and supervisor */

typedef int Scenario(void);

typedef struct Stage {
        Scenario *scenario;
        int keeper, supervisor; /* the two ends */
        int pidfd;              /* what the scenario is told is its keeper */
        bool fallback;
} Stage;

/* What came of a scenario. */
typedef struct Outcome {
        int result;                /* the supervisor's */
        unsigned n_born, n_exited; /* messages, children besides the supervisor */
        unsigned n_killed;         /* of them by SIGKILL */
} Outcome;

static int supervisor_main(void *argument) {
        const uintptr_t ignore[32] = { (uintptr_t) SIG_IGN };
        const Stage *stage = argument;
        int fds[2] = { fcntl(stage->supervisor, F_DUPFD, 32), fcntl(stage->pidfd, F_DUPFD, 32) };

        (void) close_range(3, 31, 0);
        (void) dup2(fds[0], KEEPER_SOCKET_FD);
        (void) dup2(fds[1], KEEPER_PIDFD_FD);
        (void) close_range(32, ~0u, 0);
        if (stage->fallback)
                (void) setenv("BATON_DISABLE", "clone-files", 1);
        feature_forget();
        CHECK(feature_enabled(FEATURE_CLONE_FILES) == !stage->fallback);
        (void) syscall(SYS_rt_sigaction, 32, ignore, NULL, (size_t) 8); /* one that the C library would not touch */
        CHECK(spawn_reserve() == 0);
        return stage->scenario();
}

/* read_born() - messages until there is none for now; false at the end. */
static bool read_born(int fd, Outcome *outcome) {
        KeeperMessage m;
        ssize_t n;

        while ((n = recv(fd, &m, sizeof(m), MSG_DONTWAIT)) != 0) {
                if (n < 0 && errno == EAGAIN)
                        return true;
                if (n == (ssize_t) sizeof(m) && m.type == KEEPER_BORN && m.version == KEEPER_VERSION)
                        outcome->n_born++;
        }
        return false;
}

static bool reap_one(pid_t supervisor, int flags, Outcome *outcome) {
        int status;
        pid_t pid = waitpid(-1, &status, flags | __WALL);

        if (pid <= 0)
                return false;
        if (pid == supervisor) {
                outcome->result = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
                return true;
        }
        outcome->n_exited++;
        outcome->n_killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        return true;
}

static Outcome play_once(Scenario *scenario, int pidfd, bool fallback) {
        Stage stage = { .scenario = scenario, .pidfd = pidfd, .fallback = fallback };
        Outcome outcome = { .result = -1 };
        int fds[2];
        pid_t pid;

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        stage.keeper = fds[0];
        stage.supervisor = fds[1];
        pid = test_child(supervisor_main, &stage);
        fd_close(fds[1]);
        do {
                struct pollfd p = { .fd = fds[0], .events = POLLIN };

                (void) poll(&p, 1, -1);
                while (reap_one(pid, WNOHANG, &outcome))
                        ;
        } while (read_born(fds[0], &outcome));
        while (reap_one(pid, 0, &outcome))
                ;
        fd_close(fds[0]);
        return outcome;
}

/* play() - both ways; what comes of it must be the same. */
static Outcome play(Scenario *scenario) {
        int self = pidfd_open(getpid(), 0);
        Outcome outcome, other;

        assert_true(self >= 0);
        outcome = play_once(scenario, self, false);
        other = play_once(scenario, self, true);
        fd_close(self);
        assert_int_equal(outcome.result, 0);
        assert_int_equal(other.result, 0);
        assert_int_equal(outcome.n_born, other.n_born);
        assert_int_equal(outcome.n_exited, other.n_exited);
        return outcome;
}

/* ------------------------------------------------------------------------------------------------------- scenarios */

static char self_path[] = "/proc/self/exe", report_flag[] = "--report", name[] = "runner";
static char *report_argv[] = { name, report_flag, NULL };
static char true_path[] = "/bin/true", sleep_path[] = "/bin/sleep", forever[] = "1000";
static char *true_argv[] = { true_path, NULL }, *sleep_argv[] = { sleep_path, forever, NULL };

static SpawnParameters parameters_of(const char *path, char **argv) {
        SpawnParameters p = SPAWN_PARAMETERS_NULL;

        p.instance = 1;
        p.path = path;
        p.argv = argv;
        p.envp = environ;
        return p;
}

/* spawn_report() - spawns ourselves, reads what it says. */
static int spawn_report(SpawnParameters *p, Report *ret_report) {
        SpawnResult result;
        ssize_t n;
        int fds[2], r;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        p->stdio[1] = fds[1];
        p->stdio[2] = STDERR_FILENO;
        r = spawn(p, &result);
        fd_close(fds[1]);
        if (r < 0) {
                char text[SPAWN_DESCRIBE_SIZE];

                printf("# %s\n", spawn_describe(p, &result, text, sizeof(text)));
        }
        CHECK(r == 0 && result.born && result.step == SPAWN_NONE && result.pid > 0);
        fd_close(result.pidfd);
        do
                n = read(fds[0], ret_report, sizeof(*ret_report));
        while (n < 0 && errno == EINTR);
        CHECK(n == (ssize_t) sizeof(*ret_report));
        CHECK(read(fds[0], ret_report, 1) == 0); /* no copy of the other end is left with us */
        fd_close(fds[0]);
        return 0;
}

static int scenario_report(void) {
        struct rlimit nofile = { 77, 4096 }, own;
        SpawnParameters p = parameters_of(self_path, report_argv);
        Report report;

        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGHUP, SIG_IGN);
        p.cwd = "/usr";
        p.umask = 0123;
        p.nofile = &nofile;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.fds == 7);
        CHECK(report.ignored == 0 && report.blocked == 0);
        CHECK(strcmp(report.cwd, "/usr") == 0);
        CHECK(report.umask == 0123);
        CHECK(report.nofile.rlim_cur == 77 && report.nofile.rlim_max == 4096);
        CHECK(report.leads_session);
        CHECK(report.pdeathsig == SIGKILL);

        CHECK(getrlimit(RLIMIT_NOFILE, &own) == 0 && own.rlim_max != 4096);
        p = parameters_of(self_path, report_argv);
        p.new_session = false;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(!report.leads_session);
        CHECK(report.nofile.rlim_cur == own.rlim_cur);
        return 0;
}

static int scenario_descriptors(void) {
        SpawnParameters p =
                parameters_of(name, report_argv); /* a path that is no program: program_fd is what counts */
        int fds[SPAWN_FDS_CHEAP];
        Report report;

        for (int i = 0; i < SPAWN_FDS_CHEAP; i++)
                fds[i] = KEEPER_SOCKET_FD + i % 3; /* below the reserved ones, out of order */
        p.fds = fds;
        p.n_fds = SPAWN_FDS_CHEAP;
        p.program_fd = open(self_path, O_PATH | O_CLOEXEC);
        CHECK(p.program_fd >= 0);
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.fds == 0xff); /* 0-2 and five more */
        fd_close(p.program_fd);
        return 0;
}

/* More than fit below the reserved ones, the highest first: each arrives in its place. */
static int scenario_many_descriptors(void) {
        enum { N = 60 };
        SpawnParameters p = parameters_of(self_path, report_argv);
        char text[] = "LISTEN_PID=..........", before[SPAWN_PID_SIZE];
        char *environment[] = { text, NULL };
        int fds[N];
        Report report;

        for (int i = N - 1; i >= 0; i--) {
                fds[i] = memfd_create("test", MFD_CLOEXEC);
                CHECK(fds[i] >= 0 && ftruncate(fds[i], i) == 0);
        }
        p.fds = fds;
        p.n_fds = N;
        p.envp = environment;
        p.pid_text = text + strlen("LISTEN_PID=");
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.n_in_order == N);
        CHECK(report.fds == ~UINT64_C(0) >> (64 - 3 - N));
        CHECK(report.is_said_pid);
        (void) strcpy(before, p.pid_text);
        p.n_fds = 2;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.n_in_order == 2 && report.fds == 0x1f && report.is_said_pid && strcmp(before, p.pid_text) != 0);
        for (int i = 0; i < N; i++)
                CHECK(test_is_open(fds[i])); /* ours were not moved */
        fd_close_all(fds, N);
        return 0;
}

static int scenario_user(void) {
        const gid_t groups[] = { 100, 65534 };
        SpawnUser user = { .uid = 65534, .gid = 65533, .groups = groups, .n_groups = 2 };
        SpawnParameters p = parameters_of(NULL, report_argv);
        Report report;

        p.user = &user;
        p.path = "tests/test-spawn";
        p.program_fd = open(self_path, O_PATH | O_CLOEXEC); /* its folder may be closed to that user */
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.uid == 65534 && report.gid == 65533 && report.n_groups == 2);
        CHECK(report.pdeathsig == SIGKILL);
        fd_close(p.program_fd);
        return 0;
}

/* Also as another user, who could do none of it: it comes before the user changes. */
static int scenario_attributes(void) {
        const SpawnLimit limits[] = { { RLIMIT_MEMLOCK, { 4096, 8192 } }, { RLIMIT_NOFILE, { 55, 66 } } };
        struct rlimit nofile = { 77, 4096 };
        SpawnUser user = { .uid = 65534, .gid = 65533 };
        SpawnParameters p = parameters_of("tests/test-spawn", report_argv);
        Report report;

        p.program_fd = open(self_path, O_PATH | O_CLOEXEC);
        p.nofile = &nofile;
        p.limits = limits;
        p.n_limits = 2;
        p.nice = -3;
        p.ioprio = 2 << 13 | 6;
        p.oom_score_adj = 0;
        p.user = &user;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.memlock.rlim_cur == 4096 && report.memlock.rlim_max == 8192);
        CHECK(report.nofile.rlim_cur == 55 && report.nofile.rlim_max == 66);
        CHECK(report.nice == -3 && report.ioprio == (2 << 13 | 6) && report.oom_score_adj == 0);
        p.oom_score_adj = 345;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.oom_score_adj == 345);

        p = parameters_of(self_path, report_argv); /* nothing set, nothing changed */
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(report.nice == getpriority(PRIO_PROCESS, 0) && report.oom_score_adj == read_oom_score_adj());
        fd_close(p.program_fd);
        return 0;
}

/* cgroup_new() - an empty cgroup of v2 below our own. False: there is none, or it may not be made. */
static bool cgroup_new(char *path, size_t size, const char **ret_relative) {
        static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        char own[256];

        read_cgroup(own, sizeof(own));
        for (size_t i = 0; *own && i < ARRAY_SIZE(roots); i++) {
                (void) snprintf(path, size, "%s%s/baton-test-%d", roots[i], strcmp(own, "/") == 0 ? "" : own,
                                getpid());
                *ret_relative = path + strlen(roots[i]);
                if (mkdir(path, 0755) == 0) {
                        char procs[600];

                        (void) snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
                        if (access(procs, W_OK) == 0)
                                return true;
                        (void) rmdir(path);
                }
        }
        return false;
}

static int cgroup_await_empty(const char *path) {
        char file[600], text[128];
        struct pollfd pollfd = { .events = POLLPRI };
        ssize_t n;

        (void) snprintf(file, sizeof(file), "%s/cgroup.events", path);
        pollfd.fd = open(file, O_RDONLY | O_CLOEXEC);
        CHECK(pollfd.fd >= 0);
        while ((n = pread(pollfd.fd, text, sizeof(text) - 1, 0)) > 0) {
                text[n] = 0;
                if (strstr(text, "populated 0"))
                        break;
                (void) poll(&pollfd, 1, -1);
        }
        fd_close(pollfd.fd);
        return 0;
}

static int scenario_cgroup(void) {
        char path[512], procs[600];
        const char *relative;
        SpawnUser user = { .uid = 65534, .gid = 65533 };
        SpawnParameters p = parameters_of("tests/test-spawn", report_argv);
        Report report;

        if (!cgroup_new(path, sizeof(path), &relative)) {
                printf("# no cgroup of version 2 can be made here\n");
                return 0;
        }
        (void) snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
        p.program_fd = open(self_path, O_PATH | O_CLOEXEC);
        p.cgroup_procs = procs;
        p.user = &user;
        CHECK(spawn_report(&p, &report) == 0);
        CHECK(strcmp(report.cgroup, relative) == 0);
        fd_close(p.program_fd);
        CHECK(cgroup_await_empty(path) == 0);
        CHECK(rmdir(path) == 0);
        return 0;
}

/* fails() - whether the start fails at @step with @error, leaving nothing here. */
static int fails(const SpawnParameters *p, SpawnStep step, int error) {
        int before = fd_count(), r;
        SpawnResult result;

        r = spawn(p, &result);
        if (r != -error || result.step != step)
                printf("# %s: %s instead of %s: %s\n", spawn_step_name(result.step), strerror(-r),
                       spawn_step_name(step), strerror(error));
        CHECK(r == -error && result.error == error && result.step == step);
        CHECK(result.born == (step > SPAWN_BORN) && (result.pid > 0) == (step > SPAWN_CLONE) && result.pidfd == -1);
        CHECK(fd_count() == before);
        return 0;
}

/* Which call fails, with what, and where that shows. */
static const struct {
        SeamCall call;
        int error;
        SpawnStep step;
} seams[] = {
        { SEAM_CLONE, EAGAIN, SPAWN_CLONE },         { SEAM_CLONE, ENOMEM, SPAWN_CLONE },
        { SEAM_CLONE, EMFILE, SPAWN_CLONE },         { SEAM_CLONE, ENOMEM, SPAWN_CLONE },
        { SEAM_CLOSE_RANGE, ENOMEM, SPAWN_UNSHARE }, { SEAM_DUP2, EBUSY, SPAWN_STDIO },
        { SEAM_EXECVE, ENOMEM, SPAWN_EXEC },         { SEAM_EXECVE, EMFILE, SPAWN_EXEC },
        { SEAM_EXECVE, EAGAIN, SPAWN_EXEC },         { SEAM_DUP3, EMFILE, SPAWN_DESCRIPTORS },
};

static int scenario_seams(void) {
        for (size_t i = 0; i < ARRAY_SIZE(seams); i++) {
                SpawnParameters p = parameters_of(true_path, true_argv);

                p.stdio[1] = STDOUT_FILENO;
                seam_fail(seams[i].call, 1, seams[i].error);
                CHECK(fails(&p, seams[i].step, seams[i].error) == 0);
                CHECK(seam_hits(seams[i].call) == 1);
                seam_reset();
        }
        return 0;
}

/* A sandbox that refuses the flags although the probe said yes: the other way is taken. */
static int scenario_refused_flags(void) {
        SpawnParameters p = parameters_of(true_path, true_argv);
        SpawnResult result;

        seam_fail(SEAM_CLONE, 1, EPERM);
        if (feature_enabled(FEATURE_CLONE_FILES)) {
                CHECK(spawn(&p, &result) == 0 && result.born);
                fd_close(result.pidfd);
        } else {
                CHECK(fails(&p, SPAWN_CLONE, EPERM) == 0);
                CHECK(spawn(&p, &result) == 0); /* as many processes as in the other run */
                fd_close(result.pidfd);
        }
        return 0;
}

static int scenario_bad_parameters(void) {
        struct rlimit crossed = { 100, 10 };
        SpawnUser crowd = { .groups = (gid_t[]){ 1 }, .n_groups = NGROUPS_MAX + 1 };
        SpawnParameters p = parameters_of(true_path, true_argv);
        char text[SPAWN_DESCRIBE_SIZE];
        SpawnResult result;

        p.stdio[2] = 999;
        CHECK(fails(&p, SPAWN_DESCRIPTORS, EBADF) == 0);
        p = parameters_of(true_path, true_argv);
        p.nofile = &crossed;
        CHECK(fails(&p, SPAWN_LIMITS, EINVAL) == 0);
        p = parameters_of(true_path, true_argv);
        p.user = &crowd;
        CHECK(fails(&p, SPAWN_GROUPS, geteuid() == 0 ? EINVAL : EPERM) == 0);
        p = parameters_of(true_path, true_argv);
        p.cwd = "/nowhere/at/all";
        CHECK(fails(&p, SPAWN_CWD, ENOENT) == 0);
        CHECK(spawn(&p, &result) == -ENOENT);
        CHECK(strcmp(spawn_describe(&p, &result, text, sizeof(text)),
                     "chdir(/nowhere/at/all): No such file or directory") == 0);
        return 0;
}

/* Privileges as of one who may change groups but not the user. */
static int scenario_no_setuid(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];
        SpawnUser user = { .uid = 1, .gid = 1 };
        SpawnParameters p = parameters_of(true_path, true_argv);

        CHECK(syscall(SYS_capget, &header, data) == 0);
        data[0].effective &= ~(1u << CAP_SETUID);
        CHECK(syscall(SYS_capset, &header, data) == 0);
        p.user = &user;
        return fails(&p, SPAWN_USER, EPERM);
}

/* Each of the steps that prepare the child fails, and says what it was about. */
static int scenario_refused_attributes(void) {
        const SpawnLimit limits[] = { { RLIMIT_CORE, { 0, 0 } }, { RLIMIT_STACK, { 2, 1 } } };
        SpawnUser user = { .uid = 65534, .gid = 65533 };
        struct rlimit nofile = { 2, 1 };
        const struct {
                SpawnParameters set;
                SpawnStep step;
                int error;
                const char *text;
        } cases[] = {
                { { .limits = limits, .n_limits = 2 }, SPAWN_LIMITS, EINVAL, "setrlimit(stack): Invalid argument" },
                { { .nofile = &nofile }, SPAWN_LIMITS, EINVAL, "setrlimit(nofile): Invalid argument" },
                { { .ioprio = 1 }, SPAWN_IOPRIO, EINVAL, "ioprio_set: Invalid argument" },
                { { .cgroup_procs = "/nowhere/cgroup.procs" },
                  SPAWN_CGROUP,
                  ENOENT,
                  "cgroup(/nowhere/cgroup.procs): No such file or directory" },
                { { .oom_score_adj = 1001 }, SPAWN_OOM, EINVAL, "oom_score_adj(1001): Invalid argument" },
                { { .user = &user, .nice = -20 }, SPAWN_NICE, EACCES, "setpriority(-20): Permission denied" },
                { { .user = &user }, SPAWN_GROUPS, EPERM, "setgroups: Operation not permitted" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                SpawnParameters p = parameters_of(true_path, true_argv);
                char text[SPAWN_DESCRIBE_SIZE];
                SpawnResult result;

                p.nofile = cases[i].set.nofile;
                p.limits = cases[i].set.limits;
                p.n_limits = cases[i].set.n_limits;
                p.ioprio = cases[i].set.ioprio;
                p.cgroup_procs = cases[i].set.cgroup_procs;
                p.oom_score_adj = cases[i].set.oom_score_adj ? cases[i].set.oom_score_adj : SPAWN_OOM_KEEP;
                p.nice = cases[i].set.nice ? cases[i].set.nice : SPAWN_NICE_KEEP;
                if (cases[i].set.user) { /* ourselves without any privilege */
                        CHECK(setgroups(0, NULL) == 0 || geteuid() != 0);
                        CHECK(setresuid(65534, 65534, 65534) == 0 || geteuid() == 65534);
                        p.user = cases[i].set.user;
                }
                CHECK(spawn(&p, &result) == -cases[i].error && result.step == cases[i].step && result.born);
                (void) spawn_describe(&p, &result, text, sizeof(text));
                if (strcmp(text, cases[i].text) != 0)
                        printf("# %s\n", text);
                CHECK(strcmp(text, cases[i].text) == 0);
        }
        return 0;
}

static int scenario_exec(void) {
        char plain[] = "/tmp/baton-test-spawn-XXXXXX", text[SPAWN_DESCRIBE_SIZE];
        SpawnParameters p = parameters_of("/nowhere/x", true_argv);
        int fd = mkostemp(plain, O_CLOEXEC), r;
        SpawnResult result;

        CHECK(fd >= 0 && write(fd, "echo no script\n", 15) == 15 && fchmod(fd, 0600) == 0);
        fd_close(fd);
        CHECK(fails(&p, SPAWN_EXEC, ENOENT) == 0);
        CHECK(spawn(&p, &result) == -ENOENT);
        CHECK(strcmp(spawn_describe(&p, &result, text, sizeof(text)), "exec(/nowhere/x): No such file or directory") ==
              0);
        p.path = plain;
        CHECK(fails(&p, SPAWN_EXEC, EACCES) == 0);
        CHECK(chmod(plain, 0700) == 0);
        r = fails(&p, SPAWN_EXEC, ENOEXEC);
        (void) unlink(plain);
        return r;
}

static int scenario_keeper_gone(void) {
        SpawnParameters p = parameters_of(true_path, true_argv);

        return fails(&p, SPAWN_KEEPER, ESRCH);
}

static int scenario_socket_gone(void) {
        SpawnParameters p = parameters_of(true_path, true_argv);
        int fds[2];

        CHECK(fd_socketpair(SOCK_SEQPACKET, fds) == 0);
        CHECK(dup3(fds[0], KEEPER_SOCKET_FD, O_CLOEXEC) >= 0);
        fd_close_all(fds, 2);
        return fails(&p, SPAWN_BORN, EPIPE);
}

static int scenario_many(void) {
        SpawnParameters p = parameters_of(true_path, true_argv);
        int before = fd_count(), fds[2];

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        p.stdio[1] = fds[1];
        for (int i = 0; i < MANY; i++) {
                SpawnResult result;

                p.instance = (uint64_t) i + 1;
                CHECK(spawn(&p, &result) == 0);
                fd_close(result.pidfd);
        }
        fd_close_all(fds, 2);
        CHECK(fd_count() == before);
        return 0;
}

static int scenario_sleeper(void) {
        SpawnParameters p = parameters_of(sleep_path, sleep_argv);
        SpawnResult result;

        CHECK(spawn(&p, &result) == 0 && result.pidfd >= 0);
        return 0;
}

/* ----------------------------------------------------------------------------------------------------------- tests */

static void test_report(void **state) {
        Outcome outcome = play(scenario_report);

        (void) state;
        assert_int_equal(outcome.n_born, 2);
        assert_int_equal(outcome.n_exited, 2);
}

static void test_descriptors(void **state) {
        (void) state;
        assert_int_equal(play(scenario_descriptors).n_born, 1);
        assert_int_equal(play(scenario_many_descriptors).n_born, 2);
}

static void test_user(void **state) {
        (void) state;
        if (geteuid() != 0) {
                print_message("to become another user needs root\n");
                skip();
        }
        assert_int_equal(play(scenario_user).n_born, 1);
        assert_int_equal(play(scenario_no_setuid).n_born, 1);
}

static void test_attributes(void **state) {
        (void) state;
        if (geteuid() != 0) {
                print_message("a better priority and another user need root\n");
                skip();
        }
        assert_int_equal(play(scenario_attributes).n_born, 3);
        assert_int_equal(play(scenario_refused_attributes).n_born, 7);
}

static void test_cgroup(void **state) {
        (void) state;
        if (geteuid() != 0) {
                print_message("to make a cgroup needs root\n");
                skip();
        }
        assert_true(play(scenario_cgroup).n_born <= 1);
}

static void test_seams(void **state) {
        Outcome outcome = play(scenario_seams);

        (void) state;
        assert_int_equal(outcome.n_born, 4);   /* dup2 and execve come after it */
        assert_int_equal(outcome.n_exited, 5); /* and close_range before it, in a child too */
}

static void test_refused_flags(void **state) {
        (void) state;
        assert_int_equal(play(scenario_refused_flags).n_born, 1);
}

static void test_bad_parameters(void **state) {
        (void) state;
        assert_int_equal(play(scenario_bad_parameters).n_born, 4);
}

static void test_exec(void **state) {
        (void) state;
        assert_int_equal(play(scenario_exec).n_born, 4);
}

static int just_exit(void *argument) {
        (void) argument;
        return 0;
}

static void test_keeper_gone(void **state) {
        pid_t dead = test_child(just_exit, NULL);
        int pidfd;
        Outcome outcome;

        (void) state;
        pidfd = pidfd_open(dead, 0);
        assert_true(pidfd >= 0);
        (void) test_child_wait(dead);
        for (int fallback = 0; fallback < 2; fallback++) {
                outcome = play_once(scenario_keeper_gone, pidfd, fallback);
                assert_int_equal(outcome.result, 0);
                assert_int_equal(outcome.n_born, 1);
        }
        fd_close(pidfd);
        assert_int_equal(play(scenario_socket_gone).n_born, 0);
}

static void test_many(void **state) {
        Outcome outcome = play(scenario_many);

        (void) state;
        assert_int_equal(outcome.n_born, MANY);
        assert_int_equal(outcome.n_exited, MANY);
}

/* A keeper whose supervisor spawns one runner; then it ends. */
static int short_keeper(void *argument) {
        const Stage *before = argument;
        Stage stage = *before;
        pid_t pid;

        stage.pidfd = pidfd_open(getpid(), 0);
        pid = test_child(supervisor_main, &stage);
        return test_child_wait(pid);
}

static void test_dies_with_the_keeper(void **state) {
        (void) state;
        for (int fallback = 0; fallback < 2; fallback++) {
                Stage stage = { .scenario = scenario_sleeper, .fallback = fallback };
                Outcome outcome = { .result = -1 };
                int fds[2];
                pid_t pid;

                assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
                stage.supervisor = fds[1];
                pid = test_child(short_keeper, &stage);
                while (reap_one(pid, 0, &outcome))
                        ;
                fd_close_all(fds, 2);
                assert_int_equal(outcome.result, 0);
                assert_int_equal(outcome.n_exited, 1);
                assert_int_equal(outcome.n_killed, 1);
        }
}

static int reserve_in_use(void *argument) {
        (void) argument;
        (void) close_range(3, ~0u, 0);
        CHECK(dup2(STDIN_FILENO, 9) == 9);
        CHECK(spawn_reserve() == -EBUSY);
        return 0;
}

static int reserve_fails(void *argument) {
        (void) argument;
        (void) close_range(3, ~0u, 0);
        seam_fail(SEAM_OPEN, 1, ENFILE);
        CHECK(spawn_reserve() == -ENFILE && fd_count() == 3);
        seam_fail(SEAM_FCNTL, 1, EMFILE);
        CHECK(spawn_reserve() == -EMFILE && fd_count() == 3);
        return 0;
}

static void test_reserve(void **state) {
        (void) state;
        assert_int_equal(test_child_wait(test_child(reserve_in_use, NULL)), 0);
        assert_int_equal(test_child_wait(test_child(reserve_fails, NULL)), 0);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                TEST(test_report),  TEST(test_descriptors), TEST(test_user),          TEST(test_attributes),
                TEST(test_cgroup),  TEST(test_seams),       TEST(test_refused_flags), TEST(test_bad_parameters),
                TEST(test_exec),    TEST(test_keeper_gone), TEST_SLOW(test_many, 60), TEST(test_dies_with_the_keeper),
                TEST(test_reserve),
        };

        if (argc == 2 && strcmp(argv[1], report_flag) == 0)
                return report_main();
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        return test_run(tests, ARRAY_SIZE(tests));
}

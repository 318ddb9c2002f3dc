#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Spawn: makes a runner, the keeper's child. The descriptors at KEEPER_SOCKET_FD and KEEPER_PIDFD_FD are used by the
 * child; everything it shall have besides is listed in SpawnParameters.
 */

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum {
        SPAWN_FDS_CHEAP = 5,   /* descriptors beyond 0-2 that cost nothing: for more, the whole table is copied */
        SPAWN_FDS_MAX = 2048,  /* that a child can be given at all */
        SPAWN_UMASK_KEEP = -1, /* the supervisor's */
        SPAWN_NICE_KEEP = INT_MIN,
        SPAWN_OOM_KEEP = INT_MIN,
        SPAWN_PID_SIZE = 11,       /* the digits of any pid, and the end */
        SPAWN_DESCRIBE_SIZE = 512, /* room that is enough for spawn_describe(), long paths cut */
};

/* Who a child becomes. */
typedef struct SpawnUser {
        uid_t uid;
        gid_t gid;
        const gid_t *groups; /* supplementary ones, replacing all; may be NULL when n_groups is 0 */
        size_t n_groups;
} SpawnUser;

typedef struct SpawnLimit {
        int resource; /* RLIMIT_N */
        struct rlimit limit;
} SpawnLimit;

/* What to start. All is borrowed until spawn() returns. */
typedef struct SpawnParameters {
        uint64_t instance; /* what BORN says; its RESERVE and PUTs are in the kernel already (keeper_link_idle()) */

        const char *path; /* the program, not looked for in PATH; in messages also when program_fd is used */
        int program_fd; /* executed instead of path when not -1 (a script cannot be: the interpreter finds no file) */
        char *const *argv; /* ended by NULL, at least argv[0] */
        char *const *envp; /* the whole environment, ended by NULL */

        const char *cwd; /* NULL: the supervisor's; entered as the user below, after BORN */
        int stdio[3];    /* become 0, 1, 2; -1: /dev/null */
        bool terminal;   /* 0 is a terminal, and controls the new session */
        const int *fds;  /* become 3, 4, ... in this order; all else is closed */
        size_t n_fds;    /* at most SPAWN_FDS_MAX; more than SPAWN_FDS_CHEAP do not go with program_fd */
        char *pid_text; /* in the environment, SPAWN_PID_SIZE bytes that end there: the child writes its pid; NULL: nowhere */

        bool new_session;            /* setsid(): a session and group of its own, so that the group can be signalled */
        const struct rlimit *nofile; /* RLIMIT_NOFILE to give back (the supervisor raised its own); NULL: as it is */
        const SpawnLimit *limits;    /* after nofile, and over it */
        size_t n_limits;
        const SpawnUser *user;    /* NULL: the supervisor's */
        int umask;                /* or SPAWN_UMASK_KEEP */
        int nice;                 /* -20 to 19, or SPAWN_NICE_KEEP */
        int ioprio;               /* as of ioprio_set(2): class << 13 | level; 0: the supervisor's */
        int oom_score_adj;        /* -1000 to 1000, or SPAWN_OOM_KEEP */
        const char *cgroup_procs; /* path of the file cgroup.procs of the cgroup it moves to; NULL: the supervisor's */
} SpawnParameters;
#define SPAWN_PARAMETERS_NULL                          \
        ((SpawnParameters){ .program_fd = -1,          \
                            .stdio = { -1, -1, -1 },   \
                            .new_session = true,       \
                            .umask = SPAWN_UMASK_KEEP, \
                            .nice = SPAWN_NICE_KEEP,   \
                            .oom_score_adj = SPAWN_OOM_KEEP })

/* Where a start failed. In this order; up to CLONE nothing has been started. */
typedef enum SpawnStep {
        SPAWN_NONE,
        SPAWN_DESCRIPTORS, /* what the child needs could not be put in place */
        SPAWN_CLONE,
        SPAWN_UNSHARE, /* the child could not get descriptors of its own */
        SPAWN_BORN,    /* it could not tell the keeper */
        SPAWN_SESSION,
        SPAWN_CGROUP, /* what needs privilege comes before the user */
        SPAWN_LIMITS,
        SPAWN_NICE,
        SPAWN_IOPRIO,
        SPAWN_OOM,
        SPAWN_GROUPS,
        SPAWN_GROUP,
        SPAWN_USER,
        SPAWN_CWD,
        SPAWN_PDEATHSIG,
        SPAWN_KEEPER, /* the keeper is gone */
        SPAWN_STDIO,
        SPAWN_TERMINAL, /* it did not become that of the session: it is none, or another's */
        SPAWN_EXEC,
        _SPAWN_STEP_N,
} SpawnStep;

typedef struct SpawnResult {
        SpawnStep step; /* that failed; SPAWN_NONE: none */
        int error;      /* errno of it, 0: none */
        unsigned item;  /* SPAWN_LIMITS: which of the limits; n_limits: nofile */
        bool born;      /* BORN is in the keeper's socket: STARTED is to be sent, and an EXIT comes; else CANCEL */
        pid_t pid;      /* 0: there never was a process */
        int pidfd; /* after success, the caller's; -1 where only pidfd_open() was possible and it is gone already */
} SpawnResult;

/*
 * spawn_reserve() - at the start of a supervisor, before anything else is opened: fills what is free of 3-15 with
 * /dev/null and makes all of it CLOEXEC. Gives real-time signals that were ignored back to their defaults. Until the
 * process ends these numbers are not closed but replaced. Returns 0 or a negative errno; -EBUSY: something is open there
 * besides the three fixed ones.
 */
int spawn_reserve(void);

/*
 * spawn() - starts a process and returns when it was executed or has failed. @ret_result is always written. After a
 * failure with `born' the process exists as far as the keeper is concerned: its EXIT comes and is to be acknowledged.
 * -ECANCELED at SPAWN_BORN: it was killed at once, as the keeper does with one whose reservation it refused.
 * Returns 0, or -ret_result->error.
 */
int spawn(const SpawnParameters *parameters, SpawnResult *ret_result);

/* spawn_step_name() - "clone", "exec", ... */
const char *spawn_step_name(SpawnStep step);

/* spawn_describe() - the failure as text: `exec(/bin/x): No such file or directory'. Returns @text. */
const char *spawn_describe(const SpawnParameters *parameters, const SpawnResult *result, char *text, size_t size);

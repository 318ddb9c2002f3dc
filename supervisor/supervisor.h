#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervisor: its loop, its link to the keeper, the table of runners, and the way down. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "common/loop.h"
#include "supervisor/events.h"
#include "supervisor/keeper-link.h"
#include "supervisor/instance.h"
#include "supervisor/listener.h"

typedef struct Control Control;
typedef struct Daemon Daemon;

enum {
        SUPERVISOR_ENDED_MAX = 16, /* ended runners that are remembered; the oldest is forgotten first */
};

TAILQ_HEAD(InstanceQueue, Instance);

typedef struct SupervisorSignal {
        LoopSignal watcher;
        Supervisor *supervisor;
} SupervisorSignal;

typedef struct SupervisorOptions {
        uint32_t generation;         /* from 1 */
        uint64_t stop_timeout_us;    /* for stopping everything */
        const struct rlimit *nofile; /* what runners get back; NULL: as it is */
        int keeper_fd_consume;       /* our end of the keeper's socket */
        int private_fd_consume;      /* the lane of the one client, or -1 */

        /* Of a daemon; absolute paths, in directories that the keeper has made; NULL where there is a private client. */
        const char *runtime_dir; /* `boot/' in it is ours alone */
        const char *state_dir, *log_dir;
        const char *socket;         /* the control socket's, for messages; its listener comes from the keeper */
        const char *const *configs; /* files and directories from the command line, ended by NULL; may be none */
} SupervisorOptions;

struct Supervisor {
        Loop *loop;
        KeeperLink *link;
        Daemon *daemon; /* the beginning */
        Events *events; /* what happened */
        LogStore *logs; /* what all runners' logs share */
        uint32_t generation, last_n;
        uint64_t stop_timeout_us;
        bool has_nofile;
        struct rlimit nofile;
        char *boot_template; /* where bootstrap directories are made */

        Instance *by_name, *by_id;     /* uthash; every runner that is not ended is in both */
        size_t n_live;                 /* those that are not gone */
        struct InstanceQueue to_spawn; /* prepared; each waits until the link is idle */
        struct InstanceQueue ended;    /* in by_name only; oldest first */
        size_t n_ended;
        LoopTask spawn;

        Control *control;   /* the private client; NULL: gone */
        Listener *listener; /* of the control socket; NULL: none */
        SupervisorSignal signals[3];
        bool stopping;
        LoopTask down;    /* look whether everything is gone */
        bool told_keeper; /* SHUTDOWN is sent */
        int exit_status;
};

/* supervisor_new() - takes the descriptors, on every path. 0 or a negative errno. */
int supervisor_new(Supervisor **ret_supervisor, const SupervisorOptions *options);

/* supervisor_free() - closes everything without a word. Accepts NULL, returns NULL. */
Supervisor *supervisor_free(Supervisor *supervisor);
DEFINE_CLEANUP(Supervisor *, supervisor_free);

/* supervisor_run() - serves until the end. Returns the exit status. */
int supervisor_run(Supervisor *supervisor);

/* supervisor_stop() - stops all runners, then tells the keeper and ends the loop. @why is for the log. */
void supervisor_stop(Supervisor *supervisor, const char *why);

/* supervisor_find() - the runner of that name, ended ones included, or NULL. */
Instance *supervisor_find(const Supervisor *supervisor, const char *name);

/* supervisor_find_instance() - one that is not ended, or NULL. */
Instance *supervisor_find_instance(const Supervisor *supervisor, uint64_t id);

/*
 * supervisor_start() - makes a runner from @spec (taken, on every path) and starts it. An empty name is made from the
 * program's. @started as instance_start(). 0; -EEXIST: a runner of that name is there; -ESHUTDOWN: we are stopping; -ENOMEM.
 */
int supervisor_start(Supervisor *supervisor, InstanceSpec *spec, InstanceStarted started, void *userdata,
                     Instance **ret_instance);

/* supervisor_queue_spawn() - instance_spawn() when all that was sent to the keeper is in the kernel. */
void supervisor_queue_spawn(Supervisor *supervisor, Instance *instance);
/* supervisor_unqueue_spawn() - not any more; does nothing if it is not queued. */
void supervisor_unqueue_spawn(Supervisor *supervisor, Instance *instance);

/* supervisor_runner_gone() - nothing of it is left. It is remembered as ended, or, if not @remember, freed. */
void supervisor_runner_gone(Supervisor *supervisor, Instance *instance, bool remember);

/* supervisor_name_is_valid() - 1-63 characters: letters, digits and . _ - @ */
bool supervisor_name_is_valid(const char *name);

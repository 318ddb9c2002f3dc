#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervisor: its loop, its link to the keeper, the table of runners, and the way down. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "common/loop.h"
#include "supervisor/crossing.h"
#include "supervisor/events.h"
#include "supervisor/fleet.h"
#include "supervisor/group.h"
#include "supervisor/hooks.h"
#include "supervisor/instance.h"
#include "supervisor/keeper-link.h"
#include "supervisor/leftovers.h"
#include "supervisor/listener.h"
#include "supervisor/precopy.h"
#include "supervisor/scaled.h"
#include "supervisor/schedule.h"
#include "supervisor/takeovers.h"
#include "supervisor/transient.h"

typedef struct Chronicle Chronicle;
typedef struct Control Control;
typedef struct Daemon Daemon;
typedef struct Holder Holder;
typedef struct KeeperReplacement KeeperReplacement;
typedef struct Successor Successor;
typedef struct Takeover Takeover;
typedef struct Metrics Metrics;

TAILQ_HEAD(InstanceQueue, Instance);
TAILQ_HEAD(RunnerQueue, Runner);

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
        int handover_fd_consume;     /* of a successor: its end of the pair to its predecessor; else -1 */

        /* Of a daemon; absolute paths, in directories that the keeper has made; NULL where there is a private client. */
        const char *runtime_dir; /* `boot/' in it is ours alone */
        const char *state_dir, *log_dir;
        const char *socket;         /* the control socket's, for messages; its listener comes from the keeper */
        const char *const *configs; /* files and directories from the command line, ended by NULL; may be none */
} SupervisorOptions;

struct Supervisor {
        Loop *loop;
        KeeperLink *link;
        Daemon *daemon;             /* the beginning */
        Events *events;             /* what happened */
        LogStore *logs;             /* what all runners' logs share */
        Holder *holder;             /* descriptors that outlive their instances */
        struct CgroupTree *cgroups; /* NULL: none was needed */
        bool followed; /* by another supervisor, should this one die: what that must know is with the keeper */
        uint32_t generation, last_n;
        uint64_t stop_timeout_us;
        bool has_nofile;
        struct rlimit nofile;
        char *boot_template; /* where bootstrap directories are made */

        Runner *runners;               /* uthash, by name: all but hidden ones */
        struct RunnerQueue raised;     /* those that have something to handle */
        LoopTask policy;               /* handles them */
        Instance *instances;           /* uthash, by id: those that are not over */
        struct InstanceQueue to_begin; /* nothing is made of them yet: not too many are prepared at once */
        struct InstanceQueue to_spawn; /* prepared; each waits until the link is idle */
        unsigned n_to_spawn;
        unsigned n_spawned; /* since the pages of starting were last given back */
        bool held;          /* no more processes are prepared: see supervisor_rest() */
        LoopTask spawn;

        Config *config;      /* the one that holds; NULL: none */
        char **config_paths; /* what it was made from, to be read again; NULL: nothing */
        RolePolicy role_policy;
        struct GroupList groups;
        struct ScaledList scaled;
        Schedules *schedules;
        Hooks *hooks;
        Transients transients;
        Leftovers leftovers;

        LIST_HEAD(, Relay) relays;      /* supervised calls, of all instances */
        struct CrossingList crossings;  /* calls that wait, and may cross to a successor */
        KeeperReplacement *replacement; /* of the keeper; NULL: none is under way */
        struct Unknown *unknown; /* what a later version has written down, and is to be given on; NULL: nothing */
        Precopy precopy;         /* what a successor has to be given, or given again */
        Takeover *takeover;      /* by a successor of ours; NULL: none is under way */
        Successor *successor;    /* what we are until we serve; NULL: we have no predecessor */
        Successor *retired;      /* the same afterwards, while there is something of it left to be freed */
        Takeovers *takeovers;    /* their history */
        Chronicle *chronicle;    /* that of runners */

        Control *control;       /* the private client; NULL: gone */
        Listener *listener;     /* of the control socket; NULL: none */
        uint32_t last_client;   /* the number of the latest */
        Metrics *metrics;       /* NULL: nobody may read them but by the control socket */
        uint64_t started_us;    /* monotonic */
        uint64_t configured_us; /* wall clock, when the configuration was loaded; 0: there is none */
        SupervisorSignal signals[3];
        bool begun;      /* what the supervisor before has left is taken care of, and the configuration loaded */
        bool stop_early; /* a stop was asked for before that: what is not known yet could not be stopped */
        bool stopping;
        uint64_t stop_deadline; /* when that must be over; what is left of the time is for the keeper */
        LoopTimer last_call;    /* for what is not by then */
        LoopTask down;          /* look whether everything is gone */
        bool told_keeper;       /* SHUTDOWN is sent */
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

/* ---- for runners and instances ---- */

/* supervisor_find_instance() - one that is not over, or NULL. */
Instance *supervisor_find_instance(const Supervisor *supervisor, uint64_t id);

/* supervisor_next_id() - of an instance: never used before. */
uint64_t supervisor_next_id(Supervisor *supervisor);
/* supervisor_add_instance() - it is found by its id, until supervisor_instance_gone(). 0 or -ENOMEM. */
int supervisor_add_instance(Supervisor *supervisor, Instance *instance);
void supervisor_instance_gone(Supervisor *supervisor, Instance *instance);

/* supervisor_queue_begin() - instance_start() when its turn comes. supervisor_begin_now() - now, if it waits for its turn. */
void supervisor_queue_begin(Supervisor *supervisor, Instance *instance);
void supervisor_begin_now(Supervisor *supervisor, Instance *instance);

/* supervisor_queue_spawn() - instance_spawn() when all that was sent to the keeper is in the kernel. */
void supervisor_queue_spawn(Supervisor *supervisor, Instance *instance);
/* supervisor_unqueue_spawn() - not any more; does nothing if it is not queued. */
void supervisor_unqueue_spawn(Supervisor *supervisor, Instance *instance);

/*
 * supervisor_rest() - what needs no more than the keeper's immediate answer is brought to its end, so that everything can be
 * written down: nothing is raised and not handled, nothing reserved without a process, nothing asked of the keeper. From
 * outside of every callback but a timer's or a task's. From then on instances wait for their turn, until
 * supervisor_release(), or supervisor_go_on(), after which there may be another supervisor_rest(). 0; -EAGAIN: not in a moment:
 * try again when the loop has turned; -EPIPE: the keeper is gone.
 */
int supervisor_rest(Supervisor *supervisor);
void supervisor_go_on(Supervisor *supervisor);
void supervisor_release(Supervisor *supervisor);

/* supervisor_queue_runner() - runner_handle() in this turn of the loop. */
void supervisor_queue_runner(Supervisor *supervisor, Runner *runner);
void supervisor_unqueue_runner(Supervisor *supervisor, Runner *runner);

/* supervisor_bound() - how much of @timeout_us a stop may take: less while everything is being stopped. */
uint64_t supervisor_bound(const Supervisor *supervisor, uint64_t timeout_us);

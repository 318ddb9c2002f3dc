#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One instance of a runner, from the wish to start it until its exit has taken effect and everything of it is gone: its
 * process, its way in, its peer, its output. Kept for a while after that, for what it said last.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "proto/peer.h"
#include "supervisor/bootstrap.h"
#include "supervisor/exit-status.h"
#include "supervisor/runner-log.h"
#include "supervisor/process.h"

typedef struct Relay Relay;
typedef struct Instance Instance;
typedef struct InstanceDrop InstanceDrop;
typedef struct InstanceSpec InstanceSpec;
typedef struct InstanceWatcher InstanceWatcher;
typedef struct Supervisor Supervisor;

enum {
        INSTANCE_NAME_SIZE = 64,
        INSTANCE_FAILURE_SIZE = 512,
        INSTANCE_EVENTS_MAX = 8,
        INSTANCE_LAST_LINES = 10, /* in messages about its end */
        INSTANCE_LAST_BYTES = 4096,
};

#define INSTANCE_START_TIMEOUT_US (10 * USEC_PER_SEC)
#define INSTANCE_STOP_TIMEOUT_US  (10 * USEC_PER_SEC)

/* Why a start failed; the numbers of baton.control.StartFailure.Reason. */
typedef enum InstanceFailure {
        INSTANCE_FAILURE_NONE,
        INSTANCE_FAILURE_NOT_FOUND,
        INSTANCE_FAILURE_NOT_EXECUTABLE,
        INSTANCE_FAILURE_WRONG_FORMAT,
        INSTANCE_FAILURE_EXITED_EARLY,
        INSTANCE_FAILURE_DID_NOT_CONNECT,
        INSTANCE_FAILURE_SYSTEM,
        _RUNNER_FAILURE_N,
} InstanceFailure;

/* The step of a stop; each has a time-out, after which the next follows. */
typedef enum InstanceStop {
        INSTANCE_STOP_NONE,
        INSTANCE_STOP_ASKED,      /* baton.Runner/Stop, then Exit */
        INSTANCE_STOP_LEAVING,    /* it has agreed, or closed its lane: it will exit by itself */
        INSTANCE_STOP_TERMINATED, /* SIGTERM */
        INSTANCE_STOP_KILLED,     /* SIGKILL */
        _RUNNER_STOP_N,
} InstanceStop;

/* What to start. Strings and arrays are owned. */
struct InstanceSpec {
        char name[INSTANCE_NAME_SIZE];
        bool native; /* speaks the runner protocol */
        char *program;
        char **argv;        /* with the program's name; ended by NULL */
        char **environment; /* the whole of it; ended by NULL */
        char *directory;    /* NULL: the supervisor's */
        uint64_t start_timeout_us, stop_timeout_us;
        uint32_t max_attached; /* clients at once */
        PeerLimits limits;     /* of what we accept from it */
        bool park_output;      /* rather than lines that a follower has not been given being dropped */
};

/* Somebody who waits for a runner's end. A watcher is taken off the list before it is called. */
struct InstanceWatcher {
        LIST_ENTRY(InstanceWatcher) link;
        Instance *instance; /* NULL: not waiting */
        void (*callback)(InstanceWatcher *watcher, Instance *instance);
};
LIST_HEAD(InstanceWatchers, InstanceWatcher);

/* @failure: INSTANCE_FAILURE_NONE when it is up; else runner->failure_text says why, and @instance goes after the call. */
typedef void (*InstanceStarted)(Instance *instance, InstanceFailure failure, void *userdata);

struct Instance {
        UT_hash_handle by_name, by_id;
        TAILQ_ENTRY(Instance) link; /* in one of the supervisor's queues: to be spawned, or ended */
        bool queued;
        Supervisor *supervisor;
        InstanceSpec spec;
        uint64_t id;

        ProcessState state;
        ProcessEvent events[INSTANCE_EVENTS_MAX]; /* raised and not handled */
        unsigned n_events;
        bool handling;

        pid_t pid;     /* 0: no process */
        int pidfd;     /* -1: none */
        bool reserved; /* the keeper has a slot, and nobody has been put into it */
        bool refused;  /* the keeper had no slot: no exit will be reported */
        bool born;     /* an exit will be reported, and is to be acknowledged */

        Bootstrap bootstrap;
        Peer *peer;                /* NULL: a plain runner, or the peer has ended */
        Peer *ended_peer;          /* the one that has, while relays still have items of it; else NULL */
        int lane;                  /* our duplicate, the one watched; -1: none */
        int output_fds[LOG_PIPES]; /* write ends, until the runner has them */
        unsigned stored;           /* bits of InstanceStored: duplicates in the keeper */
        RunnerLog *log;
        LogInput input;

        InstanceStop stop;
        uint64_t stop_deadline;
        uint64_t event;  /* id of the last life-cycle event */
        Call *asking;    /* our call of Stop or Exit */
        bool killed;     /* it took SIGKILL */
        LoopTimer timer; /* of the start, of a step of the stop, of what the peer still has to read */

        bool ended; /* exit is known, or there never was a process */
        ExitStatus exit;
        char lost[INSTANCE_FAILURE_SIZE]; /* why the peer ended; "": it has not */
        bool broke_rules;                 /* it did not just go: the peer ended for what it sent, or for silence */
        InstanceFailure failure;
        char failure_text[INSTANCE_FAILURE_SIZE]; /* "at exec(/bin/nope): No such file or directory" */

        LIST_HEAD(, Relay) relays;
        LIST_HEAD(, InstanceDrop) drops; /* stored descriptors on their way out */
        LoopTask gone;                   /* everything is gone: tell */
        bool is_gone, over;              /* the task is queued; it has run */
        InstanceStarted started;         /* NULL: told */
        void *started_userdata;
        struct InstanceWatchers on_exit; /* the exit is known and the output was read */
        struct InstanceWatchers on_gone; /* no descriptor and no process is left */
};

/* instance_spec_deinit() - frees what is owned. */
void instance_spec_deinit(InstanceSpec *spec);

/*
 * instance_new() - not started yet, in no table. Takes @spec (left empty), also on failure. 0 or -ENOMEM.
 */
int instance_new(Instance **ret_instance, Supervisor *supervisor, InstanceSpec *spec, uint64_t id);

/* instance_free() - in no table and no queue any more. Accepts NULL, returns NULL. */
Instance *instance_free(Instance *instance);
DEFINE_CLEANUP(Instance *, instance_free);

/* instance_start() - @started is called once, later: when it is up, or has failed and nothing of it is left. */
void instance_start(Instance *instance, InstanceStarted started, void *userdata);

/* instance_spawn() - everything prepared is in the kernel: makes the process. Called by the supervisor's queue. */
void instance_spawn(Instance *instance);

/* instance_stop() - in at most @timeout_us (0: what its specification says). Wait for the end with instance_watch_gone(). */
void instance_stop(Instance *instance, uint64_t timeout_us);

/* instance_exited() - the keeper's report. Effective once. */
void instance_exited(Instance *instance, ExitStatus exit);

/* instance_watch_exit(), instance_watch_gone() - calls back once. False: that has been already, and nothing will come. */
bool instance_watch_exit(Instance *instance, InstanceWatcher *watcher);
bool instance_watch_gone(Instance *instance, InstanceWatcher *watcher);
/* instance_unwatch() - does nothing for one that does not wait. */
void instance_unwatch(InstanceWatcher *watcher);

/* instance_is_live() - whether it has, or is about to have, a process. */
static inline bool instance_is_live(const Instance *instance) {
        return instance->state != PROCESS_DOWN;
}

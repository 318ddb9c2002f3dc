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
#include "supervisor/output.h"
#include "supervisor/process.h"

typedef struct Relay Relay;
typedef struct Runner Runner;
typedef struct RunnerDrop RunnerDrop;
typedef struct RunnerSpec RunnerSpec;
typedef struct RunnerWatcher RunnerWatcher;
typedef struct Supervisor Supervisor;

enum {
        RUNNER_NAME_SIZE = 64,
        RUNNER_FAILURE_SIZE = 512,
        RUNNER_EVENTS_MAX = 8,
        RUNNER_LAST_LINES = 10, /* in messages about its end */
        RUNNER_LAST_BYTES = 4096,
};

#define RUNNER_START_TIMEOUT_US (10 * USEC_PER_SEC)
#define RUNNER_STOP_TIMEOUT_US  (10 * USEC_PER_SEC)

/* Why a start failed; the numbers of baton.control.StartFailure.Reason. */
typedef enum RunnerFailure {
        RUNNER_FAILURE_NONE,
        RUNNER_FAILURE_NOT_FOUND,
        RUNNER_FAILURE_NOT_EXECUTABLE,
        RUNNER_FAILURE_WRONG_FORMAT,
        RUNNER_FAILURE_EXITED_EARLY,
        RUNNER_FAILURE_DID_NOT_CONNECT,
        RUNNER_FAILURE_SYSTEM,
        _RUNNER_FAILURE_N,
} RunnerFailure;

/* The step of a stop; each has a time-out, after which the next follows. */
typedef enum RunnerStop {
        RUNNER_STOP_NONE,
        RUNNER_STOP_ASKED,      /* baton.Runner/Stop, then Exit */
        RUNNER_STOP_LEAVING,    /* it has agreed, or closed its lane: it will exit by itself */
        RUNNER_STOP_TERMINATED, /* SIGTERM */
        RUNNER_STOP_KILLED,     /* SIGKILL */
        _RUNNER_STOP_N,
} RunnerStop;

/* What to start. Strings and arrays are owned. */
struct RunnerSpec {
        char name[RUNNER_NAME_SIZE];
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
struct RunnerWatcher {
        LIST_ENTRY(RunnerWatcher) link;
        Runner *runner; /* NULL: not waiting */
        void (*callback)(RunnerWatcher *watcher, Runner *runner);
};
LIST_HEAD(RunnerWatchers, RunnerWatcher);

/* @failure: RUNNER_FAILURE_NONE when it is up; else runner->failure_text says why, and @runner goes after the call. */
typedef void (*RunnerStarted)(Runner *runner, RunnerFailure failure, void *userdata);

struct Runner {
        UT_hash_handle by_name, by_instance;
        TAILQ_ENTRY(Runner) link; /* in one of the supervisor's queues: to be spawned, or ended */
        bool queued;
        Supervisor *supervisor;
        RunnerSpec spec;
        uint64_t instance;

        ProcessState state;
        ProcessEvent events[RUNNER_EVENTS_MAX]; /* raised and not handled */
        unsigned n_events;
        bool handling;

        pid_t pid;     /* 0: no process */
        int pidfd;     /* -1: none */
        bool reserved; /* the keeper has a slot, and nobody has been put into it */
        bool refused;  /* the keeper had no slot: no exit will be reported */
        bool born;     /* an exit will be reported, and is to be acknowledged */

        Bootstrap bootstrap;
        Peer *peer;                   /* NULL: a plain runner, or the peer has ended */
        Peer *ended_peer;             /* the one that has, while relays still have items of it; else NULL */
        int lane;                     /* our duplicate, the one watched; -1: none */
        int output_fds[OUTPUT_PIPES]; /* write ends, until the runner has them */
        unsigned stored;              /* bits of RunnerStored: duplicates in the keeper */
        Output output;

        RunnerStop stop;
        uint64_t stop_deadline;
        uint64_t event;  /* id of the last life-cycle event */
        Call *asking;    /* our call of Stop or Exit */
        bool killed;     /* it took SIGKILL */
        LoopTimer timer; /* of the start, of a step of the stop, of what the peer still has to read */

        bool ended; /* exit is known, or there never was a process */
        ExitStatus exit;
        char lost[RUNNER_FAILURE_SIZE]; /* why the peer ended; "": it has not */
        bool broke_rules;               /* it did not just go: the peer ended for what it sent, or for silence */
        RunnerFailure failure;
        char failure_text[RUNNER_FAILURE_SIZE]; /* "at exec(/bin/nope): No such file or directory" */

        LIST_HEAD(, Relay) relays;
        LIST_HEAD(, RunnerDrop) drops; /* stored descriptors on their way out */
        LoopTask gone;                 /* everything is gone: tell */
        bool is_gone, over;            /* the task is queued; it has run */
        RunnerStarted started;         /* NULL: told */
        void *started_userdata;
        struct RunnerWatchers on_exit; /* the exit is known and the output was read */
        struct RunnerWatchers on_gone; /* no descriptor and no process is left */
};

/* runner_spec_deinit() - frees what is owned. */
void runner_spec_deinit(RunnerSpec *spec);

/*
 * runner_new() - not started yet, in no table. Takes @spec (left empty), also on failure. 0 or -ENOMEM.
 */
int runner_new(Runner **ret_runner, Supervisor *supervisor, RunnerSpec *spec, uint64_t instance);

/* runner_free() - in no table and no queue any more. Accepts NULL, returns NULL. */
Runner *runner_free(Runner *runner);
DEFINE_CLEANUP(Runner *, runner_free);

/* runner_start() - @started is called once, later: when it is up, or has failed and nothing of it is left. */
void runner_start(Runner *runner, RunnerStarted started, void *userdata);

/* runner_spawn() - everything prepared is in the kernel: makes the process. Called by the supervisor's queue. */
void runner_spawn(Runner *runner);

/* runner_stop() - in at most @timeout_us (0: what its specification says). Wait for the end with runner_watch_gone(). */
void runner_stop(Runner *runner, uint64_t timeout_us);

/* runner_exited() - the keeper's report. Effective once. */
void runner_exited(Runner *runner, ExitStatus exit);

/* runner_watch_exit(), runner_watch_gone() - calls back once. False: that has been already, and nothing will come. */
bool runner_watch_exit(Runner *runner, RunnerWatcher *watcher);
bool runner_watch_gone(Runner *runner, RunnerWatcher *watcher);
/* runner_unwatch() - does nothing for one that does not wait. */
void runner_unwatch(RunnerWatcher *watcher);

/* runner_is_live() - whether it has, or is about to have, a process. */
static inline bool runner_is_live(const Runner *runner) {
        return runner->state != PROCESS_DOWN;
}

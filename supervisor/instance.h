#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One instance of a runner, from the wish to start it until its exit has taken effect and everything of it is gone: its
 * process, its way in, its peer, its output. The runner keeps the last one until the next, for what it said last.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "proto/manifest.h"
#include "proto/peer.h"
#include "supervisor/board.h"
#include "supervisor/bootstrap.h"
#include "supervisor/config.h"
#include "supervisor/exit-status.h"
#include "supervisor/runner-log.h"
#include "supervisor/precopy.h"
#include "supervisor/process.h"
#include "supervisor/runner.h"

typedef struct Give Give;
typedef struct Notify Notify;
typedef struct Recovered Recovered;
typedef struct Relay Relay;
typedef struct Renewal Renewal;
typedef struct Service Service;
typedef struct InstanceDrop InstanceDrop;
typedef struct InstanceMain InstanceMain;
typedef struct InstanceWatcher InstanceWatcher;

enum {
        INSTANCE_NAME_SIZE = CONFIG_NAME_MAX + 1,
        INSTANCE_FAILURE_SIZE = 512, /* of a reason, where one has to be cut */
        INSTANCE_EVENTS_MAX = 8,
        INSTANCE_LAST_LINES = 10, /* in messages about its end */
        INSTANCE_LAST_BYTES = 4096,
};

/* Why a start failed; the numbers of baton.control.StartFailure.Reason. */
typedef enum InstanceFailure {
        INSTANCE_FAILURE_NONE,
        INSTANCE_FAILURE_NOT_FOUND,
        INSTANCE_FAILURE_NOT_EXECUTABLE,
        INSTANCE_FAILURE_WRONG_FORMAT,
        INSTANCE_FAILURE_EXITED_EARLY,
        INSTANCE_FAILURE_DID_NOT_CONNECT,
        INSTANCE_FAILURE_SYSTEM,
        _INSTANCE_FAILURE_N,
} InstanceFailure;

/* The step of a stop; each has a time-out, after which the next follows. */
typedef enum InstanceStop {
        INSTANCE_STOP_NONE,
        INSTANCE_STOP_ASKED,      /* its service, to be STOPPED */
        INSTANCE_STOP_LEAVING,    /* it has agreed, or closed its lane: it will exit by itself */
        INSTANCE_STOP_TERMINATED, /* its stop signal, SIGTERM mostly */
        INSTANCE_STOP_KILLED,     /* SIGKILL */
        _INSTANCE_STOP_N,
} InstanceStop;

/* Somebody who waits for a runner's end. A watcher is taken off the list before it is called. */
struct InstanceWatcher {
        LIST_ENTRY(InstanceWatcher) link;
        Instance *instance; /* NULL: not waiting */
        void (*callback)(InstanceWatcher *watcher, Instance *instance);
};
LIST_HEAD(InstanceWatchers, InstanceWatcher);

struct Instance {
        UT_hash_handle by_id;
        TAILQ_ENTRY(Instance) link; /* in the supervisor's queue of those to be spawned */
        Supervisor *supervisor;
        Runner *runner;
        RunnerConfig *config; /* what it was started with; a reference */
        uint64_t id;

        ProcessState state : 8;
        InstanceStop stop : 8;
        RunnerCause cause : 8;               /* of its end, as far as is known */
        InstanceFailure failure : 8;         /* of its start */
        uint8_t events[INSTANCE_EVENTS_MAX]; /* ProcessEvents, raised and not handled */
        uint8_t stored;                      /* bits of InstanceStored: duplicates in the keeper */
        bool handling : 1;
        bool waiting : 1;     /* for its turn to begin */
        bool queued : 1;      /* to be spawned */
        bool reserved : 1;    /* the keeper has a slot, and nobody has been put into it */
        bool refused : 1;     /* the keeper had no slot: no exit will be reported */
        bool born : 1;        /* an exit will be reported, and is to be acknowledged */
        bool was_up : 1;      /* it was ready once */
        bool killed : 1;      /* it took SIGKILL */
        bool broke_rules : 1; /* it did not just go: the peer ended for what it sent, or for silence */
        bool ended : 1;       /* exit is known, or there never was a process */
        bool is_gone : 1;     /* the task `gone' is queued */
        bool over : 1;        /* it has run: nothing is left */
        bool saves : 1;       /* native: it can be upgraded, and checkpointed */
        bool is_past : 1;     /* it has a successor that serves, and finishes what it has begun */
        bool resume : 1;      /* adopted in the middle of an upgrade: its service is to be RUNNING */
        bool reloading : 1;   /* it says so, and is not READY again */
        bool leaving : 1;     /* STOPPING: it says that it ends */
        bool stale : 1;       /* adopted: it was started with another configuration than its runner has */
        bool recovers : 1;    /* it goes on from a checkpoint */
        bool broken_off : 1;  /* it was killed since nobody could go on with it, not since it was to stop */
        uint8_t n_events : 4;
        ExitStatus exit;

        pid_t pid;                 /* 0: no process */
        pid_t last_pid;            /* the same, and kept after its end */
        pid_t main_pid;            /* MAINPID, of another process that is its; 0: none */
        int said_errno;            /* ERRNO, what it says that went wrong; 0: nothing */
        int pidfd;                 /* -1: none */
        int lane;                  /* our duplicate, the one watched; -1: none */
        int output_fds[LOG_PIPES]; /* write ends, until the runner has them */
        int program_fd;            /* executed in place of the file at its path; -1: that one */
        int ready_fd;              /* write end for readiness, until the runner has it; -1: none */

        Bootstrap *bootstrap;          /* the way in of a native one; NULL: not a native one, or it is in */
        InstanceMain *main;            /* another process that it has named as its main one; NULL: none */
        Notify *notify;                /* how another one says that it is ready; NULL: it does not */
        Precopied copied;              /* of the peer */
        Peer *peer;                    /* NULL: a plain runner, or the peer has ended */
        Peer *ended_peer;              /* the one that has, while relays still have items of it; else NULL */
        Call *asking;                  /* our call of Ping */
        Service *service;              /* the events of its service that are being sent; NULL: none */
        Give *give;                    /* a checkpoint that it is being given; NULL: none */
        LIST_HEAD(, Renewal) renewals; /* lanes of clients that it was offered */
        LogInput input;

        uint64_t started_us, started_wall_us; /* when it was made, by the two clocks; 0: not yet */
        uint64_t ended_us;                    /* monotonic */
        uint64_t alive_us;                    /* monotonic, of its last sign of life, where it is watched */
        uint64_t watchdog_us;                 /* it has to give one so often; 0: it is not watched */
        uint64_t extended_us;                 /* monotonic: until then it has asked to be given time; 0: it has not */
        uint64_t reloading_us;                /* monotonic, since when it is reloading */
        uint64_t stop_deadline;
        uint64_t event;   /* id of the last life-cycle event */
        uint64_t program; /* stamp of what it was started from, see program.h; 0: not known */
        Instance *past;   /* the next of its runner's past ones */
        LoopTimer timer;  /* of the start, of signs of life, of a step of the stop, of what the peer has to read */

        char *lost;         /* why the peer ended; NULL: it has not */
        char *failure_text; /* "at exec(/bin/nope): No such file or directory"; NULL: the start has not failed */

        LIST_HEAD(, Relay) relays;
        LIST_HEAD(, InstanceDrop) drops; /* stored descriptors on their way out */
        LoopTask gone;                   /* everything is gone: tell */
        struct InstanceWatchers on_exit; /* the exit is known and the output was read */
};

/* instance_new() - of @runner, with its present configuration; not started yet, in no table. 0 or -ENOMEM. */
int instance_new(Instance **ret_instance, Runner *runner, uint64_t id);

/* instance_free() - in no table and no queue any more. Accepts NULL, returns NULL. */
Instance *instance_free(Instance *instance);
DEFINE_CLEANUP(Instance *, instance_free);

/*
 * instance_adopt() - what a supervisor before this one has left of an instance of @runner, which has none: with all that
 * belongs to it, or, where some of that is missing, to be killed. It is the runner's from now on. Returns 1: it goes on; 0:
 * its end will be reported, and then it is started over; -ENOMEM: nothing was done.
 */
int instance_adopt(Runner *runner, Recovered *slot);

/*
 * instance_restore_peer_again() - of one that was adopted with the peer of its predecessor: there is a later state of that.
 * 0, or as peer_restore(): it has no peer then.
 */
int instance_restore_peer_again(Instance *instance, const char *prefix, Manifest *manifest);

/* instance_recall() - one that was adopted: what it has said of itself, to a supervisor before this one. */
void instance_recall(Instance *instance, const BoardEntry *entry);
/* instance_adopt_past() - the same of one that has a successor: it is told to leave when it has finished. 0 or -ENOMEM. */
int instance_adopt_past(Runner *runner, Recovered *slot);

/* instance_start() - its runner hears what comes of it: runner_instance_ready(), runner_instance_over(). */
void instance_start(Instance *instance);

/* instance_spawn() - everything prepared is in the kernel: makes the process. Called by the supervisor's queue. */
void instance_spawn(Instance *instance);

/* instance_stop() - in at most @timeout_us (0: what its configuration says). */
void instance_stop(Instance *instance, uint64_t timeout_us);

/* instance_exited() - the keeper's report. Effective once. */
void instance_exited(Instance *instance, ExitStatus exit);

/* instance_watch_exit() - calls back once. False: that has been already, and nothing will come. */
bool instance_watch_exit(Instance *instance, InstanceWatcher *watcher);
/* instance_unwatch() - does nothing for one that does not wait. */
void instance_unwatch(InstanceWatcher *watcher);

/* instance_is_present() - whether it is the one of its runner that serves, or did; else a successor, or one of the past. */
static inline bool instance_is_present(const Instance *instance) {
        return instance->runner->instance == instance;
}

/* instance_is_live() - whether it has, or is about to have, a process. */
static inline bool instance_is_live(const Instance *instance) {
        return instance->state != PROCESS_DOWN;
}

/* instance_text() - of why its start failed, or why its peer ended: never NULL. */
static inline const char *instance_text(const char *text) {
        return text ? text : "";
}

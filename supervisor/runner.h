#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner: the named thing that is supervised, from the configuration or from a client's Start until it is removed. It has a
 * policy (policy.h), and one instance that serves or is to; an upgrade makes another one, and leaves one to finish
 * (upgrade.h). What is wanted, what is being done about it, and what the process is at, are three variables. It outlives
 * its instances, and so does its log.
 *
 * Everything that is done to it is asked here and happens later, in the loop; who wants to know what came of it watches it.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "common/loop.h"
#include "supervisor/exit-status.h"
#include "supervisor/keeper-link.h"
#include "supervisor/policy.h"
#include "supervisor/precopy.h"
#include "supervisor/process.h"
#include "supervisor/runner-log.h"

typedef struct Checkpoint Checkpoint;
typedef struct Group Group;
typedef struct Instance Instance;
typedef struct Runner Runner;
typedef struct RunnerConfig RunnerConfig;
typedef struct RunnerExit RunnerExit;
typedef struct RunnerWatcher RunnerWatcher;
typedef struct Supervisor Supervisor;
typedef struct Upgrade Upgrade;
typedef struct UpgradeHistory UpgradeHistory;

enum { RUNNER_EXITS_MAX = 16 /* ends that are remembered */ };

/* What ended an instance. */
typedef enum RunnerCause {
        RUNNER_CAUSE_ITSELF,        /* it exited, or a signal that was not ours killed it */
        RUNNER_CAUSE_STOPPED,       /* it was asked to stop, and did in time */
        RUNNER_CAUSE_KILLED,        /* it was asked to stop, did not in time, and was killed */
        RUNNER_CAUSE_START_FAILED,  /* there was no process, or it could not execute its program */
        RUNNER_CAUSE_START_TIMEOUT, /* it was not ready in time, and was killed */
        RUNNER_CAUSE_WATCHDOG,      /* it gave no sign of life in time, and was killed */
        RUNNER_CAUSE_DISCONNECTED,  /* a native one whose connection ended, and which did not leave by itself */
        RUNNER_CAUSE_OUT_OF_MEMORY, /* the kernel killed it: its memory cgroup counted it */
        RUNNER_CAUSE_LOST,          /* nobody saw its end */
        _RUNNER_CAUSE_N,
} RunnerCause;

/* One end, kept for status. */
struct RunnerExit {
        uint64_t instance;
        uint64_t started_us, ended_us; /* wall clock */
        uint64_t uptime_us;            /* monotonic */
        int32_t pid;                   /* 0: there was no process */
        RunnerCause cause;
        bool success;    /* by the configuration of then */
        bool killed;     /* it took SIGKILL of ours */
        ExitStatus exit; /* means nothing when pid is 0 */
};

/* What came of the last thing that was asked of it, for whoever waits. */
typedef enum RunnerOutcome {
        RUNNER_OUTCOME_PENDING,  /* on its way, nothing has failed */
        RUNNER_OUTCOME_RETRYING, /* on its way, after a failure: it waits for its next start */
        RUNNER_OUTCOME_UP,
        RUNNER_OUTCOME_SCHEDULED,
        RUNNER_OUTCOME_DOWN,
        RUNNER_OUTCOME_DONE,
        RUNNER_OUTCOME_FAILED, /* runner->why says why */
        RUNNER_OUTCOME_GONE,   /* it was removed; the runner must not be touched after the callback */
        _RUNNER_OUTCOME_N,
} RunnerOutcome;

/*
 * Somebody who follows what becomes of a runner. Called from the loop after every change of its policy state, and when a
 * command to it was handled, be it that there was nothing to do, until
 * runner_unwatch() (which the callback may do); after RUNNER_OUTCOME_GONE it is off the list already.
 */
struct RunnerWatcher {
        LIST_ENTRY(RunnerWatcher) link;
        Runner *runner; /* NULL: not watching */
        void (*callback)(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome);
};
LIST_HEAD(RunnerWatchers, RunnerWatcher);

/* Why it was made to fail by others. */
typedef enum RunnerUnmet {
        UNMET_NOTHING,
        UNMET_REQUIRED, /* one that it requires has failed; it is started again when that one is there again */
        UNMET_GROUP,    /* its group has */
} RunnerUnmet;

typedef struct RunnerTimer {
        LoopTimer timer;
        Runner *runner;
} RunnerTimer;

struct Runner {
        UT_hash_handle by_name;
        TAILQ_ENTRY(Runner) link;      /* in the supervisor's queue of those that have something to handle */
        TAILQ_ENTRY(Runner) member;    /* in its group's, in order; of a transient one, among the ended */
        TAILQ_ENTRY(Runner) scheduled; /* in the queue of those that wait for the wall clock */
        Supervisor *supervisor;
        RunnerConfig *config; /* the one it is started with next; an instance holds the one it was started with */
        Group *group;         /* NULL: none */
        RunnerLog *log;       /* of all its instances */
        Instance *instance;   /* the present one, or, while it is `over', the last; NULL: none yet */
        Instance *past; /* those that have a successor and finish what they have begun, by their `past'; NULL: none */
        Upgrade *upgrade;         /* the one that is under way; NULL: none */
        UpgradeHistory *upgrades; /* those that were; NULL: none */
        Checkpoint *checkpoint;   /* those that are asked for; NULL: none ever was */

        uint32_t events;   /* bits of PolicyEvent, raised and not handled */
        uint32_t number;   /* in its template, from 1; 0: it is of none */
        uint32_t position; /* in its group */
        int terminal_fd;   /* of a transient one, until its process has it; -1: none */
        int program_fd;    /* for its next process, in place of the file at its path; -1: that one */
        Desired desired : 8;
        PolicyState state : 8;
        RunnerUnmet unmet : 8; /* it fails, or has failed, not by its own fault */
        bool queued : 1;       /* for handling */
        bool in_schedule : 1;  /* in the queue `scheduled' */
        bool over : 1;         /* nothing is left of its instance, and that was not judged yet */
        bool holding : 1;      /* STOPPING, and others go first */
        bool transient : 1;    /* a client's Start: forgotten some time after its end */
        bool ended : 1;        /* a transient one, and among those that are remembered */
        bool completed : 1;    /* it has ended well since it was last started */
        bool removed : 1;      /* no configuration has it any more: freed when it is down */
        bool sought : 1;       /* what it has left behind is looked for: its stop is not answered before */
        bool hidden : 1;       /* a hook's: not in the table of runners */
        uint8_t n_exits, next_exit, room_exits;
        uint16_t n_after, n_requires, n_before;

        uint32_t n_starts;        /* instances, ever */
        uint32_t n_restarts;      /* those of them that policy made after an end, since the last reset */
        uint32_t n_failovers;     /* those of them that went on from a checkpoint, since the last reset */
        uint32_t n_failures;      /* in a row, without a healthy time between */
        uint64_t last_instance;   /* 0: none yet */
        uint64_t kept;            /* slot in the keeper, without a process, that has its record; 0: none */
        uint64_t stop_timeout_us; /* of the stop that was asked for; 0: its configuration's */
        uint64_t changed_us;      /* wall clock, of the last change of state; 0: none yet */
        uint64_t up_us;           /* monotonic, since when it is ready; 0: it is not */
        uint64_t next_us;         /* BACKOFF: monotonic, of the next start; SCHEDULED: wall clock; else 0 */
        uint64_t begun_us;        /* monotonic, of its schedule's last run */
        PolicyWindow window;      /* of restarts */
        RunnerTimer *timer;       /* of the delay, or of the schedule; NULL: none was needed yet */
        char *why;                /* it has failed, or is held up, because: one line; NULL: nothing to say */
        char *status;             /* STATUS= of a runner that notifies; NULL: none */
        char **leftovers;  /* processes that outlived its last stop, "PID NAME" each, ended by NULL; NULL: none */
        RunnerExit *exits; /* ring, n_exits of them, the next at next_exit; NULL: none */
        Runner **after;    /* those it comes after, NULL: none; the first n_requires it requires */
        Runner **before;   /* those that come after it */
        struct RunnerWatchers watchers;
        struct Unknown *unknown; /* as the supervisor's; NULL: nothing */
        const struct Baton__Snapshot__Runner
                *crossed; /* what a predecessor has said last, while that is kept; else NULL */
        Precopied copied;
        char name[];
};

/* ------------------------------------------------------------------------------------------------- making and finding */

/*
 * runner_new() - a runner that is down and wanted down, in the supervisor's table; @number is its number in its template,
 * from 1 (0: none). Its name follows from both. A reference to @config is taken. 0; -EEXIST: the name is in use; -ENOMEM.
 */
int runner_new(Runner **ret_runner, Supervisor *supervisor, RunnerConfig *config, uint32_t number);

/* runner_remove() - stops it, if it is not down, and forgets it then. Watchers hear RUNNER_OUTCOME_GONE. */
void runner_remove(Runner *runner);

/*
 * runner_touch() - something of it or of its instance has changed, or is about to, that a successor has to know (runner_save()).
 * What is raised, of either, has done so.
 */
void runner_touch(Runner *runner);

/* runner_find() - the one of exactly this name, or NULL. */
Runner *runner_find(const Supervisor *supervisor, const char *name);

/* runner_first(), runner_next() - all, in the order in which they were added. */
Runner *runner_first(const Supervisor *supervisor);
Runner *runner_next(const Runner *runner);

/* runner_matches() - by its name, a glob (fnmatch) on its name, or the name of the template it is an instance of. */
bool runner_matches(const Runner *runner, const char *pattern);

/* ------------------------------------------------------------------------------------------------ what is wanted of it */

/*
 * Each sets what is wanted and returns at once; watch the runner, and look at runner_outcome(), for what comes of it.
 * runner_start()   - up; what it requires, too. One that has failed begins with fresh counters. Nothing to do where it is up.
 *                    -ESHUTDOWN: the supervisor is stopping; -ENOENT: it is being removed.
 * runner_stop()    - down, after those that require it. In at most @timeout_us (0: its own stop time-out) from the moment its
 *                    turn comes.
 * runner_restart() - another instance; those that require it are restarted, too. Errors as runner_start().
 * runner_reset()   - failures, delays and counters are forgotten; one that is wanted up and has failed is started.
 * runner_signal()  - to the process group of its instance; @done(@userdata) hears the keeper's answer. -ESRCH: no process;
 *                    -EINVAL: no such signal; other errors of keeper_link_signal().
 */
int runner_start(Runner *runner);
int runner_signal(Runner *runner, int number, KeeperLinkDone done, void *userdata);
void runner_stop(Runner *runner, uint64_t timeout_us);
int runner_restart(Runner *runner);
void runner_reset(Runner *runner);

/* runner_outcome() - as watchers are told. */
RunnerOutcome runner_outcome(const Runner *runner);

void runner_watch(Runner *runner, RunnerWatcher *watcher);
/* runner_unwatch() - does nothing for one that does not watch. */
void runner_unwatch(RunnerWatcher *watcher);

/* ---------------------------------------------------------------------------------------------------------- for status */

/* runner_exit() - the @nth last end, from 0, or NULL. */
const RunnerExit *runner_exit(const Runner *runner, unsigned nth);

/* runner_process_state() - of its instance; PROCESS_DOWN without one. runner_pid() - 0: no process. */
ProcessState runner_process_state(const Runner *runner);
int runner_pid(const Runner *runner);

/* "stopped", "start time-out", ...; "up", "failed", ... */
const char *runner_cause_name(RunnerCause cause);
const char *runner_outcome_name(RunnerOutcome outcome);

/* -------------------------------------------------------------------------------------------------- for its instances */

/* runner_instance_ready(), runner_instance_over() - of runner->instance: it is ready; nothing of it is left. */
void runner_instance_ready(Runner *runner);
void runner_instance_over(Runner *runner);
/* runner_past_over() - nothing is left of @instance, one of runner->past, which is freed. */
void runner_past_over(Runner *runner, Instance *instance);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The upgrade of a runner: a second instance of it, the successor, is started while the first serves, gets its state, and
 * serves from then on; the predecessor finishes what it has begun, and leaves. Either of the two serves at the end,
 * whatever fails on the way, and whoever dies: upgrade-phase.h has the steps, and the keeper's record of the active one
 * decides for a supervisor that follows this one.
 *
 * How the state crosses is the runner's kind: a native one is asked to save it, and the successor to take over
 * (upgrade-native.c); a plain program has what it needs in its sockets, and is only told to finish.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/manifest.h"
#include "supervisor/instance.h"
#include "supervisor/runner.h"
#include "supervisor/upgrade-phase.h"

typedef struct Control Control;
typedef struct Held Held;
typedef struct HeldCalls HeldCalls;
typedef struct Upgrade Upgrade;
typedef struct UpgradeHealth UpgradeHealth;
typedef struct UpgradeKind UpgradeKind;
typedef struct UpgradeOptions UpgradeOptions;
typedef struct UpgradeOutlook UpgradeOutlook;
typedef struct UpgradeRecord UpgradeRecord;
typedef struct UpgradeWatcher UpgradeWatcher;

enum {
        UPGRADE_REASON_SIZE = MANIFEST_REASON_SIZE,
        UPGRADE_RECORDS_MAX = 8, /* upgrades that are remembered of one runner */
        UPGRADE_PAST_MAX = 8,    /* predecessors of one runner that may be finishing at once */
        UPGRADE_HELD_MAX = 4096, /* calls that wait for the end of one */
};

/* What is asked for. 0, NULL: as configured. */
struct UpgradeOptions {
        const char *program; /* in place of the first word of its command */
        uint64_t timeout_us; /* until the successor is the active one */
        bool check;          /* everything but the replacement: the successor is sent away, and nobody has noticed */
};

/* Whether a runner that is up should be upgraded, see upgrade_outlook(). */
struct UpgradeOutlook {
        bool program; /* another file is there now than the one that it was started from, or none, or nobody knows */
        bool configuration; /* it was started with another one, in keys that a process has to be replaced for */
        const char *cannot; /* NULL, or why it cannot be at all, as the end of a sentence */
};

/* One that is over, or under way. */
struct UpgradeRecord {
        uint64_t begun_us;                   /* wall clock */
        uint64_t phase_us[_UPGRADE_PHASE_N]; /* spent in each */
        uint64_t pause_us;                   /* in which nobody served */
        uint64_t from, to;                   /* instances */
        UpgradePhase phase;                  /* where it failed; OVER: it has not */
        bool check;
        bool back; /* to what there was before another one, which was not healthy */
        char *why; /* NULL: it succeeded */
};

/* The last ones of a runner, the oldest first. */
struct UpgradeHistory {
        unsigned n;                /* of the records */
        uint64_t n_done, n_failed; /* ever, without checks and ways back */
        UpgradeRecord records[UPGRADE_RECORDS_MAX];
};

/* Somebody who waits for the end: called once, and then off the list. */
struct UpgradeWatcher {
        LIST_ENTRY(UpgradeWatcher) link;
        Upgrade *upgrade; /* NULL: not waiting */
        void (*callback)(UpgradeWatcher *watcher, Runner *runner, const UpgradeRecord *record);
};
LIST_HEAD(UpgradeWatchers, UpgradeWatcher);

/*
 * How the state crosses. Each function that begins something tells its end by upgrade_done() or upgrade_failed(), at once or
 * later; upgrade->old and ->new are both alive when it is called, and either may end before that.
 * @refuse: NULL, or why a runner of this kind cannot be upgraded as it is now, as the end of a sentence.
 * @cross: the predecessor stops serving, and the successor gets all it needs. @check: it must go on serving.
 * @has_given: whether the predecessor can go before that has ended, since the successor has all. NULL: it cannot.
 * @begin: the successor serves. NULL: it does already.
 * @waits_for: who has not done what, once the successor is ready; for people.
 * @resume: the predecessor serves again, having been stopped, or perhaps not. NULL: it never stopped.
 * @cancel: nothing is to be told any more. NULL: nothing to do.
 */
struct UpgradeKind {
        const char *(*refuse)(const Runner *runner);
        void (*cross)(Upgrade *upgrade);
        bool (*has_given)(const Upgrade *upgrade);
        const char *(*waits_for)(const Upgrade *upgrade);
        void (*begin)(Upgrade *upgrade);
        void (*resume)(Upgrade *upgrade);
        void (*cancel)(Upgrade *upgrade);
};

/* Calls that wait. */
struct HeldCalls {
        TAILQ_HEAD(, Held) calls;
        size_t n, bytes;
};

struct Upgrade {
        Runner *runner;
        const UpgradeKind *kind;
        Instance *old, *new;   /* NULL: nothing is left of it, or, from SWITCH on, it is the runner's */
        RunnerConfig *config;  /* of the new one */
        RunnerConfig *base;    /* of the runner, when it began: a newer one stays */
        RunnerConfig *before;  /* of the old one, for the way back; NULL: its health is not watched */
        uint64_t program;      /* stamp of what the old one was started from, see program.h */
        int program_fd;        /* and this itself, whatever is at its path by now; -1: not to be had */
        UpgradeHealth *health; /* WATCHING; NULL: it is not watched */
        UpgradeRecord
                *origin; /* it is the way back from this one, which is what those who wait are told of; else NULL */
        UpgradePhase phase;
        uint8_t events[8]; /* UpgradeEvents, raised and not handled */
        uint8_t n_events;
        bool check, checked;                /* checked: all that there is to check was found good */
        bool abandoned;                     /* the predecessor is not to serve again: it is being stopped */
        uint64_t phase_began_us, paused_us; /* monotonic; paused_us 0: the predecessor serves */
        uint64_t timer_us;                  /* what the timer was set to */
        LoopTimer timer;
        LoopTask task;
        UpgradeRecord record;
        struct UpgradeWatchers watchers;
        HeldCalls held;
        void *state; /* of its kind */
};

extern const UpgradeKind upgrade_native, upgrade_plain;

/*
 * upgrade_begin() - in @reason why not, one line: -EALREADY: one is under way; -ENOTCONN: it is not up; -EOPNOTSUPP: a
 * runner that cannot; -ESHUTDOWN: everything is being stopped; -EBUSY: the supervisor is being replaced; -ENOMEM.
 */
int upgrade_begin(Runner *runner, const UpgradeOptions *options, char reason[UPGRADE_REASON_SIZE]);

/* upgrade_refusal() - NULL, or why it could not be upgraded now, as the end of a sentence. */
const char *upgrade_refusal(const Runner *runner, int *ret_error);

/* upgrade_outlook() - looks at the file system. Nothing is to be done for one that is not up. */
void upgrade_outlook(const Runner *runner, UpgradeOutlook *ret_outlook);

/* upgrade_is_configured() - whether it runs as its runner is configured now, as far as that needs another process. */
bool upgrade_is_configured(const Instance *instance);

void upgrade_watch(Upgrade *upgrade, UpgradeWatcher *watcher);
/* upgrade_unwatch() - does nothing for one that does not wait. */
void upgrade_unwatch(UpgradeWatcher *watcher);

/* upgrade_abandon() - the runner is being stopped: the successor goes, the predecessor does not begin again. Accepts NULL. */
void upgrade_abandon(Upgrade *upgrade, const char *why);

/* upgrade_has() - whether @instance is one of its two. */
static inline bool upgrade_has(const Upgrade *upgrade, const Instance *instance) {
        return upgrade && instance && (upgrade->old == instance || upgrade->new == instance);
}

/* upgrade_drives() - whether the services of the two are its business. Accepts NULL. */
static inline bool upgrade_drives(const Upgrade *upgrade) {
        return upgrade && upgrade->phase != UPGRADE_STARTING && upgrade->phase != UPGRADE_WATCHING;
}

/* upgrade_history_last() - the last one that was asked for; NULL: there is none. */
const UpgradeRecord *upgrade_history_last(const UpgradeHistory *history);
/* upgrade_history_free() - accepts NULL, returns NULL. */
UpgradeHistory *upgrade_history_free(UpgradeHistory *history);

/* upgrade_free() - with the successor, without a word to anybody but those who wait. Accepts NULL, returns NULL. */
Upgrade *upgrade_free(Upgrade *upgrade);

/*
 * upgrade_hold() - whether a call to a runner has to wait, since neither of the two serves at the moment: it is kept then,
 * and asked of @control anew afterwards.
 */
bool upgrade_hold(Runner *runner, Control *control, Call *call, const char *method, const ProtobufCMessage *request);

/* ---- for its kind ---- */

/* upgrade_done(), upgrade_failed() - the step is over. The first reason of a failure stays. */
void upgrade_done(Upgrade *upgrade);
void upgrade_failed(Upgrade *upgrade, const char *format, ...) _printf_(2, 3);
/* upgrade_paused() - the predecessor serves no more from here on. */
void upgrade_paused(Upgrade *upgrade);

/* ---- health, after the switch (upgrade-health.c) ---- */
/* upgrade_health_begin() - DONE or FAILED follows, for as long as its instance lives. 0 or -ENOMEM. */
int upgrade_health_begin(Upgrade *upgrade);
/* upgrade_health_free() - accepts NULL, returns NULL. */
UpgradeHealth *upgrade_health_free(UpgradeHealth *health);

/* ---- for instances: of the successor, and of the predecessor ---- */
void upgrade_instance_ready(Upgrade *upgrade, Instance *instance);
void upgrade_instance_gone(Upgrade *upgrade, Instance *instance);
/* upgrade_present_gone() - the runner's own, before that takes effect; does nothing unless its health was watched. */
void upgrade_present_gone(Upgrade *upgrade, const Instance *instance);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeovers: the history of how supervisors followed each other. One entry for each takeover, be it that it was done, tried
 * or rolled back, and for each recovery after a death; the last ones are kept.
 *
 * They lie in a page or two of shared memory that the keeper stores, so that each supervisor has what those before it have
 * written, however they ended: a takeover in the middle of which a supervisor is killed is found in the phase it had
 * reached. Nothing is made before there is something to be kept.
 *
 * One supervisor writes at a time: the predecessor until it says FROZEN, and again after THAW; the successor after GO. What
 * each has gone through meanwhile it writes then, by takeovers_phase_at().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/events.h"
#include "supervisor/keeper-link.h"

typedef struct TakeoverEntry TakeoverEntry;
typedef struct Takeovers Takeovers;

/* In the order in which they are gone through; the numbers of baton.control.TakeoverRecord.Phase. */
typedef enum TakeoverPhase {
        TAKEOVER_PHASE_CHECK,  /* may there be one, is the program there, has the keeper got it */
        TAKEOVER_PHASE_START,  /* the keeper starts it, until it says that it runs */
        TAKEOVER_PHASE_COPY,   /* pre-copy, while the predecessor serves on, until everything is at rest */
        TAKEOVER_PHASE_FREEZE, /* the predecessor has stopped, and writes down what has changed */
        TAKEOVER_PHASE_DELTA,  /* that is given to the successor */
        TAKEOVER_PHASE_COMMIT, /* all is given: the keeper's word is awaited */
        TAKEOVER_PHASE_RESUME, /* after GO: the successor goes on with everything, until it serves */
        _TAKEOVER_PHASE_N,
} TakeoverPhase;

/* The numbers of baton.control.TakeoverRecord.Outcome. */
typedef enum TakeoverOutcome {
        TAKEOVER_UNDER_WAY,
        TAKEOVER_DONE,        /* the successor serves */
        TAKEOVER_CHECKED,     /* a rehearsal that went well */
        TAKEOVER_ROLLED_BACK, /* the predecessor serves on, for @reason */
        TAKEOVER_CUT_OFF,     /* whoever was to serve died in the middle of it: a recovery follows */
        TAKEOVER_RECOVERED,   /* no takeover: a supervisor died of @reason, the next one has adopted everything */
        TAKEOVER_WENT_BACK,   /* the same, and what died had come by a takeover: the program before it is back */
        _TAKEOVER_OUTCOME_N,
} TakeoverOutcome;

enum {
        TAKEOVERS_KEPT = 32,
        TAKEOVER_REASON_SIZE = 256, /* with its NUL */
        TAKEOVER_PROGRAM_SIZE = 96,
};

/* One of them. All times of phases are by the monotonic clock; 0: it was not reached. */
struct TakeoverEntry {
        uint64_t number;  /* from 1; never the same again */
        uint64_t time_us; /* when it began, wall clock; of a recovery: when the supervisor died */
        uint64_t begun_us, ended_us;
        uint64_t phase_us[_TAKEOVER_PHASE_N + 1]; /* when each began; one more than there is */
        uint64_t pause_us;                        /* in which nobody served */
        uint32_t outcome;                         /* TakeoverOutcome */
        uint32_t phase;                           /* TakeoverPhase; the one that it ended in */
        uint32_t former_generation, generation;   /* 0: there was none */
        int32_t former_pid, pid;
        uint32_t connections, runners, calls; /* that have crossed */
        uint32_t check;                       /* it was to be nothing but a rehearsal */
        char reason[TAKEOVER_REASON_SIZE];    /* one line; empty: none */
        char program[TAKEOVER_PROGRAM_SIZE];  /* the end of its path */
};

/* Since the history began. Counters never go back, whoever serves. */
typedef struct TakeoverCounts {
        uint64_t outcomes[_TAKEOVER_OUTCOME_N];
        uint64_t last_pause_us; /* of the last that was DONE */
} TakeoverCounts;

/* takeovers_new() - @link NULL: they end with this process. @events may be NULL. 0 or -ENOMEM. */
int takeovers_new(Takeovers **ret_takeovers, KeeperLink *link, Events *events);

/* takeovers_free() - accepts NULL, returns NULL. */
Takeovers *takeovers_free(Takeovers *takeovers);

/* takeovers_adopt() - what the keeper has stored. 0; a negative errno: it cannot be used, and there will be a new one. */
int takeovers_adopt(Takeovers *takeovers, int fd_consume);

/*
 * The predecessor: begin, a phase each time the next one is entered, and an end, which is told by the log, an event and the
 * counters. @program may be NULL. Each does nothing where there is no memory, and phase and end nothing where nothing is
 * under way.
 */
void takeovers_begin(Takeovers *takeovers, uint32_t generation, const char *program, bool check);
void takeovers_phase(Takeovers *takeovers, TakeoverPhase phase);
void takeovers_phase_at(Takeovers *takeovers, TakeoverPhase phase, uint64_t begun_us);
void takeovers_end(Takeovers *takeovers, TakeoverOutcome outcome, const char *reason);

/* takeovers_current() - of what is under way, to be filled in where its writer knows more; NULL: nothing is. */
TakeoverEntry *takeovers_current(Takeovers *takeovers);

/*
 * takeovers_died() - told by the keeper before anything is recovered, oldest first. takeovers_recovered() - we have adopted
 * everything of those: what was under way was cut off, and each death is an entry.
 */
void takeovers_died(Takeovers *takeovers, const KeeperDeath *death);
void takeovers_recovered(Takeovers *takeovers, uint32_t generation);

/* takeovers_copy() - the @i-th newest (0: the last). False: there is none. Its strings have their ends. */
bool takeovers_copy(const Takeovers *takeovers, size_t i, TakeoverEntry *ret_entry);

TakeoverCounts takeovers_counts(const Takeovers *takeovers);

/* takeover_phase_us() - how long it was in @phase; 0: it was not reached. */
uint64_t takeover_phase_us(const TakeoverEntry *entry, TakeoverPhase phase);

/* "copy", "rolled_back": as in JSON and on the command line. */
const char *takeover_phase_name(unsigned phase);
const char *takeover_outcome_name(unsigned outcome);

DEFINE_CLEANUP(Takeovers *, takeovers_free);

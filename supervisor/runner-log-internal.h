#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What runner-log.c (the log), log-input.c (what comes in) and log-store.c share. */

#include "supervisor/log-file.h"
#include "supervisor/log-ring.h"
#include "supervisor/log-store.h"
#include "supervisor/runner-log.h"

TAILQ_HEAD(RunnerLogs, RunnerLog);

struct RunnerLog {
        LogStore *store;
        const char *name;
        const LogConfig *config;
        char *path;    /* of the file; NULL: none */
        LogRing *ring; /* NULL: nothing was said yet */
        LogFile *file; /* NULL: none is configured, or nothing was said yet */
        LIST_HEAD(, LogInput) inputs;
        TAILQ_HEAD(, LogReader) readers;
        Precopied *copied;           /* its runner's; NULL: nobody wants to know of changes */
        LoopTask settle;             /* at the end of the turn in which something came */
        uint64_t turn;               /* how often readers were woken */
        TAILQ_ENTRY(RunnerLog) link; /* in the store's list of all that have a ring */
        uint64_t look_us; /* monotonic: when to look again whether it is followed, or its file can be written */
        uint64_t given;   /* position: the follower has what is before it */
        uint64_t follow_deadline; /* from then on nobody follows; 0: nobody does */
        uint64_t lost;            /* lines for which there was no ring */
        uint64_t told;            /* of all that were dropped: those that were told */
        uint64_t told_us;         /* monotonic: when */
        bool over;
        bool storing; /* the keeper has not answered yet: nothing may come into the ring */
        bool parked;  /* the pipes are not read */
        bool failed;  /* there could be no ring, and it was said */
};

struct LogStore {
        Loop *loop;
        KeeperLink *link;
        LogDropped *dropped; /* NULL: nobody wants to know */
        void *dropped_userdata;
        Precopy *precopy; /* for what is `copied' of its logs */
        LogScratch *scratch;
        uint64_t
                follow_us; /* who has asked last, and not again for this long, follows no more; USEC_INFINITY: he does */
        uint64_t last_id;
        struct RunnerLogs logs;
        LoopTimer look;  /* at the earliest look_us */
        char *buffer;    /* of LOG_FILE_BUFFER_SIZE, for all files */
        LogRing **found; /* of the supervisor before, and not taken yet */
        size_t n_found;
        int fds[LOG_SCRATCH_FDS]; /* of the supervisor before, until log_store_recover() */
        bool held; /* the rings are still another supervisor's: nothing is written, to them or to files */
};

/* ---- runner-log.c ---- */

/* runner_log_lose() - a line had no room. */
void runner_log_lose(RunnerLog *log);

/* ---- log-store.c ---- */

/* log_store_prepare() - @log gets a ring. 0 or a negative errno; log->storing: it may not be used yet. */
int log_store_prepare(LogStore *store, RunnerLog *log);
/* log_store_take_found() - the ring of that name that was there before, or NULL. */
LogRing *log_store_take_found(LogStore *store, const char *name);
/* log_store_add() - @log has a ring. log_store_remove() - and the ring goes, here and in the keeper. */
void log_store_add(LogStore *store, RunnerLog *log);
void log_store_remove(LogStore *store, RunnerLog *log);
/* log_store_look() - calls runner_log_look() at @deadline_us. */
void log_store_look(LogStore *store, RunnerLog *log, uint64_t deadline_us);

/* ---- runner-log.c ---- */

/* runner_log_prepare() - 0: it has a ring that may be used; 1: later, the pipes rest; or a negative errno, which was said. */
int runner_log_prepare(RunnerLog *log);
/* runner_log_frame() - makes lines of what came of @stream. Where they have to wait, the pipes rest. */
void runner_log_frame(RunnerLog *log, int stream);
/* runner_log_append() - log_ring_append(), after the file has got what may have to go. */
void runner_log_append(RunnerLog *log, const LogLine *line, uint64_t record_seq);
/* runner_log_came() - something may have: file and readers at the end of the turn. */
void runner_log_came(RunnerLog *log);
/* runner_log_stored() - the keeper has its ring, or will not. */
void runner_log_stored(RunnerLog *log, int result);
/* runner_log_look() - the time has come. */
void runner_log_look(RunnerLog *log);

/* ---- log-input.c ---- */

/* log_input_rest(), log_input_resume() - the pipes are not watched; are again. */
void log_input_rest(LogInput *input);
void log_input_resume(LogInput *input);

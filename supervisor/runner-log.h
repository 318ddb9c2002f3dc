#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The log of one runner: what all its instances write to stdout and stderr, and their log records, as numbered lines in a
 * ring that survives the supervisor, and in a file if the configuration names a directory. It belongs to the runner and
 * outlives its instances. A runner that has said nothing has no ring.
 *
 * What an instance does, in this order: log_input_init(); log_input_open(), whose descriptors become the runner's 1 and
 * 2; log_input_born() with the pid; log_input_record() for records; log_input_finish() when its exit is known;
 * log_input_take() for each pipe, whose duplicate in the keeper goes first; log_input_deinit().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/clock.h"
#include "common/log-line.h"
#include "common/loop.h"
#include "common/macro.h"
#include "supervisor/log-config.h"
#include "supervisor/precopy.h"

typedef struct LogInput LogInput;
typedef struct LogPipe LogPipe;
typedef struct LogReader LogReader;
typedef struct LogStatus LogStatus;
typedef struct LogStore LogStore; /* log-store.h: what all logs of a supervisor share */
typedef struct RunnerLog RunnerLog;

enum {
        LOG_PIPES = 2, /* LOG_SOURCE_STDOUT and LOG_SOURCE_STDERR */
};

struct LogStatus {
        uint64_t lines, bytes; /* ever taken; bytes of text */
        uint64_t dropped;      /* lines that had no room, or that the file did not get */
        uint64_t first_seq;    /* the oldest kept; next_seq where there is none */
        uint64_t next_seq;     /* of the line to come */
        bool parked;           /* the runner's pipes are not read for now */
        int file_error;        /* the negative errno that keeps lines from the file; 0: none */
};

/* ---- the log, for its runner ---- */

/*
 * runner_log_new() - @name and @config stay the caller's and must outlive the log. A ring that the store recovered
 * under this name is continued. 0 or -ENOMEM.
 */
int runner_log_new(RunnerLog **ret_log, LogStore *store, const char *name, const LogConfig *config);

/* runner_log_follow_on() - of a successor: a ring of this name has come since. */
void runner_log_follow_on(RunnerLog *log);

/* runner_log_free() - writes what the file lacks, tells readers the end. No input may be open. Returns NULL; accepts it. */
RunnerLog *runner_log_free(RunnerLog *log);
DEFINE_CLEANUP(RunnerLog *, runner_log_free);

/* runner_log_configure() - from here on. A ring that exists keeps its size. 0 or -ENOMEM: there is no file then. */
int runner_log_configure(RunnerLog *log, const LogConfig *config);

/*
 * runner_log_set_over() - true: nothing will come any more unless it is started again: whoever follows is told once he has
 * every line. A runner that will be restarted is not over.
 */
void runner_log_set_over(RunnerLog *log, bool over);

/* What a successor must know of a log besides its ring: runner_log_crossing() tells it, runner_log_restore() takes it. */
typedef struct LogCrossing {
        bool over;
        uint64_t given, follow_us; /* a position; until when somebody is taken to follow, monotonic */
        uint64_t lost;             /* lines for which there was no ring */
} LogCrossing;

LogCrossing runner_log_crossing(const RunnerLog *log);
/* runner_log_copied() - when what is told by that changes, @copied is touched. */
void runner_log_copied(RunnerLog *log, Precopy *precopy, Precopied *copied);
void runner_log_restore(RunnerLog *log, const LogCrossing *crossing);

/* runner_log_note() - a line of ours: source RECORD, target "baton". */
void runner_log_note(RunnerLog *log, int level, const char *format, ...) _printf_(3, 4);

void runner_log_status(const RunnerLog *log, LogStatus *ret_status);

/*
 * runner_log_tail() - the last lines of @instance (0: of any) as text for people: at most @max_lines, at most @max_bytes
 * together, bytes that are not UTF-8 replaced by '?'. @ret_lines is one block, to be freed with free(); NULL when there is
 * none. Returns how many.
 */
size_t runner_log_tail(const RunnerLog *log, uint64_t instance, size_t max_lines, size_t max_bytes, char ***ret_lines);

/* ---- for who reads it ---- */

/* Who has asked last, and not again for this long, follows no more; but see log_store_trust_follower(). */
#define LOG_FOLLOW_US (10 * USEC_PER_SEC)

/* Somebody who waits for a line, or for the end; called once, at the end of the turn, and then not waiting any more. */
struct LogReader {
        TAILQ_ENTRY(LogReader) link;
        RunnerLog *log; /* NULL: not waiting */
        uint64_t turn;  /* in which it began to wait */
        void (*callback)(LogReader *reader);
};

/* runner_log_find() - a position: of the first line kept whose number is @seq or higher, or of the one to come. */
uint64_t runner_log_find(const RunnerLog *log, uint64_t seq);

/* runner_log_read() - the line at @position, which then is that of the next one. False: none yet. */
bool runner_log_read(const RunnerLog *log, uint64_t *position, LogLine *ret_line);

/* runner_log_back() - the position of the line before that at @position, which may be of the one to come. False: none. */
bool runner_log_back(const RunnerLog *log, uint64_t *position);

/* runner_log_id() - another one than before where numbers began anew; 0: there is no line yet. */
uint64_t runner_log_id(const RunnerLog *log);

/* runner_log_has_ended() - it is over, and every line of it can be read. */
bool runner_log_has_ended(const RunnerLog *log);

/*
 * runner_log_follow() - somebody has all lines before @seq, and is there for LOG_FOLLOW_US more. Of a log that parks
 * nothing that he has not got is dropped; with several of them the one who asked last counts.
 */
void runner_log_follow(RunnerLog *log, uint64_t seq);

/* runner_log_unfollow() - he has gone. */
void runner_log_unfollow(RunnerLog *log);

/* runner_log_wait() - @reader->callback is called when a line has come, or the end. */
void runner_log_wait(RunnerLog *log, LogReader *reader);
void runner_log_unwait(LogReader *reader);

/* ---- what an instance says ---- */

struct LogPipe {
        LoopIo io;
        int fd;         /* the read end, ours; -1: none */
        uint8_t source; /* LogSource, and its place in LogInput.pipes */
        bool ended;
        uint8_t smaller; /* a batch is smaller than the largest by so many powers of two */
};

/* The two pipes of one instance: part of it. */
struct LogInput {
        LIST_ENTRY(LogInput) link;
        RunnerLog *log;
        uint64_t instance;
        pid_t pid;
        uint64_t record_seq; /* of the last log record; 0: none */
        LogPipe pipes[LOG_PIPES];
};

void log_input_init(LogInput *input, RunnerLog *log, uint64_t instance);

/*
 * log_input_open() - makes the pipes and begins to read. The write ends, for the runner's 1 and 2, are the caller's. 0, or
 * a negative errno, and then there are none.
 */
int log_input_open(LogInput *input, int ret_fds[LOG_PIPES]);

/* log_input_adopt() - goes on with the read end @fd_consume (also on failure) of an instance found after a crash. */
int log_input_adopt(LogInput *input, LogSource source, int fd_consume);

/* log_input_restored() - of a successor: records may have come since it was adopted, whose numbers the ring knows. */
void log_input_restored(LogInput *input);

/* log_input_fd() - the read end of a pipe, still ours: to be stored by the keeper (KEEPER_FD_LOG). */
static inline int log_input_fd(const LogInput *input, LogSource source) {
        return input->pipes[source].fd;
}

void log_input_born(LogInput *input, pid_t pid);

/*
 * log_input_record() - log record number @seq of this instance. 0; -EALREADY: it was there before, and is dropped; -ENOMEM:
 * it is lost, and counted.
 */
int log_input_record(LogInput *input, uint64_t seq, const LogLine *record);

/*
 * log_input_finish() - the instance is gone: what its pipes still hold is read (other holders of the write end are not
 * waited for), a line begun is ended. The pipes are watched no more.
 */
void log_input_finish(LogInput *input);

/* log_input_take() - the read end, now the caller's to close, or -1. It is not watched any more. */
int log_input_take(LogInput *input, LogSource source);

/* log_input_deinit() - closes the pipes that were not taken. */
void log_input_deinit(LogInput *input);

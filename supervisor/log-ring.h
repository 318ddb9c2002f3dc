#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The memory of one log: its last lines, what came of lines that have not ended, and how far its file got. All of it is in
 * one memfd that the keeper stores, and is right after a SIGKILL at any moment: log-ring.c says how. A position is a number
 * of bytes that only rises, and means the beginning of a line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/log-line.h"
#include "common/macro.h"

typedef struct LogRing LogRing;
typedef struct LogRingFile LogRingFile;
typedef struct LogRingState LogRingState;
typedef struct LogRingStream LogRingStream;
typedef struct LogScratch LogScratch;

enum {
        LOG_RING_INSTANCES = 12, /* at once: who serves, who is to, those who finish, and some that have just ended */
        LOG_RING_STREAMS = 2 * LOG_RING_INSTANCES,
        LOG_RING_NAME_SIZE = 64,
        LOG_RING_BATCH = 64 * 1024,       /* taken from a pipe at once, at most */
        LOG_RING_DRAIN_MAX = 1024 * 1024, /* taken from a pipe after its runner's end, at most */
};

#define LOG_RING_KEEP_NOTHING UINT64_MAX

/* One pipe of one instance. Null value: zeroed, nobody's. */
struct LogRingStream {
        uint64_t instance; /* 0: nobody's */
        int32_t pid;
        uint8_t source; /* LogSource */
        bool ended;     /* nothing comes any more: what has begun is a line */
        uint32_t begin; /* where in its stage the bytes are that are not yet lines */
        uint64_t taken; /* bytes that are lines */
};

/* How far the file got. @device 0: none was opened. */
struct LogRingFile {
        bool wanted; /* lines that it has not got are not dropped silently */
        uint64_t device, inode;
        uint64_t length;   /* bytes of it that are ours */
        uint64_t began_us; /* wall clock */
        uint64_t position; /* of the first line that is not in it */
        uint64_t told;     /* of the state's dropped lines: those that the file tells of */
};

/* What is true of a ring at one moment. */
struct LogRingState {
        uint64_t head, tail, last; /* positions: behind the newest line, of the oldest, of the newest */
        uint64_t first_seq, next_seq;
        uint64_t lines, bytes; /* ever taken; bytes of text */
        uint64_t dropped;      /* lines that went before the file had them */
        LogRingFile file;
        LogRingStream streams[LOG_RING_STREAMS];
        struct {
                uint64_t instance, seq; /* the last log record of this instance */
        } records[LOG_RING_INSTANCES];
};

/* ------------------------------------------------------------------------------------------------- making and finding */

/* log_ring_new() - for runner @name, of about @size bytes of lines; @id is never 0. 0, -EMFILE, -ENFILE, -ENOMEM, -EFBIG. */
int log_ring_new(LogRing **ret_ring, const char *name, uint64_t id, size_t size);

/* log_ring_open() - of a supervisor before this one. Takes @fd_consume. -EINVAL: it is none, or of another version. */
int log_ring_open(LogRing **ret_ring, int fd_consume);

/* log_ring_free() - ours; the memory lives on where the descriptor does. Accepts NULL, returns NULL. */
LogRing *log_ring_free(LogRing *ring);
DEFINE_CLEANUP(LogRing *, log_ring_free);

int log_ring_fd(const LogRing *ring);
uint64_t log_ring_id(const LogRing *ring);
const char *log_ring_name(const LogRing *ring);
size_t log_ring_size(const LogRing *ring);

/* log_ring_state() - good until the next change. */
const LogRingState *log_ring_state(const LogRing *ring);

/* ------------------------------------------------------------------------------------------------------------ writing */

/* log_ring_claim() - a stream for a pipe, or the one it has. Returns its number, or -EBUSY: all are in use. */
int log_ring_claim(LogRing *ring, uint64_t instance, pid_t pid, LogSource source);

/* log_ring_end() - nothing comes of @stream any more. It is free when log_ring_frame() has made lines of all it has. */
void log_ring_end(LogRing *ring, int stream);

/* log_ring_waiting() - bytes of @stream that are not yet lines. */
size_t log_ring_waiting(const LogRing *ring, int stream);

/*
 * log_ring_frame() - makes lines of what has come of @stream; the time of all of them is now. The oldest lines are dropped
 * for them, but none from position @keep on (LOG_RING_KEEP_NOTHING: any). False: for want of room some lines wait.
 */
bool log_ring_frame(LogRing *ring, int stream, uint64_t keep);

/*
 * log_ring_append() - a line that did not come by a pipe; one that is longer than LOG_TEXT_MAX is cut, and the last piece
 * flagged as the line was. @record_seq unless 0 is the number of the instance's record. Drops what is in the way.
 */
void log_ring_append(LogRing *ring, const LogLine *line, uint64_t record_seq);

/* log_ring_record_seq() - of the last record that @instance gave, 0: none is remembered. */
uint64_t log_ring_record_seq(const LogRing *ring, uint64_t instance);

/* log_ring_set_file() - how far the file got, all of it at once. */
void log_ring_set_file(LogRing *ring, const LogRingFile *file);

/* ------------------------------------------------------------------------------------------------------------ reading */

/*
 * log_ring_read() - the line at @position, or the first one kept behind it. False: none yet. @position then is that of the
 * next. What is given points into the ring.
 */
bool log_ring_read(const LogRing *ring, uint64_t *position, LogLine *ret_line);

/* log_ring_find() - the position of the first line kept whose number is @seq or higher; of the line to come. */
uint64_t log_ring_find(const LogRing *ring, uint64_t seq);

/* log_ring_back() - the position of the line before that at @position, which may be the head. False: it is the oldest. */
bool log_ring_back(const LogRing *ring, uint64_t *position);

/* ------------------------------------------------------------------------------------------------------------ scratch */

/* One for all rings: what every byte passes through on its way from a pipe. */
enum {
        LOG_SCRATCH_READ,
        LOG_SCRATCH_WRITE,
        LOG_SCRATCH_PAGE,
        LOG_SCRATCH_FDS,
};

/* log_scratch_new() - 0, -EMFILE, -ENFILE, -ENOMEM. */
int log_scratch_new(LogScratch **ret_scratch);

/* log_scratch_open() - of a supervisor before this one. Takes @fds_consume. -EINVAL: they are none. */
int log_scratch_open(LogScratch **ret_scratch, int fds_consume[LOG_SCRATCH_FDS]);
LogScratch *log_scratch_free(LogScratch *scratch);
DEFINE_CLEANUP(LogScratch *, log_scratch_free);

int log_scratch_fd(const LogScratch *scratch, unsigned which);

/*
 * log_scratch_take() - moves at most @max bytes from @pipe into @stream's stage. Returns how many, 0: the pipe has ended, or
 * a negative errno: -EAGAIN, it is empty.
 */
ssize_t log_scratch_take(LogScratch *scratch, LogRing *ring, int stream, int pipe, size_t max);

/* log_scratch_recover() - finishes what the supervisor before had begun: the bytes in scratch come to where they belong. */
void log_scratch_recover(LogScratch *scratch, LogRing *const *rings, size_t n_rings);

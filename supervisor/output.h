#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What one instance of a runner says: its stdout and stderr, and its log records, into one history; and who waits for it. */

#include "common/clock.h"
#include "common/loop.h"
#include "supervisor/history.h"

typedef struct Output Output;
typedef struct OutputPipe OutputPipe;
typedef struct OutputReader OutputReader;

enum {
        OUTPUT_PIPES = 2,               /* HISTORY_STDOUT and HISTORY_STDERR */
        OUTPUT_READ_SIZE = 16 * 1024,   /* read of one pipe in one turn of the loop, at most */
        OUTPUT_DRAIN_MAX = 1024 * 1024, /* read of one pipe after the runner's end, at most */
        OUTPUT_PARK_MIN = 1024,         /* less room than this: a pipe that may be parked is */
        /* What the history may take for what the pipes of a runner that was parked still held at its end. */
        OUTPUT_PARK_BYTES = 16 * 1024 * 1024,
};

/* Who has asked last, and not again for this long, follows no more. */
#define OUTPUT_FOLLOW_US (10 * USEC_PER_SEC)

/* One pipe, and the beginning of a line whose end has not come yet. */
struct OutputPipe {
        Output *output;
        HistorySource source;
        int fd; /* the read end, ours; -1: none */
        bool ended;
        LoopIo io;
        char *begun;
        size_t n_begun, size_begun;
};

/* Somebody who waits for a line, or for the end; called once, at the end of the turn, and then not waiting any more. */
struct OutputReader {
        TAILQ_ENTRY(OutputReader) link;
        Output *output; /* NULL: not waiting */
        uint64_t turn;  /* in which it began to wait */
        void (*callback)(OutputReader *reader);
};

struct Output {
        Loop *loop;
        History history;
        OutputPipe pipes[OUTPUT_PIPES];
        TAILQ_HEAD(OutputReaders, OutputReader) readers;
        LoopTask wake;
        uint64_t turn;       /* how often readers were woken */
        uint64_t record_seq; /* of the last log record; 0: none */
        bool ended;          /* nothing will come any more */

        bool may_park;            /* nothing is to be lost while somebody follows */
        bool parked;              /* the pipes are not read */
        HistoryMark given;        /* what the follower has; what it has not is not dropped for what pipes bring */
        uint64_t follow_deadline; /* from then on nobody follows; 0: nobody does */
        LoopTimer unpark;
        size_t max_lines, max_bytes;
};

/* output_init() - bounds as history_init(). Nothing can fail. */
void output_init(Output *output, Loop *loop, size_t max_lines, size_t max_bytes);

/* output_deinit() - closes the pipes that were not taken. Nobody may be waiting. */
void output_deinit(Output *output);

/*
 * output_open() - makes the pipes and begins to read. The write ends, for the runner's 1 and 2, are the caller's. 0, or
 * a negative errno, and then there are none.
 */
int output_open(Output *output, int ret_fds[OUTPUT_PIPES]);

/* output_fd() - the read end of a pipe, still ours: to be stored by the keeper. */
static inline int output_fd(const Output *output, HistorySource source) {
        return output->pipes[source].fd;
}

/*
 * output_finish() - the runner is gone: what its pipes still hold is read (other holders of the write end are not waited
 * for), a line begun is ended. The pipes are watched no more.
 */
void output_finish(Output *output);

/* output_take_pipe() - the read end, now the caller's to close, or -1. It is not watched any more. */
int output_take_pipe(Output *output, HistorySource source);

/* output_end() - nothing will come any more: readers are woken. */
void output_end(Output *output);

/* output_record() - log record number @seq of this instance. 0; -EALREADY: it was there before, and is dropped. */
int output_record(Output *output, uint64_t seq, const HistoryInfo *info, const char *text);

/*
 * output_park() - from here on the pipes are not read while somebody follows and what it has not been given leaves no room:
 * the runner then waits in write(). Counts as the first sign of a follower.
 */
void output_park(Output *output);

/* output_follow() - a follower has all lines before @seq, and is there for OUTPUT_FOLLOW_US more. */
void output_follow(Output *output, uint64_t seq);

/* output_unfollow() - it has gone: from here on the oldest lines are dropped. */
void output_unfollow(Output *output);

/* output_wait() - @reader->callback is called when a line has come, or the end. */
void output_wait(Output *output, OutputReader *reader);
void output_unwait(OutputReader *reader);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The last lines of a runner, in memory: bounded, numbered, the oldest dropped first. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

typedef struct History History;
typedef struct HistoryLine HistoryLine;

enum {
        HISTORY_TEXT_MAX = 16 * 1024, /* bytes of a line's text; a longer one is cut into several, flagged `partial' */
};

/* Where a line came from; the numbers of baton.control.LogLine.Source. */
typedef enum HistorySource {
        HISTORY_STDOUT,
        HISTORY_STDERR,
        HISTORY_RECORD,
        _HISTORY_SOURCE_N,
} HistorySource;

/* What is said about a line besides its text; strings may be NULL. */
typedef struct HistoryInfo {
        HistorySource source;
        uint64_t time_us; /* wall clock; 0: now */
        uint32_t level, line;
        const char *target, *file;
} HistoryInfo;

struct HistoryLine {
        TAILQ_ENTRY(HistoryLine) link;
        uint64_t seq; /* from 1 */
        HistoryInfo info;
        bool partial; /* goes on in the next line of this source */
        size_t size, cost;
        uint64_t offset; /* what all lines before it cost, those that were dropped too */
        char text[];     /* not terminated; target and file follow it */
};

/* A place between two lines. Null value: the beginning. */
typedef struct HistoryMark {
        uint64_t seq; /* of the next line */
        uint64_t offset;
} HistoryMark;

struct History {
        TAILQ_HEAD(HistoryLines, HistoryLine) lines;
        size_t n_lines, n_bytes, max_lines, max_bytes;
        uint64_t next_seq;
        uint64_t total; /* what all lines ever cost */
};

/* history_init() - holds at most @max_lines lines that cost at most @max_bytes of memory together, but always one. */
void history_init(History *history, size_t max_lines, size_t max_bytes);
void history_deinit(History *history);

/*
 * history_append() - one line, cut into several where it is longer than HISTORY_TEXT_MAX; @partial flags the last piece.
 * A line that no memory could be had for is dropped: its number is missing.
 */
void history_append(History *history, const HistoryInfo *info, const void *text, size_t size, bool partial);

/* history_mark() - the place before line @seq; of a line that is gone, before the first kept. */
HistoryMark history_mark(const History *history, uint64_t seq);

/* history_room() - how many bytes may still come, whatever lines they make, before a line behind @mark is dropped. */
size_t history_room(const History *history, HistoryMark mark);

/* history_set_bounds() - as history_init(); what is beyond them is dropped now, but no line from number @keep on. */
void history_set_bounds(History *history, size_t max_lines, size_t max_bytes, uint64_t keep);

/* history_find() - the first line kept whose number is @seq or higher, or NULL. Its successor: TAILQ_NEXT(line, link). */
HistoryLine *history_find(const History *history, uint64_t seq);

/*
 * history_tail() - the last lines as text for people: at most @max_lines, at most @max_bytes together, bytes that are not
 * UTF-8 replaced by '?'. @ret_lines is one block, to be freed with free(); NULL when there is none. Returns how many.
 */
size_t history_tail(const History *history, size_t max_lines, size_t max_bytes, char ***ret_lines);

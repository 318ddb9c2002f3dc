#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One line of a runner's log, and the two ways in which it is written: for people and as JSON (docs/logs.md). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct LogLine LogLine;

enum {
        LOG_TEXT_MAX = 16 * 1024, /* bytes of a line's text; a longer one is cut into several, flagged `partial' */
        LOG_TARGET_MAX = 255,     /* bytes of target and of file; what is longer is cut */
        LOG_TIME_SIZE = 28,       /* "2026-11-21T03:31:57.123456Z" */
        /* What a written line may take: each byte of a text may become six ("\u0000"), and a name has 63. */
        LOG_WRITTEN_MAX = 6 * (LOG_TEXT_MAX + 2 * LOG_TARGET_MAX) + 512,
};

/* Where a line came from; the numbers of baton.control.LogLine.Source. */
typedef enum LogSource {
        LOG_SOURCE_STDOUT,
        LOG_SOURCE_STDERR,
        LOG_SOURCE_RECORD, /* baton.Log/Write, or the supervisor itself, whose `target' is "baton" */
        _LOG_SOURCE_N,
} LogSource;

typedef enum LogFormat {
        LOG_FORMAT_TEXT,
        LOG_FORMAT_JSON, /* one object per line */
        _LOG_FORMAT_N,
} LogFormat;

struct LogLine {
        uint64_t seq;          /* from 1, rising by one, never reused in the life of the log */
        uint64_t time_us;      /* wall clock; given to the log as 0: now */
        uint64_t monotonic_us; /* when the log had it */
        uint64_t instance;
        pid_t pid;
        LogSource source;
        bool partial; /* goes on in the next line of this source and instance */
        uint32_t level, line;
        const char *target, *file; /* never NULL in what a log gives out */
        const char *text;          /* not terminated */
        size_t size;
};

/* log_source_name() - "stdout", "stderr", "record". log_source_parse() - the source, or -EINVAL. */
const char *log_source_name(LogSource source);
int log_source_parse(const char *text);

/* log_time_write() - RFC 3339 in UTC with microseconds. */
void log_time_write(uint64_t time_us, char ret_text[LOG_TIME_SIZE]);

/*
 * log_line_write() - @line of runner @name with its newline, into @buffer of at least LOG_WRITTEN_MAX bytes. Returns its
 * length. Text: time, stream ('+' behind it: the line goes on in the next one), pid, text as it came; of a record also
 * level and target before it and the place behind it, its newlines as "\n". JSON: bytes that are not UTF-8 become U+FFFD.
 */
size_t log_line_write(const LogLine *line, const char *name, LogFormat format, char *buffer);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log: lines on standard error, formatted on the stack and written with one call, so that lines of several processes on
 * one pipe never mix (PIPE_BUF) and the keeper, which allocates nothing, can use it too. A line that cannot be written
 * is lost: a log must never stop the process that writes it. So whoever reads a pipe or a terminal behind it and sleeps
 * is waited for once, for a moment, since it may be no more than a burst; then lines are lost until there is room again,
 * and how many is said.
 */

#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

#define LINE_MAX_BYTES 2048
#define BURST_MS       200

static const char *log_program = "baton";
static int log_level = LOG_LEVEL_NOTICE;
static unsigned log_lost; /* lines since somebody last read; several threads may have lost them */

static const char *const level_names[] = {
        [0] = "emergency",
        [1] = "alert",
        [2] = "critical",
        [LOG_LEVEL_ERROR] = "error",
        [LOG_LEVEL_WARNING] = "warning",
        [LOG_LEVEL_NOTICE] = "notice",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_DEBUG] = "debug",
};

const char *log_level_name(int level) {
        return level >= 0 && (size_t) level < ARRAY_SIZE(level_names) ? level_names[level] : "level";
}

int log_level_parse(const char *text) {
        uint64_t number;

        for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
                if (strcmp(text, level_names[i]) == 0)
                        return (int) i;
        return parse_u64(text, ARRAY_SIZE(level_names) - 1, &number) < 0 ? -EINVAL : (int) number;
}

void log_open(const char *program) {
        const char *text = getenv("BATON_LOG_LEVEL");

        log_program = program;
        if (text) {
                int level = log_level_parse(text);

                if (level >= 0)
                        log_level = level;
                else
                        log_warning("BATON_LOG_LEVEL=%s is no level: use error, warning, notice, info or debug", text);
        }
}

void log_set_level(int level) {
        log_level = level;
}

int log_get_level(void) {
        return log_level;
}

/* has_room() - a pipe that says so takes PIPE_BUF bytes without waiting. What cannot be asked is tried. */
static bool has_room(int timeout_ms) {
        struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
        int n = poll(&p, 1, timeout_ms);

        return n > 0 || (n < 0 && errno != EINTR);
}

/* put() - nobody is there to be told of an error. */
static void put(const char *line, size_t length) {
        unsigned lost = __atomic_load_n(&log_lost, __ATOMIC_RELAXED);
        char text[128];
        int n;

        if (!has_room(lost ? 0 : BURST_MS)) {
                (void) __atomic_add_fetch(&log_lost, 1, __ATOMIC_RELAXED);
                return;
        }
        lost = lost ? __atomic_exchange_n(&log_lost, 0, __ATOMIC_RELAXED) : 0;
        if (lost) {
                n = snprintf(text, sizeof(text), "%s: warning: %u lines were lost here: nobody read them\n",
                             log_program, lost);
                if (write(STDERR_FILENO, text, MIN((size_t) n, sizeof(text) - 1)) < 0 || !has_room(0))
                        return;
        }
        if (write(STDERR_FILENO, line, length) < 0)
                return;
}

/* make_one_line() - what it tells of, others may have written: no part of it begins another, nor means anything to a terminal. */
static void make_one_line(char *line, size_t length) {
        for (size_t i = 0; i < length; i++) {
                unsigned char c = (unsigned char) line[i];

                if (c == '\n')
                        line[i] = ' ';
                else if (c < ' ' || c == 0x7f)
                        line[i] = '?';
                else if (c == 0xc2 && i + 1 < length && (unsigned char) line[i + 1] - 0x80u < 0x20) /* C1, in UTF-8 */
                        line[i] = line[i + 1] = '?';
        }
}

void log_message_v(int level, const char *format, va_list arguments) {
        char line[LINE_MAX_BYTES];
        int saved = errno;
        size_t length;
        int n;

        if (level > log_level)
                return;
        n = snprintf(line, sizeof(line), "%s: %s: ", log_program, log_level_name(level));
        length = MIN((size_t) n, sizeof(line) - 1);
        errno = saved;
        n = vsnprintf(line + length, sizeof(line) - length, format, arguments);
        if (n > 0)
                length = MIN(length + (size_t) n, sizeof(line) - 1);
        make_one_line(line, length);
        line[length++] = '\n';
        put(line, length);
        errno = saved;
}

void log_message(int level, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        log_message_v(level, format, arguments);
        va_end(arguments);
}

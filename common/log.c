/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log: lines on standard error, formatted on the stack and written with one call, so that lines of several processes on
 * one pipe never mix (PIPE_BUF) and the keeper, which allocates nothing, can use it too. A line that cannot be written
 * is lost: a log must never stop the process that writes it.
 */

#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

#define LINE_MAX_BYTES 2048

static const char *log_program = "baton";
static int log_level = LOG_LEVEL_NOTICE;

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
        for (size_t i = 0; i < length; i++)
                if (line[i] == '\n')
                        line[i] = ' ';
        line[length++] = '\n';
        if (write(STDERR_FILENO, line, length) < 0)
                (void) 0; /* nobody to tell */
        errno = saved;
}

void log_message(int level, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        log_message_v(level, format, arguments);
        va_end(arguments);
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Leveled log of our own processes: one line per message on standard error, `program: LEVEL: text`. Levels are syslog's
 * numbers. Code below a decision does not log; the one who decides logs once, naming what, which one, why, what to do.
 */

#include <stdarg.h>
#include <stdint.h>

#include "common/macro.h"

enum {
        LOG_LEVEL_ERROR = 3,
        LOG_LEVEL_WARNING = 4,
        LOG_LEVEL_NOTICE = 5,
        LOG_LEVEL_INFO = 6,
        LOG_LEVEL_DEBUG = 7,
};

/* log_open() - names the program in each line (the pointer is kept) and takes the level from $BATON_LOG_LEVEL, if set. */
void log_open(const char *program);

/* log_set_level() - messages above @level are dropped; NOTICE at first. */
void log_set_level(int level);
int log_get_level(void);

/* log_level_name() - "error" ... "debug"; "level" for a number that is none. */
const char *log_level_name(int level);

/* log_level_parse() - the level by its name or its number 0-7, or -EINVAL. */
int log_level_parse(const char *text);

/* log_message() - writes one line with one write(2), cut at 2 KiB; newlines inside become spaces, controls "?". errno is kept. */
void log_message(int level, const char *format, ...) _printf_(2, 3);
void log_message_v(int level, const char *format, va_list arguments) _printf_(2, 0);

#define log_error(...)   log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_message(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)

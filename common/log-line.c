/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lines, written. Log files and `baton logs` share this, so that what is documented once is true of both. Everything goes
 * into a buffer that is large enough for the worst line: there is nothing to check, and nothing can fail. The date is
 * computed by hand: gmtime_r() per line was the larger part of writing it.
 */

#include "common/log-line.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/macro.h"
#include "common/parse.h"

static const char *const sources[] = {
        [LOG_SOURCE_STDOUT] = "stdout",
        [LOG_SOURCE_STDERR] = "stderr",
        [LOG_SOURCE_RECORD] = "record",
};
_Static_assert(ARRAY_SIZE(sources) == _LOG_SOURCE_N, "a name for each");

const char *log_source_name(LogSource source) {
        return source < _LOG_SOURCE_N ? sources[source] : "source";
}

int log_source_parse(const char *text) {
        for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
                if (strcmp(text, sources[i]) == 0)
                        return (int) i;
        return -EINVAL;
}

/* ---- time ---- */

static char *put_number(char *to, uint64_t number, unsigned digits) {
        for (unsigned i = digits; i-- > 0; number /= 10)
                to[i] = (char) ('0' + number % 10);
        return to + digits;
}

/* put_date() - @days since 1970-01-01, in eras of 400 years, years that begin in March. */
static char *put_date(char *to, uint64_t days) {
        uint64_t since = days + 719468, era = since / 146097, day = since % 146097;
        uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
        uint64_t in_year = day - (365 * year + year / 4 - year / 100);
        uint64_t month = (5 * in_year + 2) / 153;

        to = put_number(to, year + era * 400 + (month >= 10), 4);
        *to++ = '-';
        to = put_number(to, month < 10 ? month + 3 : month - 9, 2);
        *to++ = '-';
        return put_number(to, in_year - (153 * month + 2) / 5 + 1, 2);
}

static char *put_time(char *to, uint64_t time_us) {
        uint64_t seconds = time_us / USEC_PER_SEC, of_day = seconds % 86400;

        to = put_date(to, seconds / 86400);
        *to++ = 'T';
        to = put_number(to, of_day / 3600, 2);
        *to++ = ':';
        to = put_number(to, of_day / 60 % 60, 2);
        *to++ = ':';
        to = put_number(to, of_day % 60, 2);
        *to++ = '.';
        to = put_number(to, time_us % USEC_PER_SEC, 6);
        *to++ = 'Z';
        return to;
}

void log_time_write(uint64_t time_us, char ret_text[LOG_TIME_SIZE]) {
        *put_time(ret_text, time_us) = '\0';
}

/* ---- text ---- */

static char *put(char *to, const void *text, size_t size) {
        memcpy(to, text, size);
        return to + size;
}

static char *put_string(char *to, const char *text) {
        return put(to, text, strlen(text));
}

static char *put_decimal(char *to, uint64_t number) {
        return to + sprintf(to, "%" PRIu64, number);
}

/* put_on_one_line() - the text of a record may have newlines, which would begin a line that nobody wrote. */
static char *put_on_one_line(char *to, const char *text, size_t size) {
        const char *newline;

        while ((newline = memchr(text, '\n', size))) {
                to = put(to, text, (size_t) (newline - text));
                to = put(to, "\\n", 2);
                size -= (size_t) (newline + 1 - text);
                text = newline + 1;
        }
        return put(to, text, size);
}

static char *put_record(char *to, const LogLine *line) {
        to = put_string(to, log_level_name((int) line->level));
        *to++ = ' ';
        if (*line->target) {
                to = put_on_one_line(to, line->target, strlen(line->target));
                to = put(to, ": ", 2);
        }
        to = put_on_one_line(to, line->text, line->size);
        if (!*line->file)
                return to;
        to = put(to, " (", 2);
        to = put_on_one_line(to, line->file, strlen(line->file));
        *to++ = ':';
        to = put_decimal(to, line->line);
        *to++ = ')';
        return to;
}

static char *put_text_line(char *to, const LogLine *line) {
        to = put_time(to, line->time_us);
        *to++ = ' ';
        to = put_string(to, log_source_name(line->source));
        if (line->partial)
                *to++ = '+';
        *to++ = ' ';
        to = put_decimal(to, (uint64_t) line->pid);
        *to++ = ' ';
        return line->source == LOG_SOURCE_RECORD ? put_record(to, line) : put(to, line->text, line->size);
}

/* ---- JSON ---- */

static char *put_escaped(char *to, unsigned char c) {
        static const char shorts[] = { ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r' };

        if (c == '"' || c == '\\') {
                *to++ = '\\';
                *to++ = (char) c;
                return to;
        }
        if (c < sizeof(shorts) && shorts[c]) {
                *to++ = '\\';
                *to++ = shorts[c];
                return to;
        }
        return to + sprintf(to, "\\u%04x", c);
}

/* utf8_step() - bytes of the character at @text, of which @size are left; 0: not UTF-8. */
static size_t utf8_step(const char *text, size_t size) {
        for (size_t n = 2; n <= MIN(size, (size_t) 4); n++)
                if (utf8_is_valid(text, n))
                        return n;
        return 0;
}

static char *put_json_string(char *to, const char *text, size_t size) {
        *to++ = '"';
        for (size_t i = 0; i < size;) {
                unsigned char c = (unsigned char) text[i];
                size_t n = 1;

                if (c >= 0x80) {
                        n = utf8_step(text + i, size - i);
                        to = n ? put(to, text + i, n) : put(to, "\xef\xbf\xbd", 3);
                        n = MAX(n, (size_t) 1);
                } else if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
                        to = put_escaped(to, c);
                else
                        *to++ = (char) c;
                i += n;
        }
        *to++ = '"';
        return to;
}

static char *put_json_record(char *to, const LogLine *line) {
        to = put_string(to, ",\"level\":");
        to = put_json_string(to, log_level_name((int) line->level), strlen(log_level_name((int) line->level)));
        if (*line->target) {
                to = put_string(to, ",\"target\":");
                to = put_json_string(to, line->target, strlen(line->target));
        }
        if (!*line->file)
                return to;
        to = put_string(to, ",\"file\":");
        to = put_json_string(to, line->file, strlen(line->file));
        to = put_string(to, ",\"line\":");
        return put_decimal(to, line->line);
}

static char *put_json_line(char *to, const LogLine *line, const char *name) {
        to = put_string(to, "{\"time\":\"");
        to = put_time(to, line->time_us);
        to = put_string(to, "\",\"monotonic_us\":");
        to = put_decimal(to, line->monotonic_us);
        to = put_string(to, ",\"runner\":");
        to = put_json_string(to, name, strlen(name));
        to = put_string(to, ",\"seq\":");
        to = put_decimal(to, line->seq);
        to = put_string(to, ",\"instance\":");
        to = put_decimal(to, line->instance);
        to = put_string(to, ",\"pid\":");
        to = put_decimal(to, (uint64_t) line->pid);
        to = put_string(to, ",\"stream\":");
        to = put_json_string(to, log_source_name(line->source), strlen(log_source_name(line->source)));
        if (line->source == LOG_SOURCE_RECORD)
                to = put_json_record(to, line);
        to = put_string(to, ",\"text\":");
        to = put_json_string(to, line->text, line->size);
        if (line->partial)
                to = put_string(to, ",\"partial\":true");
        *to++ = '}';
        return to;
}

size_t log_line_write(const LogLine *line, const char *name, LogFormat format, char *buffer) {
        char *end = format == LOG_FORMAT_JSON ? put_json_line(buffer, line, name) : put_text_line(buffer, line);

        *end++ = '\n';
        return (size_t) (end - buffer);
}

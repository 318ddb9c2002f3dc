/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, calendar times: the five fields of crontab(5), as sets of numbers. The next time is looked for day by day, hour
 * by hour, minute by minute in local time, and each candidate is turned into a moment by mktime(): so a time that summer
 * time skips comes at the moment that the C library takes it for, an hour aside, and one that comes twice is taken once.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { DAYS_MAX = 8 * 366 }; /* a 29 February is at most so far away */

typedef struct Field {
        unsigned min, max;
        const char *const *names; /* of min, min + 1, ...; NULL: only numbers */
        size_t n_names;
} Field;

static const char *const month_names[] = { "jan", "feb", "mar", "apr", "may", "jun",
                                           "jul", "aug", "sep", "oct", "nov", "dec" };
static const char *const weekday_names[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };

static const Field fields[] = {
        { 0, 59, NULL, 0 },
        { 0, 23, NULL, 0 },
        { 1, 31, NULL, 0 },
        { 1, 12, month_names, ARRAY_SIZE(month_names) },
        { 0, 7, weekday_names, ARRAY_SIZE(weekday_names) }, /* 7 is Sunday, too */
};

/* parse_value() - a number or a name at @text; behind it in @ret_end. False: neither, or out of range. */
static bool parse_value(const Field *field, const char *text, unsigned *ret_value, const char **ret_end) {
        unsigned value = 0;
        size_t n = 0;

        for (size_t i = 0; i < field->n_names; i++)
                if (strncasecmp(text, field->names[i], 3) == 0) {
                        *ret_value = field->min + (unsigned) i;
                        *ret_end = text + 3;
                        return true;
                }
        for (; n < 3 && text[n] >= '0' && text[n] <= '9'; n++)
                value = value * 10 + (unsigned) (text[n] - '0');
        *ret_value = value;
        *ret_end = text + n;
        return n > 0 && value >= field->min && value <= field->max;
}

/* parse_item() - `*', N or N-M, each perhaps with /STEP, into @set. */
static bool parse_item(const Field *field, const char *text, uint64_t *set, const char **ret_end) {
        unsigned from = field->min, to = field->max, step = 1;
        bool range = *text == '*';

        if (range)
                text++;
        else if (!parse_value(field, text, &from, &text))
                return false;
        else
                to = from;
        if (!range && *text == '-') {
                if (!parse_value(field, text + 1, &to, &text) || to < from)
                        return false;
                range = true;
        }
        if (*text == '/') {
                const Field steps = { .min = 1, .max = field->max };

                if (!range || !parse_value(&steps, text + 1, &step, &text))
                        return false;
        }
        for (unsigned i = from; i <= to; i += step)
                *set |= UINT64_C(1) << i;
        *ret_end = text;
        return true;
}

/* parse_field() - items with commas between, up to a blank or the end. */
static bool parse_field(const Field *field, const char **text, uint64_t *ret_set) {
        uint64_t set = 0;

        for (;;) {
                if (!parse_item(field, *text, &set, text))
                        return false;
                if (**text != ',')
                        break;
                (*text)++;
        }
        *ret_set = set;
        return **text == '\0' || strchr(" \t", **text);
}

bool config_time_parse(const char *text, ConfigTime *ret_time) {
        uint64_t sets[ARRAY_SIZE(fields)];
        bool any[ARRAY_SIZE(fields)];

        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                text += strspn(text, " \t");
                any[i] = *text == '*';
                if (!parse_field(&fields[i], &text, &sets[i]))
                        return false;
        }
        text += strspn(text, " \t");
        if (*text)
                return false;
        *ret_time = (ConfigTime){
                .minutes = sets[0],
                .hours = (uint32_t) sets[1],
                .days = (uint32_t) sets[2],
                .months = (uint16_t) sets[3],
                .weekdays = (uint8_t) ((sets[4] | sets[4] >> 7) & 0x7f),
                .any_day = any[2],
                .any_weekday = any[4],
        };
        return true;
}

static bool matches_day(const ConfigTime *at, const struct tm *day) {
        bool in_month = at->days >> day->tm_mday & 1, in_week = at->weekdays >> day->tm_wday & 1;

        if (!(at->months >> (day->tm_mon + 1) & 1))
                return false;
        return at->any_day || at->any_weekday ? in_month && in_week : in_month || in_week;
}

/* next_in_day() - the first moment after @after, from hour @hour of the day @day on, that matches; or -1. */
static time_t next_in_day(const ConfigTime *at, const struct tm *day, int hour, time_t after) {
        for (; hour < 24; hour++) {
                if (!(at->hours >> hour & 1))
                        continue;
                for (int minute = 0; minute < 60; minute++) {
                        struct tm candidate = { .tm_year = day->tm_year,
                                                .tm_mon = day->tm_mon,
                                                .tm_mday = day->tm_mday,
                                                .tm_hour = hour,
                                                .tm_min = minute,
                                                .tm_isdst = -1 };
                        time_t moment;

                        if (!(at->minutes >> minute & 1))
                                continue;
                        moment = mktime(&candidate);
                        if (moment > after)
                                return moment;
                }
        }
        return -1;
}

/* next_time() - or -1: none in DAYS_MAX days. */
static time_t next_time(const ConfigTime *at, time_t after) {
        struct tm today;

        if (!localtime_r(&after, &today))
                return -1;
        for (int i = 0; i < DAYS_MAX; i++) {
                /* Noon is there on every day, and only once. */
                struct tm day = { .tm_year = today.tm_year,
                                  .tm_mon = today.tm_mon,
                                  .tm_mday = today.tm_mday + i,
                                  .tm_hour = 12,
                                  .tm_isdst = -1 };
                time_t moment;

                if (mktime(&day) == (time_t) -1)
                        return -1;
                if (!matches_day(at, &day))
                        continue;
                /* Two hours before, since the clock may have been set back: a minute's moment costs a microsecond. */
                moment = next_in_day(at, &day, i == 0 ? MAX(today.tm_hour - 2, 0) : 0, after);
                if (moment >= 0)
                        return moment;
        }
        return -1;
}

uint64_t config_schedule_next(const ConfigSchedule *schedule, uint64_t wall_us) {
        uint64_t next_us = USEC_INFINITY;

        for (unsigned i = 0; i < schedule->n_at; i++) {
                time_t moment = next_time(&schedule->at[i], (time_t) (wall_us / USEC_PER_SEC));

                if (moment >= 0)
                        next_us = MIN(next_us, (uint64_t) moment * USEC_PER_SEC);
        }
        return next_us;
}

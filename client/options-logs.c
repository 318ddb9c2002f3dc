/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Command line of `baton logs'. Its names are no program with options of its own, so options may come after them: what
 * everybody types is `baton logs web -f'.
 */

#include "client/options-logs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/options-internal.h"
#include "common/clock.h"
#include "common/log-line.h"
#include "common/parse.h"

/* ---- time ---- */

/* take_fraction() - ".5" at @*text, in microseconds. */
static uint64_t take_fraction(const char **text) {
        uint64_t fraction = 0, unit = USEC_PER_SEC / 10;

        if (**text != '.')
                return 0;
        for ((*text)++; **text >= '0' && **text <= '9'; (*text)++, unit /= 10)
                fraction += (uint64_t) (**text - '0') * unit;
        return fraction;
}

/* take_zone() - "Z" or "+01:00": seconds east of UTC in @ret_east. 0; 1: none is given, so it is local; -EINVAL. */
static int take_zone(const char *text, long *ret_east) {
        unsigned hours, minutes;
        int end = 0;

        if (!*text)
                return 1;
        *ret_east = 0;
        if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
                return 0;
        if ((*text != '+' && *text != '-') || sscanf(text + 1, "%2u:%2u%n", &hours, &minutes, &end) != 2 ||
            text[1 + end] || hours > 23 || minutes > 59)
                return -EINVAL;
        *ret_east = (long) (hours * 3600 + minutes * 60) * (*text == '-' ? -1 : 1);
        return 0;
}

static int parse_date(const char *text, uint64_t *ret_us) {
        static const char *const formats[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M",
                                               "%Y-%m-%d" };

        for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
                struct tm when = { .tm_isdst = -1 };
                const char *end = strptime(text, formats[i], &when);
                uint64_t fraction;
                time_t seconds;
                long east;
                int r;

                if (!end)
                        continue;
                fraction = take_fraction(&end);
                r = take_zone(end, &east);
                if (r < 0)
                        continue;
                seconds = r > 0 ? mktime(&when) : timegm(&when) - east;
                if (seconds < 0)
                        return -EINVAL;
                *ret_us = (uint64_t) seconds * USEC_PER_SEC + fraction;
                return 0;
        }
        return -EINVAL;
}

int logs_parse_time(const char *text, uint64_t now_us, uint64_t *ret_us) {
        uint64_t ago;

        if (parse_duration(text, &ago) < 0)
                return parse_date(text, ret_us);
        *ret_us = now_us - MIN(ago, now_us);
        return 0;
}

/* ---- options ---- */

static const struct option options[] = {
        { "follow", no_argument, NULL, 'f' },
        { "help", no_argument, NULL, OPTION_HELP },
        { "json", no_argument, NULL, OPTION_JSON },
        { "lines", required_argument, NULL, 'n' },
        { "since", required_argument, NULL, OPTION_DURATION },
        { "socket", required_argument, NULL, OPTION_NAME },
        { "stream", required_argument, NULL, OPTION_STREAM },
        { NULL, 0, NULL, 0 },
};

static int take_lines(LogsOptions *o, char *error) {
        uint64_t lines;

        if (strcmp(optarg, "all") == 0)
                lines = UINT32_MAX;
        else if (parse_u64(optarg, UINT32_MAX, &lines) < 0 || lines == 0)
                return ERROR(error, "--lines wants a number from 1 to 4294967295, or all, not '%.100s'", optarg);
        o->last = (uint32_t) lines;
        return 0;
}

static int take_stream(LogsOptions *o, char *error) {
        int source = log_source_parse(optarg);

        if (source < 0)
                return ERROR(error, "--stream wants stdout, stderr or record, not '%.100s'", optarg);
        o->sources |= 1u << source;
        return 0;
}

static int take_since(LogsOptions *o, char *error) {
        if (logs_parse_time(optarg, clock_wall(), &o->since_us) < 0)
                return ERROR(
                        error,
                        "--since wants a time, such as 2026-11-21T09:30:00Z, '2026-11-21 10:30' or 2026-11-21, or "
                        "how long ago, such as 10min, not '%.100s'",
                        optarg);
        return 0;
}

static int take(LogsOptions *o, int option, char *error) {
        switch (option) {
        case 'f':
                o->follow = true;
                return 0;
        case 'n':
                return take_lines(o, error);
        case OPTION_JSON:
                o->json = true;
                return 0;
        case OPTION_DURATION:
                return take_since(o, error);
        case OPTION_NAME:
                o->socket = optarg;
                return 0;
        case OPTION_STREAM:
                return take_stream(o, error);
        default:
                return -EINVAL;
        }
}

/* complain() - of an option that is none, or lacks its argument: getopt has stopped behind it. */
static int complain(int option, char **argv, char *error) {
        const char *text = argv[optind - 1];

        if (option == ':')
                return ERROR(error, "option '%.100s' needs an argument", text);
        return optopt >= OPTION_COUNT ? ERROR(error, "option '%.100s' takes no argument", text)
                                      : ERROR(error, "unknown option '%.100s'", text);
}

int logs_options_parse(int argc, char **argv, LogsOptions *ret_options, char *error) {
        int c;

        *ret_options = (LogsOptions){ 0 };
        options_begin();
        while ((c = getopt_long(argc, argv, ":fn:", options, NULL)) >= 0) {
                int r = c == OPTION_HELP       ? OPTIONS_HELP
                        : c == '?' || c == ':' ? complain(c, argv, error)
                                               : take(ret_options, c, error);

                if (r != 0)
                        return r;
        }
        ret_options->names = argv + optind;
        ret_options->n_names = (size_t) (argc - optind);
        if (ret_options->n_names == 0)
                return ERROR(error, "a runner's name, or a pattern such as 'web.*', is missing");
        if (ret_options->follow && ret_options->last == 0 && ret_options->since_us == 0)
                ret_options->last = LOGS_FOLLOW_LAST;
        return 0;
}

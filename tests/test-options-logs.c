/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of `baton logs', and the forms of a time. */

#include "client/options-logs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log-line.h"
#include "tests/test.h"

static int parse(const char *line, LogsOptions *options, char *error) {
        static char text[256];
        static char *argv[16];
        int argc = 0;

        (void) strcpy(text, line);
        for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
                argv[argc++] = word;
        argv[argc] = NULL;
        *error = '\0';
        return logs_options_parse(argc, argv, options, error);
}

static void test_options(void **state) {
        char error[OPTIONS_ERROR_MAX];
        LogsOptions o;

        (void) state;
        assert_int_equal(parse("logs web.1", &o, error), 0);
        assert_int_equal(o.n_names, 1);
        assert_string_equal(o.names[0], "web.1");
        assert_true(!o.follow && !o.json && o.last == 0 && o.since_us == 0 && o.sources == 0 && !o.socket);

        assert_int_equal(parse("logs web.1 -f db* -n 5 --json --stream=stderr --stream=record --socket=/s", &o, error),
                         0);
        assert_int_equal(o.n_names, 2);
        assert_string_equal(o.names[1], "db*");
        assert_true(o.follow && o.json);
        assert_int_equal(o.last, 5);
        assert_int_equal(o.sources, 1u << LOG_SOURCE_STDERR | 1u << LOG_SOURCE_RECORD);
        assert_string_equal(o.socket, "/s");

        assert_int_equal(parse("logs -f web", &o, error), 0);
        assert_int_equal(o.last, LOGS_FOLLOW_LAST);
        assert_int_equal(parse("logs -f -n all web", &o, error), 0);
        assert_int_equal(o.last, UINT32_MAX);
        assert_int_equal(parse("logs -f --since 10min web", &o, error), 0);
        assert_int_equal(o.last, 0);
        assert_true(o.since_us > 0 && o.since_us < clock_wall());
        assert_int_equal(parse("logs --help", &o, error), OPTIONS_HELP);
}

static void test_errors(void **state) {
        static const struct {
                const char *line, *error;
        } cases[] = {
                { "logs", "a runner's name, or a pattern such as 'web.*', is missing" },
                { "logs -f", "a runner's name, or a pattern such as 'web.*', is missing" },
                { "logs web -n", "option '-n' needs an argument" },
                { "logs web --since", "option '--since' needs an argument" },
                { "logs web --nope", "unknown option '--nope'" },
                { "logs web --json=1", "option '--json=1' takes no argument" },
                { "logs web -n 0", "--lines wants a number from 1 to 4294967295, or all, not '0'" },
                { "logs web --stream=out", "--stream wants stdout, stderr or record, not 'out'" },
                { "logs web --since=never", "--since wants a time, such as 2026-11-21T09:30:00Z, '2026-11-21 10:30' "
                                            "or 2026-11-21, or how long ago, "
                                            "such as 10min, not 'never'" },
        };
        char error[OPTIONS_ERROR_MAX];
        LogsOptions o;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                assert_int_equal(parse(cases[i].line, &o, error), -EINVAL);
                assert_string_equal(error, cases[i].error);
        }
}

static void test_times(void **state) {
        static const struct {
                const char *text;
                uint64_t us; /* 0: none */
        } cases[] = {
                { "2026-11-21T03:31:57Z", UINT64_C(1795231917000000) },
                { "2026-11-21T03:31:57.123456Z", UINT64_C(1795231917123456) },
                { "2026-11-21T03:31:57.5+00:30", UINT64_C(1795230117500000) },
                { "2026-11-21T03:31:57-01:00", UINT64_C(1795235517000000) },
                { "2026-11-21 03:31:57", UINT64_C(1795231917000000) }, /* local, which is UTC below */
                { "2026-11-21 03:31", UINT64_C(1795231860000000) },
                { "2026-11-21", UINT64_C(1795219200000000) },
                { "10s", UINT64_C(1795000000000000) - 10 * USEC_PER_SEC },
                { "0", UINT64_C(1795000000000000) },
                { "2026-11-21T03:31:57+24:00", 0 },
                { "2026-11-21T03:31:57Zulu", 0 },
                { "2026-13-21", 0 },
                { "yesterday", 0 },
                { "", 0 },
        };

        (void) state;
        assert_int_equal(setenv("TZ", "UTC", 1), 0);
        tzset();
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t us = 0;
                int r = logs_parse_time(cases[i].text, UINT64_C(1795000000000000), &us);

                assert_int_equal(r, cases[i].us ? 0 : -EINVAL);
                if (r == 0)
                        assert_int_equal(us, cases[i].us);
        }
        /* Longer ago than the epoch. */
        {
                uint64_t us;

                assert_int_equal(logs_parse_time("10s", 5, &us), 0);
                assert_int_equal(us, 0);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_options),
        TEST(test_errors),
        TEST(test_times),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

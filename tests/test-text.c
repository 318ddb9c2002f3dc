/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/text, by tables. */

#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "common/text.h"

static void test_mend(void **state) {
        static const struct {
                const char *text, *mended;
        } rows[] = {
                { "", "" },
                { "plain", "plain" },
                { "\xc3\xbc", "\xc3\xbc" },
                { "a\xff\xc3\xbc\x80z", "a?\xc3\xbc?z" },
                { "cut \xe2\x82", "cut ??" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char text[32];

                (void) snprintf(text, sizeof(text), "%s", rows[i].text);
                assert_int_equal(text_mend(text), strlen(rows[i].mended));
                assert_string_equal(text, rows[i].mended);
        }
}

static void test_cut(void **state) {
        static const struct {
                const char *text;
                size_t max;
                const char *left;
        } rows[] = {
                { "", 0, "" },           { "abc", 3, "abc" },       { "abc", 2, "ab" },
                { "a\xc3\xbc", 2, "a" }, { "\xe2\x82\xac", 2, "" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char text[32];

                (void) snprintf(text, sizeof(text), "%s", rows[i].text);
                text_cut(text, rows[i].max);
                assert_string_equal(text, rows[i].left);
        }
}

static void test_subject(void **state) {
        static const struct {
                const char *said, *text, *left;
        } rows[] = {
                { "stop web", "runner web: is not running", "is not running" },
                { "scale web", "template web: there is none of that name", "there is none of that name" },
                { "scale web", "web: is no template", "is no template" },
                { "takeover", "takeover: one is under way", "one is under way" },
                { "Takeover", "takeover: one is under way", "one is under way" },
                { "Signal web 1", "runner web: is not running", "is not running" },
                /* Somebody else's, or nobody's. */
                { "stop", "runner web: is not running", "runner web: is not running" },
                { "stop web.1", "runner web: is not running", "runner web: is not running" },
                { "stop web", "runner web.1: is not running", "runner web.1: is not running" },
                { "call M", "no such method: M", "no such method: M" },
                { "stop web", "web", "web" },
                { "stop web", "web is not running", "web is not running" },
                { "stop web", "web:", "web:" },
                { "stop web", ": web", ": web" },
                { "stop web", "", "" },
                { "", "runner web: is not running", "runner web: is not running" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                assert_string_equal(text_past_subject(rows[i].text, rows[i].said), rows[i].left);
}

static const struct CMUnitTest tests[] = { TEST(test_mend), TEST(test_cut), TEST(test_subject) };

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

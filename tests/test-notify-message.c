/* SPDX-License-Identifier: Apache-2.0 */

/* Messages of the sd_notify protocol: each line that is understood, those that are not, and where a text is cut. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/macro.h"
#include "supervisor/notify-message.h"
#include "tests/test.h"

static NotifyMessage parse(const char *text, const char *expected_why) {
        static char copy[NOTIFY_MESSAGE_MAX + 1];
        char why[NOTIFY_WHY_SIZE];
        NotifyMessage message;

        assert_true(strlen(text) < sizeof(copy));
        (void) strcpy(copy, text);
        assert_int_equal(notify_message_parse(copy, strlen(copy), &message, why), 0);
        assert_string_equal(why, expected_why);
        return message;
}

static void test_words(void **state) {
        static const struct {
                const char *text;
                unsigned words;
        } cases[] = {
                { "", 0 },
                { "\n\n", 0 },
                { "READY=1", NOTIFY_READY },
                { "READY=1\n", NOTIFY_READY },
                { "READY=0", 0 },
                { "READY=10", 0 },
                { "xREADY=1", 0 },
                { "RELOADING=1\nMONOTONIC_USEC=5", NOTIFY_RELOADING | NOTIFY_MONOTONIC_USEC },
                { "STOPPING=1", NOTIFY_STOPPING },
                { "WATCHDOG=1", NOTIFY_ALIVE },
                { "WATCHDOG=trigger", NOTIFY_TROUBLE },
                { "FDSTORE=1\nFDNAME=x\nFDPOLL=0", NOTIFY_FDSTORE },
                { "FDSTOREREMOVE=1", NOTIFY_FDSTOREREMOVE },
                { "BARRIER=1", NOTIFY_BARRIER },
                { "STATUS=\nERRNO=0", NOTIFY_STATUS | NOTIFY_ERRNO },
                { "MAINPID=1\nWATCHDOG_USEC=0\nEXTEND_TIMEOUT_USEC=3",
                  NOTIFY_MAINPID | NOTIFY_WATCHDOG_USEC | NOTIFY_EXTEND_TIMEOUT },
                { "BUSERROR=x\nEXIT_STATUS=3\n=\n==", 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                assert_int_equal(parse(cases[i].text, "").words, cases[i].words);
}

static void test_values(void **state) {
        NotifyMessage message = parse("STATUS=one\nSTATUS=two\nERRNO=4095\nMAINPID=2147483647\nWATCHDOG_USEC=7\n"
                                      "EXTEND_TIMEOUT_USEC=8\nMONOTONIC_USEC=9\nFDNAME=a b~\nFDPOLL=0",
                                      "");

        (void) state;
        assert_string_equal(message.status, "two");
        assert_int_equal(message.error, 4095);
        assert_int_equal(message.main_pid, 2147483647);
        assert_int_equal(message.watchdog_us, 7);
        assert_int_equal(message.extend_us, 8);
        assert_int_equal(message.monotonic_us, 9);
        assert_string_equal(message.fd_name, "a b~");
        assert_true(message.no_poll);
        assert_false(parse("FDPOLL=1", "").no_poll);
}

static void test_refused(void **state) {
        static const char *const cases[] = {
                "ERRNO=-1",           "ERRNO=4096",  "ERRNO=",          "MAINPID=0",
                "MAINPID=2147483648", "MAINPID= 1",  "WATCHDOG_USEC=x", "FDNAME=",
                "FDNAME=a:b",         "FDNAME=\x7f", "FDPOLL=2",        "EXTEND_TIMEOUT_USEC=1s",
                "MONOTONIC_USEC=-1"
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char why[64];

                (void) snprintf(why, sizeof(why), "%s", cases[i]);
                for (char *c = why; *c; c++)
                        *c = *c == 0x7f ? '?' : *c;
                assert_int_equal(parse(cases[i], why).words, 0);
        }
        assert_int_equal(parse("ERRNO=x\nREADY=1\nMAINPID=y", "ERRNO=x").words, NOTIFY_READY);
}

static void test_texts(void **state) {
        char text[600] = "STATUS=", zero[] = "READY=1\0\nX", why[NOTIFY_WHY_SIZE];
        NotifyMessage message;

        (void) state;
        assert_string_equal(parse("STATUS=a\x01\xff\xc3\xa4\x7f", "").status, "a??\xc3\xa4?");
        memset(text + 7, 'x', 500);
        assert_int_equal(strlen(parse(text, "").status), NOTIFY_STATUS_MAX);
        (void) snprintf(text, sizeof(text), "FDNAME=%0*d", NOTIFY_FD_NAME_MAX, 0);
        assert_int_equal(strlen(parse(text, "").fd_name), NOTIFY_FD_NAME_MAX);
        assert_int_equal(notify_message_parse(zero, sizeof(zero) - 1, &message, why), -EBADMSG);
}

static const struct CMUnitTest tests[] = {
        TEST(test_words),
        TEST(test_values),
        TEST(test_refused),
        TEST(test_texts),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

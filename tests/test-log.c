/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/log: levels, the form of a line, its bound, one write per line, errno. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"

/* Standard error is a packet socket while a line is made: each write is then one packet, seen as such. */
typedef struct Capture {
        int saved, reader;
} Capture;

static Capture capture_start(void) {
        int fds[2];

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        (void) fflush(stderr);
        Capture capture = { fd_dup(STDERR_FILENO), fds[0] };
        assert_true(capture.saved >= 0);
        assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
        fd_close(fds[1]);
        return capture;
}

/* capture_next() - the next line, or "" when there is none. */
static void capture_next(Capture capture, char *line, size_t size) {
        ssize_t n = recv(capture.reader, line, size - 1, MSG_DONTWAIT);

        line[n > 0 ? n : 0] = '\0';
}

static void capture_stop(Capture capture) {
        assert_int_equal(dup2(capture.saved, STDERR_FILENO), STDERR_FILENO);
        fd_close(capture.saved);
        fd_close(capture.reader);
}

static void test_line(void **state) {
        Capture capture = capture_start();
        char line[200];

        (void) state;
        log_open("test-log");
        log_set_level(LOG_LEVEL_NOTICE);
        log_error("runner %s: start failed: %d", "web.3", 7);
        capture_next(capture, line, sizeof(line));
        capture_stop(capture);
        assert_string_equal(line, "test-log: error: runner web.3: start failed: 7\n");
}

/* A reader that sleeps does not stop who writes; what it missed is said when it reads again. */
static void test_nobody_reads(void **state) {
        char text[4096], *line = text, *end;
        unsigned said = 0, lost = 0;
        int saved, fds[2];
        ssize_t n;

        (void) state;
        log_open("test-log");
        log_set_level(LOG_LEVEL_NOTICE);
        assert_int_equal(pipe(fds), 0);
        (void) fflush(stderr);
        saved = fd_dup(STDERR_FILENO);
        assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
        fd_close(fds[1]);
        for (int i = 0; i < 3000; i++)
                log_error("a line of some length, so that the pipe, which holds 64 KiB, is full before all are said");
        assert_true(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
        while ((n = read(fds[0], text, sizeof(text) - 1)) > 0)
                for (ssize_t i = 0; i < n; i++)
                        said += text[i] == '\n';
        log_error("last");
        n = read(fds[0], text, sizeof(text) - 1);
        assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
        fd_close(saved);
        fd_close(fds[0]);
        assert_true(n > 0);
        text[n] = '\0';
        assert_int_equal(sscanf(text, "test-log: warning: %u lines were lost here", &lost), 1);
        assert_int_equal(said + lost, 3000);
        end = strchr(line, '\n');
        assert_non_null(end);
        assert_string_equal(end + 1, "test-log: error: last\n");
}

static void test_levels(void **state) {
        static const int levels[] = { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO,
                                      LOG_LEVEL_DEBUG };

        (void) state;
        for (size_t set = 0; set < ARRAY_SIZE(levels); set++)
                for (size_t said = 0; said < ARRAY_SIZE(levels); said++) {
                        Capture capture = capture_start();
                        char line[200], expected[200] = "";

                        log_set_level(levels[set]);
                        log_message(levels[said], "x");
                        capture_next(capture, line, sizeof(line));
                        capture_stop(capture);
                        assert_int_equal(log_get_level(), levels[set]);
                        if (levels[said] <= levels[set])
                                (void) snprintf(expected, sizeof(expected), "test-log: %s: x\n",
                                                log_level_name(levels[said]));
                        assert_string_equal(line, expected);
                }
        log_set_level(LOG_LEVEL_NOTICE);
}

static void test_names(void **state) {
        static const struct {
                const char *text;
                int level;
        } rows[] = {
                { "error", 3 },        { "warning", 4 },    { "notice", 5 },    { "info", 6 },
                { "debug", 7 },        { "0", 0 },          { "7", 7 },         { "8", -EINVAL },
                { "", -EINVAL },       { "loud", -EINVAL }, { "emergency", 0 }, { "Error", -EINVAL },
                { "error ", -EINVAL }, { "-1", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (log_level_parse(rows[i].text) != rows[i].level)
                        fail_msg("\"%s\": expected %d", rows[i].text, rows[i].level);
        for (int level = 0; level <= 7; level++)
                assert_int_equal(log_level_parse(log_level_name(level)), level);
        assert_string_equal(log_level_name(-1), "level");
        assert_string_equal(log_level_name(8), "level");
}

static void test_environment(void **state) {
        Capture capture;
        char line[200];

        (void) state;
        assert_int_equal(setenv("BATON_LOG_LEVEL", "debug", 1), 0);
        log_open("test-log");
        assert_int_equal(log_get_level(), LOG_LEVEL_DEBUG);

        assert_int_equal(setenv("BATON_LOG_LEVEL", "loud", 1), 0);
        log_set_level(LOG_LEVEL_NOTICE);
        capture = capture_start();
        log_open("test-log");
        capture_next(capture, line, sizeof(line));
        capture_stop(capture);
        assert_int_equal(log_get_level(), LOG_LEVEL_NOTICE);
        assert_non_null(strstr(line, "BATON_LOG_LEVEL=loud"));
        assert_int_equal(unsetenv("BATON_LOG_LEVEL"), 0);
}

static void test_newlines_and_length(void **state) {
        Capture capture = capture_start();
        static char long_text[5000], line[8192];
        char second[16];

        (void) state;
        memset(long_text, 'a', sizeof(long_text) - 1);
        long_text[10] = '\n';
        long_text[20] = '\x1b';
        memcpy(long_text + 30, "\xc2\x9b\xc2\xa0", 4); /* a control, and none */
        log_error("%s", long_text);
        capture_next(capture, line, sizeof(line));
        capture_next(capture, second, sizeof(second));
        capture_stop(capture);
        assert_int_equal(strlen(line), 2048);
        assert_int_equal(line[2047], '\n');
        assert_ptr_equal(strchr(line, '\n'), line + 2047);
        assert_null(strchr(line, '\x1b'));
        assert_non_null(strstr(line, "a??\xc2\xa0"
                                     "a"));
        assert_string_equal(second, ""); /* one line, one write */
}

static void test_errno_is_kept_and_reported(void **state) {
        Capture capture = capture_start();
        char line[200];

        (void) state;
        errno = ENOENT;
        log_error("open: %m");
        assert_int_equal(errno, ENOENT);
        capture_next(capture, line, sizeof(line));
        capture_stop(capture);
        assert_string_equal(line, "test-log: error: open: No such file or directory\n");
}

/* A log that nobody reads stops nobody. */
static void test_unwritable(void **state) {
        int saved = fd_dup(STDERR_FILENO), full = open("/dev/full", O_WRONLY | O_CLOEXEC);

        (void) state;
        assert_int_equal(dup2(full, STDERR_FILENO), STDERR_FILENO);
        errno = EINTR;
        log_error("lost");
        assert_int_equal(errno, EINTR);
        assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
        fd_close(saved);
        fd_close(full);
}

static const struct CMUnitTest tests[] = {
        TEST(test_line),
        TEST(test_nobody_reads),
        TEST(test_levels),
        TEST(test_names),
        TEST(test_environment),
        TEST(test_newlines_and_length),
        TEST(test_errno_is_kept_and_reported),
        TEST(test_unwritable),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The file of a log: both formats to the byte, owner and mode, rotation by size and age and by somebody else, a disk that
 * is full and has room again, files that must not be opened, and what a killed writer leaves: all it wrote, nothing
 * twice, nothing halved.
 */

#include "supervisor/log-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct Fixture {
        char directory[100], path[128];
        LogConfig config;
        LogRing *ring;
        LogFile *file;
        char buffer[LOG_FILE_BUFFER_SIZE];
} Fixture;

static void open_file(Fixture *f) {
        assert_int_equal(log_file_new(&f->file, "web", f->path, &f->config), 0);
}

static Fixture *set_up(void) {
        LogRingFile wanted = { .wanted = true };
        Fixture *f = calloc(1, sizeof(*f));

        assert_non_null(f);
        (void) snprintf(f->directory, sizeof(f->directory), "%s/log-file-XXXXXX", getenv("TMPDIR"));
        assert_non_null(mkdtemp(f->directory));
        (void) snprintf(f->path, sizeof(f->path), "%s/web.log", f->directory);
        f->config = LOG_CONFIG_NULL;
        assert_int_equal(log_ring_new(&f->ring, "web", 1, LOG_RING_SIZE_MIN), 0);
        log_ring_set_file(f->ring, &wanted);
        open_file(f);
        return f;
}

static void remove_file(const Fixture *f, const char *suffix) {
        char path[160];

        (void) snprintf(path, sizeof(path), "%s%s", f->path, suffix);
        (void) unlink(path);
}

static void tear_down(Fixture *f) {
        remove_file(f, "");
        for (unsigned i = 1; i < 12; i++) {
                char suffix[16];

                (void) snprintf(suffix, sizeof(suffix), ".%u", i);
                remove_file(f, suffix);
        }
        (void) rmdir(f->directory);
        log_file_free(f->file);
        log_ring_free(f->ring);
        free(f);
}

static void say(Fixture *f, const char *text) {
        const LogLine line = {
                .source = LOG_SOURCE_STDOUT,
                .time_us = UINT64_C(1795231917123456), /* 2026-11-21T03:31:57.123456Z */
                .instance = UINT64_C(1) << 32 | 2,
                .pid = 4711,
                .text = text,
                .size = strlen(text),
        };

        log_ring_append(f->ring, &line, 0);
}

static int write_it(Fixture *f) {
        return log_file_write(f->file, f->ring, f->buffer);
}

#define HEAD "2026-11-21T03:31:57.123456Z stdout 4711 "

static void assert_content(const Fixture *f, const char *suffix, const char *expected) {
        static char content[100000];
        char path[160];
        FILE *file;
        size_t n;

        (void) snprintf(path, sizeof(path), "%s%s", f->path, suffix);
        file = fopen(path, "re");
        if (!expected) {
                assert_null(file);
                return;
        }
        assert_non_null(file);
        n = fread(content, 1, sizeof(content) - 1, file);
        (void) fclose(file);
        content[n] = '\0';
        assert_string_equal(content, expected);
}

/* ---- formats ---- */

static void assert_written(const LogLine *line, LogFormat format, const char *expected) {
        static char buffer[LOG_WRITTEN_MAX];
        size_t n = log_line_write(line, "web.1", format, buffer);

        assert_true(n > 0 && n < sizeof(buffer));
        buffer[n] = '\0';
        assert_string_equal(buffer, expected);
}

static void test_formats(void **state) {
        LogLine line = {
                .seq = 7,
                .time_us = UINT64_C(1795231917123456),
                .monotonic_us = 99,
                .instance = 5,
                .pid = 4711,
                .source = LOG_SOURCE_STDERR,
                .target = "",
                .file = "",
                .text = "a \"b\"\t\\ \xc3\xbc \xff\x01",
        };

        (void) state;
        line.size = strlen(line.text);
        assert_written(&line, LOG_FORMAT_TEXT,
                       "2026-11-21T03:31:57.123456Z stderr 4711 a \"b\"\t\\ \xc3\xbc \xff\x01\n");
        assert_written(&line, LOG_FORMAT_JSON,
                       "{\"time\":\"2026-11-21T03:31:57.123456Z\",\"monotonic_us\":99,\"runner\":\"web.1\",\"seq\":7,"
                       "\"instance\":5,\"pid\":4711,\"stream\":\"stderr\",\"text\":\"a \\\"b\\\"\\t\\\\ \xc3\xbc "
                       "\xef\xbf\xbd\\u0001\"}\n");
        line.partial = true;
        line.text = "x";
        line.size = 1;
        assert_written(&line, LOG_FORMAT_TEXT, "2026-11-21T03:31:57.123456Z stderr+ 4711 x\n");
        assert_written(&line, LOG_FORMAT_JSON,
                       "{\"time\":\"2026-11-21T03:31:57.123456Z\",\"monotonic_us\":99,\"runner\":\"web.1\",\"seq\":7,"
                       "\"instance\":5,\"pid\":4711,\"stream\":\"stderr\",\"text\":\"x\",\"partial\":true}\n");
        line.partial = false;
        line.source = LOG_SOURCE_RECORD;
        line.level = 4;
        line.text = "two\nlines";
        line.size = strlen(line.text);
        assert_written(&line, LOG_FORMAT_TEXT, "2026-11-21T03:31:57.123456Z record 4711 warning two\\nlines\n");
        line.target = "store";
        line.file = "store.c";
        line.line = 12;
        assert_written(&line, LOG_FORMAT_TEXT,
                       "2026-11-21T03:31:57.123456Z record 4711 warning store: two\\nlines (store.c:12)\n");
        assert_written(&line, LOG_FORMAT_JSON,
                       "{\"time\":\"2026-11-21T03:31:57.123456Z\",\"monotonic_us\":99,\"runner\":\"web.1\",\"seq\":7,"
                       "\"instance\":5,\"pid\":4711,\"stream\":\"record\",\"level\":\"warning\",\"target\":\"store\","
                       "\"file\":\"store.c\",\"line\":12,\"text\":\"two\\nlines\"}\n");
}

/* Every day of 400 years, against the C library. */
static void test_time(void **state) {
        (void) state;
        for (uint64_t day = 0; day < 146097; day++) {
                time_t seconds = (time_t) (day * 86400 + day % 86400);
                char text[LOG_TIME_SIZE], expected[32];
                struct tm when;

                log_time_write((uint64_t) seconds * USEC_PER_SEC + day, text);
                assert_non_null(gmtime_r(&seconds, &when));
                (void) strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S", &when);
                (void) snprintf(expected + 19, sizeof(expected) - 19, ".%06uZ", (unsigned) day);
                assert_string_equal(text, expected);
        }
}

/* The worst line fits into the room that is kept for it. */
static void test_worst_line(void **state) {
        static char text[LOG_TEXT_MAX], target[LOG_TARGET_MAX + 1], buffer[LOG_WRITTEN_MAX];
        char name[64];
        const LogLine line = {
                .seq = UINT64_MAX,
                .time_us = UINT64_C(253402300799999999),
                .monotonic_us = UINT64_MAX,
                .instance = UINT64_MAX,
                .pid = INT32_MAX,
                .source = LOG_SOURCE_RECORD,
                .level = 4,
                .line = UINT32_MAX,
                .partial = true,
                .target = target,
                .file = target,
                .text = text,
                .size = sizeof(text),
        };

        (void) state;
        memset(text, 1, sizeof(text));
        memset(target, 1, LOG_TARGET_MAX);
        memset(name, 'n', 63);
        name[63] = '\0';
        for (int format = 0; format < _LOG_FORMAT_N; format++)
                assert_true(log_line_write(&line, name, (LogFormat) format, buffer) < sizeof(buffer));
}

/* ---- writing ---- */

static void test_writes(void **state) {
        Fixture *f = set_up();
        struct stat file;

        (void) state;
        f->config.mode = 0604;
        (void) rmdir(f->directory); /* it is made */
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", NULL); /* nothing to write, no file */
        say(f, "one");
        say(f, "two");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "one\n" HEAD "two\n");
        assert_int_equal(stat(f->path, &file), 0);
        assert_int_equal(file.st_mode & 07777, 0604);
        say(f, "three");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "one\n" HEAD "two\n" HEAD "three\n");
        tear_down(f);
}

static void test_owner(void **state) {
        Fixture *f = set_up();
        struct stat file;

        (void) state;
        if (geteuid() != 0) {
                tear_down(f);
                skip();
        }
        f->config.uid = 1234;
        f->config.gid = 4321;
        say(f, "one");
        assert_int_equal(write_it(f), 0);
        assert_int_equal(stat(f->path, &file), 0);
        assert_int_equal(file.st_uid, 1234);
        assert_int_equal(file.st_gid, 4321);
        assert_int_equal(file.st_mode & 07777, LOG_MODE_DEFAULT);
        tear_down(f);
}

/* What is there is kept, and a line that lacks its end is ended. */
static void test_appends(void **state) {
        Fixture *f = set_up();
        FILE *file = fopen(f->path, "we");

        (void) state;
        assert_non_null(file);
        (void) fputs("old\nhal", file);
        (void) fclose(file);
        say(f, "new");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", "old\nhal\n" HEAD "new\n");
        tear_down(f);
}

/* ---- rotation ---- */

static void test_rotates_by_size(void **state) {
        Fixture *f = set_up();

        (void) state;
        f->config.max_size = 2 * strlen(HEAD "1\n");
        f->config.keep = 2;
        for (char text[2] = "1"; *text <= '9'; (*text)++)
                say(f, text);
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "9\n");
        assert_content(f, ".1", HEAD "7\n" HEAD "8\n");
        assert_content(f, ".2", HEAD "5\n" HEAD "6\n");
        assert_content(f, ".3", NULL);
        say(f, "a line that is longer than a file may be, and is written all the same");
        assert_int_equal(write_it(f), 0);
        assert_content(f, ".1", HEAD "9\n");
        assert_content(f, ".2", HEAD "7\n" HEAD "8\n");
        tear_down(f);
}

static void test_keeps_none(void **state) {
        Fixture *f = set_up();

        (void) state;
        f->config.max_size = strlen(HEAD "1\n");
        f->config.keep = 0;
        for (char text[2] = "1"; *text <= '5'; (*text)++)
                say(f, text);
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "5\n");
        assert_content(f, ".1", NULL);
        tear_down(f);
}

static void test_rotates_by_age(void **state) {
        Fixture *f = set_up();
        LogRingFile file;

        (void) state;
        f->config.max_age_us = 3600 * USEC_PER_SEC;
        f->config.keep = 3;
        say(f, "one");
        assert_int_equal(write_it(f), 0);
        say(f, "two");
        assert_int_equal(write_it(f), 0);
        assert_content(f, ".1", NULL);
        file = log_ring_state(f->ring)->file;
        file.began_us -= f->config.max_age_us;
        log_ring_set_file(f->ring, &file);
        say(f, "three");
        assert_int_equal(write_it(f), 0);
        assert_content(f, ".1", HEAD "one\n" HEAD "two\n");
        assert_content(f, "", HEAD "three\n");
        file = log_ring_state(f->ring)->file;
        file.began_us += 10 * f->config.max_age_us; /* the clock was set back: nothing happens */
        log_ring_set_file(f->ring, &file);
        say(f, "four");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "three\n" HEAD "four\n");
        tear_down(f);
}

/* Renamed, removed or shortened by somebody else: found within a second, without a signal. */
static void test_rotated_by_others(void **state) {
        Fixture *f = set_up();
        char other[160];

        (void) state;
        (void) snprintf(other, sizeof(other), "%s.9", f->path);
        say(f, "one");
        assert_int_equal(write_it(f), 0);
        assert_int_equal(rename(f->path, other), 0);
        seam_clock_set(clock_now() + 2 * USEC_PER_SEC);
        say(f, "two");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "two\n");
        assert_content(f, ".9", HEAD "one\n");

        assert_int_equal(unlink(f->path), 0);
        seam_clock_advance(2 * USEC_PER_SEC);
        say(f, "three");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "three\n");

        assert_int_equal(truncate(f->path, 0), 0);
        say(f, "four");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "four\n");
        tear_down(f);
}

/* A directory in the way: the file grows on, and no line is lost. */
static void test_cannot_rotate(void **state) {
        Fixture *f = set_up();
        char obstacle[160];

        (void) state;
        log_set_level(LOG_LEVEL_ERROR);
        f->config.max_size = strlen(HEAD "1\n");
        f->config.keep = 1;
        (void) snprintf(obstacle, sizeof(obstacle), "%s.1", f->path);
        assert_int_equal(mkdir(obstacle, 0700), 0);
        say(f, "1");
        say(f, "2");
        assert_int_equal(write_it(f), 0);
        say(f, "3");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "1\n" HEAD "2\n" HEAD "3\n");
        assert_int_equal(rmdir(obstacle), 0);
        log_set_level(LOG_LEVEL_NOTICE);
        tear_down(f);
}

/* ---- what fails ---- */

/* A link, a pipe, a directory: none is opened, whoever put it there. The lines wait in memory. */
static void test_not_a_file(void **state) {
        (void) state;
        log_set_level(LOG_LEVEL_ERROR - 1);
        for (int kind = 0; kind < 3; kind++) {
                Fixture *f = set_up();
                char victim[160];

                (void) snprintf(victim, sizeof(victim), "%s.9", f->path);
                if (kind == 0)
                        assert_int_equal(symlink(victim, f->path), 0);
                else if (kind == 1)
                        assert_int_equal(mkfifo(f->path, 0600), 0);
                else
                        assert_int_equal(mkdir(f->path, 0700), 0);
                say(f, "one");
                seam_clock_set(clock_now());
                assert_true(write_it(f) < 0);
                assert_true(log_file_error(f->file) < 0);
                assert_content(f, ".9", NULL);
                if (kind == 2)
                        assert_int_equal(rmdir(f->path), 0);
                else
                        assert_int_equal(unlink(f->path), 0);
                assert_true(write_it(f) < 0); /* not before its time */
                seam_clock_advance(LOG_FILE_RETRY_US);
                assert_int_equal(write_it(f), 0);
                assert_int_equal(log_file_error(f->file), 0);
                assert_content(f, "", HEAD "one\n");
                tear_down(f);
        }
        log_set_level(LOG_LEVEL_NOTICE);
}

static void test_no_descriptor(void **state) {
        Fixture *f = set_up();

        (void) state;
        log_set_level(LOG_LEVEL_ERROR - 1);
        seam_clock_set(clock_now());
        seam_fail_always(SEAM_OPEN, EMFILE);
        say(f, "one");
        assert_int_equal(write_it(f), -EMFILE);
        seam_pass(SEAM_OPEN);
        seam_clock_advance(LOG_FILE_RETRY_US);
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "one\n");
        log_set_level(LOG_LEVEL_NOTICE);
        tear_down(f);
}

/* fill_disk() - in a mount namespace of its own: a disk of 64 KiB becomes full and is made free again. */
static int fill_disk(void *argument) {
        enum { LINES = 4000 };
        Fixture *f = argument;
        unsigned next = 1, gaps = 0;
        char line[200], text[100], blocker[160];
        struct stat file;
        FILE *read;
        int fd;

        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("none", f->directory, "tmpfs", 0, "size=64k") < 0)
                return 77;
        (void) snprintf(blocker, sizeof(blocker), "%s/blocker", f->directory);
        fd = open(blocker, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, 0) < 0 || posix_fallocate(fd, 0, 40 * 1024) != 0)
                return 1;
        close(fd);
        seam_clock_set(clock_now());
        for (unsigned i = 1; i <= LINES; i++) {
                (void) snprintf(text, sizeof(text), "%u", i);
                say(f, text);
                if (i % 10 == 0)
                        (void) write_it(f);
        }
        if (log_file_error(f->file) != -ENOSPC || log_ring_state(f->ring)->dropped == 0)
                return 2;
        /* Not one byte of the batch that did not fit is there. */
        if (stat(f->path, &file) < 0 || (uint64_t) file.st_size != log_ring_state(f->ring)->file.length)
                return 3;
        if (unlink(blocker) < 0 || write_it(f) != -ENOSPC) /* not before its time */
                return 4;
        seam_clock_advance(LOG_FILE_RETRY_US);
        if (mount("none", f->directory, "tmpfs", MS_REMOUNT, "size=4m") < 0 || write_it(f) != 0)
                return 5;
        read = fopen(f->path, "re");
        while (read && fgets(line, sizeof(line), read)) {
                const char *gap = strstr(line, "baton: ");

                if (gap) {
                        gaps++;
                        next += (unsigned) strtoul(gap + 7, NULL, 10);
                        continue;
                }
                if (strtoul(line + strlen(HEAD), NULL, 10) != next++)
                        return 6;
        }
        if (read)
                (void) fclose(read);
        return next == LINES + 1 && gaps == 1 ? 0 : 7;
}

/* Lines are dropped and counted, the file tells of them where they would have been, and it goes on by itself. */
static void test_full_disk(void **state) {
        Fixture *f = set_up();
        int r;

        (void) state;
        r = test_child_wait(test_child(fill_disk, f));
        tear_down(f);
        if (r == 77)
                skip();
        assert_int_equal(r, 0);
}

/* ---- after a kill ---- */

/* What was written and not committed is written again, at the same place. */
static void test_truncates(void **state) {
        Fixture *f = set_up();
        FILE *file;

        (void) state;
        say(f, "one");
        assert_int_equal(write_it(f), 0);
        say(f, "two");
        file = fopen(f->path, "ae"); /* as the writer that was killed did */
        assert_non_null(file);
        (void) fputs(HEAD "two\n" HEAD "thr", file);
        (void) fclose(file);
        f->file = log_file_free(f->file);
        open_file(f);
        say(f, "three");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "one\n" HEAD "two\n" HEAD "three\n");
        tear_down(f);
}

/* Killed after the rename: the next one finds no file, and makes it. */
static void test_killed_in_rotation(void **state) {
        Fixture *f = set_up();
        char rotated[160];

        (void) state;
        say(f, "one");
        assert_int_equal(write_it(f), 0);
        (void) snprintf(rotated, sizeof(rotated), "%s.1", f->path);
        assert_int_equal(rename(f->path, rotated), 0);
        f->file = log_file_free(f->file);
        open_file(f);
        say(f, "two");
        assert_int_equal(write_it(f), 0);
        assert_content(f, "", HEAD "two\n");
        assert_content(f, ".1", HEAD "one\n");
        tear_down(f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_formats),         TEST(test_time),
        TEST(test_worst_line),      TEST(test_writes),
        TEST(test_owner),           TEST(test_appends),
        TEST(test_rotates_by_size), TEST(test_keeps_none),
        TEST(test_rotates_by_age),  TEST(test_rotated_by_others),
        TEST(test_cannot_rotate),   TEST(test_not_a_file),
        TEST(test_no_descriptor),   TEST(test_full_disk),
        TEST(test_truncates),       TEST(test_killed_in_rotation),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

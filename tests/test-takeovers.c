/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The history of takeovers: what one supervisor writes, the next one reads, in whatever state it was left; by programs that
 * know more of an entry, or less; and memory into which anything was written.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "supervisor/takeovers.h"
#include "tests/seam.h"
#include "tests/test.h"

enum { SIZE = 64 * 1024 };

/* memory_of() - as another version would make it. */
static int memory_of(uint32_t version, uint32_t cell, uint64_t begun, uint8_t **ret_memory) {
        void *memory;
        int fd;

        assert_int_equal(memfd_shared("test", SIZE, 0, &fd, &memory), 0);
        *ret_memory = memory;
        memcpy(*ret_memory, &(uint64_t){ UINT64_C(0x73726576616c6574) }, 8);
        memcpy(*ret_memory + 8, &version, 4);
        memcpy(*ret_memory + 12, &cell, 4);
        memcpy(*ret_memory + 16, &begun, 8);
        return fd;
}

static Takeovers *history(void) {
        Takeovers *takeovers;

        assert_int_equal(takeovers_new(&takeovers, NULL, NULL), 0);
        return takeovers;
}

static Takeovers *adopted(int fd) {
        Takeovers *takeovers = history();

        assert_int_equal(takeovers_adopt(takeovers, fd_dup(fd)), 0);
        return takeovers;
}

static void run(Takeovers *takeovers, TakeoverOutcome outcome, const char *reason) {
        takeovers_begin(takeovers, 1, "/usr/libexec/baton/baton-supervisor", false);
        takeovers_phase(takeovers, TAKEOVER_PHASE_START);
        takeovers_phase(takeovers, TAKEOVER_PHASE_COPY);
        takeovers_end(takeovers, outcome, reason);
}

static void test_nothing(void **state) {
        _cleanup_(takeovers_freep) Takeovers *takeovers = history();
        TakeoverEntry entry;

        (void) state;
        assert_false(takeovers_copy(takeovers, 0, &entry));
        takeovers_phase(takeovers, TAKEOVER_PHASE_COPY);
        takeovers_end(takeovers, TAKEOVER_DONE, NULL);
        assert_null(takeovers_current(takeovers));
        assert_false(takeovers_copy(takeovers, 0, &entry));
        assert_int_equal(takeovers_counts(takeovers).outcomes[TAKEOVER_DONE], 0);
        assert_string_equal(takeover_phase_name(_TAKEOVER_PHASE_N), "unknown");
        assert_string_equal(takeover_outcome_name(_TAKEOVER_OUTCOME_N), "unknown");
}

static void test_phases(void **state) {
        _cleanup_(takeovers_freep) Takeovers *takeovers = history();
        TakeoverEntry entry;

        (void) state;
        seam_clock_set(1000000);
        takeovers_begin(takeovers, 4, NULL, false);
        seam_clock_advance(10);
        takeovers_phase(takeovers, TAKEOVER_PHASE_START);
        seam_clock_advance(200);
        takeovers_phase(takeovers, TAKEOVER_PHASE_DELTA); /* the ones between were not gone through */
        seam_clock_advance(3000);
        takeovers_end(takeovers, TAKEOVER_ROLLED_BACK, "the successor refuses");
        assert_true(takeovers_copy(takeovers, 0, &entry));
        assert_int_equal(entry.number, 1);
        assert_int_equal(entry.former_generation, 4);
        assert_int_equal(entry.former_pid, getpid());
        assert_int_equal(entry.phase, TAKEOVER_PHASE_DELTA);
        assert_int_equal(takeover_phase_us(&entry, TAKEOVER_PHASE_CHECK), 10);
        assert_int_equal(takeover_phase_us(&entry, TAKEOVER_PHASE_START), 200);
        assert_int_equal(takeover_phase_us(&entry, TAKEOVER_PHASE_COPY), 0);
        assert_int_equal(takeover_phase_us(&entry, TAKEOVER_PHASE_DELTA), 3000);
        assert_string_equal(entry.reason, "the successor refuses");
        assert_string_equal(entry.program, "");
}

static void test_the_last_are_kept(void **state) {
        _cleanup_(takeovers_freep) Takeovers *takeovers = history();
        TakeoverEntry entry;
        char reason[16];

        (void) state;
        for (unsigned i = 1; i <= TAKEOVERS_KEPT + 5; i++) {
                (void) snprintf(reason, sizeof(reason), "reason %u", i);
                run(takeovers, TAKEOVER_ROLLED_BACK, reason);
        }
        for (size_t i = 0; i < TAKEOVERS_KEPT; i++) {
                assert_true(takeovers_copy(takeovers, i, &entry));
                assert_int_equal(entry.number, TAKEOVERS_KEPT + 5 - i);
                (void) snprintf(reason, sizeof(reason), "reason %u", (unsigned) entry.number);
                assert_string_equal(entry.reason, reason);
        }
        assert_false(takeovers_copy(takeovers, TAKEOVERS_KEPT, &entry));
        assert_int_equal(takeovers_counts(takeovers).outcomes[TAKEOVER_ROLLED_BACK], TAKEOVERS_KEPT + 5);
}

/* The successor goes on with the entry of its predecessor. */
static void test_two_write_one(void **state) {
        uint8_t *memory;
        _cleanup_fd_ int fd = memory_of(1, sizeof(TakeoverEntry), 0, &memory);
        _cleanup_(takeovers_freep) Takeovers *p = adopted(fd), *s = adopted(fd);
        TakeoverEntry entry, *current;

        (void) state;
        takeovers_begin(p, 1, NULL, false);
        takeovers_phase(p, TAKEOVER_PHASE_COMMIT);
        current = takeovers_current(s);
        assert_non_null(current);
        assert_int_equal(current->phase, TAKEOVER_PHASE_COMMIT);
        takeovers_phase(s, TAKEOVER_PHASE_RESUME);
        current->pause_us = 77;
        takeovers_end(s, TAKEOVER_DONE, NULL);
        assert_true(takeovers_copy(p, 0, &entry));
        assert_int_equal(entry.outcome, TAKEOVER_DONE);
        assert_int_equal(entry.pause_us, 77);
        assert_true(entry.phase_us[TAKEOVER_PHASE_CHECK] > 0 && entry.phase_us[TAKEOVER_PHASE_RESUME] > 0);
        assert_int_equal(takeovers_counts(p).last_pause_us, 77);
        (void) munmap(memory, SIZE);
}

static void test_deaths(void **state) {
        uint8_t *memory;
        _cleanup_fd_ int fd = memory_of(1, sizeof(TakeoverEntry), 0, &memory);
        _cleanup_(takeovers_freep) Takeovers *dead = adopted(fd), *next = adopted(fd), *last = adopted(fd);
        const KeeperDeath first = {
                .generation = 3, .pid = 33, .time_us = 5, .how = "was killed by signal 9 SIGKILL"
        };
        const KeeperDeath second = { .generation = 4, .pid = 44, .time_us = 6, .how = "exited with status 1", true };
        TakeoverEntry entry;

        (void) state;
        takeovers_begin(dead, 3, NULL, false);
        takeovers_phase(dead, TAKEOVER_PHASE_FREEZE);
        takeovers_died(next, &first);
        takeovers_recovered(next, 4);
        assert_true(takeovers_copy(next, 1, &entry));
        assert_int_equal(entry.outcome, TAKEOVER_CUT_OFF);
        assert_int_equal(entry.phase, TAKEOVER_PHASE_FREEZE);
        assert_non_null(strstr(entry.reason, "(pid 33) was killed by signal 9 SIGKILL"));
        assert_true(takeovers_copy(next, 0, &entry));
        assert_int_equal(entry.outcome, TAKEOVER_RECOVERED);
        assert_int_equal(entry.former_generation, 3);
        assert_int_equal(entry.generation, 4);
        assert_int_equal(entry.time_us, 5);

        /* That one dies before it has served: the keeper tells both, and the first is not told twice. */
        takeovers_died(last, &first);
        takeovers_died(last, &second);
        takeovers_recovered(last, 5);
        assert_true(takeovers_copy(last, 0, &entry));
        assert_int_equal(entry.number, 3);
        assert_int_equal(entry.outcome, TAKEOVER_WENT_BACK);
        assert_string_equal(entry.reason, "exited with status 1");
        assert_int_equal(takeovers_counts(last).outcomes[TAKEOVER_RECOVERED], 1);
        (void) munmap(memory, SIZE);
}

/* Of a program that knows less of an entry, or more: what both know is there, what else there is stays. */
static void test_other_versions(void **state) {
        static const uint32_t cells[] = { 256, sizeof(TakeoverEntry) + 64 };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(cells); i++) {
                uint8_t *memory;
                _cleanup_fd_ int fd = memory_of(1, cells[i], 0, &memory);
                _cleanup_(takeovers_freep) Takeovers *takeovers = adopted(fd);
                TakeoverEntry entry;

                memset(memory + 256, 'x', SIZE - 256);
                run(takeovers, TAKEOVER_ROLLED_BACK,
                    "a reason that is longer than what there is room for in the least of all "
                    "cells that there may be, so that it is cut off somewhere");
                run(takeovers, TAKEOVER_CHECKED, NULL);
                assert_true(takeovers_copy(takeovers, 0, &entry));
                assert_int_equal(entry.outcome, TAKEOVER_CHECKED);
                assert_true(takeovers_copy(takeovers, 1, &entry));
                assert_int_equal(entry.outcome, TAKEOVER_ROLLED_BACK);
                assert_memory_equal(entry.reason, "a reason that", 13);
                assert_int_equal(memory[256 + 2 * cells[i]], 'x');
                (void) munmap(memory, SIZE);
        }
}

static void test_unusable(void **state) {
        static const struct {
                uint32_t version, cell;
        } unusable[] = { { 0, 512 }, { 2, 512 }, { 1, 0 }, { 1, 248 }, { 1, 513 }, { 1, UINT32_MAX }, { 1, SIZE } };
        _cleanup_(takeovers_freep) Takeovers *takeovers = history();
        uint8_t *memory;
        int fd;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(unusable); i++) {
                fd = memory_of(unusable[i].version, unusable[i].cell, 0, &memory);
                assert_int_equal(takeovers_adopt(takeovers, fd), -EPROTO);
                (void) munmap(memory, SIZE);
        }
        fd = memory_of(1, 512, 0, &memory);
        memset(memory, 0, 8);
        assert_int_equal(takeovers_adopt(takeovers, fd), -EPROTO);
        (void) munmap(memory, SIZE);
        assert_int_equal(memfd_sealed("test", "short", 5, &fd), 0);
        assert_true(takeovers_adopt(takeovers, fd) < 0);
        run(takeovers, TAKEOVER_CHECKED, NULL); /* and so there is a new one */
        assert_int_equal(takeovers_counts(takeovers).outcomes[TAKEOVER_CHECKED], 1);
}

/* A supervisor that writes anywhere has written here, too, before it died of that. */
static void test_scribbled(void **state) {
        uint8_t *memory;
        _cleanup_fd_ int fd = memory_of(1, 640, 7, &memory);
        _cleanup_(takeovers_freep) Takeovers *takeovers = adopted(fd);
        TakeoverEntry entry;

        (void) state;
        memset(memory + 256, 0xff, SIZE - 256);
        for (size_t i = 0; i < TAKEOVERS_KEPT; i++)
                assert_false(takeovers_copy(takeovers, i, &entry));
        memset(memory + 256 + 6 * 640, 0xff, 640);
        memcpy(memory + 256 + 6 * 640, &(uint64_t){ 7 }, 8); /* the number is right, nothing else */
        assert_false(takeovers_copy(takeovers, 0, &entry));
        memcpy(memory + 12, &(uint32_t){ UINT32_MAX }, 4); /* and now the size of a cell */
        memcpy(memory + 16, &(uint64_t){ UINT64_MAX }, 8);
        (void) takeovers_copy(takeovers, 0, &entry);
        run(takeovers, TAKEOVER_ROLLED_BACK, "\xff not UTF-8");
        (void) munmap(memory, SIZE);
}

static void test_reasons_are_text(void **state) {
        _cleanup_(takeovers_freep) Takeovers *takeovers = history();
        char long_one[2 * TAKEOVER_REASON_SIZE];
        TakeoverEntry entry;

        (void) state;
        run(takeovers, TAKEOVER_ROLLED_BACK, "bytes \xff\xfe");
        assert_true(takeovers_copy(takeovers, 0, &entry));
        assert_string_equal(entry.reason, "bytes ??");
        memset(long_one, 'a', sizeof(long_one) - 1);
        long_one[sizeof(long_one) - 1] = '\0';
        run(takeovers, TAKEOVER_ROLLED_BACK, long_one);
        assert_true(takeovers_copy(takeovers, 0, &entry));
        assert_int_equal(strlen(entry.reason), TAKEOVER_REASON_SIZE - 1);
        takeovers_begin(takeovers, 1, long_one, true);
        assert_int_equal(strlen(takeovers_current(takeovers)->program), TAKEOVER_PROGRAM_SIZE - 1);
}

/* Without memory there is none, and nobody notices. */
static void test_no_memory(void **state) {
        static const SeamCall calls[] = { SEAM_MEMFD_CREATE, SEAM_FTRUNCATE, SEAM_MMAP };
        TakeoverEntry entry;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                _cleanup_(takeovers_freep) Takeovers *takeovers = history();

                seam_fail(calls[i], 1, ENOMEM);
                run(takeovers, TAKEOVER_ROLLED_BACK, "nobody reads this");
                assert_int_equal(seam_hits(calls[i]), 1);
                assert_false(takeovers_copy(takeovers, 0, &entry));
                run(takeovers, TAKEOVER_ROLLED_BACK, "but this");
                assert_true(takeovers_copy(takeovers, 0, &entry));
                assert_string_equal(entry.reason, "but this");
                seam_reset();
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_nothing),          TEST(test_phases),         TEST(test_the_last_are_kept), TEST(test_two_write_one),
        TEST(test_deaths),           TEST(test_other_versions), TEST(test_unusable),          TEST(test_scribbled),
        TEST(test_reasons_are_text), TEST(test_no_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

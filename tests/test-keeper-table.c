/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper's table of slots and descriptors, as a unit. */

#include "supervisor/keeper/table.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/keeper-message.h"
#include "supervisor/keeper/dump.h"
#include "supervisor/keeper/port.h"
#include "tests/seam.h"
#include "tests/test.h"

static void name_of(char ret_name[KEEPER_NAME_SIZE], const char *text) {
        memset(ret_name, 0, KEEPER_NAME_SIZE);
        memcpy(ret_name, text, MIN(strlen(text), (size_t) KEEPER_NAME_SIZE));
}

static int reserve_as(Table *table, uint64_t instance, const char *text, uint32_t flags) {
        uint8_t record[KEEPER_RECORD_SIZE] = { (uint8_t) instance };
        char name[KEEPER_NAME_SIZE];

        name_of(name, text);
        return table_reserve(table, instance, name, flags, record);
}

static int reserve(Table *table, uint64_t instance, const char *text) {
        return reserve_as(table, instance, text, 0);
}

/* A pack that is larger than whatever the socket may hold is told message by message. */
static void test_pack_too_large(void **state) {
        Port port = PORT_NULL;
        Table *table = NULL;
        KeeperMessage m;
        unsigned n = 0;
        int peer, small = 1;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        for (uint64_t i = 1; i <= KEEPER_PACK_MAX; i++) {
                char name[16];

                (void) snprintf(name, sizeof(name), "r%u", (unsigned) i);
                assert_int_equal(reserve(table, i, name), 0);
        }
        assert_int_equal(port_open(&port, &peer), 0);
        assert_int_equal(setsockopt(port.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
        port.packs = true;
        port.dump = PORT_DUMP_SLOTS;
        assert_int_equal(dump_flush(&port, table), PORT_RETRY);
        assert_false(port.packs);
        while (n < KEEPER_PACK_MAX) {
                PortFlushed r = dump_flush(&port, table);

                assert_true(r == PORT_FULL || r == PORT_SENT);
                while (n < KEEPER_PACK_MAX &&
                       recv(peer, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC) == (ssize_t) sizeof(m)) {
                        assert_int_equal(m.type, KEEPER_SLOT);
                        n++;
                }
        }
        port_close(&port);
        fd_close(peer);
        table_free(table);
}

static void test_table_slots(void **state) {
        static const char long_name[] = "0123456789012345678901234567890123456789012345678901234567890123";
        Table *table = NULL;
        TableSlot *slot;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve(table, 0, "a"), -EINVAL);
        assert_int_equal(reserve(table, 1, ""), -EINVAL);
        assert_int_equal(strlen(long_name), KEEPER_NAME_SIZE);
        assert_int_equal(reserve(table, 1, long_name), -EINVAL);
        assert_int_equal(reserve(table, 1, long_name + 1), 0);
        assert_int_equal(reserve(table, 1, "a"), -EEXIST);
        assert_int_equal(reserve(table, 2, "a"), 0);
        assert_int_equal(reserve(table, 3, "a"), 0);
        assert_int_equal(reserve(table, 4, "a"), -EBUSY);
        assert_int_equal(table_count(table).slots, 3);

        assert_int_equal(table_born(table, 4, 100), -ENOENT);
        assert_int_equal(table_born(table, 2, 100), 0);
        assert_int_equal(table_born(table, 2, 101), -EALREADY);
        slot = table_find_pid(table, 100);
        assert_ptr_equal(slot, table_find(table, 2));
        table_exited(table, slot, CLD_EXITED, 3);
        assert_null(table_find_pid(table, 100));
        assert_int_equal(table_born(table, 3, 100), 0); /* the number's next owner */
        table_exited(table, table_find(table, 3), CLD_KILLED, 9);

        assert_ptr_equal(table_next_exit(table), slot); /* the first to exit is the first to be told */
        table_reported(table, slot);
        assert_int_equal(table_next_exit(table)->instance, 3);
        table_free_slot(table, table_find(table, 3));
        assert_null(table_next_exit(table));
        table_free_slot(table, slot);
        assert_int_equal(reserve(table, 4, "a"), 0);
        assert_int_equal(table_count(table).slots, 2);
        assert_null(table_free(table));
}

static void test_table_full(void **state) {
        Table *table = NULL;
        TableCount count;
        char name[32];
        int r = 0;

        (void) state;
        assert_int_equal(table_new(&table, 64), 0);
        count = table_count(table);
        for (uint64_t i = 1; r == 0; i++) {
                (void) snprintf(name, sizeof(name), "n%llu", (unsigned long long) i);
                r = reserve(table, i, name);
        }
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(table_count(table).slots, count.slots_max);
        table_free_slot(table, table_find(table, 7));
        assert_int_equal(reserve(table, 1000, "again"), 0);
        assert_null(table_free(table));

        seam_fail(SEAM_MMAP, 1, ENOMEM);
        assert_int_equal(table_new(&table, 64), -ENOMEM);
}

static int a_descriptor(void) {
        return fd_dup(STDIN_FILENO);
}

static void test_table_fds(void **state) {
        Table *table = NULL;
        int before = fd_count();
        unsigned long limit;
        int n = 0;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        assert_int_equal(table_put(table, 2, KEEPER_FD_LOG, 1, false, a_descriptor()), -ENOENT);
        assert_int_equal(table_put(table, 1, KEEPER_FD_NONE, 1, false, a_descriptor()), -EINVAL);
        assert_int_equal(table_put(table, 1, _KEEPER_FD_KIND_N, 1, false, a_descriptor()), -EINVAL);
        assert_int_equal(fd_count(), before);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1, false, a_descriptor()), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1, false, a_descriptor()), -EEXIST);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 2, false, a_descriptor()), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LANE, 1, false, a_descriptor()), 0);
        assert_int_equal(fd_count(), before + 3);
        assert_int_equal(table_drop(table, 1, KEEPER_FD_LOG, 3), -ENOENT);
        assert_int_equal(table_drop(table, 2, KEEPER_FD_LOG, 1), -ENOENT);
        assert_int_equal(table_drop(table, 1, KEEPER_FD_LOG, 1), 0);
        assert_int_equal(fd_count(), before + 2);
        table_free_slot(table, table_find(table, 1));
        assert_int_equal(fd_count(), before);
        assert_int_equal(table_count(table).fds, 0);
        assert_null(table_free(table));

        /* More descriptors than entries cannot be, fewer numbers than the headroom can. */
        assert_int_equal(table_new(&table, 100), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        limit = test_limit_fds(90);
        while (table_put(table, 1, KEEPER_FD_LOG, (uint64_t) n, false, a_descriptor()) == 0)
                n++;
        test_restore_fds(limit);
        assert_in_range(n, 1, 100 - TABLE_FD_HEADROOM);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1000, false, a_descriptor()), -EMFILE);
        assert_int_equal(table_drop(table, 1, KEEPER_FD_LOG, 0), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1000, false, a_descriptor()), 0);
        assert_null(table_free(table));
        assert_int_equal(fd_count(), before);
}

/* The pidfd of a process is one and the same until it is reaped, or is another one; where there is no room for it it is none. */
static void test_table_pidfd(void **state) {
        size_t before = fd_count();
        Table *table = NULL;
        TableSlot *slot;
        rlim_t limit;
        int pidfd;

        (void) state;
        assert_int_equal(table_new(&table, TABLE_FD_HEADROOM), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        assert_int_equal(table_born(table, 1, getpid()), 0);
        assert_int_equal(table_pidfd(table, table_find(table, 1)), -1);
        assert_null(table_free(table));
        assert_int_equal(fd_count(), before);

        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        assert_int_equal(table_born(table, 1, getpid()), 0);
        slot = table_find(table, 1);
        limit = test_limit_fds(0);
        assert_int_equal(table_pidfd(table, slot), -1);
        test_restore_fds(limit);
        pidfd = table_pidfd(table, slot);
        assert_true(fd_process_lives(pidfd));
        assert_int_equal(table_pidfd(table, slot), pidfd);
        assert_int_equal(fd_count(), before + 1);
        table_follow(table, slot, getppid());
        assert_int_equal(fd_count(), before);
        assert_true(table_pidfd(table, slot) >= 0);
        table_exited(table, slot, CLD_EXITED, 0);
        assert_int_equal(fd_count(), before);
        assert_null(table_free(table));

        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        assert_int_equal(table_born(table, 1, getpid()), 0);
        assert_true(table_pidfd(table, table_find(table, 1)) >= 0);
        assert_null(table_free(table));
        assert_int_equal(fd_count(), before);
}

/* What is kept without a process, beside those that have one; which of them is active; what the supervisor owes. */
static void test_table_kept(void **state) {
        Table *table = NULL;
        TableSlot *slot;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve_as(table, 1, "a", KEEPER_FLAG_KEPT), 0);
        assert_int_equal(reserve_as(table, 2, "a", KEEPER_FLAG_KEPT), -EBUSY);
        assert_int_equal(table_find(table, 1)->state, TABLE_KEPT);
        assert_int_equal(table_find(table, 1)->record[0], 1);
        assert_int_equal(table_born(table, 1, 100), -EALREADY); /* never has a process */
        assert_int_equal(reserve(table, 2, "a"), 0);
        assert_int_equal(reserve(table, 3, "a"), 0);
        assert_int_equal(reserve(table, 4, "a"), -EBUSY);

        assert_int_equal(table_born(table, 2, 100), 0);
        assert_int_equal(table_born(table, 3, 101), 0);
        assert_int_equal(table_count(table).unstarted, 2);
        table_started(table, table_find(table, 2));
        table_started(table, table_find(table, 2));
        assert_int_equal(table_count(table).unstarted, 1);
        table_doom(table, table_find(table, 3));
        table_started(table, table_find(table, 3));
        assert_int_equal(table_count(table).unstarted, 0);
        table_activate(table, table_find(table, 2));
        table_activate(table, table_find(table, 3));
        assert_false(table_find(table, 2)->active);
        assert_true(table_find(table, 3)->active);
        assert_true(table_find(table, 2)->past);
        table_activate(table, table_find(table, 2));
        assert_true(table_find(table, 3)->past && !table_find(table, 2)->past);
        table_activate(table, table_find(table, 3));

        slot = table_find(table, 2);
        table_exited(table, slot, CLD_EXITED, 3);
        assert_int_equal(table_count(table).exited, 1);
        assert_int_equal(table_keep(table, slot), -EBUSY);
        table_free_slot(table, table_find(table, 1));
        assert_int_equal(table_keep(table, slot), 0);
        assert_int_equal(table_count(table).exited, 0);
        assert_null(table_next_exit(table));
        assert_int_equal(slot->pid, 0);
        assert_int_equal(reserve(table, 5, "a"), 0); /* it does not count among those that have a process */
        assert_null(table_free(table));
}

static void test_table_report_again(void **state) {
        Table *table = NULL;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        for (uint64_t i = 1; i <= 4; i++) {
                char name[] = { (char) ('a' + i), '\0' };

                assert_int_equal(reserve(table, i, name), 0);
                assert_int_equal(table_born(table, i, (pid_t) (100 + i)), 0);
                table_exited(table, table_find(table, i), CLD_EXITED, 0);
        }
        for (int i = 0; i < 3; i++)
                table_reported(table, table_next_exit(table));
        table_free_slot(table, table_find(table, 2));
        table_report_again(table);
        for (uint64_t i = 1; i <= 4; i++) {
                if (i == 2)
                        continue;
                assert_int_equal(table_next_exit(table)->instance, i);
                table_reported(table, table_next_exit(table));
        }
        assert_null(table_next_exit(table));
        assert_null(table_free(table));
}

/* Everything that stays is met once, whatever comes and goes meanwhile; the table's own slot has descriptors only. */
static void test_table_walk(void **state) {
        size_t cursor = 0, n = 0;
        Table *table = NULL;
        int before = fd_count();

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(table_put(table, 0, KEEPER_FD_CONTROL, 0, false, a_descriptor()), 0);
        assert_null(table_find(table, 0));
        for (uint64_t i = 1; i <= 6; i++) {
                char name[] = { (char) ('a' + i), '\0' };

                assert_int_equal(reserve(table, i, name), 0);
                assert_int_equal(table_put(table, i, KEEPER_FD_LOG, 1, false, a_descriptor()), 0);
        }
        assert_int_equal(table_walk_slots(table, &cursor)->instance, 1);
        assert_int_equal(table_walk_slots(table, &cursor)->instance, 2);
        table_free_slot(table, table_find(table, 1));
        table_free_slot(table, table_find(table, 3));
        table_free_slot(table, table_find(table, 6));
        assert_int_equal(table_walk_slots(table, &cursor)->instance, 4);
        assert_int_equal(table_walk_slots(table, &cursor)->instance, 5);
        assert_null(table_walk_slots(table, &cursor));
        for (cursor = 0; table_walk_fds(table, &cursor); n++)
                ;
        assert_int_equal(n, 4); /* of 2, 4, 5, and the table's own */

        assert_int_equal(table_put(table, 2, KEEPER_FD_LOG, 1, false, a_descriptor()), -EEXIST);
        assert_int_equal(table_put(table, 2, KEEPER_FD_LOG, 1, true, a_descriptor()), 0);
        assert_int_equal(table_find(table, 2)->n_fds, 1);
        assert_true(table_get(table_find(table, 2), KEEPER_FD_LOG, 1) >= 0);
        assert_int_equal(table_get(table_find(table, 2), KEEPER_FD_LOG, 2), -1);
        assert_int_equal(fd_count(), before + 4);
        assert_null(table_free(table));
        assert_int_equal(fd_count(), before);
}

/* ------------------------------------------------------------------------------------------------------------- answers */

/* Successes in a row are one message, which has the serial of the last of them or of the failure behind them. */
static void test_port_answers(void **state) {
        static const struct {
                uint32_t serial;
                int result;
        } expected[] = { { 3, 0 }, { 5, -EBUSY }, { 6, -EBUSY }, { 8, 0 } };
        static const int results[] = { 0, 0, 0, 0, -EBUSY, -EBUSY, 0, 0 };
        Table *table = NULL;
        Port port;
        int peer;

        (void) state;
        assert_int_equal(table_new(&table, 64), 0);
        assert_int_equal(port_open(&port, &peer), 0);
        port.dump = PORT_DUMP_DONE;
        for (uint32_t i = 0; i < ARRAY_SIZE(results); i++) {
                assert_int_equal(port_answer(&port, i + 1, results[i]), 0);
                if (i == 2)
                        assert_int_equal(port_flush(&port, table), PORT_SENT);
        }
        assert_int_equal(port_flush(&port, table), PORT_SENT);
        for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
                KeeperMessage m;

                assert_int_equal(recv(peer, &m, sizeof(m), MSG_DONTWAIT), sizeof(m));
                assert_int_equal(m.type, KEEPER_DONE);
                assert_int_equal(m.serial, expected[i].serial);
                assert_int_equal(m.result, expected[i].result);
        }
        for (uint32_t i = 0; i < KEEPER_WINDOW; i++)
                assert_int_equal(port_answer(&port, i + 1, -EBUSY), 0);
        assert_int_equal(port_answer(&port, KEEPER_WINDOW + 1, 0), -ENOBUFS);
        port_close(&port);
        fd_close(peer);
        assert_null(table_free(table));
}

/* tell_all() - how many slots and descriptors were changed; each counts once. */
static size_t tell_all(Table *table, size_t *ret_fds) {
        size_t n = 0;

        *ret_fds = 0;
        for (; table_next_changed(table, NULL); n++)
                table_told(table, table_next_changed(table, NULL));
        for (; table_next_changed_fd(table, NULL); (*ret_fds)++)
                table_told_fd(table, table_next_changed_fd(table, NULL));
        return n;
}

static void test_table_watch(void **state) {
        size_t n_fds, free_before;
        Table *table = NULL;
        TableSlot *slot;

        (void) state;
        assert_int_equal(table_new(&table, 1024), 0);
        assert_int_equal(reserve(table, 1, "a"), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1, false, fd_dup(0)), 0);
        assert_int_equal(table_put(table, 0, KEEPER_FD_RING, 1, false, fd_dup(0)), 0);
        assert_null(table_next_changed(table, NULL)); /* nobody watches */
        table_watch(table);
        assert_int_equal(tell_all(table, &n_fds), 1);
        assert_int_equal(n_fds, 2);

        /* However often it changes, it is told once; what came and went is not told at all. */
        slot = table_find(table, 1);
        assert_int_equal(table_born(table, 1, 100), 0);
        table_started(table, slot);
        table_activate(table, slot);
        table_activate(table, slot);
        assert_int_equal(reserve(table, 2, "b"), 0);
        assert_int_equal(table_put(table, 2, KEEPER_FD_LOG, 1, false, fd_dup(0)), 0);
        table_free_slot(table, table_find(table, 2));
        assert_ptr_equal(table_next_changed(table, NULL), slot);
        assert_int_equal(tell_all(table, &n_fds), 1);
        assert_int_equal(n_fds, 0);

        /* What was told and is gone keeps its place until that was told. */
        assert_int_equal(reserve(table, 3, "c"), 0);
        assert_int_equal(tell_all(table, &n_fds), 1);
        table_free_slot(table, table_find(table, 3));
        assert_null(table_find(table, 3));
        assert_int_equal(table_count(table).slots, 1);
        assert_int_equal(table_next_changed(table, NULL)->state, TABLE_GONE);
        assert_int_equal(table_next_changed(table, NULL)->instance, 3);
        assert_int_equal(table_drop(table, 0, KEEPER_FD_RING, 1), 0);
        assert_int_equal(table_put(table, 0, KEEPER_FD_RING, 1, false, fd_dup(0)), 0);
        assert_int_equal(table_next_changed_fd(table, NULL)->fd, -1);
        assert_int_equal(tell_all(table, &n_fds), 1);
        assert_int_equal(n_fds, 2);
        assert_int_equal(table_put(table, 0, KEEPER_FD_RING, 1, true, fd_dup(0)), 0);
        assert_int_equal(table_next_changed_fd(table, NULL)->tag, 1);

        /* With the end of it all places are free again. */
        free_before = table_count(table).fds;
        table_exited(table, slot, CLD_EXITED, 0);
        table_free_slot(table, slot);
        table_unwatch(table);
        assert_null(table_next_changed(table, NULL));
        assert_null(table_next_changed_fd(table, NULL));
        assert_int_equal(table_count(table).fds, free_before - 1);
        assert_null(table_first(table));
        for (uint64_t i = 0; i < table_count(table).slots_max; i++) {
                char name[32];

                (void) snprintf(name, sizeof(name), "s%d", (int) i);
                assert_int_equal(reserve(table, 10 + i, name), 0);
        }
        table_free(table);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_pack_too_large),     TEST(test_table_slots), TEST(test_table_full),
                TEST(test_table_fds),          TEST(test_table_pidfd), TEST(test_table_kept),
                TEST(test_table_report_again), TEST(test_table_walk),  TEST(test_port_answers),
                TEST(test_table_watch),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

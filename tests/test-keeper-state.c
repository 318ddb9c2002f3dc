/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The state of a keeper, written down and read by the program that goes on: what comes back, what of other versions is
 * understood, and what is refused.
 */

#include "supervisor/keeper/state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "tests/test.h"

enum { RECORD_UNKNOWN = 99 };

static const KeeperOptions options = { .private_fd = -1, .place = { .socket = "/nowhere/control" } };

static int a_descriptor(void) {
        return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
}

static Keeper empty(void) {
        Keeper k = {
                .options = &options,
                .port = PORT_NULL,
                .place = PLACE_NULL,
                .notify = NOTIFY_NULL,
                .listener = -1,
                .program = -1,
                .previous = -1,
        };

        assert_int_equal(table_new(&k.table, 1024), 0);
        return k;
}

static int a_listener(void) {
        const struct sockaddr_un nameless = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(fd, (const struct sockaddr *) &nameless, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

static void reserve(Table *table, uint64_t instance, const char *name) {
        uint8_t record[KEEPER_RECORD_SIZE] = { (uint8_t) instance };
        char padded[KEEPER_NAME_SIZE] = "";

        strcpy(padded, name);
        assert_int_equal(table_reserve(table, instance, padded, KEEPER_FLAG_KILL_GROUP, record), 0);
}

/* fill() - one of each kind of thing. */
static Keeper fill(int *ret_peer) {
        Keeper k = empty();

        assert_int_equal(port_open(&k.port, ret_peer), 0);
        k.port.dump = PORT_DUMP_DONE;
        assert_int_equal(port_answer(&k.port, 7, -EBUSY), 0);
        k.program = a_descriptor();
        k.place.lock = a_descriptor();
        k.place.inode = 77;
        k.notify.fd = a_descriptor();
        k.notify.watchdog_us = 1234;
        k.supervisor = 4711;
        k.reign = REIGN_SERVING;
        k.generation = 5;
        k.reigning = 4;
        k.served_us = 9;
        k.nofile = 256;
        k.timers[TIMER_HANG] = USEC_INFINITY;
        k.timers[TIMER_WATCHDOG] = 99;
        k.ladder = (Ladder){ LADDER_PREVIOUS, 2 };
        assert_int_equal(table_put(k.table, 0, KEEPER_FD_CONTROL, 0, false, a_listener()), 0);
        for (uint64_t i = 1; i <= 6; i++)
                reserve(k.table, i, i <= 2 ? "twice" : i <= 4 ? "again" : i == 5 ? "other" : "kept");
        return k;
}

/* finish() - the table of fill(), in all states there are. */
static void finish(Keeper *k) {
        TableSlot *slot;
        TableDeath *death;

        for (uint64_t i = 2; i <= 6; i++)
                assert_int_equal(table_born(k->table, i, (pid_t) (100 + i)), 0);
        table_started(k->table, table_find(k->table, 2));
        table_activate(k->table, table_find(k->table, 2));
        table_exited(k->table, table_find(k->table, 3), CLD_EXITED, 3);
        table_exited(k->table, table_find(k->table, 4), CLD_KILLED, 9);
        table_exited(k->table, table_find(k->table, 6), CLD_EXITED, 0);
        slot = table_find(k->table, 6);
        assert_int_equal(table_keep(k->table, slot), 0);
        table_reported(k->table, table_find(k->table, 3));
        assert_int_equal(table_put(k->table, 2, KEEPER_FD_LOG, 1, false, a_descriptor()), 0);
        assert_int_equal(table_put(k->table, 6, KEEPER_FD_LOG, 2, false, a_descriptor()), 0);
        death = table_add_death(k->table);
        death->pid = 815;
}

static void let_go(Keeper *k, bool close_all) {
        if (close_all) {
                port_close(&k->port);
                fd_close(k->program);
                fd_close(k->place.lock);
                fd_close(k->notify.fd);
                k->table = table_free(k->table);
        }
}

/* saved() - the bytes of a keeper's state, writable. */
static size_t saved(Keeper *k, uint8_t *bytes, size_t size) {
        MemfdMapping mapping;
        int memfd;

        assert_int_equal(state_save(k, &memfd), 0);
        assert_int_equal(memfd_map_sealed(memfd, 1 << 20, &mapping), 0);
        assert_true(mapping.size <= size);
        memcpy(bytes, mapping.data, mapping.size);
        size = mapping.size;
        memfd_unmap(&mapping);
        fd_close(memfd);
        return size;
}

/* restored() - what state_restore() makes of @bytes; a table that came of it is left open, as its descriptors are another's. */
static int restored(const uint8_t *bytes, size_t size, Keeper *k, char reason[STATE_REASON_SIZE]) {
        int memfd, r;

        *k = empty();
        assert_int_equal(memfd_sealed("test", bytes, size, &memfd), 0);
        r = state_restore(k, memfd, reason);
        fd_close(memfd);
        return r;
}

static void test_round_trip(void **state) {
        static uint8_t bytes[65536];
        char reason[STATE_REASON_SIZE];
        Keeper k, copy;
        TableSlot *slot;
        int peer;

        (void) state;
        k = fill(&peer);
        finish(&k);
        assert_int_equal(restored(bytes, saved(&k, bytes, sizeof(bytes)), &copy, reason), 0);
        assert_int_equal(copy.port.fd, k.port.fd);
        assert_int_equal(copy.port.version, KEEPER_VERSION);
        assert_int_equal(copy.port.n_answers, 1);
        assert_int_equal(copy.port.answers[0].result, -EBUSY);
        assert_true(copy.supervisor == 4711 && copy.generation == 5 && copy.reigning == 4 && copy.nofile == 256);
        assert_true(copy.reign == REIGN_SERVING && copy.has_served && copy.ladder.rung == LADDER_PREVIOUS);
        assert_true(copy.notify.fd == k.notify.fd && copy.notify.watchdog_us == 1234);
        assert_true(copy.place.lock == k.place.lock && copy.place.inode == 77 && copy.listener >= 0);
        assert_true(copy.timers[TIMER_WATCHDOG] == 99 && copy.timers[TIMER_HANG] == USEC_INFINITY);
        assert_int_equal(table_count(copy.table).slots, 6);
        assert_int_equal(table_count(copy.table).fds, 3);
        assert_int_equal(table_count(copy.table).unstarted, table_count(k.table).unstarted);
        assert_int_equal(table_count(copy.table).exited, 2);
        assert_int_equal(table_death(copy.table, 0)->pid, 815);
        assert_int_equal(table_next_exit(copy.table)->instance, 4); /* 3 was reported */
        for (TableSlot *was = table_first(k.table); was; was = table_next(was)) {
                slot = table_find(copy.table, was->instance);
                assert_non_null(slot);
                assert_true(slot->state == was->state && slot->pid == was->pid && slot->flags == was->flags);
                assert_true(slot->started == was->started && slot->active == was->active);
                assert_memory_equal(slot->record, was->record, sizeof(slot->record));
                assert_string_equal(slot->name, was->name);
        }
        assert_int_equal(table_first(copy.table)->instance, table_first(k.table)->instance);
        assert_ptr_equal(table_find_pid(copy.table, 105), table_find(copy.table, 5));
        let_go(&copy, true);
        fd_close(peer);
        /* the same numbers were closed: what is left of the first is its memory */
        k.port = PORT_NULL;
        k.table = table_free(k.table);
}

/* ---- other versions ---- */

typedef struct Bytes {
        uint8_t data[65536];
        size_t size;
} Bytes;

static void append(Bytes *bytes, const void *data, size_t size) {
        memcpy(bytes->data + bytes->size, data, size);
        bytes->size += size;
}

/* rewrite() - @from as another version would have written it: each record longer or shorter by @more, and one more record. */
static void rewrite(const Bytes *from, Bytes *to, uint32_t version, uint32_t oldest, int more, int unknown_flags) {
        StateHeader header;
        size_t at = sizeof(header);

        *to = (Bytes){ .size = 0 };
        memcpy(&header, from->data, sizeof(header));
        header.version = version;
        header.oldest = oldest;
        append(to, &header, sizeof(header));
        if (unknown_flags >= 0) {
                const StateRecord record = { RECORD_UNKNOWN, (uint16_t) unknown_flags, 3 };

                append(to, &record, sizeof(record));
                append(to, "abc\0\0\0\0", 8);
        }
        while (at < from->size) {
                static const uint8_t extra[64] = { 1, 2, 3 };
                StateRecord record;
                size_t size;

                memcpy(&record, from->data + at, sizeof(record));
                size = record.size;
                record.size = (uint32_t) ((int) size + more);
                append(to, &record, sizeof(record));
                append(to, from->data + at + sizeof(record), (size_t) MIN((int) size, (int) size + more));
                if (more > 0)
                        append(to, extra, (size_t) more);
                while (to->size % 8)
                        append(to, "", 1);
                at += sizeof(record) + (size + 7) / 8 * 8;
        }
}

static void test_versions(void **state) {
        static const struct {
                uint32_t version, oldest;
                int more, unknown_flags;
                int result;
        } rows[] = {
                { STATE_VERSION, STATE_OLDEST, 0, -1, 0 },
                { STATE_VERSION + 1, STATE_VERSION, 16, STATE_OPTIONAL, 0 }, /* one up: fields and a record more */
                { STATE_VERSION - 1, STATE_VERSION - 1, 0, -1, 0 },          /* one down */
                { STATE_VERSION + 1, STATE_VERSION, 0, 0, -EPROTO },         /* a record that must be understood */
                { STATE_VERSION + 2, STATE_VERSION + 1, 0, -1, -EPROTO },    /* two up */
        };
        static Bytes plain, other;
        char reason[STATE_REASON_SIZE];
        Keeper k, copy;
        int peer;

        (void) state;
        k = fill(&peer);
        finish(&k);
        plain.size = saved(&k, plain.data, sizeof(plain.data));
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                rewrite(&plain, &other, rows[i].version, rows[i].oldest, rows[i].more, rows[i].unknown_flags);
                assert_int_equal(restored(other.data, other.size, &copy, reason), rows[i].result);
                assert_int_equal(*reason == '\0', rows[i].result == 0);
                copy.table = NULL; /* its descriptors are those of the first; its memory goes with the process */
        }
        let_go(&k, true);
        fd_close(peer);
}

/* Cut off anywhere, or with any word of it wrong: refused, or read, and never more than that. */
static void test_damaged(void **state) {
        static Bytes plain;
        char reason[STATE_REASON_SIZE];
        Keeper k, copy;
        int peer;

        (void) state;
        k = fill(&peer);
        plain.size = saved(&k, plain.data, sizeof(plain.data));
        for (size_t size = 1; size < plain.size; size += 7) {
                assert_int_equal(restored(plain.data, size, &copy, reason), -EPROTO);
                assert_true(*reason);
                copy.table = NULL;
        }
        let_go(&k, true);
        assert_int_equal(restored(plain.data, plain.size, &copy, reason), -EPROTO); /* the descriptors are gone */
        copy.table = NULL;
        fd_close(peer);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_round_trip),
                TEST(test_versions),
                TEST(test_damaged),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The supervisor's link to its keeper, against a socket that the test answers: order, window, room, retry, the end. What
 * a keeper makes of it is in tests/test-keeper.c.
 */

#include "supervisor/keeper-link.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/record.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct LinkTest {
        Loop *loop;
        KeeperLink *link;
        int keeper;
        unsigned n_done, n_exits, n_idle, n_closed;
        int result;
        KeeperExit exit;
} LinkTest;

static void link_exited(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_exits++;
        t->exit = *exit;
        loop_stop(t->loop);
}

static void link_idle(KeeperLink *link, void *userdata) {
        LinkTest *t = userdata;

        assert_true(keeper_link_idle(link));
        t->n_idle++;
        loop_stop(t->loop);
}

static void link_closed(KeeperLink *link, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_closed++;
        loop_stop(t->loop);
}

static const KeeperLinkHandlers link_handlers = { link_exited, link_idle, link_closed };

static void link_done(KeeperLink *link, int result, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        t->n_done++;
        t->result = result;
        loop_stop(t->loop);
}

static void link_begin(LinkTest *t) {
        int fds[2];

        *t = (LinkTest){ .keeper = -1 };
        assert_int_equal(loop_new(&t->loop), 0);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        t->keeper = fds[0];
        assert_int_equal(keeper_link_new(&t->link, t->loop, fds[1], &link_handlers, t), 0);
        assert_true(keeper_link_idle(t->link));
}

static void link_end(LinkTest *t) {
        t->link = keeper_link_free(t->link);
        t->loop = loop_free(t->loop);
        t->keeper = fd_close(t->keeper);
}

/* link_read() - what the keeper would read; false: nothing there. */
static bool link_read(LinkTest *t, KeeperMessage *ret_message, int *ret_fd) {
        CmsgInfo info;
        ssize_t n;

        *ret_fd = -1;
        n = cmsg_receive(t->keeper, ret_message, sizeof(*ret_message), ret_fd, 1, &info);
        return n == (ssize_t) sizeof(*ret_message);
}

static void link_say(LinkTest *t, KeeperType type, uint32_t serial, int result) {
        KeeperMessage m = { .version = KEEPER_VERSION, .type = (uint16_t) type, .serial = serial, .result = result };

        m.instance = 5;
        m.pid = 77;
        m.wait_code = CLD_KILLED;
        m.wait_status = 9;
        assert_int_equal(cmsg_send(t->keeper, &m, sizeof(m), NULL, 0), sizeof(m));
}

static void test_link_window(void **state) {
        enum { REQUESTS = 200 };
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        for (uint64_t i = 1; i <= REQUESTS; i++)
                assert_int_equal(keeper_link_put(t.link, i, KEEPER_FD_LOG, 1, STDIN_FILENO, link_done, &t), 0);
        assert_int_equal(keeper_link_started(t.link, REQUESTS + 1), 0);
        assert_false(keeper_link_idle(t.link));
        for (uint32_t i = 1; i <= REQUESTS; i++) {
                unsigned ahead = t.n_done;

                assert_true(link_read(&t, &m, &fd));
                assert_int_equal(m.instance, i); /* in order, each with its descriptor */
                assert_int_equal(m.type, KEEPER_PUT);
                assert_int_equal(m.serial, i);
                assert_true(fd >= 0);
                fd_close(fd);
                if (i - ahead < KEEPER_WINDOW || i == REQUESTS)
                        continue;
                assert_false(link_read(&t, &m, &fd)); /* not one more than the window */
                link_say(&t, KEEPER_DONE, ahead + 1, -(int) ahead);
                loop_run(t.loop);
                assert_int_equal(t.n_done, ahead + 1);
                assert_int_equal(t.result, -(int) ahead);
        }
        assert_true(link_read(&t, &m, &fd));
        assert_int_equal(m.type, KEEPER_STARTED);
        assert_int_equal(m.serial, 0);
        assert_true(keeper_link_idle(t.link));
        assert_int_equal(t.n_idle, 1);
        link_end(&t);
}

static void test_link_full(void **state) {
        KeeperMessage m;
        unsigned n = 0;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        while (keeper_link_idle(t.link)) /* statements are not under the window: the socket fills */
                assert_int_equal(keeper_link_ack(t.link, ++n), 0);
        for (int i = 0; i < 100; i++)
                assert_int_equal(keeper_link_ack(t.link, ++n), 0);
        for (unsigned i = 1; i <= n; i++) {
                while (!link_read(&t, &m, &fd)) {
                        link_say(&t, KEEPER_EXIT, 0,
                                 0); /* sending goes on after a receive, before POLLOUT would come */
                        loop_run(t.loop);
                }
                assert_int_equal(m.instance, i);
        }
        assert_int_equal(t.exit.instance, 5);
        assert_int_equal(t.exit.pid, 77);
        assert_int_equal(t.exit.code, CLD_KILLED);
        assert_int_equal(t.exit.status, 9);

        for (n = 0; keeper_link_drop(t.link, 1, KEEPER_FD_LOG, 1, NULL, NULL) == 0; n++)
                ;
        assert_int_equal(n, KEEPER_WINDOW + KEEPER_LINK_REQUESTS_MAX);
        assert_int_equal(keeper_link_drop(t.link, 1, KEEPER_FD_LOG, 1, NULL, NULL), -ENOBUFS);
        assert_int_equal(keeper_link_ack(t.link, 1), 0);
        link_end(&t);
}

static void test_link_retry(void **state) {
        const KeeperReservation long_name = {
                .instance = 1,
                .name = "a name that is as long as the field, so that its NUL has no room..",
        };
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        seam_fail(SEAM_SENDMSG, 1, ETOOMANYREFS);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, link_done, &t), 0);
        assert_false(keeper_link_idle(t.link));
        loop_run(t.loop); /* the timer */
        assert_int_equal(t.n_idle, 1);
        assert_true(link_read(&t, &m, &fd));
        fd_close(fd);
        keeper_link_forget(t.link, &t);
        link_say(&t, KEEPER_DONE, 1, 0);
        link_say(&t, KEEPER_EXIT, 0, 0);
        loop_run(t.loop);
        assert_int_equal(t.n_done, 0);
        assert_int_equal(t.n_exits, 1);

        assert_int_equal(keeper_link_reserve(t.link, &long_name, NULL, NULL), -EINVAL);
        seam_fail(SEAM_SENDMSG, 1, EAGAIN);
        assert_int_equal(keeper_link_ack(t.link, 1), 0); /* what waits is copied, and so is all that is behind it */
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -ENOMEM);
        seam_fail(SEAM_FCNTL, 1, EMFILE);
        assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -EMFILE);
        link_end(&t);
}

/* Those that are answered together: each is called back, in order, the last with what the answer says. */
static void link_count(KeeperLink *link, int result, void *userdata) {
        LinkTest *t = userdata;

        (void) link;
        assert_int_equal(result, t->n_done == 3 ? -ENOSPC : 0);
        if (++t->n_done == 4)
                loop_stop(t->loop);
}

static void test_link_answered_together(void **state) {
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        for (uint64_t i = 1; i <= 5; i++) {
                assert_int_equal(keeper_link_drop(t.link, i, KEEPER_FD_LOG, 1, link_count, &t), 0);
                assert_true(link_read(&t, &m, &fd));
        }
        link_say(&t, KEEPER_DONE, 2, 0);
        link_say(&t, KEEPER_DONE, 4, -ENOSPC);
        loop_run(t.loop);
        assert_int_equal(t.n_done, 4);
        assert_false(keeper_link_settled(t.link));
        link_end(&t);
}

/* A reservation brings its descriptors, also where it has to wait, and they are closed meanwhile. */
static void test_link_reservation(void **state) {
        static const uint8_t record[KEEPER_RECORD_SIZE] = { 9 };
        int fds[KEEPER_FDS_MAX];
        KeeperReservation reservation = { .instance = 7, .name = "web", .flags = KEEPER_FLAG_NATIVE };
        KeeperMessage m;
        CmsgInfo info;
        LinkTest t;

        (void) state;
        for (int waits = 0; waits < 2; waits++) {
                int logs[2] = { fd_dup(STDIN_FILENO), fd_dup(STDIN_FILENO) };

                link_begin(&t);
                reservation.record = record;
                reservation.logs = logs;
                reservation.kind = KEEPER_FD_LISTENER;
                reservation.tag = 1;
                reservation.fd = STDIN_FILENO;
                if (waits)
                        seam_fail(SEAM_SENDMSG, 1, ETOOMANYREFS);
                assert_int_equal(keeper_link_reserve(t.link, &reservation, link_done, &t), 0);
                fd_close_all(logs, 2);
                if (waits)
                        loop_run(t.loop);
                assert_int_equal(cmsg_receive(t.keeper, &m, sizeof(m), fds, KEEPER_FDS_MAX, &info), sizeof(m));
                assert_int_equal(info.n_fds, 3);
                assert_true(m.type == KEEPER_RESERVE && m.instance == 7 && m.record[0] == 9);
                assert_int_equal(m.flags, KEEPER_FLAG_NATIVE | KEEPER_FLAG_LOGS);
                assert_true(m.fd_kind == KEEPER_FD_LISTENER && m.fd_tag == 1);
                fd_close_all(fds, 3);
                link_end(&t);
        }
        reservation = (KeeperReservation){ .instance = 8, .name = "kept", .flags = KEEPER_FLAG_KEPT };
        link_begin(&t);
        assert_int_equal(keeper_link_reserve(t.link, &reservation, NULL, NULL), 0);
        assert_int_equal(cmsg_receive(t.keeper, &m, sizeof(m), fds, KEEPER_FDS_MAX, &info), sizeof(m));
        assert_true(info.n_fds == 0 && m.flags == KEEPER_FLAG_KEPT && m.fd_kind == KEEPER_FD_NONE);
        link_end(&t);
}

/* Of many that were started the keeper hears in few messages, before whatever else is said. */
static void test_link_started(void **state) {
        const uint64_t n = KEEPER_STARTED_MAX + 2;
        uint64_t expected = 1;
        KeeperMessage m;
        LinkTest t;
        int fd;

        (void) state;
        link_begin(&t);
        for (uint64_t i = 1; i <= n; i++)
                assert_int_equal(keeper_link_started(t.link, i), 0);
        assert_int_equal(keeper_link_ack(t.link, 99), 0);
        while (link_read(&t, &m, &fd) && m.type == KEEPER_STARTED) {
                uint64_t others[KEEPER_STARTED_MAX - 1];

                assert_int_equal(m.instance, expected++);
                memcpy(others, m.record, sizeof(others));
                for (size_t i = 0; i < ARRAY_SIZE(others) && others[i]; i++)
                        assert_int_equal(others[i], expected++);
        }
        assert_int_equal(expected, n + 1);
        assert_true(m.type == KEEPER_ACK && m.instance == 99);
        link_end(&t);
}

static void test_link_ends(void **state) {
        static const char bytes[sizeof(KeeperMessage) + 1] = { 1 };

        (void) state;
        for (int way = 0; way < 6; way++) {
                int level = log_get_level();
                LinkTest t;

                link_begin(&t);
                log_set_level(-1);
                if (way == 0)
                        t.keeper = fd_close(t.keeper);
                else if (way == 1)
                        link_say(&t, KEEPER_DONE, 9, 0); /* to what? */
                else if (way == 2)
                        link_say(&t, KEEPER_BORN, 0, 0);
                else if (way == 3)
                        link_say(&t, _KEEPER_TYPE_N, 0, 0);
                else
                        assert_true(cmsg_send(t.keeper, bytes, sizeof(bytes) - (way == 4 ? 0 : 9), NULL, 0) > 0);
                loop_run(t.loop);
                log_set_level(level);
                assert_int_equal(t.n_closed, 1);
                assert_int_equal(keeper_link_ack(t.link, 1), -EPIPE);
                assert_int_equal(keeper_link_put(t.link, 1, KEEPER_FD_LANE, 0, STDIN_FILENO, NULL, NULL), -EPIPE);
                link_end(&t);
        }
}

/* ---------------------------------------------------------------------------------------------------- the beginning */

typedef struct Told {
        LinkTest t; /* the first, since the handlers above take it for theirs */
        unsigned n_slots, n_stored, n_loaded, n_reloads, n_gone;
        bool is_final;
        char name[KEEPER_NAME_SIZE];
        uint8_t first_byte;
        bool has_pidfd;
        uint64_t stored_instance;
} Told;

static void told_slot(KeeperLink *link, const KeeperSlot *slot, int pidfd_consume, void *userdata) {
        Told *told = userdata;

        (void) link;
        told->n_slots++;
        (void) strcpy(told->name, slot->name);
        told->first_byte = slot->record[0];
        told->has_pidfd = pidfd_consume >= 0;
        fd_close(pidfd_consume);
}

static void told_stored(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume,
                        void *userdata) {
        Told *told = userdata;

        (void) link;
        assert_true(kind == KEEPER_FD_RING && tag == 7 && fd_consume >= 0);
        told->n_stored++;
        told->stored_instance = instance;
        fd_close(fd_consume);
}

static void told_loaded(KeeperLink *link, bool is_final, void *userdata) {
        Told *told = userdata;

        (void) link;
        told->n_loaded++;
        told->is_final = is_final;
}

static void told_gone(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, void *userdata) {
        Told *told = userdata;

        (void) link;
        assert_true(instance == 1 && kind == KEEPER_FD_NONE && tag == 0);
        told->n_gone++;
}

static void told_reload(KeeperLink *link, void *userdata) {
        Told *told = userdata;

        (void) link;
        told->n_reloads++;
        loop_stop(told->t.loop);
}

static const KeeperLinkHandlers told_handlers = {
        .exited = link_exited,
        .idle = link_idle,
        .closed = link_closed,
        .slot = told_slot,
        .stored = told_stored,
        .loaded = told_loaded,
        .reload = told_reload,
        .gone = told_gone,
};

static void told_begin(Told *told) {
        int fds[2];

        *told = (Told){ .t = { .keeper = -1 } };
        assert_int_equal(loop_new(&told->t.loop), 0);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        told->t.keeper = fds[0];
        assert_int_equal(keeper_link_new(&told->t.link, told->t.loop, fds[1], &told_handlers, told), 0);
}

static void tell(Told *told, KeeperMessage m, bool with_fd) {
        const int fd = STDIN_FILENO;

        m.version = KEEPER_VERSION;
        assert_int_equal(cmsg_send(told->t.keeper, &m, sizeof(m), &fd, with_fd), sizeof(m));
}

static void test_link_table(void **state) {
        KeeperMessage slot = { .type = KEEPER_SLOT, .instance = 3, .result = KEEPER_SLOT_BORN, .name = "web" }, m;
        Told told;
        int fd;

        (void) state;
        told_begin(&told);
        slot.record[0] = 9;
        tell(&told, slot, true);
        tell(&told, (KeeperMessage){ .type = KEEPER_STORED, .instance = 3, .fd_kind = KEEPER_FD_RING, .fd_tag = 7 },
             true);
        tell(&told, (KeeperMessage){ .type = KEEPER_END, .instance = 1, .fd_tag = 1 }, false);
        tell(&told, (KeeperMessage){ .type = KEEPER_GONE, .instance = 1 }, false);
        tell(&told, (KeeperMessage){ .type = KEEPER_END, .instance = 1, .fd_tag = 1, .flags = KEEPER_FLAG_FINAL },
             false);
        tell(&told, (KeeperMessage){ .type = KEEPER_PING }, false);
        tell(&told, (KeeperMessage){ .type = KEEPER_RELOAD }, false);
        loop_run(told.t.loop);
        assert_int_equal(told.n_slots, 1);
        assert_string_equal(told.name, "web");
        assert_int_equal(told.first_byte, 9);
        assert_true(told.has_pidfd);
        assert_int_equal(told.n_stored, 1);
        assert_int_equal(told.stored_instance, 3);
        assert_int_equal(told.n_gone, 1);
        assert_int_equal(told.n_loaded, 2);
        assert_true(told.is_final);
        assert_int_equal(told.n_reloads, 1);
        assert_true(link_read(&told.t, &m, &fd));
        assert_int_equal(m.type, KEEPER_PONG);

        assert_int_equal(keeper_link_keep(told.t.link, 3), 0);
        assert_true(link_read(&told.t, &m, &fd));
        assert_true(m.type == KEEPER_ACK && m.flags == KEEPER_FLAG_KEPT && m.instance == 3);
        assert_int_equal(keeper_link_notify(told.t.link, KEEPER_NOTIFY_READY, "one line\nNOT=1"), 0);
        assert_true(link_read(&told.t, &m, &fd));
        assert_true(m.type == KEEPER_NOTIFY && m.result == KEEPER_NOTIFY_READY);
        assert_string_equal((const char *) m.record, "one line");
        assert_int_equal(keeper_link_record(told.t.link, 3, slot.record), 0);
        assert_true(link_read(&told.t, &m, &fd));
        assert_true(m.type == KEEPER_RECORD && m.instance == 3 && m.record[0] == 9);
        assert_int_equal(keeper_link_replace(told.t.link, 0, KEEPER_FD_CONFIG, 0, STDIN_FILENO, NULL, NULL), 0);
        assert_true(link_read(&told.t, &m, &fd));
        assert_true(m.type == KEEPER_PUT && m.flags == KEEPER_FLAG_REPLACE && fd >= 0);
        fd_close(fd);
        assert_int_equal(keeper_link_serving(told.t.link), 0);
        assert_int_equal(keeper_link_active(told.t.link, 3), 0);
        assert_true(link_read(&told.t, &m, &fd) && m.type == KEEPER_SERVING);
        assert_true(link_read(&told.t, &m, &fd) && m.type == KEEPER_ACTIVE);
        link_end(&told.t);
}

static void test_link_bad_table(void **state) {
        int level = log_get_level();

        (void) state;
        for (int way = 0; way < 3; way++) {
                KeeperMessage slot = { .type = KEEPER_SLOT, .instance = 3, .result = KEEPER_SLOT_BORN };
                Told told;

                told_begin(&told);
                log_set_level(-1);
                if (way == 0)
                        memset(slot.name, 'x', sizeof(slot.name)); /* no NUL */
                else
                        slot.result = way == 1 ? -1 : _KEEPER_SLOT_STATE_N;
                tell(&told, slot, true);
                loop_run(told.t.loop);
                log_set_level(level);
                assert_int_equal(told.t.n_closed, 1);
                assert_int_equal(told.n_slots, 0);
                link_end(&told.t);
        }
}

/* tell_pack() - @n messages, each but the second with a descriptor; that of the last @lost did not arrive. */
static void tell_pack(Told *told, KeeperMessage *messages, size_t n, size_t cut, size_t lost) {
        int fds[KEEPER_PACK_MAX];
        size_t n_fds = 0;

        for (size_t i = 0; i < n; i++) {
                messages[i].version = KEEPER_VERSION;
                if (i == 1)
                        continue;
                messages[i].flags |= KEEPER_FLAG_FD;
                fds[n_fds++] = STDIN_FILENO;
        }
        assert_true(cmsg_send(told->t.keeper, messages, n * sizeof(*messages) - cut, fds, n_fds - lost) > 0);
}

static void test_link_packs(void **state) {
        const KeeperMessage slot = { .type = KEEPER_SLOT,
                                     .instance = 3,
                                     .result = KEEPER_SLOT_BORN,
                                     .flags = KEEPER_FLAG_PACKS,
                                     .name = "web" };
        const KeeperMessage stored = { .type = KEEPER_STORED, .instance = 4, .fd_kind = KEEPER_FD_RING, .fd_tag = 7 };
        KeeperMessage pack[KEEPER_PACK_MAX] = { slot, slot, stored, stored }, m;
        Told told;
        int fd;

        (void) state;
        told_begin(&told);
        keeper_link_hold(told.t.link); /* as a successor has it: PACK is said all the same, once */
        tell(&told, slot, false);
        tell_pack(&told, pack, 4, 0, 0);
        keeper_link_read(told.t.link);
        assert_int_equal(told.n_slots, 3);
        assert_int_equal(told.n_stored, 2);
        assert_false(told.has_pidfd); /* what comes without one gets none of the next one's */
        assert_true(link_read(&told.t, &m, &fd) && m.type == KEEPER_PACK && m.serial == 0);
        assert_false(link_read(&told.t, &m, &fd));

        /* As many as there may be; that one was lost to our limit is told of the last. */
        for (size_t i = 0; i < KEEPER_PACK_MAX; i++)
                pack[i] = slot;
        pack[1] = (KeeperMessage){ .type = KEEPER_GONE, .instance = 1 };
        tell_pack(&told, pack, KEEPER_PACK_MAX - 1, 0, 0);
        keeper_link_read(told.t.link);
        assert_true(told.has_pidfd);
        tell_pack(&told, pack, KEEPER_PACK_MAX, 0, 1);
        keeper_link_read(told.t.link);
        assert_false(told.has_pidfd);
        assert_int_equal(told.n_slots, 3 + 2 * KEEPER_PACK_MAX - 3);
        assert_int_equal(told.n_gone, 2);
        link_end(&told.t);
}

/* One of a pack that makes no sense ends the link, and nothing stays open of those behind it. */
static void test_link_bad_packs(void **state) {
        int level = log_get_level();

        (void) state;
        for (int way = 0; way < 3; way++) {
                KeeperMessage pack[KEEPER_PACK_MAX + 1];
                size_t n = way == 2 ? ARRAY_SIZE(pack) : 4;
                Told told;

                for (size_t i = 0; i < n; i++)
                        pack[i] = (KeeperMessage){ .type = KEEPER_SLOT, .instance = 3, .result = KEEPER_SLOT_BORN };
                if (way == 0)
                        pack[2].result = -1;
                told_begin(&told);
                log_set_level(-1);
                tell_pack(&told, pack, n, way == 1 ? 1 : 0, 0);
                loop_run(told.t.loop);
                log_set_level(level);
                assert_int_equal(told.t.n_closed, 1);
                assert_int_equal(told.n_slots, way == 0 ? 2 : 0);
                link_end(&told.t);
        }
}

static void test_record(void **state) {
        uint8_t bytes[KEEPER_RECORD_SIZE] = { 0 };
        Record record = { .desired = 1, .n_restart_times = 200, .n_failures = 7 }, back;

        (void) state;
        assert_int_equal(record_unpack(bytes, &back), -ENODATA);
        record_pack(&record, bytes);
        assert_int_equal(record_unpack(bytes, &back), 0);
        assert_int_equal(back.n_failures, 7);
        assert_int_equal(back.n_restart_times, RECORD_RESTARTS_MAX);          /* whatever it says */
        memset(bytes + sizeof(record), 0xff, sizeof(bytes) - sizeof(record)); /* what a later program has added */
        assert_int_equal(record_unpack(bytes, &back), 0);
        bytes[0] = RECORD_VERSION + 1;
        assert_int_equal(record_unpack(bytes, &back), -EPROTO);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_link_window),      TEST(test_link_full),
                TEST(test_link_retry),       TEST(test_link_ends),
                TEST(test_link_table),       TEST(test_link_bad_table),
                TEST(test_link_packs),       TEST(test_link_bad_packs),
                TEST(test_record),           TEST(test_link_answered_together),
                TEST(test_link_reservation), TEST(test_link_started),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

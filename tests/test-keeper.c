/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper: its table as a unit, and the whole keeper, run in a child of the test, with this program as its supervisor.
 * The keeper starts it under the name baton-supervisor (a symbolic link in a folder that BATON_LIBEXEC names),
 * $TEST_SCENARIO says what it then does; a scenario that finds something wrong says so and ends the tree with a status
 * that the test does not expect. The test is a subreaper: what a keeper leaves behind becomes its child and fails it.
 */

#include "supervisor/keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/keeper-link.h"
#include "supervisor/keeper/table.h"
#include "supervisor/spawn.h"
#include "tests/seam.h"
#include "tests/test.h"

enum { QUICK = 1000, UNREAD = 300 };

/* ----------------------------------------------------------------------------------------------------------- table */

static void name_of(char ret_name[KEEPER_NAME_SIZE], const char *text) {
        memset(ret_name, 0, KEEPER_NAME_SIZE);
        memcpy(ret_name, text, MIN(strlen(text), (size_t) KEEPER_NAME_SIZE));
}

static int reserve(Table *table, uint64_t instance, const char *text) {
        char name[KEEPER_NAME_SIZE];

        name_of(name, text);
        return table_reserve(table, instance, name, 0);
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
        assert_int_equal(table_put(table, 2, KEEPER_FD_LOG, 1, a_descriptor()), -ENOENT);
        assert_int_equal(table_put(table, 1, KEEPER_FD_NONE, 1, a_descriptor()), -EINVAL);
        assert_int_equal(table_put(table, 1, _KEEPER_FD_KIND_N, 1, a_descriptor()), -EINVAL);
        assert_int_equal(fd_count(), before);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1, a_descriptor()), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1, a_descriptor()), -EEXIST);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 2, a_descriptor()), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LANE, 1, a_descriptor()), 0);
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
        while (table_put(table, 1, KEEPER_FD_LOG, (uint64_t) n, a_descriptor()) == 0)
                n++;
        test_restore_fds(limit);
        assert_in_range(n, 1, 100 - TABLE_FD_HEADROOM);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1000, a_descriptor()), -EMFILE);
        assert_int_equal(table_drop(table, 1, KEEPER_FD_LOG, 0), 0);
        assert_int_equal(table_put(table, 1, KEEPER_FD_LOG, 1000, a_descriptor()), 0);
        assert_null(table_free(table));
        assert_int_equal(fd_count(), before);
}

/* ----------------------------------------------------------------------------- scenarios: what the supervisor does */

#define CHECK(_condition)                                                                          \
        do {                                                                                       \
                if (!(_condition)) {                                                               \
                        fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #_condition, errno); \
                        return 99;                                                                 \
                }                                                                                  \
        } while (0)

/* What EXITs came while something else was awaited. */
static struct {
        KeeperMessage exits[1024];
        size_t n_exits;
        uint32_t serial;
} sup;

/* receive() - the next message that is no EXIT, or -1; EXITs are kept. With @until_exit: returns after one EXIT, too. */
static int receive(KeeperMessage *ret_message, bool until_exit) {
        for (;;) {
                struct pollfd p = { .fd = KEEPER_SOCKET_FD, .events = POLLIN };
                ssize_t n;

                (void) poll(&p, 1, -1);
                n = recv(KEEPER_SOCKET_FD, ret_message, sizeof(*ret_message), MSG_DONTWAIT);
                if (n < 0 && errno == EAGAIN)
                        continue;
                if (n != (ssize_t) sizeof(*ret_message))
                        return -1;
                if (ret_message->type != KEEPER_EXIT)
                        return 0;
                sup.exits[sup.n_exits++] = *ret_message;
                if (until_exit)
                        return 0;
        }
}

static int tell(KeeperMessage m, const int *fds, size_t n_fds) {
        m.version = m.version ?: KEEPER_VERSION;
        return cmsg_send(KEEPER_SOCKET_FD, &m, sizeof(m), fds, n_fds) < 0 ? -1 : 0;
}

/* ask() - what the keeper answered; 1: something else came. */
static int ask(KeeperMessage m, const int *fds, size_t n_fds) {
        KeeperMessage answer;

        m.serial = ++sup.serial;
        if (tell(m, fds, n_fds) < 0 || receive(&answer, false) < 0)
                return 1;
        return answer.type == KEEPER_DONE && answer.serial == m.serial ? answer.result : 1;
}

static int ask_reserve(uint64_t instance, const char *name, uint32_t flags) {
        KeeperMessage m = { .type = KEEPER_RESERVE, .instance = instance, .flags = flags };

        strncpy(m.name, name, sizeof(m.name) - 1);
        return ask(m, NULL, 0);
}

static int ask_put(uint64_t instance, unsigned kind, uint64_t tag, int fd) {
        return ask((KeeperMessage){ .type = KEEPER_PUT, .instance = instance, .fd_kind = kind, .fd_tag = tag }, &fd,
                   1);
}

static int ask_drop(uint64_t instance, unsigned kind, uint64_t tag) {
        return ask((KeeperMessage){ .type = KEEPER_DROP, .instance = instance, .fd_kind = kind, .fd_tag = tag }, NULL,
                   0);
}

static int ask_signal(uint64_t instance, int number) {
        return ask((KeeperMessage){ .type = KEEPER_SIGNAL, .instance = instance, .result = number }, NULL, 0);
}

static int tell_about(KeeperType type, uint64_t instance) {
        return tell((KeeperMessage){ .type = (uint16_t) type, .instance = instance }, NULL, 0);
}

/* wait_exit() - how many reports of @instance came, at least one; the last in @ret_exit. */
static int wait_exit(uint64_t instance, KeeperMessage *ret_exit) {
        KeeperMessage m;
        int n = 0;

        for (;;) {
                for (size_t i = 0; i < sup.n_exits; i++)
                        if (sup.exits[i].instance == instance) {
                                *ret_exit = sup.exits[i];
                                n++;
                        }
                if (n > 0)
                        return n;
                if (receive(&m, true) < 0)
                        return -1;
        }
}

static int shut_down(int status) {
        struct pollfd forever = { .fd = -1 };

        (void) tell((KeeperMessage){ .type = KEEPER_SHUTDOWN, .result = status }, NULL, 0);
        (void) poll(&forever, 1, -1); /* the keeper kills us */
        return 98;
}

/* try_run() - @script in a shell as @instance, standard output to @out. What spawn() said. */
static int try_run(uint64_t instance, const char *script, int out, SpawnResult *ret_result) {
        char shell[] = "/bin/sh", flag[] = "-c", text[512];
        char *argv[] = { shell, flag, text, NULL };
        SpawnParameters p = SPAWN_PARAMETERS_NULL;

        (void) snprintf(text, sizeof(text), "%s", script);
        p.instance = instance;
        p.path = shell;
        p.argv = argv;
        p.envp = environ;
        p.stdio[1] = out;
        return spawn(&p, ret_result);
}

static int run(uint64_t instance, const char *script, int out, SpawnResult *ret_result) {
        CHECK(try_run(instance, script, out, ret_result) == 0);
        CHECK(tell_about(KEEPER_STARTED, instance) == 0);
        return 0;
}

/* run_refused() - such a child is killed, be it before or after it executed anything. */
static int run_refused(uint64_t instance) {
        SpawnResult result;
        int r = try_run(instance, "sleep 1000", -1, &result);

        CHECK(r == 0 || (r == -ECANCELED && result.step == SPAWN_BORN));
        CHECK(r < 0 || test_readable(result.pidfd));
        fd_close(result.pidfd);
        return 0;
}

static int start(uint64_t instance, const char *name, uint32_t flags, const char *script, int out) {
        SpawnResult result;

        CHECK(ask_reserve(instance, name, flags) == 0);
        CHECK(run(instance, script, out, &result) == 0);
        fd_close(result.pidfd);
        return 0;
}

/* ended() - waits until nobody holds the other end of a pipe. */
static bool ended(int fd) {
        struct pollfd p = { .fd = fd };

        return poll(&p, 1, 10000) == 1 && (p.revents & (POLLHUP | POLLERR));
}

static bool held(int fd) {
        struct pollfd p = { .fd = fd };

        return poll(&p, 1, 0) == 0;
}

static int say_byte(char byte) {
        return write(KEEPER_PRIVATE_FD, &byte, 1) == 1 ? 0 : -1;
}

static int scenario_life(void) {
        KeeperMessage exit;
        int fds[2];

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, fds[0]) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, fds[0]) == -EEXIST);
        CHECK(ask_put(2, KEEPER_FD_LOG, 1, fds[0]) == -ENOENT);
        CHECK(ask_put(1, 99, 1, fds[0]) == -EINVAL);
        fds[0] = fd_close(fds[0]);
        CHECK(held(fds[1]));
        CHECK(tell_about(KEEPER_ACK, 1) == 0); /* too early: without effect */
        SpawnResult result;
        CHECK(run(1, "exit 7", -1, &result) == 0);
        CHECK(wait_exit(1, &exit) == 1);
        CHECK(exit.pid == result.pid && exit.wait_code == CLD_EXITED && exit.wait_status == 7);
        CHECK(strcmp(exit.name, "a") == 0);
        CHECK(ask_signal(1, SIGTERM) == -ESRCH);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 2) == -ENOENT);
        CHECK(held(fds[1]));
        CHECK(tell_about(KEEPER_ACK, 1) == 0);
        CHECK(ended(fds[1]));
        CHECK(ask_signal(1, SIGTERM) == -ENOENT);
        return shut_down(5);
}

static int scenario_started_with(void) {
        uint64_t open = 0;
        int sig = 0;

        for (int fd = 0; fd < 64; fd++)
                open |= (uint64_t) test_is_open(fd) << fd;
        CHECK((open & ~(0xffc0ull)) == 0x3f); /* 0-5, and what spawn_reserve() filled */
        CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGKILL);
        CHECK(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
        return shut_down(0);
}

static int scenario_names(void) {
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_reserve(1, "b", 0) == -EEXIST);
        CHECK(ask_reserve(2, "a", 0) == 0);
        CHECK(ask_reserve(3, "a", 0) == -EBUSY);
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(ask_reserve(3, "a", 0) == 0);
        return shut_down(5);
}

static int scenario_refused(void) {
        KeeperMessage exit;

        CHECK(ask_reserve(1, "", 0) == -EINVAL);
        CHECK(run_refused(1) == 0);
        CHECK(run_refused(2) == 0); /* never asked for */
        CHECK(start(3, "a", 0, "sleep 1000", -1) == 0);
        CHECK(run_refused(3) == 0);         /* twice */
        CHECK(ask_signal(3, SIGTERM) == 0); /* the first one lives */
        CHECK(wait_exit(3, &exit) == 1 && exit.wait_code == CLD_KILLED && exit.wait_status == SIGTERM);
        CHECK(sup.n_exits == 1);
        return shut_down(5);
}

/* A cancelled instance does not live, and nobody hears of it any more. */
static int scenario_cancel(void) {
        KeeperMessage exit;
        SpawnResult result;

        CHECK(ask_reserve(1, "a", 0) == 0 && ask_reserve(2, "a", 0) == 0);
        CHECK(try_run(1, "sleep 1000", -1, &result) == 0);
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(test_readable(result.pidfd));
        fd_close(result.pidfd);
        CHECK(run(2, "exit 2", -1, &result) == 0);
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_status == 2);
        CHECK(tell_about(KEEPER_CANCEL, 2) == 0);
        CHECK(ask_reserve(3, "a", 0) == 0 && ask_reserve(4, "a", 0) == 0);
        CHECK(sup.n_exits == 1);
        fd_close(result.pidfd);
        return shut_down(5);
}

static int scenario_drop(void) {
        int a[2], b[2];

        CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LANE, 0, a[0]) == 0 && ask_put(1, KEEPER_FD_LISTENER, 0, b[0]) == 0);
        fd_close(a[0]);
        fd_close(b[0]);
        CHECK(ask_drop(1, KEEPER_FD_LANE, 0) == 0);
        CHECK(ended(a[1]) && held(b[1]));
        CHECK(tell_about(KEEPER_CANCEL, 1) == 0);
        CHECK(ended(b[1]));
        return shut_down(5);
}

static int scenario_full(void) {
        int r = 0, n = 0;

        CHECK(ask_reserve(1, "a", 0) == 0);
        for (; r == 0; n++)
                r = ask_put(1, KEEPER_FD_LOG, (uint64_t) n, STDIN_FILENO);
        CHECK(r == -EMFILE);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 0) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 0, STDIN_FILENO) == 0);
        return shut_down(5);
}

static int scenario_signal(void) {
        KeeperMessage exit;
        int fds[2];
        char byte;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(start(1, "a", 0, "sleep 1000 & echo; wait", fds[1]) == 0);
        fd_close(fds[1]);
        CHECK(read(fds[0], &byte, 1) == 1);
        CHECK(ask_signal(1, 999) == -EINVAL);
        CHECK(ask_signal(1, SIGTERM) == 0);
        CHECK(wait_exit(1, &exit) == 1 && exit.wait_code == CLD_KILLED && exit.wait_status == SIGTERM);
        CHECK(ended(fds[0])); /* the sleeper too */
        return shut_down(5);
}

static int scenario_kill_group(void) {
        KeeperMessage exit;
        int a[2], b[2];

        CHECK(pipe2(a, O_CLOEXEC) == 0 && pipe2(b, O_CLOEXEC) == 0);
        CHECK(start(1, "a", KEEPER_FLAG_KILL_GROUP, "sleep 1000 & exit 0", a[1]) == 0);
        CHECK(start(2, "b", 0, "sleep 1000 & exit 0", b[1]) == 0);
        fd_close(a[1]);
        fd_close(b[1]);
        CHECK(wait_exit(1, &exit) == 1 && exit.wait_code == CLD_EXITED && exit.wait_status == 0);
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_code == CLD_EXITED && exit.wait_status == 0);
        CHECK(ended(a[0]) && held(b[0]));
        return shut_down(5);
}

/* As many as do not fit into the socket, without reading: what waits is told later, each once. */
static int scenario_unread(void) {
        KeeperMessage exit;
        SpawnResult result;
        char name[16];

        for (uint64_t i = 1; i <= UNREAD; i++) {
                (void) snprintf(name, sizeof(name), "r%llu", (unsigned long long) i);
                CHECK(ask_reserve(i, name, 0) == 0);
        }
        for (uint64_t i = 1; i <= UNREAD; i++) {
                CHECK(run(i, "exit 3", -1, &result) == 0);
                CHECK(test_readable(result.pidfd));
                fd_close(result.pidfd);
        }
        for (uint64_t i = 1; i <= UNREAD; i++)
                CHECK(wait_exit(i, &exit) == 1 && exit.wait_status == 3);
        CHECK(sup.n_exits == UNREAD);
        return shut_down(5);
}

static int scenario_greedy(void) {
        while (tell((KeeperMessage){ .type = KEEPER_DROP, .serial = 1, .instance = 1 }, NULL, 0) == 0 ||
               errno == EAGAIN)
                ;
        return 98;
}

static int scenario_malformed(void) {
        KeeperMessage long_message[2] = { { .version = KEEPER_VERSION, .type = KEEPER_SHUTDOWN, .result = 77 } };
        int fds[2], both[2];

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        both[0] = both[1] = fds[0];
        CHECK(ask_reserve(1, "a", 0) == 0);
        CHECK(send(KEEPER_SOCKET_FD, long_message, 10, 0) == 10);
        CHECK(send(KEEPER_SOCKET_FD, long_message, sizeof(long_message), 0) == sizeof(long_message));
        CHECK(cmsg_send(KEEPER_SOCKET_FD, long_message, sizeof(KeeperMessage) + 1, fds, 1) > 0);
        CHECK(ask((KeeperMessage){ .version = 99, .type = KEEPER_RESERVE, .instance = 2 }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_NONE }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = _KEEPER_TYPE_N }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = 65535 }, fds, 1) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_PUT, .instance = 1, .fd_kind = 1 }, NULL, 0) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_PUT, .instance = 1, .fd_kind = 1 }, both, 2) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_DROP, .instance = 1, .fd_kind = 1 }, fds, 1) == -EINVAL);
        CHECK(ask((KeeperMessage){ .type = KEEPER_DONE }, NULL, 0) == -EOPNOTSUPP);
        CHECK(ask((KeeperMessage){ .type = KEEPER_RECORD, .instance = 1 }, NULL, 0) == -EOPNOTSUPP);
        CHECK(tell_about(KEEPER_ACTIVE, 1) == 0);
        CHECK(tell_about(KEEPER_STARTED, 1) == 0); /* not born */
        CHECK(tell_about(KEEPER_STARTED, 7) == 0 && tell_about(KEEPER_ACK, 7) == 0 &&
              tell_about(KEEPER_CANCEL, 7) == 0);
        fd_close(fds[0]);
        CHECK(ended(fds[1]));                            /* not one of those descriptors was kept */
        CHECK(ask_drop(1, KEEPER_FD_LOG, 1) == -ENOENT); /* and the keeper goes on */
        return shut_down(5);
}

/* leave_some() - a runner, and a process that left its runner's group and session and lost its parent. */
static int leave_some(void) {
        KeeperMessage exit;
        int fds[2];
        char byte;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(start(1, "a", 0, "trap '' TERM; sleep 1000 & sleep 1000", -1) == 0);
        CHECK(start(2, "b", KEEPER_FLAG_KILL_GROUP, "setsid sh -c 'echo; sleep 1000; sleep 1000' & sleep 1000",
                    fds[1]) == 0);
        fd_close(fds[1]);
        CHECK(read(fds[0], &byte, 1) == 1);
        CHECK(ask_signal(2, SIGTERM) == 0);
        CHECK(wait_exit(2, &exit) == 1);
        CHECK(held(fds[0]));
        return 0;
}

static int scenario_shutdown(void) {
        CHECK(leave_some() == 0);
        return shut_down(5);
}

static int scenario_killed(void) {
        CHECK(leave_some() == 0);
        (void) kill(getpid(), SIGKILL);
        return 98;
}

static int scenario_exits(void) {
        CHECK(leave_some() == 0);
        return 4;
}

static int scenario_closes(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(leave_some() == 0);
        fd_close(KEEPER_SOCKET_FD);
        (void) poll(&forever, 1, -1);
        return 98;
}

/* Until the keeper asks us to stop by SIGTERM, because of @how. */
static int until_told(int (*how)(void)) {
        sigset_t signals;
        int number;

        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &signals, NULL);
        CHECK(leave_some() == 0);
        CHECK(how() == 0);
        CHECK(sigwait(&signals, &number) == 0 && number == SIGTERM);
        return 0;
}

static int hang_up(void) {
        return say_byte('H');
}

static int signal_keeper(void) {
        return kill(getppid(), SIGTERM);
}

static int scenario_hang_up(void) {
        KeeperMessage exit;

        CHECK(until_told(hang_up) == 0);
        CHECK(ask_signal(1, SIGKILL) == 0);
        CHECK(wait_exit(1, &exit) == 1);
        return shut_down(3);
}

static int scenario_term(void) {
        CHECK(until_told(signal_keeper) == 0);
        return 6;
}

static int scenario_stubborn(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(until_told(hang_up) == 0);
        (void) poll(&forever, 1, -1);
        return 98;
}

static int scenario_kill_keeper(void) {
        struct pollfd forever = { .fd = -1 };

        CHECK(start(1, "a", 0, "exec sleep 1000", -1) == 0);
        CHECK(kill(getppid(), SIGKILL) == 0);
        (void) poll(&forever, 1, -1);
        return 98;
}

/* --- 1,000 that exit at once, every other one before it executed anything; through link and loop */

static struct {
        Loop *loop;
        KeeperLink *link;
        unsigned n_started, n_done, n_exits;
        uint8_t exits[QUICK + 1];
        bool waiting; /* the last one was not spawned yet */
        bool wrong;
} quick;

static void quick_start(void) {
        char path[] = "/bin/true", nothing[] = "/nowhere/true", *argv[] = { path, NULL };
        SpawnParameters p = SPAWN_PARAMETERS_NULL;
        SpawnResult result;

        p.path = quick.n_started % 2 ? nothing : path;
        p.argv = argv;
        p.envp = environ;
        p.instance = quick.n_started;
        quick.wrong |= spawn(&p, &result) != (quick.n_started % 2 ? -ENOENT : 0) || !result.born;
        quick.wrong |= keeper_link_spawned(quick.link, p.instance, &result) < 0;
        fd_close(result.pidfd);
}

static void quick_done(KeeperLink *link, int result, void *userdata) {
        (void) link;
        (void) userdata;
        quick.wrong |= result != 0;
        quick.n_done++;
}

/* quick_next() - reservations go out until the link is busy; idle comes back here. */
static void quick_next(KeeperLink *link, void *userdata) {
        char name[16];

        (void) userdata;
        while (keeper_link_idle(link) && quick.n_started < QUICK) {
                (void) snprintf(name, sizeof(name), "q%u", ++quick.n_started);
                quick.wrong |= keeper_link_reserve(link, quick.n_started, name, 0, quick_done, &quick) < 0;
                quick.wrong |=
                        keeper_link_put(link, quick.n_started, KEEPER_FD_LOG, 1, STDIN_FILENO, quick_done, &quick) < 0;
                quick.waiting = !keeper_link_idle(link); /* then it is spawned when it is */
                if (!quick.waiting)
                        quick_start();
        }
}

static void quick_idle(KeeperLink *link, void *userdata) {
        if (quick.waiting)
                quick_start();
        quick.waiting = false;
        quick_next(link, userdata);
}

static void quick_exited(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        int status = exit->instance % 2 ? 127 : 0;

        (void) userdata;
        quick.wrong |= exit->instance > quick.n_started || quick.exits[exit->instance]++ > 0;
        quick.wrong |= exit->code != CLD_EXITED || exit->status != status;
        quick.wrong |= keeper_link_ack(link, exit->instance) < 0;
        if (++quick.n_exits == QUICK)
                loop_stop(quick.loop);
}

static void quick_closed(KeeperLink *link, void *userdata) {
        (void) link;
        (void) userdata;
        quick.wrong = true;
        loop_stop(quick.loop);
}

static int scenario_quick(void) {
        static const KeeperLinkHandlers handlers = { quick_exited, quick_idle, quick_closed };

        CHECK(loop_new(&quick.loop) == 0);
        CHECK(keeper_link_new(&quick.link, quick.loop, KEEPER_SOCKET_FD, &handlers, NULL) == 0);
        quick_next(quick.link, NULL);
        loop_run(quick.loop);
        CHECK(!quick.wrong && quick.n_exits == QUICK && quick.n_done == 2 * QUICK);
        CHECK(keeper_link_shutdown(quick.link, 5) == 0 && keeper_link_idle(quick.link));
        loop_run(quick.loop); /* the keeper kills us */
        return 98;
}

#define SCENARIO(_name) \
        { #_name, scenario_##_name }
static const struct {
        const char *name;
        int (*run)(void);
} scenarios[] = {
        SCENARIO(life),      SCENARIO(started_with), SCENARIO(names),  SCENARIO(refused),    SCENARIO(drop),
        SCENARIO(full),      SCENARIO(signal),       SCENARIO(unread), SCENARIO(kill_group), SCENARIO(greedy),
        SCENARIO(malformed), SCENARIO(shutdown),     SCENARIO(killed), SCENARIO(exits),      SCENARIO(closes),
        SCENARIO(cancel),    SCENARIO(hang_up),      SCENARIO(term),   SCENARIO(stubborn),   SCENARIO(kill_keeper),
        SCENARIO(quick),
};

static int supervisor_main(int argc, char **argv) {
        const char *name = getenv("TEST_SCENARIO");

        CHECK(argc == 5 && name);
        CHECK(strcmp(argv[1], "--generation=1") == 0 && strncmp(argv[2], "--nofile=", 9) == 0);
        CHECK(strncmp(argv[3], "--stop-timeout=", 15) == 0 && strcmp(argv[4], "--private") == 0);
        CHECK(spawn_reserve() == 0);
        for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
                if (strcmp(scenarios[i].name, name) == 0)
                        return scenarios[i].run();
        return 97;
}

/* ------------------------------------------------------------------------------------------- the keeper, as a whole */

typedef struct Outcome {
        int status; /* the keeper's */
        char log[8192];
} Outcome;

typedef struct Play {
        int lane, log;
        uint64_t stop_timeout_us;
        rlim_t nofile;
        const char *program; /* baton-keeper as it was built; NULL: what is linked into this test */
} Play;

static char libexec[64], built[4096];

/* exec_keeper() - returns only on failure. */
static int exec_keeper(const char *program, int lane) {
        char private[32], name[] = "baton-keeper", *argv[] = { name, private, NULL };

        (void) snprintf(private, sizeof(private), "--private=%d", lane);
        (void) fcntl(lane, F_SETFD, 0);
        (void) execve(program, argv, environ);
        return 96;
}

static int keeper_child(void *argument) {
        const Play *play = argument;
        KeeperOptions options = { .private_fd = play->lane, .stop_timeout_us = play->stop_timeout_us };
        struct rlimit nofile = { play->nofile, play->nofile };

        if (play->nofile > 0)
                (void) setrlimit(RLIMIT_NOFILE, &nofile);
        (void) dup2(play->log, STDERR_FILENO);
        log_open("baton-keeper");
        if (play->program)
                return exec_keeper(play->program, play->lane);
        return keeper_run(&options);
}

/* collect() - what does not fit is read all the same: the keeper waits for room when it logs. */
static void collect(int log, Outcome *outcome, size_t *length) {
        char bytes[1024];
        ssize_t n = read(log, bytes, sizeof(bytes));
        size_t fits = MIN((size_t) MAX(n, 0), sizeof(outcome->log) - 1 - *length);

        memcpy(outcome->log + *length, bytes, fits);
        *length += fits;
}

/* watch() - until nobody holds the tree's end of lane and log; hangs up when the supervisor asks for it. */
static void watch(int *lane, int *log, Outcome *outcome) {
        size_t length = 0;
        char byte;

        for (;;) {
                struct pollfd fds[] = { { .fd = *lane, .events = POLLIN }, { .fd = *log, .events = POLLIN } };

                (void) poll(fds, 2, -1);
                if (fds[0].revents && (read(*lane, &byte, 1) <= 0 || byte == 'H'))
                        *lane = fd_close(*lane);
                if (fds[1].revents & POLLIN)
                        collect(*log, outcome, &length);
                else if (fds[1].revents)
                        break;
        }
        *log = fd_close(*log);
        *lane = fd_close(*lane);
}

/* perform() - a whole life of a keeper. Nothing of it may be left. */
static Outcome perform(const char *scenario, Play play) {
        int lane[2], log[2];
        Outcome outcome = { 0 };
        pid_t pid;

        (void) setenv("TEST_SCENARIO", scenario, 1);
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        assert_int_equal(pipe2(log, O_CLOEXEC), 0);
        play.lane = lane[1];
        play.log = log[1];
        if (play.stop_timeout_us == 0)
                play.stop_timeout_us = KEEPER_STOP_TIMEOUT_US;
        pid = test_child(keeper_child, &play);
        fd_close(lane[1]);
        fd_close(log[1]);
        watch(&lane[0], &log[0], &outcome);
        outcome.status = test_child_wait(pid);
        if (getenv("TEST_VERBOSE"))
                printf("# %s: %d\n%s", scenario, outcome.status, outcome.log);
        return outcome;
}

#define assert_log(_outcome, _text)                                                                                \
        do {                                                                                                       \
                if (!strstr((_outcome).log, (_text)))                                                              \
                        fail_msg("status %d, the log lacks `%s': %s", (_outcome).status, (_text), (_outcome).log); \
        } while (0)

/* Scenarios that end by SHUTDOWN with 5, having found nothing wrong. */
static void expect_five(const char *scenario) {
        Outcome outcome = perform(scenario, (Play){ 0 });

        if (outcome.status != 5)
                fail_msg("%s: status %d: %s", scenario, outcome.status, outcome.log);
}

#define TEST_FIVE(_name)                         \
        static void test_##_name(void **state) { \
                (void) state;                    \
                expect_five(#_name);             \
        }                                        \
        struct baton_semicolon

TEST_FIVE(life);
TEST_FIVE(names);
TEST_FIVE(refused);
TEST_FIVE(cancel);
TEST_FIVE(drop);
TEST_FIVE(signal);
TEST_FIVE(kill_group);
TEST_FIVE(unread);
TEST_FIVE(quick);

static void test_started_with(void **state) {
        (void) state;
        assert_int_equal(perform("started_with", (Play){ 0 }).status, 0);
}

static void test_full(void **state) {
        (void) state;
        assert_int_equal(perform("full", (Play){ .nofile = 96 }).status, 5);
}

static void test_malformed(void **state) {
        Outcome outcome = perform("malformed", (Play){ 0 });

        (void) state;
        assert_int_equal(outcome.status, 5);
        assert_log(outcome, "PUT (type 2) from pid");
        assert_log(outcome, "STARTED for instance 7");
}

static void test_greedy(void **state) {
        Outcome outcome = perform("greedy", (Play){ 0 });

        (void) state;
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "more than 64 unanswered requests");
}

/* Orphans in sessions of their own go too, however they are found. */
static void test_shutdown(void **state) {
        (void) state;
        expect_five("shutdown");
        (void) setenv("BATON_DISABLE", "children-file", 1);
        expect_five("shutdown");
        (void) unsetenv("BATON_DISABLE");
}

static void test_supervisor_dies(void **state) {
        Outcome outcome;

        (void) state;
        outcome = perform("killed", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "was killed by signal 9 SIGKILL; runners killed with it: 1\n");
        outcome = perform("exits", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "exited with status 4; runners killed with it: 1\n");
        outcome = perform("closes", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "was killed by signal 9 SIGKILL; runners killed with it: 1\n");
}

static void test_stop(void **state) {
        Outcome outcome;

        (void) state;
        assert_int_equal(perform("hang_up", (Play){ 0 }).status, 3);
        assert_int_equal(perform("term", (Play){ 0 }).status, 6);
        outcome = perform("stubborn", (Play){ .stop_timeout_us = 20000 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "did not stop in time");
}

static void test_keeper_dies(void **state) {
        Outcome outcome = perform("kill_keeper", (Play){ 0 });
        unsigned n = 0;
        int status;

        (void) state;
        assert_int_equal(outcome.status, -SIGKILL);
        while (waitpid(-1, &status, 0) > 0) { /* supervisor and runner, now ours */
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                n++;
        }
        assert_int_equal(n, 2);
}

/* The program itself, static as it is, from its arguments to its end. */
static void test_program(void **state) {
        Outcome outcome;

        (void) state;
        if (access(built, X_OK) < 0) {
                print_message("baton-keeper is not built: %s\n", built);
                skip();
        }
        assert_int_equal(perform("life", (Play){ .program = built }).status, 5);
        assert_int_equal(perform("hang_up", (Play){ .program = built }).status, 3);
        outcome = perform("killed", (Play){ .program = built });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "baton-keeper: error: supervisor (pid ");
}

static void test_no_supervisor(void **state) {
        char path[128];
        Outcome outcome;

        (void) state;
        (void) setenv("BATON_LIBEXEC", "/nowhere", 1);
        outcome = perform("none", (Play){ 0 });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome,
                   "cannot start the supervisor: open(/nowhere/baton-supervisor): No such file or directory\n");

        (void) snprintf(path, sizeof(path), "%s/sub", libexec);
        assert_int_equal(mkdir(path, 0700), 0);
        (void) setenv("BATON_LIBEXEC", path, 1);
        (void) snprintf(path, sizeof(path), "%s/sub/baton-supervisor", libexec);
        assert_int_equal(mkdir(path, 0700), 0); /* not a program */
        outcome = perform("none", (Play){ 0 });
        (void) rmdir(path);
        *strrchr(path, '/') = '\0';
        (void) rmdir(path);
        (void) setenv("BATON_LIBEXEC", libexec, 1);
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "cannot start the supervisor: exec: Permission denied\n");
}

static int make_libexec(void **state) {
        char target[4096] = "", path[128];

        (void) state;
        (void) snprintf(built, sizeof(built), "%s/baton-keeper", getenv("BATON_LIBEXEC") ?: ".");
        (void) snprintf(libexec, sizeof(libexec), "/tmp/baton-test-keeper-XXXXXX");
        if (!mkdtemp(libexec) || readlink("/proc/self/exe", target, sizeof(target) - 1) < 0)
                return -1;
        (void) snprintf(path, sizeof(path), "%s/baton-supervisor", libexec);
        return symlink(target, path) < 0 || setenv("BATON_LIBEXEC", libexec, 1) < 0 ? -1 : 0;
}

static void remove_libexec(void) {
        char path[128];

        (void) snprintf(path, sizeof(path), "%s/baton-supervisor", libexec);
        (void) unlink(path);
        (void) rmdir(libexec);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                TEST(test_table_slots),
                TEST(test_table_full),
                TEST(test_table_fds),
                TEST(test_life),
                TEST(test_started_with),
                TEST(test_names),
                TEST(test_refused),
                TEST(test_drop),
                TEST(test_full),
                TEST(test_signal),
                TEST(test_kill_group),
                TEST_SLOW(test_unread, 30),
                TEST_SLOW(test_quick, 30),
                TEST(test_malformed),
                TEST(test_greedy),
                TEST(test_shutdown),
                TEST(test_supervisor_dies),
                TEST(test_stop),
                TEST(test_keeper_dies),
                TEST(test_no_supervisor),
                TEST(test_program),
                TEST(test_cancel),
        };
        int r;

        if (strcmp(argv[0], "baton-supervisor") == 0)
                return supervisor_main(argc, argv);
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (make_libexec(NULL) < 0)
                return 1;
        r = test_run(tests, ARRAY_SIZE(tests));
        remove_libexec();
        return r;
}

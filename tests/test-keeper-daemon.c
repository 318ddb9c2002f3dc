/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper of a daemon: what it hands from one supervisor to the next, and when there is none. Each scenario is played by
 * all generations of a supervisor, which know by their number where they are.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "tests/keeper-fixture.h"

/* None is the first in a row, and nobody waits long. */
#define NEVER_HEALTHY ((LadderPolicy){ .healthy_us = 3600000000, .delay_us = 1 })

static int serving(void) {
        return tell((KeeperMessage){ .type = KEEPER_SERVING }, NULL, 0);
}

static int die(void) {
        (void) kill(getpid(), SIGKILL);
        return 98;
}

static int forever(void) {
        struct pollfd nothing = { .fd = -1 };

        (void) poll(&nothing, 1, -1);
        return 98;
}

static int ask_record(uint64_t instance, const char *text) {
        KeeperMessage m = { .type = KEEPER_RECORD, .instance = instance };

        strncpy((char *) m.record, text, sizeof(m.record));
        return tell(m, NULL, 0);
}

/* --------------------------------------------------------------------------------------------------------- succession */

/*
 * 1 runs and is adopted; 2 has exited; 3 is only reserved; 4 was born and not STARTED; 5 is native without a lane, 6 with
 * one; 7 is a helper; 8 is kept from the beginning, 9 since its end; 10 was acknowledged.
 */
static int leave_all(void) {
        KeeperMessage exit;
        SpawnResult result;
        int fds[2];

        CHECK(slots_told() == 0 && fds_told() == 1 && fd_told(0, KEEPER_FD_CONTROL, 0) >= 0);
        CHECK(serving() == 0);
        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        CHECK(start_runner(1, "a", KEEPER_FLAG_KILL_GROUP, "echo x; exec sleep 1000", fds[1]) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, fds[0]) == 0);
        CHECK(ask_record(1, "first") == 0 && ask_record(1, "second") == 0 && tell_about(KEEPER_ACTIVE, 1) == 0);
        CHECK(start_runner(2, "a", 0, "exit 9", -1) == 0);
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_status == 9);
        CHECK(ask_reserve(3, "c", 0) == 0 && ask_put(3, KEEPER_FD_LOG, 1, fds[0]) == 0);
        CHECK(ask_reserve(4, "d", 0) == 0 && try_runner(4, "exec sleep 1000", -1, &result) == 0);
        CHECK(start_runner(5, "e", KEEPER_FLAG_NATIVE, "exec sleep 1000", -1) == 0);
        CHECK(start_runner(6, "f", KEEPER_FLAG_NATIVE, "exec sleep 1000", -1) == 0);
        CHECK(ask_put(6, KEEPER_FD_LANE, 0, fds[0]) == 0);
        CHECK(start_runner(7, "g", KEEPER_FLAG_TRANSIENT, "exec sleep 1000", -1) == 0);
        CHECK(ask_reserve(8, "h", KEEPER_FLAG_KEPT) == 0 && ask_record(8, "waits") == 0);
        CHECK(start_runner(9, "i", 0, "exit 1", -1) == 0 && wait_exit(9, &exit) == 1);
        CHECK(tell((KeeperMessage){ .type = KEEPER_ACK, .instance = 9, .flags = KEEPER_FLAG_KEPT }, NULL, 0) == 0);
        CHECK(start_runner(10, "j", 0, "exit 1", -1) == 0 && wait_exit(10, &exit) == 1);
        CHECK(tell_about(KEEPER_ACK, 10) == 0);
        CHECK(ask_reserve(11, "h", KEEPER_FLAG_KEPT) == -EBUSY);
        return die();
}

static bool slot_is(uint64_t instance, KeeperSlotState state, uint32_t flags, const char *record) {
        const KeeperMessage *m = slot_told(instance);

        return m && m->result == (int) state && m->flags == flags && strcmp((const char *) m->record, record) == 0;
}

static int find_all(void) {
        KeeperMessage exit;
        char byte;

        CHECK(slot_is(1, KEEPER_SLOT_BORN, KEEPER_FLAG_KILL_GROUP | KEEPER_FLAG_STARTED | KEEPER_FLAG_ACTIVE,
                      "second"));
        CHECK(strcmp(slot_told(1)->name, "a") == 0);
        CHECK(slot_pidfd(1) >= 0 && !test_readable(slot_pidfd(1)) && kill(slot_told(1)->pid, 0) == 0);
        CHECK(read(fd_told(1, KEEPER_FD_LOG, 1), &byte, 1) == 1 && byte == 'x');
        CHECK(slot_is(2, KEEPER_SLOT_EXITED, KEEPER_FLAG_STARTED, ""));
        CHECK(wait_exit(2, &exit) == 1 && exit.wait_code == CLD_EXITED && exit.wait_status == 9);
        CHECK(!slot_told(3) && fd_told(3, KEEPER_FD_LOG, 1) < 0);
        for (uint64_t i = 4; i <= 5; i++) {
                const KeeperMessage *slot = slot_told(i);

                CHECK(slot && (slot->result == KEEPER_SLOT_EXITED || (slot->flags & KEEPER_FLAG_DOOMED)));
                CHECK(wait_exit(i, &exit) == 1 && exit.wait_code == CLD_KILLED && exit.wait_status == SIGKILL);
                CHECK(tell_about(KEEPER_ACK, i) == 0);
        }
        CHECK(slot_is(6, KEEPER_SLOT_BORN, KEEPER_FLAG_NATIVE | KEEPER_FLAG_STARTED, ""));
        CHECK(fd_told(6, KEEPER_FD_LANE, 0) >= 0);
        CHECK(!slot_told(7) && !slot_told(10));
        CHECK(slot_is(8, KEEPER_SLOT_KEPT, KEEPER_FLAG_KEPT, "waits"));
        CHECK(slot_is(9, KEEPER_SLOT_KEPT, KEEPER_FLAG_STARTED, ""));
        CHECK(exits_received() == 3); /* none of 9 and 10 comes twice */
        return 0;
}

static int scenario_succession(void) {
        KeeperMessage exit;

        if (generation() == 1)
                return leave_all();
        CHECK(find_all() == 0);
        CHECK(tell_about(KEEPER_ACK, 2) == 0 && tell_about(KEEPER_CANCEL, 8) == 0);
        CHECK(ask_signal(6, SIGTERM) == 0 && wait_exit(6, &exit) == 1);
        CHECK(ask_reserve(20, "h", KEEPER_FLAG_KEPT) == 0 && ask_reserve(21, "a", 0) == 0);
        CHECK(ask_reserve(22, "a", 0) == -EBUSY); /* 1 is still there */
        return shut_down(5);
}
TEST_DAEMON(succession);

/* More than the socket holds, with descriptors; nothing is lost on the way, and none stays behind in the keeper. */
enum { MANY = 400 };

static int count_keeper_fds(void) {
        char path[64];
        int n = 0;
        DIR *dir;

        (void) snprintf(path, sizeof(path), "/proc/%d/fd", (int) getppid());
        dir = opendir(path);
        while (dir && readdir(dir))
                n++;
        if (dir)
                (void) closedir(dir);
        return n;
}

static int scenario_many(void) {
        char name[32];
        int fds[2];

        if (generation() == 1) {
                int before;

                CHECK(serving() == 0 && ask_drop(1, KEEPER_FD_LOG, 1) == -ENOENT); /* it is done with starting us */
                before = count_keeper_fds();
                for (uint64_t i = 1; i <= MANY; i++) {
                        CHECK(pipe2(fds, O_CLOEXEC) == 0);
                        (void) snprintf(name, sizeof(name), "n%d", (int) i);
                        CHECK(ask_reserve(i, name, KEEPER_FLAG_KEPT) == 0);
                        CHECK(ask_put(i, KEEPER_FD_LOG, 1, fds[0]) == 0 && ask_put(i, KEEPER_FD_LOG, 2, fds[1]) == 0);
                        fd_close_all(fds, 2);
                }
                CHECK(count_keeper_fds() == before + 2 * MANY);
                return die();
        }
        CHECK(slots_told() == MANY && fds_told() == 2 * MANY + 1);
        for (uint64_t i = 1; i <= MANY; i++)
                CHECK(fd_told(i, KEEPER_FD_LOG, 1) >= 0 && fd_told(i, KEEPER_FD_LOG, 2) >= 0);
        if (generation() < 5)
                return serving() == 0 ? die() : 98;
        for (uint64_t i = 1; i <= MANY; i++)
                CHECK(tell_about(KEEPER_CANCEL, i) == 0);
        CHECK(ask_drop(1, KEEPER_FD_LOG, 1) == -ENOENT); /* it has read all of these */
        CHECK(count_keeper_fds() < 20);
        return shut_down(5);
}
TEST_DAEMON(many);

/* What belongs to no instance: the configuration is replaced and handed on, the listener is nobody's to touch. */
static int scenario_own(void) {
        char text[8] = "";
        int fd;

        if (generation() == 1) {
                CHECK(serving() == 0);
                CHECK(memfd_sealed("one", "one", 3, &fd) == 0);
                CHECK(ask_put(0, KEEPER_FD_CONFIG, 0, fd) == 0 && ask_put(0, KEEPER_FD_CONFIG, 0, fd) == -EEXIST);
                fd_close(fd);
                CHECK(memfd_sealed("two", "two", 3, &fd) == 0);
                CHECK(ask((KeeperMessage){ .type = KEEPER_PUT,
                                           .flags = KEEPER_FLAG_REPLACE,
                                           .fd_kind = KEEPER_FD_CONFIG },
                          &fd, 1) == 0);
                CHECK(ask_put(0, KEEPER_FD_RING, 77, fd) == 0);
                CHECK(ask_put(0, KEEPER_FD_CONTROL, 1, fd) == -EINVAL && ask_put(0, KEEPER_FD_LANE, 0, fd) == -EINVAL);
                CHECK(ask_drop(0, KEEPER_FD_CONTROL, 0) == -EINVAL);
                CHECK(ask_reserve(1, "a", 0) == 0 && ask_put(1, KEEPER_FD_CONFIG, 0, fd) == -EINVAL);
                return die();
        }
        CHECK(fds_told() == 3 && slots_told() == 0);
        CHECK(pread(fd_told(0, KEEPER_FD_CONFIG, 0), text, sizeof(text), 0) == 3 && strcmp(text, "two") == 0);
        CHECK(fd_told(0, KEEPER_FD_RING, 77) >= 0);
        return shut_down(5);
}
TEST_DAEMON(own);

static int scenario_quota(void) {
        uint64_t n = 0;
        int r = 0;

        CHECK(serving() == 0 && ask_reserve(1, "a", KEEPER_FLAG_KEPT) == 0);
        while ((r = ask_put(1, KEEPER_FD_LOG, n, STDIN_FILENO)) == 0)
                n++;
        CHECK(r == -EDQUOT && n == 1024);
        CHECK(ask_reserve(2, "b", KEEPER_FLAG_KEPT) == 0 && ask_put(2, KEEPER_FD_LOG, n, STDIN_FILENO) == 0);
        return shut_down(5);
}
TEST_DAEMON(quota);

/* A child between clone and BORN when its supervisor is gone cannot say BORN any more, and ends; see test_orphan_born(). */
static int scenario_orphan_born(void) {
        KeeperMessage born = { .version = KEEPER_VERSION, .type = KEEPER_BORN, .instance = 1 };
        int fds[2];
        char byte;
        pid_t pid;

        if (generation() > 1)
                return shut_down(slots_told() == 0 ? 5 : 6);
        CHECK(serving() == 0 && ask_reserve(1, "a", 0) == 0);
        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        pid = fork();
        if (pid == 0) {
                struct pollfd keeper = { .fd = KEEPER_SOCKET_FD, .events = POLLRDHUP };

                fd_close(fds[1]);
                (void) read(fds[0], &byte, 1); /* until the supervisor is dead */
                (void) poll(&keeper, 1, -1);   /* and the keeper has seen that */
                _exit(send(KEEPER_SOCKET_FD, &born, sizeof(born), MSG_NOSIGNAL) < 0 && errno == EPIPE ? 0 : 1);
        }
        return die();
}
TEST_DAEMON(orphan_born);

/* -------------------------------------------------------------------------------------------------------- being without */

/* control_connect() - 0 with the connection, or a negative errno. */
static int control_connect(int *ret_fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void) snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", keeper_runtime);
        if (connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0) {
                fd_close(fd);
                return -errno;
        }
        *ret_fd = fd;
        return 0;
}

/* Told by the environment what to do, as all of its generations are. */
static int scenario_dies(void) {
        if (generation() == 1)
                CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
        CHECK(serving() == 0);
        return generation() <= 9 ? die() : wait_word(KEEPER_RELOAD) == 0 && slot_told(1) ? shut_down(5) : 97;
}

static void sent_away_and_reload(pid_t keeper) {
        struct ucred peer;
        socklen_t size = sizeof(peer);
        char byte;
        int fd = -1;

        assert_int_equal(control_connect(&fd), 0);
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
        assert_int_equal(peer.pid, keeper); /* although nobody has ever listened but the keeper */
        assert_int_equal(read(fd, &byte, 1), 0);
        fd_close(fd);
        assert_int_equal(kill(keeper, SIGHUP), 0);
}

static unsigned count_text(const char *text, const char *part) {
        unsigned n = 0;

        for (; (text = strstr(text, part)); text++)
                n++;
        return n;
}

static void test_down(void **state) {
        Outcome outcome;

        (void) state;
        outcome = perform("dies", (Play){ .daemon = true,
                                          .ladder = NEVER_HEALTHY,
                                          .await = "no supervisor runs: it died too often; runners go on: 1; SIGHUP",
                                          .then = sent_away_and_reload });
        assert_int_equal(outcome.status, 5);
        assert_int_equal((int) count_text(outcome.log, "was killed by signal 9 SIGKILL; runners go on without: 1"), 9);
}

static void term(pid_t keeper) {
        assert_int_equal(kill(keeper, SIGTERM), 0);
}

/* SIGTERM stops the runners although nobody supervises them. */
static void test_down_stop(void **state) {
        Outcome outcome;

        (void) state;
        outcome = perform(
                "dies",
                (Play){ .daemon = true, .ladder = NEVER_HEALTHY, .await = "no supervisor runs", .then = term });
        assert_int_equal(outcome.status, 0);
}

/* Nor does one stay that does not care for SIGTERM, when the time is over. */
static int scenario_stubborn(void) {
        if (generation() == 1)
                CHECK(start_runner(1, "a", 0, "trap '' TERM; echo ready >&2; while :; do sleep 1000; done", -1) == 0);
        CHECK(serving() == 0);
        return die();
}

/* One that dies while it stops leaves the rest to the keeper. */
static int scenario_dies_stopping(void) {
        sigset_t signals;
        int number;

        if (generation() > 1)
                return 97;
        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &signals, NULL);
        CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
        CHECK(serving() == 0 && kill(getppid(), SIGTERM) == 0);
        CHECK(sigwait(&signals, &number) == 0);
        return die();
}

static void test_stop(void **state) {
        Outcome outcome;

        (void) state;
        outcome = perform("dies_stopping", (Play){ .daemon = true });
        assert_int_equal(outcome.status, 0);
        outcome = perform("stubborn", (Play){ .daemon = true,
                                              .ladder = NEVER_HEALTHY,
                                              .stop_timeout_us = 30000,
                                              .await = "no supervisor runs",
                                              .then = term });
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "runners did not stop in time: everything is killed");
}

/* The first one never served: there is nothing to go on with. */
static int scenario_stillborn(void) {
        return 3;
}

static void test_stillborn(void **state) {
        Outcome outcome = perform("stillborn", (Play){ .daemon = true });

        (void) state;
        assert_int_equal(outcome.status, 1);
        assert_log(outcome, "exited with status 3; runners killed with it: 0");
}

/* --------------------------------------------------------------------------------------------------------------- hanging */

static int scenario_hangs(void) {
        KeeperMessage exit;

        if (generation() == 1) {
                CHECK(serving() == 0);
                CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
                CHECK(start_runner(2, "b", 0, "exit 3", -1) == 0);
                CHECK(wait_exit(2, &exit) == 1);
                return forever(); /* an exit is not acknowledged, a PING not answered */
        }
        if (generation() == 2) {
                CHECK(signal(SIGABRT, SIG_IGN) != SIG_ERR);
                return forever(); /* and this one never serves */
        }
        CHECK(slot_told(1) && slot_told(1)->result == KEEPER_SLOT_BORN);
        CHECK(wait_exit(2, &exit) == 1);
        return shut_down(5);
}

static void test_hangs(void **state) {
        Outcome outcome =
                perform("hangs", (Play){ .daemon = true, .hang_timeout_us = 250000, .ladder = ALWAYS_HEALTHY });

        (void) state;
        assert_int_equal(outcome.status, 5);
        assert_log(outcome, "does not answer: killed by SIGABRT\n");
        assert_log(outcome, "was killed by signal 6 SIGABRT; runners go on without: 1");
        assert_log(outcome, "was killed by signal 9 SIGKILL; runners go on without: 1");
}

/* It owes an answer for long, but lives. Nothing is asked of one that owes none. */
static int scenario_slow(void) {
        KeeperMessage exit;

        CHECK(generation() == 1 && serving() == 0);
        CHECK(start_runner(1, "a", 0, "exit 3", -1) == 0 && wait_exit(1, &exit) == 1);
        for (int i = 0; i < 5; i++) {
                CHECK(wait_word(KEEPER_PING) == 0);
                CHECK(tell((KeeperMessage){ .type = KEEPER_PONG }, NULL, 0) == 0);
        }
        CHECK(tell_about(KEEPER_ACK, 1) == 0);
        CHECK(!test_readable(KEEPER_SOCKET_FD));
        return shut_down(5);
}

static void test_slow(void **state) {
        Outcome outcome = perform("slow", (Play){ .daemon = true, .hang_timeout_us = 250000 });

        (void) state;
        assert_int_equal(outcome.status, 5);
}

static int scenario_forced(void) {
        CHECK(serving() == 0);
        if (generation() == 1) {
                CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
                CHECK(kill(getppid(), SIGUSR1) == 0);
                return forever();
        }
        return shut_down(slot_told(1) ? 5 : 6);
}
TEST_DAEMON(forced);

static int scenario_reload(void) {
        CHECK(serving() == 0);
        CHECK(kill(getppid(), SIGHUP) == 0 && wait_word(KEEPER_RELOAD) == 0);
        return shut_down(5);
}
TEST_DAEMON(reload);

int main(int argc, char **argv) {
        static const Scenario scenarios[] = {
                SCENARIO(succession), SCENARIO(many),     SCENARIO(own),    SCENARIO(quota), SCENARIO(orphan_born),
                SCENARIO(dies),       SCENARIO(stubborn), SCENARIO(hangs),  SCENARIO(slow),  SCENARIO(dies_stopping),
                SCENARIO(stillborn),  SCENARIO(forced),   SCENARIO(reload),
        };
        const struct CMUnitTest tests[] = {
                TEST(test_succession),  TEST(test_many),      TEST(test_own),  TEST(test_quota),
                TEST(test_orphan_born), TEST(test_down),      TEST(test_stop), TEST(test_stillborn),
                TEST(test_hangs),       TEST(test_down_stop), TEST(test_slow), TEST(test_forced),
                TEST(test_reload),
        };
        const KeeperTest test = { scenarios, ARRAY_SIZE(scenarios), tests, ARRAY_SIZE(tests) };

        return keeper_test_main(argc, argv, &test);
}

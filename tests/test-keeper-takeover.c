/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper's side of a takeover, step by step: predecessor, successor and whoever recovers are played by generations 1, 2
 * and 3 of each scenario. The two say to each other by one byte how far they are; where the order of what the keeper reads
 * matters, it is stopped meanwhile. The rules are those of tests/model/takeover.pml.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/keeper-fixture.h"

#define NEVER_HEALTHY ((LadderPolicy){ .healthy_us = 3600000000, .delay_us = 1 })

/* -------------------------------------------------------------------------------------------------- what all of them do */

static int other = -1; /* this one's end of the pair between the two */

static int word(KeeperType type) {
        return tell((KeeperMessage){ .type = (uint16_t) type }, NULL, 0);
}

static int refuse(const char *why) {
        KeeperMessage m = { .type = KEEPER_REFUSE };

        (void) strcpy((char *) m.record, why);
        return tell(m, NULL, 0);
}

/* begin() - what the keeper answered to TAKEOVER. */
static int begin(void) {
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return 1;
        r = ask((KeeperMessage){ .type = KEEPER_TAKEOVER }, &pair[1], 1);
        fd_close(pair[1]);
        fd_close(other);
        other = pair[0];
        return r;
}

static int ours(void) {
        return other < 0 ? successor_fd() : other;
}

static int say(char byte) {
        return send(ours(), &byte, 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int hear(char byte) {
        char got;

        return recv(ours(), &got, 1, 0) == 1 && got == byte ? 0 : -1;
}

/* hear_end() - the other one is gone. */
static int hear_end(void) {
        char got;

        return recv(ours(), &got, 1, 0) <= 0 ? 0 : -1;
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

/* predecessor() - serves, has a runner as instance 1 with a descriptor, and has asked for a successor. */
static int predecessor(void) {
        CHECK(!is_successor() && word(KEEPER_SERVING) == 0);
        CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
        CHECK(ask_put(1, KEEPER_FD_LOG, 1, STDIN_FILENO) == 0);
        CHECK(begin() == 0);
        return 0;
}

/* it_serves() - has the runner, and can do with it what it likes; ends the tree as expected. */
static int it_serves(void) {
        KeeperMessage exit;

        CHECK(ask_reserve(70, "z", 0) == 0 && ask_drop(1, KEEPER_FD_LOG, 1) == 0);
        CHECK(ask_signal(1, SIGTERM) == 0 && wait_exit(1, &exit) >= 1 && exit.wait_status == SIGTERM);
        CHECK(tell_about(KEEPER_ACK, 1) == 0);
        return shut_down(5);
}

/* it_begins() - of one that has just been told the table. */
static int it_begins(void) {
        CHECK(slot_told(1) && slot_told(1)->result == KEEPER_SLOT_BORN && slot_pidfd(1) >= 0);
        CHECK(fd_told(1, KEEPER_FD_LOG, 1) >= 0 && fd_told(0, KEEPER_FD_CONTROL, 0) >= 0);
        CHECK(word(KEEPER_SERVING) == 0);
        return it_serves();
}

/* ------------------------------------------------------------------------------------------------------------- committed */

static int scenario_frozen_first(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0);
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(generation() == 2 && is_successor() && say('b') == 0);
        CHECK(slot_told(1)); /* the end of the table comes with FROZEN */
        CHECK(word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        return it_begins();
}
TEST_DAEMON(frozen_first);

/* What changes while the predecessor serves on is told, and what is not there any more is not. */
static int scenario_changes(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0);
                CHECK(ask_reserve(9, "y", 0) == 0 && ask_reserve(10, "x", 0) == 0);
                CHECK(ask_put(10, KEEPER_FD_LOG, 1, STDIN_FILENO) == 0 && ask_put(0, KEEPER_FD_RING, 7, 0) == 0);
                CHECK(ask_put(0, KEEPER_FD_RING, 8, STDIN_FILENO) == 0 && say('r') == 0 && hear('d') == 0);
                CHECK(tell_about(KEEPER_CANCEL, 9) == 0 && ask_drop(0, KEEPER_FD_RING, 7) == 0);
                CHECK(start_runner(11, "w", 0, "exec sleep 1000", -1) == 0);
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && say('b') == 0 && hear('r') == 0 && test_readable(KEEPER_SOCKET_FD) && say('d') == 0);
        CHECK(slot_told(1) && !slot_told(9) && slot_told(10) && slot_told(10)->result == KEEPER_SLOT_RESERVED);
        CHECK(fd_told(10, KEEPER_FD_LOG, 1) >= 0 && fd_told(0, KEEPER_FD_RING, 8) >= 0);
        CHECK(slot_told(11)->result == KEEPER_SLOT_BORN && slot_pidfd(11) >= 0);
        CHECK(slot_told(11)->flags & KEEPER_FLAG_STARTED && fd_told(0, KEEPER_FD_RING, 7) < 0);
        CHECK(word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        CHECK(tell_about(KEEPER_CANCEL, 11) == 0 && tell_about(KEEPER_CANCEL, 10) == 0);
        return it_begins();
}
TEST_DAEMON(changes);

/* A hundred slots with three descriptors each, by single messages until PACK was heard; all of it arrives, each once. */
enum { PACKED = 100 };

static int scenario_packs(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0);
                for (uint64_t i = 100; i < 100 + PACKED; i++) {
                        char name[16];

                        (void) snprintf(name, sizeof(name), "n%d", (int) i);
                        CHECK(ask_reserve(i, name, 0) == 0);
                        for (uint64_t tag = 1; tag <= 3; tag++)
                                CHECK(ask_put(i, KEEPER_FD_LOG, tag, STDIN_FILENO) == 0);
                }
                CHECK(say('r') == 0 && hear('d') == 0); /* nobody has read, and there is room for a hundred or two */
                CHECK(tell_about(KEEPER_CANCEL, 100) == 0 && ask_drop(101, KEEPER_FD_LOG, 2) == 0);
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && word(KEEPER_PACK) == 0 && say('b') == 0 && hear('r') == 0 && say('d') == 0);
        CHECK(slot_told(1) && !slot_told(100) && most_told() == KEEPER_PACK_MAX);
        for (uint64_t i = 101; i < 100 + PACKED; i++)
                for (uint64_t tag = 1; tag <= 3; tag++)
                        CHECK(slot_told(i) && fd_told(i, KEEPER_FD_LOG, tag) >= 0);
        CHECK(slots_told() == 1 + PACKED && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        for (uint64_t i = 101; i < 100 + PACKED; i++)
                CHECK(tell_about(KEEPER_CANCEL, i) == 0);
        return it_begins();
}
TEST_DAEMON(packs);

static int scenario_ready_first(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0);
                CHECK(ask_reserve(9, "y", 0) ==
                      0); /* the keeper has read READY by now, or will before the next line */
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && word(KEEPER_READY) == 0 && say('b') == 0 && wait_word(KEEPER_GO) == 0);
        CHECK(slot_told(9));
        return it_begins();
}
TEST_DAEMON(ready_first);

/* An exit in between is told to the successor, once it is the one; what has been asked of the keeper is done. */
static int scenario_exit_between(void) {
        KeeperMessage exit;

        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0 && word(KEEPER_FROZEN) == 0);
                CHECK(kill(slot_told(1) ? 0 : getppid(), 0) == 0 && hear('t') == 0);
                CHECK(ask_signal(1, SIGTERM) == 0 && wait_exit(1, &exit) == 1); /* the socket still has ears */
                CHECK(say('x') == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && say('b') == 0 && slot_told(1) && say('t') == 0 && hear('x') == 0);
        CHECK(!test_readable(KEEPER_SOCKET_FD));
        CHECK(word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        CHECK(wait_exit(1, &exit) == 1 && exit.wait_status == SIGTERM);
        return shut_down(5);
}
TEST_DAEMON(exit_between);

enum { ROW = 10 };

static int scenario_row(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0);
        } else {
                CHECK(is_successor() && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
                CHECK(slot_told(1) && slot_told(1)->flags & KEEPER_FLAG_STARTED);
                if (generation() > ROW)
                        return it_begins();
                CHECK(word(KEEPER_SERVING) == 0 && begin() == 0);
        }
        CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
        return 0;
}
TEST_DAEMON(row);

/* What one that was left still says means nothing, and it is killed if it stays. */
static int scenario_fenced(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                CHECK(tell((KeeperMessage){ .type = KEEPER_RESERVE, .serial = 77, .instance = 70, .name = "z" }, NULL,
                           0) == 0);
                CHECK(tell_about(KEEPER_CANCEL, 1) == 0 && word(KEEPER_ABORT) == 0 && word(KEEPER_FROZEN) == 0);
                CHECK(tell((KeeperMessage){ .type = KEEPER_SHUTDOWN, .result = 6 }, NULL, 0) == 0);
                return forever();
        }
        CHECK(is_successor() && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0 && word(KEEPER_SERVING) == 0);
        CHECK(hear_end() == 0);
        return it_begins();
}

static void test_fenced(void **state) {
        Outcome outcome =
                perform("fenced", (Play){ .daemon = true, .hang_timeout_us = 200000, .ladder = ALWAYS_HEALTHY });

        (void) state;
        if (outcome.status != 5)
                fail_msg("status %d: %s", outcome.status, outcome.log);
        assert_log(outcome, "did not leave in time: killed");
}

/* ----------------------------------------------------------------------------------------------------------- rolled back */

static int scenario_refused(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0);
                CHECK(wait_word(KEEPER_THAW) == 0 && strcmp(word_text(), "no room for it") == 0);
                CHECK(hear_end() == 0);
                return it_serves();
        }
        CHECK(is_successor() && slot_told(1) && refuse("no room for it") == 0);
        return forever();
}
TEST_DAEMON(refused);

static int scenario_refused_early(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear_end() == 0);
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_THAW) == 0);
                return it_serves();
        }
        CHECK(is_successor() && refuse("no") == 0);
        return forever();
}
TEST_DAEMON(refused_early);

/* Exits that came while it was frozen are told again: it has not listened. */
static int scenario_exit_frozen(void) {
        KeeperMessage exit;

        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0);
                CHECK(ask_signal(1, SIGTERM) == 0 && wait_exit(1, &exit) == 1);
                CHECK(word(KEEPER_ABORT) == 0 && wait_word(KEEPER_THAW) == 0);
                while (exits_received() < 2)
                        CHECK(wait_exit(1, &exit) >= 1 && ask_reserve(80, "x", 0) <= 0);
                return shut_down(5);
        }
        return is_successor() ? forever() : 98;
}
TEST_DAEMON(exit_frozen);

/* Frozen, not frozen, and once more after that. */
static int scenario_abort(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && word(KEEPER_ABORT) == 0);
                CHECK(wait_word(KEEPER_THAW) == 0 && strcmp(word_text(), "the predecessor gave up") == 0);
                CHECK(hear_end() == 0 && begin() == 0 && hear('b') == 0 && word(KEEPER_ABORT) == 0 && hear_end() == 0);
                CHECK(begin() == 0 && hear('b') == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && (generation() == 2 || say('b') == 0));
        if (generation() < 4)
                return forever();
        CHECK(word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        return it_begins();
}
TEST_DAEMON(abort);

/* ABORT behind FROZEN comes too late or not: one answer comes, LEAVE or THAW, and it is meant. */
static int scenario_abort_late(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0);
                for (;;) {
                        CHECK(hear('b') == 0 && ask_drop(70, KEEPER_FD_LOG, 1) == -ENOENT);
                        CHECK(word(KEEPER_FROZEN) == 0 && word(KEEPER_ABORT) == 0);
                        if (wait_word(KEEPER_LEAVE) == 0)
                                return 0;
                        CHECK(strcmp(word_text(), "the predecessor gave up") == 0);
                        CHECK(hear_end() == 0 && begin() == 0);
                }
        }
        CHECK(is_successor() && word(KEEPER_READY) == 0 && say('b') == 0 && wait_word(KEEPER_GO) == 0);
        return it_begins();
}
TEST_DAEMON(abort_late);

static int scenario_never(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_THAW) == 0);
                CHECK(strcmp(word_text(), "the successor did not get ready in time") == 0 && hear_end() == 0);
                return it_serves();
        }
        return is_successor() ? forever() : 98;
}

static void test_never(void **state) {
        Outcome outcome =
                perform("never", (Play){ .daemon = true, .hang_timeout_us = 250000, .ladder = ALWAYS_HEALTHY });

        (void) state;
        if (outcome.status != 5)
                fail_msg("status %d: %s", outcome.status, outcome.log);
}

/* Everything is to be stopped: that goes before. */
static int scenario_stopping(void) {
        sigset_t signals;
        int number;

        if (generation() > 1)
                return is_successor() ? forever() : 98;
        (void) sigemptyset(&signals);
        (void) sigaddset(&signals, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &signals, NULL);
        CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && kill(getppid(), SIGTERM) == 0);
        CHECK(wait_word(KEEPER_THAW) == 0 && strcmp(word_text(), "everything is being stopped") == 0);
        CHECK(sigwait(&signals, &number) == 0 && hear_end() == 0 && begin() == -ESHUTDOWN);
        return shut_down(5);
}
TEST_DAEMON(stopping);

/* ---------------------------------------------------------------------------------------------------------------- deaths */

/* The successor's, before it is ready, of one that is frozen and of one that is not yet. */
static int scenario_successor_dies(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_THAW) == 0);
                CHECK(strcmp(word_text(), "the successor was killed by signal 9 SIGKILL") == 0);
                CHECK(begin() == 0 && hear_end() == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_THAW) == 0);
                CHECK(strncmp(word_text(), "the successor ", 14) == 0);
                return it_serves();
        }
        CHECK(is_successor());
        return generation() == 2 && slot_told(1) ? die() : 3;
}

static void test_successor_dies(void **state) {
        Outcome outcome = perform("successor_dies", (Play){ .daemon = true, .ladder = ALWAYS_HEALTHY });

        (void) state;
        if (outcome.status != 5)
                fail_msg("status %d: %s", outcome.status, outcome.log);
        assert_log(outcome, "failed: the successor was killed by signal 9 SIGKILL; pid");
        assert_log(outcome, "failed: the successor exited with status 3; pid");
}

/* Both words are unread when it dies. */
static int scenario_dies_unread(void) {
        struct pollfd it = { .events = POLLIN };
        pid_t pid;

        if (generation() == 1) {
                CHECK(predecessor() == 0 && recv(ours(), &pid, sizeof(pid), 0) == sizeof(pid));
                CHECK((it.fd = pidfd_open(pid, 0)) >= 0 && kill(getppid(), SIGSTOP) == 0 && say('s') == 0);
                CHECK(poll(&it, 1, -1) == 1 && word(KEEPER_FROZEN) == 0 && kill(getppid(), SIGCONT) == 0);
                CHECK(wait_word(KEEPER_THAW) == 0);
                return it_serves();
        }
        pid = getpid();
        CHECK(generation() == 2 && is_successor() && send(ours(), &pid, sizeof(pid), 0) == sizeof(pid));
        CHECK(hear('s') == 0 && word(KEEPER_READY) == 0);
        return die();
}
TEST_DAEMON(dies_unread);

/* It was committed: a recovery follows, and not its predecessor, which must be gone by then. */
static int scenario_dies_after_go(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0);
                return wait_word(KEEPER_LEAVE) == 0 ? forever() : 98;
        }
        if (generation() == 2) {
                CHECK(is_successor() && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
                return die();
        }
        CHECK(generation() == 3 && !is_successor());
        return it_begins();
}
TEST_DAEMON(dies_after_go);

/* The predecessor's: FROZEN and READY are there, though unread. */
static int scenario_predecessor_dies(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0 && kill(getppid(), SIGSTOP) == 0);
                CHECK(word(KEEPER_FROZEN) == 0);
                return die();
        }
        CHECK(generation() == 2 && is_successor() && word(KEEPER_READY) == 0 && say('b') == 0 && hear_end() == 0);
        CHECK(kill(getppid(), SIGCONT) == 0 && wait_word(KEEPER_GO) == 0);
        return it_begins();
}
TEST_DAEMON(predecessor_dies);

/* It had not said FROZEN: whoever waited to follow it does not. */
static int scenario_dies_serving(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && hear('b') == 0);
                return die();
        }
        if (generation() == 2) {
                CHECK(is_successor() && word(KEEPER_READY) == 0 && say('b') == 0);
                return wait_word(KEEPER_GO) == 0 ? shut_down(6) : 98;
        }
        CHECK(generation() == 3 && !is_successor());
        return it_begins();
}
TEST_DAEMON(dies_serving);

static int scenario_dies_frozen(void) {
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && hear('t') == 0);
                return die();
        }
        if (generation() == 2) {
                CHECK(is_successor() && slot_told(1) && say('t') == 0);
                return wait_word(KEEPER_GO) == 0 ? shut_down(6) : 98;
        }
        CHECK(generation() == 3 && !is_successor());
        return it_begins();
}
TEST_DAEMON(dies_frozen);

/* -------------------------------------------------------------------------------------------------- what is not begun */

static int open_self(void) {
        return open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static int give_program(int fd) {
        return ask((KeeperMessage){ .type = KEEPER_PROGRAM }, &fd, 1);
}

static int scenario_one_at_a_time(void) {
        int program;

        if (generation() > 1)
                return is_successor() ? forever() : 98;
        CHECK(!is_successor() && begin() == -EBUSY); /* it does not serve yet */
        other = fd_close(other);
        CHECK(predecessor() == 0 && begin() == -EBUSY);
        program = open_self();
        CHECK(give_program(program) == -EBUSY);
        CHECK(word(KEEPER_ABORT) == 0 && give_program(program) == 0);
        CHECK(ask((KeeperMessage){ .type = KEEPER_TAKEOVER }, NULL, 0) == -EINVAL);
        return it_serves();
}
TEST_DAEMON(one_at_a_time);

static int scenario_private(void) {
        CHECK(word(KEEPER_SERVING) == 0 && begin() == -EOPNOTSUPP && give_program(STDIN_FILENO) == -EOPNOTSUPP);
        return shut_down(5);
}
TEST_FIVE(private);

/* What cannot be executed is not tried again unasked. */
static int scenario_no_program(void) {
        if (generation() == 1) {
                int fd = open("/dev/null", O_PATH | O_CLOEXEC);

                CHECK(word(KEEPER_SERVING) == 0 && give_program(fd) == 0 && begin() == -EACCES);
                CHECK(predecessor() == 0 && word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        CHECK(is_successor() && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        return it_begins();
}
TEST_DAEMON(no_program);

/* copy_self() - another file of the same content, open for nothing but to be executed. */
static int copy_self(const char *path) {
        _cleanup_fd_ int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        _cleanup_fd_ int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
        struct stat st;

        if (from < 0 || to < 0 || fstat(from, &st) < 0)
                return -1;
        for (off_t done = 0; done < st.st_size;)
                if (sendfile(to, from, &done, (size_t) (st.st_size - done)) <= 0)
                        return -1;
        to = fd_close(to);
        return open(path, O_PATH | O_CLOEXEC);
}

/* runs_copy() - whether this is it. */
static bool runs_copy(const char *path) {
        struct stat self, copy;

        return stat("/proc/self/exe", &self) == 0 && stat(path, &copy) == 0 && self.st_ino == copy.st_ino;
}

/* A new program that dies before it was healthy is followed by the one before it, at once. */
static int scenario_on_trial(void) {
        char path[96];

        (void) snprintf(path, sizeof(path), "%s/copy", getenv("BATON_LIBEXEC"));
        if (generation() == 1) {
                CHECK(predecessor() == 0 && word(KEEPER_ABORT) == 0);
                CHECK(give_program(copy_self(path)) == 0 && begin() == 0);
                CHECK(word(KEEPER_FROZEN) == 0 && wait_word(KEEPER_LEAVE) == 0);
                return 0;
        }
        if (generation() == 2)
                return is_successor() ? forever() : 98;
        if (generation() == 3) {
                CHECK(runs_copy(path) && is_successor() && word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
                CHECK(word(KEEPER_SERVING) == 0);
                return die();
        }
        CHECK(generation() == 4 && !is_successor() && !runs_copy(path) && unlink(path) == 0);
        return it_begins();
}

static void test_on_trial(void **state) {
        Outcome outcome = perform("on_trial", (Play){ .daemon = true, .ladder = NEVER_HEALTHY });

        (void) state;
        if (outcome.status != 5)
                fail_msg("status %d: %s", outcome.status, outcome.log);
}

/* ------------------------------------------------------------------------------------------- calls of the keeper fail */

/* Whoever it is in the end: it has the runner. */
static int any_serves(bool told) {
        keeper_passes();
        return told ? it_begins() : it_serves();
}

/*
 * A call of the keeper's own fails on the way: PROGRAM is asked to be stored, the successor started, told of the table and
 * of what changes, and committed. One of the two serves, or one that recovers.
 */
static int scenario_calls(void) {
        if (generation() == 1) {
                CHECK(word(KEEPER_SERVING) == 0);
                CHECK(start_runner(1, "a", 0, "exec sleep 1000", -1) == 0);
                CHECK(ask_put(1, KEEPER_FD_LOG, 1, STDIN_FILENO) == 0);
                keeper_fails();
                if (begin() != 0)
                        return any_serves(false);
                if (hear('b') < 0)
                        return any_serves(false); /* it was not to be */
                (void) ask_put(1, KEEPER_FD_LOG, 2, STDIN_FILENO);
                CHECK(word(KEEPER_FROZEN) == 0);
                return wait_any_word() == KEEPER_THAW ? any_serves(false) : 0;
        }
        if (!is_successor())
                return any_serves(true);
        CHECK(say('b') == 0 && slot_told(1));
        CHECK(word(KEEPER_READY) == 0 && wait_word(KEEPER_GO) == 0);
        return any_serves(true);
}

static void test_calls(void **state) {
        static const struct {
                SeamCall call;
                int error;
        } faults[] = {
                { SEAM_SENDMSG, ENOBUFS }, { SEAM_RECVMSG, ENOMEM }, { SEAM_SOCKETPAIR, EMFILE },
                { SEAM_FCNTL, EMFILE },    { SEAM_READ, EIO },       { SEAM_OPENAT, EMFILE },
                { SEAM_OPEN, EMFILE },     { SEAM_PPOLL, ENOMEM },   { SEAM_WAITID, EINTR },
                { SEAM_POLL, ENOMEM },
        };
        const unsigned most = getenv("BATON_SOAK") ? 64 : 8;
        unsigned n = 0;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
                for (unsigned nth = 1; nth <= most; nth++) {
                        Outcome outcome = perform("calls", (Play){ .daemon = true,
                                                                   .ladder = ALWAYS_HEALTHY,
                                                                   .fault = faults[i].call,
                                                                   .error = faults[i].error,
                                                                   .nth = nth });

                        if (outcome.status != 5)
                                fail_msg("%s fails with %s, call %u: status %d: %s", seam_name(faults[i].call),
                                         strerrorname_np(faults[i].error), nth, outcome.status, outcome.log);
                        if (!strstr(outcome.log, FAULT_MET))
                                break;
                        n++;
                }
        print_message("%u calls of the keeper have failed\n", n);
        assert_true(n > 10);
}

int main(int argc, char **argv) {
        static const Scenario scenarios[] = {
                SCENARIO(frozen_first),
                SCENARIO(changes),
                SCENARIO(ready_first),
                SCENARIO(exit_between),
                SCENARIO(row),
                SCENARIO(fenced),
                SCENARIO(refused),
                SCENARIO(refused_early),
                SCENARIO(exit_frozen),
                SCENARIO(abort),
                SCENARIO(abort_late),
                SCENARIO(never),
                SCENARIO(stopping),
                SCENARIO(successor_dies),

                SCENARIO(dies_unread),
                SCENARIO(dies_after_go),
                SCENARIO(predecessor_dies),
                SCENARIO(dies_serving),
                SCENARIO(dies_frozen),
                SCENARIO(one_at_a_time),
                SCENARIO(private),
                SCENARIO(no_program),
                SCENARIO(on_trial),
                SCENARIO(calls),
                SCENARIO(packs),
        };
        const struct CMUnitTest tests[] = {
                TEST(test_frozen_first), TEST(test_changes),       TEST(test_packs),
                TEST(test_ready_first),  TEST(test_exit_between),  TEST(test_row),
                TEST(test_fenced),       TEST(test_refused),       TEST(test_refused_early),
                TEST(test_exit_frozen),  TEST(test_abort),         TEST(test_abort_late),
                TEST(test_never),        TEST(test_stopping),      TEST(test_successor_dies),

                TEST(test_dies_unread),  TEST(test_dies_after_go), TEST(test_predecessor_dies),
                TEST(test_dies_serving), TEST(test_dies_frozen),   TEST(test_one_at_a_time),
                TEST(test_private),      TEST(test_no_program),    TEST(test_on_trial),
                TEST(test_calls),
        };
        const KeeperTest test = { scenarios, ARRAY_SIZE(scenarios), tests, ARRAY_SIZE(tests) };

        return keeper_test_main(argc, argv, &test);
}

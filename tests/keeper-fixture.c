/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper, run in a child of the test, with this program as its supervisor: keeper_test_main() is what both begin
 * with, and argv[0] says which of the two it is.
 */

#include "tests/keeper-fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"

/* ----------------------------------------------------------------------------------------------- in the supervisor */

enum { EXITS = 1024, SLOTS = 512, STORED = 1024 };

/* What EXITs came while something else was awaited, and the table. */
static struct {
        KeeperMessage exits[EXITS], slots[SLOTS], stored[STORED];
        int pidfds[SLOTS], fds[STORED];
        size_t n_exits, n_slots, n_stored, n_again, most;
        bool told; /* all of it */
        uint32_t serial, generation;
        int handover; /* moved out of the way, since its number is wanted for children */
        KeeperMessage word;
} sup;

/* take_again() - what is known already; its descriptor came before. */
static bool take_again(const KeeperMessage *m, int fd) {
        for (size_t i = 0; i < sup.n_slots; i++) {
                if (sup.slots[i].instance != m->instance)
                        continue;
                if (sup.pidfds[i] < 0)
                        sup.pidfds[i] = fd;
                else if (fd >= 0)
                        return false;
                sup.slots[i] = *m;
                sup.n_again++;
                return true;
        }
        return false;
}

/* take_table() - whether it was a message of the table. */
static bool take_table(const KeeperMessage *m, int fd) {
        if (m->type == KEEPER_GONE) {
                for (size_t i = 0; i < sup.n_slots; i++)
                        if (sup.slots[i].instance == m->instance && m->fd_kind == KEEPER_FD_NONE)
                                sup.slots[i].instance = 0;
                for (size_t i = 0; i < sup.n_stored; i++)
                        if (sup.stored[i].instance == m->instance && sup.stored[i].fd_kind == m->fd_kind &&
                            sup.stored[i].fd_tag == m->fd_tag)
                                sup.fds[i] = fd_close(sup.fds[i]);
        } else if (m->type == KEEPER_SLOT && take_again(m, fd)) {
                return true;
        } else if (m->type == KEEPER_SLOT && sup.n_slots < SLOTS) {
                sup.slots[sup.n_slots] = *m;
                sup.pidfds[sup.n_slots++] = fd;
        } else if (m->type == KEEPER_STORED && sup.n_stored < STORED) {
                sup.stored[sup.n_stored] = *m;
                sup.fds[sup.n_stored++] = fd;
        } else if (m->type == KEEPER_END && m->instance == sup.n_slots + sup.n_again && m->fd_tag == sup.n_stored) {
                sup.told = sup.told || m->flags & KEEPER_FLAG_FINAL;
        } else {
                return false;
        }
        return true;
}

/* What came as one, and was not looked at yet. */
static struct {
        KeeperMessage messages[KEEPER_PACK_MAX];
        int fds[KEEPER_PACK_MAX];
        size_t n, next, next_fd, n_fds;
} pack;

/* receive_pack() - 0, 1: nothing there yet, or -1. */
static int receive_pack(void) {
        struct pollfd p = { .fd = KEEPER_SOCKET_FD, .events = POLLIN };
        CmsgInfo info;
        ssize_t n;

        (void) poll(&p, 1, -1);
        n = cmsg_receive(KEEPER_SOCKET_FD, pack.messages, sizeof(pack.messages), pack.fds, KEEPER_PACK_MAX, &info);
        if (n == -EAGAIN)
                return 1;
        if (n <= 0 || n % (ssize_t) sizeof(*pack.messages) != 0)
                return -1;
        pack.n = (size_t) n / sizeof(*pack.messages);
        pack.n_fds = info.n_fds;
        pack.next = pack.next_fd = 0;
        sup.most = MAX(sup.most, pack.n);
        return 0;
}

/* receive_one() - 0, 1: nothing there yet, or -1. */
static int receive_one(KeeperMessage *ret_message, int *ret_fd) {
        int r = pack.next == pack.n ? receive_pack() : 0;
        bool has_fd;

        if (r != 0)
                return r;
        *ret_message = pack.messages[pack.next++];
        has_fd = pack.n == 1 ? pack.n_fds > 0 : ret_message->flags & KEEPER_FLAG_FD;
        if (has_fd && pack.next_fd == pack.n_fds)
                return -1;
        *ret_fd = has_fd ? pack.fds[pack.next_fd++] : -1;
        if (pack.next == pack.n && pack.next_fd != pack.n_fds)
                return -1; /* one that nothing has told of */
        ret_message->flags &= ~(KEEPER_FLAG_FD | KEEPER_FLAG_PACKS);
        return 0;
}

/*
 * receive() - the next message that is neither an EXIT nor of the table, or -1; those are kept. With @until: also returns
 * after one of that type.
 */
static int receive(KeeperMessage *ret_message, KeeperType until) {
        for (;;) {
                int fd, r = receive_one(ret_message, &fd);

                if (r < 0)
                        return -1;
                if (r > 0)
                        continue;
                if (ret_message->type == KEEPER_EXIT && sup.n_exits < EXITS)
                        sup.exits[sup.n_exits++] = *ret_message;
                else if (!take_table(ret_message, fd))
                        return 0;
                if (ret_message->type == until)
                        return 0;
        }
}

static void read_table(void) {
        KeeperMessage m;

        while (!sup.told && receive(&m, KEEPER_END) == 0)
                ;
}

const KeeperMessage *slot_told(uint64_t instance) {
        read_table();
        for (size_t i = 0; i < sup.n_slots; i++)
                if (sup.slots[i].instance == instance)
                        return &sup.slots[i];
        return NULL;
}

int slot_pidfd(uint64_t instance) {
        const KeeperMessage *slot = slot_told(instance);

        return slot ? sup.pidfds[slot - sup.slots] : -1;
}

int fd_told(uint64_t instance, unsigned kind, uint64_t tag) {
        read_table();
        for (size_t i = 0; i < sup.n_stored; i++) {
                const KeeperMessage *m = &sup.stored[i];

                if (m->instance == instance && m->fd_kind == kind && m->fd_tag == tag)
                        return sup.fds[i];
        }
        return -1;
}

size_t slots_told(void) {
        read_table();
        return sup.n_slots;
}

size_t most_told(void) {
        return sup.most;
}

size_t fds_told(void) {
        read_table();
        return sup.n_stored;
}

uint32_t generation(void) {
        return sup.generation;
}

bool is_successor(void) {
        return sup.handover > 0;
}

int successor_fd(void) {
        return is_successor() ? sup.handover : -1;
}

int wait_word(KeeperType type) {
        do {
                if (receive(&sup.word, KEEPER_NONE) < 0)
                        return -1;
                if (sup.word.type == KEEPER_PING && type != KEEPER_PING &&
                    tell((KeeperMessage){ .type = KEEPER_PONG }, NULL, 0) < 0)
                        return -1;
        } while (sup.word.type == KEEPER_PING && type != KEEPER_PING);
        return sup.word.type == type ? 0 : -1;
}

KeeperType wait_any_word(void) {
        do {
                if (receive(&sup.word, KEEPER_NONE) < 0)
                        return KEEPER_NONE;
                if (sup.word.type == KEEPER_PING && tell((KeeperMessage){ .type = KEEPER_PONG }, NULL, 0) < 0)
                        return KEEPER_NONE;
        } while (sup.word.type == KEEPER_PING);
        return (KeeperType) sup.word.type;
}

const char *word_text(void) {
        return (const char *) sup.word.record;
}

int tell(KeeperMessage m, const int *fds, size_t n_fds) {
        struct pollfd p = { .fd = KEEPER_SOCKET_FD, .events = POLLOUT };
        ssize_t n;

        m.version = m.version ?: KEEPER_VERSION;
        while ((n = cmsg_send(KEEPER_SOCKET_FD, &m, sizeof(m), fds, n_fds)) == -EAGAIN)
                (void) poll(&p, 1, -1);
        return n < 0 ? -1 : 0;
}

int ask(KeeperMessage m, const int *fds, size_t n_fds) {
        KeeperMessage answer;

        m.serial = ++sup.serial;
        if (tell(m, fds, n_fds) < 0 || receive(&answer, KEEPER_NONE) < 0)
                return 1;
        return answer.type == KEEPER_DONE && answer.serial == m.serial ? answer.result : 1;
}

int ask_reserve(uint64_t instance, const char *name, uint32_t flags) {
        KeeperMessage m = { .type = KEEPER_RESERVE, .instance = instance, .flags = flags };

        strncpy(m.name, name, sizeof(m.name) - 1);
        return ask(m, NULL, 0);
}

int ask_put(uint64_t instance, unsigned kind, uint64_t tag, int fd) {
        return ask((KeeperMessage){ .type = KEEPER_PUT, .instance = instance, .fd_kind = kind, .fd_tag = tag }, &fd,
                   1);
}

int ask_drop(uint64_t instance, unsigned kind, uint64_t tag) {
        return ask((KeeperMessage){ .type = KEEPER_DROP, .instance = instance, .fd_kind = kind, .fd_tag = tag }, NULL,
                   0);
}

int ask_signal(uint64_t instance, int number) {
        return ask((KeeperMessage){ .type = KEEPER_SIGNAL, .instance = instance, .result = number }, NULL, 0);
}

int tell_about(KeeperType type, uint64_t instance) {
        return tell((KeeperMessage){ .type = (uint16_t) type, .instance = instance }, NULL, 0);
}

int wait_exit(uint64_t instance, KeeperMessage *ret_exit) {
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
                if (receive(&m, KEEPER_EXIT) < 0)
                        return -1;
        }
}

int shut_down(int status) {
        struct pollfd forever = { .fd = -1 };

        (void) tell((KeeperMessage){ .type = KEEPER_SHUTDOWN, .result = status }, NULL, 0);
        (void) poll(&forever, 1, 5000); /* the keeper kills us, unless it does not listen to us */
        return 98;
}

/* try_runner() - @script in a shell as @instance, standard output to @out. What spawn() said. */
int try_runner(uint64_t instance, const char *script, int out, SpawnResult *ret_result) {
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

int run_runner(uint64_t instance, const char *script, int out, SpawnResult *ret_result) {
        CHECK(try_runner(instance, script, out, ret_result) == 0);
        CHECK(tell_about(KEEPER_STARTED, instance) == 0);
        return 0;
}

int run_refused(uint64_t instance) {
        SpawnResult result;
        int r = try_runner(instance, "sleep 1000", -1, &result);

        CHECK(r == 0 || (r == -ECANCELED && result.step == SPAWN_BORN));
        CHECK(r < 0 || test_readable(result.pidfd));
        fd_close(result.pidfd);
        return 0;
}

int start_runner(uint64_t instance, const char *name, uint32_t flags, const char *script, int out) {
        SpawnResult result;

        CHECK(ask_reserve(instance, name, flags) == 0);
        CHECK(run_runner(instance, script, out, &result) == 0);
        fd_close(result.pidfd);
        return 0;
}

/* pipe_ended() - waits until nobody holds the other end of a pipe. */
bool pipe_ended(int fd) {
        struct pollfd p = { .fd = fd };

        return poll(&p, 1, 10000) == 1 && (p.revents & (POLLHUP | POLLERR));
}

bool pipe_held(int fd) {
        struct pollfd p = { .fd = fd };

        return poll(&p, 1, 0) == 0;
}

int say_byte(char byte) {
        return write(KEEPER_PRIVATE_FD, &byte, 1) == 1 ? 0 : -1;
}

size_t exits_received(void) {
        return sup.n_exits;
}

static int supervisor_main(const Scenario *scenarios, size_t n, int argc, char **argv) {
        const char *name = getenv("TEST_SCENARIO");
        bool is_daemon = argc >= 12;
        int r = 97;

        CHECK(argc >= 5 && name);
        CHECK(sscanf(argv[1], "--generation=%" SCNu32, &sup.generation) == 1 && strncmp(argv[2], "--nofile=", 9) == 0);
        CHECK(strncmp(argv[3], "--stop-timeout=", 15) == 0);
        CHECK(strcmp(argv[4], "--private") == 0 ? argc == 5 : argc >= 12 && strcmp(argv[4], "--runtime-dir") == 0);
        for (int i = 5; i < argc; i++)
                if (strcmp(argv[i], "--takeover") == 0)
                        CHECK((sup.handover = fcntl(KEEPER_HANDOVER_FD, F_DUPFD_CLOEXEC, KEEPER_RESERVED_FDS)) > 0 &&
                              close(KEEPER_HANDOVER_FD) == 0);
        CHECK(spawn_reserve() == 0);
        for (size_t i = 0; i < n; i++)
                if (strcmp(scenarios[i].name, name) == 0)
                        r = scenarios[i].run();
        return is_daemon && r == 99 ? shut_down(r) : r; /* a failure must not be followed by the next generation */
}

/* ----------------------------------------------------------------------------------------------------- in the test */

char keeper_libexec[64], keeper_built[4096], keeper_runtime[80];

static Play faulty; /* of the keeper that runs here */
static enum { FAULT_WAITS, FAULT_SET, FAULT_OVER } fault_state;

/* on_fault() - the first signal begins, the second ends. The keeper takes it where it does not wait for any of its own. */
static void on_fault(int number) {
        static const char met[] = FAULT_MET "\n";

        (void) number;
        if (fault_state == FAULT_WAITS) {
                seam_fail(faulty.fault, faulty.nth, faulty.error);
                fault_state = FAULT_SET;
        } else if (fault_state == FAULT_SET) {
                if (seam_hits(faulty.fault) > 0)
                        (void) !write(STDERR_FILENO, met, sizeof(met) - 1);
                seam_pass(faulty.fault);
                fault_state = FAULT_OVER;
        }
}

void keeper_fails(void) {
        (void) kill(getppid(), SIGUSR2);
}

void keeper_passes(void) {
        (void) kill(getppid(), SIGUSR2);
}

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
        KeeperOptions options = KEEPER_OPTIONS_NULL;
        struct rlimit nofile = { play->nofile, play->nofile };
        char socket[96];

        if (play->nofile > 0)
                (void) setrlimit(RLIMIT_NOFILE, &nofile);
        if (play->daemon) {
                (void) snprintf(socket, sizeof(socket), "%s/control", keeper_runtime);
                options.place = (PlaceOptions){ keeper_runtime, keeper_runtime, keeper_runtime,
                                                play->socket ? play->socket : socket };
        } else {
                options.private_fd = play->lane;
        }
        if (play->hang_timeout_us)
                options.hang_timeout_us = play->hang_timeout_us * test_time_factor();
        if (play->ladder.healthy_us)
                options.ladder = play->ladder;
        options.stop_timeout_us = play->stop_timeout_us;
        (void) dup2(play->log, STDERR_FILENO);
        log_open("baton-keeper");
        if (play->nth > 0) {
                faulty = *play;
                (void) signal(SIGUSR2, on_fault);
        }
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
static void watch(int *lane, int *log, Outcome *outcome, const Play *play, pid_t keeper) {
        bool awaits = play->await;
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
                if (awaits && strstr(outcome->log, play->await)) {
                        awaits = false;
                        play->then(keeper);
                }
        }
        *log = fd_close(*log);
        *lane = fd_close(*lane);
}

Outcome perform(const char *scenario, Play play) {
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
        watch(&lane[0], &log[0], &outcome, &play, pid);
        outcome.status = test_child_wait(pid);
        if (getenv("TEST_VERBOSE"))
                printf("# %s: %d\n%s", scenario, outcome.status, outcome.log);
        return outcome;
}

void skip_unless_built(void) {
        if (access(keeper_built, X_OK) == 0)
                return;
        print_message("baton-keeper is not built: %s\n", keeper_built);
        skip();
}

void expect_five(const char *scenario) {
        Outcome outcome = perform(scenario, (Play){ 0 });

        if (outcome.status != 5)
                fail_msg("%s: status %d: %s", scenario, outcome.status, outcome.log);
}

static int make_libexec(void) {
        char target[4096] = "", path[128];

        (void) snprintf(keeper_built, sizeof(keeper_built), "%s/baton-keeper", getenv("BATON_LIBEXEC") ?: ".");
        (void) snprintf(keeper_libexec, sizeof(keeper_libexec), "/tmp/baton-test-keeper-XXXXXX");
        if (!mkdtemp(keeper_libexec) || readlink("/proc/self/exe", target, sizeof(target) - 1) < 0)
                return -1;
        (void) snprintf(keeper_runtime, sizeof(keeper_runtime), "%s/run", keeper_libexec);
        (void) snprintf(path, sizeof(path), "%s/baton-supervisor", keeper_libexec);
        return symlink(target, path) < 0 || setenv("BATON_LIBEXEC", keeper_libexec, 1) < 0 ? -1 : 0;
}

static void remove_libexec(void) {
        char path[128];

        (void) snprintf(path, sizeof(path), "%s/baton-supervisor", keeper_libexec);
        (void) unlink(path);
        (void) snprintf(path, sizeof(path), "%s/lock", keeper_runtime);
        (void) unlink(path);
        (void) snprintf(path, sizeof(path), "%s/boot", keeper_runtime);
        (void) rmdir(path);
        (void) rmdir(keeper_runtime);
        (void) rmdir(keeper_libexec);
}

int keeper_test_main(int argc, char **argv, const KeeperTest *test) {
        int r;

        if (strcmp(argv[0], "baton-supervisor") == 0)
                return supervisor_main(test->scenarios, test->n_scenarios, argc, argv);
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (make_libexec() < 0)
                return 1;
        r = test_run(test->tests, test->n_tests);
        remove_libexec();
        return r;
}

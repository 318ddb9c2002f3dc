/* SPDX-License-Identifier: Apache-2.0 */

/*
 * SIGKILL of the one that takes runners' lines, again and again, at moments that nobody chooses: three logs of two pipes
 * each are written without a pause, lines of many lengths in pieces of any size, while their reader is killed, found
 * again by the next one from what the keeper holds (here: this program), and killed again. In the end the files, rotated
 * ones included, must have each line once, whole, in order, in the file of its runner and of its stream.
 *
 * With $BATON_SOAK it goes on for ten minutes; without it, there are a few hundred kills.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/parse.h"
#include "supervisor/log-store.h"
#include "tests/test.h"

enum {
        LOGS = 3,
        KILLS = 25,    /* per episode */
        EPISODES = 12, /* without $BATON_SOAK */
        STORED_MAX = LOGS + 8,
        PAUSE_MAX_US = 2500,
        LENGTH_MAX = 300,
};

typedef struct Stored {
        KeeperFdKind kind;
        uint64_t tag;
        int fd;
} Stored;

typedef struct Episode {
        char directory[64];
        int pipes[LOGS][LOG_PIPES];  /* read ends */
        int writes[LOGS][LOG_PIPES]; /* the writer's, in it alone */
        int stop[2];                 /* readable at its end: the writer ends */
        Stored stored[STORED_MAX];
        size_t n_stored;
        pid_t writer;
        unsigned seed;
        bool last; /* the reader reads to the ends, and leaves */
} Episode;

static unsigned next_random(unsigned *seed) {
        *seed = *seed * 1103515245 + 12345;
        return *seed >> 8;
}

/* ---- the writer ---- */

/* put_line() - "L S N" and as many letters as N says. */
static size_t put_line(char *to, int log, int stream, unsigned long number) {
        size_t n = (size_t) sprintf(to, "%d %d %lu ", log, stream, number), length = number * 7919 % LENGTH_MAX;

        memset(to + n, 'a' + (int) (number % 26), length);
        to[n + length] = '\n';
        return n + length + 1;
}

static int write_all(int fd, const char *text, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, text, size);

                if (n <= 0)
                        return 1;
                text += n;
                size -= (size_t) n;
        }
        return 0;
}

static int writer(void *argument) {
        unsigned long numbers[LOGS][LOG_PIPES] = { 0 };
        Episode *e = argument;
        static char text[64 * (LENGTH_MAX + 64)];
        unsigned seed = e->seed;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd_close(e->stop[1]);
        for (int i = 0; i < LOGS; i++)
                fd_close_all(e->pipes[i], LOG_PIPES);
        for (;;) {
                struct pollfd stop = { .fd = e->stop[0], .events = POLLIN };
                int log = (int) (next_random(&seed) % LOGS), stream = (int) (next_random(&seed) % LOG_PIPES);
                size_t lines = 1 + next_random(&seed) % 64, size = 0, done = 0;

                if (poll(&stop, 1, 0) == 1)
                        return 0;
                for (size_t i = 0; i < lines; i++)
                        size += put_line(text + size, log, stream, ++numbers[log][stream]);
                while (done < size) {
                        size_t n = 1 + next_random(&seed) % 5000;

                        n = MIN(n, size - done);
                        if (write_all(e->writes[log][stream], text + done, n))
                                return 1;
                        done += n;
                }
        }
}

/* ---- the reader, which is killed ---- */

static const char *const names[LOGS] = { "one", "two", "three" };

typedef struct Reader {
        Loop *loop;
        KeeperLink *link;
        LogStore *store;
        RunnerLog *logs[LOGS];
        LogInput inputs[LOGS];
        LoopTimer timer;
} Reader;

static void nothing_happened(KeeperLink *link, const KeeperExit *exit, void *userdata) {
        (void) link;
        (void) exit;
        (void) userdata;
}

static void keeper_gone(KeeperLink *link, void *userdata) {
        (void) link;
        (void) userdata;
        _exit(3);
}

static const KeeperLinkHandlers handlers = { .exited = nothing_happened, .closed = keeper_gone };

/* set_up_reader() - as a supervisor that begins. 0, or a number that says where it failed. */
static int set_up_reader(Reader *r, const Episode *e, int keeper) {
        static LogConfig config = LOG_CONFIG_NULL;

        config.ring_size = LOG_RING_SIZE_MIN;
        config.park = true;
        config.directory = (char *) e->directory;
        config.max_size = 300000;
        config.keep = LOG_KEEP_MAX;
        if (loop_new(&r->loop) < 0 || keeper_link_new(&r->link, r->loop, keeper, &handlers, r) < 0 ||
            log_store_new(&r->store, r->loop, r->link) < 0)
                return 10;
        for (size_t i = 0; i < e->n_stored; i++)
                if (log_store_adopt(r->store, e->stored[i].kind, e->stored[i].tag, fd_dup(e->stored[i].fd)) < 0)
                        return 11;
        assert_int_equal(log_store_recover(r->store), 0);
        for (int i = 0; i < LOGS; i++) {
                if (runner_log_new(&r->logs[i], r->store, names[i], &config) < 0)
                        return 12;
                log_input_init(&r->inputs[i], r->logs[i], 100 + (uint64_t) i);
                log_input_born(&r->inputs[i], 1000 + i);
                for (unsigned j = 0; j < LOG_PIPES; j++)
                        if (log_input_adopt(&r->inputs[i], (LogSource) j, fd_dup(e->pipes[i][j])) < 0)
                                return 13;
        }
        log_store_settle(r->store);
        return 0;
}

/* The pipes have ended. All that the logs need of the loop is the keeper's answer for those that say something only now. */
static void leave(LoopTimer *timer) {
        Reader *r = CONTAINER_OF(timer, Reader, timer);
        bool all = true;

        for (int i = 0; i < LOGS; i++)
                for (unsigned j = 0; j < LOG_PIPES; j++)
                        all = all && r->inputs[i].pipes[j].ended;
        if (all)
                loop_stop(r->loop);
        else
                loop_timer_set(r->loop, timer, clock_now() + 1000);
}

typedef struct ReaderStart {
        const Episode *e;
        int keeper;
} ReaderStart;

static int reader(void *argument) {
        const ReaderStart *start = argument;
        Reader r = { .timer = LOOP_TIMER_NULL(leave) };
        int result;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        log_set_level(LOG_LEVEL_WARNING);
        result = set_up_reader(&r, start->e, start->keeper);
        if (result != 0)
                return result;
        if (start->e->last)
                loop_timer_set(r.loop, &r.timer, clock_now());
        loop_run(r.loop);
        for (int i = 0; i < LOGS; i++) {
                log_input_finish(&r.inputs[i]);
                log_input_deinit(&r.inputs[i]);
                r.logs[i] = runner_log_free(r.logs[i]);
        }
        return 0;
}

/* ---- the keeper, this program ---- */

static void drop(Episode *e, KeeperFdKind kind, uint64_t tag) {
        for (size_t i = 0; i < e->n_stored; i++)
                if (e->stored[i].kind == kind && e->stored[i].tag == tag) {
                        fd_close(e->stored[i].fd);
                        e->stored[i] = e->stored[--e->n_stored];
                        return;
                }
}

/* serve() - one message. False: the socket has ended. */
static bool serve(Episode *e, int socket) {
        KeeperMessage message;
        CmsgInfo info;
        int fd = -1;
        ssize_t n = cmsg_receive(socket, &message, sizeof(message), &fd, 1, &info);

        if (n == -EAGAIN)
                return true;
        if (n <= 0)
                return false;
        assert_int_equal(n, sizeof(message));
        if (message.type == KEEPER_DROP || (message.type == KEEPER_PUT && (message.flags & KEEPER_FLAG_REPLACE)))
                drop(e, (KeeperFdKind) message.fd_kind, message.fd_tag);
        if (message.type == KEEPER_PUT) {
                assert_true(e->n_stored < STORED_MAX && fd >= 0 && message.instance == 0);
                e->stored[e->n_stored++] = (Stored){ (KeeperFdKind) message.fd_kind, message.fd_tag, fd };
        }
        message.type = KEEPER_DONE;
        message.result = 0;
        (void) cmsg_send(socket, &message, sizeof(message), NULL, 0);
        return true;
}

/* serve_until() - until @deadline_us, or the end of the socket. */
static void serve_until(Episode *e, int socket, uint64_t deadline_us) {
        for (;;) {
                struct pollfd p = { .fd = socket, .events = POLLIN };
                uint64_t now = clock_now();
                struct timespec left = { 0 };

                if (deadline_us != USEC_INFINITY) {
                        if (now >= deadline_us)
                                return;
                        left.tv_nsec = (long) ((deadline_us - now) * NSEC_PER_USEC);
                }
                if (ppoll(&p, 1, deadline_us == USEC_INFINITY ? NULL : &left, NULL) == 1 && !serve(e, socket))
                        return;
        }
}

static void one_reader(Episode *e) {
        ReaderStart start = { .e = e };
        int sockets[2];
        pid_t pid;

        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, sockets), 0);
        start.keeper = sockets[1];
        pid = test_child(reader, &start);
        fd_close(sockets[1]);
        if (!e->last) {
                serve_until(e, sockets[0], clock_now() + next_random(&e->seed) % PAUSE_MAX_US);
                assert_int_equal(kill(pid, SIGKILL), 0);
        }
        /* A supervisor's socket is read to its end: what it had PUT there is ours. */
        serve_until(e, sockets[0], USEC_INFINITY);
        assert_int_equal(test_child_wait(pid), e->last ? 0 : -SIGKILL);
        fd_close(sockets[0]);
}

/* ---- what is in the files ---- */

typedef struct Check {
        unsigned long numbers[LOG_PIPES];
        size_t n_lines;
} Check;

/* check_line() - "TIME STREAM PID L S N letters", the next of its stream. */
static void check_line(Check *check, int log, const char *line) {
        char stream[16], expected[LENGTH_MAX + 64];
        int pid, text = 0, s;

        assert_int_equal(sscanf(line, "%*s %15s %d %n", stream, &pid, &text), 2);
        s = log_source_parse(stream);
        if (s < 0 || s >= LOG_PIPES)
                fail_msg("%s: %s", names[log], line);
        assert_int_equal(pid, 1000 + log);
        expected[put_line(expected, log, s, ++check->numbers[s]) - 1] = '\0';
        if (strcmp(line + text, expected) != 0)
                fail_msg("%s: %s, expected %s", names[log], line, expected);
        check->n_lines++;
}

static void check_file(Check *check, int log, const char *path) {
        FILE *file = fopen(path, "re");
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        assert_non_null(file);
        while ((n = getline(&line, &size, file)) > 0) {
                assert_int_equal(line[n - 1], '\n');
                line[n - 1] = '\0';
                check_line(check, log, line);
        }
        free(line);
        (void) fclose(file);
        assert_int_equal(unlink(path), 0);
}

static size_t check_log(const Episode *e, int log) {
        Check check = { 0 };
        char path[128];
        unsigned n = 0;

        do
                (void) snprintf(path, sizeof(path), "%s/%s.log.%u", e->directory, names[log], ++n);
        while (access(path, F_OK) == 0);
        while (--n > 0) {
                (void) snprintf(path, sizeof(path), "%s/%s.log.%u", e->directory, names[log], n);
                check_file(&check, log, path);
        }
        (void) snprintf(path, sizeof(path), "%s/%s.log", e->directory, names[log]);
        if (access(path, F_OK) == 0)
                check_file(&check, log, path);
        return check.n_lines;
}

/* ---- from start to end ---- */

static size_t episode(unsigned seed) {
        Episode e = { .seed = seed };
        size_t lines = 0;

        (void) snprintf(e.directory, sizeof(e.directory), "%s/log-kill-XXXXXX", getenv("TMPDIR"));
        assert_non_null(mkdtemp(e.directory));
        assert_int_equal(pipe2(e.stop, O_CLOEXEC), 0);
        for (int i = 0; i < LOGS; i++)
                for (unsigned j = 0; j < LOG_PIPES; j++) {
                        int fds[2];

                        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
                        e.pipes[i][j] = fds[0];
                        e.writes[i][j] = fds[1];
                }
        e.writer = test_child(writer, &e);
        for (int i = 0; i < LOGS; i++)
                fd_close_all(e.writes[i], LOG_PIPES);
        for (int i = 0; i < KILLS; i++)
                one_reader(&e);
        e.stop[1] = fd_close(e.stop[1]);
        e.last = true;
        one_reader(&e);
        assert_int_equal(test_child_wait(e.writer), 0);
        for (int i = 0; i < LOGS; i++)
                lines += check_log(&e, i);
        assert_int_equal(rmdir(e.directory), 0);
        fd_close(e.stop[0]);
        for (int i = 0; i < LOGS; i++)
                fd_close_all(e.pipes[i], LOG_PIPES);
        for (size_t i = 0; i < e.n_stored; i++)
                fd_close(e.stored[i].fd);
        return lines;
}

static void test_no_line_lost(void **state) {
        bool soak = getenv("BATON_SOAK");
        uint64_t end = clock_now() + 600 * USEC_PER_SEC;
        size_t lines = 0;
        unsigned n = 0;

        (void) state;
        for (; soak ? clock_now() < end : n < EPISODES; n++)
                lines += episode((unsigned) clock_now());
        print_message("%u kills, %zu lines, each once\n", n * KILLS, lines);
        assert_true(lines > n);
}

static const struct CMUnitTest tests[] = {
        TEST_SLOW(test_no_line_lost, 24 * 3600),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bootstrap socket: modes and owner, a path of any length, who is let in, strangers before and after, shortage, and
 * that nothing is left on any path, whichever system call fails. The runner is a child with a session of its own.
 */

#include "supervisor/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct Fixture {
        Loop *loop;
        char *template;
        Bootstrap bootstrap;
        int lane;    /* of the runner that came in */
        int told[2]; /* the runner waits for a byte before it connects */
        int said[2]; /* and says that it has its session */
        bool twice;  /* the runner connects twice, and exits with 0 if the second one was closed */
        pid_t pid;
        int pidfd;
} Fixture;

static void connected(Bootstrap *bootstrap, int lane_fd_consume) {
        Fixture *f = CONTAINER_OF(bootstrap, Fixture, bootstrap);

        assert_int_equal(f->lane, -1);
        f->lane = lane_fd_consume;
        loop_stop(f->loop);
}

static void set_up(Fixture *f) {
        *f = (Fixture){ .lane = -1, .told = { -1, -1 }, .said = { -1, -1 }, .pidfd = -1 };
        assert_int_equal(loop_new(&f->loop), 0);
        f->template = bootstrap_template(NULL);
        assert_non_null(f->template);
        bootstrap_init(&f->bootstrap, f->loop, "test.1", connected);
        log_set_level(2); /* refusals are meant */
}

static void tear_down(Fixture *f) {
        fd_close(bootstrap_close(&f->bootstrap));
        fd_close(bootstrap_close(&f->bootstrap)); /* a second time does nothing */
        fd_close(f->lane);
        fd_close_all(f->told, 2);
        fd_close_all(f->said, 2);
        fd_close(f->pidfd);
        free(f->template);
        loop_free(f->loop);
}

static void open_bootstrap(Fixture *f) {
        const char *step;

        assert_int_equal(bootstrap_open(&f->bootstrap, f->template, geteuid(), &step), 0);
}

/* connect_to() - a connection to @path, of any length; or a negative errno. */
static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_free_ char *directory = strdup(path);
        _cleanup_fd_ int fd = -1, folder = -1;

        *strrchr(directory, '/') = '\0';
        folder = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0)
                return -errno;
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/bootstrap", folder);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0)
                return -errno;
        return fd_take(&fd);
}

static bool is_closed(int fd) {
        char byte;
        ssize_t n = test_readable(fd) ? recv(fd, &byte, 1, 0) : 1;

        return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* ---- the runner, a child ---- */

static int run_runner(void *argument) {
        const Fixture *f = argument;
        char byte = 0;
        int fd, second = -1;

        if (setsid() < 0 || write(f->said[1], &byte, 1) != 1 || read(f->told[0], &byte, 1) != 1)
                return 1;
        fd = connect_to(f->bootstrap.path);
        if (fd < 0)
                return 2;
        if (f->twice)
                second = connect_to(f->bootstrap.path);
        if (read(f->told[0], &byte, 1) < 0)
                return 3;
        if (!f->twice || second == -ENOENT || second == -ECONNREFUSED)
                return 0; /* whoever comes second finds no socket, or is closed */
        return second >= 0 && is_closed(second) ? 0 : 4;
}

static void start_runner(Fixture *f) {
        char byte;

        assert_int_equal(pipe2(f->told, O_CLOEXEC), 0);
        assert_int_equal(pipe2(f->said, O_CLOEXEC), 0);
        f->pid = test_child(run_runner, f);
        f->pidfd = pidfd_open(f->pid, 0);
        assert_int_equal(read(f->said[0], &byte, 1), 1);
}

static void tell_runner(Fixture *f) {
        assert_int_equal(write(f->told[1], "", 1), 1);
}

static int wait_runner(Fixture *f) {
        tell_runner(f);
        return test_child_wait(f->pid);
}

/* ---- tests ---- */

static void test_modes(void **state) {
        struct stat directory, in;
        char *slash;
        Fixture f;

        (void) state;
        set_up(&f);
        open_bootstrap(&f);
        assert_int_equal(*f.bootstrap.path, '/');
        assert_int_equal(stat(f.bootstrap.path, &in), 0);
        assert_true(S_ISSOCK(in.st_mode));
        assert_int_equal(in.st_mode & 07777, 0600);
        slash = strrchr(f.bootstrap.path, '/');
        *slash = '\0';
        assert_int_equal(stat(f.bootstrap.path, &directory), 0);
        assert_int_equal(directory.st_mode & 07777, 0711);
        assert_int_equal(directory.st_uid, geteuid());
        *slash = '/';
        tear_down(&f);
}

static void test_socket_of_another_user(void **state) {
        struct stat in;
        const char *step;
        Fixture f;

        (void) state;
        if (geteuid() != 0) {
                print_message("a socket of another user needs root\n");
                skip();
        }
        set_up(&f);
        assert_int_equal(bootstrap_open(&f.bootstrap, f.template, 65534, &step), 0);
        assert_int_equal(stat(f.bootstrap.path, &in), 0);
        assert_int_equal(in.st_uid, 65534);
        tear_down(&f);
}

static void test_runner_comes_in(void **state) {
        _cleanup_free_ char *path = NULL;
        socklen_t size = sizeof(int);
        int value = 1;
        Fixture f;

        (void) state;
        set_up(&f);
        open_bootstrap(&f);
        path = strdup(f.bootstrap.path);
        start_runner(&f);
        bootstrap_accept(&f.bootstrap, f.pid, f.pidfd);
        tell_runner(&f);
        loop_run(f.loop);
        assert_true(fd_is_unix_stream(f.lane));
        assert_int_equal(getsockopt(f.lane, SOL_SOCKET, SO_PASSCRED, &value, &size), 0);
        assert_int_equal(value, 0);
        fd_close(bootstrap_close(&f.bootstrap));
        assert_int_equal(connect_to(path), -ENOENT);
        assert_int_equal(wait_runner(&f), 0);
        tear_down(&f);
}

static void test_long_path(void **state) {
        _cleanup_free_ char *folder = bootstrap_template(NULL), *long_folder = NULL;
        Fixture f;

        (void) state;
        assert_non_null(mkdtemp(folder));
        assert_true(asprintf(&long_folder, "%s/%0200d", folder, 0) > 0);
        assert_int_equal(mkdir(long_folder, 0700), 0);
        set_up(&f);
        free(f.template);
        assert_true(asprintf(&f.template, "%s/baton-XXXXXX", long_folder) > 0);
        open_bootstrap(&f);
        start_runner(&f);
        bootstrap_accept(&f.bootstrap, f.pid, f.pidfd);
        tell_runner(&f);
        loop_run(f.loop);
        assert_true(f.lane >= 0);
        assert_int_equal(wait_runner(&f), 0);
        tear_down(&f);
        assert_int_equal(rmdir(long_folder), 0); /* it is empty */
        assert_int_equal(rmdir(folder), 0);
}

/* Strangers before the runner, some of them before anybody may come in; then the runner, then one more. */
static void test_strangers(void **state) {
        _cleanup_fd_ int early = -1, late = -1;
        Fixture f;

        (void) state;
        set_up(&f);
        f.twice = true;
        open_bootstrap(&f);
        early = connect_to(f.bootstrap.path);
        assert_true(early >= 0);
        start_runner(&f);
        late = connect_to(f.bootstrap.path);
        assert_true(late >= 0);
        bootstrap_accept(&f.bootstrap, f.pid, f.pidfd);
        tell_runner(&f);
        loop_run(f.loop);
        assert_true(f.lane >= 0);
        assert_true(is_closed(early));
        assert_true(is_closed(late));
        assert_int_equal(f.bootstrap.n_refused, 2);
        fd_close(bootstrap_close(&f.bootstrap));
        assert_int_equal(wait_runner(&f), 0);
        tear_down(&f);
}

static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

static void run_for(Fixture *f, uint64_t us) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(f->loop, &timer, clock_now() + us);
        loop_run(f->loop);
        loop_timer_stop(&timer);
}

/* Whoever has not the runner's session is a stranger, whatever its user; here the test is taken for the runner. */
static void test_not_in_the_session(void **state) {
        _cleanup_fd_ int self = pidfd_open(getpid(), 0);
        Fixture f;

        (void) state;
        set_up(&f);
        open_bootstrap(&f);
        start_runner(&f);
        bootstrap_accept(&f.bootstrap, getpid(), self);
        tell_runner(&f);
        while (f.bootstrap.n_refused == 0)
                run_for(&f, 1000);
        assert_int_equal(f.lane, -1);
        assert_int_equal(wait_runner(&f), 0);
        tear_down(&f);
}

/* Its number may mean somebody else: the pidfd tells. */
static void test_runner_is_dead(void **state) {
        _cleanup_fd_ int fd = -1;
        Fixture f;

        (void) state;
        set_up(&f);
        open_bootstrap(&f);
        start_runner(&f);
        assert_int_equal(kill(f.pid, SIGKILL), 0);
        assert_true(test_readable(f.pidfd));
        fd = connect_to(f.bootstrap.path);
        bootstrap_accept(&f.bootstrap, getpid(), f.pidfd); /* the number is ours by now */
        while (f.bootstrap.n_refused == 0)
                run_for(&f, 1000);
        assert_true(is_closed(fd));
        assert_int_equal(f.lane, -1);
        assert_int_equal(test_child_wait(f.pid), -SIGKILL);
        tear_down(&f);
}

/* Without descriptors nothing is accepted for a moment, without turning in circles; then it goes on. */
static void test_shortage(void **state) {
        (void) state;
        for (int error = 0; error < 3; error++) {
                static const int errors[] = { EMFILE, ENFILE, ENOMEM };
                Fixture f;

                set_up(&f);
                open_bootstrap(&f);
                start_runner(&f);
                bootstrap_accept(&f.bootstrap, f.pid, f.pidfd);
                seam_fail(SEAM_ACCEPT4, 1, errors[error]);
                tell_runner(&f);
                loop_run(f.loop);
                assert_true(f.lane >= 0);
                assert_int_equal(seam_hits(SEAM_ACCEPT4), 1);
                assert_true(seam_count(SEAM_ACCEPT4) <= 3);
                assert_int_equal(wait_runner(&f), 0);
                tear_down(&f);
                seam_reset();
        }
}

static int open_and_close(void *argument) {
        Fixture *f = argument;
        const char *step = NULL;
        int r;

        bootstrap_init(&f->bootstrap, f->loop, "test.1", connected);
        r = bootstrap_open(&f->bootstrap, f->template, geteuid(), &step);
        assert_non_null(step);
        if (r < 0) {
                assert_null(f->bootstrap.path);
                assert_int_equal(f->bootstrap.listener, -1);
        }
        fd_close(bootstrap_close(&f->bootstrap));
        return r;
}

static void test_open_fails(void **state) {
        _cleanup_free_ char *folder = bootstrap_template(NULL);
        Fixture f;

        (void) state;
        set_up(&f);
        assert_non_null(mkdtemp(folder));
        free(f.template);
        assert_true(asprintf(&f.template, "%s/baton-XXXXXX", folder) > 0);
        assert_int_equal(seam_each(SEAM_MKDTEMP, EACCES, open_and_close, &f, 0), 1);
        assert_int_equal(seam_each(SEAM_OPEN, EMFILE, open_and_close, &f, 0), 1);
        assert_int_equal(seam_each(SEAM_SOCKET, EMFILE, open_and_close, &f, 0), 1);
        assert_int_equal(seam_each(SEAM_BIND, EADDRINUSE, open_and_close, &f, 0), 1);
        assert_int_equal(seam_each(SEAM_LISTEN, EADDRINUSE, open_and_close, &f, 0), 1);
        assert_int_equal(rmdir(folder), 0); /* nothing was left in it */
        tear_down(&f);
}

static void test_template(void **state) {
        _cleanup_free_ char *before = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
        static const char *const values[] = { NULL, "", "/no/such/folder", "relative", "/tmp" };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
                _cleanup_free_ char *template = NULL;

                if (values[i])
                        assert_int_equal(setenv("TMPDIR", values[i], 1), 0);
                else
                        assert_int_equal(unsetenv("TMPDIR"), 0);
                template = bootstrap_template(NULL);
                assert_string_equal(template, "/tmp/baton-XXXXXX");
        }
        assert_int_equal(before ? setenv("TMPDIR", before, 1) : unsetenv("TMPDIR"), 0);
}

static const struct CMUnitTest tests[] = {
        TEST(test_modes),           TEST(test_socket_of_another_user),
        TEST(test_runner_comes_in), TEST(test_long_path),
        TEST(test_strangers),       TEST(test_not_in_the_session),
        TEST(test_runner_is_dead),  TEST(test_shortage),
        TEST(test_open_fails),      TEST(test_template),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

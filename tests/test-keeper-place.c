/* SPDX-License-Identifier: Apache-2.0 */

/* What a daemon's keeper needs around it: its directory, its lock, its socket; the service manager; and the ladder. */

#include "supervisor/keeper/place.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/places.h"
#include "supervisor/keeper/ladder.h"
#include "supervisor/keeper/notify.h"
#include "tests/test.h"

/* A folder, in it the runtime directory, and what was said on standard error. */
typedef struct PlaceTest {
        char folder[64], runtime[128], state[128], log[128], socket[256];
        PlaceOptions options;
        int saved, said[2];
} PlaceTest;

static void begin(PlaceTest *t) {
        memset(t, 0, sizeof(*t));
        (void) strcpy(t->folder, "/tmp/baton-test-place-XXXXXX");
        assert_non_null(mkdtemp(t->folder));
        (void) snprintf(t->runtime, sizeof(t->runtime), "%s/run", t->folder);
        (void) snprintf(t->state, sizeof(t->state), "%s/var/state", t->folder);
        (void) snprintf(t->log, sizeof(t->log), "%s/var/log", t->folder);
        (void) snprintf(t->socket, sizeof(t->socket), "%s/control", t->runtime);
        t->options = (PlaceOptions){ t->runtime, t->state, t->log, t->socket };
        t->saved = fd_dup(STDERR_FILENO);
        assert_int_equal(pipe2(t->said, O_CLOEXEC | O_NONBLOCK), 0);
        assert_true(dup2(t->said[1], STDERR_FILENO) >= 0);
}

static void end(PlaceTest *t) {
        static const char *const left[] = { "run/boot", "var/state", "var/log", "run", "var", "other", "" };
        char path[256];

        assert_true(dup2(t->saved, STDERR_FILENO) >= 0);
        fd_close(t->saved);
        fd_close_all(t->said, 2);
        (void) snprintf(path, sizeof(path), "%s/run/lock", t->folder);
        (void) unlink(path);
        (void) unlink(t->socket);
        for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
                (void) snprintf(path, sizeof(path), "%s/%s", t->folder, left[i]);
                (void) rmdir(path);
        }
        assert_int_equal(access(t->folder, F_OK), -1);
}

static void assert_said(const PlaceTest *t, const char *text) {
        char bytes[1024] = "";
        ssize_t n = read(t->said[0], bytes, sizeof(bytes) - 1);

        if (n <= 0 || !strstr(bytes, text))
                fail_msg("not said: %s; but: %s", text, bytes);
}

static void refuse(PlaceTest *t, int error, const char *text) {
        Place place = PLACE_NULL;
        int listener;

        assert_int_equal(place_open(&place, &t->options, &listener), error);
        assert_said(t, text);
        place_close(&place);
}

static unsigned mode_of(const char *path) {
        struct stat st;

        assert_int_equal(lstat(path, &st), 0);
        return st.st_mode & 07777;
}

static void test_place(void **state) {
        bool root = geteuid() == 0;
        char text[256];
        Place place = PLACE_NULL;
        int listener = -1;
        PlaceTest t;

        (void) state;
        begin(&t);
        assert_int_equal(place_open(&place, &t.options, &listener), 0);
        assert_int_equal(mode_of(t.runtime), root ? 0755 : 0700);
        assert_int_equal(mode_of(t.socket), root ? 0666 : 0600);
        assert_int_equal(mode_of(t.log), root ? 0750 : 0700);
        (void) snprintf(text, sizeof(text), "%s/boot", t.runtime);
        assert_int_equal(mode_of(text), 0711);

        /* A second one is told who was first. */
        (void) snprintf(text, sizeof(text), "already (pid %d)", (int) getpid());
        refuse(&t, -EAGAIN, text);
        assert_int_equal(access(t.socket, F_OK), 0);

        /* The lock goes with its holder; the socket of a dead one is replaced. */
        fd_close(place.lock);
        fd_close(listener);
        place = PLACE_NULL;
        assert_int_equal(place_open(&place, &t.options, &listener), 0);
        fd_close(listener);
        place_close(&place);
        assert_int_equal(access(t.socket, F_OK), -1);
        end(&t);
}

static void test_socket(void **state) {
        char text[128], other[256];
        Place place = PLACE_NULL, second = PLACE_NULL;
        int listener = -1, fd;
        PlaceTest t;

        (void) state;
        begin(&t);
        assert_int_equal(place_open(&place, &t.options, &listener), 0);
        (void) snprintf(other, sizeof(other), "%s/other", t.folder);
        t.options.runtime_dir = other;
        (void) snprintf(text, sizeof(text), "is in use by pid %d", (int) getpid());
        refuse(&t, -EADDRINUSE, text);

        /* Not ours any more: it stays. */
        assert_int_equal(unlink(t.socket), 0);
        fd = open(t.socket, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        fd_close(fd);
        fd_close(listener);
        place_close(&place);
        assert_int_equal(access(t.socket, F_OK), 0);
        refuse(&t, -EEXIST, "something that is no socket is there");
        assert_int_equal(unlink(t.socket), 0);

        /* A path that no address holds. */
        memset(other, 'x', sizeof(other));
        (void) snprintf(other, sizeof(other), "%s/%0150d", t.folder, 1);
        assert_int_equal(mkdir(other, 0700), 0);
        (void) snprintf(t.socket, sizeof(t.socket), "%s/%0150d/control", t.folder, 1);
        t.options.runtime_dir = t.runtime;
        assert_int_equal(place_open(&second, &t.options, &listener), 0);
        assert_int_equal(access(t.socket, F_OK), 0);
        fd_close(listener);
        place_close(&second);
        assert_int_equal(access(t.socket, F_OK), -1);
        assert_int_equal(rmdir(other), 0);
        (void) snprintf(other, sizeof(other), "%s/other/boot", t.folder);
        (void) rmdir(other);
        (void) snprintf(other, sizeof(other), "%s/other/lock", t.folder);
        (void) unlink(other);
        end(&t);
}

static void test_not_ours(void **state) {
        PlaceTest t;

        (void) state;
        begin(&t);
        assert_int_equal(mkdir(t.runtime, 0700), 0);
        assert_int_equal(chmod(t.runtime, 0777), 0);
        refuse(&t, -EPERM, "others may write it");
        assert_int_equal(rmdir(t.runtime), 0);
        assert_int_equal(symlink("/tmp", t.runtime), 0);
        refuse(&t, -ENOTDIR, "it is a symbolic link, or no directory");
        assert_int_equal(unlink(t.runtime), 0);
        if (geteuid() == 0) {
                assert_int_equal(mkdir(t.runtime, 0700), 0);
                assert_int_equal(chown(t.runtime, 65534, 65534), 0);
                refuse(&t, -EPERM, "it belongs to another user");
                assert_int_equal(rmdir(t.runtime), 0);
        }
        t.options.runtime_dir = "/proc/nothing/run";
        refuse(&t, -ENOENT, "cannot make the runtime directory /proc/nothing/run");
        end(&t);
}

static void test_places(void **state) {
        char path[PLACES_PATH_MAX], expected[PLACES_PATH_MAX], directory[PLACES_PATH_MAX / 2];

        (void) state;
        (void) unsetenv("BATON_SOCKET");
        (void) unsetenv("STATE_DIRECTORY");
        (void) unsetenv("LOGS_DIRECTORY");
        assert_non_null(getcwd(directory, sizeof(directory)));
        (void) snprintf(expected, sizeof(expected), "%s/here", directory);
        assert_int_equal(places_runtime("here", path), 0);
        assert_string_equal(path, expected);
        assert_int_equal(places_runtime(NULL, path), 0);
        if (geteuid() == 0)
                assert_string_equal(path, "/run/baton");
        assert_int_equal(places_socket("/x", path), 0);
        assert_string_equal(path, "/x/control");
        (void) setenv("BATON_SOCKET", "/y/socket", 1);
        assert_int_equal(places_socket("/x", path), 0);
        assert_string_equal(path, "/x/control");
        assert_int_equal(places_socket(NULL, path), 0);
        assert_string_equal(path, "/y/socket");
        (void) unsetenv("BATON_SOCKET");
        (void) setenv("STATE_DIRECTORY", "/s/one:/s/two", 1);
        (void) setenv("LOGS_DIRECTORY", "relative", 1);
        assert_int_equal(places_state(NULL, path), 0);
        assert_string_equal(path, "/s/one");
        assert_int_equal(places_state("/o", path), 0);
        assert_string_equal(path, "/o");
        assert_int_equal(places_log(NULL, "/s/one", path), 0);
        assert_string_equal(path, geteuid() == 0 ? "/var/log/baton" : "/s/one/log");
        (void) setenv("LOGS_DIRECTORY", "/l", 1);
        assert_int_equal(places_log(NULL, "/s/one", path), 0);
        assert_string_equal(path, "/l");
        (void) unsetenv("STATE_DIRECTORY");
        (void) unsetenv("LOGS_DIRECTORY");
}

/* ------------------------------------------------------------------------------------------------------ service manager */

/* bind_manager() - its socket, at a path or, with `@', abstract. */
static int bind_manager(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        size_t n = strlen(path);

        memcpy(address.sun_path, path, n);
        if (*path == '@')
                address.sun_path[0] = '\0';
        assert_int_equal(
                bind(fd, (struct sockaddr *) &address, (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n)), 0);
        (void) setenv("NOTIFY_SOCKET", path, 1);
        return fd;
}

static const char *received(int fd, char text[512]) {
        ssize_t n = recv(fd, text, 511, 0);

        text[MAX(n, (ssize_t) 0)] = '\0';
        return text;
}

static void talk(const char *path) {
        unsigned long long moment;
        char text[512], pid[32];
        Notify notify;
        int fd = bind_manager(path);

        (void) snprintf(pid, sizeof(pid), "%d", (int) getpid());
        (void) setenv("WATCHDOG_USEC", "3000000", 1);
        (void) setenv("WATCHDOG_PID", pid, 1);
        notify_open(&notify);
        assert_null(getenv("NOTIFY_SOCKET"));
        assert_null(getenv("WATCHDOG_USEC"));
        assert_int_equal(notify.watchdog_us, 3000000);
        notify_say(&notify, KEEPER_NOTIFY_READY, NULL);
        assert_string_equal(received(fd, text), "READY=1\n");
        notify_say(&notify, KEEPER_NOTIFY_READY, "12 runners are up");
        assert_string_equal(received(fd, text), "READY=1\nSTATUS=12 runners are up");
        notify_say(&notify, KEEPER_NOTIFY_STATUS, "well");
        assert_string_equal(received(fd, text), "STATUS=well");
        notify_say(&notify, KEEPER_NOTIFY_STATUS, "");
        assert_string_equal(received(fd, text), "");
        notify_say(&notify, KEEPER_NOTIFY_RELOADING, NULL);
        assert_int_equal(sscanf(received(fd, text), "RELOADING=1\nMONOTONIC_USEC=%llu\n", &moment), 1);
        notify_say(&notify, KEEPER_NOTIFY_STOPPING, NULL);
        assert_string_equal(received(fd, text), "STOPPING=1\n");
        notify_alive(&notify);
        assert_string_equal(received(fd, text), "WATCHDOG=1");
        fd_close(fd);
        notify_close(&notify);
}

static void test_notify(void **state) {
        int level = log_get_level();
        char path[128];
        Notify notify;

        (void) state;
        (void) snprintf(path, sizeof(path), "/tmp/baton-test-notify-%d", (int) getpid());
        talk(path);
        (void) unlink(path);
        (void) snprintf(path, sizeof(path), "@baton-test-notify-%d", (int) getpid());
        talk(path);

        log_set_level(-1);
        notify_open(&notify); /* nobody there: every call is good for nothing */
        notify_say(&notify, KEEPER_NOTIFY_READY, "x");
        notify_alive(&notify);
        assert_int_equal(notify.fd, -1);
        (void) setenv("NOTIFY_SOCKET", "vsock:1:2", 1);
        notify_open(&notify);
        assert_int_equal(notify.fd, -1);
        (void) setenv("NOTIFY_SOCKET", "/nowhere/socket", 1); /* gone: said, and nothing else */
        (void) setenv("WATCHDOG_USEC", "3000000", 1);
        (void) setenv("WATCHDOG_PID", "1", 1); /* somebody else's */
        notify_open(&notify);
        assert_int_equal(notify.watchdog_us, 0);
        notify_say(&notify, KEEPER_NOTIFY_READY, NULL);
        assert_true(notify.failed);
        notify_close(&notify);
        log_set_level(level);
}

/* --------------------------------------------------------------------------------------------------------------- ladder */

static void test_ladder(void **state) {
        static const LadderPolicy policy = { .healthy_us = 60000000, .delay_us = 100000 };
        static const uint64_t delays[] = { 0, 100000, 200000, 400000, 800000, 1600000, 3200000, 6400000 };
        Ladder ladder = { 0 };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
                assert_int_equal(ladder_next(&ladder, &policy, i % 2, true), delays[i]);
                assert_int_equal(ladder.rung, LADDER_PROGRAM);
        }
        assert_int_equal(ladder_next(&ladder, &policy, 60000000, true), 0); /* healthy: all is forgiven */
        for (unsigned i = 1; i < ARRAY_SIZE(delays); i++)
                assert_int_equal(ladder_next(&ladder, &policy, 0, true), delays[i]);
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(ladder_next(&ladder, &policy, 0, true), delays[i]);
                assert_int_equal(ladder.rung, LADDER_PREVIOUS);
        }
        assert_int_equal(ladder_next(&ladder, &policy, 0, true), 0);
        assert_int_equal(ladder.rung, LADDER_DOWN);

        ladder = (Ladder){ 0 };
        for (unsigned i = 0; i < 8; i++)
                (void) ladder_next(&ladder, &policy, 0, false);
        assert_int_equal(ladder.rung, LADDER_PROGRAM);
        (void) ladder_next(&ladder, &policy, 0, false);
        assert_int_equal(ladder.rung, LADDER_DOWN); /* there is no program before */

        ladder = (Ladder){ .deaths = 7 };
        assert_int_equal(ladder_next(&ladder, &(LadderPolicy){ 60000000, 5000000 }, 0, true), LADDER_DELAY_MAX_US);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_place),  TEST(test_socket), TEST(test_not_ours),
                TEST(test_places), TEST(test_notify), TEST(test_ladder),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}

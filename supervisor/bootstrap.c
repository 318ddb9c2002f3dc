/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Bootstrap: the first contact with a native runner. The directory is ours and only passable (0711); the socket in it is
 * the runner's user's (0600). Were the directory the runner's, it could be filled, or swapped under us. The socket is
 * bound by way of /proc/self/fd/N, so that a path of any length works although sun_path has room for 108 bytes.
 *
 * Who comes in is judged by what the kernel says of it, SO_PEERCRED: the user, and the session, which is the runner's own
 * and cannot be joined from outside. The runner's pid can be trusted only while the process is not reaped, so its pidfd
 * is asked after the sessions were compared. A stranger is closed and logged, and accepting goes on. SO_PASSCRED is never
 * set on the listener: accepted sockets would inherit it and every lane message would carry credentials.
 *
 * Nothing is accepted before the runner was started: a connection waits in the backlog, and is judged then. What goes, at
 * the end of every path, is the name first, then whoever still waits, then the listener, whose duplicate in the keeper
 * the owner of this drops.
 */

#include "supervisor/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"

#define SOCKET_NAME "bootstrap"

enum {
        BACKLOG = 8,
        ACCEPT_MAX = 16,    /* in one turn of the loop */
        REFUSED_LOGGED = 8, /* strangers named in the log; more are only counted */
        RETRY_US = 100000,
};

static void listener_ready(LoopIo *io, unsigned events);
static void retry_now(LoopTimer *timer);

void bootstrap_init(Bootstrap *bootstrap, Loop *loop, const char *label,
                    void (*connected)(Bootstrap *bootstrap, int lane_fd_consume)) {
        *bootstrap = (Bootstrap){
                .loop = loop,
                .label = label,
                .directory_fd = -1,
                .listener = -1,
                .instance = { .pidfd = -1 },
                .io = LOOP_IO_NULL(listener_ready),
                .retry = LOOP_TIMER_NULL(retry_now),
                .connected = connected,
        };
}

char *bootstrap_template(const char *runtime_dir) {
        _cleanup_free_ char *resolved = NULL;
        const char *directory = secure_getenv("TMPDIR");
        char *template;

        if (runtime_dir)
                return asprintf(&template, "%s/boot/XXXXXX", runtime_dir) < 0 ? NULL : template;
        if (directory && *directory)
                resolved = realpath(directory, NULL);
        if (asprintf(&template, "%s/baton-XXXXXX", resolved ? resolved : "/tmp") < 0)
                return NULL;
        return template;
}

/* -------------------------------------------------------------------------------------------------------- the socket */

static int make_directory(Bootstrap *b, const char *template, const char **ret_step) {
        _cleanup_free_ char *path = strdup(template);

        *ret_step = "mkdtemp";
        if (!path)
                return -ENOMEM;
        if (!mkdtemp(path))
                return -errno;
        b->directory_fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (b->directory_fd < 0 || asprintf(&b->path, "%s/" SOCKET_NAME, path) < 0) {
                int r = b->directory_fd < 0 ? -errno : -ENOMEM;

                b->path = NULL;
                b->directory_fd = fd_close(b->directory_fd);
                (void) rmdir(path);
                return r;
        }
        *ret_step = "chmod";
        return chmod(path, 0711) < 0 ? -errno : 0;
}

static int bind_socket(Bootstrap *b) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void) snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, b->directory_fd);
        if (bind(b->listener, (struct sockaddr *) &address, sizeof(address)) < 0)
                return -errno;
        b->bound = true;
        return 0;
}

/* Whoever connects before listen() is refused: by then mode and owner are what they must be. */
static int make_socket(Bootstrap *b, uid_t uid, const char **ret_step) {
        int r;

        *ret_step = "socket";
        b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (b->listener < 0)
                return -errno;
        *ret_step = "bind";
        r = bind_socket(b);
        if (r < 0)
                return r;
        *ret_step = "chmod";
        if (fchmodat(b->directory_fd, SOCKET_NAME, 0600, 0) < 0)
                return -errno;
        *ret_step = "chown";
        if (uid != geteuid() && fchownat(b->directory_fd, SOCKET_NAME, uid, (gid_t) -1, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        *ret_step = "listen";
        return listen(b->listener, BACKLOG) < 0 ? -errno : 0;
}

int bootstrap_open(Bootstrap *bootstrap, const char *template, uid_t uid, const char **ret_step) {
        int r = make_directory(bootstrap, template, ret_step);

        if (r == 0)
                r = make_socket(bootstrap, uid, ret_step);
        if (r < 0) {
                fd_close(bootstrap_close(bootstrap));
                return r;
        }
        bootstrap->instance.uid = uid;
        return 0;
}

int bootstrap_adopt(Bootstrap *bootstrap, const char *path, uid_t uid, int listener_fd_consume) {
        _cleanup_fd_ int listener = listener_fd_consume;
        _cleanup_free_ char *directory = strdup(path);
        char *slash = directory ? strrchr(directory, '/') : NULL;

        if (!slash)
                return directory ? -EINVAL : -ENOMEM;
        *slash = '\0';
        bootstrap->path = strdup(path);
        if (!bootstrap->path)
                return -ENOMEM;
        bootstrap->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (bootstrap->directory_fd < 0) {
                int r = -errno;

                free(bootstrap->path);
                bootstrap->path = NULL;
                return r;
        }
        bootstrap->listener = fd_take(&listener);
        bootstrap->bound = true;
        bootstrap->instance.uid = uid;
        return 0;
}

/* -------------------------------------------------------------------------------------------------------- who it is */

/* is_runner() - the pidfd is asked last: only if the runner lives then did its pid mean it before. */
static bool is_runner(const BootstrapRunner *instance, const struct ucred *peer) {
        return peer->uid == instance->uid && peer->pid > 0 && getsid(peer->pid) == getsid(instance->pid) &&
               fd_process_lives(instance->pidfd);
}

static void refuse(Bootstrap *b, const struct ucred *peer, const char *why) {
        if (++b->n_refused <= REFUSED_LOGGED)
                log_warning("runner %s: refused a connection to its bootstrap socket from uid %u, pid %d: %s%s",
                            b->label, peer->uid, peer->pid, why,
                            b->n_refused == REFUSED_LOGGED ? "; more of them will not be logged" : "");
}

/* accept_one() - a connection and who made it, or a negative errno. */
static int accept_one(const Bootstrap *b, struct ucred *ret_peer) {
        socklen_t size = sizeof(*ret_peer);
        int fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return -errno;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_peer, &size) < 0)
                *ret_peer = (struct ucred){ .pid = 0, .uid = (uid_t) -1, .gid = (gid_t) -1 };
        return fd;
}

static bool is_shortage(int error) {
        return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

/* A listener with somebody waiting stays ready: after a shortage it is left alone for a moment. */
static void pause_accepting(Bootstrap *b, int error) {
        log_warning("runner %s: cannot accept its connection for now: %s", b->label, strerror(-error));
        loop_io_stop(&b->io);
        loop_timer_set(b->loop, &b->retry, clock_after(clock_now(), RETRY_US));
}

static void retry_now(LoopTimer *timer) {
        Bootstrap *b = CONTAINER_OF(timer, Bootstrap, retry);

        loop_io_set(b->loop, &b->io, b->listener, LOOP_IN);
}

static void listener_ready(LoopIo *io, unsigned events) {
        Bootstrap *b = CONTAINER_OF(io, Bootstrap, io);

        (void) events;
        for (unsigned i = 0; i < ACCEPT_MAX; i++) {
                struct ucred peer;
                int fd = accept_one(b, &peer);

                if (is_shortage(fd))
                        pause_accepting(b, fd);
                if (fd == -EAGAIN || is_shortage(fd))
                        return;
                if (fd < 0)
                        continue;
                if (is_runner(&b->instance, &peer)) {
                        loop_io_stop(&b->io);
                        b->connected(b, fd);
                        return;
                }
                refuse(b, &peer, "it is not the runner");
                fd_close(fd);
        }
}

void bootstrap_accept(Bootstrap *bootstrap, pid_t pid, int pidfd) {
        bootstrap->instance.pid = pid;
        bootstrap->instance.pidfd = pidfd;
        loop_io_set(bootstrap->loop, &bootstrap->io, bootstrap->listener, LOOP_IN);
}

/* ------------------------------------------------------------------------------------------------------------ the end */

/* refuse_waiting() - the name is gone, so that nobody comes any more; who waits learns at once that it is not let in. */
static void refuse_waiting(Bootstrap *b) {
        struct ucred peer;
        int fd;

        if (b->instance.pid == 0)
                return;
        for (unsigned i = 0; i <= BACKLOG + 1u && (fd = accept_one(b, &peer)) >= 0; i++) {
                refuse(b, &peer, "the runner is in already, or the start is over");
                fd_close(fd);
        }
}

static void remove_names(Bootstrap *b) {
        char *slash = b->path ? strrchr(b->path, '/') : NULL;

        if (b->bound)
                (void) unlinkat(b->directory_fd, SOCKET_NAME, 0);
        b->bound = false;
        if (slash) {
                *slash = '\0';
                if (rmdir(b->path) < 0)
                        log_warning("runner %s: cannot remove %s: %s", b->label, b->path, strerror(errno));
        }
        free(b->path);
        b->path = NULL;
}

int bootstrap_close(Bootstrap *bootstrap) {
        loop_io_stop(&bootstrap->io);
        loop_timer_stop(&bootstrap->retry);
        remove_names(bootstrap);
        if (bootstrap->listener >= 0)
                refuse_waiting(bootstrap);
        bootstrap->directory_fd = fd_close(bootstrap->directory_fd);
        bootstrap->instance.pidfd = -1;
        return fd_take(&bootstrap->listener);
}

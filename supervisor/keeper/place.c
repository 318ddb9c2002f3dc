/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Place: what must be true before a daemon begins. The runtime directory is ours and nobody else can write it, not even
 * by a symbolic link in /tmp; the lock in it is held by no other keeper. So whatever else is found there, sockets and
 * bootstrap directories, is left over from one that is dead.
 *
 * The control socket may be elsewhere ($BATON_SOCKET), where the lock says nothing: one that answers is in use; one that
 * refuses is a dead one's, and is replaced. The keeper calls listen(), so that SO_PEERCRED of a connection names it.
 *
 * The lock file stays when we go: to remove it would let two hold locks on two files of one name.
 */

#include "supervisor/keeper/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/places.h"

/* -------------------------------------------------------------------------------------------------------- directories */

/* make_directories() - @path and what is above it. */
static int make_directories(const char *path, mode_t mode) {
        char part[PLACES_PATH_MAX];
        size_t n = strlen(path);

        if (n >= sizeof(part))
                return -ENAMETOOLONG;
        memcpy(part, path, n + 1);
        for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
                        return -errno;
                *slash = '/';
        }
        return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

static void make_optional(const char *what, const char *path) {
        int r = make_directories(path, geteuid() == 0 ? 0750 : 0700);

        if (r < 0)
                log_warning("cannot make the %s directory %s: %s; what needs it will fail", what, path, strerror(-r));
}

/* check_owner() - NULL, or what is wrong with the runtime directory. */
static const char *check_owner(int directory) {
        struct stat st;

        if (fstat(directory, &st) < 0)
                return strerror(errno);
        if (st.st_uid != geteuid())
                return "it belongs to another user";
        return st.st_mode & (S_IWGRP | S_IWOTH) ? "others may write it" : NULL;
}

static int open_runtime(const char *path) {
        const char *wrong;
        int fd, r;

        r = make_directories(path, geteuid() == 0 ? 0755 : 0700);
        if (r < 0) {
                log_error("cannot make the runtime directory %s: %s; --runtime-dir names another", path, strerror(-r));
                return r;
        }
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
                r = -errno;
                log_error("cannot use the runtime directory %s: %s; --runtime-dir names another", path,
                          r == -ENOTDIR || r == -ELOOP ? "it is a symbolic link, or no directory" : strerror(-r));
                return r;
        }
        wrong = check_owner(fd);
        if (!wrong && mkdirat(fd, "boot", 0711) < 0 && errno != EEXIST)
                wrong = strerror(errno);
        if (!wrong && fchmodat(fd, "boot", 0711, 0) < 0) /* whatever the umask is */
                wrong = strerror(errno);
        if (!wrong)
                return fd;
        log_error("cannot use the runtime directory %s: %s; --runtime-dir names another", path, wrong);
        fd_close(fd);
        return -EPERM;
}

/* ---------------------------------------------------------------------------------------------------------------- lock */

/* The kernel does not tell who has an OFD lock: its holder has written it into the file. */
static void say_locked(const char *path, int lock) {
        char pid[16] = "";
        ssize_t n = pread(lock, pid, sizeof(pid) - 1, 0);

        pid[MAX(n, (ssize_t) 0)] = '\0';
        pid[strspn(pid, "0123456789")] = '\0';
        log_error(
                "a supervisor runs on %s already (pid %s); stop it first, or name another directory by --runtime-dir",
                path, *pid ? pid : "unknown");
}

static int take_lock(Place *place, const char *path, int directory) {
        struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        _cleanup_fd_ int lock = openat(directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
        char pid[16];
        int n, r;

        if (lock >= 0 && fcntl(lock, F_OFD_SETLK, &whole) == 0) {
                n = snprintf(pid, sizeof(pid), "%d\n", (int) getpid());
                if (ftruncate(lock, 0) < 0 || pwrite(lock, pid, (size_t) n, 0) != n)
                        log_warning("cannot write %s/lock: %s; another supervisor could not name this one", path,
                                    strerror(errno));
                place->lock = fd_take(&lock);
                return 0;
        }
        r = -errno;
        if (lock >= 0 && (r == -EAGAIN || r == -EACCES))
                say_locked(path, lock);
        else
                log_error("cannot lock %s/lock: %s; --runtime-dir names another directory", path, strerror(-r));
        return r;
}

/* ------------------------------------------------------------------------------------------------------ control socket */

/* somebody_listens() - its pid, 0 when it cannot be known; -ECONNREFUSED: a dead one's; or another negative errno. */
static int somebody_listens(const struct sockaddr_un *address) {
        _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct ucred peer = { 0 };
        socklen_t size = sizeof(peer);

        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) address, sizeof(*address)) < 0 && errno != EAGAIN)
                return -errno;
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? 0 : MAX(peer.pid, 0);
}

/* make_way() - a dead one's socket goes. 0, or a negative errno, having said why. */
static int make_way(const char *path, const struct sockaddr_un *address) {
        struct stat st;
        int r;

        if (lstat(path, &st) < 0) {
                if (errno == ENOENT)
                        return 0;
                r = -errno;
                log_error("cannot use the control socket %s: %s", path, strerror(-r));
                return r;
        }
        if (!S_ISSOCK(st.st_mode)) {
                log_error(
                        "cannot make the control socket %s: something that is no socket is there; remove it, or name "
                        "another by $" PLACES_SOCKET_VARIABLE,
                        path);
                return -EEXIST;
        }
        r = somebody_listens(address);
        if (r == -ECONNREFUSED && unlink(path) == 0)
                return 0;
        if (r >= 0)
                log_error("the control socket %s is in use by pid %d; stop it first, or name another by "
                          "$" PLACES_SOCKET_VARIABLE,
                          path, r);
        else
                log_error("cannot use the control socket %s: %s", path, strerror(-r));
        return r < 0 ? r : -EADDRINUSE;
}

/* Nobody connects before listen(): by then the mode is what it must be. Who may do what is decided by credentials. */
static int bind_socket(Place *place, const struct sockaddr_un *address, int listener) {
        mode_t before = umask(0177);
        int r = bind(listener, (const struct sockaddr *) address, sizeof(*address)) < 0 ? -errno : 0;
        struct stat st;

        (void) umask(before);
        if (r < 0)
                return r;
        if (lstat(place->socket, &st) < 0 || (geteuid() == 0 && chmod(place->socket, 0666) < 0))
                return -errno;
        place->device = st.st_dev;
        place->inode = st.st_ino;
        return listen(listener, SOMAXCONN) < 0 ? -errno : 0;
}

static int open_socket(Place *place, int *ret_listener) {
        _cleanup_fd_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), directory = -1;
        int r = listener < 0 ? -errno : 0;
        struct sockaddr_un address;

        if (r == 0)
                r = places_address(place->socket, &address, &directory);
        if (r == 0) {
                r = make_way(place->socket, &address);
                if (r < 0)
                        return r;
                r = bind_socket(place, &address, listener);
        }
        if (r < 0) {
                log_error("cannot make the control socket %s: %s", place->socket, strerror(-r));
                return r;
        }
        *ret_listener = fd_take(&listener);
        return 0;
}

/* -------------------------------------------------------------------------------------------------------------- itself */

int place_open(Place *place, const PlaceOptions *options, int *ret_listener) {
        _cleanup_fd_ int directory = open_runtime(options->runtime_dir);
        int r;

        if (directory < 0)
                return directory;
        r = take_lock(place, options->runtime_dir, directory);
        if (r < 0)
                return r;
        make_optional("state", options->state_dir);
        make_optional("log", options->log_dir);
        place->socket = options->socket;
        r = open_socket(place, ret_listener);
        if (r < 0)
                place->lock = fd_close(place->lock);
        return r;
}

void place_close(Place *place) {
        struct stat st;

        if (place->inode && lstat(place->socket, &st) == 0 && st.st_dev == place->device && st.st_ino == place->inode)
                (void) unlink(place->socket);
        fd_close(place->lock);
        *place = PLACE_NULL;
}

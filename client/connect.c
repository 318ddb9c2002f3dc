/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connecting to a control socket. Who is behind it is asked of the connection: the keeper called listen(), so it is the
 * keeper that is named, whether a supervisor runs or not. Where the queue of those that wait to be accepted is full,
 * connect() waits, but not for ever.
 */

#include "client/connect.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/fd.h"

enum { CONNECT_TIMEOUT_S = 10 };

int connect_path(const char *socket, char path[PLACES_PATH_MAX]) {
        size_t n;

        if (!socket || !*socket)
                return places_socket(NULL, path);
        if (*socket == '/')
                n = (size_t) snprintf(path, PLACES_PATH_MAX, "%s", socket);
        else {
                if (!getcwd(path, PLACES_PATH_MAX))
                        return -errno;
                n = strlen(path);
                n += (size_t) snprintf(path + n, PLACES_PATH_MAX - n, "/%s", socket);
        }
        return n < PLACES_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* what_is_there() - why connect() was refused: it says the same of a dead socket and of a file that is none. */
static int what_is_there(const char *path) {
        struct stat st;

        return stat(path, &st) == 0 && !S_ISSOCK(st.st_mode) ? -ENOTSOCK : -ECONNREFUSED;
}

int connect_supervisor(const char *path, int *ret_fd, pid_t *ret_pid) {
        const struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S }, none = { 0 };
        _cleanup_fd_ int fd = -1, directory = -1;
        struct ucred keeper = { 0 };
        struct sockaddr_un address;
        int r = places_address(path, &address, &directory);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
        if (connect(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return errno == ECONNREFUSED ? what_is_there(path) : errno == EAGAIN ? -ETIMEDOUT : -errno;
        (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
        (void) getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &keeper, &(socklen_t){ sizeof(keeper) });
        if (ret_pid)
                *ret_pid = keeper.pid;
        *ret_fd = fd_take(&fd);
        return 0;
}

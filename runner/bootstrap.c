/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Bootstrap: one connection, made before anything else works, so its failures go to standard error: the one place that
 * somebody who started a runner by hand looks at.
 *
 * The variable is removed once it was used. The socket is gone as soon as we are in; a child of ours that finds the
 * variable would try a dead path, or be refused, instead of saying that baton did not start it.
 */

#include "runner/bootstrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/places.h"

static int connect_path(const char *path, int *ret_fd) {
        struct sockaddr_un address;
        _cleanup_fd_ int dir = -1, fd = -1;
        int r;

        r = places_address(path, &address, &dir);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        do
                r = connect(fd, (struct sockaddr *) &address, sizeof(address));
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return -errno;
        *ret_fd = fd_take(&fd);
        return 0;
}

int bootstrap_connect(const char *path, int *ret_fd) {
        const char *variable = path ? NULL : getenv(BOOTSTRAP_VARIABLE);
        int r;

        if (!path && (!variable || !*variable)) {
                (void) dprintf(STDERR_FILENO,
                               "%s: not started by baton: " BOOTSTRAP_VARIABLE
                               " is not set; start it with: baton call --exec %s -- METHOD\n",
                               program_invocation_short_name, program_invocation_name);
                return -ENOKEY;
        }
        r = connect_path(path ? path : variable, ret_fd);
        if (r < 0) {
                (void) dprintf(STDERR_FILENO, "%s: cannot connect to the supervisor at %s: %s\n",
                               program_invocation_short_name, path ? path : variable, strerror(-r));
                return r;
        }
        if (variable)
                (void) unsetenv(BOOTSTRAP_VARIABLE);
        return 0;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The way to a supervisor that runs: its control socket. */

#include <sys/types.h>

#include "common/places.h"

/* connect_path() - @socket, else where the environment says (common/places.h). 0 or a negative errno. */
int connect_path(const char *socket, char path[PLACES_PATH_MAX]);

/*
 * connect_supervisor() - a connection to the socket @path, which is a lane; @ret_pid (may be NULL) is the process that made
 * the socket: the keeper. 0; -ENOENT: there is no such socket; -ECONNREFUSED: nobody is behind it any more; -EACCES;
 * -ENOTSOCK: something else is there; -ETIMEDOUT: whoever is behind it accepts nobody; -EMFILE, ...
 */
int connect_supervisor(const char *path, int *ret_fd, pid_t *ret_pid);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* A socket as configured, from nothing to one that can be passed on. */

#include "supervisor/config.h"

enum { SOCKET_ERROR_SIZE = 256 };

/*
 * socket_open() - of @config, at @address, which is its own by now; one with a path replaces a file that nobody answers by.
 * Returns 0, or a negative errno with what cannot be done in @error: "tcp 127.0.0.1:80: Address already in use".
 */
int socket_open(const ConfigSocket *config, const char *address, int *ret_fd, char error[SOCKET_ERROR_SIZE]);

/* socket_adjust() - what can be changed while it is open: backlog; mode and owner of its path. Errors as socket_open(). */
int socket_adjust(const ConfigSocket *config, const char *address, int fd, char error[SOCKET_ERROR_SIZE]);

/* socket_remove_path() - the file of the unix socket @fd, which we have bound, if it has one and that is still a socket. */
void socket_remove_path(int fd);

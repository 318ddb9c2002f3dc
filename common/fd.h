#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Owned descriptors: each has exactly one owner, unset is -1, everything is born CLOEXEC. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

#include "common/macro.h"

/* fd_close() - closes @fd, if it is one, and returns -1, so that `fd = fd_close(fd)`. Keeps errno; never retried. */
int fd_close(int fd);

/*
 * fd_close_promptly() - from here on fd_close() does not wait for sockets that linger, whoever has made them so: for processes
 * that others give descriptors. Takes SIGURG for it. 0 or a negative errno; again: 0.
 */
int fd_close_promptly(void);

/* fd_take() - the value of @fd, which is left -1: ownership moves to the caller. */
static inline int fd_take(int *fd) {
        int value = *fd;

        *fd = -1;
        return value;
}

static inline void fd_closep(int *fd) {
        *fd = fd_close(*fd);
}

#define _cleanup_fd_ _cleanup_(fd_closep)

/* fd_dup() - a CLOEXEC duplicate of @fd, never 0-2. Returns it, or a negative errno. */
int fd_dup(int fd);

/* fd_close_all() - closes the @n descriptors in @fds and leaves each -1. */
void fd_close_all(int *fds, size_t n);

/* fd_socketpair() - a pair of unix sockets of @type (SOCK_STREAM, SOCK_SEQPACKET), CLOEXEC. Returns 0 or a negative errno. */
int fd_socketpair(int type, int ret_fds[2]);

/*
 * fd_is_unix_stream() - whether @fd is a connected-type unix stream socket, as lanes and channels are. A descriptor that
 * came from a peer is asked this before it is watched or used: a closed or foreign one in an epoll set would be fatal.
 */
bool fd_is_unix_stream(int fd);

/* fd_is_seqpacket() - the same of a connected unix SOCK_SEQPACKET socket. */
bool fd_is_seqpacket(int fd);

/* fd_process_lives() - whether the process of @pidfd has not ended. Of -1, which nobody can be asked by, it is believed. */
bool fd_process_lives(int pidfd);

/* fd_raise_limit() - raises soft RLIMIT_NOFILE to the hard one; the limits as they were in @ret_before. 0 or negative errno. */
int fd_raise_limit(struct rlimit *ret_before);

/* fd_count() - how many descriptors this process has open, the one used for counting left out; or a negative errno. */
int fd_count(void);

/*
 * fd_read_file() - what a regular file of at most @max bytes holds, with a byte 0 behind it; the caller's to free. 0;
 * -EFBIG; -EISDIR or -EINVAL: no regular file; or another negative errno.
 */
int fd_read_file(int fd, size_t max, char **ret_text, size_t *ret_size);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The only sendmsg() and recvmsg() with SCM_RIGHTS. Every call carries MSG_DONTWAIT, whatever the socket's flags. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/fd.h"

#define CMSG_FDS_MAX 253u /* SCM_MAX_FD of the kernel: one more is EINVAL */

/* What a message brought besides its bytes. Its descriptors are owned by whoever holds the structure. */
typedef struct CmsgInfo {
        size_t n_fds;
        bool truncated; /* MSG_CTRUNC: descriptors were lost to our own limit, or surplus to the room given */
        bool foreign;   /* a control message other than SCM_RIGHTS and SCM_CREDENTIALS */
        bool has_pid;
        pid_t pid; /* of the sender, by the kernel, where SO_PASSCRED is set */
} CmsgInfo;

/*
 * cmsg_send() - one message of @size bytes (at least one: a stream loses the descriptor of an empty message) with the
 * @n_fds descriptors in @fds, which stay the caller's. Returns the bytes taken, or a negative errno: -EAGAIN (no room),
 * -ETOOMANYREFS (too many descriptors in flight), -EPIPE.
 */
ssize_t cmsg_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds);

/* cmsg_write() - as cmsg_send() for the bytes of @n pieces, without descriptors. */
ssize_t cmsg_write(int socket, const struct iovec *pieces, size_t n);

/*
 * cmsg_receive() - one message: at most @size bytes into @data, at most @n_max (up to CMSG_FDS_MAX) CLOEXEC descriptors
 * into @fds. Returns the bytes, 0 at the end of the stream, or a negative errno; -ECONNRESET and -EPIPE are read over,
 * since queued messages follow them. @ret_info is written whenever the result is not negative; surplus descriptors are
 * closed and counted as truncation.
 */
ssize_t cmsg_receive(int socket, void *data, size_t size, int *fds, size_t n_max, CmsgInfo *ret_info);

/* cmsg_peek() - the same, but the message stays: the descriptors are duplicates of those still in it. */
ssize_t cmsg_peek(int socket, void *data, size_t size, int *fds, size_t n_max, CmsgInfo *ret_info);

/* cmsg_read() - as cmsg_receive() for a stream that must bring no descriptor: bytes only; what else comes is closed. */
ssize_t cmsg_read(int socket, void *data, size_t size);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Control messages. What the kernel does, and why this is written as it is:
 * - What has no room, be it for want of a control buffer, is closed by the kernel within recvmsg(), which waits for a socket
 *   that lingers (common/fd.c). So there is always room for all that can come, and what nobody wants is closed here.
 * - At the descriptor limit recvmsg() succeeds with MSG_CTRUNC and the descriptors that still fitted installed.
 * - After the death of a peer ECONNRESET (unread data at its end) comes before what it had queued: it is read over.
 * - O_NONBLOCK is shared with whoever made the socket; MSG_DONTWAIT is ours alone.
 */

#include "common/cmsg.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static ssize_t transmit(int socket, const struct msghdr *message) {
        ssize_t n;

        do
                n = sendmsg(socket, message, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

ssize_t cmsg_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int) * CMSG_FDS_MAX)];
        } control;
        struct iovec iov = { (void *) data, size };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

        assert(size > 0 && n_fds <= CMSG_FDS_MAX);
        if (n_fds > 0) {
                struct cmsghdr *cmsg;

                message.msg_control = control.bytes;
                message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                memset(control.bytes, 0, message.msg_controllen);
                cmsg = CMSG_FIRSTHDR(&message);
                cmsg->cmsg_level = SOL_SOCKET;
                cmsg->cmsg_type = SCM_RIGHTS;
                cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
        }
        return transmit(socket, &message);
}

ssize_t cmsg_write(int socket, const struct iovec *pieces, size_t n) {
        struct msghdr message = { .msg_iov = (struct iovec *) pieces, .msg_iovlen = n };

        return transmit(socket, &message);
}

/* cmsg_collect() - the descriptors of one SCM_RIGHTS: what fits goes to @fds, the rest is closed and told. */
static void cmsg_collect(struct cmsghdr *cmsg, int *fds, size_t n_max, CmsgInfo *info) {
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < n; i++) {
                int fd;

                memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
                if (info->n_fds < n_max) {
                        fds[info->n_fds++] = fd;
                } else {
                        fd_close(fd);
                        info->truncated = true;
                }
        }
}

#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04 /* linux/socket.h from 6.5 */
#endif

/* cmsg_close_foreign() - SCM_PIDFD, set upon us by whoever made the socket, installs a descriptor too. */
static void cmsg_close_foreign(struct cmsghdr *cmsg) {
        int fd;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_PIDFD || cmsg->cmsg_len < CMSG_LEN(sizeof(int)))
                return;
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
        fd_close(fd);
}

static ssize_t receive(int socket, struct msghdr *message, int flags) {
        ssize_t n;

        do
                n = recvmsg(socket, message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        while (n < 0 && (errno == EINTR || errno == ECONNRESET || errno == EPIPE));
        return n < 0 ? -errno : n;
}

static ssize_t receive_fds(int socket, void *data, size_t size, int *fds, size_t n_max, int flags,
                           CmsgInfo *ret_info) {
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int) * CMSG_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct iovec iov = { data, size };
        struct msghdr message = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        CmsgInfo info = { 0 };
        struct cmsghdr *cmsg;
        ssize_t n;

        assert(n_max <= CMSG_FDS_MAX);
        n = receive(socket, &message, flags);
        if (n < 0)
                return n;

        for (cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg)) {
                if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
                        cmsg_collect(cmsg, fds, n_max, &info);
                } else if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_CREDENTIALS) {
                        struct ucred credentials;

                        memcpy(&credentials, CMSG_DATA(cmsg), sizeof(credentials));
                        info.has_pid = true;
                        info.pid = credentials.pid;
                } else {
                        cmsg_close_foreign(cmsg);
                        info.foreign = true;
                }
        }
        info.truncated |= !!(message.msg_flags & MSG_CTRUNC);
        *ret_info = info;
        return n;
}

ssize_t cmsg_receive(int socket, void *data, size_t size, int *fds, size_t n_max, CmsgInfo *ret_info) {
        return receive_fds(socket, data, size, fds, n_max, 0, ret_info);
}

ssize_t cmsg_peek(int socket, void *data, size_t size, int *fds, size_t n_max, CmsgInfo *ret_info) {
        return receive_fds(socket, data, size, fds, n_max, MSG_PEEK, ret_info);
}

ssize_t cmsg_read(int socket, void *data, size_t size) {
        CmsgInfo info;

        return receive_fds(socket, data, size, NULL, 0, 0, &info);
}

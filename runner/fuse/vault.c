/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Vault: a queue can only be read at its beginning, so whatever is to stay goes round: a copy is sent to the end before the
 * original is taken from the front. A process that is killed in between leaves two of them, never none. A message without a
 * descriptor, the mark, says that the queue has gone round once.
 *
 * The pair is SOCK_SEQPACKET: a message is whole or not there. Each takes some 800 bytes of the send buffer, which is
 * therefore raised; the pages are only taken when there are messages.
 */

#include "runner/fuse/vault.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"

#define ROOM      (256 * 1024 * 1024)
#define MARKS     (UINT64_C(0xffffffff) << 32) /* no node's number; those of the dead are read over */
#define DEAD_MANY 16                           /* and a quarter of what lives: then a round is due */

int vault_open(Vault *ret_vault) {
        const int room = ROOM;
        int fds[2];
        int r = fd_socketpair(SOCK_SEQPACKET, fds);

        if (r < 0)
                return r;
        if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
                (void) setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)); /* as much as we are allowed */
        *ret_vault = (Vault){ .in = fds[0], .out = fds[1] };
        return 0;
}

int vault_check(int in, int out) {
        const int fds[] = { in, out };

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                int domain = 0, type = 0;
                socklen_t size = sizeof(int);

                if (getsockopt(fds[i], SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
                    getsockopt(fds[i], SOL_SOCKET, SO_TYPE, &type, &size) < 0 || domain != AF_UNIX ||
                    type != SOCK_SEQPACKET)
                        return -EINVAL;
        }
        return 0;
}

void vault_close(Vault *vault) {
        fd_close(vault->in);
        fd_close(vault->out);
        *vault = VAULT_NULL;
}

static int send_one(Vault *vault, uint64_t node, int fd) {
        ssize_t n = cmsg_send(vault->in, &node, sizeof(node), &fd, fd >= 0 ? 1 : 0);

        return n < 0 ? (int) n : 0;
}

int vault_put(Vault *vault, uint64_t node, int fd) {
        int r = send_one(vault, node, fd);

        if (r == 0)
                vault->n_live++;
        return r;
}

/* discard() - the first message, which has been copied or is not wanted. */
static void discard(Vault *vault) {
        _cleanup_fd_ int fd = -1;
        CmsgInfo info;
        uint64_t node;

        (void) cmsg_receive(vault->out, &node, sizeof(node), &fd, 1, &info);
}

/* send_mark() - one that no other process, and no round before, has sent. */
static int send_mark(Vault *vault, uint64_t *ret_mark) {
        *ret_mark = MARKS | (uint32_t) clock_now();
        return send_one(vault, *ret_mark, -1);
}

static void go_round(Vault *vault, int (*find)(uint64_t node, void *userdata), void *userdata) {
        uint64_t mark, node = 0;

        if (send_mark(vault, &mark) < 0)
                return; /* full: another time */
        vault->n_live = vault->n_dead = 0;
        while (node != mark) {
                CmsgInfo info;
                int fd = -1, live;

                if (cmsg_peek(vault->out, &node, sizeof(node), &fd, 1, &info) != sizeof(node))
                        return;
                fd_close(fd);
                live = node >= MARKS ? -1 : find(node, userdata);
                if (live >= 0 && send_one(vault, node, live) < 0)
                        return; /* it stays where it is */
                vault->n_live += live >= 0;
                discard(vault);
        }
}

void vault_drop(Vault *vault, int (*find)(uint64_t node, void *userdata), void *userdata) {
        if (vault->n_live > 0)
                vault->n_live--;
        vault->n_dead++;
        if (vault->n_live < DEAD_MANY || vault->n_dead > DEAD_MANY + vault->n_live / 4)
                go_round(vault, find, userdata);
}

int vault_load(Vault *vault, int (*take)(uint64_t node, int fd_consume, void *userdata), void *userdata) {
        uint64_t mark, node = 0;
        int r = send_mark(vault, &mark);

        vault->n_live = vault->n_dead = 0;
        while (r == 0 && node != mark) {
                _cleanup_fd_ int fd = -1;
                CmsgInfo info;
                ssize_t n = cmsg_peek(vault->out, &node, sizeof(node), &fd, 1, &info);

                if (n != sizeof(node))
                        return n < 0 ? (int) n : -EPROTO;
                if (node < MARKS && fd < 0)
                        return info.truncated ? -EMFILE : -EPROTO;
                if (node < MARKS)
                        r = send_one(vault, node, fd);
                if (r < 0)
                        return r;
                discard(vault);
                if (node < MARKS) {
                        vault->n_live++;
                        r = take(node, fd_take(&fd), userdata);
                }
        }
        return r;
}

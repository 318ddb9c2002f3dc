/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port: one supervisor as the keeper sees it. Nothing here waits and nothing is allocated: answers that find no room go
 * to a ring as large as the window that the supervisor must keep; exit reports are not queued at all but derived from the
 * table, so that none can be lost with a port.
 *
 * Only the keeper's end has SO_PASSCRED, so every message comes with its sender's pid from the kernel: a child that says
 * BORN cannot be mistaken for another. A message is read into one byte more than it needs, since a longer one would be
 * cut silently and look right. POLLOUT comes late on unix sockets, so the keeper also flushes after each receive.
 */

#include "supervisor/keeper/port.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int port_open(Port *port, int *ret_peer) {
        int fds[2], on = 1, r;

        r = fd_socketpair(SOCK_SEQPACKET, fds);
        if (r < 0)
                return r;
        if (setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
                r = -errno;
                fd_close_all(fds, 2);
                return r;
        }
        *port = (Port){ .fd = fds[0] };
        *ret_peer = fds[1];
        return 0;
}

void port_close(Port *port) {
        fd_close(port->fd);
        *port = PORT_NULL;
}

/* message_error() - what is wrong with it by its form alone. */
static int message_error(const PortMessage *message, const CmsgInfo *info) {
        if (!message->whole || message->m.version != KEEPER_VERSION)
                return -EINVAL;
        if (info->foreign || (info->truncated && info->n_fds > 0))
                return -EINVAL;
        return info->truncated ? -EMFILE : 0;
}

int port_receive(Port *port, PortMessage *ret_message) {
        struct {
                KeeperMessage m;
                char surplus;
        } buffer;
        CmsgInfo info;
        int fd = -1;
        ssize_t n;

        if (port->fd < 0)
                return PORT_EMPTY;
        n = cmsg_receive(port->fd, &buffer, sizeof(buffer.m) + 1, &fd, 1, &info);
        if (n < 0)
                return PORT_EMPTY;
        if (n == 0 && info.n_fds == 0)
                return PORT_CLOSED;
        *ret_message = (PortMessage){
                .fd = info.n_fds > 0 ? fd : -1,
                .pid = info.has_pid ? info.pid : 0,
                .whole = n == sizeof(buffer.m),
        };
        if (ret_message->whole)
                ret_message->m = buffer.m;
        ret_message->error = message_error(ret_message, &info);
        return 0;
}

/* send_message() - false: no room for now. With nobody at the other end the message is as good as sent. */
static bool send_message(Port *port, const KeeperMessage *m) {
        ssize_t n = cmsg_send(port->fd, m, sizeof(*m), NULL, 0);

        return n != -EAGAIN && n != -ENOBUFS && n != -ENOMEM;
}

static bool send_done(Port *port, uint32_t serial, int result) {
        KeeperMessage m = { .version = KEEPER_VERSION, .type = KEEPER_DONE, .serial = serial, .result = result };

        return send_message(port, &m);
}

static bool send_exit(Port *port, const TableSlot *slot) {
        KeeperMessage m = {
                .version = KEEPER_VERSION,
                .type = KEEPER_EXIT,
                .instance = slot->instance,
                .pid = slot->pid,
                .wait_code = slot->wait_code,
                .wait_status = slot->wait_status,
        };

        memcpy(m.name, slot->name, sizeof(m.name));
        return send_message(port, &m);
}

int port_answer(Port *port, uint32_t serial, int result) {
        size_t last;

        if (port->n_answers == 0 && send_done(port, serial, result))
                return 0;
        if (port->n_answers == KEEPER_WINDOW)
                return -ENOBUFS;
        last = (port->first_answer + port->n_answers++) % KEEPER_WINDOW;
        port->answers[last].serial = serial;
        port->answers[last].result = result;
        return 0;
}

bool port_flush(Port *port, Table *table) {
        TableSlot *slot;

        if (port->fd < 0)
                return false;
        while (port->n_answers > 0) {
                size_t first = port->first_answer;

                if (!send_done(port, port->answers[first].serial, port->answers[first].result))
                        return true;
                port->first_answer = (first + 1) % KEEPER_WINDOW;
                port->n_answers--;
        }
        while ((slot = table_next_exit(table))) {
                if (!send_exit(port, slot))
                        return true;
                table_reported(table, slot);
        }
        return false;
}

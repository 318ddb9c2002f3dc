/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Port: one supervisor as the keeper sees it. Nothing here waits and nothing is allocated: answers go to a ring as large as
 * the window that the supervisor must keep, where a success is replaced by what follows it; exit reports are not queued at
 * all but derived from the table, so that none can be lost with a port. How the table itself is told is in dump.c.
 *
 * Only the keeper's end has SO_PASSCRED, so every message comes with its sender's pid from the kernel: a child that says
 * BORN cannot be mistaken for another. A message is read into one byte more than it needs, since a longer one would be
 * cut silently and look right. POLLOUT comes late on unix sockets, so the keeper also flushes after each receive.
 */

#include "supervisor/keeper/port.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "supervisor/keeper/dump.h"

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
        *port = (Port){ .fd = fds[0], .version = KEEPER_VERSION };
        *ret_peer = fds[1];
        return 0;
}

void port_close(Port *port) {
        fd_close(port->fd);
        *port = PORT_NULL;
}

/* message_error() - what is wrong with it by its form alone. */
static int message_error(const PortMessage *message, unsigned version, const CmsgInfo *info) {
        if (!message->whole || message->m.version != version)
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
        int fds[KEEPER_FDS_MAX];
        CmsgInfo info;
        ssize_t n;

        if (port->fd < 0)
                return PORT_EMPTY;
        n = cmsg_receive(port->fd, &buffer, sizeof(buffer.m) + 1, fds, KEEPER_FDS_MAX, &info);
        if (n < 0)
                return PORT_EMPTY;
        if (n == 0 && info.n_fds == 0)
                return PORT_CLOSED;
        *ret_message = (PortMessage){
                .n_fds = (unsigned) info.n_fds,
                .pid = info.has_pid ? info.pid : 0,
                .whole = n == sizeof(buffer.m),
        };
        for (size_t i = 0; i < KEEPER_FDS_MAX; i++)
                ret_message->fds[i] = i < info.n_fds ? fds[i] : -1;
        if (ret_message->whole)
                ret_message->m = buffer.m;
        ret_message->error = message_error(ret_message, port->version, &info);
        return 0;
}

void port_release(PortMessage *message) {
        fd_close_all(message->fds, KEEPER_FDS_MAX);
}

void port_end(Port *port) {
        (void) shutdown(port->fd, SHUT_RD);
}

PortFlushed port_send(Port *port, KeeperMessage *messages, size_t n, const int *fds, size_t n_fds) {
        ssize_t sent;

        for (size_t i = 0; i < n; i++)
                messages[i].version = port->version;
        sent = cmsg_send(port->fd, messages, n * sizeof(*messages), fds, n_fds);
        if (sent == -EMSGSIZE && n > 1) { /* net.core.wmem_default is far below the usual */
                port->packs = false;
                return PORT_RETRY;
        }
        if (sent == -EAGAIN)
                return PORT_FULL;
        return sent == -ENOBUFS || sent == -ENOMEM || sent == -ETOOMANYREFS ? PORT_RETRY : PORT_SENT;
}

static PortFlushed send_message(Port *port, KeeperMessage *m) {
        return port_send(port, m, 1, NULL, 0);
}

static PortFlushed send_done(Port *port, uint32_t serial, int result) {
        KeeperMessage m = { .type = KEEPER_DONE, .serial = serial, .result = result };

        return send_message(port, &m);
}

static PortFlushed send_exit(Port *port, const TableSlot *slot) {
        KeeperMessage m = {
                .type = KEEPER_EXIT,
                .instance = slot->instance,
                .pid = slot->pid,
                .wait_code = slot->wait_code,
                .wait_status = slot->wait_status,
        };

        memcpy(m.name, slot->name, sizeof(m.name));
        return send_message(port, &m);
}

static PortFlushed flush_answers(Port *port) {
        while (port->n_answers > 0) {
                size_t first = port->first_answer;
                PortFlushed r = send_done(port, port->answers[first].serial, port->answers[first].result);

                if (r != PORT_SENT)
                        return r;
                port->first_answer = (first + 1) % KEEPER_WINDOW;
                port->n_answers--;
        }
        return PORT_SENT;
}

static PortFlushed flush_words(Port *port) {
        static const struct {
                unsigned say;
                KeeperType type;
        } words[] = {
                { PORT_SAY_RELOAD, KEEPER_RELOAD }, { PORT_SAY_PING, KEEPER_PING },
                { PORT_SAY_GO, KEEPER_GO },         { PORT_SAY_LEAVE, KEEPER_LEAVE },
                { PORT_SAY_THAW, KEEPER_THAW },     { PORT_SAY_REPLACED, KEEPER_REPLACED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
                KeeperMessage m = { .type = (uint16_t) words[i].type };
                PortFlushed r = PORT_SENT;

                if (words[i].say & (PORT_SAY_THAW | PORT_SAY_REPLACED)) {
                        memcpy(m.record, port->text, sizeof(m.record));
                        m.result = port->result;
                }
                if (port->say & words[i].say)
                        r = send_message(port, &m);
                if (r != PORT_SENT)
                        return r;
                port->say &= ~words[i].say;
        }
        return PORT_SENT;
}

static PortFlushed flush_exits(Port *port, Table *table) {
        TableSlot *slot;

        while ((slot = table_next_exit(table))) {
                PortFlushed r = send_exit(port, slot);

                if (r != PORT_SENT)
                        return r;
                table_reported(table, slot);
        }
        return PORT_SENT;
}

int port_answer(Port *port, uint32_t serial, int result) {
        size_t last = (port->first_answer + port->n_answers + KEEPER_WINDOW - 1) % KEEPER_WINDOW;
        bool merges = port->n_answers > 0 && port->answers[last].result == 0;

        if (!merges && port->n_answers == KEEPER_WINDOW)
                return -ENOBUFS;
        if (!merges)
                last = (port->first_answer + port->n_answers++) % KEEPER_WINDOW;
        port->answers[last].serial = serial;
        port->answers[last].result = result;
        return 0;
}

PortFlushed port_flush(Port *port, Table *table) {
        PortFlushed r;

        if (port->fd < 0)
                return PORT_SENT;
        r = flush_answers(port);
        if (r == PORT_SENT)
                r = flush_words(port);
        if (r == PORT_SENT)
                r = dump_flush(port, table);
        return r == PORT_SENT && !port->waits ? flush_exits(port, table) : r;
}

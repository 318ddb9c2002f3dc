#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper's end of the socket to one supervisor: messages in, answers and exit reports out. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cmsg.h"
#include "common/keeper-message.h"
#include "supervisor/keeper/table.h"

typedef struct Port Port;
typedef struct PortMessage PortMessage;

/* How far the table has been told: by two cursors, or, to a successor, by what changes in it (table_watch()). */
typedef enum PortDump {
        PORT_DUMP_SLOTS,
        PORT_DUMP_FDS,
        PORT_DUMP_DEATHS,
        PORT_DUMP_END,
        PORT_DUMP_DONE,
        PORT_DUMP_CHANGES,
} PortDump;

/* Messages without content, each waiting at most once. */
enum {
        PORT_SAY_RELOAD = 1 << 0,
        PORT_SAY_PING = 1 << 1,
        PORT_SAY_GO = 1 << 2,
        PORT_SAY_LEAVE = 1 << 3,
        PORT_SAY_THAW = 1 << 4,     /* with Port.text */
        PORT_SAY_REPLACED = 1 << 5, /* with Port.text and Port.result; never while a takeover is under way */
};

struct Port {
        int fd;
        unsigned say;     /* PORT_SAY_*, wanted and not sent */
        uint16_t version; /* of the messages, both ways: what the other side was started with */
        char text[KEEPER_RECORD_SIZE];
        int32_t result;
        bool waits; /* a successor's: nothing is reported to it yet */
        bool packs; /* it takes several messages as one */
        PortDump dump;
        bool owes_end;          /* CHANGES: some were told since the last END */
        bool is_final;          /* CHANGES: nobody makes any more; its END says so */
        size_t cursor;          /* of the dump */
        size_t n_slots, n_told; /* sent by it */
        size_t n_answers, first_answer;
        struct {
                uint32_t serial;
                int32_t result;
        } answers[KEEPER_WINDOW]; /* DONEs to be sent */
};
#define PORT_NULL ((Port){ .fd = -1 })

/* One message as it came. Its descriptors belong to whoever holds the structure. */
struct PortMessage {
        KeeperMessage m;
        int fds[KEEPER_FDS_MAX]; /* -1: none, or taken */
        unsigned n_fds;          /* that came */
        int error;               /* 0; -EINVAL: malformed; -EMFILE: a descriptor was lost to our own limit */
        pid_t pid;               /* of the sender, by the kernel; 0: not told */
        bool whole;              /* m has its full size, so that at least its serial can be believed */
};

/* What port_flush() can say. */
typedef enum PortFlushed {
        PORT_SENT,  /* nothing is left */
        PORT_FULL,  /* the socket has no room: POLLOUT */
        PORT_RETRY, /* the kernel has no room for descriptors in flight, or no memory: some time later */
} PortFlushed;

/* What port_receive() can say besides 0 and errors. */
enum {
        PORT_EMPTY = 1, /* nothing more for now */
        PORT_CLOSED,    /* the end: nobody holds the other side */
};

/* port_open() - a new pair; the other end, for the supervisor, in @ret_peer. Returns 0 or a negative errno. */
int port_open(Port *port, int *ret_peer);

/* port_end() - what the other side sends from now on is refused (EPIPE), what it has sent is still read, up to PORT_CLOSED. */
void port_end(Port *port);

/* port_close() - also forgets unsent answers. Accepts one that is closed. */
void port_close(Port *port);

/* port_receive() - one message, malformed ones included (see error). 0, PORT_EMPTY, or PORT_CLOSED. */
int port_receive(Port *port, PortMessage *ret_message);

/* port_release() - closes what nobody took of the descriptors that came with @message. */
void port_release(PortMessage *message);

/* port_send() - @n messages as one, with the descriptors of all of them. With nobody at the other end it is as good as sent. */
PortFlushed port_send(Port *port, KeeperMessage *messages, size_t n, const int *fds, size_t n_fds);

/*
 * port_answer() - DONE, with the next flush: successes in a row become one. -ENOBUFS: more than KEEPER_WINDOW are waiting.
 */
int port_answer(Port *port, uint32_t serial, int result);

/* port_flush() - sends what waits: answers, what is to be said, the table, then the exits in it that were not reported. */
PortFlushed port_flush(Port *port, Table *table);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * HTTP load: a few clients in closed loops against one server, and what became of each request: so many on a connection of
 * its own each, so many on one that is kept. One thread, one epoll set, no dependency: the same for every server that is
 * measured. It runs for a time, or until SIGTERM, and prints one JSON object:
 *
 *     http-load PORT SECONDS NEW KEPT [PAUSE_US]
 *
 * `refused': connect() was; `reset': the server ended a connection that a request had been sent on, before its answer was
 * whole. A kept connection that the server ends after an answer, having said so (Connection: close) or before anything new
 * was sent, is `closed': that is its right. `gap_us' is the longest time in which no answer came to anybody, `slowest_us'
 * the longest one answer took, the connect() before it included.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/macro.h"

enum { ANSWER_MAX = 65536, CLIENTS_MAX = 512 };

typedef struct Count {
        unsigned long done, refused, reset, closed, failed, slowest_us;
} Count;

typedef struct Client {
        int fd;   /* -1: none */
        int kept; /* its connection is, after an answer */
        uint64_t begun_us;
        size_t n;
        char answer[ANSWER_MAX + 1];
} Client;

typedef struct Load {
        int epoll;
        struct sockaddr_in address;
        Count count[2]; /* by Client.kept */
        uint64_t last_us, gap_us, pause_us, end_us;
        Client *clients;
        size_t n_clients;
} Load;

static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char last_request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

static void drop(Load *load, Client *client) {
        if (client->fd >= 0)
                (void) epoll_ctl(load->epoll, EPOLL_CTL_DEL, client->fd, NULL);
        client->fd = fd_close(client->fd);
        client->n = 0;
}

/* failed() - by @error, of a connect() or of what came after it. */
static void failed(Load *load, Client *client, int error, int connecting) {
        Count *count = &load->count[client->kept];

        if (connecting && error == ECONNREFUSED)
                count->refused++;
        else if (error == ECONNRESET || error == EPIPE || error == 0)
                count->reset++;
        else
                count->failed++;
        drop(load, client);
}

/* ask() - on a connection that there is. False: it is gone. */
static int ask(Load *load, Client *client) {
        const char *text = client->kept ? request : last_request;
        size_t size = strlen(text);

        client->n = 0;
        if (send(client->fd, text, size, MSG_NOSIGNAL) == (ssize_t) size)
                return 1;
        /* An answer may be there that says why; nothing was asked, so nothing is lost. */
        load->count[client->kept].closed++;
        drop(load, client);
        return 0;
}

static void begin(Load *load, Client *client) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };

        client->begun_us = clock_now();
        if (client->fd >= 0 && ask(load, client))
                return;
        client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (client->fd < 0 || connect(client->fd, (struct sockaddr *) &load->address, sizeof(load->address)) < 0) {
                failed(load, client, errno, 1);
                return;
        }
        (void) setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
        (void) epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->fd, &event);
        (void) ask(load, client);
}

/* is_whole() - 1: the answer is, and the connection stays; 2: it is, and the server ends it; 0: not yet. */
static int is_whole(const Client *client) {
        const char *head = client->answer, *end = strstr(head, "\r\n\r\n"),
                   *length = strcasestr(head, "\r\nContent-Length:");
        const char *closing = strcasestr(head, "\r\nConnection: close");

        if (!end || !length || length > end || client->n < (size_t) (end + 4 - head) + strtoul(length + 17, NULL, 10))
                return 0;
        return closing && closing < end ? 2 : 1;
}

static void done(Load *load, Client *client, int how) {
        Count *count = &load->count[client->kept];
        uint64_t now = clock_now();

        count->done++;
        count->slowest_us = MAX(count->slowest_us, now - client->begun_us);
        load->gap_us = MAX(load->gap_us, now - load->last_us);
        load->last_us = now;
        client->n = 0;
        if (!client->kept || how == 2) {
                count->closed += client->kept;
                drop(load, client);
        }
}

static void ready(Load *load, Client *client) {
        ssize_t n = recv(client->fd, client->answer + client->n, ANSWER_MAX - client->n, MSG_DONTWAIT);
        int how;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0 && client->begun_us == 0) { /* nothing was asked */
                load->count[client->kept].closed++;
                drop(load, client);
                return;
        }
        if (n <= 0) {
                failed(load, client, n < 0 ? errno : 0, 0);
                client->begun_us = 0;
                return;
        }
        client->n += (size_t) n;
        client->answer[client->n] = '\0';
        how = is_whole(client);
        if (how == 0)
                return;
        done(load, client, how);
        client->begun_us = 0;
}

static void print(const Load *load) {
        static const char *const names[] = { "new", "kept" };

        (void) printf("{\"gap_us\": %lu", (unsigned long) load->gap_us);
        for (int i = 0; i < 2; i++) {
                const Count *c = &load->count[i];

                (void) printf(", \"%s\": {\"done\": %lu, \"refused\": %lu, \"reset\": %lu, \"closed\": %lu, "
                              "\"failed\": %lu, "
                              "\"slowest_us\": %lu}",
                              names[i], c->done, c->refused, c->reset, c->closed, c->failed, c->slowest_us);
        }
        (void) printf("}\n");
}

/* run() - every client that waits for nothing asks again, after the pause. */
static void run(Load *load, int stop) {
        struct epoll_event events[64], event = { .events = EPOLLIN, .data.ptr = NULL };

        (void) epoll_ctl(load->epoll, EPOLL_CTL_ADD, stop, &event);
        load->last_us = clock_now();
        while (clock_now() < load->end_us) {
                int n;

                for (size_t i = 0; i < load->n_clients; i++)
                        if (load->clients[i].begun_us == 0 || load->clients[i].fd < 0)
                                begin(load, &load->clients[i]);
                n = epoll_wait(load->epoll, events, 64, 10);
                for (int i = 0; i < n; i++) {
                        if (!events[i].data.ptr)
                                return;
                        ready(load, events[i].data.ptr);
                }
                if (load->pause_us > 0)
                        (void) usleep((useconds_t) load->pause_us);
        }
}

int main(int argc, char **argv) {
        Load load = { .address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
        sigset_t stops;
        size_t n_new;

        if (argc < 5) {
                (void) fprintf(stderr, "usage: http-load PORT SECONDS NEW KEPT [PAUSE_US]\n");
                return 2;
        }
        load.address.sin_port = htons((uint16_t) atoi(argv[1]));
        load.end_us = clock_now() + (uint64_t) (atof(argv[2]) * USEC_PER_SEC);
        n_new = MIN(strtoul(argv[3], NULL, 10), (unsigned long) CLIENTS_MAX);
        load.n_clients = n_new + MIN(strtoul(argv[4], NULL, 10), (unsigned long) CLIENTS_MAX);
        load.pause_us = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
        load.clients = calloc(load.n_clients + 1, sizeof(*load.clients));
        load.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (!load.clients || load.epoll < 0)
                return 1;
        for (size_t i = 0; i < load.n_clients; i++)
                load.clients[i] = (Client){ .fd = -1, .kept = i >= n_new };
        (void) sigemptyset(&stops);
        (void) sigaddset(&stops, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &stops, NULL);
        run(&load, signalfd(-1, &stops, SFD_CLOEXEC));
        print(&load);
        for (size_t i = 0; i < load.n_clients; i++)
                fd_close(load.clients[i].fd);
        free(load.clients);
        return 0;
}

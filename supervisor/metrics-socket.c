/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Metrics over HTTP: just enough of 1.1 for whoever scrapes. A head is read to its blank line, one answer is written, the
 * connection is closed. Whatever comes is only looked at in its first line; a head that is too long, too slow, or asks for
 * something else, has its status. A client that does not read its answer waits alone. After the answer what still comes is
 * read and thrown away for a while: a close() with bytes unread would take the answer back.
 */

#include "supervisor/metrics.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/supervisor.h"

#define CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

typedef struct Client Client;

struct Client {
        LIST_ENTRY(Client) link;
        Metrics *metrics;
        int fd;
        LoopIo io;
        LoopTimer timer;
        size_t n_request;
        char *answer; /* NULL: the request is being read */
        bool answered;
        size_t size, sent;
        char request[METRICS_REQUEST_MAX];
};

struct Metrics {
        Supervisor *supervisor;
        int fd;
        LoopIo io;
        LIST_HEAD(, Client) clients;
        unsigned n_clients;
        bool is_path;
        char address[];
};

/* ----------------------------------------------------------------------------------------------------------- the clients */

static void listen_on(Metrics *metrics) {
        loop_io_set(metrics->supervisor->loop, &metrics->io, metrics->fd,
                    metrics->n_clients < METRICS_CLIENTS_MAX ? LOOP_IN : 0);
}

static void client_free(Client *client) {
        Metrics *metrics = client->metrics;

        loop_io_stop(&client->io);
        loop_timer_stop(&client->timer);
        fd_close(client->fd);
        LIST_REMOVE(client, link);
        metrics->n_clients--;
        free(client->answer);
        free(client);
        listen_on(metrics);
}

/* answer_with() - @body is text; NULL with @status: its words. False: no memory. */
static bool answer_with(Client *client, const char *status, const char *type, const char *body) {
        int n = asprintf(&client->answer,
                         "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                         status, type, strlen(body), body);

        if (n < 0) {
                client->answer = NULL;
                return false;
        }
        client->size = (size_t) n;
        return true;
}

static bool refuse(Client *client, const char *status) {
        char body[64];

        (void) snprintf(body, sizeof(body), "%s\n", status);
        return answer_with(client, status, "text/plain; charset=utf-8", body);
}

/* make_answer() - to the request, which is whole. */
static bool make_answer(Client *client) {
        _cleanup_free_ char *text = NULL;
        const char *rest = client->request + strlen("GET ");
        size_t path = strcspn(rest, " ?\r\n");

        if (strncmp(client->request, "GET ", strlen("GET ")) != 0)
                return refuse(client, "405 Method Not Allowed");
        if (path != strlen("/metrics") || strncmp(rest, "/metrics", path) != 0)
                return refuse(client, "404 Not Found");
        text = metrics_text(client->metrics->supervisor);
        return text && answer_with(client, "200 OK", CONTENT_TYPE, text);
}

/* read_request() - 1: it is whole, or too long; 0: more is to come; -1: the client is gone. */
static int read_request(Client *client) {
        ssize_t n = cmsg_read(client->fd, client->request + client->n_request,
                              sizeof(client->request) - 1 - client->n_request);

        if (n == -EAGAIN)
                return 0;
        if (n <= 0)
                return -1;
        client->n_request += (size_t) n;
        client->request[client->n_request] = '\0';
        return strstr(client->request, "\r\n\r\n") || strstr(client->request, "\n\n") ||
               client->n_request == sizeof(client->request) - 1;
}

/* drain() - true: the client has nothing more to say. */
static bool drain(Client *client) {
        ssize_t n = cmsg_read(client->fd, client->request, sizeof(client->request));

        return n <= 0 && n != -EAGAIN;
}

/* write_answer() - true: all of it is with the kernel, or nobody wants it. */
static bool write_answer(Client *client) {
        while (client->sent < client->size) {
                ssize_t n = send(client->fd, client->answer + client->sent, client->size - client->sent,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno != EAGAIN;
                client->sent += (size_t) n;
        }
        (void) shutdown(client->fd, SHUT_WR);
        return true;
}

static void client_ready(LoopIo *io, unsigned events) {
        Client *client = CONTAINER_OF(io, Client, io);
        Loop *loop = client->metrics->supervisor->loop;
        int r;

        (void) events;
        if (client->answered) {
                if (drain(client))
                        client_free(client);
                return;
        }
        if (!client->answer) {
                r = read_request(client);
                if (r == 0)
                        return;
                if (r > 0 && client->n_request == sizeof(client->request) - 1)
                        r = refuse(client, "431 Request Header Fields Too Large") ? 1 : -1;
                else if (r > 0)
                        r = make_answer(client) ? 1 : -1;
                if (r < 0) {
                        client_free(client);
                        return;
                }
                loop_io_set(loop, &client->io, client->fd, LOOP_OUT);
        }
        if (!write_answer(client))
                return;
        client->answered = true;
        loop_io_set(loop, &client->io, client->fd, LOOP_IN);
        loop_timer_set(loop, &client->timer, clock_after(clock_now(), METRICS_LINGER_US));
}

static void client_late(LoopTimer *timer) {
        client_free(CONTAINER_OF(timer, Client, timer));
}

static void accept_one(LoopIo *io, unsigned events) {
        Metrics *metrics = CONTAINER_OF(io, Metrics, io);
        Loop *loop = metrics->supervisor->loop;
        int fd = accept4(metrics->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        Client *client = fd < 0 ? NULL : calloc(1, sizeof(*client));

        (void) events;
        if (!client) {
                fd_close(fd);
                return;
        }
        *client = (Client){
                .metrics = metrics,
                .fd = fd,
                .io = LOOP_IO_NULL(client_ready),
                .timer = LOOP_TIMER_NULL(client_late),
        };
        LIST_INSERT_HEAD(&metrics->clients, client, link);
        metrics->n_clients++;
        loop_io_set(loop, &client->io, fd, LOOP_IN);
        loop_timer_set(loop, &client->timer, clock_after(clock_now(), METRICS_TIMEOUT_US));
        listen_on(metrics);
}

/* ---------------------------------------------------------------------------------------------------------- the listener */

/* bind_path() - a socket that is left from one before is replaced; one that answers is in use. */
static int bind_path(int fd, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        (void) strcpy(address.sun_path, path);
        if (bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
                return 0;
        if (errno != EADDRINUSE || connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
                return -EADDRINUSE;
        if (errno != ECONNREFUSED || unlink(path) < 0)
                return -errno;
        return bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
}

static int open_path(const char *path, int *ret_fd) {
        _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r = fd < 0 ? -errno : bind_path(fd, path);

        if (r < 0)
                return r;
        *ret_fd = fd_take(&fd);
        return 0;
}

/* open_address() - "127.0.0.1:9100", "[::1]:9100"; the configuration has been checked. */
static int open_address(const char *text, int *ret_fd) {
        const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                        .ai_socktype = SOCK_STREAM };
        _cleanup_free_ char *host = strdup(*text == '[' ? text + 1 : text);
        _cleanup_fd_ int fd = -1;
        char *colon = host ? strrchr(host, ':') : NULL;
        struct addrinfo *info = NULL;
        int r = 0;

        if (!colon)
                return host ? -EINVAL : -ENOMEM;
        *colon = '\0';
        if (*text == '[' && colon > host && colon[-1] == ']')
                colon[-1] = '\0';
        if (getaddrinfo(host, colon + 1, &hints, &info) != 0)
                return -EINVAL;
        fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
            bind(fd, info->ai_addr, info->ai_addrlen) < 0)
                r = -errno;
        freeaddrinfo(info);
        if (r == 0)
                *ret_fd = fd_take(&fd);
        return r;
}

static Metrics *make(Supervisor *supervisor, const char *address) {
        Metrics *metrics = calloc(1, sizeof(*metrics) + strlen(address) + 1);

        if (!metrics)
                return NULL;
        *metrics = (Metrics){ .supervisor = supervisor, .fd = -1, .io = LOOP_IO_NULL(accept_one) };
        (void) strcpy(metrics->address, address);
        LIST_INIT(&metrics->clients);
        return metrics;
}

int metrics_new(Metrics **ret_metrics, Supervisor *supervisor, const char *address) {
        Metrics *metrics = make(supervisor, address);
        int r = metrics ? 0 : -ENOMEM;

        if (r == 0) {
                r = *address == '/' ? open_path(address, &metrics->fd) : open_address(address, &metrics->fd);
                metrics->is_path = r == 0 && *address == '/';
        }
        if (r == 0 &&
            listen(metrics->fd, SOMAXCONN) < 0) /* a client that must wait is not refused: unix gives EAGAIN */
                r = -errno;
        if (r < 0) {
                log_error("metrics cannot be had at %s: %s", address, strerror(-r));
                metrics_free(metrics);
                return r;
        }
        listen_on(metrics);
        *ret_metrics = metrics;
        return 0;
}

int metrics_adopt(Metrics **ret_metrics, Supervisor *supervisor, const char *address, int listener_fd_consume) {
        Metrics *metrics = make(supervisor, address);

        if (!metrics) {
                fd_close(listener_fd_consume);
                return -ENOMEM;
        }
        metrics->fd = listener_fd_consume;
        metrics->is_path = *address == '/';
        listen_on(metrics);
        *ret_metrics = metrics;
        return 0;
}

int metrics_listener(const Metrics *metrics) {
        return metrics->fd;
}

Metrics *metrics_free(Metrics *metrics) {
        Client *client;

        if (!metrics)
                return NULL;
        while ((client = LIST_FIRST(&metrics->clients)))
                client_free(client);
        loop_io_stop(&metrics->io);
        fd_close(metrics->fd);
        if (metrics->is_path)
                (void) unlink(metrics->address);
        free(metrics);
        return NULL;
}

const char *metrics_address(const Metrics *metrics) {
        return metrics->address;
}

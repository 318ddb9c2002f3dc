/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A small HTTP/1.1 server that is upgraded without dropping a connection, kept ones with half a request included:
 *
 *     runners:
 *       http: { command: [./http, "8080"], ready: hello }
 *
 *     baton upgrade http
 *
 * Its state is what it has open: the listening socket, and each connection with the bytes that were read and not answered
 * yet, and those answered and not written yet. save() gives all of it to the next instance; from stop() on nothing is
 * read, written or accepted, so that the bytes that come meanwhile wait in the kernel for whoever is started next: the
 * successor, or, if that fails, this process again.
 *
 * A socket in LISTEN_FDS (`sockets' of the configuration) is used where there is one, else 127.0.0.1:PORT is bound.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <baton/runner.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_MAX = 8192, ANSWER_MAX = 512, CONNECTIONS_MAX = 10000 };

struct connection {
        struct connection *next, *previous;
        int fd;
        uint32_t n_requests, n_in, n_out;
        uint32_t closing; /* when n_out is written */
        char in[REQUEST_MAX + 1], out[ANSWER_MAX];
};

struct server {
        struct baton_runner *runner;
        int epoll, listener, port;
        int serving; /* between start() and stop() */
        size_t n_connections;
        struct connection connections; /* head of the list */
};

/* What is saved of a connection; its bytes follow, and its descriptor is "connection/N". */
struct saved {
        uint32_t n_requests, n_in, n_out, closing;
};

/* ---- connections ---- */

static struct connection *connection_new(struct server *server, int fd) {
        struct connection *connection = calloc(1, sizeof(*connection));

        if (!connection)
                return NULL;
        connection->fd = fd;
        connection->next = server->connections.next;
        connection->previous = &server->connections;
        connection->next->previous = connection->previous->next = connection;
        server->n_connections++;
        return connection;
}

static void connection_free(struct server *server, struct connection *connection) {
        connection->next->previous = connection->previous;
        connection->previous->next = connection->next;
        server->n_connections--;
        (void) epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
        (void) close(connection->fd);
        free(connection);
}

static void watch(struct server *server, int fd, void *whose, uint32_t events) {
        struct epoll_event event = { .events = events, .data.ptr = whose };

        if (epoll_ctl(server->epoll, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
                (void) epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void answer(struct server *server, struct connection *connection, const char *status, int with_body) {
        char body[128];
        int n = snprintf(body, sizeof(body), "instance %llu, pid %d, request %u of this connection\n",
                         (unsigned long long) baton_runner_instance(server->runner), (int) getpid(),
                         connection->n_requests);

        n = snprintf(connection->out, sizeof(connection->out),
                     "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n%s", status, n,
                     connection->closing ? "Connection: close\r\n" : "", with_body ? body : "");
        connection->n_out = (uint32_t) n;
}

/* answer_next() - the first request of what was read, if it is whole: 1; 0: it is not. */
static int answer_next(struct server *server, struct connection *connection) {
        char *end = strstr(connection->in, "\r\n\r\n");
        int is_head, is_get;
        size_t size;

        if (!end && connection->n_in < REQUEST_MAX)
                return 0;
        connection->n_requests++;
        if (!end) {
                connection->closing = 1;
                answer(server, connection, "431 Request Header Fields Too Large", 1);
                return 1;
        }
        size = (size_t) (end - connection->in) + 4;
        end[2] = '\0';
        is_head = strncmp(connection->in, "HEAD ", 5) == 0;
        is_get = strncmp(connection->in, "GET ", 4) == 0;
        connection->closing = (!is_get && !is_head) || strcasestr(connection->in, "\r\nConnection: close\r\n") ||
                              !strstr(connection->in, " HTTP/1.1\r\n");
        answer(server, connection, is_get || is_head ? "200 OK" : "405 Method Not Allowed", !is_head);
        memmove(connection->in, connection->in + size, connection->n_in - size + 1);
        connection->n_in -= (uint32_t) size;
        return 1;
}

/* write_out() - 1: all is written; 0: not yet; -1: the connection is gone. */
static int write_out(struct connection *connection) {
        while (connection->n_out > 0) {
                ssize_t n = send(connection->fd, connection->out, connection->n_out, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? 0 : -1;
                memmove(connection->out, connection->out + n, connection->n_out - (size_t) n);
                connection->n_out -= (uint32_t) n;
        }
        return connection->closing ? -1 : 1;
}

/* serve() - reads only when everything before is answered and written: a client that does not read waits alone. */
static void serve(struct server *server, struct connection *connection) {
        for (;;) {
                int r = write_out(connection);
                ssize_t n;

                if (r < 0) {
                        connection_free(server, connection);
                        return;
                }
                if (r == 0) {
                        watch(server, connection->fd, connection, EPOLLOUT);
                        return;
                }
                if (answer_next(server, connection))
                        continue;
                n = recv(connection->fd, connection->in + connection->n_in, REQUEST_MAX - connection->n_in,
                         MSG_DONTWAIT);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        watch(server, connection->fd, connection, EPOLLIN);
                        return;
                }
                if (n <= 0) {
                        connection_free(server, connection);
                        return;
                }
                connection->n_in += (uint32_t) n;
                connection->in[connection->n_in] = '\0';
        }
}

static void accept_all(struct server *server) {
        int fd;

        while (server->n_connections < CONNECTIONS_MAX &&
               (fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
                struct connection *connection = connection_new(server, fd);

                (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
                if (connection)
                        serve(server, connection);
                else
                        (void) close(fd);
        }
}

/* ---- the service ---- */

static int listen_fd(void) {
        const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

        return pid && n && atoi(pid) == getpid() && atoi(n) >= 1 ? 3 : -1;
}

static int mount_http(struct baton_event *event, void *userdata) {
        struct server *server = userdata;
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int r;

        server->listener = listen_fd();
        if (server->listener >= 0)
                return 0;
        address.sin_port = htons((uint16_t) server->port);
        server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (server->listener >= 0 &&
            setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) == 0 &&
            bind(server->listener, (struct sockaddr *) &address, sizeof(address)) == 0 &&
            listen(server->listener, SOMAXCONN) == 0)
                return 0;
        r = -errno;
        baton_event_reason(event, "cannot listen on 127.0.0.1:%d: %s", server->port, strerror(-r));
        if (server->listener >= 0)
                (void) close(server->listener);
        server->listener = -1;
        return r;
}

static int start_http(struct baton_event *event, void *userdata) {
        struct server *server = userdata;
        struct connection *connection, *next;

        (void) event;
        server->serving = 1;
        (void) fcntl(server->listener, F_SETFL, O_NONBLOCK);
        watch(server, server->listener, &server->listener, EPOLLIN);
        for (connection = server->connections.next; connection != &server->connections; connection = next) {
                next = connection->next;
                serve(server, connection);
        }
        return 0;
}

static int stop_http(struct baton_event *event, void *userdata) {
        struct server *server = userdata;
        struct connection *connection;

        (void) event;
        server->serving = 0;
        (void) epoll_ctl(server->epoll, EPOLL_CTL_DEL, server->listener, NULL);
        for (connection = server->connections.next; connection != &server->connections; connection = connection->next)
                (void) epoll_ctl(server->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
        return 0;
}

/* Also of exit(): the successor has duplicates of all of it, which stay open. */
static int unmount_http(struct baton_event *event, void *userdata) {
        struct server *server = userdata;

        (void) event;
        while (server->connections.next != &server->connections)
                connection_free(server, server->connections.next);
        if (server->listener >= 0)
                (void) close(server->listener);
        server->listener = -1;
        return 0;
}

static int save_http(struct baton_save *save, void *userdata) {
        struct server *server = userdata;
        const struct connection *connection;
        char name[32];
        unsigned i = 0;
        int r = baton_save_fd(save, "listener", server->listener);

        for (connection = server->connections.next; r == 0 && connection != &server->connections;
             connection = connection->next) {
                const struct saved saved = { connection->n_requests, connection->n_in, connection->n_out,
                                             connection->closing };

                (void) snprintf(name, sizeof(name), "connection/%u", i++);
                r = baton_save_fd(save, name, connection->fd);
                if (r == 0)
                        r = baton_save_write(save, &saved, sizeof(saved));
                if (r == 0)
                        r = baton_save_write(save, connection->in, saved.n_in);
                if (r == 0)
                        r = baton_save_write(save, connection->out, saved.n_out);
        }
        return r;
}

/* restore_one() - the next one at @data, of which @size bytes are left; returns how many were read, 0: it makes no sense. */
static size_t restore_one(struct server *server, struct baton_restore *restore, unsigned i, const char *data,
                          size_t size) {
        struct connection *connection;
        struct saved saved;
        char name[32];
        int fd;

        if (size < sizeof(saved))
                return 0;
        (void) memcpy(&saved, data, sizeof(saved));
        if (saved.n_in > REQUEST_MAX || saved.n_out > ANSWER_MAX || size - sizeof(saved) < saved.n_in + saved.n_out)
                return 0;
        (void) snprintf(name, sizeof(name), "connection/%u", i);
        fd = baton_restore_take_fd(restore, name);
        connection = fd >= 0 ? connection_new(server, fd) : NULL;
        if (!connection) {
                if (fd >= 0)
                        (void) close(fd);
                return 0;
        }
        connection->n_requests = saved.n_requests;
        connection->n_in = saved.n_in;
        connection->n_out = saved.n_out;
        connection->closing = saved.closing;
        (void) memcpy(connection->in, data + sizeof(saved), saved.n_in);
        (void) memcpy(connection->out, data + sizeof(saved) + saved.n_in, saved.n_out);
        return sizeof(saved) + saved.n_in + saved.n_out;
}

static int restore_http(struct baton_restore *restore, void *userdata) {
        struct server *server = userdata;
        size_t size, n;
        const char *data = baton_restore_data(restore, &size);

        server->listener = baton_restore_take_fd(restore, "listener");
        for (unsigned i = 0; server->listener >= 0 && size > 0; i++, data += n, size -= n) {
                n = restore_one(server, restore, i, data, size);
                if (n == 0)
                        break;
        }
        if (server->listener >= 0 && size == 0)
                return 0;
        baton_restore_reason(restore, "the state of the server before makes no sense");
        (void) unmount_http(NULL, server);
        return -EBADMSG;
}

static const struct baton_service http = {
        .size = sizeof(http),
        .mount = mount_http,
        .start = start_http,
        .stop = stop_http,
        .unmount = unmount_http,
        .exit = unmount_http,
        .save = save_http,
        .restore = restore_http,
        .description = "a small HTTP server",
        .max_fds = CONNECTIONS_MAX + 1,
};

/* ---- the loop ---- */

/* turn() - 0: go on; else as baton_runner_dispatch(). */
static int turn(struct server *server) {
        struct epoll_event events[64];
        int n = epoll_wait(server->epoll, events, 64, -1), r = 0;

        for (int i = 0; i < n && r == 0; i++) {
                /* A turn of the runner's may stop the service, or free what is further on in the array. */
                if (events[i].data.ptr == server) {
                        r = baton_runner_dispatch(server->runner, 0);
                        break;
                }
                if (events[i].data.ptr == &server->listener)
                        accept_all(server);
                else
                        serve(server, events[i].data.ptr);
        }
        return r;
}

int main(int argc, char **argv) {
        struct server server = { .listener = -1, .port = argc > 1 ? atoi(argv[1]) : 8080 };
        int r;

        server.connections.next = server.connections.previous = &server.connections;
        server.epoll = epoll_create1(EPOLL_CLOEXEC);
        r = server.epoll < 0 ? -errno : baton_runner_new(&server.runner, NULL);
        if (r == 0)
                r = baton_runner_set_service(server.runner, &http, &server);
        if (r == 0)
                watch(&server, baton_runner_fd(server.runner), &server, EPOLLIN);
        while (r == 0)
                r = turn(&server);
        if (server.runner)
                baton_runner_free(server.runner);
        (void) unmount_http(NULL, &server);
        return r < 0 ? 1 : 0;
}

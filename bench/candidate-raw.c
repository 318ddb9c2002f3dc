/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Candidate raw: what the kernel alone costs. Bytes over one blocking socketpair, no frames: both sides know the sizes.
 * What does not fit into the socket while many are in flight is written on when there is room. No answer is empty: one
 * byte stands for it.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/candidate.h"

#define BUFFER (256 * 1024)

static const char *raw_version(void) {
        return "";
}

static size_t answer_size(const CandidateOptions *options) {
        return options->answer ? options->answer : 1;
}

static void send_all(int fd, const uint8_t *data, size_t size) {
        for (size_t sent = 0; sent < size;) {
                ssize_t n = send(fd, data + sent, size - sent, MSG_NOSIGNAL);

                if (n <= 0)
                        _exit(EXIT_FAILURE); /* the client has gone in the middle: it has said why */
                sent += (size_t) n;
        }
}

/* raw_serve() - answers all whole messages of a read with one write. */
static void raw_serve(const CandidateOptions *options, const Meeting *meeting) {
        size_t answer = answer_size(options), have = 0, size = options->size > BUFFER ? options->size : BUFFER;
        uint8_t *in = calloc(1, size), *other = calloc(size / options->size, answer);
        const uint8_t *out = answer == options->size ? in : other;

        if (!in || !other)
                die("out of memory");
        for (;;) {
                ssize_t n = recv(meeting->fd, in + have, size - have, 0);

                if (n <= 0)
                        break;
                have += (size_t) n;
                if (have < options->size)
                        continue;
                send_all(meeting->fd, out, have / options->size * answer);
                memmove(in, in + have / options->size * options->size, have % options->size);
                have %= options->size;
        }
        free(in);
        free(other);
}

/* ---- the client ---- */

typedef struct Client {
        int fd;
        uint8_t *out, *in;              /* as many messages as fit, and what is read at once */
        size_t batch;                   /* messages in out */
        size_t in_size, unsent, unread; /* bytes: of messages begun, of an answer begun */
        size_t next_sent, next_answered;
} Client;

static Client client;

static void raw_open(const CandidateOptions *options, Meeting *meeting) {
        size_t answer = answer_size(options);

        client.fd = meeting->fd;
        client.batch = options->size < BUFFER ? BUFFER / options->size : 1;
        client.in_size = answer > BUFFER ? answer : BUFFER;
        client.out = calloc(client.batch, options->size);
        client.in = calloc(1, client.in_size);
        if (!client.out || !client.in)
                die("out of memory");
}

/* raw_send() - all that the window allows, as far as it goes. False: the socket is full. */
static bool raw_send(Exchange *exchange) {
        const CandidateOptions *options = exchange->options;
        int flags = MSG_NOSIGNAL | (options->window > 1 ? MSG_DONTWAIT : 0);

        for (;;) {
                ssize_t n;

                while (client.unsent < client.batch * options->size &&
                       exchange_in_flight(exchange) < options->window &&
                       exchange_next(exchange, client.next_sent % options->window)) {
                        client.next_sent++;
                        client.unsent += options->size;
                }
                if (client.unsent == 0)
                        return true;
                n = send(client.fd, client.out, client.unsent, flags);
                if (n < 0 && errno == EAGAIN)
                        return false;
                if (n < 0)
                        die("send: %s", strerror(errno));
                client.unsent -= (size_t) n;
        }
}

static void raw_receive(Exchange *exchange) {
        size_t answer = answer_size(exchange->options);
        ssize_t n = recv(client.fd, client.in + client.unread, client.in_size - client.unread, 0);

        if (n <= 0)
                die("the server has gone");
        client.unread += (size_t) n;
        for (; client.unread >= answer; client.unread -= answer)
                exchange_answered(exchange, client.next_answered++ % exchange->options->window,
                                  exchange->options->answer);
}

static void raw_run(Exchange *exchange) {
        while (!exchange_is_over(exchange)) {
                struct pollfd wait = { .fd = client.fd, .events = POLLIN | POLLOUT };

                if (!raw_send(exchange)) {
                        (void) poll(&wait, 1, -1);
                        if (!(wait.revents & POLLIN))
                                continue;
                }
                raw_receive(exchange);
        }
}

static void raw_close(void) {
        free(client.out);
        free(client.in);
}

int main(int argc, char **argv) {
        static const Candidate raw = { "raw", raw_version, raw_serve, raw_open, raw_run, raw_close };

        return candidate_main(&raw, argc, argv);
}

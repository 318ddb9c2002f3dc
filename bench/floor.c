/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The floor: as little as a call by epoll and protobuf-c can be, with the batching that makes the difference (everything
 * that arrived is handled before one write). What a real engine adds to it is what the benchmark shows.
 *
 * A small body is collected with others; a large one is written from where it lies, in one call with what was collected
 * before it. Where the socket is full the server waits for room and reads nothing meanwhile, the client goes on reading:
 * so the two never wait for each other.
 */

#include "bench/floor.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.pb-c.h"

#define BUFFER     (256 * 1024)
#define LARGE      (16 * 1024) /* from there on a body is not copied */
#define HEADER_MAX 64
#define CALL       1u
#define ANSWER     2u

typedef struct Stream {
        int epoll, fd;
        uint8_t *in, out[BUFFER];
        size_t in_size, in_start, in_end, out_length;
        size_t answer;      /* of the server */
        Exchange *exchange; /* of the client */
} Stream;

static Stream stream;

static void stream_open(int fd) {
        struct epoll_event event = { .events = EPOLLIN };

        stream.fd = fd;
        stream.in_start = stream.in_end = stream.out_length = 0;
        stream.in_size = BUFFER;
        stream.in = malloc(BUFFER);
        stream.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (!stream.in || stream.epoll < 0 || epoll_ctl(stream.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                die("epoll: %s", strerror(errno));
}

static void stream_close(void) {
        (void) close(stream.epoll);
        free(stream.in);
}

/* make_room() - behind what has not been handled yet; moving it is worth it only when that is little. */
static void make_room(void) {
        size_t have = stream.in_end - stream.in_start;

        if (have == 0)
                stream.in_start = stream.in_end = 0;
        if (stream.in_size - stream.in_end >= stream.in_size / 4)
                return;
        if (have > stream.in_size / 2) {
                stream.in_size *= 2;
                stream.in = realloc(stream.in, stream.in_size);
                if (!stream.in)
                        die("out of memory for %zu bytes", stream.in_size);
        }
        memmove(stream.in, stream.in + stream.in_start, have);
        stream.in_start = 0;
        stream.in_end = have;
}

/* stream_read() - once; false at the end. */
static bool stream_read(void) {
        ssize_t n;

        make_room();
        n = recv(stream.fd, stream.in + stream.in_end, stream.in_size - stream.in_end, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN)
                die("recv: %s", strerror(errno));
        if (n > 0)
                stream.in_end += (size_t) n;
        return n != 0;
}

static void wait_for_room(void) {
        struct pollfd wait = { .fd = stream.fd, .events = POLLOUT };

        if (stream.exchange)
                wait.events |= POLLIN;
        (void) poll(&wait, 1, -1);
        if ((wait.revents & POLLIN) && !stream_read())
                die("the other side has gone");
}

/* stream_flush() - what was collected, and @body behind it. */
static void stream_flush(const void *body, size_t size) {
        struct iovec iov[2] = { { stream.out, stream.out_length }, { (void *) body, size } };
        struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };

        while (iov[0].iov_len + iov[1].iov_len > 0) {
                ssize_t n = sendmsg(stream.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EAGAIN) {
                        wait_for_room();
                        continue;
                }
                if (n < 0)
                        die("sendmsg: %s", strerror(errno));
                for (size_t i = 0, left = (size_t) n; i < 2; i++) {
                        size_t part = left < iov[i].iov_len ? left : iov[i].iov_len;

                        iov[i].iov_base = (uint8_t *) iov[i].iov_base + part;
                        iov[i].iov_len -= part;
                        left -= part;
                }
        }
        stream.out_length = 0;
}

static void stream_put(uint64_t id, uint32_t kind, const void *body, size_t size) {
        Baton__Bench__Header header = BATON__BENCH__HEADER__INIT;
        bool large = size >= LARGE;
        size_t packed;
        uint32_t lengths[2];

        if (BUFFER - stream.out_length < HEADER_MAX + (large ? 0 : size))
                stream_flush(NULL, 0);
        header.id = id;
        header.kind = kind;
        packed = baton__bench__header__get_packed_size(&header);
        lengths[0] = htobe32((uint32_t) (4 + packed + size));
        lengths[1] = htobe32((uint32_t) packed);
        memcpy(stream.out + stream.out_length, lengths, 8);
        baton__bench__header__pack(&header, stream.out + stream.out_length + 8);
        stream.out_length += 8 + packed;
        if (large) {
                stream_flush(body, size);
                return;
        }
        memcpy(stream.out + stream.out_length, body, size);
        stream.out_length += size;
}

/* stream_wait() - reads once; false at the end. */
static bool stream_wait(void) {
        struct epoll_event event;

        stream_flush(NULL, 0);
        if (epoll_wait(stream.epoll, &event, 1, -1) < 0)
                die("epoll_wait: %s", strerror(errno));
        return stream_read();
}

/* stream_each() - hands out what has arrived whole; more may arrive meanwhile. */
static void stream_each(void (*handle)(uint64_t id, const uint8_t *body, size_t size)) {
        while (stream.in_end - stream.in_start >= 8) {
                const uint8_t *frame = stream.in + stream.in_start;
                Baton__Bench__Header *header;
                uint32_t lengths[2];

                memcpy(lengths, frame, 8);
                lengths[0] = be32toh(lengths[0]);
                lengths[1] = be32toh(lengths[1]);
                if (stream.in_end - stream.in_start - 4 < lengths[0])
                        break;
                header = baton__bench__header__unpack(NULL, lengths[1], frame + 8);
                if (!header)
                        die("a header that cannot be parsed");
                stream.in_start += 4 + lengths[0];
                handle(header->id, frame + 8 + lengths[1], lengths[0] - 4 - lengths[1]);
                baton__bench__header__free_unpacked(header, NULL);
        }
}

/* ---- server ---- */

static void echo(uint64_t id, const uint8_t *body, size_t size) {
        stream_put(id, ANSWER, body, size < stream.answer ? size : stream.answer);
}

void floor_serve(int fd, size_t answer) {
        stream_open(fd);
        stream.answer = answer;
        while (stream_wait())
                stream_each(echo);
        stream_close();
}

/* ---- client ---- */

/* call_in() - the next call, if there is one left; its id grows and tells its slot. */
static void call_in(size_t slot) {
        Exchange *exchange = stream.exchange;
        const CandidateOptions *options = exchange->options;

        if (exchange_next(exchange, slot))
                stream_put(exchange->sent * options->window + slot, CALL, exchange->payload, options->size);
}

static void answered(uint64_t id, const uint8_t *body, size_t size) {
        size_t slot = id % stream.exchange->options->window;

        (void) body;
        exchange_answered(stream.exchange, slot, size);
        call_in(slot);
}

void floor_open(int fd) {
        stream_open(fd);
}

void floor_run(Exchange *exchange) {
        stream.exchange = exchange;
        for (size_t slot = 0; slot < exchange->options->window; slot++)
                call_in(slot);
        while (!exchange_is_over(exchange)) {
                if (!stream_wait())
                        die("the other side has gone");
                stream_each(answered);
        }
}

void floor_close(void) {
        stream_close();
}

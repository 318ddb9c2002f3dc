/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The floor: as little as a call by epoll and protobuf-c can be, with the batching that makes the difference (everything
 * that arrived is handled before one write). What a real engine adds to it is what the benchmark shows.
 */

#include "bench/floor.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.pb-c.h"
#include "bench/measure.h"

#define BUFFER (256 * 1024)
#define CALL   1u
#define ANSWER 2u

typedef struct Stream {
        int epoll, fd;
        uint8_t in[BUFFER], out[BUFFER];
        size_t in_length, out_length;
} Stream;

static void stream_open(Stream *stream, int fd) {
        struct epoll_event event = { .events = EPOLLIN };

        stream->fd = fd;
        stream->in_length = stream->out_length = 0;
        stream->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (stream->epoll < 0 || epoll_ctl(stream->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                die("epoll: %s", strerror(errno));
}

static void stream_flush(Stream *stream) {
        for (size_t sent = 0; sent < stream->out_length;) {
                ssize_t n = send(stream->fd, stream->out + sent, stream->out_length - sent, MSG_NOSIGNAL);

                if (n < 0 && errno == EAGAIN)
                        continue; /* windows are small: it does not happen with the sizes measured */
                if (n < 0)
                        die("send: %s", strerror(errno));
                sent += (size_t) n;
        }
        stream->out_length = 0;
}

static void stream_put(Stream *stream, uint64_t id, uint32_t kind, const void *body, size_t size) {
        Baton__Bench__Header header = BATON__BENCH__HEADER__INIT;
        size_t packed;
        uint32_t lengths[2];

        header.id = id;
        header.kind = kind;
        packed = baton__bench__header__get_packed_size(&header);
        if (BUFFER - stream->out_length < 8 + packed + size)
                stream_flush(stream);
        lengths[0] = htobe32((uint32_t) (4 + packed + size));
        lengths[1] = htobe32((uint32_t) packed);
        memcpy(stream->out + stream->out_length, lengths, 8);
        baton__bench__header__pack(&header, stream->out + stream->out_length + 8);
        memcpy(stream->out + stream->out_length + 8 + packed, body, size);
        stream->out_length += 8 + packed + size;
}

/* stream_wait() - reads once; false at the end. */
static bool stream_wait(Stream *stream) {
        struct epoll_event event;
        ssize_t n;

        stream_flush(stream);
        if (epoll_wait(stream->epoll, &event, 1, -1) < 0)
                die("epoll_wait: %s", strerror(errno));
        n = recv(stream->fd, stream->in + stream->in_length, BUFFER - stream->in_length, 0);
        if (n < 0 && errno != EAGAIN)
                die("recv: %s", strerror(errno));
        if (n > 0)
                stream->in_length += (size_t) n;
        return n != 0;
}

/* stream_each() - hands out what has arrived whole; returns how many. */
static size_t stream_each(Stream *stream, void (*handle)(Stream *, uint64_t id, const uint8_t *body, size_t size)) {
        size_t at = 0, count = 0;

        while (stream->in_length - at >= 8) {
                uint32_t lengths[2];
                Baton__Bench__Header *header;

                memcpy(lengths, stream->in + at, 8);
                lengths[0] = be32toh(lengths[0]);
                lengths[1] = be32toh(lengths[1]);
                if (stream->in_length - at - 4 < lengths[0])
                        break;
                header = baton__bench__header__unpack(NULL, lengths[1], stream->in + at + 8);
                if (!header)
                        die("a header that cannot be parsed");
                handle(stream, header->id, stream->in + at + 8 + lengths[1], lengths[0] - 4 - lengths[1]);
                baton__bench__header__free_unpacked(header, NULL);
                at += 4 + lengths[0];
                count++;
        }
        memmove(stream->in, stream->in + at, stream->in_length - at);
        stream->in_length -= at;
        return count;
}

static void echo(Stream *stream, uint64_t id, const uint8_t *body, size_t size) {
        stream_put(stream, id, ANSWER, body, size);
}

static void ignore(Stream *stream, uint64_t id, const uint8_t *body, size_t size) {
        (void) stream;
        (void) id;
        (void) body;
        (void) size;
}

void floor_serve(int fd) {
        static Stream stream;

        stream_open(&stream, fd);
        while (stream_wait(&stream))
                (void) stream_each(&stream, echo);
        close(stream.epoll);
}

void floor_call(int fd, size_t n, size_t size, size_t window, struct Samples *latency) {
        static Stream stream;
        static uint8_t body[BUFFER];
        size_t sent = 0, answered = 0;

        stream_open(&stream, fd);
        while (answered < n) {
                double start = latency ? measure_now() : 0;

                while (sent < n && sent - answered < window)
                        stream_put(&stream, ++sent, CALL, body, size);
                if (!stream_wait(&stream))
                        die("the other side has gone");
                answered += stream_each(&stream, ignore);
                if (latency)
                        samples_add(latency, measure_now() - start);
        }
        close(stream.epoll);
}

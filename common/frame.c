/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Frames: one read fills the buffer with whatever has arrived, many frames are handed out of it without a copy; many
 * frames are collected and leave in one send. Measured, this batching is worth ten times when calls are small.
 *
 * The reader's buffer grows with the bytes that have come, doubling, never with the length that was announced: a peer
 * that promises 8 MiB and sends 5 bytes costs the smallest buffer. After a large frame the memory is given back.
 *
 * A large body need not be collected: what the kernel takes of it at once is never copied here. There is room for all of
 * it beforehand, so that no lack of memory can tear a frame.
 */

#include "common/frame.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/macro.h"

#define BUFFER_SIZE \
        (64u * 1024u) /* of a reader and writer at work: as much as a default socket buffer passes at once */
#define BUFFER_KEEP (512u * 1024u) /* an empty buffer above it is given back */

/* make_room() - moves the bytes start..end to the front and grows the buffer to at least @wanted bytes. */
static int make_room(uint8_t **buffer, size_t *size, size_t *start, size_t *end, size_t wanted) {
        uint8_t *grown;

        if (*start > 0) {
                memmove(*buffer, *buffer + *start, *end - *start);
                *end -= *start;
                *start = 0;
        }
        if (wanted <= *size)
                return 0;
        grown = realloc(*buffer, wanted);
        if (!grown)
                return -ENOMEM;
        *buffer = grown;
        *size = wanted;
        return 0;
}

/* settle() - an empty buffer starts at its front again, and a large one is given back. */
static void settle(uint8_t **buffer, size_t *size, size_t *start, size_t *end) {
        if (*start < *end)
                return;
        *start = *end = 0;
        if (*size > BUFFER_KEEP) {
                free(TAKE_PTR(*buffer));
                *size = 0;
        }
}

void frame_reader_init(FrameReader *reader, uint32_t limit) {
        *reader = (FrameReader){ .limit = limit };
}

void frame_reader_deinit(FrameReader *reader) {
        free(reader->buffer);
        *reader = (FrameReader){ 0 };
}

int frame_reader_fill(FrameReader *reader, int fd) {
        size_t have, wanted = BUFFER_SIZE;
        uint32_t length;
        ssize_t n;
        int r;

        settle(&reader->buffer, &reader->size, &reader->start, &reader->end);
        have = reader->end - reader->start;
        if (frame_reader_length(reader, &length)) {
                size_t whole = (size_t) length + FRAME_HEADER_SIZE;

                assert(length <= reader->limit && have < whole);
                wanted = MAX(wanted, MIN(whole, have * 2));
        }
        if (reader->size < wanted || reader->size - reader->end < reader->size / 2) {
                r = make_room(&reader->buffer, &reader->size, &reader->start, &reader->end, wanted);
                if (r < 0)
                        return r;
        }
        n = cmsg_read(fd, reader->buffer + reader->end, reader->size - reader->end);
        if (n == -EAGAIN)
                return FRAME_AGAIN;
        if (n <= 0)
                return n < 0 ? (int) n : FRAME_EOF;
        reader->end += (size_t) n;
        return FRAME_READY;
}

void frame_writer_init(FrameWriter *writer) {
        *writer = (FrameWriter){ 0 };
}

void frame_writer_deinit(FrameWriter *writer) {
        free(writer->buffer);
        *writer = (FrameWriter){ 0 };
}

int frame_writer_grow(FrameWriter *writer, size_t size) {
        size_t pending = writer->end - writer->start, wanted = MAX(pending + size, (size_t) BUFFER_SIZE);

        if (wanted > writer->size)
                wanted = MAX(wanted, writer->size * 2);
        return make_room(&writer->buffer, &writer->size, &writer->start, &writer->end, wanted);
}

void frame_writer_fill(FrameWriter *writer, int fd, const void *data, size_t size) {
        size_t before = writer->end - writer->start - size, taken = 0;
        struct iovec pieces[] = { { writer->buffer + writer->start, before }, { (void *) data, size } };
        ssize_t n = cmsg_write(fd, pieces, ARRAY_SIZE(pieces));

        if (n > 0) {
                writer->start += (size_t) n;
                taken = (size_t) n > before ? (size_t) n - before : 0;
        }
        memcpy(writer->buffer + writer->end - (size - taken), (const uint8_t *) data + taken, size - taken);
        settle(&writer->buffer, &writer->size, &writer->start, &writer->end);
}

int frame_writer_flush(FrameWriter *writer, int fd) {
        while (writer->start < writer->end) {
                ssize_t n = cmsg_send(fd, writer->buffer + writer->start, writer->end - writer->start, NULL, 0);

                if (n < 0)
                        return (int) n;
                writer->start += (size_t) n;
        }
        settle(&writer->buffer, &writer->size, &writer->start, &writer->end);
        return 0;
}

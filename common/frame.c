/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Frames: one read fills the buffer with whatever has arrived, many frames are handed out of it without a copy; many
 * frames are collected and leave in one send. Measured, this batching is worth ten times when calls are small.
 *
 * The reader's buffer grows with the bytes that have come, doubling, never with the length that was announced: a peer
 * that promises 8 MiB and sends 5 bytes costs the smallest buffer. Memory of large frames is kept while such come: fresh
 * memory is page faults, which cost more than the rest of a frame.
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

/* settle() - an empty buffer starts at its front again. */
static void settle(size_t *start, size_t *end) {
        if (*start == *end)
                *start = *end = 0;
}

/* trim() - of frame_..._trim(). */
static bool trim(uint8_t **buffer, size_t *size, size_t used, bool *needed) {
        bool keep = *needed || used > 0;

        *needed = false;
        if (*size <= FRAME_BUFFER_KEEP)
                return false;
        if (keep)
                return true;
        free(TAKE_PTR(*buffer));
        *size = 0;
        return false;
}

void frame_reader_init(FrameReader *reader, uint32_t limit) {
        *reader = (FrameReader){ .limit = limit };
}

void frame_reader_deinit(FrameReader *reader) {
        free(reader->buffer);
        *reader = (FrameReader){ 0 };
}

/* is_adrift() - far from the front of a large buffer, without need: small frames stay where the cache is warm. */
static bool is_adrift(const FrameReader *reader) {
        return reader->start >= BUFFER_SIZE && reader->start > reader->end - reader->start;
}

int frame_reader_fill(FrameReader *reader, int fd) {
        size_t have, wanted = BUFFER_SIZE;
        uint32_t length;
        ssize_t n;
        int r;

        settle(&reader->start, &reader->end);
        have = reader->end - reader->start;
        if (frame_reader_length(reader, &length)) {
                size_t whole = (size_t) length + FRAME_HEADER_SIZE;

                assert(length <= reader->limit && have < whole);
                wanted = MAX(wanted, MIN(whole, have * 2));
        }
        if (reader->size < wanted || reader->size - reader->end < reader->size / 2 || is_adrift(reader)) {
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
        reader->needed |= reader->end - reader->start > FRAME_BUFFER_KEEP;
        return FRAME_READY;
}

bool frame_reader_trim(FrameReader *reader) {
        return trim(&reader->buffer, &reader->size, reader->end - reader->start, &reader->needed);
}

int frame_reader_restore(FrameReader *reader, const void *data, size_t size) {
        int r = make_room(&reader->buffer, &reader->size, &reader->start, &reader->end,
                          MAX(size, (size_t) BUFFER_SIZE));

        if (r < 0)
                return r;
        memcpy(reader->buffer, data, size);
        reader->end = size;
        return 0;
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
        writer->needed |= size - taken > FRAME_BUFFER_KEEP;
        settle(&writer->start, &writer->end);
}

bool frame_writer_trim(FrameWriter *writer) {
        return trim(&writer->buffer, &writer->size, frame_writer_pending(writer), &writer->needed);
}

int frame_writer_flush(FrameWriter *writer, int fd) {
        writer->needed |= frame_writer_pending(writer) > FRAME_BUFFER_KEEP;
        while (writer->start < writer->end) {
                ssize_t n = cmsg_send(fd, writer->buffer + writer->start, writer->end - writer->start, NULL, 0);

                if (n < 0)
                        return (int) n;
                writer->start += (size_t) n;
        }
        settle(&writer->start, &writer->end);
        return 0;
}

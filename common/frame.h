#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Frames over a non-blocking stream: u32 big-endian length, then as many bytes. A reader hands out frames in place; a
 * writer collects frames and sends all of them with one system call. Both are bounded; the length is judged before
 * anything is allocated for it.
 *
 * A buffer that has grown above FRAME_BUFFER_KEEP is kept while large frames come and go. Whoever has one calls
 * frame_..._trim() now and then: what was not needed between two calls is given back.
 */

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define FRAME_HEADER_SIZE 4u
#define FRAME_BUFFER_KEEP (512u * 1024u) /* bytes of a buffer that is never given back */

/* Outcomes of the reader. */
typedef enum FrameResult {
        FRAME_AGAIN,     /* no whole frame; for frame_reader_fill(): nothing to read for now */
        FRAME_READY,     /* a frame; for frame_reader_fill(): bytes arrived */
        FRAME_TOO_LARGE, /* a length above the limit: the stream is lost */
        FRAME_EOF,       /* the other side has closed */
} FrameResult;

typedef struct FrameReader {
        uint8_t *buffer;
        size_t size, start, end; /* bytes start..end are unread */
        uint32_t limit;          /* of a frame's body */
        bool needed;             /* a large buffer was, since the last frame_reader_trim() */
} FrameReader;

/* frame_reader_init() - a reader that refuses bodies above @limit; holds no memory until the first byte. */
void frame_reader_init(FrameReader *reader, uint32_t limit);
void frame_reader_deinit(FrameReader *reader);

/*
 * frame_reader_fill() - one read of @fd, as much as there is room for. Call it when frame_reader_next() says
 * FRAME_AGAIN. FRAME_READY, FRAME_AGAIN, FRAME_EOF, or a negative errno. Frames handed out before are no longer valid.
 */
int frame_reader_fill(FrameReader *reader, int fd);

/* frame_reader_restore() - @size bytes that another process had read and not handed out. 0 or -ENOMEM. */
int frame_reader_restore(FrameReader *reader, const void *data, size_t size);

/* frame_reader_length() - the body length of the next frame, if its header is there. */
static inline bool frame_reader_length(const FrameReader *reader, uint32_t *ret_length) {
        uint32_t wire;

        if (reader->end - reader->start < FRAME_HEADER_SIZE)
                return false;
        memcpy(&wire, reader->buffer + reader->start, sizeof(wire));
        *ret_length = be32toh(wire);
        return true;
}

/*
 * frame_reader_next() - the next whole frame: body and length, in the reader's memory until the next call of fill.
 * FRAME_READY, FRAME_AGAIN, FRAME_TOO_LARGE (its length is then in @ret_length).
 */
static inline int frame_reader_next(FrameReader *reader, const uint8_t **ret_body, uint32_t *ret_length) {
        if (!frame_reader_length(reader, ret_length))
                return FRAME_AGAIN;
        if (*ret_length > reader->limit)
                return FRAME_TOO_LARGE;
        if (reader->end - reader->start - FRAME_HEADER_SIZE < *ret_length)
                return FRAME_AGAIN;
        *ret_body = reader->buffer + reader->start + FRAME_HEADER_SIZE;
        reader->start += FRAME_HEADER_SIZE + (size_t) *ret_length;
        return FRAME_READY;
}

/*
 * frame_reader_trim() - gives back a large buffer that is empty and was not needed since the last call. False: it is not
 * large.
 */
bool frame_reader_trim(FrameReader *reader);

/* frame_reader_is_partial() - whether bytes of an unfinished frame are there: the other side owes us the rest. */
static inline bool frame_reader_is_partial(const FrameReader *reader) {
        return reader->end > reader->start;
}

typedef struct FrameWriter {
        uint8_t *buffer;
        size_t size, start, end; /* bytes start..end are unsent */
        bool needed;             /* as of a reader */
} FrameWriter;

void frame_writer_init(FrameWriter *writer);
void frame_writer_deinit(FrameWriter *writer);

/* frame_writer_trim() - as frame_reader_trim(). */
bool frame_writer_trim(FrameWriter *writer);

/* frame_writer_pending() - bytes not yet taken by the kernel. */
static inline size_t frame_writer_pending(const FrameWriter *writer) {
        return writer->end - writer->start;
}

/* frame_writer_grow() - room for @size more bytes at the end. 0 or -ENOMEM. */
int frame_writer_grow(FrameWriter *writer, size_t size);

/*
 * frame_writer_reserve() - room for a frame whose body has @length bytes, its header written already; the body is to be
 * filled in at *@ret_body before anything else is done with the writer. 0 or -ENOMEM. The bound on what may be pending
 * is the caller's: it knows what can wait and what must not.
 */
static inline int frame_writer_reserve(FrameWriter *writer, uint32_t length, uint8_t **ret_body) {
        size_t size = (size_t) length + FRAME_HEADER_SIZE;
        uint32_t wire = htobe32(length);
        uint8_t *header;
        int r = 0;

        if (writer->size - writer->end < size)
                r = frame_writer_grow(writer, size);
        if (r < 0)
                return r;
        header = writer->buffer + writer->end;
        memcpy(header, &wire, sizeof(wire));
        writer->end += size;
        *ret_body = header + FRAME_HEADER_SIZE;
        return 0;
}

/*
 * frame_writer_fill() - the last @size bytes of the frame reserved last, whose other bytes are filled in: they go to the
 * kernel from @data at once, behind all that is pending, as far as it takes them; only the rest is copied. A stream that
 * is full or broken is told by the next flush.
 */
void frame_writer_fill(FrameWriter *writer, int fd, const void *data, size_t size);

/*
 * frame_writer_flush() - one send of all that is pending, without waiting. 0: all sent; -EAGAIN: wait until @fd is
 * writable; else the errno of a broken stream.
 */
int frame_writer_flush(FrameWriter *writer, int fd);

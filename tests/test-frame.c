/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/frame: frames cut anywhere, lengths judged before memory, memory given back, partial sends. */

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/frame.h"
#include "tests/seam.h"

#define LIMIT        (1u << 20)
#define FIRST_BUFFER 65536u /* what a reader starts with */

/* A stream of frames whose bodies are @lengths long, body i made of bytes that depend on i and the place. */
typedef struct Stream {
        uint8_t *bytes;
        size_t size;
        const uint32_t *lengths;
        size_t n;
} Stream;

static uint8_t body_byte(size_t frame, size_t place) {
        return (uint8_t) (frame * 31 + place * 7 + place / 256);
}

static Stream make_stream(const uint32_t *lengths, size_t n) {
        Stream stream = { .lengths = lengths, .n = n };
        size_t at = 0;

        for (size_t i = 0; i < n; i++)
                stream.size += FRAME_HEADER_SIZE + lengths[i];
        stream.bytes = malloc(stream.size);
        assert_non_null(stream.bytes);
        for (size_t i = 0; i < n; i++) {
                for (int shift = 24; shift >= 0; shift -= 8)
                        stream.bytes[at++] = (uint8_t) (lengths[i] >> shift);
                for (size_t k = 0; k < lengths[i]; k++)
                        stream.bytes[at++] = body_byte(i, k);
        }
        return stream;
}

/* check_frames() - hands out all whole frames, each compared; @next is the number of the next one. */
static void check_frames(FrameReader *reader, const Stream *stream, size_t *next) {
        const uint8_t *body = NULL;
        uint32_t length;
        int r;

        while ((r = frame_reader_next(reader, &body, &length)) == FRAME_READY) {
                assert_true(*next < stream->n);
                assert_int_equal(length, stream->lengths[*next]);
                for (size_t k = 0; k < length; k++)
                        if (body[k] != body_byte(*next, k))
                                fail_msg("frame %zu, byte %zu", *next, k);
                (*next)++;
        }
        assert_int_equal(r, FRAME_AGAIN);
}

/* send_piece() - sends and has it read, in as many rounds as the socket needs. */
static void send_piece(FrameReader *reader, const int pair[2], const Stream *stream, size_t from, size_t to,
                       size_t *next) {
        while (from < to) {
                ssize_t n = cmsg_send(pair[0], stream->bytes + from, to - from, NULL, 0);
                int r;

                assert_true(n > 0);
                from += (size_t) n;
                while ((r = frame_reader_fill(reader, pair[1])) == FRAME_READY)
                        check_frames(reader, stream, next);
                assert_int_equal(r, FRAME_AGAIN);
        }
}

/* The same frames come out wherever the stream is cut, twice. */
static void test_cut_anywhere(void **state) {
        static const uint32_t lengths[] = { 0, 1, 3, 0, 4, 5, 12, 2 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        for (size_t a = 0; a <= stream.size; a++)
                for (size_t b = a; b <= stream.size; b++) {
                        FrameReader reader;
                        size_t next = 0;

                        frame_reader_init(&reader, LIMIT);
                        send_piece(&reader, pair, &stream, 0, a, &next);
                        send_piece(&reader, pair, &stream, a, b, &next);
                        send_piece(&reader, pair, &stream, b, stream.size, &next);
                        assert_int_equal(next, stream.n);
                        assert_false(frame_reader_is_partial(&reader));
                        frame_reader_deinit(&reader);
                }
        fd_close_all(pair, 2);
        free(stream.bytes);
}

/* Frames larger than the buffer, cut around every edge of buffer, header and body. */
static void test_large_frames_cut(void **state) {
        static const uint32_t lengths[] = { 10, 70000, 65532, 65533, 0, 200000, 1 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        size_t edges[32] = { 0 }, n_edges = 1;
        int pair[2];

        (void) state;
        for (size_t i = 0, at = 0; i < ARRAY_SIZE(lengths); i++) {
                edges[n_edges++] = at += FRAME_HEADER_SIZE;
                edges[n_edges++] = at += lengths[i];
        }
        edges[n_edges++] = FIRST_BUFFER;
        edges[n_edges++] = 2 * FIRST_BUFFER;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        for (size_t i = 0; i < n_edges; i++)
                for (int around = -3; around <= 3; around++) {
                        size_t cut = edges[i] + (size_t) around, next = 0;
                        FrameReader reader;

                        if (cut > stream.size)
                                continue; /* also where it wrapped below 0 */
                        frame_reader_init(&reader, LIMIT);
                        send_piece(&reader, pair, &stream, 0, cut, &next);
                        assert_int_equal(frame_reader_is_partial(&reader), reader.start < reader.end);
                        send_piece(&reader, pair, &stream, cut, stream.size, &next);
                        assert_int_equal(next, stream.n);
                        frame_reader_deinit(&reader);
                }
        fd_close_all(pair, 2);
        free(stream.bytes);
}

/* One read brings many frames, and one byte at a time brings the same. */
static void test_byte_by_byte(void **state) {
        static const uint32_t lengths[] = { 7, 0, 300, 1, 64 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        FrameReader reader;
        size_t next = 0;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        send_piece(&reader, pair, &stream, 0, stream.size, &next);
        assert_int_equal(next, stream.n);
        assert_int_equal(seam_count(SEAM_RECVMSG), 2); /* one brought all, the second found nothing */

        seam_limit_bytes(SEAM_RECVMSG, 1);
        next = 0;
        send_piece(&reader, pair, &stream, 0, stream.size, &next);
        assert_int_equal(next, stream.n);
        assert_int_equal(seam_count(SEAM_RECVMSG), 2 + stream.size + 1);
        frame_reader_deinit(&reader);
        fd_close_all(pair, 2);
        free(stream.bytes);
}

static void test_limit(void **state) {
        static const struct {
                uint32_t limit, length;
                bool taken;
        } rows[] = {
                { 0, 0, true },
                { 0, 1, false },
                { 65536, 65536, true },
                { 65536, 65537, false },
                { 65536, UINT32_MAX, false }, /* 4 GiB */
                { 65536, UINT32_C(0x80000000), false },
                { 8u << 20, 8u << 20, true },
                { 8u << 20, (8u << 20) + 1, false },
                { UINT32_MAX, UINT32_MAX, true },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint8_t header[5];
                const uint8_t *body = NULL;
                FrameReader reader;
                uint32_t length = 0;
                int pair[2], r;

                for (int k = 0; k < 4; k++)
                        header[k] = (uint8_t) (rows[i].length >> (24 - 8 * k));
                header[4] = 'x';
                assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
                frame_reader_init(&reader, rows[i].limit);
                assert_int_equal(cmsg_send(pair[0], header, rows[i].length ? 5 : 4, NULL, 0), rows[i].length ? 5 : 4);
                assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_READY);
                r = frame_reader_next(&reader, &body, &length);
                if (rows[i].taken) {
                        assert_int_equal(r, rows[i].length == 0 ? FRAME_READY : FRAME_AGAIN);
                        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_AGAIN);
                } else {
                        assert_int_equal(r, FRAME_TOO_LARGE);
                        assert_int_equal(length, rows[i].length);
                        /* It stays lost: asked again, the answer is the same. */
                        assert_int_equal(frame_reader_next(&reader, &body, &length), FRAME_TOO_LARGE);
                }
                /* Memory follows what came, never what was announced. */
                assert_int_equal(reader.size, FIRST_BUFFER);
                assert_int_equal(seam_count(SEAM_REALLOC), i + 1);
                frame_reader_deinit(&reader);
                fd_close_all(pair, 2);
        }
}

/* The buffer doubles with the bytes that came; a large one is given back when nothing needed it between two looks. */
static void test_memory(void **state) {
        static const uint32_t lengths[] = { 900000, 3 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        size_t sent = 0, next = 0;
        const uint8_t *body = NULL;
        FrameReader reader;
        uint32_t length;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_AGAIN);
        while (sent < stream.size) {
                size_t to = MIN(sent + 30000, stream.size);

                send_piece(&reader, pair, &stream, sent, to, &next);
                sent = to;
                if (next == 0)
                        assert_true(reader.size <= MAX((size_t) FIRST_BUFFER, 2 * sent));
        }
        assert_int_equal(next, 2);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_AGAIN);
        assert_true(reader.size > 900000);
        assert_true(frame_reader_trim(&reader)); /* it was needed until now */
        assert_int_equal(cmsg_send(pair[0], "\0\0\0\1", 4, NULL, 0), 4);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_READY);
        assert_true(frame_reader_trim(&reader)); /* a frame has begun in it */
        assert_int_equal(cmsg_send(pair[0], "x", 1, NULL, 0), 1);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_READY);
        assert_int_equal(frame_reader_next(&reader, &body, &length), FRAME_READY);
        assert_int_equal(length, 1);
        assert_int_equal(*body, 'x');
        assert_false(frame_reader_trim(&reader));
        assert_int_equal(reader.size, 0);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_AGAIN);
        assert_int_equal(reader.size, FIRST_BUFFER);
        assert_false(frame_reader_trim(&reader));
        assert_int_equal(reader.size, FIRST_BUFFER); /* that stays */
        frame_reader_deinit(&reader);
        fd_close_all(pair, 2);
        free(stream.bytes);
}

static void test_end(void **state) {
        FrameReader reader;
        const uint8_t *body = NULL;
        uint32_t length;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        assert_int_equal(cmsg_send(pair[0], "\0\0\0\1x\0\0", 7, NULL, 0), 7);
        pair[0] = fd_close(pair[0]);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_READY);
        assert_int_equal(frame_reader_next(&reader, &body, &length), FRAME_READY);
        assert_int_equal(frame_reader_next(&reader, &body, &length), FRAME_AGAIN);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_EOF);
        assert_true(frame_reader_is_partial(&reader)); /* the end came inside a frame */
        frame_reader_deinit(&reader);
        assert_false(frame_reader_is_partial(&reader));
        fd_close_all(pair, 2);
}

static void test_reader_errors(void **state) {
        FrameReader reader;
        const uint8_t *body = NULL;
        uint32_t length;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        assert_int_equal(cmsg_send(pair[0], "\0\0\0\1x", 5, NULL, 0), 5);
        seam_fail(SEAM_REALLOC, 1, ENOMEM);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), -ENOMEM);
        seam_fail(SEAM_RECVMSG, 1, ENOMEM);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), -ENOMEM);
        seam_fail(SEAM_RECVMSG, 1, EAGAIN);
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_AGAIN);
        /* Nothing was lost by it. */
        assert_int_equal(frame_reader_fill(&reader, pair[1]), FRAME_READY);
        assert_int_equal(frame_reader_next(&reader, &body, &length), FRAME_READY);
        assert_int_equal(length, 1);
        assert_int_equal(body[0], 'x');
        assert_int_equal(frame_reader_fill(&reader, -1), -EBADF);
        frame_reader_deinit(&reader);
        fd_close_all(pair, 2);
}

static void add_frame(FrameWriter *writer, size_t number, uint32_t length) {
        uint8_t *body = NULL;

        assert_int_equal(frame_writer_reserve(writer, length, &body), 0);
        for (size_t k = 0; k < length; k++)
                body[k] = body_byte(number, k);
}

/* The bytes on the wire, as they were recorded. */
static void test_recorded(void **state) {
        static const uint8_t recorded[] = { 0, 0, 0, 8, 0, 0, 0, 4, 8, 2, 16, 2 };
        uint8_t *body = NULL, bytes[16];
        FrameWriter writer;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_writer_init(&writer);
        assert_int_equal(frame_writer_pending(&writer), 0);
        assert_int_equal(frame_writer_flush(&writer, pair[0]), 0); /* nothing to send: no call */
        assert_int_equal(seam_count(SEAM_SENDMSG), 0);
        assert_int_equal(frame_writer_reserve(&writer, 8, &body), 0);
        memcpy(body, recorded + 4, 8);
        assert_int_equal(frame_writer_pending(&writer), sizeof(recorded));
        assert_int_equal(frame_writer_flush(&writer, pair[0]), 0);
        assert_int_equal(frame_writer_pending(&writer), 0);
        assert_int_equal(cmsg_read(pair[1], bytes, sizeof(bytes)), sizeof(recorded));
        assert_memory_equal(bytes, recorded, sizeof(recorded));
        frame_writer_deinit(&writer);
        fd_close_all(pair, 2);
}

/* Many frames leave with one call; those added between partial sends stay in order. */
static void test_partial_sends(void **state) {
        static const uint32_t lengths[] = { 5, 0, 100, 3, 70000, 1, 40000, 0, 9 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        size_t next = 0;
        FrameReader reader;
        FrameWriter writer;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        frame_writer_init(&writer);
        for (size_t i = 0; i < 4; i++)
                add_frame(&writer, i, lengths[i]);
        assert_int_equal(frame_writer_flush(&writer, pair[0]), 0);
        assert_int_equal(seam_count(SEAM_SENDMSG), 1);

        for (size_t i = 4; i < ARRAY_SIZE(lengths); i++) {
                add_frame(&writer, i, lengths[i]);
                seam_limit_bytes(SEAM_SENDMSG, 7);
                seam_fail(SEAM_SENDMSG, 2, EAGAIN); /* seven bytes go, then there is no room */
                assert_int_equal(frame_writer_flush(&writer, pair[0]), -EAGAIN);
        }
        seam_limit_bytes(SEAM_SENDMSG, 0);
        do {
                while (frame_reader_fill(&reader, pair[1]) == FRAME_READY)
                        check_frames(&reader, &stream, &next);
        } while (frame_writer_flush(&writer, pair[0]) == -EAGAIN ||
                 frame_reader_fill(&reader, pair[1]) == FRAME_READY);
        check_frames(&reader, &stream, &next);
        assert_int_equal(next, stream.n);
        frame_reader_deinit(&reader);
        frame_writer_deinit(&writer);
        fd_close_all(pair, 2);
        free(stream.bytes);
}

/* A peer that never reads: the writer waits, keeps all, and goes on when there is room. */
static void test_full_socket(void **state) {
        static uint32_t lengths[200];
        Stream stream;
        size_t next = 0;
        FrameReader reader;
        FrameWriter writer;
        int pair[2], r;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
                lengths[i] = (uint32_t) (i * 97);
        stream = make_stream(lengths, ARRAY_SIZE(lengths));
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_reader_init(&reader, LIMIT);
        frame_writer_init(&writer);
        for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
                add_frame(&writer, i, lengths[i]);
                r = frame_writer_flush(&writer, pair[0]);
                assert_true(r == 0 || r == -EAGAIN);
        }
        assert_int_equal(r, -EAGAIN);
        do {
                r = frame_writer_flush(&writer, pair[0]);
                assert_true(r == 0 || r == -EAGAIN);
                while (frame_reader_fill(&reader, pair[1]) == FRAME_READY)
                        check_frames(&reader, &stream, &next);
        } while (r == -EAGAIN);
        assert_int_equal(next, stream.n);
        (void) frame_writer_trim(&writer);
        assert_false(frame_writer_trim(&writer));
        assert_true(writer.size <= FRAME_BUFFER_KEEP); /* the large buffer was given back, or never needed */
        frame_reader_deinit(&reader);
        frame_writer_deinit(&writer);
        fd_close_all(pair, 2);
        free(stream.bytes);
}

/* A body from where it lies, behind a frame that waits: however much of both the kernel takes at once. */
static void test_fill(void **state) {
        static const uint32_t lengths[] = { 100, 5000, 3 };
        static const size_t takes[] = { 1, 50, 104, 107, 108, 109, 3000, 5107, 5108 };
        Stream stream = make_stream(lengths, ARRAY_SIZE(lengths));
        const uint8_t *second = stream.bytes + 2 * FRAME_HEADER_SIZE + lengths[0];

        (void) state;
        for (size_t i = 0; i <= ARRAY_SIZE(takes); i++) {
                FrameReader reader;
                FrameWriter writer;
                uint8_t *body = NULL;
                size_t next = 0;
                int pair[2];

                assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
                frame_reader_init(&reader, LIMIT);
                frame_writer_init(&writer);
                add_frame(&writer, 0, lengths[0]);
                assert_int_equal(frame_writer_reserve(&writer, lengths[1], &body), 0);
                memcpy(body, second, 10);
                if (i < ARRAY_SIZE(takes))
                        seam_limit_bytes(SEAM_SENDMSG, takes[i]);
                else
                        seam_fail(SEAM_SENDMSG, 1, EAGAIN);
                frame_writer_fill(&writer, pair[0], second + 10, lengths[1] - 10);
                assert_int_equal(frame_writer_pending(&writer), 5108 - (i < ARRAY_SIZE(takes) ? takes[i] : 0));
                seam_reset();
                add_frame(&writer, 2, lengths[2]);
                assert_int_equal(frame_writer_flush(&writer, pair[0]), 0);
                while (frame_reader_fill(&reader, pair[1]) == FRAME_READY)
                        check_frames(&reader, &stream, &next);
                assert_int_equal(next, ARRAY_SIZE(lengths));
                frame_reader_deinit(&reader);
                frame_writer_deinit(&writer);
                fd_close_all(pair, 2);
        }
        free(stream.bytes);
}

static void test_writer_errors(void **state) {
        uint8_t *body = NULL, bytes[32];
        FrameWriter writer;
        int pair[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, pair), 0);
        frame_writer_init(&writer);
        seam_fail(SEAM_REALLOC, 1, ENOMEM);
        assert_int_equal(frame_writer_reserve(&writer, 5, &body), -ENOMEM);
        assert_null(body);
        add_frame(&writer, 1, 5);
        seam_fail(SEAM_REALLOC, 1, ENOMEM);
        assert_int_equal(frame_writer_reserve(&writer, UINT32_MAX, &body), -ENOMEM);
        assert_int_equal(frame_writer_pending(&writer), 9); /* what was there stays */
        assert_int_equal(frame_writer_flush(&writer, pair[0]), 0);
        assert_int_equal(cmsg_read(pair[1], bytes, sizeof(bytes)), 9);
        for (size_t k = 0; k < 5; k++)
                assert_int_equal(bytes[4 + k], body_byte(1, k));

        pair[1] = fd_close(pair[1]);
        add_frame(&writer, 2, 5);
        assert_int_equal(frame_writer_flush(&writer, pair[0]), -EPIPE);
        frame_writer_deinit(&writer);
        frame_writer_deinit(&writer);
        fd_close_all(pair, 2);
}

static const struct CMUnitTest tests[] = {
        TEST(test_cut_anywhere),  TEST(test_large_frames_cut), TEST(test_byte_by_byte),
        TEST(test_limit),         TEST(test_memory),           TEST(test_end),
        TEST(test_reader_errors), TEST(test_recorded),         TEST(test_partial_sends),
        TEST(test_full_socket),   TEST(test_writer_errors),    TEST(test_fill),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

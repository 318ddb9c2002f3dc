/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes the frame reader, and through it the writer: the input is a stream, its first byte the size of the pieces in
 * which it arrives. Whole frames must come out as a plain decoder of the same bytes finds them, however it was cut.
 */

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cmsg.h"
#include "common/fd.h"
#include "common/frame.h"
#include "common/macro.h"

#define LIMIT 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

/* take_frames() - what the reader has; each compared with the stream at @at, which moves on. False: the stream is lost. */
static bool take_frames(FrameReader *reader, const uint8_t *stream, size_t *at) {
        const uint8_t *body;
        uint32_t length, wire;

        for (;;) {
                int r = frame_reader_next(reader, &body, &length);

                if (r == FRAME_AGAIN)
                        return true;
                memcpy(&wire, stream + *at, sizeof(wire));
                CHECK(length == be32toh(wire));
                CHECK((r == FRAME_TOO_LARGE) == (length > LIMIT));
                if (r == FRAME_TOO_LARGE)
                        return false;
                CHECK(r == FRAME_READY);
                CHECK(memcmp(body, stream + *at + FRAME_HEADER_SIZE, length) == 0);
                *at += FRAME_HEADER_SIZE + length;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        size_t piece, sent = 0, at = 0;
        FrameReader reader;
        bool good = true;
        int fds[2];

        if (size < 1 || fd_socketpair(SOCK_STREAM, fds) < 0)
                return 0;
        piece = data[0] ? data[0] : 1024;
        data++, size--;
        frame_reader_init(&reader, LIMIT);
        while (good && sent < size) {
                ssize_t n = cmsg_send(fds[0], data + sent, MIN(piece, size - sent), NULL, 0);

                CHECK(n > 0);
                sent += (size_t) n;
                while (good && frame_reader_fill(&reader, fds[1]) == FRAME_READY)
                        good = take_frames(&reader, data, &at);
                CHECK(at <= sent);
                CHECK(!good || reader.end - reader.start == sent - at);
        }
        fd_close(fds[0]);
        CHECK(!good || frame_reader_fill(&reader, fds[1]) == FRAME_EOF);
        frame_reader_deinit(&reader);
        fd_close(fds[1]);
        return 0;
}

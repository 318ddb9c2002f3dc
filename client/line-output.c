/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Line output: stdio with a ByteOutput below it. A command that follows something prints with stdio, and must all the same
 * hear signals and its supervisor while the reader of its output sleeps; and a descriptor that somebody else has made
 * non-blocking, which stdio would lose lines to, is to it like any other.
 */

#include "client/line-output.h"

#include <errno.h>

static void changed(ByteOutput *output) {
        (void) output; /* whoever writes looks, in each turn */
}

/* put() - all of it, or what stdio takes for an error. */
static ssize_t put(void *cookie, const char *data, size_t size) {
        LineOutput *output = cookie;

        if (byte_output_append(&output->bytes, data, size) == 0)
                return (ssize_t) size;
        output->bytes.error = -ENOMEM;
        errno = ENOMEM;
        return 0;
}

int line_output_open(LineOutput *output, Endpoint *endpoint, int fd) {
        static const cookie_io_functions_t functions = { .write = put };
        int r;

        *output = LINE_OUTPUT_NULL;
        r = byte_output_open(&output->bytes, endpoint, fd, changed, NULL);
        if (r < 0)
                return r;
        output->bytes.by_lines = true;
        output->file = fopencookie(output, "w", functions);
        if (!output->file) {
                byte_output_close(&output->bytes);
                return -ENOMEM;
        }
        return 0;
}

void line_output_close(LineOutput *output) {
        if (!output->file)
                return;
        (void) fclose(output->file);
        byte_output_close(&output->bytes);
        *output = LINE_OUTPUT_NULL;
}

int line_output_flush(LineOutput *output) {
        (void) fflush(output->file);
        byte_output_flush(&output->bytes);
        return output->bytes.error;
}

bool line_output_has_room(const LineOutput *output) {
        return byte_output_has_room(&output->bytes);
}

bool line_output_is_empty(const LineOutput *output) {
        return byte_output_is_empty(&output->bytes);
}

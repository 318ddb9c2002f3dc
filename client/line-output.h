#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A stdio stream over a descriptor whose reader may be slow, or asleep: writing to the stream never waits, and what the
 * descriptor has not taken yet leaves in later turns of the endpoint (client/byte-output.h).
 */

#include <stdio.h>

#include "client/byte-output.h"

typedef struct LineOutput LineOutput;

/* Null value: LINE_OUTPUT_NULL. It must not move while it is open. */
struct LineOutput {
        ByteOutput bytes;
        FILE *file; /* to write to; NULL: not open */
};
#define LINE_OUTPUT_NULL ((LineOutput){ .bytes.fd = -1, .bytes.poll_fd = -1 })

/* line_output_open() - over @fd, which stays the caller's. 0 or a negative errno. */
int line_output_open(LineOutput *output, Endpoint *endpoint, int fd);

/* line_output_close() - what was not taken is gone. Good for one that is not open. */
void line_output_close(LineOutput *output);

/*
 * line_output_flush() - what was written to the stream is offered to the descriptor. 0, also where it does not take all
 * for now; or the negative errno that keeps it from ever taking more: -EPIPE, -ENOSPC, ...
 */
int line_output_flush(LineOutput *output);

/* line_output_has_room() - whether more is welcome. line_output_is_empty() - whether all was taken. */
bool line_output_has_room(const LineOutput *output);
bool line_output_is_empty(const LineOutput *output);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The streams of `baton call --stream': lines of standard input to items, items to lines of standard output. */

#include "client/byte-output.h"
#include "client/control.h"
#include "client/line-input.h"
#include "proto/values.h"

#define STREAM_ERROR_MAX (VALUES_ERROR_MAX + 64)

/* Why a stream could not go on. */
typedef enum StreamFault {
        STREAM_FAULT_NONE,
        STREAM_FAULT_LINE,      /* a line of the input that is no item */
        STREAM_FAULT_TOO_LARGE, /* an item larger than the other side ever takes */
        STREAM_FAULT_INPUT,     /* the input cannot be read */
        STREAM_FAULT_OUTPUT,    /* the output cannot be written: see output.error */
        STREAM_FAULT_MEMORY,
} StreamFault;

/* An item on its way. */
typedef struct StreamItem {
        uint8_t *payload;
        size_t size;
        char *type;
} StreamItem;

typedef struct Stream {
        ControlCall invocation; /* first: the call's functions are given it */
        bool raw;               /* lines are bytes, not JSON */
        bool escaped;           /* the output is a terminal, which nobody else's bytes may steer */
        const char *type;       /* of raw items; NULL: none */
        LineInput input;
        ByteOutput output;
        StreamItem item;  /* of the line that was last read, and not sent yet */
        bool pending;     /* there is one */
        bool half_closed; /* the input has ended */
        StreamFault fault;
        char error[STREAM_ERROR_MAX]; /* one line about it */
} Stream;

/* stream_open() - 0, or a negative errno. Deinit on every path. */
int stream_open(Stream *stream, Endpoint *endpoint, int input_fd, int output_fd);

/* stream_begin() - the call, as control_begin_at(), with @parameters for everything but its streams. */
void stream_begin(Stream *stream, Control *control, Peer *lane, const char *name, const CallParameters *parameters);

/*
 * stream_wait() - until the call is done, whatever its status, and all its items are written; or the stream is at fault.
 * 0, -EINTR, or an errno of the endpoint.
 */
int stream_wait(Stream *stream, const Control *control);

/* stream_deinit() - cancels the call if it still runs. */
void stream_deinit(Stream *stream);

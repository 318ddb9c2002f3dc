#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Bytes to a descriptor that may be slow: never waiting, never without a bound. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/endpoint.h"

typedef struct ByteOutput ByteOutput;

/* Null value: zeroed with poll_fd -1. */
struct ByteOutput {
        Endpoint *endpoint;
        int fd; /* not ours */
        void (*changed)(ByteOutput *output);
        void *userdata;

        int poll_fd; /* an epoll set that is readable when @fd is writable; -1: a file */
        bool is_socket, watched;
        bool must_poll;    /* it cannot be asked not to wait */
        bool by_lines;     /* set after byte_output_open(): to a pipe, lines of up to PIPE_BUF bytes go as a whole */
        EndpointTask task; /* writes once in each turn */
        int error;         /* negative errno: nothing can be written any more */
        uint8_t *data;     /* @size bytes, of which those before @begin are written */
        size_t begin, size, capacity;
        uint64_t written; /* bytes, ever */
};

/*
 * byte_output_open() - @changed is called when there is room again, when all is written, and after an error. 0, -EMFILE,
 * -ENOMEM, ...
 */
int byte_output_open(ByteOutput *output, Endpoint *endpoint, int fd, void (*changed)(ByteOutput *output),
                     void *userdata);
void byte_output_close(ByteOutput *output);

/* byte_output_flush() - writes now what is there, as far as the descriptor takes it. */
void byte_output_flush(ByteOutput *output);

/* byte_output_has_room() - whether byte_output_append() is welcome; `changed' tells when it is again. */
bool byte_output_has_room(const ByteOutput *output);

/* byte_output_is_empty() - whether the system has taken everything. */
bool byte_output_is_empty(const ByteOutput *output);

/* byte_output_append() - @size bytes more, however many: the bound is for who asks byte_output_has_room(). 0 or -ENOMEM. */
int byte_output_append(ByteOutput *output, const void *data, size_t size);

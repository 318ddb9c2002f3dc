#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Lines of a descriptor, read no faster than they are taken. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/endpoint.h"

typedef struct LineInput LineInput;

/* Outcomes of line_input_peek(), besides 0 and a negative errno. */
enum {
        LINE_INPUT_NONE = 1, /* not yet: `changed' tells when to look again */
        LINE_INPUT_END = 2,
};

struct LineInput {
        Endpoint *endpoint;
        int fd; /* not ours */
        void (*changed)(LineInput *input);
        void *userdata;
        size_t max; /* bytes of a line */

        EndpointTask task; /* reads what cannot be waited for: files */
        bool is_file, wanted, ended;
        int error;
        uint8_t *data; /* @size bytes, of which those before @begin have been taken */
        size_t begin, searched, size, capacity;
        uint64_t number; /* of the line at @begin, from 1 */
};

/*
 * line_input_open() - nothing is read before line_input_peek() asks for it; @changed is called when it is worth another
 * look.
 */
void line_input_open(LineInput *input, Endpoint *endpoint, int fd, size_t max, void (*changed)(LineInput *input),
                     void *userdata);
void line_input_close(LineInput *input);

/*
 * line_input_peek() - the next line without its newline, as long as nothing else is done with @input; the last one needs
 * none. 0; LINE_INPUT_NONE: more is read from now on; LINE_INPUT_END; -E2BIG: longer than may be; or read()'s errno.
 */
int line_input_peek(LineInput *input, const uint8_t **ret_line, size_t *ret_size);

/* line_input_take() - the line that was seen is done with. */
void line_input_take(LineInput *input);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Line input: a buffer between read() and whoever takes lines. Its one promise is that it does not run ahead: while a
 * complete line waits to be taken nothing is read, so that the producer at the other end of a pipe is stopped by the pipe.
 * What is held is one read and the rest of one line, whose length is bounded.
 *
 * A descriptor that can be waited for is read when it is readable, once, so that a blocking one (it may be shared with
 * other programs, which is why it is left as it is) never blocks us. A file cannot be waited for, and need not: it is
 * read once in each turn of the loop.
 */

#include "client/line-input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"

#define READ_SIZE ((size_t) 64 * 1024)

static void want(LineInput *input, bool wanted);

/* make_room() - for one more read: what was taken goes first. */
static int make_room(LineInput *input) {
        uint8_t *grown;

        if (input->begin > 0) {
                memmove(input->data, input->data + input->begin, input->size - input->begin);
                input->size -= input->begin;
                input->searched -= input->begin;
                input->begin = 0;
        }
        if (input->capacity - input->size >= READ_SIZE)
                return 0;
        grown = realloc(input->data, input->size + READ_SIZE);
        if (!grown)
                return -ENOMEM;
        input->data = grown;
        input->capacity = input->size + READ_SIZE;
        return 0;
}

static void read_once(LineInput *input) {
        ssize_t n;
        int r = make_room(input);

        if (r == 0) {
                n = read(input->fd, input->data + input->size, READ_SIZE);
                if (n < 0 && (errno == EINTR || errno == EAGAIN))
                        return;
                if (n < 0)
                        r = -errno;
                else if (n == 0)
                        input->ended = true;
                else
                        input->size += (size_t) n;
        }
        input->error = r;
        want(input, false);
        input->changed(input);
}

static void on_readable(int fd, void *userdata) {
        (void) fd;
        read_once(userdata);
}

static void on_turn(EndpointTask *task) {
        LineInput *input = CONTAINER_OF(task, LineInput, task);

        input->wanted = false;
        read_once(input);
}

/* want() - whether read_once() is to be called when there is something. */
static void want(LineInput *input, bool wanted) {
        int r = 0;

        if (wanted == input->wanted)
                return;
        input->wanted = wanted;
        if (!input->is_file)
                r = endpoint_watch(input->endpoint, input->fd, wanted ? on_readable : NULL, input);
        if (r == -EPERM)
                input->is_file = true;
        else if (r < 0)
                input->error = r;
        if (input->is_file && wanted)
                endpoint_defer(input->endpoint, &input->task);
        else if (input->is_file)
                endpoint_cancel(input->endpoint, &input->task);
}

void line_input_open(LineInput *input, Endpoint *endpoint, int fd, size_t max, void (*changed)(LineInput *input),
                     void *userdata) {
        *input = (LineInput){ .endpoint = endpoint, .fd = fd, .max = max, .changed = changed, .userdata = userdata };
        input->task = ENDPOINT_TASK_NULL(on_turn);
        input->number = 1;
}

void line_input_close(LineInput *input) {
        if (input->endpoint)
                want(input, false);
        free(input->data);
        *input = (LineInput){ .fd = -1 };
}

/* line_end() - of the line at `begin': its newline, the end of all; or NULL. What was looked at is not looked at again. */
static const uint8_t *line_end(LineInput *input) {
        size_t from = MAX(input->searched, input->begin);
        const uint8_t *newline = input->size > from ? memchr(input->data + from, '\n', input->size - from) : NULL;

        input->searched = newline ? (size_t) (newline - input->data) : input->size;
        if (newline)
                return newline;
        return input->ended && input->size > input->begin ? input->data + input->size : NULL;
}

int line_input_peek(LineInput *input, const uint8_t **ret_line, size_t *ret_size) {
        const uint8_t *end = line_end(input);
        size_t size = end ? (size_t) (end - input->data) - input->begin : input->size - input->begin;

        if (size > input->max)
                return -E2BIG;
        if (end) {
                *ret_line = input->data + input->begin;
                *ret_size = size;
                return 0;
        }
        if (input->error == 0 && !input->ended)
                want(input, true);
        if (input->error < 0)
                return input->error;
        return input->ended ? LINE_INPUT_END : LINE_INPUT_NONE;
}

void line_input_take(LineInput *input) {
        const uint8_t *end = line_end(input);

        if (!end)
                return;
        input->begin = (size_t) (end - input->data);
        input->begin += input->begin < input->size;
        input->searched = input->begin;
        input->number++;
}

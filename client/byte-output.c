/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Byte output: what is appended in a turn of the loop leaves at its end, as far as the descriptor takes it. The rest waits
 * here, and while it is more than HIGH there is no room: who produces then stops, and so on back to the first producer.
 *
 * The descriptor is somebody else's, and shared: it is not made non-blocking. Each write by itself asks not to wait. Where
 * that cannot be asked, of a terminal and, by older kernels, of a pipe, poll() is asked first: what it calls writable takes
 * PIPE_BUF bytes without blocking, so that is what it is given at a time. A file takes everything. The endpoint waits for
 * readable descriptors only, so "writable" goes through an epoll set of our own, which is readable then.
 */

#include "client/byte-output.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/macro.h"

#define HIGH ((size_t) 64 * 1024)

static bool is_writable(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };

        return poll(&p, 1, 0) > 0;
}

/* write_polled() - to what cannot be asked not to wait. */
static ssize_t write_polled(int fd, const uint8_t *data, size_t size) {
        ssize_t n;

        if (!is_writable(fd))
                return -EAGAIN;
        n = write(fd, data, MIN(size, (size_t) PIPE_BUF));
        return n < 0 ? -errno : n;
}

/* write_now() - -EOPNOTSUPP: it cannot be asked for that. */
static ssize_t write_now(int fd, const uint8_t *data, size_t size) {
        const struct iovec part = { .iov_base = (void *) (uintptr_t) data, .iov_len = size };
        ssize_t n = pwritev2(fd, &part, 1, -1, RWF_NOWAIT);

        if (n < 0 && (errno == ENOSYS || errno == EINVAL || errno == ESPIPE))
                return -EOPNOTSUPP;
        return n < 0 ? -errno : n;
}

/*
 * piece() - what is written at once. A pipe takes PIPE_BUF bytes or none, so that, of whole lines, none is mixed with what
 * others write there: our supervisor, or a neighbour in a script.
 */
static size_t piece(const ByteOutput *output, const uint8_t *data, size_t size) {
        const uint8_t *newline;

        if (!output->by_lines)
                return size;
        size = MIN(size, (size_t) PIPE_BUF);
        newline = memrchr(data, '\n', size);
        return newline ? (size_t) (newline - data) + 1 : size;
}

/* write_some() - how many bytes were taken; -EAGAIN: none for now; or what write() said. */
static ssize_t write_some(ByteOutput *output) {
        const uint8_t *data = output->data + output->begin;
        size_t size = output->size - output->begin;
        ssize_t n;

        if (output->is_socket)
                n = send(output->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        else if (output->poll_fd < 0)
                n = write(output->fd, data, size);
        else {
                size = piece(output, data, size);
                n = output->must_poll ? -EOPNOTSUPP : write_now(output->fd, data, size);
                output->must_poll = n == -EOPNOTSUPP;
                return output->must_poll ? write_polled(output->fd, data, size) : n;
        }
        return n < 0 ? -errno : n;
}

static void on_writable(int fd, void *userdata);

static void watch(ByteOutput *output, bool wanted) {
        int r;

        if (output->poll_fd < 0 || wanted == output->watched)
                return;
        output->watched = wanted;
        r = endpoint_watch(output->endpoint, output->poll_fd, wanted ? on_writable : NULL, output);
        if (r < 0)
                output->error = r;
}

/* write_all() - as much as the descriptor takes. */
static void write_all(ByteOutput *output) {
        bool had_room = byte_output_has_room(output);

        while (output->begin < output->size && !output->error) {
                ssize_t n = write_some(output);

                if (n == -EAGAIN)
                        break;
                if (n > 0) {
                        output->begin += (size_t) n;
                        output->written += (uint64_t) n;
                } else if (n != -EINTR)
                        output->error = n < 0 ? (int) n : -EIO;
        }
        if (output->begin == output->size)
                output->begin = output->size = 0;
        watch(output, output->size > 0 && !output->error);
        if (output->error || output->size == 0 || (!had_room && byte_output_has_room(output)))
                output->changed(output);
}

static void on_writable(int fd, void *userdata) {
        (void) fd;
        write_all(userdata);
}

static void on_turn(EndpointTask *task) {
        write_all(CONTAINER_OF(task, ByteOutput, task));
}

void byte_output_flush(ByteOutput *output) {
        endpoint_cancel(output->endpoint, &output->task);
        write_all(output);
}

/* open_poll() - the epoll set, left -1 for what cannot be waited for. */
static int open_poll(ByteOutput *output) {
        struct epoll_event event = { .events = EPOLLOUT };
        _cleanup_fd_ int fd = epoll_create1(EPOLL_CLOEXEC);

        if (fd < 0)
                return -errno;
        if (epoll_ctl(fd, EPOLL_CTL_ADD, output->fd, &event) == 0)
                output->poll_fd = fd_take(&fd);
        else if (errno != EPERM)
                return -errno;
        return 0;
}

int byte_output_open(ByteOutput *output, Endpoint *endpoint, int fd, void (*changed)(ByteOutput *output),
                     void *userdata) {
        struct stat st;

        *output = (ByteOutput){ .endpoint = endpoint, .fd = fd, .changed = changed, .userdata = userdata };
        output->poll_fd = -1;
        output->task = ENDPOINT_TASK_NULL(on_turn);
        output->is_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
        return open_poll(output);
}

void byte_output_close(ByteOutput *output) {
        if (output->endpoint) {
                watch(output, false);
                endpoint_cancel(output->endpoint, &output->task);
                (void) fd_close(output->poll_fd);
        }
        free(output->data);
        *output = (ByteOutput){ .fd = -1, .poll_fd = -1 };
}

bool byte_output_has_room(const ByteOutput *output) {
        return !output->error && output->size - output->begin < HIGH;
}

bool byte_output_is_empty(const ByteOutput *output) {
        return output->begin == output->size;
}

/* make_room() - for @size bytes more; what is written goes first. */
static int make_room(ByteOutput *output, size_t size) {
        size_t left = output->size - output->begin;
        uint8_t *grown;

        if (output->capacity - output->size >= size)
                return 0;
        if (output->begin > 0)
                memmove(output->data, output->data + output->begin, left);
        output->begin = 0;
        output->size = left;
        if (output->capacity - left >= size)
                return 0;
        grown = realloc(output->data, MAX(left + size, 2 * output->capacity));
        if (!grown)
                return -ENOMEM;
        output->data = grown;
        output->capacity = MAX(left + size, 2 * output->capacity);
        return 0;
}

int byte_output_append(ByteOutput *output, const void *data, size_t size) {
        if (make_room(output, size) < 0)
                return -ENOMEM;
        if (size > 0)
                memcpy(output->data + output->size, data, size);
        output->size += size;
        /* While it is watched, it is full: the turn when it is writable comes by itself. */
        if (!output->watched)
                endpoint_defer(output->endpoint, &output->task);
        return 0;
}

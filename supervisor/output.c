/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Output: two pipes and the records of the RPC channel become numbered lines. The first rule is that a runner never waits
 * for us: a pipe is always read, whether anybody reads the history or not, and the history drops its oldest. The second
 * is that no runner keeps the loop for itself: one read of a bounded size per pipe and turn.
 *
 * The exception to the first is asked for with the start (output_park()): as long as somebody follows, a pipe is read only
 * as far as even the costliest lines would fit beside those that the follower has not been given; with less room than
 * is worth a read, both are parked until it asks again, or has not for OUTPUT_FOLLOW_US. With several followers the one who
 * asked last counts. What the pipes of such a runner hold at its end must fit as well: the history is then given more
 * room, for as long as it takes to be fetched.
 *
 * The read ends are duplicated in the keeper, so that the lines of a runner outlive a supervisor. Closing a descriptor
 * whose duplicate lives would leave it in the epoll set: at the end the pipes are handed to the owner, who drops the
 * duplicate first. O_NONBLOCK is set on the read end alone, an open file of its own; the runner's end stays as programs
 * expect it.
 *
 * Readers are told at the end of the turn, once for all lines that came in it. After the runner's end the pipes are read
 * only until they are empty, not until their end: a daemon that the runner left behind may hold them open for ever.
 */

#include "supervisor/output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"

static void pipe_ready(LoopIo *io, unsigned events);
static void wake_readers(LoopTask *task);
static void follower_is_late(LoopTimer *timer);

void output_init(Output *output, Loop *loop, size_t max_lines, size_t max_bytes) {
        *output = (Output){
                .loop = loop,
                .wake = LOOP_TASK_NULL(wake_readers),
                .unpark = LOOP_TIMER_NULL(follower_is_late),
                .max_lines = max_lines,
                .max_bytes = max_bytes,
        };
        history_init(&output->history, max_lines, max_bytes);
        TAILQ_INIT(&output->readers);
        for (unsigned i = 0; i < OUTPUT_PIPES; i++)
                output->pipes[i] = (OutputPipe){
                        .output = output,
                        .source = i,
                        .fd = -1,
                        .io = LOOP_IO_NULL(pipe_ready),
                };
}

void output_deinit(Output *output) {
        assert(TAILQ_EMPTY(&output->readers));
        for (unsigned i = 0; i < OUTPUT_PIPES; i++) {
                fd_close(output_take_pipe(output, i));
                free(output->pipes[i].begun);
        }
        loop_task_cancel(&output->wake);
        loop_timer_stop(&output->unpark);
        history_deinit(&output->history);
}

static int open_pipe(OutputPipe *pipe, int *ret_write) {
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0) {
                int r = -errno;

                fd_close_all(fds, 2);
                return r;
        }
        pipe->fd = fds[0];
        *ret_write = fds[1];
        return 0;
}

int output_open(Output *output, int ret_fds[OUTPUT_PIPES]) {
        int fds[OUTPUT_PIPES] = { -1, -1 };

        for (unsigned i = 0; i < OUTPUT_PIPES; i++) {
                int r = open_pipe(&output->pipes[i], &fds[i]);

                if (r < 0) {
                        output->pipes[0].fd = fd_close(output->pipes[0].fd);
                        fd_close_all(fds, OUTPUT_PIPES);
                        return r;
                }
        }
        for (unsigned i = 0; i < OUTPUT_PIPES; i++) {
                loop_io_set(output->loop, &output->pipes[i].io, output->pipes[i].fd, LOOP_IN);
                ret_fds[i] = fds[i];
        }
        return 0;
}

static void append_line(OutputPipe *pipe, const char *text, size_t size, bool partial) {
        history_append(&pipe->output->history, &(HistoryInfo){ .source = pipe->source }, text, size, partial);
}

/* keep_begun() - adds bytes to the line that has begun; they fit below HISTORY_TEXT_MAX. */
static void keep_begun(OutputPipe *pipe, const char *text, size_t size) {
        size_t needed = pipe->n_begun + size;

        if (needed > pipe->size_begun) {
                size_t room = MIN(MAX(2 * needed, 128), (size_t) HISTORY_TEXT_MAX);
                char *larger = realloc(pipe->begun, room);

                if (!larger) /* the line loses its middle; reading goes on */
                        return;
                pipe->begun = larger;
                pipe->size_begun = room;
        }
        memcpy(pipe->begun + pipe->n_begun, text, size);
        pipe->n_begun += size;
}

static void drop_begun(OutputPipe *pipe) {
        free(pipe->begun);
        pipe->begun = NULL;
        pipe->n_begun = pipe->size_begun = 0;
}

/* end_line() - @text ends what has begun. */
static void end_line(OutputPipe *pipe, const char *text, size_t size) {
        if (pipe->n_begun == 0) {
                append_line(pipe, text, size, false);
                return;
        }
        if (size > 0)
                keep_begun(pipe, text, size);
        append_line(pipe, pipe->begun, pipe->n_begun, false);
        drop_begun(pipe);
}

/* take_bytes() - cuts what was read at its newlines, and at HISTORY_TEXT_MAX where none comes. */
static void take_bytes(OutputPipe *pipe, const char *text, size_t size) {
        while (size > 0) {
                size_t room = HISTORY_TEXT_MAX - pipe->n_begun, n = MIN(size, room);
                const char *newline = memchr(text, '\n', MIN(size, room + 1));

                if (newline) {
                        n = (size_t) (newline - text);
                        end_line(pipe, text, n);
                        n++;
                } else if (n == 0) {
                        append_line(pipe, pipe->begun, pipe->n_begun, true);
                        drop_begun(pipe);
                } else
                        keep_begun(pipe, text, n);
                text += n;
                size -= n;
        }
        if (!TAILQ_EMPTY(&pipe->output->readers))
                loop_task_queue(pipe->output->loop, &pipe->output->wake);
}

/* ---- parking ---- */

/* is_followed() - somebody will ask for the next line; who waits for it has all the time there is. */
static bool is_followed(Output *output) {
        uint64_t now = clock_now();

        if (output->follow_deadline > 0 && !TAILQ_EMPTY(&output->readers))
                output->follow_deadline = clock_after(now, OUTPUT_FOLLOW_US);
        return output->follow_deadline > now;
}

/* room() - how many bytes may be read now: what lines have begun ends sooner or later, and takes its part. */
static size_t room(Output *output) {
        HistoryMark mark = output->given;

        if (!output->may_park || !is_followed(output))
                return OUTPUT_READ_SIZE;
        for (unsigned i = 0; i < OUTPUT_PIPES; i++)
                mark.offset -= output->pipes[i].n_begun + sizeof(HistoryLine);
        return MIN(history_room(&output->history, mark), (size_t) OUTPUT_READ_SIZE);
}

static void park(Output *output) {
        output->parked = true;
        for (unsigned i = 0; i < OUTPUT_PIPES; i++)
                loop_io_stop(&output->pipes[i].io);
        loop_timer_set(output->loop, &output->unpark, output->follow_deadline);
}

static void unpark(Output *output) {
        loop_timer_stop(&output->unpark);
        if (!output->parked)
                return;
        output->parked = false;
        for (unsigned i = 0; i < OUTPUT_PIPES; i++) {
                OutputPipe *pipe = &output->pipes[i];

                if (pipe->fd >= 0 && !pipe->ended)
                        loop_io_set(output->loop, &pipe->io, pipe->fd, LOOP_IN);
        }
}

/* widen() - the runner is gone, and what its pipes hold was promised to the follower. */
static void widen(Output *output) {
        if (!output->may_park || !is_followed(output))
                return;
        history_set_bounds(&output->history, SIZE_MAX, OUTPUT_PARK_BYTES, 0);
        loop_timer_set(output->loop, &output->unpark, output->follow_deadline);
}

void output_park(Output *output) {
        output->may_park = true;
        output_follow(output, 0);
}

void output_follow(Output *output, uint64_t seq) {
        if (!output->may_park)
                return;
        output->follow_deadline = clock_after(clock_now(), OUTPUT_FOLLOW_US);
        output->given = history_mark(&output->history, seq);
        if (output->history.max_bytes > output->max_bytes) {
                history_set_bounds(&output->history, output->max_lines, output->max_bytes, output->given.seq);
                widen(output);
        } else if (output->parked && room(output) >= OUTPUT_PARK_MIN)
                unpark(output);
}

void output_unfollow(Output *output) {
        output->follow_deadline = 0;
        unpark(output);
        history_set_bounds(&output->history, output->max_lines, output->max_bytes, UINT64_MAX);
}

static void follower_is_late(LoopTimer *timer) {
        Output *output = CONTAINER_OF(timer, Output, unpark);

        if (is_followed(output)) /* it has asked since */
                loop_timer_set(output->loop, timer, output->follow_deadline);
        else
                output_unfollow(output);
}

/* ---- reading ---- */

/* read_pipe() - one read of at most @size. Returns the bytes, 0 at the end, or a negative errno. */
static ssize_t read_pipe(OutputPipe *pipe, size_t size) {
        char buffer[OUTPUT_READ_SIZE];
        ssize_t n = read(pipe->fd, buffer, size);

        if (n < 0)
                return -errno;
        if (n == 0)
                pipe->ended = true;
        else
                take_bytes(pipe, buffer, (size_t) n);
        return n;
}

static void pipe_ready(LoopIo *io, unsigned events) {
        OutputPipe *pipe = CONTAINER_OF(io, OutputPipe, io);

        size_t size = room(pipe->output);

        (void) events;
        if (size < OUTPUT_PARK_MIN) {
                park(pipe->output);
                return;
        }
        (void) read_pipe(pipe, size);
        if (pipe->ended)
                loop_io_stop(&pipe->io);
}

static void finish_pipe(OutputPipe *pipe) {
        ssize_t n = 1;

        loop_io_stop(&pipe->io);
        for (size_t total = 0; pipe->fd >= 0 && !pipe->ended && n > 0 && total < OUTPUT_DRAIN_MAX; total += (size_t) n)
                do
                        n = read_pipe(pipe, OUTPUT_READ_SIZE);
                while (n == -EINTR);
        if (pipe->n_begun > 0)
                end_line(pipe, NULL, 0);
}

void output_finish(Output *output) {
        widen(output);
        for (unsigned i = 0; i < OUTPUT_PIPES; i++)
                finish_pipe(&output->pipes[i]);
}

int output_take_pipe(Output *output, HistorySource source) {
        OutputPipe *pipe = &output->pipes[source];

        loop_io_stop(&pipe->io);
        return fd_take(&pipe->fd);
}

void output_end(Output *output) {
        output->ended = true;
        loop_task_queue(output->loop, &output->wake);
}

int output_record(Output *output, uint64_t seq, const HistoryInfo *info, const char *text) {
        if (seq <= output->record_seq)
                return -EALREADY;
        output->record_seq = seq;
        history_append(&output->history, info, text, strlen(text), false);
        if (!TAILQ_EMPTY(&output->readers))
                loop_task_queue(output->loop, &output->wake);
        return 0;
}

void output_wait(Output *output, OutputReader *reader) {
        assert(!reader->output);
        reader->output = output;
        reader->turn = output->turn;
        TAILQ_INSERT_TAIL(&output->readers, reader, link);
}

void output_unwait(OutputReader *reader) {
        if (!reader->output)
                return;
        TAILQ_REMOVE(&reader->output->readers, reader, link);
        reader->output = NULL;
}

/* A callback may wait again, behind those that wait now, or take another one off: those of this turn alone are called. */
static void wake_readers(LoopTask *task) {
        Output *output = CONTAINER_OF(task, Output, wake);
        uint64_t turn = ++output->turn;
        OutputReader *reader;

        while ((reader = TAILQ_FIRST(&output->readers)) && reader->turn < turn) {
                output_unwait(reader);
                reader->callback(reader);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log input: the two pipes and the records of one instance. No instance keeps the loop for itself: one batch of a bounded
 * size per pipe and turn. As a line costs more than its bytes, where lines are short the batches become smaller.
 *
 * The read ends are duplicated in the keeper, so that what a pipe holds outlives a supervisor. Closing a descriptor whose
 * duplicate lives would leave it in the epoll set: at the end the pipes are handed to the owner, who drops the duplicate
 * first. O_NONBLOCK is set on the read end alone, an open file of its own; the runner's end stays as programs expect it.
 *
 * After the runner's end the pipes are read only until they are empty, not until their end: a daemon that the runner left
 * behind may hold them open for ever. What they hold then comes into the ring's stage in any case, also of a log that is
 * parked: the instance is free to go, its lines wait there.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/runner-log-internal.h"

enum {
        LINES_PER_BATCH = 2048,
        SMALLER_MAX = 5, /* 2 KiB */
};

static void pipe_ready(LoopIo *io, unsigned events);

static LogInput *input_of(LogPipe *pipe) {
        return CONTAINER_OF(pipe - pipe->source, LogInput, pipes);
}

void log_input_init(LogInput *input, RunnerLog *log, uint64_t instance) {
        *input = (LogInput){ .log = log, .instance = instance };
        for (unsigned i = 0; i < LOG_PIPES; i++)
                input->pipes[i] = (LogPipe){
                        .io = LOOP_IO_NULL(pipe_ready),
                        .source = (uint8_t) i,
                        .fd = -1,
                };
        LIST_INSERT_HEAD(&log->inputs, input, link);
}

void log_input_deinit(LogInput *input) {
        if (!input->log)
                return;
        for (unsigned i = 0; i < LOG_PIPES; i++)
                fd_close(log_input_take(input, (LogSource) i));
        LIST_REMOVE(input, link);
        input->log = NULL;
}

static int open_pipe(LogPipe *pipe, int *ret_write) {
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

int log_input_open(LogInput *input, int ret_fds[LOG_PIPES]) {
        int fds[LOG_PIPES] = { -1, -1 };

        for (unsigned i = 0; i < LOG_PIPES; i++) {
                int r = open_pipe(&input->pipes[i], &fds[i]);

                if (r < 0) {
                        input->pipes[0].fd = fd_close(input->pipes[0].fd);
                        fd_close_all(fds, LOG_PIPES);
                        return r;
                }
        }
        if (input->log->config->park) /* the start counts as the first sign of a follower */
                input->log->follow_deadline = clock_after(clock_now(), input->log->store->follow_us);
        log_input_resume(input);
        memcpy(ret_fds, fds, sizeof(fds));
        return 0;
}

int log_input_adopt(LogInput *input, LogSource source, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        LogPipe *pipe = &input->pipes[source];

        /* What can seek cannot be watched. The cheapest question of all: a takeover asks it of thousands. */
        if (pipe->fd >= 0 || lseek(fd, 0, SEEK_CUR) >= 0 || errno != ESPIPE)
                return -EINVAL; /* that it does not block is of the pipe as log_input_open() made it, and crosses with it */
        if (input->log->ring)
                input->record_seq = log_ring_record_seq(input->log->ring, input->instance);
        pipe->fd = fd_take(&fd);
        log_input_resume(input);
        return 0;
}

void log_input_restored(LogInput *input) {
        if (input->log->ring)
                input->record_seq = log_ring_record_seq(input->log->ring, input->instance);
}

void log_input_born(LogInput *input, pid_t pid) {
        input->pid = pid;
}

/* ---- watching ---- */

void log_input_rest(LogInput *input) {
        for (unsigned i = 0; i < LOG_PIPES; i++)
                loop_io_stop(&input->pipes[i].io);
}

void log_input_resume(LogInput *input) {
        RunnerLog *log = input->log;

        if (log->parked || log->storing)
                return;
        for (unsigned i = 0; i < LOG_PIPES; i++) {
                LogPipe *pipe = &input->pipes[i];

                if (pipe->fd >= 0 && !pipe->ended)
                        loop_io_set(log->store->loop, &pipe->io, pipe->fd, LOOP_IN);
        }
}

int log_input_take(LogInput *input, LogSource source) {
        LogPipe *pipe = &input->pipes[source];

        loop_io_stop(&pipe->io);
        return fd_take(&pipe->fd);
}

/* ---- reading ---- */

/* discard() - there is no memory for a ring: the runner must not wait for ever, and its lines are counted. */
static ssize_t discard(LogPipe *pipe) {
        char rest[4096];
        ssize_t n = read(pipe->fd, rest, sizeof(rest));

        for (const char *p = rest; n > 0 && (p = memchr(p, '\n', (size_t) (rest + n - p))); p++)
                runner_log_lose(input_of(pipe)->log);
        return n < 0 ? -errno : n;
}

/* take() - one batch. As log_scratch_take(). */
static ssize_t take(LogPipe *pipe, bool ready) {
        LogInput *input = input_of(pipe);
        RunnerLog *log = input->log;
        uint64_t lines;
        int stream = ready ? log_ring_claim(log->ring, input->instance, input->pid, pipe->source) : -EBUSY;
        ssize_t n;

        if (stream < 0)
                return discard(pipe);
        n = log_scratch_take(log->store->scratch, log->ring, stream, pipe->fd, LOG_RING_BATCH >> pipe->smaller);
        if (n == 0) /* closed: what has begun is a line */
                log_ring_end(log->ring, stream);
        if (n < 0)
                return n;
        lines = log_ring_state(log->ring)->next_seq;
        runner_log_frame(log, stream);
        lines = log_ring_state(log->ring)->next_seq - lines;
        if (lines > LINES_PER_BATCH)
                pipe->smaller = MIN(pipe->smaller + 1, SMALLER_MAX);
        else if (lines < LINES_PER_BATCH / 4 && pipe->smaller > 0)
                pipe->smaller--;
        return n;
}

/* has_ended_silently() - that needs no ring. */
static bool has_ended_silently(const LogPipe *pipe) {
        struct pollfd p = { .fd = pipe->fd, .events = POLLIN };

        return poll(&p, 1, 0) == 1 && !(p.revents & POLLIN) && p.revents & POLLHUP;
}

static void pipe_ready(LoopIo *io, unsigned events) {
        LogPipe *pipe = CONTAINER_OF(io, LogPipe, io);
        RunnerLog *log = input_of(pipe)->log;
        int r;

        (void) events;
        if (!log->ring && has_ended_silently(pipe)) {
                pipe->ended = true;
                loop_io_stop(io);
                return;
        }
        r = runner_log_prepare(log);
        if (r > 0)
                return;
        pipe->ended = take(pipe, r == 0) == 0;
        if (pipe->ended)
                loop_io_stop(io);
        runner_log_came(log);
}

/* finish_pipe() - what it holds, up to a bound, and the end of what has begun. */
static void finish_pipe(LogPipe *pipe) {
        RunnerLog *log = input_of(pipe)->log;
        int held = 0;
        ssize_t n = 1;
        bool ready;

        loop_io_stop(&pipe->io);
        if (pipe->fd < 0 || pipe->ended || ioctl(pipe->fd, FIONREAD, &held) < 0 || (held == 0 && !log->ring))
                return;
        ready = runner_log_prepare(log) >= 0;
        for (size_t total = 0; held > 0 && n > 0 && total < MAX((size_t) held, (size_t) LOG_RING_DRAIN_MAX);
             total += (size_t) MAX(n, (ssize_t) 0))
                do
                        n = take(pipe, ready);
                while (n == -EINTR);
        if (ready && n != 0) {
                int stream = log_ring_claim(log->ring, input_of(pipe)->instance, input_of(pipe)->pid, pipe->source);

                if (stream >= 0) {
                        log_ring_end(log->ring, stream);
                        runner_log_frame(log, stream);
                }
        }
        pipe->ended = true;
}

void log_input_finish(LogInput *input) {
        for (unsigned i = 0; i < LOG_PIPES; i++)
                finish_pipe(&input->pipes[i]);
        runner_log_came(input->log);
}

int log_input_record(LogInput *input, uint64_t seq, const LogLine *record) {
        RunnerLog *log = input->log;
        LogLine line = *record;

        if (seq <= input->record_seq)
                return -EALREADY;
        input->record_seq = seq;
        if (runner_log_prepare(log) < 0) {
                runner_log_lose(log);
                return -ENOMEM;
        }
        line.source = LOG_SOURCE_RECORD;
        line.instance = input->instance;
        line.pid = input->pid;
        runner_log_append(log, &line, seq);
        return 0;
}

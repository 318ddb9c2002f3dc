/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log file: lines go out in batches, one write() each, appended; never an fsync(). After each batch the ring is told in
 * one commit how long the file is and which line comes next. A batch that was cut short by a full disk is cut off again,
 * and so is, by the next supervisor, one that was written and not committed: no line is in it twice, none halved.
 *
 * The file is known by device and inode. Once a second at most it is looked for by its path: where somebody has renamed or
 * removed it, a new one is begun, and where somebody has shortened it, appending goes on from there; so what others use
 * to rotate files works without a word to us. Our own rotation renames FILE.2 to FILE.3, FILE.1 to FILE.2, FILE to FILE.1,
 * up to the first gap; a crash between two of these leaves a gap.
 *
 * What cannot be written stays in the ring. Nothing is said here but the first failure and its end: lines that the ring had
 * to drop meanwhile are counted, and the file tells of them where they would have been.
 *
 * Nothing but an ordinary file is opened, and no symbolic link is followed: who may write the directory must not be able
 * to turn a log against another file.
 */

#include "supervisor/log-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"

#define CHECK_US     (1 * USEC_PER_SEC)
#define ROTATE_US    (60 * USEC_PER_SEC) /* before a rotation that failed is tried again */
#define ROTATED_SIZE 16                  /* ".1000" */

struct LogFile {
        const char *name, *path;
        const LogConfig *config;
        int fd;
        int error;
        uint64_t retry_us, checked_us, no_rotation_us; /* monotonic */
        bool broken_line;                              /* what is in the file does not end with a newline */
};

int log_file_new(LogFile **ret_file, const char *name, const char *path, const LogConfig *config) {
        LogFile *file = calloc(1, sizeof(*file));

        if (!file)
                return -ENOMEM;
        *file = (LogFile){ .name = name, .path = path, .config = config, .fd = -1 };
        *ret_file = file;
        return 0;
}

LogFile *log_file_free(LogFile *file) {
        if (!file)
                return NULL;
        fd_close(file->fd);
        free(file);
        return NULL;
}

int log_file_error(const LogFile *file) {
        return file->error;
}

uint64_t log_file_retry(const LogFile *file) {
        return file->retry_us;
}

/* -------------------------------------------------------------------------------------------------------------- opening */

/* make_directory() - the one that the file is in, if it is missing. */
static int make_directory(const char *path) {
        const char *slash = strrchr(path, '/');
        _cleanup_free_ char *directory = NULL;

        if (!slash || slash == path)
                return -ENOENT;
        directory = strndup(path, (size_t) (slash - path));
        if (!directory)
                return -ENOMEM;
        return mkdir(directory, 0755) < 0 ? -errno : 0;
}

/* create() - of its owner and mode, whatever the umask is. A descriptor, or a negative errno. */
static int create(const LogConfig *config, const char *path) {
        _cleanup_fd_ int fd = -1;

        for (bool again = true;; again = false) {
                fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
                if (fd >= 0 || errno != ENOENT || !again)
                        break;
                if (make_directory(path) < 0)
                        return -ENOENT;
        }
        if (fd < 0)
                return -errno;
        if ((config->uid != (uid_t) -1 || config->gid != (gid_t) -1) && fchown(fd, config->uid, config->gid) < 0)
                return -errno;
        if (fchmod(fd, config->mode ? config->mode : (mode_t) LOG_MODE_DEFAULT) < 0)
                return -errno;
        return fd_take(&fd);
}

/* open_or_create() - @ret_file->began_us is set. */
static int open_or_create(const LogConfig *config, const char *path, LogRingFile *ret_file) {
        _cleanup_fd_ int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        struct statx file;

        if (fd < 0 && errno == ENOENT)
                fd = create(config, path);
        else if (fd < 0)
                fd = -errno;
        if (fd < 0)
                return fd;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &file) < 0)
                return -errno;
        if (!S_ISREG(file.stx_mode))
                return -EMEDIUMTYPE;
        ret_file->device = (uint64_t) file.stx_dev_major << 32 | file.stx_dev_minor;
        ret_file->inode = file.stx_ino;
        ret_file->length = file.stx_size;
        ret_file->began_us = clock_wall();
        if (file.stx_size > 0 && file.stx_mask & STATX_BTIME)
                ret_file->began_us = (uint64_t) file.stx_btime.tv_sec * USEC_PER_SEC;
        return fd_take(&fd);
}

/* adopt() - the descriptor @fd_consume, as which the path is open now: the file we had, or another. */
static int adopt(LogFile *file, LogRing *ring, int fd_consume, const LogRingFile *found) {
        _cleanup_fd_ int fd = fd_consume;
        LogRingFile now = log_ring_state(ring)->file;
        char end = '\n';

        if (now.device == found->device && now.inode == found->inode) {
                if (found->length > now.length && ftruncate(fd, (off_t) now.length) < 0)
                        return -errno;
                now.length = MIN(now.length, found->length);
        } else {
                now.device = found->device;
                now.inode = found->inode;
                now.length = found->length;
                now.began_us = found->began_us;
        }
        if (now.length > 0 && pread(fd, &end, 1, (off_t) (now.length - 1)) < 0)
                return -errno;
        file->broken_line = end != '\n';
        log_ring_set_file(ring, &now);
        file->fd = fd_take(&fd);
        return 0;
}

static int open_file(LogFile *file, LogRing *ring) {
        LogRingFile found = { 0 };
        int fd = open_or_create(file->config, file->path, &found);

        if (fd < 0)
                return fd;
        return adopt(file, ring, fd, &found);
}

/* check() - is the path still the file that is open? Else it is closed. */
static void check(LogFile *file, uint64_t now) {
        struct stat path, ours;

        if (file->fd < 0 || (now < file->checked_us + CHECK_US && file->checked_us > 0))
                return;
        file->checked_us = now;
        if (stat(file->path, &path) < 0 || fstat(file->fd, &ours) < 0 || path.st_dev != ours.st_dev ||
            path.st_ino != ours.st_ino)
                file->fd = fd_close(file->fd);
}

/* ------------------------------------------------------------------------------------------------------------- rotation */

static char *rotated(const LogFile *file, unsigned number, char *to) {
        (void) sprintf(to, "%s.%u", file->path, number);
        return to;
}

/* make_way() - FILE.1 and those behind it move up by one. 0 or a negative errno. */
static int make_way(const LogFile *file, char *from, char *to) {
        unsigned gap = 1, max = MIN(file->config->keep, (uint32_t) LOG_KEEP_MAX);
        struct stat found;

        while (gap < max && lstat(rotated(file, gap, to), &found) == 0)
                gap++;
        for (; gap > 1; gap--)
                if (rename(rotated(file, gap - 1, from), rotated(file, gap, to)) < 0)
                        return -errno;
        return 0;
}

static int rotate(LogFile *file, LogRing *ring) {
        const LogConfig *config = file->config;
        size_t size = strlen(file->path) + ROTATED_SIZE;
        _cleanup_free_ char *from = malloc(size), *to = malloc(size);
        LogRingFile now = log_ring_state(ring)->file;
        int r;

        if (!from || !to)
                return -ENOMEM;
        if (config->keep == 0) {
                if (ftruncate(file->fd, 0) < 0)
                        return -errno;
                now.length = 0;
                now.began_us = clock_wall();
                log_ring_set_file(ring, &now);
                return 0;
        }
        r = make_way(file, from, to);
        if (r < 0)
                return r;
        if (rename(file->path, rotated(file, 1, to)) < 0)
                return -errno;
        file->fd = fd_close(file->fd);
        return open_file(file, ring);
}

/* is_due() - whether the next @size bytes belong into a new file. */
static bool is_due(const LogFile *file, const LogRing *ring, size_t size, uint64_t now) {
        const LogConfig *config = file->config;
        const LogRingFile *state = &log_ring_state(ring)->file;
        uint64_t wall;

        if (state->length == 0 || now < file->no_rotation_us)
                return false;
        if (config->max_size > 0 && state->length + size > config->max_size)
                return true;
        wall = clock_wall();
        return config->max_age_us > 0 && wall > state->began_us && wall - state->began_us >= config->max_age_us;
}

/* rotate_if_due() - one that cannot be rotated is written on: better too long than without the lines. */
static int rotate_if_due(LogFile *file, LogRing *ring, size_t size, uint64_t now) {
        int r;

        if (!is_due(file, ring, size, now))
                return 0;
        r = rotate(file, ring);
        if (r == 0 || file->fd < 0)
                return r;
        log_warning("runner %s: cannot rotate its log %s: %s; it grows, and is tried again in a minute", file->name,
                    file->path, strerror(-r));
        file->no_rotation_us = now + ROTATE_US;
        return 0;
}

/* -------------------------------------------------------------------------------------------------------------- writing */

/* put_gap() - the line that stands for those that were dropped before this place. */
static size_t put_gap(const LogFile *file, uint64_t n, char *buffer) {
        char text[80];
        LogLine line = {
                .time_us = clock_wall(),
                .monotonic_us = clock_now(),
                .pid = getpid(),
                .source = LOG_SOURCE_RECORD,
                .level = LOG_LEVEL_WARNING,
                .target = "baton",
                .file = "",
                .text = text,
        };

        line.size = (size_t) snprintf(text, sizeof(text), "%" PRIu64 " lines were dropped here", n);
        return log_line_write(&line, file->name, file->config->format, buffer);
}

/* fill() - the next lines, as many as go into one batch and one file. How far that is, in @next. */
static size_t fill(const LogFile *file, const LogRing *ring, char *buffer, LogRingFile *next) {
        const LogRingState *state = log_ring_state(ring);
        uint64_t max = file->config->max_size ? file->config->max_size : UINT64_MAX;
        uint64_t position = next->position;
        size_t n = 0, size;
        LogLine line;

        if (file->broken_line)
                buffer[n++] = '\n';
        if (state->dropped > next->told)
                n += put_gap(file, state->dropped - next->told, buffer + n);
        next->told = state->dropped;
        while (n < LOG_FILE_BUFFER_SIZE - LOG_WRITTEN_MAX && log_ring_read(ring, &position, &line)) {
                size = log_line_write(&line, file->name, file->config->format, buffer + n);
                if (n > 0 && next->length + n + size > max)
                        break;
                n += size;
                next->position = position;
        }
        return n;
}

/* put_out() - all @size bytes; of a part of them nothing stays. Returns where the file ends now, or a negative errno. */
static int64_t put_out(LogFile *file, const char *buffer, size_t size, uint64_t length) {
        for (size_t done = 0; done < size;) {
                ssize_t n = write(file->fd, buffer + done, size - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        int error = n < 0 ? errno : EIO;

                        if (done > 0 && ftruncate(file->fd, (off_t) length) < 0)
                                file->broken_line = true;
                        return -error;
                }
                done += (size_t) n;
        }
        return lseek(file->fd, 0, SEEK_CUR);
}

/* write_batch() - 1: there may be more; 0: that was all; or a negative errno. */
static int write_batch(LogFile *file, LogRing *ring, char *buffer, uint64_t now) {
        LogRingFile next;
        int64_t end;
        size_t size;
        int r = 0;

        if (file->fd < 0)
                r = open_file(file, ring);
        if (r < 0)
                return r;
        next = log_ring_state(ring)->file;
        size = fill(file, ring, buffer, &next);
        if (is_due(file, ring, size, now)) {
                r = rotate_if_due(file, ring, size, now);
                if (r < 0)
                        return r;
                next = log_ring_state(ring)->file;
                size = fill(file, ring, buffer, &next);
        }
        end = put_out(file, buffer, size, next.length);
        if (end < 0)
                return (int) end;
        next.length = (uint64_t) end;
        file->broken_line = false;
        log_ring_set_file(ring, &next);
        return next.position < log_ring_state(ring)->head;
}

/* judge() - the first failure and its end are said. */
static void judge(LogFile *file, int error, uint64_t now) {
        if (error < 0) {
                if (file->error == 0)
                        log_error(
                                "runner %s: cannot write its log %s: %s; lines are kept in memory while there is room",
                                file->name, file->path,
                                error == -EMEDIUMTYPE ? "not an ordinary file" : strerror(-error));
                file->retry_us = now + LOG_FILE_RETRY_US;
                file->fd = fd_close(file->fd);
        } else if (file->error < 0)
                log_notice("runner %s: its log %s is written again", file->name, file->path);
        file->error = error;
}

int log_file_write(LogFile *file, LogRing *ring, char *buffer) {
        uint64_t now = clock_now();
        int r = 1;

        if (file->error < 0 && now < file->retry_us)
                return file->error;
        if (log_ring_state(ring)->file.position >= log_ring_state(ring)->head)
                return 0;
        check(file, now);
        while (r > 0)
                r = write_batch(file, ring, buffer, now);
        if (r < 0 || file->error < 0)
                judge(file, r, now);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Input and output on files that are open: all of it can be done twice, and needs nothing but descriptors, so that other
 * threads can do what may wait for a disk. Reading what the page cache below holds, and writing into it, is done where the
 * request is read: handing it over would take longer than doing it.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/mirror.h"

static int begin_on(Mirror *mirror, uint64_t number, uint32_t kind, Transferred *transferred) {
        OpenFile *file;
        int r = file_of(mirror, number, kind, &file);

        if (r == 0)
                transferred->fd = file->fd;
        return r;
}

static int begin_read(Mirror *mirror, const struct fuse_read_in *in, Transferred *transferred) {
        transferred->offset = in->offset;
        transferred->size = MIN(in->size, (uint32_t) REQUEST_MAX_WRITE);
        return begin_on(mirror, in->fh, TABLE_FILE_OPEN, transferred);
}

/* kill_privileges() - somebody without the right to keep them writes: bits that make others run it go. */
static void kill_privileges(int fd) {
        struct stat stat;
        mode_t gone = S_ISUID;

        if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode))
                return;
        if (stat.st_mode & S_IXGRP)
                gone |= S_ISGID;
        if (stat.st_mode & gone)
                (void) fchmod(fd, stat.st_mode & 07777 & ~gone);
}

static int begin_write(Mirror *mirror, const Request *request, Transferred *transferred) {
        const struct fuse_write_in *in = request->argument;
        int r;

        if (in->size > request->data_size)
                return -EINVAL;
        transferred->offset = in->offset;
        transferred->size = in->size;
        transferred->data = request->data;
        r = begin_on(mirror, in->fh, TABLE_FILE_OPEN, transferred);
        if (r == 0 && in->write_flags & FUSE_WRITE_KILL_SUIDGID)
                kill_privileges(transferred->fd);
        return r;
}

static int begin_sync(Mirror *mirror, const Request *request, uint32_t kind, Transferred *transferred) {
        const struct fuse_fsync_in *in = request->argument;

        transferred->mode = in->fsync_flags & FUSE_FSYNC_FDATASYNC;
        return begin_on(mirror, in->fh, kind, transferred);
}

static int begin_allocate(Mirror *mirror, const struct fuse_fallocate_in *in, Transferred *transferred) {
        transferred->offset = in->offset;
        transferred->size = in->length;
        transferred->mode = in->mode;
        return begin_on(mirror, in->fh, TABLE_FILE_OPEN, transferred);
}

static int begin_copy(Mirror *mirror, const struct fuse_copy_file_range_in *in, Transferred *transferred) {
        OpenFile *target;
        int r = file_of(mirror, in->fh_out, TABLE_FILE_OPEN, &target);

        if (r < 0)
                return r;
        if (in->flags != 0)
                return -EINVAL;
        transferred->target = target->fd;
        transferred->offset = in->off_in;
        transferred->target_offset = in->off_out;
        transferred->size = in->len;
        return begin_on(mirror, in->fh_in, TABLE_FILE_OPEN, transferred);
}

int transferred_begin(Mirror *mirror, const Request *request, Transferred *ret_transferred) {
        *ret_transferred = TRANSFERRED_NULL;
        ret_transferred->opcode = request->header->opcode;
        switch (request->header->opcode) {
        case FUSE_READ:
                return begin_read(mirror, request->argument, ret_transferred);
        case FUSE_WRITE:
                return begin_write(mirror, request, ret_transferred);
        case FUSE_FSYNC:
                return begin_sync(mirror, request, TABLE_FILE_OPEN, ret_transferred);
        case FUSE_FSYNCDIR:
                return begin_sync(mirror, request, TABLE_FILE_DIRECTORY, ret_transferred);
        case FUSE_FALLOCATE:
                return begin_allocate(mirror, request->argument, ret_transferred);
        default:
                return begin_copy(mirror, request->argument, ret_transferred);
        }
}

bool transferred_is_slow(const Transferred *transferred) {
        return transferred->opcode != FUSE_WRITE;
}

int transferred_own(Transferred *transferred) {
        int fd = fd_dup(transferred->fd), target = -1;

        if (fd < 0)
                return fd;
        if (transferred->target >= 0) {
                target = fd_dup(transferred->target);
                if (target < 0) {
                        fd_close(fd);
                        return target;
                }
        }
        transferred->fd = fd;
        transferred->target = target;
        transferred->owned = true;
        return 0;
}

void transferred_end(Transferred *transferred) {
        if (transferred->owned) {
                fd_close(transferred->fd);
                fd_close(transferred->target);
        }
        *transferred = TRANSFERRED_NULL;
}

/* run_read() - to the end of the file or of what was asked: less than that would be taken for the end. */
static int run_read(const Transferred *t, uint8_t *buffer, bool only_cached, Reply *reply) {
        size_t done = 0;

        while (done < t->size) {
                struct iovec piece = { buffer + done, t->size - done };
                ssize_t n = preadv2(t->fd, &piece, 1, (off_t) (t->offset + done), only_cached ? RWF_NOWAIT : 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && only_cached)
                        return -EAGAIN; /* not there, or no such thing in this file system */
                if (n < 0 && done == 0)
                        return -errno;
                if (n <= 0)
                        break;
                done += (size_t) n;
        }
        reply->data = buffer;
        reply->size = done;
        return 0;
}

static int run_write(const Transferred *t, Reply *reply) {
        size_t done = 0;

        while (done < t->size) {
                ssize_t n = pwrite(t->fd, t->data + done, t->size - done, (off_t) (t->offset + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && done == 0)
                        return -errno;
                if (n <= 0)
                        break;
                done += (size_t) n;
        }
        reply_body(reply, struct fuse_write_out)->size = (uint32_t) done;
        return 0;
}

static int run_copy(const Transferred *t, Reply *reply) {
        off_t from = (off_t) t->offset, to = (off_t) t->target_offset;
        size_t most = t->opcode == FUSE_COPY_FILE_RANGE ? UINT32_MAX & ~UINT32_C(0xfff) : (size_t) INT64_MAX;
        ssize_t n = copy_file_range(t->fd, &from, t->target, &to, MIN(t->size, most), 0);

        if (n < 0)
                return -errno;
        if (t->opcode == FUSE_COPY_FILE_RANGE)
                reply_body(reply, struct fuse_write_out)->size = (uint32_t) n;
        else
                *reply_body(reply, uint64_t) = (uint64_t) n;
        return 0;
}

int transferred_run(const Transferred *transferred, uint8_t *buffer, bool only_cached, Reply *reply) {
        const Transferred *t = transferred;

        switch (t->opcode) {
        case FUSE_READ:
                return run_read(t, buffer, only_cached, reply);
        case FUSE_WRITE:
                return run_write(t, reply);
        case FUSE_FSYNC:
        case FUSE_FSYNCDIR:
                if (only_cached)
                        return -EAGAIN;
                return (t->mode ? fdatasync(t->fd) : fsync(t->fd)) < 0 ? -errno : 0;
        case FUSE_FALLOCATE:
                if (only_cached)
                        return -EAGAIN;
                return fallocate(t->fd, (int) t->mode, (off_t) t->offset, (off_t) t->size) < 0 ? -errno : 0;
        default:
                return only_cached ? -EAGAIN : run_copy(t, reply);
        }
}

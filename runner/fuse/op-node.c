/* SPDX-License-Identifier: Apache-2.0 */

/* What is asked of one inode: what it is, its attributes of both kinds, and how often the kernel refers to it. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "runner/fuse/mirror.h"

#define NSEC_PER_SEC (USEC_PER_SEC * NSEC_PER_USEC)

void attributes_of(const struct stat *stat, struct fuse_attr *ret_attributes) {
        *ret_attributes = (struct fuse_attr){
                .ino = stat->st_ino,
                .size = (uint64_t) stat->st_size,
                .blocks = (uint64_t) stat->st_blocks,
                .atime = (uint64_t) stat->st_atim.tv_sec,
                .mtime = (uint64_t) stat->st_mtim.tv_sec,
                .ctime = (uint64_t) stat->st_ctim.tv_sec,
                .atimensec = (uint32_t) stat->st_atim.tv_nsec,
                .mtimensec = (uint32_t) stat->st_mtim.tv_nsec,
                .ctimensec = (uint32_t) stat->st_ctim.tv_nsec,
                .mode = stat->st_mode,
                .nlink = (uint32_t) stat->st_nlink,
                .uid = stat->st_uid,
                .gid = stat->st_gid,
                .rdev = (uint32_t) stat->st_rdev, /* the kernel's own encoding, of 32 bits */
                .blksize = (uint32_t) stat->st_blksize,
        };
}

void fill_entry(const Mirror *mirror, uint32_t index, const struct stat *stat, struct fuse_entry_out *ret_entry) {
        *ret_entry = (struct fuse_entry_out){
                .nodeid = node_number(mirror, index),
                .entry_valid = mirror->timeout_ns / NSEC_PER_SEC,
                .attr_valid = mirror->timeout_ns / NSEC_PER_SEC,
                .entry_valid_nsec = (uint32_t) (mirror->timeout_ns % NSEC_PER_SEC),
                .attr_valid_nsec = (uint32_t) (mirror->timeout_ns % NSEC_PER_SEC),
        };
        attributes_of(stat, &ret_entry->attr);
}

int op_lookup(Mirror *mirror, const Request *request, Reply *reply) {
        int parent = node_fd_of(mirror, request->header->nodeid);
        struct stat stat;
        uint32_t index;
        int r;

        if (parent < 0)
                return parent;
        r = node_lookup(mirror, parent, request->name, &index, &stat);
        if (r == 0)
                fill_entry(mirror, index, &stat, reply_body(reply, struct fuse_entry_out));
        return r;
}

/* fd_for() - of the file that is open, where the request names one; of the inode otherwise. */
static int fd_for(Mirror *mirror, const Request *request, bool has_file, uint64_t number) {
        OpenFile *file;

        if (has_file && file_of(mirror, number, TABLE_FILE_OPEN, &file) == 0)
                return file->fd;
        return node_fd_of(mirror, request->header->nodeid);
}

static int answer_attributes(const Mirror *mirror, int fd, Reply *reply) {
        struct fuse_attr_out *out = reply_body(reply, struct fuse_attr_out);
        struct stat stat;

        if (fstatat(fd, "", &stat, AT_EMPTY_PATH) < 0)
                return -errno;
        out->attr_valid = mirror->timeout_ns / NSEC_PER_SEC;
        out->attr_valid_nsec = (uint32_t) (mirror->timeout_ns % NSEC_PER_SEC);
        attributes_of(&stat, &out->attr);
        return 0;
}

int op_getattr(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_getattr_in *in = request->argument;
        int fd = fd_for(mirror, request, in->getattr_flags & FUSE_GETATTR_FH, in->fh);

        return fd < 0 ? fd : answer_attributes(mirror, fd, reply);
}

/* As protocol 7.39 has them; what the kernel takes over is what statx(2) returns, in the same places. */
typedef struct StatxIn {
        uint32_t flags, reserved;
        uint64_t fh;
        uint32_t sx_flags, sx_mask;
} StatxIn;

typedef struct StatxOut {
        uint64_t attr_valid;
        uint32_t attr_valid_nsec, flags;
        uint64_t spare[2];
        struct statx stat;
} StatxOut;
_Static_assert(sizeof(StatxIn) == 24 && sizeof(StatxOut) == 288, "as in the protocol");

int op_statx(Mirror *mirror, const Request *request, Reply *reply) {
        const StatxIn *in = request->argument;
        StatxOut *out = reply_body(reply, StatxOut);
        int fd = fd_for(mirror, request, in->flags & FUSE_GETATTR_FH, in->fh);

        if (fd < 0)
                return fd;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &out->stat) < 0)
                return -errno;
        out->stat.stx_mask &= STATX_BASIC_STATS | STATX_BTIME;
        out->attr_valid = mirror->timeout_ns / NSEC_PER_SEC;
        out->attr_valid_nsec = (uint32_t) (mirror->timeout_ns % NSEC_PER_SEC);
        return 0;
}

/* ---- changing it ---- */

static int set_owner(int fd, const struct fuse_setattr_in *in) {
        uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t) -1;
        gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t) -1;

        return fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_size(Mirror *mirror, const struct fuse_setattr_in *in, const char *path) {
        OpenFile *file;

        if (in->valid & FATTR_FH && file_of(mirror, in->fh, TABLE_FILE_OPEN, &file) == 0 &&
            ftruncate(file->fd, (off_t) in->size) == 0)
                return 0;
        /* No file, or one that is not open for writing. */
        return truncate(path, (off_t) in->size) < 0 ? -errno : 0;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds) {
        if (!(valid & set))
                return (struct timespec){ .tv_nsec = UTIME_OMIT };
        if (valid & now)
                return (struct timespec){ .tv_nsec = UTIME_NOW };
        return (struct timespec){ .tv_sec = (time_t) seconds, .tv_nsec = nanoseconds };
}

static int set_times(const struct fuse_setattr_in *in, const char *path) {
        const struct timespec times[2] = {
                time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
                time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
        };

        return utimensat(AT_FDCWD, path, times, 0) < 0 ? -errno : 0;
}

/* kill_privileges() - as a write by somebody without rights would, unless the mode is set in the same request. */
static void kill_privileges(int fd, const char *path) {
        struct stat stat;
        mode_t gone = S_ISUID;

        if (fstatat(fd, "", &stat, AT_EMPTY_PATH) < 0 || !S_ISREG(stat.st_mode))
                return;
        if (stat.st_mode & S_IXGRP)
                gone |= S_ISGID;
        if (stat.st_mode & gone)
                (void) chmod(path, stat.st_mode & 07777 & ~gone);
}

int op_setattr(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_setattr_in *in = request->argument;
        int fd = node_fd_of(mirror, request->header->nodeid), r = 0;
        char path[NODE_PATH_SIZE];

        if (fd < 0)
                return fd;
        node_path(fd, path);
        if (in->valid & FATTR_MODE)
                r = chmod(path, in->mode & 07777) < 0 ? -errno : 0;
        if (r == 0 && in->valid & (FATTR_UID | FATTR_GID))
                r = set_owner(fd, in);
        if (r == 0 && in->valid & FATTR_SIZE)
                r = set_size(mirror, in, path);
        if (r == 0 && in->valid & FATTR_KILL_SUIDGID && !(in->valid & FATTR_MODE))
                kill_privileges(fd, path);
        if (r == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
                r = set_times(in, path);
        return r < 0 ? r : answer_attributes(mirror, fd, reply);
}

int op_statfs(Mirror *mirror, const Request *request, Reply *reply) {
        struct fuse_kstatfs *out = &reply_body(reply, struct fuse_statfs_out)->st;
        struct statvfs stat;

        (void) request;
        if (fstatvfs(mirror->root, &stat) < 0)
                return -errno;
        *out = (struct fuse_kstatfs){
                .blocks = stat.f_blocks,
                .bfree = stat.f_bfree,
                .bavail = stat.f_bavail,
                .files = stat.f_files,
                .ffree = stat.f_ffree,
                .bsize = (uint32_t) stat.f_bsize,
                .namelen = (uint32_t) stat.f_namemax,
                .frsize = (uint32_t) stat.f_frsize,
        };
        return 0;
}

int op_readlink(Mirror *mirror, const Request *request, Reply *reply) {
        int fd = node_fd_of(mirror, request->header->nodeid);
        ssize_t n;

        if (fd < 0)
                return fd;
        n = readlinkat(fd, "", (char *) mirror->buffer, PATH_MAX);
        if (n < 0)
                return errno == ENOENT ? -EINVAL : -errno; /* it is no link */
        reply->data = mirror->buffer;
        reply->size = (size_t) n;
        return 0;
}

/* ---- extended attributes ---- */

static int attribute_path(Mirror *mirror, const Request *request, char path[NODE_PATH_SIZE]) {
        int fd = node_fd_of(mirror, request->header->nodeid);

        if (fd < 0)
                return fd;
        node_path(fd, path);
        return 0;
}

/* has_attribute() - whether it is there, as a prior: 1 and 2, so that 0 is neither. */
static uint64_t has_attribute(const char *path, const char *name) {
        return getxattr(path, name, NULL, 0) >= 0 ? 1 : 2;
}

/* finish_acl() - the mode was changed with the list by somebody who may not keep the set-group-ID bit. */
static void finish_acl(const struct fuse_setxattr_in *in, int fd, const char *path) {
        struct stat stat;

        if (!(in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) || fstatat(fd, "", &stat, AT_EMPTY_PATH) < 0)
                return;
        if (stat.st_mode & S_ISGID)
                (void) chmod(path, stat.st_mode & 07777 & ~(mode_t) S_ISGID);
}

int op_setxattr(Mirror *mirror, const Request *request, const Prior *prior) {
        const struct fuse_setxattr_in *in = request->argument;
        int fd = node_fd_of(mirror, request->header->nodeid);
        int flags = (int) in->flags;
        char path[NODE_PATH_SIZE];

        if (fd < 0)
                return fd;
        if (in->size > request->data_size)
                return -EINVAL;
        node_path(fd, path);
        if (flags & XATTR_CREATE)
                journal_prior(mirror, has_attribute(path, request->name), 0);
        if (prior->known && prior->source == 2 && has_attribute(path, request->name) == 1)
                flags &= ~XATTR_CREATE; /* ours */
        if (setxattr(path, request->name, request->data, in->size, flags) < 0)
                return -errno;
        finish_acl(in, fd, path);
        return 0;
}

int op_removexattr(Mirror *mirror, const Request *request, const Prior *prior) {
        char path[NODE_PATH_SIZE];
        int r = attribute_path(mirror, request, path);

        if (r < 0)
                return r;
        journal_prior(mirror, has_attribute(path, request->name), 0);
        if (removexattr(path, request->name) == 0)
                return 0;
        return errno == ENODATA && prior->known && prior->source == 1 ? 0 : -errno;
}

static int answer_size(ssize_t n, size_t wanted, Mirror *mirror, Reply *reply) {
        if (n < 0)
                return -errno;
        if (wanted == 0) {
                reply_body(reply, struct fuse_getxattr_out)->size = (uint32_t) n;
        } else {
                reply->data = mirror->buffer;
                reply->size = (size_t) n;
        }
        return 0;
}

int op_getxattr(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_getxattr_in *in = request->argument;
        size_t size = MIN(in->size, (uint32_t) REQUEST_MAX_WRITE);
        char path[NODE_PATH_SIZE];
        int r = attribute_path(mirror, request, path);

        if (r < 0)
                return r;
        return answer_size(getxattr(path, request->name, mirror->buffer, size), size, mirror, reply);
}

int op_listxattr(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_getxattr_in *in = request->argument;
        size_t size = MIN(in->size, (uint32_t) REQUEST_MAX_WRITE);
        char path[NODE_PATH_SIZE];
        int r = attribute_path(mirror, request, path);

        if (r < 0)
                return r;
        return answer_size(listxattr(path, (char *) mirror->buffer, size), size, mirror, reply);
}

/* ---- references ---- */

void op_forget(Mirror *mirror, const Request *request, uint32_t first) {
        if (request->header->opcode == FUSE_FORGET) {
                const struct fuse_forget_in *in = request->argument;
                struct fuse_forget_one one = { .nodeid = request->header->nodeid, .nlookup = in->nlookup };

                if (first == 0)
                        journal_forget(mirror, 0, &one);
        } else {
                const struct fuse_batch_forget_in *in = request->argument;
                const struct fuse_forget_one *all = (const void *) request->data;
                uint32_t n = (uint32_t) MIN(in->count, request->data_size / sizeof(*all));

                for (uint32_t i = first; i < n; i++)
                        journal_forget(mirror, i, &all[i]);
        }
}

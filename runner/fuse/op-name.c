/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations that change names. Each states first what its names stand for; when it is asked a second time because its
 * answer was lost (journal.c), what it finds tells whether it had taken effect: then it says so, instead of EEXIST or
 * ENOENT.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/mirror.h"

/* What open(2) is not asked for below: the kernel has done it, or does it above. */
#define FLAGS_ABOVE (O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_DIRECT | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)

/* inode_at() - the inode number of a name; 0: there is none. */
static uint64_t inode_at(int parent, const char *name, struct stat *ret_stat) {
        return fstatat(parent, name, ret_stat, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : ret_stat->st_ino;
}

/* answer_name() - the entry of @name, which has been made. */
static int answer_name(Mirror *mirror, int parent, const char *name, Reply *reply) {
        struct stat stat;
        uint32_t index;
        int r = node_lookup(mirror, parent, name, &index, &stat);

        if (r == 0)
                fill_entry(mirror, index, &stat, reply_body(reply, struct fuse_entry_out));
        return r;
}

static int make(const Request *request, int parent) {
        const struct fuse_mknod_in *node = request->argument;
        const struct fuse_mkdir_in *directory = request->argument;
        int r;

        switch (request->header->opcode) {
        case FUSE_MKDIR:
                r = mkdirat(parent, request->name, directory->mode);
                break;
        case FUSE_SYMLINK:
                r = symlinkat(request->target, parent, request->name);
                break;
        default:
                r = mknodat(parent, request->name, node->mode, node->rdev);
        }
        return r < 0 ? -errno : 0;
}

static uint32_t mask_of(const Request *request) {
        switch (request->header->opcode) {
        case FUSE_MKDIR:
                return ((const struct fuse_mkdir_in *) request->argument)->umask;
        case FUSE_MKNOD:
                return ((const struct fuse_mknod_in *) request->argument)->umask;
        default:
                return 0;
        }
}

int op_make(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply) {
        int parent = node_fd_of(mirror, request->header->nodeid), r;
        struct stat stat;

        if (parent < 0)
                return parent;
        journal_prior(mirror, 0, inode_at(parent, request->name, &stat));
        act_as(mirror, request->header, mask_of(request));
        r = make(request, parent);
        act_as_self(mirror);
        if (r == -EEXIST && prior->known && prior->target == 0)
                r = 0;
        return r < 0 ? r : answer_name(mirror, parent, request->name, reply);
}

/* The answer to what makes and opens a file: both parts, one after the other. */
typedef struct Created {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
} Created;

/* answer_created() - @fd_consume is open, and is @index. */
static int answer_created(Mirror *mirror, uint32_t index, const struct stat *stat, int fd_consume, uint32_t flags,
                          Reply *reply) {
        Created *created = reply_body(reply, Created);

        fill_entry(mirror, index, stat, &created->entry);
        return file_add(mirror, index, fd_consume, flags & ~(uint32_t) FLAGS_ABOVE, TABLE_FILE_OPEN,
                        &created->open.fh);
}

static int create(Mirror *mirror, const Request *request, int parent, int exclusive) {
        const struct fuse_create_in *in = request->argument;
        int flags = (int) (in->flags & ~(uint32_t) FLAGS_ABOVE) | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
        int fd;

        act_as(mirror, request->header, in->umask);
        fd = openat(parent, request->name, flags | exclusive, in->mode & 07777);
        act_as_self(mirror);
        return fd < 0 ? -errno : fd;
}

int op_create(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply) {
        const struct fuse_create_in *in = request->argument;
        int parent = node_fd_of(mirror, request->header->nodeid), exclusive = (int) (in->flags & O_EXCL);
        _cleanup_fd_ int fd = -1;
        struct stat stat;
        uint32_t index;
        int r;

        if (parent < 0)
                return parent;
        journal_prior(mirror, 0, inode_at(parent, request->name, &stat));
        if (prior->known && prior->target == 0)
                exclusive = 0; /* what is there is ours */
        fd = create(mirror, request, parent, exclusive);
        if (fd < 0)
                return fd;
        if (in->flags & O_TRUNC && ftruncate(fd, 0) < 0)
                return -errno;
        r = node_lookup(mirror, parent, request->name, &index, &stat);
        return r < 0 ? r : answer_created(mirror, index, &stat, fd_take(&fd), in->flags, reply);
}

/* A file without a name: it can be found by nothing but a descriptor. */
int op_tmpfile(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_create_in *in = request->argument;
        int parent = node_fd_of(mirror, request->header->nodeid);
        _cleanup_fd_ int fd = -1;
        uint32_t index;
        struct stat stat;
        char name[16];
        int named, r;

        if (parent < 0)
                return parent;
        act_as(mirror, request->header, in->umask);
        fd = openat(parent, ".", (int) (in->flags & (O_ACCMODE | O_EXCL)) | O_TMPFILE | O_CLOEXEC, in->mode & 07777);
        act_as_self(mirror);
        if (fd < 0)
                return -errno;
        (void) snprintf(name, sizeof(name), "%d", fd);
        named = openat(mirror->proc, name, O_PATH | O_CLOEXEC);
        r = named < 0 ? -errno : node_adopt(mirror, named, &index, &stat);
        if (r < 0)
                return r;
        node_keep(mirror, index, true);
        return answer_created(mirror, index, &stat, fd_take(&fd), in->flags & (O_ACCMODE | O_SYNC | O_DSYNC), reply);
}

int op_link(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply) {
        const struct fuse_link_in *in = request->argument;
        int parent = node_fd_of(mirror, request->header->nodeid), fd = node_fd_of(mirror, in->oldnodeid), r;
        struct stat stat, there;
        char path[NODE_PATH_SIZE];

        if (parent < 0 || fd < 0)
                return MIN(parent, fd);
        if (fstatat(fd, "", &stat, AT_EMPTY_PATH) < 0)
                return -errno;
        journal_prior(mirror, stat.st_ino, inode_at(parent, request->name, &there));
        node_path(fd, path);
        r = linkat(AT_FDCWD, path, parent, request->name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
        if (r == -EEXIST && prior->known && prior->target == 0 &&
            inode_at(parent, request->name, &there) == stat.st_ino)
                r = 0;
        return r < 0 ? r : answer_name(mirror, parent, request->name, reply);
}

/*
 * keep_last() - @name is about to go: if it is the last one of what the kernel knows, that is kept for whoever uses it. What
 * has been kept for that; 0: nothing.
 */
static uint32_t keep_last(Mirror *mirror, int parent, const char *name, const struct stat *stat) {
        bool directory = S_ISDIR(stat->st_mode);
        uint32_t index;

        if (!directory && stat->st_nlink > 1)
                return 0;
        index = node_find(mirror, parent, name, stat->st_ino);
        return index && node_keep(mirror, index, directory || mirror->nodes[index].n_open > 0) ? index : 0;
}

/* gone() - the name is, or, by @result, is not: a directory with something in it, for one. Then @kept is as it was. */
static int gone(Mirror *mirror, int result, uint32_t kept, int parent, const char *name, uint64_t ino) {
        int r = result < 0 ? -errno : 0;
        struct stat stat;

        if (r < 0 && kept && inode_at(parent, name, &stat) == ino)
                node_unkeep(mirror, kept);
        return r;
}

int op_remove(Mirror *mirror, const Request *request, const Prior *prior) {
        int parent = node_fd_of(mirror, request->header->nodeid);
        int flags = request->header->opcode == FUSE_RMDIR ? AT_REMOVEDIR : 0;
        uint32_t kept = 0;
        struct stat stat;
        uint64_t ino;

        if (parent < 0)
                return parent;
        ino = inode_at(parent, request->name, &stat);
        if (prior->known && prior->target != 0 && ino != prior->target)
                return 0;
        journal_prior(mirror, 0, ino);
        if (ino)
                kept = keep_last(mirror, parent, request->name, &stat);
        return gone(mirror, unlinkat(parent, request->name, flags), kept, parent, request->name, ino);
}

/* was_renamed() - what was at @prior is where it should be. */
static bool was_renamed(const Prior *prior, uint64_t source, uint64_t target, uint32_t flags) {
        if (!prior->known || prior->source == 0 || prior->source == prior->target || target != prior->source)
                return false;
        return flags & RENAME_EXCHANGE ? source == prior->target : source != prior->source;
}

int op_rename(Mirror *mirror, const Request *request, const Prior *prior) {
        const struct fuse_rename2_in *in2 = request->argument;
        const struct fuse_rename_in *in = request->argument;
        uint32_t flags = request->header->opcode == FUSE_RENAME2 ? in2->flags : 0;
        int from = node_fd_of(mirror, request->header->nodeid), to = node_fd_of(mirror, in->newdir);
        struct stat source_stat, target_stat;
        uint64_t source, target;
        uint32_t kept = 0;

        if (from < 0 || to < 0)
                return MIN(from, to);
        source = inode_at(from, request->name, &source_stat);
        target = inode_at(to, request->target, &target_stat);
        if (was_renamed(prior, source, target, flags))
                return 0;
        journal_prior(mirror, source, target);
        if (target && target != source && !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)))
                kept = keep_last(mirror, to, request->target, &target_stat);
        return gone(mirror, renameat2(from, request->name, to, request->target, flags), kept, to, request->target,
                    target);
}

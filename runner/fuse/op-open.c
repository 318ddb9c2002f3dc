/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Opening, closing and reading directories. A directory is read at the place that the kernel names, which is the place that
 * the file system below has named: so it can be read on in another process.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/mirror.h"

/* As getdents64(2) writes them. */
typedef struct DirectoryEntry {
        uint64_t ino;
        int64_t next;
        uint16_t size;
        uint8_t type;
        char name[];
} DirectoryEntry;

enum {
        READ_AHEAD = 16 * 1024, /* bytes of entries below at once */
};

/*
 * The kernel above truncates, appends and bypasses its cache by itself. What it does not do is to wait until the data is on
 * disk (O_SYNC, O_DSYNC), and to leave the time of access alone.
 */
static uint32_t flags_below(uint32_t flags) {
        return flags & (O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME | O_LARGEFILE);
}

int op_open(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_open_in *in = request->argument;
        struct fuse_open_out *out = reply_body(reply, struct fuse_open_out);
        uint32_t flags = flags_below(in->flags), index;
        int fd, r = node_of(mirror, request->header->nodeid, &index);

        if (r < 0)
                return r;
        fd = node_reopen(mirror, index, (int) flags | O_NONBLOCK);
        if (fd < 0)
                return fd;
        out->open_flags = FOPEN_KEEP_CACHE; /* what has changed below is noticed by its time */
        return file_add(mirror, index, fd, flags, TABLE_FILE_OPEN, &out->fh);
}

int op_opendir(Mirror *mirror, const Request *request, Reply *reply) {
        struct fuse_open_out *out = reply_body(reply, struct fuse_open_out);
        uint32_t index;
        int fd, r = node_of(mirror, request->header->nodeid, &index);

        if (r < 0)
                return r;
        fd = node_reopen(mirror, index, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return fd;
        return file_add(mirror, index, fd, O_RDONLY | O_DIRECTORY, TABLE_FILE_DIRECTORY, &out->fh);
}

int op_release(Mirror *mirror, const Request *request) {
        const struct fuse_release_in *in = request->argument;

        file_remove(mirror, in->fh);
        return 0;
}

/* Where close() tells of a write that failed, it is told. */
int op_flush(Mirror *mirror, const Request *request) {
        const struct fuse_flush_in *in = request->argument;
        OpenFile *file;
        int fd, r = file_of(mirror, in->fh, TABLE_FILE_OPEN, &file);

        if (r < 0)
                return r;
        fd = fd_dup(file->fd);
        if (fd < 0)
                return fd;
        errno = 0;
        return syscall(SYS_close, fd) < 0 && errno != EINTR ? -errno : 0;
}

int op_lseek(Mirror *mirror, const Request *request, Reply *reply) {
        const struct fuse_lseek_in *in = request->argument;
        struct fuse_lseek_out *out = reply_body(reply, struct fuse_lseek_out);
        OpenFile *file;
        off_t offset;
        int r = file_of(mirror, in->fh, TABLE_FILE_OPEN, &file);

        if (r < 0)
                return r;
        offset = lseek(file->fd, (off_t) in->offset, (int) in->whence);
        if (offset < 0)
                return -errno;
        out->offset = (uint64_t) offset;
        return 0;
}

/* ---- directories ---- */

/* An answer while it is written. */
typedef struct Listing {
        Mirror *mirror;
        int fd;
        bool plus;
        uint8_t *p;
        size_t left;
} Listing;

/* put_entry() - one more. 0; -ENOSPC: the answer is full. */
static int put_entry(Listing *listing, const DirectoryEntry *entry, const struct fuse_entry_out *node) {
        size_t length = strlen(entry->name);
        size_t head = listing->plus ? sizeof(*node) : 0;
        size_t size = FUSE_DIRENT_ALIGN(head + FUSE_NAME_OFFSET + length);
        struct fuse_dirent *out = (void *) (listing->p + head);

        if (size > listing->left)
                return -ENOSPC;
        memset(listing->p, 0, size);
        if (listing->plus)
                memcpy(listing->p, node, sizeof(*node));
        out->ino = entry->ino;
        out->off = (uint64_t) entry->next;
        out->namelen = (uint32_t) length;
        out->type = entry->type;
        memcpy(out->name, entry->name, length);
        listing->p += size;
        listing->left -= size;
        return 0;
}

static bool is_dots(const char *name) {
        return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* put_node() - with what the name stands for, unless it cannot be had: then it is looked up when it is wanted. */
static int put_node(Listing *listing, const DirectoryEntry *entry) {
        struct fuse_entry_out node = { 0 };
        size_t size = FUSE_DIRENT_ALIGN(sizeof(node) + FUSE_NAME_OFFSET + strlen(entry->name));
        struct stat stat;
        uint32_t index;

        if (size > listing->left)
                return -ENOSPC; /* before a reference is counted */
        if (listing->mirror->journal && listing->mirror->journal->n_entries == TABLE_ENTRIES_MAX)
                return -ENOSPC;
        if (!is_dots(entry->name) && node_lookup(listing->mirror, listing->fd, entry->name, &index, &stat) == 0)
                fill_entry(listing->mirror, index, &stat, &node);
        return put_entry(listing, entry, &node);
}

/* list_some() - what one call reads. How many bytes it read, 0 at the end; or a negative errno, -ENOSPC: full. */
static ssize_t list_some(Listing *listing, OpenFile *directory, size_t most) {
        uint8_t buffer[READ_AHEAD] __attribute__((__aligned__(8)));
        ssize_t n = syscall(SYS_getdents64, listing->fd, buffer, MIN(sizeof(buffer), most));

        if (n < 0)
                return -errno;
        for (ssize_t at = 0; at < n;) {
                const DirectoryEntry *entry = (const void *) (buffer + at);
                int r = listing->plus ? put_node(listing, entry) : put_entry(listing, entry, NULL);

                if (r < 0) {
                        directory->position = -1; /* it has read further than it was used */
                        return r;
                }
                directory->position = entry->next;
                at += entry->size;
        }
        return n;
}

static int list(Mirror *mirror, const Request *request, bool plus, Reply *reply) {
        const struct fuse_read_in *in = request->argument;
        size_t size = MIN(in->size, (uint32_t) REQUEST_MAX_WRITE);
        Listing listing = { .mirror = mirror, .plus = plus, .p = mirror->buffer, .left = size };
        OpenFile *directory;
        ssize_t n;
        int r = file_of(mirror, in->fh, TABLE_FILE_DIRECTORY, &directory);

        if (r < 0)
                return r;
        listing.fd = directory->fd;
        if ((int64_t) in->offset != directory->position) {
                if (lseek(directory->fd, (off_t) in->offset, SEEK_SET) < 0)
                        return -errno;
                directory->position = (int64_t) in->offset;
        }
        do
                n = list_some(&listing, directory, MAX(listing.left / (plus ? 4 : 1), (size_t) 512));
        while (n > 0 && listing.left > FUSE_NAME_OFFSET);
        if (n < 0 && listing.p == mirror->buffer)
                return n == -ENOSPC ? -EINVAL : (int) n;
        reply->data = mirror->buffer;
        reply->size = (size_t) (listing.p - mirror->buffer);
        return 0;
}

int op_readdir(Mirror *mirror, const Request *request, Reply *reply) {
        return list(mirror, request, false, reply);
}

int op_readdirplus(Mirror *mirror, const Request *request, Reply *reply) {
        return list(mirror, request, true, reply);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests: one table says what each kind is made of, a fixed structure, then names, then bytes. The kernel is not our
 * enemy, but a length that is not what the table says would be read past the end all the same: nothing later looks at
 * a length again but that of data.
 *
 * A name is one component: never empty, "." or "..", and without a slash, so that it cannot leave the directory it is
 * looked up in. The name of TMPFILE is a word of the kernel's own and not looked at.
 */

#include "runner/fuse/protocol.h"

#include <errno.h>
#include <string.h>

typedef enum Names {
        NAMES_NONE,
        NAMES_ONE,
        NAMES_TWO,
        NAMES_AND_TARGET, /* SYMLINK */
        NAMES_ATTRIBUTE,  /* of an extended attribute: any text */
        NAMES_IGNORED,    /* TMPFILE */
} Names;

typedef struct Shape {
        const char *name;
        size_t argument;
        Names names;
        bool data;
} Shape;

/* fuse_statx_in, which the header may lack, is 24 bytes. */
static const Shape shapes[] = {
        [FUSE_LOOKUP] = { "LOOKUP", 0, NAMES_ONE, false },
        [FUSE_FORGET] = { "FORGET", sizeof(struct fuse_forget_in), NAMES_NONE, false },
        [FUSE_GETATTR] = { "GETATTR", sizeof(struct fuse_getattr_in), NAMES_NONE, false },
        [FUSE_SETATTR] = { "SETATTR", sizeof(struct fuse_setattr_in), NAMES_NONE, false },
        [FUSE_READLINK] = { "READLINK", 0, NAMES_NONE, false },
        [FUSE_SYMLINK] = { "SYMLINK", 0, NAMES_AND_TARGET, false },
        [FUSE_MKNOD] = { "MKNOD", sizeof(struct fuse_mknod_in), NAMES_ONE, false },
        [FUSE_MKDIR] = { "MKDIR", sizeof(struct fuse_mkdir_in), NAMES_ONE, false },
        [FUSE_UNLINK] = { "UNLINK", 0, NAMES_ONE, false },
        [FUSE_RMDIR] = { "RMDIR", 0, NAMES_ONE, false },
        [FUSE_RENAME] = { "RENAME", sizeof(struct fuse_rename_in), NAMES_TWO, false },
        [FUSE_LINK] = { "LINK", sizeof(struct fuse_link_in), NAMES_ONE, false },
        [FUSE_OPEN] = { "OPEN", sizeof(struct fuse_open_in), NAMES_NONE, false },
        [FUSE_READ] = { "READ", sizeof(struct fuse_read_in), NAMES_NONE, false },
        [FUSE_WRITE] = { "WRITE", sizeof(struct fuse_write_in), NAMES_NONE, true },
        [FUSE_STATFS] = { "STATFS", 0, NAMES_NONE, false },
        [FUSE_RELEASE] = { "RELEASE", sizeof(struct fuse_release_in), NAMES_NONE, false },
        [FUSE_FSYNC] = { "FSYNC", sizeof(struct fuse_fsync_in), NAMES_NONE, false },
        [FUSE_SETXATTR] = { "SETXATTR", sizeof(struct fuse_setxattr_in), NAMES_ATTRIBUTE, true },
        [FUSE_GETXATTR] = { "GETXATTR", sizeof(struct fuse_getxattr_in), NAMES_ATTRIBUTE, false },
        [FUSE_LISTXATTR] = { "LISTXATTR", sizeof(struct fuse_getxattr_in), NAMES_NONE, false },
        [FUSE_REMOVEXATTR] = { "REMOVEXATTR", 0, NAMES_ATTRIBUTE, false },
        [FUSE_FLUSH] = { "FLUSH", sizeof(struct fuse_flush_in), NAMES_NONE, false },
        [FUSE_INIT] = { "INIT", 16, NAMES_NONE, true }, /* what follows came later */
        [FUSE_OPENDIR] = { "OPENDIR", sizeof(struct fuse_open_in), NAMES_NONE, false },
        [FUSE_READDIR] = { "READDIR", sizeof(struct fuse_read_in), NAMES_NONE, false },
        [FUSE_RELEASEDIR] = { "RELEASEDIR", sizeof(struct fuse_release_in), NAMES_NONE, false },
        [FUSE_FSYNCDIR] = { "FSYNCDIR", sizeof(struct fuse_fsync_in), NAMES_NONE, false },
        [FUSE_ACCESS] = { "ACCESS", sizeof(struct fuse_access_in), NAMES_NONE, false },
        [FUSE_CREATE] = { "CREATE", sizeof(struct fuse_create_in), NAMES_ONE, false },
        [FUSE_INTERRUPT] = { "INTERRUPT", sizeof(struct fuse_interrupt_in), NAMES_NONE, false },
        [FUSE_DESTROY] = { "DESTROY", 0, NAMES_NONE, false },
        [FUSE_IOCTL] = { "IOCTL", sizeof(struct fuse_ioctl_in), NAMES_NONE, true },
        [FUSE_BATCH_FORGET] = { "BATCH_FORGET", sizeof(struct fuse_batch_forget_in), NAMES_NONE, true },
        [FUSE_FALLOCATE] = { "FALLOCATE", sizeof(struct fuse_fallocate_in), NAMES_NONE, false },
        [FUSE_READDIRPLUS] = { "READDIRPLUS", sizeof(struct fuse_read_in), NAMES_NONE, false },
        [FUSE_RENAME2] = { "RENAME2", sizeof(struct fuse_rename2_in), NAMES_TWO, false },
        [FUSE_LSEEK] = { "LSEEK", sizeof(struct fuse_lseek_in), NAMES_NONE, false },
        [FUSE_COPY_FILE_RANGE] = { "COPY_FILE_RANGE", sizeof(struct fuse_copy_file_range_in), NAMES_NONE, false },
        [FUSE_TMPFILE] = { "TMPFILE", sizeof(struct fuse_create_in), NAMES_IGNORED, false },
        [REQUEST_STATX] = { "STATX", 24, NAMES_NONE, false },
        [REQUEST_COPY_FILE_RANGE_64] = { "COPY_FILE_RANGE_64", sizeof(struct fuse_copy_file_range_in), NAMES_NONE,
                                         false },
};

void *reply_body_of(Reply *reply, size_t size) {
        memset(reply->body.bytes, 0, size);
        reply->data = reply->body.bytes;
        reply->size = size;
        return reply->body.bytes;
}

static const Shape *shape_of(uint32_t opcode) {
        return opcode < ARRAY_SIZE(shapes) && shapes[opcode].name ? &shapes[opcode] : NULL;
}

const char *request_name(uint32_t opcode) {
        const Shape *shape = shape_of(opcode);

        return shape ? shape->name : NULL;
}

bool request_has_answer(uint32_t opcode) {
        return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

/* take_text() - the text at the beginning of what is left, its NUL included; NULL: it has no end. */
static const char *take_text(const uint8_t **p, size_t *left) {
        const char *text = (const char *) *p;
        const uint8_t *end = memchr(*p, '\0', *left);

        if (!end)
                return NULL;
        *left -= (size_t) (end + 1 - *p);
        *p = end + 1;
        return text;
}

static bool name_is_valid(const char *name) {
        size_t length = name ? strlen(name) : 0;

        return length > 0 && length <= REQUEST_NAME_MAX && !strchr(name, '/') && strcmp(name, ".") != 0 &&
               strcmp(name, "..") != 0;
}

static bool attribute_is_valid(const char *name) {
        return name && name[0] != '\0' && strlen(name) <= REQUEST_NAME_MAX;
}

static bool take_names(Request *request, Names names, const uint8_t **p, size_t *left) {
        if (names == NAMES_NONE)
                return true;
        request->name = take_text(p, left);
        switch (names) {
        case NAMES_IGNORED:
                return true;
        case NAMES_ATTRIBUTE:
                return attribute_is_valid(request->name);
        case NAMES_TWO:
                request->target = take_text(p, left);
                return name_is_valid(request->name) && name_is_valid(request->target);
        case NAMES_AND_TARGET:
                request->target = take_text(p, left);
                return name_is_valid(request->name) && request->target;
        default:
                return name_is_valid(request->name);
        }
}

int request_parse(const void *buffer, size_t size, Request *ret_request) {
        const struct fuse_in_header *header = buffer;
        const Shape *shape;
        const uint8_t *p;
        size_t left;

        *ret_request = (Request){ .header = header };
        if (size < sizeof(*header) || header->len != size)
                return -EPROTO;
        ret_request->unique = header->unique & ~REQUEST_RESENT;
        ret_request->resent = header->unique & REQUEST_RESENT;
        shape = shape_of(header->opcode);
        if (!shape)
                return -ENOSYS;
        p = (const uint8_t *) buffer + sizeof(*header);
        left = size - sizeof(*header);
        if (left < (size_t) header->total_extlen * 8)
                return -EINVAL;
        left -= (size_t) header->total_extlen * 8; /* extensions, of which none was asked for */
        if (left < shape->argument)
                return -EINVAL;
        ret_request->argument = p;
        p += shape->argument;
        left -= shape->argument;
        if (!take_names(ret_request, shape->names, &p, &left))
                return -EINVAL;
        if (shape->data) {
                ret_request->data = p;
                ret_request->data_size = left;
        }
        return 0;
}

int request_answer(int device, uint64_t unique, int error, const Reply *reply) {
        struct fuse_out_header header = { .len = sizeof(header), .error = error, .unique = unique };
        struct iovec pieces[2] = { { .iov_base = &header, .iov_len = sizeof(header) } };
        int n = 1;

        if (error == 0 && reply && reply->size > 0) {
                pieces[n++] = (struct iovec){ .iov_base = (void *) reply->data, .iov_len = reply->size };
                header.len += (uint32_t) reply->size;
        }
        return writev(device, pieces, n) < 0 ? -errno : 0;
}

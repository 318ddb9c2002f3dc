#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The kernel's file system requests as they come from /dev/fuse, checked: after request_parse() every length is right and
 * every name is one. <linux/fuse.h> is spoken directly, because a session that is resumed has no INIT: a library that
 * waits for one has to be fed a forged one, with the very flags of the first, and swallow the answer.
 */

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/macro.h"

/* What is newer than the header of the oldest system we are built on. */
#define REQUEST_STATX              52
#define REQUEST_COPY_FILE_RANGE_64 53
#define REQUEST_NOTIFY_RESEND      7
#define REQUEST_RESENT             (UINT64_C(1) << 63) /* in `unique': given to the one before, and not answered */
#define REQUEST_FLAG_HAS_RESEND    (UINT64_C(1) << 39) /* of INIT: Linux 6.9 */

typedef struct Request Request;
typedef struct Reply Reply;

enum {
        REQUEST_NAME_MAX = 1024, /* as the kernel passes on; what a file system takes, it says itself */
        REQUEST_MINOR_MIN = 31,  /* of protocol 7: Linux 5.4 */
        REQUEST_MINOR = 38,
        REQUEST_MAX_WRITE = 1024 * 1024,
        REQUEST_SIZE_MAX = REQUEST_MAX_WRITE + 4096,
};

/* A request in the buffer it was read into. What its kind does not have is NULL. */
struct Request {
        const struct fuse_in_header *header;
        uint64_t unique; /* without REQUEST_RESENT */
        bool resent;
        const void *argument; /* the fixed structure of its kind */
        const char *name,
                *target;     /* one path component of at most REQUEST_NAME_MAX bytes; SYMLINK's target any text */
        const uint8_t *data; /* what follows */
        size_t data_size;
};

/* What is answered besides success: nothing, a structure in @body, or @size bytes elsewhere that stay until it is sent. */
struct Reply {
        const void *data;
        size_t size;
        union {
                uint8_t bytes[512];
                uint64_t align;
        } body;
};

/* reply_body() - the reply is the @_type it returns, all zero. */
#define reply_body(_reply, _type) ((_type *) reply_body_of((_reply), sizeof(_type)))
void *reply_body_of(Reply *reply, size_t size);

/* request_name() - of an operation, "LOOKUP"; NULL: we know none of this number. */
const char *request_name(uint32_t opcode);

/* request_has_answer() - whether the kernel waits for one. */
bool request_has_answer(uint32_t opcode);

/*
 * request_parse() - @size bytes at @buffer, aligned to 8. 0; -EPROTO: no request at all, so that nothing can be answered;
 * -ENOSYS: an operation that we do not have; -EINVAL: one that is not what it should be. With the last two @ret_request
 * has its header.
 */
int request_parse(const void *buffer, size_t size, Request *ret_request);

/* request_answer() - one message to the kernel: @error (0, or a negative errno) or the reply. 0 or a negative errno. */
int request_answer(int device, uint64_t unique, int error, const Reply *reply);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The beginning of a session: what is agreed with the kernel, once for the mount, and what a process finds that takes over
 * from another. After a stop, nothing is under way. After a death, what was taken and not answered is asked for again
 * (FUSE_NOTIFY_RESEND: the kernel puts it before all that waits, and marks it), or fails, or is left waiting.
 */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "common/feature.h"
#include "runner/fuse/session-internal.h"

enum {
        INIT_TIMEOUT_MS = 10 * 1000,
};

/*
 * What we want where the kernel has it. Not: a write-back cache, since what was acknowledged would be the kernel's alone
 * and what changes below unseen; O_TRUNC with open, since done twice it could take what was written between; locks, which
 * the kernel keeps among the users of the mount without us, so that they outlive us.
 */
#define FLAGS_WANTED                                                                                       \
        (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | \
         FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL | FUSE_MAX_PAGES | \
         FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT | REQUEST_FLAG_HAS_RESEND)

static const char *const pending_names[] = {
        [PENDING_RESEND] = "resend",
        [PENDING_FLUSH] = "flush",
        [PENDING_NONE] = "none",
};
_Static_assert(ARRAY_SIZE(pending_names) == _PENDING_N, "each has a name");

int pending_parse(const char *text, Pending *ret_pending) {
        for (Pending p = 0; p < _PENDING_N; p++)
                if (strcmp(text, pending_names[p]) == 0) {
                        *ret_pending = p;
                        return 0;
                }
        return -EINVAL;
}

const char *pending_name(Pending pending) {
        return pending_names[pending];
}

static void agree(const Request *request, Reply *reply, SessionTerms *ret_terms) {
        const struct fuse_init_in *in = request->argument;
        struct fuse_init_out *out = reply_body(reply, struct fuse_init_out);
        uint64_t offered = in->flags;

        if (in->flags & FUSE_INIT_EXT && request->data_size >= sizeof(in->flags2))
                offered |= (uint64_t) in->flags2 << 32;
        offered &= FLAGS_WANTED;
        *ret_terms = (SessionTerms){
                .minor = REQUEST_MINOR,
                .flags = offered,
                .can_resend = offered & REQUEST_FLAG_HAS_RESEND && feature_enabled(FEATURE_FUSE_RESEND),
        };
        *out = (struct fuse_init_out){
                .major = FUSE_KERNEL_VERSION,
                .minor = REQUEST_MINOR,
                .max_readahead = in->max_readahead,
                .flags = (uint32_t) offered,
                .flags2 = (uint32_t) (offered >> 32),
                .max_background = 64,
                .congestion_threshold = 48,
                .max_write = REQUEST_MAX_WRITE,
                .max_pages = REQUEST_MAX_WRITE / 4096,
                .time_gran = 1,
        };
}

int session_negotiate(Session *session, SessionTerms *ret_terms) {
        struct pollfd fd = { .fd = session->device, .events = POLLIN };
        void *slot = table_slot(&session->mirror->table, 0);
        const struct fuse_init_in *in;
        Request request;
        Reply reply;
        ssize_t n;
        int r;

        if (poll(&fd, 1, INIT_TIMEOUT_MS) != 1)
                return -ETIMEDOUT;
        n = read(session->device, slot, REQUEST_SIZE_MAX);
        if (n < 0)
                return -errno;
        if (request_parse(slot, (size_t) n, &request) < 0 || request.header->opcode != FUSE_INIT)
                return -EPROTO;
        in = request.argument;
        if (in->major != FUSE_KERNEL_VERSION || in->minor < REQUEST_MINOR_MIN) {
                (void) request_answer(session->device, request.header->unique, -EPROTO, NULL);
                return -EPROTONOSUPPORT;
        }
        agree(&request, &reply, ret_terms);
        r = request_answer(session->device, request.header->unique, 0, &reply);
        ((struct fuse_in_header *) slot)->opcode = 0;
        return r;
}

/* resend() - 0, or a negative errno: this kernel cannot. */
static int resend(const Session *session) {
        const struct fuse_out_header header = { .len = sizeof(header), .error = REQUEST_NOTIFY_RESEND };

        return write(session->device, &header, sizeof(header)) < 0 ? -errno : 0;
}

/* flush() - what was taken and not answered fails. The kernel says ENOENT of what was. */
static void flush(Session *session) {
        for (unsigned i = 0; i < TABLE_SLOTS; i++) {
                const struct fuse_in_header *header = (void *) table_slot(&session->mirror->table, i);
                int r;

                if (header->opcode == 0 || !request_has_answer(header->opcode))
                        continue;
                r = request_answer(session->device, header->unique, -EIO, NULL);
                mirror_forget_orphan(session->mirror, header->unique & ~REQUEST_RESENT, r < 0);
        }
        mirror_forget_orphans(session->mirror);
}

int session_load(Session *session, Pending pending) {
        Table *table = &session->mirror->table;
        TableHeader *header = table->header;
        bool clean = header->clean;
        int r;

        if (session->owner != header->owner || session->owner == 0) {
                r = mirror_load(session->mirror);
                if (r < 0)
                        return r;
        }
        if (!clean) {
                if (pending == PENDING_FLUSH || (pending == PENDING_RESEND && resend(session) < 0))
                        flush(session);
        }
        session->n_orphans = mirror_orphans(session->mirror);
        for (unsigned i = 0; i < TABLE_SLOTS; i++)
                ((struct fuse_in_header *) (void *) table_slot(table, i))->opcode = 0;
        table_slot_present(table, 0);
        header->current = 0;
        session->owner = ++header->owner;
        return 0;
}

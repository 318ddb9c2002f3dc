/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mirror: the life of a file system in this process, and which operation does what. Everything that has to outlive the
 * process is in the table and the vault; what is here can be made from them at any time (mirror_load()).
 *
 * Access is decided by the kernel, which is told so when mounting (default_permissions): only who may do it gets a request
 * to us. What is made then belongs to whoever asked, since it is made with their user and group as those of the file
 * system, and with their umask: so the directory's default access list and its set-group-ID bit work as without us.
 *
 * An operation returns 0 or a negative errno, which is the answer; what the directory below says is said.
 */

#include "runner/fuse/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/fd.h"

static uint32_t fds_allowed(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return MIRROR_FDS_MIN;
        return (uint32_t) MIN(MAX(limit.rlim_cur / 4, MIRROR_FDS_MIN), MIRROR_FDS_MAX);
}

int mirror_new(Mirror **ret_mirror, int root_fd_consume, Table *table, Vault *vault, uint64_t timeout_ns) {
        _cleanup_(mirror_freep) Mirror *mirror = calloc(1, sizeof(*mirror));
        struct stat stat;

        if (!mirror) {
                fd_close(root_fd_consume);
                table_unmap(table);
                vault_close(vault);
                return -ENOMEM;
        }
        mirror->root = root_fd_consume;
        mirror->proc = -1;
        mirror->table = *table;
        mirror->vault = *vault;
        *table = TABLE_NULL;
        *vault = VAULT_NULL;
        mirror->timeout_ns = timeout_ns;
        mirror->max_fds = fds_allowed();
        mirror->buffer = mmap(NULL, REQUEST_MAX_WRITE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mirror->buffer == MAP_FAILED)
                return -ENOMEM;
        if (fstat(mirror->root, &stat) < 0)
                return -errno;
        if (!S_ISDIR(stat.st_mode))
                return -ENOTDIR;
        mirror->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (mirror->proc < 0)
                return errno == ENOENT ? -ENOSYS : -errno;
        *ret_mirror = TAKE_PTR(mirror);
        return 0;
}

Mirror *mirror_free(Mirror *mirror) {
        if (!mirror)
                return NULL;
        file_unload(mirror);
        node_unload(mirror);
        if (mirror->buffer && mirror->buffer != MAP_FAILED)
                (void) munmap(mirror->buffer, REQUEST_MAX_WRITE);
        table_unmap(&mirror->table);
        vault_close(&mirror->vault);
        fd_close(mirror->proc);
        fd_close(mirror->root);
        free(mirror);
        return NULL;
}

int mirror_load(Mirror *mirror) {
        TableHeader *header = mirror->table.header;
        struct fuse_in_header *last = (void *) table_slot(&mirror->table, header->current);
        Request request;
        int r;

        file_unload(mirror);
        node_unload(mirror);
        journal_load(mirror);
        r = node_load(mirror);
        if (r == 0)
                r = file_load(mirror);
        if (r < 0)
                return r;
        if (!header->clean && last->opcode && last->len <= REQUEST_SIZE_MAX &&
            request_parse(last, last->len, &request) == 0)
                journal_finish(mirror, &request);
        else
                journal_finish(mirror, NULL);
        return 0;
}

/* The umask belongs to the thread from here on, and a change of its user takes nothing of what it may do. */
int mirror_prepare_thread(Mirror *mirror) {
        if (unshare(CLONE_FS) < 0)
                return -errno;
        mirror->mask = 0;
        (void) umask(0);
        mirror->privileged =
                geteuid() == 0 && prctl(PR_SET_SECUREBITS, prctl(PR_GET_SECUREBITS) | SECBIT_NO_SETUID_FIXUP) == 0;
        return 0;
}

void act_as(Mirror *mirror, const struct fuse_in_header *header, uint32_t mask) {
        if (mirror->mask != (mask & 0777)) {
                mirror->mask = mask & 0777;
                (void) umask(mirror->mask);
        }
        if (!mirror->privileged)
                return;
        if (header->gid != 0)
                (void) setfsgid(header->gid);
        if (header->uid != 0)
                (void) setfsuid(header->uid);
}

void act_as_self(Mirror *mirror) {
        int saved = errno;

        if (mirror->privileged) {
                (void) setfsuid(0);
                (void) setfsgid(0);
        }
        errno = saved;
}

/* ---- serving ---- */

static int serve_journaled(Mirror *mirror, const Request *request, const Prior *prior, Reply *reply) {
        switch (request->header->opcode) {
        case FUSE_LOOKUP:
                return op_lookup(mirror, request, reply);
        case FUSE_READDIRPLUS:
                return op_readdirplus(mirror, request, reply);
        case FUSE_OPEN:
                return op_open(mirror, request, reply);
        case FUSE_OPENDIR:
                return op_opendir(mirror, request, reply);
        case FUSE_SYMLINK:
        case FUSE_MKNOD:
        case FUSE_MKDIR:
                return op_make(mirror, request, prior, reply);
        case FUSE_CREATE:
                return op_create(mirror, request, prior, reply);
        case FUSE_TMPFILE:
                return op_tmpfile(mirror, request, reply);
        case FUSE_LINK:
                return op_link(mirror, request, prior, reply);
        case FUSE_UNLINK:
        case FUSE_RMDIR:
                return op_remove(mirror, request, prior);
        case FUSE_RENAME:
        case FUSE_RENAME2:
                return op_rename(mirror, request, prior);
        case FUSE_SETXATTR:
                return op_setxattr(mirror, request, prior);
        case FUSE_REMOVEXATTR:
                return op_removexattr(mirror, request, prior);
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
                op_forget(mirror, request, 0);
                return 0;
        default:
                return -ENOSYS;
        }
}

/* What can be done twice. */
static int serve_plain(Mirror *mirror, const Request *request, Reply *reply) {
        switch (request->header->opcode) {
        case FUSE_GETATTR:
                return op_getattr(mirror, request, reply);
        case FUSE_SETATTR:
                return op_setattr(mirror, request, reply);
        case REQUEST_STATX:
                return op_statx(mirror, request, reply);
        case FUSE_STATFS:
                return op_statfs(mirror, request, reply);
        case FUSE_READLINK:
                return op_readlink(mirror, request, reply);
        case FUSE_GETXATTR:
                return op_getxattr(mirror, request, reply);
        case FUSE_LISTXATTR:
                return op_listxattr(mirror, request, reply);
        case FUSE_RELEASE:
        case FUSE_RELEASEDIR:
                return op_release(mirror, request);
        case FUSE_FLUSH:
                return op_flush(mirror, request);
        case FUSE_LSEEK:
                return op_lseek(mirror, request, reply);
        case FUSE_READDIR:
                return op_readdir(mirror, request, reply);
        case FUSE_IOCTL:
                return -ENOTTY; /* what they do is private to the file system below */
        case FUSE_INTERRUPT:    /* what waits is in other threads, and ends by itself */
        case FUSE_DESTROY:
                return 0;
        default:
                return -ENOSYS;
        }
}

/* kind_of() - 't': input and output, 'j': not the same when done twice, 'p': anything else. */
static char kind_of(uint32_t opcode) {
        switch (opcode) {
        case FUSE_READ:
        case FUSE_WRITE:
        case FUSE_FSYNC:
        case FUSE_FSYNCDIR:
        case FUSE_FALLOCATE:
        case FUSE_COPY_FILE_RANGE:
        case REQUEST_COPY_FILE_RANGE_64:
                return 't';
        case FUSE_LOOKUP:
        case FUSE_READDIRPLUS:
        case FUSE_OPEN:
        case FUSE_OPENDIR:
        case FUSE_SYMLINK:
        case FUSE_MKNOD:
        case FUSE_MKDIR:
        case FUSE_CREATE:
        case FUSE_TMPFILE:
        case FUSE_LINK:
        case FUSE_UNLINK:
        case FUSE_RMDIR:
        case FUSE_RENAME:
        case FUSE_RENAME2:
        case FUSE_SETXATTR:
        case FUSE_REMOVEXATTR:
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
                return 'j';
        default:
                return 'p';
        }
}

int mirror_serve(Mirror *mirror, const Request *request, Reply *reply, Transferred *transferred) {
        Prior prior;
        int r;

        *reply = (Reply){ 0 };
        journal_end(mirror);
        switch (kind_of(request->header->opcode)) {
        case 't':
                r = transferred_begin(mirror, request, transferred);
                return r < 0 ? r : MIRROR_TRANSFER;
        case 'j':
                journal_begin(mirror, request, &prior);
                r = serve_journaled(mirror, request, &prior, reply);
                if (r < 0)
                        journal_undo(mirror, mirror->journal);
                return r;
        default:
                return serve_plain(mirror, request, reply);
        }
}

void mirror_unserved(Mirror *mirror) {
        if (mirror->journal)
                journal_undo(mirror, mirror->journal);
}

/* ---- what those before us did ---- */

unsigned mirror_orphans(Mirror *mirror) {
        unsigned n = 0;

        for (unsigned i = 0; i < TABLE_JOURNALS; i++)
                n += mirror->table.journals[i].state == TABLE_JOURNAL_ORPHAN;
        return n;
}

void mirror_forget_orphan(Mirror *mirror, uint64_t unique, bool answered) {
        TableJournal *journal = journal_of_orphan(mirror, unique);

        if (!journal)
                return;
        if (!answered)
                journal_undo(mirror, journal);
        journal->state = TABLE_JOURNAL_FREE;
}

void mirror_forget_orphans(Mirror *mirror) {
        for (unsigned i = 0; i < TABLE_JOURNALS; i++)
                if (mirror->table.journals[i].state == TABLE_JOURNAL_ORPHAN)
                        mirror->table.journals[i].state = TABLE_JOURNAL_FREE;
}

void mirror_keep_open(Mirror *mirror) {
        for (uint32_t i = 0; i < mirror->table.header->n_files; i++) {
                const TableFile *file = &mirror->table.files[i];
                struct stat stat;
                uint32_t node;

                if (file->kind != TABLE_FILE_FREE && i < mirror->n_files_room && mirror->files[i].fd >= 0 &&
                    node_of(mirror, file->node, &node) == 0 && fstat(mirror->files[i].fd, &stat) == 0 &&
                    stat.st_nlink == 0)
                        node_keep(mirror, node, true);
        }
}

void mirror_counts(const Mirror *mirror, uint64_t *ret_inodes, uint64_t *ret_files, uint64_t *ret_kept) {
        *ret_inodes = mirror->n_live;
        *ret_kept = mirror->vault.n_live;
        *ret_files = 0;
        for (uint32_t i = 0; i < mirror->table.header->n_files; i++)
                *ret_files += mirror->table.files[i].kind != TABLE_FILE_FREE;
}

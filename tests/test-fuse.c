/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers runner/fuse without a kernel: requests of every kind cut at every length, a session over a socket, what is served
 * again after a death at the worst moment, counts that stay exact, the vault, and state that is not what it should be.
 * What the operations do on a real mount: integration/test-fuse.py.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/state.h"

#define TIMEOUT_NS 1000000000

typedef struct Fixture {
        char folder[64];
        Mirror *mirror;
        int table, vault_in, vault_out;
        uint64_t unique;
} Fixture;

/* A request as the kernel would write it. */
typedef struct Message {
        uint64_t bytes[600];
        size_t size;
} Message;

static struct fuse_in_header *header_of(Message *message) {
        return (void *) message->bytes;
}

static void add(Message *message, const void *data, size_t size) {
        if (size > 0)
                memcpy((char *) message->bytes + message->size, data, size);
        message->size += size;
        header_of(message)->len = (uint32_t) message->size;
}

static Message request_to(Fixture *fixture, uint32_t opcode, uint64_t node, const void *argument, size_t size) {
        Message message = { .size = sizeof(struct fuse_in_header) };

        *header_of(&message) = (struct fuse_in_header){ .opcode = opcode,
                                                        .unique = fixture ? fixture->unique += 2 : 2,
                                                        .nodeid = node };
        add(&message, argument, size);
        return message;
}

static void add_name(Message *message, const char *name) {
        add(message, name, strlen(name) + 1);
}

/* ---- a mirror ---- */

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw) {
        (void) stat;
        (void) type;
        (void) ftw;
        return remove(path);
}

static void fixture_open(Fixture *fixture) {
        const char *folder = getenv("TMPDIR");
        Table table = TABLE_NULL;
        Vault vault = VAULT_NULL;
        int root;

        *fixture = (Fixture){ 0 };
        assert_true(snprintf(fixture->folder, sizeof(fixture->folder), "%s/fuse-XXXXXX", folder ? folder : "/tmp") >
                    0);
        assert_non_null(mkdtemp(fixture->folder));
        root = open(fixture->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(root >= 0);
        assert_int_equal(table_create(&table, 1024), 0);
        assert_int_equal(vault_open(&vault), 0);
        fixture->table = fd_dup(table.fd);
        fixture->vault_in = fd_dup(vault.in);
        fixture->vault_out = fd_dup(vault.out);
        assert_int_equal(mirror_new(&fixture->mirror, root, &table, &vault, TIMEOUT_NS), 0);
        assert_int_equal(mirror_load(fixture->mirror), 0);
}

static void fixture_close(Fixture *fixture) {
        mirror_free(fixture->mirror);
        fd_close(fixture->table);
        fd_close(fixture->vault_in);
        fd_close(fixture->vault_out);
        assert_int_equal(nftw(fixture->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* die() - the process is gone, and another one has what crosses. */
static void die(Fixture *fixture) {
        char reason[TABLE_REASON_SIZE];
        Vault vault = { .in = fd_dup(fixture->vault_in), .out = fd_dup(fixture->vault_out) };
        int root = open(fixture->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
        Table table = TABLE_NULL;

        mirror_free(fixture->mirror);
        assert_int_equal(table_map(&table, fixture->table, reason), 0);
        table.header->clean = 0;
        assert_int_equal(mirror_new(&fixture->mirror, root, &table, &vault, TIMEOUT_NS), 0);
        assert_int_equal(mirror_load(fixture->mirror), 0);
}

/* serve() - and not answered yet. */
static int serve(Fixture *fixture, Message *message, Reply *reply) {
        Transferred transferred;
        Request request;
        int r = request_parse(message->bytes, message->size, &request);

        if (r == 0)
                r = mirror_serve(fixture->mirror, &request, reply, &transferred);
        if (r == MIRROR_TRANSFER)
                r = transferred_run(&transferred, fixture->mirror->buffer, false, reply);
        return r;
}

static int serve_and_answer(Fixture *fixture, Message *message, Reply *reply) {
        int r = serve(fixture, message, reply);

        journal_end(fixture->mirror);
        return r;
}

static uint64_t entry_of(const Reply *reply) {
        return ((const struct fuse_entry_out *) reply->data)->nodeid;
}

static uint64_t lookup(Fixture *fixture, uint64_t parent, const char *name) {
        Message message = request_to(fixture, FUSE_LOOKUP, parent, NULL, 0);
        Reply reply;

        add_name(&message, name);
        return serve_and_answer(fixture, &message, &reply) == 0 ? entry_of(&reply) : 0;
}

static void forget(Fixture *fixture, uint64_t node, uint64_t n) {
        struct fuse_forget_in in = { n };
        Message message = request_to(fixture, FUSE_FORGET, node, &in, sizeof(in));
        Reply reply;

        assert_int_equal(serve_and_answer(fixture, &message, &reply), 0);
}

static uint64_t n_inodes(const Fixture *fixture) {
        uint64_t inodes, files, kept;

        mirror_counts(fixture->mirror, &inodes, &files, &kept);
        return inodes;
}

static uint64_t n_kept(const Fixture *fixture) {
        uint64_t inodes, files, kept;

        mirror_counts(fixture->mirror, &inodes, &files, &kept);
        return kept;
}

/* ---- requests ---- */

static void test_requests_are_checked(void **state) {
        static const char *const wrong[] = { "", ".", "..", "a/b", "/" };
        Message message = request_to(NULL, FUSE_LOOKUP, 1, NULL, 0);
        Request request;

        (void) state;
        assert_int_equal(request_parse(message.bytes, 8, &request), -EPROTO);
        header_of(&message)->len = 41;
        assert_int_equal(request_parse(message.bytes, message.size, &request), -EPROTO);
        header_of(&message)->len = 40;
        assert_int_equal(request_parse(message.bytes, message.size, &request), -EINVAL); /* no name */
        add(&message, "abc", 3);
        assert_int_equal(request_parse(message.bytes, message.size, &request), -EINVAL); /* without an end */
        add(&message, "", 1);
        assert_int_equal(request_parse(message.bytes, message.size, &request), 0);
        assert_string_equal(request.name, "abc");
        header_of(&message)->total_extlen = 1;
        assert_int_equal(request_parse(message.bytes, message.size, &request), -EINVAL);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                message = request_to(NULL, FUSE_LOOKUP, 1, NULL, 0);
                add_name(&message, wrong[i]);
                assert_int_equal(request_parse(message.bytes, message.size, &request), -EINVAL);
        }
        for (uint32_t opcode = 0; opcode < 6000; opcode++) {
                message = request_to(NULL, opcode, 1, NULL, 0);
                if (!request_name(opcode))
                        assert_int_equal(request_parse(message.bytes, message.size, &request), -ENOSYS);
        }
}

/* Each kind, of every length up to more than it needs, in memory that ends where it ends. */
static void test_requests_are_cut(void **state) {
        Fixture fixture;
        Reply reply;

        (void) state;
        fixture_open(&fixture);
        for (uint32_t opcode = 1; opcode <= REQUEST_COPY_FILE_RANGE_64; opcode++)
                for (size_t size = sizeof(struct fuse_in_header); size < 200; size++) {
                        struct fuse_in_header *exact = calloc(1, size);
                        Transferred transferred;
                        Request request;

                        exact->len = (uint32_t) size;
                        exact->opcode = opcode;
                        exact->nodeid = 1;
                        exact->unique = fixture.unique += 2;
                        if (request_parse(exact, size, &request) == 0)
                                (void) mirror_serve(fixture.mirror, &request, &reply, &transferred);
                        journal_end(fixture.mirror);
                        free(exact);
                }
        fixture_close(&fixture);
}

/* ---- what is asked for again ---- */

typedef struct Again {
        uint32_t opcode;
        const char *name, *target;
        size_t size;
        union {
                struct fuse_mkdir_in mkdir;
                struct fuse_mknod_in mknod;
                struct fuse_create_in create;
                struct fuse_rename2_in rename;
                struct fuse_setxattr_in xattr;
        } in;
        bool entry; /* its answer names an inode */
} Again;

static const Again agains[] = {
        { FUSE_LOOKUP, "file", NULL, 0, { { 0 } }, true },
        { FUSE_MKDIR, "new", NULL, sizeof(struct fuse_mkdir_in), { .mkdir = { .mode = 0755 } }, true },
        { FUSE_MKNOD, "new", NULL, sizeof(struct fuse_mknod_in), { .mknod = { .mode = S_IFIFO | 0600 } }, true },
        { FUSE_SYMLINK, "new", "anywhere", 0, { { 0 } }, true },
        { FUSE_CREATE,
          "new",
          NULL,
          sizeof(struct fuse_create_in),
          { .create = { .flags = O_CREAT | O_EXCL | O_RDWR, .mode = 0644 } },
          true },
        { FUSE_UNLINK, "file", NULL, 0, { { 0 } }, false },
        { FUSE_RMDIR, "directory", NULL, 0, { { 0 } }, false },
        { FUSE_RENAME2, "file", "new", sizeof(struct fuse_rename2_in), { .rename = { .newdir = 1 } }, false },
        { FUSE_RENAME2, "file", "other", sizeof(struct fuse_rename2_in), { .rename = { .newdir = 1 } }, false },
        { FUSE_RENAME2,
          "file",
          "other",
          sizeof(struct fuse_rename2_in),
          { .rename = { .newdir = 1, .flags = RENAME_EXCHANGE } },
          false },
        { FUSE_RENAME2,
          "file",
          "new",
          sizeof(struct fuse_rename2_in),
          { .rename = { .newdir = 1, .flags = RENAME_NOREPLACE } },
          false },
};

static void populate(const Fixture *fixture) {
        int root = open(fixture->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_int_equal(mkdirat(root, "directory", 0755), 0);
        fd_close(openat(root, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        fd_close(openat(root, "other", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        fd_close(root);
}

static Message again_message(Fixture *fixture, const Again *again) {
        Message message = request_to(fixture, again->opcode, TABLE_ROOT, &again->in, again->size);

        add_name(&message, again->name);
        if (again->target)
                add_name(&message, again->target);
        return message;
}

/* It takes effect, and the process dies before the answer: the kernel asks again, twice. */
static void test_done_once(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(agains); i++) {
                const Again *again = &agains[i];
                Fixture fixture;
                Message message;
                Reply reply;

                fixture_open(&fixture);
                populate(&fixture);
                message = again_message(&fixture, again);
                assert_int_equal(serve(&fixture, &message, &reply), 0);
                for (unsigned death = 0; death < 2; death++) {
                        die(&fixture);
                        assert_int_equal(mirror_orphans(fixture.mirror), 1);
                        header_of(&message)->unique |= REQUEST_RESENT;
                        assert_int_equal(serve(&fixture, &message, &reply), 0);
                        if (again->entry)
                                assert_int_equal(n_inodes(&fixture), 1);
                }
                journal_end(fixture.mirror);
                assert_int_equal(mirror_orphans(fixture.mirror), 0);
                if (again->entry) {
                        forget(&fixture, entry_of(&reply), 1);
                        assert_int_equal(n_inodes(&fixture), 0);
                }
                /* Another one of the same kind is not mistaken for it. */
                header_of(&message)->unique = fixture.unique += 2;
                if (again->opcode != FUSE_LOOKUP && !(again->in.rename.flags & RENAME_EXCHANGE && again->target))
                        assert_true(serve_and_answer(&fixture, &message, &reply) < 0);
                fixture_close(&fixture);
        }
}

/* What failed fails again, and what the answer did not reach anybody with is taken back. */
static void test_failed_again(void **state) {
        struct fuse_mkdir_in in = { .mode = 0755 };
        Message message;
        Fixture fixture;
        Reply reply;

        (void) state;
        fixture_open(&fixture);
        populate(&fixture);
        message = request_to(&fixture, FUSE_MKDIR, TABLE_ROOT, &in, sizeof(in));
        add_name(&message, "file");
        assert_int_equal(serve(&fixture, &message, &reply), -EEXIST);
        die(&fixture);
        header_of(&message)->unique |= REQUEST_RESENT;
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), -EEXIST);

        message = request_to(&fixture, FUSE_LOOKUP, TABLE_ROOT, NULL, 0);
        add_name(&message, "file");
        assert_int_equal(serve(&fixture, &message, &reply), 0);
        assert_int_equal(n_inodes(&fixture), 1);
        mirror_unserved(fixture.mirror);
        journal_end(fixture.mirror);
        assert_int_equal(n_inodes(&fixture), 0);
        fixture_close(&fixture);
}

/* The kernel knows whether an orphan was answered: its count stays, or goes. */
static void test_orphans_end(void **state) {
        (void) state;
        for (unsigned answered = 0; answered < 2; answered++) {
                Fixture fixture;
                Message message;
                Reply reply;

                fixture_open(&fixture);
                populate(&fixture);
                message = request_to(&fixture, FUSE_LOOKUP, TABLE_ROOT, NULL, 0);
                add_name(&message, "file");
                assert_int_equal(serve(&fixture, &message, &reply), 0);
                die(&fixture);
                mirror_forget_orphan(fixture.mirror, header_of(&message)->unique, answered);
                assert_int_equal(mirror_orphans(fixture.mirror), 0);
                assert_int_equal(n_inodes(&fixture), answered);
                fixture_close(&fixture);
        }
}

/* A batch of which a part was done; the rest is, and no part twice. */
static void test_forgets_are_finished(void **state) {
        (void) state;
        /* Killed after each of the three; before the first is counted, the second, ...; when the request is answered for. */
        for (uint32_t at = 0; at <= 7; at++) {
                uint32_t done = at % 4;
                bool stated = at >= 4 && done < 3, answered = at == 7;
                struct fuse_batch_forget_in in = { .count = 3 };
                struct fuse_forget_one ones[3];
                Message message;
                Fixture fixture;
                Request request;
                Prior prior;
                void *slot;

                fixture_open(&fixture);
                populate(&fixture);
                for (unsigned i = 0; i < 3; i++) {
                        ones[i].nodeid = lookup(&fixture, TABLE_ROOT,
                                                i == 0   ? "file"
                                                : i == 1 ? "other"
                                                         : "directory");
                        (void) lookup(&fixture, TABLE_ROOT, i == 0 ? "file" : i == 1 ? "other" : "directory");
                        ones[i].nlookup = 1;
                }
                message = request_to(&fixture, FUSE_BATCH_FORGET, 0, &in, sizeof(in));
                add(&message, ones, sizeof(ones));
                slot = table_slot(&fixture.mirror->table, fixture.mirror->table.header->current);
                memcpy(slot, message.bytes, message.size);
                assert_int_equal(request_parse(slot, message.size, &request), 0);
                journal_begin(fixture.mirror, &request, &prior);
                for (uint32_t i = 0; i < done; i++)
                        journal_forget(fixture.mirror, i, &ones[i]);
                if (stated)
                        fixture.mirror->journal->entries[done & 1] = (TableEntry){ ones[done].nodeid, 2 };
                if (answered)
                        ((struct fuse_in_header *) slot)->opcode = 0;
                die(&fixture);
                assert_int_equal(n_inodes(&fixture), 3);
                for (unsigned i = 0; i < 3; i++)
                        forget(&fixture, ones[i].nodeid, 1);
                assert_int_equal(n_inodes(&fixture), 0);
                fixture_close(&fixture);
        }
}

/* An old number means nothing, whoever has its index now. */
static void test_numbers_are_not_reused(void **state) {
        struct fuse_getattr_in in = { 0 };
        Message message;
        Fixture fixture;
        uint64_t first;
        Reply reply;

        (void) state;
        fixture_open(&fixture);
        populate(&fixture);
        first = lookup(&fixture, TABLE_ROOT, "file");
        forget(&fixture, first, 1);
        assert_int_not_equal(lookup(&fixture, TABLE_ROOT, "other"), first);
        message = request_to(&fixture, FUSE_GETATTR, first, &in, sizeof(in));
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), -ESTALE);
        forget(&fixture, first, UINT64_MAX);
        forget(&fixture, TABLE_ROOT, UINT64_MAX);
        assert_int_equal(n_inodes(&fixture), 1);
        fixture_close(&fixture);
}

/* ---- the vault ---- */

static int nothing_lives(uint64_t node, void *userdata) {
        (void) node;
        (void) userdata;
        return -1;
}

static int only_even(uint64_t node, void *userdata) {
        return node % 2 == 0 ? *(int *) userdata : -1;
}

static int count(uint64_t node, int fd_consume, void *userdata) {
        uint64_t *sum = userdata;

        fd_close(fd_consume);
        *sum += node;
        return 0;
}

static void test_vault(void **state) {
        Vault vault, other;
        uint64_t sum = 0;
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void) state;
        assert_int_equal(vault_open(&vault), 0);
        assert_int_equal(vault_check(vault.in, vault.out), 0);
        assert_int_equal(vault_check(vault.in, fd), -EINVAL);
        for (uint64_t i = 1; i <= 1000; i++)
                assert_int_equal(vault_put(&vault, i, fd), 0);
        other = (Vault){ .in = vault.in, .out = vault.out };
        for (unsigned i = 0; i < 3; i++) {
                sum = 0;
                assert_int_equal(vault_load(&other, count, &sum), 0);
                assert_int_equal(sum, 500500);
                assert_int_equal(other.n_live, 1000);
        }
        for (unsigned i = 0; i < 500; i++)
                vault_drop(&vault, only_even, &fd);
        sum = 0;
        assert_int_equal(vault_load(&other, count, &sum), 0);
        assert_true(sum >= 250500 && sum < 500500);
        for (unsigned i = 0; i < 500; i++)
                vault_drop(&vault, nothing_lives, NULL);
        sum = 0;
        assert_int_equal(vault_load(&other, count, &sum), 0);
        assert_int_equal(sum, 0);
        vault_close(&vault);
        fd_close(fd);
}

/* An unlinked file that is open is read after a death; closed and forgotten it leaves the vault. */
static void test_vault_of_a_mirror(void **state) {
        struct fuse_open_in in = { .flags = O_RDWR };
        struct fuse_read_in read_in = { .size = 100 };
        struct fuse_release_in release = { 0 };
        Fixture fixture;
        Message message;
        uint64_t node;
        Reply reply;

        (void) state;
        fixture_open(&fixture);
        populate(&fixture);
        node = lookup(&fixture, TABLE_ROOT, "file");
        message = request_to(&fixture, FUSE_OPEN, node, &in, sizeof(in));
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0);
        read_in.fh = release.fh = ((const struct fuse_open_out *) reply.data)->fh;
        message = request_to(&fixture, FUSE_UNLINK, TABLE_ROOT, NULL, 0);
        add_name(&message, "file");
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0);
        assert_int_equal(n_kept(&fixture), 1);
        die(&fixture);
        message = request_to(&fixture, FUSE_READ, node, &read_in, sizeof(read_in));
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0);
        assert_int_equal(reply.size, 0);
        message = request_to(&fixture, FUSE_RELEASE, node, &release, sizeof(release));
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0);
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0); /* sent again */
        forget(&fixture, node, 1);
        assert_int_equal(n_kept(&fixture), 0);
        assert_int_equal(n_inodes(&fixture), 0);
        fixture_close(&fixture);
}

static int serve_name(Fixture *fixture, uint32_t opcode, const char *name) {
        Message message = request_to(fixture, opcode, TABLE_ROOT, NULL, 0);
        Reply reply;

        add_name(&message, name);
        return serve_and_answer(fixture, &message, &reply);
}

/* What was to go and did not is as it was: no descriptor stays open for it, and the vault has none. */
static void test_names_that_stay(void **state) {
        struct fuse_rename_in in = { .newdir = TABLE_ROOT };
        char path[96];
        Fixture fixture;
        Message message;
        uint64_t node;
        Reply reply;
        bool pinned;

        (void) state;
        fixture_open(&fixture);
        populate(&fixture);
        (void) snprintf(path, sizeof(path), "%s/directory/within", fixture.folder);
        assert_int_equal(mkdir(path, 0755), 0);
        node = lookup(&fixture, TABLE_ROOT, "directory");
        pinned = fixture.mirror->nodes[(uint32_t) node].pinned; /* always, where there are no handles */
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(serve_name(&fixture, FUSE_RMDIR, "directory"), -ENOTEMPTY);
                assert_int_equal(serve_name(&fixture, FUSE_UNLINK, "directory"), -EISDIR);
                message = request_to(&fixture, FUSE_RENAME, TABLE_ROOT, &in, sizeof(in));
                add_name(&message, "other");
                add_name(&message, "directory");
                assert_int_equal(serve_and_answer(&fixture, &message, &reply), -EISDIR);
                assert_int_equal(fixture.mirror->nodes[(uint32_t) node].pinned, pinned);
                assert_int_equal(n_kept(&fixture), pinned);
        }
        assert_true(node_fd_of(fixture.mirror, node) >= 0);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(serve_name(&fixture, FUSE_RMDIR, "directory"), 0);
        assert_true(fixture.mirror->nodes[(uint32_t) node].pinned);
        assert_int_equal(n_kept(&fixture), 1);
        forget(&fixture, node, 1);
        assert_int_equal(n_kept(&fixture), 0);
        fixture_close(&fixture);
}

/* ---- sessions ---- */

static Session *session_over(Fixture *fixture, int device) {
        Session *session;

        assert_int_equal(session_new(&session, device, TAKE_PTR(fixture->mirror)), 0);
        return session;
}

static struct fuse_out_header exchange(int kernel, const Message *message) {
        struct pollfd fd = { .fd = kernel, .events = POLLIN };
        union {
                struct fuse_out_header header;
                char bytes[4096];
        } answer;

        assert_int_equal(write(kernel, message->bytes, message->size), message->size);
        assert_int_equal(poll(&fd, 1, 5000), 1);
        assert_true(read(kernel, &answer, sizeof(answer)) >= (ssize_t) sizeof(answer.header));
        return answer.header;
}

static void test_session(void **state) {
        struct fuse_init_in init = { .major = 7, .minor = 45, .flags = FUSE_INIT_EXT, .flags2 = 0x80 };
        struct fuse_getattr_in in = { 0 };
        struct fuse_out_header answer;
        SessionTerms terms;
        Fixture fixture;
        Session *session;
        Message message;
        struct pollfd ended;
        int fds[2], result = 0;

        (void) state;
        fixture_open(&fixture);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        session = session_over(&fixture, fds[0]);
        message = request_to(&fixture, FUSE_INIT, 0, &init, sizeof(init));
        assert_int_equal(write(fds[1], message.bytes, message.size), message.size);
        assert_int_equal(session_negotiate(session, &terms), 0);
        assert_true(terms.flags & REQUEST_FLAG_HAS_RESEND);
        assert_int_equal(read(fds[1], &answer, sizeof(answer)), sizeof(answer));
        assert_int_equal(answer.error, 0);
        init.minor = 20;
        message = request_to(&fixture, FUSE_INIT, 0, &init, sizeof(init));
        assert_int_equal(write(fds[1], message.bytes, message.size), message.size);
        assert_int_equal(session_negotiate(session, &terms), -EPROTONOSUPPORT);
        assert_int_equal(read(fds[1], &answer, sizeof(answer)), sizeof(answer));

        assert_int_equal(session_load(session, PENDING_FLUSH), 0);
        assert_int_equal(session_run(session), 0);
        message = request_to(&fixture, FUSE_GETATTR, TABLE_ROOT, &in, sizeof(in));
        answer = exchange(fds[1], &message);
        assert_int_equal(answer.error, 0);
        assert_int_equal(answer.unique, header_of(&message)->unique);
        message = request_to(&fixture, 4000, TABLE_ROOT, NULL, 0);
        assert_int_equal(exchange(fds[1], &message).error, -ENOSYS);
        message = request_to(&fixture, FUSE_MKDIR, TABLE_ROOT, NULL, 0);
        assert_int_equal(exchange(fds[1], &message).error, -EINVAL);
        message = request_to(&fixture, FUSE_IOCTL, TABLE_ROOT, &(struct fuse_ioctl_in){ 0 },
                             sizeof(struct fuse_ioctl_in));
        assert_int_equal(exchange(fds[1], &message).error, -ENOTTY);

        /* Stopped, and begun again; then something that is no request. */
        assert_int_equal(session_stop(session), 0);
        assert_int_equal(session_load(session, PENDING_FLUSH), 0);
        assert_int_equal(session_run(session), 0);
        assert_false(session_ended(session, &result));
        assert_int_equal(write(fds[1], "what?", 5), 5);
        ended = (struct pollfd){ .fd = session_event_fd(session), .events = POLLIN };
        assert_int_equal(poll(&ended, 1, 5000), 1);
        assert_true(session_ended(session, &result));
        assert_int_equal(result, -EPROTO);
        assert_int_equal(session_stop(session), -EPROTO);
        session_free(session);
        fd_close(fds[1]);
        fixture_close(&fixture);
}

/* What a dead process took is answered EIO by the next, and only that. */
static void test_flush(void **state) {
        struct fuse_in_header *slot;
        struct fuse_out_header answer;
        Fixture fixture;
        Session *session;
        int fds[2];

        (void) state;
        fixture_open(&fixture);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, fds), 0);
        slot = (void *) table_slot(&fixture.mirror->table, 3);
        *slot = (struct fuse_in_header){ .len = 56, .opcode = FUSE_FSYNC, .unique = 77 };
        slot = (void *) table_slot(&fixture.mirror->table, 2);
        *slot = (struct fuse_in_header){ .len = 48, .opcode = FUSE_FORGET, .unique = 78 };
        fixture.mirror->table.header->clean = 0;
        session = session_over(&fixture, fds[0]);
        assert_int_equal(session_load(session, PENDING_FLUSH), 0);
        assert_int_equal(read(fds[1], &answer, sizeof(answer)), sizeof(answer));
        assert_int_equal(answer.unique, 77);
        assert_int_equal(answer.error, -EIO);
        assert_int_equal(recv(fds[1], &answer, sizeof(answer), MSG_DONTWAIT), -1);
        session_free(session);
        fd_close(fds[1]);
        fixture_close(&fixture);
}

/* A successor began to serve and is given up: who was there before goes on from what that one has left. */
static void test_way_back(void **state) {
        struct fuse_mkdir_in in = { .mode = 0755 };
        Vault vault = VAULT_NULL;
        Table table = TABLE_NULL;
        char reason[TABLE_REASON_SIZE];
        uint64_t before, made;
        Fixture fixture;
        Message message;
        Mirror *first;
        Reply reply;

        (void) state;
        fixture_open(&fixture);
        populate(&fixture);
        before = lookup(&fixture, TABLE_ROOT, "file");
        first = fixture.mirror;

        vault = (Vault){ .in = fd_dup(fixture.vault_in), .out = fd_dup(fixture.vault_out) };
        assert_int_equal(table_map(&table, fixture.table, reason), 0);
        assert_int_equal(mirror_new(&fixture.mirror, fd_dup(first->root), &table, &vault, TIMEOUT_NS), 0);
        assert_int_equal(mirror_load(fixture.mirror), 0);
        message = request_to(&fixture, FUSE_MKDIR, TABLE_ROOT, &in, sizeof(in));
        add_name(&message, "new");
        assert_int_equal(serve_and_answer(&fixture, &message, &reply), 0);
        made = entry_of(&reply);
        forget(&fixture, before, 1);
        mirror_free(fixture.mirror);

        fixture.mirror = first;
        assert_int_equal(mirror_load(first), 0);
        assert_int_equal(n_inodes(&fixture), 1);
        assert_int_equal(lookup(&fixture, TABLE_ROOT, "new"), made);
        forget(&fixture, made, 2);
        assert_int_equal(n_inodes(&fixture), 0);
        fixture_close(&fixture);
}

/* ---- state ---- */

static bool any_device(int fd) {
        return fd >= 0;
}

static bool no_device(int fd) {
        (void) fd;
        return false;
}

static void dup_fds(const Fixture *fixture, int fds[_STATE_FD_N]) {
        fds[STATE_FD_DEVICE] = open("/dev/null", O_RDWR | O_CLOEXEC);
        fds[STATE_FD_ROOT] = fd_dup(fixture->mirror->root);
        fds[STATE_FD_TABLE] = fd_dup(fixture->table);
        fds[STATE_FD_VAULT_IN] = fd_dup(fixture->vault_in);
        fds[STATE_FD_VAULT_OUT] = fd_dup(fixture->vault_out);
}

static void refused(const State *state, int fds[_STATE_FD_N], bool (*is_device)(int), int error, const char *text) {
        char reason[STATE_REASON_SIZE] = "";
        Session *session;

        assert_int_equal(state_session(state, fds, is_device, &session, reason), error);
        assert_string_equal(reason, text);
}

static void test_state(void **test_state) {
        State state = {
                .source = (char *) "/a", .mount_point = (char *) "/b", .terms = { 38, 5, true }, .timeout_ns = 7
        };
        char reason[STATE_REASON_SIZE];
        int fds[_STATE_FD_N];
        Fixture fixture;
        Session *session;
        uint8_t *data;
        size_t size;
        State back;

        (void) test_state;
        fixture_open(&fixture);
        assert_int_equal(state_pack(&state, &data, &size), 0);
        assert_int_equal(state_unpack(data, size, &back, reason), 0);
        assert_string_equal(back.mount_point, "/b");
        assert_int_equal(back.terms.flags, 5);
        state_deinit(&back);
        assert_int_equal(state_unpack(data, size - 1, &back, reason), -EPROTO);
        assert_int_equal(state_unpack("", 0, &back, reason), -EPROTO);
        assert_string_equal(reason, "the file system's state has no directory or no mount point");
        free(data);

        dup_fds(&fixture, fds);
        assert_int_equal(state_session(&state, fds, any_device, &session, reason), 0);
        session_free(session);
        dup_fds(&fixture, fds);
        refused(&state, fds, no_device, -EPROTO,
                "the file system's state has something else than /dev/fuse as 'device'");
        dup_fds(&fixture, fds);
        fds[STATE_FD_VAULT_OUT] = fd_close(fds[STATE_FD_VAULT_OUT]);
        refused(&state, fds, any_device, -EPROTO, "the file system's state lacks descriptor 'vault/out'");
        dup_fds(&fixture, fds);
        fd_close(fds[STATE_FD_TABLE]);
        fds[STATE_FD_TABLE] = open("/dev/zero", O_RDWR | O_CLOEXEC);
        refused(&state, fds, any_device, -EPROTO, "the table of the file system is none");
        fixture.mirror->table.header->version = 2;
        dup_fds(&fixture, fds);
        refused(&state, fds, any_device, -EPROTONOSUPPORT,
                "the table of the file system is of version 2, and this program knows version 1");
        fixture.mirror->table.header->version = 1;
        fixture.mirror->table.header->max_inodes = 4096;
        dup_fds(&fixture, fds);
        refused(&state, fds, any_device, -EPROTO, "the table of the file system is not of the size that it states");
        fixture.mirror->table.header->max_inodes = 1024;
        fixture.mirror->table.header->n_files = TABLE_FILES_MAX + 1;
        dup_fds(&fixture, fds);
        refused(&state, fds, any_device, -EPROTO, "the table of the file system counts more than it holds");
        fixture.mirror->table.header->n_files = 0;
        fixture_close(&fixture);
}

static const struct CMUnitTest tests[] = {
        TEST(test_requests_are_checked),
        TEST(test_requests_are_cut),
        TEST(test_done_once),
        TEST(test_failed_again),
        TEST(test_orphans_end),
        TEST(test_forgets_are_finished),
        TEST(test_numbers_are_not_reused),
        TEST(test_vault),
        TEST(test_vault_of_a_mirror),
        TEST(test_names_that_stay),
        TEST(test_session),
        TEST(test_way_back),
        TEST(test_flush),
        TEST(test_state),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

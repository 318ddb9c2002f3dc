/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes runner/fuse. The first byte of an input chooses:
 * 0  requests, one after the other, to a mirror of a small directory: a byte for the kind, one for flags (1: the process
 *    dies and another follows first; 2: it comes again; 4: its answer is lost), one for the node, one for the length, the
 *    bytes behind the header
 * 1  the state's bytes
 * 2  a table that another process has made: pairs of two bytes for the place and one for what is there
 * Whatever comes, nothing is left open, and nothing outside of the directory is touched.
 */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/state.h"

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

enum { NODES_MAX = 16, REQUESTS_MAX = 64, INODES = 64, FILE_SIZE_MAX = 1024 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Fixture {
        char folder[64];
        Mirror *mirror;
        int table, vault_in, vault_out;
        uint64_t nodes[NODES_MAX], files[NODES_MAX];
        unsigned n_nodes, n_files;
        uint64_t unique;
} Fixture;

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw) {
        (void) stat;
        (void) type;
        (void) ftw;
        (void) remove(path);
        return 0;
}

static void open_fixture(Fixture *fixture) {
        const char *folder = getenv("TMPDIR");
        Table table = TABLE_NULL;
        Vault vault = VAULT_NULL;

        *fixture = (Fixture){ .nodes = { TABLE_ROOT }, .n_nodes = 1 };
        (void) snprintf(fixture->folder, sizeof(fixture->folder), "%s/fuzz-fuse-XXXXXX", folder ? folder : "/tmp");
        CHECK(mkdtemp(fixture->folder));
        CHECK(table_create(&table, INODES) == 0 && vault_open(&vault) == 0);
        fixture->table = fd_dup(table.fd);
        fixture->vault_in = fd_dup(vault.in);
        fixture->vault_out = fd_dup(vault.out);
        CHECK(mirror_new(&fixture->mirror, open(fixture->folder, O_PATH | O_CLOEXEC), &table, &vault, 1) == 0);
        CHECK(mirror_load(fixture->mirror) == 0);
}

static void close_fixture(Fixture *fixture) {
        mirror_free(fixture->mirror);
        fd_close(fixture->table);
        fd_close(fixture->vault_in);
        fd_close(fixture->vault_out);
        (void) nftw(fixture->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* follow() - the process dies, and another one takes over. */
static void follow(Fixture *fixture) {
        Vault vault = { .in = fd_dup(fixture->vault_in), .out = fd_dup(fixture->vault_out) };
        char reason[TABLE_REASON_SIZE];
        Table table = TABLE_NULL;

        mirror_free(fixture->mirror);
        CHECK(table_map(&table, fixture->table, reason) == 0);
        table.header->clean = 0;
        CHECK(mirror_new(&fixture->mirror, open(fixture->folder, O_PATH | O_CLOEXEC), &table, &vault, 1) == 0);
        CHECK(mirror_load(fixture->mirror) == 0);
}

/* remember() - what a kernel would name in later requests. */
static void remember(Fixture *fixture, uint32_t opcode, const Reply *reply) {
        const struct fuse_entry_out *entry = reply->data;
        const struct fuse_open_out *opened = reply->data;
        bool is_entry = opcode == FUSE_LOOKUP || opcode == FUSE_MKDIR || opcode == FUSE_CREATE || opcode == FUSE_MKNOD;

        if (is_entry && reply->size >= sizeof(*entry))
                fixture->nodes[fixture->n_nodes++ % NODES_MAX] = entry->nodeid;
        if (opcode == FUSE_CREATE && reply->size >= sizeof(*entry) + sizeof(*opened))
                opened = (const void *) (entry + 1);
        if (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR || opcode == FUSE_CREATE)
                fixture->files[fixture->n_files++ % NODES_MAX] = opened->fh;
}

/* starts_with_file() - the number of an open file is the first member: one of those that are open goes there. */
static bool starts_with_file(uint32_t opcode) {
        return opcode == FUSE_READ || opcode == FUSE_WRITE || opcode == FUSE_RELEASE || opcode == FUSE_READDIR ||
               opcode == FUSE_READDIRPLUS || opcode == FUSE_LSEEK || opcode == FUSE_FALLOCATE ||
               opcode == FUSE_RELEASEDIR || opcode == FUSE_COPY_FILE_RANGE;
}

/* limit_files() - a file cannot grow to fill the disk. The table, a file too, is made without that. */
static void limit_files(bool small) {
        struct rlimit limit;

        CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
        limit.rlim_cur = small ? FILE_SIZE_MAX : limit.rlim_max;
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void serve(Fixture *fixture, const uint8_t *head, const uint8_t *body, size_t size) {
        struct {
                struct fuse_in_header header;
                uint8_t body[256];
        } message = { 0 };
        size_t length = sizeof(message.header) + size;
        struct fuse_in_header *exact = malloc(length);
        Transferred transferred = TRANSFERRED_NULL;
        Request request;
        Reply reply = { 0 };
        int r;

        CHECK(exact);
        if (size > 0)
                memcpy(message.body, body, size);
        if (starts_with_file(head[0] % 64) && size >= 8)
                memcpy(message.body, &fixture->files[body[0] % NODES_MAX], 8);
        if (!(head[1] & 2))
                fixture->unique += 2;
        message.header.len = (uint32_t) length;
        message.header.opcode = head[0] % 64;
        message.header.unique = fixture->unique | (head[1] & 2 ? REQUEST_RESENT : 0);
        message.header.nodeid = fixture->nodes[head[2] % NODES_MAX];
        memcpy(exact, &message, length);
        r = request_parse(exact, length, &request);
        limit_files(true);
        if (r == 0)
                r = mirror_serve(fixture->mirror, &request, &reply, &transferred);
        if (r == MIRROR_TRANSFER && request.header->opcode != FUSE_FSYNC)
                r = transferred_run(&transferred, fixture->mirror->buffer, false, &reply);
        limit_files(false);
        if (r == 0)
                remember(fixture, message.header.opcode, &reply);
        if (head[1] & 4)
                mirror_unserved(fixture->mirror);
        if (!(head[1] & 8))
                journal_end(fixture->mirror);
        fixture->mirror->journal = NULL;
        transferred_end(&transferred);
        free(exact);
}

static void fuzz_requests(const uint8_t *data, size_t size) {
        Fixture fixture;

        open_fixture(&fixture);
        for (unsigned i = 0; i < REQUESTS_MAX && size >= 4; i++) {
                const uint8_t *head = data;
                size_t length;

                data += 4;
                size -= 4;
                length = head[3] < size ? head[3] : size;
                if (head[1] & 1)
                        follow(&fixture);
                serve(&fixture, head, data, length);
                data += length;
                size -= length;
        }
        mirror_keep_open(fixture.mirror);
        close_fixture(&fixture);
}

static void fuzz_state(const uint8_t *data, size_t size) {
        char reason[STATE_REASON_SIZE];
        uint8_t *packed;
        size_t n;
        State state;

        if (state_unpack(data, size, &state, reason) < 0)
                return;
        CHECK(state_pack(&state, &packed, &n) == 0);
        free(packed);
        state_deinit(&state);
}

/* place_of() - in the parts that matter: the header, the first journal, inodes and files. */
static uint8_t *place_of(const Table *table, unsigned place) {
        unsigned at = place & 0x3fff;

        switch (place >> 14) {
        case 0:
                return (uint8_t *) table->memory + at % sizeof(TableHeader);
        case 1:
                return (uint8_t *) table->journals + at % (2 * sizeof(TableJournal));
        case 2:
                return (uint8_t *) table->files + at % (8 * sizeof(TableFile));
        default:
                return (uint8_t *) table->inodes + at % (INODES * sizeof(TableInode));
        }
}

static void fuzz_table(const uint8_t *data, size_t size) {
        char reason[TABLE_REASON_SIZE];
        Table table = TABLE_NULL;
        Fixture fixture;

        open_fixture(&fixture);
        fixture.mirror->table.header->clean = 0;
        for (; size >= 3; data += 3, size -= 3)
                *place_of(&fixture.mirror->table, data[0] | (unsigned) data[1] << 8) = data[2];
        if (table_map(&table, fixture.table, reason) == 0) {
                table_unmap(&table);
                (void) mirror_load(fixture.mirror);
                mirror_forget_orphans(fixture.mirror);
                mirror_keep_open(fixture.mirror);
        }
        close_fixture(&fixture);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static bool prepared;
        int before;

        if (!prepared) {
                (void) signal(SIGXFSZ, SIG_IGN);
                (void) umask(0);
                prepared = true;
        }
        if (size == 0)
                return 0;
        before = fd_count();
        if (data[0] % 3 == 0) {
                fuzz_requests(data + 1, size - 1);
        } else if (data[0] % 3 == 1) {
                fuzz_state(data + 1, size - 1);
        } else {
                fuzz_table(data + 1, size - 1);
        }
        CHECK(fd_count() == before);
        return 0;
}

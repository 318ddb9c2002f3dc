/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Table: a memfd of a fixed size that is given to the supervisor once and never saved again, since it is always right:
 * each change is ordered so that a process that is killed between any two stores leaves what its successor can tell and
 * finish. The kernel stores at once what a killed process has stored; only the compiler must keep the order, which the
 * atomic members see to. (The other design was to save after each change: a message to the supervisor and back for every
 * file that is looked up.)
 *
 * One thread changes it, that of the session. The requests themselves are read into it, so that what was taken from the
 * kernel and not answered is known. Pages that were never used take no memory: it is sized for the largest number of
 * inodes, not for those that are there.
 */

#include "runner/fuse/table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define MAGIC     UINT64_C(0x6261746f6e667573) /* "batonfus" */
#define PAGE      4096u
#define SLOT_SIZE (((REQUEST_SIZE_MAX + PAGE - 1) / PAGE) * PAGE)

/* Where each part begins: at a page of its own. */
typedef struct Layout {
        size_t journals, slots, files, inodes, size;
} Layout;

static size_t page_up(size_t size) {
        return (size + PAGE - 1) / PAGE * PAGE;
}

static Layout layout_of(uint32_t max_inodes) {
        Layout layout = { .journals = page_up(sizeof(TableHeader)) };

        layout.slots = layout.journals + page_up(sizeof(TableJournal) * TABLE_JOURNALS);
        layout.files = layout.slots + (size_t) SLOT_SIZE * TABLE_SLOTS;
        layout.inodes = layout.files + page_up(sizeof(TableFile) * TABLE_FILES_MAX);
        layout.size = layout.inodes + page_up(sizeof(TableInode) * max_inodes);
        return layout;
}

static void place(Table *table, int fd, void *memory, uint32_t max_inodes) {
        Layout layout = layout_of(max_inodes);
        uint8_t *base = memory;

        *table = (Table){
                .fd = fd,
                .memory = memory,
                .size = layout.size,
                .header = memory,
                .journals = (TableJournal *) (void *) (base + layout.journals),
                .slots = base + layout.slots,
                .files = (TableFile *) (void *) (base + layout.files),
                .inodes = (TableInode *) (void *) (base + layout.inodes),
        };
}

int table_create(Table *ret_table, uint32_t max_inodes) {
        void *memory;
        int fd, r;

        if (max_inodes < TABLE_INODES_MIN || max_inodes > TABLE_INODES_MAX)
                return -EINVAL;
        r = memfd_shared("baton-fuse", layout_of(max_inodes).size, 0, &fd, &memory);
        if (r < 0)
                return r;
        place(ret_table, fd, memory, max_inodes);
        *ret_table->header = (TableHeader){
                .magic = MAGIC,
                .version = TABLE_VERSION,
                .max_inodes = max_inodes,
                .n_inodes = TABLE_ROOT + 1,
                .clean = 1,
        };
        return 0;
}

static int refuse(char reason[TABLE_REASON_SIZE], int error, const char *what) {
        (void) snprintf(reason, TABLE_REASON_SIZE, "the table of the file system %s", what);
        return error;
}

/* check() - that nothing in it leads outside of it. Which inodes and files there are is up to whoever uses it. */
static int check(const Table *table, char reason[TABLE_REASON_SIZE]) {
        const TableHeader *header = table->header;

        if (header->n_inodes > header->max_inodes || header->n_inodes <= TABLE_ROOT ||
            header->n_files > TABLE_FILES_MAX || header->current >= TABLE_SLOTS)
                return refuse(reason, -EPROTO, "counts more than it holds");
        for (uint32_t i = 0; i < header->n_inodes; i++)
                if (table->inodes[i].handle_size > TABLE_HANDLE_MAX)
                        return refuse(reason, -EPROTO, "has a file handle of more bytes than there can be");
        for (unsigned i = 0; i < TABLE_JOURNALS; i++)
                if (table->journals[i].n_entries > TABLE_ENTRIES_MAX)
                        return refuse(reason, -EPROTO, "has a request that names more than it can");
        return 0;
}

int table_map(Table *ret_table, int fd, char reason[TABLE_REASON_SIZE]) {
        _cleanup_fd_ int own = fd_dup(fd);
        uint32_t max_inodes;
        TableHeader header;
        Table table;
        void *memory;
        int r;

        if (own < 0)
                return refuse(reason, own, "cannot be duplicated");
        if (pread(own, &header, sizeof(header), 0) != sizeof(header) || header.magic != MAGIC)
                return refuse(reason, -EPROTO, "is none");
        if (header.version != TABLE_VERSION) {
                (void) snprintf(reason, TABLE_REASON_SIZE,
                                "the table of the file system is of version %u, and this program knows version %u",
                                header.version, TABLE_VERSION);
                return -EPROTONOSUPPORT;
        }
        max_inodes = header.max_inodes;
        if (max_inodes < TABLE_INODES_MIN || max_inodes > TABLE_INODES_MAX ||
            memfd_check(own, layout_of(max_inodes).size, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
                return refuse(reason, -EPROTO, "is not of the size that it states");
        memory = mmap(NULL, layout_of(max_inodes).size, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
        if (memory == MAP_FAILED)
                return refuse(reason, -errno, "cannot be mapped");
        place(&table, own, memory, max_inodes);
        r = check(&table, reason);
        if (r < 0) {
                (void) munmap(memory, table.size);
                return r;
        }
        (void) fd_take(&own);
        *ret_table = table;
        return 0;
}

void table_unmap(Table *table) {
        if (table->memory)
                (void) munmap(table->memory, table->size);
        fd_close(table->fd);
        *table = TABLE_NULL;
}

uint8_t *table_slot(const Table *table, unsigned i) {
        return table->slots + (size_t) i * SLOT_SIZE;
}

void table_slot_present(Table *table, unsigned i) {
        if (table->present & 1u << i)
                return;
        table->present |= 1u << i;
        (void) madvise(table_slot(table, i), SLOT_SIZE, MADV_POPULATE_WRITE);
}

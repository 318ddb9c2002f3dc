#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a mounted file system must not forget, in memory that outlives the process: which inodes and open files the kernel
 * knows by number, the request that is being served, and what it has changed so far. See table.c.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runner/fuse/protocol.h"

typedef struct Table Table;
typedef struct TableHeader TableHeader;
typedef struct TableInode TableInode;
typedef struct TableFile TableFile;
typedef struct TableEntry TableEntry;
typedef struct TableJournal TableJournal;

enum {
        TABLE_VERSION = 1,
        TABLE_ROOT = 1, /* the index of the root, which is its node number, too; 0 is nobody */
        TABLE_INODES_DEFAULT = 4 * 1024 * 1024,
        TABLE_INODES_MIN = 64,
        TABLE_INODES_MAX = 64 * 1024 * 1024,
        TABLE_FILES_MAX = 64 * 1024,
        TABLE_HANDLE_MAX = 32,
        TABLE_ENTRIES_MAX = 512, /* inodes that one answer names */
        TABLE_JOURNALS = 16,
        TABLE_SLOTS = 5, /* requests under way: one in the loop, the others with workers */
        TABLE_REASON_SIZE = 256,
};

/* An inode that the kernel counts references to. Free where lookups is 0. */
struct TableInode {
        _Atomic uint64_t lookups;
        uint64_t ino;
        uint32_t generation;  /* with the index it makes a node number that is never used again */
        uint32_t handle_size; /* 0: the file system has none, its descriptor is in the vault */
        int32_t handle_type;
        uint32_t kept; /* its descriptor is in the vault */
        uint8_t handle[TABLE_HANDLE_MAX];
};
_Static_assert(sizeof(TableInode) == 64, "the layout is of version 1");

enum {
        TABLE_FILE_FREE,
        TABLE_FILE_OPEN,
        TABLE_FILE_DIRECTORY,
};

/* An open file. */
struct TableFile {
        uint64_t node;
        uint32_t generation;
        uint32_t flags; /* of open(2), as it is opened again */
        _Atomic uint32_t kind;
        uint32_t unused;
};
_Static_assert(sizeof(TableFile) == 24, "the layout is of version 1");

struct TableEntry {
        uint64_t node;
        uint64_t before; /* its lookups, before this request changed them */
};

enum {
        TABLE_JOURNAL_FREE,
        TABLE_JOURNAL_OPEN,   /* being served */
        TABLE_JOURNAL_ORPHAN, /* it was, by a process that has died: whether it was answered, only the kernel knows */
};

/* One request that is not the same when it is done twice. */
struct TableJournal {
        _Atomic uint32_t state;
        uint32_t opcode;
        uint64_t unique;
        _Atomic uint32_t seen; /* what was there before is stated below */
        uint32_t unused;
        uint64_t source, target; /* the inode numbers its names stood for; 0: nothing */
        _Atomic uint64_t file;   /* the number it opened; 0: none */
        _Atomic uint32_t n_entries;
        _Atomic uint32_t n_forgotten; /* of BATCH_FORGET, and of FORGET: entries[(this - 1) & 1] is of the last */
        TableEntry entries[TABLE_ENTRIES_MAX];
};

struct TableHeader {
        uint64_t magic;
        uint32_t version;
        uint32_t max_inodes;
        uint32_t n_inodes; /* the highest index ever used, and one more */
        uint32_t n_files;
        uint32_t generation;    /* the last that was given */
        uint32_t current;       /* the slot the loop reads into */
        uint64_t owner;         /* one more with each start: whose memory of this table is out of date? */
        _Atomic uint32_t clean; /* nothing is under way */
};

/* The table in this process. */
struct Table {
        int fd;
        void *memory;
        size_t size;
        TableHeader *header;
        TableInode *inodes;
        TableFile *files;
        TableJournal *journals;
        uint8_t *slots;
        unsigned present; /* slots, as bits */
};
#define TABLE_NULL ((Table){ .fd = -1 })

/* table_create() - an empty one for @max_inodes. 0, -EINVAL, or as memfd_shared(). */
int table_create(Table *ret_table, uint32_t max_inodes);

/*
 * table_map() - one that another process has made; @fd stays the caller's. Nothing is changed. 0, or a negative errno with
 * a line in @reason: -EPROTONOSUPPORT where its version is not ours, -EPROTO where it is no table.
 */
int table_map(Table *ret_table, int fd, char reason[TABLE_REASON_SIZE]);

/* table_unmap() - accepts TABLE_NULL, and leaves it. */
void table_unmap(Table *table);

/* table_slot() - where request @i is read into: REQUEST_SIZE_MAX bytes. */
uint8_t *table_slot(const Table *table, unsigned i);

/*
 * table_slot_present() - its pages are there before the kernel writes to them: a process that is killed while it waits for
 * one would take the request with it, which fails then.
 */
void table_slot_present(Table *table, unsigned i);

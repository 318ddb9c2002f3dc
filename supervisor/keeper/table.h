#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper's table: one slot per instance, and the descriptors stored for it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/keeper-message.h"

typedef struct Table Table;
typedef struct TableFd TableFd;
typedef struct TableSlot TableSlot;

typedef enum TableState {
        TABLE_FREE,
        TABLE_RESERVED, /* no process yet */
        TABLE_BORN,     /* a process that is not reaped */
        TABLE_EXITED,   /* reaped; its status waits for ACK */
        TABLE_KEPT,     /* a record and descriptors; there is no process, and none will be */
        TABLE_GONE,     /* free, but for that a successor was told of it and is to be told this */
} TableState;

enum {
        TABLE_PER_NAME = 2, /* the active one, and one that is to replace it; one KEPT besides */
        TABLE_FDS_PER_SLOT = 1024,
        TABLE_FD_HEADROOM = 32, /* descriptors below the limit that are never used for storing */
};

struct TableFd {
        LIST_ENTRY(TableFd)
        link; /* the slot's; of the own one, which may have very many, those of its tag; or the free list */
        TAILQ_ENTRY(TableFd) changed; /* valid while is_changed */
        TableSlot *slot;              /* NULL: free */
        uint64_t tag;
        uint16_t kind;
        bool is_changed, told; /* as of a slot */
        int fd;                /* -1: it is gone, and the successor is to be told so */
};
LIST_HEAD(TableFdList, TableFd);
TAILQ_HEAD(TableFdQueue, TableFd);

struct TableSlot {
        LIST_ENTRY(TableSlot) by_instance, by_name;
        union {
                LIST_ENTRY(TableSlot) by_pid;      /* while BORN */
                TAILQ_ENTRY(TableSlot) unreported; /* while EXITED and not reported */
        };
        TAILQ_ENTRY(TableSlot) changed; /* valid while is_changed */
        LIST_ENTRY(TableSlot) link;     /* all used slots, or the free list */
        struct TableFdList fds;         /* not of the table's own slot */
        uint64_t instance;
        TableState state;
        uint32_t flags; /* KEEPER_FLAG_*, of RESERVE */
        uint32_t n_fds;
        pid_t pid; /* from BORN on; names the process only while BORN */
        int pidfd; /* BORN: from when it was first asked for; -1: none */
        int wait_code, wait_status;
        bool started;   /* the supervisor said so */
        bool doomed;    /* BORN, and was killed because nobody looks after it */
        bool cancelled; /* the supervisor knows of no child: the slot goes with it, unreported */
        bool reported;  /* EXIT was sent to the present supervisor */
        bool active;
        bool past; /* another one of its name became the active one after it: it only finishes what it has begun */
        bool is_changed; /* a successor is to be told what it is now */
        bool told;       /* and was told of it before ... */
        bool told_pid;   /* ... when it had a process */
        char name[KEEPER_NAME_SIZE];
        uint8_t record[KEEPER_RECORD_SIZE];
};
LIST_HEAD(TableSlotList, TableSlot);
TAILQ_HEAD(TableSlotQueue, TableSlot);

/*
 * table_new() - an empty table sized for a process that may have @max_fds descriptors open; nothing is allocated later.
 * Returns 0 or -ENOMEM.
 */
int table_new(Table **ret_table, uint64_t max_fds);

/* table_free() - closes every stored descriptor; returns NULL. Accepts NULL. */
Table *table_free(Table *table);

/*
 * table_reserve() - a slot for @instance, RESERVED, or, by its flag, KEPT. -EINVAL: instance 0, or a name that is empty or
 * lacks its NUL; -EEXIST: the instance has a slot; -EBUSY: the name has two that are not past, or one KEPT; -ENOSPC: the
 * table is full.
 */
int table_reserve(Table *table, uint64_t instance, const char name[KEEPER_NAME_SIZE], uint32_t flags,
                  const uint8_t record[KEEPER_RECORD_SIZE]);

/*
 * table_restore() - a slot as it was in another table: of @image what is of the instance, nothing of lists and descriptors.
 * Newest first, in the order of table_first(); @last begins as NULL. Errors as table_reserve().
 */
int table_restore(Table *table, const TableSlot *image, TableSlot **last);

/* table_find() - the slot of @instance, or NULL. */
TableSlot *table_find(Table *table, uint64_t instance);

/* table_find_pid() - the BORN slot whose unreaped process is @pid, or NULL. */
TableSlot *table_find_pid(Table *table, pid_t pid);

/* table_activate() - it is the active one of its name, and no other is. */
void table_activate(Table *table, TableSlot *slot);

/* table_born() - RESERVED to BORN. -ENOENT: no such slot; -EALREADY: it is not RESERVED. */
int table_born(Table *table, uint64_t instance, pid_t pid);

/* table_exited() - BORN to EXITED, not yet reported. */
void table_exited(Table *table, TableSlot *slot, int wait_code, int wait_status);

/* table_follow() - of one that is BORN: its process is @pid from now on. */
void table_follow(Table *table, TableSlot *slot, pid_t pid);

/*
 * table_pidfd() - of one that is BORN, of its process, which surely means the child: nobody else reaps. It stays the table's,
 * and is kept until the process is reaped: opened anew for each takeover it would be most of what a takeover costs us. -1: too
 * near the limit.
 */
int table_pidfd(const Table *table, TableSlot *slot);

/* table_started() - of one that is BORN. */
void table_started(Table *table, TableSlot *slot);

/* table_doom() - of one that is BORN: whether it was started does not matter any more. */
void table_doom(Table *table, TableSlot *slot);

/* table_keep() - EXITED to KEPT. -EBUSY: its name has one. */
int table_keep(Table *table, TableSlot *slot);

/* table_free_slot() - the slot is free and its descriptors are closed. */
void table_free_slot(Table *table, TableSlot *slot);

/* table_next_exit() - the EXITED slot that has waited longest to be reported, or NULL. */
TableSlot *table_next_exit(Table *table);
void table_reported(Table *table, TableSlot *slot);
/* table_report_again() - those EXITED are to be reported once more, in the order of old. */
void table_report_again(Table *table);

/*
 * table_put() - stores @fd_consume (taken on every path) for @instance; 0 is the table's own slot. -ENOENT: no such slot;
 * -EINVAL: no such kind; -EEXIST: kind and tag are in use (the old one stays, unless @replace); -EDQUOT: the slot has
 * TABLE_FDS_PER_SLOT; -ENOSPC: the table is full; -EMFILE: too near the limit.
 */
int table_put(Table *table, uint64_t instance, uint32_t kind, uint64_t tag, bool replace, int fd_consume);

/* table_drop() - closes one stored descriptor. -ENOENT: no such slot or descriptor. */
int table_drop(Table *table, uint64_t instance, uint32_t kind, uint64_t tag);

/* table_get() - a stored descriptor, which stays the table's, or -1. */
int table_get(const TableSlot *slot, uint32_t kind, uint64_t tag);

/* table_get_kind() - the one that was stored last of this kind, or -1; with its tag. */
int table_get_kind(const TableSlot *slot, uint32_t kind, uint64_t *ret_tag);

/*
 * table_walk_slots(), table_walk_fds() - what is at @cursor or comes next, or NULL; the cursor is then behind it. Begin with
 * 0. Whatever is added and freed between two calls, what stays is met once. The table's own slot is not among the slots.
 */
TableSlot *table_walk_slots(Table *table, size_t *cursor);
TableFd *table_walk_fds(Table *table, size_t *cursor);

/*
 * How supervisors ended that no other one has heard of: the last TABLE_DEATHS. table_death() - the @i-th of them, oldest
 * first, or NULL. table_forget_deaths() - one has heard of all.
 */
enum { TABLE_DEATHS = 16, TABLE_HOW_SIZE = 64 };
typedef struct TableDeath {
        uint64_t generation, time_us; /* wall clock */
        pid_t pid;
        bool went_back; /* the program before its own follows it */
        char how[TABLE_HOW_SIZE];
} TableDeath;
TableDeath *table_add_death(Table *table);
const TableDeath *table_death(const Table *table, size_t i);
void table_forget_deaths(Table *table);

/*
 * table_watch() - everything there is counts as changed, and from here on whatever changes does, until table_unwatch().
 * table_touch() - of a slot whose fields were written from outside. table_next_changed(), table_next_changed_fd() - what has
 * waited longest, or next to @previous, or NULL; it stays that until table_told(), table_told_fd(). Slots come before the
 * descriptors in them.
 */
void table_watch(Table *table);
void table_unwatch(Table *table);
void table_touch(Table *table, TableSlot *slot);
TableSlot *table_next_changed(Table *table, TableSlot *previous);
TableFd *table_next_changed_fd(Table *table, TableFd *previous);
void table_told(Table *table, TableSlot *slot);
void table_told_fd(Table *table, TableFd *entry);

/* table_first() - all used slots: `for (s = table_first(t); s; s = table_next(s))`. */
TableSlot *table_first(Table *table);
static inline TableSlot *table_next(TableSlot *slot) {
        return LIST_NEXT(slot, link);
}

/* What is in use, and how much there is room for. */
typedef struct TableCount {
        size_t slots, slots_max;
        size_t fds, fds_max;
        size_t unstarted; /* BORN, and the supervisor has not said STARTED */
        size_t exited;    /* and not acknowledged */
} TableCount;

TableCount table_count(const Table *table);

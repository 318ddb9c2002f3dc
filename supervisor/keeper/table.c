/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Table: what must outlive a supervisor. A slot goes FREE, RESERVED, BORN, EXITED, FREE; it leaves EXITED only when the
 * supervisor says that the exit took effect, so that an exit is delivered at least once. KEPT is a record and descriptors
 * that have no process, or have none any more. One slot, instance 0, is the keeper's own and in no list. A stored
 * descriptor belongs to the table from table_put() until it is dropped or its slot is freed. Names of descriptors (kind,
 * tag) are unique in a slot: a second put is refused unless it says that it replaces, since the loser could be a listener
 * in use.
 *
 * All storage is one mapping made at the start; pages that were never used cost nothing, which is why the free lists
 * begin empty and grow from slots that were used, fresh ones being taken in order (*_fresh). Full is an answer to the
 * supervisor, never a failure here. Slots are found by instance, pid and name through three small hash tables, and what
 * the own one has, which may be very many, by its tag.
 *
 * While a successor gets ready, what changes is queued for it, each thing once, whatever becomes of it before it is told.
 * What it was told and is no more keeps its place until it was told that, too.
 *
 * The table does not watch its descriptors and makes no decision: no signals, no messages, no waiting.
 */

#include "supervisor/keeper/table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>

#include "common/fd.h"

enum {
        BUCKETS = 4096,
        SLOTS_MIN = 64,
        SLOTS_MAX = 65536,
        FDS_MAX = 262144,
};

struct Table {
        size_t size;  /* of the mapping */
        int fd_limit; /* stored descriptors are below it */
        TableCount count;
        size_t slots_fresh, fds_fresh;
        TableSlot *slots;
        TableFd *fds;
        struct TableSlotList free_slots, used_slots;
        struct TableFdList free_fds;
        struct TableSlotQueue unreported;
        bool watched;
        struct TableSlotQueue changed;
        struct TableFdQueue changed_fds;
        TableSlot own;
        TableDeath deaths[TABLE_DEATHS];
        size_t n_deaths;
        struct TableSlotList by_instance[BUCKETS], by_pid[BUCKETS], by_name[BUCKETS];
        struct TableFdList by_tag[BUCKETS];
};

/* Instances and pids are handed out in order: their low bits are as good as any hash, and lie together in memory. */
static struct TableSlotList *instance_bucket(Table *table, uint64_t instance) {
        return &table->by_instance[instance % BUCKETS];
}

static struct TableSlotList *pid_bucket(Table *table, pid_t pid) {
        return &table->by_pid[(uint32_t) pid % BUCKETS];
}

static struct TableFdList *tag_bucket(Table *table, uint64_t tag) {
        return &table->by_tag[tag % BUCKETS];
}

static struct TableSlotList *name_bucket(Table *table, const char *name) {
        uint32_t hash = 2166136261u;

        for (; *name; name++)
                hash = (hash ^ (uint8_t) *name) * 16777619u;
        return &table->by_name[hash % BUCKETS];
}

int table_new(Table **ret_table, uint64_t max_fds) {
        size_t n_fds = MIN(max_fds, (uint64_t) FDS_MAX);
        size_t n_slots = MAX(MIN(n_fds, (size_t) SLOTS_MAX), (size_t) SLOTS_MIN);
        size_t header = (sizeof(Table) + 63) / 64 * 64;
        size_t size = header + n_slots * sizeof(TableSlot) + n_fds * sizeof(TableFd);
        Table *table;

        table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (table == MAP_FAILED)
                return -ENOMEM;
        (void) madvise(table, size, MADV_NOHUGEPAGE); /* a few small pages in use, not 2 MiB each */

        table->size = size;
        table->fd_limit = (int) MIN(max_fds, (uint64_t) INT32_MAX) - TABLE_FD_HEADROOM;
        table->count = (TableCount){ .slots_max = n_slots, .fds_max = n_fds };
        table->slots = (void *) ((char *) table + header);
        table->fds = (void *) (table->slots + n_slots);
        TAILQ_INIT(&table->unreported); /* the other heads are empty when zero */
        TAILQ_INIT(&table->changed);
        TAILQ_INIT(&table->changed_fds);
        *ret_table = table;
        return 0;
}

TableSlot *table_first(Table *table) {
        return LIST_FIRST(&table->used_slots);
}

TableDeath *table_add_death(Table *table) {
        if (table->n_deaths == TABLE_DEATHS) {
                memmove(table->deaths, table->deaths + 1, sizeof(table->deaths) - sizeof(*table->deaths));
                table->n_deaths--;
        }
        table->deaths[table->n_deaths] = (TableDeath){ 0 };
        return &table->deaths[table->n_deaths++];
}

const TableDeath *table_death(const Table *table, size_t i) {
        return i < table->n_deaths ? &table->deaths[i] : NULL;
}

void table_forget_deaths(Table *table) {
        table->n_deaths = 0;
}

TableCount table_count(const Table *table) {
        return table->count;
}

TableSlot *table_find(Table *table, uint64_t instance) {
        TableSlot *slot;

        if (instance == 0)
                return NULL;
        LIST_FOREACH (slot, instance_bucket(table, instance), by_instance)
                if (slot->instance == instance)
                        return slot;
        return NULL;
}

TableSlot *table_find_pid(Table *table, pid_t pid) {
        TableSlot *slot;

        LIST_FOREACH (slot, pid_bucket(table, pid), by_pid)
                if (slot->pid == pid)
                        return slot;
        return NULL;
}

/* count_name() - slots of that name, those KEPT or those that are not; without those that are past. */
static size_t count_name(Table *table, const char *name, bool kept) {
        TableSlot *slot;
        size_t n = 0;

        LIST_FOREACH (slot, name_bucket(table, name), by_name)
                n += (slot->state == TABLE_KEPT) == kept && !slot->past && strcmp(slot->name, name) == 0;
        return n;
}

/* ---- what a successor is to be told ---- */

void table_touch(Table *table, TableSlot *slot) {
        if (!table->watched || slot->is_changed)
                return;
        slot->is_changed = true;
        TAILQ_INSERT_TAIL(&table->changed, slot, changed);
}

static void touch_fd(Table *table, TableFd *entry) {
        if (!table->watched || entry->is_changed)
                return;
        entry->is_changed = true;
        TAILQ_INSERT_TAIL(&table->changed_fds, entry, changed);
}

TableSlot *table_next_changed(Table *table, TableSlot *previous) {
        return previous ? TAILQ_NEXT(previous, changed) : TAILQ_FIRST(&table->changed);
}

TableFd *table_next_changed_fd(Table *table, TableFd *previous) {
        return previous ? TAILQ_NEXT(previous, changed) : TAILQ_FIRST(&table->changed_fds);
}

void table_told(Table *table, TableSlot *slot) {
        TAILQ_REMOVE(&table->changed, slot, changed);
        slot->is_changed = false;
        slot->told = true;
        if (slot->state != TABLE_GONE)
                return;
        slot->state = TABLE_FREE;
        LIST_INSERT_HEAD(&table->free_slots, slot, link);
}

void table_told_fd(Table *table, TableFd *entry) {
        TAILQ_REMOVE(&table->changed_fds, entry, changed);
        entry->is_changed = false;
        entry->told = true;
        if (entry->fd >= 0)
                return;
        entry->slot = NULL;
        LIST_INSERT_HEAD(&table->free_fds, entry, link);
}

void table_watch(Table *table) {
        TableSlot *slot = NULL;
        size_t cursor = 0;
        TableFd *entry;

        table_unwatch(table);
        table->watched = true;
        while ((slot = table_walk_slots(table, &cursor))) {
                slot->told = slot->told_pid = false;
                table_touch(table, slot);
        }
        cursor = 0;
        while ((entry = table_walk_fds(table, &cursor))) {
                entry->told = false;
                touch_fd(table, entry);
        }
}

void table_unwatch(Table *table) {
        TableSlot *slot;
        TableFd *entry;

        table->watched = false;
        while ((entry = table_next_changed_fd(table, NULL)))
                table_told_fd(table, entry);
        while ((slot = table_next_changed(table, NULL)))
                table_told(table, slot);
}

/* ---- slots ---- */

static TableSlot *take_slot(Table *table) {
        TableSlot *slot = LIST_FIRST(&table->free_slots);

        if (slot)
                LIST_REMOVE(slot, link);
        else if (table->slots_fresh < table->count.slots_max)
                slot = &table->slots[table->slots_fresh++];
        return slot;
}

int table_reserve(Table *table, uint64_t instance, const char name[KEEPER_NAME_SIZE], uint32_t flags,
                  const uint8_t record[KEEPER_RECORD_SIZE]) {
        bool kept = flags & KEEPER_FLAG_KEPT;
        TableSlot *slot;

        if (instance == 0 || name[0] == '\0' || !memchr(name, '\0', KEEPER_NAME_SIZE))
                return -EINVAL;
        if (table_find(table, instance))
                return -EEXIST;
        if (count_name(table, name, kept) >= (kept ? 1 : TABLE_PER_NAME))
                return -EBUSY;
        slot = take_slot(table);
        if (!slot)
                return -ENOSPC;

        *slot = (TableSlot){
                .instance = instance,
                .state = kept ? TABLE_KEPT : TABLE_RESERVED,
                .flags = flags,
                .pidfd = -1,
        };
        strcpy(slot->name, name);
        memcpy(slot->record, record, sizeof(slot->record));
        LIST_INSERT_HEAD(&table->used_slots, slot, link);
        LIST_INSERT_HEAD(instance_bucket(table, instance), slot, by_instance);
        LIST_INSERT_HEAD(name_bucket(table, name), slot, by_name);
        table->count.slots++;
        table_touch(table, slot);
        return 0;
}

/* is_awaited() - whether the supervisor owes us a word about it. */
static bool is_awaited(const TableSlot *slot) {
        return slot->state == TABLE_BORN && !slot->started && !slot->doomed;
}

int table_restore(Table *table, const TableSlot *image, TableSlot **last) {
        uint32_t kept = image->state == TABLE_KEPT ? KEEPER_FLAG_KEPT : 0;
        int r = table_reserve(table, image->instance, image->name, kept, image->record);
        TableSlot *slot = r < 0 ? NULL : table_find(table, image->instance);

        if (!slot)
                return r;
        LIST_REMOVE(slot, link);
        if (*last)
                LIST_INSERT_AFTER(*last, slot, link);
        else
                LIST_INSERT_HEAD(&table->used_slots, slot, link);
        *last = slot;
        slot->state = image->state;
        slot->flags = image->flags;
        slot->pid = image->pid;
        slot->wait_code = image->wait_code;
        slot->wait_status = image->wait_status;
        slot->started = image->started;
        slot->doomed = image->doomed;
        slot->cancelled = image->cancelled;
        slot->reported = image->reported;
        slot->active = image->active;
        table->count.unstarted += is_awaited(slot);
        table->count.exited += slot->state == TABLE_EXITED;
        if (slot->state == TABLE_BORN)
                LIST_INSERT_HEAD(pid_bucket(table, slot->pid), slot, by_pid);
        else if (slot->state == TABLE_EXITED && !slot->reported)
                TAILQ_INSERT_HEAD(&table->unreported, slot, unreported);
        return 0;
}

int table_born(Table *table, uint64_t instance, pid_t pid) {
        TableSlot *slot = table_find(table, instance);

        if (!slot)
                return -ENOENT;
        if (slot->state != TABLE_RESERVED)
                return -EALREADY;
        slot->state = TABLE_BORN;
        slot->pid = pid;
        LIST_INSERT_HEAD(pid_bucket(table, pid), slot, by_pid);
        table->count.unstarted++;
        table_touch(table, slot);
        return 0;
}

int table_pidfd(const Table *table, TableSlot *slot) {
        assert(slot->state == TABLE_BORN);
        if (slot->pidfd < 0)
                slot->pidfd = pidfd_open(slot->pid, 0);
        if (slot->pidfd >= table->fd_limit)
                slot->pidfd = fd_close(slot->pidfd);
        return slot->pidfd;
}

void table_started(Table *table, TableSlot *slot) {
        table->count.unstarted -= is_awaited(slot);
        slot->started = true;
        table_touch(table, slot);
}

void table_doom(Table *table, TableSlot *slot) {
        table->count.unstarted -= is_awaited(slot);
        slot->doomed = true;
        table_touch(table, slot);
}

void table_activate(Table *table, TableSlot *slot) {
        TableSlot *other;

        LIST_FOREACH (other, name_bucket(table, slot->name), by_name) {
                if (other == slot || strcmp(other->name, slot->name) != 0)
                        continue;
                if (other->active)
                        table_touch(table, other);
                other->active = false;
                other->past = other->state == TABLE_BORN || other->state == TABLE_EXITED;
        }
        slot->active = true;
        slot->past = false;
        table_touch(table, slot);
}

/* leave_state() - it is in no list and no count of its present state any more. */
static void leave_state(Table *table, TableSlot *slot) {
        if (slot->state == TABLE_BORN) {
                table->count.unstarted -= is_awaited(slot);
                LIST_REMOVE(slot, by_pid); /* the number may be somebody else's from now on */
                slot->pidfd = fd_close(slot->pidfd);
        } else if (slot->state == TABLE_EXITED) {
                table->count.exited--;
                if (!slot->reported)
                        TAILQ_REMOVE(&table->unreported, slot, unreported);
        }
}

void table_follow(Table *table, TableSlot *slot, pid_t pid) {
        assert(slot->state == TABLE_BORN);
        LIST_REMOVE(slot, by_pid);
        slot->pidfd = fd_close(slot->pidfd);
        slot->pid = pid;
        LIST_INSERT_HEAD(pid_bucket(table, pid), slot, by_pid);
        table_touch(table, slot);
}

void table_exited(Table *table, TableSlot *slot, int wait_code, int wait_status) {
        assert(slot->state == TABLE_BORN);
        leave_state(table, slot);
        slot->state = TABLE_EXITED;
        table->count.exited++;
        slot->wait_code = wait_code;
        slot->wait_status = wait_status;
        slot->reported = false;
        TAILQ_INSERT_TAIL(&table->unreported, slot, unreported);
        table_touch(table, slot);
}

int table_keep(Table *table, TableSlot *slot) {
        assert(slot->state == TABLE_EXITED);
        if (count_name(table, slot->name, true) > 0)
                return -EBUSY;
        leave_state(table, slot);
        slot->state = TABLE_KEPT;
        slot->past = false;
        slot->pid = 0;
        table_touch(table, slot);
        return 0;
}

static void release_fd(Table *table, TableSlot *slot, TableFd *entry) {
        LIST_REMOVE(entry, link);
        entry->fd = fd_close(entry->fd);
        slot->n_fds--;
        table->count.fds--;
        if (slot == &table->own && entry->told)
                touch_fd(table, entry);
        if (slot == &table->own && entry->is_changed)
                return; /* it is free when that was told */
        if (entry->is_changed)
                TAILQ_REMOVE(&table->changed_fds, entry, changed);
        entry->is_changed = false;
        entry->slot = NULL;
        LIST_INSERT_HEAD(&table->free_fds, entry, link);
}

static void release_fds(Table *table, TableSlot *slot, struct TableFdList *list) {
        while (LIST_FIRST(list))
                release_fd(table, slot, LIST_FIRST(list));
}

void table_free_slot(Table *table, TableSlot *slot) {
        release_fds(table, slot, &slot->fds);
        leave_state(table, slot);
        LIST_REMOVE(slot, by_instance);
        LIST_REMOVE(slot, by_name);
        LIST_REMOVE(slot, link);
        table->count.slots--;
        slot->state = TABLE_GONE;
        if (slot->told)
                table_touch(table, slot);
        else if (slot->is_changed)
                TAILQ_REMOVE(&table->changed, slot, changed);
        if (slot->told && slot->is_changed)
                return; /* it is free when that was told */
        slot->is_changed = false;
        slot->state = TABLE_FREE;
        LIST_INSERT_HEAD(&table->free_slots, slot, link);
}

TableSlot *table_next_exit(Table *table) {
        return TAILQ_FIRST(&table->unreported);
}

void table_reported(Table *table, TableSlot *slot) {
        assert(slot->state == TABLE_EXITED && !slot->reported);
        slot->reported = true;
        TAILQ_REMOVE(&table->unreported, slot, unreported);
}

/* ---- exits ---- */

/* The list of slots has the newest first: each that was reported goes before those that it is older than. */
void table_report_again(Table *table) {
        TableSlot *slot;

        if (table->count.exited == 0)
                return;
        LIST_FOREACH (slot, &table->used_slots, link) {
                if (slot->state != TABLE_EXITED || !slot->reported)
                        continue;
                slot->reported = false;
                TAILQ_INSERT_HEAD(&table->unreported, slot, unreported);
        }
}

/* list_of() - where those of @slot are that have @tag. */
static struct TableFdList *list_of(Table *table, TableSlot *slot, uint64_t tag) {
        return slot == &table->own ? tag_bucket(table, tag) : &slot->fds;
}

static TableFd *find_fd(const struct TableFdList *list, uint32_t kind, uint64_t tag) {
        TableFd *entry;

        LIST_FOREACH (entry, list, link)
                if (entry->kind == kind && entry->tag == tag)
                        return entry;
        return NULL;
}

static TableFd *take_fd(Table *table) {
        TableFd *entry = LIST_FIRST(&table->free_fds);

        if (entry)
                LIST_REMOVE(entry, link);
        else if (table->fds_fresh < table->count.fds_max)
                entry = &table->fds[table->fds_fresh++];
        return entry;
}

/* any_slot() - the table's own, too. */
static TableSlot *any_slot(Table *table, uint64_t instance) {
        return instance == 0 ? &table->own : table_find(table, instance);
}

int table_put(Table *table, uint64_t instance, uint32_t kind, uint64_t tag, bool replace, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        TableSlot *slot = any_slot(table, instance);
        TableFd *entry;

        if (!slot)
                return -ENOENT;
        if (kind == KEEPER_FD_NONE || kind >= _KEEPER_FD_KIND_N)
                return -EINVAL;
        entry = find_fd(list_of(table, slot, tag), kind, tag);
        if (entry && !replace)
                return -EEXIST;
        if (fd >= table->fd_limit) /* the kernel gives the lowest free number: nearly all are taken */
                return -EMFILE;
        if (entry) {
                fd_close(entry->fd);
                entry->fd = fd_take(&fd);
                touch_fd(table, entry);
                return 0;
        }
        if (slot->n_fds >= TABLE_FDS_PER_SLOT && slot != &table->own)
                return -EDQUOT;
        entry = take_fd(table);
        if (!entry)
                return -ENOSPC;

        *entry = (TableFd){ .slot = slot, .kind = (uint16_t) kind, .tag = tag, .fd = fd_take(&fd) };
        LIST_INSERT_HEAD(list_of(table, slot, tag), entry, link);
        slot->n_fds++;
        table->count.fds++;
        touch_fd(table, entry);
        return 0;
}

int table_drop(Table *table, uint64_t instance, uint32_t kind, uint64_t tag) {
        TableSlot *slot = any_slot(table, instance);
        TableFd *entry = slot ? find_fd(list_of(table, slot, tag), kind, tag) : NULL;

        if (!entry)
                return -ENOENT;
        release_fd(table, slot, entry);
        return 0;
}

int table_get_kind(const TableSlot *slot, uint32_t kind, uint64_t *ret_tag) {
        const TableFd *entry;

        LIST_FOREACH (entry, &slot->fds, link)
                if (entry->kind == kind && entry->fd >= 0) {
                        *ret_tag = entry->tag;
                        return entry->fd;
                }
        return -1;
}

int table_get(const TableSlot *slot, uint32_t kind, uint64_t tag) {
        TableFd *entry = find_fd(&slot->fds, kind, tag);

        return entry ? entry->fd : -1;
}

TableSlot *table_walk_slots(Table *table, size_t *cursor) {
        while (*cursor < table->slots_fresh) {
                TableSlot *slot = &table->slots[(*cursor)++];

                if (slot->state != TABLE_FREE && slot->state != TABLE_GONE)
                        return slot;
        }
        return NULL;
}

TableFd *table_walk_fds(Table *table, size_t *cursor) {
        while (*cursor < table->fds_fresh) {
                TableFd *entry = &table->fds[(*cursor)++];

                if (entry->slot && entry->fd >= 0)
                        return entry;
        }
        return NULL;
}

Table *table_free(Table *table) {
        if (!table)
                return NULL;
        table_unwatch(table);
        while (table_first(table))
                table_free_slot(table, table_first(table));
        for (size_t i = 0; i < BUCKETS; i++)
                release_fds(table, &table->own, &table->by_tag[i]);
        (void) munmap(table, table->size);
        return NULL;
}

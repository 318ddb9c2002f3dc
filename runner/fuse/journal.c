/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Journal: what is needed when a request comes a second time, because the process that served it died before its answer
 * was given. One request is served at a time, so one record is open; a process that finds an open one keeps it as an
 * orphan until the kernel has sent the request again, or must have.
 *
 * Two things make a request unlike itself when it is done twice. It counted references or opened files for an answer that
 * the kernel never got: these are taken back, and counted anew. And it changed names: what they stood for before is
 * stated first, so that a second mkdir() that finds a directory where there was nothing knows whose it is. While a request
 * is open no other user of the mount can change the same names, since the kernel holds their directory; who changes the
 * directory below in that very moment may be taken for us.
 *
 * Counts are restored exactly: each entry states the count before it, and the entry comes before the count. So the last
 * entry may lack its count, and no other.
 */

#include <errno.h>

#include "runner/fuse/mirror.h"

static TableJournal *journals_begin(const Mirror *mirror) {
        return mirror->table.journals;
}

static TableJournal *journals_end(const Mirror *mirror) {
        return mirror->table.journals + TABLE_JOURNALS;
}

/* complete_count() - the last entry's count, which the dead may have had no time for. */
static void complete_count(Mirror *mirror, const TableJournal *journal) {
        const TableEntry *entry;
        uint32_t n = journal->n_entries;
        uint32_t index;

        if (n == 0)
                return;
        entry = &journal->entries[n - 1];
        index = (uint32_t) entry->node;
        if (index <= TABLE_ROOT || index >= mirror->table.header->n_inodes)
                return;
        if (mirror->table.inodes[index].generation == entry->node >> 32 &&
            mirror->table.inodes[index].lookups == entry->before)
                mirror->table.inodes[index].lookups = entry->before + 1;
}

/* complete_forget() - goes on where the dead one was. @last: the request as it was read, or NULL where it is not there. */
static void complete_forget(Mirror *mirror, TableJournal *journal, const Request *last) {
        uint32_t n = journal->n_forgotten;
        const TableEntry *entry = &journal->entries[(n + 1) & 1]; /* of the last that was counted */

        if (last && last->unique == journal->unique) {
                uint32_t index = (uint32_t) entry->node;

                /* Stated, and not done: then it is done again. */
                if (n > 0 && index > TABLE_ROOT && index < mirror->table.header->n_inodes &&
                    mirror->table.inodes[index].lookups == entry->before)
                        n--;
                mirror->journal = journal;
                op_forget(mirror, last, n);
                mirror->journal = NULL;
        }
        journal->state = TABLE_JOURNAL_FREE;
}

static bool is_forget(uint32_t opcode) {
        return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

void journal_load(Mirror *mirror) {
        for (TableJournal *j = journals_begin(mirror); j < journals_end(mirror); j++)
                if (j->state == TABLE_JOURNAL_OPEN && !is_forget(j->opcode)) {
                        complete_count(mirror, j);
                        j->state = TABLE_JOURNAL_ORPHAN;
                }
}

void journal_finish(Mirror *mirror, const Request *last) {
        bool begun = false;
        Prior prior;

        for (TableJournal *j = journals_begin(mirror); j < journals_end(mirror); j++) {
                begun |= last && j->state != TABLE_JOURNAL_FREE && j->unique == last->unique;
                if (j->state == TABLE_JOURNAL_OPEN)
                        complete_forget(mirror, j, last);
        }
        if (!last || begun || !is_forget(last->header->opcode))
                return;
        /* Taken from the kernel, which does not send it again, and not begun. */
        journal_begin(mirror, last, &prior);
        op_forget(mirror, last, 0);
        journal_end(mirror);
}

TableJournal *journal_of_orphan(Mirror *mirror, uint64_t unique) {
        for (TableJournal *j = journals_begin(mirror); j < journals_end(mirror); j++)
                if (j->state == TABLE_JOURNAL_ORPHAN && j->unique == unique)
                        return j;
        return NULL;
}

/* free_journal() - one that nobody needs; an orphan where each process died young: the one that has waited longest. */
static TableJournal *free_journal(Mirror *mirror) {
        TableJournal *oldest = NULL;

        for (TableJournal *j = journals_begin(mirror); j < journals_end(mirror); j++) {
                if (j->state == TABLE_JOURNAL_FREE)
                        return j;
                if (!oldest || j->unique < oldest->unique)
                        oldest = j;
        }
        return oldest;
}

void journal_begin(Mirror *mirror, const Request *request, Prior *ret_prior) {
        TableJournal *journal = request->resent ? journal_of_orphan(mirror, request->unique) : NULL;

        *ret_prior = (Prior){ 0 };
        if (journal) {
                journal_undo(mirror, journal);
                *ret_prior = (Prior){ journal->seen, journal->source, journal->target };
        } else {
                journal = free_journal(mirror);
                journal->state = TABLE_JOURNAL_FREE;
                journal->seen = 0;
                journal->n_entries = 0;
                journal->n_forgotten = 0;
                journal->file = 0;
        }
        journal->opcode = request->header->opcode;
        journal->unique = request->unique;
        journal->state = TABLE_JOURNAL_OPEN;
        mirror->journal = journal;
}

void journal_end(Mirror *mirror) {
        if (mirror->journal)
                mirror->journal->state = TABLE_JOURNAL_FREE;
        mirror->journal = NULL;
}

void journal_prior(Mirror *mirror, uint64_t source, uint64_t target) {
        TableJournal *journal = mirror->journal;

        if (!journal || journal->seen)
                return; /* of the first time */
        journal->source = source;
        journal->target = target;
        journal->seen = 1;
}

int journal_entry(Mirror *mirror, uint32_t index) {
        TableInode *inode = &mirror->table.inodes[index];
        TableJournal *journal = mirror->journal;

        if (index == TABLE_ROOT)
                return 0;
        if (journal) {
                uint32_t n = journal->n_entries;

                if (n == TABLE_ENTRIES_MAX)
                        return -EMLINK;
                journal->entries[n] = (TableEntry){ node_number(mirror, index), inode->lookups };
                journal->n_entries = n + 1;
        }
        inode->lookups++;
        return 0;
}

void journal_file(Mirror *mirror, uint64_t number) {
        if (mirror->journal)
                mirror->journal->file = number;
}

void journal_undo(Mirror *mirror, TableJournal *journal) {
        uint64_t file = journal->file;
        uint32_t n;

        journal->file = 0;
        if (file)
                file_remove(mirror, file);
        while ((n = journal->n_entries) > 0) {
                TableEntry entry = journal->entries[n - 1];

                journal->n_entries = n - 1;
                node_forget(mirror, entry.node, 1);
        }
}

void journal_forget(Mirror *mirror, uint32_t i, const struct fuse_forget_one *one) {
        TableJournal *journal = mirror->journal;
        uint32_t index;

        if (journal) {
                bool known = node_of(mirror, one->nodeid, &index) == 0;

                /* Two of them in turn: the one before is not to be written over while it is the one that counts. */
                journal->entries[i & 1] =
                        (TableEntry){ known ? one->nodeid : 0, known ? mirror->table.inodes[index].lookups : 0 };
                journal->n_forgotten = i + 1;
        }
        node_forget(mirror, one->nodeid, one->nlookup);
}

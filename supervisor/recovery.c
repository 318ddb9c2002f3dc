/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recovery: collected slot by slot, decided when the table is complete. What the keeper has killed, and what had exited, is
 * reported by EXITs afterwards like any end. The rest is adopted where all that belongs to it has arrived, and killed where
 * not: its EXIT comes then, too.
 *
 * A slot that cannot even be remembered here, for lack of memory, is killed at once by its number in the keeper.
 */

#include "supervisor/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "supervisor/supervisor.h"

/* ---------------------------------------------------------------------------------------------------------- collecting */

static Recovered *recovered_free(Recovered *slot) {
        RecoveredFd *entry;

        if (!slot)
                return NULL;
        while ((entry = SLIST_FIRST(&slot->fds))) {
                SLIST_REMOVE_HEAD(&slot->fds, link);
                fd_close(entry->fd);
                free(entry);
        }
        fd_close(slot->pidfd);
        free(slot);
        return NULL;
}

static Recovered *find(const Recovery *recovery, uint64_t instance) {
        Recovered *slot;

        HASH_FIND(hh, recovery->slots, &instance, sizeof(instance), slot);
        return slot;
}

void recovery_slot(Recovery *recovery, const KeeperSlot *slot, int pidfd_consume) {
        _cleanup_fd_ int pidfd = pidfd_consume;
        Recovered *r = calloc(1, sizeof(*r));

        if (!r) {
                recovery->incomplete = true;
                return;
        }
        *r = (Recovered){
                .instance = slot->instance,
                .state = slot->state,
                .flags = slot->flags,
                .pid = slot->pid,
                .pidfd = fd_take(&pidfd),
        };
        (void) strcpy(r->name, slot->name);
        r->has_record = record_unpack(slot->record, &r->record) == 0;
        HASH_ADD(hh, recovery->slots, instance, sizeof(r->instance), r);
        if (!r->hh.tbl) {
                recovery->incomplete = true;
                recovered_free(r);
        }
}

void recovery_stored(Recovery *recovery, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        Recovered *slot = find(recovery, instance);
        RecoveredFd *entry = slot ? malloc(sizeof(*entry)) : NULL;

        if (!entry) {
                recovery->incomplete = true;
                return;
        }
        *entry = (RecoveredFd){ .kind = kind, .tag = tag, .fd = fd_take(&fd) };
        SLIST_INSERT_HEAD(&slot->fds, entry, link);
}

int recovered_take(Recovered *slot, KeeperFdKind kind, uint64_t tag) {
        RecoveredFd *entry;
        int fd = -1;

        SLIST_FOREACH(entry, &slot->fds, link)
        if (entry->kind == kind && entry->tag == tag)
                break;
        if (!entry)
                return -1;
        fd = entry->fd;
        SLIST_REMOVE(&slot->fds, entry, RecoveredFd, link);
        free(entry);
        return fd;
}

void recovery_deinit(Recovery *recovery) {
        Recovered *slot, *next;

        HASH_ITER (hh, recovery->slots, slot, next) {
                HASH_DELETE(hh, recovery->slots, slot);
                recovered_free(slot);
        }
        recovery->incomplete = false;
}

/* ------------------------------------------------------------------------------------------------------------ deciding */

static void kill_slot(Supervisor *supervisor, const Recovered *slot, const char *why) {
        log_warning("runner %s: pid %d is killed: %s", slot->name, slot->pid, why);
        (void) keeper_link_signal(supervisor->link, slot->instance, SIGKILL, NULL, NULL);
}

static void recover(Supervisor *supervisor, Recovered *slot) {
        if (slot->state == KEEPER_SLOT_KEPT)
                (void) keeper_link_cancel(supervisor->link, slot->instance);
        else if (slot->state == KEEPER_SLOT_BORN && !(slot->flags & KEEPER_FLAG_DOOMED))
                kill_slot(supervisor, slot, "it was the supervisor's before, and is started over");
}

void recovery_run(Recovery *recovery, Supervisor *supervisor) {
        Recovered *slot, *next;

        HASH_ITER (hh, recovery->slots, slot, next)
                recover(supervisor, slot);
        recovery_deinit(recovery);
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What all logs of a supervisor share: the scratch pipe, through which everything that runners write goes on its way into
 * a ring, the page that says for which ring that is, and the rings that a supervisor before this one left. All three
 * kinds are stored by the keeper (KEEPER_FD_SCRATCH, _PAGE, _RING), so that a SIGKILL at any moment loses no line.
 */

#include "common/keeper-message.h"
#include "common/loop.h"
#include "common/macro.h"
#include "supervisor/runner-log.h"

/*
 * Where the descriptors are kept. @put stores a duplicate of @fd, which stays ours; @drop closes it there. Both answer
 * through log_store_stored(), @put before the first line goes into the ring. NULL: kept nowhere (a supervisor whose
 * runners do not outlive it).
 */
typedef struct LogKeep {
        int (*put)(void *userdata, KeeperFdKind kind, uint64_t tag, int fd);
        int (*drop)(void *userdata, KeeperFdKind kind, uint64_t tag);
        void *userdata;
} LogKeep;

/* log_store_new() - for a fresh supervisor. @keep is copied; NULL: nowhere. 0, -EMFILE, -ENFILE, -ENOMEM. */
int log_store_new(LogStore **ret_store, Loop *loop, const LogKeep *keep);

/*
 * After a crash, between log_store_new() and the first log: each descriptor that the keeper held, in any order, then once
 * log_store_recover(), which finishes what was begun. @fd_consume is taken on every path; one that is none of ours is
 * closed, -EINVAL. Rings whose runner does not come back (runner_log_new() with its name) are dropped by
 * log_store_forget_rest().
 */
int log_store_adopt(LogStore *store, KeeperFdKind kind, uint64_t tag, int fd_consume);
void log_store_recover(LogStore *store);
void log_store_forget_rest(LogStore *store);

/* log_store_stored() - the keeper's answer to a put of this kind and tag. */
void log_store_stored(LogStore *store, KeeperFdKind kind, uint64_t tag, int result);

/* log_store_free() - when no log is left. Accepts NULL, returns NULL. */
LogStore *log_store_free(LogStore *store);
DEFINE_CLEANUP(LogStore *, log_store_free);

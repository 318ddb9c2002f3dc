#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What all logs of a supervisor share: the scratch pipe, through which everything that runners write goes on its way into
 * a ring, and the rings that a supervisor before this one left. The keeper stores them, as instance 0's: KEEPER_FD_SCRATCH
 * with LOG_SCRATCH_... as tag, KEEPER_FD_RING with the ring's id; so that a SIGKILL at any moment loses no line.
 */

#include "common/loop.h"
#include "common/macro.h"
#include "supervisor/keeper-link.h"
#include "supervisor/runner-log.h"

/* log_store_new() - of a supervisor that begins. @link NULL: nothing is stored, for tests. 0 or -ENOMEM. */
int log_store_new(LogStore **ret_store, Loop *loop, KeeperLink *link);

/*
 * log_store_trust_follower() - before the first log: whoever follows one counts until he says that he does not, however long
 * he does not ask, and from the start of a runner on. Of a supervisor that ends with its one client.
 */
void log_store_trust_follower(LogStore *store);

/*
 * LogDropped - @n lines of the log of runner @name were dropped since the last time. Told at the end of a turn, of each
 * log at most once in LOG_DROPPED_US.
 */
#define LOG_DROPPED_US USEC_PER_SEC
typedef void LogDropped(void *userdata, const char *name, uint64_t n);
void log_store_on_dropped(LogStore *store, LogDropped *function, void *userdata);

/* log_store_free() - when no log is left. Accepts NULL, returns NULL. */
LogStore *log_store_free(LogStore *store);
DEFINE_CLEANUP(LogStore *, log_store_free);

/*
 * After a crash, before the first log: log_store_adopt() for each descriptor of these kinds that the keeper gives, in any
 * order, then once log_store_recover(), which finishes what had been begun; a negative errno: there cannot be logs.
 * @fd_consume is taken on every path; -EINVAL: it is none of ours. Then the logs are made (runner_log_new() with the name
 * finds its ring) and the pipes of the instances that live on are adopted (log_input_adopt()). At the end
 * log_store_settle(): lines of instances that are no more end, rings of runners that are no more go.
 */
int log_store_adopt(LogStore *store, KeeperFdKind kind, uint64_t tag, int fd_consume);
int log_store_recover(LogStore *store);
void log_store_settle(LogStore *store);

/*
 * A successor, while its predecessor writes: log_store_hold() first of all, log_store_adopt() as above and at any time.
 * log_store_follow() - what has come since is brought together; a negative errno: it cannot be used. Logs that exist find
 * rings by log_store_next_found(), and take them with runner_log_follow_on(). log_store_forget() - the ring is no more.
 * log_store_release() - all of it is ours.
 */
void log_store_hold(LogStore *store);
int log_store_follow(LogStore *store);
const char *log_store_next_found(const LogStore *store, size_t *cursor);
void log_store_forget(LogStore *store, uint64_t id);
void log_store_release(LogStore *store);

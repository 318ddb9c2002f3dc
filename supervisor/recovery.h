#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recovery: what the supervisor before has left, as the keeper tells it when a supervisor begins, and what becomes of it.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "supervisor/keeper-link.h"
#include "supervisor/record.h"

typedef struct Recovered Recovered;
typedef struct RecoveredFd RecoveredFd;
typedef struct Recovery Recovery;
typedef struct Supervisor Supervisor;

enum { RECOVERY_REASON_SIZE = 160 };

struct RecoveredFd {
        SLIST_ENTRY(RecoveredFd) link;
        KeeperFdKind kind;
        uint64_t tag;
        int fd;
};

/* One slot of the keeper's table. Its descriptors belong to it until they are taken. */
struct Recovered {
        UT_hash_handle hh;              /* by instance */
        TAILQ_ENTRY(Recovered) changed; /* valid while is_changed */
        bool is_changed;                /* since recovery_follow() */
        bool is_gone;                   /* and what was made of it goes, too */
        bool is_adopted;                /* there is an instance of it */
        uint64_t instance;
        KeeperSlotState state;
        uint32_t flags; /* KEEPER_FLAG_* */
        pid_t pid;
        int pidfd;       /* -1: none */
        bool has_record; /* else the record is all zero */
        Record record;
        SLIST_HEAD(, RecoveredFd) fds;
        char name[KEEPER_NAME_SIZE];
};

struct Recovery {
        Recovered *slots; /* uthash, in the order in which they were told */
        TAILQ_HEAD(RecoveredQueue, Recovered) changed;
        bool incomplete; /* memory or descriptors were short: what is missing cannot be adopted */
};

void recovery_init(Recovery *recovery);

/*
 * recovery_slot(), recovery_stored(), recovery_gone() - as KeeperLinkHandlers: a slot that is told again has changed. What
 * is of instance 0 is not for here.
 */
void recovery_slot(Recovery *recovery, const KeeperSlot *slot, int pidfd_consume);
void recovery_gone(Recovery *recovery, uint64_t instance);
void recovery_stored(Recovery *recovery, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume);

/* recovery_again() - what was made of a slot was undone: recovery_follow() looks at it once more, if it is not gone. */
void recovery_again(Recovery *recovery, uint64_t instance);

/* recovery_deinit() - closes what nobody took. recovery_forget() - of at most @max slots; false: none was left then. */
bool recovery_forget(Recovery *recovery, unsigned max);
void recovery_deinit(Recovery *recovery);

/* recovered_take() - a descriptor of it, the caller's now, or -1. */
int recovered_take(Recovered *slot, KeeperFdKind kind, uint64_t tag);

/* recovered_take_kind() - the one of @kind that was told last, with its tag; -1: none. The rest of them are closed. */
int recovered_take_kind(Recovered *slot, KeeperFdKind kind, uint64_t *ret_tag);

/* recovery_place() - the path of @file in the directory in `boot/' that its record names, to be freed; NULL: it has none. */
char *recovery_place(const Supervisor *supervisor, const Recovered *slot, const char *file);

/* recovery_uses() - whether the directory @name in `boot/' is that of a runner that may be adopted. */
bool recovery_uses(const Recovery *recovery, const char *name);

/*
 * recovery_run() - every slot is taken care of: its instance adopted, or killed and, as far as it shall be up, started over.
 * Nothing of it runs unsupervised afterwards, nothing runs twice. To be called when the configuration has made its
 * runners, and before any of them was handled. Leaves @recovery empty.
 */
void recovery_run(Recovery *recovery, Supervisor *supervisor);

/*
 * recovery_follow() - the same for a successor, while its predecessor still changes the table, as often as there was a
 * change: what is settled is adopted, what has ended or is gone is discarded, and nothing is said to anybody. What is on
 * its way from one state to another waits for the last time, @is_final, when nobody changes anything any more. 0, or a
 * negative errno: not all of it can be taken up, for @reason.
 */
int recovery_follow(Recovery *recovery, Supervisor *supervisor, bool is_final, char reason[RECOVERY_REASON_SIZE]);

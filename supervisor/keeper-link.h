#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The supervisor's side of the keeper's socket: requests go out in order, as fast as the keeper answers them, and never
 * block; answers, exits and the end come back as callbacks from the loop.
 *
 * How a runner is started: keeper_link_reserve() with its descriptors, wait for keeper_link_idle() (all of it is in the
 * kernel, in front of the child's BORN), spawn(), keeper_link_spawned(). Answers are not awaited: where the reservation
 * turns out to be refused, the keeper kills the child, and no EXIT comes for it.
 *
 * How a supervisor begins: from its first turn of the loop on it is given the keeper's table by slot() and stored(), what
 * the supervisor before has left and what the keeper holds for all of them; loaded() is the end of that, and comes always.
 * When all of it is taken care of: keeper_link_serving(). PING is answered in here.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/keeper-message.h"
#include "common/loop.h"
#include "common/macro.h"
#include "supervisor/spawn.h"

typedef struct KeeperLink KeeperLink;
typedef struct KeeperExit KeeperExit;
typedef struct KeeperSlot KeeperSlot;
typedef struct KeeperDeath KeeperDeath;
typedef struct KeeperLinkHandlers KeeperLinkHandlers;

enum { KEEPER_LINK_REQUESTS_MAX = 4096 }; /* that can be queued besides those unanswered */

struct KeeperExit {
        uint64_t instance;
        pid_t pid;
        int code;   /* CLD_EXITED, CLD_KILLED, CLD_DUMPED */
        int status; /* exit status or signal */
};

/* What is asked for before a start. What it points to is the caller's. */
typedef struct KeeperReservation {
        uint64_t instance;
        const char *name;
        uint32_t flags;     /* KEEPER_FLAG_* */
        const void *record; /* KEEPER_RECORD_SIZE bytes; NULL: none is given */
        const int *logs;    /* the read ends of both pipes, stored as KEEPER_FD_LOG 1 and 2; NULL: none */
        KeeperFdKind kind;  /* one more descriptor to be stored; KEEPER_FD_NONE: none */
        uint64_t tag;
        int fd;
} KeeperReservation;

/* A slot of the keeper's table as the supervisor before has left it. */
struct KeeperSlot {
        uint64_t instance;
        const char *name;
        KeeperSlotState state;
        uint32_t flags;        /* KEEPER_FLAG_*, with STARTED, ACTIVE and DOOMED */
        KeeperExit exit;       /* EXITED: it is reported to exited() as well, after loaded() */
        pid_t pid;             /* BORN */
        const uint8_t *record; /* KEEPER_RECORD_SIZE bytes; all zero: none was given */
};

/* How a supervisor ended that nobody else has heard of. */
struct KeeperDeath {
        uint32_t generation;
        pid_t pid;
        uint64_t time_us; /* wall clock */
        const char *how;  /* for people: "was killed by signal 11 SIGSEGV" */
        bool went_back;   /* its program had come by a takeover, and the one before it has followed */
};

/*
 * Called from the loop, never from within a keeper_link_*() call. Each may use the link; none may free it.
 * @exited: an instance's process is gone, its status reaped; may come twice for one instance until keeper_link_ack().
 * @closed: the keeper is gone, or does not keep the protocol; nothing is sent or called any more.
 * These may be NULL:
 * @idle: keeper_link_idle() has become true again.
 * @slot: one of the table's, valid while the callback runs. @pidfd_consume names surely the process that the slot means;
 *        -1: it is not BORN, or the keeper had no descriptor left.
 * @stored: a duplicate of a stored descriptor, -1 where our own limit has lost it. Its slot was told before; @instance 0: the
 *          keeper's own.
 * @died: of the supervisors before, oldest first; none where one follows another that lives.
 * @gone: what was told by slot() (@kind NONE), or stored() of instance 0, is no more. Only to a successor.
 * @loaded: that was the table; where not @is_final, as it is by now: what changes follows, and loaded() after it.
 * @reload: SIGHUP came to the keeper.
 * @go: of a successor: its predecessor is no more.
 * @replaced: what became of keeper_link_replace_keeper(): 0 and the release of the keeper there is now, or a negative errno
 *            and why nothing has changed.
 */
struct KeeperLinkHandlers {
        void (*exited)(KeeperLink *link, const KeeperExit *exit, void *userdata);
        void (*idle)(KeeperLink *link, void *userdata);
        void (*closed)(KeeperLink *link, void *userdata);
        void (*slot)(KeeperLink *link, const KeeperSlot *slot, int pidfd_consume, void *userdata);
        void (*stored)(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume,
                       void *userdata);
        void (*gone)(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, void *userdata);
        void (*loaded)(KeeperLink *link, bool is_final, void *userdata);
        void (*reload)(KeeperLink *link, void *userdata);
        void (*go)(KeeperLink *link, void *userdata);
        void (*replaced)(KeeperLink *link, int result, const char *text, void *userdata);
        void (*died)(KeeperLink *link, const KeeperDeath *death, void *userdata);
};

/*
 * keeper_link_settled() - everything is sent, and answered. keeper_link_settle() - waits for that, up to @deadline_us, from
 * outside of every callback: handlers and answers are called as from the loop. 0; -EAGAIN: not in time; -EPIPE.
 */
bool keeper_link_settled(const KeeperLink *link);
int keeper_link_settle(KeeperLink *link, uint64_t deadline_us);

/* The answer to a request: 0 or a negative errno. */
typedef void (*KeeperLinkDone)(KeeperLink *link, int result, void *userdata);

/* keeper_link_new() - on the socket @fd_consume (also on failure). @handlers must stay. 0 or -ENOMEM. */
int keeper_link_new(KeeperLink **ret_link, Loop *loop, int fd_consume, const KeeperLinkHandlers *handlers,
                    void *userdata);

/* keeper_link_free() - closes the socket and what was queued; no callback comes any more. Returns NULL; accepts it. */
KeeperLink *keeper_link_free(KeeperLink *link);

/*
 * Requests. Each is answered by @done (NULL: nobody asks) unless the link is closed or freed first. They return 0; -EPIPE:
 * the link is closed; -ENOBUFS: too many are queued; -ENOMEM; -EMFILE. Answers besides 0:
 * reserve - -EEXIST: the instance is known; -EBUSY: its name is used twice; -ENOSPC: table full; -EINVAL: bad name, one
 *           that does not fit here already; or why a descriptor was not stored, as of put: then nothing is reserved.
 * put     - stores a duplicate of @fd, which stays the caller's. -ENOENT, -EEXIST, -EINVAL, -EDQUOT: the instance has
 *           too many, -ENOSPC or -EMFILE: full. replace is the same, but takes the place of what has this kind and tag.
 * drop    - closes it there. -ENOENT.
 * signal  - to the whole group. -ESRCH: its process is gone; -ENOENT: no such instance; -EINVAL: no such signal.
 */
int keeper_link_reserve(KeeperLink *link, const KeeperReservation *reservation, KeeperLinkDone done, void *userdata);
int keeper_link_put(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd, KeeperLinkDone done,
                    void *userdata);
int keeper_link_replace(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd,
                        KeeperLinkDone done, void *userdata);
int keeper_link_drop(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, KeeperLinkDone done,
                     void *userdata);
int keeper_link_signal(KeeperLink *link, uint64_t instance, int signal, KeeperLinkDone done, void *userdata);

/* keeper_link_forget() - answers to requests with this @userdata are no longer called back: before its owner is freed. */
void keeper_link_forget(KeeperLink *link, const void *userdata);

/*
 * Statements: not answered, and never refused for lack of room but for -ENOMEM and -EPIPE.
 * spawned  - after spawn(): STARTED if the child said BORN, else CANCEL.
 * started, cancel - these two by themselves; cancel also takes back a reservation for which spawn() was never called. STARTED
 *            leaves with what is said next, or at the end of the turn: the keeper wakes up once for those of a turn.
 * ack      - the exit took effect: slot and stored descriptors go.
 * keep     - the same, but slot, record and descriptors stay, without a process, until keeper_link_cancel().
 * record   - KEEPER_RECORD_SIZE bytes that the next supervisor is given with the slot, in place of those before.
 * active   - of its name's instances this is the one to serve.
 * notify   - to the service manager, where there is one, with @text (NULL: none) as the status that people see.
 * serving  - everything of the table is taken care of, and what must be answered is answered from now on.
 * shutdown - the keeper kills what is left, us too, and exits with @status.
 */
int keeper_link_spawned(KeeperLink *link, uint64_t instance, const SpawnResult *result);
int keeper_link_started(KeeperLink *link, uint64_t instance);
int keeper_link_cancel(KeeperLink *link, uint64_t instance);
int keeper_link_ack(KeeperLink *link, uint64_t instance);
int keeper_link_keep(KeeperLink *link, uint64_t instance);
int keeper_link_record(KeeperLink *link, uint64_t instance, const void *record);
int keeper_link_active(KeeperLink *link, uint64_t instance);
int keeper_link_notify(KeeperLink *link, KeeperNotify what, const char *text);
int keeper_link_serving(KeeperLink *link);
int keeper_link_shutdown(KeeperLink *link, int status);

/*
 * A takeover, of the predecessor. program, takeover - requests; @fd stays the caller's. -EBUSY: one is under way; -ESHUTDOWN;
 * -EOPNOTSUPP: of a private tree. frozen, abort - statements. After frozen only keeper_link_hear() is to be used until it
 * says THAW: what the keeper says next, a PING answered. 0; -EAGAIN: nothing yet; -EPIPE: the keeper is gone.
 */
int keeper_link_program(KeeperLink *link, int fd, KeeperLinkDone done, void *userdata);
/*
 * keeper_link_replace_keeper() - a request: @fd, which stays the caller's, is tried as the keeper's program and, but for
 * @check, executed. -EBUSY, -ESHUTDOWN, -EOPNOTSUPP as above, and why it could not be tried; after 0 replaced() follows.
 */
int keeper_link_replace_keeper(KeeperLink *link, int fd, bool check, KeeperLinkDone done, void *userdata);

int keeper_link_takeover(KeeperLink *link, int fd, KeeperLinkDone done, void *userdata);
int keeper_link_frozen(KeeperLink *link);
int keeper_link_abort(KeeperLink *link);
int keeper_link_fd(const KeeperLink *link);
int keeper_link_hear(KeeperLink *link, KeeperMessage *ret_message);

/*
 * A successor before GO: hold - nothing but ready, refuse and PONG is said, everything else waits for release. read - what
 * has come, without the loop; up to a release() in one of the callbacks.
 */
void keeper_link_hold(KeeperLink *link);
void keeper_link_release(KeeperLink *link);
void keeper_link_read(KeeperLink *link);

/* And of the successor: statements. @why is for people. */
int keeper_link_ready(KeeperLink *link);
int keeper_link_refuse(KeeperLink *link, const char *why);

/* keeper_link_idle() - whether everything is in the kernel, so that a clone may follow. */
bool keeper_link_idle(const KeeperLink *link);

DEFINE_CLEANUP(KeeperLink *, keeper_link_free);

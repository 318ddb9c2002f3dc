#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What keeper, supervisor and a child that is about to become a runner say to each other over a SOCK_SEQPACKET pair:
 * one structure of fixed size in native byte order for all messages, at most one descriptor with it, but for RESERVE and
 * packs.
 * Nobody sends a message of length 0: it would read as the end. Both sides are built from one tree; @version is checked all
 * the same, since a takeover may put two versions at the two ends.
 *
 * A supervisor's first reading. Each new supervisor, the first one included, is sent the keeper's table before anything
 * else: SLOT for every slot, STORED with every descriptor (those of instance 0 belong to no runner: control listener,
 * configuration), END. What it asks for meanwhile is done, and may or may not show in the table it is sent. Exits follow
 * as EXIT, those too that a SLOT has already shown: an exit is delivered at least once, and takes effect once, by instance.
 * It says SERVING when it has taken everything over. A successor in a takeover is sent the table while its predecessor
 * serves, and what changes in it from then on: SLOT once more, STORED of what was put, GONE of a slot or of a descriptor of
 * instance 0 that was told before; an END after each group of these, with FLAG_FINAL when its predecessor is FROZEN. No exit
 * is reported to it before GO.
 *
 * Packs. A table of thousands is told by fewer messages: SLOT, STORED and GONE come with FLAG_PACKS from a keeper that can
 * put up to KEEPER_PACK_MAX of them into one, one structure after the other, and does so from when it hears PACK on. Their
 * descriptors are those of the message, in order, one for each that has FLAG_FD.
 *
 * Answers. Requests are answered in order, and a DONE that says 0 may stand for those before it that had no answer yet: each
 * of them succeeded, too. So many starts cost one message back. For the same reason the keeper, having read nothing but
 * words that nobody waits for (RESERVE, BORN, STARTED), looks again after a moment only, unless a child exits: what is in
 * its socket by then is not lost with anybody, and no exit is acted on before it was read.
 *
 * What the keeper has done before, at the end of the supervisor before: RESERVED slots are gone; what was BORN and neither
 * STARTED, nor KEPT, was killed and will EXIT; so was a native runner without a stored lane; what was TRANSIENT was killed
 * and is forgotten.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define KEEPER_VERSION 3u
#define KEEPER_VERSION_OLDEST \
        3u /* that a keeper of this version speaks as well: of a supervisor that was there before it */
#define KEEPER_NAME_SIZE   64  /* a runner's name with its NUL */
#define KEEPER_RECORD_SIZE 216 /* opaque to the keeper */
#define KEEPER_WINDOW      64  /* messages that want a DONE a supervisor may have unanswered; one more ends it */
#define KEEPER_FDS_MAX     3   /* with one message to the keeper */
#define KEEPER_PACK_MAX    32  /* messages of the keeper's in one */
#define KEEPER_STARTED_MAX (1 + KEEPER_RECORD_SIZE / 8) /* instances that one message can tell of */

/* Descriptors that each program finds at these numbers, put there by the one that started it. */
enum {
        KEEPER_SOCKET_FD = 3,     /* in the supervisor, and in a child until it execs: its end of the pair */
        KEEPER_PRIVATE_FD = 4,    /* in a private supervisor: the lane of the one client */
        KEEPER_PIDFD_FD = 5,      /* in the supervisor: the keeper, for the check after PR_SET_PDEATHSIG */
        KEEPER_HANDOVER_FD = 6,   /* in a successor: its end of the pair to its predecessor (proto/transfer.h) */
        KEEPER_RESERVED_FDS = 16, /* 3-15 are kept for what a child needs: everything above is closed in it */
};

typedef enum KeeperType {
        KEEPER_NONE,

        /* from the supervisor; those that want DONE are answered always, the others never */
        KEEPER_RESERVE, /* instance, name, flags, record: a slot before the clone; wants DONE. With FLAG_LOGS two
                             descriptors, FD_LOG 1 and 2, and one more where fd_kind, fd_tag say what it is: all or none */
        KEEPER_PUT, /* instance, fd_kind, fd_tag, flags and a descriptor, stored until DROP or the slot's end; wants DONE */
        KEEPER_DROP,    /* instance, fd_kind, fd_tag: closed; wants DONE */
        KEEPER_STARTED, /* instance, and in record, as u64, up to a 0, more: the clone succeeded */
        KEEPER_CANCEL,  /* instance: no child is known; the slot, its descriptors and what was born all the same go */
        KEEPER_SIGNAL,  /* instance, result = signal number: to the leader's whole group; wants DONE */
        KEEPER_RECORD,  /* instance, record: replaces the one before */
        KEEPER_ACTIVE, /* instance: this one of its name's is the active one; the others do not count as one of two any more */
        KEEPER_ACK,     /* instance, flags: its exit took effect; slot and descriptors go, or with FLAG_KEPT stay */
        KEEPER_PROGRAM, /* takeover: a descriptor of what the next TAKEOVER executes, instead of our own; wants DONE */
        KEEPER_TAKEOVER, /* start a successor, with the descriptor at KEEPER_HANDOVER_FD; wants DONE */
        KEEPER_FROZEN,   /* takeover: predecessor stopped all I/O. LEAVE or THAW follows */
        KEEPER_ABORT, /* takeover: predecessor wants to go on. If it was FROZEN, LEAVE or THAW follows all the same */
        KEEPER_REPLACE, /* a descriptor of the program that is to go on as the keeper; FLAG_CHECK: is only to be tried; wants DONE,
                             0: it is being tried. REPLACED follows */
        KEEPER_NOTIFY,   /* result = KeeperNotify; record = text for people, may be empty: to the service manager */
        KEEPER_PONG,     /* the answer to PING */
        KEEPER_SHUTDOWN, /* stop the tree, result = exit status of the keeper */

        /* from the supervisor of a new generation */
        KEEPER_READY,   /* takeover: it has everything, and waits for GO */
        KEEPER_REFUSE,  /* takeover: record = why not, for people */
        KEEPER_SERVING, /* the table was read and everything in it is taken care of */

        /* from a child, with its credentials */
        KEEPER_BORN, /* instance */

        /* from the keeper */
        KEEPER_DONE, /* serial of the request, result: 0 or a negative errno; those before it: 0 */
        KEEPER_EXIT, /* instance, pid, wait_code (CLD_*), wait_status; repeated to each new supervisor until ACK */
        KEEPER_SLOT, /* instance, name, result = KeeperSlotState, flags, record; BORN: pid, and its pidfd as descriptor;
                          EXITED: pid, wait_code, wait_status. Told once more it comes without pidfd */
        KEEPER_STORED, /* instance, fd_kind, fd_tag and a duplicate of the descriptor */
        KEEPER_END, /* of the table, or of a change; instance = how many SLOTs, fd_tag = how many STOREDs were sent in all */
        KEEPER_RELOAD,   /* SIGHUP came: load the configuration again */
        KEEPER_PING,     /* answer with PONG: is the loop alive? */
        KEEPER_GO,       /* to the successor: everything is its own now */
        KEEPER_LEAVE,    /* to the predecessor: nothing is, any more */
        KEEPER_REPLACED, /* result: 0, or a negative errno: nothing has changed; record = its release, or why not */
        KEEPER_THAW,     /* to the predecessor: record = why there is no successor; exits are reported once more */
        KEEPER_DIED, /* with the table, before END, oldest first, until one has said SERVING: how a supervisor ended.
                          instance = its generation, pid, fd_tag = when (wall clock, us), flags; record = for people */
        KEEPER_GONE, /* to a successor: instance, fd_kind, fd_tag: what it was told is no more; NONE: the slot */

        /* from the supervisor of a new generation again */
        KEEPER_PACK, /* it takes packs */

        _KEEPER_TYPE_N,
} KeeperType;

/* Flags of RESERVE, which SLOT repeats; KEPT also of ACK. */
enum {
        KEEPER_FLAG_NATIVE = 1u << 0,     /* speaks the runner protocol: worth nothing without a live lane */
        KEEPER_FLAG_KILL_GROUP = 1u << 1, /* when the leader exits, what is left of its group is killed */
        KEEPER_FLAG_TRANSIENT = 1u << 2,  /* a helper, not a runner: killed and forgotten when its supervisor ends */
        KEEPER_FLAG_KEPT = 1u << 3, /* a record and descriptors without a process: of a runner that waits, failed, or
                                             shall stay down; until CANCEL. At most one of a name */

        /* only of RESERVE */
        KEEPER_FLAG_LOGS = 1u << 4,

        /* only in SLOT */
        KEEPER_FLAG_STARTED = 1u << 8, /* the supervisor before had said so */
        KEEPER_FLAG_ACTIVE = 1u << 9,
        KEEPER_FLAG_DOOMED = 1u << 10, /* BORN, and killed by the keeper: its EXIT comes */

        /* only in DIED */
        KEEPER_FLAG_WENT_BACK = 1u << 11, /* its program had come by a takeover; the one before follows it */

        /* only of REPLACE */
        KEEPER_FLAG_CHECK = 1u << 18,

        /* only of PUT */
        KEEPER_FLAG_REPLACE = 1u << 16, /* what has the same kind and tag is closed, instead of a refusal */

        /* only in SLOT, STORED and GONE */
        KEEPER_FLAG_FD = 1u << 19,    /* it has a descriptor */
        KEEPER_FLAG_PACKS = 1u << 20, /* the keeper would put several into one message: say PACK */

        /* only of END */
        KEEPER_FLAG_FINAL = 1u << 17, /* nobody changes the table any more, but whoever reads this */
};

/* What a slot is, in SLOT. */
typedef enum KeeperSlotState {
        KEEPER_SLOT_RESERVED, /* by the very supervisor that reads it */
        KEEPER_SLOT_BORN,     /* a process that is not reaped, or not yet known to be */
        KEEPER_SLOT_EXITED,   /* its exit waits for ACK */
        KEEPER_SLOT_KEPT,
        _KEEPER_SLOT_STATE_N,
} KeeperSlotState;

/* What a stored descriptor is; with the tag it names one of an instance's. */
typedef enum KeeperFdKind {
        KEEPER_FD_NONE,
        KEEPER_FD_LANE,     /* our end of the runner's lane */
        KEEPER_FD_LISTENER, /* bootstrap listener */
        KEEPER_FD_LOG,      /* read end of a log pipe; tag 1: stdout, 2: stderr */
        KEEPER_FD_RING,     /* memory of a log; also of instance 0 */
        KEEPER_FD_SCRATCH,  /* pipes and pages beside it; also of instance 0 */
        KEEPER_FD_ATTACHED, /* runner's end of an attached client's lane, while the runner has not got it */
        KEEPER_FD_SOCKET, /* passed to each instance of a runner; of instance 0; tag 0: the board, which tells whose */
        KEEPER_FD_CHECKPOINT, /* what a runner has left for its successor */

        /* only of instance 0 */
        KEEPER_FD_CONTROL, /* the listener of the control socket; the keeper's own, which nobody may PUT or DROP */
        KEEPER_FD_CONFIG,  /* the configuration as loaded, a sealed memfd; PUT with FLAG_REPLACE */
        KEEPER_FD_HISTORY, /* memory with the history, by its tag: KEEPER_HISTORY_... */

        /* of an instance again */
        KEEPER_FD_MAIN, /* pidfd of another process that goes on as the instance's when the one that was started ends;
                             tag: its number. DROP: it has ended. A SLOT that goes on so has its pid */
        _KEEPER_FD_KIND_N,
} KeeperFdKind;

enum {
        KEEPER_HISTORY_TAKEOVERS,
        KEEPER_HISTORY_RUNNERS, /* what has become of them */
};

/* What NOTIFY tells the service manager; with the text as its status, where there is one. */
typedef enum KeeperNotify {
        KEEPER_NOTIFY_STATUS,
        KEEPER_NOTIFY_READY,     /* also the end of a reload */
        KEEPER_NOTIFY_RELOADING, /* the keeper adds the moment */
        KEEPER_NOTIFY_STOPPING,
        _KEEPER_NOTIFY_N,
} KeeperNotify;

typedef struct KeeperMessage {
        uint16_t version, type;
        uint32_t serial;
        uint64_t instance; /* generation << 32 | n; never reused */
        int32_t result;
        uint32_t flags;
        int32_t pid, wait_code, wait_status;
        uint32_t fd_kind;
        uint64_t fd_tag;
        char name[KEEPER_NAME_SIZE];
        uint8_t record[KEEPER_RECORD_SIZE];
} KeeperMessage;

static_assert(sizeof(KeeperMessage) == 48 + KEEPER_NAME_SIZE + KEEPER_RECORD_SIZE, "no padding, by design");
static_assert(offsetof(KeeperMessage, fd_tag) == 40, "fixed offsets");

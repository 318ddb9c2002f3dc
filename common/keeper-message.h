#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What keeper, supervisor and a child that is about to become a runner say to each other over a SOCK_SEQPACKET pair:
 * one structure of fixed size in native byte order for all messages, at most one descriptor with it. Nobody sends a
 * message of length 0: it would read as the end. Both sides are built from one tree; @version is checked all the same,
 * since a takeover may put two versions at the two ends.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define KEEPER_VERSION     1u
#define KEEPER_NAME_SIZE   64  /* a runner's name with its NUL */
#define KEEPER_RECORD_SIZE 256 /* opaque to the keeper */
#define KEEPER_WINDOW      64  /* messages that want a DONE a supervisor may have unanswered; one more ends it */

/* Descriptors that each program finds at these numbers, put there by the one that started it. */
enum {
        KEEPER_SOCKET_FD = 3,     /* in the supervisor, and in a child until it execs: its end of the pair */
        KEEPER_PRIVATE_FD = 4,    /* in a private supervisor: the lane of the one client */
        KEEPER_PIDFD_FD = 5,      /* in the supervisor: the keeper, for the check after PR_SET_PDEATHSIG */
        KEEPER_RESERVED_FDS = 16, /* 3-15 are kept for what a child needs: everything above is closed in it */
};

typedef enum KeeperType {
        KEEPER_NONE,

        /* from the supervisor */
        KEEPER_RESERVE, /* instance, name, flags: a slot before the clone; wants DONE */
        KEEPER_PUT,  /* instance, fd_kind, fd_tag and a descriptor, stored until DROP or the slot's end; wants DONE */
        KEEPER_DROP, /* instance, fd_kind, fd_tag: closed; wants DONE */
        KEEPER_STARTED,  /* instance: the clone succeeded */
        KEEPER_CANCEL,   /* instance: no child is known; the slot, its descriptors and what was born all the same go */
        KEEPER_SIGNAL,   /* instance, result = signal number: to the leader's whole group; wants DONE */
        KEEPER_RECORD,   /* instance, record */
        KEEPER_ACTIVE,   /* instance, name: this one of the name's two is the active one */
        KEEPER_ACK,      /* instance: its exit took effect; the slot and its descriptors go */
        KEEPER_FROZEN,   /* takeover: predecessor stopped all I/O */
        KEEPER_ABORT,    /* takeover: predecessor wants to go on */
        KEEPER_NOTIFY,   /* text for the service manager in record */
        KEEPER_SHUTDOWN, /* stop the tree, result = exit status of the keeper */

        /* from the supervisor of a new generation */
        KEEPER_READY,
        KEEPER_REFUSE,
        KEEPER_SERVING,

        /* from a child, with its credentials */
        KEEPER_BORN, /* instance */

        /* from the keeper */
        KEEPER_DONE, /* serial of the request, result: 0 or a negative errno */
        KEEPER_EXIT, /* instance, pid, wait_code (CLD_*), wait_status; repeated to each new supervisor until ACK */
        KEEPER_GO,
        KEEPER_LEAVE,
        KEEPER_THAW,

        _KEEPER_TYPE_N,
} KeeperType;

/* Flags of RESERVE. */
enum {
        KEEPER_FLAG_NATIVE = 1u << 0,     /* speaks the runner protocol: worth nothing without a live lane */
        KEEPER_FLAG_KILL_GROUP = 1u << 1, /* when the leader exits, what is left of its group is killed */
};

/* What a stored descriptor is; with the tag it names one of an instance's. */
typedef enum KeeperFdKind {
        KEEPER_FD_NONE,
        KEEPER_FD_LANE,     /* our end of the runner's lane */
        KEEPER_FD_LISTENER, /* bootstrap listener */
        KEEPER_FD_LOG,      /* read end of a log pipe; tag 1: stdout, 2: stderr */
        _KEEPER_FD_KIND_N,
} KeeperFdKind;

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

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pre-copy: which connections have changed since a successor was given them. While one gets ready, whatever happens to a
 * connection puts it into a queue, once; a round takes some from its head and gives them as they are now; what is in it when
 * we freeze has to be given then. Otherwise touching costs a look at a flag.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/manifest.h"

typedef struct Precopied Precopied;
typedef struct Precopy Precopy;
typedef struct Supervisor Supervisor;

typedef enum PrecopiedKind {
        PRECOPIED_CONTROL,  /* a client's connection */
        PRECOPIED_INSTANCE, /* a native runner's */
} PrecopiedKind;

/* Part of a Control and of an Instance. */
struct Precopied {
        TAILQ_ENTRY(Precopied) link; /* valid while is_changed */
        PrecopiedKind kind;
        bool is_changed;
        bool was_given;  /* the successor has it, in some state */
        Manifest *given; /* the descriptors that it has of it; NULL: none */
};
#define PRECOPIED_NULL(_kind) ((Precopied){ .kind = (_kind) })
TAILQ_HEAD(PrecopiedQueue, Precopied);

struct Precopy {
        bool is_on;
        bool is_short; /* of memory: what is gone could not be noted, and the takeover must fail */
        struct PrecopiedQueue changed;
        size_t n_changed;
        uint32_t *gone; /* numbers of connections that were given, and are no more */
        size_t n_gone, room_gone;
        uint64_t next_event; /* the first that was not given */
};

void precopy_init(Precopy *precopy);

/* precopy_begin() - everything counts as changed. precopy_end() - nobody wants to know any more; also without a begin. */
void precopy_begin(Supervisor *supervisor);
void precopy_end(Supervisor *supervisor);

/* precopy_take() - the one that has waited longest, or NULL: nothing has changed. */
Precopied *precopy_take(Precopy *precopy);

/* precopy_queue() - it has changed. precopy_forget() - it goes; @number of a client's connection, else 0. */
void precopy_queue(Precopy *precopy, Precopied *it);
void precopy_forget(Precopy *precopy, Precopied *it, uint32_t number);

static inline void precopy_touch(Precopy *precopy, Precopied *it) {
        if (precopy->is_on && !it->is_changed)
                precopy_queue(precopy, it);
}

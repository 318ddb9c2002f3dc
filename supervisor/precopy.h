#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pre-copy: which connections and runners have changed since a successor was given them. While one gets ready, whatever
 * happens to one of them puts it into a queue, once; a round takes some from its head and gives them as they are now; what
 * is in it when we freeze has to be given then. Otherwise touching costs a look at a flag.
 *
 * What is in the middle of something is not given before the freeze: it stays in the queue. So whoever leads a runner out of
 * a state in which it can be given (snapshot-changed.c) has to touch it, and nobody else: what happens on the way is
 * written down at the end. All that changes a runner's state or that of its instance passes supervisor_queue_runner() or
 * instance_raise(); the few facts that come without an event are noted where they come. A build with fault points compares
 * at the freeze what was given with what is (snapshot-check.h), and refuses the takeover where somebody forgot.
 *
 * In a successor the queue has the runners that are not what their predecessor has said of them yet (fleet_restore()).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/manifest.h"

typedef struct Precopied Precopied;
typedef struct Precopy Precopy;
typedef struct Runner Runner;
typedef struct Supervisor Supervisor;

typedef enum PrecopiedKind {
        PRECOPIED_CONTROL,  /* a client's connection */
        PRECOPIED_INSTANCE, /* a native runner's */
        PRECOPIED_RUNNER,   /* no connection: what it is in the middle of */
} PrecopiedKind;

/* Part of a Control, of an Instance and of a Runner. */
struct Precopied {
        TAILQ_ENTRY(Precopied) link; /* valid while is_changed */
        PrecopiedKind kind : 8;
        bool is_changed;
        bool was_given;  /* the successor has it, in some state */
        uint32_t owed;   /* of a client's connection, as it was given: calls that wait for their answers */
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
        char **gone_runners; /* names of runners, likewise */
        size_t n_gone_runners, room_gone_runners;
        size_t n_owed;       /* all that was given together owes */
        uint64_t next_event; /* the first that was not given */
};

void precopy_init(Precopy *precopy);

/* precopy_begin() - everything counts as changed. precopy_end() - nobody wants to know any more; also without a begin. */
void precopy_begin(Supervisor *supervisor);
void precopy_end(Supervisor *supervisor);

/* precopy_take() - the one that has waited longest, or NULL: nothing has changed. */
Precopied *precopy_take(Precopy *precopy);

/*
 * precopy_queue() - it has changed. precopy_forget() - it goes; @number of a client's connection, else 0; @name of a runner,
 * else NULL.
 */
void precopy_queue(Precopy *precopy, Precopied *it);
void precopy_forget(Precopy *precopy, Precopied *it, uint32_t number, const char *name);

/* precopy_note_given() - by @it, a client's connection, @owed calls are owed as the successor has it. */
void precopy_note_given(Precopy *precopy, Precopied *it, uint32_t owed);

static inline void precopy_touch(Precopy *precopy, Precopied *it) {
        if (precopy->is_on && !it->is_changed)
                precopy_queue(precopy, it);
}

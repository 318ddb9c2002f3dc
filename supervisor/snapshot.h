#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Snapshot: what a supervisor writes down for its successor, besides what the keeper's table tells. */

#include "proto/manifest.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/supervisor.h"

/*
 * What is written, and what is understood: one more, whose further fields survive here, and one less, which lacks some. A
 * meaning that changes is two more.
 */
#define SNAPSHOT_VERSION     2u
#define SNAPSHOT_VERSION_MIN (snapshot_version() - 1)
#define SNAPSHOT_VERSION_MAX (snapshot_version() + 1)
#define SNAPSHOT_SIZE_MAX    (UINT64_C(1) << 30)
#define SNAPSHOT_NAME        "snapshot" /* of its descriptor, in the manifest */
#define SNAPSHOT_METRICS     "metrics"

enum {
        SNAPSHOT_PREFIX_SIZE = 48,
        SNAPSHOT_EVENTS_MAX = 256, /* in a part of it */
};

/* snapshot_version() - SNAPSHOT_VERSION; of its own, so that tests can be of another. */
uint32_t snapshot_version(void);

/* snapshot_client(), snapshot_instance() - where the descriptors of a connection are in the manifest. */
void snapshot_client(char prefix[SNAPSHOT_PREFIX_SIZE], uint32_t number);
void snapshot_instance(char prefix[SNAPSHOT_PREFIX_SIZE], uint64_t id);
/* snapshot_service() - the name of a socket that its service is given. */
void snapshot_service(char name[SNAPSHOT_PREFIX_SIZE], uint64_t id);

/*
 * snapshot_obstacle() - what is in the way of writing down everything, which is at rest (supervisor_rest()), in @reason: a
 * call that cannot cross. It passes by itself. False: nothing. After precopy_begin().
 */
bool snapshot_obstacle(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]);

/* What is written down. */
typedef struct SnapshotPart {
        bool is_partial;   /* while we serve: some of what has changed; else all of it, and the calls */
        bool no_runners;   /* no runner before the end: the successor knows of none of it */
        size_t max;        /* of a partial one: when there is enough in it; a runner counts one, a connection eight */
        const Call *asker; /* the call that asks for the takeover, or NULL */
        uint64_t begun_us;
        size_t n_seen; /* afterwards: how many were looked at */
} SnapshotPart;

/*
 * snapshot_save() - into @manifest, all descriptors that the successor lacks and the snapshot itself as the last one, which
 * is @ret_memfd and the caller's. To be called from outside of every callback of a peer. 0, or a negative errno with the
 * reason: what was to be in it is lost for this successor. -EAGAIN: another one would have it.
 */
int snapshot_save(Supervisor *supervisor, SnapshotPart *part, Manifest *manifest, int *ret_memfd,
                  char reason[MANIFEST_REASON_SIZE]);

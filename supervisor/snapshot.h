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
 * call that cannot cross. It passes by itself. False: nothing.
 */
bool snapshot_obstacle(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]);

/* What is written down. */
typedef struct SnapshotPart {
        bool is_partial; /* while we serve: of the connections that have changed at most @max; else all of them, and the calls */
        size_t max;
        const Call *asker; /* the call that asks for the takeover, or NULL */
        uint64_t begun_us;
} SnapshotPart;

/*
 * snapshot_save() - into @manifest, all descriptors that the successor lacks and the snapshot itself as the last one, which
 * is @ret_memfd and the caller's. To be called from outside of every callback of a peer. 0; -EAGAIN: not just now; or a
 * negative errno with the reason.
 */
int snapshot_save(Supervisor *supervisor, const SnapshotPart *part, Manifest *manifest, int *ret_memfd,
                  char reason[MANIFEST_REASON_SIZE]);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files that write a snapshot share, and nobody else includes: snapshot.c (its frame, and what is written at the end
 * alone), snapshot-changed.c (what may have been given before).
 */

#include "supervisor/snapshot.h"

typedef struct SnapshotSave {
        Supervisor *supervisor;
        Baton__Snapshot__Snapshot *snapshot;
        Manifest *manifest;
        char *reason;
        int error; /* the first */
} SnapshotSave;

/* ---- snapshot.c ---- */
/* snapshot_fail() - at @what; the first error stays. Returns false. */
bool snapshot_fail(SnapshotSave *save, int error, const char *what);
/* snapshot_add() - one more message at the end of an array that grows by doubling; NULL: no memory, and noted. */
void *snapshot_add(SnapshotSave *save, const ProtobufCMessageDescriptor *type, void *array, size_t *n);
/* snapshot_grow() - room for one more in an array of @n pointers; NULL: no memory, and noted. */
void *snapshot_grow(SnapshotSave *save, void *array, size_t n);

/* ---- snapshot.c ---- */
/* snapshot_count_wishes() - calls of @instance that wait for a checkpoint, and cross. */
size_t snapshot_count_wishes(const Instance *instance);

/* ---- snapshot-changed.c ---- */
/* snapshot_save_changed() - of what has changed as much as @part says, and what is gone. */
void snapshot_save_changed(SnapshotSave *save, SnapshotPart *part);
/* snapshot_can_be_given() - before the end, as it is; else it is in the middle of something. */
bool snapshot_can_be_given(const Precopied *it);

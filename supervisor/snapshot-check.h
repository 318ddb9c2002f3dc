#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot Check: that nothing of a runner changes without its being touched (precopy.h). A program with fault points keeps
 * what it has given of each runner, and writes all of them down once more at the freeze; any other does nothing here.
 */

#include <stdbool.h>
#include <stdint.h>

#include "proto/manifest.h"
#include "proto/snapshot.pb-c.h"

typedef struct Supervisor Supervisor;

/*
 * snapshot_check_hold() - for how long the freeze is put off when everything was given, so that something happens meanwhile:
 * $BATON_TEST_HOLD_MS of a program with fault points; else 0.
 */
uint64_t snapshot_check_hold(void);

/* snapshot_check_given() - a successor is given @message. snapshot_check_end() - there is none any more. */
void snapshot_check_given(const Baton__Snapshot__Runner *message);
void snapshot_check_end(void);

/* snapshot_check_forgotten() - whether a runner is not what was given of it, and which and what, in @reason. */
bool snapshot_check_forgotten(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]);

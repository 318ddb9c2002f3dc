#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A supervisor with a few configured runners, which never turns its loop while a snapshot is taken up: what a successor is
 * before GO. For tests and for the fuzz target of snapshots.
 */

#include <stdint.h>

#include "proto/snapshot.pb-c.h"
#include "tests/supervisor-fixture.h"

/* snapshot_fixture_open() - with a runner of each kind: native, web.1 to web.3, slow, failed, backs, often, late; group g. */
void snapshot_fixture_open(SupervisorFixture *fixture);

/*
 * snapshot_fixture_restore() - runners, groups, hooks, events, connections and relays of @snapshot, in the order in which a
 * successor does it. Of its descriptors those of one connection are there. Returns how many connections were restored.
 */
size_t snapshot_fixture_restore(SupervisorFixture *fixture, const Baton__Snapshot__Snapshot *snapshot);

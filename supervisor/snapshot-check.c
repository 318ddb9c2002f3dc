/* SPDX-License-Identifier: Apache-2.0 */

/* Snapshot Check of a build without fault points. A program that has them is linked with snapshot-check-all.c. */

#include "supervisor/snapshot-check.h"

uint64_t snapshot_check_hold(void) {
        return 0;
}

void snapshot_check_given(const Baton__Snapshot__Runner *message) {
        (void) message;
}

void snapshot_check_end(void) {
}

bool snapshot_check_forgotten(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]) {
        (void) supervisor;
        (void) reason;
        return false;
}

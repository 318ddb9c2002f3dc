/* SPDX-License-Identifier: Apache-2.0 */

/* Fault points of a build that has none. A program that has them is linked with fault-points.c in front of this. */

#include "supervisor/fault.h"

#include <errno.h>
#include <stdio.h>

int fault_set(const char *text, FaultSide own, char reason[FAULT_REASON_SIZE]) {
        (void) text;
        (void) own;
        (void) snprintf(reason, FAULT_REASON_SIZE,
                        "this baton-supervisor was built without fault points (configure --enable-fault-points)");
        return -EOPNOTSUPP;
}

int fault_point(FaultSide own, TakeoverPhase phase) {
        (void) own;
        (void) phase;
        return 0;
}

void fault_end(void) {
}

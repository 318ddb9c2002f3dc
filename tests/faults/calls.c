/* SPDX-License-Identifier: Apache-2.0 */

/* The calls that fail at a fault point, by the seam that baton-supervisor of the tests is linked with. */

#include <string.h>

#include "supervisor/fault-calls.h"
#include "tests/seam.h"

static int find(const char *name) {
        for (int i = 0; i < _SEAM_CALL_N; i++)
                if (strcmp(seam_name((SeamCall) i), name) == 0)
                        return i;
        return -1;
}

bool fault_has_call(const char *name) {
        return find(name) >= 0;
}

void fault_fail_call(const char *name, unsigned nth, int error) {
        seam_fail((SeamCall) find(name), nth, error);
}

unsigned fault_pass_calls(const char *name) {
        unsigned hits = seam_hits((SeamCall) find(name));

        seam_reset();
        return hits;
}

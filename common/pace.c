/* SPDX-License-Identifier: Apache-2.0 */

#include "common/pace.h"

#include <stdint.h>
#include <time.h>

#include "common/clock.h"

#define WORK_US 500u
#define REST_NS 20000 /* and the kernel's slack, 50 us; much less, and the timer may be there before anybody else is */

static uint64_t begun_us; /* this piece; 0: there is no long work */

void pace_begin(void) {
        begun_us = clock_now();
}

void pace_end(void) {
        begun_us = 0;
}

bool pace_keep(void) {
        const struct timespec rest = { .tv_nsec = REST_NS };

        if (begun_us == 0 || clock_now() - begun_us < WORK_US)
                return false;
        (void) nanosleep(&rest, NULL);
        pace_begin();
        return true;
}

/* SPDX-License-Identifier: Apache-2.0 */

#include "common/pace.h"

#include <stdint.h>
#include <time.h>

#include "common/clock.h"

/* To each rest comes the kernel's slack, 50 us. Much less than that, and the timer may be there before anybody else is. */
typedef struct Pace {
        uint64_t work_us;
        long rest_ns;
} Pace;

static const Pace steady = { .work_us = 500, .rest_ns = 20000 };
static const Pace idle = { .work_us = 100, .rest_ns = 200000 };

static const Pace *pace = &steady;
static uint64_t begun_us; /* this piece; 0: there is no long work */

static void begin(const Pace *at) {
        pace = at;
        begun_us = clock_now();
}

static void rest(const Pace *at) {
        const struct timespec time = { .tv_nsec = at->rest_ns };

        (void) nanosleep(&time, NULL);
}

void pace_begin(void) {
        begin(&steady);
}

void pace_begin_idly(void) {
        begin(&idle);
}

void pace_end(void) {
        begun_us = 0;
}

bool pace_keep(void) {
        if (begun_us == 0 || clock_now() - begun_us < pace->work_us)
                return false;
        rest(pace);
        begin(pace);
        return true;
}

void pace_rest(void) {
        rest(&steady);
}

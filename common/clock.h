#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Time in microseconds: the monotonic clock for deadlines, the wall clock for what people read. */

#include <stdint.h>
#include <time.h>

#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define NSEC_PER_USEC UINT64_C(1000)
#define USEC_INFINITY UINT64_MAX /* a deadline that never comes */

static inline uint64_t clock_us(clockid_t clock) {
        struct timespec now;

        (void) clock_gettime(clock, &now);
        return (uint64_t) now.tv_sec * USEC_PER_SEC + (uint64_t) now.tv_nsec / NSEC_PER_USEC;
}

/* clock_now() - CLOCK_MONOTONIC. */
static inline uint64_t clock_now(void) {
        return clock_us(CLOCK_MONOTONIC);
}

/* clock_wall() - CLOCK_REALTIME. */
static inline uint64_t clock_wall(void) {
        return clock_us(CLOCK_REALTIME);
}

/* clock_after() - the moment @delay_us from @now; never where either is USEC_INFINITY or the sum would wrap. */
static inline uint64_t clock_after(uint64_t now, uint64_t delay_us) {
        return delay_us > USEC_INFINITY - now ? USEC_INFINITY : now + delay_us;
}

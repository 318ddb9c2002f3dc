#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* How long things took: counted in buckets, so that any number of them takes the same room. */

#include <stdint.h>

#define LATENCY_BUCKETS 7424

/* Null value: zeroed. */
typedef struct Latency {
        uint64_t n, min_ns, max_ns;
        uint64_t buckets[LATENCY_BUCKETS];
} Latency;

/* latency_clock() - now, in nanoseconds of the monotonic clock. */
uint64_t latency_clock(void);

void latency_add(Latency *latency, uint64_t ns);

/* latency_quantile() - in nanoseconds, within 1 %; of 0 the least, of 1 the most, both exact. 0 when there is none. */
uint64_t latency_quantile(const Latency *latency, double quantile);

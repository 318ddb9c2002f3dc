/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Latency: a histogram of which every power of two is cut into 128 equal buckets, so that a quantile is off by at most
 * 1 in 256, from nanoseconds to centuries. A benchmark of a minute makes millions of samples; kept one by one they would
 * cost more memory, and more of the processor's cache, than what is measured.
 */

#include "client/latency.h"

#include <time.h>

#include "common/macro.h"

#define BITS 7 /* of a sample that count */

_Static_assert(LATENCY_BUCKETS == (64 - BITS + 1) << BITS, "every number has its bucket");

uint64_t latency_clock(void) {
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

/* shift_of() - how many low bits of @ns do not count. */
static unsigned shift_of(uint64_t ns) {
        return ns >> BITS ? (unsigned) (63 - __builtin_clzll(ns)) - BITS : 0;
}

/* bucket_of() - numbers below two times 128 are their own; each further power of two has 128. */
static size_t bucket_of(uint64_t ns) {
        unsigned shift = shift_of(ns);

        return ((size_t) shift << BITS) + (size_t) (ns >> shift);
}

/* bucket_middle() - the number that stands for all of a bucket. */
static uint64_t bucket_middle(size_t bucket) {
        unsigned shift = bucket >> BITS > 1 ? (unsigned) (bucket >> BITS) - 1 : 0;

        return ((uint64_t) (bucket - ((size_t) shift << BITS)) << shift) + (UINT64_C(1) << shift) / 2;
}

void latency_add(Latency *latency, uint64_t ns) {
        latency->min_ns = latency->n ? MIN(latency->min_ns, ns) : ns;
        latency->max_ns = MAX(latency->max_ns, ns);
        latency->n++;
        latency->buckets[bucket_of(ns)]++;
}

uint64_t latency_quantile(const Latency *latency, double quantile) {
        double wanted = quantile * (double) latency->n, seen = 0;
        size_t bucket = 0;

        if (wanted <= 1)
                return latency->min_ns;
        if (quantile >= 1)
                return latency->max_ns;
        while (bucket < LATENCY_BUCKETS - 1 && seen + (double) latency->buckets[bucket] < wanted)
                seen += (double) latency->buckets[bucket++];
        return MAX(MIN(bucket_middle(bucket), latency->max_ns), latency->min_ns);
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A lane whose other end is plain bytes and descriptors, so that a mistake made on both sides does not hide.
 */

#include "common/lane.h"
#include "tests/test.h"

#define MAX_UNCLAIMED    4
#define ID(_epoch, _low) ((uint64_t) (_epoch) << 32 | (_low))

/* A lane and the bare other end of its socket. */
typedef struct Bench {
        Lane lane;
        int other;
} Bench;

void bench_open(Bench *bench, unsigned side, unsigned n_channels, LaneRenewal renewal);
void bench_close(Bench *bench);
int open_eventfd(void);
/* open_stream() - one end of a pair of streams; the other end is closed at once. */
int open_stream(void);
/* put_raw() - the first @size bytes of the id (zeros after its eight) with @n copies of @fd. */
void put_raw(Bench *bench, uint64_t id, size_t size, int fd, size_t n);
/* put() - a good message with an eventfd. */
void put(Bench *bench, uint64_t id);
void put_channel(Bench *bench, uint64_t id);
/* expect() - the result of the next receive, with the id where one comes; a descriptor that comes is closed. */
void expect(Bench *bench, int result, uint64_t id, const char *what);
void expect_claim(Bench *bench, uint64_t id, int result);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bare loop that calls are compared with: epoll, one socketpair, frames of a protobuf-c header and a raw body, read
 * and written in batches. No ids to look up, no limits, no deadlines, no strings.
 */

#include <stddef.h>

/* floor_serve() - answers every frame on @fd with the same body until its end. */
void floor_serve(int fd);

/*
 * floor_call() - @n calls with @size bytes, @window of them in flight; where @latency is not NULL (with a window of 1)
 * it gets the seconds of each.
 */
struct Samples;
void floor_call(int fd, size_t n, size_t size, size_t window, struct Samples *latency);

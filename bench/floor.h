#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bare loop that calls are compared with: epoll, one socketpair, frames of a protobuf-c header and a raw body, read
 * and written in batches. No ids to look up, no limits, no deadlines, no strings.
 */

#include <stddef.h>

#include "bench/candidate.h"

/* floor_serve() - answers every frame on @fd with at most @answer bytes of its body, until the end of @fd. */
void floor_serve(int fd, size_t answer);

/* floor_open(), floor_run(), floor_close() - the client's side on @fd, which stays the caller's. One at a time. */
void floor_open(int fd);
void floor_run(Exchange *exchange);
void floor_close(void);

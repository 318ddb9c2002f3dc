#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What log-ring.c (lines) and log-scratch.c (bytes on their way) share: what is in the memory of a ring. */

#include "supervisor/log-ring.h"

#define LOG_RING_MAGIC UINT64_C(0x32676f4c6e746142) /* "BatnLog2": the version is in it */

enum {
        /*
         * Room for what waits because no line of it may be made, what is taken at the end, and as much again as waits, so
         * that it can be moved; pages that are not used are not there.
         */
        LOG_RING_STAGE_SIZE = LOG_RING_DRAIN_MAX + 2 * (LOG_RING_BATCH + LOG_TEXT_MAX),
};

typedef struct LogRingHeader {
        uint64_t magic, id;
        uint64_t size; /* of the records, bytes */
        char name[LOG_RING_NAME_SIZE];
        uint32_t active; /* which of the states holds */
        LogRingState states[2];
        struct {
                uint64_t head;   /* bytes that have come into the stage, ever: the commit */
                uint64_t target; /* what it will be; another than head: bytes are on their way */
        } streams[LOG_RING_STREAMS];
} LogRingHeader;

struct LogRing {
        int fd;
        size_t mapped, size;
        LogRingHeader *header; /* where the mapping begins */
        uint8_t *stages, *records;
};

uint8_t *log_ring_stage(const LogRing *ring, int stream);

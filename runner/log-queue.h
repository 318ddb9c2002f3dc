#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log records on their way to the supervisor: numbered, bounded, kept until acknowledged, sent again after a renewal.
 * Only log_queue_add() may be called in other threads than the loop's.
 */

#include <stdarg.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/handoff.h"
#include "proto/handle.h"

#define LOG_QUEUE_CALLS   4u              /* open at once */
#define LOG_QUEUE_RECORDS 1024u           /* kept, unless the runner's options say otherwise */
#define LOG_QUEUE_BYTES   (1024u * 1024u) /* kept */
#define LOG_QUEUE_TEXT    (8u * 1024u)    /* longest text */

typedef struct LogQueue LogQueue;
typedef struct LogEntry LogEntry;

/* Records that are under way in one call. */
typedef struct LogBatch {
        LogQueue *queue;
        Call *call; /* NULL: free */
        LogEntry *first;
        size_t n;
} LogBatch;

struct LogQueue {
        Endpoint *endpoint;
        const Handles *handles;
        Peer *peer;
        bool parks;
        EndpointTask pump;
        Handoff handoff;                /* records on their way in; they keep their room until acknowledged */
        TAILQ_HEAD(, LogEntry) entries; /* by sequence number */
        uint64_t next_seq;
        uint64_t missing; /* dropped, and there was no memory to say so */
        LogBatch batches[LOG_QUEUE_CALLS];
};

/*
 * log_queue_init() - of a zeroed structure, for records over @peer, at most @max of them (0: LOG_QUEUE_RECORDS). @parks:
 * other threads than the loop's wait for room. Must not move afterwards. 0 or a negative errno.
 */
int log_queue_init(LogQueue *queue, Endpoint *endpoint, const Handles *handles, Peer *peer, size_t max, bool parks);

/* log_queue_deinit() - forgets everything; the peer is gone already. Good for a zeroed structure. */
void log_queue_deinit(LogQueue *queue);

/* log_queue_collect() - takes what other threads have added; when the endpoint has been woken. */
void log_queue_collect(LogQueue *queue);

/* log_queue_close() - nobody takes records any more: who waits is let go, what comes is dropped. */
void log_queue_close(LogQueue *queue);

/*
 * log_queue_add() - one record; never fails: what does not fit is dropped and counted, where the thread does not wait. Any
 * thread.
 */
void log_queue_add(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                   const char *format, va_list arguments) _printf_(6, 0);

/* log_queue_ready() - the peer has said Hello (again): what is unacknowledged is to be sent. */
void log_queue_ready(LogQueue *queue);

/* log_queue_is_empty() - whether every record was acknowledged. */
bool log_queue_is_empty(LogQueue *queue);

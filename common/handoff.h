#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A bounded queue from any number of producers, in any threads, to one consumer: what does not fit waits (park) or is
 * dropped and counted (drop). One mechanism for logs, channels and links.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

typedef struct Handoff Handoff;
typedef struct HandoffNode HandoffNode;
typedef struct HandoffWaiter HandoffWaiter;

typedef enum HandoffPolicy {
        HANDOFF_PARK, /* a producer that meets the high mark waits until the low one is reached */
        HANDOFF_DROP, /* the newest is destroyed and counted */
} HandoffPolicy;

/* What handoff_push() says besides 0 and an errno. */
enum {
        HANDOFF_DROPPED = 1, /* the element is destroyed */
};

/* Part of every element; its owner fills in nothing. */
struct HandoffNode {
        HandoffNode *next;
        size_t size;
        uint64_t gap; /* how many were dropped between the element before and this one; for whoever took it */
};

/* A producer that does not block: told once, after a push of its element was put off. */
struct HandoffWaiter {
        TAILQ_ENTRY(HandoffWaiter) link;
        /*
         * Push again, or learn that it is closed. Called by the thread that made room or closed, with the queue locked:
         * it must only tell (write an eventfd, defer a task) and call nothing of this header.
         */
        void (*ready)(HandoffWaiter *waiter);
        bool waiting;
};
#define HANDOFF_WAITER_NULL(_ready) ((HandoffWaiter){ .ready = (_ready) })

typedef struct HandoffConfig {
        HandoffPolicy policy;
        size_t max_count, max_bytes; /* the high marks, never exceeded; 0: not bounded by this, but at least one is */
        size_t low_count, low_bytes; /* parked producers go on when both are reached; 0: half of the high mark */
        void (*destroy)(HandoffNode *node); /* of what was dropped, and what is left at the end */
        /*
         * The queue was empty and is not any more: once per such edge, by the producer's thread, queue not locked. It may
         * come late, when the consumer has found the element already. NULL: the consumer looks by itself.
         */
        void (*wake)(void *userdata);
        void *userdata;
} HandoffConfig;

typedef struct HandoffCounters {
        uint64_t in, out;    /* accepted; taken by the consumer */
        uint64_t dropped;    /* in all */
        uint64_t gap;        /* of these: since the last one accepted */
        uint64_t parked;     /* pushes that waited or were put off */
        uint64_t full;       /* times the high mark was met */
        size_t count, bytes; /* queued, or taken and not released */
        size_t peak_count, peak_bytes;
} HandoffCounters;

struct Handoff {
        pthread_mutex_t lock;
        pthread_cond_t room;
        HandoffConfig config;
        HandoffNode *first, **last;
        HandoffCounters counters;
        TAILQ_HEAD(, HandoffWaiter) waiters;
        bool parked; /* the high mark was met and the low one not reached since */
        bool closed;
};

/* handoff_init() - must not move afterwards. 0, -EINVAL (no bound, a low mark above its high one), -ENOMEM, -EAGAIN. */
int handoff_init(Handoff *handoff, const HandoffConfig *config);

/* handoff_deinit() - destroys what is queued. No producer may be in it or come any more: close it and join them first. */
void handoff_deinit(Handoff *handoff);

/* ---- for producers ---- */

/*
 * handoff_push() - @node, which counts for @size bytes; never waits. 0: it is the queue's. HANDOFF_DROPPED: it is
 * destroyed. With a negative errno it stays the caller's: -EAGAIN (park only: full; @waiter, unless NULL, is told once
 * when to try again), -EMSGSIZE (park only: larger than the bound, so that it would wait for ever), -ESHUTDOWN (closed).
 * While some are parked nobody else gets in either, so that the low mark is reached.
 */
int handoff_push(Handoff *handoff, HandoffNode *node, size_t size, HandoffWaiter *waiter);

/*
 * handoff_push_wait() - the same for a thread that may block: it waits until @deadline_us of the monotonic clock
 * (USEC_INFINITY: for ever). -ETIMEDOUT instead of -EAGAIN. Never from the consumer's thread.
 */
int handoff_push_wait(Handoff *handoff, HandoffNode *node, size_t size, uint64_t deadline_us);

/* handoff_drop() - counts one that never became an element: there was no memory for it. */
void handoff_drop(Handoff *handoff);

/* handoff_cancel() - @waiter is not told any more; it may go. Good for one that does not wait. */
void handoff_cancel(Handoff *handoff, HandoffWaiter *waiter);

/* ---- for the consumer, one thread ---- */

/* handoff_pop() - the oldest element, which is the caller's now and gives its room back; NULL: none. */
HandoffNode *handoff_pop(Handoff *handoff);

/* handoff_take() - the same, but it keeps its room until handoff_release(): for what is held until it is acknowledged. */
HandoffNode *handoff_take(Handoff *handoff);

/* handoff_release() - gives back the room of an element that was taken, which stays the caller's. */
void handoff_release(Handoff *handoff, const HandoffNode *node);

/* handoff_take_gap() - how many were dropped after the last one accepted, once: a gap that no element tells. */
uint64_t handoff_take_gap(Handoff *handoff);

/* ---- for both ---- */

/* handoff_close() - no more gets in, whoever waits is told and gets -ESHUTDOWN. What is queued can still be taken. */
void handoff_close(Handoff *handoff);

/* handoff_counters() - all of one moment. */
void handoff_counters(Handoff *handoff, HandoffCounters *ret_counters);

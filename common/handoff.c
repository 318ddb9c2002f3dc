/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Hand-off: elements go in at one end from any thread and come out at the other in that order. Each brings its own node,
 * so that nothing is allocated here, and its own size; together they stay below the high marks, always.
 *
 * Room is counted from push to pop, or, where the consumer takes and releases, until it releases: what is under way to a
 * peer and not acknowledged fills the queue as much as what still waits in it.
 *
 * Park has two marks. Whoever meets the high one sets `parked', and from then on every producer waits until what is left
 * has sunk to the low marks: one wake-up lets in many, and a late one cannot slip past those that wait. It cannot hang:
 * parked is set only where something is in the queue, and each release looks at it; a producer whose element does not
 * fit between the marks is parked again, in the end with nothing left, where everything that is accepted at all fits.
 * Drop has one mark only: a second would make gaps longer than they need be.
 *
 * Locks: one mutex around everything. The consumer's wake is called outside of it, so that it may do anything; a waiter's
 * ready inside, so that after handoff_cancel() it is certain not to run. Elements are destroyed outside.
 */

#include "common/handoff.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "common/clock.h"
#include "common/macro.h"

/* ---- life ---- */

/* set_marks() - one high mark and its low one, as the configuration means them. False: they are wrong. */
static bool set_marks(size_t *high, size_t *low) {
        if (*high == 0)
                *high = *low = SIZE_MAX;
        if (*low == 0)
                *low = *high / 2;
        return *low <= *high;
}

/* init_room() - a condition that goes by the monotonic clock. 0 or a negative errno. */
static int init_room(pthread_cond_t *room) {
        pthread_condattr_t attributes;
        int r = pthread_condattr_init(&attributes);

        if (r != 0)
                return -r;
        r = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (r == 0)
                r = pthread_cond_init(room, &attributes);
        (void) pthread_condattr_destroy(&attributes);
        return -r;
}

int handoff_init(Handoff *handoff, const HandoffConfig *config) {
        int r;

        *handoff = (Handoff){ .config = *config };
        if (config->max_count == 0 && config->max_bytes == 0)
                return -EINVAL;
        if (!set_marks(&handoff->config.max_count, &handoff->config.low_count) ||
            !set_marks(&handoff->config.max_bytes, &handoff->config.low_bytes))
                return -EINVAL;
        handoff->last = &handoff->first;
        TAILQ_INIT(&handoff->waiters);
        r = pthread_mutex_init(&handoff->lock, NULL);
        if (r != 0)
                return -r;
        r = init_room(&handoff->room);
        if (r < 0)
                (void) pthread_mutex_destroy(&handoff->lock);
        return r;
}

void handoff_deinit(Handoff *handoff) {
        HandoffNode *node;

        while ((node = handoff->first)) {
                handoff->first = node->next;
                handoff->config.destroy(node);
        }
        (void) pthread_cond_destroy(&handoff->room);
        (void) pthread_mutex_destroy(&handoff->lock);
}

static void lock(Handoff *handoff) {
        int r = pthread_mutex_lock(&handoff->lock);

        assert(r == 0);
        (void) r;
}

static void unlock(Handoff *handoff) {
        (void) pthread_mutex_unlock(&handoff->lock);
}

/* ---- producers ---- */

static void count_drop(Handoff *handoff) {
        handoff->counters.dropped++;
        handoff->counters.gap++;
}

/* admit() - what becomes of an element of @size; everything below works on its answer. Counts, and parks. */
static int admit(Handoff *handoff, size_t size) {
        const HandoffConfig *config = &handoff->config;
        HandoffCounters *counters = &handoff->counters;
        bool fits = counters->count < config->max_count && size <= config->max_bytes - counters->bytes;

        if (handoff->closed)
                return -ESHUTDOWN;
        if (fits && !handoff->parked)
                return 0;
        if (config->policy == HANDOFF_PARK && size > config->max_bytes)
                return -EMSGSIZE;
        if (config->policy == HANDOFF_DROP) {
                counters->full += counters->gap == 0;
                count_drop(handoff);
                return HANDOFF_DROPPED;
        }
        counters->full += !handoff->parked;
        handoff->parked = true;
        return -EAGAIN;
}

/* append() - whether the queue was empty. */
static bool append(Handoff *handoff, HandoffNode *node, size_t size) {
        HandoffCounters *counters = &handoff->counters;
        bool empty = !handoff->first;

        *node = (HandoffNode){ .size = size, .gap = counters->gap };
        *handoff->last = node;
        handoff->last = &node->next;
        counters->gap = 0;
        counters->in++;
        counters->count++;
        counters->bytes += size;
        counters->peak_count = MAX(counters->peak_count, counters->count);
        counters->peak_bytes = MAX(counters->peak_bytes, counters->bytes);
        return empty;
}

static void wait_for_ready(Handoff *handoff, HandoffWaiter *waiter) {
        handoff->counters.parked++;
        if (!waiter || waiter->waiting)
                return;
        TAILQ_INSERT_TAIL(&handoff->waiters, waiter, link);
        waiter->waiting = true;
}

/* wait_for_room() - sleeps until something has changed. 0, or -ETIMEDOUT. */
static int wait_for_room(Handoff *handoff, uint64_t deadline_us) {
        struct timespec until = {
                .tv_sec = (time_t) (deadline_us / USEC_PER_SEC),
                .tv_nsec = (long) (deadline_us % USEC_PER_SEC * NSEC_PER_USEC),
        };

        if (deadline_us == USEC_INFINITY)
                return -pthread_cond_wait(&handoff->room, &handoff->lock);
        return -pthread_cond_timedwait(&handoff->room, &handoff->lock, &until);
}

/* admit_in_time() - admit() for who may block. */
static int admit_in_time(Handoff *handoff, size_t size, uint64_t deadline_us) {
        int r = admit(handoff, size), waited = 0;

        if (r == -EAGAIN)
                handoff->counters.parked++;
        while (r == -EAGAIN && waited == 0) {
                waited = wait_for_room(handoff, deadline_us);
                r = admit(handoff, size);
        }
        return r == -EAGAIN ? waited : r;
}

/* finish() - the rest of a push, whose answer is @r; the queue is locked, and unlocked here. */
static int finish(Handoff *handoff, HandoffNode *node, size_t size, int r) {
        bool edge = r == 0 && append(handoff, node, size);

        unlock(handoff);
        if (edge && handoff->config.wake)
                handoff->config.wake(handoff->config.userdata);
        if (r == HANDOFF_DROPPED)
                handoff->config.destroy(node);
        return r;
}

int handoff_push(Handoff *handoff, HandoffNode *node, size_t size, HandoffWaiter *waiter) {
        int r;

        lock(handoff);
        r = admit(handoff, size);
        if (r == -EAGAIN)
                wait_for_ready(handoff, waiter);
        return finish(handoff, node, size, r);
}

int handoff_push_wait(Handoff *handoff, HandoffNode *node, size_t size, uint64_t deadline_us) {
        lock(handoff);
        return finish(handoff, node, size, admit_in_time(handoff, size, deadline_us));
}

void handoff_drop(Handoff *handoff) {
        lock(handoff);
        count_drop(handoff);
        unlock(handoff);
}

void handoff_cancel(Handoff *handoff, HandoffWaiter *waiter) {
        lock(handoff);
        if (waiter->waiting)
                TAILQ_REMOVE(&handoff->waiters, waiter, link);
        waiter->waiting = false;
        unlock(handoff);
}

/* ---- the consumer ---- */

/* tell_producers() - all that wait, of either kind. */
static void tell_producers(Handoff *handoff) {
        HandoffWaiter *waiter;

        handoff->parked = false;
        (void) pthread_cond_broadcast(&handoff->room);
        while ((waiter = TAILQ_FIRST(&handoff->waiters))) {
                TAILQ_REMOVE(&handoff->waiters, waiter, link);
                waiter->waiting = false;
                waiter->ready(waiter);
        }
}

static HandoffNode *take(Handoff *handoff) {
        HandoffNode *node = handoff->first;

        if (!node)
                return NULL;
        handoff->first = node->next;
        if (!handoff->first)
                handoff->last = &handoff->first;
        node->next = NULL;
        handoff->counters.out++;
        return node;
}

static void release(Handoff *handoff, const HandoffNode *node) {
        HandoffCounters *counters = &handoff->counters;

        assert(counters->count > 0 && counters->bytes >= node->size);
        counters->count--;
        counters->bytes -= node->size;
        if (handoff->parked && counters->count <= handoff->config.low_count &&
            counters->bytes <= handoff->config.low_bytes)
                tell_producers(handoff);
}

HandoffNode *handoff_pop(Handoff *handoff) {
        HandoffNode *node;

        lock(handoff);
        node = take(handoff);
        if (node)
                release(handoff, node);
        unlock(handoff);
        return node;
}

HandoffNode *handoff_take(Handoff *handoff) {
        HandoffNode *node;

        lock(handoff);
        node = take(handoff);
        unlock(handoff);
        return node;
}

void handoff_release(Handoff *handoff, const HandoffNode *node) {
        lock(handoff);
        release(handoff, node);
        unlock(handoff);
}

uint64_t handoff_take_gap(Handoff *handoff) {
        uint64_t gap;

        lock(handoff);
        gap = handoff->counters.gap;
        handoff->counters.gap = 0;
        unlock(handoff);
        return gap;
}

/* ---- both ---- */

void handoff_close(Handoff *handoff) {
        lock(handoff);
        handoff->closed = true;
        tell_producers(handoff);
        unlock(handoff);
}

void handoff_counters(Handoff *handoff, HandoffCounters *ret_counters) {
        lock(handoff);
        *ret_counters = handoff->counters;
        unlock(handoff);
}

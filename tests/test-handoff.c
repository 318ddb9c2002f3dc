/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers common/handoff: marks, both policies, gaps, room that is held until released, both ways to wait, closing; and
 * many producers at once, which is worth most under ThreadSanitizer.
 */

#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/handoff.h"
#include "tests/seam.h"

typedef struct Element {
        HandoffNode node;
        unsigned producer, number, destroyed;
} Element;

static unsigned n_destroyed, n_woken, n_told;

static void destroy(HandoffNode *node) {
        CONTAINER_OF(node, Element, node)->destroyed++;
        n_destroyed++;
}

static void wake(void *userdata) {
        assert_ptr_equal(userdata, &n_woken);
        n_woken++;
}

static void ready(HandoffWaiter *waiter) {
        assert_false(waiter->waiting);
        n_told++;
}

static void set_up(Handoff *handoff, HandoffConfig config) {
        config.destroy = destroy;
        config.wake = wake;
        config.userdata = &n_woken;
        n_destroyed = n_woken = n_told = 0;
        assert_int_equal(handoff_init(handoff, &config), 0);
}

static unsigned pop_number(Handoff *handoff) {
        HandoffNode *node = handoff_pop(handoff);

        assert_non_null(node);
        return CONTAINER_OF(node, Element, node)->number;
}

static void fill_numbers(Element *elements, unsigned n) {
        memset(elements, 0, n * sizeof(*elements));
        for (unsigned i = 0; i < n; i++)
                elements[i].number = i;
}

static void test_configuration(void **state) {
        static const struct {
                HandoffConfig config;
                int result;
        } rows[] = {
                { { .max_count = 0 }, -EINVAL },
                { { .max_count = 1 }, 0 },
                { { .max_bytes = 1 }, 0 },
                { { .max_count = 4, .low_count = 4 }, 0 },
                { { .max_count = 4, .low_count = 5 }, -EINVAL },
                { { .max_bytes = 4, .low_bytes = 5 }, -EINVAL },
                { { .max_bytes = 4, .low_count = 5 }, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Handoff handoff;

                assert_int_equal(handoff_init(&handoff, &rows[i].config), rows[i].result);
                if (rows[i].result == 0)
                        handoff_deinit(&handoff);
        }
}

static void test_order_and_edges(void **state) {
        Element elements[6];
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 6);
        set_up(&handoff, (HandoffConfig){ .max_count = 10 });
        assert_null(handoff_pop(&handoff));
        for (unsigned round = 0; round < 2; round++) {
                for (unsigned i = 0; i < 3; i++)
                        assert_int_equal(handoff_push(&handoff, &elements[i].node, 1, NULL), 0);
                assert_int_equal(n_woken, round + 1);
                for (unsigned i = 0; i < 3; i++)
                        assert_int_equal(pop_number(&handoff), i);
                assert_null(handoff_pop(&handoff));
        }
        assert_int_equal(handoff_push(&handoff, &elements[4].node, 1, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[5].node, 1, NULL), 0);
        handoff_deinit(&handoff);
        assert_int_equal(n_destroyed, 2);
        assert_int_equal(elements[4].destroyed + elements[5].destroyed, 2);
}

static void test_drop_tells_gaps(void **state) {
        Element elements[8];
        HandoffCounters counters;
        HandoffNode *node;
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 8);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_DROP, .max_count = 2, .max_bytes = 100 });
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 101, NULL), HANDOFF_DROPPED);
        assert_int_equal(handoff_push(&handoff, &elements[1].node, 60, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[2].node, 41, NULL), HANDOFF_DROPPED);
        assert_int_equal(handoff_push(&handoff, &elements[3].node, 40, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[4].node, 0, NULL), HANDOFF_DROPPED);
        assert_int_equal(handoff_push_wait(&handoff, &elements[5].node, 0, USEC_INFINITY), HANDOFF_DROPPED);
        assert_int_equal(n_destroyed, 4);

        node = handoff_pop(&handoff);
        assert_ptr_equal(node, &elements[1].node);
        assert_int_equal(node->gap, 1);
        assert_int_equal(handoff_pop(&handoff)->gap, 1);
        handoff_counters(&handoff, &counters);
        assert_int_equal(counters.dropped, 4);
        assert_int_equal(counters.gap, 2);
        assert_int_equal(counters.full, 3);
        assert_int_equal(counters.in, 2);
        assert_int_equal(counters.out, 2);
        assert_int_equal(counters.peak_count, 2);
        assert_int_equal(counters.peak_bytes, 100);
        assert_int_equal(counters.count + counters.bytes, 0);
        assert_int_equal(handoff_take_gap(&handoff), 2);
        assert_int_equal(handoff_take_gap(&handoff), 0);
        assert_int_equal(handoff_push(&handoff, &elements[6].node, 1, NULL), 0);
        assert_int_equal(handoff_pop(&handoff)->gap, 0);
        handoff_drop(&handoff);
        assert_int_equal(handoff_push(&handoff, &elements[7].node, 1, NULL), 0);
        assert_int_equal(handoff_pop(&handoff)->gap, 1);
        handoff_counters(&handoff, &counters);
        assert_int_equal(counters.dropped, 5);
        handoff_deinit(&handoff);
}

/* The high mark parks; the low one, and not before, tells. */
static void test_park_has_two_marks(void **state) {
        HandoffWaiter one = HANDOFF_WAITER_NULL(ready), two = HANDOFF_WAITER_NULL(ready);
        HandoffCounters counters;
        Element elements[8];
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 8);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_PARK, .max_count = 4, .low_count = 1 });
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(handoff_push(&handoff, &elements[i].node, 1, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[4].node, 1, &one), -EAGAIN);
        assert_int_equal(handoff_push(&handoff, &elements[4].node, 1, &one), -EAGAIN);
        assert_int_equal(handoff_push(&handoff, &elements[5].node, 1, &two), -EAGAIN);
        assert_int_equal(pop_number(&handoff), 0);
        assert_int_equal(pop_number(&handoff), 1);
        assert_int_equal(n_told, 0);
        assert_int_equal(handoff_push(&handoff, &elements[6].node, 1, NULL), -EAGAIN);
        handoff_cancel(&handoff, &two);
        handoff_cancel(&handoff, &two);
        assert_int_equal(pop_number(&handoff), 2);
        assert_int_equal(n_told, 1);
        assert_int_equal(handoff_push(&handoff, &elements[4].node, 1, &one), 0);
        assert_int_equal(pop_number(&handoff), 3);
        assert_int_equal(pop_number(&handoff), 4);
        assert_int_equal(n_told, 1);
        handoff_counters(&handoff, &counters);
        assert_int_equal(counters.parked, 4);
        assert_int_equal(counters.full, 1);
        assert_int_equal(counters.dropped + n_destroyed, 0);
        handoff_deinit(&handoff);
}

/* One that does not fit between the marks gets in when nothing is left, and nobody hangs meanwhile. */
static void test_park_by_bytes(void **state) {
        HandoffWaiter waiter = HANDOFF_WAITER_NULL(ready);
        Element elements[4];
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 4);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_PARK, .max_bytes = 100 });
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 101, &waiter), -EMSGSIZE);
        assert_int_equal(handoff_push(&handoff, &elements[0].node, SIZE_MAX, &waiter), -EMSGSIZE);
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 10, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[1].node, 10, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[2].node, 100, &waiter), -EAGAIN);
        assert_int_equal(pop_number(&handoff), 0);
        assert_int_equal(n_told, 1);
        assert_int_equal(handoff_push(&handoff, &elements[2].node, 100, &waiter), -EAGAIN);
        assert_int_equal(pop_number(&handoff), 1);
        assert_int_equal(n_told, 2);
        assert_int_equal(handoff_push(&handoff, &elements[2].node, 100, &waiter), 0);
        assert_int_equal(pop_number(&handoff), 2);
        handoff_deinit(&handoff);
}

static void test_held_room(void **state) {
        HandoffNode *first, *second;
        HandoffCounters counters;
        Element elements[4];
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 4);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_DROP, .max_count = 2 });
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 5, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[1].node, 6, NULL), 0);
        first = handoff_take(&handoff);
        second = handoff_take(&handoff);
        assert_null(handoff_take(&handoff));
        assert_int_equal(handoff_push(&handoff, &elements[2].node, 1, NULL), HANDOFF_DROPPED);
        handoff_counters(&handoff, &counters);
        assert_int_equal(counters.count, 2);
        assert_int_equal(counters.bytes, 11);
        handoff_release(&handoff, second);
        assert_int_equal(handoff_push(&handoff, &elements[3].node, 1, NULL), 0);
        assert_int_equal(n_woken, 2);
        handoff_release(&handoff, first);
        handoff_deinit(&handoff);
        assert_int_equal(elements[3].destroyed, 1);
        assert_int_equal(n_destroyed, 2);
}

static void test_close(void **state) {
        HandoffWaiter waiter = HANDOFF_WAITER_NULL(ready);
        Element elements[2];
        Handoff handoff;

        (void) state;
        fill_numbers(elements, 2);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_PARK, .max_count = 1 });
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 1, NULL), 0);
        assert_int_equal(handoff_push(&handoff, &elements[1].node, 1, &waiter), -EAGAIN);
        handoff_close(&handoff);
        assert_int_equal(n_told, 1);
        assert_int_equal(handoff_push(&handoff, &elements[1].node, 1, &waiter), -ESHUTDOWN);
        assert_int_equal(handoff_push_wait(&handoff, &elements[1].node, 1, USEC_INFINITY), -ESHUTDOWN);
        assert_false(waiter.waiting);
        assert_int_equal(pop_number(&handoff), 0);
        assert_null(handoff_pop(&handoff));
        handoff_deinit(&handoff);
        assert_int_equal(n_destroyed, 0);
}

static void test_time_limit(void **state) {
        Element elements[2];
        Handoff handoff;
        uint64_t begin;

        (void) state;
        fill_numbers(elements, 2);
        set_up(&handoff, (HandoffConfig){ .policy = HANDOFF_PARK, .max_count = 1 });
        assert_int_equal(handoff_push(&handoff, &elements[0].node, 1, NULL), 0);
        assert_int_equal(handoff_push_wait(&handoff, &elements[1].node, 1, 0), -ETIMEDOUT);
        begin = clock_now();
        assert_int_equal(handoff_push_wait(&handoff, &elements[1].node, 1, begin + 20000), -ETIMEDOUT);
        assert_true(clock_now() >= begin + 20000);
        assert_int_equal(pop_number(&handoff), 0);
        assert_int_equal(handoff_push_wait(&handoff, &elements[1].node, 1, 0), 0);
        handoff_deinit(&handoff);
        assert_int_equal(elements[1].destroyed, 1);
}

/* ---- threads ---- */

#define PRODUCERS 4
#define PER_EACH  5000u

typedef struct Crowd {
        Handoff handoff;
        int event;
        Element elements[PRODUCERS][PER_EACH];
        atomic_uint accepted, dropped, refused, finished;
        bool wait;
} Crowd;

typedef struct Producer {
        Crowd *crowd;
        unsigned index;
} Producer;

static Crowd crowd;

static void signal_event(void *userdata) {
        uint64_t one = 1;

        if (write(((Crowd *) userdata)->event, &one, sizeof(one)) != sizeof(one))
                abort();
}

static void crowd_destroy(HandoffNode *node) {
        CONTAINER_OF(node, Element, node)->destroyed++;
}

static void crowd_init(HandoffConfig config) {
        memset(&crowd, 0, sizeof(crowd));
        crowd.event = eventfd(0, EFD_CLOEXEC);
        config.destroy = crowd_destroy;
        config.wake = signal_event;
        config.userdata = &crowd;
        assert_int_equal(handoff_init(&crowd.handoff, &config), 0);
}

static void *produce(void *argument) {
        Producer *producer = argument;
        Crowd *c = producer->crowd;

        for (unsigned i = 0; i < PER_EACH; i++) {
                Element *element = &c->elements[producer->index][i];
                int r;

                element->producer = producer->index;
                element->number = i;
                r = handoff_push_wait(&c->handoff, &element->node, 1 + i % 7, USEC_INFINITY);
                if (r == 0)
                        atomic_fetch_add(&c->accepted, 1);
                else
                        atomic_fetch_add(r == HANDOFF_DROPPED ? &c->dropped : &c->refused, 1);
        }
        atomic_fetch_add(&c->finished, 1);
        signal_event(c);
        return NULL;
}

static void start(pthread_t *threads, Producer *producers) {
        for (unsigned i = 0; i < PRODUCERS; i++) {
                producers[i] = (Producer){ &crowd, i };
                assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
        }
}

static void join(pthread_t *threads) {
        for (unsigned i = 0; i < PRODUCERS; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* consume() - waits by the eventfd alone, so that a lost edge hangs; in order per producer. Returns how many. */
static unsigned consume(unsigned limit, uint64_t *ret_gaps) {
        unsigned next[PRODUCERS] = { 0 }, n = 0;
        uint64_t count;
        HandoffNode *node;
        bool last = false;

        while (n < limit && !last) {
                assert_int_equal(read(crowd.event, &count, sizeof(count)), sizeof(count));
                last = atomic_load(&crowd.finished) == PRODUCERS;
                while (n < limit && (node = handoff_pop(&crowd.handoff))) {
                        Element *element = CONTAINER_OF(node, Element, node);

                        assert_true(element->number >= next[element->producer]);
                        next[element->producer] = element->number + 1;
                        *ret_gaps += node->gap;
                        n++;
                }
        }
        return n;
}

static void crowd_run(HandoffPolicy policy) {
        pthread_t threads[PRODUCERS];
        Producer producers[PRODUCERS];
        HandoffCounters counters;
        uint64_t gaps = 0;
        unsigned n;

        crowd_init((HandoffConfig){ .policy = policy, .max_count = 50, .max_bytes = 100 });
        start(threads, producers);
        n = consume(UINT32_MAX, &gaps);
        join(threads);
        handoff_counters(&crowd.handoff, &counters);
        assert_int_equal(n, crowd.accepted);
        assert_int_equal(counters.in, n);
        assert_int_equal(counters.out, n);
        assert_int_equal(n + crowd.dropped, PRODUCERS * PER_EACH);
        assert_int_equal(counters.dropped, crowd.dropped);
        assert_int_equal(gaps + handoff_take_gap(&crowd.handoff), crowd.dropped);
        assert_true(counters.peak_count <= 50 && counters.peak_bytes <= 100);
        assert_int_equal(counters.count + counters.bytes, 0);
        if (policy == HANDOFF_PARK)
                assert_int_equal(crowd.dropped, 0);
        handoff_deinit(&crowd.handoff);
        fd_close(crowd.event);
}

static void test_many_park(void **state) {
        (void) state;
        crowd_run(HANDOFF_PARK);
}

static void test_many_drop(void **state) {
        (void) state;
        crowd_run(HANDOFF_DROP);
}

/* Everyone sleeps in a full queue; closing it lets all go, and nothing is lost twice. */
static void test_close_wakes_threads(void **state) {
        pthread_t threads[PRODUCERS];
        Producer producers[PRODUCERS];
        HandoffCounters counters;
        uint64_t gaps = 0;
        unsigned n;

        (void) state;
        crowd_init((HandoffConfig){ .policy = HANDOFF_PARK, .max_count = 8 });
        start(threads, producers);
        n = consume(100, &gaps);
        handoff_close(&crowd.handoff);
        join(threads);
        while (handoff_pop(&crowd.handoff))
                n++;
        handoff_counters(&crowd.handoff, &counters);
        assert_int_equal(n, crowd.accepted);
        assert_int_equal(n + crowd.refused, PRODUCERS * PER_EACH);
        assert_int_equal(counters.in, n);
        handoff_deinit(&crowd.handoff);
        fd_close(crowd.event);
}

/* ---- producers that do not block, in a thread of their own ---- */

typedef struct Poller {
        HandoffWaiter waiter;
        int event;
} Poller;

static void poller_ready(HandoffWaiter *waiter) {
        uint64_t one = 1;

        if (write(CONTAINER_OF(waiter, Poller, waiter)->event, &one, sizeof(one)) != sizeof(one))
                abort();
}

static void *produce_polling(void *argument) {
        Poller *poller = argument;

        for (unsigned i = 0; i < PER_EACH; i++) {
                Element *element = &crowd.elements[0][i];
                uint64_t count;

                element->number = i;
                while (handoff_push(&crowd.handoff, &element->node, 1, &poller->waiter) == -EAGAIN)
                        if (read(poller->event, &count, sizeof(count)) != sizeof(count))
                                abort();
        }
        atomic_fetch_add(&crowd.finished, PRODUCERS);
        signal_event(&crowd);
        return NULL;
}

static void test_polling_producer(void **state) {
        Poller poller = { .waiter = HANDOFF_WAITER_NULL(poller_ready), .event = eventfd(0, EFD_CLOEXEC) };
        uint64_t gaps = 0;
        pthread_t thread;

        (void) state;
        crowd_init((HandoffConfig){ .policy = HANDOFF_PARK, .max_count = 16 });
        assert_int_equal(pthread_create(&thread, NULL, produce_polling, &poller), 0);
        assert_int_equal(consume(UINT32_MAX, &gaps), PER_EACH);
        assert_int_equal(pthread_join(thread, NULL), 0);
        handoff_cancel(&crowd.handoff, &poller.waiter);
        handoff_deinit(&crowd.handoff);
        fd_close(poller.event);
        fd_close(crowd.event);
}

static const struct CMUnitTest tests[] = {
        TEST(test_configuration),
        TEST(test_order_and_edges),
        TEST(test_drop_tells_gaps),
        TEST(test_park_has_two_marks),
        TEST(test_park_by_bytes),
        TEST(test_held_room),
        TEST(test_close),
        TEST(test_time_limit),
        TEST_SLOW(test_many_park, 30),
        TEST_SLOW(test_many_drop, 30),
        TEST(test_close_wakes_threads),
        TEST_SLOW(test_polling_producer, 30),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Events: the ring held against a list of everything that was published, with records of every size, round and round;
 * numbers without gaps; texts cut between characters; who waits is woken once, from the loop; no memory costs events, not
 * more.
 */

#include "supervisor/events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/seam.h"
#include "tests/test.h"

/* publish() - an event whose content follows from its number. */
static void publish(Events *events, unsigned n) {
        char name[80], text[300];
        Event event = { .kind = EVENT_RUNNER_STATE, .state = n % 8, .instance = n, .number = n * UINT64_C(3) };

        memset(name, 'a' + (int) (n % 26), sizeof(name));
        memset(text, 'A' + (int) (n % 26), sizeof(text));
        name[n % 64] = '\0';
        text[n * 7 % 241] = '\0';
        event.runner = n % 5 ? name : NULL;
        event.text = n % 3 ? text : NULL;
        events_publish(events, &event);
}

static void check(const Event *event, uint64_t seq) {
        unsigned n = (unsigned) seq;

        assert_int_equal(event->seq, seq);
        assert_int_equal(event->instance, n);
        assert_int_equal(event->number, n * UINT64_C(3));
        assert_int_equal(event->state, n % 8);
        assert_true(!event->runner == !(n % 5));
        assert_true(!event->text == !(n % 3));
        if (event->runner) {
                assert_int_equal(strlen(event->runner), n % 64);
                assert_true(n % 64 == 0 || event->runner[0] == 'a' + (char) (n % 26));
        }
        if (event->text)
                assert_int_equal(strlen(event->text), n * 7 % 241);
}

static void test_round_and_round(void **state) {
        enum { N = 20000 };
        Events *events;
        Event event;

        (void) state;
        assert_int_equal(events_new(&events, NULL), 0);
        assert_false(events_find(events, 0, &event));
        assert_int_equal(events_first_seq(events), events_next_seq(events));
        for (unsigned i = 1; i <= N; i++) {
                publish(events, i);
                assert_int_equal(events_next_seq(events), i + 1);
                assert_false(events_find(events, i + 1, &event));
                assert_true(events_find(events, i, &event));
                check(&event, i);
                assert_true(events_find(events, 0, &event));
                check(&event, events_first_seq(events));
                if (i % 997 == 0 || i < 300)
                        for (uint64_t seq = events_first_seq(events); seq <= i; seq++) {
                                assert_true(events_find(events, seq, &event));
                                check(&event, seq);
                        }
        }
        assert_in_range(events_next_seq(events) - events_first_seq(events), 300, 1600);
        events_free(events);
}

static void test_small_ones_are_many(void **state) {
        const Event event = { .kind = EVENT_RUNNER_STATE, .runner = "web.1" };
        Events *events;

        (void) state;
        assert_int_equal(events_new(&events, NULL), 0);
        for (unsigned i = 0; i < 5000; i++)
                events_publish(events, &event);
        assert_in_range(events_next_seq(events) - events_first_seq(events), 1000, 2000);
        events_free(events);
}

static void test_text_is_cut_between_characters(void **state) {
        char text[EVENT_TEXT_MAX + 8];
        Event event = { .kind = EVENT_COMMAND, .text = text };
        Events *events;

        (void) state;
        memset(text, 'x', sizeof(text));
        memcpy(text + EVENT_TEXT_MAX - 1, "\xc3\xa4", 2); /* the bound is within it */
        text[sizeof(text) - 1] = '\0';
        assert_int_equal(events_new(&events, NULL), 0);
        events_publish(events, &event);
        assert_true(events_find(events, 1, &event));
        assert_int_equal(strlen(event.text), EVENT_TEXT_MAX - 1);
        events_free(events);
}

typedef struct Waiter {
        EventReader reader;
        Events *events;
        Loop *loop;
        unsigned n_calls, again;
} Waiter;

static void woken(EventReader *reader) {
        Waiter *waiter = CONTAINER_OF(reader, Waiter, reader);

        waiter->n_calls++;
        if (waiter->again > 0) {
                waiter->again--;
                events_wait(waiter->events, reader);
                events_publish(waiter->events, &(Event){ .kind = EVENT_COMMAND });
                return;
        }
        loop_stop(waiter->loop);
}

static void test_readers_are_woken(void **state) {
        Waiter waiters[3];
        Events *events;
        Loop *loop;

        (void) state;
        assert_int_equal(loop_new(&loop), 0);
        assert_int_equal(events_new(&events, loop), 0);
        for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
                waiters[i] = (Waiter){ EVENT_READER_NULL(woken), events, loop, 0, i == 0 ? 3 : 0 };
                events_wait(events, &waiters[i].reader);
                events_wait(events, &waiters[i].reader);
        }
        events_unwait(&waiters[2].reader);
        events_publish(events, &(Event){ .kind = EVENT_RUNNER_ADDED });
        assert_int_equal(waiters[0].n_calls, 0);
        loop_run(loop);
        loop_run(loop);
        assert_int_equal(waiters[0].n_calls, 4);
        assert_int_equal(waiters[1].n_calls, 1);
        assert_int_equal(waiters[2].n_calls, 0);
        events_wait(events, &waiters[2].reader);
        events = events_free(events);
        assert_null(waiters[2].reader.events);
        loop_free(loop);
}

static void test_without_memory(void **state) {
        Events *events;
        Event event;

        (void) state;
        events_publish(NULL, &(Event){ .kind = EVENT_COMMAND });
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(events_new(&events, NULL), -ENOMEM);
        seam_reset();
        assert_int_equal(events_new(&events, NULL), 0);
        seam_fail(SEAM_REALLOC, 1, ENOMEM);
        publish(events, 1);
        seam_reset();
        assert_false(events_find(events, 0, &event));
        for (unsigned i = 2; i < 200; i++) {
                /* It does not grow: what there is, is used. */
                if (i > 10)
                        seam_fail(SEAM_REALLOC, 1, ENOMEM);
                publish(events, i);
                seam_reset();
                assert_true(events_find(events, i, &event));
                check(&event, i);
        }
        assert_true(events_find(events, 0, &event));
        assert_in_range(event.seq, 100, 199);
        events_free(events);
}

/* What a predecessor has kept: with numbers missing in between and at the end. */
static void test_restored(void **state) {
        static const uint64_t kept[] = { 40, 44 };
        Events *events;
        Event event;

        (void) state;
        assert_int_equal(events_new(&events, NULL), 0);
        publish(events, 1);
        events_clear(events);
        assert_false(events_find(events, 0, &event));
        for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
                events_restore(events, &(Event){ .kind = EVENT_RUNNER_STATE,
                                                 .runner = "r",
                                                 .seq = kept[i],
                                                 .time_us = 7,
                                                 .monotonic_us = kept[i] });
        events_set_next(events, 50);
        assert_int_equal(events_first_seq(events), 40);
        assert_int_equal(events_next_seq(events), 50);
        for (uint64_t seq = 0; seq <= 44; seq++) {
                assert_true(events_find(events, seq, &event));
                assert_int_equal(event.seq, seq <= 40 ? 40 : 44);
                assert_int_equal(event.time_us, 7);
                assert_int_equal(event.monotonic_us, event.seq);
                assert_string_equal(event.runner, "r");
        }
        for (uint64_t seq = 45; seq <= 50; seq++)
                assert_false(events_find(events, seq, &event));
        publish(events, 50);
        for (uint64_t seq = 45; seq <= 50; seq++) {
                assert_true(events_find(events, seq, &event));
                check(&event, 50);
        }
        assert_false(events_find(events, 51, &event));
        (void) events_free(events);
}

static void test_names(void **state) {
        (void) state;
        for (unsigned i = 0; i < _EVENT_KIND_N; i++)
                assert_non_null(event_kind_name(i));
        assert_string_equal(event_kind_name(_EVENT_KIND_N), "unknown");
        assert_string_equal(event_kind_name(EVENT_COMMAND), "command");
}

static const struct CMUnitTest tests[] = {
        TEST(test_round_and_round),
        TEST(test_small_ones_are_many),
        TEST(test_text_is_cut_between_characters),
        TEST(test_readers_are_woken),
        TEST(test_without_memory),
        TEST(test_restored),
        TEST(test_names),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

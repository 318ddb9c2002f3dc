/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The policy table, every pair of state and event: what is listed leads where it says, everything else is refused and
 * changes nothing; the list is written once more here, on purpose. The judgement of an end, every combination of its facts
 * against the rules in words. Delays and the window of restarts by tables, their ends included.
 */

#include "supervisor/policy.h"

#include <errno.h>

#include "tests/seam.h"
#include "tests/test.h"

typedef struct Row {
        PolicyState state;
        PolicyEvent event;
        PolicyState next;
        PolicyAction action;
} Row;

#define ROW(_state, _event, _next, _action) \
        { POLICY_##_state, POLICY_EVENT_##_event, POLICY_##_next, POLICY_ACTION_##_action }

static const Row rows[] = {
        ROW(DOWN, START, WAITING, CONSIDER),
        ROW(DOWN, STOP, DOWN, SETTLE),
        ROW(DOWN, RESTART, WAITING, CONSIDER),
        ROW(DOWN, RESET, DOWN, FORGIVE),
        ROW(DOWN, UNMET, DOWN, NONE),
        ROW(DOWN, NEXT, SCHEDULED, SCHEDULE),
        ROW(SCHEDULED, START, WAITING, CONSIDER),
        ROW(SCHEDULED, STOP, DOWN, SETTLE),
        ROW(SCHEDULED, RESTART, WAITING, CONSIDER),
        ROW(SCHEDULED, RESET, SCHEDULED, FORGIVE),
        ROW(SCHEDULED, UNMET, SCHEDULED, NONE),
        ROW(SCHEDULED, TIME, WAITING, CONSIDER),
        ROW(SCHEDULED, NEXT, SCHEDULED, SCHEDULE),
        ROW(WAITING, START, WAITING, CONSIDER),
        ROW(WAITING, STOP, DOWN, SETTLE),
        ROW(WAITING, RESTART, WAITING, CONSIDER),
        ROW(WAITING, RESET, WAITING, FORGIVE),
        ROW(WAITING, SATISFIED, STARTING, SPAWN),
        ROW(WAITING, UNMET, FAILED, SETTLE),
        ROW(STARTING, START, STARTING, NONE),
        ROW(STARTING, STOP, STOPPING, RELEASE),
        ROW(STARTING, RESTART, STOPPING, RELEASE),
        ROW(STARTING, RESET, STARTING, FORGIVE),
        ROW(STARTING, UNMET, STOPPING, RELEASE),
        ROW(STARTING, READY, UP, ANNOUNCE),
        ROW(STARTING, ENDED, DOWN, SETTLE),
        ROW(STARTING, AGAIN, WAITING, CONSIDER),
        ROW(STARTING, RETRY, BACKOFF, DELAY),
        ROW(STARTING, COMPLETED, DONE, SETTLE),
        ROW(STARTING, NEXT, SCHEDULED, SCHEDULE),
        ROW(STARTING, GIVE_UP, FAILED, SETTLE),
        ROW(UP, START, UP, NONE),
        ROW(UP, STOP, STOPPING, RELEASE),
        ROW(UP, RESTART, STOPPING, RELEASE),
        ROW(UP, RESET, UP, FORGIVE),
        ROW(UP, UNMET, STOPPING, RELEASE),
        ROW(UP, ENDED, DOWN, SETTLE),
        ROW(UP, AGAIN, WAITING, CONSIDER),
        ROW(UP, RETRY, BACKOFF, DELAY),
        ROW(UP, COMPLETED, DONE, SETTLE),
        ROW(UP, NEXT, SCHEDULED, SCHEDULE),
        ROW(UP, GIVE_UP, FAILED, SETTLE),
        ROW(STOPPING, START, STOPPING, NONE),
        ROW(STOPPING, STOP, STOPPING, RELEASE),
        ROW(STOPPING, RESTART, STOPPING, NONE),
        ROW(STOPPING, RESET, STOPPING, FORGIVE),
        ROW(STOPPING, UNMET, STOPPING, NONE),
        ROW(STOPPING, FREE, STOPPING, STOP),
        ROW(STOPPING, READY, STOPPING, NONE),
        ROW(STOPPING, ENDED, DOWN, SETTLE),
        ROW(STOPPING, AGAIN, WAITING, CONSIDER),
        ROW(STOPPING, RETRY, BACKOFF, DELAY),
        ROW(STOPPING, COMPLETED, DONE, SETTLE),
        ROW(STOPPING, NEXT, SCHEDULED, SCHEDULE),
        ROW(STOPPING, GIVE_UP, FAILED, SETTLE),
        ROW(BACKOFF, START, WAITING, CONSIDER),
        ROW(BACKOFF, STOP, DOWN, SETTLE),
        ROW(BACKOFF, RESTART, WAITING, CONSIDER),
        ROW(BACKOFF, RESET, BACKOFF, REVIVE),
        ROW(BACKOFF, UNMET, FAILED, SETTLE),
        ROW(BACKOFF, TIME, WAITING, CONSIDER),
        ROW(FAILED, START, WAITING, CONSIDER),
        ROW(FAILED, STOP, DOWN, SETTLE),
        ROW(FAILED, RESTART, WAITING, CONSIDER),
        ROW(FAILED, RESET, DOWN, REVIVE),
        ROW(FAILED, UNMET, FAILED, NONE),
        ROW(DONE, START, WAITING, CONSIDER),
        ROW(DONE, STOP, DOWN, SETTLE),
        ROW(DONE, RESTART, WAITING, CONSIDER),
        ROW(DONE, RESET, DONE, FORGIVE),
        ROW(DONE, UNMET, DONE, NONE),
        ROW(DONE, NEXT, SCHEDULED, SCHEDULE),
};

static const Row *row_of(PolicyState state, PolicyEvent event) {
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (rows[i].state == state && rows[i].event == event)
                        return &rows[i];
        return NULL;
}

static void test_every_pair(void **state) {
        (void) state;
        for (unsigned s = 0; s < _POLICY_STATE_N; s++)
                for (unsigned e = 0; e < _POLICY_EVENT_N; e++) {
                        const Row *row = row_of(s, e);
                        PolicyState next = _POLICY_STATE_N;
                        PolicyAction action = _POLICY_ACTION_N;
                        int r = policy_next(s, e, &next, &action);

                        assert_int_equal(r, row ? 0 : -EINVAL);
                        assert_int_equal(next, row ? row->next : _POLICY_STATE_N);
                        assert_int_equal(action, row ? row->action : _POLICY_ACTION_N);
                }
}

/* One way to a process, and no way out of one but its end. */
static void test_rules(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                bool has_process = rows[i].state == POLICY_STARTING || rows[i].state == POLICY_UP ||
                                   rows[i].state == POLICY_STOPPING;
                bool will_have = rows[i].next == POLICY_STARTING || rows[i].next == POLICY_UP ||
                                 rows[i].next == POLICY_STOPPING;

                if (rows[i].action == POLICY_ACTION_SPAWN)
                        assert_int_equal(rows[i].state, POLICY_WAITING);
                if (has_process && !will_have)
                        assert_in_range(rows[i].event, POLICY_EVENT_ENDED, POLICY_EVENT_GIVE_UP);
                if (!has_process && will_have)
                        assert_int_equal(rows[i].event, POLICY_EVENT_SATISFIED);
                if (has_process)
                        assert_int_not_equal(rows[i].action, POLICY_ACTION_SPAWN);
        }
}

static void test_names(void **state) {
        (void) state;
        for (unsigned i = 0; i < _POLICY_STATE_N; i++)
                assert_non_null(policy_state_name(i));
        for (unsigned i = 0; i < _POLICY_EVENT_N; i++)
                assert_non_null(policy_event_name(i));
        for (unsigned i = 0; i < _POLICY_ACTION_N; i++)
                assert_non_null(policy_action_name(i));
        assert_string_equal(restart_policy_name(RESTART_ON_FAILURE), "on-failure");
}

/* ---- the judgement ---- */

/* The rules as they would be told, the first that fits. */
static PolicyEvent by_the_rules(const PolicyEnd *e) {
        bool comes_back;

        if (e->desired == DESIRED_DOWN)
                return POLICY_EVENT_ENDED;
        if (e->unmet)
                return POLICY_EVENT_GIVE_UP;
        if (e->stopped) /* and wanted up: a restart */
                return POLICY_EVENT_AGAIN;
        switch (e->restart) {
        case RESTART_ALWAYS:
                comes_back = !e->oneshot || !e->succeeded;
                break;
        case RESTART_ON_FAILURE:
                comes_back = !e->succeeded;
                break;
        default:
                comes_back = false;
        }
        if (comes_back)
                return !e->exhausted ? POLICY_EVENT_RETRY : e->scheduled ? POLICY_EVENT_NEXT : POLICY_EVENT_GIVE_UP;
        if (e->scheduled)
                return POLICY_EVENT_NEXT;
        return e->succeeded ? POLICY_EVENT_COMPLETED : POLICY_EVENT_GIVE_UP;
}

static void test_judge(void **state) {
        (void) state;
        for (unsigned restart = 0; restart < _RESTART_N; restart++)
                for (unsigned bits = 0; bits < 128; bits++) {
                        const PolicyEnd end = {
                                .desired = bits & 1 ? DESIRED_UP : DESIRED_DOWN,
                                .unmet = bits & 2,
                                .stopped = bits & 4,
                                .succeeded = bits & 8,
                                .oneshot = bits & 16,
                                .scheduled = bits & 32,
                                .exhausted = bits & 64,
                                .restart = restart,
                        };

                        assert_int_equal(policy_judge(&end), by_the_rules(&end));
                }
}

/* ---- delays ---- */

static void test_delay(void **state) {
        static const struct {
                PolicyBackoff backoff;
                unsigned n;
                uint32_t random;
                uint64_t delay;
        } table[] = {
                { { 0, 0, 200, 0 }, 5, 0, 0 },
                { { 0, 1000, 200, 50 }, 5, UINT32_MAX, 0 },
                { { 100, 10000, 200, 0 }, 0, 7, 100 },
                { { 100, 10000, 200, 0 }, 1, 7, 200 },
                { { 100, 10000, 200, 0 }, 6, 7, 6400 },
                { { 100, 10000, 200, 0 }, 7, 7, 10000 },
                { { 100, 10000, 200, 0 }, UINT32_MAX, 7, 10000 },
                { { 100, 10000, 100, 0 }, UINT32_MAX, 7, 100 }, /* no growth */
                { { 100, 10000, 0, 0 }, 3, 7, 100 },            /* never less */
                { { 1, 10, 150, 0 }, 1, 0, 2 },                 /* it grows, however small */
                { { 500, 100, 200, 0 }, 0, 0, 100 },            /* the maximum holds for the first */
                { { 1000, 1000, 200, 50 }, 0, 0, 1000 },
                { { 1000, 1000, 200, 50 }, 0, UINT32_MAX, 501 },
                { { 1000, 1000, 200, 50 }, 0, 1u << 31, 750 },
                { { 1000, 1000, 200, 100 }, 0, UINT32_MAX, 1 },
                { { 1000, 1000, 200, 4000 }, 0, UINT32_MAX, 1 },
                { { UINT64_MAX / 2, UINT64_MAX, 1000, 0 }, 9, 0, UINT64_MAX },
                { { UINT64_MAX, UINT64_MAX, 1000, 100 }, 9, UINT32_MAX, UINT64_MAX >> 32 | 1 },
        };

        (void) state;
        for (size_t i = 0; i + 1 < ARRAY_SIZE(table); i++)
                assert_int_equal(policy_delay(&table[i].backoff, table[i].n, table[i].random), table[i].delay);
        /* The last: nothing wraps, whatever is left. */
        assert_true(policy_delay(&table[ARRAY_SIZE(table) - 1].backoff, 9, UINT32_MAX) <= UINT64_MAX >> 31);
}

/* ---- the window ---- */

static void test_window(void **state) {
        PolicyWindow window = { 0 };

        (void) state;
        for (unsigned i = 0; i < 1000; i++)
                assert_false(policy_window_add(&window, 0, 10, 5)); /* no limit */
        assert_null(window.times);

        /* Three within ten: the fourth is too many, until the first is ten old. */
        assert_false(policy_window_add(&window, 3, 10, 100));
        assert_false(policy_window_add(&window, 3, 10, 101));
        assert_false(policy_window_add(&window, 3, 10, 109));
        assert_true(policy_window_add(&window, 3, 10, 109));
        assert_false(policy_window_add(&window, 3, 10, 110));
        assert_true(policy_window_add(&window, 3, 10, 110));
        assert_false(policy_window_add(&window, 3, 10, 111));
        assert_true(policy_window_add(&window, 3, 10, 118));

        /* Another limit begins anew; a reset does, too. */
        assert_false(policy_window_add(&window, 1, 10, 118));
        assert_true(policy_window_add(&window, 1, 10, 118));
        policy_window_reset(&window);
        assert_false(policy_window_add(&window, 1, 10, 118));

        /* A steady rate below the limit never reaches it. */
        policy_window_reset(&window);
        for (uint64_t now = 0; now < 10000; now += 4)
                assert_false(policy_window_add(&window, 3, 10, now));
        policy_window_reset(&window);
        assert_null(window.times);
}

static int add_one(void *argument) {
        (void) argument;
        PolicyWindow window = { 0 };
        bool exceeded =
                policy_window_add(&window, 1, 10, 1) || (window.times && !policy_window_add(&window, 1, 10, 1));
        bool counted = window.times;

        assert_false(exceeded);
        policy_window_reset(&window);
        return counted ? 0 : -ENOMEM;
}

static void test_window_without_memory(void **state) {
        (void) state;
        assert_int_equal(seam_each(SEAM_CALLOC, ENOMEM, add_one, NULL, -ENOMEM), 1);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_pair),
        TEST(test_rules),
        TEST(test_names),
        TEST(test_judge),
        TEST(test_delay),
        TEST(test_window),
        TEST(test_window_without_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

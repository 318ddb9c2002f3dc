/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The process table, every pair of state and event: what is listed leads where it says, everything else is refused and
 * changes nothing. The list is written once more here, on purpose: a change of the table must be meant.
 */

#include "supervisor/process.h"

#include <errno.h>

#include "tests/test.h"

typedef struct Row {
        ProcessState state;
        ProcessEvent event;
        ProcessState next;
        ProcessAction action;
} Row;

#define ROW(_state, _event, _next, _action) \
        { PROCESS_##_state, PROCESS_EVENT_##_event, PROCESS_##_next, PROCESS_ACTION_##_action }

static const Row rows[] = {
        ROW(DOWN, START, STARTING, SPAWN),
        ROW(DOWN, LOST, DOWN, NONE),
        ROW(STARTING, FAILED, DOWN, ABANDON),
        ROW(STARTING, DOOMED, STOPPING, KILL),
        ROW(STARTING, READY, UP, ANNOUNCE),
        ROW(STARTING, LOST, STOPPING, LEAVE),
        ROW(STARTING, STOP, STOPPING, ASK),
        ROW(STARTING, TIMEOUT, STOPPING, KILL),
        ROW(STARTING, EXITED, DOWN, BURY),
        ROW(UP, DOOMED, STOPPING, KILL),
        ROW(UP, LOST, STOPPING, LEAVE),
        ROW(UP, STOP, STOPPING, ASK),
        ROW(UP, EXITED, DOWN, BURY),
        ROW(STOPPING, DOOMED, STOPPING, NONE),
        ROW(STOPPING, LOST, STOPPING, NONE),
        ROW(STOPPING, STOP, STOPPING, NONE),
        ROW(STOPPING, TIMEOUT, STOPPING, ESCALATE),
        ROW(STOPPING, EXITED, DOWN, BURY),
};

static const Row *row_of(ProcessState state, ProcessEvent event) {
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (rows[i].state == state && rows[i].event == event)
                        return &rows[i];
        return NULL;
}

static void test_every_pair(void **state) {
        (void) state;
        for (unsigned s = 0; s < _PROCESS_STATE_N; s++)
                for (unsigned e = 0; e < _PROCESS_EVENT_N; e++) {
                        const Row *row = row_of(s, e);
                        ProcessState next = _PROCESS_STATE_N;
                        ProcessAction action = _PROCESS_ACTION_N;
                        int r = process_next(s, e, &next, &action);

                        if (row) {
                                assert_int_equal(r, 0);
                                assert_int_equal(next, row->next);
                                assert_int_equal(action, row->action);
                        } else {
                                assert_int_equal(r, -EINVAL);
                                assert_int_equal(next, _PROCESS_STATE_N);
                                assert_int_equal(action, _PROCESS_ACTION_N);
                        }
                }
}

/* Whatever happens in any state that has a process, an exit brings it down, and nothing else does once there is a child. */
static void test_exit_alone_leads_down(void **state) {
        (void) state;
        for (unsigned s = 0; s < _PROCESS_STATE_N; s++)
                for (unsigned e = 0; e < _PROCESS_EVENT_N; e++) {
                        ProcessState next;
                        ProcessAction action;

                        if (s == PROCESS_DOWN || process_next(s, e, &next, &action) < 0)
                                continue;
                        if (next == PROCESS_DOWN)
                                assert_true(e == PROCESS_EVENT_EXITED || e == PROCESS_EVENT_FAILED);
                        if (e == PROCESS_EVENT_EXITED)
                                assert_int_equal(action, PROCESS_ACTION_BURY);
                }
}

static void test_names(void **state) {
        (void) state;
        for (unsigned i = 0; i < _PROCESS_STATE_N; i++)
                assert_non_null(process_state_name(i));
        for (unsigned i = 0; i < _PROCESS_EVENT_N; i++)
                assert_non_null(process_event_name(i));
        for (unsigned i = 0; i < _PROCESS_ACTION_N; i++)
                assert_non_null(process_action_name(i));
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_pair),
        TEST(test_exit_alone_leads_down),
        TEST(test_names),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

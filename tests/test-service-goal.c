/* SPDX-License-Identifier: Apache-2.0 */

/* The goals of a service: from each state by events of the table, and no others. */

#include "supervisor/service.h"

#include <errno.h>

#include "tests/test.h"

/* walk() - the events from @state to @goal as their initials; '!' where one is refused, and which. */
static void walk(ServiceGoal goal, ServiceState state, char text[16]) {
        ServiceEvent event;
        ServiceAction action;
        unsigned n = 0;
        int r;

        while ((r = service_goal_next(goal, state, n, &event)) > 0) {
                ServiceState next = SERVICE_STATE_UNKNOWN;

                assert_int_equal(service_next(state, event, &next, &action),
                                 0); /* never one that the table does not have */
                text[n++] = service_event_name(event)[0] == 'S' ? service_event_name(event)[2]
                                                                : service_event_name(event)[0];
                state = next;
                assert_true(n <= SERVICE_SENT_MAX);
        }
        if (r < 0) {
                assert_int_equal(r, -EPERM);
                text[n++] = '!';
        }
        text[n] = '\0';
}

/* Mount, Takeover, stArt, stOp, Exit. */
static void each_goal_from_each_state(void **state) {
        static const struct {
                ServiceGoal goal;
                const char *init, *ready, *running, *stopped, *unknown;
        } rows[] = {
                { SERVICE_GOAL_MOUNT, "M", "!", "!", "!", "!" },    { SERVICE_GOAL_START, "!", "a", "!", "!", "!" },
                { SERVICE_GOAL_TAKEOVER, "T", "!", "!", "!", "!" }, { SERVICE_GOAL_STOP, "o", "o", "oo", "", "!" },
                { SERVICE_GOAL_EXIT, "o", "E", "oE", "", "!" },     { SERVICE_GOAL_SERVE, "Ma", "a", "", "!", "!" },
                { SERVICE_GOAL_INFO, "", "", "", "", "" },          { SERVICE_GOAL_HANDOVER, "!", "!", "o", "!", "!" },
                { SERVICE_GOAL_FAILOVER, "Ta", "a", "", "!", "!" },
        };
        char text[16];

        (void) state;
        assert_int_equal(ARRAY_SIZE(rows), _SERVICE_GOAL_N);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                walk(rows[i].goal, SERVICE_STATE_INIT, text);
                assert_string_equal(text, rows[i].init);
                walk(rows[i].goal, SERVICE_STATE_READY, text);
                assert_string_equal(text, rows[i].ready);
                walk(rows[i].goal, SERVICE_STATE_RUNNING, text);
                assert_string_equal(text, rows[i].running);
                walk(rows[i].goal, SERVICE_STATE_STOPPED, text);
                assert_string_equal(text, rows[i].stopped);
                walk(rows[i].goal, SERVICE_STATE_UNKNOWN, text);
                assert_string_equal(text, rows[i].unknown);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(each_goal_from_each_state),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The service table, every pair of state and event: the seven that are allowed, written down here a second time, and
 * the refusal of all others.
 */

#include "proto/service.h"

#include <errno.h>

#include "tests/test.h"

static const struct {
        ServiceState state;
        ServiceEvent event;
        ServiceState next;
        ServiceAction action;
} allowed[] = {
        { 1, SERVICE_EVENT_MOUNT, 3, SERVICE_ACTION_LOAD },
        { 1, SERVICE_EVENT_TAKEOVER, 3, SERVICE_ACTION_RESTORE },
        { 1, SERVICE_EVENT_STOP, 4, SERVICE_ACTION_NONE },
        { 3, SERVICE_EVENT_START, 2, SERVICE_ACTION_START },
        { 3, SERVICE_EVENT_STOP, 4, SERVICE_ACTION_UNMOUNT },
        { 3, SERVICE_EVENT_EXIT, 4, SERVICE_ACTION_NONE },
        { 2, SERVICE_EVENT_STOP, 3, SERVICE_ACTION_TERMINATE },
};

static void check_pair(unsigned state, unsigned event) {
        ServiceState next = _SERVICE_STATE_N;
        ServiceAction action = _SERVICE_ACTION_N;
        int r = service_next(state, event, &next, &action);

        for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
                if (allowed[i].state != state || allowed[i].event != event)
                        continue;
                assert_int_equal(r, 0);
                assert_int_equal(next, allowed[i].next);
                assert_int_equal(action, allowed[i].action);
                return;
        }
        assert_int_equal(r, -EPERM);
        assert_int_equal(next, _SERVICE_STATE_N);
        assert_int_equal(action, _SERVICE_ACTION_N);
}

static void test_every_pair(void **state) {
        unsigned n = 0;

        (void) state;
        for (unsigned s = 0; s <= _SERVICE_STATE_N; s++)
                for (unsigned e = 0; e <= _SERVICE_EVENT_N; e++, n++)
                        check_pair(s, e);
        assert_int_equal(n, 7 * 6);
}

static void test_names(void **state) {
        (void) state;
        assert_string_equal(service_state_name(SERVICE_STATE_RUNNING), "RUNNING");
        assert_string_equal(service_state_name((ServiceState) 77), "UNKNOWN");
        assert_string_equal(service_event_name(SERVICE_EVENT_TAKEOVER), "Takeover");
        assert_string_equal(service_event_name((ServiceEvent) 77), "unknown event");
        for (unsigned s = 0; s < _SERVICE_STATE_N; s++)
                assert_non_null(service_state_name(s));
        for (unsigned e = 0; e < _SERVICE_EVENT_N; e++)
                assert_non_null(service_event_name(e));
}

static void test_wire(void **state) {
        (void) state;
        assert_int_equal(service_state_from_wire(2), SERVICE_STATE_RUNNING);
        assert_int_equal(service_state_from_wire(5), SERVICE_STATE_UNKNOWN);
        assert_int_equal(service_state_from_wire(6), SERVICE_STATE_UNKNOWN);
        assert_int_equal(service_state_from_wire(UINT32_MAX), SERVICE_STATE_UNKNOWN);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_pair),
        TEST(test_names),
        TEST(test_wire),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

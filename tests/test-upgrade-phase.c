/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The table of an upgrade, every pair: what is listed leads where it says, all else is refused. And by walking it from its
 * beginning in every order of events: whoever has left it has exactly one process that serves, if one lives, and the
 * keeper's word is for that one.
 */

#include "supervisor/upgrade-phase.h"

#include <errno.h>
#include <stdbool.h>

#include "tests/test.h"

typedef struct Row {
        UpgradePhase phase;
        UpgradeEvent event;
        UpgradePhase next;
        UpgradeAction action;
} Row;

#define ROW(_phase, _event, _next, _action) \
        { UPGRADE_##_phase, UPGRADE_EVENT_##_event, UPGRADE_##_next, UPGRADE_ACTION_##_action }

static const Row rows[] = {
        ROW(STARTING, READY, CROSSING, CROSS),
        ROW(STARTING, FAILED, UNDOING, KILL_NEW),
        ROW(STARTING, NEW_GONE, RESUMING, RESUME),
        ROW(STARTING, OLD_GONE, UNDOING, KILL_NEW),
        ROW(CROSSING, DONE, COMMITTING, COMMIT),
        ROW(CROSSING, FAILED, UNDOING, KILL_NEW),
        ROW(CROSSING, NEW_GONE, RESUMING, RESUME),
        ROW(CROSSING, OLD_GONE, UNDOING, KILL_NEW),
        ROW(COMMITTING, DONE, BEGINNING, BEGIN),
        ROW(COMMITTING, FAILED, UNDOING, REVERT),
        ROW(COMMITTING, NEW_GONE, RESUMING, GO_BACK),
        ROW(COMMITTING, OLD_GONE, COMMITTING, NONE),
        ROW(BEGINNING, DONE, WATCHING, SWITCH),
        ROW(BEGINNING, FAILED, UNDOING, REVERT),
        ROW(BEGINNING, NEW_GONE, RESUMING, GO_BACK),
        ROW(BEGINNING, OLD_GONE, BEGINNING, NONE),
        ROW(WATCHING, DONE, OVER, FINISH),
        ROW(WATCHING, FAILED, OVER, RETURN),
        ROW(WATCHING, NEW_GONE, OVER, RETURN),
        ROW(WATCHING, OLD_GONE, WATCHING, NONE),
        ROW(UNDOING, DONE, UNDOING, NONE),
        ROW(UNDOING, FAILED, UNDOING, NONE),
        ROW(UNDOING, NEW_GONE, RESUMING, RESUME),
        ROW(UNDOING, OLD_GONE, UNDOING, NONE),
        ROW(RESUMING, DONE, OVER, FINISH),
        ROW(RESUMING, FAILED, RESUMING, KILL_OLD),
        ROW(RESUMING, OLD_GONE, OVER, FINISH),
};

static const Row *find(UpgradePhase phase, UpgradeEvent event) {
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (rows[i].phase == phase && rows[i].event == event)
                        return &rows[i];
        return NULL;
}

static void test_every_pair(void **state) {
        (void) state;
        for (unsigned phase = 0; phase < _UPGRADE_PHASE_N; phase++)
                for (unsigned event = 0; event < _UPGRADE_EVENT_N; event++) {
                        const Row *row = find(phase, event);
                        UpgradePhase next = _UPGRADE_PHASE_N;
                        UpgradeAction action = _UPGRADE_ACTION_N;

                        assert_int_equal(upgrade_next(phase, event, &next, &action), row ? 0 : -EINVAL);
                        assert_int_equal(next, row ? row->next : _UPGRADE_PHASE_N);
                        assert_int_equal(action, row ? row->action : _UPGRADE_ACTION_N);
                }
}

/* What there is, as the actions leave it. */
typedef struct World {
        UpgradePhase phase;
        bool old, new; /* they live */
        bool old_serves, new_serves;
        bool new_is_active;      /* the keeper's word */
        bool new_dies, old_dies; /* killed, and the end is on its way */
        bool step;               /* one is under way, and ends by DONE or FAILED */
} World;

static unsigned n_ends;

static void act(World *w, UpgradeAction action) {
        switch (action) {
        case UPGRADE_ACTION_CROSS:
                w->old_serves = false;
                w->step = true;
                break;
        case UPGRADE_ACTION_COMMIT:
                w->new_is_active = true;
                w->step = true;
                break;
        case UPGRADE_ACTION_BEGIN:
                w->step = true;
                break;
        case UPGRADE_ACTION_REVERT:
                w->new_is_active = w->new_is_active && !w->old;
                w->new_dies = w->new;
                w->step = false;
                break;
        case UPGRADE_ACTION_KILL_NEW:
                w->new_dies = w->new;
                w->step = false;
                break;
        case UPGRADE_ACTION_GO_BACK:
                w->new_is_active = w->new_is_active && !w->old;
                w->step = w->old;
                break;
        case UPGRADE_ACTION_RESUME:
                w->step = w->old;
                break;
        case UPGRADE_ACTION_SWITCH: /* the other one is no part of it any more */
                w->old = false;
                w->step = true;
                break;
        case UPGRADE_ACTION_KILL_OLD:
                w->old_dies = true;
                w->step = false;
                break;
        default:
                break;
        }
}

static void walk(World w, unsigned depth);

static void raise(World w, UpgradeEvent event, unsigned depth) {
        UpgradePhase before = w.phase;
        UpgradeAction action;

        if (event == UPGRADE_EVENT_DONE && before == UPGRADE_BEGINNING)
                w.new_serves = true;
        if (event == UPGRADE_EVENT_DONE && before == UPGRADE_RESUMING)
                w.old_serves = true;
        if (event == UPGRADE_EVENT_DONE || event == UPGRADE_EVENT_FAILED)
                w.step = false;
        if (event == UPGRADE_EVENT_NEW_GONE)
                w.new = w.new_serves = w.new_dies = false;
        if (event == UPGRADE_EVENT_OLD_GONE)
                w.old = w.old_serves = w.old_dies = false;
        if (upgrade_next(w.phase, event, &w.phase, &action) == 0)
                act(&w, action);
        walk(w, depth + 1);
}

static void walk(World w, unsigned depth) {
        assert_false(w.old_serves && w.new_serves);
        assert_true(depth < 16);
        if (w.phase == UPGRADE_OVER) {
                n_ends++;
                if (w.new)
                        assert_true(w.new_serves && w.new_is_active && !w.old_serves);
                else if (w.old)
                        assert_true(w.old_serves && !w.new_is_active);
                return;
        }
        if (w.phase == UPGRADE_STARTING && w.new)
                raise(w, UPGRADE_EVENT_READY, depth);
        if (w.phase == UPGRADE_STARTING || w.step)
                raise(w, UPGRADE_EVENT_FAILED, depth);
        if (w.step)
                raise(w, UPGRADE_EVENT_DONE, depth);
        if (w.new)
                raise(w, UPGRADE_EVENT_NEW_GONE, depth);
        if (w.old)
                raise(w, UPGRADE_EVENT_OLD_GONE, depth);
        /* Without a predecessor RESUME tells of its end at once, without a successor KILL_NEW does. */
        if (w.phase == UPGRADE_RESUMING && !w.old)
                raise(w, UPGRADE_EVENT_OLD_GONE, depth);
        if (w.phase == UPGRADE_UNDOING && !w.new)
                raise(w, UPGRADE_EVENT_NEW_GONE, depth);
}

static void test_every_order(void **state) {
        (void) state;
        walk((World){ .phase = UPGRADE_STARTING, .old = true, .new = true, .old_serves = true }, 0);
        assert_true(n_ends > 20);
}

static void test_names(void **state) {
        (void) state;
        for (unsigned i = 0; i < _UPGRADE_PHASE_N; i++)
                assert_non_null(upgrade_phase_name(i));
        for (unsigned i = 0; i < _UPGRADE_EVENT_N; i++)
                assert_non_null(upgrade_event_name(i));
        for (unsigned i = 0; i < _UPGRADE_ACTION_N; i++)
                assert_non_null(upgrade_action_name(i));
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_pair),
        TEST(test_every_order),
        TEST(test_names),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

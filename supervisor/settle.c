/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Settle: looks again whenever something has happened, from the first one that was not at rest. A runner is, when it waits
 * for nothing but the clock and is not being upgraded, or is not there any more.
 */

#include "supervisor/settle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/supervisor.h"

static bool is_settled(const Supervisor *supervisor, const char *name) {
        const Runner *runner = runner_find(supervisor, name);

        return !runner || (!runner->removed && !runner->upgrade && runner->events == 0 &&
                           runner_outcome(runner) != RUNNER_OUTCOME_PENDING);
}

static bool look(Settle *settle) {
        while (settle->n_settled < settle->n && is_settled(settle->supervisor, settle->names[settle->n_settled]))
                settle->n_settled++;
        return settle->n_settled == settle->n;
}

static void published(EventReader *reader) {
        Settle *settle = CONTAINER_OF(reader, Settle, reader);

        if (look(settle))
                settle->done(settle);
        else
                events_wait(settle->supervisor->events, reader);
}

void settle_init(Settle *settle, Supervisor *supervisor, void (*done)(Settle *settle)) {
        *settle = (Settle){ .reader = EVENT_READER_NULL(published), .supervisor = supervisor, .done = done };
}

void settle_deinit(Settle *settle) {
        events_unwait(&settle->reader);
        for (size_t i = 0; i < settle->n; i++)
                free(settle->names[i]);
        free(settle->names);
        settle->names = NULL;
        settle->n = 0;
}

int settle_add(Settle *settle, const char *name) {
        if (settle->n == settle->n_room) {
                size_t room = settle->n_room ? settle->n_room * 2 : 16;
                char **grown = reallocarray(settle->names, room, sizeof(*grown));

                if (!grown)
                        return -ENOMEM;
                settle->names = grown;
                settle->n_room = room;
        }
        settle->names[settle->n] = strdup(name);
        if (!settle->names[settle->n])
                return -ENOMEM;
        settle->n++;
        return 0;
}

bool settle_begin(Settle *settle) {
        if (look(settle))
                return true;
        events_wait(settle->supervisor->events, &settle->reader);
        return false;
}

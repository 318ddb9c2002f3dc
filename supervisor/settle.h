#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Waiting until several runners, some of which may be on their way out for good, have come to rest. */

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/events.h"
#include "supervisor/runner.h"

typedef struct Settle Settle;

struct Settle {
        EventReader reader;
        Supervisor *supervisor;
        char **names;
        size_t n, n_room, n_settled; /* the first n_settled are at rest */
        void (*done)(Settle *settle);
};

/* settle_init() - @done is called from the loop, once, when all are; not if settle_deinit() comes before. */
void settle_init(Settle *settle, Supervisor *supervisor, void (*done)(Settle *settle));
void settle_deinit(Settle *settle);

/* settle_add() - one more runner, by its name. 0 or -ENOMEM. */
int settle_add(Settle *settle, const char *name);

/* settle_begin() - true: they are at rest already, and `done' is not called. */
bool settle_begin(Settle *settle);

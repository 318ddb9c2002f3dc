/* SPDX-License-Identifier: Apache-2.0 */

#include "supervisor/precopy.h"

#include <stdlib.h>

#include "supervisor/control-internal.h"

void precopy_init(Precopy *precopy) {
        *precopy = (Precopy){ 0 };
        TAILQ_INIT(&precopy->changed);
}

void precopy_queue(Precopy *precopy, Precopied *it) {
        if (it->is_changed)
                return;
        it->is_changed = true;
        TAILQ_INSERT_TAIL(&precopy->changed, it, link);
        precopy->n_changed++;
}

static void unqueue(Precopy *precopy, Precopied *it) {
        if (!it->is_changed)
                return;
        it->is_changed = false;
        TAILQ_REMOVE(&precopy->changed, it, link);
        precopy->n_changed--;
}

Precopied *precopy_take(Precopy *precopy) {
        Precopied *it = TAILQ_FIRST(&precopy->changed);

        if (it)
                unqueue(precopy, it);
        return it;
}

static void note_gone(Precopy *precopy, uint32_t number) {
        if (precopy->n_gone == precopy->room_gone) {
                size_t room = precopy->room_gone ? precopy->room_gone * 2 : 16;
                uint32_t *gone = reallocarray(precopy->gone, room, sizeof(*gone));

                precopy->is_short |= !gone;
                if (!gone)
                        return;
                precopy->gone = gone;
                precopy->room_gone = room;
        }
        precopy->gone[precopy->n_gone++] = number;
}

void precopy_forget(Precopy *precopy, Precopied *it, uint32_t number) {
        unqueue(precopy, it);
        if (precopy->is_on && it->was_given && number > 0)
                note_gone(precopy, number);
        it->was_given = false;
        if (it->given)
                manifest_deinit(it->given);
        free(it->given);
        it->given = NULL;
}

/* each() - connection there is. */
static void each(Supervisor *supervisor, void (*function)(Precopy *precopy, Precopied *it)) {
        const ListenerClient *client = NULL;
        Instance *instance, *next;

        while (supervisor->listener && (client = listener_next_client(supervisor->listener, client)))
                function(&supervisor->precopy, &listener_client_control(client)->copied);
        HASH_ITER (by_id, supervisor->instances, instance, next)
                if (instance->peer)
                        function(&supervisor->precopy, &instance->copied);
}

static void forget(Precopy *precopy, Precopied *it) {
        precopy_forget(precopy, it, 0);
}

void precopy_begin(Supervisor *supervisor) {
        precopy_end(supervisor);
        supervisor->precopy.is_on = true;
        each(supervisor, precopy_queue);
}

void precopy_end(Supervisor *supervisor) {
        Precopy *precopy = &supervisor->precopy;
        Precopied *it;

        precopy->is_on = false;
        each(supervisor, forget);
        while ((it = TAILQ_FIRST(&precopy->changed)))
                forget(precopy, it);
        free(precopy->gone);
        precopy_init(precopy);
}

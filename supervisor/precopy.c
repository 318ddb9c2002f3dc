/* SPDX-License-Identifier: Apache-2.0 */

#include "supervisor/precopy.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/control-internal.h"
#include "supervisor/runner.h"

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

/* grow() - room for one more in @array of @n elements of @size. NULL: no memory. */
static void *grow(void *array, size_t n, size_t *room, size_t size) {
        size_t more = *room ? *room * 2 : 16;
        void *larger = n < *room ? array : reallocarray(array, more, size);

        if (larger && n == *room)
                *room = more;
        return larger;
}

static void note_gone(Precopy *precopy, uint32_t number) {
        uint32_t *gone = grow(precopy->gone, precopy->n_gone, &precopy->room_gone, sizeof(*gone));

        precopy->is_short |= !gone;
        if (!gone)
                return;
        precopy->gone = gone;
        gone[precopy->n_gone++] = number;
}

static void note_gone_runner(Precopy *precopy, const char *name) {
        char **gone = grow(precopy->gone_runners, precopy->n_gone_runners, &precopy->room_gone_runners, sizeof(*gone));
        char *copy = gone ? strdup(name) : NULL;

        if (gone)
                precopy->gone_runners = gone;
        precopy->is_short |= !copy;
        if (copy)
                gone[precopy->n_gone_runners++] = copy;
}

void precopy_note_given(Precopy *precopy, Precopied *it, uint32_t owed) {
        precopy->n_owed += owed;
        precopy->n_owed -= it->owed;
        it->owed = owed;
}

void precopy_forget(Precopy *precopy, Precopied *it, uint32_t number, const char *name) {
        unqueue(precopy, it);
        if (precopy->is_on && it->was_given && number > 0)
                note_gone(precopy, number);
        if (precopy->is_on && it->was_given && name)
                note_gone_runner(precopy, name);
        precopy_note_given(precopy, it, 0);
        it->was_given = false;
        if (it->given)
                manifest_deinit(it->given);
        free(it->given);
        it->given = NULL;
}

/* each() - connection and runner there is. */
static void each(Supervisor *supervisor, void (*function)(Precopy *precopy, Precopied *it)) {
        const ListenerClient *client = NULL;
        Instance *instance, *next;
        Runner *runner;

        while (supervisor->listener && (client = listener_next_client(supervisor->listener, client)))
                function(&supervisor->precopy, &listener_client_control(client)->copied);
        HASH_ITER (by_id, supervisor->instances, instance, next)
                if (instance->peer)
                        function(&supervisor->precopy, &instance->copied);
        for (runner = runner_first(supervisor); runner; runner = runner_next(runner))
                function(&supervisor->precopy, &runner->copied);
}

static void forget(Precopy *precopy, Precopied *it) {
        precopy_forget(precopy, it, 0, NULL);
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
        while (precopy->n_gone_runners > 0)
                free(precopy->gone_runners[--precopy->n_gone_runners]);
        free(precopy->gone_runners);
        precopy_init(precopy);
}

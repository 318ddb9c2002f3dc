#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Events: what happened to runners and supervisor, numbered, the last ones kept. Whoever changes something publishes it,
 * once; whoever wants to know reads from a number on, and may be woken when there is more. Publishing never calls anybody
 * back, never fails and costs a copy of at most EVENT_TEXT_MAX bytes: it may be done from anywhere.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/loop.h"
#include "supervisor/exit-status.h"
#include "supervisor/policy.h"

typedef struct Event Event;
typedef struct EventReader EventReader;
typedef struct Events Events;

enum {
        EVENT_TEXT_MAX = 240,        /* bytes of an event's text; the rest is cut off */
        EVENTS_BYTES_MAX = 96 * 1024 /* of all that are kept: 1,000 and more, as they mostly are */
};

/* The numbers of baton.control.Event.Kind, which says what each comes with. */
typedef enum EventKind {
        EVENT_UNKNOWN,
        EVENT_SUPERVISOR_STARTED,
        EVENT_SUPERVISOR_STOPPING,
        EVENT_CONFIGURATION_LOADED,
        EVENT_CONFIGURATION_REFUSED,
        EVENT_RUNNER_ADDED,
        EVENT_RUNNER_REMOVED,
        EVENT_RUNNER_STATE,
        EVENT_RUNNER_EXITED,
        EVENT_RUNNER_RESTART,
        EVENT_LOGS_DROPPED,
        EVENT_COMMAND,
        EVENT_TAKEOVER,
        EVENT_RECOVERY,
        EVENT_RUNNER_UPGRADED,
        EVENT_RUNNER_FAILOVER,
        EVENT_CHECKPOINT_FAILED,
        _EVENT_KIND_N,
} EventKind;

struct Event {
        EventKind kind;
        const char *runner; /* its name; NULL: none */
        uint64_t instance;
        pid_t pid;
        PolicyState state, previous; /* RUNNER_STATE */
        ExitStatus exit;             /* RUNNER_EXITED, and the next two */
        unsigned cause;              /* a RunnerCause */
        uint64_t uptime_us;
        uint64_t number;
        const char *text; /* one line; NULL: none */

        /* set by events_publish() */
        uint64_t seq; /* from 1 */
        uint64_t time_us, monotonic_us;
};

/* Somebody who is told that there is more. Null value: EVENT_READER_NULL(). */
struct EventReader {
        TAILQ_ENTRY(EventReader) link;
        Events *events; /* NULL: not waiting */
        void (*callback)(EventReader *reader);
};
#define EVENT_READER_NULL(_callback) ((EventReader){ .callback = (_callback) })

/* events_new() - @loop NULL: nobody can wait. 0 or -ENOMEM. */
int events_new(Events **ret_events, Loop *loop);

/* events_free() - readers that wait do so no longer, without a word. Accepts NULL, returns NULL. */
Events *events_free(Events *events);

/* events_publish() - all of @event is copied. @events may be NULL. */
void events_publish(Events *events, const Event *event);

/*
 * What a predecessor has kept, instead of what is here. events_clear() - nothing is. events_restore() - one, with the number
 * and times that it has; one after the other. events_set_next() - and the number of the next one.
 */
void events_clear(Events *events);
/*
 * events_hold() - before that: what is published is not an event, since whoever serves knows of it. events_release() - it
 * is.
 */
void events_hold(Events *events);
void events_release(Events *events);
void events_restore(Events *events, const Event *event);
void events_set_next(Events *events, uint64_t seq);

/* events_next_seq() - the number that the next event will have. events_first_seq() - of the oldest kept, or the same. */
uint64_t events_next_seq(const Events *events);
uint64_t events_first_seq(const Events *events);

/*
 * events_find() - the first event kept whose number is @seq or higher. False: none yet. Its strings are valid until
 * something is published.
 */
bool events_find(const Events *events, uint64_t seq, Event *ret_event);

/*
 * events_wait() - @reader is called once, from the loop, when something has been published after this. It is off the list
 * then, and may wait again. events_unwait() - does nothing for one that does not wait.
 */
void events_wait(Events *events, EventReader *reader);
void events_unwait(EventReader *reader);

/* event_kind_name() - "runner_state", as in JSON; "unknown" for a number that is none. */
const char *event_kind_name(unsigned kind);

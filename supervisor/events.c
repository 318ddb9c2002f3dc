/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Events: a ring of bytes. An event is a record of a fixed part, the runner's name and a text, one behind the other; the
 * oldest records make room for a new one. A record never wraps: what is left at the end, too small for the next, is
 * skipped by a record of no kind. The ring grows to its bound by doubling, so that a private supervisor, which has few
 * events, pays for few.
 *
 * Readers keep a number, not a place: what they missed shows as a gap. Where the record of a number lies is found by
 * walking from the oldest, or, for those that follow, from the last place that was asked for.
 */

#include "supervisor/events.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/macro.h"

enum {
        FIRST_CAPACITY = 4096,
        NAME_MAX_BYTES = 64,
};

/* Both strings, each with its NUL, follow it; a length of 0: there is none. */
typedef struct Record {
        uint32_t size; /* of all of it, a multiple of 8 */
        uint8_t kind;  /* _EVENT_KIND_N: nothing, up to the end of the ring */
        uint8_t state, previous, cause;
        uint64_t seq, time_us, monotonic_us, instance, number, uptime_us;
        int32_t pid, status;
        uint8_t how, name_length, text_length;
} Record;

TAILQ_HEAD(EventReaders, EventReader);

struct Events {
        Loop *loop;
        uint8_t *data;
        size_t capacity;
        size_t begin, end; /* places of the oldest record and behind the newest; equal: none, or see `used' */
        size_t used;       /* bytes between them, what is skipped too */
        uint64_t first_seq, next_seq;
        uint64_t last_seq; /* of the newest record */
        struct EventReaders readers;
        LoopTask task;
        uint64_t hint_seq; /* 0: none */
        size_t hint;       /* where its record lies */
        bool held;         /* nothing that is published is kept */
};

static Record *record_at(const Events *events, size_t place) {
        return (Record *) (void *) (events->data + place);
}

/* follow() - the place behind the record at @place. */
static size_t follow(const Events *events, size_t place) {
        place += record_at(events, place)->size;
        return place == events->capacity ? 0 : place;
}

/* drop_oldest() - and what is skipped behind it. */
static void drop_oldest(Events *events) {
        do {
                const Record *record = record_at(events, events->begin);

                if (record->kind != _EVENT_KIND_N)
                        events->first_seq = record->seq + 1;
                events->used -= record->size;
                events->begin = follow(events, events->begin);
        } while (events->used > 0 && record_at(events, events->begin)->kind == _EVENT_KIND_N);
        if (events->hint_seq < events->first_seq)
                events->hint_seq = 0;
        if (events->used == 0)
                events->begin = events->end = 0;
}

/* grow() - only while nothing wraps: the bytes keep their places. */
static bool grow(Events *events) {
        size_t capacity = events->capacity ? MIN(events->capacity * 2, (size_t) EVENTS_BYTES_MAX) : FIRST_CAPACITY;
        uint8_t *data;

        if (capacity <= events->capacity || (events->used > 0 && events->end <= events->begin))
                return false;
        data = realloc(events->data, capacity);
        if (!data)
                return false;
        events->data = data;
        events->capacity = capacity;
        return true;
}

/* make_room() - @size bytes in one piece, at events->end. False: not even an empty ring has them. */
static bool make_room(Events *events, size_t size) {
        for (;;) {
                bool wraps = events->used > 0 && events->end <= events->begin;
                size_t limit = wraps ? events->begin : events->capacity;

                if (limit - events->end >= size)
                        return true;
                if (grow(events))
                        continue;
                if (events->used == 0)
                        return false;
                if (wraps) {
                        drop_oldest(events);
                        continue;
                }
                /* To the front: what is left here is skipped. The record before ends at a multiple of 8. */
                if (events->end < events->capacity) {
                        size_t rest = events->capacity - events->end;

                        *(uint32_t *) (void *) (events->data + events->end) = (uint32_t) rest;
                        events->data[events->end + offsetof(Record, kind)] = _EVENT_KIND_N;
                        events->used += rest;
                }
                events->end = 0;
        }
}

static size_t put_text(uint8_t *place, const char *text, size_t length) {
        if (!text)
                return 0;
        memcpy(place, text, length);
        place[length] = '\0';
        return length + 1;
}

/* cut() - the length of @text, at most @max, not within a character of UTF-8. */
static size_t cut(const char *text, size_t max) {
        size_t length = text ? strnlen(text, max + 1) : 0;

        if (length <= max)
                return length;
        for (length = max; length > 0 && ((uint8_t) text[length] & 0xc0) == 0x80;)
                length--;
        return length;
}

/* wake() - all that wait now; who waits again from its callback is not called in this turn. */
static void wake(LoopTask *task) {
        Events *events = CONTAINER_OF(task, Events, task);
        EventReader *last = TAILQ_LAST(&events->readers, EventReaders), *reader;

        while ((reader = TAILQ_FIRST(&events->readers))) {
                bool is_last = reader == last;

                events_unwait(reader);
                reader->callback(reader);
                if (is_last)
                        break;
        }
}

int events_new(Events **ret_events, Loop *loop) {
        Events *events = calloc(1, sizeof(*events));

        if (!events)
                return -ENOMEM;
        events->loop = loop;
        events->first_seq = events->next_seq = 1;
        events->task = LOOP_TASK_NULL(wake);
        TAILQ_INIT(&events->readers);
        *ret_events = events;
        return 0;
}

Events *events_free(Events *events) {
        EventReader *reader;

        if (!events)
                return NULL;
        while ((reader = TAILQ_FIRST(&events->readers)))
                events_unwait(reader);
        loop_task_cancel(&events->task);
        free(events->data);
        free(events);
        return NULL;
}

static void keep(Events *events, const Event *event, uint64_t time_us, uint64_t monotonic_us) {
        size_t name = event->runner ? cut(event->runner, NAME_MAX_BYTES - 1) : 0;
        size_t text = event->text ? cut(event->text, EVENT_TEXT_MAX) : 0, size = sizeof(Record) + name + text + 2;
        Record *record;
        uint64_t seq;

        size = (size + 7) & ~(size_t) 7;
        seq = events->next_seq++;
        if (!TAILQ_EMPTY(&events->readers))
                loop_task_queue(events->loop, &events->task);
        if (!make_room(events, size)) {
                /* No memory, not even for the first: its number is missing, as that of one that was dropped. */
                events->first_seq = events->next_seq;
                return;
        }
        record = record_at(events, events->end);
        *record = (Record){
                .size = (uint32_t) size,
                .kind = (uint8_t) event->kind,
                .state = (uint8_t) event->state,
                .previous = (uint8_t) event->previous,
                .cause = (uint8_t) event->cause,
                .seq = seq,
                .time_us = time_us,
                .monotonic_us = monotonic_us,
                .instance = event->instance,
                .number = event->number,
                .uptime_us = event->uptime_us,
                .pid = event->pid,
                .status = event->exit.status,
                .how = (uint8_t) event->exit.how,
                .name_length = (uint8_t) (event->runner ? name + 1 : 0),
                .text_length = (uint8_t) (event->text ? text + 1 : 0),
        };
        (void) put_text((uint8_t *) (record + 1), event->runner, name);
        (void) put_text((uint8_t *) (record + 1) + record->name_length, event->text, text);
        events->last_seq = seq;
        events->used += size;
        events->end += size;
        if (events->end == events->capacity && events->begin > 0)
                events->end = 0;
}

void events_hold(Events *events) {
        events->held = true;
}

void events_release(Events *events) {
        events->held = false;
}

void events_publish(Events *events, const Event *event) {
        if (events && !events->held)
                keep(events, event, clock_wall(), clock_now());
}

void events_clear(Events *events) {
        events->begin = events->end = events->used = 0;
        events->hint_seq = 0;
        events->first_seq = events->next_seq;
}

void events_restore(Events *events, const Event *event) {
        if (events->used == 0)
                events->first_seq = event->seq;
        events->next_seq = event->seq;
        keep(events, event, event->time_us, event->monotonic_us);
}

void events_set_next(Events *events, uint64_t seq) {
        if (events->used == 0)
                events->first_seq = seq;
        events->next_seq = seq;
}

uint64_t events_next_seq(const Events *events) {
        return events->next_seq;
}

uint64_t events_first_seq(const Events *events) {
        return events->first_seq;
}

static void read_record(const Record *record, Event *ret_event) {
        const char *strings = (const char *) (record + 1);

        *ret_event = (Event){
                .kind = record->kind,
                .runner = record->name_length ? strings : NULL,
                .instance = record->instance,
                .pid = record->pid,
                .state = record->state,
                .previous = record->previous,
                .exit = { .how = record->how, .status = record->status },
                .cause = record->cause,
                .uptime_us = record->uptime_us,
                .number = record->number,
                .text = record->text_length ? strings + record->name_length : NULL,
                .seq = record->seq,
                .time_us = record->time_us,
                .monotonic_us = record->monotonic_us,
        };
}

bool events_find(const Events *events, uint64_t seq, Event *ret_event) {
        size_t place = events->begin;

        if (events->used == 0 || seq > events->last_seq)
                return false;
        if (events->hint_seq && events->hint_seq <= seq)
                place = events->hint;
        while (record_at(events, place)->kind == _EVENT_KIND_N || record_at(events, place)->seq < seq)
                place = follow(events, place);
        read_record(record_at(events, place), ret_event);
        /* Where the reader goes on; the ring as such does not change. */
        ((Events *) events)->hint_seq = ret_event->seq;
        ((Events *) events)->hint = place;
        return true;
}

void events_wait(Events *events, EventReader *reader) {
        if (reader->events)
                return;
        reader->events = events;
        TAILQ_INSERT_TAIL(&events->readers, reader, link);
}

void events_unwait(EventReader *reader) {
        if (!reader->events)
                return;
        TAILQ_REMOVE(&reader->events->readers, reader, link);
        reader->events = NULL;
}

static const char *const kind_names[] = {
        [EVENT_UNKNOWN] = "unknown",
        [EVENT_SUPERVISOR_STARTED] = "supervisor_started",
        [EVENT_SUPERVISOR_STOPPING] = "supervisor_stopping",
        [EVENT_CONFIGURATION_LOADED] = "configuration_loaded",
        [EVENT_CONFIGURATION_REFUSED] = "configuration_refused",
        [EVENT_RUNNER_ADDED] = "runner_added",
        [EVENT_RUNNER_REMOVED] = "runner_removed",
        [EVENT_RUNNER_STATE] = "runner_state",
        [EVENT_RUNNER_EXITED] = "runner_exited",
        [EVENT_RUNNER_RESTART] = "runner_restart",
        [EVENT_LOGS_DROPPED] = "logs_dropped",
        [EVENT_COMMAND] = "command",
        [EVENT_TAKEOVER] = "takeover",
        [EVENT_RECOVERY] = "recovery",
        [EVENT_RUNNER_UPGRADED] = "runner_upgraded",
        [EVENT_RUNNER_FAILOVER] = "runner_failover",
        [EVENT_CHECKPOINT_FAILED] = "checkpoint_failed",
};
static_assert(ARRAY_SIZE(kind_names) == _EVENT_KIND_N, "a name for each");

const char *event_kind_name(unsigned kind) {
        return kind_names[kind < ARRAY_SIZE(kind_names) ? kind : EVENT_UNKNOWN];
}

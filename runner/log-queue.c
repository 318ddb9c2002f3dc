/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log queue: an entry is here from log_queue_add() until the supervisor has answered the call that carried it, whatever
 * the answer: it has seen it. A call that ended without the supervisor's own words (it died, it renewed the channels)
 * acknowledges nothing; its entries are sent again with the numbers they had, so that the other side can tell which of
 * them it has.
 *
 * Records of one turn leave in one call: adding only queues, the pump runs before the endpoint waits. At most
 * LOG_QUEUE_CALLS calls are open; while they are, records gather for the next one.
 *
 * Logging must never stop a runner: the loop's thread never waits, since it is what makes room; others wait only where the
 * runner asked for it. A hand-off takes the records of all threads; it bounds memory by count and bytes, from the moment a
 * record comes in until it is acknowledged, and counts what does not fit. The loop gives the numbers at its other end:
 * order between threads is the order of arrival, times are those of the call, and a gap becomes a record of its own, before
 * the record that came after it, or, with none after it, as soon as there is room.
 */

#include "runner/log-queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/text.h"

#define METHOD        "baton.Log/Write"
#define BATCH_RECORDS 64u
#define BATCH_BYTES   (32u * 1024u) /* half of the smallest frame that every peer accepts */
#define TARGET_MAX    256u
#define FILE_MAX      1024u
#define OWN_TARGET    "baton"
#define LEVEL_WARNING 4u
#define LEVEL_LOWEST  7u

struct LogEntry {
        HandoffNode node;
        TAILQ_ENTRY(LogEntry) link;
        uint64_t seq, time_us;
        unsigned level, line;
        bool sent;                 /* in a call that is open */
        bool is_gap;               /* a report of drops, which has no room in the hand-off */
        const char *target, *file; /* behind the text */
        char text[];
};

/* ---- numbering ---- */

/* copy_string() - at most @max bytes of @from to @to, mended; returns where the next one goes. */
static char *copy_string(char *to, const char *from, size_t max) {
        size_t length = strnlen(from, max + 1);

        memcpy(to, from, length);
        to[length] = '\0';
        text_cut(to, max);
        return to + text_mend(to) + 1;
}

/* make_entry() - NULL: no memory. */
static LogEntry *make_entry(unsigned level, const char *target, const char *file, unsigned line, const char *text) {
        size_t size = sizeof(LogEntry) + strnlen(text, LOG_QUEUE_TEXT + 1) + strnlen(target, TARGET_MAX + 1) +
                      strnlen(file, FILE_MAX + 1) + 3;
        LogEntry *entry = malloc(size);
        char *end;

        if (!entry)
                return NULL;
        *entry = (LogEntry){ .node.size = size, .time_us = clock_wall(), .level = level, .line = line };
        end = copy_string(entry->text, text, LOG_QUEUE_TEXT);
        entry->target = end;
        end = copy_string(end, target, TARGET_MAX);
        entry->file = end;
        (void) copy_string(end, file, FILE_MAX);
        return entry;
}

static void remove_entry(LogQueue *queue, LogEntry *entry) {
        TAILQ_REMOVE(&queue->entries, entry, link);
        if (!entry->is_gap)
                handoff_release(&queue->handoff, &entry->node);
        free(entry);
}

static void number_entry(LogQueue *queue, LogEntry *entry) {
        entry->seq = queue->next_seq++;
        TAILQ_INSERT_TAIL(&queue->entries, entry, link);
}

/* report_gap() - that @dropped records are missing here. */
static void report_gap(LogQueue *queue, uint64_t dropped) {
        LogEntry *entry;
        char text[64];

        dropped += queue->missing;
        if (!dropped)
                return;
        (void) snprintf(text, sizeof(text), "%llu log record%s dropped", (unsigned long long) dropped,
                        dropped == 1 ? "" : "s");
        entry = make_entry(LEVEL_WARNING, OWN_TARGET, "", 0, text);
        queue->missing = entry ? 0 : dropped;
        if (!entry)
                return;
        entry->is_gap = true;
        number_entry(queue, entry);
}

/* number_entries() - all that came in. */
static void number_entries(LogQueue *queue) {
        HandoffNode *node;

        while ((node = handoff_take(&queue->handoff))) {
                report_gap(queue, node->gap);
                number_entry(queue, CONTAINER_OF(node, LogEntry, node));
        }
}

/* ---- sending ---- */

static void batch_done(Call *call, const Answer *answer, void *userdata) {
        LogBatch *batch = userdata;
        LogQueue *queue = batch->queue;
        LogEntry *entry = batch->first, *next;

        (void) call;
        batch->call = NULL;
        for (size_t i = 0; i < batch->n; i++, entry = next) {
                next = TAILQ_NEXT(entry, link);
                if (answer->local)
                        entry->sent = false;
                else
                        remove_entry(queue, entry);
        }
        /* After a local end the next Hello, record or answer sends again: at once it could be tried for ever. */
        if (answer->local)
                return;
        number_entries(queue);
        report_gap(queue, handoff_take_gap(&queue->handoff));
        endpoint_defer(queue->endpoint, &queue->pump);
}

/* fill_batch() - the entries from @first on that one call can carry. */
static size_t fill_batch(LogEntry *first, Baton__LogRecord *records, Baton__LogRecord **pointers) {
        size_t n = 0, bytes = 0;

        for (LogEntry *entry = first; entry && !entry->sent && n < BATCH_RECORDS; entry = TAILQ_NEXT(entry, link)) {
                bytes += entry->node.size;
                if (n > 0 && (bytes > BATCH_BYTES || entry->seq != first->seq + n))
                        break;
                baton__log_record__init(&records[n]);
                records[n].time_us = entry->time_us;
                records[n].level = entry->level;
                records[n].line = entry->line;
                records[n].text = entry->text;
                records[n].target = (char *) entry->target;
                records[n].file = (char *) entry->file;
                pointers[n] = &records[n];
                n++;
        }
        return n;
}

/* send_batch() - one call with as much as it can carry. 0 or a negative errno. */
static int send_batch(LogQueue *queue, LogBatch *batch, LogEntry *first) {
        Baton__LogRecord records[BATCH_RECORDS], *pointers[BATCH_RECORDS];
        Baton__LogWrite write = BATON__LOG_WRITE__INIT;
        CallParameters parameters = { .method = METHOD, .type = "baton.LogWrite" };
        _cleanup_free_ uint8_t *packed = NULL;
        LogEntry *entry = first;
        int r;

        write.first_seq = first->seq;
        write.records = pointers;
        write.n_records = fill_batch(first, records, pointers);
        parameters.size = baton__log_write__get_packed_size(&write);
        packed = malloc(parameters.size);
        if (!packed)
                return -ENOMEM;
        (void) baton__log_write__pack(&write, packed);
        parameters.payload = packed;
        r = call_start(queue->peer, &parameters, batch_done, batch, &batch->call);
        if (r < 0) {
                batch->call = NULL;
                return r;
        }
        batch->first = first;
        batch->n = write.n_records;
        for (size_t i = 0; i < batch->n; i++, entry = TAILQ_NEXT(entry, link))
                entry->sent = true;
        return 0;
}

static void pump(EndpointTask *task) {
        LogQueue *queue = CONTAINER_OF(task, LogQueue, pump);
        LogEntry *entry;

        number_entries(queue);
        if (!peer_is_ready(queue->peer))
                return;
        entry = TAILQ_FIRST(&queue->entries);
        for (unsigned i = 0; i < LOG_QUEUE_CALLS; i++) {
                if (queue->batches[i].call)
                        continue;
                while (entry && entry->sent)
                        entry = TAILQ_NEXT(entry, link);
                if (!entry || send_batch(queue, &queue->batches[i], entry) < 0)
                        return;
        }
}

/* ---- adding ---- */

void log_queue_collect(LogQueue *queue) {
        uint64_t before = queue->next_seq;

        number_entries(queue);
        /* Else the next acknowledgement tells it: with nothing given back, each turn could add one more. */
        if (TAILQ_EMPTY(&queue->entries))
                report_gap(queue, handoff_take_gap(&queue->handoff));
        if (queue->next_seq != before)
                endpoint_defer(queue->endpoint, &queue->pump);
}

/* add_entry() - false: there is no room for it, or nobody will look any more; it is gone. */
static bool add_entry(LogQueue *queue, LogEntry *entry) {
        bool wait = queue->parks && !handles_is_loop_thread(queue->handles);
        int r = wait ? handoff_push_wait(&queue->handoff, &entry->node, entry->node.size, USEC_INFINITY)
                     : handoff_push(&queue->handoff, &entry->node, entry->node.size, NULL);

        if (r < 0)
                free(entry);
        return r >= 0;
}

void log_queue_add(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                   const char *format, va_list arguments) {
        char text[LOG_QUEUE_TEXT + 2];
        LogEntry *entry;

        text[0] = '\0';
        (void) vsnprintf(text, sizeof(text), format, arguments);
        entry = make_entry(MIN(level, LEVEL_LOWEST), target ? target : "", file ? file : "", line, text);
        if (!entry || !add_entry(queue, entry))
                handoff_drop(&queue->handoff);
}

/* ---- life ---- */

/* on_entry() - in the thread that has added it. */
static void on_entry(void *userdata) {
        LogQueue *queue = userdata;

        if (handles_is_loop_thread(queue->handles))
                endpoint_defer(queue->endpoint, &queue->pump);
        else
                endpoint_wake(queue->endpoint);
}

static void destroy_entry(HandoffNode *node) {
        free(CONTAINER_OF(node, LogEntry, node));
}

int log_queue_init(LogQueue *queue, Endpoint *endpoint, const Handles *handles, Peer *peer, size_t max, bool parks) {
        HandoffConfig config = {
                .policy = parks ? HANDOFF_PARK : HANDOFF_DROP,
                .max_count = max ? max : LOG_QUEUE_RECORDS,
                .max_bytes = LOG_QUEUE_BYTES,
                .destroy = destroy_entry,
                .wake = on_entry,
                .userdata = queue,
        };
        int r;

        r = handoff_init(&queue->handoff, &config);
        if (r < 0)
                return r;
        queue->endpoint = endpoint;
        queue->handles = handles;
        queue->peer = peer;
        queue->parks = parks;
        queue->pump = ENDPOINT_TASK_NULL(pump);
        queue->next_seq = 1;
        TAILQ_INIT(&queue->entries);
        for (unsigned i = 0; i < LOG_QUEUE_CALLS; i++)
                queue->batches[i].queue = queue;
        return 0;
}

void log_queue_deinit(LogQueue *queue) {
        LogEntry *entry;

        if (!queue->endpoint)
                return;
        endpoint_cancel(queue->endpoint, &queue->pump);
        while ((entry = TAILQ_FIRST(&queue->entries)))
                remove_entry(queue, entry);
        handoff_deinit(&queue->handoff);
}

void log_queue_close(LogQueue *queue) {
        handoff_close(&queue->handoff);
}

bool log_queue_is_empty(LogQueue *queue) {
        HandoffCounters counters;

        handoff_counters(&queue->handoff, &counters);
        return counters.count == 0 && TAILQ_EMPTY(&queue->entries);
}

void log_queue_ready(LogQueue *queue) {
        if (!log_queue_is_empty(queue))
                endpoint_defer(queue->endpoint, &queue->pump);
}

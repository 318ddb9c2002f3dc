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
 * Other threads make the same entries, and put them into a hand-off that drops. The loop numbers them when it collects
 * them: order between threads is the order of arrival, their times are those of the call.
 *
 * Logging must never stop a runner: nothing waits, memory is bounded by count and bytes, and what does not fit is counted
 * and reported by a record of its own as soon as there is room.
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
        TAILQ_ENTRY(LogEntry) link;
        HandoffNode node; /* from another thread, until it is collected */
        uint64_t seq, time_us;
        unsigned level, line;
        bool sent; /* in a call that is open */
        size_t size;
        const char *target, *file; /* behind the text */
        char text[];
};

static void add_entry(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                      const char *text);

static void remove_entry(LogQueue *queue, LogEntry *entry) {
        TAILQ_REMOVE(&queue->entries, entry, link);
        queue->n--;
        queue->bytes -= entry->size;
        free(entry);
}

/* ---- sending ---- */

/* report_drops() - how many are missing, as soon as that and @more records fit. */
static void report_drops(LogQueue *queue, size_t more) {
        uint64_t dropped = queue->dropped;
        char text[64];

        if (!dropped || queue->n + more >= queue->max || queue->bytes + LOG_QUEUE_TEXT > LOG_QUEUE_BYTES)
                return;
        queue->dropped = 0;
        (void) snprintf(text, sizeof(text), "%llu log record%s dropped", (unsigned long long) dropped,
                        dropped == 1 ? "" : "s");
        add_entry(queue, LEVEL_WARNING, OWN_TARGET, "", 0, text);
        if (queue->dropped) /* no memory for it */
                queue->dropped = dropped;
}

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
        report_drops(queue, 0);
        endpoint_defer(queue->endpoint, &queue->pump);
}

/* fill_batch() - the entries from @first on that one call can carry. */
static size_t fill_batch(LogEntry *first, Baton__LogRecord *records, Baton__LogRecord **pointers) {
        size_t n = 0, bytes = 0;

        for (LogEntry *entry = first; entry && !entry->sent && n < BATCH_RECORDS; entry = TAILQ_NEXT(entry, link)) {
                bytes += entry->size;
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
        LogEntry *entry = TAILQ_FIRST(&queue->entries);

        if (!peer_is_ready(queue->peer))
                return;
        for (unsigned i = 0; i < LOG_QUEUE_CALLS; i++) {
                if (queue->batches[i].call)
                        continue;
                while (entry && entry->sent)
                        entry = TAILQ_NEXT(entry, link);
                if (!entry || send_batch(queue, &queue->batches[i], entry) < 0)
                        return;
        }
}

/* ---- entries ---- */

/* copy_string() - at most @max bytes of @from to @to, mended; returns where the next one goes. */
static char *copy_string(char *to, const char *from, size_t max) {
        size_t length = strnlen(from, max + 1);

        memcpy(to, from, length);
        to[length] = '\0';
        text_cut(to, max);
        return to + text_mend(to) + 1;
}

/* entry_size() - with copies of the texts. */
static size_t entry_size(const char *target, const char *file, const char *text) {
        return sizeof(LogEntry) + strnlen(text, LOG_QUEUE_TEXT + 1) + strnlen(target, TARGET_MAX + 1) +
               strnlen(file, FILE_MAX + 1) + 3;
}

/* entry_new() - of entry_size() bytes; NULL: no memory. */
static LogEntry *entry_new(size_t size, unsigned level, const char *target, const char *file, unsigned line,
                           const char *text) {
        LogEntry *entry = malloc(size);
        char *end;

        if (!entry)
                return NULL;
        *entry = (LogEntry){ .time_us = clock_wall(), .level = level, .line = line, .size = size };
        end = copy_string(entry->text, text, LOG_QUEUE_TEXT);
        entry->target = end;
        end = copy_string(end, target, TARGET_MAX);
        entry->file = end;
        (void) copy_string(end, file, FILE_MAX);
        return entry;
}

static bool has_room(const LogQueue *queue, size_t size) {
        return queue->n < queue->max && queue->bytes + size <= LOG_QUEUE_BYTES;
}

/* append() - there is room. */
static void append(LogQueue *queue, LogEntry *entry) {
        entry->seq = queue->next_seq++;
        TAILQ_INSERT_TAIL(&queue->entries, entry, link);
        queue->n++;
        queue->bytes += entry->size;
        endpoint_defer(queue->endpoint, &queue->pump);
}

static void add_entry(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                      const char *text) {
        size_t size = entry_size(target, file, text);
        LogEntry *entry = has_room(queue, size) ? entry_new(size, level, target, file, line, text) : NULL;

        if (entry)
                append(queue, entry);
        else
                queue->dropped++;
}

/* ---- other threads ---- */

static void destroy(HandoffNode *node) {
        free(CONTAINER_OF(node, LogEntry, node));
}

static void wake(void *userdata) {
        LogQueue *queue = userdata;

        endpoint_wake(queue->endpoint);
}

/* hand_in() - in another thread. One that finds no memory counts like one that finds no room. */
static void hand_in(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                    const char *text) {
        size_t size = entry_size(target, file, text);
        LogEntry *entry = entry_new(size, level, target, file, line, text);

        if (!entry)
                atomic_fetch_add_explicit(&queue->lost, 1, memory_order_relaxed);
        else if (handoff_push(&queue->inbox, &entry->node, size, NULL) < 0)
                free(entry);
        atomic_store_explicit(&queue->handed_in, true, memory_order_relaxed);
}

void log_queue_collect(LogQueue *queue) {
        HandoffNode *node;

        atomic_store_explicit(&queue->handed_in, false, memory_order_relaxed);
        while ((node = handoff_pop(&queue->inbox))) {
                LogEntry *entry = CONTAINER_OF(node, LogEntry, node);

                queue->dropped += node->gap;
                report_drops(queue, 1);
                if (has_room(queue, entry->size)) {
                        append(queue, entry);
                } else {
                        queue->dropped++;
                        free(entry);
                }
        }
        queue->dropped += handoff_take_gap(&queue->inbox);
        queue->dropped += atomic_exchange_explicit(&queue->lost, 0, memory_order_relaxed);
        report_drops(queue, 0);
}

/* ---- adding ---- */

void log_queue_add(LogQueue *queue, unsigned level, const char *target, const char *file, unsigned line,
                   const char *format, va_list arguments) {
        char text[LOG_QUEUE_TEXT + 2];

        text[0] = '\0';
        (void) vsnprintf(text, sizeof(text), format, arguments);
        level = MIN(level, LEVEL_LOWEST);
        target = target ? target : "";
        file = file ? file : "";
        if (!handles_is_loop_thread(queue->handles)) {
                hand_in(queue, level, target, file, line, text);
                return;
        }
        /* What another thread has added, and told this one of, goes first. */
        if (atomic_load_explicit(&queue->handed_in, memory_order_relaxed))
                log_queue_collect(queue);
        report_drops(queue, 1);
        add_entry(queue, level, target, file, line, text);
}

/* ---- life ---- */

int log_queue_init(LogQueue *queue, Endpoint *endpoint, const Handles *handles, Peer *peer, size_t max) {
        HandoffConfig config = {
                .policy = HANDOFF_DROP,
                .max_count = max ? max : LOG_QUEUE_RECORDS,
                .max_bytes = LOG_QUEUE_BYTES,
                .destroy = destroy,
                .wake = wake,
                .userdata = queue,
        };
        int r;

        r = handoff_init(&queue->inbox, &config);
        if (r < 0)
                return r;
        queue->endpoint = endpoint;
        queue->handles = handles;
        queue->peer = peer;
        queue->pump = ENDPOINT_TASK_NULL(pump);
        queue->max = config.max_count;
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
        handoff_deinit(&queue->inbox);
}

void log_queue_ready(LogQueue *queue) {
        if (!log_queue_is_empty(queue))
                endpoint_defer(queue->endpoint, &queue->pump);
}

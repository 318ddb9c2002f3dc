/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Logs: a long poll. The answer holds what there is from the number asked for, bounded in lines and in bytes; without any
 * it comes when the first line does, or the end. `ended' is said only when every line has been given, so that a reader
 * who asks again until then has missed nothing but what is counted.
 *
 * Who asks with `wait' follows: it has, so it says, all lines before the one it asks for (runner_log_follow()). One that
 * cancels its wait, or is gone, follows no more.
 */

#include "supervisor/logs.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/crossing.h"
#include "supervisor/report.h"
#include "supervisor/supervisor.h"

enum {
        LINES_DEFAULT = 256,
        LINES_MAX = 4096,
        LINE_OVERHEAD = 96, /* of a line's message, at most, besides its texts */
};

typedef struct Logs {
        LogReader reader;
        Crossing crossing;
        Call *call;
        Runner *runner;
        uint64_t from;
        uint32_t max_lines, sources;
} Logs;

/* What goes into one answer. */
typedef struct Page {
        uint64_t next_seq, dropped;
        size_t n, size, bytes;
        Baton__Control__LogLine *lines;
} Page;

/* bytes_max() - half of a frame that the client takes. */
static size_t bytes_max(const Call *call) {
        const Peer *peer = call_peer(call);

        return peer ? (size_t) (peer_remote(peer)->max_frame / 2) : 0;
}

static void fill_line(Baton__Control__LogLine *to, const LogLine *line) {
        baton__control__log_line__init(to);
        to->seq = line->seq;
        to->time_us = line->time_us;
        to->monotonic_us = line->monotonic_us;
        to->instance = line->instance;
        to->pid = line->pid;
        to->source = (Baton__Control__LogLine__Source) line->source;
        to->level = line->level;
        to->text.data = (uint8_t *) line->text;
        to->text.len = line->size;
        to->partial = line->partial;
        to->target = (char *) line->target;
        to->file = (char *) line->file;
        to->line = line->line;
}

static bool is_wanted(const LogLine *line, uint32_t sources) {
        return sources == 0 || sources & 1u << line->source;
}

static bool add(Page *page, const LogLine *line) {
        if (page->n == page->size) {
                size_t size = page->size ? 2 * page->size : 16;
                Baton__Control__LogLine *lines = reallocarray(page->lines, size, sizeof(*lines));

                if (!lines)
                        return false;
                page->lines = lines;
                page->size = size;
        }
        fill_line(&page->lines[page->n++], line);
        return true;
}

/* collect() - the lines from @from on that are wanted. What there is no memory for comes with the next answer. */
static void collect(const RunnerLog *log, uint64_t from, uint32_t sources, size_t max_lines, size_t max_bytes,
                    Page *page) {
        uint64_t position = runner_log_find(log, from);
        LogLine line;

        *page = (Page){ .next_seq = MAX(from, (uint64_t) 1) };
        while (page->n < max_lines && runner_log_read(log, &position, &line)) {
                if (is_wanted(&line, sources)) {
                        page->bytes += line.size + strlen(line.target) + strlen(line.file) + LINE_OVERHEAD;
                        if ((page->n > 0 && page->bytes > max_bytes) || !add(page, &line))
                                break;
                }
                page->dropped += line.seq - page->next_seq;
                page->next_seq = line.seq + 1;
        }
}

static void answer(Call *call, const Runner *runner, const Page *page) {
        Baton__Control__LogsResponse response = BATON__CONTROL__LOGS_RESPONSE__INIT;
        Baton__Control__LogLine **pointers = calloc(page->n + 1, sizeof(*pointers));
        Baton__Control__Exit exit;
        LogStatus status;

        if (!pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for %zu lines", page->n);
                return;
        }
        for (size_t i = 0; i < page->n; i++)
                pointers[i] = &page->lines[i];
        runner_log_status(runner->log, &status);
        response.lines = pointers;
        response.n_lines = page->n;
        response.next_seq = page->next_seq;
        response.dropped = page->dropped;
        response.log = runner_log_id(runner->log);
        response.ended = runner_log_has_ended(runner->log) && page->next_seq >= status.next_seq;
        if (response.ended && runner->instance) {
                report_exit(runner->instance->exit, &exit);
                response.exit = &exit;
        }
        (void) call_answer_message(call, &response.base);
        free(pointers);
}

/* try_answer() - false: there is nothing to say yet. @from goes on behind lines that are not wanted. */
static bool try_answer(Call *call, const Runner *runner, uint64_t *from, uint32_t sources, uint32_t max_lines,
                       bool wait) {
        Page page;
        bool said;

        collect(runner->log, *from, sources, max_lines, bytes_max(call), &page);
        said = !wait || page.n > 0 || page.dropped > 0 || runner_log_has_ended(runner->log);
        if (said)
                answer(call, runner, &page);
        *from = page.next_seq;
        free(page.lines);
        return said;
}

static void cancelled(Call *call, void *userdata);

static void logs_free(Logs *logs) {
        LIST_REMOVE(&logs->crossing, link);
        free(logs);
}

/* give() - in a successor the log is the same, by its number too. */
static void give(const Crossing *crossing, CrossingTake take, void *userdata) {
        const Logs *logs = CONTAINER_OF(crossing, Logs, crossing);
        Baton__Control__LogsRequest request = BATON__CONTROL__LOGS_REQUEST__INIT;

        request.name = logs->runner->name;
        request.log = runner_log_id(logs->runner->log);
        request.from_seq = logs->from;
        request.max_records = logs->max_lines;
        request.sources = logs->sources;
        request.wait = true;
        take(&request.base, userdata);
}

static void woken(LogReader *reader) {
        Logs *logs = CONTAINER_OF(reader, Logs, reader);

        runner_log_follow(logs->runner->log, logs->from);
        call_on_cancel(logs->call, NULL, NULL);
        if (try_answer(logs->call, logs->runner, &logs->from, logs->sources, logs->max_lines, true)) {
                logs_free(logs);
                return;
        }
        call_on_cancel(logs->call, cancelled, logs);
        runner_log_wait(logs->runner->log, reader); /* the lines were others */
}

static void cancelled(Call *call, void *userdata) {
        Logs *logs = userdata;

        runner_log_unwait(&logs->reader);
        runner_log_unfollow(logs->runner->log);
        logs_free(logs);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

/* go_back() - from the end: so many lines that are wanted, but none before @from. */
static uint64_t go_back(const RunnerLog *log, uint64_t from, uint32_t last, uint32_t sources) {
        uint64_t position = runner_log_find(log, UINT64_MAX), at;
        LogStatus status;
        LogLine line;

        runner_log_status(log, &status);
        while (last > 0 && runner_log_back(log, &position)) {
                at = position;
                if (!runner_log_read(log, &at, &line) || line.seq < from)
                        break;
                status.next_seq = line.seq;
                if (is_wanted(&line, sources))
                        last--;
        }
        return status.next_seq;
}

/* begin() - the number of the first line that @request asks for. */
static uint64_t begin(const RunnerLog *log, const Baton__Control__LogsRequest *request) {
        bool same = request->log == 0 || request->log == runner_log_id(log);
        uint64_t from = same ? request->from_seq : 0, position = runner_log_find(log, from);
        LogLine line;

        if (request->since_us > 0) {
                LogStatus status;

                runner_log_status(log, &status);
                from = status.next_seq;
                while (runner_log_read(log, &position, &line))
                        if (line.time_us >= request->since_us) {
                                from = line.seq;
                                break;
                        }
        }
        return request->last > 0 ? go_back(log, from, request->last, request->sources) : from;
}

void logs_call(Call *call, const Baton__Control__LogsRequest *request, Runner *runner) {
        uint32_t max_lines = request->max_records ? MIN(request->max_records, (uint32_t) LINES_MAX) : LINES_DEFAULT;
        uint64_t from = begin(runner->log, request);
        Logs *logs;

        if (request->wait)
                runner_log_follow(runner->log, from);
        if (try_answer(call, runner, &from, request->sources, max_lines, request->wait))
                return;
        logs = calloc(1, sizeof(*logs));
        if (!logs) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for a line");
                return;
        }
        *logs = (Logs){
                .reader = { .callback = woken },
                .crossing = { .call = call, .method = "Logs", .give = give },
                .call = call,
                .runner = runner,
                .from = from,
                .max_lines = max_lines,
                .sources = request->sources,
        };
        LIST_INSERT_HEAD(&runner->supervisor->crossings, &logs->crossing, link);
        runner_log_wait(runner->log, &logs->reader);
        call_on_cancel(call, cancelled, logs);
}

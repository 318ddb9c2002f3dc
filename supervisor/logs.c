/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Logs: a long poll. The answer holds what there is from the number asked for, bounded in lines and in bytes; without any
 * it comes when the first line does, or the end. `ended' is said only when every line has been given, so that a reader
 * who asks again until then has missed nothing but what is counted.
 *
 * Who asks with `wait' follows: it has, so it says, all lines before the one it asks for (output_follow()). One that
 * cancels its wait, or is gone, follows no more.
 */

#include "supervisor/logs.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/report.h"

enum {
        LINES_DEFAULT = 256,
        LINES_MAX = 4096,
        LINE_OVERHEAD = 64, /* of a line's message, at most, besides its texts */
};

typedef struct Logs {
        OutputReader reader;
        Call *call;
        Instance *instance;
        uint64_t from;
        uint32_t max_lines;
} Logs;

static size_t text_size(const char *text) {
        return text ? strlen(text) : 0;
}

/* bytes_max() - half of a frame that the client takes. */
static size_t bytes_max(const Call *call) {
        const Peer *peer = call_peer(call);

        return peer ? (size_t) (peer_remote(peer)->max_frame / 2) : 0;
}

static void fill_line(Baton__Control__LogLine *to, const HistoryLine *line) {
        baton__control__log_line__init(to);
        to->seq = line->seq;
        to->time_us = line->info.time_us;
        to->source = (Baton__Control__LogLine__Source) line->info.source;
        to->level = line->info.level;
        to->text.data = (uint8_t *) line->text;
        to->text.len = line->size;
        to->partial = line->partial;
        if (line->info.target)
                to->target = (char *) line->info.target;
        if (line->info.file)
                to->file = (char *) line->info.file;
        to->line = line->info.line;
}

/* count() - how many lines from @line on go into one answer. */
static size_t count(const HistoryLine *line, size_t max_lines, size_t max_bytes) {
        size_t n = 0, bytes = 0;

        for (; line && n < max_lines; line = TAILQ_NEXT(line, link), n++) {
                bytes += line->size + text_size(line->info.target) + text_size(line->info.file) + LINE_OVERHEAD;
                if (n > 0 && bytes > max_bytes)
                        break;
        }
        return n;
}

static void answer(Call *call, Instance *instance, uint64_t from, uint32_t max_lines) {
        Baton__Control__LogsResponse response = BATON__CONTROL__LOGS_RESPONSE__INIT;
        Baton__Control__Exit exit;
        const Output *output = &instance->output;
        const HistoryLine *line = history_find(&output->history, from);
        size_t n = count(line, max_lines, bytes_max(call));
        _cleanup_free_ Baton__Control__LogLine *lines = calloc(n + 1, sizeof(*lines));
        _cleanup_free_ Baton__Control__LogLine **pointers = calloc(n + 1, sizeof(*pointers));

        if (!lines || !pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for %zu lines", n);
                return;
        }
        response.next_seq = MAX(from, (uint64_t) 1);
        if (line)
                response.dropped = line->seq - response.next_seq;
        for (size_t i = 0; i < n; i++, line = TAILQ_NEXT(line, link)) {
                fill_line(&lines[i], line);
                pointers[i] = &lines[i];
                response.next_seq = line->seq + 1;
        }
        response.lines = pointers;
        response.n_lines = n;
        response.ended = output->ended && !line;
        if (response.ended) {
                report_exit(instance->exit, &exit);
                response.exit = &exit;
        }
        (void) call_answer_message(call, &response.base);
}

static void woken(OutputReader *reader) {
        Logs *logs = CONTAINER_OF(reader, Logs, reader);

        output_follow(&logs->instance->output, logs->from);
        if (!logs->instance->output.ended && !history_find(&logs->instance->output.history, logs->from)) {
                output_wait(&logs->instance->output, reader); /* the line was one from before */
                return;
        }
        call_on_cancel(logs->call, NULL, NULL);
        answer(logs->call, logs->instance, logs->from, logs->max_lines);
        free(logs);
}

static void cancelled(Call *call, void *userdata) {
        Logs *logs = userdata;

        output_unwait(&logs->reader);
        output_unfollow(&logs->instance->output);
        free(logs);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

void logs_call(Call *call, const Baton__Control__LogsRequest *request, Instance *instance) {
        uint32_t max_lines = request->max_records ? MIN(request->max_records, (uint32_t) LINES_MAX) : LINES_DEFAULT;
        Logs *logs;

        if (request->wait)
                output_follow(&instance->output, request->from_seq);
        if (!request->wait || instance->output.ended || history_find(&instance->output.history, request->from_seq)) {
                answer(call, instance, request->from_seq, max_lines);
                return;
        }
        logs = calloc(1, sizeof(*logs));
        if (!logs) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for a line");
                return;
        }
        *logs = (Logs){
                .reader = { .callback = woken },
                .call = call,
                .instance = instance,
                .from = request->from_seq,
                .max_lines = max_lines,
        };
        output_wait(&instance->output, &logs->reader);
        call_on_cancel(call, cancelled, logs);
}

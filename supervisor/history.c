/* SPDX-License-Identifier: Apache-2.0 */

/*
 * History: what a runner wrote last. Each line is one allocation; memory is taken only for lines that exist, so that a
 * thousand silent runners cost nothing, and a chatty one at most what its bounds say. The bound in bytes counts what a
 * line really takes, structure included: a runner that writes empty lines is bounded too.
 *
 * Numbers rise by one per line and are never reused. Whoever reads remembers the next number and learns from the first
 * number given what it has missed; the history keeps no readers and no count of drops besides. Who must not miss any
 * asks how much more fits (history_room()) before more is let in.
 */

#include "supervisor/history.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/macro.h"
#include "common/parse.h"

void history_init(History *history, size_t max_lines, size_t max_bytes) {
        *history = (History){ .max_lines = max_lines, .max_bytes = max_bytes, .next_seq = 1 };
        TAILQ_INIT(&history->lines);
}

static void drop_first(History *history) {
        HistoryLine *line = TAILQ_FIRST(&history->lines);

        TAILQ_REMOVE(&history->lines, line, link);
        history->n_lines--;
        history->n_bytes -= line->cost;
        free(line);
}

static bool is_beyond(const History *history) {
        return history->n_lines > history->max_lines || history->n_bytes > history->max_bytes;
}

void history_set_bounds(History *history, size_t max_lines, size_t max_bytes, uint64_t keep) {
        history->max_lines = max_lines;
        history->max_bytes = max_bytes;
        while (history->n_lines > 1 && is_beyond(history) && TAILQ_FIRST(&history->lines)->seq < keep)
                drop_first(history);
}

void history_deinit(History *history) {
        while (history->n_lines > 0)
                drop_first(history);
}

static size_t string_size(const char *text) {
        return text ? strlen(text) + 1 : 0;
}

/* keep_string() - copies @text to *@end, which moves behind it. */
static const char *keep_string(const char *text, char **end) {
        char *copy = *end;
        size_t size = string_size(text);

        if (size == 0)
                return NULL;
        memcpy(copy, text, size);
        *end += size;
        return copy;
}

static void append_piece(History *history, const HistoryInfo *info, const void *text, size_t size, bool partial) {
        size_t total = sizeof(HistoryLine) + size + string_size(info->target) + string_size(info->file);
        HistoryLine *line = malloc(total);
        uint64_t seq = history->next_seq++;
        char *end;

        if (!line)
                return;
        *line = (HistoryLine){
                .seq = seq,
                .info = *info,
                .partial = partial,
                .size = size,
                .cost = total,
                .offset = history->total,
        };
        if (info->time_us == 0)
                line->info.time_us = clock_wall();
        if (size > 0)
                memcpy(line->text, text, size);
        end = line->text + size;
        line->info.target = keep_string(info->target, &end);
        line->info.file = keep_string(info->file, &end);

        TAILQ_INSERT_TAIL(&history->lines, line, link);
        history->n_lines++;
        history->n_bytes += total;
        history->total += total;
        while (history->n_lines > 1 && is_beyond(history))
                drop_first(history);
}

void history_append(History *history, const HistoryInfo *info, const void *text, size_t size, bool partial) {
        const char *p = text;

        for (; size > HISTORY_TEXT_MAX; p += HISTORY_TEXT_MAX, size -= HISTORY_TEXT_MAX)
                append_piece(history, info, p, HISTORY_TEXT_MAX, true);
        append_piece(history, info, p, size, partial);
}

HistoryLine *history_find(const History *history, uint64_t seq) {
        HistoryLine *line = TAILQ_FIRST(&history->lines), *before;

        if (!line || line->seq >= seq)
                return line;
        if (seq >= history->next_seq)
                return NULL;
        /* Whoever follows asks for one near the end. */
        line = TAILQ_LAST(&history->lines, HistoryLines);
        if (line->seq < seq)
                return NULL;
        while ((before = TAILQ_PREV(line, HistoryLines, link)) && before->seq >= seq)
                line = before;
        return line;
}

HistoryMark history_mark(const History *history, uint64_t seq) {
        const HistoryLine *line = history_find(history, seq);

        return line ? (HistoryMark){ line->seq, line->offset } : (HistoryMark){ history->next_seq, history->total };
}

size_t history_room(const History *history, HistoryMark mark) {
        uint64_t lines = history->next_seq - MAX(mark.seq, (uint64_t) 1), bytes = history->total - mark.offset;

        if (lines >= history->max_lines || bytes >= history->max_bytes)
                return 0;
        /* The costliest lines are empty ones: a structure for a newline. */
        return MIN(history->max_lines - (size_t) lines,
                   (history->max_bytes - (size_t) bytes) / (sizeof(HistoryLine) + 1));
}

/* utf8_step() - bytes of the character at @text, of which @size are left; 0: not UTF-8. */
static size_t utf8_step(const char *text, size_t size) {
        for (size_t n = 1; n <= MIN(size, 4); n++)
                if (utf8_is_valid(text, n))
                        return n;
        return 0;
}

static char *copy_for_people(char *to, const char *text, size_t size) {
        while (size > 0) {
                size_t n = utf8_step(text, size);

                if (n == 0)
                        *to = '?';
                else
                        memcpy(to, text, n);
                n = MAX(n, 1);
                to += n;
                text += n;
                size -= n;
        }
        *to++ = '\0';
        return to;
}

size_t history_tail(const History *history, size_t max_lines, size_t max_bytes, char ***ret_lines) {
        HistoryLine *line, *first = NULL;
        size_t n = 0, bytes = 0, i = 0;
        char **lines, *end;

        *ret_lines = NULL;
        for (line = TAILQ_LAST(&history->lines, HistoryLines); line && n < max_lines;
             line = TAILQ_PREV(line, HistoryLines, link)) {
                if (bytes + line->size > max_bytes && n > 0)
                        break;
                first = line;
                bytes += MIN(line->size, max_bytes);
                n++;
        }
        if (n == 0)
                return 0;

        lines = malloc(n * sizeof(*lines) + bytes + n);
        if (!lines)
                return 0;
        end = (char *) (lines + n);
        for (line = first; line; line = TAILQ_NEXT(line, link)) {
                lines[i++] = end;
                end = copy_for_people(end, line->text, MIN(line->size, max_bytes));
        }
        *ret_lines = lines;
        return n;
}

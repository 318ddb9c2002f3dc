/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, its errors: collected rather than returned, so that whoever writes a configuration sees all of them at once. The
 * texts quote what is in a file, so what would move a terminal's cursor is taken out. No memory for one of them is no
 * error of its own: it is counted.
 */

#include "supervisor/config-internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static char *tame(char *text) {
        for (char *p = text; p && *p; p++)
                if ((unsigned char) *p < 0x20 || *p == 0x7f)
                        *p = '?';
        if (text)
                (void) text_mend(text);
        return text;
}

static void error_deinit(ConfigError *error) {
        free(error->file);
        free(error->key);
        free(error->message);
}

void config_errors_add(ConfigErrors *errors, const char *file, uint32_t line, const char *key, const char *format,
                       ...) {
        ConfigError error = {
                .file = strdup(file), .line = line, .key = key ? strdup(key) : NULL, .order = (unsigned) errors->n
        };
        va_list arguments;

        va_start(arguments, format);
        if (vasprintf(&error.message, format, arguments) < 0)
                error.message = NULL;
        va_end(arguments);
        errors->n++;
        if (!error.file || (key && !error.key) || !error.message || errors->n_kept == CONFIG_ERRORS_MAX) {
                error_deinit(&error);
                return;
        }
        tame(error.file);
        tame(error.key);
        tame(error.message);
        errors->errors[errors->n_kept++] = error;
}

static int compare(const void *a, const void *b) {
        const ConfigError *one = a, *other = b;
        int files = strcmp(one->file, other->file);

        if (files != 0)
                return files;
        if (one->line != other->line)
                return one->line < other->line ? -1 : 1;
        return one->order < other->order ? -1 : 1;
}

void config_errors_sort(ConfigErrors *errors) {
        qsort(errors->errors, errors->n_kept, sizeof(*errors->errors), compare);
}

void config_errors_deinit(ConfigErrors *errors) {
        for (size_t i = 0; i < errors->n_kept; i++)
                error_deinit(&errors->errors[i]);
        *errors = (ConfigErrors){ 0 };
}

char *config_error_line(const ConfigError *error) {
        char line[16] = "", *text;

        if (error->line > 0)
                (void) snprintf(line, sizeof(line), ":%u", error->line);
        if (asprintf(&text, "%s%s: %s%s%s", error->file, line, error->key ? error->key : "", error->key ? ": " : "",
                     error->message) < 0)
                return NULL;
        return text;
}

char *config_errors_text(const ConfigErrors *errors) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        if (!out)
                return NULL;
        for (size_t i = 0; i < errors->n_kept; i++) {
                _cleanup_free_ char *line = config_error_line(&errors->errors[i]);

                (void) fprintf(out, "%s\n", line ? line : "no memory");
        }
        if (errors->n > errors->n_kept)
                (void) fprintf(out, "and %zu more errors\n", errors->n - errors->n_kept);
        if (fclose(out) != 0)
                free(TAKE_PTR(text));
        return text;
}

/* -------------------------------------------------------------------------------------------------------------- arena */

void config_arena_deinit(ConfigArena *arena) {
        for (size_t i = 0; i < arena->n; i++)
                free(arena->blocks[i]);
        free(arena->blocks);
        *arena = (ConfigArena){ 0 };
}

/* keep() - @block is the arena's, also on failure. */
static void *keep(ConfigArena *arena, void *block) {
        if (block && arena->n == arena->room) {
                size_t room = MAX(arena->room * 2, (size_t) 64);
                void **blocks = reallocarray(arena->blocks, room, sizeof(*blocks));

                if (!blocks) {
                        free(block);
                        return NULL;
                }
                arena->blocks = blocks;
                arena->room = room;
        }
        if (block)
                arena->blocks[arena->n++] = block;
        return block;
}

void *config_arena_new(ConfigArena *arena, size_t size) {
        return keep(arena, calloc(1, MAX(size, (size_t) 1)));
}

char *config_arena_print(ConfigArena *arena, const char *format, ...) {
        va_list arguments;
        char *text;

        va_start(arguments, format);
        if (vasprintf(&text, format, arguments) < 0)
                text = NULL;
        va_end(arguments);
        return keep(arena, text);
}

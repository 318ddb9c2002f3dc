/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Parser of descriptions. A description says with which registers a function is called, so what is not understood to the
 * last byte is refused whole: a line that is skipped would be a function that is missing, or one that can be called.
 *
 * A line is cut at its first `#', which no signature contains, and freed of blanks at both ends; what is left is nothing,
 * the version (the first such line only), or a signature. Lines end with a newline; the last may lack it. The bytes of a
 * comment are not looked at, but for 0, which is in no text.
 *
 * Functions are kept in the file's order. A sorted list of their indices finds them by name, and finds the second of two
 * of the same name. Files are the business of description-file.c.
 */

#include "runner/description.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS       " \t"
#define VERSION_WORD "baton-module"

/* One line of the text, without comment and blanks around it, which ends with NUL. */
typedef struct Line {
        char *text;
        size_t number;
        size_t column; /* of the first character of text, from 1 */
} Line;

typedef struct Parser {
        Description *description;
        size_t capacity;  /* of the description's functions */
        bool has_content; /* a line that was not empty has been read */
        char *error;
} Parser;

_printf_(4, 5) static int fault(const Parser *parser, size_t line, size_t column, const char *format, ...) {
        int n = snprintf(parser->error, DESCRIPTION_REASON_MAX, "line %zu, column %zu", line, column);
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(parser->error + n, DESCRIPTION_REASON_MAX - (size_t) n, format, arguments);
        va_end(arguments);
        return -EINVAL;
}

/* position() - where @name is, or belongs: the number of functions whose names are before it. */
static size_t position(const Description *description, const char *name, bool *ret_found) {
        size_t low = 0, high = description->n_functions;

        *ret_found = false;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = strcmp(description->functions[description->by_name[middle]].signature.name, name);

                if (order < 0) {
                        low = middle + 1;
                } else {
                        *ret_found |= order == 0;
                        high = middle;
                }
        }
        return low;
}

static int grow(Parser *parser) {
        Description *description = parser->description;
        size_t capacity = MAX((size_t) 16, parser->capacity * 2);
        DescribedFunction *functions;

        if (description->n_functions < parser->capacity)
                return 0;
        functions = realloc(description->functions, capacity * sizeof(*functions)); /* both are small */
        if (!functions) {
                (void) snprintf(parser->error, DESCRIPTION_REASON_MAX, "no memory");
                return -ENOMEM;
        }
        description->functions = functions;
        parser->capacity = capacity;
        return 0;
}

static int add(Parser *parser, const Line *line, const Signature *signature) {
        Description *description = parser->description;
        size_t n = description->n_functions, at, name;
        bool found;
        int r;

        at = position(description, signature->name, &found);
        if (found) {
                name = strcspn(line->text, BLANKS);
                return fault(parser, line->number, line->column + name + strspn(line->text + name, BLANKS),
                             ": expected a function that is not described yet, this one is on line %zu",
                             description->functions[description->by_name[at]].line);
        }
        if (n == DESCRIPTION_FUNCTIONS_MAX)
                return fault(parser, line->number, line->column, ": expected no more than %d functions",
                             DESCRIPTION_FUNCTIONS_MAX);
        r = grow(parser);
        if (r < 0)
                return r;
        description->functions[n] = (DescribedFunction){ *signature, line->number };
        memmove(&description->by_name[at + 1], &description->by_name[at], (n - at) * sizeof(description->by_name[0]));
        description->by_name[at] = (uint16_t) n;
        description->n_functions++;
        return 0;
}

/* is_version() - whether the line is about the version, not about a function. */
static bool is_version(const Line *line) {
        size_t n = strlen(VERSION_WORD);

        return strncmp(line->text, VERSION_WORD, n) == 0 && (!line->text[n] || strchr(BLANKS, line->text[n]));
}

static int parse_version(const Parser *parser, const Line *line) {
        size_t at = strlen(VERSION_WORD);

        at += strspn(line->text + at, BLANKS);
        if (strcmp(line->text + at, "1") != 0)
                return fault(parser, line->number, line->column + at, "%s: expected 1, the version of the format",
                             line->text[at] ? "" : " (the end)");
        return 0;
}

static int parse_line(Parser *parser, const Line *line) {
        bool is_first = !parser->has_content;
        SignatureError error;
        Signature signature;

        if (!*line->text)
                return 0;
        parser->has_content = true;
        if (is_first && is_version(line))
                return parse_version(parser, line);
        if (signature_read(line->text, &signature, &error) < 0)
                return fault(parser, line->number, line->column + error.character - 1, "%s: expected %s",
                             error.at_end ? " (the end)" : "", error.expected);
        return add(parser, line, &signature);
}

/* strip() - the line of the @length bytes at @text, which are changed. */
static Line strip(char *text, size_t length, size_t number) {
        char *comment = memchr(text, '#', length);
        size_t end = comment ? (size_t) (comment - text) : length, start = 0;

        while (end > 0 && strchr(BLANKS, text[end - 1]))
                end--;
        text[end] = '\0';
        start = strspn(text, BLANKS);
        return (Line){ text + start, number, start + 1 };
}

/* parse_text() - the lines of @text, which ends with NUL behind its @size bytes. */
static int parse_text(Parser *parser, char *text, size_t size) {
        char *end = text + size;
        int r = 0;

        static_assert(DESCRIPTION_VERSION == 1, "parse_version() knows the versions");
        for (size_t number = 1; r == 0 && text < end; number++) {
                size_t length = (size_t) ((char *) rawmemchr(text, '\n') - text);
                Line line;

                if (memchr(text, 0, length))
                        return fault(parser, number, strlen(text) + 1, ": expected text, not a byte 0");
                line = strip(text, length, number);
                r = parse_line(parser, &line);
                text += length + 1;
        }
        return r;
}

int description_parse(const char *data, size_t size, Description **ret_description, char *error) {
        _cleanup_(description_freep) Description *description = calloc(1, sizeof(*description));
        _cleanup_free_ char *text = malloc(size + 2), *path = strdup("");
        Parser parser = { .description = description, .error = error };
        int r;

        if (!description || !text || !path) {
                (void) snprintf(error, DESCRIPTION_REASON_MAX, "no memory");
                return -ENOMEM;
        }
        description->path = TAKE_PTR(path);
        if (size > 0)
                memcpy(text, data, size);
        memcpy(text + size, "\n", 2);
        r = parse_text(&parser, text, size);
        if (r == 0)
                *ret_description = TAKE_PTR(description);
        return r;
}

const DescribedFunction *description_find(const Description *description, const char *name) {
        bool found;
        size_t at = position(description, name, &found);

        return found ? &description->functions[description->by_name[at]] : NULL;
}

Description *description_free(Description *description) {
        if (description) {
                free(description->path);
                free(description->functions);
                free(description);
        }
        return NULL;
}

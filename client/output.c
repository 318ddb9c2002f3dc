/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Output of the command: through stdio, flushed and checked where it matters, so that a full disk is an error and not a
 * truncated answer. SIGPIPE is ignored by who uses this; a reader that went away is -EPIPE.
 */

#include "client/output.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

static int put(FILE *file, const void *data, size_t size) {
        errno = 0;
        if (size == 0 || fwrite(data, 1, size, file) == size)
                return 0;
        return errno ? -errno : -EIO;
}

/* sequence_length() - of the UTF-8 sequence that begins with @byte; 0: none does. */
static size_t sequence_length(uint8_t byte) {
        if (byte < 0x80)
                return 1;
        return byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 0;
}

/* is_plain() - whether a terminal takes the @n bytes of one character as a character. C1 controls are c2 80 to c2 9f. */
static bool is_plain(const uint8_t *p, size_t n) {
        if (n == 1)
                return (*p >= 0x20 && *p != 0x7f) || *p == '\n' || *p == '\t';
        return utf8_is_valid(p, n) && !(p[0] == 0xc2 && p[1] < 0xa0);
}

int output_text(FILE *file, const void *data, size_t size) {
        const uint8_t *p = data, *end = p + size;
        int r = 0;

        while (p < end && r == 0) {
                size_t n = sequence_length(*p);
                char escape[8];

                if (n && n <= (size_t) (end - p) && is_plain(p, n)) {
                        r = put(file, p, n);
                        p += n;
                } else {
                        (void) snprintf(escape, sizeof(escape), "\\x%02x", *p++);
                        r = put(file, escape, strlen(escape));
                }
        }
        return r;
}

int output_bytes(FILE *file, const void *data, size_t size) {
        int r;

        if (size == 0)
                return 0;
        if (!isatty(fileno(file)))
                return put(file, data, size);
        r = output_text(file, data, size);
        return r < 0 || ((const uint8_t *) data)[size - 1] == '\n' ? r : put(file, "\n", 1);
}

int output_json(FILE *file, const json_t *json) {
        _cleanup_free_ char *text = json_dumps(json, JSON_PRESERVE_ORDER);
        int r;

        if (!text)
                return -ENOMEM;
        r = put(file, text, strlen(text));
        return r < 0 ? r : put(file, "\n", 1);
}

int output_flush(FILE *file) {
        errno = 0;
        if (fflush(file) != 0)
                return errno ? -errno : -EIO;
        return ferror(file) ? -EIO : 0;
}

/* write_line() - with one write(2), so that it does not mix with what other processes say there. */
static void write_line(const char *text, size_t size) {
        _cleanup_free_ char *line = NULL;
        size_t length = 0;
        FILE *memory = open_memstream(&line, &length);

        if (!memory)
                return;
        (void) put(memory, "baton: ", 7);
        (void) output_text(memory, text, size);
        (void) put(memory, "\n", 1);
        if (fclose(memory) == 0 && fwrite(line, 1, length, stderr) == length)
                (void) fflush(stderr);
}

void output_error(const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vasprintf(&text, format, arguments);
        va_end(arguments);
        if (n < 0)
                return;
        /* One line is one line, whoever wrote its parts. */
        for (char *p = text; (p = strpbrk(p, "\r\n"));)
                *p = ' ';
        write_line(text, (size_t) n);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Text: what is UTF-8 already, which is nearly all of it, is looked at once and left alone. */

#include "common/text.h"

#include <string.h>
#include <strings.h>

#include "common/parse.h"

/* character_length() - of the valid character at @text, or 0. */
static size_t character_length(const char *text, size_t left) {
        for (size_t n = 1; n <= 4 && n <= left; n++)
                if (utf8_is_valid(text, n))
                        return n;
        return 0;
}

size_t text_mend(char *text) {
        size_t size = strlen(text), n;

        if (utf8_is_valid(text, size))
                return size;
        for (size_t i = 0; i < size; i += n) {
                n = character_length(text + i, size - i);
                if (n > 0)
                        continue;
                text[i] = '?';
                n = 1;
        }
        return size;
}

void text_cut(char *text, size_t max) {
        if (strlen(text) <= max)
                return;
        while (max > 0 && ((unsigned char) text[max] & 0xc0) == 0x80)
                max--;
        text[max] = '\0';
}

/* has_word() - whether @n bytes at @word are one of the words of @text, but for the case of letters. */
static bool has_word(const char *text, const char *word, size_t n) {
        size_t length;

        for (; *text; text += length + (text[length] == ' ')) {
                length = strcspn(text, " ");
                if (length == n && strncasecmp(text, word, n) == 0)
                        return true;
        }
        return false;
}

const char *text_past_subject(const char *text, const char *said) {
        const char *subject = text_begins(text, "runner ")     ? text + strlen("runner ")
                              : text_begins(text, "template ") ? text + strlen("template ")
                                                               : text;
        size_t n = strcspn(subject, " :");

        return n > 0 && text_begins(subject + n, ": ") && has_word(said, subject, n) ? subject + n + 2 : text;
}

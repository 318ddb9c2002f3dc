#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Text from an application, made fit for the wire: UTF-8, since a peer that is sent anything else ends the connection. */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* text_mend() - replaces each byte of the string @text that belongs to no UTF-8 character by '?'. Returns its length. */
size_t text_mend(char *text);

/* text_cut() - ends the string @text after at most @max bytes, between two characters. */
void text_cut(char *text, size_t max);

/*
 * text_past_subject() - @text behind "SUBJECT: ", "runner SUBJECT: " or "template SUBJECT: " where SUBJECT is one of the words
 * of @said, what a line says before it; else @text. A message says whose it is, since not everybody who is given it knows.
 */
const char *text_past_subject(const char *text, const char *said);

/* text_begins() - whether @text begins with @prefix, which is not empty. Mostly the first character says that it does not. */
static inline bool text_begins(const char *text, const char *prefix) {
        return *text == *prefix && strncmp(text, prefix, strlen(prefix)) == 0;
}

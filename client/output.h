#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the command writes: every error counts, and a terminal is never steered by somebody else's bytes. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/macro.h"

typedef struct json_t json_t;

/* All return 0 or a negative errno: -EPIPE when nobody reads any more, -ENOSPC, ... */

/* output_bytes() - @size bytes as they are; on a terminal as output_text() does, with a newline at the end. */
int output_bytes(FILE *file, const void *data, size_t size);

/*
 * output_text() - UTF-8 as it is, but for control characters other than newline and tab, and bytes that are not UTF-8:
 * \xNN.
 */
int output_text(FILE *file, const void *data, size_t size);

/* output_json() - the object in one line. */
int output_json(FILE *file, const json_t *json);

/* output_flush() - everything written so far has been taken by the system. */
int output_flush(FILE *file);

/* output_error() - one line on standard error, `baton: TEXT'; control characters are escaped. Errors are ignored. */
void output_error(const char *format, ...) _printf_(1, 2);

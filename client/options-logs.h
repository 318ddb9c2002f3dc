#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of `baton logs', as values. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/options.h"

typedef struct LogsOptions {
        char **names; /* argv's: names and patterns */
        size_t n_names;
        const char *socket; /* NULL: where the environment says */
        uint64_t since_us;  /* wall clock; 0: from the oldest kept */
        uint32_t last;      /* lines of each; 0: all */
        uint32_t sources;   /* bits 1 << LogSource; 0: all */
        bool follow, json;
} LogsOptions;

enum { LOGS_FOLLOW_LAST = 10 }; /* lines, with --follow and nothing that says where to begin */

/*
 * logs_options_parse() - as the parsers of options.h. Options may stand between and behind the names, which may
 * move in @argv. Nothing is to be freed.
 */
int logs_options_parse(int argc, char **argv, LogsOptions *ret_options, char *error);

/* logs_parse_time() - RFC 3339, a local date with or without a time, or a duration before @now_us. 0 or -EINVAL. */
int logs_parse_time(const char *text, uint64_t now_us, uint64_t *ret_us);

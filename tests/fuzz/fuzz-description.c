/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes the parser of descriptions. What is accepted has functions that differ in name, each found by it, and is the
 * same again when it is written down; what is refused has one line that says where.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/description.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

static char *write_down(const Description *description) {
        char *text = malloc(description->n_functions * SIGNATURE_TEXT_MAX + 1), *p = text;

        CHECK(text);
        for (size_t i = 0; i < description->n_functions; i++) {
                (void) signature_format(&description->functions[i].signature, p);
                p += strlen(p);
                *p++ = '\n';
        }
        *p = '\0';
        return text;
}

static void check_again(const Description *description) {
        char *text = write_down(description), error[DESCRIPTION_ERROR_MAX];
        Description *again;

        CHECK(description_parse(text, strlen(text), &again, error) == 0);
        CHECK(again->n_functions == description->n_functions);
        for (size_t i = 0; i < again->n_functions; i++) {
                const DescribedFunction *function = &description->functions[i];

                CHECK(again->functions[i].line == i + 1 && function->line > i);
                CHECK(signature_is_equal(&again->functions[i].signature, &function->signature));
                CHECK(description_find(description, function->signature.name) == function);
        }
        description_free(again);
        free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char error[DESCRIPTION_ERROR_MAX] = "";
        Description *description;
        size_t line, column;

        if (description_parse((const char *) data, size, &description, error) < 0) {
                CHECK(sscanf(error, "line %zu, column %zu", &line, &column) == 2 && line > 0 && column > 0);
                CHECK(strstr(error, ": expected ") && !strchr(error, '\n'));
                CHECK(line <= size + 1 && column <= size + 1);
                return 0;
        }
        CHECK(description->n_functions <= DESCRIPTION_FUNCTIONS_MAX);
        check_again(description);
        description_free(description);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes what is done with the values another process sent: unpacking and checking them, printing them as lines and as
 * JSON, packing them again; and the parser of signatures, which takes the text of a method. What is accepted must come
 * out the same, one line per value and nothing that steers a terminal.
 */

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/values-text.h"
#include "proto/values.h"
#include "runner/signature.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

static void check_text(const Baton__Values *values) {
        size_t n_lines = 0;
        char *text;

        CHECK(values_format(values, &text) == 0);
        for (const char *p = text; *p; p++) {
                n_lines += *p == '\n';
                CHECK(*p == '\n' || ((unsigned char) *p >= 0x20 && *p != 0x7f));
        }
        CHECK(n_lines == values->n_values);
        free(text);
}

static void check_json(const Baton__Values *values) {
        json_t *json;

        CHECK(values_to_json(values, &json) == 0);
        CHECK(json_array_size(json) == values->n_values);
        json_decref(json);
}

static void check_again(const Baton__Values *values) {
        uint8_t *first, *second;
        size_t first_size, second_size;
        char error[VALUES_ERROR_MAX];
        Baton__Values *again;

        CHECK(values_pack(values, &first, &first_size) == 0);
        CHECK(values_unpack(first, first_size, &again, error) == 0);
        CHECK(values_pack(again, &second, &second_size) == 0);
        CHECK(first_size == second_size && memcmp(first, second, first_size) == 0);
        values_free(again);
        free(first);
        free(second);
}

static void check_signature(const uint8_t *data, size_t size) {
        char *text = strndup((const char *) data, size), error[SIGNATURE_ERROR_MAX] = "";
        Signature signature;

        CHECK(text);
        if (signature_parse(text, &signature, error) == 0)
                CHECK(signature_is_name(signature.name) && signature.n_parameters <= SIGNATURE_PARAMETERS_MAX);
        else
                CHECK(error[0] && !strchr(error, '\n'));
        free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char error[VALUES_ERROR_MAX] = "";
        Baton__Values *values;

        check_signature(data, size);
        if (values_unpack(data, size, &values, error) < 0) {
                CHECK(error[0]);
                return 0;
        }
        check_text(values);
        check_json(values);
        check_again(values);
        values_free(values);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Arguments and answers of the methods of baton-runner-echo: baton.Values. What is wrong is said to the caller here. */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "runner/echo.h"

Baton__Values *arguments_unpack(struct baton_call *call) {
        Baton__Values *values;
        char error[VALUES_ERROR_MAX];
        const void *data;
        size_t size;

        data = baton_call_data(call, &size);
        if (size > 0 && strcmp(baton_call_type(call), VALUES_TYPE) != 0) {
                (void) baton_call_fail(call, BATON_INVALID_ARGUMENT, "arguments of type '%s': expected " VALUES_TYPE,
                                       baton_call_type(call));
                return NULL;
        }
        if (values_unpack(data, size, &values, error) < 0) {
                (void) baton_call_fail(call, BATON_INVALID_ARGUMENT, "arguments: %s", error);
                return NULL;
        }
        return values;
}

const Baton__Value *argument_optional(const Baton__Values *values, size_t index, Baton__Value__VCase kind) {
        return index < values->n_values && values->values[index]->v_case == kind ? values->values[index] : NULL;
}

const Baton__Value *argument_needed(struct baton_call *call, const Baton__Values *values, size_t index,
                                    Baton__Value__VCase kind, const char *what) {
        const Baton__Value *value = argument_optional(values, index, kind);

        if (!value)
                (void) baton_call_fail(call, BATON_INVALID_ARGUMENT, "argument %zu: expected %s", index + 1, what);
        return value;
}

void answer_numbers(struct baton_call *call, const uint64_t *numbers, size_t n) {
        _cleanup_(values_freep) Baton__Values *values = values_new();
        _cleanup_free_ uint8_t *data = NULL;
        Baton__Value *value;
        bool complete = values != NULL;
        size_t size;

        for (size_t i = 0; complete && i < n; i++) {
                complete = values_add(values, VALUE_U64, &value) == 0;
                if (complete)
                        value->u = numbers[i];
        }
        if (!complete || values_pack(values, &data, &size) < 0)
                (void) baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "out of memory");
        else
                (void) baton_call_answer(call, VALUES_TYPE, data, size);
}

void answer_nothing(struct baton_call *call) {
        (void) baton_call_answer(call, VALUES_TYPE, NULL, 0);
}

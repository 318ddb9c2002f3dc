/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Values from JSON, strictly: what does not fit its type is refused, never rounded, cut or wrapped. JSON has fewer types
 * than values have, so each value names its own; numbers beyond 64 signed bits and floats that are no numbers are
 * strings, buffers are hexadecimal digits. What values_to_json() writes is accepted, and means the same.
 */

#include "client/values-json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"

typedef int (*ReadFn)(const json_t *json, ValueType type, Baton__Value *value);

static int read_null(const json_t *json, ValueType type, Baton__Value *value) {
        (void) type;
        (void) value;
        return json_is_null(json) ? 0 : -EINVAL;
}

static int read_signed(const json_t *json, ValueType type, Baton__Value *value) {
        int64_t number = json_integer_value(json);

        if (!json_is_integer(json))
                return -EINVAL;
        if (number < value_type_min(type) || (number > 0 && (uint64_t) number > value_type_max(type)))
                return -ERANGE;
        value->i = number;
        return 0;
}

/* read_natural() - of a number, or of a string of digits, which is how those above 2^63-1 are written. */
static int read_natural(const json_t *json, uint64_t max, uint64_t *ret_number) {
        if (json_is_string(json))
                return parse_u64(json_string_value(json), max, ret_number);
        if (!json_is_integer(json))
                return -EINVAL;
        if (json_integer_value(json) < 0 || (uint64_t) json_integer_value(json) > max)
                return -ERANGE;
        *ret_number = (uint64_t) json_integer_value(json);
        return 0;
}

static int read_unsigned(const json_t *json, ValueType type, Baton__Value *value) {
        return read_natural(json, value_type_max(type), &value->u);
}

static int read_out(const json_t *json, ValueType type, Baton__Value *value) {
        (void) type;
        return read_natural(json, SIZE_MAX, &value->u);
}

static int read_float(const json_t *json, ValueType type, Baton__Value *value) {
        double number = json_number_value(json);

        if (json_is_string(json) && (parse_double(json_string_value(json), &number) < 0 || isfinite(number)))
                return -EINVAL;
        if (!json_is_string(json) && !json_is_number(json))
                return -EINVAL;
        if (type == VALUE_F64)
                value->d = number;
        else
                value->f = (float) number;
        return type == VALUE_F32 && isfinite(number) && !isfinite(value->f) ? -ERANGE : 0;
}

static int read_string(const json_t *json, ValueType type, Baton__Value *value) {
        (void) type;
        if (!json_is_string(json))
                return -EINVAL;
        value->s = strdup(json_string_value(json));
        return value->s ? 0 : -ENOMEM;
}

static int read_buffer(const json_t *json, ValueType type, Baton__Value *value) {
        (void) type;
        return hex_from_json(json, &value->b.data, &value->b.len);
}

static const struct {
        ReadFn read;
        const char *form;
} types[] = {
        [VALUE_NULL] = { read_null, "null" },
        [VALUE_I8] = { read_signed, "a whole number" },
        [VALUE_I16] = { read_signed, "a whole number" },
        [VALUE_I32] = { read_signed, "a whole number" },
        [VALUE_I64] = { read_signed, "a whole number" },
        [VALUE_U8] = { read_unsigned, "a whole number" },
        [VALUE_U16] = { read_unsigned, "a whole number" },
        [VALUE_U32] = { read_unsigned, "a whole number" },
        [VALUE_U64] = { read_unsigned, "a whole number, or one in quotes" },
        [VALUE_F32] = { read_float, "a number, or \"nan\", \"inf\", \"-inf\"" },
        [VALUE_F64] = { read_float, "a number, or \"nan\", \"inf\", \"-inf\"" },
        [VALUE_STRING] = { read_string, "a string" },
        [VALUE_BUFFER] = { read_buffer, "a string of hexadecimal digits" },
        [VALUE_OUT] = { read_out, "a size in bytes" },
};
_Static_assert(ARRAY_SIZE(types) == _VALUE_N, "every type of value can be read");

/* find_type() - @name's, "null" included, which only an answer can have, but a line may be an answer sent back. */
static int find_type(const char *name, ValueType *ret_type) {
        if (strcmp(name, value_type_name(VALUE_NULL)) == 0) {
                *ret_type = VALUE_NULL;
                return 0;
        }
        return value_type_parse(name, strlen(name), ret_type);
}

static int read_one(const json_t *json, size_t number, Baton__Values *values, char *error) {
        const char *name = json_string_value(json_object_get(json, "type"));
        const json_t *content = json_object_get(json, "value");
        Baton__Value *value;
        ValueType type;
        int r;

        if (!name || !content || find_type(name, &type) < 0) {
                (void) snprintf(error, VALUES_ERROR_MAX,
                                "value %zu: not an object with \"type\", one of i8 to u64, f32, f64, string, buffer, "
                                "out, null, and \"value\"",
                                number);
                return -EINVAL;
        }
        r = values_add(values, type, &value);
        if (r == 0)
                r = types[type].read(content, type, value);
        if (r == -E2BIG)
                (void) snprintf(error, VALUES_ERROR_MAX, "value %zu: one more than may be", number);
        else if (r == -ERANGE)
                (void) snprintf(error, VALUES_ERROR_MAX, "value %zu: outside the range of %s", number, name);
        else if (r == -EINVAL)
                (void) snprintf(error, VALUES_ERROR_MAX, "value %zu: of type %s, needs %s", number, name,
                                types[type].form);
        else if (r < 0)
                (void) snprintf(error, VALUES_ERROR_MAX, "value %zu: %s", number, strerror(-r));
        return r;
}

int values_from_json(const json_t *json, Baton__Values **ret_values, char *error) {
        _cleanup_(values_freep) Baton__Values *values = values_new();
        bool alone = !json_is_array(json);
        size_t n = alone ? 1 : json_array_size(json);
        int r = values ? 0 : -ENOMEM;

        (void) snprintf(error, VALUES_ERROR_MAX, "no memory for its values");
        for (size_t i = 0; r == 0 && i < n; i++)
                r = read_one(alone ? json : json_array_get(json, i), i + 1, values, error);
        if (r == 0)
                *ret_values = TAKE_PTR(values);
        return r;
}

int hex_from_json(const json_t *json, uint8_t **ret_data, size_t *ret_size) {
        size_t size = json_string_length(json) / 2;
        _cleanup_free_ uint8_t *data = malloc(size + 1);

        if (!json_is_string(json))
                return -EINVAL;
        if (!data)
                return -ENOMEM;
        if (parse_hex(json_string_value(json), data, size, ret_size) < 0)
                return -EINVAL;
        *ret_data = TAKE_PTR(data);
        return 0;
}

json_t *hex_to_json(const void *data, size_t size) {
        static const char digits[] = "0123456789abcdef";
        _cleanup_free_ char *text = malloc(2 * size + 1);
        const uint8_t *p = data;

        for (size_t i = 0; text && i < size; i++) {
                text[2 * i] = digits[p[i] >> 4];
                text[2 * i + 1] = digits[p[i] & 15];
        }
        return text ? json_stringn(text, 2 * size) : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Values without a described type, as the message baton.Values. One table says for each type which member of the message
 * carries it and at what width; everything that needs to know a type asks it.
 *
 * What is unpacked comes from another process and is checked here once, whole: whoever holds a Baton__Values that came
 * from values_unpack() may rely on every value having a type, integers fitting their widths and strings being UTF-8. The
 * fields are counted before protobuf-c allocates anything, since two bytes on the wire become a hundred in memory.
 *
 * A message owns its values and these own their strings and bytes, all from malloc(), as protobuf-c does it: messages
 * that were built and messages that were unpacked are freed alike. This file knows no text: see values-text.c.
 */

#include "proto/values.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"

static const struct {
        const char *name;
        Baton__Value__VCase member;
        uint32_t width;
} types[] = {
        [VALUE_NULL] = { "null", BATON__VALUE__V__NOT_SET, 0 }, [VALUE_I8] = { "i8", BATON__VALUE__V_I, 8 },
        [VALUE_I16] = { "i16", BATON__VALUE__V_I, 16 },         [VALUE_I32] = { "i32", BATON__VALUE__V_I, 32 },
        [VALUE_I64] = { "i64", BATON__VALUE__V_I, 64 },         [VALUE_U8] = { "u8", BATON__VALUE__V_U, 8 },
        [VALUE_U16] = { "u16", BATON__VALUE__V_U, 16 },         [VALUE_U32] = { "u32", BATON__VALUE__V_U, 32 },
        [VALUE_U64] = { "u64", BATON__VALUE__V_U, 64 },         [VALUE_F32] = { "f32", BATON__VALUE__V_F, 0 },
        [VALUE_F64] = { "f64", BATON__VALUE__V_D, 0 },          [VALUE_STRING] = { "string", BATON__VALUE__V_S, 0 },
        [VALUE_BUFFER] = { "buffer", BATON__VALUE__V_B, 0 },    [VALUE_OUT] = { "out", BATON__VALUE__V_U, 0 },
};
static_assert(ARRAY_SIZE(types) == _VALUE_N, "every type of value has its entry");

ValueType value_type(const Baton__Value *value) {
        for (size_t i = 0; i < ARRAY_SIZE(types); i++)
                if (types[i].member == value->v_case && types[i].width == value->width)
                        return (ValueType) i;
        return _VALUE_N;
}

void value_set_type(Baton__Value *value, ValueType type) {
        assert(type < _VALUE_N);
        value->v_case = types[type].member;
        value->width = types[type].width;
}

const char *value_type_name(ValueType type) {
        return (unsigned) type < _VALUE_N ? types[type].name : "unknown";
}

int value_type_parse(const char *name, size_t length, ValueType *ret_type) {
        for (size_t i = VALUE_NULL + 1; i < ARRAY_SIZE(types); i++) {
                if (strlen(types[i].name) != length || memcmp(types[i].name, name, length) != 0)
                        continue;
                *ret_type = (ValueType) i;
                return 0;
        }
        return -EINVAL;
}

int64_t value_type_min(ValueType type) {
        if (types[type].member != BATON__VALUE__V_I)
                return 0;
        return INT64_MIN >> (64 - types[type].width);
}

uint64_t value_type_max(ValueType type) {
        if (types[type].width == 0)
                return 0;
        return (types[type].member == BATON__VALUE__V_I ? (uint64_t) INT64_MAX : UINT64_MAX) >>
               (64 - types[type].width);
}

Baton__Values *values_new(void) {
        Baton__Values *values = malloc(sizeof(*values));

        if (values)
                baton__values__init(values);
        return values;
}

Baton__Values *values_free(Baton__Values *values) {
        baton__values__free_unpacked(values, NULL);
        return NULL;
}

int values_add(Baton__Values *values, ValueType type, Baton__Value **ret_value) {
        Baton__Value **grown, *value;

        if (values->n_values >= VALUES_MAX)
                return -E2BIG;
        grown = realloc(values->values, (values->n_values + 1) * sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        values->values = grown;
        value = malloc(sizeof(*value));
        if (!value)
                return -ENOMEM;

        baton__value__init(value);
        value_set_type(value, type);
        values->values[values->n_values++] = value;
        *ret_value = value;
        return 0;
}

int values_pack(const Baton__Values *values, uint8_t **ret_data, size_t *ret_size) {
        size_t size = baton__values__get_packed_size(values);
        uint8_t *data = malloc(MAX(size, (size_t) 1));

        if (!data)
                return -ENOMEM;
        baton__values__pack(values, data);
        *ret_data = data;
        *ret_size = size;
        return 0;
}

/* read_varint() - a protobuf varint at @p; where it ended, or NULL when it does not. */
static const uint8_t *read_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret_value) {
        uint64_t value = 0;

        for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
                value |= (uint64_t) (*p & 0x7f) << shift;
                if (!(*p++ & 0x80)) {
                        *ret_value = value;
                        return p;
                }
        }
        return NULL;
}

/* skip_field() - the end of a field of @wire_type at @p, and what a length-delimited one holds; NULL when it is none. */
static const uint8_t *skip_field(const uint8_t *p, const uint8_t *end, unsigned wire_type, uint64_t *ret_length) {
        uint64_t length = wire_type == 1 ? 8 : 4, ignored;

        if (wire_type == 0)
                return read_varint(p, end, &ignored);
        if (wire_type == 2)
                p = read_varint(p, end, &length);
        else if (wire_type != 1 && wire_type != 5)
                return NULL;
        if (!p || length > (uint64_t) (end - p))
                return NULL;
        *ret_length = length;
        return p + length;
}

/*
 * count_fields() - counts the fields of a message, and of the values in it if it is a Values, without unpacking: known or
 * not, each will be allocated for. 0, -EBADMSG, or -E2BIG when they are more than values can have.
 */
static int count_fields(const uint8_t *p, size_t size, bool is_values, size_t *n) {
        enum { TAG_VALUES = 1 << 3 | 2, PER_VALUE = 4 };
        const uint8_t *end = p + size;

        while (p < end) {
                uint64_t tag, length = 0;
                int r = 0;

                if (++*n > (size_t) VALUES_MAX * PER_VALUE)
                        return -E2BIG;
                p = read_varint(p, end, &tag);
                /* Field 0 does not exist, though protobuf-c would take it. */
                if (p && (tag < 1 << 3 || tag > UINT32_MAX))
                        return -EBADMSG;
                if (p)
                        p = skip_field(p, end, tag & 7, &length);
                if (!p)
                        return -EBADMSG;
                if (is_values && tag == TAG_VALUES)
                        r = count_fields(p - length, length, false, n);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* check_value() - what is wrong with a value that came from elsewhere; NULL when nothing is. */
static const char *check_value(const Baton__Value *value) {
        ValueType type = value_type(value);

        if (type == _VALUE_N)
                return "a width that its type does not have";
        switch (value->v_case) {
        case BATON__VALUE__V_I:
                if (value->i < value_type_min(type) || value->i > (int64_t) value_type_max(type))
                        return "a number outside the range of its type";
                return NULL;
        case BATON__VALUE__V_U:
                if (type != VALUE_OUT && value->u > value_type_max(type))
                        return "a number outside the range of its type";
                return NULL;
        case BATON__VALUE__V_S:
                return utf8_is_valid(value->s, strlen(value->s)) ? NULL : "a string that is not UTF-8";
        default:
                return NULL;
        }
}

int values_unpack(const void *data, size_t size, Baton__Values **ret_values, char *error) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        size_t n_fields = 0;
        int r = count_fields(data, size, true, &n_fields);

        if (r == -E2BIG)
                (void) snprintf(error, VALUES_ERROR_MAX, "more than %d values", VALUES_MAX);
        if (r == -EBADMSG)
                (void) snprintf(error, VALUES_ERROR_MAX, "not a " VALUES_TYPE " message");
        if (r < 0)
                return r;
        values = baton__values__unpack(NULL, size, data);
        if (!values) {
                /* protobuf-c does not tell a malformed value from a lack of memory. */
                (void) snprintf(error, VALUES_ERROR_MAX, "not a " VALUES_TYPE " message");
                return -EBADMSG;
        }
        if (values->n_values > VALUES_MAX) {
                (void) snprintf(error, VALUES_ERROR_MAX, "more than %d values", VALUES_MAX);
                return -E2BIG;
        }
        for (size_t i = 0; i < values->n_values; i++) {
                const char *wrong = check_value(values->values[i]);

                if (wrong) {
                        (void) snprintf(error, VALUES_ERROR_MAX, "value %zu: %s", i + 1, wrong);
                        return -EBADMSG;
                }
        }
        *ret_values = TAKE_PTR(values);
        return 0;
}

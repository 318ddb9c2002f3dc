#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* baton.Values: the types a value can have, and messages built, packed and unpacked with every rule of values.proto checked. */

#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"
#include "proto/values.pb-c.h"

/* Full name of the message, as Envelope.type has it. */
#define VALUES_TYPE "baton.Values"

enum {
        VALUES_MAX = 4096,      /* values in one message: bounds what unpacking a small hostile message can allocate */
        VALUES_ERROR_MAX = 512, /* room that an error's one line needs; a longer one is cut */
};

typedef enum ValueType {
        VALUE_NULL, /* no value */
        VALUE_I8,
        VALUE_I16,
        VALUE_I32,
        VALUE_I64,
        VALUE_U8,
        VALUE_U16,
        VALUE_U32,
        VALUE_U64,
        VALUE_F32,
        VALUE_F64,
        VALUE_STRING,
        VALUE_BUFFER,
        VALUE_OUT, /* the size of a buffer that the callee provides */
        _VALUE_N,
} ValueType;

/* value_type() - the type of a value that is as values.proto says; _VALUE_N for one of an impossible width. */
ValueType value_type(const Baton__Value *value);

/* value_set_type() - makes a fresh @value one of @type, and zero. */
void value_set_type(Baton__Value *value, ValueType type);

/* value_type_name() - "u64", "string", "out", "null". */
const char *value_type_name(ValueType type);

/* value_type_parse() - the type named by the @length bytes at @name, or -EINVAL. "null" is not a name to be given. */
int value_type_parse(const char *name, size_t length, ValueType *ret_type);

/* value_type_min(), value_type_max() - the range of an integer type; 0 for another. */
int64_t value_type_min(ValueType type);
uint64_t value_type_max(ValueType type);

/* values_new() - no values yet; NULL without memory. values_free() frees them with all they point to. */
Baton__Values *values_new(void);
Baton__Values *values_free(Baton__Values *values);
DEFINE_CLEANUP(Baton__Values *, values_free);

/*
 * values_add() - appends a value of @type, zero or empty, which stays owned by @values; strings and bytes that are put
 * into it come from malloc() and are then its own. 0, -ENOMEM, or -E2BIG above VALUES_MAX.
 */
int values_add(Baton__Values *values, ValueType type, Baton__Value **ret_value);

/* values_pack() - the bytes of the message, from malloc(); never NULL on success. 0 or -ENOMEM. */
int values_pack(const Baton__Values *values, uint8_t **ret_data, size_t *ret_size);

/*
 * values_unpack() - the message in @size foreign bytes. -EBADMSG: not a message, or one that breaks a rule of
 * values.proto (a width, a number too large for it, a string that is not UTF-8); -E2BIG: more than VALUES_MAX values;
 * -ENOMEM. On failure @error, of VALUES_ERROR_MAX bytes, has one line that names the value, counted from 1. protobuf-c
 * ends a string at its first NUL byte.
 */
int values_unpack(const void *data, size_t size, Baton__Values **ret_values, char *error);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Values from JSON: what values_to_json() writes, read back. */

#include "proto/values.h"

typedef struct json_t json_t;

/*
 * values_from_json() - an array of {"type": "u64", "value": 1}, or one such object alone. -EINVAL, -ERANGE, -E2BIG (too
 * many), -ENOMEM: then @error, of VALUES_ERROR_MAX bytes, has one line that names the value, counted from 1.
 */
int values_from_json(const json_t *json, Baton__Values **ret_values, char *error);

/* hex_from_json() - the bytes of a string of hexadecimal digits, from malloc(). 0, -EINVAL, -ENOMEM. */
int hex_from_json(const json_t *json, uint8_t **ret_data, size_t *ret_size);

/* hex_to_json() - the other way; NULL without memory. */
json_t *hex_to_json(const void *data, size_t size);

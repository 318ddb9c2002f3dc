#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Values as people write and read them. On the command line a value is TYPE:TEXT:
 *
 *         i8: i16: i32: i64: u8: u16: u32: u64:    decimal, or hexadecimal after 0x
 *         f32: f64:                                decimal, hexadecimal, inf, nan
 *         string:TEXT                              the rest, as it is; UTF-8
 *         buffer:@FILE  buffer:hex:DIGITS          bytes of a file, or given
 *         buffer:-                                 standard input up to its end; once in a command
 *         out:SIZE                                 a buffer of SIZE bytes (suffix K, M, G) that the callee fills
 */

#include "proto/values.h"

typedef struct json_t json_t;

/*
 * values_parse() - the @n texts as values. Together they take at most @max_bytes packed, and no file is read further than
 * that. -EINVAL, -ERANGE, -E2BIG (too large), or what open() and read() said: then @error, of VALUES_ERROR_MAX bytes, has
 * one line that names the argument, counted from 1: "argument 3 (u32:-1): not a number from 0 to 4294967295".
 */
int values_parse(char *const *texts, size_t n, size_t max_bytes, Baton__Values **ret_values, char *error);

/*
 * values_format() - the values for people, one per line, each with its newline; from malloc(). Integers in decimal,
 * floats with as few digits as give the same number again, buffers in hexadecimal, null as "null", strings as they are
 * but for control characters (C0, DEL, C1), which are written \n, \t, \xNN or \u00NN so that a value stays one line and a
 * terminal is not steered. "" for no values. 0 or -ENOMEM.
 */
int values_format(const Baton__Values *values, char **ret_text);

/*
 * values_to_json() - the values for programs: an array of {"type": "u64", "value": 1}, which the caller owns. Exact: u64
 * above 2^63-1 is a string of its decimal digits, since JSON integers are signed 64-bit here; "nan", "inf" and "-inf" are
 * strings; buffers are strings of hexadecimal digits; null is null. 0 or -ENOMEM.
 */
int values_to_json(const Baton__Values *values, json_t **ret_json);

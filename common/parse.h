#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Strict parsers: the whole text is the value, or it is refused. No leading blanks, no sign where none belongs, no
 * trailing bytes, no silent overflow. All return 0, -EINVAL (not such a value) or -ERANGE (one outside the range).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* parse_u64() - decimal, or hexadecimal after 0x; at most @max. */
int parse_u64(const char *text, uint64_t max, uint64_t *ret_value);

/* parse_i64() - as parse_u64(), with an optional leading '-'; from @min to @max. */
int parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value);

/* parse_double() - what strtod() reads with the C locale's point: decimal, hexadecimal, "inf", "nan". */
int parse_double(const char *text, double *ret_value);

/* parse_duration() - a number with an optional fraction and the unit us, ms, s, min or h (no unit: s), in microseconds. */
int parse_duration(const char *text, uint64_t *ret_us);

/* parse_size() - bytes, with an optional suffix K, M, G (powers of 1024); at most @max. */
int parse_size(const char *text, uint64_t max, uint64_t *ret_bytes);

/* parse_hex() - pairs of hexadecimal digits into at most @size bytes; how many in @ret_length. */
int parse_hex(const char *text, uint8_t *bytes, size_t size, size_t *ret_length);

/* parse_signal() - a signal's number, or its name with or without "SIG". */
int parse_signal(const char *text, int *ret_signal);

/* parse_fd() - a descriptor number that is open in this process; -EBADF when it is not. */
int parse_fd(const char *text, int *ret_fd);

/* utf8_is_valid() - whether the @size bytes are UTF-8 (no overlong form, no surrogate, at most U+10FFFF) without NUL. */
bool utf8_is_valid(const void *text, size_t size);

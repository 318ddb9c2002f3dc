/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Parsers of small values. The C library's forgive too much (blanks, signs on unsigned numbers, trailing text, overflow
 * told only by errno); these refuse all of it, so that a typing error is an error and never another value.
 */

#include "common/parse.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/macro.h"

static int digit_value(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return 99;
}

/* parse_digits() - the number at the start of @text in @base; where it ended in @ret_end. */
static int parse_digits(const char *text, int base, uint64_t *ret_value, const char **ret_end) {
        uint64_t value = 0;
        bool over = false;
        const char *p;

        for (p = text; digit_value(*p) < base; p++) {
                over |= __builtin_mul_overflow(value, (uint64_t) base, &value);
                over |= __builtin_add_overflow(value, (uint64_t) digit_value(*p), &value);
        }
        if (p == text)
                return -EINVAL;
        *ret_end = p;
        if (over)
                return -ERANGE;
        *ret_value = value;
        return 0;
}

int parse_u64(const char *text, uint64_t max, uint64_t *ret_value) {
        int base = strncasecmp(text, "0x", 2) == 0 ? 16 : 10;
        const char *end = text;
        uint64_t value = 0;
        int r;

        r = parse_digits(base == 16 ? text + 2 : text, base, &value, &end);
        if (r == -EINVAL || *end)
                return -EINVAL;
        if (r < 0 || value > max)
                return -ERANGE;
        *ret_value = value;
        return 0;
}

int parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value) {
        bool negative = *text == '-';
        uint64_t magnitude;
        int64_t value;
        int r;

        r = parse_u64(text + negative, (uint64_t) INT64_MAX + negative, &magnitude);
        if (r < 0)
                return r;
        value = negative ? (int64_t) (0 - magnitude) : (int64_t) magnitude;
        if (value < min || value > max)
                return -ERANGE;
        *ret_value = value;
        return 0;
}

int parse_double(const char *text, double *ret_value) {
        double value;
        char *end;

        if (*text == '\0' || isspace((unsigned char) *text) || *text == '+')
                return -EINVAL;
        errno = 0;
        value = strtod(text, &end);
        if (*end)
                return -EINVAL;
        if (errno == ERANGE)
                return -ERANGE;
        *ret_value = value;
        return 0;
}

int parse_duration(const char *text, uint64_t *ret_us) {
        static const struct {
                const char *name;
                uint64_t us;
        } units[] = {
                { "us", 1 },     { "ms", 1000 }, { "s", 1000000 }, { "min", 60000000 }, { "h", UINT64_C(3600000000) },
                { "", 1000000 },
        };
        uint64_t whole, unit = 0, fraction = 0, scale = 1;
        const char *p;
        int r;

        r = parse_digits(text, 10, &whole, &p);
        if (r < 0)
                return r;
        if (*p == '.') {
                const char *start = ++p;

                for (; isdigit((unsigned char) *p); p++) {
                        if (scale >= 1000000)
                                continue; /* below a microsecond of any second: not kept */
                        fraction = fraction * 10 + (uint64_t) (*p - '0');
                        scale *= 10;
                }
                if (p == start)
                        return -EINVAL;
        }
        for (size_t i = 0; i < ARRAY_SIZE(units); i++)
                if (strcmp(p, units[i].name) == 0)
                        unit = units[i].us;
        if (unit == 0)
                return -EINVAL;
        if (__builtin_mul_overflow(whole, unit, &whole) ||
            __builtin_add_overflow(whole, fraction * unit / scale, &whole))
                return -ERANGE;
        *ret_us = whole;
        return 0;
}

int parse_size(const char *text, uint64_t max, uint64_t *ret_bytes) {
        static const char suffixes[] = "KMG";
        const char *end = text;
        uint64_t value = 0;
        int r;

        r = parse_digits(text, 10, &value, &end);
        if (r == -EINVAL)
                return r;
        if (*end) {
                const char *suffix = strchr(suffixes, *end);

                if (!suffix || end[1])
                        return -EINVAL;
                if (r == 0 && __builtin_mul_overflow(value, UINT64_C(1) << (10 * (suffix - suffixes + 1)), &value))
                        r = -ERANGE;
        }
        if (r < 0 || value > max)
                return -ERANGE;
        *ret_bytes = value;
        return 0;
}

int parse_hex(const char *text, uint8_t *bytes, size_t size, size_t *ret_length) {
        size_t length = strlen(text);

        if (length % 2)
                return -EINVAL;
        if (length / 2 > size)
                return -ERANGE;
        for (size_t i = 0; i < length / 2; i++) {
                int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);

                if (high > 15 || low > 15)
                        return -EINVAL;
                bytes[i] = (uint8_t) (high << 4 | low);
        }
        *ret_length = length / 2;
        return 0;
}

int parse_signal(const char *text, int *ret_signal) {
        const char *name = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
        uint64_t number;

        if (isdigit((unsigned char) *text)) {
                int r = parse_u64(text, (uint64_t) SIGRTMAX, &number);

                if (r < 0 || number == 0)
                        return r < 0 ? r : -ERANGE;
                *ret_signal = (int) number;
                return 0;
        }
        for (int i = 1; i < SIGRTMIN; i++) {
                const char *known = sigabbrev_np(i);

                if (known && strcmp(name, known) == 0) {
                        *ret_signal = i;
                        return 0;
                }
        }
        return -EINVAL;
}

int parse_fd(const char *text, int *ret_fd) {
        uint64_t number;
        int r;

        r = parse_u64(text, INT32_MAX, &number);
        if (r < 0)
                return r;
        if (fcntl((int) number, F_GETFD) < 0)
                return -EBADF;
        *ret_fd = (int) number;
        return 0;
}

/* utf8_length() - the length of the sequence at @p, of which @left bytes are there; 0 when it is none. */
static size_t utf8_length(const uint8_t *p, size_t left) {
        static const uint32_t lowest[] = { [2] = 0x80, [3] = 0x800, [4] = 0x10000 };
        size_t n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
        uint32_t c;

        if (*p < 0xc2 || *p > 0xf4 || n > left)
                return 0;
        c = *p & (0x7fu >> n);
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3f);
        }
        return c < lowest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

/* is_ascii_word() - eight bytes, each an ASCII character and none of them NUL. */
static bool is_ascii_word(const uint8_t *p) {
        const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        return !((word | (word - ones)) & highs);
}

/* skip_ascii() - eight bytes at a time: all that most names are made of. What is left at the end shares some with before. */
static const uint8_t *skip_ascii(const uint8_t *p, const uint8_t *end) {
        bool is_long = end - p >= 8;

        for (; end - p >= 8; p += 8)
                if (!is_ascii_word(p))
                        return p;
        return is_long && is_ascii_word(end - 8) ? end : p;
}

bool utf8_is_valid(const void *text, size_t size) {
        const uint8_t *end = (const uint8_t *) text + size, *p = skip_ascii(text, end);

        while (p < end) {
                size_t n;

                if (*p - 1u < 0x7f) {
                        p++;
                        continue;
                }
                n = *p ? utf8_length(p, (size_t) (end - p)) : 0;
                if (n == 0)
                        return false;
                p += n;
        }
        return true;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Covers common/parse, by tables: each row is a text, the result and, where it is accepted, the value. */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"

#define UNTOUCHED UINT64_C(0xdeadbeefdeadbeef)

static void check(const char *text, int r, int expected, uint64_t value, uint64_t expected_value) {
        if (r != expected || value != (r == 0 ? expected_value : UNTOUCHED))
                fail_msg("\"%s\": result %d and value %llu, expected %d and %llu", text, r, (unsigned long long) value,
                         expected, (unsigned long long) (expected == 0 ? expected_value : UNTOUCHED));
}

static void test_u64(void **state) {
        static const struct {
                const char *text;
                uint64_t max;
                int r;
                uint64_t value;
        } rows[] = {
                { "0", UINT64_MAX, 0, 0 },
                { "00017", UINT64_MAX, 0, 17 },
                { "18446744073709551615", UINT64_MAX, 0, UINT64_MAX },
                { "18446744073709551616", UINT64_MAX, -ERANGE, 0 },
                { "99999999999999999999999", UINT64_MAX, -ERANGE, 0 },
                { "0xff", UINT64_MAX, 0, 255 },
                { "0XfF", UINT64_MAX, 0, 255 },
                { "0xffffffffffffffff", UINT64_MAX, 0, UINT64_MAX },
                { "0x10000000000000000", UINT64_MAX, -ERANGE, 0 },
                { "255", 255, 0, 255 },
                { "256", 255, -ERANGE, 0 },
                { "0", 0, 0, 0 },
                { "1", 0, -ERANGE, 0 },
                { "", UINT64_MAX, -EINVAL, 0 },
                { "0x", UINT64_MAX, -EINVAL, 0 },
                { "x1", UINT64_MAX, -EINVAL, 0 },
                { " 1", UINT64_MAX, -EINVAL, 0 },
                { "1 ", UINT64_MAX, -EINVAL, 0 },
                { "1\n", UINT64_MAX, -EINVAL, 0 },
                { "+1", UINT64_MAX, -EINVAL, 0 },
                { "-1", UINT64_MAX, -EINVAL, 0 },
                { "-0", UINT64_MAX, -EINVAL, 0 },
                { "1.0", UINT64_MAX, -EINVAL, 0 },
                { "1e3", UINT64_MAX, -EINVAL, 0 },
                { "ff", UINT64_MAX, -EINVAL, 0 },
                { "0xfg", UINT64_MAX, -EINVAL, 0 },
                { "99999999999999999999999x", UINT64_MAX, -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t value = UNTOUCHED;
                int r = parse_u64(rows[i].text, rows[i].max, &value);

                check(rows[i].text, r, rows[i].r, value, rows[i].value);
        }
}

static void test_i64(void **state) {
        static const struct {
                const char *text;
                int64_t min, max;
                int r;
                int64_t value;
        } rows[] = {
                { "0", INT64_MIN, INT64_MAX, 0, 0 },
                { "-0", INT64_MIN, INT64_MAX, 0, 0 },
                { "-1", INT64_MIN, INT64_MAX, 0, -1 },
                { "9223372036854775807", INT64_MIN, INT64_MAX, 0, INT64_MAX },
                { "9223372036854775808", INT64_MIN, INT64_MAX, -ERANGE, 0 },
                { "-9223372036854775808", INT64_MIN, INT64_MAX, 0, INT64_MIN },
                { "-9223372036854775809", INT64_MIN, INT64_MAX, -ERANGE, 0 },
                { "-0x80", -128, 127, 0, -128 },
                { "-129", -128, 127, -ERANGE, 0 },
                { "128", -128, 127, -ERANGE, 0 },
                { "127", -128, 127, 0, 127 },
                { "--1", INT64_MIN, INT64_MAX, -EINVAL, 0 },
                { "-", INT64_MIN, INT64_MAX, -EINVAL, 0 },
                { "- 1", INT64_MIN, INT64_MAX, -EINVAL, 0 },
                { "+1", INT64_MIN, INT64_MAX, -EINVAL, 0 },
                { "", INT64_MIN, INT64_MAX, -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int64_t value = (int64_t) UNTOUCHED;
                int r = parse_i64(rows[i].text, rows[i].min, rows[i].max, &value);

                check(rows[i].text, r, rows[i].r, (uint64_t) value, (uint64_t) rows[i].value);
        }
}

static void test_double(void **state) {
        static const struct {
                const char *text;
                int r;
                double value;
        } rows[] = {
                { "0", 0, 0. },           { "-1.5", 0, -1.5 },       { "1e3", 0, 1000. },
                { ".5", 0, .5 },          { "0x1p-2", 0, .25 },      { "inf", 0, INFINITY },
                { "-inf", 0, -INFINITY }, { "", -EINVAL, 0. },       { " 1", -EINVAL, 0. },
                { "1 ", -EINVAL, 0. },    { "+1", -EINVAL, 0. },     { "1,5", -EINVAL, 0. },
                { "1e", -EINVAL, 0. },    { "x", -EINVAL, 0. },      { "-", -EINVAL, 0. },
                { "1e999", -ERANGE, 0. }, { "-1e999", -ERANGE, 0. }, { "1e-999", -ERANGE, 0. },
        };
        double value;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int r;

                value = 42.;
                r = parse_double(rows[i].text, &value);
                if (r != rows[i].r || memcmp(&value, r == 0 ? &rows[i].value : &(double){ 42. }, sizeof(value)) != 0)
                        fail_msg("\"%s\": result %d and value %g", rows[i].text, r, value);
        }
        assert_int_equal(parse_double("nan", &value), 0);
        assert_true(isnan(value));
}

static void test_duration(void **state) {
        static const struct {
                const char *text;
                int r;
                uint64_t value;
        } rows[] = {
                { "0", 0, 0 },
                { "3", 0, 3000000 },
                { "3s", 0, 3000000 },
                { "250ms", 0, 250000 },
                { "17us", 0, 17 },
                { "2min", 0, 120000000 },
                { "1h", 0, UINT64_C(3600000000) },
                { "1.5s", 0, 1500000 },
                { "0.25ms", 0, 250 },
                { "0.0000019s", 0, 1 },
                { "1.5us", 0, 1 },
                { "1.999999999999999999999s", 0, 1999999 },
                { "0.5h", 0, UINT64_C(1800000000) },
                { "18446744073709551615us", 0, UINT64_MAX },
                { "18446744073709551616us", -ERANGE, 0 },
                { "18446744073710s", -ERANGE, 0 },
                { "5124095577h", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "s", -EINVAL, 0 },
                { ".5s", -EINVAL, 0 },
                { "1.s", -EINVAL, 0 },
                { "1 s", -EINVAL, 0 },
                { "-1s", -EINVAL, 0 },
                { "1m", -EINVAL, 0 },
                { "1S", -EINVAL, 0 },
                { "1.5.5s", -EINVAL, 0 },
                { "1ss", -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t value = UNTOUCHED;
                int r = parse_duration(rows[i].text, &value);

                check(rows[i].text, r, rows[i].r, value, rows[i].value);
        }
}

static void test_size(void **state) {
        static const struct {
                const char *text;
                uint64_t max;
                int r;
                uint64_t value;
        } rows[] = {
                { "0", UINT64_MAX, 0, 0 },
                { "4096", UINT64_MAX, 0, 4096 },
                { "8K", UINT64_MAX, 0, 8192 },
                { "8M", UINT64_MAX, 0, UINT64_C(8) << 20 },
                { "3G", UINT64_MAX, 0, UINT64_C(3) << 30 },
                { "64K", 65536, 0, 65536 },
                { "65K", 65536, -ERANGE, 0 },
                { "65537", 65536, -ERANGE, 0 },
                { "17179869183G", UINT64_MAX, 0, UINT64_C(17179869183) << 30 },
                { "17179869184G", UINT64_MAX, -ERANGE, 0 },
                { "18446744073709551616", UINT64_MAX, -ERANGE, 0 },
                { "18446744073709551616K", UINT64_MAX, -ERANGE, 0 },
                { "", UINT64_MAX, -EINVAL, 0 },
                { "K", UINT64_MAX, -EINVAL, 0 },
                { "8k", UINT64_MAX, -EINVAL, 0 },
                { "8KB", UINT64_MAX, -EINVAL, 0 },
                { "8 K", UINT64_MAX, -EINVAL, 0 },
                { "-8", UINT64_MAX, -EINVAL, 0 },
                { "0x10", UINT64_MAX, -EINVAL, 0 },
                { "1.5K", UINT64_MAX, -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t value = UNTOUCHED;
                int r = parse_size(rows[i].text, rows[i].max, &value);

                check(rows[i].text, r, rows[i].r, value, rows[i].value);
        }
}

static void test_hex(void **state) {
        static const struct {
                const char *text;
                size_t size;
                int r;
                size_t length;
                uint8_t bytes[4];
        } rows[] = {
                { "", 4, 0, 0, { 0 } },
                { "", 0, 0, 0, { 0 } },
                { "00", 4, 0, 1, { 0 } },
                { "00fFA5", 4, 0, 3, { 0x00, 0xff, 0xa5 } },
                { "01020304", 4, 0, 4, { 1, 2, 3, 4 } },
                { "0102030405", 4, -ERANGE, 0, { 0 } },
                { "0", 4, -EINVAL, 0, { 0 } },
                { "010", 4, -EINVAL, 0, { 0 } },
                { "0g", 4, -EINVAL, 0, { 0 } },
                { "g0", 4, -EINVAL, 0, { 0 } },
                { "0x01", 4, -EINVAL, 0, { 0 } },
                { "01 2", 4, -EINVAL, 0, { 0 } },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint8_t bytes[4] = { 0 };
                size_t length = SIZE_MAX;
                int r = parse_hex(rows[i].text, bytes, rows[i].size, &length);

                if (r != rows[i].r || length != (r == 0 ? rows[i].length : SIZE_MAX) ||
                    (r == 0 && memcmp(bytes, rows[i].bytes, length) != 0))
                        fail_msg("\"%s\": result %d, length %zu", rows[i].text, r, length);
        }
}

static void test_signal(void **state) {
        static const struct {
                const char *text;
                int r, value;
        } rows[] = {
                { "SIGTERM", 0, SIGTERM },
                { "TERM", 0, SIGTERM },
                { "KILL", 0, SIGKILL },
                { "SIGUSR1", 0, SIGUSR1 },
                { "9", 0, 9 },
                { "1", 0, 1 },
                { "64", 0, 64 },
                { "0", -ERANGE, 0 },
                { "65", -ERANGE, 0 },
                { "", -EINVAL, 0 },
                { "SIG", -EINVAL, 0 },
                { "term", -EINVAL, 0 },
                { "SIGSIGTERM", -EINVAL, 0 },
                { "TERM ", -EINVAL, 0 },
                { "-9", -EINVAL, 0 },
                { "9x", -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int value = -1, r = parse_signal(rows[i].text, &value);

                if (r != rows[i].r || value != (r == 0 ? rows[i].value : -1))
                        fail_msg("\"%s\": result %d and value %d", rows[i].text, r, value);
        }
}

static void test_fd(void **state) {
        int fd = dup(STDIN_FILENO), value = -1;
        char text[16];

        (void) state;
        (void) snprintf(text, sizeof(text), "%d", fd);
        assert_int_equal(parse_fd(text, &value), 0);
        assert_int_equal(value, fd);
        assert_int_equal(close(fd), 0);
        value = -1;
        assert_int_equal(parse_fd(text, &value), -EBADF);
        assert_int_equal(parse_fd("-1", &value), -EINVAL);
        assert_int_equal(parse_fd("", &value), -EINVAL);
        assert_int_equal(parse_fd("3x", &value), -EINVAL);
        assert_int_equal(parse_fd("2147483648", &value), -ERANGE);
        assert_int_equal(parse_fd("4294967296", &value), -ERANGE);
        assert_int_equal(value, -1);
}

/* The rows of the Unicode standard's table 3-7 at their edges, each cut and each spoiled. */
static void test_utf8(void **state) {
        static const struct {
                const char *text;
                size_t size;
                bool valid;
        } rows[] = {
                { "", 0, true },
                { "plain\n\x7f", 7, true },
                { "\0", 1, false },
                { "a\0b", 3, false },
                { "\x80", 1, false },
                { "\xbf", 1, false },
                { "\xc0\x80", 2, false },
                { "\xc1\xbf", 2, false },
                { "\xc2\x80", 2, true },
                { "\xdf\xbf", 2, true },
                { "\xc2", 1, false },
                { "\xc2\x7f", 2, false },
                { "\xc2\xc0", 2, false },
                { "\xe0\x9f\xbf", 3, false },
                { "\xe0\xa0\x80", 3, true },
                { "\xe0\xa0", 2, false },
                { "\xed\x9f\xbf", 3, true },
                { "\xed\xa0\x80", 3, false },
                { "\xed\xbf\xbf", 3, false },
                { "\xee\x80\x80", 3, true },
                { "\xef\xbf\xbf", 3, true },
                { "\xef\xbf\x7f", 3, false },
                { "\xf0\x8f\xbf\xbf", 4, false },
                { "\xf0\x90\x80\x80", 4, true },
                { "\xf0\x90\x80", 3, false },
                { "\xf4\x8f\xbf\xbf", 4, true },
                { "\xf4\x90\x80\x80", 4, false },
                { "\xf5\x80\x80\x80", 4, false },
                { "\xff", 1, false },
                { "ok \xe2\x82\xac \xf0\x9f\x98\x80", 11, true },
                { "ok \xe2\x82\xac \xf0\x9f\x98", 10, false },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (utf8_is_valid(rows[i].text, rows[i].size) != rows[i].valid)
                        fail_msg("row %zu: expected %d", i, rows[i].valid);
}

/* utf8_reference() - the code point of every encoder's making must pass; the check by decoding is independent of ours. */
static void test_utf8_every_code_point(void **state) {
        (void) state;
        for (uint32_t c = 1; c <= 0x10ffff; c++) {
                bool surrogate = c >= 0xd800 && c <= 0xdfff;
                uint8_t b[4];
                size_t n;

                if (c < 0x80) {
                        b[0] = (uint8_t) c;
                        n = 1;
                } else if (c < 0x800) {
                        b[0] = (uint8_t) (0xc0 | c >> 6);
                        n = 2;
                } else if (c < 0x10000) {
                        b[0] = (uint8_t) (0xe0 | c >> 12);
                        n = 3;
                } else {
                        b[0] = (uint8_t) (0xf0 | c >> 18);
                        n = 4;
                }
                for (size_t i = 1; i < n; i++)
                        b[i] = (uint8_t) (0x80 | ((c >> 6 * (n - 1 - i)) & 0x3f));
                if (utf8_is_valid(b, n) == surrogate)
                        fail_msg("U+%04X: expected %d", c, !surrogate);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_u64), TEST(test_i64),    TEST(test_double), TEST(test_duration), TEST(test_size),
        TEST(test_hex), TEST(test_signal), TEST(test_fd),     TEST(test_utf8),     TEST(test_utf8_every_code_point),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

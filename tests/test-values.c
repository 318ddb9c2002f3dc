/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers proto/values and proto/values-text: arguments read from the command line, results printed as lines and as JSON,
 * messages from elsewhere checked. By tables; what is accepted is compared as the message it becomes.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/values-text.h"
#include "proto/values.h"
#include "tests/seam.h"

#define ROOM 65536

/* parse_and_format() - what the texts print as again, or the error; from malloc(). */
static char *parse_and_format(const char *const *texts, size_t n, size_t room, int *ret_r) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX] = "", *text = NULL;

        *ret_r = values_parse((char *const *) texts, n, room, &values, error);
        if (*ret_r < 0) {
                assert_null(values);
                assert_null(strchr(error, '\n'));
                return strdup(error);
        }
        assert_string_equal(error, "");
        assert_int_equal(values_format(values, &text), 0);
        return text;
}

static void test_arguments(void **state) {
        static const struct {
                const char *text;
                const char *printed;
        } rows[] = {
                { "i8:-128", "-128" },
                { "i8:127", "127" },
                { "i16:-32768", "-32768" },
                { "i32:-2147483648", "-2147483648" },
                { "i64:-9223372036854775808", "-9223372036854775808" },
                { "i64:9223372036854775807", "9223372036854775807" },
                { "i8:-0x80", "-128" },
                { "u8:0", "0" },
                { "u8:0xff", "255" },
                { "u16:65535", "65535" },
                { "u32:4294967295", "4294967295" },
                { "u64:18446744073709551615", "18446744073709551615" },
                { "f32:0.1", "0.1" },
                { "f32:-0", "-0" },
                { "f32:16777217", "16777216" },
                { "f32:3.4028235e38", "3.4028235e+38" },
                { "f32:1e-45", "1e-45" },
                { "f32:0.333333343", "0.33333334" },
                /* Rounding to double first would give 1.00000012. */
                { "f32:1.000000059604644775390625000000000000000001", "1.0000001" },
                { "f32:1.000000059604644775390625", "1" },
                { "f64:0.1", "0.1" },
                { "f64:0.30000000000000004", "0.30000000000000004" },
                { "f64:1e308", "1e+308" },
                { "f64:1330", "1330" },
                { "f64:-1e16", "-10000000000000000" },
                { "f64:1e17", "1e+17" },
                { "f64:0.00012", "0.00012" },
                { "f64:0.000012", "1.2e-05" },
                { "f32:123456789", "123456792" },
                { "f32:1e9", "1e+09" },
                { "f64:5e-324", "5e-324" },
                { "f64:0x1p-3", "0.125" },
                { "f64:inf", "inf" },
                { "f32:-inf", "-inf" },
                { "f32:nan", "nan" },
                { "f64:0", "0" },
                { "string:", "" },
                { "string:a:b c", "a:b c" },
                { "string:back\\slash", "back\\slash" },
                { "string:gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80" },
                { "string:a\nb\tc\rd\x1b[1m\x7f", "a\\nb\\tc\\rd\\x1b[1m\\x7f" },
                { "string:\xc2\x9b", "\\u009b" },
                { "string:\xc2\xa0", "\xc2\xa0" },
                { "buffer:hex:", "" },
                { "buffer:hex:00fFa5", "00ffa5" },
                { "buffer:@/dev/null", "" },
                { "out:0", "0" },
                { "out:64K", "65536" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_free_ char *expected = NULL, *printed = NULL;
                int r;

                assert_int_not_equal(asprintf(&expected, "%s\n", rows[i].printed), -1);
                printed = parse_and_format(&rows[i].text, 1, ROOM, &r);
                assert_non_null(printed);
                if (r != 0 || strcmp(printed, expected) != 0)
                        fail_msg("%s: result %d, \"%s\", expected \"%s\"", rows[i].text, r, printed, expected);
        }
}

static void test_refused_arguments(void **state) {
        static const char types[] =
                "not TYPE:VALUE with TYPE one of i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string buffer out";
        static const char forms[] = "give buffer:@FILE, buffer:hex:DIGITS or buffer:- (standard input)";
        static const struct {
                const char *text;
                int r;
                const char *shown; /* NULL: as it was given */
                const char *reason;
        } rows[] = {
                { "", -EINVAL, NULL, types },
                { "7", -EINVAL, NULL, types },
                { ":7", -EINVAL, NULL, types },
                { "int:7", -EINVAL, NULL, types },
                { "U8:7", -EINVAL, NULL, types },
                { "null:", -EINVAL, NULL, types },
                { "u8 :7", -EINVAL, NULL, types },
                { "i8:-129", -ERANGE, NULL, "not a number from -128 to 127" },
                { "i8:128", -ERANGE, NULL, "not a number from -128 to 127" },
                { "i16:32768", -ERANGE, NULL, "not a number from -32768 to 32767" },
                { "i32:2147483648", -ERANGE, NULL, "not a number from -2147483648 to 2147483647" },
                { "i64:9223372036854775808", -ERANGE, NULL,
                  "not a number from -9223372036854775808 to 9223372036854775807" },
                { "i64:", -EINVAL, NULL, "not a number from -9223372036854775808 to 9223372036854775807" },
                { "u8:256", -ERANGE, NULL, "not a number from 0 to 255" },
                { "u16:65536", -ERANGE, NULL, "not a number from 0 to 65535" },
                { "u32:-1", -EINVAL, NULL, "not a number from 0 to 4294967295" },
                { "u32: 1", -EINVAL, NULL, "not a number from 0 to 4294967295" },
                { "u32:1.0", -EINVAL, NULL, "not a number from 0 to 4294967295" },
                { "u32:one", -EINVAL, NULL, "not a number from 0 to 4294967295" },
                { "u64:18446744073709551616", -ERANGE, NULL, "not a number from 0 to 18446744073709551615" },
                { "f32:", -EINVAL, NULL, "not a number" },
                { "f32:1,5", -EINVAL, NULL, "not a number" },
                { "f64:+1", -EINVAL, NULL, "not a number" },
                { "f64:1 ", -EINVAL, NULL, "not a number" },
                { "f32:3.5e38", -ERANGE, NULL, "outside the range of f32" },
                { "f32:-1e-50", -ERANGE, NULL, "outside the range of f32" },
                { "f64:1e309", -ERANGE, NULL, "outside the range of f64" },
                { "f64:1e-400", -ERANGE, NULL, "outside the range of f64" },
                { "string:\xff", -EINVAL, "string:\\xff", "not UTF-8" },
                { "string:\xc3", -EINVAL, "string:\\xc3", "not UTF-8" },
                { "string:\xed\xa0\x80", -EINVAL, "string:\\xed\\xa0\\x80", "not UTF-8" },
                { "buffer:", -EINVAL, NULL, forms },
                { "buffer:text", -EINVAL, NULL, forms },
                { "buffer:--", -EINVAL, NULL, forms },
                { "buffer:hex:0", -EINVAL, NULL, "not pairs of hexadecimal digits" },
                { "buffer:hex:0g", -EINVAL, NULL, "not pairs of hexadecimal digits" },
                { "buffer:hex:00\n", -EINVAL, "buffer:hex:00\\n", "not pairs of hexadecimal digits" },
                { "buffer:@", -ENOENT, NULL, "cannot open it: No such file or directory" },
                { "buffer:@/nonexistent", -ENOENT, NULL, "cannot open it: No such file or directory" },
                { "buffer:@/", -EISDIR, NULL, "cannot read it: Is a directory" },
                { "buffer:@/dev/zero", -E2BIG, NULL, "larger than the 65533 bytes that a call can still carry" },
                { "out:", -EINVAL, NULL, "not a size in bytes (a suffix K, M or G is allowed)" },
                { "out:-1", -EINVAL, NULL, "not a size in bytes (a suffix K, M or G is allowed)" },
                { "out:1T", -EINVAL, NULL, "not a size in bytes (a suffix K, M or G is allowed)" },
                { "i8:1234567890123456789012345678901234567890123456789012345678901234567890", -ERANGE,
                  "i8:123456789012345678901234567890123456789012345678901234567...", "not a number from -128 to 127" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                const char *texts[] = { "string:abc", rows[i].text, "u8:1" };
                _cleanup_free_ char *expected = NULL, *error = NULL;
                int r;

                assert_int_not_equal(asprintf(&expected, "argument 2 (%s): %s",
                                              rows[i].shown ? rows[i].shown : rows[i].text, rows[i].reason),
                                     -1);
                error = parse_and_format(texts, ARRAY_SIZE(texts), ROOM, &r);
                assert_non_null(error);
                if (r != rows[i].r || strcmp(error, expected) != 0)
                        fail_msg("result %d, \"%s\"\nexpected %d, \"%s\"", r, error, rows[i].r, expected);
        }
}

/* What is left for a call, to the byte. */
static void test_room(void **state) {
        static const char *const strings[] = { "string:abc", "string:de" };
        static const char *const hex[] = { "buffer:hex:0102", "buffer:hex:0304" };
        static const char *const numbers[] = { "u64:18446744073709551615", "u64:18446744073709551615" };
        static const struct {
                const char *const *texts;
                size_t room;
                int r;
                const char *error;
        } rows[] = {
                { strings, 5 + 8, 0, NULL },
                { strings, 5 + 7, -E2BIG, "all arguments together: 13 bytes, more than the 12 of a call" },
                { strings, 4, -E2BIG, "argument 2 (string:de): larger than the 1 bytes that a call can still carry" },
                { strings, 2, -E2BIG, "argument 1 (string:abc): larger than the 2 bytes that a call can still carry" },
                { hex, 3, -E2BIG,
                  "argument 2 (buffer:hex:0304): larger than the 1 bytes that a call can still carry" },
                { numbers, 30, 0, NULL },
                { numbers, 29, -E2BIG, "all arguments together: 30 bytes, more than the 29 of a call" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_free_ char *text = NULL;
                int r;

                text = parse_and_format(rows[i].texts, 2, rows[i].room, &r);
                assert_non_null(text);
                if (r != rows[i].r || (r < 0 && strcmp(text, rows[i].error) != 0))
                        fail_msg("row %zu: result %d, \"%s\"", i, r, text);
        }
}

static void test_too_many(void **state) {
        _cleanup_free_ const char **texts = calloc(VALUES_MAX + 1, sizeof(*texts));
        _cleanup_free_ char *text = NULL, *error = NULL;
        int r;

        (void) state;
        assert_non_null(texts);
        for (size_t i = 0; i <= VALUES_MAX; i++)
                texts[i] = "u8:1";
        text = parse_and_format(texts, VALUES_MAX, ROOM, &r);
        assert_int_equal(r, 0);
        error = parse_and_format(texts, VALUES_MAX + 1, ROOM, &r);
        assert_int_equal(r, -E2BIG);
        assert_string_equal(error, "argument 4097 (u8:1): one more than the 4096 values that a call can have");
}

/* with_stdin() - parses the texts while standard input holds @size bytes of 'x'. */
static char *with_stdin(size_t size, const char *const *texts, size_t n, size_t room, int *ret_r) {
        _cleanup_fd_ int saved = fd_dup(STDIN_FILENO), file = memfd_create("stdin", MFD_CLOEXEC);
        char *bytes = malloc(size + 1), *text;

        assert_true(saved >= 0 && file >= 0 && bytes);
        memset(bytes, 'x', size);
        assert_int_equal(write(file, bytes, size), size);
        free(bytes);
        assert_int_equal(lseek(file, 0, SEEK_SET), 0);
        assert_int_equal(dup2(file, STDIN_FILENO), STDIN_FILENO);
        text = parse_and_format(texts, n, room, ret_r);
        assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
        return text;
}

static void test_stdin(void **state) {
        static const char *const once[] = { "buffer:-", "u32:3" }, *const twice[] = { "buffer:-", "buffer:-" };
        _cleanup_free_ char *three = NULL, *many = NULL, *fit = NULL, *over = NULL, *again = NULL;
        int r;

        (void) state;
        three = with_stdin(3, once, 2, ROOM, &r);
        assert_int_equal(r, 0);
        assert_string_equal(three, "787878\n3\n");
        many = with_stdin(300000, once, 1, 1 << 20, &r);
        assert_int_equal(r, 0);
        assert_int_equal(strspn(many, "78"), 600000);
        assert_string_equal(many + 600000, "\n");
        fit = with_stdin(1000, once, 1, 1006, &r);
        assert_int_equal(r, 0);
        over = with_stdin(1000, once, 1, 999, &r);
        assert_int_equal(r, -E2BIG);
        assert_string_equal(over, "argument 1 (buffer:-): larger than the 999 bytes that a call can still carry");
        again = with_stdin(3, twice, 2, ROOM, &r);
        assert_int_equal(r, -EINVAL);
        assert_string_equal(again, "argument 2 (buffer:-): standard input can be only one of the arguments");
}

static void test_file(void **state) {
        _cleanup_fd_ int file = memfd_create("file", MFD_CLOEXEC);
        _cleanup_free_ char *text = NULL, *printed = NULL, *limited = NULL;
        static const char bytes[] = { 0, '\n', (char) 0xff };
        unsigned long limit;
        int r;

        (void) state;
        assert_int_equal(write(file, bytes, sizeof(bytes)), sizeof(bytes));
        assert_int_not_equal(asprintf(&text, "buffer:@/proc/self/fd/%d", file), -1);
        printed = parse_and_format((const char *const *) &text, 1, ROOM, &r);
        assert_int_equal(r, 0);
        assert_string_equal(printed, "000aff\n");

        limit = test_limit_fds(0);
        limited = parse_and_format((const char *const *) &text, 1, ROOM, &r);
        test_restore_fds(limit);
        assert_int_equal(r, -EMFILE);
        assert_non_null(strstr(limited, "cannot open it: Too many open files"));
}

static void test_json(void **state) {
        static const char *const texts[] = {
                "i8:-1",
                "i64:-9223372036854775808",
                "u64:9223372036854775807",
                "u64:9223372036854775808",
                "f32:0.5",
                "f64:-2.5",
                "f64:nan",
                "f32:-inf",
                "f64:inf",
                "string:a\n\"\xc3\xbc",
                "buffer:hex:00ff",
                "string:",
                "out:5",
        };
        static const char expected[] =
                "[{\"type\":\"i8\",\"value\":-1},{\"type\":\"i64\",\"value\":-9223372036854775808},"
                "{\"type\":\"u64\",\"value\":9223372036854775807},{\"type\":\"u64\",\"value\":\"9223372036854775808\"}"
                ","
                "{\"type\":\"f32\",\"value\":0.5},{\"type\":\"f64\",\"value\":-2.5},"
                "{\"type\":\"f64\",\"value\":\"nan\"},{\"type\":\"f32\",\"value\":\"-inf\"},"
                "{\"type\":\"f64\",\"value\":\"inf\"},{\"type\":\"string\",\"value\":\"a\\n\\\"\xc3\xbc\"},"
                "{\"type\":\"buffer\",\"value\":\"00ff\"},{\"type\":\"string\",\"value\":\"\"},"
                "{\"type\":\"out\",\"value\":5},{\"type\":\"null\",\"value\":null}]";
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX];
        Baton__Value *null;
        json_t *json;
        char *text;

        (void) state;
        assert_int_equal(values_parse((char *const *) texts, ARRAY_SIZE(texts), ROOM, &values, error), 0);
        assert_int_equal(values_add(values, VALUE_NULL, &null), 0);
        assert_int_equal(values_to_json(values, &json), 0);
        text = json_dumps(json, JSON_COMPACT);
        assert_string_equal(text, expected);
        free(text);
        json_decref(json);
}

static void test_null_and_none(void **state) {
        _cleanup_(values_freep) Baton__Values *values = values_new();
        _cleanup_free_ char *none = NULL, *text = NULL;
        Baton__Value *null;
        json_t *json;

        (void) state;
        assert_int_equal(values_format(values, &none), 0);
        assert_string_equal(none, "");
        assert_int_equal(values_to_json(values, &json), 0);
        assert_int_equal(json_array_size(json), 0);
        json_decref(json);
        assert_int_equal(values_add(values, VALUE_NULL, &null), 0);
        assert_int_equal(values_format(values, &text), 0);
        assert_string_equal(text, "null\n");
}

/* Packed and unpacked again, every type is what it was; the bytes are those of the protocol. */
static void test_pack(void **state) {
        static const char *const texts[] = { "i8:-1",
                                             "u8:7",
                                             "f32:0",
                                             "f64:0",
                                             "string:",
                                             "buffer:hex:",
                                             "out:9",
                                             "i64:-9223372036854775808",
                                             "u64:18446744073709551615",
                                             "string:x" };
        static const uint8_t start[] = { 0x0a, 0x04, 0x08, 0x01, 0x38, 0x08, 0x0a, 0x04, 0x10, 0x07, 0x38, 0x08 };
        _cleanup_(values_freep) Baton__Values *values = NULL, *again = NULL;
        char error[VALUES_ERROR_MAX];
        _cleanup_free_ uint8_t *data = NULL;
        size_t size;

        (void) state;
        assert_int_equal(values_parse((char *const *) texts, ARRAY_SIZE(texts), ROOM, &values, error), 0);
        assert_int_equal(values_pack(values, &data, &size), 0);
        assert_true(size > sizeof(start));
        assert_memory_equal(data, start, sizeof(start));
        assert_int_equal(values_unpack(data, size, &again, error), 0);
        assert_int_equal(again->n_values, ARRAY_SIZE(texts));
        for (size_t i = 0; i < again->n_values; i++) {
                assert_int_equal(value_type(again->values[i]), value_type(values->values[i]));
                assert_int_not_equal(value_type(again->values[i]), _VALUE_N);
        }
        assert_true(again->values[7]->i == INT64_MIN);
        assert_true(again->values[8]->u == UINT64_MAX);
        assert_string_equal(again->values[9]->s, "x");
}

static void test_unpack(void **state) {
        static const struct {
                const char *bytes;
                size_t size;
                int r;
                const char *error; /* or what is printed */
        } rows[] = {
#define ROW(_bytes, _r, _error) { _bytes, sizeof(_bytes) - 1, _r, _error }
                ROW("", 0, ""),
                ROW("\x0a\x00", 0, "null\n"),
                ROW("\x0a\x04\x10\xff\x01\x38", -EBADMSG, "not a baton.Values message"),
                ROW("\x0a\x05\x10\xff\x01\x38\x08", 0, "255\n"),
                ROW("\x0a\x05\x10\x80\x02\x38\x08", -EBADMSG, "value 1: a number outside the range of its type"),
                ROW("\x0a\x00\x0a\x05\x08\x80\x02\x38\x08", -EBADMSG,
                    "value 2: a number outside the range of its type"),
                ROW("\x0a\x05\x08\xff\x01\x38\x08", 0, "-128\n"),
                ROW("\x0a\x05\x08\x81\x02\x38\x08", -EBADMSG, "value 1: a number outside the range of its type"),
                ROW("\x0a\x04\x10\x01\x38\x07", -EBADMSG, "value 1: a width that its type does not have"),
                ROW("\x0a\x02\x08\x01", -EBADMSG, "value 1: a width that its type does not have"),
                ROW("\x0a\x02\x10\x01", 0, "1\n"), /* out */
                ROW("\x0a\x02\x38\x08", -EBADMSG, "value 1: a width that its type does not have"),
                ROW("\x0a\x05\x2a\x01x\x38\x08", -EBADMSG, "value 1: a width that its type does not have"),
                ROW("\x0a\x04\x2a\x02\xc3\xbc", 0, "\xc3\xbc\n"),
                ROW("\x0a\x04\x2a\x02\xc3\xc3", -EBADMSG, "value 1: a string that is not UTF-8"),
                ROW("\x0a\x03\x2a\x02\xc3", -EBADMSG, "not a baton.Values message"),
                ROW("\x0a\x04\x32\x02\xc3\xc3", 0, "c3c3\n"),
                /* The last of a oneof counts; fields of later versions do not matter. */
                ROW("\x0a\x07\x2a\x01x\x32\x02\xab\xcd", 0, "abcd\n"),
                ROW("\x0a\x06\x2a\x01x\x98\x06\x01\x12\x01z", 0, "x\n"),
                ROW("\x11\x01\x02\x03\x04\x05\x06\x07\x08\x1d\x01\x02\x03\x04", 0, ""),
                ROW("\x0a", -EBADMSG, "not a baton.Values message"),
                ROW("\x0a\x01", -EBADMSG, "not a baton.Values message"),
                ROW("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -EBADMSG, "not a baton.Values message"),
                ROW("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -EBADMSG, "not a baton.Values message"),
                ROW("\x0b", -EBADMSG, "not a baton.Values message"),
                ROW("\x00\x00", -EBADMSG, "not a baton.Values message"),
                ROW("\x80\x00\x00", -EBADMSG, "not a baton.Values message"),
                ROW("\x80\x80\x80\x80\x10\x00", -EBADMSG, "not a baton.Values message"),
                ROW("\x0f\x00", -EBADMSG, "not a baton.Values message"),
                ROW("\x0d\x00", -EBADMSG, "not a baton.Values message"),
                ROW("\x80", -EBADMSG, "not a baton.Values message"),
#undef ROW
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_(values_freep) Baton__Values *values = NULL;
                _cleanup_free_ char *text = NULL, *copy = malloc(rows[i].size + !rows[i].size);
                char error[VALUES_ERROR_MAX] = "";
                int r;

                assert_non_null(copy);
                memcpy(copy, rows[i].bytes, rows[i].size);
                r = values_unpack(copy, rows[i].size, &values, error);
                if (r == 0)
                        assert_int_equal(values_format(values, &text), 0);
                if (r != rows[i].r || strcmp(text ? text : error, rows[i].error) != 0)
                        fail_msg("row %zu: result %d, \"%s\"", i, r, text ? text : error);
        }
}

/* A small message cannot make us allocate a thousand times its size. */
static void test_unpack_too_many(void **state) {
        static uint8_t bytes[3 + 32768 * 2];
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX] = "";

        (void) state;
        for (size_t i = 0; i < 32768; i++)
                memcpy(bytes + 2 * i, "\x0a", 2);
        assert_int_equal(values_unpack(bytes, 2 * VALUES_MAX, &values, error), 0);
        values = values_free(values);
        assert_int_equal(values_unpack(bytes, 2 * (VALUES_MAX + 1), &values, error), -E2BIG);
        assert_string_equal(error, "more than 4096 values");

        /* One value of thirty thousand fields. */
        memmove(bytes + 4, bytes, 2 * 32766);
        memcpy(bytes, "\x0a\xfc\xff\x03", 4);
        assert_int_equal(values_unpack(bytes, 65536, &values, error), -E2BIG);
}

/* Each allocation of ours fails once: an error with a line, nothing leaked (the sanitizer build counts). */
static void test_no_memory(void **state) {
        static const char *const texts[] = { "buffer:hex:0102", "buffer:@/dev/null", "u8:1", "string:a" };
        static const SeamCall calls[] = { SEAM_MALLOC, SEAM_REALLOC };
        unsigned n_failed = 0;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                for (unsigned n = 1; n < 20; n++) {
                        _cleanup_(values_freep) Baton__Values *values = NULL;
                        char error[VALUES_ERROR_MAX] = "";
                        int r;

                        seam_reset();
                        seam_fail(calls[i], n, ENOMEM);
                        r = values_parse((char *const *) texts, ARRAY_SIZE(texts), ROOM, &values, error);
                        if (seam_hits(calls[i]) == 0) {
                                assert_int_equal(r, 0);
                                break;
                        }
                        n_failed++;
                        assert_int_equal(r, -ENOMEM);
                        assert_non_null(strstr(error, "no memory"));
                }
        }
        assert_in_range(n_failed, 8, 30);
}

static const struct CMUnitTest tests[] = {
        TEST(test_arguments),
        TEST(test_refused_arguments),
        TEST(test_room),
        TEST(test_too_many),
        TEST(test_stdin),
        TEST(test_file),
        TEST(test_json),
        TEST(test_null_and_none),
        TEST(test_pack),
        TEST(test_unpack),
        TEST(test_unpack_too_many),
        TEST(test_no_memory),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

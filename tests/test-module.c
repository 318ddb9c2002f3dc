/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers runner/library and runner/invoke: every type in and out through functions of the shared library
 * tests/module-fixture, what is found in a library and what is not, calls that are refused, and functions that end the
 * process. Arguments are written and results read as on the command line.
 */

#include "tests/test.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/values-text.h"
#include "runner/invoke.h"
#include "runner/library.h"
#include "runner/signature.h"
#include "tests/seam.h"

#define MAX_OUT       4096
#define ARGUMENTS_MAX 18

static Library fixture;

static void open_fixture(void) {
        const char *builddir = getenv("abs_top_builddir");
        static char path[PATH_MAX];
        char error[LIBRARY_ERROR_MAX];

        if (fixture.handle)
                return;
        (void) snprintf(path, sizeof(path), "%s/tests/.libs/module-fixture.so", builddir ? builddir : ".");
        if (library_open(&fixture, path, error) < 0)
                fail_msg("%s", error);
}

/* call() - one call of the fixture: 0 and what is printed, or an error and its line, in @ret_text, from malloc(). */
static int call(const char *text, const char *const *arguments, char **ret_text) {
        _cleanup_(values_freep) Baton__Values *values = NULL, *results = NULL;
        char error[VALUES_ERROR_MAX] = "";
        Signature signature;
        InvokeFn function;
        size_t n = 0;
        int r;

        open_fixture();
        while (arguments[n])
                n++;
        if (signature_parse(text, &signature, error) < 0 ||
            library_find(&fixture, signature.name, &function, error) < 0 ||
            values_parse((char *const *) arguments, n, 65536, &values, error) < 0)
                fail_msg("%s", error);
        r = invoke(function, &signature, values, MAX_OUT, &results, error);
        if (r == 0)
                assert_int_equal(values_format(results, ret_text), 0);
        else
                *ret_text = strdup(error);
        assert_non_null(*ret_text);
        assert_true(r == 0 || (!results && strlen(error) > 0));
        return r;
}

#define A(...) \
        { __VA_ARGS__ }

static void test_calls(void **state) {
        static const struct {
                const char *signature;
                const char *arguments[ARGUMENTS_MAX];
                const char *printed;
        } rows[] = {
                { "i8 next_i8(i8)", A("i8:-2"), "-1\n" },
                { "i8 next_i8(i8)", A("i8:127"), "-128\n" },
                { "i16 next_i16(i16)", A("i16:-32768"), "-32767\n" },
                { "i16 next_i16(i16)", A("i16:32767"), "-32768\n" },
                { "i32 next_i32(i32)", A("i32:-2"), "-1\n" },
                { "i32 next_i32(i32)", A("i32:2147483646"), "2147483647\n" },
                { "i64 next_i64(i64)", A("i64:-9223372036854775808"), "-9223372036854775807\n" },
                { "u8 next_u8(u8)", A("u8:254"), "255\n" },
                { "u8 next_u8(u8)", A("u8:255"), "0\n" },
                { "u16 next_u16(u16)", A("u16:65534"), "65535\n" },
                { "u32 next_u32(u32)", A("u32:4294967294"), "4294967295\n" },
                { "u32 next_u32(u32)", A("u32:4294967295"), "0\n" },
                { "u64 next_u64(u64)", A("u64:18446744073709551614"), "18446744073709551615\n" },
                { "f32 next_f32(f32)", A("f32:0.5"), "1.5\n" },
                { "f32 next_f32(f32)", A("f32:-inf"), "-inf\n" },
                { "f64 next_f64(f64)", A("f64:0.1"), "1.1\n" },
                /* More of both kinds than there are registers; each weighted by its position. */
                { "f64 mixed_sum(i8, f64, u64, f32, i32, f64, u16, f32, i64, f64, u8, f64, f64, f64, f64, f64)",
                  A("i8:-1", "f64:0.5", "u64:3", "f32:0.25", "i32:-5", "f64:2", "u16:7", "f32:-1", "i64:9", "f64:10",
                    "u8:11", "f64:12", "f64:13", "f64:14", "f64:15", "f64:16"),
                  "1330\n" },
                { "void remember(i32)", A("i32:-42"), "" },
                { "i32 recall()", { 0 }, "-42\n" },
                { "u64 text_length(string)", A("string:"), "0\n" },
                { "u64 text_length(string)", A("string:gr\xc3\xbc\xc3\x9f"), "6\n" },
                { "string text_of(i32)", A("i32:0"), "\n" },
                { "string text_of(i32)", A("i32:1"), "gr\xc3\xbc\xc3\x9f\n" },
                { "string text_of(i32)", A("i32:3"), "null\n" },
                { "u64 byte_sum(buffer, u64)", A("buffer:hex:0102ff", "u64:3"), "258\n" },
                { "u64 byte_sum(buffer, u64)", A("buffer:hex:", "u64:0"), "0\n" },
                { "u64 byte_sum(out, u64)", A("out:2", "u64:2"), "0\neeee\n" },
                { "u64 byte_sum(out, u64)", A("out:0", "u64:0"), "0\n\n" },
                { "u64 byte_sum(out, u64)", A("out:4096", "u64:0"), NULL },
                { "i32 split(buffer, u32, out, out)", A("buffer:hex:01020304", "u32:2", "out:2", "out:3"),
                  "2\n0102\n040300\n" },
                { "void split(buffer, u32, out, out)", A("buffer:hex:0102", "u32:1", "out:1", "out:1"), "01\n02\n" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_free_ char *text = NULL;

                if (call(rows[i].signature, rows[i].arguments, &text) != 0)
                        fail_msg("%s: %s", rows[i].signature, text);
                if (!rows[i].printed)
                        assert_int_equal(strspn(text, "0\n"), 2 + 2 * MAX_OUT + 1);
                else if (strcmp(text, rows[i].printed) != 0)
                        fail_msg("%s: \"%s\", expected \"%s\"", rows[i].signature, text, rows[i].printed);
        }
}

static void test_refused_calls(void **state) {
        static const struct {
                const char *signature;
                const char *arguments[ARGUMENTS_MAX];
                int r;
                const char *error;
        } rows[] = {
                { "u64 byte_sum(buffer, u64)",
                  { 0 },
                  -EINVAL,
                  "argument 1 of byte_sum (buffer) is missing: expected 2, given 0" },
                { "u64 byte_sum(buffer, u64)", A("buffer:hex:01"), -EINVAL,
                  "argument 2 of byte_sum (u64) is missing: expected 2, given 1" },
                { "i32 recall()", A("u8:1"), -EINVAL, "argument 1 of recall is one too many: expected 0, given 1" },
                { "i8 next_i8(i8)", A("i8:1", "i8:2", "i8:3"), -EINVAL,
                  "argument 2 of next_i8 is one too many: expected 1, given 3" },
                { "i8 next_i8(i8)", A("i16:1"), -EINVAL, "argument 1 of next_i8: expected i8, given i16" },
                { "i8 next_i8(i8)", A("u8:1"), -EINVAL, "argument 1 of next_i8: expected i8, given u8" },
                { "f32 next_f32(f32)", A("f64:1"), -EINVAL, "argument 1 of next_f32: expected f32, given f64" },
                { "u64 byte_sum(buffer, u64)", A("string:a", "u64:1"), -EINVAL,
                  "argument 1 of byte_sum: expected buffer, given string" },
                { "u64 byte_sum(buffer, u64)", A("buffer:hex:01", "out:1"), -EINVAL,
                  "argument 2 of byte_sum: expected u64, given out" },
                { "u64 byte_sum(out, u64)", A("u64:1", "u64:1"), -EINVAL,
                  "argument 1 of byte_sum: expected out, given u64" },
                { "u64 byte_sum(out, u64)", A("buffer:hex:01", "u64:1", "u8:1"), -EINVAL,
                  "argument 1 of byte_sum: expected out, given buffer" },
                { "u64 byte_sum(out, u64)", A("out:4097", "u64:1"), -EMSGSIZE,
                  "argument 1: out of 4097 bytes, more than the 4096 that are left of 4096" },
                { "i32 split(buffer, u32, out, out)", A("buffer:hex:", "u32:0", "out:4000", "out:97"), -EMSGSIZE,
                  "argument 4: out of 97 bytes, more than the 96 that are left of 4096" },
                { "u64 byte_sum(out, u64)", A("out:18446744073709551615", "u64:1"), -EMSGSIZE,
                  "argument 1: out of 18446744073709551615 bytes, more than the 4096 that are left of 4096" },
                { "string text_of(i32)", A("i32:2"), -EPROTO, "text_of returned a string that is not UTF-8" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_free_ char *text = NULL;
                int r = call(rows[i].signature, rows[i].arguments, &text);

                if (r != rows[i].r || strcmp(text, rows[i].error) != 0)
                        fail_msg("%s: result %d, \"%s\", expected %d, \"%s\"", rows[i].signature, r, text, rows[i].r,
                                 rows[i].error);
        }
}

/* A string is bounded as a buffer out is. */
static void test_long_string(void **state) {
        _cleanup_(values_freep) Baton__Values *values = values_new(), *results = NULL;
        Signature signature = { .name = "text_of", .result = VALUE_STRING, 1, { VALUE_I32 } };
        char error[VALUES_ERROR_MAX] = "";
        Baton__Value *value;
        InvokeFn function;

        (void) state;
        open_fixture();
        assert_int_equal(library_find(&fixture, "text_of", &function, error), 0);
        assert_int_equal(values_add(values, VALUE_I32, &value), 0);
        value->i = 1;
        assert_int_equal(invoke(function, &signature, values, 5, &results, error), -EMSGSIZE);
        assert_string_equal(error, "text_of returned a string of more than 5 bytes");
        assert_int_equal(invoke(function, &signature, values, 6, &results, error), 0);
        assert_string_equal(results->values[0]->s, "gr\xc3\xbc\xc3\x9f");
}

/* Without memory the function is not called. */
static void test_no_memory(void **state) {
        static const char *const remember_1[] = { "i32:1", NULL }, *const none[] = { NULL };
        static const SeamCall calls[] = { SEAM_MALLOC, SEAM_CALLOC, SEAM_REALLOC };
        _cleanup_(values_freep) Baton__Values *values = NULL;
        static const char *const texts[] = { "out:1", "u64:1" };
        Signature signature = { .name = "byte_sum", .result = VALUE_U64, 2, { VALUE_OUT, VALUE_U64 } };
        char error[VALUES_ERROR_MAX], *text = NULL;
        InvokeFn function;

        (void) state;
        assert_int_equal(call("void remember(i32)", remember_1, &text), 0);
        free(text);
        assert_int_equal(library_find(&fixture, "byte_sum", &function, error), 0);
        assert_int_equal(values_parse((char *const *) texts, 2, 100, &values, error), 0);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                _cleanup_(values_freep) Baton__Values *results = NULL;

                seam_reset();
                seam_fail(calls[i], 1, ENOMEM);
                assert_int_equal(invoke(function, &signature, values, MAX_OUT, &results, error), -ENOMEM);
                assert_int_equal(seam_hits(calls[i]), 1);
                assert_null(results);
                assert_string_equal(error, "no memory for the arguments of byte_sum");
        }
        seam_reset();
        assert_int_equal(call("i32 recall()", none, &text), 0);
        assert_string_equal(text, "1\n");
        free(text);
}

static void test_find(void **state) {
        static const struct {
                const char *name;
                int r;
                const char *error; /* what it contains */
        } rows[] = {
                { "recall", 0, NULL },
                { "no_such_function", -ENOENT, "module-fixture.so exports no function no_such_function" },
                { "n_remembered", -ENOENT, "module-fixture.so exports no function n_remembered" },
                { "abort", -ENOENT, "module-fixture.so exports no function abort (" },
                { "fixture_variable", -EINVAL, "fixture_variable of " },
        };

        (void) state;
        open_fixture();
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char error[LIBRARY_ERROR_MAX] = "";
                InvokeFn function = NULL;

                assert_int_equal(library_find(&fixture, rows[i].name, &function, error), rows[i].r);
                assert_int_equal(function != NULL, rows[i].r == 0);
                if (rows[i].error && !strstr(error, rows[i].error))
                        fail_msg("%s: \"%s\"", rows[i].name, error);
        }
}

static void test_open(void **state) {
        static const char *const missing[] = { "libno-such-library.so.1", "/nonexistent/library.so", "/dev/null",
                                               "/" };
        char error[LIBRARY_ERROR_MAX];
        InvokeFn function;
        Library library;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(missing); i++) {
                error[0] = '\0';
                assert_int_equal(library_open(&library, missing[i], error), -ENOENT);
                assert_non_null(strstr(error, missing[i]));
        }
        /* The kernel's functions that libc hands out, and those it picks by the machine, are libc's. */
        assert_int_equal(library_open(&library, "libc.so.6", error), 0);
        assert_int_equal(library_find(&library, "time", &function, error), 0);
        assert_int_equal(library_find(&library, "strnlen", &function, error), 0);
        assert_int_equal(library_find(&library, "getpid", &function, error), 0);
}

typedef struct Ending {
        const char *signature;
        const char *arguments[2];
        int status;
} Ending;

static int call_and_return(void *argument) {
        const Ending *ending = argument;
        _cleanup_free_ char *text = NULL;

        return call(ending->signature, ending->arguments, &text) == 0 ? 100 : 101;
}

/* The library ends the process that called it, as itself says; nothing of ours comes between. */
static void test_endings(void **state) {
        static const Ending endings[] = {
                { "i32 recall()", { 0 }, 100 },
                { "void crash()", { 0 }, -SIGSEGV },
                { "void give_up()", { 0 }, -SIGABRT },
                { "void leave(i32)", { "i32:7" }, 7 },
        };

        (void) state;
        open_fixture();
        for (size_t i = 0; i < ARRAY_SIZE(endings); i++)
                assert_int_equal(test_child_wait(test_child(call_and_return, (void *) &endings[i])),
                                 endings[i].status);
}

static const struct CMUnitTest tests[] = {
        TEST(test_calls), TEST(test_refused_calls), TEST(test_long_string), TEST(test_no_memory),
        TEST(test_find),  TEST(test_open),          TEST(test_endings),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

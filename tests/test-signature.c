/* SPDX-License-Identifier: Apache-2.0 */

/* Covers runner/signature, by tables: texts that are signatures with all they say, and texts that are not with the error. */

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runner/signature.h"

#define PARAMETER_TYPES "a parameter's type: i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string buffer out"
#define RESULT_TYPES    "a result type: void i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string"
#define U8_15           "u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8"

static void test_good(void **state) {
        static const struct {
                const char *text;
                Signature expected;
        } rows[] = {
                { "void f()", { .name = "f", .result = VALUE_NULL } },
                { "void void()", { .name = "void", .result = VALUE_NULL } },
                { "u8  _a9Z  (  )", { .name = "_a9Z", .result = VALUE_U8 } },
                { "u64 crc32(u64, buffer, u32)", { "crc32", VALUE_U64, 3, { VALUE_U64, VALUE_BUFFER, VALUE_U32 } } },
                { "i8 f(i8,i16,i32,i64)", { "f", VALUE_I8, 4, { VALUE_I8, VALUE_I16, VALUE_I32, VALUE_I64 } } },
                { "i16 f(u8,u16,u32,u64)", { "f", VALUE_I16, 4, { VALUE_U8, VALUE_U16, VALUE_U32, VALUE_U64 } } },
                { "i32 f( f32 , f64 )", { "f", VALUE_I32, 2, { VALUE_F32, VALUE_F64 } } },
                { "i64 f(string,buffer,out)", { "f", VALUE_I64, 3, { VALUE_STRING, VALUE_BUFFER, VALUE_OUT } } },
                { "u16 f()", { .name = "f", .result = VALUE_U16 } },
                { "u32 f()", { .name = "f", .result = VALUE_U32 } },
                { "f32 f(f32)", { "f", VALUE_F32, 1, { VALUE_F32 } } },
                { "f64 f(f64)", { "f", VALUE_F64, 1, { VALUE_F64 } } },
                { "string zlibVersion()", { .name = "zlibVersion", .result = VALUE_STRING } },
                { "void f(" U8_15 ",out)",
                  { "f",
                    VALUE_NULL,
                    16,
                    { VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8,
                      VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_U8, VALUE_OUT } } },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char error[SIGNATURE_ERROR_MAX] = "", text[SIGNATURE_TEXT_MAX];
                Signature signature, again;

                memset(&signature, 0xee, sizeof(signature));
                if (signature_parse(rows[i].text, &signature, error) != 0)
                        fail_msg("\"%s\": refused: %s", rows[i].text, error);
                assert_string_equal(signature.name, rows[i].expected.name);
                assert_int_equal(signature.result, rows[i].expected.result);
                assert_int_equal(signature.n_parameters, rows[i].expected.n_parameters);
                assert_memory_equal(signature.parameters, rows[i].expected.parameters, sizeof(signature.parameters));
                assert_int_equal(signature_parse(signature_format(&signature, text), &again, error), 0);
                assert_true(signature_is_equal(&signature, &again));
        }
}

static void test_bad(void **state) {
        static const struct {
                const char *text;
                const char *error;
        } rows[] = {
                { "", "character 1 (the end): expected " RESULT_TYPES },
                { " u64 f()", "character 1: expected " RESULT_TYPES },
                { "int f()", "character 1: expected " RESULT_TYPES },
                { "u64x f()", "character 1: expected " RESULT_TYPES },
                { "U64 f()", "character 1: expected " RESULT_TYPES },
                { "null f()", "character 1: expected " RESULT_TYPES },
                { "buffer f()", "character 1: expected " RESULT_TYPES },
                { "out f()", "character 1: expected " RESULT_TYPES },
                { "(u64)", "character 1: expected " RESULT_TYPES },
                { "u64", "character 4 (the end): expected a space and the function's name" },
                { "u64\tf()", "character 4: expected a space and the function's name" },
                { "u64(f)", "character 4: expected a space and the function's name" },
                { "u64 ", "character 5 (the end): expected the function's name" },
                { "u64 (u64)", "character 5: expected the function's name" },
                { "u64 9f()", "character 5: expected the function's name" },
                { "u64 *f()", "character 5: expected the function's name" },
                { "u64 f", "character 6 (the end): expected '('" },
                { "u64 f g()", "character 7: expected '('" },
                { "u64 f-g()", "character 6: expected '('" },
                { "u64 f(", "character 7 (the end): expected " PARAMETER_TYPES },
                { "u64 f(void)", "character 7: expected " PARAMETER_TYPES },
                { "u64 f(null)", "character 7: expected " PARAMETER_TYPES },
                { "u64 f(,u8)", "character 7: expected " PARAMETER_TYPES },
                { "u64 f(u8,)", "character 10: expected " PARAMETER_TYPES },
                { "u64 f(u8,,u8)", "character 10: expected " PARAMETER_TYPES },
                { "u64 f(u128)", "character 7: expected " PARAMETER_TYPES },
                { "u64 f(...)", "character 7: expected " PARAMETER_TYPES },
                { "u64 f(u8\n)", "character 9: expected ',' or ')'" },
                { "u64 f(u8 a)", "character 10: expected ',' or ')'" },
                { "u64 f(u8", "character 9 (the end): expected ',' or ')'" },
                { "u64 f(u8 u8)", "character 10: expected ',' or ')'" },
                { "u64 f(string*)", "character 13: expected ',' or ')'" },
                { "u64 f())", "character 8: expected the end" },
                { "u64 f() ", "character 8: expected the end" },
                { "u64 f();", "character 8: expected the end" },
                { "u64 f(" U8_15 ",u8,u8)", "character 55: expected no more than 16 parameters" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Signature signature, untouched;
                char error[SIGNATURE_ERROR_MAX] = "";

                memset(&signature, 0xee, sizeof(signature));
                untouched = signature;
                if (signature_parse(rows[i].text, &signature, error) != -EINVAL)
                        fail_msg("\"%s\": accepted", rows[i].text);
                if (strcmp(error, rows[i].error) != 0)
                        fail_msg("\"%s\": \"%s\", expected \"%s\"", rows[i].text, error, rows[i].error);
                assert_memory_equal(&signature, &untouched, sizeof(signature));
        }
}

static void test_name_length(void **state) {
        char text[SIGNATURE_NAME_MAX + 16], error[SIGNATURE_ERROR_MAX] = "";
        Signature signature;
        size_t n;

        (void) state;
        for (n = SIGNATURE_NAME_MAX; n <= SIGNATURE_NAME_MAX + 1; n++) {
                memcpy(text, "u8 ", 3);
                memset(text + 3, 'a', n);
                memcpy(text + 3 + n, "()", 3);
                assert_int_equal(signature_parse(text, &signature, error), n > SIGNATURE_NAME_MAX ? -EINVAL : 0);
        }
        assert_int_equal(strlen(signature.name), SIGNATURE_NAME_MAX);
        assert_string_equal(error, "character 4: expected a name of at most 255 characters");
}

/* Every text that a good one can be cut to, or changed to in one byte, is refused or accepted without reading outside it. */
static void test_mutations(void **state) {
        static const char text[] = "u64 crc32(u64, buffer, u32)";
        char error[SIGNATURE_ERROR_MAX];
        Signature signature;

        (void) state;
        for (size_t i = 0; i < sizeof(text) - 1; i++) {
                char *copy = strndup(text, i);

                assert_non_null(copy);
                assert_int_equal(signature_parse(copy, &signature, error), -EINVAL);
                free(copy);
                for (int c = 1; c < 256; c++) {
                        copy = strdup(text);
                        assert_non_null(copy);
                        copy[i] = (char) c;
                        if (signature_parse(copy, &signature, error) == 0)
                                assert_in_range(signature.n_parameters, 2, 3);
                        free(copy);
                }
        }
}

static void test_is_name(void **state) {
        static const char *const names[] = { "f", "crc32", "_exit", "A_9" };
        static const char *const others[] = { "", "9a", "f()", "u64 f", "a.b", "a/b", " f", "f ", "\xc3\xa4" };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                assert_true(signature_is_name(names[i]));
        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                assert_false(signature_is_name(others[i]));
}

static void test_format(void **state) {
        static const char *const texts[] = {
                "void f()",
                "u64 crc32(u64, buffer, u32)",
                "string _9(out)",
                "i8 f(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, string, buffer, out)",
        };
        char name[SIGNATURE_NAME_MAX + 1], longest[SIGNATURE_TEXT_MAX], text[SIGNATURE_TEXT_MAX],
                error[SIGNATURE_ERROR_MAX];
        Signature signature;

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                assert_int_equal(signature_parse(texts[i], &signature, error), 0);
                assert_string_equal(signature_format(&signature, text), texts[i]);
        }
        memset(name, 'a', SIGNATURE_NAME_MAX);
        name[SIGNATURE_NAME_MAX] = '\0';
        (void) snprintf(longest, sizeof(longest), "string %s(", name);
        for (size_t i = 0; i < SIGNATURE_PARAMETERS_MAX; i++)
                (void) strcat(longest, i > 0 ? ", string" : "string");
        (void) strcat(longest, ")");
        assert_int_equal(signature_parse(longest, &signature, error), 0);
        assert_string_equal(signature_format(&signature, text), longest);
}

static void test_is_equal(void **state) {
        static const char *const texts[] = {
                "u8 f()", "i8 f()", "void f()", "u8 g()", "u8 f(u8)", "u8 f(i8)", "u8 f(u8, u8)", "u8 f(u8, i8)",
        };
        Signature signatures[ARRAY_SIZE(texts)];
        char error[SIGNATURE_ERROR_MAX];

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                assert_int_equal(signature_parse(texts[i], &signatures[i], error), 0);
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                for (size_t j = 0; j < ARRAY_SIZE(texts); j++)
                        assert_int_equal(signature_is_equal(&signatures[i], &signatures[j]), i == j);
}

static const struct CMUnitTest tests[] = {
        TEST(test_good),    TEST(test_bad),    TEST(test_name_length), TEST(test_mutations),
        TEST(test_is_name), TEST(test_format), TEST(test_is_equal),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

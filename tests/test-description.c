/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers runner/description and runner/description-file: what a description may look like, every error with its position,
 * the bounds, files that cannot be used, the order of the places they are looked for in, and the descriptions that ship.
 */

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/description.h"
#include "runner/library.h"
#include "tests/seam.h"

#define TYPES           "i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string"
#define RESULT_TYPES    "a result type: void " TYPES
#define PARAMETER_TYPES "a parameter's type: " TYPES " buffer out"

/* A literal with its size, as it may contain a byte 0. */
#define T(_text) (_text), sizeof(_text) - 1

static void test_good(void **state) {
        static const struct {
                const char *text;
                size_t size;
                size_t n;
                struct {
                        const char *signature;
                        size_t line;
                } functions[3];
        } rows[] = {
                { T(""), 0, {} },
                { T("\n"), 0, {} },
                { T("\n\n \t \n#\n  # u8 f()"), 0, {} },
                { T("baton-module 1"), 0, {} },
                { T("baton-module 1\n"), 0, {} },
                { T(" baton-module \t 1 # of the format\n"), 0, {} },
                { T("u8 f()"), 1, { { "u8 f()", 1 } } },
                { T("u8 f()\n"), 1, { { "u8 f()", 1 } } },
                { T("baton-module 1\nu8 f()\n"), 1, { { "u8 f()", 2 } } },
                { T("# of mine\n\nbaton-module 1\n\nu8 f()\n"), 1, { { "u8 f()", 5 } } },
                { T("\t u8 f(u8,buffer)\t \n"), 1, { { "u8 f(u8, buffer)", 1 } } },
                { T("u8 f()# a comment # in a comment\n"), 1, { { "u8 f()", 1 } } },
                { T("# \xff\xfe \x01\nu8 f()\n"), 1, { { "u8 f()", 2 } } },
                { T("void g(out, u64)\nstring h()\n\nf64 a(f64, f32)"),
                  3,
                  { { "void g(out, u64)", 1 }, { "string h()", 2 }, { "f64 a(f64, f32)", 4 } } },
                { T("u8 F()\nu8 f()\nu8 ff()\n"), 3, { { "u8 F()", 1 }, { "u8 f()", 2 }, { "u8 ff()", 3 } } },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_(description_freep) Description *description = NULL;
                char error[DESCRIPTION_ERROR_MAX] = "", text[SIGNATURE_TEXT_MAX];

                if (description_parse(rows[i].text, rows[i].size, &description, error) != 0)
                        fail_msg("\"%s\": refused: %s", rows[i].text, error);
                assert_int_equal(description->n_functions, rows[i].n);
                for (size_t j = 0; j < rows[i].n; j++) {
                        const DescribedFunction *function = &description->functions[j];

                        assert_string_equal(signature_format(&function->signature, text),
                                            rows[i].functions[j].signature);
                        assert_int_equal(function->line, rows[i].functions[j].line);
                        assert_ptr_equal(description_find(description, function->signature.name), function);
                }
                assert_null(description_find(description, ""));
                assert_null(description_find(description, "zz"));
        }
}

static void test_bad(void **state) {
        static const struct {
                const char *text;
                size_t size;
                const char *error;
        } rows[] = {
                /* The version. */
                { T("baton-module"), "line 1, column 13 (the end): expected 1, the version of the format" },
                { T("baton-module # 1"), "line 1, column 13 (the end): expected 1, the version of the format" },
                { T("baton-module 2"), "line 1, column 14: expected 1, the version of the format" },
                { T("baton-module 10"), "line 1, column 14: expected 1, the version of the format" },
                { T("baton-module 1 1"), "line 1, column 14: expected 1, the version of the format" },
                { T("#\n\n  baton-module\t\t0\n"), "line 3, column 17: expected 1, the version of the format" },
                { T("baton-module1"), "line 1, column 1: expected " RESULT_TYPES },
                { T("baton-modules 1"), "line 1, column 1: expected " RESULT_TYPES },
                { T("baton-module 1\nbaton-module 1"), "line 2, column 1: expected " RESULT_TYPES },
                { T("u8 f()\nbaton-module 1"), "line 2, column 1: expected " RESULT_TYPES },
                /* Signatures: each of the parser's errors, at the column of the file. */
                { T("f"), "line 1, column 1: expected " RESULT_TYPES },
                { T("\n\n  int f()"), "line 3, column 3: expected " RESULT_TYPES },
                { T("buffer f()"), "line 1, column 1: expected " RESULT_TYPES },
                { T("\xef\xbb\xbfu8 f()"), "line 1, column 1: expected " RESULT_TYPES },
                { T("  u64 "), "line 1, column 6 (the end): expected a space and the function's name" },
                { T("u64\tf()"), "line 1, column 4: expected a space and the function's name" },
                { T("  u64 9f()"), "line 1, column 7: expected the function's name" },
                { T("u64 f"), "line 1, column 6 (the end): expected '('" },
                { T("\tu64 f  # (u8)"), "line 1, column 7 (the end): expected '('" },
                { T(" u64 f g()"), "line 1, column 8: expected '('" },
                { T("u64 f(\nu8)"), "line 1, column 7 (the end): expected " PARAMETER_TYPES },
                { T("u8 f()\n u64 f2(u8,)"), "line 2, column 12: expected " PARAMETER_TYPES },
                { T("u64 f(void)"), "line 1, column 7: expected " PARAMETER_TYPES },
                { T(" u64 f(u8 a)"), "line 1, column 11: expected ',' or ')'" },
                { T("u64 f(u8"), "line 1, column 9 (the end): expected ',' or ')'" },
                { T(" u64 f();"), "line 1, column 9: expected the end" },
                { T("u8 f() u8 g()"), "line 1, column 7: expected the end" },
                { T("u8 f()\r\n"), "line 1, column 7: expected the end" },
                { T("u8 f()\v"), "line 1, column 7: expected the end" },
                { T("u8 f(u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8, u8)"),
                  "line 1, column 55: expected no more than 16 parameters" },
                /* A function twice; a byte 0, wherever it is. */
                { T("u8 f()\nu8 g()\n  i8  f(u8)\n"),
                  "line 3, column 7: expected a function that is not described yet, this one is on line 1" },
                { T("u8 f()\0\n"), "line 1, column 7: expected text, not a byte 0" },
                { T("\n# a\0b\n"), "line 2, column 4: expected text, not a byte 0" },
                { T("\0"), "line 1, column 1: expected text, not a byte 0" },
                { T("u8 f()\nu8\0 g()\n!\n"), "line 2, column 3: expected text, not a byte 0" },
                /* The first one counts. */
                { T("u8 f()\nu8 g(\nu8 f()\n"), "line 2, column 6 (the end): expected " PARAMETER_TYPES },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char error[DESCRIPTION_ERROR_MAX] = "", *exact = malloc(rows[i].size);
                Description *description = NULL;

                assert_non_null(exact);
                memcpy(exact, rows[i].text, rows[i].size); /* of its own, so that a sanitizer sees its end */
                if (description_parse(exact, rows[i].size, &description, error) != -EINVAL)
                        fail_msg("\"%s\": accepted", rows[i].text);
                if (strcmp(error, rows[i].error) != 0)
                        fail_msg("\"%s\": \"%s\", expected \"%s\"", rows[i].text, error, rows[i].error);
                assert_null(description);
                free(exact);
        }
}

/* functions() - so many, "u8 f_0()" and on, in an order that is not theirs by name. */
static char *functions(size_t n) {
        char *text = malloc(n * 16 + 1), *p = text;

        assert_non_null(text);
        for (size_t i = 0; i < n; i++)
                p += sprintf(p, "u8 f_%zu()\n", i);
        return text;
}

static void test_number(void **state) {
        _cleanup_(description_freep) Description *description = NULL;
        _cleanup_free_ char *most = functions(DESCRIPTION_FUNCTIONS_MAX),
                            *more = functions(DESCRIPTION_FUNCTIONS_MAX + 1);
        char error[DESCRIPTION_ERROR_MAX], name[16];
        Description *none = NULL;

        (void) state;
        assert_int_equal(description_parse(most, strlen(most), &description, error), 0);
        assert_int_equal(description->n_functions, DESCRIPTION_FUNCTIONS_MAX);
        for (size_t i = 0; i < DESCRIPTION_FUNCTIONS_MAX; i++) {
                (void) snprintf(name, sizeof(name), "f_%zu", i);
                assert_ptr_equal(description_find(description, name), &description->functions[i]);
        }
        assert_int_equal(description_parse(more, strlen(more), &none, error), -EINVAL);
        assert_null(none);
        assert_string_equal(error, "line 1025, column 1: expected no more than 1024 functions");
}

/* ---- files ---- */

static void write_bytes(const char *path, const void *data, size_t size) {
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
}

static void write_file(const char *directory, const char *name, const char *text) {
        char path[256];

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        write_bytes(path, text, strlen(text));
}

/* enter() - a fresh directory with these in it, which becomes the working one. */
static void enter(char *top, const char *const *directories) {
        (void) snprintf(top, 128, "%s/description-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        assert_non_null(mkdtemp(top));
        assert_int_equal(chdir(top), 0);
        for (; *directories; directories++)
                assert_int_equal(mkdir(*directories, 0700), 0);
}

static void leave(const char *top, const char *const *entries) {
        for (; *entries; entries++)
                assert_int_equal(remove(*entries), 0);
        assert_int_equal(chdir("/"), 0);
        assert_int_equal(rmdir(top), 0);
}

static void expect_unusable(const char *path, int result, const char *expected) {
        char error[DESCRIPTION_ERROR_MAX] = "";
        Description *description = NULL;
        int r = description_read(path, &description, error);

        if (r != result || strcmp(error, expected) != 0)
                fail_msg("%s: %d, \"%s\", expected %d, \"%s\"", path, r, error, result, expected);
        assert_null(description);
}

static void test_files(void **state) {
        static const char *const directories[] = { "d", NULL };
        static const char *const entries[] = { "good", "bad", "large", "fifo", "d", NULL };
        char top[128], large[DESCRIPTION_SIZE_MAX + 1], error[DESCRIPTION_ERROR_MAX];
        Description *description;

        (void) state;
        enter(top, directories);
        write_file(".", "good", "u8 f()\n");
        assert_int_equal(description_read("good", &description, error), 0);
        assert_string_equal(description->path, "good");
        assert_int_equal(description->n_functions, 1);
        description_free(description);

        write_file(".", "bad", "u8 f()\nu8 g");
        expect_unusable("bad", -EINVAL, "description bad: line 2, column 5 (the end): expected '('");
        expect_unusable("missing", -ENOENT, "description missing: cannot read it: No such file or directory");
        expect_unusable("good/x", -ENOENT, "description good/x: cannot read it: Not a directory");
        expect_unusable("d", -EINVAL, "description d: not a regular file");
        assert_int_equal(mkfifo("fifo", 0600), 0);
        expect_unusable("fifo", -EINVAL, "description fifo: not a regular file");

        memset(large, ' ', sizeof(large));
        write_bytes("large", large, DESCRIPTION_SIZE_MAX);
        assert_int_equal(description_read("large", &description, error), 0);
        description_free(description);
        write_bytes("large", large, sizeof(large));
        expect_unusable("large", -EINVAL, "description large: larger than 65536 bytes");
        leave(top, entries);
}

static int read_good(void *argument) {
        _cleanup_(description_freep) Description *description = NULL;
        char error[DESCRIPTION_ERROR_MAX] = "";
        int r = description_read(argument, &description, error);

        assert_true(r == 0 || strncmp(error, "description ", strlen("description ")) == 0);
        return r;
}

static void test_no_room(void **state) {
        static const char *const directories[] = { NULL }, *const entries[] = { "good", NULL };
        static const SeamCall calls[] = { SEAM_MALLOC, SEAM_CALLOC, SEAM_REALLOC };
        char top[128];

        (void) state;
        enter(top, directories);
        write_file(".", "good", "u8 f()\n");
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                assert_true(seam_each(calls[i], ENOMEM, read_good, (void *) "good", 0) > 0);
        assert_true(seam_each(SEAM_OPEN, EMFILE, read_good, (void *) "good", 0) > 0);
        leave(top, entries);
}

/* ---- where they are looked for ---- */

/* look_up() - the name of the only function of what is found, or what went wrong. */
static const char *look_up(const char *name, const char *location, const DescriptionPlaces *places) {
        static char text[DESCRIPTION_ERROR_MAX];
        _cleanup_(description_freep) Description *description = NULL;
        int r = description_look_up(name, location, places, &description, text);

        assert_true(r == 0 || !description);
        if (r == 0)
                (void) snprintf(text, sizeof(text), "%s",
                                description ? description->functions[0].signature.name : "none");
        return text;
}

static void test_order(void **state) {
        static const char *const directories[] = { "beside", "a", "b", "installed", NULL };
        static const char *const entries[] = {
                "b/l.so.1.baton", "installed/l.so.1.baton", "x.baton", ".baton", "beside", "a", "b", "installed", NULL
        };
        static const DescriptionPlaces all = { "a:b", "installed" }, no_path = { NULL, "installed" }, none = {},
                                       odd = { ":nowhere::b:", "" };
        char top[128];

        (void) state;
        enter(top, directories);
        write_file("beside", "l.so.1.baton", "u8 beside()");
        write_file("a", "l.so.1.baton", "u8 a()");
        write_file("b", "l.so.1.baton", "u8 b()");
        write_file("installed", "l.so.1.baton", "u8 installed()");
        write_file(".", "x.baton", "u8 x()");
        write_file(".", ".baton", "u8 nameless()");

        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all), "beside");
        assert_string_equal(look_up("any/l.so.1", "beside/l.so.1.2.3", &all), "beside");
        assert_string_equal(look_up("l.so.1", "l.so.1", &all), "a");
        assert_string_equal(look_up("l.so", "beside/l.so", &all), "none");
        assert_string_equal(look_up("x", "/x", &none), "none");
        assert_string_equal(look_up("x", "", &odd), "none"); /* never in the working directory */
        assert_string_equal(look_up("x", "./x", &none), "x");
        assert_string_equal(look_up("", "", &all), "none");
        assert_string_equal(look_up("beside/", "beside/", &(DescriptionPlaces){ ".", "." }), "none");

        assert_int_equal(unlink("beside/l.so.1.baton"), 0);
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all), "a");
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &no_path), "installed");
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &odd), "b");
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &none), "none");

        /* One that cannot be used is not "none": what it forbids would be allowed. */
        write_file("a", "l.so.1.baton", "u8 a(");
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all),
                            "description a/l.so.1.baton: line 1, column 6 (the end): expected " PARAMETER_TYPES);
        assert_int_equal(unlink("a/l.so.1.baton"), 0);
        assert_int_equal(mkdir("a/l.so.1.baton", 0700), 0);
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all),
                            "description a/l.so.1.baton: not a regular file");
        seam_fail(SEAM_OPEN, 1, EACCES);
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all),
                            "description beside/l.so.1.baton: cannot read it: Permission denied");
        assert_int_equal(rmdir("a/l.so.1.baton"), 0);
        assert_string_equal(look_up("l.so.1", "beside/l.so.1", &all), "b");
        leave(top, entries);
}

/* ---- those that ship ---- */

/* Every function is there, in the library of this machine where there is one. */
static void test_shipped(void **state) {
        static const struct {
                const char *library;
                size_t at_least;
        } rows[] = { { "libm.so.6", 100 }, { "libz.so.1", 8 } };
        const char *top = getenv("abs_top_srcdir");

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_(description_freep) Description *description = NULL;
                char path[PATH_MAX], error[DESCRIPTION_ERROR_MAX], reason[LIBRARY_ERROR_MAX];
                void (*function)(void);
                Library library;

                (void) snprintf(path, sizeof(path), "%s/examples/modules/%s" DESCRIPTION_SUFFIX, top ? top : ".",
                                rows[i].library);
                if (description_read(path, &description, error) != 0)
                        fail_msg("%s", error);
                assert_true(description->n_functions >= rows[i].at_least);
                if (library_open(&library, rows[i].library, reason) < 0)
                        continue;
                for (size_t j = 0; j < description->n_functions; j++)
                        if (library_find(&library, description->functions[j].signature.name, &function, reason) < 0)
                                fail_msg("%s: %s", path, reason);
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_good),    TEST(test_bad),   TEST(test_number),  TEST(test_files),
        TEST(test_no_room), TEST(test_order), TEST(test_shipped),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers runner/catalog: what a method stands for with libraries that are described, are not, and are described in part;
 * open and not; several of them. The libraries are tests/module-fixture and libc, the descriptions written here.
 */

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/catalog.h"
#include "tests/seam.h"

#define FIXTURE_DESCRIPTION        \
        "i8 next_i8(i8)\n"         \
        "i32 recall()\n"           \
        "u64 strlen(string)\n"     \
        "i32 fixture_variable()\n" \
        "u8 only_in_a_later_version()\n"
#define LIBC_DESCRIPTION       \
        "u64 strlen(string)\n" \
        "i32 abs(i32)\n"

static char fixture_path[PATH_MAX];

static const char *set_fixture_path(void) {
        const char *builddir = getenv("abs_top_builddir");

        (void) snprintf(fixture_path, sizeof(fixture_path), "%s/tests/.libs/module-fixture.so",
                        builddir ? builddir : ".");
        return fixture_path;
}

/* describe() - the description @text, as if it had been read from @path; NULL: none. */
static Description *describe(const char *text, const char *path) {
        char error[DESCRIPTION_ERROR_MAX];
        Description *description;

        if (!text)
                return NULL;
        assert_int_equal(description_parse(text, strlen(text), &description, error), 0);
        free(description->path);
        description->path = strdup(path);
        assert_non_null(description->path);
        return description;
}

/* open_catalog() - the fixture with description @first, then, when there is a @second, libc; "": without one. */
static void open_catalog(Catalog *catalog, const char *first, const char *second, bool is_open) {
        static const DescriptionPlaces nowhere = {};
        char error[CATALOG_LOAD_ERROR_MAX], *names[] = { (char *) set_fixture_path(), (char *) "libc.so.6" };

        *catalog = (Catalog){ .is_open = is_open };
        if (catalog_load(catalog, names, second ? 2 : 1, NULL, &nowhere, error) < 0)
                fail_msg("%s", error);
        catalog->entries[0].description = describe(first, "first.baton");
        if (second && *second)
                catalog->entries[1].description = describe(second, "second.baton");
}

typedef struct Row {
        const char *method;
        int r;
        const char *text; /* the signature, or what the error contains */
} Row;

static void check(const Catalog *catalog, const Row *rows, size_t n) {
        for (size_t i = 0; i < n; i++) {
                char error[CATALOG_ERROR_MAX] = "", text[SIGNATURE_TEXT_MAX];
                InvokeFn function = NULL;
                Signature signature;
                int r = catalog_resolve(catalog, rows[i].method, &signature, &function, error);

                if (r != rows[i].r || !strstr(r == 0 ? signature_format(&signature, text) : error, rows[i].text))
                        fail_msg("%s: %d, \"%s\", expected %d, \"%s\"", rows[i].method, r, r == 0 ? text : error,
                                 rows[i].r, rows[i].text);
                assert_true(r < 0 || function);
        }
}

static void test_not_described(void **state) {
        static const Row rows[] = {
                { "i8 next_i8( i8 )", 0, "i8 next_i8(i8)" },
                { "u64 next_i8(u64)", 0, "u64 next_i8(u64)" },
                { "next_i8", -EINVAL, "the signature of next_i8 is not known: give it whole, as in 'f64 sqrt(f64)'" },
                { "nothing", -ENOENT, "exports no function nothing" },
                { "u8 nothing()", -ENOENT, "exports no function nothing" },
                { "i8 next_i8(int)", -EINVAL, "signature 'i8 next_i8(int)': character 12: expected a parameter's" },
                { "some.Service/Method", -EOPNOTSUPP, "no method some.Service/Method here: a module's methods are " },
                { "i32 fixture_variable()", -EINVAL, "is a variable" },
                { "", -EINVAL, "signature '': character 1 (the end): expected a result type" },
        };
        Catalog catalog;

        (void) state;
        for (int is_open = 0; is_open < 2; is_open++) {
                open_catalog(&catalog, NULL, NULL, is_open);
                check(&catalog, rows, ARRAY_SIZE(rows));
                catalog_deinit(&catalog);
        }
}

/* The same with a description and when the catalog is open: what is described. */
static const Row described_rows[] = {
        { "next_i8", 0, "i8 next_i8(i8)" },
        { "i8 next_i8(i8)", 0, "i8 next_i8(i8)" },
        { "i8  next_i8 ( i8 )", 0, "i8 next_i8(i8)" },
        { "recall", 0, "i32 recall()" },
        { "i8 next_i8(u8)", -EINVAL, "'i8 next_i8(u8)' is not 'i8 next_i8(i8)', which is line 1 of first.baton" },
        { "void next_i8(i8)", -EINVAL, "'void next_i8(i8)' is not 'i8 next_i8(i8)'" },
        { "i8 next_i8()", -EINVAL, "'i8 next_i8()' is not 'i8 next_i8(i8)'" },
        { "i8 next_i8(i8, i8)", -EINVAL, "'i8 next_i8(i8, i8)' is not 'i8 next_i8(i8)'" },
        { "i32 recall(u8)", -EINVAL, "'i32 recall(u8)' is not 'i32 recall()', which is line 2 of first.baton" },
        { "only_in_a_later_version", -ENOENT, "exports no function only_in_a_later_version" },
        { "fixture_variable", -EINVAL, "is a variable" },
        { "strlen", -ENOENT, "exports no function strlen" },
        { "nothing", -ENOENT, "exports no function nothing" },
        { "i8 next_i8(", -EINVAL, "signature 'i8 next_i8(': character 12 (the end): expected a parameter's type" },
        { "some.Service/Method", -EOPNOTSUPP, "no method some.Service/Method here" },
};

static void test_described(void **state) {
        static const Row rows[] = {
                { "i16 next_i16(i16)", -EACCES,
                  "next_i16 is not described in first.baton, and other functions cannot be called without --open" },
                { "next_i16", -EACCES, "next_i16 is not described in first.baton" },
                { "next_i", -ENOENT, "exports no function next_i" },
        };
        Catalog catalog;

        (void) state;
        open_catalog(&catalog, FIXTURE_DESCRIPTION, NULL, false);
        check(&catalog, described_rows, ARRAY_SIZE(described_rows));
        check(&catalog, rows, ARRAY_SIZE(rows));
        catalog_deinit(&catalog);
}

static void test_open(void **state) {
        static const Row rows[] = {
                { "i16 next_i16(i16)", 0, "i16 next_i16(i16)" },
                { "next_i16", -EINVAL, "the signature of next_i16 is not known" },
        };
        Catalog catalog;

        (void) state;
        open_catalog(&catalog, FIXTURE_DESCRIPTION, NULL, true);
        check(&catalog, described_rows, ARRAY_SIZE(described_rows));
        check(&catalog, rows, ARRAY_SIZE(rows));
        catalog_deinit(&catalog);
}

static void test_nothing_described(void **state) {
        static const Row rows[] = {
                { "i8 next_i8(i8)", -EACCES, "next_i8 is not described in first.baton" },
                { "next_i8", -EACCES, "next_i8 is not described in first.baton" },
        };
        Catalog catalog;

        (void) state;
        open_catalog(&catalog, "# nothing\n", NULL, false);
        check(&catalog, rows, ARRAY_SIZE(rows));
        catalog_deinit(&catalog);
}

static void test_several(void **state) {
        static const Row both[] = {
                { "next_i8", 0, "i8 next_i8(i8)" },
                { "strlen", 0, "u64 strlen(string)" }, /* described twice, exported by the second */
                { "abs", 0, "i32 abs(i32)" },
                { "u32 abs(i32)", -EINVAL, "'u32 abs(i32)' is not 'i32 abs(i32)', which is line 2 of second.baton" },
                { "i64 labs(i64)", -EACCES, "labs is not described in second.baton" },
                { "i16 next_i16(i16)", -EACCES, "next_i16 is not described in first.baton" },
                { "nothing", -ENOENT, "no function nothing is exported by " },
        };
        static const Row first[] = {
                { "i64 labs(i64)", 0, "i64 labs(i64)" },
                { "labs", -EINVAL, "the signature of labs is not known" },
                { "i16 next_i16(i16)", -EACCES, "next_i16 is not described in first.baton" },
                { "u64 nothing()", -ENOENT, "module-fixture.so, libc.so.6" },
        };
        static const Row second[] = {
                { "i16 next_i16(i16)", 0, "i16 next_i16(i16)" },
                { "next_i16", -EINVAL, "the signature of next_i16 is not known" },
                { "abs", 0, "i32 abs(i32)" },
        };
        Catalog catalog;

        (void) state;
        open_catalog(&catalog, FIXTURE_DESCRIPTION, LIBC_DESCRIPTION, false);
        check(&catalog, both, ARRAY_SIZE(both));
        catalog_deinit(&catalog);
        open_catalog(&catalog, FIXTURE_DESCRIPTION, "", false);
        check(&catalog, first, ARRAY_SIZE(first));
        catalog_deinit(&catalog);
        open_catalog(&catalog, NULL, LIBC_DESCRIPTION, false);
        check(&catalog, second, ARRAY_SIZE(second));
        catalog_deinit(&catalog);
}

/* The longest names and signatures are cut, never more. */
static void test_long_texts(void **state) {
        char method[2048], error[CATALOG_ERROR_MAX];
        Signature signature;
        InvokeFn function;
        Catalog catalog;

        (void) state;
        open_catalog(&catalog, FIXTURE_DESCRIPTION, LIBC_DESCRIPTION, false);
        memset(method, 'a', sizeof(method) - 1);
        method[sizeof(method) - 1] = '\0';
        assert_int_equal(catalog_resolve(&catalog, method, &signature, &function, error), -ENOENT);
        assert_true(strlen(error) < CATALOG_ERROR_MAX);
        method[0] = ' ';
        assert_int_equal(catalog_resolve(&catalog, method, &signature, &function, error), -EINVAL);
        assert_true(strlen(error) < CATALOG_ERROR_MAX);
        catalog_deinit(&catalog);
}

static void test_load(void **state) {
        char *names[] = { (char *) set_fixture_path(), (char *) "/nonexistent.so" };
        DescriptionPlaces places = {};
        char error[CATALOG_LOAD_ERROR_MAX];
        Catalog catalog = CATALOG_NULL;

        (void) state;
        assert_int_equal(catalog_load(&catalog, names, 2, NULL, &places, error), -ENOENT);
        assert_non_null(strstr(error, "cannot load library /nonexistent.so: "));
        catalog_deinit(&catalog);
        assert_int_equal(catalog_load(&catalog, names, 1, "/nonexistent.baton", &places, error), -ENOENT);
        assert_string_equal(error, "description /nonexistent.baton: cannot read it: No such file or directory");
        catalog_deinit(&catalog);
        seam_fail(SEAM_CALLOC, 1, ENOMEM);
        assert_int_equal(catalog_load(&catalog, names, 1, NULL, &places, error), -ENOMEM);
        assert_string_equal(error, "cannot load libraries: no memory");
        catalog_deinit(&catalog);
}

static const struct CMUnitTest tests[] = {
        TEST(test_not_described), TEST(test_described),  TEST(test_open), TEST(test_nothing_described),
        TEST(test_several),       TEST(test_long_texts), TEST(test_load),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

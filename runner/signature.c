/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Parser of function signatures. A wrong signature means a call with wrong registers, which no check can find afterwards:
 * so the grammar is small, nothing is guessed (`int`, `char *` and `...` are errors, not synonyms), and what is refused is
 * shown by position, with what would have been right there.
 *
 * A recursive descent over one cursor without allocation. The first error is kept; it is an error of the text, nothing
 * else can fail.
 */

#include "runner/signature.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/macro.h"

#define TYPES "i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string"

typedef struct Cursor {
        const char *start;
        const char *p;
        SignatureError *error;
} Cursor;

static int expected(const Cursor *cursor, const char *at, const char *what) {
        *cursor->error = (SignatureError){ (size_t) (at - cursor->start) + 1, !*at, what };
        return -EINVAL;
}

static bool is_word_char(char c, bool first) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

static size_t word_length(const char *text) {
        size_t n = 0;

        while (is_word_char(text[n], n == 0))
                n++;
        return n;
}

/* skip_spaces() - whether there was one. */
static bool skip_spaces(Cursor *cursor) {
        size_t n = strspn(cursor->p, " ");

        cursor->p += n;
        return n > 0;
}

static int parse_result(Cursor *cursor, Signature *signature) {
        static const char what[] = "a result type: void " TYPES;
        size_t n = word_length(cursor->p);

        if (n == strlen("void") && memcmp(cursor->p, "void", n) == 0)
                signature->result = VALUE_NULL;
        else if (value_type_parse(cursor->p, n, &signature->result) < 0 || signature->result == VALUE_BUFFER ||
                 signature->result == VALUE_OUT)
                return expected(cursor, cursor->p, what);
        cursor->p += n;
        return 0;
}

static int parse_name(Cursor *cursor, Signature *signature) {
        size_t n;

        if (!skip_spaces(cursor))
                return expected(cursor, cursor->p, "a space and the function's name");
        n = word_length(cursor->p);
        if (n == 0)
                return expected(cursor, cursor->p, "the function's name");
        if (n > SIGNATURE_NAME_MAX)
                return expected(cursor, cursor->p, "a name of at most 255 characters");
        memcpy(signature->name, cursor->p, n);
        signature->name[n] = '\0';
        cursor->p += n;
        skip_spaces(cursor);
        return 0;
}

static int parse_parameter(Cursor *cursor, Signature *signature) {
        size_t n = word_length(cursor->p);

        if (signature->n_parameters == SIGNATURE_PARAMETERS_MAX)
                return expected(cursor, cursor->p, "no more than 16 parameters");
        if (value_type_parse(cursor->p, n, &signature->parameters[signature->n_parameters]) < 0)
                return expected(cursor, cursor->p, "a parameter's type: " TYPES " buffer out");
        signature->n_parameters++;
        cursor->p += n;
        skip_spaces(cursor);
        return 0;
}

static int parse_parameters(Cursor *cursor, Signature *signature) {
        int r;

        if (*cursor->p != '(')
                return expected(cursor, cursor->p, "'('");
        do {
                cursor->p++;
                skip_spaces(cursor);
                if (*cursor->p == ')' && signature->n_parameters == 0)
                        break;
                r = parse_parameter(cursor, signature);
                if (r < 0)
                        return r;
        } while (*cursor->p == ',');

        if (*cursor->p != ')')
                return expected(cursor, cursor->p, "',' or ')'");
        cursor->p++;
        return *cursor->p ? expected(cursor, cursor->p, "the end") : 0;
}

int signature_read(const char *text, Signature *ret_signature, SignatureError *ret_error) {
        Cursor cursor = { .start = text, .p = text, .error = ret_error };
        Signature signature = {};
        int r = parse_result(&cursor, &signature);

        if (r == 0)
                r = parse_name(&cursor, &signature);
        if (r == 0)
                r = parse_parameters(&cursor, &signature);
        if (r == 0)
                *ret_signature = signature;
        return r;
}

int signature_parse(const char *text, Signature *ret_signature, char *error) {
        SignatureError found;
        int r = signature_read(text, ret_signature, &found);

        if (r < 0)
                (void) snprintf(error, SIGNATURE_ERROR_MAX, "character %zu%s: expected %s", found.character,
                                found.at_end ? " (the end)" : "", found.expected);
        return r;
}

const char *signature_format(const Signature *signature, char *text) {
        const char *result = signature->result == VALUE_NULL ? "void" : value_type_name(signature->result);
        size_t n = (size_t) snprintf(text, SIGNATURE_TEXT_MAX, "%s %s(", result, signature->name);

        for (size_t i = 0; i < signature->n_parameters; i++)
                n += (size_t) snprintf(text + n, SIGNATURE_TEXT_MAX - n, "%s%s", i > 0 ? ", " : "",
                                       value_type_name(signature->parameters[i]));
        (void) snprintf(text + n, SIGNATURE_TEXT_MAX - n, ")");
        return text;
}

bool signature_is_equal(const Signature *a, const Signature *b) {
        return strcmp(a->name, b->name) == 0 && a->result == b->result && a->n_parameters == b->n_parameters &&
               memcmp(a->parameters, b->parameters, a->n_parameters * sizeof(a->parameters[0])) == 0;
}

bool signature_is_name(const char *text) {
        size_t n = word_length(text);

        return n > 0 && text[n] == '\0';
}

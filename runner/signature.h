#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Signatures of C functions as text, `u64 crc32(u64, buffer, u32)`:
 *
 *         signature = result name "(" [ type { "," type } ] ")"
 *         result    = "void" | "i8" ... "u64" | "f32" | "f64" | "string"
 *         type      = "i8" ... "u64" | "f32" | "f64" | "string" | "buffer" | "out"
 *         name      = a C identifier
 *
 * Spaces may stand between any two of these and must stand between result and name; none at either end. No parameter
 * names, no variable arguments, at most SIGNATURE_PARAMETERS_MAX parameters.
 */

#include <stdbool.h>
#include <stddef.h>

#include "proto/values.h"

enum {
        SIGNATURE_PARAMETERS_MAX = 16,
        SIGNATURE_NAME_MAX = 255, /* as long as a method's name can be */
        SIGNATURE_ERROR_MAX = 256,
        SIGNATURE_TEXT_MAX = 400, /* the longest name, 16 parameters of the longest type, and what is between them */
};

typedef struct Signature {
        char name[SIGNATURE_NAME_MAX + 1];
        ValueType result; /* VALUE_NULL: void */
        size_t n_parameters;
        ValueType parameters[SIGNATURE_PARAMETERS_MAX];
} Signature;

/* Where a text is no signature, and what would have been right there. */
typedef struct SignatureError {
        size_t character; /* from 1 */
        bool at_end;      /* that is behind the last one */
        const char *expected;
} SignatureError;

/* signature_read() - 0, or -EINVAL with the reason in @ret_error. */
int signature_read(const char *text, Signature *ret_signature, SignatureError *ret_error);

/*
 * signature_parse() - 0, or -EINVAL with one line in @error, of SIGNATURE_ERROR_MAX bytes, that says at which character,
 * counted from 1, what was expected.
 */
int signature_parse(const char *text, Signature *ret_signature, char *error);

/* signature_format() - the signature as text, in the SIGNATURE_TEXT_MAX bytes at @text, which are returned. */
const char *signature_format(const Signature *signature, char *text);

/* signature_is_equal() - whether name, result and parameters are the same. */
bool signature_is_equal(const Signature *a, const Signature *b);

/* signature_is_name() - whether @text is the name of a function and nothing else. */
bool signature_is_name(const char *text);

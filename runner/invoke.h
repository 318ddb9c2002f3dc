#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One call of a C function that is known by its address and its signature, through libffi. */

#include <stdint.h>

#include "proto/values.h"
#include "runner/signature.h"

typedef void (*InvokeFn)(void);

/*
 * invoke() - calls @function as @signature says. Integers and floats go by value; a string as `const char *`, a buffer as
 * a pointer to its bytes, both to private copies in @arguments, which the function may write to without effect; an out as
 * a pointer to that many zeroed bytes. All pointers end with the call. The results: the function's (none for void, null
 * for a NULL string; a string is copied, never freed), then each out's bytes. The out buffers together, and a string that
 * is returned, are at most @max_out bytes.
 *
 * On failure @error, of VALUES_ERROR_MAX bytes, has one line. -EINVAL: a wrong number or type of arguments, not called;
 * -EMSGSIZE: out buffers too large, not called, or a string too long; -ENOMEM: not called, or no room for the string;
 * -EPROTO: the string returned is not UTF-8.
 */
int invoke(InvokeFn function, const Signature *signature, const Baton__Values *arguments, uint64_t max_out,
           Baton__Values **ret_results, char *error);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Small language helpers that every layer uses: cleanup attributes, ownership transfer, array and structure arithmetic. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define _cleanup_(_x)                    __attribute__((__cleanup__(_x)))
#define _printf_(_a, _b)                 __attribute__((__format__(__printf__, _a, _b)))
#define _unused_                         __attribute__((__unused__))
#define _packed_                         __attribute__((__packed__))
#define _no_sanitize_                    __attribute__((__no_sanitize__("address", "undefined", "thread")))
#define ARRAY_SIZE(_x)                   (sizeof(_x) / sizeof((_x)[0]))
#define CONTAINER_OF(_p, _type, _member) ((_type *) (void *) ((char *) (_p) -offsetof(_type, _member)))
#define MIN(_a, _b)                      ((_a) < (_b) ? (_a) : (_b))
#define MAX(_a, _b)                      ((_a) > (_b) ? (_a) : (_b))

/* TAKE_PTR() - the value of pointer @_p, which is left NULL: ownership moves to the expression's user. */
#define TAKE_PTR(_p)                               \
        ({                                         \
                __typeof__(_p) *_take_p = &(_p);   \
                __typeof__(_p) _take_v = *_take_p; \
                *_take_p = NULL;                   \
                _take_v;                           \
        })

/* DEFINE_CLEANUP() - defines _func##p(), for _cleanup_(), from a destructor that accepts NULL and returns NULL. */
#define DEFINE_CLEANUP(_type, _func)            \
        static inline void _func##p(_type *p) { \
                if (*p)                         \
                        *p = _func(*p);         \
        }                                       \
        struct baton_semicolon

static inline void freep(void *p) {
        free(*(void **) p);
}

#define _cleanup_free_ _cleanup_(freep)

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Spare objects of one size: what was freed is kept for the next, up to a bound, so that a program at work allocates
 * none. The one freed last is used first, since its memory is the warmest. Under AddressSanitizer none is kept: one that
 * is used after its end is to be found.
 */

#include <stddef.h>
#include <stdlib.h>

#ifndef __has_feature
#define __has_feature(_name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SPARE_MAX 0u
#else
#define SPARE_MAX 256u
#endif

/* All zero: none. */
typedef struct Spare {
        void *first; /* each holds the address of the next in its first bytes */
        unsigned n;
} Spare;

/* spare_alloc() - @size bytes with anything in them, always the same and at least a pointer's. NULL: no memory. */
static inline void *spare_alloc(Spare *spare, size_t size) {
        void *object = spare->first;

        if (!object)
                return malloc(size);
        spare->first = *(void **) object;
        spare->n--;
        return object;
}

/* spare_free() - @object, which spare_alloc() gave, is not used any more. */
static inline void spare_free(Spare *spare, void *object) {
        if (spare->n + 1 > SPARE_MAX) {
                free(object);
                return;
        }
        *(void **) object = spare->first;
        spare->first = object;
        spare->n++;
}

/* spare_clear() - frees all that are kept. */
static inline void spare_clear(Spare *spare) {
        while (spare->first) {
                void *object = spare->first;

                spare->first = *(void **) object;
                free(object);
        }
        spare->n = 0;
}

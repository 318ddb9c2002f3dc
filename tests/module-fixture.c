/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The shared library that tests call through the module runner: a function of every type, buffers in and out, and
 * functions that end the process in every way a bad library does.
 */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"

#define EXPORT __attribute__((__visibility__("default")))

EXPORT int fixture_variable = 7;

/* next_T() - one more, wrapping: a result that libffi has to narrow, a sign that it must not lose. */
#define NEXT(_name, _type)                       \
        EXPORT _type next_##_name(_type value);  \
        EXPORT _type next_##_name(_type value) { \
                return (_type) (value + 1);      \
        }

NEXT(i8, int8_t)
NEXT(i16, int16_t)
NEXT(i32, int32_t)
NEXT(i64, int64_t)
NEXT(u8, uint8_t)
NEXT(u16, uint16_t)
NEXT(u32, uint32_t)
NEXT(u64, uint64_t)
NEXT(f32, float)
NEXT(f64, double)

EXPORT double mixed_sum(int8_t a, double b, uint64_t c, float d, int32_t e, double f, uint16_t g, float h, int64_t i,
                        double j, uint8_t k, double l, double m, double n, double o, double p);
EXPORT double mixed_sum(int8_t a, double b, uint64_t c, float d, int32_t e, double f, uint16_t g, float h, int64_t i,
                        double j, uint8_t k, double l, double m, double n, double o, double p) {
        return a + 2 * b + 3 * (double) c + 4 * (double) d + 5 * e + 6 * f + 7 * g + 8 * (double) h + 9 * (double) i +
               10 * j + 11 * k + 12 * l + 13 * m + 14 * n + 15 * o + 16 * p;
}

static int n_remembered;

EXPORT void remember(int32_t n);
EXPORT void remember(int32_t n) {
        n_remembered = n;
}

EXPORT int32_t recall(void);
EXPORT int32_t recall(void) {
        return n_remembered;
}

EXPORT uint64_t text_length(const char *text);
EXPORT uint64_t text_length(const char *text) {
        return strlen(text);
}

EXPORT const char *text_of(int32_t which);
EXPORT const char *text_of(int32_t which) {
        static const char *const texts[] = { "", "gr\xc3\xbc\xc3\x9f", "\xff\xfe not UTF-8", NULL };

        return texts[which];
}

/* byte_sum() - also scribbles over the bytes: they are the callee's copy. */
EXPORT uint64_t byte_sum(unsigned char *bytes, uint64_t size);
EXPORT uint64_t byte_sum(unsigned char *bytes, uint64_t size) {
        uint64_t sum = bytes ? 0 : UINT64_MAX;

        for (uint64_t i = 0; i < size; i++) {
                sum += bytes[i];
                bytes[i] = 0xee;
        }
        return sum;
}

/* split() - @in's first half to @first, reversed to @last; -1 unless both were zero. */
EXPORT int32_t split(const unsigned char *in, uint32_t half, unsigned char *first, unsigned char *last);
EXPORT int32_t split(const unsigned char *in, uint32_t half, unsigned char *first, unsigned char *last) {
        int32_t result = (int32_t) half;

        for (uint32_t i = 0; i < half; i++) {
                if (first[i] || last[i])
                        result = -1;
                first[i] = in[i];
                last[i] = in[2 * half - 1 - i];
        }
        return result;
}

EXPORT void crash(void);
EXPORT _no_sanitize_ void crash(void) {
        volatile int *volatile nowhere = NULL;

        (void) printf("about to crash\n");
        (void) signal(SIGSEGV, SIG_DFL); /* a sanitizer would make an exit of it */
        *nowhere = 1;
}

EXPORT void give_up(void);
EXPORT void give_up(void) {
        (void) signal(SIGABRT, SIG_DFL);
        abort();
}

EXPORT void leave(int32_t status);
EXPORT void leave(int32_t status) {
        _exit(status);
}

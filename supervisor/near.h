#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Names that come near one that is not there: for the message that says so. */

#include <stddef.h>

typedef struct Near Near;

enum {
        NEAR_MAX = 3,
        NEAR_TEXT_SIZE = 256,
};

/* Null value: zeroed, with the name that was asked for. */
struct Near {
        const char *wanted;
        const char *names[NEAR_MAX]; /* the nearest first */
        unsigned distances[NEAR_MAX];
        size_t n;
};

/* near_offer() - @name, which must stay, is one that there is. */
void near_offer(Near *near, const char *name);

/* near_text() - "; did you mean web.1 or web.2?", or "". Returns @text. */
const char *near_text(const Near *near, char text[NEAR_TEXT_SIZE]);

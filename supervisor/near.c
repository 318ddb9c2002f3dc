/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Near names. Near is: the same but for one letter in three, at most two (one more, one less, another, two exchanged), or
 * the one begins with the other. The distance is that of optimal string alignment, in three rows; names have a bound, and
 * those whose lengths differ by more than it are not looked at.
 */

#include "supervisor/near.h"

#include <stdio.h>
#include <string.h>

#include "common/macro.h"

enum {
        LENGTH_MAX = 64,
        DISTANCE_MAX = 2,
        DISTANCE_PREFIX = DISTANCE_MAX + 1, /* worse than a slip of the keyboard */
};

/* distance() - above DISTANCE_MAX: some number above it. */
static unsigned distance(const char *a, size_t n_a, const char *b, size_t n_b) {
        unsigned rows[3][LENGTH_MAX + 1];

        if (n_a > LENGTH_MAX || n_b > LENGTH_MAX || MAX(n_a, n_b) - MIN(n_a, n_b) > DISTANCE_MAX)
                return DISTANCE_MAX + 1;
        for (size_t j = 0; j <= n_b; j++)
                rows[0][j] = (unsigned) j;
        for (size_t i = 1; i <= n_a; i++) {
                unsigned *row = rows[i % 3];
                const unsigned *above = rows[(i - 1) % 3], *second = rows[(i + 1) % 3];

                row[0] = (unsigned) i;
                for (size_t j = 1; j <= n_b; j++) {
                        row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                                row[j] = MIN(row[j], second[j - 2] + 1);
                }
        }
        return rows[n_a % 3][n_b];
}

void near_offer(Near *near, const char *name) {
        size_t n_wanted = strlen(near->wanted), n_name = strlen(name), shorter = MIN(n_wanted, n_name), i;
        unsigned d = distance(near->wanted, n_wanted, name, n_name);

        /* Of short names everything is near: a slip for every three letters. */
        if (d > DISTANCE_MAX || d >= MAX(shorter, (size_t) 1) || d > MAX(shorter, (size_t) 3) / 3) {
                if (shorter < 2 || strncmp(near->wanted, name, shorter) != 0)
                        return;
                d = DISTANCE_PREFIX;
        }
        for (i = near->n; i > 0 && near->distances[i - 1] > d; i--)
                if (i < NEAR_MAX) {
                        near->names[i] = near->names[i - 1];
                        near->distances[i] = near->distances[i - 1];
                }
        if (i == NEAR_MAX)
                return;
        near->names[i] = name;
        near->distances[i] = d;
        near->n += near->n < NEAR_MAX;
}

const char *near_text(const Near *near, char text[NEAR_TEXT_SIZE]) {
        size_t used = 0;

        *text = '\0';
        for (size_t i = 0; i < near->n && used < NEAR_TEXT_SIZE; i++) {
                const char *before = i == 0 ? "; did you mean " : i + 1 < near->n ? ", " : " or ";

                used += (size_t) snprintf(text + used, NEAR_TEXT_SIZE - used, "%s%.64s", before, near->names[i]);
        }
        if (near->n > 0 && used < NEAR_TEXT_SIZE)
                (void) snprintf(text + used, NEAR_TEXT_SIZE - used, "?");
        return text;
}

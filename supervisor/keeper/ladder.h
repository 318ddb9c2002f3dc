#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Which supervisor follows one that died, and when: pure, no I/O. */

#include <stdbool.h>
#include <stdint.h>

typedef enum LadderRung {
        LADDER_PROGRAM,  /* its program once more */
        LADDER_PREVIOUS, /* the program before, where there is one */
        LADDER_DOWN,     /* none: its runners go on without */
} LadderRung;

/* All zero is the beginning. */
typedef struct Ladder {
        LadderRung rung;
        unsigned deaths; /* on this rung, without a healthy life between */
} Ladder;

typedef struct LadderPolicy {
        uint64_t healthy_us; /* one that has served so long begins anew */
        uint64_t delay_us;   /* before the second start in a row; each doubles it. The first follows at once */
} LadderPolicy;

#define LADDER_HEALTHY_US   (60 * UINT64_C(1000000))
#define LADDER_DELAY_US     UINT64_C(100000)
#define LADDER_DELAY_MAX_US (10 * UINT64_C(1000000))

/*
 * ladder_next() - one has died after serving @served_us (0: it never did). What follows is in @ladder->rung; the result is
 * after how many microseconds.
 */
uint64_t ladder_next(Ladder *ladder, const LadderPolicy *policy, uint64_t served_us, bool has_previous);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ladder: a supervisor that dies is started again at once, for most deaths are single ones; then after longer and longer
 * times; then the program that worked before has its turns; then none runs. To stay down is better than to die for ever,
 * since every new supervisor touches each runner. A healthy life forgives everything but the step down to the previous
 * program: that stays until the keeper is told otherwise.
 */

#include "supervisor/keeper/ladder.h"

#include "common/macro.h"

/* Deaths in a row that a rung bears. */
static const unsigned limits[] = {
        [LADDER_PROGRAM] = 8,
        [LADDER_PREVIOUS] = 4,
        [LADDER_DOWN] = 0,
};

uint64_t ladder_next(Ladder *ladder, const LadderPolicy *policy, uint64_t served_us, bool has_previous) {
        uint64_t delay = policy->delay_us;

        if (served_us > 0 && served_us >= policy->healthy_us)
                ladder->deaths = 0;
        if (++ladder->deaths > limits[ladder->rung] && ladder->rung != LADDER_DOWN) {
                ladder->rung = ladder->rung == LADDER_PROGRAM && has_previous ? LADDER_PREVIOUS : LADDER_DOWN;
                ladder->deaths = 1;
        }
        if (ladder->deaths == 1)
                return 0;
        for (unsigned i = 2; i < ladder->deaths && delay < LADDER_DELAY_MAX_US; i++)
                delay *= 2;
        return MIN(delay, LADDER_DELAY_MAX_US);
}

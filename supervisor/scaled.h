#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Scaled: templates of which somebody wants another number of instances than the configuration says. The keeper has that
 * number, in a slot without a process that bears the template's name, so that it holds for whoever supervises next.
 */

#include <stdint.h>
#include <sys/queue.h>

#include "supervisor/config.h"

typedef struct Scaled Scaled;
typedef struct Supervisor Supervisor;
LIST_HEAD(ScaledList, Scaled);

struct Scaled {
        LIST_ENTRY(Scaled) link;
        uint64_t slot; /* in the keeper */
        uint32_t n;
        char template[CONFIG_NAME_MAX + 1];
};

/* scaled_set() - there shall be @n instances of @template. Without memory it holds as long as we live. */
void scaled_set(Supervisor *supervisor, const RunnerConfig *template, uint32_t n);

/*
 * scaled_adopt() - the keeper has the number, in @slot; a later one is the one that holds. 0 or -ENOMEM. scaled_disown() - it
 * has it no more.
 */
int scaled_adopt(Supervisor *supervisor, const char *template, uint64_t slot, uint32_t n);

void scaled_disown(Supervisor *supervisor, uint64_t slot);

/* scaled_forget_others() - those that the configuration has not any more, or has itself by now. */
void scaled_forget_others(Supervisor *supervisor);

/* scaled_free() - the list; what the keeper has stays. */
void scaled_free(Supervisor *supervisor);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Leftovers: processes that a runner started and that outlived it, outside of its process group. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/loop.h"
#include "supervisor/config.h"

typedef struct Runner Runner;

enum { LEFTOVERS_MAX = 16 /* that are named */ };

/* One that was stopped, and what it has left behind. */
typedef struct Leaver {
        char name[CONFIG_NAME_MAX + 1];
        uint64_t instance;
        pid_t leader; /* its process was */
        char **found; /* "PID NAME" each, ended by NULL; NULL: none */
        size_t n;
        bool is_dying; /* some of its group are not gone yet */
        unsigned n_looks;
} Leaver;

/* A supervisor's; all zero is one where nothing is looked for. */
typedef struct Leftovers {
        Leaver *leavers; /* who is to be looked for */
        size_t n, n_room;
        LoopTimer timer;
        uint64_t next_us; /* not before is there another look */
        unsigned n_looks; /* over all children, ever */
} Leftovers;

void leftovers_init(Leftovers *leftovers);
void leftovers_deinit(Leftovers *leftovers);

/*
 * leftovers_expect() - those of @runner, whose process was @leader, are looked for in a moment, with those of others. Until
 * then it is `sought'; afterwards its watchers are told.
 */
void leftovers_expect(Leftovers *leftovers, Runner *runner, pid_t leader);
/*
 * leftovers_look() - now, if there is somebody to look for: before one is started that could leave others behind. Those that
 * have come to the keeper are said in the log, and the runner has them.
 */
void leftovers_look(Leftovers *leftovers);

/* leftovers_restore() - @n texts that a predecessor had found. */
char **leftovers_restore(char *const *texts, size_t n);
char **leftovers_free(char **leftovers);

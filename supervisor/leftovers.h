#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Leftovers: processes that a runner started and that outlived it, outside of its process group. */

#include <sys/types.h>

#include "supervisor/runner.h"

enum { LEFTOVERS_MAX = 16 /* that are named */ };

/*
 * leftovers_find() - those of @runner, whose process was @leader, that have come to the keeper: each as "PID NAME", in one
 * array ended by NULL that leftovers_free() frees; NULL: there are none, or nothing is known.
 */
char **leftovers_find(const Runner *runner, pid_t leader);
/* leftovers_restore() - @n texts that a predecessor had found. */
char **leftovers_restore(char *const *texts, size_t n);
char **leftovers_free(char **leftovers);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Names of resource limits, as of prlimit(1) without its dashes: "nofile", "core", "as". */

/* rlimit_name() - "?" for a number that has none. */
const char *rlimit_name(int resource);

/* rlimit_by_name() - RLIMIT_N, or -1. */
int rlimit_by_name(const char *name);

/* rlimit_by_index() - the name of each in turn, from 0; NULL: there are no more. */
const char *rlimit_by_index(unsigned index);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The processes that are the keeper's children, whether it knows them or not. */

/*
 * children_kill() - SIGKILL to every child of this process, adopted orphans included. One that comes to be meanwhile can
 * be missed: call it again after each exit until there is none left. Returns 0, or a negative errno (no /proc).
 */
int children_kill(void);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* System calls that can be made to fail at a fault point: those of the tests' seam, in their builds; else none. */

#include <stdbool.h>

/* fault_has_call() - whether one of this name can. */
bool fault_has_call(const char *name);

/* fault_fail_call() - the @nth call from now (1 is the next) fails with errno @error. */
void fault_fail_call(const char *name, unsigned nth, int error);

/* fault_pass_calls() - none fails any more. How many of @name have. */
unsigned fault_pass_calls(const char *name);

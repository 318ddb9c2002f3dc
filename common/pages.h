#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Memory of a process that is there for months, and most of whose code was needed when it started. */

/*
 * pages_forget() - the pages of code and constants, of the program and of its libraries, are no longer this process's: what is
 * used again is mapped again, from the kernel's cache. Costs a few system calls, and as many page faults as there is use for
 * what was forgotten.
 */
void pages_forget(void);

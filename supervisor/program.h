#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Which file a program is, as a number: whether there is another one by now is then asked of the file system alone, by
 * whichever supervisor, without a descriptor held for it.
 */

#include <stdint.h>
#include <sys/stat.h>

typedef struct Runner Runner;
typedef struct RunnerConfig RunnerConfig;

/* program_stamp() - of what was found by stat(); the same for the same file, unless it was written to. Never 0. */
uint64_t program_stamp(const struct stat *st);

/* program_stamp_fd() - of an open one; 0: it cannot be told. */
uint64_t program_stamp_fd(int fd);

/* program_stamp_of() - of what a start of @runner by @config would execute now; 0: there is nothing. */
uint64_t program_stamp_of(const Runner *runner, const RunnerConfig *config);

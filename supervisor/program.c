/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Program: device, inode, size and the moment of the last write, hashed. An installation puts another inode in the place of
 * the one before, and what overwrites a script changes the rest. What /proc/PID/exe says would need nothing to be stored; but
 * of a script it names the interpreter, and of a wrapper what that has become, so that these would look changed for ever.
 *
 * The stamp is taken right before the start: a file that is put there in between makes it look changed, never the same. It
 * is in the keeper's record, so that the function is part of that format: FNV-1a of 64 bits, over bytes in little endian.
 */

#include "supervisor/program.h"

#include <stdlib.h>

#include "common/macro.h"
#include "supervisor/config.h"
#include "supervisor/runner.h"

static uint64_t add(uint64_t hash, uint64_t number) {
        for (unsigned i = 0; i < 8; i++) {
                hash ^= (number >> (8 * i)) & 0xff;
                hash *= UINT64_C(0x100000001b3);
        }
        return hash;
}

uint64_t program_stamp(const struct stat *st) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);

        hash = add(hash, st->st_dev);
        hash = add(hash, st->st_ino);
        hash = add(hash, (uint64_t) st->st_size);
        hash = add(hash, (uint64_t) st->st_mtim.tv_sec);
        hash = add(hash, (uint64_t) st->st_mtim.tv_nsec);
        return hash ? hash : 1;
}

uint64_t program_stamp_fd(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : program_stamp(&st);
}

uint64_t program_stamp_of(const Runner *runner, const RunnerConfig *config) {
        _cleanup_free_ char *path = NULL;
        struct stat st;

        if (runner_config_program(config, runner->name, runner->number, &path) < 0 || stat(path, &st) < 0)
                return 0;
        return program_stamp(&st);
}

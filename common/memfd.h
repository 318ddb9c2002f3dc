#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Memory in a descriptor: made, sealed, and checked when it comes from somebody else. Two kinds: shared memory of a fixed
 * size (an arena), and a sealed object whose content can never change again (a snapshot, one large value).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

typedef struct MemfdWriter MemfdWriter;
typedef struct MemfdMapping MemfdMapping;

enum {
        MEMFD_READ_ONLY = 1 << 0, /* nobody but the maker's own mapping can write it */
};

/* An object while it is written. */
struct MemfdWriter {
        int fd;
        uint64_t size;
};
#define MEMFD_WRITER_NULL ((MemfdWriter){ .fd = -1 })

/* An object that was checked, readable until memfd_unmap(). */
struct MemfdMapping {
        const uint8_t *data; /* NULL where size is 0 */
        size_t size;
};

/* ---- shared memory ---- */

/*
 * memfd_shared() - a memfd of exactly @size bytes, of the flags above, mapped for reading and writing, sealed against any
 * change of size. @name is for people (/proc/PID/maps). 0; -EINVAL (size 0), -EFBIG (above RLIMIT_FSIZE or what can be
 * mapped), -EMFILE, -ENFILE, -ENOMEM.
 */
int memfd_shared(const char *name, uint64_t size, unsigned flags, int *ret_fd, void **ret_memory);

/*
 * memfd_check() - whether @fd, which a peer sent, may be mapped: ordinary memory that holds exactly @size bytes and
 * carries at least @seals (F_SEAL_...). 0; -EINVAL (something else than a memfd, or one of huge pages, whose pages can be
 * taken away from under a reader), -EPERM (seals missing), -ERANGE (another size), -EBADF.
 */
int memfd_check(int fd, uint64_t size, int seals);

/* ---- sealed objects ---- */

/* memfd_writer_open() - an empty object to be written. 0, -EMFILE, -ENFILE, -ENOMEM. */
int memfd_writer_open(const char *name, MemfdWriter *ret_writer);

/* memfd_writer_add() - @size more bytes. 0; -EFBIG (RLIMIT_FSIZE), -ENOSPC, -ENOMEM. */
int memfd_writer_add(MemfdWriter *writer, const void *data, size_t size);

/* memfd_writer_finish() - seals it against every change, and closes the writer, on every path. 0 or a negative errno. */
int memfd_writer_finish(MemfdWriter *writer, int *ret_fd);

/* memfd_writer_close() - gives up. Good for MEMFD_WRITER_NULL and a finished one. */
void memfd_writer_close(MemfdWriter *writer);

/*
 * memfd_draft() - an object of @size bytes to be written in place, mapped for writing. Errors as memfd_shared(). Children
 * do not get the mapping.
 */
int memfd_draft(const char *name, uint64_t size, int *ret_fd, void **ret_memory);

/*
 * memfd_draft_seal() - its first @size bytes are the object, sealed against every change; of @mapped bytes at @memory,
 * still to be unmapped by the caller, they can then only be read. A negative errno (-EBUSY: something else still can write
 * it, -ENOMEM): nothing has changed.
 */
int memfd_draft_seal(int fd, void *memory, size_t mapped, size_t size);

/* memfd_sealed() - the three in one: @data as an object. Errors as theirs. */
int memfd_sealed(const char *name, const void *data, size_t size, int *ret_fd);

/*
 * memfd_map_sealed() - checks that @fd is such an object of at most @max bytes, whose size and content can never change,
 * and maps it for reading: unlike shared memory it may be parsed where it is. 0; -EFBIG (larger than @max), -EINVAL and
 * -EPERM as memfd_check(), -EBADF, -ENOMEM.
 */
int memfd_map_sealed(int fd, uint64_t max, MemfdMapping *ret_mapping);

/* memfd_unmap() - leaves @mapping empty. Good for an empty one. */
void memfd_unmap(MemfdMapping *mapping);

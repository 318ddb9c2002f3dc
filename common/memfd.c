/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Memory in a descriptor. What makes it safe to map what a stranger sent are the seals: nobody, not even its maker, can
 * take one back. With SHRINK the file never gets shorter, so that no access inside the checked size can meet its end
 * (SIGBUS); with GROW and WRITE besides, what was checked stays what was checked. Three things that the seals do not say
 * are asked separately:
 * - that it is ordinary memory (tmpfs of the kernel's own, which has no quota): huge pages are sealed alike, but a hole
 *   punched into them may be impossible to fill again;
 * - that the descriptor is of a regular file at all;
 * - how large it is, by fstat() after the seals were read, not before.
 * Left over: under strict overcommit (vm.overcommit_memory=2) the kernel refuses a page by SIGBUS when no memory can be
 * promised; there every shared mapping, baton's or not, has this fault.
 *
 * RLIMIT_FSIZE counts for memfds, and whoever exceeds it is killed by SIGXFSZ: we may live in somebody else's process, so
 * sizes are compared with the limit before they are asked for.
 */

#include "common/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SEALS_SIZE   (F_SEAL_SHRINK | F_SEAL_GROW)
#define SEALS_OBJECT (SEALS_SIZE | F_SEAL_WRITE)

/* create() - an empty memfd that can be sealed, and not executed where the kernel knows how. */
static int create(const char *name) {
        unsigned no_exec = feature_enabled(FEATURE_NOEXEC_SEAL) ? MFD_NOEXEC_SEAL : 0;
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | no_exec);

        if (fd < 0 && errno == EINVAL && no_exec)
                fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return fd < 0 ? -errno : fd;
}

static int seal(int fd, int seals) {
        return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

/* check_limit() - whether a file may be that large. */
static int check_limit(uint64_t size) {
        struct rlimit limit;

        if (size > (uint64_t) MIN(INT64_MAX, PTRDIFF_MAX))
                return -EFBIG;
        if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur)
                return -EFBIG;
        return 0;
}

/* make() - a new one of @size bytes, mapped for writing. */
static int make(const char *name, uint64_t size, int *ret_fd, void **ret_memory) {
        int r = size == 0 ? -EINVAL : check_limit(size);
        _cleanup_fd_ int fd = -1;
        void *memory;

        if (r < 0)
                return r;
        fd = create(name);
        if (fd < 0)
                return fd;
        if (ftruncate(fd, (off_t) size) < 0)
                return -errno;
        memory = mmap(NULL, (size_t) size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return -errno;
        *ret_fd = fd_take(&fd);
        *ret_memory = memory;
        return 0;
}

/* ---- shared memory ---- */

int memfd_shared(const char *name, uint64_t size, unsigned flags, int *ret_fd, void **ret_memory) {
        int seals = SEALS_SIZE | F_SEAL_SEAL | (flags & MEMFD_READ_ONLY ? F_SEAL_FUTURE_WRITE : 0);
        _cleanup_fd_ int fd = -1;
        void *memory;
        int r;

        /* Mapped before the seals: of a read-only one, ours is the last mapping that can write. */
        r = make(name, size, &fd, &memory);
        if (r < 0)
                return r;
        r = seal(fd, seals);
        if (r < 0) {
                (void) munmap(memory, (size_t) size);
                return r;
        }
        *ret_fd = fd_take(&fd);
        *ret_memory = memory;
        return 0;
}

/* check_kind() - whether @fd is ordinary memory that carries @seals; how large in @ret_size. */
static int check_kind(int fd, int seals, uint64_t *ret_size) {
        struct statfs system;
        struct stat file;
        int present = fcntl(fd, F_GET_SEALS);

        if (present < 0)
                return -errno;
        if (fstat(fd, &file) < 0 || fstatfs(fd, &system) < 0)
                return -errno;
        if (!S_ISREG(file.st_mode) || system.f_type != TMPFS_MAGIC)
                return -EINVAL;
        if ((present & seals) != seals)
                return -EPERM;
        *ret_size = (uint64_t) file.st_size;
        return 0;
}

int memfd_check(int fd, uint64_t size, int seals) {
        uint64_t real = 0;
        int r = check_kind(fd, seals, &real);

        if (r < 0)
                return r;
        return real == size ? 0 : -ERANGE;
}

/* ---- sealed objects ---- */

int memfd_writer_open(const char *name, MemfdWriter *ret_writer) {
        int fd = create(name);

        if (fd < 0)
                return fd;
        *ret_writer = (MemfdWriter){ .fd = fd };
        return 0;
}

int memfd_writer_add(MemfdWriter *writer, const void *data, size_t size) {
        const uint8_t *at = data;
        int r = size > INT64_MAX - writer->size ? -EFBIG : check_limit(writer->size + size);

        if (r < 0)
                return r;
        while (size > 0) {
                ssize_t n = write(writer->fd, at, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                at += n;
                size -= (size_t) n;
                writer->size += (uint64_t) n;
        }
        return 0;
}

int memfd_writer_finish(MemfdWriter *writer, int *ret_fd) {
        _cleanup_fd_ int fd = fd_take(&writer->fd);
        int r = seal(fd, SEALS_OBJECT | F_SEAL_SEAL);

        if (r < 0)
                return r;
        *ret_fd = fd_take(&fd);
        return 0;
}

void memfd_writer_close(MemfdWriter *writer) {
        writer->fd = fd_close(writer->fd);
}

int memfd_draft(const char *name, uint64_t size, int *ret_fd, void **ret_memory) {
        int r = make(name, size, ret_fd, ret_memory);

        /* A child's copy of it would keep the file from being sealed. */
        if (r == 0)
                (void) madvise(*ret_memory, (size_t) size, MADV_DONTFORK);
        return r;
}

int memfd_draft_seal(int fd, void *memory, size_t mapped, size_t size) {
        int r;

        /* In place of the mapping that can write; private, since a shared one counts as one that could. */
        if (mmap(memory, mapped, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED)
                return -errno;
        if (size == mapped || ftruncate(fd, (off_t) size) == 0) {
                r = seal(fd, SEALS_OBJECT | F_SEAL_SEAL);
                if (r == 0)
                        return 0;
                if (size < mapped)
                        (void) ftruncate(fd, (off_t) mapped);
        } else {
                r = -errno;
        }
        if (mmap(memory, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
                (void) madvise(memory, mapped, MADV_DONTFORK);
        return r;
}

int memfd_sealed(const char *name, const void *data, size_t size, int *ret_fd) {
        MemfdWriter writer = MEMFD_WRITER_NULL;
        int r = memfd_writer_open(name, &writer);

        if (r < 0)
                return r;
        r = memfd_writer_add(&writer, data, size);
        if (r < 0) {
                memfd_writer_close(&writer);
                return r;
        }
        return memfd_writer_finish(&writer, ret_fd);
}

int memfd_map_sealed(int fd, uint64_t max, MemfdMapping *ret_mapping) {
        MemfdMapping mapping = { 0 };
        uint64_t size = 0;
        void *memory;
        int r = check_kind(fd, SEALS_OBJECT, &size);

        if (r < 0)
                return r;
        if (size > MIN(max, (uint64_t) PTRDIFF_MAX))
                return -EFBIG;
        if (size > 0) {
                /* Private: before 6.7 a shared one of what is sealed against writing is refused. */
                memory = mmap(NULL, (size_t) size, PROT_READ, MAP_PRIVATE, fd, 0);
                if (memory == MAP_FAILED)
                        return -errno;
                mapping = (MemfdMapping){ .data = memory, .size = (size_t) size };
        }
        *ret_mapping = mapping;
        return 0;
}

void memfd_unmap(MemfdMapping *mapping) {
        if (mapping->data)
                (void) munmap((void *) mapping->data, mapping->size);
        *mapping = (MemfdMapping){ 0 };
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers common/memfd: what is made is sealed, what a peer sends is checked, objects are whole and never change, and no
 * failure of the system leaves anything.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/memfd.h"
#include "tests/seam.h"

#define SEAL_EXEC    0x0020 /* F_SEAL_EXEC */
#define SIZE_SEALS   (F_SEAL_SHRINK | F_SEAL_GROW)
#define OBJECT_SEALS (SIZE_SEALS | F_SEAL_WRITE)

static int make_shared(uint64_t size, unsigned flags, int *ret_fd) {
        void *memory = NULL;
        int r = memfd_shared("test", size, flags, ret_fd, &memory);

        if (r == 0) {
                ((char *) memory)[size - 1] = 'x';
                assert_int_equal(munmap(memory, size), 0);
        }
        return r;
}

static void test_shared_is_sealed(void **state) {
        _cleanup_fd_ int fd = -1;
        void *memory;

        (void) state;
        assert_int_equal(make_shared(0, 0, &fd), -EINVAL);
        assert_int_equal(make_shared(UINT64_MAX, 0, &fd), -EFBIG);
        assert_int_equal(make_shared(8192, 0, &fd), 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(fd, 8193), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        assert_int_equal(memfd_check(fd, 8192, SIZE_SEALS), 0);
        assert_int_equal(memfd_check(fd, 8191, SIZE_SEALS), -ERANGE);
        assert_int_equal(memfd_check(fd, 8192, OBJECT_SEALS), -EPERM);
        memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(memory != MAP_FAILED);
        assert_int_equal(munmap(memory, 8192), 0);
}

static void test_read_only(void **state) {
        _cleanup_fd_ int fd = -1;
        void *memory = NULL, *other;

        (void) state;
        assert_int_equal(memfd_shared("test", 4096, MEMFD_READ_ONLY, &fd, &memory), 0);
        assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        assert_int_equal(write(fd, "x", 1), -1);
        other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        assert_true(other != MAP_FAILED);
        assert_int_equal(mprotect(other, 4096, PROT_READ | PROT_WRITE), -1);
        *(volatile char *) memory = 'x';
        assert_int_equal(*(volatile char *) other, 'x');
        assert_int_equal(munmap(memory, 4096), 0);
        assert_int_equal(munmap(other, 4096), 0);
}

static int open_null(void) {
        return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_file(void) {
        char path[256];
        int fd;

        (void) snprintf(path, sizeof(path), "%s/memfd-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        fd = mkostemp(path, O_CLOEXEC);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(ftruncate(fd, 4096), 0);
        return fd;
}

static int open_socket(void) {
        return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int open_unsealed(void) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(ftruncate(fd, 4096), 0);
        return fd;
}

static int open_half_sealed(void) {
        int fd = open_unsealed();

        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        return fd;
}

static int open_sealed(void) {
        int fd = open_unsealed();

        assert_int_equal(fcntl(fd, F_ADD_SEALS, SIZE_SEALS), 0);
        return fd;
}

static int open_none(void) {
        return -1;
}

static void test_check(void **state) {
        static const struct {
                int (*make)(void);
                int result;
        } rows[] = {
                { open_none, -EBADF },    { open_null, -EINVAL },    { open_file, -EINVAL },
                { open_socket, -EINVAL }, { open_unsealed, -EPERM }, { open_half_sealed, -EPERM },
                { open_sealed, 0 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int fd = rows[i].make();
                MemfdMapping mapping = { 0 };

                assert_int_equal(memfd_check(fd, 4096, SIZE_SEALS), rows[i].result);
                assert_int_equal(memfd_map_sealed(fd, 4096, &mapping), rows[i].result ? rows[i].result : -EPERM);
                fd_close(fd);
        }
}

/* Huge pages can be sealed as well, but not relied upon. Where there are none, the file alone can still be made. */
static void test_huge_pages(void **state) {
        _cleanup_fd_ int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

        (void) state;
        if (fd < 0) {
                print_message("the kernel gave no such memfd\n");
                skip();
        }
        assert_int_equal(fcntl(fd, F_ADD_SEALS, OBJECT_SEALS), 0);
        assert_int_equal(memfd_check(fd, 0, SIZE_SEALS), -EINVAL);
}

static void test_object(void **state) {
        _cleanup_fd_ int fd = -1;
        MemfdWriter writer = MEMFD_WRITER_NULL;
        MemfdMapping mapping = { 0 };

        (void) state;
        assert_int_equal(memfd_writer_open("test", &writer), 0);
        for (unsigned i = 0; i < 3000; i++)
                assert_int_equal(memfd_writer_add(&writer, "abc", 3), 0);
        assert_int_equal(memfd_writer_add(&writer, NULL, 0), 0);
        assert_int_equal(writer.size, 9000);
        assert_int_equal(memfd_writer_finish(&writer, &fd), 0);
        memfd_writer_close(&writer);
        assert_int_equal(write(fd, "x", 1), -1);
        assert_int_equal(ftruncate(fd, 1), -1);

        assert_int_equal(memfd_map_sealed(fd, 8999, &mapping), -EFBIG);
        assert_int_equal(memfd_map_sealed(fd, 9000, &mapping), 0);
        assert_int_equal(mapping.size, 9000);
        assert_memory_equal(mapping.data, "abcabc", 6);
        assert_memory_equal(mapping.data + 8997, "abc", 3);
        memfd_unmap(&mapping);
        memfd_unmap(&mapping);
        assert_null(mapping.data);
}

static void test_empty_object(void **state) {
        _cleanup_fd_ int fd = -1;
        MemfdMapping mapping = { .size = 1 };

        (void) state;
        assert_int_equal(memfd_sealed("test", NULL, 0, &fd), 0);
        assert_int_equal(memfd_map_sealed(fd, 0, &mapping), 0);
        assert_null(mapping.data);
        assert_int_equal(mapping.size, 0);
        memfd_unmap(&mapping);
}

/* Above RLIMIT_FSIZE the kernel would kill the process by SIGXFSZ. */
static int large_in_child(void *argument) {
        struct rlimit limit = { 10000, 10000 };
        char data[4096] = "";
        MemfdWriter writer = MEMFD_WRITER_NULL;
        int fd = -1, r = 0;

        (void) argument;
        r |= setrlimit(RLIMIT_FSIZE, &limit) != 0;
        r |= (make_shared(16384, 0, &fd) != -EFBIG) << 1;
        r |= (make_shared(8192, 0, &fd) != 0) << 2;
        r |= (memfd_writer_open("test", &writer) != 0) << 3;
        r |= (memfd_writer_add(&writer, data, sizeof(data)) != 0) << 4;
        r |= (memfd_writer_add(&writer, data, sizeof(data)) != 0) << 5;
        r |= (memfd_writer_add(&writer, data, sizeof(data)) != -EFBIG) << 6;
        return r;
}

static void test_file_size_limit(void **state) {
        (void) state;
        assert_int_equal(test_child_wait(test_child(large_in_child, NULL)), 0);
}

/* ---- failures of the system ---- */

static int shared_and_gone(void *argument) {
        int fd = -1, r = make_shared(4096, 0, &fd);

        (void) argument;
        fd_close(fd);
        return r;
}

static int object_and_gone(void *argument) {
        MemfdMapping mapping = { 0 };
        int fd = -1, r = memfd_sealed("test", "abc", 3, &fd);

        (void) argument;
        if (r == 0)
                r = memfd_map_sealed(fd, 3, &mapping);
        memfd_unmap(&mapping);
        fd_close(fd);
        return r;
}

static void test_failures(void **state) {
        (void) state;
        assert_int_equal(seam_each(SEAM_MEMFD_CREATE, EMFILE, shared_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_FTRUNCATE, ENOMEM, shared_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_MMAP, ENOMEM, shared_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_FCNTL, EBUSY, shared_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_MEMFD_CREATE, ENFILE, object_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_MMAP, ENOMEM, object_and_gone, NULL, 0), 1);
        assert_int_equal(seam_each(SEAM_FCNTL, EINTR, object_and_gone, NULL, 0), 2);
}

/* Without the feature, and with it where the kernel has it: whether it can ever be made executable. */
static void test_no_exec_seal(void **state) {
        (void) state;
        for (int i = 0; i < 2; i++) {
                int fd, seals;

                if (i == 0)
                        (void) setenv("BATON_DISABLE", "noexec-seal", 1);
                else
                        (void) unsetenv("BATON_DISABLE");
                feature_forget();
                assert_int_equal(memfd_sealed("test", "x", 1, &fd), 0);
                seals = fcntl(fd, F_GET_SEALS);
                fd_close(fd);
                assert_int_equal(!!(seals & SEAL_EXEC), i == 1 && feature_enabled(FEATURE_NOEXEC_SEAL));
        }
}

/* A kernel that does not know MFD_NOEXEC_SEAL says EINVAL. */
static void test_older_kernel(void **state) {
        (void) state;
        assert_int_equal(seam_each_tolerated(SEAM_MEMFD_CREATE, EINVAL, shared_and_gone, NULL), 1);
        assert_int_equal(seam_count(SEAM_MEMFD_CREATE), 3);
}

static const struct CMUnitTest tests[] = {
        TEST(test_shared_is_sealed), TEST(test_read_only),    TEST(test_check),           TEST(test_huge_pages),
        TEST(test_object),           TEST(test_empty_object), TEST(test_file_size_limit), TEST(test_failures),
        TEST(test_no_exec_seal),     TEST(test_older_kernel),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

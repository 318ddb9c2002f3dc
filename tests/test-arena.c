/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers proto/arena, both sides: classes and bounds, every wrong block and every wrong announcement by tables, random
 * use against a model (BATON_TEST_SEED replays it), a peer that shrinks and scribbles, what a failing system leaves behind.
 * After every test no descriptor and no mapping of an arena may be left.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "proto/arena.h"
#include "proto/arena.pb-c.h"
#include "tests/seam.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

#define PEER  UINT64_C(7)
#define OTHER UINT64_C(8)

/* What the pool told, and a map of a peer that follows it, where there is one. */
typedef struct Follower {
        ArenaMap *map;
        unsigned n_announced, n_retired;
        uint64_t last_id, last_size;
        int last_fd, refuse;
} Follower;

static int on_announce(void *userdata, uint64_t id, int fd, uint64_t size) {
        Follower *follower = userdata;

        if (follower->refuse)
                return follower->refuse;
        follower->n_announced++;
        follower->last_id = id;
        follower->last_fd = fd;
        follower->last_size = size;
        return follower->map ? arena_map_announce(follower->map, id, fd_dup(fd), size) : 0;
}

static void on_retire(void *userdata, uint64_t id) {
        Follower *follower = userdata;

        follower->n_retired++;
        follower->last_id = id;
        if (follower->map)
                assert_int_equal(arena_map_retire(follower->map, id), 0);
}

static ArenaPool *new_pool(Follower *follower, ArenaPoolConfig config) {
        ArenaPool *pool = NULL;

        config.announce = on_announce;
        config.retire = on_retire;
        config.userdata = follower;
        assert_int_equal(arena_pool_new(&pool, &config), 0);
        return pool;
}

static ArenaMap *new_map(ArenaMapLimits limits) {
        ArenaMap *map = NULL;

        assert_int_equal(arena_map_new(&map, &limits), 0);
        return map;
}

/* n_mappings() - of arenas, in this process. */
static unsigned n_mappings(void) {
        FILE *file = fopen("/proc/self/maps", "re");
        char line[512];
        unsigned n = 0;

        assert_non_null(file);
        while (fgets(line, sizeof(line), file))
                n += strstr(line, "memfd:") != NULL;
        (void) fclose(file);
        return n;
}

static ArenaBlock alloc_block(ArenaPool *pool, uint64_t size) {
        ArenaBlock block = { 0 };
        void *memory = NULL;

        assert_int_equal(arena_pool_alloc(pool, size, &block, &memory), 0);
        assert_int_equal(block.length, size);
        assert_int_equal(block.offset % ARENA_UNIT, 0);
        memset(memory, (int) (block.offset / ARENA_UNIT), (size_t) size);
        return block;
}

static ArenaBlock give_block(ArenaPool *pool, uint64_t size, uint64_t peer) {
        ArenaBlock block = alloc_block(pool, size);

        assert_int_equal(arena_pool_give(pool, &block, peer), 0);
        return block;
}

/* ---- the owner's side ---- */

static void test_pool_configuration(void **state) {
        static const struct {
                ArenaPoolConfig config;
                int result;
        } rows[] = {
                { { 0 }, 0 },
                { { .max_bytes = 4095 }, -EINVAL },
                { { .max_bytes = 4096 }, 0 },
                { { .max_bytes = 3 * MIB }, 0 },
                { { .arena_size = 4096 }, 0 },
                { { .arena_size = 2048 }, -EINVAL },
                { { .arena_size = 12288 }, -EINVAL },
                { { .arena_size = MIB, .max_bytes = MIB - 1 }, -EINVAL },
                { { .max_arenas = 65 }, -EINVAL },
                { { .arena_size = UINT64_C(1) << 60, .max_bytes = UINT64_MAX }, -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ArenaPool *pool = NULL;

                assert_int_equal(arena_pool_new(&pool, &rows[i].config), rows[i].result);
                assert_null(arena_pool_free(pool));
        }
}

static void test_classes(void **state) {
        static const struct {
                uint64_t size, taken;
        } rows[] = {
                { 1, 4 * KIB },       { 4096, 4 * KIB },        { 4097, 8 * KIB },
                { 8192, 8 * KIB },    { 8193, 16 * KIB },       { MIB, MIB },
                { MIB + 1, 2 * MIB }, { 4 * MIB, 4 * MIB },     { 4 * MIB + 1, 9 * MIB / 2 },
                { 5 * MIB, 5 * MIB }, { 8 * MIB + 1, 9 * MIB }, { 64 * MIB, 64 * MIB },
        };
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ 0 });

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ArenaBlock block = { 0 };
                void *memory = NULL;

                assert_int_equal(arena_pool_alloc(pool, rows[i].size, &block, &memory), 0);
                assert_int_equal(arena_pool_usage(pool).block_bytes, rows[i].taken);
                assert_int_equal(arena_pool_drop(pool, &block), 0);
                assert_int_equal(arena_pool_usage(pool).block_bytes + arena_pool_usage(pool).blocks, 0);
        }
        assert_true(arena_pool_usage(pool).peak_arena_bytes <= 64 * MIB);
        assert_null(arena_pool_free(pool));
        assert_int_equal(n_mappings(), 0);
}

static void test_sizes_out_of_bounds(void **state) {
        static const struct {
                uint64_t size;
                int result;
        } rows[] = {
                { 0, -EINVAL }, { UINT64_MAX, -EMSGSIZE }, { UINT64_MAX - 4095, -EMSGSIZE }, { MIB + 1, -EMSGSIZE },
                { MIB, 0 },
        };
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .max_bytes = MIB, .arena_size = 64 * KIB });

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ArenaBlock block = { 0 };
                void *memory = NULL;

                assert_int_equal(arena_pool_alloc(pool, rows[i].size, &block, &memory), rows[i].result);
        }
        assert_null(arena_pool_free(pool));
}

/* Bounds on bytes and on arenas; idle arenas make room, busy ones do not. */
static void test_bounds(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool =
                new_pool(&follower, (ArenaPoolConfig){ .max_bytes = MIB, .max_arenas = 3, .arena_size = 256 * KIB });
        ArenaBlock blocks[4], more;
        void *memory;

        (void) state;
        for (unsigned i = 0; i < 3; i++)
                blocks[i] = alloc_block(pool, 256 * KIB);
        assert_int_equal(arena_pool_alloc(pool, 1, &more, &memory), -ENOBUFS);
        assert_int_equal(arena_pool_drop(pool, &blocks[0]), 0);
        assert_int_equal(arena_pool_alloc(pool, 800 * KIB, &more, &memory), -ENOBUFS);
        assert_int_equal(follower.n_retired, 0);
        assert_int_equal(arena_pool_drop(pool, &blocks[1]), 0);
        more = alloc_block(pool, 400 * KIB);
        assert_int_equal(follower.n_retired, 1);
        assert_int_equal(follower.n_announced, 4);
        assert_int_equal(arena_pool_usage(pool).arenas, 3);
        assert_int_equal(arena_pool_alloc(pool, 1, &blocks[0], &memory), 0);
        assert_null(arena_pool_free(pool));
        assert_int_equal(n_mappings(), 0);
}

static void test_large_arena_is_used_again(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ 0 });
        ArenaBlock block = alloc_block(pool, 6000000), second;

        (void) state;
        assert_int_equal(arena_pool_drop(pool, &block), 0);
        block = alloc_block(pool, 5900000);
        assert_int_equal(follower.n_announced, 1);
        second = alloc_block(pool, 6000000);
        assert_int_equal(follower.n_announced, 2);
        assert_int_equal(arena_pool_drop(pool, &block), 0);
        assert_int_equal(arena_pool_drop(pool, &second), 0);
        block = alloc_block(pool, 20 * MIB);
        assert_int_equal(arena_pool_drop(pool, &block), 0);
        block = alloc_block(pool, 5 * MIB); /* not the one of 20 */
        assert_int_equal(follower.n_announced, 3);
        assert_null(arena_pool_free(pool));
}

/* Every field of a block wrong in each way; the pool is unharmed, the right one is then taken. */
static void test_wrong_releases(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = 256 * KIB });
        ArenaBlock held = give_block(pool, 10000, PEER), ours = alloc_block(pool, 5000);
        ArenaBlock large = give_block(pool, MIB, PEER);
        const struct {
                ArenaBlock block;
                int result;
        } rows[] = {
                { { held.arena + 1, held.offset, held.length }, -ENOENT },
                { { held.arena + 64, held.offset, held.length }, -ENOENT },
                { { 0, held.offset, held.length }, -ENOENT },
                { { UINT64_MAX, held.offset, held.length }, -ENOENT },
                { { held.arena, 256 * KIB, held.length }, -ERANGE },
                { { held.arena, UINT64_MAX, held.length }, -ERANGE },
                { { held.arena, UINT64_MAX & ~(ARENA_UNIT - 1), held.length }, -ERANGE },
                { { held.arena, held.offset + 1, held.length }, -EINVAL },
                { { held.arena, held.offset + 4095, held.length }, -EINVAL },
                { { held.arena, held.offset + 4096, held.length }, -EINVAL },
                { { held.arena, held.offset + 12288, held.length }, -EINVAL },
                { { held.arena, 252 * KIB, 4096 }, -EALREADY },
                { { held.arena, 128 * KIB, 4096 }, -EALREADY },
                { { held.arena, held.offset, 0 }, -EMSGSIZE },
                { { held.arena, held.offset, 9999 }, -EMSGSIZE },
                { { held.arena, held.offset, 16384 }, -EMSGSIZE },
                { { held.arena, held.offset, UINT64_MAX }, -EMSGSIZE },
                { ours, -EACCES },
                { { large.arena, 4096, large.length }, -EINVAL },
                { { large.arena, MIB, large.length }, -ERANGE },
                { { large.arena, 0, large.length - 1 }, -EMSGSIZE },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int r = arena_pool_release(pool, PEER, &rows[i].block);

                if (r != rows[i].result)
                        fail_msg("row %zu: %d (%s), not %d", i, r, arena_error(r), rows[i].result);
                assert_int_equal(arena_pool_usage(pool).blocks, 3);
        }
        assert_int_equal(arena_pool_release(pool, OTHER, &held), -EACCES);
        assert_int_equal(arena_pool_drop(pool, &held), -EACCES);
        assert_int_equal(arena_pool_give(pool, &held, OTHER), -EACCES);
        assert_int_equal(arena_pool_release(pool, PEER, &held), 0);
        assert_int_equal(arena_pool_release(pool, PEER, &held), -EALREADY);
        assert_int_equal(arena_pool_release(pool, PEER, &large), 0);
        assert_int_equal(arena_pool_release(pool, PEER, &large), -EALREADY);
        assert_int_equal(arena_pool_drop(pool, &ours), 0);
        assert_int_equal(arena_pool_drop(pool, &ours), -EALREADY);
        assert_null(arena_pool_free(pool));
}

static void test_trim(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ 0 });
        ArenaBlock block = alloc_block(pool, 10000);

        (void) state;
        assert_int_equal(arena_pool_trim(pool, &block, 0), -ERANGE);
        assert_int_equal(arena_pool_trim(pool, &block, 10001), -ERANGE);
        assert_int_equal(arena_pool_trim(pool, &block, 10000), 0);
        assert_int_equal(arena_pool_trim(pool, &block, 17), 0);
        assert_int_equal(block.length, 17);
        assert_int_equal(arena_pool_give(pool, &block, PEER), 0);
        assert_int_equal(arena_pool_trim(pool, &block, 16), -EACCES);
        assert_int_equal(arena_pool_release(pool, PEER, &block), 0);
        assert_null(arena_pool_free(pool));
}

static void test_peer_gone(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = 64 * KIB });
        ArenaBlock ours = alloc_block(pool, 4096), theirs = { 0 };

        (void) state;
        for (unsigned i = 0; i < 40; i++) {
                (void) give_block(pool, 4096 << i % 4, PEER);
                theirs = give_block(pool, 4096, OTHER);
        }
        (void) give_block(pool, MIB, PEER);
        assert_int_equal(arena_pool_peer_gone(pool, UINT64_C(99)), 0);
        assert_int_equal(arena_pool_peer_gone(pool, PEER), 41);
        assert_int_equal(arena_pool_peer_gone(pool, PEER), 0);
        assert_int_equal(arena_pool_usage(pool).blocks, 41);
        assert_int_equal(arena_pool_release(pool, OTHER, &theirs), 0);
        assert_int_equal(arena_pool_peer_gone(pool, OTHER), 39);
        assert_int_equal(arena_pool_drop(pool, &ours), 0);
        assert_int_equal(arena_pool_usage(pool).blocks + arena_pool_usage(pool).block_bytes, 0);

        /* All was joined again: every arena can be had as a whole. */
        for (uint32_t i = 0, n = arena_pool_usage(pool).arenas - 1; i < n; i++)
                (void) alloc_block(pool, 64 * KIB);
        assert_null(arena_pool_free(pool));
        assert_int_equal(n_mappings(), 0);
}

static void test_idle_arenas_retire(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = 64 * KIB, .idle_us = 1000 });
        ArenaBlock one, two;

        (void) state;
        seam_clock_set(1000000);
        assert_true(arena_pool_deadline(pool) == USEC_INFINITY);
        one = alloc_block(pool, 64 * KIB);
        two = give_block(pool, 64 * KIB, PEER);
        assert_true(arena_pool_deadline(pool) == USEC_INFINITY);
        assert_int_equal(arena_pool_drop(pool, &one), 0);
        assert_int_equal(arena_pool_deadline(pool), 1001000);
        arena_pool_expire(pool, 1000999);
        arena_pool_expire(pool, 1001000);
        assert_int_equal(follower.n_retired, 0);
        assert_int_equal(arena_pool_deadline(pool), 1002000);

        /* Used between the two deadlines: it stays. */
        one = alloc_block(pool, 4096);
        assert_int_equal(follower.n_announced, 2);
        assert_int_equal(arena_pool_drop(pool, &one), 0);
        arena_pool_expire(pool, 1002000);
        assert_int_equal(follower.n_retired, 0);
        arena_pool_expire(pool, 1003000);
        assert_int_equal(follower.n_retired, 1);
        assert_int_equal(follower.last_id, one.arena);
        assert_true(arena_pool_deadline(pool) == USEC_INFINITY);

        assert_int_equal(arena_pool_release(pool, PEER, &two), 0);
        assert_int_equal(arena_pool_release(pool, PEER, &one), -ENOENT);
        arena_pool_expire(pool, 2000000);
        arena_pool_expire(pool, 3000000);
        assert_int_equal(arena_pool_usage(pool).arenas, 0);
        assert_int_equal(n_mappings(), 0);
        assert_null(arena_pool_free(pool));
}

/* A peer that keeps a retired arena keeps no memory of ours with it; in a read-only pool it can. */
static void test_retired_memory_is_given_back(void **state) {
        for (unsigned read_only = 0; read_only < 2; read_only++) {
                Follower follower = { 0 };
                ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .idle_us = 1, .read_only = read_only });
                ArenaBlock block = alloc_block(pool, MIB);
                int fd = fd_dup(follower.last_fd);
                struct stat file;

                assert_int_equal(fstat(fd, &file), 0);
                assert_true(file.st_blocks * 512 >= (blkcnt_t) MIB);
                assert_int_equal(arena_pool_drop(pool, &block), 0);
                arena_pool_expire(pool, USEC_INFINITY - 2);
                arena_pool_expire(pool, USEC_INFINITY - 1);
                assert_int_equal(follower.n_retired, 1);
                assert_int_equal(fstat(fd, &file), 0);
                assert_int_equal(file.st_blocks == 0, !read_only);
                fd_close(fd);
                assert_null(arena_pool_free(pool));
        }
        (void) state;
}

static void test_refused(void **state) {
        Follower follower = { .refuse = -EDQUOT };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = 64 * KIB });
        ArenaBlock one, two, block;
        void *memory;

        (void) state;
        assert_int_equal(arena_pool_alloc(pool, 1, &block, &memory), -EDQUOT);
        assert_int_equal(arena_pool_usage(pool).arenas, 0);
        follower.refuse = 0;
        one = give_block(pool, 4096, PEER);
        assert_int_equal(arena_pool_refused(pool, one.arena + 1), -ENOENT);
        two = give_block(pool, 64 * KIB, PEER);
        assert_int_equal(arena_pool_refused(pool, two.arena), 0);
        assert_int_equal(arena_pool_alloc(pool, 64 * KIB, &block, &memory), -ENOBUFS);
        assert_int_equal(arena_pool_release(pool, PEER, &two), 0);
        assert_int_equal(follower.n_retired, 1);
        assert_int_equal(arena_pool_alloc(pool, 64 * KIB, &block, &memory), -ENOBUFS);
        block = alloc_block(pool, 32 * KIB);
        assert_int_equal(arena_pool_refused(pool, one.arena), 0);
        assert_int_equal(arena_pool_announce(pool), 0);
        assert_int_equal(follower.n_announced, 2);
        assert_int_equal(arena_pool_release(pool, PEER, &one), 0);
        assert_int_equal(arena_pool_release(pool, PEER, &one), -EALREADY);
        assert_int_equal(arena_pool_alloc(pool, 1, &one, &memory), -EMSGSIZE);
        assert_int_equal(arena_pool_drop(pool, &block), 0);
        assert_int_equal(arena_pool_usage(pool).arenas, 0);
        assert_null(arena_pool_free(pool));
}

static void test_announce_again(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = 64 * KIB });

        (void) state;
        for (unsigned i = 0; i < 3; i++)
                (void) alloc_block(pool, 64 * KIB);
        assert_int_equal(follower.n_announced, 3);
        assert_int_equal(arena_pool_announce(pool), 0);
        assert_int_equal(follower.n_announced, 6);
        follower.refuse = -ENOMEM;
        assert_int_equal(arena_pool_announce(pool), -ENOMEM);
        assert_null(arena_pool_free(pool));
}

/* ---- the reader's side ---- */

static int shared_fd(uint64_t size, unsigned flags) {
        void *memory = NULL;
        int fd = -1;

        assert_int_equal(memfd_shared("test", size, flags, &fd, &memory), 0);
        assert_int_equal(munmap(memory, size), 0);
        return fd;
}

static int unsealed_fd(uint64_t size, int seals) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(ftruncate(fd, (off_t) size), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
        return fd;
}

static void test_announcements(void **state) {
        ArenaBudget budget = { .max_bytes = 100 * KIB, .used_bytes = 20 * KIB };
        ArenaMap *map = new_map((ArenaMapLimits){ .max_bytes = 128 * KIB, .max_arenas = 3, .budget = &budget });
        const struct {
                uint64_t id, size;
                int fd, result;
        } rows[] = {
                { 1, 0, shared_fd(4096, 0), -EINVAL },
                { 1, 4096, -1, -EBADF },
                { 1, 4096, open("/dev/zero", O_RDWR | O_CLOEXEC), -EINVAL },
                { 1, 4096, open("/proc/self/maps", O_RDONLY | O_CLOEXEC), -EINVAL },
                { 1, 4096, unsealed_fd(4096, 0), -EPERM },
                { 1, 4096, unsealed_fd(4096, F_SEAL_SHRINK), -EPERM },
                { 1, 4096, unsealed_fd(4096, F_SEAL_GROW), -EPERM },
                { 1, 4096, shared_fd(8192, 0), -ERANGE },
                { 1, 8192, shared_fd(4096, 0), -ERANGE },
                { 1, 4097, shared_fd(4096, 0), -ERANGE },
                { 1, 128 * KIB + 1, shared_fd(128 * KIB + 1, 0), -EDQUOT },
                { 1, UINT64_MAX, shared_fd(4096, 0), -EDQUOT },
                { 1, 100 * KIB, shared_fd(100 * KIB, 0), -ENOBUFS },
                { 1, 5000, shared_fd(5000, 0), 0 },
                { 1, 4096, shared_fd(4096, 0), -EEXIST },
                { 0, 4096, shared_fd(4096, MEMFD_READ_ONLY), 0 },
                { UINT64_MAX, 4096, shared_fd(4096, 0), 0 },
                { 2, 4096, shared_fd(4096, 0), -ENOBUFS },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int r = arena_map_announce(map, rows[i].id, rows[i].fd, rows[i].size);

                if (r != rows[i].result)
                        fail_msg("row %zu: %d, not %d", i, r, rows[i].result);
                assert_true(rows[i].fd < 0 || !test_is_open(rows[i].fd));
        }
        assert_int_equal(budget.used_bytes, 20 * KIB + 5000 + 8192);
        assert_int_equal(n_mappings(), 3);
        assert_null(arena_map_free(map));
        assert_int_equal(budget.used_bytes, 20 * KIB);
        assert_int_equal(n_mappings(), 0);
}

static void test_writable(void **state) {
        ArenaMap *map = new_map((ArenaMapLimits){ .writable = true });
        ArenaBlock block = { 2, 0, 10 };
        ArenaView view;

        (void) state;
        assert_int_equal(arena_map_announce(map, 1, shared_fd(4096, MEMFD_READ_ONLY), 4096), -EACCES);
        assert_int_equal(arena_map_announce(map, 2, shared_fd(4096, 0), 4096), 0);
        assert_int_equal(arena_map_resolve(map, &block, &view), 0);
        memcpy(view.memory, "0123456789", 10);
        arena_view_release(&view);
        assert_null(arena_map_free(map));
}

static void test_wrong_blocks(void **state) {
        static const struct {
                ArenaBlock block;
                int result;
        } rows[] = {
                { { 2, 0, 1 }, -ENOENT },
                { { UINT64_MAX, 0, 1 }, -ENOENT },
                { { 1, 0, 0 }, -ERANGE },
                { { 1, 0, 10001 }, -ERANGE },
                { { 1, 10000, 0 }, -ERANGE },
                { { 1, 10000, 1 }, -ERANGE },
                { { 1, 9999, 2 }, -ERANGE },
                { { 1, 1, UINT64_MAX }, -ERANGE },
                { { 1, UINT64_MAX, 1 }, -ERANGE },
                { { 1, UINT64_MAX, UINT64_MAX }, -ERANGE },
                { { 1, UINT64_MAX - 9998, 9999 }, -ERANGE },
                { { 1, UINT64_C(1) << 63, UINT64_C(1) << 63 }, -ERANGE },
                { { 3, 0, 1 }, -ESTALE },
                { { 1, 0, 10000 }, 0 },
                { { 1, 9999, 1 }, 0 },
                { { 1, 4096, 100 }, 0 },
        };
        ArenaMap *map = new_map((ArenaMapLimits){ 0 });
        ArenaView held = ARENA_VIEW_NULL;

        (void) state;
        assert_int_equal(arena_map_announce(map, 1, shared_fd(10000, 0), 10000), 0);
        assert_int_equal(arena_map_announce(map, 3, shared_fd(4096, 0), 4096), 0);
        assert_int_equal(arena_map_resolve(map, &(ArenaBlock){ 3, 0, 1 }, &held), 0);
        assert_int_equal(arena_map_retire(map, 3), 0);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                ArenaView view = ARENA_VIEW_NULL;
                int r = arena_map_resolve(map, &rows[i].block, &view);
                uint8_t byte;

                if (r != rows[i].result)
                        fail_msg("row %zu: %d (%s), not %d", i, r, arena_error(r), rows[i].result);
                assert_int_equal(arena_map_discard(map, &rows[i].block), rows[i].result);
                if (r < 0)
                        continue;
                assert_int_equal(view.size, rows[i].block.length);
                assert_int_equal(arena_view_copy(&view, view.size - 1, &byte, 1), 0);
                assert_int_equal(arena_view_copy(&view, view.size, &byte, 1), -ERANGE);
                assert_int_equal(arena_view_copy(&view, SIZE_MAX, &byte, SIZE_MAX), -ERANGE);
                assert_int_equal(arena_view_copy(&view, view.size, &byte, 0), 0);
                arena_view_release(&view);
                arena_view_release(&view);
        }
        arena_view_release(&held);
        assert_int_equal(arena_map_pending(map), 7);
        assert_null(arena_map_free(map));
        assert_int_equal(n_mappings(), 0);
}

/* Retired with views out: mapped, counted, its id in use, until the last is released; its blocks still go back. */
static void test_retire_waits_for_views(void **state) {
        ArenaMap *map = new_map((ArenaMapLimits){ .max_bytes = 8192 });
        ArenaView one = ARENA_VIEW_NULL, two = ARENA_VIEW_NULL;
        ArenaBlock blocks[4];

        (void) state;
        assert_int_equal(arena_map_announce(map, 5, shared_fd(8192, 0), 8192), 0);
        assert_int_equal(arena_map_resolve(map, &(ArenaBlock){ 5, 0, 4096 }, &one), 0);
        assert_int_equal(arena_map_resolve(map, &(ArenaBlock){ 5, 4096, 4000 }, &two), 0);
        assert_int_equal(arena_map_retire(map, 4), -ENOENT);
        assert_int_equal(arena_map_retire(map, 5), 0);
        assert_int_equal(arena_map_retire(map, 5), -EALREADY);
        assert_int_equal(arena_map_announce(map, 5, shared_fd(4096, 0), 4096), -EEXIST);
        assert_int_equal(arena_map_announce(map, 6, shared_fd(4096, 0), 4096), -EDQUOT);
        arena_view_release(&one);
        assert_int_equal(n_mappings(), 1);
        arena_view_release(&two);
        assert_int_equal(n_mappings(), 0);
        assert_int_equal(arena_map_retire(map, 5), -ENOENT);
        assert_int_equal(arena_map_take_returns(map, blocks, 1), 1);
        assert_int_equal(arena_map_take_returns(map, blocks + 1, 3), 1);
        assert_int_equal(arena_map_take_returns(map, blocks, 4), 0);
        assert_true(blocks[0].arena == 5 && blocks[0].offset == 0 && blocks[0].length == 4096);
        assert_true(blocks[1].arena == 5 && blocks[1].offset == 4096 && blocks[1].length == 4000);
        assert_int_equal(arena_map_announce(map, 5, shared_fd(8192, 0), 8192), 0);
        assert_null(arena_map_free(map));
}

static void test_view_outlives_map(void **state) {
        ArenaBudget budget = { .max_bytes = MIB };
        ArenaMap *map = new_map((ArenaMapLimits){ .budget = &budget });
        ArenaView view = ARENA_VIEW_NULL;
        char text[4];

        (void) state;
        assert_int_equal(arena_map_announce(map, 1, shared_fd(4096, 0), 4096), 0);
        assert_int_equal(arena_map_announce(map, 2, shared_fd(4096, 0), 4096), 0);
        assert_int_equal(arena_map_resolve(map, &(ArenaBlock){ 2, 0, 4 }, &view), 0);
        assert_null(arena_map_free(map));
        assert_int_equal(n_mappings(), 1);
        assert_int_equal(budget.used_bytes, 4096);
        assert_int_equal(arena_view_copy(&view, 0, text, 4), 0);
        arena_view_release(&view);
        assert_int_equal(budget.used_bytes + n_mappings(), 0);
}

static void test_block_limit(void **state) {
        ArenaMap *map = new_map((ArenaMapLimits){ .max_blocks = 20 });
        ArenaBlock block = { 1, 0, 16 }, returned[20];
        ArenaView views[20];

        (void) state;
        assert_int_equal(arena_map_announce(map, 1, shared_fd(4096, 0), 4096), 0);
        for (unsigned i = 0; i < 19; i++)
                assert_int_equal(arena_map_resolve(map, &block, &views[i]), 0);
        assert_int_equal(arena_map_discard(map, &block), 0);
        assert_int_equal(arena_map_discard(map, &block), -EUSERS);
        assert_int_equal(arena_map_resolve(map, &block, &views[19]), -EUSERS);
        arena_view_release(&views[0]);
        assert_int_equal(arena_map_resolve(map, &block, &views[0]), -EUSERS);
        assert_int_equal(arena_map_take_returns(map, returned, 20), 2);
        assert_int_equal(arena_map_resolve(map, &block, &views[0]), 0);
        for (unsigned i = 0; i < 19; i++)
                arena_view_release(&views[i]);
        assert_int_equal(arena_map_pending(map), 19);
        assert_null(arena_map_free(map));
}

/* ---- both sides ---- */

static void test_round_trip(void **state) {
        Follower follower = { .map = new_map((ArenaMapLimits){ 0 }) };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .idle_us = 1 });

        (void) state;
        for (unsigned i = 1; i <= 300; i++) {
                uint64_t size = (uint64_t) i * i * 77;
                ArenaView view = ARENA_VIEW_NULL;
                ArenaBlock block, returned;
                void *memory;

                assert_int_equal(arena_pool_alloc(pool, size, &block, &memory), 0);
                memset(memory, (int) i, size);
                assert_int_equal(arena_pool_give(pool, &block, PEER), 0);
                assert_int_equal(arena_map_resolve(follower.map, &block, &view), 0);
                assert_memory_equal(view.memory, memory, size);
                arena_view_release(&view);
                assert_int_equal(arena_map_take_returns(follower.map, &returned, 1), 1);
                assert_int_equal(arena_pool_release(pool, PEER, &returned), 0);
        }
        assert_int_equal(follower.n_announced, 1 + 6); /* 4.5 MiB to 7 MiB */
        arena_pool_expire(pool, USEC_INFINITY - 2);
        arena_pool_expire(pool, USEC_INFINITY - 1);
        assert_int_equal(follower.n_retired, follower.n_announced);
        assert_int_equal(n_mappings(), 0);
        assert_null(arena_pool_free(pool));
        assert_null(arena_map_free(follower.map));
}

typedef struct Scribbler {
        int fd;
        atomic_bool stop;
        sem_t at_work; /* it has been once round */
        unsigned long rounds;
} Scribbler;

/* A peer at its worst, in the memory and at the file; what it does is meant to race. */
static void *scribble(void *argument) {
        Scribbler *s = argument;
        volatile uint8_t *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);

        for (; !atomic_load(&s->stop); s->rounds++) {
                for (size_t i = 0; i < MIB; i += 4096)
                        memory[i] = (uint8_t) s->rounds;
                if (ftruncate(s->fd, 0) == 0 || ftruncate(s->fd, 4096) == 0 || ftruncate(s->fd, 2 * MIB) == 0)
                        abort();
                if (errno != EPERM || fallocate(s->fd, 0, 0, 2 * MIB) == 0)
                        abort();
                (void) fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB);
                if (s->rounds == 0)
                        (void) sem_post(&s->at_work);
        }
        (void) munmap((void *) memory, MIB);
        return NULL;
}

static void scribbler_start(Scribbler *s, pthread_t *ret_thread) {
        assert_int_equal(sem_init(&s->at_work, 0, 0), 0);
        assert_int_equal(pthread_create(ret_thread, NULL, scribble, s), 0);
        while (sem_wait(&s->at_work) < 0)
                ;
}

static void scribbler_stop(Scribbler *s, pthread_t thread) {
        atomic_store(&s->stop, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        (void) sem_destroy(&s->at_work);
        fd_close(s->fd);
}

static void test_hostile_owner(void **state) {
        Scribbler scribbler = { .fd = shared_fd(MIB, 0) };
        ArenaMap *map = new_map((ArenaMapLimits){ 0 });
        uint8_t *copy = malloc(MIB);
        pthread_t thread;

        (void) state;
        assert_int_equal(arena_map_announce(map, 1, fd_dup(scribbler.fd), MIB), 0);
        scribbler_start(&scribbler, &thread);
        for (unsigned i = 0; i < 200; i++) {
                ArenaView view = ARENA_VIEW_NULL;

                assert_int_equal(arena_map_resolve(map, &(ArenaBlock){ 1, 0, MIB }, &view), 0);
                assert_int_equal(arena_view_copy(&view, 0, copy, MIB), 0);
                arena_view_release(&view);
        }
        scribbler_stop(&scribbler, thread);
        free(copy);
        assert_null(arena_map_free(map));
}

/* A reader that scribbles over all it can see: the pool goes on as if nothing had happened. */
static void test_hostile_reader(void **state) {
        Follower follower = { 0 };
        ArenaPool *pool = new_pool(&follower, (ArenaPoolConfig){ .arena_size = MIB });
        ArenaBlock blocks[32];
        Scribbler scribbler;
        pthread_t thread;

        (void) state;
        blocks[0] = alloc_block(pool, 4096);
        scribbler = (Scribbler){ .fd = fd_dup(follower.last_fd) };
        scribbler_start(&scribbler, &thread);
        for (unsigned i = 0; i < 2000; i++) {
                for (unsigned j = 1; j < 32; j++) {
                        void *memory;

                        assert_int_equal(arena_pool_alloc(pool, 4096 << j % 3, &blocks[j], &memory), 0);
                        *(volatile uint8_t *) memory = 1;
                }
                for (unsigned j = 1; j < 32; j++)
                        assert_int_equal(arena_pool_drop(pool, &blocks[j]), 0);
        }
        scribbler_stop(&scribbler, thread);
        assert_int_equal(arena_pool_usage(pool).arenas, 1);
        assert_null(arena_pool_free(pool));
}

/* ---- random use against a model ---- */

#define MODEL_BLOCKS 200
#define MODEL_ROUNDS 30000

typedef struct Held {
        ArenaBlock block;
        ArenaView view;
        uint8_t fill;
        bool given;
} Held;

typedef struct Model {
        Follower follower;
        ArenaPool *pool;
        Held held[MODEL_BLOCKS];
        unsigned n;
        uint64_t random;
} Model;

static uint64_t draw(Model *model, uint64_t below) {
        model->random ^= model->random << 13;
        model->random ^= model->random >> 7;
        model->random ^= model->random << 17;
        return model->random % below;
}

static uint8_t *held_memory(const Held *held) {
        return held->view.memory;
}

/* overlaps() - whether the new block shares a byte with one that is out. */
static bool overlaps(const Model *model, const ArenaBlock *block) {
        for (unsigned i = 0; i < model->n; i++) {
                const ArenaBlock *other = &model->held[i].block;

                if (other->arena == block->arena && block->offset < other->offset + other->length &&
                    other->offset < block->offset + block->length)
                        return true;
        }
        return false;
}

static void model_alloc(Model *model) {
        uint64_t size = 1 + draw(model, UINT64_C(1) << draw(model, 20));
        Held held = { .fill = (uint8_t) draw(model, 256), .view = ARENA_VIEW_NULL };
        void *memory = NULL;
        int r;

        if (model->n == MODEL_BLOCKS)
                return;
        r = arena_pool_alloc(model->pool, size, &held.block, &memory);
        if (r == -ENOBUFS)
                return;
        assert_int_equal(r, 0);
        assert_false(overlaps(model, &held.block));
        if (draw(model, 4) == 0)
                assert_int_equal(arena_pool_trim(model->pool, &held.block, 1 + draw(model, size)), 0);
        memset(memory, held.fill, held.block.length);
        assert_int_equal(arena_map_resolve(model->follower.map, &held.block, &held.view), 0);
        held.given = draw(model, 2);
        if (held.given)
                assert_int_equal(arena_pool_give(model->pool, &held.block, PEER + draw(model, 2)), 0);
        model->held[model->n++] = held;
}

/* model_check() - that nobody else wrote into the block. */
static void model_check(const Held *held) {
        assert_int_equal(held_memory(held)[0], held->fill);
        assert_int_equal(held_memory(held)[held->block.length / 2], held->fill);
        assert_int_equal(held_memory(held)[held->block.length - 1], held->fill);
}

static void model_free(Model *model) {
        unsigned i = (unsigned) draw(model, model->n ? model->n : 1);
        Held *held = &model->held[i];
        ArenaBlock returned;
        int r;

        if (model->n == 0)
                return;
        model_check(held);
        arena_view_release(&held->view);
        assert_int_equal(arena_map_take_returns(model->follower.map, &returned, 1), 1);
        assert_memory_equal(&returned, &held->block, sizeof(returned));
        r = arena_pool_release(model->pool, held->given ? PEER : ARENA_OURS, &returned);
        if (r == -EACCES && held->given)
                r = arena_pool_release(model->pool, PEER + 1, &returned);
        assert_int_equal(r, 0);
        *held = model->held[--model->n];
}

/* model_wrong() - a release of nothing that is out; it must be refused and change nothing. */
static void model_wrong(Model *model) {
        ArenaPoolUsage before = arena_pool_usage(model->pool), after;
        ArenaBlock block = {
                .arena = model->follower.last_id,
                .offset = draw(model, 2 * MIB) & (draw(model, 2) ? UINT64_MAX : ~(ARENA_UNIT - 1)),
                .length = 1 + draw(model, 8192),
        };

        if (draw(model, 2) && model->n > 0) {
                block = model->held[draw(model, model->n)].block;
                block.length += 1 + draw(model, 100);
        }
        for (unsigned i = 0; i < model->n; i++)
                if (memcmp(&block, &model->held[i].block, sizeof(block)) == 0)
                        return;
        for (uint64_t peer = 0; peer < PEER + 2; peer++)
                assert_true(arena_pool_release(model->pool, peer, &block) < 0);
        after = arena_pool_usage(model->pool);
        assert_memory_equal(&before, &after, sizeof(before));
}

static void model_peer_gone(Model *model) {
        uint64_t peer = PEER + draw(model, 2);
        size_t n = arena_pool_usage(model->pool).blocks, gone;
        unsigned left = 0;

        for (unsigned i = 0; i < model->n; i++)
                model_check(&model->held[i]);
        gone = arena_pool_peer_gone(model->pool, peer);
        assert_int_equal(arena_pool_usage(model->pool).blocks, n - gone);
        for (unsigned i = 0; i < model->n; i++) {
                Held held = model->held[i];
                ArenaBlock same = held.block;
                int r = arena_pool_trim(model->pool, &same, same.length);

                /* Ours, or the other peer's: it is still there. */
                if (r == 0 || r == -EACCES) {
                        model->held[left++] = held;
                        continue;
                }
                assert_true(held.given && (r == -EALREADY || r == -ENOENT));
                arena_view_release(&held.view);
                assert_int_equal(arena_map_take_returns(model->follower.map, &same, 1), 1);
        }
        assert_int_equal(left, model->n - gone);
        model->n = left;
}

static void model_step(Model *model) {
        switch (draw(model, 64)) {
        case 0:
                model_peer_gone(model);
                return;
        case 1:
                arena_pool_expire(model->pool, arena_pool_deadline(model->pool));
                return;
        case 2 ... 7:
                model_wrong(model);
                return;
        case 8 ... 37:
                model_free(model);
                return;
        default:
                model_alloc(model);
        }
}

static void test_model(void **state) {
        const char *given = getenv("BATON_TEST_SEED");
        uint64_t seed = given ? strtoull(given, NULL, 0) : clock_now() | 1;
        static Model model;

        (void) state;
        printf("# BATON_TEST_SEED=%llu\n", (unsigned long long) seed);
        model = (Model){ .random = seed, .follower.map = new_map((ArenaMapLimits){ 0 }) };
        model.pool = new_pool(&model.follower,
                              (ArenaPoolConfig){ .max_bytes = 16 * MIB, .arena_size = 512 * KIB, .idle_us = 1 });
        for (unsigned i = 0; i < MODEL_ROUNDS; i++)
                model_step(&model);
        while (model.n > 0)
                model_free(&model);
        assert_int_equal(arena_pool_usage(model.pool).blocks + arena_pool_usage(model.pool).block_bytes, 0);
        arena_pool_expire(model.pool, USEC_INFINITY - 2);
        arena_pool_expire(model.pool, USEC_INFINITY - 1);
        assert_int_equal(arena_pool_usage(model.pool).arenas, 0);
        assert_int_equal(n_mappings(), 0);
        assert_null(arena_pool_free(model.pool));
        assert_null(arena_map_free(model.follower.map));
}

/* ---- failures of the system ---- */

static int pool_and_gone(void *argument) {
        _cleanup_(arena_pool_freep) ArenaPool *pool = NULL;
        Follower follower = { 0 };
        ArenaPoolConfig config = { .announce = on_announce, .userdata = &follower };
        ArenaBlock block;
        void *memory;
        int r = arena_pool_new(&pool, &config);

        (void) argument;
        if (r == 0)
                r = arena_pool_alloc(pool, 100, &block, &memory);
        if (r == 0)
                r = arena_pool_alloc(pool, 5 * MIB, &block, &memory);
        if (r < 0 && pool) {
                assert_int_equal(arena_pool_usage(pool).arenas, n_mappings());
                assert_int_equal(arena_pool_usage(pool).arenas, follower.n_announced);
        }
        return r;
}

static int map_and_gone(void *argument) {
        _cleanup_(arena_map_freep) ArenaMap *map = NULL;
        ArenaView view = ARENA_VIEW_NULL;
        int r = arena_map_new(&map, NULL);

        if (r == 0)
                r = arena_map_announce(map, 1, fd_dup(*(int *) argument), 4096);
        if (r == 0)
                r = arena_map_resolve(map, &(ArenaBlock){ 1, 0, 10 }, &view);
        if (r == 0)
                arena_view_release(&view);
        return r;
}

static void test_failures(void **state) {
        int fd = shared_fd(4096, 0);

        (void) state;
        assert_int_equal(seam_each(SEAM_MEMFD_CREATE, EMFILE, pool_and_gone, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_FTRUNCATE, ENOMEM, pool_and_gone, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_MMAP, ENOMEM, pool_and_gone, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_FCNTL, ENOMEM, pool_and_gone, NULL, 0), 2);
        assert_int_equal(seam_each(SEAM_CALLOC, ENOMEM, pool_and_gone, NULL, 0), 3);
        assert_int_equal(seam_each(SEAM_MMAP, ENOMEM, map_and_gone, &fd, 0), 1);
        assert_int_equal(seam_each(SEAM_CALLOC, ENOMEM, map_and_gone, &fd, 0), 2);
        assert_int_equal(seam_each(SEAM_REALLOC, ENOMEM, map_and_gone, &fd, 0), 1);
        assert_int_equal(seam_each(SEAM_FCNTL, EBADF, map_and_gone, &fd, 0), 2);
        assert_int_equal(n_mappings(), 0);
        fd_close(fd);
}

/* ---- the messages ---- */

static void test_messages(void **state) {
        Baton__ArenaAnnounce announce = BATON__ARENA_ANNOUNCE__INIT;
        Baton__ArenaRelease release = BATON__ARENA_RELEASE__INIT, *again;
        Baton__Block block = BATON__BLOCK__INIT, *blocks[] = { &block };
        static const uint8_t announced[] = { 0x08, 0x40, 0x10, 0x80, 0x20, 0x18, 0x01 };
        static const uint8_t released[] = { 0x0a, 0x07, 0x08, 0x40, 0x10, 0x80, 0x40, 0x18, 0x0a };
        uint8_t packed[64];

        (void) state;
        announce.id = 64;
        announce.size = 4096;
        announce.fd = 1;
        assert_int_equal(baton__arena_announce__pack(&announce, packed), sizeof(announced));
        assert_memory_equal(packed, announced, sizeof(announced));
        block.arena = 64;
        block.offset = 8192;
        block.length = 10;
        release.n_blocks = 1;
        release.blocks = blocks;
        assert_int_equal(baton__arena_release__pack(&release, packed), sizeof(released));
        assert_memory_equal(packed, released, sizeof(released));
        again = baton__arena_release__unpack(NULL, sizeof(released), released);
        assert_int_equal(again->blocks[0]->offset, 8192);
        baton__arena_release__free_unpacked(again, NULL);
}

static void test_errors_have_names(void **state) {
        static const int errors[] = { ENOENT,   ESTALE, ERANGE, EINVAL,  EALREADY, EACCES,
                                      EMSGSIZE, EEXIST, EPERM,  ENOBUFS, EUSERS };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                assert_string_not_equal(arena_error(-errors[i]), arena_error(-EIO));
                for (size_t j = 0; j < i; j++)
                        assert_string_not_equal(arena_error(-errors[i]), arena_error(-errors[j]));
        }
}

static const struct CMUnitTest tests[] = {
        TEST(test_pool_configuration),
        TEST(test_classes),
        TEST(test_sizes_out_of_bounds),
        TEST(test_bounds),
        TEST(test_large_arena_is_used_again),
        TEST(test_wrong_releases),
        TEST(test_trim),
        TEST(test_peer_gone),
        TEST(test_idle_arenas_retire),
        TEST(test_retired_memory_is_given_back),
        TEST(test_refused),
        TEST(test_announce_again),
        TEST(test_announcements),
        TEST(test_writable),
        TEST(test_wrong_blocks),
        TEST(test_retire_waits_for_views),
        TEST(test_view_outlives_map),
        TEST(test_block_limit),
        TEST(test_round_trip),
        TEST(test_hostile_owner),
        TEST(test_hostile_reader),
        TEST_SLOW(test_model, 60),
        TEST(test_failures),
        TEST(test_messages),
        TEST(test_errors_have_names),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes both sides of the arenas with one hostile peer. Records of ten bytes: a verb (its lower four bits; the upper four
 * choose the file of an announcement), an arena, a position (4 bytes) and a length (4 bytes), of which the highest bits
 * say that the number is to be enormous. Whatever comes: a view lies within its arena and can be read, the pool keeps its
 * books, in the end nothing is left.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "proto/arena.h"

#define RECORD    10
#define VIEWS     8
#define IDS       8
#define PEER      UINT64_C(1)
#define MAX_BYTES (UINT64_C(256) << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

typedef struct Play {
        ArenaMap *map;
        ArenaBudget budget;
        ArenaView views[VIEWS];
        ArenaPool *pool;
        unsigned n_announced;
        uint64_t ids[IDS]; /* of the pool's arenas, the last ones announced */
} Play;

static int on_announce(void *userdata, uint64_t id, int fd, uint64_t size) {
        Play *play = userdata;

        CHECK(memfd_check(fd, size, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 && id != 0);
        memmove(play->ids + 1, play->ids, sizeof(play->ids) - sizeof(play->ids[0]));
        play->ids[0] = id;
        play->n_announced++;
        return id % 7 == 6 ? -ENOMEM : 0;
}

static void on_retire(void *userdata, uint64_t id) {
        Play *play = userdata;

        CHECK(play->n_announced > 0 && id != 0);
        play->n_announced--;
}

static uint64_t number(const uint8_t *at) {
        uint32_t value;

        memcpy(&value, at, sizeof(value));
        if (value >> 30 == 3)
                return UINT64_MAX - (value & 0x3fffffff);
        return value >> 30 == 2 ? (uint64_t) value << 32 : value & 0x3fffffff;
}

/* make_file() - what the peer sends as an arena of @size bytes. */
static int make_file(unsigned kind, uint64_t size) {
        static const int seals[] = { 0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_GROW };
        void *memory = NULL;
        int fd = -1;

        if (kind == 0)
                return -1;
        if (kind == 1)
                return open("/dev/zero", O_RDWR | O_CLOEXEC);
        if (kind >= 8) {
                if (memfd_shared("fuzz", MIN(size, MAX_BYTES * 2), kind & 1 ? MEMFD_READ_ONLY : 0, &fd, &memory) == 0)
                        (void) munmap(memory, (size_t) MIN(size, MAX_BYTES * 2));
                return fd;
        }
        fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (ftruncate(fd, (off_t) MIN(size / 2, MAX_BYTES)) < 0 || fcntl(fd, F_ADD_SEALS, seals[kind & 3]) < 0)
                return fd_close(fd);
        return fd;
}

static void resolve(Play *play, const ArenaBlock *block) {
        ArenaView *view = &play->views[(block->arena + block->offset) % VIEWS];
        uint8_t bytes[2];

        arena_view_release(view);
        if (arena_map_resolve(play->map, block, view) < 0)
                return;
        CHECK(view->size == block->length && view->size > 0 && view->size <= MAX_BYTES);
        CHECK(arena_view_copy(view, 0, bytes, 1) == 0);
        CHECK(arena_view_copy(view, view->size - 1, bytes, 1) == 0);
        CHECK(arena_view_copy(view, view->size, bytes, 1) < 0);
}

static void take_returns(Play *play) {
        ArenaBlock blocks[3];
        size_t before = arena_map_pending(play->map), n = arena_map_take_returns(play->map, blocks, 3);

        CHECK(n == MIN(before, 3u) && arena_map_pending(play->map) == before - n);
        for (size_t i = 0; i < n; i++)
                CHECK(blocks[i].length > 0 && blocks[i].offset + blocks[i].length <= MAX_BYTES);
}

/* allocate() - a block of the pool, given to the peer or not. */
static void allocate(Play *play, const ArenaBlock *wish) {
        ArenaBlock block;
        void *memory;

        if (arena_pool_alloc(play->pool, wish->length, &block, &memory) < 0)
                return;
        ((uint8_t *) memory)[wish->length - 1] = 1;
        if (wish->offset & 1)
                (void) arena_pool_trim(play->pool, &block, wish->offset);
        if (wish->offset & 2)
                CHECK(arena_pool_give(play->pool, &block, PEER) == 0);
}

/* pool_id() - of an arena of the pool, mostly. */
static uint64_t pool_id(const Play *play, uint64_t byte) {
        return byte < 128 ? play->ids[byte % IDS] : byte;
}

static void release(Play *play, uint64_t peer, const ArenaBlock *block) {
        uint32_t before = arena_pool_usage(play->pool).blocks;
        int r = arena_pool_release(play->pool, peer, block);

        CHECK(arena_pool_usage(play->pool).blocks == before - (r == 0));
}

static void step(Play *play, const uint8_t record[RECORD]) {
        ArenaBlock block = { .arena = record[1], .offset = number(record + 2), .length = number(record + 6) };

        if ((record[0] & 15) >= 10)
                block.arena = pool_id(play, block.arena);
        switch (record[0] & 15) {
        case 0 ... 1:
                (void) arena_map_announce(play->map, block.arena, make_file(record[0] >> 4, block.length),
                                          block.length);
                break;
        case 2:
                (void) arena_map_retire(play->map, block.arena);
                break;
        case 3 ... 4:
                resolve(play, &block);
                break;
        case 5:
                (void) arena_map_discard(play->map, &block);
                break;
        case 6:
                take_returns(play);
                break;
        case 7 ... 9:
                allocate(play, &block);
                break;
        case 10 ... 11:
                release(play, PEER, &block);
                break;
        case 12:
                release(play, ARENA_OURS, &block);
                break;
        case 13:
                (void) arena_pool_peer_gone(play->pool, PEER);
                break;
        case 14:
                (void) arena_pool_refused(play->pool, block.arena);
                break;
        default:
                arena_pool_expire(play->pool, arena_pool_deadline(play->pool));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Play play = { .budget = { .max_bytes = MAX_BYTES } };
        ArenaMapLimits limits = {
                .max_bytes = MAX_BYTES,
                .max_arenas = 5,
                .max_blocks = 20,
                .budget = &play.budget,
                .writable = size & 1,
        };
        ArenaPoolConfig config = {
                .max_bytes = MAX_BYTES,
                .max_arenas = 4,
                .arena_size = 32 << 10,
                .idle_us = 1,
                .announce = on_announce,
                .retire = on_retire,
                .userdata = &play,
        };

        CHECK(arena_map_new(&play.map, &limits) == 0 && arena_pool_new(&play.pool, &config) == 0);
        for (size_t at = 0; at + RECORD <= size; at += RECORD) {
                step(&play, data + at);
                CHECK(arena_pool_usage(play.pool).arenas <= 4);
                CHECK(arena_pool_usage(play.pool).arena_bytes <= MAX_BYTES && play.budget.used_bytes <= MAX_BYTES);
        }
        (void) arena_map_free(play.map);
        for (unsigned i = 0; i < VIEWS; i++)
                arena_view_release(&play.views[i]);
        CHECK(play.budget.used_bytes == 0);
        (void) arena_pool_peer_gone(play.pool, PEER);
        (void) arena_pool_peer_gone(play.pool, ARENA_OURS);
        CHECK(arena_pool_usage(play.pool).blocks == 0 && arena_pool_usage(play.pool).block_bytes == 0);
        (void) arena_pool_free(play.pool);
        return 0;
}

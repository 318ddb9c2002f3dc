/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Arena pool: the owner's side of shared arenas: arenas, blocks and who holds them. Blocks are cut from ordinary arenas
 * (proto/arena-slots.c); those larger than one have a single arena of their own, whose size is rounded so that the next
 * block of about that size can use it.
 *
 * Everything that is known about a block is in private memory. The shared memory is never read here and holds nothing of
 * ours: a peer that scribbles in it harms the bytes of its own blocks.
 *
 * An arena's id holds its place in the table of arenas; the rest of it never repeats.
 *
 * An arena without a block is kept for a while: making and mapping one costs more than copying what it carries. Instead
 * of a time per arena there is one deadline and a mark: an arena that is idle at two deadlines, untouched between them, is
 * retired. So alloc and release read no clock, and with nothing idle there is no deadline. Where the bound is met, idle
 * arenas go at once.
 *
 * The memory of a retired arena is given back to the system explicitly, since a peer could keep its mapping for ever. Not
 * so of an arena that goes with held blocks, at the end of the pool: somebody may still be working on them.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "proto/arena-internal.h"

#define DEFAULT_MAX_BYTES   (UINT64_C(64) << 20)
#define DEFAULT_ARENA_SIZE  (UINT64_C(4) << 20)
#define DEFAULT_IDLE_US     (5 * USEC_PER_SEC)
#define SINGLE_STEPS        8u /* sizes of a single arena between one power of two and the next */
#define SINGLE_WASTE_FACTOR 2u /* a single arena is not used for a block smaller than its size divided by this */

const char *arena_error(int error) {
        switch (-error) {
        case ENOENT:
                return "no such arena";
        case ESTALE:
                return "the arena was retired";
        case ERANGE:
                return "offset or length outside the arena, or not the file's size";
        case EINVAL:
                return "not the start of a block, or not a memfd";
        case EALREADY:
                return "released twice, or never given";
        case EACCES:
                return "somebody else's";
        case EMSGSIZE:
                return "of another length";
        case EEXIST:
                return "the id is in use";
        case EPERM:
                return "not sealed against a change of size";
        case EDQUOT:
        case ENOBUFS:
                return "above the limit for arenas";
        case EUSERS:
                return "above the limit for blocks";
        default:
                return "the system refused";
        }
}

/* ---- sizes ---- */

static bool is_power_of_two(uint64_t value) {
        return value && !(value & (value - 1));
}

/* floor_power() - the largest power of two that is not above @value, which is not 0. */
static uint64_t floor_power(uint64_t value) {
        return UINT64_C(1) << (63 - __builtin_clzll(value));
}

static uint64_t round_up(uint64_t value, uint64_t power) {
        return (value + power - 1) & ~(power - 1);
}

static uint64_t single_size(const ArenaPool *pool, uint64_t size) {
        uint64_t rounded = round_up(size, MAX(floor_power(size) / SINGLE_STEPS, ARENA_UNIT));

        return rounded > pool->config.max_bytes ? size : rounded;
}

/* ---- arenas ---- */

static Arena *arena_free(Arena *arena) {
        if (!arena)
                return NULL;
        if (arena->memory) {
                if (arena->n_blocks == 0)
                        (void) madvise(arena->memory, (size_t) arena->size, MADV_REMOVE);
                (void) munmap(arena->memory, (size_t) arena->size);
        }
        fd_close(arena->fd);
        free(arena);
        return NULL;
}
DEFINE_CLEANUP(Arena *, arena_free);

/* arena_new() - an arena with one free slot that is in no list yet. */
static int arena_new(uint64_t size, bool single, bool read_only, Arena **ret_arena) {
        size_t n_slots = single ? 1 : (size_t) (size / ARENA_UNIT);
        _cleanup_(arena_freep) Arena *arena = calloc(1, sizeof(Arena) + n_slots * sizeof(Slot));
        void *memory = NULL;
        int r;

        if (!arena)
                return -ENOMEM;
        arena->fd = -1;
        arena->size = size;
        arena->single = single;
        arena->n_slots = n_slots;
        for (size_t i = 0; i < n_slots; i++)
                arena->slots[i].arena = arena;
        r = memfd_shared("baton-arena", size, read_only ? MEMFD_READ_ONLY : 0, &arena->fd, &memory);
        if (r < 0)
                return r;
        arena->memory = memory;
        *ret_arena = TAKE_PTR(arena);
        return 0;
}

/* forget() - takes the arena out of the pool's table. */
static void forget(ArenaPool *pool, Arena *arena) {
        pool->arenas[arena->id % ARENA_POOL_ARENAS] = NULL;
        pool->usage.arenas--;
        pool->usage.arena_bytes -= arena->size;
}

/* retire() - an arena without blocks goes, and the peers are told. */
static void retire(ArenaPool *pool, Arena *arena) {
        uint64_t id = arena->id;

        slots_close(arena);
        forget(pool, arena);
        (void) arena_free(arena);
        if (pool->config.retire)
                pool->config.retire(pool->config.userdata, id);
}

/* fits() - whether @size more bytes may be in an arena, @bytes and @arenas being there already. */
static bool fits(const ArenaPool *pool, uint64_t bytes, uint32_t arenas, uint64_t size) {
        return arenas < pool->config.max_arenas && bytes <= pool->config.max_bytes &&
               size <= pool->config.max_bytes - bytes;
}

/* make_room() - retires idle arenas until one of @size fits; none if that would not help. Whether it fits. */
static bool make_room(ArenaPool *pool, uint64_t size) {
        ArenaPoolUsage busy = { 0 };

        for (unsigned i = 0; i < ARENA_POOL_ARENAS; i++)
                if (pool->arenas[i] && pool->arenas[i]->n_blocks > 0) {
                        busy.arenas++;
                        busy.arena_bytes += pool->arenas[i]->size;
                }
        if (!fits(pool, busy.arena_bytes, busy.arenas, size))
                return false;
        for (unsigned i = 0; i < ARENA_POOL_ARENAS && !fits(pool, pool->usage.arena_bytes, pool->usage.arenas, size);
             i++)
                if (pool->arenas[i] && pool->arenas[i]->n_blocks == 0)
                        retire(pool, pool->arenas[i]);
        return true;
}

/* enlist() - gives @arena a place and an id, and tells of it. */
static int enlist(ArenaPool *pool, Arena *arena) {
        const ArenaPoolConfig *config = &pool->config;
        unsigned place = 0;
        int r;

        while (pool->arenas[place])
                place++;
        arena->id = ++pool->serial * ARENA_POOL_ARENAS + place;
        r = config->announce ? config->announce(config->userdata, arena->id, arena->fd, arena->size) : 0;
        if (r < 0)
                return r;
        pool->arenas[place] = arena;
        pool->usage.arenas++;
        pool->usage.arena_bytes += arena->size;
        pool->usage.peak_arena_bytes = MAX(pool->usage.peak_arena_bytes, pool->usage.arena_bytes);
        return 0;
}

/* grow() - one more arena, in @ret_slot its only slot, which is free. */
static int grow(ArenaPool *pool, uint64_t size, bool single, Slot **ret_slot) {
        _cleanup_(arena_freep) Arena *arena = NULL;
        int r;

        if (!make_room(pool, size))
                return -ENOBUFS;
        r = arena_new(size, single, pool->config.read_only, &arena);
        if (r < 0)
                return r;
        r = enlist(pool, arena);
        if (r < 0)
                return r;
        slots_put(pool, &arena->slots[0], single ? 0 : pool->max_order);
        *ret_slot = &TAKE_PTR(arena)->slots[0];
        return 0;
}

/* find_single() - the smallest idle single arena that holds @size bytes without too much waste. */
static Slot *find_single(ArenaPool *pool, uint64_t size) {
        Arena *best = NULL;

        for (unsigned i = 0; i < ARENA_POOL_ARENAS; i++) {
                Arena *arena = pool->arenas[i];

                if (!arena || !arena->single || arena->closing || arena->n_blocks > 0)
                        continue;
                if (arena->size < size || arena->size / SINGLE_WASTE_FACTOR > size)
                        continue;
                if (!best || arena->size < best->size)
                        best = arena;
        }
        return best ? &best->slots[0] : NULL;
}

/* ---- allocating ---- */

/* find_slot() - a free slot for @size bytes, in no list. */
static int find_slot(ArenaPool *pool, uint64_t size, Slot **ret_slot) {
        bool single = size > pool->config.arena_size;
        Slot *slot = single ? find_single(pool, size) : slots_take(pool, slots_order(size));
        int r;

        if (!slot) {
                r = grow(pool, single ? single_size(pool, size) : pool->config.arena_size, single, &slot);
                if (r < 0)
                        return r;
                if (!single)
                        slot = slots_take(pool, slots_order(size));
        }
        *ret_slot = slot;
        return 0;
}

int arena_pool_alloc(ArenaPool *pool, uint64_t size, ArenaBlock *ret_block, void **ret_memory) {
        uint64_t offset;
        Slot *slot = NULL;
        int r;

        if (size == 0)
                return -EINVAL;
        if (size > pool->config.max_bytes)
                return -EMSGSIZE;
        r = find_slot(pool, size, &slot);
        if (r < 0)
                return r;
        slot->state = SLOT_TAKEN;
        slot->peer = ARENA_OURS;
        slot->length = size;
        slot->arena->n_blocks++;
        slot->arena->touched = true;
        pool->usage.blocks++;
        pool->usage.block_bytes += slots_size(slot);
        offset = slots_index(slot) * ARENA_UNIT;
        *ret_block = (ArenaBlock){ .arena = slot->arena->id, .offset = offset, .length = size };
        *ret_memory = slot->arena->memory + offset;
        return 0;
}

/* free_slot() - of a taken block; its arena stays, see settle(). */
static void free_slot(ArenaPool *pool, Slot *slot) {
        slot->arena->n_blocks--;
        pool->usage.blocks--;
        pool->usage.block_bytes -= slots_size(slot);
        slots_free(pool, slot);
}

/* settle() - what an arena without blocks is in for. */
static void settle(ArenaPool *pool, Arena *arena) {
        if (arena->n_blocks > 0)
                return;
        if (arena->closing)
                retire(pool, arena);
        else if (pool->deadline == USEC_INFINITY)
                pool->deadline = clock_after(clock_now(), pool->config.idle_us);
}

/* find_arena() - NULL: no such. */
static Arena *find_arena(const ArenaPool *pool, uint64_t id) {
        Arena *arena = pool->arenas[id % ARENA_POOL_ARENAS];

        return arena && arena->id == id ? arena : NULL;
}

/* find_block() - the taken slot that @block is, and which @peer holds. Errors as arena_pool_release(). */
static int find_block(ArenaPool *pool, uint64_t peer, const ArenaBlock *block, Slot **ret_slot) {
        Arena *arena = find_arena(pool, block->arena);
        size_t index;
        Slot *slot;

        if (!arena)
                return -ENOENT;
        if (block->offset >= arena->size)
                return -ERANGE;
        index = (size_t) (block->offset / ARENA_UNIT);
        if (block->offset % ARENA_UNIT != 0 || index >= arena->n_slots)
                return -EINVAL;
        slot = slots_covering(arena, index);
        if (slot->state == SLOT_FREE)
                return -EALREADY;
        if (slots_index(slot) != index)
                return -EINVAL;
        if (slot->peer != peer)
                return -EACCES;
        if (slot->length != block->length)
                return -EMSGSIZE;
        *ret_slot = slot;
        return 0;
}

int arena_pool_release(ArenaPool *pool, uint64_t peer, const ArenaBlock *block) {
        Slot *slot = NULL;
        Arena *arena;
        int r = find_block(pool, peer, block, &slot);

        if (r == -ENOENT && pool->followed > 0 && block->arena / ARENA_POOL_ARENAS <= pool->followed)
                return 0;
        if (r < 0)
                return r;
        arena = slot->arena;
        free_slot(pool, slot);
        settle(pool, arena);
        return 0;
}

int arena_pool_drop(ArenaPool *pool, const ArenaBlock *block) {
        return arena_pool_release(pool, ARENA_OURS, block);
}

int arena_pool_trim(ArenaPool *pool, ArenaBlock *block, uint64_t length) {
        Slot *slot = NULL;
        int r = find_block(pool, ARENA_OURS, block, &slot);

        if (r < 0)
                return r;
        if (length == 0 || length > slot->length)
                return -ERANGE;
        slot->length = block->length = length;
        return 0;
}

int arena_pool_give(ArenaPool *pool, const ArenaBlock *block, uint64_t peer) {
        Slot *slot = NULL;
        int r = find_block(pool, ARENA_OURS, block, &slot);

        if (r < 0)
                return r;
        slot->peer = peer;
        return 0;
}

/* free_held() - every block of @arena that @peer holds; returns how many. */
static size_t free_held(ArenaPool *pool, Arena *arena, uint64_t peer) {
        size_t n = 0;

        for (Slot *slot = slots_next(arena, NULL); slot;) {
                size_t index = slots_index(slot);

                if (slot->state == SLOT_TAKEN && slot->peer == peer) {
                        free_slot(pool, slot);
                        n++;
                }
                slot = slots_next(arena, slots_covering(arena, index));
        }
        return n;
}

size_t arena_pool_peer_gone(ArenaPool *pool, uint64_t peer) {
        size_t n, total = 0;

        for (unsigned i = 0; i < ARENA_POOL_ARENAS; i++) {
                n = pool->arenas[i] ? free_held(pool, pool->arenas[i], peer) : 0;
                if (n > 0)
                        settle(pool, pool->arenas[i]);
                total += n;
        }
        return total;
}

/* ---- life ---- */

static int set_defaults(ArenaPoolConfig *config) {
        config->max_bytes = config->max_bytes ? config->max_bytes : DEFAULT_MAX_BYTES;
        config->max_arenas = config->max_arenas ? config->max_arenas : ARENA_POOL_ARENAS;
        config->idle_us = config->idle_us ? config->idle_us : DEFAULT_IDLE_US;
        if (config->max_bytes < ARENA_UNIT || config->max_arenas > ARENA_POOL_ARENAS)
                return -EINVAL;
        if (config->arena_size == 0)
                config->arena_size = MIN(DEFAULT_ARENA_SIZE, floor_power(config->max_bytes));
        return is_power_of_two(config->arena_size) && config->arena_size >= ARENA_UNIT &&
                               config->arena_size <= config->max_bytes
                       ? 0
                       : -EINVAL;
}

int arena_pool_new(ArenaPool **ret_pool, const ArenaPoolConfig *config) {
        ArenaPool *pool = calloc(1, sizeof(*pool));

        if (!pool)
                return -ENOMEM;
        pool->config = *config;
        if (set_defaults(&pool->config) < 0 || slots_order(pool->config.arena_size) >= ARENA_POOL_ORDERS) {
                free(pool);
                return -EINVAL;
        }
        pool->deadline = USEC_INFINITY;
        pool->max_order = slots_order(pool->config.arena_size);
        for (unsigned i = 0; i < ARENA_POOL_ORDERS; i++)
                LIST_INIT(&pool->free[i]);
        *ret_pool = pool;
        return 0;
}

ArenaPool *arena_pool_free(ArenaPool *pool) {
        if (!pool)
                return NULL;
        for (unsigned i = 0; i < ARENA_POOL_ARENAS; i++)
                (void) arena_free(pool->arenas[i]);
        free(pool);
        return NULL;
}

int arena_pool_refused(ArenaPool *pool, uint64_t id) {
        Arena *arena = find_arena(pool, id);

        if (!arena)
                return -ENOENT;
        slots_close(arena);
        pool->config.max_bytes = pool->usage.arena_bytes - arena->size;
        settle(pool, arena);
        return 0;
}

int arena_pool_announce(ArenaPool *pool) {
        const ArenaPoolConfig *config = &pool->config;
        int r = 0;

        for (unsigned i = 0; r >= 0 && config->announce && i < ARENA_POOL_ARENAS; i++) {
                const Arena *arena = pool->arenas[i];

                if (arena && !arena->closing)
                        r = config->announce(config->userdata, arena->id, arena->fd, arena->size);
        }
        return r < 0 ? r : 0;
}

uint64_t arena_pool_deadline(const ArenaPool *pool) {
        return pool->deadline;
}

void arena_pool_expire(ArenaPool *pool, uint64_t now) {
        if (now < pool->deadline)
                return;
        pool->deadline = USEC_INFINITY;
        for (unsigned i = 0; i < ARENA_POOL_ARENAS; i++) {
                Arena *arena = pool->arenas[i];

                if (!arena || arena->n_blocks > 0)
                        continue;
                if (!arena->touched) {
                        retire(pool, arena);
                        continue;
                }
                arena->touched = false;
                pool->deadline = clock_after(now, pool->config.idle_us);
        }
}

ArenaPoolUsage arena_pool_usage(const ArenaPool *pool) {
        return pool->usage;
}

uint64_t arena_pool_serial(const ArenaPool *pool) {
        return pool->serial;
}

size_t arena_pool_ids(const ArenaPool *pool, uint64_t ret_ids[ARENA_POOL_ARENAS]) {
        size_t n = 0;

        for (size_t i = 0; i < ARENA_POOL_ARENAS; i++)
                if (pool->arenas[i])
                        ret_ids[n++] = pool->arenas[i]->id;
        return n;
}

void arena_pool_follow(ArenaPool *pool, uint64_t serial) {
        pool->serial = pool->followed = serial;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Arena map: the reader's side of shared arenas. What a peer announces is checked once (common/memfd) and mapped once;
 * its size cannot change afterwards, so that a block that lies within the size of the announcement can be read without
 * looking again, whatever the peer does. What it does to the bytes is its own affair: nobody parses them where they are.
 *
 * A mapping lives as long as the map holds it (announced, not retired) or a view does. The map can go before its views
 * do: a handler may be at work on a block when the peer dies. Such a view only keeps the memory; there is nobody left to
 * send the block back to.
 *
 * Views are counted, not listed: a peer that hands over one block twice gets it back twice, and has its own pool refuse
 * the second. The room for sending a block back is reserved when it is resolved, so that releasing cannot fail; one bound
 * covers both, and an honest peer cannot meet it, since it has no more blocks than that.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "proto/arena.h"

#define DEFAULT_MAX_BYTES  (UINT64_C(64) << 20)
#define DEFAULT_MAX_ARENAS 64u
#define FIRST_RETURNS      16u

struct ArenaMapping {
        LIST_ENTRY(ArenaMapping) link;
        ArenaMap *map; /* NULL: gone, the views are all that is left */
        ArenaBudget *budget;
        uint64_t id, size;
        uint8_t *memory;
        int fd; /* -1: not kept */
        size_t n_views;
        bool retired;
        bool is_object; /* not a peer's arena: its one view is all there is to it */
};

struct ArenaMap {
        ArenaMapLimits limits;
        LIST_HEAD(, ArenaMapping) mappings; /* retired ones that are held too */
        uint32_t n_arenas;
        uint64_t used_bytes; /* never above max_bytes */
        size_t n_views;
        ArenaBlock *returns;
        size_t n_returns, returns_size; /* at least n_returns + n_views */
};

/* ---- mappings ---- */

static ArenaMapping *mapping_free(ArenaMapping *mapping) {
        (void) munmap(mapping->memory, (size_t) mapping->size);
        fd_close(mapping->fd);
        if (mapping->budget)
                mapping->budget->used_bytes -= mapping->size;
        free(mapping);
        return NULL;
}

/* settle() - a mapping that nothing needs any more goes. */
static void settle(ArenaMapping *mapping) {
        ArenaMap *map = mapping->map;

        if (mapping->n_views > 0 || (map && !mapping->retired))
                return;
        if (map) {
                LIST_REMOVE(mapping, link);
                map->n_arenas--;
                map->used_bytes -= mapping->size;
        }
        (void) mapping_free(mapping);
}

static ArenaMapping *find_mapping(const ArenaMap *map, uint64_t id) {
        ArenaMapping *mapping;

        LIST_FOREACH (mapping, &map->mappings, link)
                if (mapping->id == id)
                        return mapping;
        return NULL;
}

/* check_room() - whether our limits allow @size more bytes. */
static int check_room(const ArenaMap *map, uint64_t size) {
        const ArenaBudget *budget = map->limits.budget;

        if (size > map->limits.max_bytes - map->used_bytes)
                return -EDQUOT;
        if (map->n_arenas >= map->limits.max_arenas)
                return -ENOBUFS;
        if (budget && (budget->used_bytes > budget->max_bytes || size > budget->max_bytes - budget->used_bytes))
                return -ENOBUFS;
        return 0;
}

/* map_memory() - @size bytes of @fd, which was checked. */
static int map_memory(int fd, uint64_t size, bool writable, uint8_t **ret_memory) {
        void *memory = mmap(NULL, (size_t) size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);

        if (memory == MAP_FAILED)
                return errno == EPERM ? -EACCES : -errno; /* EPERM: sealed against writing */
        *ret_memory = memory;
        return 0;
}

static void add_mapping(ArenaMap *map, ArenaMapping *mapping) {
        mapping->map = map;
        mapping->budget = map->limits.budget;
        LIST_INSERT_HEAD(&map->mappings, mapping, link);
        map->n_arenas++;
        map->used_bytes += mapping->size;
        if (mapping->budget)
                mapping->budget->used_bytes += mapping->size;
}

static int map_arena(ArenaMap *map, uint64_t id, uint64_t size, int *fd) {
        ArenaMapping *mapping = calloc(1, sizeof(*mapping));
        int r;

        if (!mapping)
                return -ENOMEM;
        r = map_memory(*fd, size, map->limits.writable, &mapping->memory);
        if (r < 0) {
                free(mapping);
                return r;
        }
        mapping->id = id;
        mapping->size = size;
        mapping->fd = map->limits.keep_fds ? fd_take(fd) : -1;
        add_mapping(map, mapping);
        return 0;
}

int arena_map_announce(ArenaMap *map, uint64_t id, int fd_consume, uint64_t size) {
        _cleanup_fd_ int fd = fd_consume;
        int r;

        if (find_mapping(map, id))
                return -EEXIST;
        if (size == 0)
                return -EINVAL;
        r = check_room(map, size);
        if (r < 0)
                return r;
        r = memfd_check(fd, size, F_SEAL_SHRINK | F_SEAL_GROW);
        if (r < 0)
                return r;
        return map_arena(map, id, size, &fd);
}

void arena_map_each(const ArenaMap *map, void (*function)(uint64_t id, uint64_t size, int fd, void *userdata),
                    void *userdata) {
        const ArenaMapping *mapping;

        LIST_FOREACH (mapping, &map->mappings, link)
                if (!mapping->retired)
                        function(mapping->id, mapping->size, mapping->fd, userdata);
}

int arena_map_retire(ArenaMap *map, uint64_t id) {
        ArenaMapping *mapping = find_mapping(map, id);

        if (!mapping)
                return -ENOENT;
        if (mapping->retired)
                return -EALREADY;
        mapping->retired = true;
        settle(mapping);
        return 0;
}

/* ---- blocks ---- */

/* reserve_return() - room for one more block to be sent back, besides those of open views. */
static int reserve_return(ArenaMap *map) {
        size_t needed = map->n_returns + map->n_views + 1, size = map->returns_size;
        ArenaBlock *returns;

        if (needed > map->limits.max_blocks)
                return -EUSERS;
        if (needed <= size)
                return 0;
        size = MIN(MAX(size * 2, FIRST_RETURNS), (size_t) map->limits.max_blocks);
        returns = realloc(map->returns, size * sizeof(*returns));
        if (!returns)
                return -ENOMEM;
        map->returns = returns;
        map->returns_size = size;
        return 0;
}

/* check_block() - that it lies within an arena that is announced, and that it can be sent back. */
static int check_block(ArenaMap *map, const ArenaBlock *block, ArenaMapping **ret_mapping) {
        ArenaMapping *mapping = find_mapping(map, block->arena);
        int r;

        if (!mapping)
                return -ENOENT;
        if (mapping->retired)
                return -ESTALE;
        if (block->length == 0 || block->offset > mapping->size || block->length > mapping->size - block->offset)
                return -ERANGE;
        r = reserve_return(map);
        if (r < 0)
                return r;
        *ret_mapping = mapping;
        return 0;
}

int arena_map_resolve(ArenaMap *map, const ArenaBlock *block, ArenaView *ret_view) {
        ArenaMapping *mapping = NULL;
        int r = check_block(map, block, &mapping);

        if (r < 0)
                return r;
        mapping->n_views++;
        map->n_views++;
        *ret_view = (ArenaView){
                .memory = mapping->memory + block->offset,
                .size = (size_t) block->length,
                .offset = block->offset,
                .mapping = mapping,
        };
        return 0;
}

int arena_map_discard(ArenaMap *map, const ArenaBlock *block) {
        ArenaMapping *mapping = NULL;
        int r = check_block(map, block, &mapping);

        if (r < 0)
                return r;
        map->returns[map->n_returns++] = *block;
        return 0;
}

int arena_map_object(ArenaMap *map, int fd, uint64_t size, ArenaView *ret_view) {
        MemfdMapping object = { 0 };
        ArenaMapping *mapping;
        int r = check_room(map, size);

        if (r < 0)
                return r;
        r = memfd_map_sealed(fd, size, &object);
        if (r < 0)
                return r == -EFBIG ? -ERANGE : r;
        mapping = object.size == size ? calloc(1, sizeof(*mapping)) : NULL;
        if (!mapping) {
                r = object.size == size ? -ENOMEM : -ERANGE;
                memfd_unmap(&object);
                return r;
        }
        mapping->memory = (uint8_t *) object.data;
        mapping->size = size;
        mapping->fd = -1;
        mapping->is_object = mapping->retired = true;
        mapping->n_views = 1;
        add_mapping(map, mapping);
        *ret_view = (ArenaView){ .memory = mapping->memory, .size = object.size, .mapping = mapping };
        return 0;
}

int arena_view_copy(const ArenaView *view, size_t offset, void *to, size_t size) {
        if (offset > view->size || size > view->size - offset)
                return -ERANGE;
        if (size > 0)
                memcpy(to, (const uint8_t *) view->memory + offset, size);
        return 0;
}

void arena_view_release(ArenaView *view) {
        ArenaMapping *mapping = view->mapping;
        ArenaMap *map = mapping ? mapping->map : NULL;

        if (map && !mapping->is_object) {
                map->n_views--;
                map->returns[map->n_returns++] =
                        (ArenaBlock){ .arena = mapping->id, .offset = view->offset, .length = view->size };
        }
        *view = ARENA_VIEW_NULL;
        if (!mapping)
                return;
        mapping->n_views--;
        settle(mapping);
}

size_t arena_map_pending(const ArenaMap *map) {
        return map->n_returns;
}

size_t arena_map_take_returns(ArenaMap *map, ArenaBlock *ret_blocks, size_t max) {
        size_t n = MIN(map->n_returns, max);

        if (n == 0)
                return 0;
        memcpy(ret_blocks, map->returns, n * sizeof(*ret_blocks));
        map->n_returns -= n;
        memmove(map->returns, map->returns + n, map->n_returns * sizeof(*map->returns));
        return n;
}

/* ---- life ---- */

int arena_map_new(ArenaMap **ret_map, const ArenaMapLimits *limits) {
        ArenaMap *map = calloc(1, sizeof(*map));

        if (!map)
                return -ENOMEM;
        if (limits)
                map->limits = *limits;
        if (map->limits.max_bytes == 0)
                map->limits.max_bytes = DEFAULT_MAX_BYTES;
        if (map->limits.max_arenas == 0)
                map->limits.max_arenas = DEFAULT_MAX_ARENAS;
        if (map->limits.max_blocks == 0)
                map->limits.max_blocks = (uint32_t) MIN(map->limits.max_bytes / ARENA_UNIT + 1, (uint64_t) UINT32_MAX);
        LIST_INIT(&map->mappings);
        *ret_map = map;
        return 0;
}

ArenaMap *arena_map_free(ArenaMap *map) {
        ArenaMapping *mapping;

        if (!map)
                return NULL;
        while ((mapping = LIST_FIRST(&map->mappings))) {
                LIST_REMOVE(mapping, link);
                mapping->map = NULL;
                settle(mapping);
        }
        free(map->returns);
        free(map);
        return NULL;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the parts of an arena pool share: its structures, and the table of slots that says where blocks are. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proto/arena.h"

#define ARENA_POOL_ARENAS 64u
#define ARENA_POOL_ORDERS 40u

typedef struct Arena Arena;
typedef struct Slot Slot;

enum {
        SLOT_INSIDE,
        SLOT_FREE,
        SLOT_TAKEN,
};

struct Slot {
        LIST_ENTRY(Slot) link; /* of a free one */
        Arena *arena;
        uint64_t peer, length; /* of a taken one */
        uint8_t state, order;
};

struct Arena {
        uint64_t id, size;
        int fd;
        uint8_t *memory;
        size_t n_slots, n_blocks;
        bool single;  /* one slot, which is all of it, in no list */
        bool closing; /* no new blocks; its free slots are in no list */
        bool touched; /* used since the last deadline */
        Slot slots[];
};

struct ArenaPool {
        ArenaPoolConfig config;
        Arena *arenas[ARENA_POOL_ARENAS];
        uint64_t serial, deadline;
        uint64_t followed; /* arenas with serials up to this were another process's */
        uint8_t max_order; /* of an ordinary arena as a whole */
        LIST_HEAD(, Slot) free[ARENA_POOL_ORDERS];
        ArenaPoolUsage usage;
};

/* slots_order() - the smallest class that holds @size bytes, not 0: 1 << order units. */
uint8_t slots_order(uint64_t size);

/* slots_put() - @slot is free, of @order; joins it with nothing. */
void slots_put(ArenaPool *pool, Slot *slot, unsigned order);

/* slots_take() - a slot of exactly @order from an ordinary arena, halved from the next larger one there is; NULL: none. */
Slot *slots_take(ArenaPool *pool, unsigned order);

/* slots_free() - a taken slot is free, and joined with every other half that is free, too. */
void slots_free(ArenaPool *pool, Slot *slot);

/* slots_covering() - the head of the block that the unit at @index, which exists, is part of. */
Slot *slots_covering(Arena *arena, size_t index);

/* slots_next() - the head after @slot (NULL: the first); NULL: it was the last. */
Slot *slots_next(Arena *arena, Slot *slot);

/* slots_close() - @arena gets no new blocks; what is freed in it stays out of the lists. */
void slots_close(Arena *arena);

/* slots_size() - how many bytes of its arena a slot takes. */
static inline uint64_t slots_size(const Slot *slot) {
        return slot->arena->single ? slot->arena->size : ARENA_UNIT << slot->order;
}

static inline size_t slots_index(const Slot *slot) {
        return (size_t) (slot - slot->arena->slots);
}

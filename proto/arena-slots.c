/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Slots: where the blocks of an arena are. An ordinary arena is cut by halving (a buddy system): a block is a power of two
 * of units, at a multiple of its own size; what is freed is joined with its other half at once. A single arena has one
 * slot, which is all of it.
 *
 * There is one slot per unit, in private memory. A slot is the head of a block, free or taken, or it lies inside of one;
 * exactly the heads are not SLOT_INSIDE, so that an offset from a peer needs one look to be judged. Free heads are in the
 * pool's list of their class, the one freed last first, since its memory is the warmest; not those of single arenas and
 * of arenas that are being closed.
 */

#include "proto/arena-internal.h"

uint8_t slots_order(uint64_t size) {
        uint64_t units = (size - 1) / ARENA_UNIT;

        return units ? (uint8_t) (64 - __builtin_clzll(units)) : 0;
}

void slots_put(ArenaPool *pool, Slot *slot, unsigned order) {
        slot->state = SLOT_FREE;
        slot->order = (uint8_t) order;
        if (!slot->arena->single && !slot->arena->closing)
                LIST_INSERT_HEAD(&pool->free[order], slot, link);
}

Slot *slots_take(ArenaPool *pool, unsigned order) {
        unsigned at = order;
        Slot *slot;

        while (at <= pool->max_order && LIST_EMPTY(&pool->free[at]))
                at++;
        if (at > pool->max_order)
                return NULL;
        slot = LIST_FIRST(&pool->free[at]);
        LIST_REMOVE(slot, link);
        while (at > order) {
                at--;
                slots_put(pool, slot + ((size_t) 1 << at), at);
        }
        slot->order = (uint8_t) order;
        return slot;
}

void slots_free(ArenaPool *pool, Slot *slot) {
        Slot *slots = slot->arena->slots;
        size_t index = slots_index(slot), order = slot->order;

        for (; !slot->arena->closing && !slot->arena->single && order < pool->max_order; order++) {
                Slot *other = &slots[index ^ ((size_t) 1 << order)];

                if (other->state != SLOT_FREE || other->order != order)
                        break;
                LIST_REMOVE(other, link);
                slots[index | ((size_t) 1 << order)].state = SLOT_INSIDE;
                index &= ~((size_t) 1 << order);
        }
        slots_put(pool, &slots[index], (unsigned) order);
}

Slot *slots_covering(Arena *arena, size_t index) {
        unsigned order = 0;
        Slot *head = &arena->slots[index];

        while (head->state == SLOT_INSIDE || head->order < order) {
                order++;
                head = &arena->slots[index & ~(((size_t) 1 << order) - 1)];
        }
        return head;
}

Slot *slots_next(Arena *arena, Slot *slot) {
        size_t index = slot ? slots_index(slot) + ((size_t) 1 << slot->order) : 0;

        return index < arena->n_slots ? &arena->slots[index] : NULL;
}

void slots_close(Arena *arena) {
        for (Slot *slot = slots_next(arena, NULL); slot && !arena->single && !arena->closing;
             slot = slots_next(arena, slot))
                if (slot->state == SLOT_FREE)
                        LIST_REMOVE(slot, link);
        arena->closing = true;
}

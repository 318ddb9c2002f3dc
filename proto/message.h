#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Messages from a peer: checked, then unpacked by protobuf-c into bounded memory. The check is what protobuf-c leaves
 * out: strings must be UTF-8 without NUL (a NUL would silently cut the C string).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "common/macro.h"

#define MESSAGE_ALIGNMENT 16u

/*
 * A bump allocator for one message at a time: reset instead of freed. Blocks beyond the first are given back by the
 * reset; together they are bounded.
 */
typedef struct MessageScratch {
        ProtobufCAllocator allocator; /* for protobuf-c */
        struct MessageBlock *overflow;
        size_t used, grown; /* bytes of the first block, and of the others */
        size_t limit;
        bool exhausted; /* an allocation failed since the last reset */
        _Alignas(MESSAGE_ALIGNMENT) uint8_t first[2048];
} MessageScratch;

/*
 * message_scratch_init() - a message may take @limit bytes in all, or the first block if that is more. The structure must
 * not move afterwards.
 */
void message_scratch_init(MessageScratch *scratch, size_t limit);

/* The slow parts of the next two. */
void *message_scratch_grow(MessageScratch *scratch, size_t size);
void message_scratch_shrink(MessageScratch *scratch);

/* message_scratch_alloc() - @size bytes until the reset. NULL: over the limit, or no memory. */
static inline void *message_scratch_alloc(MessageScratch *scratch, size_t size) {
        uint8_t *pointer = scratch->first + scratch->used;

        if (size > sizeof(scratch->first) - scratch->used)
                return message_scratch_grow(scratch, size);
        scratch->used += (size + MESSAGE_ALIGNMENT - 1) & ~(size_t) (MESSAGE_ALIGNMENT - 1);
        return pointer;
}

static inline void message_scratch_reset(MessageScratch *scratch) {
        if (scratch->overflow)
                message_scratch_shrink(scratch);
        scratch->used = scratch->grown = 0;
        scratch->exhausted = false;
}

/* message_check() - whether @data (NULL: none) is well-formed for @type as far as protobuf-c itself does not look. */
bool message_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size);

/* message_unpack_scratch() - checks and unpacks; valid until the scratch is reset. NULL: malformed or over the limit. */
ProtobufCMessage *message_unpack_scratch(MessageScratch *scratch, const ProtobufCMessageDescriptor *type,
                                         const uint8_t *data, size_t size);

/*
 * message_unpack() - checks and unpacks into one allocation of its own, bounded by the size of @data; free it with
 * message_free(). NULL: malformed, or out of memory.
 */
void *message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size);
/*
 * message_unpack_sparse() - the same from whoever is trusted not to use up our memory. The bound is wider: large structures
 * of which little is set, such as many runners of which nothing is known but their names, take few bytes on the wire.
 */
void *message_unpack_sparse(const ProtobufCMessageDescriptor *type, const void *data, size_t size);

/*
 * message_unpack_within() - the same of a message of many small parts: it may take at most @max_growth bytes (and a few KiB)
 * besides its own. NULL also: more.
 */
void *message_unpack_within(const ProtobufCMessageDescriptor *type, const void *data, size_t size, size_t max_growth);

/* message_copy() - of any message, for message_free(). NULL: out of memory. */
void *message_copy(const ProtobufCMessage *message);

/* message_free() - accepts NULL, returns NULL. */
void *message_free(void *message);

static inline void message_freep(void *p) {
        *(void **) p = message_free(*(void **) p);
}

#define _cleanup_message_ _cleanup_(message_freep)

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Messages: what stands between bytes of a peer and code that trusts a structure. protobuf-c accepts any bytes in a
 * `string`, grows small input into much larger structures (a 2-byte empty submessage becomes its whole structure), and
 * allocates piece by piece. Here strings are checked first by walking the wire with the type's own descriptor, and the
 * memory comes from a bump allocator with a bound: over it protobuf-c gives up and nothing leaks. No message type of
 * ours contains itself, so the walk's depth is that of the schema.
 */

#include "proto/message.h"

#include <assert.h>
#include <string.h>

#include "common/parse.h"

#define BLOCK_SIZE    4096u
#define GROWTH        24u /* bytes of structure that one byte of wire may become */
#define GROWTH_SPARE  4096u
#define GROWTH_SPARSE 512u
#define GROWTH_MAX    (184u * 1024u * 1024u) /* of structure, besides the bytes themselves */

typedef struct MessageBlock {
        struct MessageBlock *next;
        size_t used, size;
        _Alignas(MESSAGE_ALIGNMENT) uint8_t bytes[];
} MessageBlock;

/* ---- check ---- */

static bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *ret_value) {
        uint64_t value = 0;

        for (unsigned shift = 0; shift < 70 && *p < end; shift += 7) {
                uint8_t byte = *(*p)++;

                value |= shift < 64 ? (uint64_t) (byte & 0x7f) << shift : 0;
                if (byte < 0x80) {
                        *ret_value = value;
                        return true;
                }
        }
        return false;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *type, uint64_t number) {
        /* Numbers without gaps are the rule: then the position is known. */
        if (number - 1 < type->n_fields && type->fields[number - 1].id == number)
                return &type->fields[number - 1];
        return number > UINT32_MAX ? NULL : protobuf_c_message_descriptor_get_field(type, (unsigned) number);
}

static bool check_bytes(const ProtobufCFieldDescriptor *field, const uint8_t *data, size_t size) {
        if (!field)
                return true;
        if (field->type == PROTOBUF_C_TYPE_STRING)
                return utf8_is_valid(data, size);
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
                return message_check(field->descriptor, data, size);
        return true;
}

bool message_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size) {
        const uint8_t *p = data, *end = size > 0 ? data + size : data; /* nothing may be NULL */

        while (p < end) {
                uint64_t tag, value;

                if (!read_varint(&p, end, &tag))
                        return false;
                switch (tag & 7) {
                case 0:
                        if (!read_varint(&p, end, &value))
                                return false;
                        continue;
                case 1:
                        value = 8;
                        break;
                case 5:
                        value = 4;
                        break;
                case 2:
                        if (!read_varint(&p, end, &value) || value > (uint64_t) (end - p) ||
                            !check_bytes(find_field(type, tag >> 3), p, (size_t) value))
                                return false;
                        break;
                default:
                        return false;
                }
                if (value > (uint64_t) (end - p))
                        return false;
                p += value;
        }
        return true;
}

/* ---- memory ---- */

static void *block_alloc(MessageScratch *scratch, size_t size) {
        MessageBlock *block = scratch->overflow;

        if (!block || block->size - block->used < size) {
                size_t room = MAX(size, (size_t) BLOCK_SIZE);

                block = malloc(sizeof(*block) + room);
                if (!block)
                        return NULL;
                *block = (MessageBlock){ .next = scratch->overflow, .size = room };
                scratch->overflow = block;
        }
        block->used += size;
        return block->bytes + block->used - size;
}

void *message_scratch_grow(MessageScratch *scratch, size_t size) {
        void *pointer = NULL;

        if (size <= scratch->limit)
                size = (size + MESSAGE_ALIGNMENT - 1) & ~(size_t) (MESSAGE_ALIGNMENT - 1);
        if (size <= scratch->limit && scratch->used + scratch->grown + size <= scratch->limit)
                pointer = block_alloc(scratch, size);
        if (pointer)
                scratch->grown += size;
        else
                scratch->exhausted = true;
        return pointer;
}

static void *scratch_alloc(void *data, size_t size) {
        return message_scratch_alloc(data, size);
}

static void scratch_free(void *data, void *pointer) {
        (void) data;
        (void) pointer; /* all at once, by the reset */
}

void message_scratch_init(MessageScratch *scratch, size_t limit) {
        scratch->allocator = (ProtobufCAllocator){ scratch_alloc, scratch_free, scratch };
        scratch->overflow = NULL;
        scratch->used = scratch->grown = 0;
        scratch->limit = limit;
        scratch->exhausted = false;
}

void message_scratch_shrink(MessageScratch *scratch) {
        while (scratch->overflow) {
                MessageBlock *block = scratch->overflow;

                scratch->overflow = block->next;
                free(block);
        }
}

ProtobufCMessage *message_unpack_scratch(MessageScratch *scratch, const ProtobufCMessageDescriptor *type,
                                         const uint8_t *data, size_t size) {
        return message_check(type, data, size) ? protobuf_c_message_unpack(type, &scratch->allocator, size, data)
                                               : NULL;
}

/*
 * A message of its own lives in a scratch of its own: one block that holds the scratch, found again from the message by
 * the word in front of it.
 */
typedef struct MessageOwned {
        ProtobufCMessage *message;
        MessageScratch scratch;
} MessageOwned;

static void *unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size, size_t max_growth) {
        MessageOwned *owned;
        void **slot;

        assert(type->sizeof_message <= sizeof(owned->scratch.first) - MESSAGE_ALIGNMENT);
        owned = malloc(sizeof(*owned));
        if (!owned)
                return NULL;
        message_scratch_init(&owned->scratch, GROWTH_SPARE + size + max_growth);
        /* protobuf-c allocates the structure itself first: behind one unit that is ours, it finds its owner again. */
        slot = scratch_alloc(&owned->scratch, MESSAGE_ALIGNMENT);
        *slot = owned;
        owned->message = message_unpack_scratch(&owned->scratch, type, data, size);
        if (!owned->message) {
                message_scratch_reset(&owned->scratch);
                free(owned);
                return NULL;
        }
        return owned->message;
}

void *message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t size) {
        return message_unpack_within(type, data, size, GROWTH_MAX);
}

void *message_unpack_within(const ProtobufCMessageDescriptor *type, const void *data, size_t size, size_t max_growth) {
        return unpack(type, data, size, MIN((GROWTH - 1) * size, max_growth));
}

void *message_unpack_sparse(const ProtobufCMessageDescriptor *type, const void *data, size_t size) {
        return unpack(type, data, size, MIN((GROWTH_SPARSE - 1) * size, (size_t) GROWTH_MAX));
}

void *message_copy(const ProtobufCMessage *message) {
        size_t size = protobuf_c_message_get_packed_size(message);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);

        if (!packed)
                return NULL;
        protobuf_c_message_pack(message, packed);
        return message_unpack(message->descriptor, packed, size);
}

void *message_free(void *message) {
        MessageOwned *owned;

        if (!message)
                return NULL;
        owned = *(MessageOwned **) (void *) ((uint8_t *) message - MESSAGE_ALIGNMENT);
        message_scratch_reset(&owned->scratch);
        free(owned);
        return NULL;
}

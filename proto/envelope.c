/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Envelope: every frame has one, so its cost is the cost of a call. protobuf-c walks fifteen field descriptors to find
 * the three or four that a CALL or an ANSWER really has: measured (callgrind, 64-byte calls) that was 40 % of all
 * instructions. Frames that hold only numbers and the three strings are therefore packed and unpacked here, field by
 * field; one with a Hello, details, metadata, descriptors, blocks, an object or a field we do not know goes to protobuf-c
 * whole.
 *
 * Both ways accept the same bytes and give the same structure; the short one never reads what it does not understand.
 */

#include "proto/envelope.h"

#include <string.h>

#include "common/parse.h"

#define NUMBERS_MAX 64u /* bytes that all number fields and the strings' heads can take */

/* The tags of the fields on the short way: number << 3 | wire type. */
enum {
        TAG_KIND = 1 << 3,
        TAG_ID = 2 << 3,
        TAG_METHOD = 3 << 3 | 2,
        TAG_TIMEOUT = 4 << 3,
        TAG_STATUS = 5 << 3,
        TAG_MESSAGE = 6 << 3 | 2,
        TAG_FD_CREDIT = 10 << 3,
        TAG_CREDIT = 12 << 3,
        TAG_END = 13 << 3,
        TAG_TYPE = 15 << 3 | 2,
};

static uint8_t *put_varint(uint8_t *p, uint64_t value) {
        for (; value >= 0x80; value >>= 7)
                *p++ = (uint8_t) (value | 0x80);
        *p++ = (uint8_t) value;
        return p;
}

static uint8_t *put_number(uint8_t *p, unsigned tag, uint64_t value) {
        if (value == 0)
                return p;
        *p++ = (uint8_t) tag;
        return put_varint(p, value);
}

static uint8_t *put_string(uint8_t *p, unsigned tag, const char *text, size_t length) {
        if (length == 0)
                return p;
        *p++ = (uint8_t) tag;
        p = put_varint(p, length);
        memcpy(p, text, length);
        return p + length;
}

/* text_length() - most texts of an Envelope are empty: not worth a call. */
static inline size_t text_length(const char *text) {
        return *text ? strlen(text) : 0;
}

size_t envelope_pack_short(const Baton__Envelope *envelope, uint8_t bytes[ENVELOPE_SHORT]) {
        size_t method, message, type;
        uint8_t *p = bytes;

        if (envelope->hello || envelope->n_details || envelope->n_metadata || envelope->n_fds || envelope->n_blocks ||
            envelope->object)
                return 0;
        method = text_length(envelope->method);
        message = text_length(envelope->message);
        type = text_length(envelope->type);
        if (method + message + type > ENVELOPE_SHORT - NUMBERS_MAX)
                return 0;
        p = put_number(p, TAG_KIND, (uint64_t) (int32_t) envelope->kind);
        p = put_number(p, TAG_ID, envelope->id);
        p = put_string(p, TAG_METHOD, envelope->method, method);
        p = put_number(p, TAG_TIMEOUT, envelope->timeout_us);
        p = put_number(p, TAG_STATUS, envelope->status);
        p = put_string(p, TAG_MESSAGE, envelope->message, message);
        p = put_number(p, TAG_FD_CREDIT, envelope->fd_credit);
        p = put_number(p, TAG_CREDIT, envelope->credit);
        p = put_number(p, TAG_END, envelope->end);
        p = put_string(p, TAG_TYPE, envelope->type, type);
        return (size_t) (p - bytes);
}

/* take_long() - take_varint() of more than one byte. */
static bool take_long(const uint8_t **p, const uint8_t *end, uint64_t *ret_value) {
        uint64_t value = 0;

        for (unsigned shift = 0; shift < 63 && *p < end; shift += 7) {
                uint8_t byte = *(*p)++;

                value |= (uint64_t) (byte & 0x7f) << shift;
                if (byte < 0x80) {
                        *ret_value = value;
                        return true;
                }
        }
        return false;
}

/* take_varint() - the number at *@p; false: the long way will say what is wrong with it. */
static inline bool take_varint(const uint8_t **p, const uint8_t *end, uint64_t *ret_value) {
        if (*p == end || **p >= 0x80)
                return take_long(p, end, ret_value);
        *ret_value = *(*p)++;
        return true;
}

static inline bool take_string(MessageScratch *scratch, const uint8_t **p, const uint8_t *end, uint64_t length,
                               char **ret_text) {
        char *text;

        if (length > (uint64_t) (end - *p) || !utf8_is_valid(*p, length))
                return false;
        text = message_scratch_alloc(scratch, length + 1);
        if (!text)
                return false;
        memcpy(text, *p, length);
        text[length] = '\0';
        *p += length;
        *ret_text = text;
        return true;
}

/* take_fields() - all of them into @envelope; false: not on the short way. */
static bool take_fields(MessageScratch *scratch, Baton__Envelope *envelope, const uint8_t *p, const uint8_t *end) {
        while (p < end) {
                unsigned tag = *p++;
                uint64_t value; /* of a string: its length */
                bool taken = true;

                if (!take_varint(&p, end, &value))
                        return false;
                switch (tag) {
                case TAG_KIND:
                        envelope->kind = (Baton__Kind) (uint32_t) value;
                        break;
                case TAG_ID:
                        envelope->id = value;
                        break;
                case TAG_METHOD:
                        taken = take_string(scratch, &p, end, value, &envelope->method);
                        break;
                case TAG_TIMEOUT:
                        envelope->timeout_us = value;
                        break;
                case TAG_STATUS:
                        envelope->status = (uint32_t) value;
                        break;
                case TAG_MESSAGE:
                        taken = take_string(scratch, &p, end, value, &envelope->message);
                        break;
                case TAG_FD_CREDIT:
                        envelope->fd_credit = (uint32_t) value;
                        break;
                case TAG_CREDIT:
                        envelope->credit = value;
                        break;
                case TAG_END:
                        envelope->end = value != 0;
                        break;
                case TAG_TYPE:
                        taken = take_string(scratch, &p, end, value, &envelope->type);
                        break;
                default:
                        return false;
                }
                if (!taken)
                        return false;
        }
        return true;
}

Baton__Envelope *envelope_unpack(MessageScratch *scratch, const uint8_t *data, size_t size) {
        static const Baton__Envelope blank = BATON__ENVELOPE__INIT;
        Baton__Envelope *envelope = message_scratch_alloc(scratch, sizeof(*envelope));

        if (!envelope)
                return NULL;
        *envelope = blank;
        if (take_fields(scratch, envelope, data, data + size))
                return envelope;
        message_scratch_reset(scratch);
        return (Baton__Envelope *) message_unpack_scratch(scratch, &baton__envelope__descriptor, data, size);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Snapshot Check: the bytes that were given last of each runner, by its name, against those of now. Both are packed by the
 * same functions from the same structures, so that what is the same is the same bytes. Which field it is that was forgotten
 * is told by its number, of the first byte that differs.
 */

#include "supervisor/snapshot-check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/runner-save.h"
#include "supervisor/supervisor.h"

typedef struct Given Given;

struct Given {
        UT_hash_handle hh;
        size_t size;
        uint8_t *packed;
        char name[];
};

static Given *all;

uint64_t snapshot_check_hold(void) {
        const char *text = getenv("BATON_TEST_HOLD_MS");

        return text ? strtoul(text, NULL, 10) * USEC_PER_MSEC : 0;
}

static uint8_t *pack(const ProtobufCMessage *message, size_t *ret_size) {
        size_t size = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = malloc(size + 1);

        if (packed)
                *ret_size = protobuf_c_message_pack(message, packed);
        return packed;
}

static void forget(Given *given) {
        HASH_DELETE(hh, all, given);
        free(given->packed);
        free(given);
}

void snapshot_check_given(const Baton__Snapshot__Runner *message) {
        size_t length = strlen(message->name);
        Given *given;

        HASH_FIND(hh, all, message->name, length, given);
        if (given)
                forget(given);
        given = calloc(1, sizeof(*given) + length + 1);
        if (!given)
                return;
        memcpy(given->name, message->name, length);
        given->packed = pack(&message->base, &given->size);
        HASH_ADD(hh, all, name, length, given);
        if (!given->hh.tbl) {
                free(given->packed);
                free(given);
        }
}

void snapshot_check_end(void) {
        Given *given, *next;

        HASH_ITER (hh, all, given, next)
                forget(given);
}

static uint64_t read_varint(const uint8_t *bytes, size_t size, size_t *at) {
        uint64_t value = 0;

        for (unsigned shift = 0; *at < size && shift < 64; shift += 7) {
                value |= (uint64_t) (bytes[*at] & 0x7f) << shift;
                if (!(bytes[(*at)++] & 0x80))
                        break;
        }
        return value;
}

/* field_at() - the number of the field of a message that has its byte @at; 0: it is at its end, or beyond it. */
static unsigned field_at(const uint8_t *bytes, size_t size, size_t at) {
        unsigned number = 0;

        for (size_t i = 0; i <= at && i < size;) {
                uint64_t tag = read_varint(bytes, size, &i), value = 0;

                number = (unsigned) (tag >> 3);
                if ((tag & 7) == PROTOBUF_C_WIRE_TYPE_VARINT || (tag & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
                        value = read_varint(bytes, size, &i);
                if ((tag & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
                        i += value;
        }
        return at < size ? number : 0;
}

static bool is_as_given(const Runner *runner, char reason[MANIFEST_REASON_SIZE]) {
        Baton__Snapshot__Runner *message = NULL;
        Manifest manifest = MANIFEST_NULL;
        uint8_t *packed = NULL;
        size_t size = 0, at = 0;
        Given *given;
        bool same;

        HASH_FIND(hh, all, runner->name, strlen(runner->name), given);
        if (given && given->packed && runner_save(runner, &manifest, &message) == 0)
                packed = pack(&message->base, &size);
        while (packed && at < size && at < given->size && packed[at] == given->packed[at])
                at++;
        same = packed && size == given->size && at == size;
        if (!same)
                (void) snprintf(reason, MANIFEST_REASON_SIZE,
                                "runner %s has changed, and was not touched: at field %u", runner->name,
                                given && packed ? field_at(packed, size, at) : 0);
        free(packed);
        if (message)
                baton__snapshot__runner__free_unpacked(message, NULL);
        manifest_deinit(&manifest);
        return same;
}

bool snapshot_check_forgotten(const Supervisor *supervisor, char reason[MANIFEST_REASON_SIZE]) {
        for (const Runner *runner = runner_first(supervisor); runner; runner = runner_next(runner))
                if (!is_as_given(runner, reason))
                        return true;
        return false;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Record: a structure to bytes and back. Its layout is fixed by assertions where it is declared. */

#include "supervisor/record.h"

#include <errno.h>
#include <string.h>

void record_pack(const Record *record, uint8_t bytes[KEEPER_RECORD_SIZE]) {
        memset(bytes, 0, KEEPER_RECORD_SIZE);
        memcpy(bytes, record, sizeof(*record));
        bytes[offsetof(Record, version)] = RECORD_VERSION;
}

int record_unpack(const uint8_t bytes[KEEPER_RECORD_SIZE], Record *ret_record) {
        uint8_t version = bytes[offsetof(Record, version)];

        if (version != RECORD_VERSION)
                return version == 0 ? -ENODATA : -EPROTO;
        memcpy(ret_record, bytes, sizeof(*ret_record));
        ret_record->n_restart_times =
                ret_record->n_restart_times < RECORD_RESTARTS_MAX ? ret_record->n_restart_times : RECORD_RESTARTS_MAX;
        ret_record->place[sizeof(ret_record->place) - 1] = '\0';
        return 0;
}

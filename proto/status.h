#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Status of a call: gRPC's codes, by number and meaning. */

#include <stdint.h>

typedef enum Status {
        STATUS_OK,
        STATUS_CANCELLED,
        STATUS_UNKNOWN,
        STATUS_INVALID_ARGUMENT,
        STATUS_DEADLINE_EXCEEDED,
        STATUS_NOT_FOUND,
        STATUS_ALREADY_EXISTS,
        STATUS_PERMISSION_DENIED,
        STATUS_RESOURCE_EXHAUSTED,
        STATUS_FAILED_PRECONDITION,
        STATUS_ABORTED,
        STATUS_OUT_OF_RANGE,
        STATUS_UNIMPLEMENTED,
        STATUS_INTERNAL,
        STATUS_UNAVAILABLE,
        STATUS_DATA_LOSS,
        STATUS_UNAUTHENTICATED,
        _STATUS_N,
} Status;

/* status_from_wire() - a code above 16 reads as UNKNOWN. */
Status status_from_wire(uint32_t code);

/* status_name() - "DEADLINE_EXCEEDED". */
const char *status_name(Status status);

/* status_from_errno() - the status that tells a caller what @error (positive or negative) means for its call. */
Status status_from_errno(int error);

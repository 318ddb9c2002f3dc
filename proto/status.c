/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Status codes: names, and the one translation from errno. What a caller can do about an error decides its code: retry
 * later (UNAVAILABLE, RESOURCE_EXHAUSTED), mend the request (INVALID_ARGUMENT), or give up.
 */

#include "proto/status.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "common/macro.h"

static const char *const names[] = {
        [STATUS_OK] = "OK",
        [STATUS_CANCELLED] = "CANCELLED",
        [STATUS_UNKNOWN] = "UNKNOWN",
        [STATUS_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
        [STATUS_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
        [STATUS_NOT_FOUND] = "NOT_FOUND",
        [STATUS_ALREADY_EXISTS] = "ALREADY_EXISTS",
        [STATUS_PERMISSION_DENIED] = "PERMISSION_DENIED",
        [STATUS_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
        [STATUS_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
        [STATUS_ABORTED] = "ABORTED",
        [STATUS_OUT_OF_RANGE] = "OUT_OF_RANGE",
        [STATUS_UNIMPLEMENTED] = "UNIMPLEMENTED",
        [STATUS_INTERNAL] = "INTERNAL",
        [STATUS_UNAVAILABLE] = "UNAVAILABLE",
        [STATUS_DATA_LOSS] = "DATA_LOSS",
        [STATUS_UNAUTHENTICATED] = "UNAUTHENTICATED",
};
static_assert(ARRAY_SIZE(names) == _STATUS_N, "every status has a name");

static const struct {
        int error;
        Status status;
} from_errno[] = {
        { 0, STATUS_OK },
        { ECANCELED, STATUS_CANCELLED },
        { EINVAL, STATUS_INVALID_ARGUMENT },
        { ENAMETOOLONG, STATUS_INVALID_ARGUMENT },
        { ETIMEDOUT, STATUS_DEADLINE_EXCEEDED },
        { ENOENT, STATUS_NOT_FOUND },
        { EEXIST, STATUS_ALREADY_EXISTS },
        { EPERM, STATUS_PERMISSION_DENIED },
        { EACCES, STATUS_PERMISSION_DENIED },
        { ENOMEM, STATUS_RESOURCE_EXHAUSTED },
        { EMFILE, STATUS_RESOURCE_EXHAUSTED },
        { ENFILE, STATUS_RESOURCE_EXHAUSTED },
        { ENOSPC, STATUS_RESOURCE_EXHAUSTED },
        { EMSGSIZE, STATUS_RESOURCE_EXHAUSTED },
        { EAGAIN, STATUS_RESOURCE_EXHAUSTED },
        { ETOOMANYREFS, STATUS_RESOURCE_EXHAUSTED },
        { ERANGE, STATUS_OUT_OF_RANGE },
        { EOPNOTSUPP, STATUS_UNIMPLEMENTED },
        { ENOSYS, STATUS_UNIMPLEMENTED },
        { EPIPE, STATUS_UNAVAILABLE },
        { ECONNRESET, STATUS_UNAVAILABLE },
        { ESHUTDOWN, STATUS_UNAVAILABLE },
        { EPROTO, STATUS_INTERNAL },
};

Status status_from_wire(uint32_t code) {
        return code < _STATUS_N ? (Status) code : STATUS_UNKNOWN;
}

const char *status_name(Status status) {
        return (unsigned) status < _STATUS_N ? names[status] : "UNKNOWN";
}

Status status_from_errno(int error) {
        if (error < 0)
                error = -error;
        for (size_t i = 0; i < ARRAY_SIZE(from_errno); i++)
                if (from_errno[i].error == error)
                        return from_errno[i].status;
        return STATUS_UNKNOWN;
}

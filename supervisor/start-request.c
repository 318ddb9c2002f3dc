/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Start request: from bytes on the wire to the strings that the kernel takes. Program, arguments, environment and
 * directory are whatever bytes the client's own kernel gave it, UTF-8 or not; a byte 0 alone cannot be, since it would
 * silently cut the string. Names are ours, and therefore of few characters. Limits and times that are 0 get their default
 * here, so that nobody below asks again.
 */

#include "supervisor/start-request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/attach.h"
#include "supervisor/supervisor.h"

/* Give up on more than this: an answer in our lifetime is meant. */
#define MAX_FRAME_MIN  65536u
#define TIMEOUT_MAX_US (24 * 3600 * USEC_PER_SEC)

static bool has_zero(const ProtobufCBinaryData *bytes) {
        return bytes->len > 0 && memchr(bytes->data, 0, bytes->len);
}

static bool any_has_zero(const ProtobufCBinaryData *array, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (has_zero(&array[i]))
                        return true;
        return false;
}

static bool is_variable(const ProtobufCBinaryData *bytes) {
        return bytes->len > 0 && memchr(bytes->data, '=', bytes->len);
}

/* is_frame_size() - what a Hello may say. */
static bool is_frame_size(uint64_t size) {
        return size == 0 || (size >= MAX_FRAME_MIN && size <= UINT32_MAX);
}

const char *start_request_check(const Baton__Control__StartRequest *request) {
        if (request->program.len == 0)
                return "a program is needed";
        if (*request->name && !supervisor_name_is_valid(request->name))
                return "a name has 1 to 63 letters, digits and . _ - @";
        if (request->kind != BATON__CONTROL__START_REQUEST__KIND__NATIVE &&
            request->kind != BATON__CONTROL__START_REQUEST__KIND__PLAIN)
                return "there is no such kind of runner";
        if (has_zero(&request->program) || has_zero(&request->directory) ||
            any_has_zero(request->arguments, request->n_arguments) ||
            any_has_zero(request->environment, request->n_environment))
                return "a program, argument, variable or directory has no byte 0 in it";
        if (request->limits && !is_frame_size(request->limits->max_frame))
                return "max_frame is 65536 to 4294967295 bytes";
        for (size_t i = 0; i < request->n_environment; i++)
                if (!is_variable(&request->environment[i]))
                        return "an entry of the environment is NAME=value";
        return NULL;
}

static char *copy(const ProtobufCBinaryData *bytes) {
        return strndup(bytes->len > 0 ? (const char *) bytes->data : "", bytes->len);
}

/* copy_all() - @first (if not NULL) and @n more, ended by NULL. NULL: no memory. */
static char **copy_all(const ProtobufCBinaryData *first, const ProtobufCBinaryData *array, size_t n) {
        char **strings = calloc(n + 2, sizeof(*strings));
        size_t m = 0;

        if (!strings)
                return NULL;
        if (first)
                strings[m++] = copy(first);
        for (size_t i = 0; i < n && (m == 0 || strings[m - 1]); i++)
                strings[m++] = copy(&array[i]);
        if (m == 0 || strings[m - 1])
                return strings;
        while (m-- > 0)
                free(strings[m]);
        free(strings);
        return NULL;
}

int start_request_spec(const Baton__Control__StartRequest *request, InstanceSpec *ret_spec) {
        uint64_t timeout_us = request->start_timeout_us ? request->start_timeout_us : INSTANCE_START_TIMEOUT_US;
        InstanceSpec spec = {
                .native = request->kind == BATON__CONTROL__START_REQUEST__KIND__NATIVE,
                .program = copy(&request->program),
                .argv = copy_all(&request->program, request->arguments, request->n_arguments),
                .environment = copy_all(NULL, request->environment, request->n_environment),
                .directory = request->directory.len > 0 ? copy(&request->directory) : NULL,
                .start_timeout_us = MIN(timeout_us, TIMEOUT_MAX_US),
                .stop_timeout_us = INSTANCE_STOP_TIMEOUT_US,
                .park_output = request->park_output,
                .max_attached = request->max_attached ? request->max_attached : ATTACH_MAX_CLIENTS,
        };

        (void) snprintf(spec.name, sizeof(spec.name), "%s", request->name);
        if (request->limits)
                spec.limits = (PeerLimits){
                        .max_frame = request->limits->max_frame,
                        .max_calls = request->limits->max_calls,
                        .fd_credit = request->limits->fd_credit,
                        .stream_window = request->limits->stream_window,
                        .max_memory = request->limits->max_memory,
                        .max_object = request->limits->max_object,
                        .max_held_fds = request->limits->max_held_fds,
                        .max_waiting = request->limits->max_waiting,
                        .max_waiting_bytes = request->limits->max_waiting_bytes,
                        .max_unsent = request->limits->max_unsent,
                };
        if (!spec.program || !spec.argv || !spec.environment || (request->directory.len > 0 && !spec.directory)) {
                instance_spec_deinit(&spec);
                return -ENOMEM;
        }
        *ret_spec = spec;
        return 0;
}

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

const char *start_request_check(const Baton__Control__StartRequest *request, size_t n_fds) {
        if (request->program.len == 0)
                return "a program is needed";
        if (*request->name && !transient_name_is_valid(request->name))
                return "a name has 1 to 63 letters, digits and . _ - @";
        if (request->kind != BATON__CONTROL__START_REQUEST__KIND__NATIVE &&
            request->kind != BATON__CONTROL__START_REQUEST__KIND__PLAIN)
                return "there is no such kind of runner";
        if (request->terminal && request->kind != BATON__CONTROL__START_REQUEST__KIND__PLAIN)
                return "a native runner has no terminal";
        if (n_fds != (request->terminal ? 1 : 0))
                return "a terminal is one descriptor, and nothing else comes along";
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

/* ----------------------------------------------------------------------------------------------------- as configuration */

/*
 * copy() - a string; what a configuration would replace in it is doubled, and so stays as it is. A program without a
 * slash is not looked for in PATH, which is the caller's business: it begins at the directory.
 */
static char *copy(const ProtobufCBinaryData *bytes, bool is_program) {
        size_t n = 0;
        char *text;

        is_program = is_program && !memchr(bytes->data, '/', bytes->len);
        for (size_t i = 0; i < bytes->len; i++)
                n += bytes->data[i] == '%';
        text = malloc(bytes->len + n + 2 * is_program + 1);
        if (!text)
                return NULL;
        n = 0;
        if (is_program) {
                text[n++] = '.';
                text[n++] = '/';
        }
        for (size_t i = 0; i < bytes->len; i++) {
                text[n++] = (char) bytes->data[i];
                if (bytes->data[i] == '%')
                        text[n++] = '%';
        }
        text[n] = '\0';
        return text;
}

static void free_strings(char **strings) {
        for (char **s = strings; s && *s; s++)
                free(*s);
        free(strings);
}

/* is_ours() - the way in is given to native ones alone, and by us. */
static bool is_ours(const ProtobufCBinaryData *bytes) {
        static const char name[] = "BATON_BOOTSTRAP=";

        return bytes->len >= strlen(name) && memcmp(bytes->data, name, strlen(name)) == 0;
}

/* copy_all() - @first (if not NULL) and @n more, ended by NULL. NULL: no memory. */
static char **copy_all(const ProtobufCBinaryData *first, const ProtobufCBinaryData *array, size_t n) {
        char **strings = calloc(n + 2, sizeof(*strings));
        size_t m = 0;
        bool whole = true;

        if (!strings)
                return NULL;
        if (first)
                whole = (strings[m++] = copy(first, true));
        for (size_t i = 0; i < n && whole; i++)
                if (!is_ours(&array[i]))
                        whole = (strings[m++] = copy(&array[i], false));
        if (whole)
                return strings;
        free_strings(strings);
        return NULL;
}

/* fill() - what is no string. */
static void fill(const Baton__Control__StartRequest *request, RunnerConfig *draft, PeerLimits *limits) {
        uint64_t timeout_us = request->start_timeout_us ? request->start_timeout_us : CONFIG_START_TIMEOUT_US;

        *draft = RUNNER_CONFIG_NULL;
        draft->restart = RESTART_NEVER;
        draft->inherit_env = false;
        draft->ready =
                request->kind == BATON__CONTROL__START_REQUEST__KIND__NATIVE ? CONFIG_READY_HELLO : CONFIG_READY_NONE;
        draft->start_timeout_us = MIN(timeout_us, TIMEOUT_MAX_US);
        draft->channels = 1U << CHANNEL_FILESYSTEM | 1U << CHANNEL_DATA;
        draft->log.park = request->park_output;
        draft->max_attached = request->max_attached ? request->max_attached : ATTACH_MAX_CLIENTS;
        if (!request->limits)
                return;
        *limits = (PeerLimits){
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
        draft->rpc = limits;
}

int start_request_config(const Baton__Control__StartRequest *request, const char *name, RunnerConfig **ret_config) {
        char **command = copy_all(&request->program, request->arguments, request->n_arguments);
        char **environment = copy_all(NULL, request->environment, request->n_environment);
        _cleanup_free_ char *directory = request->directory.len > 0 ? copy(&request->directory, false) : NULL;
        PeerLimits limits = { 0 };
        RunnerConfig draft;
        int r = -ENOMEM;

        fill(request, &draft, &limits);
        draft.name = name;
        draft.command = (const char *const *) command;
        draft.env = (const char *const *) environment;
        draft.cwd = directory;
        if (command && environment && (request->directory.len == 0 || directory))
                r = runner_config_new(ret_config, &draft);
        free_strings(command);
        free_strings(environment);
        return r;
}

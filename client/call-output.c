/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The answer of a call: values are printed as values, anything else as the bytes it is, since only the one who called
 * knows their type. JSON has the same fields whatever happened: status, code, time_us; then type with values or data
 * (hexadecimal, JSON has no bytes), or message with what is known about the runner's end and the details of the error; and
 * metadata where the answer has some.
 */

#include "client/call-output.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/exit-code.h"
#include "client/output.h"
#include "client/values-json.h"
#include "common/parse.h"
#include "proto/values-text.h"

#define CONTROL_TYPES "baton.control." /* messages of which begin so */

json_t *call_output_frame(Status status, uint64_t time_us) {
        return json_pack("{s:s, s:i, s:I}", "status", status_name(status), "code", (int) status, "time_us",
                         (json_int_t) time_us);
}

int call_output_json(json_t *all_consume) {
        json_auto_t *all = all_consume;
        int r = all ? output_json(stdout, all) : -ENOMEM;

        return r < 0 ? r : output_flush(stdout);
}

/* pair_to_json() - bytes that are no text are "data", in hexadecimal, instead of "value". */
static json_t *pair_to_json(const Baton__Pair *pair) {
        const char *data = pair->value.len ? (const char *) pair->value.data : "";
        bool is_text = utf8_is_valid(data, pair->value.len);
        json_t *value = is_text ? json_stringn(data, pair->value.len) : hex_to_json(data, pair->value.len);

        return json_pack("{s:s, s:o}", "key", pair->key, is_text ? "value" : "data", value);
}

/* detail_to_json() - only who called knows what the bytes are of. */
static json_t *detail_to_json(const Baton__Detail *detail) {
        return json_pack("{s:s, s:o}", "type", detail->type, "data",
                         hex_to_json(detail->value.data, detail->value.len));
}

/* add_details() - those of the runner's own; what baton says of a runner that ended or did not start is there in words. */
static int add_details(json_t *all, const Baton__Envelope *envelope) {
        json_t *array = NULL;
        int r = 0;

        for (size_t i = 0; envelope && i < envelope->n_details && r == 0; i++) {
                if (strncmp(envelope->details[i]->type, CONTROL_TYPES, strlen(CONTROL_TYPES)) == 0)
                        continue;
                if (!array) {
                        array = json_array();
                        r = json_object_set_new(all, "details", array);
                }
                if (r == 0)
                        r = json_array_append_new(array, detail_to_json(envelope->details[i]));
        }
        return r < 0 ? -ENOMEM : 0;
}

/* add_metadata() - where there is some. */
static int add_metadata(json_t *all, const Baton__Envelope *envelope) {
        json_t *array;
        int r = 0;

        if (!envelope || envelope->n_metadata == 0)
                return 0;
        array = json_array();
        for (size_t i = 0; i < envelope->n_metadata && r == 0; i++)
                r = json_array_append_new(array, pair_to_json(envelope->metadata[i]));
        return json_object_set_new(all, "metadata", array) < 0 || r < 0 ? -ENOMEM : 0;
}

static int print_values(const Baton__Values *values) {
        _cleanup_free_ char *text = NULL;
        int r = values_format(values, &text);

        if (r < 0 || !*text)
                return r;
        errno = 0;
        return fputs(text, stdout) < 0 ? (errno ? -errno : -EIO) : 0;
}

static int json_answer(const ControlCall *invocation, const Baton__Values *values, uint64_t time_us) {
        json_auto_t *all = call_output_frame(STATUS_OK, time_us);
        json_t *content = NULL;

        if (!values)
                content = hex_to_json(invocation->payload, invocation->size);
        else if (values_to_json(values, &content) < 0)
                content = NULL;
        if (json_object_set_new(all, "type", json_string(control_call_type(invocation))) < 0 ||
            json_object_set_new(all, values ? "values" : "data", content) < 0 ||
            add_metadata(all, invocation->envelope) < 0)
                return -ENOMEM;
        return output_json(stdout, all);
}

int call_output_answer(const CallOptions *options, const ControlCall *invocation, uint64_t time_us) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX];
        int r;

        if (!options->raw && strcmp(control_call_type(invocation), VALUES_TYPE) == 0) {
                r = values_unpack(invocation->payload, invocation->size, &values, error);
                if (r < 0) {
                        output_error("call %s: the answer is malformed: %s", options->method, error);
                        return -EBADMSG;
                }
        }
        if (options->json)
                r = json_answer(invocation, values, time_us);
        else
                r = values ? print_values(values) : output_bytes(stdout, invocation->payload, invocation->size);
        return r < 0 ? r : output_flush(stdout);
}

/* ---- failures ---- */

json_t *call_output_exit(const ControlExit *how) {
        return json_pack("{s:s, s:i}", "how", exit_how_name((int) how->how), "status", (int) how->status);
}

static int add_exit(json_t *all, const ControlExit *how) {
        return how ? json_object_set_new(all, "exit", call_output_exit(how)) : 0;
}

static int add_lines(json_t *all, char *const *lines, size_t n) {
        json_t *array = json_array();
        int r = json_object_set_new(all, "last_output", array);

        for (size_t i = 0; i < n && r == 0; i++)
                r = json_array_append_new(array, json_string(lines[i]));
        return r;
}

static int add_start(json_t *all, const ControlStartFailure *start) {
        if (json_object_set_new(all, "reason", json_string(start_reason_name((int) start->reason))) < 0 ||
            add_exit(all, start->exit) < 0)
                return -1;
        return add_lines(all, start->last_output, start->n_last_output);
}

static int add_ended(json_t *all, const ControlRunnerEnded *ended) {
        if (json_object_set_new(all, "runner", json_string(ended->name)) < 0 || add_exit(all, ended->exit) < 0)
                return -1;
        return add_lines(all, ended->last_output, ended->n_last_output);
}

json_t *call_output_details(const ControlFailure *failure) {
        json_auto_t *all = json_object();

        if ((failure->start && add_start(all, failure->start) < 0) ||
            (failure->ended && add_ended(all, failure->ended) < 0))
                return NULL;
        return json_incref(all);
}

int call_output_failure(const ControlFailure *failure, const Baton__Envelope *envelope, uint64_t time_us) {
        json_auto_t *all = call_output_frame(failure->status, time_us);
        int r;

        if (json_object_set_new(all, "message", json_string(failure->message ? failure->message : "")) < 0 ||
            (failure->start && add_start(all, failure->start) < 0) ||
            (failure->ended && add_ended(all, failure->ended) < 0) || add_details(all, envelope) < 0 ||
            add_metadata(all, envelope) < 0)
                return -ENOMEM;
        r = output_json(stdout, all);
        return r < 0 ? r : output_flush(stdout);
}

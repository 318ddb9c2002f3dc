/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Stream: ties a call to two descriptors. Nothing is buffered for a producer, in either direction: an item that the other
 * side does not take stays here, alone, and no further line is read; an item that standard output has no room for stays
 * with the engine, whose credit then stops the other side. So memory is bounded by one line, one item and one window,
 * whatever is piped through.
 *
 * A line is JSON: an array of values, or one value alone, is an item of type baton.Values; {"type": T, "data": HEX} is one
 * of any other type. With `raw' a line is an item's bytes. Items come out in the same forms. The end of the input is the
 * half-close; the answer ends the call whether the input has ended or not, and what is left of it is not read.
 *
 * A fault ends the stream: the call is cancelled, and what has come until then is still written.
 */

#include "client/stream.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "client/output.h"
#include "client/values-json.h"
#include "proto/values-text.h"

#define LINE_MAX_BYTES ((size_t) 1024 * 1024) /* JSON of what a window takes at once, and more */

static void fault(Stream *s, StreamFault why, const char *format, ...) _printf_(3, 4);

static void fault(Stream *s, StreamFault why, const char *format, ...) {
        va_list arguments;

        if (s->fault)
                return;
        s->fault = why;
        endpoint_wake(s->input.endpoint);
        va_start(arguments, format);
        (void) vsnprintf(s->error, sizeof(s->error), format, arguments);
        va_end(arguments);
}

static void bad_line(Stream *s, const char *why) {
        fault(s, STREAM_FAULT_LINE, "line %llu: %s", (unsigned long long) s->input.number, why);
}

/* ---- lines to items ---- */

static void item_deinit(StreamItem *item) {
        free(item->payload);
        free(item->type);
        *item = (StreamItem){ 0 };
}

static int raw_item(Stream *s, const uint8_t *line, size_t size) {
        s->item.payload = malloc(size + 1);
        if (!s->item.payload || (s->type && !(s->item.type = strdup(s->type))))
                return -ENOMEM;
        if (size > 0)
                memcpy(s->item.payload, line, size);
        s->item.size = size;
        return 0;
}

/* data_item() - {"type": T, "data": HEX} */
static int data_item(Stream *s, const json_t *json) {
        const char *type = json_string_value(json_object_get(json, "type"));
        int r = hex_from_json(json_object_get(json, "data"), &s->item.payload, &s->item.size);

        if (r == -EINVAL)
                bad_line(s, "\"data\" is no string of hexadecimal digits");
        if (r == 0 && type && !(s->item.type = strdup(type)))
                r = -ENOMEM;
        return r;
}

static int values_item(Stream *s, const json_t *json) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX];
        int r = values_from_json(json, &values, error);

        if (r < 0 && r != -ENOMEM)
                bad_line(s, error);
        if (r < 0)
                return r;
        s->item.type = strdup(VALUES_TYPE);
        return s->item.type ? values_pack(values, &s->item.payload, &s->item.size) : -ENOMEM;
}

static int json_item(Stream *s, const uint8_t *line, size_t size) {
        json_error_t error;
        json_auto_t *json = json_loadb((const char *) line, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
        char why[JSON_ERROR_TEXT_LENGTH + 32];

        if (!json) {
                (void) snprintf(why, sizeof(why), "not JSON: %s, at column %d", error.text, error.column);
                bad_line(s, why);
                return -EINVAL;
        }
        if (!json_is_object(json) && !json_is_array(json)) {
                bad_line(s,
                         "no item: {\"type\": \"u8\", \"value\": 7} is one, or an array of such; --raw takes lines as "
                         "they are");
                return -EINVAL;
        }
        return json_is_object(json) && json_object_get(json, "data") ? data_item(s, json) : values_item(s, json);
}

/* ---- sending ---- */

/* too_large() - all limits: what the item has, and what the other side takes. */
static void too_large(Stream *s) {
        const PeerRemote *remote = peer_remote(call_peer(s->invocation.call));

        fault(s, STREAM_FAULT_TOO_LARGE,
              "line %llu: an item of %zu bytes, and the other side takes less than %llu, or objects of %llu",
              (unsigned long long) s->input.number, s->item.size, (unsigned long long) remote->stream_window,
              (unsigned long long) remote->max_object);
}

/* send_item() - the one that is pending. Whether the next may follow. */
static bool send_item(Stream *s) {
        const ItemParameters parameters = { .type = s->item.type, .payload = s->item.payload, .size = s->item.size };
        int r = call_send(s->invocation.call, &parameters);

        if (r == -EAGAIN || r == -ECANCELED)
                return false; /* on_writable() comes; or the answer does */
        if (r == -EMSGSIZE)
                too_large(s);
        else if (r == -EINVAL)
                bad_line(s, "its \"type\" is no name of a message");
        else if (r < 0)
                fault(s, STREAM_FAULT_MEMORY, "%s", strerror(-r));
        s->pending = false;
        item_deinit(&s->item);
        line_input_take(&s->input);
        return r == 0;
}

/* next_item() - from the next line. False: there is none, for now or for ever. */
static bool next_item(Stream *s) {
        const uint8_t *line = NULL;
        size_t size = 0;
        int r = line_input_peek(&s->input, &line, &size);

        if (r == 0) {
                r = s->raw ? raw_item(s, line, size) : json_item(s, line, size);
                if (r == -ENOMEM)
                        fault(s, STREAM_FAULT_MEMORY, "%s", strerror(-r));
                s->pending = r == 0;
        } else if (r == LINE_INPUT_END) {
                s->half_closed = true;
                (void) call_end(s->invocation.call); /* over already: its answer comes */
        } else if (r == -E2BIG)
                bad_line(s, "longer than 1 MiB");
        else if (r < 0)
                fault(s, STREAM_FAULT_INPUT, "cannot read standard input: %s", strerror(-r));
        return r == 0;
}

static void send_items(Stream *s) {
        while (s->invocation.call && !s->fault && !s->half_closed)
                if (s->pending ? !send_item(s) : !next_item(s))
                        return;
}

static void on_writable(Call *call, void *userdata) {
        (void) call;
        send_items(userdata);
}

static void on_input(LineInput *input) {
        send_items(input->userdata);
}

/* ---- receiving ---- */

static json_t *values_line(const Item *item) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        char error[VALUES_ERROR_MAX];
        json_t *json = NULL;

        if (strcmp(item->envelope->type, VALUES_TYPE) != 0 ||
            values_unpack(item->payload, item->size, &values, error) < 0 || values_to_json(values, &json) < 0)
                return NULL;
        return json;
}

/* json_line() - what says it is values and is not is shown as the bytes it is. */
static char *json_line(const Item *item, size_t *ret_size) {
        json_auto_t *json = values_line(item);
        char *text;

        if (!json)
                json = json_pack("{s:s, s:o}", "type", item->envelope->type, "data",
                                 hex_to_json(item->payload, item->size));
        text = json ? json_dumps(json, JSON_PRESERVE_ORDER | JSON_COMPACT) : NULL;
        *ret_size = text ? strlen(text) : 0;
        return text;
}

/* append() - a line of the output. */
static int append(Stream *s, const void *data, size_t size) {
        _cleanup_free_ char *text = NULL;
        size_t length = 0;
        FILE *memory;
        int r;

        if (s->escaped) {
                memory = open_memstream(&text, &length);
                r = memory ? output_text(memory, data, size) : -ENOMEM;
                if (memory && fclose(memory) != 0)
                        r = -ENOMEM;
                if (r < 0)
                        return r;
        }
        r = byte_output_append(&s->output, s->escaped ? text : data, s->escaped ? length : size);
        return r < 0 ? r : byte_output_append(&s->output, "\n", 1);
}

static bool on_item(Call *call, const Item *item, void *userdata) {
        _cleanup_free_ char *text = NULL;
        Stream *s = userdata;
        size_t size;
        int r;

        (void) call;
        if (item->bare)
                return true;
        if (!byte_output_has_room(&s->output))
                return false;
        if (s->raw)
                r = append(s, item->payload, item->size);
        else {
                text = json_line(item, &size);
                r = text ? append(s, text, size) : -ENOMEM;
        }
        if (r < 0)
                fault(s, STREAM_FAULT_MEMORY, "%s", strerror(-r));
        return true;
}

static void on_output(ByteOutput *output) {
        Stream *s = output->userdata;

        if (output->error)
                fault(s, STREAM_FAULT_OUTPUT, "%s", strerror(-output->error));
        else if (s->invocation.call)
                call_resume(s->invocation.call);
        else
                endpoint_wake(output->endpoint); /* it may be before the wait of the turn, and the last that comes */
}

/* ---- the stream ---- */

int stream_open(Stream *s, Endpoint *endpoint, int input_fd, int output_fd) {
        *s = (Stream){ .escaped = isatty(output_fd) == 1 };
        line_input_open(&s->input, endpoint, input_fd, LINE_MAX_BYTES, on_input, s);
        return byte_output_open(&s->output, endpoint, output_fd, on_output, s);
}

void stream_begin(Stream *s, Control *control, Peer *lane, const char *name, const CallParameters *parameters) {
        CallParameters streaming = *parameters;

        streaming.stream = true;
        streaming.item = on_item;
        streaming.writable = on_writable;
        control_begin_at(control, &s->invocation, lane, name, &streaming);
        send_items(s);
}

int stream_wait(Stream *s, const Control *control) {
        int r = 0;

        while (r == 0 && s->fault != STREAM_FAULT_OUTPUT) {
                if (s->fault)
                        control_call_deinit(&s->invocation);
                if ((s->fault || s->invocation.done) && byte_output_is_empty(&s->output))
                        return 0;
                r = control->interrupted ? -EINTR : endpoint_dispatch(control->endpoint, -1);
        }
        return r;
}

void stream_deinit(Stream *s) {
        control_call_deinit(&s->invocation);
        line_input_close(&s->input);
        byte_output_close(&s->output);
        item_deinit(&s->item);
        *s = (Stream){ 0 };
}

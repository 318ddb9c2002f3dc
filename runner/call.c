/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls of libbaton, both ways: thin objects around the engine's. They exist because an application's pointer must stay
 * good until the application itself ends the call, whatever became of the peer, and because what an answer collects
 * before it is given (details, metadata) has to live somewhere. Ended ones are kept for the next call: a runner at work
 * allocates nothing here.
 *
 * Payloads are never copied on the way in: handlers read them where the frame was read.
 */

#include "runner/runner.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parse.h"
#include "runner/text.h"

#define MESSAGE_SIZE 1024u

/* What baton_answer_metadata() and baton_answer_detail() look into; the application sees the first member. */
typedef struct AnswerView {
        struct baton_answer public;
        const Baton__Envelope *envelope;
} AnswerView;

/* ---- objects ---- */

static RunnerCall *call_new(Runner *runner) {
        RunnerCall *call = LIST_FIRST(&runner->free_calls);

        if (call)
                LIST_REMOVE(call, link);
        else
                call = malloc(sizeof(*call));
        if (!call)
                return NULL;
        *call = (RunnerCall){ .runner = runner };
        LIST_INSERT_HEAD(&runner->calls, call, link);
        runner->n_calls++;
        return call;
}

static void call_clear(RunnerCall *call) {
        for (size_t i = 0; i < call->n_details; i++)
                free(call->details[i]);
        for (size_t i = 0; i < call->n_metadata; i++)
                free(call->metadata[i]);
        free(TAKE_PTR(call->details));
        free(TAKE_PTR(call->metadata));
        call->n_details = call->n_metadata = 0;
}

/* call_ended() - the engine has it; the object waits for the next call. */
static void call_ended(RunnerCall *call) {
        Runner *runner = call->runner;

        call_clear(call);
        call->call = NULL;
        LIST_REMOVE(call, link);
        LIST_INSERT_HEAD(&runner->free_calls, call, link);
        runner->n_calls--;
        if (runner->n_calls == 0)
                lifecycle_drained(runner);
}

void runner_call(Runner *runner, Call *call, baton_method_fn function, void *userdata) {
        RunnerCall *object = call_new(runner);

        if (!object) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        object->call = call;
        function(object, userdata);
}

void runner_free_calls(Runner *runner) {
        RunnerCall *call;
        RunnerRequest *request;

        while ((call = LIST_FIRST(&runner->calls))) {
                (void) call_fail(call->call, STATUS_UNAVAILABLE, "the runner has ended");
                call_clear(call);
                LIST_REMOVE(call, link);
                free(call);
        }
        while ((call = LIST_FIRST(&runner->free_calls))) {
                LIST_REMOVE(call, link);
                free(call);
        }
        while ((request = LIST_FIRST(&runner->requests))) {
                LIST_REMOVE(request, link);
                free(request);
        }
        while ((request = LIST_FIRST(&runner->free_requests))) {
                LIST_REMOVE(request, link);
                free(request);
        }
}

/* ---- what a call says ---- */

static const void *value_of(const ProtobufCBinaryData *value, size_t *ret_size) {
        *ret_size = value->len;
        return value->data ? (const void *) value->data : "";
}

static const void *find_pair(const Baton__Envelope *envelope, const char *key, size_t *ret_size) {
        for (size_t i = 0; i < envelope->n_metadata; i++)
                if (strcmp(envelope->metadata[i]->key, key) == 0)
                        return value_of(&envelope->metadata[i]->value, ret_size);
        *ret_size = 0;
        return NULL;
}

const char *baton_call_method(struct baton_call *call) {
        return call_envelope(call->call)->method;
}

const char *baton_call_type(struct baton_call *call) {
        return call_envelope(call->call)->type;
}

const void *baton_call_data(struct baton_call *call, size_t *ret_size) {
        return call_payload(call->call, ret_size);
}

struct baton_runner *baton_call_runner(struct baton_call *call) {
        return call->runner;
}

enum baton_channel baton_call_channel(struct baton_call *call) {
        return (enum baton_channel) call_channel(call->call);
}

uint64_t baton_call_time_left(struct baton_call *call) {
        return call_time_left(call->call);
}

const void *baton_call_metadata(struct baton_call *call, const char *key, size_t *ret_size) {
        return find_pair(call_envelope(call->call), key, ret_size);
}

const void *baton_call_metadata_at(struct baton_call *call, size_t index, const char **ret_key, size_t *ret_size) {
        const Baton__Envelope *envelope = call_envelope(call->call);

        if (index >= envelope->n_metadata)
                return NULL;
        *ret_key = envelope->metadata[index]->key;
        return value_of(&envelope->metadata[index]->value, ret_size);
}

size_t baton_call_n_fds(struct baton_call *call) {
        size_t n;

        (void) call_fds(call->call, &n);
        return n;
}

int baton_call_take_fd(struct baton_call *call, size_t index) {
        size_t n;
        int *fds = call_fds(call->call, &n);

        return index < n ? fd_take(&fds[index]) : -1;
}

static void cancelled(Call *engine_call, void *userdata) {
        RunnerCall *call = userdata;

        (void) engine_call;
        call->on_cancel(call, call->on_cancel_userdata);
}

void baton_call_on_cancel(struct baton_call *call, void (*function)(struct baton_call *call, void *userdata),
                          void *userdata) {
        call->on_cancel = function;
        call->on_cancel_userdata = userdata;
        call_on_cancel(call->call, function ? cancelled : NULL, call);
}

int baton_call_is_cancelled(struct baton_call *call) {
        return call_is_cancelled(call->call);
}

/* ---- answers ---- */

/* answer() - ends the call with @parameters and what was added to it before. */
static int answer(RunnerCall *call, AnswerParameters *parameters) {
        int r;

        assert(call->call); /* ended twice */
        parameters->details = call->details;
        parameters->n_details = call->n_details;
        parameters->metadata = call->metadata;
        parameters->n_metadata = call->n_metadata;
        r = call_answer(call->call, parameters);
        call_ended(call);
        return r;
}

int baton_call_answer(struct baton_call *call, const char *type, const void *data, size_t size) {
        AnswerParameters parameters = { .type = type, .payload = data, .size = size };

        return answer(call, &parameters);
}

int baton_call_answer_fds(struct baton_call *call, const char *type, const void *data, size_t size,
                          const int *fds_consume, size_t n) {
        AnswerParameters parameters = {
                .type = type,
                .payload = data,
                .size = size,
                .fds_consume = fds_consume,
                .n_fds = n,
        };

        return answer(call, &parameters);
}

int baton_call_fail(struct baton_call *call, enum baton_status status, const char *format, ...) {
        AnswerParameters parameters = { .status = status == BATON_OK ? STATUS_UNKNOWN : status_from_wire(status) };
        char message[MESSAGE_SIZE + 2] = "";
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(message, sizeof(message), format, arguments);
        va_end(arguments);
        text_cut(message, MESSAGE_SIZE);
        (void) text_mend(message);
        parameters.message = message;
        return answer(call, &parameters);
}

/* grow() - room for one more pointer in the array of @n. */
static int grow(void *array, size_t n) {
        void **old = *(void ***) array, **grown;

        /* Doubled at powers of two. */
        if (n & (n - 1))
                return 0;
        grown = realloc(old, (n ? n * 2 : 1) * sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        *(void ***) array = grown;
        return 0;
}

/* entry_new() - @header bytes of a message that protobuf-c made, with copies of a text and bytes behind it. */
static void *entry_new(size_t header, const char *text, const void *data, size_t size, char **ret_text,
                       ProtobufCBinaryData *ret_value) {
        size_t length = strlen(text) + 1;
        char *entry = malloc(header + length + size);

        if (!entry)
                return NULL;
        *ret_text = memcpy(entry + header, text, length);
        ret_value->data = (uint8_t *) entry + header + length;
        ret_value->len = size;
        if (size > 0)
                memcpy(ret_value->data, data, size);
        return entry;
}

int baton_call_add_detail(struct baton_call *call, const char *type, const void *data, size_t size) {
        Baton__Detail detail = BATON__DETAIL__INIT, *entry;

        if (!utf8_is_valid(type, strlen(type)))
                return -EINVAL;
        if (grow(&call->details, call->n_details) < 0)
                return -ENOMEM;
        entry = entry_new(sizeof(*entry), type, data, size, &detail.type, &detail.value);
        if (!entry)
                return -ENOMEM;
        *entry = detail;
        call->details[call->n_details++] = entry;
        return 0;
}

int baton_call_add_metadata(struct baton_call *call, const char *key, const void *data, size_t size) {
        Baton__Pair pair = BATON__PAIR__INIT, *entry;

        if (!utf8_is_valid(key, strlen(key)))
                return -EINVAL;
        if (grow(&call->metadata, call->n_metadata) < 0)
                return -ENOMEM;
        entry = entry_new(sizeof(*entry), key, data, size, &pair.key, &pair.value);
        if (!entry)
                return -ENOMEM;
        *entry = pair;
        call->metadata[call->n_metadata++] = entry;
        return 0;
}

/* ---- calls of ours ---- */

static RunnerRequest *request_new(Runner *runner) {
        RunnerRequest *request = LIST_FIRST(&runner->free_requests);

        if (request)
                LIST_REMOVE(request, link);
        else
                request = malloc(sizeof(*request));
        if (!request)
                return NULL;
        *request = (RunnerRequest){ .runner = runner };
        LIST_INSERT_HEAD(&runner->requests, request, link);
        return request;
}

static void request_ended(RunnerRequest *request) {
        request->call = NULL;
        LIST_REMOVE(request, link);
        LIST_INSERT_HEAD(&request->runner->free_requests, request, link);
}

static void request_done(Call *call, const Answer *answer, void *userdata) {
        RunnerRequest *request = userdata;
        AnswerView view = {
                .public = {
                        .status = (enum baton_status) answer->status,
                        .message = answer->message,
                        .type = answer->envelope->type,
                        .data = answer->payload ? (const void *) answer->payload : "",
                        .size = answer->size,
                        .fds = answer->fds,
                        .n_fds = answer->n_fds,
                },
                .envelope = answer->envelope,
        };

        (void) call;
        request->call = NULL;
        if (request->function)
                request->function(&view.public, request->userdata);
        request_ended(request);
}

/* copy_parameters() - as many fields as the caller knew of. False: without what is needed. */
static bool copy_parameters(const Runner *runner, const struct baton_call_parameters *given,
                            struct baton_call_parameters *ret) {
        *ret = (struct baton_call_parameters){ 0 };
        memcpy(ret, given, MIN(given->size, sizeof(*ret)));
        if (ret->channel != BATON_CHANNEL_RPC &&
            ((unsigned) ret->channel >= LANE_CHANNELS || !(runner->framed & 1u << ret->channel)))
                return false;
        return ret->method;
}

int baton_runner_call(struct baton_runner *runner, const struct baton_call_parameters *parameters,
                      baton_answer_fn function, void *userdata, struct baton_request **ret_request) {
        struct baton_call_parameters given;
        bool valid = copy_parameters(runner, parameters, &given);
        RunnerRequest *request = valid ? request_new(runner) : NULL;
        Baton__Pair pair = BATON__PAIR__INIT, *pairs = &pair;
        CallParameters engine_parameters;
        int r;

        if (!request) {
                for (size_t i = 0; i < given.n_fds; i++)
                        fd_close(given.fds_consume[i]);
                return valid ? -ENOMEM : -EINVAL;
        }
        pair.key = (char *) given.metadata_key;
        pair.value = (ProtobufCBinaryData){ .len = given.metadata_size, .data = (uint8_t *) given.metadata_value };
        engine_parameters = (CallParameters){
                .channel = given.channel,
                .method = given.method,
                .type = given.type,
                .payload = given.data,
                .size = given.data_size,
                .timeout_us = given.timeout_us,
                .fds_consume = given.fds_consume,
                .n_fds = given.n_fds,
                .metadata = &pairs,
                .n_metadata = given.metadata_key ? 1 : 0,
        };
        request->function = function;
        request->userdata = userdata;
        r = call_start(runner->peer, &engine_parameters, request_done, request, &request->call);
        if (r < 0) {
                request_ended(request);
                return r;
        }
        if (ret_request)
                *ret_request = request;
        return 0;
}

void baton_request_cancel(struct baton_request *request) {
        if (!request->call)
                return; /* its function is running */
        call_cancel(request->call);
        request_ended(request);
}

const void *baton_answer_metadata(const struct baton_answer *answer, const char *key, size_t *ret_size) {
        const AnswerView *view = CONTAINER_OF(answer, AnswerView, public);

        return find_pair(view->envelope, key, ret_size);
}

const void *baton_answer_detail(const struct baton_answer *answer, const char *type, size_t *ret_size) {
        const AnswerView *view = CONTAINER_OF(answer, AnswerView, public);

        for (size_t i = 0; i < view->envelope->n_details; i++)
                if (strcmp(view->envelope->details[i]->type, type) == 0)
                        return value_of(&view->envelope->details[i]->value, ret_size);
        *ret_size = 0;
        return NULL;
}

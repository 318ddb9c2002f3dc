/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Control client: packs requests of baton.Control, keeps what came back, and decodes the two details that say what
 * became of a runner. A ControlCall belongs to its caller and is in one of three states: null, running (`call' is set),
 * done. A failure at the start, a refusal by the supervisor and the end of the connection all end in `done' with a
 * status, so that callers look in one place. Calls over a lane of our own are kept in the same way: everything that came
 * back, the Envelope whole, since its metadata is shown, too. It is not for figures: what is kept is allocated. The wait
 * helpers run the endpoint, so other callbacks of it (signals, other calls) run meanwhile.
 */

#include "client/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "proto/message.h"

#define SERVICE               "baton.Control/"
#define LOG_RECORDS           4096 /* in one answer: a runner that writes fast outruns small ones */
#define METHOD_SIZE           64
#define OBJECT_FROM           (1024u * 1024u)
#define STOP_TIMEOUT_SLACK_US (5 * UINT64_C(1000000))

void control_failure_deinit(ControlFailure *failure) {
        free(failure->message);
        (void) message_free(failure->errors);
        (void) message_free(failure->start);
        (void) message_free(failure->ended);
        *failure = (ControlFailure){ 0 };
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        Control *control = peer_userdata(peer);

        control->ended = true;
        control->end_status = status;
        if (!control->end_reason && reason && *reason)
                control->end_reason = strdup(reason);
}

static void on_ready(Peer *peer, bool renewed) {
        Control *control = peer_userdata(peer);

        (void) renewed;
        control->ready = true;
}

const PeerHandler control_handler = { .ready = on_ready, .ended = on_ended };

void control_init(Control *control, Endpoint *endpoint) {
        *control = (Control){ .endpoint = endpoint };
}

void control_attach(Control *control, Peer *peer) {
        control->peer = peer;
}

void control_deinit(Control *control) {
        free(control->end_reason);
        *control = (Control){ 0 };
}

void control_interrupt(Control *control) {
        control->interrupted = true;
}

/* ---- one call ---- */

/* finish() - it may be before the wait of the turn, as when a limit forbids the call: that wait is cut short. */
static void finish(ControlCall *call) {
        call->done = true;
        endpoint_wake(call->endpoint);
        if (call->told)
                call->told(call);
}

static void set_failure(ControlCall *call, Status status, const char *message) {
        call->failure.status = status;
        call->failure.message = strdup(message);
}

static void fail(ControlCall *call, Status status, const char *message) {
        set_failure(call, status, message);
        finish(call);
}

static void *unpack_detail(const Baton__Detail *detail, const ProtobufCMessageDescriptor *type) {
        return strcmp(detail->type, type->name) == 0 ? message_unpack(type, detail->value.data, detail->value.len)
                                                     : NULL;
}

static void read_details(ControlFailure *failure, const Baton__Envelope *envelope) {
        for (size_t i = 0; envelope && i < envelope->n_details; i++) {
                const Baton__Detail *detail = envelope->details[i];

                if (!failure->errors)
                        failure->errors = unpack_detail(detail, &baton__control__config_errors__descriptor);
                if (!failure->start)
                        failure->start = unpack_detail(detail, &baton__control__start_failure__descriptor);
                if (!failure->ended)
                        failure->ended = unpack_detail(detail, &baton__control__runner_ended__descriptor);
        }
}

static int keep_envelope(ControlCall *call, const Baton__Envelope *envelope) {
        _cleanup_free_ uint8_t *packed = NULL;

        if (!envelope)
                return 0;
        packed = malloc(baton__envelope__get_packed_size(envelope) + 1);
        if (packed)
                call->envelope =
                        message_unpack(&baton__envelope__descriptor, packed, baton__envelope__pack(envelope, packed));
        return call->envelope ? 0 : -ENOMEM;
}

static int keep_payload(ControlCall *call, const Answer *answer) {
        call->payload = malloc(answer->size + 1);
        call->fds = calloc(answer->n_fds + 1, sizeof(*call->fds));
        if (!call->payload || !call->fds)
                return -ENOMEM;
        if (answer->size)
                memcpy(call->payload, answer->payload, answer->size);
        call->size = answer->size;
        for (size_t i = 0; i < answer->n_fds; i++)
                call->fds[call->n_fds++] = fd_take(&answer->fds[i]);
        return 0;
}

static void on_done(Call *handle, const Answer *answer, void *userdata) {
        ControlCall *call = userdata;

        (void) handle;
        call->call = NULL;
        if (keep_envelope(call, answer->envelope) < 0 || keep_payload(call, answer) < 0) {
                set_failure(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
        } else if (answer->status != STATUS_OK) {
                set_failure(call, answer->status, answer->message);
                read_details(&call->failure, call->envelope);
        }
        finish(call);
}

const char *control_call_type(const ControlCall *call) {
        return call->envelope ? call->envelope->type : "";
}

void control_call_begin(ControlCall *call, Endpoint *endpoint, Peer *peer, const CallParameters *parameters) {
        int r;

        *call = (ControlCall){ .endpoint = endpoint };
        r = call_start(peer, parameters, on_done, call, &call->call);
        if (r == -ESHUTDOWN)
                fail(call, STATUS_UNAVAILABLE, "the connection has ended");
        else if (r < 0)
                fail(call, status_from_errno(r), strerror(-r));
}

/* begin() - as control_call_begin(), of the supervisor, with @request packed as the payload. */
static void begin(Control *control, ControlCall *call, const ProtobufCMessage *request, CallParameters parameters) {
        _cleanup_free_ uint8_t *packed = NULL;

        *call = (ControlCall){ .endpoint = control->endpoint };
        parameters.type = request->descriptor->name;
        parameters.size = protobuf_c_message_get_packed_size(request);
        packed = malloc(parameters.size + 1);
        parameters.payload = packed;
        if (control->ended || !packed) {
                for (size_t i = 0; i < parameters.n_fds; i++)
                        fd_close(parameters.fds_consume[i]);
                if (!packed)
                        fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the call");
                else
                        fail(call, STATUS_UNAVAILABLE,
                             control->end_reason ? control->end_reason : "the supervisor is gone");
        } else {
                (void) protobuf_c_message_pack(request, packed);
                control_call_begin(call, control->endpoint, control->peer, &parameters);
        }
}

void control_begin(Control *control, ControlCall *call, const char *method, const ProtobufCMessage *request,
                   uint64_t timeout_us) {
        char name[METHOD_SIZE];

        (void) snprintf(name, sizeof(name), SERVICE "%s", method);
        begin(control, call, request, (CallParameters){ .method = name, .timeout_us = timeout_us });
}

/* make_object() - of a payload that is worth it and comes without descriptors, which would have to go before it. */
static bool make_object(const Peer *peer, const CallParameters *parameters, int *ret_fd) {
        return parameters->size >= OBJECT_FROM && parameters->n_fds == 0 && peer &&
               peer_remote(peer)->max_object >= parameters->size &&
               memfd_sealed("baton-call", parameters->payload, parameters->size, ret_fd) == 0;
}

void control_begin_supervised(Control *control, ControlCall *call, const char *name,
                              const CallParameters *parameters) {
        Baton__Control__CallRequest request = BATON__CONTROL__CALL_REQUEST__INIT;
        CallParameters supervised = *parameters;
        int object = -1;

        request.name = (char *) name;
        request.method = (char *) parameters->method;
        if (parameters->type)
                request.type = (char *) parameters->type;
        if (make_object(control->peer, parameters, &object)) {
                request.object = parameters->size;
                supervised.fds_consume = &object;
                supervised.n_fds = 1;
        } else {
                request.payload.data = (uint8_t *) parameters->payload;
                request.payload.len = parameters->size;
        }
        supervised.method = SERVICE "Call";
        begin(control, call, &request.base, supervised);
}

void control_begin_at(Control *control, ControlCall *call, Peer *lane, const char *name,
                      const CallParameters *parameters) {
        CallParameters direct = *parameters;
        int object = -1;

        if (!lane) {
                control_begin_supervised(control, call, name, parameters);
                return;
        }
        if (make_object(lane, parameters, &object)) {
                direct.object = parameters->size;
                direct.payload = NULL;
                direct.size = 0;
                direct.fds_consume = &object;
                direct.n_fds = 1;
        }
        control_call_begin(call, control->endpoint, lane, &direct);
}

ProtobufCBinaryData *control_bytes_array(char *const *texts, size_t n) {
        ProtobufCBinaryData *array = calloc(n + 1, sizeof(*array));

        for (size_t i = 0; array && i < n; i++)
                array[i] = control_bytes(texts[i]);
        return array;
}

int control_wait(Control *control, ControlCall *call) {
        while (!call->done) {
                int r;

                if (control->interrupted)
                        return -EINTR;
                r = endpoint_dispatch(control->endpoint, -1);
                if (r < 0)
                        return r;
        }
        return 0;
}

int control_wait_until(const Control *control, uint64_t moment, const size_t *open) {
        uint64_t now;
        int r = 0;

        while (r == 0 && (!open || *open > 0) && (now = clock_now()) < moment) {
                uint64_t left_ms = (moment - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC;

                r = control->interrupted ? -EINTR : endpoint_dispatch(control->endpoint, (int) MIN(left_ms, 60000u));
        }
        return r;
}

void control_call_deinit(ControlCall *call) {
        if (call->call)
                call_cancel(call->call);
        control_failure_deinit(&call->failure);
        fd_close_all(call->fds, call->n_fds);
        free(call->fds);
        (void) message_free(call->envelope);
        free(call->payload);
        *call = (ControlCall){ 0 };
}

void *control_unpack(const ControlCall *call, const ProtobufCMessageDescriptor *type) {
        if (!call->done || call->failure.status != STATUS_OK || strcmp(control_call_type(call), type->name) != 0)
                return NULL;
        return message_unpack_sparse(type, call->payload, call->size);
}

/* ---- typed calls ---- */

/* conclude() - waits for @call, takes what it says, and ends it. @ret_message may be NULL. */
static int conclude(Control *control, ControlCall *call, const ProtobufCMessageDescriptor *type, void **ret_message,
                    ControlFailure *ret_failure) {
        _cleanup_message_ void *message = NULL;
        int r = control_wait(control, call);

        if (r < 0)
                goto out;
        message = control_unpack(call, type);
        if (!message && call->failure.status == STATUS_OK)
                set_failure(call, STATUS_INTERNAL, "the supervisor's answer is no message of the expected type");
        if (!message) {
                *ret_failure = call->failure;
                call->failure = (ControlFailure){ 0 };
                r = CONTROL_REFUSED;
        } else if (ret_message)
                *ret_message = TAKE_PTR(message);
out:
        control_call_deinit(call);
        return r;
}

int control_start(Control *control, const ControlStart *request, ControlStarted **ret_started,
                  ControlFailure *ret_failure) {
        void *message = NULL;
        ControlCall call;
        int r;

        control_begin(control, &call, "Start", &request->base, 0);
        r = conclude(control, &call, &baton__control__start_response__descriptor, &message, ret_failure);
        if (r == 0)
                *ret_started = message;
        return r;
}

int control_start_on(Control *control, ControlStart *request, int terminal_fd_consume, ControlStarted **ret_started,
                     ControlFailure *ret_failure) {
        const CallParameters parameters = { .method = SERVICE "Start",
                                            .fds_consume = &terminal_fd_consume,
                                            .n_fds = 1 };
        void *message = NULL;
        ControlCall call;
        int r;

        request->terminal = true;
        begin(control, &call, &request->base, parameters);
        r = conclude(control, &call, &baton__control__start_response__descriptor, &message, ret_failure);
        if (r == 0)
                *ret_started = message;
        return r;
}

void control_begin_stop(Control *control, ControlCall *call, const char *name, uint64_t timeout_us) {
        Baton__Control__StopRequest request = BATON__CONTROL__STOP_REQUEST__INIT;

        request.name = (char *) name;
        request.timeout_us = timeout_us;
        control_begin(control, call, "Stop", &request.base, timeout_us ? timeout_us + STOP_TIMEOUT_SLACK_US : 0);
}

int control_stop(Control *control, const char *name, uint64_t timeout_us, ControlStopped **ret_stopped,
                 ControlFailure *ret_failure) {
        void *message = NULL;
        ControlCall call;
        int r;

        control_begin_stop(control, &call, name, timeout_us);
        r = conclude(control, &call, &baton__control__stop_response__descriptor, &message, ret_failure);
        if (r == 0)
                *ret_stopped = message;
        return r;
}

void control_begin_signal(Control *control, ControlCall *call, const char *name, int signal) {
        Baton__Control__SignalRequest request = BATON__CONTROL__SIGNAL_REQUEST__INIT;

        request.name = (char *) name;
        request.signal = signal;
        control_begin(control, call, "Signal", &request.base, 0);
}

int control_signal(Control *control, const char *name, int signal, ControlFailure *ret_failure) {
        ControlCall call;

        control_begin_signal(control, &call, name, signal);
        return conclude(control, &call, &baton__control__signal_response__descriptor, NULL, ret_failure);
}

void control_begin_logs(Control *control, ControlCall *call, const char *name, uint64_t from_seq, bool wait) {
        Baton__Control__LogsRequest request = BATON__CONTROL__LOGS_REQUEST__INIT;

        request.name = (char *) name;
        request.from_seq = from_seq;
        request.max_records = LOG_RECORDS;
        request.wait = wait;
        control_begin(control, call, "Logs", &request.base, 0);
}

void control_begin_attach(Control *control, ControlCall *call, const char *name, uint64_t timeout_us) {
        Baton__Control__AttachRequest request = BATON__CONTROL__ATTACH_REQUEST__INIT;

        request.name = (char *) name;
        control_begin(control, call, "Attach", &request.base, timeout_us);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Invocation: a call of a runner as the command makes it, one at a time, with everything that came back: the payload, and
 * the Envelope whole, since its metadata is shown, too. It belongs to its caller and is in one of three states, as a
 * ControlCall is: null, running (`call' is set), done. Whatever goes wrong, wherever, ends in `done' with a status, so
 * that callers look in one place. It is not for figures: what is kept is allocated.
 */

#include "client/invocation.h"

#include <errno.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "proto/message.h"

#define SUPERVISED  "baton.Control/Call"
#define OBJECT_FROM (1024u * 1024u)

const char *invocation_type(const Invocation *invocation) {
        return invocation->envelope ? invocation->envelope->type : "";
}

/* finish() - it may be before the wait of the turn, as when a limit forbids the call: that wait is cut short. */
static void finish(Invocation *invocation) {
        invocation->done = true;
        endpoint_wake(invocation->endpoint);
}

static void fail(Invocation *invocation, Status status, const char *message) {
        finish(invocation);
        invocation->failure.status = status;
        invocation->failure.message = strdup(message);
}

static int keep_envelope(Invocation *invocation, const Baton__Envelope *envelope) {
        _cleanup_free_ uint8_t *packed = NULL;
        size_t size = baton__envelope__get_packed_size(envelope);

        packed = malloc(size + 1);
        if (packed)
                invocation->envelope =
                        message_unpack(&baton__envelope__descriptor, packed, baton__envelope__pack(envelope, packed));
        return invocation->envelope ? 0 : -ENOMEM;
}

static int keep_payload(Invocation *invocation, const uint8_t *payload, size_t size) {
        invocation->payload = malloc(size + 1);
        if (!invocation->payload)
                return -ENOMEM;
        if (size)
                memcpy(invocation->payload, payload, size);
        invocation->size = size;
        return 0;
}

static void *unpack_detail(const Baton__Detail *detail, const ProtobufCMessageDescriptor *type) {
        return strcmp(detail->type, type->name) == 0 ? message_unpack(type, detail->value.data, detail->value.len)
                                                     : NULL;
}

static void read_details(ControlFailure *failure, const Baton__Envelope *envelope) {
        for (size_t i = 0; i < envelope->n_details && !failure->ended; i++)
                failure->ended = unpack_detail(envelope->details[i], &baton__control__runner_ended__descriptor);
}

static void on_done(Call *call, const Answer *answer, void *userdata) {
        Invocation *invocation = userdata;

        (void) call;
        invocation->call = NULL;
        if ((answer->envelope && keep_envelope(invocation, answer->envelope) < 0) ||
            keep_payload(invocation, answer->payload, answer->size) < 0) {
                fail(invocation, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return;
        }
        finish(invocation);
        if (answer->status == STATUS_OK)
                return;
        fail(invocation, answer->status, answer->message);
        if (invocation->envelope)
                read_details(&invocation->failure, invocation->envelope);
}

void invocation_begin(Invocation *invocation, Endpoint *endpoint, Peer *peer, const CallParameters *parameters) {
        int r;

        *invocation = (Invocation){ .endpoint = endpoint };
        r = call_start(peer, parameters, on_done, invocation, &invocation->call);
        if (r == -ESHUTDOWN)
                fail(invocation, STATUS_UNAVAILABLE, "the connection has ended");
        else if (r < 0)
                fail(invocation, status_from_errno(r), strerror(-r));
}

/* make_object() - of a payload that is worth it and comes without descriptors, which would have to go before it. */
static bool make_object(const Control *control, const CallParameters *parameters, int *ret_fd) {
        return parameters->size >= OBJECT_FROM && parameters->n_fds == 0 && control->peer &&
               peer_remote(control->peer)->max_object >= parameters->size &&
               memfd_sealed("baton-call", parameters->payload, parameters->size, ret_fd) == 0;
}

void invocation_begin_supervised(Invocation *invocation, Control *control, const char *name,
                                 const CallParameters *parameters) {
        Baton__Control__CallRequest request = BATON__CONTROL__CALL_REQUEST__INIT;
        CallParameters supervised = *parameters;
        _cleanup_free_ uint8_t *packed = NULL;
        int object = -1;

        *invocation = (Invocation){ .endpoint = control->endpoint };
        request.name = (char *) name;
        request.method = (char *) parameters->method;
        if (parameters->type)
                request.type = (char *) parameters->type;
        if (make_object(control, parameters, &object)) {
                request.object = parameters->size;
                supervised.fds_consume = &object;
                supervised.n_fds = 1;
        } else {
                request.payload.data = (uint8_t *) parameters->payload;
                request.payload.len = parameters->size;
        }
        packed = malloc(baton__control__call_request__get_packed_size(&request) + 1);
        if (!packed || control->ended) {
                fd_close(object);
                fail(invocation, packed ? STATUS_UNAVAILABLE : STATUS_RESOURCE_EXHAUSTED,
                     !packed               ? "no memory for the call"
                     : control->end_reason ? control->end_reason
                                           : "its connection has ended");
                return;
        }
        supervised.method = SUPERVISED;
        supervised.type = request.base.descriptor->name;
        supervised.payload = packed;
        supervised.size = baton__control__call_request__pack(&request, packed);
        invocation_begin(invocation, control->endpoint, control->peer, &supervised);
}

int invocation_wait(Invocation *invocation, const Control *control) {
        while (!invocation->done) {
                int r;

                if (control->interrupted)
                        return -EINTR;
                r = endpoint_dispatch(control->endpoint, -1);
                if (r < 0)
                        return r;
        }
        return 0;
}

void invocation_deinit(Invocation *invocation) {
        if (invocation->call)
                call_cancel(invocation->call);
        control_failure_deinit(&invocation->failure);
        (void) message_free(invocation->envelope);
        free(invocation->payload);
        *invocation = (Invocation){ 0 };
}

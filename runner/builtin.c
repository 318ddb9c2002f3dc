/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The library's own methods, "baton.…". The life of a runner is its supervisor's: clients may look, and nothing else.
 */

#include <string.h>

#include "proto/message.h"
#include "runner/runner.h"

void *builtin_unpack(Call *call, const ProtobufCMessageDescriptor *type) {
        size_t size;
        const uint8_t *payload = call_payload(call, &size);
        void *message = message_unpack(type, payload, size);

        if (!message)
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s: the request is no %s",
                                 call_envelope(call)->method, type->name);
        return message;
}

static const struct {
        const char *method;
        void (*handle)(Runner *runner, Call *call);
} methods[] = {
        { "baton.Runner/Attach", attach_handle }, { "baton.Runner/Exit", lifecycle_exit },
        { "baton.Runner/Info", service_info },    { "baton.Runner/Mount", lifecycle_mount },
        { "baton.Runner/Save", save_handle },     { "baton.Runner/Start", lifecycle_start },
        { "baton.Runner/Stop", lifecycle_stop },  { "baton.Runner/Takeover", lifecycle_takeover },
};

void builtin_call(Runner *runner, const Connection *connection, Call *call) {
        const char *method = call_envelope(call)->method;

        if (inspection_call(&runner->methods, lifecycle_is_serving(runner), call))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
                if (strcmp(methods[i].method, method) != 0)
                        continue;
                if (connection == runner->supervisor)
                        methods[i].handle(runner, call);
                else
                        (void) call_fail(call, STATUS_PERMISSION_DENIED, "%s is for the supervisor", method);
                return;
        }
        (void) call_fail(call, STATUS_UNIMPLEMENTED, "no such method: %s", method);
}

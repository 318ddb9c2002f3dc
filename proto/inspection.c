/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What everybody answers, be he a runner or a client: that he is there (baton.Runner/Ping), whether the application serves
 * (baton.Health/Check), and what (baton.Reflection/List).
 *
 * A service is what methods are named for, or what the application has said anything about. One it has said nothing about
 * is as well as the whole; and nothing serves while no calls are taken.
 */

#include <string.h>

#include "proto/baton.pb-c.h"
#include "proto/message.h"
#include "proto/method.h"

typedef void (*Handler)(const Methods *methods, bool serving, Call *call, const void *request);

static void ping(const Methods *methods, bool serving, Call *call, const void *request) {
        (void) methods;
        (void) serving;
        (void) call_answer_message(call, request);
}

/* ---- health ---- */

static const Health *find_health(const Methods *methods, const char *service) {
        Health *health;

        HASH_FIND_STR(methods->health, service, health);
        return health;
}

/* has_service() - whether a method is named "@service/...". */
static bool has_service(const Methods *methods, const char *service) {
        size_t length = strlen(service);

        for (const Method *method = methods->table; method; method = method->hh.next)
                if (strncmp(method->name, service, length) == 0 && method->name[length] == '/')
                        return true;
        return false;
}

static void check_health(const Methods *methods, bool serving, Call *call, const void *message) {
        const Baton__HealthRequest *request = message;
        Baton__HealthResponse response = BATON__HEALTH_RESPONSE__INIT;
        const Health *health = find_health(methods, request->service);

        if (!health && *request->service && !has_service(methods, request->service)) {
                (void) call_fail(call, STATUS_NOT_FOUND, "no such service: %s", request->service);
                return;
        }
        if (!health)
                health = find_health(methods, "");
        response.status = serving && (!health || health->serving) ? BATON__HEALTH_RESPONSE__STATUS__SERVING
                                                                  : BATON__HEALTH_RESPONSE__STATUS__NOT_SERVING;
        (void) call_answer_message(call, &response.base);
}

/* ---- reflection ---- */

static void fill_method(Baton__ReflectionResponse__Method *to, Method *from) {
        baton__reflection_response__method__init(to);
        to->name = from->name;
        to->described = from->described;
        if (from->request_type)
                to->request_type = from->request_type;
        if (from->response_type)
                to->response_type = from->response_type;
        to->client_streams = from->flags & BATON_METHOD_CLIENT_STREAMS;
        to->server_streams = from->flags & BATON_METHOD_SERVER_STREAMS;
}

static void list_methods(const Methods *methods, bool serving, Call *call, const void *request) {
        Baton__ReflectionResponse response = BATON__REFLECTION_RESPONSE__INIT;
        size_t n = HASH_COUNT(methods->table);
        _cleanup_free_ Baton__ReflectionResponse__Method *filled = calloc(n + 1, sizeof(*filled));
        _cleanup_free_ Baton__ReflectionResponse__Method **pointers = calloc(n + 1, sizeof(*pointers));

        (void) serving;
        (void) request;
        if (!filled || !pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        for (Method *method = methods->table; method; method = method->hh.next) {
                pointers[response.n_methods] = &filled[response.n_methods];
                fill_method(&filled[response.n_methods++], method);
        }
        response.methods = pointers;
        response.others = methods->fallback != NULL;
        (void) call_answer_message(call, &response.base);
}

/* ---- all of them ---- */

static const struct {
        const char *method;
        const ProtobufCMessageDescriptor *type;
        Handler handle;
} handlers[] = {
        { "baton.Health/Check", &baton__health_request__descriptor, check_health },
        { "baton.Reflection/List", &baton__reflection_request__descriptor, list_methods },
        { "baton.Runner/Ping", &baton__ping__descriptor, ping },
};

bool inspection_call(const Methods *methods, bool serving, Call *call) {
        const char *name = call_envelope(call)->method;

        for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
                _cleanup_message_ void *request = NULL;
                const uint8_t *payload;
                size_t size;

                if (strcmp(handlers[i].method, name) != 0)
                        continue;
                payload = call_payload(call, &size);
                request = message_unpack(handlers[i].type, payload, size);
                if (request)
                        handlers[i].handle(methods, serving, call, request);
                else
                        (void) call_fail(call, STATUS_INVALID_ARGUMENT, "%s: the request is no %s", name,
                                         handlers[i].type->name);
                return true;
        }
        return false;
}

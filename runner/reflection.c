/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whether the application serves, and what: baton.Health/Check and baton.Reflection/List.
 *
 * A service is what methods are named for, or what the application has said anything about. One it has said nothing about
 * is as well as the whole; and nothing serves while the runner's own service does not.
 */

#include <errno.h>
#include <string.h>

#include "common/parse.h"
#include "proto/message.h"
#include "runner/runner.h"

/* ---- health ---- */

static Health *find_health(const Runner *runner, const char *service) {
        Health *health;

        HASH_FIND_STR(runner->health, service, health);
        return health;
}

void health_free(Runner *runner) {
        Health *health, *next;

        HASH_ITER (hh, runner->health, health, next) {
                HASH_DEL(runner->health, health);
                free(health);
        }
}

int baton_runner_set_health(struct baton_runner *runner, const char *service, int serving) {
        size_t length = service ? strlen(service) : 0;
        Health *health = find_health(runner, service ? service : "");

        if (!utf8_is_valid(service ? service : "", length))
                return -EINVAL;
        if (health) {
                health->serving = serving;
                return 0;
        }
        health = calloc(1, sizeof(*health) + length + 1);
        if (!health)
                return -ENOMEM;
        if (length > 0)
                memcpy(health->service, service, length);
        health->serving = serving;
        HASH_ADD_STR(runner->health, service, health);
        if (!health->hh.tbl) {
                free(health);
                return -ENOMEM;
        }
        return 0;
}

void health_check(Runner *runner, Call *call) {
        _cleanup_message_ Baton__HealthRequest *request = builtin_unpack(call, &baton__health_request__descriptor);
        Baton__HealthResponse response = BATON__HEALTH_RESPONSE__INIT;
        const Health *health;

        if (!request)
                return;
        health = find_health(runner, request->service);
        if (!health && *request->service && !methods_have_service(&runner->methods, request->service)) {
                (void) call_fail(call, STATUS_NOT_FOUND, "no such service: %s", request->service);
                return;
        }
        if (!health)
                health = find_health(runner, "");
        response.status = lifecycle_is_serving(runner) && (!health || health->serving)
                                  ? BATON__HEALTH_RESPONSE__STATUS__SERVING
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

void reflection_list(Runner *runner, Call *call) {
        _cleanup_message_ Baton__ReflectionRequest *request =
                builtin_unpack(call, &baton__reflection_request__descriptor);
        Baton__ReflectionResponse response = BATON__REFLECTION_RESPONSE__INIT;
        size_t n = HASH_COUNT(runner->methods.table);
        _cleanup_free_ Baton__ReflectionResponse__Method *methods = calloc(n + 1, sizeof(*methods));
        _cleanup_free_ Baton__ReflectionResponse__Method **pointers = calloc(n + 1, sizeof(*pointers));

        if (!request)
                return;
        if (!methods || !pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "out of memory");
                return;
        }
        for (Method *method = runner->methods.table; method; method = method->hh.next) {
                pointers[response.n_methods] = &methods[response.n_methods];
                fill_method(&methods[response.n_methods++], method);
        }
        response.methods = pointers;
        response.others = runner->fallback != NULL;
        (void) call_answer_message(call, &response.base);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Methods: calls of one method mostly come in a row, so the one found last is looked at first. */

#include "proto/method.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "common/parse.h"
#include "common/text.h"

static void method_free(Method *method) {
        free(method->request_type);
        free(method->response_type);
        free(method);
}

void methods_deinit(Methods *methods) {
        Health *health, *next_health;
        Method *method, *next;

        HASH_ITER (hh, methods->table, method, next) {
                HASH_DEL(methods->table, method);
                method_free(method);
        }
        HASH_ITER (hh, methods->health, health, next_health) {
                HASH_DEL(methods->health, health);
                free(health);
        }
        methods->recent = NULL;
}

bool method_is_builtin(const char *name) {
        return text_begins(name, METHOD_BUILTIN);
}

static Method *find(Methods *methods, const char *name) {
        Method *method = methods->recent;

        if (method && strcmp(method->name, name) == 0)
                return method;
        HASH_FIND_STR(methods->table, name, method);
        methods->recent = method;
        return method;
}

static int add(Methods *methods, const char *name, size_t length, baton_method_fn function, void *userdata) {
        Method *method = calloc(1, sizeof(*method) + length + 1);

        if (!method)
                return -ENOMEM;
        memcpy(method->name, name, length + 1);
        method->function = function;
        method->userdata = userdata;
        HASH_ADD_STR(methods->table, name, method);
        if (!method->hh.tbl) { /* the table had to grow, and could not */
                method_free(method);
                return -ENOMEM;
        }
        return 0;
}

int methods_add(Methods *methods, const char *name, baton_method_fn function, void *userdata) {
        size_t length = name ? strnlen(name, METHOD_NAME_MAX + 1) : 0;

        if (length == 0 || length > METHOD_NAME_MAX || !utf8_is_valid(name, length) || !function)
                return -EINVAL;
        if (method_is_builtin(name))
                return -EPERM;
        return find(methods, name) ? -EEXIST : add(methods, name, length, function, userdata);
}

/* copy_type() - NULL for raw bytes. */
static int copy_type(const char *type, char **ret_copy) {
        *ret_copy = type && *type ? strdup(type) : NULL;
        return type && *type && !*ret_copy ? -ENOMEM : 0;
}

static int describe(Method *method, const char *request_type, const char *response_type, unsigned flags) {
        _cleanup_free_ char *request = NULL, *response = NULL;

        if (copy_type(request_type, &request) < 0 || copy_type(response_type, &response) < 0)
                return -ENOMEM;
        free(method->request_type);
        free(method->response_type);
        method->request_type = TAKE_PTR(request);
        method->response_type = TAKE_PTR(response);
        method->flags = flags;
        method->described = true;
        return 0;
}

static bool is_type(const char *type) {
        return !type || utf8_is_valid(type, strlen(type));
}

int methods_describe(Methods *methods, const char *name, const char *request_type, const char *response_type,
                     unsigned flags) {
        Method *method = find(methods, name);

        if (!is_type(request_type) || !is_type(response_type) ||
            flags & ~(unsigned) (BATON_METHOD_CLIENT_STREAMS | BATON_METHOD_SERVER_STREAMS))
                return -EINVAL;
        return method ? describe(method, request_type, response_type, flags) : -ENOENT;
}

int methods_set_health(Methods *methods, const char *service, bool serving) {
        size_t length = service ? strlen(service) : 0;
        Health *health;

        service = service ?: "";
        if (!utf8_is_valid(service, length))
                return -EINVAL;
        HASH_FIND_STR(methods->health, service, health);
        if (health) {
                health->serving = serving;
                return 0;
        }
        health = calloc(1, sizeof(*health) + length + 1);
        if (!health)
                return -ENOMEM;
        memcpy(health->service, service, length);
        health->serving = serving;
        HASH_ADD_STR(methods->health, service, health);
        if (!health->hh.tbl) {
                free(health);
                return -ENOMEM;
        }
        return 0;
}

void methods_call(Methods *methods, Connection *connection, Call *call) {
        const char *name = call_envelope(call)->method;
        Method *method = find(methods, name);

        if (method)
                connection_accept(connection, call, method->function, method->userdata);
        else if (methods->fallback && !method_is_builtin(name))
                connection_accept(connection, call, methods->fallback, methods->fallback_userdata);
        else
                (void) call_fail(call, STATUS_UNIMPLEMENTED, "no such method: %s", name);
}

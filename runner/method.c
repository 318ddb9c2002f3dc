/* SPDX-License-Identifier: Apache-2.0 */

/* Methods: calls of one method mostly come in a row, so the one found last is looked at first. */

#include "runner/method.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"

static void method_free(Method *method) {
        free(method->request_type);
        free(method->response_type);
        free(method);
}

void methods_deinit(Methods *methods) {
        Method *method, *next;

        HASH_ITER (hh, methods->table, method, next) {
                HASH_DEL(methods->table, method);
                method_free(method);
        }
        methods->recent = NULL;
}

Method *methods_find(Methods *methods, const char *name) {
        Method *method = methods->recent;

        if (method && strcmp(method->name, name) == 0)
                return method;
        HASH_FIND_STR(methods->table, name, method);
        methods->recent = method;
        return method;
}

int methods_add(Methods *methods, const char *name, baton_method_fn function, void *userdata) {
        size_t length = strlen(name);
        Method *method;

        if (methods_find(methods, name))
                return -EEXIST;
        method = calloc(1, sizeof(*method) + length + 1);
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

/* copy_type() - NULL for raw bytes. */
static int copy_type(const char *type, char **ret_copy) {
        *ret_copy = type && *type ? strdup(type) : NULL;
        return type && *type && !*ret_copy ? -ENOMEM : 0;
}

int method_describe(Method *method, const char *request_type, const char *response_type, unsigned flags) {
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

bool methods_have_service(const Methods *methods, const char *service) {
        size_t length = strlen(service);

        for (const Method *method = methods->table; method; method = method->hh.next)
                if (strncmp(method->name, service, length) == 0 && method->name[length] == '/')
                        return true;
        return false;
}

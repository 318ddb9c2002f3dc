#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The application's methods, by name, and what is known of them. */

#include <stdbool.h>

#include "baton/rpc.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define METHOD_NAME_MAX 255u

typedef struct Method Method;

struct Method {
        UT_hash_handle hh;
        baton_method_fn function;
        void *userdata;
        bool described;
        char *request_type, *response_type; /* NULL: raw bytes */
        unsigned flags;                     /* BATON_METHOD_... */
        char name[];
};

/* Null value: zeroed. */
typedef struct Methods {
        Method *table;  /* uthash, in the order in which they were added */
        Method *recent; /* found last; NULL: none */
} Methods;

void methods_deinit(Methods *methods);

/* methods_find() - NULL: there is none. */
Method *methods_find(Methods *methods, const char *name);

/* methods_add() - 0, -EEXIST, -ENOMEM. The name is valid. */
int methods_add(Methods *methods, const char *name, baton_method_fn function, void *userdata);

/* method_describe() - both types are copied; NULL or "": raw bytes. 0 or -ENOMEM. */
int method_describe(Method *method, const char *request_type, const char *response_type, unsigned flags);

/* methods_have_service() - whether one is named "@service/...". */
bool methods_have_service(const Methods *methods, const char *service);

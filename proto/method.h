#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The application's methods, by name, and what is known of them; what it says of its health. Of a runner, or a client. */

#include <stdbool.h>

#include "proto/handle.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define METHOD_NAME_MAX 255u
#define METHOD_BUILTIN  "baton." /* how names begin that are the library's */

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

/* What the application has said of a service. */
typedef struct Health {
        UT_hash_handle hh;
        bool serving;
        char service[]; /* "": the whole */
} Health;

/* Null value: zeroed. */
typedef struct Methods {
        Method *table;  /* uthash, in the order in which they were added */
        Method *recent; /* found last; NULL: none */
        baton_method_fn fallback;
        void *fallback_userdata;
        Health *health; /* uthash by service */
} Methods;

void methods_deinit(Methods *methods);

/* method_is_builtin() - whether a method of that name is the library's. */
bool method_is_builtin(const char *name);

/* methods_add() - 0; -EINVAL: no name for a method, or no function; -EPERM: a name of the library's; -EEXIST; -ENOMEM. */
int methods_add(Methods *methods, const char *name, baton_method_fn function, void *userdata);

/*
 * methods_describe() - both types are copied; NULL or "": raw bytes. 0; -ENOENT; -EINVAL: text that is no UTF-8, or flags
 * that are none of BATON_METHOD_...; -ENOMEM.
 */
int methods_describe(Methods *methods, const char *name, const char *request_type, const char *response_type,
                     unsigned flags);

/* methods_set_health() - of @service, NULL or "": the whole. 0; -EINVAL: no UTF-8; -ENOMEM. */
int methods_set_health(Methods *methods, const char *service, bool serving);

/* methods_call() - hands a call to its method, or fails it. */
void methods_call(Methods *methods, Connection *connection, Call *call);

/* ---- inspection.c ---- */

/*
 * inspection_call() - answers baton.Runner/Ping, baton.Health/Check or baton.Reflection/List. False: it is none of them,
 * and nothing was done. @serving: whether calls of the application's methods are taken at all.
 */
bool inspection_call(const Methods *methods, bool serving, Call *call);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of libbaton's runner half share: runner.c (the object, its loop and its methods), lifecycle.c (the service's life: baton.Runner/...), log-queue.c (records on their way to the supervisor).
 */

#include <stdatomic.h>
#include <stdbool.h>

#include "baton/runner.h"
#include "proto/handle.h"
#include "proto/service.h"
#include "runner/log-queue.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

typedef struct baton_runner Runner;
typedef struct Method Method;

#define RUNNER_REASON_SIZE 512

struct Method {
        UT_hash_handle hh;
        baton_method_fn function;
        void *userdata;
        char name[];
};

/* The service's state, and the event that is being carried out. */
typedef struct Lifecycle {
        ServiceState state;
        uint64_t last_event; /* id of the last one carried out; 0: none */
        bool pending;        /* one is under way, with: */
        ServiceEvent event;
        ServiceState next;
        uint64_t id;
        Call *call; /* who waits for it; NULL: gone */
} Lifecycle;

struct baton_runner {
        Endpoint *endpoint;
        Handles *handles;
        Connection *supervisor;

        Method *methods; /* uthash by name */
        Method *recent;  /* found last; NULL: none */
        baton_method_fn fallback;
        void *fallback_userdata;

        Lifecycle life;
        LogQueue log;

        void (*on_renewal)(Runner *runner, void *userdata);
        void *on_renewal_userdata;
        void (*on_channel)(Runner *runner, enum baton_channel channel, void *userdata);
        void *on_channel_userdata;

        atomic_bool quit;
        bool leaving; /* the service has stopped for good */
        bool ended;
        int result; /* of dispatch, once ended */
        char reason[RUNNER_REASON_SIZE];
};

/* ---- lifecycle.c ---- */

/* lifecycle_call() - a call of a method "baton.…". */
void lifecycle_call(Runner *runner, Call *call);

/* lifecycle_is_serving() - whether calls of the application's methods are taken. */
bool lifecycle_is_serving(const Runner *runner);

/* lifecycle_drained() - no call to us is open: what waits for that goes on. */
void lifecycle_drained(Runner *runner);

/* lifecycle_free() - forgets who waits; the peer is gone, its calls are not. */
void lifecycle_free(Runner *runner);

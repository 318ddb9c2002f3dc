#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Figures about supervisor and runners, as OpenMetrics 1.0 text; and where anybody may read them over HTTP. */

#include "common/macro.h"

typedef struct Metrics Metrics;
typedef struct Supervisor Supervisor;

enum {
        METRICS_CLIENTS_MAX = 16,   /* at once; more wait in the listener's queue */
        METRICS_REQUEST_MAX = 8192, /* bytes of a request's head */
};

#define METRICS_TIMEOUT_US (10 * USEC_PER_SEC) /* for request and answer together */
#define METRICS_LINGER_US  (2 * USEC_PER_SEC)  /* from the answer to the client's end */

/* metrics_text() - the caller's to free(); NULL: no memory. */
char *metrics_text(const Supervisor *supervisor);

/*
 * metrics_new() - listens at @address: "127.0.0.1:9100", "[::1]:9100", or the path of a unix socket, which replaces one that
 * nobody is behind. 0, or a negative errno with one line in the log.
 */
int metrics_new(Metrics **ret_metrics, Supervisor *supervisor, const char *address);

/* metrics_free() - closes everything. Accepts NULL, returns NULL. */
Metrics *metrics_free(Metrics *metrics);
DEFINE_CLEANUP(Metrics *, metrics_free);

/* metrics_adopt() - on a listener at @address that is there already, taken on every path. 0 or -ENOMEM. */
int metrics_adopt(Metrics **ret_metrics, Supervisor *supervisor, const char *address, int listener_fd_consume);
/* metrics_listener() - borrowed. */
int metrics_listener(const Metrics *metrics);

/* metrics_address() - as it was given. */
const char *metrics_address(const Metrics *metrics);

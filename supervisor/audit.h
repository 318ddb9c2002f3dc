#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Who changed what: one line of the log, and one event, for each command that changes something. */

#include <sys/socket.h>

#include "proto/peer.h"
#include "supervisor/events.h"

enum {
        AUDIT_WHO_SIZE = 64,
        AUDIT_WHAT_SIZE = 160,
};

/* audit_who() - "uid 1000, pid 4711 (baton)", the name of the program as it is now. Returns @text. */
const char *audit_who(const struct ucred *client, char text[AUDIT_WHO_SIZE]);

/*
 * audit_call() - tells when @call is ended, how: @who and @what are copied. No memory: it tells at once, without the end.
 */
void audit_call(Events *events, Call *call, const char *who, const char *what);

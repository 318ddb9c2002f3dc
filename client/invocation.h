#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One call of a runner, supervised or over a lane of our own, and what came back, kept. */

#include "client/control.h"

/* Null value: zeroed. It must not move while it runs. */
typedef struct Invocation {
        Endpoint *endpoint;
        Call *call; /* while it runs */
        bool done;
        ControlFailure failure;    /* status OK: none */
        Baton__Envelope *envelope; /* of the answer: type, metadata; NULL: there is none */
        uint8_t *payload;          /* never NULL with status OK */
        size_t size;
} Invocation;

/* invocation_type() - full name of the answer's message; "": raw bytes. */
const char *invocation_type(const Invocation *invocation);

/*
 * invocation_begin() - calls @peer, which @endpoint hosts. Nothing is returned: what fails at once is found in @invocation like what fails
 * later. Functions that take items get @invocation as their userdata.
 */
void invocation_begin(Invocation *invocation, Endpoint *endpoint, Peer *peer, const CallParameters *parameters);

/* invocation_begin_supervised() - the same through the supervisor, to the runner @name. */
void invocation_begin_supervised(Invocation *invocation, Control *control, const char *name,
                                 const CallParameters *parameters);

/* invocation_wait() - until it is done: 0, whatever its status; -EINTR; or an errno of the endpoint. */
int invocation_wait(Invocation *invocation, const Control *control);

/* invocation_deinit() - cancels the call if it still runs, and frees what it holds. The result is its null value. */
void invocation_deinit(Invocation *invocation);

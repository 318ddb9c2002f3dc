#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What `baton call' prints: the answer for people, or one JSON object for programs, also when there is no answer. */

#include "client/control.h"
#include "client/options.h"

typedef struct json_t json_t;

/* call_output_answer() - of a call that is done with OK. 0; -EBADMSG: the answer says it is values and is not; -EPIPE, ... */
int call_output_answer(const CallOptions *options, const ControlCall *invocation, uint64_t time_us);

/*
 * call_output_frame() - what every JSON object begins with: status, code, time_us. NULL: no memory. call_output_json() -
 * the object is written, and freed. 0, -ENOMEM (also of NULL), -EPIPE, ...
 */
json_t *call_output_frame(Status status, uint64_t time_us);
int call_output_json(json_t *all_consume);

/* call_output_exit() - {"how": "exited", "status": 3}. NULL: no memory. */
json_t *call_output_exit(const ControlExit *how);

/*
 * call_output_details() - what is known of the runner that did not start, or ended: reason, exit, last_output. NULL: no
 * memory.
 */
json_t *call_output_details(const ControlFailure *failure);

/*
 * call_output_failure() - the JSON object of a call, or start, that failed; @envelope of its answer, or NULL. 0, -EPIPE,
 * ...
 */
int call_output_failure(const ControlFailure *failure, const Baton__Envelope *envelope, uint64_t time_us);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What `baton call' prints: the answer for people, or one JSON object for programs, also when there is no answer. */

#include "client/control.h"
#include "client/options.h"

/* call_output_answer() - of a call that is done with OK. 0; -EBADMSG: the answer says it is values and is not; -EPIPE, ... */
int call_output_answer(const CallOptions *options, const ControlCall *call, uint64_t time_us);

/* call_output_failure() - the JSON object of a call, or start, that failed. 0, -EPIPE, ... */
int call_output_failure(const ControlFailure *failure, uint64_t time_us);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The supervised call: a client's, carried to a runner and back. */

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/runner.h"

/* relay_call() - takes @outer; it is answered with what @runner answers, or with what became of the runner. */
void relay_call(Call *outer, const Baton__Control__CallRequest *request, Runner *runner);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Logs: lines of a runner's history as the answer to a call, waited for if need be. */

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/runner.h"

/* logs_call() - takes @call. */
void logs_call(Call *call, const Baton__Control__LogsRequest *request, Runner *runner);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What clients are told about the end of a runner: one line for people, and the same as a typed detail. */

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/instance.h"

void report_exit(ExitStatus exit, Baton__Control__Exit *ret_exit);

/* report_start_failure() - ends @call: UNAVAILABLE, `runner NAME: start failed ...', a StartFailure. */
void report_start_failure(Call *call, const Runner *runner);

/*
 * report_ended() - ends @call with @status, `runner NAME: ' and @what (NULL: how it ended), and a RunnerEnded.
 */
void report_ended(Call *call, Instance *instance, Status status, const char *what);

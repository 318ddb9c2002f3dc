#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What a client wants started: checked, and as a specification of our own. */

#include "proto/control.pb-c.h"
#include "supervisor/instance.h"

/* start_request_check() - what is wrong with it, one line, or NULL. */
const char *start_request_check(const Baton__Control__StartRequest *request);

/* start_request_spec() - of a request that was checked; the caller's to instance_spec_deinit(). 0 or -ENOMEM. */
int start_request_spec(const Baton__Control__StartRequest *request, InstanceSpec *ret_spec);

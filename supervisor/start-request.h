#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What a client wants started: checked, and as a specification of our own. */

#include "proto/control.pb-c.h"
#include "supervisor/config.h"

/* start_request_check() - what is wrong with it and the @n_fds descriptors that came along: one line, or NULL. */
const char *start_request_check(const Baton__Control__StartRequest *request, size_t n_fds);

/*
 * start_request_config() - of a request that was checked, as the configuration of a transient runner named @name, with one
 * reference. 0 or -ENOMEM.
 */
int start_request_config(const Baton__Control__StartRequest *request, const char *name, RunnerConfig **ret_config);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* How a runner finds the supervisor that started it. */

#define BOOTSTRAP_VARIABLE "BATON_BOOTSTRAP"

/*
 * bootstrap_connect() - our lane: a connection to the socket @path, or with NULL to $BATON_BOOTSTRAP, which is then removed
 * from the environment. 0; -ENOKEY: the variable is not set; -ENAMETOOLONG; or the errno of what could not be done. The
 * path may be longer than an address holds. Failures are said on standard error.
 */
int bootstrap_connect(const char *path, int *ret_fd);

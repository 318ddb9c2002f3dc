#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One control connection: the methods of baton.Control, for the private client. */

#include "proto/peer.h"

typedef struct Control Control;
typedef struct Supervisor Supervisor;

/* control_new() - on @lane_fd_consume, taken on every path. Its end stops the supervisor. 0, -EMFILE, -ENOMEM. */
int control_new(Control **ret_control, Supervisor *supervisor, int lane_fd_consume);

/* control_free() - without a word to the client. Accepts NULL, returns NULL. */
Control *control_free(Control *control);

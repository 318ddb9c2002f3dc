#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One control connection: the methods of baton.Control, for whoever is at its other end. */

#include "proto/peer.h"
#include "supervisor/role.h"

typedef struct Control Control;
typedef struct Supervisor Supervisor;

/* Of a connection that was accepted. */
typedef struct ControlClient {
        struct ucred credentials;
        Role role;
        void (*ended)(Control *control, void *userdata); /* it is over, and to be freed */
        void *userdata;
} ControlClient;

/*
 * control_new_private() - on @lane_fd_consume, of which the keeper has a duplicate: role admin, and its end stops the
 * supervisor. control_new() - of a client of the control socket. Both take the lane on every path. 0, -EMFILE, -ENOMEM.
 */
int control_new_private(Control **ret_control, Supervisor *supervisor, int lane_fd_consume);
int control_new(Control **ret_control, Supervisor *supervisor, int lane_fd_consume, const ControlClient *client);

/* control_refuse() - tells whoever is at the other end why there will be no connection, and closes it. */
void control_refuse(Supervisor *supervisor, int lane_fd_consume, Status status, const char *format, ...)
        _printf_(4, 5);

/* control_free() - without a word to the client. Accepts NULL, returns NULL. */
Control *control_free(Control *control);

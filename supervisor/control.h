#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* One control connection: the methods of baton.Control, for whoever is at its other end. */

#include "proto/peer-save.h"
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

/*
 * control_restore() - a client's connection that has come from the predecessor, see peer_restore(). The errors of that; the
 * reason is logged. control_go_on() - and a call in it that waits; @method without `baton.Control/'; @begun and @request as
 * the snapshot has them. False: it is none that can be called so, and was not touched.
 */
int control_restore(Control **ret_control, Supervisor *supervisor, const ControlClient *client,
                    const Baton__Handover__Peer *state, const char *prefix, Manifest *manifest);
/*
 * control_restore_again() - before control_go_on() of any call, the same with a later state. Descriptors that @manifest lacks
 * are those it has. The errors of peer_restore(); it has no peer then.
 */
int control_restore_again(Control *control, const Baton__Handover__Peer *state, const char *prefix,
                          Manifest *manifest);
bool control_go_on(Control *control, Call *call, const char *method, bool begun, const uint8_t *request, size_t size);

/* control_method() - the name of each that there is, from number 0 on, without `baton.Control/'; NULL after the last. */
const char *control_method(size_t number);

/* control_peer(), control_client() - of a connection that lives. */
Peer *control_peer(const Control *control);
const ControlClient *control_client(const Control *control);
/* control_number() - never another connection's, whoever serves; control_set_number() - of one that was restored. */
uint32_t control_number(const Control *control);
void control_set_number(Control *control, uint32_t number);

/* control_refuse() - tells whoever is at the other end why there will be no connection, and closes it. */
void control_refuse(Supervisor *supervisor, int lane_fd_consume, Status status, const char *format, ...)
        _printf_(4, 5);

/* control_free() - without a word to the client. Accepts NULL, returns NULL. */
Control *control_free(Control *control);

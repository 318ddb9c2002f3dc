#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket: who connects becomes a control connection with a role, or is told why not. */

#include <stdbool.h>
#include <stdint.h>

#include "proto/peer-save.h"
#include "supervisor/role.h"

typedef struct Listener Listener;
typedef struct ListenerCounts ListenerCounts;
typedef struct Supervisor Supervisor;

enum {
        LISTENER_CLIENTS_MAX = 512,     /* connections at once ... */
        LISTENER_RESERVED = 32,         /* of which so many only for role admin */
        LISTENER_CLIENTS_PER_USER = 64, /* of one user that is not admin */
};

struct ListenerCounts {
        uint32_t clients;
        uint64_t accepted, refused; /* ever */
};

/* listener_new() - on the listening socket @fd_consume, taken on every path. 0 or -ENOMEM. */
int listener_new(Listener **ret_listener, Supervisor *supervisor, int fd_consume);

/* listener_free() - ends all its connections, without a word. Accepts NULL, returns NULL. */
Listener *listener_free(Listener *listener);

/* listener_set_policy() - who has which role, of connections from now on. Until then: root and our own user. */
void listener_set_policy(Listener *listener, const RolePolicy *policy);

/*
 * listener_restore() - a client of the predecessor's, see control_restore(). listener_discard() - which is there no more.
 * listener_set_counts() - and how many there were.
 * listener_next_client() - one after the other, beginning with NULL.
 */
typedef struct Control Control;
typedef struct ListenerClient ListenerClient;
int listener_restore(Listener *listener, const struct ucred *who, Role role, const Baton__Handover__Peer *state,
                     const char *prefix, Manifest *manifest, Control **ret_control);
void listener_discard(Listener *listener, const Control *control);
void listener_set_counts(Listener *listener, uint64_t accepted, uint64_t refused);
ListenerClient *listener_next_client(const Listener *listener, const ListenerClient *client);
Control *listener_client_control(const ListenerClient *client);

/* listener_counts() - zeroes of a NULL one. */
ListenerCounts listener_counts(const Listener *listener);

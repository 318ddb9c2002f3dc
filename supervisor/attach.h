#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Attach: a client gets a lane of its own to a runner. */

#include <sys/socket.h>

#include "proto/control.pb-c.h"
#include "proto/peer.h"
#include "supervisor/instance.h"

#define ATTACH_MAX_CLIENTS 64u /* at once, where the start says nothing else */

/* attach_call() - takes @call. @client is who asks, as the kernel says; @software what its Hello says. */
void attach_call(Call *call, Instance *instance, const struct ucred *client, const char *software);

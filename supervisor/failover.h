#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Failover: what takes the place of a native instance that has died goes on from the last checkpoint, and its clients'
 * connections are renewed. When there is one follows from the checkpoint alone: one that has ended as it was to leaves none.
 */

#include <stdbool.h>

typedef struct Give Give;
typedef struct Instance Instance;
typedef struct Renewal Renewal;
typedef struct Runner Runner;

/* failover_is_due() - whether @instance, whose service has not begun, is to take over from a checkpoint. */
bool failover_is_due(const Instance *instance);

/*
 * failover_give() - begins to give the last checkpoint to @instance, whose Takeover @ret_socket is for. 0; -ENOENT: there is
 * none; -EBUSY; -EMFILE, -ENOMEM.
 */
int failover_give(Instance *instance, int *ret_socket);

/* failover_renew_clients() - those that were attached to the one before. */
void failover_renew_clients(Instance *instance);

/* failover_is_under_way() - with something that cannot cross in a takeover. */
bool failover_is_under_way(const Instance *instance);

/* failover_end() - @instance needs nothing of that any more. */
void failover_end(Instance *instance);

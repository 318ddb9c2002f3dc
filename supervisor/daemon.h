#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Daemon: how a supervisor begins, and begins again. What the keeper tells it, the configuration, the control socket, in
 * their order; and the configuration anew, when somebody asks for that.
 */

#include "supervisor/keeper-link.h"
#include "supervisor/recovery.h"
#include "supervisor/supervisor.h"

/*
 * daemon_new() - the strings of @options must stay. With a private client all that is done is to say that it serves. 0 or
 * -ENOMEM.
 */
int daemon_new(Daemon **ret_daemon, Supervisor *supervisor, const SupervisorOptions *options);

/* daemon_free() - accepts NULL, returns NULL. */
Daemon *daemon_free(Daemon *daemon);

/* The keeper's words; see KeeperLinkHandlers. */
void daemon_slot(Daemon *daemon, const KeeperSlot *slot, int pidfd_consume);
void daemon_stored(Daemon *daemon, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd_consume);
void daemon_gone(Daemon *daemon, uint64_t instance, KeeperFdKind kind, uint64_t tag);
void daemon_loaded(Daemon *daemon);

/*
 * Of a successor, in place of daemon_loaded(): daemon_told() - the keeper has said END. daemon_follow() - as often as there is
 * more to go by, @is_final after the last END; see recovery_follow(). In the middle of what the keeper tells it does nothing:
 * a process is told before its descriptors. daemon_follow_again() - with the next one, as recovery_again().
 * daemon_followed() - everything is ours: what had to wait for that, and SERVING. daemon_tidy() - frees at most @max of what is
 * not needed any more then; false: nothing was left.
 */
void daemon_told(Daemon *daemon);
int daemon_follow(Daemon *daemon, bool is_final, char reason[RECOVERY_REASON_SIZE]);
void daemon_follow_again(Daemon *daemon, uint64_t instance);
void daemon_followed(Daemon *daemon);
bool daemon_tidy(Daemon *daemon, unsigned max);

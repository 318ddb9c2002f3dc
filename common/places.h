#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Places: where a supervisor keeps its things, by the same rules in every program, so that a client finds it. Nothing is
 * created or looked at here, nothing is allocated.
 *
 *   runtime   option; root: /run/baton; else $XDG_RUNTIME_DIR/baton; else /tmp/baton-UID
 *   socket    the runtime directory's `control' where that was named by option; else $BATON_SOCKET; else its `control'
 *   state     option; $STATE_DIRECTORY (of a service manager: the first one); root: /var/lib/baton; else
 *             $XDG_STATE_HOME/baton; else ~/.local/state/baton
 *   log       option; $LOGS_DIRECTORY (the first one); root: /var/log/baton; else `log' in the state directory
 *
 * Options may be relative and are made absolute; variables that are not absolute paths are passed over.
 */

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PLACES_SOCKET_VARIABLE "BATON_SOCKET"

enum { PLACES_PATH_MAX = 4096 }; /* with the NUL */

/* All return 0; -ENAMETOOLONG; or the error of getcwd(). @option may be NULL. */
int places_runtime(const char *option, char path[PLACES_PATH_MAX]);
int places_socket(const char *runtime_option, char path[PLACES_PATH_MAX]);
int places_state(const char *option, char path[PLACES_PATH_MAX]);
int places_log(const char *option, const char *state, char path[PLACES_PATH_MAX]);

/*
 * places_address() - the address of the socket @path, of whatever length: one that is longer than an address goes through
 * /proc/self/fd of its directory, which is then open in @ret_directory and must stay so until bind() or connect(); else
 * that is -1. 0; -ENAMETOOLONG: its last part alone is too long; or the error of open().
 */
int places_address(const char *path, struct sockaddr_un *ret_address, int *ret_directory);

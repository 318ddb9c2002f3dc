#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Another program as the keeper, in the keeper's own process: what a client asks for. */

#include "supervisor/supervisor.h"

/* control_keeper_replaced() - the keeper's word: 0 and its release, or a negative errno and why nothing has changed. */
void control_keeper_replaced(Supervisor *supervisor, int result, const char *text);

/* control_keeper_free() - without a word to anybody. Accepts NULL, returns NULL. */
KeeperReplacement *control_keeper_free(KeeperReplacement *replacement);

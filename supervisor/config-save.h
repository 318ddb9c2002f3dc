#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One runner's configuration, written down for a successor where it is not that of the configuration that holds: of a
 * client's runner, of one that is being removed, of an instance that was started before a reload.
 */

#include "supervisor/config.h"
#include "supervisor/save.h"

/* runner_config_save() - 0 or -ENOMEM. */
int runner_config_save(const RunnerConfig *config, Baton__Snapshot__RunnerConfig **ret_message);

/* runner_config_restore() - one reference. 0; -EPROTO: it has no name, or no command; -ENOMEM. */
int runner_config_restore(const Baton__Snapshot__RunnerConfig *message, RunnerConfig **ret_config);

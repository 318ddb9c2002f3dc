/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Upgrade, whether there is anything to do: for whoever upgrades many, and goes on where it was stopped. The answer is read off
 * the runner and the file system; nothing is remembered of who has asked before.
 */

#include <errno.h>

#include "supervisor/program.h"
#include "supervisor/upgrade.h"

bool upgrade_is_configured(const Instance *instance) {
        const Runner *runner = instance->runner;

        return !instance->stale && runner_config_effect(instance->config, runner->config) == CONFIG_EFFECT_NONE;
}

void upgrade_outlook(const Runner *runner, UpgradeOutlook *ret_outlook) {
        const Instance *instance = runner->instance;
        const char *refusal;
        int error = 0;

        *ret_outlook = (UpgradeOutlook){ 0 };
        if (!instance || instance->over || runner->state != POLICY_UP)
                return;
        ret_outlook->program = instance->program == 0 || program_stamp_of(runner, runner->config) != instance->program;
        ret_outlook->configuration = !upgrade_is_configured(instance);
        refusal = upgrade_refusal(runner, &error);
        if (refusal && error == -EOPNOTSUPP)
                ret_outlook->cannot = refusal;
}

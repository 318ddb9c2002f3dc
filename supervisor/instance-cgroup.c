/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Instance, its cgroup, where the configuration has limits: made before the process, which moves into it by itself, killed
 * and removed at its end. Its path follows from the runner's name and the instance's number, so that nothing has to be
 * remembered, and a supervisor that adopted the instance finds it. Processes that are still on their way out keep it for a
 * moment: the next start of the runner sweeps it up.
 */

#include "supervisor/instance-internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/cgroup.h"

/* tree() - the supervisor's, looked for when it is first needed. NULL: there is none, see @error. */
static CgroupTree *tree(Supervisor *supervisor, char error[CGROUP_ERROR_SIZE]) {
        if (!supervisor->cgroups && cgroup_tree_new(&supervisor->cgroups, getppid(), error) < 0)
                return NULL;
        return supervisor->cgroups;
}

bool instance_enter_cgroup(Instance *instance, char **ret_procs) {
        char error[CGROUP_ERROR_SIZE] = "no memory";
        _cleanup_free_ char *path = NULL;
        CgroupTree *cgroups;

        *ret_procs = NULL;
        if (!instance->config->cgroup)
                return true;
        cgroups = tree(instance->supervisor, error);
        if (cgroups)
                cgroup_sweep(cgroups, instance->runner->name);
        if (cgroups &&
            cgroup_make(cgroups, instance->runner->name, instance->id, instance->config->cgroup, &path, error) == 0)
                *ret_procs = cgroup_procs_path(path);
        if (*ret_procs)
                return true;
        instance_fail(instance, INSTANCE_FAILURE_SYSTEM, ": %s", error);
        instance_doom(instance, RUNNER_CAUSE_START_FAILED, PROCESS_EVENT_FAILED);
        return false;
}

void instance_leave_cgroup(Instance *instance) {
        char error[CGROUP_ERROR_SIZE];
        _cleanup_free_ char *path = NULL;
        CgroupTree *cgroups;
        uint64_t n;

        if (!instance->config->cgroup)
                return;
        cgroups = tree(instance->supervisor, error);
        path = cgroups ? cgroup_path(cgroups, instance->runner->name, instance->id) : NULL;
        if (!path)
                return;
        if (instance->cause == RUNNER_CAUSE_ITSELF && cgroup_oom_kills(path, &n) && n > 0)
                instance->cause = RUNNER_CAUSE_OUT_OF_MEMORY;
        (void) cgroup_kill(path);
        (void) cgroup_remove(path);
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cgroups of version 2: one for each start of a runner whose configuration has limits, below the one that was delegated to
 * us. Nothing of this is touched for runners without.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/config.h"

typedef struct CgroupTree CgroupTree;

enum { CGROUP_ERROR_SIZE = 512 };

/*
 * cgroup_tree_new() - finds our own cgroup. @keeper, our parent, moves along with us when a controller has to be enabled.
 * 0; -ENOMEM; or another negative errno with one line in @error: version 2 is not mounted, or nothing was delegated to us.
 */
int cgroup_tree_new(CgroupTree **ret_tree, pid_t keeper, char error[CGROUP_ERROR_SIZE]);

/* cgroup_tree_new_at() - the same with @path as what was delegated: for tests, and for a supervisor that was told. */
int cgroup_tree_new_at(CgroupTree **ret_tree, const char *path, pid_t keeper, char error[CGROUP_ERROR_SIZE]);

/* cgroup_tree_free() - leaves all cgroups as they are. Accepts NULL, returns NULL. */
CgroupTree *cgroup_tree_free(CgroupTree *tree);
DEFINE_CLEANUP(CgroupTree *, cgroup_tree_free);

/* cgroup_path() - where the cgroup of that start is, or would be; the caller's to free. NULL: no memory. */
char *cgroup_path(const CgroupTree *tree, const char *name, uint64_t instance);

/*
 * cgroup_make() - the cgroup of that start, with @limits; its path is the caller's to free. What SpawnParameters want is its
 * file cgroup.procs: cgroup_procs_path(). 0; -ENOMEM; or another negative errno with one line in @error, and nothing is
 * left of it: a controller that is not there, a limit that the kernel refuses.
 */
int cgroup_make(CgroupTree *tree, const char *name, uint64_t instance, const ConfigCgroup *limits, char **ret_path,
                char error[CGROUP_ERROR_SIZE]);

/* cgroup_procs_path() - the caller's to free; NULL: no memory. */
char *cgroup_procs_path(const char *path);

/* cgroup_kill() - SIGKILL to all that is in it, however it was forked. 0; -ENOENT: a kernel before 5.14; another errno. */
int cgroup_kill(const char *path);

/* cgroup_oom_kills() - how many of its processes the kernel has killed for want of memory. False: that is not known. */
bool cgroup_oom_kills(const char *path, uint64_t *ret_n);

/* cgroup_is_populated() - whether a process lives in it. False also if it is gone. */
bool cgroup_is_populated(const char *path);

/* cgroup_remove() - 0, also if it is gone; -EBUSY: processes are still in it; another negative errno. */
int cgroup_remove(const char *path);

/* cgroup_sweep() - removes those of earlier starts of @name in which no process is left. */
void cgroup_sweep(const CgroupTree *tree, const char *name);

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cgroup: what was delegated to us is the cgroup that we were started in (Delegate=yes of systemd, or whoever chowned it).
 * A cgroup that hands controllers down may have no processes of its own, so before the first limit keeper and supervisor
 * move into a leaf of their own beside the runners'; a later supervisor, started there, takes its parent for the tree.
 *
 *     DELEGATED/baton.supervisor     keeper, supervisors
 *     DELEGATED/web.1:100000007      one start of runner web.1
 *
 * The number of the start is in the name, so that each has counters of its own, and a supervisor that follows another
 * finds what the one before it made. memory.oom.group is set: a runner that lost one of its processes to the kernel is
 * broken, and is restarted as one.
 *
 * Not done: version 1, whose controllers cannot be delegated safely. Where it has bound one, the refusal says so.
 */

#include "supervisor/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

#define LEAF "baton.supervisor"

typedef enum Controller {
        CONTROLLER_MEMORY,
        CONTROLLER_CPU,
        CONTROLLER_IO,
        CONTROLLER_PIDS,
        _CONTROLLER_N,
} Controller;

struct CgroupTree {
        char *path;
        pid_t keeper;
        bool enabled[_CONTROLLER_N]; /* for those below us */
};

static const char *const controller_names[] = {
        [CONTROLLER_MEMORY] = "memory", [CONTROLLER_CPU] = "cpu", [CONTROLLER_IO] = "io", [CONTROLLER_PIDS] = "pids"
};

static const struct {
        const char *file;
        Controller controller;
} limit_files[] = {
        [CONFIG_CGROUP_MEMORY_MAX] = { "memory.max", CONTROLLER_MEMORY },
        [CONFIG_CGROUP_MEMORY_HIGH] = { "memory.high", CONTROLLER_MEMORY },
        [CONFIG_CGROUP_MEMORY_LOW] = { "memory.low", CONTROLLER_MEMORY },
        [CONFIG_CGROUP_SWAP_MAX] = { "memory.swap.max", CONTROLLER_MEMORY },
        [CONFIG_CGROUP_CPU_MAX] = { "cpu.max", CONTROLLER_CPU },
        [CONFIG_CGROUP_CPU_WEIGHT] = { "cpu.weight", CONTROLLER_CPU },
        [CONFIG_CGROUP_IO_WEIGHT] = { "io.weight", CONTROLLER_IO },
        [CONFIG_CGROUP_PIDS_MAX] = { "pids.max", CONTROLLER_PIDS },
};

_Static_assert(ARRAY_SIZE(limit_files) == _CONFIG_CGROUP_N, "a file for each");

static _printf_(3, 4) int fail(char *error, int result, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(error, CGROUP_ERROR_SIZE, format, arguments);
        va_end(arguments);
        return result;
}

/* -------------------------------------------------------------------------------------------------------------- files */

static int write_text(const char *directory, const char *name, const char *text) {
        _cleanup_free_ char *path = NULL;
        _cleanup_fd_ int fd = -1;

        if (asprintf(&path, "%s/%s", directory, name) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* read_text() - a file of the kernel; cut at @size. */
static int read_text(const char *directory, const char *name, char *text, size_t size) {
        _cleanup_free_ char *path = NULL;
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        if (asprintf(&path, "%s/%s", directory, name) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, text, size - 1);
        text[MAX(n, 0)] = '\0';
        return n < 0 ? -errno : 0;
}

/* has_word() - among words with blanks between. */
static bool has_word(const char *text, const char *word) {
        size_t length = strlen(word);

        for (const char *p = text; (p = strstr(p, word)); p += length)
                if ((p == text || p[-1] == ' ') && strchr(" \n", p[length]))
                        return true;
        return false;
}

/* value_of() - the number behind @key in lines of "key number". */
static bool value_of(const char *text, const char *key, uint64_t *ret_value) {
        size_t length = strlen(key);

        for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
                if (strncmp(line, key, length) == 0 && line[length] == ' ')
                        return sscanf(line + length, " %" SCNu64, ret_value) == 1;
        return false;
}

/* --------------------------------------------------------------------------------------------------------------- tree */

/* find_mount() - where version 2 is mounted; the caller's to free. NULL: nowhere, or no memory. */
static char *find_mount(void) {
        FILE *mounts = fopen("/proc/self/mounts", "re");
        char line[1024], point[512], type[64], *found = NULL;

        while (mounts && !found && fgets(line, sizeof(line), mounts))
                if (sscanf(line, "%*s %511s %63s", point, type) == 2 && strcmp(type, "cgroup2") == 0)
                        found = strdup(point);
        if (mounts)
                (void) fclose(mounts);
        return found;
}

/* find_own() - our cgroup below the mount, "/x/y"; the caller's to free. */
static char *find_own(void) {
        FILE *cgroups = fopen("/proc/self/cgroup", "re");
        char line[1024], *found = NULL;

        while (cgroups && !found && fgets(line, sizeof(line), cgroups))
                if (strncmp(line, "0::/", 4) == 0)
                        found = strndup(line + 3, strcspn(line + 3, "\n"));
        if (cgroups)
                (void) fclose(cgroups);
        return found;
}

CgroupTree *cgroup_tree_free(CgroupTree *tree) {
        if (!tree)
                return NULL;
        free(tree->path);
        free(tree);
        return NULL;
}

static void cut_leaf(char *path) {
        size_t length = strlen(path), n = strlen("/" LEAF);

        while (length > 1 && path[length - 1] == '/')
                path[--length] = '\0';
        if (length > n && strcmp(path + length - n, "/" LEAF) == 0)
                path[length - n] = '\0';
}

int cgroup_tree_new_at(CgroupTree **ret_tree, const char *path, pid_t keeper, char error[CGROUP_ERROR_SIZE]) {
        _cleanup_(cgroup_tree_freep) CgroupTree *tree = calloc(1, sizeof(*tree));
        struct stat st;

        if (!tree)
                return -ENOMEM;
        tree->keeper = keeper;
        tree->path = strdup(path);
        if (!tree->path)
                return -ENOMEM;
        cut_leaf(tree->path);
        if (stat(tree->path, &st) < 0)
                return fail(error, -errno, "cgroup %s: %s", tree->path, strerror(errno));
        if (access(tree->path, W_OK) < 0)
                return fail(error, -errno, "cgroup %s is not delegated to us: %s; Delegate=yes in the unit does that",
                            tree->path, strerror(errno));
        *ret_tree = TAKE_PTR(tree);
        return 0;
}

int cgroup_tree_new(CgroupTree **ret_tree, pid_t keeper, char error[CGROUP_ERROR_SIZE]) {
        _cleanup_free_ char *mount = find_mount(), *own = find_own(), *path = NULL;

        if (!mount || !own)
                return fail(error, -EOPNOTSUPP, "limits need cgroups of version 2, and they are not mounted here");
        if (asprintf(&path, "%s%s", mount, strcmp(own, "/") == 0 ? "" : own) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        return cgroup_tree_new_at(ret_tree, path, keeper, error);
}

/* leave() - keeper and supervisor move into their leaf, since who hands down controllers may have no processes. */
static int leave(const CgroupTree *tree) {
        _cleanup_free_ char *leaf = NULL;
        const pid_t pids[] = { tree->keeper, getpid() };
        int r = 0;

        if (asprintf(&leaf, "%s/" LEAF, tree->path) < 0) {
                leaf = NULL;
                return -ENOMEM;
        }
        if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
                return -errno;
        for (size_t i = 0; i < ARRAY_SIZE(pids) && r == 0; i++) {
                char pid[16];

                (void) snprintf(pid, sizeof(pid), "%d", pids[i]);
                r = pids[i] > 0 ? write_text(leaf, "cgroup.procs", pid) : 0;
        }
        return r;
}

/* enable() - the controller for the cgroups below ours. */
static int enable(CgroupTree *tree, Controller controller, char *error) {
        const char *name = controller_names[controller];
        char text[512], word[16];
        int r = read_text(tree->path, "cgroup.controllers", text, sizeof(text));

        if (r < 0)
                return fail(error, r, "cgroup %s: cgroup.controllers: %s", tree->path, strerror(-r));
        if (!has_word(text, name))
                return fail(error, -EOPNOTSUPP,
                            "cgroup %s has no controller %s: not delegated, or in use by cgroups of version 1",
                            tree->path, name);
        (void) snprintf(word, sizeof(word), "+%s", name);
        r = write_text(tree->path, "cgroup.subtree_control", word);
        if (r == -EBUSY) {
                r = leave(tree);
                if (r == 0)
                        r = write_text(tree->path, "cgroup.subtree_control", word);
        }
        if (r == -EBUSY)
                return fail(error, r, "cgroup %s: other processes are in it, so no limits can be set below it",
                            tree->path);
        if (r < 0)
                return fail(error, r, "cgroup %s: enabling controller %s: %s", tree->path, name, strerror(-r));
        tree->enabled[controller] = true;
        return 0;
}

/* ------------------------------------------------------------------------------------------------------ of one start */

char *cgroup_path(const CgroupTree *tree, const char *name, uint64_t instance) {
        char *path;

        return asprintf(&path, "%s/%s:%" PRIx64, tree->path, name, instance) < 0 ? NULL : path;
}

char *cgroup_procs_path(const char *path) {
        char *procs;

        return asprintf(&procs, "%s/cgroup.procs", path) < 0 ? NULL : procs;
}

static int set_limits(const char *path, const ConfigCgroup *limits, char *error) {
        bool memory = false;

        for (unsigned i = 0; i < _CONFIG_CGROUP_N; i++) {
                int r = limits->values[i] ? write_text(path, limit_files[i].file, limits->values[i]) : 0;

                if (r < 0)
                        return fail(error, r, "cgroup %s: %s to %s: %s", path, limit_files[i].file, limits->values[i],
                                    strerror(-r));
                memory |= limits->values[i] && limit_files[i].controller == CONTROLLER_MEMORY;
        }
        if (memory)
                (void) write_text(path, "memory.oom.group", "1"); /* of Linux 4.19; without it one process is killed */
        return 0;
}

int cgroup_make(CgroupTree *tree, const char *name, uint64_t instance, const ConfigCgroup *limits, char **ret_path,
                char error[CGROUP_ERROR_SIZE]) {
        _cleanup_free_ char *path = cgroup_path(tree, name, instance);
        int r = 0;

        if (!path)
                return -ENOMEM;
        for (unsigned i = 0; i < _CONFIG_CGROUP_N && r == 0; i++)
                if (limits->values[i] && !tree->enabled[limit_files[i].controller])
                        r = enable(tree, limit_files[i].controller, error);
        if (r < 0)
                return r;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                return fail(error, -errno, "cgroup %s: mkdir: %s", path, strerror(errno));
        r = set_limits(path, limits, error);
        if (r < 0) {
                (void) rmdir(path);
                return r;
        }
        *ret_path = TAKE_PTR(path);
        return 0;
}

int cgroup_kill(const char *path) {
        return write_text(path, "cgroup.kill", "1");
}

bool cgroup_oom_kills(const char *path, uint64_t *ret_n) {
        char text[512];

        return read_text(path, "memory.events", text, sizeof(text)) == 0 && value_of(text, "oom_kill", ret_n);
}

bool cgroup_is_populated(const char *path) {
        char text[256];
        uint64_t populated;

        return read_text(path, "cgroup.events", text, sizeof(text)) == 0 && value_of(text, "populated", &populated) &&
               populated > 0;
}

int cgroup_remove(const char *path) {
        return rmdir(path) == 0 || errno == ENOENT ? 0 : -errno;
}

void cgroup_sweep(const CgroupTree *tree, const char *name) {
        size_t length = strlen(name);
        DIR *directory = opendir(tree->path);
        struct dirent *entry;

        while (directory && (entry = readdir(directory)))
                if (strncmp(entry->d_name, name, length) == 0 && entry->d_name[length] == ':')
                        (void) unlinkat(dirfd(directory), entry->d_name, AT_REMOVEDIR);
        if (directory)
                (void) closedir(directory);
}

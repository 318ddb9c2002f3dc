/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cgroups. Those of the kernel, below the one that the test runs in, for what needs no controller: making, entering,
 * killing, removing, and refusing. A folder of plain files stands in for what needs one, since few machines that build
 * software hand controllers down: what is written into which file, and what is read.
 */

#include "supervisor/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/test.h"

static const ConfigCgroup no_limits;

/* ------------------------------------------------------------------------------------------------- a folder of files */

static void write_file(const char *directory, const char *name, const char *text) {
        char path[512];
        FILE *file;

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        file = fopen(path, "we");
        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static void assert_file(const char *directory, const char *name, const char *text) {
        char path[512], found[256] = "";
        FILE *file;

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        file = fopen(path, "re");
        assert_non_null(file);
        (void) fgets(found, sizeof(found), file);
        assert_int_equal(fclose(file), 0);
        assert_string_equal(found, text);
}

static void remove_folder(const char *path) {
        char command[600];

        (void) snprintf(command, sizeof(command), "rm -r '%s'", path);
        assert_int_equal(system(command), 0);
}

static void test_files(void **state) {
        static const char *const files[] = { "memory.max", "memory.high",      "memory.swap.max",
                                             "cpu.max",    "cpu.weight",       "io.weight",
                                             "pids.max",   "memory.oom.group", "cgroup.kill" };
        const ConfigCgroup limits = { .values = { [CONFIG_CGROUP_MEMORY_MAX] = "67108864",
                                                  [CONFIG_CGROUP_MEMORY_HIGH] = "max",
                                                  [CONFIG_CGROUP_SWAP_MAX] = "0",
                                                  [CONFIG_CGROUP_CPU_MAX] = "50000 100000",
                                                  [CONFIG_CGROUP_CPU_WEIGHT] = "10",
                                                  [CONFIG_CGROUP_IO_WEIGHT] = "20",
                                                  [CONFIG_CGROUP_PIDS_MAX] = "30" } };
        char folder[] = "test-cgroup-XXXXXX", error[CGROUP_ERROR_SIZE] = "", runner[64];
        _cleanup_(cgroup_tree_freep) CgroupTree *tree = NULL;
        _cleanup_free_ char *path = NULL, *procs = NULL;
        uint64_t n = 0;

        (void) state;
        assert_non_null(mkdtemp(folder));
        write_file(folder, "cgroup.controllers", "cpuset cpu io memory pids\n");
        write_file(folder, "cgroup.subtree_control", "");
        (void) snprintf(runner, sizeof(runner), "%s/web.1:1f", folder);
        assert_int_equal(mkdir(runner, 0755), 0); /* which the kernel would fill */
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                write_file(runner, files[i], "");

        assert_int_equal(cgroup_tree_new_at(&tree, folder, 0, error), 0);
        assert_int_equal(cgroup_make(tree, "web.1", 0x1f, &limits, &path, error), 0);
        assert_string_equal(path, runner);
        procs = cgroup_procs_path(path);
        assert_string_equal(procs + strlen(path), "/cgroup.procs");
        assert_file(path, "memory.max", "67108864");
        assert_file(path, "memory.high", "max");
        assert_file(path, "memory.swap.max", "0");
        assert_file(path, "memory.oom.group", "1");
        assert_file(path, "cpu.max", "50000 100000");
        assert_file(path, "cpu.weight", "10");
        assert_file(path, "io.weight", "20");
        assert_file(path, "pids.max", "30");
        assert_int_equal(cgroup_kill(path), 0);
        assert_file(path, "cgroup.kill", "1");

        assert_false(cgroup_oom_kills(path, &n));
        write_file(path, "memory.events", "low 0\nhigh 7\nmax 3\noom 2\noom_kill 4\noom_group_kill 1\n");
        assert_true(cgroup_oom_kills(path, &n));
        assert_int_equal(n, 4);
        assert_false(cgroup_is_populated(path));
        write_file(path, "cgroup.events", "populated 1\nfrozen 0\n");
        assert_true(cgroup_is_populated(path));
        remove_folder(folder);
        assert_int_equal(cgroup_remove(path), 0); /* it is gone */
}

static void test_refusals(void **state) {
        const ConfigCgroup limits = { .values = { [CONFIG_CGROUP_PIDS_MAX] = "30" } };
        char folder[] = "test-cgroup-XXXXXX", error[CGROUP_ERROR_SIZE] = "", text[256];
        _cleanup_(cgroup_tree_freep) CgroupTree *tree = NULL;
        char *path = NULL;

        (void) state;
        assert_int_equal(cgroup_tree_new_at(&tree, "/nowhere", 0, error), -ENOENT);
        assert_string_equal(error, "cgroup /nowhere: No such file or directory");
        assert_non_null(mkdtemp(folder));
        assert_int_equal(cgroup_tree_new_at(&tree, folder, 0, error), 0);
        assert_int_equal(cgroup_make(tree, "x", 1, &limits, &path, error), -ENOENT);
        (void) snprintf(text, sizeof(text), "cgroup %s: cgroup.controllers: No such file or directory", folder);
        assert_string_equal(error, text);
        write_file(folder, "cgroup.controllers", "cpu memory pidsx\n");
        assert_int_equal(cgroup_make(tree, "x", 1, &limits, &path, error), -EOPNOTSUPP);
        (void) snprintf(text, sizeof(text),
                        "cgroup %s has no controller pids: not delegated, or in use by cgroups of version 1", folder);
        assert_string_equal(error, text);
        write_file(folder, "cgroup.controllers", "pids\n");
        assert_int_equal(cgroup_make(tree, "x", 1, &limits, &path, error), -ENOENT);
        (void) snprintf(text, sizeof(text), "cgroup %s: enabling controller pids: No such file or directory", folder);
        assert_string_equal(error, text);
        write_file(folder, "cgroup.subtree_control", "");
        assert_int_equal(cgroup_make(tree, "x", 1, &limits, &path, error), -ENOENT);
        (void) snprintf(text, sizeof(text), "cgroup %s/x:1: pids.max to 30: No such file or directory", folder);
        assert_string_equal(error, text);
        assert_null(path);
        remove_folder(folder);
}

/* --------------------------------------------------------------------------------------------------- of the kernel */

static CgroupTree *own_tree(void) {
        char error[CGROUP_ERROR_SIZE];
        CgroupTree *tree = NULL;

        if (cgroup_tree_new(&tree, 0, error) < 0) {
                print_message("%s\n", error);
                skip();
        }
        return tree;
}

/* await_empty() - the kernel says when the last process is out. */
static void await_empty(const char *path) {
        struct pollfd pollfd = { .events = POLLPRI };
        char file[600], text[128];

        (void) snprintf(file, sizeof(file), "%s/cgroup.events", path);
        pollfd.fd = open(file, O_RDONLY | O_CLOEXEC);
        assert_true(pollfd.fd >= 0);
        while (pread(pollfd.fd, text, sizeof(text), 0) > 0 && cgroup_is_populated(path))
                (void) poll(&pollfd, 1, -1);
        fd_close(pollfd.fd);
}

static void test_kernel(void **state) {
        _cleanup_(cgroup_tree_freep) CgroupTree *tree = own_tree();
        _cleanup_free_ char *path = NULL, *procs = NULL;
        char error[CGROUP_ERROR_SIZE];
        int status, ready[2];
        pid_t pid;
        char byte;

        (void) state;
        assert_int_equal(cgroup_make(tree, "test", (uint64_t) getpid(), &no_limits, &path, error), 0);
        procs = cgroup_procs_path(path);
        assert_false(cgroup_is_populated(path));
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int fd = open(procs, O_WRONLY | O_CLOEXEC);

                if (fd < 0 || write(fd, "0", 1) != 1 || fork() < 0 || write(ready[1], "", 1) != 1)
                        _exit(1);
                (void) setsid(); /* which would take it out of its group */
                for (;;)
                        (void) pause();
        }
        assert_true(pid > 0);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_true(cgroup_is_populated(path));
        assert_int_equal(cgroup_remove(path), -EBUSY);
        assert_int_equal(cgroup_kill(path), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        await_empty(path);
        assert_int_equal(cgroup_remove(path), 0);
        assert_int_equal(access(path, F_OK), -1);
        fd_close(ready[0]);
        fd_close(ready[1]);
}

int main(void) {
        const struct CMUnitTest tests[] = { TEST(test_files), TEST(test_refusals), TEST(test_kernel) };

        return test_run(tests, ARRAY_SIZE(tests));
}

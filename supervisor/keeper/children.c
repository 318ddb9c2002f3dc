/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Children: a tree must be ended to the last process, those too that left their runner's group and were orphaned to the
 * keeper, which is a subreaper. The kernel lists them in /proc/self/task/N/children; where it was built without that
 * file, every process of /proc is asked for its parent. Nothing is allocated: both are read through buffers on the stack.
 *
 * A child of ours that is not reaped keeps its number, so a pid read here can be killed: only the keeper reaps, and it
 * does not do so between reading and killing.
 */

#include "supervisor/keeper/children.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/parse.h"

static void kill_number(const char *digits) {
        uint64_t pid;

        if (parse_u64(digits, INT32_MAX, &pid) == 0 && pid > 1)
                (void) kill((pid_t) pid, SIGKILL);
}

/* kill_listed() - each number in the file, which may be cut anywhere by the end of the buffer. */
static int kill_listed(int fd) {
        char buffer[4096], digits[24];
        size_t length = 0;
        ssize_t n;

        while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
                for (ssize_t i = 0; i < n; i++) {
                        if (buffer[i] != ' ') {
                                if (length < sizeof(digits) - 1)
                                        digits[length++] = buffer[i];
                                continue;
                        }
                        digits[length] = '\0';
                        kill_number(digits);
                        length = 0;
                }
        }
        digits[length] = '\0';
        kill_number(digits);
        return n < 0 ? -errno : 0;
}

/* is_child() - by /proc/PID/stat: `pid (name) state ppid`, where the name may hold anything, blanks and brackets too. */
static bool is_child(const char *pid) {
        char path[64], text[512], *p;
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        if (n <= 0)
                return false;
        text[n] = '\0';
        p = strrchr(text, ')');
        return p && strlen(p) > 4 && strtol(p + 4, NULL, 10) == getpid();
}

/* kill_scanned() - readdir() would allocate, so the system call itself. */
static int kill_scanned(int proc) {
        union {
                struct dirent64 entry;
                char bytes[4096];
        } buffer;
        long n;

        while ((n = syscall(SYS_getdents64, proc, &buffer, sizeof(buffer))) > 0) {
                for (long at = 0; at < n;) {
                        struct dirent64 *entry = (void *) (buffer.bytes + at);

                        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && is_child(entry->d_name))
                                kill_number(entry->d_name);
                        at += entry->d_reclen;
                }
        }
        return n < 0 ? -errno : 0;
}

int children_kill(void) {
        bool listed = feature_enabled(FEATURE_CHILDREN_FILE);
        _cleanup_fd_ int fd = -1;
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int) getpid());
        fd = open(listed ? path : "/proc", O_RDONLY | O_CLOEXEC | (listed ? 0 : O_DIRECTORY));
        if (fd < 0)
                return -errno;
        return listed ? kill_listed(fd) : kill_scanned(fd);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mounting. With the right to mount (CAP_SYS_ADMIN) it is one call; without it the setuid helper fusermount3 does it for
 * users and sends the descriptor back. Access is decided by the kernel (default_permissions), for all users where that is
 * allowed (allow_other).
 *
 * A mount whose process is gone for good is still there and says ENOTCONN: it is taken away before the new one is made.
 */

#include "runner/fuse/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cmsg.h"
#include "common/fd.h"

#define DEVICE "/dev/fuse"
#define TYPE   "fuse.baton"
#define HELPER "fusermount3"

enum {
        DEVICE_MAJOR = 10,
        DEVICE_MINOR = 229,
};

static int fail(char reason[MOUNT_REASON_SIZE], int error, const char *what, const char *which) {
        (void) snprintf(reason, MOUNT_REASON_SIZE, "%s %s: %s", what, which, strerror(-error));
        return error;
}

/* clear_point() - what is left of a mount before, and that it is a directory. */
static int clear_point(const char *point, char reason[MOUNT_REASON_SIZE]) {
        struct stat stat_of_it;

        while (stat(point, &stat_of_it) < 0) {
                if (errno != ENOTCONN)
                        return fail(reason, -errno, "cannot mount on", point);
                if (umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
                        return fail(reason, -errno, "cannot take away the dead mount on", point);
        }
        return S_ISDIR(stat_of_it.st_mode) ? 0 : fail(reason, -ENOTDIR, "cannot mount on", point);
}

static int mount_ourselves(const MountOptions *options, int device, char reason[MOUNT_REASON_SIZE]) {
        unsigned long flags = MS_NOSUID | MS_NODEV | (options->read_only ? MS_RDONLY : 0);
        char text[160];

        (void) snprintf(text, sizeof(text),
                        "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions,allow_other", device,
                        (unsigned) getuid(), (unsigned) getgid());
        if (mount(options->source, options->point, TYPE, flags, text) < 0)
                return fail(reason, -errno, "cannot mount on", options->point);
        return 0;
}

/* ---- without the right to ---- */

static pid_t start_helper(const MountOptions *options, int socket) {
        char number[16], text[512];
        pid_t pid;

        (void) snprintf(number, sizeof(number), "%d", socket);
        (void) snprintf(text, sizeof(text), "default_permissions,subtype=baton,fsname=%.400s%s", options->source,
                        options->read_only ? ",ro" : "");
        pid = fork();
        if (pid != 0)
                return pid;
        if (setenv("_FUSE_COMMFD", number, 1) == 0 && fcntl(socket, F_SETFD, 0) == 0)
                (void) execlp(HELPER, HELPER, "-o", text, "--", options->point, (char *) NULL);
        _exit(127);
}

static int mount_by_helper(const MountOptions *options, int *ret_device, char reason[MOUNT_REASON_SIZE]) {
        _cleanup_fd_ int ours = -1, theirs = -1, device = -1;
        int pair[2], status, r = fd_socketpair(SOCK_STREAM, pair);
        CmsgInfo info;
        char byte;
        pid_t pid;

        if (r < 0)
                return fail(reason, r, "cannot start", HELPER);
        ours = pair[0];
        theirs = pair[1];
        pid = start_helper(options, theirs);
        if (pid < 0)
                return fail(reason, -errno, "cannot start", HELPER);
        theirs = fd_close(theirs);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return fail(reason, -EPERM, "only root may mount here, and " HELPER " did not, on", options->point);
        /* It has ended, so what it sent is there. */
        if (cmsg_receive(ours, &byte, 1, &device, 1, &info) < 0 || device < 0)
                return fail(reason, -EPROTO, HELPER " sent no descriptor for", options->point);
        *ret_device = fd_take(&device);
        return 0;
}

int mount_open(const MountOptions *options, int *ret_device, char reason[MOUNT_REASON_SIZE]) {
        _cleanup_fd_ int device = -1;
        int r = clear_point(options->point, reason);

        if (r < 0)
                return r;
        device = open(DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (device < 0 && errno != EACCES)
                return fail(reason, -errno, "cannot open", DEVICE);
        r = device >= 0 ? mount_ourselves(options, device, reason) : -EPERM;
        if (r == -EPERM) {
                device = fd_close(device);
                r = mount_by_helper(options, &device, reason);
        }
        if (r == 0)
                *ret_device = fd_take(&device);
        return r;
}

bool mount_is_device(int fd) {
        struct stat stat;

        return fstat(fd, &stat) == 0 && S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(DEVICE_MAJOR, DEVICE_MINOR);
}

static int unmount_by_helper(const char *point) {
        int status;
        pid_t pid = fork();

        if (pid < 0)
                return -errno;
        if (pid == 0) {
                (void) execlp(HELPER, HELPER, "-u", "-z", "--", point, (char *) NULL);
                _exit(127);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int mount_close(const char *point) {
        if (umount2(point, UMOUNT_NOFOLLOW) == 0)
                return 0;
        if (errno == EBUSY && umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
                return 0;
        return errno == EPERM ? unmount_by_helper(point) : -errno;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Mounting and unmounting. See mount.c. */

#include <stdbool.h>

enum {
        MOUNT_REASON_SIZE = 512,
};

typedef struct MountOptions {
        const char *source; /* what df(1) and /proc/mounts show */
        const char *point;
        bool read_only;
} MountOptions;

/*
 * mount_open() - a new mount and its descriptor, non-blocking; INIT waits in it. 0, or a negative errno with one line in
 * @reason.
 */
int mount_open(const MountOptions *options, int *ret_device, char reason[MOUNT_REASON_SIZE]);

/* mount_is_device() - whether @fd, which another process has sent, is /dev/fuse. */
bool mount_is_device(int fd);

/*
 * mount_close() - unmounts. Requests are still made meanwhile, so somebody must serve them; where it is in use it is
 * taken out of the tree, and goes when the last user has. 0, or a negative errno.
 */
int mount_close(const char *point);

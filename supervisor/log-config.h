#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What a runner's configuration says about its log. Whoever keeps the structure owns the string, and outlives the log. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/log-line.h"

typedef struct LogConfig LogConfig;

enum {
        LOG_RING_SIZE_MIN = 64 * 1024,
        LOG_RING_SIZE_DEFAULT = 256 * 1024,
        LOG_RING_SIZE_MAX = 1024 * 1024 * 1024,
        LOG_KEEP_DEFAULT = 5,
        LOG_KEEP_MAX = 1000,
        LOG_MODE_DEFAULT = 0640,
};

/* Null value: LOG_CONFIG_NULL, the last lines in memory and no file. */
struct LogConfig {
        uint64_t ring_size; /* bytes of memory for the last lines, LOG_RING_SIZE_MIN to _MAX; 0: the default */

        char *directory;     /* absolute; where NAME.log is written; NULL: no file */
        uint64_t max_size;   /* bytes; a file that would grow beyond is rotated; 0: never for its size */
        uint64_t max_age_us; /* a file begun so long ago is rotated at the next line; 0: never for its age */
        uint32_t keep; /* rotated files kept, NAME.log.1 the youngest, up to LOG_KEEP_MAX; 0: a full one begins anew */
        mode_t mode;   /* of a new file; 0: the default */
        uid_t uid;     /* owner of a new file; -1: ours */
        gid_t gid;
        LogFormat format; /* of the file */

        bool park; /* when file or follower are behind the runner waits in write(); else lines are dropped */
};
#define LOG_CONFIG_NULL ((LogConfig){ .keep = LOG_KEEP_DEFAULT, .uid = (uid_t) -1, .gid = (gid_t) -1 })

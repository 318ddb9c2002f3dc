/* SPDX-License-Identifier: Apache-2.0 */

/* Rlimit: the one table of their names, for what people write and for what they read. */

#include "common/rlimit.h"

#include <stddef.h>
#include <string.h>
#include <sys/resource.h>

#include "common/macro.h"

static const struct {
        const char *name;
        int resource;
} limits[] = {
        { "as", RLIMIT_AS },           { "core", RLIMIT_CORE },         { "cpu", RLIMIT_CPU },
        { "data", RLIMIT_DATA },       { "fsize", RLIMIT_FSIZE },       { "locks", RLIMIT_LOCKS },
        { "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
        { "nofile", RLIMIT_NOFILE },   { "nproc", RLIMIT_NPROC },       { "rss", RLIMIT_RSS },
        { "rtprio", RLIMIT_RTPRIO },   { "rttime", RLIMIT_RTTIME },     { "sigpending", RLIMIT_SIGPENDING },
        { "stack", RLIMIT_STACK },
};

_Static_assert(ARRAY_SIZE(limits) == RLIM_NLIMITS, "each has a name");

const char *rlimit_name(int resource) {
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
                if (limits[i].resource == resource)
                        return limits[i].name;
        return "?";
}

int rlimit_by_name(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
                if (strcmp(limits[i].name, name) == 0)
                        return limits[i].resource;
        return -1;
}

const char *rlimit_by_index(unsigned index) {
        return index < ARRAY_SIZE(limits) ? limits[index].name : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Programs that a keeper is told to be followed by, and that are none. Which one this is says the name of its file:
 * `hangs' and `dies' in the rehearsal; `mute' says nothing; `turncoat' says READY, and then executes the one before, as a
 * keeper does that cannot go on; `starves' says READY, and the keeper can open nothing any more by then.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int turn_coat(char **argv) {
        int memfd, other;
        char option[64];

        if (sscanf(argv[1], "--rehearse=%d,%d", &memfd, &other) == 2)
                return write(other, "READY 9.9", 9) != 9;
        if (sscanf(argv[1], "--continue=%d,%d", &memfd, &other) != 2)
                return 1;
        (void) snprintf(option, sizeof(option), "--continue=%d", memfd);
        argv[1] = option;
        (void) execveat(other, "", argv, environ, AT_EMPTY_PATH);
        return 1;
}

static int starve(char **argv) {
        struct rlimit limit;
        int memfd, answer;

        if (sscanf(argv[1], "--rehearse=%d,%d", &memfd, &answer) != 2 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 1;
        limit.rlim_cur = 8; /* as many has whoever polls */
        if (prlimit(getppid(), RLIMIT_NOFILE, &limit, NULL) < 0)
                return 1;
        return write(answer, "READY 9.9", 9) != 9;
}

int main(int argc, char **argv) {
        char path[4096] = "";
        const char *name;

        if (argc < 2 || readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
                return 1;
        name = strrchr(path, '/') + 1;
        if (strcmp(name, "hangs") == 0)
                for (;;)
                        (void) pause();
        if (strcmp(name, "dies") == 0)
                abort();
        if (strcmp(name, "starves") == 0)
                return starve(argv);
        return strcmp(name, "turncoat") == 0 ? turn_coat(argv) : 0;
}

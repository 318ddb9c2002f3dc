/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The smallest supervisor there can be: N processes by vfork and exec, each started again when it ends. Nobody can ask it
 * anything; what a supervisor costs is counted from here.
 *
 *         floor-supervise N PROGRAM ARGUMENT...
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(char **argv) {
        pid_t pid = vfork();

        if (pid == 0) {
                (void) execv(argv[0], argv);
                _exit(127);
        }
        if (pid < 0) {
                perror("floor-supervise: vfork");
                exit(1);
        }
}

int main(int argc, char **argv) {
        long n = argc > 2 ? strtol(argv[1], NULL, 10) : 0;

        if (n < 1) {
                (void) fprintf(stderr, "usage: floor-supervise N PROGRAM ARGUMENT...\n");
                return 2;
        }
        for (long i = 0; i < n; i++)
                start(argv + 2);
        while (wait(NULL) > 0)
                start(argv + 2);
        return 0;
}

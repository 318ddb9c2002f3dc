/* SPDX-License-Identifier: Apache-2.0 */

/* Steps, told: one write at the end of the file for each, so that those of several processes stand in their order. */

#include "common/step.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/fd.h"

enum { NUMBER_MIN = 16 }; /* those below mean something to supervisors and runners */

/* The file stays open: a fault point may take away every descriptor that comes after it. */
static int open_file(void) {
        const char *path = secure_getenv("BATON_STEPS");
        int low = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
        int fd = low >= 0 ? fcntl(low, F_DUPFD_CLOEXEC, NUMBER_MIN) : -1;

        fd_close(low);
        return fd;
}

void step_note(const char *who, const char *step, pid_t subject) {
        static int file = -2;
        char line[128];
        int n = snprintf(line, sizeof(line), "%d %s %s %d\n", (int) getpid(), who, step, (int) subject);

        if (file == -2)
                file = open_file();
        if (file >= 0 && n > 0 && (size_t) n < sizeof(line))
                (void) !write(file, line, (size_t) n);
}

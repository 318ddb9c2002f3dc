/* SPDX-License-Identifier: Apache-2.0 */

/* Libexec: by exec, so that whoever started the command goes on watching the same process. */

#include "client/libexec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/exit-code.h"
#include "client/output.h"
#include "common/places.h"

int libexec_execute(const char *command, const char *program, char *const *arguments) {
        const char *directory = secure_getenv("BATON_LIBEXEC");
        char path[PLACES_PATH_MAX];
        int n;

        n = snprintf(path, sizeof(path), "%s/%s", directory && *directory ? directory : BATON_LIBEXECDIR, program);
        errno = ENAMETOOLONG;
        if (n > 0 && (size_t) n < sizeof(path))
                (void) execv(path, arguments);
        output_error("%s: cannot execute %s: %s; is baton installed whole? $BATON_LIBEXEC names another directory",
                     command, path, strerror(errno));
        return EXIT_CODE_BROKEN;
}

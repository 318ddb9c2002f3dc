/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Places: rules made of environment and user, written once. Whoever is set-user-ID does not trust its environment
 * (secure_getenv).
 */

#include "common/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"

static int print(char path[PLACES_PATH_MAX], const char *format, ...) _printf_(2, 3);
static int print(char path[PLACES_PATH_MAX], const char *format, ...) {
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(path, PLACES_PATH_MAX, format, arguments);
        va_end(arguments);
        return n >= 0 && n < PLACES_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* variable() - its value up to the first colon, in @ret_length, where that is an absolute path; or NULL. */
static const char *variable(const char *name, int *ret_length) {
        const char *value = secure_getenv(name);

        if (!value || *value != '/')
                return NULL;
        *ret_length = (int) strcspn(value, ":");
        return value;
}

static int absolute(const char *option, char path[PLACES_PATH_MAX]) {
        char directory[PLACES_PATH_MAX];

        if (*option == '/')
                return print(path, "%s", option);
        if (!getcwd(directory, sizeof(directory)))
                return -errno;
        return print(path, "%s/%s", directory, option);
}

int places_runtime(const char *option, char path[PLACES_PATH_MAX]) {
        const char *base;
        int length;

        if (option && *option)
                return absolute(option, path);
        if (geteuid() == 0)
                return print(path, "/run/baton");
        base = variable("XDG_RUNTIME_DIR", &length);
        if (base)
                return print(path, "%s/baton", base);
        return print(path, "/tmp/baton-%u", geteuid());
}

int places_socket(const char *runtime_option, char path[PLACES_PATH_MAX]) {
        bool named = runtime_option && *runtime_option;
        const char *socket = named ? NULL : secure_getenv(PLACES_SOCKET_VARIABLE);
        char runtime[PLACES_PATH_MAX];
        int r;

        if (socket && *socket)
                return absolute(socket, path);
        r = places_runtime(runtime_option, runtime);
        return r < 0 ? r : print(path, "%s/control", runtime);
}

int places_state(const char *option, char path[PLACES_PATH_MAX]) {
        const char *base;
        int length;

        if (option && *option)
                return absolute(option, path);
        base = variable("STATE_DIRECTORY", &length);
        if (base)
                return print(path, "%.*s", length, base);
        if (geteuid() == 0)
                return print(path, "/var/lib/baton");
        base = variable("XDG_STATE_HOME", &length);
        if (base)
                return print(path, "%s/baton", base);
        base = variable("HOME", &length);
        return print(path, "%s/.local/state/baton", base ? base : "");
}

int places_log(const char *option, const char *state, char path[PLACES_PATH_MAX]) {
        const char *base;
        int length;

        if (option && *option)
                return absolute(option, path);
        base = variable("LOGS_DIRECTORY", &length);
        if (base)
                return print(path, "%.*s", length, base);
        if (geteuid() == 0)
                return print(path, "/var/log/baton");
        return print(path, "%s/log", state);
}

int places_address(const char *path, struct sockaddr_un *ret_address, int *ret_directory) {
        const char *slash = strrchr(path, '/');
        char directory[PLACES_PATH_MAX];
        int fd, n;

        *ret_directory = -1;
        *ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
        if (strlen(path) < sizeof(ret_address->sun_path)) {
                (void) strcpy(ret_address->sun_path, path);
                return 0;
        }
        if (!slash || slash - path >= (ptrdiff_t) sizeof(directory))
                return -ENAMETOOLONG;
        (void) snprintf(directory, sizeof(directory), "%.*s", (int) (slash - path) + 1, path);
        fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s", fd, slash + 1);
        if (n < 0 || (size_t) n >= sizeof(ret_address->sun_path)) {
                fd_close(fd);
                return -ENAMETOOLONG;
        }
        *ret_directory = fd;
        return 0;
}

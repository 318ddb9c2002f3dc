/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Programs: the look-up that execvp() does, but done by the caller of a runner, whose $PATH and working directory count
 * (the supervisor's are of another time and place), with the directory of `baton' itself as the last resort, so that the
 * runners that ship beside it are found wherever it was installed. A path is made absolute as text, without resolving
 * links: programs that act by their name keep it.
 */

#include "client/program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

/* join() - @directory/@name; the first @length bytes of it, none meaning ".". */
static char *join(const char *directory, size_t length, const char *name) {
        char *path = NULL;

        if (length == 0)
                return asprintf(&path, "./%s", name) < 0 ? NULL : path;
        return asprintf(&path, "%.*s/%s", (int) length, directory, name) < 0 ? NULL : path;
}

/* absolute() - @path, from malloc() and ours to free or give on, below @directory unless it is absolute. */
static int absolute(char *path_consume, const char *directory, char **ret_path) {
        _cleanup_free_ char *path = path_consume;
        const char *relative = path;

        if (*path == '/') {
                *ret_path = TAKE_PTR(path);
                return 0;
        }
        while (strncmp(relative, "./", 2) == 0)
                relative += 2;
        *ret_path = join(directory, strlen(directory), relative);
        return *ret_path ? 0 : -ENOMEM;
}

/* try_directory() - 0 with the path; -ENOENT; -EACCES; -ENOMEM. */
static int try_directory(const char *directory, size_t length, const char *name, char **ret_path) {
        _cleanup_free_ char *path = join(directory, length, name);
        struct stat st;

        if (!path)
                return -ENOMEM;
        if (stat(path, &st) < 0)
                return errno == EACCES ? -EACCES : -ENOENT;
        if (!S_ISREG(st.st_mode) || access(path, X_OK) < 0)
                return -EACCES;
        *ret_path = TAKE_PTR(path);
        return 0;
}

static int search(const char *program, const char *path, const char *beside, char **ret_path) {
        int r, result = -ENOENT;

        for (const char *p = path;; p++) {
                size_t length = strcspn(p, ":");

                r = try_directory(p, length, program, ret_path);
                if (r == 0 || r == -ENOMEM)
                        return r;
                if (r == -EACCES)
                        result = r;
                p += length;
                if (!*p)
                        break;
        }
        if (!beside)
                return result;
        r = try_directory(beside, strlen(beside), program, ret_path);
        return r == -ENOENT ? result : r;
}

int program_find(const char *program, const char *path, const char *beside, const char *directory, char **ret_path) {
        char *found = NULL;
        int r;

        if (!*program)
                return -ENOENT;
        if (strchr(program, '/')) {
                found = strdup(program);
                r = found ? 0 : -ENOMEM;
        } else
                r = search(program, path ? path : DEFAULT_PATH, beside, &found);
        return r < 0 ? r : absolute(found, directory, ret_path);
}

int program_directory(char **ret_directory) {
        char path[4096];
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        char *slash;

        if (n < 0)
                return -errno;
        path[n] = '\0';
        slash = strrchr(path, '/');
        if (!slash)
                return -ENOENT;
        *slash = '\0';
        *ret_directory = strdup(path);
        return *ret_directory ? 0 : -ENOMEM;
}

static size_t name_length(const char *variable) {
        return strcspn(variable, "=");
}

/* put() - replaces the variable of the same name among the @n, or appends it. Returns how many there are now. */
static size_t put(char **environment, size_t n, char *variable) {
        size_t length = name_length(variable);

        for (size_t i = 0; i < n; i++)
                if (name_length(environment[i]) == length && strncmp(environment[i], variable, length) == 0) {
                        environment[i] = variable;
                        return n;
                }
        environment[n] = variable;
        return n + 1;
}

int environment_merge(char *const *base, char *const *changes, size_t n_changes, char ***ret_environment,
                      size_t *ret_n) {
        char **environment;
        size_t n = 0;

        while (base[n])
                n++;
        environment = calloc(n + n_changes + 1, sizeof(*environment));
        if (!environment)
                return -ENOMEM;
        memcpy(environment, base, n * sizeof(*environment));
        for (size_t i = 0; i < n_changes; i++)
                n = put(environment, n, changes[i]);
        *ret_environment = environment;
        *ret_n = n;
        return 0;
}

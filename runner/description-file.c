/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Files of descriptions. A library without a description is open to any signature, so the difference between "there is
 * none" and "there is one that cannot be used" matters: only a file that does not exist is none. One that cannot be
 * opened, is a directory or too large ends the search with an error.
 *
 * The search goes from the library outwards: who can write beside the library can replace the library. It never looks in
 * the working directory unless told to: an empty entry of the path means nothing, as opposed to that of $PATH.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/description.h"

/* failed() - completes @error, which has a path's worth of room before what is wrong with it. */
static int failed(const char *path, const char *what, int r, char *error) {
        (void) snprintf(error, DESCRIPTION_ERROR_MAX, "description %s: %s", path, what);
        return r;
}

/* read_whole() - up to @size bytes, and how many; less only at the file's end. */
static int read_whole(int fd, char *data, size_t size, size_t *ret_size) {
        size_t n = 0;

        while (n < size) {
                ssize_t got = read(fd, data + n, size - n);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return -errno;
                if (got == 0)
                        break;
                n += (size_t) got;
        }
        *ret_size = n;
        return 0;
}

static int read_file(const char *path, char *data, size_t size, size_t *ret_size, char *error) {
        _cleanup_fd_ int fd = -1;
        char what[128];
        struct stat status;
        int r;

        /* A FIFO must not stop us. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        r = fd < 0 || fstat(fd, &status) < 0 ? -errno : 0;
        if (r == 0 && !S_ISREG(status.st_mode))
                return failed(path, "not a regular file", -EINVAL, error);
        if (r == 0)
                r = read_whole(fd, data, size, ret_size);
        if (r < 0) {
                (void) snprintf(what, sizeof(what), "cannot read it: %s", strerror(-r));
                return failed(path, what, r == -ENOTDIR ? -ENOENT : r, error);
        }
        return 0;
}

int description_read(const char *path, Description **ret_description, char *error) {
        _cleanup_(description_freep) Description *description = NULL;
        _cleanup_free_ char *data = malloc(DESCRIPTION_SIZE_MAX + 1), *copy = strdup(path);
        char reason[DESCRIPTION_REASON_MAX], what[64];
        size_t size = 0;
        int r;

        if (!data || !copy)
                return failed(path, "no memory", -ENOMEM, error);
        r = read_file(path, data, DESCRIPTION_SIZE_MAX + 1, &size, error);
        if (r < 0)
                return r;
        if (size > DESCRIPTION_SIZE_MAX) {
                (void) snprintf(what, sizeof(what), "larger than %d bytes", DESCRIPTION_SIZE_MAX);
                return failed(path, what, -EINVAL, error);
        }
        r = description_parse(data, size, &description, reason);
        if (r < 0)
                return failed(path, reason, r, error);
        free(description->path);
        description->path = TAKE_PTR(copy);
        *ret_description = TAKE_PTR(description);
        return 0;
}

/* try_directory() - @name + suffix in the directory of @length bytes; -ENOENT where it is not there. */
static int try_directory(const char *directory, size_t length, const char *name, Description **ret_description,
                         char *error) {
        _cleanup_free_ char *path = NULL;

        if (length == 0)
                return -ENOENT;
        if (asprintf(&path, "%.*s/%s" DESCRIPTION_SUFFIX, (int) length, directory, name) < 0) {
                path = NULL;
                return failed(name, "no memory", -ENOMEM, error);
        }
        return description_read(path, ret_description, error);
}

/* try_path() - each of the directories in turn. */
static int try_path(const char *directories, const char *name, Description **ret_description, char *error) {
        int r = -ENOENT;

        while (r == -ENOENT) {
                size_t length = strcspn(directories, ":");

                r = try_directory(directories, length, name, ret_description, error);
                if (!directories[length])
                        break;
                directories += length + 1;
        }
        return r;
}

int description_look_up(const char *name, const char *location, const DescriptionPlaces *places,
                        Description **ret_description, char *error) {
        const char *slash = strrchr(name, '/'), *end = strrchr(location, '/');
        int r = -ENOENT;

        *ret_description = NULL;
        if (slash)
                name = slash + 1;
        if (!*name)
                return 0;
        /* The root's own slash is the directory, too. */
        if (end)
                r = try_directory(location, (size_t) MAX(end - location, (ptrdiff_t) 1), name, ret_description, error);
        if (r == -ENOENT && places->path)
                r = try_path(places->path, name, ret_description, error);
        if (r == -ENOENT && places->installed)
                r = try_directory(places->installed, strlen(places->installed), name, ret_description, error);
        return r == -ENOENT ? 0 : r;
}

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* A shared library that is loaded, and the functions it exports. */

struct link_map;

typedef struct Library {
        const char *path; /* as it was given; borrowed */
        void *handle;
        const struct link_map *map;
} Library;

enum { LIBRARY_ERROR_MAX = 512 };

/*
 * library_open() - loads @path: with a slash a file, without one found as the dynamic linker finds libraries. Every symbol
 * is bound now, so that a missing one is an error here and not a death later. It stays loaded until the process ends.
 * -ENOENT, with the dynamic linker's reason in @error, of LIBRARY_ERROR_MAX bytes.
 */
int library_open(Library *library, const char *path, char *error);

/* library_location() - the path it was loaded from; "" for the program itself. */
const char *library_location(const Library *library);

/*
 * library_find() - the function @name that @library itself exports. -ENOENT: none, also when a library that it depends on
 * has one; -EINVAL: @name is a variable. Then @error, of LIBRARY_ERROR_MAX bytes, has one line.
 */
int library_find(const Library *library, const char *name, void (**ret_function)(void), char *error);

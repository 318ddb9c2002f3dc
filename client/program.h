#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Where a program is, and the environment it gets. */

#include <stddef.h>

/*
 * program_find() - @program with a slash: as an absolute path, below @directory if it is relative, and not looked at. Else
 * the first executable file of that name in the directories of @path (NULL: the system's default; an empty one: the
 * current), then in @beside (NULL: nowhere else). The path is from malloc(). -ENOENT; -EACCES: there is one, but it is
 * not executable; -ENOMEM.
 */
int program_find(const char *program, const char *path, const char *beside, const char *directory, char **ret_path);

/* program_directory() - the directory of the running program, from malloc(). 0 or a negative errno. */
int program_directory(char **ret_directory);

/*
 * environment_merge() - the NULL-terminated @base with the @n_changes NAME=VALUE put in: a name that is there is
 * replaced, of two changes of one name the later counts. The array is from malloc(), its strings are borrowed. How many
 * it has in @ret_n. 0 or -ENOMEM.
 */
int environment_merge(char *const *base, char *const *changes, size_t n_changes, char ***ret_environment,
                      size_t *ret_n);

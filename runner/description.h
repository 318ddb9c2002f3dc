#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Descriptions: the signatures of a library's functions in a file. How one is written and where it is looked for:
 * docs/modules.md.
 *
 *         baton-module 1
 *         # The checksums of zlib.
 *         u64 crc32(u64, buffer, u32)
 */

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"
#include "runner/signature.h"

enum {
        DESCRIPTION_VERSION = 1,
        DESCRIPTION_SIZE_MAX = 64 * 1024, /* bytes of a file */
        DESCRIPTION_FUNCTIONS_MAX = 1024,
        DESCRIPTION_REASON_MAX = 256,           /* what is wrong with a text, and where */
        DESCRIPTION_ERROR_MAX = PATH_MAX + 300, /* the same of a file, which is named */
};

/* What a description's name ends in; before that stands the library's. */
#define DESCRIPTION_SUFFIX ".baton"

typedef struct DescribedFunction {
        Signature signature;
        size_t line; /* from 1 */
} DescribedFunction;

typedef struct Description {
        char *path;                   /* of its file; "" when it was none */
        DescribedFunction *functions; /* in the file's order */
        size_t n_functions;
        uint16_t by_name[DESCRIPTION_FUNCTIONS_MAX]; /* indices of functions, sorted by their names */
} Description;

/* Where descriptions are looked for, beside the library's own directory; NULL or "": not there. */
typedef struct DescriptionPlaces {
        const char *path;      /* directories, separated by colons: $BATON_MODULE_PATH */
        const char *installed; /* one directory, last */
} DescriptionPlaces;

/*
 * description_parse() - the @size bytes of a description. -EINVAL: it is none, and @error, of DESCRIPTION_REASON_MAX bytes,
 * has one line with line and column, both from 1, the column in bytes, and what was expected there. -ENOMEM.
 */
int description_parse(const char *data, size_t size, Description **ret_description, char *error);

/*
 * description_read() - the file @path. -ENOENT: there is none. Everything else is an error that must not be taken for
 * that: -EINVAL, no regular file, too large, or as description_parse(); or why it cannot be read. @error, of
 * DESCRIPTION_ERROR_MAX bytes, names @path.
 */
int description_read(const char *path, Description **ret_description, char *error);

/*
 * description_look_up() - the description of the library that was asked for as @name and was found at @location: a file
 * @name's last part + DESCRIPTION_SUFFIX, in the directory of @location, then in @places. The first one counts. 0, with
 * NULL in @ret_description where there is none; or as description_read().
 */
int description_look_up(const char *name, const char *location, const DescriptionPlaces *places,
                        Description **ret_description, char *error);

/* description_find() - the described function @name, or NULL. */
const DescribedFunction *description_find(const Description *description, const char *name);

Description *description_free(Description *description);
DEFINE_CLEANUP(Description *, description_free);

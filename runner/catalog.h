#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The functions that a module runner offers: its libraries, their descriptions, and what a call's method stands for. */

#include <stdbool.h>
#include <stddef.h>

#include "common/macro.h"
#include "runner/description.h"
#include "runner/invoke.h"
#include "runner/library.h"
#include "runner/signature.h"

enum {
        CATALOG_ERROR_MAX = 1024,                                           /* as long as a call's message can be */
        CATALOG_LOAD_ERROR_MAX = DESCRIPTION_ERROR_MAX + LIBRARY_ERROR_MAX, /* a path, and the reason */
};

typedef struct CatalogEntry {
        Library library;
        Description *description; /* NULL: there is none */
} CatalogEntry;

typedef struct Catalog {
        CatalogEntry *entries;
        size_t n_entries;
        bool is_open; /* functions that a library's description does not have may be called, too */
} Catalog;

#define CATALOG_NULL ((Catalog){ 0 })

/*
 * catalog_load() - loads @n libraries, whose @names are borrowed for good, with their descriptions: @file for the only
 * library, or, where it is NULL, what is found in @places. -ENOENT: a library, or @file; -EINVAL and others: a description
 * that cannot be used; -ENOMEM. @error, of CATALOG_LOAD_ERROR_MAX bytes, has one line, which names the file.
 */
int catalog_load(Catalog *catalog, char *const *names, size_t n, const char *file, const DescriptionPlaces *places,
                 char *error);

/*
 * catalog_resolve() - what @method, a signature or the name of a described function, stands for. The first library that
 * exports the function and offers it counts: one with a description offers what is described, and, when the catalog is
 * open, everything else as one without does: to those who give the signature.
 *
 * -EOPNOTSUPP: no name of a C function; -EINVAL: no signature, not the described one, an unknown one, or a variable;
 * -EACCES: exported, but not described; -ENOENT: not exported. @error, of CATALOG_ERROR_MAX bytes, has one line.
 */
int catalog_resolve(const Catalog *catalog, const char *method, Signature *ret_signature, InvokeFn *ret_function,
                    char *error);

/* catalog_deinit() - frees the descriptions; libraries stay loaded. Leaves CATALOG_NULL. */
void catalog_deinit(Catalog *catalog);

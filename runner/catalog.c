/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The functions on offer. Without a description the caller alone says what a function's parameters are. A description
 * takes that from him: a signature that he gives must be the described one, and what is not described is not on offer,
 * unless the catalog is open. Libraries are asked in order and one that does not offer a function does not hide that of
 * the next; but one that describes it otherwise does: the caller means something else than we would call.
 *
 * A described function need not be exported: descriptions are written for more than one version of a library.
 */

#include "runner/catalog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int catalog_load(Catalog *catalog, char *const *names, size_t n, const char *file, const DescriptionPlaces *places,
                 char *error) {
        catalog->entries = calloc(n, sizeof(*catalog->entries));
        if (!catalog->entries) {
                (void) snprintf(error, CATALOG_LOAD_ERROR_MAX, "cannot load libraries: no memory");
                return -ENOMEM;
        }
        for (; catalog->n_entries < n; catalog->n_entries++) {
                CatalogEntry *entry = &catalog->entries[catalog->n_entries];
                const char *name = names[catalog->n_entries];
                char reason[LIBRARY_ERROR_MAX];
                int r = library_open(&entry->library, name, reason);

                if (r < 0) {
                        (void) snprintf(error, CATALOG_LOAD_ERROR_MAX, "cannot load library %s: %s", name, reason);
                        return r;
                }
                if (file)
                        r = description_read(file, &entry->description, error);
                else
                        r = description_look_up(name, library_location(&entry->library), places, &entry->description,
                                                error);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- a call's method ---- */

/* Who is asked for a function, and why not everybody that exports it offers it. */
typedef struct Search {
        const char *name;
        const Signature *given;            /* NULL: only the name was */
        const Description *undescribed_in; /* the first that would have to describe it */
        bool is_unknown;                   /* it could be called by a signature */
        const DescribedFunction *found;    /* NULL: the given signature is all that is known */
        const Description *found_in;
} Search;

/* offers() - whether @entry, which exports the function, offers it. */
static bool offers(const Catalog *catalog, const CatalogEntry *entry, Search *search) {
        const Description *description = entry->description;

        search->found = description ? description_find(description, search->name) : NULL;
        search->found_in = description;
        if (search->found)
                return true;
        if (description && !catalog->is_open) {
                if (!search->undescribed_in)
                        search->undescribed_in = description;
                return false;
        }
        search->is_unknown |= !search->given;
        return search->given;
}

/* not_exported() - the last library's reason, which is in @error, or the names of all. */
static int not_exported(const Catalog *catalog, const char *name, char *error) {
        size_t length;

        if (catalog->n_entries == 1)
                return -ENOENT;
        length = (size_t) snprintf(error, CATALOG_ERROR_MAX, "no function %s is exported by", name);
        for (size_t i = 0; i < catalog->n_entries && length < CATALOG_ERROR_MAX; i++)
                length += (size_t) snprintf(error + length, CATALOG_ERROR_MAX - length, "%s %s", i > 0 ? "," : "",
                                            catalog->entries[i].library.path);
        return -ENOENT;
}

/* not_offered() - nobody offers the function: why. */
static int not_offered(const Catalog *catalog, const Search *search, char *error) {
        if (search->undescribed_in) {
                (void) snprintf(error, CATALOG_ERROR_MAX,
                                "%s is not described in %.512s, and other functions cannot be called without --open",
                                search->name, search->undescribed_in->path);
                return -EACCES;
        }
        if (search->is_unknown) {
                (void) snprintf(error, CATALOG_ERROR_MAX,
                                "the signature of %s is not known: give it whole, as in 'f64 sqrt(f64)'",
                                search->name);
                return -EINVAL;
        }
        return not_exported(catalog, search->name, error);
}

/* agree() - the signature to call with: the described one, which a given one must be. */
static int agree(const Search *search, Signature *ret_signature, char *error) {
        const Signature *described = search->found ? &search->found->signature : search->given;
        char given_text[SIGNATURE_TEXT_MAX], described_text[SIGNATURE_TEXT_MAX];

        if (search->given && !signature_is_equal(search->given, described)) {
                (void) snprintf(error, CATALOG_ERROR_MAX, "'%s' is not '%s', which is line %zu of %.512s",
                                signature_format(search->given, given_text),
                                signature_format(described, described_text), search->found->line,
                                search->found_in->path);
                return -EINVAL;
        }
        *ret_signature = *described;
        return 0;
}

/* find() - the function of the first library that offers it. */
static int find(const Catalog *catalog, Search *search, InvokeFn *ret_function, char *error) {
        for (size_t i = 0; i < catalog->n_entries; i++) {
                int r = library_find(&catalog->entries[i].library, search->name, ret_function, error);

                if (r == -ENOENT)
                        continue;
                if (r < 0 || offers(catalog, &catalog->entries[i], search))
                        return r;
        }
        return not_offered(catalog, search, error);
}

int catalog_resolve(const Catalog *catalog, const char *method, Signature *ret_signature, InvokeFn *ret_function,
                    char *error) {
        char reason[SIGNATURE_ERROR_MAX];
        Signature given;
        Search search = { .name = method };
        int r;

        if (strchr(method, '/')) {
                (void) snprintf(
                        error, CATALOG_ERROR_MAX,
                        "no method %s here: a module's methods are C functions, by signature or described name",
                        method);
                return -EOPNOTSUPP;
        }
        if (!signature_is_name(method)) {
                r = signature_parse(method, &given, reason);
                if (r < 0) {
                        (void) snprintf(error, CATALOG_ERROR_MAX, "signature '%s': %s", method, reason);
                        return r;
                }
                search.name = given.name;
                search.given = &given;
        }
        r = find(catalog, &search, ret_function, error);
        return r < 0 ? r : agree(&search, ret_signature, error);
}

void catalog_deinit(Catalog *catalog) {
        for (size_t i = 0; i < catalog->n_entries; i++)
                description_free(catalog->entries[i].description);
        free(catalog->entries);
        *catalog = CATALOG_NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Shared libraries of the module runner. dlsym() on a library also searches everything the library depends on: asked for
 * a mistyped name, or for one that the second library on the command line has, it may find libc's. So a function counts
 * only when the object that holds its address is the library that was named.
 */

#include "runner/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

int library_open(Library *library, const char *path, char *error) {
        struct link_map *map;
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

        if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map) < 0) {
                const char *reason = dlerror();

                (void) snprintf(error, LIBRARY_ERROR_MAX, "%s", reason ? reason : "unknown reason");
                return -ENOENT;
        }
        *library = (Library){ .path = path, .handle = handle, .map = map };
        return 0;
}

const char *library_location(const Library *library) {
        return library->map->l_name;
}

/* is_variable() - whether exactly @symbol is exported as data. An implementation picked at run time (IFUNC) has no entry. */
static bool is_variable(const void *symbol) {
        const ElfW(Sym) * entry;
        void *found = NULL;
        Dl_info info;
        int type;

        if (!dladdr1(symbol, &info, &found, RTLD_DL_SYMENT) || !found || info.dli_saddr != symbol)
                return false;
        entry = found;
        type = ELF64_ST_TYPE(entry->st_info); /* the same bits in both classes */
        return type == STT_OBJECT || type == STT_COMMON || type == STT_TLS;
}

int library_find(const Library *library, const char *name, void (**ret_function)(void), char *error) {
        void *owner = NULL; /* struct link_map */
        void *symbol = dlsym(library->handle, name);
        Dl_info info = {};

        if (!symbol || !dladdr1(symbol, &info, &owner, RTLD_DL_LINKMAP)) {
                (void) snprintf(error, LIBRARY_ERROR_MAX, "%s exports no function %s", library->path, name);
                return -ENOENT;
        }
        /* libc hands out some functions of the kernel's vDSO (time) as its own. */
        if (owner != library->map && (unsigned long) info.dli_fbase != getauxval(AT_SYSINFO_EHDR)) {
                (void) snprintf(error, LIBRARY_ERROR_MAX,
                                "%s exports no function %s (%s does: name it to call that one)", library->path, name,
                                info.dli_fname);
                return -ENOENT;
        }
        if (is_variable(symbol)) {
                (void) snprintf(error, LIBRARY_ERROR_MAX, "%s of %s is a variable, not a function", name,
                                library->path);
                return -EINVAL;
        }
        /* POSIX lets a function's address travel as a void pointer; C has no cast for it. */
        memcpy(ret_function, &symbol, sizeof(symbol));
        return 0;
}

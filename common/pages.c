/* SPDX-License-Identifier: Apache-2.0 */

#include "common/pages.h"

#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/macro.h"

static int forget(struct dl_phdr_info *object, size_t size, void *userdata) {
        uintptr_t page = (uintptr_t) getpagesize();

        (void) size;
        (void) userdata;
        for (size_t i = 0; i < object->dlpi_phnum; i++) {
                const ElfW(Phdr) *header = &object->dlpi_phdr[i];
                uintptr_t begin = (object->dlpi_addr + header->p_vaddr) / page * page;
                uintptr_t end = object->dlpi_addr + header->p_vaddr + header->p_filesz;

                if (header->p_type == PT_LOAD && !(header->p_flags & PF_W))
                        (void) madvise((void *) begin, end - begin, MADV_DONTNEED);
        }
        return 0;
}

void pages_forget(void) {
        (void) dl_iterate_phdr(forget, NULL);
}

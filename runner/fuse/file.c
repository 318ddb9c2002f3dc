/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Open files. The kernel has a number for each, an index with the generation of its use: a number that is not open any
 * more (a RELEASE that is sent a second time) can never mean another file. Where a file has its position, locks and flags
 * such as O_APPEND is the kernel's business; here it is opened to read or to write at the places that the kernel names, so
 * it can be opened again by another process from its node and its flags.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "common/fd.h"
#include "runner/fuse/mirror.h"

#define NOBODY UINT32_MAX

static TableFile *table_file(const Mirror *mirror, uint32_t index) {
        return &mirror->table.files[index];
}

static int make_room(Mirror *mirror, uint32_t n) {
        uint32_t room = MAX(n, mirror->n_files_room * 2);
        OpenFile *files;

        if (n <= mirror->n_files_room)
                return 0;
        files = reallocarray(mirror->files, room, sizeof(*files));
        if (!files)
                return -ENOMEM;
        for (uint32_t i = mirror->n_files_room; i < room; i++)
                files[i] = (OpenFile){ .fd = -1 };
        mirror->files = files;
        mirror->n_files_room = room;
        return 0;
}

/* The list of free ones lies in their positions. */
static void give_index(Mirror *mirror, uint32_t index) {
        mirror->files[index] = (OpenFile){ .fd = -1, .position = mirror->free_file };
        mirror->free_file = index;
}

static int take_index(Mirror *mirror, uint32_t *ret_index) {
        TableHeader *header = mirror->table.header;
        int r;

        if (mirror->free_file != NOBODY) {
                *ret_index = mirror->free_file;
                mirror->free_file = (uint32_t) mirror->files[*ret_index].position;
                return 0;
        }
        if (header->n_files == TABLE_FILES_MAX)
                return -ENFILE;
        r = make_room(mirror, header->n_files + 1);
        if (r == 0)
                *ret_index = header->n_files++;
        return r;
}

int file_add(Mirror *mirror, uint32_t node, int fd_consume, uint32_t flags, uint32_t kind, uint64_t *ret_number) {
        _cleanup_fd_ int fd = fd_consume;
        TableFile *file;
        uint32_t index = NOBODY;
        int r = take_index(mirror, &index);

        if (r < 0)
                return r;
        file = table_file(mirror, index);
        file->generation++;
        file->node = node_number(mirror, node);
        file->flags = flags;
        *ret_number = (uint64_t) file->generation << 32 | index;
        journal_file(mirror, *ret_number);
        file->kind = kind;
        mirror->nodes[node].n_open++;
        mirror->files[index] = (OpenFile){ .fd = fd_take(&fd) };
        return 0;
}

static bool is_open(const Mirror *mirror, uint64_t number) {
        uint32_t index = (uint32_t) number;

        return index < mirror->table.header->n_files && table_file(mirror, index)->kind != TABLE_FILE_FREE &&
               table_file(mirror, index)->generation == number >> 32;
}

int file_of(Mirror *mirror, uint64_t number, uint32_t kind, OpenFile **ret_file) {
        if (!is_open(mirror, number) || table_file(mirror, (uint32_t) number)->kind != kind)
                return -EBADF;
        *ret_file = &mirror->files[(uint32_t) number];
        return (*ret_file)->fd < 0 ? -ESTALE : 0;
}

void file_remove(Mirror *mirror, uint64_t number) {
        uint32_t index = (uint32_t) number, node;

        if (!is_open(mirror, number))
                return;
        if (node_of(mirror, table_file(mirror, index)->node, &node) == 0 && mirror->nodes[node].n_open > 0)
                mirror->nodes[node].n_open--;
        table_file(mirror, index)->kind = TABLE_FILE_FREE;
        fd_close(mirror->files[index].fd);
        give_index(mirror, index);
}

/* reopen() - a failure is of this file alone: whoever uses it is told ESTALE. */
static void reopen(Mirror *mirror, uint32_t i) {
        const TableFile *file = table_file(mirror, i);
        uint32_t node;
        int fd = node_of(mirror, file->node, &node);

        if (fd == 0) {
                mirror->nodes[node].n_open++;
                fd = node_reopen(mirror, node, (int) file->flags);
        }
        mirror->files[i] = (OpenFile){ .fd = MAX(fd, -1) };
}

int file_load(Mirror *mirror) {
        int r = make_room(mirror, mirror->table.header->n_files);

        mirror->free_file = NOBODY;
        if (r < 0)
                return r;
        for (uint32_t i = mirror->table.header->n_files; i-- > 0;)
                if (table_file(mirror, i)->kind == TABLE_FILE_FREE)
                        give_index(mirror, i);
                else
                        reopen(mirror, i);
        return 0;
}

void file_unload(Mirror *mirror) {
        for (uint32_t i = 0; i < mirror->n_files_room; i++)
                fd_close(mirror->files[i].fd);
        free(mirror->files);
        mirror->files = NULL;
        mirror->n_files_room = 0;
        mirror->free_file = NOBODY;
}

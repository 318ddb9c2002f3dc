/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, its source: the bytes of one file, or of the files of a directory, in the order of their names. They are kept as
 * they were read (config_source_pack(), by the keeper), so that a supervisor that follows another begins with what holds,
 * and not with what somebody is editing.
 *
 * What a directory has besides: hidden files are editors', and are passed over; `.yml' is a mistake that would go unseen,
 * and is refused; anything else is none of ours.
 */

#include "supervisor/config-internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"

enum { PACKED_MAX = 64 * 1024 * 1024, PACKED_VERSION = 1 };

/* Before each text of a packed source; native, since it does not leave the machine. */
typedef struct PackedHeader {
        uint32_t version, n_paths, n_files;
} PackedHeader;

typedef struct PackedFile {
        uint32_t name_size, size;
} PackedFile;

char **config_paths_free(char **paths) {
        for (size_t i = 0; paths && paths[i]; i++)
                free(paths[i]);
        free(paths);
        return NULL;
}

ConfigSource *config_source_free(ConfigSource *source) {
        if (!source)
                return NULL;
        for (size_t i = 0; i < source->n; i++) {
                free(source->files[i].name);
                free(source->files[i].text);
        }
        config_paths_free(source->paths);
        free(source);
        return NULL;
}

char **config_source_take_paths(ConfigSource *source) {
        source->n_paths = 0;
        return TAKE_PTR(source->paths);
}

/* ------------------------------------------------------------------------------------------------------------ reading */

/* add_file() - the file @name below @directory. 0, also after an error of the file; -ENOMEM. */
static int add_file(ConfigSource *source, int directory, const char *file, const char *name, ConfigErrors *errors) {
        _cleanup_fd_ int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        ConfigFile *added = &source->files[source->n];
        int r = fd < 0 ? -errno : 0;

        if (source->n == CONFIG_FILES_MAX) {
                config_errors_add(errors, name, 0, NULL, "there are more than %d files", CONFIG_FILES_MAX);
                return 0;
        }
        if (r == 0)
                r = fd_read_file(fd, CONFIG_FILE_MAX, &added->text, &added->size);
        if (r == -ENOMEM)
                return r;
        if (r == -EFBIG)
                config_errors_add(errors, name, 0, NULL, "larger than %d MiB", CONFIG_FILE_MAX >> 20);
        else if (r == -EINVAL)
                config_errors_add(errors, name, 0, NULL, "not a regular file");
        else if (r < 0)
                config_errors_add(errors, name, 0, NULL, "cannot be read: %s", strerror(-r));
        if (r < 0)
                return 0;
        added->name = strdup(name);
        if (!added->name) {
                free(TAKE_PTR(added->text));
                return -ENOMEM;
        }
        source->n++;
        return 0;
}

static bool ends_in(const char *text, const char *end) {
        size_t length = strlen(text), n = strlen(end);

        return length > n && strcmp(text + length - n, end) == 0;
}

static int is_wanted(const struct dirent *entry) {
        return *entry->d_name != '.' && (ends_in(entry->d_name, ".yaml") || ends_in(entry->d_name, ".yml"));
}

static int add_entry(ConfigSource *source, int directory, const char *path, const char *entry, ConfigErrors *errors) {
        _cleanup_free_ char *name = NULL;

        if (asprintf(&name, "%s%s%s", path, ends_in(path, "/") ? "" : "/", entry) < 0) {
                name = NULL;
                return -ENOMEM;
        }
        if (ends_in(entry, ".yml")) {
                config_errors_add(errors, name, 0, NULL, "its name ends in .yml: only .yaml files are read");
                return 0;
        }
        return add_file(source, directory, entry, name, errors);
}

static int byte_order(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_directory(ConfigSource *source, const char *path, ConfigErrors *errors) {
        _cleanup_fd_ int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent **entries = NULL;
        int n = directory < 0 ? -1 : scandirat(directory, ".", &entries, is_wanted, byte_order), r = 0;

        if (n < 0 && errno == ENOMEM)
                return -ENOMEM;
        if (n < 0)
                config_errors_add(errors, path, 0, NULL, "cannot be read: %s", strerror(errno));
        if (n == 0)
                config_errors_add(errors, path, 0, NULL, "no .yaml file is in this directory");
        for (int i = 0; i < n; i++) {
                if (r == 0)
                        r = add_entry(source, directory, path, entries[i]->d_name, errors);
                free(entries[i]);
        }
        free(entries);
        return r;
}

/* absolute() - @path from the root, its symlinks as they are: what they lead to may change between reloads. */
static char *absolute(const char *path) {
        _cleanup_free_ char *cwd = *path == '/' ? NULL : getcwd(NULL, 0);
        char *text;

        if (!cwd)
                return strdup(path);
        return asprintf(&text, "%s/%s", cwd, path) < 0 ? NULL : text;
}

static int add_path(ConfigSource *source, const char *path, ConfigErrors *errors) {
        struct stat st;

        source->paths[source->n_paths] = absolute(path);
        if (!source->paths[source->n_paths])
                return -ENOMEM;
        source->n_paths++;
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
                return add_directory(source, path, errors);
        return add_file(source, AT_FDCWD, path, path, errors);
}

int config_source_read(ConfigSource **ret_source, char *const *paths, ConfigErrors *errors) {
        _cleanup_(config_source_freep) ConfigSource *source = calloc(1, sizeof(*source));
        size_t before = errors->n, n = 0;
        int r = 0;

        while (paths[n])
                n++;
        if (!source)
                return -ENOMEM;
        source->paths = calloc(n + 1, sizeof(*source->paths));
        if (!source->paths)
                return -ENOMEM;
        for (; *paths && r == 0; paths++)
                r = add_path(source, *paths, errors);
        if (r == 0 && errors->n > before)
                r = -EINVAL;
        if (r == 0)
                *ret_source = TAKE_PTR(source);
        return r;
}

/* ------------------------------------------------------------------------------------------------------------ packing */

static int pack_file(MemfdWriter *writer, const ConfigFile *file) {
        const PackedFile packed = { (uint32_t) strlen(file->name), (uint32_t) file->size };
        int r = memfd_writer_add(writer, &packed, sizeof(packed));

        if (r == 0)
                r = memfd_writer_add(writer, file->name, packed.name_size);
        if (r == 0 && packed.size > 0)
                r = memfd_writer_add(writer, file->text, packed.size);
        return r;
}

static int pack_path(MemfdWriter *writer, const char *path) {
        const uint32_t size = (uint32_t) strlen(path);
        int r = memfd_writer_add(writer, &size, sizeof(size));

        return r < 0 ? r : memfd_writer_add(writer, path, size);
}

int config_source_pack(const ConfigSource *source, int *ret_fd) {
        const PackedHeader header = { PACKED_VERSION, (uint32_t) source->n_paths, (uint32_t) source->n };
        MemfdWriter writer = MEMFD_WRITER_NULL;
        int r = memfd_writer_open("baton-config", &writer);

        if (r == 0)
                r = memfd_writer_add(&writer, &header, sizeof(header));
        for (size_t i = 0; i < source->n_paths && r == 0; i++)
                r = pack_path(&writer, source->paths[i]);
        for (size_t i = 0; i < source->n && r == 0; i++)
                r = pack_file(&writer, &source->files[i]);
        if (r < 0) {
                memfd_writer_close(&writer);
                return r;
        }
        return memfd_writer_finish(&writer, ret_fd);
}

/* What is left of a packed source. */
typedef struct Rest {
        const uint8_t *data;
        size_t size;
} Rest;

static bool take(Rest *rest, void *target, size_t size) {
        if (rest->size < size)
                return false;
        if (size > 0)
                memcpy(target, rest->data, size);
        rest->data += size;
        rest->size -= size;
        return true;
}

/* take_text() - @size bytes as a new block; NULL: they are not there, or no memory. */
static char *take_text(Rest *rest, size_t size) {
        char *text = size <= rest->size ? malloc(size + 1) : NULL;

        if (!text)
                return NULL;
        (void) take(rest, text, size);
        text[size] = '\0';
        return text;
}

static bool take_path(Rest *rest, ConfigSource *source) {
        uint32_t size;

        if (!take(rest, &size, sizeof(size)))
                return false;
        source->paths[source->n_paths] = take_text(rest, size);
        return source->paths[source->n_paths] && ++source->n_paths > 0;
}

static bool take_file(Rest *rest, ConfigSource *source) {
        ConfigFile *file = &source->files[source->n];
        PackedFile packed;

        if (!take(rest, &packed, sizeof(packed)) || packed.size > CONFIG_FILE_MAX)
                return false;
        source->n++;
        file->name = take_text(rest, packed.name_size);
        file->text = file->name ? take_text(rest, packed.size) : NULL;
        file->size = packed.size;
        return file->text;
}

static bool take_all(Rest *rest, ConfigSource *source) {
        PackedHeader header;
        bool good = true;

        if (!take(rest, &header, sizeof(header)) || header.version != PACKED_VERSION ||
            header.n_paths > rest->size / sizeof(uint32_t) || header.n_files > CONFIG_FILES_MAX)
                return false;
        source->paths = calloc((size_t) header.n_paths + 1, sizeof(*source->paths));
        if (!source->paths)
                return false;
        for (uint32_t i = 0; i < header.n_paths && good; i++)
                good = take_path(rest, source);
        for (uint32_t i = 0; i < header.n_files && good; i++)
                good = take_file(rest, source);
        return good && rest->size == 0;
}

int config_source_unpack(ConfigSource **ret_source, int fd) {
        _cleanup_(config_source_freep) ConfigSource *source = calloc(1, sizeof(*source));
        _cleanup_(memfd_unmap) MemfdMapping mapping = { 0 };
        Rest rest;
        int r;

        if (!source)
                return -ENOMEM;
        r = memfd_map_sealed(fd, PACKED_MAX, &mapping);
        if (r < 0)
                return r == -ENOMEM ? r : -EBADMSG;
        rest = (Rest){ mapping.data, mapping.size };
        if (!take_all(&rest, source))
                return -EBADMSG;
        *ret_source = TAKE_PTR(source);
        return 0;
}

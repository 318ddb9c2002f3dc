/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Manifest. What identifies a descriptor is what the kernel says about it on both sides: type, device and inode, how it is
 * open, and of a socket its kind and its peer. A pidfd has the inode of all others on older kernels: the process
 * identifies it.
 */

#include "proto/manifest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"
#include "common/parse.h"
#include "proto/message.h"

typedef Baton__Handover__Descriptor Descriptor;

/* Printed into @reason for people; returns @error, for the caller's caller. */
static int _printf_(3, 4) fail(char reason[MANIFEST_REASON_SIZE], int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, MANIFEST_REASON_SIZE, format, arguments);
        va_end(arguments);
        return error;
}

/* --------------------------------------------------------------------------------------------------------- describing */

static int option(int fd, int name) {
        int value = 0;

        (void) getsockopt(fd, SOL_SOCKET, name, &value, &(socklen_t){ sizeof(value) });
        return value;
}

static void describe_socket(int fd, Descriptor *descriptor) {
        struct ucred peer = { 0 };

        descriptor->type = BATON__HANDOVER__DESCRIPTOR__TYPE__SOCKET;
        descriptor->domain = option(fd, SO_DOMAIN);
        descriptor->kind = option(fd, SO_TYPE);
        descriptor->listening = option(fd, SO_ACCEPTCONN);
        if (descriptor->domain == AF_UNIX && !descriptor->listening &&
            getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){ sizeof(peer) }) == 0)
                descriptor->peer = peer.pid;
}

/* process_of() - of a pidfd; 0: it is none, or its process is of another pid namespace. -1: it is reaped. */
static int32_t process_of(int fd) {
        char path[64], text[1024];
        const char *line;
        ssize_t n;
        int info;

        (void) snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        info = open(path, O_RDONLY | O_CLOEXEC);
        n = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
        fd_close(info);
        text[n > 0 ? n : 0] = '\0';
        line = strstr(text, "\nPid:");
        return line ? (int32_t) strtol(line + strlen("\nPid:"), NULL, 10) : 0;
}

static void describe_other(int fd, const struct stat *status, Descriptor *descriptor) {
        switch (status->st_mode & S_IFMT) {
        case S_IFIFO:
                descriptor->type = BATON__HANDOVER__DESCRIPTOR__TYPE__PIPE;
                return;
        case S_IFDIR:
                descriptor->type = BATON__HANDOVER__DESCRIPTOR__TYPE__DIRECTORY;
                return;
        case S_IFCHR:
        case S_IFBLK:
                descriptor->type = S_ISCHR(status->st_mode) ? BATON__HANDOVER__DESCRIPTOR__TYPE__CHARACTER
                                                            : BATON__HANDOVER__DESCRIPTOR__TYPE__BLOCK;
                descriptor->device = status->st_rdev;
                return;
        default: /* a file, or an anonymous inode: kernels differ about what pidfds are */
                descriptor->pid = process_of(fd);
                descriptor->type = descriptor->pid != 0       ? BATON__HANDOVER__DESCRIPTOR__TYPE__PROCESS
                                   : S_ISREG(status->st_mode) ? BATON__HANDOVER__DESCRIPTOR__TYPE__FILE
                                                              : BATON__HANDOVER__DESCRIPTOR__TYPE__OTHER;
        }
}

/* describe() - all of @ret_descriptor but its name. 0 or -EBADF. */
static int describe(int fd, Descriptor *ret_descriptor) {
        struct stat status;
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || fstat(fd, &status) < 0)
                return -EBADF;
        ret_descriptor->device = status.st_dev;
        ret_descriptor->inode = status.st_ino;
        ret_descriptor->access = flags & O_PATH ? 3 : (uint32_t) flags & O_ACCMODE;
        if (S_ISSOCK(status.st_mode) && ret_descriptor->access != 3)
                describe_socket(fd, ret_descriptor);
        else
                describe_other(fd, &status, ret_descriptor);
        return 0;
}

static const char *const type_names[] = { "something else", "a socket",           "a pipe",         "a file",
                                          "a directory",    "a character device", "a block device", "a process" };

static const char *type_name(int type) {
        return type >= 0 && (size_t) type < ARRAY_SIZE(type_names) ? type_names[type] : type_names[0];
}

/* compare() - what @found has and @wanted has not, as text; NULL: they are the same. */
static const char *compare(const Descriptor *wanted, const Descriptor *found) {
        if (found->type == BATON__HANDOVER__DESCRIPTOR__TYPE__PROCESS)
                return wanted->pid == found->pid ? NULL : "another process";
        if (wanted->device != found->device || wanted->inode != found->inode)
                return "another one";
        if (wanted->access != found->access)
                return "open in another way";
        if (wanted->domain != found->domain || wanted->kind != found->kind)
                return "a socket of another kind";
        if (wanted->listening != found->listening)
                return found->listening ? "listening" : "not listening";
        return wanted->peer == found->peer ? NULL : "connected to another process";
}

/* ------------------------------------------------------------------------------------------------------------- giving */

void manifest_deinit(Manifest *manifest) {
        for (size_t i = 0; i < manifest->n; i++) {
                if (manifest->received)
                        fd_close(manifest->fds[i]);
                baton__handover__descriptor__free_unpacked(manifest->entries[i], NULL);
        }
        free(manifest->entries);
        free(manifest->fds);
        free(manifest->sorted);
        *manifest = MANIFEST_NULL;
}

static int make_room(Manifest *manifest) {
        size_t n = manifest->n_room ? manifest->n_room * 2 : 16;
        Descriptor **entries;
        int *fds;

        if (manifest->n < manifest->n_room)
                return 0;
        entries = reallocarray(manifest->entries, n, sizeof(*entries));
        if (!entries)
                return -ENOMEM;
        manifest->entries = entries;
        fds = reallocarray(manifest->fds, n, sizeof(*fds));
        if (!fds)
                return -ENOMEM;
        manifest->fds = fds;
        manifest->n_room = n;
        return 0;
}

static Descriptor *new_descriptor(const char *name) {
        Descriptor *descriptor = malloc(sizeof(*descriptor));
        char *copy = strdup(name);

        if (!descriptor || !copy) {
                free(descriptor);
                free(copy);
                return NULL;
        }
        baton__handover__descriptor__init(descriptor);
        descriptor->name = copy;
        return descriptor;
}

int manifest_add(Manifest *manifest, const char *name, int fd) {
        Descriptor *descriptor;
        int r;

        assert(!manifest->received);
        if (!*name || strlen(name) > MANIFEST_NAME_MAX || !utf8_is_valid(name, strlen(name)))
                return -EINVAL;
        if (manifest->n >= MANIFEST_FDS_MAX)
                return -ENOSPC;
        r = make_room(manifest);
        if (r < 0)
                return r;
        descriptor = new_descriptor(name);
        if (!descriptor)
                return -ENOMEM;
        r = describe(fd, descriptor);
        if (r < 0) {
                baton__handover__descriptor__free_unpacked(descriptor, NULL);
                return r;
        }
        manifest->entries[manifest->n] = descriptor;
        manifest->fds[manifest->n++] = fd;
        return 0;
}

/* stays() - the lane and the channels of a connection are what they are; what else it has is counted anew each time. */
static bool stays(const char *name) {
        const char *last = strrchr(name, '/');

        return strstr(name, "/channel/") || (last && strcmp(last, "/lane") == 0);
}

/* is_same() - and whoever has got @a needs no @b. */
static bool is_same(const Descriptor *a, const Descriptor *b) {
        return strcmp(a->name, b->name) == 0 && stays(a->name) && a->type == b->type && !compare(a, b);
}

static bool has_same(const Manifest *manifest, const Descriptor *descriptor) {
        for (size_t i = 0; i < manifest->n; i++)
                if (is_same(manifest->entries[i], descriptor))
                        return true;
        return false;
}

/* copy_entry() - a description without its descriptor. */
static int copy_entry(Manifest *manifest, const Descriptor *from) {
        Descriptor *copy;

        if (make_room(manifest) < 0 || !(copy = new_descriptor(from->name)))
                return -ENOMEM;
        copy->type = from->type;
        copy->device = from->device;
        copy->inode = from->inode;
        copy->access = from->access;
        copy->domain = from->domain;
        copy->kind = from->kind;
        copy->listening = from->listening;
        copy->peer = from->peer;
        copy->pid = from->pid;
        manifest->entries[manifest->n] = copy;
        manifest->fds[manifest->n++] = -1;
        return 0;
}

int manifest_keep_new(Manifest *manifest, size_t from, Manifest *before) {
        Manifest now = MANIFEST_NULL;
        size_t n = from;
        int r = 0;

        for (size_t i = from; i < manifest->n; i++) {
                Descriptor *descriptor = manifest->entries[i];

                r = r < 0 ? r : copy_entry(&now, descriptor);
                if (r == 0 && has_same(before, descriptor)) {
                        baton__handover__descriptor__free_unpacked(descriptor, NULL);
                        continue;
                }
                manifest->entries[n] = descriptor;
                manifest->fds[n++] = manifest->fds[i];
        }
        manifest->n = n;
        manifest_deinit(before);
        *before = now;
        return r;
}

int manifest_pack(const Manifest *manifest, int *ret_memfd) {
        Baton__Handover__Manifest message = BATON__HANDOVER__MANIFEST__INIT;
        _cleanup_free_ uint8_t *packed = NULL;

        message.version = manifest->version;
        message.descriptors = manifest->entries;
        message.n_descriptors = manifest->n;
        packed = malloc(baton__handover__manifest__get_packed_size(&message) + 1);
        if (!packed)
                return -ENOMEM;
        return memfd_sealed("manifest", packed, baton__handover__manifest__pack(&message, packed), ret_memfd);
}

/* ------------------------------------------------------------------------------------------------------------- taking */

static int compare_names(const void *a, const void *b, void *entries) {
        Descriptor *const *all = entries;

        return strcmp(all[*(const uint32_t *) a]->name, all[*(const uint32_t *) b]->name);
}

/* index_names() - for manifest_take(); two of one name cannot be told apart. */
static int index_names(Manifest *manifest, char reason[MANIFEST_REASON_SIZE]) {
        manifest->sorted = calloc(manifest->n + 1, sizeof(*manifest->sorted));
        if (!manifest->sorted)
                return fail(reason, -ENOMEM, "no memory for a manifest of %zu descriptors", manifest->n);
        for (size_t i = 0; i < manifest->n; i++)
                manifest->sorted[i] = (uint32_t) i;
        qsort_r(manifest->sorted, manifest->n, sizeof(*manifest->sorted), compare_names, manifest->entries);
        for (size_t i = 1; i < manifest->n; i++)
                if (compare_names(&manifest->sorted[i - 1], &manifest->sorted[i], manifest->entries) == 0)
                        return fail(reason, -EPROTO, "the manifest lists %s twice",
                                    manifest->entries[manifest->sorted[i]]->name);
        return 0;
}

/* adopt() - copies: the unpacked message goes as a whole, with whatever else there was in it. */
static int adopt(Manifest *manifest, const Baton__Handover__Manifest *message, char reason[MANIFEST_REASON_SIZE]) {
        manifest->received = true;
        manifest->version = message->version;
        for (size_t i = 0; i < message->n_descriptors; i++)
                if (copy_entry(manifest, message->descriptors[i]) < 0)
                        return fail(reason, -ENOMEM, "no memory for a manifest of %zu descriptors",
                                    message->n_descriptors);
        return index_names(manifest, reason);
}

/* read_message() - as far as it is one, of at most so many descriptors; NULL, with @ret_error and @reason. */
static Baton__Handover__Manifest *read_message(int memfd, size_t most, int *ret_error,
                                               char reason[MANIFEST_REASON_SIZE]) {
        uint64_t size_max = MIN((uint64_t) MANIFEST_SIZE_MAX, (uint64_t) (most + 1) * MANIFEST_ENTRY_MAX);
        Baton__Handover__Manifest *message;
        MemfdMapping mapping;
        int r = memfd_map_sealed(memfd, size_max, &mapping);

        if (r < 0) {
                *ret_error = fail(reason, r, "the manifest is no sealed memory of at most %ju bytes: %s",
                                  (uintmax_t) size_max, strerror(-r));
                return NULL;
        }
        message = message_unpack(&baton__handover__manifest__descriptor, mapping.data, mapping.size);
        memfd_unmap(&mapping);
        if (!message)
                *ret_error = fail(reason, -EPROTO, "the manifest cannot be read");
        return message;
}

int manifest_unpack(Manifest *ret_manifest, int memfd, uint32_t min, uint32_t max, size_t most,
                    char reason[MANIFEST_REASON_SIZE]) {
        _cleanup_message_ Baton__Handover__Manifest *message = NULL;
        Manifest manifest = MANIFEST_NULL;
        int r = 0;

        message = read_message(memfd, most, &r, reason);
        if (!message)
                return r;
        if (message->version < min || message->version > max)
                r = fail(reason, -EPROTONOSUPPORT, "the state is of version %u, and %u to %u is understood",
                         message->version, min, max);
        else if (message->n_descriptors > most)
                r = fail(reason, -E2BIG, "the manifest lists %zu descriptors, and %zu are possible",
                         message->n_descriptors, most);
        else
                r = adopt(&manifest, message, reason);
        if (r < 0) {
                manifest_deinit(&manifest);
                return r;
        }
        *ret_manifest = manifest;
        return 0;
}

int manifest_accept(Manifest *manifest, size_t i, int fd_consume, char reason[MANIFEST_REASON_SIZE]) {
        _cleanup_fd_ int fd = fd_consume;
        const Descriptor *wanted = manifest->entries[i];
        Descriptor found;
        const char *difference;

        assert(manifest->received && i < manifest->n);
        if (manifest->fds[i] >= 0)
                return fail(reason, -EPROTO, "%s came twice", wanted->name);
        baton__handover__descriptor__init(&found);
        if (describe(fd, &found) < 0)
                return fail(reason, -EBADF, "%s: what came is no descriptor", wanted->name);
        if (found.type != wanted->type)
                return fail(reason, -EPROTO, "%s is %s, and should be %s", wanted->name, type_name((int) found.type),
                            type_name((int) wanted->type));
        difference = compare(wanted, &found);
        if (difference)
                return fail(reason, -EPROTO, "%s is %s, but %s", wanted->name, type_name((int) found.type),
                            difference);
        manifest->fds[i] = fd_take(&fd);
        return 0;
}

/* find() - where in @sorted @name is, or has to be inserted. */
static size_t find(const Manifest *manifest, const char *name, bool *ret_found) {
        size_t low = 0, high = manifest->n;

        *ret_found = false;
        while (low < high && !*ret_found) {
                size_t middle = low + (high - low) / 2;
                int order = strcmp(name, manifest->entries[manifest->sorted[middle]]->name);

                *ret_found = order == 0;
                if (order > 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return high;
}

int manifest_give_back(Manifest *manifest, const char *name, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        Descriptor *descriptor;
        uint32_t *sorted;
        size_t place;
        bool found;

        assert(manifest->received);
        place = find(manifest, name, &found);
        if (found)
                return 0;
        sorted = reallocarray(manifest->sorted, manifest->n + 1, sizeof(*sorted));
        if (sorted)
                manifest->sorted = sorted;
        if (!sorted || make_room(manifest) < 0 || !(descriptor = new_descriptor(name)))
                return -ENOMEM;
        memmove(sorted + place + 1, sorted + place, (manifest->n - place) * sizeof(*sorted));
        sorted[place] = (uint32_t) manifest->n;
        manifest->entries[manifest->n] = descriptor;
        manifest->fds[manifest->n++] = fd_take(&fd);
        return 0;
}

int manifest_take(Manifest *manifest, const char *name) {
        bool found;
        size_t place = find(manifest, name, &found);

        return found ? fd_take(&manifest->fds[manifest->sorted[place]]) : -1;
}

bool manifest_has(const Manifest *manifest, const char *name) {
        bool found;
        size_t place = find(manifest, name, &found);

        return found && manifest->fds[manifest->sorted[place]] >= 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Fds: what is held of a runner across its instances, described by what the kernel says of each descriptor. */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/text.h"
#include "supervisor/control-internal.h"
#include "supervisor/holder.h"
#include "supervisor/socket-address.h"

enum { KEPT_MAX = 4096, TYPE_SIZE = 64, ADDRESS_SIZE = 2 * SOCKET_ADDRESS_TEXT_SIZE + 8 };

typedef struct Described {
        Baton__Control__HeldFd message;
        char type[TYPE_SIZE], address[ADDRESS_SIZE];
} Described;

static void describe_socket(int fd, Described *described) {
        struct sockaddr_storage local, peer;
        socklen_t length = sizeof(local), peer_length = sizeof(peer);
        char text[SOCKET_ADDRESS_TEXT_SIZE], peer_text[SOCKET_ADDRESS_TEXT_SIZE];
        SocketType type;

        (void) snprintf(described->type, TYPE_SIZE, "%s",
                        socket_type_of(fd, &type) ? socket_type_name(type) : "socket");
        if (getsockname(fd, (struct sockaddr *) &local, &length) < 0)
                return;
        (void) socket_address_text((const struct sockaddr *) &local, length, text);
        if (getpeername(fd, (struct sockaddr *) &peer, &peer_length) == 0)
                (void) snprintf(described->address, ADDRESS_SIZE, "%s -> %s", text,
                                socket_address_text((const struct sockaddr *) &peer, peer_length, peer_text));
        else
                (void) snprintf(described->address, ADDRESS_SIZE, "%s", text);
}

/* describe_other() - by the name that the kernel shows: "/memfd:x (deleted)", "anon_inode:[eventfd]", "pipe:[123]", a path. */
static void describe_other(int fd, mode_t mode, Described *described) {
        char path[64], text[PATH_MAX];
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, text, sizeof(text) - 1);
        text[MAX(n, (ssize_t) 0)] = '\0';
        (void) text_mend(text);
        if (text_begins(text, "/memfd:")) {
                (void) snprintf(described->type, TYPE_SIZE, "memfd");
                (void) snprintf(described->address, ADDRESS_SIZE, "%.*s",
                                (int) MIN(strcspn(text + 7, " "), (size_t) 250), text + 7);
        } else if (text_begins(text, "anon_inode:")) {
                (void) snprintf(described->type, TYPE_SIZE, "%.*s", (int) strcspn(text + 11, "]") - (text[11] == '['),
                                text + 11 + (text[11] == '['));
        } else {
                (void) snprintf(described->type, TYPE_SIZE, "%s",
                                S_ISREG(mode)    ? "file"
                                : S_ISDIR(mode)  ? "directory"
                                : S_ISFIFO(mode) ? "pipe"
                                : S_ISCHR(mode)  ? "device"
                                : S_ISBLK(mode)  ? "block device"
                                                 : "descriptor");
                if (*text == '/')
                        (void) snprintf(described->address, ADDRESS_SIZE, "%.250s", text);
        }
        (void) text_mend(described->address); /* it may have been cut in a character */
}

/* describe() - @entry is what is known of it, or of what it is a part of; @name is its own. */
static void describe(int fd, const char *name, const BoardEntry *entry, Described *described) {
        Baton__Control__HeldFd *message = &described->message;
        struct stat st;

        baton__control__held_fd__init(message);
        if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
                describe_socket(fd, described);
        else
                describe_other(fd, fstat(fd, &st) == 0 ? st.st_mode : 0, described);
        message->kind = entry->kind == BOARD_STORED       ? BATON__CONTROL__HELD_FD__KIND__STORED
                        : entry->kind == BOARD_CHECKPOINT ? BATON__CONTROL__HELD_FD__KIND__CHECKPOINT
                        : entry->kind == BOARD_ATTACHED   ? BATON__CONTROL__HELD_FD__KIND__CLIENT
                                                          : BATON__CONTROL__HELD_FD__KIND__SOCKET;
        message->name = (char *) name;
        message->type = described->type;
        message->address = described->address;
        message->time_us = entry->since_wall_us;
        message->no_poll = entry->flags & BOARD_NO_POLL;
}

static size_t count(const Held *held) {
        size_t n = 0;

        for (; held; held = holder_next(held))
                n++;
        return n;
}

static size_t describe_held(const Holder *holder, const Held *held, Described *described) {
        size_t n = 0;

        for (; held; held = holder_next(held)) {
                const BoardEntry *entry = holder_entry(holder, held);

                describe(holder_fd(held), entry->name, entry, &described[n++]);
        }
        return n;
}

static size_t describe_kept(const Holder *holder, const Kept *kept, size_t n, Described *described) {
        for (size_t i = 0; i < n; i++)
                describe(kept->manifest.fds[i], kept->manifest.entries[i]->name, holder_kept_entry(holder, kept),
                         &described[i]);
        return n;
}

void control_fds(Control *control, Call *call, const ProtobufCMessage *request) {
        const char *name = ((const Baton__Control__FdsRequest *) request)->name;
        Baton__Control__FdsResponse response = BATON__CONTROL__FDS_RESPONSE__INIT;
        const Holder *holder = control->supervisor->holder;
        const Runner *runner = control_find(control->supervisor, call, name);
        _cleanup_free_ Baton__Control__HeldFd **pointers = NULL;
        _cleanup_free_ Described *all = NULL;
        const Kept *kept = runner ? holder_kept(holder, runner) : NULL;
        size_t n_kept = kept ? kept->manifest.n : 0, n;

        if (!runner)
                return;
        response.unlisted = (uint32_t) (n_kept - MIN(n_kept, (size_t) KEPT_MAX));
        n_kept -= response.unlisted;
        n = count(holder_first(holder, runner)) + n_kept + count(holder_first_lane(holder, runner));
        all = calloc(n + 1, sizeof(*all));
        pointers = calloc(n + 1, sizeof(Baton__Control__HeldFd *));
        if (!all || !pointers) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return;
        }
        n = describe_held(holder, holder_first(holder, runner), all);
        for (size_t i = 0; i < n; i++)
                all[i].message.fd = (uint32_t) (3 + i);
        if (kept)
                n += describe_kept(holder, kept, n_kept, all + n);
        n += describe_held(holder, holder_first_lane(holder, runner), all + n);
        for (size_t i = 0; i < n; i++)
                pointers[i] = &all[i].message;
        response.fds = pointers;
        response.n_fds = n;
        response.store_max = runner->config->fd_store_max;
        (void) call_answer_message(call, &response.base);
}

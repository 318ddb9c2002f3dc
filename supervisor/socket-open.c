/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Socket, opened. A path that is there already is looked at first: what is no socket is never touched; a socket is asked by
 * connecting to it, and only one that nobody answers by is replaced. Between bind() and chmod() nobody can use it: it is made
 * without any permission. TCP sockets may be bound where a connection of an earlier one still lingers (SO_REUSEADDR);
 * others could be shared by that with a stranger, and get it only by `reuse_port'.
 *
 * The descriptors block, as those of systemd.socket(5) do: programs that do not want that set it themselves.
 */

#include "supervisor/socket-open.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"

typedef struct Opening {
        const ConfigSocket *config;
        const char *address;
        char *error;
} Opening;

static _printf_(3, 4) int fail(const Opening *opening, int result, const char *format, ...) {
        va_list arguments;
        int n = snprintf(opening->error, SOCKET_ERROR_SIZE, "%s %.108s: ", socket_type_name(opening->config->type),
                         opening->address);

        va_start(arguments, format);
        (void) vsnprintf(opening->error + n, (size_t) (SOCKET_ERROR_SIZE - n), format, arguments);
        va_end(arguments);
        return result;
}

static int parse(const Opening *opening, SocketAddress *ret_address) {
        int r = socket_address_parse(opening->config->type, opening->address, ret_address);

        return r < 0 ? fail(opening, r, "is no such address") : 0;
}

/* ---------------------------------------------------------------------------------------------------------- its path */

/* answers() - whether somebody listens at @address, of whatever type. */
static bool answers(const SocketAddress *address) {
        _cleanup_fd_ int fd = socket(AF_UNIX, address->kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return true;
        if (connect(fd, (const struct sockaddr *) &address->storage, address->length) == 0)
                return true;
        return errno != ECONNREFUSED && errno != ENOENT;
}

static int make_room(const Opening *opening, const SocketAddress *address) {
        const char *path = socket_address_path(address);
        struct stat st;

        if (!path || lstat(path, &st) < 0)
                return 0;
        if (!S_ISSOCK(st.st_mode))
                return fail(opening, -EEXIST, "is there already, and no socket");
        if (answers(address))
                return fail(opening, -EADDRINUSE, "somebody listens there already");
        return unlink(path) < 0 ? fail(opening, -errno, "cannot replace it: %s", strerror(errno)) : 0;
}

static int set_path(const Opening *opening, const SocketAddress *address) {
        const char *path = socket_address_path(address);
        const ConfigSocket *config = opening->config;

        if (!path)
                return 0;
        if ((config->uid != (uid_t) -1 || config->gid != (gid_t) -1) && lchown(path, config->uid, config->gid) < 0)
                return fail(opening, -errno, "cannot change its owner: %s", strerror(errno));
        return chmod(path, config->mode) < 0 ? fail(opening, -errno, "cannot change its mode: %s", strerror(errno))
                                             : 0;
}

void socket_remove_path(int fd) {
        SocketAddress address = { .type = SOCKET_UNIX_STREAM, .family = AF_UNIX, .length = sizeof(address.storage) };
        SocketType type;
        struct stat st;

        if (!socket_type_of(fd, &type) || type < SOCKET_UNIX_STREAM ||
            getsockname(fd, (struct sockaddr *) &address.storage, &address.length) < 0)
                return;
        ((char *) &address.storage)[MIN((size_t) address.length, sizeof(address.storage) - 1)] = '\0';
        if (socket_address_path(&address) && lstat(socket_address_path(&address), &st) == 0 && S_ISSOCK(st.st_mode))
                (void) unlink(socket_address_path(&address));
}

/* ------------------------------------------------------------------------------------------------------------ opening */

static int set_options(const Opening *opening, const SocketAddress *address, int fd) {
        const ConfigSocket *config = opening->config;
        const struct {
                bool wanted;
                int level, option, value;
                const char *name;
        } options[] = {
                { address->type == SOCKET_TCP, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR" },
                { config->reuse_port, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT" },
                { address->family == AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, config->ipv6_only, "IPV6_V6ONLY" },
                { config->free_bind, IPPROTO_IP, IP_FREEBIND, 1, "IP_FREEBIND" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(options); i++)
                if (options[i].wanted && setsockopt(fd, options[i].level, options[i].option, &options[i].value,
                                                    sizeof(options[i].value)) < 0)
                        return fail(opening, -errno, "cannot set %s: %s", options[i].name, strerror(errno));
        return 0;
}

static int bind_to(const Opening *opening, const SocketAddress *address, int fd) {
        mode_t before = umask(0777);
        int r = bind(fd, (const struct sockaddr *) &address->storage, address->length) < 0 ? -errno : 0;

        (void) umask(before);
        if (r == -ENOENT)
                return fail(opening, r, "its directory is not there");
        return r < 0 ? fail(opening, r, "%s", strerror(-r)) : 0;
}

static int begin_listening(const Opening *opening, const SocketAddress *address, int fd) {
        if (address->kind == SOCK_DGRAM || listen(fd, (int) opening->config->backlog) == 0)
                return 0;
        return fail(opening, -errno, "%s", strerror(errno));
}

/* make_socket() - where there is no IPv6, a port alone means all of IPv4. */
static int make_socket(const Opening *opening, SocketAddress *address) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *) &address->storage;
        struct sockaddr_in in = { .sin_family = AF_INET };
        int fd = socket(address->family, address->kind | SOCK_CLOEXEC, 0);

        if (fd < 0 && errno == EAFNOSUPPORT && address->family == AF_INET6 &&
            IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr)) {
                in.sin_port = in6->sin6_port;
                memcpy(&address->storage, &in, sizeof(in));
                address->length = sizeof(in);
                address->family = AF_INET;
                fd = socket(address->family, address->kind | SOCK_CLOEXEC, 0);
        }
        return fd < 0 ? fail(opening, -errno, "%s", strerror(errno)) : fd;
}

int socket_open(const ConfigSocket *config, const char *address_text, int *ret_fd, char error[SOCKET_ERROR_SIZE]) {
        const Opening opening = { config, address_text, error };
        _cleanup_fd_ int fd = -1;
        SocketAddress address;
        int r = parse(&opening, &address);

        if (r == 0)
                r = fd = make_socket(&opening, &address);
        if (r >= 0)
                r = set_options(&opening, &address, fd);
        if (r >= 0)
                r = make_room(&opening, &address);
        if (r >= 0)
                r = bind_to(&opening, &address, fd);
        if (r < 0)
                return r;
        r = set_path(&opening, &address);
        if (r == 0)
                r = begin_listening(&opening, &address, fd);
        if (r < 0) {
                socket_remove_path(fd);
                return r;
        }
        *ret_fd = fd_take(&fd);
        return 0;
}

int socket_adjust(const ConfigSocket *config, const char *address_text, int fd, char error[SOCKET_ERROR_SIZE]) {
        const Opening opening = { config, address_text, error };
        SocketAddress address;
        int r = parse(&opening, &address);

        if (r == 0)
                r = set_path(&opening, &address);
        return r == 0 ? begin_listening(&opening, &address, fd) : r;
}

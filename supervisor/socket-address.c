/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Socket address. A port alone means all addresses, by one IPv6 socket for both families, as people expect of a daemon that
 * is told nothing but a port. What comes back from the kernel is written in the form that would be read.
 */

#include "supervisor/socket-address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/macro.h"
#include "common/parse.h"
#include "common/text.h"

static const struct {
        const char *name;
        int kind;
        bool is_unix;
} types[] = {
        [SOCKET_TCP] = { "tcp", SOCK_STREAM, false },
        [SOCKET_UDP] = { "udp", SOCK_DGRAM, false },
        [SOCKET_UNIX_STREAM] = { "unix stream", SOCK_STREAM, true },
        [SOCKET_UNIX_DGRAM] = { "unix dgram", SOCK_DGRAM, true },
        [SOCKET_UNIX_SEQPACKET] = { "unix seqpacket", SOCK_SEQPACKET, true },
};
_Static_assert(ARRAY_SIZE(types) == _SOCKET_TYPE_N, "a row for each type");

static int parse_unix(const char *text, SocketAddress *address) {
        struct sockaddr_un *un = (struct sockaddr_un *) &address->storage;
        size_t length = strlen(text);

        if ((*text != '/' && *text != '@') || length < 2)
                return -EINVAL;
        if (length >= sizeof(un->sun_path))
                return -ENAMETOOLONG;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text, length + 1);
        address->length = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length + 1);
        if (*text == '@') { /* its length is part of the name */
                un->sun_path[0] = '\0';
                address->length--;
        }
        return 0;
}

/* split() - the host, without brackets; "": any. False: it has another form. */
static bool split(const char *text, char *host, size_t size, uint64_t *ret_port) {
        const char *colon = strrchr(text, ':');
        size_t length = colon ? (size_t) (colon - text) : 0;
        bool bracketed = length > 2 && *text == '[' && text[length - 1] == ']';

        if (parse_u64(colon ? colon + 1 : text, 65535, ret_port) < 0 || *ret_port == 0)
                return false;
        if (!colon || (length == 1 && *text == '*'))
                length = 0;
        else if (length == 0)
                return false;
        if (bracketed) {
                text++;
                length -= 2;
        }
        if (length >= size || (length > 0 && bracketed != !!memchr(text, ':', length)))
                return false;
        memcpy(host, text, length);
        host[length] = '\0';
        return true;
}

static int parse_inet(const char *text, SocketAddress *address) {
        const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                        .ai_socktype = address->kind };
        struct addrinfo *found;
        char host[64], port[8];
        uint64_t number;

        if (!split(text, host, sizeof(host), &number))
                return -EINVAL;
        (void) snprintf(port, sizeof(port), "%u", (unsigned) number);
        if (getaddrinfo(*host ? host : "::", port, &hints, &found) != 0)
                return -EINVAL;
        memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
        address->length = found->ai_addrlen;
        freeaddrinfo(found);
        return 0;
}

int socket_address_parse(SocketType type, const char *text, SocketAddress *ret_address) {
        SocketAddress address = { .type = type, .kind = types[type].kind };
        int r = types[type].is_unix ? parse_unix(text, &address) : parse_inet(text, &address);

        if (r < 0)
                return r;
        address.family = address.storage.ss_family;
        *ret_address = address;
        return 0;
}

const char *socket_address_path(const SocketAddress *address) {
        const struct sockaddr_un *un = (const struct sockaddr_un *) &address->storage;

        return address->family == AF_UNIX && un->sun_path[0] ? un->sun_path : NULL;
}

static const char *unix_text(const struct sockaddr_un *un, socklen_t length, char *text) {
        size_t size = length - offsetof(struct sockaddr_un, sun_path);

        if (un->sun_path[0])
                (void) snprintf(text, SOCKET_ADDRESS_TEXT_SIZE, "%.*s", (int) strnlen(un->sun_path, size),
                                un->sun_path);
        else
                (void) snprintf(text, SOCKET_ADDRESS_TEXT_SIZE, "@%.*s", (int) strnlen(un->sun_path + 1, size - 1),
                                un->sun_path + 1);
        (void) text_mend(text);
        return text;
}

const char *socket_address_text(const struct sockaddr *address, socklen_t length,
                                char text[SOCKET_ADDRESS_TEXT_SIZE]) {
        char host[64], port[8];

        (void) snprintf(text, SOCKET_ADDRESS_TEXT_SIZE, "-");
        if (address->sa_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path))
                return unix_text((const struct sockaddr_un *) (const void *) address, length, text);
        if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
            getnameinfo(address, length, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                return text;
        (void) snprintf(text, SOCKET_ADDRESS_TEXT_SIZE, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
                        port);
        return text;
}

const char *socket_type_name(SocketType type) {
        return types[type].name;
}

bool socket_type_of(int fd, SocketType *ret_type) {
        int domain, kind, protocol;
        socklen_t size = sizeof(int);

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) < 0 ||
            getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0)
                return false;
        if (domain != AF_UNIX &&
            ((domain != AF_INET && domain != AF_INET6) || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)))
                return false;
        for (SocketType type = 0; type < _SOCKET_TYPE_N; type++)
                if (types[type].kind == kind && types[type].is_unix == (domain == AF_UNIX)) {
                        *ret_type = type;
                        return true;
                }
        return false;
}

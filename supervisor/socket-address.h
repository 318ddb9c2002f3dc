#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Addresses that sockets are bound to: from text to what the kernel takes, and back. Nothing is looked up by name. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

typedef enum SocketType {
        SOCKET_TCP,
        SOCKET_UDP,
        SOCKET_UNIX_STREAM,
        SOCKET_UNIX_DGRAM,
        SOCKET_UNIX_SEQPACKET,
        _SOCKET_TYPE_N,
} SocketType;

enum { SOCKET_ADDRESS_TEXT_SIZE = 128 };

typedef struct SocketAddress {
        SocketType type;
        int family, kind; /* of socket() */
        socklen_t length;
        struct sockaddr_storage storage;
} SocketAddress;

/*
 * socket_address_parse() - "127.0.0.1:80", "[::1]:80", "80" or "*:80" (all of IPv6 and, unless forbidden, of IPv4), of a unix
 * socket "/path" or "@name", an abstract one. 0; -EINVAL: no such address; -ENAMETOOLONG: of a unix socket.
 */
int socket_address_parse(SocketType type, const char *text, SocketAddress *ret_address);

/* socket_address_path() - of a unix socket in the file system; NULL: it is none. */
const char *socket_address_path(const SocketAddress *address);

/* socket_address_text() - as it would be written, whatever the kernel has answered; "-": it has none. Returns @text. */
const char *socket_address_text(const struct sockaddr *address, socklen_t length, char text[SOCKET_ADDRESS_TEXT_SIZE]);

/* socket_type_name() - "tcp", "udp", "unix stream", ... */
const char *socket_type_name(SocketType type);

/* socket_type_of() - of the socket @fd. False: it is none of these. */
bool socket_type_of(int fd, SocketType *ret_type);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Roles: what a client of the control socket may do, by what the kernel says of its connection. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

typedef struct RolePolicy RolePolicy;

/* Each includes those before it. */
typedef enum Role {
        ROLE_NOTHING,
        ROLE_READ,    /* see what there is */
        ROLE_OPERATE, /* change what runs */
        ROLE_ADMIN,   /* run other programs, end the supervisor */
        _ROLE_N,
} Role;

struct RolePolicy {
        uid_t owner; /* admin, as root is: the user that the supervisor runs as */
        bool has_operators;
        gid_t operators; /* the group whose members operate */
        Role others;     /* of everybody else: NOTHING or READ */
};

/* role_of() - of a user with these groups. */
Role role_of(const RolePolicy *policy, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);

/*
 * role_of_socket() - of the process that connected @fd; who that is in @ret_client. What the kernel does not tell counts
 * as not being a member.
 */
Role role_of_socket(const RolePolicy *policy, int fd, struct ucred *ret_client);

/* role_name() - "nothing", "read", "operate", "admin". */
const char *role_name(Role role);

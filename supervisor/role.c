/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Roles. The groups are those that the client had when it connected (SO_PEERGROUPS): what the group database says may have
 * changed since it logged in, and looking there could wait for a network.
 */

#include "supervisor/role.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/macro.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

enum {
        GROUPS_USUAL = 64,
        GROUPS_MAX = 65536, /* the kernel's bound */
};

Role role_of(const RolePolicy *policy, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        if (uid == 0 || uid == policy->owner)
                return ROLE_ADMIN;
        if (policy->has_operators) {
                if (gid == policy->operators)
                        return ROLE_OPERATE;
                for (size_t i = 0; i < n_groups; i++)
                        if (groups[i] == policy->operators)
                                return ROLE_OPERATE;
        }
        return policy->others;
}

/* peer_groups() - how many, in @usual or else in @ret_many. 0: none, or the kernel does not tell. */
static size_t peer_groups(int fd, gid_t usual[GROUPS_USUAL], gid_t **ret_many) {
        socklen_t size = GROUPS_USUAL * sizeof(*usual);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, usual, &size) == 0)
                return size / sizeof(*usual);
        if (errno != ERANGE || size > GROUPS_MAX * sizeof(*usual))
                return 0;
        *ret_many = malloc(size);
        if (!*ret_many || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, *ret_many, &size) < 0)
                return 0;
        return size / sizeof(*usual);
}

Role role_of_socket(const RolePolicy *policy, int fd, struct ucred *ret_client) {
        _cleanup_free_ gid_t *many = NULL;
        gid_t usual[GROUPS_USUAL];
        size_t n;

        *ret_client = (struct ucred){ .uid = (uid_t) -1, .gid = (gid_t) -1 };
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret_client, &(socklen_t){ sizeof(*ret_client) }) < 0 ||
            ret_client->uid == (uid_t) -1)
                return ROLE_NOTHING;
        n = peer_groups(fd, usual, &many);
        return role_of(policy, ret_client->uid, ret_client->gid, many ? many : usual, n);
}

static const char *const names[] = {
        [ROLE_NOTHING] = "nothing",
        [ROLE_READ] = "read",
        [ROLE_OPERATE] = "operate",
        [ROLE_ADMIN] = "admin",
};
static_assert(ARRAY_SIZE(names) == _ROLE_N, "a name for each");

const char *role_name(Role role) {
        return names[role < _ROLE_N ? role : ROLE_NOTHING];
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * State: what crosses to a successor. It is small and constant; everything that changes is in the table and in the vault,
 * which both processes hold. So one checkpoint after mounting is enough for the life of the mount, and an upgrade is the
 * same as a failover but for its good manners.
 */

#include "runner/fuse/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "runner/fuse/state.pb-c.h"

#define TIMEOUT_MAX_NS (UINT64_C(3600) * 1000000000)

static const char *const fd_names[] = {
        [STATE_FD_DEVICE] = "device",     [STATE_FD_ROOT] = "root",           [STATE_FD_TABLE] = "table",
        [STATE_FD_VAULT_IN] = "vault/in", [STATE_FD_VAULT_OUT] = "vault/out",
};
_Static_assert(ARRAY_SIZE(fd_names) == _STATE_FD_N, "each has a name");

const char *state_fd_name(unsigned i) {
        return fd_names[i];
}

void state_deinit(State *state) {
        free(state->source);
        free(state->mount_point);
        *state = (State){ 0 };
}

int state_pack(const State *state, uint8_t **ret_data, size_t *ret_size) {
        Baton__Fuse__State message = BATON__FUSE__STATE__INIT;

        message.source = state->source;
        message.mount_point = state->mount_point;
        message.minor = state->terms.minor;
        message.flags = state->terms.flags;
        message.can_resend = state->terms.can_resend;
        message.timeout_ns = state->timeout_ns;
        *ret_size = baton__fuse__state__get_packed_size(&message);
        *ret_data = malloc(*ret_size + 1);
        if (!*ret_data)
                return -ENOMEM;
        (void) baton__fuse__state__pack(&message, *ret_data);
        return 0;
}

static int refuse(char reason[STATE_REASON_SIZE], int error, const char *what) {
        (void) snprintf(reason, STATE_REASON_SIZE, "the file system's state %s", what);
        return error;
}

static bool path_is_valid(const char *path) {
        return path[0] == '/' && strlen(path) < STATE_PATH_MAX;
}

static int take_over(const Baton__Fuse__State *message, State *state, char reason[STATE_REASON_SIZE]) {
        if (!path_is_valid(message->source) || !path_is_valid(message->mount_point))
                return refuse(reason, -EPROTO, "has no directory or no mount point");
        if (message->minor < REQUEST_MINOR_MIN)
                return refuse(reason, -EPROTO, "is of a mount that no kernel has agreed to");
        if (message->timeout_ns > TIMEOUT_MAX_NS)
                return refuse(reason, -EPROTO, "has a time limit of more than an hour");
        state->terms = (SessionTerms){ message->minor, message->flags, message->can_resend };
        state->timeout_ns = message->timeout_ns;
        state->source = strdup(message->source);
        state->mount_point = strdup(message->mount_point);
        if (state->source && state->mount_point)
                return 0;
        state_deinit(state);
        return refuse(reason, -ENOMEM, "cannot be read");
}

int state_unpack(const void *data, size_t size, State *ret_state, char reason[STATE_REASON_SIZE]) {
        Baton__Fuse__State *message = size <= STATE_SIZE_MAX ? baton__fuse__state__unpack(NULL, size, data) : NULL;
        int r;

        *ret_state = (State){ 0 };
        if (!message)
                return refuse(reason, -EPROTO, "cannot be read");
        r = take_over(message, ret_state, reason);
        baton__fuse__state__free_unpacked(message, NULL);
        return r;
}

void state_fds(Session *session, int ret_fds[_STATE_FD_N]) {
        const Mirror *mirror = session_mirror(session);

        ret_fds[STATE_FD_DEVICE] = session_device(session);
        ret_fds[STATE_FD_ROOT] = mirror->root;
        ret_fds[STATE_FD_TABLE] = mirror->table.fd;
        ret_fds[STATE_FD_VAULT_IN] = mirror->vault.in;
        ret_fds[STATE_FD_VAULT_OUT] = mirror->vault.out;
}

static int check_fds(const int fds[_STATE_FD_N], bool (*is_device)(int fd), char reason[STATE_REASON_SIZE]) {
        struct stat stat;

        for (unsigned i = 0; i < _STATE_FD_N; i++)
                if (fds[i] < 0) {
                        (void) snprintf(reason, STATE_REASON_SIZE, "the file system's state lacks descriptor '%s'",
                                        fd_names[i]);
                        return -EPROTO;
                }
        if (!is_device(fds[STATE_FD_DEVICE]))
                return refuse(reason, -EPROTO, "has something else than /dev/fuse as 'device'");
        if (fstat(fds[STATE_FD_ROOT], &stat) < 0 || !S_ISDIR(stat.st_mode))
                return refuse(reason, -EPROTO, "has something else than a directory as 'root'");
        if (vault_check(fds[STATE_FD_VAULT_IN], fds[STATE_FD_VAULT_OUT]) < 0)
                return refuse(reason, -EPROTO, "has something else than its sockets as 'vault/in' and 'vault/out'");
        return 0;
}

int state_session(const State *state, int fds_consume[_STATE_FD_N], bool (*is_device)(int fd), Session **ret_session,
                  char reason[STATE_REASON_SIZE]) {
        int *fds = fds_consume, r = check_fds(fds, is_device, reason);
        char table_reason[TABLE_REASON_SIZE];
        Vault vault = VAULT_NULL;
        Table table = TABLE_NULL;
        Mirror *mirror;

        if (r == 0) {
                r = table_map(&table, fds[STATE_FD_TABLE], table_reason);
                if (r < 0)
                        (void) snprintf(reason, STATE_REASON_SIZE, "%s", table_reason);
        }
        if (r < 0) {
                fd_close_all(fds, _STATE_FD_N);
                return r;
        }
        vault = (Vault){ .in = fd_take(&fds[STATE_FD_VAULT_IN]), .out = fd_take(&fds[STATE_FD_VAULT_OUT]) };
        r = mirror_new(&mirror, fd_take(&fds[STATE_FD_ROOT]), &table, &vault, state->timeout_ns);
        if (r == 0)
                r = session_new(ret_session, fd_take(&fds[STATE_FD_DEVICE]), mirror);
        if (r < 0)
                (void) snprintf(reason, STATE_REASON_SIZE, "the file system cannot be taken over: %s", strerror(-r));
        fd_close_all(fds, _STATE_FD_N);
        return r;
}

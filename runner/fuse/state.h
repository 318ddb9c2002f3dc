#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The state of a mounted file system as bytes and named descriptors, for baton/runner.h and for tests. */

#include "runner/fuse/session.h"

typedef struct State State;

enum {
        STATE_VERSION = 1,
        STATE_REASON_SIZE = 512,
        STATE_PATH_MAX = 4096,
        STATE_SIZE_MAX = 64 * 1024,
};

/* Its descriptors, by these names. */
enum {
        STATE_FD_DEVICE,
        STATE_FD_ROOT,
        STATE_FD_TABLE,
        STATE_FD_VAULT_IN,
        STATE_FD_VAULT_OUT,
        _STATE_FD_N,
};

struct State {
        char *source, *mount_point;
        SessionTerms terms;
        uint64_t timeout_ns;
};

/* state_fd_name() - of one of the above. */
const char *state_fd_name(unsigned i);

void state_deinit(State *state);

/* state_pack() - into memory that is the caller's to free. 0, -ENOMEM. */
int state_pack(const State *state, uint8_t **ret_data, size_t *ret_size);

/* state_unpack() - bytes of another process. 0, or a negative errno with one line in @reason. */
int state_unpack(const void *data, size_t size, State *ret_state, char reason[STATE_REASON_SIZE]);

/* state_fds() - those of @session, borrowed, in the order of their names. */
void state_fds(Session *session, int ret_fds[_STATE_FD_N]);

/*
 * state_session() - a session with the descriptors of another process: nothing is loaded, and no descriptor is read or
 * written. @fds_consume is taken on every path; @is_device is mount_is_device() but in tests. 0, or a negative errno with
 * one line in @reason.
 */
int state_session(const State *state, int fds_consume[_STATE_FD_N], bool (*is_device)(int fd), Session **ret_session,
                  char reason[STATE_REASON_SIZE]);

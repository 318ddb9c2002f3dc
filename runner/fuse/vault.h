#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Descriptors that outlive this process: each is in a message that lies in a socket, unread. Whoever holds the two ends of
 * the pair keeps the descriptors open, and our successor reads them from there. So what only a descriptor can name (a file
 * without a name, one of a file system without handles) is safe before the request that needs it is answered, at the
 * price of one sendmsg().
 */

#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

typedef struct Vault Vault;

/* @in is written, @out is read; both cross. */
struct Vault {
        int in, out;
        size_t n_live, n_dead; /* messages, by what was dropped since */
};
#define VAULT_NULL ((Vault){ .in = -1, .out = -1 })

/* vault_open() - an empty one. 0 or a negative errno. */
int vault_open(Vault *ret_vault);

/*
 * vault_check() - whether the two descriptors, which another process has sent, can be one. They are looked at, not read.
 * 0, -EINVAL.
 */
int vault_check(int in, int out);

/* vault_close() - accepts VAULT_NULL, and leaves it. */
void vault_close(Vault *vault);

/* vault_put() - keeps what @fd stands for under @node. 0; -EAGAIN: it is full; -ETOOMANYREFS; -EMFILE. */
int vault_put(Vault *vault, uint64_t node, int fd);

/*
 * vault_drop() - @node's is not needed any more. It goes when that is cheap: at once where there are few. @find says what
 * still is: the descriptor of a node, borrowed, or -1 where it has none any more.
 */
void vault_drop(Vault *vault, int (*find)(uint64_t node, void *userdata), void *userdata);

/*
 * vault_load() - all that is in it, which stays in it: @take is called for each with a descriptor that is its own, and
 * says by a negative errno that the loading is to end. The same node may come twice. 0, or a negative errno.
 */
int vault_load(Vault *vault, int (*take)(uint64_t node, int fd_consume, void *userdata), void *userdata);

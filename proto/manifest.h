#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Manifest: the descriptors that cross when a process is replaced, typed, so that the successor can tell that what arrived
 * is what was meant before anything depends on it. One for takeovers of the supervisor and upgrades of runners.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"
#include "proto/handover.pb-c.h"

typedef struct Manifest Manifest;

enum {
        MANIFEST_NAME_MAX = 255,        /* bytes */
        MANIFEST_FDS_MAX = 1024 * 1024, /* no process may have more open */
        MANIFEST_SIZE_MAX = 256 * 1024 * 1024,
        MANIFEST_ENTRY_MAX = 512, /* bytes that one descriptor's description takes at most, packed */
        MANIFEST_REASON_SIZE = 512,
};

/* The descriptors are borrowed by a manifest that is given, and owned by one that was received. */
struct Manifest {
        uint32_t version;
        size_t n, n_room;
        Baton__Handover__Descriptor **entries;
        int *fds;         /* -1: not arrived, or taken */
        uint32_t *sorted; /* numbers in the order of their names; only in one that was received */
        bool received;
};
#define MANIFEST_NULL ((Manifest){ 0 })

/* manifest_deinit() - accepts MANIFEST_NULL, and leaves it. */
void manifest_deinit(Manifest *manifest);

/*
 * manifest_add() - describes @fd, which stays the caller's and must stay open. 0; -EINVAL: a name that is empty, too long
 * or no UTF-8; -EBADF; -ENOSPC: too many; -ENOMEM. That names are unique is the caller's to see to.
 */
int manifest_add(Manifest *manifest, const char *name, int fd);

/*
 * manifest_keep_new() - of what was added from number @from on, goes what @before has under the same name and described by
 * the same: whoever was given @before has it. @before becomes what there was. Only PREFIX/lane and PREFIX/channel/N
 * can be the same: what else a connection has is always new. 0 or
 * -ENOMEM.
 */
int manifest_keep_new(Manifest *manifest, size_t from, Manifest *before);

/* manifest_pack() - into a sealed memfd. 0 or a negative errno. */
int manifest_pack(const Manifest *manifest, int *ret_memfd);

/*
 * manifest_unpack() - from a memfd that came from another process: no descriptor has arrived yet. 0, or a negative errno
 * with one line in @reason: -EPROTO where it is no manifest, -EPROTONOSUPPORT where its version is not in @min to @max,
 * -E2BIG where it lists more than @most descriptors; what it takes in memory is bounded by that, too.
 */
int manifest_unpack(Manifest *ret_manifest, int memfd, uint32_t min, uint32_t max, size_t most,
                    char reason[MANIFEST_REASON_SIZE]);

/*
 * manifest_accept() - takes @fd_consume as number @i, if it is what the entry says. 0, or a negative errno with one line in
 * @reason: `runner/web.1/stdout is a socket, and should be a pipe'.
 */
int manifest_accept(Manifest *manifest, size_t i, int fd_consume, char reason[MANIFEST_REASON_SIZE]);

/*
 * manifest_give_back() - into one that was received: @fd_consume, which was taken from another one and is known to be what it
 * should, under @name, unless that is there already. 0 or -ENOMEM; taken on every path.
 */
int manifest_give_back(Manifest *manifest, const char *name, int fd_consume);

/* manifest_take() - of one that was received: the descriptor called @name, now the caller's; -1: none, or taken before. */
int manifest_take(Manifest *manifest, const char *name);

/* manifest_has() - of one that was received: whether manifest_take() would find it. */
bool manifest_has(const Manifest *manifest, const char *name);

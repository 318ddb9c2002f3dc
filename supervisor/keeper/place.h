#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The runtime directory of a daemon: that it is ours, that nobody else runs on it, and the control socket. */

#include <sys/types.h>

typedef struct PlaceOptions {
        const char *runtime_dir, *state_dir, *log_dir; /* absolute */
        const char *socket;
} PlaceOptions;

typedef struct Place {
        const char *socket; /* borrowed */
        int lock;           /* the singleton's: an OFD lock, ours as long as it is open; -1: none */
        dev_t device;       /* of the socket that we have bound */
        ino_t inode;
} Place;
#define PLACE_NULL ((Place){ .lock = -1 })

/*
 * place_open() - makes the directories (the runtime one and `boot' in it, ours and writable by nobody else; the others may
 * fail, which is said), locks, and listens: the new listener in @ret_listener, the caller's. Returns 0 or a negative errno,
 * having said in one line what is wrong and what to do.
 */
int place_open(Place *place, const PlaceOptions *options, int *ret_listener);

/* place_close() - the socket goes, if it is still ours, then the lock. Accepts one that was not opened. */
void place_close(Place *place);

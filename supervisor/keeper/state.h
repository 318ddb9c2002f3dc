#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * State: all that a keeper knows, in a sealed memfd, for the program that goes on in its place. A header, then records, each
 * with its type and its length, numbers in native byte order:
 *
 * - A record that is shorter than the reader knows it is read as if the rest of it were zero; what it has more is not looked
 *   at. So fields are only ever added at the end, where zero means "as before".
 * - A record of an unknown type is passed over where it says that it may be, else the state is refused.
 * - The writer says which is the oldest reader that can do with it; a reader refuses what is older than one version before
 *   its own. That is one version up and one down.
 *
 * Descriptors are numbers: they stay what they are over the exec.
 */

#include <stddef.h>
#include <stdint.h>

#include "supervisor/keeper/keeper-internal.h"

#define STATE_VERSION 1u
#define STATE_OLDEST  1u /* the oldest reader that what is written here can be read by */

enum { STATE_REASON_SIZE = 128 };

/* Of the header, for tests; followed by records. */
typedef struct StateHeader {
        char magic[8]; /* STATE_MAGIC */
        uint32_t version, oldest;
} StateHeader;
#define STATE_MAGIC "batonkpr"

enum { STATE_OPTIONAL = 1 }; /* of a record that may be passed over */

typedef struct StateRecord {
        uint16_t type, flags;
        uint32_t size; /* of what follows, and is filled up to a multiple of 8 */
} StateRecord;

/* state_save() - of a keeper that serves, and whose supervisor does. 0, or a negative errno. */
int state_save(Keeper *k, int *ret_memfd);

/*
 * state_restore() - into @k, which has no table yet. 0, or a negative errno with why in @reason: then everything that it
 * names is still open.
 */
int state_restore(Keeper *k, int memfd, char reason[STATE_REASON_SIZE]);

/* state_inherit() - whether a program that is executed from now on gets every descriptor that @k would need to go on. */
void state_inherit(Keeper *k, bool inherit);

#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The holder: descriptors that belong to a runner and not to one instance of it. Its sockets, opened as configured before
 * the first start, and what it has stored by FDSTORE=1. Each instance is passed all of them: sockets first, in the order of
 * the configuration, then what was stored, the oldest first. They are with the keeper, too, and on a board that says
 * which is which: so they outlive a supervisor. They go when the runner is at rest: stopped, failed, removed.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/keeper-message.h"
#include "common/macro.h"
#include "supervisor/board.h"

typedef struct Held Held;
typedef struct Holder Holder;
typedef struct HolderPass HolderPass;
typedef struct Instance Instance;
typedef struct Runner Runner;
typedef struct Supervisor Supervisor;

enum { HOLDER_ERROR_SIZE = 512 };

/* What an instance is passed. Descriptors are borrowed. Null value: all zero. */
struct HolderPass {
        size_t n;
        int *fds;
        char *names;  /* "http:control": of all of them */
        char *custom; /* NAME=value of `socket_variable'; NULL: none */
};

/* holder_new() - 0 or -ENOMEM. */
int holder_new(Holder **ret_holder, Supervisor *supervisor);
Holder *holder_free(Holder *holder);

/* holder_adopt() - from the keeper: @fd_consume of instance 0 and kind SOCKET. To be followed by holder_recover(). */
void holder_adopt(Holder *holder, uint64_t tag, int fd_consume);
/* holder_disown() - what was told by that is no more. */
void holder_disown(Holder *holder, uint64_t tag);
/* holder_recover() - before runners are recovered: puts together what the keeper has told. */
void holder_recover(Holder *holder);
/* holder_settle() - after that: what belongs to no runner any more, or to one at rest, is closed; instances know again what
 * they have said. */
void holder_settle(Holder *holder);

/*
 * holder_open() - the sockets of @runner as its configuration wants them now: what is open stays open, what is wanted no
 * more is closed. 0, or a negative errno with why in @error, and which.
 */
int holder_open(Holder *holder, const Runner *runner, char error[HOLDER_ERROR_SIZE]);
/* holder_trim() - its configuration has changed: what it has no more is closed. */
void holder_trim(Holder *holder, const Runner *runner);
/* holder_release() - it is at rest: all is closed. */
void holder_release(Holder *holder, const Runner *runner);
/* holder_must_wait() - something is being closed, and @instance may need its address: its start is queued again then. */
bool holder_must_wait(const Holder *holder, const Instance *instance);

/* holder_pass() - 0 or -ENOMEM. */
int holder_pass(const Holder *holder, const Runner *runner, HolderPass *ret_pass);
void holder_pass_deinit(HolderPass *pass);

/*
 * holder_store() - for @instance of @runner: @fd_consume under @name. 0, also where it is stored already; -EDQUOT: it has as
 * many as it may; -ENOMEM, -EMFILE. holder_unstore() - all of that name; returns how many.
 */
int holder_store(Holder *holder, const Runner *runner, const char *name, bool poll, int fd_consume);
unsigned holder_unstore(Holder *holder, const Runner *runner, const char *name);

/* holder_first(), holder_next() - what is held of @runner, in the order in which it is passed, or NULL. */
const Held *holder_first(const Holder *holder, const Runner *runner);
const Held *holder_next(const Held *held);
const BoardEntry *holder_entry(const Holder *holder, const Held *held);
int holder_fd(const Held *held);

/*
 * holder_state() - of @instance, for what it says of itself; made if there is none. Valid until the next one is made. NULL:
 * no memory. holder_find_state() - NULL: it has said nothing yet. holder_forget_state() - its end.
 */
BoardEntry *holder_state(Holder *holder, const Instance *instance);
BoardEntry *holder_find_state(const Holder *holder, const Instance *instance);
void holder_forget_state(Holder *holder, const Instance *instance);

DEFINE_CLEANUP(Holder *, holder_free);

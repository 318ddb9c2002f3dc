#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The holder: descriptors that belong to a runner and not to one instance of it. Its sockets, opened as configured before
 * the first start, and what it has stored by FDSTORE=1. Each instance is passed all of them: sockets first, in the order of
 * the configuration, then what was stored, the oldest first. They are with the keeper, too, and on a board that says
 * which is which: so they outlive a supervisor. They go when the runner is at rest: stopped, failed, removed.
 *
 * Of a native runner with `recover: failover' two more things, which no instance is passed: its last checkpoint, which goes
 * when the runner has ended as it was to, and stays when it has failed; and the runner's end of each attached client's lane,
 * which goes with the client, or when the runner is at rest.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/keeper-message.h"
#include "common/macro.h"
#include "proto/manifest.h"
#include "supervisor/board.h"

typedef struct Held Held;
typedef struct Holder Holder;
typedef struct HolderPass HolderPass;
typedef struct Instance Instance;
typedef struct Keeping Keeping;
typedef struct Kept Kept;
typedef struct Runner Runner;
typedef struct Supervisor Supervisor;

enum { HOLDER_ERROR_SIZE = 512 };

/* A checkpoint. kept_unref() accepts NULL, and returns it. */
struct Kept {
        unsigned refs;
        size_t place;      /* on the board */
        Manifest manifest; /* with its descriptors: as a Save gives it, and a Takeover takes it */
};
Kept *kept_ref(Kept *kept);
Kept *kept_unref(Kept *kept);

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

/*
 * holder_keep() - a checkpoint that @instance has made, with all that @manifest has, which is emptied: @done is called, once
 * and later, when the keeper has all of it, and it is the last one of its runner; or with why it is not, and nothing of it
 * is left: -ENOSPC, -EMFILE: the keeper has no room; -ENOMEM. holder_keep() itself: 0, or a negative errno: @done is not
 * called. holder_keep_cancel() - nobody wants it any more. Accepts NULL.
 */
typedef void (*HolderKept)(int result, void *userdata);
int holder_keep(Holder *holder, const Instance *instance, uint64_t state_size, Manifest *manifest, HolderKept done,
                void *userdata, Keeping **ret_keeping);
void holder_keep_cancel(Keeping *keeping);
/*
 * holder_kept() - the last checkpoint, or NULL. holder_kept_entry() - what is known of it, valid as long as it is the last.
 * holder_unkeep() - it goes, but for who has a reference.
 */
Kept *holder_kept(const Holder *holder, const Runner *runner);
const BoardEntry *holder_kept_entry(const Holder *holder, const Kept *kept);
void holder_unkeep(Holder *holder, const Runner *runner);

/*
 * holder_attach() - the runner's end of a client's lane, of which a duplicate is held until either end hangs up. 0, or a
 * negative errno. holder_first_lane(), and holder_next() - all of them. holder_tag() - by which holder_detach() knows it.
 * holder_next_epoch() - for another renewal of it.
 */
int holder_attach(Holder *holder, const Runner *runner, const struct ucred *client, const char *software, int lane);
const Held *holder_first_lane(const Holder *holder, const Runner *runner);
uint64_t holder_tag(const Held *held);
uint32_t holder_next_epoch(const Held *lane);
void holder_detach(Holder *holder, uint64_t tag);

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

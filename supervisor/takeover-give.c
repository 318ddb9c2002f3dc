/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover, what is given while we serve: in rounds, each bounded, until little is left or it does not become less; what is in
 * the way of the freeze is waited for. Then, in one turn of the loop and from outside of every callback of a peer, the rest
 * is written down.
 */

#include "supervisor/takeover-internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "supervisor/fault.h"
#include "supervisor/precopy.h"
#include "supervisor/snapshot-check.h"

#define RETRY_US   (2 * USEC_PER_MSEC)
#define ROUND_MAX  128u /* runners that are written down in one turn, or an eighth of that of connections */
#define FEW        16u  /* as many may have to be given while we are frozen */
#define PASSES_MAX 8u

static void round_over(Takeover *takeover) {
        if (takeover->gives)
                transfer_deinit(&takeover->transfer);
        takeover->gives = false;
        takeover->memfd = fd_close(takeover->memfd);
        manifest_deinit(&takeover->manifest);
}

void takeover_stop_giving(Takeover *takeover) {
        loop_io_stop(&takeover->io);
        loop_timer_stop(&takeover->round);
        loop_timer_stop(&takeover->retry);
        loop_task_cancel(&takeover->attempt);
        round_over(takeover);
        precopy_end(takeover->supervisor);
        snapshot_check_end();
}

/* attempt() - at the end of a turn, when nobody has anything left to do in it: all is written, all is sent. */
static void attempt(LoopTask *task) {
        Takeover *takeover = CONTAINER_OF(task, Takeover, attempt);
        Supervisor *supervisor = takeover->supervisor;
        SnapshotPart part = { .asker = takeover->call, .begun_us = takeover->begun_us };
        Manifest manifest = MANIFEST_NULL;
        _cleanup_fd_ int memfd = -1;
        bool waits = true;
        int r = 0;

        if (!snapshot_obstacle(supervisor, takeover->why))
                r = supervisor_rest(supervisor);
        if (supervisor->takeover != takeover)
                return; /* whoever asked for it has gone meanwhile */
        if (r < 0) {
                (void) snprintf(takeover->why, sizeof(takeover->why), "the keeper has not answered everything");
        } else if (snapshot_obstacle(supervisor, takeover->why)) {
                supervisor_go_on(supervisor); /* it may last, and its end may need a start */
                r = -EAGAIN;
        } else {
                if (!takeover->check && takeover_enter(takeover, TAKEOVER_PHASE_FREEZE) < 0) {
                        takeover_cancel(takeover, TAKEOVER_FAULT_REFUSED);
                        return;
                }
                waits = false;
                r = snapshot_save(supervisor, &part, &manifest, &memfd, takeover->why);
        }
        if (r == 0)
                takeover_hand_over(takeover, &manifest);
        else if (r == -EAGAIN && waits)
                loop_timer_set(supervisor->loop, &takeover->retry, clock_after(clock_now(), RETRY_US));
        else if (r == -EAGAIN) /* this one lacks what had been written down by then */
                takeover_again(takeover);
        else
                takeover_cancel(takeover, takeover->why);
        manifest_deinit(&manifest);
}

static void begin_pass(Takeover *takeover) {
        takeover->before = takeover->left = takeover->supervisor->precopy.n_changed;
        takeover->n_passes++;
        loop_timer_set(takeover->supervisor->loop, &takeover->round, clock_now());
}

/* retry() - what waited may have passed. Meanwhile much may have changed: that is given first. */
static void retry(LoopTimer *timer) {
        Takeover *takeover = CONTAINER_OF(timer, Takeover, retry);

        if (takeover->supervisor->precopy.n_changed > 4 * FEW)
                begin_pass(takeover);
        else
                loop_task_queue(takeover->supervisor->loop, &takeover->attempt);
}

/* pass_is_over() - true: it makes no sense to give more before the freeze: there is little, or it does not become less. */
static bool pass_is_over(Takeover *takeover) {
        const Supervisor *supervisor = takeover->supervisor;
        size_t n = supervisor->precopy.n_changed;

        if (takeover->left > 0 ||
            events_next_seq(supervisor->events) - supervisor->precopy.next_event > SNAPSHOT_EVENTS_MAX / 4)
                return false;
        if (takeover->has_given && (n <= FEW || n >= takeover->before || takeover->n_passes >= PASSES_MAX))
                return true;
        takeover->has_given = true;
        takeover->n_passes += n > FEW;
        takeover->before = takeover->left = n;
        return n <= FEW;
}

void takeover_give_more(Takeover *takeover) {
        TransferState state;

        do {
                state = transfer_step(&takeover->transfer);
        } while (state == TRANSFER_SAID);
        if (state == TRANSFER_FAILED) {
                takeover_cancel(takeover, takeover->transfer.reason);
        } else if (state == TRANSFER_DONE) {
                round_over(takeover);
                loop_io_set(takeover->supervisor->loop, &takeover->io, takeover->socket, LOOP_IN);
                loop_timer_set(takeover->supervisor->loop, &takeover->round, clock_now());
        } else {
                loop_io_set(takeover->supervisor->loop, &takeover->io, takeover->socket,
                            LOOP_IN | (transfer_events(&takeover->transfer) & POLLOUT ? LOOP_OUT : 0));
        }
}

/* freeze_soon() - there is nothing left that had better be given before. */
static void freeze_soon(Takeover *takeover) {
        uint64_t hold = takeover->was_held ? 0 : snapshot_check_hold();

        takeover->n_passes = 0;
        takeover->was_held = true;
        if (hold > 0)
                loop_timer_set(takeover->supervisor->loop, &takeover->retry, clock_after(clock_now(), hold));
        else
                loop_task_queue(takeover->supervisor->loop, &takeover->attempt);
}

/* give_round() - some of what has changed, while we serve: what is written down in one turn is bounded. */
static void give_round(LoopTimer *timer) {
        Takeover *takeover = CONTAINER_OF(timer, Takeover, round);
        Supervisor *supervisor = takeover->supervisor;
        SnapshotPart part = { .is_partial = true,
                              .no_runners = !takeover->takes_runners,
                              .max = ROUND_MAX,
                              .begun_us = takeover->begun_us };

        if (pass_is_over(takeover)) {
                freeze_soon(takeover);
                return;
        }
        if (snapshot_save(supervisor, &part, &takeover->manifest, &takeover->memfd, takeover->why) < 0) {
                takeover_cancel(takeover, takeover->why);
                return;
        }
        takeover->left -= MIN(takeover->left, part.n_seen);
        transfer_give(&takeover->transfer, takeover->socket, &takeover->manifest);
        takeover->gives = true;
        takeover_give_more(takeover); /* now, as what is closed later in this turn must be on its way by then */
}

void takeover_init_giving(Takeover *takeover) {
        takeover->round = LOOP_TIMER_NULL(give_round);
        takeover->retry = LOOP_TIMER_NULL(retry);
        takeover->attempt = LOOP_TASK_NULL(attempt);
}

void takeover_begin_giving(Takeover *takeover) {
        precopy_begin(takeover->supervisor);
        begin_pass(takeover);
}

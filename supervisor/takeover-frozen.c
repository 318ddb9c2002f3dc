/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover, frozen: the keeper is told FROZEN, the last descriptors are given, and from there on nothing but poll(2) and the
 * keeper's word decides: LEAVE, and this process is over; or THAW, and the loop turns as if nothing had been. A time-out asks
 * the keeper by ABORT, it decides nothing. With --check the same is given, and nothing is frozen.
 *
 * What the keeper reports meanwhile is thrown away: exits are reported once more after THAW, or to the successor. A reload
 * is not: it is asked for again.
 */

#include "supervisor/takeover-internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/step.h"
#include "supervisor/control-internal.h"
#include "supervisor/fault.h"

typedef struct Frozen {
        Takeover *takeover;
        Transfer transfer;
        TransferState state;
        uint64_t given_us; /* when the successor had everything; 0: not yet */
        bool aborted, reload, over;
        char why[MANIFEST_REASON_SIZE]; /* of the keeper's THAW */
} Frozen;

static void hear_keeper(Frozen *frozen) {
        KeeperLink *link = frozen->takeover->supervisor->link;
        KeeperMessage m;
        int r;

        while (!frozen->over && (r = keeper_link_hear(link, &m)) != -EAGAIN) {
                if (r < 0 || m.type == KEEPER_LEAVE) {
                        (void) fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_RESUME);
                        if (r == 0 && frozen->reload)
                                (void) kill(getppid(), SIGHUP);
                        fault_end();
                        loop_leave(frozen->takeover->supervisor->loop, KEEPER_RESERVED_FDS);
                        _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS); /* nothing of ours may be ended in order */
                }
                frozen->reload |= m.type == KEEPER_RELOAD;
                frozen->over = m.type == KEEPER_THAW;
                if (frozen->over)
                        (void) snprintf(frozen->why, sizeof(frozen->why), "%.*s", (int) sizeof(m.record) - 1,
                                        (const char *) m.record);
        }
}

static void abort_once(Frozen *frozen) {
        if (!frozen->aborted)
                (void) keeper_link_abort(frozen->takeover->supervisor->link);
        frozen->aborted = true;
}

static void give(Frozen *frozen) {
        while (frozen->state == TRANSFER_WAITS || frozen->state == TRANSFER_SAID) {
                frozen->state = transfer_step(&frozen->transfer);
                if (frozen->state == TRANSFER_WAITS)
                        return;
        }
        if (frozen->state != TRANSFER_DONE || frozen->given_us > 0)
                return;
        frozen->given_us = clock_now();
        if (!frozen->takeover->check && fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_COMMIT) < 0)
                abort_once(frozen);
}

/* wait_frozen() - until THAW; LEAVE does not return. */
static void wait_frozen(Frozen *frozen) {
        Takeover *takeover = frozen->takeover;

        while (!frozen->over) {
                bool gives = frozen->state == TRANSFER_WAITS || frozen->state == TRANSFER_SAID;
                uint64_t now = clock_now();
                struct pollfd fds[] = {
                        { .fd = keeper_link_fd(takeover->supervisor->link), .events = POLLIN },
                        { .fd = gives ? takeover->socket : -1,
                          .events = gives ? transfer_events(&frozen->transfer) : 0 },
                };
                int timeout =
                        frozen->aborted
                                ? 1000
                                : (int) (MIN(takeover->deadline - MIN(now, takeover->deadline), 60 * USEC_PER_SEC) /
                                         USEC_PER_MSEC) +
                                          1;

                (void) poll(fds, ARRAY_SIZE(fds), timeout);
                give(frozen);
                if (frozen->state == TRANSFER_FAILED || clock_now() >= takeover->deadline)
                        abort_once(frozen);
                hear_keeper(frozen);
        }
}

/* rehearse() - the same, while nothing is frozen: whether all of it arrives. */
static bool rehearse(Frozen *frozen) {
        Takeover *takeover = frozen->takeover;
        char word[TRANSFER_WORD_SIZE];
        int r = -EAGAIN;

        while (clock_now() < takeover->deadline && r == -EAGAIN && frozen->state != TRANSFER_FAILED) {
                struct pollfd fd = { .fd = takeover->socket, .events = POLLIN };

                if (frozen->state != TRANSFER_DONE) {
                        fd.events = transfer_events(&frozen->transfer);
                        give(frozen);
                }
                if (frozen->state == TRANSFER_DONE)
                        r = transfer_hear(takeover->socket, word);
                if (r == -EAGAIN && frozen->state != TRANSFER_FAILED)
                        (void) poll(&fd, 1, 1000);
        }
        if (r == 0 && strcmp(word, TAKEOVER_WORD_TAKEN) == 0)
                return true;
        (void) snprintf(frozen->why, sizeof(frozen->why), "%s",
                        *frozen->transfer.reason ? frozen->transfer.reason
                                                 : "the successor did not take the snapshot");
        return false;
}

static void checked(Takeover *takeover, uint64_t frozen_us) {
        Baton__Control__TakeoverResponse response = BATON__CONTROL__TAKEOVER_RESPONSE__INIT;
        Supervisor *supervisor = takeover->supervisor;
        Call *call = TAKE_PTR(takeover->call);
        uint64_t now = clock_now();

        (void) keeper_link_abort(supervisor->link);
        fault_end();
        takeovers_end(supervisor->takeovers, TAKEOVER_CHECKED, NULL);
        response.generation = response.former_generation = supervisor->generation;
        response.pid = response.former_pid = getpid();
        response.total_us = now - takeover->begun_us;
        response.pause_us = now - frozen_us;
        response.connections = listener_counts(supervisor->listener).clients;
        if (call)
                call_on_cancel(call, NULL, NULL);
        supervisor->takeover = takeover_free(takeover);
        if (call)
                (void) call_answer_message(call, &response.base);
}

void takeover_hand_over(Takeover *takeover, const Manifest *manifest) {
        Frozen frozen = { .takeover = takeover, .state = TRANSFER_WAITS };
        Supervisor *supervisor = takeover->supervisor;
        uint64_t now = clock_now();

        if (takeover_enter(takeover, TAKEOVER_PHASE_DELTA) < 0) {
                takeover_cancel(takeover, TAKEOVER_FAULT_REFUSED);
                return;
        }
        loop_io_stop(&takeover->io);
        transfer_give(&frozen.transfer, takeover->socket, manifest);
        if (takeover->check) {
                bool fine = rehearse(&frozen);

                transfer_deinit(&frozen.transfer);
                if (fine)
                        checked(takeover, now);
                else
                        takeover_cancel(takeover, frozen.why);
                return;
        }
        step_note("supervisor", "freeze", 0);
        (void) keeper_link_frozen(supervisor->link);
        wait_frozen(&frozen);
        step_note("supervisor", "active", 0);
        if (frozen.given_us > 0)
                takeovers_phase_at(supervisor->takeovers, TAKEOVER_PHASE_COMMIT, frozen.given_us);
        takeover_end(takeover, *frozen.transfer.reason ? frozen.transfer.reason : frozen.why);
        transfer_deinit(&frozen.transfer);
        if (frozen.reload)
                (void) kill(getppid(), SIGHUP);
}

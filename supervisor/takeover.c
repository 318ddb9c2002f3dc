/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover, the predecessor's side. While a successor is started and until everything is at rest we serve on. Then, in one
 * turn of the loop and from outside of every callback of a peer, everything is written down, the keeper is told FROZEN, the
 * descriptors are given, and from there on nothing but poll(2) and the keeper's word decides: LEAVE, and this process is
 * over; or THAW, and the loop turns as if nothing had been. A time-out asks the keeper by ABORT, it decides nothing.
 *
 * What the keeper reports meanwhile is thrown away: exits are reported once more after THAW, or to the successor. A reload
 * is not: it is asked for again.
 */

#include "supervisor/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/step.h"
#include "proto/transfer.h"
#include "supervisor/control-internal.h"
#include "supervisor/fault.h"
#include "supervisor/reload.h"
#include "supervisor/snapshot-check.h"
#include "supervisor/snapshot.h"

#define TIMEOUT_US (30 * USEC_PER_SEC)
#define RETRY_US   (2 * USEC_PER_MSEC)
#define ROUND_MAX  256u /* runners that are written down in one turn, or an eighth of that of connections */
#define FEW        16u  /* as many may have to be given while we are frozen */
#define PASSES_MAX 8u
#define SPARE_FDS  64 /* what a successor needs besides what we have */

#define FAULT_REFUSED "the predecessor refuses, at a fault point"

struct Takeover {
        Supervisor *supervisor;
        Call *call;
        uint64_t begun_us, deadline;
        int program, socket, remote; /* remote: the successor's end, until the keeper has it */
        LoopIo io;
        LoopTimer round, retry, late;
        LoopTask attempt;
        Transfer transfer; /* of a round, while `gives' */
        Manifest manifest;
        int memfd;
        size_t left, before; /* of this pass over what has changed; what there was of it */
        unsigned n_passes;
        bool gives, has_given; /* a round; everything, once */
        bool check;
        bool was_held;      /* before the freeze (snapshot_check_hold()) */
        bool asked;         /* TAKEOVER was sent */
        bool takes_runners; /* the successor does, before the end */
        bool arms;          /* the successor was told of a fault point */
        char why[MANIFEST_REASON_SIZE];
};

static void round_over(Takeover *takeover) {
        if (takeover->gives)
                transfer_deinit(&takeover->transfer);
        takeover->gives = false;
        takeover->memfd = fd_close(takeover->memfd);
        manifest_deinit(&takeover->manifest);
}

static void stop_giving(Takeover *takeover) {
        loop_io_stop(&takeover->io);
        loop_timer_stop(&takeover->round);
        loop_timer_stop(&takeover->retry);
        loop_task_cancel(&takeover->attempt);
        round_over(takeover);
        precopy_end(takeover->supervisor);
        snapshot_check_end();
}

Takeover *takeover_free(Takeover *takeover) {
        if (!takeover)
                return NULL;
        supervisor_release(takeover->supervisor);
        keeper_link_forget(takeover->supervisor->link, takeover);
        loop_timer_stop(&takeover->late);
        stop_giving(takeover);
        if (takeover->call)
                call_on_cancel(takeover->call, NULL, NULL);
        fd_close(takeover->program);
        fd_close(takeover->socket);
        fd_close(takeover->remote);
        free(takeover);
        return NULL;
}

/* enter() - the next phase. -ECANCELED: not so, at a fault point. */
static int enter(const Takeover *takeover, TakeoverPhase phase) {
        takeovers_phase(takeover->supervisor->takeovers, phase);
        return fault_point(FAULT_PREDECESSOR, phase);
}

/* end() - it is over, and we serve on. */
static void end(Takeover *takeover, const char *why) {
        Supervisor *supervisor = takeover->supervisor;
        Call *call = TAKE_PTR(takeover->call);
        char reason[MANIFEST_REASON_SIZE];

        (void) snprintf(reason, sizeof(reason), "%s", why);
        if (call)
                call_on_cancel(call, NULL, NULL);
        supervisor->takeover = takeover_free(takeover);
        fault_end();
        takeovers_end(supervisor->takeovers, TAKEOVER_ROLLED_BACK, reason);
        if (call)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "takeover: %s; pid %d goes on", reason, getpid());
}

void takeover_cancel(Takeover *takeover, const char *why) {
        if (!takeover)
                return;
        if (takeover->asked)
                (void) keeper_link_abort(takeover->supervisor->link);
        end(takeover, why);
}

/* ---------------------------------------------------------------------------------------------------------------- frozen */

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

static void hand_over(Takeover *takeover, const Manifest *manifest) {
        Frozen frozen = { .takeover = takeover, .state = TRANSFER_WAITS };
        Supervisor *supervisor = takeover->supervisor;
        uint64_t now = clock_now();

        if (enter(takeover, TAKEOVER_PHASE_DELTA) < 0) {
                takeover_cancel(takeover, FAULT_REFUSED);
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
        end(takeover, *frozen.transfer.reason ? frozen.transfer.reason : frozen.why);
        transfer_deinit(&frozen.transfer);
        if (frozen.reload)
                (void) kill(getppid(), SIGHUP);
}

/* --------------------------------------------------------------------------------------------------------------- serving */

/* attempt() - at the end of a turn, when nobody has anything left to do in it: all is written, all is sent. */
static void attempt(LoopTask *task) {
        Takeover *takeover = CONTAINER_OF(task, Takeover, attempt);
        Supervisor *supervisor = takeover->supervisor;
        SnapshotPart part = { .asker = takeover->call, .begun_us = takeover->begun_us };
        Manifest manifest = MANIFEST_NULL;
        _cleanup_fd_ int memfd = -1;
        bool waits = true;
        int r;

        r = supervisor_rest(supervisor);
        if (supervisor->takeover != takeover)
                return; /* whoever asked for it has gone meanwhile */
        if (r < 0) {
                (void) snprintf(takeover->why, sizeof(takeover->why), "the keeper has not answered everything");
        } else if (snapshot_obstacle(supervisor, takeover->why)) {
                r = -EAGAIN;
        } else {
                if (!takeover->check && enter(takeover, TAKEOVER_PHASE_FREEZE) < 0) {
                        takeover_cancel(takeover, FAULT_REFUSED);
                        return;
                }
                waits = false;
                r = snapshot_save(supervisor, &part, &manifest, &memfd, takeover->why);
        }
        if (r == 0)
                hand_over(takeover, &manifest);
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

/* give_more() - the round, as far as it goes without waiting. */
static void give_more(Takeover *takeover) {
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
        give_more(takeover); /* now, as what is closed later in this turn must be on its way by then */
}

static void late(LoopTimer *timer) {
        Takeover *takeover = CONTAINER_OF(timer, Takeover, late);
        char why[MANIFEST_REASON_SIZE];

        (void) snprintf(why, sizeof(why), "not in time: %.480s", takeover->why);
        takeover_cancel(takeover, why);
}

/* began_to_copy() - the successor runs, and is told the keeper's table. */
static void began_to_copy(Takeover *takeover, const char *word) {
        if (takeover->arms && strcmp(word, TAKEOVER_WORD_HERE) == 0)
                takeover_cancel(takeover, "the program was built without fault points");
        else if (enter(takeover, TAKEOVER_PHASE_COPY) < 0)
                takeover_cancel(takeover, FAULT_REFUSED);
        else
                (void) snprintf(takeover->why, sizeof(takeover->why), "the successor reads the keeper's table");
}

/* heard() - a word of the successor's; or it goes on with what it is given; or it is gone. */
static void heard(LoopIo *io, unsigned events) {
        Takeover *takeover = CONTAINER_OF(io, Takeover, io);
        char word[TRANSFER_WORD_SIZE];
        int r;

        (void) events;
        if (takeover->gives) {
                give_more(takeover);
                return;
        }
        r = transfer_hear(takeover->socket, word);
        if (r == -EAGAIN)
                return;
        if (r == 0 && strcmp(word, TAKEOVER_WORD_RUNNERS) == 0) {
                takeover->takes_runners = true;
        } else if (r == 0 && (strcmp(word, TAKEOVER_WORD_HERE) == 0 || strcmp(word, TAKEOVER_WORD_ARMED) == 0)) {
                began_to_copy(takeover, word);
        } else if (r == 0 && strcmp(word, TAKEOVER_WORD_READY) == 0) {
                (void) snprintf(takeover->why, sizeof(takeover->why), "everything was ready");
                precopy_begin(takeover->supervisor);
                begin_pass(takeover);
        } else {
                takeover_cancel(takeover, takeover->has_given ? "the successor is gone: its own lines say why"
                                                              : "the program ended before it could take anything: its "
                                                                "own lines say why");
        }
}

static void began(KeeperLink *link, int result, void *userdata) {
        Takeover *takeover = userdata;
        char why[128];

        (void) link;
        takeover->remote = fd_close(takeover->remote);
        if (result == 0) {
                (void) snprintf(takeover->why, sizeof(takeover->why), "the successor did not begin");
                loop_io_set(takeover->supervisor->loop, &takeover->io, takeover->socket, LOOP_IN);
                return;
        }
        takeover->asked = false;
        (void) snprintf(why, sizeof(why), "the keeper cannot start the successor: %s", strerror(-result));
        end(takeover, why);
}

static void begin(Takeover *takeover) {
        int r;

        takeovers_phase(takeover->supervisor->takeovers, TAKEOVER_PHASE_START);
        r = keeper_link_takeover(takeover->supervisor->link, takeover->remote, began, takeover);

        takeover->asked = r == 0;
        if (r < 0)
                end(takeover, strerror(-r));
        else if (fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_START) < 0)
                takeover_cancel(takeover, FAULT_REFUSED);
}

static void program_given(KeeperLink *link, int result, void *userdata) {
        Takeover *takeover = userdata;

        (void) link;
        if (result == 0)
                begin(takeover);
        else
                end(takeover, strerror(-result));
}

static void ask_keeper(Takeover *takeover);

/* open_pair() - to the successor, which is offered what not every version takes. 0 or a negative errno. */
static int open_pair(Takeover *takeover) {
        int pair[2], r = fd_socketpair(SOCK_SEQPACKET, pair);

        if (r < 0)
                return r;
        takeover->socket = pair[0];
        takeover->remote = pair[1];
        return transfer_say(takeover->socket, TAKEOVER_WORD_RUNNERS);
}

void takeover_again(Takeover *takeover) {
        if (!takeover || !takeover->asked)
                return;
        keeper_link_forget(takeover->supervisor->link, takeover);
        (void) keeper_link_abort(takeover->supervisor->link);
        stop_giving(takeover);
        takeover->asked = takeover->arms = takeover->takes_runners = takeover->has_given = false;
        fd_close(takeover->remote);
        fd_close(takeover->socket);
        takeover->remote = takeover->socket = -1;
        if (open_pair(takeover) < 0) {
                end(takeover, "no descriptors to begin it again with another successor");
                return;
        }
        ask_keeper(takeover);
}

static void cancelled(Call *call, void *userdata) {
        Takeover *takeover = userdata;

        takeover->call = NULL;
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
        takeover_cancel(takeover, "whoever asked for it is gone");
}

/* open_program() - @path of the request, or where supervisors come from. */
static int open_program(const char *path, char *text, size_t size) {
        const char *directory = secure_getenv("BATON_LIBEXEC");
        int fd;

        if (*path)
                (void) snprintf(text, size, "%s", path);
        else
                (void) snprintf(text, size, "%s/baton-supervisor", directory ? directory : BATON_LIBEXECDIR);
        fd = *text == '/' ? open(text, O_PATH | O_CLOEXEC) : -1;
        return fd < 0 ? *text == '/' ? -errno : -EINVAL : fd;
}

static Takeover *takeover_new(Supervisor *supervisor, Call *call, const Baton__Control__TakeoverRequest *request) {
        Takeover *takeover = calloc(1, sizeof(*takeover));
        uint64_t timeout = request->timeout_us ? MIN(request->timeout_us, TIMEOUT_MAX_US) : TIMEOUT_US;

        if (!takeover)
                return NULL;
        *takeover = (Takeover){
                .supervisor = supervisor,
                .call = call,
                .begun_us = clock_now(),
                .program = -1,
                .socket = -1,
                .remote = -1,
                .io = LOOP_IO_NULL(heard),
                .memfd = -1,
                .manifest = MANIFEST_NULL,
                .round = LOOP_TIMER_NULL(give_round),
                .retry = LOOP_TIMER_NULL(retry),
                .attempt = LOOP_TASK_NULL(attempt),
                .late = LOOP_TIMER_NULL(late),
                .check = request->check,
        };
        takeover->deadline = clock_after(takeover->begun_us, timeout);
        if (open_pair(takeover) < 0) {
                takeover_free(takeover);
                return NULL;
        }
        loop_timer_set(supervisor->loop, &takeover->late, takeover->deadline);
        return takeover;
}

/*
 * fits() - whether a successor can have all that we have: it raises its limit as we did, to the hard one. What the keeper
 * needs for it is within what it keeps free of stored descriptors.
 */
static bool fits(char reason[MANIFEST_REASON_SIZE]) {
        struct rlimit limit;
        int open = fd_count();

        if (open < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max == RLIM_INFINITY ||
            (rlim_t) open + SPARE_FDS <= limit.rlim_max)
                return true;
        (void) snprintf(reason, MANIFEST_REASON_SIZE,
                        "the successor needs up to %d descriptors, and may have %ju: raise the limit of open files "
                        "(RLIMIT_NOFILE)",
                        open + SPARE_FDS, (uintmax_t) limit.rlim_max);
        return false;
}

/* refuse() - before anything was begun. */
static void refuse(Supervisor *supervisor, Call *call, Status status, const char *reason) {
        fault_end();
        takeovers_end(supervisor->takeovers, TAKEOVER_ROLLED_BACK, reason);
        (void) call_fail(call, status, "takeover: %s", reason);
}

/* set_fault() - 0; 1: it is one of the successor's; negative: there is no such point, and @call has been failed. */
static int set_fault(Call *call, const char *fault) {
        char reason[FAULT_REASON_SIZE];
        int r;

        if (!*fault)
                return 0;
        r = strlen(fault) < FAULT_TEXT_SIZE ? fault_set(fault, FAULT_PREDECESSOR, reason) : -ENAMETOOLONG;
        if (r == -ENAMETOOLONG)
                (void) snprintf(reason, sizeof(reason), "that is too long for a fault point");
        if (r < 0)
                (void) call_fail(call, r == -EOPNOTSUPP ? STATUS_UNIMPLEMENTED : STATUS_INVALID_ARGUMENT,
                                 "takeover: %s", reason);
        return r;
}

/* arm() - the successor hears of its fault point before anything else: this waits for it when it begins. */
static int arm(Takeover *takeover, const char *fault) {
        char word[sizeof(TAKEOVER_WORD_FAULT) + FAULT_TEXT_SIZE];

        (void) snprintf(word, sizeof(word), "%s%s", TAKEOVER_WORD_FAULT, fault);
        takeover->arms = true;
        return transfer_say(takeover->socket, word);
}

static void ask_keeper(Takeover *takeover) {
        int r;

        if (fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_CHECK) < 0) { /* which it entered when it began */
                end(takeover, FAULT_REFUSED);
                return;
        }
        r = keeper_link_program(takeover->supervisor->link, takeover->program, program_given, takeover);
        if (r < 0)
                end(takeover, strerror(-r));
}

void control_takeover(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__TakeoverRequest *request = (const Baton__Control__TakeoverRequest *) message;
        Supervisor *supervisor = control->supervisor;
        char path[4096], reason[MANIFEST_REASON_SIZE];
        _cleanup_fd_ int program = -1;
        int faults;

        if (!supervisor->followed) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "takeover: a private supervisor has no successor");
                return;
        }
        if (supervisor->takeover || supervisor->replacement || supervisor->stopping) {
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "takeover: %s",
                                 supervisor->stopping ? "the supervisor is stopping" : "one is under way");
                return;
        }
        faults = set_fault(call, request->fault);
        if (faults < 0)
                return;
        program = open_program(request->program, path, sizeof(path));
        takeovers_begin(supervisor->takeovers, supervisor->generation, path, request->check);
        if (program < 0) {
                (void) snprintf(reason, sizeof(reason), "cannot open %.400s: %s", path,
                                program == -EINVAL ? "the path must be absolute" : strerror(-program));
                refuse(supervisor, call, STATUS_FAILED_PRECONDITION, reason);
                return;
        }
        if (!fits(reason)) {
                refuse(supervisor, call, STATUS_RESOURCE_EXHAUSTED, reason);
                return;
        }
        supervisor->takeover = takeover_new(supervisor, call, request);
        if (!supervisor->takeover || (faults > 0 && arm(supervisor->takeover, request->fault) < 0)) {
                supervisor->takeover = takeover_free(supervisor->takeover);
                refuse(supervisor, call, STATUS_RESOURCE_EXHAUSTED, "no memory, or descriptors");
                return;
        }
        call_on_cancel(call, cancelled, supervisor->takeover);
        supervisor->takeover->program = fd_take(&program);
        ask_keeper(supervisor->takeover);
}

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover, the predecessor's side: what is asked of us and of the keeper, and what the successor says before it is given
 * anything. We serve all the time, until everything that can be given before the freeze was (takeover-give.c); what then
 * decides is the keeper (takeover-frozen.c).
 */

#include "supervisor/takeover-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "supervisor/control-internal.h"
#include "supervisor/fault.h"

#define TIMEOUT_US (30 * USEC_PER_SEC)
#define SPARE_FDS  64 /* what a successor needs besides what we have */

Takeover *takeover_free(Takeover *takeover) {
        if (!takeover)
                return NULL;
        supervisor_release(takeover->supervisor);
        keeper_link_forget(takeover->supervisor->link, takeover);
        loop_timer_stop(&takeover->late);
        takeover_stop_giving(takeover);
        if (takeover->call)
                call_on_cancel(takeover->call, NULL, NULL);
        fd_close(takeover->program);
        fd_close(takeover->socket);
        fd_close(takeover->remote);
        free(takeover);
        return NULL;
}

int takeover_enter(const Takeover *takeover, TakeoverPhase phase) {
        takeovers_phase(takeover->supervisor->takeovers, phase);
        return fault_point(FAULT_PREDECESSOR, phase);
}

void takeover_end(Takeover *takeover, const char *why) {
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
        takeover_end(takeover, why);
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
        else if (takeover_enter(takeover, TAKEOVER_PHASE_COPY) < 0)
                takeover_cancel(takeover, TAKEOVER_FAULT_REFUSED);
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
                takeover_give_more(takeover);
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
                takeover_begin_giving(takeover);
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
        takeover_end(takeover, why);
}

static void begin(Takeover *takeover) {
        int r;

        takeovers_phase(takeover->supervisor->takeovers, TAKEOVER_PHASE_START);
        r = keeper_link_takeover(takeover->supervisor->link, takeover->remote, began, takeover);

        takeover->asked = r == 0;
        if (r < 0)
                takeover_end(takeover, strerror(-r));
        else if (fault_point(FAULT_PREDECESSOR, TAKEOVER_PHASE_START) < 0)
                takeover_cancel(takeover, TAKEOVER_FAULT_REFUSED);
}

static void program_given(KeeperLink *link, int result, void *userdata) {
        Takeover *takeover = userdata;

        (void) link;
        if (result == 0)
                begin(takeover);
        else
                takeover_end(takeover, strerror(-result));
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
        takeover_stop_giving(takeover);
        takeover->asked = takeover->arms = takeover->takes_runners = takeover->has_given = false;
        fd_close(takeover->remote);
        fd_close(takeover->socket);
        takeover->remote = takeover->socket = -1;
        if (open_pair(takeover) < 0) {
                takeover_end(takeover, "no descriptors to begin it again with another successor");
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
                .late = LOOP_TIMER_NULL(late),
                .check = request->check,
        };
        takeover_init_giving(takeover);
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
                takeover_end(takeover, TAKEOVER_FAULT_REFUSED);
                return;
        }
        r = keeper_link_program(takeover->supervisor->link, takeover->program, program_given, takeover);
        if (r < 0)
                takeover_end(takeover, strerror(-r));
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

/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fault points, of a build for rehearsals and of the tests'. There is one at a time, in memory of this process alone: a
 * supervisor runs one takeover at a time. Faults are the real ones, SIGKILL and a limit of the kernel's, not pretended ones,
 * so that what is rehearsed is what would happen.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/parse.h"
#include "supervisor/fault-calls.h"
#include "supervisor/fault.h"

typedef enum Fault {
        FAULT_NONE,
        FAULT_KILL,
        FAULT_REFUSE,
        FAULT_HANG,
        FAULT_EMFILE,
        FAULT_CALL,
        _FAULT_N,
} Fault;

static const char *const fault_names[_FAULT_N] = {
        [FAULT_KILL] = "kill",
        [FAULT_REFUSE] = "refuse",
        [FAULT_HANG] = "hang",
        [FAULT_EMFILE] = "emfile",
};
static const char *const side_names[_FAULT_SIDE_N] = { "predecessor", "successor" };

typedef struct Point {
        FaultSide side;
        TakeoverPhase phase;
        Fault fault;
        char call[32];
        int error;
        unsigned nth;
} Point;

static Point current;
static struct rlimit taken; /* what fault_end() gives back */
static bool is_taken;

/* ------------------------------------------------------------------------------------------------------------- the words */

static int find(const char *const names[], size_t n, const char *word, size_t length) {
        for (size_t i = 0; i < n; i++)
                if (names[i] && strlen(names[i]) == length && memcmp(names[i], word, length) == 0)
                        return (int) i;
        return -EINVAL;
}

static int find_phase(const char *word, size_t length) {
        for (unsigned i = 0; i < _TAKEOVER_PHASE_N; i++)
                if (strlen(takeover_phase_name(i)) == length && memcmp(takeover_phase_name(i), word, length) == 0)
                        return (int) i;
        return -EINVAL;
}

/* parse_call() - "sendmsg=ENOBUFS,2". */
static int parse_call(const char *text, Point *point) {
        const char *equals = strchr(text, '='), *comma = equals ? strchr(equals, ',') : NULL;
        size_t length = equals ? (size_t) (equals - text) : 0, n;
        uint64_t nth = 1;

        if (length == 0 || length >= sizeof(point->call) || (comma && parse_u64(comma + 1, 1000000, &nth) < 0))
                return -EINVAL;
        n = comma ? (size_t) (comma - equals) - 1 : strlen(equals + 1);
        for (int error = 1; error < 256 && point->error == 0; error++) {
                const char *name = strerrorname_np(error);

                if (name && strlen(name) == n && memcmp(name, equals + 1, n) == 0)
                        point->error = error;
        }
        (void) snprintf(point->call, sizeof(point->call), "%.*s", (int) length, text);
        point->fault = FAULT_CALL;
        point->nth = (unsigned) nth;
        return point->error > 0 && nth > 0 && fault_has_call(point->call) ? 0 : -EINVAL;
}

static int parse(const char *text, Point *ret_point, char reason[FAULT_REASON_SIZE]) {
        const char *colon = strchr(text, ':'), *at = strchr(text, '@');
        Point point = { .side = FAULT_PREDECESSOR };
        int phase, side = 0, fault;

        if (!colon || (at && at > colon))
                at = NULL;
        phase = colon ? find_phase(text, (size_t) ((at ?: colon) - text)) : -EINVAL;
        if (at)
                side = find(side_names, _FAULT_SIDE_N, at + 1, (size_t) (colon - at) - 1);
        fault = colon ? find(fault_names, _FAULT_N, colon + 1, strlen(colon + 1)) : -EINVAL;
        if (phase < 0 || side < 0 || (fault < 0 && (!colon || parse_call(colon + 1, &point) < 0))) {
                (void) snprintf(reason, FAULT_REASON_SIZE,
                                "%.60s: no fault point; they are PHASE[@successor]:kill, refuse, hang, emfile, with "
                                "check, start, copy, freeze, delta, commit or resume for PHASE",
                                text);
                return -EINVAL;
        }
        if (side == FAULT_SUCCESSOR && (phase == TAKEOVER_PHASE_CHECK || phase == TAKEOVER_PHASE_FREEZE)) {
                (void) snprintf(reason, FAULT_REASON_SIZE, "%.60s: the successor takes no part in this phase", text);
                return -EINVAL;
        }
        point.side = (FaultSide) side;
        point.phase = (TakeoverPhase) phase;
        if (fault > 0)
                point.fault = (Fault) fault;
        *ret_point = point;
        return 0;
}

int fault_set(const char *text, FaultSide own, char reason[FAULT_REASON_SIZE]) {
        Point point;
        int r = parse(text, &point, reason);

        if (r < 0)
                return r;
        if (point.side != own)
                return 1;
        current = point;
        return 0;
}

/* ------------------------------------------------------------------------------------------------------------ the faults */

/* take_descriptors() - the limit becomes what is open: the next one gets EMFILE. */
static void take_descriptors(void) {
        int next = fd_dup(STDERR_FILENO), lowest = -1;
        struct rlimit limit;

        for (int fd = 0; next >= 0 && lowest < 0; fd++)
                if (fd == next || fcntl(fd, F_GETFD) < 0)
                        lowest = fd;
        fd_close(next);
        if (lowest < 0 || getrlimit(RLIMIT_NOFILE, &taken) < 0)
                return;
        limit = taken;
        limit.rlim_cur = (rlim_t) lowest;
        is_taken = setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

int fault_point(FaultSide own, TakeoverPhase phase) {
        Fault fault = current.fault;

        if (fault == FAULT_NONE || current.side != own || current.phase != phase)
                return 0;
        current.fault = FAULT_NONE;
        log_notice("fault point: %s of the %s: %s", takeover_phase_name(phase), side_names[own],
                   fault == FAULT_CALL ? current.call : fault_names[fault]);
        if (fault == FAULT_KILL)
                (void) kill(getpid(), SIGKILL);
        while (fault == FAULT_HANG)
                (void) pause();
        if (fault == FAULT_EMFILE)
                take_descriptors();
        if (fault == FAULT_CALL)
                fault_fail_call(current.call, current.nth, current.error);
        return fault == FAULT_REFUSE ? -ECANCELED : 0;
}

void fault_end(void) {
        if (current.fault == FAULT_NONE && *current.call)
                log_notice("fault point: calls of %s that failed: %u", current.call, fault_pass_calls(current.call));
        current = (Point){ 0 };
        if (is_taken)
                (void) setrlimit(RLIMIT_NOFILE, &taken);
        is_taken = false;
}
